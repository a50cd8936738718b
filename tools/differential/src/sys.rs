// SPDX-License-Identifier: GPL-2.0
//! The system calls that std doesn't offer, and pages. Errors say which call
//! has failed.

use raio_nullblk::NullBlk;
use std::{
    ffi::{c_int, c_ulong, CStr, CString},
    io,
    ops::{Deref, DerefMut},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{
            ffi::OsStrExt,
            fs::{symlink, PermissionsExt},
        },
    },
    path::Path,
    ptr, slice,
};

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// What [`partition`] does.
pub const ADD: c_int = 1;
/// The same.
pub const RESIZE: c_int = 3;

/// An error is a sentence.
pub type Result<T> = std::result::Result<T, String>;

/// What a call has returned, or its error as a negative number.
pub fn value(ret: i64) -> i64 {
    if ret == -1 {
        return -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(0));
    }
    ret
}

fn check(what: &str, ret: i64) -> Result<i64> {
    match ret {
        -1 => Err(format!("{what}: {}", io::Error::last_os_error())),
        ret => Ok(ret),
    }
}

fn descriptor(what: &str, ret: c_int) -> Result<OwnedFd> {
    check(what, ret.into())?;
    // SAFETY: the call has just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(ret) })
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("without a zero")
}

fn named(what: &str, path: &Path) -> String {
    format!("{what} {}", path.display())
}

/// Pages of zeros that the kernel may read and write, too.
pub struct Pages {
    start: *mut u8,
    len: usize,
}

impl Pages {
    /// So many.
    pub fn new(pages: usize) -> Result<Self> {
        let len = pages * PAGE;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, rights, flags, -1, 0) };
        check("mmap", start as i64)?;
        Ok(Self {
            start: start.cast(),
            len,
        })
    }

    /// Where they are.
    pub fn address(&self) -> u64 {
        self.start as u64
    }

    /// Gives a page only these rights.
    pub fn protect(&self, page: usize, rights: c_int) -> Result<()> {
        assert!((page + 1) * PAGE <= self.len);
        // SAFETY: a page of ours, of which nobody has a reference now.
        let ret = unsafe { libc::mprotect(self.start.add(page * PAGE).cast(), PAGE, rights) };
        check("mprotect", ret.into()).map(drop)
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: they are mapped for as long as the program runs.
        unsafe { slice::from_raw_parts(self.start, self.len) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and they are ours alone.
        unsafe { slice::from_raw_parts_mut(self.start, self.len) }
    }
}

/// Opens a file. A new one can be opened by everybody.
pub fn open(path: &Path, flags: c_int) -> Result<OwnedFd> {
    let name = c_path(path);
    // SAFETY: a string and numbers.
    let fd = descriptor(&named("open", path), unsafe {
        libc::open(name.as_ptr(), flags | libc::O_CLOEXEC, 0o666)
    })?;
    if flags & libc::O_CREAT != 0 {
        everybody(path)?;
    }
    Ok(fd)
}

fn everybody(path: &Path) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))
        .map_err(|e| format!("{}: {e}", named("chmod", path)))
}

/// Makes a directory that everybody may use.
pub fn make_dir(path: &Path) -> Result<()> {
    std::fs::create_dir(path).map_err(|e| format!("{}: {e}", named("mkdir", path)))?;
    everybody(path)
}

/// Makes a symbolic link at `at`.
pub fn link(to: &Path, at: &Path) -> Result<()> {
    symlink(to, at).map_err(|e| format!("{}: {e}", named("symlink", at)))
}

/// Makes a FIFO.
pub fn make_fifo(path: &Path) -> Result<()> {
    let name = c_path(path);
    // SAFETY: a string and a number.
    let ret = unsafe { libc::mkfifo(name.as_ptr(), 0o666) };
    check(&named("mkfifo", path), ret.into())?;
    everybody(path)
}

