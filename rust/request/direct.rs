// SPDX-License-Identifier: GPL-2.0

//! Requests on the direct path: transfers between memory and a block device whose file would do no more
//! than send one bio, which is sent from here. No method is called and nothing is allocated; and if memory
//! and file are registered, nothing is counted but per processor. Memory that isn't is pinned until the
//! transfer has ended.
//!
//! Of one that is [polled for](super::iopoll) it is only marked when its bio has ended; who polls sees to the rest.
//!
//! Each context has places for them, made as they are first needed, and used again and again. A bio that
//! would have to wait, as for a request of the device, comes back at once: then it becomes an ordinary
//! [request](super) and goes to a worker. A worker also releases memory that was read into and isn't known to
//! be dirty any more, before there is an event.
//!
//! # Locks
//!
//! That of [`Places`], a mutex, to make some, and to look through them.

use super::{
    iopoll::Polled,
    stack::{
        Stack,
        Stacked, //
    },
    stock::Memory,
    FileRef,
    Parts,
    Prepared, //
};
use crate::{
    context::{
        Buffer,
        Kioctx,
        Slot, //
    },
    kernel_ext::{
        bio::{
            Bio,
            Contents,
            Device,
            HasBio,
            Outcome, //
        },
        file_io::{
            self,
            Direction,
            Transfer,
            UserBuffer, //
        },
        identity::Identity,
        pinned::{
            Place,
            TransferPins, //
        },
        work::{
            self,
            HasWork,
            Work, //
        },
    },
    registered::Uses,
    ring::Event,
};
use core::{
    cell::{
        Cell,
        UnsafeCell, //
    },
    mem::{
        offset_of,
        MaybeUninit, //
    },
    ptr::{
        null_mut,
        NonNull, //
    },
};
use kernel::{
    fs::File,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        Arc,
        Mutex, //
    },
};

/// So many places are made at once.
const CHUNK: usize = 32;

pub(super) const LATER: u64 = 0;

/// No result yet: it would have had to wait.
const WOULD_WAIT: i64 = i64::MIN;

/// A word that one writes and others look at, without any order. Not an `Atomic`: in most kernels each access of
/// one is a call, which is much where all else is inline.
struct Shown<T>(UnsafeCell<T>);

impl<T: Copy> Shown<T> {
    fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    #[inline]
    fn set(&self, value: T) {
        // SAFETY: Only who has the place writes to it; whoever reads it does as `get`. As `WRITE_ONCE()`.
        unsafe { self.0.get().write_volatile(value) }
    }

    #[inline]
    fn get(&self) -> T {
        // SAFETY: As above. As `READ_ONCE()`.
        unsafe { self.0.get().read_volatile() }
    }
}

/// A place for a request.
///
/// # Invariants
///
/// It is on the stack of free ones, with who has taken that or makes it, or in flight. It has a flight from
/// [`Self::start`] until that is taken out by who ends it.
#[repr(C)]
pub(crate) struct Direct {
    bio: Bio,
    /// Of who has it: the next that is free, or was collected.
    pub(super) next: Cell<*mut Direct>,
    /// The number of its device while it is in flight, 0 otherwise; and its name. For who asks what there is,
    /// at some moment.
    flying: Shown<u32>,
    obj: Shown<u64>,
    data: Cell<u64>,
    result: Cell<i64>,
    /// Who polls for it ends it, when its bio is `over`.
    polled: Cell<bool>,
    over: Atomic<u32>,
    /// What isn't registered of its memory.
    pins: UnsafeCell<TransferPins>,
    flight: UnsafeCell<MaybeUninit<Flight>>,
    work: Work,
}

// SAFETY: Whoever has it may be any thread.
unsafe impl Send for Direct {}

/// What a request takes along: `len` bytes at `addr`, in `buffer` if that is registered, to or from `pos` of
/// `file`.
pub(crate) struct Flight {
    pub(crate) slot: Slot,
    pub(crate) file: FileRef,
    pub(crate) buffer: Option<Buffer>,
    pub(crate) identity: Option<Arc<Identity>>,
    pub(crate) addr: usize,
    pub(crate) len: usize,
    pub(crate) pos: i64,
    pub(crate) dir: Direction,
    pub(crate) ioprio: u16,
}

// SAFETY: The offset of a field of that type.
unsafe impl HasBio for Direct {
    const OFFSET: usize = offset_of!(Self, bio);

