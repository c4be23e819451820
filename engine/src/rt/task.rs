//! Owns spawning, yielding, blocking work and random numbers, on whichever runtime the thread has.
//! Does not know what a task does.
//! Invariant: a task is detached from birth; its result, if wanted, comes back through a local channel, because a
//! join handle of the executor is not safe against a waker dropped on another thread.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::sync::{oneshot, OneReceiver};
use super::{glommio, sim};

/// What a task works for. Each class has its own queue with its own share of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Connections: reading, decoding, answering.
    Network,
    /// Journal and segments.
    Storage,
    /// Streams from and to other nodes.
    Replication,
    /// Whatever may wait: retention, compaction, scrubbing.
    Background,
}

impl Class {
    pub(super) const ALL: [Class; 4] = [
        Class::Network,
        Class::Storage,
        Class::Replication,
        Class::Background,
    ];
}

/// Starts `f` on this shard and forgets it. A panic in it is logged and aborts the process (in the simulator it
/// unwinds out of `block_on`).
///
/// # Panics
/// Outside of a runtime.
pub fn spawn<F: Future<Output = ()> + 'static>(class: Class, f: F) {
    match sim::current() {
        Some(core) => core.spawn(f),
        None => glommio::spawn(class, f),
    }
}

/// The result of a task started with [`spawn_joined`]. Dropping it does not stop the task.
#[derive(Debug)]
pub struct Joined<T>(OneReceiver<T>);

impl<T> Joined<T> {
    /// The result, or None when the task was dropped unfinished (shutdown, simulated crash).
    pub async fn outcome(self) -> Option<T> {
        self.0.await
    }
}

impl<T> Future for Joined<T> {
    type Output = T;

    /// # Panics
    /// When the task was dropped before it finished; a caller that outlives its tasks uses [`Joined::outcome`].
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|v| v.expect("a joined task was dropped before it finished"))
    }
}

/// Like [`spawn`], but the result can be awaited.
pub fn spawn_joined<T: 'static>(class: Class, f: impl Future<Output = T> + 'static) -> Joined<T> {
    let (tx, rx) = oneshot();
    spawn(class, async move {
        // Nobody may be waiting any more; that is the waiter's choice.
        drop(tx.send(f.await));
    });
    Joined(rx)
}

/// Runs `f` where it may block, and gives its result. In the simulator: at once, after a seeded delay.
/// A panic of `f` continues in the caller.
pub async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    match sim::current() {
        Some(core) => {
            core.blocking_delay().await;
            f()
        }
        None => glommio::blocking(f).await,
    }
}

/// Lets every other ready task of this shard, and the I/O poller, run before this one goes on.
pub async fn yield_now() {
    if sim::current().is_some() {
        futures_lite::future::yield_now().await;
    } else {
        glommio::yield_now().await;
    }
}

/// Whether this task has used up its slice: then it should [`yield_now`]. Cheap enough for every round of a loop.
pub fn should_yield() -> bool {
    match sim::current() {
        Some(core) => core.one_in(8),
        None => glommio::should_yield(),
    }
}

/// [`yield_now`], if [`should_yield`].
pub async fn yield_if_needed() {
    if should_yield() {
        yield_now().await;
    }
}

thread_local! {
    static RANDOM: Cell<u64> = const { Cell::new(0) };
}

/// A random number: from the seed in the simulator, from the kernel's generator (stretched per thread by
/// splitmix64; not for secrets) otherwise. Works on any thread.
pub fn random_u64() -> u64 {
    if let Some(core) = sim::current() {
        return core.random();
    }
    RANDOM.with(|r| {
        let mut state = r.get();
        if state == 0 {
            state = kernel_random() | 1;
        }
        let out = sim::splitmix64(&mut state);
        r.set(state);
        out
    })
}

fn kernel_random() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: the pointer and length describe `bytes`.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    assert!(n == 8, "getrandom gave {n} bytes of 8");
    u64::from_ne_bytes(bytes)
}
