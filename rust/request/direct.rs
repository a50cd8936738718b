// SPDX-License-Identifier: GPL-2.0

//! Requests on the direct path: transfers between memory and a block device whose file would do no more
//! than send one bio, which is sent from here. No method is called and nothing is allocated; and if memory
//! and file are registered, nothing is counted but per processor. Memory that isn't is pinned until the
//! transfer has ended.
//!
//! Each context has places for them, made as they are first needed, as many as can be in flight, and used
//! again and again. A bio that would have to wait, as for a request of the device, comes back at once: then
//! it becomes an ordinary [request](super) and goes to a worker. A worker also releases memory that was read
//! into and isn't known to be dirty any more, before there is an event.
//!
//! # What ends while it is submitted
//!
//! A device may end what it is given before it returns, above all where requests were held back and are
//! sent together. The thread that submits collects those, without a lock or an atomic operation, and posts
//! their events together. All others are posted one by one, where the device ends them.
//!
//! # Locks
//!
//! `places`, a mutex, to make some, and to look through them. The free ones are a stack: one is pushed by a
//! compare-and-exchange with release order; who submits takes all with acquire order, and gives back what it
//! hasn't used. Nobody pops, so what is on top isn't taken and put back unseen.

use super::{
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
        task,
        work::{
            self,
            HasWork,
            Work, //
        },
    },
    registered::Uses,
    ring::Event,
    stats::Counter,
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
            Relaxed,
            Release, //
        },
        Arc,
        Mutex, //
    },
};

/// So many places are made at once.
const CHUNK: usize = 32;

const LATER: u64 = 0;

/// No result yet: it would have had to wait.
const WOULD_WAIT: i64 = i64::MIN;

