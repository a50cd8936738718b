// SPDX-License-Identifier: GPL-2.0

//! Making a context. Whatever fails, all that was done before is undone by who owns it, in reverse.
//!
//! Lock: `ring_lock` of the new ring, from before its first page to the end. `mmap_lock` nests
//! inside it.

use super::{
    Contexts,
    Kioctx,
    User, //
};
use crate::{
    abi,
    kernel_ext::{
        identity::Identity,
        mm,
        percpu_ref::PercpuRef,
        rcu_work::RcuWork, //
    },
    request::Inflight,
    ring::{
        layout::Layout,
        RingOwner, //
    },
    stats::Counter,
};
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        }, //
    },
};

/// A context that was made, for its maker to be told of. It is there for everybody else already.
pub(crate) struct Made {
    /// The context.
    pub(crate) ctx: User,
    /// The handle, which is the address of the ring.
    pub(crate) handle: usize,
    /// Its number.
    pub(crate) id: u32,
    /// Slots of the ring.
    pub(crate) ring_nr: u32,
    /// Bytes of the ring.
    pub(crate) ring_size: usize,
}

/// A mapping of a ring, undone on drop.
struct Mapping {
    addr: usize,
    len: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        mm::unmap(self.addr, self.len);
    }
}

impl Contexts {
    /// Makes a context in which `nr_events` requests can be in flight.
    ///
    /// `EINVAL` if that is 0 or more than [`abi::MAX_EVENTS`]; `EAGAIN` over a limit; `ENOMEM`; what
    /// `mmap(2)` says when the ring can't be mapped.
    pub(crate) fn setup(&self, nr_events: u32) -> Result<Made> {
        let layout = Layout::for_events(nr_events, abi::MAX_EVENTS).ok_or(EINVAL)?;
        let mm = mm::current().ok_or(EINVAL)?;

        let quota = &self.engine.limits.quota;
        let (charge, workers) = quota.charge(layout.capacity() as usize, layout.bytes())?;
        let inflight = Inflight::new(layout.capacity() as usize)?;
        let ours = inflight.clone_arc();
        let owner = RingOwner::new(&self.engine.fs, layout, self.siblings.pollers.clone())?;
        let ring = owner.share();
        let ctx = self.engine.contexts.alloc()?;
        let ctx = ctx.write_pin_init(try_pin_init!(Kioctx {
            users <- PercpuRef::new(),
            reqs <- PercpuRef::new(),
            ring: owner,
            engine: self.engine.clone(),
            mm,
            id: Atomic::new(0),
            dead: Atomic::new(0),
            holds: Atomic::new(2),
            inflight: ours,
            workers,
            identity: Identity::current(),
            siblings: self.siblings.clone(),
            free <- RcuWork::new(),
            charge: Some(charge),
            left_behind: None,
        }? Error))?;

        // Declared after `ctx`: when something fails, the lock is free before the ring is freed.
        let setup = ring.begin_setup();
        setup.populate()?;
        let mapping = Mapping {
            addr: setup.map(&ctx.ring)?,
            len: layout.bytes(),
        };
        let handle = mapping.addr;
        let place = self.siblings.table.reserve(u32::MAX - 1)?;
        let id = place.id();
        ctx.id.store(id, Relaxed);

        // Nothing fails from here on. Our own reference keeps the context when somebody finds and
        // destroys it at once.
        let user = User::tryget(&ctx).ok_or(EINVAL)?;
        core::mem::forget(mapping);
        self.siblings.enter(inflight);
        Counter::Setups.add(1);
        // SAFETY: It isn't moved: only its owner changes.
        let ctx = NonNull::from(KBox::leak(unsafe { Pin::into_inner_unchecked(ctx) }));
        // SAFETY: From here on it is only dropped in `teardown`, a grace period after it was taken
        // out of the table, and not before it was told that the ring is unmapped.
        // INVARIANT: As `Kioctx` asks for.
        unsafe {
            place.publish(ctx);
            if !setup.publish(id, handle, Kioctx::ring_user(ctx)) {
                // Another thread was quick. `user` keeps it.
                Kioctx::unmapped(ctx.cast());
            }
        }
        Ok(Made {
            ctx: user,
            handle,
            id,
            ring_nr: layout.nr(),
            ring_size: layout.bytes(),
        })
    }
}
