// SPDX-License-Identifier: GPL-2.0

//! The operations, one room each. The table says which room an opcode belongs to, and what it takes
//! of a request besides the file and what comes back with the event.

mod fsync;
mod noop;
mod poll;
mod rw;

use crate::{
    abi::{
        self,
        must_be_zero,
        Opcode, //
    },
    request::{
        Prepared,
        Submitted, //
    },
    ring::Event, //
};
use kernel::prelude::*;

pub(crate) use rw::{
    plain,
    Ways, //
};

/// Starts a request. An error says that it was refused: there will be no event.
type Start = fn(Prepared, &abi::Request) -> Result<Submitted>;

const BUF: u32 = 1 << 0;
const LEN: u32 = 1 << 1;
const OFFSET: u32 = 1 << 2;
const RW_FLAGS: u32 = 1 << 3;
/// A buffer that is registered.
const FIXED: u32 = 1 << 4;
const TRANSFER: u32 = BUF | LEN | OFFSET | RW_FLAGS;

/// Who starts it, and the fields that it takes.
const fn operation(opcode: Opcode) -> (Start, u32) {
    match opcode {
        Opcode::Pread => (rw::read, TRANSFER | FIXED),
        Opcode::Pwrite => (rw::write, TRANSFER | FIXED),
        Opcode::Preadv => (rw::readv, TRANSFER),
        Opcode::Pwritev => (rw::writev, TRANSFER),
        Opcode::Fsync => (fsync::all, 0),
        Opcode::Fdsync => (fsync::data, 0),
        Opcode::Poll => (poll::start, BUF),
        Opcode::Noop => (noop::start, 0),
    }
}

/// `EINVAL` if a field has something in it that isn't one of those.
fn takes_only(takes: u32, args: &abi::Request) -> Result {
    if takes & TRANSFER != TRANSFER {
        let unless = |field, value| if takes & field != 0 { 0 } else { value };
        must_be_zero(&[
            unless(BUF, args.buf as u64),
            unless(LEN, args.len as u64),
            unless(OFFSET, args.offset as u64),
            unless(RW_FLAGS, args.rw_flags.into()),
        ])?;
    }
    Ok(())
}

/// Starts a request. `EINVAL` if a field has something in it that the operation doesn't take; then
/// as [`Start`].
pub(crate) fn start(request: Prepared, args: &abi::Request) -> Result<Submitted> {
    let (start, takes) = operation(args.opcode);
    takes_only(takes, args)?;
    if takes & FIXED == 0 && request.buffer().is_some() {
        return Err(EINVAL);
    }
    start(request, args)
}

/// The event of a request without a file that does nothing, of which nothing else is said.
#[inline]
pub(crate) fn nothing(data: u64) -> Event {
    noop::event(data, data)
}

/// The event of a request without a file that does nothing. Errors as [`start`].
pub(crate) fn noop(obj: u64, args: &abi::Request) -> Result<Event> {
    takes_only(operation(args.opcode).1, args)?;
    Ok(noop::event(obj, args.data))
}
