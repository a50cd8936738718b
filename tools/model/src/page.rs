// SPDX-License-Identifier: GPL-2.0
//! `rust/kernel_ext/page_wait/parking.rs` with a request around it, which waits
//! for a page as `rust/request/retry.rs` has it: whatever happens at once, it ends
//! once, only one thread at a time has it, and the memory in the page's queue is
//! freed once, after its last use. (loom fails if not.)

use crate::parking::{Kick, Parking};
use kernel::{leave_out, Without};
use loom::{
    cell::UnsafeCell,
    model::Builder,
    sync::{
        atomic::{AtomicU32, Ordering},
        Mutex, MutexGuard,
    },
    thread,
};
use std::sync::Arc;

struct Page {
    locked: bool,
    /// Whether the request's entry is in its queue.
    queued: bool,
}

struct Request {
    page: Mutex<Page>,
    parking: Parking,
    /// The memory that `parking` is in.
    entry: UnsafeCell<u32>,
    frees: AtomicU32,
    /// What only who has it uses.
    attempts: UnsafeCell<u32>,
    ends: AtomicU32,
}

// SAFETY: loom looks whether two threads use the same at once.
unsafe impl Send for Request {}
// SAFETY: as above.
unsafe impl Sync for Request {}

impl Request {
    fn new() -> Self {
        Self {
            page: Mutex::new(Page {
                locked: true,
                queued: false,
            }),
            parking: Parking::new(),
            entry: UnsafeCell::new(0),
            frees: AtomicU32::new(0),
            attempts: UnsafeCell::new(0),
            ends: AtomicU32::new(0),
        }
    }

    fn own(&self) {
        // SAFETY: loom looks whether anybody else does this.
        self.attempts.with_mut(|n| unsafe { *n += 1 });
    }

    fn use_entry(&self) {
        // SAFETY: as above.
        self.entry.with_mut(|n| unsafe { *n += 1 });
    }

    fn free(&self) {
        self.use_entry();
        self.frees.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self) {
        self.own();
        self.ends.fetch_add(1, Ordering::Relaxed);
        if self.parking.end() {
            self.free();
        }
    }

    /// As who has it.
    fn attempt(&self) {
        loop {
            self.own();
            self.parking.begin();
            self.use_entry();
            {
                let mut page = self.page.lock().unwrap();
                if !page.locked {
                    drop(page);
                    return self.end();
                }
                page.queued = true;
            }
            if self.parking.park() {
                return;
            }
        }
    }

    fn unlock(&self) {
        let mut page = self.page.lock().unwrap();
        page.locked = false;
        self.wake_up(page);
    }

    /// And somebody else has locked it again.
    fn unlock_for_another(&self) {
        let page = self.page.lock().unwrap();
        if page.locked {
            self.wake_up(page);
        }
    }

    /// Kicks who is in the queue.
    fn wake_up(&self, mut page: MutexGuard<'_, Page>) {
        if !std::mem::take(&mut page.queued) {
            return;
        }
        self.use_entry();
        match self.parking.kick() {
            Kick::Seen | Kick::Left => (),
            Kick::Ours => {
                drop(page);
                self.attempt();
            }
            Kick::Free => self.free(),
        }
    }

    fn cancel(&self) {
        if self.parking.leave() {
            self.end();
        }
    }
}

/// Tries all interleavings of `threads` beside a last one, `here`.
fn model<const N: usize>(threads: [fn(&Request); N], here: fn(&Request)) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let request = Arc::new(Request::new());
        let others = threads.map(|f| {
            let request = request.clone();
            thread::spawn(move || f(&request))
        });
        here(&request);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(
            request.ends.load(Ordering::Relaxed),
            1,
            "lost, or ended twice"
        );
        assert_eq!(
            request.frees.load(Ordering::Relaxed),
            1,
            "leaked, or freed twice"
        );
    });
}

fn kicked() {
    model([Request::unlock], Request::attempt);
    model(
        [Request::unlock, Request::unlock_for_another],
        Request::attempt,
    );
}

fn cancelled() {
    model([Request::unlock, Request::cancel], Request::attempt);
    model(
        [Request::unlock, Request::cancel, Request::cancel],
        Request::attempt,
    );
}

#[test]
fn each_ends_once() {
    kicked();
    cancelled();
}

/// What was done in an attempt must be seen by who kicks.
#[test]
#[should_panic(expected = "Causality violation")]
fn order_is_needed() {
    leave_out(Without::Full);
    cancelled();
}

/// And the other way round.
#[test]
#[should_panic(expected = "Causality violation")]
fn acquire_is_needed() {
    leave_out(Without::Acquire);
    kicked();
    cancelled();
}
