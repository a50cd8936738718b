// SPDX-License-Identifier: GPL-2.0

//! References to folios, the pages of the page cache.
//!
//! C header: `include/linux/mm.h`.

use crate::bindings;
use core::ptr::NonNull;

/// A reference to a folio that is mapped in the kernel at all times.
///
/// # Invariants
///
/// The pointer is a folio of at least one page in directly mapped memory, and we own a reference.
pub(crate) struct OwnedFolio(NonNull<bindings::folio>);

// SAFETY: A reference to a folio may be held and dropped by every thread.
unsafe impl Send for OwnedFolio {}
// SAFETY: A shared reference gives out only pointers.
unsafe impl Sync for OwnedFolio {}

impl OwnedFolio {
    /// Takes over a reference.
    ///
    /// # Safety
    ///
    /// `ptr` must be a folio in directly mapped memory, and the reference must be the caller's.
    pub(crate) unsafe fn from_raw(ptr: NonNull<bindings::folio>) -> Self {
        // INVARIANT: As the caller says.
        Self(ptr)
    }

    /// Takes another reference to a folio.
    ///
    /// # Safety
    ///
    /// `ptr` must be a folio in directly mapped memory to which there is a reference.
    pub(crate) unsafe fn get(ptr: NonNull<bindings::folio>) -> Self {
        // SAFETY: There is a reference, as the caller says.
        unsafe { bindings::raio_folio_get(ptr.as_ptr()) };
        // INVARIANT: The reference that was just taken.
        Self(ptr)
    }

    /// The folio.
    pub(crate) fn as_ptr(&self) -> *mut bindings::folio {
        self.0.as_ptr()
    }

    /// Its memory, of `PAGE_SIZE` bytes at least, for as long as the reference is held. User space
    /// may map it: it must not be turned into a reference.
    #[inline]
    pub(crate) fn address(&self) -> *mut u8 {
        // SAFETY: A live folio in directly mapped memory, by the type invariant.
        unsafe { bindings::raio_folio_address(self.0.as_ptr()) }.cast()
    }
}

impl Drop for OwnedFolio {
    fn drop(&mut self) {
        // SAFETY: The reference is ours, by the type invariant.
        unsafe { bindings::raio_folio_put(self.0.as_ptr()) }
    }
}
