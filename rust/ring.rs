// SPDX-License-Identifier: GPL-2.0

//! The completion ring: pages that the kernel fills with events and user space maps.
//!
//! User space may write to all of it at any time. So nothing that is read from a page is trusted:
//! `head` is clamped, and `nr`, `tail` and the rest are only written, their true values being kept
//! here. And a page is only accessed through raw pointers, by copies and single loads and stores.
//!
//! # Locks
//!
//! * `ring_lock`, a mutex: held from before set-up until the ring is published, by who reaps through
//!   the kernel, and, by trying for it, in migration. `mmap_lock` nests inside it (set-up maps the
//!   ring, reaping writes to user memory).
//! * `completion_lock`, a spin lock with interrupts off: the tail, the count of unread events, and
//!   the copy of a page. It nests inside `ring_lock`; nothing nests inside it.
//!
//! The page array is changed with both held and read with either.
//!
//! # Order
//!
//! That of [`protocol`]; the rest is guarded by the locks.

pub(crate) mod layout;
mod memory;
pub(crate) mod protocol;
mod setup;

use crate::{
    bindings,
    kernel_ext::{
        folio::OwnedFolio,
        mutex::KillableMutex,
        pseudo_fs::PageFile,
        user,
        wait::{
            LevelQueue,
            PollQueue,
            Waiter, //
        }, //
    },
    stats::Counter,
};
use core::{
    cell::{
        Cell,
        UnsafeCell, //
    },
    ffi::c_void,
    mem::size_of,
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        lock::{
            spinlock::SpinLockIrqBackend,
            Guard, //
        },
        Arc,
        MutexGuard,
        SpinLockIrq, //
    },
};
use layout::{
    Layout,
    EVENT, //
};

use protocol::Woken;

pub(crate) use setup::RingOwner;

/// What is put into a ring.
pub(crate) type Event = bindings::io_event;

const _: () = assert!(size_of::<Event>() == EVENT && size_of::<bindings::raio_ring>() == EVENT);
const _: () = assert!(kernel::page::PAGE_SIZE == layout::PAGE);

/// Who uses a ring, and wants to know, once, when nobody can see it any more.
#[derive(Clone, Copy)]
pub(crate) struct RingUser {
    /// What `unmapped` is called with.
    pub(crate) who: NonNull<c_void>,
    /// The last mapping is gone. The lock that says who owns the ring's pages is held: this must
    /// not sleep. The ring stays until it is released.
    pub(crate) unmapped: unsafe fn(NonNull<c_void>),
}

/// A ring.
///
/// # Invariants
///
/// * `user` and `mappings` are accessed under the lock that says who owns the pages. `user` lives
///   until it was told.
/// * `pages` is empty, or has `layout.pages()` folios. It changes only with both locks held.
/// * `tail`, `posted.tail` and the header's `tail` of a ring with pages are the same whenever
///   `completion_lock` is free, but for what user space does to the last.
/// * `available` plus the slots that are claimed plus `posted.unread` is the ring's capacity.
#[pin_data]
pub(crate) struct Ring {
    layout: Layout,
    /// Of what is mapped: the ring, and what lies behind it.
    bytes: usize,
    file: PageFile<Ring>,
    pages: UnsafeCell<KVVec<OwnedFolio>>,
    user: UnsafeCell<Option<RingUser>>,
    /// Where who made it sees it. Moved by `mremap(2)`, unless it is 0: before it is published, and
    /// when it is about to be unmapped. Relaxed: a value to compare with and to unmap at.
    address: Atomic<usize>,
    /// Mappings of it, where one was split its parts. Relaxed: see above.
    mappings: Atomic<u32>,
    /// Slots that nobody has claimed.
    available: Atomic<u32>,
    /// Where the next event goes, for those without `completion_lock`.
    tail: Atomic<u32>,
    #[pin]
    ring_lock: KillableMutex,
    #[pin]
    completion_lock: SpinLockIrq<Posted>,
    #[pin]
    waiters: LevelQueue,
    /// Who polls the file that the ring was made through.
    pollers: Arc<PollQueue>,
}

