//! Owns the translation of the crates' own counters into samples of metric families.
//! Does not know how samples are rendered or asked for.
//! Invariant: bounds of buckets never change while the process runs, as scrapers demand.

use super::metrics::{self, Family, Sample, Spread};
use hdrhistogram::Histogram;
use millrace_engine::api::ShardMetrics;
use millrace_net::metrics::ShardSnapshot;

/// Upper bounds in seconds: flushes of fast devices fall into the first, timeouts into the last.
const SECONDS_BOUNDS: [f64; 18] = [
    25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
];

/// Upper bounds in bytes, from one block to the largest commit.
const BYTES_BOUNDS: [f64; 9] = [
    4096.0,
    16384.0,
    65536.0,
    262144.0,
    1048576.0,
    4194304.0,
    16777216.0,
    67108864.0,
    268435456.0,
];

/// Sorts recorded values into buckets; `unit` is what one step of the histogram stands for.
fn spread(histogram: &Histogram<u64>, unit: f64, bounds: &[f64]) -> Spread {
    let mut buckets: Vec<(f64, u64)> = bounds.iter().map(|bound| (*bound, 0)).collect();
    buckets.push((f64::MAX, 0));
    let mut sum = 0.0;
    for step in histogram.iter_recorded() {
        let value = step.value_iterated_to() as f64 * unit;
        let count = step.count_since_last_iteration();
        sum += value * count as f64;
        let at = buckets
            .iter()
            .position(|(bound, _)| value <= *bound)
            .expect("the last bound is the largest");
        buckets[at].1 += count;
    }
    Spread {
        sum,
        count: histogram.len(),
        buckets,
    }
}

/// A histogram of microseconds as seconds.
pub fn seconds_from_us(histogram: &Histogram<u64>) -> Spread {
    spread(histogram, 1e-6, &SECONDS_BOUNDS)
}

/// A histogram of nanoseconds as seconds.
pub fn seconds_from_ns(histogram: &Histogram<u64>) -> Spread {
    spread(histogram, 1e-9, &SECONDS_BOUNDS)
}

pub fn bytes(histogram: &Histogram<u64>) -> Spread {
    spread(histogram, 1.0, &BYTES_BOUNDS)
}

/// What remains of `all` without its parts. The three may be a few requests apart.
fn others(all: &Spread, parts: [&Spread; 2]) -> Spread {
    let less = |whole: u64, part: fn(&Spread, usize) -> u64, i: usize| {
        parts
            .iter()
            .fold(whole, |left, p| left.saturating_sub(part(p, i)))
    };
    let buckets: Vec<(f64, u64)> = all
        .buckets
        .iter()
        .enumerate()
        .map(|(i, (bound, count))| (*bound, less(*count, |p, i| p.buckets[i].1, i)))
        .collect();
    Spread {
        sum: (all.sum - parts.iter().map(|p| p.sum).sum::<f64>()).max(0.0),
        count: buckets.iter().map(|(_, count)| count).sum(),
        buckets,
    }
}

