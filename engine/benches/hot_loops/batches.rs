//! Owns the times of what is done to every batch that arrives: checksum, header, framing of its records.
//! Does not know where batches come from or go.
//! Invariant: each batch measured is one that a broker would take.

use criterion::{BenchmarkId, Criterion, Throughput};
use millrace_engine::types::batch::{crc32c, BatchHeader, CRC_START, LOG_OVERHEAD};
use millrace_engine::types::framing;
use millrace_engine::types::limits::BATCH_HEADER_BYTES;
use std::hint::black_box;

/// What clients send with default settings or a little more.
pub const BATCH_BYTES: usize = 64 << 10;

/// Bytes of the values of large and of small records.
const VALUE_BYTES: [usize; 2] = [1024, 100];

/// Of the records, not of now: the simulator's clock begins near it.
const TIMESTAMP_MS: i64 = 1_700_000_000_000;

pub fn crc(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc32c");
    for bytes in [1 << 10, 64 << 10, 1 << 20] {
        let data: Vec<u8> = (0..bytes).map(|n| (n * 31) as u8).collect();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |b| {
            b.iter(|| crc32c(black_box(&data)));
        });
    }
    group.finish();
}

pub fn header(c: &mut Criterion) {
    let batch = batch(1, 100);
    c.bench_function("batch header/parse", |b| {
        b.iter(|| BatchHeader::parse(black_box(&batch)).expect("a header"));
    });
}

pub fn framing(c: &mut Criterion) {
    let mut group = c.benchmark_group("record framing");
    for value_bytes in VALUE_BYTES {
        let count = records_in_batch(value_bytes);
        let batch = batch(count, value_bytes);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(name(count, value_bytes), |b| {
            let records = &batch[BATCH_HEADER_BYTES..];
            b.iter(|| framing::check(black_box(records), count).expect("sound records"));
        });
    }
    group.finish();
}

/// Everything that is checked of a batch when it arrives: the three above together.
pub fn check(c: &mut Criterion) {
    let mut group = c.benchmark_group("check from client");
    for value_bytes in VALUE_BYTES {
        let count = records_in_batch(value_bytes);
        let batch = batch(count, value_bytes);
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_function(name(count, value_bytes), |b| {
            b.iter(|| BatchHeader::check_from_client(black_box(&batch)).expect("a batch"));
        });
    }
    group.finish();
}

/// Records whose values fill a batch.
fn records_in_batch(value_bytes: usize) -> i32 {
    (BATCH_BYTES / value_bytes) as i32
}

fn name(records: i32, value_bytes: usize) -> String {
    format!("{records} of {value_bytes} B")
}

/// One batch of records without keys.
pub fn batch(records: i32, value_bytes: usize) -> Vec<u8> {
    let mut batch = vec![0; BATCH_HEADER_BYTES];
    for delta in 0..records {
        // Attributes, its time, its offset, no key, the value, no headers.
        let mut record = vec![0, 0];
        put_varint(&mut record, delta);
        put_varint(&mut record, -1);
        put_varint(&mut record, value_bytes as i32);
        record.resize(record.len() + value_bytes, b'v');
        record.push(0);
        put_varint(&mut batch, record.len() as i32);
        batch.extend(record);
    }
    let length = (batch.len() - LOG_OVERHEAD) as i32;
    let mut put = |at: usize, bytes: &[u8]| batch[at..at + bytes.len()].copy_from_slice(bytes);
    put(8, &length.to_be_bytes());
    put(16, &[2]);
    put(23, &(records - 1).to_be_bytes());
    put(27, &TIMESTAMP_MS.to_be_bytes());
    put(35, &TIMESTAMP_MS.to_be_bytes());
    // Producer id, its epoch and sequence: none.
    put(43, &[0xff; 14]);
    put(57, &records.to_be_bytes());
    let crc = crc32c(&batch[CRC_START..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn put_varint(out: &mut Vec<u8>, value: i32) {
    let mut left = ((value << 1) ^ (value >> 31)) as u32;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}
