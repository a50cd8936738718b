// SPDX-License-Identifier: GPL-2.0
//! How the cost of operations grows with what there is: contexts, events,
//! slots of the ring, requests in flight. Makes tables and JSON, and judges what should be flat.

mod measure;
mod report;
mod wakeups;

use crate::{
    pairs::Pairs,
    peers::{KernelAio, Peer, Raio},
};
use measure::Lookup;
pub(crate) use report::Machine;
use report::{Point, Report, Series, Shape};
use std::{fs::File, io, path::PathBuf};

const EVENTS: [usize; 6] = [1, 4, 16, 64, 256, 1_024];
const MIN_NR: [usize; 3] = [1, 16, 256];
const RINGS: [usize; 6] = [64, 256, 1_024, 4_096, 16_384, 65_536];
const IN_FLIGHT: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];
const CONTEXTS: [usize; 5] = [1, 10, 100, 1_000, 10_000];

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Pairs of each measurement
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where to write it as JSON as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What the JSON shall say besides, such as commit=1234
    #[arg(long, value_name = "KEY=VALUE")]
    note: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Reading many events at once
    Getevents,
    /// Waiting for many events
    Wakeups,
    /// Large rings
    Rings,
    /// Cancelling one of many requests
    Cancel,
    /// Finding one of many contexts
    Lookup,
}

/// All of them. Lookup is the last: its contexts are there until the process ends.
const PARTS: [Part; 5] = [
    Part::Getevents,
    Part::Wakeups,
    Part::Rings,
    Part::Cancel,
    Part::Lookup,
];

/// Measures, prints tables and verdicts; false if something of raio's isn't as
/// flat as it should be.
pub(crate) fn run(args: &Args) -> io::Result<bool> {
    let bench = Bench {
        raio: Raio::open()?,
        rounds: args.rounds,
    };
    let mut report = Report::new(Machine::read(&args.note)?);
    for part in PARTS {
        if args.parts.is_empty() || args.parts.contains(&part) {
            report.add(match part {
                Part::Getevents => bench.getevents()?,
                Part::Wakeups => bench.wakeups()?,
                Part::Rings => bench.rings()?,
                Part::Cancel => bench.cancel()?,
                Part::Lookup => bench.lookup()?,
            });
        }
    }
    if let Some(path) = &args.json {
        serde_json::to_writer_pretty(File::create(path)?, &report)?;
    }
    Ok(report.judge())
}

struct Bench {
    raio: Raio,
    rounds: usize,
}

impl Bench {
    /// A cost with `n` of what it may depend on: of `times` times what `job`
    /// does, which says what it came to in all.
    fn point(
        &self,
        n: usize,
        times: usize,
        job: impl Fn(&dyn Peer) -> io::Result<u64>,
    ) -> io::Result<Point> {
        self.pair(n, times, || job(&self.raio), || job(&KernelAio))
    }

    fn pair(
        &self,
        n: usize,
        times: usize,
        ours: impl FnMut() -> io::Result<u64>,
        theirs: impl FnMut() -> io::Result<u64>,
    ) -> io::Result<Point> {
        let summary = Pairs::measure(self.rounds, ours, theirs)?.summary();
        Ok(Point {
            n,
            raio: summary.ours as f64 / times as f64,
            kernel_aio: summary.theirs as f64 / times as f64,
            ratio: summary.ratio,
        })
    }

    fn getevents(&self) -> io::Result<Vec<Series>> {
        let mut calls = Series::new("getevents, ns per call", "events", Shape::Any);
        let mut events = Series::new("getevents, ns per event", "events", Shape::Falls(1.0));
        let mut ring = Series::new(
            "ring read without a call, ns per event",
            "events",
            Shape::Falls(1.05),
        );
        for n in EVENTS {
            let call = self.point(n, measure::CALLS, |peer| measure::getevents(peer, n))?;
            events.add(call.shared());
            calls.add(call);
            let read = self.point(n, measure::CALLS, |peer| measure::read_ring(peer, n))?;
            ring.add(read.shared());
        }
        Ok(vec![calls, events, ring])
    }

    fn wakeups(&self) -> io::Result<Vec<Series>> {
        let mut wakeups = Series::new("wake-ups per event", "min_nr", Shape::Shared(1.1));
        let mut cost = Series::new("post for who waits, ns per event", "min_nr", Shape::Any);
        for n in MIN_NR {
            let times = wakeups::EVENTS;
            wakeups.add(self.point(n, times, |peer| Ok(wakeups::measure(peer, n)?.wakeups))?);
            cost.add(self.point(n, times, |peer| Ok(wakeups::measure(peer, n)?.ns))?);
        }
        Ok(vec![wakeups, cost])
    }

    fn rings(&self) -> io::Result<Vec<Series>> {
        let mut setups = Series::new("set-up, ns", "slots", Shape::Any);
        let mut lives = Series::new("set-up + destroy, ns", "slots", Shape::Any);
        let mut single = Series::new("submit one + reap one, ns", "slots", Shape::Flat(1.1));
        let mut laps = Series::new("the same by 32, ns per event", "slots", Shape::Flat(1.1));
        for n in RINGS {
            let lap = measure::lap(n);
            setups.add(self.point(n, measure::SETUPS, |peer| measure::setups(peer, n))?);
            lives.add(self.point(n, measure::SETUPS, |peer| measure::lives(peer, n))?);
            single.add(self.point(n, measure::SINGLES, |peer| {
                measure::events(peer, n, measure::SINGLES, 1)
            })?);
            laps.add(self.point(n, lap, |peer| measure::events(peer, n, lap, measure::BATCH))?);
        }
        Ok(vec![setups, lives, single, laps])
    }

    fn cancel(&self) -> io::Result<Vec<Series>> {
        let mut cancel = Series::new("cancel one, ns", "in flight", Shape::Flat(1.3));
        for n in IN_FLIGHT {
            cancel.add(self.point(n, measure::CANCELS, |peer| measure::cancels(peer, n))?);
        }
        Ok(vec![cancel])
    }

    fn lookup(&self) -> io::Result<Vec<Series>> {
        let mut submit = Series::new("submit of none, ns", "contexts", Shape::Flat(1.3));
        let mut getevents = Series::new("getevents of none, ns", "contexts", Shape::Flat(1.3));
        let mut ours = Lookup::new(&self.raio)?;
        let mut theirs = Lookup::new(&KernelAio)?;
        for n in CONTEXTS {
            ours.grow(n)?;
            theirs.grow(n)?;
            let calls = measure::LOOKUPS;
            submit.add(self.pair(n, calls, || ours.submit(), || theirs.submit())?);
            getevents.add(self.pair(n, calls, || ours.getevents(), || theirs.getevents())?);
        }
        Ok(vec![submit, getevents])
    }
}
