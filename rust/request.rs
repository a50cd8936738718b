// SPDX-License-Identifier: GPL-2.0

//! Requests (kiocb): what one is in each stage of its life, and who owns it then.
//!
//! ```text
//! Prepared ── start ──> the file's method has it ──> Ended ──> its event is in the ring
//!     └── dropped: refused, no event
//! ```
//!
//! A file may complete a request before its method has returned, and go on using it until it does.
//! So both the submitter, until the method returns, and the completion own a half of it, that is a
//! reference, and whoever comes last ends it. Who cancels it, and a worker that has it, takes one more
//! meanwhile. Nobody else touches it, and the result is decided in one place: [`Request::complete`],
//! or where the method returned it to the submitter.
//!
//! The file's half is that of whoever has the request: one that would have to wait is parked, see
//! [`retry`], waits for its file to be ready, see [`watching`], or is a worker's, see [`workers`].
//!
//! # Locks
//!
//! That of [`inflight`] while a request is in flight. `refs` is where the halves meet:
//!
//! | who | does | partner |
//! |---|---|---|
//! | completion | `result`, then subtracts (full) | the others' load-acquire or subtraction |
//! | submitter, canceller | its last access, then subtracts (full) | the others' load-acquire or subtraction |
//!
//! Who sees no other was last. To look first saves the subtraction in the usual cases.

pub(crate) mod direct;
mod inflight;
mod ownership;
mod retry;
mod watching;
mod workers;

