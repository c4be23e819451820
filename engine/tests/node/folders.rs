//! Owns the folders of partitions that get their first segments, many at once.
//! Does not know how they are made durable.
//! Invariant checked: each says whose it is before it has a segment, through crashes, and takes the place of nobody's files.

use crate::node::{self, damaged_files, verify, Batch};
use millrace_engine::api::Broker;
use millrace_engine::inspect::{Finding, Level};
use millrace_engine::meta::Command;
use millrace_engine::rt;
use millrace_engine::rt::sim::{CrashPolicy, FaultOn, Sim, SimConfig};
use millrace_engine::types::{PartitionId, TopicId};
use std::path::{Path, PathBuf};
use std::time::Duration;

const TOPIC: TopicId = TopicId([3; 16]);
const OTHER: TopicId = TopicId([4; 16]);
/// More than are synced each by itself.
const PARTITIONS: i32 = 40;

fn identity(topic: TopicId) -> Vec<u8> {
    format!("version: 0\ntopic_id: {topic}\n").into_bytes()
}

fn folder(index: i32) -> PathBuf {
    PathBuf::from(format!("/data/topics/t-{index}"))
}

async fn fill() -> Broker {
    let broker = node::start().await;
    node::create_topic(&broker, TOPIC, "t", PARTITIONS, 1 << 20).await;
    for index in 0..PARTITIONS {
        let id = PartitionId::new(TOPIC, index);
        let batch = Batch::new(index as u8, 5_000).encode();
        node::append(&broker, id, batch).await.unwrap();
    }
    broker
}

async fn check_all(broker: &Broker) {
    for index in 0..PARTITIONS {
        let id = PartitionId::new(TOPIC, index);
        let batches = node::fetch(broker, id, 0).await.unwrap();
        let times: Vec<i64> = batches.iter().map(|b| b.base_timestamp).collect();
        assert_eq!(times, [1_000 + i64::from(index)], "{index}");
    }
}

#[test]
fn what_is_in_the_way_of_a_folder_is_set_aside_or_mended() {
    let sim = Sim::new(1, SimConfig::default());
    let broker = sim.block_on(fill());
    let disk = sim.disk();
    // One that a crash tore, and one of a topic that had the name before.
    disk.write_raw(&folder(3).join("partition.metadata"), b"");
    let other = folder(5).join("partition.metadata");
    disk.write_raw(&other, &identity(TopicId([9; 16])));
    disk.write_raw(&folder(5).join("00000000000000000000.log"), b"theirs");
    sim.block_on(async move { broker.close().await.unwrap() });

    for index in 0..PARTITIONS {
        let said = disk.read_raw(&folder(index).join("partition.metadata"));
        assert_eq!(said, Some(identity(TOPIC)), "{index}");
    }
    let aside = Path::new("/data/set-aside/t-5/00000000000000000000.log");
    assert_eq!(disk.read_raw(aside), Some(b"theirs".to_vec()));
    sim.crash(CrashPolicy::Process);
    sim.block_on(async { check_all(&node::start().await).await });
}

#[test]
fn a_folder_that_a_failed_sync_left_is_made_durable_before_it_counts() {
    for seed in 0..20 {
        let sim = Sim::new(seed, SimConfig::default());
        let disk = sim.disk();
        sim.block_on(async {
            let broker = fill().await;
            node::create_topic(&broker, OTHER, "u", 1, 1 << 20).await;
            let batch = Batch::new(7, 5_000).encode();
            let id = PartitionId::new(OTHER, 0);
            node::append(&broker, id, batch).await.unwrap();
            // Of a file that nothing but a sync of all touches here.
            disk.fail_next_on(Path::new("/data/manifest.json"), FaultOn::Sync, 1);
            broker.close().await.unwrap_err();
            // One is left, which finds its folder there and is synced by itself.
            let delete = Command::DeleteTopic { id: TOPIC };
            broker.propose(delete).await.unwrap();
            broker.close().await.unwrap();
        });
        sim.crash(CrashPolicy::POWER_LOST);
        let left = sim.block_on(async {
            let broker = node::start().await;
            node::fetch(&broker, PartitionId::new(OTHER, 0), 0).await
        });
        assert_eq!(left.map(|batches| batches.len()), Ok(1), "seed {seed}");
    }
}

