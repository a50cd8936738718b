// SPDX-License-Identifier: GPL-2.0
//! The kernel's own AIO, for tests: hosts have it that don't have the device.

use crate::sys::*;
use std::{
    io,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
};

/// The kernel's own AIO.
#[derive(Clone, Default)]
pub(crate) struct Aio {
    pub(crate) refuse_destroy: Arc<AtomicBool>,
}

fn check(n: libc::c_long) -> io::Result<usize> {
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

impl Aio {
    pub(crate) fn setup(&self, nr_events: u32) -> io::Result<raio_setup> {
        let mut ctx: u64 = 0;
        // SAFETY: `ctx` is a word of ours.
        check(unsafe { libc::syscall(libc::SYS_io_setup, nr_events, &mut ctx) })?;
        // SAFETY: there is a ring.
        let ring_nr = unsafe { (*(ctx as usize as *const raio_ring)).nr };
        Ok(raio_setup {
            ctx,
            ring_nr,
            ring_size: 32 + 32 * u64::from(ring_nr),
            ..Default::default()
        })
    }

    pub(crate) fn destroy(&self, ctx: u64) -> io::Result<()> {
        if self.refuse_destroy.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: called last.
        check(unsafe { libc::syscall(libc::SYS_io_destroy, ctx) }).map(|_| ())
    }

    pub(crate) fn submit(&self, ctx: u64, iocbs: &[usize]) -> io::Result<usize> {
        // SAFETY: the buffers are in the slab.
        check(unsafe { libc::syscall(libc::SYS_io_submit, ctx, iocbs.len(), iocbs.as_ptr()) })
    }

    pub(crate) fn getevents(
        &self,
        ctx: u64,
        min_nr: u32,
        nr: u32,
        events: *mut io_event,
        timeout: *const __kernel_timespec,
    ) -> io::Result<usize> {
        let (min_nr, nr) = (min_nr as usize, nr as usize);
        // SAFETY: there is room for `nr` events.
        check(unsafe { libc::syscall(libc::SYS_io_getevents, ctx, min_nr, nr, events, timeout) })
    }
}
