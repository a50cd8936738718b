// SPDX-License-Identifier: GPL-2.0

//! Who submits requests: what it has to itself during a call, so that there is no lock and no atomic operation
//! for each; and what comes of the requests before the call is over.
//!
//! One thread at a time owns what a context keeps for that, free places and memory. Others that submit at the
//! same time do without.
//!
//! # What ends while it is submitted
//!
//! A device may end what it is given before it returns, above all where requests were held back and are sent
//! together. Their events are posted together, under one lock and with one look for who waits, when so many
//! were started, and at the end. Of requests on the [direct path](super::direct) the owner collects those that
//! end in what it does; the others are posted where they end. Ordinary ones are handed over together, all that
//! haven't ended by then, see [`handover`](super::handover), but for those that are [polled for](super::iopoll).
//!
//! # Locks
//!
//! That of [`inflight`](super::inflight), when requests are handed over; and that of `iopoll`, if the caller waits
//! for them next.

use super::{
    deliver,
    direct::{
        Direct,
        Flight,
        Places,
        LATER, //
    },
    inflight::Inflight,
    iopoll::Iopoll,
    stack::{
        List,
        Stacked, //
    },
    stock::{
        self,
        Stock, //
    },
    Course,
    Parts,
    Prepared,
    Request,
    Submitted, //
};
use crate::{
    context::Kioctx,
    kernel_ext::{
        bio::Device,
        file_io::{
            self,
            Direction, //
        },
        pinned::Place,
        task,
        work, //
    },
    stats::Counter,
};
use core::{
    cell::{
        Cell,
        UnsafeCell, //
    },
    ptr::{
        null_mut,
        NonNull, //
    },
};
use kernel::{
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Relaxed,
        Release, //
    },
};

/// After so many requests their events are posted.
const MOST: u32 = 32;

/// What a context keeps for who submits.
///
/// # Invariants
///
/// `own` is only accessed by the task that `owner` says, outside of interrupts.
#[pin_data]
pub(crate) struct Cache {
    /// The task that owns it, if it isn't 0. Relaxed where it isn't changed: who finds itself there has written it.
    owner: Atomic<usize>,
    own: UnsafeCell<Owned>,
    #[pin]
    iopoll: Iopoll,
    #[pin]
    pub(super) places: Places,
    pub(super) stock: Stock,
}

/// # Invariants
///
/// `places` and `memory` are such as [`Places::free`] and [`Stock::free`] have.
struct Owned {
    places: *mut Direct,
    memory: *mut Request,
    /// Something on the direct path may end now.
    collects: bool,
    collected: List<Direct>,
}

// SAFETY: Places and memory may be had by every thread, and `own` is only accessed as its invariant says.
unsafe impl Send for Cache {}
// SAFETY: As above.
unsafe impl Sync for Cache {}

impl Cache {
    /// An empty one, for a context that has so `many` requests in flight, and `polls` for them or doesn't. Twice as
    /// much is kept at most, for those who don't own it.
    pub(super) fn new(many: u32, polls: bool) -> impl PinInit<Self> {
        let most = many.saturating_mul(2);
        pin_init!(Self {
            owner: Atomic::new(0),
            own: UnsafeCell::new(Owned {
                places: null_mut(),
                memory: null_mut(),
                collects: false,
                collected: List::new(),
            }),
            iopoll <- Iopoll::new(polls),
            places <- Places::new(most as usize),
            stock: Stock::new(most),
        })
    }

    /// Those that are polled for.
    #[inline]
    pub(crate) fn iopoll(&self) -> &Iopoll {
        &self.iopoll
    }

    /// Takes one that has ended on the direct path, if what the running task does ends it, and that owns this.
    ///
    /// # Safety
    ///
    /// It must be the caller's.
    #[inline]
    pub(super) unsafe fn collect(&self, this: NonNull<Direct>) -> bool {
        let owner = self.owner.load(Relaxed);
        if !task::runs(owner) {
            return false;
        }
        // SAFETY: We are that task.
        let own = unsafe { &mut *self.own.get() };
        if own.collects {
            // SAFETY: It is ours, as the caller says.
            unsafe { own.collected.push(this) };
        }
        own.collects
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let mut next = self.memory;
        while let Some(at) = NonNull::new(next) {
            // SAFETY: By the type invariant.
            unsafe {
                next = Request::below(at).get();
                stock::free(at);
            }
        }
    }
}

/// Who submits. What is left of places and memory goes back on drop, before which it has to be
/// [finished](Self::finish).
///
/// # Invariants
///
/// `places` and `memory` are such as [`Owned`] has, and ours. If `owns`, we own the cache of `ctx`.
pub(crate) struct Submitter<'a> {
    ctx: &'a Kioctx,
    owns: bool,
    /// The context was set up for it.
    polls: bool,
    ioprio: u16,
    direct: u32,
    /// Of the others, those with which their files went on.
    went_on: u32,
    /// Events.
    posted: u32,
    places: *mut Direct,
    memory: *mut Request,
    started: List<Request>,
    /// Of those that were started, the ones that are polled for.
    polled: List<Direct>,
    polled_requests: List<Request>,
}

