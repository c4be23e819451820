//! Owns the tests of record batches: against the oracle, through every compression, and damaged.
//! Does not know brokers.
//! Keeps: a damaged batch is an error, never other records.
use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{
    Compression as OracleCompression, Record as OracleRecord, RecordBatchDecoder,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use millrace_net::wire::batch::{Batch, BatchBuilder, BatchError, ControlKind, HEADER_BYTES};
use millrace_net::wire::compress::{CompressError, Compression};
use millrace_net::wire::record::{Header, Record};

use crate::support::{Generate, Rng};

const BYTES_MAX: usize = 8 << 20;

fn record(rng: &mut Rng) -> Record {
    let headers = (0..rng.below(4))
        // Few names, so that some repeat.
        .map(|_| Header {
            key: format!("h{}", rng.below(3)).into(),
            value: Generate::generate(rng, 0),
        })
        .collect();
    Record {
        offset: 0,
        timestamp_ms: 1_700_000_000_000 + rng.below(100_000) as i64 - 50_000,
        key: Generate::generate(rng, 0),
        value: Generate::generate(rng, 0),
        headers,
    }
}

fn build(records: &[Record], compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    for record in records {
        builder.push(record).expect("fits");
    }
    assert_eq!(builder.count(), records.len());
    builder.build().expect("compresses")
}

fn read(batch: &Batch) -> Vec<Record> {
    batch
        .records(BYTES_MAX)
        .expect("decompresses")
        .collect::<Result<_, _>>()
        .expect("readable")
}

#[test]
fn what_went_in_comes_out_of_every_compression() {
    let mut rng = Rng::seeded("round trip");
    for compression in Compression::ALL {
        for _ in 0..30 {
            let mut records: Vec<_> = (0..1 + rng.below(20)).map(|_| record(&mut rng)).collect();
            let bytes = build(&records, compression);
            let batch = Batch::decode(bytes).expect("valid");
            assert_eq!(batch.header.compression().expect("known"), compression);
            assert_eq!(batch.header.record_count as usize, records.len());
            assert_eq!(batch.header.next_offset(), records.len() as i64);
            assert_eq!(batch.header.base_timestamp_ms, records[0].timestamp_ms);
            let latest = records.iter().map(|record| record.timestamp_ms).max();
            assert_eq!(Some(batch.header.max_timestamp_ms), latest);
            for (offset, record) in records.iter_mut().enumerate() {
                record.offset = offset as i64;
            }
            assert_eq!(read(&batch), records);
        }
    }
}

#[test]
fn the_oracle_reads_our_batches() {
    let mut rng = Rng::seeded("oracle reads");
    for _ in 0..50 {
        let mut records: Vec<_> = (0..1 + rng.below(10)).map(|_| record(&mut rng)).collect();
        for record in &mut records {
            // The oracle keeps headers in a map.
            record.headers.truncate(1);
        }
        let mut bytes = build(&records, Compression::None);
        let set = RecordBatchDecoder::decode(&mut bytes).expect("oracle reads ours");
        assert_eq!(set.records.len(), records.len());
        for (offset, (theirs, ours)) in set.records.iter().zip(&records).enumerate() {
            assert_eq!(theirs.offset, offset as i64);
            assert_eq!(theirs.timestamp, ours.timestamp_ms);
            assert_eq!(theirs.key, ours.key);
            assert_eq!(theirs.value, ours.value);
            let headers: Vec<_> = theirs
                .headers
                .iter()
                .map(|(key, value)| Header {
                    key: Bytes::copy_from_slice(key.as_bytes()),
                    value: value.clone(),
                })
                .collect();
            assert_eq!(headers, ours.headers);
        }
    }
}

#[test]
fn we_read_the_batches_of_the_oracle() {
    let theirs: Vec<_> = (0..5)
        .map(|index| OracleRecord {
            transactional: true,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 3,
            producer_id: 77,
            producer_epoch: 2,
            timestamp_type: TimestampType::Creation,
            offset: 100 + index,
            sequence: 40 + index as i32,
            timestamp: 1000 - index,
            key: None,
            value: Some(Bytes::from(vec![index as u8; 1000])),
            headers: [("k".into(), None)].into_iter().collect(),
        })
        .collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression: OracleCompression::None,
    };
    RecordBatchEncoder::encode(&mut bytes, &theirs, &options).expect("valid");
    let mut bytes = bytes.freeze();
    let batch = Batch::take(&mut bytes).expect("valid").expect("whole");
    assert!(bytes.is_empty());
    let header = &batch.header;
    assert_eq!(
        (
            header.base_offset,
            header.leader_epoch,
            header.last_offset_delta
        ),
        (100, 3, 4)
    );
    assert_eq!(
        (
            header.producer_id,
            header.producer_epoch,
            header.base_sequence
        ),
        (77, 2, 40)
    );
    assert!(header.is_transactional() && !header.is_control() && !header.is_append_time());
    let ours = read(&batch);
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(
            (ours.offset, ours.timestamp_ms),
            (theirs.offset, theirs.timestamp)
        );
        assert_eq!((&ours.key, &ours.value), (&theirs.key, &theirs.value));
        assert_eq!(
            ours.headers,
            [Header {
                key: "k".into(),
                value: None
            }]
        );
    }
}

#[test]
fn duplicate_and_unreadable_header_keys_survive() {
    let headers = vec![
        Header {
            key: "a".into(),
            value: Some("1".into()),
        },
        Header {
            key: Bytes::from_static(&[0xff, 0xfe]),
            value: None,
        },
        Header {
            key: "a".into(),
            value: Some("2".into()),
        },
    ];
    let records = [Record {
        headers: headers.clone(),
        ..Default::default()
    }];
    let batch = Batch::decode(build(&records, Compression::None)).expect("valid");
    assert_eq!(read(&batch)[0].headers, headers);
}

