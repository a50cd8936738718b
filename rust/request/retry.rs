// SPDX-License-Identifier: GPL-2.0

//! Reads and writes: how each is tried, and what becomes of one that would have to wait.
//!
//! The submitter tries first, and doesn't wait. What would have to is parked, and whoever can say
//! that there is a point in another attempt kicks it: then a worker makes that, as the submitter
//! would. It may park again. One that gets on a part of the way goes on with the rest.
//!
//! | file | first | then waits for | then |
//! |---|---|---|---|
//! | with `FMODE_NOWAIT` that gets ready: pipe, socket | not waiting | being ready | not waiting, again |
//! | another that gets ready: terminal | - | being ready | waiting |
//! | buffered read, `FOP_BUFFER_RASYNC` | what is cached | its page, after a worker has begun to read it | the page |
//! | else with `FMODE_NOWAIT`: direct I/O, buffered write with `FOP_BUFFER_WASYNC` | not waiting | - | waiting |
//! | else | - | - | waiting |
//!
//! A file may say only when it ends a request that it would have had to wait. That is taken as if it
//! had said so at once.
//!
//! # Who has it
//!
//! One that is parked or queued belongs to nobody, and to who changes that: who kicks it, who cancels
//! it, the worker whose turn it is. For the wait for a page [`page_wait`](crate::kernel_ext::page_wait)
//! says who it is, for that for the file [`ownership`](super::ownership), and for the queue its lock.
//! So it is queued once at most, and nobody kicks what has ended. A kick during an attempt is seen by
//! who makes it before that one can park the request.
//!
//! # Locks
//!
//! None here.

use super::{
    inflight::Cancel,
    stock,
    Prepared,
    Request,
    Submitted,
    Workers, //
};
use crate::{
    bindings,
    context::Batch,
    kernel_ext::{
        file_io::{
            self,
            Asking,
            Blocks,
            Direction,
            Lock,
            Manner,
            UserBuffer, //
        },
        file_poll::{
            self,
            Watch, //
        },
        page_wait::PageWaiter,
        plug::{
            self,
            Plug, //
        },
        task, //
    },
    stats::Counter,
};
use core::{mem::offset_of, ptr::NonNull};
use kernel::{
    error::code,
    prelude::*,
    sync::atomic::Relaxed, //
};

/// A file that has said so often that it is ready and then wasn't is waited for.
const IN_VAIN: u8 = 16;

/// So many requests of a user may be cancelled while they wait for pages that don't come.
const MOST_LEFT: u32 = 1024;

/// What a method says when its file goes on with the request.
const QUEUED: isize = -(bindings::RAIO_EIOCBQUEUED as isize);

/// A request's part of this.
pub(super) struct Retry {
    buffer: UserBuffer,
    dir: Direction,
    pos: i64,
    /// Bytes that earlier attempts have moved.
    done: usize,
    asking: Asking,
    /// It waits for a page, or that has come and there was no attempt since.
    kicked: bool,
    /// It watches its file.
    watches: bool,
    /// How often that was ready in vain.
    in_vain: u8,
}

impl Retry {
    /// What the file has to be ready for.
    fn events(&self) -> u32 {
        file_poll::from_user(match self.dir {
            Direction::Read => (bindings::POLLIN | bindings::POLLRDNORM) as u16,
            Direction::Write => (bindings::POLLOUT | bindings::POLLWRNORM) as u16,
        })
    }
}

// SAFETY: The offset of a field of that type.
unsafe impl PageWaiter for Request {
    const OFFSET: usize = offset_of!(Request, page);

    unsafe fn kicked(this: NonNull<Self>) {
        Counter::Kicked.add(1);
        // SAFETY: It is ours, and with it the file's half; we hand it over.
        unsafe { Workers::employ(this) }
    }

    unsafe fn free(this: NonNull<Self>) {
        // SAFETY: `Own::leaves_memory` has left it.
        unsafe { stock::free(this) }
    }
}

