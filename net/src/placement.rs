//! Owns the decision whether a connection should live on another shard.
//! Does not know sockets, nor how a connection moves.
//! Invariant: each move of a connection needs twice the evidence of the one before, so that none ping-pongs.

/// Doublings of the evidence after which it grows no more.
const DOUBLINGS_MAX: u32 = 10;

/// What one connection's recent traffic says about where it belongs.
#[derive(Debug, Clone)]
pub(crate) struct Placement {
    here: usize,
    candidate: usize,
    streak: u32,
    moves: u32,
    after_requests: u32,
}

impl Placement {
    pub(crate) fn new(here: usize, moves: u32, after_requests: u32) -> Placement {
        Placement {
            here,
            candidate: here,
            streak: 0,
            moves,
            after_requests: after_requests.max(1),
        }
    }

    pub(crate) fn moves(&self) -> u32 {
        self.moves
    }

    /// Notes a produce or fetch by the shards that own its partitions.
    pub(crate) fn note(&mut self, owners: impl IntoIterator<Item = usize>) {
        let mut owners = owners.into_iter();
        let Some(first) = owners.next() else { return };
        if first == self.here || owners.any(|owner| owner != first) {
            self.candidate = self.here;
            self.streak = 0;
        } else if first == self.candidate {
            self.streak = self.streak.saturating_add(1);
        } else {
            self.candidate = first;
            self.streak = 1;
        }
    }

    /// The shard that all recent traffic was for, once there is enough of it.
    pub(crate) fn wants(&self) -> Option<usize> {
        let needed = self
            .after_requests
            .saturating_mul(1 << self.moves.min(DOUBLINGS_MAX));
        (self.candidate != self.here && self.streak >= needed).then_some(self.candidate)
    }

    /// Starts over, after a wish that could not be granted.
    pub(crate) fn forget(&mut self) {
        self.candidate = self.here;
        self.streak = 0;
    }
}

/// Whether moving one connection leaves the shards about evenly loaded: the one it goes to may have a little more,
/// because work beside its data is cheaper than work spread out, but not much more.
pub(crate) fn keeps_balance(from: usize, to: usize, total: usize) -> bool {
    let slack = (total / 8).max(1);
    to <= from.saturating_add(slack)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unbroken_run_for_one_other_shard_moves() {
        let mut p = Placement::new(0, 0, 3);
        for _ in 0..10 {
            p.note([1, 1]);
            p.note([1, 2]);
        }
        assert_eq!(p.wants(), None, "mixed traffic");
        p.note([1]);
        p.note([1]);
        p.note([0]);
        p.note([1]);
        p.note([1]);
        assert_eq!(p.wants(), None, "broken by local traffic");
        p.note([]);
        p.note([1, 1, 1]);
        assert_eq!(p.wants(), Some(1));
        p.forget();
        assert_eq!(p.wants(), None);
    }

    #[test]
    fn another_candidate_starts_from_one() {
        let mut p = Placement::new(0, 0, 2);
        p.note([1]);
        p.note([2]);
        assert_eq!(p.wants(), None);
        p.note([2]);
        assert_eq!(p.wants(), Some(2));
    }

    #[test]
    fn every_move_doubles_the_evidence_and_never_overflows() {
        for (moves, needed) in [(0, 4), (1, 8), (2, 16), (40, 4096)] {
            let mut p = Placement::new(0, moves, 4);
            for _ in 0..needed - 1 {
                p.note([1]);
            }
            assert_eq!(p.wants(), None, "after {moves} moves");
            p.note([1]);
            assert_eq!(p.wants(), Some(1), "after {moves} moves");
        }
    }

    #[test]
    fn two_connections_may_swap_but_a_crowd_stays_spread() {
        assert!(keeps_balance(1, 1, 2));
        assert!(keeps_balance(2, 0, 2));
        assert!(!keeps_balance(1, 3, 4));
        assert!(keeps_balance(50, 50, 100));
        assert!(!keeps_balance(40, 60, 100));
    }
}
