// SPDX-License-Identifier: GPL-2.0
//! What the threads of a process share.
//!
//! Locks: one for each slot, held to copy a reference only. What is done with
//! a context is done without, so that it may end meanwhile.

use crate::{
    ambush::Victim,
    context::{Context, Devices, Once, OpenFile, OwnPages},
    counters::Counters,
    ops::{Size, DUPLICATES, FILES, SLOTS},
    polled::Polled,
    report::{Checked, Report},
    sys,
    testdev::Control,
};
use std::{
    sync::{
        atomic::{AtomicI32, AtomicU64},
        Arc, Mutex, MutexGuard, PoisonError,
    },
    time::Instant,
};

/// Locks, whoever has died with it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a thread is that waits without an end.
#[derive(Default)]
pub struct Waiting {
    /// Its number in the system.
    pub thread: AtomicI32,
    /// Since when it waits. The lock is held while it is kicked, so that no
    /// kick comes when it has stopped waiting.
    pub since: Mutex<Option<Instant>>,
}

/// A process of the test.
pub struct World {
    /// Its seed.
    pub seed: u64,
    /// Since when it is there.
    pub begun: Instant,
    /// What is used once.
    pub once: Once,
    /// What is counted.
    pub counters: Counters,
    /// Where failures go.
    pub report: Report,
    /// The test devices.
    pub devices: Devices,
    /// The files that are polled.
    pub polled: Polled,
    /// Where commands to the test devices go.
    pub control: Control,
    /// The pages of them that are ours.
    pub own: OwnPages,
    /// Processors.
    pub processors: Vec<usize>,
    /// An open file that stays open.
    pub home: Arc<OpenFile>,
    /// A context there, that only is looked up.
    pub decoy: Arc<Context>,
    /// Forks that were begun.
    pub forks: AtomicU64,
    /// Who wait.
    pub waiting: Vec<Waiting>,
    /// Who are ambushed.
    pub victims: Vec<Victim>,
    files: Vec<Mutex<Arc<OpenFile>>>,
    slots: Vec<Mutex<Option<Arc<Context>>>>,
}

/// What a [`World`] is made of.
pub struct Parts {
    /// See [`World`].
    pub seed: u64,
    /// The number of the process.
    pub number: u64,
    /// See [`World`].
    pub counters: Counters,
    /// See [`World`].
    pub report: Report,
    /// See [`World`].
    pub devices: Devices,
    /// See [`World`].
    pub control: Control,
    /// See [`World`].
    pub own: OwnPages,
    /// How many threads there will be.
    pub threads: u32,
}

/// The least of a context.
const LEAST: Size = Size {
    nr_events: 1,
    entries: 1,
    native: false,
    polled: false,
};

impl World {
    /// Opens the files, and starts the threads that are ambushed.
    ///
    /// # Errors
    ///
    /// Any is a failure of the test.
    pub fn new(parts: Parts) -> Checked<Self> {
        let once = Once::new(parts.number);
        let files: Checked<Vec<_>> = (0..FILES)
            .map(|_| OpenFile::open(&once, DUPLICATES).map(Mutex::new))
            .collect();
        let home = OpenFile::open(&once, 2)?;
        let decoy = Context::new(&once, &home, 0, LEAST, true, &parts.devices)?;
        let processors = sys::processors();
        Ok(Self {
            seed: parts.seed,
            begun: Instant::now(),
            counters: parts.counters,
            report: parts.report,
            devices: parts.devices,
            polled: Polled::open(home.via(0).number, processors.len())?,
            control: parts.control,
            own: parts.own,
            home,
            decoy: decoy.ok_or("an open file is closed")?,
            forks: AtomicU64::new(0),
            waiting: (0..parts.threads).map(|_| Waiting::default()).collect(),
            victims: processors.iter().map(|_| Victim::new()).collect(),
            processors,
            files: files?,
            slots: (0..SLOTS).map(|_| Mutex::new(None)).collect(),
            once,
        })
    }

    /// A file.
    pub fn file(&self, n: u8) -> Arc<OpenFile> {
        Arc::clone(&lock(&self.files[usize::from(n)]))
    }

    /// Puts another file where `old` is.
    pub fn replace_file(&self, n: u8, old: &Arc<OpenFile>, new: Arc<OpenFile>) {
        let mut place = lock(&self.files[usize::from(n)]);
        if Arc::ptr_eq(&place, old) {
            *place = new;
        }
    }

    /// A context, that may have ended.
    pub fn context(&self, slot: u8) -> Option<Arc<Context>> {
        lock(&self.slots[usize::from(slot)]).clone()
    }

    /// Puts a context into a slot and returns the one that was there.
    pub fn put(&self, slot: u8, context: Option<Arc<Context>>) -> Option<Arc<Context>> {
        std::mem::replace(&mut lock(&self.slots[usize::from(slot)]), context)
    }

    /// Takes a context out of its slot if it is there.
    pub fn remove(&self, slot: u8, context: &Arc<Context>) {
        let mut place = lock(&self.slots[usize::from(slot)]);
        if place.as_ref().is_some_and(|it| Arc::ptr_eq(it, context)) {
            *place = None;
        }
    }
}
