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
    ptr::NonNull, //
};
use kernel::{
    ffi,
    types::Opaque, //
};
use parking::{
    Kick,
    Parking, //
};

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
/// It is in a queue only from an attempt after [`Self::begin`] to the kick.
#[repr(C)]
pub(crate) struct PageWait {
    wait: Opaque<bindings::wait_page_queue>,
    parking: Parking,
}

impl PageWait {
    /// In no queue.
    pub(crate) fn new() -> Self {
        Self {
            wait: Opaque::uninit(),
            parking: Parking::new(),
        }
    }

    /// What an attempt that begins now puts into the wait queue of a page, if that is locked. To be
    /// called by who has the owner, a `T`, whose this is, after the last kick.
    pub(crate) fn begin<T: PageWaiter>(&self) -> *mut bindings::wait_page_queue {
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
        // The kick comes when it comes, maybe when everything else of ours is gone.
        let pin = ModulePin::new();
        let left = self.parking.leave();
        if left {
            mem::forget(pin);
        }
        left
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
        match (*place).parking.kick() {
            Kick::Seen => (),
            Kick::Ours => T::kicked(owner),
            Kick::Left => drop(ModulePin::adopt()),
            Kick::Free => {
                T::free(owner);
                drop(ModulePin::adopt());
            }
        }
    }
    1
}
