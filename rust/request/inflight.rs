// SPDX-License-Identifier: GPL-2.0

//! Who is in flight on a context: the requests that their files go on with by themselves, to find
//! one and cancel it, to cancel all that can be, to say which file holds the rest, and to know when
//! the last has ended.
//!
//! A request joins when its submitter hands it over, if it hasn't ended by then, and leaves when the file
//! ends it. What has ended in submit never comes here, nor does what is [polled for](super::iopoll), unless its
//! file gives it back. It can outlive the context, for those who wait for the end of one.
//!
//! # Cancelling
//!
//! A method may say how its request is cancelled, see `include/linux/raio.h`, and one that is parked
//! can be, see [`retry`](super::retry). Such a request is asked once: when user space wants that, or
//! when the context ends, after the last submitter has left. It is kept alive by a reference while it
//! is asked, so the file may end it at the same time, and whether it was cancelled is only what the
//! file says of it: nothing here marks or ends it.
//!
//! User space names a request by the address of its iocb, which nobody keeps it from using twice.
//!
//! # Locks
//!
//! `requests`, a spin lock with interrupts off. It nests inside all locks that files hold when they
//! end a request; only a reference count is taken inside of it. It isn't held while a file is asked
//! to cancel.

use super::{
    submitter::Cache,
    Request, //
};
use crate::{
    bindings,
    kernel_ext::{
        completion::Completion,
        fifo::{
            Fifo,
            Linked,
            Links, //
        },
        hash_table::HashTable, //
    },
    stats::Counter,
};
use core::{mem, ptr::NonNull};
use kernel::{
    fs::File,
    list::{
        impl_list_arc_safe,
        impl_list_item,
        ListArc,
        ListLinks, //
    },
    new_spinlock_irq,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        lock::{
            spinlock::SpinLockIrqBackend,
            Guard, //
        },
        SpinLockIrq, //
    },
};

/// How a file's method wants its request to be cancelled: `raio_cancel_fn` of
/// `include/linux/raio.h`.
pub(crate) type CancelFn = unsafe extern "C" fn(*mut bindings::kiocb) -> bool;

/// How a request is cancelled.
#[derive(Clone, Copy)]
pub(super) enum Cancel {
    /// By its file, which ends it.
    File(CancelFn),
    /// By whoever gets it from where it waits for its next attempt, or its turn.
    Parked,
    /// By ending its watch.
    Watch,
}

/// Where a request is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It wasn't handed over.
    Starting,
    /// In flight, and can be cancelled.
    Cancellable,
    /// In flight, and was asked to be cancelled.
    Asked,
    /// In flight.
    Flying,
    /// It was handed over, and its file has ended it.
    Ended,
}

impl Place {
    /// Is it found by the address of its iocb?
    fn is_found(self) -> bool {
        matches!(self, Self::Cancellable | Self::Flying)
    }
}

/// A request's part of this.
pub(super) struct Entry {
    in_queue: Links<Request>,
    in_table: Links<Request>,
    place: Place,
    /// It is counted as one of `late`. Accessed as `cancel`.
    pub(super) is_late: bool,
    /// Written by who has the request, before anybody else can; with the lock held after that.
    pub(super) cancel: Option<Cancel>,
    /// Written by the method, through [`Request::set_cancel`].
    pub(super) by_file: Option<CancelFn>,
}

impl Entry {
    pub(super) const fn new() -> Self {
        Self {
            in_queue: Links::new(),
            in_table: Links::new(),
            place: Place::Starting,
            is_late: false,
            cancel: None,
            by_file: None,
        }
    }
}

const QUEUE: u64 = 0;
const TABLE: u64 = 1;

// SAFETY: Always that field, which only the queues access.
unsafe impl Linked<QUEUE> for Request {
    unsafe fn links(this: NonNull<Self>) -> *mut Links<Self> {
        // SAFETY: Alive, as the caller says.
        unsafe { &raw mut (*(*this.as_ptr()).entry.get()).in_queue }
    }
}

// SAFETY: Always that field, which only the table accesses.
unsafe impl Linked<TABLE> for Request {
    unsafe fn links(this: NonNull<Self>) -> *mut Links<Self> {
        // SAFETY: Alive, as the caller says.
        unsafe { &raw mut (*(*this.as_ptr()).entry.get()).in_table }
    }
}

