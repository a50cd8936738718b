// SPDX-License-Identifier: GPL-2.0
//! Memory that is registered with a context, and parts of it.
//!
//! Relies on [`Link`] to tell the module, and on the module not to write to it but
//! by a request.

use crate::{
    link::Link,
    memory::{Owned, Place},
    Buffer,
};
use std::{
    fmt, mem,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    slice,
    sync::Arc,
};

/// A buffer that is registered, and under which number.
struct Region {
    buffer: Buffer,
    /// None when it is not registered any more.
    number: Option<u32>,
    link: Arc<Link>,
}

impl Region {
    /// No part is left, or in flight: unregisters the buffer, and gives it back if
    /// that leaves it to the program alone.
    fn end(&mut self) -> Option<Buffer> {
        let number = self.number.take()?;
        let buffer = mem::take(&mut self.buffer);
        if self.link.unregister(number) {
            Some(buffer)
        } else {
            // Requests could still go to these pages.
            mem::forget(buffer);
            None
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        drop(self.end());
    }
}

/// A registered buffer, or a part of one: bytes that requests find without looking
/// for the pages.
///
/// [`Context::register`](crate::Context::register) makes it of a [`Buffer`], and a
/// request of that context takes it, as it takes a buffer. It can be split into
/// parts for several requests. When the last part is dropped, it is unregistered
/// and freed; its pages are charged until the module lets go of them, a little
/// later. It may outlive the context; then it is memory like any other.
///
/// A request on another context gets `EFAULT`.
///
/// ```no_run
/// use raio::{Buffer, Context, Device, Registered, Request};
/// use std::fs::File;
///
/// # fn main() -> std::io::Result<()> {
/// let device = Device::open()?;
/// let mut context: Context<Registered> = device.builder(32).buffers(1).setup()?;
/// let file = File::open("/etc/services")?;
///
/// let all = context.register(Buffer::zeroed(32 * 4096, 4096))?;
/// let mut batch = context.batch();
/// for (block, part) in (0..).zip(all.into_parts(4096)) {
///     if batch.push(Request::read(&file, part, block * 4096, block)).is_err() {
///         break;
///     }
/// }
/// batch.enter(1, None)?;
/// while let Some(completion) = batch.pop() {
///     let bytes = &completion.buffer[..completion.result?];
///     println!("block {} begins with {:?}", completion.user_data, bytes.first());
/// }
/// # Ok(())
/// # }
/// ```
///
/// What is in flight can't be used, nor be unregistered:
///
/// ```compile_fail,E0382
/// # use raio::{Buffer, Context, Registered, Request};
/// # fn f(context: &mut Context<Registered>, file: &std::fs::File, buffer: Registered) {
/// let mut batch = context.batch();
/// let _ = batch.push(Request::read(file, buffer, 0, 0));
/// let _ = buffer.unregister();
/// # }
/// ```
///
/// and a part is in one request only:
///
/// ```compile_fail,E0382
/// # use raio::{Buffer, Context, Registered, Request};
/// # fn f(context: &mut Context<Registered>, file: &std::fs::File, buffer: Registered) {
/// let (one, other) = buffer.cut(512);
/// let mut batch = context.batch();
/// let _ = batch.push(Request::read(file, one, 0, 0));
/// let _ = batch.push(Request::read(file, one, 512, 1));
/// # }
/// ```
pub struct Registered {
    start: NonNull<u8>,
    len: usize,
    number: u32,
    /// None if it is empty and of no buffer.
    region: Option<Arc<Region>>,
}

// SAFETY: its bytes are its own, as those of a `Buffer`; the region is shared by
// means that threads may share.
unsafe impl Send for Registered {}
// SAFETY: a shared reference gives no more than a `&[u8]`.
unsafe impl Sync for Registered {}

impl Registered {
    /// `buffer` is registered under `number`.
    pub(crate) fn new(mut buffer: Buffer, number: u32, link: Arc<Link>) -> Self {
        Self {
            start: buffer.start(),
            len: buffer.len(),
            number,
            region: Some(Arc::new(Region {
                buffer,
                number: Some(number),
                link,
            })),
        }
    }

    /// The first `mid` bytes, and the others.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn cut(mut self, mid: usize) -> (Self, Self) {
        assert!(mid <= self.len, "{mid} of {} bytes", self.len);
        let other = Self {
            // SAFETY: that is still in the buffer, or its end.
            start: unsafe { self.start.add(mid) },
            len: self.len - mid,
            number: self.number,
            region: self.region.clone(),
        };
        self.len = mid;
        (self, other)
    }

