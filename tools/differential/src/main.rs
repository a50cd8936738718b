// SPDX-License-Identifier: GPL-2.0
//! `raio-differential`: random sequences of calls, carried out with kernel AIO
//! and with raio, must come to the same: return values, errors, events, data,
//! files, the ring. [`intended`] has the differences that are meant to be.
//!
//! [`plan`] makes a sequence of a seed, [`run`] carries it out on one peer with
//! its [`files`] and its [`memory`], [`compare`] compares. A [`worker`] does that
//! for many. This starts workers and sums up, in KTAP.
//!
//! It needs raio.ko, root, disks, loop devices, and null_blk.

mod compare;
mod files;
mod intended;
mod memory;
mod peer;
mod plan;
mod run;
mod sys;
mod worker;

use clap::{Parser, Subcommand};
use raio::Device;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Child, Command, ExitCode, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};
use sys::Result;

/// What kselftests return when they aren't run.
const SKIPPED: u8 = 4;
/// In so many sequences everything occurs.
const MANY: u64 = 2_000;
/// How often it is told how far it is.
const SHOWN: Duration = Duration::from_secs(10);
/// Contexts are freed a little after their end; so long that may take.
const SETTLED: Duration = Duration::from_secs(10);

/// Compares random sequences of calls on kernel AIO and on raio.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    /// How many sequences
    #[arg(long, default_value_t = 3_000)]
    sequences: u64,
    /// The seed that they follow from, in decimal or as 0x...; a random one if
    /// not given
    #[arg(long, value_parser = raio_seed::parse)]
    seed: Option<u64>,
    /// Carry out the one sequence with this seed, as a failure tells it, and
    /// print everything
    #[arg(long, value_parser = raio_seed::parse, value_name = "SEED")]
    replay: Option<u64>,
    /// Processes; rounded up to a multiple of 4, for there are so many kinds of them
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=16))]
    workers: u64,
    #[command(flatten)]
    place: worker::Place,
    #[command(subcommand)]
    command: Option<Worker>,
}

#[derive(Subcommand)]
enum Worker {
    /// A process of the test
    #[command(hide = true)]
    Worker(worker::Options),
}

