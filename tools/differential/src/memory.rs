// SPDX-License-Identifier: GPL-2.0
//! The memory of one peer: buffers, vectors, iocbs and arrays, each up to a
//! hole. Both peers have the same at other addresses. The kernel reads and
//! writes it at any time, so it is only used through raw pointers.

use crate::{
    plan::{Bad, Buf, OddVector, Place, Request, Vectors, BUFFER, EVENTS, REQUESTS},
    sys::{Pages, Result, PAGE},
};
use raio::sys::{io_event, iocb};
use std::{mem::offset_of, ptr, slice};

/// `struct iovec`, as numbers.
#[repr(C)]
#[derive(Clone, Copy)]
struct Vector {
    base: u64,
    len: u64,
}

const BUFFER_PAGES: usize = BUFFER / PAGE;
const VECTOR_PAGES: usize = 8;
const IOCB: usize = size_of::<iocb>();

// In pages. What ends at a hole is followed by one.
const BUFFERS: usize = 0;
const READ_ONLY: usize = BUFFERS + REQUESTS * (BUFFER_PAGES + 1);
const READ_ONLY_HOLE: usize = READ_ONLY + BUFFER_PAGES;
const VECTORS: usize = READ_ONLY_HOLE + 1;
const VECTORS_HOLE: usize = VECTORS + VECTOR_PAGES;
const IOCBS: usize = VECTORS_HOLE + 1;
const IOCBS_HOLE: usize = IOCBS + 1;
const IOCBS_READ_ONLY: usize = IOCBS_HOLE + 1;
const POINTERS: usize = IOCBS_READ_ONLY + 1;
const POINTERS_HOLE: usize = POINTERS + 1;
const RESULTS: usize = POINTERS_HOLE + 1;
const RESULTS_HOLE: usize = RESULTS + 1;
const WORDS: usize = RESULTS_HOLE + 1;
const COPY: usize = WORDS + 1;
const ALL: usize = COPY + 1;

/// What words are for.
#[derive(Clone, Copy)]
pub enum Words {
    /// The handle of a context.
    Handle = 0,
    /// A time.
    Time = 64,
    /// A signal mask.
    Mask = 128,
}

/// What events are before they are written to.
const UNTOUCHED: u8 = 0x5a;

/// The memory of a peer.
pub struct Memory {
    pages: Pages,
    /// What buffers hold before anything is read into them.
    pattern: Vec<u8>,
    next_vector: usize,
}

impl Memory {
    /// New memory.
    pub fn new() -> Result<Self> {
        let mut pages = Pages::new(ALL)?;
        let pattern: Vec<u8> = (0..BUFFER + REQUESTS * 16)
            .map(|i| (i * 7 + i / 256 * 13) as u8)
            .collect();
        pages[READ_ONLY * PAGE..][..BUFFER].copy_from_slice(&pattern[..BUFFER]);
        for k in 0..REQUESTS {
            pages.protect(buffer_page(k) + BUFFER_PAGES, libc::PROT_NONE)?;
        }
        for hole in [
            READ_ONLY_HOLE,
            VECTORS_HOLE,
            IOCBS_HOLE,
            POINTERS_HOLE,
            RESULTS_HOLE,
        ] {
            pages.protect(hole, libc::PROT_NONE)?;
        }
        for page in READ_ONLY..READ_ONLY_HOLE {
            pages.protect(page, libc::PROT_READ)?;
        }
        pages.protect(IOCBS_READ_ONLY, libc::PROT_READ)?;
        Ok(Self {
            pages,
            pattern,
            next_vector: 0,
        })
    }

    fn at(&self, page: usize) -> u64 {
        self.pages.address() + (page * PAGE) as u64
    }

    /// A bad address.
    pub fn bad(&self, bad: Bad) -> u64 {
        match bad {
            Bad::Null => 0,
            Bad::Hole => self.at(POINTERS_HOLE),
            Bad::Kernel => 0xffff_8880_0000_1000,
            Bad::NonCanonical => 1 << 62,
            Bad::Last => -8i64 as u64,
        }
    }

    /// # Safety
    ///
    /// That address must be in a part of ours that can be written to, with room
    /// for a `T`.
    unsafe fn put<T>(&self, address: u64, value: T) {
        // SAFETY: the caller's promise.
        unsafe { ptr::write_volatile(address as *mut T, value) }
    }

    /// Fills the buffer of request `k` with what it has in the beginning.
    pub fn fill(&self, k: usize) {
        let pattern = &self.pattern[k * 16..];
        // SAFETY: a buffer has that many bytes.
        unsafe {
            ptr::copy_nonoverlapping(pattern.as_ptr(), self.at(buffer_page(k)) as *mut u8, BUFFER)
        }
    }

