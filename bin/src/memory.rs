//! Owns how the process uses memory: what it keeps, and which pages it has.
//! Does not know who needs memory.
//! Invariant: huge pages are only where they were asked for.

use crate::buffers::BUFFERS;
use crate::host::kernel::HugePages;
use std::io;
use std::ops::Range;

/// How long freed memory stays mapped: the first touch of fresh pages costs ten times as much as to write to them; an idle
/// broker gives it back.
const FREED_MEMORY_KEPT_MS: std::ffi::c_long = 10_000;
/// `mi_option_purge_delay` of mimalloc's `mi_option_t`, which the crate has no name for.
const OPTION_PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// `mi_option_allow_thp` of it.
const OPTION_ASK_FOR_HUGE_PAGES: libmimalloc_sys::mi_option_t = 43;
/// What this process has mapped, and what it advised the kernel to do with it.
const MAPPINGS: &str = "/proc/self/smaps";
/// Of prctl(2), since Linux 6.18; the libc crate has no name for it.
const PR_THP_DISABLE_EXCEPT_ADVISED: libc::c_int = 1 << 1;

/// For every command. A huge page is cleared whole on its first touch: for milliseconds on some machines, in which the
/// shard that touched it serves nobody. So nothing gets one that did not ask; nor does mimalloc, which asks for all it maps.
pub fn settle() {
    // SAFETY: sets numbers; an option that does not exist would be ignored.
    unsafe {
        libmimalloc_sys::mi_option_set(OPTION_PURGE_DELAY, FREED_MEMORY_KEPT_MS);
        libmimalloc_sys::mi_option_set(OPTION_ASK_FOR_HUGE_PAGES, 0);
    }
    // What it had mapped before it was told. Nobody else has asked yet. Where the mappings cannot be read, it is as it was
    // before: slower at times, no more.
    for asking in asking(&std::fs::read_to_string(MAPPINGS).unwrap_or_default()) {
        // SAFETY: advice about mapped memory, which changes nothing in it.
        unsafe { libc::madvise(asking.start as *mut _, asking.len(), libc::MADV_NOHUGEPAGE) };
    }
    if HugePages::read() == HugePages::WhoAsks {
        return;
    }
    // Where neither can be had, huge pages come unasked: slower at times, no more.
    if !disable_huge_pages(PR_THP_DISABLE_EXCEPT_ADVISED) {
        disable_huge_pages(0);
    }
}

/// What a broker takes however little it does: code, the executors' rings, stacks, what the allocator keeps.
const FIXED_BYTES: u64 = 24 << 20;

/// What is left of a broker's whole budget for records, caches and requests.
pub fn without_fixed(memory_bytes: u64) -> u64 {
    memory_bytes - FIXED_BYTES.min(memory_bytes / 4)
}

/// For a broker of so large a budget, before it starts: its large buffers come from huge pages from now on, if the system has any.
pub fn prepare_buffers(memory_bytes: u64) -> io::Result<()> {
    // SAFETY: asks for a flag of this process: 1 where it gets none at all.
    let disabled = unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) };
    if disabled == 1 || HugePages::read() == HugePages::Nobody || !BUFFERS.open(memory_bytes) {
        tracing::debug!("no huge pages for the buffers of direct I/O");
        return Ok(());
    }
    let ahead = std::thread::Builder::new().name("millrace-pages".into());
    ahead.spawn(|| BUFFERS.stay_ahead()).map(|_| ())
}

/// The mappings that huge pages were asked for.
fn asking(mappings: &str) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    let mut mapping = None;
    for line in mappings.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let asks = flags.split_whitespace().any(|flag| flag == "hg");
            all.extend(mapping.take().filter(|_| asks));
        } else if let Some(range) = range(line) {
            mapping = Some(range);
        }
    }
    all
}

/// Of a line that begins a mapping, such as `7f0000000000-7f0000200000 rw-p ...`.
fn range(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    let number = |hex| usize::from_str_radix(hex, 16).ok();
    Some(number(start)?..number(end)?)
}

fn disable_huge_pages(flags: libc::c_int) -> bool {
    // SAFETY: changes a flag of this process.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, flags, 0, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_that_ask_for_huge_pages_are_told_from_others() {
        let mappings = "20000000000-20040000000 rw-p 00000000 00:00 0 \nSize: 1048576 kB\nVmFlags: rd wr mr hg\n\
            55aa00000000-55aa00001000 r--p 00000000 fe:00 12  /bin/a-b c\nRss: 4 kB\nVmFlags: rd mr\n\
            7f0000000000-7f0000200000 rw-p 00000000 00:00 0\nVmFlags: rd hgx nh\n";
        let arena = 0x200_0000_0000..0x200_4000_0000;
        assert_eq!(asking(mappings), [arena]);
        assert!(asking("").is_empty());
    }

    #[test]
    fn the_allocator_does_not_ask_for_huge_pages() {
        settle();
        // SAFETY: a size above zero; the memory is given back once.
        let memory = unsafe { libmimalloc_sys::mi_malloc(1 << 16) };
        let mappings = std::fs::read_to_string(MAPPINGS).unwrap();
        let address = memory as usize;
        let mapped = mappings
            .lines()
            .filter_map(range)
            .any(|m| m.contains(&address));
        assert!(mapped, "the mappings were understood");
        let asking = asking(&mappings);
        assert!(!asking.iter().any(|m| m.contains(&address)), "{asking:x?}");
        // SAFETY: as above.
        unsafe { libmimalloc_sys::mi_free(memory) };
    }

    #[test]
    fn what_is_fixed_is_taken_from_the_budget_and_never_most_of_it() {
        assert_eq!(without_fixed(512 << 20), 488 << 20);
        assert_eq!(without_fixed(64 << 20), 48 << 20);
    }
}
