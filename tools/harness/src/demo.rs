// SPDX-License-Identifier: GPL-2.0
//! The demo's table, and its proof that raio did the work.
//!
//! Relies on these files in one directory, for each job and engine:
//! `<job>.<engine>.json` (fio's output), `<job>.<engine>.exit` (its exit
//! status), `<job>.<engine>.stats-before.json` and `….stats-after.json`
//! (from `raioctl stats --json`).
//!
//! fio 3.33 counts every request of a job in `total_ios` of `read` or `write`;
//! reads done to verify are among those of `read` (seen by counting
//! what it gave to io_submit: the sum is exact). A failed verify is error 84
//! of the job and exit status 1. With `time_based` it ends without the verify
//! phase and without an error; then less is read than was written, which is
//! taken as not verified.

use comfy_table::{presets::ASCII_MARKDOWN, CellAlignment, Table};
use serde::{de::DeserializeOwned, Deserialize};
use std::{collections::BTreeMap, fs, path::Path};

/// The jobs of the demo. Those that end in `-verify` have to have verified.
const JOBS: [&str; 2] = ["ext4-randrw-verify", "nullb-randread"];

/// The engines; the first is fio's libaio over raio.
const ENGINES: [&str; 3] = ["raio", "aio", "io_uring"];

/// fio's error for data that is not what was written (EILSEQ).
const VERIFY_FAILED: i64 = 84;

type Counters = BTreeMap<String, u64>;

#[derive(Deserialize)]
struct Fio {
    #[serde(rename = "global options", default)]
    options: BTreeMap<String, String>,
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    error: i64,
    #[serde(default)]
    total_err: u64,
    #[serde(rename = "job options", default)]
    options: BTreeMap<String, String>,
    read: Direction,
    write: Direction,
}

#[derive(Deserialize)]
struct Direction {
    total_ios: u64,
    drop_ios: u64,
    iops: f64,
    bw_bytes: f64,
    clat_ns: Latency,
}

#[derive(Deserialize)]
struct Latency {
    #[serde(default)]
    percentile: BTreeMap<String, f64>,
}

/// All that was left of one job on one engine.
struct Run {
    fio: Fio,
    exit: i32,
    before: Counters,
    after: Counters,
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// The first JSON object in a file: fio prints messages around it.
fn json<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = read(path)?;
    let start = match text.find("\n{") {
        Some(newline) if !text.starts_with('{') => newline + 1,
        _ => 0,
    };
    serde_json::Deserializer::from_str(&text[start..])
        .into_iter()
        .next()
        .ok_or_else(|| format!("{}: empty", path.display()))?
        .map_err(|e| format!("{}: {e}", path.display()))
}

impl Run {
    fn load(directory: &Path, job: &str, engine: &str) -> Result<Self, String> {
        let file = |suffix: &str| directory.join(format!("{job}.{engine}.{suffix}"));
        // The exit status first: without JSON, it says most.
        let exit = read(&file("exit"))?;
        let exit = exit
            .trim()
            .parse()
            .map_err(|e| format!("{}: {e}", file("exit").display()))?;
        let fio = json(&file("json")).map_err(|e| format!("{e} (exit status {exit})"))?;
        Ok(Self {
            fio,
            exit,
            before: json(&file("stats-before.json"))?,
            after: json(&file("stats-after.json"))?,
        })
    }

    fn sum(&self, of: impl Fn(&Job) -> u64) -> u64 {
        self.fio.jobs.iter().map(of).sum()
    }

    /// Requests that fio issued.
    fn ios(&self) -> u64 {
        self.sum(|job| job.read.total_ios + job.write.total_ios)
    }

    /// Requests that fio found in error, and jobs that ended by one.
    fn errors(&self) -> u64 {
        self.sum(|job| {
            job.read.drop_ios + job.write.drop_ios + job.total_err.max(u64::from(job.error != 0))
        })
    }

