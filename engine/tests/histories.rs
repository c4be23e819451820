//! Owns a few histories of the engine alone on the simulator: appends, reads, crashes, other shard counts. `ci/sim` runs
//! thousands with clients on the wire, faults and every invariant; these say at once whether the engine itself is to blame.
//! Does not know the wire. Faults here stay within what must be survived.
//! Invariant checked: what was acknowledged is there, in order, at its offset; nothing is invented.
//!
//! `MILLRACE_SEEDS=from..to` chooses the seeds; a failure names its own.

use bytes::Bytes;
use millrace_engine::api::{
    Acks, AppendItem, Broker, EngineConfig, FetchItem, FetchOptions, Mailboxes, OffsetSpec,
};
use millrace_engine::inspect::{self, Directories, Finding, Level};
use millrace_engine::meta::{Command, ConfigEdit, Overrides};
use millrace_engine::rt::sim::{CrashPolicy, Sim, SimConfig, Unsynced};
use millrace_engine::rt::{self, Class};
use millrace_engine::types::batch::{crc32c, BatchHeader, CRC_START};
use millrace_engine::types::{PartitionId, TopicId};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

const TOPICS: u8 = 2;
const PARTITIONS: i32 = 3;

fn seeds() -> Range<u64> {
    let text = std::env::var("MILLRACE_SEEDS").unwrap_or_else(|_| "0..12".into());
    let (from, to) = text.split_once("..").expect("MILLRACE_SEEDS=from..to");
    from.parse().expect("a number")..to.parse().expect("a number")
}

/// A batch of `count` opaque records; `tag` makes it unique.
fn batch(tag: u64, count: i32, bytes: usize, producer: Option<(i64, i16, i32)>) -> Bytes {
    let mut b = vec![0u8; 61];
    b.extend_from_slice(&tag.to_be_bytes());
    b.resize(61 + bytes.max(8), tag as u8);
    let put = |b: &mut Vec<u8>, at: usize, v: &[u8]| b[at..at + v.len()].copy_from_slice(v);
    let length = (b.len() - 12) as i32;
    let (id, epoch, sequence) = producer.unwrap_or((-1, -1, -1));
    put(&mut b, 8, &length.to_be_bytes());
    put(&mut b, 16, &[2]);
    put(&mut b, 23, &(count - 1).to_be_bytes());
    put(&mut b, 27, &1_000i64.to_be_bytes());
    put(&mut b, 35, &1_000i64.to_be_bytes());
    put(&mut b, 43, &id.to_be_bytes());
    put(&mut b, 51, &epoch.to_be_bytes());
    put(&mut b, 53, &sequence.to_be_bytes());
    put(&mut b, 57, &count.to_be_bytes());
    let crc = crc32c(&b[CRC_START..]);
    put(&mut b, 17, &crc.to_be_bytes());
    b.into()
}

fn tag_of(batch: &[u8]) -> u64 {
    u64::from_be_bytes(batch[61..69].try_into().unwrap())
}

/// Tag, records and bytes of a batch that got no answer.
type OpenBatch = (u64, i32, usize);

/// What the clients know: survives every crash.
#[derive(Default)]
struct Model {
    next_tag: u64,
    attempted: HashMap<u64, (PartitionId, i32)>,
    /// Partition -> base offset -> (tag, records).
    acked: BTreeMap<PartitionId, BTreeMap<i64, (u64, i32)>>,
    /// Idempotent producer of each partition: next sequence, and a batch that got no answer.
    producers: HashMap<PartitionId, (i32, Option<OpenBatch>)>,
}

fn config() -> EngineConfig {
    let mut config = EngineConfig::new("/data".into());
    config.memory_bytes = 1;
    config.retention_check = Duration::from_secs(5);
    config
}

