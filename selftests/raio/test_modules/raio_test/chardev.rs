// SPDX-License-Identifier: GPL-2.0

//! `/dev/raio_test0` and 1: 1 MiB of memory each, read and written at a position, synced and polled.
//!
//! The data is moved at the moment a request ends, in whatever context that is. So the caller's pages
//! are pinned when the request comes in, and marked dirty then: that may sleep, which the end must
//! not. (If they are a file's and are written back meanwhile, what is read into them later may be
//! lost. Tests use anonymous memory.)
//!
//! A kernel's own memory isn't pinned. Its owner keeps it, and the array that describes it, until the
//! request has ended.
//!
//! # Locks
//!
//! The store's, a spin lock with interrupts off, in any context. Nothing is taken inside.

use crate::{
    devices,
    helpers,
    pollers::Pollers,
    queue::{
        Job,
        Mode,
        Plan,
        Queue,
        Work, //
    }, //
};
use core::{
    cmp,
    mem::MaybeUninit,
    ptr, //
};
use kernel::{
    bindings,
    error::{
        code,
        to_result, //
    },
    ffi,
    fs::{
        File,
        Kiocb, //
    },
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    list::ListArc,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    new_spinlock_irq,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        SpinLockIrq, //
    },
    types::{
        ForeignOwnable,
        Opaque, //
    },
};

/// Bytes of each device.
const SIZE: usize = 1 << 20;

/// Parts of memory that one request may have: `UIO_MAXIOV`, and each page once.
const MAX_PARTS: u16 = 1024 + 257;

/// A device with its requests.
pub(crate) type CharQueue = Queue<Transfer>;

/// What it holds, and who polls it.
#[pin_data]
pub(crate) struct Store {
    #[pin]
    bytes: SpinLockIrq<KVVec<u8>>,
    #[pin]
    pub(crate) pollers: Pollers,
}

/// A device that holds zeroes.
pub(crate) fn new_queue() -> Result<Arc<CharQueue>> {
    let bytes = KVVec::from_elem(0, SIZE, GFP_KERNEL)?;
    Queue::new(try_pin_init!(Store {
        bytes <- new_spinlock_irq!(bytes, "raio_test_store"),
        pollers <- Pollers::new(),
    }? Error))
}

/// Which way the data goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

/// Whose memory it is.
enum Owner {
    /// A process's: these are the parts of it, each within one folio, that are pinned.
    User(KVec<bindings::bio_vec>),
    /// The kernel's.
    Kernel(bindings::iov_iter),
}

/// The caller's end of a transfer.
struct Memory {
    owner: Owner,
    len: usize,
    dir: Direction,
}

impl Memory {
    /// None, for who waits for something else.
    fn none() -> Self {
        Self {
            owner: Owner::User(KVec::new()),
            len: 0,
            dir: Direction::Write,
        }
    }

    /// Takes the first `len` bytes of `iter`, or less if the rest can't be had. May sleep.
    ///
    /// # Safety
    ///
    /// `iter` must be what a method was called with for that direction.
    unsafe fn take(iter: *mut bindings::iov_iter, len: usize, dir: Direction) -> Result<Self> {
        // SAFETY: Alive, as the caller says.
        if !unsafe { helpers::raio_test_iter_is_user(iter) } {
            // SAFETY: As above. What it points to stays until the request has ended.
            let copy = unsafe { ptr::read(iter) };
            // SAFETY: As above.
            unsafe { bindings::iov_iter_advance(iter, len) };
            return Ok(Self {
                owner: Owner::Kernel(copy),
                len,
                dir,
            });
        }
        // SAFETY: As above.
        let max = unsafe { bindings::iov_iter_npages(iter, MAX_PARTS.into()) };
        let mut parts = KVec::with_capacity(usize::try_from(max)?, GFP_KERNEL)?;
        let max = max as u16;
        let mut nr = 0;
        let mut taken = 0;
        let mut error = code::EFAULT;
        while taken < len && nr < max {
            // SAFETY: There is room for `max` parts, of which it fills in those from `nr` on, and
            // says in `nr` how many there are.
            let ret = unsafe {
                bindings::iov_iter_extract_bvecs(
                    iter,
                    parts.as_mut_ptr(),
                    len - taken,
                    &mut nr,
                    max,
                    0,
                    0,
                )
            };
            match usize::try_from(ret) {
                Ok(n) if n > 0 => taken += n,
                Ok(_) => break,
                Err(_) => {
                    error = Error::from_errno(ret as ffi::c_int);
                    break;
                }
            }
        }
        // SAFETY: So many were filled in, which isn't more than there was room for.
        unsafe { parts.inc_len(nr.into()) };
        let memory = Self {
            owner: Owner::User(parts),
            len: taken,
            dir,
        };
        if taken == 0 && len > 0 {
            return Err(error);
        }
        memory.make_dirty();
        Ok(memory)
    }

