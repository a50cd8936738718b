// SPDX-License-Identifier: GPL-2.0

//! The requests of one device that wait for their end, and what a test has said about that.
//!
//! A request is admitted, becomes a [`Job`], waits on one of the lists of [`State`], and is ended by
//! whoever takes it off: a command, one of two timers, the one who cancels it, or its own caller that
//! was killed. So it is ended once, and never with the lock held. It counts as started when it is
//! admitted, and as ended when who asked for it has been told.
//!
//! # Locks
//!
//! `state`, a spin lock with interrupts off, in any context. Inside of it are taken that of `changed`
//! and those of the timers, by starting one; no lock of the device or of who asked.

use crate::{
    helpers,
    timer::{
        self,
        now,
        Lane, //
    }, //
};
use kernel::{
    bindings, container_of,
    error::code,
    list::{
        impl_list_arc_safe,
        impl_list_item,
        List,
        ListArc,
        ListLinks, //
    },
    new_condvar, new_spinlock_irq,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        CondVar,
        SpinLockIrq, //
    },
    types::Opaque,
};

/// How long a late end is late, in nanoseconds.
const LATE: i64 = 1_000_000;

/// A request as its device knows it.
pub(crate) trait Work: Send + Sync + 'static {
    /// What the device consists of.
    type Device: Send + Sync;

    /// Is it a character device?
    const IS_CHAR: bool;

    /// Does what was asked for, unless there is an error, and tells who asked. Called once, in any
    /// context. Others may be ending other requests.
    fn end(&mut self, device: &Self::Device, error: Option<Error>);
}

/// When requests end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Before the method returns, which says that it will be later.
    Now,
    /// When the method returns the result.
    Sync,
    /// Later, in a softirq.
    Softirq,
    /// So many nanoseconds later, in a hard interrupt.
    Timer(i64),
    /// When told.
    Hang,
}

/// What happens when one that waits is to be cancelled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cancel {
    /// It doesn't offer that.
    No,
    /// It is.
    Yes,
    /// It isn't.
    Refuse,
    /// It is, later.
    Late,
}

/// How many of those that are next.
#[derive(Clone, Copy)]
pub(crate) enum Next {
    /// So many.
    Some(u64),
    /// All.
    All,
}

impl Next {
    /// Is this one of them? It is counted.
    fn take(&mut self) -> bool {
        match self {
            Self::All => true,
            Self::Some(0) => false,
            Self::Some(n) => {
                *n = n.saturating_sub(1);
                true
            }
        }
    }
}

/// What a test can wait for.
#[derive(Clone, Copy)]
pub(crate) enum Event {
    Held,
    Started,
    Ended,
}

/// What has happened since the last reset.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) started: u64,
    pub(crate) ended: u64,
    pub(crate) cancelled: u64,
    /// Of those, by who can't sleep for it has interrupted another.
    pub(crate) interrupting: u64,
    pub(crate) failed: u64,
    pub(crate) refused: u64,
    pub(crate) shortened: u64,
    /// The I/O priority of the last that was started.
    pub(crate) ioprio: u16,
    /// Those whose data came with what protects it.
    pub(crate) protected: u64,
}

/// A request that waits.
#[pin_data]
pub(crate) struct Job<W: Work> {
    #[pin]
    links: ListLinks,
    id: usize,
    cancel: Cancel,
    /// When it ends, if it is on a timer's list. Only accessed with the lock held.
    deadline: Atomic<i64>,
    /// The error it ends with, or 0. Written with the lock held, before it leaves the last list.
    error: Atomic<i32>,
    work: W,
}

impl_list_arc_safe! {
    impl{W: Work} ListArcSafe<0> for Job<W> { untracked; }
}

impl_list_item! {
    impl{W: Work} ListItem<0> for Job<W> { using ListLinks { self.links }; }
}

impl<W: Work> Job<W> {
    /// One that is found by `id`, which no other of the device has as long as this one waits.
    pub(crate) fn new(
        id: usize,
        cancel: Cancel,
        work: W,
        flags: kernel::alloc::Flags,
    ) -> Result<ListArc<Self>> {
        ListArc::pin_init(
            try_pin_init!(Self {
                links <- ListLinks::new(),
                id,
                cancel,
                deadline: Atomic::new(0),
                error: Atomic::new(0),
                work,
            }? Error),
            flags,
        )
    }

    fn fail(&self, error: Error) {
        self.error.store(error.to_errno(), Relaxed);
    }
}

/// What goes for a request that was admitted.
pub(crate) struct Plan {
    pub(crate) mode: Mode,
    pub(crate) cancel: Cancel,
    /// How many bytes it may transfer.
    pub(crate) len: usize,
    resets: u64,
}

