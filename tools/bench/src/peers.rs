// SPDX-License-Identifier: GPL-2.0
//! Who is measured: raio, and the kernel's own AIO.

use crate::requests::Requests;
use libc::timespec;
use raio::{
    raw,
    sys::{io_event, iocb, raio_cancel, raio_destroy, raio_getevents, raio_setup, raio_submit},
};
use std::{io, os::fd::AsRawFd, os::fd::OwnedFd, ptr};

/// Something with contexts.
pub(crate) trait Peer: Sync {
    /// The same for another process, which has nothing in common with this one.
    fn reopen(&self) -> io::Result<Box<dyn Peer>>;
    /// Makes a context for `nr_events` requests and returns its handle.
    fn setup(&self, nr_events: u32) -> io::Result<u64>;
    /// Destroys one.
    fn destroy(&self, ctx: u64) -> io::Result<()>;
    /// Starts the first `n` of the requests and returns how many were taken.
    fn submit(&self, ctx: u64, requests: &mut Requests, n: usize) -> io::Result<usize>;
    /// Cancels a request that was taken, whose event then comes.
    fn cancel(&self, ctx: u64, iocb: *mut iocb) -> io::Result<()>;
    /// What the event of such a request has for a result.
    fn cancelled(&self) -> i64;
    /// Reads up to as many events as there is room for, waits for `min_nr`,
    /// without a timeout for as long as it takes, and returns how many.
    fn getevents(
        &self,
        ctx: u64,
        min_nr: usize,
        events: &mut [io_event],
        timeout: Option<&timespec>,
    ) -> io::Result<usize>;
}

/// The module, through its device.
pub(crate) struct Raio(OwnedFd);

impl Raio {
    pub(crate) fn open() -> io::Result<Self> {
        raw::open(c"/dev/raio").map(Self)
    }
}

impl Peer for Raio {
    fn reopen(&self) -> io::Result<Box<dyn Peer>> {
        Ok(Box::new(Self::open()?))
    }

    fn setup(&self, nr_events: u32) -> io::Result<u64> {
        let mut ctx = 0u64;
        let mut arg = raio_setup {
            ctxp: (&raw mut ctx).addr() as u64,
            nr_events,
            ..Default::default()
        };
        // SAFETY: `ctxp` is where the handle may be written to.
        unsafe { raw::setup(self.0.as_raw_fd(), &mut arg) }?;
        Ok(ctx)
    }

    fn destroy(&self, ctx: u64) -> io::Result<()> {
        let mut arg = raio_destroy {
            ctx,
            ..Default::default()
        };
        // SAFETY: No request touches memory, and nobody here reads the ring.
        unsafe { raw::destroy(self.0.as_raw_fd(), &mut arg) }?;
        Ok(())
    }

    fn submit(&self, ctx: u64, requests: &mut Requests, n: usize) -> io::Result<usize> {
        let mut arg = raio_submit {
            ctx,
            nr: n as i64,
            iocbs: requests.pointers(n).addr() as u64,
            ..Default::default()
        };
        // SAFETY: The requests touch no memory.
        unsafe { raw::submit(self.0.as_raw_fd(), &mut arg) }.map(|n| n as usize)
    }

    fn cancel(&self, ctx: u64, iocb: *mut iocb) -> io::Result<()> {
        let mut arg = raio_cancel {
            ctx,
            iocb: iocb.addr() as u64,
            ..Default::default()
        };
        raw::cancel(self.0.as_raw_fd(), &mut arg).map(drop)
    }

    fn cancelled(&self) -> i64 {
        -i64::from(libc::ECANCELED)
    }

    fn getevents(
        &self,
        ctx: u64,
        min_nr: usize,
        events: &mut [io_event],
        timeout: Option<&timespec>,
    ) -> io::Result<usize> {
        let mut arg = raio_getevents {
            ctx,
            min_nr: min_nr as i64,
            nr: events.len() as i64,
            events: events.as_mut_ptr().addr() as u64,
            timeout: timeout.map_or(0, |timeout| ptr::from_ref(timeout).addr() as u64),
            ..Default::default()
        };
        // SAFETY: `events` has room for `nr`.
        unsafe { raw::getevents(self.0.as_raw_fd(), &mut arg) }.map(|n| n as usize)
    }
}

/// The kernel's own AIO.
pub(crate) struct KernelAio;

impl Peer for KernelAio {
    fn reopen(&self) -> io::Result<Box<dyn Peer>> {
        Ok(Box::new(Self))
    }

    fn setup(&self, nr_events: u32) -> io::Result<u64> {
        let mut ctx = 0u64;
        // SAFETY: Writes the handle to `ctx`.
        number(unsafe { libc::syscall(libc::SYS_io_setup, nr_events, &raw mut ctx) })?;
        Ok(ctx)
    }

    fn destroy(&self, ctx: u64) -> io::Result<()> {
        // SAFETY: No request touches memory, and nobody here reads the ring.
        number(unsafe { libc::syscall(libc::SYS_io_destroy, ctx) })?;
        Ok(())
    }

    fn submit(&self, ctx: u64, requests: &mut Requests, n: usize) -> io::Result<usize> {
        let iocbs = requests.pointers(n);
        // SAFETY: The requests touch no memory.
        number(unsafe { libc::syscall(libc::SYS_io_submit, ctx, n, iocbs) })
    }

    fn cancel(&self, ctx: u64, iocb: *mut iocb) -> io::Result<()> {
        let mut event = io_event::default();
        // SAFETY: It may write to `event`.
        match number(unsafe { libc::syscall(libc::SYS_io_cancel, ctx, iocb, &raw mut event) }) {
            // So it says that it does.
            Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
            other => other.map(drop),
        }
    }

    /// A poll that isn't ready for anything.
    fn cancelled(&self) -> i64 {
        0
    }

    fn getevents(
        &self,
        ctx: u64,
        min_nr: usize,
        events: &mut [io_event],
        timeout: Option<&timespec>,
    ) -> io::Result<usize> {
        let timeout = timeout.map_or(ptr::null(), ptr::from_ref);
        let (at, nr) = (events.as_mut_ptr(), events.len());
        // SAFETY: `events` has room for `nr`.
        number(unsafe { libc::syscall(libc::SYS_io_getevents, ctx, min_nr, nr, at, timeout) })
    }
}

fn number(ret: libc::c_long) -> io::Result<usize> {
    usize::try_from(ret).map_err(|_| io::Error::last_os_error())
}
