// SPDX-License-Identifier: GPL-2.0
//! Tables, verdicts and pictures of what was measured.

use super::{
    bars::{bars, Bar},
    engines::Name,
    jobs::Job,
    Counted, Results, Run, Wall,
};
use plotters::{
    prelude::*,
    style::{register_font, FontStyle},
};
use serde::de::DeserializeOwned;
use std::{
    error::Error,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

/// A cost may be so much more than the last recorded one.
const WORSE: f64 = 1.02;
/// And of locked instructions so many more: in some jobs there are hardly any of its own, and the
/// ticks of a run and its threads' turns vary by a few hundred. One for each batch of 16 is more.
const MORE_LOCKED: f64 = 0.05;

/// What to report.
#[derive(clap::Args)]
pub(crate) struct ReportArgs {
    /// What `cost` has written; what the plugin has counted and what was measured by the wall is
    /// added to it
    json: PathBuf,
    /// What the plugin has written
    #[arg(long, value_name = "FILE")]
    counts: Option<PathBuf>,
    /// What `cost --pairs` has written
    #[arg(long, value_name = "FILE")]
    wall: Option<PathBuf>,
    /// Results to compare with
    #[arg(long, value_name = "FILE")]
    last: Option<PathBuf>,
    /// Fail if a cost is over its bar, or instructions, locked ones or accesses to memory are
    /// worse than the last ones by 2 %
    #[arg(long, requires = "last")]
    check: bool,
    /// Where pictures go to
    #[arg(long, value_name = "DIRECTORY")]
    plot: Option<PathBuf>,
}

/// Prints what was measured; false if it is to be checked and isn't as it should be.
pub(crate) fn report(args: &ReportArgs) -> io::Result<bool> {
    let mut results: Results = read(&args.json)?;
    if let Some(counts) = &args.counts {
        results.add(&counted(counts)?)?;
    }
    if let Some(wall) = &args.wall {
        results.wall = Some(read(wall)?);
    }
    if args.counts.is_some() || args.wall.is_some() {
        serde_json::to_writer(File::create(&args.json)?, &results)?;
    }
    results.print();
    let bars = bars(&results);
    let mut good = print(&bars);
    if let Some(last) = &args.last {
        good &= results.is_no_worse(&read(last)?);
    }
    if let Some(directory) = &args.plot {
        results
            .plot(directory)
            .map_err(|e| io::Error::other(e.to_string()))?;
    }
    Ok(good || !args.check)
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let wrong = |e| io::Error::other(format!("{}: {e}", path.display()));
    serde_json::from_reader(File::open(path).map_err(wrong)?).map_err(|e| wrong(io::Error::from(e)))
}

fn counted(path: &Path) -> io::Result<Vec<Counted>> {
    let parse = |line: io::Result<String>| {
        let line = line?;
        let mut numbers = line.split(' ').map(str::parse);
        let mut next = || numbers.next().and_then(Result::ok);
        match (next(), next(), next()) {
            (Some(instructions), Some(locked), Some(accesses)) => Ok(Counted {
                instructions,
                locked,
                accesses,
            }),
            _ => Err(io::Error::other(format!("{}: {line}", path.display()))),
        }
    };
    BufReader::new(File::open(path)?)
        .lines()
        .map(parse)
        .collect()
}

fn print(bars: &[Bar]) -> bool {
    let mut good = true;
    println!(
        "\n{:<64} {:>7} {:>7} {:>5}",
        "raio to its peer", "share", "at most", "aim"
    );
    for Bar {
        what,
        share,
        most,
        aim,
    } in bars
    {
        let verdict = match share {
            share if share > most => "MISSED",
            share if share > aim => "",
            _ => "aim reached",
        };
        good &= share <= most;
        println!("{what:<64} {share:>7.3} {most:>7.2} {aim:>5.2} {verdict}");
    }
    good
}

/// Of a request.
struct Cost {
    what: String,
    each: f64,
    /// How much more it may be besides.
    slack: f64,
    ours: bool,
}

impl Cost {
    /// Is it raio's, and too much more than it was `before`?
    fn is_worse(&self, before: &Self) -> bool {
        self.ours && self.each > before.each * WORSE + self.slack
    }
}

impl Results {
    pub(super) fn find(&self, job: &Job, engine: Name) -> Option<&Run> {
        self.runs
            .iter()
            .find(|run| run.job == *job && run.engine == engine)
    }

    /// What one engine takes of what another takes in the same round, the median of all. Who is first in a round is
    /// last in the next.
    pub(super) fn share(&self, job: &Job, ours: Name, theirs: Name) -> Option<f64> {
        let (ours, theirs) = (self.find(job, ours)?, self.find(job, theirs)?);
        let pairs = ours.ns.iter().zip(&theirs.ns);
        let mut shares: Vec<f64> = pairs.map(|(a, b)| *a as f64 / *b as f64).collect();
        shares.sort_by(f64::total_cmp);
        shares.get(shares.len() / 2).copied()
    }

    /// Adds what was counted, a line for each run.
    fn add(&mut self, counted: &[Counted]) -> io::Result<()> {
        let runs: usize = self.runs.iter().map(|run| run.nth.len()).sum();
        let lines = counted.len();
        if runs != lines {
            return Err(io::Error::other(format!("{runs} runs, {lines} counts")));
        }
        for run in &mut self.runs {
            run.counted = run.nth_median().and_then(|nth| counted.get(nth).copied());
        }
        Ok(())
    }

    fn print(&self) {
        println!(
            "{:<32} {:<18} {:>10} {:>8} {:>8}",
            "4 KiB at random, depth/batch", "engine", "each", "locked", "accesses"
        );
        for run in &self.runs {
            print!(
                "{:<32} {:<18} {:>10.1}",
                run.job.to_string(),
                run.engine.to_string(),
                run.ns_each()
            );
            if let Some(counted) = run.counted {
                let each = |n: u64| n as f64 / run.requests as f64;
                print!(
                    " {:>8.2} {:>8.1}",
                    each(counted.locked),
                    each(counted.accesses)
                );
            }
            println!();
        }
        for run in &self.fio {
            let (job, engine) = (format!("fio, {}", run.job), run.engine.to_string());
            println!("{job:<32} {engine:<18} {:>10.1}", run.ns_each());
        }
        self.wall.iter().for_each(Wall::print);
    }

    /// All that is compared with the last one.
    fn costs(&self) -> Vec<Cost> {
        let mut costs = Vec::new();
        let mut add = |what: String, engine: Name, each, slack| {
            costs.push(Cost {
                what: format!("{what} {engine}"),
                each,
                slack,
                ours: engine.is_raio(),
            });
        };
        for run in &self.runs {
            let (job, each) = (&run.job, |n: u64| n as f64 / run.requests as f64);
            add(job.to_string(), run.engine, run.ns_each(), 0.0);
            if let Some(counted) = run.counted {
                let locked = each(counted.locked);
                add(format!("locked, {job}"), run.engine, locked, MORE_LOCKED);
                let accesses = each(counted.accesses);
                add(format!("accesses, {job}"), run.engine, accesses, 0.0);
            }
        }
        for run in &self.fio {
            add(format!("fio, {}", run.job), run.engine, run.ns_each(), 0.0);
        }
        costs
    }

    /// Is no cost of raio's above that of `last`, and is each in both, of its peers too?
    fn is_no_worse(&self, last: &Self) -> bool {
        let (all, last) = (self.costs(), last.costs());
        let in_last = |cost: &&Cost| last.iter().any(|last| last.what == cost.what);
        let mut wrong: Vec<String> = all
            .iter()
            .filter(|cost| !in_last(cost))
            .map(|cost| format!("{}: {:.2}: NOT ON RECORD", cost.what, cost.each))
            .collect();
        for before in last {
            let what = &before.what;
            match all.iter().find(|cost| cost.what == *what) {
                None => wrong.push(format!("{what}: NOT MEASURED")),
                Some(now) if now.is_worse(&before) => {
                    let (now, before) = (now.each, before.each);
                    let more = 100.0 * (now / before - 1.0);
                    wrong.push(format!(
                        "{what}: {now:.2}, {more:.1} % more than last time: WORSE"
                    ));
                }
                Some(_) => {}
            }
        }
        wrong.iter().for_each(|wrong| println!("{wrong}"));
        wrong.is_empty()
    }

    fn plot(&self, directory: &Path) -> Result<(), Box<dyn Error>> {
        let font = fs::read(crate::FONT).map_err(|e| format!("{}: {e}", crate::FONT))?;
        register_font("sans-serif", FontStyle::Normal, font.leak())
            .map_err(|_| format!("{} is no font", crate::FONT))?;
        fs::create_dir_all(directory)?;
        let plain = |job: &Job| job.target == "null_blk" && job.threads == 1 && !job.noatime;
        let runs: Vec<&Run> = self.runs.iter().filter(|run| plain(&run.job)).collect();
        let by = |what: &str, fixed: fn(&Job) -> bool, x: fn(&Job) -> usize| {
            let runs: Vec<&Run> = runs.iter().filter(|run| fixed(&run.job)).copied().collect();
            draw(&directory.join(format!("cost-{what}.png")), what, &runs, x)
        };
        // As much in a batch as there can be of those that are measured.
        by(
            "depth",
            |job| job.batch == job.depth.min(32),
            |job| job.depth,
        )?;
        by("batch", |job| job.depth == 128, |job| job.batch)
    }
}

fn draw(
    path: &Path,
    what: &str,
    runs: &[&Run],
    x: fn(&Job) -> usize,
) -> Result<(), Box<dyn Error>> {
    let area = BitMapBackend::new(path, (900, 540)).into_drawing_area();
    area.fill(&WHITE)?;
    let most = runs.iter().map(|run| run.ns_each()).fold(1.0, f64::max);
    let wide = runs.iter().map(|run| x(&run.job)).max().unwrap_or(1) as f64;
    let mut chart = ChartBuilder::on(&area)
        .caption(
            format!("4 KiB reads of null_blk, by {what}"),
            ("sans-serif", 24),
        )
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        // What is right of the lines is the legend's.
        .build_cartesian_2d((1.0..wide * 4.0).log_scale(), 0.0..most * 1.1)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(what)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_desc("instructions for each")
        .draw()?;
    for (i, engine) in Name::ALL.into_iter().enumerate() {
        let color = Palette99::pick(i).to_rgba();
        let line = runs
            .iter()
            .filter(|run| run.engine == engine)
            .map(|run| (x(&run.job) as f64, run.ns_each()));
        let points: Vec<_> = line.collect();
        if points.is_empty() {
            continue;
        }
        let width = if engine.is_raio() { 3 } else { 1 };
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(width)).point_size(3))?
            .label(engine.to_string())
            .legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 18, y)], color.stroke_width(width))
            });
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::growth::Machine;

    fn results(costs: &[(Name, u64)]) -> Results {
        let run = |(engine, cost): &(Name, u64)| Run {
            job: Job::of("null_blk"),
            engine: *engine,
            requests: 1000,
            ns: vec![1000 * cost],
            nth: vec![0],
            counted: Some(Counted {
                instructions: 1000 * cost,
                locked: 20_000,
                accesses: 200_000,
            }),
        };
        Results {
            machine: Machine::read(&[]).unwrap(),
            runs: costs.iter().map(run).collect(),
            fio: Vec::new(),
            wall: None,
        }
    }

    #[test]
    fn bars_can_be_missed() {
        let peers = [(Name::Limit, 1500), (Name::UringRegistered, 2400)];
        for job in [Job::of("null_blk"), Job::noatime()] {
            let with = |cost| {
                let mut costs = peers.to_vec();
                costs.push((Name::RaioRegistered, cost));
                let mut results = results(&costs);
                results
                    .runs
                    .iter_mut()
                    .for_each(|run| run.job = job.clone());
                print(&bars(&results))
            };
            assert!(with(1800));
            // Above the limit by more than 35 % of io_uring's.
            assert!(!with(1830));
            assert!(!with(1900));
        }
    }

    #[test]
    fn worse_is_told() {
        let last = results(&[(Name::RaioLibaio, 1000), (Name::Libaio, 1000)]);
        assert!(results(&[(Name::RaioLibaio, 1019), (Name::Libaio, 2000)]).is_no_worse(&last));
        assert!(!results(&[(Name::RaioLibaio, 1021), (Name::Libaio, 1000)]).is_no_worse(&last));
        assert!(!results(&[(Name::RaioLibaio, 1000)]).is_no_worse(&last));
        // There is nothing to compare with.
        let new = [
            (Name::RaioLibaio, 1000),
            (Name::Libaio, 1000),
            (Name::Raio, 1000),
        ];
        assert!(!results(&new).is_no_worse(&last));
    }

    #[test]
    fn worse_is_told_of_what_was_counted() {
        let last = results(&[(Name::Raio, 1000), (Name::Libaio, 1000)]);
        let with = |run: usize, locked, accesses| {
            let mut now = last.clone();
            let counted = now.runs[run].counted.as_mut().unwrap();
            counted.locked += locked;
            counted.accesses += accesses;
            now.is_no_worse(&last)
        };
        // Of 1,000 requests, each with 20 and 200.
        assert!(with(0, 440, 3990));
        assert!(!with(0, 460, 0));
        assert!(!with(0, 0, 4010));
        assert!(with(1, 460, 4010));
        let mut uncounted = last.clone();
        uncounted.runs[0].counted = None;
        assert!(!uncounted.is_no_worse(&last));
        assert!(!last.is_no_worse(&uncounted));
    }

    #[test]
    fn records_can_be_read() {
        let cost = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Documentation/cost");
        for file in fs::read_dir(cost).unwrap() {
            let path = file.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                let record: Results = read(&path).unwrap();
                assert!(record.is_no_worse(&record));
            }
        }
    }

    #[test]
    fn shares_are_of_pairs() {
        let mut results = results(&[(Name::Raio, 1), (Name::Uring, 1)]);
        results.runs[0].ns = vec![10, 30, 50];
        results.runs[1].ns = vec![10, 20, 100];
        let share = results.share(&Job::of("null_blk"), Name::Raio, Name::Uring);
        assert_eq!(share, Some(1.0));
    }

    #[test]
    fn counts_are_of_the_runs() {
        let mut results = results(&[(Name::Libaio, 1)]);
        assert!(results.add(&[]).is_err());
        let counted = Counted {
            instructions: 1,
            locked: 2,
            accesses: 3,
        };
        results.add(&[counted]).unwrap();
        assert_eq!(results.runs[0].counted.unwrap().locked, 2);
    }

    #[test]
    fn counts_are_of_the_median_round() {
        let mut results = results(&[(Name::Libaio, 1)]);
        results.runs[0].ns = vec![30, 10, 20];
        results.runs[0].nth = vec![0, 1, 2];
        let counted = [1, 2, 3].map(|locked| Counted {
            instructions: 1,
            locked,
            accesses: 3,
        });
        assert!(results.add(&counted[..2]).is_err());
        results.add(&counted).unwrap();
        assert_eq!(results.runs[0].counted.unwrap().locked, 3);
    }
}
