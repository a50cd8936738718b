// SPDX-License-Identifier: GPL-2.0
//! One function per ioctl, and the open of the device that they need. The
//! safe layer and the libaio replacement are both made of these.
//!
//! The functions take the number of a descriptor, not a borrow of it: in a
//! program that libaio is put into, nothing keeps it open. The kernel checks
//! every address it is given (`EFAULT`). What is unsafe is to name memory
//! that the kernel may write to, now or by a request, and that is in use.
//!
//! Errors are what the module returns, `EBADF` if `fd` is closed, and
//! `ENOTTY` if it is some other file.

use crate::sys::*;
use std::{
    ffi::{c_int, c_ulong, CStr},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// # Safety
///
/// `nr` must be the number of an ioctl that takes a `T`, and what `arg`
/// tells the kernel to write to must be the caller's to be written to.
#[inline]
unsafe fn ioctl<T>(fd: RawFd, nr: c_ulong, arg: *mut T) -> io::Result<c_int> {
    // SAFETY: the caller's promise.
    match unsafe { libc::ioctl(fd, nr as _, arg) } {
        -1 => Err(io::Error::last_os_error()),
        n => Ok(n),
    }
}

/// Opens a device and makes sure that it is a raio device.
///
/// # Errors
///
/// Those of open(2); `Unsupported` if it isn't a raio device, or one of an
/// older ABI.
pub fn open(path: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: `path` is a string, and open() has no other argument in memory.
    let fd = match unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) } {
        -1 => return Err(io::Error::last_os_error()),
        // SAFETY: it has just been opened.
        fd => unsafe { OwnedFd::from_raw_fd(fd) },
    };
    let version = match query(fd.as_raw_fd()) {
        Ok(answer) => answer.abi_version,
        Err(e) if e.raw_os_error() == Some(libc::ENOTTY) => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "not a raio device",
            ));
        }
        Err(e) => return Err(e),
    };
    if version < RAIO_ABI_VERSION {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("the module has version {version} of the ABI, needed is {RAIO_ABI_VERSION}"),
        ));
    }
    Ok(fd)
}

/// `RAIO_IOC_QUERY`: what the module can do.
///
/// # Errors
///
/// See the [module](self).
pub fn query(fd: RawFd) -> io::Result<raio_query> {
    let mut arg = raio_query::default();
    // SAFETY: the kernel writes to `arg` only.
    unsafe { ioctl(fd, RAIO_IOC_QUERY, &mut arg) }?;
    Ok(arg)
}

/// `RAIO_IOC_STATS`: the module's counters.
///
/// # Errors
///
/// See the [module](self).
pub fn stats(fd: RawFd) -> io::Result<raio_stats> {
    let mut arg = raio_stats::default();
    // SAFETY: the kernel writes to `arg` only.
    unsafe { ioctl(fd, RAIO_IOC_STATS, &mut arg) }?;
    Ok(arg)
}

/// `RAIO_IOC_SETUP`: makes a context.
///
/// # Errors
///
/// Those of io_setup(2); see the [module](self).
///
/// # Safety
///
/// `arg.ctxp` must be the address of a word that may be written to, or one
/// that isn't mapped.
#[inline]
pub unsafe fn setup(fd: RawFd, arg: &mut raio_setup) -> io::Result<c_int> {
    // SAFETY: the caller's promise.
    unsafe { ioctl(fd, RAIO_IOC_SETUP, arg) }
}

/// `RAIO_IOC_DESTROY`: destroys a context when its I/O has ended.
///
/// # Errors
///
/// Those of io_destroy(2); see the [module](self).
///
/// # Safety
///
/// The ring must not be used any more: it gets unmapped.
#[inline]
pub unsafe fn destroy(fd: RawFd, arg: &mut raio_destroy) -> io::Result<c_int> {
    // SAFETY: the caller's promise.
    unsafe { ioctl(fd, RAIO_IOC_DESTROY, arg) }
}

/// `RAIO_IOC_SUBMIT`: starts requests; returns how many.
///
/// # Errors
///
/// Those of io_submit(2); see the [module](self).
///
/// # Safety
///
/// The buffers must be left alone until the requests' events are there or
/// the context is destroyed: what is read into may not be read, what is
/// written from may not be changed, and neither may be freed.
#[inline]
pub unsafe fn submit(fd: RawFd, arg: &mut raio_submit) -> io::Result<c_int> {
    // SAFETY: the caller's promise.
    unsafe { ioctl(fd, RAIO_IOC_SUBMIT, arg) }
}

