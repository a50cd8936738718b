// SPDX-License-Identifier: GPL-2.0
//! A sequence of calls, made of a seed and of nothing else: no answer changes
//! it, and it is the same on every machine. What is left out, because its
//! result depends on time and not on who carries it out:
//!
//! * two requests in flight on one file of which one writes, where files go on
//!   with requests by themselves (see [`File::is_queued`]);
//! * to truncate a file that requests in flight read or write (the step waits for
//!   them, see `run.rs`);
//! * `RWF_NOWAIT` on disks, but for reads of what is in the page cache, where
//!   `RWF_DONTCACHE` is left out for that: whether there is something to wait
//!   for depends on writeback;
//! * `RWF_ATOMIC` where a direct write appends: XFS of 7.3 checks `aio_offset`, not
//!   the end, for being aligned. If the end isn't, it writes a part of a new block,
//!   and the rest of that is what was on the disk before;
//! * a poll of a socket for `POLLPRI` alone: whatever arrives tells of that, too, and
//!   poll(2) doesn't, so it isn't known when such a poll has ended;
//! * files that block: pipes and sockets are non-blocking.

use crate::files::{File, Handle};
use raio_seed::Random;
use rand::{seq::IndexedRandom, Rng};
use std::ops::RangeInclusive;

/// Most requests of a sequence; each has an iocb and a buffer of its own.
pub const REQUESTS: usize = 24;
/// Bytes of a buffer.
pub const BUFFER: usize = 4 * 4096;
/// Most vectors of a request that are really there.
pub const VECTORS: u32 = 1024;
/// Room for so many events.
pub const EVENTS: usize = 128;
/// Contexts that are kept for later sequences are of these sizes.
pub const KEPT: [u32; 4] = [8, 1, 126, 300];

/// What the kernel moves at most in one call.
const MAX_RW_COUNT: u64 = 0x7fff_f000;

/// Opcodes of `<linux/aio_abi.h>`.
pub mod op {
    #![allow(missing_docs)]
    pub const PREAD: u16 = 0;
    pub const PWRITE: u16 = 1;
    pub const FSYNC: u16 = 2;
    pub const FDSYNC: u16 = 3;
    pub const POLL: u16 = 5;
    pub const NOOP: u16 = 6;
    pub const PREADV: u16 = 7;
    pub const PWRITEV: u16 = 8;
}

/// Bits of `aio_flags`.
pub mod flag {
    #![allow(missing_docs)]
    pub const RESFD: u32 = 1;
    pub const IOPRIO: u32 = 2;
}

/// Bits of `aio_rw_flags`.
mod rwf {
    pub const HIPRI: u32 = 0x1;
    pub const DSYNC: u32 = 0x2;
    pub const SYNC: u32 = 0x4;
    pub const NOWAIT: u32 = 0x8;
    pub const APPEND: u32 = 0x10;
    pub const NOAPPEND: u32 = 0x20;
    pub const ATOMIC: u32 = 0x40;
    pub const DONTCACHE: u32 = 0x80;
    pub const NOSIGNAL: u32 = 0x100;
    pub const UNKNOWN: u32 = 0x4000_0000;
}

/// An address at which nobody may read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Zero.
    Null,
    /// A page without rights.
    Hole,
    /// The kernel's.
    Kernel,
    /// Not an address of either half.
    NonCanonical,
    /// The last but eight.
    Last,
}

const BAD: [Bad; 5] = [
    Bad::Null,
    Bad::Hole,
    Bad::Kernel,
    Bad::NonCanonical,
    Bad::Last,
];

/// Where a request's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buf {
    /// At the beginning of its buffer.
    Start,
    /// So many bytes later.
    Odd(u16),
    /// Up to the hole behind the buffer.
    End,
    /// Half of it in the hole.
    Over,
    /// In memory that can only be read.
    ReadOnly,
    /// Nowhere.
    Bad(Bad),
}

/// What is odd about one vector of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OddVector {
    /// Nothing.
    None,
    /// Its base.
    Base(Bad),
    /// Its length.
    Length(u64),
}

/// Where an array is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In memory.
    Good,
    /// Its end isn't.
    Over,
    /// It can't be written to.
    ReadOnly,
    /// Nowhere.
    Bad(Bad),
}

