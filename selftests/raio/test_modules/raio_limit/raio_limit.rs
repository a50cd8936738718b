// SPDX-License-Identifier: GPL-2.0

//! raio_limit: what the block layer and its driver cost, which no asynchronous I/O can do without.
//!
//! `/dev/raio_limit` takes one command for each `write(2)`, which returns when that is done:
//!
//! ```text
//! PATH DEPTH BATCH BLOCKS N
//! ```
//!
//! Of the block device at that path it reads `N` times 4 KiB, at random from its first `BLOCKS` of
//! that size (a power of two), into pages of its own. It keeps `DEPTH` reads in flight and sends them
//! by `BATCH` under a plug: bios that are used again and again, without checks. `EINVAL` for a command
//! that makes no sense; `EIO` if a read failed; what opening the device says.
//!
//! No locks. Each bio says by one word, [`Read::state`], whose it is.

use core::{
    ptr::{
        null,
        null_mut, //
    },
    str::SplitAsciiWhitespace, //
};
use kernel::{
    alloc::flags::GFP_KERNEL,
    bindings,
    error::from_err_ptr,
    fs::{
        File,
        Kiocb, //
    },
    iov::IovIterSource,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    page::Page,
    prelude::*,
    str::CString,
    sync::atomic::{
        Acquire,
        Atomic,
        Relaxed,
        Release, //
    },
    types::Opaque, //
};

module! {
    type: RaioLimit,
    name: "raio_limit",
    authors: ["The raio developers"],
    description: "Reads as cheap as the block layer has them",
    license: "GPL",
}

const BLOCK: u32 = 4096;
const SECTORS: u64 = BLOCK as u64 / 512;
const MAX_COMMAND: usize = 128;
const MAX_DEPTH: usize = 1024;

/// Nobody's: it may be sent.
const IDLE: u32 = 0;
/// The block layer's.
const BUSY: u32 = 1;
/// Nobody's, after an error.
const FAILED: u32 = 2;

/// A read.
///
/// # Invariants
///
/// `bio` is initialised, and the block layer's while `state` is [`BUSY`]. `vec` is `page`, whole.
struct Read {
    bio: Opaque<bindings::bio>,
    vec: bindings::bio_vec,
    page: Page,
    /// Set to [`BUSY`] by who sends it (relaxed), from that by its end (release), which who sends it
    /// again waits for (acquire).
    state: Atomic<u32>,
}

impl Read {
    fn new() -> Result<KBox<Self>> {
        let page = Page::alloc_page(GFP_KERNEL)?;
        let vec = bindings::bio_vec {
            bv_page: page.as_ptr(),
            bv_len: BLOCK,
            bv_offset: 0,
        };
        let read = KBox::new(
            Self {
                bio: Opaque::uninit(),
                vec,
                page,
                state: Atomic::new(IDLE),
            },
            GFP_KERNEL,
        )?;
        // INVARIANT: This initialises it.
        // SAFETY: It isn't moved, for it is in a box. Without a device nothing else is needed.
        unsafe { bindings::bio_init(read.bio.get(), null_mut(), null_mut(), 0, 0) };
        Ok(read)
    }

    /// Sends it. It must be [`IDLE`].
    fn send(&self, bdev: *mut bindings::block_device, block: u64) {
        // Relaxed: it is read by who calls this, and by its end, which comes after this.
        self.state.store(BUSY, Relaxed);
        let bio = self.bio.get();
        // SAFETY: It is ours, and stays until it has ended, see `Reads`; so does the device.
        unsafe {
            bindings::bio_reset(bio, bdev, bindings::req_op_REQ_OP_READ);
            (*bio).bi_io_vec = (&raw const self.vec).cast_mut();
            (*bio).bi_vcnt = 1;
            (*bio).bi_iter.bi_sector = block * SECTORS;
            (*bio).bi_iter.bi_size = BLOCK;
            (*bio).bi_end_io = Some(Self::ended);
            (*bio).bi_private = (&raw const *self).cast_mut().cast();
            bindings::submit_bio(bio);
        }
    }

    /// # Safety
    ///
    /// To be called by the block layer only, with the bio of one that was sent.
    unsafe extern "C" fn ended(bio: *mut bindings::bio) {
        // SAFETY: `send` has put it there, and it stays until the store.
        unsafe {
            let state = match (*bio).bi_status {
                0 => IDLE,
                _ => FAILED,
            };
            // Release: pairs with the load-acquire of `wait`.
            (*(*bio).bi_private.cast::<Self>())
                .state
                .store(state, Release);
        }
    }

