// SPDX-License-Identifier: GPL-2.0

//! Polled completion: requests whose device doesn't tell when they have ended, but has to be asked.
//!
//! A context that was set up for it has its transfers sent in that manner, where file and device can. Then they
//! are here, from the end of the call that submitted them until they have ended. Whoever waits for events asks;
//! and when the context ends, a worker does. Each time, devices are asked until one has something to say; that ends
//! requests, maybe of others, too, who find them ended when they ask. What has ended is posted together.
//!
//! On the direct path nobody else ends a request that is polled for: when its bio has ended that is only marked.
//! An ordinary one isn't handed over but here instead, as if its submission went on until it has ended. Its file
//! may give it back as one that would have had to wait: then it is a worker's, which doesn't poll, and is handed
//! over.
//!
//! # Locks
//!
//! `polled`, a mutex: so a place isn't used again while its bio is asked for. All that ends requests nests inside,
//! and that of [`inflight`](super::inflight).

use super::{
    deliver,
    direct::Direct,
    stack::{
        List,
        Stack,
        Stacked, //
    },
    Request, //
};
use crate::{
    context::Kioctx,
    kernel_ext::task,
    stats::Counter, //
};
use core::ptr::NonNull;
use kernel::{
    fs::File,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Mutex, //
    },
};

/// What is polled for.
pub(super) trait Polled: Stacked {
    /// Is there nothing more to ask for? What it has come to is seen then.
    ///
    /// # Safety
    ///
    /// It must be among those that are polled for.
    unsafe fn is_over(this: NonNull<Self>) -> bool;

    /// Asks for it, unless it is over. True if it is, or anything has ended. Process context.
    ///
    /// # Safety
    ///
    /// As for [`Self::is_over`].
    unsafe fn ask(this: NonNull<Self>) -> bool;
}

struct Lists {
    direct: List<Direct>,
    requests: List<Request>,
}

// SAFETY: Requests are handled by every thread.
unsafe impl Send for Lists {}

/// Those of a context.
#[pin_data]
pub(crate) struct Iopoll {
    wanted: bool,
    /// How many there are.
    nr: Atomic<u32>,
    /// Those that came since the last time.
    direct: Stack<Direct>,
    requests: Stack<Request>,
    #[pin]
    polled: Mutex<Lists>,
}

impl Iopoll {
    /// None.
    pub(super) fn new(wanted: bool) -> impl PinInit<Self> {
        pin_init!(Self {
            wanted,
            nr: Atomic::new(0),
            direct: Stack::new(),
            requests: Stack::new(),
            polled <- new_mutex!(
                Lists {
                    direct: List::new(),
                    requests: List::new(),
                },
                "raio_iopoll"
            ),
        })
    }

