// SPDX-License-Identifier: GPL-2.0

//! Requests (kiocb): what one is in each stage of its life, and who owns it then.
//!
//! ```text
//! Prepared ── start ──> Submitted: the file's method has it ──> Own ──> its event is in the ring
//!     └── dropped: refused, no event
//! ```
//!
//! A file may complete a request before its method has returned, and go on using it until it does.
//! So both the submitter and the completion have it, and whoever is done later sees to its end, see
//! [`handover`]: that is a reference, and who cancels a request and a worker that has it have one more meanwhile.
//! Whoever gives up the last ends it. Nobody else touches it, and the result is decided in one place:
//! [`Request::complete`], or where the method returned it to the submitter. Who polls for a request is its submitter
//! from then on.
//!
//! The completion is of whoever has the request: one that would have to wait is parked, see
//! [`retry`], waits for its file to be ready, see [`watching`], or is a worker's, see [`workers`].
//! That one has the file's half of it.
//!
//! # Locks
//!
//! That of [`inflight`] while a request is in flight. `refs` is where those who have references meet:
//!
//! | who | does | partner |
//! |---|---|---|
//! | each | its last access, then subtracts (full) | the others' load-acquire or subtraction |
//!
//! Who sees no other was last. To look first saves the subtraction in the usual cases.

mod deliver;
pub(crate) mod direct;
mod handover;
mod inflight;
pub(crate) mod iopoll;
mod ownership;
mod retry;
mod stack;
mod stock;
pub(crate) mod submitter;
mod watching;
pub(crate) mod workers;

use crate::{
    bindings,
    context::{
        Batch,
        Buffer,
        Kioctx,
        RegisteredFile,
        Slot, //
    },
    kernel_ext::{
        eventfd::EventFd,
        file_io::{
            Complete,
            Kiocb,
            Plain,
            Transfer, //
        },
        file_poll::Watch,
        identity::Identity,
        page_wait::PageWait,
        work::Work, //
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
        forget,
        MaybeUninit, //
    },
    ops::{
        Deref,
        DerefMut, //
    },
    ptr::{
        self,
        null_mut,
        NonNull, //
    },
};
use kernel::{
    ffi,
    fs::File,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed, //
        },
        Arc, //
    },
};

use inflight::{
    CancelFn,
    Entry, //
};

use handover::Handover;
use iopoll::Polled;
use ownership::Ownership;
use retry::Retry;
use stock::Memory;
use workers::Turn;

pub(crate) use inflight::Inflight;
pub(crate) use workers::Workers;

/// A request.
///
/// # Invariants
///
/// * `kiocb` is the first field, and its file is `file`.
/// * `result` is written by the completion only, before `handover` knows that, and read by who ends the
///   request only.
/// * `refs` counts who sees to its end, those who cancel it, and a worker that has it.
/// * `next` is whoever's that has it to himself: the submitter's, or who polls's for it, until it is handed over.
/// * `stocked` says whether its memory is counted by the stock of its context.
#[repr(C)]
pub(crate) struct Request {
    kiocb: Kiocb,
    file: FileRef,
    /// What its transfer is about, if that is registered.
    buffer: Option<Buffer>,
    eventfd: Option<EventFd>,
    slot: Slot,
    obj: u64,
    data: u64,
    result: UnsafeCell<i64>,
    handover: Handover,
    refs: Atomic<u32>,
    polled: Atomic<u32>,
    next: Cell<*mut Request>,
    stocked: bool,
    course: Course,
    entry: UnsafeCell<Entry>,
    turn: UnsafeCell<Turn>,
    /// Of a read or a write.
    retry: UnsafeCell<Option<Retry>>,
    page: PageWait,
    ownership: Ownership,
    /// Of one that watches its file. Nothing is left in it when that has ended.
    watch: UnsafeCell<MaybeUninit<Watch<Request>>>,
    work: Work,
    /// Of who has submitted it, if that isn't the context's.
    identity: Option<Arc<Identity>>,
    /// Whether the file system is kept from being frozen: from an attempt to its end.
    writing: bool,
}

/// What a request did when it was started. Of its submitter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Course {
    /// It has ended, if it was started.
    Straight,
    /// Its file went on with it by itself.
    WentOn,
    /// The same, and that may take any time.
    Waits,
}

