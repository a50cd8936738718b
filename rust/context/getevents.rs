// SPDX-License-Identifier: GPL-2.0

//! Reading events, and waiting for them. No lock is held while waiting.

use super::User;
use crate::{
    kernel_ext::wait::{
        self,
        Woken, //
    },
    ring::Event,
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
        let min_nr = u32::try_from(args.min_nr).unwrap_or(u32::MAX);

        let mut got = self.ring.reap(args.events, nr)?;
        if got >= min_nr || args.timeout == Some(0) {
            return Ok(got);
        }
        let deadline = args
            .timeout
            .map(|timeout| wait::now().saturating_add(timeout));
        loop {
            let woken = self.ring.wait(min_nr - got, deadline, || self.is_dead());
            let at = args.events.wrapping_add(got as usize * size_of::<Event>());
            let more = self.ring.reap(at, nr - got);
            let end = match more {
                Ok(more) => {
                    got += more;
                    if got >= min_nr {
                        return Ok(got);
                    }
                    if self.is_dead() {
                        Counter::KilledWaits.add(1);
                        EINVAL
                    } else {
                        match woken {
                            // Somebody else was quicker.
                            Woken::Ready => continue,
                            Woken::TimedOut => return Ok(got),
                            Woken::Signal => EINTR,
                        }
                    }
                }
                Err(e) => e,
            };
            return if got > 0 { Ok(got) } else { Err(end) };
        }
    }
}
