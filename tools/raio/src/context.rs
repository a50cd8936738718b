// SPDX-License-Identifier: GPL-2.0
//! A context, its requests in flight, and the buffers it holds for them.
//!
//! Relies on [`Calls`], and on [`Ring`] for events that are there already.

use crate::{
    array::Array,
    calls::Calls,
    in_flight::{InFlight, Name},
    link::Link,
    memory::Memory,
    ring::Ring,
    sys::*,
    Batch, Buffer, CancelOnDrop, Completion, Registered, Request,
};
use std::{
    fmt, io, mem,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
    sync::Arc,
    time::Duration,
};

/// A queue of requests, and of completions.
///
/// Dropping it cancels the requests in flight that can be cancelled, waits for the
/// others, and frees their buffers then. If the kernel refuses to
/// destroy the context, the buffers of the requests in flight are leaked rather than freed. So
/// they are in the child of a fork, which hasn't got the context and may only drop this.
pub struct Context<B: Memory = Buffer> {
    link: Arc<Link>,
    ring: Ring,
    array: Array,
    in_flight: InFlight<B>,
    /// These three are kept so that they are not allocated for each call.
    iocbs: Vec<iocb>,
    pointers: Vec<usize>,
    events: Vec<io_event>,
}

impl<B: Memory> Context<B> {
    /// Makes one as `setup` says.
    pub(crate) fn new(calls: Calls, setup: raio_setup) -> io::Result<Self> {
        let setup = calls.setup(setup)?;
        let link = Arc::new(Link::new(calls, setup.ctx, setup.nr_buffers));
        // SAFETY: the module has mapped these for us, and only we know.
        let parts = unsafe {
            Ring::new(setup.ctx as usize, setup.ring_size, setup.ring_nr)
                .and_then(|ring| Ok((ring, Array::new(&setup)?)))
        };
        let (ring, array) = parts.inspect_err(|_| {
            // Without a ring there is nothing to do if this fails.
            let _ = link.end();
        })?;
        // As many as can be there, so that none is allocated later.
        let most = setup.ring_nr as usize + array.capacity() as usize;
        Ok(Self {
            link,
            ring,
            array,
            in_flight: InFlight::with_capacity(most),
            iocbs: Vec::new(),
            pointers: Vec::new(),
            events: Vec::new(),
        })
    }

