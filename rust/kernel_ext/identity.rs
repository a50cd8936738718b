// SPDX-License-Identifier: GPL-2.0

//! On whose behalf a kernel thread does something: with whose credentials, memory and rights to that, limits and
//! I/O context, and to whose account.
//!
//! What is charged by the kernel is charged to that process: memory and block I/O to its cgroups, the
//! bytes that were read and written to itself. The time on the processor is the kernel thread's.
//! Signals that a file sends to who writes to it are that process's, too.

use crate::{
    bindings,
    kernel_ext::task, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    cred::Credential,
    mm::Mm,
    sync::aref::ARef,
    types::ScopeGuard, //
};

/// Of a task, as it was when this was made.
///
/// # Invariants
///
/// Owns a reference to each of `io_context` and `blkcg` of `who` that isn't null, and to its `process`, a group
/// leader. Its `cred` are `credentials`.
pub(crate) struct Identity {
    who: bindings::raio_identity,
    credentials: ARef<Credential>,
}

// SAFETY: References to what may be used, and put, by every thread.
unsafe impl Send for Identity {}
// SAFETY: As above; nothing of it changes.
unsafe impl Sync for Identity {}

impl Identity {
    /// The running task's.
    pub(crate) fn current() -> Self {
        let credentials = task::credentials();
        // INVARIANT: The references that are taken here.
        // SAFETY: They may always be called by a task that isn't at its end. It has a leader.
        let who = unsafe {
            bindings::raio_identity {
                cred: credentials.as_ptr(),
                io_context: bindings::raio_get_io_context(),
                blkcg: bindings::raio_get_blkcg(),
                process: bindings::raio_get_process(),
                fsize: bindings::raio_fsize_limit(),
                rights: bindings::raio_access_rights(),
            }
        };
        Self { who, credentials }
    }

    /// Is it that of the running task, now?
    pub(crate) fn is_current(&self) -> bool {
        // SAFETY: What is compared lives, by the type invariant.
        unsafe { bindings::raio_is_current(&self.who) }
    }

    /// Has the process that address space, still? Any context.
    pub(crate) fn is_in(&self, mm: &Mm) -> bool {
        // SAFETY: The process lives, by the type invariant; `mm` is only compared with.
        unsafe { bindings::raio_process_is_in(self.who.process, mm.as_raw()) }
    }

    /// Runs `f` with it, in `mm`. [`None`] if nobody has that any more. The running task must be a
    /// kernel thread.
    pub(crate) fn assume<R>(&self, mm: &Mm, f: impl FnOnce() -> R) -> Option<R> {
        // SAFETY: `mm` is alive.
        if !unsafe { bindings::raio_mmget(mm.as_raw()) } {
            return None;
        }
        // Not at once: whoever is the last may have to wait for what is done by the likes of us.
        // SAFETY: The reference was just taken.
        let _mm = ScopeGuard::new(|| unsafe { bindings::mmput_async(mm.as_raw()) });

        let mut saved = ptr::null_mut();
        // SAFETY: A kernel thread has no mm, I/O context, and so on of its own but those that are put
        // back below, and shares none of this with others. Ours are kept by `self`, and `mm` has users.
        unsafe {
            // What was done for others is nobody's.
            bindings::raio_forget_io();
            bindings::kthread_use_mm(mm.as_raw());
            let memcg = bindings::raio_charge_mm(mm.as_raw(), &mut saved);
            bindings::raio_assume_blkcg(self.who.blkcg);
            let io_context = bindings::raio_swap_io_context(self.who.io_context);
            let fsize = bindings::raio_swap_fsize_limit(self.who.fsize);
            let rights = bindings::raio_swap_access_rights(self.who.rights);
            let ret = task::acting_as(&self.credentials, f);
            bindings::raio_swap_access_rights(rights);
            bindings::raio_swap_fsize_limit(fsize);
            let used = bindings::raio_swap_io_context(io_context);
            if !used.is_null() && used != self.who.io_context {
                // There was none, and a scheduler has made one.
                bindings::raio_drop_io_context(used);
            }
            bindings::raio_assume_blkcg(ptr::null_mut());
            bindings::raio_account_io(self.who.process);
            bindings::raio_uncharge_mm(memcg, saved);
            bindings::kthread_unuse_mm(mm.as_raw());
            Some(ret)
        }
    }
}

impl Identity {
    /// What the running task, who acts for the process, has read and written so far is that one's.
    pub(crate) fn account_io(&self) {
        // SAFETY: The process is kept by `self`.
        unsafe {
            if bindings::raio_has_done_io() {
                bindings::raio_account_io(self.who.process);
            }
        }
    }

    /// What a file has sent the running task, who acts for the process, was for that. To be called by
    /// a [`Killable`], which isn't to be killed after that.
    pub(crate) fn forward_signals(&self) {
        // SAFETY: The process is kept by `self`.
        unsafe { bindings::raio_forward_signals(self.who.process) }
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        // SAFETY: The references are ours, by the type invariant.
        unsafe {
            bindings::raio_put_io_context(self.who.io_context);
            if !self.who.blkcg.is_null() {
                bindings::raio_put_blkcg(self.who.blkcg);
            }
            bindings::raio_put_process(self.who.process);
        }
    }
}

/// A kernel thread that takes signals for a time. To be killed ends what it waits for, and nothing else.
///
/// # Invariants
///
/// It is the one that runs [`Self::begin`], and lives until [`Self::end`].
pub(crate) struct Killable(NonNull<bindings::task_struct>);

impl Killable {
    /// The running one.
    pub(crate) fn begin() -> Self {
        // INVARIANT: The running task.
        // SAFETY: It may be called by a kernel thread. There is a running task.
        unsafe {
            bindings::raio_allow_signals();
            Self(NonNull::new_unchecked(bindings::raio_current()))
        }
    }

    /// Kills it. Any context.
    pub(crate) fn kill(&self) {
        // SAFETY: It lives, by the type invariant.
        unsafe { bindings::raio_kill_task(self.0.as_ptr()) }
    }

    /// It can't be any more. To be called by it, when nobody else uses `self`, nor will.
    pub(crate) fn end(&self) {
        // SAFETY: It may be called by a kernel thread.
        unsafe { bindings::raio_disallow_signals() }
    }
}
