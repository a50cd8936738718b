// SPDX-License-Identifier: GPL-2.0

//! Events that one thread posts one after the other: who waits is woken once for several. No lock is
//! held.

use super::{
    submit::Slot,
    Kioctx, //
};
use crate::{
    kernel_ext::{
        eventfd::EventFd,
        percpu_ref::PercpuRef, //
    },
    ring::Event, //
};
use core::{
    cell::Cell,
    ptr::NonNull, //
};

/// After so many events it is told of them: to wake often is dear, and to wake late is slow.
const MOST: u32 = 4;

/// Keeps a context for that time.
///
/// # Invariants
///
/// Owns a reference to `reqs`.
pub(crate) struct Batch {
    ctx: NonNull<Kioctx>,
    /// Events of which nobody has been told yet.
    untold: Cell<u32>,
}

impl Batch {
    /// For the context that `slot` is of.
    pub(crate) fn new(slot: &Slot) -> Self {
        let ctx = slot.ctx();
        // INVARIANT: The reference that is taken here.
        // SAFETY: `slot` has one, so that they aren't all gone.
        unsafe { ctx.reqs.get_many(1) };
        Self {
            ctx: NonNull::from(ctx),
            untold: Cell::new(0),
        }
    }

    /// The context.
    pub(crate) fn ctx(&self) -> &Kioctx {
        // SAFETY: Alive, for we own a reference to `reqs`.
        unsafe { self.ctx.as_ref() }
    }

    /// Posts the event that `slot` is for, which is of the context; `eventfd` counts it.
    pub(crate) fn post(&self, slot: Slot, event: &Event, eventfd: Option<EventFd>) {
        if eventfd.is_some() {
            return slot.post(event, eventfd);
        }
        slot.post_untold(event);
        let untold = self.untold.get() + 1;
        self.untold.set(untold);
        if untold == MOST {
            self.tell();
        }
    }

    /// Wakes who waits for what was posted. To be called before the thread sleeps.
    pub(crate) fn tell(&self) {
        if self.untold.take() > 0 {
            self.ctx().ring.announce();
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.tell();
        // SAFETY: The reference is ours, by the type invariant.
        unsafe { PercpuRef::put_many(&raw const (*self.ctx.as_ptr()).reqs, 1) }
    }
}
