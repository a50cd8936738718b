// SPDX-License-Identifier: GPL-2.0
//! The files of one peer: made once, and after each sequence made again as far
//! as it has touched them. Both peers have the same, each in directories and on
//! small file systems and loop devices of its own. Relies on being root when
//! they are made, not later.

use crate::sys::{self, Result};
use std::{
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

/// What is behind a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum File {
    /// On tmpfs.
    Tmp,
    /// The same with a hole.
    Sparse,
    /// The same without anything.
    Empty,
    /// On a tmpfs that has room for two more pages.
    Small,
    /// Sealed: its size can't change.
    Sealed,
    /// On a disk.
    Disk,
    /// On a disk, with direct I/O.
    Direct,
    /// A loop device.
    Block,
    /// A partition of a disk that can be polled; its size changes.
    Partition,
    /// A pipe with some data.
    PipeData,
    /// A pipe with none, and an epoll that watches it.
    PipeEmpty,
    /// A pipe with no room.
    PipeFull,
    /// A FIFO open for both, which has two wait queues.
    Fifo,
    /// Connected sockets.
    Stream,
    /// The same, with datagrams.
    Datagram,
    /// An eventfd that is not zero.
    Event,
    /// The first eventfd that requests tell,
    CountA,
    /// and the second.
    CountB,
    /// Devices, a directory, and others without a state.
    Other,
    /// Nothing.
    None,
}

/// How a handle is made.
enum How {
    /// Open the file of that name with these flags.
    Named(&'static str, i32),
    /// It comes with the rest of its group.
    Group,
    /// It is a number at which nothing is.
    Number(RawFd),
}

macro_rules! handles {
    ($($name:ident: $file:ident, $how:expr;)*) => {
        /// A descriptor.
        #[allow(missing_docs)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Handle { $($name,)* }

        impl Handle {
            /// All.
            pub const ALL: &[Handle] = &[$(Handle::$name,)*];

            /// What is behind it.
            pub fn file(self) -> File {
                match self { $(Handle::$name => File::$file,)* }
            }

            fn how(self) -> How {
                match self { $(Handle::$name => $how,)* }
            }
        }
    };
}

use libc::{O_APPEND, O_DIRECT, O_DIRECTORY, O_NONBLOCK, O_PATH, O_RDONLY, O_RDWR, O_WRONLY};
use How::{Group, Named, Number};

handles! {
    Tmp: Tmp, Named("tmp/file", O_RDWR);
    TmpRead: Tmp, Named("tmp/file", O_RDONLY);
    TmpWrite: Tmp, Named("tmp/file", O_WRONLY);
    TmpAppend: Tmp, Named("tmp/file", O_RDWR | O_APPEND);
    Sparse: Sparse, Named("tmp/sparse", O_RDWR);
    Empty: Empty, Named("tmp/empty", O_RDWR);
    Small: Small, Named("small/file", O_RDWR);
    SmallAppend: Small, Named("small/file", O_WRONLY | O_APPEND);
    Sealed: Sealed, Group;
    Disk: Disk, Named("disk/file", O_RDWR);
    DiskRead: Disk, Named("disk/file", O_RDONLY);
    DiskAppend: Disk, Named("disk/file", O_WRONLY | O_APPEND);
    Direct: Direct, Named("disk/direct", O_RDWR | O_DIRECT);
    DirectRead: Direct, Named("disk/direct", O_RDONLY | O_DIRECT);
    DirectAppend: Direct, Named("disk/direct", O_WRONLY | O_APPEND | O_DIRECT);
    DirectBuffered: Direct, Named("disk/direct", O_RDWR);
    Block: Block, Named("tmp/loop", O_RDWR);
    BlockDirect: Block, Named("tmp/loop", O_RDWR | O_DIRECT);
    Partition: Partition, Named("tmp/partition", O_RDWR);
    PartitionDirect: Partition, Named("tmp/partition", O_RDWR | O_DIRECT);
    DataRead: PipeData, Group;
    DataWrite: PipeData, Group;
    EmptyRead: PipeEmpty, Group;
    EmptyWrite: PipeEmpty, Group;
    Epoll: PipeEmpty, Group;
    FullRead: PipeFull, Group;
    FullWrite: PipeFull, Group;
    Fifo: Fifo, Named("tmp/fifo", O_RDWR | O_NONBLOCK);
    StreamA: Stream, Group;
    StreamB: Stream, Group;
    DatagramA: Datagram, Group;
    DatagramB: Datagram, Group;
    Event: Event, Group;
    CountA: CountA, Group;
    CountB: CountB, Group;
    Null: Other, Named("/dev/null", O_RDWR);
    Zero: Other, Named("/dev/zero", O_RDWR);
    Full: Other, Named("/dev/full", O_RDWR);
    Directory: Other, Named("tmp", O_RDONLY | O_DIRECTORY);
    Path: Other, Named("tmp/file", O_PATH);
    Version: Other, Named("/proc/version", O_RDONLY);
    Timer: Other, Group;
    Closed: None, Number(-1);
    Unused: None, Number(1000);
    Huge: None, Number(i32::MAX);
}

impl Handle {
    /// Files in memory.
    pub const MEMORY: [Handle; 9] = [
        Handle::Tmp,
        Handle::TmpRead,
        Handle::TmpWrite,
        Handle::TmpAppend,
        Handle::Sparse,
        Handle::Empty,
        Handle::Small,
        Handle::SmallAppend,
        Handle::Sealed,
    ];
    /// Files on disks, and disks.
    pub const DISK: [Handle; 11] = [
        Handle::Disk,
        Handle::DiskRead,
        Handle::DiskAppend,
        Handle::Direct,
        Handle::DirectRead,
        Handle::DirectAppend,
        Handle::DirectBuffered,
        Handle::Block,
        Handle::BlockDirect,
        Handle::Partition,
        Handle::PartitionDirect,
    ];
    /// What can be waited for.
    pub const STREAMS: [Handle; 14] = [
        Handle::DataRead,
        Handle::DataWrite,
        Handle::EmptyRead,
        Handle::EmptyWrite,
        Handle::Epoll,
        Handle::FullRead,
        Handle::FullWrite,
        Handle::StreamA,
        Handle::StreamB,
        Handle::DatagramA,
        Handle::DatagramB,
        Handle::Event,
        Handle::CountA,
        Handle::CountB,
    ];
    /// Others.
    pub const DEVICES: [Handle; 7] = [
        Handle::Null,
        Handle::Zero,
        Handle::Full,
        Handle::Directory,
        Handle::Path,
        Handle::Version,
        Handle::Timer,
    ];
    /// What isn't open.
    pub const NOT_OPEN: [Handle; 3] = [Handle::Closed, Handle::Unused, Handle::Huge];

