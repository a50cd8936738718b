// SPDX-License-Identifier: GPL-2.0
//! What is different between the two peers after a sequence, and which of that
//! is intended.

use crate::{
    intended::{Case, INTENDED},
    plan::{self, Pointer, Request, Sequence, Step},
    run::{Fact, Outcome, Side, Trace},
    sys::Result,
};
use std::fmt::Write;

/// What a comparison has found.
#[derive(Default)]
pub struct Verdict {
    /// What must not be.
    pub differences: Vec<String>,
    /// How often each of [`INTENDED`] was seen.
    pub intended: [u64; INTENDED.len()],
}

impl Verdict {
    /// Whether a difference is intended. If it isn't, it is noted as `what`.
    fn judge(&mut self, case: &Case<'_>, what: impl FnOnce() -> String) -> bool {
        match INTENDED.iter().position(|one| (one.is)(case)) {
            Some(i) => {
                self.intended[i] += 1;
                true
            }
            None => {
                self.differences.push(what());
                false
            }
        }
    }
}

/// Compares what a sequence has come to, and the files and the memory.
pub fn compare(sequence: &Sequence, sides: &mut [Side; 2], traces: &[Trace; 2]) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let [kernel, raio] = traces;
    for trace in traces {
        verdict.differences.extend(trace.wrong.iter().cloned());
    }
    for (i, step) in sequence.steps.iter().enumerate() {
        if let (Some(kernel), Some(raio)) = (kernel.steps.get(i), raio.steps.get(i)) {
            facts(sequence, i, step, kernel, raio, &mut verdict);
        }
    }

    let left = |trace: &Trace| -> i64 {
        let left = |r: &Outcome| i64::from(r.taken) - r.events.len() as i64;
        trace.requests.iter().map(left).sum()
    };
    let unread = left(kernel) > 0 && left(kernel) == left(raio);
    for (k, request) in sequence.requests.iter().enumerate() {
        let (kernel, raio) = (&kernel.requests[k], &raio.requests[k]);
        if kernel != raio {
            let case = Case::Request {
                request,
                alone: is_alone(sequence, k),
                kernel,
                raio,
                unread,
                counts_cancelled: sequence.requests.iter().zip(&traces[1].requests).any(
                    |(other, outcome)| {
                        outcome.cancelled > 0
                            && other.notified().is_some()
                            && other.notified() == request.handle.counts()
                    },
                ),
            };
            let what = || format!("request {k}: kernel AIO {kernel:?}, raio {raio:?}");
            if verdict.judge(&case, what) {
                continue;
            }
        }
        // Of a read that has failed any part may have been done.
        let failed = request.reads() && kernel.events.iter().any(|event| event.0 < 0);
        if kernel.used && !(failed && request.handle.file().is_queued()) {
            let (a, b) = (sides[0].memory.buffer(k), sides[1].memory.buffer(k));
            if let Some(what) = bytes(a, b) {
                verdict
                    .differences
                    .push(format!("buffer of request {k}: {what}"));
            }
        }
    }
    if kernel.counts != raio.counts {
        verdict.differences.push(format!(
            "eventfds: kernel AIO {:?}, raio {:?}",
            kernel.counts, raio.counts
        ));
    }

    let [a, b] = sides;
    let touched: Vec<_> = a.files.touched().collect();
    for file in touched {
        let (kernel, raio) = (a.files.state(file)?, b.files.state(file)?);
        if kernel.size != raio.size {
            verdict.differences.push(format!(
                "{file:?}: size and blocks are {:?} with kernel AIO, {:?} with raio",
                kernel.size, raio.size
            ));
        } else if let Some(what) = bytes(&kernel.data, &raio.data) {
            verdict.differences.push(format!("{file:?}: {what}"));
        }
    }
    Ok(verdict)
}

fn facts(
    sequence: &Sequence,
    i: usize,
    step: &Step,
    kernel: &[Fact],
    raio: &[Fact],
    verdict: &mut Verdict,
) {
    let request = request_of(sequence, step);
    for n in 0..kernel.len().max(raio.len()) {
        let none = ("nothing", 0);
        let kernel = *kernel.get(n).unwrap_or(&none);
        let raio = *raio.get(n).unwrap_or(&none);
        if kernel == raio {
            continue;
        }
        let case = Case::Fact {
            step,
            request,
            kernel,
            raio,
        };
        let what = || {
            format!(
                "step {i}: {} {}, raio: {} {}",
                kernel.0, kernel.1, raio.0, raio.1
            )
        };
        let intended = verdict.judge(&case, what);
        if !intended || kernel.0 == "set up" {
            // What follows is different, too.
            break;
        }
    }
}

fn request_of<'a>(sequence: &'a Sequence, step: &Step) -> Option<&'a Request> {
    let k = match step {
        Step::Alone(k) => k,
        Step::Cancel {
            pointer: Pointer::Request(k),
            ..
        } => k,
        _ => return None,
    };
    sequence.requests.get(*k)
}

fn is_alone(sequence: &Sequence, k: usize) -> bool {
    sequence
        .steps
        .iter()
        .any(|step| matches!(step, Step::Alone(other) if *other == k))
}

/// Where two are different.
fn bytes(kernel: &[u8], raio: &[u8]) -> Option<String> {
    if kernel == raio {
        return None;
    }
    if kernel.len() != raio.len() {
        return Some(format!(
            "{} bytes with kernel AIO, {} with raio",
            kernel.len(),
            raio.len()
        ));
    }
    let first = kernel.iter().zip(raio).position(|(a, b)| a != b)?;
    let last = kernel.iter().zip(raio).rposition(|(a, b)| a != b)?;
    Some(format!("bytes {first} to {last} differ"))
}

/// Everything there is to say about a sequence.
pub fn describe(sequence: &Sequence, traces: &[Trace; 2], verdict: &Verdict) -> String {
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{line}");
    };
    let Sequence {
        seed,
        nr_events,
        fresh,
        requests,
        steps,
    } = sequence;
    line(format_args!(
        "sequence {seed:#x}: nr_events {nr_events}, {} context, {} privileges, disk {}",
        if *fresh { "new" } else { "kept" },
        if plan::unprivileged(*seed) {
            "no"
        } else {
            "all"
        },
        plan::disk(*seed),
    ));
    for (k, request) in requests.iter().enumerate() {
        line(format_args!("request {k}: {request:?}"));
        let outcomes = traces.each_ref().map(|trace| &trace.requests[k]);
        if outcomes[0].used || outcomes[1].used {
            line(format_args!("    kernel AIO: {:?}", outcomes[0]));
            line(format_args!("          raio: {:?}", outcomes[1]));
        }
    }
    for (i, step) in steps.iter().enumerate() {
        line(format_args!("step {i}: {step:?}"));
        let facts = traces.each_ref().map(|trace| trace.steps.get(i));
        line(format_args!("    kernel AIO: {:?}", facts[0]));
        line(format_args!("          raio: {:?}", facts[1]));
    }
    for (one, n) in INTENDED.iter().zip(verdict.intended) {
        if n > 0 {
            line(format_args!("intended: {}, {}", one.name, one.reason));
        }
    }
    for difference in &verdict.differences {
        line(format_args!("DIFFERENCE in {seed:#x}, {difference}"));
    }
    text
}