    #[inline]
    unsafe fn ended(this: NonNull<Self>) {
        // SAFETY: It is alive, and polled for or not since before it was sent.
        if unsafe { (*this.as_ptr()).polled.get() } {
            // SAFETY: As above. It may be gone as soon as that is written.
            // Release: pairs with `is_over`, and with `raio_iopoll_bio`.
            return unsafe { (*this.as_ptr()).over.store(1, Release) };
        }
        // SAFETY: It is ours now, and has a flight, whose slot keeps the context.
        unsafe {
            if Self::ctx(this).cache().collect(this) {
                return;
            }
            if Self::has_ended(this) && Self::pins(this).try_release() {
                Self::post(this);
            } else {
                // Not here, for it may have to sleep.
                work::queue::<Self, LATER>(this, &Self::ctx(this).engine().later);
            }
        }
    }
}

// SAFETY: The offset of a field of that type.
unsafe impl HasWork<LATER> for Direct {
    const OFFSET: usize = offset_of!(Self, work);

    unsafe fn run(this: NonNull<Self>) {
        // SAFETY: It was handed over.
        unsafe { Self::go_on(this) }
    }
}

impl Direct {
    /// A free one. In place, for to move it costs more than to make it.
    fn new() -> impl Init<Self> {
        init!(Self {
            bio: Bio::new(),
            next: Cell::new(null_mut()),
            flying: Shown::new(0),
            obj: Shown::new(0),
            data: Cell::new(0),
            result: Cell::new(0),
            polled: Cell::new(false),
            over: Atomic::new(0),
            pins: UnsafeCell::new(TransferPins::new()),
            flight: UnsafeCell::new(MaybeUninit::uninit()),
            work: Work::new(),
        })
    }

    /// # Safety
    ///
    /// It must have a flight, and the caller not use the result when that may have been taken out.
    unsafe fn ctx<'a>(this: NonNull<Self>) -> &'a Kioctx {
        // SAFETY: As the caller says. The slot keeps the context.
        unsafe {
            (*(*this.as_ptr()).flight.get())
                .assume_init_ref()
                .slot
                .ctx()
        }
    }

    /// Sends it. It may be over before this returns.
    ///
    /// # Safety
    ///
    /// `this` must be free, and the caller's; `place` the memory of the flight, `device` that of its file,
    /// which takes the transfer.
    #[inline(always)]
    pub(super) unsafe fn start(
        this: NonNull<Self>,
        device: Device,
        place: Place,
        (obj, data): (u64, u64),
        (alone, polled): (bool, bool),
        flight: Flight,
    ) {
        let Flight {
            slot,
            file,
            buffer,
            identity,
            addr,
            len,
            pos,
            dir,
            ioprio,
        } = flight;
        let hint = match dir {
            Direction::Read => 0,
            Direction::Write => file_io::write_hint(&file),
        };
        // SAFETY: It is ours. What it takes along keeps the memory and the device.
        unsafe {
            // Without order: nobody else has it.
            *(*this.as_ptr()).over.get_mut() = 0;
            let direct = &*this.as_ptr();
            direct.obj.set(obj);
            direct.data.set(data);
            direct.polled.set(polled);
            direct.flying.set(device.number());
            // INVARIANT: Here its flight begins.
            // One by one, so that all of it isn't made elsewhere and moved.
            let at = (*direct.flight.get()).as_mut_ptr();
            (&raw mut (*at).slot).write(slot);
            (&raw mut (*at).file).write(file);
            (&raw mut (*at).buffer).write(buffer);
            (&raw mut (*at).identity).write(identity);
            (&raw mut (*at).addr).write(addr);
            (&raw mut (*at).len).write(len);
            (&raw mut (*at).pos).write(pos);
            (&raw mut (*at).dir).write(dir);
            (&raw mut (*at).ioprio).write(ioprio);
            let what = Contents {
                place,
                len,
                pos,
                dir,
                ioprio,
                hint,
                alone,
                polled,
            };
            Bio::send(this, device, what);
        }
    }

