//! Owns the reading of the monotonic clock and the type of its values.
//! Does not know what is timed; everything that decides takes the time as an argument.
//! Invariant: values only grow, and are nanoseconds since an arbitrary start of this process.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A point in time, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Nanos(pub u64);

impl Nanos {
    /// Nanoseconds from `earlier` to here; 0 if it is later.
    pub fn since(self, earlier: Nanos) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    pub fn after(self, duration: Duration) -> Nanos {
        Nanos(self.0.saturating_add(nanos(duration)))
    }
}

/// A duration in nanoseconds; the largest number if it is beyond 584 years.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The time now.
pub fn now() -> Nanos {
    static START: OnceLock<Instant> = OnceLock::new();
    Nanos(nanos(START.get_or_init(Instant::now).elapsed()))
}
