// SPDX-License-Identifier: GPL-2.0

//! `/dev/raio_testb0` and 1: disks of 256 MiB, whose memory is allocated as it is written to. What is written to the
//! second comes with protection information, where the kernel has that; it is counted and not kept.
//!
//! The data is moved at the moment a request ends, in whatever context that is; what a write needs of
//! new pages is allocated when it comes in.
//!
//! # Locks
//!
//! The store's, a spin lock with interrupts off, in any context. Inside of it are only those that
//! allocating a page takes.

use crate::{
    helpers,
    queue::{
        Cancel,
        Job,
        Mode,
        Queue,
        Work, //
    }, //
};
use core::{
    cmp,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    block::{
        mq::{
            Operations,
            Request,
            TagSet, //
        },
        SECTOR_SHIFT, //
    },
    error::{
        code,
        from_err_ptr, //
    },
    ffi, new_spinlock_irq,
    page::{
        Page,
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        ArcBorrow,
        SpinLockIrq, //
    },
    types::ForeignOwnable,
};

/// Bytes of each disk.
const SIZE: usize = 256 << 20;

/// Requests that one may have at a time. Whoever wants one more waits.
const NR_REQUESTS: u32 = 1024;

const READ: u32 = 0;
const WRITE: u32 = 1;

/// A disk with its requests.
pub(crate) type DiskQueue = Queue<Io>;

/// What it holds. A page that was never written is full of zeroes.
#[pin_data]
pub(crate) struct Store {
    #[pin]
    pages: SpinLockIrq<KVVec<Option<Page>>>,
}

/// A disk that holds zeroes.
pub(crate) fn new_queue() -> Result<Arc<DiskQueue>> {
    let nr = SIZE >> PAGE_SHIFT;
    let mut pages = KVVec::with_capacity(nr, GFP_KERNEL)?;
    for _ in 0..nr {
        pages.push(None, GFP_KERNEL)?;
    }
    Queue::new(try_pin_init!(Store {
        pages <- new_spinlock_irq!(pages, "raio_test_store"),
    }? Error))
}

impl Store {
    /// Allocates what is missing for a write. Any context.
    fn reserve(&self, pos: usize, len: usize) -> Result {
        let mut pages = self.pages.lock();
        let range = pos >> PAGE_SHIFT..pos.saturating_add(len).div_ceil(PAGE_SIZE);
        for page in pages.get_mut(range).ok_or(EIO)? {
            if page.is_none() {
                *page = Some(Page::alloc_page(GFP_ATOMIC | __GFP_ZERO | __GFP_NOWARN)?);
            }
        }
        Ok(())
    }
}

/// A request that is being carried out.
struct Moving<'a> {
    pages: &'a [Option<Page>],
    pos: usize,
    write: bool,
    result: Result,
}

impl Moving<'_> {
    /// Moves what belongs to one part of the request's memory.
    ///
    /// # Safety
    ///
    /// There must be `len` bytes at `addr`, and nobody else may have the pages.
    unsafe fn segment(&mut self, mut addr: *mut u8, mut len: usize) -> Result {
        while len > 0 {
            let offset = self.pos & (PAGE_SIZE - 1);
            let n = cmp::min(len, PAGE_SIZE - offset);
            let page = self.pages.get(self.pos >> PAGE_SHIFT).ok_or(EIO)?;
            // SAFETY: As the caller says, with `n` not more than `len`.
            unsafe {
                match page {
                    Some(page) if self.write => page.write_raw(addr, offset, n)?,
                    Some(page) => page.read_raw(addr, offset, n)?,
                    None if self.write => return Err(EIO),
                    None => addr.write_bytes(0, n),
                }
                addr = addr.add(n);
            }
            self.pos += n;
            len -= n;
        }
        Ok(())
    }

    /// # Safety
    ///
    /// To be called by [`helpers::raio_test_rq_each_segment`] with a `Moving` that nobody else has
    /// meanwhile, and whose pages nobody else has.
    unsafe extern "C" fn next(arg: *mut ffi::c_void, addr: *mut ffi::c_void, len: usize) {
        // SAFETY: As the caller says.
        let moving = unsafe { &mut *arg.cast::<Moving<'_>>() };
        if moving.result.is_ok() {
            // SAFETY: As the caller says.
            moving.result = unsafe { moving.segment(addr.cast(), len) };
        }
    }
}

/// A request of the block layer's.
///
/// # Invariants
///
/// `request` is there until [`Work::end`], or until the method returns an error. Until then it is
/// ours.
pub(crate) struct Io {
    request: Option<ARef<Request<DiskOps>>>,
    write: bool,
    pos: usize,
}

impl Work for Io {
    type Device = Store;

    const IS_CHAR: bool = false;