async fn start(shards: usize) -> Vec<Broker> {
    let boxes = Mailboxes::new(shards);
    let starting: Vec<_> = (0..shards)
        .map(|i| rt::spawn_joined(Class::Network, Broker::start(config(), i, boxes.clone())))
        .collect();
    let mut brokers = Vec::new();
    for one in starting {
        brokers.push(one.await.unwrap_or_else(|e| panic!("start: {e}")));
    }
    brokers
}

fn topic(n: u8) -> TopicId {
    TopicId([n + 1; 16])
}

async fn create_topics(broker: &Broker) {
    for n in 0..TOPICS {
        if broker.image().topic_by_id(topic(n)).is_some() {
            continue;
        }
        let mut overrides = Overrides::new();
        overrides.insert(
            "segment.bytes".into(),
            (1_048_576 + i32::from(n) * 7).to_string(),
        );
        let command = Command::CreateTopic {
            id: topic(n),
            name: format!("t{n}"),
            internal: false,
            partitions: PARTITIONS,
            replication_factor: 1,
            assignment: Vec::new(),
            overrides,
        };
        broker.propose(command).await.unwrap();
    }
}

fn pick(sim: &Sim, n: u64) -> u64 {
    sim.random() % n
}

async fn produce(sim: Sim, broker: Broker, model: Rc<RefCell<Model>>, big: usize) {
    for _ in 0..80 {
        if pick(&sim, 10) == 0 {
            rt::sleep(Duration::from_micros(pick(&sim, 40_000))).await;
        }
        // Now and then many at once: more than one commit buffer holds.
        let burst = if pick(&sim, 16) == 0 { 24 } else { 1 };
        let mut under_way = Vec::new();
        for _ in 0..burst {
            let id = PartitionId::new(
                topic(pick(&sim, u64::from(TOPICS)) as u8),
                pick(&sim, PARTITIONS as u64) as i32,
            );
            let count = 1 + pick(&sim, 5) as i32;
            let large = burst > 1 || pick(&sim, 3) == 0;
            let bytes = pick(&sim, if large { big as u64 } else { 3_000 }) as usize;
            let tag = {
                let mut m = model.borrow_mut();
                m.next_tag += 1;
                let tag = m.next_tag;
                m.attempted.insert(tag, (id, count));
                tag
            };
            let item = AppendItem {
                partition: id,
                batch: batch(tag, count, bytes, None),
            };
            under_way.push((id, tag, count, broker.append(vec![item], Acks::All)));
        }
        for (id, tag, count, append) in under_way {
            let result = append.await.remove(0);
            let appended = result.unwrap_or_else(|e| panic!("append: {e}"));
            {
                let mut m = model.borrow_mut();
                let acked = m.acked.entry(id).or_default();
                acked.insert(appended.base_offset, (tag, count));
            }
            if pick(&sim, 6) == 0 {
                let latest = OffsetSpec::Latest {
                    read_committed: false,
                };
                let listed = broker.list_offset(id, -1, latest).await.unwrap();
                let end = appended.base_offset + i64::from(count);
                assert!(
                    listed.offset >= end,
                    "{id}: acknowledged up to {end}, readable up to {}",
                    listed.offset
                );
            }
        }
    }
}

