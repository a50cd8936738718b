// SPDX-License-Identifier: GPL-2.0

//! Transfers between pinned memory and a block device, by one bio, where the device's file would do no
//! more than that.
//!
//! C headers: `include/linux/bio.h`, `include/linux/blkdev.h`.

use super::{
    file_io::Direction,
    pinned::Place, //
};
use crate::bindings;
use core::ptr::{
    null_mut,
    NonNull, //
};
use kernel::{
    error::to_result,
    ffi,
    fs::File,
    prelude::*,
    sync::atomic::Atomic,
    types::Opaque, //
};

/// A block device, while somebody has a file of it open.
#[derive(Clone, Copy)]
pub(crate) struct Device(NonNull<bindings::block_device>);

impl Device {
    /// That of `file`, if direct transfers may come to sending one bio each. [`None`] says that its file
    /// has to be asked for all of them.
    pub(crate) fn of(file: &File) -> Option<Self> {
        // SAFETY: A live file.
        NonNull::new(unsafe { bindings::raio_direct_bdev(file.as_ptr()) }).map(Self)
    }

    /// Does one of `len` bytes at `pos`, and at `addr` of the caller's? Then nothing of the device is cached,
    /// and none of what its file checks, but for permissions, keeps it from that, or cuts it short. `file` is what
    /// it is of.
    #[inline]
    pub(crate) fn takes(
        self,
        file: &File,
        pos: i64,
        addr: usize,
        len: usize,
        dir: Direction,
    ) -> bool {
        let (bdev, write) = (self.0.as_ptr(), dir == Direction::Write);
        // SAFETY: A live file of that device. The address isn't followed.
        unsafe { bindings::raio_direct_fits(bdev, file.as_ptr(), pos, addr, len, write) }
    }

    /// Notes that the caller reads or writes, as its file does before each transfer.
    pub(crate) fn note(file: &File, dir: Direction) -> Result {
        // SAFETY: A live file.
        unsafe {
            match dir {
                Direction::Read => bindings::raio_file_accessed(file.as_ptr()),
                Direction::Write => to_result(bindings::file_update_time(file.as_ptr()))?,
            }
        }
        Ok(())
    }

    /// Does it sort what it gets, so that transfers may be merged with others than their neighbours?
    pub(crate) fn sorts(self) -> bool {
        // SAFETY: It is there.
        unsafe { bindings::raio_bdev_sorts(self.0.as_ptr()) }
    }

    /// Its number.
    pub(crate) fn number(self) -> u32 {
        // SAFETY: It is there.
        unsafe { (*self.0.as_ptr()).bd_dev }
    }
}

/// What a bio is about: `len` bytes of the memory at `place`, to or from `pos`.
pub(crate) struct Contents {
    pub(crate) place: Place,
    pub(crate) len: usize,
    pub(crate) pos: i64,
    pub(crate) dir: Direction,
    pub(crate) ioprio: u16,
    /// How long what is written will live, as `fcntl(2)` has it.
    pub(crate) hint: u8,
    /// It is known that the block layer needn't look for one that it could be merged with.
    pub(crate) alone: bool,
    /// Its end is to be asked for, see [`Bio::ask`].
    pub(crate) polled: bool,
}

/// How a transfer has ended.
pub(crate) enum Outcome {
    /// All of it was moved.
    Done,
    /// It would have had to wait, or to be done in another manner, and has moved nothing.
    WouldWait,
    Failed(Error),
}

/// Says where in `Self` a bio is, and what to do when that has ended.
///
/// # Safety
///
/// [`Self::OFFSET`] must be the offset in bytes of a field of type [`Bio`].
pub(crate) unsafe trait HasBio: Sized {
    /// Where the field is.
    const OFFSET: usize;

    /// The transfer has ended. It may be any context, and before [`Bio::send`] has returned.
    ///
    /// # Safety
    ///
    /// To be called by [`Bio`] only, once for each [`Bio::send`].
    unsafe fn ended(this: NonNull<Self>);
}

