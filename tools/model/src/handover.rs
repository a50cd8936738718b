// SPDX-License-Identifier: GPL-2.0
//! `rust/request/handover.rs` with a request around it, whose submitter hands it over
//! as `rust/request/inflight.rs` has it, while its file ends it: whatever happens at
//! once, one of the two sees to its end, has the result then, and the other is done
//! with it. (loom fails if not.)

use crate::handover::Handover;
use kernel::{leave_out, Without};
use loom::{
    cell::UnsafeCell,
    model::Builder,
    sync::{
        atomic::{AtomicU32, Ordering},
        Mutex,
    },
    thread,
};
use std::sync::Arc;

const RESULT: u32 = 4096;

struct Request {
    handover: Handover,
    result: UnsafeCell<u32>,
    /// What only the submitter uses, until it is done.
    next: UnsafeCell<u32>,
    /// Whether it is in flight.
    joined: Mutex<bool>,
    ends: AtomicU32,
}

// SAFETY: loom looks whether two threads use the same at once.
unsafe impl Send for Request {}
// SAFETY: as above.
unsafe impl Sync for Request {}

impl Request {
    fn new() -> Self {
        Self {
            handover: Handover::new(),
            result: UnsafeCell::new(0),
            next: UnsafeCell::new(0),
            joined: Mutex::new(false),
            ends: AtomicU32::new(0),
        }
    }

    fn use_next(&self) {
        // SAFETY: loom looks whether anybody else does this.
        self.next.with_mut(|next| unsafe { *next += 1 });
    }

    /// As who sees to its end, which is its last use.
    fn end(&self) {
        self.use_next();
        // SAFETY: as above.
        let result = self.result.with_mut(|result| unsafe { *result });
        assert_eq!(result, RESULT, "an end without a result");
        assert!(!*self.joined.lock().unwrap(), "ended, and in flight");
        self.ends.fetch_add(1, Ordering::Relaxed);
    }

    fn submit(&self) {
        self.use_next();
        if self.handover.has_ended() {
            return self.end();
        }
        let mut joined = self.joined.lock().unwrap();
        if self.handover.hand_over() {
            *joined = true;
            return;
        }
        drop(joined);
        self.end();
    }

    fn complete(&self) {
        // SAFETY: loom looks whether anybody else does this.
        self.result.with_mut(|result| unsafe { *result = RESULT });
        if self.handover.ended() {
            assert!(std::mem::take(&mut *self.joined.lock().unwrap()));
            self.end();
        }
    }
}

fn model() {
    Builder::new().check(|| {
        let request = Arc::new(Request::new());
        let file = request.clone();
        let file = thread::spawn(move || file.complete());
        request.submit();
        file.join().unwrap();
        assert_eq!(
            request.ends.load(Ordering::Relaxed),
            1,
            "lost, or ended twice"
        );
    });
}

#[test]
fn one_of_them_ends_it() {
    model();
}

/// One that no file has had is its submitter's.
#[test]
fn without_a_file() {
    loom::model(|| {
        let request = Request::new();
        // SAFETY: nobody else has it.
        request
            .result
            .with_mut(|result| unsafe { *result = RESULT });
        request.handover.end_here();
        request.submit();
        assert_eq!(request.ends.load(Ordering::Relaxed), 1);
    });
}

/// What one has done with it must be seen by the other.
#[test]
#[should_panic(expected = "Causality violation")]
fn order_is_needed() {
    leave_out(Without::Full);
    model();
}

/// Also if the submitter only looks.
#[test]
#[should_panic(expected = "Causality violation")]
fn acquire_is_needed() {
    leave_out(Without::Acquire);
    model();
}
