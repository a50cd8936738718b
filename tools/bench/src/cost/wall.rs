// SPDX-License-Identifier: GPL-2.0
//! What raio takes beside its peers by the wall, in pairs: recorded, but never a bar, for
//! under emulation, and beside others on the host, it says little.

use super::{
    engines::Name,
    jobs::{Job, Targets},
    Args,
};
use crate::{
    growth::Machine,
    pairs::{in_a_thread, Pairs, Summary},
};
use serde::{Deserialize, Serialize};
use std::{fmt, io};

/// All pairs, and where that was.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Wall {
    machine: Machine,
    pairs: Vec<Pair>,
}

/// An engine of raio's and one of its peers in a job.
#[derive(Clone, Serialize, Deserialize)]
struct Pair {
    job: Job,
    engine: Name,
    peer: Name,
    #[serde(flatten)]
    summary: Summary,
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = format!("{}: {} to {}", self.job, self.engine, self.peer);
        let Summary {
            ratio,
            quartiles: (low, high),
            pairs,
            ..
        } = self.summary;
        write!(
            f,
            "{what:<64} {ratio:>7.3} {low:>8.3} to {high:.3} {pairs:>6}"
        )
    }
}

impl Wall {
    /// Measures `n` pairs of each engine and peer that `args` asks for, and prints as it does.
    pub(crate) fn measure(args: &Args, n: usize) -> io::Result<Self> {
        let mut pairs = Vec::new();
        let mut targets = Targets::new();
        for job in args.jobs() {
            for engine in args.engines().filter(|engine| engine.can(&job)) {
                for peer in engine.peers().iter().filter(|peer| peer.can(&job)) {
                    let target = targets.open(&job)?;
                    let run = |name: Name| in_a_thread(|| name.run(&job, &target, args.requests));
                    let pair = Pair {
                        job: job.clone(),
                        engine,
                        peer: *peer,
                        summary: Pairs::measure(n, || run(engine), || run(*peer))?.summary(),
                    };
                    println!("{pair}");
                    pairs.push(pair);
                }
            }
        }
        Ok(Self {
            machine: Machine::read(&args.note)?,
            pairs,
        })
    }

    pub(crate) fn print(&self) {
        println!(
            "\n{:<64} {:>7} {:>17} {:>6}",
            "by the wall", "ratio", "quartiles", "pairs"
        );
        self.pairs.iter().for_each(|pair| println!("{pair}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_ratios() {
        let pair = Pair {
            job: Job::of("null_blk"),
            engine: Name::Raio,
            peer: Name::Uring,
            summary: Pairs::measure(3, || Ok(1), || Ok(2)).unwrap().summary(),
        };
        let json = serde_json::to_value(&pair).unwrap();
        assert_eq!(
            (&json["engine"], &json["peer"]),
            (&"raio".into(), &"uring".into())
        );
        assert_eq!((&json["ratio"], &json["pairs"]), (&0.5.into(), &3.into()));
        assert_eq!(json["quartiles"][1], 0.5);
        let again: Pair = serde_json::from_value(json).unwrap();
        assert_eq!(again.to_string(), pair.to_string());
    }
}