    /// Whether it can be waited for.
    pub fn is_stream(self) -> bool {
        Self::STREAMS.contains(&self)
    }

    /// Whether nobody notices that it is kept for a while after it was closed.
    pub fn may_be_kept(self) -> bool {
        matches!(
            self.file(),
            File::Tmp
                | File::Sparse
                | File::Empty
                | File::Small
                | File::Disk
                | File::Direct
                | File::Block
                | File::Partition
        )
    }

    /// Whether it bypasses the page cache, and wants aligned requests.
    pub fn is_direct(self) -> bool {
        matches!(
            self,
            Handle::Direct
                | Handle::DirectRead
                | Handle::DirectAppend
                | Handle::BlockDirect
                | Handle::PartitionDirect
        )
    }

    /// Whether it is an end of a pair of sockets.
    pub fn is_socket(self) -> bool {
        matches!(
            self,
            Handle::StreamA | Handle::StreamB | Handle::DatagramA | Handle::DatagramB
        )
    }

    /// Whether the eventfd counts what requests tell it.
    pub fn counts(self) -> Option<usize> {
        match self {
            Handle::CountA => Some(0),
            Handle::CountB => Some(1),
            _ => None,
        }
    }

    /// It, or another eventfd if requests tell it: it is read all the time.
    pub fn unless_it_counts(self) -> Self {
        match self.counts() {
            Some(_) => Handle::Event,
            None => self,
        }
    }

