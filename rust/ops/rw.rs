// SPDX-License-Identifier: GPL-2.0

//! Reads and writes of one buffer at one position. The checks are those that the VFS expects of who
//! calls a file's methods, in the order of kernel AIO. No locks; the file may take its own.

use crate::{
    abi,
    kernel_ext::file_io::{
        self,
        Direction,
        UserBuffer, //
    },
    request::Prepared,
};
use kernel::prelude::*;

/// Starts it; true if the file goes on with it by itself.
///
/// `EBADF` if the file isn't open for that, `EINVAL` if it can't do it or the position is none,
/// `EFAULT`, `EOPNOTSUPP` for a flag, and what security modules say.
pub(super) fn start(mut request: Prepared, args: &abi::Request, dir: Direction) -> Result<bool> {
    request.prepare(args.offset, args.rw_flags, dir)?;
    let file = request.file();
    if !file_io::open_for(file, dir) {
        return Err(EBADF);
    }
    if !file_io::has_method(file, dir) {
        return Err(EINVAL);
    }
    let mut buffer = UserBuffer::new(args.buf, args.len, dir)?;
    file_io::verify_area(file, args.offset, buffer.len(), dir)?;
    Ok(request.start(&mut buffer, dir))
}
