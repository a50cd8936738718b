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
    kernel_ext::{
        file_io::{
            self,
            Asking,
            Blocks,
            Direction,
            Transfer,
            UserBuffer, //
        },
        plug::Plug,
        wait, //
    },
    request::{
        Prepared,
        Submitted, //
    },
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// How a file can be asked for transfers of those flags, as far as that is known, while somebody keeps it.
#[derive(Default)]
pub(crate) struct Ways {
    known: Option<(u32, Asking)>,
    /// When that was found: by the next tick of the clock a time may have to be noted.
    tick: usize,
    /// If each needs places at a disk, what says how many.
    blocks: Option<Blocks>,
    /// How many the plug has; and bytes of which no more than one is needed.
    places: u32,
    most: usize,
    /// A write was tried, and would have had to wait.
    refused: bool,
}

/// Would an attempt wait, whatever it is told?
enum Waits {
    Yes,
    No,
    /// It isn't known: there is no plug to put so many places at a disk into.
    Unknown(u32),
}

impl Ways {
    /// Takes what a transfer of so many bytes needs. What was reserved last is first in the plug, and only the first
    /// request there gets the block layer to put more into it; so where there is anything, it is ours. (What a bio
    /// had no use for the block layer puts back.)
    #[inline(always)]
    fn take(&mut self, request: &mut Prepared, plug: Option<&Plug>, pos: i64, len: usize) -> Waits {
        if self.refused && request.kiocb().notes_time() {
            return Waits::Yes;
        }
        let is_one = Blocks::are_one(self.most, pos, len);
        if self.places == 0 || !is_one || !plug.is_some_and(Plug::has_spare) {
            return self.take_more(request, plug.is_some(), pos, len);
        }
        self.places -= 1;
        Waits::No
    }

    #[inline(never)]
    fn take_more(&mut self, request: &mut Prepared, plugged: bool, pos: i64, len: usize) -> Waits {
        let Some(blocks) = self.blocks else {
            let impatient = self
                .known
                .is_some_and(|(_, asking)| asking == Asking::Impatiently);
            return match impatient && request.kiocb().is_cold() {
                true => Waits::Yes,
                false => Waits::No,
            };
        };
        let needs = blocks.requests(pos, len);
        let flags = request.kiocb().flags();
        request.poll_one(len);
        if !plugged {
            return Waits::Unknown(needs);
        }
        self.places = request.kiocb().reserve(needs);
        if self.places < needs {
            self.places = 0;
            return Waits::Yes;
        }
        // Others find those that are left if they are of the same kind, and surely as many.
        self.places = match needs == 1 && request.kiocb().flags() == flags {
            true => self.places - 1,
            false => 0,
        };
        Waits::No
    }
}

/// Reads or writes one buffer, and nothing is said besides: a [plain](crate::request::Parts) request. `ways` is
/// that of the file, whose part may be `verified` already; what goes to a device may be held back in `plug`.
#[inline(always)]
pub(crate) fn plain(
    mut request: Prepared,
    span: abi::Span,
    ways: &mut Ways,
    plug: Option<&Plug>,
    verified: bool,
) -> Result<Submitted> {
    let (pos, dir, addr) = (span.pos, span.dir, span.addr);
    let flags = request.kiocb().flags();
    let tick = wait::tick();
    let asking = match ways.known {
        Some((of, asking)) if of == flags && ways.tick == tick => asking,
        _ => {
            can(&request, dir)?;
            let asking = request.kiocb().asking();
            let takes = asking == Asking::Impatiently && request.kiocb().is_of_disk();
            let blocks = takes.then(|| Blocks::of(request.file()));
            *ways = Ways {
                known: Some((flags, asking)),
                tick,
                blocks,
                places: 0,
                // What is no more than a page is one request.
                most: blocks.map_or(0, |blocks| blocks.bytes().min(PAGE_SIZE)),
                refused: false,
            };
            asking
        }
    };
    let mut len = span.len;
    let place = match request.buffer() {
        Some(buffer) => Some(buffer.place(addr, len)?),
        None => None,
    };
    let buffer = request.plan(dir, pos, asking);
    match place {
        Some(place) => buffer.set_pinned(place, len, dir),
        None => {
            buffer.set(addr, len, dir)?;
            len = buffer.len();
        }
    }
    if !verified {
        file_io::verify_area(request.file(), pos, len, dir)?;
    }
    let waits = match ways.take(&mut request, plug, pos, len) {
        Waits::Unknown(places) => return Ok(request.go_plugged(asking, places)),
        waits => matches!(waits, Waits::Yes),
    };
    let submitted = request.go(asking, waits);
    if dir == Direction::Write {
        ways.refused |= !waits && submitted.waits();
    }
    Ok(submitted)
}

/// Reads into one buffer.
pub(super) fn read(request: Prepared, args: &abi::Request) -> Result<Submitted> {
    one(request, args, Direction::Read)
}

/// Writes one buffer.
pub(super) fn write(request: Prepared, args: &abi::Request) -> Result<Submitted> {
    one(request, args, Direction::Write)
}

/// Reads into several buffers.
pub(super) fn readv(request: Prepared, args: &abi::Request) -> Result<Submitted> {
    several(request, args, Direction::Read)
}

/// Writes several buffers.
pub(super) fn writev(request: Prepared, args: &abi::Request) -> Result<Submitted> {
    several(request, args, Direction::Write)
}

fn one(mut request: Prepared, args: &abi::Request, dir: Direction) -> Result<Submitted> {
    prepare(&mut request, args, dir)?;
    let buffer = match request.buffer() {
        Some(buffer) => UserBuffer::pinned(buffer.place(args.buf, args.len)?, args.len, dir),
        None => UserBuffer::new(args.buf, args.len, dir)?,
    };
    start(request, args, dir, buffer)
}

fn several(mut request: Prepared, args: &abi::Request, dir: Direction) -> Result<Submitted> {
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
    can(request, dir)
}

/// Can its file do that?
fn can(request: &Prepared, dir: Direction) -> Result {
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
) -> Result<Submitted> {
    file_io::verify_area(request.file(), args.offset, buffer.len(), dir)?;
    Ok(request.transfer(buffer, dir, args.offset))
}