    /// Decides its result; false if it would have had to wait.
    ///
    /// # Safety
    ///
    /// It must be the caller's, after its bio has ended, for the first time.
    #[inline]
    pub(super) unsafe fn has_ended(this: NonNull<Self>) -> bool {
        // SAFETY: As the caller says, so it has a flight.
        unsafe {
            let direct = &*this.as_ptr();
            let result = match direct.bio.outcome() {
                Outcome::Done => (*direct.flight.get()).assume_init_ref().len as i64,
                Outcome::Failed(e) => e.to_errno().into(),
                Outcome::WouldWait => WOULD_WAIT,
            };
            direct.result.set(result);
            result != WOULD_WAIT
        }
    }

    /// What is pinned for it.
    ///
    /// # Safety
    ///
    /// It must be the caller's, and the result not be used when it isn't any more.
    #[inline]
    pub(super) unsafe fn pins<'a>(this: NonNull<Self>) -> &'a mut TransferPins {
        // SAFETY: As the caller says.
        unsafe { &mut *(*this.as_ptr()).pins.get() }
    }

    /// Ends it, when nothing is pinned any more, and posts its event.
    ///
    /// # Safety
    ///
    /// It must be the caller's, and have a result.
    unsafe fn post(this: NonNull<Self>) {
        // SAFETY: As the caller says. The slot keeps the context, and with that its places.
        unsafe {
            let flight = Self::end(this);
            let event = Self::event(this);
            let slot = flight.slot;
            drop((flight.file, flight.buffer, flight.identity));
            slot.ctx().cache().places.free.push(this);
            slot.post(&event, None);
        }
    }

    /// Ends its flight.
    ///
    /// # Safety
    ///
    /// It must be the caller's, after its bio has ended.
    #[inline]
    unsafe fn end(this: NonNull<Self>) -> Flight {
        // SAFETY: As the caller says.
        unsafe {
            let direct = &*this.as_ptr();
            direct.flying.set(0);
            // INVARIANT: Here its flight ends.
            (*direct.flight.get()).assume_init_read()
        }
    }

    /// Ends its flight; its slot is forgotten, and the use of a registered file added to `files`.
    ///
    /// # Safety
    ///
    /// As for [`Self::end`].
    #[inline(always)]
    pub(super) unsafe fn end_in(this: NonNull<Self>, files: &mut Uses<ARef<File>>) {
        // SAFETY: As the caller says. Each is read once.
        unsafe {
            let direct = &*this.as_ptr();
            direct.flying.set(0);
            // INVARIANT: Here its flight ends.
            let flight = (*direct.flight.get()).as_mut_ptr();
            match (&raw const (*flight).file).read() {
                FileRef::Registered(file) => files.add(file),
                FileRef::Own(file) => drop(file),
            }
            drop((&raw const (*flight).buffer).read());
            drop((&raw const (*flight).identity).read());
        }
    }

    /// Its event, when there is a result.
    ///
    /// # Safety
    ///
    /// It must be the caller's.
    #[inline]
    pub(super) unsafe fn event(this: NonNull<Self>) -> Event {
        // SAFETY: As the caller says.
        let direct = unsafe { &*this.as_ptr() };
        Event {
            data: direct.data.get(),
            obj: direct.obj.get(),
            res: direct.result.get(),
            res2: 0,
        }
    }

    /// Goes on with what ended where nobody may sleep, in process context.
    ///
    /// # Safety
    ///
    /// It must be the caller's, after [`Self::has_ended`].
    #[cold]
    pub(super) unsafe fn go_on(this: NonNull<Self>) {
        // SAFETY: As the caller says.
        unsafe {
            Self::pins(this).release();
            if (*this.as_ptr()).result.get() == WOULD_WAIT {
                Self::again(this);
            } else {
                Self::post(this);
            }
        }
    }

