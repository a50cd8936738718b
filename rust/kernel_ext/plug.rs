// SPDX-License-Identifier: GPL-2.0

//! Block layer plugging: requests for a device are held back and sent together.
//!
//! C header: `include/linux/blkdev.h`.

use crate::bindings;
use kernel::types::{NotThreadSafe, Opaque};

/// Runs `f` with requests held back until it returns or sleeps.
pub(crate) fn plugged<R>(f: impl FnOnce() -> R) -> R {
    /// Ends the plug on every way out.
    struct Finish<'a>(&'a Opaque<bindings::blk_plug>, NotThreadSafe);

    impl Drop for Finish<'_> {
        fn drop(&mut self) {
            // SAFETY: The plug that this task started below, at the same address.
            unsafe { bindings::blk_finish_plug(self.0.get()) }
        }
    }

    let plug = Opaque::uninit();
    // SAFETY: `plug` is memory for a `blk_plug`. It isn't moved and outlives `_finish`, which takes
    // it away from the task.
    unsafe { bindings::blk_start_plug(plug.get()) };
    let _finish = Finish(&plug, NotThreadSafe);
    f()
}
