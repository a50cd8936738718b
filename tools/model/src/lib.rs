// SPDX-License-Identifier: GPL-2.0
//! `rust/ring/protocol.rs`, compiled a second time, with a ring and a wait
//! queue of loom's parts around it: every interleaving, and every value that
//! the memory model lets a load return, is tried. A thread that sleeps for
//! ever is a deadlock, and a slot that is read and written at once a race;
//! loom fails on both. For each order that the protocol asks for there is a
//! test which leaves it out and has to fail.
//!
//! The wait queue is that of `rust/kernel_ext/wait.rs` as its documentation
//! has it: in particular [`Queue::any`](tests) has no order of its own, and
//! the sleeper's barrier comes after it is queued.
//!
//! `rust/request/ownership.rs` has the same done to it, in `poll.rs`,
//! `rust/kernel_ext/page_wait/parking.rs` in `page.rs`, and
//! `rust/request/handover.rs` and `rust/request/stack.rs` in the files of those names here.

#[cfg(test)]
#[path = "handover.rs"]
mod handed_over;
#[cfg(test)]
#[path = "../../../rust/request/handover.rs"]
mod handover;
#[cfg(test)]
#[path = "../../../rust/request/ownership.rs"]
mod ownership;
#[cfg(test)]
mod page;
#[cfg(test)]
#[path = "../../../rust/kernel_ext/page_wait/parking.rs"]
mod parking;
#[cfg(test)]
mod poll;
#[cfg(test)]
#[path = "../../../rust/ring/protocol.rs"]
mod protocol;

#[cfg(test)]
#[allow(dead_code)]
#[path = "../../../rust/request/stack.rs"]
mod stack;
#[cfg(test)]
#[path = "stack.rs"]
mod stacked;

#[cfg(test)]
mod tests {
    use super::protocol::{
        announce, give_back, given_back, pass_on, publish, published, wait, Sleeper, Waiters, Woken,
    };
    use kernel::{
        leave_out,
        sync::atomic::{Acquire, Atomic},
        Without,
    };
    use loom::{
        cell::UnsafeCell,
        model::Builder,
        sync::{
            atomic::{fence, AtomicBool, AtomicU32, Ordering},
            Condvar, Mutex,
        },
        thread,
    };
    use std::{cell::Cell, sync::Arc};

    /// Slots of the ring.
    const SLOTS: u32 = 2;

    thread_local! {
        /// The sleeper's barrier, which is in C in the kernel.
        static SLEEPER_BARRIER: Cell<bool> = const { Cell::new(true) };
        /// Who is woken and leaves tells the next.
        static PASSES_ON: Cell<bool> = const { Cell::new(true) };
    }

    /// A task that may sleep.
    struct Task {
        level: u32,
        /// With the queue's lock held.
        chosen: AtomicBool,
        runs: Mutex<bool>,
        woken: Condvar,
    }

    #[derive(Default)]
    struct List {
        tasks: Vec<Arc<Task>>,
        promised: u32,
    }

    impl List {
        /// Nothing is kept for it any more.
        fn arrive(&mut self, task: &Task) {
            if task.chosen.swap(false, Ordering::Relaxed) {
                self.promised -= task.level;
            }
        }
    }

    /// A wait queue.
    struct Queue {
        list: Mutex<List>,
        /// What is read without the lock.
        active: AtomicBool,
    }

    impl Queue {
        fn new() -> Self {
            Self {
                list: Mutex::new(List::default()),
                active: AtomicBool::new(false),
            }
        }
    }

    impl Waiters for Queue {
        fn any(&self) -> bool {
            self.active.load(Ordering::Relaxed)
        }

        fn wake(&self, there: impl Fn() -> u32) {
            let there = there();
            let mut list = self.list.lock().unwrap();
            let List { tasks, promised } = &mut *list;
            tasks.retain(|task| {
                if task.level > there.saturating_sub(*promised) {
                    return true;
                }
                *promised += task.level;
                task.chosen.store(true, Ordering::Relaxed);
                *task.runs.lock().unwrap() = true;
                task.woken.notify_one();
                false
            });
            self.active.store(!tasks.is_empty(), Ordering::Relaxed);
        }
    }

    /// Nobody polls.
    struct Nobody;

    impl Waiters for Nobody {
        fn any(&self) -> bool {
            false
        }

        fn wake(&self, _: impl Fn() -> u32) {}
    }

