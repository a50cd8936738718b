// SPDX-License-Identifier: GPL-2.0

//! Work that runs in process context, and work queues of one's own to run it, which are empty before
//! a module's code goes away. It may be done at once, or after some time.
//!
//! C header: `include/linux/workqueue.h`.
//!
//! The kernel crate's `Work` belongs to a box or an `Arc`. This one is for objects whose owner is
//! known otherwise, may be taken over while it waits, and which have several things to do.

use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
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

/// Says where in `Self` its [`DelayedWork`] is.
///
/// # Safety
///
/// [`Self::OFFSET`] must be the offset in bytes of a field of type `DelayedWork<Self>`, which is dropped before
/// all others.
pub(crate) unsafe trait HasDelayedWork: Sync + Sized {
    /// Where the field is.
    const OFFSET: usize;

    /// Does it, in process context.
    fn run(&self);
}

/// A place in an object from which its work is done some time later, unless that is called off before, as it is on
/// drop.
///
/// # Invariants
///
/// `inner` is initialised with [`DelayedWork::run`] as its function.
#[pin_data(PinnedDrop)]
pub(crate) struct DelayedWork<T> {
    #[pin]
    inner: Opaque<bindings::delayed_work>,
    _owner: PhantomData<T>,
}

// SAFETY: The C side serialises all access.
unsafe impl<T: Sync> Send for DelayedWork<T> {}
// SAFETY: As above; who runs it has a shared reference to the owner.
unsafe impl<T: Sync> Sync for DelayedWork<T> {}

impl<T: HasDelayedWork> DelayedWork<T> {
    /// Work that isn't queued.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // INVARIANT: This is what initialises it.
            inner <- Opaque::ffi_init(|slot: *mut bindings::delayed_work| {
                // SAFETY: `slot` is memory for a `delayed_work` that stays where it is.
                unsafe { bindings::raio_init_delayed_work(slot, Some(Self::run)) }
            }),
            _owner: PhantomData,
        })
    }

    /// # Safety
    ///
    /// To be called by the C side only, with the work of a `DelayedWork<T>` in a `T`.
    unsafe extern "C" fn run(work: *mut bindings::work_struct) {
        // The work is the first field of a `delayed_work`, and that all of ours.
        const { assert!(core::mem::offset_of!(bindings::delayed_work, work) == 0) };
        const { assert!(core::mem::offset_of!(Self, inner) == 0) };
        // SAFETY: `work` is the field at `OFFSET` of a `T`, as `HasDelayedWork` says. That field's drop waits
        // until this has returned.
        T::run(unsafe { &*work.byte_sub(T::OFFSET).cast::<T>() });
    }

    /// Has a worker of `queue` do it in `ms` milliseconds, if it isn't going to be done already. Any context.
    pub(crate) fn queue(&self, queue: &OwnedQueue, ms: u32) {
        // SAFETY: `inner` is initialised, by the type invariant, and the queue is live.
        unsafe { bindings::raio_queue_delayed_work(queue.as_raw(), self.inner.get(), ms) }
    }

    /// Calls it off, and waits until it isn't being done. Process context, and not by who does it.
    pub(crate) fn cancel(&self) {
        // SAFETY: `inner` is initialised, by the type invariant.
        unsafe { bindings::cancel_delayed_work_sync(self.inner.get()) };
    }
}

#[pinned_drop]
impl<T> PinnedDrop for DelayedWork<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: `inner` is initialised, by the type invariant.
        unsafe { bindings::cancel_delayed_work_sync(self.inner.get()) };
    }
}