/// What came of an attempt.
enum Tried {
    /// That is what the last one said.
    Ended(i64),
    /// The file goes on with it; or the page is waited for, if it was told to.
    Queued,
    /// It has got on, and would have to wait for the next page.
    GotOn,
    /// It would have to wait.
    WouldWait,
}

impl Prepared {
    /// Reads or writes, now or when that doesn't make anybody wait. From here on there will be an event.
    /// It must be [prepared](Self::prepare) for `dir` and `pos`, and the file must have the method.
    pub(crate) fn transfer(mut self, buffer: UserBuffer, dir: Direction, pos: i64) -> Submitted {
        let asking = self.0.kiocb.asking();
        let tries = matches!(asking, Asking::Impatiently | Asking::Plainly);
        let takes = tries && self.0.kiocb.is_of_disk();
        let places = takes.then(|| Blocks::of(&self.0.file).requests(pos, buffer.len()));
        if takes {
            self.0.kiocb.poll_one(buffer.len(), buffer.pieces());
            if asking == Asking::Plainly {
                // Nobody else does it for who doesn't want to wait.
                self.0.kiocb.make_queue();
            }
        }
        *self.plan(dir, pos, asking) = buffer;
        match places {
            Some(places) => self.go_plugged(asking, places),
            None => {
                let waits = asking == Asking::Impatiently && self.0.kiocb.is_cold();
                self.go(asking, waits)
            }
        }
    }

    /// The same, if it is known that it would have to wait.
    pub(super) fn transfer_later(
        mut self,
        buffer: UserBuffer,
        dir: Direction,
        pos: i64,
    ) -> Submitted {
        let asking = self.0.kiocb.asking();
        *self.plan(dir, pos, asking) = buffer;
        self.go(asking, true)
    }

    /// Says what is to be transferred, but for the memory, which is to be put or set there.
    #[inline(always)]
    pub(crate) fn plan(&mut self, dir: Direction, pos: i64, asking: Asking) -> &mut UserBuffer {
        let retry = self.0.retry.get_mut().insert(Retry {
            buffer: UserBuffer::unset(),
            dir,
            pos,
            done: 0,
            asking,
            kicked: false,
            watches: false,
            in_vain: 0,
        });
        &mut retry.buffer
    }

    /// Makes the first attempt, which takes so many places at a disk, with a plug for it. If there is no place, who
    /// asks plainly is told so.
    #[inline(never)]
    pub(crate) fn go_plugged(self, asking: Asking, places: u32) -> Submitted {
        let go = |(): &mut (), _: &Plug| {
            let waits = self.0.kiocb.reserve(places) < places;
            if waits && asking == Asking::Plainly {
                return self.end(EAGAIN.to_errno().into());
            }
            self.go(asking, waits)
        };
        plug::plugged(places, &mut (), go, |(), send| send())
    }

    /// Makes the first attempt, unless it is known that it `waits`, whatever it is told. It must have been planned,
    /// with that `asking`, at the position that it is prepared for.
    #[inline(always)]
    pub(crate) fn go(self, asking: Asking, waits: bool) -> Submitted {
        let request = self.leak();
        // SAFETY: Both halves are ours.
        unsafe {
            let tried = match asking {
                _ if waits => Tried::WouldWait,
                Asking::Plainly => Request::attempt(request, Manner::AsItIs),
                Asking::Impatiently => {
                    (*request.as_ptr()).kiocb.hurry();
                    match Request::ask_aimed(request, Manner::Impatient) {
                        // At once: that is what most say.
                        Ok(QUEUED) => Tried::Queued,
                        said => Request::answered(request, Manner::Impatient, said),
                    }
                }
                Asking::WhenReady | Asking::Never => Tried::WouldWait,
            };
            let waits = matches!(tried, Tried::GotOn | Tried::WouldWait);
            let over = match tried {
                Tried::Ended(last) => Some(last),
                Tried::Queued => None,
                Tried::GotOn | Tried::WouldWait => {
                    let entry = (*request.as_ptr()).entry.get();
                    (*entry).cancel = Some(Cancel::Parked);
                    Request::inflight(request).late(&mut (*entry).is_late);
                    Request::park(request)
                }
            };
            match over {
                Some(last) => Submitted::ended(request, Request::total(request, last)),
                None => Submitted::going_on(request, waits),
            }
        }
    }
}

