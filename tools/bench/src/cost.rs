// SPDX-License-Identifier: GPL-2.0
//! What a request costs: by raio, by its peers, and by the block layer alone, which
//! is the limit. Each job is done by one client that does no more than it has to, see
//! `client`, with every engine that can do it, in one boot.
//!
//! In a guest whose clock counts instructions the times are those; then `raio-count`,
//! a plugin of QEMU, also counts locked instructions and accesses to memory between
//! the marks that are set here. By the wall only ratios mean anything, of pairs, see
//! `wall`. Makes JSON, of which `report` makes tables, verdicts and pictures.

mod aio;
mod bars;
mod client;
mod engines;
mod fio;
mod jobs;
mod native;
mod profile;
mod report;
mod uring;
mod wall;

use crate::{growth::Machine, pairs::in_a_thread};
use engines::Name;
use fio::FioRun;
use jobs::{Job, Targets};
pub(crate) use profile::{profile, ProfileArgs};
pub(crate) use report::{report, ReportArgs};
use serde::{Deserialize, Serialize};
use std::{fs::File, io, path::PathBuf};
use wall::Wall;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these engines
    #[arg(long, value_enum, value_delimiter = ',')]
    engine: Vec<Name>,
    /// Only the jobs of these names, or whose names contain one of these
    #[arg(long, value_delimiter = ',')]
    job: Vec<String>,
    /// Requests of each run
    #[arg(long, default_value_t = 20_000)]
    requests: usize,
    /// Runs of each job with each engine, in turns
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Instead of rounds so many pairs of each of raio's engines and each of its peers, for
    /// their ratios by the wall
    #[arg(long, conflicts_with_all = ["rounds", "fio"])]
    pairs: Option<usize>,
    /// fio too, one round, with that engine for it
    #[arg(long, value_name = "ENGINE")]
    fio: Option<PathBuf>,
    /// Where to write it
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What the JSON shall say besides, such as commit=1234
    #[arg(long, value_name = "KEY=VALUE")]
    note: Vec<String>,
}

impl Args {
    fn asks_for(&self, job: &Job) -> bool {
        let name = job.to_string();
        let is_name = |part: &String| Job::all().iter().any(|job| job.to_string() == *part);
        let mut parts = self.job.iter();
        self.job.is_empty()
            || parts.any(|part| name == *part || !is_name(part) && name.contains(part))
    }

    /// The jobs that it asks for.
    fn jobs(&self) -> impl Iterator<Item = Job> + '_ {
        Job::all().into_iter().filter(|job| self.asks_for(job))
    }

    /// And the engines.
    fn engines(&self) -> impl Iterator<Item = Name> + '_ {
        let asked = |engine: &Name| self.engine.is_empty() || self.engine.contains(engine);
        Name::ALL.into_iter().filter(asked)
    }

    /// Writes the JSON, if it asks for that.
    fn write(&self, what: &impl Serialize) -> io::Result<()> {
        match &self.json {
            Some(path) => Ok(serde_json::to_writer(File::create(path)?, what)?),
            None => Ok(()),
        }
    }
}

/// One engine in one job.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    job: Job,
    engine: Name,
    requests: usize,
    /// Of each round.
    ns: Vec<u64>,
    /// And which of all runs that was.
    #[serde(default)]
    nth: Vec<usize>,
    /// Counted by the plugin, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counted: Option<Counted>,
}

/// What the plugin has counted, in the median round.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Counted {
    instructions: u64,
    locked: u64,
    accesses: u64,
}

/// All of it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Results {
    machine: Machine,
    runs: Vec<Run>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fio: Vec<FioRun>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wall: Option<Wall>,
}

/// Measures, and prints as it does.
pub(crate) fn run(args: &Args) -> io::Result<bool> {
    if let Some(n) = args.pairs {
        args.write(&Wall::measure(args, n)?)?;
        return Ok(true);
    }
    let mut runs = Vec::new();
    let mut nth = 0;
    let mut targets = Targets::new();
    for job in args.jobs() {
        let engines = args.engines().filter(|engine| engine.can(&job));
        let mut of_job: Vec<Run> = engines
            .map(|engine| Run::new(&job, engine, args.requests))
            .collect();
        let n = of_job.len();
        for round in 0..args.rounds {
            for turn in round..round + n {
                let target = targets.open(&job)?;
                let run = &mut of_job[turn % n];
                let ns = in_a_thread(|| run.engine.run(&job, &target, args.requests))?;
                run.add(ns, nth);
                nth += 1;
            }
        }
        for run in &of_job {
            tell(&job.to_string(), run.engine, run.ns_each());
        }
        runs.append(&mut of_job);
    }
    args.write(&Results {
        machine: Machine::read(&args.note)?,
        runs,
        fio: run_fio(args, &mut targets)?,
        wall: None,
    })?;
    Ok(true)
}

/// Has fio do the same.
fn run_fio(args: &Args, targets: &mut Targets) -> io::Result<Vec<FioRun>> {
    let Some(external) = &args.fio else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    for job in args.jobs() {
        let path = targets.open(&job)?.path;
        for engine in args.engines().filter(|engine| FioRun::can(&job, *engine)) {
            let mut run = FioRun::new(&job, engine, args.requests);
            run.run(&path, external)?;
            tell(&format!("fio, {job}"), engine, run.ns_each());
            all.push(run);
        }
    }
    Ok(all)
}

fn tell(name: &str, engine: Name, each: f64) {
    println!("{name:<37} {:<20} {each:>9.1} ns", engine.to_string());
}

fn median(ns: &[u64]) -> f64 {
    let mut ns = ns.to_vec();
    ns.sort_unstable();
    ns.get(ns.len() / 2).map_or(0.0, |ns| *ns as f64)
}

impl Run {
    /// One without a round, of `n` requests by each thread.
    fn new(job: &Job, engine: Name, n: usize) -> Self {
        Self {
            job: job.clone(),
            engine,
            requests: n * job.threads,
            ns: Vec::new(),
            nth: Vec::new(),
            counted: None,
        }
    }

    /// A round, run number `nth` of all.
    fn add(&mut self, ns: u64, nth: usize) {
        self.ns.push(ns);
        self.nth.push(nth);
    }

    /// Which of all runs was that of the median round.
    fn nth_median(&self) -> Option<usize> {
        let mut rounds: Vec<_> = self.ns.iter().zip(&self.nth).collect();
        rounds.sort();
        rounds.get(rounds.len() / 2).map(|(_, nth)| **nth)
    }

    /// Of a request, in the median round.
    fn ns_each(&self) -> f64 {
        median(&self.ns) / self.requests as f64
    }
}
