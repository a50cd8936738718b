// SPDX-License-Identifier: GPL-2.0
//! What was measured, as tables and JSON, and whether it is as flat as it
//! should be.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, io, thread};

/// How a cost should depend on the number that it is measured with.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// In any way.
    Any,
    /// Not at all: the largest is at most so many times the smallest.
    Flat(f64),
    /// It gets less: each is at most so many times the one before.
    Falls(f64),
    /// So many share one: together they have at most so much.
    Shared(f64),
}

impl Shape {
    /// What is compared, and with what.
    fn compare(self, costs: &[(usize, f64)]) -> Option<Limit> {
        let (figure, most): (Vec<f64>, _) = match self {
            Self::Any => return None,
            Self::Flat(most) => {
                let least = costs.iter().map(|cost| cost.1).fold(f64::MAX, f64::min);
                (costs.iter().map(|cost| cost.1 / least).collect(), most)
            }
            Self::Falls(most) => {
                let steps = costs.windows(2).map(|two| two[1].1 / two[0].1);
                (steps.collect(), most)
            }
            Self::Shared(most) => {
                let together = costs.iter().map(|(n, cost)| *n as f64 * cost);
                (together.collect(), most)
            }
        };
        Some(Limit {
            figure: figure.into_iter().fold(0.0, f64::max),
            most,
        })
    }

    fn what(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Flat(_) => "largest to smallest",
            Self::Falls(_) => "one to the one before",
            Self::Shared(_) => "times the number",
        }
    }
}

/// A figure and its bound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Limit {
    figure: f64,
    most: f64,
}

impl Limit {
    fn holds(self) -> bool {
        self.figure <= self.most
    }
}

/// What it is with `n`.
#[derive(Serialize)]
pub(crate) struct Point {
    pub(crate) n: usize,
    pub(crate) raio: f64,
    pub(crate) kernel_aio: f64,
    /// The median of the pairs' ratios.
    pub(crate) ratio: f64,
}

impl Point {
    /// The same for each of the `n`.
    pub(crate) fn shared(&self) -> Self {
        let n = self.n as f64;
        Self {
            raio: self.raio / n,
            kernel_aio: self.kernel_aio / n,
            ..*self
        }
    }
}

/// One cost with different numbers.
#[derive(Serialize)]
pub(crate) struct Series {
    name: &'static str,
    by: &'static str,
    points: Vec<Point>,
    #[serde(skip)]
    shape: Shape,
}

impl Series {
    /// `by` is what the number is of.
    pub(crate) fn new(name: &'static str, by: &'static str, shape: Shape) -> Self {
        Self {
            name,
            by,
            points: Vec::new(),
            shape,
        }
    }

    pub(crate) fn add(&mut self, point: Point) {
        self.points.push(point);
    }

    fn print(&self) {
        println!("\n{}", self.name);
        println!(
            "{:>12} {:>14} {:>14} {:>8}",
            self.by, "raio", "kernel AIO", "ratio"
        );
        for point in &self.points {
            let (ours, theirs) = (number(point.raio), number(point.kernel_aio));
            println!(
                "{:>12} {ours:>14} {theirs:>14} {:>8.3}",
                point.n, point.ratio
            );
        }
    }

    /// Of raio, and of kernel AIO.
    fn compare(&self) -> Option<(Limit, Limit)> {
        let costs = |of: fn(&Point) -> f64| -> Vec<_> {
            self.points
                .iter()
                .map(|point| (point.n, of(point)))
                .collect()
        };
        let ours = self.shape.compare(&costs(|point| point.raio))?;
        let theirs = self.shape.compare(&costs(|point| point.kernel_aio))?;
        Some((ours, theirs))
    }
}

/// With as many digits as say something.
fn number(value: f64) -> String {
    match value {
        0.0..1.0 => format!("{value:.4}"),
        1.0..10_000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Where it was measured.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    kernel: String,
    processor: String,
    processors: usize,
    #[serde(flatten)]
    notes: BTreeMap<String, String>,
}

impl Machine {
    /// This one, with `notes` of the form `key=value`.
    pub(crate) fn read(notes: &[String]) -> io::Result<Self> {
        Ok(Self {
            kernel: fs::read_to_string("/proc/version")?.trim().to_owned(),
            processor: model(&fs::read_to_string("/proc/cpuinfo")?).to_owned(),
            processors: thread::available_parallelism()?.get(),
            notes: notes.iter().map(|note| pair(note)).collect(),
        })
    }
}

fn model(cpuinfo: &str) -> &str {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": "))
        .map_or("unknown", |(_, model)| model)
}

