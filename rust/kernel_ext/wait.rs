// SPDX-License-Identifier: GPL-2.0

//! Wait queues: one whose waiters each wait for a level, and one for `poll(2)`.
//!
//! C headers: `include/linux/wait.h`, `include/linux/poll.h`.
//!
//! Neither has a barrier of its own on the waker's side: who wakes makes the change visible, then
//! has a full barrier, then asks [`LevelQueue::any`] or [`PollQueue::any`]. The waiter's side has
//! one, see [`Waiter::enqueue`] and [`PollQueue::register`].
//!
//! # Locks
//!
//! Each queue's own, a spin lock with interrupts off, in which the scheduler's nest, and for
//! [`PollQueue`] what `poll(2)` and `epoll(7)` take when they are woken.

use crate::bindings;
use core::{cell::UnsafeCell, ptr};
use kernel::{
    ffi,
    fs::File,
    prelude::*,
    sync::LockClassKey,
    types::Opaque, //
};

/// Initialises a queue. `init_waitqueue_head()` is a macro.
fn queue_head(
    name: &'static CStr,
    key: Pin<&'static LockClassKey>,
) -> impl PinInit<Opaque<bindings::wait_queue_head>> {
    Opaque::ffi_init(move |slot: *mut bindings::wait_queue_head| {
        // SAFETY: `slot` is memory for a wait queue that stays where it is; `name` and `key` live
        // for ever.
        unsafe { bindings::__init_waitqueue_head(slot, name.as_char_ptr(), key.as_ptr()) }
    })
}

/// Is anybody on that queue?
///
/// # Safety
///
/// It must be initialised.
#[inline]
unsafe fn active(queue: &Opaque<bindings::wait_queue_head>) -> bool {
    // SAFETY: Initialised, so there is a list, whose head isn't moved. Volatile: others change it,
    // and whatever is read is only compared.
    unsafe {
        let head = &raw const (*queue.get()).head;
        !ptr::eq((&raw const (*head).next).read_volatile(), head)
    }
}

/// A queue whose waiters each wait for a level. They share what is there, who came first first: a
/// [`wake`](Self::wake) wakes those for whom it is enough, besides what others have been woken for
/// and haven't come to yet. Whoever was woken must see to it that somebody calls it again when it
/// has taken its share, or leaves.
///
/// # Invariants
///
/// * Each entry is the `entry` of a [`Frame`] of [`LevelQueue::with_waiter`] that hasn't returned.
/// * `promised` is the sum of the levels of the frames that are `chosen`. It and they are accessed
///   with the queue's lock held.
#[pin_data]
pub(crate) struct LevelQueue {
    #[pin]
    inner: Opaque<bindings::wait_queue_head>,
    promised: UnsafeCell<u32>,
}

// SAFETY: A wait queue may be used from every thread.
unsafe impl Send for LevelQueue {}
// SAFETY: A wait queue may be used from every thread at the same time, and `promised` is guarded by
// its lock.
unsafe impl Sync for LevelQueue {}

#[repr(C)]
struct Frame {
    entry: bindings::wait_queue_entry,
    level: u32,
    /// It was woken, and hasn't come to it yet.
    chosen: bool,
}

/// What a waker tells [`LevelQueue::woken`].
struct Wake<'a> {
    queue: &'a LevelQueue,
    there: u32,
}

impl LevelQueue {
    /// A queue without waiters.
    pub(crate) fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- queue_head(name, key),
            promised: UnsafeCell::new(0),
        })
    }

    /// Is anybody queued? Who was so before the caller's last full barrier is.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        // SAFETY: `new` has initialised it.
        unsafe { active(&self.inner) }
    }

    /// Wakes as many as the level `there` is enough for.
    pub(crate) fn wake(&self, there: u32) {
        let wake = Wake { queue: self, there };
        self.wake_key((&raw const wake).cast_mut().cast());
    }

    /// Wakes all.
    pub(crate) fn wake_all(&self) {
        self.wake_key(ptr::null_mut());
    }

    fn wake_key(&self, key: *mut ffi::c_void) {
        // SAFETY: Initialised; `Self::woken` knows what the key is.
        unsafe { bindings::__wake_up(self.inner.get(), bindings::TASK_NORMAL, 0, key) };
    }

    /// # Safety
    ///
    /// To be called by the C side only, as the function of a [`Frame`]'s entry, with what
    /// [`LevelQueue::wake_key`] passed as the key: null, or a [`Wake`] of this queue.
    unsafe extern "C" fn woken(
        entry: *mut bindings::wait_queue_entry,
        mode: ffi::c_uint,
        flags: ffi::c_int,
        key: *mut ffi::c_void,
    ) -> ffi::c_int {
        // SAFETY: The frame of the waker waits for us.
        let Some(wake) = (unsafe { key.cast::<Wake<'_>>().as_ref() }) else {
            // SAFETY: Called as the C side would.
            return unsafe { bindings::autoremove_wake_function(entry, mode, flags, key) };
        };
        // By the invariant the entry is the first field of it.
        let frame = entry.cast::<Frame>();
        // SAFETY: The queue's lock is held, so nobody else has `promised`, and the frame is alive
        // for as long as the entry is on the queue. It wakes first and then leaves the queue with
        // a release, after which the entry isn't touched: its frame may be gone.
        unsafe {
            let promised = wake.queue.promised.get();
            let level = (*frame).level;
            let left = wake.there.saturating_sub(*promised);
            if level > left {
                // Perhaps it is enough for one who came later, if there is anything.
                return if left == 0 { -1 } else { 0 };
            }
            // INVARIANT: Both are changed together.
            *promised += level;
            (*frame).chosen = true;
            let ret = bindings::autoremove_wake_function(entry, mode, flags, key);
            if ret == 0 {
                // It runs already, will look by itself, and is still on the queue.
                *promised -= level;
                (*frame).chosen = false;
            }
            ret
        }
    }

    /// Runs `f` with a place in the queue for somebody who waits for `level`, at least 1, until
    /// `deadline` (nanoseconds of the monotonic clock; [`None`] is for ever) or a signal.
    pub(crate) fn with_waiter<R>(
        &self,
        level: u32,
        deadline: Option<i64>,
        f: impl FnOnce(&mut Waiter<'_>) -> R,
    ) -> R {
        let frame: Opaque<Frame> = Opaque::zeroed();
        let mut waiter = Waiter {
            queue: self,
            frame: &frame,
            deadline,
        };
        let entry = waiter.entry();
        // Exclusive entries are queued at the end, so that who came first is woken first.
        // SAFETY: Memory of our frame that nobody else has seen.
        unsafe {
            bindings::init_wait_entry(entry, bindings::WQ_FLAG_EXCLUSIVE as ffi::c_int);
            (*entry).func = Some(Self::woken);
            (*frame.get()).level = level;
        }
        let ret = f(&mut waiter);
        // SAFETY: Both are initialised. When this returns, nobody has the entry any more.
        unsafe { bindings::finish_wait(self.inner.get(), entry) };
        waiter.arrive();
        ret
    }
}

/// A place in a [`LevelQueue`].
pub(crate) struct Waiter<'a> {
    queue: &'a LevelQueue,
    frame: &'a Opaque<Frame>,
    deadline: Option<i64>,
}

