// SPDX-License-Identifier: GPL-2.0

//! Reading events, and waiting for them. No lock is held while waiting. How one waits [`iopoll`](super::iopoll) says.

use super::User;
use crate::{
    kernel_ext::wait,
    ring::{
        protocol::Woken,
        Event, //
    },
    stats::Counter, //
};
use core::mem::size_of;
use kernel::prelude::*;

/// What the caller asks for.
pub(crate) struct GetEvents {
    /// Return when so many were read.
    pub(crate) min_nr: i64,
    /// Read no more than that.
    pub(crate) nr: i64,
    /// Where to.
    pub(crate) events: usize,
    /// Wait no longer than that, in nanoseconds, which aren't negative. [`None`] is for ever.
    pub(crate) timeout: Option<i64>,
    /// After so many nanoseconds one event is enough, if there is a number.
    pub(crate) min_wait: Option<i64>,
}

impl User {
    /// Reads events and returns how many.
    ///
    /// `EINVAL` for numbers that make no sense and for a context that is being destroyed, `EFAULT`,
    /// `EINTR`: each only if nothing was read.
    pub(crate) fn getevents(&self, args: &GetEvents) -> Result<u32> {
        if args.min_nr < 0 || args.min_nr > args.nr {
            return Err(EINVAL);
        }
        // No ring has more, so more can't be waited for or read at once.
        let nr = u32::try_from(args.nr).unwrap_or(u32::MAX);
        let mut min_nr = u32::try_from(args.min_nr).unwrap_or(u32::MAX);

        self.ask(min_nr.max(1));
        let got = self.ring.reap(args.events, nr)?;
        if args.timeout == Some(0) {
            return Ok(got);
        }
        if got >= min_nr {
            // Who gives time, though not for an event, may know of kernel AIO that there is one by now.
            if got > 0 || nr == 0 || args.timeout.is_none() {
                return Ok(got);
            }
            if !self.inflight().are_late() {
                return self.ring.reap(args.events, nr);
            }
            min_nr = 1;
        }
        let now = wait::now();
        let after = |timeout: i64| now.saturating_add(timeout);
        let deadline = args.timeout.map(after);
        let first = args.min_wait.map(after);
        if let Some(first) = first.filter(|first| deadline.is_none_or(|last| *first < last)) {
            let (got, woken) = self.wait(args, got, min_nr, nr, Some(first))?;
            if got > 0 || woken != Woken::TimedOut {
                return Ok(got);
            }
            min_nr = 1;
        }
        Ok(self.wait(args, got, min_nr, nr, deadline)?.0)
    }

    /// Waits until `n` events are there, for `timeout` nanoseconds, without one for as long as it takes.
    /// 1 if they are; 0 when the time is over. `EINVAL` for a context that is being destroyed, `EINTR`.
    pub(crate) fn wait_for(&self, n: u32, timeout: Option<i64>) -> Result<u32> {
        // Who polls asks first: there may be more, and to look is dear.
        if !self.asks() && self.ring.has(n) {
            return Ok(1);
        }
        if timeout == Some(0) {
            self.ask(n);
            return Ok(self.ring.has(n).into());
        }
        let deadline = timeout.map(|timeout| wait::now().saturating_add(timeout));
        let woken = self.wait_or_poll(n, deadline);
        self.ring.pass_on();
        match woken {
            _ if self.is_dead() => {
                Counter::KilledWaits.add(1);
                Err(EINVAL)
            }
            Woken::Ready => Ok(1),
            Woken::TimedOut => Ok(0),
            Woken::Signal => Err(EINTR),
        }
    }

    /// Reads events in addition to `got` until they are `enough`, `nr` at most. Returns how many
    /// were read altogether, and why it ended. Errors as above.
    fn wait(
        &self,
        args: &GetEvents,
        mut got: u32,
        enough: u32,
        nr: u32,
        deadline: Option<i64>,
    ) -> Result<(u32, Woken)> {
        loop {
            let woken = self.wait_or_poll(enough - got, deadline);
            let at = args.events.wrapping_add(got as usize * size_of::<Event>());
            let more = self.ring.reap(at, nr - got);
            self.ring.pass_on();
            let end = match more {
                Ok(more) => {
                    got += more;
                    if got >= enough {
                        return Ok((got, Woken::Ready));
                    }
                    if self.is_dead() {
                        Counter::KilledWaits.add(1);
                        EINVAL
                    } else {
                        match woken {
                            // Somebody else was quicker.
                            Woken::Ready => continue,
                            Woken::TimedOut => return Ok((got, woken)),
                            Woken::Signal => EINTR,
                        }
                    }
                }
                Err(e) => e,
            };
            return if got > 0 { Ok((got, woken)) } else { Err(end) };
        }
    }
}
