// SPDX-License-Identifier: GPL-2.0
//! What a context is asked to do, and what becomes of it.

use crate::{memory::Memory, sys::*, Buffer};
use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

/// What a request is for: an open file.
///
/// Any `&file` is one, and so is a [`FileNumber`].
#[derive(Debug, Clone, Copy)]
pub struct Target<'fd> {
    file: u32,
    flags: u32,
    fd: PhantomData<BorrowedFd<'fd>>,
}

impl<'fd, T: AsFd + ?Sized> From<&'fd T> for Target<'fd> {
    #[inline]
    fn from(file: &'fd T) -> Self {
        Self {
            file: file.as_fd().as_raw_fd() as u32,
            flags: 0,
            fd: PhantomData,
        }
    }
}

/// The number of a registered file, see
/// [`Context::set_files`](crate::Context::set_files). If there is none by
/// then, the request is refused with `EBADF`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileNumber(pub u32);

impl From<FileNumber> for Target<'_> {
    #[inline]
    fn from(number: FileNumber) -> Self {
        Self {
            file: number.0,
            flags: RAIO_IOCB_FIXED_FILE,
            fd: PhantomData,
        }
    }
}

/// What has not been started yet.
///
/// Each has `user_data`, which comes back with the completion and means
/// nothing here. What is [registered](crate::Registered) can only be used in a
/// [`Batch`](crate::Batch); [`Context::submit`](crate::Context::submit) gets
/// `EINVAL` for it.
#[derive(Debug)]
pub struct Request<'fd, B = Buffer> {
    opcode: u16,
    priority: i16,
    target: Target<'fd>,
    flags: u32,
    rw_flags: u32,
    eventfd: u32,
    /// Where in the file, or what it is polled for.
    argument: u64,
    pub(crate) user_data: u64,
    pub(crate) memory: B,
}

impl<'fd, B: Memory> Request<'fd, B> {
    #[inline]
    fn new(
        opcode: u32,
        target: impl Into<Target<'fd>>,
        memory: B,
        argument: u64,
        user_data: u64,
    ) -> Self {
        Self {
            opcode: opcode as u16,
            priority: 0,
            target: target.into(),
            flags: 0,
            rw_flags: 0,
            eventfd: 0,
            argument,
            user_data,
            memory,
        }
    }

    /// Reads into the whole of `buffer` from byte `offset` of the file. The
    /// result is how many bytes were read, fewer at the end of the file.
    #[inline]
    pub fn read(file: impl Into<Target<'fd>>, buffer: B, offset: u64, user_data: u64) -> Self {
        Self::new(IOCB_CMD_PREAD, file, buffer, offset, user_data)
    }

    /// Writes the whole of `buffer` to byte `offset` of the file. The result is
    /// how many bytes were written.
    #[inline]
    pub fn write(file: impl Into<Target<'fd>>, buffer: B, offset: u64, user_data: u64) -> Self {
        Self::new(IOCB_CMD_PWRITE, file, buffer, offset, user_data)
    }

    /// As fsync(2), of what was written before. The result is 0.
    #[inline]
    pub fn fsync(file: impl Into<Target<'fd>>, user_data: u64) -> Self {
        Self::new(IOCB_CMD_FSYNC, file, B::default(), 0, user_data)
    }

    /// As fdatasync(2), of what was written before. The result is 0.
    #[inline]
    pub fn fdatasync(file: impl Into<Target<'fd>>, user_data: u64) -> Self {
        Self::new(IOCB_CMD_FDSYNC, file, B::default(), 0, user_data)
    }

    /// Waits until one of `events` of poll(2), as `libc::POLLIN`, is there. The
    /// result is those that are.
    #[inline]
    pub fn poll(file: impl Into<Target<'fd>>, events: u16, user_data: u64) -> Self {
        Self::new(IOCB_CMD_POLL, file, B::default(), events.into(), user_data)
    }

    /// Does nothing, at once. The result is 0. Only a [`Batch`](crate::Batch)
    /// takes it.
    #[inline]
    pub fn noop(user_data: u64) -> Self {
        let nowhere = Target {
            file: u32::MAX,
            flags: 0,
            fd: PhantomData,
        };
        Self::new(IOCB_CMD_NOOP, nowhere, B::default(), 0, user_data)
    }

    /// Has the eventfd(2) `eventfd` count the completion, when it can be
    /// reaped.
    #[inline]
    pub fn counted_by(mut self, eventfd: &'fd impl AsFd) -> Self {
        self.flags |= IOCB_FLAG_RESFD;
        self.eventfd = eventfd.as_fd().as_raw_fd() as u32;
        self
    }

    /// Gives a read or write the `RWF_` flags of preadv2(2), as
    /// `libc::RWF_NOWAIT`.
    #[inline]
    pub fn rw_flags(mut self, flags: u32) -> Self {
        self.rw_flags = flags;
        self
    }

