// SPDX-License-Identifier: GPL-2.0
//! libaio's functions over `/dev/raio`. `link.sh` makes `libaio.so.1` of
//! this, with libaio's symbol versions, so that a program built for libaio
//! runs over raio by `LD_PRELOAD` or `LD_LIBRARY_PATH`.
//!
//! Each function returns what libaio's does: a negative error number if it
//! fails, and `errno` is left as it was. Pointers are passed on to the
//! kernel, which finds the bad ones; they are followed here where libaio
//! does it too: the ring and the timeout in `io_getevents`, and the context
//! in [`io_queue_init`].
//!
//! `syscall()` of the C library is here too, see `syscall.rs`.
//!
//! `RAIO_DEVICE` names another device. With `RAIO_FALLBACK=1` a process that
//! finds no device uses the kernel's own AIO; without, `io_setup` returns
//! `-ENOSYS` and says on stderr, once, what is missing. Both are ignored in
//! set-user-ID programs.
//!
//! Relies on `raio::raw` for the calls, on `device.rs` for whom to call.

// A long is as wide as the ABI's fields on some machines only.
#![allow(clippy::unnecessary_cast)]

mod aio;
mod device;
mod syscall;
mod timespec;

use aio::SigSet;
use device::Mode;
use raio::{raw, ring::is_empty_ring, sys::*};
use std::{
    ffi::{c_int, c_long, c_void},
    io, ptr,
};
use timespec::widen;
#[cfg(target_pointer_width = "32")]
use timespec::{without_padding, Timespec64};

/// `io_context_t`: the address of the ring.
pub type Context = *mut raio_ring;

/// What `io_queue_run` calls for each event: context, request, result.
pub type Callback = unsafe extern "C" fn(Context, *mut iocb, c_long, c_long);

const EINVAL: c_int = -libc::EINVAL;

/// Puts `errno`, which is there, back when it is dropped.
struct Errno(*mut c_int, c_int);

impl Errno {
    fn keep() -> Self {
        // SAFETY: it points to the thread's own.
        unsafe {
            let at = libc::__errno_location();
            Self(at, *at)
        }
    }
}

impl Drop for Errno {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { *self.0 = self.1 }
    }
}

/// What to return for the result of a call into the device open as `fd`.
#[inline]
fn returned(fd: c_int, result: io::Result<c_int>) -> c_int {
    let error = match result {
        Ok(n) => return n,
        Err(e) => e.raw_os_error().unwrap_or(libc::EINVAL),
    };
    // The program may have closed our descriptor, and all contexts with it.
    if matches!(error, libc::EBADF | libc::ENOTTY) && !device::is_ours(fd) {
        return EINVAL;
    }
    -error
}

fn address<T>(pointer: *const T) -> u64 {
    pointer as usize as u64
}

/// # Safety
///
/// As for [`io_setup`].
unsafe fn setup(maxevents: c_int, ctxp: *mut Context) -> c_int {
    let _errno = Errno::keep();
    match device::mode_for_setup() {
        Mode::Device(fd) => {
            let mut arg = raio_setup {
                nr_events: maxevents as u32,
                ctxp: address(ctxp),
                ..Default::default()
            };
            // SAFETY: the caller's promise.
            returned(fd, unsafe { raw::setup(fd, &mut arg) })
        }
        // SAFETY: the caller's promise.
        Mode::KernelAio => unsafe { aio::setup(maxevents, ctxp) },
        Mode::None => -libc::ENOSYS,
    }
}

/// # Safety
///
/// As for [`io_destroy`].
unsafe fn destroy(ctx: Context) -> c_int {
    let _errno = Errno::keep();
    match device::mode() {
        Mode::Device(fd) => {
            let mut arg = raio_destroy {
                ctx: address(ctx),
                ..Default::default()
            };
            // SAFETY: the caller's promise.
            returned(fd, unsafe { raw::destroy(fd, &mut arg) })
        }
        // SAFETY: the caller's promise.
        Mode::KernelAio => unsafe { aio::destroy(ctx) },
        Mode::None => EINVAL,
    }
}

