//! Owns the memory of large buffers for direct I/O: huge pages, handed out in slices.
//! Does not know who uses them, nor any other memory.
//! Invariant: a slice is one buffer's until that buffer is given back.
//!
//! A device is told of each stretch of physical memory by itself: a megabyte in ordinary pages is 256 of them, in a huge
//! page one. A huge page is cleared whole on its first touch, which takes milliseconds where the kernel has to make one:
//! a thread does that before the page is wanted.

use std::ptr::null_mut;
use std::sync::{Condvar, Mutex, MutexGuard};

/// The smallest piece of direct I/O, whose buffers are so many of it.
pub const SLICE_BYTES: usize = 4 << 10;
const PAGE_BYTES: usize = 2 << 20;
const SLICES_PER_PAGE: usize = PAGE_BYTES / SLICE_BYTES;
/// Addresses, not memory: more than the buffers of any budget.
const RESERVED_BYTES: usize = 256 << 30;
const SLICES: usize = RESERVED_BYTES / SLICE_BYTES;
const PAGES: usize = RESERVED_BYTES / PAGE_BYTES;
/// Empty pages kept behind a burst at the most, and made before a rise.
const EMPTY_PAGES_KEPT_MAX: usize = 8;
const PAGES_AHEAD_MAX: usize = 4;
/// Memory for each page kept: they come on top of what is used, and are little of it.
const MEMORY_PER_PAGE_KEPT: u64 = 64 << 20;
const WORD: usize = u64::BITS as usize;

pub static BUFFERS: Buffers = Buffers {
    state: Mutex::new(State::new()),
    grown: Condvar::new(),
};

pub struct Buffers {
    state: Mutex<State>,
    /// Told when there is more to be made ready.
    grown: Condvar,
}

struct State {
    /// Of the reserved addresses, at a page boundary; 0 where there are none.
    base: usize,
    /// Empty pages kept, and made ahead.
    kept: usize,
    ahead: usize,
    /// One bit for each slice.
    used: [u64; SLICES / WORD],
    /// Slices in use of each page.
    count: [u16; PAGES],
    /// Whether a page has memory.
    resident: [bool; PAGES],
    /// Pages that buffers come from; the others were never needed.
    end: usize,
    /// Of the pages before `end`, those with memory and without a buffer.
    empty: usize,
    /// Where the last buffer ended: the next one mostly finds room there, as the oldest go first.
    cursor: usize,
}

impl State {
    const fn new() -> State {
        State {
            base: 0,
            kept: 0,
            ahead: 0,
            used: [0; SLICES / WORD],
            count: [0; PAGES],
            resident: [false; PAGES],
            end: 0,
            empty: 0,
            cursor: 0,
        }
    }

    fn is_used(&self, slice: usize) -> bool {
        self.used[slice / WORD] >> (slice % WORD) & 1 != 0
    }

    /// The first slice in `at..to` that is used, or that is not; `to` where there is none.
    fn next(&self, used: bool, mut at: usize, to: usize) -> usize {
        while at < to {
            let word = self.used[at / WORD];
            let wanted = (if used { word } else { !word }) >> (at % WORD);
            if wanted != 0 {
                return (at + wanted.trailing_zeros() as usize).min(to);
            }
            at = (at / WORD + 1) * WORD;
        }
        to
    }

    /// The first stretch of `slices` free ones that lies in `from..to`.
    fn find(&self, slices: usize, from: usize, to: usize) -> Option<usize> {
        let mut at = from;
        while at < to {
            let first = self.next(false, at, to);
            let end = self.next(true, first, to.min(first + slices));
            if end - first == slices {
                return Some(first);
            }
            at = end.max(first + 1);
        }
        None
    }

