//! Owns ListOffsets: offsets for times and for the ends of partitions.
//! Does not know how an offset is found.
//! Invariant: a special timestamp that the request's version does not have is refused, never taken for a time.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use crate::wire::{ApiKey, ErrorCode, Str};
use millrace_engine::api::meta::Topic;
use millrace_engine::api::{ListedOffset, OffsetSpec};
use millrace_engine::types::PartitionId;
use std::collections::BTreeSet;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// First version with leader epochs.
const EPOCH_VERSION_MIN: i16 = 4;

impl Outcome for ListOffsetsResponse {
    fn failed(&self) -> bool {
        self.topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .any(|partition| partition.error_code != 0)
    }
}

/// What a timestamp means; `None` where the version does not have it.
fn spec(timestamp: i64, version: i16, read_committed: bool) -> Option<OffsetSpec> {
    match timestamp {
        0.. => Some(OffsetSpec::At {
            timestamp_ms: timestamp,
            read_committed,
        }),
        LATEST => Some(OffsetSpec::Latest { read_committed }),
        EARLIEST => Some(OffsetSpec::Earliest),
        MAX_TIMESTAMP if version >= 7 => Some(OffsetSpec::MaxTimestamp { read_committed }),
        EARLIEST_LOCAL if version >= 8 => Some(OffsetSpec::EarliestLocal),
        LATEST_TIERED if version >= 9 => Some(OffsetSpec::LatestTiered),
        // Nothing is ever uploaded, so nothing waits for it either: the same answer as for what was uploaded.
        EARLIEST_PENDING_UPLOAD if version >= 11 => Some(OffsetSpec::LatestTiered),
        i64::MIN..=-1 => None,
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: ListOffsetsRequest,
    version: i16,
) -> ListOffsetsResponse {
    let read_committed = request.isolation_level == 1;
    let image = shard.broker.image();
    let twice = asked_twice(&request);
    let asked = request.topics.iter().flat_map(|topic| {
        let indexes = topic.partitions.iter().map(|asked| asked.partition_index);
        indexes.map(move |index| (&*topic.name, index))
    });
    super::note_owners(shard, ApiKey::ListOffsets, &image, asked);
    let asked = request.topics.into_iter().map(|t| (t.name, t.partitions));
    let is_twice = |topic: &Topic, index| {
        !twice.is_empty() && twice.contains(&(Str::from(topic.name.to_string()), index))
    };
    let topics = super::for_each_partition(
        &image,
        asked,
        |topic, asked: ListOffsetsPartition| {
            let twice = topic.is_some_and(|topic| is_twice(topic, asked.partition_index));
            one(shard, topic, asked, version, read_committed, twice)
        },
        |name, partitions| ListOffsetsTopicResponse { name, partitions },
    );
    ListOffsetsResponse {
        topics: topics.await,
        ..Default::default()
    }
}

/// Partitions that come more than once, which Kafka refuses: looking for a time may be much work for few bytes asked.
fn asked_twice(request: &ListOffsetsRequest) -> BTreeSet<(Str, i32)> {
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for topic in &request.topics {
        for asked in &topic.partitions {
            let key = (topic.name.clone(), asked.partition_index);
            if !seen.insert(key.clone()) {
                twice.insert(key);
            }
        }
    }
    twice
}

async fn one(
    shard: &ShardNet,
    topic: Option<&Topic>,
    asked: ListOffsetsPartition,
    version: i16,
    read_committed: bool,
    twice: bool,
) -> ListOffsetsPartitionResponse {
    let spec = spec(asked.timestamp, version, read_committed).ok_or(ErrorCode::UnsupportedVersion);
    let result = match (topic, spec) {
        (None, _) => Err(ErrorCode::UnknownTopicOrPartition),
        (Some(_), _) if twice => Err(ErrorCode::InvalidRequest),
        (Some(_), Err(error)) => Err(error),
        (Some(topic), Ok(spec)) => {
            let partition = PartitionId::new(topic.id, asked.partition_index);
            let listed = shard
                .broker
                .list_offset(partition, asked.current_leader_epoch, spec)
                .await;
            listed.map_err(|error| errors::partition(&error))
        }
    };
    let mut response = ListOffsetsPartitionResponse {
        partition_index: asked.partition_index,
        ..Default::default()
    };
    match result {
        Ok(ListedOffset {
            offset,
            timestamp_ms,
            leader_epoch,
        }) => {
            response.offset = offset;
            response.timestamp = timestamp_ms;
            if version >= EPOCH_VERSION_MIN {
                response.leader_epoch = leader_epoch;
            }
        }
        Err(error) => response.error_code = error.code(),
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::list_offsets::ListOffsetsTopic;

    #[test]
    fn only_the_same_partition_of_the_same_topic_is_twice() {
        let topic = |name: &'static str, partitions: &[i32]| ListOffsetsTopic {
            name: name.into(),
            partitions: partitions
                .iter()
                .map(|index| ListOffsetsPartition {
                    partition_index: *index,
                    ..Default::default()
                })
                .collect(),
        };
        let request = ListOffsetsRequest {
            topics: vec![
                topic("a", &[0, 1, 2]),
                topic("b", &[0, 1]),
                topic("a", &[1, 3, 3, 3]),
            ],
            ..Default::default()
        };
        let twice: Vec<_> = asked_twice(&request).into_iter().collect();
        assert_eq!(twice, [("a".into(), 1), ("a".into(), 3)]);
    }

    #[test]
    fn special_timestamps_begin_with_their_versions() {
        let first_version = |timestamp| (1..=11).find(|v| spec(timestamp, *v, false).is_some());
        assert_eq!(first_version(LATEST), Some(1));
        assert_eq!(first_version(EARLIEST), Some(1));
        assert_eq!(first_version(MAX_TIMESTAMP), Some(7));
        assert_eq!(first_version(EARLIEST_LOCAL), Some(8));
        assert_eq!(first_version(LATEST_TIERED), Some(9));
        assert_eq!(first_version(EARLIEST_PENDING_UPLOAD), Some(11));
        assert_eq!(first_version(-7), None);
        assert_eq!(first_version(i64::MIN), None);
        for read_committed in [false, true] {
            let at = OffsetSpec::At {
                timestamp_ms: 0,
                read_committed,
            };
            assert_eq!(spec(0, 1, read_committed), Some(at));
        }
        assert_eq!(
            spec(LATEST, 2, true),
            Some(OffsetSpec::Latest {
                read_committed: true
            })
        );
    }
}