/// A word that one writes and others look at, without any order. Not an `Atomic`: each access of one is a call,
/// which is much where all else is inline.
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
/// It is on the stack of free ones, with who has taken that, or in flight. It has a flight from
/// [`Self::start`] until that is taken out by who ends it.
#[repr(C)]
pub(crate) struct Direct {
    bio: Bio,
    /// Of who has it: the next that is free, or was collected.
    next: Cell<*mut Direct>,
    /// The number of its device while it is in flight, 0 otherwise; and its name. For who asks what there is,
    /// at some moment.
    flying: Shown<u32>,
    obj: Shown<u64>,
    data: Cell<u64>,
    result: Cell<i64>,
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
        // SAFETY: It is ours now, and has a flight, whose slot keeps the context.
        unsafe {
            let pool = Self::ctx(this).direct();
            if pool.is_collecting() {
                (*this.as_ptr()).next.set(null_mut());
                pool.collected(this);
                return;
            }
            if Self::has_ended(this) && Self::pins(this).try_release() {
                Self::post(this);
            } else {
                // Not here, for it may have to sleep.
                work::queue::<Self, LATER>(this, &Self::ctx(this).engine().workers);
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
    fn new() -> Self {
        Self {
            bio: Bio::new(),
            next: Cell::new(null_mut()),
            flying: Shown::new(0),
            obj: Shown::new(0),
            data: Cell::new(0),
            result: Cell::new(0),
            pins: UnsafeCell::new(TransferPins::new()),
            flight: UnsafeCell::new(MaybeUninit::uninit()),
            work: Work::new(),
        }
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
    unsafe fn start(
        this: NonNull<Self>,
        device: Device,
        place: Place,
        (obj, data): (u64, u64),
        alone: bool,
        flight: Flight,
    ) {
        let (len, pos, dir, ioprio) = (flight.len, flight.pos, flight.dir, flight.ioprio);
        let hint = match dir {
            Direction::Read => 0,
            Direction::Write => file_io::write_hint(&flight.file),
        };
        // SAFETY: It is ours. What it takes along keeps the memory and the device.
        unsafe {
            let direct = &*this.as_ptr();
            direct.obj.set(obj);
            direct.data.set(data);
            direct.flying.set(device.number());
            // INVARIANT: Here its flight begins.
            (*direct.flight.get()).write(flight);
            let what = Contents {
                place,
                len,
                pos,
                dir,
                ioprio,
                hint,
                alone,
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
    unsafe fn has_ended(this: NonNull<Self>) -> bool {
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
    unsafe fn pins<'a>(this: NonNull<Self>) -> &'a mut TransferPins {
        // SAFETY: As the caller says.
        unsafe { &mut *(*this.as_ptr()).pins.get() }
    }

    /// Ends it, when nothing is pinned any more, and posts its event.
    ///
    /// # Safety
    ///
    /// It must be the caller's, and have a result.
    unsafe fn post(this: NonNull<Self>) {
        // SAFETY: As the caller says. The slot keeps the context, and with that the pool.
        unsafe {
            let flight = Self::end(this);
            let event = Self::event(this);
            let slot = flight.slot;
            drop((flight.file, flight.buffer, flight.identity));
            slot.ctx().direct().push(this);
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
    unsafe fn end_in(this: NonNull<Self>, files: &mut Uses<ARef<File>>) {
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
    unsafe fn event(this: NonNull<Self>) -> Event {
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
    unsafe fn go_on(this: NonNull<Self>) {
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
            let memory = ctx.engine().requests.alloc();
            (*this.as_ptr()).result.set(ENOMEM.to_errno().into());
            let event = Self::event(this);
            let flight = Self::end(this);
            ctx.direct().push(this);
            let Ok(memory) = memory else {
                return flight.slot.post(&event, None);
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
                    request.transfer_later(buffer, dir, pos);
                }
                Err(e) => request.end(e.to_errno().into()),
            }
        }
    }
}

/// The places of a context.
///
/// # Invariants
///
/// `free` and what is next of it are free places. `collected` is only accessed by the task that `collector`
/// says, outside of interrupts.
#[pin_data]
pub(crate) struct Pool {
    free: Atomic<*mut Direct>,
    #[pin]
    places: Mutex<KVec<KVVec<Direct>>>,
    /// How many there may be.
    most: usize,
    /// The task that collects what ends while it submits, if it isn't 0. Relaxed where it isn't changed: who
    /// finds itself there has written it.
    collector: Atomic<usize>,
    collected: UnsafeCell<Collected>,
}

/// What has ended, in that order.
struct Collected {
    /// Something may end now.
    active: bool,
    first: *mut Direct,
    last: *mut Direct,
}

// SAFETY: Places may be had by every thread, and `collected` is only accessed as its invariant says.
unsafe impl Send for Pool {}
// SAFETY: As above.
unsafe impl Sync for Pool {}

impl Pool {
    /// An empty one, for a context that has so `many` requests in flight.
    pub(crate) fn new(many: u32) -> impl PinInit<Self> {
        pin_init!(Self {
            free: Atomic::new(null_mut()),
            places <- new_mutex!(KVec::new(), "raio_direct"),
            most: many as usize,
            collector: Atomic::new(0),
            collected: UnsafeCell::new(Collected {
                active: false,
                first: null_mut(),
                last: null_mut(),
            }),
        })
    }

    /// Is it what the running task does that ends something, and does that collect?
    #[inline]
    fn is_collecting(&self) -> bool {
        let collector = self.collector.load(Relaxed);
        // SAFETY: We are that task.
        task::runs(collector) && unsafe { (*self.collected.get()).active }
    }

    /// # Safety
    ///
    /// It must be collecting, and `this` be the caller's.
    #[inline]
    unsafe fn collected(&self, this: NonNull<Direct>) {
        // SAFETY: As the caller says.
        unsafe {
            let collected = &mut *self.collected.get();
            match NonNull::new(collected.last) {
                Some(last) => last.as_ref().next.set(this.as_ptr()),
                None => collected.first = this.as_ptr(),
            }
            collected.last = this.as_ptr();
        }
    }

    /// Gives a place back. Any context.
    ///
    /// # Safety
    ///
    /// It must be one of these, without a flight, and the caller's.
    unsafe fn push(&self, this: NonNull<Direct>) {
        // SAFETY: It is ours until it is on the stack.
        unsafe { self.push_all(this, this) }
    }

    /// # Safety
    ///
    /// As for [`Self::push`], for all from `first` to `last`.
    unsafe fn push_all(&self, first: NonNull<Direct>, last: NonNull<Direct>) {
        // Relaxed: to be compared with, and to be passed on.
        let mut top = self.free.load(Relaxed);
        loop {
            // SAFETY: It is ours until it is on the stack.
            unsafe { last.as_ref() }.next.set(top);
            // Release: pairs with the load-acquire of who takes it.
            match self.free.cmpxchg(top, first.as_ptr(), Release) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Makes some more. The first of them; null if there are as many as there may be.
    #[cold]
    fn grow(&self) -> Result<*mut Direct> {
        let mut places = self.places.lock();
        let many = places.len() * CHUNK;
        if many >= self.most {
            return Ok(null_mut());
        }
        let n = CHUNK.min(self.most - many);
        let mut chunk = KVVec::with_capacity(n, GFP_KERNEL_ACCOUNT)?;
        let mut first = null_mut();
        for _ in 0..n {
            // The capacity is there already, so they aren't moved any more.
            chunk.push(Direct::new(), GFP_KERNEL_ACCOUNT)?;
        }
        for direct in &chunk {
            direct.next.set(first);
            first = (&raw const *direct).cast_mut();
        }
        places.push(chunk, GFP_KERNEL_ACCOUNT)?;
        Ok(first)
    }

    /// Those in flight: how many, and the number of a device that has one. Process context.
    pub(crate) fn flying(&self) -> (usize, u32) {
        let places = self.places.lock();
        let all = places.iter().flatten();
        let devices = all.map(|direct| direct.flying.get());
        let flying = devices.filter(|device| *device != 0);
        flying.fold((0, 0), |(n, _), device| (n + 1, device))
    }

    /// Is one of them of that name? Process context.
    pub(crate) fn has(&self, obj: u64) -> bool {
        let places = self.places.lock();
        let mut all = places.iter().flatten();
        all.any(|direct| direct.flying.get() != 0 && direct.obj.get() == obj)
    }
}

/// The places that who submits has taken, and what it collects. What is left goes back on drop.
///
/// # Invariants
///
/// `free` and what is next of it are free places of `ctx`, and ours. If `collects`, we are its pool's
/// collector.
pub(crate) struct Submitter<'a> {
    ctx: &'a Kioctx,
    free: *mut Direct,
    collects: bool,
    started: u64,
    ioprio: u16,
}

impl<'a> Submitter<'a> {
    pub(crate) fn new(ctx: &'a Kioctx) -> Self {
        let pool = ctx.direct();
        // INVARIANT: What is taken is ours; so it is to collect, if nobody else does.
        Self {
            ctx,
            // Acquire: pairs with the release of `push_all`.
            free: pool.free.xchg(null_mut(), Acquire),
            // Acquire: pairs with the release of who did before.
            collects: pool.collector.cmpxchg(0, task::id(), Acquire).is_ok(),
            started: 0,
            ioprio: file_io::current_ioprio(),
        }
    }

    /// Is there a free place for one more, or can there be? `ENOMEM`.
    #[inline(always)]
    pub(crate) fn has_place(&mut self) -> Result<bool> {
        if self.free.is_null() {
            self.free = self.ctx.direct().grow()?;
        }
        Ok(!self.free.is_null())
    }

    /// Runs `f`, by which requests may end, which are collected then.
    #[inline(always)]
    pub(crate) fn collecting<R>(&self, f: impl FnOnce() -> R) -> R {
        self.collects_now(true);
        let ret = f();
        self.collects_now(false);
        ret
    }

    #[inline(always)]
    fn collects_now(&self, active: bool) {
        if self.collects {
            // SAFETY: We are the collector.
            unsafe { (*self.ctx.direct().collected.get()).active = active }
        }
    }

    /// The I/O priority of the caller.
    #[inline]
    pub(crate) fn ioprio(&self) -> u16 {
        self.ioprio
    }

    /// Pins the memory of the next request, which isn't registered; [`None`] if it can't be. There must be a place
    /// for it, and nothing may keep it from being started then.
    #[inline]
    pub(crate) fn pin(&mut self, addr: usize, len: usize, dir: Direction) -> Option<Place> {
        let this = NonNull::new(self.free)?;
        // SAFETY: It is free, and ours.
        let pins = unsafe { Direct::pins(this) };
        let place = pins.pin(addr, len, dir)?;
        pins.dirty();
        Some(place)
    }

    /// Starts a request of that name, and those data, for which there must be a place. `place` must be where the memory of its
    /// flight is, and `device` that of its file, which takes the transfer; `alone` is as [`Contents`] has it.
    #[inline(always)]
    pub(crate) fn start(
        &mut self,
        device: Device,
        place: Place,
        name: (u64, u64),
        alone: bool,
        flight: Flight,
    ) {
        let Some(this) = NonNull::new(self.free) else {
            return;
        };
        // SAFETY: It is free, and ours.
        self.free = unsafe { this.as_ref() }.next.get();
        self.started += 1;
        self.collects_now(true);
        // SAFETY: It was free, and is ours.
        unsafe { Direct::start(this, device, place, name, alone, flight) };
        self.collects_now(false);
    }

    /// Posts the events of what was collected.
    fn deliver(&mut self) {
        // SAFETY: We are the collector.
        let collected = unsafe { &mut *self.ctx.direct().collected.get() };
        let mut next = core::mem::replace(&mut collected.first, null_mut());
        collected.last = null_mut();
        let (mut ended, mut last) = (null_mut::<Direct>(), null_mut::<Direct>());
        let mut waits = null_mut::<Direct>();
        let mut n = 0;
        let mut files = Uses::none();
        while let Some(this) = NonNull::new(next) {
            // SAFETY: It is ours, and its bio has ended.
            unsafe {
                next = this.as_ref().next.get();
                // What can be released of the latter is a request that would have had to wait.
                if !Direct::has_ended(this) || !Direct::pins(this).try_release() {
                    this.as_ref().next.set(waits);
                    waits = this.as_ptr();
                    continue;
                }
                Direct::end_in(this, &mut files);
                n += 1;
                match NonNull::new(last) {
                    Some(last) => last.as_ref().next.set(this.as_ptr()),
                    None => ended = this.as_ptr(),
                }
                last = this.as_ptr();
            }
        }
        // Who sees an event may rely on its request no longer using the file.
        drop(files);
        if let Some(last) = NonNull::new(last) {
            // SAFETY: It is ours.
            unsafe { last.as_ref() }.next.set(null_mut());
            let mut at = ended;
            // SAFETY: `n` slots were forgotten, of as many events. All are ours.
            unsafe {
                self.ctx.post_all(
                    n,
                    core::iter::from_fn(|| {
                        let this = NonNull::new(at)?;
                        at = this.as_ref().next.get();
                        Some(Direct::event(this))
                    }),
                );
                last.as_ref().next.set(self.free);
            }
            self.free = ended;
            Counter::Early.add(n as u64);
        }
        while let Some(this) = NonNull::new(waits) {
            // SAFETY: As above.
            unsafe {
                waits = this.as_ref().next.get();
                if Direct::pins(this).try_release() {
                    Direct::again(this);
                } else {
                    // Not here, for who submits doesn't sleep.
                    work::queue::<Direct, LATER>(this, &self.ctx.engine().workers);
                }
            }
        }
    }
}

impl Drop for Submitter<'_> {
    fn drop(&mut self) {
        let pool = self.ctx.direct();
        if self.collects {
            self.deliver();
            // Release: who collects next sees that nothing is left.
            pool.collector.store(0, Release);
        }
        if self.started > 0 {
            Counter::Direct.add(self.started);
        }
        let Some(first) = NonNull::new(self.free) else {
            return;
        };
        // Release: pairs with the load-acquire of who takes them.
        if pool
            .free
            .cmpxchg(null_mut(), first.as_ptr(), Release)
            .is_ok()
        {
            return;
        }
        let mut last = first;
        // SAFETY: They are free, and ours.
        unsafe {
            while let Some(next) = NonNull::new(last.as_ref().next.get()) {
                last = next;
            }
            pool.push_all(first, last);
        }
    }
}