    /// What is written here comes out there.
    pub fn other_end(self) -> Self {
        match self {
            Handle::DataRead => Handle::DataWrite,
            Handle::DataWrite => Handle::DataRead,
            Handle::EmptyRead | Handle::Epoll => Handle::EmptyWrite,
            Handle::EmptyWrite => Handle::EmptyRead,
            Handle::FullRead => Handle::FullWrite,
            Handle::FullWrite => Handle::FullRead,
            Handle::StreamA => Handle::StreamB,
            Handle::StreamB => Handle::StreamA,
            Handle::DatagramA => Handle::DatagramB,
            Handle::DatagramB => Handle::DatagramA,
            other => other,
        }
    }
}

const FILES: [File; 18] = [
    File::Tmp,
    File::Sparse,
    File::Empty,
    File::Small,
    File::Sealed,
    File::Disk,
    File::Direct,
    File::Block,
    File::Partition,
    File::PipeData,
    File::PipeEmpty,
    File::PipeFull,
    File::Fifo,
    File::Stream,
    File::Datagram,
    File::Event,
    File::CountA,
    File::CountB,
];

impl File {
    /// Its size in the beginning.
    pub fn size(self) -> i64 {
        match self {
            File::Tmp => 20_000,
            File::Sparse => 60_000,
            File::Small => 6_000,
            File::Sealed => 9_000,
            File::Disk => 14_000,
            File::Direct => 17_408,
            File::Block | File::Partition => 32_768,
            _ => 0,
        }
    }

    /// Whether requests may go on after they were submitted, so that two of them
    /// may meet.
    pub fn is_queued(self) -> bool {
        matches!(self, File::Direct | File::Block | File::Partition)
    }

    /// Whether to sync it takes long, and what must not wait depends on time.
    pub fn is_on_disk(self) -> bool {
        matches!(self, File::Disk | File::Direct)
    }

    /// Whether its size may be changed by a step.
    pub fn can_be_truncated(self) -> bool {
        self.size() > 0 && self != File::Block || self == File::Empty
    }

    fn has_content(self) -> bool {
        self.can_be_truncated() || self == File::Block
    }

    /// How to open it for ourselves.
    fn own(self) -> Option<&'static str> {
        match self {
            File::Tmp => Some("tmp/file"),
            File::Sparse => Some("tmp/sparse"),
            File::Empty => Some("tmp/empty"),
            File::Small => Some("small/file"),
            File::Disk => Some("disk/file"),
            File::Direct => Some("disk/direct"),
            File::Block => Some("tmp/loop"),
            File::Partition => Some("tmp/partition"),
            _ => None,
        }
    }
}

/// Pages of the small file system.
const SMALL: usize = 4;
/// So much is looked at in one go when files are compared.
const WINDOW: usize = 65_536;

/// The files of a peer.
pub struct Files {
    dir: PathBuf,
    /// By number of the handle.
    open: Vec<Option<OwnedFd>>,
    /// Our own descriptors, by number of the file.
    own: Vec<Option<OwnedFd>>,
    /// The same of [`File::Direct`], past the page cache.
    direct: OwnedFd,
    /// The disk of [`File::Partition`].
    whole: OwnedFd,
    dirty: Vec<bool>,
    /// What they have in the beginning.
    data: sys::Pages,
}

/// What is found in a file at the end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Its size, and the blocks it has, where that is certain.
    pub size: (i64, i64),
    /// Its data, or that of it that is looked at.
    pub data: Vec<u8>,
}

impl Files {
    /// Makes them in the directory `dir`, which is there, and on a disk in
    /// `disk`; and a disk called `name`.
    pub fn new(dir: &Path, disk: &Path, name: &str) -> Result<Self> {
        for (name, size) in [("tmp", 64 << 20), ("small", SMALL * sys::PAGE)] {
            sys::mount_tmpfs(&dir.join(name), size)?;
        }
        sys::make_dir(disk)?;
        sys::link(disk, &dir.join("disk"))?;
        for name in [
            "tmp/file",
            "tmp/sparse",
            "tmp/empty",
            "small/file",
            "disk/file",
            "disk/direct",
        ] {
            drop(sys::open(&dir.join(name), libc::O_CREAT | O_RDWR)?);
        }
        sys::make_fifo(&dir.join("tmp/fifo"))?;
        let mut files = Self {
            dir: dir.to_owned(),
            open: Handle::ALL.iter().map(|_| None).collect(),
            own: FILES.iter().map(|_| None).collect(),
            dirty: vec![true; FILES.len()],
            direct: sys::open(&dir.join("disk/direct"), O_RDWR | O_DIRECT)?,
            whole: sys::partitioned(name, File::Partition.size(), &dir.join("tmp/partition"))?,
            data: sys::Pages::new(WINDOW / sys::PAGE)?,
        };
        let device = sys::loop_device(
            &dir.join("tmp/backing"),
            File::Block.size(),
            &dir.join("tmp/loop"),
        )?;
        for (i, file) in FILES.iter().enumerate() {
            if let Some(name) = file.own() {
                files.own[i] = Some(sys::open(&dir.join(name), O_RDWR)?);
            }
        }
        for (i, byte) in files.data.iter_mut().enumerate() {
            *byte = (i / 8 * 37 + i % 8 * 11) as u8;
        }
        // From now on ours are its users, and it goes with the last.
        drop(device);
        let sealed = sys::memfd()?;
        files.own[File::Sealed as usize] = Some(sealed);
        files.fill(File::Sealed)?;
        sys::seal(
            files.own_fd(File::Sealed),
            libc::F_SEAL_GROW | libc::F_SEAL_SHRINK,
        )?;
        files.reset()?;
        Ok(files)
    }