#[test]
fn a_crash_among_many_new_folders_loses_nothing() {
    let (mut begun, mut ended) = (0, 0);
    for seed in 0..60 {
        let sim = Sim::new(seed, SimConfig::default());
        sim.block_on(async {
            let broker = fill().await;
            rt::spawn(rt::Class::Network, async move {
                broker.close().await.unwrap();
            });
            rt::sleep(Duration::from_micros(rt::random_u64() % 30_000)).await;
        });
        sim.crash(CrashPolicy::POWER);
        let disk = sim.disk();
        let said = |index: &i32| {
            let identity = disk.read_raw(&folder(*index).join("partition.metadata"));
            identity.is_some_and(|said| !said.is_empty())
        };
        match (0..PARTITIONS).filter(said).count() as i32 {
            0 => {}
            PARTITIONS => ended += 1,
            _ => begun += 1,
        }
        sim.block_on(async {
            let broker = node::start().await;
            check_all(&broker).await;
            broker.close().await.unwrap();
        });
        for index in 0..PARTITIONS {
            let said = disk.read_raw(&folder(index).join("partition.metadata"));
            assert_eq!(said, Some(identity(TOPIC)), "seed {seed}: {index}");
        }
        sim.crash(CrashPolicy::Process);
        let (findings, _) = sim.block_on(verify());
        let damaged = damaged_files(&findings);
        assert_eq!(damaged, Vec::<PathBuf>::new(), "seed {seed}: {findings:?}");
        sim.block_on(async { check_all(&node::start().await).await });
    }
    assert!(begun > 0 && ended > 0, "{begun} begun, {ended} ended");
}

#[test]
fn a_folder_that_says_nothing_yet_is_no_damage() {
    for clean in [true, false] {
        let sim = Sim::new(1, SimConfig::default());
        sim.block_on(async move {
            let broker = node::start().await;
            node::create_topic(&broker, TOPIC, "t", 2, 1 << 20).await;
            // As a crash leaves one that it came upon before the file in it.
            rt::fs::create_dir_all(&folder(1)).await.unwrap();
            if clean {
                broker.close().await.unwrap();
            }
        });
        sim.crash(CrashPolicy::Process);
        let (findings, _) = sim.block_on(verify());
        assert_eq!(damaged_files(&findings), Vec::<PathBuf>::new(), "{clean}");
        let left = |f: &Finding| f.level == Level::Leftover && f.file == folder(1);
        assert!(findings.iter().any(left), "{clean}: {findings:?}");

        sim.block_on(async {
            let broker = node::start().await;
            let id = PartitionId::new(TOPIC, 1);
            let batch = Batch::new(1, 100).encode();
            node::append(&broker, id, batch).await.unwrap();
            broker.close().await.unwrap();
        });
        let said = sim.disk().read_raw(&folder(1).join("partition.metadata"));
        assert_eq!(said, Some(identity(TOPIC)), "{clean}");
        sim.crash(CrashPolicy::Process);
        let (findings, _) = sim.block_on(verify());
        assert!(!findings.iter().any(left), "{clean}: {findings:?}");
    }
}

#[test]
fn a_stop_leaves_to_the_journal_what_takes_too_long() {
    const MANY: i32 = 600;
    for (seed, shards) in [(1, 1), (2, 2), (3, 3)] {
        let sim = Sim::new(seed, SimConfig::default());
        sim.block_on(async move {
            let brokers = node::try_start(2).await.unwrap();
            node::create_topic(&brokers[0], TOPIC, "t", MANY, 1 << 20).await;
            for index in 0..MANY {
                let id = PartitionId::new(TOPIC, index);
                let batch = Batch::new(index as u8, 100).encode();
                node::append(&brokers[0], id, batch).await.unwrap();
            }
            let (spike, lasting) = (Duration::from_millis(10), Duration::from_secs(100_000));
            Sim::handle().disk().latency_spike(spike, lasting);
            let begun = rt::now();
            node::close(&brokers).await;
            let took = rt::now().since(begun);
            assert!(took < Duration::from_secs(8), "{took:?}");
        });
        let disk = sim.disk();
        let made = (0..MANY).filter(|i| {
            disk.read_raw(&folder(*i).join("partition.metadata"))
                .is_some()
        });
        let made = made.count();
        assert!((1..MANY as usize).contains(&made), "{made} folders");
        sim.crash(CrashPolicy::POWER_LOST);
        sim.block_on(async move {
            let brokers = node::try_start(shards).await.unwrap();
            for index in 0..MANY {
                let id = PartitionId::new(TOPIC, index);
                let batches = node::fetch(&brokers[0], id, 0).await.unwrap();
                assert_eq!(batches.len(), 1, "{index}");
            }
        });
    }
}
