//! Owns getting an executor going again that went to sleep with tasks to run.
//! Does not know the tasks. One thread watches all executors of the process.
//! Invariant: an executor whose heart does not beat is woken again and again until it does.
//!
//! glommio 0.9.0 parks although tasks are runnable when its preempt timer fires just before it looks
//! at the first queue. If the heartbeat itself is among them (or was never polled), no timer of ours
//! is due, and only something from outside can end the sleep: a signal, which interrupts the wait
//! for I/O and does nothing else.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread::Thread;
use std::time::Duration;

/// Between two looks while an executor is busy: several of its heartbeats. What is lost to a sleep is at most two of them.
const CHECK_BUSY: Duration = Duration::from_millis(5);
/// The same while all are idle: longer than the slowest heartbeat.
const CHECK_IDLE: Duration = Duration::from_millis(250);
/// Hearts that beat less often than this belong to idle executors.
const BUSY_PAUSE_MAX: Duration = Duration::from_millis(2);
/// Ignored by default and hardly used by anyone; Go's runtime takes it for the same purpose.
const SIGNAL: libc::c_int = libc::SIGURG;

/// One executor's sign of life.
struct Pulse {
    beats: AtomicU64,
    /// It beats often enough to be looked at often.
    busy: AtomicBool,
    thread: libc::pid_t,
}

struct Watched {
    pulse: Weak<Pulse>,
    beats: u64,
}

static WATCHED: OnceLock<Mutex<Vec<Watched>>> = OnceLock::new();
static WATCHER: OnceLock<Thread> = OnceLock::new();

thread_local! {
    static PULSE: RefCell<Option<Arc<Pulse>>> = const { RefCell::new(None) };
}

/// The heart of this thread's executor beats, and will again after `pause`.
pub(super) fn beat(pause: Duration) {
    PULSE.with(|p| {
        if let Some(pulse) = p.borrow().as_ref() {
            pulse.beats.fetch_add(1, Ordering::Relaxed);
            let busy = pause <= BUSY_PAUSE_MAX;
            if !pulse.busy.swap(busy, Ordering::Relaxed) && busy {
                // It may have gone to sleep for long.
                if let Some(watcher) = WATCHER.get() {
                    watcher.unpark();
                }
            }
        }
    });
}

/// Has the executor that this thread is about to run watched, until the guard goes.
pub(super) fn watch() -> Watch {
    let pulse = Arc::new(Pulse {
        beats: AtomicU64::new(0),
        busy: AtomicBool::new(true),
        // SAFETY: takes no arguments and cannot fail.
        thread: unsafe { libc::gettid() },
    });
    let all = watched();
    all.lock().expect("nobody panics with it").push(Watched {
        pulse: Arc::downgrade(&pulse),
        beats: 0,
    });
    PULSE.with(|p| *p.borrow_mut() = Some(pulse));
    if let Some(watcher) = WATCHER.get() {
        watcher.unpark();
    }
    Watch
}

/// See `watch`.
pub(super) struct Watch;

impl Drop for Watch {
    fn drop(&mut self) {
        PULSE.with(|p| *p.borrow_mut() = None);
    }
}

fn watched() -> &'static Mutex<Vec<Watched>> {
    WATCHED.get_or_init(|| {
        handle_signal();
        let watcher = std::thread::Builder::new()
            .name("millrace-nudge".into())
            .spawn(run)
            .expect("a thread more can be started");
        WATCHER.get_or_init(|| watcher.thread().clone());
        Mutex::new(Vec::new())
    })
}

extern "C" fn nothing(_signal: libc::c_int) {}

/// A signal interrupts a wait only if it has a handler, and one that does not ask for a restart.
fn handle_signal() {
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: an all-zero sigaction is valid (no flags, empty mask), and the handler touches nothing.
    let failed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        libc::sigaction(SIGNAL, &action, std::ptr::null_mut())
    };
    assert_eq!(failed, 0, "the signal exists and can be handled");
}

fn run() {
    let mut pause = CHECK_BUSY;
    loop {
        std::thread::park_timeout(pause);
        let Some(watched) = WATCHED.get() else {
            continue;
        };
        pause = CHECK_IDLE;
        let mut all = watched.lock().expect("nobody panics with it");
        all.retain_mut(|w| {
            let Some(pulse) = w.pulse.upgrade() else {
                return false;
            };
            if pulse.busy.load(Ordering::Relaxed) {
                pause = CHECK_BUSY;
            }
            w.look(&pulse);
            true
        });
    }
}

impl Watched {
    /// Wakes the executor if its heart has not beaten since the last look.
    fn look(&mut self, pulse: &Pulse) {
        let beats = pulse.beats.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.beats, beats) != beats {
            return;
        }
        // SAFETY: plain numbers. The thread lives (its pulse does); were it gone, the call would fail, and there would
        // be nobody to wake.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), pulse.thread, SIGNAL) };
        if sent != 0 {
            let error = std::io::Error::last_os_error();
            tracing::debug!(%error, "cannot wake a shard that does not answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What parks here is not an executor but the same kind of sleep: it ends by the signal alone.
    #[test]
    fn a_thread_whose_heart_does_not_beat_is_interrupted() {
        let _watch = watch();
        for _ in 0..3 {
            // SAFETY: an empty set of descriptors and no timeout: waits until interrupted.
            let woken = unsafe { libc::poll(std::ptr::null_mut(), 0, -1) };
            assert_eq!(woken, -1);
            let error = std::io::Error::last_os_error();
            assert_eq!(error.kind(), std::io::ErrorKind::Interrupted);
        }
    }
}
