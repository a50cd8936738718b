// SPDX-License-Identifier: GPL-2.0

//! Work that runs in process context after an RCU grace period.
//!
//! C header: `include/linux/workqueue.h`.

use super::work::OwnedQueue;
use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// Says where in `Self` its [`RcuWork`] is. The work is to drop the box.
///
/// # Safety
///
/// [`Self::OFFSET`] must be the offset in bytes of a field of type `RcuWork<Self>`.
pub(crate) unsafe trait HasRcuWork: Sized {
    /// Where the field is.
    const OFFSET: usize;
}

/// A place in an object from which it is dropped, later and in process context.
///
/// # Invariants
///
/// `inner` is initialised with [`RcuWork::run`] as its function.
#[pin_data]
pub(crate) struct RcuWork<T> {
    #[pin]
    inner: Opaque<bindings::rcu_work>,
    _owner: PhantomData<T>,
}

// SAFETY: The C side serialises all access.
unsafe impl<T: Send> Send for RcuWork<T> {}
// SAFETY: Shared references only give out the raw pointer.
unsafe impl<T: Send> Sync for RcuWork<T> {}

impl<T: HasRcuWork> RcuWork<T> {
    /// Work that isn't queued.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // INVARIANT: This is what initialises it.
            inner <- Opaque::ffi_init(|slot: *mut bindings::rcu_work| {
                // SAFETY: `slot` is memory for an `rcu_work` that stays where it is.
                unsafe { bindings::raio_init_rcu_work(slot, Some(Self::run)) }
            }),
            _owner: PhantomData,
        })
    }

    /// # Safety
    ///
    /// To be called by the C side only, with the work of an `RcuWork<T>` in a `T`.
    unsafe extern "C" fn run(work: *mut bindings::work_struct) {
        // The work is the first field of an `rcu_work`.
        const _: () = assert!(core::mem::offset_of!(bindings::rcu_work, work) == 0);
        // SAFETY: `work` is the field at `OFFSET` of a `T` as `HasRcuWork` says, and that `T` is
        // in a box which `drop_later` was given.
        drop(unsafe { Pin::new_unchecked(KBox::from_raw(work.byte_sub(T::OFFSET).cast::<T>())) });
    }

    /// Has `this` dropped by a worker of `queue` after a grace period. Any context.
    pub(crate) fn drop_later(this: Pin<KBox<T>>, queue: &OwnedQueue) {
        // SAFETY: The value isn't moved: only its owner changes.
        let this = KBox::into_raw(unsafe { Pin::into_inner_unchecked(this) });
        // SAFETY: The field at `OFFSET` is an `RcuWork<T>`, initialised by its type invariant. It
        // is queued once, for it was in a box of which it is the end. The queue is live.
        unsafe {
            let work = this.byte_add(T::OFFSET).cast::<Self>();
            bindings::queue_rcu_work(queue.as_raw(), (*work).inner.get());
        }
    }
}
