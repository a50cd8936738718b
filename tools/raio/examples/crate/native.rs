// SPDX-License-Identifier: GPL-2.0
//! raio's own calls: batches in the submission array, registered buffers and files,
//! and what becomes of those that are cancelled, replaced or dropped in flight.

use crate::{eventfd, pattern, Test, BLOCK, CONTROL};
use raio::{
    Buffer, Completion, Context, Device, FileNumber, Memory, Mixed, Name, Registered, Request,
    Vectored,
};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, FromRawFd},
        unix::fs::OpenOptionsExt,
    },
    thread,
    time::{Duration, Instant},
};

pub(crate) const TESTS: &[Test] = &[
    ("registered_on_a_disk", || {
        registered("/dev/raio_testb0", libc::O_DIRECT, true)
    }),
    ("registered_on_ext4", || {
        registered("/mnt/ext4/crate", libc::O_DIRECT, false)
    }),
    ("registered_on_tmpfs", || registered("/tmp/crate", 0, false)),
    ("polled", polled),
    ("goes_around", goes_around),
    ("all_operations", all_operations),
    ("refused_requests", refused_requests),
    ("bad_tables", bad_tables),
    ("full_ring", full_ring),
    ("waits", waits),
    ("cancelled_by_name", cancelled_by_name),
    ("cancelled_on_drop", cancelled_on_drop),
    ("dropped_in_flight", dropped_in_flight),
    ("replaced_in_flight", replaced_in_flight),
    ("outlives_its_context", outlives_its_context),
];

/// Fails a test, with what is wrong.
macro_rules! expect {
    ($true:expr, $($what:tt)*) => {
        if !$true {
            return Err(io::Error::other(format!($($what)*)));
        }
    };
}

/// Fails unless that is the error.
fn expect_error<T>(result: io::Result<T>, errno: i32) -> io::Result<()> {
    match result {
        Err(e) if e.raw_os_error() == Some(errno) => Ok(()),
        Err(e) => Err(io::Error::other(format!("{e}, not error {errno}"))),
        Ok(_) => Err(io::Error::other(format!("no error {errno}"))),
    }
}

fn control(command: &str) -> io::Result<()> {
    fs::write(CONTROL, command)
}

fn open(path: &str, flags: i32) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(!path.starts_with("/dev"))
        .custom_flags(flags)
        .open(path)
}

/// Both ends of a pipe, the first to be read.
fn pipe() -> io::Result<(File, File)> {
    let mut fds = [0; 2];
    // SAFETY: there is room for two, which have just been opened then.
    unsafe {
        if libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((File::from_raw_fd(fds[0]), File::from_raw_fd(fds[1])))
    }
}

/// Fails unless so many kilobytes of this process are pinned, or soon are: what isn't used
/// any more goes a little later.
fn expect_pinned(kilobytes: usize) -> io::Result<()> {
    let begin = Instant::now();
    loop {
        let pinned = fs::read_to_string("/proc/self/status")?
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmPin:")?
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            });
        if pinned == Some(kilobytes) {
            return Ok(());
        }
        expect!(
            begin.elapsed() < Duration::from_secs(20),
            "{pinned:?} KiB are pinned"
        );
        thread::sleep(Duration::from_millis(1));
    }
}

/// Starts one request; says its name.
fn start<'fd, B: Memory>(context: &mut Context<B>, request: Request<'fd, B>) -> io::Result<Name> {
    let mut batch = context.batch();
    let name = batch
        .push(request)
        .map_err(|_| io::Error::other("no room for one"))?;
    batch.enter(0, None)?;
    Ok(name)
}

/// The next that ends.
fn next<B: Memory>(context: &mut Context<B>) -> io::Result<Completion<B>> {
    context.wait(1, None)?;
    context
        .pop()
        .ok_or_else(|| io::Error::other("nothing came of the wait"))
}