/// There is no call to restart: others of it may be running already.
#[inline]
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

/// Does it say that it would have had to wait, if it was told not to? Some files have another word
/// for it.
#[inline]
fn would_wait(ret: i64) -> bool {
    ret == i64::from(EAGAIN.to_errno()) || ret == i64::from(EOPNOTSUPP.to_errno())
}

impl Request {
    /// # Safety
    ///
    /// It must be alive, and nobody else have it.
    #[inline]
    unsafe fn retry<'a>(this: NonNull<Self>) -> Option<&'a mut Retry> {
        // SAFETY: As the caller says.
        unsafe { (*(*this.as_ptr()).retry.get()).as_mut() }
    }

    /// Is it a read or a write?
    ///
    /// # Safety
    ///
    /// It must be alive.
    pub(super) unsafe fn is_transfer(this: NonNull<Self>) -> bool {
        // SAFETY: Alive. That doesn't change once it was leaked.
        unsafe { (*(*this.as_ptr()).retry.get()).is_some() }
    }

    /// What is locked while it is carried out.
    ///
    /// # Safety
    ///
    /// It must be alive, and nobody be about to try it.
    pub(super) unsafe fn locks(this: NonNull<Self>) -> Option<Lock> {
        // SAFETY: Alive.
        unsafe {
            if Self::is_transfer(this) {
                (*this.as_ptr()).kiocb.locks()
            } else {
                None
            }
        }
    }

    /// Has its file try, and returns what that says, or what it isn't asked for.
    ///
    /// # Safety
    ///
    /// It must be a transfer, and the caller's, but belongs to the file if that says `QUEUED`.
    unsafe fn ask(this: NonNull<Self>, manner: Manner) -> Result<isize, Tried> {
        let request = this.as_ptr();
        // SAFETY: It is ours.
        unsafe {
            let Some(retry) = Self::retry(this) else {
                return Err(Tried::Ended(EINVAL.to_errno().into()));
            };
            // A stream has no position, and sockets refuse all but 0.
            let moved = if retry.done == 0 || file_io::gets_ready(&(*request).file) {
                0
            } else {
                retry.done as i64
            };
            (*request).kiocb.aim(retry.pos.wrapping_add(moved), manner);
            if manner == Manner::Patient {
                (*request).kiocb.make_queue();
            }
            Self::ask_aimed(this, manner)
        }
    }

    /// The same where it is known how and at which position.
    ///
    /// # Safety
    ///
    /// As for [`Self::ask`].
    #[inline(always)]
    unsafe fn ask_aimed(this: NonNull<Self>, manner: Manner) -> Result<isize, Tried> {
        let request = this.as_ptr();
        // SAFETY: It is ours, until the method may have queued it.
        unsafe {
            let Some(retry) = Self::retry(this) else {
                return Err(Tried::Ended(EINVAL.to_errno().into()));
            };
            let (done, dir) = (retry.done, retry.dir);
            let buffer: *const UserBuffer = &raw const retry.buffer;
            if dir == Direction::Write {
                match (*request).kiocb.start_write(manner != Manner::Patient) {
                    Ok(keeps) => (*request).writing = keeps,
                    Err(e) if manner == Manner::AsItIs => {
                        return Err(Tried::Ended(e.to_errno().into()));
                    }
                    Err(_) => return Err(Tried::WouldWait),
                }
            }
            let call = || file_io::call((*request).kiocb.as_raw(), buffer, done, dir);
            Ok(if manner == Manner::Quick {
                file_io::without_faults(call)
            } else {
                call()
            })
        }
    }

    /// Tries, as long as that gets on.
    ///
    /// # Safety
    ///
    /// It must be a transfer, and the caller's, but belongs to the file if it is `Queued`.
    unsafe fn attempt(this: NonNull<Self>, manner: Manner) -> Tried {
        // SAFETY: As the caller says.
        unsafe { Self::answered(this, manner, Self::ask(this, manner)) }
    }

