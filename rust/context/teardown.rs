// SPDX-License-Identifier: GPL-2.0

//! The end of contexts, in the order that [`context`](super) gives: what begins it, what each step
//! does when the one before is through, and waiting for it.
//!
//! # Waiting
//!
//! Who destroys a context, or closes the last descriptor of its file, waits until the I/O on the
//! memory of user space has ended. A device may never end it. So whoever waits can be killed, and
//! is told of in the log with the file that holds the requests. A process that exits can't be
//! killed any more; if it exits because it was killed, it waits until it was told of once. A kernel
//! thread doesn't wait. What is left behind ends by itself when the device lets go of it; until then
//! it is charged to its user, and keeps the module.
//!
//! # Locks
//!
//! `live` of [`Siblings`], a spin lock with interrupts off, to note who comes and goes. Only
//! the lock of a completion nests inside of it.

use super::{
    Contexts,
    Kioctx,
    User,
    CANCEL,
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
        module::ModulePin,
        percpu_ref::{
            HasPercpuRef,
            PercpuRef, //
        },
        rcu_work::{
            HasRcuWork,
            RcuWork, //
        },
        task,
        wait::PollQueue,
        work::{
            self,
            HasWork, //
        }, //
    },
    request::Inflight,
    ring::RingUser,
    stats::Counter,
};
use core::{
    ffi::c_void,
    mem::offset_of,
    ptr::{
        null_mut,
        NonNull, //
    },
};
use kernel::{
    list::{
        List,
        ListArc, //
    },
    new_spinlock_irq,
    new_work,
    prelude::*,
    static_lock_class,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        rcu,
        Arc,
        SpinLockIrq, //
    },
    workqueue::Work, //
};

/// After how long who waits for the end of requests is told of, each time.
const STUCK_SECONDS: u32 = 10;

/// How many requests are cancelled where the last caller is found to have left, which may be in a softirq.
const HERE: usize = 256;

// SAFETY: The offset of a field of that type.
unsafe impl HasPercpuRef<USERS> for Kioctx {
    const OFFSET: usize = offset_of!(Kioctx, users);

    /// The last caller has left, so no request will be added.
    unsafe fn released(this: NonNull<Self>) {
        // SAFETY: Alive, for the initial reference to `reqs` isn't dropped before `cancel`, and this is called
        // once in the life of a context. Its work isn't queued but by us, and by `cancel`.
        unsafe {
            this.as_ref().siblings.not_recent(this);
            if this.as_ref().inflight.len() > HERE {
                work::queue::<Self, CANCEL>(this, &this.as_ref().engine.cancels);
            } else {
                Kioctx::cancel(this);
            }
        }
    }
}

// SAFETY: The offset of a field of that type.
unsafe impl HasWork<CANCEL> for Kioctx {
    const OFFSET: usize = offset_of!(Kioctx, work);

    unsafe fn run(this: NonNull<Self>) {
        // SAFETY: `released` has left it to us.
        unsafe { Kioctx::cancel(this) }
    }
}

// SAFETY: The offset of a field of that type.
unsafe impl HasPercpuRef<REQS> for Kioctx {
    const OFFSET: usize = offset_of!(Kioctx, reqs);

    /// The last request has ended.
    unsafe fn released(this: NonNull<Self>) {
        // SAFETY: Alive, for we have the hold that stands for `reqs`.
        unsafe {
            let inflight = this.as_ref().inflight.clone();
            let siblings = this.as_ref().siblings.clone();
            Kioctx::let_go(this);
            inflight.end();
            siblings.leave(&inflight);
        }
    }
}

// SAFETY: The offset of a field of that type.
unsafe impl HasRcuWork for Kioctx {
    const OFFSET: usize = offset_of!(Kioctx, free);
}

