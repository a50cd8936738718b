// SPDX-License-Identifier: GPL-2.0
//! The memory of a request. Relies on the allocator alone.

use std::{
    alloc::{self, Layout},
    fmt,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    slice,
};

/// Bytes on the heap that keep their address, aligned as the file wants it.
///
/// Make one with [`zeroed`](Self::zeroed) for files opened with `O_DIRECT`,
/// or take a `Vec<u8>` (no copy is made; it is aligned as the `Vec` was).
pub struct Buffer {
    start: NonNull<u8>,
    len: usize,
    /// What was allocated; of size 0 if nothing was.
    layout: Layout,
}

// SAFETY: it owns its bytes, as a `Vec` does.
unsafe impl Send for Buffer {}
// SAFETY: a shared reference gives no more than a `&[u8]`.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` zeroes at a multiple of `align`.
    ///
    /// # Panics
    ///
    /// If `align` is not a power of two, or `len` is over `isize::MAX` when
    /// rounded up to it.
    pub fn zeroed(len: usize, align: usize) -> Self {
        let layout = Layout::from_size_align(len, align).expect("a size and alignment that exist");
        if len == 0 {
            return Self::default();
        }
        // SAFETY: the size is not 0.
        let start = unsafe { alloc::alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else {
            alloc::handle_alloc_error(layout)
        };
        Self { start, len, layout }
    }

    /// Where it is, for as long as nobody uses it by its own means.
    pub(crate) fn start(&mut self) -> NonNull<u8> {
        self.start
    }
}

impl Default for Buffer {
    /// An empty buffer.
    fn default() -> Self {
        Vec::new().into()
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        let mut bytes = ManuallyDrop::new(bytes);
        Self {
            start: NonNull::new(bytes.as_mut_ptr()).expect("a Vec's pointer is not null"),
            len: bytes.len(),
            layout: Layout::array::<u8>(bytes.capacity()).expect("a Vec has a layout"),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.layout.size() != 0 {
            // SAFETY: allocated with this layout, by us or by the `Vec`.
            unsafe { alloc::dealloc(self.start.as_ptr(), self.layout) }
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the first `len` bytes are ours and have values.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; and `self` is borrowed for writing.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("start", &self.start)
            .field("len", &self.len)
            .field("align", &self.layout.align())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_and_zero() {
        for (len, align) in [(1, 512), (4096, 4096), (5000, 1), (0, 4096)] {
            let mut buffer = Buffer::zeroed(len, align);
            assert_eq!(buffer.len(), len);
            assert!(len == 0 || buffer.as_ptr() as usize % align == 0);
            assert!(buffer.iter().all(|&b| b == 0));
            buffer.fill(7);
            assert!(buffer.iter().all(|&b| b == 7));
        }
    }

    #[test]
    fn a_vec_is_taken_as_it_is() {
        let mut bytes = Vec::with_capacity(100);
        bytes.extend_from_slice(b"hello");
        let address = bytes.as_ptr();
        let buffer = Buffer::from(bytes);
        assert_eq!(&*buffer, b"hello");
        assert_eq!(buffer.as_ptr(), address);
        assert!(Buffer::default().is_empty());
    }

    #[test]
    #[should_panic(expected = "alignment")]
    fn no_odd_alignment() {
        Buffer::zeroed(10, 3);
    }
}
