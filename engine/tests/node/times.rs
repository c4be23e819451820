//! Owns lookups by time where the log begins within a batch, or ends before what was appended last.
//! Does not know record formats: the topic stamps its batches, so that no record is looked into.
//! Invariant checked: a record that is there is found, and one that was deleted or is not durable yet is not.

use crate::node::{self, Batch};
use millrace_engine::api::{Acks, AppendItem, Broker, OffsetSpec, PartitionError};
use millrace_engine::rt;
use millrace_engine::rt::sim::{Sim, SimConfig};
use millrace_engine::types::{PartitionId, TopicId};
use std::future::{poll_fn, Future};
use std::task::Poll;
use std::time::Duration;

const TOPIC: TopicId = TopicId([7; 16]);
const RECORDS: i32 = 5;
/// Several segments on disk, and one in memory.
const BATCHES: i64 = 250;
const FIRST_LEFT: i64 = 90;

const NEWEST: OffsetSpec = OffsetSpec::MaxTimestamp {
    read_committed: false,
};

fn since(timestamp_ms: i64) -> OffsetSpec {
    OffsetSpec::At {
        timestamp_ms,
        read_committed: false,
    }
}

async fn start() -> Broker {
    let broker = node::start().await;
    let settings = [("message.timestamp.type", "LogAppendTime")];
    node::create_topic_with(&broker, TOPIC, "t", 1, &settings).await;
    broker
}

fn id() -> PartitionId {
    PartitionId::new(TOPIC, 0)
}

fn item() -> AppendItem {
    let batch = Batch {
        records: RECORDS,
        ..Batch::new(0, 39)
    };
    AppendItem {
        partition: id(),
        batch: batch.encode().into(),
    }
}

/// Appends batches of one record each. The first is as late as the last one, and deleted: whoever looks for a time has
/// to look through its whole segment.
async fn fill(broker: &Broker) {
    for n in 0..BATCHES {
        let batch = Batch {
            timestamp_ms: if n == 0 { BATCHES } else { n },
            ..Batch::new(n as u8, 100_000)
        };
        node::append(broker, id(), batch.encode()).await.unwrap();
    }
    assert_eq!(broker.delete_records(id(), 5).await, Ok(5));
}

async fn offset_of(broker: &Broker, spec: OffsetSpec) -> i64 {
    broker.list_offset(id(), -1, spec).await.unwrap().offset
}

#[test]
fn what_is_left_of_a_batch_is_found_by_its_time() {
    let sim = Sim::new(1, SimConfig::default());
    sim.block_on(async {
        let broker = start().await;
        broker.append(vec![item()], Acks::All).await;
        let at = rt::wall_ms();
        for (before, first) in [(-2, 0), (3, 3)] {
            if before > 0 {
                assert_eq!(broker.delete_records(id(), before).await, Ok(first));
            }
            assert_eq!(offset_of(&broker, since(at - 1_000)).await, first);
            assert_eq!(offset_of(&broker, NEWEST).await, first);
        }
    });
}

#[test]
fn the_newest_record_is_one_that_is_durable() {
    let sim = Sim::new(2, SimConfig::default());
    sim.block_on(async {
        let broker = start().await;
        broker.append(vec![item()], Acks::All).await;
        rt::sleep(Duration::from_millis(20)).await;
        // In the log, and not flushed.
        let under_way = broker.append(vec![item()], Acks::All);
        assert_eq!(offset_of(&broker, NEWEST).await, 0);
        under_way.await;
        let second = i64::from(RECORDS);
        assert_eq!(offset_of(&broker, NEWEST).await, second);
    });
}

/// Whatever the moment at which a segment goes away under a lookup, no record is passed over that is still there.
#[test]
fn a_segment_deleted_while_it_is_looked_through_hides_no_record_behind_it() {
    for micros in (0..400).step_by(40) {
        let sim = Sim::new(3, SimConfig::default());
        let found = sim.block_on(async move {
            let broker = node::start().await;
            node::create_topic(&broker, TOPIC, "t", 1, 8 << 20).await;
            fill(&broker).await;
            let deleting = broker.clone();
            let deleted = rt::spawn_joined(rt::Class::Network, async move {
                deleting.delete_records(id(), FIRST_LEFT).await
            });
            rt::sleep(Duration::from_micros(micros)).await;
            let found = offset_of(&broker, since(FIRST_LEFT)).await;
            assert_eq!(deleted.await, Ok(FIRST_LEFT));
            found
        });
        assert_eq!(found, FIRST_LEFT, "{micros} us after it began");
    }
}

/// A node of so many shards on which a lookup by time takes long, and the time that one takes.
async fn slow(shards: usize) -> (Vec<Broker>, Duration) {
    let brokers = node::try_start(shards).await.unwrap();
    node::create_topic(&brokers[0], TOPIC, "t", 1, 8 << 20).await;
    fill(&brokers[0]).await;
    let disk = Sim::handle().disk();
    disk.latency_spike(Duration::from_secs(1), Duration::from_secs(100_000));
    let begun = rt::now();
    assert_eq!(look(&brokers[0]).await, Ok(FIRST_LEFT));
    let alone = rt::now().since(begun);
    assert!(alone > Duration::from_secs(5), "{alone:?}");
    (brokers, alone)
}

async fn look(broker: &Broker) -> Result<i64, PartitionError> {
    let found = broker.list_offset(id(), -1, since(FIRST_LEFT));
    Ok(found.await?.offset)
}

#[test]
fn searches_that_nobody_waits_for_hold_up_no_other() {
    for (shards, asking) in [(1, 0), (2, 0), (2, 1)] {
        let sim = Sim::new(4, SimConfig::default());
        sim.block_on(async move {
            let (brokers, alone) = slow(shards).await;
            let mut given_up: Vec<_> = (0..100).map(|_| Box::pin(look(&brokers[asking]))).collect();
            let begin = poll_fn(|cx| {
                for search in &mut given_up {
                    assert!(search.as_mut().poll(cx).is_pending());
                }
                Poll::<()>::Pending
            });
            assert!(rt::timeout(alone / 4, begin).await.is_none());
            drop(given_up);
            let begun = rt::now();
            assert_eq!(look(&brokers[0]).await, Ok(FIRST_LEFT));
            // What was being read when they were given up is still read.
            let waited = rt::now().since(begun);
            assert!(
                waited < alone + Duration::from_secs(3),
                "{waited:?} and {alone:?}"
            );
        });
    }
}

#[test]
fn a_search_ends_with_its_shard() {
    for (shards, asking) in [(1, 0), (2, 0), (2, 1)] {
        let sim = Sim::new(5, SimConfig::default());
        sim.block_on(async move {
            let (brokers, alone) = slow(shards).await;
            let asker = brokers[asking].clone();
            let search = rt::spawn_joined(rt::Class::Network, async move { look(&asker).await });
            rt::sleep(alone / 4).await;
            let begun = rt::now();
            let closed =
                rt::spawn_joined(
                    rt::Class::Network,
                    async move { node::close(&brokers).await },
                );
            assert_eq!(search.await, Err(PartitionError::Stopping));
            let waited = rt::now().since(begun);
            assert!(waited < alone / 2, "{waited:?} and {alone:?}");
            closed.await;
        });
    }
}
