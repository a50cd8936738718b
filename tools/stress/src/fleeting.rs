// SPDX-License-Identifier: GPL-2.0
//! A disk that goes while it is read, and comes again with another size. What is registered for the
//! reads goes meanwhile, too, and their context now and then.

use crate::{
    check::{self, POISON},
    counters::Count,
    report::Checked,
    seed::Random,
    sys::{Pages, PAGE},
    worker::LONGEST,
    world::World,
};
use raio::{raw, sys as abi};
use raio_nullblk::NullBlk;
use rand::Rng;
use std::{
    fs::OpenOptions,
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
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

fn address<T>(of: *const T) -> u64 {
    of.expose_provenance() as u64
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
    let device = world.home.via(0).number;
    let mut handle = 0u64;
    let mut setup = abi::raio_setup {
        nr_events: requests as u32,
        ctxp: address(&raw mut handle),
        flags: if polled { abi::RAIO_SETUP_IOPOLL } else { 0 },
        nr_buffers: 1,
        nr_files: 1,
        ..Default::default()
    };
    // SAFETY: `handle` may be written to.
    unsafe { raw::setup(device, &mut setup) }.map_err(|e| format!("setup: {e}"))?;
    world.counters.count(Count::Setups);
    let table = |buffer: abi::raio_buffer, file: i32| {
        let mut arg = abi::raio_register {
            ctx: handle,
            nr: 1,
            array: address(&raw const buffer),
            ..Default::default()
        };
        // SAFETY: requests alone use the memory, until it is looked at.
        unsafe { raw::buffers(device, &mut arg) }.and_then(|_| {
            arg.array = address(&raw const file);
            raw::files(device, &mut arg)
        })
    };
    let all = abi::raio_buffer {
        addr: pages.page(0),
        len: pages.len() as u64,
    };
    table(all, file.as_raw_fd()).map_err(|e| format!("registering: {e}"))?;
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
    let mut enter = abi::raio_enter {
        ctx: handle,
        nr: requests as u32,
        iocbs: address(iocbs.as_ptr()),
        ..Default::default()
    };
    // SAFETY: as above.
    let taken = unsafe { raw::enter(device, &mut enter) }.map_err(|e| format!("enter: {e}"))?;
    if taken as usize != requests {
        return Err(format!("{taken} of {requests} were taken"));
    }
    world.counters.add(Count::Taken, requests);
    // All that they are about goes now, but for what they keep.
    drop(file);
    table(abi::raio_buffer::default(), -1).map_err(|e| format!("unregistering: {e}"))?;
    if requests % 4 != 0 {
        judge(world, device, handle, &pages, requests)?;
    }
    let mut arg = abi::raio_destroy {
        ctx: handle,
        ..Default::default()
    };
    // SAFETY: the ring's memory is used in calls only.
    unsafe { raw::destroy(device, &mut arg) }.map_err(|e| format!("destroy: {e}"))?;
    world.counters.count(Count::Destroyed);
    Ok(())
}

/// Each has one event: its page is there, or that says why it isn't.
fn judge(world: &World, device: i32, handle: u64, pages: &Pages, requests: usize) -> Checked {
    let mut events = vec![abi::io_event::default(); requests];
    let time = abi::__kernel_timespec {
        tv_sec: LONGEST.as_secs() as i64,
        ..Default::default()
    };
    let mut arg = abi::raio_getevents {
        ctx: handle,
        min_nr: requests as i64,
        nr: requests as i64,
        events: address(events.as_mut_ptr()),
        timeout: address(&raw const time),
        ..Default::default()
    };
    // SAFETY: there is room for as many events.
    let got = unsafe { raw::getevents(device, &mut arg) }.map_err(|e| format!("getevents: {e}"))?;
    if got as usize != requests {
        return Err(format!("{got} of {requests} events have come"));
    }
    world.counters.add(Count::Events, requests);
    let mut seen = vec![false; requests];
    for event in &events {
        let at = event.data as usize;
        match seen.get_mut(at) {
            Some(seen) if !*seen => *seen = true,
            _ => return Err(format!("not one that there is: {event:?}")),
        }
        match event.res {
            n if n == PAGE as i64 => {
                check::all(&pages.get(at)[..], 0)?;
                world.counters.count(Count::Fleeting);
            }
            -4095..=0 => world.counters.count(Count::Gone),
            _ => return Err(format!("neither all nor nothing: {event:?}")),
        }
    }
    Ok(())
}
