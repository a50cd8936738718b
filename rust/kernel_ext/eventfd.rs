// SPDX-License-Identifier: GPL-2.0

//! Eventfds, which count what user space waits for.
//!
//! C header: `include/linux/eventfd.h`. Locks: the eventfd's own, a spin lock with interrupts off.

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    error::from_err_ptr,
    ffi,
    prelude::*, //
};

/// An eventfd.
///
/// # Invariants
///
/// We own a reference.
pub(crate) struct EventFd(NonNull<bindings::eventfd_ctx>);

// SAFETY: A reference may be used and dropped by every thread.
unsafe impl Send for EventFd {}

impl EventFd {
    /// That of a descriptor of the current process. `EBADF` if there is none, `EINVAL` if it is
    /// something else.
    pub(crate) fn get(fd: u32) -> Result<Self> {
        // SAFETY: Any number may be asked for.
        let ctx = from_err_ptr(unsafe { bindings::eventfd_ctx_fdget(fd as ffi::c_int) })?;
        // INVARIANT: The reference that was just taken.
        // SAFETY: Not an error, so not null.
        Ok(Self(unsafe { NonNull::new_unchecked(ctx) }))
    }

    /// Counts one more. Any context, but not from within the wake-up of an eventfd.
    pub(crate) fn signal(&self) {
        // SAFETY: Alive, by the type invariant.
        unsafe { bindings::eventfd_signal_mask(self.0.as_ptr(), 0) }
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        // SAFETY: The reference is ours, by the type invariant.
        unsafe { bindings::eventfd_ctx_put(self.0.as_ptr()) }
    }
}