    fn take(&mut self, slices: usize) -> Option<usize> {
        let end = self.end * SLICES_PER_PAGE;
        let found = self.find(slices, self.cursor, end);
        let first = match found.or_else(|| self.find(slices, 0, end)) {
            Some(first) => first,
            None => self.grow(slices)?,
        };
        for slice in first..first + slices {
            self.used[slice / WORD] |= 1 << (slice % WORD);
            let page = slice / SLICES_PER_PAGE;
            if self.count[page] == 0 && self.resident[page] {
                self.empty -= 1;
            }
            self.resident[page] = true;
            self.count[page] += 1;
        }
        self.cursor = first + slices;
        Some(first)
    }

    /// Goes on where free slices at the end begin.
    fn grow(&mut self, slices: usize) -> Option<usize> {
        let mut first = self.end * SLICES_PER_PAGE;
        while first > 0 && !self.is_used(first - 1) {
            first -= 1;
        }
        let end = (first + slices).div_ceil(SLICES_PER_PAGE);
        if end > PAGES {
            return None;
        }
        let ready = (self.end..end).filter(|&page| self.resident[page]);
        self.empty += ready.count();
        self.end = end;
        Some(first)
    }

    fn give_back(&mut self, first: usize, slices: usize) {
        for slice in first..first + slices {
            self.used[slice / WORD] &= !(1 << (slice % WORD));
            let page = slice / SLICES_PER_PAGE;
            self.count[page] -= 1;
            if self.count[page] > 0 {
                continue;
            }
            if self.empty < self.kept {
                self.empty += 1;
                continue;
            }
            self.resident[page] = false;
            let address = (self.base + page * PAGE_BYTES) as *mut libc::c_void;
            // SAFETY: the page is ours, and no buffer is in it.
            unsafe { libc::madvise(address, PAGE_BYTES, libc::MADV_DONTNEED) };
        }
    }

    /// A page without memory that will be wanted soon.
    fn next_to_make(&self) -> Option<usize> {
        let soon = self.end..(self.end + self.ahead).min(PAGES);
        soon.into_iter().find(|&page| !self.resident[page])
    }
}

