//! Owns tests of the rules of compaction, one by one, without files.
//! Does not know segments. Invariant checked: what goes, stays and changes is what goes, stays and changes in Kafka.

use super::filter::{note_keys, Aborted, Fate, Filter, Rules};
use super::map::OffsetMap;
use super::records::Records;
use super::{groups, Source};
use crate::log::compact::deflate::Deflate;
use crate::log::producers::LastOf;
use crate::log::transactions::TxnSpan;
use crate::log::Log;
use crate::meta::TopicConfig;
use crate::rt::sim::{Sim, SimConfig};
use crate::rt::Mono;
use crate::types::batch::build::{self, zigzag};
use crate::types::batch::{stamp, BatchHeader, Codec};
use crate::types::Offset;
use hashbrown::HashMap;
use std::time::Duration;

const NOW: i64 = 1_000_000;
const RETENTION: u64 = 500;
const CODECS: [Codec; 5] = [
    Codec::None,
    Codec::Gzip,
    Codec::Snappy,
    Codec::Lz4,
    Codec::Zstd,
];

/// A record as tests see it: offset delta, timestamp, key, value.
type Rec = (i32, i64, &'static str, Option<&'static str>);

/// A batch at an offset; of a producer and its transaction where that is said.
fn batch(codec: Codec, base: Offset, records: &[Rec], of: Option<(i64, i32)>) -> Vec<u8> {
    let first = records[0].1;
    let mut body = Deflate::new(codec).unwrap();
    for (delta, time, key, value) in records {
        let mut record = vec![0u8];
        zigzag(time - first, &mut record);
        zigzag(i64::from(*delta), &mut record);
        zigzag(key.len() as i64, &mut record);
        record.extend(key.as_bytes());
        zigzag(value.map_or(-1, |v| v.len() as i64), &mut record);
        record.extend(value.unwrap_or_default().as_bytes());
        record.push(0);
        let mut line = Vec::new();
        zigzag(record.len() as i64, &mut line);
        line.extend(record);
        body.write(&line).unwrap();
    }
    let count = records.last().unwrap().0 + 1;
    let of = of.map(|(id, sequence)| (id, 0, sequence));
    let mut b = build::batch(count, &body.finish().unwrap(), first, of);
    b = build::with_attributes(b, codec as i16);
    stamp(&mut b, base, 3);
    b
}

fn marker(base: Offset, producer: i64, commit: bool) -> Vec<u8> {
    let mut record = vec![0, 0, 0];
    zigzag(4, &mut record);
    record.extend([0, 0, 0, u8::from(commit)]);
    zigzag(6, &mut record);
    record.extend([0, 0, 0, 0, 0, 0, 0]);
    let mut body = Vec::new();
    zigzag(record.len() as i64, &mut body);
    body.extend(record);
    let b = build::batch(1, &body, 77, Some((producer, 0, -1)));
    let mut b = build::with_attributes(b, 0b11_0000);
    stamp(&mut b, base, 3);
    b
}

#[derive(Default)]
struct Given {
    spans: Vec<TxnSpan>,
    producers: HashMap<i64, LastOf>,
    now_ms: Option<i64>,
    /// Where the map ends, if not at the end.
    map_end: Option<Offset>,
}

/// The records of a batch, with their offsets.
type Seen = Vec<(Offset, i64, String, Option<String>)>;

async fn seen(batch: &[u8]) -> Seen {
    let header = BatchHeader::parse(batch).unwrap();
    assert!(header.crc_matches(batch));
    let mut records = Records::of(&header, batch).unwrap();
    let mut out = Vec::new();
    while let Some(record) = records.next().await.unwrap() {
        let mut value = None;
        if record.has_value {
            // Key and value are one letter each here.
            let at = record.rest.len() - 2;
            value = Some((record.rest[at] as char).to_string());
        }
        out.push((
            header.base_offset + i64::from(record.offset_delta),
            header.base_timestamp + record.timestamp_delta,
            String::from_utf8(record.key.unwrap_or_default().to_vec()).unwrap(),
            value,
        ));
    }
    out
}

