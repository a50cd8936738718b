// SPDX-License-Identifier: GPL-2.0

//! High resolution timers whose functions run in softirq or in a hard interrupt.
//!
//! The kernel crate's `HrTimer` can be started by the holder of its handle only; here it is started
//! by everyone who is first in line, the timer's own function too. So the timers are raw. No locks
//! but their own.

use kernel::bindings;

/// Where a timer fires.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Soft,
    Hard,
}

/// What a timer calls.
pub(crate) type Fired = unsafe extern "C" fn(*mut bindings::hrtimer) -> bindings::hrtimer_restart;

/// Not `ABS_HARD`: that means raw spin locks only, where the kernel is real-time's.
fn mode_of(lane: Lane) -> bindings::hrtimer_mode {
    match lane {
        Lane::Soft => bindings::hrtimer_mode_HRTIMER_MODE_ABS_SOFT,
        Lane::Hard => bindings::hrtimer_mode_HRTIMER_MODE_ABS,
    }
}

/// Initialises a timer.
///
/// # Safety
///
/// `timer` must be memory for a timer, of which `fired` is the function in this lane.
pub(crate) unsafe fn setup(timer: *mut bindings::hrtimer, fired: Fired, lane: Lane) {
    let clock = bindings::CLOCK_MONOTONIC as bindings::clockid_t;
    // SAFETY: As the caller says.
    unsafe { bindings::hrtimer_setup(timer, Some(fired), clock, mode_of(lane)) }
}

/// Has it fire at `deadline`, at any time, also by its own function.
///
/// # Safety
///
/// It must be set up for this lane.
pub(crate) unsafe fn start(timer: *mut bindings::hrtimer, lane: Lane, deadline: i64) {
    // SAFETY: As the caller says.
    unsafe { bindings::hrtimer_start_range_ns(timer, deadline, 0, mode_of(lane)) }
}

/// The time that deadlines are of, in nanoseconds.
pub(crate) fn now() -> i64 {
    // SAFETY: It may always be called.
    unsafe { bindings::ktime_get() }
}
