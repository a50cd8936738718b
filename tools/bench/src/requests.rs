// SPDX-License-Identifier: GPL-2.0
//! Requests that do the least there is to do. Reads of `/dev/null` end while
//! they are submitted, so what is measured is the way to it and back; polls of
//! a socket that nobody writes to never end.

use raio::sys::{io_event, iocb, IOCB_CMD_POLL, IOCB_CMD_PREAD};
use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
};

/// Some of them, which can be submitted again and again.
pub(crate) struct Requests {
    _files: Vec<OwnedFd>,
    iocbs: Vec<iocb>,
    pointers: Vec<*mut iocb>,
}

impl Requests {
    /// `n` that end at once.
    pub(crate) fn new(n: usize) -> io::Result<Self> {
        let null = OwnedFd::from(File::open("/dev/null")?);
        let one = iocb {
            aio_lio_opcode: IOCB_CMD_PREAD as _,
            aio_fildes: null.as_raw_fd() as u32,
            ..Default::default()
        };
        Ok(Self::all(n, one, vec![null]))
    }

    /// `n` that wait until they are cancelled.
    pub(crate) fn waiting(n: usize) -> io::Result<Self> {
        let (ours, other) = UnixStream::pair()?;
        let one = iocb {
            aio_lio_opcode: IOCB_CMD_POLL as _,
            aio_fildes: ours.as_raw_fd() as u32,
            aio_buf: libc::POLLIN as u64,
            ..Default::default()
        };
        Ok(Self::all(n, one, vec![ours.into(), other.into()]))
    }

    /// One that is yet to be set.
    pub(crate) fn one() -> Self {
        Self::all(1, iocb::default(), Vec::new())
    }

    /// Makes the first one that.
    pub(crate) fn set(&mut self, one: iocb) {
        self.iocbs[0] = one;
    }

    /// `n` like that one.
    fn all(n: usize, one: iocb, files: Vec<OwnedFd>) -> Self {
        let numbered = |i| iocb {
            aio_data: i as u64,
            ..one
        };
        let mut iocbs: Vec<iocb> = (0..n).map(numbered).collect();
        let first = iocbs.as_mut_ptr();
        Self {
            pointers: (0..n).map(|i| first.wrapping_add(i)).collect(),
            iocbs,
            _files: files,
        }
    }

    /// Where the request with that number is.
    pub(crate) fn pointer(&self, i: usize) -> *mut iocb {
        self.pointers[i]
    }

    /// Where the pointers to the first `n` are.
    pub(crate) fn pointers(&mut self, n: usize) -> *mut *mut iocb {
        self.pointers[..n].as_mut_ptr()
    }

    /// Fails unless these are the events of the first requests, in their order.
    pub(crate) fn check(&self, events: &[io_event]) -> io::Result<()> {
        self.check_those(0..events.len(), 0, events)
    }

    /// Fails unless these are the events of those requests, in their order, with
    /// that result.
    pub(crate) fn check_those(
        &self,
        those: impl Iterator<Item = usize>,
        res: i64,
        events: &[io_event],
    ) -> io::Result<()> {
        let wrong = those.zip(events).find(|(i, event)| {
            (event.data, event.obj) != (*i as u64, self.pointers[*i].addr() as u64)
                || (event.res, event.res2) != (res, 0)
        });
        match wrong {
            None => Ok(()),
            Some((i, event)) => Err(io::Error::other(format!(
                "the event of request {i} isn't that: {event:?}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Requests;
    use raio::sys::io_event;

    #[test]
    fn events_are_compared() {
        let mut requests = Requests::new(2).unwrap();
        let pointers = requests.pointers(2);
        let event = |i: usize| io_event {
            data: i as u64,
            // SAFETY: There are two.
            obj: unsafe { *pointers.add(i) }.addr() as u64,
            ..Default::default()
        };
        assert!(requests.check(&[]).is_ok());
        assert!(requests.check(&[event(0), event(1)]).is_ok());
        assert!(requests.check(&[event(1), event(0)]).is_err());
        let bad = io_event {
            res: -5,
            ..event(0)
        };
        assert!(requests.check(&[bad]).is_err());
        assert!(requests.check_those([0].into_iter(), -5, &[bad]).is_ok());
        assert!(requests.check_those([1].into_iter(), -5, &[bad]).is_err());
    }
}
