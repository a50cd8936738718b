// SPDX-License-Identifier: GPL-2.0
//! The submission array behind a ring.
//!
//! Relies on the module to read it in the calls that name a part of it, and
//! not to write to it. What is put in has to be told to it by such a call.

use crate::sys::{iocb, raio_setup};
use std::{io, ptr::NonNull};

/// The writing end of a submission array.
#[derive(Debug)]
pub(crate) struct Array {
    start: NonNull<iocb>,
    nr: u32,
    /// The first that was put in and isn't started, and how many they are.
    first: u32,
    queued: u32,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Array {}

impl Array {
    /// Takes the writing end of the array that `setup` tells of; it may tell
    /// of none.
    ///
    /// # Errors
    ///
    /// `InvalidData` if it isn't in the mapping.
    ///
    /// # Safety
    ///
    /// What `setup` says must stay mapped until the array is dropped, and
    /// nobody else may use it.
    pub(crate) unsafe fn new(setup: &raio_setup) -> io::Result<Self> {
        let mut array = Self {
            start: NonNull::dangling(),
            nr: setup.sq_nr,
            first: 0,
            queued: 0,
        };
        if array.nr == 0 {
            return Ok(array);
        }
        let size = u64::from(array.nr) * size_of::<iocb>() as u64;
        let start = (setup.ctx as usize).wrapping_add(setup.sq_offset as usize) as *mut iocb;
        match NonNull::new(start) {
            Some(start)
                if start.is_aligned() && u64::from(setup.sq_offset) + size <= setup.ring_size =>
            {
                array.start = start;
                Ok(array)
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "no submission array: it is not in the mapping",
            )),
        }
    }

    /// How many fit in it.
    pub(crate) fn capacity(&self) -> u32 {
        self.nr
    }

    /// How many were put in and not started.
    #[inline]
    pub(crate) fn queued(&self) -> u32 {
        self.queued
    }

    /// Which is the first of them.
    #[inline]
    pub(crate) fn first(&self) -> u32 {
        self.first
    }

    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.queued == self.nr
    }

    /// Puts one in, behind the others.
    ///
    /// # Panics
    ///
    /// If it is full.
    #[inline]
    pub(crate) fn push(&mut self, iocb: iocb) {
        assert!(!self.is_full());
        // Both are below or at `nr`, of which the module has no more than 2^20.
        let mut at = self.first + self.queued;
        if at >= self.nr {
            at -= self.nr;
        }
        // SAFETY: `at` is below `nr`, for one is free, so that this is in the
        // mapping; nobody else uses it.
        unsafe { self.start.add(at as usize).write(iocb) };
        self.queued += 1;
    }

    /// The first `n` of those that were put in are started, if there are so
    /// many.
    #[inline]
    pub(crate) fn started(&mut self, n: u32) {
        let n = n.min(self.queued);
        self.queued -= n;
        self.first += n;
        if self.first >= self.nr {
            self.first -= self.nr;
        }
    }

    /// Takes the first out.
    pub(crate) fn remove_first(&mut self) -> Option<iocb> {
        if self.queued == 0 {
            return None;
        }
        // SAFETY: `first` is below `nr` if anything was put in, and that was
        // written then.
        let iocb = unsafe { self.start.add(self.first as usize).read() };
        self.started(1);
        Some(iocb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn array(memory: &mut Vec<iocb>, before: usize) -> Array {
        let setup = raio_setup {
            ctx: memory.as_mut_ptr() as usize as u64,
            ring_size: (memory.len() * 64) as u64,
            sq_nr: (memory.len() - before) as u32,
            sq_offset: 64 * before as u32,
            ..Default::default()
        };
        // SAFETY: the tests keep the memory longer.
        unsafe { Array::new(&setup) }.unwrap()
    }

    #[test]
    fn one_that_is_not_in_the_mapping() {
        let good = raio_setup {
            ctx: 1 << 16,
            ring_size: 1 << 16,
            sq_nr: 64,
            sq_offset: (1 << 16) - 64 * 64,
            ..Default::default()
        };
        // SAFETY: nothing is written to it.
        let ok = |setup: &raio_setup| unsafe { Array::new(setup) }.is_ok();
        assert!(ok(&good));
        assert!(ok(&raio_setup::default()));
        for bad in [
            raio_setup { sq_nr: 65, ..good },
            raio_setup {
                sq_nr: u32::MAX,
                ..good
            },
            raio_setup {
                sq_offset: u32::MAX,
                ..good
            },
            raio_setup {
                sq_offset: 4,
                ..good
            },
            raio_setup {
                ctx: 0,
                sq_offset: 0,
                ..good
            },
        ] {
            assert!(!ok(&bad), "{bad:?}");
        }
    }

    proptest! {
        /// It is a queue, and what is in it goes around the end.
        #[test]
        fn is_a_queue(
            nr in 1usize..20,
            steps in prop::collection::vec((0u8..3, 0u32..8), 0..60),
        ) {
            let mut memory = vec![iocb::default(); nr + 3];
            let mut array = array(&mut memory, 3);
            let mut model = VecDeque::new();
            let (mut next, mut first) = (0, 0);
            for (step, n) in steps {
                match step {
                    0 => for _ in 0..n {
                        prop_assert_eq!(array.is_full(), model.len() == nr);
                        if model.len() < nr {
                            array.push(iocb { aio_data: next, ..Default::default() });
                            model.push_back(next);
                            next += 1;
                        }
                    },
                    1 => {
                        let n = n.min(array.queued());
                        array.started(n);
                        model.drain(..n as usize);
                        first = (first + n) % nr as u32;
                    },
                    _ => {
                        let removed = array.remove_first().map(|iocb| iocb.aio_data);
                        first = (first + u32::from(removed.is_some())) % nr as u32;
                        prop_assert_eq!(removed, model.pop_front());
                    }
                }
                prop_assert_eq!(array.queued() as usize, model.len());
                prop_assert_eq!(array.first(), first);
            }
        }
    }
}
