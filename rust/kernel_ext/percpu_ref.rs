// SPDX-License-Identifier: GPL-2.0

//! Per-cpu reference counts.
//!
//! C header: `include/linux/percpu-refcount.h`.
//!
//! A count starts live with one reference, the initial one. While it is live, taking and dropping
//! a reference is an addition on this processor's own counter. [`PercpuRef::kill`] makes it an
//! ordinary atomic count and drops the initial reference; when the last one goes,
//! [`HasPercpuRef::released`] is called, once. To become atomic takes an RCU grace period, which
//! [`PercpuRef::make_atomic`] begins early; [`PercpuRef::drop_initial`] then needs none.

use crate::bindings;
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
    error::to_result,
    ffi,
    prelude::*,
    sync::atomic::Atomic,
    types::Opaque, //
};

/// Says where in `Self` the reference count number `ID` is and what to do when it reaches zero.
///
/// # Safety
///
/// [`Self::OFFSET`] must be the offset in bytes of a field of type `PercpuRef<Self, ID>`.
pub(crate) unsafe trait HasPercpuRef<const ID: u64>: Sized {
    /// Where the field is.
    const OFFSET: usize;

    /// Called once, when the last reference is gone. It may be any context: this must not sleep.
    ///
    /// # Safety
    ///
    /// To be called by [`PercpuRef`] only. The object is alive, and nothing but what this does ends
    /// its life.
    unsafe fn released(this: NonNull<Self>);
}

/// Bytes that one takes besides itself.
pub(crate) fn bytes_elsewhere() -> usize {
    size_of::<bindings::percpu_ref_data>() + size_of::<usize>() * kernel::cpu::nr_cpu_ids() as usize
}

/// A reference count with a counter on each processor.
///
/// # Invariants
///
/// `inner` is initialised by `percpu_ref_init()`.
#[pin_data(PinnedDrop)]
#[repr(transparent)]
pub(crate) struct PercpuRef<T, const ID: u64> {
    #[pin]
    inner: Opaque<bindings::percpu_ref>,
    _owner: PhantomData<T>,
}

// SAFETY: A `percpu_ref` isn't bound to the thread that made it.
unsafe impl<T: Send, const ID: u64> Send for PercpuRef<T, ID> {}
// SAFETY: All that is done through a shared reference is an atomic or per-cpu operation of the C
// side.
unsafe impl<T: Sync, const ID: u64> Sync for PercpuRef<T, ID> {}

impl<T: HasPercpuRef<ID> + Sync, const ID: u64> PercpuRef<T, ID> {
    /// A live count of one. Fails with `ENOMEM`.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // INVARIANT: Either this initialises it or there will be no `Self`.
            inner <- Opaque::try_ffi_init(|slot: *mut bindings::percpu_ref| {
                // SAFETY: `slot` is memory for a `percpu_ref` that stays where it is.
                to_result(unsafe {
                    bindings::percpu_ref_init(slot, Some(Self::release), 0, bindings::GFP_KERNEL_ACCOUNT)
                })
            }),
            _owner: PhantomData,
        })
    }

    /// # Safety
    ///
    /// To be called by the C side only, with the count of a `PercpuRef<T, ID>` in a `T`.
    unsafe extern "C" fn release(ptr: *mut bindings::percpu_ref) {
        // SAFETY: `ptr` is the field at `OFFSET` of a `T` as `HasPercpuRef` says; `PercpuRef` is
        // just its C part. The `T` is alive, for it may not go before the last reference, which
        // goes now. The C side doesn't touch it after this.
        unsafe { T::released(NonNull::new_unchecked(ptr.byte_sub(T::OFFSET).cast::<T>())) }
    }

    /// Takes a reference unless the count was killed.
    #[must_use]
    pub(crate) fn tryget_live(&self) -> bool {
        // SAFETY: Initialised, by the type invariant.
        unsafe { bindings::raio_percpu_ref_tryget_live(self.inner.get()) }
    }

    /// What has that index in a table, with a reference. [`None`] if nothing has, or its count was killed. The table
    /// is read with acquire order.
    ///
    /// # Safety
    ///
    /// Entries must be null or point to what is alive, which must live for a grace period after it was taken out.
    #[inline]
    pub(crate) unsafe fn lookup(entries: &[Atomic<*mut T>], index: usize) -> Option<NonNull<T>> {
        let table = entries.as_ptr().cast::<*mut ffi::c_void>();
        // SAFETY: So many pointers, whose count is at that offset by `HasPercpuRef`; alive as the caller says.
        NonNull::new(unsafe {
            bindings::raio_percpu_ref_lookup(table, entries.len(), index, T::OFFSET).cast()
        })
    }

    /// Takes `n` references.
    ///
    /// # Safety
    ///
    /// The count must not have reached zero, nor may it while this runs.
    pub(crate) unsafe fn get_many(&self, n: usize) {
        // SAFETY: Initialised, by the type invariant; not zero, as the caller says.
        unsafe { bindings::raio_percpu_ref_get_many(self.inner.get(), n) }
    }

    /// Drops `n` references, after which `self` may be gone.
    ///
    /// # Safety
    ///
    /// The caller must own them.
    pub(crate) unsafe fn put_many(this: *const Self, n: usize) {
        // SAFETY: The references that the caller owns have kept the count alive until here.
        unsafe { bindings::raio_percpu_ref_put_many((*this).inner.get(), n) }
    }

    /// Begins to make it an ordinary atomic count. It stays live. To be called once, in any context.
    pub(crate) fn make_atomic(&self) {
        // SAFETY: Initialised, by the type invariant. This sleeps only while an earlier change of
        // the same count is under way, and there is none.
        unsafe { bindings::percpu_ref_switch_to_atomic(self.inner.get(), None) }
    }

    /// Drops the initial reference of a count that [`Self::make_atomic`] was called for. Others may
    /// go on to take references while they have one.
    ///
    /// # Safety
    ///
    /// At most once for each count, which is never killed then. `this` may be gone afterwards.
    pub(crate) unsafe fn drop_initial(this: *const Self) {
        // SAFETY: The initial reference is there until it is dropped here.
        unsafe { Self::put_many(this, 1) }
    }

    /// Drops the initial reference: from now on [`Self::tryget_live`] fails.
    ///
    /// # Safety
    ///
    /// At most once for each count.
    pub(crate) unsafe fn kill(&self) {
        // SAFETY: Initialised, by the type invariant; killed only once, as the caller says.
        unsafe { bindings::percpu_ref_kill_and_confirm(self.inner.get(), None) }
    }
}

#[pinned_drop]
impl<T, const ID: u64> PinnedDrop for PercpuRef<T, ID> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Initialised, by the type invariant, and nobody uses it any more.
        unsafe { bindings::percpu_ref_exit(self.inner.get()) }
    }
}
