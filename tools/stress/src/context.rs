// SPDX-License-Identifier: GPL-2.0
//! What is known of open files, contexts and requests, so that each answer of
//! the module can be judged although other threads do what they like. What is
//! about to end is marked before it does; a context's entries say where each
//! request is.
//!
//! Relies on two things never being used twice in a process: the address of
//! a context that threads share, and the number of a descriptor of the
//! device. An old handle is then no handle, not by accident somebody else's.
//!
//! Locks: none but those of one entry's description and of what is known of
//! its cancels, held for a copy or a comparison.

use crate::{
    check::{self, Outcome, CANARY, POISON},
    counters::{Count, Counters},
    ops::{Bad, Events, How, Request, Size, BATCH, BLOCK, PIECES},
    polled::Polled,
    report::Checked,
    sys::{self, Pages, PAGE},
    testdev,
};
use raio::{raw, sys as abi};
use std::{
    cell::UnsafeCell,
    fs::File,
    io,
    mem::ManuallyDrop,
    os::fd::{AsRawFd, RawFd},
    ptr,
    sync::{
        atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst},
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
    },
};

/// The first number of a descriptor of the device.
const FIRST_DESCRIPTOR: RawFd = 1024;
/// Where rings are moved to: far from where the kernel puts anything.
const FIRST_ADDRESS: u64 = 0x1000_0000_0000;

/// Hands out what is used once.
pub struct Once {
    descriptor: AtomicI32,
    address: AtomicU64,
    serial: AtomicU32,
    generation: AtomicU64,
}

impl Once {
    /// For the process with that number.
    pub fn new(process: u64) -> Self {
        Self {
            descriptor: AtomicI32::new(FIRST_DESCRIPTOR),
            address: AtomicU64::new(FIRST_ADDRESS),
            serial: AtomicU32::new(1),
            generation: AtomicU64::new((process + 1) << 32),
        }
    }

    fn address(&self, len: usize) -> usize {
        let len = (len.div_ceil(PAGE) + 1) * PAGE;
        self.address.fetch_add(len as u64, SeqCst) as usize
    }
}

/// A descriptor of the device that anybody may close.
pub struct Descriptor {
    /// Its number.
    pub number: RawFd,
    closed: AtomicBool,
}

impl Descriptor {
    /// Whether it is or is being closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }
}

/// An open file of the device, with some descriptors.
pub struct OpenFile {
    /// Them.
    pub descriptors: Vec<Descriptor>,
    left: AtomicU32,
    closing: AtomicBool,
    /// Held to be read while a ring isn't at its own address yet: the end of
    /// the file would unmap whatever is at the old one.
    settling: RwLock<()>,
}

impl OpenFile {
    /// Opens the device. The first descriptor stays when another program is
    /// run, if there are several.
    ///
    /// # Errors
    ///
    /// Any is a failure of the test.
    pub fn open(once: &Once, duplicates: u8) -> Checked<Arc<Self>> {
        let file = raw::open(raio::DEVICE_PATH).map_err(|e| format!("open: {e}"))?;
        let mut descriptors = Vec::new();
        for n in 0..duplicates {
            let wanted = once.descriptor.fetch_add(1, SeqCst);
            let number = sys::duplicate(file.as_raw_fd(), wanted, n == 0 && duplicates > 1)
                .map_err(|e| format!("dup of a descriptor: {e}"))?;
            if number != wanted {
                return Err(format!("descriptor {number}, not {wanted}"));
            }
            descriptors.push(Descriptor {
                number,
                closed: AtomicBool::new(false),
            });
        }
        Ok(Arc::new(Self {
            left: AtomicU32::new(descriptors.len() as u32),
            descriptors,
            closing: AtomicBool::new(false),
            settling: RwLock::new(()),
        }))
    }

    /// One of the descriptors.
    pub fn via(&self, n: u8) -> &Descriptor {
        &self.descriptors[usize::from(n) % self.descriptors.len()]
    }

    /// Whether the last is or is being closed.
    pub fn is_closing(&self) -> bool {
        self.closing.load(SeqCst)
    }

    /// Closes one of the descriptors unless somebody has. Says whether it was
    /// the last.
    ///
    /// # Errors
    ///
    /// Any is a failure of the test.
    pub fn close(&self, n: u8, counters: &Counters) -> Checked<bool> {
        let descriptor = self.via(n);
        if descriptor.closed.swap(true, SeqCst) {
            return Ok(false);
        }
        let last = self.left.fetch_sub(1, SeqCst) == 1;
        if last {
            self.closing.store(true, SeqCst);
            drop(
                self.settling
                    .write()
                    .unwrap_or_else(PoisonError::into_inner),
            );
            counters.count(Count::LastCloses);
        }
        counters.count(Count::Closes);
        sys::close(descriptor.number).map_err(|e| format!("close: {e}"))?;
        Ok(last)
    }
}

/// The pages of the test devices that the threads of a process have.
pub struct OwnPages {
    /// The first, on each device.
    first: u64,
    threads: u32,
    per_thread: u8,
    state: Vec<AtomicU64>,
}

/// What is in an own page: nothing known.
const UNKNOWN: u64 = 0;
/// A request is using it.
const BUSY: u64 = u64::MAX;

impl OwnPages {
    /// Of `threads`, from page `first` on.
    pub fn new(first: u64, threads: u32, per_thread: u8, devices: u8) -> Self {
        let n = usize::from(devices) * threads as usize * usize::from(per_thread);
        Self {
            first,
            threads,
            per_thread,
            state: (0..n).map(|_| AtomicU64::new(UNKNOWN)).collect(),
        }
    }

    fn index(&self, device: u8, thread: u32, page: u8) -> usize {
        let thread = usize::from(device) * self.threads as usize + thread as usize;
        thread * usize::from(self.per_thread) + usize::from(page)
    }

