// SPDX-License-Identifier: GPL-2.0
//! null_blk devices, and file systems on them. Undone on drop.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

const CONFIG: &str = "/sys/kernel/config/nullb";

/// A device.
pub(crate) struct Disk {
    name: String,
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
        let disk = Self {
            name: name.into(),
            mounted: None,
        };
        fs::create_dir(disk.config())?;
        for (name, value) in settings.iter().chain(&[("power", 1)]) {
            fs::write(disk.config().join(name), value.to_string())?;
        }
        Ok(disk)
    }

    fn config(&self) -> PathBuf {
        Path::new(CONFIG).join(&self.name)
    }

    pub(crate) fn node(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// Makes a file system of that type on it and mounts it.
    pub(crate) fn mount(&mut self, fs: &str) -> io::Result<PathBuf> {
        let dir = Path::new("/tmp").join(&self.name);
        fs::create_dir_all(&dir)?;
        let quiet = if fs == "xfs" { "-qf" } else { "-qF" };
        run(Command::new(format!("mkfs.{fs}"))
            .arg(quiet)
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
        // Nothing can be done about any of it.
        if let Some(dir) = &self.mounted {
            let _ = run(Command::new("umount").arg(dir));
        }
        let _ = fs::write(self.config().join("power"), "0");
        let _ = fs::remove_dir(self.config());
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    match command.status()? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(format!("{command:?}: {status}"))),
    }
}