/// The file of a request.
pub(crate) enum FileRef {
    Own(ARef<File>),
    Registered(RegisteredFile),
}

impl Deref for FileRef {
    type Target = File;

    #[inline]
    fn deref(&self) -> &File {
        match self {
            Self::Own(file) => file,
            Self::Registered(file) => file,
        }
    }
}

/// What a request is made of.
pub(crate) struct Parts {
    pub(crate) slot: Slot,
    pub(crate) file: FileRef,
    /// What it is about, if that is registered.
    pub(crate) buffer: Option<Buffer>,
    /// Counts its event.
    pub(crate) eventfd: Option<EventFd>,
    /// Of who submits it, if that isn't the context's.
    pub(crate) identity: Option<Arc<Identity>>,
    /// Its end is to be asked for, if it is a transfer.
    pub(crate) polled: bool,
    /// Where it is made, if it is one that asks for nothing besides; then nothing has to be prepared.
    pub(crate) plain: Option<Plain>,
    /// What its event will carry.
    pub(crate) obj: u64,
    pub(crate) data: u64,
}

/// A request that no file's method has seen. If it is dropped, it was refused.
pub(crate) struct Prepared(Own);

impl Prepared {
    /// A request of those parts.
    #[inline(always)]
    fn in_memory(memory: Memory, parts: Parts) -> Self {
        let (at, stocked) = memory.into_raw();
        let kiocb = match &parts.plain {
            // SAFETY: The file goes into the request.
            Some(plain) => unsafe {
                Kiocb::plain(&parts.file, plain, parts.polled, Request::completed)
            },
            None => Kiocb::new(parts.polled),
        };
        // SAFETY: It is memory for a request, and ours.
        unsafe {
            at.write(Request {
                kiocb,
                file: parts.file,
                buffer: parts.buffer,
                eventfd: parts.eventfd,
                slot: parts.slot,
                obj: parts.obj,
                data: parts.data,
                result: UnsafeCell::new(0),
                handover: Handover::new(),
                refs: Atomic::new(1),
                polled: Atomic::new(parts.polled.into()),
                next: Cell::new(null_mut()),
                stocked,
                course: Course::Straight,
                entry: UnsafeCell::new(Entry::new()),
                turn: UnsafeCell::new(Turn::new()),
                retry: UnsafeCell::new(None),
                page: PageWait::new(),
                ownership: Ownership::ours(),
                watch: UnsafeCell::new(MaybeUninit::uninit()),
                work: Work::new(),
                identity: parts.identity,
                writing: false,
            });
        }
        // INVARIANT: It was just made.
        Self(Own(at))
    }

    /// The file that it is for.
    pub(crate) fn file(&self) -> &File {
        &self.0.file
    }

    /// What it is about, if that is registered.
    pub(crate) fn buffer(&self) -> Option<&Buffer> {
        self.0.buffer.as_ref()
    }

    /// Whether an eventfd will count it.
    pub(crate) fn has_eventfd(&self) -> bool {
        self.0.eventfd.is_some()
    }

    /// Fills in the kernel's part of it. The errors are those of [`Kiocb::prepare`].
    pub(crate) fn prepare(&mut self, transfer: &Transfer) -> Result {
        let request = &mut *self.0;
        // SAFETY: `file` is kept by the request.
        unsafe {
            request
                .kiocb
                .prepare(&request.file, transfer, Request::completed)
        }
    }

    /// If it is polled for, it isn't any more should it become [several requests](Kiocb::poll_one) of its disk.
    pub(crate) fn poll_one(&mut self, len: usize) {
        self.0.kiocb.poll_one(len, 1);
    }

    /// How its file can be asked, and what that depends on.
    #[inline]
    pub(crate) fn kiocb(&self) -> &Kiocb {
        &self.0.kiocb
    }

    /// Gives it a priority that was checked.
    fn set_ioprio(&mut self, ioprio: u16) {
        self.0.kiocb.set_ioprio(ioprio);
    }

    /// Ends it; there will be an event.
    pub(crate) fn end(self, result: i64) -> Submitted {
        // SAFETY: It is ours.
        unsafe { Submitted::ended(self.leak(), result) }
    }

