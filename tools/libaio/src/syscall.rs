// SPDX-License-Identifier: GPL-2.0
//! `syscall()` of the C library, so that programs which make the calls of
//! kernel AIO themselves run over raio too. Every other call goes to the
//! kernel as it is.
//!
//! Relies on `lib.rs` for those calls. It uses nothing of the C library but
//! `errno`, since it is called from anywhere, by allocators and in handlers of
//! signals too, and before this library is set up; the C library's own
//! `syscall()` can't be found without calling something that may call it.

#![allow(non_upper_case_globals)]

use crate::{aio::SigSet, timespec::widen, Context};
use raio::sys::*;
use std::ffi::{c_int, c_long};

/// The kernel's error numbers end here.
const MAX_ERRNO: c_long = 4095;

/// Makes a system call. Returns what the kernel does: the negative error
/// number if it fails.
///
/// # Safety
///
/// As for the system call.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn call(nr: c_long, args: [c_long; 6]) -> c_long {
    let [a, b, c, d, e, f] = args;
    let result;
    // SAFETY: the caller's promise; these are the registers of the kernel's ABI.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") nr => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// As above. `ebx`, `esi` and `ebp` are the compiler's.
///
/// # Safety
///
/// As for the system call.
#[cfg(target_arch = "x86")]
#[inline(always)]
pub unsafe fn call(nr: c_long, args: [c_long; 6]) -> c_long {
    let [a, b, c, d, e, f] = args;
    let words = [nr, a, b, c, d, e, f];
    let result;
    // SAFETY: the caller's promise; these are the registers of the kernel's
    // ABI, and those that are not operands are put back.
    unsafe {
        std::arch::asm!(
            "push ebx",
            "push esi",
            "push ebp",
            "mov ebx, [eax + 4]",
            "mov ecx, [eax + 8]",
            "mov edx, [eax + 12]",
            "mov esi, [eax + 16]",
            "mov edi, [eax + 20]",
            "mov ebp, [eax + 24]",
            "mov eax, [eax]",
            "int 0x80",
            "pop ebp",
            "pop esi",
            "pop ebx",
            inlateout("eax") words.as_ptr() => result,
            out("ecx") _, out("edx") _, out("edi") _,
        );
    }
    result
}

/// `syscall`, syscall(2).
///
/// # Safety
///
/// As for the system call; the sixth argument of `io_pgetevents` must be good
/// or null. It may be called with fewer arguments, as the C library's: what
/// the registers or the stack have instead is passed on.
#[no_mangle]
pub unsafe extern "C" fn raio_syscall(
    nr: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    let ctx = a as Context;
    let mut space = __kernel_timespec::default();
    let none = SigSet::default();
    // SAFETY: the caller's promise. The kernel, too, looks at half of `nr`.
    let result = unsafe {
        match nr as u32 {
            __NR_io_setup => crate::io_setup(a as c_int, b as _) as c_long,
            __NR_io_destroy => crate::io_destroy(ctx) as c_long,
            __NR_io_submit => crate::io_submit(ctx, b, c as _) as c_long,
            __NR_io_cancel => crate::raio_io_cancel_0_4(ctx, b as _, c as _) as c_long,
            __NR_io_getevents => {
                let timeout = widen(e as _, &mut space);
                crate::wait(ctx, b, c, d as _, timeout, &none) as c_long
            }
            __NR_io_pgetevents => {
                let timeout = widen(e as _, &mut space);
                let sigset = (f as *const SigSet).as_ref().unwrap_or(&none);
                crate::wait(ctx, b, c, d as _, timeout, sigset) as c_long
            }
            #[cfg(target_pointer_width = "32")]
            __NR_io_pgetevents_time64 => {
                let sigset = (f as *const SigSet).as_ref().unwrap_or(&none);
                crate::wait(ctx, b, c, d as _, e as _, sigset) as c_long
            }
            _ => call(nr, [a, b, c, d, e, f]),
        }
    };
    if (-MAX_ERRNO..0).contains(&result) {
        // SAFETY: it points to the thread's own.
        unsafe { *libc::__errno_location() = -result as c_int };
        return -1;
    }
    result
}

// The C library's version, so that what asks for the C library's gets this.
#[cfg(all(not(test), target_arch = "x86_64"))]
std::arch::global_asm!(".symver raio_syscall, syscall@@GLIBC_2.2.5");
#[cfg(all(not(test), target_arch = "x86"))]
std::arch::global_asm!(".symver raio_syscall, syscall@@GLIBC_2.0");