/// # Safety
///
/// As for [`raio_io_getevents_0_4`].
unsafe fn getevents(
    ctx: Context,
    min_nr: c_long,
    nr: c_long,
    events: *mut io_event,
    timeout: *const libc::timespec,
) -> c_int {
    let mut space = __kernel_timespec::default();
    // SAFETY: the caller's promise.
    unsafe { getevents_wide(ctx, min_nr, nr, events, widen(timeout, &mut space)) }
}

/// # Safety
///
/// As for [`raio_io_getevents_0_4`].
unsafe fn getevents_wide(
    ctx: Context,
    min_nr: c_long,
    nr: c_long,
    events: *mut io_event,
    timeout: *const __kernel_timespec,
) -> c_int {
    // SAFETY: the caller's promise. Events that are there are left to the
    // kernel: it has to keep other readers out, and finds bad pointers. The
    // child of a fork has no ring.
    unsafe {
        if device::mode() != Mode::None
            && !timeout.is_null()
            && (*timeout).tv_sec == 0
            && (*timeout).tv_nsec == 0
            && !ctx.is_null()
            && is_empty_ring(ctx)
        {
            return 0;
        }
    }
    // SAFETY: the caller's promise.
    unsafe { wait(ctx, min_nr, nr, events, timeout, &SigSet::default()) }
}

/// # Safety
///
/// As for [`io_pgetevents`].
unsafe fn wait(
    ctx: Context,
    min_nr: c_long,
    nr: c_long,
    events: *mut io_event,
    timeout: *const __kernel_timespec,
    sigset: &SigSet,
) -> c_int {
    let _errno = Errno::keep();
    match device::mode() {
        Mode::Device(fd) => {
            let mut arg = raio_getevents {
                ctx: address(ctx),
                min_nr: min_nr as i64,
                nr: nr as i64,
                events: address(events),
                timeout: address(timeout),
                sigmask: address(sigset.mask),
                // Larger ones are as wrong as the largest.
                sigsetsize: sigset.size.try_into().unwrap_or(u32::MAX),
                ..Default::default()
            };
            // SAFETY: the caller's promise.
            returned(fd, unsafe { raw::getevents(fd, &mut arg) })
        }
        // SAFETY: the caller's promise.
        Mode::KernelAio if sigset.mask.is_null() => unsafe {
            aio::getevents(ctx, min_nr, nr, events, timeout)
        },
        // SAFETY: the caller's promise.
        Mode::KernelAio => unsafe { aio::pgetevents(ctx, min_nr, nr, events, timeout, sigset) },
        Mode::None => EINVAL,
    }
}

/// io_setup(2): makes a context for `maxevents` requests.
///
/// # Safety
///
/// `ctxp` must be the address of a word that may be written to, or of none.
#[no_mangle]
pub unsafe extern "C" fn io_setup(maxevents: c_int, ctxp: *mut Context) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { setup(maxevents, ctxp) }
}

/// io_destroy(2): destroys a context when its I/O has ended.
///
/// # Safety
///
/// The ring must not be used any more.
#[no_mangle]
pub unsafe extern "C" fn io_destroy(ctx: Context) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { destroy(ctx) }
}

/// io_submit(2): starts requests.
///
/// # Safety
///
/// Buffers must be left alone until their requests have ended.
#[no_mangle]
pub unsafe extern "C" fn io_submit(ctx: Context, nr: c_long, iocbs: *mut *mut iocb) -> c_int {
    let _errno = Errno::keep();
    match device::mode() {
        Mode::Device(fd) => {
            let mut arg = raio_submit {
                ctx: address(ctx),
                nr: nr as i64,
                iocbs: address(iocbs),
                ..Default::default()
            };
            // SAFETY: the caller's promise.
            returned(fd, unsafe { raw::submit(fd, &mut arg) })
        }
        // SAFETY: the caller's promise.
        Mode::KernelAio => unsafe { aio::submit(ctx, nr, iocbs) },
        Mode::None => EINVAL,
    }
}