/// The vectors of a request.
#[derive(Clone, Copy, Debug)]
pub struct Vectors {
    /// So many are there, which split the request's length.
    pub split: u32,
    /// So many the request says there are.
    pub told: u64,
    /// One of them,
    pub index: u32,
    /// and what is odd about it.
    pub odd: OddVector,
    /// Where they are.
    pub place: Place,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to do.
    pub opcode: u16,
    /// On what.
    pub handle: Handle,
    /// With what; for a poll this is where the events are, in `len`.
    pub buf: Buf,
    /// Split up, or not.
    pub vectors: Option<Vectors>,
    /// Bytes.
    pub len: u64,
    /// Where in the file.
    pub offset: i64,
    /// What `aio_resfd` is, if it is looked at.
    pub notify: Option<Handle>,
    /// `aio_flags` besides `IOCB_FLAG_RESFD`.
    pub flags: u32,
    /// `aio_rw_flags`.
    pub rw_flags: u32,
    /// `aio_reqprio`.
    pub priority: u16,
    /// `aio_reserved2`.
    pub reserved: u64,
    /// `aio_key`.
    pub key: u32,
    /// Where the iocb is.
    pub place: Place,
}

impl Request {
    /// One without length, and with nothing that is odd.
    pub fn new(opcode: u16, handle: Handle) -> Self {
        Self {
            opcode,
            handle,
            buf: Buf::Start,
            vectors: None,
            len: 0,
            offset: 0,
            notify: None,
            flags: 0,
            rw_flags: 0,
            priority: 0,
            reserved: 0,
            key: 0,
            place: Place::Good,
        }
    }

    /// Whether it changes the file.
    pub fn writes(&self) -> bool {
        matches!(self.opcode, op::PWRITE | op::PWRITEV)
    }

    /// Whether it reads from the file.
    pub fn reads(&self) -> bool {
        matches!(self.opcode, op::PREAD | op::PREADV)
    }

    /// The eventfd that counts it.
    pub fn notified(&self) -> Option<usize> {
        self.notify.and_then(Handle::counts)
    }

    /// Whether it makes the file's data last.
    pub fn syncs(&self) -> bool {
        matches!(self.opcode, op::FSYNC | op::FDSYNC)
    }

    /// Whether it waits for the file to get ready.
    pub fn polls(&self) -> bool {
        self.opcode == op::POLL
    }
}

/// The handle of a context, as a call gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// That of the sequence.
    Own,
    /// A little more than that.
    Beside,
    /// Memory that looks like its ring.
    Copy,
    /// Nowhere.
    Bad(Bad),
}

/// An element of an array of pointers to iocbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pointer {
    /// To the request with this number.
    Request(usize),
    /// To nowhere.
    Bad(Bad),
}

/// A minimum of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Minimum {
    /// So many.
    Number(i64),
    /// Those that are there, and so many more.
    There(i64),
}

/// A time to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Seconds and nanoseconds. If it is long or negative and there isn't what is
    /// waited for, none.
    Time(i64, i64),
    /// No limit; the same holds.
    Forever,
    /// Nowhere.
    Bad(Bad),
}

/// The signal mask of `io_pgetevents(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// None: `io_getevents(2)`.
    None,
    /// One of this size.
    Size(usize),
    /// Nowhere.
    Bad(Bad),
}

/// The word that gets the handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// A zero.
    Zero,
    /// Something else.
    NonZero,
    /// A zero that can't be written to.
    ReadOnly,
    /// Nowhere.
    Bad(Bad),
}

/// A step of a sequence.
#[derive(Clone, Debug)]
pub enum Step {
    /// `io_submit(2)`.
    Submit {
        /// The context.
        context: Context,
        /// The array.
        pointers: Vec<Pointer>,
        /// Where it is. There is a hole behind it.
        place: Place,
        /// How long it is said to be.
        nr: i64,
        /// Whether the next step comes when all requests have ended that can,
        /// or at once.
        settle: bool,
    },
    /// A request of which it is known that the peers may differ, for as long as
    /// it takes: it is submitted, cancelled if it waits, and all events are read.
    Alone(usize),
    /// `io_getevents(2)` or `io_pgetevents(2)` when all requests have ended that
    /// can.
    GetEvents {
        /// The context.
        context: Context,
        /// At least.
        min_nr: Minimum,
        /// At most.
        nr: i64,
        /// There is room for so many, and a hole behind it.
        room: usize,
        /// Where it is.
        place: Place,
        /// How long.
        timeout: Timeout,
        /// Under which mask.
        mask: Mask,
    },
    /// The same with requests in flight, for as many as are sure to come.
    Wait,
    /// Takes events from the ring, without a call.
    Reap(u32),
    /// `io_cancel(2)`.
    Cancel {
        /// The context.
        context: Context,
        /// The iocb.
        pointer: Pointer,
        /// What is written to its `aio_key` before, if anything.
        key: Option<u32>,
    },
    /// `io_setup(2)` of another context, which is destroyed if there is one.
    Setup {
        /// Its size.
        nr_events: u32,
        /// Where the handle goes.
        word: Word,
    },
    /// `io_destroy(2)`.
    Destroy(Context),
    /// Requests until there is no room, if the ring is empty.
    Fill,
    /// `close(2)`; never of one end of a pipe or socket that a poll has waited on.
    Close(Handle),
    /// `ftruncate(2)`, or the same of a partition, by `BLKPG`.
    Truncate(File, i64),
    /// `write(2)` to a pipe, socket or eventfd.
    Write(Handle, usize),
    /// `read(2)` from it.
    Read(Handle, usize),
    /// `RLIMIT_FSIZE`, until the sequence ends.
    Limit(u64),
}

