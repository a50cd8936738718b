// SPDX-License-Identifier: GPL-2.0

//! Requests that a worker carries out, since that may sleep. It acts as who has submitted the request,
//! see [`identity`](crate::kernel_ext::identity).
//!
//! Each user has so many workers. What there is to do they take in the order in which it came, and
//! until then it can be cancelled. So one user whose device is stuck doesn't keep others from being
//! served. Who would only wait for what another worker keeps locked waits for its turn behind that one.
//! A worker goes on as long as there is something to do: who becomes whom, and wakes whom, for
//! several requests of a context once. Another is called before it does what may sleep, if something
//! waits, and when much does.
//!
//! A worker that waits for a request whose context ends is interrupted, as a task would be that is
//! killed: it gives up what can be given up.
//!
//! # Locks
//!
//! `pool`, a spin lock with interrupts off. It nests inside that of a wait queue, and so maybe inside
//! that of a task's signals. Only the lock of a completion nests inside of it.

use super::{
    inflight::Cancel,
    Prepared,
    Request,
    Submitted, //
};
use crate::{
    context::{
        Batch,
        Kioctx, //
    },
    kernel_ext::{
        fifo::{
            Fifo,
            Linked,
            Links, //
        },
        file_io::{
            self,
            Inode, //
        },
        identity::Killable,
        page_wait::Left,
        work::{
            self,
            HasWork,
            Work, //
        },
    },
};
use core::{
    cell::UnsafeCell,
    mem::{
        self,
        offset_of,
        size_of, //
    },
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    new_spinlock_irq,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        lock::{
            spinlock::SpinLockIrqBackend,
            Guard, //
        },
        Arc,
        Completion,
        SpinLockIrq, //
    },
};

/// Workers of one user.
pub(crate) const MOST: usize = 64;

/// One that doesn't sleep is enough for so many that wait.
const EACH: usize = 8;

/// Nothing is begun. Relaxed: read with `pool` held, which who changes it takes after that.
static PAUSED: Atomic<u32> = Atomic::new(0);

/// From now on no worker begins anything, or they may again and have to be told to [go on](Workers::go_on). (Who is
/// about to begin something when this returns has `pool` locked, or has said so.)
pub(crate) fn pause(paused: bool) {
    PAUSED.store(u32::from(paused), Relaxed);
}

/// What is done.
#[derive(Clone, Copy)]
enum Job {
    /// It is read or written as far as that goes.
    Transfer,
    /// What was written is made to last.
    Sync {
        /// Not what is known of the file besides.
        data_only: bool,
    },
    /// The file is [watched](super::watching) from now on.
    Watch,
    /// It is looked whether the file, which is watched, is ready.
    Look,
}

/// A request's part of this.
pub(super) struct Turn {
    /// Of who has the request.
    job: Job,
    /// Guarded by `pool`, as the next.
    links: Links<Request>,
    waits: Option<Place>,
}

/// Where a request waits for its turn.
#[derive(Clone, Copy)]
enum Place {
    /// In `waiting`.
    All,
    /// Behind what that worker carries out.
    Behind(NonNull<Run>),
}

impl Turn {
    pub(super) const fn new() -> Self {
        Self {
            job: Job::Transfer,
            links: Links::new(),
            waits: None,
        }
    }
}

/// What a worker is about, on its stack.
#[pin_data]
struct Run {
    worker: Killable,
    /// Guarded by `pool`, as all that follows. The context whose request it carries out.
    ctx: Option<NonNull<Kioctx>>,
    /// What that request locks, or did if it is over, and what waits for that.
    locks: Option<Inode>,
    behind: Fifo<Request, TURN>,
    links: Links<Run>,
    /// It will ask what is next before it sleeps.
    attentive: bool,
    /// That request writes what is to last.
    writes: bool,
    /// For that request, after which it ends.
    interrupted: bool,
    interrupter: bool,
    /// The interruption is.
    #[pin]
    over: Completion,
}