    /// The first block of that page.
    fn block(&self, thread: u32, page: u8) -> u64 {
        let page = self.first + u64::from(thread) * u64::from(self.per_thread) + u64::from(page);
        page * (PAGE / BLOCK) as u64
    }

    /// Takes the page, and returns what is in it. [`None`] if it is in use.
    fn take(&self, index: usize) -> Option<u64> {
        match self.state[index].swap(BUSY, SeqCst) {
            BUSY => None,
            state => Some(state),
        }
    }

    fn give(&self, index: usize, state: u64) {
        self.state[index].store(state, SeqCst);
    }
}

/// The test devices, as descriptors that stay.
pub struct Devices {
    /// To be read and written.
    pub files: Vec<File>,
    /// The first, only to be read.
    pub read_only: File,
}

/// What a request is for.
#[derive(Clone, Copy, Debug)]
enum What {
    Read {
        device: u8,
        block: u64,
        len: usize,
        generation: u64,
        /// An own page, that was taken for it.
        own: Option<usize>,
        how: How,
    },
    Write {
        device: u8,
        block: u64,
        generation: u64,
        own: usize,
        before: u64,
        how: How,
    },
    Nowhere {
        device: u8,
    },
    Sync {
        disk: u8,
        data_only: bool,
    },
    Poll {
        place: u16,
        events: i16,
        counted: bool,
    },
    Noop,
    Bad(Bad),
}

impl What {
    fn is_counted(&self) -> bool {
        match self {
            Self::Read { how, .. } | Self::Write { how, .. } => how.counted,
            Self::Poll { counted, .. } => *counted,
            Self::Nowhere { .. } | Self::Sync { .. } | Self::Noop | Self::Bad(_) => false,
        }
    }

    /// Of the file that is polled.
    fn place(&self) -> Option<u16> {
        match self {
            Self::Poll { place, .. } => Some(*place),
            _ => None,
        }
    }
}

/// Where an entry is. Above this in its state: how often it was used. This one
/// is free.
const FREE: u64 = 0;
/// A thread prepares it.
const PREPARING: u64 = 1;
/// It may be in flight.
const FLYING: u64 = 2;
/// A thread looks at its event.
const HANDLING: u64 = 3;
/// Its context was destroyed; its buffer is watched.
const DEAD: u64 = 4;
/// The same, and its event was seen.
const DEAD_SEEN: u64 = 5;
const PLACE_BITS: u32 = 3;
const USES_MASK: u64 = (1 << 20) - 1;

/// What is known of cancels of an entry's requests.
#[derive(Default)]
struct Cancels {
    /// Calls that may cancel one, or have.
    calls: u32,
    /// Events that say so.
    events: u32,
    /// The use whose event was seen last, and whether that says so.
    seen: (u64, bool),
    /// A use that was cancelled, as a call has said.
    told: u64,
}

impl Cancels {
    /// The event of a use has come.
    fn see(&mut self, uses: u64, cancelled: bool, ending: bool) -> Checked {
        self.seen = (uses, cancelled);
        self.events += u32::from(cancelled);
        if !cancelled && self.told == uses {
            return Err("not cancelled, as a call has said".to_owned());
        }
        if cancelled && self.events > self.calls && !ending {
            return Err("cancelled by nobody, in a context that lives".to_owned());
        }
        Ok(())
    }

    /// A call has said that a use is cancelled.
    fn tell(&mut self, uses: u64) -> Checked {
        self.told = uses;
        if self.seen == (uses, false) {
            return Err("cancelled, but its event has said something else".to_owned());
        }
        Ok(())
    }
}

/// A `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Piece {
    base: u64,
    len: u64,
}

struct Entry {
    state: AtomicU64,
    what: Mutex<What>,
    iocb: UnsafeCell<abi::iocb>,
    vector: UnsafeCell<[Piece; PIECES]>,
    cancels: Mutex<Cancels>,
}

// SAFETY: `iocb` is written to only by who has put the entry to `PREPARING`,
// and the kernel; `vector` only by the former.
unsafe impl Sync for Entry {}

impl Entry {
    fn new() -> Self {
        Self {
            state: AtomicU64::new(FREE),
            what: Mutex::new(What::Bad(Bad::Opcode)),
            iocb: UnsafeCell::default(),
            vector: UnsafeCell::default(),
            cancels: Mutex::default(),
        }
    }

