// SPDX-License-Identifier: GPL-2.0

//! Reads and writes through a file's own methods, with the checks that the VFS leaves to those who
//! call them.
//!
//! C header: `include/linux/fs.h`.

use crate::bindings;
use core::{
    mem::MaybeUninit,
    ptr, //
};
use kernel::{
    error::to_result,
    ffi,
    fs::{
        File,
        LocalFile, //
    },
    prelude::*,
    sync::aref::ARef,
    types::{
        Opaque,
        ScopeGuard, //
    },
};

/// Which way the data goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the file to memory.
    Read,
    /// From memory to the file.
    Write,
}

impl Direction {
    fn as_raw(self) -> ffi::c_int {
        match self {
            Self::Read => bindings::READ as ffi::c_int,
            Self::Write => bindings::WRITE as ffi::c_int,
        }
    }
}

/// Up to so many buffers need no memory to be allocated.
const FEW: usize = bindings::UIO_FASTIOV as usize;

/// What a file does when a request has ended: C's `ki_complete`.
pub(crate) type Complete = unsafe extern "C" fn(*mut bindings::kiocb, ffi::c_long);

/// The file of a descriptor of the current process. `EBADF` if there is none.
pub(crate) fn get(fd: u32) -> Result<ARef<File>> {
    let file = LocalFile::fget(fd)?;
    // SAFETY: We are in an ioctl, which doesn't use the position of any file, so this thread isn't
    // in the middle of using this one's.
    Ok(unsafe { LocalFile::assume_no_fdget_pos(file) })
}

/// Is `file` open for that?
pub(crate) fn open_for(file: &File, dir: Direction) -> bool {
    let bit = match dir {
        Direction::Read => bindings::RAIO_FMODE_READ,
        Direction::Write => bindings::RAIO_FMODE_WRITE,
    };
    // SAFETY: A live file; its mode doesn't change.
    unsafe { (*file.as_ptr()).f_mode & bit != 0 }
}

/// Can `file` do that?
pub(crate) fn has_method(file: &File, dir: Direction) -> bool {
    // SAFETY: A live file has operations, which don't change.
    let ops = unsafe { &*(*file.as_ptr()).f_op };
    match dir {
        Direction::Read => ops.read_iter.is_some(),
        Direction::Write => ops.write_iter.is_some(),
    }
}

/// Can what was written to `file` be made to last?
pub(crate) fn can_sync(file: &File) -> bool {
    // SAFETY: A live file has operations, which don't change.
    unsafe { (*(*file.as_ptr()).f_op).fsync.is_some() }
}

/// Makes last what was written to `file`, and what is known of it besides unless `data_only`. Sleeps.
/// What the file says is returned, which is 0 or an error.
pub(crate) fn sync(file: &File, data_only: bool) -> i64 {
    // SAFETY: A live file.
    unsafe { bindings::vfs_fsync(file.as_ptr(), data_only.into()) }.into()
}

/// Is `file` a regular one?
pub(crate) fn is_regular(file: &File) -> bool {
    // SAFETY: A live file has an inode.
    unsafe { bindings::raio_file_is_reg(file.as_ptr()) }
}

/// What the VFS checks before each read and write: position, locks, permission hooks.
pub(crate) fn verify_area(file: &File, pos: i64, len: usize, dir: Direction) -> Result {
    // SAFETY: A live file; `pos` is only read.
    to_result(unsafe { bindings::rw_verify_area(dir.as_raw(), file.as_ptr(), &pos, len) })
}

/// The caller's memory as files take it.
///
/// # Invariants
///
/// It is initialised.
pub(crate) struct UserBuffer(Opaque<bindings::iov_iter>);

impl UserBuffer {
    /// `len` bytes at `addr`, cut to what one call may move. `EFAULT` if that isn't memory of a
    /// process.
    pub(crate) fn new(addr: usize, len: usize, dir: Direction) -> Result<Self> {
        let iter = Opaque::uninit();
        // INVARIANT: This initialises it.
        // SAFETY: `iter` may be written to. The address isn't followed but checked.
        to_result(unsafe {
            bindings::import_ubuf(
                dir.as_raw(),
                ptr::with_exposed_provenance_mut(addr),
                len,
                iter.get(),
            )
        })?;
        Ok(Self(iter))
    }

    /// Calls `f` with the buffers that the `nr` of `struct iovec` at `addr` say, which is read once,
    /// in the layout of the caller, and cut to what one call may move. A file that goes on with them
    /// after its method has returned has its own copy.
    ///
    /// `EINVAL` for too many, or a length that is negative; `EFAULT`; `ENOMEM`.
    pub(crate) fn with_vector<R>(
        addr: usize,
        nr: u32,
        dir: Direction,
        f: impl FnOnce(&mut Self) -> Result<R>,
    ) -> Result<R> {
        let mut few = [const { MaybeUninit::<bindings::iovec>::uninit() }; FEW];
        let mut vector = few.as_mut_ptr().cast::<bindings::iovec>();
        let iter = Opaque::uninit();
        // INVARIANT: This initialises it, if it doesn't fail.
        // SAFETY: `few` is memory for as many, and it and `iter` may be written to. What the caller
        // gave is only read.
        let len = unsafe {
            bindings::import_iovec(
                dir.as_raw(),
                ptr::with_exposed_provenance(addr),
                nr,
                FEW as u32,
                &mut vector,
                iter.get(),
            )
        };
        if len < 0 {
            return Err(Error::from_errno(len as ffi::c_int));
        }
        // SAFETY: Null, if `few` was enough, or allocated for us, and no longer used then.
        let _free = ScopeGuard::new(|| unsafe { bindings::kfree(vector.cast()) });
        f(&mut Self(iter))
    }

    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: Initialised, by the type invariant.
        unsafe { bindings::raio_iov_iter_count(self.0.get()) }
    }
}

