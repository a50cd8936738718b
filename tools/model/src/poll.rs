// SPDX-License-Identifier: GPL-2.0
//! `rust/request/ownership.rs` with a request around it, which waits for a file
//! to be ready as `rust/request/watching.rs` has it: whatever happens at once, it
//! ends once if there is a reason, who cancels it is told the truth, and only
//! one thread at a time does what the owner does. (loom fails if two do.)

use crate::ownership::{Cancel, Ownership};
use kernel::{leave_out, Without};
use loom::{
    cell::UnsafeCell,
    model::Builder,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
};
use std::sync::Arc;

struct Request {
    ownership: Ownership,
    /// The file. Without an order: that of the request's has to do.
    ready: AtomicBool,
    /// What only the owner uses.
    looks: UnsafeCell<u32>,
    ends: AtomicU32,
    cancelled: AtomicBool,
    /// The answers to who has cancelled it.
    agreed: AtomicU32,
    refused: AtomicU32,
}

// SAFETY: loom looks whether two threads own it at once.
unsafe impl Send for Request {}
// SAFETY: as above.
unsafe impl Sync for Request {}

impl Request {
    /// One that its submitter owns.
    fn new() -> Self {
        Self {
            ownership: Ownership::ours(),
            ready: AtomicBool::new(false),
            looks: UnsafeCell::new(0),
            ends: AtomicU32::new(0),
            cancelled: AtomicBool::new(false),
            agreed: AtomicU32::new(0),
            refused: AtomicU32::new(0),
        }
    }

    /// One that nobody owns.
    fn waits() -> Self {
        let request = Self::new();
        assert!(request.ownership.give_up());
        request
    }

    fn own(&self) {
        // SAFETY: loom looks whether anybody else does this.
        self.looks.with_mut(|looks| unsafe { *looks += 1 });
    }

    fn end(&self) {
        self.own();
        self.cancelled
            .store(self.ownership.decide(), Ordering::Relaxed);
        self.ends.fetch_add(1, Ordering::Relaxed);
    }

    /// As the owner.
    fn look(&self) {
        loop {
            let told = self.ownership.look();
            self.own();
            if told.gone || told.cancelled || self.ready.load(Ordering::Relaxed) {
                return self.end();
            }
            if self.ownership.give_up() {
                return;
            }
        }
    }

    fn submit(&self) {
        self.own();
        if !self.ownership.give_up() {
            self.look();
        }
    }

    /// Without telling what for.
    fn wake(&self) {
        self.ready.store(true, Ordering::Relaxed);
        if self.ownership.claim(false) {
            self.look();
        }
    }

    /// Telling what for.
    fn wake_and_tell(&self) {
        self.ready.store(true, Ordering::Relaxed);
        if self.ownership.claim(false) {
            self.end();
        }
    }

    /// And it isn't ready.
    fn wake_in_vain(&self) {
        if self.ownership.claim(false) {
            self.look();
        }
    }

    fn go_away(&self) {
        if self.ownership.claim(true) {
            self.look();
        }
    }

    fn cancel(&self) {
        let cancel = self.ownership.cancel();
        if cancel == Cancel::Ours {
            self.end();
        }
        let answer = match cancel {
            Cancel::TooLate => &self.refused,
            Cancel::Told | Cancel::Ours => &self.agreed,
        };
        answer.fetch_add(1, Ordering::Relaxed);
    }

    /// Of one that is parked: who takes it ends it.
    fn take_over(&self) {
        if self.ownership.take_over() {
            self.end();
        }
    }
}

/// Tries all interleavings of `threads` beside a last one, `here`.
fn model<const N: usize>(new: fn() -> Request, threads: [fn(&Request); N], here: fn(&Request)) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let request = Arc::new(new());
        let others = threads.map(|f| {
            let request = request.clone();
            thread::spawn(move || f(&request))
        });
        here(&request);
        for other in others {
            other.join().unwrap();
        }
        let ends = request.ends.load(Ordering::Relaxed);
        assert_ne!(ends, 0, "lost");
        assert_eq!(ends, 1, "ended twice");
        let agreed = request.agreed.load(Ordering::Relaxed) > 0;
        let refused = request.refused.load(Ordering::Relaxed) > 0;
        let cancelled = request.cancelled.load(Ordering::Relaxed);
        assert!(!refused || !cancelled, "cancelled all the same");
        assert_eq!(agreed, cancelled, "said to be cancelled");
    });
}

fn woken_while_submitted() {
    model(
        Request::new,
        [Request::wake, Request::wake_and_tell],
        Request::submit,
    );
}

fn woken_several_times() {
    model(
        Request::waits,
        [Request::wake, Request::wake_in_vain],
        Request::wake_and_tell,
    );
    model(
        Request::waits,
        [Request::wake_in_vain, Request::wake_in_vain],
        Request::wake,
    );
}

fn cancelled_while_woken() {
    model(
        Request::waits,
        [Request::wake, Request::wake_in_vain],
        Request::cancel,
    );
    model(Request::waits, [Request::wake_and_tell], Request::cancel);
}

fn cancelled_while_kicked() {
    model(
        Request::waits,
        [Request::wake_and_tell, Request::take_over],
        Request::wake_and_tell,
    );
}

fn goes_away() {
    model(
        Request::waits,
        [Request::go_away, Request::wake],
        Request::cancel,
    );
    model(Request::new, [Request::go_away], Request::submit);
}

#[test]
fn each_ends_once() {
    woken_while_submitted();
    woken_several_times();
    cancelled_while_woken();
    cancelled_while_kicked();
    goes_away();
}

/// What one owner has done must be seen by the next.
#[test]
#[should_panic(expected = "Causality violation")]
fn order_is_needed() {
    leave_out(Without::Full);
    woken_while_submitted();
}