    /// How many requests have been started and not been returned.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len() - self.array.queued() as usize
    }

    /// Begins to put requests into the submission array.
    pub fn batch<'fd>(&mut self) -> Batch<'_, 'fd, B> {
        // What a batch has left that was forgotten: its files may be closed.
        self.withdraw_all();
        Batch::new(self)
    }

    /// Takes the next completion that is there, without a call into the kernel.
    #[inline]
    pub fn pop(&mut self) -> Option<Completion<B>> {
        loop {
            let event = self.ring.pop()?;
            if let Some(completion) = self.in_flight.complete(event) {
                return Some(completion);
            }
        }
    }

    /// Waits until `min` completions can be taken, as many as are in flight at
    /// most, or `timeout` (if any) has passed. There is no call into the kernel if
    /// enough are there already.
    ///
    /// # Errors
    ///
    /// `EINTR` if a signal came before.
    pub fn wait(&mut self, min: u32, timeout: Option<Duration>) -> io::Result<()> {
        let min = min.min(u32::try_from(self.in_flight()).unwrap_or(u32::MAX));
        if self.ring.len() < min {
            // SAFETY: nothing is started.
            unsafe { self.link.calls.enter(self.link.ctx, 0, 0, min, timeout) }?;
        }
        Ok(())
    }

    /// Cancels a request that a [`Batch`] has started. Its completion comes as every
    /// other, with `ECANCELED` or with what was done of it, if it hasn't come already.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if it can't be cancelled, and goes on; `EINVAL` if it isn't in flight,
    /// or is cancelled already.
    pub fn cancel(&self, name: Name) -> io::Result<()> {
        self.link.cancel(name)
    }

    /// A handle of a request that a [`Batch`] has started, which cancels it when it is
    /// dropped. It may outlive the context.
    pub fn cancel_on_drop(&self, name: Name) -> CancelOnDrop {
        CancelOnDrop::new(Arc::clone(&self.link), name)
    }

    /// Registers `buffer`: its pages are pinned, and charged to the user's
    /// `RLIMIT_MEMLOCK`, until what is returned is dropped or the context is.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if as many are registered as the [builder](crate::Builder::buffers)
    /// said, `ENOMEM` over the limit, `EINVAL` if it is empty or larger than 1 GiB.
    /// The buffer is dropped then.
    pub fn register(&self, mut buffer: Buffer) -> io::Result<Registered> {
        let number = self.link.register(&mut buffer)?;
        Ok(Registered::new(buffer, number, Arc::clone(&self.link)))
    }

    /// Replaces the registered files from number `first` on, with `None` by none.
    /// Requests name them by a [`FileNumber`](crate::FileNumber). The module keeps
    /// them open until they are replaced and no request uses them, or until
    /// the context is dropped. Returns how many were replaced; it may be less than all,
    /// if there is something wrong with the next.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// use raio::{Context, Device, FileNumber, Request};
    /// use std::{fs::File, os::fd::AsFd};
    ///
    /// let mut context: Context = Device::open()?.builder(32).files(100).setup()?;
    /// let file = File::open("/etc/services")?;
    /// context.set_files(42, &[Some(file.as_fd())])?;
    /// drop(file);
    /// let mut batch = context.batch();
    /// let _ = batch.push(Request::fsync(FileNumber(42), 0));
    /// batch.enter(1, None)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// `EINVAL` if there are not so many numbers, as the
    /// [builder](crate::Builder::files) said.
    pub fn set_files(&self, first: u32, files: &[Option<BorrowedFd<'_>>]) -> io::Result<usize> {
        let files: Vec<_> = files
            .iter()
            .map(|file| file.map_or(-1, |file| file.as_raw_fd()))
            .collect();
        self.link.calls.files(self.link.ctx, first, &files)
    }

    /// Puts a request into the submission array; gives it back if that is full.
    #[inline]
    pub(crate) fn push<'fd>(
        &mut self,
        mut request: Request<'fd, B>,
    ) -> Result<Name, Request<'fd, B>> {
        if self.array.is_full() {
            return Err(request);
        }
        let mut iocb = request.iocb(0);
        let name = self.in_flight.insert(request.user_data, request.memory);
        iocb.aio_data = name.0;
        self.array.push(iocb);
        Ok(name)
    }

    /// How many requests are in the submission array, and how many fit.
    pub(crate) fn queued(&self) -> (u32, u32) {
        (self.array.queued(), self.array.capacity())
    }

    /// Starts what is in the submission array, and waits until `min` completions can
    /// be taken. Returns how many were started.
    #[inline]
    pub(crate) fn enter(&mut self, min: u32, timeout: Option<Duration>) -> io::Result<u32> {
        let queued = self.array.queued();
        let min = min.min(u32::try_from(self.in_flight.len()).unwrap_or(u32::MAX));
        let are_there = self.ring.len() >= min;
        if queued == 0 && are_there {
            return Ok(0);
        }
        // If they are there nobody has to look, or to ask a device that is polled.
        let min = if are_there { 0 } else { min };
        let Link { calls, ctx, .. } = &*self.link;
        // SAFETY: the memory of each request is in the slab, where nothing touches
        // it until it is found in an event, or the context has been destroyed.
        let taken = unsafe { calls.enter(*ctx, self.array.first(), queued, min, timeout) }?;
        self.array.started(taken);
        Ok(taken.min(queued))
    }

    /// Takes the first request out of the submission array.
    pub(crate) fn withdraw(&mut self) -> Option<(u64, B)> {
        let iocb = self.array.remove_first()?;
        let entry = self.in_flight.take(Name(iocb.aio_data))?;
        Some((entry.user_data, entry.memory))
    }

    pub(crate) fn withdraw_all(&mut self) {
        if self.array.queued() > 0 && !self.link.is_ours() {
            // There is no array.
            return;
        }
        while self.array.queued() > 0 {
            drop(self.withdraw());
        }
    }

    /// Starts requests in their order. Those that were started are removed
    /// from `requests`, and their number is returned; it may be less than all.
    /// Their files may be closed.
    ///
    /// # Errors
    ///
    /// Those of io_submit(2) for the first request, `EAGAIN` above all if as
    /// many are in flight as the context takes; `requests` is left as it was.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// use raio::{Buffer, Device, Request};
    /// use std::fs::File;
    ///
    /// let mut context = Device::open()?.setup(32)?;
    /// let file = File::open("/etc/services")?;
    /// let mut requests = vec![Request::read(&file, Buffer::zeroed(4096, 512), 0, 7)];
    /// context.submit(&mut requests)?;
    /// let mut done = Vec::new();
    /// context.getevents(1, 32, None, &mut done)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn submit(&mut self, requests: &mut Vec<Request<'_, B>>) -> io::Result<usize> {
        self.withdraw_all();
        self.iocbs.clear();
        self.pointers.clear();
        for request in &mut *requests {
            let mut iocb = request.iocb(0);
            let memory = mem::take(&mut request.memory);
            iocb.aio_data = self.in_flight.insert(request.user_data, memory).0;
            self.iocbs.push(iocb);
        }
        let iocbs = &mut self.iocbs;
        self.pointers
            .extend(iocbs.iter_mut().map(|iocb| ptr::from_mut(iocb) as usize));

        // SAFETY: each buffer is in the slab, where nothing touches it until
        // it is found in an event, or the context has been destroyed.
        let result = unsafe { self.link.calls.submit(self.link.ctx, &self.pointers) };
        let taken = *result.as_ref().unwrap_or(&0);

        for (request, iocb) in requests.iter_mut().zip(&self.iocbs).skip(taken) {
            if let Some(entry) = self.in_flight.take(Name(iocb.aio_data)) {
                request.memory = entry.memory;
            }
        }
        requests.drain(..taken);
        result
    }

    /// Takes up to `max` completions that are there, without a call into the
    /// kernel, and appends them to `done`. Returns how many they were.
    pub fn reap(&mut self, max: u32, done: &mut Vec<Completion<B>>) -> usize {
        let in_flight = &mut self.in_flight;
        self.ring
            .reap(max, |event| done.extend(in_flight.complete(event))) as usize
    }

    /// Waits until `min_nr` completions are there or `timeout` (if any) has
    /// passed, and appends up to `nr` completions to `done`. Returns how many
    /// they were. It does not wait for more than are in flight. There is
    /// no call into the kernel if enough completions are there already.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `min_nr` is larger than `nr`, `EINTR` if a signal came
    /// before any event.
    pub fn getevents(
        &mut self,
        min_nr: u32,
        nr: u32,
        timeout: Option<Duration>,
        done: &mut Vec<Completion<B>>,
    ) -> io::Result<usize> {
        self.getevents_min_wait(min_nr, nr, Duration::ZERO, timeout, done)
    }

    /// The same, but when `min_wait` has passed, one completion is enough:
    /// then it returns what is there, or waits for the first. A `min_wait` of
    /// zero is none.
    ///
    /// # Errors
    ///
    /// As [`getevents`](Self::getevents).
    pub fn getevents_min_wait(
        &mut self,
        min_nr: u32,
        nr: u32,
        min_wait: Duration,
        timeout: Option<Duration>,
        done: &mut Vec<Completion<B>>,
    ) -> io::Result<usize> {
        if min_nr > nr {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let in_flight = u32::try_from(self.in_flight()).unwrap_or(u32::MAX);
        let (min_nr, nr) = (min_nr.min(in_flight), nr.min(in_flight));
        if self.ring.len() >= min_nr {
            return Ok(self.reap(nr, done));
        }
        self.events.clear();
        self.events.reserve(nr as usize);
        let room = &mut self.events.spare_capacity_mut()[..nr as usize];
        let events = room.as_mut_ptr().cast();
        // SAFETY: there is room for `nr` events.
        let n = unsafe {
            self.link
                .calls
                .getevents(self.link.ctx, min_nr, nr, events, min_wait, timeout)
        }?;
        // SAFETY: the kernel has filled in that many.
        unsafe { self.events.set_len(n) };
        for event in self.events.drain(..) {
            done.extend(self.in_flight.complete(event));
        }
        Ok(n)
    }
}

