//! Owns the proof that fetches which read at the same moment share one budget, and what those meet that wait for it.
//! Does not know connections: who holds an answer here is a client that does not take it.
//! Invariant checked: what is read and held never passes the budget and half of it again.

use crate::node::{self, append, create_topic, start, Batch};
use millrace_engine::api::{Broker, FetchItem, FetchOptions, Fetched, PartitionError};
use millrace_engine::rt::sim::{Sim, SimConfig};
use millrace_engine::rt::{self, Class, Joined};
use millrace_engine::types::{PartitionId, TopicId};
use std::time::Duration;

const ID: PartitionId = PartitionId::new(TopicId([4; 16]), 0);
const BATCHES: i64 = 300;
const BATCH_BYTES: usize = 200_000;
const READERS: usize = 100;

async fn filled() -> Broker {
    let broker = start().await;
    fill(&broker).await;
    broker
}

async fn fill(broker: &Broker) {
    create_topic(broker, ID.topic, "t", 1, 1 << 30).await;
    for n in 0..BATCHES {
        let batch = Batch::new(n as u8, BATCH_BYTES).encode();
        append(broker, ID, batch).await.unwrap();
    }
}

fn read(broker: &Broker, offset: i64) -> Joined<Result<Fetched, PartitionError>> {
    let item = FetchItem {
        partition: ID,
        offset,
        max_bytes: 1 << 20,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
    };
    let options = FetchOptions {
        max_wait: Duration::from_millis(500),
        min_bytes: 1,
        max_bytes: 50 << 20,
        read_committed: false,
    };
    let broker = broker.clone();
    rt::spawn_joined(Class::Network, async move {
        broker.fetch(vec![item], options).await.remove(0)
    })
}

/// What readers hold that began together, from disk and from memory alike.
async fn held_by_readers(broker: &Broker) -> Vec<Fetched> {
    let readers: Vec<_> = (0..READERS)
        .map(|reader| read(broker, reader as i64 * BATCHES / READERS as i64))
        .collect();
    let mut held = Vec::new();
    for reader in readers {
        held.push(reader.await.unwrap());
    }
    held
}

/// Of readers that all ask this broker.
async fn they_stay_within_the_budget(broker: &Broker) {
    let held = held_by_readers(broker).await;
    let bytes: usize = held.iter().map(|fetched| fetched.bytes()).sum();
    let metrics = broker.metrics();
    assert_eq!(metrics.response_bytes, bytes as u64);
    assert!(
        bytes as u64 <= metrics.response_bytes_max * 3 / 2,
        "{bytes}"
    );
    assert!(bytes > BATCH_BYTES);
    let hungry = held.iter().filter(|fetched| fetched.bytes() == 0).count();
    assert!(hungry > READERS / 2, "{hungry}");
    drop(held);
    assert_eq!(broker.metrics().response_bytes, 0);
    assert!(read(broker, 0).await.unwrap().bytes() > BATCH_BYTES);
}

#[test]
fn readers_that_begin_together_and_take_nothing_stay_within_the_budget() {
    let sim = Sim::new(1, SimConfig::default());
    sim.block_on(async { they_stay_within_the_budget(&filled().await).await });
}

/// What comes from there is a copy, in the memory of the shard that was asked.
#[test]
fn readers_of_what_another_shard_has_stay_within_the_budget_too() {
    let sim = Sim::new(4, SimConfig::default());
    sim.block_on(async {
        let brokers = node::try_start(2).await.unwrap();
        fill(&brokers[0]).await;
        let asked = 1 - brokers[0].owner(ID);
        they_stay_within_the_budget(&brokers[asked]).await;
    });
}

#[test]
fn a_reader_that_waits_for_memory_is_told_that_its_offset_was_deleted() {
    let sim = Sim::new(2, SimConfig::default());
    sim.block_on(async {
        let broker = filled().await;
        let held = held_by_readers(&broker).await;
        let (gone, there) = (read(&broker, BATCHES - 9), read(&broker, BATCHES - 2));
        rt::sleep(Duration::from_millis(100)).await;
        let start = broker.delete_records(ID, BATCHES - 3).await;
        assert_eq!(start, Ok(BATCHES - 3));
        drop(held);
        let refused = gone.await.map(|f| f.bytes());
        assert!(
            matches!(refused, Err(PartitionError::OffsetOutOfRange { .. })),
            "{refused:?}"
        );
        let there = there.await.unwrap();
        assert!(there.bytes() > 0 && there.log_start == BATCHES - 3);
    });
}

