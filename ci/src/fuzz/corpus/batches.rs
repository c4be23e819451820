//! Owns making record batches: every codec, every kind, and bombs.
//! Does not know topics.
//! Invariant: all but those named damaged are batches with a checksum that fits.

use super::{made, Made};
use crate::fuzz::batch::{sealed, DECOMPRESSED_BYTES_MAX};
use bytes::Bytes;
use millrace_net::wire::batch::BatchBuilder;
use millrace_net::wire::compress::Compression;
use millrace_net::wire::record::{Header, Record};

/// More than the target may hold at once.
const ZSTD_BOMB_BYTES: usize = 80 << 20;

const ATTRIBUTES_AT: usize = 22;
const COUNT_AT: usize = 57;
const APPEND_TIME: u8 = 8;
const TRANSACTIONAL: u8 = 16;
const CONTROL: u8 = 32;

pub fn make() -> Vec<Made> {
    let mut all = Vec::new();
    for compression in Compression::ALL {
        let name = compression.name();
        let plain = build(compression, records(5));
        all.push(made("batch", format!("{name}-records"), plain.clone()));
        all.push(made(
            "batch",
            format!("{name}-one"),
            build(compression, records(1)),
        ));
        all.push(made(
            "batch",
            format!("{name}-cut"),
            &plain[..plain.len() - 3],
        ));
        // What others compress to a thousandth is too large for a corpus.
        let becomes = match compression {
            Compression::None => None,
            Compression::Gzip | Compression::Snappy | Compression::Lz4 => {
                Some(DECOMPRESSED_BYTES_MAX + 1)
            }
            Compression::Zstd => Some(ZSTD_BOMB_BYTES),
        };
        all.extend(becomes.map(|bytes| {
            let bomb = Record {
                value: Some(vec![0; bytes].into()),
                ..Record::default()
            };
            let bomb = build(compression, vec![bomb]);
            made("batch", format!("{name}-bomb"), bomb)
        }));
        let mut many = plain.clone();
        many[COUNT_AT..COUNT_AT + 4].copy_from_slice(&i32::MAX.to_be_bytes());
        all.push(made("batch", format!("{name}-huge-count"), seal(many)));
    }
    let with = |attributes: u8, records| {
        let mut batch = build(Compression::None, records);
        batch[ATTRIBUTES_AT] |= attributes;
        seal(batch)
    };
    all.push(made("batch", "idempotent", idempotent(records(3))));
    all.push(made("batch", "append-time", with(APPEND_TIME, records(3))));
    all.push(made(
        "batch",
        "transactional",
        with(TRANSACTIONAL, records(3)),
    ));
    let marker = Record {
        key: Some(Bytes::from_static(&[0, 0, 0, 1])),
        value: Some(Bytes::from_static(&[0; 6])),
        ..Record::default()
    };
    all.push(made(
        "batch",
        "control",
        with(TRANSACTIONAL | CONTROL, vec![marker]),
    ));
    all.push(made("batch", "unknown-codec", with(7, records(1))));
    let two = [
        build(Compression::None, records(1)),
        build(Compression::Zstd, records(2)),
    ];
    all.push(made("batch", "two", two.concat()));
    all
}

/// Records with and without keys, values and headers.
pub fn records(count: i64) -> Vec<Record> {
    let record = |n: i64| Record {
        offset: 0,
        timestamp_ms: 1_700_000_000_000 + (n * 7) % 5,
        key: (n % 3 != 2).then(|| format!("key-{n}").into()),
        value: (n % 4 != 3).then(|| format!("value-{n}-").repeat(4).into()),
        headers: (0..n % 3)
            .map(|h| Header {
                key: "header".into(),
                value: (h == 0).then(|| Bytes::from_static(b"v")),
            })
            .collect(),
    };
    (0..count).map(record).collect()
}

pub fn build(compression: Compression, records: Vec<Record>) -> Vec<u8> {
    finish(BatchBuilder::new(compression), records)
}

/// The first batch of an idempotent producer.
pub fn idempotent(records: Vec<Record>) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    (builder.producer_id, builder.producer_epoch) = (4_000, 1);
    builder.base_sequence = 0;
    finish(builder, records)
}

fn finish(mut builder: BatchBuilder, records: Vec<Record>) -> Vec<u8> {
    for record in records {
        builder.push(&record).expect("a small record");
    }
    builder.build().expect("it compresses").to_vec()
}

fn seal(batch: Vec<u8>) -> Vec<u8> {
    sealed(&batch).expect("longer than a header")
}
