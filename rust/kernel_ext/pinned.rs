// SPDX-License-Identifier: GPL-2.0

//! Memory of a process that is kept where it is, for one transfer or for as long as somebody wants, in the
//! form in which files and block devices take it.
//!
//! C headers: `include/linux/mm.h`, `include/linux/bvec.h`.
//!
//! What is locked for longer is [charged for](super::locked). Pages that lie beside each other in one folio are one
//! part: a huge page is kept whole.

use super::{
    file_io::Direction,
    locked::{
        Folios,
        Locked, //
    },
};
use crate::bindings;
use core::{
    mem::MaybeUninit,
    ptr, //
};
use kernel::{
    ffi,
    page::{
        PAGE_MASK,
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::Arc, //
};

/// Most that one may have, as elsewhere in the kernel: numbers of bytes fit into 31 bits.
const MAX: usize = 1 << 30;

/// Pages that are pinned, and released on drop.
struct Pins(KVVec<*mut bindings::page>);

impl Pins {
    fn new(addr: usize, pages: usize) -> Result<Self> {
        let mut pins = KVVec::with_capacity(pages, GFP_KERNEL_ACCOUNT)?;
        while pins.len() < pages {
            let done = pins.len();
            let at = addr.wrapping_add(done << PAGE_SHIFT) & PAGE_MASK;
            // SAFETY: There is room for so many. What is wrong with the address is found.
            let got = unsafe {
                bindings::pin_user_pages_fast(
                    at,
                    (pages - done) as ffi::c_int,
                    bindings::FOLL_WRITE | bindings::FOLL_LONGTERM,
                    pins.spare_capacity_mut().as_mut_ptr().cast(),
                )
            };
            if got <= 0 {
                drop(Self(pins));
                return Err(match got {
                    0 => EFAULT,
                    e => Error::from_errno(e),
                });
            }
            // SAFETY: So many were written.
            unsafe { pins.inc_len(got as usize) };
        }
        Ok(Self(pins))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // A device may have written to them, which nothing tells of.
        // SAFETY: Each is a page that we have pinned. This is process context.
        unsafe { bindings::unpin_user_pages_dirty_lock(self.0.as_mut_ptr(), self.0.len(), true) }
    }
}

/// A buffer.
///
/// # Invariants
///
/// `vecs` are the pinned pages in their order, of which `ends` say where in the buffer each ends. The
/// last is `len`, which isn't 0.
pub(crate) struct PinnedBuffer {
    /// Where the process has it.
    addr: usize,
    len: usize,
    vecs: KVVec<bindings::bio_vec>,
    ends: KVVec<usize>,
    /// Returned first: a folio that isn't pinned any more may be another's at once.
    _locked: Locked,
    _pins: Pins,
}

// SAFETY: It is pages, which no thread owns.
unsafe impl Send for PinnedBuffer {}
// SAFETY: Nothing changes in it.
unsafe impl Sync for PinnedBuffer {}

/// Where a range of a buffer begins.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The part in which it begins, and those behind it. They are there for as long as the buffer is.
    pub(super) vecs: *const bindings::bio_vec,
    pub(super) nr: usize,
    /// Where in that part.
    pub(super) offset: usize,
}

