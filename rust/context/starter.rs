// SPDX-License-Identifier: GPL-2.0

//! Starting the requests of a call, one after another. What many have in common is looked up once: the file
//! that they name one after another, and whether it is one for the direct path. No lock is held.

use super::{
    register::{
        Buffer,
        RegisteredFile, //
    },
    submission::Next,
    submit::{
        Slot,
        Slots, //
    },
    User, //
};
use crate::{
    abi::{
        Iocb,
        Span,
        Transfer, //
    },
    kernel_ext::{
        bio::Device,
        eventfd::EventFd,
        file_io::{
            self,
            Direction,
            Plain, //
        },
        identity::Identity,
        plug::Plug, //
    },
    ops,
    registered::Uses,
    request::{
        direct::Flight,
        submitter::Submitter,
        FileRef,
        Parts, //
    },
    ring::Event,
};
use core::mem::{
    self,
    MaybeUninit, //
};
use kernel::{
    fs::File,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    },
};

/// So many events of requests without a file are posted together.
pub(super) const NOTHINGS: usize = 16;

/// Place for them.
pub(super) type Done = [MaybeUninit<Event>; NOTHINGS];

/// A request as a call has it.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) iocb: &'a Iocb,
    /// It is not such as kernel AIO has: named by its data, about what is registered.
    pub(super) native: bool,
    /// What its event has for the address of the iocb.
    pub(super) obj: u64,
    /// The following one, if it can be looked at.
    pub(super) next: Option<Next<'a>>,
    /// So many come after it.
    pub(super) left: u32,
    /// Where requests of devices are held back.
    pub(super) plug: Option<&'a Plug>,
}

impl<'a> Given<'a> {
    /// One that isn't such as kernel AIO has.
    #[inline(always)]
    pub(super) fn native(
        iocb: &'a Iocb,
        next: Option<Next<'a>>,
        left: u32,
        plug: Option<&'a Plug>,
    ) -> Self {
        Self {
            iocb,
            native: true,
            obj: iocb.data(),
            next,
            left,
            plug,
        }
    }
}

/// What a call needs for all its requests. It has to be [finished](Self::finish).
pub(super) struct Starter<'a> {
    user: &'a User,
    slots: Slots,
    identity: Option<Arc<Identity>>,
    submitter: Submitter<'a>,
    /// Events of requests without one, whose slots are ours, until they are posted.
    done: &'a mut Done,
    nr_done: usize,
    posted: u32,
    file: Option<Named>,
    /// Of that one.
    ways: ops::Ways,
}

/// The file that a request has named.
struct Named {
    fixed: bool,
    fd: u32,
    file: Kept,
    device: Option<Device>,
    /// Its transfers are polled for.
    polled: bool,
    /// That is one where only neighbours of a call are merged.
    merges_neighbours: bool,
    /// Where the last transfer there ends.
    last_end: u64,
    /// A bit for each direction: it was noted that it is read, or written.
    noted: u8,
}

enum Kept {
    Own(ARef<File>),
    /// For those that are left.
    Registered(RegisteredFile, Uses<ARef<File>>),
}

impl Named {
    /// Puts the one with that number there, if there is one. In place, for it is large.
    #[inline(never)]
    fn look_up<'a>(
        at: &'a mut Option<Self>,
        user: &User,
        fd: u32,
        fixed: bool,
        left: u32,
    ) -> Option<&'a mut Self> {
        let file = if fixed {
            let first = user.registered.files.get(fd)?;
            // The last request has ours.
            let mut all = Uses::several(first, left as usize + 1);
            Kept::Registered(all.split()?, all)
        } else {
            Kept::Own(file_io::get(fd)?)
        };
        let this = at.insert(Self {
            fixed,
            fd,
            file,
            device: None,
            polled: false,
            merges_neighbours: false,
            last_end: u64::MAX,
            noted: 0,
        });
        this.device = Device::of(this.file());
        this.polled = user.polls() && file_io::can_iopoll(this.file());
        this.merges_neighbours = this.device.is_some_and(|device| !device.sorts());
        Some(this)
    }

    #[inline]
    fn is(&self, fd: u32, fixed: bool) -> bool {
        self.fd == fd && self.fixed == fixed
    }

    #[inline]
    fn file(&self) -> &File {
        match &self.file {
            Kept::Own(file) => file,
            Kept::Registered(file, _) => file,
        }
    }

    /// For a request, after which so many are `left`: it isn't named any more behind the last.
    #[inline(always)]
    fn take(this: &mut Option<Self>, left: u32) -> Result<FileRef> {
        let named = this.as_mut().ok_or(EBADF)?;
        match &mut named.file {
            _ if left == 0 => (),
            Kept::Own(file) => return Ok(FileRef::Own(file.clone())),
            Kept::Registered(_, all) => {
                return Ok(FileRef::Registered(all.split().ok_or(EBADF)?));
            }
        }
        Ok(match this.take().ok_or(EBADF)?.file {
            Kept::Own(file) => FileRef::Own(file),
            Kept::Registered(file, _) => FileRef::Registered(file),
        })
    }

    /// The device, if that transfer can be made on the direct path.
    #[inline(always)]
    fn takes(&self, span: &Span) -> Option<Device> {
        let (file, dir) = (self.file(), span.dir);
        self.device.filter(|device| {
            file_io::open_for(file, dir) && device.takes(file, span.pos, span.addr, span.len, dir)
        })
    }

    /// Isn't it to be merged with another? It is known that it goes on with the one before as little as the next
    /// one, if it isn't the last, goes on with it. One that ends where the one before begins could
    /// be merged too, at the front; it isn't looked for, and is not merged. Nor is one that is polled for: it would
    /// end only when that of somebody else is asked for, or that one with it, who may count on an interrupt.
    #[inline(always)]
    fn is_alone(&mut self, span: &Span, next: Option<Next<'_>>, is_last: bool) -> bool {
        let begin = span.pos as u64;
        let end = begin.wrapping_add(span.len as u64);
        let goes_on = mem::replace(&mut self.last_end, end) == begin;
        if self.polled || !self.merges_neighbours {
            return self.polled;
        }
        let is_followed = || next.is_none_or(|next| next.position() == end);
        !goes_on && (is_last || !is_followed())
    }

    /// Notes that its file is read or written. False if that can't be done, which the file has to say then.
    #[inline(always)]
    fn note(&mut self, dir: Direction) -> bool {
        let bit = 1u8 << dir as u32;
        if self.noted & bit == 0 {
            if Device::note(self.file(), dir).is_err() {
                return false;
            }
            self.noted |= bit;
        }
        true
    }
}

