// SPDX-License-Identifier: GPL-2.0
//! Pairs of measurements and what to make of them.

use serde::{Deserialize, Serialize};
use std::{
    io,
    thread::{self, sleep},
    time::{Duration, Instant},
};

/// How long the kernel gets to free what was left to it by the last measurement.
const SETTLE: Duration = Duration::from_millis(50);

/// Waits for that.
pub(crate) fn settle() {
    sleep(SETTLE);
}

/// What an engine leaves to its thread, as io_uring does, doesn't disturb the next one.
pub(crate) fn in_a_thread<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| scope.spawn(f).join())
        .unwrap_or_else(|_| Err(io::Error::other("the run has panicked")))
}

/// Nanoseconds that `work` takes.
pub(crate) fn time(work: impl FnOnce() -> io::Result<()>) -> io::Result<u64> {
    settle();
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_nanos() as u64)
}

/// What `rounds` pairs came to.
pub(crate) struct Pairs {
    ours: Vec<u64>,
    theirs: Vec<u64>,
}

impl Pairs {
    /// Measures `ours` and `theirs` in turns, each first in every other round,
    /// after a round that isn't counted.
    pub(crate) fn measure(
        rounds: usize,
        mut ours: impl FnMut() -> io::Result<u64>,
        mut theirs: impl FnMut() -> io::Result<u64>,
    ) -> io::Result<Self> {
        ours()?;
        theirs()?;
        let mut pairs = Self {
            ours: Vec::with_capacity(rounds),
            theirs: Vec::with_capacity(rounds),
        };
        for round in 0..rounds {
            if round % 2 == 0 {
                pairs.ours.push(ours()?);
                pairs.theirs.push(theirs()?);
            } else {
                pairs.theirs.push(theirs()?);
                pairs.ours.push(ours()?);
            }
        }
        Ok(pairs)
    }

    /// Medians: ours and theirs in nanoseconds, and of the ratios ours to
    /// theirs with their quartiles.
    pub(crate) fn summary(&self) -> Summary {
        let mut ratios: Vec<f64> = self
            .ours
            .iter()
            .zip(&self.theirs)
            .map(|(ours, theirs)| *ours as f64 / (*theirs).max(1) as f64)
            .collect();
        ratios.sort_by(f64::total_cmp);
        Summary {
            ours: median(&self.ours),
            theirs: median(&self.theirs),
            ratio: ratios[ratios.len() / 2],
            quartiles: (ratios[ratios.len() / 4], ratios[ratios.len() * 3 / 4]),
            pairs: ratios.len(),
        }
    }
}

/// See [`Pairs::summary`].
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) ours: u64,
    pub(crate) theirs: u64,
    pub(crate) ratio: f64,
    pub(crate) quartiles: (f64, f64),
    /// Of how many.
    pub(crate) pairs: usize,
}

fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::Pairs;

    #[test]
    fn medians_of_pairs() {
        let mut ours = [9, 1, 2, 3, 4, 5].into_iter();
        let mut theirs = [9, 2, 2, 2, 2, 50].into_iter();
        let pairs = Pairs::measure(
            5,
            || Ok(ours.next().unwrap()),
            || Ok(theirs.next().unwrap()),
        );
        let summary = pairs.unwrap().summary();
        assert_eq!((summary.ours, summary.theirs), (3, 2));
        assert_eq!((summary.ratio, summary.quartiles), (1.0, (0.5, 1.5)));
    }
}
