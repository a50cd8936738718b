// SPDX-License-Identifier: GPL-2.0

//! Requests that wait for a file to be ready, without a task: polls, which are over then, and reads and
//! writes, which then have a worker make their next [attempt](super::retry).
//!
//! Such a request is woken from within its file, often several at the same time and with locks held.
//! One of those who have something to do with it owns it, see [`ownership`], and so may look at the
//! file, end the watch, or have both done by a worker.
//!
//! # Where a poll ends
//!
//! In the wake-up, if that says what the file is ready for and there is one queue, whose lock is held
//! then. So nothing that could lead back to that queue is woken there: who counts on an eventfd, and
//! who polls the device, may watch this file, too. A worker tells them. Else where it was looked at.
//!
//! # Locks
//!
//! None here; see [`file_poll`].

use super::{
    inflight::Cancel,
    ownership,
    Own,
    Prepared,
    Request,
    Submitted,
    Workers, //
};
use crate::{
    kernel_ext::{
        file_poll::{
            self,
            Watch,
            Watcher, //
        },
        work::{
            self,
            HasWork, //
        },
    },
    stats::Counter,
};
use core::{
    mem::offset_of,
    ptr::NonNull, //
};
use kernel::prelude::*;

const LOOK: u64 = 1;
pub(super) const END: u64 = 2;

// SAFETY: The offset of a field of that type.
unsafe impl HasWork<LOOK> for Request {
    const OFFSET: usize = offset_of!(Request, work);

    unsafe fn run(this: NonNull<Self>) {
        // SAFETY: Whoever owned it has handed it over.
        unsafe { Self::look(this) }
    }
}

// SAFETY: The offset of a field of that type.
unsafe impl HasWork<END> for Request {
    const OFFSET: usize = offset_of!(Request, work);

    unsafe fn run(this: NonNull<Self>) {
        // INVARIANT: The last reference was handed over, by `end_in_wakeup`.
        Own(this).end();
    }
}

// SAFETY: Always that field.
unsafe impl Watcher for Request {
    unsafe fn watch(this: NonNull<Self>) -> *mut Watch<Self> {
        // SAFETY: Alive, as the caller says.
        unsafe { Self::watch_of(this) }
    }

    unsafe fn claim(this: NonNull<Self>, gone: bool) -> bool {
        // SAFETY: It watches, so it is alive.
        unsafe { (*this.as_ptr()).ownership.claim(gone) }
    }

    unsafe fn look_later(this: NonNull<Self>) {
        // SAFETY: It is ours, and we hand it over.
        unsafe {
            if Self::is_transfer(this) {
                Counter::Kicked.add(1);
                Workers::employ(this);
            } else if Self::is_watched_by_workers(this) {
                Workers::employ(this);
            } else {
                Self::defer::<LOOK>(this);
            }
        }
    }

    unsafe fn ends_when_ready(this: NonNull<Self>) -> bool {
        // SAFETY: It watches, so it is alive.
        unsafe { !Self::is_transfer(this) }
    }

    unsafe fn ready(this: NonNull<Self>, mask: u32) {
        // SAFETY: It is ours, and it is in no queue any more.
        unsafe {
            let result = Self::decide(this, Ok(mask), Counter::PolledInline);
            Self::complete_in_wakeup(this, result);
        }
    }
}

impl Request {
    /// Its watch, which is uninitialised if it doesn't watch.
    ///
    /// # Safety
    ///
    /// It must be alive.
    pub(super) unsafe fn watch_of(this: NonNull<Self>) -> *mut Watch<Self> {
        // SAFETY: Alive.
        unsafe { (*this.as_ptr()).watch.get().cast() }
    }

    /// Hands it over to a worker. Any context.
    ///
    /// # Safety
    ///
    /// It must be alive, and the caller be the only one who has its work queued.
    pub(super) unsafe fn defer<const ID: u64>(this: NonNull<Self>)
    where
        Self: HasWork<ID>,
    {
        // SAFETY: Alive, as the caller says, until it is handed over. It was leaked, so it isn't
        // moved.
        unsafe {
            // Kept, for the request may be over before this returns.
            let engine = (*this.as_ptr()).slot.ctx().engine().clone();
            work::queue::<Self, ID>(this, &engine.looks);
        }
    }

