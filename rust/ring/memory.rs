// SPDX-License-Identifier: GPL-2.0

//! What memory management does to a ring: user space moves it in its address space, or unmaps it,
//! at its end if not before; the kernel moves it page by page, while events are posted and read.
//!
//! When mappings come and go, the lock that says who owns the pages is held; see
//! `kernel_ext::pseudo_fs`.
//!
//! In migration `ring_lock` is tried for, since the caller may hold locks that are taken inside of
//! it: a failure costs the migration a retry. `completion_lock` covers the copy and the change of
//! the page array, no more, so that no event is written to the old page once it was copied.

use super::Ring;
use crate::{
    kernel_ext::pseudo_fs::{
        Migration,
        PageOwner, //
    },
    stats::Counter,
};
use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};

impl PageOwner for Ring {
    fn mapped(&self) {
        self.mappings.add(1u32, Relaxed);
    }

    fn unmapped(&self) {
        if self.mappings.fetch_sub(1u32, Relaxed) != 1 {
            return;
        }
        // SAFETY: The caller holds the lock that guards it, and it lives until it is told here.
        unsafe {
            if let Some(user) = (*self.user.get()).take() {
                (user.unmapped)(user.who);
            }
        }
    }

    fn moved(&self, address: usize, len: usize) -> Result {
        let old = self.address();
        if len != self.bytes || old == 0 {
            return Err(EINVAL);
        }
        // `mmap_lock` keeps other moves away, so it can only have been taken.
        // Relaxed: see `address`.
        self.address
            .cmpxchg(old, address, Relaxed)
            .map_err(|_| EINVAL)?;
        Ok(())
    }

    fn migrate(&self, page: Migration<'_>) -> Result {
        let locked = self.try_lock().ok_or(EAGAIN)?;
        let index = page.index();
        let pages = self.pages.get();
        // SAFETY: `ring_lock` is held, so nobody changes it.
        let held = unsafe { &*pages }.get(index).ok_or(EINVAL)?;
        let replaced = page.replace(held)?;

        let posting = self.posting();
        // SAFETY: Both locks are held, as the invariant of `pages` asks for, and the reference
        // above is no longer used.
        let held = unsafe { &mut *pages }.get_mut(index);
        let old = held.map(|held| replaced.finish(held));
        drop(posting);
        drop(old);
        drop(locked);
        Counter::Migrated.add(1);
        Ok(())
    }
}