/// Compacts the batches as one log; gives what is left of each, and the markers that went.
fn compact(batches: &[Vec<u8>], given: Given) -> (Vec<Fate>, Vec<(i64, Offset)>) {
    let sim = Sim::new(1, SimConfig::default());
    let batches = batches.to_vec();
    sim.block_on(async move {
        let aborted = Aborted::new(&given.spans);
        let mut map = OffsetMap::new(1 << 20, 1_000, [1, 2]);
        let mut end = 0;
        for b in &batches {
            let header = BatchHeader::parse(b).unwrap();
            let below = given.map_end.is_none_or(|end| header.next_offset() <= end);
            if below && !header.is_control() && !aborted.has(&header) {
                assert!(note_keys(&mut map, &header, b, 0).await.unwrap());
            }
            end = header.next_offset();
        }
        let mut filter = Filter::new(Rules {
            map: &map,
            map_end: given.map_end.unwrap_or(end),
            aborted: &aborted,
            producers: &given.producers,
            now_ms: given.now_ms.unwrap_or(NOW),
            delete_retention_ms: RETENTION,
        });
        let mut fates = Vec::new();
        for b in &batches {
            let header = BatchHeader::parse(b).unwrap();
            fates.push(filter.next(&header, b, false).await.unwrap());
        }
        (fates, filter.markers_gone)
    })
}

fn left(fate: &Fate, of: &[u8]) -> Option<Vec<u8>> {
    match fate {
        Fate::AsItIs => Some(of.to_vec()),
        Fate::Replaced(b) => Some(b.clone()),
        Fate::Gone => None,
    }
}

fn records_of(b: &[u8]) -> Seen {
    let (sim, b) = (Sim::new(1, SimConfig::default()), b.to_vec());
    sim.block_on(async move { seen(&b).await })
}

#[test]
fn the_last_record_of_each_key_stays_where_it_is_in_every_codec() {
    for codec in CODECS {
        let log = [
            batch(
                codec,
                10,
                &[(0, 5, "a", Some("1")), (1, 6, "b", Some("2"))],
                None,
            ),
            batch(
                codec,
                12,
                &[
                    (0, 7, "a", Some("3")),
                    (1, 4, "c", Some("4")),
                    (2, 9, "a", Some("5")),
                ],
                Some((9, 40)),
            ),
        ];
        let (fates, _) = compact(&log, Given::default());
        let first = left(&fates[0], &log[0]).unwrap();
        let second = left(&fates[1], &log[1]).unwrap();
        let text = |s: &str| s.to_string();
        assert_eq!(records_of(&first), [(11, 6, text("b"), Some(text("2")))]);
        assert_eq!(
            records_of(&second),
            [
                (13, 4, text("c"), Some(text("4"))),
                (14, 9, text("a"), Some(text("5")))
            ]
        );
        let before = BatchHeader::parse(&log[1]).unwrap();
        let after = BatchHeader::parse(&second).unwrap();
        let kept = BatchHeader {
            size: before.size,
            crc: before.crc,
            record_count: 3,
            ..after
        };
        assert_eq!(
            kept,
            BatchHeader {
                max_timestamp: 9,
                ..before
            },
            "{codec:?}"
        );
        assert_eq!(after.record_count, 2);
        // Nothing is left to do.
        assert_eq!(
            compact(&[first, second], Given::default()).0,
            [Fate::AsItIs, Fate::AsItIs]
        );
    }
}

#[test]
fn a_tombstone_stays_until_its_time_and_goes_then() {
    let log = [
        batch(Codec::Zstd, 0, &[(0, 5, "a", Some("1"))], None),
        batch(
            Codec::Zstd,
            1,
            &[(0, 6, "a", None), (1, 8, "b", Some("2"))],
            None,
        ),
    ];
    let (fates, _) = compact(&log, Given::default());
    assert_eq!(fates[0], Fate::Gone);
    let marked = left(&fates[1], &log[1]).unwrap();
    let header = BatchHeader::parse(&marked).unwrap();
    assert_eq!(header.delete_horizon(), Some(NOW + RETENTION as i64));
    let times: Vec<i64> = records_of(&marked).iter().map(|r| r.1).collect();
    assert_eq!((times, header.max_timestamp), (vec![6, 8], 8));
    let at = |now_ms| {
        let given = Given {
            now_ms: Some(now_ms),
            ..Given::default()
        };
        compact(std::slice::from_ref(&marked), given).0.remove(0)
    };
    assert_eq!(at(NOW + RETENTION as i64 - 1), Fate::AsItIs);
    let after = left(&at(NOW + RETENTION as i64), &marked).unwrap();
    let keys: Vec<String> = records_of(&after).into_iter().map(|r| r.2).collect();
    assert_eq!(keys, ["b"]);
    let header = BatchHeader::parse(&after).unwrap();
    assert_eq!((header.base_offset, header.last_offset()), (1, 2));
}