/// A sequence.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// What it was made of.
    pub seed: u64,
    /// Size of its context.
    pub nr_events: u32,
    /// Whether that is a new one, and may be destroyed.
    pub fresh: bool,
    /// The requests, by number.
    pub requests: Vec<Request>,
    /// What is done.
    pub steps: Vec<Step>,
}

impl Sequence {
    /// The requests that can go by raio's own call, and come to the same: in each call that
    /// they are in, all can, and nothing is wrong with the call. That writes no key to
    /// them; what does nothing needs no file there; and the upper flags mean something.
    pub fn native(&self) -> Vec<bool> {
        let mut native: Vec<bool> = self
            .requests
            .iter()
            .map(|request| {
                request.place == Place::Good
                    && request.key == 0
                    && request.opcode != op::NOOP
                    && request.flags >> 30 == 0
            })
            .collect();
        loop {
            let before = native.clone();
            for step in &self.steps {
                let Step::Submit {
                    pointers,
                    place,
                    nr,
                    ..
                } = step
                else {
                    continue;
                };
                let is = |pointer: &Pointer| match pointer {
                    Pointer::Request(k) => native.get(*k).is_some_and(|native| *native),
                    Pointer::Bad(_) => false,
                };
                let whole = *place == Place::Good && *nr == pointers.len() as i64;
                if whole && pointers.iter().all(is) {
                    continue;
                }
                for pointer in pointers {
                    if let Pointer::Request(k) = pointer {
                        if let Some(native) = native.get_mut(*k) {
                            *native = false;
                        }
                    }
                }
            }
            if native == before {
                return native;
            }
        }
    }
}

/// Whether raio's own call is used where it can be.
pub fn enters(seed: u64) -> bool {
    seed & 8 != 0
}

/// Whether buffers and files are registered then.
pub fn registers(seed: u64) -> bool {
    seed & 16 != 0
}

/// Whether the requests are in the submission array then.
pub fn shares(seed: u64) -> bool {
    seed & 64 != 0
}

/// Whether the call also looks for what has ended.
pub fn looks(seed: u64) -> bool {
    seed & 128 != 0
}

/// Whether raio's context polls for what is on the disk, if that can be polled.
pub fn polls(seed: u64) -> bool {
    seed & 32 != 0
}

/// Whether the process that carries out a sequence has no privileges.
pub fn unprivileged(seed: u64) -> bool {
    seed & 1 != 0
}

/// On which disk its files are, if there are several.
pub fn disk(seed: u64) -> usize {
    (seed >> 1 & 1) as usize
}

/// Sequences are of so many kinds, each of which belongs to a process of its own.
pub const KINDS: u64 = 4;

/// The seed of the sequence with that number. The number says of which kind it is.
pub fn seed_of(seed: u64, number: u64) -> u64 {
    let random = raio_seed::random(seed, number + 1).random::<u64>();
    random - random % KINDS + number % KINDS
}

/// Makes a sequence.
pub fn make(seed: u64) -> Sequence {
    let mut maker = Maker {
        random: raio_seed::random(seed, 0),
        cast: Vec::new(),
        requests: Vec::new(),
        steps: Vec::new(),
        in_flight: Vec::new(),
        alone: Vec::new(),
    };
    maker.cast = (0..maker.random.random_range(2..=4))
        .map(|_| maker.handle())
        .collect();
    let fresh = maker.one_in(12);
    let nr_events = if fresh && maker.one_in(3) {
        maker.one(&[2, 3, 127, 128, 1000, 4096])
    } else {
        maker.mostly(&KEPT)
    };
    for _ in 0..maker.random.random_range(4..=14) {
        maker.step(fresh);
    }
    Sequence {
        seed,
        nr_events,
        fresh,
        requests: maker.requests,
        steps: maker.steps,
    }
}

struct Maker {
    random: Random,
    /// The files that this sequence is mostly about.
    cast: Vec<Handle>,
    requests: Vec<Request>,
    steps: Vec<Step>,
    /// Files that requests are in flight on, and whether one of those writes.
    in_flight: Vec<(File, bool)>,
    /// Requests that the peers may answer differently.
    alone: Vec<usize>,
}

