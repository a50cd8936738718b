// SPDX-License-Identifier: GPL-2.0

//! What `poll(2)` says of a character device, and who is woken when.
//!
//! A device has four wait queues. A test says on which of them those are put who poll it, what they
//! are told, and who is woken with which key: by a command, in interrupts, or by the device's own
//! method after it has looked. A queue can be freed while somebody is on it, as those of signalfd
//! and binder are: who is on it is told, and the memory goes after a grace period. (Not with
//! somebody in `poll(2)`, which doesn't expect that.)
//!
//! # Locks
//!
//! `queueing`, a mutex: no queue is freed while somebody is put on it. Inside of it, and in any
//! context, `state`, a spin lock with interrupts off, inside of which are only that of `changed`
//! and those of the timers. Neither `state` nor a lock of whoever wakes is held when somebody is
//! woken.

use crate::timer::{
    self,
    now,
    Lane, //
};
use core::{
    mem,
    ptr, //
};
use kernel::{
    bindings, container_of,
    fs::File,
    new_condvar, new_mutex, new_spinlock_irq,
    prelude::*,
    sync::{
        rcu,
        Arc,
        CondVar,
        Mutex,
        SpinLockIrq, //
    },
    types::Opaque,
    warn_on,
};

/// Wait queues of a device.
pub(crate) const NR_QUEUES: usize = 4;

/// On so many queues, or so often on one, may one be put.
pub(crate) const MAX_PLACES: usize = 8;

/// What a file without a `poll` method says.
const DEFAULT: u32 =
    bindings::POLLIN | bindings::POLLOUT | bindings::POLLRDNORM | bindings::POLLWRNORM;

/// A wait queue.
///
/// # Invariants
///
/// `inner` is initialised.
#[pin_data(PinnedDrop)]
struct Head {
    #[pin]
    inner: Opaque<bindings::wait_queue_head>,
}

// SAFETY: A wait queue may be used from every thread.
unsafe impl Send for Head {}
// SAFETY: A wait queue may be used from every thread at the same time.
unsafe impl Sync for Head {}

impl Head {
    fn new() -> Result<Arc<Self>> {
        let key = kernel::static_lock_class!();
        Arc::pin_init(
            // INVARIANT: This initialises it.
            pin_init!(Self {
                inner <- Opaque::ffi_init(|head| {
                    let name = c"raio_test_head".as_char_ptr();
                    // SAFETY: Memory for a wait queue that stays where it is; the key is static.
                    unsafe { bindings::__init_waitqueue_head(head, name, key.as_ptr()) }
                }),
            }),
            GFP_KERNEL,
        )
    }

    /// A key of 0 is none. Any context.
    fn wake(&self, key: u32) {
        let key = ptr::without_provenance_mut(key as usize);
        // SAFETY: Initialised, by the type invariant.
        unsafe { bindings::__wake_up(self.inner.get(), bindings::TASK_NORMAL, 1, key) };
    }
}

#[pinned_drop]
impl PinnedDrop for Head {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Initialised, by the type invariant, and ours alone, but for who shouldn't be there.
        let list = unsafe { &raw const (*self.inner.get()).head };
        // SAFETY: As above.
        warn_on!(unsafe { !ptr::eq((*list).next, list) });
    }
}

/// A way of waking somebody.
#[derive(Clone, Copy)]
pub(crate) struct Wake {
    /// Which queue.
    pub(crate) queue: usize,
    /// The key, which is a mask.
    pub(crate) key: u32,
    /// Whether that is ready from then on.
    pub(crate) ready: bool,
}

/// On which queues who polls is put, in this order.
#[derive(Clone, Copy)]
pub(crate) struct Places {
    queues: [u8; MAX_PLACES],
    nr: usize,
}

impl Places {
    /// None.
    pub(crate) const NONE: Self = Self {
        queues: [0; MAX_PLACES],
        nr: 0,
    };

    /// One more. `EINVAL` if there is no such queue, or too many.
    pub(crate) fn add(&mut self, queue: u8) -> Result {
        if usize::from(queue) >= NR_QUEUES {
            return Err(EINVAL);
        }
        *self.queues.get_mut(self.nr).ok_or(EINVAL)? = queue;
        self.nr += 1;
        Ok(())
    }
}

/// Wake-ups yet to come.
#[derive(Clone, Copy)]
struct Alarm {
    left: u64,
    period: i64,
    wake: Wake,
}

impl Alarm {
    const OFF: Self = Self {
        left: 0,
        period: 0,
        wake: Wake {
            queue: 0,
            key: 0,
            ready: false,
        },
    };

