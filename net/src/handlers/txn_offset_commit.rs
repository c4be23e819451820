//! Owns TxnOffsetCommit: storing how far a group has read, once a transaction commits.
//! Does not know when offsets are durable, nor who may commit (the engine's coordinators do).
//! Invariant: only offsets of partitions that exist are handed over, and every partition is answered where it was asked.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
    TxnOffsetCommitResponse, TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use crate::wire::ErrorCode;
use millrace_engine::api::coord::{
    CommitInTxn, CommitOffsets, GroupError, MemberOf, OffsetToCommit,
};
use millrace_engine::api::meta::{Image, Topic};
use millrace_engine::api::txn::{Membership, Producer, TxnError, TxnOf};
use millrace_engine::types::TopicId;
use std::sync::Arc;

/// First version that knows TRANSACTION_ABORTABLE.
const ABORTABLE_VERSION_MIN: i16 = 4;
/// First version that adds the group to the transaction by itself.
const ADD_VERSION_MIN: i16 = 5;
/// First version with topic ids.
const ID_VERSION_MIN: i16 = 6;

impl Outcome for TxnOffsetCommitResponse {
    fn failed(&self) -> bool {
        self.topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .any(|partition| partition.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: TxnOffsetCommitRequest,
    version: i16,
) -> TxnOffsetCommitResponse {
    let (asked, answer) = sort_out(&shard.broker.image(), request, version);
    let results = if asked.commit.offsets.is_empty() {
        Vec::new()
    } else {
        shard.broker.commit_in_transaction(asked).await
    };
    answer.with(results, version)
}

/// The answer as far as it is known without the coordinators.
struct Answer {
    response: TxnOffsetCommitResponse,
    /// Place in the response (topic, partition) of each offset handed over.
    places: Vec<(u32, u32)>,
}

impl Answer {
    fn with(
        mut self,
        results: Vec<Result<(), GroupError>>,
        version: i16,
    ) -> TxnOffsetCommitResponse {
        assert_eq!(results.len(), self.places.len(), "one result per offset");
        for ((topic, partition), result) in self.places.into_iter().zip(results) {
            let topic = &mut self.response.topics[topic as usize];
            topic.partitions[partition as usize].error_code = code(result, version).code();
        }
        self.response
    }
}

/// In the words that clients of the version know.
fn code(result: Result<(), GroupError>, version: i16) -> ErrorCode {
    let Err(GroupError::Txn(why)) = result else {
        return errors::result(result);
    };
    match why {
        TxnError::TransactionAbortable if version < ABORTABLE_VERSION_MIN => {
            ErrorCode::InvalidTxnState
        }
        // They take it for the end of everything.
        TxnError::ConcurrentTransactions if version < ADD_VERSION_MIN => {
            ErrorCode::CoordinatorLoadInProgress
        }
        TxnError::ConcurrentTransactions
        | TxnError::TransactionAbortable
        | TxnError::NotAvailable
        | TxnError::InvalidRequest
        | TxnError::InvalidTimeout
        | TxnError::InvalidTxnState
        | TxnError::ProducerFenced
        | TxnError::InvalidProducerIdMapping
        | TxnError::NotFound
        | TxnError::TooManyPartitions
        | TxnError::RecordTooLarge => errors::txn_knowing(why, false),
    }
}

/// The topic that a request means, or what to say of one that is not there.
fn find<'a>(
    image: &'a Image,
    topic: &TxnOffsetCommitRequestTopic,
    version: i16,
) -> Result<&'a Arc<Topic>, ErrorCode> {
    if version < ID_VERSION_MIN {
        let known = image.topic(&topic.name);
        return known.ok_or(ErrorCode::UnknownTopicOrPartition);
    }
    let known = image.topic_by_id(TopicId(topic.topic_id.into_bytes()));
    known.ok_or(ErrorCode::UnknownTopicId)
}

fn sort_out(image: &Image, request: TxnOffsetCommitRequest, version: i16) -> (CommitInTxn, Answer) {
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
            partitions.push(TxnOffsetCommitResponsePartition {
                partition_index: index,
                error_code: error.code(),
            });
        }
        topics.push(TxnOffsetCommitResponseTopic {
            name: topic.name,
            topic_id: topic.topic_id,
            partitions,
        });
    }
    let by = MemberOf {
        group: request.group_id.to_string(),
        generation: request.generation_id,
        member: request.member_id.to_string(),
        instance: request.group_instance_id.map(|id| id.to_string()),
    };
    let asked = CommitInTxn {
        of: TxnOf {
            transactional_id: request.transactional_id.to_string(),
            producer: Producer {
                id: request.producer_id,
                epoch: request.producer_epoch,
            },
        },
        membership: match version {
            ADD_VERSION_MIN.. => Membership::Add(2),
            ..ADD_VERSION_MIN => Membership::Verify,
        },
        commit: CommitOffsets {
            by,
            retention_ms: -1,
            offsets,
        },
    };
    let response = TxnOffsetCommitResponse {
        topics,
        ..Default::default()
    };
    (asked, Answer { response, places })
}

fn offset(topic: &Topic, asked: TxnOffsetCommitRequestPartition) -> OffsetToCommit {
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
    use uuid::Uuid;

    #[test]
    fn what_is_not_there_is_not_handed_over_and_every_version_carries_its_answer() {
        let image = image(&[("t", 3)]);
        let id = Uuid::from_bytes(image.topic("t").unwrap().id.0);
        for version in 0..=6 {
            let topic = |name: &'static str, indexes: &[i32]| TxnOffsetCommitRequestTopic {
                name: name.into(),
                topic_id: if name == "t" { id } else { Uuid::nil() },
                partitions: indexes
                    .iter()
                    .map(|index| TxnOffsetCommitRequestPartition {
                        partition_index: *index,
                        committed_offset: 100,
                        ..Default::default()
                    })
                    .collect(),
            };
            let request = TxnOffsetCommitRequest {
                transactional_id: "id".into(),
                group_id: "g".into(),
                producer_id: 7,
                producer_epoch: 1,
                topics: vec![topic("t", &[1, 3]), topic("gone", &[0]), topic("t", &[0])],
                ..Default::default()
            };
            let (asked, answer) = sort_out(&image, request, version);
            let handed: Vec<i32> = asked.commit.offsets.iter().map(|o| o.partition).collect();
            assert_eq!(handed, [1, 0]);
            assert_eq!(asked.membership == Membership::Verify, version < 5);
            let abortable = GroupError::Txn(TxnError::TransactionAbortable);
            let response = answer.with(vec![Ok(()), Err(abortable)], version);
            let codes: Vec<Vec<i16>> = response
                .topics
                .iter()
                .map(|topic| topic.partitions.iter().map(|p| p.error_code).collect())
                .collect();
            let last = if version < 4 { 48 } else { 120 };
            let unknown = if version < 6 { 3 } else { 100 };
            assert_eq!(codes, [vec![0, 3], vec![unknown], vec![last]]);
            assert!(response
                .topics
                .iter()
                .all(|t| t.topic_id.is_nil() == (&*t.name == "gone")));
            let mut out = Out::default();
            out.respond::<TxnOffsetCommitRequest>(1, version, &response)
                .unwrap();
        }
    }
}