impl Maker {
    fn one_in(&mut self, n: u32) -> bool {
        self.random.random_range(0..n) == 0
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(&mut self.random).expect("there is one")
    }

    /// One of them, and more often one of the first.
    fn mostly<T: Copy>(&mut self, of: &[T]) -> T {
        let among = self.random.random_range(1..=of.len());
        self.one(&of[..among])
    }

    fn range(&mut self, range: RangeInclusive<i64>) -> i64 {
        self.random.random_range(range)
    }

    fn bad(&mut self) -> Bad {
        self.one(&BAD)
    }

    fn handle(&mut self) -> Handle {
        let class = self.random.random_range(0..100);
        match class {
            0..40 => self.one(&Handle::MEMORY),
            40..62 => self.one(&Handle::DISK),
            62..82 => self.one(&Handle::STREAMS),
            82..96 => self.one(&Handle::DEVICES),
            _ => self.one(&Handle::NOT_OPEN),
        }
    }

    fn context(&mut self) -> Context {
        if !self.one_in(40) {
            return Context::Own;
        }
        let bad = self.bad();
        self.one(&[Context::Beside, Context::Copy, Context::Bad(bad)])
    }

    fn step(&mut self, fresh: bool) {
        let settled = match self.random.random_range(0..100) {
            0..40 => return self.submit(),
            40..58 => {
                let step = self.getevents();
                self.steps.push(step);
                true
            }
            58..64 => {
                let n = self.random.random_range(1..=8);
                self.steps.push(Step::Reap(n));
                true
            }
            64..72 => {
                let step = self.cancel();
                self.steps.push(step);
                true
            }
            72..85 => {
                let step = self.file_step();
                self.steps.push(step);
                true
            }
            85..88 => {
                let step = self.setup();
                self.steps.push(step);
                true
            }
            88..95 => {
                self.alone();
                true
            }
            95 if self.one_in(4) => {
                self.steps.push(Step::Fill);
                true
            }
            95..98 => {
                self.steps.push(Step::Wait);
                true
            }
            _ => {
                let context = if fresh {
                    self.context()
                } else {
                    let bad = self.bad();
                    self.one(&[Context::Beside, Context::Copy, Context::Bad(bad)])
                };
                self.steps.push(Step::Destroy(context));
                true
            }
        };
        if settled {
            self.in_flight.clear();
        }
    }

    fn submit(&mut self) {
        let mut pointers = Vec::new();
        for _ in 0..self.mostly(&[2, 1, 3, 4, 6]) {
            if self.one_in(60) {
                let bad = self.bad();
                pointers.push(Pointer::Bad(bad));
            } else if self.one_in(25) && !self.requests.is_empty() {
                // Once more, as it is.
                let k = self.random.random_range(0..self.requests.len());
                if self.may_be_once_more(k) {
                    pointers.push(Pointer::Request(k));
                }
            } else if self.requests.len() < REQUESTS {
                pointers.push(Pointer::Request(self.request()));
            }
        }
        let n = pointers.len() as i64;
        let nr = if self.one_in(20) {
            self.one(&[0, -1, i64::MIN, i64::MAX, n + 1, n + 1000, 1 << 32])
        } else {
            n
        };
        let place = if self.one_in(50) {
            let bad = self.bad();
            self.one(&[Place::Over, Place::Bad(bad)])
        } else {
            Place::Good
        };
        // Of syncs it is seen only so that they can be cancelled.
        let last = pointers.iter().rev().find_map(|pointer| match pointer {
            Pointer::Request(k) => Some(*k),
            Pointer::Bad(_) => None,
        });
        let syncs = last.is_some_and(|k| self.requests[k].syncs());
        let settle = !self.one_in(if syncs { 2 } else { 5 });
        let context = self.context();
        self.steps.push(Step::Submit {
            context,
            pointers,
            place,
            nr,
            settle,
        });
        if !settle {
            let step = self.in_flight_step(last);
            self.steps.push(step);
        }
        self.in_flight.clear();
    }

    /// Something that has to do with requests in flight, `last` among them.
    fn in_flight_step(&mut self, last: Option<usize>) -> Step {
        match (self.random.random_range(0..10), last) {
            (0..5, Some(k)) => Step::Cancel {
                context: Context::Own,
                pointer: Pointer::Request(k),
                key: None,
            },
            (5, _) => Step::Close(self.of_the_cast().unless_it_counts()),
            (6..8, _) => match self.truncate() {
                // Making a file longer doesn't wait for requests on its end.
                Step::Truncate(file, len) => Step::Truncate(file, len.min(file.size() / 2)),
                step => step,
            },
            _ => Step::Wait,
        }
    }

