// SPDX-License-Identifier: GPL-2.0

//! Block layer plugging: requests for a device are held back and sent together.
//!
//! C header: `include/linux/blkdev.h`.

use crate::bindings;
use core::cell::Cell;
use kernel::types::{NotThreadSafe, Opaque};

/// Most that are held back: `BLK_MAX_REQUEST_COUNT` of the block layer.
const MOST: u32 = 32;

/// Runs `f` with requests held back until it returns or sleeps. Then `send` is given what sends them. There
/// are about `nr` of them, so that the block layer may get what it needs for several at once.
pub(crate) fn plugged<S, R>(
    nr: u32,
    state: &mut S,
    f: impl FnOnce(&mut S) -> R,
    send: impl FnOnce(&mut S, &dyn Fn()),
) -> R {
    /// Ends the plug, on every way out.
    struct Plug(Opaque<bindings::blk_plug>, Cell<bool>, NotThreadSafe);

    impl Plug {
        fn finish(&self) {
            if !self.1.replace(true) {
                // SAFETY: The plug that this task started below, at the same address.
                unsafe { bindings::blk_finish_plug(self.0.get()) }
            }
        }
    }

    impl Drop for Plug {
        fn drop(&mut self) {
            self.finish();
        }
    }

    let plug = Plug(Opaque::uninit(), Cell::new(false), NotThreadSafe);
    // SAFETY: It is memory for a `blk_plug`, isn't moved, and is taken away from the task on drop.
    unsafe {
        bindings::blk_start_plug(plug.0.get());
        (*plug.0.get()).nr_ios = nr.min(MOST) as u16;
    }
    let ret = f(state);
    send(state, &|| plug.finish());
    ret
}

/// Has this task one?
#[inline]
pub(crate) fn is_there() -> bool {
    // SAFETY: It may always be called.
    unsafe { bindings::raio_has_plug() }
}