impl Run {
    fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            worker: Killable::begin(),
            ctx: None,
            locks: None,
            behind: Fifo::new(),
            links: Links::new(),
            attentive: false,
            writes: false,
            interrupted: false,
            interrupter: false,
            over <- Completion::new(),
        })
    }
}

// SAFETY: Always that field, which only the queue accesses.
unsafe impl Linked<RUN> for Run {
    unsafe fn links(this: NonNull<Self>) -> *mut Links<Self> {
        // SAFETY: Alive, as the caller says.
        unsafe { &raw mut (*this.as_ptr()).links }
    }
}

const RUN: u64 = 0;

// SAFETY: What others do with one they do with `pool` held.
unsafe impl Send for Run {}

/// A place for a worker.
///
/// # Invariants
///
/// `of` is written by who takes it from `idle`, and read by the worker that was called so.
struct Worker {
    work: Work,
    /// Whose, from the call until it comes.
    of: UnsafeCell<Option<Arc<Workers>>>,
}

/// The workers of one user.
#[pin_data]
pub(crate) struct Workers {
    #[pin]
    pool: SpinLockIrq<Pool>,
    all: [Worker; MOST],
    /// Requests of the user that were cancelled while they waited for a page, whose memory is in its queue.
    left: Arc<Left>,
}

// SAFETY: What of it isn't guarded by `pool` is accessed as the invariants of `Worker` say.
unsafe impl Send for Workers {}
// SAFETY: As above.
unsafe impl Sync for Workers {}

/// # Invariants
///
/// * The members of `waiting`, and of `behind` of those that are `running`, are the requests that say
///   so. If any are `waiting`, a worker is attentive, or was called and hasn't come yet, or none is
///   idle, or all are paused.
/// * The members of `running` are the workers that have come, of which so many are `attentive`. Of those
///   that have the same inode, one at most has others behind it.
/// * The bits of `idle` are those of `all` that weren't called, or have become idle since.
struct Pool {
    waiting: Fifo<Request, TURN>,
    running: Fifo<Run, RUN>,
    attentive: usize,
    idle: u64,
    coming: bool,
}

const _: () = assert!(MOST == u64::BITS as usize);

const TURN: u64 = 2;

// SAFETY: Always that field, which only the queue accesses.
unsafe impl Linked<TURN> for Request {
    unsafe fn links(this: NonNull<Self>) -> *mut Links<Self> {
        // SAFETY: Alive, as the caller says.
        unsafe { &raw mut (*Self::turn_of(this)).links }
    }
}

const SERVE: u64 = 0;

// SAFETY: The offset of a field of that type.
unsafe impl HasWork<SERVE> for Worker {
    const OFFSET: usize = offset_of!(Worker, work);

    unsafe fn run(this: NonNull<Self>) {
        // SAFETY: It was called, so it is ours, by the type invariant.
        let of = unsafe { (*(*this.as_ptr()).of.get()).take() };
        if let Some(workers) = of {
            workers.serve(this);
        }
    }
}

