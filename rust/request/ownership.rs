// SPDX-License-Identifier: GPL-2.0

//! Who may end a request that several can have a reason to end, and what the others have to say to
//! that one: one word of memory, and all changes of it. `tools/model` compiles this file a second time
//! and tries every interleaving.
//!
//! Somebody owns the request, or nobody does. Who has something to say and finds no owner is it from
//! then on; who finds one leaves word. The owner looks at what there is to see, and ends the request
//! or gives it up; but it can't give it up before it has seen to all that was said. So nothing that
//! was told is lost, and nobody else touches what the owner does.
//!
//! The owner decides the result once. Who cancels before that has done so, and who comes later has
//! not: each of them knows.
//!
//! | here | partner |
//! |---|---|
//! | [`claim`](Ownership::claim), [`cancel`](Ownership::cancel): what is told of, then the word (full) | [`look`](Ownership::look): the word (full), then what is told of |
//! | [`give_up`](Ownership::give_up): what the owner did, then the word (full) | [`claim`](Ownership::claim), [`cancel`](Ownership::cancel): the word (full), then what the next owner does |

use kernel::sync::atomic::{
    Atomic,
    Full,
    Relaxed, //
};

/// Somebody owns it.
const OWNED: u32 = 1 << 0;
/// Something was said since the owner began to look.
const AGAIN: u32 = 1 << 1;
/// It is to be cancelled. For good.
const CANCELLED: u32 = 1 << 2;
/// There will be nothing to see any more. For good.
const GONE: u32 = 1 << 3;
/// What its result is. For good, and so is the owner.
const DECIDED: u32 = 1 << 4;

/// Who owns a request.
pub(crate) struct Ownership(Atomic<u32>);

/// What the owner was told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) cancelled: bool,
    pub(crate) gone: bool,
}

/// What became of it to cancel a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancel {
    /// Its result is decided.
    TooLate,
    /// The owner will.
    Told,
    /// Nobody owned it, so the caller does now, and has to.
    Ours,
}

impl Ownership {
    /// The caller's.
    pub(crate) fn ours() -> Self {
        Self(Atomic::new(OWNED))
    }

    /// Sets some bits and clears others; returns what there was.
    fn change(&self, set: u32, clear: u32) -> u32 {
        // Relaxed: to be compared with.
        let mut word = self.0.load(Relaxed);
        loop {
            // Full: see the table above.
            match self.0.cmpxchg(word, (word | set) & !clear, Full) {
                Ok(was) => return was,
                Err(now) => word = now,
            }
        }
    }

    /// There may be something to see, or never anything more. True if the caller owns it now; if not,
    /// it may be ended as soon as this returns, unless something else keeps it.
    pub(crate) fn claim(&self, gone: bool) -> bool {
        let word = if gone { AGAIN | GONE } else { AGAIN };
        self.change(OWNED | word, 0) & OWNED == 0
    }

    /// It is to be cancelled.
    pub(crate) fn cancel(&self) -> Cancel {
        let was = self.change(OWNED | AGAIN | CANCELLED, 0);
        if was & DECIDED != 0 {
            Cancel::TooLate
        } else if was & OWNED != 0 {
            Cancel::Told
        } else {
            Cancel::Ours
        }
    }

    /// The caller's, if it was nobody's.
    pub(crate) fn take_over(&self) -> bool {
        // Full: as `claim`, see the table above.
        self.0.cmpxchg(0, OWNED, Full).is_ok()
    }

    /// The owner is about to look, and is told what was said.
    pub(crate) fn look(&self) -> Told {
        let was = self.change(0, AGAIN);
        Told {
            cancelled: was & CANCELLED != 0,
            gone: was & GONE != 0,
        }
    }

    /// The owner has seen nothing. False if it has to look again, and still owns it; otherwise it may be
    /// ended as soon as this returns.
    pub(crate) fn give_up(&self) -> bool {
        // Full: see the table above.
        self.0.cmpxchg(OWNED, 0, Full).is_ok()
    }

    /// The owner decides. True if it was cancelled.
    pub(crate) fn decide(&self) -> bool {
        self.change(DECIDED, 0) & CANCELLED != 0
    }
}
