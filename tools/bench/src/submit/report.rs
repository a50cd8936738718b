// SPDX-License-Identifier: GPL-2.0
//! What was measured, as a table, JSON and pictures, and whether it is as it
//! should be.

use super::{scenes::Scene, Times};
use crate::{growth::Machine, FONT};
use plotters::{
    prelude::*,
    style::{register_font, FontStyle},
};
use serde::{Deserialize, Serialize};
use std::{error::Error, fs, io, path::Path};

/// Kernel AIO's submit waits for the device if it takes so much of a latency.
const WAITS: f64 = 0.5;
/// Of that, raio's is at most one part in so many.
const TIMES_BELOW: f64 = 100.0;
/// The longest submit with the slowest device to that with the fastest.
const GROWS: f64 = 2.0;
/// Throughput and completion, to io_uring's.
const NO_WORSE: f64 = 1.02;

/// With a faster device, in milliseconds, it isn't that one that takes the time:
/// a processor is full, and its interrupts are in what submit takes.
const COMPARED_FROM: u64 = 10;

/// Parts of a distribution that are kept: of 1, to where it was sorted.
const SHARES: [f64; 16] = [
    0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99999,
    1.0,
];

/// A distribution, in nanoseconds.
#[derive(Clone, Serialize, Deserialize)]
struct Distribution {
    mean: f64,
    /// At each of `SHARES`.
    at: Vec<u64>,
}

impl Distribution {
    fn new(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        let n = times.len().max(1) as f64;
        let rank = |share: f64| (share * n).ceil().max(1.0) as usize - 1;
        Self {
            mean: times.iter().sum::<u64>() as f64 / n,
            at: SHARES
                .iter()
                .map(|share| times.get(rank(*share)).copied().unwrap_or(0))
                .collect(),
        }
    }

    fn share(&self, share: f64) -> u64 {
        let place = SHARES.iter().position(|s| *s >= share);
        place.map_or(0, |place| self.at[place])
    }
}

/// One engine in one scene.
#[derive(Serialize, Deserialize)]
pub(crate) struct Run {
    scene: Scene,
    latency_ms: u64,
    engine: String,
    requests: usize,
    per_second: f64,
    submit: Distribution,
    complete: Distribution,
}

impl Run {
    /// With the times that submit took in a run of its own.
    pub(super) fn new(scene: Scene, ms: u64, engine: &str, submit: Vec<u64>, times: Times) -> Self {
        let requests = times.complete.len();
        Self {
            scene,
            latency_ms: ms,
            engine: engine.to_owned(),
            requests,
            per_second: requests as f64 * 1e9 / times.all.max(1) as f64,
            submit: Distribution::new(submit),
            complete: Distribution::new(times.complete),
        }
    }

    fn longest(&self) -> f64 {
        self.submit.share(0.9999) as f64
    }

    pub(crate) fn print(&self) {
        let ms = |ns: u64| ns as f64 / 1e6;
        println!(
            "{:<14} {:>4} ms  {:<10} {:>6} requests  submit {:>9.4} {:>9.4} {:>9.4} ms  \
             complete {:>9.3} {:>9.3} ms  {:>9.1}/s",
            format!("{:?}", self.scene),
            self.latency_ms,
            self.engine,
            self.requests,
            ms(self.submit.share(0.5)),
            ms(self.submit.share(0.99)),
            ms(self.submit.share(0.9999)),
            ms(self.complete.share(0.5)),
            ms(self.complete.share(0.99)),
            self.per_second
        );
    }
}

/// All of it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Report {
    machine: Machine,
    shares: Vec<f64>,
    runs: Vec<Run>,
}

