// SPDX-License-Identifier: GPL-2.0

//! The running task, as far as the kernel crate doesn't tell.
//!
//! Asked of C for the reason that [`mm`](super::mm) gives.

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    cred::Credential,
    fs::File,
    sync::aref::ARef, //
};

/// What it acts with.
pub(crate) fn credentials() -> ARef<Credential> {
    // SAFETY: It may always be called, and returns a reference that is ours. `Credential` is all of
    // a `struct cred`.
    unsafe {
        let cred = bindings::raio_get_current_cred().cast_mut().cast();
        ARef::from_raw(NonNull::new_unchecked(cred))
    }
}

/// Runs `f` with those of somebody else.
pub(crate) fn acting_as<R>(credentials: &Credential, f: impl FnOnce() -> R) -> R {
    // SAFETY: They are kept until they are put back.
    let ours = unsafe { bindings::raio_override_creds(credentials.as_ptr()) };
    let ret = f();
    // SAFETY: The task had these.
    unsafe { bindings::raio_override_creds(ours) };
    ret
}

/// How many files it can have open, `RLIMIT_NOFILE`.
pub(crate) fn open_files_limit() -> usize {
    // SAFETY: It may always be called.
    unsafe { bindings::raio_nofile_limit() }
}

/// Who runs, which isn't 0.
#[inline]
pub(crate) fn id() -> usize {
    // SAFETY: It may always be called.
    unsafe { bindings::raio_current() }.addr()
}

/// Is it that one which runs, and not an interrupt on top of it?
#[inline]
pub(crate) fn runs(id: usize) -> bool {
    // SAFETY: The address is only compared.
    unsafe { bindings::raio_in_task(core::ptr::without_provenance(id)) }
}

/// An index that user space chose, if it is one of an array of that `size`, so that a processor that
/// runs ahead of the check doesn't read elsewhere either.
#[inline]
pub(crate) fn clamp_index(index: usize, size: usize) -> Option<usize> {
    // SAFETY: It is less, and it may always be called.
    (index < size).then(|| unsafe { bindings::raio_array_index(index, size) })
}

/// Is it at its end because it was killed? (While it still runs, waits tell.)
pub(crate) fn is_killed() -> bool {
    // SAFETY: It may always be called.
    unsafe { bindings::raio_task_killed() }
}

/// Does it belong to the kernel, and may be needed by everybody?
pub(crate) fn is_kernel_thread() -> bool {
    // SAFETY: It may always be called.
    unsafe { bindings::raio_task_is_kernel_thread() }
}

/// Is a signal pending?
pub(crate) fn has_signal() -> bool {
    // SAFETY: It may always be called.
    unsafe { bindings::raio_signal_pending() }
}

/// Lets others have the processor, if they want it. For who asks again and again. Process context.
pub(crate) fn relax() {
    // SAFETY: As the caller says.
    unsafe { bindings::raio_relax() }
}

/// Are there others who want this processor?
pub(crate) fn others_wait() -> bool {
    // SAFETY: It may always be called.
    unsafe { bindings::raio_others_wait() }
}

/// Sleeps for so many microseconds. Process context.
pub(crate) fn pause(us: u32) {
    // SAFETY: As the caller says.
    unsafe { bindings::raio_pause(us) }
}

/// The user that what the task makes is charged to: its own, unless it is in a user namespace that
/// an ordinary user made, for who may have many users there.
pub(crate) fn charged_user() -> u32 {
    // SAFETY: It may always be called.
    unsafe { bindings::raio_charged_user() }
}

/// Says in the log, not too often, that the task has waited `seconds` for `nr` requests to end, of
/// which `file` has the oldest, or without it the block device of that number one. If it is 0, there are none,
/// but calls that don't return.
pub(crate) fn report_stuck(file: Option<&File>, device: u32, nr: usize, seconds: u32) {
    let file = file.map_or(core::ptr::null_mut(), |file| file.as_ptr());
    // SAFETY: Null or a live file.
    unsafe { bindings::raio_report_stuck(file, device, nr, seconds) }
}
