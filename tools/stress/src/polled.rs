// SPDX-License-Identifier: GPL-2.0
//! Files that are polled. The threads of a process share some, of each kind
//! one: they make them ready or not, and replace them, while others poll them.
//! A number is always open, though of a file that changes; nothing is known of
//! what it is ready for. Others are bells, which only one victim rings, see
//! [`crate::ambush`].
//!
//! Nothing waits here, and there are no locks.

use crate::{
    ops::Touch,
    report::Checked,
    sys::{self, PAGE},
};
use std::{
    fs::OpenOptions,
    io,
    ops::Range,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::{fs::OpenOptionsExt, net::UnixStream},
    },
};

/// An eventfd, which counts requests that want it.
const COUNTER: u16 = 0;
/// An end of a pipe.
const READER: u16 = 1;
/// The other.
const WRITER: u16 = 2;
/// Both ends as one file, which has two wait queues.
pub const BOTH: u16 = 3;
/// A socket.
const SOCKET: u16 = 4;
/// The one that it is connected to.
const PEER: u16 = 5;
/// What is ready when the device, the counter or the socket is.
const EPOLL: u16 = 6;
/// The device, which is ready when a context of it has events. It isn't
/// replaced.
const DEVICE: u16 = 7;
/// How many there are. The bells come after them.
pub const PLACES: u16 = 8;
/// Bells of a victim.
pub const BELLS: u16 = 16;

/// A socket that keeps little is full after so many pages, if nobody reads
/// meanwhile. Else it would take long.
const ENOUGH: u32 = 4;
/// From here on their numbers are.
const FIRST_NUMBER: RawFd = 128;

/// What they are made and used as.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Pipe,
    Sockets,
    Epoll,
}

/// What belongs together.
fn group(place: u16) -> Option<(Kind, Range<u16>)> {
    match place {
        COUNTER => Some((Kind::Counter, COUNTER..READER)),
        READER | WRITER | BOTH => Some((Kind::Pipe, READER..SOCKET)),
        SOCKET | PEER => Some((Kind::Sockets, SOCKET..EPOLL)),
        EPOLL => Some((Kind::Epoll, EPOLL..DEVICE)),
        DEVICE => None,
        bell => Some((Kind::Counter, bell..bell + 1)),
    }
}

/// They.
pub struct Polled {
    numbers: Vec<RawFd>,
}

impl Polled {
    /// Opens them, with bells for so many victims. `home` is a descriptor of
    /// the device.
    ///
    /// # Errors
    ///
    /// Any is a failure of the test.
    pub fn open(home: RawFd, victims: usize) -> Checked<Self> {
        let error = |e: io::Error| format!("a file to be polled: {e}");
        let mut this = Self {
            numbers: Vec::new(),
        };
        for first in [COUNTER, READER, SOCKET, EPOLL] {
            let (kind, _) = group(first).expect("a group begins there");
            // The last needs the others.
            for file in this.make(kind, home).map_err(error)? {
                let number = sys::duplicate(file.as_raw_fd(), FIRST_NUMBER, false);
                this.numbers.push(number.map_err(error)?);
            }
        }
        this.numbers.push(home);
        for _ in 0..victims * usize::from(BELLS) {
            let file = sys::eventfd().map_err(error)?;
            let number = sys::duplicate(file.as_raw_fd(), FIRST_NUMBER, false);
            this.numbers.push(number.map_err(error)?);
        }
        Ok(this)
    }

    /// The descriptor of one.
    pub fn number(&self, place: u16) -> RawFd {
        self.numbers[usize::from(place)]
    }

    /// The bells of a victim.
    pub fn bells(victim: usize) -> Range<u16> {
        let first = PLACES + victim as u16 * BELLS;
        first..first + BELLS
    }

    /// The eventfd that requests may be counted by; for polls of a bell, the
    /// first of those.
    pub fn counter(&self, polled: Option<u16>) -> RawFd {
        self.number(match polled.and_then(|place| place.checked_sub(PLACES)) {
            Some(bell) => PLACES + bell / BELLS * BELLS,
            None => COUNTER,
        })
    }

    /// Whether a bell was counted by since it was asked last.
    pub fn was_counted(&self, bell: u16) -> bool {
        sys::take(self.number(bell), &mut [0; 8]) > 0
    }

    fn make(&self, kind: Kind, home: RawFd) -> io::Result<Vec<OwnedFd>> {
        match kind {
            Kind::Counter => Ok(vec![sys::eventfd()?]),
            Kind::Pipe => {
                let (reader, writer) = sys::small_pipe()?;
                let both = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .open(format!("/proc/self/fd/{}", reader.as_raw_fd()))?;
                Ok(vec![reader, writer, both.into()])
            }
            Kind::Sockets => {
                let (one, other) = UnixStream::pair()?;
                for socket in [&one, &other] {
                    socket.set_nonblocking(true)?;
                    sys::keep_little(socket.as_raw_fd())?;
                }
                Ok(vec![one.into(), other.into()])
            }
            Kind::Epoll => {
                let members = [home, self.number(COUNTER), self.number(SOCKET)];
                Ok(vec![sys::epoll(&members)?])
            }
        }
    }

