// SPDX-License-Identifier: GPL-2.0
//! The timeout of a call. The device takes a `struct __kernel_timespec`. In a
//! 64-bit program that is a `struct timespec`, and is passed on as it is. A
//! 32-bit program's has numbers of 32 bits, as the system calls of kernel AIO
//! have them there, or, where its `time_t` is of 64 bits, is `Timespec64`.
//!
//! What must hold for a timeout that is converted: it is good or null.

use raio::sys::{__kernel_old_timespec, __kernel_timespec};
use std::ffi::c_long;

/// Whether a program's is the device's.
const SAME: bool = size_of::<__kernel_old_timespec>() == size_of::<__kernel_timespec>();
const _: () = assert!(size_of::<libc::timespec>() == size_of::<__kernel_old_timespec>());

/// A program's as the device takes it, in `space` if it has to be converted.
///
/// # Safety
///
/// See the [module](self).
pub unsafe fn widen(
    timeout: *const libc::timespec,
    space: &mut __kernel_timespec,
) -> *const __kernel_timespec {
    if SAME || timeout.is_null() {
        return timeout.cast();
    }
    // SAFETY: the caller's promise.
    let narrow = unsafe { *timeout };
    *space = __kernel_timespec {
        tv_sec: narrow.tv_sec as i64,
        tv_nsec: narrow.tv_nsec as i64,
    };
    space
}

/// The device's as the system calls take it, in `space` if it has to be
/// converted. Who wants to wait for longer than can be said waits as long as can.
///
/// # Safety
///
/// See the [module](self).
pub unsafe fn narrow(
    timeout: *const __kernel_timespec,
    space: &mut __kernel_old_timespec,
) -> *const __kernel_old_timespec {
    if SAME || timeout.is_null() {
        return timeout.cast();
    }
    // SAFETY: the caller's promise.
    let wide = unsafe { *timeout };
    *space = __kernel_old_timespec {
        tv_sec: wide.tv_sec.clamp(c_long::MIN as i64, c_long::MAX as i64) as c_long,
        tv_nsec: wide.tv_nsec as c_long,
    };
    space
}

/// The other `struct timespec` of 32-bit programs. It ends in four bytes that
/// hold anything.
#[cfg(target_pointer_width = "32")]
#[repr(C)]
pub struct Timespec64 {
    tv_sec: i64,
    tv_nsec: c_long,
    padding: std::mem::MaybeUninit<u32>,
}

/// One as the device takes it, in `space`.
///
/// # Safety
///
/// See the [module](self).
#[cfg(target_pointer_width = "32")]
pub unsafe fn without_padding(
    timeout: *const Timespec64,
    space: &mut __kernel_timespec,
) -> *const __kernel_timespec {
    if timeout.is_null() {
        return std::ptr::null();
    }
    // SAFETY: the caller's promise.
    let (tv_sec, tv_nsec) = unsafe { ((*timeout).tv_sec, (*timeout).tv_nsec.into()) };
    *space = __kernel_timespec { tv_sec, tv_nsec };
    space
}
