// SPDX-License-Identifier: GPL-2.0

//! Reads and writes through a file's own methods, with the checks that the VFS leaves to those who
//! call them.
//!
//! C header: `include/linux/fs.h`.

use super::pinned::Place;
use crate::bindings;
use core::{
    mem::MaybeUninit,
    ptr, //
};
use kernel::{
    error::to_result,
    ffi,
    fs::{
        File,
        LocalFile, //
    },
    prelude::*,
    sync::aref::ARef,
    types::Opaque, //
};

/// Which way the data goes.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Direction {
    /// From the file to memory.
    Read,
    /// From memory to the file.
    Write,
}

impl Direction {
    fn as_raw(self) -> ffi::c_int {
        match self {
            Self::Read => bindings::READ as ffi::c_int,
            Self::Write => bindings::WRITE as ffi::c_int,
        }
    }
}

/// What a file does when a request has ended: C's `ki_complete`.
pub(crate) type Complete = unsafe extern "C" fn(*mut bindings::kiocb, ffi::c_long);

/// The file of a descriptor of the current process, if there is one.
pub(crate) fn get(fd: u32) -> Option<ARef<File>> {
    let file = LocalFile::fget(fd).ok()?;
    // SAFETY: We are in an ioctl, which doesn't use the position of any file, so this thread isn't
    // in the middle of using this one's.
    Some(unsafe { LocalFile::assume_no_fdget_pos(file) })
}

/// Is `file` open for that?
pub(crate) fn open_for(file: &File, dir: Direction) -> bool {
    let bit = match dir {
        Direction::Read => bindings::RAIO_FMODE_READ,
        Direction::Write => bindings::RAIO_FMODE_WRITE,
    };
    // SAFETY: A live file; its mode doesn't change.
    unsafe { (*file.as_ptr()).f_mode & bit != 0 }
}

/// Can `file` do that?
pub(crate) fn has_method(file: &File, dir: Direction) -> bool {
    // SAFETY: A live file has operations, which don't change.
    let ops = unsafe { &*(*file.as_ptr()).f_op };
    match dir {
        Direction::Read => ops.read_iter.is_some(),
        Direction::Write => ops.write_iter.is_some(),
    }
}

/// Can what was written to `file` be made to last?
pub(crate) fn can_sync(file: &File) -> bool {
    // SAFETY: A live file has operations, which don't change.
    unsafe { (*(*file.as_ptr()).f_op).fsync.is_some() }
}

/// Makes last what was written to `file`, and what is known of it besides unless `data_only`. Sleeps.
/// What the file says is returned, which is 0 or an error.
pub(crate) fn sync(file: &File, data_only: bool) -> i64 {
    // SAFETY: A live file.
    unsafe { bindings::vfs_fsync(file.as_ptr(), data_only.into()) }.into()
}

/// Is what `file` does done by a process, that of a FUSE file system?
pub(crate) fn is_fuse(file: &File) -> bool {
    // SAFETY: A live file has an inode.
    unsafe { bindings::raio_file_is_fuse(file.as_ptr()) }
}

/// What the VFS checks before each read and write: position, locks, permission hooks.
#[inline(always)]
pub(crate) fn verify_area(file: &File, pos: i64, len: usize, dir: Direction) -> Result {
    // SAFETY: A live file; `pos` is only read.
    let ret = unsafe { bindings::rw_verify_area(dir.as_raw(), file.as_ptr(), &pos, len) };
    // Not `to_result`, which is a call.
    if ret < 0 {
        return Err(Error::from_errno(ret));
    }
    Ok(())
}

/// The I/O priority of the caller.
pub(crate) fn current_ioprio() -> u16 {
    // SAFETY: It may always be called.
    unsafe { bindings::raio_current_ioprio() }
}

/// What is known of how long data lives that is written to `file`.
pub(crate) fn write_hint(file: &File) -> u8 {
    // SAFETY: A live file has an inode.
    unsafe { bindings::raio_file_write_hint(file.as_ptr()) }
}

/// Can the end of direct transfers of `file` be asked for, as its device is now?
pub(crate) fn can_iopoll(file: &File) -> bool {
    // SAFETY: A live file.
    unsafe { bindings::raio_file_can_iopoll(file.as_ptr()) }
}

