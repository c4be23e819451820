//! Owns the memory of request frames on one shard: who may take how much of the engine's budget, and in which order.
//! Does not know connections or what a frame means.
//! Invariant: a frame that is not complete never holds what small requests need, so that no client, however many
//! frames it begins, keeps the others from being served.

use millrace_engine::api::Broker;
use millrace_engine::rt;
use std::cell::Cell;
use std::time::Duration;

/// Frames up to this size fit the block that every connection may have anyway: they take from the budget only when they
/// are complete.
pub(crate) const SMALL_FRAME_BYTES_MAX: usize = 4 << 10;

/// One part in so many of the budget is for small frames only.
const SMALL_SHARE: u64 = 8;

/// How often a request that waits for memory looks whether somebody holds it for nothing.
pub(crate) const RELIEF_TICK: Duration = Duration::from_millis(250);

/// Memory of one frame, from its first bytes (small ones: from its last) until its request has been answered.
pub(crate) struct FrameMemory {
    _request: rt::Permit,
    _large: Option<rt::Permit>,
}

pub(crate) struct FrameLedger {
    /// What frames larger than small may take together.
    large: rt::Semaphore,
    /// Largest frame that is read: it has to fit.
    size_max: usize,
    pub(crate) relief: Relief,
}

/// Says when to look for connections that hold memory for nothing: many may ask, and looking takes a while.
pub(crate) struct Relief(Cell<rt::Mono>);

impl Relief {
    pub(crate) fn new() -> Relief {
        Relief(Cell::new(rt::now()))
    }

    pub(crate) fn is_due(&self, now: rt::Mono) -> bool {
        let due = now.since(self.0.get()) >= RELIEF_TICK / 2;
        if due {
            self.0.set(now);
        }
        due
    }
}

impl FrameLedger {
    /// `size_max` is the largest frame that the configuration allows.
    pub(crate) fn new(broker: &Broker, size_max: usize) -> FrameLedger {
        let budget = broker.metrics().request_bytes_max;
        let large = budget - budget / SMALL_SHARE;
        FrameLedger {
            large: rt::Semaphore::new(large),
            size_max: size_max.min(usize::try_from(large).unwrap_or(usize::MAX)),
            relief: Relief::new(),
        }
    }

    pub(crate) fn size_max(&self) -> usize {
        self.size_max
    }

    /// Waits for the memory of a frame of `size` bytes, in turn with those like it.
    pub(crate) async fn take(&self, broker: &Broker, size: usize) -> FrameMemory {
        let large = if size > SMALL_FRAME_BYTES_MAX {
            Some(self.large.acquire(size as u64).await)
        } else {
            None
        };
        FrameMemory {
            _request: broker.request_memory(size).await,
            _large: large,
        }
    }
}
