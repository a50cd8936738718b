// SPDX-License-Identifier: GPL-2.0

//! Contexts (kioctx): who may use one, for how long, and how it ends.
//!
//! A context has two per-cpu counts. `users` is held by whoever is inside a call on it; `reqs` by
//! each request in flight. It is found under RCU, through the table of the open file that made it, or
//! without that table if it was looked up last, and used only with a reference to `users` that was taken by `percpu_ref_tryget_live()`.
//!
//! # The end
//!
//! 1. `dead` is set, once; who set it goes on, everybody else gets `EINVAL`. This is all that it
//!    decides (and that sleepers stop sleeping).
//! 2. It is taken out of the table: nobody finds it there any more.
//! 3. Who waits for events is woken and returns `EINVAL`.
//! 4. `users` is killed. When the last caller has left, no request can be added: those in flight
//!    that can be cancelled are, and `reqs` loses its initial reference.
//! 5. When the last request has ended, nothing touches the memory of user space any more, and who
//!    waits for the destroy is released.
//! 6. When also the last mapping of the ring has gone, which is before that where the owner
//!    destroys it, what the context was charged for is returned. After a grace period, off
//!    everybody's way, a worker frees the ring and the context.
//!
//! One RCU grace period passes in step 4, in which both counts become atomic. It is all that a
//! destroy waits for when there are no requests.
//!
//! # Locks
//!
//! None here. The table has its own, the ring has its own, [`setup`] and [`teardown`] say theirs.

mod batch;
mod getevents;
mod iopoll;
mod orphans;
mod poll;
mod quota;
mod register;
mod setup;
mod sleep;
mod starter;
mod submission;
mod submit;
mod teardown;

use crate::{
    kernel_ext::{
        identity::Identity,
        kmem_cache::KmemCache,
        mm,
        module::{
            self,
            ModulePin, //
        },
        percpu_ref::PercpuRef,
        pm::Freezer,
        pseudo_fs::PseudoFs,
        rcu_work::RcuWork,
        user,
        work::{
            OwnedQueue,
            Work, //
        },
    },
    request::{
        submitter::Cache,
        Inflight,
        Request,
        Workers, //
    },
    ring::{
        Event,
        RingOwner, //
    },
    stats::Counter,
};
use core::{ops::Deref, ptr::NonNull};
use kernel::{
    mm::Mm,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu,
        Arc, //
    },
};

pub(crate) use batch::Batch;
pub(crate) use getevents::GetEvents;
use orphans::Orphans;
use quota::{
    Charge,
    Limits, //
};
use register::Registrations;
pub(crate) use register::{Buffer, RegisteredFile};
use sleep::Sleep;
use submission::SubmissionArray;
pub(crate) use submit::Slot;
use teardown::Siblings;

/// What all contexts share: caches, and queues.
pub(crate) struct Engine {
    pub(crate) requests: KmemCache<Request>,
    /// On which requests are carried out that may sleep.
    pub(crate) workers: OwnedQueue,
    /// On which requests of the [direct path](crate::request::submitter) go on that can't where their bios end.
    /// Nothing of it waits for what a user may have get stuck.
    pub(crate) later: OwnedQueue,
    /// On which files are looked at that were woken, and what waits for them is told. A file may wait for work
    /// that needs memory (terminals do).
    pub(crate) looks: OwnedQueue,
    /// On which requests of contexts that have ended are cancelled, if they are many.
    cancels: OwnedQueue,
    /// On which devices are asked for what contexts that have ended wait for, for as long as that takes.
    drains: OwnedQueue,
    contexts: KmemCache<Kioctx>,
    fs: PseudoFs,
    limits: Limits,
    pub(crate) orphans: Arc<Orphans>,
    _sleep: Freezer<Sleep>,
    /// On which they are freed.
    free_queue: Arc<OwnedQueue>,
}

impl Engine {
    /// Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let limits = Limits::new()?;
        let free_queue = Arc::new(OwnedQueue::new(c"raio_free", true)?, GFP_KERNEL)?;
        Ok(Self {
            requests: KmemCache::new(c"raio_kiocb")?,
            workers: OwnedQueue::new(c"raio_worker", false)?,
            later: OwnedQueue::new(c"raio_later", false)?,
            looks: OwnedQueue::new(c"raio_look", false)?,
            cancels: OwnedQueue::new(c"raio_cancel", true)?,
            drains: OwnedQueue::new(c"raio_drain", false)?,
            contexts: KmemCache::new(c"raio_kioctx")?,
            fs: PseudoFs::new()?,
            orphans: Orphans::new(limits.quota.clone(), free_queue.clone())?,
            _sleep: Freezer::new(
                c"raio_sleep",
                Arc::new(Sleep(limits.quota.clone()), GFP_KERNEL)?,
            )?,
            limits,
            free_queue,
        })
    }

    /// Waits until every context that was destroyed is freed, and nobody works for one any more.
    /// There must be no open file left, and nothing that they left behind, see `teardown`.
    pub(crate) fn drain(&self) {
        // Who let the last file's release go on may still be in our code, about to queue or to return.
        module::quiesce();
        self.later.flush();
        self.workers.flush();
        self.looks.flush();
        self.cancels.flush();
        self.drains.flush();
        self.orphans.stop();
        self.free_queue.flush();
        // What was registered waits for a second grace period.
        self.free_queue.flush();
    }
}

const USERS: u64 = 0;
const REQS: u64 = 1;