    fn verify(&self) -> &'static str {
        let jobs = &self.fio.jobs;
        let asked = |job: &Job| {
            job.options.contains_key("verify") || self.fio.options.contains_key("verify")
        };
        if jobs.iter().any(|job| job.error == VERIFY_FAILED) {
            "failed"
        } else if !jobs.iter().all(asked) {
            "-"
        } else if jobs.iter().any(|j| j.read.total_ios < j.write.total_ios) {
            "not run"
        } else {
            "ok"
        }
    }

    /// By how much a counter of the module grew.
    fn delta(&self, name: &str) -> Result<u64, String> {
        let get = |counters: &Counters| {
            counters
                .get(name)
                .copied()
                .ok_or_else(|| format!("no counter {name} in the module's statistics"))
        };
        get(&self.after)?
            .checked_sub(get(&self.before)?)
            .ok_or_else(|| format!("counter {name} went back: was the module loaded again?"))
    }

    /// What is wrong with it.
    fn failures(&self, job: &str, engine: &str) -> Vec<String> {
        let mut failures = Vec::new();
        if self.exit != 0 {
            failures.push(format!("fio's exit status was {}", self.exit));
        }
        for job in self.fio.jobs.iter().filter(|job| job.error != 0) {
            failures.push(format!("fio's error was {}", job.error));
        }
        if self.errors() != 0 {
            failures.push(format!("{} errors", self.errors()));
        }
        if self.ios() == 0 {
            failures.push("fio did nothing".to_owned());
        }
        match self.verify() {
            "failed" => failures.push("what was read is not what was written".to_owned()),
            "ok" => {}
            _ if !job.ends_with("-verify") => {}
            _ => failures.push("nothing was verified".to_owned()),
        }
        if engine == "raio" {
            match self.delta("submitted") {
                Err(e) => failures.push(e),
                Ok(n) if n < self.ios() => failures.push(format!(
                    "raio took {n} of fio's {} requests: the others went elsewhere",
                    self.ios()
                )),
                Ok(_) => {}
            }
        } else if self.before != self.after {
            failures.push("raio's counters moved, but it had nothing to do".to_owned());
        }
        failures
    }

    /// One value for reads and one for writes, if there were any.
    fn pair(&self, format: impl Fn(f64) -> String, value: impl Fn(&[&Direction]) -> f64) -> String {
        let jobs = &self.fio.jobs;
        [
            jobs.iter().map(|job| &job.read).collect::<Vec<_>>(),
            jobs.iter().map(|job| &job.write).collect(),
        ]
        .iter()
        .filter(|directions| directions.iter().any(|d| d.total_ios > 0))
        .map(|directions| format(value(directions)))
        .collect::<Vec<_>>()
        .join(" / ")
    }

    fn row(&self, job: &str, engine: &str) -> Vec<String> {
        let percentile = |name: &'static str| {
            self.pair(
                |ns| format!("{:.0}", ns / 1e3),
                move |all| {
                    all.iter()
                        .filter_map(|d| d.clat_ns.percentile.get(name).copied())
                        .fold(0.0, f64::max)
                },
            )
        };
        let delta = |name| match self.delta(name) {
            Ok(n) => format!("{n}"),
            Err(_) => "?".to_owned(),
        };
        vec![
            job.to_owned(),
            engine.to_owned(),
            self.pair(
                |x| format!("{x:.0}"),
                |all| all.iter().map(|d| d.iops).sum(),
            ),
            self.pair(
                |x| format!("{:.1}", x / f64::from(1 << 20)),
                |all| all.iter().map(|d| d.bw_bytes).sum(),
            ),
            percentile("50.000000"),
            percentile("99.000000"),
            percentile("99.900000"),
            self.errors().to_string(),
            self.verify().to_owned(),
            format!("{} of {}", delta("submitted"), self.ios()),
        ]
    }
}

