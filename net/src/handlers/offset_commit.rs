//! Owns OffsetCommit: storing how far a group has read.
//! Does not know when offsets are durable, nor who may commit (the engine's coordinators do).
//! Invariant: only offsets of partitions that exist are handed over, and every partition is answered where it was asked.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use crate::wire::ErrorCode;
use millrace_engine::api::coord::{CommitOffsets, GroupError, MemberOf, OffsetToCommit};
use millrace_engine::api::meta::{Image, Topic};
use millrace_engine::types::TopicId;
use std::sync::Arc;

/// First version with topic ids.
const ID_VERSION_MIN: i16 = 10;
/// First version in which a group may not be there.
const NO_GROUP_VERSION_MIN: i16 = 9;

impl Outcome for OffsetCommitResponse {
    fn failed(&self) -> bool {
        self.topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .any(|partition| partition.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: OffsetCommitRequest,
    version: i16,
) -> OffsetCommitResponse {
    let (asked, answer) = sort_out(&shard.broker.image(), request, version);
    // Clients of older versions know no groups that are not there.
    let is_older = version < NO_GROUP_VERSION_MIN && asked.by.generation >= 0;
    let in_its_words = |result: Result<(), GroupError>| match result {
        Err(GroupError::GroupIdNotFound) if is_older => Err(GroupError::IllegalGeneration),
        other => other,
    };
    let results = if asked.offsets.is_empty() {
        Vec::new()
    } else {
        let results = shard.broker.commit_offsets(asked).await;
        results.into_iter().map(in_its_words).collect()
    };
    answer.with(results)
}

/// The answer as far as it is known without the coordinator.
struct Answer {
    response: OffsetCommitResponse,
    /// Place in the response (topic, partition) of each offset handed over.
    places: Vec<(u32, u32)>,
}

impl Answer {
    fn with(mut self, results: Vec<Result<(), GroupError>>) -> OffsetCommitResponse {
        assert_eq!(results.len(), self.places.len(), "one result per offset");
        for ((topic, partition), result) in self.places.into_iter().zip(results) {
            let topic = &mut self.response.topics[topic as usize];
            topic.partitions[partition as usize].error_code = errors::result(result).code();
        }
        self.response
    }
}

/// The topic that a request means, or what to say of one that is not there.
fn find<'a>(
    image: &'a Image,
    topic: &OffsetCommitRequestTopic,
    version: i16,
) -> Result<&'a Arc<Topic>, ErrorCode> {
    if version < ID_VERSION_MIN {
        let known = image.topic(&topic.name);
        return known.ok_or(ErrorCode::UnknownTopicOrPartition);
    }
    let known = image.topic_by_id(TopicId(topic.topic_id.into_bytes()));
    known.ok_or(ErrorCode::UnknownTopicId)
}

fn sort_out(image: &Image, request: OffsetCommitRequest, version: i16) -> (CommitOffsets, Answer) {
    let mut offsets = Vec::new();
    let mut places = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for (topic_at, topic) in request.topics.into_iter().enumerate() {
        let known = find(image, &topic, version);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for (partition_at, asked) in topic.partitions.into_iter().enumerate() {
            let index = asked.partition_index;
            let is_there = |topic: &&Arc<Topic>| {
                usize::try_from(index).is_ok_and(|index| index < topic.partitions.len())
            };
            let error = match known {
                Ok(topic) if is_there(&topic) => {
                    offsets.push(offset(topic, asked));
                    places.push((topic_at as u32, partition_at as u32));
                    ErrorCode::None
                }
                Ok(_) => ErrorCode::UnknownTopicOrPartition,
                Err(error) => error,
            };
            partitions.push(OffsetCommitResponsePartition {
                partition_index: index,
                error_code: error.code(),
            });
        }
        topics.push(OffsetCommitResponseTopic {
            name: topic.name,
            topic_id: topic.topic_id,
            partitions,
        });
    }
    let by = MemberOf {
        group: request.group_id.to_string(),
        generation: request.generation_id_or_member_epoch,
        member: request.member_id.to_string(),
        instance: request.group_instance_id.map(|id| id.to_string()),
    };
    let asked = CommitOffsets {
        by,
        retention_ms: request.retention_time_ms,
        offsets,
    };
    let response = OffsetCommitResponse {
        topics,
        ..Default::default()
    };
    (asked, Answer { response, places })
}

