// SPDX-License-Identifier: GPL-2.0
//! What raio may cost at most, beside its peers in the same boot.

use super::{engines::Name, jobs::Job, Results};

/// A figure of raio's, as a share of another's.
pub(crate) struct Bar {
    pub(crate) what: String,
    pub(crate) share: f64,
    pub(crate) most: f64,
    pub(crate) aim: f64,
}

/// Those of the jobs and engines that were measured.
pub(crate) fn bars(results: &Results) -> Vec<Bar> {
    use Name::{
        Libaio, Limit, RaioLibaio, RaioPolled, RaioRegistered, UringPolled, UringRegistered,
    };
    let raw = [Job::of("null_blk"), Job::noatime()];
    let cost = |job: &Job, engine| results.find(job, engine).map(|run| run.ns_each());
    let locked = |job: &Job, engine| {
        let run = results.find(job, engine)?;
        Some(run.counted?.locked as f64 / run.requests as f64)
    };
    let share = |ours: Option<f64>, theirs: Option<f64>| Some(ours? / theirs?);
    let of = |job: &Job, ours: Name, theirs: &str| format!("{job}: {ours} to {theirs}");
    let mut bars = Vec::new();
    let bar = |bars: &mut Vec<Bar>, what, share: Option<f64>, most, aim| {
        bars.extend(share.map(|share| Bar {
            what,
            share,
            most,
            aim,
        }));
    };
    let pair = |bars: &mut Vec<Bar>, job: &Job, ours: Name, theirs: Name, most, aim| {
        let what = of(job, ours, &theirs.to_string());
        bar(bars, what, results.share(job, ours, theirs), most, aim);
    };
    for raw in &raw {
        pair(&mut bars, raw, RaioLibaio, Libaio, 0.90, 0.80);
        pair(&mut bars, raw, RaioRegistered, UringRegistered, 0.78, 0.71);
        pair(&mut bars, raw, RaioPolled, UringPolled, 0.80, 0.72);
    }
    pair(
        &mut bars,
        &Job::of("nothing"),
        RaioRegistered,
        UringRegistered,
        1.00,
        0.80,
    );
    let mut disks = Vec::new();
    for fs in ["ext4", "xfs"] {
        for write in [false, true] {
            let job = Job {
                write,
                ..Job::of(fs)
            };
            pair(&mut bars, &job, RaioRegistered, UringRegistered, 0.95, 0.85);
            disks.push(job);
        }
    }
    for raw in &raw {
        if let Some(limit) = cost(raw, Limit) {
            let above = |engine| cost(raw, engine).map(|cost| cost - limit);
            bar(
                &mut bars,
                of(raw, RaioRegistered, "uring-registered, above the limit"),
                share(above(RaioRegistered), above(UringRegistered)),
                0.35,
                0.18,
            );
        }
        bar(
            &mut bars,
            of(raw, RaioRegistered, "uring-registered, locked instructions"),
            share(locked(raw, RaioRegistered), locked(raw, UringRegistered)),
            1.00,
            0.70,
        );
    }
    // All others, by the better of the two peers.
    for job in Job::all() {
        for ours in Name::ALL {
            let special = match ours {
                RaioLibaio | RaioPolled => raw.contains(&job),
                RaioRegistered => {
                    raw.contains(&job) || job.target == "nothing" || disks.contains(&job)
                }
                _ => false,
            };
            if special {
                continue;
            }
            let best = ours
                .peers()
                .iter()
                .filter_map(|peer| Some((cost(&job, *peer)?, *peer)))
                .min_by(|a, b| a.0.total_cmp(&b.0));
            if let Some((_, peer)) = best {
                pair(&mut bars, &job, ours, peer, 1.00, 0.90);
            }
        }
    }
    bars
}
