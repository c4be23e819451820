//! Owns the counting of a run: what was answered in the window that counts, how late, and what never came.
//! Does not know clocks or sockets; times come as arguments.
//! Invariant: a request meant for the window has exactly one latency in the histogram, answered or not.

use crate::clock::Nanos;
use crate::series::{Second, Series};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;

/// Latencies above this are counted as this: ten minutes.
const LATENCY_NS_MAX: u64 = 600 * 1_000_000_000;

/// Latencies of one kind.
#[derive(Clone, Debug)]
pub struct Latencies {
    ns: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        // Three digits: below 0.1 % of error, in a quarter of a megabyte.
        let ns = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("bounds are in order");
        Latencies { ns }
    }
}

/// Points of a curve for each tenfold of `1 / (1 - p)`.
const CURVE_POINTS_PER_DECADE: i32 = 8;
/// The curve ends at the latest at p99.999.
const CURVE_DECADES: i32 = 5;

/// A point of a percentile curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    /// From 0 to below 1.
    pub quantile: f64,
    pub us: f64,
}

/// Percentiles, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LatencySummary {
    pub samples: u64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p99_9_us: f64,
    pub p99_99_us: f64,
    pub max_us: f64,
}

impl Latencies {
    pub fn record(&mut self, from: Nanos, to: Nanos) {
        self.ns.saturating_record(to.since(from).max(1));
    }

    pub fn summary(&self) -> LatencySummary {
        let at = |quantile| self.ns.value_at_quantile(quantile) as f64 / 1e3;
        if self.ns.is_empty() {
            return LatencySummary::default();
        }
        LatencySummary {
            samples: self.ns.len(),
            mean_us: self.ns.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            p99_99_us: at(0.9999),
            max_us: self.ns.max() as f64 / 1e3,
        }
    }

    /// The whole distribution, denser the rarer; it ends where a single sample would be a point.
    pub fn curve(&self) -> Vec<CurvePoint> {
        let points = 0..=CURVE_POINTS_PER_DECADE * CURVE_DECADES;
        let rarity = |point: i32| 10f64.powf(f64::from(point) / f64::from(CURVE_POINTS_PER_DECADE));
        points
            .map(rarity)
            .take_while(|&rarity| rarity <= self.ns.len() as f64)
            .map(|rarity| {
                let quantile = 1.0 - 1.0 / rarity;
                let us = self.ns.value_at_quantile(quantile) as f64 / 1e3;
                CurvePoint { quantile, us }
            })
            .collect()
    }
}

/// The part of a run that counts, after the warm-up: from `from`, to before `to`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    pub from: Nanos,
    pub to: Nanos,
}

impl Window {
    pub fn holds(&self, at: Nanos) -> bool {
        self.from <= at && at < self.to
    }

    pub fn seconds(&self) -> f64 {
        self.to.since(self.from) as f64 / 1e9
    }
}

/// What one answered request carried, without the parts that were refused.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Carried {
    /// Of record batches, their headers included.
    pub bytes: u64,
    pub records: u64,
}

/// The counts of a run.
#[derive(Debug)]
pub struct Account {
    pub window: Window,
    latencies: Latencies,
    series: Series,
    requests: u64,
    carried: Carried,
    errors: BTreeMap<i16, u64>,
    unanswered: u64,
    unsent: u64,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    pub seconds: f64,
    pub requests: u64,
    pub records: u64,
    /// Of record batches, their headers included.
    pub bytes: u64,
    pub requests_per_second: f64,
    pub records_per_second: f64,
    pub mib_per_second: f64,
    /// From the intended time of sending to the answer.
    pub latency: LatencySummary,
    pub latency_curve: Vec<CurvePoint>,
    /// What was answered in each second of the window.
    pub series: Vec<Second>,
    /// Partitions refused, by Kafka's error code, over the whole run.
    pub errors: BTreeMap<i16, u64>,
    /// Sent in the window, without an answer when waiting for it ended; their latency is counted as until then.
    pub unanswered: u64,
    /// Meant for the window but never sent; their latency is counted as until the end.
    pub unsent: u64,
}

impl Account {
    pub fn new(window: Window) -> Account {
        Account {
            window,
            latencies: Latencies::default(),
            series: Series::new(window),
            requests: 0,
            carried: Carried::default(),
            errors: BTreeMap::new(),
            unanswered: 0,
            unsent: 0,
        }
    }

    /// A request meant for `intended` was answered at `now`. Throughput counts answers that came in the window,
    /// latency the requests meant for it.
    pub fn answered(&mut self, intended: Nanos, now: Nanos, carried: Carried) {
        self.series.add(intended, now, carried.bytes);
        if self.window.holds(now) {
            self.requests += 1;
            self.carried.bytes += carried.bytes;
            self.carried.records += carried.records;
        }
        if self.window.holds(intended) {
            self.latencies.record(intended, now);
        }
    }

    /// Part of an answer was an error.
    pub fn refused(&mut self, code: i16) {
        *self.errors.entry(code).or_insert(0) += 1;
    }

    /// A request that was sent had no answer by `end`, the end of waiting.
    pub fn unanswered(&mut self, intended: Nanos, end: Nanos) {
        if self.window.holds(intended) {
            self.unanswered += 1;
            self.latencies.record(intended, end);
        }
    }

    /// A request was never sent because those before it were in the way.
    pub fn unsent(&mut self, intended: Nanos, end: Nanos) {
        if self.window.holds(intended) {
            self.unsent += 1;
            self.latencies.record(intended, end);
        }
    }

    /// Ends the window early, where the work ran out.
    pub fn close(&mut self, now: Nanos) {
        self.window.to = self.window.to.min(now).max(self.window.from);
    }

