// SPDX-License-Identifier: GPL-2.0
//! A module for tests: a context in plain memory, of which they say what it does.

use crate::{
    ring::tests::{Memory, Writer},
    sys::*,
};
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

/// The same for all who have a clone.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
pub(crate) struct State {
    setup: raio_setup,
    memory: Option<Memory>,
    ring: Option<Writer>,
    /// What was taken, but for what has ended.
    pub(crate) in_flight: VecDeque<iocb>,
    /// How many requests are taken before one is refused, if that is set.
    pub(crate) takes: Option<u32>,
    /// Each call: how many requests, and for how many events it waited.
    pub(crate) calls: Vec<(u32, u32)>,
    /// What is registered.
    pub(crate) buffers: Vec<raio_buffer>,
    pub(crate) files: Vec<i32>,
    pub(crate) refuse_buffers: bool,
    pub(crate) refuse_cancel: bool,
    pub(crate) destroyed: bool,
    pub(crate) refuse_destroy: bool,
}

impl Fake {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn setup(&self, mut arg: raio_setup) -> io::Result<raio_setup> {
        let state = &mut *self.state();
        arg.ring_nr = arg.nr_events + 1;
        let array = 8 * arg.sq_nr;
        let memory = state.memory.insert(Memory::with_more(
            arg.ring_nr,
            arg.nr_events,
            array as usize,
        ));
        arg.ctx = memory.ring() as usize as u64;
        arg.ring_size = memory.size();
        arg.sq_offset = memory.size() as u32 - 8 * array;
        state.ring = Some(memory.writer());
        state.setup = arg;
        state.buffers = vec![raio_buffer::default(); arg.nr_buffers as usize];
        state.files = vec![-1; arg.nr_files as usize];
        Ok(arg)
    }

    pub(super) fn destroy(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.refuse_destroy {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        assert!(!state.destroyed);
        state.destroyed = true;
        Ok(())
    }

    pub(super) fn enter(&self, arg: &mut raio_enter) -> io::Result<u32> {
        let mut state = self.state();
        assert!(!state.destroyed);
        assert_eq!(arg.ctx, state.setup.ctx);
        assert_eq!(arg.flags, if arg.nr > 0 { RAIO_ENTER_SQ } else { 0 });
        state.calls.push((arg.nr, arg.min_nr));
        let takes = state.takes.unwrap_or(u32::MAX);
        if arg.nr > 0 && takes == 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let start = (arg.ctx as usize + state.setup.sq_offset as usize) as *const iocb;
        for i in 0..arg.nr.min(takes) {
            let at = (arg.iocbs as u32 + i) % state.setup.sq_nr;
            // SAFETY: it is in the array.
            let iocb = unsafe { start.add(at as usize).read() };
            state.in_flight.push_back(iocb);
        }
        Ok(arg.nr.min(takes))
    }

    pub(super) fn buffers(
        &self,
        arg: &mut raio_register,
        buffers: &[raio_buffer],
    ) -> io::Result<usize> {
        let mut state = self.state();
        assert!(!state.destroyed);
        if state.refuse_buffers {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        replace(&mut state.buffers, arg, buffers)
    }

    pub(super) fn files(&self, arg: &mut raio_register, files: &[i32]) -> io::Result<usize> {
        replace(&mut self.state().files, arg, files)
    }

    pub(super) fn cancel(&self, arg: &mut raio_cancel) -> io::Result<()> {
        let state = &mut *self.state();
        assert!(!state.destroyed);
        assert_eq!(arg.flags, RAIO_CANCEL_DATA);
        let mut in_flight = state.in_flight.iter();
        let at = in_flight
            .position(|iocb| iocb.aio_data == arg.iocb)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        if state.refuse_cancel {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        state.in_flight.remove(at);
        let ring = state.ring.as_mut().expect("a context");
        assert!(ring.post_result(arg.iocb, -i64::from(libc::ECANCELED)));
        Ok(())
    }
}

fn replace<T: Copy>(table: &mut [T], arg: &raio_register, new: &[T]) -> io::Result<usize> {
    assert_eq!(arg.nr as usize, new.len());
    table
        .get_mut(arg.first as usize..)
        .and_then(|table| table.get_mut(..new.len()))
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?
        .copy_from_slice(new);
    Ok(new.len())
}

impl State {
    /// Ends the oldest request: a read or a write of all of its buffer, which is
    /// filled, or whose first byte is checked; or what needs no buffer.
    pub(crate) fn end(&mut self, byte: u8) {
        let iocb = self.in_flight.pop_front().expect("one that is in flight");
        let buffer = iocb.aio_buf as usize as *mut u8;
        let len = iocb.aio_nbytes as usize;
        match u32::from(iocb.aio_lio_opcode) {
            // SAFETY: it is in flight, so that the memory is the module's.
            IOCB_CMD_PREAD => unsafe { buffer.write_bytes(byte, len) },
            // SAFETY: as above.
            IOCB_CMD_PWRITE => assert_eq!(unsafe { *buffer }, byte),
            _ => (),
        }
        let ring = self.ring.as_mut().expect("a context");
        assert!(ring.post_result(iocb.aio_data, len as i64));
    }
}