    /// Waits until it is nobody's. True if it has failed.
    fn wait(&self) -> bool {
        loop {
            // Acquire: pairs with the store-release of `ended`.
            match self.state.load(Acquire) {
                // SAFETY: We may sleep. What is plugged is sent then.
                BUSY => unsafe { bindings::msleep(1) },
                state => return state == FAILED,
            }
        }
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        self.wait();
        // SAFETY: Initialised, and nobody's.
        unsafe { bindings::bio_uninit(self.bio.get()) };
        let _ = &self.page;
    }
}

/// A block device that is open.
struct Device(*mut bindings::file);

impl Device {
    fn open(path: &CStr) -> Result<Self> {
        let mode = 1; // BLK_OPEN_READ
                      // SAFETY: A string; nobody else is kept out.
        let file = unsafe {
            bindings::bdev_file_open_by_path(path.as_char_ptr(), mode, null_mut(), null())
        };
        Ok(Self(from_err_ptr(file)?))
    }

    fn bdev(&self) -> *mut bindings::block_device {
        // SAFETY: A file of a block device.
        unsafe { bindings::file_bdev(self.0) }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: It is ours.
        unsafe { bindings::bdev_fput(self.0) }
    }
}

/// Runs `f` under a plug.
fn plugged(f: impl FnOnce()) {
    let plug = Opaque::uninit();
    // SAFETY: It is on our stack, where it stays until it is finished.
    unsafe { bindings::blk_start_plug(plug.get()) };
    f();
    // SAFETY: As above.
    unsafe { bindings::blk_finish_plug(plug.get()) };
}

/// George Marsaglia, "Xorshift RNGs", 2003.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn run(path: &CStr, depth: usize, batch: usize, blocks: u64, n: usize) -> Result {
    if depth == 0 || depth > MAX_DEPTH || batch == 0 || batch > depth || !blocks.is_power_of_two() {
        return Err(EINVAL);
    }
    let device = Device::open(path)?;
    let bdev = device.bdev();
    let mut reads = KVec::with_capacity(depth, GFP_KERNEL)?;
    for _ in 0..depth {
        reads.push(Read::new()?, GFP_KERNEL)?;
    }
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    let mut failed = false;
    let mut sent = 0;
    let mut next = reads.iter().cycle();
    while sent < n {
        let now = batch.min(n - sent);
        plugged(|| {
            for read in next.by_ref().take(now) {
                failed |= read.wait();
                read.send(bdev, random(&mut seed) & (blocks - 1));
            }
        });
        sent += now;
    }
    for read in &reads {
        failed |= read.wait();
    }
    if failed {
        Err(EIO)
    } else {
        Ok(())
    }
}

fn number<T: core::str::FromStr>(words: &mut SplitAsciiWhitespace<'_>) -> Result<T> {
    words
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or(EINVAL)
}

struct LimitFile;

#[vtable]
impl MiscDevice for LimitFile {
    type Ptr = KBox<Self>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        Ok(KBox::new(Self, GFP_KERNEL)?)
    }

    fn write_iter(_kiocb: Kiocb<'_, Self::Ptr>, iter: &mut IovIterSource<'_>) -> Result<usize> {
        let mut buffer = [0; MAX_COMMAND];
        let len = iter.len();
        let text = buffer.get_mut(..len).ok_or(EINVAL)?;
        if iter.copy_from_iter(text) != len {
            return Err(EFAULT);
        }
        let text = core::str::from_utf8(text).map_err(|_| EINVAL)?;
        let mut words = text.split_ascii_whitespace();
        let path = CString::try_from_fmt(fmt!("{}", words.next().ok_or(EINVAL)?))?;
        run(
            &path,
            number(&mut words)?,
            number(&mut words)?,
            number(&mut words)?,
            number(&mut words)?,
        )?;
        Ok(len)
    }
}

#[pin_data]
struct RaioLimit {
    #[pin]
    _device: MiscDeviceRegistration<LimitFile>,
}

impl kernel::InPlaceModule for RaioLimit {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _device <- MiscDeviceRegistration::register(MiscDeviceOptions { name: c"raio_limit" }),
        })
    }
}