impl<'a> Starter<'a> {
    /// For a call by `user` that has so many `slots`, for requests by somebody else than the context's identity
    /// if that is said.
    #[inline(always)]
    pub(super) fn new(
        user: &'a User,
        slots: Slots,
        identity: Option<Arc<Identity>>,
        done: &'a mut Done,
    ) -> Self {
        Self {
            user,
            slots,
            identity,
            submitter: Submitter::new(user),
            done,
            nr_done: 0,
            posted: 0,
            ways: ops::Ways::default(),
            file: None,
        }
    }

    /// Runs what sends those that were held back.
    pub(super) fn send(&mut self, send: &dyn Fn()) {
        self.submitter.collecting(send);
    }

    /// Starts one. For those that kernel AIO has, the order of the checks is that of kernel AIO, which decides the
    /// error when several apply; but that memory to be pinned is none of a process is found behind what the security
    /// modules say of the file.
    #[inline(always)]
    pub(super) fn start(&mut self, given: Given<'_>) -> Result {
        let iocb = given.iocb;
        if let Some(transfer) = iocb.as_transfer(given.native) {
            let slot = self.slots.next().ok_or(EAGAIN)?;
            return self.start_transfer(&transfer, given, slot);
        }
        if given.native && iocb.is_plain_noop() {
            let slot = self.slots.next().ok_or(EAGAIN)?;
            self.has_done(slot, &ops::nothing(given.obj));
            return Ok(());
        }
        // A copy, so that it is in memory only if it is passed.
        let iocb = *given.iocb;
        self.start_any(Given {
            iocb: &iocb,
            ..given
        })
    }

    /// Starts a transfer that asks for nothing besides, on the direct path if it is one for that.
    #[inline(always)]
    fn start_transfer(&mut self, transfer: &Transfer, given: Given<'_>, slot: Slot) -> Result {
        let span = &transfer.span;
        let &Span {
            dir,
            addr,
            len,
            pos,
        } = span;
        let file = match &mut self.file {
            Some(file) if file.is(transfer.fd, transfer.is_file_fixed) => file,
            other => {
                self.ways = ops::Ways::default();
                let (fd, fixed) = (transfer.fd, transfer.is_file_fixed);
                Named::look_up(other, self.user, fd, fixed, given.left).ok_or(EBADF)?
            }
        };
        if !given.native {
            Iocb::write_key(given.obj as usize)?;
        }
        let buffer = match transfer.buffer {
            Some(index) => Some(self.user.registered.buffers.get(index).ok_or(EFAULT)?),
            None => None,
        };
        let mut verified = false;
        if let Some(device) = file.takes(span) {
            let submitter = &mut self.submitter;
            let place = match &buffer {
                Some(buffer) => Some(buffer.place(addr, len)?),
                None => None,
            };
            file_io::verify_area(file.file(), pos, len, dir)?;
            verified = true;
            let vacant = match file.note(dir) {
                true => submitter.place()?,
                false => None,
            };
            if let Some(vacant) = vacant {
                // No closure, which would have all of that in memory. What is wrong with it the ordinary path says.
                let place = match place {
                    None => submitter.pin(&vacant, addr, len, dir),
                    registered => registered,
                };
                if let Some(place) = place {
                    // Who makes a call for each may have another that goes on with it.
                    let is_last = given.native && given.left == 0;
                    let is_alone = file.is_alone(span, given.next, is_last);
                    let manner = (is_alone, file.polled);
                    let flight = Flight {
                        slot,
                        file: Named::take(&mut self.file, given.left)?,
                        buffer,
                        identity: self.identity.clone(),
                        addr,
                        len,
                        pos,
                        dir,
                        ioprio: submitter.ioprio(),
                    };
                    let name = (given.obj, transfer.data);
                    submitter.start(vacant, device, place, name, manner, flight);
                    return Ok(());
                }
            }
        }
        // A copy, so that what is passed is in memory only if it is.
        self.start_plain(
            *span,
            (given.obj, transfer.data),
            (given.left, verified),
            slot,
            buffer,
            given.plug,
        )
    }

