// SPDX-License-Identifier: GPL-2.0
//! A process that carries out every so manieth sequence of a run, and tells of it
//! in lines: `at NUMBER` now and then, `difference TEXT` for each line of one,
//! after which it ends, and `count NUMBER NAME` in the end.

use crate::{
    compare::{self, Verdict},
    files::{File, Files, Handle},
    intended::INTENDED,
    peer::Peer,
    plan::{self, Sequence, Step},
    run::{Side, Trace},
    sys::{self, Result},
};
use clap::Args;
use raio::raw;
use std::{
    collections::BTreeMap,
    ffi::c_int,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

/// Whoever takes so many seconds for a sequence hangs.
const LONGEST: u32 = 300;

/// Which part of the run it is.
#[derive(Args, Debug)]
pub struct Options {
    /// The number of this process
    #[arg(long)]
    pub index: u64,
    /// How many there are
    #[arg(long)]
    pub of: u64,
    /// Of the run
    #[arg(long)]
    pub seed: u64,
    /// How many all do together
    #[arg(long)]
    pub sequences: u64,
    #[command(flatten)]
    pub place: Place,
}

/// What is compared, and where.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// Compare kernel AIO with itself, to test the test
    #[arg(long)]
    pub peer_check: bool,
    /// A directory on a disk; there may be two, on different file systems
    #[arg(long, default_values = ["/mnt/ext4", "/mnt/xfs"])]
    pub disk: Vec<PathBuf>,
    /// A directory to mount in
    #[arg(long, default_value = "/tmp")]
    pub tmp: PathBuf,
}

/// A name in [`Place::tmp`] and [`Place::disk`] that nobody else has.
pub fn own_name(index: u64) -> String {
    format!("raio-differential-{}-{index}", std::process::id())
}

/// What the names of each peer's have besides.
const SIDES: [&str; 2] = ["a", "b"];

/// Removes the directories and disks that were made with that name.
pub fn clean(place: &Place, name: &str) {
    for dir in place.disk.iter().chain([&place.tmp]) {
        // Not everything was made, maybe.
        let _ = std::fs::remove_dir_all(dir.join(name));
    }
    for side in SIDES {
        raio_nullblk::remove(&format!("{name}-{side}"));
    }
}

/// The two peers with their files.
struct Pair {
    sides: [Side; 2],
    _device: Option<OwnedFd>,
}

impl Pair {
    /// For sequences with seeds of that kind.
    fn new(place: &Place, name: &str, kind: u64) -> Result<Self> {
        let (device, second) = if place.peer_check {
            (None, Peer::Kernel)
        } else {
            let device = raw::open(raio::DEVICE_PATH).map_err(|e| format!("/dev/raio: {e}"))?;
            let peer = Peer::Raio(device.as_raw_fd());
            (Some(device), peer)
        };
        let dir = place.tmp.join(name);
        sys::own_mounts()?;
        sys::mount_tmpfs(&dir, 1 << 20)?;
        let disk = place.disk[plan::disk(kind) % place.disk.len()].join(name);
        sys::make_dir(&disk)?;
        let side = |n: &str, peer| {
            sys::make_dir(&dir.join(n))?;
            let files = Files::new(&dir.join(n), &disk.join(n), &format!("{name}-{n}"))?;
            Side::new(peer, files)
        };
        let [a, b] = SIDES;
        let sides = [side(a, Peer::Kernel)?, side(b, second)?];
        if plan::unprivileged(kind) {
            sys::become_nobody()?;
        }
        Ok(Self {
            sides,
            _device: device,
        })
    }

    fn run(&mut self, sequence: &Sequence) -> Result<([Trace; 2], Verdict)> {
        let [a, b] = &mut self.sides;
        // Either may be the first.
        let traces = if sequence.seed & 4 == 0 {
            let first = a.run(sequence)?;
            [first, b.run(sequence)?]
        } else {
            let first = b.run(sequence)?;
            [a.run(sequence)?, first]
        };
        let verdict = compare::compare(sequence, &mut self.sides, &traces)?;
        for side in &mut self.sides {
            side.files.reset()?;
        }
        Ok((traces, verdict))
    }
}

/// What [`Trace::native`] counts.
const NATIVE: [&str; 4] = [
    "entered",
    "entered, file registered",
    "entered, buffer registered",
    "given by the array",
];

/// What has occurred, and how often.
#[derive(Default)]
struct Counts(BTreeMap<String, u64>);

impl Counts {
    fn add(&mut self, name: String, n: u64) {
        *self.0.entry(name).or_default() += n;
    }