    /// Does something to one, and to what belongs to it.
    ///
    /// # Errors
    ///
    /// Any is a failure of the test.
    pub fn touch(&self, place: u16, touch: Touch) -> Checked {
        let Some((kind, places)) = group(place) else {
            return Ok(());
        };
        let numbers: Vec<_> = places.map(|place| self.number(place)).collect();
        match touch {
            Touch::Fill => self.fill(kind, &numbers),
            Touch::Drain => self.drain(kind, &numbers),
            Touch::Pulse => {
                self.fill(kind, &numbers);
                self.drain(kind, &numbers);
            }
            Touch::Replace { woken } => {
                let replaced = self.replace(kind, &numbers, woken);
                replaced.map_err(|e| format!("a file to be polled: {e}"))?;
            }
        }
        Ok(())
    }

    /// Puts other files where some were. Who polls those does so until it is
    /// cancelled, if they aren't `woken` first.
    fn replace(&self, kind: Kind, numbers: &[RawFd], woken: bool) -> io::Result<()> {
        let old: io::Result<Vec<_>> = numbers
            .iter()
            .map(|number| sys::duplicate(*number, 0, false).map(sys::inherited))
            .collect();
        let old = old?;
        let new = self.make(kind, self.number(DEVICE))?;
        for (file, number) in new.iter().zip(numbers) {
            sys::replace(file.as_raw_fd(), *number)?;
        }
        if woken {
            let old: Vec<_> = old.iter().map(AsRawFd::as_raw_fd).collect();
            self.fill(kind, &old);
            self.drain(kind, &old);
        }
        Ok(())
    }

    /// There is something to be read, and no room to write.
    fn fill(&self, kind: Kind, files: &[RawFd]) {
        match kind {
            Kind::Counter => drop(sys::put(files[0], &1u64.to_ne_bytes())),
            Kind::Pipe => drop(sys::put(files[1], &[0; PAGE])),
            Kind::Sockets => {
                sys::put(files[1], &[0]);
                for _ in 0..ENOUGH {
                    sys::put(files[0], &[0; PAGE]);
                }
            }
            Kind::Epoll => self.fill(Kind::Counter, &[self.number(COUNTER)]),
        }
    }

    /// The opposite.
    fn drain(&self, kind: Kind, files: &[RawFd]) {
        let mut bytes = [0; PAGE];
        match kind {
            Kind::Counter | Kind::Pipe => drop(sys::take(files[0], &mut bytes)),
            Kind::Sockets => {
                sys::take(files[0], &mut bytes);
                for _ in 0..ENOUGH {
                    sys::take(files[1], &mut bytes);
                }
            }
            Kind::Epoll => self.drain(Kind::Counter, &[self.number(COUNTER)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(polled: &Polled, place: u16) -> i16 {
        sys::ready(polled.number(place), libc::POLLIN | libc::POLLOUT)
    }

    #[test]
    fn each_is_made_ready_and_not() {
        let home = sys::eventfd().unwrap();
        let polled = Polled::open(home.as_raw_fd(), 2).unwrap();
        assert_eq!(polled.numbers.len(), usize::from(PLACES + 2 * BELLS));
        let (read, write) = (libc::POLLIN, libc::POLLOUT);
        for replace in [false, true] {
            for (place, drained, filled) in [
                (COUNTER, write, read | write),
                (READER, 0, read),
                (WRITER, write, 0),
                (BOTH, write, read),
                (SOCKET, write, read),
                (PEER, write, read | write),
                (EPOLL, 0, read),
                (PLACES + BELLS, write, read | write),
            ] {
                if replace {
                    polled.touch(place, Touch::Replace { woken: true }).unwrap();
                }
                assert_eq!(ready(&polled, place), drained, "{place}");
                polled.touch(place, Touch::Fill).unwrap();
                assert_eq!(ready(&polled, place), filled, "{place}");
                polled.touch(place, Touch::Drain).unwrap();
                assert_eq!(ready(&polled, place), drained, "{place}");
                polled.touch(place, Touch::Pulse).unwrap();
                assert_eq!(ready(&polled, place), drained, "{place}");
            }
        }
        polled.touch(DEVICE, Touch::Fill).unwrap();
    }

    #[test]
    fn who_counts() {
        let home = sys::eventfd().unwrap();
        let polled = Polled::open(home.as_raw_fd(), 2).unwrap();
        let number = |place| polled.number(place);
        assert_eq!(Polled::bells(1), PLACES + BELLS..PLACES + 2 * BELLS);
        assert_eq!(polled.counter(None), number(COUNTER));
        assert_eq!(polled.counter(Some(DEVICE)), number(COUNTER));
        assert_eq!(polled.counter(Some(PLACES)), number(PLACES));
        let last = PLACES + 2 * BELLS - 1;
        assert_eq!(polled.counter(Some(last)), number(PLACES + BELLS));
        assert!(!polled.was_counted(last));
        polled.touch(last, Touch::Fill).unwrap();
        assert!(polled.was_counted(last) && !polled.was_counted(last));
    }
}