/// Place for a bio in an object.
pub(crate) struct Bio(Opaque<bindings::bio>);

impl Bio {
    /// One that isn't used.
    pub(crate) const fn new() -> Self {
        Self(Opaque::uninit())
    }

    /// Sends it, without waiting for anything.
    ///
    /// # Safety
    ///
    /// `this` must be alive and not in use, and stay where it is until [`HasBio::ended`] is called; so must
    /// the memory, and a file of the device that [`Device::takes`] has said yes to for the same transfer.
    #[inline(always)]
    pub(crate) unsafe fn send<T: HasBio>(this: NonNull<T>, device: Device, what: Contents) {
        let mut op = match what.dir {
            Direction::Read => bindings::RAIO_DIRECT_READ,
            Direction::Write => bindings::RAIO_DIRECT_WRITE,
        };
        if what.alone {
            op |= bindings::RAIO_NOMERGE;
        }
        if what.polled {
            op |= bindings::RAIO_POLLED;
        }
        // SAFETY: The field at `OFFSET`, which is ours until it is submitted.
        unsafe {
            let bio = (*this.as_ptr().byte_add(T::OFFSET).cast::<Self>()).0.get();
            bindings::bio_init(bio, device.0.as_ptr(), null_mut(), 0, op);
            // The parts aren't its own.
            (*bio).bi_flags = bindings::RAIO_BIO_CLONED;
            (*bio).bi_io_vec = what.place.vecs.cast_mut();
            (*bio).bi_iter.bi_offset = what.place.offset as ffi::c_uint;
            (*bio).bi_iter.bi_size = what.len as ffi::c_uint;
            (*bio).bi_iter.bi_sector = what.pos as u64 >> bindings::SECTOR_SHIFT;
            (*bio).bi_ioprio = what.ioprio;
            (*bio).bi_write_hint = what.hint;
            (*bio).bi_end_io = Some(ended::<T>);
            if what.dir == Direction::Write {
                bindings::raio_account_write(what.len);
            }
            bindings::submit_bio(bio);
        }
    }

    /// Asks the device whether something has ended that is polled for, once, unless this is `over`. True if it
    /// is, something has, or a signal is pending. Process context.
    ///
    /// # Safety
    ///
    /// It must have been sent, and nobody use it otherwise before this returns. `over` must be zero until it has
    /// ended, and set with release order by who has ended it.
    pub(crate) unsafe fn ask(&self, over: &Atomic<u32>) -> bool {
        // SAFETY: As the caller says, so what it was sent to is there, and it says which that is.
        unsafe { bindings::raio_iopoll_bio(self.0.get(), over.as_ptr()) > 0 }
    }

    /// What came of it. Any context; once after it has ended.
    #[inline]
    pub(crate) fn outcome(&self) -> Outcome {
        let bio = self.0.get();
        // SAFETY: It was initialised by `send`, and the block layer doesn't use it any more.
        unsafe {
            let status = (*bio).bi_status;
            bindings::bio_uninit(bio);
            match status.into() {
                0 => Outcome::Done,
                bindings::RAIO_BLK_STS_AGAIN => Outcome::WouldWait,
                // The device can't be polled any more.
                bindings::RAIO_BLK_STS_NOTSUPP if (*bio).bi_opf & bindings::RAIO_POLLED != 0 => {
                    Outcome::WouldWait
                }
                _ => Outcome::Failed(Error::from_errno(bindings::blk_status_to_errno(status))),
            }
        }
    }
}

/// # Safety
///
/// To be called by the C side only, with a bio that was sent.
unsafe extern "C" fn ended<T: HasBio>(bio: *mut bindings::bio) {
    // SAFETY: `bio` is all of the field at `OFFSET`, as `HasBio` says, of what was given to `send`.
    unsafe { T::ended(NonNull::new_unchecked(bio.byte_sub(T::OFFSET).cast::<T>())) }
}
