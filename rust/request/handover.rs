// SPDX-License-Identifier: GPL-2.0

//! Who sees to the end of a request that was started: one word of memory, and all changes of it.
//! `tools/model` compiles this file a second time and tries every interleaving.
//!
//! A file may end a request before the thread that submits is done with it. Then that thread sees to its end,
//! with those of others; otherwise it hands the request over, and who ends it does.
//!
//! | here | partner |
//! |---|---|
//! | [`ended`](Handover::ended): the result, then the word (full) | [`has_ended`](Handover::has_ended): load-acquire of the word; [`hand_over`](Handover::hand_over): the word (full); then the result |
//! | [`hand_over`](Handover::hand_over): the last access of who submits, then the word (full) | [`ended`](Handover::ended): the word (full), then the end |

use kernel::sync::atomic::{
    Acquire,
    Atomic,
    Full,
    Relaxed, //
};

const STARTED: u32 = 0;
const HANDED_OVER: u32 = 1;
const ENDED: u32 = 2;

/// How far the two are.
pub(crate) struct Handover(Atomic<u32>);

impl Handover {
    /// Nobody has done anything.
    #[inline]
    pub(crate) fn new() -> Self {
        Self(Atomic::new(STARTED))
    }

    /// The file has ended it, and there is a result. True if the caller sees to its end; otherwise it may be gone
    /// as soon as this returns.
    #[inline]
    pub(crate) fn ended(&self) -> bool {
        // Full: see the table above.
        self.0.xchg(ENDED, Full) == HANDED_OVER
    }

    /// The same where no file has it: who submits sees to its end.
    #[inline]
    pub(crate) fn end_here(&self) {
        // Relaxed: nobody else looks.
        self.0.store(ENDED, Relaxed);
    }

    /// Has it ended? To be asked by who submits, who sees to its end then, or who keeps it.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        // Acquire: see the table above.
        self.0.load(Acquire) == ENDED
    }

    /// Who submits is done with it. False if it has ended: then the caller sees to its end; otherwise it may be
    /// gone as soon as this returns, unless something else keeps it.
    #[inline]
    pub(crate) fn hand_over(&self) -> bool {
        // Full: see the table above. If it fails it has no order: acquire, as `has_ended`.
        self.0.cmpxchg(STARTED, HANDED_OVER, Full).is_ok() || !self.has_ended()
    }
}
