// SPDX-License-Identifier: GPL-2.0
//! The client that all engines are measured with: it keeps requests in flight, and
//! does no more than it takes to do that.

use std::{
    cell::UnsafeCell,
    io,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Bytes of each request.
pub(crate) const BLOCK: usize = 4096;

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Read,
    Write,
    Nothing,
}

/// What it is done to, and how many at once.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) op: Op,
    /// Blocks of the file, a power of two.
    pub(crate) blocks: u64,
    /// Slots of all threads.
    pub(crate) slots: usize,
    /// In flight.
    pub(crate) depth: usize,
    /// Submitted, and waited for, at once.
    pub(crate) batch: usize,
}

/// Who carries requests out. There is one slot, with a buffer, for each that is in
/// flight.
pub(crate) trait Engine {
    /// Adds the request of a slot to those that are to be submitted.
    fn queue(&mut self, slot: usize, block: u64);
    /// Submits what was queued, and waits until `min` requests or more have ended; with
    /// other threads on the same context not for long.
    fn enter(&mut self, min: usize) -> io::Result<()>;
    /// Calls `ended` with slot and result of those that have ended.
    fn reap(&mut self, ended: impl FnMut(usize, i64));
}

/// Buffers, one for each slot.
pub(crate) struct Buffers(Vec<Page>);

/// Written by the kernel.
#[repr(align(4096))]
struct Page(UnsafeCell<[u8; BLOCK]>);

// SAFETY: It is only read where it says so, by `word`.
unsafe impl Sync for Page {}

impl Buffers {
    pub(crate) fn new(n: usize) -> Self {
        Self((0..n).map(|_| Page(UnsafeCell::new([0; BLOCK]))).collect())
    }

    pub(crate) fn at(&self, slot: usize) -> *mut u8 {
        self.0[slot].0.get().cast()
    }

    /// The first word of one, which says which block it is of.
    pub(crate) fn word(&self, slot: usize) -> u64 {
        // SAFETY: Aligned, and inside of it. The kernel has written it.
        unsafe { self.at(slot).cast::<u64>().read_volatile() }
    }
}

/// One thread's part of a load.
pub(crate) struct Part<'a> {
    /// Slots, of those of all threads, that it begins with.
    pub(crate) slots: std::ops::Range<usize>,
    /// Requests to make; with other threads, all together.
    pub(crate) n: usize,
    /// With other threads on the same context, where each gets what has ended of all: a
    /// slot goes to who learns of that, who then makes the next request.
    pub(crate) shared: Option<&'a Shared>,
}

/// How many of all threads' requests were started, and have ended.
#[derive(Default)]
pub(crate) struct Shared {
    started: AtomicUsize,
    ended: AtomicUsize,
}

/// Makes requests at random, and fails if one of them does. `check` is asked about
/// each that has ended, with its slot and block.
pub(crate) fn drive(
    engine: &mut impl Engine,
    load: &Load,
    part: Part<'_>,
    mut check: impl FnMut(usize, u64) -> bool,
) -> io::Result<()> {
    let expected = match load.op {
        Op::Nothing => 0,
        _ => BLOCK as i64,
    };
    let mut seed = 0x9e37_79b9_7f4a_7c15u64 + part.slots.start as u64;
    let mut free: Vec<usize> = part.slots.rev().collect();
    let mut blocks = vec![0; load.slots];
    let (mut started, mut ended) = (0, 0);
    let mut wrong = None;
    loop {
        let mut now = load.batch.min(free.len());
        if let Some(shared) = part.shared {
            // Relaxed, here and below: counts only.
            started = shared.started.fetch_add(now, Relaxed);
            // It never comes down again, so that it shows that all were started.
            now = now.min(part.n.saturating_sub(started));
        } else {
            now = now.min(part.n - started);
        }
        for slot in free.drain(free.len() - now..) {
            // George Marsaglia, "Xorshift RNGs", 2003.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let block = (seed >> 20) & (load.blocks - 1);
            blocks[slot] = block;
            engine.queue(slot, block);
        }
        started += now;
        // Of those on a context of its own.
        let flying = started.saturating_sub(ended);
        let must_wait = free.is_empty() || started >= part.n;
        let min = match part.shared {
            _ if !must_wait => 0,
            None => load.batch.min(flying),
            Some(_) => load.batch,
        };
        engine.enter(min).inspect_err(|_| {
            if let Some(shared) = part.shared {
                // Nobody waits for those that won't end.
                shared.ended.store(part.n, Relaxed);
            }
        })?;
        let before = ended;
        engine.reap(|slot, res| {
            if res != expected || !check(slot, blocks[slot]) {
                wrong = Some((slot, blocks[slot], res));
            }
            free.push(slot);
            ended += 1;
        });
        let over = match part.shared {
            None => ended == part.n,
            Some(shared) => {
                shared.ended.fetch_add(ended - before, Relaxed);
                shared.ended.load(Relaxed) >= part.n
            }
        };
        if over {
            break;
        }
    }
    match wrong {
        None => Ok(()),
        Some((slot, block, res)) => Err(io::Error::other(format!(
            "block {block} in slot {slot} has come to {res}, or isn't that block"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends what it was given last first, and no more than it has to.
    #[derive(Default)]
    struct Fake {
        queued: Vec<usize>,
        flying: Vec<usize>,
        ended: Vec<usize>,
        most: usize,
        result: i64,
    }

    impl Engine for Fake {
        fn queue(&mut self, slot: usize, block: u64) {
            assert!(block < 8 && !self.flying.contains(&slot));
            self.queued.push(slot);
        }

        fn enter(&mut self, min: usize) -> io::Result<()> {
            self.flying.append(&mut self.queued);
            self.most = self.most.max(self.flying.len());
            self.ended
                .extend(self.flying.drain(self.flying.len() - min..));
            Ok(())
        }

        fn reap(&mut self, mut ended: impl FnMut(usize, i64)) {
            for slot in self.ended.drain(..) {
                ended(slot, self.result);
            }
        }
    }

    #[test]
    fn depth_is_kept() {
        for (depth, batch) in [(1, 1), (4, 1), (5, 2), (8, 8)] {
            let load = Load {
                op: Op::Read,
                blocks: 8,
                slots: depth,
                depth,
                batch,
            };
            let part = |n| Part {
                slots: 0..depth,
                n,
                shared: None,
            };
            let mut fake = Fake {
                result: BLOCK as i64,
                ..Default::default()
            };
            drive(&mut fake, &load, part(101), |_, _| true).unwrap();
            assert_eq!(fake.most, depth);
            assert!(fake.flying.is_empty());
            assert!(drive(&mut fake, &load, part(3), |_, _| false).is_err());
            fake.result = 1;
            assert!(drive(&mut fake, &load, part(3), |_, _| true).is_err());
        }
    }
}