/// What the network side of one shard counted.
pub fn of_net(snapshot: &ShardSnapshot) -> Vec<Sample> {
    let mut samples = Vec::new();
    for api in &snapshot.requests {
        samples.push(Sample::count_of(&metrics::REQUESTS, api.key, api.requests));
        samples.push(Sample::count_of(
            &metrics::REQUEST_ERRORS,
            api.key,
            api.errors,
        ));
    }
    for (api, count) in &snapshot.crossed {
        samples.push(Sample::count_of(&metrics::REQUESTS_CROSSED, *api, *count));
    }
    let produce = seconds_from_us(&snapshot.produce_latency_us);
    let fetch = seconds_from_us(&snapshot.fetch_latency_us);
    let other = others(&seconds_from_us(&snapshot.latency_us), [&produce, &fetch]);
    for (api, spread) in [("Produce", produce), ("Fetch", fetch), ("other", other)] {
        samples.push(Sample::spread_of(&metrics::REQUEST_SECONDS, api, spread));
    }
    let counts: [(&'static Family, u64); 6] = [
        (&metrics::RECEIVED_BYTES, snapshot.bytes_in),
        (&metrics::SENT_BYTES, snapshot.bytes_out),
        (
            &metrics::CONNECTIONS_ACCEPTED,
            snapshot.connections_accepted,
        ),
        (&metrics::CONNECTIONS_REFUSED, snapshot.connections_refused),
        (&metrics::CONNECTIONS_MOVED, snapshot.connections_moved_in),
        (
            &metrics::CONNECTIONS_FAILED,
            snapshot.connections_closed_in_error,
        ),
    ];
    samples.extend(counts.map(|(family, count)| Sample::count(family, count)));
    samples.push(Sample::level(
        &metrics::CONNECTIONS,
        snapshot.connections as f64,
    ));
    samples
}

/// What the engine counted on one shard.
pub fn of_engine(shard: &ShardMetrics) -> Vec<Sample> {
    let compaction = &shard.counters.compaction;
    let counts: [(&'static Family, u64); 13] = [
        (&metrics::COMPACTION_PASSES, compaction.passes),
        (&metrics::COMPACTION_FAILURES, compaction.failures),
        (&metrics::COMPACTION_MOVED_BYTES, compaction.moved_bytes),
        (&metrics::COMPACTION_FREED_BYTES, compaction.freed_bytes),
        (
            &metrics::COMPACTION_REMOVED_RECORDS,
            compaction.removed_records,
        ),
        (
            &metrics::COMPACTION_UNREADABLE_BATCHES,
            compaction.unreadable_batches,
        ),
        (&metrics::JOURNAL_COMMITS, shard.journal.commits),
        (&metrics::JOURNAL_GROUPS, shard.journal.groups),
        (&metrics::JOURNAL_BYTES, shard.journal.bytes),
        (&metrics::CACHE_HITS, shard.counters.reads_memory),
        (&metrics::CACHE_MISSES, shard.counters.reads_disk),
        (&metrics::READ_BYTES, shard.counters.read_bytes),
        (&metrics::APPENDS_REFUSED, shard.counters.appends_refused),
    ];
    let memory_used = shard.cache_bytes as u64
        + shard.backlog_bytes as u64
        + shard.request_bytes
        + shard.response_bytes;
    let levels: [(&'static Family, u64); 13] = [
        (&metrics::PARTITIONS, shard.partitions as u64),
        (&metrics::JOURNAL_FILE_BYTES, shard.journal_file_bytes),
        (&metrics::CACHE_BYTES, shard.cache_bytes as u64),
        (&metrics::CACHE_BYTES_MAX, shard.cache_bytes_max),
        (&metrics::BACKLOG_BYTES, shard.backlog_bytes as u64),
        (&metrics::REQUEST_BYTES, shard.request_bytes),
        (&metrics::REQUEST_BYTES_MAX, shard.request_bytes_max),
        (&metrics::RESPONSE_BYTES, shard.response_bytes),
        (&metrics::RESPONSE_BYTES_MAX, shard.response_bytes_max),
        (&metrics::MEMORY_USED, memory_used),
        (&metrics::DISK_FREE, shard.disk.free),
        (&metrics::DISK_KEPT, shard.disk.kept),
        (&metrics::DISK_FULL, u64::from(shard.disk.full)),
    ];
    let mut samples = vec![
        Sample::spread(
            &metrics::JOURNAL_COMMIT_BYTES,
            bytes(&shard.journal.commit_bytes),
        ),
        Sample::spread(
            &metrics::FLUSH_SECONDS,
            seconds_from_ns(&shard.journal.flush_ns),
        ),
        Sample::count(&metrics::CROSS_SHARD_CALLS, shard.cross_shard_calls),
        Sample::count(&metrics::SCRUBBED_BYTES, shard.counters.scrubbed_bytes),
        Sample::count(
            &metrics::SCRUB_DAMAGED_BLOCKS,
            shard.counters.scrub_damaged_blocks,
        ),
        Sample::count(&metrics::STALLS, shard.counters.stalls),
    ];
    samples.extend(counts.map(|(family, count)| Sample::count(family, count)));
    samples.extend(levels.map(|(family, level)| Sample::level(family, level as f64)));
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(values: &[u64]) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_max(600_000_000, 2).unwrap();
        values.iter().for_each(|v| histogram.record(*v).unwrap());
        histogram
    }

    #[test]
    fn every_value_lands_in_one_bucket() {
        let spread = seconds_from_us(&recorded(&[10, 60, 60, 900, 599_000_000]));
        assert_eq!(spread.count, 5);
        assert_eq!(spread.buckets.iter().map(|b| b.1).sum::<u64>(), 5);
        assert_eq!(
            (
                spread.buckets[0].1,
                spread.buckets[2].1,
                spread.buckets[5].1
            ),
            (1, 2, 1)
        );
        assert_eq!(spread.buckets.last().unwrap().1, 1);
        assert!((spread.sum - 599.0).abs() < 6.0, "{}", spread.sum);
    }

    #[test]
    fn the_rest_is_what_the_parts_leave() {
        let all = seconds_from_us(&recorded(&[10, 60, 60, 900]));
        let rest = others(
            &all,
            [
                &seconds_from_us(&recorded(&[60])),
                &seconds_from_us(&recorded(&[900])),
            ],
        );
        assert_eq!(rest.count, 2);
        assert_eq!((rest.buckets[0].1, rest.buckets[2].1), (1, 1));
    }
}
