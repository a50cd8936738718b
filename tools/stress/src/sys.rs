// SPDX-License-Identifier: GPL-2.0
//! The system calls that std doesn't offer, and memory that the kernel writes
//! to behind the compiler's back.

use std::{
    ffi::{c_int, CStr},
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr, thread,
    time::{Duration, Instant},
};

/// Bytes of a page.
pub const PAGE: usize = 4096;

fn check(ret: c_int) -> io::Result<c_int> {
    if ret == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(ret)
}

/// The error that a call has returned, as a number.
pub fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

/// The processors that this process may run on.
pub fn processors() -> Vec<usize> {
    // SAFETY: a set is plain memory, and zero is an empty one; the calls get
    // its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of_val(&set), &mut set) != 0 {
            return vec![0];
        }
        (0..libc::CPU_SETSIZE as usize)
            .filter(|cpu| libc::CPU_ISSET(*cpu, &set))
            .collect()
    }
}

/// The processor that this thread is on.
pub fn processor() -> usize {
    // SAFETY: it has no arguments.
    usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(0)
}

/// Keeps this thread on one processor.
pub fn run_on(processor: usize) {
    // SAFETY: as in `processors`. If it fails, the thread is where it was.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}

/// Lets this thread take the processor from all ordinary ones when it has
/// something to do, or makes it ordinary again. Without effect if the caller
/// may not.
pub fn urgent(on: bool) {
    let (policy, priority) = if on {
        (libc::SCHED_FIFO, 1)
    } else {
        (libc::SCHED_OTHER, 0)
    };
    let param = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: it reads `param`.
    unsafe { libc::sched_setscheduler(0, policy, &param) };
}

/// Whether a thread sleeps in an ioctl(2) with that number. One that has gone
/// doesn't.
pub fn sleeps_in(thread: i32, number: u64) -> bool {
    // The call and its arguments; of one that runs there are no numbers.
    let text = std::fs::read_to_string(format!("/proc/{thread}/syscall")).unwrap_or_default();
    let mut words = text.split_whitespace();
    words.next() == Some(&libc::SYS_ioctl.to_string())
        && words.nth(1) == Some(&format!("{number:#x}"))
}

/// The number of this thread.
pub fn thread_id() -> i32 {
    // SAFETY: it has no arguments.
    unsafe { libc::gettid() }
}

/// Sends a signal to a thread of this process. It may be gone.
pub fn signal_thread(thread: i32, signal: c_int) {
    // SAFETY: numbers only.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) };
}

/// A signal that does nothing but end a wait.
pub const KICK: c_int = libc::SIGUSR1;

extern "C" fn nothing(_: c_int) {}

/// Lets [`KICK`] end waits.
pub fn accept_kicks() {
    // SAFETY: the handler does nothing; without SA_RESTART calls end.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(c_int) as usize;
        libc::sigaction(KICK, &action, ptr::null_mut());
    }
}

/// Sleeps for so many nanoseconds, or until a signal comes.
pub fn nap(nanoseconds: u32) {
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: i64::from(nanoseconds.min(999_999_999)),
    };
    // SAFETY: it reads `time`.
    unsafe { libc::nanosleep(&time, ptr::null_mut()) };
}

/// A descriptor of the same open file, with a number of at least `min`.
///
/// # Errors
///
/// Those of fcntl(2).
pub fn duplicate(fd: RawFd, min: RawFd, kept_by_exec: bool) -> io::Result<RawFd> {
    let command = if kept_by_exec {
        libc::F_DUPFD
    } else {
        libc::F_DUPFD_CLOEXEC
    };
    // SAFETY: numbers only.
    check(unsafe { libc::fcntl(fd, command, min) })
}

/// Closes a descriptor by its number.
///
/// # Errors
///
/// Those of close(2).
pub fn close(fd: RawFd) -> io::Result<()> {
    // SAFETY: a number only. That nothing relies on it is up to the caller's
    // bookkeeping: no `OwnedFd` has such a number.
    check(unsafe { libc::close(fd) }).map(drop)
}

