// SPDX-License-Identifier: GPL-2.0

//! Polled completion: requests whose device doesn't tell when they have ended, but has to be asked.
//!
//! A context that was set up for it has its transfers sent in that manner, where file and device can. Then they
//! are here, from the end of the call that submitted them until they have ended. Whoever waits for events asks;
//! and when the context ends, a worker does. Each time, devices are asked until one has something to say; that ends
//! requests, maybe of others, too, who find them ended when they ask. What has ended is posted together.
//!
//! On the direct path nobody else ends a request that is polled for: when its bio has ended that is only marked.
//! Of an ordinary one there is a reference here. Its file ends it as every other, or gives it back as one that
//! would have had to wait: then it is a worker's, which doesn't poll, and isn't here any more.
//!
//! # Locks
//!
//! `polled`, a mutex: so a place isn't used again while its bio is asked for. All that ends requests nests inside.

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
    new_mutex,
    prelude::*,
    sync::{
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

    /// Asks for it. True if anything has ended. Process context.
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
    /// They must have been submitted to be polled for, in this context, and be the caller's; of requests that is a
    /// reference to each.
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
        let (direct, requests) = {
            let mut polled = self.polled.lock();
            let direct = look(&mut polled.direct, &self.direct);
            let requests = look(&mut polled.requests, &self.requests);
            // Relaxed: see `any`.
            let _ = self.nr.fetch_sub(direct.n + requests.n, Relaxed);
            (direct, requests)
        };
        let mut posted = 0;
        if direct.n > 0 {
            // SAFETY: They are of the context, and have ended.
            let (ready, mut others) = unsafe { deliver::direct(ctx, direct) };
            posted += ready.n;
            // SAFETY: They are free, and live as long as the context.
            unsafe { ready.push_on(&ctx.cache().places.free) };
            while let Some(this) = others.pop() {
                // SAFETY: It has ended, and is ours.
                unsafe { Direct::go_on(this) }
            }
        }
        if requests.n > 0 {
            // SAFETY: The references are ours.
            let (n, memory) = unsafe { deliver::requests(ctx, requests) };
            posted += n;
            // SAFETY: It is ours.
            unsafe { memory.push_on(&ctx.cache().stock.free) };
        }
        posted
    }
}

/// Asks for those and the ones that were added, until something has ended. Takes out all that have.
fn look<T: Polled>(list: &mut List<T>, added: &Stack<T>) -> List<T> {
    list.append(added);
    let mut over = List::new();
    let has_said = |this| {
        // SAFETY: It is polled for.
        let said = unsafe { T::is_over(this) || T::ask(this) };
        if !said {
            // There may be many.
            task::relax();
        }
        said
    };
    if !list.each().any(has_said) {
        return over;
    }
    let mut all = list.take();
    while let Some(this) = all.pop() {
        // SAFETY: As above; each goes to one of the two.
        unsafe {
            if T::is_over(this) {
                over.push(this);
            } else {
                list.push(this);
            }
        }
    }
    over
}
