// SPDX-License-Identifier: GPL-2.0
//! The jobs, and what they are done to.

use super::client::{Load, Op, BLOCK};
use crate::disk::{advise, Disk};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Megabytes of a device with a file system on it, and blocks of the file there.
const MEGABYTES: u64 = 512;
const FILE_BLOCKS: u64 = 1 << 14;
/// Of a device without.
const DEVICE_BLOCKS: u64 = 1 << 18;

/// A job: 4 KiB at random.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    /// `null_blk`, a file system on one with memory, or `nothing`.
    pub(crate) target: String,
    pub(crate) write: bool,
    /// No time of access is noted.
    #[serde(default)]
    pub(crate) noatime: bool,
    pub(crate) depth: usize,
    pub(crate) batch: usize,
    pub(crate) threads: usize,
    /// Of all threads.
    pub(crate) contexts: usize,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (target, side) = (&self.target, self.side());
        let noatime = if self.noatime { " noatime" } else { "" };
        write!(f, "{target} {side}{noatime} {}/{}", self.depth, self.batch)?;
        if self.threads > 1 {
            write!(f, " {} on {}", self.threads, self.contexts)?;
        }
        Ok(())
    }
}

impl Job {
    /// What the bars are about.
    pub(crate) fn of(target: &str) -> Self {
        Self {
            target: target.into(),
            write: false,
            noatime: false,
            depth: 32,
            batch: 16,
            threads: 1,
            contexts: 1,
        }
    }

    /// The one that fio's `t/io_uring` does.
    pub(crate) fn noatime() -> Self {
        Self {
            noatime: true,
            ..Self::of("null_blk")
        }
    }

    /// All of them.
    pub(crate) fn all() -> Vec<Self> {
        let raw = Self::of("null_blk");
        let depths = [
            (1, 1),
            (32, 1),
            (32, 16),
            (32, 32),
            (128, 1),
            (128, 16),
            (128, 32),
        ];
        let mut all: Vec<Self> = depths
            .map(|(depth, batch)| Self {
                depth,
                batch,
                ..raw.clone()
            })
            .into();
        all.push(Self::noatime());
        for contexts in [1, 2] {
            all.push(Self {
                threads: 2,
                contexts,
                ..raw.clone()
            });
        }
        all.push(Self::of("nothing"));
        for fs in ["ext4", "xfs"] {
            for write in [false, true] {
                all.push(Self {
                    write,
                    ..Self::of(fs)
                });
            }
        }
        all
    }

    pub(crate) fn load(&self) -> Load {
        Load {
            op: match (self.target.as_str(), self.write) {
                ("nothing", _) => Op::Nothing,
                (_, false) => Op::Read,
                (_, true) => Op::Write,
            },
            blocks: match self.target.as_str() {
                // The first, for those have no place.
                "nothing" => 1,
                _ if self.has_data() => FILE_BLOCKS,
                _ => DEVICE_BLOCKS,
            },
            slots: self.depth * self.threads,
            depth: self.depth,
            batch: self.batch,
        }
    }

    pub(crate) fn side(&self) -> &'static str {
        if self.write {
            "write"
        } else {
            "read"
        }
    }

    /// Does each thread have a context?
    pub(crate) fn is_shared(&self) -> bool {
        self.threads != self.contexts
    }

    /// Does each block say which it is?
    pub(crate) fn has_data(&self) -> bool {
        !matches!(self.target.as_str(), "null_blk" | "nothing")
    }
}

/// A file that is open for a job.
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

/// The devices and files, made when they are first needed.
pub(crate) struct Targets(BTreeMap<String, (Disk, PathBuf)>);

impl Targets {
    pub(crate) fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Opens that of a job, not to be cached.
    pub(crate) fn open(&mut self, job: &Job) -> io::Result<Target> {
        let name = match job.target.as_str() {
            "nothing" => "null_blk",
            other => other,
        };
        if !self.0.contains_key(name) {
            self.0.insert(name.into(), make(name)?);
        }
        let path = self.0[name].1.clone();
        let file = OpenOptions::new()
            .read(true)
            .write(job.write)
            .custom_flags(libc::O_DIRECT | if job.noatime { libc::O_NOATIME } else { 0 })
            .open(&path)?;
        Ok(Target { path, file })
    }
}

fn make(name: &str) -> io::Result<(Disk, PathBuf)> {
    if name == "null_blk" {
        let disk = Disk::fast("raio-null", 1 << 10, false)?;
        let path = disk.node();
        return Ok((disk, path));
    }
    let mut disk = Disk::fast(&format!("raio-{name}"), MEGABYTES, true)?;
    let path = disk.mount(name)?.join("file");
    fill(&path)?;
    Ok((disk, path))
}

/// Writes a file whose blocks say which they are. None of it stays in the cache, as little as with fio: of a file
/// that has pages there, a kernel thread ends each direct write.
fn fill(path: &Path) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for block in 0..FILE_BLOCKS {
        let mut data = [0; BLOCK];
        data[..8].copy_from_slice(&block.to_ne_bytes());
        file.write_all(&data)?;
    }
    let file = file.into_inner()?;
    file.sync_all()?;
    advise(&file, libc::POSIX_FADV_DONTNEED)
}
