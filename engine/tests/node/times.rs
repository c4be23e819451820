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
