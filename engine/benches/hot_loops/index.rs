//! Owns the times of finding the place in a segment where a read begins.
//! Does not know the read that follows.
//! Invariant: the index is that of a full segment of the default size, so that it is no smaller than a broker's.

use crate::Numbers;
use criterion::{BatchSize, Criterion};
use millrace_engine::formats::Index;
use std::hint::black_box;

/// Kafka's defaults of `segment.bytes` and `index.interval.bytes`.
const SEGMENT_BYTES: u32 = 1 << 30;
const INTERVAL_BYTES: u64 = 4096;

/// Batches just above the interval, so that nearly every one has an entry: the largest index there can be.
const BATCH_BYTES: u32 = 4200;
const RECORDS_IN_BATCH: u32 = 4;

pub fn lookup(c: &mut Criterion) {
    let mut index = Index::default();
    let batches = SEGMENT_BYTES / BATCH_BYTES;
    for n in 0..batches {
        let last = (n + 1) * RECORDS_IN_BATCH - 1;
        index.note(
            last,
            n * BATCH_BYTES,
            BATCH_BYTES,
            i64::from(n),
            INTERVAL_BYTES,
        );
    }
    let entries = index.offsets().len();
    assert_eq!(
        (entries, index.times().len()),
        (batches as usize - 1, entries)
    );

    let mut group = c.benchmark_group(format!("index of {entries} entries"));
    let mut numbers = Numbers(1);
    group.bench_function("by offset", |b| {
        b.iter_batched(
            || numbers.below((batches * RECORDS_IN_BATCH) as usize) as u32,
            |relative| black_box(&index).entry_for(relative),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("by time", |b| {
        b.iter_batched(
            || numbers.below(batches as usize) as i64,
            |timestamp_ms| black_box(&index).before_time(timestamp_ms),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}
