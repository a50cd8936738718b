// SPDX-License-Identifier: GPL-2.0

//! The signal mask of the current task during a call.
//!
//! C header: `include/linux/sched/signal.h`. Locks: the task's `siglock`.

use super::user;
use crate::bindings;
use core::mem::size_of;
use kernel::{
    error::code,
    prelude::*,
    transmute::FromBytes, //
};

/// A mask as user space has it.
#[repr(transparent)]
pub(crate) struct Mask(bindings::sigset_t);

// SAFETY: Integers only.
unsafe impl FromBytes for Mask {}

impl Mask {
    /// That of `size` bytes at `addr` of the caller, none if `addr` is 0. `EINVAL` if it isn't of the
    /// kernel's size, `EFAULT`.
    pub(crate) fn read(addr: usize, size: usize) -> Result<Option<Self>> {
        if addr == 0 {
            return Ok(None);
        }
        if size != size_of::<Self>() {
            return Err(EINVAL);
        }
        user::read(addr).map(Some)
    }
}

/// Makes a call that may sleep under a mask, or, without one, under that of the task.
///
/// If there was nothing to do before a signal came, the call was interrupted: it gives `EINTR`, or,
/// under a mask, is made again unless the signal has a handler, which is then called under it.
#[inline]
pub(crate) fn under(mut mask: Option<Mask>, call: impl FnOnce() -> Result<u32>) -> Result<u32> {
    if let Some(mask) = &mut mask {
        // SAFETY: A mask in our frame.
        unsafe { bindings::raio_sigmask_begin(&mut mask.0) };
    }
    let ret = call();
    if mask.is_none() {
        return interrupted(ret, EINTR);
    }
    if signal_pending() {
        // The way back to user space restores the mask.
        return interrupted(ret, code::ERESTARTNOHAND);
    }
    // SAFETY: After its beginning, by the same task.
    unsafe { bindings::raio_sigmask_end() };
    ret
}

fn interrupted(ret: Result<u32>, e: Error) -> Result<u32> {
    if (ret == Ok(0) || ret == Err(EINTR)) && signal_pending() {
        return Err(e);
    }
    ret
}

fn signal_pending() -> bool {
    // SAFETY: It may always be called.
    unsafe { bindings::raio_signal_pending() }
}