/// How a file can be asked for a transfer, so that whoever asks doesn't wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    /// As it is, for who asked for the transfer takes `EAGAIN` for an answer, or has to do it himself.
    Plainly,
    /// Not to wait. It says `EAGAIN` instead.
    Impatiently,
    /// When it is ready.
    WhenReady,
    /// Not at all.
    Never,
}

/// Does `file` look at who reads or writes it for more than a worker takes on: its namespaces, its cgroup, its
/// number?
fn is_of_its_caller(file: &File) -> bool {
    // SAFETY: A live file.
    unsafe { bindings::raio_file_is_of_its_caller(file.as_ptr()) }
}

/// Could `file` be ready at one time, and not at another?
pub(crate) fn gets_ready(file: &File) -> bool {
    // SAFETY: A live file has operations, which don't change, and an inode.
    unsafe {
        (*(*file.as_ptr()).f_op).poll.is_some()
            && !bindings::raio_file_is_reg(file.as_ptr())
            && !bindings::raio_file_is_blk(file.as_ptr())
    }
}

/// The caller's memory as files take it, or a part of it.
///
/// # Invariants
///
/// `iter` is initialised when it is used. `vector` is null, or what `iter` refers to: allocated by
/// `kmalloc()`, and ours.
pub(crate) struct UserBuffer {
    iter: Opaque<bindings::iov_iter>,
    vector: *mut bindings::iovec,
}

// SAFETY: Addresses that are followed in the address space they belong to, whichever thread does.
unsafe impl Send for UserBuffer {}

impl UserBuffer {
    /// One that is to be [set](Self::set) before it is used.
    #[inline(always)]
    pub(crate) const fn unset() -> Self {
        // INVARIANT: It isn't used yet.
        Self {
            iter: Opaque::uninit(),
            vector: ptr::null_mut(),
        }
    }

    /// `len` bytes at `addr`, cut to what one call may move. `EFAULT` if that isn't memory of a
    /// process.
    pub(crate) fn new(addr: usize, len: usize, dir: Direction) -> Result<Self> {
        let mut this = Self::unset();
        this.set(addr, len, dir)?;
        Ok(this)
    }

    /// The same where there is no vector.
    #[inline]
    pub(crate) fn set(&mut self, addr: usize, len: usize, dir: Direction) -> Result {
        // SAFETY: `iter` may be written to. The address isn't followed but checked.
        to_result(unsafe {
            bindings::import_ubuf(
                dir.as_raw(),
                ptr::with_exposed_provenance_mut(addr),
                len,
                self.iter.get(),
            )
        })
    }

    /// The buffers that the `nr` of `struct iovec` at `addr` say, which are read once, in the layout
    /// of the caller, and cut to what one call may move.
    ///
    /// `EINVAL` for too many, or a length that is negative; `EFAULT`; `ENOMEM`.
    pub(crate) fn with_vector(addr: usize, nr: u32, dir: Direction) -> Result<Self> {
        if nr == 0 {
            return Self::new(0, 0, dir);
        }
        // One is enough for one buffer, which needs no vector afterwards. What is kept for longer than a call is
        // the caller's to pay for.
        let mut one = MaybeUninit::<bindings::iovec>::uninit();
        let mut this = Self::unset();
        let mut room = one.as_mut_ptr();
        if nr > 1 {
            let most = nr.min(bindings::UIO_MAXIOV) as usize;
            let all = KVec::<bindings::iovec>::with_capacity(most, GFP_KERNEL_ACCOUNT)?;
            // INVARIANT: It is ours, by `kmalloc()`.
            (this.vector, _, _) = all.into_raw_parts();
            room = this.vector;
        }
        // SAFETY: There is room for so many, or the number is refused. All may be written to, what the caller gave
        // is only read.
        let len = unsafe {
            bindings::import_iovec(
                dir.as_raw(),
                ptr::with_exposed_provenance(addr),
                nr,
                nr,
                &mut room,
                this.iter.get(),
            )
        };
        if len < 0 {
            return Err(Error::from_errno(len as ffi::c_int));
        }
        // INVARIANT: Initialised.
        Ok(this)
    }

    /// `len` bytes of pinned memory. Who has them keeps them.
    pub(crate) fn pinned(place: Place, len: usize, dir: Direction) -> Self {
        let mut this = Self::unset();
        this.set_pinned(place, len, dir);
        this
    }