    /// The buffer of request `k`, which must have ended.
    pub fn buffer(&self, k: usize) -> &[u8] {
        // SAFETY: a buffer has that many bytes, and nobody writes to it now.
        unsafe { slice::from_raw_parts(self.at(buffer_page(k)) as *const u8, BUFFER) }
    }

    fn data(&self, k: usize, buf: Buf, len: u64) -> u64 {
        let start = self.at(buffer_page(k));
        let room = BUFFER as u64;
        match buf {
            Buf::Start => start,
            Buf::Odd(n) => start + u64::from(n),
            Buf::End => start + room - len.min(room),
            Buf::Over => start + room - len.min(room) / 2,
            Buf::ReadOnly => self.at(READ_ONLY),
            Buf::Bad(bad) => self.bad(bad),
        }
    }

    /// Makes the vectors of request `k`; returns where they are.
    fn vectors(&mut self, k: usize, request: &Request, vectors: &Vectors) -> u64 {
        let Vectors {
            split,
            told: _,
            index,
            odd,
            place,
        } = *vectors;
        let room = VECTOR_PAGES * PAGE / size_of::<Vector>();
        let n = split as usize;
        if self.next_vector + n > room {
            self.next_vector = 0;
        }
        let first = match place {
            Place::Over => room - n / 2,
            Place::Bad(bad) => return self.bad(bad),
            _ => {
                self.next_vector += n;
                self.next_vector - n
            }
        };
        let base = self.data(k, request.buf, request.len);
        let array = self.at(VECTORS) + (first * size_of::<Vector>()) as u64;
        for i in 0..n.min(room - first) as u64 {
            let cut = |i: u64| request.len * i / u64::from(split);
            let mut vector = Vector {
                base: base.wrapping_add(cut(i)),
                len: cut(i + 1) - cut(i),
            };
            if i == u64::from(index) {
                match odd {
                    OddVector::None => (),
                    OddVector::Base(bad) => vector.base = self.bad(bad),
                    OddVector::Length(len) => vector.len = len,
                }
            }
            // SAFETY: there is room for so many.
            unsafe { self.put(array + i * size_of::<Vector>() as u64, vector) };
        }
        array
    }

    /// Where the iocb of request `k` is.
    pub fn iocb(&self, k: usize, place: Place) -> u64 {
        match place {
            Place::Good => self.at(IOCBS) + (k * IOCB) as u64,
            Place::ReadOnly => self.at(IOCBS_READ_ONLY) + (k * IOCB) as u64,
            Place::Over => self.at(IOCBS_HOLE) - IOCB as u64 / 2,
            Place::Bad(bad) => self.bad(bad),
        }
    }

    /// Writes the iocb of request `k`, with its vectors and its data. `iocb` has
    /// what doesn't depend on where those are.
    pub fn prepare(&mut self, k: usize, request: &Request, mut iocb: iocb) -> Result<()> {
        self.fill(k);
        match &request.vectors {
            Some(vectors) => {
                iocb.aio_buf = self.vectors(k, request, vectors);
                iocb.aio_nbytes = vectors.told;
            }
            None if request.polls() => iocb.aio_buf = request.len,
            None => {
                iocb.aio_buf = self.data(k, request.buf, request.len);
                iocb.aio_nbytes = request.len;
            }
        }
        let at = self.iocb(k, request.place);
        match request.place {
            // SAFETY: there is room for one for each request.
            Place::Good => unsafe { self.put(at, iocb) },
            Place::ReadOnly => {
                self.pages
                    .protect(IOCBS_READ_ONLY, libc::PROT_READ | libc::PROT_WRITE)?;
                // SAFETY: the same, now.
                unsafe { self.put(at, iocb) };
                self.pages.protect(IOCBS_READ_ONLY, libc::PROT_READ)?;
            }
            // SAFETY: half of one is the end of that page, which no other needs.
            Place::Over => unsafe {
                ptr::copy_nonoverlapping((&raw const iocb).cast(), at as *mut u8, IOCB / 2);
            },
            Place::Bad(_) => (),
        }
        Ok(())
    }

    /// Writes an iocb that isn't that of a request, and returns where it is.
    pub fn spare_iocb(&self, iocb: iocb) -> u64 {
        let at = self.iocb(REQUESTS, Place::Good);
        // SAFETY: there is room for one more than there are requests.
        unsafe { self.put(at, iocb) };
        at
    }

    /// The iocb of request `k`.
    pub fn iocb_of(&self, k: usize) -> iocb {
        // SAFETY: it is there, and any bytes will do.
        unsafe { ptr::read_volatile(self.iocb(k, Place::Good) as *const iocb) }
    }