#[test]
fn what_lies_behind_the_map_stays() {
    let log = [
        batch(Codec::None, 0, &[(0, 5, "a", Some("1"))], None),
        batch(Codec::None, 1, &[(0, 5, "a", Some("2"))], None),
        batch(Codec::None, 2, &[(0, 5, "a", Some("3"))], None),
    ];
    let given = Given {
        map_end: Some(2),
        ..Given::default()
    };
    let expected = [Fate::Gone, Fate::AsItIs, Fate::AsItIs];
    assert_eq!(compact(&log, given).0, expected);
}

#[test]
fn the_last_batch_of_a_producer_stays_without_its_records() {
    let log = [
        batch(Codec::Gzip, 0, &[(0, 5, "a", Some("1"))], Some((7, 0))),
        batch(
            Codec::Gzip,
            1,
            &[(0, 9, "a", Some("2")), (1, 8, "a", Some("3"))],
            Some((7, 1)),
        ),
        batch(Codec::Gzip, 3, &[(0, 5, "a", Some("4"))], None),
    ];
    let last = LastOf {
        data: Some(2),
        epoch: 0,
    };
    let given = || Given {
        producers: [(7, last)].into_iter().collect(),
        ..Given::default()
    };
    let (fates, _) = compact(&log, given());
    assert_eq!((&fates[0], &fates[2]), (&Fate::Gone, &Fate::AsItIs));
    let empty = left(&fates[1], &log[1]).unwrap();
    let header = BatchHeader::parse(&empty).unwrap();
    assert!(header.crc_matches(&empty));
    assert_eq!((header.base_offset, header.last_offset()), (1, 2));
    assert_eq!((header.record_count, header.size), (0, 61));
    assert_eq!(
        (
            header.producer_id,
            header.base_sequence,
            header.last_sequence()
        ),
        (7, 1, 2)
    );
    assert_eq!((header.codec(), header.max_timestamp), (Ok(Codec::None), 9));
    assert_eq!(
        compact(std::slice::from_ref(&empty), given()).0,
        [Fate::AsItIs]
    );
    assert_eq!(compact(&[empty], Given::default()).0, [Fate::Gone]);
}

#[test]
fn aborted_records_go_and_their_marker_after_them() {
    let of = |base, key, producer| {
        let b = batch(
            Codec::None,
            base,
            &[(0, 5, key, Some("1"))],
            Some((producer, 0)),
        );
        build::transactional(b)
    };
    let log = [
        of(0, "a", 7),
        of(1, "b", 8),
        marker(2, 7, false),
        of(3, "a", 7),
        marker(4, 8, true),
        marker(5, 7, true),
    ];
    let span = TxnSpan {
        producer_id: 7,
        epoch: 0,
        first: 0,
        last: 2,
    };
    let given = |now_ms| Given {
        spans: vec![span],
        now_ms: Some(now_ms),
        ..Given::default()
    };
    let (fates, gone) = compact(&log, given(NOW));
    let as_it_is = Fate::AsItIs;
    assert_eq!(fates[0], Fate::Gone, "aborted");
    assert!(
        fates[1..].iter().all(|f| *f == as_it_is) && gone.is_empty(),
        "all of them end something"
    );
    // In the next pass nothing is left of the first transaction, so its marker gets a horizon, and goes at last.
    let (fates, gone) = compact(&log[1..], given(NOW));
    let marked = left(&fates[1], &log[2]).unwrap();
    let header = BatchHeader::parse(&marked).unwrap();
    assert_eq!(header.delete_horizon(), Some(NOW + RETENTION as i64));
    assert!(header.is_control() && header.is_transactional() && gone.is_empty());
    assert_eq!(
        (&fates[0], &fates[2], &fates[3]),
        (&as_it_is, &as_it_is, &as_it_is)
    );
    let again = [marked];
    assert_eq!(compact(&again, given(NOW + 1)).0, [Fate::AsItIs]);
    let (fates, gone) = compact(&again, given(NOW + RETENTION as i64));
    assert_eq!((fates, gone), (vec![Fate::Gone], vec![(7, 2)]));
}

#[test]
fn aborted_records_hide_none_of_before() {
    let of = |base, producer| {
        let b = batch(
            Codec::None,
            base,
            &[(0, 5, "a", Some("1"))],
            Some((producer, 0)),
        );
        build::transactional(b)
    };
    let log = [of(0, 8), marker(1, 8, true), of(2, 7), marker(3, 7, false)];
    let spans = vec![TxnSpan {
        producer_id: 7,
        epoch: 0,
        first: 2,
        last: 3,
    }];
    let given = Given {
        spans,
        ..Given::default()
    };
    let (fates, _) = compact(&log, given);
    assert_eq!(
        fates,
        [Fate::AsItIs, Fate::AsItIs, Fate::Gone, Fate::AsItIs]
    );
}

