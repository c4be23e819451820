//! Owns the leader-epoch history of one partition: which epoch began at which offset.
//! Does not know how epochs are elected. Invariant: epochs and start offsets both only grow.

use crate::types::limits::LEADER_EPOCHS_MAX;
use crate::types::{LeaderEpoch, Offset};

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct EpochHistory {
    starts: Vec<(LeaderEpoch, Offset)>,
}

impl EpochHistory {
    /// Rebuilds a history from stored pairs; None where they do not grow.
    pub fn from_pairs(pairs: Vec<(LeaderEpoch, Offset)>) -> Option<EpochHistory> {
        let grows = pairs
            .windows(2)
            .all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1);
        grows.then_some(EpochHistory { starts: pairs })
    }

    pub fn pairs(&self) -> &[(LeaderEpoch, Offset)] {
        &self.starts
    }

    /// Notes that the batch at `offset` was written in `epoch`.
    pub fn observe(&mut self, epoch: LeaderEpoch, offset: Offset) {
        if self.starts.last().is_some_and(|last| last.0 >= epoch) {
            return;
        }
        // An epoch that got no record leaves no trace.
        while self.starts.last().is_some_and(|last| last.1 >= offset) {
            self.starts.pop();
        }
        if self.starts.len() == LEADER_EPOCHS_MAX {
            self.starts.remove(0);
        }
        self.starts.push((epoch, offset));
    }

    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.starts.last().map(|s| s.0)
    }

    /// Epoch that the record at `offset` was written in; -1 where that is not known.
    pub fn at(&self, offset: Offset) -> LeaderEpoch {
        let after = self.starts.partition_point(|s| s.1 <= offset);
        after.checked_sub(1).map_or(-1, |i| self.starts[i].0)
    }

    /// The largest epoch at or below `epoch` and where it ended; `log_end` closes the latest.
    /// None where the history begins above `epoch` or ends below it.
    pub fn end_of(&self, epoch: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let latest = self.latest()?;
        if epoch > latest || epoch < 0 {
            return None;
        }
        if epoch == latest {
            return Some((latest, log_end));
        }
        let after = self.starts.partition_point(|s| s.0 <= epoch);
        if after == 0 {
            // Everything known is newer: the requested epoch ended where the first one begins.
            return Some((epoch, self.starts[0].1));
        }
        Some((self.starts[after - 1].0, self.starts[after].1))
    }

    pub fn truncate_to(&mut self, end: Offset) {
        self.starts.retain(|s| s.1 < end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> EpochHistory {
        let mut h = EpochHistory::default();
        for (epoch, offset) in [(0, 0), (0, 5), (2, 10), (3, 20), (5, 20)] {
            h.observe(epoch, offset);
        }
        h
    }

    #[test]
    fn an_empty_epoch_leaves_no_trace_and_ends_are_found() {
        let h = history();
        assert_eq!(h.pairs(), &[(0, 0), (2, 10), (5, 20)]);
        let cases = [
            (0, Some((0, 10))),
            (1, Some((0, 10))),
            (2, Some((2, 20))),
            (4, Some((2, 20))),
        ];
        for (epoch, expected) in cases {
            assert_eq!(h.end_of(epoch, 33), expected, "epoch {epoch}");
        }
        assert_eq!(h.end_of(5, 33), Some((5, 33)));
        assert_eq!(h.end_of(6, 33), None);
        assert_eq!((h.at(0), h.at(9), h.at(10), h.at(40)), (0, 0, 2, 5));
    }

    #[test]
    fn truncation_forgets_what_began_behind_the_cut() {
        let mut h = history();
        h.truncate_to(20);
        assert_eq!(h.latest(), Some(2));
        assert_eq!(EpochHistory::default().end_of(0, 4), None);
        assert!(EpochHistory::from_pairs(vec![(3, 1), (2, 5)]).is_none());
    }
}