/// Starts all requests, as room comes, and returns what became of them.
fn run<'fd, B: Memory>(
    context: &mut Context<B>,
    requests: impl IntoIterator<Item = Request<'fd, B>>,
) -> io::Result<Vec<Completion<B>>> {
    let mut requests = requests.into_iter();
    let mut next = requests.next();
    let mut done = Vec::new();
    let mut batch = context.batch();
    while next.is_some() || !batch.is_empty() || batch.in_flight() > 0 {
        while let Some(request) = next.take() {
            match batch.push(request) {
                Ok(_) => next = requests.next(),
                Err(request) => {
                    next = Some(request);
                    break;
                }
            }
        }
        match batch.enter(1, None) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => batch.wait(1, None)?,
            result => drop(result?),
        }
        while let Some(completion) = batch.pop() {
            done.push(completion);
        }
    }
    Ok(done)
}

/// Writes parts of one buffer, and reads them into parts of another.
fn registered(path: &str, flags: i32, direct: bool) -> io::Result<()> {
    const PARTS: u64 = 200;
    const LEN: usize = PARTS as usize * BLOCK;

    control("b0 reset")?;
    let device = Device::open()?;
    let mut context: Context<Registered> = device
        .builder(32)
        .submission(8)
        .buffers(2)
        .files(4)
        .setup()?;
    let file = open(path, flags)?;
    expect!(
        context.set_files(2, &[None, Some(file.as_fd())])? == 2,
        "files weren't registered"
    );
    drop(file);
    let before = device.stats()?.direct;
    let at = |block: u64| (FileNumber(3), block * BLOCK as u64);

    let mut from = context.register(Buffer::zeroed(LEN, BLOCK))?;
    let into = context.register(Buffer::zeroed(LEN, BLOCK))?;
    expect_pinned(2 * LEN / 1024)?;
    for (block, chunk) in (0..).zip(from.chunks_mut(BLOCK)) {
        chunk
            .iter_mut()
            .zip(pattern(block))
            .for_each(|(to, byte)| *to = byte);
    }
    let writes = (0..).zip(from.into_parts(BLOCK)).map(|(block, part)| {
        let (file, offset) = at(block);
        Request::write(file, part, offset, block)
    });
    let done = run(&mut context, writes)?;
    expect!(done.len() as u64 == PARTS, "{} were written", done.len());
    for completion in done {
        expect!(completion.result? == BLOCK, "a short write");
    }

    let reads = (0..).zip(into.into_parts(BLOCK)).map(|(block, part)| {
        let (file, offset) = at(block);
        Request::read(file, part, offset, block)
    });
    let mut done = run(&mut context, reads)?;
    expect!(done.len() as u64 == PARTS, "{} were read", done.len());
    done.sort_by_key(|completion| completion.user_data);
    let mut all = Registered::default();
    for completion in done {
        expect!(completion.result? == BLOCK, "a short read");
        expect!(
            completion
                .buffer
                .iter()
                .copied()
                .eq(pattern(completion.user_data)),
            "other data than was written"
        );
        all = match all.merge(completion.buffer) {
            Ok(all) => all,
            Err((_, first)) => first,
        };
    }
    let direct = u64::from(direct) * 2 * PARTS;
    let moved = device.stats()?.direct - before;
    expect!(moved == direct, "{moved} took the direct path");

    expect_pinned(LEN / 1024)?;
    match all.unregister() {
        Ok(buffer) => expect!(buffer.len() == LEN, "it isn't whole"),
        Err(_) => return Err(io::Error::other("parts are left")),
    }
    expect_pinned(0)?;
    Ok(())
}

/// A device that tells of nothing is asked, and asked for what is dropped in flight.
fn polled() -> io::Result<()> {
    const NR: u32 = 16;

    let device = Device::open()?;
    let disk = open("/dev/nullb0", libc::O_DIRECT)?;
    let before = device.stats()?;
    let mut context: Context = device.builder(2 * NR).polled().setup()?;
    for round in 0..2 {
        let mut batch = context.batch();
        for i in 0..NR.into() {
            let buffer = Buffer::zeroed(BLOCK, BLOCK);
            let pushed = batch.push(Request::read(&disk, buffer, i * BLOCK as u64, i));
            expect!(pushed.is_ok(), "no room for {i}");
        }
        expect!(batch.enter(0, None)? == NR, "not all were started");
        expect!(batch.pop().is_none(), "one has ended by itself");
        if round == 0 {
            expect!(batch.enter(NR, None)? == 0, "more were started");
            let done = std::iter::from_fn(|| batch.pop());
            let whole = done.filter(|done| matches!(done.result, Ok(BLOCK)));
            expect!(whole.count() == NR as usize, "not all have ended");
        }
    }
    drop(context);
    let after = device.stats()?;
    let polled = after.iopolled - before.iopolled;
    expect!(polled == 2 * u64::from(NR), "{polled} were polled for");
    Ok(())
}

