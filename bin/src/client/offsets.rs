//! Owns looking up offsets: ends of a log, or the first record at a time.
//! Does not know what the offsets are for.
//! Invariant: the answer has an offset for every partition asked for, or is an error.

use super::cluster::{Cluster, Partition};
use super::error::ClientError;
use super::isolation::Isolation;
use millrace_net::wire::list_offsets::{
    timestamp, ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use millrace_net::wire::Str;
use std::collections::BTreeMap;

/// What to look up; a time is in milliseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spec {
    Earliest,
    Latest,
    At(i64),
}

impl Spec {
    fn timestamp(self) -> i64 {
        match self {
            Spec::Earliest => timestamp::EARLIEST,
            Spec::Latest => timestamp::LATEST,
            Spec::At(ms) => ms.max(0),
        }
    }
}

/// Offsets by partition; for readers of committed records the latest one is where those end. -1 where no record is at or after the time. Leaders are as given: one try.
pub fn list(
    cluster: &mut Cluster,
    topic: &str,
    partitions: &[Partition],
    spec: Spec,
    isolation: Isolation,
) -> Result<BTreeMap<i32, i64>, ClientError> {
    let mut by_leader: BTreeMap<i32, Vec<&Partition>> = BTreeMap::new();
    for partition in partitions {
        if partition.leader < 0 {
            return Err(ClientError::NoLeader(format!(
                "partition {} of {topic}",
                partition.index
            )));
        }
        by_leader
            .entry(partition.leader)
            .or_default()
            .push(partition);
    }
    let mut offsets = BTreeMap::new();
    for (leader, partitions) in by_leader {
        let wanted = partitions.iter().map(|p| ListOffsetsPartition {
            partition_index: p.index,
            current_leader_epoch: -1,
            timestamp: spec.timestamp(),
        });
        let request = ListOffsetsRequest {
            replica_id: -1,
            isolation_level: isolation.code(),
            topics: vec![ListOffsetsTopic {
                name: Str::from(topic.to_string()),
                partitions: wanted.collect(),
            }],
            ..ListOffsetsRequest::default()
        };
        let answer = cluster.with_node(leader, |conn| conn.call(&request))?;
        for part in answer.topics.into_iter().flat_map(|t| t.partitions) {
            let what = || format!("offsets of partition {} of {topic}", part.partition_index);
            ClientError::check(what, part.error_code, None)?;
            offsets.insert(part.partition_index, part.offset);
        }
    }
    match partitions.iter().find(|p| !offsets.contains_key(&p.index)) {
        None => Ok(offsets),
        Some(missing) => Err(ClientError::NoLeader(format!(
            "partition {} of {topic}",
            missing.index
        ))),
    }
}