impl Workers {
    /// All are idle. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let left = Left::new()?;
        Arc::pin_init(
            pin_init!(Self {
                left,
                pool <- new_spinlock_irq!(
                    Pool {
                        waiting: Fifo::new(),
                        running: Fifo::new(),
                        attentive: 0,
                        idle: u64::MAX,
                        coming: false,
                    },
                    "raio_workers"
                ),
                all: [const {
                    Worker {
                        work: Work::new(),
                        of: UnsafeCell::new(None),
                    }
                }; MOST],
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Of whose memory has to be left where it waits.
    pub(super) fn left(&self) -> &Arc<Left> {
        &self.left
    }

    /// Has a request carried out when it has its turn. Any context.
    ///
    /// # Safety
    ///
    /// It must be the caller's, with the file's half, who hands it over.
    pub(super) unsafe fn employ(request: NonNull<Request>) {
        // SAFETY: Alive, for it is ours, and until the lock is dropped nobody has it. From then on it
        // may not be, but its context is freed a grace period later, and interrupts are off.
        unsafe {
            let ctx = (*request.as_ptr()).slot.ctx();
            let workers = ctx.workers();
            let mut pool = workers.pool.lock();
            pool.waiting.push(request);
            (*Request::turn_of(request)).waits = Some(Place::All);
            let called = workers
                .call(&mut pool)
                .map(|worker| (worker, ctx.engine().clone()));
            drop(pool);
            if let Some((worker, engine)) = called {
                work::queue::<Worker, SERVE>(worker, &engine.workers);
            }
        }
    }

    /// Calls a worker if one is needed, which the caller has to queue then.
    fn call(self: &Arc<Self>, pool: &mut Pool) -> Option<NonNull<Worker>> {
        if pool.coming
            || pool.first().is_none()
            || pool.are_enough(pool.attentive)
            || PAUSED.load(Relaxed) != 0
        {
            return None;
        }
        let worker = self.all.get(pool.idle.trailing_zeros() as usize)?;
        pool.coming = true;
        pool.idle &= pool.idle - 1;
        // SAFETY: It was idle, so it is ours, by the type invariant.
        unsafe { *worker.of.get() = Some(self.clone()) };
        Some(NonNull::from(worker))
    }

    /// Does what there is to do, as `worker`, which was called.
    fn serve(self: Arc<Self>, worker: NonNull<Worker>) {
        pin_init::stack_pin_init!(let run = Run::new());
        // SAFETY: It isn't moved.
        let run = NonNull::from(unsafe { run.get_unchecked_mut() });
        let mut pool = self.pool.lock();
        pool.coming = false;
        // SAFETY: It is new, and stays until it leaves below.
        unsafe {
            pool.running.push(run);
            pool.attend(run, true);
        }
        drop(pool);

        // SAFETY: `run` has come. What it is given is its own.
        unsafe {
            while let Some(request) = self.next(run, |_| true) {
                self.serve_some(run, request);
            }
            (*run.as_ptr()).worker.end();
        }

        let mut pool = self.pool.lock();
        // SAFETY: It is a member, and nobody interrupts who carries out nothing.
        unsafe {
            if let Some(inode) = (*run.as_ptr()).locks {
                pool.let_go(inode);
            }
            pool.attend(run, false);
            pool.running.remove(run);
        }
        let n = (worker.addr().get() - self.all.as_ptr().addr()) / size_of::<Worker>();
        // INVARIANT: There is nothing to do, or one is called.
        pool.idle |= 1 << n;
        self.call_for_waiting(pool);
    }

    /// Calls a worker if one is needed.
    fn call_for_waiting(self: &Arc<Self>, mut pool: Guard<'_, Pool, SpinLockIrqBackend>) {
        let engine = pool.waiting.first().map(|request| {
            // SAFETY: A member is alive, and so is its context.
            unsafe { (*request.as_ptr()).slot.ctx().engine().clone() }
        });
        let called = self.call(&mut pool);
        drop(pool);
        if let (Some(worker), Some(engine)) = (called, engine) {
            // SAFETY: It was called just now.
            unsafe { work::queue::<Worker, SERVE>(worker, &engine.workers) };
        }
    }

    /// To be called when all may begin something again. Any context.
    pub(crate) fn go_on(self: &Arc<Self>) {
        self.call_for_waiting(self.pool.lock());
    }

    /// Carries out `first`, and what comes next if that is of the same context and to be done as the
    /// same user.
    ///
    /// # Safety
    ///
    /// `first` must be what [`Self::next`] has returned for `run`, of the running task.
    unsafe fn serve_some(self: &Arc<Self>, run: NonNull<Run>, first: NonNull<Request>) {
        // SAFETY: `first` is ours, and so is what comes next.
        unsafe {
            let batch = Batch::new(&(*first.as_ptr()).slot);
            batch.ctx().engine().orphans.watch();
            let own = (*first.as_ptr()).identity.clone();
            let identity = own.as_deref().unwrap_or(batch.ctx().identity());
            let is_alike = |next: NonNull<Request>| {
                ptr::eq((*next.as_ptr()).slot.ctx(), batch.ctx())
                    && ptr::eq(Request::identity(next), identity)
            };
            let served = identity.assume(batch.ctx().mm(), || {
                let mut next = Some(first);
                while let Some(request) = next {
                    if !Request::is_kicked(request) {
                        Request::carry_out(request, &batch);
                    } else if !Request::carry_out_quickly(request, &batch) {
                        self.about_to_sleep(run, batch.ctx());
                        Request::carry_out(request, &batch);
                    }
                    identity.forward_signals();
                    next = self.next(run, is_alike);
                }
            });
            if served.is_none() {
                {
                    // Nobody finds the context here any more, which may go with what follows.
                    let _pool = self.pool.lock();
                    (*run.as_ptr()).ctx = None;
                }
                // Without that memory there is nobody to tell, either.
                Request::put(first);
                match (*Request::turn_of(first)).job {
                    Job::Transfer | Job::Sync { .. } => {
                        Request::finish(first, ECANCELED.to_errno().into(), &batch);
                    }
                    Job::Watch | Job::Look => Request::stop_watching(first),
                }
            }
        }
    }

    /// Has done what it could for what it carries out, and isn't interrupted for that any more. Takes
    /// what is to be done next, if it is like that and the worker is to go on, with a reference more.
    ///
    /// # Safety
    ///
    /// `run` must have come, and be of the running task.
    unsafe fn next(
        self: &Arc<Self>,
        run: NonNull<Run>,
        is: impl FnOnce(NonNull<Request>) -> bool,
    ) -> Option<NonNull<Request>> {
        let mut pool = self.pool.lock();
        // SAFETY: `run` is ours. Nobody else finds that it has a request; who has found it is told of
        // here. A member is alive. It is ours then, with the file's half, and its context is.
        unsafe {
            (*run.as_ptr()).ctx = None;
            if (*run.as_ptr()).interrupted {
                let busy = (*run.as_ptr()).interrupter;
                drop(pool);
                if busy {
                    (*run.as_ptr()).over.wait_for_completion();
                }
                return None;
            }
            if PAUSED.load(Relaxed) != 0 {
                return None;
            }
            pool.attend(run, true);
            let behind = (*run.as_ptr()).locks.and_then(|inode| pool.behind(inode));
            if behind.is_none() {
                (*run.as_ptr()).locks = None;
                // Others have time for it.
                if pool.attentive > 1 && pool.are_enough(pool.attentive - 1) {
                    return None;
                }
            }
            let request = behind
                .or_else(|| pool.first())
                .filter(|request| is(*request))?;
            pool.leave(request);
            Request::get(request);
            (*run.as_ptr()).ctx = Some(NonNull::from((*request.as_ptr()).slot.ctx()));
            (*run.as_ptr()).locks = Request::locks(request).map(|lock| lock.inode);
            (*run.as_ptr()).writes = Request::writes(request);
            pool.attend(run, Request::is_kicked(request));
            if let Some(worker) = self.call(&mut pool) {
                let engine = (*request.as_ptr()).slot.ctx().engine();
                drop(pool);
                work::queue::<Worker, SERVE>(worker, &engine.workers);
            }
            Some(request)
        }
    }

    /// What a worker does next may take its time, so that another one is called for what waits.
    ///
    /// # Safety
    ///
    /// `run` must have come, be of the running task, and carry out a request of `ctx`.
    unsafe fn about_to_sleep(self: &Arc<Self>, run: NonNull<Run>, ctx: &Kioctx) {
        let mut pool = self.pool.lock();
        // SAFETY: It is a member.
        unsafe { pool.attend(run, false) };
        if let Some(worker) = self.call(&mut pool) {
            drop(pool);
            // SAFETY: It was called just now.
            unsafe { work::queue::<Worker, SERVE>(worker, &ctx.engine().workers) };
        }
    }

    /// Calls `f` with the context of each request that is being carried out. `pool` is held.
    pub(crate) fn each_served(&self, mut f: impl FnMut(&Kioctx)) {
        let pool = self.pool.lock();
        let mut next = pool.running.first();
        while let Some(run) = next {
            // SAFETY: A member is alive while the lock is held, and so is the context that it has: it leaves that
            // before the batch of its requests, see `serve_some`.
            unsafe {
                if let Some(ctx) = (*run.as_ptr()).ctx {
                    f(ctx.as_ref());
                }
                next = pool.running.after(run);
            }
        }
    }

    /// Does any of them carry out a request that writes what is to last?
    pub(crate) fn are_writing(&self) -> bool {
        let pool = self.pool.lock();
        let mut next = pool.running.first();
        while let Some(run) = next {
            // SAFETY: A member is alive while the lock is held.
            unsafe {
                if (*run.as_ptr()).ctx.is_some() && (*run.as_ptr()).writes {
                    return true;
                }
                next = pool.running.after(run);
            }
        }
        false
    }

    /// Takes a request back whose turn hasn't come; false if it has, or isn't to come. Any context.
    ///
    /// # Safety
    ///
    /// The caller must have a reference to it.
    pub(super) unsafe fn withdraw(request: NonNull<Request>) -> bool {
        // SAFETY: Alive, for the caller has a reference. Who waits is a member, and then ours.
        unsafe {
            let mut pool = (*request.as_ptr()).slot.ctx().workers().pool.lock();
            let waits = (*Request::turn_of(request)).waits.is_some();
            if waits {
                pool.leave(request);
            }
            waits
        }
    }

    /// Has those give up waiting that carry out requests of `ctx`, if what they wait for lets them.
    /// Any context.
    pub(crate) fn interrupt(&self, ctx: &Kioctx) {
        loop {
            let Some(run) = self.pool.lock().uninterrupted(ctx) else {
                return;
            };
            // SAFETY: It stays, for it is marked as having an interrupter, and so does its task.
            unsafe {
                // Without the lock: it may be taken where somebody is sent a signal.
                (*run.as_ptr()).worker.kill();
                let pool = self.pool.lock();
                (*run.as_ptr()).interrupter = false;
                (*run.as_ptr()).over.complete_all();
                drop(pool);
            }
        }
    }
}

impl Pool {
    /// Marks one that carries out a request of `ctx` as being interrupted, if there is one that isn't.
    fn uninterrupted(&mut self, ctx: &Kioctx) -> Option<NonNull<Run>> {
        let mut next = self.running.first();
        while let Some(run) = next {
            // SAFETY: A member is alive while the lock is held.
            unsafe {
                if (*run.as_ptr()).ctx == Some(NonNull::from(ctx)) && !(*run.as_ptr()).interrupted {
                    (*run.as_ptr()).interrupted = true;
                    (*run.as_ptr()).interrupter = true;
                    return Some(run);
                }
                next = self.running.after(run);
            }
        }
        None
    }

    /// Notes whether a worker is attentive.
    ///
    /// # Safety
    ///
    /// `run` must be a member of `running`.
    unsafe fn attend(&mut self, run: NonNull<Run>, attentive: bool) {
        // SAFETY: A member is alive while the lock is held.
        let was = unsafe { mem::replace(&mut (*run.as_ptr()).attentive, attentive) };
        // INVARIANT: Both are changed together.
        self.attentive = self.attentive - usize::from(was) + usize::from(attentive);
    }

    /// Will so many attentive workers have done soon what waits?
    fn are_enough(&self, workers: usize) -> bool {
        self.waiting.len() <= workers * EACH
    }

    /// Whose turn it is. What others keep locked waits behind them: no worker is to wait for another.
    fn first(&mut self) -> Option<NonNull<Request>> {
        loop {
            let request = self.waiting.first()?;
            // SAFETY: A member is alive, and so is a worker that has come.
            unsafe {
                let Some(run) = self.to_wait_for(request) else {
                    return Some(request);
                };
                self.waiting.remove(request);
                (*run.as_ptr()).behind.push(request);
                (*Request::turn_of(request)).waits = Some(Place::Behind(run));
            }
        }
    }

    /// The worker behind which `request` has to wait, if any: there is no point in one more.
    ///
    /// # Safety
    ///
    /// `request` must be alive, and no worker have it.
    unsafe fn to_wait_for(&self, request: NonNull<Request>) -> Option<NonNull<Run>> {
        // SAFETY: As the caller says.
        let lock = unsafe { Request::locks(request)? };
        let mut there = 0;
        let mut host: Option<NonNull<Run>> = None;
        self.each_of(lock.inode, |run| {
            there += 1;
            // All behind one, so that they stay in order.
            // SAFETY: A member is alive while the lock is held.
            if host.is_none() || unsafe { (*run.as_ptr()).behind.len() } > 0 {
                host = Some(run);
            }
        });
        host.filter(|_| there >= lock.most)
    }

    /// The worker behind which others wait for `inode`, if any do.
    fn host(&self, inode: Inode) -> Option<NonNull<Run>> {
        let mut host = None;
        self.each_of(inode, |run| {
            // SAFETY: A member is alive while the lock is held.
            if unsafe { (*run.as_ptr()).behind.len() } > 0 {
                host = Some(run);
            }
        });
        host
    }

    /// What is next of those that wait for `inode`, and for nothing else.
    fn behind(&self, inode: Inode) -> Option<NonNull<Request>> {
        // SAFETY: A member is alive while the lock is held.
        unsafe { (*self.host(inode)?.as_ptr()).behind.first() }
    }

    /// One that has `inode` leaves: what waits for that waits for anybody again.
    fn let_go(&mut self, inode: Inode) {
        let Some(host) = self.host(inode) else {
            return;
        };
        // SAFETY: A member is alive while the lock is held; who waits there is.
        unsafe {
            while let Some(request) = (*host.as_ptr()).behind.last() {
                (*host.as_ptr()).behind.remove(request);
                // It came before those that wait now.
                self.waiting.push_first(request);
                (*Request::turn_of(request)).waits = Some(Place::All);
            }
        }
    }

    /// Calls `f` with each worker that has `inode`.
    fn each_of(&self, inode: Inode, mut f: impl FnMut(NonNull<Run>)) {
        let mut next = self.running.first();
        while let Some(run) = next {
            // SAFETY: A member is alive while the lock is held.
            unsafe {
                if (*run.as_ptr()).locks == Some(inode) {
                    f(run);
                }
                next = self.running.after(run);
            }
        }
    }

    /// # Safety
    ///
    /// `request` must wait here.
    unsafe fn leave(&mut self, request: NonNull<Request>) {
        // SAFETY: A member, and so alive; a worker behind which something waits is.
        unsafe {
            match (*Request::turn_of(request)).waits.take() {
                Some(Place::All) => self.waiting.remove(request),
                Some(Place::Behind(run)) => (*run.as_ptr()).behind.remove(request),
                None => (),
            }
        }
    }
}

impl Request {
    /// # Safety
    ///
    /// It must be alive.
    unsafe fn turn_of(this: NonNull<Self>) -> *mut Turn {
        // SAFETY: Alive.
        unsafe { (*this.as_ptr()).turn.get() }
    }

    /// Does what a worker can without sleeping for one whose page has come. False if that isn't all: it
    /// is still to be carried out.
    ///
    /// # Safety
    ///
    /// As for [`Self::carry_out`], and it must be [`Self::is_kicked`].
    unsafe fn carry_out_quickly(this: NonNull<Self>, batch: &Batch) -> bool {
        // SAFETY: As there.
        unsafe {
            let last = if batch.ctx().inflight().is_ending() {
                Some(ECANCELED.to_errno().into())
            } else {
                Self::carry_on_quickly(this)
            };
            if let Some(last) = last {
                Self::identity(this).account_io();
                Self::put(this);
                Self::finish(this, last, batch);
            }
            last.is_some()
        }
    }

    /// Does what a worker can.
    ///
    /// # Safety
    ///
    /// The file's half must be the caller's, who hands it on, and one reference more, which is given
    /// up. `batch` must be of its context.
    unsafe fn carry_out(this: NonNull<Self>, batch: &Batch) {
        // SAFETY: It is ours until it is handed on or ended. The other reference keeps it.
        unsafe {
            // What comes now may sleep, if only for memory.
            batch.tell();
            let job = (*Self::turn_of(this)).job;
            let result = match job {
                Job::Watch | Job::Look => {
                    // First, for it isn't ours for longer than that.
                    Self::put(this);
                    (*Self::turn_of(this)).job = Job::Look;
                    return if matches!(job, Job::Watch) {
                        Self::begin_watch(this)
                    } else {
                        Self::look(this)
                    };
                }
                // Who ends the context sees that a worker has it, or here it is seen that the context ends.
                _ if batch.ctx().inflight().is_ending() => Some(ECANCELED.to_errno().into()),
                Job::Transfer => Self::carry_on(this),
                Job::Sync { data_only } => Some(file_io::sync(&(*this.as_ptr()).file, data_only)),
            };
            // While there is no event: who sees that may look.
            Self::identity(this).account_io();
            // First, so that the end is of the batch.
            Self::put(this);
            if let Some(result) = result {
                Self::finish(this, result, batch);
            }
        }
    }
}

impl Prepared {
    /// Has a worker make last what was written to its file. From here on there will be an event.
    pub(crate) fn sync(mut self, data_only: bool) -> Submitted {
        self.0.turn.get_mut().job = Job::Sync { data_only };
        self.0.entry.get_mut().cancel = Some(Cancel::Parked);
        let request = self.leak();
        // SAFETY: The file's half is ours, and the request is the submitter's for longer.
        unsafe {
            Workers::employ(request);
            Submitted::going_on(request, true)
        }
    }

    /// Has a worker begin to watch its file, and look at that from then on.
    pub(super) fn watch_by_workers(mut self) -> Submitted {
        self.0.turn.get_mut().job = Job::Watch;
        let request = self.leak();
        // SAFETY: As above.
        unsafe {
            Workers::employ(request);
            Submitted::going_on(request, true)
        }
    }
}

impl Request {
    /// Does it write what is to last, other than by the doing of a process?
    ///
    /// # Safety
    ///
    /// As for [`Self::locks`].
    unsafe fn writes(this: NonNull<Self>) -> bool {
        // SAFETY: Alive, and ours.
        unsafe {
            let writes = match (*Self::turn_of(this)).job {
                Job::Transfer => (*this.as_ptr()).kiocb.writes(),
                Job::Sync { .. } => true,
                Job::Watch | Job::Look => false,
            };
            writes && !file_io::is_fuse(&(*this.as_ptr()).file)
        }
    }

    /// Is its file looked at by workers?
    ///
    /// # Safety
    ///
    /// It must be alive, and the caller's.
    pub(super) unsafe fn is_watched_by_workers(this: NonNull<Self>) -> bool {
        // SAFETY: It is ours.
        unsafe { matches!((*Self::turn_of(this)).job, Job::Watch | Job::Look) }
    }
}