    /// From here on it belongs to the submitter and to who has the file's half.
    fn leak(self) -> NonNull<Request> {
        self.0.into_raw()
    }
}

/// A request that was submitted: its submitter's part of it.
///
/// # Invariants
///
/// It hasn't been handed over.
#[must_use]
pub(crate) struct Submitted(NonNull<Request>);

impl Submitted {
    /// One that has ended.
    ///
    /// # Safety
    ///
    /// Nobody else may have it.
    unsafe fn ended(request: NonNull<Request>, result: i64) -> Self {
        // SAFETY: It is ours.
        unsafe {
            *(*request.as_ptr()).result.get() = result;
            Request::handover(request).end_here();
        }
        Self(request)
    }

    /// One that somebody else has, or had; if it `waits`, that may take any time.
    ///
    /// # Safety
    ///
    /// It must be the submitter's.
    unsafe fn going_on(request: NonNull<Request>, waits: bool) -> Self {
        let course = if waits { Course::Waits } else { Course::WentOn };
        // SAFETY: Nobody but the submitter, which we are, accesses that, and keeps it.
        unsafe { (*request.as_ptr()).course = course };
        Self(request)
    }

    fn course(&self) -> Course {
        // SAFETY: It is the submitter's, by the type invariant.
        unsafe { Request::course(self.0) }
    }

    /// Does it wait, or a worker for it?
    #[inline]
    pub(crate) fn waits(&self) -> bool {
        self.course() == Course::Waits
    }

    fn into_raw(self) -> NonNull<Request> {
        self.0
    }

    /// Hands it over, or posts its event if it has ended.
    pub(crate) fn hand_over(self) {
        let request = self.0;
        // SAFETY: It is the submitter's, by the type invariant. If it has ended, the caller sees to its end.
        unsafe {
            if Request::handover(request).has_ended() || !Request::inflight(request).join(request) {
                if Request::course(request) != Course::Straight {
                    Counter::Early.add(1);
                }
                Request::put(request);
            }
        }
    }
}

impl Request {
    /// The file has ended the request.
    ///
    /// # Safety
    ///
    /// To be called as `ki_complete` only, by a method that was called with it. It may be in any
    /// context.
    unsafe extern "C" fn completed(kiocb: *mut bindings::kiocb, result: ffi::c_long) {
        // `Kiocb` is the first field, and transparent.
        const _: () = assert!(core::mem::offset_of!(Request, kiocb) == 0);
        // SAFETY: It is a request's, so it isn't null, and the completion's half is ours.
        unsafe { Self::transferred(NonNull::new_unchecked(kiocb.cast()), result as i64) }
    }

    /// As whom it is carried out.
    ///
    /// # Safety
    ///
    /// The caller must have a reference, and not use the result when it is gone.
    unsafe fn identity<'a>(request: NonNull<Self>) -> &'a Identity {
        // SAFETY: Alive, for the caller has a reference, and so is the context, for the request has
        // a slot.
        unsafe {
            match &(*request.as_ptr()).identity {
                Some(identity) => identity,
                None => (*request.as_ptr()).slot.ctx().identity(),
            }
        }
    }

    /// Decides the result. Any context.
    ///
    /// # Safety
    ///
    /// The file's half must be the caller's, who gives it up.
    #[inline]
    unsafe fn complete(request: NonNull<Self>, result: i64) {
        // SAFETY: The file's half is ours.
        unsafe {
            if Self::decided(request, result) {
                Self::put(request);
            }
        }
    }

    /// Decides the result. True if the caller has to put it then; otherwise it may be gone as soon as this returns,
    /// unless something else keeps it.
    ///
    /// # Safety
    ///
    /// As for [`Self::complete`].
    #[inline]
    unsafe fn decided(request: NonNull<Self>, result: i64) -> bool {
        // SAFETY: The file's half is ours, and with it the right to write the result. If it was handed over, it is
        // ours to end.
        unsafe {
            *(*request.as_ptr()).result.get() = result;
            let ours = Self::handover(request).ended();
            if ours {
                Self::inflight(request).leave(request);
            }
            ours
        }
    }