    fn cancels(&self) -> MutexGuard<'_, Cancels> {
        self.cancels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn what(&self) -> What {
        *self.what.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes to another place if it is at `from` in that use.
    fn go(&self, uses: u64, from: u64, to: u64) -> bool {
        self.state
            .compare_exchange(
                uses << PLACE_BITS | from,
                uses << PLACE_BITS | to,
                SeqCst,
                SeqCst,
            )
            .is_ok()
    }

    fn place(&self) -> u64 {
        self.state.load(SeqCst) & ((1 << PLACE_BITS) - 1)
    }
}

/// A request that is ready to be submitted.
pub struct Prepared {
    index: usize,
    uses: u64,
    bad: Option<Bad>,
    /// What goes into the array.
    pointer: u64,
    iocb: abi::iocb,
}

/// The error for a bad request.
pub fn error_of(bad: Bad) -> i32 {
    match bad {
        Bad::Opcode | Bad::Flag | Bad::Reserved | Bad::Position => libc::EINVAL,
        Bad::Descriptor | Bad::ReadOnly => libc::EBADF,
        Bad::Buffer | Bad::Pointer => libc::EFAULT,
    }
}

/// A context.
pub struct Context {
    /// Its file.
    pub file: Arc<OpenFile>,
    handle: AtomicU64,
    /// Bytes of the ring.
    pub ring_size: usize,
    /// Slots of the ring.
    pub ring_nr: u32,
    serial: u32,
    native: bool,
    /// What is in flight may have to be asked for.
    pub polled: bool,
    /// Buffers and devices are registered.
    fixed: bool,
    /// Of one that nobody else knows, for nobody else moves its ring.
    array: Option<Array>,
    /// How many have begun to end it.
    enders: AtomicU32,
    destroyed: AtomicBool,
    entries: Box<[Entry]>,
    buffers: ManuallyDrop<Pages>,
}

/// Bytes that the kernel won't find memory at.
pub const NOWHERE: u64 = 0x200;
/// An address of the kernel's.
const KERNEL: u64 = 0xffff_8000_0000_0000;

/// Registers the pages, and devices from the `first` on.
fn register(
    descriptor: &Descriptor,
    handle: u64,
    buffers: &Pages,
    first: u8,
    devices: &[RawFd],
) -> io::Result<usize> {
    let buffer = abi::raio_buffer {
        addr: buffers.page(0),
        len: buffers.len() as u64,
    };
    let mut arg = abi::raio_register {
        ctx: handle,
        nr: 1,
        array: (&raw const buffer).expose_provenance() as u64,
        ..Default::default()
    };
    // SAFETY: requests use it as they use it by its address.
    unsafe { raw::buffers(descriptor.number, &mut arg) }?;
    arg.first = first.into();
    arg.nr = devices.len() as u32;
    arg.array = devices.as_ptr().expose_provenance() as u64;
    Ok(raw::files(descriptor.number, &mut arg)? as usize)
}

/// A submission array.
struct Array {
    /// Where it begins in the ring.
    offset: usize,
    nr: u32,
    /// Where the next call begins.
    next: AtomicU32,
}

impl Context {
    /// Makes one, by `via` of `file`. If it is `shared`, its ring goes to an
    /// address that no other will ever have.
    ///
    /// # Errors
    ///
    /// Any is a failure of the test. [`None`] if the file was closed.
    pub fn new(
        once: &Once,
        file: &Arc<OpenFile>,
        via: u8,
        size: Size,
        shared: bool,
        devices: &Devices,
    ) -> Checked<Option<Arc<Self>>> {
        let entries = usize::from(size.entries);
        let buffers = Pages::new(entries).map_err(|e| format!("mmap of buffers: {e}"))?;
        let settling = file.settling.read().unwrap_or_else(PoisonError::into_inner);
        let mut handle = 0u64;
        let mut arg = abi::raio_setup {
            nr_events: size.nr_events,
            ctxp: (&raw mut handle).expose_provenance() as u64,
            flags: if size.polled {
                abi::RAIO_SETUP_IOPOLL
            } else {
                0
            },
            nr_buffers: size.native.into(),
            nr_files: if size.native {
                devices.files.len() as u32
            } else {
                0
            },
            sq_nr: if size.native && !shared {
                BATCH as u32
            } else {
                0
            },
            ..Default::default()
        };
        let descriptor = file.via(via);
        // SAFETY: `handle` may be written to.
        if let Err(e) = unsafe { raw::setup(descriptor.number, &mut arg) } {
            if sys::errno(&e) == libc::EBADF && descriptor.is_closed() {
                return Ok(None);
            }
            return Err(format!("setup of {} events: {e}", size.nr_events));
        }
        let ring_size = arg.ring_size as usize;
        if handle == 0 || handle != arg.ctx || arg.ring_nr <= size.nr_events {
            return Err(format!(
                "setup answers {arg:?}, and a handle of {handle:#x}"
            ));
        }
        if shared {
            let to = once.address(ring_size);
            // SAFETY: nobody knows of the ring yet, and nothing is at `to`.
            match unsafe { sys::remap(handle as usize, ring_size, to) } {
                Ok(()) => handle = to as u64,
                Err(_) if file.is_closing() => return Ok(None),
                Err(e) => return Err(format!("mremap of a new ring: {e}")),
            }
        }
        let mut fixed = size.native;
        if fixed {
            let fds: Vec<RawFd> = devices.files.iter().map(File::as_raw_fd).collect();
            match register(descriptor, handle, &buffers, 0, &fds) {
                Ok(n) if n == fds.len() => {}
                Err(_) if descriptor.is_closed() => fixed = false,
                done => return Err(format!("{done:?} were registered")),
            }
        }
        drop(settling);
        Ok(Some(Arc::new(Self {
            file: Arc::clone(file),
            handle: AtomicU64::new(handle),
            ring_size,
            ring_nr: arg.ring_nr,
            serial: once.serial.fetch_add(1, SeqCst),
            native: size.native,
            polled: size.polled,
            fixed,
            array: (arg.sq_nr > 0).then(|| Array {
                offset: arg.sq_offset as usize,
                nr: arg.sq_nr,
                next: AtomicU32::new(0),
            }),
            enders: AtomicU32::new(0),
            destroyed: AtomicBool::new(false),
            entries: (0..entries).map(|_| Entry::new()).collect(),
            buffers: ManuallyDrop::new(buffers),
        })))
    }

    /// The handle.
    pub fn handle(&self) -> u64 {
        self.handle.load(SeqCst)
    }

    /// Whether somebody has begun to end it, or does what makes it unusable
    /// for a while.
    pub fn is_ending(&self) -> bool {
        self.enders.load(SeqCst) > 0 || self.file.is_closing()
    }

    /// Whether somebody else than one caller of [`Self::ends`] ends it.
    pub fn is_ending_elsewhere(&self) -> bool {
        self.enders.load(SeqCst) > 1 || self.file.is_closing()
    }

    /// Whether it is known to have ended.
    pub fn was_destroyed(&self) -> bool {
        self.destroyed.load(SeqCst)
    }

    /// To be called before anything is done that ends it, or may.
    pub fn ends(&self) {
        self.enders.fetch_add(1, SeqCst);
    }

    /// Whether requests can be refused for lack of a slot.
    pub fn may_be_full(&self) -> bool {
        self.entries.len() >= self.ring_nr as usize
    }