/// A pipe: the end that is read from, which doesn't wait, and the one that is
/// written to, which other programs that are run inherit.
///
/// # Errors
///
/// Those of pipe(2).
pub fn pipe() -> io::Result<(File, File)> {
    let mut fds = [0; 2];
    // SAFETY: it writes to `fds`.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    let (reads, writes) = (inherited(fds[0]), inherited(fds[1]));
    // SAFETY: numbers only.
    unsafe {
        check(libc::fcntl(fds[0], libc::F_SETFL, libc::O_NONBLOCK))?;
        check(libc::fcntl(fds[1], libc::F_SETFD, 0))?;
    }
    Ok((reads, writes))
}

/// A pipe for a page, whose ends don't wait.
///
/// # Errors
///
/// Those of pipe(2) and fcntl(2).
pub fn small_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: it writes to `fds`, whose descriptors are ours.
    let ends = unsafe {
        check(libc::pipe2(
            fds.as_mut_ptr(),
            libc::O_CLOEXEC | libc::O_NONBLOCK,
        ))?;
        fds.map(|fd| OwnedFd::from_raw_fd(fd))
    };
    // SAFETY: numbers only.
    check(unsafe { libc::fcntl(fds[0], libc::F_SETPIPE_SZ, PAGE as c_int) })?;
    let [reads, writes] = ends;
    Ok((reads, writes))
}

/// An eventfd that doesn't wait.
///
/// # Errors
///
/// Those of eventfd(2).
pub fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: numbers only; the descriptor is ours.
    unsafe {
        let fd = check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// An epoll that can be read when one of its members can.
///
/// # Errors
///
/// Those of epoll_create(2) and epoll_ctl(2).
pub fn epoll(members: &[RawFd]) -> io::Result<OwnedFd> {
    // SAFETY: numbers only; the descriptor is ours.
    let epoll = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
    for member in members {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: 0,
        };
        let fd = epoll.as_raw_fd();
        // SAFETY: it reads `event`.
        check(unsafe { libc::epoll_ctl(fd, libc::EPOLL_CTL_ADD, *member, &mut event) })?;
    }
    Ok(epoll)
}

/// Lets a socket keep as little as possible of what is sent through it.
///
/// # Errors
///
/// Those of setsockopt(2).
pub fn keep_little(socket: RawFd) -> io::Result<()> {
    let bytes: c_int = 1;
    // SAFETY: it reads `bytes`.
    check(unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Puts a file to where another one is open, which is closed there.
///
/// # Errors
///
/// Those of dup(2).
pub fn replace(fd: RawFd, number: RawFd) -> io::Result<()> {
    // SAFETY: numbers only. Who uses `number` doesn't care which file it is.
    check(unsafe { libc::dup3(fd, number, libc::O_CLOEXEC) }).map(drop)
}

/// Writes what there is room for, and says how much that was: nothing also if
/// nobody reads it.
pub fn put(fd: RawFd, bytes: &[u8]) -> usize {
    // SAFETY: it reads `bytes`.
    let n = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(n).unwrap_or(0)
}

/// Reads what is there, and says how much that was: nothing also at the end.
pub fn take(fd: RawFd, bytes: &mut [u8]) -> usize {
    // SAFETY: it writes to `bytes`.
    let n = unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) };
    usize::try_from(n).unwrap_or(0)
}

/// What of `events` a file is ready for.
#[cfg(test)]
pub fn ready(fd: RawFd, events: i16) -> i16 {
    let mut poll = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: it writes to `poll`.
    unsafe { libc::poll(&mut poll, 1, 0) };
    poll.revents
}

/// Takes over a descriptor that was inherited or made for this.
pub fn inherited(fd: RawFd) -> File {
    // SAFETY: nobody else closes it.
    unsafe { File::from_raw_fd(fd) }
}

