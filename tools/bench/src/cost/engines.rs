// SPDX-License-Identifier: GPL-2.0
//! Who is measured, and the measurement.

use super::{
    aio::{Aio, Context},
    client::{drive, Buffers, Engine, Load, Op, Part, Shared},
    jobs::{Job, Target},
    native::{self, Alone, Sharing},
    uring::{Features, Ring, Uring},
};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::{
    arch::asm,
    fmt,
    fs::OpenOptions,
    io::{self, Write},
    os::fd::AsRawFd,
    path::Path,
    sync::{Arc, Barrier},
    thread,
    time::Instant,
};

/// libaio's own library, on Debian 12 or 13, and ours where `scripts/bench` puts it. By
/// their paths, for both have the same name.
const LIBAIO: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/libaio.so.1",
    "/usr/lib/x86_64-linux-gnu/libaio.so.1t64",
];
pub(crate) const OUR_LIBAIO: &str = "/raio/libaio/libaio.so.1";

/// An engine.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Name {
    /// Bare bios
    Limit,
    /// Kernel AIO by libaio
    Libaio,
    /// io_uring
    Uring,
    /// io_uring with registered buffers and files
    UringRegistered,
    /// io_uring with registered buffers and files, polled
    UringPolled,
    /// raio by its libaio
    RaioLibaio,
    /// raio
    Raio,
    /// raio with registered buffers and files
    RaioRegistered,
    /// raio with registered buffers and files, polled
    RaioPolled,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

impl Name {
    pub(crate) const ALL: [Self; 9] = [
        Self::Limit,
        Self::Libaio,
        Self::Uring,
        Self::UringRegistered,
        Self::UringPolled,
        Self::RaioLibaio,
        Self::Raio,
        Self::RaioRegistered,
        Self::RaioPolled,
    ];

    /// Is it ours?
    pub(crate) fn is_raio(self) -> bool {
        !self.peers().is_empty()
    }

    /// With whom one of ours is compared: kernel AIO, and io_uring as it is asked for the same.
    pub(crate) fn peers(self) -> &'static [Self] {
        match self {
            Self::RaioLibaio | Self::Raio => &[Self::Libaio, Self::Uring],
            Self::RaioRegistered => &[Self::Libaio, Self::UringRegistered],
            Self::RaioPolled => &[Self::Libaio, Self::UringPolled],
            _ => &[],
        }
    }

    /// Can it do that?
    pub(crate) fn can(self, job: &Job) -> bool {
        let op = job.load().op;
        match self {
            Self::Limit => job.threads == 1 && !job.has_data() && op == Op::Read,
            Self::Libaio | Self::RaioLibaio => op != Op::Nothing,
            Self::UringPolled | Self::RaioPolled => op != Op::Nothing,
            Self::Uring | Self::UringRegistered | Self::Raio | Self::RaioRegistered => true,
        }
    }

    /// Nanoseconds of a job that it can do, of `n` requests by each thread.
    pub(crate) fn run(self, job: &Job, target: &Target, n: usize) -> io::Result<u64> {
        let load = job.load();
        let fd = target.file.as_raw_fd();
        // They go after the engines.
        let buffers = &Buffers::new(load.slots);
        let uring = |registered, polled| {
            let features = Features { registered, polled };
            let shared = job.is_shared();
            let depth = load.depth * job.threads / job.contexts;
            let ring = || Ring::new(features, shared, depth, fd, &load, buffers);
            if shared {
                let rings = (0..job.contexts)
                    .map(|_| ring().map(Arc::new))
                    .collect::<io::Result<Vec<_>>>()?;
                timed(job, n, buffers, |thread| {
                    let ring = rings[thread % rings.len()].clone();
                    Uring::new(ring, features, fd, &load, buffers)
                })
            } else {
                timed(job, n, buffers, |_| {
                    Uring::new(ring()?, features, fd, &load, buffers)
                })
            }
        };
        let aio = |library: &str| {
            // Where threads share one, kernel AIO may not know yet that another has read events.
            let depth = load.depth * (job.threads / job.contexts).pow(2);
            let contexts = (0..job.contexts)
                .map(|_| Context::new(library, depth))
                .collect::<io::Result<Vec<_>>>()?;
            timed(job, n, buffers, |thread| {
                let context = contexts[thread % contexts.len()].clone();
                Ok(Aio::new(context, job.is_shared(), fd, &load, buffers))
            })
        };
        let native = |registered, polled| {
            let shared = job.is_shared();
            let depth = load.depth * job.threads / job.contexts;
            let contexts = (0..job.contexts)
                .map(|_| native::Context::new(depth, &load, shared, polled))
                .collect::<io::Result<Vec<_>>>()?;
            let of = |thread: usize| contexts[thread % contexts.len()].clone();
            if shared {
                timed(job, n, buffers, |thread| {
                    Sharing::new(of(thread), registered, fd, &load, buffers)
                })
            } else {
                timed(job, n, buffers, |thread| {
                    Alone::new(of(thread), registered, fd, &load, buffers)
                })
            }
        };
        match self {
            Self::Limit => limit(&load, target, n),
            Self::Libaio => {
                let there = |path: &&&str| Path::new(path).exists();
                aio(LIBAIO.iter().find(there).unwrap_or(&LIBAIO[0]))
            }
            Self::RaioLibaio => aio(OUR_LIBAIO),
            Self::Uring => uring(false, false),
            Self::UringRegistered => uring(true, false),
            Self::UringPolled => uring(true, true),
            Self::Raio => native(false, false),
            Self::RaioRegistered => native(true, false),
            Self::RaioPolled => native(true, true),
        }
    }
}