    /// How many requests have no event yet. Only when nobody submits.
    pub fn flying(&self) -> usize {
        let flying = |entry: &&Entry| entry.place() == FLYING;
        self.entries.iter().filter(flying).count()
    }

    /// The first request without an event, in words.
    pub fn first_flying(&self) -> String {
        let entry = self.entries.iter().find(|entry| entry.place() == FLYING);
        entry.map_or(String::new(), |entry| format!("{:?}", entry.what()))
    }

    /// Registers its pages anew, and a device by a descriptor that is closed then. What is in flight
    /// keeps what it has begun with.
    ///
    /// # Errors
    ///
    /// Any is a failure of the test.
    pub fn register_again(&self, via: u8, device: u8, counters: &Counters) -> Checked {
        if !self.fixed {
            return Ok(());
        }
        let file = testdev::open_one(device).map_err(|e| format!("open of a device: {e}"))?;
        let descriptor = self.file.via(via);
        let fds = [file.as_raw_fd()];
        match register(descriptor, self.handle(), &self.buffers, device, &fds) {
            Ok(1) => counters.count(Count::Replacements),
            Err(e)
                if sys::errno(&e) == libc::EBADF && descriptor.is_closed()
                    || sys::errno(&e) == libc::EINVAL && self.is_ending() =>
            {
                counters.count(Count::Stale);
            }
            other => return Err(format!("{other:?} were registered anew")),
        }
        Ok(())
    }

    /// Writes requests to the array and says where they begin, if there is one for so many.
    fn share(&self, list: &[Prepared]) -> Option<u32> {
        let array = self.array.as_ref()?;
        let nr = list.len() as u32;
        if nr > array.nr {
            return None;
        }
        let first = array.next.fetch_add(nr, SeqCst) % array.nr;
        for (at, prepared) in (first..).zip(list) {
            let at = self.handle() as usize
                + array.offset
                + (at % array.nr) as usize * size_of::<abi::iocb>();
            // SAFETY: it is in the mapping of the ring, which only its one user moves, and that isn't
            // in a call.
            unsafe {
                ptr::with_exposed_provenance_mut::<abi::iocb>(at).write_volatile(prepared.iocb)
            };
        }
        Some(first)
    }

    /// Moves the ring to another address that no other will have.
    ///
    /// # Errors
    ///
    /// Those of mremap(2).
    pub fn remap(&self, once: &Once) -> io::Result<()> {
        let to = once.address(self.ring_size);
        // SAFETY: who uses the old address uses it in calls only, and there
        // is nothing at `to`.
        unsafe { sys::remap(self.handle() as usize, self.ring_size, to) }?;
        self.handle.store(to as u64, SeqCst);
        Ok(())
    }

    /// Unmaps the ring, or the last page of it.
    ///
    /// # Errors
    ///
    /// Those of munmap(2).
    pub fn unmap(&self, part: bool) -> io::Result<()> {
        let (mut from, mut len) = (self.handle() as usize, self.ring_size);
        if part {
            from += len - PAGE;
            len = PAGE;
        }
        // SAFETY: who uses the ring's address uses it in calls only, and
        // nothing else will be there.
        unsafe { sys::unmap(from, len) }
    }

    /// Prepares as many of `requests` as there are entries for.
    pub fn prepare(
        &self,
        requests: &[Request],
        thread: u32,
        once: &Once,
        devices: &Devices,
        polled: &Polled,
        own: &OwnPages,
    ) -> Vec<Prepared> {
        let mut list = Vec::with_capacity(requests.len());
        // Threads begin in different places, not to be in each other's way.
        let n = self.entries.len();
        let mut entries = (0..n).map(|at| (at + thread as usize * n / 4) % n);
        for request in requests {
            let found = entries.find_map(|index| {
                let entry = &self.entries[index];
                let uses = entry.state.load(SeqCst) >> PLACE_BITS;
                let next = (uses + 1) << PLACE_BITS | PREPARING;
                entry
                    .state
                    .compare_exchange(uses << PLACE_BITS | FREE, next, SeqCst, SeqCst)
                    .is_ok()
                    .then_some((index, uses + 1))
            });
            let Some((index, uses)) = found else {
                break;
            };
            let what = self.describe(*request, thread, once, own);
            list.push(self.fill(index, uses, what, devices, polled));
        }
        list
    }

    /// What a request is for, now. Own pages may be in use: then it is
    /// something simpler.
    fn describe(&self, request: Request, thread: u32, once: &Once, own: &OwnPages) -> What {
        let simple = |device| What::Read {
            device,
            block: u64::from(thread) * 8,
            len: PAGE,
            generation: check::FIRST_GENERATION,
            own: None,
            how: How::PLAIN,
        };
        match request {
            Request::Read {
                device,
                block,
                blocks,
                how,
            } => What::Read {
                device,
                block: block.into(),
                len: usize::from(blocks) * BLOCK,
                generation: check::FIRST_GENERATION,
                own: None,
                how,
            },
            Request::Write { device, page, how } => {
                let index = own.index(device, thread, page);
                match own.take(index) {
                    None => simple(device),
                    Some(before) => What::Write {
                        device,
                        block: own.block(thread, page),
                        generation: once.generation.fetch_add(1, SeqCst),
                        own: index,
                        before,
                        how,
                    },
                }
            }
            Request::ReadBack { device, page, how } => {
                let index = own.index(device, thread, page);
                match own.take(index) {
                    None => simple(device),
                    Some(UNKNOWN) => {
                        own.give(index, UNKNOWN);
                        simple(device)
                    }
                    Some(generation) => What::Read {
                        device,
                        block: own.block(thread, page),
                        len: PAGE,
                        generation,
                        own: Some(index),
                        how,
                    },
                }
            }
            Request::Nowhere { device } => What::Nowhere { device },
            Request::Sync { disk, data_only } => What::Sync { disk, data_only },
            Request::Poll {
                place,
                events,
                counted,
            } => What::Poll {
                place,
                events: match events {
                    Events::In => libc::POLLIN,
                    Events::Out => libc::POLLOUT,
                    Events::Both => libc::POLLIN | libc::POLLOUT,
                },
                counted,
            },
            Request::Noop => What::Noop,
            Request::Bad(bad) => What::Bad(bad),
        }
    }