/// Commits would wait for what a device reads: while there are some, it is less at a time.
#[test]
fn beside_commits_less_is_read_from_disk_at_once() {
    let sim = Sim::new(3, SimConfig::default());
    sim.block_on(async {
        let broker = filled().await;
        rt::sleep(Duration::from_millis(100)).await;
        let at_rest = read(&broker, 0).await.unwrap().bytes();
        assert!(at_rest > 4 * BATCH_BYTES, "{at_rest}");
        let batch = Batch::new(1, BATCH_BYTES).encode();
        append(&broker, ID, batch).await.unwrap();
        let beside = read(&broker, 0).await.unwrap().bytes();
        assert!(beside > 0 && beside < 2 * BATCH_BYTES, "{beside}");
    });
}

/// A read gives less than a reader asks for that wants much, and is no reason to wait for more to come.
#[test]
fn a_reader_on_another_shard_does_not_wait_for_what_is_there() {
    let sim = Sim::new(4, SimConfig::default());
    sim.block_on(async {
        let brokers = node::try_start(2).await.unwrap();
        create_topic(&brokers[0], ID.topic, "t", 1, 1 << 30).await;
        for n in 0..BATCHES {
            let batch = Batch::new(n as u8, BATCH_BYTES).encode();
            append(&brokers[0], ID, batch).await.unwrap();
        }
        let item = FetchItem {
            partition: ID,
            offset: 0,
            max_bytes: 3 << 20,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
        };
        for broker in &brokers {
            // On the disk it is read a mebibyte at a time; of what was written last there is too little.
            for (offset, min_bytes, waits) in [(0, 2 << 20, false), (BATCHES - 2, 2 << 20, true)] {
                let options = FetchOptions {
                    max_wait: Duration::from_secs(5),
                    min_bytes,
                    max_bytes: 50 << 20,
                    read_committed: false,
                };
                let began = rt::now();
                let item = FetchItem { offset, ..item };
                let fetched = broker.fetch(vec![item], options).await.remove(0).unwrap();
                let took = rt::now() - began;
                assert!(fetched.bytes() >= BATCH_BYTES);
                assert_eq!(took >= Duration::from_secs(5), waits, "{offset}: {took:?}");
            }
        }
    });
}

/// Every start is a new epoch, also one in which nothing is written.
#[test]
fn an_epoch_without_records_ends_where_the_log_does() {
    let sim = Sim::new(5, SimConfig::default());
    let ends = |epochs: &'static [i32]| {
        sim.block_on(async move {
            let broker = start().await;
            if broker.image().topic("t").is_none() {
                create_topic(&broker, ID.topic, "t", 1, 1 << 20).await;
            }
            let mut ends = Vec::new();
            for epoch in epochs {
                let end = broker.end_of_epoch(ID, -1, *epoch).await.unwrap();
                ends.push((end.epoch, end.end_offset));
            }
            let batch = Batch::new(1, 100).encode();
            if ends.len() == 2 {
                append(&broker, ID, batch).await.unwrap();
            }
            broker.close().await.unwrap();
            ends
        })
    };
    let restart = || sim.crash(millrace_engine::rt::sim::CrashPolicy::Process);
    assert_eq!(ends(&[0]), [(0, 0)]);
    restart();
    // Now it is 1, in which a record is written.
    assert_eq!(ends(&[0, 2]), [(0, 0), (-1, -1)]);
    restart();
    assert_eq!(ends(&[0, 1, 2]), [(0, 0), (1, 1), (2, 1)]);
    restart();
    // Of 2 there is nothing but that it was.
    assert_eq!(ends(&[1, 2, 3, 4]), [(1, 1), (1, 1), (3, 1), (-1, -1)]);
}
