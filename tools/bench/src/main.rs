// SPDX-License-Identifier: GPL-2.0
//! `raio-bench`: measures raio beside its peers, in pairs.
//!
//! Both sides of a pair run right after each other, in turns first, and what
//! counts is the median of the pairs' ratios: on a machine that others use as
//! well, times alone say little. In a guest whose clock counts instructions
//! (`scripts/guest --icount`) the nanoseconds are instructions.

mod cost;
mod disk;
mod growth;
mod lifetimes;
mod pairs;
mod peers;
mod requests;
mod stopwatch;
mod submit;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// For pictures, of Debian's package fonts-dejavu-core.
const FONT: &str = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf";

/// Measures raio beside its peers, in pairs.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Set-up and destroy of contexts, and the exit of who has many, beside
    /// kernel AIO
    Lifetimes(lifetimes::Args),
    /// What operations cost with more contexts, more events, larger rings,
    /// beside kernel AIO; fails where raio's cost isn't flat but should be
    Growth(growth::Args),
    /// How long submit takes where there is something to wait for, beside
    /// kernel AIO and io_uring; fails where raio's isn't as it should be
    Submit(submit::Args),
    /// What a request costs, beside kernel AIO, io_uring and bare bios
    Cost(cost::Args),
    /// Tables, verdicts and pictures of what cost has measured
    Report(cost::ReportArgs),
    /// Functions in which the instructions are, by what the plugin has counted
    Profile(cost::ProfileArgs),
    /// Pictures of what submit has measured
    Plot(submit::PlotArgs),
}

fn main() -> ExitCode {
    let result = match Args::parse().bench {
        Bench::Lifetimes(args) => lifetimes::run(&args).map(|()| true),
        Bench::Growth(args) => growth::run(&args),
        Bench::Submit(args) => submit::run(&args),
        Bench::Cost(args) => cost::run(&args),
        Bench::Report(args) => cost::report(&args),
        Bench::Profile(args) => cost::profile(&args),
        Bench::Plot(args) => submit::plot(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("raio-bench: {e}");
            ExitCode::FAILURE
        }
    }
}
