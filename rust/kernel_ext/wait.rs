// SPDX-License-Identifier: GPL-2.0

//! A wait queue whose waiters each wait for a level, and are woken only when it is reached.
//!
//! C header: `include/linux/wait.h`.
//!
//! The two sides of the protocol, each of which must see the other:
//!
//! * The waker makes its change visible, then [`LevelQueue::wake`] has a full barrier before it
//!   looks for waiters.
//! * The waiter queues itself and sets its state, which is a full barrier (`set_current_state()` in
//!   `prepare_to_wait_event()`), before it looks at the condition.

use crate::bindings;
use core::ptr;
use kernel::{ffi, prelude::*, sync::LockClassKey, types::Opaque};

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The condition holds.
    Ready,
    /// The time is over and the condition doesn't hold.
    TimedOut,
    /// A signal is pending and the condition doesn't hold.
    Signal,
}

/// The queue.
///
/// # Invariants
///
/// Each entry is the `entry` of a [`Waiter`] in a frame of [`LevelQueue::wait`] that hasn't
/// returned.
#[pin_data]
pub(crate) struct LevelQueue {
    #[pin]
    inner: Opaque<bindings::wait_queue_head>,
}

// SAFETY: A wait queue may be used from every thread.
unsafe impl Send for LevelQueue {}
// SAFETY: A wait queue may be used from every thread at the same time.
unsafe impl Sync for LevelQueue {}

#[repr(C)]
struct Waiter {
    entry: bindings::wait_queue_entry,
    level: u32,
}

impl LevelQueue {
    /// A queue without waiters.
    pub(crate) fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- Opaque::ffi_init(|slot: *mut bindings::wait_queue_head| {
                // SAFETY: `slot` is memory for a wait queue that stays where it is; `name` and
                // `key` live for ever.
                unsafe { bindings::__init_waitqueue_head(slot, name.as_char_ptr(), key.as_ptr()) }
            }),
        })
    }

    /// Wakes those who wait for a level of at most `level()`, which is only asked if somebody
    /// waits. What the caller did before is visible to each waiter that isn't seen here.
    #[inline]
    pub(crate) fn wake(&self, level: impl FnOnce() -> u32) {
        // SAFETY: Initialised. The function has the full barrier that pairs with the waiter's.
        if unsafe { bindings::raio_wq_has_sleeper(self.inner.get()) } {
            let key = ptr::without_provenance_mut(level() as usize);
            // SAFETY: Initialised; `Self::woken` knows what the key is.
            unsafe { bindings::__wake_up(self.inner.get(), bindings::TASK_NORMAL, 0, key) };
        }
    }

    /// Wakes all.
    pub(crate) fn wake_all(&self) {
        self.wake(|| u32::MAX);
    }

    /// # Safety
    ///
    /// To be called by the C side only, as the function of a [`Waiter`]'s entry, with what
    /// [`LevelQueue::wake`] passed as the key.
    unsafe extern "C" fn woken(
        entry: *mut bindings::wait_queue_entry,
        mode: ffi::c_uint,
        flags: ffi::c_int,
        key: *mut ffi::c_void,
    ) -> ffi::c_int {
        // SAFETY: By the invariant the entry is the first field of a `Waiter`, alive because the
        // queue's lock is held and it is still on it.
        let level = unsafe { (*entry.cast::<Waiter>()).level };
        if key.addr() < level as usize {
            return 0;
        }
        // SAFETY: Called as the C side would. It wakes first and then leaves the list with a
        // release, after which the entry isn't touched: its frame may be gone.
        unsafe { bindings::autoremove_wake_function(entry, mode, flags, key) }
    }

    /// Waits until `ready` says so, until `deadline` (nanoseconds of the monotonic clock; `None`
    /// is for ever) or a signal. It is woken by a [`wake`](Self::wake) of at least `level`, or by
    /// nothing in particular. `ready` must not sleep.
    pub(crate) fn wait(
        &self,
        level: u32,
        deadline: Option<i64>,
        mut ready: impl FnMut() -> bool,
    ) -> Woken {
        let waiter: Opaque<Waiter> = Opaque::zeroed();
        let waiter = &waiter;
        let entry = waiter.get().cast::<bindings::wait_queue_entry>();
        // SAFETY: Memory of our frame that nobody else has seen. `Waiter` is `repr(C)`.
        unsafe {
            bindings::init_wait_entry(entry, 0);
            (*entry).func = Some(Self::woken);
            (*waiter.get()).level = level;
        }

        let mut expired = false;
        let woken = loop {
            // INVARIANT: The entry is in our frame, and `finish_wait` below takes it off.
            // SAFETY: Both are initialised.
            let signal = unsafe {
                bindings::prepare_to_wait_event(
                    self.inner.get(),
                    entry,
                    bindings::TASK_INTERRUPTIBLE as ffi::c_int,
                )
            } != 0;
            if ready() {
                break Woken::Ready;
            }
            if signal {
                break Woken::Signal;
            }
            if expired {
                break Woken::TimedOut;
            }
            let mut until = deadline.unwrap_or(0);
            let until: *mut i64 = match deadline {
                Some(_) => &mut until,
                None => ptr::null_mut(),
            };
            // SAFETY: A time in our frame, or null for no end.
            expired = unsafe { bindings::raio_schedule_until(until) } == 0;
        };
        // SAFETY: Both are initialised. When this returns, nobody has the entry any more.
        unsafe { bindings::finish_wait(self.inner.get(), entry) };
        woken
    }
}

/// The monotonic clock in nanoseconds.
pub(crate) fn now() -> i64 {
    // SAFETY: It may always be called.
    unsafe { bindings::ktime_get() }
}