/// Raises the limit of open files to `n` if that is possible.
pub fn allow_files(n: u64) {
    let limit = libc::rlimit {
        rlim_cur: n,
        rlim_max: n,
    };
    // SAFETY: it reads `limit`.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
}

/// Processes that lose their parent become this one's children.
pub fn adopt_orphans() {
    // SAFETY: numbers only.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// This process is killed when its parent ends.
pub fn die_with_parent() {
    // SAFETY: numbers only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
}

/// Makes this process a little more important than others, if it may.
pub fn prefer() {
    // SAFETY: numbers only.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -10) };
}

/// Kills a process, which may have ended but not be waited for.
pub fn kill(pid: i32) {
    // SAFETY: numbers only.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with that status.
    Exited(i32),
    /// By that signal.
    Killed(i32),
}

impl End {
    fn of(status: c_int) -> Self {
        if libc::WIFEXITED(status) {
            Self::Exited(libc::WEXITSTATUS(status))
        } else {
            Self::Killed(libc::WTERMSIG(status))
        }
    }
}

/// What [`reap_any`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// This child has ended.
    One(i32, End),
    /// There are some, but none has ended.
    NotYet,
    /// There is none.
    Nobody,
}

/// A child that has ended, if there is one.
///
/// # Errors
///
/// Those of waitpid(2), but not that there is none.
pub fn reap_any() -> io::Result<Reaped> {
    let mut status = 0;
    // SAFETY: it writes to `status`.
    match check(unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) }) {
        Ok(0) => Ok(Reaped::NotYet),
        Ok(pid) => Ok(Reaped::One(pid, End::of(status))),
        Err(e) if errno(&e) == libc::ECHILD => Ok(Reaped::Nobody),
        Err(e) => Err(e),
    }
}

/// Waits for a child.
///
/// # Errors
///
/// Those of waitpid(2), but not that a signal came.
pub fn reap(pid: i32) -> io::Result<End> {
    let mut status = 0;
    loop {
        // SAFETY: it writes to `status`.
        match check(unsafe { libc::waitpid(pid, &mut status, 0) }) {
            Ok(_) => return Ok(End::of(status)),
            Err(e) if errno(&e) == libc::EINTR => {}
            Err(e) => return Err(e),
        }
    }
}

/// Whether a child has ended and is to be waited for.
pub fn has_ended(pid: i32) -> bool {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: it writes to `info`, where zero is no process.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, flags) != 0 || info.si_pid() != 0
    }
}

/// Makes a child of this process, with only this thread in it. Returns 0 in
/// the child.
///
/// # Errors
///
/// Those of fork(2).
///
/// # Safety
///
/// The child must not take any lock that another thread may have held.
pub unsafe fn fork() -> io::Result<i32> {
    // SAFETY: glibc's allocator can be used in the child, the rest is the
    // caller's promise.
    check(unsafe { libc::fork() })
}

/// Ends this process at once, other threads with it.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: it doesn't return.
    unsafe { libc::_exit(status) }
}

/// Runs another program in this process. Returns only if that fails.
pub fn exec(path: &CStr, args: &[&CStr]) -> io::Error {
    let mut argv: Vec<_> = args.iter().map(|arg| arg.as_ptr()).collect();
    argv.push(ptr::null());
    // SAFETY: strings, and an array of them with an end.
    unsafe { libc::execv(path.as_ptr(), argv.as_ptr()) };
    io::Error::last_os_error()
}

/// Unmaps memory, which may be another's: the caller says where.
///
/// # Errors
///
/// Those of munmap(2).
///
/// # Safety
///
/// Nobody may rely on what is there.
pub unsafe fn unmap(address: usize, len: usize) -> io::Result<()> {
    // SAFETY: the caller's promise.
    check(unsafe { libc::munmap(ptr::with_exposed_provenance_mut(address), len) }).map(drop)
}

