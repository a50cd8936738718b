// SPDX-License-Identifier: GPL-2.0
//! `raio-harness`: what runs on the host after a guest has run. It reads the
//! results that the guest left, and judges them.

mod demo;

use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

/// Reads and judges what a guest has left.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints one table of the demo's jobs on each engine; fails if one of
    /// them did, or was not done by the engine that it should be done by
    DemoTable {
        /// Where the guest's files are
        directory: PathBuf,
    },
}

fn main() -> ExitCode {
    let Command::DemoTable { directory } = Args::parse().command;
    let (table, failures) = demo::table(&directory);
    println!("{table}");
    for failure in &failures {
        eprintln!("FAIL: {failure}");
    }
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