    /// Goes on with an attempt of which the file `said` that.
    ///
    /// # Safety
    ///
    /// As for [`Self::attempt`]; it must have been asked in that manner.
    unsafe fn answered(this: NonNull<Self>, manner: Manner, said: Result<isize, Tried>) -> Tried {
        let request = this.as_ptr();
        let mut said = said;
        loop {
            let ret = match said {
                Ok(QUEUED) => return Tried::Queued,
                Ok(ret) => ret,
                Err(tried) => return tried,
            };
            // SAFETY: The file has nothing to do with it any more, so it is ours.
            unsafe {
                Self::end_write(this);
                let ret = restarted(ret);
                let waits = match manner {
                    Manner::Impatient => would_wait(ret),
                    Manner::Quick => would_wait(ret) || ret == EFAULT.to_errno().into(),
                    Manner::ForPages(_) => ret == i64::from(EAGAIN.to_errno()),
                    Manner::AsItIs | Manner::Patient => return Tried::Ended(ret),
                };
                if waits {
                    return Tried::WouldWait;
                }
                let Some(retry) = Self::retry(this).filter(|_| ret > 0) else {
                    return Tried::Ended(ret);
                };
                let left = retry.buffer.len().saturating_sub(retry.done);
                if ret as usize >= left || !(*request).kiocb.goes_on() || task::is_killed() {
                    return Tried::Ended(ret);
                }
                retry.done += ret as usize;
                if matches!(manner, Manner::ForPages(_)) {
                    return Tried::GotOn;
                }
                said = Self::ask(this, manner);
            }
        }
    }

    /// The result of all attempts, if that is the last one's.
    ///
    /// # Safety
    ///
    /// It must be the caller's, and not have ended.
    #[inline]
    pub(super) unsafe fn total(this: NonNull<Self>, last: i64) -> i64 {
        // SAFETY: As the caller says.
        match unsafe { Self::retry(this) } {
            Some(retry) if retry.done > 0 => (retry.done as i64).saturating_add(last.max(0)),
            _ => last,
        }
    }

    /// # Safety
    ///
    /// It must be the caller's.
    #[inline]
    unsafe fn end_write(this: NonNull<Self>) {
        // SAFETY: As the caller says.
        unsafe {
            if (*this.as_ptr()).writing {
                (*this.as_ptr()).writing = false;
                (*this.as_ptr()).kiocb.end_write();
            }
        }
    }

    /// Has one that would wait wait, or a worker do that. A last result if it is over instead, and
    /// the caller's still; otherwise it may be over as soon as this returns.
    ///
    /// # Safety
    ///
    /// It must be a transfer, and the caller's, with the file's half of it, who has a reference more.
    unsafe fn park(this: NonNull<Self>) -> Option<i64> {
        // SAFETY: It is ours, until it is handed over.
        unsafe {
            let retry = Self::retry(this)?;
            if Self::waits_to_be_ready(this) {
                let watch = Self::watch_of(this);
                watch.write(Watch::new(retry.events()));
                retry.watches = true;
                let file = &(*this.as_ptr()).file;
                match Watch::begin(watch, this, file) {
                    Ok(0) => {
                        retry.in_vain = 0;
                        Counter::Parked.add(1);
                        if (*this.as_ptr()).ownership.give_up() {
                            // Who parks it sees that the context ends, or who ends that sees it.
                            if Self::inflight(this).is_ending() {
                                Self::cancel_parked(this);
                            }
                            return None;
                        }
                    }
                    Ok(_) => {
                        retry.in_vain += 1;
                        if retry.in_vain == IN_VAIN {
                            retry.asking = Asking::Never;
                        }
                    }
                    // It is never ready, so it will have to be waited for.
                    Err(e) if e == EINVAL => retry.asking = Asking::Never,
                    Err(e) => {
                        Self::unwatch(this);
                        return Some(e.to_errno().into());
                    }
                }
            }
            // Not at once, for others want the processor, too.
            Self::punt(this);
            None
        }
    }

