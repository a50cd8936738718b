// SPDX-License-Identifier: GPL-2.0

//! A hash table of objects that are linked through a field of their own, as those of a
//! [`Fifo`](super::fifo::Fifo): joining it allocates nothing, and each can leave it from anywhere.
//!
//! Keys may be what user space chose, and many objects may have the same. Where a key belongs is
//! known to nobody outside, so it can't choose different ones that meet.

use super::fifo::{
    neighbours,
    Linked,
    Neighbours, //
};
use crate::bindings;
use core::ptr::NonNull;
use kernel::prelude::*;

/// The table. It doesn't own its members.
///
/// # Invariants
///
/// Each bucket is the first of its members, which are linked in both directions. All are alive, and
/// their links initialised.
/// There are `1 << (64 - shift)` buckets.
pub(crate) struct HashTable<T: Linked<ID>, const ID: u64> {
    buckets: KVVec<Option<NonNull<T>>>,
    shift: u32,
    factor: u64,
}

// SAFETY: It is moved with the pointers to its members, which allow what `T` allows.
unsafe impl<T: Linked<ID> + Send, const ID: u64> Send for HashTable<T, ID> {}

impl<T: Linked<ID>, const ID: u64> HashTable<T, ID> {
    /// An empty one, good for `most` members. Fails with `ENOMEM`.
    pub(crate) fn new(most: usize) -> Result<Self> {
        // Two to each on average, when it is full.
        let buckets = most.div_ceil(2).next_power_of_two().max(2);
        Ok(Self {
            buckets: KVVec::from_elem(None, buckets, GFP_KERNEL_ACCOUNT)?,
            shift: u64::BITS - buckets.trailing_zeros(),
            // SAFETY: It may always be called.
            factor: unsafe { bindings::get_random_u64() } | 1,
        })
    }

    /// Multiplicative hashing (Knuth, volume 3, section 6.4), with a factor of our own.
    fn bucket(&self, key: u64) -> usize {
        (key.wrapping_mul(self.factor) >> self.shift) as usize
    }

    /// Joins the table.
    ///
    /// # Safety
    ///
    /// `member` must be in no table of that `ID`, and leave this one before it dies.
    pub(crate) unsafe fn insert(&mut self, key: u64, member: NonNull<T>) {
        let bucket = self.bucket(key);
        let Some(first) = self.buckets.get_mut(bucket) else {
            return;
        };
        // SAFETY: `member` is alive, as the caller says, and so is `first`, by the type invariant.
        // Nobody else accesses their links: `self` is borrowed mutably.
        unsafe {
            *neighbours::<T, ID>(member) = Neighbours {
                prev: None,
                next: *first,
            };
            if let Some(first) = *first {
                (*neighbours::<T, ID>(first)).prev = Some(member);
            }
        }
        *first = Some(member);
    }

    /// Leaves the table.
    ///
    /// # Safety
    ///
    /// `member` must be in this one, under that key.
    pub(crate) unsafe fn remove(&mut self, key: u64, member: NonNull<T>) {
        let bucket = self.bucket(key);
        // SAFETY: `member` and its neighbours are members, so they are alive. Nobody else accesses
        // their links: `self` is borrowed mutably.
        unsafe {
            let Neighbours { prev, next } = *neighbours::<T, ID>(member);
            match prev {
                Some(prev) => (*neighbours::<T, ID>(prev)).next = next,
                None => {
                    if let Some(first) = self.buckets.get_mut(bucket) {
                        *first = next;
                    }
                }
            }
            if let Some(next) = next {
                (*neighbours::<T, ID>(next)).prev = prev;
            }
        }
    }

    /// A member of that key, by `has`: the last that joined.
    pub(crate) fn find(&self, key: u64, has: impl Fn(NonNull<T>) -> bool) -> Option<NonNull<T>> {
        let mut at = *self.buckets.get(self.bucket(key))?;
        while let Some(member) = at {
            if has(member) {
                break;
            }
            // SAFETY: A member is alive, by the type invariant.
            at = unsafe { (*neighbours::<T, ID>(member)).next };
        }
        at
    }
}
