// SPDX-License-Identifier: GPL-2.0
//! Processes that a thread forks. They have the open files, not the contexts:
//! their memory is another.

use crate::{
    context::{OpenFile, NOWHERE},
    counters::Count,
    ops::{Fork, DEVICES, SLOTS, TOLD},
    report::Checked,
    sys::{self, End, Pages},
    testdev::{Command, Mode},
    worker::LONGEST,
    world::World,
};
use raio::{raw, sys as abi};
use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, RawFd},
    sync::atomic::Ordering::SeqCst,
    thread,
    time::Duration,
};

/// The subcommand that is run by exec.
pub const HOLD: &str = "hold";

/// Forks, and waits for the end of the process.
///
/// # Errors
///
/// Any is a failure of the test.
pub fn fork(world: &World, file: &OpenFile, what: Fork) -> Checked {
    let handles: Vec<u64> = (0..SLOTS)
        .filter_map(|slot| Some(world.context(slot)?.handle()))
        .collect();
    // Before it happens: who sees the old number has not been forked with.
    world.forks.fetch_add(1, SeqCst);
    world.counters.count(Count::Forks);
    // SAFETY: the child takes no lock: it makes calls, and tells by a pipe.
    match unsafe { sys::fork() }.map_err(|e| format!("fork: {e}"))? {
        0 => {
            if let Err(e) = child(world, file, what, &handles) {
                world
                    .report
                    .fail(&format!("a forked process, {what:?}"), &e);
            }
            sys::exit_now(0)
        }
        pid => {
            if what == Fork::Abandon {
                // It waits for its requests, unless they were let go.
                sys::wait_for(LONGEST, || {
                    sys::sleeps_in(pid, abi::RAIO_IOC_DESTROY) || sys::has_ended(pid)
                });
                sys::kill(pid);
            }
            match sys::reap(pid).map_err(|e| format!("waitpid: {e}"))? {
                End::Exited(0) => Ok(()),
                End::Killed(libc::SIGKILL) if what == Fork::Abandon => Ok(()),
                end => Err(format!("a forked process has ended so: {end:?}")),
            }
        }
    }
}

fn child(world: &World, file: &OpenFile, what: Fork, handles: &[u64]) -> Checked {
    let descriptor = file.via(0);
    // What was closed when we were forked stays closed.
    let closed = |e: &io::Error| sys::errno(e) == libc::EBADF && descriptor.is_closed();
    for handle in handles {
        foreign(descriptor.number, *handle, descriptor.is_closed())?;
    }
    match what {
        Fork::Exit => Ok(()),
        Fork::Close => {
            for descriptor in &file.descriptors {
                match sys::close(descriptor.number) {
                    Err(e) if !(sys::errno(&e) == libc::EBADF && descriptor.is_closed()) => {
                        return Err(format!("close in a forked process: {e}"));
                    }
                    _ => {}
                }
            }
            Ok(())
        }
        Fork::Exec => {
            world.counters.count(Count::ForkExecs);
            let handle = handles.first().copied().unwrap_or(NOWHERE);
            Err(exec(descriptor.number, handle))
        }
        Fork::Leave | Fork::Destroy | Fork::Abandon => {
            if what == Fork::Abandon {
                // One that can't cancel.
                world
                    .control
                    .tell(TOLD - 1, Command::Mode(Mode::Hang))
                    .map_err(|e| format!("the control device: {e}"))?;
            }
            let mut handle = 0u64;
            let mut arg = abi::raio_setup {
                nr_events: 8,
                flags: abi::RAIO_SETUP_IOPOLL,
                ctxp: (&raw mut handle).expose_provenance() as u64,
                ..Default::default()
            };
            // SAFETY: `handle` may be written to.
            match unsafe { raw::setup(descriptor.number, &mut arg) } {
                Err(e) if closed(&e) => return Ok(()),
                Err(e) => return Err(format!("setup in a forked process: {e}")),
                Ok(_) => {}
            }
            const NR: usize = DEVICES as usize;
            let pages = Pages::new(NR).map_err(|e| format!("mmap: {e}"))?;
            let mut iocbs = [abi::iocb::default(); NR];
            let mut pointers = [0; NR];
            for (n, iocb) in iocbs.iter_mut().enumerate() {
                iocb.aio_lio_opcode = abi::IOCB_CMD_PREAD as u16;
                iocb.aio_fildes = world.devices.files[n].as_raw_fd() as u32;
                iocb.aio_buf = pages.page(n);
                iocb.aio_nbytes = sys::PAGE as u64;
                pointers[n] = (&raw mut *iocb).expose_provenance() as u64;
            }
            let mut arg = abi::raio_submit {
                ctx: handle,
                nr: pointers.len() as i64,
                iocbs: pointers.as_ptr().expose_provenance() as u64,
                ..Default::default()
            };
            // SAFETY: nobody uses the pages but the device.
            let taken = unsafe { raw::submit(descriptor.number, &mut arg) };
            if taken.as_ref().ok() != Some(&(NR as _)) {
                return Err(format!("submit in a forked process: {taken:?}"));
            }
            if what == Fork::Leave {
                // They are in use until the process has ended.
                std::mem::forget(pages);
            } else {
                let mut arg = abi::raio_destroy {
                    ctx: handle,
                    ..Default::default()
                };
                // SAFETY: nobody uses the ring.
                unsafe { raw::destroy(descriptor.number, &mut arg) }
                    .map_err(|e| format!("destroy in a forked process: {e}"))?;
            }
            Ok(())
        }
        Fork::Stay(milliseconds) => {
            thread::sleep(Duration::from_millis(milliseconds.into()));
            Ok(())
        }
    }
}

