// SPDX-License-Identifier: GPL-2.0
//! fio in the job that the bars are about, with each engine that it has for that. Its
//! own work comes to what a request costs here, and is the same for all.

use super::{
    engines::{Name, OUR_LIBAIO},
    jobs::Job,
};
use serde::{Deserialize, Serialize};
use std::{io, path::Path, process::Command};

/// To one of a client's: fio tells milliseconds.
const TIMES: usize = 10;

/// fio with one engine.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct FioRun {
    pub(crate) engine: Name,
    pub(crate) requests: usize,
    /// Of each round.
    pub(crate) ns: Vec<u64>,
}

impl FioRun {
    /// One without a round, of as many requests as `n` of a client are worth.
    pub(crate) fn new(engine: Name, n: usize) -> Self {
        Self {
            engine,
            requests: n * TIMES,
            ns: Vec::new(),
        }
    }

    /// Of a request, in the median round.
    pub(crate) fn ns_each(&self) -> f64 {
        super::median(&self.ns) / self.requests as f64
    }

    /// Runs it on `target`; `external` is our engine. False if it can't do that.
    pub(crate) fn run(&mut self, job: &Job, target: &Path, external: &Path) -> io::Result<bool> {
        let mut fio = Command::new("fio");
        let ours = format!("--ioengine=external:{}", external.display());
        let registered = ["--fixedbufs", "--registerfiles"];
        match self.engine {
            Name::Limit => return Ok(false),
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
            .arg(format!("--number_ios={}", self.requests))
            .arg(format!("--iodepth={}", job.depth))
            .args(
                ["submit", "complete_min", "complete_max"]
                    .map(|what| format!("--iodepth_batch_{what}={}", job.batch)),
            )
            .args(["--name=cost", "--output-format=json", "--rw=randread"])
            .args(["--bs=4k", "--size=1g", "--direct=1", "--norandommap"])
            .args(["--randseed=1", "--gtod_reduce=1", "--thread"]);
        let output = fio.output()?;
        let told = String::from_utf8_lossy(&output.stdout);
        let Some(ns) = output
            .status
            .success()
            .then(|| runtime(&told, self.requests))
            .flatten()
        else {
            let why = String::from_utf8_lossy(&output.stderr);
            let what = format!("{fio:?}: {}: {why}{told}", output.status);
            return Err(io::Error::other(what));
        };
        self.ns.push(ns);
        Ok(true)
    }
}

/// Nanoseconds that the job took, of the JSON that comes after what else fio says. None
/// if it didn't read so many times without an error.
fn runtime(told: &str, requests: usize) -> Option<u64> {
    let json = &told[told.find('{')?..];
    let value: serde_json::Value = serde_json::from_str(json).ok()?;
    let job = &value["jobs"][0];
    let read = &job["read"];
    if job["error"].as_i64()? != 0 || read["total_ios"].as_u64()? != requests as u64 {
        return None;
    }
    Some(read["runtime"].as_u64()? * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fio_tells() {
        let told = r#"note: something
            {"jobs": [{"error": 0, "read": {"total_ios": 10, "runtime": 7}}]}"#;
        assert_eq!(runtime(told, 10), Some(7_000_000));
        assert_eq!(runtime(told, 11), None);
        assert_eq!(
            runtime(&told.replace("\"error\": 0", "\"error\": 5"), 10),
            None
        );
        assert_eq!(runtime("", 10), None);
    }
}