    /// The next of them.
    fn take(&mut self) -> Option<Wake> {
        self.left = self.left.checked_sub(1)?;
        Some(self.wake)
    }
}

/// What a test can wait for.
#[derive(Clone, Copy)]
pub(crate) enum Seen {
    Polled,
    Woken,
}

/// What has happened since the last reset.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) polled: u64,
    pub(crate) woken: u64,
}

struct State {
    heads: [Arc<Head>; NR_QUEUES],
    ready: u32,
    places: Places,
    /// In the next calls of the method.
    during: Alarm,
    soft: Alarm,
    hard: Alarm,
    counts: Counts,
}

impl State {
    fn new() -> Result<Self> {
        let mut places = Places::NONE;
        places.add(0)?;
        Ok(Self {
            heads: [Head::new()?, Head::new()?, Head::new()?, Head::new()?],
            ready: DEFAULT,
            places,
            during: Alarm::OFF,
            soft: Alarm::OFF,
            hard: Alarm::OFF,
            counts: Counts::default(),
        })
    }

    fn alarm(&mut self, lane: Lane) -> &mut Alarm {
        match lane {
            Lane::Soft => &mut self.soft,
            Lane::Hard => &mut self.hard,
        }
    }

    fn head(&self, queue: usize) -> Option<Arc<Head>> {
        self.heads.get(queue).cloned()
    }
}

/// Who polls a device.
///
/// # Invariants
///
/// `soft` and `hard` are initialised timers with the functions and lanes that [`Pollers::new`] gives.
#[pin_data(PinnedDrop)]
pub(crate) struct Pollers {
    #[pin]
    queueing: Mutex<()>,
    #[pin]
    state: SpinLockIrq<State>,
    #[pin]
    changed: CondVar,
    #[pin]
    soft: Opaque<bindings::hrtimer>,
    #[pin]
    hard: Opaque<bindings::hrtimer>,
}

// SAFETY: What isn't by itself are the timers, which may be used from every thread.
unsafe impl Send for Pollers {}
// SAFETY: What isn't by itself are the timers, which are started with the lock held.
unsafe impl Sync for Pollers {}

