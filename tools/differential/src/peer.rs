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

/// Where requests are that go by raio's own call.
#[derive(Clone, Copy, Debug)]
pub enum Iocbs {
    /// At that address.
    At(u64),
    /// In the submission array, from that one on.
    Shared(u32),
}

/// How many the submission array has: as many as a page has, so that it has no more.
pub const SHARED: usize = 64;

/// How many files and buffers can be registered.
pub const REGISTERED: usize = 16;

/// The arguments to register one thing, which has to stay until that is done.
fn register<T>(ctx: u64, number: usize, what: &T) -> abi::raio_register {
    abi::raio_register {
        ctx,
        first: number as u32,
        nr: 1,
        array: (&raw const *what).addr() as u64,
        ..Default::default()
    }
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

    /// `io_setup(2)`; raio's context `polls`, or it doesn't. Besides, where behind its handle its submission
    /// array begins.
    pub fn setup(self, nr_events: u32, ctxp: u64, polls: bool) -> (i64, u64) {
        match self {
            Peer::Kernel => (call!(__NR_io_setup, nr_events, ctxp), 0),
            Peer::Raio(fd) => {
                let mut arg = abi::raio_setup {
                    nr_events,
                    ctxp,
                    flags: if polls { abi::RAIO_SETUP_IOPOLL } else { 0 },
                    nr_buffers: REGISTERED as u32,
                    nr_files: REGISTERED as u32,
                    sq_nr: SHARED as u32,
                    ..Default::default()
                };
                // SAFETY: see above.
                let ret = number(unsafe { raw::setup(fd, &mut arg) });
                (ret, arg.sq_offset.into())
            }
        }
    }

    /// `io_submit(2)` of so many, by raio's own call. Not of kernel AIO. They are where `from` says; `timeout` is
    /// the address of a time of 0, if what has ended is to be looked for, too.
    pub fn enter(self, ctx: u64, from: Iocbs, nr: usize, timeout: Option<u64>) -> i64 {
        let Peer::Raio(fd) = self else {
            return -i64::from(libc::ENOSYS);
        };
        let (iocbs, flags) = match from {
            Iocbs::At(address) => (address, 0),
            Iocbs::Shared(first) => (first.into(), abi::RAIO_ENTER_SQ),
        };
        let mut arg = abi::raio_enter {
            ctx,
            iocbs,
            nr: nr as u32,
            min_nr: timeout.map_or(0, |_| nr as u32),
            flags,
            timeout: timeout.unwrap_or(0),
            ..Default::default()
        };
        // SAFETY: see above.
        number(unsafe { raw::enter(fd, &mut arg) })
    }

    /// Has raio ask for what has ended, if fewer events are there. `timeout` is the address of a time
    /// of 0.
    pub fn ask(self, ctx: u64, events: u32, timeout: u64) {
        let Peer::Raio(fd) = self else { return };
        let mut arg = abi::raio_enter {
            ctx,
            min_nr: events,
            timeout,
            ..Default::default()
        };
        // SAFETY: see above.
        let _ = unsafe { raw::enter(fd, &mut arg) };
    }

    /// Registers a descriptor under a number, or none if it is -1. False if that isn't
    /// possible.
    pub fn set_file(self, ctx: u64, number: usize, file: RawFd) -> bool {
        let Peer::Raio(fd) = self else { return false };
        let mut arg = register(ctx, number, &file);
        raw::files(fd, &mut arg).is_ok()
    }

    /// The same with memory.
    pub fn set_buffer(self, ctx: u64, number: usize, addr: u64, len: u64) -> bool {
        let Peer::Raio(fd) = self else { return false };
        let buffer = abi::raio_buffer { addr, len };
        let mut arg = register(ctx, number, &buffer);
        // SAFETY: see above.
        unsafe { raw::buffers(fd, &mut arg) }.is_ok()
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
            Peer::Raio(_) => self.cancel_as(ctx, iocb, 0),
        }
    }

    /// The same by the data of a request that went by raio's own call.
    pub fn cancel_native(self, ctx: u64, data: u64) -> i64 {
        self.cancel_as(ctx, data, abi::RAIO_CANCEL_DATA)
    }

    fn cancel_as(self, ctx: u64, iocb: u64, flags: u32) -> i64 {
        let Peer::Raio(fd) = self else {
            return -i64::from(libc::ENOSYS);
        };
        let mut arg = abi::raio_cancel {
            ctx,
            iocb,
            flags,
            ..Default::default()
        };
        match number(raw::cancel(fd, &mut arg)) {
            0 => -i64::from(libc::EINPROGRESS),
            error => error,
        }
    }
}
