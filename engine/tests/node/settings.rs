//! Owns the proof that settings reach every shard and that DeleteRecords is durable.
//! Does not know how settings are agreed on.

use crate::node::{append, create_topic, try_start, Batch};
use millrace_engine::api::{Acks, AppendItem};
use millrace_engine::meta::{Command, ConfigEdit};
use millrace_engine::rt::sim::{CrashPolicy, Sim, SimConfig};
use millrace_engine::types::{PartitionId, TopicId};

const PARTITIONS: i32 = 3;

fn topic(n: u8) -> TopicId {
    TopicId([n + 1; 16])
}

#[test]
fn settings_reach_every_shard_and_records_can_be_deleted() {
    let sim = Sim::new(7, SimConfig::default());
    sim.block_on(async {
        let brokers = try_start(2).await.unwrap();
        for n in 0..2 {
            create_topic(&brokers[1], topic(n), &format!("t{n}"), PARTITIONS, 1 << 20).await;
        }
        let edit = ConfigEdit::set([("max.message.bytes".to_string(), Some("100".to_string()))]);
        brokers[1]
            .propose(Command::SetTopicConfig { id: topic(1), edit })
            .await
            .unwrap();
        for index in 0..PARTITIONS {
            let id = PartitionId::new(topic(1), index);
            let refused = append(&brokers[0], id, Batch::new(1, 500).encode()).await;
            let refused = refused.unwrap_err();
            assert!(refused.contains("max.message.bytes 100"), "{refused}");
        }
        let id = PartitionId::new(topic(0), 0);
        for fill in 0..10 {
            let two = Batch {
                records: 2,
                ..Batch::new(fill, 50)
            };
            let item = AppendItem {
                partition: id,
                batch: two.encode().into(),
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
        let brokers = try_start(1).await.unwrap();
        let id = PartitionId::new(topic(0), 0);
        let batch = Batch::new(9, 50).encode();
        let item = AppendItem {
            partition: id,
            batch: batch.into(),
        };
        let appended = brokers[0].append(vec![item], Acks::All).await.remove(0);
        let appended = appended.unwrap();
        assert_eq!((appended.base_offset, appended.log_start), (20, 20));
    });
}