/// Where and how a transfer is made.
#[derive(Clone, Copy)]
pub(crate) struct Transfer {
    pub(crate) dir: Direction,
    /// Where in the file.
    pub(crate) pos: i64,
    /// `RWF_*` bits.
    pub(crate) rw_flags: u32,
    /// The I/O priority, if it isn't that of the caller.
    pub(crate) ioprio: Option<i16>,
    /// Whether who completes it also signals an eventfd.
    pub(crate) eventfd: bool,
}

/// The kernel's part of a request.
///
/// # Invariants
///
/// Once [`Self::prepare`] was called, `ki_filp` is a file that the owner keeps for as long as the
/// request exists.
#[repr(transparent)]
pub(crate) struct Kiocb(Opaque<bindings::kiocb>);

impl Kiocb {
    /// One that is yet to be prepared.
    pub(crate) const fn new() -> Self {
        Self(Opaque::zeroed())
    }

    /// The raw request, which is all of `self`.
    pub(crate) fn as_raw(&self) -> *mut bindings::kiocb {
        self.0.get()
    }

    /// Fills it in for a transfer that ends with `complete`, with the flags of the file.
    ///
    /// `EINVAL` and `EPERM` for a priority, `EOPNOTSUPP` and others for flags that the file doesn't
    /// take.
    ///
    /// # Safety
    ///
    /// The file must be kept for as long as the request exists.
    pub(crate) unsafe fn prepare(
        &mut self,
        file: &File,
        transfer: &Transfer,
        complete: Complete,
    ) -> Result {
        let kiocb = self.as_raw();
        let mut flags = 0;
        if transfer.dir == Direction::Write {
            flags |= bindings::RAIO_IOCB_WRITE;
        }
        if transfer.eventfd {
            flags |= bindings::RAIO_IOCB_EVENTFD;
        }
        // INVARIANT: The caller keeps the file.
        // SAFETY: `self` is ours alone, the file lives.
        unsafe {
            (*kiocb).ki_filp = file.as_ptr();
            (*kiocb).ki_pos = transfer.pos;
            (*kiocb).ki_complete = Some(complete);
            (*kiocb).ki_flags = (*file.as_ptr()).f_iocb_flags as ffi::c_int;
            (*kiocb).ki_ioprio = match transfer.ioprio {
                Some(prio) => {
                    to_result(bindings::raio_ioprio_check(prio.into()))?;
                    prio as u16
                }
                None => bindings::raio_current_ioprio(),
            };
            to_result(bindings::raio_kiocb_set_rw_flags(
                kiocb,
                transfer.rw_flags,
                transfer.dir.as_raw(),
            ))?;
            // Nobody polls for this request.
            (*kiocb).ki_flags &= !(bindings::RAIO_IOCB_HIPRI as ffi::c_int);
            (*kiocb).ki_flags |= flags as ffi::c_int;
        }
        Ok(())
    }

    /// Keeps the file system from being frozen until [`Self::end_write`]. May sleep.
    pub(crate) fn start_write(&mut self) {
        // SAFETY: `ki_filp` is live, by the type invariant.
        unsafe { bindings::raio_kiocb_start_write(self.as_raw()) }
    }

    /// Undoes [`Self::start_write`], in any context.
    pub(crate) fn end_write(&mut self) {
        // SAFETY: `ki_filp` is live, by the type invariant.
        unsafe { bindings::raio_kiocb_end_write(self.as_raw()) }
    }
}

/// Hands a request to the file's method. What it returns is the result, or `-EIOCBQUEUED` if
/// `ki_complete` is or was called with it, maybe before this returns.
///
/// # Safety
///
/// `kiocb` must be prepared for `dir`, its file must have the method, and both must stay until
/// this has returned and, if it returns `-EIOCBQUEUED`, `ki_complete` was called.
pub(crate) unsafe fn call(
    kiocb: *mut bindings::kiocb,
    buffer: &mut UserBuffer,
    dir: Direction,
) -> isize {
    // SAFETY: The file stays, as the caller says.
    let ops = unsafe { &*(*(*kiocb).ki_filp).f_op };
    let method = match dir {
        Direction::Read => ops.read_iter,
        Direction::Write => ops.write_iter,
    };
    match method {
        // SAFETY: As the caller says.
        Some(method) => unsafe { method(kiocb, buffer.0.get()) },
        None => EINVAL.to_errno() as isize,
    }
}