impl Report {
    pub(crate) fn new(machine: Machine) -> Self {
        println!("submit: 50th, 99th and 99.99th percentile; complete: 50th and 99th");
        Self {
            machine,
            shares: SHARES.to_vec(),
            runs: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, run: Run) {
        self.runs.push(run);
    }

    fn find(&self, scene: Scene, ms: u64, engine: &str) -> Option<&Run> {
        self.runs
            .iter()
            .find(|run| run.scene == scene && run.latency_ms == ms && run.engine == engine)
    }

    /// Prints what is compared with a bound, and returns whether all of raio's is
    /// within.
    pub(crate) fn judge(&self) -> bool {
        let mut good = true;
        let mut check = |what: String, figure: f64, most: f64| {
            let holds = figure <= most;
            good &= holds;
            let verdict = if holds { "ok" } else { "MISSED" };
            println!("{what:<64} {figure:>9.4}  at most {most:<7} {verdict}");
        };
        println!();
        for scene in Scene::ALL {
            let ours: Vec<&Run> = self
                .runs
                .iter()
                .filter(|run| run.scene == scene && run.engine == "raio")
                .collect();
            for run in ours.iter().filter(|run| run.latency_ms >= COMPARED_FROM) {
                let of = format!("{scene:?}, {} ms", run.latency_ms);
                if let Some(aio) = self.find(scene, run.latency_ms, "kernel AIO") {
                    if aio.longest() >= WAITS * run.latency_ms as f64 * 1e6 {
                        check(
                            format!("{of}: longest submit to kernel AIO's"),
                            run.longest() / aio.longest(),
                            1.0 / TIMES_BELOW,
                        );
                    }
                }
                if let Some(uring) = self.find(scene, run.latency_ms, "io_uring") {
                    check(
                        format!("{of}: io_uring's throughput to raio's"),
                        uring.per_second / run.per_second,
                        NO_WORSE,
                    );
                    check(
                        format!("{of}: mean time to complete to io_uring's"),
                        run.complete.mean / uring.complete.mean,
                        NO_WORSE,
                    );
                }
            }
            if let (Some(first), Some(last)) = (ours.first(), ours.last()) {
                check(
                    format!(
                        "{scene:?}: longest submit with {} ms to {} ms",
                        last.latency_ms, first.latency_ms
                    ),
                    last.longest() / first.longest(),
                    GROWS,
                );
            }
        }
        good
    }

    /// Draws a picture of each scene.
    pub(crate) fn plot(&self, directory: &Path) -> io::Result<()> {
        let font = fs::read(FONT).map_err(|e| io::Error::other(format!("{FONT}: {e}")))?;
        register_font("sans-serif", FontStyle::Normal, font.leak())
            .map_err(|_| io::Error::other(format!("{FONT} is no font")))?;
        fs::create_dir_all(directory)?;
        for scene in Scene::ALL {
            let runs: Vec<&Run> = self.runs.iter().filter(|run| run.scene == scene).collect();
            if !runs.is_empty() {
                let path = directory.join(format!("submit-{scene:?}.png").to_lowercase());
                draw(&path, scene, &self.shares, &runs)
                    .map_err(|e| io::Error::other(e.to_string()))?;
            }
        }
        Ok(())
    }
}

/// Nines: 1 for 90 %, 2 for 99 %.
fn nines(share: f64) -> f64 {
    -(1.0 - share).max(1e-5).log10()
}

/// To a thousandth, if that is needed.
fn percent(share: f64) -> String {
    let digits = format!("{:.3}", 100.0 * share);
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    format!("{digits} %")
}

fn draw(path: &Path, scene: Scene, shares: &[f64], runs: &[&Run]) -> Result<(), Box<dyn Error>> {
    let area = BitMapBackend::new(path, (900, 540)).into_drawing_area();
    area.fill(&WHITE)?;
    let most = runs.iter().filter_map(|run| run.submit.at.last()).max();
    let most = most.copied().unwrap_or(1).max(1) as f64 / 1e6;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("time in submit: {scene:?}"), ("sans-serif", 24))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..5.0, (0.0005..most * 2.0).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("share of the calls")
        .x_label_formatter(&|n| percent(1.0 - 10f64.powf(-n)))
        .x_labels(6)
        .y_desc("ms")
        .draw()?;
    for run in runs {
        let color = match run.engine.as_str() {
            "raio" => BLUE,
            "io_uring" => GREEN,
            _ => RED,
        };
        let slow = 0.3 + 0.7 / (1.0 + (run.latency_ms as f64).log10());
        let points = shares.iter().zip(&run.submit.at);
        let line = points.map(|(share, ns)| (nines(*share), (*ns as f64 / 1e6).max(0.0005)));
        chart
            .draw_series(LineSeries::new(line, color.mix(slow).stroke_width(2)))?
            .label(format!("{}, {} ms", run.engine, run.latency_ms))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.mix(slow)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_the_sorted() {
        let times = Distribution::new((1..=10_000).rev().collect());
        assert_eq!(times.share(0.0), 1);
        assert_eq!(times.share(0.5), 5_000);
        assert_eq!(times.share(0.9999), 9_999);
        assert_eq!(times.share(1.0), 10_000);
        assert_eq!(times.mean, 5_000.5);
        assert_eq!(Distribution::new(vec![7]).share(0.9999), 7);
    }

    #[test]
    fn percents_are_short() {
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.9), "90 %");
        assert_eq!(percent(0.99999), "99.999 %");
    }

    fn run(engine: &str, ms: u64, submit: u64, all: u64) -> Run {
        let times = Times {
            submit: Vec::new(),
            complete: vec![all],
            all,
        };
        Run::new(Scene::ColdReads, ms, engine, vec![submit], times)
    }

    fn judge(runs: Vec<Run>) -> bool {
        let mut report = Report::new(Machine::read(&[]).unwrap());
        runs.into_iter().for_each(|run| report.add(run));
        report.judge()
    }

    #[test]
    fn each_miss_fails() {
        let peers = || {
            vec![
                run("io_uring", 10, 5_000, 10_000_000),
                run("kernel AIO", 10, 10_000_000, 10_000_000),
                run("io_uring", 100, 5_000, 100_000_000),
                run("kernel AIO", 100, 100_000_000, 100_000_000),
            ]
        };
        let with = |mut runs: Vec<Run>| {
            runs.append(&mut peers());
            judge(runs)
        };
        assert!(with(vec![
            run("raio", 1, 90_000, 10_000_000),
            run("raio", 10, 90_000, 10_000_000),
            run("raio", 100, 90_000, 100_000_000)
        ]));
        // Too long.
        assert!(!with(vec![run("raio", 10, 110_000, 10_000_000)]));
        // Longer with a slow device.
        assert!(!with(vec![
            run("raio", 1, 9_000, 1_000_000),
            run("raio", 10, 20_000, 10_000_000)
        ]));
        // Slower.
        assert!(!with(vec![run("raio", 10, 9_000, 11_000_000)]));
    }
}