/// One idempotent producer per partition: repeats a batch that got no answer, as clients do.
async fn produce_idempotent(sim: Sim, broker: Broker, model: Rc<RefCell<Model>>, index: i32) {
    let id = PartitionId::new(topic(0), index);
    for _ in 0..100 {
        let (tag, count, bytes, sequence) = {
            let mut m = model.borrow_mut();
            let (sequence, open) = *m.producers.entry(id).or_insert((0, None));
            let (tag, count, bytes) = open.unwrap_or_else(|| {
                m.next_tag += 1;
                let fresh = (
                    m.next_tag,
                    1 + pick(&sim, 3) as i32,
                    pick(&sim, 9_000) as usize,
                );
                m.attempted.insert(fresh.0, (id, fresh.1));
                fresh
            });
            m.producers
                .insert(id, (sequence, Some((tag, count, bytes))));
            (tag, count, bytes, sequence)
        };
        let producer = Some((1_000 + i64::from(index), 0, sequence));
        let item = AppendItem {
            partition: id,
            batch: batch(tag, count, bytes, producer),
        };
        let appended = broker
            .append(vec![item], Acks::All)
            .await
            .remove(0)
            .unwrap_or_else(|e| panic!("idempotent: {e}"));
        {
            let mut m = model.borrow_mut();
            m.producers.insert(id, (sequence + count, None));
            m.acked
                .entry(id)
                .or_default()
                .insert(appended.base_offset, (tag, count));
        }
        if pick(&sim, 8) == 0 {
            rt::sleep(Duration::from_micros(pick(&sim, 20_000))).await;
        }
    }
}

/// Reads a partition from its start to its high watermark.
async fn read_all(broker: &Broker, id: PartitionId) -> Vec<(i64, i32, u64)> {
    let mut out = Vec::new();
    let mut offset = 0;
    loop {
        let item = FetchItem {
            partition: id,
            offset,
            max_bytes: 200_000,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
        };
        let options = FetchOptions {
            max_wait: Duration::ZERO,
            min_bytes: 1,
            max_bytes: 1 << 20,
            read_committed: false,
        };
        let fetched = broker
            .fetch(vec![item], options)
            .await
            .remove(0)
            .unwrap_or_else(|e| panic!("fetch: {e}"));
        if fetched.bytes() == 0 {
            assert_eq!(
                offset, fetched.high_watermark,
                "nothing to read below the high watermark"
            );
            return out;
        }
        for chunk in &fetched.records {
            let mut rest = chunk.as_ref();
            while !rest.is_empty() {
                let header = BatchHeader::parse(rest).unwrap();
                assert!(header.crc_matches(rest), "a batch is damaged");
                if header.base_offset >= offset {
                    assert_eq!(header.base_offset, offset, "offsets are dense");
                    out.push((header.base_offset, header.record_count, tag_of(rest)));
                    offset = header.next_offset();
                }
                rest = &rest[header.size..];
            }
        }
    }
}

async fn verify(broker: &Broker, model: &RefCell<Model>) {
    for n in 0..TOPICS {
        for index in 0..PARTITIONS {
            let id = PartitionId::new(topic(n), index);
            let found = read_all(broker, id).await;
            let by_offset: HashMap<i64, (i32, u64)> =
                found.iter().map(|(o, c, t)| (*o, (*c, *t))).collect();
            let m = model.borrow();
            for (offset, (tag, count)) in m.acked.get(&id).into_iter().flatten() {
                assert_eq!(
                    by_offset.get(offset),
                    Some(&(*count, *tag)),
                    "{id} lost or changed offset {offset}"
                );
            }
            let mut times: HashMap<u64, u32> = HashMap::new();
            for (offset, count, tag) in &found {
                assert_eq!(
                    m.attempted.get(tag),
                    Some(&(id, *count)),
                    "{id} invented a batch at {offset}"
                );
                *times.entry(*tag).or_default() += 1;
            }
            for (tag, times) in times {
                assert_eq!(times, 1, "{id} stores batch {tag} more than once");
            }
        }
    }
}

