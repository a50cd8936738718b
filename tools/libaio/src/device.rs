// SPDX-License-Identifier: GPL-2.0
//! Whom the process's calls go to, decided at its first `io_setup`.
//!
//! Relies on `raio::raw::open`. There is no lock in here, so that a fork
//! at any moment leaves nothing locked in the child.

use raio::raw;
use std::{
    ffi::{c_char, c_int, CStr},
    io,
    os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
    sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering},
};

extern "C" {
    /// getenv() that finds nothing in a set-user-ID program.
    fn secure_getenv(name: *const c_char) -> *const c_char;
}

/// Whom a call goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The device, open as this descriptor.
    Device(c_int),
    /// The kernel's own AIO.
    KernelAio,
    /// Nobody: there is no context yet, or there is no device.
    None,
}

const NONE: c_int = -1;
const KERNEL_AIO: c_int = -2;

/// The descriptor, or one of the above.
static STATE: AtomicI32 = AtomicI32::new(NONE);

/// The number of the device that was opened last, by which we tell our
/// descriptor from another one of the same number.
static RDEV: AtomicU64 = AtomicU64::new(0);

/// Programs expect to get low descriptors, and close those they don't know.
const LOWEST_FD: c_int = 100;

fn decode(state: c_int) -> Mode {
    match state {
        NONE => Mode::None,
        KERNEL_AIO => Mode::KernelAio,
        fd => Mode::Device(fd),
    }
}

/// Whom to call for a context that is there.
#[inline]
pub fn mode() -> Mode {
    // Relaxed: a thread that has a context was told of it after its
    // io_setup() had stored this.
    decode(STATE.load(Ordering::Relaxed))
}

/// Whom to make a context with: opens the device if it isn't open, or if
/// the program has closed it.
pub fn mode_for_setup() -> Mode {
    // Acquire: pairs with the release in publish(), so that RDEV is that of
    // the descriptor.
    let old = STATE.load(Ordering::Acquire);
    if old == KERNEL_AIO || old >= 0 && is_ours(old) {
        return decode(old);
    }
    // SAFETY: a string in the environment; programs that change it in one
    // thread while another makes contexts have lost anyway.
    let env = |name: &CStr| unsafe {
        let value = secure_getenv(name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value))
    };
    let path = env(c"RAIO_DEVICE").unwrap_or(raio::DEVICE_PATH);
    match open(path, old) {
        Ok(fd) => publish(old, fd.into_raw_fd()),
        Err(_) if env(c"RAIO_FALLBACK") == Some(c"1") => publish(old, KERNEL_AIO),
        Err(e) => {
            complain(path, &e);
            Mode::None
        }
    }
}

/// Makes `new` the state, unless another thread was faster.
fn publish(old: c_int, new: c_int) -> Mode {
    // Release: pairs with the acquire in mode_for_setup(); RDEV has been stored.
    match STATE.compare_exchange(old, new, Ordering::Release, Ordering::Relaxed) {
        Ok(_) => decode(new),
        Err(current) => {
            if new >= 0 {
                // SAFETY: we have just opened it, and nobody knows.
                drop(unsafe { OwnedFd::from_raw_fd(new) });
            }
            decode(current)
        }
    }
}

/// Opens it as another descriptor than `old`, so that who compares the two sees that it was.
fn open(path: &CStr, old: c_int) -> io::Result<OwnedFd> {
    let low = raw::open(path)?;
    let lowest = LOWEST_FD.max(old.saturating_add(1));
    // SAFETY: no memory is involved.
    let high = unsafe { libc::fcntl(low.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) };
    let fd = if high >= 0 {
        // SAFETY: it has just been made.
        unsafe { OwnedFd::from_raw_fd(high) }
    } else {
        low // RLIMIT_NOFILE forbids the high one
    };
    if let Some(rdev) = rdev(fd.as_raw_fd()) {
        RDEV.store(rdev, Ordering::Relaxed);
    }
    Ok(fd)
}

/// The number of the character device that `fd` is, if it is one.
fn rdev(fd: c_int) -> Option<u64> {
    // With 64 bits also where `stat` has 32, in which not every number of an inode fits.
    let mut stat = std::mem::MaybeUninit::<libc::stat64>::uninit();
    // SAFETY: it is written to, and read only if that succeeded.
    let stat = unsafe {
        if libc::fstat64(fd, stat.as_mut_ptr()) != 0 {
            return None;
        }
        stat.assume_init()
    };
    (stat.st_mode & libc::S_IFMT == libc::S_IFCHR).then_some(stat.st_rdev)
}

/// Whether `fd` still is the device that was opened.
pub fn is_ours(fd: c_int) -> bool {
    rdev(fd) == Some(RDEV.load(Ordering::Relaxed))
}

/// Says on stderr, once, what is missing.
fn complain(path: &CStr, error: &io::Error) {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.swap(true, Ordering::Relaxed) {
        return;
    }
    let message = format!(
        "raio: cannot open {}: {error}; load raio.ko (insmod raio.ko or modprobe raio) \
         or set RAIO_FALLBACK=1 to use kernel AIO\n",
        path.to_string_lossy()
    );
    // SAFETY: the message is there. Nothing can be done if this fails.
    unsafe { libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len()) };
}

/// In the child of a fork: a context belongs to the memory it was made in,
/// so that the child begins anew, with a device of its own.
extern "C" fn forget_device() {
    let fd = STATE.load(Ordering::Relaxed);
    if fd >= 0 {
        if is_ours(fd) {
            // SAFETY: nobody else in this process knows of it.
            unsafe { libc::close(fd) };
        }
        STATE.store(NONE, Ordering::Relaxed);
    }
}

/// Runs when the library is loaded, before any of its functions.
extern "C" fn at_load() {
    // SAFETY: the handler uses only what may be used in the child of a fork,
    // and the library is not unloaded (`-z nodelete` in link.sh).
    unsafe { libc::pthread_atfork(None, None, Some(forget_device)) };
}

#[used]
#[link_section = ".init_array"]
static AT_LOAD: extern "C" fn() = at_load;