/// Makes mounts of this process be seen by nobody else; they end with it.
pub fn own_mounts() -> Result<()> {
    // SAFETY: numbers only.
    let ret = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    check("unshare", ret.into())?;
    mount(
        c"none",
        c"/",
        ptr::null(),
        libc::MS_REC | libc::MS_PRIVATE,
        ptr::null(),
    )
    .map(drop)
}

fn mount(
    what: &CStr,
    at: &CStr,
    kind: *const libc::c_char,
    flags: c_ulong,
    data: *const libc::c_char,
) -> Result<i64> {
    // SAFETY: strings, or none.
    let ret = unsafe { libc::mount(what.as_ptr(), at.as_ptr(), kind, flags, data.cast()) };
    check("mount", ret.into())
}

/// Makes a directory and mounts a tmpfs of that size on it.
pub fn mount_tmpfs(at: &Path, size: usize) -> Result<()> {
    make_dir(at)?;
    let data = CString::new(format!("size={size},mode=777")).expect("without a zero");
    mount(c"tmpfs", &c_path(at), c"tmpfs".as_ptr(), 0, data.as_ptr()).map(drop)
}

/// A loop device over a new file of that size, with a node. It goes with its last
/// user.
pub fn loop_device(backing: &Path, size: i64, node: &Path) -> Result<OwnedFd> {
    const GET_FREE: c_ulong = 0x4c82;
    const CONFIGURE: c_ulong = 0x4c0a;
    const MAJOR: u32 = 7;
    /// `struct loop_config`, of which we need the descriptor, the flags, and to
    /// know where those are.
    const CONFIG: usize = 304;
    const FLAGS_AT: usize = 8 + 52;
    const AUTOCLEAR: u32 = 4;

    let file = open(backing, libc::O_CREAT | libc::O_RDWR)?;
    truncate(file.as_raw_fd(), size)?;
    let control = open(Path::new("/dev/loop-control"), libc::O_RDWR)?;
    let name = c_path(node);
    // Others may be quicker to take what was free.
    for _ in 0..100 {
        // SAFETY: it has no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE as _) };
        check("LOOP_CTL_GET_FREE", number.into())?;
        let _ = std::fs::remove_file(node);
        let device = libc::makedev(MAJOR, number as u32);
        // SAFETY: a string and numbers.
        let ret = unsafe { libc::mknod(name.as_ptr(), libc::S_IFBLK | 0o666, device) };
        check(&named("mknod", node), ret.into())?;
        everybody(node)?;
        let fd = open(node, libc::O_RDWR)?;
        let mut config = [0u8; CONFIG];
        config[..4].copy_from_slice(&file.as_raw_fd().to_ne_bytes());
        config[FLAGS_AT..FLAGS_AT + 4].copy_from_slice(&AUTOCLEAR.to_ne_bytes());
        // SAFETY: the structure is as large as that.
        let ret = unsafe { libc::ioctl(fd.as_raw_fd(), CONFIGURE as _, config.as_ptr()) };
        match value(ret.into()) {
            0 => return Ok(fd),
            busy if busy == -i64::from(libc::EBUSY) => continue,
            error => return Err(format!("LOOP_CONFIGURE: error {}", -error)),
        }
    }
    Err("no loop device is free for long enough".into())
}

/// A null_blk of that name that can be polled, with a partition of that size, which has a
/// node. It has to be removed.
pub fn partitioned(name: &str, size: i64, node: &Path) -> Result<OwnedFd> {
    let settings = [
        ("size", 1),
        ("memory_backed", 1),
        ("submit_queues", 1),
        ("poll_queues", 1),
    ];
    let disk = NullBlk::new(name, &settings).map_err(|e| format!("null_blk: {e}"))?;
    let whole = open(&disk.node(), libc::O_RDWR)?;
    // Who makes it may not be allowed to remove it in the end.
    std::mem::forget(disk);
    let ret = partition(whole.as_raw_fd(), ADD, size);
    check("BLKPG_ADD_PARTITION", ret)?;
    let part = open(Path::new(&format!("/dev/{name}1")), libc::O_RDWR)?;
    let device = stat(part.as_raw_fd())?.st_rdev;
    // SAFETY: a string and numbers.
    let ret = unsafe { libc::mknod(c_path(node).as_ptr(), libc::S_IFBLK | 0o666, device) };
    check(&named("mknod", node), ret.into())?;
    everybody(node)?;
    Ok(whole)
}

