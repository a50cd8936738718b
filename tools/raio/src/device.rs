// SPDX-License-Identifier: GPL-2.0
//! The open device.

use crate::{calls::Calls, raw, Builder, Context, Query, Stats, DEVICE_PATH};
use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::Arc,
};

/// An open raio device.
///
/// It stays open for as long as one of its contexts is there.
#[derive(Debug, Clone)]
pub struct Device {
    fd: Arc<OwnedFd>,
}

impl Device {
    /// Opens `/dev/raio`.
    ///
    /// # Errors
    ///
    /// As [`open_path`](Self::open_path).
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            fd: Arc::new(raw::open(DEVICE_PATH)?),
        })
    }

    /// Opens the device at `path`.
    ///
    /// # Errors
    ///
    /// Those of open(2), `NotFound` above all if the module isn't loaded;
    /// `Unsupported` if it isn't a raio device or the module is too old.
    pub fn open_path(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = CString::new(path.as_ref().as_os_str().as_bytes())?;
        Ok(Self {
            fd: Arc::new(raw::open(&path)?),
        })
    }

    /// What the module can do.
    ///
    /// # Errors
    ///
    /// What the ioctl returns; none is expected.
    pub fn query(&self) -> io::Result<Query> {
        raw::query(self.fd.as_raw_fd())
    }

    /// The module's counters since it was loaded.
    ///
    /// # Errors
    ///
    /// What the ioctl returns; none is expected.
    pub fn stats(&self) -> io::Result<Stats> {
        raw::stats(self.fd.as_raw_fd())
    }

    /// Makes a context that can have `nr_events` requests in flight at least.
    ///
    /// # Errors
    ///
    /// As [`Builder::setup`].
    pub fn setup(&self, nr_events: u32) -> io::Result<Context> {
        self.builder(nr_events).setup()
    }

    /// Begins to make a context that can have `nr_events` requests in flight at
    /// least.
    pub fn builder(&self, nr_events: u32) -> Builder {
        Builder::new(Calls::Device(Arc::clone(&self.fd)), nr_events)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
