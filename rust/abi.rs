// SPDX-License-Identifier: GPL-2.0

//! What user space gave, decoded and checked. The types are generated from
//! `include/uapi/linux/raio.h`; nothing behind this room is known here. No locks.

mod layout;

use crate::{
    bindings,
    kernel_ext::{
        file_io::Direction,
        user, //
    },
};
use core::mem::{size_of, MaybeUninit};
use kernel::{
    ioctl::{
        _IOC_SIZE, //
    },
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    },
    uaccess::UserSlice, //
};
use layout::Plan;

pub(crate) use bindings::{
    raio_cancel as Cancel, raio_destroy as Destroy, raio_enter as Enter,
    raio_getevents as GetEvents, raio_query as Query, raio_register as Register,
    raio_setup as Setup, raio_stats as Stats, raio_submit as Submit,
};

/// Most requests that a context may be set up for. Its ring then has 32 MiB.
pub(crate) const MAX_EVENTS: u32 = 1 << 20;

/// [`Query`]'s `features`.
pub(crate) const FEATURES: u64 = bindings::RAIO_HAS_POLL
    | bindings::RAIO_HAS_SIGMASK
    | bindings::RAIO_HAS_MIN_WAIT
    | bindings::RAIO_HAS_CANCEL
    | bindings::RAIO_HAS_ENTER
    | bindings::RAIO_HAS_REGISTER;

/// The bits of `aio_flags` that are done.
pub(crate) const IOCB_FLAGS: u32 = bindings::IOCB_FLAG_RESFD | bindings::IOCB_FLAG_IOPRIO;
/// The same of requests that kernel AIO doesn't have.
pub(crate) const NATIVE_FLAGS: u32 =
    IOCB_FLAGS | bindings::RAIO_IOCB_FIXED_BUF | bindings::RAIO_IOCB_FIXED_FILE;

pub(crate) use bindings::{RAIO_MAX_BUFFERS as MAX_BUFFERS, RAIO_MAX_FILES as MAX_FILES};

/// What a ring says of itself.
pub(crate) mod ring {
    pub(crate) use crate::bindings::{
        RAIO_RING_COMPAT_FEATURES as COMPAT_FEATURES,
        RAIO_RING_INCOMPAT_FEATURES as INCOMPAT_FEATURES, RAIO_RING_MAGIC as MAGIC,
    };
}

/// A structure of the ABI.
pub(crate) trait Args: FromBytes + AsBytes {
    /// Its size when it was first defined.
    const FIRST_SIZE: usize;
}

macro_rules! args {
    ($($ty:ty: $size:expr),* $(,)?) => {$(
        // SAFETY: Integers without padding, as the sizes of its fields in the header add up to it.
        unsafe impl FromBytes for $ty {}
        // SAFETY: As above.
        unsafe impl AsBytes for $ty {}
        impl Args for $ty {
            const FIRST_SIZE: usize = $size;
        }
    )*};
}

args! {
    Query: 56,
    Stats: 72,
    Setup: 40,
    Destroy: 16,
    Submit: 32,
    GetEvents: 48,
    Cancel: 24,
    Enter: 48,
    Register: 32,
}

/// A call, and the number of bytes that its caller takes the structure to have.
pub(crate) enum Call {
    Query,
    Stats,
    Setup,
    Destroy,
    Submit,
    GetEvents,
    Cancel,
    Enter,
    Buffers,
    Files,
}

impl Call {
    /// Takes an ioctl number apart. `ENOTTY` if it isn't one of ours.
    pub(crate) fn decode(cmd: u32) -> Result<(Self, usize)> {
        const SIZE: u32 = bindings::_IOC_SIZEMASK << bindings::_IOC_SIZESHIFT;

        macro_rules! find {
            ($($known:ident => $call:ident),* $(,)?) => {
                $(if cmd & !SIZE == bindings::$known & !SIZE {
                    Self::$call
                } else)* {
                    return Err(ENOTTY);
                }
            };
        }

        // What is called most comes first.
        let call = find! {
            RAIO_CMD_ENTER => Enter,
            RAIO_CMD_SUBMIT => Submit,
            RAIO_CMD_GETEVENTS => GetEvents,
            RAIO_CMD_SETUP => Setup,
            RAIO_CMD_DESTROY => Destroy,
            RAIO_CMD_QUERY => Query,
            RAIO_CMD_STATS => Stats,
            RAIO_CMD_CANCEL => Cancel,
            RAIO_CMD_BUFFERS => Buffers,
            RAIO_CMD_FILES => Files,
        };
        Ok((call, _IOC_SIZE(cmd)))
    }
}