    /// Has a worker make the next attempt, unless the context ends.
    ///
    /// # Safety
    ///
    /// As for [`Self::park`].
    unsafe fn punt(this: NonNull<Self>) {
        Counter::Punted.add(1);
        // SAFETY: It is ours, and we hand it over, but for the reference.
        unsafe {
            Workers::employ(this);
            // As in `park`.
            if Self::inflight(this).is_ending() {
                Self::cancel_parked(this);
            }
        }
    }

    /// Is there a point in another attempt when its file says that it is ready?
    ///
    /// # Safety
    ///
    /// It must be a transfer, and the caller's.
    unsafe fn waits_to_be_ready(this: NonNull<Self>) -> bool {
        // SAFETY: It is ours.
        unsafe {
            match Self::retry(this).map(|retry| retry.asking) {
                Some(Asking::Impatiently) => file_io::gets_ready(&(*this.as_ptr()).file),
                Some(Asking::WhenReady) => true,
                _ => false,
            }
        }
    }

    /// The file says now that it would have had to wait: a worker does. Any context.
    ///
    /// # Safety
    ///
    /// The file must have ended it, and the caller have the file's half.
    #[cold]
    unsafe fn again(this: NonNull<Self>) {
        // SAFETY: It is ours, and we hand it over, but for a reference.
        unsafe {
            Self::end_write(this);
            if let Some(retry) = Self::retry(this) {
                retry.asking = Asking::Never;
            }
            // Relaxed: see `Request::is_polled`.
            (*this.as_ptr()).polled.store(0, Relaxed);
            Self::inflight(this).parked(this);
            Self::get(this);
            Self::punt(this);
            Self::put(this);
        }
    }

    /// The file has ended it. Any context.
    ///
    /// # Safety
    ///
    /// The caller must have the file's half.
    #[inline]
    pub(super) unsafe fn transferred(this: NonNull<Self>, last: i64) {
        // SAFETY: It is ours.
        unsafe {
            if would_wait(last)
                && (*this.as_ptr()).kiocb.is_impatient()
                && Self::retry(this).is_some_and(|retry| retry.asking == Asking::Impatiently)
            {
                Self::again(this);
            } else {
                // At once: who freezes the file system waits for it, and the submitter may wait for that one.
                Self::end_write(this);
                Self::complete(this, Self::total(this, last));
            }
        }
    }

    /// Has it waited for a page, which most likely is there?
    ///
    /// # Safety
    ///
    /// It must be alive, and nobody be about to try it.
    pub(super) unsafe fn is_kicked(this: NonNull<Self>) -> bool {
        // SAFETY: As the caller says.
        unsafe { Self::retry(this).is_some_and(|retry| retry.kicked) }
    }

    /// Makes an attempt that doesn't sleep for anything, in process context. A last result if it is
    /// over.
    ///
    /// # Safety
    ///
    /// It must be a transfer that was kicked, and the caller's.
    pub(super) unsafe fn carry_on_quickly(this: NonNull<Self>) -> Option<i64> {
        // SAFETY: It is ours. What isn't told to wait doesn't go on with a buffered read.
        unsafe {
            Self::retry(this)?.kicked = false;
            match Self::attempt(this, Manner::Quick) {
                Tried::Ended(last) => Some(last),
                _ => None,
            }
        }
    }