/// Several laps of the submission array, by batches that don't divide it.
fn goes_around() -> io::Result<()> {
    let mut context: Context = Device::open()?.builder(64).submission(1).setup()?;
    let mut next = 0;
    let capacity = u64::from(context.batch().room());
    for size in (1..capacity).cycle().take(500) {
        let mut batch = context.batch();
        for i in 0..size {
            let pushed = batch.push(Request::noop(next + i));
            expect!(pushed.is_ok(), "no room for {i} of {size}");
        }
        expect!(
            u64::from(batch.enter(size as u32, None)?) == size,
            "not all were started"
        );
        for _ in 0..size {
            let done = batch.pop().map(|completion| completion.user_data);
            expect!(done == Some(next), "{done:?} instead of {next}");
            next += 1;
        }
        expect!(batch.pop().is_none(), "one too many");
    }
    expect!(next > 100 * capacity, "few laps");
    Ok(())
}

fn all_operations() -> io::Result<()> {
    let mut context: Context<Mixed> = Device::open()?.builder(16).buffers(1).setup()?;
    let file = open("/tmp/crate", libc::O_TRUNC)?;
    let mut counter = eventfd()?;
    let mut one = |request: Request<'_, Mixed>| -> io::Result<(usize, Mixed)> {
        start(&mut context, request)?;
        let completion = next(&mut context)?;
        expect!(completion.user_data == 7, "another request");
        Ok((completion.result?, completion.buffer))
    };

    let parts = |lens: [usize; 3]| -> Vectored {
        let buffers = lens.map(|len| Buffer::zeroed(len, 1));
        Vec::from(buffers).into()
    };
    let mut vectored = parts([1, 4000, 95]);
    let mut bytes = pattern(1);
    for buffer in &mut *vectored {
        buffer.fill_with(|| bytes.next().unwrap_or(0));
    }
    let count = counter.try_clone()?;
    let write = Request::write(&file, vectored.into(), 0, 7).counted_by(&count);
    expect!(one(write)?.0 == 4096, "a short writev");
    let mut counted = [0; 8];
    counter.read_exact(&mut counted)?;
    expect!(u64::from_ne_bytes(counted) == 1, "it isn't counted");
    expect!(one(Request::fsync(&file, 7))?.0 == 0, "fsync");
    expect!(one(Request::fdatasync(&file, 7))?.0 == 0, "fdatasync");
    let (n, read) = one(Request::read(&file, parts([2048, 0, 4096]).into(), 0, 7))?;
    let Mixed::Vectored(read) = read else {
        return Err(io::Error::other("other memory"));
    };
    expect!(n == 4096, "a readv of {n}");
    let all = read.iter().flat_map(|buffer| buffer.iter().copied());
    expect!(all.take(n).eq(pattern(1)), "other data than was written");

    let buffer = Buffer::zeroed(512, 1);
    let read = Request::read(&file, buffer.into(), 0, 7).rw_flags(libc::RWF_HIPRI as u32);
    expect!(one(read)?.0 == 512, "a read");
    let write =
        Request::write(&file, Buffer::from(vec![1]).into(), 0, 7).rw_flags(libc::RWF_APPEND as u32);
    expect!(one(write)?.0 == 1, "a write at the end");
    expect!(file.metadata()?.len() == 4097, "it wasn't at the end");

    let (reading, mut writing) = pipe()?;
    writing.write_all(b"x")?;
    let events = (libc::POLLIN | libc::POLLOUT) as u16;
    let (found, memory) = one(Request::poll(&reading, events, 7))?;
    expect!(found == libc::POLLIN as usize, "poll: {found:#x}");
    expect!(matches!(memory, Mixed::None), "memory from nowhere");
    expect!(one(Request::noop(7))?.0 == 0, "noop");
    Ok(())
}