/// Moves memory to where nothing is.
///
/// # Errors
///
/// Those of mremap(2).
///
/// # Safety
///
/// Nobody may rely on what is at either address.
pub unsafe fn remap(address: usize, len: usize, to: usize) -> io::Result<()> {
    // SAFETY: the caller's promise.
    let ret = unsafe {
        libc::mremap(
            ptr::with_exposed_provenance_mut(address),
            len,
            len,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            ptr::with_exposed_provenance_mut::<libc::c_void>(to),
        )
    };
    if ret == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Makes an ioctl(2) whose argument is a number.
///
/// # Errors
///
/// Those of ioctl(2).
pub fn command(file: &File, command: u32, arg: c_int) -> io::Result<()> {
    // SAFETY: no memory is involved.
    match unsafe { libc::ioctl(file.as_raw_fd(), command as _, arg) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Whole pages that the kernel may write to at any time. Forked processes
/// don't get them, so that no copy-on-write comes between the device and us.
#[derive(Debug)]
pub struct Pages {
    address: *mut u8,
    len: usize,
}

// SAFETY: memory is used by address only, from every thread.
unsafe impl Send for Pages {}
// SAFETY: as above; who writes where is for the users to agree on, as with
// the kernel. There are no references to it.
unsafe impl Sync for Pages {}

impl Pages {
    /// `n` pages of zeros.
    ///
    /// # Errors
    ///
    /// Those of mmap(2).
    pub fn new(n: usize) -> io::Result<Self> {
        let len = n * PAGE;
        // SAFETY: a new mapping where there is room.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping that was just made.
        unsafe { libc::madvise(address, len, libc::MADV_DONTFORK) };
        Ok(Self {
            address: address.cast(),
            len,
        })
    }

    /// Bytes of all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The address of a page.
    pub fn page(&self, index: usize) -> u64 {
        assert!(index < self.len / PAGE);
        self.address.expose_provenance() as u64 + (index * PAGE) as u64
    }

    /// Fills a page with one byte.
    pub fn fill(&self, index: usize, byte: u8) {
        assert!(index < self.len / PAGE);
        // SAFETY: within the mapping.
        unsafe { self.address.add(index * PAGE).write_bytes(byte, PAGE) }
    }

    /// Copies to the beginning of a page.
    pub fn put(&self, index: usize, bytes: &[u8]) {
        assert!(index < self.len / PAGE && bytes.len() <= PAGE);
        // SAFETY: within the mapping, which `bytes` isn't part of.
        unsafe {
            self.address
                .add(index * PAGE)
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }

    /// Lets `call` write to a page, which nobody else may do meanwhile.
    pub fn with<T>(&self, index: usize, call: impl FnOnce(&mut [u8]) -> T) -> T {
        assert!(index < self.len / PAGE);
        // SAFETY: within the mapping. No request has it, as the caller says.
        call(unsafe { std::slice::from_raw_parts_mut(self.address.add(index * PAGE), PAGE) })
    }

    /// A copy of a page.
    pub fn get(&self, index: usize) -> Box<[u8; PAGE]> {
        assert!(index < self.len / PAGE);
        let mut copy = Box::new([0; PAGE]);
        // SAFETY: within the mapping, which the copy isn't part of.
        unsafe {
            copy.as_mut_ptr()
                .copy_from_nonoverlapping(self.address.add(index * PAGE), PAGE);
        }
        copy
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: ours, and nobody has the address any more.
        let _ = unsafe { unmap(self.address.addr(), self.len) };
    }
}

/// Waits until `done` says so, for `limit` at most. Says whether it did.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > limit {
            return done();
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

/// The same for what won't take long.
pub fn wait_for(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    for _ in 0..20 {
        if done() {
            return true;
        }
        nap(50_000);
    }
    wait_until(limit, done)
}
