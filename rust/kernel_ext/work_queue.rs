// SPDX-License-Identifier: GPL-2.0

//! A work queue of one's own, which can be flushed before a module's code goes away.
//!
//! C header: `include/linux/workqueue.h`.

use crate::bindings;
use core::{ops::Deref, ptr::NonNull};
use kernel::{prelude::*, workqueue::Queue};

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
    /// An unbound work queue. Fails with `ENOMEM`.
    pub(crate) fn new(name: &'static CStr) -> Result<Self> {
        // SAFETY: `name` is a C string.
        let ptr = unsafe { bindings::raio_alloc_workqueue(name.as_char_ptr()) };
        // INVARIANT: Just allocated.
        NonNull::new(ptr).map(Self).ok_or(ENOMEM)
    }

    /// Waits until all that was queued before has run.
    pub(crate) fn flush(&self) {
        // SAFETY: A live work queue, by the type invariant.
        unsafe { bindings::__flush_workqueue(self.0.as_ptr()) }
    }
}

impl Deref for OwnedQueue {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        // SAFETY: A live work queue for as long as `self` is, by the type invariant.
        unsafe { Queue::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for OwnedQueue {
    fn drop(&mut self) {
        // SAFETY: A live work queue, by the type invariant, and this is its end.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) }
    }
}
