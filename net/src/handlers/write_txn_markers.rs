//! Owns WriteTxnMarkers: the end of transactions in single partitions, as other brokers and the tool that aborts want it.
//! Does not know what a marker does to a partition.
//! Invariant: every partition is answered where it was asked, with what became of its own marker.

use super::{for_each, for_each_partition, Outcome};
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerPartitionResult, WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};
use crate::wire::ErrorCode;
use millrace_engine::api::meta::{Image, Topic};
use millrace_engine::api::TxnMarker;
use millrace_engine::types::PartitionId;

impl Outcome for WriteTxnMarkersResponse {
    fn failed(&self) -> bool {
        self.markers
            .iter()
            .flat_map(|marker| &marker.topics)
            .flat_map(|topic| &topic.partitions)
            .any(|partition| partition.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let image = shard.broker.image();
    let markers = for_each(request.markers, |marker| one(shard, &image, marker));
    WriteTxnMarkersResponse {
        markers: markers.await,
    }
}

async fn one(shard: &ShardNet, image: &Image, asked: WritableTxnMarker) -> WritableTxnMarkerResult {
    let topics = asked.topics.into_iter();
    let topics = topics.map(|topic| (topic.name, topic.partition_indexes));
    let marker = |partition: PartitionId| TxnMarker {
        partition,
        producer_id: asked.producer_id,
        producer_epoch: asked.producer_epoch,
        coordinator_epoch: asked.coordinator_epoch,
        commit: asked.transaction_result,
        transaction_version: asked.transaction_version.into(),
    };
    let write = |known: Option<&Topic>, index: i32| {
        let is_there = |topic: &&Topic| {
            usize::try_from(index).is_ok_and(|index| index < topic.partitions.len())
        };
        let id = known
            .filter(is_there)
            .map(|topic| PartitionId::new(topic.id, index));
        let write = id.map(|id| shard.broker.write_txn_marker(marker(id)));
        async move {
            let code = match write {
                None => ErrorCode::UnknownTopicOrPartition,
                Some(write) => match write.await {
                    Ok(_) => ErrorCode::None,
                    Err(error) => errors::partition(&error),
                },
            };
            WritableTxnMarkerPartitionResult {
                partition_index: index,
                error_code: code.code(),
            }
        }
    };
    let answer = |name, partitions| WritableTxnMarkerTopicResult { name, partitions };
    WritableTxnMarkerResult {
        producer_id: asked.producer_id,
        topics: for_each_partition(image, topics, write, answer).await,
    }
}
