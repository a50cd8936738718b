// SPDX-License-Identifier: GPL-2.0

//! Taking requests in. What all requests of a call need, slots of the ring and references, is taken
//! at once; each then goes to the room of its operation. No lock is held.

use super::{
    starter::{
        Given,
        Starter,
        NOTHINGS, //
    },
    Kioctx,
    User, //
};
use crate::{
    abi::{
        Iocb,
        Iocbs, //
    },
    kernel_ext::{
        eventfd::EventFd,
        identity::Identity,
        percpu_ref::PercpuRef,
        plug::{
            self,
            Plug, //
        },
        user, //
    },
    ring::Event,
    stats::Counter,
};
use core::{
    mem::{
        self,
        MaybeUninit, //
    },
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// From this many requests on it pays to hold them back and send them together.
const PLUG_FROM: u32 = 3;

/// The right to post one event: a slot of the ring, and a reference that keeps the context.
///
/// # Invariants
///
/// Owns a reference to `reqs` and a claim to a slot.
pub(crate) struct Slot {
    ctx: NonNull<Kioctx>,
    /// Whether who is late is so no more when it is posted.
    late: bool,
}

// SAFETY: The reference may be dropped and the event posted by every thread.
unsafe impl Send for Slot {}

impl Slot {
    /// The context.
    pub(crate) fn ctx(&self) -> &Kioctx {
        // SAFETY: Alive, for we own a reference to `reqs`.
        unsafe { self.ctx.as_ref() }
    }

    /// Its event is one that who asks for none may wait for.
    pub(crate) fn set_late(&mut self) {
        self.late = true;
    }

    /// Posts the event that it is for, then has `eventfd` count it: who sees that finds the event.
    /// Any context.
    pub(crate) fn post(self, event: &Event, eventfd: Option<EventFd>) {
        self.ctx().post(event);
        // Before the context may go, which keeps the module that this code is in.
        if let Some(eventfd) = eventfd {
            eventfd.signal();
        }
        self.used();
    }

    /// Posts the event that it is for, where the lock of a wait queue is held. Any context.
    pub(crate) fn post_in_wakeup(self, event: &Event) {
        self.ctx().post_in_wakeup(event);
        self.used();
    }

    /// Posts the event that it is for, and wakes nobody: [`Batch`](super::Batch) does. Any context.
    pub(super) fn post_untold(self, event: &Event) {
        self.ctx().ring.publish(event);
        self.used();
    }

    /// The event that it is for was posted, and is counted by `eventfd`. The caller has its reference.
    #[inline]
    pub(crate) fn told(self, eventfd: Option<EventFd>) {
        if let Some(eventfd) = eventfd {
            eventfd.signal();
        }
        if self.late {
            self.ctx().inflight.not_late();
        }
        mem::forget(self);
    }

    fn used(self) {
        let ctx = self.ctx;
        self.told(None);
        // SAFETY: The reference was ours. The claim went into the ring with the event.
        unsafe { PercpuRef::put_many(&raw const (*ctx.as_ptr()).reqs, 1) }
    }
}

impl Kioctx {
    /// Posts events, whose slots are to be forgotten, and wakes who waits for them. Any context.
    pub(crate) fn publish_all(&self, events: impl Iterator<Item = Event>) {
        self.ring.publish_all(events);
        self.ring.announce();
    }

    /// Gives up the references of `n` slots that were forgotten, after which the context may go.
    ///
    /// # Safety
    ///
    /// They were the caller's.
    pub(crate) unsafe fn put_all(&self, n: usize) {
        // SAFETY: As the caller says. The claims went into the ring with the events.
        unsafe { PercpuRef::put_many(&raw const self.reqs, n) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        drop(Slots {
            ctx: self.ctx,
            left: 1,
        });
    }
}

/// Slots that were claimed together; what is left is given back on drop.
///
/// # Invariants
///
/// Owns `left` references to `reqs` and as many claims to a slot.
pub(super) struct Slots {
    ctx: NonNull<Kioctx>,
    left: u32,
}

impl Slots {
    /// Up to `want`.
    fn claim(user: &User, want: u32) -> Self {
        let left = user.ring.claim(want);
        if left > 0 {
            // SAFETY: `reqs` is killed only when the last reference to `users` is gone, and the
            // caller has one.
            unsafe { user.reqs.get_many(left as usize) };
        }
        // INVARIANT: Just claimed and taken.
        Self { ctx: user.0, left }
    }

    #[inline]
    pub(super) fn next(&mut self) -> Option<Slot> {
        self.left = self.left.checked_sub(1)?;
        // INVARIANT: One of ours.
        Some(Slot {
            ctx: self.ctx,
            late: false,
        })
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        if self.left > 0 {
            // SAFETY: Alive, for we own references to `reqs`, which are given up last.
            unsafe {
                self.ctx.as_ref().ring.unclaim(self.left);
                PercpuRef::put_many(&raw const (*self.ctx.as_ptr()).reqs, self.left as usize);
            }
        }
    }
}

impl User {
    /// Starts `nr` requests and returns how many were taken, and at least how many events were posted meanwhile. The
    /// caller `waits` for some next, or doesn't.
    ///
    /// An error is that of the first request; one of a later request ends the call.
    pub(crate) fn submit(&self, nr: u32, iocbs: Iocbs, waits: bool) -> Result<(u32, u32)> {
        let nr = nr.min(self.ring.layout().nr());
        let identity = if self.identity().is_current() {
            None
        } else {
            Some(Arc::new(Identity::current(), GFP_KERNEL_ACCOUNT)?)
        };
        let started = self.start(nr, iocbs, waits, identity);
        self.note_death();
        if let Err(e) = started.end {
            Counter::Refused.add(1);
            if started.taken == 0 {
                return Err(e);
            }
        }
        Ok((started.taken, started.posted))
    }

    /// Starts so many.
    #[inline(always)]
    fn start(
        &self,
        nr: u32,
        iocbs: Iocbs,
        waits: bool,
        identity: Option<Arc<Identity>>,
    ) -> Started {
        let slots = Slots::claim(self, nr);
        let mut done = [const { MaybeUninit::uninit() }; NOTHINGS];
        // So many at most may need something of a device.
        let many = nr.min(slots.left);
        let mut starter = Starter::new(self, slots, identity, &mut done);
        let mut started = if nr >= PLUG_FROM {
            let all =
                |starter: &mut _, plug: &Plug| self.start_each(nr, iocbs, starter, Some(plug));
            plug::plugged(many, &mut starter, all, Starter::send)
        } else {
            self.start_each(nr, iocbs, &mut starter, None)
        };
        started.posted = starter.finish(waits);
        // Before those of them that are queued, which are counted when the submitter goes.
        Counter::Submitted.add(started.taken.into());
        started
    }

    /// One after another. Not inline, for there is much in it.
    #[inline(never)]
    fn start_each(
        &self,
        nr: u32,
        iocbs: Iocbs,
        starter: &mut Starter<'_>,
        plug: Option<&Plug>,
    ) -> Started {
        match iocbs {
            Iocbs::Pointers { at, compat } => {
                let word = if compat { 4 } else { mem::size_of::<usize>() };
                each(nr, |i| {
                    let at = at.wrapping_add((i as usize).wrapping_mul(word));
                    let addr = user::read_word(at, compat)?;
                    starter.start(Given {
                        iocb: &user::read(addr)?,
                        native: false,
                        obj: addr as u64,
                        next: None,
                        left: nr - i - 1,
                        plug,
                    })
                })
            }
            Iocbs::Shared(first) => each(nr, |i| {
                let (iocb, next) = self.submission.read(first, i)?;
                starter.start(Given::native(&iocb, next, nr - i - 1, plug))
            }),
            Iocbs::Array(array) => each(nr, |i| {
                let at = array.wrapping_add((i as usize).wrapping_mul(mem::size_of::<Iocb>()));
                let iocb: Iocb = user::read(at)?;
                starter.start(Given::native(&iocb, None, nr - i - 1, plug))
            }),
        }
    }
}

/// What a call has started.
struct Started {
    taken: u32,
    /// Events.
    posted: u32,
    /// What ended it.
    end: Result,
}

/// Starts up to `nr` requests, until one fails.
#[inline(always)]
fn each(nr: u32, mut start: impl FnMut(u32) -> Result) -> Started {
    let mut started = Started {
        taken: 0,
        posted: 0,
        end: Ok(()),
    };
    for i in 0..nr {
        if let Err(e) = start(i) {
            started.end = Err(e);
            break;
        }
        started.taken += 1;
    }
    started
}
