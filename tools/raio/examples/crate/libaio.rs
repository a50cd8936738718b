// SPDX-License-Identifier: GPL-2.0
//! The calls that libaio has: data is written and read back through a context, with
//! more requests than fit at once, and compared; then buffers are dropped in flight.

use crate::{eventfd, pattern, Test, BLOCK, CONTROL};
use raio::{Buffer, Completion, Context, Device, Request};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

const BLOCKS: u64 = 500;

pub(crate) const TESTS: &[Test] = &[
    ("write_and_read", write_and_read),
    (
        "refused_requests_keep_their_buffers",
        refused_requests_keep_their_buffers,
    ),
    ("dropped_with_events_unread", dropped_with_events_unread),
    ("waiting", waiting),
];

fn file() -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open("/tmp/crate-test")
}

/// Starts all requests, as room comes, and returns what became of them.
fn run(context: &mut Context, mut requests: Vec<Request<'_>>) -> io::Result<Vec<Completion>> {
    let mut done = Vec::new();
    while !requests.is_empty() || context.in_flight() > 0 {
        match context.submit(&mut requests) {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
            _ => context.getevents(1, 64, None, &mut done)?,
        };
    }
    Ok(done)
}

fn write_and_read() -> io::Result<()> {
    let device = Device::open()?;
    let before = device.stats()?.submitted;
    let mut context = device.setup(16)?;
    let file = file()?;

    let writes = (0..BLOCKS).map(|block| {
        let buffer = pattern(block).collect::<Vec<u8>>().into();
        Request::write(&file, buffer, block * BLOCK as u64, block)
    });
    let written = run(&mut context, writes.collect())?;
    if written.len() as u64 != BLOCKS {
        return Err(io::Error::other("events were lost or doubled"));
    }
    for completion in written {
        if completion.result? != BLOCK {
            return Err(io::Error::other("a short write"));
        }
    }

    let reads = (0..BLOCKS).map(|block| {
        Request::read(
            &file,
            Buffer::zeroed(BLOCK, 512),
            block * BLOCK as u64,
            block,
        )
    });
    for completion in run(&mut context, reads.collect())? {
        if completion.result? != BLOCK {
            return Err(io::Error::other("a short read"));
        }
        if !completion
            .buffer
            .iter()
            .copied()
            .eq(pattern(completion.user_data))
        {
            return Err(io::Error::other("other data than was written"));
        }
    }

    if device.stats()?.submitted - before < 2 * BLOCKS {
        return Err(io::Error::other("the module didn't count the requests"));
    }
    Ok(())
}

fn refused_requests_keep_their_buffers() -> io::Result<()> {
    let mut context = Device::open()?.setup(4)?;
    let read_only = File::open("/dev/zero")?;
    let mut requests = vec![Request::write(&read_only, vec![7; 100].into(), 0, 0)];
    match context.submit(&mut requests) {
        Err(e) if e.raw_os_error() == Some(9) => (),
        other => return Err(io::Error::other(format!("not EBADF: {other:?}"))),
    }
    let buffer = requests.pop().map(Request::into_buffer);
    if buffer.is_none_or(|buffer| buffer.iter().any(|byte| *byte != 7)) {
        return Err(io::Error::other("the buffer is gone"));
    }
    Ok(())
}

fn dropped_with_events_unread() -> io::Result<()> {
    let device = Device::open()?;
    let file = file()?;
    for _ in 0..50 {
        let mut context = device.setup(64)?;
        let mut requests: Vec<_> = (0..64)
            .map(|i| Request::write(&file, vec![i as u8; BLOCK].into(), i * BLOCK as u64, i))
            .collect();
        context.submit(&mut requests)?;
    }
    Ok(())
}

/// An eventfd that counts, a device that can be polled, and a wait that is
/// content with less.
fn waiting() -> io::Result<()> {
    let device = Device::open()?;
    let mut context = device.setup(16)?;
    let file = file()?;
    let mut eventfd = eventfd()?;
    let mut poll = libc::pollfd {
        fd: device.as_fd().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one descriptor, and no time.
    if unsafe { libc::poll(&mut poll, 1, 0) } != 0 {
        return Err(io::Error::other("readable without an event"));
    }

    let counter = eventfd.try_clone()?;
    let write = |n| Request::write(&file, vec![n as u8; BLOCK].into(), 0, n);
    let mut requests = (0..3).map(|n| write(n).counted_by(&counter)).collect();
    context.submit(&mut requests)?;
    let mut count = [0; 8];
    eventfd.read_exact(&mut count)?;
    // SAFETY: one descriptor.
    if unsafe { libc::poll(&mut poll, 1, -1) } != 1 || count == [0; 8] {
        return Err(io::Error::other("an event that nobody is told of"));
    }

    // Of four, one is held by the selftests' device.
    fs::write(CONTROL, "c0 mode hang")?;
    let held = File::open("/dev/raio_test0")?;
    context.submit(&mut vec![Request::read(
        &held,
        Buffer::zeroed(512, 512),
        0,
        3,
    )])?;
    let mut done = Vec::new();
    let soon = Duration::from_millis(1);
    let n = context.getevents_min_wait(4, 4, soon, None, &mut done)?;
    fs::write(CONTROL, "c0 reset")?;
    if n != 3 || context.getevents(1, 1, None, &mut done)? != 1 {
        return Err(io::Error::other(format!(
            "{n} of four, then {}",
            done.len()
        )));
    }
    Ok(())
}