impl Plan {
    /// Does it wait for something that may not come for long?
    pub(crate) fn offers_cancel(&self) -> bool {
        self.cancel != Cancel::No && matches!(self.mode, Mode::Hang | Mode::Timer(_))
    }
}

struct State<W: Work> {
    mode: Mode,
    cancel: Cancel,
    nowait: Next,
    short: Next,
    short_len: usize,
    resets: u64,
    counts: Counts,
    nr_held: u64,
    /// Those that are offering to be cancelled. Nobody ends them, but they can be cancelled.
    offering: List<Job<W>>,
    /// The oldest is the first.
    held: List<Job<W>>,
    /// The first is the one whose time comes first.
    soft: List<Job<W>>,
    hard: List<Job<W>>,
}

impl<W: Work> State<W> {
    const fn new() -> Self {
        Self {
            mode: Mode::Now,
            cancel: Cancel::No,
            nowait: Next::Some(0),
            short: Next::Some(0),
            short_len: 0,
            resets: 0,
            counts: Counts {
                started: 0,
                ended: 0,
                cancelled: 0,
                interrupting: 0,
                failed: 0,
                refused: 0,
                shortened: 0,
                ioprio: 0,
                protected: 0,
            },
            nr_held: 0,
            offering: List::new(),
            held: List::new(),
            soft: List::new(),
            hard: List::new(),
        }
    }

    fn lane(&mut self, lane: Lane) -> &mut List<Job<W>> {
        match lane {
            Lane::Soft => &mut self.soft,
            Lane::Hard => &mut self.hard,
        }
    }

    /// Takes a job off the list it is on, if `wanted` says so.
    fn take(&mut self, id: usize, wanted: impl Fn(&Job<W>) -> bool) -> Option<ListArc<Job<W>>> {
        if let Some(job) = take_from(&mut self.held, id, &wanted) {
            self.nr_held = self.nr_held.saturating_sub(1);
            return Some(job);
        }
        take_from(&mut self.offering, id, &wanted)
            .or_else(|| take_from(&mut self.hard, id, &wanted))
            .or_else(|| take_from(&mut self.soft, id, &wanted))
    }

    fn reached(&self, event: Event, n: u64) -> bool {
        n <= match event {
            Event::Held => self.nr_held,
            Event::Started => self.counts.started,
            Event::Ended => self.counts.ended,
        }
    }
}

fn take_from<W: Work>(
    list: &mut List<Job<W>>,
    id: usize,
    wanted: impl Fn(&Job<W>) -> bool,
) -> Option<ListArc<Job<W>>> {
    let mut cursor = list.cursor_front();
    while let Some(job) = cursor.peek_next() {
        if job.id == id {
            return wanted(&job).then(|| job.remove());
        }
        cursor.move_next();
    }
    None
}

/// A device, and its requests that wait.
///
/// # Invariants
///
/// `soft` and `hard` are initialised timers with the functions and modes that [`Queue::new`] gives.
#[pin_data(PinnedDrop)]
pub(crate) struct Queue<W: Work> {
    #[pin]
    state: SpinLockIrq<State<W>>,
    #[pin]
    changed: CondVar,
    #[pin]
    soft: Opaque<bindings::hrtimer>,
    #[pin]
    hard: Opaque<bindings::hrtimer>,
    #[pin]
    device: W::Device,
}

// SAFETY: What isn't by itself are the timers, which may be used from every thread.
unsafe impl<W: Work> Send for Queue<W> {}
// SAFETY: What isn't by itself are the timers, which are started with the lock held.
unsafe impl<W: Work> Sync for Queue<W> {}

impl<W: Work> Queue<W> {
    /// One without requests.
    pub(crate) fn new(device: impl PinInit<W::Device, Error>) -> Result<Arc<Self>> {
        // INVARIANT: This is what initialises the timers.
        Arc::pin_init(
            try_pin_init!(Self {
                state <- new_spinlock_irq!(State::new(), "raio_test_queue"),
                changed <- new_condvar!("raio_test_queue"),
                soft <- Opaque::ffi_init(|timer| {
                    // SAFETY: Memory for a timer that stays where it is.
                    unsafe { timer::setup(timer, Self::soft_fired, Lane::Soft) }
                }),
                hard <- Opaque::ffi_init(|timer| {
                    // SAFETY: Memory for a timer that stays where it is.
                    unsafe { timer::setup(timer, Self::hard_fired, Lane::Hard) }
                }),
                device <- device,
            }? Error),
            GFP_KERNEL,
        )
    }

    /// What the device consists of.
    pub(crate) fn device(&self) -> &W::Device {
        &self.device
    }

