// SPDX-License-Identifier: GPL-2.0
//! raio's own calls: the submission array, and one call that submits and waits. A
//! context that threads share has no array, and its ring is read by calls.

use super::client::{Buffers, Engine, Load, Op, BLOCK};
use raio::{
    raw,
    ring::Ring,
    sys::{
        __kernel_timespec, io_event, iocb, raio_buffer, raio_destroy, raio_enter, raio_getevents,
        raio_register, raio_setup, IOCB_CMD_NOOP, IOCB_CMD_PREAD, IOCB_CMD_PWRITE, RAIO_ENTER_SQ,
        RAIO_IOCB_FIXED_BUF, RAIO_IOCB_FIXED_FILE, RAIO_SETUP_IOPOLL,
    },
};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::Arc,
};

/// A context.
pub(crate) struct Context {
    device: OwnedFd,
    setup: raio_setup,
}

impl Context {
    /// One for `depth` requests, and a file and buffers for all slots to be registered;
    /// with a submission array, unless it is `shared`. Completions are polled for or aren't.
    pub(crate) fn new(
        depth: usize,
        load: &Load,
        shared: bool,
        polled: bool,
    ) -> io::Result<Arc<Self>> {
        let device = raw::open(raio::DEVICE_PATH)?;
        let mut ctx = 0u64;
        let mut setup = raio_setup {
            nr_events: depth as u32,
            flags: if polled { RAIO_SETUP_IOPOLL } else { 0 },
            ctxp: (&raw mut ctx).addr() as u64,
            sq_nr: if shared { 0 } else { depth as u32 },
            nr_buffers: load.slots as u32,
            nr_files: 1,
            ..Default::default()
        };
        // SAFETY: `ctxp` is where the handle may be written to.
        unsafe { raw::setup(device.as_raw_fd(), &mut setup) }?;
        Ok(Arc::new(Self { device, setup }))
    }

    /// Registers the file as number 0, and the buffer of each slot under that.
    fn register(&self, fd: RawFd, load: &Load, buffers: &Buffers) -> io::Result<()> {
        let device = self.device.as_raw_fd();
        let mut arg = raio_register {
            ctx: self.setup.ctx,
            nr: 1,
            array: (&raw const fd).addr() as u64,
            ..Default::default()
        };
        raw::files(device, &mut arg)?;
        let all: Vec<raio_buffer> = (0..load.slots)
            .map(|slot| raio_buffer {
                addr: buffers.at(slot).addr() as u64,
                len: BLOCK as u64,
            })
            .collect();
        arg.nr = all.len() as u32;
        arg.array = all.as_ptr().addr() as u64;
        // SAFETY: The buffers outlive the context.
        match unsafe { raw::buffers(device, &mut arg) }? {
            n if n as usize == all.len() => Ok(()),
            n => Err(io::Error::other(format!("{n} buffers were registered"))),
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let mut arg = raio_destroy {
            ctx: self.setup.ctx,
            ..Default::default()
        };
        // SAFETY: Nobody else has it.
        let _ = unsafe { raw::destroy(self.device.as_raw_fd(), &mut arg) };
    }
}

/// One thread's part of it.
pub(crate) struct Native {
    context: Arc<Context>,
    /// One for each slot, but for its offset.
    templates: Vec<iocb>,
    /// Queued since the last call, at the beginning; or where the array is.
    array: Vec<iocb>,
    queued: u32,
    way: Way,
}

enum Way {
    /// Alone with the context: its ring, its submission array, and what of that is next.
    Alone {
        ring: Ring,
        sq: *mut iocb,
        next: u32,
    },
    /// With others: events that were read.
    Shared { events: Vec<io_event>, ended: usize },
}

impl Native {
    pub(crate) fn new(
        context: Arc<Context>,
        shared: bool,
        registered: bool,
        fd: RawFd,
        load: &Load,
        buffers: &Buffers,
    ) -> io::Result<Self> {
        let setup = &context.setup;
        if registered {
            context.register(fd, load, buffers)?;
        }
        let way = if shared {
            Way::Shared {
                events: vec![io_event::default(); load.slots],
                ended: 0,
            }
        } else {
            let at = usize::try_from(setup.ctx).map_err(io::Error::other)?;
            Way::Alone {
                // SAFETY: It stays mapped for as long as the context is there, and nobody else
                // reads events.
                ring: unsafe { Ring::new(at, setup.ring_size, setup.ring_nr) }?,
                sq: (at + setup.sq_offset as usize) as *mut iocb,
                next: 0,
            }
        };
        let opcode = match load.op {
            Op::Read => IOCB_CMD_PREAD,
            Op::Write => IOCB_CMD_PWRITE,
            Op::Nothing => IOCB_CMD_NOOP,
        };
        let template = |slot| {
            let mut io = iocb {
                aio_data: slot as u64,
                aio_lio_opcode: opcode as _,
                ..Default::default()
            };
            if load.op != Op::Nothing {
                io.aio_fildes = fd as u32;
                io.aio_buf = buffers.at(slot).addr() as u64;
                io.aio_nbytes = BLOCK as u64;
                if registered {
                    io.aio_fildes = 0;
                    io.aio_reserved2 = slot as u64;
                    io.aio_flags = RAIO_IOCB_FIXED_FILE | RAIO_IOCB_FIXED_BUF;
                }
            }
            io
        };
        Ok(Self {
            templates: (0..load.slots).map(template).collect(),
            array: vec![iocb::default(); load.slots],
            queued: 0,
            way,
            context,
        })
    }
}

impl Engine for Native {
    fn queue(&mut self, slot: usize, block: u64) {
        let mut io = self.templates[slot];
        if io.aio_nbytes > 0 {
            io.aio_offset = (block * BLOCK as u64) as i64;
        }
        match self.way {
            Way::Alone { sq, next, .. } => {
                let at = (next + self.queued) % self.context.setup.sq_nr;
                // SAFETY: It is in the array, and not submitted yet.
                unsafe { sq.add(at as usize).write(io) };
            }
            Way::Shared { .. } => self.array[self.queued as usize] = io,
        }
        self.queued += 1;
    }

