//! Owns the course of a run: what was answered in each of its seconds, and how late.
//! Does not know clocks or what is answered; times come as arguments.
//! Invariant: every second of the window has an entry, one in which nothing was answered too.

use crate::account::Window;
use crate::clock::Nanos;
use hdrhistogram::Histogram;
use serde::Serialize;

const SECOND_NS: u64 = 1_000_000_000;
/// Latencies above this are counted as this: ten minutes.
const LATENCY_NS_MAX: u64 = 600 * SECOND_NS;

/// One second of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Second {
    /// Since the window began.
    pub at_seconds: u64,
    /// How long it was: 1, but for the last one of a window.
    pub seconds: f64,
    pub answers: u64,
    /// Of record batches.
    pub bytes: u64,
    /// Of what was answered in this second; absent where nothing was.
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub max_us: Option<f64>,
}

/// Gathers the seconds of a window.
#[derive(Debug)]
pub struct Series {
    window: Window,
    done: Vec<Second>,
    answers: u64,
    bytes: u64,
    latency_ns: Histogram<u64>,
}

impl Series {
    pub fn new(window: Window) -> Series {
        // Two digits are enough for a chart, and stay in the processor's cache.
        let latency_ns = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 2);
        Series {
            window,
            done: Vec::new(),
            answers: 0,
            bytes: 0,
            latency_ns: latency_ns.expect("bounds are in order"),
        }
    }

    /// Something meant for `intended` was answered at `now`. What comes out of order counts as of the latest second.
    pub fn add(&mut self, intended: Nanos, now: Nanos, bytes: u64) {
        if !self.window.holds(now) {
            return;
        }
        self.advance(now.since(self.window.from) / SECOND_NS);
        self.answers += 1;
        self.bytes += bytes;
        self.latency_ns
            .saturating_record(now.since(intended).max(1));
    }

    /// Ends all seconds before `second`.
    fn advance(&mut self, second: u64) {
        while (self.done.len() as u64) < second {
            self.end_second(1.0);
        }
    }

    fn end_second(&mut self, seconds: f64) {
        let some = !self.latency_ns.is_empty();
        let at = |quantile| some.then(|| self.latency_ns.value_at_quantile(quantile) as f64 / 1e3);
        let second = Second {
            at_seconds: self.done.len() as u64,
            seconds,
            answers: self.answers,
            bytes: self.bytes,
            p50_us: at(0.5),
            p99_us: at(0.99),
            max_us: some.then(|| self.latency_ns.max() as f64 / 1e3),
        };
        self.done.push(second);
        self.latency_ns.reset();
        (self.answers, self.bytes) = (0, 0);
    }

    /// All seconds of a window that ended at `to`.
    pub fn finish(mut self, to: Nanos) -> Vec<Second> {
        let length = to.min(self.window.to).since(self.window.from);
        self.advance(length / SECOND_NS);
        let rest = length - (length / SECOND_NS) * SECOND_NS;
        if rest > 0 && (self.done.len() as u64) == length / SECOND_NS {
            self.end_second(rest as f64 / SECOND_NS as f64);
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn every_second_has_an_entry_and_a_stall_is_seen() {
        let mut series = Series::new(Window {
            from: Nanos(1_000 * MS),
            to: Nanos(5_500 * MS),
        });
        // Before the window, in its first second, and again three seconds later.
        series.add(Nanos(0), Nanos(900 * MS), 7);
        series.add(Nanos(1_100 * MS), Nanos(1_200 * MS), 10);
        series.add(Nanos(1_100 * MS), Nanos(1_999 * MS), 20);
        series.add(Nanos(2_000 * MS), Nanos(4_500 * MS), 40);
        let seconds = series.finish(Nanos(5_500 * MS));
        let bytes: Vec<u64> = seconds.iter().map(|s| s.bytes).collect();
        assert_eq!(bytes, [30, 0, 0, 40, 0]);
        let lengths: Vec<f64> = seconds.iter().map(|s| s.seconds).collect();
        assert_eq!(lengths, [1.0, 1.0, 1.0, 1.0, 0.5]);
        assert_eq!(seconds[1].p99_us, None);
        let late = seconds[3].p50_us.expect("answered");
        assert!((late / 2_500_000.0 - 1.0).abs() < 0.02, "{late}");
    }

    #[test]
    fn work_that_ran_out_ends_the_series() {
        let window = Window {
            from: Nanos(0),
            to: Nanos(60_000 * MS),
        };
        let mut series = Series::new(window);
        series.add(Nanos(0), Nanos(100 * MS), 1);
        assert_eq!(series.finish(Nanos(1_250 * MS)).len(), 2);
        assert_eq!(Series::new(window).finish(Nanos(0)), []);
    }
}