    /// The same where there is no vector.
    #[inline]
    pub(crate) fn set_pinned(&mut self, place: Place, len: usize, dir: Direction) {
        // SAFETY: `iter` may be written to. The parts are kept by the caller.
        unsafe {
            bindings::raio_iov_iter_bvec(
                self.iter.get(),
                dir.as_raw(),
                place.vecs,
                place.nr,
                place.offset,
                len,
            )
        };
    }

    /// Pieces of memory, each of which is one after the other.
    pub(crate) fn pieces(&self) -> u32 {
        // SAFETY: Initialised, by the type invariant.
        unsafe { bindings::raio_iov_iter_pieces(self.iter.get()) }
    }

    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: Initialised, by the type invariant.
        unsafe { bindings::raio_iov_iter_count(self.iter.get()) }
    }
}

impl Drop for UserBuffer {
    #[inline]
    fn drop(&mut self) {
        if !self.vector.is_null() {
            // SAFETY: Ours, by the type invariant, and no longer used.
            unsafe { bindings::kfree(self.vector.cast()) }
        }
    }
}

/// Where and how a transfer is made.
#[derive(Clone, Copy)]
pub(crate) struct Transfer {
    pub(crate) dir: Direction,
    /// Where in the file.
    pub(crate) pos: i64,
    /// `RWF_*` bits.
    pub(crate) rw_flags: u32,
    /// The I/O priority, if it isn't that of the caller.
    pub(crate) ioprio: Option<i16>,
    /// Whether who completes it also signals an eventfd.
    pub(crate) eventfd: bool,
}

/// The same of one that asks for nothing besides.
pub(crate) struct Plain {
    pub(crate) dir: Direction,
    pub(crate) pos: i64,
    /// That of the caller.
    pub(crate) ioprio: u16,
}

/// How an attempt is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As who asked for the transfer has said.
    AsItIs,
    /// Without waiting; `EAGAIN` then, or `EOPNOTSUPP`.
    Impatient,
    /// The same [`without_faults`].
    Quick,
    /// With that in the wait queue of the page that has to be waited for, and `EIOCBQUEUED` then;
    /// `EAGAIN` if that is not enough. It may wait for other things.
    ForPages(*mut bindings::wait_page_queue),
    /// It may wait for everything.
    Patient,
}

/// Also to start I/O of the page cache may be to wait, even for a file that is open for direct I/O.
const IMPATIENT: u32 = bindings::RAIO_IOCB_NOWAIT | bindings::RAIO_IOCB_NOIO;

/// Which file it is, while somebody has it open. It isn't followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inode(*mut bindings::inode);

/// What a transfer locks.
pub(crate) struct Lock {
    pub(crate) inode: Inode,
    /// There is no point in more of them at once.
    pub(crate) most: usize,
}

/// Direct writes of a file, see [`Kiocb::locks`].
const DIRECT_WRITES: usize = 16;

/// The kernel's part of a request.
///
/// # Invariants
///
/// Once [`Self::prepare`] was called, or if it is a [plain](Self::plain) one, `ki_filp` is a file that the
/// owner keeps for as long as the request exists.
#[repr(transparent)]
pub(crate) struct Kiocb(Opaque<bindings::kiocb>);

impl Kiocb {
    /// One that is yet to be prepared; its end is to be asked for if it is `polled` then.
    #[inline(always)]
    pub(crate) fn new(polled: bool) -> Self {
        let this = Self(Opaque::zeroed());
        if polled {
            // SAFETY: It is ours alone.
            unsafe { (*this.as_raw()).ki_flags = bindings::RAIO_IOCB_HIPRI as ffi::c_int };
        }
        this
    }