/// What the contexts of an open file share: the table in which they are found, those with requests
/// in flight, so that closing the file can wait for all of them at once, and who polls the file.
#[pin_data]
pub(super) struct Siblings {
    #[pin]
    pub(super) table: IdTable<Kioctx>,
    /// The one that was looked up last, or null.
    ///
    /// # Invariants
    ///
    /// It is set only by who has a reference to its `users`, and isn't it any more when those are gone, which is a
    /// grace period before its end.
    recent: Atomic<*mut Kioctx>,
    #[pin]
    live: SpinLockIrq<Live>,
    #[pin]
    all_ended: Completion,
    pub(super) pollers: Arc<PollQueue>,
    #[pin]
    pub(super) tell: Work<Self>,
}

struct Live {
    /// Those with requests in flight, or that may get some.
    contexts: List<Inflight>,
    /// How many are held, by requests or by mappings.
    held: usize,
    /// There will be no more.
    closed: bool,
    /// Set when the file is gone and some are still held.
    left_behind: Option<ModulePin>,
}

impl Siblings {
    pub(super) fn new() -> Result<Arc<Self>> {
        let pollers = PollQueue::new(c"raio_pollers", static_lock_class!());
        Arc::pin_init(
            try_pin_init!(Self {
                table <- IdTable::new(),
                recent: Atomic::new(null_mut()),
                live <- new_spinlock_irq!(
                    Live {
                        contexts: List::new(),
                        held: 0,
                        closed: false,
                        left_behind: None,
                    },
                    "raio_live"
                ),
                all_ended <- Completion::new(),
                tell <- new_work!("raio_tell"),
                pollers: Arc::pin_init(pollers, GFP_KERNEL_ACCOUNT)?,
            }? Error),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// The one that was looked up last, if there is any.
    #[inline]
    pub(super) fn recent<'a>(&self, _rcu: &'a rcu::Guard) -> Option<&'a Kioctx> {
        // Acquire: pairs with `set_recent`.
        let recent = NonNull::new(self.recent.load(Acquire))?;
        // SAFETY: By the invariant of `recent` it lives for longer than this read-side section.
        Some(unsafe { recent.as_ref() })
    }

    #[inline]
    pub(super) fn set_recent(&self, user: &User) {
        // INVARIANT: There is a reference.
        // Release: pairs with `recent`.
        self.recent.store(user.0.as_ptr(), Release);
    }

    /// Nobody looks it up any more, nor has done so and is yet to set it.
    fn not_recent(&self, ctx: NonNull<Kioctx>) {
        // Full: before all that follows at its end.
        let _ = self.recent.cmpxchg(ctx.as_ptr(), null_mut(), Full);
    }

    pub(super) fn enter(&self, inflight: ListArc<Inflight>) {
        let mut live = self.live.lock();
        live.contexts.push_back(inflight);
        live.held += 1;
    }

    /// One is held no more. Returns what the last one that the file has left behind has to drop,
    /// when it is freed.
    fn unheld(&self) -> Option<ModulePin> {
        let mut live = self.live.lock();
        live.held -= 1;
        if live.held == 0 {
            live.left_behind.take()
        } else {
            None
        }
    }