/// Reads a structure of which the caller knows `size` bytes. `f` gets it where it was read to.
///
/// `EINVAL` if it is too short, `E2BIG` if it has something to say that we don't know.
#[inline(always)]
pub(crate) fn read<T: Args, R>(
    addr: usize,
    size: usize,
    f: impl FnOnce(&T) -> Result<R>,
) -> Result<R> {
    let mut place = MaybeUninit::uninit();
    f(if size == size_of::<T>() {
        user::read_to(&mut place, addr)?
    } else {
        place.write(read_other(addr, size)?)
    })
}

/// The same if it isn't as large as ours.
#[cold]
fn read_other<T: Args>(addr: usize, size: usize) -> Result<T> {
    let plan = Plan::new(size, T::FIRST_SIZE, size_of::<T>()).ok_or(EINVAL)?;
    let mut reader = UserSlice::new(UserPtr::from_addr(addr), size).reader();
    const { assert!(size_of::<T>() <= 256) };
    let mut bytes = [0; 256];
    let known = bytes.get_mut(..plan.copy).ok_or(EINVAL)?;
    reader.read_slice(known)?;
    let value = T::from_bytes_copy(bytes.get(..size_of::<T>()).ok_or(EINVAL)?).ok_or(EINVAL)?;

    let mut chunk = [MaybeUninit::uninit(); 128];
    while !reader.is_empty() {
        let len = reader.len().min(chunk.len());
        let chunk = chunk.get_mut(..len).ok_or(EINVAL)?;
        reader.read_raw(chunk)?;
        // SAFETY: `read_raw` has written to all of it.
        if chunk.iter().any(|byte| unsafe { byte.assume_init() } != 0) {
            return Err(E2BIG);
        }
    }
    Ok(value)
}

/// Writes as much of a structure as the caller knows.
pub(crate) fn write<T: Args>(addr: usize, size: usize, value: &T) -> Result {
    let plan = Plan::new(size, T::FIRST_SIZE, size_of::<T>()).ok_or(EINVAL)?;
    let bytes = value.as_bytes().get(..plan.copy).ok_or(EINVAL)?;
    UserSlice::new(UserPtr::from_addr(addr), plan.copy)
        .writer()
        .write_slice(bytes)
}

/// `EINVAL` unless all are zero: flags that don't exist, fields that are reserved.
pub(crate) fn must_be_zero(fields: &[u64]) -> Result {
    if fields.iter().any(|field| *field != 0) {
        return Err(EINVAL);
    }
    Ok(())
}

impl Enter {
    /// Where the requests are. `EINVAL` for a flag that isn't one.
    pub(crate) fn iocbs(&self) -> Result<Iocbs> {
        match self.flags {
            0 => Ok(Iocbs::Array(user::address(self.iocbs)?)),
            bindings::RAIO_ENTER_SQ => Ok(Iocbs::Shared(self.iocbs.try_into()?)),
            _ => Err(EINVAL),
        }
    }
}

impl Setup {
    /// Is it to poll for its requests? `EINVAL` for a flag that isn't one.
    pub(crate) fn polls(&self) -> Result<bool> {
        must_be_zero(&[(self.flags & !bindings::RAIO_SETUP_IOPOLL).into()])?;
        Ok(self.flags != 0)
    }
}

impl Cancel {
    /// Does it say which by its data? `EINVAL` for a flag that isn't one.
    pub(crate) fn is_by_data(&self) -> Result<bool> {
        must_be_zero(&[(self.flags & !bindings::RAIO_CANCEL_DATA).into()])?;
        Ok(self.flags != 0)
    }
}

/// Where the requests of a call are.
#[derive(Clone, Copy)]
pub(crate) enum Iocbs {
    /// Words of the caller that point to them.
    Pointers { at: usize, compat: bool },
    /// One after another.
    Array(usize),
    /// In the submission array, from that one on.
    Shared(u32),
}

/// A buffer to register.
#[repr(transparent)]
pub(crate) struct Buffer(bindings::raio_buffer);

// SAFETY: Integers only.
unsafe impl FromBytes for Buffer {}