use crate::{
    bindings,
    context::{
        Batch,
        Buffer,
        RegisteredFile,
        Slot, //
    },
    kernel_ext::{
        eventfd::EventFd,
        file_io::{
            Complete,
            Kiocb,
            Transfer, //
        },
        file_poll::Watch,
        identity::Identity,
        page_wait::PageWait,
        work::Work, //
    },
    ring::Event,
    stats::Counter,
};
use core::{
    cell::UnsafeCell,
    mem::MaybeUninit,
    ops::Deref,
    ptr::{
        self,
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

use ownership::Ownership;
use retry::Retry;
use workers::Turn;

pub(crate) use inflight::Inflight;
pub(crate) use workers::Workers;

/// The submitter's half and the file's.
const HALVES: u32 = 2;

/// A request.
///
/// # Invariants
///
/// * `kiocb` is the first field, and its file is `file`.
/// * `result` is written by the completion only, before it gives up its half, and read by who ends
///   the request only.
/// * `refs` counts the halves that weren't given up, and those who cancel it.
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
    refs: Atomic<u32>,
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
    /// Whether the file system is kept from being frozen.
    writing: bool,
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
    /// What its event will carry.
    pub(crate) obj: u64,
    pub(crate) data: u64,
}

/// A request that no file's method has seen. If it is dropped, it was refused.
pub(crate) struct Prepared(KBox<Request>);

impl Prepared {
    /// A request of those parts. Fails with `ENOMEM`.
    #[inline]
    pub(crate) fn new(parts: Parts) -> Result<Self> {
        let memory = parts.slot.ctx().engine().requests.alloc()?;
        Ok(Self::in_memory(memory, parts))
    }

    /// The same in memory that is there.
    #[inline]
    fn in_memory(memory: KBox<MaybeUninit<Request>>, parts: Parts) -> Self {
        Self(KBox::write(
            memory,
            Request {
                kiocb: Kiocb::new(),
                file: parts.file,
                buffer: parts.buffer,
                eventfd: parts.eventfd,
                slot: parts.slot,
                obj: parts.obj,
                data: parts.data,
                result: UnsafeCell::new(0),
                refs: Atomic::new(HALVES),
                entry: UnsafeCell::new(Entry::new()),
                turn: UnsafeCell::new(Turn::new()),
                retry: UnsafeCell::new(None),
                page: PageWait::new(),
                ownership: Ownership::ours(),
                watch: UnsafeCell::new(MaybeUninit::uninit()),
                work: Work::new(),
                identity: parts.identity,
                writing: false,
            },
        ))
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

    /// Gives it a priority that was checked.
    fn set_ioprio(&mut self, ioprio: u16) {
        self.0.kiocb.set_ioprio(ioprio);
    }

    /// Ends it, with an event.
    pub(crate) fn end(self, result: i64) {
        Ended(self.0).end(result);
    }

    /// From here on it belongs to those who have its halves, and isn't moved.
    fn leak(self) -> NonNull<Request> {
        NonNull::from(KBox::leak(self.0))
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
    /// The completion's half must be the caller's, who gives it up.
    unsafe fn complete(request: NonNull<Self>, result: i64) {
        // SAFETY: The completion's half is ours, and with it the right to write the result.
        unsafe {
            *(*request.as_ptr()).result.get() = result;
            Self::inflight(request).leave(request);
            Self::put(request);
        }
    }

    /// The method has returned, and the file goes on or has ended the request already.
    ///
    /// # Safety
    ///
    /// The submitter's half must be the caller's, who gives it up.
    unsafe fn submitted(request: NonNull<Self>) {
        // SAFETY: Alive, for we have a half of it.
        unsafe {
            // Acquire: see `put`, which comes to the same conclusion.
            if (*request.as_ptr()).refs.load(Acquire) == 1 {
                Counter::Early.add(1);
            } else {
                Self::inflight(request).join(request);
            }
            Self::put(request);
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

    /// Takes a reference more.
    ///
    /// # Safety
    ///
    /// It must be alive, and its file's half not given up before this returns.
    unsafe fn get(request: NonNull<Self>) {
        // SAFETY: Alive, as the caller says. Relaxed: there is one that isn't given up.
        unsafe { (*request.as_ptr()).refs.add(1u32, Relaxed) }
    }

    /// Decides the result, where the lock of a wait queue is held.
    ///
    /// # Safety
    ///
    /// The completion's half must be the caller's, who gives it up.
    unsafe fn complete_in_wakeup(request: NonNull<Self>, result: i64) {
        // SAFETY: As for `complete`.
        unsafe {
            *(*request.as_ptr()).result.get() = result;
            Self::inflight(request).leave(request);
            if let Some(ended) = Self::release(request) {
                ended.end_in_wakeup();
            }
        }
    }

    /// Decides the result, where others of the context are ended, too.
    ///
    /// # Safety
    ///
    /// The completion's half must be the caller's, who gives it up. `batch` must be of its context.
    unsafe fn complete_in(batch: &Batch, request: NonNull<Self>, result: i64) {
        // SAFETY: As for `complete`.
        unsafe {
            *(*request.as_ptr()).result.get() = result;
            Self::inflight(request).leave(request);
            if let Some(ended) = Self::release(request) {
                ended.end_in(batch);
            }
        }
    }

    /// Frees its memory.
    ///
    /// # Safety
    ///
    /// It must be from a box, the caller's, and what there is to drop be dropped.
    unsafe fn free(request: NonNull<Self>) {
        // SAFETY: As the caller says. What is not initialised needs no drop.
        drop(unsafe { KBox::from_raw(request.as_ptr().cast::<MaybeUninit<Self>>()) });
    }

    /// Gives up a reference. Who comes last ends the request.
    ///
    /// # Safety
    ///
    /// The reference must be the caller's.
    unsafe fn put(request: NonNull<Self>) {
        // SAFETY: As the caller says.
        if let Some(ended) = unsafe { Self::release(request) } {
            ended.end_as_completed();
        }
    }

    /// Gives up a reference. Who comes last has the request.
    ///
    /// # Safety
    ///
    /// The reference must be the caller's.
    unsafe fn release(request: NonNull<Self>) -> Option<Ended> {
        // SAFETY: Alive, for we have a reference.
        let refs = unsafe { &(*request.as_ptr()).refs };
        // Acquire, Full: what the others did comes before what we do with the whole. Full: what we
        // did comes before what the others do with it. See the table above.
        let last = refs.load(Acquire) == 1 || refs.fetch_sub(1u32, Full) == 1;
        // SAFETY: It was leaked by `leak`, and ours is the last reference.
        last.then(|| Ended(unsafe { KBox::from_raw(request.as_ptr()) }))
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

/// A request that nobody else has any more.
struct Ended(KBox<Request>);

impl Ended {
    fn end_as_completed(self) {
        let result = self.result();
        self.end(result);
    }

    /// What the completion has written.
    fn result(&self) -> i64 {
        // SAFETY: It has given up its half.
        unsafe { *self.0.result.get() }
    }

    /// Lets go of everything and posts the event. The file goes first: who sees the event may rely
    /// on the request no longer using it.
    fn end(self, result: i64) {
        let (slot, event, eventfd) = self.take(result);
        slot.post(&event, eventfd);
    }

    /// The same where the lock of a wait queue is held.
    fn end_in_wakeup(self) {
        if self.0.eventfd.is_some() {
            // Who counts on it may watch what is being woken.
            let request = NonNull::from(KBox::leak(self.0));
            // SAFETY: It is ours alone, and we hand it over.
            unsafe { Request::defer::<{ watching::END }>(request) }
            return;
        }
        let result = self.result();
        let (slot, event, _) = self.take(result);
        slot.post_in_wakeup(&event);
    }

    /// The same where others of the context are ended, too.
    fn end_in(self, batch: &Batch) {
        let result = self.result();
        let (slot, event, eventfd) = self.take(result);
        batch.post(slot, &event, eventfd);
    }

    /// Everything but what its event needs goes. In place: a request is too large to be moved.
    fn take(mut self, result: i64) -> (Slot, Event, Option<EventFd>) {
        if self.0.writing {
            self.0.kiocb.end_write();
        }
        // Nothing is left out, so that nobody forgets what has to be dropped.
        let Request {
            kiocb: _,
            file,
            buffer,
            eventfd,
            slot,
            obj,
            data,
            result: _,
            refs: _,
            entry,
            turn: _,
            retry,
            page,
            ownership: _,
            watch: _,
            work: _,
            identity,
            writing: _,
        } = &mut *self.0;
        let event = Event {
            data: *data,
            obj: *obj,
            res: result,
            res2: 0,
        };
        // SAFETY: Each is moved or dropped once, for the request isn't dropped as one below.
        let (mut slot, eventfd) = unsafe {
            ptr::drop_in_place(file);
            ptr::drop_in_place(buffer);
            ptr::drop_in_place(retry);
            ptr::drop_in_place(identity);
            (ptr::read(slot), ptr::read(eventfd))
        };
        if entry.get_mut().is_late {
            slot.set_late();
        }
        let goes = page.end();
        let this = NonNull::from(KBox::leak(self.0));
        if goes {
            // SAFETY: It was a box just now, and all of it is dropped.
            unsafe { Request::free(this) }
        }
        (slot, event, eventfd)
    }
}
