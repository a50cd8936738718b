// SPDX-License-Identifier: GPL-2.0
//! What a context has in common with what may outlive it.

use crate::{calls::Calls, in_flight::Name, sys::raio_buffer, Buffer};
use std::{
    io, process,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The way to a context, for as long as it is there.
pub(crate) struct Link {
    pub(crate) calls: Calls,
    pub(crate) ctx: u64,
    /// Whose it is. In the child of a fork the handle may be that of another.
    process: u32,
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
            process: process::id(),
            state: Mutex::new(State {
                over: false,
                free: (0..nr_buffers).rev().collect(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Isn't this the child of a fork?
    pub(crate) fn is_ours(&self) -> bool {
        process::id() == self.process
    }

    fn check(&self) -> io::Result<()> {
        match self.is_ours() {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        }
    }

    /// Destroys the context.
    pub(crate) fn end(&self) -> io::Result<()> {
        self.check()?;
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
        if !self.is_ours() {
            // The kernel has that of the other process.
            return true;
        }
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
        self.check()?;
        let state = self.state();
        if state.over {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        self.calls.cancel(self.ctx, name.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::fake::Fake;

    #[test]
    fn nothing_is_done_in_a_child() {
        let fake = Fake::default();
        let mut link = Link::new(Calls::Fake(fake.clone()), 1, 1);
        link.process += 1;
        assert!(link.end().is_err());
        assert!(link.unregister(0));
        assert!(link.cancel(Name(0)).is_err());
        assert!(!fake.state().destroyed);
    }
}
