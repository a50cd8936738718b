// SPDX-License-Identifier: GPL-2.0
//! fio in the same jobs, with each engine that it has for that. Its own work comes to
//! what a request costs here, and is the same for all.

use super::{
    client::BLOCK,
    engines::{Name, OUR_LIBAIO},
    jobs::Job,
};
use serde::{Deserialize, Serialize};
use std::{io, path::Path, process::Command};

/// To one of a client's: fio tells milliseconds.
const TIMES: usize = 4;

/// fio with one engine.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct FioRun {
    pub(crate) job: Job,
    pub(crate) engine: Name,
    /// Of all threads.
    pub(crate) requests: usize,
    /// Of each round.
    pub(crate) ns: Vec<u64>,
}

impl FioRun {
    /// Can it do that? It has no requests without a file, its threads share nothing, and it opens
    /// devices with `O_NOATIME` always.
    pub(crate) fn can(job: &Job, engine: Name) -> bool {
        engine != Name::Limit && job.target != "nothing" && !job.is_shared() && !job.noatime
    }

    /// One without a round, of as many requests as `n` of a client are worth.
    pub(crate) fn new(job: &Job, engine: Name, n: usize) -> Self {
        Self {
            job: job.clone(),
            engine,
            requests: n * TIMES * job.threads,
            ns: Vec::new(),
        }
    }

    /// Of a request, in the median round.
    pub(crate) fn ns_each(&self) -> f64 {
        super::median(&self.ns) / self.requests as f64
    }

    /// Runs it on `target`; `external` is our engine.
    pub(crate) fn run(&mut self, target: &Path, external: &Path) -> io::Result<()> {
        let mut fio = Command::new("fio");
        let job = &self.job;
        let each = self.requests / job.threads * BLOCK;
        let ours = format!("--ioengine=external:{}", external.display());
        let registered = ["--fixedbufs", "--registerfiles"];
        match self.engine {
            Name::Limit => return Err(io::Error::other("fio sends no bare bios")),
            Name::Libaio => fio.arg("--ioengine=libaio"),
            Name::RaioLibaio => fio.arg("--ioengine=libaio").env("LD_PRELOAD", OUR_LIBAIO),
            Name::Uring => fio.arg("--ioengine=io_uring"),
            Name::UringRegistered => fio.arg("--ioengine=io_uring").args(registered),
            Name::UringPolled => fio
                .args(["--ioengine=io_uring", "--hipri"])
                .args(registered),
            Name::Raio => fio.args([ours.as_str(), "--userspace_reap"]),
            Name::RaioRegistered => fio
                .args([ours.as_str(), "--userspace_reap"])
                .args(registered),
            Name::RaioPolled => fio.args([ours.as_str(), "--hipri"]).args(registered),
        };
        fio.arg(format!("--filename={}", target.display()))
            .arg(format!("--size={}", job.load().blocks * BLOCK as u64))
            .arg(format!("--io_size={each}"))
            .arg(format!("--numjobs={}", job.threads))
            .arg(format!("--iodepth={}", job.depth))
            .args(
                ["submit", "complete_min", "complete_max"]
                    .map(|what| format!("--iodepth_batch_{what}={}", job.batch)),
            )
            .arg(format!("--rw=rand{}", job.side()))
            .args([
                "--name=cost",
                "--output-format=json",
                "--bs=4k",
                "--direct=1",
            ])
            .args([
                "--norandommap",
                "--randseed=1",
                "--gtod_reduce=1",
                "--thread",
            ]);
        let output = fio.output()?;
        let told = String::from_utf8_lossy(&output.stdout);
        let Some(ns) = output
            .status
            .success()
            .then(|| runtime(&told, job.side(), self.requests))
            .flatten()
        else {
            let why = String::from_utf8_lossy(&output.stderr);
            let what = format!("{fio:?}: {}: {why}{told}", output.status);
            return Err(io::Error::other(what));
        };
        self.ns.push(ns);
        Ok(())
    }
}

/// Nanoseconds that the job took, of the JSON that comes after what else fio says. None
/// if its threads didn't read, or write, so many times without an error.
fn runtime(told: &str, side: &str, requests: usize) -> Option<u64> {
    let json = &told[told.find('{')?..];
    let value: serde_json::Value = serde_json::from_str(json).ok()?;
    let (mut total, mut longest) = (0, 0);
    for thread in value["jobs"].as_array()? {
        let side = &thread[side];
        if thread["error"].as_i64()? != 0 {
            return None;
        }
        total += side["total_ios"].as_u64()?;
        longest = longest.max(side["runtime"].as_u64()?);
    }
    (total == requests as u64).then_some(longest * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fio_tells() {
        let told = r#"note: something
            {"jobs": [{"error": 0, "read": {"total_ios": 6, "runtime": 7}},
                      {"error": 0, "read": {"total_ios": 4, "runtime": 5}}]}"#;
        assert_eq!(runtime(told, "read", 10), Some(7_000_000));
        assert_eq!(runtime(told, "read", 11), None);
        assert_eq!(runtime(told, "write", 10), None);
        assert_eq!(
            runtime(&told.replace("\"error\": 0", "\"error\": 5"), "read", 10),
            None
        );
        assert_eq!(runtime("", "read", 10), None);
    }
}
