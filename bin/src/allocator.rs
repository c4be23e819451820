//! Owns the process's allocator: mimalloc, but for large buffers of direct I/O.
//! Does not know where those come from.
//! Invariant: memory goes back to where it came from.

use crate::buffers::{BUFFERS, SLICE_BYTES};
use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};

/// Alignment of buffers for direct I/O; nothing else of their size asks for it.
const BUFFER_ALIGN: usize = 4096;
/// Larger ones are left to mimalloc: they are rare. Small ones are not: their memory would not be to be had for large ones when
/// those come, and a cache goes from one kind to the other with its load.
const BUFFER_BYTES_MIN: usize = SLICE_BYTES;
const BUFFER_BYTES_MAX: usize = 2 << 20;

pub struct Allocator;

/// How many slices a buffer takes; None where it is no buffer.
fn slices(layout: Layout) -> Option<usize> {
    let sizes = BUFFER_BYTES_MIN..=BUFFER_BYTES_MAX;
    let is_buffer = layout.align() == BUFFER_ALIGN && sizes.contains(&layout.size());
    is_buffer.then(|| layout.size().div_ceil(SLICE_BYTES))
}

// SAFETY: a buffer has at least its layout's size and alignment, and is nobody else's until it is given back.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let buffer = slices(layout).and_then(|slices| BUFFERS.take(slices));
        // SAFETY: as the caller promises.
        buffer.unwrap_or_else(|| unsafe { MiMalloc.alloc(layout) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller is done with it; the same layout gives the same number of slices.
        let taken = slices(layout).is_some_and(|n| unsafe { BUFFERS.give_back(memory, n) });
        if !taken {
            // SAFETY: as the caller promises; what is no buffer came from there.
            unsafe { MiMalloc.dealloc(memory, layout) }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if slices(layout).is_none() {
            // SAFETY: as the caller promises.
            return unsafe { MiMalloc.alloc_zeroed(layout) };
        }
        // SAFETY: as the caller promises; the memory has that size.
        unsafe {
            let memory = self.alloc(layout);
            if !memory.is_null() {
                memory.write_bytes(0, layout.size());
            }
            memory
        }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises for `size`.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if slices(layout).is_none() && slices(wanted).is_none() {
            // SAFETY: as the caller promises.
            return unsafe { MiMalloc.realloc(old, layout, size) };
        }
        // SAFETY: both have at least the bytes that are copied; the old one is the caller's to give up.
        unsafe {
            let new = self.alloc(wanted);
            if !new.is_null() {
                new.copy_from_nonoverlapping(old, layout.size().min(size));
                self.dealloc(old, layout);
            }
            new
        }
    }
}