    /// The number of a handle's descriptor.
    pub fn fd(&self, handle: Handle) -> RawFd {
        match (handle.how(), &self.open[handle as usize]) {
            (Number(number), _) => number,
            (_, Some(fd)) => fd.as_raw_fd(),
            (_, None) => -1,
        }
    }

    fn own_fd(&self, file: File) -> RawFd {
        self.own[file as usize]
            .as_ref()
            .map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Notes that a file may have changed.
    pub fn touch(&mut self, file: File) {
        if let Some(dirty) = self.dirty.get_mut(file as usize) {
            *dirty = true;
        }
    }

    /// Those that may have.
    pub fn touched(&self) -> impl Iterator<Item = File> + '_ {
        FILES
            .iter()
            .copied()
            .filter(|file| self.dirty[*file as usize])
    }

    /// Closes a handle; `EBADF` if it isn't open.
    pub fn close(&mut self, handle: Handle) -> i64 {
        self.touch(handle.file());
        match self.open[handle as usize].take() {
            Some(_) => 0,
            None => -i64::from(libc::EBADF),
        }
    }

    /// Changes the size of a file.
    pub fn truncate(&mut self, file: File, len: i64) -> i64 {
        self.touch(file);
        if file == File::Partition {
            return self.resize(len);
        }
        // SAFETY: numbers only.
        sys::value(unsafe { libc::ftruncate(self.own_fd(file), len) }.into())
    }

    /// The same of the partition, where nothing is left to be written beyond its end.
    fn resize(&self, len: i64) -> i64 {
        match sys::uncache(self.own_fd(File::Partition)) {
            Ok(()) => sys::partition(self.whole.as_raw_fd(), sys::RESIZE, len),
            Err(_) => -i64::from(libc::EIO),
        }
    }

    /// Writes so many bytes, or reads them into `into`.
    pub fn transfer(&mut self, handle: Handle, len: usize, into: Option<&mut Vec<u8>>) -> i64 {
        self.touch(handle.file());
        let fd = self.fd(handle);
        match into {
            // SAFETY: `data` has that many bytes.
            None => sys::value(unsafe { libc::write(fd, self.data.as_ptr().cast(), len) } as i64),
            Some(into) => {
                into.resize(len, 0);
                // SAFETY: the same of `into`.
                sys::value(unsafe { libc::read(fd, into.as_mut_ptr().cast(), len) } as i64)
            }
        }
    }

    /// What is in a file now. Streams are empty then.
    pub fn state(&mut self, file: File) -> Result<State> {
        if !file.has_content() {
            return Ok(self.rest(file));
        }
        let mut state = State::default();
        let fd = self.own_fd(file);
        let stat = sys::stat(fd)?;
        state.size = match file {
            File::Block | File::Partition => (0, 0),
            // Of others blocks are allocated later.
            File::Tmp | File::Sparse | File::Empty | File::Small => (stat.st_size, stat.st_blocks),
            _ => (stat.st_size, 0),
        };
        let end = match file {
            File::Block | File::Partition => file.size(),
            _ => stat.st_size,
        };
        let window = WINDOW as i64;
        for start in [0, 1 << 20, end - window / 2] {
            if start == 0 || start >= window {
                let len = (end - start).clamp(0, window) as usize;
                sys::read_at(fd, start, len, &mut state.data)?;
            }
        }
        Ok(state)
    }

    /// What can be read from a stream.
    fn rest(&self, file: File) -> State {
        let mut state = State::default();
        for handle in Handle::ALL.iter().filter(|handle| handle.file() == file) {
            if *handle != Handle::Epoll && self.open[*handle as usize].is_some() {
                // Counts how many there were.
                state.size.0 += sys::drain(self.fd(*handle), &mut state.data);
            }
        }
        state
    }