    /// Begins to watch, and ends the request or gives it up. In process context.
    ///
    /// # Safety
    ///
    /// The caller must own it.
    pub(super) unsafe fn begin_watch(this: NonNull<Self>) {
        // SAFETY: It is ours until it is given up, and so is the watch, which nobody has seen.
        unsafe {
            if (*this.as_ptr()).ownership.look().cancelled {
                return Self::end_watch(this, Ok(0));
            }
            match Watch::begin(Self::watch(this), this, &(*this.as_ptr()).file) {
                Ok(0) if (*this.as_ptr()).ownership.give_up() => (),
                Ok(0) => Self::look(this),
                begun => Self::end_watch(this, begun),
            }
        }
    }

    /// Ends the request, as one that was cancelled. In process context.
    ///
    /// # Safety
    ///
    /// The caller must own it.
    pub(super) unsafe fn stop_watching(this: NonNull<Self>) {
        // SAFETY: It is ours.
        unsafe {
            let _ = (*this.as_ptr()).ownership.cancel();
            Self::end_watch(this, Ok(0));
        }
    }

    /// Looks at the file, and ends the request or gives it up. In process context.
    ///
    /// # Safety
    ///
    /// The caller must own it.
    pub(super) unsafe fn look(this: NonNull<Self>) {
        // SAFETY: Alive, for it is ours until it is given up.
        unsafe {
            let ownership = &(*this.as_ptr()).ownership;
            let told = ownership.look();
            let mask = if told.gone {
                file_poll::HANGUP
            } else if told.cancelled {
                0
            } else {
                let events = Watch::events(Self::watch(this));
                file_poll::look(&(*this.as_ptr()).file, events)
            };
            if mask != 0 || told.cancelled {
                Self::end_watch(this, Ok(mask));
            } else if !ownership.give_up() {
                // Not at once, for others want the processor, too.
                Self::look_later(this);
            }
        }
    }

    /// Decides the result: the mask, which is counted then, or why there is none, unless it was cancelled.
    ///
    /// # Safety
    ///
    /// The caller must own it.
    unsafe fn decide(this: NonNull<Self>, mask: Result<u32>, counter: Counter) -> i64 {
        // SAFETY: Alive, for it is ours.
        if unsafe { (*this.as_ptr()).ownership.decide() } {
            return ECANCELED.to_errno().into();
        }
        match mask {
            Ok(mask) => {
                counter.add(1);
                file_poll::to_user(mask).into()
            }
            Err(e) => e.to_errno().into(),
        }
    }

    /// Ends it. Any context but a wake-up of the file.
    ///
    /// # Safety
    ///
    /// The caller must own it.
    unsafe fn end_watch(this: NonNull<Self>, mask: Result<u32>) {
        // SAFETY: It is ours, and with it the file's half.
        unsafe {
            let result = Self::decide(this, mask, Counter::PolledDeferred);
            Watch::end(Self::watch(this));
            Self::complete(this, result);
        }
    }

    /// Cancels it; false if it was ready before. Any context.
    ///
    /// # Safety
    ///
    /// The caller must have a reference to it, and it watch.
    pub(super) unsafe fn cancel_watch(this: NonNull<Self>) -> bool {
        // SAFETY: Alive, for the caller has a reference.
        unsafe {
            let cancel = (*this.as_ptr()).ownership.cancel();
            // Who is told may be one that wasn't found yet.
            if cancel == ownership::Cancel::Ours
                || cancel == ownership::Cancel::Told && Workers::withdraw(this)
            {
                Self::end_watch(this, Ok(0));
            }
            cancel != ownership::Cancel::TooLate
        }
    }
}

impl Prepared {
    /// Has it wait until the file is ready for `events` of `poll(2)`. From here on there will be an event,
    /// unless this fails: with `EINVAL` if the file is never ready, or `ENOMEM`. (If a process has to be asked
    /// for that, the event says so.)
    pub(crate) fn watch(mut self, events: u16) -> Result<Submitted> {
        let events = file_poll::from_user(events);
        self.0.watch.get_mut().write(Watch::new(events));
        self.0.entry.get_mut().cancel = Some(Cancel::Watch);
        if file_poll::asks_a_process(&self.0.file) {
            return Ok(self.watch_by_workers());
        }
        let request = self.leak();
        // SAFETY: It is ours, and so is the file's half until it is given up.
        unsafe {
            let watch = Request::watch(request);
            let begun = Watch::begin(watch, request, &(*request.as_ptr()).file);
            if !matches!(begun, Ok(0)) {
                Watch::end(watch);
                // INVARIANT: Nobody else has it.
                let prepared = Self(Own(request));
                return Ok(prepared.end(file_poll::to_user(begun?).into()));
            }
            if !(*request.as_ptr()).ownership.give_up() {
                Request::look(request);
            }
            Ok(Submitted::going_on(request, true))
        }
    }
}