impl Buffer {
    /// Address and length. [`None`] is for none.
    pub(crate) fn decode(&self) -> Result<Option<(usize, usize)>> {
        match (self.0.addr, self.0.len) {
            (0, 0) => Ok(None),
            (addr, len) => Ok(Some((user::address(addr)?, len.try_into()?))),
        }
    }
}

/// A request as user space wrote it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Iocb(bindings::iocb);

// SAFETY: Integers only.
unsafe impl FromBytes for Iocb {}

/// What to do, with what. A request that got as far as this is well formed.
pub(crate) struct Request {
    /// To be given back in the event.
    pub(crate) data: u64,
    pub(crate) opcode: Opcode,
    pub(crate) rw_flags: u32,
    /// The I/O priority, if it isn't that of the caller.
    pub(crate) ioprio: Option<i16>,
    pub(crate) buf: usize,
    pub(crate) len: usize,
    pub(crate) offset: i64,
}

/// A read or write of one buffer.
#[derive(Clone, Copy)]
pub(crate) struct Transfer {
    /// To be given back in the event.
    pub(crate) data: u64,
    /// A descriptor, or the number of a file that is registered.
    pub(crate) fd: u32,
    pub(crate) is_file_fixed: bool,
    /// The number of the buffer, if it is registered.
    pub(crate) buffer: Option<u32>,
    pub(crate) span: Span,
}

/// What is read or written.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) dir: Direction,
    /// Where in the caller's memory. If the buffer is registered, it has to be in that.
    pub(crate) addr: usize,
    pub(crate) len: usize,
    /// Where in the file.
    pub(crate) pos: i64,
}

macro_rules! opcodes {
    ($($name:ident = $number:ident),* $(,)?) => {
        /// The operations that are done.
        #[derive(Clone, Copy)]
        pub(crate) enum Opcode {
            $($name),*
        }

        impl Opcode {
            /// The bits of all of them, for [`Query`].
            pub(crate) const ALL: u64 = $(1 << bindings::$number)|*;

            fn decode(number: u32) -> Result<Self> {
                match number {
                    $(bindings::$number => Ok(Self::$name),)*
                    _ => Err(EINVAL),
                }
            }
        }
    };
}

opcodes! {
    Pread = IOCB_CMD_PREAD,
    Pwrite = IOCB_CMD_PWRITE,
    Preadv = IOCB_CMD_PREADV,
    Pwritev = IOCB_CMD_PWRITEV,
    Fsync = IOCB_CMD_FSYNC,
    Fdsync = IOCB_CMD_FDSYNC,
    Poll = IOCB_CMD_POLL,
    Noop = IOCB_CMD_NOOP,
}

impl Iocb {
    /// The position in the one at `at`, which may change meanwhile.
    ///
    /// # Safety
    ///
    /// `at` must be valid for volatile reads.
    #[inline(always)]
    pub(crate) unsafe fn position(at: *const Self) -> u64 {
        // SAFETY: As the caller says. It isn't turned into a reference.
        unsafe { (&raw const (*at.cast::<bindings::iocb>()).aio_offset).read_volatile() as u64 }
    }

    /// Where its key is.
    const KEY_OFFSET: usize = core::mem::offset_of!(bindings::iocb, aio_key);

    /// Writes to the iocb at `addr` that the kernel has it.
    pub(crate) fn write_key(addr: usize) -> Result {
        user::write_u32(addr.wrapping_add(Self::KEY_OFFSET), 0)
    }

    /// `EINVAL` if that isn't written in the iocb at `addr`.
    pub(crate) fn check_key(addr: usize) -> Result {
        must_be_zero(&[user::read::<u32>(addr.wrapping_add(Self::KEY_OFFSET))?.into()])
    }

    /// Checks what can be checked without looking at anything else. `EINVAL`, as `io_submit(2)`
    /// says, but for a request that kernel AIO doesn't have.
    pub(crate) fn check(&self, native: bool) -> Result {
        let iocb = &self.0;
        let fixed = native && iocb.aio_flags & bindings::RAIO_IOCB_FIXED_BUF != 0;
        if iocb.aio_reserved2 != 0 && !fixed
            || usize::try_from(iocb.aio_buf).is_err()
            || isize::try_from(iocb.aio_nbytes).is_err()
        {
            return Err(EINVAL);
        }
        Ok(())
    }

