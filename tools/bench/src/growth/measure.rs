// SPDX-License-Identifier: GPL-2.0
//! What is measured with one thread. Each function makes the contexts that it
//! needs, does the same many times, and returns how many nanoseconds that took.
//! What it got is verified while the watch stands.

use crate::{pairs::settle, peers::Peer, requests::Requests, stopwatch::Stopwatch};
use libc::timespec;
use raio::{
    ring::Ring,
    sys::{io_event, raio_ring},
};
use std::io;

/// Calls of getevents.
pub(crate) const CALLS: usize = 64;
/// Contexts that are set up.
pub(crate) const SETUPS: usize = 4;
/// Events that are posted and read one by one.
pub(crate) const SINGLES: usize = 4_096;
/// Events that are posted and read at once.
pub(crate) const BATCH: usize = 32;
/// Requests that are cancelled, of those in flight.
pub(crate) const CANCELS: usize = 8;
/// Lookups, of as many contexts if there are so many.
pub(crate) const LOOKUPS: usize = 1_024;

/// Reads `n` events at once, which are there.
pub(crate) fn getevents(peer: &dyn Peer, n: usize) -> io::Result<u64> {
    reap(peer, n, |ctx| {
        Ok(move |events: &mut [io_event]| peer.getevents(ctx, n, events, None))
    })
}

/// The same as programs do it that read the ring themselves.
pub(crate) fn read_ring(peer: &dyn Peer, n: usize) -> io::Result<u64> {
    reap(peer, n, |ctx| {
        let mut ring = open_ring(ctx)?;
        Ok(move |events: &mut [io_event]| {
            let mut slots = events.iter_mut();
            let read = ring.reap(n as u32, |event| {
                if let Some(slot) = slots.next() {
                    *slot = event;
                }
            });
            Ok(read as usize)
        })
    })
}

fn reap<Read: FnMut(&mut [io_event]) -> io::Result<usize>>(
    peer: &dyn Peer,
    n: usize,
    open: impl FnOnce(u64) -> io::Result<Read>,
) -> io::Result<u64> {
    with_context(peer, n, |ctx| {
        let mut read = open(ctx)?;
        let mut requests = Requests::new(n)?;
        let mut watch = Stopwatch::new();
        for _ in 0..CALLS {
            all(peer.submit(ctx, &mut requests, n)?, n)?;
            let mut events = vec![io_event::default(); n];
            all(watch.time(|| read(&mut events))?, n)?;
            requests.check(&events)?;
        }
        Ok(watch.ns())
    })
}

/// Sets up contexts with `n` slots.
pub(crate) fn setups(peer: &dyn Peer, n: usize) -> io::Result<u64> {
    settle();
    let mut watch = Stopwatch::new();
    for _ in 0..SETUPS {
        let ctx = watch.time(|| peer.setup(n as u32))?;
        peer.destroy(ctx)?;
    }
    Ok(watch.ns())
}

/// And destroys them.
pub(crate) fn lives(peer: &dyn Peer, n: usize) -> io::Result<u64> {
    settle();
    let mut watch = Stopwatch::new();
    for _ in 0..SETUPS {
        watch.time(|| peer.destroy(peer.setup(n as u32)?))?;
    }
    Ok(watch.ns())
}

/// Events that are at least a lap of a ring for which `n` were asked for, and
/// whole batches: kernel AIO's has twice as many slots, in whole pages.
pub(crate) fn lap(n: usize) -> usize {
    (2 * n + 256).next_multiple_of(BATCH)
}

/// Lets `total` events be posted and reads them, by `batch`, in a context with
/// `n` slots.
pub(crate) fn events(peer: &dyn Peer, n: usize, total: usize, batch: usize) -> io::Result<u64> {
    with_context(peer, n, |ctx| {
        let mut requests = Requests::new(batch)?;
        let mut events = vec![io_event::default(); batch];
        let mut watch = Stopwatch::new();
        for _ in 0..total / batch {
            watch.time(|| {
                all(peer.submit(ctx, &mut requests, batch)?, batch)?;
                all(peer.getevents(ctx, batch, &mut events, None)?, batch)
            })?;
            requests.check(&events)?;
        }
        Ok(watch.ns())
    })
}

