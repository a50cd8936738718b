// SPDX-License-Identifier: GPL-2.0

//! A table from small numbers to objects, read under RCU.
//!
//! C header: `include/linux/xarray.h`.
//!
//! It grows with the largest number in use. A number that user space made up can't lead a
//! processor astray that runs ahead, for an XArray masks it at each level and so never reads
//! outside of a node. Locks: the XArray's own spin lock, which nests inside all of raio's.

use crate::bindings;
use core::{ffi::c_void, marker::PhantomData, ptr::NonNull};
use kernel::{
    error::to_result,
    prelude::*,
    sync::rcu,
    types::Opaque, //
};

/// The table.
///
/// # Invariants
///
/// Each entry is null or points to a `T` that lives for a grace period after it was removed.
#[pin_data(PinnedDrop)]
pub(crate) struct IdTable<T> {
    #[pin]
    xa: Opaque<bindings::xarray>,
    _what: PhantomData<T>,
}

// SAFETY: The table only hands out shared references.
unsafe impl<T: Sync> Send for IdTable<T> {}
// SAFETY: The table only hands out shared references, and the XArray does its own locking.
unsafe impl<T: Sync> Sync for IdTable<T> {}

impl<T> IdTable<T> {
    /// An empty table.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // INVARIANT: There are no entries.
            xa <- Opaque::ffi_init(|slot: *mut bindings::xarray| {
                // SAFETY: `slot` is memory for an `xarray` that stays where it is.
                unsafe { bindings::xa_init_flags(slot, bindings::XA_FLAGS_ALLOC) }
            }),
            _what: PhantomData,
        })
    }

    /// Takes the lowest free number up to `max`. Nothing is found there until it is published.
    ///
    /// Fails with `ENOMEM`, and with `EBUSY` when all numbers are taken.
    pub(crate) fn reserve(&self, max: u32) -> Result<Reservation<'_, T>> {
        let mut id = 0;
        // SAFETY: `xa` is initialised and `id` may be written to.
        to_result(unsafe { bindings::raio_xa_reserve(self.xa.get(), &mut id, max) })?;
        Ok(Reservation { table: self, id })
    }

    /// What is found under `id`.
    pub(crate) fn get<'a>(&self, id: u32, _rcu: &'a rcu::Guard) -> Option<&'a T> {
        // SAFETY: `xa` is initialised.
        let entry = unsafe { bindings::xa_load(self.xa.get(), id as usize) };
        // SAFETY: By the type invariant it is null or lives for longer than this read-side section.
        unsafe { entry.cast::<T>().as_ref() }
    }

    /// The first entry with a number of `from` or more, and its number.
    pub(crate) fn next<'a>(&self, from: u32, _rcu: &'a rcu::Guard) -> Option<(u32, &'a T)> {
        let mut index = from as usize;
        // SAFETY: `xa` is initialised and `index` may be written to.
        let entry = unsafe {
            bindings::xa_find(
                self.xa.get(),
                &mut index,
                u32::MAX as usize,
                bindings::XA_PRESENT,
            )
        };
        // SAFETY: By the type invariant it is null or lives for longer than this read-side section.
        let entry = unsafe { entry.cast::<T>().as_ref() }?;
        // All numbers in use came from `reserve` and fit.
        Some((index as u32, entry))
    }

    /// Removes what is under `id` and frees the number.
    pub(crate) fn remove(&self, id: u32) {
        // SAFETY: `xa` is initialised.
        unsafe { bindings::xa_erase(self.xa.get(), id as usize) };
    }
}

#[pinned_drop]
impl<T> PinnedDrop for IdTable<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: `xa` is initialised and nobody uses it any more.
        unsafe { bindings::xa_destroy(self.xa.get()) }
    }
}

/// A number that is taken but not yet in use; given back on drop.
pub(crate) struct Reservation<'a, T> {
    table: &'a IdTable<T>,
    id: u32,
}

impl<T> Reservation<'_, T> {
    /// The number.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Lets `what` be found.
    ///
    /// # Safety
    ///
    /// `what` must live for a grace period after it was removed.
    pub(crate) unsafe fn publish(self, what: NonNull<T>) {
        // INVARIANT: The caller promises what the table asks for.
        // SAFETY: `xa` is initialised. The slot exists, so nothing is allocated and this can't
        // fail.
        unsafe {
            bindings::xa_store(
                self.table.xa.get(),
                self.id as usize,
                what.as_ptr().cast::<c_void>(),
                0,
            )
        };
        core::mem::forget(self);
    }
}

impl<T> Drop for Reservation<'_, T> {
    fn drop(&mut self) {
        self.table.remove(self.id);
    }
}