struct Posted {
    /// Where the next event goes.
    tail: u32,
    /// Events that were posted and not yet seen to be read.
    unread: u32,
}

// SAFETY: `pages` owns its folios, which are `Send`, and so is what `user` points to.
unsafe impl Send for Ring {}
// SAFETY: `pages` and `user` are only accessed as their invariants say; a user is `Sync`.
unsafe impl Sync for Ring {}

/// `ring_lock`, held.
struct Locked<'a> {
    ring: &'a Ring,
    _guard: MutexGuard<'a, ()>,
}

/// `completion_lock`, held.
///
/// # Invariants
///
/// `last` is the number of a page, and where that is; or null.
struct Posting<'a> {
    ring: &'a Ring,
    posted: Guard<'a, Posted, SpinLockIrqBackend>,
    last: (usize, *mut u8),
}

/// The pages while one of the locks is held. `None` for a page that isn't there: the ring is being
/// freed, or `index` is none of the ring's.
trait Pages {
    fn pages(&self) -> &[OwnedFolio];

    #[inline]
    fn page(&self, index: usize) -> Option<*mut u8> {
        self.pages().get(index).map(OwnedFolio::address)
    }

    /// A field of the header, by its offset.
    #[inline]
    fn header(&self, offset: usize) -> Option<&Atomic<u32>> {
        let page = self.page(0)?;
        // SAFETY: `offset` is one of the constants below, so this is an aligned word of a page that
        // stays for as long as `self` does. All access to it is atomic: ours as user space's.
        Some(unsafe { Atomic::from_ptr(page.add(offset).cast::<u32>()) })
    }
}

impl Pages for Locked<'_> {
    fn pages(&self) -> &[OwnedFolio] {
        // SAFETY: By the type invariant nobody changes it while we hold `ring_lock`.
        unsafe { &*self.ring.pages.get() }
    }
}

impl Pages for Posting<'_> {
    fn pages(&self) -> &[OwnedFolio] {
        // SAFETY: By the type invariant nobody changes it while we hold `completion_lock`.
        unsafe { &*self.ring.pages.get() }
    }
}

const HEAD: usize = core::mem::offset_of!(bindings::raio_ring, head);
const TAIL: usize = core::mem::offset_of!(bindings::raio_ring, tail);