    fn enter(&mut self, min: usize) -> io::Result<()> {
        let fd = self.context.device.as_raw_fd();
        let mut arg = raio_enter {
            ctx: self.context.setup.ctx,
            nr: self.queued,
            ..Default::default()
        };
        match &mut self.way {
            Way::Alone { next, .. } => {
                arg.min_nr = min as u32;
                arg.iocbs = (*next).into();
                arg.flags = RAIO_ENTER_SQ;
                *next = (*next + self.queued) % self.context.setup.sq_nr;
            }
            Way::Shared { .. } => arg.iocbs = self.array.as_ptr().addr() as u64,
        }
        if self.queued > 0 || arg.min_nr > 0 {
            // SAFETY: The buffers outlive the context.
            let taken = unsafe { raw::enter(fd, &mut arg) }?;
            if taken as u32 != self.queued {
                let what = format!("of {} requests {taken} were taken", self.queued);
                return Err(io::Error::other(what));
            }
            self.queued = 0;
        }
        if let Way::Shared { events, ended } = &mut self.way {
            if min > 0 {
                let timeout = __kernel_timespec {
                    tv_sec: 0,
                    tv_nsec: 1_000_000,
                };
                let mut arg = raio_getevents {
                    ctx: self.context.setup.ctx,
                    min_nr: min as i64,
                    nr: events.len() as i64,
                    events: events.as_mut_ptr().addr() as u64,
                    timeout: (&raw const timeout).addr() as u64,
                    ..Default::default()
                };
                // SAFETY: There is room for so many.
                *ended = unsafe { raw::getevents(fd, &mut arg) }? as usize;
            }
        }
        Ok(())
    }

    fn reap(&mut self, mut ended: impl FnMut(usize, i64)) {
        match &mut self.way {
            Way::Alone { ring, .. } => {
                ring.reap(u32::MAX, |event| ended(event.data as usize, event.res));
            }
            Way::Shared { events, ended: n } => {
                for event in &events[..std::mem::take(n)] {
                    ended(event.data as usize, event.res);
                }
            }
        }
    }
}