    fn fill(
        &self,
        index: usize,
        uses: u64,
        what: What,
        devices: &Devices,
        polled: &Polled,
    ) -> Prepared {
        let entry = &self.entries[index];
        *entry.what.lock().unwrap_or_else(PoisonError::into_inner) = what;
        let mut iocb = abi::iocb {
            aio_data: self.data(index, uses),
            aio_lio_opcode: abi::IOCB_CMD_PREAD as u16,
            aio_fildes: devices.files[0].as_raw_fd() as u32,
            aio_buf: self.buffers.page(index),
            aio_nbytes: BLOCK as u64,
            ..Default::default()
        };
        let pointer = entry.iocb.get().expose_provenance() as u64;
        let mut prepared = Prepared {
            index,
            uses,
            bad: None,
            pointer,
            iocb: abi::iocb::default(),
        };
        let descriptor = |device: u8| devices.files[usize::from(device)].as_raw_fd() as u32;
        match what {
            What::Read {
                device,
                block,
                len,
                how,
                ..
            } => {
                self.buffers.fill(index, POISON);
                iocb.aio_fildes = descriptor(device);
                self.fix(device, how, &mut iocb);
                iocb.aio_nbytes = len as u64;
                iocb.aio_offset = (block * BLOCK as u64) as i64;
                self.split(index, how, &mut iocb);
            }
            What::Write {
                device,
                block,
                generation,
                how,
                ..
            } => {
                let mut data = [0; PAGE];
                check::fill(&mut data, device, block, generation);
                self.buffers.put(index, &data);
                iocb.aio_lio_opcode = abi::IOCB_CMD_PWRITE as u16;
                iocb.aio_fildes = descriptor(device);
                self.fix(device, how, &mut iocb);
                iocb.aio_nbytes = PAGE as u64;
                iocb.aio_offset = (block * BLOCK as u64) as i64;
                self.split(index, how, &mut iocb);
            }
            What::Nowhere { device } => {
                iocb.aio_fildes = descriptor(device);
                iocb.aio_buf = NOWHERE;
            }
            What::Sync { disk, data_only } => {
                let opcode = if data_only {
                    abi::IOCB_CMD_FDSYNC
                } else {
                    abi::IOCB_CMD_FSYNC
                };
                iocb = abi::iocb {
                    aio_data: iocb.aio_data,
                    aio_lio_opcode: opcode as u16,
                    aio_fildes: descriptor(disk),
                    ..Default::default()
                };
            }
            What::Poll { place, events, .. } => {
                iocb = abi::iocb {
                    aio_data: iocb.aio_data,
                    aio_lio_opcode: abi::IOCB_CMD_POLL as u16,
                    aio_fildes: polled.number(place) as u32,
                    aio_buf: events as u64,
                    ..Default::default()
                };
            }
            What::Noop => {
                iocb = abi::iocb {
                    aio_data: iocb.aio_data,
                    aio_lio_opcode: abi::IOCB_CMD_NOOP as u16,
                    aio_fildes: iocb.aio_fildes,
                    ..Default::default()
                };
            }
            What::Bad(bad) => {
                prepared.bad = Some(bad);
                match bad {
                    Bad::Opcode => iocb.aio_lio_opcode = 99,
                    Bad::Flag => iocb.aio_flags = 1 << 20,
                    Bad::Reserved => iocb.aio_reserved2 = 1,
                    Bad::Position => iocb.aio_offset = -4096,
                    Bad::Descriptor => iocb.aio_fildes = u32::MAX,
                    Bad::ReadOnly => {
                        iocb.aio_fildes = devices.read_only.as_raw_fd() as u32;
                        iocb.aio_lio_opcode = abi::IOCB_CMD_PWRITE as u16;
                    }
                    Bad::Buffer => iocb.aio_buf = KERNEL,
                    Bad::Pointer if self.native => {
                        iocb.aio_flags |= abi::RAIO_IOCB_FIXED_BUF;
                        iocb.aio_buf = NOWHERE;
                    }
                    Bad::Pointer => prepared.pointer = NOWHERE,
                }
            }
        }
        if what.is_counted() {
            iocb.aio_flags |= abi::IOCB_FLAG_RESFD;
            iocb.aio_resfd = polled.counter(what.place()) as u32;
        }
        prepared.iocb = iocb;
        // SAFETY: the entry is ours: we have put it to `PREPARING`.
        unsafe { entry.iocb.get().write(iocb) };
        // From here on its event may come.
        let done = entry.go(uses, PREPARING, FLYING);
        debug_assert!(done, "nobody else moves what is prepared");
        prepared
    }

    /// What comes back with the event of a request.
    fn data(&self, index: usize, uses: u64) -> u64 {
        u64::from(self.serial) << 32 | (index as u64) << 20 | uses & USES_MASK
    }

    /// Has a transfer use what is registered, the device and for some the buffer, if it is.
    fn fix(&self, device: u8, how: How, iocb: &mut abi::iocb) {
        if self.fixed && how.pieces == 0 {
            iocb.aio_flags |= abi::RAIO_IOCB_FIXED_BUF;
        }
        if self.fixed {
            iocb.aio_flags |= abi::RAIO_IOCB_FIXED_FILE;
            iocb.aio_fildes = device.into();
        }
    }

