// SPDX-License-Identifier: GPL-2.0
//! null_blk devices, and file systems on them. Undone on drop.

use raio_nullblk::NullBlk;
use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
};

/// A device.
pub(crate) struct Disk {
    device: NullBlk,
    mounted: Option<PathBuf>,
}

impl Disk {
    /// One of `megabytes` that takes `ms` for each request, of which it has
    /// `depth` at once, and moves no more than `mbps` megabytes in a second. What
    /// was written can be read if it has `memory`.
    pub(crate) fn slow(
        megabytes: u64,
        ms: u64,
        depth: u32,
        memory: bool,
        mbps: Option<u64>,
    ) -> io::Result<Self> {
        Self::new(
            "raio-bench",
            &[
                ("size", megabytes),
                ("memory_backed", memory.into()),
                ("irqmode", 2),
                ("completion_nsec", ms * 1_000_000),
                ("hw_queue_depth", depth.into()),
                ("submit_queues", 1),
                ("mbps", mbps.unwrap_or(0)),
            ],
        )
    }

    /// One of `megabytes` that takes no time, and can be polled. What was written
    /// can be read if it has `memory`.
    pub(crate) fn fast(name: &str, megabytes: u64, memory: bool) -> io::Result<Self> {
        Self::new(
            name,
            &[
                ("size", megabytes),
                ("memory_backed", memory.into()),
                ("irqmode", 1),
                ("hw_queue_depth", 256),
                ("submit_queues", 1),
                ("poll_queues", 1),
            ],
        )
    }

    fn new(name: &str, settings: &[(&str, u64)]) -> io::Result<Self> {
        Ok(Self {
            device: NullBlk::new(name, settings)?,
            mounted: None,
        })
    }

    pub(crate) fn node(&self) -> PathBuf {
        self.device.node()
    }

    /// Makes a file system of that type on it and mounts it.
    pub(crate) fn mount(&mut self, fs: &str) -> io::Result<PathBuf> {
        let dir = Path::new("/tmp").join(self.device.name());
        fs::create_dir_all(&dir)?;
        let options: &[&str] = match fs {
            "xfs" => &["-qf"],
            // Or a thread of the kernel writes the tables in the middle of a measurement.
            _ => &["-qF", "-E", "lazy_itable_init=0"],
        };
        run(Command::new(format!("mkfs.{fs}"))
            .args(options)
            .arg(self.node()))?;
        run(Command::new("mount")
            .args(["-t", fs])
            .arg(self.node())
            .arg(&dir))?;
        self.mounted = Some(dir.clone());
        Ok(dir)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(dir) = &self.mounted {
            // Nothing can be done about it.
            let _ = run(Command::new("umount").arg(dir));
        }
    }
}

/// Says how all of a file will be used: one of `POSIX_FADV_*`.
pub(crate) fn advise(file: &File, advice: i32) -> io::Result<()> {
    // SAFETY: It has no argument in memory.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, advice) } {
        0 => Ok(()),
        e => Err(io::Error::from_raw_os_error(e)),
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    match command.status()? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(format!("{command:?}: {status}"))),
    }
}