/// Makes the partition of that disk, or gives it that size.
pub fn partition(fd: RawFd, op: c_int, size: i64) -> i64 {
    const BLKPG: c_ulong = 0x1269;
    /// `struct blkpg_partition`, but for its names.
    #[repr(C)]
    struct Partition {
        start: i64,
        length: i64,
        number: c_int,
        names: [u8; 128],
    }
    /// `struct blkpg_ioctl_arg`.
    #[repr(C)]
    struct Arg {
        op: c_int,
        flags: c_int,
        size: c_int,
        data: *const Partition,
    }
    let data = Partition {
        start: 0,
        length: size,
        number: 1,
        names: [0; 128],
    };
    let arg = Arg {
        op,
        flags: 0,
        size: size_of::<Partition>() as c_int,
        data: &raw const data,
    };
    // SAFETY: both structures are read.
    value(unsafe { libc::ioctl(fd, BLKPG as _, &raw const arg) }.into())
}

/// A file in memory that can be sealed.
pub fn memfd() -> Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: a string and a number.
    descriptor("memfd_create", unsafe {
        libc::memfd_create(c"raio".as_ptr(), flags)
    })
}

/// Seals it.
pub fn seal(fd: RawFd, seals: c_int) -> Result<()> {
    // SAFETY: numbers only.
    check(
        "F_ADD_SEALS",
        unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, seals) }.into(),
    )
    .map(drop)
}

/// Its size and blocks.
pub fn stat(fd: RawFd) -> Result<libc::stat> {
    // SAFETY: plain memory, which the call fills in.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        check("fstat", libc::fstat(fd, &mut stat).into())?;
        Ok(stat)
    }
}

/// Writes back what is cached of a file, and forgets it.
pub fn uncache(fd: RawFd) -> Result<()> {
    // SAFETY: numbers only.
    check("fsync", unsafe { libc::fsync(fd) }.into())?;
    // SAFETY: numbers only.
    match unsafe { libc::posix_fadvise(fd, 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        e => Err(format!("fadvise: {}", std::io::Error::from_raw_os_error(e))),
    }
}

/// Sets its size.
pub fn truncate(fd: RawFd, len: i64) -> Result<()> {
    // SAFETY: numbers only.
    let ret = unsafe { libc::ftruncate(fd, len) };
    check("ftruncate", ret.into()).map(drop)
}

/// Writes all of it there.
pub fn write_at(fd: RawFd, offset: i64, data: &[u8]) -> Result<()> {
    // SAFETY: `data` has that many bytes.
    let n = check("pwrite", unsafe {
        libc::pwrite(fd, data.as_ptr().cast(), data.len(), offset) as i64
    })?;
    if n != data.len() as i64 {
        return Err(format!("pwrite: {n} of {} bytes", data.len()));
    }
    Ok(())
}

/// Reads up to `len` bytes and appends them.
pub fn read_at(fd: RawFd, offset: i64, len: usize, to: &mut Vec<u8>) -> Result<()> {
    let old = to.len();
    to.resize(old + len, 0);
    // SAFETY: there is that much room.
    let n = check("pread", unsafe {
        libc::pread(fd, to[old..].as_mut_ptr().cast(), len, offset) as i64
    })?;
    to.truncate(old + n as usize);
    Ok(())
}

/// Writes to a stream that has room.
pub fn write_all(fd: RawFd, data: &[u8]) {
    // SAFETY: `data` has that many bytes.
    let n = unsafe { libc::write(fd, data.as_ptr().cast(), data.len()) };
    assert_eq!(n, data.len() as isize, "a new stream has room");
}

/// Reads what is in a stream that doesn't block, and returns in how many parts.
pub fn drain(fd: RawFd, to: &mut Vec<u8>) -> i64 {
    let mut buffer = [0u8; 8192];
    for parts in 0..100 {
        // SAFETY: `buffer` has that many bytes.
        let n = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
        if n < 0 {
            return parts;
        }
        to.extend(&buffer[..n as usize]);
    }
    100
}

/// A pipe that doesn't block, of that size if it is given.
pub fn pipe(size: Option<usize>) -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: there is room for two numbers, and nobody has those yet.
    let (read, write) = unsafe {
        let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
        check("pipe2", libc::pipe2(fds.as_mut_ptr(), flags).into())?;
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    };
    if let Some(size) = size {
        // SAFETY: numbers only.
        let ret = unsafe { libc::fcntl(fds[1], libc::F_SETPIPE_SZ, size as c_int) };
        check("F_SETPIPE_SZ", ret.into())?;
    }
    Ok((read, write))
}