    fn take(&mut self, sequence: &Sequence, traces: &[Trace; 2], verdict: &Verdict) {
        let [kernel, raio] = traces;
        for (_, value) in kernel
            .steps
            .iter()
            .flatten()
            .filter(|fact| fact.0 == "submitted")
        {
            if *value < 0 {
                self.add(format!("refused with {}", name_of(*value)), 1);
            }
        }
        for (step, facts) in sequence.steps.iter().zip(&kernel.steps) {
            let resizes = matches!(step, Step::Truncate(File::Partition, _));
            if resizes && facts.contains(&("truncated", 0)) {
                self.add("resized".into(), 1);
            }
        }
        for (_, value) in raio.steps.iter().flatten().filter(|fact| fact.0 == "slots") {
            self.add("raio".into(), *value as u64);
        }
        for (name, n) in NATIVE.iter().zip(raio.native) {
            self.add((*name).into(), n);
        }
        for (k, request) in sequence.requests.iter().enumerate() {
            let outcome = &kernel.requests[k];
            self.add("raio".into(), raio.requests[k].taken.into());
            if outcome.taken > 0 {
                self.add(format!("opcode {}", request.opcode), 1);
                self.add(format!("file {:?}", request.handle), 1);
            }
            if outcome.cancelled > 0 {
                self.add("cancelled".into(), 1);
            }
            for (res, _) in &outcome.events {
                self.add(format!("ended with {}", name_of(*res)), 1);
            }
        }
        for (one, n) in INTENDED.iter().zip(verdict.intended) {
            self.add(format!("difference {}", one.name), n);
        }
    }
}

/// A result in words.
fn name_of(value: i64) -> String {
    let error = |e: i64| {
        // As std has it: "File too large (os error 27)".
        let text = std::io::Error::from_raw_os_error(e as i32).to_string();
        text.split(" (").next().unwrap_or_default().to_owned()
    };
    match value {
        0 => "nothing".into(),
        1.. => "something".into(),
        _ => error(-value),
    }
}

static NOW: AtomicU64 = AtomicU64::new(0);

extern "C" fn hangs(_: c_int) {
    let mut line = *b"difference a sequence hangs: 0x0000000000000000\n";
    let mut seed = NOW.load(Ordering::Relaxed);
    for byte in line.iter_mut().rev().skip(1).take(16) {
        *byte = b"0123456789abcdef"[(seed & 15) as usize];
        seed >>= 4;
    }
    sys::last_words(&line)
}

/// Does the work.
pub fn run(options: &Options) -> Result<()> {
    sys::die_with_parent();
    sys::on_alarm(hangs);
    let name = format!("raio-differential-{}-{}", parent(), options.index);
    let mut pair = Pair::new(&options.place, &name, options.index)?;
    let mut counts = Counts::default();
    let mut done = 0;
    for number in (options.index..options.sequences).step_by(options.of as usize) {
        let sequence = plan::make(plan::seed_of(options.seed, number));
        NOW.store(sequence.seed, Ordering::Relaxed);
        sys::alarm(LONGEST);
        let (traces, verdict) = pair
            .run(&sequence)
            .map_err(|e| format!("sequence {:#x}: {e}", sequence.seed))?;
        counts.take(&sequence, &traces, &verdict);
        done += 1;
        if !verdict.differences.is_empty() {
            println!("at {done}");
            for line in compare::describe(&sequence, &traces, &verdict).lines() {
                println!("difference {line}");
            }
            // What is kept for the next sequence may not be the same any more.
            break;
        }
        if done % 64 == 0 {
            println!("at {done}");
        }
    }
    println!("at {done}");
    for (name, n) in &counts.0 {
        println!("count {n} {name}");
    }
    Ok(())
}

fn parent() -> u32 {
    std::os::unix::process::parent_id()
}

/// Carries out one sequence and prints all of it; true if there is no difference.
pub fn replay(seed: u64, place: &Place) -> Result<bool> {
    let name = own_name(0);
    let outcome = Pair::new(place, &name, seed).and_then(|mut pair| {
        let sequence = plan::make(seed);
        let (traces, verdict) = pair.run(&sequence)?;
        print!("{}", compare::describe(&sequence, &traces, &verdict));
        Ok(verdict.differences.is_empty())
    });
    clean(place, &name);
    outcome
}

/// What has to occur in a run of some length, besides that every operation and
/// every file is used. `native` if raio is there.
pub fn expected(native: bool) -> Vec<String> {
    use libc::*;
    let refused = [EINVAL, EBADF, EFAULT, EOPNOTSUPP, EPERM];
    let ended = [EINVAL, EFAULT, EAGAIN, EFBIG, ENOSPC, EPIPE, EPERM];
    let opcodes = [0, 1, 2, 3, 5, 7, 8].map(|opcode| format!("opcode {opcode}"));
    let files = Handle::ALL
        .iter()
        .filter(|handle| !Handle::NOT_OPEN.contains(handle))
        .filter(|handle| !matches!(handle, Handle::Path | Handle::Fifo))
        .map(|handle| format!("file {handle:?}"));
    let name = |error: &i32| name_of(-i64::from(*error));
    refused
        .iter()
        .map(|e| format!("refused with {}", name(e)))
        .chain(ended.iter().map(|e| format!("ended with {}", name(e))))
        .chain([
            "ended with nothing".into(),
            "ended with something".into(),
            "cancelled".into(),
            "resized".into(),
        ])
        .chain(opcodes)
        .chain(files)
        .chain(NATIVE.iter().filter(|_| native).map(|name| (*name).into()))
        .collect()
}
