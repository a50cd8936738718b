// SPDX-License-Identifier: GPL-2.0

//! Waiting for a page of a file to be read, without a task.
//!
//! C header: `include/linux/pagemap.h`.
//!
//! A read with `IOCB_WAITQ` that finds a page locked puts the kiocb's entry into the page's wait
//! queue and returns. Who unlocks the page kicks it, maybe before that. Nobody else can take the entry
//! out again. So who gives up waiting leaves the memory that the entry is in to who kicks.
//!
//! Whose the owner and its memory are then, [`parking`] says.
//!
//! # Locks
//!
//! That of the page's wait queue is held by who kicks, interrupts off.

mod parking;

use crate::{
    bindings,
    kernel_ext::module::ModulePin, //
};
use core::{
    mem,
    ptr::{
        null_mut,
        NonNull, //
    },
};
use kernel::{
    ffi,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        ArcBorrow, //
    },
    types::Opaque, //
};
use parking::{
    Kick,
    Parking, //
};

/// How many have given up waiting, whose memory is still in a queue: of those that count as one's.
pub(crate) struct Left(Atomic<u32>);

impl Left {
    /// None. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(Self(Atomic::new(0)), GFP_KERNEL_ACCOUNT)?)
    }

    /// How many.
    pub(crate) fn count(&self) -> u32 {
        // Relaxed: to be compared with a bound.
        self.0.load(Relaxed)
    }
}

/// Who waits.
///
/// # Safety
///
/// [`Self::OFFSET`] must be the offset in bytes of a field of type [`PageWait`].
pub(crate) unsafe trait PageWaiter: Sized {
    /// Where the field is.
    const OFFSET: usize;

    /// The page was unlocked, and `this` is the caller's, who hands it over. With the lock of the
    /// page's wait queue held.
    ///
    /// # Safety
    ///
    /// To be called by [`kicked`] only, for one that was parked.
    unsafe fn kicked(this: NonNull<Self>);

    /// The memory of one that has ended goes. With the lock of the page's wait queue held.
    ///
    /// # Safety
    ///
    /// To be called by [`kicked`] only, when [`PageWait::end`] has left that to it.
    unsafe fn free(this: NonNull<Self>);
}

/// Somebody's place in the wait queue of a page.
///
/// # Invariants
///
/// It is in a queue only from an attempt after [`Self::begin`] to the kick, and meanwhile `left` points to the inside of
/// an [`Arc`], which who has left it has a reference to.
#[repr(C)]
pub(crate) struct PageWait {
    wait: Opaque<bindings::wait_page_queue>,
    parking: Parking,
    /// Relaxed: one and the same for as long as anybody reads it.
    left: Atomic<*mut Left>,
}

impl PageWait {
    /// In no queue.
    pub(crate) fn new() -> Self {
        Self {
            wait: Opaque::uninit(),
            parking: Parking::new(),
            left: Atomic::new(null_mut()),
        }
    }

    /// What an attempt that begins now puts into the wait queue of a page, if that is locked. To be
    /// called by who has the owner, a `T`, whose this is, after the last kick. `left`, which lives as long as the owner,
    /// counts it if that gives up waiting.
    pub(crate) fn begin<T: PageWaiter>(&self, left: &Arc<Left>) -> *mut bindings::wait_page_queue {
        self.left.store(Arc::as_ptr(left).cast_mut(), Relaxed);
        self.parking.begin();
        let wait = self.wait.get();
        // SAFETY: Ours, and in no queue, by the type invariant.
        unsafe { bindings::raio_init_page_wait(wait, Some(kicked::<T>)) };
        wait
    }

    /// The attempt has put it into a queue. False if it was kicked since, and the owner is the
    /// caller's still; otherwise that may be over as soon as this returns.
    pub(crate) fn park(&self) -> bool {
        self.parking.park()
    }

    /// Gives up waiting. True if it was parked, and the owner is the caller's now. Any context.
    pub(crate) fn leave(&self) -> bool {
        let Some(left) = NonNull::new(self.left.load(Relaxed)) else {
            return false;
        };
        // The kick comes when it comes, maybe at once, maybe when everything else of ours is gone.
        let pin = ModulePin::new();
        // SAFETY: It lives, for the owner does.
        let count: Arc<Left> = unsafe { ArcBorrow::from_raw(left.as_ptr()) }.into();
        // Relaxed: see `count`.
        count.0.add(1u32, Relaxed);
        let has_left = self.parking.leave();
        if has_left {
            // INVARIANT: The reference of who has left it.
            mem::forget((count, pin));
        } else {
            let _ = count.0.fetch_sub(1u32, Relaxed);
        }
        has_left
    }

    /// The owner has ended. True if its memory goes, too; otherwise who kicks frees it.
    pub(crate) fn end(&self) -> bool {
        self.parking.end()
    }
}

/// # Safety
///
/// To be called by the C side only, as the function of a `T`'s entry in a queue, with the lock of that
/// held.
unsafe extern "C" fn kicked<T: PageWaiter>(
    wait: *mut bindings::wait_queue_entry,
    _mode: ffi::c_uint,
    _flags: ffi::c_int,
    key: *mut ffi::c_void,
) -> ffi::c_int {
    // SAFETY: It is the entry of a `wait_page_queue`, and the key that of a page.
    let wait = unsafe { bindings::raio_page_wait_kicked(wait, key) };
    if wait.is_null() {
        return 0;
    }
    // It is the first field.
    let place = wait.cast::<PageWait>();
    // SAFETY: Alive, for it was in the queue. From the kick on it may not be, unless that says so. Who
    // has left it has forgotten a pin.
    unsafe {
        let owner = NonNull::new_unchecked(place.byte_sub(T::OFFSET).cast::<T>());
        // Now, for afterwards the place may be gone.
        let left = (*place).left.load(Relaxed);
        match (*place).parking.kick() {
            Kick::Seen => (),
            Kick::Ours => T::kicked(owner),
            Kick::Left => kicked_in_vain(left),
            Kick::Free => {
                T::free(owner);
                kicked_in_vain(left);
            }
        }
    }
    1
}

/// # Safety
///
/// To be called once for each that was left, of which `left` is what it was begun with.
unsafe fn kicked_in_vain(left: *mut Left) {
    // SAFETY: The reference and the pin of who has left it, by the invariant of `PageWait`.
    let (left, _pin) = unsafe { (Arc::from_raw(left), ModulePin::adopt()) };
    // Relaxed: see `count`.
    let _ = left.0.fetch_sub(1u32, Relaxed);
    // The pin goes last, for it keeps this code.
    drop(left);
}