    /// Lets a request of `len` bytes come in. It is started, and has to be ended. `EAGAIN` if
    /// it must not wait and a test said so.
    pub(crate) fn admit(&self, nowait: bool, ioprio: u16, len: usize) -> Result<Plan> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if nowait && state.nowait.take() {
            state.counts.refused += 1;
            return Err(EAGAIN);
        }
        let mut plan = Plan {
            mode: state.mode,
            cancel: state.cancel,
            len,
            resets: state.resets,
        };
        if state.short.take() && len > state.short_len {
            plan.len = state.short_len;
            state.counts.shortened += 1;
        }
        state.counts.started += 1;
        state.counts.ioprio = ioprio;
        self.changed.notify_all();
        Ok(plan)
    }

    /// The data of one that was admitted is protected.
    pub(crate) fn was_protected(&self) {
        self.state.lock().counts.protected += 1;
    }

    /// A request that was admitted has ended without having been a job.
    pub(crate) fn ended(&self) {
        self.state.lock().counts.ended += 1;
        self.changed.notify_all();
    }

    /// Keeps a job until its time comes.
    pub(crate) fn keep(&self, plan: &Plan, job: ListArc<Job<W>>) {
        self.place(&mut self.state.lock(), plan, job);
    }

    /// The same for one that can be cancelled, which `offer` says to who asked for it. From then on
    /// that can happen, but no other end.
    pub(crate) fn keep_offering(&self, plan: &Plan, job: ListArc<Job<W>>, offer: impl FnOnce()) {
        let id = job.id;
        self.state.lock().offering.push_back(job);
        offer();
        let mut state = self.state.lock();
        // It may be cancelled already.
        if let Some(job) = take_from(&mut state.offering, id, |_| true) {
            self.place(&mut state, plan, job);
        }
    }

    fn place(&self, state: &mut State<W>, plan: &Plan, job: ListArc<Job<W>>) {
        match plan.mode {
            // The command that ends all that is held has been there.
            _ if state.resets != plan.resets => self.schedule(state, Lane::Soft, 0, job),
            // Nothing is held any more, and who says so may have ended what is, too.
            Mode::Hang if state.mode != Mode::Hang => self.schedule(state, Lane::Soft, 0, job),
            Mode::Now | Mode::Sync | Mode::Softirq => self.schedule(state, Lane::Soft, 0, job),
            Mode::Timer(delay) => self.schedule(state, Lane::Hard, delay, job),
            Mode::Hang => {
                state.held.push_back(job);
                state.nr_held += 1;
                self.changed.notify_all();
            }
        }
    }

    /// Has a job ended by a timer.
    fn schedule(&self, state: &mut State<W>, lane: Lane, delay: i64, job: ListArc<Job<W>>) {
        let deadline = now().saturating_add(delay);
        job.deadline.store(deadline, Relaxed);
        let mut cursor = state.lane(lane).cursor_back();
        while cursor
            .peek_prev()
            .is_some_and(|prev| prev.deadline.load(Relaxed) > deadline)
        {
            cursor.move_prev();
        }
        let first = cursor.peek_prev().is_none();
        cursor.insert(job);
        if first {
            self.start_timer(lane, deadline);
        }
    }

    /// To be called with the lock held, so that the last start is the one for the first in line.
    fn start_timer(&self, lane: Lane, deadline: i64) {
        let timer = match lane {
            Lane::Soft => &self.soft,
            Lane::Hard => &self.hard,
        };
        // SAFETY: Set up for this lane, by the type invariant.
        unsafe { timer::start(timer.get(), lane, deadline) }
    }

    /// # Safety
    ///
    /// To be called as the function of a queue's `soft`.
    unsafe extern "C" fn soft_fired(timer: *mut bindings::hrtimer) -> bindings::hrtimer_restart {
        // SAFETY: That timer is in a queue, whose end waits for this function.
        let queue = unsafe { &*container_of!(timer.cast::<Opaque<_>>(), Self, soft) };
        queue.fired(Lane::Soft);
        bindings::hrtimer_restart::HRTIMER_NORESTART
    }

    /// # Safety
    ///
    /// To be called as the function of a queue's `hard`.
    unsafe extern "C" fn hard_fired(timer: *mut bindings::hrtimer) -> bindings::hrtimer_restart {
        // SAFETY: That timer is in a queue, whose end waits for this function.
        let queue = unsafe { &*container_of!(timer.cast::<Opaque<_>>(), Self, hard) };
        queue.fired(Lane::Hard);
        bindings::hrtimer_restart::HRTIMER_NORESTART
    }

    fn fired(&self, lane: Lane) {
        let mut due = List::new();
        {
            let mut state = self.state.lock();
            let time = now();
            let mut cursor = state.lane(lane).cursor_front();
            while let Some(job) = cursor.peek_next() {
                let deadline = job.deadline.load(Relaxed);
                if deadline > time {
                    self.start_timer(lane, deadline);
                    break;
                }
                due.push_back(job.remove());
            }
        }
        self.finish_all(due);
    }

    /// Ends a job that is on no list.
    pub(crate) fn finish(&self, job: ListArc<Job<W>>) {
        let error = match job.error.load(Relaxed) {
            0 => None,
            errno => Some(Error::from_errno(errno)),
        };
        // Nobody else has a reference: a list has the only one.
        if let Some(mut job) = Arc::into_unique_or_drop(job.into_arc()) {
            job.as_mut().project().work.end(&self.device, error);
        }
        self.ended();
    }

    fn finish_all(&self, mut jobs: List<Job<W>>) {
        while let Some(job) = jobs.pop_front() {
            self.finish(job);
        }
    }

    /// Takes a job off whatever list it is on, for its caller that gives it up. It has to be
    /// finished.
    pub(crate) fn withdraw(&self, id: usize) -> Option<ListArc<Job<W>>> {
        let mut state = self.state.lock();
        let job = state.take(id, |_| true)?;
        state.counts.cancelled += 1;
        job.fail(EINTR);
        Some(job)
    }

    /// Somebody wants a job cancelled; false if it isn't. `here` says whether it may be ended
    /// before this returns. Any context.
    pub(crate) fn cancel(&self, id: usize, here: bool) -> bool {
        let mut state = self.state.lock();
        let Some(job) = state.take(id, |job| job.cancel != Cancel::Refuse) else {
            return false;
        };
        state.counts.cancelled += 1;
        // SAFETY: It only looks at the current context.
        if unsafe { helpers::raio_test_interrupting() } {
            state.counts.interrupting += 1;
        }
        job.fail(code::ECANCELED);
        if here && job.cancel == Cancel::Yes {
            drop(state);
            self.finish(job);
        } else {
            let delay = if job.cancel == Cancel::Late { LATE } else { 0 };
            self.schedule(&mut state, Lane::Soft, delay, job);
        }
        true
    }

    /// Ends those held for the longest, at most so many.
    pub(crate) fn release(&self, mut next: Next, error: Option<Error>) {
        let mut jobs = List::new();
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            while !state.held.is_empty() && next.take() {
                let Some(job) = state.held.pop_front() else {
                    break;
                };
                state.nr_held = state.nr_held.saturating_sub(1);
                if let Some(error) = error {
                    job.fail(error);
                    state.counts.failed += 1;
                }
                jobs.push_back(job);
            }
        }
        self.finish_all(jobs);
    }

    /// Ends all that waits and waits until nothing is in flight; then all is as in the beginning.
    pub(crate) fn reset(&self) -> Result {
        let mut jobs = List::new();
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let new = State::<W>::new();
            state.mode = new.mode;
            state.cancel = new.cancel;
            state.nowait = new.nowait;
            state.short = new.short;
            state.resets = state.resets.wrapping_add(1);
            state.nr_held = 0;
            jobs.push_all_back(&mut state.held);
            jobs.push_all_back(&mut state.soft);
            jobs.push_all_back(&mut state.hard);
        }
        self.finish_all(jobs);

        let mut state = self.state.lock();
        while state.counts.started != state.counts.ended {
            if self.changed.wait_interruptible(&mut state) {
                return Err(ERESTARTSYS);
            }
        }
        state.counts = Counts::default();
        Ok(())
    }

    /// Waits until so much of it has come.
    pub(crate) fn wait(&self, event: Event, n: u64) -> Result {
        let mut state = self.state.lock();
        while !state.reached(event, n) {
            if self.changed.wait_interruptible(&mut state) {
                return Err(ERESTARTSYS);
            }
        }
        Ok(())
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        self.state.lock().mode = mode;
    }

    pub(crate) fn set_cancel(&self, cancel: Cancel) {
        self.state.lock().cancel = cancel;
    }

    pub(crate) fn set_nowait(&self, next: Next) {
        self.state.lock().nowait = next;
    }

    pub(crate) fn set_short(&self, next: Next, len: usize) {
        let mut state = self.state.lock();
        state.short = next;
        state.short_len = len;
    }

    /// The mode, how many are held, and what has happened.
    pub(crate) fn stat(&self) -> (Mode, u64, Counts) {
        let state = self.state.lock();
        (state.mode, state.nr_held, state.counts)
    }
}

#[pinned_drop]
impl<W: Work> PinnedDrop for Queue<W> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Initialised, by the type invariant. No request is left, so nobody starts them.
        unsafe {
            bindings::hrtimer_cancel(self.soft.get());
            bindings::hrtimer_cancel(self.hard.get());
        }
    }
}