fn refused_requests() -> io::Result<()> {
    let mut context: Context<Registered> =
        Device::open()?.builder(8).buffers(1).files(2).setup()?;
    let null = open("/dev/null", 0)?;
    context.set_files(0, &[Some(null.as_fd())])?;
    let parts: Vec<_> = context
        .register(Buffer::zeroed(3 * BLOCK, 1))?
        .into_parts(BLOCK)
        .collect();

    let mut batch = context.batch();
    for (number, mut part) in (0..).zip(parts) {
        part.fill(number as u8);
        // There is no number 1 yet, and there will never be one 2.
        let write = Request::write(FileNumber(number), part, 0, number.into());
        expect!(batch.push(write).is_ok(), "no room");
    }
    expect!(batch.enter(3, None)? == 1, "the second wasn't refused");
    expect_error(batch.enter(3, None), libc::EBADF)?;
    expect!(
        (batch.len(), batch.in_flight()) == (2, 1),
        "the rest didn't stay"
    );
    let (number, part) = batch
        .withdraw()
        .ok_or_else(|| io::Error::other("it isn't the first"))?;
    expect!(
        number == 1 && part.iter().all(|&byte| byte == 1),
        "another one"
    );
    expect_error(batch.enter(0, None), libc::EBADF)?;
    drop(batch);
    expect!(next(&mut context)?.result? == BLOCK, "the first");

    // A buffer of another context.
    let mut other: Context<Registered> = Device::open()?.builder(8).buffers(1).setup()?;
    let mut batch = other.batch();
    expect!(
        batch.push(Request::write(&null, part, 0, 0)).is_ok(),
        "no room"
    );
    expect_error(batch.enter(1, None), libc::EFAULT)
}

fn bad_tables() -> io::Result<()> {
    let device = Device::open()?;
    let context: Context<Registered> = device.builder(8).buffers(2).files(2).setup()?;
    let null = open("/dev/null", 0)?;
    let some = Some(null.as_fd());
    expect_error(context.set_files(1, &[some, some]), libc::EINVAL)?;
    expect_error(context.set_files(2, &[None]), libc::EINVAL)?;
    expect!(context.set_files(2, &[])? == 0, "none isn't 0");
    expect_error(context.register(Buffer::default()), libc::EINVAL)?;
    let one = context.register(Buffer::zeroed(1, 1))?;
    let _two = context.register(Buffer::zeroed(1, 1))?;
    expect_error(context.register(Buffer::zeroed(1, 1)), libc::ENOSPC)?;
    drop(one);
    context.register(Buffer::zeroed(1, 1))?;
    let too_many = device.builder(8).buffers(1 << 15).setup::<Registered>();
    expect_error(too_many, libc::EINVAL)?;
    expect_error(
        device.builder(8).flags(1 << 31).setup::<Buffer>(),
        libc::EINVAL,
    )?;
    Ok(())
}

/// More than the ring has room for.
fn full_ring() -> io::Result<()> {
    let mut context: Context = Device::open()?.builder(64).submission(500).setup()?;
    let mut batch = context.batch();
    let mut pushed = 0;
    while batch.push(Request::noop(pushed)).is_ok() {
        pushed += 1;
    }
    let taken = batch.enter(0, None)?;
    expect!((64..500).contains(&taken), "{taken} were taken");
    expect_error(batch.enter(0, None), libc::EAGAIN)?;
    batch.wait(u32::MAX, None)?;
    let mut seen = 0;
    while seen < pushed {
        match batch.pop() {
            Some(completion) => {
                expect!(completion.user_data == seen, "out of order");
                seen += 1;
            }
            None => drop(batch.enter(1, None)?),
        }
    }
    expect!(batch.in_flight() == 0, "some are left");
    Ok(())
}

