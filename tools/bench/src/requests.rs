// SPDX-License-Identifier: GPL-2.0
//! Requests that end while they are submitted and do the least there is to
//! do: reads of `/dev/null`. So what is measured is the way to it and back.

use raio::sys::{io_event, iocb, IOCB_CMD_PREAD};
use std::{fs::File, io, os::fd::AsRawFd};

/// Some of them, which can be submitted again and again.
pub(crate) struct Requests {
    _null: File,
    _iocbs: Vec<iocb>,
    pointers: Vec<*mut iocb>,
}

impl Requests {
    /// `n` of them.
    pub(crate) fn new(n: usize) -> io::Result<Self> {
        let null = File::open("/dev/null")?;
        let one = |i| iocb {
            aio_data: i as u64,
            aio_lio_opcode: IOCB_CMD_PREAD as _,
            aio_fildes: null.as_raw_fd() as u32,
            ..Default::default()
        };
        let mut iocbs: Vec<iocb> = (0..n).map(one).collect();
        let first = iocbs.as_mut_ptr();
        Ok(Self {
            pointers: (0..n).map(|i| first.wrapping_add(i)).collect(),
            _iocbs: iocbs,
            _null: null,
        })
    }

    /// Where the pointers to the first `n` are.
    pub(crate) fn pointers(&mut self, n: usize) -> *mut *mut iocb {
        self.pointers[..n].as_mut_ptr()
    }

    /// Fails unless these are the events of the first requests, in their order.
    pub(crate) fn check(&self, events: &[io_event]) -> io::Result<()> {
        let wrong = events.iter().enumerate().find(|(i, event)| {
            (event.data, event.obj) != (*i as u64, self.pointers[*i].addr() as u64)
                || (event.res, event.res2) != (0, 0)
        });
        match wrong {
            None => Ok(()),
            Some((i, event)) => Err(io::Error::other(format!(
                "event {i} of {} isn't that of its request: {event:?}",
                events.len()
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
    }
}
