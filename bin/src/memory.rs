//! Owns how the process uses memory: what it keeps, and which pages it has.
//! Does not know who needs memory.
//! Invariant: huge pages are only where they were asked for.

use crate::buffers::BUFFERS;
use crate::host::kernel::HugePages;
use std::io;

/// How long freed memory stays mapped: the first touch of fresh pages costs ten times as much as to write to them; an idle
/// broker gives it back.
const FREED_MEMORY_KEPT_MS: std::ffi::c_long = 10_000;
/// `mi_option_purge_delay` of mimalloc's `mi_option_t`, which the crate has no name for.
const OPTION_PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Of prctl(2), since Linux 6.18; the libc crate has no name for it.
const PR_THP_DISABLE_EXCEPT_ADVISED: libc::c_int = 1 << 1;

/// For every command. A huge page is cleared whole on its first touch: for milliseconds on some machines, in which the
/// shard that touched it serves nobody. So nothing gets one that did not ask.
pub fn settle() {
    // SAFETY: sets a number; an option that does not exist would be ignored.
    unsafe { libmimalloc_sys::mi_option_set(OPTION_PURGE_DELAY, FREED_MEMORY_KEPT_MS) };
    if HugePages::read() == HugePages::WhoAsks {
        return;
    }
    // Where neither can be had, huge pages come unasked: slower at times, no more.
    if !disable_huge_pages(PR_THP_DISABLE_EXCEPT_ADVISED) {
        disable_huge_pages(0);
    }
}

/// For a broker, before it starts: its large buffers come from huge pages from now on, if the system has any.
pub fn prepare_buffers() -> io::Result<()> {
    // SAFETY: asks for a flag of this process: 1 where it gets none at all.
    let disabled = unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) };
    if disabled == 1 || HugePages::read() == HugePages::Nobody || !BUFFERS.open() {
        tracing::debug!("no huge pages for the buffers of direct I/O");
        return Ok(());
    }
    let ahead = std::thread::Builder::new().name("millrace-pages".into());
    ahead.spawn(|| BUFFERS.stay_ahead()).map(|_| ())
}

fn disable_huge_pages(flags: libc::c_int) -> bool {
    // SAFETY: changes a flag of this process.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, flags, 0, 0) == 0 }
}
