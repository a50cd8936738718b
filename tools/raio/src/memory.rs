// SPDX-License-Identifier: GPL-2.0
//! What the memory of a request may be.

use crate::{Buffer, Registered};
use std::ops::{Deref, DerefMut};

/// Where memory is, as an iocb says it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) start: u64,
    /// How many bytes, or how many buffers.
    pub(crate) len: u64,
    pub(crate) vectored: bool,
    /// Which registered buffer it is in.
    pub(crate) number: Option<u32>,
}

/// # Safety
///
/// What `place` returns is true until the value is used or dropped, and
/// remains so when it is moved. Nothing else leads to that memory.
pub(crate) unsafe trait Owned {
    fn place(&mut self) -> Place;
}

/// What a request reads into or writes from, and a [`Completion`] gives back:
/// [`Buffer`], [`Registered`], [`Vectored`], or [`Mixed`] for requests of several
/// kinds in one context.
///
/// A request that needs none has the default, which is empty.
///
/// [`Completion`]: crate::Completion
#[allow(private_bounds)]
pub trait Memory: Owned + Default {}

impl<T: Owned + Default> Memory for T {}

// SAFETY: its bytes are on the heap, and its own.
unsafe impl Owned for Buffer {
    #[inline]
    fn place(&mut self) -> Place {
        Place {
            start: self.as_mut_ptr() as usize as u64,
            len: self.len() as u64,
            vectored: false,
            number: None,
        }
    }
}

/// Buffers that are read into, or written from, one after another, as by
/// readv(2). At most 1024.
#[derive(Debug, Default)]
pub struct Vectored {
    buffers: Vec<Buffer>,
    /// A `struct iovec` each, kept so that it isn't allocated for each request.
    vector: Vec<[usize; 2]>,
}

impl From<Vec<Buffer>> for Vectored {
    fn from(buffers: Vec<Buffer>) -> Self {
        let vector = Vec::with_capacity(buffers.len());
        Self { buffers, vector }
    }
}

impl From<Vectored> for Vec<Buffer> {
    fn from(vectored: Vectored) -> Self {
        vectored.buffers
    }
}

impl Deref for Vectored {
    type Target = Vec<Buffer>;

    fn deref(&self) -> &Vec<Buffer> {
        &self.buffers
    }
}

impl DerefMut for Vectored {
    fn deref_mut(&mut self) -> &mut Vec<Buffer> {
        &mut self.buffers
    }
}

// SAFETY: the vector and the buffers are on the heap, and its own.
unsafe impl Owned for Vectored {
    fn place(&mut self) -> Place {
        self.vector.clear();
        let buffers = self.buffers.iter_mut();
        self.vector
            .extend(buffers.map(|buffer| [buffer.as_mut_ptr() as usize, buffer.len()]));
        Place {
            start: self.vector.as_ptr() as usize as u64,
            len: self.vector.len() as u64,
            vectored: true,
            number: None,
        }
    }
}

/// Memory of any kind.
#[derive(Debug, Default)]
pub enum Mixed {
    /// None, as for an fsync.
    #[default]
    None,
    /// One buffer.
    Buffer(Buffer),
    /// One that is registered, or a part.
    Registered(Registered),
    /// Several.
    Vectored(Vectored),
}

impl From<Buffer> for Mixed {
    fn from(buffer: Buffer) -> Self {
        Self::Buffer(buffer)
    }
}

impl From<Registered> for Mixed {
    fn from(buffer: Registered) -> Self {
        Self::Registered(buffer)
    }
}

impl From<Vectored> for Mixed {
    fn from(vectored: Vectored) -> Self {
        Self::Vectored(vectored)
    }
}

// SAFETY: each is.
unsafe impl Owned for Mixed {
    #[inline]
    fn place(&mut self) -> Place {
        match self {
            Self::None => Place {
                start: 0,
                len: 0,
                vectored: false,
                number: None,
            },
            Self::Buffer(buffer) => buffer.place(),
            Self::Registered(buffer) => buffer.place(),
            Self::Vectored(vectored) => vectored.place(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_follows_its_buffers() {
        assert_eq!(size_of::<[usize; 2]>(), size_of::<libc::iovec>());
        let mut vectored = Vectored::from(vec![Buffer::zeroed(1, 1)]);
        assert_eq!(vectored.place().len, 1);
        vectored.push(Buffer::zeroed(2, 1));
        vectored[0] = Buffer::zeroed(3, 1);
        assert_eq!(vectored.place().len, 2);
        assert_eq!(vectored.vector[0], [vectored[0].as_ptr() as usize, 3]);
        assert_eq!(Vec::from(vectored).len(), 2);
    }

    #[test]
    fn mixed_is_what_is_in_it() {
        let mut none = Mixed::default();
        assert_eq!(none.place().len, 0);
        let mut buffer = Mixed::from(Buffer::zeroed(9, 1));
        let place = buffer.place();
        assert_eq!((place.len, place.vectored), (9, false));
        let mut registered = Mixed::from(Registered::default());
        assert_eq!(registered.place().len, 0);
        let mut vectored = Mixed::from(Vectored::default());
        assert!(vectored.place().vectored);
    }
}
