// SPDX-License-Identifier: GPL-2.0

//! The operations, one room each. The table says which room an opcode belongs to.

mod rw;

use crate::{
    abi::{
        self,
        Opcode, //
    },
    kernel_ext::file_io::Direction,
    request::Prepared, //
};
use kernel::prelude::*;

/// Starts a request; true if the file goes on with it by itself. An error says that it was refused:
/// there will be no event.
pub(crate) fn start(request: Prepared, args: &abi::Request) -> Result<bool> {
    match args.opcode {
        Opcode::Pread => rw::start(request, args, Direction::Read),
        Opcode::Pwrite => rw::start(request, args, Direction::Write),
    }
}
