// SPDX-License-Identifier: GPL-2.0

//! Starting the requests of a call, one after another. What many have in common is looked up once: the file
//! that they name one after another, and whether it is one for the direct path. No lock is held.

use super::{
    register::RegisteredFile,
    submit::{
        Slot,
        Slots, //
    },
    Batch,
    User, //
};
use crate::{
    abi::{
        Iocb,
        Transfer, //
    },
    kernel_ext::{
        bio::Device,
        eventfd::EventFd,
        file_io,
        identity::Identity,
        user, //
    },
    ops,
    registered::Uses,
    request::{
        direct::{
            Flight,
            Submitter, //
        },
        FileRef,
        Parts,
        Prepared, //
    },
};
use kernel::{
    fs::File,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    },
};

/// A request as a call has it.
pub(super) struct Given {
    pub(super) iocb: Iocb,
    /// What its event has for the address of the iocb.
    pub(super) obj: u64,
    /// Where the following one begins in its file, if that is known.
    pub(super) next: Option<u64>,
    /// So many come after it.
    pub(super) left: u32,
}

/// What a call needs for all its requests.
pub(super) struct Starter<'a> {
    user: &'a User,
    slots: Slots,
    identity: Option<Arc<Identity>>,
    /// Not such as kernel AIO has: named by their data, about what is registered.
    native: bool,
    /// Of the last request without a file.
    batch: Option<Batch>,
    /// Since the first request on that path.
    direct: Option<Submitter<'a>>,
    file: Option<Named>,
}

/// The file that a request has named.
struct Named {
    fixed: bool,
    fd: u32,
    file: Kept,
    device: Option<Device>,
    /// That is one where only neighbours of a call are merged.
    merges_neighbours: bool,
    /// Where the last transfer there ends.
    last_end: u64,
    /// A bit for each direction: it was noted that it is read, or written.
    noted: u32,
}

enum Kept {
    Own(ARef<File>),
    /// For those that are left.
    Registered(RegisteredFile, Uses<ARef<File>>),
}

impl Named {
    #[inline(never)]
    fn new(user: &User, fd: u32, fixed: bool, left: u32) -> Result<Self> {
        let file = if fixed {
            let first = user.registered.files.get(fd).ok_or(EBADF)?;
            // The last request has ours.
            let mut all = Uses::several(first, left as usize + 1);
            Kept::Registered(all.split().ok_or(EBADF)?, all)
        } else {
            Kept::Own(file_io::get(fd)?)
        };
        let mut this = Self {
            fixed,
            fd,
            file,
            device: None,
            merges_neighbours: false,
            last_end: u64::MAX,
            noted: 0,
        };
        this.device = Device::of(this.file());
        this.merges_neighbours = this.device.is_some_and(|device| !device.sorts());
        Ok(this)
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
    fn takes(&self, transfer: &Transfer) -> Option<Device> {
        let (file, dir) = (self.file(), transfer.dir);
        self.device.filter(|device| {
            file_io::open_for(file, dir) && device.takes(file, transfer.pos, transfer.len, dir)
        })
    }

    /// Is it known that it goes on with the one before as little as the next one, which begins at `next` if that
    /// is known, goes on with it? One that ends where the one before begins could be merged too, at the front; it
    /// isn't looked for, and is not merged.
    #[inline(always)]
    fn is_alone(&mut self, transfer: &Transfer, next: Option<u64>) -> bool {
        let begin = transfer.pos as u64;
        let end = begin.wrapping_add(transfer.len as u64);
        let goes_on = core::mem::replace(&mut self.last_end, end) == begin;
        self.merges_neighbours && !goes_on && next.is_some_and(|next| next != end)
    }

    /// Does what its file does before such a transfer. Fails with what security modules say.
    #[inline(always)]
    fn begin(&mut self, transfer: &Transfer) -> Result {
        let (file, dir) = (self.file(), transfer.dir);
        file_io::verify_area(file, transfer.pos, transfer.len, dir)?;
        let bit = 1 << dir as u32;
        if self.noted & bit == 0 {
            Device::note(file, dir)?;
            self.noted |= bit;
        }
        Ok(())
    }
}

impl<'a> Starter<'a> {
    /// For a call by `user` that has so many `slots`, for requests by somebody else than the context's identity
    /// if that is said; `native` ones, or such as kernel AIO has.
    pub(super) fn new(
        user: &'a User,
        slots: Slots,
        identity: Option<Arc<Identity>>,
        native: bool,
    ) -> Self {
        Self {
            user,
            slots,
            identity,
            native,
            batch: None,
            direct: None,
            file: None,
        }
    }