    /// One that is prepared for a transfer which asks for nothing besides; nothing is wrong with that.
    ///
    /// # Safety
    ///
    /// As for [`Self::prepare`].
    #[inline(always)]
    pub(crate) unsafe fn plain(
        file: &File,
        transfer: &Plain,
        polled: bool,
        complete: Complete,
    ) -> Self {
        let this = Self::new(polled);
        let write = match transfer.dir {
            Direction::Read => 0,
            Direction::Write => bindings::RAIO_IOCB_WRITE,
        };
        let kiocb = this.as_raw();
        // INVARIANT: The caller keeps the file.
        // SAFETY: `this` is ours alone, the file lives.
        unsafe {
            (*kiocb).ki_filp = file.as_ptr();
            (*kiocb).ki_pos = transfer.pos;
            (*kiocb).ki_complete = Some(complete);
            // What is polled for stays so.
            (*kiocb).ki_flags |= (*file.as_ptr()).f_iocb_flags as ffi::c_int | write as ffi::c_int;
            (*kiocb).ki_ioprio = transfer.ioprio;
        }
        this
    }

    /// Has its file left it to be polled for? To be asked when the method has returned; it may have ended since.
    ///
    /// # Safety
    ///
    /// It must have been prepared, as such a one.
    pub(crate) unsafe fn is_polled(&self) -> bool {
        // SAFETY: A word that is read at once, however it is written.
        unsafe { bindings::raio_kiocb_is_polled(self.as_raw()) }
    }

    /// Nothing is merged with it that is submitted under the same plug. To be called when the method has returned.
    ///
    /// # Safety
    ///
    /// As for [`Self::is_polled`].
    pub(crate) unsafe fn keep_apart(&self) {
        // SAFETY: As above. What is in the plug of the running task, it alone has.
        unsafe { bindings::raio_kiocb_keep_apart(self.as_raw()) }
    }

    /// Asks its device whether something has ended that is polled for, once. True if it has, or a signal is
    /// pending. Process context.
    ///
    /// # Safety
    ///
    /// It must have been prepared, as such a one.
    pub(crate) unsafe fn ask(&self) -> bool {
        // SAFETY: `ki_filp` is live, by the type invariant, and has the method, by `can_iopoll`.
        unsafe { bindings::raio_iopoll_kiocb(self.as_raw()) > 0 }
    }

    /// The raw request, which is all of `self`.
    pub(crate) fn as_raw(&self) -> *mut bindings::kiocb {
        self.0.get()
    }

    /// Fills it in for a transfer that ends with `complete`, with the flags of the file.
    ///
    /// `EINVAL` and `EPERM` for a priority, `EOPNOTSUPP` and others for flags that the file doesn't
    /// take.
    ///
    /// # Safety
    ///
    /// The file must be kept for as long as the request exists.
    pub(crate) unsafe fn prepare(
        &mut self,
        file: &File,
        transfer: &Transfer,
        complete: Complete,
    ) -> Result {
        let kiocb = self.as_raw();
        // SAFETY: `self` is ours alone.
        let mut flags = unsafe { (*kiocb).ki_flags as u32 } & bindings::RAIO_IOCB_HIPRI;
        if transfer.dir == Direction::Write {
            flags |= bindings::RAIO_IOCB_WRITE;
        }
        if transfer.eventfd {
            flags |= bindings::RAIO_IOCB_EVENTFD;
        }
        // INVARIANT: The caller keeps the file.
        // SAFETY: `self` is ours alone, the file lives.
        unsafe {
            (*kiocb).ki_filp = file.as_ptr();
            (*kiocb).ki_pos = transfer.pos;
            (*kiocb).ki_complete = Some(complete);
            (*kiocb).ki_flags = (*file.as_ptr()).f_iocb_flags as ffi::c_int;
            (*kiocb).ki_ioprio = match transfer.ioprio {
                Some(prio) => {
                    to_result(bindings::raio_ioprio_check(prio.into()))?;
                    prio as u16
                }
                None => bindings::raio_current_ioprio(),
            };
            to_result(bindings::raio_kiocb_set_rw_flags(
                kiocb,
                transfer.rw_flags,
                transfer.dir.as_raw(),
            ))?;
            // What is polled for the context says.
            (*kiocb).ki_flags &= !(bindings::RAIO_IOCB_HIPRI as ffi::c_int);
            (*kiocb).ki_flags |= flags as ffi::c_int;
        }
        Ok(())
    }

    /// What the file and the request have said so far.
    #[inline]
    pub(crate) fn flags(&self) -> u32 {
        // SAFETY: Whoever asks owns it.
        unsafe { (*self.as_raw()).ki_flags as u32 }
    }

