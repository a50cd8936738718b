// SPDX-License-Identifier: GPL-2.0

//! The end of contexts, in the order that [`context`](super) gives: what begins it, what each step
//! does when the one before is through, and waiting for it.
//!
//! # Waiting
//!
//! Who destroys a context, or closes the last descriptor of its file, waits until the I/O on the
//! memory of user space has ended. A device may never end it. So whoever waits can be killed, and
//! is told of in the log with the file that holds the requests. A process that exits can't be
//! killed any more; if it exits because it was killed, it waits until it was told of once. What is
//! left behind ends by itself when the device lets go of it, and is charged to its user until then.
//!
//! # Locks
//!
//! `live` of [`Siblings`], a spin lock with interrupts off, to note who comes and goes. Nothing
//! nests inside of it.

use super::{
    Contexts,
    Kioctx,
    User,
    REQS,
    USERS, //
};
use crate::{
    kernel_ext::{
        completion::{
            Completion,
            Waited, //
        },
        id_table::IdTable,
        mm,
        percpu_ref::{
            HasPercpuRef,
            PercpuRef, //
        },
        task,
    },
    request::Inflight,
    ring::RingUser,
    stats::Counter,
};
use core::{mem::offset_of, ptr::NonNull};
use kernel::{
    list::{
        List,
        ListArc, //
    },
    new_spinlock_irq,
    prelude::*,
    sync::{
        atomic::{
            Full,
            Relaxed, //
        },
        rcu,
        Arc,
        SpinLockIrq, //
    },
    workqueue::{
        impl_has_work,
        WorkItem, //
    },
};

/// After how long who waits for the end of requests is told of, each time.
const STUCK_SECONDS: u32 = 10;

// SAFETY: The offset of a field of that type.
unsafe impl HasPercpuRef<USERS> for Kioctx {
    const OFFSET: usize = offset_of!(Kioctx, users);

    /// The last caller has left, so no request will be added.
    unsafe fn released(this: NonNull<Self>) {
        // SAFETY: Alive, for the initial reference to `reqs` is dropped last. `kill` has called
        // `make_atomic`, and this is called once in the life of a context.
        unsafe {
            this.as_ref().inflight.cancel_all();
            PercpuRef::drop_initial(&raw const (*this.as_ptr()).reqs);
        }
    }
}

// SAFETY: The offset of a field of that type.
unsafe impl HasPercpuRef<REQS> for Kioctx {
    const OFFSET: usize = offset_of!(Kioctx, reqs);

    /// The last request has ended.
    unsafe fn released(this: NonNull<Self>) {
        // SAFETY: Alive, as the trait says.
        let ctx = unsafe { this.as_ref() };
        let engine = ctx.engine.clone();
        // SAFETY: A published context is in a box of its own that nobody else drops. Nobody uses
        // it: callers and requests are gone; who looks things up found it before it was taken out
        // of the table, and a grace period has passed since, in which `users` became atomic.
        let ctx = unsafe { Pin::new_unchecked(KBox::from_raw(this.as_ptr())) };
        engine.free_queue.enqueue(ctx);
    }
}

impl_has_work! {
    impl HasWork<Self> for Kioctx { self.free }
}

impl WorkItem for Kioctx {
    type Pointer = Pin<KBox<Self>>;

    /// Freed in process context, which the pages of the ring need. Who waits finds all of it freed.
    fn run(this: Self::Pointer) {
        let (inflight, siblings) = (this.inflight.clone(), this.siblings.clone());
        drop(this);
        inflight.end();
        siblings.leave(&inflight);
    }
}

impl RingUser for Kioctx {
    /// Without the ring there is no handle, so nobody can use the context any more. So ends that of
    /// a process which has ended, or runs another program, whoever else has the file.
    fn unmapped(&self) {
        // No reference of our own is needed: the ring is disconnected, under the lock that is held,
        // before any of the context goes. It can only fail for one that ends already.
        let _ = self.kill();
    }
}