    /// Parts of `size` bytes each, of which the last may be shorter.
    ///
    /// # Panics
    ///
    /// If `size` is 0.
    pub fn into_parts(self, size: usize) -> impl Iterator<Item = Self> {
        assert!(size > 0, "parts of no bytes");
        let mut rest = self;
        std::iter::from_fn(move || {
            let size = size.min(rest.len);
            if size == 0 {
                return None;
            }
            let (part, others) = mem::take(&mut rest).cut(size);
            rest = others;
            Some(part)
        })
    }

    /// This and `other` in one, if they are parts of the same buffer, and `other` begins
    /// where this ends.
    ///
    /// # Errors
    ///
    /// Both, if they aren't.
    pub fn merge(mut self, other: Self) -> Result<Self, (Self, Self)> {
        let same = match (&self.region, &other.region) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        if !same || self.start.as_ptr().wrapping_add(self.len) != other.start.as_ptr() {
            return Err((self, other));
        }
        self.len += other.len;
        Ok(self)
    }

    /// Unregisters it, and gives the whole buffer back of which this is the last part.
    ///
    /// # Errors
    ///
    /// The part itself, if there are others.
    pub fn unregister(mut self) -> Result<Buffer, Self> {
        let Some(region) = &mut self.region else {
            return Ok(Buffer::default());
        };
        match Arc::get_mut(region) {
            // The module lets go of what isn't in flight. Did it not, this was empty.
            Some(region) => Ok(region.end().unwrap_or_default()),
            None => Err(self),
        }
    }
}

impl Default for Registered {
    /// An empty one.
    fn default() -> Self {
        Self {
            start: NonNull::dangling(),
            len: 0,
            number: 0,
            region: None,
        }
    }
}

// SAFETY: the bytes are on the heap, and those of this part are only its own.
unsafe impl Owned for Registered {
    #[inline]
    fn place(&mut self) -> Place {
        Place {
            start: self.start.as_ptr() as usize as u64,
            len: self.len as u64,
            vectored: false,
            // The module finds no bytes in no buffer.
            number: (self.len > 0).then_some(self.number),
        }
    }
}

