//! Owns compaction on a whole engine: random keys, crashes at random moments, and a reader that compares with what it was told.
//! Does not know how segments are copied or exchanged; the rules have tests of their own.
//! Invariant checked: every record that is read is the one that was written at its offset, in order, and the last one of each
//! key is among them, or was a tombstone.

use crate::node;
use millrace_engine::api::txn::{
    EndTxn, InitProducer, Membership, Producer, TxnOf, TxnState, TXN_TOPIC,
};
use millrace_engine::api::{Acks, AppendItem, Broker, EngineConfig, FetchItem, FetchOptions};
use millrace_engine::inspect::Level;
use millrace_engine::rt;
use millrace_engine::rt::sim::{CrashPolicy, Sim, SimConfig, Unsynced};
use millrace_engine::types::batch::{build, BatchHeader};
use millrace_engine::types::{PartitionId, TopicId};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::rc::Rc;
use std::time::Duration;

const ID: PartitionId = PartitionId::new(TopicId([6; 16]), 0);
const PRODUCERS: i64 = 3;

/// A deterministic stream of choices.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

type KeyValue = (u64, Option<u64>);

/// A batch of these records, compressed or not, of an idempotent producer or of none.
fn batch(records: &[KeyValue], time: i64, zstd: bool, of: Option<(i64, i32)>) -> Vec<u8> {
    let mut body = Vec::new();
    for (delta, (key, value)) in (0..).zip(records) {
        let mut record = vec![0, 0];
        build::zigzag(delta, &mut record);
        build::zigzag(8, &mut record);
        record.extend(key.to_be_bytes());
        match value {
            None => build::zigzag(-1, &mut record),
            Some(value) => {
                // Some size, so that segments get full.
                let bytes = value.to_be_bytes().repeat(40);
                build::zigzag(bytes.len() as i64, &mut record);
                record.extend(bytes);
            }
        }
        record.push(0);
        build::zigzag(record.len() as i64, &mut body);
        body.extend(record);
    }
    if zstd {
        body = zstd::encode_all(&body[..], 1).unwrap();
    }
    let of = of.map(|(id, sequence)| (id, 0, sequence));
    let b = build::batch(records.len() as i32, &body, time, of);
    build::with_attributes(b, if zstd { 4 } else { 0 })
}