    /// How far its submitter and the file are.
    ///
    /// # Safety
    ///
    /// It must be alive.
    #[inline]
    unsafe fn handover<'a>(request: NonNull<Self>) -> &'a Handover {
        // SAFETY: As the caller says.
        unsafe { &(*request.as_ptr()).handover }
    }

    /// What it did when it was started.
    ///
    /// # Safety
    ///
    /// The caller must be its submitter.
    #[inline]
    unsafe fn course(request: NonNull<Self>) -> Course {
        // SAFETY: As the caller says.
        unsafe { (*request.as_ptr()).course }
    }

    /// Its event.
    ///
    /// # Safety
    ///
    /// It must be the caller's, and have a result.
    #[inline]
    unsafe fn event(request: NonNull<Self>) -> Event {
        // SAFETY: As the caller says.
        unsafe {
            let request = &*request.as_ptr();
            Event {
                data: request.data,
                obj: request.obj,
                res: *request.result.get(),
                res2: 0,
            }
        }
    }

    /// Where it is when in flight.
    ///
    /// # Safety
    ///
    /// The caller must have a reference, and not use the result when it is gone.
    unsafe fn inflight<'a>(request: NonNull<Self>) -> &'a Inflight {
        // SAFETY: Alive, for the caller has a reference, and so is the context, for the request has
        // a slot.
        unsafe { (*request.as_ptr()).slot.ctx().inflight() }
    }

    /// Has its end to be asked for? Not any more if its file has given it back.
    ///
    /// # Safety
    ///
    /// The caller must have a reference.
    unsafe fn is_polled(request: NonNull<Self>) -> bool {
        // SAFETY: It is alive. Relaxed: it may be asked for in vain.
        unsafe { (*request.as_ptr()).polled.load(Relaxed) != 0 && Self::is_transfer(request) }
    }

    /// The same when its method has returned: not if its file sees to its end, as of a write after which it has
    /// something to note.
    ///
    /// # Safety
    ///
    /// The caller must be its submitter.
    unsafe fn is_left_to_be_polled(request: NonNull<Self>) -> bool {
        // SAFETY: It is alive, and was prepared if it is a transfer.
        unsafe { Self::is_polled(request) && (*request.as_ptr()).kiocb.is_polled() }
    }

    /// Takes a reference more.
    ///
    /// # Safety
    ///
    /// It must be alive, and somebody's part of it not be given up before this returns.
    unsafe fn get(request: NonNull<Self>) {
        // SAFETY: Alive, as the caller says. Relaxed: there is one that isn't given up.
        unsafe { (*request.as_ptr()).refs.add(1u32, Relaxed) }
    }

    /// Decides the result, where the lock of a wait queue is held.
    ///
    /// # Safety
    ///
    /// The file's half must be the caller's, who gives it up.
    unsafe fn complete_in_wakeup(request: NonNull<Self>, result: i64) {
        // SAFETY: As for `complete`.
        unsafe {
            if Self::decided(request, result) {
                if let Some(own) = Self::release(request) {
                    own.end_in_wakeup();
                }
            }
        }
    }

    /// Decides the result, where others of the context are ended, too.
    ///
    /// # Safety
    ///
    /// The file's half must be the caller's, who gives it up. `batch` must be of its context.
    unsafe fn complete_in(batch: &Batch, request: NonNull<Self>, result: i64) {
        // SAFETY: As for `complete`.
        unsafe {
            if Self::decided(request, result) {
                if let Some(own) = Self::release(request) {
                    own.end_in(batch);
                }
            }
        }
    }

    /// Gives up a reference. Who comes last ends the request.
    ///
    /// # Safety
    ///
    /// The reference must be the caller's.
    unsafe fn put(request: NonNull<Self>) {
        // SAFETY: As the caller says.
        if let Some(own) = unsafe { Self::release(request) } {
            own.end();
        }
    }

    /// Gives up a reference. Who comes last has the request.
    ///
    /// # Safety
    ///
    /// The reference must be the caller's.
    #[inline]
    unsafe fn release(request: NonNull<Self>) -> Option<Own> {
        // SAFETY: Alive, for we have a reference.
        let refs = unsafe { &(*request.as_ptr()).refs };
        // Acquire, Full: what the others did comes before what we do with the whole. Full: what we
        // did comes before what the others do with it. See the table above.
        let last = refs.load(Acquire) == 1 || refs.fetch_sub(1u32, Full) == 1;
        // INVARIANT: Ours was the last reference.
        last.then(|| Own(request))
    }

