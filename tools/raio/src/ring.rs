// SPDX-License-Identifier: GPL-2.0
//! The completion ring as user space reads it, without a call into the kernel.
//!
//! Relies on the module to fill slots before it moves the tail, and to leave
//! the slots from head to tail alone. Head and tail lie in memory that the
//! whole process can write, so each is reduced to a slot that exists
//! before it is used, as the module does with the head; the number of slots
//! is the one that the ioctl returned, not the header's.

use crate::sys::{
    io_event, raio_ring, RAIO_RING_COMPAT_FEATURES, RAIO_RING_INCOMPAT_FEATURES, RAIO_RING_MAGIC,
};
use std::{
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

/// The slot that `index` means, of `nr`, which must not be 0.
fn slot(index: u32, nr: u32) -> u32 {
    // It does so nearly always, and a division takes its time.
    if index < nr {
        index
    } else {
        index % nr
    }
}

/// How many of `nr` slots are filled. `nr` must not be 0.
fn filled(head: u32, tail: u32, nr: u32) -> u32 {
    let (head, tail) = (slot(head, nr), slot(tail, nr));
    if tail >= head {
        tail - head
    } else {
        nr - head + tail
    }
}

/// The slot after `slot`, of `nr`.
fn after(slot: u32, nr: u32) -> u32 {
    if slot + 1 < nr {
        slot + 1
    } else {
        0
    }
}

/// Whether there is a ring at `ring`, and it is empty. This is what may be
/// asked from any thread while others read events.
///
/// # Safety
///
/// At least a header must be readable at `ring`, and be aligned.
pub unsafe fn is_empty_ring(ring: *const raio_ring) -> bool {
    // SAFETY: the caller's promise. The magic number is never written to
    // once the ring is there.
    if unsafe { (*ring).magic } != RAIO_RING_MAGIC {
        return false;
    }
    // SAFETY: the caller's promise, and no one uses these but as atomics.
    let (head, tail) = unsafe {
        (
            AtomicU32::from_ptr((&raw const (*ring).head).cast_mut()),
            AtomicU32::from_ptr((&raw const (*ring).tail).cast_mut()),
        )
    };
    // Acquire: pairs with the release store of the tail where the module
    // posts an event. A caller who has learned of a completion in another
    // way (an eventfd) must not find the ring empty.
    head.load(Ordering::Relaxed) == tail.load(Ordering::Acquire)
}

/// The reading end of a ring.
#[derive(Debug)]
pub struct Ring {
    ring: NonNull<raio_ring>,
    nr: u32,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Ring {}

impl Ring {
    /// Takes the reading end of the ring of `size` bytes at `address`, which
    /// has `nr` slots as the module says.
    ///
    /// # Errors
    ///
    /// `InvalidData` if the size or the header is not that of such a ring.
    ///
    /// # Safety
    ///
    /// `size` bytes must stay mapped at `address` until the ring is dropped,
    /// written to by the module and by this `Ring` only: nobody else may read
    /// events meanwhile, by ioctl neither, except with this borrowed `mut`.
    pub unsafe fn new(address: usize, size: u64, nr: u32) -> io::Result<Self> {
        let invalid = |what: &str| {
            let what = format!("no completion ring: {what}");
            io::Error::new(io::ErrorKind::InvalidData, what)
        };
        let needed = size_of::<raio_ring>() as u64 + u64::from(nr) * size_of::<io_event>() as u64;
        if nr == 0 || size < needed {
            return Err(invalid("its size is wrong"));
        }
        let ring = address as *mut raio_ring;
        if !ring.is_aligned() {
            return Err(invalid("it is not aligned"));
        }
        let ring = NonNull::new(ring).ok_or_else(|| invalid("it is nowhere"))?;
        // SAFETY: mapped, aligned, and none of these is written to.
        let (magic, compat, incompat, length) = unsafe {
            let ring = ring.as_ptr();
            (
                (*ring).magic,
                (*ring).compat_features,
                (*ring).incompat_features,
                (*ring).header_length,
            )
        };
        if magic != RAIO_RING_MAGIC
            || compat & RAIO_RING_COMPAT_FEATURES == 0
            || incompat != RAIO_RING_INCOMPAT_FEATURES
            || length as usize != size_of::<raio_ring>()
        {
            return Err(invalid("its header is wrong"));
        }
        Ok(Self { ring, nr })
    }

    fn head(&self) -> &AtomicU32 {
        // SAFETY: the header stays mapped, and is used by atomics only.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.ring.as_ptr()).head) }
    }

    fn tail(&self) -> &AtomicU32 {
        // SAFETY: as for the head.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.ring.as_ptr()).tail) }
    }

    /// How many events can be read.
    #[inline]
    pub fn len(&self) -> u32 {
        // Nobody else moves the head while we are the reader. Acquire: pairs
        // with the release store of the tail where the module posts an event,
        // so that the event is seen whole.
        let head = self.head().load(Ordering::Relaxed);
        filled(head, self.tail().load(Ordering::Acquire), self.nr)
    }

    /// Whether there is nothing to be read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the next event, if it is there, and gives its slot back.
    #[inline]
    pub fn pop(&mut self) -> Option<io_event> {
        let head = slot(self.head().load(Ordering::Relaxed), self.nr);
        // Acquire: as in `len`.
        if head == slot(self.tail().load(Ordering::Acquire), self.nr) {
            return None;
        }
        // SAFETY: `head` is below `nr`, and not where the next is to be filled.
        let event = unsafe { self.event(head) };
        // Release: as in `reap`.
        self.head().store(after(head, self.nr), Ordering::Release);
        Some(event)
    }

    /// # Safety
    ///
    /// `slot` must be filled.
    #[inline]
    unsafe fn event(&self, slot: u32) -> io_event {
        // SAFETY: the caller's promise, so that it is in the mapping; and the module
        // leaves it alone until the head is past it.
        unsafe {
            (*self.ring.as_ptr())
                .events
                .as_ptr()
                .add(slot as usize)
                .read()
        }
    }

    /// Reads up to `max` events, hands each to `f`, and then gives their
    /// slots back. Returns how many they were.
    #[inline]
    pub fn reap(&mut self, max: u32, mut f: impl FnMut(io_event)) -> u32 {
        let mut head = slot(self.head().load(Ordering::Relaxed), self.nr);
        // Acquire: as in `len`.
        let tail = slot(self.tail().load(Ordering::Acquire), self.nr);
        let mut n = 0;
        while n < max && head != tail {
            // SAFETY: `head` is below `nr`, and hasn't come to where the next is to be filled.
            f(unsafe { self.event(head) });
            head = after(head, self.nr);
            n += 1;
        }
        if n > 0 {
            // Release: pairs with the acquire load of the head where the
            // module looks for a free slot, so that none is filled again
            // before it has been read.
            self.head().store(head, Ordering::Release);
        }
        n
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{
        collections::VecDeque,
        time::{Duration, Instant},
    };

    /// Plain memory with a ring in it, and the kernel's end of it.
    pub(crate) struct Memory {
        words: Vec<u64>,
        nr: u32,
    }

    impl Memory {
        fn new(nr: u32, start: u32) -> Self {
            Self::with_more(nr, start, 0)
        }

        /// The same with so many words behind the ring.
        pub(crate) fn with_more(nr: u32, start: u32, more: usize) -> Self {
            let mut memory = Self {
                words: vec![0; 4 + 4 * nr as usize + more],
                nr,
            };
            // SAFETY: the memory is as large as a header, and aligned.
            let ring = unsafe { &mut *memory.ring() };
            ring.nr = nr;
            (ring.head, ring.tail) = (start, start);
            ring.magic = RAIO_RING_MAGIC;
            ring.compat_features = RAIO_RING_COMPAT_FEATURES;
            ring.header_length = size_of::<raio_ring>() as u32;
            memory
        }

        pub(crate) fn ring(&mut self) -> *mut raio_ring {
            self.words.as_mut_ptr().cast()
        }

        pub(crate) fn size(&self) -> u64 {
            self.words.len() as u64 * 8
        }

        fn reader(&mut self) -> io::Result<Ring> {
            // SAFETY: the tests keep the memory longer than the reader.
            unsafe { Ring::new(self.ring() as usize, self.size(), self.nr) }
        }

        pub(crate) fn writer(&mut self) -> Writer {
            Writer {
                ring: self.ring(),
                nr: self.nr,
            }
        }
    }

    pub(crate) struct Writer {
        ring: *mut raio_ring,
        nr: u32,
    }

    // SAFETY: the tests keep the memory until all threads have ended.
    unsafe impl Send for Writer {}

    impl Writer {
        /// As the module does it; false if the ring is full.
        fn post(&mut self, data: u64) -> bool {
            self.post_result(data, data as i64)
        }

        pub(crate) fn post_result(&mut self, data: u64, res: i64) -> bool {
            // SAFETY: the memory is there, and used by atomics only.
            let (head, tail) = unsafe {
                (
                    AtomicU32::from_ptr(&raw mut (*self.ring).head),
                    AtomicU32::from_ptr(&raw mut (*self.ring).tail),
                )
            };
            let slot = tail.load(Ordering::Relaxed);
            let next = (slot + 1) % self.nr;
            if next == head.load(Ordering::Acquire) {
                return false;
            }
            let event = io_event {
                data,
                obj: !data,
                res,
                res2: 0,
            };
            // SAFETY: a slot of the memory, which no one reads now.
            unsafe {
                (&raw mut (*self.ring).events)
                    .cast::<io_event>()
                    .add(slot as usize)
                    .write(event);
            }
            tail.store(next, Ordering::Release);
            true
        }
    }

    #[test]
    fn a_bad_header_is_refused() {
        assert!(Memory::new(5, 0).reader().is_ok());
        let spoil: [fn(&mut raio_ring); 4] = [
            |ring| ring.magic += 1,
            |ring| ring.compat_features = 0,
            |ring| ring.incompat_features = 1,
            |ring| ring.header_length += 32,
        ];
        for spoil in spoil {
            let mut memory = Memory::new(5, 0);
            // SAFETY: nobody else uses it.
            spoil(unsafe { &mut *memory.ring() });
            assert!(memory.reader().is_err());
        }
        let mut memory = Memory::new(5, 0);
        let (address, size) = (memory.ring() as usize, memory.size());
        for (address, size, nr) in [
            (address, size, 0),
            (address, size, 6),
            (address, size, u32::MAX),
            (address, size - 1, 5),
            (address + 1, size, 5),
            (0, size, 5),
        ] {
            // SAFETY: each is refused before it is read.
            assert!(unsafe { Ring::new(address, size, nr) }.is_err());
        }
    }

    #[test]
    fn empty_is_told_from_outside() {
        let mut memory = Memory::new(3, 2);
        // SAFETY: the memory is there.
        let empty = |memory: &mut Memory| unsafe { is_empty_ring(memory.ring()) };
        assert!(empty(&mut memory));
        assert!(memory.writer().post(1));
        assert!(!empty(&mut memory));
        assert_eq!(memory.reader().unwrap().reap(9, |_| ()), 1);
        assert!(empty(&mut memory));
        assert!(memory.writer().post(2));
        assert_eq!(memory.reader().unwrap().pop().map(|e| e.data), Some(2));
        assert!(memory.reader().unwrap().pop().is_none());
        // SAFETY: nobody else uses it.
        unsafe { (*memory.ring()).magic = 0 };
        assert!(!empty(&mut memory));
    }

    #[test]
    fn two_threads() {
        for nr in [2, 3, 7, 64] {
            const EVENTS: u64 = if cfg!(miri) { 200 } else { 50_000 };
            let mut memory = Memory::new(nr, nr - 1);
            let mut writer = memory.writer();
            let mut reader = memory.reader().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    let start = Instant::now();
                    for data in 0..EVENTS {
                        while !writer.post(data) {
                            assert!(start.elapsed() < Duration::from_secs(60), "it hangs");
                            std::thread::yield_now();
                        }
                    }
                });
                let mut expected = 0;
                while expected < EVENTS {
                    let n = reader.reap(5, |event| {
                        assert_eq!((event.data, event.obj), (expected, !expected));
                        assert_eq!(event.res, expected as i64);
                        expected += 1;
                    });
                    assert!(n <= 5);
                    if n == 0 {
                        std::thread::yield_now();
                    }
                }
                assert!(reader.is_empty());
            });
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Post(u8),
        Reap(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u8..20).prop_map(Step::Post),
            (0u32..20).prop_map(Step::Reap)
        ]
    }

    proptest! {
        /// The ring is a queue that holds one event less than it has slots.
        #[test]
        fn is_a_queue(
            nr in 1u32..70,
            start in any::<u32>(),
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let mut memory = Memory::new(nr, start % nr);
            let mut writer = memory.writer();
            let mut reader = memory.reader().unwrap();
            let mut model = VecDeque::new();
            let mut next = 0;
            for step in steps {
                match step {
                    Step::Post(n) => for _ in 0..n {
                        let room = model.len() < nr as usize - 1;
                        prop_assert_eq!(writer.post(next), room);
                        if room {
                            model.push_back(next);
                        }
                        next += 1;
                    },
                    Step::Reap(max) => {
                        let mut got = Vec::new();
                        let n = reader.reap(max, |event| got.push(event.data));
                        let expected: Vec<_> =
                            model.drain(..model.len().min(max as usize)).collect();
                        prop_assert_eq!(n as usize, got.len());
                        prop_assert_eq!(got, expected);
                    }
                }
                prop_assert_eq!(reader.len() as usize, model.len());
                prop_assert_eq!(reader.is_empty(), model.is_empty());
            }
        }

        /// Whatever head and tail are: nothing outside of the ring is read.
        #[test]
        fn nothing_is_trusted(nr in 1u32..70, head in any::<u32>(), tail in any::<u32>()) {
            let mut memory = Memory::new(nr, 0);
            // SAFETY: nobody else uses it.
            unsafe {
                (*memory.ring()).head = head;
                (*memory.ring()).tail = tail;
            }
            let mut reader = memory.reader().unwrap();
            let n = reader.len();
            prop_assert!(n < nr);
            prop_assert_eq!((head % nr + n) % nr, tail % nr);
            prop_assert_eq!(reader.reap(u32::MAX, |_| ()), n);
            prop_assert!(reader.is_empty());
        }
    }
}
