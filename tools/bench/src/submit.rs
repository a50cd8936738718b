// SPDX-License-Identifier: GPL-2.0
//! How long submit takes where there is something to wait for: the
//! distribution of it, of raio, kernel AIO and io_uring, with throughput and the
//! time until requests complete. Makes a table and JSON, which `plot` draws, and
//! judges raio's.
//!
//! Each is run twice. Once the submitter has a real-time priority, so that what is
//! counted is what submit does, and not who else wants the processor; once it
//! hasn't, for throughput and completion, as programs have them.

mod engine;
mod report;
mod scenes;

use crate::{growth::Machine, pairs::in_a_thread};
use engine::{Engine, Op};
use report::{Report, Run};
use scenes::Scene;
use std::{fs::File, io, path::PathBuf, time::Instant};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these
    #[arg(value_enum)]
    scenes: Vec<Scene>,
    /// Only this engine, which is judged for nothing then
    #[arg(long)]
    engine: Option<String>,
    /// Latencies of the device, in milliseconds
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100])]
    latency: Vec<u64>,
    /// Requests in flight, if not as many as the scene has
    #[arg(long)]
    depth: Option<usize>,
    /// Requests of each run, of those who don't wait
    #[arg(long, default_value_t = 100_000)]
    requests: usize,
    /// Where to write it as JSON as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What the JSON shall say besides, such as commit=1234
    #[arg(long, value_name = "KEY=VALUE")]
    note: Vec<String>,
}

/// What to draw.
#[derive(clap::Args)]
pub(crate) struct PlotArgs {
    /// What `submit` has written
    json: PathBuf,
    /// Where the pictures go to
    directory: PathBuf,
}

/// Draws the distributions, one picture for each scene.
pub(crate) fn plot(args: &PlotArgs) -> io::Result<bool> {
    let report: Report = serde_json::from_reader(File::open(&args.json)?)?;
    report.plot(&args.directory)?;
    Ok(true)
}

/// Measures, prints tables and verdicts; false if a figure of raio's isn't as it
/// should be.
pub(crate) fn run(args: &Args) -> io::Result<bool> {
    let mut report = Report::new(Machine::read(&args.note)?);
    for scene in Scene::ALL {
        if !args.scenes.is_empty() && !args.scenes.contains(&scene) {
            continue;
        }
        for ms in &args.latency {
            for name in engine::ALL {
                if args.engine.as_ref().is_some_and(|only| only != name) {
                    continue;
                }
                let times = |first: bool| {
                    in_a_thread(|| {
                        if first {
                            be_first()?;
                        }
                        let depth = args.depth.unwrap_or(scene.depth());
                        let mut engine = engine::new(name, depth)?;
                        scene.run(engine.as_mut(), *ms, depth, args.requests)
                    })
                };
                // How long submit takes, whoever else wants the processor; and what
                // comes of it where nobody is preferred.
                let run = Run::new(scene, *ms, name, times(true)?.submit, times(false)?);
                run.print();
                report.add(run);
            }
        }
    }
    if let Some(path) = &args.json {
        serde_json::to_writer(File::create(path)?, &report)?;
    }
    Ok(report.judge())
}

/// Nobody is preferred to this thread.
fn be_first() -> io::Result<()> {
    schedule(libc::SCHED_FIFO, 1)
}

/// This thread is one of many.
fn be_ordinary() -> io::Result<()> {
    schedule(libc::SCHED_OTHER, 0)
}

fn schedule(policy: i32, priority: i32) -> io::Result<()> {
    let param = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: It only reads `param`.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const param) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Nanoseconds of one run: of each submit, of each request until its event was
/// seen, and in all.
pub(crate) struct Times {
    submit: Vec<u64>,
    complete: Vec<u64>,
    all: u64,
}

/// Keeps `depth` requests in flight until `n` have been made, each by a call of
/// its own, as `op` says, and has come to what that says.
fn drive(
    engine: &mut dyn Engine,
    n: usize,
    depth: usize,
    mut op: impl FnMut(usize) -> Op,
) -> io::Result<Times> {
    let begin = Instant::now();
    let now = || begin.elapsed().as_nanos() as u64;
    let mut times = Times {
        submit: Vec::with_capacity(n),
        complete: Vec::with_capacity(n),
        all: 0,
    };
    let mut started = vec![0; n];
    let mut lens = vec![0; n];
    let mut done = Vec::with_capacity(depth);
    let mut ended = 0;
    let mut free: Vec<usize> = (0..depth).collect();
    let mut slot_of = vec![0; n];
    while ended < n {
        while times.submit.len() < n {
            let Some(slot) = free.pop() else { break };
            let i = times.submit.len();
            let op = Op {
                id: i as u64,
                slot,
                ..op(i)
            };
            (started[i], lens[i], slot_of[i]) = (now(), op.len, slot);
            engine.submit(&op)?;
            times.submit.push(now() - started[i]);
        }
        engine.reap(&mut done)?;
        let at = now();
        for (id, res) in done.drain(..) {
            let i = id as usize;
            if res != i64::from(lens[i]) {
                let wrong = format!("{}: request {i} has come to {res}", engine.name());
                return Err(io::Error::other(wrong));
            }
            times.complete.push(at - started[i]);
            free.push(slot_of[i]);
            ended += 1;
        }
    }
    times.all = now();
    // The first ones made the kernel's caches grow.
    if n > 8 * depth {
        times.submit.drain(..2 * depth);
    }
    Ok(times)
}
