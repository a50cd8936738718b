// SPDX-License-Identifier: GPL-2.0

//! What `helpers.c` has: the static inlines and macros that Rust can't call. No locks.

// What the kernel's structures point to may be empty in this configuration.
#![allow(improper_ctypes)]

use kernel::{
    bindings,
    ffi, //
};

/// What raio calls to have a request cancelled: `raio_cancel_fn` of `include/linux/raio.h`.
pub(crate) type RaioCancel = unsafe extern "C" fn(*mut bindings::kiocb) -> bool;

/// What kernel AIO calls for that: `kiocb_cancel_fn` of `include/linux/aio.h`.
pub(crate) type AioCancel = unsafe extern "C" fn(*mut bindings::kiocb) -> ffi::c_int;

/// Called for a part of a request's memory, with what its caller gave, an address and a length.
pub(crate) type Segment = unsafe extern "C" fn(*mut ffi::c_void, *mut ffi::c_void, usize);

extern "C" {
    /// Allows requests that must not wait.
    pub(crate) fn raio_test_file_set_nowait(file: *mut bindings::file);
    /// Is that one which must not wait?
    pub(crate) fn raio_test_kiocb_nowait(iocb: *const bindings::kiocb) -> bool;
    /// Its I/O priority.
    pub(crate) fn raio_test_kiocb_ioprio(iocb: *const bindings::kiocb) -> u16;
    /// Does its caller wait for it?
    pub(crate) fn raio_test_kiocb_sync(iocb: *const bindings::kiocb) -> bool;
    /// Calls `ki_complete`, after which it may be gone.
    pub(crate) fn raio_test_kiocb_complete(iocb: *mut bindings::kiocb, result: ffi::c_long);
    /// Offers the one function to raio or the other to kernel AIO, if it is a request of theirs.
    pub(crate) fn raio_test_offer_cancel(
        iocb: *mut bindings::kiocb,
        raio: RaioCancel,
        aio: AioCancel,
    );
    /// Is an interrupt or a softirq being handled?
    pub(crate) fn raio_test_interrupting() -> bool;
    /// Is it memory of a process?
    pub(crate) fn raio_test_iter_is_user(iter: *const bindings::iov_iter) -> bool;

    /// Makes a disk, that `protects` what is written to it or doesn't, and shows it to all. A pointer or an
    /// `ERR_PTR()`.
    pub(crate) fn raio_test_add_disk(
        set: *mut bindings::blk_mq_tag_set,
        queue_data: *mut ffi::c_void,
        name: *const ffi::c_char,
        sectors: u64,
        protects: bool,
    ) -> *mut bindings::gendisk;
    /// Is that one which must not wait?
    pub(crate) fn raio_test_rq_nowait(rq: *const bindings::request) -> bool;
    /// Its I/O priority.
    pub(crate) fn raio_test_rq_ioprio(rq: *mut bindings::request) -> u16;
    /// Has it with it what protects its data?
    pub(crate) fn raio_test_rq_protected(rq: *mut bindings::request) -> bool;
    /// 0 for a read, 1 for a write, and something else.
    pub(crate) fn raio_test_rq_op(rq: *const bindings::request) -> ffi::c_uint;
    /// Where on the disk, in bytes.
    pub(crate) fn raio_test_rq_pos(rq: *const bindings::request) -> usize;
    /// How many bytes.
    pub(crate) fn raio_test_rq_bytes(rq: *const bindings::request) -> usize;
    /// Calls `segment` for each part of the request's memory, in its order.
    pub(crate) fn raio_test_rq_each_segment(
        rq: *mut bindings::request,
        segment: Segment,
        arg: *mut ffi::c_void,
    );
}
