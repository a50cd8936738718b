// SPDX-License-Identifier: GPL-2.0
//! A stopwatch for short work.

use std::time::Instant;

/// Readings from which it is learned what reading the clock takes.
const READINGS: usize = 101;

/// Adds up what laps take, without the reading of the clock.
pub(crate) struct Stopwatch {
    reading: u64,
    ns: u64,
}

impl Stopwatch {
    /// One that stands at 0.
    pub(crate) fn new() -> Self {
        let mut empty: Vec<u64> = (0..READINGS).map(|_| lap(|| ()).0).collect();
        empty.sort_unstable();
        Self {
            reading: empty[READINGS / 2],
            ns: 0,
        }
    }

    /// Does the work of a lap.
    pub(crate) fn time<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let (ns, result) = lap(work);
        self.ns += ns.saturating_sub(self.reading);
        result
    }

    /// Nanoseconds of all laps.
    pub(crate) fn ns(&self) -> u64 {
        self.ns
    }
}

fn lap<R>(work: impl FnOnce() -> R) -> (u64, R) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_nanos() as u64, result)
}

#[cfg(test)]
mod tests {
    use super::Stopwatch;
    use std::{thread::sleep, time::Duration};

    #[test]
    fn laps_are_added() {
        let mut watch = Stopwatch {
            reading: 1_000_000,
            ns: 0,
        };
        watch.time(|| ());
        assert_eq!(watch.ns(), 0);
        for n in 1..3 {
            assert_eq!(watch.time(|| sleep(Duration::from_millis(3))), ());
            assert!(watch.ns() >= n * 2_000_000);
        }
    }
}
