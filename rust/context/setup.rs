// SPDX-License-Identifier: GPL-2.0

//! Making a context. Whatever fails, all that was done before is undone by who owns it, in reverse.
//!
//! Lock: `ring_lock` of the new ring, from before its first page to the end. `mmap_lock` nests
//! inside it.

use super::{
    register::Registrations,
    submission::{
        self,
        SubmissionArray, //
    },
    Contexts,
    Kioctx,
    User, //
};
use crate::{
    abi,
    kernel_ext::{
        identity::Identity,
        locked::Folios,
        mm,
        percpu_ref::PercpuRef,
        rcu_work::RcuWork,
        task,
        work::Work, //
    },
    registered::Table,
    request::Inflight,
    ring::{
        layout::Layout,
        RingOwner, //
    },
    stats::Counter,
};
use core::ptr::NonNull;
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
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
    /// Bytes of what is mapped.
    pub(crate) ring_size: usize,
    /// Entries of the submission array.
    pub(crate) sq_nr: u32,
    /// Where it begins, in bytes, if there is one.
    pub(crate) sq_offset: u32,
}

impl Contexts {
    /// Makes a context as `args` ask for.
    ///
    /// `EINVAL` if it has a flag that isn't one, a number in it is too large, or that of events is 0;
    /// `EMFILE` if more files could be registered than be open; `EAGAIN` over a limit; `ENOMEM`; what
    /// `mmap(2)` says when the ring can't be mapped.
    pub(crate) fn setup(&self, args: &abi::Setup) -> Result<Made> {
        let layout = Layout::for_events(args.nr_events, abi::MAX_EVENTS).ok_or(EINVAL)?;
        let polls = args.polls()?;
        if args.sq_nr > abi::MAX_EVENTS
            || args.nr_buffers > abi::MAX_BUFFERS
            || args.nr_files > abi::MAX_FILES
        {
            return Err(EINVAL);
        }
        let behind = submission::pages(args.sq_nr);
        // Neither is more than some megabytes.
        let bytes = layout.bytes() + behind * PAGE_SIZE;
        let mm = mm::current().ok_or(EINVAL)?;
        if args.nr_files as usize > task::open_files_limit() {
            return Err(EMFILE);
        }

        let quota = &self.engine.limits.quota;
        let tables = Registrations::bytes(args.nr_buffers, args.nr_files);
        let (charge, workers) = quota.charge(layout.capacity() as usize, bytes + tables)?;
        let inflight = Inflight::new(layout.capacity() as usize, polls)?;
        let ours = inflight.clone_arc();
        let pollers = self.siblings.pollers.clone();
        let owner = RingOwner::new(&self.engine.fs, layout, behind, pollers)?;
        let submission = SubmissionArray::new(owner.populate_behind(behind)?);
        let sq_nr = submission.nr();
        let ring = owner.share();
        let queue = &self.engine.free_queue;
        let buffers = Table::new(args.nr_buffers, queue.clone())?;
        let files = Table::new(args.nr_files, queue.clone())?;
        let folios = Folios::new()?;
        let registered = Registrations {
            buffers,
            folios,
            files,
        };
        let registered = Arc::new(registered, GFP_KERNEL_ACCOUNT)?;
        let ctx = self.engine.contexts.alloc()?;
        let ctx = ctx.write_pin_init(try_pin_init!(Kioctx {
            users <- PercpuRef::new(),
            reqs <- PercpuRef::new(),
            ring: owner,
            submission,
            registered,
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
            work: Work::new(),
            charge: Some(charge),
            left_behind: None,
        }? Error))?;

        // Declared after `ctx`: when something fails, the lock is free before the ring is freed.
        let setup = ring.begin_setup();
        setup.populate()?;
        let place = self.siblings.table.reserve(u32::MAX - 1)?;
        let id = place.id();
        ctx.id.store(id, Relaxed);
        // Keeps the context when somebody finds and destroys it at once.
        let user = User::tryget(&ctx).ok_or(EINVAL)?;
        let handle = setup.map(&ctx.ring)?;

        // Nothing fails from here on: user space may keep what is mapped from being unmapped.
        self.siblings.enter(inflight);
        Counter::Setups.add(1);
        // SAFETY: It isn't moved: only its owner changes.
        let ctx = NonNull::from(KBox::leak(unsafe { Pin::into_inner_unchecked(ctx) }));
        // SAFETY: From here on it is only dropped in `teardown`, a grace period after it was last found and taken
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
            ring_size: bytes,
            sq_nr,
            sq_offset: if sq_nr > 0 { layout.bytes() as u32 } else { 0 },
        })
    }
}
