// SPDX-License-Identifier: GPL-2.0

//! A stack onto which anybody puts objects, and from which they are taken all at once. Nobody takes one alone, so
//! what is on top isn't taken and put back unseen. `tools/model` compiles this file a second time and tries every
//! interleaving. And lists of such objects, each of one owner. No lock; any context.

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

/// Some that were had one after another, in that order.
///
/// # Invariants
///
/// All are alive and this one's, from `first` to `last`; both are null if there are none.
pub(super) struct List<T: Stacked> {
    first: *mut T,
    last: *mut T,
    pub(super) n: u32,
}

impl<T: Stacked> List<T> {
    pub(super) const fn new() -> Self {
        Self {
            first: null_mut(),
            last: null_mut(),
            n: 0,
        }
    }

    /// # Safety
    ///
    /// It must be alive, and the caller's, who gives it up.
    #[inline(always)]
    pub(super) unsafe fn push(&mut self, this: NonNull<T>) {
        // SAFETY: As the caller says; `last` is ours.
        unsafe {
            T::below(this).set(null_mut());
            match NonNull::new(self.last) {
                Some(last) => T::below(last).set(this.as_ptr()),
                None => self.first = this.as_ptr(),
            }
        }
        self.last = this.as_ptr();
        self.n += 1;
    }

    /// Takes all of them.
    #[inline(always)]
    pub(super) fn take(&mut self) -> Self {
        core::mem::replace(self, Self::new())
    }

    /// The first.
    #[inline]
    pub(super) fn first(&self) -> Option<NonNull<T>> {
        NonNull::new(self.first)
    }

    /// Takes the first.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<NonNull<T>> {
        let first = NonNull::new(self.first)?;
        // SAFETY: It is ours.
        self.first = unsafe { T::below(first) }.get();
        if self.first.is_null() {
            self.last = null_mut();
        }
        self.n -= 1;
        Some(first)
    }

    /// Keeps those of which `keeps` says so. The others are whose it makes them.
    #[inline(always)]
    pub(super) fn retain(&mut self, mut keeps: impl FnMut(NonNull<T>) -> bool) {
        let (mut last, mut at) = (null_mut::<T>(), self.first);
        while let Some(this) = NonNull::new(at) {
            // SAFETY: It is ours yet.
            at = unsafe { T::below(this) }.get();
            if keeps(this) {
                last = this.as_ptr();
                continue;
            }
            match NonNull::new(last) {
                // SAFETY: It is ours.
                Some(last) => unsafe { T::below(last) }.set(at),
                None => self.first = at,
            }
            self.n -= 1;
        }
        // INVARIANT: The last that was kept has below it what comes after those that weren't: nothing.
        self.last = last;
    }

    /// Each of them. They must stay, and nothing else be done with this.
    #[inline(always)]
    pub(super) fn each(&self) -> impl Iterator<Item = NonNull<T>> {
        let mut at = self.first;
        core::iter::from_fn(move || {
            let this = NonNull::new(at)?;
            // SAFETY: It is ours.
            at = unsafe { T::below(this) }.get();
            Some(this)
        })
    }

    /// Puts behind it what that stack has.
    pub(super) fn append(&mut self, stack: &Stack<T>) {
        let mut at = stack.take_all();
        while let Some(this) = NonNull::new(at) {
            // SAFETY: It is ours now.
            unsafe {
                at = T::below(this).get();
                self.push(this);
            }
        }
    }

    /// Puts those behind it.
    pub(super) fn append_list(&mut self, other: Self) {
        let Some(first) = NonNull::new(other.first) else {
            return;
        };
        match NonNull::new(self.last) {
            // SAFETY: It is ours.
            Some(last) => unsafe { T::below(last) }.set(first.as_ptr()),
            None => self.first = first.as_ptr(),
        }
        self.last = other.last;
        self.n += other.n;
    }

    /// Puts all of it on that stack.
    ///
    /// # Safety
    ///
    /// They must be alive as long as the stack has them.
    pub(super) unsafe fn push_on(self, stack: &Stack<T>) {
        if let (Some(first), Some(last)) = (NonNull::new(self.first), NonNull::new(self.last)) {
            // SAFETY: They are ours, and stay alive, as the caller says.
            unsafe { stack.push_all(first, last) }
        }
    }

    /// Puts them on top of those, which are the caller's.
    #[inline(always)]
    pub(super) fn put_on(self, free: &mut *mut T) {
        if let Some(last) = NonNull::new(self.last) {
            // SAFETY: It is ours.
            unsafe { T::below(last) }.set(*free);
            *free = self.first;
        }
    }
}