    /// Where a field of the iocb of request `k` is.
    fn field(&self, k: usize, offset: usize) -> u64 {
        self.iocb(k, Place::Good) + offset as u64
    }

    /// Sets `aio_key` of request `k`.
    pub fn set_key(&self, k: usize, key: u32) {
        // SAFETY: a field of an iocb.
        unsafe { self.put(self.field(k, offset_of!(iocb, aio_key)), key) }
    }

    /// `aio_key` of request `k`.
    pub fn key(&self, k: usize) -> u32 {
        let at = self.field(k, offset_of!(iocb, aio_key));
        // SAFETY: a field of an iocb.
        unsafe { ptr::read_volatile(at as *const u32) }
    }

    /// Sets the descriptors of request `k`, which is submitted again.
    pub fn set_descriptors(&self, k: usize, file: u32, notify: u32) {
        // SAFETY: fields of an iocb.
        unsafe {
            self.put(self.field(k, offset_of!(iocb, aio_fildes)), file);
            self.put(self.field(k, offset_of!(iocb, aio_resfd)), notify);
        }
    }

    /// Writes an array of pointers up to the hole and returns where it is.
    pub fn pointers(&self, pointers: &[u64], place: Place) -> u64 {
        let start = match place {
            Place::Over => self.at(POINTERS_HOLE) - (pointers.len() / 2 * 8) as u64,
            Place::Bad(bad) => return self.bad(bad),
            _ => self.at(POINTERS_HOLE) - (pointers.len() * 8) as u64,
        };
        for (i, pointer) in pointers.iter().enumerate() {
            let at = start + (i * 8) as u64;
            if at < self.at(POINTERS_HOLE) {
                // SAFETY: before the hole, and never more than a page full.
                unsafe { self.put(at, *pointer) };
            }
        }
        start
    }

    /// Room for events up to the hole, and where it is.
    pub fn results(&self, room: usize, place: Place) -> u64 {
        // SAFETY: it is a page of ours.
        unsafe { ptr::write_bytes(self.at(RESULTS) as *mut u8, UNTOUCHED, PAGE) };
        let bytes = (room * size_of::<io_event>()) as u64;
        match place {
            Place::Good => self.at(RESULTS_HOLE) - bytes,
            Place::Over => self.at(RESULTS_HOLE) - bytes + size_of::<io_event>() as u64 / 2,
            Place::ReadOnly => self.at(READ_ONLY),
            Place::Bad(bad) => self.bad(bad),
        }
    }

    /// The first `n` events in the room at `at`; an error if more was written to.
    pub fn events(&self, at: u64, n: usize) -> Result<Vec<io_event>> {
        assert!(n <= EVENTS);
        // SAFETY: it is a page of ours, and no call runs.
        let page = unsafe { slice::from_raw_parts(self.at(RESULTS) as *const u8, PAGE) };
        let start = (at - self.at(RESULTS)) as usize;
        let end = start + n * size_of::<io_event>();
        if page[..start]
            .iter()
            .chain(&page[end..])
            .any(|byte| *byte != UNTOUCHED)
        {
            return Err(format!("more was written to than {n} events"));
        }
        // SAFETY: so many are there; they are plain memory.
        Ok((0..n)
            .map(|i| unsafe { ptr::read_unaligned((at as *const io_event).add(i)) })
            .collect())
    }

    /// Puts words into a page for that, and returns where they are.
    pub fn words(&self, word: Words, words: &[u64]) -> u64 {
        let start = self.at(WORDS) + word as u64;
        for (i, word) in words.iter().enumerate() {
            // SAFETY: a page has room for the few that there are.
            unsafe { self.put(start + i as u64 * 8, *word) };
        }
        start
    }

    /// The handle that a call has put there.
    pub fn handle(&self) -> u64 {
        // SAFETY: it is in the page of words.
        unsafe { ptr::read_volatile((self.at(WORDS) + Words::Handle as u64) as *const u64) }
    }

    /// A zero that can't be written to: no iocb has been there yet.
    pub fn read_only_zero(&self) -> u64 {
        self.at(IOCBS_READ_ONLY) + PAGE as u64 - 8
    }

    /// A copy of the head of a ring.
    pub fn copy_of(&self, ring: u64) -> u64 {
        let to = self.at(COPY);
        // SAFETY: a ring has a page at least, as has the copy.
        unsafe { ptr::copy_nonoverlapping(ring as *const u8, to as *mut u8, 128) };
        to
    }
}

fn buffer_page(k: usize) -> usize {
    BUFFERS + k * (BUFFER_PAGES + 1)
}

const _: () = {
    assert!(IOCB == 64 && (REQUESTS + 1) * IOCB <= PAGE);
    assert!(EVENTS * size_of::<io_event>() == PAGE);
};
