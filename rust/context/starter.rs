// SPDX-License-Identifier: GPL-2.0

//! Requests that kernel AIO doesn't have: named by their data, about what is registered, without a file.
//! What many of a call have in common is looked up once: the file that they name one after another, and
//! whether it is one for the direct path. No lock is held.

use super::{
    register::RegisteredFile,
    submit::Slots,
    Batch,
    User, //
};
use crate::{
    abi::{
        FixedTransfer,
        Iocb,
        Iocbs, //
    },
    kernel_ext::{
        bio::Device,
        eventfd::EventFd,
        file_io,
        identity::Identity, //
    },
    ops,
    registered::Uses,
    request::{
        direct::{
            Flight,
            Submitter, //
        },
        FileRef,
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

/// What a call has of them.
pub(super) struct Native<'a> {
    user: &'a User,
    /// Of the last request without a file.
    batch: Option<Batch>,
    /// Where there are buffers.
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
            // One is ours, one for this request.
            let mut all = Uses::several(first, left as usize + 2);
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

    /// For a request.
    #[inline(always)]
    fn take(&mut self) -> Result<FileRef> {
        Ok(match &mut self.file {
            Kept::Own(file) => FileRef::Own(file.clone()),
            Kept::Registered(_, all) => FileRef::Registered(all.split().ok_or(EBADF)?),
        })
    }

    /// The device, if that transfer can be made on the direct path.
    #[inline(always)]
    fn takes(&self, transfer: &FixedTransfer) -> Option<Device> {
        let (file, dir) = (self.file(), transfer.dir);
        self.device.filter(|device| {
            file_io::open_for(file, dir) && device.takes(file, transfer.pos, transfer.len, dir)
        })
    }

    /// Is it known that it goes on with the one before as little as the next one, which begins at `next` if that
    /// is known, goes on with it? One that ends where the one before begins could be merged too, at the front; it
    /// isn't looked for, and is not merged.
    #[inline(always)]
    fn is_alone(&mut self, transfer: &FixedTransfer, next: Option<u64>) -> bool {
        let begin = transfer.pos as u64;
        let end = begin.wrapping_add(transfer.len as u64);
        let goes_on = core::mem::replace(&mut self.last_end, end) == begin;
        self.merges_neighbours && !goes_on && next.is_some_and(|next| next != end)
    }

    /// Does what its file does before such a transfer. Fails with what security modules say.
    #[inline(always)]
    fn begin(&mut self, transfer: &FixedTransfer) -> Result {
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

impl<'a> Native<'a> {
    /// For a call with `iocbs`. [`None`] if they are such as kernel AIO has.
    pub(super) fn new(user: &'a User, iocbs: Iocbs) -> Option<Self> {
        if matches!(iocbs, Iocbs::Pointers { .. }) {
            return None;
        }
        let has_buffers = user.registered.buffers.size() > 0;
        Some(Self {
            user,
            batch: None,
            direct: has_buffers.then(|| Submitter::new(user)),
            file: None,
        })
    }

    /// Runs what sends those that were held back.
    pub(super) fn send(&mut self, send: &dyn Fn()) {
        match &self.direct {
            Some(direct) => direct.collecting(send),
            None => send(),
        }
    }

    /// Starts one, after which so many are `left`; true if its file goes on with it by itself. `next` is where the
    /// following one begins in its file, if that is known.
    #[inline(always)]
    pub(super) fn start(
        &mut self,
        slots: &mut Slots,
        identity: &Option<Arc<Identity>>,
        iocb: &Iocb,
        next: Option<u64>,
        left: u32,
    ) -> Result<bool> {
        if let Some(transfer) = iocb.as_fixed_transfer() {
            if self.start_directly(slots, identity, &transfer, next, left)? {
                return Ok(true);
            }
        }
        self.start_ordinarily(slots, identity, iocb, left)
    }

    /// Starts it on the direct path, if it is one for that.
    #[inline(always)]
    fn start_directly(
        &mut self,
        slots: &mut Slots,
        identity: &Option<Arc<Identity>>,
        transfer: &FixedTransfer,
        next: Option<u64>,
        left: u32,
    ) -> Result<bool> {
        let Some(direct) = &mut self.direct else {
            return Ok(false);
        };
        let file = match &mut self.file {
            Some(file) if file.is(transfer.fd, transfer.is_file_fixed) => file,
            other => other.insert(Named::new(
                self.user,
                transfer.fd,
                transfer.is_file_fixed,
                left,
            )?),
        };
        let Some(device) = file.takes(transfer) else {
            return Ok(false);
        };
        let buffer = &self.user.registered.buffers;
        let buffer = buffer.get(transfer.buffer).ok_or(EFAULT)?;
        let place = buffer.place(transfer.addr, transfer.len)?;
        file.begin(transfer)?;
        if !direct.has_place()? {
            return Ok(false);
        }
        let alone = file.is_alone(transfer, next);
        let flight = Flight {
            slot: slots.next().ok_or(EAGAIN)?,
            file: file.take()?,
            buffer,
            identity: identity.clone(),
            addr: transfer.addr,
            len: transfer.len,
            pos: transfer.pos,
            dir: transfer.dir,
            ioprio: direct.ioprio(),
        };
        direct.start(device, place, transfer.data, alone, flight);
        Ok(true)
    }

    #[inline(never)]
    fn start_ordinarily(
        &mut self,
        slots: &mut Slots,
        identity: &Option<Arc<Identity>>,
        iocb: &Iocb,
        left: u32,
    ) -> Result<bool> {
        iocb.check(true)?;
        let args = iocb.decode(true)?;
        let slot = slots.next().ok_or(EAGAIN)?;
        let eventfd = iocb.eventfd().map(EventFd::get).transpose()?;
        if iocb.is_noop() {
            let event = ops::noop(args.data, &args)?;
            self.batch
                .get_or_insert_with(|| Batch::new(&slot))
                .post(slot, &event, eventfd);
            return Ok(false);
        }
        let (fd, is_fixed) = (iocb.fd(), iocb.is_file_fixed());
        let file = match &mut self.file {
            Some(file) if file.is(fd, is_fixed) => file,
            other => other.insert(Named::new(self.user, fd, is_fixed, left)?),
        };
        let buffers = &self.user.registered.buffers;
        let buffer = match iocb.fixed_buffer()? {
            Some(index) => Some(buffers.get(index).ok_or(EFAULT)?),
            None => None,
        };
        let (file, identity, data) = (file.take()?, identity.clone(), args.data);
        let request = Prepared::new(slot, file, buffer, eventfd, identity, data, data)?;
        ops::start(request, &args)
    }
}
