//! Owns what makes a record committed: durable offsets of the in-sync replicas.
//! Does not know files, streams or clocks.
//! Invariant: the high watermark never goes back and never passes the slowest in-sync replica.

use crate::types::Offset;

/// A leader's view of its replicas' durable offsets.
#[derive(Clone, Debug)]
pub struct Progress {
    durable: Offset,
    /// Durable offsets of the other in-sync replicas; none while a node stands alone.
    followers: Vec<(i32, Offset)>,
    high_watermark: Offset,
}

impl Progress {
    /// A partition whose only in-sync replica is this one, durable up to `offset`.
    pub fn single(offset: Offset) -> Progress {
        Progress {
            durable: offset,
            followers: Vec::new(),
            high_watermark: offset,
        }
    }

    pub fn durable(&self) -> Offset {
        self.durable
    }

    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// The leader's own log is durable up to `end`; true where the high watermark moved.
    pub fn durable_to(&mut self, end: Offset) -> bool {
        assert!(
            end >= self.durable,
            "durable went back from {} to {end}",
            self.durable
        );
        self.durable = end;
        let slowest = self.followers.iter().map(|f| f.1).min().unwrap_or(end);
        let committed = slowest.min(end);
        let moved = committed > self.high_watermark;
        self.high_watermark = self.high_watermark.max(committed);
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_watermark_follows_the_slowest() {
        let mut progress = Progress {
            durable: 0,
            followers: vec![(2, 5), (3, 8)],
            high_watermark: 0,
        };
        assert!(progress.durable_to(10));
        assert_eq!(progress.high_watermark(), 5);
        assert!(!progress.durable_to(11));
        let mut alone = Progress::single(3);
        assert!(alone.durable_to(4));
        assert_eq!((alone.durable(), alone.high_watermark()), (4, 4));
    }
}