    /// Makes everything as it was in the beginning.
    pub fn reset(&mut self) -> Result<()> {
        for file in FILES {
            if std::mem::take(&mut self.dirty[file as usize]) {
                self.restore(file)?;
            }
        }
        for handle in Handle::ALL {
            if self.open[*handle as usize].is_none() && !matches!(handle.how(), Number(_)) {
                self.open(*handle)?;
            }
        }
        Ok(())
    }

    fn restore(&mut self, file: File) -> Result<()> {
        if file.has_content() {
            return self.fill(file);
        }
        // Streams are made anew.
        for handle in Handle::ALL.iter().filter(|handle| handle.file() == file) {
            self.open[*handle as usize] = None;
        }
        Ok(())
    }

    /// Gives a file its content.
    fn fill(&mut self, file: File) -> Result<()> {
        let fd = self.own_fd(file);
        let size = file.size() as usize;
        match file {
            File::Empty => sys::truncate(fd, 0),
            File::Sparse => {
                sys::truncate(fd, 0)?;
                sys::write_at(fd, 0, &self.data[..10_000])?;
                sys::write_at(fd, 50_000, &self.data[..10_000])
            }
            File::Tmp | File::Small => {
                sys::truncate(fd, 0)?;
                sys::write_at(fd, 0, &self.data[..size])
            }
            File::Direct => {
                if sys::stat(fd)?.st_size > size as i64 {
                    sys::truncate(fd, size as i64)?;
                }
                // Not through the page cache, or the next request has to write
                // that back first.
                sys::write_at(self.direct.as_raw_fd(), 0, &self.data[..size])
            }
            File::Disk => {
                if sys::stat(fd)?.st_size > size as i64 {
                    sys::truncate(fd, size as i64)?;
                }
                sys::write_at(fd, 0, &self.data[..size])
            }
            File::Block | File::Partition => {
                // Who may not do that hasn't changed it.
                if file == File::Partition {
                    self.resize(file.size());
                }
                sys::write_at(fd, 0, &self.data[..size])?;
                // Nothing takes the direct path while anything is cached.
                sys::uncache(fd)
            }
            _ => sys::write_at(fd, 0, &self.data[..size]),
        }
    }

    fn open(&mut self, handle: Handle) -> Result<()> {
        if let Named(name, flags) = handle.how() {
            self.open[handle as usize] = Some(sys::open(&self.dir.join(name), flags)?);
            return Ok(());
        }
        let mut set = |handle: Handle, fd| self.open[handle as usize] = Some(fd);
        match handle.file() {
            File::Sealed => {
                let own = self.own[File::Sealed as usize].as_ref();
                let fd = own.expect("made first").try_clone();
                set(handle, fd.map_err(|e| format!("dup: {e}"))?);
            }
            File::PipeData => {
                let (read, write) = sys::pipe(None)?;
                sys::write_all(write.as_raw_fd(), &self.data[..300]);
                set(Handle::DataRead, read);
                set(Handle::DataWrite, write);
            }
            File::PipeEmpty => {
                let (read, write) = sys::pipe(None)?;
                set(Handle::Epoll, sys::epoll(read.as_raw_fd())?);
                set(Handle::EmptyRead, read);
                set(Handle::EmptyWrite, write);
            }
            File::PipeFull => {
                let (read, write) = sys::pipe(Some(sys::PAGE))?;
                sys::write_all(write.as_raw_fd(), &self.data[..sys::PAGE]);
                set(Handle::FullRead, read);
                set(Handle::FullWrite, write);
            }
            File::Stream => {
                let (a, b) = sys::sockets(libc::SOCK_STREAM)?;
                sys::write_all(b.as_raw_fd(), &self.data[..700]);
                set(Handle::StreamA, a);
                set(Handle::StreamB, b);
            }
            File::Datagram => {
                let (a, b) = sys::sockets(libc::SOCK_DGRAM)?;
                for len in [50, 0, 600] {
                    sys::write_all(b.as_raw_fd(), &self.data[..len]);
                }
                set(Handle::DatagramA, a);
                set(Handle::DatagramB, b);
            }
            File::Event => set(handle, sys::eventfd(3)?),
            File::CountA | File::CountB => set(handle, sys::eventfd(0)?),
            _ => set(handle, sys::timerfd()?),
        }
        Ok(())
    }
}
