// SPDX-License-Identifier: GPL-2.0

//! A queue of objects that are linked through a field of their own, so that joining it allocates
//! nothing and each can leave it from anywhere.
//!
//! Unlike the kernel crate's `List` it doesn't own its members: they are objects that somebody else
//! ends, after they have left.

use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::NonNull, //
};

/// Where a member is, as long as it is one.
#[repr(transparent)]
pub(crate) struct Links<T>(MaybeUninit<Neighbours<T>>);

impl<T> Links<T> {
    /// Nowhere.
    pub(crate) const fn new() -> Self {
        Self(MaybeUninit::uninit())
    }
}

/// Who is beside a member.
pub(super) struct Neighbours<T> {
    pub(super) prev: Option<NonNull<T>>,
    pub(super) next: Option<NonNull<T>>,
}

impl<T> Clone for Neighbours<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Neighbours<T> {}

/// Has [`Links`], one for each `ID`, to be in as many places at once.
///
/// # Safety
///
/// It must always return the same field of `this`, which nothing but a [`Fifo`] or a
/// [`HashTable`](super::hash_table::HashTable) of that `ID` accesses.
pub(crate) unsafe trait Linked<const ID: u64>: Sized {
    /// The field of an object that is alive.
    ///
    /// # Safety
    ///
    /// `this` must be alive.
    unsafe fn links(this: NonNull<Self>) -> *mut Links<Self>;
}

/// What the links of a member say, or of one that becomes one.
///
/// # Safety
///
/// `this` must be alive.
pub(super) unsafe fn neighbours<T: Linked<ID>, const ID: u64>(
    this: NonNull<T>,
) -> *mut Neighbours<T> {
    // `Links` is transparent.
    // SAFETY: As the caller says.
    unsafe { T::links(this) }.cast()
}

/// The queue.
///
/// # Invariants
///
/// From `first` by `next`, and from `last` by `prev`, the same members are found in opposite order.
/// Each is alive, and its links are initialised.
pub(crate) struct Fifo<T: Linked<ID>, const ID: u64> {
    first: Option<NonNull<T>>,
    last: Option<NonNull<T>>,
    len: usize,
    _members: PhantomData<*mut T>,
}

// SAFETY: It is moved with the pointers to its members, which allow what `T` allows.
unsafe impl<T: Linked<ID> + Send, const ID: u64> Send for Fifo<T, ID> {}

impl<T: Linked<ID>, const ID: u64> Fifo<T, ID> {
    /// An empty one.
    pub(crate) const fn new() -> Self {
        Self {
            first: None,
            last: None,
            len: 0,
            _members: PhantomData,
        }
    }

    /// How many members there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Who joined first.
    pub(crate) fn first(&self) -> Option<NonNull<T>> {
        self.first
    }

    /// Who joined last.
    pub(crate) fn last(&self) -> Option<NonNull<T>> {
        self.last
    }

    /// Who joined after that one.
    ///
    /// # Safety
    ///
    /// `member` must be in this one.
    pub(crate) unsafe fn after(&self, member: NonNull<T>) -> Option<NonNull<T>> {
        // SAFETY: A member is alive, and its links aren't changed while `self` is borrowed.
        unsafe { (*neighbours::<T, ID>(member)).next }
    }

    /// Joins the queue at its end.
    ///
    /// # Safety
    ///
    /// `member` must be in no queue, and leave this one before it dies.
    pub(crate) unsafe fn push(&mut self, member: NonNull<T>) {
        // SAFETY: `member` is alive, as the caller says, and so is `last`, by the type invariant.
        // Nobody else accesses their links: `self` is borrowed mutably.
        unsafe {
            *neighbours::<T, ID>(member) = Neighbours {
                prev: self.last,
                next: None,
            };
            match self.last {
                Some(last) => (*neighbours::<T, ID>(last)).next = Some(member),
                None => self.first = Some(member),
            }
        }
        self.last = Some(member);
        self.len += 1;
    }

    /// Joins the queue at its begin.
    ///
    /// # Safety
    ///
    /// As for [`Self::push`].
    pub(crate) unsafe fn push_first(&mut self, member: NonNull<T>) {
        // SAFETY: As in `push`, with `first`.
        unsafe {
            *neighbours::<T, ID>(member) = Neighbours {
                prev: None,
                next: self.first,
            };
            match self.first {
                Some(first) => (*neighbours::<T, ID>(first)).prev = Some(member),
                None => self.last = Some(member),
            }
        }
        self.first = Some(member);
        self.len += 1;
    }

    /// Leaves the queue.
    ///
    /// # Safety
    ///
    /// `member` must be in this one.
    pub(crate) unsafe fn remove(&mut self, member: NonNull<T>) {
        // SAFETY: `member` and its neighbours are members, so they are alive. Nobody else accesses
        // their links: `self` is borrowed mutably.
        unsafe {
            let Neighbours { prev, next } = *neighbours::<T, ID>(member);
            match prev {
                Some(prev) => (*neighbours::<T, ID>(prev)).next = next,
                None => self.first = next,
            }
            match next {
                Some(next) => (*neighbours::<T, ID>(next)).prev = prev,
                None => self.last = prev,
            }
        }
        self.len -= 1;
    }
}
