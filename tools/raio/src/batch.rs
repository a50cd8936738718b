// SPDX-License-Identifier: GPL-2.0
//! Requests that are put straight into the submission array, and started from
//! there. Relies on [`Context`] to hold their memory.

use crate::{in_flight::Name, memory::Memory, Buffer, Completion, Context, Request};
use std::{io, marker::PhantomData, time::Duration};

/// Requests that are being put together, and the call that starts them and waits.
///
/// The files of the requests must stay open until it is gone, or at least until
/// nothing is done with it any more; what is started by then goes on without them.
/// Dropping it drops the requests that were not started. To do something else with the
/// context, drop it: the next one costs nothing.
///
/// ```no_run
/// use raio::{Buffer, Context, Device, Request};
/// use std::fs::File;
///
/// # fn main() -> std::io::Result<()> {
/// let mut context: Context = Device::open()?.setup(32)?;
/// let file = File::open("/etc/services")?;
/// let mut batch = context.batch();
/// for block in 0..4 {
///     let request = Request::read(&file, Buffer::zeroed(4096, 1), block * 4096, block);
///     if batch.push(request).is_err() {
///         break; // The submission array is full.
///     }
/// }
/// batch.enter(1, None)?;
/// while let Some(completion) = batch.pop() {
///     println!("block {}: {} bytes", completion.user_data, completion.result?);
/// }
/// # Ok(())
/// # }
/// ```
///
/// A buffer belongs to the request from then on:
///
/// ```compile_fail,E0382
/// # use raio::{Buffer, Context, Request};
/// # fn f(context: &mut Context, file: &std::fs::File) {
/// let buffer = Buffer::zeroed(4096, 1);
/// let mut batch = context.batch();
/// let _ = batch.push(Request::read(file, buffer, 0, 0));
/// println!("{}", buffer[0]);
/// # }
/// ```
///
/// so it can't be in two:
///
/// ```compile_fail,E0382
/// # use raio::{Buffer, Context, Request};
/// # fn f(context: &mut Context, file: &std::fs::File) {
/// let buffer = Buffer::zeroed(4096, 1);
/// let mut batch = context.batch();
/// let _ = batch.push(Request::read(file, buffer, 0, 0));
/// let _ = batch.push(Request::read(file, buffer, 4096, 1));
/// # }
/// ```
///
/// and a file can't be closed before its requests are started:
///
/// ```compile_fail,E0505
/// # use raio::{Buffer, Context, Request};
/// # fn f(context: &mut Context, file: std::fs::File) {
/// let mut batch = context.batch();
/// let _ = batch.push(Request::read(&file, Buffer::zeroed(4096, 1), 0, 0));
/// drop(file);
/// let _ = batch.enter(1, None);
/// # }
/// ```
#[derive(Debug)]
pub struct Batch<'c, 'fd, B: Memory = Buffer> {
    context: &'c mut Context<B>,
    files: PhantomData<Request<'fd, B>>,
}

impl<'c, 'fd, B: Memory> Batch<'c, 'fd, B> {
    #[inline]
    pub(crate) fn new(context: &'c mut Context<B>) -> Self {
        Self {
            context,
            files: PhantomData,
        }
    }

