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
        use loom::sync::atomic::{AtomicU32, Ordering};

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

        /// See the kernel; of `u32` only.
        #[derive(Debug)]
        pub struct Atomic<T>(AtomicU32, std::marker::PhantomData<T>);

        impl Atomic<u32> {
            /// See the kernel.
            pub fn new(v: u32) -> Self {
                Self(AtomicU32::new(v), std::marker::PhantomData)
            }

            /// See the kernel.
            pub fn load<O: Order>(&self, _: O) -> u32 {
                self.0.load(O::order())
            }

            /// See the kernel.
            #[allow(clippy::missing_errors_doc)]
            pub fn cmpxchg<O: Order>(&self, old: u32, new: u32, _: O) -> Result<u32, u32> {
                // The kernel's has no order if it fails.
                self.0
                    .compare_exchange(old, new, O::order(), Ordering::Relaxed)
            }

            /// See the kernel.
            pub fn xchg<O: Order>(&self, new: u32, _: O) -> u32 {
                self.0.swap(new, O::order())
            }

            /// See the kernel.
            pub fn store<O: Order>(&self, v: u32, _: O) {
                self.0.store(v, O::order());
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