    /// Makes the attempt that there is a point in, in process context. A last result if it is over,
    /// and the caller's still.
    ///
    /// # Safety
    ///
    /// It must be a transfer, and the caller's, with the file's half of it, who has a reference more.
    pub(super) unsafe fn carry_on(this: NonNull<Self>) -> Option<i64> {
        // SAFETY: It is ours, until it is parked or the file has it.
        unsafe {
            let inflight = Self::inflight(this);
            // Nobody kicks it until it is parked again.
            if Self::unwatch(this) && (*this.as_ptr()).ownership.look().gone {
                // What it has waited on is no more, and the word of that stays.
                Self::retry(this)?.asking = Asking::Never;
            }
            let mut patient = false;
            loop {
                if inflight.is_ending() {
                    return Some(ECANCELED.to_errno().into());
                }
                let manner = match Self::retry(this)?.asking {
                    Asking::Impatiently if Self::waits_to_be_ready(this) => Manner::Impatient,
                    Asking::WhenReady if !Self::is_ready(this) => return Self::park(this),
                    Asking::WhenReady => Manner::Patient,
                    _ if patient => Manner::Patient,
                    _ if (*this.as_ptr()).kiocb.waits_for_pages() => {
                        Self::retry(this)?.kicked = true;
                        let left = (*this.as_ptr()).slot.ctx().workers().left();
                        Manner::ForPages((*this.as_ptr()).page.begin::<Self>(left))
                    }
                    _ => Manner::Patient,
                };
                match Self::attempt(this, manner) {
                    Tried::Ended(last) => return Some(last),
                    Tried::GotOn => (),
                    Tried::WouldWait if manner == Manner::Impatient => return Self::park(this),
                    Tried::WouldWait => patient = true,
                    Tried::Queued if matches!(manner, Manner::ForPages(_)) => {
                        if (*this.as_ptr()).page.park() {
                            Counter::Parked.add(1);
                            // As in `park`.
                            if inflight.is_ending() {
                                Self::cancel_parked(this);
                            }
                            return None;
                        }
                    }
                    Tried::Queued => {
                        inflight.landed(this);
                        return None;
                    }
                }
            }
        }
    }

    /// Does its file say that it is ready?
    ///
    /// # Safety
    ///
    /// It must be a transfer, and the caller's.
    unsafe fn is_ready(this: NonNull<Self>) -> bool {
        // SAFETY: It is ours.
        unsafe {
            Self::retry(this)
                .is_some_and(|retry| file_poll::look(&(*this.as_ptr()).file, retry.events()) != 0)
        }
    }

    /// Cancels one that is parked or queued; false if it is neither. Any context.
    ///
    /// # Safety
    ///
    /// The caller must have a reference.
    pub(super) unsafe fn cancel_parked(this: NonNull<Self>) -> bool {
        // SAFETY: Alive, for the caller has a reference. Who gets it from where it waits has it.
        unsafe {
            let ours = (*this.as_ptr()).ownership.take_over()
                || Self::may_leave(this) && (*this.as_ptr()).page.leave()
                || Workers::withdraw(this);
            if ours {
                Self::unwatch(this);
                Self::complete(this, Self::total(this, ECANCELED.to_errno().into()));
            }
            ours
        }
    }

    /// May its memory stay in the queue of a page until that comes, and it end before? Always, if its context ends.
    ///
    /// # Safety
    ///
    /// It must be alive.
    unsafe fn may_leave(this: NonNull<Self>) -> bool {
        // SAFETY: Alive.
        let ctx = unsafe { (*this.as_ptr()).slot.ctx() };
        ctx.workers().left().count() < MOST_LEFT || ctx.inflight().is_ending()
    }

    /// It watches no more. True if it did.
    ///
    /// # Safety
    ///
    /// It must be the caller's.
    unsafe fn unwatch(this: NonNull<Self>) -> bool {
        // SAFETY: As the caller says; it has begun to watch.
        unsafe {
            let Some(retry) = Self::retry(this).filter(|retry| retry.watches) else {
                return false;
            };
            retry.watches = false;
            Watch::end(Self::watch_of(this));
        }
        true
    }

    /// Ends it, when its last attempt has come to `last`.
    ///
    /// # Safety
    ///
    /// It must be the caller's, with the file's half of it. `batch` must be of its context.
    pub(super) unsafe fn finish(this: NonNull<Self>, last: i64, batch: &Batch) {
        // SAFETY: As the caller says.
        unsafe {
            Self::unwatch(this);
            Self::complete_in(batch, this, Self::total(this, last));
        }
    }
}
