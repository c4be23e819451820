//! Owns DeleteRecords: forgetting the beginning of partitions.
//! Does not know what is removed from the disk, nor when.
//! Invariant: a low watermark is reported only where the engine moved it.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::delete_records::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest,
    DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use crate::wire::{ApiKey, ErrorCode};
use millrace_engine::api::meta::Topic;
use millrace_engine::types::PartitionId;

impl Outcome for DeleteRecordsResponse {
    fn failed(&self) -> bool {
        self.topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .any(|partition| partition.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let image = shard.broker.image();
    let asked = request.topics.iter().flat_map(|topic| {
        let indexes = topic.partitions.iter().map(|asked| asked.partition_index);
        indexes.map(move |index| (&*topic.name, index))
    });
    super::note_owners(shard, ApiKey::DeleteRecords, &image, asked);
    let asked = request.topics.into_iter().map(|t| (t.name, t.partitions));
    let one = |topic, asked| one(shard, topic, asked);
    DeleteRecordsResponse {
        topics: super::for_each_partition(&image, asked, one, |name, partitions| {
            DeleteRecordsTopicResult { name, partitions }
        })
        .await,
        ..Default::default()
    }
}

async fn one(
    shard: &ShardNet,
    topic: Option<&Topic>,
    asked: DeleteRecordsPartition,
) -> DeleteRecordsPartitionResult {
    let mut response = DeleteRecordsPartitionResult {
        partition_index: asked.partition_index,
        low_watermark: -1,
        ..Default::default()
    };
    let Some(topic) = topic else {
        response.error_code = ErrorCode::UnknownTopicOrPartition.code();
        return response;
    };
    if topic.internal {
        response.error_code = ErrorCode::InvalidTopicException.code();
        return response;
    }
    match shard
        .broker
        .delete_records(
            PartitionId::new(topic.id, asked.partition_index),
            asked.offset,
        )
        .await
    {
        Ok(low_watermark) => response.low_watermark = low_watermark,
        Err(error) => response.error_code = errors::partition(&error).code(),
    }
    response
}
