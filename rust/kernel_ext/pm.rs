// SPDX-License-Identifier: GPL-2.0

//! What the kernel does while the machine is suspended or hibernated has to stop when its own threads are frozen,
//! after those of user space and before an image of memory is made.
//!
//! C headers: `include/linux/freezer.h`, `include/linux/kthread.h`. No locks.

use super::task;
use crate::bindings;
use core::{
    ffi::c_void,
    ptr::NonNull, //
};
use kernel::{
    error::from_err_ptr,
    ffi,
    prelude::*,
    sync::Arc,
    time::{
        Instant,
        Monotonic, //
    },
};

/// Who is told, by a thread of its own.
pub(crate) trait Freezes: Send + Sync + 'static {
    /// All is to stop.
    fn stop(&self);

    /// Is anything still going on?
    fn is_busy(&self) -> bool;

    /// All may go on.
    fn go_on(&self);
}

/// How long that may be busy. The kernel gives its threads twice as long, and then shows which aren't frozen, of
/// which none is that which is waited for.
const PATIENCE_MS: i64 = 10_000;

/// The thread, which stands for what it tells: as long as that is busy, the machine doesn't sleep, and at last gives it
/// up. Ends on drop.
///
/// # Invariants
///
/// The thread that [`Self::new`] has made, which uses `who` until it ends.
pub(crate) struct Freezer<T: Freezes> {
    thread: NonNull<bindings::task_struct>,
    _who: Arc<T>,
}

// SAFETY: A thread may be told to end by every other.
unsafe impl<T: Freezes> Send for Freezer<T> {}
// SAFETY: Nothing can be done with a shared reference.
unsafe impl<T: Freezes> Sync for Freezer<T> {}

impl<T: Freezes> Freezer<T> {
    /// Fails with `ENOMEM`, or `EINTR` if the caller is killed.
    pub(crate) fn new(name: &'static CStr, who: Arc<T>) -> Result<Self> {
        let data = Arc::as_ptr(&who).cast_mut().cast::<c_void>();
        // SAFETY: The name is a C string; `who` lives until the thread has ended, in our drop.
        let thread = from_err_ptr(unsafe {
            bindings::raio_run_thread(Some(Self::run), data, name.as_char_ptr())
        })?;
        // INVARIANT: It was just made.
        Ok(Self {
            // SAFETY: Not an error, so not null.
            thread: unsafe { NonNull::new_unchecked(thread) },
            _who: who,
        })
    }

    /// # Safety
    ///
    /// To be called by the C side only, with what [`Self::new`] has given it.
    unsafe extern "C" fn run(who: *mut c_void) -> ffi::c_int {
        // SAFETY: It lives until this returns.
        let who = unsafe { &*who.cast::<T>() };
        // SAFETY: We are a thread of the kernel's.
        while unsafe { bindings::raio_wait_for_freeze() } {
            who.stop();
            let begun = Instant::<Monotonic>::now();
            let mut is_told = false;
            // SAFETY: As above.
            while who.is_busy() && unsafe { bindings::raio_freezing() } {
                if !is_told && begun.elapsed().as_millis() >= PATIENCE_MS {
                    is_told = true;
                    pr_warn!(
                        "a write doesn't end, so the machine can't sleep: is a device stuck?\n"
                    );
                    // SAFETY: It may always be called.
                    unsafe { bindings::raio_keep_awake() };
                }
                task::pause(1000);
            }
            // SAFETY: As above. Returns at once if it isn't to be frozen any more.
            unsafe { bindings::raio_be_frozen() };
            who.go_on();
        }
        0
    }
}

impl<T: Freezes> Drop for Freezer<T> {
    fn drop(&mut self) {
        // SAFETY: It has not ended, by the type invariant. Waits until it has.
        unsafe { bindings::kthread_stop(self.thread.as_ptr()) };
    }
}
