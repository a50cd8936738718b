// SPDX-License-Identifier: GPL-2.0

//! Who posts events, who reads them and who waits for them: the order of memory between them, all
//! of it. `tools/model` compiles this file a second time and tries every interleaving.
//!
//! | here | partner |
//! |---|---|
//! | [`publish`]: event, then store-release of a tail | [`published`], user space: load-acquire of it, then the event |
//! | [`give_back`], user space: events, then store-release of the head | [`given_back`]: load-acquire of it, then their slots are filled again |
//! | [`announce`]: tail, full barrier, who waits? | [`wait`]: queued, full barrier in [`Sleeper::enqueue`], tail |
//!
//! # Waking
//!
//! Each waiter wants a number of events. Who has posted one wakes, of those who wait, the first
//! that the unread events are enough for, less what those want who were woken and haven't come to
//! it yet. When such a one runs, this is no longer kept for it. When it then has taken what it
//! wanted, or gives up, or sleeps again, for others have taken of it, it calls [`pass_on`]: there
//! may be enough left for another. So none sleeps while what it wants lies there: at the latest,
//! the last that was woken finds it.

use kernel::sync::{
    atomic::{
        Acquire,
        Atomic,
        Release, //
    },
    barrier::{
        smp_mb,
        Full, //
    },
};

/// Lets it be seen that there are events up to `to`, after they were written.
#[inline]
pub(crate) fn publish(tail: &Atomic<u32>, to: u32) {
    // Release: pairs with the load-acquire of `published`, or of user space.
    tail.store(to, Release);
}

/// Up to where there are events; they may be read after that.
#[inline]
pub(crate) fn published(tail: &Atomic<u32>) -> u32 {
    // Acquire: pairs with the store-release of `publish`.
    tail.load(Acquire)
}

/// Lets it be seen that the events up to `to` were read, after that was done.
#[inline]
pub(crate) fn give_back(head: &Atomic<u32>, to: u32) {
    // Release: pairs with the load-acquire of `given_back`.
    head.store(to, Release);
}

/// Up to where events were read; their slots may be filled again after that.
#[inline]
pub(crate) fn given_back(head: &Atomic<u32>) -> u32 {
    // Acquire: pairs with the store-release of `give_back`, or of user space.
    head.load(Acquire)
}

/// Those who wait on a queue.
pub(crate) trait Waiters {
    /// Is there anybody? Without any order.
    fn any(&self) -> bool;

    /// Wakes those who can share `there` events, less what was kept for others.
    fn wake(&self, there: impl Fn() -> u32);
}

/// An event was published: wakes who waits for it on either queue. `there` is how many there are.
#[inline]
pub(crate) fn announce(one: &impl Waiters, other: &impl Waiters, there: impl Fn() -> u32) {
    // Full: pairs with the one in `Sleeper::enqueue`. Either we see who queues, or who queues sees
    // the tail.
    smp_mb(Full);
    if one.any() {
        one.wake(&there);
    }
    if other.any() {
        other.wake(&there);
    }
}

/// Somebody for whom nothing is kept stops waiting, or has taken events: wakes who can use what is
/// left.
pub(crate) fn pass_on(queue: &impl Waiters, there: impl Fn() -> u32) {
    // Without a barrier: who was queued when we were woken is seen, as the queue's lock was held
    // then, and events that came while something was kept for us are, as we have had it since. Who
    // comes later looks for itself.
    if queue.any() {
        queue.wake(there);
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// What was waited for is there.
    Ready,
    /// The time is over, and it isn't.
    TimedOut,
    /// A signal is pending, and it isn't.
    Signal,
}

/// Who waits on a queue.
pub(crate) trait Sleeper {
    /// Nothing is kept for it any more. Queues it, about to sleep, then has a full barrier, which
    /// pairs with that of [`announce`]. False if a signal is pending.
    fn enqueue(&mut self) -> bool;

    /// Sleeps until it is woken. False if the time is over.
    fn sleep(&mut self) -> bool;
}

/// Waits until `ready`, which must not sleep. Who was woken and isn't ready has others woken by `leave`, which
/// [passes on](pass_on) what there is.
pub(crate) fn wait(
    sleeper: &mut impl Sleeper,
    ready: impl Fn() -> bool,
    leave: impl Fn(),
) -> Woken {
    let mut in_time = true;
    let mut has_slept = false;
    loop {
        let queued = sleeper.enqueue();
        if ready() {
            return Woken::Ready;
        }
        if !queued {
            return Woken::Signal;
        }
        if !in_time {
            return Woken::TimedOut;
        }
        if has_slept {
            leave();
        }
        in_time = sleeper.sleep();
        has_slept = true;
    }
}
