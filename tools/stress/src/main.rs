// SPDX-License-Identifier: GPL-2.0
//! `raio-stress`: a stress test of lifetimes. Processes with threads that use
//! contexts of each other, end them under each other, fork, close, run other
//! programs and are killed, with requests that end at once, late, or not
//! before they are cancelled.
//!
//! The rooms, from the outside in: [`supervisor`] starts and kills processes
//! and tells the test devices what to do; [`child`] is such a process, in
//! which each [`worker`] does the operations that [`ops`] makes of its seed
//! and judges the answers, with what [`context`] knows. [`ambush`], [`fleeting`],
//! [`resized`], [`fork`] and [`polled`] are what one operation needs each.
//!
//! It needs raio.ko and raio_test.ko, as root.

mod ambush;
mod check;
mod child;
mod context;
mod counters;
mod fleeting;
mod flight;
mod fork;
mod ops;
mod polled;
mod report;
mod resized;
mod seed;
mod supervisor;
mod sys;
mod testdev;
mod worker;
mod world;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A stress test of the lifetimes of raio's contexts and requests.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(flatten)]
    run: supervisor::Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Prints the operations of a process, which follow from the seed
    Show {
        /// The seed of the process, as a failure tells it
        #[arg(value_parser = seed::parse)]
        seed: u64,
        /// Of this thread
        #[arg(default_value_t = 0)]
        thread: u32,
        /// Of this generation of it
        #[arg(default_value_t = 0)]
        generation: u32,
    },
    /// A process of the test
    #[command(hide = true)]
    Child(child::Options),
    /// What a process of the test runs
    #[command(hide = true)]
    Hold {
        /// The descriptor that is inherited
        descriptor: i32,
        /// A context that is not
        handle: u64,
    },
}

fn show(seed: u64, thread: u32, generation: u32) {
    let plan = ops::Plan::new(seed);
    println!("# {plan:?}");
    for (n, op) in plan.operations(seed, thread, generation) {
        println!("{n} {op:?}");
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match args.command {
        None => supervisor::run(&args.run),
        Some(Command::Show {
            seed,
            thread,
            generation,
        }) => {
            show(seed, thread, generation);
            ExitCode::SUCCESS
        }
        Some(Command::Child(options)) => {
            child::run(&options);
            ExitCode::SUCCESS
        }
        Some(Command::Hold { descriptor, handle }) => match fork::hold(descriptor, handle) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("raio-stress: {e}");
                ExitCode::FAILURE
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        use clap::CommandFactory;
        Args::command().debug_assert();
        let args = Args::parse_from(["raio-stress", "--seconds", "3", "--seed", "0x10"]);
        assert!(args.command.is_none());
        assert_eq!((args.run.seconds, args.run.seed), (3, Some(16)));
        let args = Args::parse_from(["raio-stress", "hold", "7", "4096"]);
        assert!(matches!(args.command, Some(Command::Hold { .. })));
    }
}
