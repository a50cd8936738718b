// SPDX-License-Identifier: GPL-2.0

//! The address space of the current process.
//!
//! Asked of C and not of `current!()`: where `struct sched_statistics` is empty
//! (`!CONFIG_SCHEDSTATS`), bindgen drops its alignment, so the offset of `mm` in the kernel crate's
//! `task_struct` is wrong and `current!().mm()` returns another field.

use crate::bindings;
use core::ptr;
use kernel::{
    mm::Mm,
    sync::aref::ARef, //
};

/// The current process's; [`None`] for a kernel thread and at the end of a process.
pub(crate) fn current() -> Option<ARef<Mm>> {
    // SAFETY: It may always be called.
    let mm = unsafe { bindings::raio_current_mm() };
    if mm.is_null() {
        return None;
    }
    // SAFETY: A task has a reference to its own mm, so it lives while the reference is taken.
    Some(ARef::from(unsafe { Mm::from_raw(mm) }))
}

/// Is it the current process's?
pub(crate) fn is_current(mm: &Mm) -> bool {
    // SAFETY: It may always be called.
    ptr::eq(mm.as_raw(), unsafe { bindings::raio_current_mm() })
}

/// Returns when nobody changes the mappings of that address space any more who did when this was
/// called, or when [`module::quiesce`](super::module::quiesce) is enough for that. May take `mmap_lock`.
pub(crate) fn quiesce(mm: &Mm) {
    // SAFETY: Alive, and its lock may be taken also when nobody uses it any more.
    unsafe { bindings::raio_mm_quiesce(mm.as_raw()) }
}

/// Has any process that address space? Asks them all, if none has.
pub(crate) fn is_used(mm: &Mm) -> bool {
    // SAFETY: It is only compared with.
    unsafe { bindings::raio_mm_is_used(mm.as_raw()) }
}

/// Unmaps `len` bytes at `addr` from the current process, which must have an address space. That
/// nothing is mapped there any more is not an error.
pub(crate) fn unmap(addr: usize, len: usize) {
    // SAFETY: Addresses of user space are checked.
    unsafe { bindings::vm_munmap(addr, len) };
}
