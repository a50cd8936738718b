// SPDX-License-Identifier: GPL-2.0
//! What a context has in common with what may outlive it.

use crate::calls::Calls;
use std::{
    io,
    sync::{Mutex, PoisonError},
};

/// The way to a context, for as long as it is there.
pub(crate) struct Link {
    pub(crate) calls: Calls,
    pub(crate) ctx: u64,
    /// Taken around each call of one who doesn't own the context: it must not be
    /// destroyed before, for another may be made that has the same handle.
    over: Mutex<bool>,
}

impl Link {
    pub(crate) fn new(calls: Calls, ctx: u64) -> Self {
        Self {
            calls,
            ctx,
            over: Mutex::new(false),
        }
    }

    /// Destroys the context.
    pub(crate) fn end(&self) -> io::Result<()> {
        // Not during the call, which others must not have to wait for.
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.calls.destroy(self.ctx)
    }
}
