// SPDX-License-Identifier: GPL-2.0

//! Requests (kiocb): what one is in each stage of its life, and who owns it then.
//!
//! ```text
//! Prepared ── start ──> the file's method has it ──> Ended ──> its event is in the ring
//!     └── dropped: refused, no event
//! ```
//!
//! A file may complete a request before its method has returned, and go on using it until it does.
//! So both the submitter, until the method returns, and the completion own a half of it, and
//! whoever comes last ends it. Nobody else touches it, and the result is decided in one place:
//! [`Request::completed`], or [`Prepared::start`] if the method returned it.
//!
//! # Locks
//!
//! None. `state` is where the two halves meet:
//!
//! | who | does | partner |
//! |---|---|---|
//! | completion | `result`, then xchg (full) to `COMPLETED` | submitter's load-acquire or xchg |
//! | submitter | its last access, then xchg (full) to `SUBMITTED` | completion's load-acquire or xchg |
//!
//! Who sees the other's mark was last. To look first saves the exchange in the usual cases.

use crate::{
    bindings,
    context::Slot,
    kernel_ext::file_io::{
        self,
        Direction,
        Kiocb,
        UserBuffer, //
    },
    ring::Event,
};
use core::{cell::UnsafeCell, ptr::NonNull};
use kernel::{
    error::code,
    ffi,
    fs::File,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Full, //
        }, //
    },
};

/// The method has the request and hasn't returned.
const SUBMITTING: u32 = 0;
/// The submitter has let go of it.
const SUBMITTED: u32 = 1;
/// The completion has let go of it.
const COMPLETED: u32 = 2;

/// A request.
///
/// # Invariants
///
/// * `kiocb` is the first field, and its file is `file`.
/// * `result` is written by the completion only, before `state` says `COMPLETED`, and read by who
///   ends the request only.
#[repr(C)]
pub(crate) struct Request {
    kiocb: Kiocb,
    file: ARef<File>,
    slot: Slot,
    obj: u64,
    data: u64,
    result: UnsafeCell<i64>,
    state: Atomic<u32>,
    /// Whether the file system is kept from being frozen.
    writing: bool,
}

/// A request that no file's method has seen. If it is dropped, it was refused.
pub(crate) struct Prepared(KBox<Request>);

impl Prepared {
    /// A request whose event will carry `obj` and `data`. Fails with `ENOMEM`.
    pub(crate) fn new(slot: Slot, file: ARef<File>, obj: u64, data: u64) -> Result<Self> {
        let memory = slot.ctx().engine().requests.alloc()?;
        Ok(Self(KBox::write(
            memory,
            Request {
                kiocb: Kiocb::new(),
                file,
                slot,
                obj,
                data,
                result: UnsafeCell::new(0),
                state: Atomic::new(SUBMITTING),
                writing: false,
            },
        )))
    }

    /// The file that it is for.
    pub(crate) fn file(&self) -> &File {
        &self.0.file
    }

    /// Fills in the kernel's part of it.
    pub(crate) fn prepare(&mut self, pos: i64, rw_flags: u32, dir: Direction) -> Result {
        let request = &mut *self.0;
        // SAFETY: `file` is kept by the request.
        unsafe {
            request
                .kiocb
                .prepare(&request.file, pos, rw_flags, dir, Request::completed)
        }
    }

    /// Hands it to the file's method; true if the file goes on with it by itself. From here on there
    /// will be an event. [`Self::prepare`] must have been called for `dir`, and the file must have
    /// the method.
    pub(crate) fn start(mut self, buffer: &mut UserBuffer, dir: Direction) -> bool {
        if dir == Direction::Write && file_io::is_regular(self.file()) {
            self.0.kiocb.start_write();
            self.0.writing = true;
        }

        let request = NonNull::from(Box::leak(self.0));
        // SAFETY: The request stays until both halves are given up. Ours is below.
        let ret = unsafe { file_io::call((*request.as_ptr()).kiocb.as_raw(), buffer, dir) };
        if ret != -(bindings::RAIO_EIOCBQUEUED as isize) {
            // The file has nothing to do with it any more: both halves are ours.
            // SAFETY: It was leaked above.
            Ended(unsafe { KBox::from_raw(request.as_ptr()) }).end(restarted(ret));
            return false;
        }
        // SAFETY: Our half of it is left.
        if let Some(ended) = unsafe { Request::give_up(request, SUBMITTED, COMPLETED) } {
            ended.end_as_completed();
        }
        true
    }
}

/// There is no call to restart: others of it may be running already.
fn restarted(ret: isize) -> i64 {
    let restart = [
        code::ERESTARTSYS,
        code::ERESTARTNOINTR,
        code::ERESTARTNOHAND,
        code::ERESTART_RESTARTBLOCK,
    ];
    if restart.iter().any(|e| ret == e.to_errno() as isize) {
        EINTR.to_errno().into()
    } else {
        ret as i64
    }
}

impl Request {
    /// The file has ended the request.
    ///
    /// # Safety
    ///
    /// To be called as `ki_complete` only, by a method that [`Prepared::start`] called. It may be in
    /// any context.
    unsafe extern "C" fn completed(kiocb: *mut bindings::kiocb, result: ffi::c_long) {
        // `Kiocb` is the first field, and transparent.
        const _: () = assert!(core::mem::offset_of!(Request, kiocb) == 0);
        // SAFETY: It is a request's, so it isn't null.
        let request = unsafe { NonNull::new_unchecked(kiocb.cast::<Request>()) };
        // SAFETY: The completion's half is ours, and with it the right to write the result.
        unsafe { *(*request.as_ptr()).result.get() = result as i64 };
        // SAFETY: The completion's half is ours.
        if let Some(ended) = unsafe { Self::give_up(request, COMPLETED, SUBMITTED) } {
            ended.end_as_completed();
        }
    }

    /// Gives up a half of a request. Who comes last gets the whole.
    ///
    /// # Safety
    ///
    /// The half that `mark` stands for must be the caller's. `other` stands for the other half.
    unsafe fn give_up(request: NonNull<Self>, mark: u32, other: u32) -> Option<Ended> {
        // SAFETY: Alive, for we have a half of it.
        let state = unsafe { &(*request.as_ptr()).state };
        // Acquire, Full: what the other half did comes before what we do with the whole. Full: what
        // we did comes before what the other half does with it. See the table above.
        let last = state.load(Acquire) == other || state.xchg(mark, Full) == other;
        // SAFETY: It was leaked by `start`, and the other half was given up.
        last.then(|| Ended(unsafe { KBox::from_raw(request.as_ptr()) }))
    }
}

/// A request that nobody else has any more.
struct Ended(KBox<Request>);

impl Ended {
    fn end_as_completed(self) {
        // SAFETY: The completion has written it and given up its half.
        let result = unsafe { *self.0.result.get() };
        self.end(result);
    }

    /// Lets go of everything and posts the event. The file goes first: who sees the event may rely
    /// on the request no longer using it.
    fn end(mut self, result: i64) {
        if self.0.writing {
            self.0.kiocb.end_write();
        }
        let Request {
            file,
            slot,
            obj,
            data,
            ..
        } = KBox::into_inner(self.0);
        drop(file);
        slot.post(&Event {
            data,
            obj,
            res: result,
            res2: 0,
        });
    }
}