    fn of_the_cast(&mut self) -> Handle {
        *self.cast.choose(&mut self.random).expect("there is one")
    }

    fn may_be_once_more(&mut self, k: usize) -> bool {
        let good = self.requests[k].place == Place::Good;
        good && !self.alone.contains(&k) && self.may_be_in_flight(k)
    }

    /// Whether the request `k` may be in flight beside those that are.
    fn may_be_in_flight(&mut self, k: usize) -> bool {
        let request = &self.requests[k];
        let (file, writes) = (request.handle.file(), request.writes());
        if !file.is_queued() {
            return true;
        }
        let conflict =
            |(other, other_writes): &(File, bool)| *other == file && (writes || *other_writes);
        if self.in_flight.iter().any(conflict) {
            return false;
        }
        self.in_flight.push((file, writes));
        true
    }

    fn request(&mut self) -> usize {
        let mut request = self.random_request();
        let k = self.requests.len();
        self.requests.push(request.clone());
        if !self.may_be_in_flight(k) {
            request.handle = Handle::Tmp;
            self.requests[k] = request;
        }
        k
    }

    fn random_request(&mut self) -> Request {
        let handle = if self.one_in(8) {
            self.handle()
        } else {
            self.of_the_cast()
        };
        let opcode = match self.random.random_range(0..100) {
            0..25 => op::PREAD,
            25..50 => op::PWRITE,
            50..62 => op::PREADV,
            62..74 => op::PWRITEV,
            74..76 if handle.file().is_on_disk() => op::FSYNC,
            76..78 if handle.file().is_on_disk() => op::FDSYNC,
            74..78 => self.one(&[op::FSYNC, op::FDSYNC]),
            78..98 if handle.is_stream() => op::POLL,
            78..82 => op::POLL,
            82..98 => self.one(&[op::PREAD, op::PWRITE, op::PREADV, op::PWRITEV]),
            _ => self.one(&[4, 9, 10, 0xff, 0x100, 0xffff]),
        };
        let handle = match opcode {
            op::POLL => handle,
            _ => handle.unless_it_counts(),
        };
        let mut request = Request::new(opcode, handle);
        match opcode {
            op::FSYNC | op::FDSYNC => self.fill_sync(&mut request),
            op::POLL => self.fill_poll(&mut request),
            _ => self.fill_rw(&mut request),
        }
        self.fill_rest(&mut request);
        request
    }

    fn fill_sync(&mut self, request: &mut Request) {
        request.buf = Buf::Bad(Bad::Null);
        if self.one_in(6) {
            match self.random.random_range(0..4) {
                0 => request.buf = Buf::Start,
                1 => request.len = 1,
                2 => request.offset = 1,
                _ => request.rw_flags = rwf::HIPRI,
            }
        }
    }

    fn fill_poll(&mut self, request: &mut Request) {
        const IN: u64 = libc::POLLIN as u64;
        const OUT: u64 = libc::POLLOUT as u64;
        const PRI: u64 = libc::POLLPRI as u64;
        const BOTH: u64 = IN | OUT;
        const NORM: u64 = (libc::POLLRDNORM | libc::POLLWRNORM) as u64;
        request.len = self.mostly(&[
            IN,
            OUT,
            BOTH,
            PRI,
            NORM,
            0,
            0x2000,
            0xffff,
            0x10000,
            1 << 40,
        ]);
        // An epoll that gets ready for NORM tells only those who ask for IN, too.
        if request.handle == Handle::Epoll && request.len == NORM {
            request.len = IN;
        }
        if request.handle.is_socket() && request.len == PRI {
            request.len = IN;
        }
        if self.one_in(20) {
            request.offset = self.one(&[1, -1]);
        }
        if self.one_in(20) {
            request.rw_flags = self.one(&[rwf::HIPRI, rwf::UNKNOWN]);
        }
    }