    /// Runs what sends those that were held back.
    pub(super) fn send(&mut self, send: &dyn Fn()) {
        match &self.direct {
            Some(direct) => direct.collecting(send),
            None => send(),
        }
    }

    /// Starts one; true if its file goes on with it by itself. For those that kernel AIO has, the order of the
    /// checks is that of kernel AIO, which decides the error when several apply.
    #[inline(always)]
    pub(super) fn start(&mut self, given: &Given) -> Result<bool> {
        let mut slot = None;
        if let Some(transfer) = given.iocb.as_transfer(self.native) {
            slot = Some(self.slots.next().ok_or(EAGAIN)?);
            if self.start_directly(&transfer, given, &mut slot)? {
                return Ok(true);
            }
        }
        self.start_ordinarily(given, slot)
    }

    /// Starts it on the direct path, if it is one for that, and takes the slot.
    #[inline(always)]
    fn start_directly(
        &mut self,
        transfer: &Transfer,
        given: &Given,
        slot: &mut Option<Slot>,
    ) -> Result<bool> {
        let (addr, len, dir) = (transfer.addr, transfer.len, transfer.dir);
        let file = match &mut self.file {
            Some(file) if file.is(transfer.fd, transfer.is_file_fixed) => file,
            other => other.insert(Named::new(
                self.user,
                transfer.fd,
                transfer.is_file_fixed,
                given.left,
            )?),
        };
        let Some(device) = file.takes(transfer) else {
            return Ok(false);
        };
        if !self.native {
            Iocb::write_key(given.obj as usize)?;
        }
        let registered = match transfer.buffer {
            Some(index) => {
                let buffer = self.user.registered.buffers.get(index).ok_or(EFAULT)?;
                let place = buffer.place(addr, len)?;
                Some((buffer, place))
            }
            // What is wrong with it the ordinary path says.
            None if !user::is_memory(addr, len) || !device.takes_memory(addr, len) => {
                return Ok(false)
            }
            None => None,
        };
        file.begin(transfer)?;
        let direct = self.direct.get_or_insert_with(|| Submitter::new(self.user));
        if !direct.has_place()? {
            return Ok(false);
        }
        let alone = file.is_alone(transfer, given.next);
        let kept = Named::take(&mut self.file, given.left)?;
        let (buffer, place) = match registered {
            Some((buffer, place)) => (Some(buffer), place),
            None => match direct.pin(addr, len, dir) {
                Some(place) => (None, place),
                None => return Ok(false),
            },
        };
        let Some(slot) = slot.take() else {
            return Ok(false);
        };
        let flight = Flight {
            slot,
            file: kept,
            buffer,
            identity: self.identity.clone(),
            addr,
            len,
            pos: transfer.pos,
            dir,
            ioprio: direct.ioprio(),
        };
        direct.start(device, place, (given.obj, transfer.data), alone, flight);
        Ok(true)
    }

    #[inline(never)]
    fn start_ordinarily(&mut self, given: &Given, slot: Option<Slot>) -> Result<bool> {
        let (iocb, native) = (&given.iocb, self.native);
        iocb.check(native)?;
        let slot = match slot {
            Some(slot) => slot,
            None => self.slots.next().ok_or(EAGAIN)?,
        };
        if native && iocb.is_noop() {
            return self.do_nothing(iocb, slot);
        }
        let (fd, is_fixed) = (iocb.fd(), native && iocb.is_file_fixed());
        match &mut self.file {
            Some(file) if file.is(fd, is_fixed) => (),
            other => *other = Some(Named::new(self.user, fd, is_fixed, given.left)?),
        }
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
        let request = Prepared::new(Parts {
            slot,
            file: Named::take(&mut self.file, given.left)?,
            buffer,
            eventfd,
            identity: self.identity.clone(),
            obj: given.obj,
            data: args.data,
        })?;
        ops::start(request, &args)
    }

    /// The event of one without a file that does nothing.
    fn do_nothing(&mut self, iocb: &Iocb, slot: Slot) -> Result<bool> {
        let args = iocb.decode(true)?;
        let eventfd = iocb.eventfd().map(EventFd::get).transpose()?;
        let event = ops::noop(args.data, &args)?;
        self.batch
            .get_or_insert_with(|| Batch::new(&slot))
            .post(slot, &event, eventfd);
        Ok(false)
    }
}