impl PinnedBuffer {
    /// Pins `len` bytes at `addr` of the current process, which must be writable, as a thing of the set `of`.
    ///
    /// `EINVAL` for none or too many; `EFAULT`; `ENOMEM`, also over `RLIMIT_MEMLOCK`; `EOPNOTSUPP` for
    /// memory that can't be kept where it is.
    pub(crate) fn new(addr: usize, len: usize, of: &Arc<Folios>) -> Result<Self> {
        if len == 0 || len > MAX {
            return Err(EINVAL);
        }
        let end = addr.checked_add(len).ok_or(EFAULT)?;
        let offset = addr & !PAGE_MASK;
        let pages =
            (end.checked_add(PAGE_SIZE - 1).ok_or(EFAULT)? >> PAGE_SHIFT) - (addr >> PAGE_SHIFT);
        let pins = Pins::new(addr, pages)?;
        let locked = Locked::new(&pins.0, of)?;

        let mut vecs = KVVec::<bindings::bio_vec>::new();
        let mut ends = KVVec::<usize>::new();
        let mut done = 0usize;
        let mut last: *mut bindings::page = ptr::null_mut();
        for page in pins.0.iter().copied() {
            let at = if done == 0 { offset } else { 0 };
            let bytes = (PAGE_SIZE - at).min(len - done);
            done += bytes;
            // SAFETY: Both are pinned.
            let goes_on = !last.is_null() && unsafe { bindings::raio_page_follows(last, page) };
            last = page;
            if let (true, Some(vec), Some(end)) = (goes_on, vecs.last_mut(), ends.last_mut()) {
                vec.bv_len += bytes as u32;
                *end = done;
                continue;
            }
            let vec = bindings::bio_vec {
                bv_page: page,
                bv_len: bytes as u32,
                bv_offset: at as u32,
            };
            vecs.push(vec, GFP_KERNEL_ACCOUNT)?;
            ends.push(done, GFP_KERNEL_ACCOUNT)?;
        }
        // INVARIANT: Each page was added to the last part or is one of its own.
        Ok(Self {
            addr,
            len,
            vecs,
            ends,
            _pins: pins,
            _locked: locked,
        })
    }

    /// Where `len` bytes are that the process has at `addr`. `EFAULT` if they aren't all in it.
    #[inline(always)]
    pub(crate) fn place(&self, addr: usize, len: usize) -> Result<Place> {
        let from = addr.wrapping_sub(self.addr);
        if from >= self.len || len > self.len - from {
            return Err(EFAULT);
        }
        if self.vecs.len() == 1 {
            return Ok(Place {
                vecs: self.vecs.as_ptr(),
                nr: 1,
                offset: from,
            });
        }
        self.find(from).ok_or(EFAULT)
    }

    /// Where its byte number `from` is.
    fn find(&self, from: usize) -> Option<Place> {
        let first = self.ends.partition_point(|end| *end <= from);
        let before = match first.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        let vecs = self.vecs.get(first..)?;
        Some(Place {
            vecs: vecs.as_ptr(),
            nr: vecs.len(),
            offset: from - before,
        })
    }
}

/// Most pages that are pinned for one transfer.
const TRANSFER_PAGES: usize = 33;

/// And the parts that they are.
const TRANSFER_PARTS: usize = 4;

/// Memory that is pinned for one transfer.
///
/// # Invariants
///
/// The first `nr` of `vecs` are initialised, and what they say is pinned by us. If it `is_read`, it was
/// pinned to be written to.
pub(crate) struct TransferPins {
    vecs: [MaybeUninit<bindings::bio_vec>; TRANSFER_PARTS],
    nr: usize,
    is_read: bool,
}

impl TransferPins {
    /// No memory.
    pub(crate) const fn new() -> Self {
        // INVARIANT: None is initialised.
        Self {
            vecs: [MaybeUninit::uninit(); TRANSFER_PARTS],
            nr: 0,
            is_read: false,
        }
    }