impl Buffers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// From now on there are buffers, for a process that is to take `memory_bytes` in all. False, and nothing changes, where
    /// the system has no such addresses to give.
    pub fn open(&self, memory_bytes: u64) -> bool {
        let mut state = self.lock();
        if state.base != 0 {
            return true;
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let bytes = RESERVED_BYTES + PAGE_BYTES;
        // SAFETY: asks for addresses that nobody has.
        let got = unsafe { libc::mmap(null_mut(), bytes, protection, flags, -1, 0) };
        if got == libc::MAP_FAILED {
            return false;
        }
        let base = (got as usize).next_multiple_of(PAGE_BYTES);
        // SAFETY: those addresses; where it fails the pages are ordinary ones.
        unsafe { libc::madvise(base as *mut _, RESERVED_BYTES, libc::MADV_HUGEPAGE) };
        state.base = base;
        let kept = usize::try_from(memory_bytes / MEMORY_PER_PAGE_KEPT).unwrap_or(usize::MAX);
        state.kept = kept.clamp(1, EMPTY_PAGES_KEPT_MAX);
        state.ahead = (kept / 2).clamp(1, PAGES_AHEAD_MAX);
        true
    }

    /// A buffer of so many slices; None where there are none.
    pub fn take(&self, slices: usize) -> Option<*mut u8> {
        let mut state = self.lock();
        if state.base == 0 {
            return None;
        }
        let end = state.end;
        let first = state.take(slices)?;
        if state.end > end {
            self.grown.notify_one();
        }
        Some((state.base + first * SLICE_BYTES) as *mut u8)
    }

    /// Gives a buffer of `take` back; false where it is none.
    ///
    /// # Safety
    /// Nobody uses the buffer any more, and it was taken with as many slices.
    pub unsafe fn give_back(&self, buffer: *mut u8, slices: usize) -> bool {
        let mut state = self.lock();
        let at = (buffer as usize).wrapping_sub(state.base);
        let ours = state.base != 0 && at < RESERVED_BYTES;
        if ours {
            state.give_back(at / SLICE_BYTES, slices);
        }
        ours
    }

    /// Makes pages before they are wanted, for ever.
    pub fn stay_ahead(&self) -> ! {
        let mut state = self.lock();
        loop {
            let Some(page) = state.next_to_make() else {
                state = self.grown.wait(state).unwrap_or_else(|e| e.into_inner());
                continue;
            };
            let address = (state.base + page * PAGE_BYTES) as *mut libc::c_void;
            drop(state);
            // SAFETY: the page is ours; whatever is in it stays. Where it fails, the first touch makes the page.
            unsafe { libc::madvise(address, PAGE_BYTES, libc::MADV_POPULATE_WRITE) };
            state = self.lock();
            if !state.resident[page] {
                state.resident[page] = true;
                // Taken in meanwhile, and given back.
                if page < state.end && state.count[page] == 0 {
                    state.empty += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without addresses behind it; nothing may be given up.
    fn state() -> Box<State> {
        let mut boxed = Box::<State>::new_uninit();
        // SAFETY: all zeros is what `new` gives.
        let mut state = unsafe {
            boxed.as_mut_ptr().write_bytes(0, 1);
            boxed.assume_init()
        };
        state.kept = EMPTY_PAGES_KEPT_MAX;
        state
    }

    #[test]
    fn buffers_never_overlap_and_room_is_used_again() {
        const HELD_MAX: usize = 3 * SLICES_PER_PAGE;
        let mut state = state();
        let mut held: Vec<(usize, usize)> = Vec::new();
        let mut random = 12345u64;
        let mut most = 0;
        for step in 0..20_000 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            let slices = (random >> 33) as usize % 64 + 1;
            let first = state.take(slices).unwrap();
            let apart = |&(f, n): &(usize, usize)| f + n <= first || first + slices <= f;
            assert!(held.iter().all(apart), "step {step}");
            held.push((first, slices));
            // Mostly the oldest goes, sometimes another.
            while held.iter().map(|h| h.1).sum::<usize>() > HELD_MAX {
                let at = if random.is_multiple_of(5) {
                    held.len() / 2
                } else {
                    0
                };
                let (first, slices) = held.remove(at);
                state.empty = state.empty.min(state.kept - 1);
                state.give_back(first, slices);
            }
            most = most.max(state.end);
        }
        assert!(most <= HELD_MAX / SLICES_PER_PAGE * 2, "{most} pages");
        for (first, slices) in held {
            state.empty = 0;
            state.give_back(first, slices);
        }
        assert!(state.used.iter().all(|&word| word == 0));
        assert!(state.count.iter().all(|&count| count == 0));
    }

    #[test]
    fn a_buffer_keeps_what_is_written_and_pages_come_and_go() {
        const SLICES: usize = 64;
        // A budget of which two empty pages are kept.
        assert!(BUFFERS.open(128 << 20) && BUFFERS.open(128 << 20));
        let mut taken: Vec<*mut u8> = (0..60).map(|_| BUFFERS.take(SLICES).unwrap()).collect();
        for (fill, &buffer) in (0u8..).zip(&taken) {
            // SAFETY: the buffer is ours and has that size.
            unsafe { buffer.write_bytes(fill, SLICES * SLICE_BYTES) };
        }
        for (fill, &buffer) in (0u8..).zip(&taken) {
            // SAFETY: the same.
            let bytes = unsafe { std::slice::from_raw_parts(buffer, SLICES * SLICE_BYTES) };
            assert!(bytes.iter().all(|&byte| byte == fill));
        }
        for buffer in taken.drain(..) {
            // SAFETY: it was taken with as many and is not used again.
            assert!(unsafe { BUFFERS.give_back(buffer, SLICES) });
        }
        let state = BUFFERS.lock();
        let resident = state.resident.iter().filter(|&&r| r).count();
        assert!((1..=2).contains(&resident), "{resident} pages kept");
        assert_eq!(state.empty, resident);
        drop(state);
        let mut other = [0u8; 8];
        // SAFETY: it is refused.
        assert!(!unsafe { BUFFERS.give_back(other.as_mut_ptr(), 1) });
    }
}
