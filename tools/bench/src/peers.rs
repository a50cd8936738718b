// SPDX-License-Identifier: GPL-2.0
//! Who is measured: raio, and the kernel's own AIO.

use raio::{
    raw,
    sys::{raio_destroy, raio_setup},
};
use std::{io, os::fd::AsRawFd, os::fd::OwnedFd};

/// Something with contexts.
pub(crate) trait Peer {
    /// The same for another process, which has nothing in common with this one.
    fn reopen(&self) -> io::Result<Box<dyn Peer>>;
    /// Makes a context for `nr_events` requests and returns its handle.
    fn setup(&self, nr_events: u32) -> io::Result<u64>;
    /// Destroys one.
    fn destroy(&self, ctx: u64) -> io::Result<()>;
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
        // SAFETY: There are no requests, and nobody here reads the ring.
        unsafe { raw::destroy(self.0.as_raw_fd(), &mut arg) }?;
        Ok(())
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
        check(unsafe { libc::syscall(libc::SYS_io_setup, nr_events, &raw mut ctx) })?;
        Ok(ctx)
    }

    fn destroy(&self, ctx: u64) -> io::Result<()> {
        // SAFETY: There are no requests, and nobody here reads the ring.
        check(unsafe { libc::syscall(libc::SYS_io_destroy, ctx) })
    }
}

fn check(ret: libc::c_long) -> io::Result<()> {
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