    /// Makes an ordinary request of one that would have had to wait, and has a worker carry that out.
    /// Process context.
    ///
    /// # Safety
    ///
    /// It must be the caller's, after its bio has ended, with nothing pinned.
    unsafe fn again(this: NonNull<Self>) {
        // SAFETY: As the caller says.
        unsafe {
            let ctx = Self::ctx(this);
            let memory = Memory::alone(ctx);
            (*this.as_ptr()).result.set(ENOMEM.to_errno().into());
            let event = Self::event(this);
            let flight = Self::end(this);
            ctx.cache().places.free.push(this);
            let Ok(memory) = memory else {
                // The slot goes last, for it keeps the context.
                let slot = flight.slot;
                drop((flight.file, flight.buffer, flight.identity));
                return slot.post(&event, None);
            };
            let Flight {
                slot,
                file,
                buffer,
                identity,
                addr,
                len,
                pos,
                dir,
                ioprio,
            } = flight;
            let memory_of_it = match &buffer {
                Some(buffer) => buffer
                    .place(addr, len)
                    .map(|place| UserBuffer::pinned(place, len, dir)),
                None => UserBuffer::new(addr, len, dir),
            };
            let mut request = Prepared::in_memory(
                memory,
                Parts {
                    slot,
                    file,
                    buffer,
                    eventfd: None,
                    identity,
                    polled: false,
                    plain: None,
                    obj: event.obj,
                    data: event.data,
                },
            );
            let prepared = request.prepare(&Transfer {
                dir,
                pos,
                rw_flags: 0,
                ioprio: None,
                eventfd: false,
            });
            match prepared.and(memory_of_it) {
                Ok(buffer) => {
                    request.set_ioprio(ioprio);
                    request.transfer_later(buffer, dir, pos).hand_over();
                }
                Err(e) => request.end(e.to_errno().into()).hand_over(),
            }
        }
    }
}

impl Polled for Direct {
    unsafe fn is_over(this: NonNull<Self>) -> bool {
        // SAFETY: It is alive.
        // Acquire: pairs with `ended`.
        unsafe { (*this.as_ptr()).over.load(Acquire) != 0 }
    }

    unsafe fn ask(this: NonNull<Self>) -> bool {
        // A device that is gone can't be asked any more.
        // SAFETY: It was sent, and isn't used again before it is taken out. `ended` sets `over`.
        unsafe { Self::is_over(this) || (*this.as_ptr()).bio.ask(&(*this.as_ptr()).over) }
    }
}

impl Stacked for Direct {
    unsafe fn below<'a>(this: NonNull<Self>) -> &'a Cell<*mut Self> {
        // SAFETY: Alive, as the caller says.
        unsafe { &(*this.as_ptr()).next }
    }
}

/// The places of a context.
#[pin_data]
pub(super) struct Places {
    pub(super) free: Stack<Direct>,
    #[pin]
    all: Mutex<KVec<KVVec<Direct>>>,
    /// How many there may be.
    most: usize,
}

impl Places {
    /// None, of so many as there may be.
    pub(super) fn new(most: usize) -> impl PinInit<Self> {
        pin_init!(Self {
            free: Stack::new(),
            all <- new_mutex!(KVec::new(), "raio_direct"),
            most,
        })
    }

    /// The free ones, or some more; null if all there may be are in use. `ENOMEM`.
    #[cold]
    pub(super) fn more(&self) -> Result<*mut Direct> {
        let free = self.free.take_all();
        if !free.is_null() {
            return Ok(free);
        }
        let mut all = self.all.lock();
        let many = all.len() * CHUNK;
        if many >= self.most {
            return Ok(null_mut());
        }
        let n = CHUNK.min(self.most - many);
        let mut chunk = KVVec::with_capacity(n, GFP_KERNEL_ACCOUNT)?;
        let mut first = null_mut();
        for place in chunk.spare_capacity_mut().iter_mut().take(n) {
            // SAFETY: Memory for one, which isn't moved any more: the vector doesn't grow.
            let Ok(()) = unsafe { Direct::new().__init(place.as_mut_ptr()) };
            // SAFETY: It was just made.
            unsafe { place.assume_init_ref() }.next.set(first);
            first = place.as_mut_ptr();
        }
        // SAFETY: So many were made.
        unsafe { chunk.inc_len(n) };
        all.push(chunk, GFP_KERNEL_ACCOUNT)?;
        Ok(first)
    }

    /// Those in flight: how many, and the number of a device that has one. Process context.
    pub(super) fn flying(&self) -> (usize, u32) {
        let places = self.all.lock();
        let all = places.iter().flatten();
        let devices = all.map(|direct| direct.flying.get());
        let flying = devices.filter(|device| *device != 0);
        flying.fold((0, 0), |(n, _), device| (n + 1, device))
    }

    /// Is one of them of that name? Process context.
    pub(super) fn has(&self, obj: u64) -> bool {
        let places = self.all.lock();
        let mut all = places.iter().flatten();
        all.any(|direct| direct.flying.get() != 0 && direct.obj.get() == obj)
    }
}