/// `io_cancel`, io_cancel(2): cancels a request, which is told by
/// `-EINPROGRESS`. Its event is not stored at `event` but comes as every other.
///
/// # Safety
///
/// None beyond the type.
#[no_mangle]
pub unsafe extern "C" fn raio_io_cancel_0_4(
    ctx: Context,
    iocb: *mut iocb,
    event: *mut io_event,
) -> c_int {
    let _errno = Errno::keep();
    match device::mode() {
        Mode::Device(fd) => {
            let mut arg = raio_cancel {
                ctx: address(ctx),
                iocb: address(iocb),
                ..Default::default()
            };
            match returned(fd, raw::cancel(fd, &mut arg)) {
                0 => -libc::EINPROGRESS,
                error => error,
            }
        }
        // SAFETY: the caller's promise.
        Mode::KernelAio => unsafe { aio::cancel(ctx, iocb, event) },
        Mode::None => EINVAL,
    }
}

/// `io_getevents`, io_getevents(2): reads events. An empty ring and a timeout of zero need no
/// call into the kernel.
///
/// # Safety
///
/// `ctx` and `timeout` must be good or null; `nr` events at `events`
/// must be writable or not mapped.
#[no_mangle]
pub unsafe extern "C" fn raio_io_getevents_0_4(
    ctx: Context,
    min_nr: c_long,
    nr: c_long,
    events: *mut io_event,
    timeout: *mut libc::timespec,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { getevents(ctx, min_nr, nr, events, timeout) }
}

/// io_pgetevents(2): reads events under a signal mask, if there is one.
///
/// # Safety
///
/// As for [`raio_io_getevents_0_4`], and `sigmask` must be good or null.
#[no_mangle]
pub unsafe extern "C" fn io_pgetevents(
    ctx: Context,
    min_nr: c_long,
    nr: c_long,
    events: *mut io_event,
    timeout: *const libc::timespec,
    sigmask: *const libc::sigset_t,
) -> c_int {
    let sigset = SigSet {
        mask: sigmask,
        ..Default::default()
    };
    let mut space = __kernel_timespec::default();
    // SAFETY: the caller's promise.
    unsafe {
        let timeout = widen(timeout, &mut space);
        wait(ctx, min_nr, nr, events, timeout, &sigset)
    }
}

/// `io_getevents` for 32-bit programs whose `time_t` is of 64 bits.
///
/// # Safety
///
/// As for [`raio_io_getevents_0_4`].
#[cfg(target_pointer_width = "32")]
#[no_mangle]
pub unsafe extern "C" fn io_getevents_time64(
    ctx: Context,
    min_nr: c_long,
    nr: c_long,
    events: *mut io_event,
    timeout: *const Timespec64,
) -> c_int {
    let mut space = __kernel_timespec::default();
    // SAFETY: the caller's promise.
    unsafe {
        let timeout = without_padding(timeout, &mut space);
        getevents_wide(ctx, min_nr, nr, events, timeout)
    }
}

/// [`io_pgetevents`] for 32-bit programs whose `time_t` is of 64 bits.
///
/// # Safety
///
/// As there.
#[cfg(target_pointer_width = "32")]
#[no_mangle]
pub unsafe extern "C" fn io_pgetevents_time64(
    ctx: Context,
    min_nr: c_long,
    nr: c_long,
    events: *mut io_event,
    timeout: *const Timespec64,
    sigmask: *const libc::sigset_t,
) -> c_int {
    let sigset = SigSet {
        mask: sigmask,
        ..Default::default()
    };
    let mut space = __kernel_timespec::default();
    // SAFETY: the caller's promise.
    unsafe {
        let timeout = without_padding(timeout, &mut space);
        wait(ctx, min_nr, nr, events, timeout, &sigset)
    }
}

