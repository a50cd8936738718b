// SPDX-License-Identifier: GPL-2.0

//! Requests that a worker carries out, since that may sleep. It acts with the credentials of who has
//! submitted the request.
//!
//! Each user has so many workers at once; what comes when all are busy waits for its turn, in the
//! order in which it came, and can be cancelled until then. So one user whose device is stuck doesn't
//! keep others from being served.
//!
//! # Locks
//!
//! `pool`, a spin lock with interrupts off. Nothing nests inside of it.

use super::{
    inflight::Cancel,
    Prepared,
    Request, //
};
use crate::kernel_ext::{
    fifo::{
        Fifo,
        Linked,
        Links, //
    },
    file_io, task,
    work::{
        self,
        HasWork, //
    },
};
use core::{
    mem::offset_of,
    ptr::NonNull, //
};
use kernel::{
    new_spinlock_irq,
    prelude::*,
    sync::{
        Arc,
        SpinLockIrq, //
    },
};

/// Requests of one user that are carried out at the same time.
const MOST: u32 = 64;

/// What is done.
#[derive(Clone, Copy)]
pub(crate) enum Job {
    /// What was written is made to last.
    Sync {
        /// Not what is known of the file besides.
        data_only: bool,
    },
}

/// A request's part of this. Whether it is employed is known from what is done with it.
#[derive(Clone, Copy)]
pub(super) struct Employment {
    job: Job,
    /// Guarded by `pool`, as the next.
    links: Links<Request>,
    waits: bool,
}

/// The workers of one user.
#[pin_data]
pub(crate) struct Workers {
    #[pin]
    pool: SpinLockIrq<Pool>,
}

/// # Invariants
///
/// The members of `waiting` are the requests that say so. There are none unless [`MOST`] workers are
/// busy, of which there are `busy`.
struct Pool {
    waiting: Fifo<Request, TURN>,
    busy: u32,
}

const TURN: u64 = 2;

// SAFETY: Always that field, which only the queue accesses.
unsafe impl Linked<TURN> for Request {
    unsafe fn links(this: NonNull<Self>) -> *mut Links<Self> {
        // SAFETY: A member is employed, and alive, as the caller says.
        unsafe { &raw mut (*Self::employment(this)).links }
    }
}

const JOB: u64 = 0;

// SAFETY: The offset of a field of that type.
unsafe impl HasWork<JOB> for Request {
    const OFFSET: usize = offset_of!(Request, work);

    unsafe fn run(this: NonNull<Self>) {
        // SAFETY: The file's half was handed over by `Workers::employ`, and nobody gives it up before
        // we do. Employed is for good.
        unsafe {
            let ctx = (*this.as_ptr()).slot.ctx();
            // Whoever has the turn next may be of another context.
            let (workers, engine) = (ctx.workers().clone(), ctx.engine().clone());
            let file = &(*this.as_ptr()).file;
            let carry_out = || match (*Self::employment(this)).job {
                Job::Sync { data_only } => file_io::sync(file, data_only),
            };
            // Without any it has not come here. As itself a worker may do everything.
            let result = match &(*this.as_ptr()).credentials {
                Some(credentials) => task::acting_as(credentials, carry_out),
                None => EPERM.to_errno().into(),
            };
            Self::complete(this, result);
            if let Some(next) = workers.next() {
                work::queue::<Self, JOB>(next, &engine.workers);
            }
        }
    }
}

impl Workers {
    /// None is busy. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                pool <- new_spinlock_irq!(
                    Pool {
                        waiting: Fifo::new(),
                        busy: 0,
                    },
                    "raio_workers"
                ),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Has a request carried out, at once or when it has its turn.
    ///
    /// # Safety
    ///
    /// It must be employed, and the file's half the caller's, who hands it over.
    unsafe fn employ(&self, request: NonNull<Request>) {
        let mut pool = self.pool.lock();
        // SAFETY: Alive, for its half is ours, and nobody else has seen it.
        unsafe {
            if pool.busy == MOST {
                (*Request::employment(request)).waits = true;
                pool.waiting.push(request);
                return;
            }
            pool.busy += 1;
            drop(pool);
            let engine = (*request.as_ptr()).slot.ctx().engine();
            work::queue::<Request, JOB>(request, &engine.workers);
        }
    }

    /// A worker has done its job. Returns whose turn it is.
    fn next(&self) -> Option<NonNull<Request>> {
        let mut pool = self.pool.lock();
        let next = pool.waiting.first();
        match next {
            // SAFETY: It is a member, and alive.
            Some(next) => unsafe { pool.leave(next) },
            None => pool.busy -= 1,
        }
        next
    }

    /// Ends a request whose turn hasn't come, as cancelled; false if it has. Any context.
    ///
    /// # Safety
    ///
    /// The caller must have a reference to it, and it have been employed.
    pub(super) unsafe fn withdraw(request: NonNull<Request>) -> bool {
        // SAFETY: Alive, for the caller has a reference. Who waits is a member, and its half then ours.
        unsafe {
            let workers = (*request.as_ptr()).slot.ctx().workers();
            let mut pool = workers.pool.lock();
            let waits = (*Request::employment(request)).waits;
            if waits {
                pool.leave(request);
                drop(pool);
                Request::complete(request, ECANCELED.to_errno().into());
            }
            waits
        }
    }
}

impl Pool {
    /// # Safety
    ///
    /// `request` must wait here.
    unsafe fn leave(&mut self, request: NonNull<Request>) {
        // SAFETY: A member, and so alive.
        unsafe {
            self.waiting.remove(request);
            (*Request::employment(request)).waits = false;
        }
    }
}

impl Request {
    /// # Safety
    ///
    /// It must be alive and employed.
    unsafe fn employment(this: NonNull<Self>) -> *mut Employment {
        // SAFETY: Alive. Employed, so it is that.
        unsafe { &raw mut (*(*this.as_ptr()).part.get()).employment }
    }
}

impl Prepared {
    /// Has a worker carry it out, as the caller. From here on there will be an event.
    pub(crate) fn employ(mut self, job: Job) {
        self.0.part.get_mut().employment = Employment {
            job,
            links: Links::new(),
            waits: false,
        };
        self.0.credentials = Some(task::credentials());
        self.0.entry.get_mut().cancel = Some(Cancel::Withdraw);
        let request = self.leak();
        // SAFETY: The request stays until both halves are given up. Ours is below.
        unsafe {
            (*request.as_ptr()).slot.ctx().workers().employ(request);
            Request::submitted(request);
        }
    }
}
