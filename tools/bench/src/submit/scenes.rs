// SPDX-License-Identifier: GPL-2.0
//! What kernel AIO's submit waits for.

use super::{
    be_ordinary, drive,
    engine::{Engine, Op},
    Times,
};
use crate::disk::{advise, Disk};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsRawFd, FromRawFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

const BLOCK: u64 = 4096;
/// How much may be dirty, in all.
const DIRTY: u64 = 4 << 20;
/// How much of that is written in a second, in megabytes.
const MBPS: u64 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scene {
    /// Buffered reads of what isn't cached
    ColdReads,
    /// Buffered writes while there is too much that is dirty
    DirtyWrites,
    /// Direct writes that make a file longer, while another thread calls
    /// fdatasync: on ext4
    ExtendExt4,
    /// The same on xfs
    ExtendXfs,
    /// Direct reads of a disk that takes two at once
    FullQueue,
    /// Reads of a pipe in which there is nothing yet
    EmptyPipe,
}

impl Scene {
    pub(crate) const ALL: [Self; 6] = [
        Self::ColdReads,
        Self::DirtyWrites,
        Self::ExtendExt4,
        Self::ExtendXfs,
        Self::FullQueue,
        Self::EmptyPipe,
    ];

    /// Requests in flight.
    pub(crate) fn depth(self) -> usize {
        match self {
            Self::FullQueue => 256,
            _ => 32,
        }
    }

    /// With a device that takes `ms` for what it does, `depth` requests in flight,
    /// and `n` in all, or fewer if that would take minutes.
    pub(super) fn run(
        self,
        engine: &mut dyn Engine,
        ms: u64,
        depth: usize,
        n: usize,
    ) -> io::Result<Times> {
        // Where a request waits by itself, it does so for a latency or two.
        let patient = (10_000 / ms).max(100) as usize;
        let alone = engine.name() == "kernel AIO";
        let n = match self {
            Self::ColdReads if !alone => n,
            // It has a limit to write against, whoever waits.
            Self::DirtyWrites => n,
            Self::FullQueue => n.min(patient * 2),
            _ => n.min(patient),
        };
        let mut buffers = Buffers::new(depth);
        match self {
            Self::ColdReads => {
                let disk = Disk::slow(((n as u64 * 2 * BLOCK) >> 20) + 64, ms, 1024, false, None)?;
                let file = File::open(disk.node())?;
                advise(&file, libc::POSIX_FADV_RANDOM)?;
                advise(&file, libc::POSIX_FADV_DONTNEED)?;
                // Each second block, so that none is read with another.
                drive(engine, n, depth, |i| {
                    buffers.op(file.as_raw_fd(), false, i, 2 * i as u64 * BLOCK)
                })
            }
            Self::FullQueue => {
                let disk = Disk::slow(64, ms, 2, false, None)?;
                let file = direct(&disk.node(), false)?;
                drive(engine, n, depth, |i| {
                    buffers.op(file.as_raw_fd(), false, i, i as u64 % 16_384 * BLOCK)
                })
            }
            Self::DirtyWrites => {
                // Slower than what is written.
                let mut disk = Disk::slow(512, ms, 64, true, Some(MBPS))?;
                let file = File::create(disk.mount("ext4")?.join("file"))?;
                let _limit = Limit::new()?;
                drive(engine, n, depth, |i| {
                    buffers.op(file.as_raw_fd(), true, i, i as u64 * BLOCK)
                })
            }
            Self::ExtendExt4 | Self::ExtendXfs => {
                let fs = if self == Self::ExtendXfs {
                    "xfs"
                } else {
                    "ext4"
                };
                let mut disk = Disk::slow(512, ms, 64, true, None)?;
                let file = direct(&disk.mount(fs)?.join("file"), true)?;
                let over = AtomicBool::new(false);
                thread::scope(|scope| {
                    let sync = scope.spawn(|| -> io::Result<()> {
                        be_ordinary()?;
                        while !over.load(Ordering::Relaxed) {
                            file.sync_data()?;
                        }
                        Ok(())
                    });
                    let times = drive(engine, n, depth, |i| {
                        buffers.op(file.as_raw_fd(), true, i, i as u64 * BLOCK)
                    });
                    over.store(true, Ordering::Relaxed);
                    sync.join()
                        .map_err(|_| io::Error::other("the thread that syncs has panicked"))??;
                    times
                })
            }
            Self::EmptyPipe => {
                let (reader, mut writer) = pipe()?;
                // One at a time: the pipe decides who gets what.
                thread::scope(|scope| {
                    scope.spawn(move || -> io::Result<()> {
                        be_ordinary()?;
                        for _ in 0..n {
                            thread::sleep(Duration::from_millis(ms));
                            writer.write_all(&[0; BLOCK as usize])?;
                        }
                        Ok(())
                    });
                    let times = drive(engine, n, depth, |i| {
                        buffers.op(reader.as_raw_fd(), false, i, 0)
                    });
                    // After an error the writer would wait for it.
                    drop(reader);
                    times
                })
            }
        }
    }
}

/// To be read from, to be written to.
fn pipe() -> io::Result<(File, File)> {
    let mut fds = [0; 2];
    // SAFETY: It writes two numbers.
    if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: They were opened just now.
    Ok(unsafe { (File::from_raw_fd(fds[0]), File::from_raw_fd(fds[1])) })
}

/// Memory of the requests in flight.
struct Buffers(Vec<u8>, usize);

impl Buffers {
    fn new(depth: usize) -> Self {
        Self(vec![0; (depth + 1) * BLOCK as usize], depth)
    }

    /// A request of a block. Any of the buffers will do: what is in it is not
    /// looked at.
    fn op(&mut self, fd: RawFd, write: bool, i: usize, offset: u64) -> Op {
        let begin = self.0.as_ptr().align_offset(BLOCK as usize);
        let at = begin + i % self.1 * BLOCK as usize;
        Op {
            fd,
            write,
            buf: self.0[at..].as_mut_ptr(),
            len: BLOCK as u32,
            offset,
            id: 0,
            slot: 0,
        }
    }
}

fn direct(path: &std::path::Path, write: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .create(write)
        .custom_flags(libc::O_DIRECT)
        .open(path)
}

/// A limit to what may be dirty, until it is dropped.
struct Limit;

impl Limit {
    fn new() -> io::Result<Self> {
        fs::write("/proc/sys/vm/dirty_bytes", DIRTY.to_string())?;
        fs::write(
            "/proc/sys/vm/dirty_background_bytes",
            (DIRTY / 2).to_string(),
        )?;
        Ok(Self)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // As the kernel has them.
        let _ = fs::write("/proc/sys/vm/dirty_ratio", "20");
        let _ = fs::write("/proc/sys/vm/dirty_background_ratio", "10");
    }
}
