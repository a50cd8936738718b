// SPDX-License-Identifier: GPL-2.0

//! Taking requests in. What all requests of a call need, slots of the ring and references, is taken
//! at once; each then goes to the room of its operation. No lock is held.

use super::{
    Batch,
    Kioctx,
    User, //
};
use crate::{
    abi::{
        Iocb,
        Iocbs, //
    },
    kernel_ext::{
        eventfd::EventFd,
        file_io,
        identity::Identity,
        percpu_ref::PercpuRef,
        plug,
        user, //
    },
    ops,
    request::{
        FileRef,
        Prepared, //
    },
    ring::Event,
    stats::Counter,
};
use core::{mem, ptr::NonNull};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// From this many requests on it pays to hold them back and send them together.
const PLUG_FROM: u32 = 3;

/// The right to post one event: a slot of the ring, and a reference that keeps the context.
///
/// # Invariants
///
/// Owns a reference to `reqs` and a claim to a slot.
pub(crate) struct Slot {
    ctx: NonNull<Kioctx>,
    /// Whether who is late is so no more when it is posted.
    late: bool,
}

// SAFETY: The reference may be dropped and the event posted by every thread.
unsafe impl Send for Slot {}

impl Slot {
    /// The context.
    pub(crate) fn ctx(&self) -> &Kioctx {
        // SAFETY: Alive, for we own a reference to `reqs`.
        unsafe { self.ctx.as_ref() }
    }

    /// Its event is one that who asks for none may wait for.
    pub(crate) fn set_late(&mut self) {
        self.late = true;
    }

    /// Posts the event that it is for, then has `eventfd` count it: who sees that finds the event.
    /// Any context.
    pub(crate) fn post(self, event: &Event, eventfd: Option<EventFd>) {
        self.ctx().post(event);
        // Before the context may go, which keeps the module that this code is in.
        if let Some(eventfd) = eventfd {
            eventfd.signal();
        }
        self.used();
    }

    /// Posts the event that it is for, where the lock of a wait queue is held. Any context.
    pub(crate) fn post_in_wakeup(self, event: &Event) {
        self.ctx().post_in_wakeup(event);
        self.used();
    }

    /// Posts the event that it is for, and wakes nobody: [`Batch`](super::Batch) does. Any context.
    pub(super) fn post_untold(self, event: &Event) {
        self.ctx().ring.publish(event);
        self.used();
    }

    fn used(self) {
        let ctx = self.ctx;
        if self.late {
            self.ctx().inflight.not_late();
        }
        mem::forget(self);
        // SAFETY: The reference was ours. The claim went into the ring with the event.
        unsafe { PercpuRef::put_many(&raw const (*ctx.as_ptr()).reqs, 1) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        drop(Slots {
            ctx: self.ctx,
            left: 1,
        });
    }
}

/// Slots that were claimed together; what is left is given back on drop.
///
/// # Invariants
///
/// Owns `left` references to `reqs` and as many claims to a slot.
struct Slots {
    ctx: NonNull<Kioctx>,
    left: u32,
}

impl Slots {
    /// Up to `want`.
    fn claim(user: &User, want: u32) -> Self {
        let left = user.ring.claim(want);
        if left > 0 {
            // SAFETY: `reqs` is killed only when the last reference to `users` is gone, and the
            // caller has one.
            unsafe { user.reqs.get_many(left as usize) };
        }
        // INVARIANT: Just claimed and taken.
        Self { ctx: user.0, left }
    }