    fn make_dirty(&self) {
        if let (Owner::User(parts), Direction::Read) = (&self.owner, self.dir) {
            for part in parts {
                // SAFETY: The page is pinned. We may sleep, for only `take` calls us.
                unsafe { bindings::set_page_dirty_lock(part.bv_page) };
            }
        }
    }

    /// Moves the data. Any context.
    fn copy(&mut self, store: &Store, pos: usize) -> Result<usize> {
        let mut user = MaybeUninit::uninit();
        let iter: *mut bindings::iov_iter = match &mut self.owner {
            Owner::User(parts) => {
                let user: *mut bindings::iov_iter = user.as_mut_ptr();
                let direction = match self.dir {
                    Direction::Read => bindings::ITER_DEST,
                    Direction::Write => bindings::ITER_SOURCE,
                };
                // SAFETY: This initialises it. The parts live longer than the iterator.
                unsafe {
                    bindings::iov_iter_bvec(user, direction, parts.as_ptr(), parts.len(), self.len)
                };
                user
            }
            Owner::Kernel(iter) => iter,
        };
        let end = pos.checked_add(self.len).ok_or(EINVAL)?;
        let mut bytes = store.bytes.lock();
        let bytes = bytes.get_mut(pos..end).ok_or(EINVAL)?;
        // SAFETY: `iter` is initialised, for this direction, and its memory is there: pinned, or the
        // kernel's own, so it doesn't fault. Whoever else has it may be changing it, which C doesn't
        // mind. Nobody else has `bytes`, for the lock is held.
        let copied = unsafe {
            match self.dir {
                Direction::Read => {
                    bindings::_copy_to_iter(bytes.as_ptr().cast(), bytes.len(), iter)
                }
                Direction::Write => {
                    bindings::_copy_from_iter(bytes.as_mut_ptr().cast(), bytes.len(), iter)
                }
            }
        };
        if copied == 0 && self.len > 0 {
            return Err(EFAULT);
        }
        Ok(copied)
    }

    /// Lets go of the memory, as dropping it does.
    fn release(&mut self) {
        let Owner::User(parts) = &mut self.owner else {
            return;
        };
        for part in parts.iter() {
            let bytes = part.bv_offset as usize + part.bv_len as usize;
            // SAFETY: These pages are pinned, and we forget about them below.
            unsafe {
                bindings::unpin_user_page_range_dirty_lock(
                    part.bv_page,
                    bytes.div_ceil(PAGE_SIZE),
                    false,
                )
            };
        }
        parts.clear();
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.release();
    }
}

/// Where a caller waits for its own request.
///
/// # Invariants
///
/// `done` is initialised.
#[pin_data]
struct Waiter {
    #[pin]
    done: Opaque<bindings::completion>,
    /// Written before it is done, read after.
    result: Atomic<isize>,
}

// SAFETY: A completion may be used from every thread.
unsafe impl Send for Waiter {}
// SAFETY: A completion may be used from every thread at the same time.
unsafe impl Sync for Waiter {}

