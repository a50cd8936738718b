// SPDX-License-Identifier: GPL-2.0

//! The beginning and the end of a ring. `ring_lock` is held from before the first page exists until
//! the ring is published; the end starts with disconnecting the ring from its inode, so that
//! migration no longer finds it.

use super::{
    layout::{
        Layout,
        PAGE, //
    },
    Locked,
    Pages,
    Posted,
    Ring,
    RingUser, //
};
use crate::{
    abi, bindings,
    kernel_ext::{
        folio::OwnedFolio,
        mutex::KillableMutex,
        pseudo_fs::{
            PageFile,
            PseudoFs, //
        },
        wait::{
            LevelQueue,
            PollQueue, //
        }, //
    },
};
use core::{cell::UnsafeCell, mem::offset_of, ops::Deref};
use kernel::{
    new_spinlock_irq,
    prelude::*,
    static_lock_class,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};

/// Who has a ring. On drop its pages are freed; what is left until the last reference is dropped,
/// by a migration perhaps, is an empty shell.
///
/// # Invariants
///
/// The ring is connected to its file from when it is mapped until it is disconnected on drop.
pub(crate) struct RingOwner(Arc<Ring>);

impl RingOwner {
    /// A ring without pages, with room for `more` pages behind it, whose events `pollers` are told of.
    /// Fails with `ENOMEM`.
    pub(crate) fn new(
        fs: &PseudoFs,
        layout: Layout,
        more: usize,
        pollers: Arc<PollQueue>,
    ) -> Result<Self> {
        let pages = layout.pages().saturating_add(more);
        let file = PageFile::new(fs, c"[raio]", pages)?;
        let ring = Arc::pin_init(
            pin_init!(Ring {
                layout,
                bytes: pages.saturating_mul(PAGE),
                file,
                pages: UnsafeCell::new(KVVec::new()),
                user: UnsafeCell::new(None),
                address: Atomic::new(0),
                mappings: Atomic::new(0),
                available: Atomic::new(layout.capacity()),
                tail: Atomic::new(0),
                ring_lock <- KillableMutex::new(c"raio_ring_lock", static_lock_class!()),
                completion_lock <- new_spinlock_irq!(
                    Posted { tail: 0, unread: 0 },
                    "raio_completion_lock"
                ),
                waiters <- LevelQueue::new(c"raio_waiters", static_lock_class!()),
                pollers,
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        Ok(Self(ring))
    }

    /// The pages behind the ring, `nr` of them, zeroed. They aren't moved. Fails with `ENOMEM`.
    pub(crate) fn populate_behind(&self, nr: usize) -> Result<KVVec<OwnedFolio>> {
        let mut pages = KVVec::with_capacity(nr, GFP_KERNEL_ACCOUNT)?;
        let first = self.0.layout.pages();
        for index in first..first.saturating_add(nr) {
            // The capacity is there already, so this doesn't allocate.
            pages.push(self.0.file.populate(index, false)?, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(pages)
    }

    /// Another reference, that doesn't keep the pages.
    pub(crate) fn share(&self) -> Arc<Ring> {
        self.0.clone()
    }
}

impl Deref for RingOwner {
    type Target = Ring;

    fn deref(&self) -> &Ring {
        &self.0
    }
}

impl Drop for RingOwner {
    fn drop(&mut self) {
        // First of all: from here on migration doesn't find the ring.
        self.0.file.disconnect();
        // A migration that found it before has `ring_lock`, or fails to get it.
        let pages = {
            let locked = self.0.lock();
            let _posting = self.0.posting();
            // SAFETY: Both locks are held, as the invariant of `pages` asks for.
            unsafe { core::mem::take(&mut *locked.ring.pages.get()) }
        };
        // Without locks, for it takes those of the folios, which migration takes before ours.
        self.0.file.truncate();
        drop(pages);
    }
}

/// A ring that is being set up: `ring_lock` is held.
pub(crate) struct RingSetup<'a> {
    locked: Locked<'a>,
}

impl Ring {
    /// Begins the set-up.
    pub(crate) fn begin_setup(&self) -> RingSetup<'_> {
        RingSetup {
            locked: self.lock(),
        }
    }
}

impl RingSetup<'_> {
    /// Makes the pages and writes the header, but for the id. Fails with `ENOMEM`.
    pub(crate) fn populate(&self) -> Result {
        let ring = self.locked.ring;
        let layout = ring.layout;
        let mut pages = KVVec::with_capacity(layout.pages(), GFP_KERNEL_ACCOUNT)?;
        for index in 0..layout.pages() {
            // The capacity is there already, so this doesn't allocate.
            pages.push(ring.file.populate(index, true)?, GFP_KERNEL_ACCOUNT)?;
        }
        {
            let _posting = ring.posting();
            // INVARIANT: As many folios as the layout has pages.
            // SAFETY: Both locks are held, as the invariant of `pages` asks for.
            unsafe { *ring.pages.get() = pages };
        }
        for (offset, value) in [
            (offset_of!(bindings::raio_ring, id), u32::MAX),
            (offset_of!(bindings::raio_ring, nr), layout.nr()),
            (offset_of!(bindings::raio_ring, magic), abi::ring::MAGIC),
            (
                offset_of!(bindings::raio_ring, compat_features),
                abi::ring::COMPAT_FEATURES,
            ),
            (
                offset_of!(bindings::raio_ring, incompat_features),
                abi::ring::INCOMPAT_FEATURES,
            ),
            (
                offset_of!(bindings::raio_ring, header_length),
                super::EVENT as u32,
            ),
        ] {
            self.write(offset, value);
        }
        Ok(())
    }

    /// Maps it for the current process and returns the address. Fails as `mmap(2)` does.
    pub(crate) fn map(&self, owner: &RingOwner) -> Result<usize> {
        // SAFETY: `RingOwner::drop` disconnects it before it drops the reference. (Nothing is moved
        // while `ring_lock` is held.)
        unsafe { owner.file.connect(&owner.0) };
        let ring = self.locked.ring;
        ring.file.map(ring.bytes)
    }

    /// Writes the id and the address, the last things that are missing, and lets go of `ring_lock`.
    /// From now on pages may be moved, and `user` is told when the last mapping is gone. False if it
    /// is gone already, and `user` won't be told.
    ///
    /// # Safety
    ///
    /// `user` must live until it is told.
    pub(crate) unsafe fn publish(self, id: u32, address: usize, user: RingUser) -> bool {
        self.write(offset_of!(bindings::raio_ring, id), id);
        let ring = self.locked.ring;
        ring.address.store(address, Relaxed);
        ring.file.exclusively(|| {
            let mapped = ring.mappings.load(Relaxed) != 0;
            if mapped {
                // SAFETY: The lock that guards it is held.
                unsafe { *ring.user.get() = Some(user) };
            }
            mapped
        })
    }

    fn write(&self, offset: usize, value: u32) {
        if let Some(word) = self.locked.header(offset) {
            // Relaxed: nobody else knows of the ring until its context is published.
            word.store(value, Relaxed);
        }
    }
}