/// What all workers have told.
#[derive(Default)]
struct Sum {
    /// By number of the worker.
    done: Vec<u64>,
    differences: Vec<Vec<String>>,
    counts: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match (&args.command, args.replay) {
        (Some(Worker::Worker(options)), _) => worker::run(options).map(|()| true),
        (None, Some(seed)) => worker::replay(seed, &args.place),
        (None, None) => {
            println!("TAP version 13");
            if !args.place.peer_check && !std::path::Path::new("/dev/raio").exists() {
                println!("1..0 # SKIP raio.ko is needed");
                return ExitCode::from(SKIPPED);
            }
            test(&args).inspect_err(|e| println!("Bail out! {e}"))
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("raio-differential: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the result of one test.
fn result(number: u32, title: &str, failures: &[String]) -> bool {
    for failure in failures {
        println!("# {failure}");
    }
    let ok = failures.is_empty();
    println!("{}ok {number} {title}", if ok { "" } else { "not " });
    ok
}

fn test(args: &Args) -> Result<bool> {
    let seed = match args.seed {
        Some(seed) => seed,
        None => raio_seed::fresh().map_err(|e| format!("getrandom: {e}"))?,
    };
    let workers = args.workers.next_multiple_of(plan::KINDS);
    println!("1..3");
    println!("# seed {seed:#x}");
    let device = match args.place.peer_check {
        true => None,
        false => Some(Device::open().map_err(|e| format!("/dev/raio: {e}"))?),
    };
    let stats = |device: &Device| device.stats().map_err(|e| format!("RAIO_IOC_STATS: {e}"));
    let before = device.as_ref().map(stats).transpose()?;
    let start = Instant::now();
    let sum = work(args, seed, workers)?;
    println!("# {} s", start.elapsed().as_secs());
    for (name, n) in &sum.counts {
        println!("# {n:8} {name}");
    }

    let mut failures = sum.differences.concat();
    let different = !failures.is_empty();
    let done: u64 = sum.done.iter().sum();
    if !different && done != args.sequences {
        failures.push(format!(
            "{done} of {} sequences were carried out",
            args.sequences
        ));
    }
    let title = format!(
        "{} sequences without a difference, seed={seed:#x}",
        args.sequences
    );
    let mut ok = result(1, &title, &failures);

    let title = "they are of all kinds";
    if done < MANY {
        println!("ok 2 {title} # SKIP too few");
    } else {
        let missing = |name: &String| sum.counts.get(name).is_none_or(|n| *n == 0);
        let never = worker::expected(!args.place.peer_check)
            .into_iter()
            .filter(missing);
        ok &= result(
            2,
            title,
            &never
                .map(|name| format!("never: {name}"))
                .collect::<Vec<_>>(),
        );
    }

    let title = "raio has done its part, and nothing is left";
    match device.as_ref().zip(before) {
        None => println!("ok 3 {title} # SKIP only kernel AIO"),
        Some((device, before)) => {
            let left = |s: &raio::Stats| s.setups.wrapping_sub(s.frees);
            let start = Instant::now();
            let mut after = stats(device)?;
            while left(&after) != left(&before) && start.elapsed() < SETTLED {
                thread::sleep(Duration::from_millis(10));
                after = stats(device)?;
            }
            let submitted = after.submitted - before.submitted;
            let ours = sum.counts.get("raio").copied().unwrap_or(0);
            let mut failures = Vec::new();
            if done >= MANY && after.direct == before.direct {
                failures.push("nothing took the direct path".into());
            }
            if done >= MANY && after.iopolled == before.iopolled {
                failures.push("nothing was polled for".into());
            }
            if submitted != ours && !different {
                failures.push(format!("raio has taken {submitted} requests, not {ours}"));
            }
            if left(&after) != left(&before) {
                failures.push(format!(
                    "{} contexts are left",
                    left(&after) - left(&before)
                ));
            }
            ok &= result(3, title, &failures);
        }
    }
    Ok(ok)
}

/// Starts the workers and listens to them.
fn work(args: &Args, seed: u64, workers: u64) -> Result<Sum> {
    let (sender, receiver) = mpsc::channel();
    let mut children = Vec::new();
    for index in 0..workers {
        let mut child = start(args, seed, workers, index)?;
        let output = child.stdout.take().ok_or("a worker has no stdout")?;
        children.push(child);
        let sender = sender.clone();
        thread::spawn(move || {
            for line in BufReader::new(output)
                .lines()
                .map_while(std::io::Result::ok)
            {
                // If nobody listens any more, the run has ended.
                let _ = sender.send((index as usize, line));
            }
        });
    }
    drop(sender);

    let mut sum = Sum {
        done: vec![0; workers as usize],
        differences: vec![Vec::new(); workers as usize],
        ..Sum::default()
    };
    let begin = Instant::now();
    let mut shown = begin;
    loop {
        match receiver.recv_timeout(SHOWN) {
            Ok((index, line)) => sum.take(index, &line),
            Err(mpsc::RecvTimeoutError::Timeout) => (),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
        if shown.elapsed() > SHOWN {
            shown = Instant::now();
            let done: u64 = sum.done.iter().sum();
            println!(
                "# {done} of {} sequences, {} s",
                args.sequences,
                begin.elapsed().as_secs()
            );
        }
    }
    for (index, child) in children.iter_mut().enumerate() {
        let status = child.wait().map_err(|e| format!("wait: {e}"))?;
        if !status.success() {
            sum.differences[index].push(format!("worker {index} has ended with {status}"));
        }
        worker::clean(&args.place, &worker::own_name(index as u64));
    }
    Ok(sum)
}

fn start(args: &Args, seed: u64, workers: u64, index: u64) -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("worker").stdout(Stdio::piped());
    for (name, value) in [
        ("--index", index),
        ("--of", workers),
        ("--seed", seed),
        ("--sequences", args.sequences),
    ] {
        command.arg(name).arg(value.to_string());
    }
    for disk in &args.place.disk {
        command.arg("--disk").arg(disk);
    }
    command.arg("--tmp").arg(&args.place.tmp);
    if args.place.peer_check {
        command.arg("--peer-check");
    }
    command.spawn().map_err(|e| format!("a worker: {e}"))
}

impl Sum {
    fn take(&mut self, index: usize, line: &str) {
        match line.split_once(' ') {
            Some(("at", n)) => self.done[index] = n.parse().unwrap_or(self.done[index]),
            Some(("count", rest)) => {
                if let Some((n, name)) = rest.split_once(' ') {
                    *self.counts.entry(name.to_owned()).or_default() += n.parse().unwrap_or(0);
                }
            }
            Some(("difference", text)) => self.differences[index].push(text.to_owned()),
            _ => self.differences[index].push(line.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        use clap::CommandFactory;
        Args::command().debug_assert();
        let args = Args::parse_from(["raio-differential", "--seed", "0x10", "--peer-check"]);
        assert!(args.place.peer_check && args.command.is_none());
        assert_eq!((args.sequences, args.seed), (3_000, Some(16)));
    }

    #[test]
    fn what_workers_say() {
        let mut sum = Sum {
            done: vec![0; 2],
            differences: vec![Vec::new(); 2],
            ..Sum::default()
        };
        for line in [
            "at 64",
            "count 3 a name",
            "count 4 a name",
            "difference of two",
        ] {
            sum.take(1, line);
        }
        assert_eq!(sum.done, [0, 64]);
        assert_eq!(sum.counts["a name"], 7);
        assert_eq!(sum.differences.concat(), ["of two"]);
    }
}