    /// What it asks for, if that is to read or write one buffer, and nothing else. Then [`Self::check`] has
    /// nothing to say.
    #[inline(always)]
    pub(crate) fn as_transfer(&self, native: bool) -> Option<Transfer> {
        let iocb = &self.0;
        let dir = match u32::from(iocb.aio_lio_opcode) {
            bindings::IOCB_CMD_PREAD => Direction::Read,
            bindings::IOCB_CMD_PWRITE => Direction::Write,
            _ => return None,
        };
        let (file, buffer) = match native {
            true => (
                bindings::RAIO_IOCB_FIXED_FILE,
                bindings::RAIO_IOCB_FIXED_BUF,
            ),
            false => (0, 0),
        };
        let is_fixed = iocb.aio_flags & buffer != 0;
        if iocb.aio_flags & !(file | buffer) != 0
            || iocb.aio_rw_flags != 0
            || !is_fixed && iocb.aio_reserved2 != 0
        {
            return None;
        }
        Some(Transfer {
            data: iocb.aio_data,
            fd: iocb.aio_fildes,
            is_file_fixed: iocb.aio_flags & file != 0,
            buffer: match is_fixed {
                true => Some(u32::try_from(iocb.aio_reserved2).ok()?),
                false => None,
            },
            span: Span {
                dir,
                addr: usize::try_from(iocb.aio_buf).ok()?,
                len: isize::try_from(iocb.aio_nbytes).ok()? as usize,
                pos: iocb.aio_offset,
            },
        })
    }

    /// Does it ask for nothing, and says nothing besides?
    #[inline(always)]
    pub(crate) fn is_plain_noop(&self) -> bool {
        let iocb = &self.0;
        u32::from(iocb.aio_lio_opcode) == bindings::IOCB_CMD_NOOP
            && iocb.aio_flags | iocb.aio_rw_flags as u32 == 0
            && iocb.aio_buf | iocb.aio_nbytes | iocb.aio_offset as u64 | iocb.aio_reserved2 == 0
    }

    /// Does it ask for nothing?
    pub(crate) fn is_noop(&self) -> bool {
        u32::from(self.0.aio_lio_opcode) == bindings::IOCB_CMD_NOOP
    }

    /// To be given back in the event.
    #[inline]
    pub(crate) fn data(&self) -> u64 {
        self.0.aio_data
    }

    /// The descriptor of the file.
    pub(crate) fn fd(&self) -> u32 {
        self.0.aio_fildes
    }

    /// Is that the number of one that is registered? To be asked of a native request.
    pub(crate) fn is_file_fixed(&self) -> bool {
        self.0.aio_flags & bindings::RAIO_IOCB_FIXED_FILE != 0
    }

    /// The number of the buffer that it is about, if that is registered. To be asked of a native request.
    /// `EINVAL` if there is no such number.
    pub(crate) fn fixed_buffer(&self) -> Result<Option<u32>> {
        if self.0.aio_flags & bindings::RAIO_IOCB_FIXED_BUF == 0 {
            return Ok(None);
        }
        Ok(Some(self.0.aio_reserved2.try_into()?))
    }

    /// The descriptor of the eventfd that is to count its completion.
    pub(crate) fn eventfd(&self) -> Option<u32> {
        (self.0.aio_flags & bindings::IOCB_FLAG_RESFD != 0).then_some(self.0.aio_resfd)
    }

    /// The rest of the decoding, which comes after the file was found to exist: `EINVAL` for an
    /// operation or a flag that isn't done.
    pub(crate) fn decode(&self, native: bool) -> Result<Request> {
        let iocb = &self.0;
        let flags = if native { NATIVE_FLAGS } else { IOCB_FLAGS };
        must_be_zero(&[(iocb.aio_flags & !flags).into()])?;
        let ioprio = iocb.aio_flags & bindings::IOCB_FLAG_IOPRIO != 0;
        Ok(Request {
            data: iocb.aio_data,
            opcode: Opcode::decode(iocb.aio_lio_opcode.into())?,
            rw_flags: iocb.aio_rw_flags as u32,
            ioprio: ioprio.then_some(iocb.aio_reqprio),
            buf: usize::try_from(iocb.aio_buf)?,
            len: usize::try_from(iocb.aio_nbytes)?,
            offset: iocb.aio_offset,
        })
    }
}
