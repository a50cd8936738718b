// SPDX-License-Identifier: GPL-2.0
//! Who is measured: raio, kernel AIO and io_uring, each with one request by each
//! call.

use crate::{
    peers::{KernelAio, Peer, Raio},
    requests::Requests,
};
use io_uring::{opcode, types::Fd, IoUring};
use raio::sys::{io_event, iocb, IOCB_CMD_PREAD, IOCB_CMD_PWRITE};
use std::{io, os::fd::RawFd};

/// A read or a write.
#[derive(Clone, Copy)]
pub(crate) struct Op {
    pub(crate) fd: RawFd,
    pub(crate) write: bool,
    pub(crate) buf: *mut u8,
    pub(crate) len: u32,
    pub(crate) offset: u64,
    /// Comes back with its result.
    pub(crate) id: u64,
    /// Which of those in flight.
    pub(crate) slot: usize,
}

/// Who carries it out.
pub(crate) trait Engine {
    fn name(&self) -> &'static str;
    /// Starts one.
    fn submit(&mut self, op: &Op) -> io::Result<()>;
    /// Waits for one at least, and adds all that are over.
    fn reap(&mut self, done: &mut Vec<(u64, i64)>) -> io::Result<()>;
}

/// Their names.
pub(crate) const ALL: [&str; 3] = ["raio", "io_uring", "kernel AIO"];

/// The one of that name, for `depth` requests at once.
pub(crate) fn new(name: &'static str, depth: usize) -> io::Result<Box<dyn Engine>> {
    Ok(match name {
        "raio" => Box::new(Aio::new(name, Box::new(Raio::open()?), depth)?),
        "kernel AIO" => Box::new(Aio::new(name, Box::new(KernelAio), depth)?),
        _ => Box::new(Uring(IoUring::new(depth as u32)?)),
    })
}

struct Aio {
    name: &'static str,
    peer: Box<dyn Peer>,
    ctx: u64,
    requests: Vec<Requests>,
    events: Vec<io_event>,
}

impl Aio {
    fn new(name: &'static str, peer: Box<dyn Peer>, depth: usize) -> io::Result<Self> {
        Ok(Self {
            name,
            ctx: peer.setup(depth as u32)?,
            peer,
            requests: (0..depth).map(|_| Requests::one()).collect(),
            events: vec![io_event::default(); depth],
        })
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        // Nothing can be done about it.
        let _ = self.peer.destroy(self.ctx);
    }
}

impl Engine for Aio {
    fn name(&self) -> &'static str {
        self.name
    }

    fn submit(&mut self, op: &Op) -> io::Result<()> {
        let opcode = if op.write {
            IOCB_CMD_PWRITE
        } else {
            IOCB_CMD_PREAD
        };
        let requests = &mut self.requests[op.slot];
        requests.set(iocb {
            aio_lio_opcode: opcode as _,
            aio_fildes: op.fd as u32,
            aio_buf: op.buf.expose_provenance() as u64,
            aio_nbytes: op.len.into(),
            aio_offset: op.offset as i64,
            aio_data: op.id,
            ..Default::default()
        });
        self.peer.submit(self.ctx, requests, 1).map(drop)
    }

    fn reap(&mut self, done: &mut Vec<(u64, i64)>) -> io::Result<()> {
        let n = self.peer.getevents(self.ctx, 1, &mut self.events, None)?;
        done.extend(self.events[..n].iter().map(|event| (event.data, event.res)));
        Ok(())
    }
}

struct Uring(IoUring);

impl Engine for Uring {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn submit(&mut self, op: &Op) -> io::Result<()> {
        let fd = Fd(op.fd);
        let entry = if op.write {
            let write = opcode::Write::new(fd, op.buf, op.len);
            write.offset(op.offset).build()
        } else {
            opcode::Read::new(fd, op.buf, op.len)
                .offset(op.offset)
                .build()
        };
        // SAFETY: The buffer of a slot is there until all requests have ended.
        unsafe { self.0.submission().push(&entry.user_data(op.id)) }.map_err(io::Error::other)?;
        self.0.submit().map(drop)
    }

    fn reap(&mut self, done: &mut Vec<(u64, i64)>) -> io::Result<()> {
        self.0.submit_and_wait(1)?;
        done.extend(
            self.0
                .completion()
                .map(|entry| (entry.user_data(), entry.result().into())),
        );
        Ok(())
    }
}