    /// A place in the queue.
    struct Place<'a> {
        queue: &'a Queue,
        task: Arc<Task>,
    }

    impl Sleeper for Place<'_> {
        fn enqueue(&mut self) -> bool {
            self.queue.list.lock().unwrap().arrive(&self.task);
            let mut list = self.queue.list.lock().unwrap();
            if !list.tasks.iter().any(|task| Arc::ptr_eq(task, &self.task)) {
                list.tasks.push(self.task.clone());
            }
            self.queue.active.store(true, Ordering::Relaxed);
            *self.task.runs.lock().unwrap() = false;
            drop(list);
            if SLEEPER_BARRIER.get() {
                fence(Ordering::SeqCst);
            }
            true
        }

        fn sleep(&mut self) -> bool {
            let mut runs = self.task.runs.lock().unwrap();
            while !*runs {
                runs = self.task.woken.wait(runs).unwrap();
            }
            true
        }
    }

    impl Drop for Place<'_> {
        fn drop(&mut self) {
            let mut list = self.queue.list.lock().unwrap();
            list.arrive(&self.task);
            list.tasks.retain(|task| !Arc::ptr_eq(task, &self.task));
            let active = !list.tasks.is_empty();
            self.queue.active.store(active, Ordering::Relaxed);
        }
    }

    /// A ring, whose indices grow for ever.
    struct Ring {
        slots: [UnsafeCell<u32>; SLOTS as usize],
        head: Atomic<u32>,
        tail: Atomic<u32>,
        /// Who posts next is where.
        completion_lock: Mutex<u32>,
        /// Who reads next is where.
        ring_lock: Mutex<u32>,
        queue: Queue,
        /// Of all events that were read.
        sum: AtomicU32,
        /// There is no more to wait for.
        gone: AtomicBool,
    }

    // SAFETY: loom looks whether two threads use a slot at once.
    unsafe impl Send for Ring {}
    // SAFETY: as above.
    unsafe impl Sync for Ring {}

    impl Ring {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                slots: std::array::from_fn(|_| UnsafeCell::new(0)),
                head: Atomic::new(0),
                tail: Atomic::new(0),
                completion_lock: Mutex::new(0),
                ring_lock: Mutex::new(0),
                queue: Queue::new(),
                sum: AtomicU32::new(0),
                gone: AtomicBool::new(false),
            })
        }

        fn slot(&self, index: u32) -> &UnsafeCell<u32> {
            &self.slots[(index % SLOTS) as usize]
        }

        fn unread(&self) -> u32 {
            published(&self.tail).saturating_sub(given_back(&self.head))
        }

        /// Puts an event there, when there is room.
        fn post(&self, event: u32) {
            self.post_all(&[event]);
        }

        /// Puts several there, and tells of them together.
        fn post_all(&self, events: &[u32]) {
            let mut tail = self.completion_lock.lock().unwrap();
            for event in events {
                while tail.wrapping_sub(given_back(&self.head)) == SLOTS {
                    thread::yield_now();
                }
                // SAFETY: loom looks whether anybody else uses the slot.
                self.slot(*tail).with_mut(|slot| unsafe { *slot = *event });
                *tail += 1;
            }
            publish(&self.tail, *tail);
            drop(tail);
            announce(&self.queue, &Nobody, || self.unread());
        }

        /// Has all who wait find out that there is no more to wait for.
        fn go(&self) {
            self.gone.store(true, Ordering::Relaxed);
            self.queue.wake(|| u32::MAX);
        }

        /// Reads up to `max` events.
        fn reap(&self, max: u32) -> u32 {
            let mut head = self.ring_lock.lock().unwrap();
            let tail = published(&self.tail);
            let got = (tail - *head).min(max);
            for _ in 0..got {
                // SAFETY: as above.
                let event = self.slot(*head).with(|slot| unsafe { *slot });
                self.sum.fetch_add(event, Ordering::Relaxed);
                *head += 1;
            }
            if got > 0 {
                give_back(&self.head, *head);
            }
            got
        }

        /// Waits until `ready`, or it is gone.
        fn wait(&self, level: u32, ready: impl Fn() -> bool) {
            let mut place = Place {
                queue: &self.queue,
                task: Arc::new(Task {
                    level,
                    chosen: AtomicBool::new(false),
                    runs: Mutex::new(true),
                    woken: Condvar::new(),
                }),
            };
            let ready = || self.gone.load(Ordering::Relaxed) || ready();
            assert_eq!(wait(&mut place, ready, || self.pass_on()), Woken::Ready);
        }

        fn pass_on(&self) {
            if PASSES_ON.get() {
                pass_on(&self.queue, || self.unread());
            }
        }

        /// As getevents: waits until it has read `n`.
        fn getevents(&self, n: u32) {
            let mut got = self.reap(n);
            while got < n {
                self.wait(n - got, || self.unread() >= n - got);
                got += self.reap(n - got);
                self.pass_on();
            }
        }
    }

    /// Tries all interleavings with up to three preemptions of `threads`
    /// beside a last one, `here`, that use a ring.
    fn model<const N: usize>(threads: [fn(&Ring); N], here: fn(&Ring)) {
        let mut builder = Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || {
            let ring = Ring::new();
            let others = threads.map(|f| {
                let ring = ring.clone();
                thread::spawn(move || f(&ring))
            });
            here(&ring);
            for other in others {
                other.join().unwrap();
            }
        });
    }

    fn one_waits_for_one() {
        model([|ring| ring.post(7)], |ring| {
            ring.getevents(1);
            assert_eq!(ring.sum.load(Ordering::Relaxed), 7);
        });
    }

    fn one_waits_for_two() {
        model([|ring| ring.post(1), |ring| ring.post(2)], |ring| {
            ring.getevents(2);
            assert_eq!(ring.sum.load(Ordering::Relaxed), 3);
        });
    }

    fn two_wait() {
        model(
            [
                |ring| ring.getevents(1),
                |ring| {
                    ring.post(1);
                    ring.post(2);
                },
            ],
            |ring| ring.getevents(1),
        );
    }

    /// One doesn't take the event that it may be woken for, as where its buffer is bad, or leaves
    /// when there was one, as by a signal.
    fn one_gives_up() {
        model(
            [
                |ring| {
                    ring.wait(1, || published(&ring.tail) > 0);
                    ring.pass_on();
                },
                |ring| ring.post(1),
            ],
            |ring| {
                ring.getevents(1);
                ring.go();
            },
        );
    }

    /// One is woken for two events, of which another takes one, without having waited. The other is for who waits
    /// for one.
    fn one_is_taken() {
        model(
            [
                |ring| {
                    ring.wait(2, || ring.unread() >= 2);
                    ring.pass_on();
                },
                |ring| {
                    ring.post_all(&[1, 2]);
                    ring.reap(1);
                },
            ],
            |ring| {
                ring.getevents(1);
                ring.go();
            },
        );
    }

    /// User space reads without a call, and without a lock, more than fit.
    fn slots_are_used_again() {
        model(
            [|ring| {
                for event in 1..=SLOTS + 1 {
                    ring.post(event);
                }
            }],
            |ring| {
                for head in 0..=SLOTS {
                    while ring.tail.load(Acquire) == head {
                        thread::yield_now();
                    }
                    // SAFETY: as above.
                    let event = ring.slot(head).with(|slot| unsafe { *slot });
                    assert_eq!(event, head + 1);
                    give_back(&ring.head, head + 1);
                }
            },
        );
    }

    #[test]
    fn every_event_is_read() {
        one_waits_for_one();
        one_waits_for_two();
        two_wait();
        one_gives_up();
        one_is_taken();
        slots_are_used_again();
    }

    /// What must be noticed when it is missing.
    mod missing {
        use super::*;

        #[test]
        #[should_panic(expected = "deadlock")]
        fn barrier_of_who_posts() {
            leave_out(Without::Barrier);
            one_waits_for_one();
        }

        #[test]
        #[should_panic(expected = "deadlock")]
        fn barrier_of_who_waits() {
            SLEEPER_BARRIER.set(false);
            one_waits_for_one();
        }

        #[test]
        #[should_panic(expected = "deadlock")]
        fn passing_on() {
            PASSES_ON.set(false);
            one_gives_up();
        }

        #[test]
        #[should_panic(expected = "deadlock")]
        fn passing_on_of_who_sleeps_again() {
            PASSES_ON.set(false);
            one_is_taken();
        }

        #[test]
        #[should_panic(expected = "Causality violation")]
        fn release() {
            leave_out(Without::Release);
            slots_are_used_again();
        }

        #[test]
        #[should_panic(expected = "Causality violation")]
        fn acquire() {
            leave_out(Without::Acquire);
            slots_are_used_again();
        }
    }
}