    /// Says how a request is cancelled; false if it isn't one of ours.
    ///
    /// # Safety
    ///
    /// `kiocb` must be one that the caller, a file's method, was called with, and that nobody can
    /// have ended yet.
    unsafe fn set_cancel(kiocb: *mut bindings::kiocb, cancel: CancelFn) -> bool {
        // SAFETY: Alive, for the method hasn't returned and it wasn't ended.
        let complete = unsafe { (*kiocb).ki_complete };
        // Nobody else has this function, and each of ours has it.
        if !complete.is_some_and(|complete| ptr::fn_addr_eq(complete, Self::completed as Complete))
        {
            return false;
        }
        // SAFETY: So it is the first field of a request. Nobody looks at that before the method has
        // returned.
        unsafe { (*(*kiocb.cast::<Self>()).entry.get()).by_file = Some(cancel) };
        true
    }
}

/// What `raio_set_cancel_fn()` of `include/linux/raio.h` does.
///
/// # Safety
///
/// See there.
#[no_mangle]
unsafe extern "C" fn raio_request_set_cancel(
    kiocb: *mut bindings::kiocb,
    cancel: CancelFn,
) -> bool {
    // SAFETY: As the caller says.
    unsafe { Request::set_cancel(kiocb, cancel) }
}

/// A request that nobody else has.
///
/// # Invariants
///
/// It is alive, in memory as [`Memory`] has it, and ours.
struct Own(NonNull<Request>);

impl Deref for Own {
    type Target = Request;

    fn deref(&self) -> &Request {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }
}

impl DerefMut for Own {
    fn deref_mut(&mut self) -> &mut Request {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_mut() }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // SAFETY: It is ours, and this is its end.
        unsafe {
            Self::let_go_of(self.0, &mut Uses::none());
            // The slot goes last, for it keeps the context.
            let _slot = Self::remains(self.0).0;
        }
    }
}

impl Polled for Request {
    unsafe fn is_over(this: NonNull<Self>) -> bool {
        // SAFETY: The submitter's part keeps it.
        unsafe { Self::handover(this).has_ended() || !Self::is_polled(this) }
    }

    unsafe fn ask(this: NonNull<Self>) -> bool {
        // SAFETY: As above, which keeps the file.
        unsafe { Self::is_over(this) || (*this.as_ptr()).kiocb.ask() }
    }
}

impl Own {
    fn into_raw(self) -> NonNull<Request> {
        let request = self.0;
        forget(self);
        request
    }

    /// Ends it, when there is a result. Lets go of everything and posts the event. The file goes first: who sees
    /// the event may rely on the request no longer using it.
    fn end(self) {
        let (slot, event, eventfd) = self.take();
        slot.post(&event, eventfd);
    }

    /// The same where the lock of a wait queue is held.
    fn end_in_wakeup(self) {
        if self.eventfd.is_some() {
            // Who counts on it may watch what is being woken.
            // SAFETY: It is ours alone, and we hand it over.
            unsafe { Request::defer::<{ watching::END }>(self.into_raw()) }
            return;
        }
        let (slot, event, _) = self.take();
        slot.post_in_wakeup(&event);
    }

    /// The same where others of the context are ended, too.
    fn end_in(self, batch: &Batch) {
        let (slot, event, eventfd) = self.take();
        batch.post(slot, &event, eventfd);
    }

    /// Everything but what its event needs goes.
    fn take(self) -> (Slot, Event, Option<EventFd>) {
        let request = self.into_raw();
        // SAFETY: It is ours, and this is its end.
        unsafe {
            Self::let_go_of(request, &mut Uses::none());
            let event = Request::event(request);
            let (slot, eventfd) = Self::remains(request);
            (slot, event, eventfd)
        }
    }