/// The requests in flight on a context.
#[pin_data]
pub(crate) struct Inflight {
    #[pin]
    requests: SpinLockIrq<Requests>,
    /// Each is asked to be cancelled, or was.
    ending: Atomic<u32>,
    /// Those that say so: from when they are parked until their event is in the ring, or their file
    /// goes on with them by itself.
    late: Atomic<u32>,
    /// What who submits has of the context; those on the direct path, which aren't among the others, are there.
    #[pin]
    cache: Cache,
    #[pin]
    ended: Completion,
    #[pin]
    links: ListLinks,
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for Inflight { untracked; }
}

impl_list_item! {
    impl ListItem<0> for Inflight { using ListLinks { self.links }; }
}

/// # Invariants
///
/// The members of `cancellable` are the requests with that place; those of `others` the ones that
/// are `Asked` or `Flying`; those of `found` the ones that [`Place::is_found`] says, under the
/// address of their iocb. Each is kept by the half that its file owns.
pub(super) struct Requests {
    cancellable: Fifo<Request, QUEUE>,
    others: Fifo<Request, QUEUE>,
    found: HashTable<Request, TABLE>,
}

// SAFETY: Requests are handled by every thread.
unsafe impl Send for Request {}

impl Requests {
    fn of(&mut self, place: Place) -> Option<&mut Fifo<Request, QUEUE>> {
        match place {
            Place::Cancellable => Some(&mut self.cancellable),
            Place::Asked | Place::Flying => Some(&mut self.others),
            Place::Starting | Place::Ended => None,
        }
    }

    /// Puts a request where it belongs from now on.
    ///
    /// # Safety
    ///
    /// `request` must be alive, its place one of this context's, and its file's half not be given up
    /// before it is `Ended`.
    unsafe fn put(&mut self, request: NonNull<Request>, to: Place) {
        // SAFETY: Alive, as the caller says. `place` is only accessed with the lock held.
        let (place, obj) = unsafe {
            let place = &raw mut (*(*request.as_ptr()).entry.get()).place;
            (place, (*request.as_ptr()).obj)
        };
        // SAFETY: As above. By the type invariant it is in the queue of its place, and in the table
        // if that says so.
        // INVARIANT: It moves from the one to the other.
        unsafe {
            if let Some(queue) = self.of(*place) {
                queue.remove(request);
            }
            if let Some(queue) = self.of(to) {
                queue.push(request);
            }
            match ((*place).is_found(), to.is_found()) {
                (false, true) => self.found.insert(obj, request),
                (true, false) => self.found.remove(obj, request),
                _ => (),
            }
            *place = to;
        }
    }

    /// Puts a request where it belongs by what is known of how it is cancelled.
    ///
    /// # Safety
    ///
    /// As for [`Self::put`].
    unsafe fn settle(&mut self, request: NonNull<Request>) {
        // SAFETY: As the caller says. Both are only accessed with the lock held.
        unsafe {
            let to = match (*(*request.as_ptr()).entry.get()).cancel {
                Some(_) => Place::Cancellable,
                None => Place::Flying,
            };
            self.put(request, to);
        }
    }

    /// Takes a request that can be cancelled to ask it.
    ///
    /// # Safety
    ///
    /// `request` must be `Cancellable`.
    unsafe fn take(&mut self, request: NonNull<Request>) -> Asked {
        // SAFETY: A member is alive, by the type invariant, and its file's half wasn't given up.
        let cancel = unsafe {
            self.put(request, Place::Asked);
            Request::get(request);
            (*(*request.as_ptr()).entry.get()).cancel
        };
        // INVARIANT: The reference that was just taken.
        Asked { request, cancel }
    }
}

/// `requests`, held by who hands requests over.
pub(super) struct Joining<'a>(Guard<'a, Requests, SpinLockIrqBackend>);

impl Joining<'_> {
    /// The submitter is done with a request: it joins unless it has ended. False then, and the caller sees to its
    /// end.
    ///
    /// # Safety
    ///
    /// `request` must be of this context, and the caller its submitter.
    pub(super) unsafe fn join(&mut self, request: NonNull<Request>) -> bool {
        // SAFETY: If it is handed over, who ends it waits for the lock, to leave. Who registered the way to cancel it
        // has returned.
        unsafe {
            if !Request::handover(request).hand_over() {
                return false;
            }
            let entry = (*request.as_ptr()).entry.get();
            if (*entry).cancel.is_none() {
                (*entry).cancel = (*entry).by_file.map(Cancel::File);
            }
            self.0.settle(request);
        }
        true
    }
}

/// A request that is asked to be cancelled.
///
/// # Invariants
///
/// Owns a reference to it, and nobody else asks it in that way.
struct Asked {
    request: NonNull<Request>,
    cancel: Option<Cancel>,
}

