// SPDX-License-Identifier: GPL-2.0

//! Reads and writes of one buffer, or several, at one position. The checks are those that the VFS
//! expects of who calls a file's methods, in the order of kernel AIO. No locks; the file may take its
//! own.
//!
//! All fail with `EBADF` if the file isn't open for that, `EINVAL` if it can't do it or the position
//! is none, `EFAULT`, `EINVAL` and `EPERM` for a priority, `EOPNOTSUPP` for a flag, and what security
//! modules say; those of several buffers with what [`UserBuffer::with_vector`] says too.

use crate::{
    abi,
    kernel_ext::file_io::{
        self,
        Direction,
        Transfer,
        UserBuffer, //
    },
    request::Prepared,
};
use kernel::prelude::*;

/// Reads into one buffer; true if the file goes on with it by itself.
pub(super) fn read(request: Prepared, args: &abi::Request) -> Result<bool> {
    one(request, args, Direction::Read)
}

/// Writes one buffer; true if the file goes on with it by itself.
pub(super) fn write(request: Prepared, args: &abi::Request) -> Result<bool> {
    one(request, args, Direction::Write)
}

/// Reads into several buffers; true if the file goes on with it by itself.
pub(super) fn readv(request: Prepared, args: &abi::Request) -> Result<bool> {
    several(request, args, Direction::Read)
}

/// Writes several buffers; true if the file goes on with it by itself.
pub(super) fn writev(request: Prepared, args: &abi::Request) -> Result<bool> {
    several(request, args, Direction::Write)
}

fn one(mut request: Prepared, args: &abi::Request, dir: Direction) -> Result<bool> {
    prepare(&mut request, args, dir)?;
    let buffer = match request.buffer() {
        Some(buffer) => UserBuffer::pinned(buffer.place(args.buf, args.len)?, args.len, dir),
        None => UserBuffer::new(args.buf, args.len, dir)?,
    };
    start(request, args, dir, buffer)
}

fn several(mut request: Prepared, args: &abi::Request, dir: Direction) -> Result<bool> {
    prepare(&mut request, args, dir)?;
    let nr = u32::try_from(args.len).map_err(|_| EINVAL)?;
    let buffer = UserBuffer::with_vector(args.buf, nr, dir)?;
    start(request, args, dir, buffer)
}

fn prepare(request: &mut Prepared, args: &abi::Request, dir: Direction) -> Result {
    request.prepare(&Transfer {
        dir,
        pos: args.offset,
        rw_flags: args.rw_flags,
        ioprio: args.ioprio,
        eventfd: request.has_eventfd(),
    })?;
    let file = request.file();
    if !file_io::open_for(file, dir) {
        return Err(EBADF);
    }
    if !file_io::has_method(file, dir) {
        return Err(EINVAL);
    }
    Ok(())
}

fn start(
    request: Prepared,
    args: &abi::Request,
    dir: Direction,
    buffer: UserBuffer,
) -> Result<bool> {
    file_io::verify_area(request.file(), args.offset, buffer.len(), dir)?;
    Ok(request.transfer(buffer, dir, args.offset))
}