    /// Is there nothing but its memory to see to when its event is posted, and is that the stock's?
    #[inline(always)]
    fn is_plain(&self) -> bool {
        // SAFETY: It is ours.
        let entry = unsafe { &*self.entry.get() };
        // Who has left a page, whose memory may be there yet, was parked, and has been no file's since.
        let is_parked = entry.is_late || entry.cancel.is_some();
        self.stocked && self.eventfd.is_none() && !is_parked
    }

    /// Everything but what its event needs goes; the use of a registered file is added to `files`. Then it is to be
    /// [told](Self::told) of, unless it [is plain](Self::is_plain).
    #[inline(always)]
    fn let_go(self, files: &mut Uses<ARef<File>>) {
        // SAFETY: It is ours.
        unsafe { Self::let_go_of(self.into_raw(), files) }
    }

    /// In place: a request is too large to be moved.
    ///
    /// # Safety
    ///
    /// It must be the caller's, who goes on with what [remains](Self::remains).
    #[inline(always)]
    unsafe fn let_go_of(request: NonNull<Request>, files: &mut Uses<ARef<File>>) {
        // SAFETY: As the caller says.
        let request = unsafe { &mut *request.as_ptr() };
        // Nothing is left out, so that nobody forgets what has to be dropped.
        let Request {
            kiocb: _,
            file,
            buffer,
            eventfd: _,
            slot: _,
            obj: _,
            data: _,
            result: _,
            handover: _,
            refs: _,
            polled: _,
            next: _,
            stocked: _,
            course: _,
            entry: _,
            turn: _,
            retry,
            page: _,
            ownership: _,
            watch: _,
            work: _,
            identity,
            writing: _,
        } = request;
        // SAFETY: Each is moved or dropped once, for the request isn't dropped as one.
        unsafe {
            match ptr::read(file) {
                FileRef::Registered(file) => files.add(file),
                FileRef::Own(file) => drop(file),
            }
            ptr::drop_in_place(buffer);
            ptr::drop_in_place(retry);
            ptr::drop_in_place(identity);
        }
    }

    /// What is left of it but for its memory, which goes back to where it belongs.
    ///
    /// # Safety
    ///
    /// It must be the caller's, who has let go of the rest.
    unsafe fn remains(request: NonNull<Request>) -> (Slot, Option<EventFd>) {
        // SAFETY: As the caller says. The slot keeps the context.
        unsafe {
            let (slot, eventfd) = Self::parts(request);
            if Self::leaves_memory(request, slot.ctx()) {
                slot.ctx().cache().stock.free.push(request);
            }
            (slot, eventfd)
        }
    }

    /// # Safety
    ///
    /// As for [`Self::remains`]; each is moved out.
    #[inline(always)]
    unsafe fn parts(request: NonNull<Request>) -> (Slot, Option<EventFd>) {
        // SAFETY: As the caller says.
        unsafe {
            let request = request.as_ptr();
            let mut slot = ptr::read(&raw const (*request).slot);
            if (*(*request).entry.get()).is_late {
                slot.set_late();
            }
            (slot, ptr::read(&raw const (*request).eventfd))
        }
    }

    /// True if its memory is the caller's now, for the stock. It is freed otherwise, or left to who has use for it
    /// yet.
    ///
    /// # Safety
    ///
    /// It must be the caller's, with nothing left in it. `ctx` must be its context.
    #[inline(always)]
    unsafe fn leaves_memory(request: NonNull<Request>, ctx: &Kioctx) -> bool {
        // SAFETY: As the caller says.
        unsafe {
            let stocked = (*request.as_ptr()).stocked;
            match (*request.as_ptr()).page.end() {
                true if stocked => return true,
                true => stock::free(request),
                false if stocked => ctx.cache().stock.lost(),
                false => (),
            }
        }
        false
    }

    /// Its event was posted, with those of others. Does it [leave memory](Self::leaves_memory)? The reference of the
    /// slot is left to the caller.
    ///
    /// # Safety
    ///
    /// It must come from [`Self::let_go`].
    #[inline(always)]
    unsafe fn told(request: NonNull<Request>) -> bool {
        // SAFETY: It is ours.
        unsafe {
            let (slot, eventfd) = Self::parts(request);
            let leaves = Self::leaves_memory(request, slot.ctx());
            slot.told(eventfd);
            leaves
        }
    }
}
