// SPDX-License-Identifier: GPL-2.0
//! What a context shall have.

use crate::{
    calls::Calls,
    memory::Memory,
    sys::{raio_setup, RAIO_SETUP_IOPOLL},
    Context,
};
use std::io;

/// A context that is not made yet, see [`Device::builder`](crate::Device::builder).
#[must_use = "a context is made by `setup`"]
pub struct Builder {
    calls: Calls,
    setup: raio_setup,
}

impl Builder {
    pub(crate) fn new(calls: Calls, nr_events: u32) -> Self {
        let setup = raio_setup {
            nr_events,
            sq_nr: nr_events,
            ..Default::default()
        };
        Self { calls, setup }
    }

    /// How many requests the submission array takes at least, which is how many
    /// one call can start. As many as can be in flight if it isn't said; with 0
    /// there is none, and a [`Batch`](crate::Batch) takes no request.
    pub fn submission(mut self, nr: u32) -> Self {
        self.setup.sq_nr = nr;
        self
    }

    /// How many buffers can be [registered](Context::register), 16384 at most.
    pub fn buffers(mut self, nr: u32) -> Self {
        self.setup.nr_buffers = nr;
        self
    }

    /// How many files can be [registered](Context::set_files), 32768 at most.
    pub fn files(mut self, nr: u32) -> Self {
        self.setup.nr_files = nr;
        self
    }

    /// Has devices asked whether transfers have ended, by who waits for completions, where
    /// file and device can be; no interrupt tells of those. Who doesn't wait, with
    /// [`Batch::enter`](crate::Batch::enter) or [`Context::getevents`], may never see them.
    pub fn polled(self) -> Self {
        self.flags(RAIO_SETUP_IOPOLL)
    }

    /// Flags of the set-up, as the module's [`Query`](crate::Query) has them in
    /// `setup_flags`.
    pub fn flags(mut self, flags: u32) -> Self {
        self.setup.flags = flags;
        self
    }

    /// Makes the context. `B` is the memory of its requests.
    ///
    /// # Errors
    ///
    /// `EINVAL` if a number is too large, or there shall be room for 0 requests, or
    /// a flag is unknown; `EAGAIN` if a limit is passed; `ENOMEM`.
    pub fn setup<B: Memory>(self) -> io::Result<Context<B>> {
        Context::new(self.calls, self.setup)
    }
}
