// SPDX-License-Identifier: GPL-2.0

//! A mutex that can be waited for by who may be killed meanwhile.
//!
//! C header: `include/linux/mutex.h`.

use crate::bindings;
use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        lock::{
            mutex::MutexBackend,
            Backend, //
        },
        LockClassKey,
        Mutex,
        MutexGuard, //
    },
    types::Opaque,
};

/// The mutex. It guards what its owner says, and holds no data.
///
/// # Invariants
///
/// `inner` is initialised by `__mutex_init()`.
#[pin_data]
pub(crate) struct KillableMutex {
    #[pin]
    inner: Opaque<bindings::mutex>,
}

// SAFETY: A mutex may be used from every thread.
unsafe impl Send for KillableMutex {}
// SAFETY: A mutex may be used from every thread at the same time.
unsafe impl Sync for KillableMutex {}

impl KillableMutex {
    /// A free one.
    pub(crate) fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            // INVARIANT: This is what initialises it.
            inner <- Opaque::ffi_init(|slot: *mut bindings::mutex| {
                // SAFETY: `slot` is memory for a mutex that stays where it is; `name` and `key`
                // live for ever.
                unsafe { MutexBackend::init(slot, name.as_char_ptr(), key.as_ptr()) }
            }),
        })
    }

    fn mutex(&self) -> &Mutex<()> {
        // SAFETY: Initialised, by the type invariant, and alive for as long as `self` is.
        unsafe { Mutex::from_raw(self.inner.get()) }
    }

    /// Waits for it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, ()> {
        self.mutex().lock()
    }

    /// Takes it if it is free.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, ()>> {
        self.mutex().try_lock()
    }

    /// Waits for it. `EINTR` if the caller is killed before.
    pub(crate) fn lock_killable(&self) -> Result<MutexGuard<'_, ()>> {
        // SAFETY: Initialised, by the type invariant.
        to_result(unsafe { bindings::raio_mutex_lock_killable(self.inner.get()) })?;
        // SAFETY: The lock was just taken, and its guard has no state.
        Ok(unsafe { MutexGuard::new(self.mutex(), ()) })
    }
}