    /// Gives it a priority that was checked.
    pub(crate) fn set_ioprio(&mut self, ioprio: u16) {
        // SAFETY: `self` is ours alone.
        unsafe { (*self.as_raw()).ki_ioprio = ioprio }
    }

    /// How its file can be asked.
    pub(crate) fn asking(&self) -> Asking {
        // SAFETY: `ki_filp` is live, by the type invariant; what is read of it doesn't change, but
        // for `O_NONBLOCK`.
        let (file, flags, mode, file_flags, ways) = unsafe {
            let kiocb = self.as_raw();
            let file: &File = File::from_raw_file((*kiocb).ki_filp);
            let raw = file.as_ptr();
            (
                file,
                (*kiocb).ki_flags as u32,
                (*raw).f_mode,
                (*raw).f_flags,
                (*(*raw).f_op).fop_flags,
            )
        };
        let gets_ready = gets_ready(file);
        if flags & bindings::RAIO_IOCB_NOWAIT != 0
            || gets_ready && file_flags & bindings::RAIO_O_NONBLOCK != 0
            || is_of_its_caller(file)
        {
            Asking::Plainly
        } else if mode & bindings::RAIO_FMODE_NOWAIT == 0 {
            if gets_ready {
                Asking::WhenReady
            } else {
                Asking::Never
            }
        } else if flags & bindings::RAIO_IOCB_WRITE == 0
            // SAFETY: A live file.
            && unsafe { bindings::raio_atime_is_due(file.as_ptr()) }
            // SAFETY: As above.
            || unsafe { bindings::raio_kiocb_lacks_queue(self.as_raw()) }
        {
            Asking::Never
        } else if gets_ready
            || flags & bindings::RAIO_IOCB_DIRECT != 0
            || flags & bindings::RAIO_IOCB_WRITE == 0
        {
            Asking::Impatiently
        } else if ways & bindings::RAIO_FOP_BUFFER_WASYNC == 0
            // What is written behind the end is to be in one piece.
            || flags & bindings::RAIO_IOCB_APPEND != 0
            // SAFETY: As above.
            || unsafe { bindings::raio_kiocb_write_waits(self.as_raw()) }
        {
            Asking::Never
        } else {
            Asking::Impatiently
        }
    }

    /// Can a read wait for a page without a task?
    #[inline]
    pub(crate) fn waits_for_pages(&self) -> bool {
        // SAFETY: `ki_filp` is live, by the type invariant, and its operations don't change.
        unsafe {
            let kiocb = self.as_raw();
            let skip = bindings::RAIO_IOCB_WRITE | bindings::RAIO_IOCB_DIRECT;
            (*kiocb).ki_flags as u32 & skip == 0
                && (*(*(*kiocb).ki_filp).f_op).fop_flags & bindings::RAIO_FOP_BUFFER_RASYNC != 0
        }
    }

    /// Is an attempt known to wait, whatever it is told? A read may begin with what isn't cached, a pipe be locked.
    #[inline]
    pub(crate) fn is_cold(&self) -> bool {
        // SAFETY: `ki_filp` is live, by the type invariant.
        unsafe {
            if self.waits_for_pages() {
                return bindings::raio_kiocb_is_cold(self.as_raw());
            }
            let file = (*self.as_raw()).ki_filp;
            gets_ready(File::from_raw_file(file)) && bindings::raio_pipe_is_busy(file)
        }
    }

    /// Would a write note a new time of its file now, for which its file system has to wait?
    pub(crate) fn notes_time(&self) -> bool {
        // SAFETY: `ki_filp` is live, by the type invariant.
        unsafe { bindings::raio_file_notes_time((*self.as_raw()).ki_filp) }
    }

    /// Has its file system make what it needs for all its direct transfers, if it hasn't yet. Sleeps then.
    pub(crate) fn make_queue(&self) {
        // SAFETY: `ki_filp` is live, by the type invariant.
        unsafe { bindings::raio_kiocb_make_queue(self.as_raw()) }
    }

    /// Does it need [places](Self::reserve) at a disk?
    pub(crate) fn is_of_disk(&self) -> bool {
        // SAFETY: `ki_filp` is live, by the type invariant.
        unsafe { bindings::raio_kiocb_is_of_disk(self.as_raw()) }
    }

