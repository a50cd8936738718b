// SPDX-License-Identifier: GPL-2.0

//! Memory for requests: as much as a context has used at once it keeps, and uses again. No locks.

use super::{
    stack::{
        Stack,
        Stacked, //
    },
    Request, //
};
use crate::{
    context::Kioctx,
    kernel_ext::kmem_cache::KmemCache, //
};
use core::{
    cell::Cell,
    mem::{
        forget,
        MaybeUninit, //
    },
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

impl Stacked for Request {
    unsafe fn below<'a>(this: NonNull<Self>) -> &'a Cell<*mut Self> {
        // SAFETY: Alive, as the caller says, or memory in which that field is initialised.
        unsafe { &(*this.as_ptr()).next }
    }
}

/// Where uses of what was freed are looked for, all is freed.
const KEEPS: bool = !cfg!(CONFIG_KASAN);

/// Memory for a request.
///
/// # Invariants
///
/// It is that of a box, and ours, with nothing in it that is to be dropped.
pub(super) struct Memory {
    at: NonNull<Request>,
    /// It is one of those that the stock counts, to which it returns.
    stocked: bool,
}

impl Memory {
    /// Some that the context doesn't keep. `ENOMEM`.
    pub(super) fn alone(ctx: &Kioctx) -> Result<Self> {
        Self::new(&ctx.engine().requests, false)
    }

    fn new(cache: &KmemCache<Request>, stocked: bool) -> Result<Self> {
        // INVARIANT: Just allocated.
        Ok(Self {
            at: NonNull::from(KBox::leak(cache.alloc()?)).cast(),
            stocked,
        })
    }

    /// Where it is, and whether the stock counts it. It is the caller's.
    #[inline(always)]
    pub(super) fn into_raw(self) -> (NonNull<Request>, bool) {
        let raw = (self.at, self.stocked);
        forget(self);
        raw
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. (What the stock counts isn't dropped but goes back to it.)
        unsafe { free(self.at) }
    }
}

/// Frees memory.
///
/// # Safety
///
/// It must be that of a box, and the caller's, with nothing in it that is to be dropped.
pub(super) unsafe fn free(at: NonNull<Request>) {
    // SAFETY: As the caller says.
    drop(unsafe { KBox::from_raw(at.as_ptr().cast::<MaybeUninit<Request>>()) });
}

/// What a context keeps.
///
/// # Invariants
///
/// `free` is memory as [`Memory`] has it, in which `next` is initialised.
pub(super) struct Stock {
    pub(super) free: Stack<Request>,
    /// How much it counts, and how much that may be.
    made: Atomic<u32>,
    most: u32,
}

impl Stock {
    /// None, of so much as there may be.
    pub(super) fn new(most: u32) -> Self {
        Self {
            free: Stack::new(),
            made: Atomic::new(0),
            most,
        }
    }

    /// Takes what is on top of `free`, which is the caller's, or gets more of it. `ENOMEM`.
    #[inline]
    pub(super) fn take(&self, free: &mut *mut Request, ctx: &Kioctx) -> Result<Memory> {
        if free.is_null() {
            *free = self.free.take_all();
        }
        let Some(at) = NonNull::new(*free) else {
            return self.make(ctx);
        };
        // SAFETY: It is the caller's.
        *free = unsafe { Request::below(at) }.get();
        // INVARIANT: It was taken off.
        Ok(Memory { at, stocked: true })
    }

    #[cold]
    fn make(&self, ctx: &Kioctx) -> Result<Memory> {
        // Relaxed: a bound, which who makes some at the same time may exceed by one.
        let stocked = KEEPS && self.made.load(Relaxed) < self.most;
        let memory = Memory::new(&ctx.engine().requests, stocked)?;
        if stocked {
            // Relaxed: as above.
            self.made.add(1, Relaxed);
        }
        Ok(memory)
    }

    /// Memory that was stocked was left to somebody else.
    pub(super) fn lost(&self) {
        // Relaxed: as above.
        let _ = self.made.fetch_sub(1, Relaxed);
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        let mut next = self.free.take_all();
        while let Some(at) = NonNull::new(next) {
            // SAFETY: By the type invariant, and it was taken off.
            unsafe {
                next = Request::below(at).get();
                free(at);
            }
        }
    }
}
