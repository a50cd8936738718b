// SPDX-License-Identifier: GPL-2.0

//! Registering buffers and files with a context. No lock is held but that of the table.

use super::User;
use crate::{
    abi,
    kernel_ext::{
        file_io,
        locked::Folios,
        pinned::PinnedBuffer,
        user, //
    },
    registered::{
        Table,
        Use, //
    }, //
};
use core::mem::size_of;
use kernel::{
    fs::File,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    },
};

/// A use of a buffer that is registered.
pub(crate) type Buffer = Use<PinnedBuffer>;
/// The same of a file.
pub(crate) type RegisteredFile = Use<ARef<File>>;

/// What is registered with a context. It may outlive that, for who waits for its end.
pub(super) struct Registrations {
    pub(super) buffers: Table<PinnedBuffer>,
    pub(super) folios: Arc<Folios>,
    pub(super) files: Table<ARef<File>>,
}

impl Registrations {
    /// Most bytes that tables of such sizes take, but for buffers and files themselves.
    pub(super) fn bytes(buffers: u32, files: u32) -> usize {
        Table::<PinnedBuffer>::bytes(buffers).saturating_add(Table::<ARef<File>>::bytes(files))
    }

    /// Lets go of all of it.
    ///
    /// # Safety
    ///
    /// No request of the context may be left, nor a call on it.
    pub(super) unsafe fn clear(&self) {
        // SAFETY: So nobody uses any of it.
        unsafe {
            self.buffers.clear();
            self.files.clear();
        }
    }
}

impl User {
    /// Replaces `nr` buffers, from number `first` on, by what the array at `addr` says. Returns how many,
    /// or the error of the first: `EFAULT`, and those of [`PinnedBuffer::new`] and [`Table::replace`].
    pub(crate) fn register_buffers(&self, first: u32, nr: u32, addr: usize) -> Result<u32> {
        replace(
            &self.registered.buffers,
            first,
            nr,
            addr,
            |buffer: abi::Buffer| {
                let place = buffer.decode()?;
                place
                    .map(|(addr, len)| PinnedBuffer::new(addr, len, &self.registered.folios))
                    .transpose()
            },
        )
    }

    /// The same of files, which the array has descriptors of. `EBADF` for one that isn't open.
    pub(crate) fn register_files(&self, first: u32, nr: u32, addr: usize) -> Result<u32> {
        replace(
            &self.registered.files,
            first,
            nr,
            addr,
            |fd: i32| match fd {
                -1 => Ok(None),
                fd => file_io::get(fd as u32).ok_or(EBADF).map(Some),
            },
        )
    }
}

fn replace<T: Send + Sync, U: kernel::transmute::FromBytes>(
    table: &Table<T>,
    first: u32,
    nr: u32,
    addr: usize,
    what: impl Fn(U) -> Result<Option<T>>,
) -> Result<u32> {
    let last = first.checked_add(nr).ok_or(EINVAL)?;
    if last > table.size() {
        return Err(EINVAL);
    }
    let mut all = 0..nr;
    table.replace(first, || {
        let at = addr.wrapping_add((all.next()? as usize).wrapping_mul(size_of::<U>()));
        Some(user::read(at).and_then(&what))
    })
}
