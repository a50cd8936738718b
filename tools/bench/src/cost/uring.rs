// SPDX-License-Identifier: GPL-2.0
//! io_uring, set up as fio's `t/io_uring` does: one issuer, task work when it
//! enters, a registered ring.

use super::client::{Buffers, Engine, Load, Op, BLOCK};
use io_uring::{
    opcode::{Nop, Read, ReadFixed, Write, WriteFixed},
    squeue,
    types::{Fd, Fixed},
    IoUring,
};
use std::{
    io,
    os::fd::{AsRawFd, RawFd},
};

/// What is asked of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Features {
    /// Buffers and the file are registered.
    pub(crate) registered: bool,
    /// Completions are polled for.
    pub(crate) polled: bool,
}

const IORING_REGISTER_RING_FDS: u32 = 20;
const IORING_UNREGISTER_RING_FDS: u32 = 21;

/// The offset of a request, and where it is in one.
const OFFSET_AT: usize = 8;
const _: () = assert!(size_of::<squeue::Entry>() == 64);

pub(crate) struct Uring {
    ring: IoUring,
    /// What it is registered as.
    index: u32,
    /// One for each slot, but for its offset.
    templates: Vec<squeue::Entry>,
    queued: Vec<squeue::Entry>,
}

impl Uring {
    pub(crate) fn new(
        features: Features,
        fd: RawFd,
        load: &Load,
        buffers: &Buffers,
    ) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_defer_taskrun();
        if features.polled {
            builder.setup_iopoll();
        }
        let ring: IoUring = builder.build(load.depth as u32)?;
        let at: Vec<*mut u8> = (0..load.slots).map(|slot| buffers.at(slot)).collect();
        if features.registered {
            let vectors: Vec<libc::iovec> = at
                .iter()
                .map(|at| libc::iovec {
                    iov_base: at.cast(),
                    iov_len: BLOCK,
                })
                .collect();
            // SAFETY: The buffers outlive the ring.
            unsafe { ring.submitter().register_buffers(&vectors) }?;
            ring.submitter().register_files(&[fd])?;
        }
        let len = BLOCK as u32;
        let template = |(slot, at): (usize, &*mut u8)| {
            let index = slot as u16;
            match (load.op, features.registered) {
                (Op::Nothing, _) => Nop::new().build(),
                (Op::Read, false) => Read::new(Fd(fd), *at, len).build(),
                (Op::Read, true) => ReadFixed::new(Fixed(0), *at, len, index).build(),
                (Op::Write, false) => Write::new(Fd(fd), *at, len).build(),
                (Op::Write, true) => WriteFixed::new(Fixed(0), *at, len, index).build(),
            }
            .user_data(slot as u64)
        };
        Ok(Self {
            index: register(&ring)?,
            ring,
            templates: at.iter().enumerate().map(template).collect(),
            queued: Vec::with_capacity(load.depth),
        })
    }
}

/// Registers the ring itself for this thread, so that no call has to look for its
/// file. The crate can do so, but only for as long as the ring is taken apart.
fn register(ring: &IoUring) -> io::Result<u32> {
    let mut update = [u64::from(u32::MAX), ring.as_raw_fd() as u64];
    ring_fds(ring, IORING_REGISTER_RING_FDS, &mut update)?;
    Ok(update[0] as u32)
}

fn ring_fds(ring: &IoUring, what: u32, update: &mut [u64; 2]) -> io::Result<()> {
    // SAFETY: A `struct io_uring_rsrc_update`, of which the first word may be written to.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            what,
            update.as_mut_ptr(),
            1,
        )
    };
    match ret {
        1 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        let mut update = [u64::from(self.index), 0];
        // It has been registered.
        let _ = ring_fds(&self.ring, IORING_UNREGISTER_RING_FDS, &mut update);
    }
}

impl Engine for Uring {
    fn queue(&mut self, slot: usize, block: u64) {
        let mut entry = self.templates[slot].clone();
        // SAFETY: Eight aligned bytes of it, which are any number.
        unsafe {
            (&raw mut entry)
                .byte_add(OFFSET_AT)
                .cast::<u64>()
                .write(block * BLOCK as u64);
        }
        self.queued.push(entry);
    }

    fn enter(&mut self, min: usize) -> io::Result<()> {
        const IORING_ENTER_GETEVENTS: u32 = 1;
        const IORING_ENTER_REGISTERED_RING: u32 = 1 << 4;
        // SAFETY: The buffers outlive the ring.
        unsafe { self.ring.submission().push_multiple(&self.queued) }
            .map_err(|_| io::Error::other("the submission queue is full"))?;
        let n = self.queued.len();
        self.queued.clear();
        // SAFETY: No argument is a pointer.
        let taken = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.index,
                n,
                min,
                IORING_ENTER_GETEVENTS | IORING_ENTER_REGISTERED_RING,
                0usize,
                0usize,
            )
        };
        match usize::try_from(taken) {
            Ok(taken) if taken == n => Ok(()),
            Ok(taken) => Err(io::Error::other(format!(
                "of {n} requests {taken} were taken"
            ))),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    fn reap(&mut self, mut ended: impl FnMut(usize, i64)) {
        for entry in self.ring.completion() {
            ended(entry.user_data() as usize, entry.result().into());
        }
    }
}
