// SPDX-License-Identifier: GPL-2.0
//! null_blk devices, made through configfs by root.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

const CONFIG: &str = "/sys/kernel/config/nullb";

/// A device, until it is dropped. Whoever has it open then keeps it.
#[derive(Debug)]
pub struct NullBlk {
    name: String,
}

impl NullBlk {
    /// Makes one of that name, with `settings` as `Documentation/block/null_blk.rst` of the kernel has
    /// them: `size` is in megabytes.
    ///
    /// # Errors
    ///
    /// Those of configfs: `EEXIST` if there is one, `ENOENT` without null_blk or if there is no such
    /// setting, `EINVAL` for a value.
    pub fn new(name: &str, settings: &[(&str, u64)]) -> io::Result<Self> {
        fs::create_dir(Path::new(CONFIG).join(name))?;
        // From here on it is ours, and goes if the rest fails.
        let disk = Self { name: name.into() };
        for (name, value) in settings.iter().chain(&[("power", 1)]) {
            fs::write(disk.config().join(name), value.to_string())?;
        }
        Ok(disk)
    }

    fn config(&self) -> PathBuf {
        Path::new(CONFIG).join(&self.name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Has what is in flight fail after that time, not 5 seconds.
    ///
    /// # Errors
    ///
    /// Those of sysfs.
    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        let path = Path::new("/sys/block")
            .join(&self.name)
            .join("queue/io_timeout");
        fs::write(path, timeout.as_millis().to_string())
    }

    /// Where it can be opened.
    pub fn node(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }
}

impl Drop for NullBlk {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Has the one of that name go, if there is one.
pub fn remove(name: &str) {
    let config = Path::new(CONFIG).join(name);
    // Nothing can be done about any of it.
    let _ = fs::write(config.join("power"), "0");
    let _ = fs::remove_dir(config);
}
