// SPDX-License-Identifier: GPL-2.0

//! Work that runs in process context, and work queues of one's own to run it, which are empty before
//! a module's code goes away.
//!
//! C header: `include/linux/workqueue.h`.
//!
//! The kernel crate's `Work` belongs to a box or an `Arc`. This one is for objects whose owner is
//! known otherwise, may be taken over while it waits, and which have several things to do.

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    ffi,
    prelude::*,
    sync::rcu,
    types::Opaque,
    workqueue::Queue, //
};

/// A work queue, destroyed on drop after all that is on it has run.
///
/// # Invariants
///
/// The pointer is one that `alloc_workqueue()` returned and is not destroyed.
pub(crate) struct OwnedQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: A work queue may be used from every thread.
unsafe impl Send for OwnedQueue {}
// SAFETY: A work queue may be used from every thread at the same time.
unsafe impl Sync for OwnedQueue {}

impl OwnedQueue {
    /// An unbound work queue. Fails with `ENOMEM`. What is done on it to get memory back must have
    /// `reclaim`, and may not wait for what is done on one that hasn't.
    pub(crate) fn new(name: &'static CStr, reclaim: bool) -> Result<Self> {
        // SAFETY: `name` is a C string.
        let ptr = unsafe { bindings::raio_alloc_workqueue(name.as_char_ptr(), reclaim) };
        // INVARIANT: Just allocated.
        NonNull::new(ptr).map(Self).ok_or(ENOMEM)
    }

    /// The raw work queue.
    pub(super) fn as_raw(&self) -> *mut bindings::workqueue_struct {
        self.0.as_ptr()
    }

    /// For the kernel crate's work.
    pub(crate) fn as_queue(&self) -> &Queue {
        // SAFETY: A live work queue, by the type invariant, for as long as `self`.
        unsafe { Queue::from_raw(self.0.as_ptr()) }
    }

    /// Waits until all that was queued before has run.
    pub(crate) fn flush(&self) {
        // What waits for a grace period isn't on the queue yet.
        rcu::rcu_barrier();
        // SAFETY: A live work queue, by the type invariant.
        unsafe { bindings::__flush_workqueue(self.0.as_ptr()) }
    }
}

impl Drop for OwnedQueue {
    fn drop(&mut self) {
        // SAFETY: A live work queue, by the type invariant, and this is its end.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) }
    }
}

/// What an object has to do. There may be several, of which one at a time is queued.
///
/// # Safety
///
/// [`Self::OFFSET`] must be the offset in bytes of a field of type [`Work`].
pub(crate) unsafe trait HasWork<const ID: u64>: Sized {
    /// Where the field is.
    const OFFSET: usize;

    /// Does it, in process context.
    ///
    /// # Safety
    ///
    /// To be called once after [`queue`], by which `this` was handed over.
    unsafe fn run(this: NonNull<Self>);
}

/// Place in an object from which its work is queued.
pub(crate) struct Work(Opaque<bindings::work_struct>);

// SAFETY: It may be queued from every thread.
unsafe impl Send for Work {}
// SAFETY: Nobody accesses it but [`queue`], whose caller says that it isn't in use, and who runs it.
unsafe impl Sync for Work {}

impl Work {
    /// Work that isn't queued.
    pub(crate) const fn new() -> Self {
        Self(Opaque::uninit())
    }
}

/// # Safety
///
/// To be called by the C side only, with the work of an object that was handed to [`queue`].
unsafe extern "C" fn run<T: HasWork<ID>, const ID: u64>(work: *mut bindings::work_struct) {
    // SAFETY: `work` is all of the field at `OFFSET`, as `HasWork` says; the object was handed over.
    unsafe { T::run(NonNull::new_unchecked(work.byte_sub(T::OFFSET).cast::<T>())) }
}

/// Has a worker of `queue` do what `this` has to do. Any context.
///
/// # Safety
///
/// `this` must be alive and stay where it is until it is done, and its work not be queued.
pub(crate) unsafe fn queue<T: HasWork<ID>, const ID: u64>(this: NonNull<T>, queue: &OwnedQueue) {
    // SAFETY: The field at `OFFSET` is a `Work`, not in use. A worker doesn't look at it any more once
    // it has called the function. The queue is live, by its type invariant.
    unsafe {
        let work = (*this.as_ptr().byte_add(T::OFFSET).cast::<Work>()).0.get();
        bindings::raio_init_work(work, Some(run::<T, ID>));
        bindings::queue_work_on(
            bindings::wq_misc_consts_WORK_CPU_UNBOUND as ffi::c_int,
            queue.as_raw(),
            work,
        );
    }
}