#[test]
fn raw_snappy_is_read_too() {
    let records = [Record {
        value: Some(Bytes::from(vec![b'x'; 100_000])),
        ..Default::default()
    }];
    let plain = build(&records, Compression::None);
    let raw = snap::raw::Encoder::new()
        .compress_vec(&plain[HEADER_BYTES..])
        .expect("compresses");
    assert_eq!(
        Compression::Snappy
            .decompress(&raw, BYTES_MAX)
            .expect("raw"),
        plain[HEADER_BYTES..]
    );
    let framed = Compression::Snappy
        .compress(&plain[HEADER_BYTES..])
        .expect("compresses");
    assert_eq!(framed[..8], *b"\x82SNAPPY\0");
    assert_eq!(
        Compression::Snappy
            .decompress(&framed, BYTES_MAX)
            .expect("framed"),
        plain[HEADER_BYTES..]
    );
}

#[test]
fn output_is_bounded() {
    let zeros = vec![0; 1_000_000];
    for compression in Compression::ALL {
        let bytes = compression.compress(&zeros).expect("compresses");
        assert_eq!(
            compression.decompress(&bytes, zeros.len()).expect("fits"),
            zeros
        );
        let result = compression.decompress(&bytes, zeros.len() - 1);
        assert!(
            matches!(result, Err(CompressError::TooLarge { .. })),
            "{compression:?}"
        );
    }
}

#[test]
fn a_lie_about_the_size_of_raw_snappy_is_damage() {
    // Claims almost 4 GiB in 6 bytes.
    let lie = [0xff, 0xff, 0xff, 0xff, 0x0e, 0x00];
    let result = Compression::Snappy.decompress(&lie, usize::MAX);
    assert!(
        matches!(result, Err(CompressError::Damaged { .. })),
        "{result:?}"
    );
}

#[test]
fn every_flipped_bit_behind_the_checksum_is_noticed() {
    let records = [Record {
        key: Some("k".into()),
        value: Some("v".into()),
        ..Default::default()
    }];
    let bytes = build(&records, Compression::None);
    for at in 17..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1 << bit;
            let result = Batch::decode(damaged.into());
            assert!(
                matches!(result, Err(BatchError::Checksum { .. })),
                "byte {at} bit {bit}"
            );
        }
    }
    for length in 0..bytes.len() {
        assert!(Batch::decode(bytes.slice(..length)).is_err());
        let mut cut = bytes.slice(..length);
        assert!(matches!(Batch::take(&mut cut), Ok(None)), "cut at {length}");
        assert_eq!(cut.len(), length);
    }
}

/// Damages a batch and gives it a checksum that fits.
fn forge(bytes: &Bytes, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut forged = bytes.to_vec();
    change(&mut forged);
    let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &forged[21..]) as u32;
    forged[17..21].copy_from_slice(&checksum.to_be_bytes());
    forged.into()
}

#[test]
fn lies_under_a_good_checksum_are_errors() {
    let mut rng = Rng::seeded("forged");
    let records: Vec<_> = (0..4)
        .map(|index| Record {
            value: Some(vec![index; 9].into()),
            ..Default::default()
        })
        .collect();
    let bytes = build(&records, Compression::None);
    let records_of = |bytes: Bytes| -> Result<Vec<Record>, BatchError> {
        Batch::decode(bytes)?.records(BYTES_MAX)?.collect()
    };
    assert_eq!(records_of(bytes.clone()).expect("valid").len(), 4);
    for count in [-1i32, 3, 5, i32::MAX, i32::MIN] {
        let forged = forge(&bytes, |bytes| {
            bytes[57..61].copy_from_slice(&count.to_be_bytes())
        });
        assert!(records_of(forged).is_err(), "count {count}");
    }
    let forged = forge(&bytes, |bytes| bytes[22] |= 7);
    assert!(matches!(
        records_of(forged),
        Err(BatchError::Compress(CompressError::Unknown { code: 7 }))
    ));
    for compression in Compression::ALL {
        let bytes = build(&records, compression);
        for _ in 0..500 {
            let forged = forge(&bytes, |bytes| {
                let at = HEADER_BYTES + rng.below(bytes.len() - HEADER_BYTES);
                bytes[at] = rng.next() as u8;
            });
            // Another value is a legal outcome; a panic is not.
            let _ = records_of(forged);
        }
    }
}

#[test]
fn append_time_overrides_the_records() {
    let records = [
        Record {
            timestamp_ms: 5,
            ..Default::default()
        },
        Record {
            timestamp_ms: 9,
            ..Default::default()
        },
    ];
    let stamped = forge(&build(&records, Compression::None), |bytes| {
        bytes[22] |= 8;
        bytes[35..43].copy_from_slice(&1234i64.to_be_bytes());
    });
    let batch = Batch::decode(stamped).expect("valid");
    assert!(batch.header.is_append_time());
    assert_eq!(
        read(&batch)
            .iter()
            .map(|record| record.timestamp_ms)
            .collect::<Vec<_>>(),
        [1234, 1234]
    );
}

#[test]
fn control_records_are_told_apart() {
    let kind = |key: &'static [u8]| {
        ControlKind::of(&Record {
            key: Some(key.into()),
            ..Default::default()
        })
    };
    assert_eq!(kind(&[0, 0, 0, 0]), Ok(ControlKind::Abort));
    assert_eq!(kind(&[0, 0, 0, 1]), Ok(ControlKind::Commit));
    assert_eq!(kind(&[0, 0, 0, 5]), Ok(ControlKind::Other(5)));
    assert!(kind(&[0, 0, 0]).is_err());
    assert!(ControlKind::of(&Record::default()).is_err());
}