/// A place for a request on the direct path.
///
/// # Invariants
///
/// It is free, and on top of those of the [`Submitter`] that it is from, which doesn't touch them before it is used.
pub(crate) struct Vacant(NonNull<Direct>);

impl<'a> Submitter<'a> {
    /// The running task, which has the context for that time.
    #[inline(always)]
    pub(crate) fn new(ctx: &'a Kioctx) -> Self {
        let cache = ctx.cache();
        // INVARIANT: It is ours, if it is nobody else's.
        // Acquire: pairs with the release of who did before.
        let owns = cache.owner.cmpxchg(0, task::id(), Acquire).is_ok();
        let (mut places, mut memory) = (null_mut(), null_mut());
        if owns {
            // SAFETY: We own it.
            let own = unsafe { &mut *cache.own.get() };
            (places, memory) = (own.places, own.memory);
        }
        Self {
            ctx,
            owns,
            polls: cache.iopoll.is_wanted(),
            ioprio: file_io::current_ioprio(),
            direct: 0,
            went_on: 0,
            posted: 0,
            places,
            memory,
            started: List::new(),
            polled: List::new(),
            polled_requests: List::new(),
        }
    }

    /// A free place for one more, if there can be one. `ENOMEM`.
    #[inline(always)]
    pub(crate) fn place(&mut self) -> Result<Option<Vacant>> {
        if self.places.is_null() {
            self.places = self.ctx.cache().places.more()?;
        }
        // INVARIANT: It is on top.
        Ok(NonNull::new(self.places).map(Vacant))
    }

    /// Runs `f`, by which requests may end, which are collected then.
    #[inline(always)]
    pub(crate) fn collecting<R>(&self, f: impl FnOnce() -> R) -> R {
        self.collects(true);
        let ret = f();
        self.collects(false);
        ret
    }

    #[inline(always)]
    fn collects(&self, now: bool) {
        if self.owns {
            // SAFETY: We own it.
            unsafe { (*self.ctx.cache().own.get()).collects = now }
        }
    }

    /// The I/O priority of the caller.
    #[inline]
    pub(crate) fn ioprio(&self) -> u16 {
        self.ioprio
    }

    /// Pins memory that isn't registered for the request that is to be [started](Self::start) there, which nothing
    /// may keep from that then; [`None`] if it can't be.
    #[inline]
    pub(crate) fn pin(
        &mut self,
        vacant: &Vacant,
        addr: usize,
        len: usize,
        dir: Direction,
    ) -> Option<Place> {
        // SAFETY: It is free, and ours, by the type invariant.
        let pins = unsafe { Direct::pins(vacant.0) };
        let place = pins.pin(addr, len, dir)?;
        pins.dirty();
        Some(place)
    }

    /// Starts a request of that name, and those data, in a place of this submitter's. `place` must be where the
    /// memory of its flight is, and `device` that of its file, which takes the transfer; `alone` and `polled` are
    /// as [`Contents`](crate::kernel_ext::bio::Contents) has them.
    #[inline(always)]
    pub(crate) fn start(
        &mut self,
        Vacant(this): Vacant,
        device: Device,
        place: Place,
        name: (u64, u64),
        (alone, polled): (bool, bool),
        flight: Flight,
    ) {
        // SAFETY: It is free, and ours, by the type invariant of `Vacant`.
        self.places = unsafe { Direct::below(this) }.get();
        self.direct += 1;
        self.collects(!polled);
        // SAFETY: It was free, and is ours.
        unsafe { Direct::start(this, device, place, name, (alone, polled), flight) };
        if polled {
            // SAFETY: Nobody but who polls for it ends it, and that is nobody yet.
            unsafe { self.polled.push(this) };
            return;
        }
        self.collects(false);
        // SAFETY: We own it.
        if self.owns && unsafe { &*self.ctx.cache().own.get() }.collected.n >= MOST {
            self.deliver_amid();
        }
    }

    /// Makes an ordinary request of `parts`, which are made once there is memory for it: so
    /// they needn't be in any other. Fails with `ENOMEM`.
    #[inline(always)]
    pub(crate) fn prepare(&mut self, parts: impl FnOnce() -> Parts) -> Result<Prepared> {
        let memory = self.ctx.cache().stock.take(&mut self.memory, self.ctx)?;
        Ok(Prepared::in_memory(memory, parts()))
    }

    /// Has one that was submitted, until it is handed over, polled for, or its event is posted.
    #[inline(always)]
    pub(crate) fn submitted(&mut self, submitted: Submitted) {
        let course = submitted.course();
        self.went_on += u32::from(course != Course::Straight);
        if course == Course::Waits {
            submitted.hand_over();
            return;
        }
        let this = submitted.into_raw();
        // SAFETY: The submitter's, which we are.
        unsafe {
            let goes_on = course == Course::WentOn;
            if self.polls
                && goes_on
                && !Request::handover(this).has_ended()
                && Request::is_left_to_be_polled(this)
            {
                (*this.as_ptr()).kiocb.keep_apart();
                self.polled_requests.push(this);
                return;
            }
            self.started.push(this);
        }
        if self.started.n >= MOST {
            self.settle();
        }
    }