const DRAIN: u64 = 0;
const CANCEL: u64 = 1;

/// A context.
///
/// # Invariants
///
/// Once published, it is pinned in a box of its own that only [`teardown`] drops, when `holds` has
/// reached zero: one is for `reqs`, one for the mappings of the ring.
#[pin_data(PinnedDrop)]
pub(crate) struct Kioctx {
    #[pin]
    users: PercpuRef<Kioctx, USERS>,
    #[pin]
    reqs: PercpuRef<Kioctx, REQS>,
    ring: RingOwner,
    submission: SubmissionArray,
    registered: Arc<Registrations>,
    engine: Arc<Engine>,
    /// Who made it; nobody else may use it.
    mm: ARef<Mm>,
    /// Its number in the table. Relaxed: written before the context is published.
    id: Atomic<u32>,
    dead: Atomic<u32>,
    holds: Atomic<u32>,
    inflight: Arc<Inflight>,
    /// Those of the user that it is charged to.
    workers: Arc<Workers>,
    /// Of who made it, then.
    identity: Identity,
    siblings: Arc<Siblings>,
    #[pin]
    free: RcuWork<Kioctx>,
    /// At its end, for one thing after the other.
    work: Work,
    /// Returned by who gives up the last of `holds`.
    charge: Option<Charge>,
    /// If this is the last that its file has left behind. Dropped after all others.
    left_behind: Option<ModulePin>,
}

/// A reference to a context for the length of a call: it can't go away, and requests can be added.
///
/// # Invariants
///
/// Owns a reference to `users`.
pub(crate) struct User(NonNull<Kioctx>);

impl User {
    fn tryget(ctx: &Kioctx) -> Option<Self> {
        // INVARIANT: The reference that was just taken.
        ctx.users.tryget_live().then(|| Self(NonNull::from(ctx)))
    }

    /// To be called at the end of a submission, to count those that their context ended under.
    fn note_death(&self) {
        if self.is_dead() {
            Counter::KillBusy.add(1);
        }
    }
}

impl Deref for User {
    type Target = Kioctx;

    fn deref(&self) -> &Kioctx {
        // SAFETY: Alive, for we own a reference to `users`.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // SAFETY: The reference is ours, by the type invariant.
        unsafe { PercpuRef::put_many(&raw const (*self.0.as_ptr()).users, 1) }
    }
}

/// The contexts of one open file.
pub(crate) struct Contexts {
    engine: Arc<Engine>,
    siblings: Arc<Siblings>,
}

impl Contexts {
    /// None yet. Fails with `ENOMEM`.
    pub(crate) fn new(engine: Arc<Engine>) -> Result<Self> {
        Ok(Self {
            engine,
            siblings: Siblings::new()?,
        })
    }

    /// The context with that handle, if it is the caller's. `EINVAL` otherwise.
    #[inline]
    pub(crate) fn lookup(&self, handle: u64) -> Result<User> {
        self.find(handle).ok_or(EINVAL)
    }

    #[inline(never)]
    fn find(&self, handle: u64) -> Option<User> {
        let handle = usize::try_from(handle).ok()?;
        // User space can write anything there; it only says where to look.
        let id = user::read_u32(handle).ok()?;
        let rcu = rcu::read_lock();
        // Relaxed: written before it was published.
        let recent = self.siblings.recent(&rcu);
        let recent = recent.filter(|ctx| ctx.id.load(Relaxed) == id && ctx.has(handle));
        if let Some(user) = recent.and_then(User::tryget) {
            return Some(user);
        }
        let ctx = self.siblings.table.get(id, &rcu)?;
        if !ctx.has(handle) {
            return None;
        }
        let Some(user) = User::tryget(ctx) else {
            Counter::DeadLookups.add(1);
            return None;
        };
        self.siblings.set_recent(&user);
        Some(user)
    }
}

impl Kioctx {
    /// Is that its handle, and it the caller's?
    #[inline]
    fn has(&self, handle: usize) -> bool {
        // No address is that of a ring which isn't published yet.
        handle != 0 && self.ring.address() == handle && self.is_ours()
    }

    /// Was it made by the process that is running?
    fn is_ours(&self) -> bool {
        mm::is_current(&self.mm)
    }

    fn is_dead(&self) -> bool {
        // Relaxed: who waits is queued before it reads this, under the lock that `wake_all` takes.
        self.dead.load(Relaxed) != 0
    }

    /// Its requests in flight.
    pub(crate) fn inflight(&self) -> &Inflight {
        &self.inflight
    }

    /// What it keeps for who submits.
    #[inline]
    pub(crate) fn cache(&self) -> &Cache {
        self.inflight.cache()
    }

    /// Who carries out what may sleep.
    pub(crate) fn workers(&self) -> &Arc<Workers> {
        &self.workers
    }

    /// Whose memory its requests are about.
    pub(crate) fn mm(&self) -> &Mm {
        &self.mm
    }

    /// As whom a worker acts, unless a request says otherwise.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What it shares with others.
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    fn post(&self, event: &Event) {
        self.ring.post(event);
    }

    fn post_in_wakeup(&self, event: &Event) {
        if self.ring.post_untold(event) {
            Siblings::tell_later(&self.siblings, &self.engine);
        }
    }
}

#[pinned_drop]
impl PinnedDrop for Kioctx {
    fn drop(self: Pin<&mut Self>) {
        // Who unmapped the ring may not have left our code yet.
        mm::quiesce(&self.mm);
    }
}
