//! Owns DescribeProducers: who writes to a partition with a producer id, and since where a transaction is open in it.
//! Does not know how producers are remembered.
//! Invariant: every open transaction is shown. Nobody remembers which epoch of a coordinator wrote a marker: it is -1.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState,
    TopicResponse,
};
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::meta::Topic;
use millrace_engine::api::ActiveProducer;
use millrace_engine::types::PartitionId;
use std::collections::BTreeSet;

/// Of coordinators, which is not known.
const NO_EPOCH: i32 = -1;

impl Outcome for DescribeProducersResponse {
    fn failed(&self) -> bool {
        let mut partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.any(|partition| partition.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let image = shard.broker.image();
    let mut seen = BTreeSet::new();
    // The answer may be large for what it takes to ask.
    let asked: Vec<(Str, Vec<(i32, bool)>)> = request
        .topics
        .into_iter()
        .map(|topic| {
            let indexes = topic.partition_indexes.into_iter();
            let indexes = indexes.map(|index| (index, !seen.insert((topic.name.clone(), index))));
            (topic.name.clone(), indexes.collect())
        })
        .collect();
    let topics = super::for_each_partition(
        &image,
        asked.into_iter(),
        |topic, (index, twice)| one(shard, topic, index, twice),
        |name, partitions| TopicResponse { name, partitions },
    );
    DescribeProducersResponse {
        topics: topics.await,
        ..Default::default()
    }
}

async fn one(
    shard: &ShardNet,
    topic: Option<&Topic>,
    index: i32,
    twice: bool,
) -> PartitionResponse {
    let active = match topic {
        None => Err(ErrorCode::UnknownTopicOrPartition),
        Some(_) if twice => Err(ErrorCode::InvalidRequest),
        Some(topic) => {
            let partition = PartitionId::new(topic.id, index);
            let active = shard.broker.active_producers(partition).await;
            active.map_err(|error| errors::partition(&error))
        }
    };
    match active {
        Ok(active) => PartitionResponse {
            partition_index: index,
            active_producers: active.into_iter().map(state).collect(),
            ..Default::default()
        },
        Err(error) => PartitionResponse {
            partition_index: index,
            error_code: error.code(),
            ..Default::default()
        },
    }
}

fn state(producer: ActiveProducer) -> ProducerState {
    ProducerState {
        producer_id: producer.producer_id,
        producer_epoch: producer.epoch.into(),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_timestamp_ms,
        coordinator_epoch: NO_EPOCH,
        current_txn_start_offset: producer.open_since.unwrap_or(-1),
    }
}
