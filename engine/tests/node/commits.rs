//! Owns the proof that where acknowledged commits are damaged a partition is served only if it provably lost nothing.
//! Does not know segments: all that is told here fits into one journal file. Runs on the simulator.
//! Invariant checked: `verify` and the start that follows say the same, and no acknowledged record vanishes unsaid.

use crate::node::{self, append, create_topic, fetch, read, start, verify, Batch};
use millrace_engine::api::{Broker, OffsetSpec};
use millrace_engine::inspect::{Finding, Subject};
use millrace_engine::rt::sim::{CrashPolicy, Sim, SimConfig};
use millrace_engine::types::{Offset, PartitionId, TopicId};
use std::path::Path;

const TOPIC: TopicId = TopicId([6; 16]);
const JOURNAL: &str = "/data/journal/g1-s0/000000.journal";
/// Several blocks, so that the value of every batch fills at least one.
const BYTES: usize = 20_000;

const fn partition(index: i32) -> PartitionId {
    PartitionId::new(TOPIC, index)
}

/// One batch for each of `partitions`, each in a commit of its own, filled with its place in the list.
async fn commits(broker: &Broker, partitions: &[i32]) {
    for (place, index) in partitions.iter().enumerate() {
        let batch = Batch::new(1 + place as u8, BYTES).encode();
        append(broker, partition(*index), batch).await.unwrap();
    }
}

/// Flips a bit within the batch that `commits` sent as number `place`.
fn damage(sim: &Sim, place: usize) {
    let content = sim.disk().read_raw(Path::new(JOURNAL)).unwrap();
    let whole = |block: &[u8]| block.iter().all(|b| *b == 1 + place as u8);
    let block = content.chunks(4_096).position(whole).expect("is there");
    sim.disk()
        .flip_bit(Path::new(JOURNAL), block as u64 * 4_096 + 100, 3);
}

/// Partitions of which `verify` says that records may be lost, and from which offset on.
fn lost(findings: &[Finding]) -> Vec<(i32, Offset)> {
    let about = |f: &Finding| match f.subject {
        Subject::Records { partition, from } => Some((partition.index, from)),
        _ => None,
    };
    findings.iter().filter_map(about).collect()
}

/// The offsets that can be read, and whether the partition takes appends.
async fn state(broker: &Broker, index: i32, below: Option<Offset>) -> Vec<Offset> {
    let id = partition(index);
    let more = append(broker, id, Batch::new(99, 10).encode()).await;
    let Some(below) = below else {
        more.unwrap();
        return read(broker, id, 0).await.iter().map(|b| b.0).collect();
    };
    assert!(more.unwrap_err().contains("damaged"));
    assert!(fetch(broker, id, below)
        .await
        .unwrap_err()
        .contains("damaged"));
    let mut offsets = Vec::new();
    while (offsets.len() as Offset) < below {
        let batches = fetch(broker, id, offsets.len() as Offset).await.unwrap();
        offsets.extend(batches.iter().map(|b| b.base_offset));
    }
    offsets
}

#[test]
fn a_second_damaged_commit_takes_back_what_was_proven_before_it() {
    let sim = Sim::new(11, SimConfig::default());
    sim.block_on(async {
        let broker = start().await;
        create_topic(&broker, TOPIC, "t", 4, 1 << 30).await;
        commits(&broker, &[0, 1, 2, 3, 0, 1, 1, 2, 2, 0, 2]).await;
    });
    sim.crash(CrashPolicy::Process);
    // The second batch of 0, and the third of 1, whose second one lies between the two.
    damage(&sim, 4);
    damage(&sim, 6);

    let (findings, _) = sim.block_on(verify());
    assert_eq!(lost(&findings), [(0, 1), (1, 2), (3, 1)], "{findings:?}");
    for round in 0..2 {
        sim.block_on(async move {
            let broker = start().await;
            assert_eq!(state(&broker, 0, Some(1)).await, [0]);
            assert_eq!(state(&broker, 1, Some(2)).await, [0, 1]);
            let whole: Vec<Offset> = (0..5 + round).collect();
            assert_eq!(state(&broker, 2, None).await, whole);
            assert_eq!(state(&broker, 3, Some(1)).await, [0]);
        });
        sim.crash(CrashPolicy::Process);
    }
}

/// A journal's files are as large as the memory allows, and no commit is larger than one of them.
#[test]
fn a_commit_that_was_made_with_more_memory_is_recovered_with_less() {
    const LARGE: usize = 20 << 20;
    let sim = Sim::new(1, SimConfig::default());
    sim.block_on(async {
        let mut config = node::config();
        config.memory_bytes = 1 << 30;
        let broker = node::start_with(config, 1).await.unwrap().remove(0);
        let settings = [("max.message.bytes", "33554432")];
        node::create_topic_with(&broker, TOPIC, "t", 1, &settings).await;
        let batch = Batch::new(1, LARGE).encode();
        append(&broker, partition(0), batch).await.unwrap();
    });
    sim.crash(CrashPolicy::POWER);
    for shards in [2, 1] {
        sim.block_on(async move {
            let brokers = node::try_start(shards).await.unwrap();
            let latest = OffsetSpec::Latest {
                read_committed: false,
            };
            let end = brokers[0].list_offset(partition(0), -1, latest).await;
            assert_eq!(end.unwrap().offset, 1);
            node::close(&brokers).await;
        });
        sim.crash(CrashPolicy::Process);
    }
    let (findings, _) = sim.block_on(verify());
    assert!(findings.is_empty(), "{findings:?}");
}
