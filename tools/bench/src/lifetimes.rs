// SPDX-License-Identifier: GPL-2.0
//! What it takes to make and to destroy contexts.

use crate::{
    pairs::{time, Pairs},
    peers::{KernelAio, Peer, Raio},
};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{FromRawFd, OwnedFd},
};

/// Requests for which a context is made.
const EVENTS: u32 = 32;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Pairs of each measurement
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Contexts that are there at the same time
    #[arg(long, default_value_t = 1000)]
    contexts: usize,
}

/// Measures and prints a table.
pub(crate) fn run(args: &Args) -> io::Result<()> {
    let raio = Raio::open()?;
    let n = args.contexts;
    let jobs: [(String, Job); 4] = [
        ("set-up + destroy, one".into(), one),
        (format!("set-up of {n}"), setups),
        (format!("destroy of {n}"), destroys),
        (format!("exit with {n}"), exit),
    ];
    println!(
        "{:<24} {:>12} {:>12} {:>7}  quartiles",
        "ns", "raio", "kernel AIO", "ratio"
    );
    for (name, job) in jobs {
        let pairs = Pairs::measure(args.rounds, || job(&raio, n), || job(&KernelAio, n))?;
        let summary = pairs.summary();
        let (low, high) = summary.quartiles;
        println!(
            "{name:<24} {:>12} {:>12} {:>7.3}  {low:.3} to {high:.3}",
            summary.ours, summary.theirs, summary.ratio
        );
    }
    Ok(())
}

type Job = fn(&dyn Peer, usize) -> io::Result<u64>;

fn one(peer: &dyn Peer, _: usize) -> io::Result<u64> {
    time(|| peer.destroy(peer.setup(EVENTS)?))
}

fn make(peer: &dyn Peer, n: usize) -> io::Result<Vec<u64>> {
    (0..n).map(|_| peer.setup(EVENTS)).collect()
}

fn destroy_all(peer: &dyn Peer, contexts: &[u64]) -> io::Result<()> {
    contexts.iter().try_for_each(|ctx| peer.destroy(*ctx))
}

fn setups(peer: &dyn Peer, n: usize) -> io::Result<u64> {
    let mut contexts = Vec::new();
    let ns = time(|| {
        contexts = make(peer, n)?;
        Ok(())
    })?;
    destroy_all(peer, &contexts)?;
    Ok(ns)
}

fn destroys(peer: &dyn Peer, n: usize) -> io::Result<u64> {
    let contexts = make(peer, n)?;
    time(|| destroy_all(peer, &contexts))
}

/// From when a process that has contexts is told to exit until it is gone.
fn exit(peer: &dyn Peer, n: usize) -> io::Result<u64> {
    let (mut ready, say_ready) = pipe()?;
    let (go, mut say_go) = pipe()?;
    // SAFETY: There is one thread, and the child only makes calls.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => child(peer, n, say_ready, go),
        pid => {
            drop((say_ready, go));
            ready.read_exact(&mut [0])?;
            let mut status = 0;
            let ns = time(|| {
                say_go.write_all(&[0])?;
                // SAFETY: Our own child.
                if unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            })?;
            if status != 0 {
                return Err(io::Error::other(format!("the child's status was {status}")));
            }
            Ok(ns)
        }
    }
}

fn child(peer: &dyn Peer, n: usize, mut ready: File, mut go: File) -> ! {
    let made = peer
        .reopen()
        .and_then(|peer| {
            make(&*peer, n)?;
            // Open until the process ends.
            std::mem::forget(peer);
            Ok(())
        })
        .and_then(|()| ready.write_all(&[0]))
        .and_then(|()| go.read_exact(&mut [0]));
    // SAFETY: Ends the process, with all that it has.
    unsafe { libc::_exit(made.is_err().into()) }
}

fn pipe() -> io::Result<(File, File)> {
    let mut fds = [0; 2];
    // SAFETY: There is room for two descriptors.
    if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: Both are new, and nobody else's.
    let [read, write] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    Ok((read.into(), write.into()))
}