    fn next(&mut self) -> Option<Slot> {
        self.left = self.left.checked_sub(1)?;
        // INVARIANT: One of ours.
        Some(Slot {
            ctx: self.ctx,
            late: false,
        })
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        if self.left > 0 {
            // SAFETY: Alive, for we own references to `reqs`, which are given up last.
            unsafe {
                self.ctx.as_ref().ring.unclaim(self.left);
                PercpuRef::put_many(&raw const (*self.ctx.as_ptr()).reqs, self.left as usize);
            }
        }
    }
}

impl User {
    /// Starts `nr` requests and returns how many were taken.
    ///
    /// An error is that of the first request; one of a later request ends the call.
    pub(crate) fn submit(&self, nr: u32, iocbs: Iocbs) -> Result<u32> {
        let nr = nr.min(self.ring.layout().nr());
        let identity = if self.identity().is_current() {
            None
        } else {
            Some(Arc::new(Identity::current(), GFP_KERNEL_ACCOUNT)?)
        };
        let mut slots = Slots::claim(self, nr);
        let mut batch = None;
        let mut taken = 0;
        let mut queued = 0;
        let mut all = || {
            while taken < nr {
                let listed = self.read(iocbs, taken)?;
                queued += u64::from(submit_one(&mut slots, &mut batch, &identity, &listed)?);
                taken += 1;
            }
            Ok(())
        };
        let end: Result = if nr >= PLUG_FROM {
            plug::plugged(all)
        } else {
            all()
        };
        Counter::Submitted.add(taken.into());
        Counter::Queued.add(queued);
        self.note_death();
        match end {
            Err(e) => {
                Counter::Refused.add(1);
                if taken == 0 {
                    Err(e)
                } else {
                    Ok(taken)
                }
            }
            Ok(()) => Ok(taken),
        }
    }
}

/// A request of a call.
struct Listed {
    iocb: Iocb,
    /// Where it is, if it is one of those that kernel AIO has.
    addr: Option<usize>,
}

impl User {
    /// Reads one of those requests.
    fn read(&self, iocbs: Iocbs, i: u32) -> Result<Listed> {
        let at = |array: usize, size| array.wrapping_add((i as usize).wrapping_mul(size));
        let (iocb, addr) = match iocbs {
            Iocbs::Pointers { at: words, compat } => {
                let word = if compat { 4 } else { mem::size_of::<usize>() };
                let addr = user::read_word(at(words, word), compat)?;
                (user::read(addr)?, Some(addr))
            }
            Iocbs::Array(array) => (user::read(at(array, mem::size_of::<Iocb>()))?, None),
            Iocbs::Shared(first) => (self.submission.read(first, i)?, None),
        };
        Ok(Listed { iocb, addr })
    }
}

/// Starts a request; true if the file goes on with it by itself. The order of the checks is that of
/// kernel AIO, which decides the error when several apply.
fn submit_one(
    slots: &mut Slots,
    batch: &mut Option<Batch>,
    identity: &Option<Arc<Identity>>,
    listed: &Listed,
) -> Result<bool> {
    let iocb = &listed.iocb;
    let native = listed.addr.is_none();
    iocb.check(native)?;
    let slot = slots.next().ok_or(EAGAIN)?;
    if native && iocb.is_noop() {
        let eventfd = iocb.eventfd().map(EventFd::get).transpose()?;
        let event = ops::noop(iocb.data(), &iocb.decode(native)?)?;
        batch
            .get_or_insert_with(|| Batch::new(&slot))
            .post(slot, &event, eventfd);
        return Ok(false);
    }
    let registered = &slot.ctx().registered;
    let file = if native && iocb.is_file_fixed() {
        FileRef::Registered(registered.files.get(iocb.fd()).ok_or(EBADF)?)
    } else {
        FileRef::Own(file_io::get(iocb.fd())?)
    };
    let buffer = match native {
        true => iocb.fixed_buffer()?,
        false => None,
    };
    let buffer = match buffer {
        Some(index) => Some(registered.buffers.get(index).ok_or(EFAULT)?),
        None => None,
    };
    let eventfd = iocb.eventfd().map(EventFd::get).transpose()?;
    let obj = match listed.addr {
        Some(addr) => {
            Iocb::write_key(addr)?;
            addr as u64
        }
        None => iocb.data(),
    };
    let args = iocb.decode(native)?;
    let identity = identity.clone();
    let request = Prepared::new(slot, file, buffer, eventfd, identity, obj, args.data)?;
    ops::start(request, &args)
}
