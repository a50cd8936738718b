// SPDX-License-Identifier: GPL-2.0

//! Copies to and from user space that [`UserSlice`] doesn't offer.

use crate::bindings;
use core::mem::{
    align_of,
    size_of,
    MaybeUninit, //
};
use kernel::{
    ffi,
    prelude::*,
    transmute::{AsBytes, FromBytes},
    uaccess::UserSlice, //
};

/// An address of the caller as the ABI carries it. `EFAULT` if it isn't one on this machine.
pub(crate) fn address(addr: u64) -> Result<usize> {
    usize::try_from(addr).map_err(|_| EFAULT)
}

/// Reads a `T` from `addr` into `place`.
#[inline(always)]
pub(crate) fn read_to<T: FromBytes>(place: &mut MaybeUninit<T>, addr: usize) -> Result<&T> {
    if size_of::<T>() % size_of::<u64>() == 0 && align_of::<T>() == align_of::<u64>() {
        let words = (size_of::<T>() / size_of::<u64>()) as ffi::c_uint;
        // SAFETY: There is room for so many words. The address is checked by the function.
        if !unsafe {
            bindings::raio_get_user_words(place.as_mut_ptr().cast(), addr as *const u64, words)
        } {
            return Err(EFAULT);
        }
    } else {
        let mut reader = UserSlice::new(UserPtr::from_addr(addr), size_of::<T>()).reader();
        place.write(reader.read()?);
    }
    // SAFETY: All of it was written, and any bytes will do.
    Ok(unsafe { place.assume_init_ref() })
}

/// Reads a `T` from `addr`.
pub(crate) fn read<T: FromBytes>(addr: usize) -> Result<T> {
    let mut value = MaybeUninit::uninit();
    read_to(&mut value, addr)?;
    // SAFETY: It was read.
    Ok(unsafe { value.assume_init() })
}

/// Writes `value` to `addr`.
pub(crate) fn write<T: AsBytes>(addr: usize, value: &T) -> Result {
    UserSlice::new(UserPtr::from_addr(addr), size_of::<T>())
        .writer()
        .write(value)
}

/// Reads four bytes from `addr`.
pub(crate) fn read_u32(addr: usize) -> Result<u32> {
    let mut value = 0;
    // SAFETY: The address is checked by the function.
    if !unsafe { bindings::raio_get_user_u32(&mut value, addr as *const u32) } {
        return Err(EFAULT);
    }
    Ok(value)
}

/// Writes four bytes to `addr`.
pub(crate) fn write_u32(addr: usize, value: u32) -> Result {
    // SAFETY: The address is checked by the function.
    if !unsafe { bindings::raio_put_user_u32(value, addr as *mut u32) } {
        return Err(EFAULT);
    }
    Ok(())
}

/// A word of the caller, of four bytes or eight, at `addr`.
pub(crate) fn read_word(addr: usize, compat: bool) -> Result<usize> {
    if compat {
        return Ok(read_u32(addr)? as usize);
    }
    let mut value = 0;
    // SAFETY: The address is checked by the function.
    if !unsafe { bindings::raio_get_user_long(&mut value, addr as *const usize) } {
        return Err(EFAULT);
    }
    Ok(value)
}

/// Writes a word of the caller. `value` fits, for it is an address of the caller's.
pub(crate) fn write_word(addr: usize, value: usize, compat: bool) -> Result {
    if compat {
        write(addr, &(value as u32))
    } else {
        write(addr, &value)
    }
}

/// Copies memory that user space may be writing to at the same time.
///
/// # Safety
///
/// `src` must be valid for reads of `len` bytes.
pub(crate) unsafe fn copy_from_shared(addr: usize, src: *const u8, len: usize) -> Result {
    let addr = addr as *mut core::ffi::c_void;
    // SAFETY: `src` is readable, as the caller says; the destination is checked by the function.
    // Neither is turned into a reference.
    if unsafe { bindings::copy_to_user(addr, src.cast(), len) } != 0 {
        return Err(EFAULT);
    }
    Ok(())
}
