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

/// One thread's requests, one for each slot, but for their offsets; of what is registered for
/// that, or not.
fn templates(
    context: &Context,
    registered: bool,
    fd: RawFd,
    load: &Load,
    buffers: &Buffers,
) -> io::Result<Vec<iocb>> {
    if registered {
        context.register(fd, load, buffers)?;
    }
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
    Ok((0..load.slots).map(template).collect())
}

/// The request of a template for a block.
#[inline]
fn of(template: &iocb, block: u64) -> iocb {
    iocb {
        aio_offset: (block * BLOCK as u64) as i64,
        ..*template
    }
}

/// Takes requests in.
#[inline]
fn enter(fd: RawFd, arg: &mut raio_enter) -> io::Result<()> {
    // SAFETY: The buffers outlive the context.
    match unsafe { raw::enter(fd, arg) }? {
        taken if taken as u32 == arg.nr => Ok(()),
        taken => Err(fewer(arg.nr, taken)),
    }
}

#[cold]
fn fewer(nr: u32, taken: i32) -> io::Error {
    io::Error::other(format!("of {nr} requests {taken} were taken"))
}

/// One thread that has a context to itself: its ring, and its submission array.
pub(crate) struct Alone {
    fd: RawFd,
    arg: raio_enter,
    templates: Vec<iocb>,
    ring: Ring,
    sq: *mut iocb,
    sq_nr: u32,
    /// What of it is next.
    next: u32,
    _context: Arc<Context>,
}

impl Alone {
    pub(crate) fn new(
        context: Arc<Context>,
        registered: bool,
        fd: RawFd,
        load: &Load,
        buffers: &Buffers,
    ) -> io::Result<Self> {
        let templates = templates(&context, registered, fd, load, buffers)?;
        let setup = &context.setup;
        let at = usize::try_from(setup.ctx).map_err(io::Error::other)?;
        Ok(Self {
            fd: context.device.as_raw_fd(),
            arg: raio_enter {
                ctx: setup.ctx,
                flags: RAIO_ENTER_SQ,
                ..Default::default()
            },
            templates,
            // SAFETY: It stays mapped for as long as the context is there, and nobody else reads
            // events.
            ring: unsafe { Ring::new(at, setup.ring_size, setup.ring_nr) }?,
            sq: (at + setup.sq_offset as usize) as *mut iocb,
            sq_nr: setup.sq_nr,
            next: 0,
            _context: context,
        })
    }
}

impl Engine for Alone {
    #[inline]
    fn queue(&mut self, slot: usize, block: u64) {
        let io = of(&self.templates[slot], block);
        // SAFETY: It is in the array, and not submitted yet.
        unsafe { self.sq.add(self.next as usize).write(io) };
        self.next += 1;
        if self.next == self.sq_nr {
            self.next = 0;
        }
        self.arg.nr += 1;
    }

    fn enter(&mut self, min: usize) -> io::Result<()> {
        self.arg.min_nr = min as u32;
        if self.arg.nr > 0 || min > 0 {
            enter(self.fd, &mut self.arg)?;
            self.arg.nr = 0;
            self.arg.iocbs = self.next.into();
        }
        Ok(())
    }

    #[inline]
    fn reap(&mut self, mut ended: impl FnMut(usize, i64)) {
        self.ring
            .reap(u32::MAX, |event| ended(event.data as usize, event.res));
    }
}

/// One thread of several that share a context: it reads events by calls.
pub(crate) struct Sharing {
    context: Arc<Context>,
    templates: Vec<iocb>,
    /// Queued since the last call, at the beginning.
    array: Vec<iocb>,
    queued: u32,
    /// Those that were read, and how many.
    events: Vec<io_event>,
    ended: usize,
}

impl Sharing {
    pub(crate) fn new(
        context: Arc<Context>,
        registered: bool,
        fd: RawFd,
        load: &Load,
        buffers: &Buffers,
    ) -> io::Result<Self> {
        Ok(Self {
            templates: templates(&context, registered, fd, load, buffers)?,
            context,
            array: vec![iocb::default(); load.slots],
            queued: 0,
            events: vec![io_event::default(); load.slots],
            ended: 0,
        })
    }
}

impl Engine for Sharing {
    fn queue(&mut self, slot: usize, block: u64) {
        self.array[self.queued as usize] = of(&self.templates[slot], block);
        self.queued += 1;
    }

    fn enter(&mut self, min: usize) -> io::Result<()> {
        let fd = self.context.device.as_raw_fd();
        let ctx = self.context.setup.ctx;
        if self.queued > 0 {
            let mut arg = raio_enter {
                ctx,
                nr: self.queued,
                iocbs: self.array.as_ptr().addr() as u64,
                ..Default::default()
            };
            enter(fd, &mut arg)?;
            self.queued = 0;
        }
        if min > 0 {
            let timeout = __kernel_timespec {
                tv_sec: 0,
                tv_nsec: 1_000_000,
            };
            let mut arg = raio_getevents {
                ctx,
                min_nr: min as i64,
                nr: self.events.len() as i64,
                events: self.events.as_mut_ptr().addr() as u64,
                timeout: (&raw const timeout).addr() as u64,
                ..Default::default()
            };
            // SAFETY: There is room for so many.
            self.ended = unsafe { raw::getevents(fd, &mut arg) }? as usize;
        }
        Ok(())
    }

    fn reap(&mut self, mut ended: impl FnMut(usize, i64)) {
        for event in &self.events[..std::mem::take(&mut self.ended)] {
            ended(event.data as usize, event.res);
        }
    }
}
