// SPDX-License-Identifier: GPL-2.0

//! Something that happens once, and waiting for it.
//!
//! C header: `include/linux/completion.h`.
//!
//! The kernel crate's `Completion` can only be waited for without an end and without a way out.

use crate::bindings;
use kernel::{prelude::*, types::Opaque};

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// It has happened.
    Done,
    /// The time is over.
    TimedOut,
    /// The caller was killed.
    Killed,
}

/// What happens once.
///
/// # Invariants
///
/// `inner` is initialised.
#[pin_data]
pub(crate) struct Completion {
    #[pin]
    inner: Opaque<bindings::completion>,
}

// SAFETY: A completion may be used from every thread.
unsafe impl Send for Completion {}
// SAFETY: A completion may be used from every thread at the same time.
unsafe impl Sync for Completion {}

impl Completion {
    /// One that has not happened.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // INVARIANT: This is what initialises it.
            inner <- Opaque::ffi_init(|slot: *mut bindings::completion| {
                // SAFETY: `slot` is memory for a completion that stays where it is.
                unsafe { bindings::init_completion(slot) }
            }),
        })
    }

    /// It happens now, for all who wait and will wait. Any context.
    pub(crate) fn complete_all(&self) {
        // SAFETY: Initialised, by the type invariant.
        unsafe { bindings::complete_all(self.inner.get()) }
    }

    /// Waits for `seconds` at most.
    pub(crate) fn wait_killable(&self, seconds: u32) -> Waited {
        // SAFETY: Initialised, by the type invariant.
        match unsafe { bindings::raio_wait_killable(self.inner.get(), seconds) } {
            0 => Waited::TimedOut,
            1.. => Waited::Done,
            _ => Waited::Killed,
        }
    }
}
