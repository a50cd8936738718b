// SPDX-License-Identifier: GPL-2.0
//! io_uring, set up as fio's `t/io_uring` does: one issuer, task work when it
//! enters, a registered ring. One that threads share has any issuer, and a lock for each
//! of its queues.

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
    ptr,
    sync::{Arc, Mutex},
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

const IORING_ENTER_GETEVENTS: u32 = 1;
const IORING_ENTER_EXT_ARG: u32 = 1 << 3;
const IORING_ENTER_REGISTERED_RING: u32 = 1 << 4;

/// The offset of a request, and where it is in one.
const OFFSET_AT: usize = 8;
const _: () = assert!(size_of::<squeue::Entry>() == 64);

/// A ring, and locks for where threads share it.
pub(crate) struct Ring {
    ring: IoUring,
    submission: Mutex<()>,
    completion: Mutex<()>,
}

/// What a thread has of one: all, or a share.
pub(crate) trait Held: AsRef<Ring> {
    const SHARED: bool;
}

impl Held for Ring {
    const SHARED: bool = false;
}

impl Held for Arc<Ring> {
    const SHARED: bool = true;
}

impl AsRef<Self> for Ring {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// One thread's requests.
pub(crate) struct Uring<R: Held> {
    ring: R,
    /// What it is registered as.
    index: u32,
    /// Of each slot.
    entries: Vec<squeue::Entry>,
    /// Slots.
    queued: Vec<usize>,
}

impl Ring {
    /// One for `depth` requests, of this thread or, if it is `shared`, of any.
    pub(crate) fn new(
        features: Features,
        shared: bool,
        depth: usize,
        fd: RawFd,
        load: &Load,
        buffers: &Buffers,
    ) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_coop_taskrun();
        if !shared {
            builder.setup_single_issuer().setup_defer_taskrun();
        }
        if features.polled {
            builder.setup_iopoll();
        }
        let ring: IoUring = builder.build(depth as u32)?;
        if features.registered {
            let vectors: Vec<libc::iovec> = (0..load.slots)
                .map(|slot| libc::iovec {
                    iov_base: buffers.at(slot).cast(),
                    iov_len: BLOCK,
                })
                .collect();
            // SAFETY: The buffers outlive the ring.
            unsafe { ring.submitter().register_buffers(&vectors) }?;
            ring.submitter().register_files(&[fd])?;
        }
        Ok(Self {
            ring,
            submission: Mutex::new(()),
            completion: Mutex::new(()),
        })
    }
}

impl<R: Held> Uring<R> {
    pub(crate) fn new(
        ring: R,
        features: Features,
        fd: RawFd,
        load: &Load,
        buffers: &Buffers,
    ) -> io::Result<Self> {
        let len = BLOCK as u32;
        let entry = |slot| {
            let (index, at) = (slot as u16, buffers.at(slot));
            match (load.op, features.registered) {
                (Op::Nothing, _) => Nop::new().build(),
                (Op::Read, false) => Read::new(Fd(fd), at, len).build(),
                (Op::Read, true) => ReadFixed::new(Fixed(0), at, len, index).build(),
                (Op::Write, false) => Write::new(Fd(fd), at, len).build(),
                (Op::Write, true) => WriteFixed::new(Fixed(0), at, len, index).build(),
            }
            .user_data(slot as u64)
        };
        Ok(Self {
            index: register(&ring.as_ref().ring)?,
            ring,
            entries: (0..load.slots).map(entry).collect(),
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

impl<R: Held> Drop for Uring<R> {
    fn drop(&mut self) {
        let mut update = [u64::from(self.index), 0];
        // It has been registered.
        let _ = ring_fds(
            &self.ring.as_ref().ring,
            IORING_UNREGISTER_RING_FDS,
            &mut update,
        );
    }
}

/// How to enter a ring, to wait for so many. Who waits for none doesn't ask for events either: nothing
/// is polled for then, nor task work run, as with `t/io_uring`.
fn flags(shared: bool, min: usize) -> u32 {
    IORING_ENTER_REGISTERED_RING
        | match (shared, min) {
            (_, 0) => 0,
            (false, _) => IORING_ENTER_GETEVENTS,
            (true, _) => IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG,
        }
}

impl<R: Held> Engine for Uring<R> {
    fn queue(&mut self, slot: usize, block: u64) {
        let entry = &raw mut self.entries[slot];
        // SAFETY: Eight aligned bytes of it, which are any number.
        unsafe {
            entry
                .byte_add(OFFSET_AT)
                .cast::<u64>()
                .write(block * BLOCK as u64);
        }
        self.queued.push(slot);
    }

    fn enter(&mut self, min: usize) -> io::Result<()> {
        let n = self.queued.len();
        if n > 0 {
            let Ring {
                ring, submission, ..
            } = self.ring.as_ref();
            let _lock = R::SHARED.then(|| submission.lock());
            // SAFETY: Nobody else is at this queue.
            let mut submission = unsafe { ring.submission_shared() };
            for &slot in &self.queued {
                // SAFETY: The buffers outlive the ring.
                unsafe { submission.push(&self.entries[slot]) }
                    .map_err(|_| io::Error::other("the submission queue is full"))?;
            }
            self.queued.clear();
        }
        // A `struct __kernel_timespec`, and a `struct io_uring_getevents_arg` of nothing else.
        let patience = [0u64, 1_000_000];
        let arg = [0, 0, patience.as_ptr().addr() as u64];
        let flags = flags(R::SHARED, min);
        let (arg, len) = match flags & IORING_ENTER_EXT_ARG {
            0 => (ptr::null(), 0),
            _ => (arg.as_ptr(), size_of_val(&arg)),
        };
        // Without a lock: each thread submits as many as it has queued, if not the same ones.
        // SAFETY: The flags say if `arg` is a pointer, and that is to what stays until then.
        let taken = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.index,
                n,
                min,
                flags,
                arg,
                len,
            )
        };
        match usize::try_from(taken) {
            Ok(taken) if taken == n => Ok(()),
            Ok(taken) => Err(io::Error::other(format!(
                "of {n} requests {taken} were taken"
            ))),
            Err(_) => match io::Error::last_os_error() {
                e if R::SHARED && e.raw_os_error() == Some(libc::ETIME) => Ok(()),
                e => Err(e),
            },
        }
    }

    fn reap(&mut self, mut ended: impl FnMut(usize, i64)) {
        let Ring {
            ring, completion, ..
        } = self.ring.as_ref();
        let _lock = R::SHARED.then(|| completion.lock());
        // SAFETY: Nobody else is at this queue.
        for entry in unsafe { ring.completion_shared() } {
            ended(entry.user_data() as usize, entry.result().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_asked_for_by_who_waits() {
        for shared in [false, true] {
            assert_eq!(flags(shared, 0) & IORING_ENTER_GETEVENTS, 0);
            assert_ne!(flags(shared, 1) & IORING_ENTER_GETEVENTS, 0);
        }
    }
}