    /// Starts it with the methods of its file, which may be `verified` already. Not inline, for the other way is a
    /// short one.
    #[inline(never)]
    fn start_plain(
        &mut self,
        span: Span,
        (obj, data): (u64, u64),
        (left, verified): (u32, bool),
        slot: Slot,
        buffer: Option<Buffer>,
        plug: Option<&Plug>,
    ) -> Result {
        let submitter = &mut self.submitter;
        let ioprio = submitter.ioprio();
        let polled = self.file.as_ref().is_some_and(|file| file.polled);
        let file = Named::take(&mut self.file, left)?;
        let identity = &self.identity;
        let request = submitter.prepare(|| Parts {
            slot,
            file,
            buffer,
            eventfd: None,
            identity: identity.clone(),
            polled,
            plain: Some(Plain {
                dir: span.dir,
                pos: span.pos,
                ioprio,
            }),
            obj,
            data,
        })?;
        let submitted = ops::plain(request, span, &mut self.ways, plug, verified)?;
        submitter.submitted(submitted);
        Ok(())
    }

    #[inline(never)]
    fn start_any(&mut self, given: Given<'_>) -> Result {
        let (iocb, native) = (given.iocb, given.native);
        iocb.check(native)?;
        let slot = self.slots.next().ok_or(EAGAIN)?;
        if native && iocb.is_noop() {
            return self.do_nothing(iocb, slot);
        }
        let (fd, is_fixed) = (iocb.fd(), native && iocb.is_file_fixed());
        match &mut self.file {
            Some(file) if file.is(fd, is_fixed) => (),
            other => {
                Named::look_up(other, self.user, fd, is_fixed, given.left).ok_or(EBADF)?;
            }
        }
        // It may use what they count.
        self.ways = ops::Ways::default();
        let eventfd = iocb.eventfd().map(EventFd::get).transpose()?;
        let buffer = match native {
            true => iocb.fixed_buffer()?,
            false => None,
        };
        let buffer = match buffer {
            Some(index) => Some(self.user.registered.buffers.get(index).ok_or(EFAULT)?),
            None => None,
        };
        if !native {
            Iocb::write_key(given.obj as usize)?;
        }
        let args = iocb.decode(native)?;
        let submitter = &mut self.submitter;
        // Who waits for an eventfd doesn't ask.
        let polled = eventfd.is_none() && self.file.as_ref().is_some_and(|file| file.polled);
        let file = Named::take(&mut self.file, given.left)?;
        let identity = &self.identity;
        let request = submitter.prepare(|| Parts {
            slot,
            file,
            buffer,
            eventfd,
            identity: identity.clone(),
            polled,
            plain: None,
            obj: given.obj,
            data: args.data,
        })?;
        let submitted = ops::start(request, &args)?;
        submitter.submitted(submitted);
        Ok(())
    }

    /// The event of one without a file that does nothing.
    fn do_nothing(&mut self, iocb: &Iocb, slot: Slot) -> Result {
        let args = iocb.decode(true)?;
        if iocb.fixed_buffer()?.is_some() {
            return Err(EINVAL);
        }
        let eventfd = iocb.eventfd().map(EventFd::get).transpose()?;
        let event = ops::noop(args.data, &args)?;
        if eventfd.is_some() {
            // After those before it.
            if self.nr_done > 0 {
                self.post_done();
            }
            slot.post(&event, eventfd);
        } else {
            self.has_done(slot, &event);
        }
        Ok(())
    }

    /// One has ended without a file.
    #[inline(always)]
    fn has_done(&mut self, slot: Slot, event: &Event) {
        if self.nr_done == NOTHINGS {
            self.post_done();
        }
        if let Some(place) = self.done.get_mut(self.nr_done) {
            place.write(*event);
            self.nr_done += 1;
            slot.told(None);
        }
    }

    /// Posts the events of those that did nothing.
    #[inline(never)]
    fn post_done(&mut self) {
        let n = mem::take(&mut self.nr_done);
        self.posted += n as u32;
        let events = self.done.iter().take(n);
        // SAFETY: So many were written, and as many slots forgotten.
        unsafe {
            self.user
                .publish_all(events.map(|event| event.assume_init_read()));
            self.user.put_all(n);
        }
    }

    /// Nothing more is started, and the caller `waits` next or doesn't. Returns how many events were posted here.
    #[inline(always)]
    pub(super) fn finish(&mut self, waits: bool) -> u32 {
        // Who sees an event may rely on its request no longer using the file.
        self.file = None;
        if self.nr_done > 0 {
            self.post_done();
        }
        self.posted + self.submitter.finish(waits)
    }
}
