// SPDX-License-Identifier: GPL-2.0
//! What was done and what was met, counted: by the processes of the test in
//! memory that outlives them, for they are killed, and by the module. Both
//! have to be seen to happen, or the test tested something else.

use raio::Stats;
use std::{
    fmt::Write,
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd},
    sync::atomic::{AtomicU64, Ordering},
};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $title:literal,)*) => {
        /// What is counted by the test.
        #[derive(Clone, Copy, Debug)]
        pub enum Count {
            $($(#[$doc])* $name,)*
        }

        impl Count {
            /// All of them, with what they are called.
            pub const ALL: &[(Self, &'static str)] = &[$((Self::$name, $title),)*];
        }
    };
}

counters! {
    /// Processes started.
    Processes = "processes",
    /// Processes that the supervisor killed.
    Kills = "killed",
    /// Processes that ended in each way by themselves.
    Orderly = "ended in order",
    /// See [`Self::Orderly`].
    Closed = "ended by close",
    /// See [`Self::Orderly`].
    Exited = "ended by exit",
    /// See [`Self::Orderly`].
    Execs = "ended by exec",
    /// Threads started.
    Threads = "threads",
    /// Operations.
    Operations = "operations",
    /// Contexts made.
    Setups = "contexts",
    /// Destroyed with success.
    Destroyed = "destroyed",
    /// Destroyed by somebody else.
    NotDestroyed = "destroyed before",
    /// Requests taken.
    Taken = "requests taken",
    /// By raio's own call.
    Entered = "by enter",
    /// About what is registered.
    Fixed = "with fixed buffers",
    /// From the submission array.
    Shared = "from the array",
    /// In a call that waits for events, too.
    Waited = "waited for at once",
    /// What is registered, while it may be used.
    Replacements = "registered anew",
    /// Contexts destroyed with requests of what goes meanwhile in flight.
    EndedInFlight = "destroyed in flight",
    /// Reads of a disk that goes and comes with another size: all of it, or none.
    Fleeting = "of a fleeting disk",
    /// See [`Self::Fleeting`].
    Gone = "of one that is gone",
    /// Transfers of a disk whose size changes: all of it.
    Resized = "of a resized disk",
    /// As far as its end.
    Ends = "as far as its end",
    /// Nothing, for the end has come before it while it was in flight.
    CutOff = "cut off in flight",
    /// Requests refused.
    Refused = "requests refused",
    /// No room in the ring.
    Full = "rings full",
    /// Events read.
    Events = "events",
    /// Events read from the ring.
    RingEvents = "events from the ring",
    /// Reads whose data was verified.
    Verified = "reads verified",
    /// Those of them with a vector.
    Vectors = "with vectors",
    /// Syncs that have ended.
    Synced = "syncs",
    /// Requests that do nothing.
    Noops = "no-ops",
    /// Polls whose file was ready.
    Ready = "polls ready",
    /// Files that are polled made ready or not.
    Touches = "files touched",
    /// Or closed.
    Replaced = "files replaced",
    /// Fewer bytes than asked for.
    Short = "short",
    /// Errors of the device.
    Failed = "failed",
    /// Requests that a call has cancelled.
    Cancels = "cancels",
    /// Those of them that were polls.
    PollsCancelled = "polls cancelled",
    /// Those whose turn with the workers hadn't come.
    Withdrawals = "syncs withdrawn",
    /// In flight, but not cancelled.
    CancelsRefused = "cancels refused",
    /// Not in flight.
    CancelsVain = "cancels in vain",
    /// Cancelled requests whose event was read.
    Cancelled = "cancelled",
    /// Buffers that were looked at after a destroy.
    Canaries = "buffers watched",
    /// Calls on a context that had ended, or on a closed descriptor.
    Stale = "stale calls",
    /// Waits without an end.
    Endless = "endless waits",
    /// Waits ended by a signal.
    Interrupted = "waits interrupted",
    /// Contexts destroyed under a thread that uses them.
    Ambushes = "ambushes",
    /// Pairs of threads that have met to do something at the same time.
    Meetings = "meetings",
    /// Requests ended while their context's end cancels them.
    Races = "cancels raced",
    /// Files made ready while their polls are cancelled by their context's end.
    Wakes = "wakes raced",
    /// Contexts of which some polls were cancelled and some ready meanwhile.
    Crossings = "cancels and wakes met",
    /// Rings unmapped.
    Unmaps = "unmapped",
    /// Rings moved.
    Remaps = "moved",
    /// Descriptors closed.
    Closes = "closes",
    /// The last of a file.
    LastCloses = "last closes",
    /// Processes forked.
    Forks = "forks",
    /// Which ran another program.
    ForkExecs = "forks and execs",
}

const NR: usize = Count::ALL.len();

/// The counters, in memory that the supervisor shares with all processes.
pub struct Counters {
    file: File,
    memory: &'static [AtomicU64; NR],
}

impl Counters {
    /// All zero.
    ///
    /// # Errors
    ///
    /// Those of memfd_create(2) and mmap(2).
    pub fn new() -> io::Result<Self> {
        // SAFETY: a string. Without MFD_CLOEXEC: children get it.
        let fd = unsafe { libc::memfd_create(c"raio-stress".as_ptr(), 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it has just been opened.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(size_of::<[AtomicU64; NR]>() as u64)?;
        Self::of(file)
    }

    /// Those that `file` holds.
    ///
    /// # Errors
    ///
    /// Those of mmap(2).
    pub fn of(file: File) -> io::Result<Self> {
        // SAFETY: a new mapping. It is shared with processes of the same
        // program only, and never unmapped.
        let memory = unsafe {
            let memory = libc::mmap(
                std::ptr::null_mut(),
                size_of::<[AtomicU64; NR]>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            );
            if memory == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            &*memory.cast()
        };
        Ok(Self { file, memory })
    }

    /// The descriptor that children inherit.
    pub fn descriptor(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Counts one more.
    pub fn count(&self, what: Count) {
        self.add(what, 1);
    }

    /// Counts `n` more.
    pub fn add(&self, what: Count, n: usize) {
        self.memory[what as usize].fetch_add(n as u64, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self, what: Count) -> u64 {
        self.memory[what as usize].load(Ordering::Relaxed)
    }

    /// What was never done or met, of what always should.
    pub fn missing(&self) -> Vec<&'static str> {
        let rare = |count: &Count| matches!(count, Count::Full);
        Count::ALL
            .iter()
            .filter(|(count, _)| !rare(count) && self.get(*count) == 0)
            .map(|(_, title)| *title)
            .collect()
    }

    /// All, with what they are called.
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        Count::ALL
            .iter()
            .map(|(count, title)| (*title, self.get(*count)))
            .collect()
    }
}

/// The module's counters of what this test is about.
const NEEDED: [&str; 14] = [
    "early",
    "late",
    "cancelled",
    "uncancelled",
    "dead_lookups",
    "kill_busy",
    "kill_inflight",
    "killed_waits",
    "second_destroys",
    "abandoned",
    "polled_inline",
    "polled_deferred",
    "direct",
    "iopolled",
];

/// What the module has counted between two moments.
pub struct Module(Vec<(&'static str, u64)>);

impl Module {
    /// From `before` to `after`.
    pub fn between(before: &Stats, after: &Stats) -> Self {
        let before = before.counters().into_iter();
        let both = before.zip(after.counters());
        Self(
            both.map(|((name, before), (_, after))| (name, after.saturating_sub(before)))
                .collect(),
        )
    }

    /// One of them.
    pub fn get(&self, name: &str) -> u64 {
        let found = self.0.iter().find(|(it, _)| *it == name);
        found.map_or(0, |(_, n)| *n)
    }

    /// The interleavings that did not occur. Some take two processors, where
    /// threads aren't preempted in the kernel.
    pub fn missing(&self, processors: usize) -> Vec<&'static str> {
        let possible =
            |name: &&str| processors > 1 || !matches!(*name, "dead_lookups" | "second_destroys");
        NEEDED
            .into_iter()
            .filter(|name| self.get(name) == 0)
            .filter(possible)
            .collect()
    }

    /// All of them.
    pub fn all(&self) -> &[(&'static str, u64)] {
        &self.0
    }
}

/// A table of two times two columns.
pub fn table(title: (&str, &str), left: &[(&str, u64)], right: &[(&str, u64)]) -> String {
    let mut text = format!("{:<32}  {}\n", title.0, title.1);
    for row in 0..left.len().max(right.len()) {
        let cell = |column: &[(&str, u64)], width: usize| match column.get(row) {
            Some((name, n)) => format!("{name:<width$} {n:>10}"),
            None => " ".repeat(width + 11),
        };
        let line = format!("{}  {}", cell(left, 21), cell(right, 16));
        writeln!(text, "{}", line.trim_end()).expect("a String takes it");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_see_what_was_counted() {
        let one = Counters::new().unwrap();
        let other = Counters::of(one.file.try_clone().unwrap()).unwrap();
        one.count(Count::Forks);
        other.add(Count::Forks, 2);
        assert_eq!(one.get(Count::Forks), 3);
        assert_eq!(other.get(Count::Kills), 0);
        assert_eq!(one.all().len(), NR);
    }

    #[test]
    fn what_did_not_occur_is_told() {
        let before = Stats {
            early: 5,
            late: 5,
            ..Default::default()
        };
        let mut after = Stats { late: 6, ..before };
        let module = Module::between(&before, &after);
        assert_eq!((module.get("early"), module.get("late")), (0, 1));
        let missing = module.missing(2);
        assert!(missing.contains(&"early") && !missing.contains(&"late"));
        assert_eq!(missing.len(), NEEDED.len() - 1);
        assert_eq!(module.missing(1).len(), NEEDED.len() - 3);
        // Each is one that the module has.
        after = Stats {
            early: 9,
            late: 9,
            cancelled: 1,
            uncancelled: 1,
            dead_lookups: 1,
            kill_busy: 1,
            kill_inflight: 1,
            killed_waits: 1,
            second_destroys: 1,
            abandoned: 1,
            polled_inline: 1,
            polled_deferred: 1,
            direct: 1,
            iopolled: 1,
            ..before
        };
        assert!(Module::between(&before, &after).missing(2).is_empty());
    }

    #[test]
    fn the_table_has_all() {
        let text = table(("a", "b"), &[("x", 1), ("y", 2)], &[("z", 3)]);
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().all(|line| !line.ends_with(' ')));
        assert!(text.contains("x                              1  z                         3\n"));
    }
}
