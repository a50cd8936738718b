// SPDX-License-Identifier: GPL-2.0

//! Waiting in a context whose devices have to be asked for what has ended, see
//! [`request::iopoll`](crate::request::iopoll), and asking when nobody waits there any more. No lock is held.

use super::{
    Kioctx,
    User,
    DRAIN, //
};
use crate::{
    kernel_ext::{
        percpu_ref::PercpuRef,
        task,
        wait,
        work::{
            self,
            HasWork, //
        }, //
    },
    ring::protocol::Woken,
};
use core::{
    mem::offset_of,
    ptr::NonNull, //
};

/// How long who has asked in vain sleeps for others, in microseconds; a worker, so long at first, and at most.
const PAUSE: u32 = 20;
const LONGEST_PAUSE: u32 = 10_000;

impl Kioctx {
    /// There is more to ask for: who sleeps has to do that. Full barrier before it is seen who does.
    pub(crate) fn look_again(&self) {
        self.ring.look_again();
    }
}

impl User {
    /// Does who waits have to ask, now or another time?
    #[inline]
    pub(super) fn polls(&self) -> bool {
        self.cache().iopoll().is_wanted()
    }

    /// Is there something to ask for?
    #[inline]
    pub(super) fn asks(&self) -> bool {
        self.polls() && self.cache().iopoll().any()
    }

    /// Asks once, unless so many events are there.
    pub(super) fn ask(&self, unless: u32) {
        if self.asks() && !self.ring.has(unless) {
            self.cache().iopoll().ask(self);
        }
    }

    /// Waits as [`Ring::wait`](crate::ring::Ring::wait), and asks as long as there is something to ask for, before
    /// it looks.
    pub(super) fn wait_or_poll(&self, n: u32, deadline: Option<i64>) -> Woken {
        let iopoll = self.cache().iopoll();
        let n = n.min(self.ring.layout().capacity());
        let mut posted = 0;
        loop {
            while iopoll.any() {
                let now = iopoll.ask(self);
                posted += now;
                // What was posted just now was there, even if somebody else has read it.
                if posted >= n || self.ring.has(n) || self.is_dead() {
                    return Woken::Ready;
                }
                if task::has_signal() {
                    return Woken::Signal;
                }
                if deadline.is_some_and(|deadline| wait::now() >= deadline) {
                    return Woken::TimedOut;
                }
                if now > 0 {
                    continue;
                }
                if task::others_wait() {
                    // It may be one of them who has to end what the device has done.
                    task::pause(PAUSE);
                } else {
                    task::relax();
                }
            }
            let woken = self
                .ring
                .wait(n, deadline, || self.is_dead() || iopoll.any());
            if woken != Woken::Ready || self.is_dead() || self.ring.has(n) {
                return woken;
            }
            // It wasn't woken for that, or others were quicker.
            self.ring.pass_on();
        }
    }
}

// SAFETY: The offset of a field of that type.
unsafe impl HasWork<DRAIN> for Kioctx {
    const OFFSET: usize = offset_of!(Kioctx, work);

    unsafe fn run(this: NonNull<Self>) {
        // SAFETY: Alive, for `drain` has left us a reference to `reqs`.
        let ctx = unsafe { this.as_ref() };
        let mut pause = PAUSE;
        while ctx.cache().iopoll().any() {
            if ctx.cache().iopoll().ask(ctx) > 0 {
                pause = PAUSE;
            } else {
                task::pause(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        // SAFETY: It is ours.
        unsafe { PercpuRef::put_many(&raw const (*this.as_ptr()).reqs, 1) }
    }
}

impl Kioctx {
    /// Nobody will wait any more: a worker asks for what is left. Any context.
    ///
    /// # Safety
    ///
    /// There must be a reference to `reqs`, and this be called once, after the last of `users` was given up. `work`
    /// must not be queued.
    pub(super) unsafe fn drain(this: NonNull<Self>) {
        // SAFETY: As the caller says. The worker has a reference of its own.
        unsafe {
            if this.as_ref().cache().iopoll().any() {
                this.as_ref().reqs.get_many(1);
                work::queue::<Self, DRAIN>(this, &this.as_ref().engine.drains);
            }
        }
    }
}