    /// Hands over what was started, or posts the events of what has ended.
    fn settle(&mut self) {
        let started = self.started.take();
        let inflight = self.ctx.inflight();
        let early = Cell::new(0);
        let count = &early;
        let mut joining = None;
        // With the lock, as long as one after another joins.
        // SAFETY: The submitter's, which we are, until it is handed over.
        let has_ended = move |this| unsafe {
            if !Request::handover(this).has_ended() {
                let joining = joining.get_or_insert_with(|| Inflight::joining(inflight));
                if joining.join(this) {
                    return false;
                }
            }
            joining = None;
            count.set(count.get() + u64::from(Request::course(this) == Course::WentOn));
            true
        };
        // SAFETY: Who has ended those that have has left them to the submitter, which we are.
        let (posted, memory) = unsafe { deliver::requests(self.ctx, started, has_ended) };
        if early.get() > 0 {
            Counter::Early.add(early.get());
        }
        self.posted += posted;
        memory.put_on(&mut self.memory);
    }

    /// The same where there is much else.
    #[inline(never)]
    fn deliver_amid(&mut self) {
        self.deliver_collected();
    }

    /// Posts the events of what was collected.
    #[inline(always)]
    fn deliver_collected(&mut self) {
        // SAFETY: We own it.
        let mut ended = unsafe { &mut *self.ctx.cache().own.get() }.collected.take();
        let mut later = List::new();
        // SAFETY: They are ours, and their bios have ended.
        unsafe { deliver::direct(self.ctx, &mut ended, &mut later) };
        if ended.n > 0 {
            self.posted += ended.n;
            Counter::Early.add(ended.n.into());
            ended.put_on(&mut self.places);
        }
        while let Some(this) = later.pop() {
            // SAFETY: As above.
            unsafe {
                if Direct::pins(this).try_release() {
                    Direct::go_on(this);
                } else {
                    // Not here, for who submits doesn't sleep.
                    work::queue::<Direct, LATER>(this, &self.ctx.engine().later);
                }
            }
        }
    }
}

impl Submitter<'_> {
    /// Nothing more is started: all is handed over, polled for, or ended. So many events were posted here, not
    /// counting those that were posted elsewhere. What is polled for is asked for, once, if the caller `waits` next.
    #[inline(always)]
    pub(crate) fn finish(&mut self, waits: bool) -> u32 {
        if self.started.n > 0 {
            self.settle();
        }
        // SAFETY: We own it.
        if self.owns && unsafe { &*self.ctx.cache().own.get() }.collected.n > 0 {
            self.deliver_collected();
        }
        if self.polled.n > 0 || self.polled_requests.n > 0 {
            self.hand_to_pollers(waits);
        }
        self.posted
    }
}

impl Submitter<'_> {
    #[inline(always)]
    fn hand_to_pollers(&mut self, waits: bool) {
        let iopoll = self.ctx.cache().iopoll();
        let (direct, requests) = (&mut self.polled, &mut self.polled_requests);
        // SAFETY: They are this context's and, of the latter, the submitter's, which we are.
        unsafe {
            if waits {
                self.posted += iopoll.add_and_ask(self.ctx, direct, requests);
                direct.take().put_on(&mut self.places);
                requests.take().put_on(&mut self.memory);
            } else {
                iopoll.add(direct.take(), requests.take());
                self.ctx.look_again();
            }
        }
    }
}

impl Drop for Submitter<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let cache = self.ctx.cache();
        if self.direct > 0 {
            Counter::Direct.add(self.direct.into());
        }
        if self.went_on > 0 {
            Counter::WentOn.add(self.went_on.into());
        }
        if self.owns {
            // SAFETY: We own it.
            let own = unsafe { &mut *cache.own.get() };
            // INVARIANT: Ours become the cache's.
            (own.places, own.memory) = (self.places, self.memory);
            // Release: who owns it next sees that.
            cache.owner.store(0, Release);
            return;
        }
        // SAFETY: Ours.
        unsafe {
            if let Some((first, last)) = ends(self.places) {
                cache.places.free.push_all(first, last);
            }
            if let Some((first, last)) = ends(self.memory) {
                cache.stock.free.push_all(first, last);
            }
        }
    }
}

/// The first and the last of those.
///
/// # Safety
///
/// They must be the caller's.
#[cold]
unsafe fn ends<T: Stacked>(first: *mut T) -> Option<(NonNull<T>, NonNull<T>)> {
    let first = NonNull::new(first)?;
    let mut last = first;
    // SAFETY: As the caller says.
    while let Some(next) = NonNull::new(unsafe { T::below(last) }.get()) {
        last = next;
    }
    Some((first, last))
}
