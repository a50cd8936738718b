// SPDX-License-Identifier: GPL-2.0

//! The submission array: requests that user space writes where the kernel reads them, so that none is
//! copied and no pointer of user space is followed. It lies behind the ring, in the same mapping.
//!
//! User space may write to it at any time: what is read of it is read once. Its pages aren't moved. No
//! locks.

use crate::{
    abi::Iocb,
    kernel_ext::folio::OwnedFolio, //
};
use core::mem::size_of;
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
pub(super) struct SubmissionArray(KVVec<OwnedFolio>);

impl SubmissionArray {
    /// That of those pages.
    pub(super) fn new(pages: KVVec<OwnedFolio>) -> Self {
        Self(pages)
    }

    /// Entries.
    pub(super) fn nr(&self) -> u32 {
        self.0.len() as u32 * PER_PAGE
    }

    /// Reads the entry that is `by` further on than `first`, around the end. `EINVAL` if there is none.
    #[inline]
    pub(super) fn read(&self, first: u32, by: u32) -> Result<Iocb> {
        let index = first
            .wrapping_add(by)
            .checked_rem(self.nr())
            .ok_or(EINVAL)?;
        let page = self.0.get((index / PER_PAGE) as usize).ok_or(EINVAL)?;
        let offset = (index % PER_PAGE) as usize * size_of::<Iocb>();
        // SAFETY: An entry lies in one page, aligned, which stays for as long as `self`. User space may
        // write to it at the same time; any bytes will do.
        Ok(unsafe { page.address().add(offset).cast::<Iocb>().read_volatile() })
    }
}
