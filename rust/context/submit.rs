// SPDX-License-Identifier: GPL-2.0

//! Taking requests in. What all requests of a call need, slots of the ring and references, is taken
//! at once; each then goes to the room of its operation. No lock is held.

use super::{
    starter::{
        Given,
        Starter, //
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
        plug,
        user, //
    },
    ring::Event,
    stats::Counter,
};
use core::{mem, ptr::NonNull};
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

    fn used(self) {
        let ctx = self.ctx;
        if self.late {
            self.ctx().inflight.not_late();
        }
        mem::forget(self);
        // SAFETY: The reference was ours. The claim went into the ring with the event.
        unsafe { PercpuRef::put_many(&raw const (*ctx.as_ptr()).reqs, 1) }
    }
}

impl Kioctx {
    /// Posts `n` events, for slots that were forgotten, and wakes who waits for them. Any context.
    ///
    /// # Safety
    ///
    /// The slots were the caller's, none was late, and there are as many `events`. The context must not go
    /// before this returns.
    pub(crate) unsafe fn post_all(&self, n: usize, events: impl Iterator<Item = Event>) {
        self.ring.publish_all(events);
        self.ring.announce();
        // SAFETY: The references were the slots'. The claims went into the ring with the events.
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
    /// Starts `nr` requests and returns how many were taken.
    ///
    /// An error is that of the first request; one of a later request ends the call.
    pub(crate) fn submit(&self, nr: u32, iocbs: Iocbs) -> Result<u32> {
        let nr = nr.min(self.ring.layout().nr());
        let identity = if self.identity().is_current() {
            None
        } else {
            Some(Arc::new(Identity::current(), GFP_KERNEL_ACCOUNT)?)
        };
        let slots = Slots::claim(self, nr);
        let native = !matches!(iocbs, Iocbs::Pointers { .. });
        let mut starter = Starter::new(self, slots, identity, native);
        let all = |starter: &mut Starter<'_>| match iocbs {
            Iocbs::Pointers { at, compat } => {
                let word = if compat { 4 } else { mem::size_of::<usize>() };
                each(nr, |i| {
                    let at = at.wrapping_add((i as usize).wrapping_mul(word));
                    let addr = user::read_word(at, compat)?;
                    starter.start(&Given {
                        iocb: user::read(addr)?,
                        obj: addr as u64,
                        next: None,
                        left: nr - i - 1,
                    })
                })
            }
            _ => each(nr, |i| {
                let (iocb, next) = self.read(iocbs, i)?;
                let left = nr - i - 1;
                starter.start(&Given {
                    obj: iocb.data(),
                    iocb,
                    next: if left == 0 { Some(u64::MAX) } else { next },
                    left,
                })
            }),
        };
        let (taken, queued, end) = if nr >= PLUG_FROM {
            plug::plugged(&mut starter, all, Starter::send)
        } else {
            all(&mut starter)
        };
        drop(starter);
        Counter::Submitted.add(taken.into());
        Counter::Queued.add(queued.into());
        self.note_death();
        match end {
            Err(e) => {
                Counter::Refused.add(1);
                if taken == 0 {
                    Err(e)
                } else {
                    Ok(taken)
                }
            }
            Ok(()) => Ok(taken),
        }
    }

    /// Reads one of a call's requests, if they are such as kernel AIO doesn't have, and where the next one may
    /// begin in its file, if that is to be had.
    #[inline(always)]
    fn read(&self, iocbs: Iocbs, i: u32) -> Result<(Iocb, Option<u64>)> {
        match iocbs {
            Iocbs::Shared(first) => self.submission.read(first, i),
            Iocbs::Array(array) => {
                let at = array.wrapping_add((i as usize).wrapping_mul(mem::size_of::<Iocb>()));
                Ok((user::read(at)?, None))
            }
            Iocbs::Pointers { .. } => Err(EINVAL),
        }
    }
}

/// Starts up to `nr` requests, until one fails. Returns how many were started, how many of those go on by
/// themselves, and the error.
#[inline(always)]
fn each(nr: u32, mut start: impl FnMut(u32) -> Result<bool>) -> (u32, u32, Result) {
    let mut queued = 0;
    for i in 0..nr {
        match start(i) {
            Ok(goes_on) => queued += u32::from(goes_on),
            Err(e) => return (i, queued, Err(e)),
        }
    }
    (nr, queued, Ok(()))
}