    fn fill_rw(&mut self, request: &mut Request) {
        let aligned = request.handle.is_direct() && !self.one_in(4);
        request.len = if aligned {
            self.mostly(&[512, 4096, 1024, 8192, 0, 2560, BUFFER as u64])
        } else if !self.one_in(12) {
            self.mostly(&[
                100,
                4096,
                1,
                512,
                8,
                5000,
                0,
                4095,
                513,
                8192,
                511,
                BUFFER as u64,
            ])
        } else {
            self.one(&[
                i64::MAX as u64,
                MAX_RW_COUNT,
                MAX_RW_COUNT + 1,
                1 << 32,
                1 << 40,
                1 << 63,
                u64::MAX,
                BUFFER as u64 + 1,
            ])
        };
        if !request.handle.is_stream() || self.one_in(6) {
            request.offset = self.offset(request.handle.file().size(), aligned);
        }
        let odd = self.one(&[512, 8, 1, 511, 4095]);
        let bad = self.bad();
        request.buf = if aligned {
            self.mostly(&[Buf::Start, Buf::Odd(512), Buf::End])
        } else if self.one_in(10) {
            self.one(&[Buf::Over, Buf::ReadOnly, Buf::Bad(bad)])
        } else {
            self.mostly(&[Buf::Start, Buf::End, Buf::Odd(odd)])
        };
        if matches!(request.opcode, op::PREADV | op::PWRITEV) {
            request.vectors = Some(self.vectors(request.len));
            request.len = request.len.min(BUFFER as u64);
        }
        request.rw_flags = self.rw_flags(request.handle, request.writes());
    }

    fn offset(&mut self, size: i64, aligned: bool) -> i64 {
        if aligned {
            return self.mostly(&[0, 512, 4096, 8192, 1024, size & !511, 1 << 20, 1 << 40]);
        }
        if self.one_in(12) {
            return self.one(&[
                -1,
                i64::MIN,
                i64::MAX,
                i64::MAX - 4095,
                i64::MAX - 1,
                1 << 40,
                (1 << 44) - 1,
                1 << 62,
            ]);
        }
        let anywhere = self.range(0..=size);
        self.mostly(&[
            0,
            anywhere,
            4096,
            size,
            size - 100,
            size + 1,
            512,
            size + 5000,
            1 << 20,
        ])
    }

    fn vectors(&mut self, len: u64) -> Vectors {
        let split = if self.one_in(20) {
            self.one(&[64, VECTORS])
        } else {
            self.mostly(&[2, 1, 3, 8, 9, 0])
        };
        let mut vectors = Vectors {
            split,
            told: split.into(),
            index: self.random.random_range(0..split.max(1)),
            odd: OddVector::None,
            place: Place::Good,
        };
        if len > BUFFER as u64 {
            vectors.odd = OddVector::Length(len);
        } else if self.one_in(8) {
            let bad = self.bad();
            match self.random.random_range(0..5) {
                0 => vectors.odd = OddVector::Base(bad),
                1 => vectors.odd = OddVector::Length(self.one(&[u64::MAX, 1 << 63, MAX_RW_COUNT])),
                2 => vectors.place = Place::Bad(bad),
                3 => vectors.place = Place::Over,
                _ => {
                    vectors.told =
                        self.one(&[1025, 1 << 20, u32::MAX.into(), i64::MAX as u64, 1 << 63])
                }
            }
        }
        vectors
    }

    fn rw_flags(&mut self, handle: Handle, writes: bool) -> u32 {
        if !self.one_in(4) {
            return 0;
        }
        let mut known = vec![
            rwf::APPEND,
            rwf::NOAPPEND,
            rwf::NOAPPEND | rwf::APPEND,
            rwf::HIPRI,
            rwf::NOSIGNAL,
            rwf::UNKNOWN,
            1 << 31,
            1 << 12,
        ];
        let file = handle.file();
        if handle != Handle::DirectAppend {
            known.push(rwf::ATOMIC);
        }
        if file.is_queued() || !file.is_on_disk() {
            known.push(rwf::DONTCACHE);
        }
        if !(file.is_queued() || file.is_on_disk() && writes) {
            known.extend([rwf::NOWAIT, rwf::NOWAIT | rwf::HIPRI]);
        }
        // Disks take their time for that.
        if !file.is_on_disk() || self.one_in(6) {
            known.extend([rwf::DSYNC, rwf::SYNC]);
        }
        self.one(&known)
    }

    fn fill_rest(&mut self, request: &mut Request) {
        if self.one_in(7) {
            let any = self.handle();
            let to = match self.mostly(&[Handle::CountA, Handle::CountB, any]) {
                // When it is told, nobody would know.
                Handle::Event => Handle::Null,
                to => to,
            };
            request.notify = Some(to);
        }
        if self.one_in(10) {
            request.flags |= flag::IOPRIO;
        }
        if request.flags & flag::IOPRIO != 0 || self.one_in(20) {
            // Best effort, none, idle, real time, and what there isn't.
            request.priority = self.one(&[
                0x4000, 0x4004, 0x4007, 0, 0x6000, 0x6001, 0x2000, 0x2007, 0x0001, 0x8000, 0xffff,
                0x4008, 0x2010,
            ]);
        }
        if self.one_in(100) {
            request.reserved = self.one(&[1, 1 << 63]);
        }
        if self.one_in(10) {
            request.key = self.random.random();
        }
        if self.one_in(60) {
            request.place = self.one(&[Place::ReadOnly, Place::Over]);
        }
    }

