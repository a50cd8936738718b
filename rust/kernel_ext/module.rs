// SPDX-License-Identifier: GPL-2.0

//! Keeping this module from being removed, and who is still in it then.
//!
//! C header: `include/linux/module.h`.

use crate::bindings;
use kernel::module::this_module;

/// Keeps the module. To be dropped by code that the module's exit waits for: with the last one, the
/// exit may begin.
///
/// # Invariants
///
/// Owns a reference to the module.
pub(crate) struct ModulePin(());

impl ModulePin {
    /// To be called while something else keeps the module.
    pub(crate) fn new() -> Self {
        // INVARIANT: The reference that is taken here.
        // SAFETY: The module is there, for this is its code.
        unsafe { bindings::__module_get(this_module::<crate::LocalModule>().as_ptr()) }
        Self(())
    }

    /// One that was forgotten.
    ///
    /// # Safety
    ///
    /// That must be so, and each be adopted once.
    pub(crate) unsafe fn adopt() -> Self {
        // INVARIANT: The reference of the one that was forgotten.
        Self(())
    }
}

impl Drop for ModulePin {
    fn drop(&mut self) {
        // SAFETY: The reference is ours, by the type invariant.
        unsafe { bindings::module_put(this_module::<crate::LocalModule>().as_ptr()) }
    }
}

/// Waits until everybody has left our code who was in the middle of it. Those in a system call or
/// in a worker's function aren't meant: others know of them.
pub(crate) fn quiesce() {
    // SAFETY: It may be called where one may sleep.
    unsafe { bindings::raio_leave_module() }
}
