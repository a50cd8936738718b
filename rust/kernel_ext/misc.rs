// SPDX-License-Identifier: GPL-2.0

//! What files of a misc device can do that [`MiscDevice`] lacks: to be polled.
//!
//! C headers: `include/linux/fs.h`, `include/linux/poll.h`. No locks but that of the [`PollQueue`].

use super::wait::{
    PollQueue,
    READABLE, //
};
use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    fs::File,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions, //
    },
    prelude::*,
    types::ForeignOwnable, //
};

/// A misc device whose files can be polled to be read.
///
/// # Safety
///
/// [`Self::pollers`] must be the same for a file until that is released.
pub(crate) unsafe trait MiscFile: MiscDevice<Ptr = KBox<Self>> {
    /// Where those are queued who poll the file.
    fn pollers(&self) -> &PollQueue;

    /// Is there anything to read?
    fn readable(&self) -> bool;
}

struct Operations<T>(PhantomData<T>);

impl<T: MiscFile> Operations<T> {
    /// What the kernel crate has made for the device.
    const WITHOUT: *const bindings::file_operations =
        MiscDeviceOptions { name: c"" }.into_raw::<T>().fops;

    const WITH: &'static bindings::file_operations = &bindings::file_operations {
        poll: Some(Self::poll),
        // SAFETY: A constant.
        ..unsafe { *Self::WITHOUT }
    };

    /// # Safety
    ///
    /// To be called by the C side only, for an open file of the device.
    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table,
    ) -> bindings::__poll_t {
        // SAFETY: `open` has put it there, and `release` hasn't taken it, as the file is open.
        let this = unsafe { KBox::<T>::borrow((*file).private_data) };
        // SAFETY: The queue lives until the file is released, as `MiscFile` says. A live file, whose
        // position we don't use.
        unsafe { this.pollers().register(File::from_raw_file(file), table) };
        if this.readable() {
            READABLE
        } else {
            0
        }
    }
}

/// Lets `file` do that.
///
/// # Safety
///
/// It must be the one that `T::open` was called with, which hasn't returned.
pub(crate) unsafe fn enable<T: MiscFile>(file: &File) {
    // SAFETY: Nobody else has a file that is being opened. The operations are those that it has,
    // and one more, with the same owner, whose reference the file gives up at its end.
    unsafe { (*file.as_ptr()).f_op = Operations::<T>::WITH }
}
