// SPDX-License-Identifier: GPL-2.0

//! Contexts (kioctx): who may use one, for how long, and how it ends.
//!
//! A context has two per-cpu counts. `users` is held by whoever is inside a call on it; `reqs` by
//! each request in flight. It is found through the table of the open file that made it, under RCU,
//! and used only with a reference to `users` that was taken by `percpu_ref_tryget_live()`.
//!
//! # The end
//!
//! 1. `dead` is set, once; who set it goes on, everybody else gets `EINVAL`. This is all that it
//!    decides (and that sleepers stop sleeping).
//! 2. It is taken out of the table: nobody finds it any more.
//! 3. Who waits for events is woken and returns `EINVAL`.
//! 4. `users` is killed. When the last caller has left, no request can be added, and `reqs` is
//!    killed.
//! 5. When the last request has ended, who waits for the destroy is released: nothing touches the
//!    memory of user space from here on.
//! 6. After a grace period the ring and the context are freed, in process context.
//!
//! # Locks
//!
//! None here. The table has its own, the ring has its own, and `ring_lock` is held during set-up.

mod getevents;
mod setup;
mod submit;

use crate::{
    kernel_ext::{
        id_table::IdTable,
        kmem_cache::KmemCache,
        mm,
        percpu_ref::{
            HasPercpuRef,
            PercpuRef, //
        },
        pseudo_fs::PseudoFs,
        rcu_work::{
            HasRcuWork,
            OwnedQueue,
            RcuWork, //
        },
        user, //
    },
    request::Request,
    ring::{
        Event,
        RingOwner,
        RingUser, //
    },
    stats::Counter,
};
use core::{mem::offset_of, ops::Deref, ptr::NonNull};
use kernel::{
    mm::Mm,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        rcu,
        Arc,
        Completion, //
    },
};

pub(crate) use getevents::GetEvents;
pub(crate) use submit::Slot;

/// What all contexts share: caches, and the queue on which they are freed.
pub(crate) struct Engine {
    pub(crate) requests: KmemCache<Request>,
    contexts: KmemCache<Kioctx>,
    free_queue: OwnedQueue,
}

impl Engine {
    /// Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            requests: KmemCache::new(c"raio_kiocb")?,
            contexts: KmemCache::new(c"raio_kioctx")?,
            free_queue: OwnedQueue::new(c"raio_free")?,
        })
    }

    /// Waits until every context that was destroyed is freed. There must be no open file left.
    pub(crate) fn drain(&self) {
        // The end of `released`, see below, may still be running under RCU after it let the last
        // file's release go on; then what it queued waits for a grace period; then it runs.
        rcu::synchronize_rcu();
        rcu::rcu_barrier();
        self.free_queue.flush();
    }
}

const USERS: u64 = 0;
const REQS: u64 = 1;

/// A context.
///
/// # Invariants
///
/// Once published, it is pinned in a box of its own that only [`RcuWork::drop_later`] drops, a grace
/// period after `reqs` reached zero.
#[pin_data(PinnedDrop)]
pub(crate) struct Kioctx {
    #[pin]
    users: PercpuRef<Kioctx, USERS>,
    #[pin]
    reqs: PercpuRef<Kioctx, REQS>,
    ring: RingOwner,
    engine: Arc<Engine>,
    /// Who made it; nobody else may use it.
    mm: ARef<Mm>,
    /// Its number in the table. Relaxed: written before the context is published.
    id: Atomic<u32>,
    dead: Atomic<u32>,
    /// Completed when the last request has ended.
    idle: Arc<Completion>,
    siblings: Arc<Siblings>,
    #[pin]
    free: RcuWork<Kioctx>,
}

// SAFETY: The offset of a field of that type.
unsafe impl HasPercpuRef<USERS> for Kioctx {
    const OFFSET: usize = offset_of!(Kioctx, users);

    /// The last caller has left.
    fn released(&self) {
        // SAFETY: Called once in the life of a context, as this is.
        unsafe { self.reqs.kill() }
    }
}

// SAFETY: The offset of a field of that type.
unsafe impl HasPercpuRef<REQS> for Kioctx {
    const OFFSET: usize = offset_of!(Kioctx, reqs);

    /// The last request has ended.
    fn released(&self) {
        self.idle.complete_all();
        self.siblings.leave();
        // SAFETY: By the type invariant it is in a box, and nobody but readers under RCU, as we
        // are, is left who could use it.
        unsafe { RcuWork::drop_later(self, &self.engine.free_queue) }
    }
}

impl RingUser for Kioctx {
    /// A context of the compatible face ends with the process that made it, whoever else has the
    /// file.
    fn exiting(&self, mm: &Mm) {
        if mm.as_raw() == self.mm.as_raw() {
            // No reference of our own is needed: the spin lock that is held is a read-side section
            // for RCU, so the context outlives it. It can only fail for one that ends already.
            let _ = self.kill();
        }
    }
}