    /// Pins `len` bytes at `addr` of the current process. None may be pinned yet. [`None`] if they can't be had, or
    /// are too many pages or parts; then nothing is pinned.
    #[inline]
    pub(crate) fn pin(&mut self, addr: usize, len: usize, dir: Direction) -> Option<Place> {
        let offset = addr & !PAGE_MASK;
        let pages = offset.checked_add(len)?.div_ceil(PAGE_SIZE);
        if pages > TRANSFER_PAGES || len == 0 {
            return None;
        }
        let mut pins = [const { MaybeUninit::<*mut bindings::page>::uninit() }; TRANSFER_PAGES];
        let flags = match dir {
            Direction::Read => bindings::FOLL_WRITE,
            Direction::Write => 0,
        };
        // SAFETY: There is room for so many. What is wrong with the address is found.
        let got = unsafe {
            bindings::pin_user_pages_fast(
                addr & PAGE_MASK,
                pages as ffi::c_int,
                flags,
                pins.as_mut_ptr().cast(),
            )
        };
        let got = usize::try_from(got).unwrap_or(0);
        self.is_read = dir == Direction::Read;
        let mut left = len;
        let mut at = offset;
        let mut last: *mut bindings::page = ptr::null_mut();
        for pin in pins.iter().take(got) {
            // SAFETY: So many were written.
            let page = unsafe { pin.assume_init() };
            let bytes = (PAGE_SIZE - at).min(left);
            if !self.add(last, page, at, bytes) {
                break;
            }
            left -= bytes;
            at = 0;
            last = page;
        }
        if left > 0 {
            self.give_up(&mut pins, got);
            return None;
        }
        Some(Place {
            vecs: self.vecs.as_ptr().cast(),
            nr: self.nr,
            offset: 0,
        })
    }

    /// Adds so many bytes of a page behind `last`, which is null at first. False if there is no room.
    #[inline(always)]
    fn add(
        &mut self,
        last: *mut bindings::page,
        page: *mut bindings::page,
        at: usize,
        bytes: usize,
    ) -> bool {
        // SAFETY: Both are pinned.
        if !last.is_null() && unsafe { bindings::raio_page_follows(last, page) } {
            if let Some(vec) = self.nr.checked_sub(1).and_then(|n| self.vecs.get_mut(n)) {
                // SAFETY: By the type invariant.
                unsafe { vec.assume_init_mut() }.bv_len += bytes as u32;
                return true;
            }
        }
        let Some(vec) = self.vecs.get_mut(self.nr) else {
            return false;
        };
        // INVARIANT: The caller has pinned it.
        vec.write(bindings::bio_vec {
            bv_page: page,
            bv_len: bytes as u32,
            bv_offset: at as u32,
        });
        self.nr += 1;
        true
    }

    #[cold]
    fn give_up(
        &mut self,
        pins: &mut [MaybeUninit<*mut bindings::page>; TRANSFER_PAGES],
        got: usize,
    ) {
        // INVARIANT: What was added is released here.
        self.nr = 0;
        // SAFETY: So many were written, and each is a page that was pinned.
        unsafe { bindings::unpin_user_pages(pins.as_mut_ptr().cast(), got) }
    }

    fn vecs(&self) -> &[bindings::bio_vec] {
        // SAFETY: So many are initialised, by the type invariant.
        unsafe { core::slice::from_raw_parts(self.vecs.as_ptr().cast(), self.nr) }
    }

    /// Says that what is read into is dirty, where that is to be had without waiting.
    #[inline]
    pub(crate) fn dirty(&self) {
        if self.is_read {
            for vec in self.vecs() {
                // SAFETY: It is pinned.
                unsafe { bindings::raio_vec_try_dirty(vec) };
            }
        }
    }

    /// Releases it, in any context; false if that has to wait, for what was read isn't known to be dirty any more:
    /// then it has to be [released](Self::release) in process context.
    #[inline]
    pub(crate) fn try_release(&mut self) -> bool {
        if self.is_read {
            // SAFETY: It is pinned.
            let dirty = |vec| unsafe { bindings::raio_vec_is_dirty(vec) };
            if !self.vecs().iter().all(|vec| dirty(vec)) {
                return false;
            }
        }
        self.unpin();
        true
    }

    /// Releases it. Sleeps.
    pub(crate) fn release(&mut self) {
        if self.is_read {
            for vec in self.vecs() {
                // SAFETY: It is pinned.
                unsafe { bindings::raio_vec_dirty(vec) };
            }
        }
        self.unpin();
    }

    #[inline]
    fn unpin(&mut self) {
        for vec in self.vecs() {
            // SAFETY: It is pinned, and no longer used.
            unsafe { bindings::raio_vec_unpin(vec) };
        }
        // INVARIANT: Nothing is.
        self.nr = 0;
    }
}