fn history(seed: u64) {
    let sim = Sim::new(seed, SimConfig::default());
    let model = Rc::new(RefCell::new(Model::default()));
    let rounds = 2 + pick(&sim, 4);
    let big = [8_000, 60_000, 200_000][pick(&sim, 3) as usize];
    for round in 0..=rounds {
        let shards = 1 + pick(&sim, 3) as usize;
        let stop = pick(&sim, 3);
        let inner = sim.clone();
        let model = model.clone();
        sim.block_on(async move {
            let brokers = start(shards).await;
            create_topics(&brokers[0]).await;
            verify(&brokers[pick(&inner, shards as u64) as usize], &model).await;
            if round == rounds {
                return;
            }
            let mut clients = Vec::new();
            for _ in 0..3 {
                let broker = brokers[pick(&inner, shards as u64) as usize].clone();
                clients.push(rt::spawn_joined(
                    Class::Network,
                    produce(inner.clone(), broker, model.clone(), big),
                ));
            }
            for index in 0..PARTITIONS {
                let broker = brokers[pick(&inner, shards as u64) as usize].clone();
                clients.push(rt::spawn_joined(
                    Class::Network,
                    produce_idempotent(inner.clone(), broker, model.clone(), index),
                ));
            }
            if stop == 0 {
                for client in clients {
                    client.await;
                }
                let closing: Vec<_> = brokers
                    .iter()
                    .map(|b| {
                        let b = b.clone();
                        rt::spawn_joined(Class::Network, async move { b.close().await })
                    })
                    .collect();
                for one in closing {
                    one.await.unwrap_or_else(|e| panic!("close: {e}"));
                }
            } else {
                rt::sleep(Duration::from_micros(pick(&inner, 400_000))).await;
            }
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
        sim.crash(policies[pick(&sim, 4) as usize]);
        sim.block_on(inspected());
    }
}

/// What a crash leaves is never damage.
async fn inspected() {
    let dirs = Directories::new("/data".into(), None);
    let mut damages = Vec::new();
    let mut say = |finding: &Finding| {
        if finding.level == Level::Damage {
            damages.push(finding.clone());
        }
    };
    let summary = inspect::verify(&dirs, &mut say).await.expect("readable");
    assert_eq!(damages, Vec::new(), "{summary:?}");
}

#[test]
fn acknowledged_records_survive_crashes_and_other_shard_counts() {
    for seed in seeds() {
        println!("seed {seed}");
        history(seed);
    }
}

#[test]
fn settings_reach_every_shard_and_records_can_be_deleted() {
    let sim = Sim::new(7, SimConfig::default());
    sim.block_on(async {
        let brokers = start(2).await;
        create_topics(&brokers[1]).await;
        let edit = ConfigEdit::set([("max.message.bytes".to_string(), Some("100".to_string()))]);
        brokers[1]
            .propose(Command::SetTopicConfig { id: topic(1), edit })
            .await
            .unwrap();
        for index in 0..PARTITIONS {
            let id = PartitionId::new(topic(1), index);
            let item = AppendItem {
                partition: id,
                batch: batch(1, 1, 500, None),
            };
            let refused = brokers[0]
                .append(vec![item], Acks::All)
                .await
                .remove(0)
                .unwrap_err();
            assert!(
                refused.to_string().contains("max.message.bytes 100"),
                "{refused}"
            );
        }
        let id = PartitionId::new(topic(0), 0);
        for tag in 0..10 {
            let item = AppendItem {
                partition: id,
                batch: batch(tag, 2, 50, None),
            };
            brokers[0]
                .append(vec![item], Acks::Leader)
                .await
                .remove(0)
                .unwrap();
        }
        assert_eq!(brokers[1].delete_records(id, 7).await, Ok(7));
        assert_eq!(
            brokers[1].delete_records(id, 3).await,
            Ok(7),
            "log start only grows"
        );
        assert!(brokers[1].delete_records(id, 21).await.is_err());
        assert_eq!(brokers[0].delete_records(id, -1).await, Ok(20));
    });
    sim.crash(CrashPolicy::POWER_LOST);
    sim.block_on(async {
        let brokers = start(1).await;
        let id = PartitionId::new(topic(0), 0);
        let item = AppendItem {
            partition: id,
            batch: batch(99, 1, 50, None),
        };
        let appended = brokers[0]
            .append(vec![item], Acks::All)
            .await
            .remove(0)
            .unwrap();
        assert_eq!((appended.base_offset, appended.log_start), (20, 20));
    });
}