/// Begins, or ends, what the plugin counts. `raio-count` has the same numbers.
fn mark_begin() {
    // SAFETY: It does nothing.
    unsafe { asm!("nopl 0x7261696f(%rax,%rax,1)", options(att_syntax, nostack)) }
}

fn mark_end() {
    // SAFETY: As above.
    unsafe { asm!("nopl 0x72616970(%rax,%rax,1)", options(att_syntax, nostack)) }
}

/// Nanoseconds that `work` takes.
fn stopwatch(work: impl FnOnce() -> io::Result<()>) -> io::Result<u64> {
    let start = Instant::now();
    mark_begin();
    work()?;
    mark_end();
    Ok(start.elapsed().as_nanos() as u64)
}

/// Has each thread make `n` requests, after some that aren't counted, of which data
/// is looked at.
fn timed<E: Engine>(
    job: &Job,
    n: usize,
    buffers: &Buffers,
    make: impl Fn(usize) -> io::Result<E> + Sync,
) -> io::Result<u64> {
    let load = job.load();
    let verify = job.has_data() && load.op == Op::Read;
    let warm = (n / 10).max(2 * load.depth);
    let shared = [Shared::default(), Shared::default()];
    let part = |thread: usize, phase: usize, n| Part {
        slots: thread * load.depth..(thread + 1) * load.depth,
        n: if job.is_shared() { n * job.threads } else { n },
        shared: job.is_shared().then_some(&shared[phase]),
    };
    let prepare = |thread| {
        let mut engine = make(thread)?;
        drive(&mut engine, &load, part(thread, 0, warm), |slot, block| {
            !verify || buffers.word(slot) == block
        })?;
        Ok::<_, io::Error>(engine)
    };
    let work = |thread, engine: &mut E| drive(engine, &load, part(thread, 1, n), |_, _| true);
    if job.threads == 1 {
        let mut engine = prepare(0)?;
        return stopwatch(|| work(0, &mut engine));
    }
    let [ready, begin] = [0; 2].map(|_| Barrier::new(job.threads + 1));
    thread::scope(|scope| {
        let thread = |thread| {
            let (ready, begin, prepare, work) = (&ready, &begin, &prepare, &work);
            scope.spawn(move || {
                let prepared = prepare(thread);
                ready.wait();
                begin.wait();
                work(thread, &mut prepared?)
            })
        };
        let threads: Vec<_> = (0..job.threads).map(thread).collect();
        ready.wait();
        stopwatch(|| {
            // Nobody has begun before the clock runs.
            begin.wait();
            for thread in threads {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a thread has panicked")))?;
            }
            Ok(())
        })
    })
}

/// Has the module `raio_limit` read.
fn limit(load: &Load, target: &Target, n: usize) -> io::Result<u64> {
    let mut device = OpenOptions::new().write(true).open("/dev/raio_limit")?;
    let mut command = |n: usize| {
        let Load {
            depth,
            batch,
            blocks,
            ..
        } = load;
        let command = format!("{} {depth} {batch} {blocks} {n}", target.path.display());
        device.write_all(command.as_bytes())
    };
    command(n / 10)?;
    stopwatch(|| command(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_is_without_a_peer() {
        for job in Job::all() {
            for ours in Name::ALL
                .iter()
                .filter(|name| name.is_raio() && name.can(&job))
            {
                let has_peer = ours.peers().iter().any(|peer| peer.can(&job));
                assert!(has_peer, "{job} {ours}");
            }
        }
    }
}