/// `RAIO_IOC_ENTER`: starts requests and waits for events; returns how many were
/// started.
///
/// # Errors
///
/// Those of io_submit(2); `EINTR`; see the [module](self).
///
/// # Safety
///
/// As for [`submit`].
#[inline]
pub unsafe fn enter(fd: RawFd, arg: &mut raio_enter) -> io::Result<c_int> {
    // SAFETY: the caller's promise.
    unsafe { ioctl(fd, RAIO_IOC_ENTER, arg) }
}

/// `RAIO_IOC_BUFFERS`: registers buffers; returns how many.
///
/// # Errors
///
/// `ENOMEM` over `RLIMIT_MEMLOCK`, `EFAULT`; see the [module](self).
///
/// # Safety
///
/// `arg.array` must have `arg.nr` of `raio_buffer`. Requests write to them, whatever is
/// mapped there by then.
pub unsafe fn buffers(fd: RawFd, arg: &mut raio_register) -> io::Result<c_int> {
    // SAFETY: the caller's promise.
    unsafe { ioctl(fd, RAIO_IOC_BUFFERS, arg) }
}

/// `RAIO_IOC_FILES`: registers files; returns how many.
///
/// # Errors
///
/// `EBADF` for one that isn't open; see the [module](self).
pub fn files(fd: RawFd, arg: &mut raio_register) -> io::Result<c_int> {
    // SAFETY: the kernel only reads what `arg` points to.
    unsafe { ioctl(fd, RAIO_IOC_FILES, arg) }
}

/// `RAIO_IOC_GETEVENTS`: reads events; returns how many.
///
/// # Errors
///
/// Those of io_getevents(2); see the [module](self).
///
/// # Safety
///
/// `arg.nr` events at `arg.events` must be the caller's to be written to, or
/// not be mapped.
#[inline]
pub unsafe fn getevents(fd: RawFd, arg: &mut raio_getevents) -> io::Result<c_int> {
    // SAFETY: the caller's promise.
    unsafe { ioctl(fd, RAIO_IOC_GETEVENTS, arg) }
}

/// `RAIO_IOC_CANCEL`: cancels a request that is in flight. Its event comes as
/// every other.
///
/// # Errors
///
/// `EAGAIN` if it goes on, `EINVAL` if there is no such request; see the
/// [module](self).
#[inline]
pub fn cancel(fd: RawFd, arg: &mut raio_cancel) -> io::Result<c_int> {
    // SAFETY: the kernel writes to no memory but by the request, sooner.
    unsafe { ioctl(fd, RAIO_IOC_CANCEL, arg) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_is_no_device() {
        let e = open(c"/dev/null").unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::Unsupported);
        let e = open(c"/nonexistent").unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn a_closed_descriptor_is_told() {
        assert_eq!(query(-1).unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(stats(-1).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn numbers_carry_their_sizes() {
        // _IOC_SIZE: bits 16 to 29 on the processors that most use.
        #[cfg(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64"))]
        for (nr, size) in [
            (RAIO_IOC_QUERY, size_of::<raio_query>()),
            (RAIO_IOC_STATS, size_of::<raio_stats>()),
            (RAIO_IOC_SETUP, size_of::<raio_setup>()),
            (RAIO_IOC_DESTROY, size_of::<raio_destroy>()),
            (RAIO_IOC_SUBMIT, size_of::<raio_submit>()),
            (RAIO_IOC_GETEVENTS, size_of::<raio_getevents>()),
            (RAIO_IOC_CANCEL, size_of::<raio_cancel>()),
            (RAIO_IOC_ENTER, size_of::<raio_enter>()),
            (RAIO_IOC_BUFFERS, size_of::<raio_register>()),
            (RAIO_IOC_FILES, size_of::<raio_register>()),
        ] {
            assert_eq!((nr >> 16) as usize & 0x3fff, size);
            assert_eq!((nr >> 8) as u32 & 0xff, RAIO_IOC_MAGIC);
        }
    }
}