impl Ring {
    fn lock(&self) -> Locked<'_> {
        Locked {
            ring: self,
            _guard: self.ring_lock.lock(),
        }
    }

    fn lock_killable(&self) -> Result<Locked<'_>> {
        Ok(Locked {
            ring: self,
            _guard: self.ring_lock.lock_killable()?,
        })
    }

    fn try_lock(&self) -> Option<Locked<'_>> {
        Some(Locked {
            ring: self,
            _guard: self.ring_lock.try_lock()?,
        })
    }

    fn posting(&self) -> Posting<'_> {
        Posting {
            ring: self,
            posted: self.completion_lock.lock(),
            last: (0, ptr::null_mut()),
        }
    }

    /// Where who made it sees it; 0 before it is published.
    pub(crate) fn address(&self) -> usize {
        self.address.load(Relaxed)
    }

    /// The same for who is going to unmap it there. From here on it isn't moved; a move that is
    /// under way to there holds `mmap_lock`.
    pub(crate) fn take_address(&self) -> usize {
        // Relaxed: see `address`.
        self.address.xchg(0, Relaxed)
    }

    /// Bytes of what is mapped.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its shape.
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Claims up to `want` slots, each for one event that will be posted, and returns how many.
    pub(crate) fn claim(&self, want: u32) -> u32 {
        let mut got = self.take(want);
        while got < want {
            // With the lock held, so that nobody else who refills is between the two.
            let mut posting = self.posting();
            let refilled = posting.refill();
            got += self.take(want - got);
            // Others may have taken those, but have read events for it.
            if refilled == 0 {
                break;
            }
        }
        got
    }

    fn take(&self, want: u32) -> u32 {
        // Relaxed: a count only. That a slot may be written to again is ordered by
        // `completion_lock`, under which `refill` sees it free and `post` fills it.
        let mut available = self.available.load(Relaxed);
        loop {
            let take = available.min(want);
            if take == 0 {
                return 0;
            }
            match self.available.cmpxchg(available, available - take, Relaxed) {
                Ok(_) => return take,
                Err(now) => available = now,
            }
        }
    }

    /// Gives back slots that were claimed and will not be used.
    pub(crate) fn unclaim(&self, n: u32) {
        // Relaxed: see `take`.
        self.available.add(n, Relaxed);
    }

    /// Puts an event into a slot that was claimed, and wakes who waits for it. Any context.
    pub(crate) fn post(&self, event: &Event) {
        self.publish(event);
        self.announce();
    }

    /// Puts an event into a slot that was claimed. [`Self::announce`] must be called for it. Any
    /// context.
    pub(crate) fn publish(&self, event: &Event) {
        // Who sees it sees it counted.
        Counter::Completed.add(1);
        self.posting().post(event);
    }

    /// The same with several events.
    pub(crate) fn publish_all(&self, events: impl Iterator<Item = Event>) {
        let mut posting = self.posting();
        let mut n = 0;
        for event in events {
            posting.write(&event);
            n += 1;
        }
        // As in `publish`.
        Counter::Completed.add(n);
        posting.publish();
    }

    /// Wakes who waits for what was published. Any context.
    pub(crate) fn announce(&self) {
        protocol::announce(&self.waiters, &*self.pollers, || self.unread());
    }

    /// The same where the lock of a wait queue is held, which who polls may wait for. True if they
    /// have to be told.
    pub(crate) fn post_untold(&self, event: &Event) -> bool {
        self.publish(event);
        let untold = Untold {
            pollers: &self.pollers,
            any: Cell::new(false),
        };
        protocol::announce(&self.waiters, &untold, || self.unread());
        untold.any.get()
    }

    /// Wakes all who wait, to find out that the ring is about to go.
    pub(crate) fn wake_all(&self) {
        self.waiters.wake_all();
    }

    /// Something has changed that those who wait go by: they look again. Full barrier before it is seen who waits.
    pub(crate) fn look_again(&self) {
        // There may be enough for each.
        protocol::announce(&self.waiters, &Nobody, || u32::MAX);
    }

    /// Are `n` events there, or as many as fit?
    pub(crate) fn has(&self, n: u32) -> bool {
        self.unread() >= n.min(self.layout.capacity())
    }

    /// Waits until `n` events are there (as many as fit, if that is less), `gone` says that there is
    /// no more to wait for, the monotonic clock is at `deadline` (nanoseconds; [`None`] is for ever)
    /// or a signal is pending. When the caller has read what it wants, or gives up, it must call
    /// [`Self::pass_on`].
    pub(crate) fn wait(&self, n: u32, deadline: Option<i64>, gone: impl Fn() -> bool) -> Woken {
        let n = n.max(1).min(self.layout.capacity());
        self.waiters.with_waiter(n, deadline, |waiter| {
            protocol::wait(waiter, || gone() || self.unread() >= n, || self.pass_on())
        })
    }

    /// Who has waited needs no more: what is left is for others who wait.
    pub(crate) fn pass_on(&self) {
        protocol::pass_on(&self.waiters, || self.unread());
    }

    /// Events that are there, as far as user space lets us know.
    pub(crate) fn unread(&self) -> u32 {
        self.posting().unread()
    }

    /// Moves up to `max` events to the array at `addr` and returns how many.
    ///
    /// `EFAULT` if that isn't writable memory; the events then stay in the ring. `EINTR` if the
    /// caller is killed while somebody else reads, whom user space can hold in a page fault.
    pub(crate) fn reap(&self, addr: usize, max: u32) -> Result<u32> {
        let ring = self.lock_killable()?;
        let Some(header) = ring.header(HEAD) else {
            return Ok(0);
        };
        let mut head = self.layout.clamp(header.load(Relaxed));
        let tail = protocol::published(&self.tail);
        let mut done = 0;
        while head != tail && done < max {
            let run = self.layout.run(head, tail, max - done);
            let Some(page) = ring.page(run.page) else {
                break;
            };
            let to = addr.wrapping_add(done as usize * EVENT);
            // SAFETY: A run lies in one page, and `ring` keeps it from being replaced.
            unsafe { user::copy_from_shared(to, page.add(run.offset), run.len as usize * EVENT) }?;
            head = self.layout.advance(head, run.len);
            done += run.len;
        }
        if done > 0 {
            protocol::give_back(header, head);
            Counter::Reaped.add(done.into());
        }
        Ok(done)
    }
}