fn pair(note: &str) -> (String, String) {
    let (key, value) = note.split_once('=').unwrap_or((note, ""));
    (key.to_owned(), value.to_owned())
}

/// All of it.
#[derive(Serialize)]
pub(crate) struct Report {
    machine: Machine,
    series: Vec<Series>,
}

impl Report {
    /// An empty one.
    pub(crate) fn new(machine: Machine) -> Self {
        Self {
            machine,
            series: Vec::new(),
        }
    }

    /// Adds series and prints them.
    pub(crate) fn add(&mut self, series: Vec<Series>) {
        series.iter().for_each(Series::print);
        self.series.extend(series);
    }

    /// Prints what is compared with a bound, and returns whether all of raio's
    /// is within.
    pub(crate) fn judge(&self) -> bool {
        println!("\nflat where it should be flat");
        println!(
            "{:<40} {:<22} {:>6} {:>10} {:>6}",
            "", "", "raio", "kernel AIO", "bound"
        );
        let mut flat = true;
        for series in &self.series {
            if let Some((ours, theirs)) = series.compare() {
                flat &= ours.holds();
                println!(
                    "{:<40} {:<22} {:>6.3} {:>10.3} {:>6.3} {}",
                    series.name,
                    series.shape.what(),
                    ours.figure,
                    theirs.figure,
                    ours.most,
                    if ours.holds() { "ok" } else { "MISSED" }
                );
            }
        }
        flat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(shape: Shape, costs: &[(usize, f64)]) -> Option<(f64, bool)> {
        let limit = shape.compare(costs)?;
        Some((limit.figure, limit.holds()))
    }

    #[test]
    fn shapes_are_compared() {
        let rises = [(1, 100.0), (10, 105.0), (100, 120.0)];
        assert_eq!(figure(Shape::Any, &rises), None);
        assert_eq!(figure(Shape::Flat(1.2), &rises), Some((1.2, true)));
        assert_eq!(figure(Shape::Flat(1.1), &rises), Some((1.2, false)));
        // What is dear with few isn't flat either.
        let dips = [(1, 130.0), (10, 100.0), (100, 120.0)];
        assert_eq!(figure(Shape::Flat(1.2), &dips), Some((1.3, false)));

        assert_eq!(
            figure(Shape::Falls(1.0), &[(1, 8.0), (2, 4.0), (3, 3.0)]),
            Some((0.75, true))
        );
        assert_eq!(
            figure(Shape::Falls(1.0), &[(1, 8.0), (2, 4.0), (3, 5.0)]),
            Some((1.25, false))
        );

        let one_each = [(1, 1.0), (16, 0.0625)];
        assert_eq!(figure(Shape::Shared(1.1), &one_each), Some((1.0, true)));
        let one_per_event = [(1, 1.0), (16, 1.0)];
        assert_eq!(
            figure(Shape::Shared(1.1), &one_per_event),
            Some((16.0, false))
        );
    }

    fn report(raio: f64) -> Report {
        let mut series = Series::new("lookup", "contexts", Shape::Flat(1.1));
        for (n, raio) in [(1, 1.0), (2, raio)] {
            series.add(Point {
                n,
                raio,
                kernel_aio: 4.0,
                ratio: raio / 4.0,
            });
        }
        let mut report = Report::new(Machine {
            kernel: "7.3".into(),
            processor: "none".into(),
            processors: 1,
            notes: [pair("commit=12=3")].into(),
        });
        report.add(vec![series]);
        report
    }

    #[test]
    fn one_miss_fails() {
        assert!(report(1.1).judge());
        assert!(!report(1.2).judge());
    }

    #[test]
    fn json_says_where() {
        let json = serde_json::to_value(report(2.0)).unwrap();
        assert_eq!(json["machine"]["commit"], "12=3");
        assert_eq!(json["series"][0]["name"], "lookup");
        assert_eq!(json["series"][0]["points"][1]["ratio"], 0.5);
    }

    #[test]
    fn processors_have_names() {
        assert_eq!(
            model("processor\t: 0\nmodel name\t: QEMU TCG\n"),
            "QEMU TCG"
        );
        assert_eq!(model(""), "unknown");
    }

    #[test]
    fn digits() {
        assert_eq!(number(0.0625), "0.0625");
        assert_eq!(number(321.04), "321.0");
        assert_eq!(number(1_945_993.2), "1945993");
    }
}