    /// What may become several requests of its disk isn't polled for: so many bytes, in so many pieces of memory.
    pub(crate) fn poll_one(&mut self, len: usize, pieces: u32) {
        // SAFETY: `ki_filp` is live, by the type invariant, and `self` ours alone.
        unsafe { bindings::raio_kiocb_poll_one(self.as_raw(), len, pieces) }
    }

    /// Takes so many places in the queue of its disk, if it [needs any](Self::is_of_disk), for attempts by this
    /// task, in whose [plug](super::plug) they are until that ends. Returns how many are there, if there are fewer,
    /// or more: a file system doesn't tell its disk that nobody is to wait.
    pub(crate) fn reserve(&self, nr: u32) -> u32 {
        // SAFETY: `ki_filp` is live, by the type invariant.
        unsafe { bindings::raio_kiocb_reserve(self.as_raw(), nr) }
    }

    /// Has the first attempt made without waiting, where it was prepared for.
    #[inline(always)]
    pub(crate) fn hurry(&self) {
        // SAFETY: Whoever makes the attempt owns it.
        unsafe { (*self.as_raw()).ki_flags |= IMPATIENT as ffi::c_int }
    }

    /// Has the next attempt made at `pos`, in that manner.
    #[inline]
    pub(crate) fn aim(&self, pos: i64, manner: Manner) {
        let (flags, page) = match manner {
            Manner::AsItIs => return,
            Manner::Impatient | Manner::Quick => (IMPATIENT, ptr::null_mut()),
            Manner::ForPages(page) => (bindings::RAIO_IOCB_WAITQ, page),
            Manner::Patient => (0, ptr::null_mut()),
        };
        let mut all = IMPATIENT | bindings::RAIO_IOCB_WAITQ;
        if manner == Manner::Patient {
            // A worker doesn't poll.
            all |= bindings::RAIO_IOCB_HIPRI;
        }
        // SAFETY: Whoever makes the attempt owns it.
        unsafe {
            let kiocb = self.as_raw();
            (*kiocb).ki_pos = pos;
            (*kiocb).ki_flags = ((*kiocb).ki_flags as u32 & !all | flags) as ffi::c_int;
            (*kiocb).ki_waitq = page;
        }
    }

    /// Does a transfer of which the last attempt was a part have to be gone on with, as `read(2)` and
    /// `write(2)` would?
    pub(crate) fn goes_on(&self) -> bool {
        // SAFETY: Whoever asks owns it, and `ki_filp` is live, by the type invariant.
        unsafe {
            let kiocb = self.as_raw();
            if (*kiocb).ki_flags as u32 & bindings::RAIO_IOCB_WRITE == 0 {
                return !gets_ready(File::from_raw_file((*kiocb).ki_filp));
            }
            // What ended it was no lack of patience.
            let limited = bindings::raio_file_is_reg((*kiocb).ki_filp)
                && (*kiocb).ki_pos as usize >= bindings::raio_fsize_limit();
            !limited
        }
    }

    /// What a write locks. One to the page cache keeps it for as long as it takes; a direct one for
    /// some of that, and many at once do it in no order, in which one that makes the file longer waits
    /// for all others.
    pub(crate) fn locks(&self) -> Option<Lock> {
        // SAFETY: `ki_filp` is live, by the type invariant. Whoever asks owns the rest.
        unsafe {
            let kiocb = self.as_raw();
            let flags = (*kiocb).ki_flags as u32;
            (flags & bindings::RAIO_IOCB_WRITE != 0 && bindings::raio_file_is_reg((*kiocb).ki_filp))
                .then(|| Lock {
                    inode: Inode((*(*kiocb).ki_filp).f_inode),
                    most: if flags & bindings::RAIO_IOCB_DIRECT == 0 {
                        1
                    } else {
                        DIRECT_WRITES
                    },
                })
        }
    }

    /// Does it write what is to last?
    pub(crate) fn writes(&self) -> bool {
        // SAFETY: `ki_filp` is live, by the type invariant. Whoever asks owns the rest.
        unsafe {
            let file = (*self.as_raw()).ki_filp;
            (*self.as_raw()).ki_flags as u32 & bindings::RAIO_IOCB_WRITE != 0
                && (bindings::raio_file_is_reg(file) || bindings::raio_file_is_blk(file))
        }
    }

