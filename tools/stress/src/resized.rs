// SPDX-License-Identifier: GPL-2.0
//! A disk whose size changes while it is read and written: a loop device over a file that anybody cuts or
//! lets grow. Its first pages are always there, the others are as written, or zero since they were cut off.

use crate::{
    check::{self, FIRST_GENERATION, POISON},
    counters::Count,
    flight::fly,
    ops::{Span, BLOCK, DEVICES, LEAST_PAGES, MOST_PAGES, SPAN},
    report::Checked,
    sys::{self, Pages, PAGE},
    world::World,
};
use raio::sys as abi;
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::Path,
};

const NODE: &str = "/dev/loop4711";
const NUMBER: RawFd = 4711;
const BACKING: &str = "/tmp/raio-resized";
/// It has none of the numbers of the others.
const DEVICE: u8 = DEVICES;

const LOOP_SET_FD: u32 = 0x4c00;
const LOOP_CLR_FD: u32 = 0x4c01;
const LOOP_SET_CAPACITY: u32 = 0x4c07;
const LOOP_CTL_ADD: u32 = 0x4c80;

/// The disk, until it is dropped.
pub struct Disk(File);

/// Makes it.
///
/// # Errors
///
/// Those of open(2), write(2) and ioctl(2).
pub fn make() -> io::Result<Disk> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let backing = options.clone().create(true).truncate(true).open(BACKING)?;
    let mut data = [0; LEAST_PAGES as usize * PAGE];
    check::fill(&mut data, DEVICE, 0, FIRST_GENERATION);
    backing.write_all_at(&data, 0)?;
    // Once it is there it stays.
    if !Path::new(NODE).exists() {
        let control = options.open("/dev/loop-control")?;
        sys::command(&control, LOOP_CTL_ADD, NUMBER)?;
    }
    let disk = options.open(NODE)?;
    sys::command(&disk, LOOP_SET_FD, backing.as_raw_fd())?;
    Ok(Disk(disk))
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Nothing can be done about any of it.
        let _ = sys::command(&self.0, LOOP_CLR_FD, 0);
        let _ = fs::remove_file(BACKING);
    }
}

/// Reads and writes it, gives it so many `pages` meanwhile, and if it `grows` all that it may have before.
///
/// # Errors
///
/// Any is a failure of the test.
pub fn transfer(
    world: &World,
    registered: bool,
    grows: bool,
    pages: u8,
    spans: &[Span],
) -> Checked {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let error = |e: io::Error| format!("the disk: {e}");
    let backing = options.open(BACKING).map_err(error)?;
    let file = options
        .custom_flags(libc::O_DIRECT)
        .open(NODE)
        .map_err(error)?;
    let memory = Pages::new(spans.len() * SPAN).map_err(|e| format!("mmap of buffers: {e}"))?;
    let (fildes, flags) = match registered {
        true => (0, abi::RAIO_IOCB_FIXED_FILE | abi::RAIO_IOCB_FIXED_BUF),
        false => (file.as_raw_fd() as u32, 0),
    };
    let iocbs: Vec<_> = spans
        .iter()
        .enumerate()
        .map(|(at, span)| {
            let mut data = [0; PAGE];
            for n in 0..usize::from(span.pages) {
                if span.write {
                    check::fill(&mut data, DEVICE, block(span, n), FIRST_GENERATION);
                } else {
                    data.fill(POISON);
                }
                memory.put(at * SPAN + n, &data);
            }
            let opcode = match span.write {
                true => abi::IOCB_CMD_PWRITE,
                false => abi::IOCB_CMD_PREAD,
            };
            abi::iocb {
                aio_data: at as u64,
                aio_lio_opcode: opcode as u16,
                aio_fildes: fildes,
                aio_flags: flags,
                aio_buf: memory.page(at * SPAN),
                aio_nbytes: (usize::from(span.pages) * PAGE) as u64,
                aio_offset: i64::from(span.page) * PAGE as i64,
                ..Default::default()
            }
        })
        .collect();
    let resize = |disk: &File, pages: u8| {
        backing
            .set_len(u64::from(pages) * PAGE as u64)
            .and_then(|()| sys::command(disk, LOOP_SET_CAPACITY, 0))
            .map_err(error)
    };
    if grows {
        resize(&file, MOST_PAGES)?;
    }
    let meanwhile = |disk: &File| resize(disk, pages);
    fly(
        world,
        // A loop device can't be polled.
        false,
        file,
        &memory,
        &iocbs,
        meanwhile,
        |at, res| judge(world, &memory, at * SPAN, &spans[at], res),
    )
}