impl Asked {
    /// True if it is cancelled.
    fn ask(&self) -> bool {
        let request = self.request;
        // SAFETY: Alive, for we have a reference. `cancel` says what the request is.
        let cancelled = unsafe {
            match self.cancel {
                Some(Cancel::File(cancel)) => cancel((*request.as_ptr()).kiocb.as_raw()),
                Some(Cancel::Parked) => Request::cancel_parked(request),
                Some(Cancel::Watch) => Request::cancel_watch(request),
                None => false,
            }
        };
        if cancelled {
            Counter::Cancelled.add(1);
        } else {
            Counter::Uncancelled.add(1);
        }
        cancelled
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // SAFETY: The reference is ours, by the type invariant.
        unsafe { Request::put(self.request) }
    }
}

impl Inflight {
    /// None; good for `most` of them, which are `polled` for or aren't. Fails with `ENOMEM`.
    pub(crate) fn new(most: usize, polled: bool) -> Result<ListArc<Self>> {
        let found = HashTable::new(most)?;
        ListArc::pin_init(
            try_pin_init!(Self {
                requests <- new_spinlock_irq!(
                    Requests {
                        cancellable: Fifo::new(),
                        others: Fifo::new(),
                        found,
                    },
                    "raio_inflight"
                ),
                ending: Atomic::new(0),
                late: Atomic::new(0),
                cache <- Cache::new(most as u32, polled),
                ended <- Completion::new(),
                links <- ListLinks::new(),
            }? Error),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// For requests that are handed over, one after another.
    pub(super) fn joining(&self) -> Joining<'_> {
        Joining(self.requests.lock())
    }

    /// The file has the request that was a worker's, since its method has returned.
    ///
    /// # Safety
    ///
    /// `request` must be of this context, and the caller have a reference to it.
    pub(super) unsafe fn landed(&self, request: NonNull<Request>) {
        let asked = {
            let mut requests = self.requests.lock();
            // SAFETY: The caller's reference keeps it.
            unsafe {
                let entry = (*request.as_ptr()).entry.get();
                if (*entry).place == Place::Ended {
                    return;
                }
                (*entry).cancel = (*entry).by_file.map(Cancel::File);
                if mem::take(&mut (*entry).is_late) {
                    self.not_late();
                }
                if (*entry).place != Place::Starting {
                    requests.settle(request);
                }
                // Full: as in `is_ending`.
                if (*entry).place != Place::Cancellable || !self.is_ending() {
                    return;
                }
                requests.take(request)
            }
        };
        asked.ask();
    }

    /// The same for one, also when those that can be cancelled may have been asked already.
    ///
    /// # Safety
    ///
    /// As for [`Joining::join`].
    pub(super) unsafe fn join(&self, request: NonNull<Request>) -> bool {
        let asked = {
            let mut joining = self.joining();
            // SAFETY: As the caller says; if it has joined it stays while the lock is held.
            unsafe {
                if !joining.join(request) {
                    return false;
                }
                let place = (*(*request.as_ptr()).entry.get()).place;
                if place != Place::Cancellable || !self.is_ending() {
                    return true;
                }
                joining.0.take(request)
            }
        };
        asked.ask();
        true
    }

    /// The file has given the request back: it waits again.
    ///
    /// # Safety
    ///
    /// `request` must be of this context, and the caller have the file's half.
    pub(super) unsafe fn parked(&self, request: NonNull<Request>) {
        let mut requests = self.requests.lock();
        // SAFETY: The caller's half keeps it.
        unsafe {
            let entry = (*request.as_ptr()).entry.get();
            (*entry).cancel = Some(Cancel::Parked);
            self.late(&mut (*entry).is_late);
            if (*entry).place != Place::Starting {
                requests.settle(request);
            }
        }
    }

    /// Does the context end? Who parks a request, or has one join, and then is told that it doesn't has done so
    /// before those that can be cancelled are asked.
    pub(super) fn is_ending(&self) -> bool {
        // Relaxed: who parks has changed a word (full) or had a lock; the partner is in `cancel_all`.
        self.ending.load(Relaxed) != 0
    }

    /// The file has ended the request, which was handed over: it leaves.
    ///
    /// # Safety
    ///
    /// `request` must be of this context, and the caller have the file's half.
    #[inline(never)]
    pub(super) unsafe fn leave(&self, request: NonNull<Request>) {
        // SAFETY: The caller's half keeps it.
        unsafe { self.requests.lock().put(request, Place::Ended) }
    }

    /// Asks each request that can be cancelled, once. To be called when no more are submitted. Any
    /// context.
    pub(crate) fn cancel_all(&self) {
        if self.len() > 0 || self.cache.iopoll().any() {
            Counter::KillInflight.add(1);
        }
        // Full: pairs with who parks a request, then looks at `ending`. Either that one sees it, or we
        // see that the request is parked.
        self.ending.xchg(1, Full);
        loop {
            let asked = {
                let mut requests = self.requests.lock();
                let Some(request) = requests.cancellable.first() else {
                    return;
                };
                // SAFETY: A member of that queue.
                unsafe { requests.take(request) }
            };
            asked.ask();
        }
    }

    /// Asks the request whose iocb is at `obj`, or that is named so. `EINVAL` if there is none that wasn't
    /// asked before, `EAGAIN` if it can't be cancelled, or isn't. Process context.
    pub(crate) fn cancel(&self, obj: u64) -> Result {
        match self.cancel_ordinary(obj) {
            Err(e) if e == EINVAL => (),
            other => return other,
        }
        if self.cache.iopoll().has(obj) || self.cache.places.has(obj) {
            return Err(EAGAIN);
        }
        // What was polled for may have joined the others, which what is on the direct path does, too.
        self.cancel_ordinary(obj)
    }

    fn cancel_ordinary(&self, obj: u64) -> Result {
        let asked = {
            let mut requests = self.requests.lock();
            // SAFETY: A member is alive, by the type invariant.
            let has = |request: NonNull<Request>| unsafe { (*request.as_ptr()).obj == obj };
            let request = requests.found.find(obj, has).ok_or(EINVAL)?;
            // SAFETY: As above. `place` is only accessed with the lock held.
            if unsafe { (*(*request.as_ptr()).entry.get()).place } != Place::Cancellable {
                return Err(EAGAIN);
            }
            // SAFETY: We have just seen that it is.
            unsafe { requests.take(request) }
        };
        if asked.ask() {
            return Ok(());
        }
        // It goes on, if it hasn't ended, and is found again to say so.
        let mut requests = self.requests.lock();
        // SAFETY: Alive, for we have a reference; while it is `Asked`, its file's half isn't given
        // up.
        unsafe {
            let entry = (*asked.request.as_ptr()).entry.get();
            if (*entry).place == Place::Asked {
                let to = match (*entry).cancel {
                    // A worker has it now, and may park it.
                    Some(Cancel::Parked) if !self.is_ending() => Place::Cancellable,
                    _ => Place::Flying,
                };
                requests.put(asked.request, to);
            }
        }
        Err(EAGAIN)
    }

    /// Counts one that isn't done because submit doesn't wait, unless it `is` counted.
    pub(super) fn late(&self, is: &mut bool) {
        if !mem::replace(is, true) {
            // Relaxed: who submits it is who asks.
            self.late.add(1u32, Relaxed);
        }
    }

    /// One is late no more: its event is in the ring, or there is no reason to wait for that.
    pub(crate) fn not_late(&self) {
        // Release: pairs with the load-acquire of `are_late`.
        let _ = self.late.fetch_sub(1u32, Release);
    }

    /// Are there any? If not, the events of those that were are in the ring.
    pub(crate) fn are_late(&self) -> bool {
        // Acquire: pairs with `not_late`.
        self.late.load(Acquire) != 0
    }

    /// What the context keeps for who submits.
    #[inline]
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// How many there are, but for those on the direct path and those that are polled for.
    pub(crate) fn len(&self) -> usize {
        let requests = self.requests.lock();
        requests.cancellable.len() + requests.others.len()
    }

    /// The file that holds the oldest, if it isn't on the direct path; the number of a device that holds one
    /// which is; and how many there are. Process context.
    pub(crate) fn holders(&self) -> (Option<ARef<File>>, u32, usize) {
        let (direct, device) = self.cache.places.flying();
        let (polled, nr_polled) = self.cache.iopoll().holder();
        let file = self.holder(false).or(polled).or_else(|| self.holder(true));
        (file, device, self.len() + nr_polled + direct)
    }

    /// The file that holds the oldest of those that `can` be cancelled, or can't.
    fn holder(&self, can: bool) -> Option<ARef<File>> {
        let requests = self.requests.lock();
        let request = match can {
            true => requests.cancellable.first()?,
            false => requests.others.first()?,
        };
        // SAFETY: A member is alive, by the type invariant, while the lock is held.
        Some(unsafe { ARef::from(&*(*request.as_ptr()).file) })
    }

    /// The last request has ended, and there will be no more.
    pub(crate) fn end(&self) {
        self.ended.complete_all();
    }

    /// Happens when the last request has ended.
    pub(crate) fn ended(&self) -> &Completion {
        &self.ended
    }
}
