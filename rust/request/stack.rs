// SPDX-License-Identifier: GPL-2.0

//! A stack onto which anybody puts objects, and from which they are taken all at once. Nobody takes one alone, so
//! what is on top isn't taken and put back unseen. No lock; any context.

use core::{
    cell::Cell,
    ptr::{
        null_mut,
        NonNull, //
    },
};
use kernel::sync::atomic::{
    Acquire,
    Atomic,
    Relaxed,
    Release, //
};

/// Says where in an object the one below it is noted, while somebody has it to himself or a stack has it.
pub(super) trait Stacked {
    /// # Safety
    ///
    /// It must be alive, and the caller have it to himself, as long as the result is used.
    unsafe fn below<'a>(this: NonNull<Self>) -> &'a Cell<*mut Self>;
}

/// The stack. It doesn't own its members.
///
/// # Invariants
///
/// The top and what is below it are alive, and nobody else's.
pub(super) struct Stack<T: Stacked>(Atomic<*mut T>);

impl<T: Stacked> Stack<T> {
    /// Nothing.
    pub(super) fn new() -> Self {
        // INVARIANT: There is no top.
        Self(Atomic::new(null_mut()))
    }

    /// The top, with all that is below it, which are the caller's now.
    #[inline]
    pub(super) fn take_all(&self) -> *mut T {
        // Relaxed: only whether there is something.
        if self.0.load(Relaxed).is_null() {
            return null_mut();
        }
        // Acquire: pairs with the release of `push_all`.
        self.0.xchg(null_mut(), Acquire)
    }

    /// Puts all from `first` to `last` on it, which is below it.
    ///
    /// # Safety
    ///
    /// They must be the caller's, and alive as long as the stack has them.
    #[inline]
    pub(super) unsafe fn push_all(&self, first: NonNull<T>, last: NonNull<T>) {
        // Relaxed: to be compared with, and to be passed on.
        let mut top = self.0.load(Relaxed);
        loop {
            // SAFETY: It is ours until it is on the stack.
            unsafe { T::below(last) }.set(top);
            // INVARIANT: From here on they are the stack's.
            // Release: pairs with the load-acquire of who takes them.
            match self.0.cmpxchg(top, first.as_ptr(), Release) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Puts one on it.
    ///
    /// # Safety
    ///
    /// As for [`Self::push_all`].
    #[inline]
    pub(super) unsafe fn push(&self, this: NonNull<T>) {
        // SAFETY: As the caller says.
        unsafe { self.push_all(this, this) }
    }
}