/// The first block of one of its pages.
fn block(span: &Span, page: usize) -> u64 {
    (usize::from(span.page) + page) as u64 * (PAGE / BLOCK) as u64
}

/// What has come of a request: how that is counted, and how many pages were moved if it is known. Either all;
/// or, if the end may have been within or before it, as far as the end, or nothing.
fn outcome(span: &Span, res: i64) -> Option<(Count, Option<usize>)> {
    let (page, pages) = (usize::from(span.page), usize::from(span.pages));
    let always = usize::from(LEAST_PAGES);
    let count = match usize::try_from(res).map_err(|_| -res as i32) {
        Ok(n) if n == pages * PAGE => Count::Resized,
        // A write of nothing is an error.
        Ok(n) if n % PAGE != 0 || n > pages * PAGE || n == 0 && span.write => return None,
        Ok(n) if page + n / PAGE >= always => Count::Ends,
        Err(libc::ENOSPC) if span.write && page >= always => Count::Ends,
        // It was there when it was submitted.
        Err(libc::EIO) if page + pages > always => Count::CutOff,
        _ => return None,
    };
    Some((count, usize::try_from(res).ok().map(|n| n / PAGE)))
}

fn judge(world: &World, memory: &Pages, first: usize, span: &Span, res: i64) -> Checked {
    let (count, moved) = outcome(span, res).ok_or_else(|| format!("{span:?}"))?;
    world.counters.count(count);
    let (Some(moved), false) = (moved, span.write) else {
        return Ok(());
    };
    for n in 0..usize::from(span.pages) {
        let bytes = &memory.get(first + n)[..];
        if n >= moved {
            check::all(bytes, POISON)?;
        } else if usize::from(span.page) + n < usize::from(LEAST_PAGES)
            || check::all(bytes, 0).is_err()
        {
            check::verify(bytes, DEVICE, block(span, n), FIRST_GENERATION)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results() {
        const P: i64 = PAGE as i64;
        let seen = |write, page, res| {
            let pages = 4;
            outcome(&Span { write, page, pages }, res).map(|(count, _)| count)
        };
        let (least, none) = (LEAST_PAGES, LEAST_PAGES - 4);
        for write in [false, true] {
            assert!(matches!(seen(write, 0, 4 * P), Some(Count::Resized)));
            assert!(matches!(seen(write, least - 1, P), Some(Count::Ends)));
            assert!(matches!(seen(write, least, 3 * P), Some(Count::Ends)));
            let eio = -i64::from(libc::EIO);
            assert!(matches!(seen(write, least - 3, eio), Some(Count::CutOff)));
            // These are always there.
            assert!(seen(write, none, 3 * P).is_none() && seen(write, none, eio).is_none());
            assert!(seen(write, least - 2, P).is_none());
            assert!(seen(write, least, P + 512).is_none() && seen(write, least, 5 * P).is_none());
            assert!(seen(write, least, -i64::from(libc::EINVAL)).is_none());
        }
        let enospc = -i64::from(libc::ENOSPC);
        assert!(matches!(seen(true, least, enospc), Some(Count::Ends)));
        assert!(matches!(seen(false, least, 0), Some(Count::Ends)));
        assert!(seen(false, least, enospc).is_none() && seen(true, least, 0).is_none());
        assert!(seen(true, least - 1, enospc).is_none() && seen(false, least - 1, 0).is_none());
    }
}
