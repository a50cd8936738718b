// SPDX-License-Identifier: GPL-2.0

//! What user space has registered with a context, so that requests name it by a number: buffers, and
//! files. One table each, whose size is that of its context's set-up.
//!
//! What is registered is kept by a per-cpu count of those that use it, so that to use it changes
//! nothing that processors share. Who replaces it takes it out of the table; it goes when the last
//! request that uses it has ended. What is left in a table goes with that, or when it is cleared.
//!
//! # Locks
//!
//! None. An entry is exchanged (full order) and read, under RCU, with acquire order. A use begins only if
//! it wasn't taken out.

use crate::kernel_ext::{
    percpu_ref::{
        self,
        HasPercpuRef,
        PercpuRef, //
    },
    rcu_work::{
        HasRcuWork,
        RcuWork, //
    },
    work::OwnedQueue, //
};
use core::{
    mem::offset_of,
    ops::Deref,
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full, //
        },
        Arc, //
    },
};

const USES: u64 = 0;

/// Something that is registered.
///
/// # Invariants
///
/// It is in a box of its own, which is dropped when `uses` has reached zero, or when nobody can use it.
#[pin_data]
pub(crate) struct Registered<T> {
    #[pin]
    uses: PercpuRef<Registered<T>, USES>,
    what: T,
    #[pin]
    free: RcuWork<Registered<T>>,
    queue: Arc<OwnedQueue>,
}

// SAFETY: The offset of a field of that type.
unsafe impl<T: Send + Sync> HasPercpuRef<USES> for Registered<T> {
    const OFFSET: usize = offset_of!(Self, uses);

    unsafe fn released(this: NonNull<Self>) {
        // SAFETY: In a box, by the type invariant, that nobody uses: it was taken out of its table
        // before the count was killed, and a grace period has passed since. It isn't moved.
        let this = unsafe { Pin::new_unchecked(KBox::from_raw(this.as_ptr())) };
        let queue = this.queue.clone();
        RcuWork::drop_later(this, &queue);
    }
}

// SAFETY: The offset of a field of that type.
unsafe impl<T> HasRcuWork for Registered<T> {
    const OFFSET: usize = offset_of!(Self, free);
}

/// A use of something that is registered, by a request.
///
/// # Invariants
///
/// Owns a reference to `uses`.
pub(crate) struct Use<T: Send + Sync>(NonNull<Registered<T>>);

// SAFETY: The reference may be dropped by every thread, and shared.
unsafe impl<T: Send + Sync> Send for Use<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for Use<T> {}

impl<T: Send + Sync> Deref for Use<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: Alive, by the type invariant.
        unsafe { &(*self.0.as_ptr()).what }
    }
}

impl<T: Send + Sync> Drop for Use<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: The reference is ours, by the type invariant.
        unsafe { PercpuRef::put_many(&raw const (*self.0.as_ptr()).uses, 1) }
    }
}

/// Several uses of the same, or none.
///
/// # Invariants
///
/// Owns `n` references to the `uses` of `what`.
pub(crate) struct Uses<T: Send + Sync> {
    what: *mut Registered<T>,
    n: usize,
}

impl<T: Send + Sync> Uses<T> {
    /// None.
    pub(crate) const fn none() -> Self {
        // INVARIANT: There are none.
        Self {
            what: ptr::null_mut(),
            n: 0,
        }
    }

    /// `n` in place of one, which isn't 0.
    pub(crate) fn several(one: Use<T>, n: usize) -> Self {
        let what = one.0;
        core::mem::forget(one);
        if n > 1 {
            // SAFETY: There is one, so it isn't at its end.
            unsafe { what.as_ref().uses.get_many(n - 1) };
        }
        // INVARIANT: The one, and those that were taken here.
        Self {
            what: what.as_ptr(),
            n: n.max(1),
        }
    }

    /// One of them.
    #[inline]
    pub(crate) fn split(&mut self) -> Option<Use<T>> {
        self.n = self.n.checked_sub(1)?;
        // INVARIANT: One of ours.
        NonNull::new(self.what).map(Use)
    }

    /// One more, or one of another in their place.
    #[inline]
    pub(crate) fn add(&mut self, one: Use<T>) {
        if self.what != one.0.as_ptr() {
            self.give_up();
            self.what = one.0.as_ptr();
        }
        // INVARIANT: It is ours now.
        self.n += 1;
        core::mem::forget(one);
    }