impl<B: Memory> Drop for Context<B> {
    fn drop(&mut self) {
        if self.link.end().is_err() {
            // The kernel may still be at work on them.
            mem::forget(mem::replace(
                &mut self.in_flight,
                InFlight::with_capacity(0),
            ));
        }
    }
}

impl<B: Memory> fmt::Debug for Context<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("ctx", &format_args!("{:#x}", self.link.ctx))
            .field("ring", &self.ring)
            .field("in_flight", &self.in_flight.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        calls::{aio::Aio, fake::Fake},
        Builder,
    };
    use std::{
        fs::File,
        io::{Read, Seek, Write},
        os::{fd::AsFd, unix::fs::OpenOptionsExt},
        sync::atomic::Ordering,
    };

    /// A context over the kernel's own AIO, unless the host has none.
    fn context(aio: &Aio, nr_events: u32) -> Option<Context> {
        let setup = raio_setup {
            nr_events,
            ..Default::default()
        };
        match Context::new(Calls::Aio(aio.clone()), setup) {
            Ok(context) => Some(context),
            Err(e) => {
                assert_eq!(e.raw_os_error(), Some(libc::ENOSYS), "{e}");
                eprintln!("not run: this kernel has no AIO");
                None
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let Some(mut context) = context(&Aio::default(), 8) else {
            return;
        };
        let mut file = tempfile::tempfile().unwrap();
        let mut requests: Vec<_> = (0..8u64)
            .map(|i| {
                let mut buffer = Buffer::zeroed(512, 512);
                buffer.fill(i as u8 + 1);
                Request::write(&file, buffer, i * 512, i)
            })
            .collect();
        while !requests.is_empty() {
            context.submit(&mut requests).unwrap();
        }
        assert_eq!(context.in_flight(), 8);
        let mut done = Vec::new();
        assert_eq!(context.getevents(100, 100, None, &mut done).unwrap(), 8);
        assert_eq!(context.in_flight(), 0);
        assert!(done.iter().all(|c| *c.result.as_ref().unwrap() == 512));
        assert!(done.iter().all(|c| c.buffer[511] == c.user_data as u8 + 1));

        let mut all = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 8 * 512);

        // The end is within the last of these.
        let mut requests: Vec<_> = (0..8u64)
            .map(|i| Request::read(&file, vec![0; 512].into(), i * 512 + 256, i))
            .collect();
        assert_eq!(context.submit(&mut requests).unwrap(), 8);
        done.clear();
        while context.in_flight() > 0 {
            context.reap(3, &mut done);
        }
        for Completion {
            user_data,
            buffer,
            result,
        } in done
        {
            let at = user_data as usize * 512 + 256;
            let n = result.unwrap();
            assert_eq!(n, 512.min(all.len() - at));
            assert_eq!(&buffer[..n], &all[at..at + n]);
        }
    }

    #[test]
    fn a_refused_request_keeps_its_buffer() {
        let Some(mut context) = context(&Aio::default(), 8) else {
            return;
        };
        let good = tempfile::tempfile().unwrap();
        let bad = File::open("/dev/null").unwrap(); // not open for writing
        let mut requests = vec![
            Request::write(&good, b"one".to_vec().into(), 0, 1),
            Request::write(&bad, b"two".to_vec().into(), 0, 2),
            Request::write(&good, b"three".to_vec().into(), 3, 3),
        ];
        assert_eq!(context.submit(&mut requests).unwrap(), 1);
        assert_eq!((requests.len(), context.in_flight()), (2, 1));
        let e = context.submit(&mut requests).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EBADF));
        assert_eq!((requests.len(), context.in_flight()), (2, 1));
        assert_eq!(&*requests.remove(0).into_buffer(), b"two");
        assert_eq!(context.submit(&mut requests).unwrap(), 1);
        assert_eq!(context.submit(&mut requests).unwrap(), 0);

        let mut done = Vec::new();
        assert_eq!(context.getevents(2, 5, None, &mut done).unwrap(), 2);
        done.sort_by_key(|c| c.user_data);
        assert_eq!(&*done[0].buffer, b"one");
        assert_eq!(&*done[1].buffer, b"three");
    }

    #[test]
    fn an_error_comes_with_the_completion() {
        let Some(mut context) = context(&Aio::default(), 1) else {
            return;
        };
        let directory = File::open("/").unwrap();
        let mut requests = vec![Request::read(&directory, vec![0; 8].into(), 0, 9)];
        let mut done = Vec::new();
        match context.submit(&mut requests) {
            Ok(_) => {
                assert_eq!(context.getevents(1, 1, None, &mut done).unwrap(), 1);
                let e = done[0].result.as_ref().unwrap_err();
                assert_eq!(e.raw_os_error(), Some(libc::EISDIR));
            }
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::EINVAL)),
        }
        let e = context.getevents(2, 1, None, &mut done).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn waiting_ends_in_time() {
        let Some(mut context) = context(&Aio::default(), 4) else {
            return;
        };
        let mut done = Vec::new();
        // Nothing is in flight: nothing is waited for.
        assert_eq!(context.getevents(1, 4, None, &mut done).unwrap(), 0);
        // Put one in flight that has ended already: two can't come.
        let file = tempfile::tempfile().unwrap();
        let mut requests = vec![Request::read(&file, vec![0; 8].into(), 0, 0)];
        context.submit(&mut requests).unwrap();
        let soon = Some(Duration::from_millis(1));
        assert_eq!(context.getevents(4, 4, soon, &mut done).unwrap(), 1);
        assert_eq!(*done[0].result.as_ref().unwrap(), 0);
    }

    #[test]
    fn drop_waits_for_the_io() {
        let Some(mut context) = context(&Aio::default(), 64) else {
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        File::create(&path)
            .unwrap()
            .write_all(&vec![3; 64 << 12])
            .unwrap();
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path)
            .or_else(|_| File::open(&path))
            .unwrap();
        let mut requests: Vec<_> = (0..64)
            .map(|i| Request::read(&file, Buffer::zeroed(4096, 4096), i << 12, i))
            .collect();
        assert!(context.submit(&mut requests).unwrap() > 0);
        drop(context);
    }

    #[test]
    fn buffers_are_leaked_if_destroy_fails() {
        let aio = Aio::default();
        let Some(mut context) = context(&aio, 1) else {
            return;
        };
        let file = tempfile::tempfile().unwrap();
        let buffer = Buffer::from(b"stays".to_vec());
        let mut requests = vec![Request::write(&file, buffer, 0, 0)];
        let address = requests[0].memory.as_ptr();
        context.submit(&mut requests).unwrap();
        aio.refuse_destroy.store(true, Ordering::Relaxed);
        drop(context);
        // SAFETY: it must not have been freed; address sanitizers tell.
        assert_eq!(unsafe { *address }, b's');
    }

    #[test]
    fn files_are_numbered() {
        let fake = Fake::default();
        let context: Context = Builder::new(Calls::Fake(fake.clone()), 1)
            .files(4)
            .setup()
            .unwrap();
        let file = File::open("/dev/null").unwrap();
        let fd = file.as_raw_fd();
        let some = Some(file.as_fd());
        assert_eq!(context.set_files(1, &[some, None, some]).unwrap(), 3);
        assert_eq!(context.set_files(1, &[None]).unwrap(), 1);
        assert_eq!(fake.state().files, [-1, -1, -1, fd]);
        let e = context.set_files(3, &[some, some]).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn may_be_sent() {
        fn is_send<T: Send>() {}
        is_send::<Context>();
        is_send::<Request<'_>>();
    }
}