impl Deref for Registered {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: they are in the buffer that the region keeps, are this part's
        // alone, and have values.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Registered {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; and `self` is borrowed for writing.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered")
            .field("start", &self.start)
            .field("len", &self.len)
            .field("number", &self.number)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        calls::{fake::Fake, Calls},
        Builder, Context, FileNumber, Request,
    };
    use std::io;

    fn context(fake: &Fake) -> Context<Registered> {
        Builder::new(Calls::Fake(fake.clone()), 8)
            .buffers(2)
            .setup()
            .unwrap()
    }

    /// How many are registered.
    fn registered(fake: &Fake) -> usize {
        let state = fake.state();
        state.buffers.iter().filter(|buffer| buffer.len > 0).count()
    }

    #[test]
    fn a_request_takes_it_and_gives_it_back() {
        let fake = Fake::default();
        let mut context = context(&fake);
        let _first = context.register(Buffer::zeroed(100, 1)).unwrap();
        let buffer = context.register(Buffer::zeroed(4096, 512)).unwrap();
        let start = buffer.as_ptr() as usize as u64;
        let (_, part) = buffer.cut(512);
        let mut batch = context.batch();
        batch
            .push(Request::read(FileNumber(3), part, 0, 0))
            .unwrap();
        batch.enter(0, None).unwrap();
        {
            let mut state = fake.state();
            assert_eq!(state.buffers[1].addr, start);
            let iocb = &state.in_flight[0];
            assert_eq!((iocb.aio_buf, iocb.aio_nbytes), (start + 512, 3584));
            assert_eq!(iocb.aio_reserved2, 1);
            use crate::sys::{RAIO_IOCB_FIXED_BUF, RAIO_IOCB_FIXED_FILE};
            assert_eq!(iocb.aio_flags, RAIO_IOCB_FIXED_BUF | RAIO_IOCB_FIXED_FILE);
            state.end(7);
        }
        let buffer = batch.pop().unwrap().buffer;
        assert_eq!(buffer.len(), 3584);
        assert!(buffer.iter().all(|&byte| byte == 7));
    }

    #[test]
    fn the_last_part_unregisters_it() {
        let fake = Fake::default();
        let mut context = context(&fake);
        let buffer = context.register(Buffer::zeroed(100, 1)).unwrap();
        let mut parts: Vec<_> = buffer.into_parts(30).collect();
        let lens: Vec<_> = parts.iter().map(|part| part.len()).collect();
        assert_eq!(lens, [30, 30, 30, 10]);
        let in_flight = parts.pop().unwrap();
        let mut batch = context.batch();
        batch
            .push(Request::read(FileNumber(0), in_flight, 0, 0))
            .unwrap();
        batch.enter(0, None).unwrap();
        drop(batch);
        drop(parts);
        assert_eq!(registered(&fake), 1);
        fake.state().end(1);
        drop(context.pop());
        assert_eq!(registered(&fake), 0);
    }

    #[test]
    fn it_goes_with_its_batch() {
        let fake = Fake::default();
        let mut context = context(&fake);
        let buffer = context.register(Buffer::zeroed(100, 1)).unwrap();
        let mut batch = context.batch();
        batch
            .push(Request::read(FileNumber(0), buffer, 0, 0))
            .unwrap();
        assert_eq!(registered(&fake), 1);
        drop(batch);
        assert_eq!(registered(&fake), 0);
    }

    #[test]
    fn parts_are_merged() {
        let fake = Fake::default();
        let context = context(&fake);
        let (one, two) = context.register(Buffer::zeroed(8, 1)).unwrap().cut(4);
        let (two, three) = two.cut(2);
        let (one, three) = one.merge(three).unwrap_err();
        let foreign = context.register(Buffer::zeroed(8, 1)).unwrap();
        let (one, _foreign) = one.merge(foreign).unwrap_err();
        let one = one.unregister().unwrap_err();
        let mut all = one.merge(two).unwrap().merge(three).unwrap();
        all.fill(3);
        let buffer = all.unregister().unwrap();
        assert_eq!(&*buffer, [3; 8]);
        assert!(Registered::default().merge(Registered::default()).is_err());
        assert!(Registered::default().unregister().unwrap().is_empty());
    }

    #[test]
    fn numbers_are_used_again() {
        let fake = Fake::default();
        let context = context(&fake);
        let one = context.register(Buffer::zeroed(8, 1)).unwrap();
        let two = context.register(Buffer::zeroed(8, 1)).unwrap();
        let e = context.register(Buffer::zeroed(8, 1)).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ENOSPC));
        assert_eq!((one.number, two.number), (0, 1));
        drop(one);
        assert_eq!(context.register(Buffer::zeroed(8, 1)).unwrap().number, 0);
        // One that the module refuses isn't used up.
        fake.state().refuse_buffers = true;
        assert!(context.register(Buffer::zeroed(8, 1)).is_err());
        fake.state().refuse_buffers = false;
        assert_eq!(context.register(Buffer::zeroed(8, 1)).unwrap().number, 0);
    }

    #[test]
    fn it_may_outlive_the_context() {
        let fake = Fake::default();
        let context = context(&fake);
        let mut buffer = context.register(Buffer::zeroed(8, 1)).unwrap();
        let other = context.register(Buffer::zeroed(8, 1)).unwrap();
        drop(context);
        buffer.fill(5);
        drop(buffer);
        assert_eq!(other.unregister().unwrap().len(), 8);
        // Nobody has told the module, which has forgotten them.
        assert_eq!(registered(&fake), 2);
    }

    /// What the module won't let go isn't freed, nor is its number used.
    #[test]
    fn it_is_leaked_if_it_stays_registered() -> io::Result<()> {
        let fake = Fake::default();
        let context = context(&fake);
        let buffer = context.register(Buffer::zeroed(8, 1))?;
        let address = buffer.as_ptr();
        let other = context.register(Buffer::zeroed(8, 1))?;
        fake.state().refuse_buffers = true;
        drop(buffer);
        assert!(other.unregister().unwrap().is_empty());
        // SAFETY: it must not have been freed; address sanitizers tell.
        assert_eq!(unsafe { *address }, 0);
        fake.state().refuse_buffers = false;
        let e = context.register(Buffer::zeroed(8, 1)).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ENOSPC));
        Ok(())
    }

    #[test]
    fn may_be_sent() {
        fn is_send<T: Send + Sync>() {}
        is_send::<Registered>();
    }
}
