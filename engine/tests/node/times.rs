//! Owns lookups by time where the log begins within a batch, or ends before what was appended last.
//! Does not know record formats: the topic stamps its batches, so that no record is looked into.
//! Invariant checked: a record that is there is found, and one that was deleted or is not durable yet is not.

use crate::node::{self, Batch};
use millrace_engine::api::{Acks, AppendItem, Broker, OffsetSpec};
use millrace_engine::rt;
use millrace_engine::rt::sim::{Sim, SimConfig};
use millrace_engine::types::{PartitionId, TopicId};
use std::time::Duration;

const TOPIC: TopicId = TopicId([7; 16]);
const RECORDS: i32 = 5;
/// Several segments on disk, and one in memory.
const BATCHES: i64 = 250;
const FIRST_LEFT: i64 = 90;

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
            assert_eq!(offset_of(&broker, OffsetSpec::At(at - 1_000)).await, first);
            assert_eq!(offset_of(&broker, OffsetSpec::MaxTimestamp).await, first);
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
        assert_eq!(offset_of(&broker, OffsetSpec::MaxTimestamp).await, 0);
        under_way.await;
        let second = i64::from(RECORDS);
        assert_eq!(offset_of(&broker, OffsetSpec::MaxTimestamp).await, second);
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
            // The first record is as late as the last one, and deleted: its whole segment is looked through.
            for n in 0..BATCHES {
                let batch = Batch {
                    timestamp_ms: if n == 0 { BATCHES } else { n },
                    ..Batch::new(n as u8, 100_000)
                };
                node::append(&broker, id(), batch.encode()).await.unwrap();
            }
            assert_eq!(broker.delete_records(id(), 5).await, Ok(5));
            let deleting = broker.clone();
            let deleted = rt::spawn_joined(rt::Class::Network, async move {
                deleting.delete_records(id(), FIRST_LEFT).await
            });
            rt::sleep(Duration::from_micros(micros)).await;
            let found = offset_of(&broker, OffsetSpec::At(FIRST_LEFT)).await;
            assert_eq!(deleted.await, Ok(FIRST_LEFT));
            found
        });
        assert_eq!(found, FIRST_LEFT, "{micros} us after it began");
    }
}
