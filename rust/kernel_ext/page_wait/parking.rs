// SPDX-License-Identifier: GPL-2.0

//! Who has something that was parked until it is kicked, once: one word of memory, and all changes of
//! it. `tools/model` compiles this file a second time and tries every interleaving.
//!
//! Who changes it from `PARKED` has the owner, and nobody else does. The memory that the word is in
//! goes with the owner, unless that has left: then with the kick.
//!
//! ```text
//! ATTEMPT ── park ──> PARKED ── leave ──> LEFT ── end ──> ENDED
//!    │ kick              │ kick             │ kick          │ kick
//!    v                   v                  v               v
//!  KICKED              KICKED             KICKED          freed
//! ```
//!
//! | here | partner |
//! |---|---|
//! | [`park`](Parking::park): what was done with the owner, then the word (full) | [`kick`](Parking::kick), [`leave`](Parking::leave): the word (full), then what is done with the owner |
//! | [`kick`](Parking::kick): the last access to this memory, then the word (full) | [`park`](Parking::park) that fails: load-acquire of the word, then it is used again |
//! | [`kick`](Parking::kick), [`end`](Parking::end): the last access, then the word (full) | the other one: the word (full) or load-acquire of it, then the free |

use kernel::sync::atomic::{
    Acquire,
    Atomic,
    Full,
    Relaxed, //
};

const ATTEMPT: u32 = 0;
const PARKED: u32 = 1;
const KICKED: u32 = 2;
const LEFT: u32 = 3;
const ENDED: u32 = 4;

/// Who has the owner.
pub(crate) struct Parking(Atomic<u32>);

/// What who kicks has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kick {
    /// Nothing: who makes the attempt goes on.
    Seen,
    /// What comes next: it has the owner.
    Ours,
    /// Nothing: the owner was taken elsewhere.
    Left,
    /// To free this memory.
    Free,
}

impl Parking {
    /// Not parked.
    pub(crate) fn new() -> Self {
        Self(Atomic::new(KICKED))
    }

    /// Who has the owner makes an attempt, which may have it kicked from now on.
    pub(crate) fn begin(&self) {
        // Relaxed: who kicks learns of it by other means.
        self.0.store(ATTEMPT, Relaxed);
    }

    /// The attempt was in vain, and there will be a kick. False if it has come; otherwise the owner is
    /// no longer the caller's.
    pub(crate) fn park(&self) -> bool {
        // Full, Acquire: see the table above.
        self.0.cmpxchg(ATTEMPT, PARKED, Full).is_ok() || self.0.load(Acquire) != KICKED
    }

    /// True if it was parked: the owner is the caller's now.
    pub(crate) fn leave(&self) -> bool {
        // Full: see the table above.
        self.0.cmpxchg(PARKED, LEFT, Full).is_ok()
    }

    /// The owner ends. True if this memory has to be freed.
    #[inline]
    pub(crate) fn end(&self) -> bool {
        // Acquire: see the table above. In the usual case nobody has left it.
        self.0.load(Acquire) == KICKED
            // Full, Acquire: see the table above.
            || self.0.cmpxchg(LEFT, ENDED, Full).is_err() && self.0.load(Acquire) != ENDED
    }

    /// What was waited for has come. This memory is the caller's no longer, unless it has to be freed.
    pub(crate) fn kick(&self) -> Kick {
        // Full: see the table above.
        match self.0.xchg(KICKED, Full) {
            PARKED => Kick::Ours,
            LEFT => Kick::Left,
            ENDED => Kick::Free,
            _ => Kick::Seen,
        }
    }
}
