//! Owns getting an executor going again that went to sleep with tasks to run.
//! Does not know the tasks. One thread watches all executors of the process.
//! Invariant: an executor whose heart does not beat is woken again and again until it does.
//!
//! glommio 0.9.0 parks although tasks are runnable when its preempt timer fires just before it looks
//! at the first queue. If the heartbeat itself is among them, no timer of ours is due, and only
//! another thread can wake the executor. A wake of a task that is runnable already does nothing, so
//! each try takes another of a few tasks that wait for nothing else.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

/// Longer than the slowest heartbeat.
const CHECK: Duration = Duration::from_millis(100);
/// Tries that can follow each other before any of the waiting tasks has run again.
const WAITING_TASKS: usize = 32;

/// One executor's sign of life.
pub(super) struct Pulse {
    beats: AtomicU64,
    wake: Vec<flume::Sender<()>>,
}

struct Watched {
    pulse: Weak<Pulse>,
    beats: u64,
    next: usize,
}

static WATCHED: OnceLock<Mutex<Vec<Watched>>> = OnceLock::new();

thread_local! {
    static PULSE: RefCell<Option<Arc<Pulse>>> = const { RefCell::new(None) };
}

/// The heart of this thread's executor beats.
pub(super) fn beat() {
    PULSE.with(|p| {
        if let Some(pulse) = p.borrow().as_ref() {
            pulse.beats.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// Has this thread's executor watched, until `forget`. Gives the tasks to spawn on it.
pub(super) fn watch() -> Vec<impl std::future::Future<Output = ()>> {
    let (wake, waiting): (Vec<_>, Vec<_>) =
        (0..WAITING_TASKS).map(|_| flume::bounded::<()>(1)).unzip();
    let pulse = Arc::new(Pulse {
        beats: AtomicU64::new(0),
        wake,
    });
    watched()
        .lock()
        .expect("nobody panics with it")
        .push(Watched {
            pulse: Arc::downgrade(&pulse),
            beats: 0,
            next: 0,
        });
    PULSE.with(|p| *p.borrow_mut() = Some(pulse));
    waiting
        .into_iter()
        .map(|receiver| async move { while receiver.recv_async().await.is_ok() {} })
        .collect()
}

pub(super) fn forget() {
    PULSE.with(|p| *p.borrow_mut() = None);
}

fn watched() -> &'static Mutex<Vec<Watched>> {
    WATCHED.get_or_init(|| {
        std::thread::Builder::new()
            .name("millrace-nudge".into())
            .spawn(run)
            .expect("a thread more can be started");
        Mutex::new(Vec::new())
    })
}

fn run() {
    loop {
        std::thread::sleep(CHECK);
        let Some(watched) = WATCHED.get() else {
            continue;
        };
        let mut all = watched.lock().expect("nobody panics with it");
        all.retain_mut(|w| {
            let Some(pulse) = w.pulse.upgrade() else {
                return false;
            };
            let beats = pulse.beats.load(Ordering::Relaxed);
            if beats == w.beats {
                // Full: that task was woken already and has not run since.
                let _woken_already = pulse.wake[w.next].try_send(());
                w.next = (w.next + 1) % pulse.wake.len();
            }
            w.beats = beats;
            true
        });
    }
}
