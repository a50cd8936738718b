// SPDX-License-Identifier: GPL-2.0

//! Numbers that can be read, and written perhaps, below `/proc/sys`.
//!
//! C header: `include/linux/sysctl.h`.

use crate::bindings;
use core::{ffi::c_void, ptr::NonNull};
use kernel::{
    prelude::*,
    sync::{
        atomic::Atomic,
        Arc, //
    },
};

/// Bytes of memory that the machine has.
pub(crate) fn ram_bytes() -> usize {
    // SAFETY: It may always be called.
    unsafe { bindings::raio_ram_bytes() }
}

/// A file with a number that is somewhere in a `T`.
pub(crate) struct File<T> {
    name: &'static CStr,
    mode: bindings::umode_t,
    number: fn(&T) -> &Atomic<usize>,
}

impl<T> File<T> {
    /// Everybody can read it.
    pub(crate) fn read_only(name: &'static CStr, number: fn(&T) -> &Atomic<usize>) -> Self {
        Self {
            name,
            mode: 0o444,
            number,
        }
    }

    /// Everybody can read it, and root write.
    pub(crate) fn writable(name: &'static CStr, number: fn(&T) -> &Atomic<usize>) -> Self {
        Self {
            mode: 0o644,
            ..Self::read_only(name, number)
        }
    }

    fn entry(&self, owner: &T) -> bindings::ctl_table {
        let number = (self.number)(owner);
        bindings::ctl_table {
            procname: self.name.as_char_ptr(),
            data: core::ptr::from_ref(number).cast_mut().cast::<c_void>(),
            maxlen: size_of::<usize>() as i32,
            mode: self.mode,
            // Reads and writes the number as a whole.
            proc_handler: Some(bindings::proc_doulongvec_minmax),
            ..pin_init::zeroed()
        }
    }
}

/// Files that are there for as long as this is.
///
/// # Invariants
///
/// `header` is what registering `table` returned, which doesn't change and whose numbers are in
/// `owner`.
pub(crate) struct Sysctls<T> {
    header: NonNull<bindings::ctl_table_header>,
    _table: KVec<bindings::ctl_table>,
    _owner: Arc<T>,
}

// SAFETY: Nothing is accessed through it but atomic numbers of `owner`.
unsafe impl<T: Send + Sync> Send for Sysctls<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for Sysctls<T> {}

impl<T> Sysctls<T> {
    /// Makes the files in `path`, which is relative to `/proc/sys`. Fails with `ENOMEM`.
    pub(crate) fn register(path: &'static CStr, owner: Arc<T>, files: &[File<T>]) -> Result<Self> {
        let mut table = KVec::with_capacity(files.len(), GFP_KERNEL)?;
        for file in files {
            table.push(file.entry(&owner), GFP_KERNEL)?;
        }
        // SAFETY: Path and table outlive the registration, which ends on drop; so do the numbers.
        let header = unsafe {
            bindings::register_sysctl_sz(path.as_char_ptr(), table.as_ptr(), table.len())
        };
        Ok(Self {
            // INVARIANT: Just registered.
            header: NonNull::new(header).ok_or(ENOMEM)?,
            _table: table,
            _owner: owner,
        })
    }
}

impl<T> Drop for Sysctls<T> {
    fn drop(&mut self) {
        // Returns when nobody reads or writes one of the files any more.
        // SAFETY: Registered, by the type invariant, and this is its end.
        unsafe { bindings::unregister_sysctl_table(self.header.as_ptr()) }
    }
}
