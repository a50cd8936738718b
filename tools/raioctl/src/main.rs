// SPDX-License-Identifier: GPL-2.0
//! `raioctl`: shows what the raio module can do and has done.
//!
//! Relies on the crate `raio` for the calls; the counters' names are those of
//! `struct raio_stats`.

use clap::{Parser, Subcommand};
use raio::{sys::*, Device, Query, Stats};
use std::{fmt::Write, path::PathBuf, process::ExitCode};

/// Shows what the raio module can do and has done.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The device.
    #[arg(long, value_name = "PATH", default_value = "/dev/raio", global = true)]
    device: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Version, features and limits of the module
    Query,
    /// The module's counters since it was loaded
    Stats {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// The operations that libaio.h and the kernel have names for.
const OPCODES: [(u32, &str); 8] = [
    (IOCB_CMD_PREAD, "pread"),
    (IOCB_CMD_PWRITE, "pwrite"),
    (IOCB_CMD_FSYNC, "fsync"),
    (IOCB_CMD_FDSYNC, "fdsync"),
    (IOCB_CMD_POLL, "poll"),
    (IOCB_CMD_NOOP, "noop"),
    (IOCB_CMD_PREADV, "preadv"),
    (IOCB_CMD_PWRITEV, "pwritev"),
];

fn opcodes(bits: u64) -> String {
    let names: Vec<_> = (0..64)
        .filter(|bit| bits & (1 << bit) != 0)
        .map(
            |bit| match OPCODES.iter().find(|(number, _)| *number == bit) {
                Some((_, name)) => (*name).to_owned(),
                None => bit.to_string(),
            },
        )
        .collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(" ")
}

fn query_text(query: &Query) -> String {
    let mut text = String::new();
    let rows = [
        ("abi version", query.abi_version.to_string()),
        ("features", format!("{:#x}", query.features)),
        ("operations", opcodes(query.opcodes)),
        ("iocb flags", format!("{:#x}", query.iocb_flags)),
        ("rw flags", format!("{:#x}", query.rw_flags)),
        ("setup flags", format!("{:#x}", query.setup_flags)),
        ("max events", query.max_events.to_string()),
    ];
    for (name, value) in rows {
        writeln!(text, "{name:<12} {value}").expect("a String takes it");
    }
    text
}

fn stats_text(stats: &Stats) -> String {
    let mut text = String::new();
    for (name, value) in stats.counters() {
        writeln!(text, "{name:<15} {value}").expect("a String takes it");
    }
    text
}

fn stats_json(stats: &Stats) -> String {
    let object: serde_json::Map<_, _> = stats
        .counters()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    format!("{}\n", serde_json::Value::from(object))
}

fn run(args: &Args) -> std::io::Result<String> {
    let device = Device::open_path(&args.device)?;
    Ok(match args.command {
        Command::Query => query_text(&device.query()?),
        Command::Stats { json: false } => stats_text(&device.stats()?),
        Command::Stats { json: true } => stats_json(&device.stats()?),
    })
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            let hint = match e.kind() {
                std::io::ErrorKind::NotFound => "; is raio.ko loaded?",
                _ => "",
            };
            eprintln!("raioctl: {}: {e}{hint}", args.device.display());
            ExitCode::FAILURE
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
        let args = Args::parse_from(["raioctl", "stats", "--json", "--device", "/d"]);
        assert!(matches!(args.command, Command::Stats { json: true }));
        assert_eq!(args.device, PathBuf::from("/d"));
    }

    #[test]
    fn query_is_readable() {
        let query = Query {
            abi_version: 1,
            opcodes: 1 << 0 | 1 << 8 | 1 << 20,
            iocb_flags: 3,
            max_events: 4096,
            ..Default::default()
        };
        let text = query_text(&query);
        assert!(text.contains("abi version  1\n"), "{text}");
        assert!(text.contains("operations   pread pwritev 20\n"), "{text}");
        assert!(text.contains("iocb flags   0x3\n"), "{text}");
        assert!(text.contains("max events   4096\n"), "{text}");
        assert_eq!(opcodes(0), "none");
    }

    #[test]
    fn stats_have_all_counters() {
        let stats = Stats {
            setups: 3,
            submitted: u64::MAX,
            ..Default::default()
        };
        assert!(stats_text(&stats).contains("\nsubmitted       18446744073709551615\n"));
        let json: serde_json::Value = serde_json::from_str(&stats_json(&stats)).unwrap();
        assert_eq!(json.as_object().unwrap().len(), stats.counters().len());
        assert_eq!(json["submitted"], u64::MAX);
        assert_eq!(json["migrated"], 0);
    }

    #[test]
    fn no_device_is_told() {
        let args = Args::parse_from(["raioctl", "--device", "/nonexistent", "query"]);
        let e = run(&args).unwrap_err();
        assert_eq!(e.kind(), std::io::ErrorKind::NotFound);
    }
}