/// Cancels some of `n` requests that are in flight, from all over.
pub(crate) fn cancels(peer: &dyn Peer, n: usize) -> io::Result<u64> {
    with_context(peer, n, |ctx| {
        let mut requests = Requests::waiting(n)?;
        all(peer.submit(ctx, &mut requests, n)?, n)?;
        settle();
        let mut watch = Stopwatch::new();
        watch
            .time(|| spread(n, CANCELS).try_for_each(|i| peer.cancel(ctx, requests.pointer(i))))?;
        let mut events = [io_event::default(); CANCELS];
        all(peer.getevents(ctx, CANCELS, &mut events, None)?, CANCELS)?;
        requests.check_those(spread(n, CANCELS), peer.cancelled(), &events)?;
        Ok(watch.ns())
    })
}

/// Many contexts, for calls that do nothing but find theirs.
pub(crate) struct Lookup<'a> {
    peer: &'a dyn Peer,
    contexts: Vec<u64>,
    requests: Requests,
}

impl<'a> Lookup<'a> {
    /// None yet.
    pub(crate) fn new(peer: &'a dyn Peer) -> io::Result<Self> {
        Ok(Self {
            peer,
            contexts: Vec::new(),
            requests: Requests::new(0)?,
        })
    }

    /// Makes them `n`.
    pub(crate) fn grow(&mut self, n: usize) -> io::Result<()> {
        while self.contexts.len() < n {
            self.contexts.push(self.peer.setup(1)?);
        }
        Ok(())
    }

    /// Submits no request.
    pub(crate) fn submit(&mut self) -> io::Result<u64> {
        let (peer, requests) = (self.peer, &mut self.requests);
        each(&self.contexts, |ctx| peer.submit(ctx, requests, 0))
    }

    /// Reads no event.
    pub(crate) fn getevents(&mut self) -> io::Result<u64> {
        let peer = self.peer;
        let now = timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut event = [io_event::default()];
        each(&self.contexts, |ctx| {
            peer.getevents(ctx, 0, &mut event, Some(&now))
        })
    }
}

/// Makes calls on contexts of all over the table.
fn each(contexts: &[u64], mut call: impl FnMut(u64) -> io::Result<usize>) -> io::Result<u64> {
    settle();
    let picked = spread(contexts.len(), LOOKUPS).map(|i| contexts[i]);
    let picked: Vec<u64> = picked.collect();
    let mut watch = Stopwatch::new();
    watch.time(|| picked.iter().try_for_each(|ctx| all(call(*ctx)?, 0)))?;
    Ok(watch.ns())
}

/// `picks` numbers below `n`, from the first to the last in even steps.
fn spread(n: usize, picks: usize) -> impl Iterator<Item = usize> {
    (0..picks).map(move |i| i * (n - 1) / (picks - 1))
}

/// With a new context.
pub(crate) fn with_context<R>(
    peer: &dyn Peer,
    n: usize,
    work: impl FnOnce(u64) -> io::Result<R>,
) -> io::Result<R> {
    let ctx = peer.setup(n as u32)?;
    settle();
    let result = work(ctx);
    let destroyed = peer.destroy(ctx);
    result.and_then(|result| destroyed.map(|()| result))
}

/// Fails unless it is what was asked for.
pub(crate) fn all(got: usize, want: usize) -> io::Result<()> {
    if got != want {
        return Err(io::Error::other(format!("{got} instead of {want}")));
    }
    Ok(())
}

/// The ring of a context of either kind.
fn open_ring(ctx: u64) -> io::Result<Ring> {
    let at = ctx as usize as *const raio_ring;
    // SAFETY: A context's handle is where its ring is, which begins with that.
    let nr = unsafe { (*at).nr };
    let size = size_of::<raio_ring>() + nr as usize * size_of::<io_event>();
    // SAFETY: The ring is mapped as long as its context is there, which who
    // has the handle here sees to, and nobody else reads it.
    unsafe { Ring::new(at.addr(), size as u64, nr) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_are_all_over() {
        let picks = |n| spread(n, LOOKUPS).collect::<Vec<_>>();
        assert!(picks(1).iter().all(|i| *i == 0));
        for n in [10, 100, 1_024, 10_000] {
            let picks = picks(n);
            assert_eq!((picks[0], picks[LOOKUPS - 1]), (0, n - 1));
            assert!(picks
                .windows(2)
                .all(|two| two[1] - two[0] <= n / (LOOKUPS - 1) + 1));
        }
    }

    #[test]
    fn a_lap_is_one() {
        for n in [64, 1_024, 65_536_usize] {
            // As kernel AIO makes its rings.
            let slots = (2 * n + 3).next_multiple_of(128) - 1;
            assert!(lap(n) >= slots && lap(n) % BATCH == 0);
        }
    }

    #[test]
    fn numbers_are_compared() {
        assert!(all(3, 3).is_ok());
        assert!(all(2, 3).is_err());
    }
}