    fn end(&mut self, store: &Store, error: Option<Error>) {
        let Some(request) = self.request.take() else {
            return;
        };
        // The reference is given up with the request. The crate sets the count anew when the block
        // layer gives us the request the next time, and has no way to end it with an error.
        let rq: *mut bindings::request = ARef::into_raw(request).as_ptr().cast();
        let result = match error {
            Some(error) => Err(error),
            None => {
                let pages = store.pages.lock();
                let mut moving = Moving {
                    pages: &pages,
                    pos: self.pos,
                    write: self.write,
                    result: Ok(()),
                };
                // SAFETY: The request is ours, by the type invariant. `moving` is what `next` wants, and
                // the lock is held.
                unsafe {
                    helpers::raio_test_rq_each_segment(rq, Moving::next, (&raw mut moving).cast())
                };
                moving.result
            }
        };
        let errno = result.map_or_else(Error::to_errno, |()| 0);
        // SAFETY: The request is ours, by the type invariant, and nobody else has it. This gives it
        // back.
        unsafe { bindings::blk_mq_end_request(rq, bindings::errno_to_blk_status(errno)) }
    }
}

/// What the block layer calls.
pub(crate) struct DiskOps;

#[vtable]
impl Operations for DiskOps {
    type QueueData = Arc<DiskQueue>;

    fn queue_rq(
        queue: ArcBorrow<'_, DiskQueue>,
        request: ARef<Request<Self>>,
        _is_last: bool,
    ) -> Result {
        let rq: *mut bindings::request = (&raw const *request).cast_mut().cast();
        // SAFETY: It is ours until it is ended or an error is returned.
        let (nowait, ioprio, protected, op, pos, len) = unsafe {
            (
                helpers::raio_test_rq_nowait(rq),
                helpers::raio_test_rq_ioprio(rq),
                helpers::raio_test_rq_protected(rq),
                helpers::raio_test_rq_op(rq),
                helpers::raio_test_rq_pos(rq),
                helpers::raio_test_rq_bytes(rq),
            )
        };
        let write = match op {
            READ => false,
            WRITE => true,
            _ => return Err(code::EOPNOTSUPP),
        };
        // With `ENOMEM` the block layer tries again.
        if write {
            queue.device().reserve(pos, len)?;
        }
        // INVARIANT: The block layer has given it to us.
        let io = Io {
            request: Some(request),
            write,
            pos,
        };
        let job = Job::new(rq.addr(), Cancel::No, io, GFP_ATOMIC | __GFP_NOWARN)?;
        let plan = queue.admit(nowait, ioprio, len)?;
        if protected {
            queue.was_protected();
        }
        match plan.mode {
            Mode::Now | Mode::Sync => queue.finish(job),
            _ => queue.keep(&plan, job),
        }
        Ok(())
    }

    fn commit_rqs(_queue: ArcBorrow<'_, DiskQueue>) {}

    fn complete(_request: ARef<Request<Self>>) {
        // Only called for who calls `Request::complete`.
    }
}

/// A disk that is there for all, until this is dropped.
///
/// # Invariants
///
/// `gendisk` was added, and `queue_data` is what its methods get.
pub(crate) struct Disk {
    gendisk: NonNull<bindings::gendisk>,
    queue_data: *mut ffi::c_void,
    _tags: Arc<TagSet<DiskOps>>,
}

// SAFETY: A disk may be removed by any thread.
unsafe impl Send for Disk {}
// SAFETY: Nothing is done through a shared reference.
unsafe impl Sync for Disk {}

impl Disk {
    /// Shows the disk, which `protects` what is written to it or doesn't.
    pub(crate) fn new(name: &CStr, queue: Arc<DiskQueue>, protects: bool) -> Result<Self> {
        let tags: Arc<TagSet<DiskOps>> = Arc::pin_init(TagSet::new(1, NR_REQUESTS, 1), GFP_KERNEL)?;
        let queue_data = queue.into_foreign();
        // SAFETY: `TagSet` is a transparent wrapper of the initialised tag set, which is dropped after
        // the disk. The methods that `TagSet` has set want such queue data.
        let gendisk = from_err_ptr(unsafe {
            helpers::raio_test_add_disk(
                (&raw const *tags).cast_mut().cast(),
                queue_data,
                name.as_char_ptr(),
                (SIZE >> SECTOR_SHIFT) as u64,
                protects,
            )
        });
        match gendisk.and_then(|disk| NonNull::new(disk).ok_or(ENOMEM)) {
            // INVARIANT: It was added, with this.
            Ok(gendisk) => Ok(Self {
                gendisk,
                queue_data,
                _tags: tags,
            }),
            Err(e) => {
                // SAFETY: There is no disk that has it.
                drop(unsafe { Arc::<DiskQueue>::from_foreign(queue_data) });
                Err(e)
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // SAFETY: It was added, by the type invariant. Nobody has it open, for that keeps the module,
        // so when it is gone nobody has the queue's data.
        unsafe {
            bindings::del_gendisk(self.gendisk.as_ptr());
            bindings::put_disk(self.gendisk.as_ptr());
            drop(Arc::<DiskQueue>::from_foreign(self.queue_data));
        }
    }
}
