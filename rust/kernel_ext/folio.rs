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
/// `folio` is one of at least one page in directly mapped memory, and we own a reference. `address` is that of the
/// memory.
pub(crate) struct OwnedFolio {
    folio: NonNull<bindings::folio>,
    address: *mut u8,
}

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
        Self {
            folio: ptr,
            // SAFETY: As the caller says.
            address: unsafe { bindings::raio_folio_address(ptr.as_ptr()) }.cast(),
        }
    }

    /// Takes another reference to a folio.
    ///
    /// # Safety
    ///
    /// `ptr` must be a folio in directly mapped memory to which there is a reference.
    pub(crate) unsafe fn get(ptr: NonNull<bindings::folio>) -> Self {
        // SAFETY: There is a reference, as the caller says, and now another.
        unsafe {
            bindings::raio_folio_get(ptr.as_ptr());
            Self::from_raw(ptr)
        }
    }

    /// The folio.
    pub(crate) fn as_ptr(&self) -> *mut bindings::folio {
        self.folio.as_ptr()
    }

    /// Its memory, of `PAGE_SIZE` bytes at least, for as long as the reference is held. User space
    /// may map it: it must not be turned into a reference.
    #[inline]
    pub(crate) fn address(&self) -> *mut u8 {
        self.address
    }
}

impl Drop for OwnedFolio {
    fn drop(&mut self) {
        // SAFETY: The reference is ours, by the type invariant.
        unsafe { bindings::raio_folio_put(self.folio.as_ptr()) }
    }
}