    /// Makes a transfer one with a vector, if it shall be. A disk takes whole
    /// blocks only.
    fn split(&self, index: usize, how: How, iocb: &mut abi::iocb) {
        let blocks = iocb.aio_nbytes / BLOCK as u64;
        let n = blocks.min(how.pieces.into());
        if n == 0 {
            return;
        }
        let mut vector = [Piece::default(); PIECES];
        for (at, piece) in (0..n).zip(&mut vector) {
            let (from, to) = (blocks * at / n, blocks * (at + 1) / n);
            piece.base = iocb.aio_buf + from * BLOCK as u64;
            piece.len = (to - from) * BLOCK as u64;
        }
        iocb.aio_lio_opcode = if iocb.aio_lio_opcode == abi::IOCB_CMD_PREAD as u16 {
            abi::IOCB_CMD_PREADV
        } else {
            abi::IOCB_CMD_PWRITEV
        } as u16;
        let place = self.entries[index].vector.get();
        iocb.aio_buf = place.expose_provenance() as u64;
        iocb.aio_nbytes = n;
        // SAFETY: the entry is being prepared by us.
        unsafe { place.write(vector) };
    }

    /// Submits what was prepared, by a descriptor of its file, and judges the
    /// answer. Says whether the context could be used.
    ///
    /// # Errors
    ///
    /// Any is a failure of the test.
    pub fn submit(
        &self,
        via: u8,
        list: &[Prepared],
        own: &OwnPages,
        counters: &Counters,
    ) -> Checked<bool> {
        let descriptor = self.file.via(via);
        let result = if self.native {
            let iocbs: Vec<abi::iocb> = list.iter().map(|prepared| prepared.iocb).collect();
            let soon = abi::__kernel_timespec {
                tv_nsec: 200_000,
                ..Default::default()
            };
            let mut arg = abi::raio_enter {
                ctx: self.handle(),
                nr: list.len() as u32,
                iocbs: iocbs.as_ptr().expose_provenance() as u64,
                ..Default::default()
            };
            if let Some(first) = self.share(list) {
                arg.flags = abi::RAIO_ENTER_SQ;
                arg.iocbs = first.into();
                counters.add(Count::Shared, list.len());
            }
            // Which is what follows from the number.
            if list.len() % 4 == 3 {
                arg.min_nr = list.len() as u32;
                arg.timeout = (&raw const soon).expose_provenance() as u64;
                counters.count(Count::Waited);
            }
            // SAFETY: as below.
            unsafe { raw::enter(descriptor.number, &mut arg) }
        } else {
            let pointers: Vec<u64> = list.iter().map(|prepared| prepared.pointer).collect();
            let mut arg = abi::raio_submit {
                ctx: self.handle(),
                nr: list.len() as i64,
                iocbs: pointers.as_ptr().expose_provenance() as u64,
                ..Default::default()
            };
            // SAFETY: the buffers are this context's, which frees them only when
            // it is known to have ended. Nobody uses those of entries in flight.
            unsafe { raw::submit(descriptor.number, &mut arg) }
        };
        let taken = *result.as_ref().unwrap_or(&0) as usize;
        if taken > list.len() {
            return Err(format!("submit has taken {taken} of {}", list.len()));
        }
        for (n, prepared) in list.iter().enumerate() {
            if n >= taken {
                self.refused(prepared, own)?;
            } else if let Some(bad) = prepared.bad {
                return Err(format!(
                    "submit has taken number {n}, which is bad: {bad:?}"
                ));
            }
        }
        counters.add(Count::Taken, taken);
        if self.native {
            counters.add(Count::Entered, taken);
        }
        let fixed = |prepared: &&Prepared| prepared.iocb.aio_flags & abi::RAIO_IOCB_FIXED_BUF != 0;
        counters.add(Count::Fixed, list[..taken].iter().filter(fixed).count());
        let next = list.get(taken);
        match result {
            Ok(_) => {
                let good = next.is_some_and(|next| next.bad.is_none());
                if good && !self.may_be_full() {
                    return Err(format!("submit has taken {taken} of {}", list.len()));
                }
                if next.is_some() {
                    counters.count(Count::Refused);
                }
                Ok(true)
            }
            Err(e) => {
                let errno = sys::errno(&e);
                let bad = next.and_then(|next| next.bad);
                if errno == libc::EBADF && descriptor.is_closed()
                    || errno == libc::EINVAL && self.is_ending()
                {
                    counters.count(Count::Stale);
                    Ok(false)
                } else if bad.is_some_and(|bad| errno == error_of(bad)) {
                    counters.count(Count::Refused);
                    Ok(true)
                } else if errno == libc::EAGAIN && self.may_be_full() {
                    counters.count(Count::Full);
                    Ok(true)
                } else {
                    let n = list.len();
                    Err(format!("submit of {n}, the first is {bad:?}: {e}"))
                }
            }
        }
    }

    /// The request was not taken: there must be no event.
    fn refused(&self, prepared: &Prepared, own: &OwnPages) -> Checked {
        let entry = &self.entries[prepared.index];
        // Its description, before somebody else has the entry.
        let what = entry.what();
        if self.is_at(entry, prepared.uses, DEAD) {
            return Ok(());
        }
        match what {
            // Whoever sees this page free can't have this entry.
            What::Write {
                own: page, before, ..
            } => {
                if entry.go(prepared.uses, FLYING, PREPARING) {
                    own.give(page, before);
                    entry.go(prepared.uses, PREPARING, FREE);
                    return Ok(());
                }
            }
            What::Read {
                own: Some(page),
                generation,
                ..
            } => {
                if entry.go(prepared.uses, FLYING, PREPARING) {
                    own.give(page, generation);
                    entry.go(prepared.uses, PREPARING, FREE);
                    return Ok(());
                }
            }
            _ => {
                if entry.go(prepared.uses, FLYING, FREE) {
                    return Ok(());
                }
            }
        }
        if self.is_at(entry, prepared.uses, DEAD) {
            return Ok(());
        }
        Err(format!(
            "a request was refused, but there was an event for it: {what:?}"
        ))
    }