impl Waiter<'_> {
    /// The first field of the frame, which is `repr(C)`.
    fn entry(&self) -> *mut bindings::wait_queue_entry {
        self.frame.get().cast()
    }

    /// If it was woken for something, that is no longer promised to it: it looks for itself.
    fn arrive(&self) {
        // SAFETY: The queue is initialised, and `promised` and the frame are accessed with its lock
        // held.
        unsafe {
            let lock = &raw mut (*self.queue.inner.get()).lock;
            let frame = self.frame.get();
            bindings::spin_lock_irq_disable(lock);
            if (*frame).chosen {
                // INVARIANT: Both are changed together.
                (*frame).chosen = false;
                *self.queue.promised.get() -= (*frame).level;
            }
            bindings::spin_unlock_irq_enable(lock);
        }
    }

    /// Queues the caller, about to sleep, and has a full barrier after that (`set_current_state()`
    /// in `prepare_to_wait_event()`). False if a signal is pending; the caller is not queued then.
    pub(crate) fn enqueue(&mut self) -> bool {
        self.arrive();
        // INVARIANT: The entry is in the frame of `with_waiter`, which takes it off.
        // SAFETY: Both are initialised.
        let ret = unsafe {
            bindings::prepare_to_wait_event(
                self.queue.inner.get(),
                self.entry(),
                bindings::TASK_INTERRUPTIBLE as ffi::c_int,
            )
        };
        ret == 0
    }

    /// Sleeps until woken. False if that is because the time is over. To be called after
    /// [`Self::enqueue`], with nothing in between that sleeps.
    pub(crate) fn sleep(&mut self) -> bool {
        let mut until = self.deadline.unwrap_or(0);
        let until: *mut i64 = match self.deadline {
            Some(_) => &mut until,
            None => ptr::null_mut(),
        };
        // SAFETY: A time in our frame, or null for no end.
        unsafe { bindings::raio_schedule_until(until) != 0 }
    }
}

/// The queue of those who poll a file. The kernel crate's `PollCondVar` waits for RCU when it is
/// dropped, so it can't be dropped everywhere. This one must live until the file is released, when
/// nobody polls it any more.
#[pin_data]
pub(crate) struct PollQueue {
    #[pin]
    inner: Opaque<bindings::wait_queue_head>,
}

// SAFETY: A wait queue may be used from every thread.
unsafe impl Send for PollQueue {}
// SAFETY: A wait queue may be used from every thread at the same time.
unsafe impl Sync for PollQueue {}

impl PollQueue {
    /// A queue without waiters.
    pub(crate) fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self { inner <- queue_head(name, key) })
    }

    /// Is anybody queued? Who was so before the caller's last full barrier is.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        // SAFETY: `new` has initialised it.
        unsafe { active(&self.inner) }
    }

    /// Tells that there may be something to read. Not what: who is woken looks, for others may have
    /// read it by now. Any context.
    pub(crate) fn wake(&self) {
        // SAFETY: Initialised. Of those who asked to be the only one, one is woken.
        unsafe {
            bindings::__wake_up(self.inner.get(), bindings::TASK_NORMAL, 1, ptr::null_mut());
        }
    }

    /// Queues who polls `file`, and has a full barrier after that (`poll_wait()` has).
    ///
    /// # Safety
    ///
    /// `self` must live until `file` is released, and `table` be null or what the file's `poll`
    /// was called with.
    pub(crate) unsafe fn register(&self, file: &File, table: *mut bindings::poll_table) {
        // SAFETY: A live file and its table, or none; the queue lives for as long as anybody may be
        // on it, as the caller says.
        unsafe { bindings::poll_wait(file.as_ptr(), self.inner.get(), table) }
    }
}

/// What `poll(2)` says of a file from which something can be read.
pub(crate) const READABLE: u32 = bindings::POLLIN | bindings::POLLRDNORM;

/// Counts the ticks of the clock by which file systems note times.
#[inline]
pub(crate) fn tick() -> usize {
    // SAFETY: It may always be called.
    unsafe { bindings::raio_jiffies() }
}

/// The monotonic clock in nanoseconds.
pub(crate) fn now() -> i64 {
    // SAFETY: It may always be called.
    unsafe { bindings::ktime_get() }
}
