//! Owns when each request of a connection is meant to leave.
//! Does not know clocks, sockets or whether a request could leave at that time.
//! Invariant: the intended times depend on the plan alone; a slow broker never moves them.

use crate::clock::Nanos;

/// Intended send times of one connection, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Pace {
    /// As soon as there is room: the intended time is the time of sending, so a latency is a closed loop's.
    Maximum,
    /// One request each `interval_ns`, whatever happened to those before.
    Fixed {
        first: Nanos,
        interval_ns: f64,
        sent: u64,
    },
}

impl Pace {
    /// The share of connection `index` of `connections` in `requests_per_second`, spread evenly from `start` on.
    pub fn shared(
        start: Nanos,
        requests_per_second: f64,
        index: usize,
        connections: usize,
    ) -> Pace {
        assert!(requests_per_second > 0.0 && index < connections);
        let gap_ns = 1e9 / requests_per_second;
        Pace::Fixed {
            first: Nanos(start.0 + (gap_ns * index as f64) as u64),
            interval_ns: gap_ns * connections as f64,
            sent: 0,
        }
    }

    /// When the next request was or is meant to leave; `None` if whenever there is room.
    pub fn next_at(&self) -> Option<Nanos> {
        match self {
            Pace::Maximum => None,
            // Multiplied anew each time: added intervals would drift.
            Pace::Fixed {
                first,
                interval_ns,
                sent,
            } => Some(Nanos(first.0 + (*sent as f64 * interval_ns) as u64)),
        }
    }

    /// The intended time of the next request, if it should have left by `now`.
    pub fn due(&self, now: Nanos) -> Option<Nanos> {
        match self.next_at() {
            None => Some(now),
            Some(at) if at <= now => Some(at),
            Some(_) => None,
        }
    }

    /// Goes on to the request after the one that [`due`](Self::due) named.
    pub fn advance(&mut self) {
        match self {
            Pace::Maximum => {}
            Pace::Fixed { sent, .. } => *sent += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_share_a_rate_evenly() {
        let paces: Vec<Pace> = (0..4)
            .map(|i| Pace::shared(Nanos(1_000), 1e6, i, 4))
            .collect();
        let mut times: Vec<u64> = Vec::new();
        for mut pace in paces {
            for _ in 0..3 {
                times.push(pace.next_at().expect("fixed").0);
                pace.advance();
            }
        }
        times.sort_unstable();
        let expected: Vec<u64> = (0..12).map(|k| 1_000 + k * 1_000).collect();
        assert_eq!(times, expected);
    }

    #[test]
    fn intended_times_do_not_depend_on_when_requests_left() {
        let mut pace = Pace::shared(Nanos(0), 1_000.0, 0, 1);
        assert_eq!(pace.due(Nanos(0)), Some(Nanos(0)));
        pace.advance();
        assert_eq!(pace.due(Nanos(999_999)), None);
        // Stalled for five intervals: the requests meant for them are all due, each at its own time.
        let late = Nanos(5_500_000);
        let mut due = Vec::new();
        while let Some(at) = pace.due(late) {
            due.push(at.0);
            pace.advance();
        }
        assert_eq!(due, [1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000]);
        assert_eq!(pace.next_at(), Some(Nanos(6_000_000)));
    }

    #[test]
    fn a_long_run_does_not_drift() {
        let mut pace = Pace::shared(Nanos(0), 3.0, 0, 1);
        for _ in 0..3_000_000 {
            pace.advance();
        }
        let at = pace.next_at().expect("fixed").0;
        assert!(at.abs_diff(1_000_000 * 1_000_000_000) <= 1_000, "{at}");
    }

    #[test]
    fn maximum_is_always_due_now() {
        let mut pace = Pace::Maximum;
        assert_eq!(pace.due(Nanos(7)), Some(Nanos(7)));
        pace.advance();
        assert_eq!((pace.due(Nanos(9)), pace.next_at()), (Some(Nanos(9)), None));
    }
}
