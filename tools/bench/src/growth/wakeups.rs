// SPDX-License-Identifier: GPL-2.0
//! Who waits for many events must not be woken for each.
//!
//! One thread waits, another lets events be posted one at a time, and the next
//! only when the first is asleep (again): who is woken too early is seen to.
//! The one that waits goes first wherever it runs. On one processor it therefore
//! runs before the call that woke it returns, and what that call takes is all
//! that the event costs. On more they have one each.

use super::measure::{all, with_context};
use crate::{peers::Peer, requests::Requests, stopwatch::Stopwatch};
use raio::sys::io_event;
use std::{
    fs::File,
    io,
    mem::{zeroed, MaybeUninit},
    os::unix::fs::FileExt,
    sync::mpsc,
    thread,
};

/// Events that are posted.
pub(crate) const EVENTS: usize = 512;

/// What they came to.
pub(crate) struct Cost {
    /// How often who waited went to sleep.
    pub(crate) wakeups: u64,
    /// What posting took.
    pub(crate) ns: u64,
}

/// Waits for `min_nr` events at a time.
pub(crate) fn measure(peer: &dyn Peer, min_nr: usize) -> io::Result<Cost> {
    let processors = thread::available_parallelism()?.get();
    with_context(peer, EVENTS, |ctx| {
        thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            let waiter = scope.spawn(move || {
                run_on(processors - 1)?;
                go_first()?;
                // SAFETY: Has no arguments.
                let _ = tell.send(unsafe { libc::gettid() });
                wait(peer, ctx, min_nr)
            });
            let posted = scope.spawn(move || {
                run_on(0)?;
                let tid = told.recv().map_err(io::Error::other)?;
                post(peer, ctx, tid)
            });
            let posted = join(posted);
            if posted.is_err() {
                // Or the other would wait for ever.
                let _ = peer.destroy(ctx);
            }
            let cost = Cost {
                wakeups: join(waiter)?,
                ns: posted?,
            };
            // It sleeps for each call, or this measures something else.
            if cost.wakeups < (EVENTS / min_nr / 2) as u64 {
                return Err(io::Error::other("nobody waited"));
            }
            Ok(cost)
        })
    })
}

/// Reads all events, and says how often the thread slept for that.
fn wait(peer: &dyn Peer, ctx: u64, min_nr: usize) -> io::Result<u64> {
    let mut events = vec![io_event::default(); min_nr];
    let before = switches()?;
    for _ in 0..EVENTS / min_nr {
        all(peer.getevents(ctx, min_nr, &mut events, None)?, min_nr)?;
    }
    Ok(switches()? - before)
}

/// Posts all events, and says how long that took.
fn post(peer: &dyn Peer, ctx: u64, waiter: libc::pid_t) -> io::Result<u64> {
    let stat = File::open(format!("/proc/self/task/{waiter}/stat"))?;
    let mut request = Requests::new(1)?;
    let mut watch = Stopwatch::new();
    for _ in 0..EVENTS {
        while !sleeps(&stat)? {
            thread::yield_now();
        }
        all(watch.time(|| peer.submit(ctx, &mut request, 1))?, 1)?;
    }
    Ok(watch.ns())
}

/// Whether a thread does. Fails if it has ended.
fn sleeps(stat: &File) -> io::Result<bool> {
    let mut text = [0; 512];
    let n = stat.read_at(&mut text, 0)?;
    Ok(state(&text[..n]) == Some(b'S'))
}

/// The letter for it: behind the name, which is in brackets and may have
/// brackets.
fn state(stat: &[u8]) -> Option<u8> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(end + 2).copied()
}

/// How often the thread has gone to sleep.
fn switches() -> io::Result<u64> {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: There is room for it.
    done(unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) })?;
    // SAFETY: It has been filled in.
    Ok(unsafe { usage.assume_init() }.ru_nvcsw as u64)
}

/// Keeps the thread on one processor.
fn run_on(processor: usize) -> io::Result<()> {
    // SAFETY: A set of bits; all zero is the empty one.
    let mut set = unsafe { zeroed::<libc::cpu_set_t>() };
    // SAFETY: It checks the number.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: The size is that of the set.
    done(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) })
}

/// Lets the thread run whenever it can.
fn go_first() -> io::Result<()> {
    let param = libc::sched_param { sched_priority: 1 };
    // SAFETY: There is such a parameter.
    done(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) })
}

fn done(ret: libc::c_int) -> io::Result<()> {
    match ret {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read() {
        assert_eq!(state(b"12 (a) S 1 2"), Some(b'S'));
        assert_eq!(state(b"12 (a) R (b)) R 1 2"), Some(b'R'));
        assert_eq!(state(b"12 (a)"), None);
        assert_eq!(state(b""), None);
    }

    #[test]
    fn sleepers_are_told() {
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            // SAFETY: Has no arguments.
            tell.send(unsafe { libc::gettid() }).unwrap();
            let before = switches().unwrap();
            assert!(ended.recv().is_err());
            switches().unwrap() - before
        });
        let stat = File::open(format!("/proc/self/task/{}/stat", told.recv().unwrap())).unwrap();
        while !sleeps(&stat).unwrap() {
            thread::yield_now();
        }
        let own = File::open("/proc/thread-self/stat").unwrap();
        assert!(!sleeps(&own).unwrap());
        drop(end);
        assert!(thread.join().unwrap() >= 1);
        // It is joined before it is gone.
        while sleeps(&stat).is_ok() {
            thread::yield_now();
        }
    }
}