    /// Gives a read or write an I/O priority, as ioprio_set(2) has it.
    #[inline]
    pub fn priority(mut self, priority: u16) -> Self {
        self.flags |= IOCB_FLAG_IOPRIO;
        self.priority = priority as i16;
        self
    }

    /// Gives the buffer back.
    pub fn into_buffer(self) -> B {
        self.memory
    }

    /// The same for the kernel, under `name`. It is true for as long as the
    /// memory is neither used nor dropped; it may be moved.
    #[inline]
    pub(crate) fn iocb(&mut self, name: u64) -> iocb {
        let mut iocb = iocb {
            aio_data: name,
            aio_rw_flags: self.rw_flags as i32,
            aio_lio_opcode: self.opcode,
            aio_reqprio: self.priority,
            aio_fildes: self.target.file,
            aio_flags: self.flags | self.target.flags,
            aio_resfd: self.eventfd,
            ..Default::default()
        };
        match self.opcode.into() {
            IOCB_CMD_PREAD | IOCB_CMD_PWRITE => {
                let place = self.memory.place();
                iocb.aio_buf = place.start;
                iocb.aio_nbytes = place.len;
                iocb.aio_offset = self.argument as i64;
                if let Some(number) = place.number {
                    iocb.aio_reserved2 = number.into();
                    iocb.aio_flags |= RAIO_IOCB_FIXED_BUF;
                }
                if place.vectored {
                    iocb.aio_lio_opcode += (IOCB_CMD_PREADV - IOCB_CMD_PREAD) as u16;
                }
            }
            IOCB_CMD_POLL => iocb.aio_buf = self.argument,
            _ => (),
        }
        iocb
    }
}

/// A request that has ended.
#[derive(Debug)]
pub struct Completion<B = Buffer> {
    /// What was given with the request.
    pub user_data: u64,
    /// The buffer of the request, an empty one if it had none.
    pub buffer: B,
    /// What came of it, as the request says, or why nothing did.
    pub result: io::Result<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Vectored;
    use std::fs::File;

    #[test]
    fn only_what_an_operation_takes() {
        let file = File::open("/dev/null").unwrap();
        let fd = file.as_raw_fd() as u32;
        let bare = |opcode, fildes| iocb {
            aio_data: 7,
            aio_lio_opcode: opcode as u16,
            aio_fildes: fildes,
            ..Default::default()
        };
        let same = |mut request: Request<'_>, iocb| {
            assert_eq!(format!("{:?}", request.iocb(7)), format!("{iocb:?}"));
        };
        same(Request::fsync(&file, 1), bare(IOCB_CMD_FSYNC, fd));
        same(Request::fdatasync(&file, 1), bare(IOCB_CMD_FDSYNC, fd));
        same(Request::noop(1), bare(IOCB_CMD_NOOP, u32::MAX));
        let mut poll = bare(IOCB_CMD_POLL, fd);
        poll.aio_buf = 5;
        same(Request::poll(&file, 5, 1), poll);
    }

    #[test]
    fn reads_and_writes() {
        let file = File::open("/dev/null").unwrap();
        let buffer = Buffer::zeroed(100, 1);
        let start = buffer.as_ptr() as usize as u64;
        let mut request = Request::write(&file, buffer, 1 << 40, 1)
            .counted_by(&file)
            .rw_flags(2)
            .priority(0xe003);
        let iocb = request.iocb(9);
        assert_eq!(
            (iocb.aio_buf, iocb.aio_nbytes, iocb.aio_offset),
            (start, 100, 1 << 40)
        );
        assert_eq!(u32::from(iocb.aio_lio_opcode), IOCB_CMD_PWRITE);
        assert_eq!(iocb.aio_flags, IOCB_FLAG_RESFD | IOCB_FLAG_IOPRIO);
        assert_eq!(iocb.aio_resfd, file.as_raw_fd() as u32);
        assert_eq!((iocb.aio_rw_flags, iocb.aio_reqprio as u16), (2, 0xe003));

        let mut request = Request::read(FileNumber(3), Buffer::default(), 0, 1);
        let iocb = request.iocb(9);
        assert_eq!((iocb.aio_fildes, iocb.aio_flags), (3, RAIO_IOCB_FIXED_FILE));
        assert_eq!(iocb.aio_nbytes, 0);

        let buffers = Vectored::from(vec![Buffer::zeroed(3, 1), Buffer::zeroed(4, 1)]);
        let mut request = Request::read(&file, buffers, 0, 1);
        let iocb = request.iocb(9);
        assert_eq!(u32::from(iocb.aio_lio_opcode), IOCB_CMD_PREADV);
        assert_eq!(iocb.aio_nbytes, 2);
        // SAFETY: the vector is there, and has two.
        let second = unsafe { *(iocb.aio_buf as usize as *const [usize; 2]).add(1) };
        let buffers = request.into_buffer();
        assert_eq!(second, [buffers[1].as_ptr() as usize, 4]);
    }
}
