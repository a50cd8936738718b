// SPDX-License-Identifier: GPL-2.0

//! Block layer plugging: requests for a device are held back and sent together.
//!
//! C header: `include/linux/blkdev.h`.

use crate::bindings;
use core::{
    cell::Cell,
    ptr::null_mut, //
};
use kernel::types::{NotThreadSafe, Opaque};

/// Most that are held back: `BLK_MAX_REQUEST_COUNT` of the block layer.
const MOST: u32 = 32;

/// What is held back by this task.
///
/// # Invariants
///
/// `list` isn't moved, and is the task's, or isn't used; and no more once it is `finished`.
pub(crate) struct Plug {
    list: Opaque<bindings::blk_plug>,
    finished: Cell<bool>,
    _not_sent: NotThreadSafe,
}

impl Plug {
    /// Has the block layer got something for requests to come? That goes when the task sleeps.
    #[inline(always)]
    pub(crate) fn has_spare(&self) -> bool {
        // SAFETY: Only this task uses it, which doesn't now. If it isn't used that was written below.
        !unsafe { (*self.list.get()).cached_rqs.head }.is_null()
    }

    fn finish(&self) {
        if !self.finished.replace(true) {
            // SAFETY: The plug that this task started below, at the same address.
            unsafe { bindings::blk_finish_plug(self.list.get()) }
        }
    }
}

impl Drop for Plug {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Runs `f` with requests held back until it returns or sleeps. Then `send` is given what sends them. There
/// are about `nr` of them, so that the block layer may get what it needs for several at once.
#[inline(always)]
pub(crate) fn plugged<S, R>(
    nr: u32,
    state: &mut S,
    f: impl FnOnce(&mut S, &Plug) -> R,
    send: impl FnOnce(&mut S, &dyn Fn()),
) -> R {
    let plug = Plug {
        list: Opaque::uninit(),
        finished: Cell::new(false),
        _not_sent: NotThreadSafe,
    };
    // INVARIANT: It is taken away from the task before it goes.
    // SAFETY: It is memory for a `blk_plug`, isn't moved, and is taken away from the task on drop. If the task has
    // another one, nothing is done with it.
    unsafe {
        (*plug.list.get()).cached_rqs.head = null_mut();
        bindings::blk_start_plug(plug.list.get());
        (*plug.list.get()).nr_ios = nr.min(MOST) as u16;
    }
    let ret = f(state, &plug);
    send(state, &|| plug.finish());
    ret
}