/// Two connected sockets that don't block.
pub fn sockets(kind: c_int) -> Result<(OwnedFd, OwnedFd)> {
    let kind = kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let mut fds = [-1; 2];
    // SAFETY: there is room for two numbers, and nobody has those yet.
    unsafe {
        check(
            "socketpair",
            libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()).into(),
        )?;
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

/// An eventfd that doesn't block.
pub fn eventfd(count: u32) -> Result<OwnedFd> {
    let flags = libc::EFD_NONBLOCK | libc::EFD_CLOEXEC;
    // SAFETY: numbers only.
    descriptor("eventfd", unsafe { libc::eventfd(count, flags) })
}

/// A timer that never fires.
pub fn timerfd() -> Result<OwnedFd> {
    let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
    // SAFETY: numbers only.
    descriptor("timerfd_create", unsafe {
        libc::timerfd_create(libc::CLOCK_MONOTONIC, flags)
    })
}

/// An epoll that watches whether `fd` can be read.
pub fn epoll(fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: numbers only.
    let epoll = descriptor("epoll_create1", unsafe {
        libc::epoll_create1(libc::EPOLL_CLOEXEC)
    })?;
    let mut event = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: 0,
    };
    // SAFETY: `event` is read.
    let ret = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) };
    check("epoll_ctl", ret.into())?;
    Ok(epoll)
}

/// What of `events` a descriptor is ready for.
pub fn ready(fd: RawFd, events: i16) -> i16 {
    let mut poll = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: one structure.
    unsafe { libc::poll(&mut poll, 1, 0) };
    poll.revents
}

/// Limits how large a file may get; the signal for that is ignored.
pub fn limit_files(size: u64) -> i64 {
    let limit = libc::rlimit {
        rlim_cur: size,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the structure is read. There is no handler.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        value(libc::setrlimit(libc::RLIMIT_FSIZE, &limit).into())
    }
}

/// Gives up all privileges.
pub fn become_nobody() -> Result<()> {
    const NOBODY: u32 = 65534;
    // SAFETY: numbers only.
    unsafe {
        check("setgroups", libc::setgroups(0, ptr::null()).into())?;
        check("setgid", libc::setgid(NOBODY).into())?;
        check("setuid", libc::setuid(NOBODY).into()).map(drop)
    }
}

/// Has the process end when its parent does.
pub fn die_with_parent() {
    // SAFETY: numbers only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Has `handler` called when the time of [`alarm`] is over.
pub fn on_alarm(handler: extern "C" fn(c_int)) {
    // SAFETY: the handler does only what handlers may.
    unsafe { libc::signal(libc::SIGALRM, handler as *const () as libc::sighandler_t) };
}

/// Gives this process so many seconds until it is told again.
pub fn alarm(seconds: u32) {
    // SAFETY: a number only.
    unsafe { libc::alarm(seconds) };
}

/// Writes to stdout and ends the process at once. For signal handlers, too.
pub fn last_words(words: &[u8]) -> ! {
    // SAFETY: `words` has that many bytes; neither call returns or uses a lock.
    unsafe {
        libc::write(1, words.as_ptr().cast(), words.len());
        libc::_exit(1)
    }
}