    /// Was the last attempt told not to wait?
    #[inline]
    pub(crate) fn is_impatient(&self) -> bool {
        // SAFETY: Whoever asks owns it.
        unsafe { (*self.as_raw()).ki_flags as u32 & bindings::RAIO_IOCB_NOWAIT != 0 }
    }

    /// Keeps the file system of a regular file from being frozen. True if it does, until [`Self::end_write`]. Sleeps
    /// if it is frozen, unless `impatient`: `EAGAIN` then.
    #[inline]
    pub(crate) fn start_write(&mut self, impatient: bool) -> Result<bool> {
        // SAFETY: `ki_filp` is live, by the type invariant.
        let ret = unsafe { bindings::raio_kiocb_start_write(self.as_raw(), impatient) };
        if ret < 0 {
            return Err(Error::from_errno(ret));
        }
        Ok(ret != 0)
    }

    /// Undoes [`Self::start_write`], in any context.
    pub(crate) fn end_write(&mut self) {
        // SAFETY: `ki_filp` is live, by the type invariant.
        unsafe { bindings::raio_kiocb_end_write(self.as_raw()) }
    }
}

/// How large a block of a file is, as a power of two.
#[derive(Clone, Copy, Default)]
pub(crate) struct Blocks(u8);

impl Blocks {
    /// A file isn't in more pieces than that where one is read or written.
    const PIECES: usize = 8;

    /// Bytes that a disk may get with one request.
    const LARGEST: usize = 128 << 10;

    /// Those of `file`.
    pub(crate) fn of(file: &File) -> Self {
        // SAFETY: A live file has an inode.
        Self(unsafe { bindings::raio_file_blkbits(file.as_ptr()) })
    }

    /// Bytes of one.
    pub(crate) fn bytes(self) -> usize {
        1 << (self.0 & 63)
    }

    /// Is that within one of them?
    #[inline(always)]
    pub(crate) fn are_one(bytes: usize, pos: i64, len: usize) -> bool {
        // Also if there is none, of no bytes.
        (pos as usize & bytes.wrapping_sub(1)) == 0 && len <= bytes
    }

    /// How many requests of the disk so many bytes may be: each block may lie somewhere else.
    pub(crate) fn requests(self, pos: i64, len: usize) -> u32 {
        let within = pos as usize & (self.bytes() - 1);
        let blocks = within.saturating_add(len).div_ceil(self.bytes());
        match blocks {
            0 | 1 => 1,
            blocks => (blocks.min(Self::PIECES) + len / Self::LARGEST) as u32,
        }
    }
}

/// Runs `f` so that memory of a process that isn't there can't be accessed, and isn't waited for.
pub(crate) fn without_faults<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: Both may be called by every task.
    unsafe { bindings::raio_disable_faults() };
    let ret = f();
    // SAFETY: As above.
    unsafe { bindings::raio_enable_faults() };
    ret
}

/// Hands a request to the file's method, with what comes of `buffer` after `done` bytes. What it
/// returns is the result, or `-EIOCBQUEUED` if `ki_complete` is or was called with it, maybe before
/// this returns. A file that goes on with the buffer then has its own copy.
///
/// # Safety
///
/// `kiocb` must be prepared for `dir`, its file must have the method, and both must stay until
/// this has returned and, if it returns `-EIOCBQUEUED`, `ki_complete` was called; `buffer` until it
/// has returned. `done` must not be more than there is.
#[inline(always)]
pub(crate) unsafe fn call(
    kiocb: *mut bindings::kiocb,
    buffer: *const UserBuffer,
    done: usize,
    dir: Direction,
) -> isize {
    // SAFETY: The file stays, as the caller says.
    let ops = unsafe { &*(*(*kiocb).ki_filp).f_op };
    let method = match dir {
        Direction::Read => ops.read_iter,
        Direction::Write => ops.write_iter,
    };
    let Some(method) = method else {
        return EINVAL.to_errno() as isize;
    };
    // SAFETY: As the caller says. What it refers to is kept by the original.
    unsafe {
        let mut rest = ptr::read((*buffer).iter.get());
        if done > 0 {
            bindings::iov_iter_advance(&mut rest, done);
        }
        method(kiocb, &mut rest)
    }
}
