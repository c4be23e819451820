//! Owns counting the heap that a target uses at once.
//! Does not know targets. Not seen: memory that C libraries take by themselves, such as the window of zstd.
//! Invariant: what is counted is what the allocator was asked for, by the thread that runs the target.

use super::Target;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes in use that this thread allocated, and the most of it since it was last reset.
    static USED: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counting what each thread has in use. A program that measures makes it the global one.
pub struct Counting;

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize);
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

fn count(size: isize) {
    // Not available while a thread ends, and of no interest then.
    let _ = USED.try_with(|used| {
        used.set(used.get() + size);
        MOST.with(|most| most.set(most.get().max(used.get())));
    });
}

/// Runs the target on the input; gives the most bytes that were in use at once, beyond what was before. Zero in a program
/// with another allocator.
pub fn measured(target: &Target, input: &[u8]) -> usize {
    let before = USED.get();
    MOST.set(before);
    (target.run)(input);
    (MOST.get() - before) as usize
}