/// What the contexts of an open file share: the table in which they are found, and those with
/// requests in flight, so that closing the file can wait for all of them at once.
#[pin_data]
pub(super) struct Siblings {
    #[pin]
    pub(super) table: IdTable<Kioctx>,
    #[pin]
    live: SpinLockIrq<Live>,
    #[pin]
    all_ended: Completion,
}

struct Live {
    contexts: List<Inflight>,
    /// There will be no more.
    closed: bool,
}

impl Siblings {
    pub(super) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                table <- IdTable::new(),
                live <- new_spinlock_irq!(
                    Live {
                        contexts: List::new(),
                        closed: false,
                    },
                    "raio_live"
                ),
                all_ended <- Completion::new(),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    pub(super) fn enter(&self, inflight: ListArc<Inflight>) {
        self.live.lock().contexts.push_back(inflight);
    }

    fn leave(&self, inflight: &Inflight) {
        let mut live = self.live.lock();
        // SAFETY: It is in this list or in none.
        let left = unsafe { live.contexts.remove(inflight) };
        if live.closed && live.contexts.is_empty() {
            self.all_ended.complete_all();
        }
        drop(live);
        drop(left);
    }

    fn close(&self) {
        let mut live = self.live.lock();
        live.closed = true;
        if live.contexts.is_empty() {
            self.all_ended.complete_all();
        }
    }

    /// The one that has been there for longest.
    fn oldest(&self) -> Option<Arc<Inflight>> {
        let live = self.live.lock();
        let oldest = live.contexts.iter().next().map(Arc::from);
        oldest
    }
}

/// Waits until that has happened which ends with the last request of `holder`, or the first of
/// them. `EINTR` if the caller was killed.
fn wait(end: &Completion, holder: impl Fn() -> Option<Arc<Inflight>>) -> Result {
    let mut waited = 0u32;
    loop {
        match end.wait_killable(STUCK_SECONDS) {
            Waited::Done => return Ok(()),
            Waited::Killed => break,
            Waited::TimedOut => {
                waited = waited.saturating_add(STUCK_SECONDS);
                let holder = holder();
                let (file, nr) = holder.map_or((None, 0), |it| (it.holder(), it.len()));
                task::report_stuck(file.as_deref(), nr, waited);
                if task::is_killed() {
                    break;
                }
            }
        }
    }
    Counter::Abandoned.add(1);
    Err(EINTR)
}

impl Contexts {
    /// Destroys a context and waits for the I/O on it to end. `EINVAL` if somebody else destroys it,
    /// `EINTR` if the caller is killed: it is destroyed all the same.
    pub(crate) fn destroy(&self, ctx: User) -> Result {
        ctx.kill().inspect_err(|_| Counter::SecondDestroys.add(1))?;
        ctx.unmap();
        let inflight = ctx.inflight.clone();
        drop(ctx);
        wait(inflight.ended(), || Some(inflight.clone()))
    }

    /// Destroys all contexts, and waits for the I/O on all of them to end or to be killed. To be
    /// called once, when nobody else can call anything. When it isn't killed, nothing of what they
    /// had is left.
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
        self.siblings.close();
        let _ = wait(&self.siblings.all_ended, || self.siblings.oldest());
    }
}

impl Kioctx {
    /// Steps 1 to 4 of the end. `EINVAL` if it has begun already. Doesn't sleep.
    fn kill(&self) -> Result {
        // Full: who is woken below sees it, see `is_dead`.
        if self.dead.xchg(1, Full) != 0 {
            return Err(EINVAL);
        }
        self.siblings.table.remove(self.id.load(Relaxed));
        self.ring.wake_all();
        // Both become atomic in the same grace period. `reqs` stays live until the callers have
        // left, see `released`.
        self.reqs.make_atomic();
        // SAFETY: Only who set `dead` gets here, so it is once.
        unsafe { self.users.kill() };
        Ok(())
    }

    /// Takes the ring out of the current process, if that one made it.
    fn unmap(&self) {
        if self.is_ours() {
            mm::unmap(self.ring.address(), self.ring.layout().bytes());
        }
    }
}
