//! Owns DescribeQuorum: who agrees on the metadata, and how far they are.
//! Does not know how they agree.
//! Invariant: the group is this node, which leads it: nobody is behind.

use super::Outcome;
use crate::cores::Faces;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::describe_quorum::{
    DescribeQuorumRequest, DescribeQuorumResponse, Listener, Node, PartitionData, ReplicaState,
    TopicData,
};
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::MetaProgress;
use millrace_engine::rt;

/// What clients call the log that is agreed on.
const METADATA_TOPIC: &str = "__cluster_metadata";
/// The kind of address that the node is reached at.
const LISTENER: &str = "PLAINTEXT";

impl Outcome for DescribeQuorumResponse {
    fn failed(&self) -> bool {
        let mut partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        self.error_code != 0 || partitions.any(|partition| partition.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    if !asks_for_metadata(&request) {
        return unknown(request);
    }
    let image = shard.broker.image();
    match shard.broker.meta_progress().await {
        Ok(progress) => describe(&shard.faces(&image), progress, rt::wall_ms()),
        Err(error) => DescribeQuorumResponse {
            error_code: errors::meta(&error).code(),
            error_message: Some(error.to_string().into()),
            ..Default::default()
        },
    }
}

/// The one partition there is, and no other.
fn asks_for_metadata(request: &DescribeQuorumRequest) -> bool {
    let [topic] = &request.topics[..] else {
        return false;
    };
    let indexes = topic.partitions.iter().map(|p| p.partition_index);
    *topic.topic_name == *METADATA_TOPIC && indexes.eq([0])
}

fn unknown(request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let topics = request.topics.into_iter().map(|topic| TopicData {
        topic_name: topic.topic_name,
        partitions: topic
            .partitions
            .into_iter()
            .map(|asked| PartitionData {
                partition_index: asked.partition_index,
                error_code: ErrorCode::UnknownTopicOrPartition.code(),
                ..Default::default()
            })
            .collect(),
    });
    DescribeQuorumResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}

fn describe(faces: &Faces<'_>, progress: MetaProgress, now_ms: i64) -> DescribeQuorumResponse {
    let node = faces.image.node_id;
    let end = i64::try_from(progress.committed).unwrap_or(i64::MAX);
    let voter = ReplicaState {
        replica_id: node,
        log_end_offset: end,
        last_fetch_timestamp: now_ms,
        last_caught_up_timestamp: now_ms,
        ..Default::default()
    };
    let (host, port) = faces.bootstrap();
    DescribeQuorumResponse {
        topics: vec![TopicData {
            topic_name: Str::from_static(METADATA_TOPIC),
            partitions: vec![PartitionData {
                leader_id: node,
                leader_epoch: i32::try_from(progress.term).unwrap_or(i32::MAX),
                high_watermark: end,
                current_voters: vec![voter],
                ..Default::default()
            }],
        }],
        nodes: vec![Node {
            node_id: node,
            listeners: vec![Listener {
                name: Str::from_static(LISTENER),
                host,
                port,
            }],
        }],
        ..Default::default()
    }
}