fn waits() -> io::Result<()> {
    let mut context = Device::open()?.setup(8)?;
    let (reading, mut writing) = pipe()?;
    // For nothing.
    context.wait(1, None)?;
    let time = Duration::from_millis(20);
    let begin = Instant::now();
    let mut batch = context.batch();
    let read = Request::read(&reading, Buffer::zeroed(8, 1), 0, 1);
    expect!(batch.push(read).is_ok(), "no room");
    batch.enter(1, Some(time))?;
    expect!(begin.elapsed() >= time, "it didn't wait");
    expect!(batch.pop().is_none(), "nobody has written");
    batch.wait(1, Some(time))?;
    expect!(begin.elapsed() >= 2 * time, "it didn't wait again");
    let writer = thread::spawn(move || {
        thread::sleep(time);
        writing.write_all(b"hello")
    });
    batch.wait(1, None)?;
    let done = batch.pop().ok_or_else(|| io::Error::other("too early"))?;
    expect!(
        done.result? == 5 && &done.buffer[..5] == b"hello",
        "not what was written"
    );
    writer.join().map_err(|_| io::Error::other("the writer"))?
}

/// A read of an empty pipe, which waits for nobody.
fn cancelled_by_name() -> io::Result<()> {
    let mut context = Device::open()?.setup(8)?;
    let (reading, mut writing) = pipe()?;
    let read = |user_data| Request::read(&reading, Buffer::zeroed(100, 1), 0, user_data);
    let kept = start(&mut context, read(1))?;
    let unwanted = start(&mut context, read(2))?;
    context.cancel(unwanted)?;
    expect_error(context.cancel(unwanted), libc::EINVAL)?;
    let done = next(&mut context)?;
    expect!(
        (done.user_data, done.buffer.len()) == (2, 100),
        "another one"
    );
    expect_error(done.result, libc::ECANCELED)?;
    // Another is in its place now.
    let third = start(&mut context, read(3))?;
    expect_error(context.cancel(unwanted), libc::EINVAL)?;
    context.cancel(third)?;
    expect!(next(&mut context)?.user_data == 3, "another one");
    writing.write_all(b"x")?;
    expect!(next(&mut context)?.result? == 1, "it was cancelled");
    expect_error(context.cancel(kept), libc::EINVAL)?;

    // One that can't be.
    control("c0 reset")?;
    control("c0 mode hang")?;
    control("c0 cancel refuse")?;
    let held = open("/dev/raio_test0", 0)?;
    let name = start(
        &mut context,
        Request::read(&held, Buffer::zeroed(8, 1), 0, 4),
    )?;
    control("c0 wait held 1")?;
    let refused = context.cancel(name);
    control("c0 reset")?;
    expect_error(refused, libc::EAGAIN)?;
    next(&mut context)?;
    Ok(())
}

fn cancelled_on_drop() -> io::Result<()> {
    let mut context = Device::open()?.setup(8)?;
    let (reading, mut writing) = pipe()?;
    let read = |user_data| Request::read(&reading, Buffer::zeroed(100, 1), 0, user_data);
    let kept = start(&mut context, read(1))?;
    let kept = context.cancel_on_drop(kept);
    let unwanted = start(&mut context, read(2))?;
    let unwanted = context.cancel_on_drop(unwanted);
    // By another thread, while this one waits.
    let other = thread::spawn(move || drop(unwanted));
    let done = next(&mut context)?;
    other.join().map_err(|_| io::Error::other("the thread"))?;
    expect!(done.user_data == 2, "another one");
    expect_error(done.result, libc::ECANCELED)?;
    kept.keep();
    writing.write_all(b"x")?;
    expect!(next(&mut context)?.result? == 1, "it was cancelled");
    let last = start(&mut context, read(3))?;
    let last = context.cancel_on_drop(last);
    drop(context);
    drop(last);
    Ok(())
}

