// SPDX-License-Identifier: GPL-2.0
//! What a context has in common with what may outlive it.

use crate::{calls::Calls, in_flight::Name, sys::raio_buffer, Buffer};
use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The way to a context, for as long as it is there.
pub(crate) struct Link {
    pub(crate) calls: Calls,
    pub(crate) ctx: u64,
    /// Held during each call of one who doesn't own the context: it must not be
    /// destroyed before, for another may be made that has the same handle.
    state: Mutex<State>,
}

struct State {
    over: bool,
    /// Numbers under which no buffer is registered, the lowest last.
    free: Vec<u32>,
}

impl Link {
    pub(crate) fn new(calls: Calls, ctx: u64, nr_buffers: u32) -> Self {
        Self {
            calls,
            ctx,
            state: Mutex::new(State {
                over: false,
                free: (0..nr_buffers).rev().collect(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Destroys the context.
    pub(crate) fn end(&self) -> io::Result<()> {
        // Not during the call, which others must not have to wait for.
        self.state().over = true;
        self.calls.destroy(self.ctx)
    }

    /// Registers a buffer, and says under which number. Its memory must be there
    /// until `unregister` has said that nobody else has it.
    pub(crate) fn register(&self, buffer: &mut Buffer) -> io::Result<u32> {
        let mut state = self.state();
        let Some(&number) = state.free.last() else {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        };
        let what = raio_buffer {
            addr: buffer.start().as_ptr() as usize as u64,
            len: buffer.len() as u64,
        };
        // SAFETY: the caller's promise.
        unsafe { self.calls.buffers(self.ctx, number, &[what]) }?;
        state.free.pop();
        Ok(number)
    }

    /// No request is there, and none will come, on the buffer of that number: has
    /// it go. Whether its memory is the program's alone then.
    pub(crate) fn unregister(&self, number: u32) -> bool {
        let mut state = self.state();
        if state.over {
            // Nobody can start a request any more.
            return true;
        }
        let none = raio_buffer::default();
        // SAFETY: that is no memory.
        let gone = unsafe { self.calls.buffers(self.ctx, number, &[none]) }.is_ok();
        if gone {
            state.free.push(number);
        }
        gone
    }

    /// Cancels a request.
    pub(crate) fn cancel(&self, name: Name) -> io::Result<()> {
        let state = self.state();
        if state.over {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        self.calls.cancel(self.ctx, name.0)
    }
}