    fn is_at(&self, entry: &Entry, uses: u64, place: u64) -> bool {
        entry.state.load(SeqCst) == uses << PLACE_BITS | place
    }

    /// Judges an event that was read from this context.
    ///
    /// # Errors
    ///
    /// Any is a failure of the test.
    pub fn event(&self, event: &abi::io_event, own: &OwnPages, counters: &Counters) -> Checked {
        let failed = |what: &str| Err(format!("{what}: {event:x?}"));
        let index = (event.data >> 20 & 0xfff) as usize;
        if event.data >> 32 != u64::from(self.serial) || index >= self.entries.len() {
            return failed("an event that is not of this context");
        }
        let entry = &self.entries[index];
        let obj = match self.native {
            true => event.data,
            false => entry.iocb.get().addr() as u64,
        };
        if event.obj != obj || event.res2 != 0 {
            return failed("an event with wrong fields");
        }
        counters.count(Count::Events);
        let uses = entry.state.load(SeqCst) >> PLACE_BITS;
        if uses & USES_MASK != event.data & USES_MASK {
            return failed("an event of a request that has ended before");
        }
        if entry.go(uses, DEAD, DEAD_SEEN) {
            return Ok(());
        }
        if !entry.go(uses, FLYING, HANDLING) {
            if entry.go(uses, DEAD, DEAD_SEEN) {
                return Ok(());
            }
            return failed("a second event of a request, or one that was not submitted");
        }
        let what = entry.what();
        let cancelled = event.res == -i64::from(libc::ECANCELED);
        entry
            .cancels()
            .see(uses, cancelled, self.is_ending())
            .and_then(|()| self.judge(index, what, event.res, own, counters))
            .map_err(|e| format!("{what:?}: {e}"))?;
        entry.go(uses, HANDLING, FREE);
        Ok(())
    }

    /// Looks at the result of a request and at its data.
    fn judge(
        &self,
        index: usize,
        what: What,
        res: i64,
        own: &OwnPages,
        counters: &Counters,
    ) -> Checked {
        let (device, len) = match what {
            What::Read { device, len, .. } => (device, len),
            What::Write { device, .. } => (device, PAGE),
            What::Nowhere { device } => (device, BLOCK),
            What::Sync { disk, .. } => (disk, 0),
            What::Poll { .. } | What::Noop => (0, 0),
            What::Bad(_) => return Err("it was taken".to_owned()),
        };
        let outcome = match what {
            What::Poll { events, .. } => check::polled(res, events)?,
            _ => check::outcome(res, len, device)?,
        };
        match outcome {
            Outcome::Moved(moved) if moved < len => counters.count(Count::Short),
            Outcome::Moved(_) => {}
            Outcome::Ready => counters.count(Count::Ready),
            Outcome::Failed => counters.count(Count::Failed),
            Outcome::Cancelled => counters.count(Count::Cancelled),
            Outcome::Fault if matches!(what, What::Nowhere { .. }) => {}
            Outcome::Fault => return Err("a fault at a buffer that is there".to_owned()),
        }
        match what {
            What::Read {
                block,
                generation,
                own: page,
                how,
                ..
            } => {
                if let Outcome::Moved(moved) = outcome {
                    let buffer = self.buffers.get(index);
                    check::verify(&buffer[..moved], device, block, generation)?;
                    check::all(&buffer[moved..], POISON)
                        .map_err(|e| format!("behind the {moved} bytes: {e}"))?;
                    counters.count(Count::Verified);
                    if how.pieces > 0 {
                        counters.count(Count::Vectors);
                    }
                } else if !check::is_block(device) {
                    check::all(&self.buffers.get(index)[..], POISON)
                        .map_err(|e| format!("{outcome:?}, but: {e}"))?;
                }
                if let Some(page) = page {
                    own.give(page, generation);
                }
            }
            What::Write {
                generation,
                own: page,
                ..
            } => {
                let written = outcome == Outcome::Moved(len);
                own.give(page, if written { generation } else { UNKNOWN });
            }
            What::Nowhere { .. } => {
                if matches!(outcome, Outcome::Moved(1..)) {
                    return Err("data went nowhere".to_owned());
                }
            }
            What::Sync { .. } if outcome == Outcome::Moved(0) => counters.count(Count::Synced),
            What::Sync { .. } | What::Poll { .. } => {}
            What::Noop if outcome == Outcome::Moved(0) => counters.count(Count::Noops),
            What::Noop => return Err(format!("{outcome:?}")),
            What::Bad(_) => {}
        }
        Ok(())
    }

    /// Cancels the request of an entry, whatever that is just now, and judges
    /// the answer. Says whether it has.
    fn cancel(&self, via: u8, index: usize, counters: &Counters) -> Checked<bool> {
        let entry = &self.entries[index];
        entry.cancels().calls += 1;
        let before = entry.state.load(SeqCst);
        let descriptor = self.file.via(via);
        let mut arg = abi::raio_cancel {
            ctx: self.handle(),
            iocb: match self.native {
                true => self.data(index, before >> PLACE_BITS),
                false => entry.iocb.get().expose_provenance() as u64,
            },
            flags: if self.native {
                abi::RAIO_CANCEL_DATA
            } else {
                0
            },
            ..Default::default()
        };
        let result = raw::cancel(descriptor.number, &mut arg);
        let (what, after) = (entry.what(), entry.state.load(SeqCst));
        let uses = before >> PLACE_BITS;
        let mut cancels = entry.cancels();
        if result.is_err() {
            cancels.calls -= 1;
        }
        // Its event has come, or it wasn't submitted.
        let place = before & ((1 << PLACE_BITS) - 1);
        let idle = before == after && matches!(place, FREE | PREPARING | HANDLING);
        let wrong = |e: &str| format!("cancel of {what:?}, {before:#x}, {after:#x}: {e}");
        match result.as_ref().map_err(sys::errno) {
            Ok(0) if !idle => {
                counters.count(Count::Cancels);
                if uses == after >> PLACE_BITS {
                    match what {
                        What::Poll { .. } => counters.count(Count::PollsCancelled),
                        What::Sync { .. } => counters.count(Count::Withdrawals),
                        _ => {}
                    }
                    cancels.tell(uses).map_err(|e| wrong(&e))?;
                }
                return Ok(true);
            }
            Err(libc::EAGAIN) if !idle => counters.count(Count::CancelsRefused),
            Err(libc::EINVAL) => counters.count(Count::CancelsVain),
            Err(libc::EBADF) if descriptor.is_closed() => counters.count(Count::Stale),
            _ => return Err(wrong(&format!("{result:?}, idle: {idle}"))),
        }
        Ok(false)
    }