/// Takes a zigzag varint off the front.
fn varint(bytes: &mut &[u8]) -> i64 {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Whether a batch is the marker of a transaction that was aborted.
fn aborts(batch: &[u8]) -> bool {
    let header = BatchHeader::parse(batch).unwrap();
    if !header.is_control() || header.record_count == 0 {
        return false;
    }
    let mut record = &batch[61..];
    let _length = varint(&mut record);
    record = &record[1..];
    let (_time, _offset) = (varint(&mut record), varint(&mut record));
    assert_eq!(varint(&mut record), 4);
    record[..4] == [0, 0, 0, 0]
}

/// Records of a batch, with offset and time.
fn records(batch: &[u8]) -> Vec<(i64, i64, KeyValue)> {
    let header = BatchHeader::parse(batch).unwrap();
    let mut body = batch[61..header.size].to_vec();
    if header.attributes & 7 == 4 {
        let mut out = Vec::new();
        zstd::stream::read::Decoder::new(&body[..])
            .unwrap()
            .read_to_end(&mut out)
            .unwrap();
        body = out;
    }
    let mut rest = &body[..];
    let mut found = Vec::new();
    for _ in 0..header.record_count {
        let length = varint(&mut rest) as usize;
        let (mut record, behind) = rest.split_at(length);
        rest = behind;
        record = &record[1..];
        let time = header.base_timestamp + varint(&mut record);
        let offset = header.base_offset + varint(&mut record);
        assert_eq!(varint(&mut record), 8);
        let key = u64::from_be_bytes(record[..8].try_into().unwrap());
        record = &record[8..];
        let value =
            (varint(&mut record) >= 0).then(|| u64::from_be_bytes(record[..8].try_into().unwrap()));
        found.push((offset, time, (key, value)));
    }
    assert!(rest.is_empty());
    found
}

/// What was written.
#[derive(Default)]
struct Model {
    /// By offset: time, key and value.
    written: BTreeMap<i64, (i64, KeyValue)>,
    /// Last record of each key.
    last: BTreeMap<u64, i64>,
    /// Sent and not answered.
    under_way: Option<(i64, Vec<KeyValue>)>,
    /// Whether a batch of theirs was stored may be unknown: then others go on.
    producers_from: i64,
    end: i64,
    sequences: BTreeMap<i64, i32>,
    /// Of each producer, its last batch and where that is.
    stored: BTreeMap<i64, (Vec<u8>, i64)>,
    time: i64,
}

impl Model {
    fn stored_at(&mut self, base: i64, time: i64, records: &[KeyValue]) {
        for (offset, record) in (base..).zip(records) {
            self.written.insert(offset, (time, *record));
            self.last.insert(record.0, offset);
        }
        self.end = base + records.len() as i64;
    }

    /// Compares what is read from the beginning with what was written.
    fn check(&mut self, read: &[(i64, i64, KeyValue)], seed: u64) {
        let beyond = read.iter().filter(|r| r.0 >= self.end).count();
        if let Some((time, records)) = self.under_way.take() {
            // It may be there as a whole, or not at all.
            if beyond > 0 {
                self.stored_at(self.end, time, &records);
            }
        }
        let mut before = -1;
        for (offset, time, record) in read {
            assert!(*offset > before, "seed {seed}: {offset} behind {before}");
            before = *offset;
            let written = self.written.get(offset);
            assert_eq!(
                written,
                Some(&(*time, *record)),
                "seed {seed}, offset {offset}"
            );
        }
        for (key, offset) in &self.last {
            let there = read.iter().rev().find(|r| r.2 .0 == *key);
            let is_tombstone = self.written[offset].1 .1.is_none();
            match there {
                Some(found) => assert_eq!(found.0, *offset, "seed {seed}: key {key}"),
                None => assert!(is_tombstone, "seed {seed}: key {key} at {offset} is lost"),
            }
        }
    }
}

fn config(dice: &mut Dice) -> EngineConfig {
    let mut config = node::config();
    let buffer = [24 * 30, 128 << 20][dice.below(2) as usize].to_string();
    let settings = [
        ("log.cleaner.backoff.ms", "5".to_string()),
        ("log.cleaner.dedupe.buffer.size", buffer),
    ];
    for (name, value) in settings {
        config.broker_settings.insert(name.to_string(), value);
    }
    config
}

async fn start(dice: &mut Dice, retention_ms: &str, policy: &str) -> Broker {
    let mut brokers = node::start_with(config(dice), 1).await.unwrap();
    let broker = brokers.remove(0);
    if broker.image().topic("t").is_none() {
        let settings = [
            ("cleanup.policy", policy),
            ("internal.segment.bytes", "12000"),
            ("min.cleanable.dirty.ratio", "0.01"),
            ("delete.retention.ms", retention_ms),
            ("retention.ms", "-1"),
            ("index.interval.bytes", "500"),
            ("file.delete.delay.ms", "3"),
        ];
        node::create_topic_with(&broker, ID.topic, "t", 1, &settings).await;
    }
    broker
}

async fn fetch(broker: &Broker, offset: i64) -> Vec<Vec<u8>> {
    let item = FetchItem {
        partition: ID,
        offset,
        max_bytes: 20_000,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
    };
    let options = FetchOptions {
        max_wait: Duration::ZERO,
        min_bytes: 1,
        max_bytes: 20_000,
        read_committed: false,
    };
    let fetched = broker.fetch(vec![item], options).await.remove(0);
    let fetched = fetched.unwrap_or_else(|e| panic!("fetch at {offset}: {e}"));
    let mut batches = Vec::new();
    for chunk in &fetched.records {
        let mut rest = chunk.as_ref();
        while !rest.is_empty() {
            let header = BatchHeader::parse(rest).unwrap();
            assert!(header.crc_matches(rest));
            batches.push(rest[..header.size].to_vec());
            rest = &rest[header.size..];
        }
    }
    batches
}

/// All that is in the log; and that the batch at any offset is the one that a reader gets who begins there.
async fn read(broker: &Broker, dice: &mut Dice) -> Vec<(i64, i64, KeyValue)> {
    let (mut all, mut spans, mut offset) = (Vec::new(), Vec::new(), 0);
    loop {
        let batches = fetch(broker, offset).await;
        let Some(last) = batches.last() else { break };
        for b in &batches {
            let header = BatchHeader::parse(b).unwrap();
            if header.next_offset() > offset {
                spans.push((header.base_offset, header.next_offset()));
                all.extend(records(b));
            }
        }
        offset = BatchHeader::parse(last).unwrap().next_offset();
    }
    for _ in 0..if offset > 0 { 6 } else { 0 } {
        let at = dice.below(offset as u64) as i64;
        let first = fetch(broker, at).await;
        let first = first.first().expect("below the end there is a batch");
        let header = BatchHeader::parse(first).unwrap();
        let got = header.next_offset();
        assert!(got > at, "a batch that ends behind {at}");
        // Compaction may have been at work since.
        let before = spans.iter().find(|s| s.1 > at).expect("it was there");
        assert!(got >= before.1 || header.base_offset <= at);
    }
    all
}

async fn send(broker: &Broker, bytes: Vec<u8>) -> Result<i64, String> {
    let item = AppendItem {
        partition: ID,
        batch: bytes.into(),
    };
    let done = broker.append(vec![item], Acks::All).await.remove(0);
    done.map(|a| a.base_offset).map_err(|e| e.to_string())
}

/// Writes random records until it is stopped.
async fn write(broker: &Broker, dice: &mut Dice, model: &Rc<RefCell<Model>>, batches: u64) {
    for _ in 0..batches {
        let count = 1 + dice.below(5);
        let records: Vec<KeyValue> = (0..count)
            .map(|_| {
                let keys = 2 << dice.below(7);
                let key = dice.below(keys);
                (key, (dice.below(6) > 0).then(|| dice.below(u64::MAX >> 34)))
            })
            .collect();
        let from = model.borrow().producers_from;
        let producer = (dice.below(2) == 0).then(|| from + dice.below(PRODUCERS as u64) as i64);
        let bytes = {
            let mut model = model.borrow_mut();
            model.time += 1;
            let time = model.time;
            let of = producer.map(|id| {
                let sequence = model.sequences.entry(id).or_insert(0);
                (id, *sequence)
            });
            model.under_way = Some((time, records.clone()));
            batch(&records, time, dice.below(2) == 0, of)
        };
        let base = send(broker, bytes.clone()).await.unwrap();
        {
            let mut model = model.borrow_mut();
            let (time, records) = model.under_way.take().unwrap();
            assert!(base >= model.end, "no offset is given twice");
            model.stored_at(base, time, &records);
            if let Some(id) = producer {
                *model.sequences.entry(id).or_insert(0) += records.len() as i32;
                model.stored.insert(id, (bytes, base));
            }
        }
        if dice.below(12) == 0 {
            rt::sleep(Duration::from_millis(dice.below(20))).await;
        }
    }
}

/// A run of life and death; gives how many passes of compaction went through.
fn history(seed: u64, policy: &'static str) -> u64 {
    let sim = Sim::new(seed, SimConfig::default());
    let mut dice = Dice(seed.wrapping_mul(77) + 1);
    let model = Rc::new(RefCell::new(Model::default()));
    let retention = ["0", "40", "100000"][dice.below(3) as usize];
    let mut passes = 0;
    for round in 0..4 + dice.below(3) {
        let (shared, mut own) = (model.clone(), Dice(dice.below(u64::MAX >> 34)));
        let clean = dice.below(4) == 0;
        passes += sim.block_on(async move {
            let broker = start(&mut own, retention, policy).await;
            // Of what is remembered, a batch that comes again is the one that was stored.
            let stored = shared.borrow().stored.clone();
            let lost = shared.borrow().under_way.is_some();
            for (id, (bytes, base)) in stored {
                if !lost {
                    assert_eq!(
                        send(&broker, bytes).await,
                        Ok(base),
                        "seed {seed}: producer {id}"
                    );
                }
            }
            let found = read(&broker, &mut own).await;
            shared.borrow_mut().check(&found, seed);
            if lost {
                // Whether it was stored is not known: other producers go on.
                shared.borrow_mut().producers_from += PRODUCERS;
                shared.borrow_mut().sequences.clear();
                shared.borrow_mut().stored.clear();
                return broker.metrics().counters.compaction.passes;
            }
            let left = Duration::from_micros(own.below(60_000));
            let batches = 20 + own.below(100);
            let writing = write(&broker, &mut own, &shared, batches);
            if clean {
                writing.await;
                rt::sleep(Duration::from_millis(30)).await;
                let found = read(&broker, &mut own).await;
                shared.borrow_mut().check(&found, seed);
                let passes = broker.metrics().counters.compaction;
                assert_eq!(passes.failures, 0, "seed {seed}");
                broker.close().await.unwrap();
                return passes.passes;
            }
            // The end comes at any moment, also in the middle of an exchange.
            if rt::timeout(left + Duration::from_millis(40), writing)
                .await
                .is_some()
            {
                rt::sleep(left).await;
            }
            broker.metrics().counters.compaction.passes
        });
        let policies = [
            CrashPolicy::Process,
            CrashPolicy::POWER,
            CrashPolicy::POWER_LOST,
            CrashPolicy::Power {
                data: Unsynced::Garbage,
                names: Unsynced::Random,
            },
        ];
        sim.crash(policies[dice.below(4) as usize]);
        if round % 2 == 0 {
            let (findings, _) = sim.block_on(node::verify());
            let damage: Vec<_> = findings
                .iter()
                .filter(|f| f.level == Level::Damage)
                .collect();
            assert!(damage.is_empty(), "seed {seed}, round {round}: {damage:#?}");
        }
    }
    passes
}

#[test]
fn readers_see_the_last_record_of_every_key_through_crashes_at_any_moment() {
    let seeds = std::env::var("COMPACTION_SEEDS").ok();
    let seeds = seeds.and_then(|s| s.parse().ok()).unwrap_or(60);
    let mut passes = 0;
    for seed in 0..seeds {
        passes += history(seed, "compact");
    }
    assert!(passes > seeds, "{passes} passes in {seeds} histories");
}

/// What a reader of committed records gets: key and value, in order.
async fn committed(broker: &Broker) -> Vec<KeyValue> {
    let (mut offset, mut found) = (0, Vec::new());
    loop {
        let item = FetchItem {
            partition: ID,
            offset,
            max_bytes: 20_000,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
        };
        let options = FetchOptions {
            max_wait: Duration::ZERO,
            min_bytes: 1,
            max_bytes: 20_000,
            read_committed: true,
        };
        let fetched = broker.fetch(vec![item], options).await.remove(0).unwrap();
        let mut aborted = fetched.aborted.clone().unwrap().into_iter().peekable();
        let (mut dropped, before) = (BTreeSet::new(), offset);
        for chunk in &fetched.records {
            let mut rest = chunk.as_ref();
            while !rest.is_empty() {
                let header = BatchHeader::parse(rest).unwrap();
                let (batch, more) = rest.split_at(header.size);
                rest = more;
                offset = header.next_offset();
                // As clients do it: only a marker that is there ends what was aborted.
                while let Some(one) = aborted.next_if(|a| a.first_offset <= header.last_offset()) {
                    dropped.insert(one.producer_id);
                }
                if aborts(batch) {
                    dropped.remove(&header.producer_id);
                } else if header.is_control() {
                    continue;
                } else if !(header.is_transactional() && dropped.contains(&header.producer_id)) {
                    found.extend(records(batch).into_iter().map(|r| r.2));
                }
            }
        }
        if offset == before {
            return found;
        }
    }
}

fn only_committed_ones(found: &[KeyValue], last: &BTreeMap<u64, u64>, seed: u64) {
    let read: BTreeMap<u64, u64> = found.iter().map(|(k, v)| (*k, v.unwrap())).collect();
    assert_eq!(read, *last, "seed {seed}");
}

fn transactions(seed: u64) -> u64 {
    let sim = Sim::new(seed, SimConfig::default());
    let mut dice = Dice(seed + 5);
    let last: Rc<RefCell<BTreeMap<u64, u64>>> = Rc::default();
    let mut passes = 0;
    for round in 0..4u64 {
        let (last, mut own) = (last.clone(), Dice(dice.below(u64::MAX >> 34)));
        passes += sim.block_on(async move {
            let broker = start(&mut own, "0", "compact").await;
            if round == 0 {
                node::create_topic(&broker, TopicId([8; 16]), TXN_TOPIC, 50, 1 << 20).await;
            }
            only_committed_ones(&committed(&broker).await, &last.borrow(), seed);
            let id = format!("writer-{round}");
            let of = |producer: Producer| TxnOf {
                transactional_id: id.as_str().into(),
                producer,
            };
            let asked = InitProducer {
                transactional_id: id.as_str().into(),
                timeout_ms: 60_000,
                expected: None,
            };
            let mut producer = broker.init_producer(asked).await.unwrap();
            for _ in 0..10 + own.below(30) {
                let (commit, mut sequence, mut written) = (own.below(2) == 0, 0, Vec::new());
                // A long one is open while segments behind its beginning are compacted.
                let batches = [1, 2, 4, 30][own.below(4) as usize];
                for n in 0..batches {
                    if n % 10 == 9 {
                        rt::sleep(Duration::from_millis(20)).await;
                    }
                    let some =
                        (0..1 + own.below(4)).map(|_| (own.below(9), Some(own.below(1 << 20))));
                    let some: Vec<KeyValue> = some.collect();
                    let joined =
                        broker.join_transaction(of(producer), vec![ID], Membership::Add(2));
                    joined.await.remove(0).unwrap();
                    let mut b = batch(&some, 1, own.below(2) == 0, Some((producer.id, sequence)));
                    sequence += some.len() as i32;
                    b[51..53].copy_from_slice(&producer.epoch.to_be_bytes());
                    send(&broker, build::transactional(b)).await.unwrap();
                    written.extend(some);
                }
                let ended = EndTxn {
                    of: of(producer),
                    commit,
                    version: 2,
                };
                producer = broker.end_transaction(ended).await.unwrap();
                if commit {
                    let all = written.into_iter().map(|(k, v)| (k, v.unwrap()));
                    last.borrow_mut().extend(all);
                }
                // Its marker is written behind.
                loop {
                    let is = broker.describe_transaction(id.clone()).await.unwrap().state;
                    if is == TxnState::CompleteCommit || is == TxnState::CompleteAbort {
                        break;
                    }
                    rt::sleep(Duration::from_millis(5)).await;
                }
                rt::sleep(Duration::from_millis(own.below(30))).await;
            }
            rt::sleep(Duration::from_millis(200)).await;
            only_committed_ones(&committed(&broker).await, &last.borrow(), seed);
            let counters = broker.metrics().counters.compaction;
            assert_eq!(counters.failures, 0, "seed {seed}");
            counters.passes
        });
        sim.crash(CrashPolicy::POWER);
    }
    passes
}

#[test]
fn readers_of_committed_records_see_no_aborted_one_and_lose_none() {
    let passes: u64 = (0..12).map(transactions).sum();
    assert!(passes > 24, "{passes} passes");
}

/// Each of the deliberate bugs is met by some history.
#[cfg(feature = "plants")]
#[test]
fn every_plant_of_compaction_is_caught() {
    use millrace_engine::plant::{self, Plant};
    const SEEDS: u64 = 20;
    for plant in Plant::COMPACTION.iter().copied() {
        let caught = (0..SEEDS).find(|seed| {
            let seed = *seed;
            let run = std::thread::spawn(move || {
                plant::set(Some(plant));
                transactions(seed);
                history(seed, "compact");
            });
            run.join().is_err()
        });
        assert!(caught.is_some(), "{plant:?} escaped {SEEDS} seeds");
    }
}