    #[inline]
    fn give_up(&mut self) {
        if self.n > 0 {
            // SAFETY: The references are ours, by the type invariant.
            unsafe { PercpuRef::put_many(&raw const (*self.what).uses, self.n) }
        }
        self.n = 0;
    }
}

impl<T: Send + Sync> Drop for Uses<T> {
    #[inline]
    fn drop(&mut self) {
        self.give_up();
    }
}

/// A table.
///
/// # Invariants
///
/// An entry is null or points to something registered whose initial reference the table has.
pub(crate) struct Table<T: Send + Sync> {
    entries: KVVec<Atomic<*mut Registered<T>>>,
    queue: Arc<OwnedQueue>,
}

impl<T: Send + Sync> Table<T> {
    /// Most bytes that one of `size` entries takes, what is registered included but for what that has elsewhere.
    pub(crate) fn bytes(size: u32) -> usize {
        let entry = size_of::<*mut Registered<T>>()
            + size_of::<Registered<T>>()
            + percpu_ref::bytes_elsewhere();
        entry.saturating_mul(size as usize)
    }

    /// An empty one of `size` entries; what is taken out of it goes on `queue`. Fails with `ENOMEM`.
    pub(crate) fn new(size: u32, queue: Arc<OwnedQueue>) -> Result<Self> {
        let mut entries = KVVec::with_capacity(size as usize, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..size {
            // The capacity is there already, so this doesn't allocate.
            entries.push(Atomic::new(ptr::null_mut()), GFP_KERNEL_ACCOUNT)?;
        }
        // INVARIANT: All entries are null.
        Ok(Self { entries, queue })
    }

    /// Entries.
    pub(crate) fn size(&self) -> u32 {
        self.entries.len() as u32
    }

    /// What has that number, for a request. [`None`] if nothing has.
    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<Use<T>> {
        // SAFETY: Each lives for a grace period after it was taken out.
        let entry = unsafe { PercpuRef::lookup(&self.entries, index as usize) }?;
        // INVARIANT: The reference that was just taken.
        Some(Use(entry))
    }

    /// Replaces the entries from `first` on, one by one, by what `next` says: something, or nothing; until
    /// that is [`None`]. Returns how many, or the error of the first. `EINVAL` if there are no such
    /// entries.
    pub(crate) fn replace(
        &self,
        first: u32,
        mut next: impl FnMut() -> Option<Result<Option<T>>>,
    ) -> Result<u32> {
        let mut done = 0;
        while let Some(what) = next() {
            let replaced = what.and_then(|what| {
                let entry = self
                    .entries
                    .get((first as usize).saturating_add(done as usize))
                    .ok_or(EINVAL)?;
                let new = match what {
                    Some(what) => self.wrap(what)?,
                    None => ptr::null_mut(),
                };
                // Full: what is published was made before; what was taken out is ended after.
                if let Some(old) = NonNull::new(entry.xchg(new, Full)) {
                    // INVARIANT: It isn't in the table any more, and the count drops our reference.
                    // SAFETY: It is ours to kill, once, for it was taken out once.
                    unsafe { old.as_ref().uses.kill() };
                }
                Ok(())
            });
            match replaced {
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
                Ok(()) => done += 1,
            }
        }
        Ok(done)
    }

    fn wrap(&self, what: T) -> Result<*mut Registered<T>> {
        let this = KBox::pin_init(
            try_pin_init!(Registered {
                uses <- PercpuRef::new(),
                what,
                free <- RcuWork::new(),
                queue: self.queue.clone(),
            }? Error),
            GFP_KERNEL_ACCOUNT,
        )?;
        // SAFETY: It isn't moved: only its owner changes.
        Ok(KBox::into_raw(unsafe { Pin::into_inner_unchecked(this) }))
    }

    /// Empties it. Process context.
    ///
    /// # Safety
    ///
    /// Nobody may use anything in it, nor look anything up, any more.
    pub(crate) unsafe fn clear(&self) {
        for entry in &self.entries {
            // Full: all that was done with it comes before its end.
            if let Some(old) = NonNull::new(entry.xchg(ptr::null_mut(), Full)) {
                // SAFETY: In a box, by its type invariant, and nobody has a reference but the table,
                // as the caller says.
                drop(unsafe { KBox::from_raw(old.as_ptr()) });
            }
        }
    }
}

impl<T: Send + Sync> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: Nobody has it any more, and each use is by who has.
        unsafe { self.clear() }
    }
}