// SAFETY: The offset of a field of that type.
unsafe impl HasRcuWork for Kioctx {
    const OFFSET: usize = offset_of!(Kioctx, free);
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

/// What the contexts of an open file share: the table in which they are found, and how many of them
/// still have requests in flight, so that closing the file can wait for all of them at once.
#[pin_data]
struct Siblings {
    #[pin]
    table: IdTable<Kioctx>,
    /// The contexts, and one for the file while it is open.
    live: Atomic<u32>,
    #[pin]
    all_idle: Completion,
}

impl Siblings {
    fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                table <- IdTable::new(),
                live: Atomic::new(1),
                all_idle <- Completion::new(),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    fn enter(&self) {
        // Relaxed: the file's own one is still in it, so it isn't the first.
        self.live.add(1u32, Relaxed);
    }

    fn leave(&self) {
        // Full: what each one did before it left is seen by who waits for the last.
        if self.live.fetch_sub(1u32, Full) == 1 {
            self.all_idle.complete_all();
        }
    }
}

/// The contexts of one open file.
pub(crate) struct Contexts {
    engine: Arc<Engine>,
    fs: PseudoFs,
    siblings: Arc<Siblings>,
}

impl Contexts {
    /// None yet. Fails with `ENOMEM`.
    pub(crate) fn new(engine: Arc<Engine>) -> Result<Self> {
        Ok(Self {
            engine,
            fs: PseudoFs::pin()?,
            siblings: Siblings::new()?,
        })
    }

    /// The context with that handle, if it is the caller's. `EINVAL` otherwise.
    pub(crate) fn lookup(&self, handle: u64) -> Result<User> {
        let handle = usize::try_from(handle).map_err(|_| EINVAL)?;
        // User space can write anything there; it only says where to look.
        let id = user::read::<u32>(handle).map_err(|_| EINVAL)?;
        let rcu = rcu::read_lock();
        let ctx = self.siblings.table.get(id, &rcu).ok_or(EINVAL)?;
        if ctx.ring.address() != handle || !ctx.is_ours() {
            return Err(EINVAL);
        }
        User::tryget(ctx).ok_or(EINVAL)
    }

    /// Destroys a context and waits for the I/O on it to end. `EINVAL` if somebody else destroys it.
    pub(crate) fn destroy(&self, ctx: User) -> Result {
        ctx.kill()?;
        ctx.unmap();
        let idle = ctx.idle.clone();
        drop(ctx);
        idle.wait_for_completion();
        Ok(())
    }

    /// Destroys all contexts and waits for the I/O on all of them to end. To be called once, when
    /// nobody else can call anything.
    pub(crate) fn destroy_all(&self) {
        let mut from = 0;
        loop {
            let ctx = {
                let rcu = rcu::read_lock();
                let Some((id, ctx)) = self.siblings.table.next(from, &rcu) else {
                    break;
                };
                from = id + 1;
                User::tryget(ctx)
            };
            if let Some(ctx) = ctx {
                // It can only fail for one that ends already.
                let _ = ctx.kill();
                ctx.unmap();
            }
        }
        self.siblings.leave();
        self.siblings.all_idle.wait_for_completion();
    }
}

impl Kioctx {
    /// Was it made by the process that is running?
    fn is_ours(&self) -> bool {
        mm::is_current(&self.mm)
    }

    /// Steps 1 to 4 of the end. `EINVAL` if it has begun already. Doesn't sleep.
    fn kill(&self) -> Result {
        // Full: who is woken below sees it, see `is_dead`.
        if self.dead.xchg(1, Full) != 0 {
            return Err(EINVAL);
        }
        self.siblings.table.remove(self.id.load(Relaxed));
        self.ring.wake_all();
        // SAFETY: Only who set `dead` gets here, so it is once.
        unsafe { self.users.kill() };
        Ok(())
    }

    fn is_dead(&self) -> bool {
        // Relaxed: read between the full barriers of the wake-up protocol.
        self.dead.load(Relaxed) != 0
    }

    /// Takes the ring out of the current process, if that one made it.
    fn unmap(&self) {
        if self.is_ours() {
            mm::unmap(self.ring.address(), self.ring.layout().bytes());
        }
    }

    /// What requests are allocated from.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    fn post(&self, event: &Event) {
        self.ring.post(event);
    }
}

#[pinned_drop]
impl PinnedDrop for Kioctx {
    fn drop(self: Pin<&mut Self>) {
        // One that was never published isn't counted, as it wasn't when it was made.
        if self.ring.address() != 0 {
            Counter::Frees.add(1);
        }
    }
}