fn offset(topic: &Topic, asked: OffsetCommitRequestPartition) -> OffsetToCommit {
    let metadata = asked.committed_metadata;
    OffsetToCommit {
        topic: topic.name.clone(),
        topic_id: topic.id,
        partition: asked.partition_index,
        offset: asked.committed_offset,
        leader_epoch: asked.committed_leader_epoch,
        metadata: metadata.map_or_else(String::new, |text| text.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::tests::image;
    use crate::out::Out;
    use crate::wire::Str;
    use uuid::Uuid;

    fn partition(index: i32) -> OffsetCommitRequestPartition {
        OffsetCommitRequestPartition {
            partition_index: index,
            committed_offset: 100 + i64::from(index),
            committed_leader_epoch: 7,
            committed_metadata: (index == 1).then(|| "text".into()),
        }
    }

    /// Of a topic with three partitions, of one that is not there, and of the first again.
    fn request(image: &Image, version: i16) -> OffsetCommitRequest {
        let topic = |name: &'static str, indexes: &[i32]| {
            let id = image
                .topic(name)
                .map_or(Uuid::from_u128(99), |topic| Uuid::from_bytes(topic.id.0));
            let by_id = version >= 10;
            OffsetCommitRequestTopic {
                name: if by_id { Str::default() } else { name.into() },
                topic_id: if by_id { id } else { Uuid::nil() },
                partitions: indexes.iter().map(|index| partition(*index)).collect(),
            }
        };
        OffsetCommitRequest {
            group_id: "g".into(),
            generation_id_or_member_epoch: 4,
            member_id: "m".into(),
            group_instance_id: Some("i".into()),
            retention_time_ms: 5,
            topics: vec![
                topic("t", &[1, 3, -1]),
                topic("gone", &[0]),
                topic("t", &[0]),
            ],
        }
    }

    #[test]
    fn what_is_not_there_is_not_handed_over_and_every_version_carries_its_answer() {
        let image = image(&[("s", 1), ("t", 3)]);
        for version in 2..=10 {
            let (asked, answer) = sort_out(&image, request(&image, version), version);
            let id = image.topic("t").unwrap().id;
            let offset = |partition, metadata: &str| OffsetToCommit {
                topic: "t".into(),
                topic_id: id,
                partition,
                offset: 100 + i64::from(partition),
                leader_epoch: 7,
                metadata: metadata.into(),
            };
            assert_eq!(asked.offsets, [offset(1, "text"), offset(0, "")]);
            assert_eq!(asked.retention_ms, 5);
            let by = &asked.by;
            assert_eq!((&*by.group, by.generation, &*by.member), ("g", 4, "m"));
            assert_eq!(by.instance.as_deref(), Some("i"));
            let response = answer.with(vec![Ok(()), Err(GroupError::IllegalGeneration)]);
            let codes: Vec<Vec<i16>> = response
                .topics
                .iter()
                .map(|topic| topic.partitions.iter().map(|p| p.error_code).collect())
                .collect();
            let unknown = if version < 10 { 3 } else { 100 };
            assert_eq!(codes, [vec![0, 3, 3], vec![unknown], vec![22]]);
            assert!(response.failed());
            let mut out = Out::default();
            out.respond::<OffsetCommitRequest>(1, version, &response)
                .unwrap();
        }
    }

    #[test]
    fn without_offsets_there_is_nobody_to_ask() {
        let image = image(&[]);
        let (asked, answer) = sort_out(&image, request(&image, 9), 9);
        assert!(asked.offsets.is_empty());
        let response = answer.with(Vec::new());
        assert_eq!((response.topics.len(), response.failed()), (3, true));
    }
}
