// SPDX-License-Identifier: GPL-2.0

//! Slab caches for objects of one type.
//!
//! C header: `include/linux/slab.h`.
//!
//! What a cache gives is an ordinary [`KBox`], for `kfree()` takes objects of any cache. That a
//! cache is empty when it is destroyed is checked by the slab allocator, which reports objects
//! that were leaked.

use crate::bindings;
use core::{
    marker::PhantomData,
    mem::{align_of, size_of, MaybeUninit},
    ptr::NonNull,
};
use kernel::{alloc::AllocError, prelude::*};

/// A cache of `T`s.
///
/// # Invariants
///
/// `ptr` is a cache of objects with the size and alignment of `T`, not destroyed.
pub(crate) struct KmemCache<T> {
    ptr: NonNull<bindings::kmem_cache>,
    _what: PhantomData<T>,
}

// SAFETY: A cache may be used from every thread.
unsafe impl<T> Send for KmemCache<T> {}
// SAFETY: A cache may be used from every thread at the same time.
unsafe impl<T> Sync for KmemCache<T> {}

impl<T> KmemCache<T> {
    /// A cache that is shown as `name` in `/proc/slabinfo` and whose objects are charged to the
    /// memory cgroup of whom they are made for. Fails with `ENOMEM`.
    pub(crate) fn new(name: &'static CStr) -> Result<Self> {
        let mut args = bindings::kmem_cache_args {
            align: align_of::<T>() as u32,
            ..pin_init::zeroed()
        };
        // SAFETY: `name` is a C string that lives for ever; `args` is only read.
        let ptr = unsafe {
            bindings::__kmem_cache_create_args(
                name.as_char_ptr(),
                size_of::<T>() as u32,
                &mut args,
                bindings::RAIO_SLAB_ACCOUNT,
            )
        };
        // INVARIANT: Just made with the size and alignment of `T`.
        Ok(Self {
            ptr: NonNull::new(ptr).ok_or(ENOMEM)?,
            _what: PhantomData,
        })
    }

    /// Memory for a `T`. May sleep.
    pub(crate) fn alloc(&self) -> Result<KBox<MaybeUninit<T>>> {
        // SAFETY: A live cache, by the type invariant.
        let ptr =
            unsafe { bindings::kmem_cache_alloc_noprof(self.ptr.as_ptr(), bindings::GFP_KERNEL) };
        let ptr = NonNull::new(ptr.cast::<MaybeUninit<T>>()).ok_or(AllocError)?;
        // SAFETY: Memory of the size and alignment of `T`, by the type invariant, that is ours; and
        // `kfree()`, which is how a `KBox` frees, takes the objects of every cache.
        Ok(unsafe { KBox::from_raw(ptr.as_ptr()) })
    }
}

impl<T> Drop for KmemCache<T> {
    fn drop(&mut self) {
        // SAFETY: A live cache, by the type invariant, and this is its end.
        unsafe { bindings::kmem_cache_destroy(self.ptr.as_ptr()) }
    }
}
