// SPDX-License-Identifier: GPL-2.0
//! The calls of a context, and who does them. Relies on [`raw`].

#[cfg(test)]
pub(crate) mod aio;
#[cfg(test)]
pub(crate) mod fake;

use crate::{raw, sys::*};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
    sync::Arc,
    time::Duration,
};

/// Who does the calls: the device, and in tests what hosts have that don't
/// have the device.
pub(crate) enum Calls {
    Device(Arc<OwnedFd>),
    #[cfg(test)]
    Aio(aio::Aio),
    #[cfg(test)]
    Fake(fake::Fake),
}

impl Calls {
    /// Makes a context as `arg` says, but for its `ctxp`.
    pub(crate) fn setup(&self, mut arg: raio_setup) -> io::Result<raio_setup> {
        match self {
            Self::Device(fd) => {
                let mut ctx: aio_context_t = 0;
                arg.ctxp = &raw mut ctx as usize as u64;
                // SAFETY: `ctx` is a word of ours.
                unsafe { raw::setup(fd.as_raw_fd(), &mut arg) }?;
                Ok(arg)
            }
            #[cfg(test)]
            Self::Aio(aio) => aio.setup(arg.nr_events),
            #[cfg(test)]
            Self::Fake(fake) => fake.setup(arg),
        }
    }

    pub(crate) fn destroy(&self, ctx: u64) -> io::Result<()> {
        match self {
            Self::Device(fd) => {
                let mut arg = raio_destroy {
                    ctx,
                    ..Default::default()
                };
                // SAFETY: called last, when nothing is read from the ring.
                unsafe { raw::destroy(fd.as_raw_fd(), &mut arg) }?;
                Ok(())
            }
            #[cfg(test)]
            Self::Aio(aio) => aio.destroy(ctx),
            #[cfg(test)]
            Self::Fake(fake) => fake.destroy(),
        }
    }

    /// # Safety
    ///
    /// As for [`raw::submit`].
    pub(crate) unsafe fn submit(&self, ctx: u64, iocbs: &[usize]) -> io::Result<usize> {
        let n = match self {
            Self::Device(fd) => {
                let mut arg = raio_submit {
                    ctx,
                    nr: iocbs.len() as i64,
                    iocbs: iocbs.as_ptr() as usize as u64,
                    ..Default::default()
                };
                // SAFETY: the caller's promise.
                unsafe { raw::submit(fd.as_raw_fd(), &mut arg) }? as usize
            }
            #[cfg(test)]
            Self::Aio(aio) => aio.submit(ctx, iocbs)?,
            #[cfg(test)]
            Self::Fake(_) => unreachable!("it has native calls only"),
        };
        Ok(n.min(iocbs.len()))
    }

    /// # Safety
    ///
    /// There must be room for `nr` events at `events`.
    pub(crate) unsafe fn getevents(
        &self,
        ctx: u64,
        min_nr: u32,
        nr: u32,
        events: *mut io_event,
        min_wait: Duration,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let timeout = timeout.map(timespec);
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        let n = match self {
            Self::Device(fd) => {
                let mut arg = raio_getevents {
                    ctx,
                    min_nr: min_nr.into(),
                    nr: nr.into(),
                    events: events as usize as u64,
                    timeout: timeout as usize as u64,
                    min_wait: min_wait.as_nanos().try_into().unwrap_or(u64::MAX),
                    ..Default::default()
                };
                // SAFETY: the caller's promise.
                unsafe { raw::getevents(fd.as_raw_fd(), &mut arg) }? as usize
            }
            #[cfg(test)]
            Self::Aio(aio) => aio.getevents(ctx, min_nr, nr, events, timeout)?,
            #[cfg(test)]
            Self::Fake(_) => unreachable!("it has native calls only"),
        };
        Ok(n.min(nr as usize))
    }

    /// Starts `nr` requests of the submission array, from number `first` on, and
    /// waits for `min_nr` events.
    ///
    /// # Safety
    ///
    /// As for [`raw::enter`].
    #[inline]
    pub(crate) unsafe fn enter(
        &self,
        ctx: u64,
        first: u32,
        nr: u32,
        min_nr: u32,
        timeout: Option<Duration>,
    ) -> io::Result<u32> {
        let timeout = timeout.map(timespec);
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        let mut arg = raio_enter {
            ctx,
            iocbs: if nr > 0 { first.into() } else { 0 },
            nr,
            min_nr,
            flags: if nr > 0 { RAIO_ENTER_SQ } else { 0 },
            timeout: timeout as usize as u64,
            ..Default::default()
        };
        match self {
            Self::Device(fd) => {
                // SAFETY: the caller's promise.
                unsafe { raw::enter(fd.as_raw_fd(), &mut arg) }.map(|n| n as u32)
            }
            #[cfg(test)]
            Self::Aio(_) => unreachable!("it has no native calls"),
            #[cfg(test)]
            Self::Fake(fake) => fake.enter(&mut arg),
        }
    }

    /// Registers `buffers` from number `first` on; returns how many.
    ///
    /// # Safety
    ///
    /// The memory must be there until it is not registered any more.
    pub(crate) unsafe fn buffers(
        &self,
        ctx: u64,
        first: u32,
        buffers: &[raio_buffer],
    ) -> io::Result<usize> {
        let mut arg = raio_register {
            ctx,
            first,
            nr: buffers.len().try_into().unwrap_or(u32::MAX),
            array: buffers.as_ptr() as usize as u64,
            ..Default::default()
        };
        match self {
            Self::Device(fd) => {
                // SAFETY: the caller's promise, and the array is there.
                unsafe { raw::buffers(fd.as_raw_fd(), &mut arg) }.map(|n| n as usize)
            }
            #[cfg(test)]
            Self::Aio(_) => unreachable!("it has no native calls"),
            #[cfg(test)]
            Self::Fake(fake) => fake.buffers(&mut arg, buffers),
        }
    }

    /// Registers files from number `first` on, -1 for none; returns how many.
    pub(crate) fn files(&self, ctx: u64, first: u32, files: &[i32]) -> io::Result<usize> {
        let mut arg = raio_register {
            ctx,
            first,
            nr: files.len().try_into().unwrap_or(u32::MAX),
            array: files.as_ptr() as usize as u64,
            ..Default::default()
        };
        match self {
            Self::Device(fd) => raw::files(fd.as_raw_fd(), &mut arg).map(|n| n as usize),
            #[cfg(test)]
            Self::Aio(_) => unreachable!("it has no native calls"),
            #[cfg(test)]
            Self::Fake(fake) => fake.files(&mut arg, files),
        }
    }

    /// Cancels the request that has this in its `aio_data`.
    pub(crate) fn cancel(&self, ctx: u64, data: u64) -> io::Result<()> {
        let mut arg = raio_cancel {
            ctx,
            iocb: data,
            flags: RAIO_CANCEL_DATA,
            ..Default::default()
        };
        match self {
            Self::Device(fd) => raw::cancel(fd.as_raw_fd(), &mut arg).map(|_| ()),
            #[cfg(test)]
            Self::Aio(_) => unreachable!("it has no native calls"),
            #[cfg(test)]
            Self::Fake(fake) => fake.cancel(&mut arg),
        }
    }
}

fn timespec(time: Duration) -> __kernel_timespec {
    __kernel_timespec {
        tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}