/// What can be cancelled is, the others are waited for, and all is freed.
fn dropped_in_flight() -> io::Result<()> {
    control("c0 reset")?;
    control("c0 mode timer 50000000")?;
    let device = Device::open()?;
    let (reading, _writing) = pipe()?;
    let slow = open("/dev/raio_test0", 0)?;
    let before = device.stats()?;
    let begin = Instant::now();
    let mut context: Context<Mixed> = device.builder(16).buffers(1).setup()?;
    let parts = context
        .register(Buffer::zeroed(4 * BLOCK, BLOCK))?
        .into_parts(BLOCK);
    for part in parts {
        start(&mut context, Request::read(&slow, part.into(), 0, 0))?;
    }
    for _ in 0..4 {
        let buffer = Buffer::zeroed(BLOCK, 1);
        start(&mut context, Request::read(&reading, buffer.into(), 0, 1))?;
        let events = libc::POLLIN as u16;
        start(&mut context, Request::poll(&reading, events, 2))?;
    }
    expect!(
        context.in_flight() == 12,
        "{} in flight",
        context.in_flight()
    );
    expect_pinned(4 * BLOCK / 1024)?;
    drop(context);
    expect!(
        begin.elapsed() >= Duration::from_millis(50),
        "it didn't wait"
    );
    expect_pinned(0)?;
    let after = device.stats()?;
    let cancelled = after.cancelled - before.cancelled;
    expect!(cancelled == 8, "{cancelled} were cancelled");
    control("c0 reset")
}

/// Files that are replaced, parts that are dropped, and buffers that come and go under
/// other numbers, while a request is in flight.
fn replaced_in_flight() -> io::Result<()> {
    control("c0 reset")?;
    let held = open("/dev/raio_test0", 0)?;
    let zero = open("/dev/zero", 0)?;
    (&held).write_all(&pattern(5).collect::<Vec<u8>>())?;
    control("c0 mode hang")?;
    let mut context: Context<Registered> =
        Device::open()?.builder(8).buffers(2).files(1).setup()?;
    context.set_files(0, &[Some(held.as_fd())])?;
    let (part, others) = context.register(Buffer::zeroed(4 * BLOCK, 1))?.cut(BLOCK);
    start(&mut context, Request::read(FileNumber(0), part, 0, 1))?;
    control("c0 wait held 1")?;

    context.set_files(0, &[Some(zero.as_fd())])?;
    drop(held);
    drop(others);
    for _ in 0..3 {
        let mut buffer = context.register(Buffer::zeroed(2 * BLOCK, 1))?;
        // The number of the one in flight isn't free.
        expect_error(context.register(Buffer::zeroed(1, 1)), libc::ENOSPC)?;
        buffer.fill(7);
        start(&mut context, Request::read(FileNumber(0), buffer, 0, 2))?;
        let done = next(&mut context)?;
        expect!(
            done.user_data == 2 && done.result? == 2 * BLOCK,
            "another one"
        );
        expect!(
            done.buffer.iter().all(|&byte| byte == 0),
            "it isn't the new file"
        );
    }
    control("c0 complete all")?;
    let done = next(&mut context)?;
    expect!(done.user_data == 1 && done.result? == BLOCK, "another one");
    expect!(
        done.buffer.iter().copied().eq(pattern(5)),
        "it isn't the old file"
    );
    drop(done.buffer);
    expect_pinned(0)?;
    control("c0 reset")
}

fn outlives_its_context() -> io::Result<()> {
    let mut context: Context<Registered> = Device::open()?.builder(8).buffers(1).setup()?;
    let zero = open("/dev/zero", 0)?;
    let mut buffer = context.register(Buffer::zeroed(BLOCK, 1))?;
    buffer.fill(1);
    start(&mut context, Request::read(&zero, buffer, 0, 0))?;
    let mut buffer = next(&mut context)?.buffer;
    drop(context);
    expect!(buffer.iter().all(|&byte| byte == 0), "it wasn't read");
    expect_pinned(0)?;
    buffer.fill(2);
    match buffer.unregister() {
        Ok(buffer) => expect!(buffer.iter().all(|&byte| byte == 2), "other bytes"),
        Err(_) => return Err(io::Error::other("parts are left")),
    }
    Ok(())
}