    /// Cancels the requests of some entries, one after the other, from the
    /// `first` on, or only such as seem to be in flight.
    ///
    /// # Errors
    ///
    /// Any is a failure of the test.
    pub fn cancel_some(
        &self,
        via: u8,
        first: u8,
        times: u8,
        flying: bool,
        counters: &Counters,
    ) -> Checked {
        let n = self.entries.len();
        (0..n)
            .map(|at| (at + usize::from(first)) % n)
            .filter(|index| !flying || self.entries[*index].place() == FLYING)
            .take(times.into())
            .try_for_each(|index| self.cancel(via, index, counters).map(drop))
    }

    /// Cancels all that is in flight, or all polls, the last first. Says how
    /// many were and how many were not.
    ///
    /// # Errors
    ///
    /// Any is a failure of the test.
    pub fn cancel_all(
        &self,
        via: u8,
        only_polls: bool,
        counters: &Counters,
    ) -> Checked<(usize, usize)> {
        let (mut cancelled, mut others) = (0, 0);
        for index in (0..self.entries.len()).rev() {
            let entry = &self.entries[index];
            let poll = matches!(entry.what(), What::Poll { .. });
            if entry.place() != FLYING || only_polls && !poll {
                continue;
            }
            if self.cancel(via, index, counters)? {
                cancelled += 1;
            } else {
                others += 1;
            }
        }
        Ok((cancelled, others))
    }

    /// All events have come, and nobody else cancels: as many as calls said
    /// must have been cancelled.
    ///
    /// # Errors
    ///
    /// If there weren't.
    pub fn balance(&self) -> Checked {
        for entry in &self.entries {
            let cancels = entry.cancels();
            if cancels.calls != cancels.events {
                return Err(format!(
                    "{} calls have cancelled a request, and {} events say so, the last one of {:?}",
                    cancels.calls,
                    cancels.events,
                    entry.what()
                ));
            }
        }
        Ok(())
    }

    /// Destroys it by one of its file's descriptors. Says whether it did.
    ///
    /// # Errors
    ///
    /// Any is a failure of the test.
    pub fn destroy(&self, via: u8, own: &OwnPages, counters: &Counters) -> Checked<bool> {
        self.ends();
        let descriptor = self.file.via(via);
        let mut arg = abi::raio_destroy {
            ctx: self.handle(),
            ..Default::default()
        };
        // SAFETY: the ring's memory is used in calls only.
        match unsafe { raw::destroy(descriptor.number, &mut arg) } {
            Ok(0) => {
                if self.destroyed.swap(true, SeqCst) {
                    return Err("destroyed for the second time".to_owned());
                }
                counters.count(Count::Destroyed);
                self.ended(own);
                Ok(true)
            }
            Ok(n) => Err(format!("destroy returns {n}")),
            Err(e) => {
                let errno = sys::errno(&e);
                if errno == libc::EBADF && descriptor.is_closed()
                    || errno == libc::EINVAL && self.is_ending_elsewhere()
                {
                    counters.count(Count::NotDestroyed);
                    Ok(false)
                } else {
                    Err(format!("destroy: {e}"))
                }
            }
        }
    }

    /// It is known that all I/O has ended: its buffers are watched from now
    /// on.
    pub fn ended(&self, own: &OwnPages) {
        self.ends();
        self.destroyed.store(true, SeqCst);
        for (index, entry) in self.entries.iter().enumerate() {
            let uses = entry.state.load(SeqCst) >> PLACE_BITS;
            let what = entry.what();
            // What others prepare isn't in flight and won't be.
            if !entry.go(uses, FLYING, DEAD) {
                continue;
            }
            self.buffers.fill(index, CANARY);
            if let What::Write { own: page, .. }
            | What::Read {
                own: Some(page), ..
            } = what
            {
                own.give(page, UNKNOWN);
            }
        }
    }

    /// Whether any buffers are as [`Self::ended`] has left them, or should be.
    pub fn is_watched(&self) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|entry| matches!(entry.place(), DEAD | DEAD_SEEN))
    }

    /// Looks whether the buffers are as [`Self::ended`] has left them.
    ///
    /// # Errors
    ///
    /// If they are not.
    pub fn watch(&self, counters: &Counters) -> Checked {
        for (index, entry) in self.entries.iter().enumerate() {
            if matches!(entry.place(), DEAD | DEAD_SEEN) {
                let what = entry.what();
                check::all(&self.buffers.get(index)[..], CANARY)
                    .map_err(|e| format!("a buffer after the end of its context: {what:?}: {e}"))?;
                counters.count(Count::Canaries);
            }
        }
        Ok(())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.destroyed.load(SeqCst) {
            // SAFETY: it isn't used after this.
            unsafe { ManuallyDrop::drop(&mut self.buffers) }
        }
        // Otherwise nobody knows whether the kernel has done with them: they
        // stay until the process ends.
    }
}
