// SPDX-License-Identifier: GPL-2.0

//! Being told when the machine is about to sleep, and when it is over: suspended, hibernated or restored from that.
//!
//! C header: `include/linux/suspend.h`. No locks; the kernel tells of one at a time.

use crate::bindings;
use core::{
    ffi::c_void,
    mem::offset_of, //
};
use kernel::{
    error::to_result,
    ffi,
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// Who is told. Process context; tasks of user space run.
pub(crate) trait Sleeper: Send + Sync {
    /// It is about to sleep. An error keeps it from that; then it isn't told that it is over.
    fn prepare(&self) -> Result;

    /// It is awake.
    fn over(&self);
}

/// Tells `sleeper`, until it is dropped.
///
/// # Invariants
///
/// `block` is registered.
#[pin_data(PinnedDrop)]
pub(crate) struct SleepNotifier<T: Sleeper> {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    sleeper: T,
}

// SAFETY: The block is the C side's, which does its own locking.
unsafe impl<T: Sleeper> Send for SleepNotifier<T> {}
// SAFETY: As above.
unsafe impl<T: Sleeper> Sync for SleepNotifier<T> {}

impl<T: Sleeper> SleepNotifier<T> {
    /// Fails with `ENOMEM`.
    pub(crate) fn new(sleeper: T) -> Result<Arc<Self>> {
        Arc::pin_init(
            try_pin_init!(Self {
                sleeper,
                // INVARIANT: This is what registers it. Last, for it may be called at once.
                block <- Opaque::try_ffi_init(|slot: *mut bindings::notifier_block| {
                    // SAFETY: `slot` is memory for one that stays where it is until it isn't registered any more.
                    unsafe {
                        slot.write(bindings::notifier_block {
                            notifier_call: Some(Self::told),
                            ..pin_init::zeroed()
                        });
                        to_result(bindings::raio_register_pm_notifier(slot))
                    }
                }),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// # Safety
    ///
    /// To be called by the C side only, with a block that is registered.
    unsafe extern "C" fn told(
        block: *mut bindings::notifier_block,
        event: ffi::c_ulong,
        _data: *mut c_void,
    ) -> ffi::c_int {
        // SAFETY: It is the field of a `Self`, which stays while it is registered.
        let this = unsafe { &*block.byte_sub(offset_of!(Self, block)).cast::<Self>() };
        let told = match event as u32 {
            bindings::PM_HIBERNATION_PREPARE
            | bindings::PM_SUSPEND_PREPARE
            | bindings::PM_RESTORE_PREPARE => this.sleeper.prepare(),
            bindings::PM_POST_HIBERNATION
            | bindings::PM_POST_SUSPEND
            | bindings::PM_POST_RESTORE => {
                this.sleeper.over();
                Ok(())
            }
            _ => Ok(()),
        };
        // SAFETY: A function of its argument.
        unsafe { bindings::raio_notifier_result(told.err().map_or(0, |e| e.to_errno())) }
    }
}

#[pinned_drop]
impl<T: Sleeper> PinnedDrop for SleepNotifier<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: It is registered, by the type invariant. Waits for who is told.
        unsafe { bindings::raio_unregister_pm_notifier(self.block.get()) }
    }
}