impl Pollers {
    /// Nobody; who comes is told that there is everything, on queue 0.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        // INVARIANT: This is what initialises the timers.
        try_pin_init!(Self {
            queueing <- new_mutex!((), "raio_test_queueing"),
            state <- new_spinlock_irq!(State::new()?, "raio_test_pollers"),
            changed <- new_condvar!("raio_test_pollers"),
            soft <- Opaque::ffi_init(|timer| {
                // SAFETY: Memory for a timer that stays where it is.
                unsafe { timer::setup(timer, Self::soft_fired, Lane::Soft) }
            }),
            hard <- Opaque::ffi_init(|timer| {
                // SAFETY: Memory for a timer that stays where it is.
                unsafe { timer::setup(timer, Self::hard_fired, Lane::Hard) }
            }),
        }? Error)
    }

    /// The method: puts who polls `file` where a test has said, and says what is ready.
    ///
    /// # Safety
    ///
    /// `table` must be what the method was called with for `file`.
    pub(crate) unsafe fn poll(&self, file: &File, table: *mut bindings::poll_table) -> u32 {
        {
            let _queueing = self.queueing.lock();
            let places = self.state.lock().places;
            for queue in places.queues.iter().take(places.nr) {
                let head = self.state.lock().head((*queue).into());
                if let Some(head) = head {
                    // SAFETY: A live file and its table. The queue isn't freed while `queueing` is
                    // held, nor without telling who is on it.
                    unsafe { bindings::poll_wait(file.as_ptr(), head.inner.get(), table) };
                }
            }
        }
        let (ready, during) = {
            let mut state = self.state.lock();
            state.counts.polled += 1;
            (state.ready, state.during.take())
        };
        self.changed.notify_all();
        if let Some(wake) = during {
            self.wake(wake);
        }
        ready
    }

    /// What is ready from now on. Nobody is woken.
    pub(crate) fn set_ready(&self, ready: u32) {
        self.state.lock().ready = ready;
    }

    /// Where who polls is put from now on.
    pub(crate) fn set_places(&self, places: Places) {
        self.state.lock().places = places;
    }

    /// Wakes who is on a queue. Any context.
    pub(crate) fn wake(&self, wake: Wake) {
        let head = {
            let mut state = self.state.lock();
            if wake.ready {
                state.ready |= wake.key;
            }
            state.head(wake.queue)
        };
        if let Some(head) = head {
            head.wake(wake.key);
        }
        self.state.lock().counts.woken += 1;
        self.changed.notify_all();
    }

    /// Does that in the next `times` calls of the method, after it has looked what is ready.
    pub(crate) fn wake_during(&self, times: u64, wake: Wake) {
        self.state.lock().during = Alarm {
            left: times,
            period: 0,
            wake,
        };
    }

    /// Does that `times` times in interrupts, the first in `period` nanoseconds.
    pub(crate) fn wake_later(&self, lane: Lane, period: i64, times: u64, wake: Wake) {
        let mut state = self.state.lock();
        *state.alarm(lane) = Alarm {
            left: times,
            period,
            wake,
        };
        self.start_timer(lane, period);
    }

    /// To be called with the lock held.
    fn start_timer(&self, lane: Lane, period: i64) {
        let timer = match lane {
            Lane::Soft => &self.soft,
            Lane::Hard => &self.hard,
        };
        // SAFETY: Set up for this lane, by the type invariant.
        unsafe { timer::start(timer.get(), lane, now().saturating_add(period)) }
    }

    /// # Safety
    ///
    /// To be called as the function of a device's `soft`.
    unsafe extern "C" fn soft_fired(timer: *mut bindings::hrtimer) -> bindings::hrtimer_restart {
        // SAFETY: That timer is in a `Pollers`, whose end waits for this function.
        let pollers = unsafe { &*container_of!(timer.cast::<Opaque<_>>(), Self, soft) };
        pollers.fired(Lane::Soft);
        bindings::hrtimer_restart::HRTIMER_NORESTART
    }

    /// # Safety
    ///
    /// To be called as the function of a device's `hard`.
    unsafe extern "C" fn hard_fired(timer: *mut bindings::hrtimer) -> bindings::hrtimer_restart {
        // SAFETY: That timer is in a `Pollers`, whose end waits for this function.
        let pollers = unsafe { &*container_of!(timer.cast::<Opaque<_>>(), Self, hard) };
        pollers.fired(Lane::Hard);
        bindings::hrtimer_restart::HRTIMER_NORESTART
    }

    fn fired(&self, lane: Lane) {
        let wake = {
            let mut state = self.state.lock();
            let alarm = state.alarm(lane);
            let wake = alarm.take();
            if alarm.left > 0 {
                let period = alarm.period;
                self.start_timer(lane, period);
            }
            wake
        };
        if let Some(wake) = wake {
            self.wake(wake);
        }
    }

    /// Frees a queue, whoever is on it. Who comes next is put on a new one.
    pub(crate) fn free(&self, queue: usize) -> Result {
        let new = Head::new()?;
        let old = {
            let _queueing = self.queueing.lock();
            let old = {
                let mut state = self.state.lock();
                mem::replace(state.heads.get_mut(queue).ok_or(EINVAL)?, new)
            };
            // SAFETY: Initialised, by the type invariant. Nobody is put on it from now on.
            unsafe { bindings::__wake_up_pollfree(old.inner.get()) };
            old
        };
        // Who saw it before it was told is through with it after that.
        rcu::synchronize_rcu();
        drop(old);
        Ok(())
    }

    /// Waits until so much of it has come.
    pub(crate) fn wait(&self, seen: Seen, n: u64) -> Result {
        let mut state = self.state.lock();
        loop {
            let counts = state.counts;
            let come = match seen {
                Seen::Polled => counts.polled,
                Seen::Woken => counts.woken,
            };
            if come >= n {
                return Ok(());
            }
            if self.changed.wait_interruptible(&mut state) {
                return Err(ERESTARTSYS);
            }
        }
    }

    /// All is ready as in the beginning, and who waits for that is woken.
    pub(crate) fn reset(&self) -> Result {
        let new = State::new()?;
        let heads = {
            let mut state = self.state.lock();
            let heads = state.heads.clone();
            state.ready = new.ready;
            state.places = new.places;
            state.during = new.during;
            state.soft = new.soft;
            state.hard = new.hard;
            heads
        };
        self.stop_timers();
        for head in heads {
            head.wake(0);
        }
        self.state.lock().counts = Counts::default();
        Ok(())
    }

    /// They may have been started meanwhile.
    fn stop_timers(&self) {
        // SAFETY: Initialised, by the type invariant.
        unsafe {
            bindings::hrtimer_cancel(self.soft.get());
            bindings::hrtimer_cancel(self.hard.get());
        }
    }

    /// What has happened.
    pub(crate) fn counts(&self) -> Counts {
        self.state.lock().counts
    }
}

#[pinned_drop]
impl PinnedDrop for Pollers {
    fn drop(self: Pin<&mut Self>) {
        self.stop_timers();
    }
}
