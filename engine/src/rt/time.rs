//! Owns the two clocks and the timers.
//! Does not know what is being timed.
//! Invariant: durations come from the monotonic clock only; the wall clock is for timestamps and may jump.

use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::{glommio, sim};

/// A reading of the monotonic clock, in nanoseconds since an arbitrary start (boot, or the start of a simulation).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// Later than any reading.
    pub const MAX: Mono = Mono(u64::MAX);

    /// Nanoseconds since the arbitrary start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero if that is later.
    pub const fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, d: Duration) -> Mono {
        Mono(self.0.saturating_add(nanos(d)))
    }
}

impl Sub for Mono {
    type Output = Duration;
    fn sub(self, earlier: Mono) -> Duration {
        self.since(earlier)
    }
}

pub(super) fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// The monotonic clock. Works on any thread; costs a vDSO call.
pub fn now() -> Mono {
    match sim::now() {
        Some(t) => t,
        None => clock_now(),
    }
}

fn clock_now() -> Mono {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `t` is a valid timespec to write to.
    let rc = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    assert!(rc == 0, "CLOCK_MONOTONIC is missing");
    Mono(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
}

/// The wall clock, in milliseconds since 1970 (UTC). May jump either way. Works on any thread.
pub fn wall_ms() -> i64 {
    if let Some(core) = sim::current() {
        return core.wall_ms();
    }
    match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(d) => i64::try_from(d.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}

/// Completes once `d` has passed since the first poll.
pub async fn sleep(d: Duration) {
    match sim::current() {
        Some(core) => core.sleep_until(now() + d).await,
        None => glommio::sleep(d).await,
    }
}

/// Completes once the clock has reached `t`; at once if it has.
pub async fn sleep_until(t: Mono) {
    let left = t - now();
    if !left.is_zero() {
        sleep(left).await;
    }
}

/// The result of `f`, or None if `d` passes first; `f` is then dropped. `f` is polled before the clock is read.
pub async fn timeout<T>(d: Duration, f: impl Future<Output = T>) -> Option<T> {
    let mut f = pin!(f);
    let mut timer = pin!(sleep(d));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(v) = f.as_mut().poll(cx) {
            return Poll::Ready(Some(v));
        }
        timer.as_mut().poll(cx).map(|()| None)
    })
    .await
}
