// SPDX-License-Identifier: GPL-2.0

//! The submission array: requests that user space writes where the kernel reads them, so that none is
//! copied and no pointer of user space is followed. It lies behind the ring, in the same mapping.
//!
//! User space may write to it at any time: what is read of it is read once. Its pages aren't moved. No
//! locks.

use crate::{
    abi::Iocb,
    kernel_ext::{
        folio::OwnedFolio,
        task, //
    },
};
use core::{
    marker::PhantomData,
    mem::size_of, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

const PER_PAGE: u32 = (PAGE_SIZE / size_of::<Iocb>()) as u32;

/// The pages that `nr` entries take.
pub(super) fn pages(nr: u32) -> usize {
    nr.div_ceil(PER_PAGE) as usize
}

/// An array; it may have no entry.
///
/// # Invariants
///
/// `nr` is how many entries the pages have.
pub(super) struct SubmissionArray {
    pages: KVVec<OwnedFolio>,
    nr: u32,
}

impl SubmissionArray {
    /// That of those pages.
    pub(super) fn new(pages: KVVec<OwnedFolio>) -> Self {
        // INVARIANT: So many fit into them.
        Self {
            nr: pages.len() as u32 * PER_PAGE,
            pages,
        }
    }

    /// Entries.
    pub(super) fn nr(&self) -> u32 {
        self.nr
    }

    /// Reads the entry that is `by` further on than `first`, around the end, and returns the next one with it, if
    /// that lies beside it. `EINVAL` if there is none.
    #[inline(always)]
    pub(super) fn read(&self, first: u32, by: u32) -> Result<(Iocb, Option<Next<'_>>)> {
        let index = first.wrapping_add(by);
        let index = if index < self.nr {
            index
        } else {
            index.checked_rem(self.nr).ok_or(EINVAL)?
        };
        let page =
            task::clamp_index((index / PER_PAGE) as usize, self.pages.len()).ok_or(EINVAL)?;
        let page = self.pages.get(page).ok_or(EINVAL)?.address().cast::<Iocb>();
        let in_page = index % PER_PAGE;
        // SAFETY: Entries of that page, which stays for as long as `self`. User space may write to it at the same
        // time; any bytes will do.
        unsafe {
            let at = page.cast_const().add(in_page as usize);
            // INVARIANT: It is one of them, too.
            let next = (in_page + 1 < PER_PAGE).then(|| Next(at.add(1), PhantomData));
            Ok((at.read_volatile(), next))
        }
    }
}

/// An entry that isn't read yet.
///
/// # Invariants
///
/// It is one of the array.
#[derive(Clone, Copy)]
pub(super) struct Next<'a>(*const Iocb, PhantomData<&'a SubmissionArray>);

impl Next<'_> {
    /// What it has for a position now, which may be another when it is read.
    #[inline(always)]
    pub(super) fn position(self) -> u64 {
        // SAFETY: By the type invariant; any bytes will do.
        unsafe { Iocb::position(self.0) }
    }
}
