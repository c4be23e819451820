//! Owns Ctrl-C in client commands: the first asks to finish, the second ends the process.
//! Does not know what finishing means.
//! Invariant: the handler only stores a flag.

use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_signal: libc::c_int) {
    REQUESTED.store(true, Ordering::Release);
}

/// From now on the first SIGINT or SIGTERM only sets the flag.
pub fn install() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: an all-zero sigaction is valid (empty mask, no flags).
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
        // Back to the default after the first, so that a second one ends whatever hangs.
        action.sa_flags = libc::SA_RESETHAND;
        // SAFETY: the handler is async-signal-safe (one atomic store) and lives for ever.
        let installed = unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
        assert_eq!(installed, 0, "SIGINT and SIGTERM can be handled");
    }
}

pub fn requested() -> bool {
    REQUESTED.load(Ordering::Acquire)
}
