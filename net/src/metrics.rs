//! Owns the counters and latency histograms of the network side, per shard.
//! Does not know Prometheus or any other format; the binary renders the snapshots.
//! Invariant: recording never blocks on another shard and never allocates.

use crate::wire::versions::SERVED;
use crate::wire::ApiKey;
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Largest latency told apart, in microseconds: ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;
/// Three significant decimal digits would cost 8 times the memory; two are within 1 %.
const LATENCY_DIGITS: u8 = 2;

/// Key codes are small; this bounds the table of counters.
const KEYS_MAX: usize = 96;

/// Requests that the shards of their partitions answer.
const OF_PARTITIONS: [ApiKey; 5] = [
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::DeleteRecords,
    ApiKey::OffsetForLeaderEpoch,
];

/// Live counters of one shard. Written by that shard, read by anybody.
pub struct ShardMetrics {
    per_key: Vec<KeyCounters>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    connections: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    moved_in: AtomicU64,
    closed_in_error: AtomicU64,
    latency: Mutex<Latency>,
}

#[derive(Default)]
struct KeyCounters {
    requests: AtomicU64,
    errors: AtomicU64,
    crossed: AtomicU64,
}

#[derive(Clone)]
struct Latency {
    produce: Histogram<u64>,
    fetch: Histogram<u64>,
    all: Histogram<u64>,
}

impl Default for ShardMetrics {
    fn default() -> Self {
        let histogram = || {
            Histogram::new_with_max(LATENCY_US_MAX, LATENCY_DIGITS)
                .expect("bounds of the histogram are constant")
        };
        ShardMetrics {
            per_key: (0..KEYS_MAX).map(|_| KeyCounters::default()).collect(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            moved_in: AtomicU64::new(0),
            closed_in_error: AtomicU64::new(0),
            latency: Mutex::new(Latency {
                produce: histogram(),
                fetch: histogram(),
                all: histogram(),
            }),
        }
    }
}

impl ShardMetrics {
    fn latency(&self) -> MutexGuard<'_, Latency> {
        // A histogram is never half written in a way that matters.
        self.latency.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request was answered (or needed no answer) this long after its last byte was read.
    pub(crate) fn answered(&self, key: ApiKey, failed: bool, latency: Duration) {
        let counters = &self.per_key[key.code() as usize];
        counters.requests.fetch_add(1, Relaxed);
        if failed {
            counters.errors.fetch_add(1, Relaxed);
        }
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let mut histograms = self.latency();
        histograms.all.saturating_record(us);
        if key == ApiKey::Produce {
            histograms.produce.saturating_record(us);
        } else if key == ApiKey::Fetch {
            histograms.fetch.saturating_record(us);
        }
    }

    /// A request is for partitions of other shards, if not only for those.
    pub(crate) fn crossed(&self, key: ApiKey) {
        assert!(OF_PARTITIONS.contains(&key));
        let counters = &self.per_key[key.code() as usize];
        counters.crossed.fetch_add(1, Relaxed);
    }

    pub(crate) fn bytes_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
    }
    pub(crate) fn bytes_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Relaxed);
    }
    pub(crate) fn accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }
    pub(crate) fn moved_in(&self) {
        self.moved_in.fetch_add(1, Relaxed);
    }
    pub(crate) fn closed_in_error(&self) {
        self.closed_in_error.fetch_add(1, Relaxed);
    }
    pub(crate) fn opened(&self) {
        self.connections.fetch_add(1, Relaxed);
    }
    pub(crate) fn closed(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    /// The counters as they are now. Counters of one snapshot may be a few requests apart.
    pub fn snapshot(&self) -> ShardSnapshot {
        let latency = self.latency().clone();
        ShardSnapshot {
            requests: SERVED
                .iter()
                .map(|served| {
                    let counters = &self.per_key[served.key.code() as usize];
                    RequestCount {
                        key: served.key.name(),
                        requests: counters.requests.load(Relaxed),
                        errors: counters.errors.load(Relaxed),
                    }
                })
                .collect(),
            crossed: OF_PARTITIONS
                .iter()
                .map(|key| {
                    let counters = &self.per_key[key.code() as usize];
                    (key.name(), counters.crossed.load(Relaxed))
                })
                .collect(),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            connections: self.connections.load(Relaxed),
            connections_accepted: self.accepted.load(Relaxed),
            connections_refused: self.refused.load(Relaxed),
            connections_moved_in: self.moved_in.load(Relaxed),
            connections_closed_in_error: self.closed_in_error.load(Relaxed),
            produce_latency_us: latency.produce,
            fetch_latency_us: latency.fetch,
            latency_us: latency.all,
        }
    }
}

/// How often one API key was asked for and how often the answer held an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestCount {
    /// Kafka's name of the API, such as `ListOffsets`.
    pub key: &'static str,
    pub requests: u64,
    pub errors: u64,
}

/// What one shard counted since the process started. Latencies are in microseconds, from the last byte of a request
/// read to its response handed to the socket.
#[derive(Clone, Debug)]
pub struct ShardSnapshot {
    /// One entry per API key that is served, by ascending key.
    pub requests: Vec<RequestCount>,
    /// Of the requests that go to the shards of their partitions: Kafka's name of the API, and how many were for partitions
    /// of other shards.
    pub crossed: Vec<(&'static str, u64)>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Open now.
    pub connections: u64,
    pub connections_accepted: u64,
    pub connections_refused: u64,
    pub connections_moved_in: u64,
    pub connections_closed_in_error: u64,
    pub produce_latency_us: Histogram<u64>,
    pub fetch_latency_us: Histogram<u64>,
    pub latency_us: Histogram<u64>,
}

const _: () = {
    let mut i = 0;
    while i < SERVED.len() {
        assert!(SERVED[i].key.code() >= 0 && (SERVED[i].key.code() as usize) < KEYS_MAX);
        i += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_shows_what_was_recorded() {
        let metrics = ShardMetrics::default();
        metrics.answered(ApiKey::Produce, false, Duration::from_micros(100));
        metrics.answered(ApiKey::Produce, true, Duration::from_micros(300));
        metrics.answered(ApiKey::Metadata, false, Duration::from_secs(3600));
        metrics.crossed(ApiKey::Fetch);
        metrics.opened();
        metrics.opened();
        metrics.closed();
        let snapshot = metrics.snapshot();
        let produce = snapshot
            .requests
            .iter()
            .find(|r| r.key == "Produce")
            .unwrap();
        assert_eq!((produce.requests, produce.errors), (2, 1));
        assert_eq!(snapshot.crossed[..2], [("Produce", 0), ("Fetch", 1)]);
        assert_eq!(snapshot.produce_latency_us.len(), 2);
        assert_eq!(snapshot.fetch_latency_us.len(), 0);
        assert_eq!(
            snapshot.latency_us.len(),
            3,
            "beyond the range counts as the largest value"
        );
        assert_eq!(snapshot.connections, 1);
        assert_eq!(snapshot.requests.len(), SERVED.len());
    }
}
