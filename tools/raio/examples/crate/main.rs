// SPDX-License-Identifier: GPL-2.0
//! The crate on the real device: a selftest that runs in the guest (see
//! scripts/test) and prints KTAP. Also a program to learn from.

mod libaio;
mod native;

use std::{fs::File, io, os::fd::FromRawFd, process::ExitCode};

type Test = (&'static str, fn() -> io::Result<()>);

/// Where the selftests' devices are told what to do.
const CONTROL: &str = "/dev/raio_test_ctl";
const BLOCK: usize = 4096;

fn pattern(block: u64) -> impl Iterator<Item = u8> {
    (0..BLOCK as u64).map(move |i| (block.wrapping_mul(31) ^ i ^ (i >> 8)) as u8)
}

fn eventfd() -> io::Result<File> {
    // SAFETY: it has just been opened.
    unsafe {
        match libc::eventfd(0, libc::EFD_CLOEXEC) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(File::from_raw_fd(fd)),
        }
    }
}

fn main() -> ExitCode {
    let tests = || libaio::TESTS.iter().chain(native::TESTS);
    println!("TAP version 13\n1..{}", tests().count());
    let mut status = ExitCode::SUCCESS;
    for (i, (name, test)) in tests().enumerate() {
        match test() {
            Ok(()) => println!("ok {} {name}", i + 1),
            Err(e) => {
                println!("# {e}\nnot ok {} {name}", i + 1);
                status = ExitCode::FAILURE;
            }
        }
    }
    status
}
