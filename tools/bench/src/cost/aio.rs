// SPDX-License-Identifier: GPL-2.0
//! libaio's API, of whichever library: kernel AIO's or ours.

use super::client::{Buffers, Engine, Load, Op, BLOCK};
use libc::{c_int, c_long, timespec};
use libloading::Library;
use raio::sys::{io_event, iocb, IOCB_CMD_PREAD, IOCB_CMD_PWRITE};
use std::{io, os::fd::RawFd, ptr, sync::Arc};

type Setup = unsafe extern "C" fn(c_int, *mut usize) -> c_int;
type Destroy = unsafe extern "C" fn(usize) -> c_int;
type Submit = unsafe extern "C" fn(usize, c_long, *mut *mut iocb) -> c_int;
type GetEvents =
    unsafe extern "C" fn(usize, c_long, c_long, *mut io_event, *const timespec) -> c_int;

/// A context, which threads may share.
pub(crate) struct Context {
    ctx: usize,
    submit: Submit,
    getevents: GetEvents,
    destroy: Destroy,
    _library: Library,
}

impl Context {
    /// One for `depth` requests, by the library of that name.
    pub(crate) fn new(library: &str, depth: usize) -> io::Result<Arc<Self>> {
        let wrong = |e| io::Error::other(format!("{library}: {e}"));
        // SAFETY: Nothing of either library runs when it is loaded.
        let library = unsafe { Library::new(library) }.map_err(wrong)?;
        // SAFETY: These are libaio's functions.
        let (setup, destroy, submit, getevents) = unsafe {
            (
                *library.get::<Setup>(b"io_setup").map_err(wrong)?,
                *library.get::<Destroy>(b"io_destroy").map_err(wrong)?,
                *library.get::<Submit>(b"io_submit").map_err(wrong)?,
                *library.get::<GetEvents>(b"io_getevents").map_err(wrong)?,
            )
        };
        let mut ctx = 0;
        // SAFETY: The handle goes to `ctx`.
        number(unsafe { setup(depth as c_int, &raw mut ctx) })?;
        Ok(Arc::new(Self {
            ctx,
            submit,
            getevents,
            destroy,
            _library: library,
        }))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: Nobody else has it.
        unsafe { (self.destroy)(self.ctx) };
    }
}

/// One thread's part of it.
pub(crate) struct Aio {
    context: Arc<Context>,
    /// Where they start doesn't change.
    iocbs: Vec<iocb>,
    queued: Vec<*mut iocb>,
    events: Vec<io_event>,
    ended: usize,
    /// How long it waits, with other threads on the same context.
    patience: Option<timespec>,
}

impl Aio {
    pub(crate) fn new(
        context: Arc<Context>,
        shared: bool,
        fd: RawFd,
        load: &Load,
        buffers: &Buffers,
    ) -> Self {
        let opcode = match load.op {
            Op::Write => IOCB_CMD_PWRITE,
            _ => IOCB_CMD_PREAD,
        };
        let iocbs = (0..load.slots).map(|slot| iocb {
            aio_data: slot as u64,
            aio_lio_opcode: opcode as _,
            aio_fildes: fd as u32,
            aio_buf: buffers.at(slot).addr() as u64,
            aio_nbytes: BLOCK as u64,
            ..Default::default()
        });
        Self {
            context,
            iocbs: iocbs.collect(),
            queued: Vec::with_capacity(load.depth),
            events: vec![io_event::default(); load.slots],
            ended: 0,
            patience: shared.then_some(timespec {
                tv_sec: 0,
                tv_nsec: 1_000_000,
            }),
        }
    }
}

impl Engine for Aio {
    fn queue(&mut self, slot: usize, block: u64) {
        let iocb = &mut self.iocbs[slot];
        iocb.aio_offset = (block * BLOCK as u64) as i64;
        self.queued.push(iocb);
    }

    fn enter(&mut self, min: usize) -> io::Result<()> {
        let context = &*self.context;
        let n = self.queued.len();
        if n > 0 {
            // SAFETY: The requests and their buffers stay until they have ended.
            let taken = number(unsafe {
                (context.submit)(context.ctx, n as c_long, self.queued.as_mut_ptr())
            })?;
            if taken != n {
                return Err(io::Error::other(format!(
                    "of {n} requests {taken} were taken"
                )));
            }
            self.queued.clear();
        }
        if min > 0 {
            let room = self.events.len();
            let timeout = self.patience.as_ref().map_or(ptr::null(), ptr::from_ref);
            // SAFETY: There is room for so many.
            self.ended = number(unsafe {
                (context.getevents)(
                    context.ctx,
                    min as c_long,
                    room as c_long,
                    self.events.as_mut_ptr(),
                    timeout,
                )
            })?;
        }
        Ok(())
    }

    fn reap(&mut self, mut ended: impl FnMut(usize, i64)) {
        for event in &self.events[..std::mem::take(&mut self.ended)] {
            ended(event.data as usize, event.res);
        }
    }
}

fn number(ret: c_int) -> io::Result<usize> {
    usize::try_from(ret).map_err(|_| io::Error::from_raw_os_error(-ret))
}
