// SPDX-License-Identifier: GPL-2.0

//! Being told when a file may have become ready, without a task that waits for it.
//!
//! C header: `include/linux/poll.h`.
//!
//! A file's `poll` method names wait queues, usually one, in which a [`Watch`] then has a [`Spot`].
//! Whoever wakes such a queue says of some files what they are ready for, and of others nothing; and
//! the file may be ready no more when it is looked at. So being told is only a reason to look.
//!
//! # Queues that go
//!
//! A queue may go before the file does. Who lets it go wakes it with `POLLFREE`, expects all spots to
//! be left before that returns, and frees it after a grace period. Hence `head`:
//!
//! | who | does | partner |
//! |---|---|---|
//! | [`woken`] | leaves the queue, then store-release of null to `head` | [`Spot::leave`] |
//! | [`Spot::leave`] | under RCU, load-acquire of `head`, then locks the queue unless null | [`woken`] |
//!
//! Who reads null must wait for nobody, and the spot is no longer touched by the other.
//!
//! # Locks
//!
//! That of each queue: it is held by who calls [`Watcher`]'s methods as they say, interrupts possibly
//! on, and taken to leave.

use crate::bindings;
use core::{
    mem,
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
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        rcu, //
    },
    types::Opaque, //
};

/// What files say of themselves that user space calls `events`, besides what is always told.
pub(crate) fn from_user(events: u16) -> u32 {
    // SAFETY: A function of its argument.
    unsafe { bindings::raio_demangle_poll(events) | bindings::RAIO_EPOLL_ALWAYS }
}

/// What user space calls it.
pub(crate) fn to_user(mask: u32) -> u16 {
    // SAFETY: A function of its argument.
    unsafe { bindings::raio_mangle_poll(mask) }
}

/// What is said of a file of which nothing more will be told.
pub(crate) const HANGUP: u32 = bindings::POLLHUP;

/// May to look at `file` mean to ask a process, and to wait for its answer? (The `poll` methods of others may sleep,
/// but only for what the kernel does. Devices of CUSE aren't known, but those are root's.)
pub(crate) fn asks_a_process(file: &File) -> bool {
    // SAFETY: A live file has an inode, and a name.
    unsafe { bindings::raio_poll_asks_process(file.as_ptr()) }
}

/// What of `events` `file` is ready for. Sleeps, maybe.
pub(crate) fn look(file: &File, events: u32) -> u32 {
    let mut table = bindings::poll_table {
        _qproc: None,
        _key: events,
    };
    // SAFETY: A live file, and a table that asks for nothing.
    unsafe { bindings::raio_vfs_poll(file.as_ptr(), &mut table) & events }
}

/// Who is told. The lock of a queue is held when these are called, so they can't sleep.
///
/// # Safety
///
/// [`Self::watch`] must always return the same field of `this`.
pub(crate) unsafe trait Watcher: Sized {
    /// The watch of one that is alive.
    ///
    /// # Safety
    ///
    /// `this` must be alive.
    unsafe fn watch(this: NonNull<Self>) -> *mut Watch<Self>;

    /// The file may be ready, or tells nothing more, as it is `gone`. True if who calls has to see to
    /// that, and nobody else ends the watch until then.
    ///
    /// # Safety
    ///
    /// To be called by [`woken`] only, for a watch that has begun.
    unsafe fn claim(this: NonNull<Self>, gone: bool) -> bool;

    /// It has to be looked at. The lock may not be held any more.
    ///
    /// # Safety
    ///
    /// As for [`Self::claim`], which has returned true.
    unsafe fn look_later(this: NonNull<Self>);

    /// Is the watch over when the file is ready, and says for what?
    ///
    /// # Safety
    ///
    /// As for [`Self::claim`].
    unsafe fn ends_when_ready(this: NonNull<Self>) -> bool;

    /// The file is ready for `mask`, and the watch has ended.
    ///
    /// # Safety
    ///
    /// As for [`Self::claim`], which has returned true.
    unsafe fn ready(this: NonNull<Self>, mask: u32);
}

/// A place in a wait queue.
#[repr(C)]
struct Spot<T> {
    entry: Opaque<bindings::wait_queue_entry>,
    /// The queue, until that goes. Null also before.
    head: Atomic<*mut bindings::wait_queue_head>,
    watch: *mut Watch<T>,
}

impl<T: Watcher> Spot<T> {
    fn new(watch: *mut Watch<T>) -> Self {
        Self {
            entry: Opaque::uninit(),
            head: Atomic::new(ptr::null_mut()),
            watch,
        }
    }

    /// # Safety
    ///
    /// `this` must be new, and stay where it is until it was left. `head` is what a `poll` method
    /// gave.
    unsafe fn enter(this: *mut Self, head: *mut bindings::wait_queue_head) {
        // SAFETY: Nobody else has seen it yet. The queue lives for as long as the file, or says that
        // it doesn't.
        unsafe {
            bindings::raio_init_wait_entry((*this).entry.get(), Some(woken::<T>));
            // Relaxed: the queue's lock orders it before the first wake-up.
            (*this).head.store(head, Relaxed);
            bindings::add_wait_queue(head, (*this).entry.get());
        }
    }

    /// When this returns, nobody touches it any more.
    fn leave(&self) {
        let _rcu = rcu::read_lock();
        // Acquire: see the table above.
        let head = self.head.load(Acquire);
        if !head.is_null() {
            // SAFETY: The queue is not freed while we are under RCU. If it goes at this moment, the
            // entry is in no list when we have the lock, and to remove it changes nothing.
            unsafe { bindings::remove_wait_queue(head, self.entry.get()) }
        }
    }
}