    /// A request that the peers may answer differently.
    fn alone(&mut self) {
        if self.requests.len() == REQUESTS {
            return;
        }
        let mut request = self.random_request();
        request.rw_flags = 0;
        // An eventfd that only one of them has told would end polls.
        request.notify = request.notify.filter(|handle| handle.counts().is_none());
        let kind = self.random.random_range(0..4);
        if kind < 2 && (request.writes() || request.polls() || request.handle.is_stream()) {
            // The file stays as it is if only one of them does it.
            request.handle = Handle::TmpRead;
            request.opcode = op::PREAD;
            request.vectors = None;
        }
        match kind {
            0 => request.flags |= self.one(&[4, 8, 1 << 31, !3]),
            1 => {
                request.opcode = op::PREADV;
                request.vectors = Some(Vectors {
                    split: 2,
                    told: self.one(&[1 << 32, 1 + (1 << 32), 1 << 40]),
                    index: 0,
                    odd: OddVector::None,
                    place: Place::Good,
                });
                request.len = request.len.min(BUFFER as u64);
            }
            2 => {
                request.opcode = op::NOOP;
                request.vectors = None;
                request.len = 0;
                request.offset = 0;
                self.fill_sync(&mut request);
            }
            _ => {
                request.opcode = op::POLL;
                request.handle = Handle::Fifo;
                request.vectors = None;
                request.offset = 0;
                self.fill_poll(&mut request);
            }
        }
        let k = self.requests.len();
        self.requests.push(request);
        self.alone.push(k);
        self.steps.push(Step::Alone(k));
    }

    fn getevents(&mut self) -> Step {
        let nr = if self.one_in(10) {
            self.one(&[0, -1, i64::MIN, i64::MAX, 1 << 32])
        } else {
            self.mostly(&[EVENTS as i64, 1, 2, 5])
        };
        let min_nr = match self.random.random_range(0..20) {
            0..6 => Minimum::Number(0),
            6..9 => Minimum::Number(1),
            9..15 => Minimum::There(0),
            15..18 => Minimum::There(1),
            _ => {
                let n = self.one(&[-1, i64::MIN, i64::MAX, nr]);
                Minimum::Number(n)
            }
        };
        let bad = self.bad();
        let timeout = match self.random.random_range(0..20) {
            0..10 => Timeout::Time(0, 0),
            10..13 => Timeout::Time(20, 0),
            13..15 => Timeout::Forever,
            15 => Timeout::Time(0, 1),
            16 => Timeout::Time(0, 20_000),
            17 => Timeout::Time(-1, 0),
            18 => Timeout::Time(5, 2_000_000_000),
            _ => Timeout::Bad(self.one(&[Bad::Hole, Bad::Kernel, Bad::NonCanonical, Bad::Last])),
        };
        let (room, place) = match self.random.random_range(0..24) {
            0 => (EVENTS, Place::Bad(bad)),
            1 => (1, Place::Good),
            2 => (2, Place::Over),
            3 => (EVENTS, Place::ReadOnly),
            _ => (EVENTS, Place::Good),
        };
        let mask = match self.random.random_range(0..20) {
            0..2 => Mask::Size(8),
            2 => Mask::Size(self.one(&[0, 4, 9, 128])),
            3 => Mask::Bad(bad),
            _ => Mask::None,
        };
        let context = self.context();
        Step::GetEvents {
            context,
            min_nr,
            nr,
            room,
            place,
            timeout,
            mask,
        }
    }

    fn cancel(&mut self) -> Step {
        let polls: Vec<usize> = (0..self.requests.len())
            .filter(|k| self.requests[*k].polls())
            .collect();
        let pointer = if self.one_in(12) {
            let bad = self.bad();
            Pointer::Bad(bad)
        } else if !polls.is_empty() && !self.one_in(4) {
            Pointer::Request(self.one(&polls))
        } else {
            // Maybe one that is yet to come.
            Pointer::Request(self.random.random_range(0..REQUESTS))
        };
        let key = self.one_in(10).then(|| self.random.random_range(0..2));
        let context = self.context();
        Step::Cancel {
            context,
            pointer,
            key,
        }
    }

