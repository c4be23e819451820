//! Owns the proof that damage in a partition's newest segment costs what it damaged, and nothing else.
//! Does not know repairs. Runs on the simulator.
//! Invariant checked: no wrong byte is served, the others' records are all there, and appends go on or are refused.

use crate::node::{append, create_topic, fetch, read, start, Batch};
use millrace_engine::api::Broker;
use millrace_engine::rt;
use millrace_engine::rt::sim::{CrashPolicy, Sim, SimConfig};
use millrace_engine::types::{PartitionId, TopicId};
use std::path::{Path, PathBuf};
use std::time::Duration;

const HIT: PartitionId = PartitionId::new(TopicId([5; 16]), 0);
const WHOLE: PartitionId = PartitionId::new(TopicId([5; 16]), 1);
const BATCHES: i64 = 100;
/// Of virtual time: an append that takes longer never ends.
const PATIENCE: Duration = Duration::from_secs(600);

/// More than a partition ever gets here: the newest segment is the only one at first.
const SEGMENT_BYTES: u64 = 1 << 30;

/// Batches for both in turn, several times what the journal holds.
async fn fill(broker: &Broker) {
    fill_some(broker, BATCHES, &[HIT, WHOLE]).await;
}

async fn fill_some(broker: &Broker, batches: i64, partitions: &[PartitionId]) {
    for n in 0..batches {
        for id in partitions.iter().copied() {
            let bytes = 70_000 + 777 * n as usize;
            let append = append(broker, id, Batch::new(n as u8, bytes).encode());
            let done = rt::timeout(PATIENCE, append).await.expect("an answer");
            done.unwrap_or_else(|e| panic!("{id}: {e}"));
        }
    }
}

fn newest_segment(sim: &Sim) -> PathBuf {
    let files = sim.disk().files();
    let logs = files.into_iter().filter(|f| {
        f.parent() == Some(Path::new("/data/topics/t-0"))
            && f.extension().is_some_and(|e| e == "log")
    });
    logs.max().expect("a segment")
}

/// In the second half, so that the first one stays readable. Where the segment ends is the checkpoint's secret.
fn damage_the_end(sim: &Sim, file: &Path) {
    let content = sim.disk().read_raw(file).expect("is there");
    let written = content.iter().rposition(|b| *b != 0).expect("not empty") as u64;
    for block in written / 8_192..=written / 4_096 {
        sim.disk().flip_bit(file, block * 4_096, 3);
    }
}

/// What can be read of the partition that was hit: offsets in order, and how often a fetch was refused.
async fn read_around(broker: &Broker, end: i64) -> (Vec<i64>, usize) {
    let (mut found, mut refused, mut offset) = (Vec::new(), 0, 0);
    while offset < end {
        match fetch(broker, HIT, offset).await {
            Ok(batches) => {
                let last = batches.last().expect("below the end there is a batch");
                found.extend(
                    batches
                        .iter()
                        .map(|b| b.base_offset)
                        .filter(|o| *o >= offset),
                );
                offset = last.next_offset();
            }
            Err(error) => {
                assert!(error.contains("damaged"), "{error}");
                refused += 1;
                offset += 1;
            }
        }
    }
    (found, refused)
}

async fn the_other_is_whole(broker: &Broker, end: i64) {
    let offsets: Vec<i64> = read(broker, WHOLE, 0).await.iter().map(|b| b.0).collect();
    assert_eq!(offsets, (0..end).collect::<Vec<_>>());
}

/// Ten batches on disk, the last block padded because the journal files that held it came round.
async fn ten_and_a_padded_block(broker: &Broker) {
    create_topic(broker, HIT.topic, "t", 2, SEGMENT_BYTES).await;
    fill_some(broker, 10, &[HIT]).await;
    fill_some(broker, BATCHES, &[WHOLE]).await;
}

/// `hit` and `whole` batches are there, but for some of the first ten.
fn only_the_damage_is_lost(sim: &Sim, hit: i64, whole: i64) {
    for round in 0..2 {
        sim.block_on(async move {
            let broker = start().await;
            the_other_is_whole(&broker, whole + BATCHES * round).await;
            let end = hit + BATCHES * round;
            let (found, refused) = read_around(&broker, end).await;
            assert_eq!(found.len() + refused, end as usize);
            assert!((1..=6).contains(&refused), "{refused} of the first ten");
            fill(&broker).await;
        });
        sim.crash(CrashPolicy::Process);
    }
}