    pub fn outcome(self) -> Outcome {
        let seconds = self.window.seconds();
        let per_second = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        Outcome {
            seconds,
            requests: self.requests,
            records: self.carried.records,
            bytes: self.carried.bytes,
            requests_per_second: per_second(self.requests as f64),
            records_per_second: per_second(self.carried.records as f64),
            mib_per_second: per_second(self.carried.bytes as f64 / f64::from(1 << 20)),
            latency: self.latencies.summary(),
            latency_curve: self.latencies.curve(),
            series: self.series.finish(self.window.to),
            errors: self.errors,
            unanswered: self.unanswered,
            unsent: self.unsent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::Pace;

    const MS: u64 = 1_000_000;

    fn near(got_us: f64, expected_us: f64) {
        assert!(
            (got_us / expected_us - 1.0).abs() < 0.002,
            "{got_us} is not {expected_us}"
        );
    }

    #[test]
    fn only_the_window_counts() {
        let mut account = Account::new(Window {
            from: Nanos(10 * MS),
            to: Nanos(20 * MS),
        });
        let carried = Carried {
            bytes: 1 << 20,
            records: 3,
        };
        account.answered(Nanos(8 * MS), Nanos(9 * MS), carried);
        // Warm-up's request, answered in the window: throughput yes, latency no.
        account.answered(Nanos(9 * MS), Nanos(11 * MS), carried);
        account.answered(Nanos(12 * MS), Nanos(13 * MS), carried);
        // The window's request, answered after it: latency yes, throughput no.
        account.answered(Nanos(19 * MS), Nanos(24 * MS), carried);
        let outcome = account.outcome();
        assert_eq!(
            (outcome.requests, outcome.records, outcome.bytes),
            (2, 6, 2 << 20)
        );
        near(outcome.mib_per_second, 200.0);
        assert_eq!(outcome.latency.samples, 2);
        near(outcome.latency.p50_us, 1_000.0);
        near(outcome.latency.max_us, 5_000.0);
    }

    /// A broker that answers in 1 ms but stands still once for 100 ms. Counted from when requests could be sent, one
    /// request would be slow; everybody who meant to send meanwhile waited too, and that is what must be seen.
    #[test]
    fn a_stall_is_seen_by_all_who_meant_to_send_during_it() {
        let mut account = Account::new(Window {
            from: Nanos(0),
            to: Nanos(1_000 * MS),
        });
        let mut pace = Pace::shared(Nanos(0), 1_000.0, 0, 1);
        let mut now = 0;
        while now < 1_000 * MS {
            // One in flight: the next is sent when the one before was answered.
            let intended = match pace.due(Nanos(now)) {
                Some(intended) => intended,
                None => {
                    now = pace.next_at().expect("fixed").0;
                    continue;
                }
            };
            pace.advance();
            let stalled = intended.0 == 500 * MS;
            now += if stalled { 100 * MS } else { MS / 2 };
            account.answered(intended, Nanos(now), Carried::default());
        }
        let latency = account.outcome().latency;
        assert_eq!(latency.samples, 1_000);
        near(latency.p50_us, 500.0);
        near(latency.max_us, 100_000.0);
        // The backlog shrinks by half a millisecond each half millisecond: 200 requests were late, so p90 is.
        assert!(latency.p90_us > 40_000.0, "{latency:?}");
    }

    #[test]
    fn what_never_came_is_as_late_as_the_end() {
        let mut account = Account::new(Window {
            from: Nanos(0),
            to: Nanos(100 * MS),
        });
        account.answered(Nanos(MS), Nanos(2 * MS), Carried::default());
        account.unanswered(Nanos(3 * MS), Nanos(203 * MS));
        account.unsent(Nanos(4 * MS), Nanos(204 * MS));
        account.unsent(Nanos(100 * MS), Nanos(204 * MS));
        let outcome = account.outcome();
        assert_eq!(
            (outcome.requests, outcome.unanswered, outcome.unsent),
            (1, 1, 1)
        );
        assert_eq!(outcome.latency.samples, 3);
        near(outcome.latency.p50_us, 200_000.0);
    }

    #[test]
    fn work_that_runs_out_ends_the_window() {
        let mut account = Account::new(Window {
            from: Nanos(0),
            to: Nanos(100 * MS),
        });
        account.answered(
            Nanos(MS),
            Nanos(2 * MS),
            Carried {
                bytes: 1 << 20,
                records: 1,
            },
        );
        account.close(Nanos(50 * MS));
        account.close(Nanos(70 * MS));
        assert_eq!(account.window.to, Nanos(50 * MS));
        near(account.outcome().mib_per_second, 20.0);
    }

    #[test]
    fn the_curve_grows_to_the_rarest_that_was_seen() {
        let mut latencies = Latencies::default();
        for us in 1..=10_000 {
            latencies.record(Nanos(0), Nanos(us * 1_000));
        }
        let curve = latencies.curve();
        assert_eq!(curve.len(), 4 * CURVE_POINTS_PER_DECADE as usize + 1);
        assert!(curve
            .windows(2)
            .all(|p| p[0].quantile < p[1].quantile && p[0].us <= p[1].us));
        near(curve[curve.len() - 1].us, 9_999.0);
        near(curve[CURVE_POINTS_PER_DECADE as usize].us, 9_000.0);
        assert_eq!(Latencies::default().curve(), []);
    }

    #[test]
    fn nothing_is_nothing_and_not_a_division_by_zero() {
        let outcome = Account::new(Window {
            from: Nanos(5),
            to: Nanos(5),
        })
        .outcome();
        assert_eq!((outcome.mib_per_second, outcome.latency.samples), (0.0, 0));
    }
}