/// io_queue_init(3): makes a context.
///
/// # Safety
///
/// `ctxp` must be the address of a word.
#[no_mangle]
pub unsafe extern "C" fn io_queue_init(maxevents: c_int, ctxp: *mut Context) -> c_int {
    if maxevents <= 0 {
        return EINVAL;
    }
    // SAFETY: the caller's promise.
    unsafe {
        *ctxp = ptr::null_mut();
        setup(maxevents, ctxp)
    }
}

/// io_queue_release(3): destroys a context.
///
/// # Safety
///
/// As for [`io_destroy`].
#[no_mangle]
pub unsafe extern "C" fn io_queue_release(ctx: Context) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { destroy(ctx) }
}

/// io_queue_run(3): calls the callback of each request that has ended.
///
/// # Safety
///
/// `ctx` must be good, and `data` of each request a [`Callback`].
#[no_mangle]
pub unsafe extern "C" fn io_queue_run(ctx: Context) -> c_int {
    let now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    loop {
        let mut event = io_event::default();
        // SAFETY: the caller's promise; the others are ours.
        let n = unsafe { getevents(ctx, 0, 1, &mut event, &now) };
        if n != 1 {
            return n;
        }
        let callback = event.data as usize as *const c_void;
        let request = event.obj as usize as *mut iocb;
        // SAFETY: the caller's promise.
        unsafe {
            let callback: Callback = std::mem::transmute(callback);
            callback(ctx, request, event.res as c_long, event.res2 as c_long);
        }
    }
}

/// `io_queue_wait`, io_queue_wait(3): waits for nothing but the timeout.
///
/// # Safety
///
/// As for [`raio_io_getevents_0_4`].
#[no_mangle]
pub unsafe extern "C" fn raio_io_queue_wait_0_4(
    ctx: Context,
    timeout: *const libc::timespec,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { getevents(ctx, 0, 0, ptr::null_mut(), timeout) }
}

/// `io_queue_wait` of version 0.1.
///
/// # Safety
///
/// As for [`raio_io_getevents_0_4`].
#[no_mangle]
pub unsafe extern "C" fn raio_io_queue_wait_0_1(
    ctx: Context,
    timeout: *const libc::timespec,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { getevents(ctx, 0, 0, ptr::null_mut(), timeout) }
}

/// `io_getevents` of version 0.1: waits for one event.
///
/// # Safety
///
/// As for [`raio_io_getevents_0_4`].
#[no_mangle]
pub unsafe extern "C" fn raio_io_getevents_0_1(
    ctx: Context,
    nr: c_long,
    events: *mut io_event,
    timeout: *const libc::timespec,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { getevents(ctx, 1, nr, events, timeout) }
}

/// `io_cancel` of version 0.1: the event is dropped.
///
/// # Safety
///
/// None beyond the type.
#[no_mangle]
pub unsafe extern "C" fn raio_io_cancel_0_1(ctx: Context, iocb: *mut iocb) -> c_int {
    let mut event = io_event::default();
    // SAFETY: the event is ours.
    unsafe { raio_io_cancel_0_4(ctx, iocb, &mut event) }
}

// These three names have two versions each; `@@` is the one that programs
// get when they are linked.
#[cfg(not(test))]
std::arch::global_asm!(
    ".symver raio_io_cancel_0_1, io_cancel@LIBAIO_0.1",
    ".symver raio_io_cancel_0_4, io_cancel@@LIBAIO_0.4",
    ".symver raio_io_getevents_0_1, io_getevents@LIBAIO_0.1",
    ".symver raio_io_getevents_0_4, io_getevents@@LIBAIO_0.4",
    ".symver raio_io_queue_wait_0_1, io_queue_wait@LIBAIO_0.1",
    ".symver raio_io_queue_wait_0_4, io_queue_wait@@LIBAIO_0.4",
);