#[test]
fn blocks_found_damaged_at_a_start_after_a_crash_cost_no_other_record() {
    let sim = Sim::new(7, SimConfig::default());
    sim.block_on(async {
        let broker = start().await;
        ten_and_a_padded_block(&broker).await;
        fill_some(&broker, 3, &[HIT]).await;
    });
    sim.crash(CrashPolicy::Process);
    damage_the_end(&sim, &newest_segment(&sim));
    only_the_damage_is_lost(&sim, 13, BATCHES);
}

#[test]
fn a_block_damaged_while_serving_holds_up_no_flush() {
    let sim = Sim::new(8, SimConfig::default());
    let serving = sim.clone();
    sim.block_on(async move {
        let broker = start().await;
        ten_and_a_padded_block(&broker).await;
        damage_the_end(&serving, &newest_segment(&serving));
        for _ in 0..3 {
            fill_some(&broker, 10, &[HIT]).await;
            fill_some(&broker, BATCHES, &[WHOLE]).await;
        }
        broker.close().await.unwrap();
    });
    sim.crash(CrashPolicy::Process);
    only_the_damage_is_lost(&sim, 40, 4 * BATCHES);
}

#[test]
fn a_lost_segment_takes_its_partition_offline_and_no_other() {
    let sim = Sim::new(9, SimConfig::default());
    sim.block_on(async {
        let broker = start().await;
        create_topic(&broker, HIT.topic, "t", 2, SEGMENT_BYTES).await;
        fill(&broker).await;
    });
    sim.crash(CrashPolicy::Process);
    let lost = newest_segment(&sim);
    sim.block_on(async move { rt::fs::remove_file(&lost).await })
        .unwrap();
    for round in 1..4 {
        sim.block_on(async move {
            let broker = start().await;
            the_other_is_whole(&broker, BATCHES * round).await;
            let refused = fetch(&broker, HIT, 0).await.unwrap_err();
            assert!(refused.contains("damaged"), "{refused}");
            for n in 0..BATCHES {
                let batch = Batch::new(n as u8, 100_000).encode();
                let refused = append(&broker, HIT, batch.clone()).await.unwrap_err();
                assert!(refused.contains("damaged"), "{refused}");
                append(&broker, WHOLE, batch).await.unwrap();
            }
        });
        sim.crash(CrashPolicy::Process);
    }
}

#[test]
fn a_segment_that_ends_early_is_refused_where_it_ends() {
    let sim = Sim::new(10, SimConfig::default());
    sim.block_on(async {
        let broker = start().await;
        ten_and_a_padded_block(&broker).await;
        broker.close().await.unwrap();
    });
    sim.crash(CrashPolicy::Process);
    let file = newest_segment(&sim);
    let content = sim.disk().read_raw(&file).expect("is there");
    sim.disk().write_raw(&file, &content[..content.len() / 2]);
    sim.block_on(async {
        let broker = start().await;
        the_other_is_whole(&broker, BATCHES).await;
        for offset in 0..10 {
            let fetch = fetch(&broker, HIT, offset);
            let found = rt::timeout(PATIENCE, fetch).await.expect("an answer");
            assert_eq!(found.is_ok(), offset < 5, "offset {offset}: {found:?}");
        }
    });
}

/// With a leader epoch of 2 a batch looks like one a byte before its beginning too.
#[test]
fn an_index_that_points_a_byte_before_a_batch_hides_nothing() {
    let sim = Sim::new(11, SimConfig::default());
    for life in 0..3 {
        sim.block_on(async move {
            let broker = start().await;
            if life == 0 {
                create_topic(&broker, HIT.topic, "t", 2, 1 << 20).await;
            }
            fill(&broker).await;
            broker.close().await.unwrap();
        });
        sim.crash(CrashPolicy::Process);
    }
    let files = sim.disk().files().into_iter();
    let indexes = files.filter(|f| f.extension().is_some_and(|e| e == "index"));
    for file in indexes {
        let mut content = sim.disk().read_raw(&file).unwrap();
        for entry in content.chunks_exact_mut(8) {
            let position = u32::from_be_bytes(entry[4..].try_into().unwrap());
            entry[4..].copy_from_slice(&position.saturating_sub(1).to_be_bytes());
        }
        sim.disk().write_raw(&file, &content);
    }
    sim.block_on(async {
        let broker = start().await;
        for id in [HIT, WHOLE] {
            let mut epochs = Vec::new();
            for offset in 0..3 * BATCHES {
                let batches = fetch(&broker, id, offset).await.unwrap();
                assert_eq!(batches[0].base_offset, offset);
                epochs.push(batches[0].leader_epoch);
            }
            assert!(epochs.contains(&2), "{epochs:?}");
        }
    });
}
