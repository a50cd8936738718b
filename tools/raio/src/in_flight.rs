// SPDX-License-Identifier: GPL-2.0
//! The requests that a context holds the memory of.
//!
//! Each has a name, which travels through the kernel as `aio_data`: where its
//! entry is, and above that a number that the next one there won't have.

use crate::{sys::io_event, Completion};
use slab::Slab;
use std::io;

/// Which request it is, of those of its context, for
/// [`Context::cancel`](crate::Context::cancel). It isn't used again before four
/// billion others have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name(pub(crate) u64);

pub(crate) struct Entry<B> {
    name: u64,
    pub(crate) user_data: u64,
    pub(crate) memory: B,
}

pub(crate) struct InFlight<B> {
    entries: Slab<Entry<B>>,
    named: u32,
}

impl<B> InFlight<B> {
    pub(crate) fn with_capacity(nr: usize) -> Self {
        Self {
            entries: Slab::with_capacity(nr),
            named: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub(crate) fn insert(&mut self, user_data: u64, memory: B) -> Name {
        let vacant = self.entries.vacant_entry();
        self.named = self.named.wrapping_add(1);
        // The module has no context for so many that the key goes beyond 32 bits.
        let name = u64::from(self.named) << 32 | vacant.key() as u64;
        vacant.insert(Entry {
            name,
            user_data,
            memory,
        });
        Name(name)
    }

    #[inline]
    pub(crate) fn take(&mut self, name: Name) -> Option<Entry<B>> {
        let key = name.0 as u32 as usize;
        if self.entries.get(key)?.name != name.0 {
            return None;
        }
        self.entries.try_remove(key)
    }

    /// Turns an event into a completion. One that is not of a request in
    /// flight can't be from the module.
    #[inline]
    pub(crate) fn complete(&mut self, event: io_event) -> Option<Completion<B>> {
        let entry = self.take(Name(event.data))?;
        Some(Completion {
            user_data: entry.user_data,
            buffer: entry.memory,
            result: usize::try_from(event.res)
                .map_err(|_| io::Error::from_raw_os_error(-event.res as i32)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_event_is_dropped() {
        let mut in_flight = InFlight::<()>::with_capacity(1);
        for data in [0, 7, u64::MAX] {
            let event = io_event {
                data,
                ..Default::default()
            };
            assert!(in_flight.complete(event).is_none());
        }
    }

    #[test]
    fn each_has_one_completion() {
        let mut in_flight = InFlight::with_capacity(1);
        let names = [1u64, 2, 3].map(|n| (n, in_flight.insert(n, n * 10)));
        for (n, name) in names {
            let event = io_event {
                data: name.0,
                res: if n == 2 { -5 } else { 8 },
                ..Default::default()
            };
            let completion = in_flight.complete(event).unwrap();
            assert_eq!((completion.user_data, completion.buffer), (n, n * 10));
            match completion.result {
                Ok(bytes) => assert_eq!((n != 2, bytes), (true, 8)),
                Err(e) => assert_eq!((n, e.raw_os_error()), (2, Some(5))),
            }
            // What comes after it, in the same place, isn't taken for it.
            let next = in_flight.insert(9, 9);
            assert!(in_flight.complete(event).is_none());
            assert!(in_flight.take(next).is_some());
        }
        assert_eq!(in_flight.len(), 0);
    }
}