impl Posting<'_> {
    #[inline]
    fn post(&mut self, event: &Event) {
        self.write(event);
        self.publish();
    }

    /// Writes an event where the next one goes. It isn't seen before [`Self::publish`].
    #[inline]
    fn write(&mut self, event: &Event) {
        let layout = self.ring.layout;
        let tail = self.posted.tail;
        let (index, offset) = layout.slot(tail);
        if self.last.0 != index || self.last.1.is_null() {
            let Some(page) = self.page(index) else {
                return;
            };
            // INVARIANT: That is where it is, while the lock is held.
            self.last = (index, page);
        }
        let page = self.last.1;
        // SAFETY: A slot lies in one page, aligned, and `self` keeps it from being replaced. User
        // space may write to it at the same time, as it may to any memory of its own.
        unsafe {
            let slot = page.add(offset).cast::<Event>();
            // By words, so that an event needn't be anywhere else in memory.
            (&raw mut (*slot).data).write_volatile(event.data);
            (&raw mut (*slot).obj).write_volatile(event.obj);
            (&raw mut (*slot).res).write_volatile(event.res);
            (&raw mut (*slot).res2).write_volatile(event.res2);
        }
        self.posted.tail = layout.advance(tail, 1);
        self.posted.unread += 1;
    }

    #[inline]
    fn publish(&mut self) {
        let tail = self.posted.tail;
        if let Some(header) = self.header(TAIL) {
            protocol::publish(header, tail);
        }
        protocol::publish(&self.ring.tail, tail);
    }

    /// See [`Ring::unread`].
    fn unread(&self) -> u32 {
        let layout = self.ring.layout;
        let head = self.header(HEAD).map_or(0, protocol::given_back);
        layout.used(layout.clamp(head), self.posted.tail)
    }

    /// Makes the slots available of which the events have been read, and returns how many.
    fn refill(&mut self) -> u32 {
        let reaped = layout::reaped(self.posted.unread, self.unread());
        if reaped > 0 {
            self.posted.unread -= reaped;
            self.ring.unclaim(reaped);
        }
        reaped
    }
}

impl protocol::Waiters for LevelQueue {
    fn any(&self) -> bool {
        self.any()
    }

    fn wake(&self, there: impl Fn() -> u32) {
        self.wake(there());
    }
}

impl protocol::Waiters for PollQueue {
    fn any(&self) -> bool {
        self.any()
    }

    fn wake(&self, _there: impl Fn() -> u32) {
        self.wake();
    }
}

struct Nobody;

impl protocol::Waiters for Nobody {
    fn any(&self) -> bool {
        false
    }

    fn wake(&self, _there: impl Fn() -> u32) {}
}

/// Those who are to be told later.
struct Untold<'a> {
    pollers: &'a PollQueue,
    any: Cell<bool>,
}

impl protocol::Waiters for Untold<'_> {
    fn any(&self) -> bool {
        self.pollers.any()
    }

    fn wake(&self, _there: impl Fn() -> u32) {
        self.any.set(true);
    }
}

impl protocol::Sleeper for Waiter<'_> {
    fn enqueue(&mut self) -> bool {
        self.enqueue()
    }

    fn sleep(&mut self) -> bool {
        self.sleep()
    }
}