    /// Puts a request behind the others. It is started by [`enter`](Self::enter).
    ///
    /// # Errors
    ///
    /// The request itself, if the submission array is full.
    #[inline]
    pub fn push(&mut self, request: Request<'fd, B>) -> Result<Name, Request<'fd, B>> {
        self.context.push(request)
    }

    /// How many requests were put in and are not started.
    pub fn len(&self) -> u32 {
        self.context.queued().0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many more can be put in.
    pub fn room(&self) -> u32 {
        let (queued, capacity) = self.context.queued();
        capacity - queued
    }

    /// Starts the requests, in their order, and waits until `min` completions can be
    /// taken, as many as are in flight at most, or `timeout` (if any) has passed.
    /// Returns how many requests were started; if that isn't all, it hasn't waited,
    /// and the rest is left as it was. There is no call into the kernel if there is no
    /// request and enough completions are there already.
    ///
    /// What ended the wait isn't told, unless there was no request.
    ///
    /// # Errors
    ///
    /// Why the first request was refused, as io_submit(2) does. It is still the
    /// first: [`withdraw`](Self::withdraw) takes it out. `EAGAIN` is no fault of it:
    /// as many are there or in flight as the context has room for. Take completions, or
    /// [wait](Self::wait) for them.
    ///
    /// Without a request, `EINTR` if a signal came before so many completions.
    #[inline]
    pub fn enter(&mut self, min: u32, timeout: Option<Duration>) -> io::Result<u32> {
        self.context.enter(min, timeout)
    }

    /// As [`Context::wait`]: starts nothing.
    ///
    /// # Errors
    ///
    /// Those of it.
    pub fn wait(&mut self, min: u32, timeout: Option<Duration>) -> io::Result<()> {
        self.context.wait(min, timeout)
    }

    /// Takes the first request out that was not started, and gives its user data and
    /// its buffer back.
    pub fn withdraw(&mut self) -> Option<(u64, B)> {
        self.context.withdraw()
    }

    /// As [`Context::pop`].
    #[inline]
    pub fn pop(&mut self) -> Option<Completion<B>> {
        self.context.pop()
    }

    /// As [`Context::in_flight`].
    pub fn in_flight(&self) -> usize {
        self.context.in_flight()
    }
}

impl<B: Memory> Drop for Batch<'_, '_, B> {
    #[inline]
    fn drop(&mut self) {
        self.context.withdraw_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        calls::{fake::Fake, Calls},
        Builder, Mixed,
    };
    use std::{fs::File, mem, sync::LazyLock};

    static FILE: LazyLock<File> = LazyLock::new(|| File::open("/dev/null").unwrap());

    fn context<B: Memory>(nr_events: u32, submission: u32) -> (Fake, Context<B>) {
        let fake = Fake::default();
        let context = Builder::new(Calls::Fake(fake.clone()), nr_events)
            .submission(submission)
            .setup();
        (fake, context.unwrap())
    }

    fn read(user_data: u64) -> Request<'static> {
        Request::read(&*FILE, Buffer::zeroed(16, 1), 0, user_data)
    }

    /// More laps than one, of batches that don't divide the array.
    #[test]
    fn goes_around() {
        let (fake, mut context) = context(8, 5);
        for user_data in (0..60).step_by(3) {
            let mut batch = context.batch();
            for i in 0..3 {
                assert_eq!(batch.room(), 5 - i);
                batch.push(read(user_data + u64::from(i))).unwrap();
            }
            assert_eq!((batch.len(), batch.in_flight()), (3, 0));
            assert_eq!(batch.enter(0, None).unwrap(), 3);
            assert!(batch.is_empty());
            assert_eq!(batch.in_flight(), 3);
            for i in 0..3 {
                fake.state().end(i);
                let done = batch.pop().unwrap();
                assert_eq!(done.user_data, user_data + u64::from(i));
                assert_eq!(done.result.unwrap(), 16);
                assert!(done.buffer.iter().all(|&byte| byte == i));
            }
            assert!(batch.pop().is_none());
        }
    }

    #[test]
    fn a_full_array_gives_the_request_back() {
        let (_fake, mut context) = context(8, 2);
        let mut batch = context.batch();
        assert!(batch.push(read(0)).is_ok());
        assert!(batch.push(read(1)).is_ok());
        let request = batch.push(read(2)).unwrap_err();
        assert_eq!(request.into_buffer().len(), 16);
        assert_eq!(batch.enter(0, None).unwrap(), 2);
        assert!(batch.push(read(2)).is_ok());
    }

    #[test]
    fn without_an_array() {
        let (_fake, mut context) = context(8, 0);
        let mut batch = context.batch();
        assert_eq!(batch.room(), 0);
        assert!(batch.push(read(0)).is_err());
        assert_eq!(batch.enter(1, None).unwrap(), 0);
    }

    #[test]
    fn what_is_refused_stays() {
        let (fake, mut context) = context(8, 8);
        let mut batch = context.batch();
        for user_data in 0..3 {
            batch.push(read(user_data)).unwrap();
        }
        fake.state().takes = Some(1);
        assert_eq!(batch.enter(3, None).unwrap(), 1);
        fake.state().takes = Some(0);
        let e = batch.enter(3, None).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EBADF));
        assert_eq!((batch.len(), batch.in_flight()), (2, 1));
        let (user_data, buffer) = batch.withdraw().unwrap();
        assert_eq!((user_data, buffer.len()), (1, 16));
        fake.state().takes = None;
        assert_eq!(batch.enter(0, None).unwrap(), 1);
        assert!(batch.withdraw().is_none());
        fake.state().end(1);
        fake.state().end(1);
        assert_eq!(batch.pop().unwrap().user_data, 0);
        assert_eq!(batch.pop().unwrap().user_data, 2);
    }

    /// No more is waited for than can come, and nothing that is there.
    #[test]
    fn waits_for_what_can_come() {
        let (fake, mut context) = context(8, 8);
        let mut batch = context.batch();
        batch.push(read(0)).unwrap();
        batch.push(read(1)).unwrap();
        batch.enter(5, None).unwrap();
        fake.state().end(0);
        batch.enter(1, None).unwrap();
        batch.enter(9, Some(Duration::ZERO)).unwrap();
        batch.push(read(2)).unwrap();
        batch.wait(9, None).unwrap();
        drop(batch);
        context.wait(1, None).unwrap();
        context.wait(2, None).unwrap();
        assert_eq!(fake.state().calls, [(2, 2), (0, 2), (0, 2), (0, 2)]);
    }

    /// Dropped or forgotten: what wasn't started won't be.
    #[test]
    fn the_rest_is_dropped() {
        let (fake, mut context) = context(8, 8);
        for forget in [false, true] {
            let mut batch = context.batch();
            batch.push(read(0)).unwrap();
            if forget {
                mem::forget(batch);
            }
        }
        context.wait(1, None).unwrap();
        assert!(fake.state().calls.is_empty());
        let mut batch = context.batch();
        mem::forget({
            batch.push(read(1)).unwrap();
            batch
        });
        let mut batch = context.batch();
        batch.push(read(2)).unwrap();
        batch.enter(0, None).unwrap();
        drop(batch);
        fake.state().end(0);
        assert_eq!(context.pop().unwrap().user_data, 2);
    }

    #[test]
    fn kinds_of_memory() {
        let (fake, mut context) = context::<Mixed>(8, 8);
        let mut batch = context.batch();
        let buffer = Mixed::from(Buffer::zeroed(16, 1));
        batch.push(Request::write(&*FILE, buffer, 0, 0)).unwrap();
        batch.push(Request::fsync(&*FILE, 1)).unwrap();
        batch.push(Request::noop(2)).unwrap();
        batch.enter(0, None).unwrap();
        for _ in 0..3 {
            fake.state().end(0);
        }
        assert!(matches!(batch.pop().unwrap().buffer, Mixed::Buffer(_)));
        assert!(matches!(batch.pop().unwrap().buffer, Mixed::None));
        assert!(matches!(batch.pop().unwrap().buffer, Mixed::None));
    }

    /// The module has the memory until the context is destroyed.
    #[test]
    fn dropped_in_flight() {
        for refuse in [false, true] {
            let (fake, mut context) = context(8, 8);
            fake.state().refuse_destroy = refuse;
            let mut batch = context.batch();
            batch.push(read(0)).unwrap();
            batch.enter(0, None).unwrap();
            batch.push(read(1)).unwrap();
            drop(batch);
            drop(context);
            assert_eq!(fake.state().destroyed, !refuse);
            if refuse {
                // It has not been freed; address sanitizers tell.
                fake.state().end(1);
            }
        }
    }
}
