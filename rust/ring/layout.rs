// SPDX-License-Identifier: GPL-2.0

//! Where things are in a ring: pure arithmetic, with nothing of the kernel in it.
//! tools/core-tests runs its tests on the host.
//!
//! A ring is an array of whole pages: a header as large as one event, then the slots. A slot
//! therefore never straddles two pages. One slot always stays empty, so that a full ring differs
//! from an empty one.

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
/// Bytes of the header, and of an event.
pub(crate) const EVENT: usize = 32;

const PER_PAGE: usize = PAGE / EVENT;

/// The shape of a ring.
///
/// # Invariants
///
/// `nr` is at least 2 and less than 2^31, and `nr + 1` events fill whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    nr: u32,
}

/// Slots that lie beside each other in one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The page they are in.
    pub(crate) page: usize,
    /// Where in it they start, in bytes.
    pub(crate) offset: usize,
    /// How many they are.
    pub(crate) len: u32,
}

impl Layout {
    /// A ring in which `events` can lie unread; the pages are filled up. [`None`] if that is 0 or
    /// more than `max`, which must be less than 2^30.
    pub(crate) const fn for_events(events: u32, max: u32) -> Option<Self> {
        if events == 0 || events > max || max >= 1 << 30 {
            return None;
        }
        // The header, the events, the one that stays empty.
        let pages = (events as usize + 2).div_ceil(PER_PAGE);
        // INVARIANT: At least one page of 128; at most 2^30 + 127.
        Some(Self {
            nr: (pages * PER_PAGE - 1) as u32,
        })
    }

    /// Slots.
    pub(crate) const fn nr(self) -> u32 {
        self.nr
    }

    /// Events that can lie in it.
    pub(crate) const fn capacity(self) -> u32 {
        self.nr - 1
    }

    /// Pages.
    pub(crate) const fn pages(self) -> usize {
        (self.nr as usize + 1) / PER_PAGE
    }

    /// Bytes.
    pub(crate) const fn bytes(self) -> usize {
        self.pages() * PAGE
    }

    /// An index that may come from user space, as one that is in the ring.
    #[inline]
    pub(crate) const fn clamp(self, index: u32) -> u32 {
        // The compiler can't know that `nr` isn't 0, and would have to panic.
        match index.checked_rem(self.nr) {
            Some(index) => index,
            None => 0,
        }
    }

    /// The index that is `by` further on, for `index < nr` and `by <= nr`.
    #[inline]
    pub(crate) const fn advance(self, index: u32, by: u32) -> u32 {
        let sum = index + by;
        if sum < self.nr {
            sum
        } else {
            sum - self.nr
        }
    }

    /// Events between two indices that are in the ring.
    #[inline]
    pub(crate) const fn used(self, head: u32, tail: u32) -> u32 {
        if head <= tail {
            tail - head
        } else {
            tail + self.nr - head
        }
    }

    /// The page and the byte in it where slot `index < nr` is.
    #[inline]
    pub(crate) const fn slot(self, index: u32) -> (usize, usize) {
        let at = index as usize + 1;
        (at / PER_PAGE, at % PER_PAGE * EVENT)
    }

    /// The events from `head` on that can be copied at once: up to `tail`, the end of the page, the
    /// end of the ring, and `max`.
    pub(crate) const fn run(self, head: u32, tail: u32, max: u32) -> Run {
        let (page, offset) = self.slot(head);
        let mut len = if head <= tail {
            tail - head
        } else {
            self.nr - head
        };
        let in_page = ((PAGE - offset) / EVENT) as u32;
        if len > in_page {
            len = in_page;
        }
        if len > max {
            len = max;
        }
        Run { page, offset, len }
    }
}

/// How many of `unread` events, which the kernel put there and hasn't seen go, have been read when
/// so many are still there. User space may have written anything to its index: the result is never
/// more than `unread`.
#[inline]
pub(crate) const fn reaped(unread: u32, still_there: u32) -> u32 {
    unread.saturating_sub(still_there)
}