/// Every use of a context of another process is `EINVAL`.
fn foreign(descriptor: RawFd, handle: u64, closed: bool) -> Checked {
    let zero = abi::__kernel_timespec::default();
    let mut getevents = abi::raio_getevents {
        ctx: handle,
        timeout: (&raw const zero).expose_provenance() as u64,
        ..Default::default()
    };
    let mut submit = abi::raio_submit {
        ctx: handle,
        ..Default::default()
    };
    let mut destroy = abi::raio_destroy {
        ctx: handle,
        ..Default::default()
    };
    // SAFETY: no events, no requests, and no ring that we could see.
    let results = unsafe {
        [
            raw::getevents(descriptor, &mut getevents),
            raw::submit(descriptor, &mut submit),
            raw::destroy(descriptor, &mut destroy),
        ]
    };
    for result in results {
        match result.as_ref().err().map_or(0, sys::errno) {
            libc::EINVAL => {}
            libc::EBADF if closed => {}
            _ => return Err(format!("a context of another process: {result:?}")),
        }
    }
    Ok(())
}

/// Runs this program anew, to do nothing with a descriptor that it inherits.
pub fn exec(descriptor: RawFd, handle: u64) -> String {
    let strings = [HOLD.to_owned(), descriptor.to_string(), handle.to_string()];
    let args: Vec<CString> = strings
        .into_iter()
        .map(|arg| CString::new(arg).expect("numbers"))
        .collect();
    let e = sys::exec(
        c"/proc/self/exe",
        &[c"raio-stress", &args[0], &args[1], &args[2]],
    );
    format!("exec: {e}")
}

/// What is run by exec: finds that the device is there and the context isn't,
/// stays for a moment and ends. The descriptor may have been closed.
///
/// # Errors
///
/// Any is a failure of the test.
pub fn hold(descriptor: RawFd, handle: u64) -> Checked {
    let closed = match raw::query(descriptor) {
        Ok(_) => false,
        Err(e) if sys::errno(&e) == libc::EBADF => true,
        Err(e) => return Err(format!("query after exec: {e}")),
    };
    foreign(descriptor, handle, closed)?;
    thread::sleep(Duration::from_millis(handle >> 12 & 15));
    Ok(())
}