    /// The file goes. If contexts are still held, they keep the module from now on.
    fn leave_behind(&self) {
        let mut live = self.live.lock();
        if live.held > 0 {
            live.left_behind = Some(ModulePin::new());
        }
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

    /// Calls `f` with each, but those that end already.
    pub(super) fn each(&self, f: impl Fn(User)) {
        let mut from = 0;
        loop {
            let ctx = {
                let rcu = rcu::read_lock();
                let Some((id, ctx)) = self.table.next(from, &rcu) else {
                    break;
                };
                from = id + 1;
                User::tryget(ctx)
            };
            if let Some(ctx) = ctx {
                f(ctx);
            }
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
                let (file, device, nr) = holder.map_or((None, 0, 0), |it| it.holders());
                task::report_stuck(file.as_deref(), device, nr, waited);
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
        let registered = ctx.registered.clone();
        drop(ctx);
        wait(inflight.ended(), || Some(inflight.clone()))?;
        // SAFETY: Neither callers nor requests are left.
        unsafe { registered.clear() };
        Ok(())
    }

    /// Destroys all contexts, and waits for the I/O on all of them to end or to be killed. To be
    /// called once, when nobody else can call anything.
    pub(crate) fn destroy_all(&self) {
        self.siblings.each(|ctx| {
            // It can only fail for one that ends already.
            let _ = ctx.kill();
            ctx.unmap();
        });
        self.siblings.close();
        // A kernel thread closes what was last in flight in a socket, and the files of everybody.
        if !task::is_kernel_thread() {
            let _ = wait(&self.siblings.all_ended, || self.siblings.oldest());
        }
        self.siblings.leave_behind();
    }
}

impl Kioctx {
    /// Has the ring tell when it is unmapped. `this` must be published, or be so before the ring is.
    pub(super) fn ring_user(this: NonNull<Self>) -> RingUser {
        RingUser {
            who: this.cast(),
            unmapped: Self::unmapped,
        }
    }

    /// Without the ring there is no handle, so nobody can use the context any more. So ends that of
    /// a process which has ended, or runs another program, whoever else has the file.
    ///
    /// # Safety
    ///
    /// `this` must be a published context, the mappings' hold the caller's, who keeps it alive by
    /// other means until this returns.
    pub(super) unsafe fn unmapped(this: NonNull<c_void>) {
        let this = this.cast::<Self>();
        // SAFETY: As the caller says.
        unsafe {
            // It can only fail for one that ends already.
            let _ = this.as_ref().kill();
            Self::let_go(this);
        }
    }

    /// Gives up one of two holds. The last returns what was charged and has the context freed. Any
    /// context.
    ///
    /// # Safety
    ///
    /// The hold must be the caller's.
    unsafe fn let_go(this: NonNull<Self>) {
        // Full: what the other did with the context comes before its end.
        // SAFETY: Alive, for the caller has a hold.
        if unsafe { this.as_ref() }.holds.fetch_sub(1u32, Full) != 1 {
            return;
        }
        // SAFETY: A published context is in a box of its own that nobody else drops. Nobody uses
        // it: callers, requests and mappings are gone (who unmaps it holds the lock that the free
        // of the ring takes first). Who looks things up may have found it, but not since the last
        // of `users` was gone, and until then reads only what doesn't change here: it is freed a
        // grace period later.
        let mut ctx = unsafe { KBox::from_raw(this.as_ptr()) };
        let engine = ctx.engine.clone();
        Counter::Frees.add(1);
        ctx.charge = None;
        ctx.left_behind = ctx.siblings.unheld();
        // SAFETY: It wasn't moved.
        RcuWork::drop_later(unsafe { Pin::new_unchecked(ctx) }, &engine.free_queue);
    }

    /// Steps 1 to 4 of the end. `EINVAL` if it has begun already. Doesn't sleep.
    pub(super) fn kill(&self) -> Result {
        // Full: what comes below comes after it. Who is woken sees it, see `is_dead`.
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

    /// The rest of step 4: those in flight are cancelled. Any context.
    ///
    /// # Safety
    ///
    /// To be called once, after the last of `users` was given up. `work` must not be queued.
    unsafe fn cancel(this: NonNull<Self>) {
        // SAFETY: Alive, for the initial reference to `reqs` is dropped last. `kill` has called
        // `make_atomic`, and this is called once in the life of a context.
        unsafe {
            this.as_ref().inflight.cancel_all();
            // Then, for the others are theirs as soon as they give up.
            this.as_ref().workers.interrupt(this.as_ref());
            Kioctx::drain(this);
            PercpuRef::drop_initial(&raw const (*this.as_ptr()).reqs);
        }
    }

    /// Takes the ring out of the current process, if that one made it.
    fn unmap(&self) {
        if self.is_ours() {
            mm::unmap(self.ring.take_address(), self.ring.bytes());
        }
    }
}