#[test]
fn a_batch_that_cannot_be_read_stays_whole() {
    let mut bad = batch(Codec::Zstd, 0, &[(0, 5, "a", Some("1"))], None);
    bad[61..].fill(0xaa);
    let header = BatchHeader::parse(&bad).unwrap();
    let bad = build::with_header(&header, &bad[61..]);
    let log = [bad, batch(Codec::None, 1, &[(0, 5, "a", Some("2"))], None)];
    assert_eq!(
        compact(&log, Given::default()).0,
        [Fate::AsItIs, Fate::AsItIs]
    );
}

#[test]
fn neighbours_become_one_within_their_bounds() {
    let config = |bytes, index_bytes| TopicConfig {
        segment_bytes: bytes,
        segment_index_bytes: index_bytes,
        ..TopicConfig::clone(&TopicConfig::defaults())
    };
    let sources = |of: &[(Offset, u64)]| -> Vec<Source> {
        let ends = of
            .iter()
            .skip(1)
            .map(|s| s.0)
            .chain([of[of.len() - 1].0 + 10]);
        let all = of.iter().zip(ends);
        all.map(|((base, bytes), next_offset)| Source {
            base: *base,
            bytes: *bytes,
            next_offset,
        })
        .collect()
    };
    let sizes = |of: &[(Offset, u64)], config: &TopicConfig| -> Vec<usize> {
        groups(&sources(of), config).iter().map(Vec::len).collect()
    };
    let small = [(0, 400), (10, 400), (20, 300), (30, 1_200), (40, 1)];
    assert_eq!(sizes(&small, &config(1_000, 1 << 20)), [2, 1, 1, 1]);
    assert_eq!(sizes(&small, &config(1 << 20, 1 << 20)), [5]);
    // Each entry of the index stands for 4096 bytes.
    let large = [(0, 4_000), (10, 4_000), (20, 4_000)];
    assert_eq!(sizes(&large, &config(1 << 20, 16)), [2, 1]);
    let far = [(0, 1), (10, 1), (i64::from(i32::MAX) - 5, 1)];
    assert_eq!(sizes(&far, &config(1 << 20, 1 << 20)), [2, 1]);
}

#[test]
fn compaction_is_due_by_ratio_and_age_and_below_what_is_settled() {
    let mut log = Log::empty();
    for n in 0..5i64 {
        log.segments.push_back(crate::log::Segment {
            bytes: 100,
            next_offset: 10 * (n + 1),
            max_timestamp_ms: NOW + n * 1_000,
            closed: true,
            ..crate::log::Segment::new(10 * n, Mono(0))
        });
    }
    log.next_offset = 50;
    let defaults = TopicConfig::defaults();
    let due = |log: &Log, config: &TopicConfig, wall_ms, oldest| {
        log.compaction_due(
            config,
            wall_ms,
            Mono(Duration::from_secs(9).as_nanos() as u64),
            oldest,
        )
    };
    assert_eq!(due(&log, &defaults, NOW, None), None, "nothing is durable");
    log.progress.durable_to(50);
    let found = due(&log, &defaults, NOW, None).unwrap();
    assert_eq!(
        (found.from, found.end, found.dirty_ratio),
        (0, 40, 1.0),
        "the newest segment is left alone"
    );
    assert!(found.is_now(&defaults) && !found.overdue);
    log.cleaned.below = 30;
    let found = due(&log, &defaults, NOW, None).unwrap();
    assert_eq!((found.from, found.end, found.dirty_ratio), (30, 40, 0.25));
    assert!(!found.is_now(&defaults));
    let lag = TopicConfig {
        min_compaction_lag_ms: 500,
        max_compaction_lag_ms: 5_000,
        ..TopicConfig::clone(&defaults)
    };
    assert!(due(&log, &lag, NOW + 5_001, Some(NOW))
        .unwrap()
        .is_now(&lag));
    assert!(!due(&log, &lag, NOW + 5_000, Some(NOW))
        .unwrap()
        .is_now(&lag));
    assert_eq!(due(&log, &lag, NOW + 3_400, None), None, "too young");
    assert!(due(&log, &lag, NOW + 3_500, None).is_some());
    log.cleaned.below = 0;
    assert_eq!(due(&log, &lag, NOW + 1_600, None).unwrap().end, 20);
    // A transaction that may yet be aborted.
    let open = build::transactional(build::batch(1, b"", 1, Some((9, 0, 0))));
    let mut header = BatchHeader::parse(&open).unwrap();
    header.base_offset = 25;
    log.transactions.appended(&header);
    assert_eq!(due(&log, &defaults, NOW, None).unwrap().end, 20);
}