    fn setup(&mut self) -> Step {
        let nr_events = self.mostly(&[
            0,
            1,
            u32::MAX,
            1 << 31,
            64,
            (1 << 22) + 1,
            (1 << 20) + 1,
            1 << 22,
            (1 << 31) + 1,
            i32::MAX as u32,
            1 << 20,
        ]);
        let word = if nr_events == 1 << 20 {
            Word::Zero
        } else {
            let bad = self.bad();
            self.mostly(&[Word::Zero, Word::NonZero, Word::ReadOnly, Word::Bad(bad)])
        };
        Step::Setup { nr_events, word }
    }

    fn truncate(&mut self) -> Step {
        let files: Vec<File> = self
            .cast
            .iter()
            .map(|handle| handle.file())
            .filter(|file| file.can_be_truncated())
            .collect();
        let file = match files.choose(&mut self.random) {
            Some(file) => *file,
            None => File::Tmp,
        };
        let size = file.size();
        let len = self.mostly(&[
            0,
            size / 2,
            size + 1000,
            100,
            4096,
            size,
            -1,
            1 << 41,
            i64::MAX,
        ]);
        Step::Truncate(file, len)
    }

    fn file_step(&mut self) -> Step {
        let streams: Vec<Handle> = self
            .cast
            .iter()
            .copied()
            .filter(|handle| handle.is_stream())
            .map(Handle::unless_it_counts)
            .collect();
        let stream = streams.choose(&mut self.random).copied();
        match (self.random.random_range(0..10), stream) {
            (0..5, Some(stream)) => {
                // Rather to the other end of what is waited for.
                let stream = if self.one_in(3) {
                    stream
                } else {
                    stream.other_end()
                };
                let len = self.mostly(&[100, 8, 1, 4096]);
                if self.one_in(2) {
                    Step::Write(stream, len)
                } else {
                    Step::Read(stream, len)
                }
            }
            (5..7, Some(stream)) if self.one_in(2) => Step::Close(stream.other_end()),
            (5..7, _) => Step::Close(self.of_the_cast().unless_it_counts()),
            (7, _) => {
                let size = self.of_the_cast().file().size() as u64;
                let limit =
                    self.one(&[0, 1, 4096, 6000, size, size + 100, 1 << 20, i64::MAX as u64]);
                // XFS may write a part of what isn't aligned before it refuses it.
                let direct = self.cast.iter().any(|handle| handle.is_direct());
                Step::Limit(if direct { limit & !511 } else { limit })
            }
            _ => self.truncate(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> impl Iterator<Item = Sequence> {
        (0..2_000).map(|number| make(seed_of(1, number)))
    }

    #[test]
    fn the_same_of_the_same() {
        for sequence in some().take(100) {
            let again = make(sequence.seed);
            assert_eq!(format!("{sequence:?}"), format!("{again:?}"));
        }
    }

    #[test]
    fn numbers_say_of_which_kind() {
        for (number, sequence) in some().enumerate() {
            let number = number as u64;
            assert_eq!(sequence.seed % KINDS, number % KINDS);
            assert_eq!(unprivileged(sequence.seed), unprivileged(number));
            assert_eq!(disk(sequence.seed), disk(number));
        }
    }

    #[test]
    fn sizes_are_bounded() {
        for sequence in some() {
            assert!(sequence.requests.len() <= REQUESTS);
            for vectors in sequence.requests.iter().filter_map(|r| r.vectors) {
                assert!(vectors.split <= VECTORS);
            }
        }
    }

    /// What two of them come to would depend on which is first.
    #[test]
    fn none_writes_beside_another() {
        let mut together = 0;
        for sequence in some() {
            for step in &sequence.steps {
                let Step::Submit { pointers, .. } = step else {
                    continue;
                };
                let queued: Vec<_> = pointers
                    .iter()
                    .filter_map(|pointer| match pointer {
                        Pointer::Request(k) => Some(&sequence.requests[*k]),
                        Pointer::Bad(_) => None,
                    })
                    .filter(|request| request.handle.file().is_queued())
                    .collect();
                for (i, one) in queued.iter().enumerate() {
                    for other in &queued[..i] {
                        let meet = one.handle.file() == other.handle.file();
                        together += u32::from(meet);
                        assert!(!meet || !one.writes() && !other.writes());
                    }
                }
            }
        }
        assert!(together > 50);
    }

    #[test]
    fn what_may_differ_comes_once() {
        for sequence in some() {
            for (k, request) in sequence.requests.iter().enumerate() {
                let odd = request.opcode == op::NOOP
                    || request.flags & !(flag::RESFD | flag::IOPRIO) != 0
                    || request.handle == Handle::Fifo;
                if !odd {
                    continue;
                }
                for step in &sequence.steps {
                    if let Step::Submit { pointers, .. } = step {
                        assert!(!pointers.contains(&Pointer::Request(k)));
                    }
                }
            }
        }
    }
}