/// A file that is watched.
///
/// # Invariants
///
/// From [`Self::begin`] until it has ended, it stays where it is.
pub(crate) struct Watch<T> {
    owner: NonNull<T>,
    events: u32,
    spot: Spot<T>,
    /// For files with several queues.
    more: KVec<KBox<Spot<T>>>,
}

/// What is given to a `poll` method.
#[repr(C)]
struct Table<T> {
    raw: bindings::poll_table,
    watch: *mut Watch<T>,
    /// There is a queue.
    told: bool,
    result: Result,
}

/// # Safety
///
/// To be called by a `poll` method only, with the table of [`Watch::begin`].
unsafe extern "C" fn enqueue<T: Watcher>(
    _file: *mut bindings::file,
    head: *mut bindings::wait_queue_head,
    table: *mut bindings::poll_table_struct,
) {
    // SAFETY: It is the first field of the table of `begin`, which waits for us.
    let table = unsafe { &mut *table.cast::<Table<T>>() };
    let watch = table.watch;
    // SAFETY: `begin` was called with it. Who is woken in one of its spots only looks at others once
    // it owns the watch, as `claim` says.
    unsafe {
        if !mem::replace(&mut table.told, true) {
            Spot::enter(&raw mut (*watch).spot, head);
            return;
        }
        let add = || -> Result<*mut Spot<T>> {
            let more = &mut (*watch).more;
            more.push(KBox::new(Spot::new(watch), GFP_KERNEL)?, GFP_KERNEL)?;
            let spot = more.last_mut().ok_or(ENOMEM)?;
            Ok(&raw mut **spot)
        };
        match add() {
            Ok(spot) => Spot::enter(spot, head),
            Err(e) => table.result = Err(e),
        }
    }
}

/// # Safety
///
/// To be called by the C side only, as the function of a [`Spot`]'s entry, with the lock of its queue
/// held.
unsafe extern "C" fn woken<T: Watcher>(
    entry: *mut bindings::wait_queue_entry,
    _mode: ffi::c_uint,
    _flags: ffi::c_int,
    key: *mut ffi::c_void,
) -> ffi::c_int {
    let told = key.addr() as u32;
    let gone = told & bindings::RAIO_POLLFREE != 0;
    // SAFETY: The entry is the first field of a spot, which isn't left without the lock.
    let (watch, spot) = unsafe {
        let spot = entry.cast::<Spot<T>>();
        ((*spot).watch, spot)
    };
    // SAFETY: So the watch hasn't ended.
    let (owner, ready) = unsafe { ((*watch).owner, told & (*watch).events) };
    if told != 0 && ready == 0 && !gone {
        return 0;
    }
    // SAFETY: As above. If it isn't ours, others may end it as soon as the spot was left.
    unsafe {
        let ours = T::claim(owner, gone);
        if gone {
            bindings::raio_wait_entry_del_init(entry);
            // Release: see the table above. The last that we do with it, unless it is ours.
            (*spot).head.store(ptr::null_mut(), Release);
        }
        if ours {
            if ready != 0 && !gone && (*watch).more.is_empty() && T::ends_when_ready(owner) {
                bindings::raio_wait_entry_del_init(entry);
                T::ready(owner, ready);
            } else {
                T::look_later(owner);
            }
        }
    }
    1
}

impl<T: Watcher> Watch<T> {
    /// A watch for `events`, that hasn't begun.
    pub(crate) fn new(events: u32) -> Self {
        Self {
            owner: NonNull::dangling(),
            events,
            spot: Spot::new(ptr::null_mut()),
            more: KVec::new(),
        }
    }

    /// What is watched for.
    ///
    /// # Safety
    ///
    /// `this` must be a watch.
    pub(crate) unsafe fn events(this: *mut Self) -> u32 {
        // SAFETY: Not written any more.
        unsafe { (*this).events }
    }

    /// Begins to watch `file`, and says what of its events that is ready for already. Sleeps,
    /// maybe. It has to be ended whatever this returns: `ENOMEM`, or `EINVAL` if the file tells
    /// nothing and isn't ready either.
    ///
    /// # Safety
    ///
    /// `this` must be new, that of `owner`, and not moved until it has ended. Nobody else may end it
    /// before this has returned.
    pub(crate) unsafe fn begin(this: *mut Self, owner: NonNull<T>, file: &File) -> Result<u32> {
        // SAFETY: It is a watch, as the caller says.
        let events = unsafe { Self::events(this) };
        let mut table = Table {
            raw: bindings::poll_table {
                _qproc: Some(enqueue::<T>),
                _key: events,
            },
            watch: this,
            told: false,
            result: Ok(()),
        };
        // SAFETY: Nobody else has seen `this` yet, as the caller says; when the method is called, who
        // is woken may read what we don't write any more. A live file.
        unsafe {
            (*this).owner = owner;
            (*this).spot.watch = this;
            let mask = bindings::raio_vfs_poll(file.as_ptr(), (&raw mut table).cast()) & events;
            table.result?;
            if mask == 0 && !table.told {
                return Err(EINVAL);
            }
            Ok(mask)
        }
    }

    /// Ends it: when this returns, nobody is told any more. Any context.
    ///
    /// # Safety
    ///
    /// `this` must be a watch, and nobody else begin or end it.
    pub(crate) unsafe fn end(this: *mut Self) {
        // SAFETY: It isn't changed by others, as the caller says; who is woken doesn't look at `more`
        // unless it ends the watch.
        let more = unsafe {
            (*this).spot.leave();
            mem::take(&mut (*this).more)
        };
        for spot in &more {
            spot.leave();
        }
    }
}
