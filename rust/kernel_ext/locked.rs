// SPDX-License-Identifier: GPL-2.0

//! The account of memory that is locked for a user: under `RLIMIT_MEMLOCK`, and of the address space.
//!
//! C headers: `include/linux/mm.h`, `include/linux/sched/user.h`.
//!
//! A folio of many pages stays whole as long as any of them is locked. So all of it is charged for, once for all
//! that is in it, until the last of that has gone.
//!
//! # Locks
//!
//! That of [`Folios`], a mutex. Nothing nests inside of it.

use super::mm;
use crate::bindings;
use core::ptr;
use kernel::{
    error::from_err_ptr,
    mm::Mm,
    new_mutex,
    prelude::*,
    rbtree::{
        Entry,
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    },
};

/// So many pages, returned on drop.
struct Charge {
    mm: ARef<Mm>,
    user: *mut bindings::user_struct,
    pages: usize,
}

// SAFETY: A reference to a user may be given up by every thread.
unsafe impl Send for Charge {}

impl Charge {
    /// `ENOMEM` if the user can't lock so many pages more.
    fn new(pages: usize) -> Result<Self> {
        let mm = mm::current().ok_or(EINVAL)?;
        // SAFETY: An address space that is kept.
        let user = from_err_ptr(unsafe { bindings::raio_charge_locked(mm.as_raw(), pages) })?;
        Ok(Self { mm, user, pages })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // SAFETY: That was charged by `new`.
        unsafe { bindings::raio_uncharge_locked(self.mm.as_raw(), self.user, self.pages) }
    }
}

/// The folios of many pages that things of a set are in.
///
/// # Invariants
///
/// They are the folios that each [`Locked`] of the set has, with how often they have it.
#[pin_data]
pub(crate) struct Folios {
    /// By address.
    #[pin]
    held: Mutex<RBTree<usize, Held>>,
}

struct Held {
    by: usize,
    _charge: Charge,
}

impl Folios {
    /// None. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                held <- new_mutex!(RBTree::new(), "raio_folios"),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    fn hold(&self, folio: usize, pages: usize) -> Result {
        if let Some(mut held) = self.held.lock().find_mut(&folio) {
            held.get_mut().by += 1;
            return Ok(());
        }
        let node = RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT)?;
        match self.held.lock().entry(folio) {
            Entry::Occupied(mut held) => held.get_mut().by += 1,
            Entry::Vacant(entry) => {
                let held = Held {
                    by: 1,
                    _charge: Charge::new(pages)?,
                };
                entry.insert(held, node);
            }
        }
        Ok(())
    }

    fn release(&self, folio: usize) {
        let mut held = self.held.lock();
        if let Some(mut entry) = held.find_mut(&folio) {
            let by = &mut entry.get_mut().by;
            *by = by.saturating_sub(1);
            if *by == 0 {
                entry.remove();
            }
        }
    }
}

/// Pages that are charged for, until that is dropped. Process context.
pub(super) struct Locked {
    _small: Charge,
    _large: Large,
}

/// The folios that are more than a page.
struct Large {
    folios: KVVec<usize>,
    of: Arc<Folios>,
}

impl Locked {
    /// Charges for `pages`, which are pinned, as a thing of the set `of`. `ENOMEM`, also if the user can't lock so
    /// many.
    pub(super) fn new(pages: &[*mut bindings::page], of: &Arc<Folios>) -> Result<Self> {
        let mut large = Large {
            folios: KVVec::new(),
            of: of.clone(),
        };
        let mut small = 0;
        for page in pages {
            let mut folio = ptr::null();
            // SAFETY: It is pinned.
            let pages = unsafe { bindings::raio_folio_of(*page, &mut folio) };
            let folio = folio.addr();
            if pages == 1 {
                small += 1;
            } else if large.folios.last() != Some(&folio) {
                // INVARIANT: It has it, and is counted.
                large.folios.reserve(1, GFP_KERNEL_ACCOUNT)?;
                of.hold(folio, pages)?;
                large.folios.push(folio, GFP_KERNEL_ACCOUNT)?;
            }
        }
        Ok(Self {
            _small: Charge::new(small)?,
            _large: large,
        })
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        for folio in &self.folios {
            self.of.release(*folio);
        }
    }
}
