//! Owns what is left of a deleted topic where a crash comes between its deletion and the removal of its folders.
//! Does not know how folders are named.
//! Invariant checked: a topic of the same name never meets the files of the old one, and none of those is served.

use crate::node::{self, damaged_files, verify, Batch};
use millrace_engine::api::Broker;
use millrace_engine::meta::Command;
use millrace_engine::rt;
use millrace_engine::rt::sim::{CrashPolicy, Sim, SimConfig};
use millrace_engine::types::{PartitionId, TopicId};
use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

const OLD: TopicId = TopicId([3; 16]);
const NEW: TopicId = TopicId([4; 16]);
const BATCHES: i64 = 30;

/// Several segments, which begin at the same offsets in every life of the topic.
async fn fill(broker: &Broker, topic: TopicId, fill: u8, batches: i64) {
    for _ in 0..batches {
        let batch = Batch::new(fill, 100_000).encode();
        let id = PartitionId::new(topic, 0);
        node::append(broker, id, batch).await.unwrap();
    }
}

/// The old topic, with all of it in segments, and no broker.
fn fill_and_stop(sim: &Sim) {
    sim.block_on(async {
        let broker = node::start().await;
        create(&broker, OLD).await;
        fill(&broker, OLD, 1, BATCHES).await;
        broker.close().await.unwrap();
    });
    sim.crash(CrashPolicy::Process);
}

async fn create(broker: &Broker, topic: TopicId) {
    node::create_topic(broker, topic, "t", 1, 1 << 20).await;
}

/// Offsets of what is there; the time says in which life it was sent.
async fn times(broker: &Broker, topic: TopicId) -> Vec<i64> {
    let mut times = Vec::new();
    loop {
        let id = PartitionId::new(topic, 0);
        let batches = node::fetch(broker, id, times.len() as i64).await.unwrap();
        if batches.is_empty() {
            return times;
        }
        times.extend(batches.iter().map(|b| b.base_timestamp));
    }
}

#[test]
fn a_topic_made_again_never_meets_the_files_of_the_one_before() {
    let (mut kept, mut gone, mut again, mut met) = (0, 0, 0, 0);
    for seed in 0..120 {
        let sim = Sim::new(seed, SimConfig::default());
        let acked = Rc::new(Cell::new(0));
        let also = acked.clone();
        fill_and_stop(&sim);
        sim.block_on(async move {
            let broker = node::start().await;
            let work = rt::spawn_joined(rt::Class::Network, async move {
                let delete = Command::DeleteTopic { id: OLD };
                broker.propose(delete).await.unwrap();
                create(&broker, NEW).await;
                for _ in 0..3 {
                    fill(&broker, NEW, 2, 1).await;
                    also.set(also.get() + 1);
                }
            });
            let moment = Duration::from_micros(rt::random_u64() % 3_000);
            // Whether it gets done in time is the point.
            let _done = rt::timeout(moment, work).await;
        });
        sim.crash(
            [
                CrashPolicy::POWER,
                CrashPolicy::POWER_LOST,
                CrashPolicy::Process,
            ][seed as usize % 3],
        );
        let left = sim.disk().files();
        let left_behind = left.iter().any(|f| f.starts_with("/data/topics/t-0"));
        sim.block_on(async {
            let broker = node::start().await;
            let image = broker.image();
            if image.topic_by_id(OLD).is_none() && left_behind {
                met += 1;
            }
            if image.topic_by_id(OLD).is_some() {
                kept += 1;
                assert_eq!(times(&broker, OLD).await, vec![1_001; BATCHES as usize]);
                broker
                    .propose(Command::DeleteTopic { id: OLD })
                    .await
                    .unwrap();
            }
            if image.topic_by_id(NEW).is_some() {
                again += 1;
            } else {
                gone += 1;
                create(&broker, NEW).await;
            }
            let there = times(&broker, NEW).await;
            assert!(there.len() as i64 >= acked.get(), "seed {seed}: {there:?}");
            fill(&broker, NEW, 2, BATCHES - there.len() as i64).await;
            broker.close().await.unwrap();
        });
        sim.crash(CrashPolicy::Process);
        let (findings, _) = sim.block_on(verify());
        let damaged = damaged_files(&findings);
        assert_eq!(damaged, Vec::<PathBuf>::new(), "seed {seed}: {findings:?}");
        let found = sim.block_on(async { times(&node::start().await, NEW).await });
        assert_eq!(found, vec![1_002; BATCHES as usize], "seed {seed}");
    }
    assert!(
        kept > 0 && gone > 0 && again > 0 && met > 0,
        "{kept} kept, {gone} gone, {again} made again; {met} with the folder left behind"
    );
}

#[test]
fn segments_that_were_to_be_removed_are_not_looked_for_in_the_folder_of_a_new_topic() {
    for cut_off in [false, true] {
        let sim = Sim::new(u64::from(cut_off), SimConfig::default());
        fill_and_stop(&sim);
        // So many that a journal file is full, and its part of them in segments.
        let batches = 3 * BATCHES;
        sim.block_on(async move {
            let broker = node::start().await;
            let id = PartitionId::new(OLD, 0);
            // Its first segments are to be removed in a minute.
            broker.delete_records(id, BATCHES - 1).await.unwrap();
            let delete = Command::DeleteTopic { id: OLD };
            broker.propose(delete).await.unwrap();
            create(&broker, NEW).await;
            fill(&broker, NEW, 2, batches).await;
            rt::sleep(Duration::from_secs(90)).await;
            if !cut_off {
                broker.close().await.unwrap();
            }
        });
        sim.crash(CrashPolicy::Process);
        let (findings, _) = sim.block_on(verify());
        assert_eq!(damaged_files(&findings), Vec::<PathBuf>::new());
        let found = sim.block_on(async { times(&node::start().await, NEW).await });
        assert_eq!(found, vec![1_002; batches as usize], "{cut_off}");
    }
}

/// Files of the topic's segments.
fn segment_files(sim: &Sim) -> usize {
    let files = sim.disk().files().into_iter();
    let of_topic = files.filter(|f| f.starts_with("/data/topics/t-0"));
    of_topic
        .filter(|f| f.extension().is_some_and(|e| e == "log"))
        .count()
}

#[test]
fn what_was_to_be_removed_is_removed_though_the_broker_ended_before() {
    for clean in [true, false] {
        let sim = Sim::new(u64::from(clean), SimConfig::default());
        fill_and_stop(&sim);
        let before = segment_files(&sim);
        sim.block_on(async move {
            let broker = node::start().await;
            let id = PartitionId::new(OLD, 0);
            broker.delete_records(id, BATCHES - 1).await.unwrap();
            // A minute too early.
            if clean {
                broker.close().await.unwrap();
            }
        });
        sim.crash(CrashPolicy::Process);
        sim.block_on(async {
            let broker = node::start().await;
            rt::sleep(Duration::from_secs(1)).await;
            broker.close().await.unwrap();
        });
        assert!(before > 1, "{before}");
        assert_eq!(segment_files(&sim), 1, "stopped cleanly: {clean}");
    }
}
