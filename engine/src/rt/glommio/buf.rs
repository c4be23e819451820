//! Owns the memory of direct I/O: 4 KiB aligned buffers, shared by both runtimes.
//! Does not know files.
//! Invariant: a buffer always comes from the global allocator, never from an executor's registered memory, so it may
//! move to another thread.

use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use ::glommio::io::DmaBuffer;

/// Memory aligned to 4 KiB, for direct writes.
#[derive(Debug)]
#[repr(transparent)]
pub struct DirectBuf(DmaBuffer);

// SAFETY: the only constructor takes the memory from the global allocator; the buffer is then a plain owned allocation.
// (The type is not Send by itself because other values of it point into the rings of one executor.)
unsafe impl Send for DirectBuf {}

impl DirectBuf {
    /// `len` bytes (at least one) of unspecified content: old heap bytes. The caller overwrites or zeroes all that it
    /// writes to disk.
    pub fn with_len(len: usize) -> Self {
        assert!(len > 0, "an empty buffer has no memory");
        DirectBuf(::glommio::allocate_dma_buffer_global(len))
    }

    /// `len` bytes (at least one), all zero.
    pub fn zeroed(len: usize) -> Self {
        let mut b = Self::with_len(len);
        b.fill(0);
        b
    }

    /// Shortens to `len` bytes; cannot be undone.
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.0.len(), "a buffer cannot grow");
        self.0.trim_to_size(len);
    }

    pub(in crate::rt) fn into_shared(this: Rc<DirectBuf>) -> Rc<DmaBuffer> {
        // SAFETY: DirectBuf is a transparent wrapper, so the two have the same layout.
        unsafe { Rc::from_raw(Rc::into_raw(this).cast::<DmaBuffer>()) }
    }
}

impl Deref for DirectBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl DerefMut for DirectBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.as_bytes_mut()
    }
}