    /// Was the context set up for it?
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Is there anything to ask for? Who adds some tells those who sleep.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        // Relaxed: who sleeps has a full barrier before, whose partner is in `Kioctx::look_again`.
        self.nr.load(Relaxed) != 0
    }

    /// Adds some. Those who wait have to [look again](Kioctx::look_again) then.
    ///
    /// # Safety
    ///
    /// They must have been submitted to be polled for, in this context, and be the caller's; of requests that is the
    /// submitter's part, which is who polls's from then on.
    pub(super) unsafe fn add(&self, direct: List<Direct>, requests: List<Request>) {
        let n = direct.n + requests.n;
        Counter::Iopolled.add(n.into());
        // Relaxed: see `any`.
        self.nr.add(n, Relaxed);
        // SAFETY: They live until they are taken out.
        unsafe {
            direct.push_on(&self.direct);
            requests.push_on(&self.requests);
        }
    }

    /// Asks once. Returns how many events were posted. `ctx` is the context, which the caller keeps. Process
    /// context.
    pub(crate) fn ask(&self, ctx: &Kioctx) -> u32 {
        let (mut places, mut memory) = (List::new(), List::new());
        // SAFETY: None are added. What has ended is free, and lives as long as the context.
        unsafe {
            let posted = self.add_and_ask(ctx, &mut places, &mut memory);
            places.push_on(&ctx.cache().places.free);
            memory.push_on(&ctx.cache().stock.free);
            posted
        }
    }

    /// Adds some of who waits for events next, and asks once. Returns how many events were posted, and in the lists
    /// what these were in, which is free now. `ctx` is the context, which the caller keeps. Process context.
    ///
    /// # Safety
    ///
    /// As for [`Self::add`].
    pub(super) unsafe fn add_and_ask(
        &self,
        ctx: &Kioctx,
        direct: &mut List<Direct>,
        requests: &mut List<Request>,
    ) -> u32 {
        let came = direct.n + requests.n;
        let went = {
            let mut polled = self.polled.lock();
            let went = look(&mut polled.direct, &self.direct, direct, |_| true);
            // With the lock: so each is found here or there.
            // SAFETY: Its submitter's part is ours.
            let is_ours =
                |this| unsafe { Request::handover(this).has_ended() || !ctx.inflight().join(this) };
            let went = went + look(&mut polled.requests, &self.requests, requests, is_ours);
            // Those that others find don't come and go.
            // Relaxed: see `any`.
            if came > went {
                self.nr.add(came - went, Relaxed);
            } else if went > came {
                let _ = self.nr.fetch_sub(went - came, Relaxed);
            }
            went
        };
        if came > 0 {
            Counter::Iopolled.add(came.into());
        }
        if came > went {
            ctx.look_again();
        }
        let mut posted = 0;
        if direct.n > 0 {
            let mut others = List::new();
            // SAFETY: They are of the context, and have ended.
            unsafe { deliver::direct(ctx, direct, &mut others) };
            posted += direct.n;
            while let Some(this) = others.pop() {
                // SAFETY: It has ended, and is ours.
                unsafe { Direct::go_on(this) }
            }
        }
        if requests.n > 0 {
            // SAFETY: Who has ended them has left them to the submitter, which we are.
            let (n, memory) = unsafe { deliver::requests(ctx, requests.take(), |_| true) };
            posted += n;
            *requests = memory;
        }
        posted
    }

    /// Is an ordinary one of that name among them? Process context.
    pub(super) fn has(&self, obj: u64) -> bool {
        if !self.wanted {
            return false;
        }
        let mut polled = self.polled.lock();
        polled.requests.append(&self.requests);
        let mut all = polled.requests.each();
        // SAFETY: It is polled for, and its name doesn't change.
        all.any(|this| unsafe { (*this.as_ptr()).obj } == obj)
    }

    /// The file of the oldest ordinary one, and how many there are. Process context.
    pub(super) fn holder(&self) -> (Option<ARef<File>>, usize) {
        let mut polled = self.polled.lock();
        polled.requests.append(&self.requests);
        let oldest = polled.requests.each().next();
        // SAFETY: It is polled for, and has its file until it has ended and was taken out.
        let file = oldest.map(|this| unsafe { ARef::from(&*(*this.as_ptr()).file) });
        (file, polled.requests.n as usize)
    }
}

/// Asks for those and the ones that were added, or are `new`, until something has ended. Takes out all that are over,
/// of which `is_ours` says whose they are then, and returns how many. Those that are ours are where the new ones were.
#[inline(always)]
fn look<T: Polled>(
    list: &mut List<T>,
    added: &Stack<T>,
    new: &mut List<T>,
    mut is_ours: impl FnMut(NonNull<T>) -> bool,
) -> u32 {
    list.append(added);
    if new.n > 0 {
        list.append_list(new.take());
    }
    let has_said = |this| {
        // SAFETY: It is polled for.
        let said = unsafe { T::ask(this) };
        if !said {
            // There may be many.
            task::relax();
        }
        said
    };
    if !list.each().any(has_said) {
        return 0;
    }
    let had = list.n;
    // SAFETY: As above; what isn't kept is whose `is_ours` says.
    list.retain(|this| unsafe {
        let is_over = T::is_over(this);
        if is_over && is_ours(this) {
            new.push(this);
        }
        !is_over
    });
    had - list.n
}