/// The table of what is in `directory`, and what is wrong with it.
pub fn table(directory: &Path) -> (Table, Vec<String>) {
    let mut table = Table::new();
    let mut failures = Vec::new();
    table.load_preset(ASCII_MARKDOWN).set_header([
        "job",
        "engine",
        "IOPS r / w",
        "MiB/s r / w",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "errors",
        "verify",
        "over raio",
    ]);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for job in JOBS {
        for engine in ENGINES {
            match Run::load(directory, job, engine) {
                Ok(run) => {
                    table.add_row(run.row(job, engine));
                    let found = run.failures(job, engine);
                    failures.extend(found.iter().map(|f| format!("{job} on {engine}: {f}")));
                }
                Err(e) => {
                    table.add_row([job, engine, "no result"]);
                    failures.push(format!("{job} on {engine}: {e}"));
                }
            }
        }
    }
    (table, failures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{json, Value};
    use tempfile::TempDir;

    /// What fio 3.33 prints, less what isn't read here.
    fn direction(ios: u64) -> Value {
        let percentile = json!({
            "50.000000": 31_850, "99.000000": 60_030, "99.900000": 64_225,
        });
        json!({
            "io_bytes": ios * 4096,
            "bw_bytes": ios * 4096,
            "iops": ios as f64 + 0.25,
            "total_ios": ios,
            "short_ios": 0,
            "drop_ios": 0,
            "clat_ns": if ios > 0 {
                json!({ "min": 1, "mean": 2.5, "N": ios, "percentile": percentile })
            } else {
                json!({ "min": 0, "mean": 0.0, "N": 0 })
            },
        })
    }

    fn fio(job: &str) -> Value {
        let verify = job.ends_with("-verify");
        let mut options = json!({ "name": job, "bs": "4k" });
        if verify {
            options["verify"] = "crc32c".into();
        }
        json!({
            "fio version": "fio-3.33",
            "jobs": [{
                "jobname": job,
                "error": 0,
                "job options": options,
                "read": direction(1024),
                "write": direction(if verify { 528 } else { 0 }),
            }],
        })
    }

    fn write(dir: &TempDir, name: &str, text: impl ToString) {
        fs::write(dir.path().join(name), text.to_string()).unwrap();
    }

    /// A demo in which all went well.
    fn demo() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for job in JOBS {
            for engine in ENGINES {
                let ios = match (engine, job.ends_with("-verify")) {
                    ("raio", true) => 1024 + 528,
                    ("raio", false) => 1024,
                    _ => 0,
                };
                let stats = |submitted| json!({ "setups": 1, "submitted": submitted });
                let name = format!("{job}.{engine}");
                write(&dir, &format!("{name}.json"), fio(job));
                write(&dir, &format!("{name}.exit"), "0\n");
                write(&dir, &format!("{name}.stats-before.json"), stats(10));
                write(&dir, &format!("{name}.stats-after.json"), stats(10 + ios));
            }
        }
        dir
    }

    fn failures(dir: &TempDir) -> Vec<String> {
        table(dir.path()).1
    }

    /// The failures of a demo with one file changed.
    fn with(name: &str, change: impl FnOnce(&mut Value)) -> Vec<String> {
        let dir = demo();
        let mut value: Value = json(&dir.path().join(name)).unwrap();
        change(&mut value);
        write(&dir, name, value);
        failures(&dir)
    }

    #[test]
    fn a_good_demo_passes() {
        let (table, failures) = table(demo().path());
        assert_eq!(failures, [""; 0]);
        let text = table.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2 + 6, "{text}");
        assert!(lines.iter().all(|line| line.len() == lines[0].len()));
        for cell in [
            " raio ",
            " 1024 / 528 ",
            " 4.0 / 2.1 ",
            " 32 / 32 ",
            " 60 / 60 ",
            " 64 / 64 ",
            " ok ",
            " 1552 of 1552 ",
        ] {
            assert!(lines[2].contains(cell), "{cell}: {text}");
        }
        assert!(lines[4].contains(" 0 of 1552 "), "{text}");
        assert!(lines[5].contains(" 4.0 "), "{text}");
    }

    #[test]
    fn messages_around_the_json_are_skipped() {
        let dir = demo();
        let name = "nullb-randread.aio.json";
        let text = format!("fio: warning {{}}\n{}\nmore\n", fio("nullb-randread"));
        write(&dir, name, text);
        assert_eq!(failures(&dir), [""; 0]);
    }

    #[test]
    fn an_error_fails() {
        let found = with("nullb-randread.aio.json", |fio| {
            fio["jobs"][0]["error"] = 5.into()
        });
        assert_eq!(
            found,
            [
                "nullb-randread on aio: fio's error was 5",
                "nullb-randread on aio: 1 errors",
            ]
        );
        let found = with("nullb-randread.raio.json", |fio| {
            fio["jobs"][0]["total_err"] = 7.into();
        });
        assert_eq!(found, ["nullb-randread on raio: 7 errors"]);
        let found = with("nullb-randread.io_uring.exit", |exit| *exit = 1.into());
        assert_eq!(
            found,
            ["nullb-randread on io_uring: fio's exit status was 1"]
        );
    }

    #[test]
    fn bad_data_fails() {
        let found = with("ext4-randrw-verify.raio.json", |fio| {
            fio["jobs"][0]["error"] = VERIFY_FAILED.into();
        });
        assert!(found.contains(
            &"ext4-randrw-verify on raio: what was read is not what was written".to_owned()
        ));
    }

    #[test]
    fn a_verify_that_did_not_run_fails() {
        let expected = ["ext4-randrw-verify on aio: nothing was verified"];
        let name = "ext4-randrw-verify.aio.json";
        let found = with(name, |fio| fio["jobs"][0]["read"]["total_ios"] = 527.into());
        assert_eq!(found, expected);
        let found = with(name, |fio| fio["jobs"][0]["job options"] = json!({}));
        assert_eq!(found, expected);
        let found = with(name, |fio| {
            fio["jobs"][0]["job options"] = json!({});
            fio["global options"] = json!({ "verify": "crc32c" });
        });
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn work_done_elsewhere_fails() {
        let found = with("nullb-randread.raio.stats-after.json", |stats| {
            stats["submitted"] = (10 + 1023).into();
        });
        assert_eq!(
            found,
            [
                "nullb-randread on raio: raio took 1023 of fio's 1024 requests: \
              the others went elsewhere"
            ]
        );
        let found = with("nullb-randread.raio.stats-after.json", |stats| {
            stats["submitted"] = 9.into();
        });
        assert!(found[0].contains("went back"), "{found:?}");
        let found = with("nullb-randread.raio.stats-after.json", |stats| {
            *stats = json!({});
        });
        assert!(found[0].contains("no counter submitted"), "{found:?}");
    }

    #[test]
    fn raio_at_work_for_another_engine_fails() {
        let found = with("nullb-randread.io_uring.stats-after.json", |stats| {
            stats["setups"] = 2.into();
        });
        assert_eq!(
            found,
            ["nullb-randread on io_uring: raio's counters moved, but it had nothing to do"]
        );
    }

    #[test]
    fn nothing_done_fails() {
        let found = with("nullb-randread.aio.json", |fio| fio["jobs"] = json!([]));
        assert_eq!(found, ["nullb-randread on aio: fio did nothing"]);
    }

    #[test]
    fn a_missing_file_fails() {
        for suffix in ["json", "exit", "stats-before.json", "stats-after.json"] {
            let dir = demo();
            let name = format!("nullb-randread.raio.{suffix}");
            fs::remove_file(dir.path().join(&name)).unwrap();
            let found = failures(&dir);
            assert_eq!(found.len(), 1);
            assert!(found[0].contains(&name), "{found:?}");
            write(&dir, &name, "");
            assert_eq!(failures(&dir).len(), 1);
        }
    }
}
