// SPDX-License-Identifier: GPL-2.0
//! The kernel's own AIO, which `RAIO_FALLBACK=1` passes on to. Each function
//! returns the negative error number.
//!
//! Relies on the system calls alone. What must hold for the arguments is what
//! must hold for those of the function in `lib.rs` of the same name.

#![allow(clippy::missing_safety_doc)]

use crate::{syscall, timespec::narrow, Context};
use raio::sys::*;
use std::{
    ffi::{c_int, c_long},
    ptr,
};

/// The size of the kernel's signal masks: a bit for each of 64 signals.
pub const SIGSETSIZE: usize = 64 / 8;

/// `struct __aio_sigset`.
#[repr(C)]
pub struct SigSet {
    pub mask: *const libc::sigset_t,
    pub size: usize,
}

impl Default for SigSet {
    fn default() -> Self {
        Self {
            mask: ptr::null(),
            size: SIGSETSIZE,
        }
    }
}

/// # Safety
///
/// As for the system call.
unsafe fn call(nr: u32, args: [usize; 6]) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { syscall::call(nr as c_long, args.map(|arg| arg as c_long)) as c_int }
}

pub unsafe fn setup(maxevents: c_int, ctxp: *mut Context) -> c_int {
    let maxevents = maxevents as u32 as usize;
    // SAFETY: the caller's promise.
    unsafe { call(__NR_io_setup, [maxevents, ctxp as usize, 0, 0, 0, 0]) }
}

pub unsafe fn destroy(ctx: Context) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { call(__NR_io_destroy, [ctx as usize, 0, 0, 0, 0, 0]) }
}

pub unsafe fn submit(ctx: Context, nr: c_long, iocbs: *mut *mut iocb) -> c_int {
    let args = [ctx as usize, nr as usize, iocbs as usize, 0, 0, 0];
    // SAFETY: the caller's promise.
    unsafe { call(__NR_io_submit, args) }
}

pub unsafe fn cancel(ctx: Context, iocb: *mut iocb, event: *mut io_event) -> c_int {
    let args = [ctx as usize, iocb as usize, event as usize, 0, 0, 0];
    // SAFETY: the caller's promise.
    unsafe { call(__NR_io_cancel, args) }
}

pub unsafe fn getevents(
    ctx: Context,
    min_nr: c_long,
    nr: c_long,
    events: *mut io_event,
    timeout: *const __kernel_timespec,
) -> c_int {
    let mut space = __kernel_old_timespec::default();
    // SAFETY: the caller's promise.
    let timeout = unsafe { narrow(timeout, &mut space) };
    let args = [
        ctx as usize,
        min_nr as usize,
        nr as usize,
        events as usize,
        timeout as usize,
        0,
    ];
    // SAFETY: the caller's promise.
    unsafe { call(__NR_io_getevents, args) }
}

pub unsafe fn pgetevents(
    ctx: Context,
    min_nr: c_long,
    nr: c_long,
    events: *mut io_event,
    timeout: *const __kernel_timespec,
    sigset: &SigSet,
) -> c_int {
    let mut space = __kernel_old_timespec::default();
    // SAFETY: the caller's promise.
    let timeout = unsafe { narrow(timeout, &mut space) };
    let args = [
        ctx as usize,
        min_nr as usize,
        nr as usize,
        events as usize,
        timeout as usize,
        ptr::from_ref(sigset) as usize,
    ];
    // SAFETY: the caller's promise.
    unsafe { call(__NR_io_pgetevents, args) }
}