impl Waiter {
    fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            // INVARIANT: This is what initialises it.
            pin_init!(Self {
                done <- Opaque::ffi_init(|done| {
                    // SAFETY: Memory for a completion that stays where it is.
                    unsafe { bindings::init_completion(done) }
                }),
                result: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    fn done(&self, result: isize) {
        self.result.store(result, Relaxed);
        // SAFETY: Initialised, by the type invariant. It orders the result too.
        unsafe { bindings::complete_all(self.done.get()) }
    }

    /// `EINTR` if the caller was killed.
    fn wait_killable(&self) -> Result {
        // SAFETY: Initialised, by the type invariant.
        to_result(unsafe { bindings::wait_for_completion_killable(self.done.get()) })
            .map_err(|_| EINTR)
    }

    fn wait(&self) {
        // SAFETY: Initialised, by the type invariant.
        unsafe { bindings::wait_for_completion(self.done.get()) }
    }
}

/// Who is told of the end.
enum Asker {
    /// Who gave us this, which is theirs from then on.
    Kiocb(*mut bindings::kiocb),
    /// The caller, who waits.
    Waiter(Arc<Waiter>),
}

/// A read, a write, or a sync.
///
/// # Invariants
///
/// A kiocb in `asker` is alive until its end is told, which [`Work::end`] does.
pub(crate) struct Transfer {
    memory: Memory,
    pos: usize,
    asker: Asker,
}

// SAFETY: The memory and the kiocb may be used from every thread.
unsafe impl Send for Transfer {}
// SAFETY: Nothing is done through a shared reference.
unsafe impl Sync for Transfer {}

impl Work for Transfer {
    type Device = Store;

    const IS_CHAR: bool = true;

    fn end(&mut self, store: &Store, error: Option<Error>) {
        let result = match error {
            Some(error) => Err(error),
            None => self.memory.copy(store, self.pos),
        };
        let result = match result {
            Ok(n) => n as isize,
            Err(e) => e.to_errno() as isize,
        };
        self.memory.release();
        match &self.asker {
            // SAFETY: Alive, by the type invariant, and this is called once.
            Asker::Kiocb(kiocb) => unsafe { helpers::raio_test_kiocb_complete(*kiocb, result) },
            Asker::Waiter(waiter) => waiter.done(result),
        }
    }
}

/// How raio cancels a request.
///
/// # Safety
///
/// See `include/linux/raio.h`: it is alive, and one for which this was offered.
unsafe extern "C" fn cancel_for_raio(kiocb: *mut bindings::kiocb) -> bool {
    // SAFETY: Alive, with its file, as the caller says. It is one of ours.
    let iocb = unsafe { Kiocb::<'_, Arc<CharQueue>>::from_raw(kiocb) };
    iocb.file().cancel(kiocb.addr(), true)
}

/// How kernel AIO cancels one. It holds a lock that the end of a request takes too.
///
/// # Safety
///
/// It must be alive, and one for which this was offered.
unsafe extern "C" fn cancel_for_aio(kiocb: *mut bindings::kiocb) -> ffi::c_int {
    // SAFETY: Alive, with its file, as the caller says. It is one of ours.
    let iocb = unsafe { Kiocb::<'_, Arc<CharQueue>>::from_raw(kiocb) };
    if iocb.file().cancel(kiocb.addr(), false) {
        0
    } else {
        code::EBUSY.to_errno()
    }
}

/// An open file of device `N`.
pub(crate) struct CharFile<const N: usize>;

#[vtable]
impl<const N: usize> MiscDevice for CharFile<N> {
    type Ptr = Arc<CharQueue>;

    fn open(file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        // SAFETY: It is being opened, so nobody else has it. The operations are those that it has,
        // and two more, with the same owner, whose reference the file gives up at its end.
        unsafe {
            helpers::raio_test_file_set_nowait(file.as_ptr());
            (*file.as_ptr()).f_op = Operations::<N>::ALL;
        }
        devices()?.chars.get(N).cloned().ok_or(ENODEV)
    }

    fn read_iter(kiocb: Kiocb<'_, Self::Ptr>, iter: &mut IovIterDest<'_>) -> Result<usize> {
        let len = iter.len();
        // SAFETY: What we were called with.
        unsafe { transfer(kiocb, iter.as_raw(), len, Direction::Read) }
    }

    fn write_iter(kiocb: Kiocb<'_, Self::Ptr>, iter: &mut IovIterSource<'_>) -> Result<usize> {
        let len = iter.len();
        // SAFETY: What we were called with.
        unsafe { transfer(kiocb, iter.as_raw(), len, Direction::Write) }
    }
}

/// What the kernel crate's misc devices have no methods for.
struct Operations<const N: usize>;

impl<const N: usize> Operations<N> {
    const OTHERS: *const bindings::file_operations = MiscDeviceOptions { name: c"" }
        .into_raw::<CharFile<N>>()
        .fops;

    const ALL: &'static bindings::file_operations = &bindings::file_operations {
        fsync: Some(Self::fsync),
        poll: Some(Self::poll),
        // SAFETY: A constant.
        ..unsafe { *Self::OTHERS }
    };

    /// # Safety
    ///
    /// To be called by the C side only, for an open file of the device.
    unsafe extern "C" fn fsync(
        file: *mut bindings::file,
        _start: bindings::loff_t,
        _end: bindings::loff_t,
        _datasync: ffi::c_int,
    ) -> ffi::c_int {
        // SAFETY: `open` has put it there, and `release` hasn't taken it, as the file is open.
        let queue = unsafe { Arc::<CharQueue>::borrow((*file).private_data) };
        sync(&queue).map_or_else(Error::to_errno, |()| 0)
    }

    /// # Safety
    ///
    /// To be called by the C side only, for an open file of the device.
    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table,
    ) -> bindings::__poll_t {
        // SAFETY: As in `fsync`.
        let queue = unsafe { Arc::<CharQueue>::borrow((*file).private_data) };
        // SAFETY: A live file, whose position we don't use, and its table.
        unsafe {
            queue
                .device()
                .pollers
                .poll(File::from_raw_file(file), table)
        }
    }
}

/// # Safety
///
/// To be called with what a method was called with.
unsafe fn transfer(
    kiocb: Kiocb<'_, Arc<CharQueue>>,
    iter: *mut bindings::iov_iter,
    len: usize,
    dir: Direction,
) -> Result<usize> {
    let queue = kiocb.file();
    let pos = usize::try_from(kiocb.ki_pos())?;
    if len == 0 {
        return Ok(0);
    }
    if pos >= SIZE {
        return match dir {
            Direction::Read => Ok(0),
            Direction::Write => Err(code::ENOSPC),
        };
    }
    // SAFETY: Alive, for the method hasn't returned.
    let (nowait, ioprio) = unsafe {
        (
            helpers::raio_test_kiocb_nowait(kiocb.as_raw()),
            helpers::raio_test_kiocb_ioprio(kiocb.as_raw()),
        )
    };
    let plan = queue.admit(nowait, ioprio, cmp::min(len, SIZE - pos))?;
    // SAFETY: As the caller says.
    match unsafe { Memory::take(iter, plan.len, dir) } {
        Ok(memory) => start(kiocb, &queue, &plan, memory, pos),
        Err(e) => {
            queue.ended();
            Err(e)
        }
    }
}

/// Does with a request that was admitted what the plan says.
fn start(
    mut kiocb: Kiocb<'_, Arc<CharQueue>>,
    queue: &CharQueue,
    plan: &Plan,
    mut memory: Memory,
    pos: usize,
) -> Result<usize> {
    let raw = kiocb.as_raw();
    // SAFETY: Alive, for the method hasn't returned.
    let sync = unsafe { helpers::raio_test_kiocb_sync(raw) };
    let result = match plan.mode {
        Mode::Now if !sync => {
            // INVARIANT: Alive, for the method hasn't returned.
            let mut transfer = Transfer {
                memory,
                pos,
                asker: Asker::Kiocb(raw),
            };
            transfer.end(queue.device(), None);
            queue.ended();
            return Err(code::EIOCBQUEUED);
        }
        Mode::Now | Mode::Sync => {
            let result = memory.copy(queue.device(), pos);
            drop(memory);
            queue.ended();
            result
        }
        _ if sync => wait(queue, plan, memory, pos),
        _ => {
            // INVARIANT: `EIOCBQUEUED` says that it has to live until its end is told.
            let transfer = Transfer {
                memory,
                pos,
                asker: Asker::Kiocb(raw),
            };
            let job = new_job(raw.addr(), queue, plan, transfer)?;
            if plan.offers_cancel() {
                queue.keep_offering(plan, job, || {
                    // SAFETY: Alive: nobody has offered to cancel it, so nobody can have ended it.
                    unsafe { helpers::raio_test_offer_cancel(raw, cancel_for_raio, cancel_for_aio) }
                });
            } else {
                queue.keep(plan, job);
            }
            return Err(code::EIOCBQUEUED);
        }
    };
    if let Ok(n) = result {
        *kiocb.ki_pos_mut() += n as i64;
    }
    result
}

fn new_job(
    id: usize,
    queue: &CharQueue,
    plan: &Plan,
    transfer: Transfer,
) -> Result<ListArc<Job<Transfer>>> {
    let cancel = plan.cancel;
    Job::new(id, cancel, transfer, GFP_KERNEL).inspect_err(|_| queue.ended())
}

/// Waits for a request of the caller's. If the caller is killed, it takes the request back, unless
/// that is being ended just now.
fn wait(queue: &CharQueue, plan: &Plan, memory: Memory, pos: usize) -> Result<usize> {
    let waiter = Waiter::new().inspect_err(|_| queue.ended())?;
    let id = Arc::as_ptr(&waiter).addr();
    let transfer = Transfer {
        memory,
        pos,
        asker: Asker::Waiter(waiter.clone()),
    };
    queue.keep(plan, new_job(id, queue, plan, transfer)?);
    if waiter.wait_killable().is_err() {
        match queue.withdraw(id) {
            Some(job) => queue.finish(job),
            None => waiter.wait(),
        }
    }
    let result = waiter.result.load(Relaxed);
    usize::try_from(result).map_err(|_| Error::from_errno(result as ffi::c_int))
}

/// `fsync(2)`, which there is nothing to do for.
fn sync(queue: &CharQueue) -> Result {
    let plan = queue.admit(false, 0, 0)?;
    match plan.mode {
        Mode::Now | Mode::Sync => {
            queue.ended();
            Ok(())
        }
        _ => wait(queue, &plan, Memory::none(), 0).map(|_| ()),
    }
}
