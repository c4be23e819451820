//! Owns OffsetForLeaderEpoch: where a leader's epoch ended, so that a client finds where its log parts from ours.
//! Does not know how epochs are recorded.
//! Invariant: epoch and end offset are both given or both -1.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};
use crate::wire::{ApiKey, ErrorCode};
use millrace_engine::api::meta::Topic;
use millrace_engine::types::PartitionId;

impl Outcome for OffsetForLeaderEpochResponse {
    fn failed(&self) -> bool {
        self.topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .any(|partition| partition.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let image = shard.broker.image();
    let asked = request.topics.iter().flat_map(|topic| {
        let indexes = topic.partitions.iter().map(|asked| asked.partition);
        indexes.map(move |index| (&*topic.topic, index))
    });
    super::note_owners(shard, ApiKey::OffsetForLeaderEpoch, &image, asked);
    let asked = request.topics.into_iter().map(|t| (t.topic, t.partitions));
    let one = |topic, asked| one(shard, topic, asked);
    OffsetForLeaderEpochResponse {
        topics: super::for_each_partition(&image, asked, one, |topic, partitions| {
            OffsetForLeaderTopicResult { topic, partitions }
        })
        .await,
        ..Default::default()
    }
}

async fn one(
    shard: &ShardNet,
    topic: Option<&Topic>,
    asked: OffsetForLeaderPartition,
) -> EpochEndOffset {
    let mut response = EpochEndOffset {
        partition: asked.partition,
        ..Default::default()
    };
    let Some(topic) = topic else {
        response.error_code = ErrorCode::UnknownTopicOrPartition.code();
        return response;
    };
    let partition = PartitionId::new(topic.id, asked.partition);
    match shard
        .broker
        .end_of_epoch(partition, asked.current_leader_epoch, asked.leader_epoch)
        .await
    {
        Ok(end) => {
            response.leader_epoch = end.epoch;
            response.end_offset = end.end_offset;
        }
        Err(error) => response.error_code = errors::partition(&error).code(),
    }
    response
}
