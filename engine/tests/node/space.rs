//! Owns what a full or failing disk does to the engine, on the simulator: refusals before the space is gone, nothing lost,
//! produces that go on when there is room again.
//! Does not know the wire, nor real file systems (`ci/harness/disks.py` does).
//! Invariant checked: while the broker is the only one that writes, no write of its own finds the disk full, a start after
//! a crash included; and what was acknowledged is there, at its offset.

use crate::node::{self, close, create_topic_with, start_with, Batch};
use bytes::Bytes;
use millrace_engine::api::{
    Acks, AppendItem, AppendResult, Broker, EngineConfig, FetchItem, FetchOptions, OnFatal,
    PartitionError,
};
use millrace_engine::rt::sim::{CrashPolicy, FaultOn, Sim, SimConfig};
use millrace_engine::rt::{self, Class};
use millrace_engine::types::batch::BatchHeader;
use millrace_engine::types::{PartitionId, TopicId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const TOPIC: TopicId = TopicId([7; 16]);
const PARTITIONS: i32 = 6;
const RESERVE: u64 = 8 * MIB;

fn config() -> EngineConfig {
    EngineConfig {
        disk_reserve_bytes: RESERVE,
        retention_check: Some(Duration::from_secs(30)),
        ..node::config()
    }
}

/// One record; `tag`, which stands for its time, makes it unique.
fn batch(tag: u64, bytes: usize) -> Bytes {
    let batch = Batch {
        timestamp_ms: tag as i64,
        ..Batch::new(tag as u8, bytes)
    };
    batch.encode().into()
}

fn partition(index: i32) -> PartitionId {
    PartitionId::new(TOPIC, index)
}

async fn start(shards: usize) -> Vec<Broker> {
    let started = start_with(config(), shards).await;
    started.unwrap_or_else(|e| panic!("start: {e}"))
}

async fn create_topic(broker: &Broker) {
    let settings = [("segment.bytes", "1500000"), ("file.delete.delay.ms", "0")];
    create_topic_with(broker, TOPIC, "t", PARTITIONS, &settings).await;
}

/// What clients know; it survives every crash.
#[derive(Default)]
struct Clients {
    next_tag: Cell<u64>,
    /// By partition and offset.
    acked: RefCell<BTreeMap<PartitionId, BTreeMap<i64, u64>>>,
    acked_count: Cell<u64>,
    /// Refused in a row.
    refused: Cell<u64>,
    stop: Cell<bool>,
}

impl Clients {
    fn tag(&self) -> u64 {
        self.next_tag.set(self.next_tag.get() + 1);
        self.next_tag.get()
    }

    fn note(&self, id: PartitionId, tag: u64, result: &AppendResult) {
        match result {
            Ok(appended) => {
                let mut acked = self.acked.borrow_mut();
                let of = acked.entry(id).or_default();
                let before = of.insert(appended.base_offset, tag);
                assert_eq!(before, None, "{id}: offset {} twice", appended.base_offset);
                self.acked_count.set(self.acked_count.get() + 1);
                self.refused.set(0);
            }
            Err(PartitionError::DiskFull { free, kept }) => {
                assert!(free < kept, "{free} of {kept}");
                self.refused.set(self.refused.get() + 1);
            }
            // Segments cannot be written, and the journal is full.
            Err(PartitionError::Storage(_)) => self.refused.set(self.refused.get() + 1),
            Err(error) => panic!("{id}: {error}"),
        }
    }
}

/// Appends until told to stop, many at once, to all partitions; waits a little where it is refused.
async fn produce(sim: Sim, broker: Broker, clients: Rc<Clients>, bytes_max: u64) {
    while !clients.stop.get() {
        let mut under_way = Vec::new();
        for _ in 0..1 + sim.random() % 8 {
            let id = partition((sim.random() % PARTITIONS as u64) as i32);
            let tag = clients.tag();
            let batch = batch(tag, (sim.random() % bytes_max) as usize);
            let item = AppendItem {
                partition: id,
                batch,
            };
            under_way.push((id, tag, broker.append(vec![item], Acks::All)));
        }
        for (id, tag, append) in under_way {
            clients.note(id, tag, &append.await[0]);
        }
        if clients.refused.get() > 0 {
            rt::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn start_clients(sim: &Sim, brokers: &[Broker], clients: &Rc<Clients>, bytes_max: u64) {
    clients.stop.set(false);
    clients.refused.set(0);
    for n in 0..4 {
        let broker = brokers[n % brokers.len()].clone();
        let work = produce(sim.clone(), broker, clients.clone(), bytes_max);
        rt::spawn(Class::Network, work);
    }
}

async fn wait_until(what: &str, seconds: u64, done: impl Fn() -> bool) {
    let until = rt::now() + Duration::from_secs(seconds);
    while !done() {
        assert!(rt::now() < until, "{what}: not within {seconds} s");
        rt::sleep(Duration::from_millis(5)).await;
    }
}

async fn fetch(broker: &Broker, id: PartitionId, offset: i64) -> Result<Vec<u8>, PartitionError> {
    let item = FetchItem {
        partition: id,
        offset,
        max_bytes: 400_000,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
    };
    let options = FetchOptions {
        max_wait: Duration::ZERO,
        min_bytes: 1,
        max_bytes: 1 << 20,
        read_committed: false,
    };
    let fetched = broker.fetch(vec![item], options).await.remove(0)?;
    let chunks = fetched.records.iter().map(|chunk| chunk.as_ref());
    Ok(chunks.collect::<Vec<_>>().concat())
}

/// Reads every partition from `from` on, and holds what is there against what was acknowledged.
async fn verify(broker: &Broker, clients: &Clients, from: &BTreeMap<PartitionId, i64>) {
    for id in (0..PARTITIONS).map(partition) {
        let first = from.get(&id).copied().unwrap_or(0);
        let mut found = BTreeMap::new();
        let mut offset = first;
        loop {
            let bytes = fetch(broker, id, offset).await.unwrap();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let header = BatchHeader::parse(rest).unwrap();
                assert!(header.crc_matches(rest), "{id}: a batch is damaged");
                found.insert(header.base_offset, header.base_timestamp as u64);
                offset = header.next_offset();
                rest = &rest[header.size..];
            }
            if bytes.is_empty() {
                break;
            }
        }
        let acked = clients.acked.borrow();
        for (offset, tag) in acked.get(&id).into_iter().flatten() {
            if *offset >= first {
                let there = found.get(offset);
                assert_eq!(there, Some(tag), "{id} lost or changed offset {offset}");
            }
        }
    }
}

fn disk_of(shards: usize, room: u64) -> SimConfig {
    SimConfig {
        disk_bytes: config().disk_bytes_min(shards) + room,
        ..SimConfig::default()
    }
}

/// Fills a disk, crashes while it is full, starts with another number of shards, deletes, goes on.
fn fills_up(seed: u64, [shards, shards_then]: [usize; 2], bytes_max: u64, crash: CrashPolicy) {
    println!("seed {seed}");
    let most = shards.max(shards_then);
    let room = disk_of(most, (1 + most as u64) * 16 * MIB);
    let total = room.disk_bytes;
    let sim = Sim::new(seed, room);
    let clients = Rc::new(Clients::default());
    let disk = sim.disk();
    let nothing_deleted = BTreeMap::new();
    let inner = (sim.clone(), clients.clone());
    let full = || clients.refused.get() >= 40;
    sim.block_on(async {
        let (sim, clients) = inner;
        let brokers = start(shards).await;
        create_topic(&brokers[0]).await;
        start_clients(&sim, &brokers, &clients, bytes_max);
        wait_until("the disk is full", 600, full).await;
        let accepted = clients.acked_count.get();
        assert!(accepted > 10, "{accepted} batches fitted");
        rt::sleep(Duration::from_secs(3)).await;
        let more = clients.acked_count.get() - accepted;
        assert_eq!(more, 0, "accepted while nothing was deleted");
        let metrics = brokers[0].metrics().disk;
        assert!(metrics.full && metrics.free < metrics.kept, "{metrics:?}");
        verify(&brokers[0], &clients, &nothing_deleted).await;
        assert!(total - disk.used() >= RESERVE, "{} are used", disk.used());
    });
    let disk = sim.disk();
    assert_eq!(disk.refused(), 0, "the broker met the end of the disk");
    sim.crash(crash);
    let inner = (sim.clone(), clients.clone());
    sim.block_on(async {
        let (sim, clients) = inner;
        let brokers = start(shards_then).await;
        verify(&brokers[0], &clients, &nothing_deleted).await;
        start_clients(&sim, &brokers, &clients, bytes_max);
        wait_until("refused after the start, too", 600, full).await;
        assert_eq!(sim.disk().refused(), 0, "a start met the end of the disk");
        let mut log_starts = BTreeMap::new();
        for id in (0..PARTITIONS).map(partition) {
            let start = brokers[0].delete_records(id, -1).await.unwrap();
            log_starts.insert(id, start);
        }
        let before = clients.acked_count.get();
        let goes_on = || clients.acked_count.get() > before + 20;
        wait_until("produces go on", 60, goes_on).await;
        clients.stop.set(true);
        rt::sleep(Duration::from_secs(1)).await;
        verify(&brokers[0], &clients, &log_starts).await;
        close(&brokers).await;
        assert_eq!(sim.disk().refused(), 0, "a stop met the end of the disk");
    });
}

#[test]
fn produces_are_refused_before_the_space_is_gone_and_go_on_when_there_is_room() {
    fills_up(1, [1, 2], 20_000, CrashPolicy::POWER);
    fills_up(2, [2, 1], 400_000, CrashPolicy::Process);
    fills_up(3, [3, 3], 60_000, CrashPolicy::POWER_LOST);
}

/// The whole rest of the disk goes to somebody else, from one moment to the next.
#[test]
fn nothing_is_lost_where_others_take_all_the_space() {
    for seed in 0..2 {
        println!("seed {seed}");
        let shards = 1 + (seed % 2) as usize;
        let sim = Sim::new(seed, disk_of(2, 60 * MIB));
        let clients = Rc::new(Clients::default());
        let nothing_deleted = BTreeMap::new();
        let inner = (sim.clone(), clients.clone());
        sim.block_on(async {
            let (sim, clients) = inner;
            let brokers = start(shards).await;
            create_topic(&brokers[0]).await;
            start_clients(&sim, &brokers, &clients, 60_000);
            wait_until("some", 60, || clients.acked_count.get() > 200).await;
            let disk = sim.disk();
            disk.set_capacity(disk.used());
            wait_until("refused", 60, || clients.refused.get() >= 40).await;
            rt::sleep(Duration::from_secs(3)).await;
            verify(&brokers[0], &clients, &nothing_deleted).await;
            disk.set_capacity(disk.used() + 150 * MIB);
            let before = clients.acked_count.get();
            let goes_on = || clients.acked_count.get() > before + 100;
            wait_until("produces go on", 30, goes_on).await;
            disk.set_capacity(disk.used());
            wait_until("refused again", 60, || clients.refused.get() >= 40).await;
        });
        sim.crash(CrashPolicy::POWER);
        sim.disk().set_capacity(sim.disk().used());
        let inner = sim.clone();
        sim.block_on(async {
            let sim = inner;
            let refused = start_with(config(), shards).await.err();
            assert!(refused.is_some(), "starts where nothing can be written");
            rt::sleep(Duration::from_secs(1)).await;
            let disk = sim.disk();
            disk.set_capacity(disk.used() + 150 * MIB);
        });
        sim.crash(CrashPolicy::Process);
        sim.block_on(async {
            let brokers = start(3 - shards).await;
            verify(&brokers[0], &clients, &nothing_deleted).await;
            let appended = append(&brokers[0], 0, clients.tag(), 100).await;
            appended.unwrap_or_else(|e| panic!("produces go on: {e}"));
        });
    }
}

async fn append(broker: &Broker, index: i32, tag: u64, bytes: usize) -> AppendResult {
    let item = AppendItem {
        partition: partition(index),
        batch: batch(tag, bytes),
    };
    broker.append(vec![item], Acks::All).await.remove(0)
}

/// A request may be larger than what is granted from one look to the next.
#[test]
fn a_request_larger_than_a_grant_waits_for_one_and_passes() {
    let sim = Sim::new(1, disk_of(1, 100 * MIB));
    sim.block_on(async {
        let brokers = start(1).await;
        create_topic(&brokers[0]).await;
        for round in 0..4 {
            let items = (0..PARTITIONS).map(|index| AppendItem {
                partition: partition(index),
                batch: batch(round, 1_000_000),
            });
            let results = brokers[0].append(items.collect(), Acks::All).await;
            assert!(results.iter().all(Result::is_ok), "{results:?}");
        }
    });
}

/// An error of a segment's device is an error of the fetches that need it, and of nobody else.
#[test]
fn a_segment_that_cannot_be_read_fails_only_its_own_fetches() {
    let sim = Sim::new(1, SimConfig::default());
    sim.block_on(async {
        let brokers = start(1).await;
        create_topic(&brokers[0]).await;
        for index in 0..2 {
            append(&brokers[0], index, 1, 10_000).await.unwrap();
        }
        close(&brokers).await;
    });
    sim.crash(CrashPolicy::Process);
    let inner = sim.clone();
    sim.block_on(async move {
        let brokers = start(1).await;
        let path = "/data/topics/t-0/00000000000000000000.log";
        let disk = inner.disk();
        disk.fail_next_on(path.as_ref(), FaultOn::Read, 2);
        for _ in 0..2 {
            let failed = fetch(&brokers[0], partition(0), 0).await;
            assert!(
                matches!(failed, Err(PartitionError::Storage(_))),
                "{failed:?}"
            );
            let other = fetch(&brokers[0], partition(1), 0).await.unwrap();
            assert!(!other.is_empty());
        }
        let healed = fetch(&brokers[0], partition(0), 0).await.unwrap();
        assert!(!healed.is_empty());
        append(&brokers[0], 0, 2, 100).await.unwrap();
    });
}

/// After a failed flush nothing is acknowledged, whoever runs the engine is told once, and readers are served.
#[test]
fn a_journal_that_fails_acknowledges_nothing_more() {
    for (seed, fault) in [(1, FaultOn::Sync), (2, FaultOn::Write), (3, FaultOn::Sync)] {
        let sim = Sim::new(seed, SimConfig::default());
        let clients = Rc::new(Clients::default());
        let told = Arc::new(AtomicUsize::new(0));
        let mut config = config();
        let counted = told.clone();
        config.on_fatal = OnFatal::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let inner = (sim.clone(), clients.clone());
        sim.block_on(async {
            let (sim, clients) = inner;
            let brokers = start_with(config, 1).await.unwrap();
            create_topic(&brokers[0]).await;
            for n in 0..20 {
                let tag = clients.tag();
                let appended = append(&brokers[0], n % PARTITIONS, tag, 3_000).await;
                clients.note(partition(n % PARTITIONS), tag, &appended);
            }
            match fault {
                FaultOn::Sync => sim.disk().fail_next_syncs(1),
                FaultOn::Write | FaultOn::Read => sim.disk().fail_next_writes(1),
            }
            for n in 0..10 {
                let refused = append(&brokers[0], n % PARTITIONS, clients.tag(), 3_000).await;
                let storage = matches!(refused, Err(PartitionError::Storage(_)));
                assert!(storage, "{refused:?}");
            }
            verify(&brokers[0], &clients, &BTreeMap::new()).await;
        });
        assert_eq!(told.load(Ordering::Relaxed), 1);
        sim.crash(CrashPolicy::POWER);
        sim.block_on(async {
            let brokers = start(2).await;
            verify(&brokers[0], &clients, &BTreeMap::new()).await;
        });
    }
}
