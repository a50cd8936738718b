// SPDX-License-Identifier: GPL-2.0
//! A disk that goes while it is read, and comes again with another size.

use crate::{
    check::{self, POISON},
    counters::Count,
    flight::fly,
    report::Checked,
    seed::Random,
    sys::{Pages, PAGE},
    world::World,
};
use raio::sys as abi;
use raio_nullblk::NullBlk;
use rand::Rng;
use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    time::{Duration, Instant},
};

const NAME: &str = "raio-fleeting";
/// Its sizes, in megabytes. Of a read of each number the second has none beyond the half.
const SIZES: [u64; 2] = [16, 8];
const MEGABYTE: i64 = 1 << 20;

/// The disk, for who makes it come and go.
pub struct Disk {
    there: Option<NullBlk>,
    comes: usize,
    turn: Instant,
}

impl Disk {
    /// One that isn't there yet.
    pub fn new() -> Self {
        Self {
            there: None,
            comes: 0,
            turn: Instant::now(),
        }
    }

    /// Has it come or go, if it is time to.
    ///
    /// # Errors
    ///
    /// Those of [`NullBlk::new`].
    pub fn come_or_go(&mut self, random: &mut Random) -> io::Result<()> {
        if Instant::now() < self.turn {
            return Ok(());
        }
        let mut stays = 10..60;
        if self.there.take().is_none() {
            stays = 100..400;
            self.there = Some(NullBlk::new(
                NAME,
                &[
                    ("size", SIZES[self.comes % SIZES.len()]),
                    ("memory_backed", 1),
                    ("submit_queues", 1),
                    ("poll_queues", 1),
                    ("irqmode", 2),
                    ("completion_nsec", 500_000),
                ],
            )?);
            self.comes += 1;
        }
        self.turn = Instant::now() + Duration::from_millis(random.random_range(stays));
        Ok(())
    }
}

/// Reads so many of its pages, if it is there.
///
/// # Errors
///
/// Any is a failure of the test.
pub fn read(world: &World, polled: bool, requests: usize) -> Checked {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_DIRECT);
    let Ok(file) = options.open(format!("/dev/{NAME}")) else {
        return Ok(());
    };
    let pages = Pages::new(requests).map_err(|e| format!("mmap of buffers: {e}"))?;
    let iocbs: Vec<_> = (0..requests)
        .map(|at| {
            pages.fill(at, POISON);
            abi::iocb {
                aio_data: at as u64,
                aio_lio_opcode: abi::IOCB_CMD_PREAD as u16,
                aio_flags: abi::RAIO_IOCB_FIXED_FILE | abi::RAIO_IOCB_FIXED_BUF,
                aio_buf: pages.page(at),
                aio_nbytes: PAGE as u64,
                aio_offset: at as i64 * MEGABYTE,
                ..Default::default()
            }
        })
        .collect();
    // Its page is there, or that says why it isn't.
    let judge = |at, res| {
        match res {
            n if n == PAGE as i64 => {
                check::all(&pages.get(at)[..], 0)?;
                world.counters.count(Count::Fleeting);
            }
            -4095..=0 => world.counters.count(Count::Gone),
            _ => return Err("neither all nor nothing".to_owned()),
        }
        Ok(())
    };
    fly(world, polled, file, &pages, &iocbs, |_| Ok(()), judge)
}
