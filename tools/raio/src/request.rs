// SPDX-License-Identifier: GPL-2.0
//! What a context is asked to do, and what becomes of it.

use crate::{sys::*, Buffer};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

/// A read or a write that has not been started.
#[derive(Debug)]
pub struct Request<'fd> {
    pub(crate) fd: BorrowedFd<'fd>,
    pub(crate) opcode: u16,
    pub(crate) offset: u64,
    pub(crate) user_data: u64,
    pub(crate) buffer: Buffer,
    pub(crate) eventfd: Option<BorrowedFd<'fd>>,
}

impl<'fd> Request<'fd> {
    fn new(fd: &'fd impl AsFd, opcode: u32, buffer: Buffer, offset: u64, user_data: u64) -> Self {
        Self {
            fd: fd.as_fd(),
            opcode: opcode as u16,
            offset,
            user_data,
            buffer,
            eventfd: None,
        }
    }

    /// Has the eventfd(2) `eventfd` count the completion, when it can be
    /// reaped.
    pub fn counted_by(mut self, eventfd: &'fd impl AsFd) -> Self {
        self.eventfd = Some(eventfd.as_fd());
        self
    }

    /// Reads into the whole of `buffer` from `offset` in the file.
    /// `user_data` comes back with the completion.
    pub fn read(fd: &'fd impl AsFd, buffer: Buffer, offset: u64, user_data: u64) -> Self {
        Self::new(fd, IOCB_CMD_PREAD, buffer, offset, user_data)
    }

    /// Writes the whole of `buffer` to `offset` in the file.
    /// `user_data` comes back with the completion.
    pub fn write(fd: &'fd impl AsFd, buffer: Buffer, offset: u64, user_data: u64) -> Self {
        Self::new(fd, IOCB_CMD_PWRITE, buffer, offset, user_data)
    }

    /// Gives the buffer back.
    pub fn into_buffer(self) -> Buffer {
        self.buffer
    }
}

/// A request that has ended.
#[derive(Debug)]
pub struct Completion {
    /// What was given with the request.
    pub user_data: u64,
    /// The buffer of the request.
    pub buffer: Buffer,
    /// How many bytes were read or written, or why none.
    pub result: io::Result<usize>,
}
