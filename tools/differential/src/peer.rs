// SPDX-License-Identifier: GPL-2.0
//! The calls, of kernel AIO and of raio. Each returns what the system call of
//! kernel AIO would: a number, or an error as a negative one.
//!
//! Addresses are given to the kernel as numbers, right or wrong. The memory at
//! those that are right is in [`crate::memory`], where nothing has a reference
//! while a call runs.

use crate::sys;
use raio::{raw, sys as abi};
use std::{io, os::fd::RawFd};

/// One of the two that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The system calls.
    Kernel,
    /// The ioctls, through this descriptor.
    Raio(RawFd),
}

/// The arguments of `io_getevents(2)` and `io_pgetevents(2)`.
#[derive(Clone, Copy, Debug)]
pub struct GetEvents {
    /// The handle.
    pub ctx: u64,
    /// At least.
    pub min_nr: i64,
    /// At most.
    pub nr: i64,
    /// Where to.
    pub events: u64,
    /// Address of the time, or 0.
    pub timeout: u64,
    /// Address and size of the mask, if there is one.
    pub mask: Option<(u64, usize)>,
}

fn number(result: io::Result<i32>) -> i64 {
    match result {
        Ok(n) => n.into(),
        Err(e) => -i64::from(e.raw_os_error().unwrap_or(0)),
    }
}

/// A system call with these arguments. See above for what makes it sound.
macro_rules! call {
    ($number:ident $(, $arg:expr)*) => {
        // SAFETY: what is read and written is plain memory, see above.
        sys::value(unsafe { libc::syscall(abi::$number.into() $(, $arg)*) })
    };
}

impl Peer {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Kernel => "kernel AIO",
            Peer::Raio(_) => "raio",
        }
    }

    /// `io_setup(2)`.
    pub fn setup(self, nr_events: u32, ctxp: u64) -> i64 {
        match self {
            Peer::Kernel => call!(__NR_io_setup, nr_events, ctxp),
            Peer::Raio(fd) => {
                let mut arg = abi::raio_setup {
                    nr_events,
                    ctxp,
                    ..Default::default()
                };
                // SAFETY: see above.
                number(unsafe { raw::setup(fd, &mut arg) })
            }
        }
    }

    /// `io_destroy(2)`.
    pub fn destroy(self, ctx: u64) -> i64 {
        match self {
            Peer::Kernel => call!(__NR_io_destroy, ctx),
            Peer::Raio(fd) => {
                let mut arg = abi::raio_destroy {
                    ctx,
                    ..Default::default()
                };
                // SAFETY: see above.
                number(unsafe { raw::destroy(fd, &mut arg) })
            }
        }
    }

    /// `io_submit(2)`.
    pub fn submit(self, ctx: u64, nr: i64, iocbs: u64) -> i64 {
        match self {
            Peer::Kernel => call!(__NR_io_submit, ctx, nr, iocbs),
            Peer::Raio(fd) => {
                let mut arg = abi::raio_submit {
                    ctx,
                    nr,
                    iocbs,
                    ..Default::default()
                };
                // SAFETY: see above.
                number(unsafe { raw::submit(fd, &mut arg) })
            }
        }
    }

    /// `io_getevents(2)`, with a mask `io_pgetevents(2)`.
    pub fn getevents(self, args: &GetEvents) -> i64 {
        let GetEvents {
            ctx,
            min_nr,
            nr,
            events,
            timeout,
            mask,
        } = *args;
        match (self, mask) {
            (Peer::Kernel, None) => {
                call!(__NR_io_getevents, ctx, min_nr, nr, events, timeout)
            }
            (Peer::Kernel, Some(mask)) => {
                let mask: [u64; 2] = [mask.0, mask.1 as u64];
                call!(
                    __NR_io_pgetevents,
                    ctx,
                    min_nr,
                    nr,
                    events,
                    timeout,
                    mask.as_ptr()
                )
            }
            (Peer::Raio(fd), mask) => {
                let (sigmask, sigsetsize) = mask.unwrap_or((0, 0));
                let mut arg = abi::raio_getevents {
                    ctx,
                    min_nr,
                    nr,
                    events,
                    timeout,
                    sigmask,
                    sigsetsize: sigsetsize as u32,
                    ..Default::default()
                };
                // SAFETY: see above.
                number(unsafe { raw::getevents(fd, &mut arg) })
            }
        }
    }

    /// `io_cancel(2)`. Where that returns `EINPROGRESS`, raio returns 0.
    pub fn cancel(self, ctx: u64, iocb: u64) -> i64 {
        match self {
            Peer::Kernel => call!(__NR_io_cancel, ctx, iocb, 0u64),
            Peer::Raio(fd) => {
                let mut arg = abi::raio_cancel {
                    ctx,
                    iocb,
                    ..Default::default()
                };
                match number(raw::cancel(fd, &mut arg)) {
                    0 => -i64::from(libc::EINPROGRESS),
                    error => error,
                }
            }
        }
    }
}
