// SPDX-License-Identifier: GPL-2.0
//! As much of the kernel crate as the files under test use, over loom's atomics,
//! so that the same files can be compiled for the model. Each order can be left
//! out, to see that the model notices.

use std::cell::Cell;

/// What a test leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// Nothing.
    Nothing,
    /// Store-releases are stores.
    Release,
    /// Load-acquires are loads.
    Acquire,
    /// `smp_mb()` does nothing.
    Barrier,
    /// Fully ordered exchanges have no order.
    Full,
}

thread_local! {
    // All threads of a model are run by the one that it is called in.
    static WITHOUT: Cell<Without> = const { Cell::new(Without::Nothing) };
}

/// Leaves something out in all models that this thread runs from now on.
pub fn leave_out(what: Without) {
    WITHOUT.set(what);
}

fn has(what: Without) -> bool {
    WITHOUT.get() != what
}

/// See `rust/kernel/sync.rs`.
pub mod sync {
    /// See `rust/kernel/sync/atomic.rs`.
    pub mod atomic {
        use crate::{has, Without};
        use loom::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

        /// An order of memory.
        pub trait Order {
            /// As loom has it.
            fn order() -> Ordering;
        }

        /// See the kernel.
        pub struct Acquire;
        /// See the kernel.
        pub struct Release;
        /// See the kernel.
        pub struct Relaxed;
        /// See the kernel.
        pub struct Full;

        impl Order for Acquire {
            fn order() -> Ordering {
                if has(Without::Acquire) {
                    Ordering::Acquire
                } else {
                    Ordering::Relaxed
                }
            }
        }

        impl Order for Release {
            fn order() -> Ordering {
                if has(Without::Release) {
                    Ordering::Release
                } else {
                    Ordering::Relaxed
                }
            }
        }

        impl Order for Relaxed {
            fn order() -> Ordering {
                Ordering::Relaxed
            }
        }

        impl Order for Full {
            fn order() -> Ordering {
                if has(Without::Full) {
                    Ordering::SeqCst
                } else {
                    Ordering::Relaxed
                }
            }
        }

        /// What can be had in one: `u32` and pointers.
        pub trait Word: Copy {
            /// loom's atomic of that.
            type Cell;

            /// One that has it.
            fn cell(self) -> Self::Cell;
            /// See the kernel.
            fn load(cell: &Self::Cell, order: Ordering) -> Self;
            /// See the kernel.
            fn store(cell: &Self::Cell, v: Self, order: Ordering);
            /// See the kernel.
            fn xchg(cell: &Self::Cell, v: Self, order: Ordering) -> Self;
            /// See the kernel.
            #[allow(clippy::missing_errors_doc)]
            fn cmpxchg(
                cell: &Self::Cell,
                old: Self,
                new: Self,
                order: Ordering,
            ) -> Result<Self, Self>;
        }

        macro_rules! word {
            ($word:ty: $cell:ty $(, $of:ident)?) => {
                impl$(<$of>)? Word for $word {
                    type Cell = $cell;

                    fn cell(self) -> Self::Cell {
                        <$cell>::new(self)
                    }

                    fn load(cell: &Self::Cell, order: Ordering) -> Self {
                        cell.load(order)
                    }

                    fn store(cell: &Self::Cell, v: Self, order: Ordering) {
                        cell.store(v, order);
                    }

                    fn xchg(cell: &Self::Cell, v: Self, order: Ordering) -> Self {
                        cell.swap(v, order)
                    }

                    fn cmpxchg(
                        cell: &Self::Cell,
                        old: Self,
                        new: Self,
                        order: Ordering,
                    ) -> Result<Self, Self> {
                        // The kernel's has no order if it fails.
                        cell.compare_exchange(old, new, order, Ordering::Relaxed)
                    }
                }
            };
        }

        word!(u32: AtomicU32);
        word!(*mut T: AtomicPtr<T>, T);

        /// See the kernel.
        #[derive(Debug)]
        pub struct Atomic<T: Word>(T::Cell);

        impl<T: Word> Atomic<T> {
            /// See the kernel.
            pub fn new(v: T) -> Self {
                Self(v.cell())
            }

            /// See the kernel.
            pub fn load<O: Order>(&self, _: O) -> T {
                T::load(&self.0, O::order())
            }

            /// See the kernel.
            #[allow(clippy::missing_errors_doc)]
            pub fn cmpxchg<O: Order>(&self, old: T, new: T, _: O) -> Result<T, T> {
                T::cmpxchg(&self.0, old, new, O::order())
            }

            /// See the kernel.
            pub fn xchg<O: Order>(&self, new: T, _: O) -> T {
                T::xchg(&self.0, new, O::order())
            }

            /// See the kernel.
            pub fn store<O: Order>(&self, v: T, _: O) {
                T::store(&self.0, v, O::order());
            }
        }
    }

    /// See `rust/kernel/sync/barrier.rs`.
    pub mod barrier {
        use crate::{has, Without};
        use loom::sync::atomic::{fence, Ordering};

        /// See the kernel.
        pub struct Full;

        /// See the kernel.
        pub fn smp_mb(_: Full) {
            if has(Without::Barrier) {
                fence(Ordering::SeqCst);
            }
        }
    }
}
