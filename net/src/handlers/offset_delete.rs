//! Owns OffsetDelete: forgetting how far a group has read.
//! Does not know which topics a group reads (the engine's coordinators do).
//! Invariant: every partition asked for is answered where it was asked, unless the group as a whole is refused.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestTopic, OffsetDeleteResponse,
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::coord::GroupError;

type Deleted = Result<Vec<Vec<Result<(), GroupError>>>, GroupError>;

impl Outcome for OffsetDeleteResponse {
    fn failed(&self) -> bool {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        self.error_code != 0 || partitions.into_iter().any(|p| p.error_code != 0)
    }
}

pub(crate) async fn handle(shard: &ShardNet, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let image = shard.broker.image();
    let topics = topics(request.topics, |name| image.topic(name).is_some());
    let known: Vec<(String, Vec<i32>)> = topics
        .iter()
        .filter(|topic| topic.known)
        .map(|topic| (topic.name.to_string(), topic.partitions.clone()))
        .collect();
    let deleted = if known.is_empty() {
        Ok(Vec::new())
    } else if request.group_id.is_empty() {
        Err(GroupError::InvalidGroupId)
    } else {
        let group = request.group_id.to_string();
        shard.broker.delete_offsets(group, known).await
    };
    answer(topics, deleted)
}

/// What is asked of one topic.
struct Asked {
    name: Str,
    known: bool,
    partitions: Vec<i32>,
}

fn topics(topics: Vec<OffsetDeleteRequestTopic>, is_known: impl Fn(&str) -> bool) -> Vec<Asked> {
    let asked = |topic: OffsetDeleteRequestTopic| Asked {
        known: is_known(&topic.name),
        name: topic.name,
        partitions: topic.partitions.iter().map(|p| p.partition_index).collect(),
    };
    topics.into_iter().map(asked).collect()
}

/// The answer; what was deleted is in the order of the topics that are known.
fn answer(topics: Vec<Asked>, deleted: Deleted) -> OffsetDeleteResponse {
    let deleted = match deleted {
        Ok(deleted) => deleted,
        Err(error) => {
            return OffsetDeleteResponse {
                error_code: errors::group(error).code(),
                ..Default::default()
            }
        }
    };
    let mut deleted = deleted.into_iter();
    let one = |topic: Asked| {
        let codes: Vec<ErrorCode> = if topic.known {
            let results = deleted.next().expect("one result per topic");
            results.into_iter().map(errors::result).collect()
        } else {
            vec![ErrorCode::UnknownTopicOrPartition; topic.partitions.len()]
        };
        assert_eq!(codes.len(), topic.partitions.len(), "one per partition");
        let partitions = topic.partitions.into_iter().zip(codes);
        OffsetDeleteResponseTopic {
            name: topic.name,
            partitions: partitions
                .map(|(index, code)| OffsetDeleteResponsePartition {
                    partition_index: index,
                    error_code: code.code(),
                })
                .collect(),
        }
    };
    OffsetDeleteResponse {
        topics: topics.into_iter().map(one).collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::Out;
    use crate::wire::offset_delete::OffsetDeleteRequestPartition;

    fn asked() -> Vec<Asked> {
        let topic = |name: &'static str, indexes: &[i32]| OffsetDeleteRequestTopic {
            name: name.into(),
            partitions: indexes
                .iter()
                .map(|index| OffsetDeleteRequestPartition {
                    partition_index: *index,
                })
                .collect(),
        };
        let all = vec![
            topic("gone", &[0, 1]),
            topic("a", &[2, 0]),
            topic("b", &[1]),
        ];
        topics(all, |name| name != "gone")
    }

    fn encodes(response: &OffsetDeleteResponse) {
        let mut out = Out::default();
        out.respond::<OffsetDeleteRequest>(1, 0, response).unwrap();
    }

    #[test]
    fn topics_that_are_not_there_are_answered_where_they_were_asked() {
        let deleted = vec![
            vec![Ok(()), Err(GroupError::GroupSubscribedToTopic)],
            vec![Ok(())],
        ];
        let response = answer(asked(), Ok(deleted));
        let codes: Vec<Vec<(i32, i16)>> = response
            .topics
            .iter()
            .map(|topic| {
                let partitions = topic.partitions.iter();
                partitions
                    .map(|p| (p.partition_index, p.error_code))
                    .collect()
            })
            .collect();
        let expected = [vec![(0, 3), (1, 3)], vec![(2, 0), (0, 86)], vec![(1, 0)]];
        assert_eq!(codes, expected);
        assert!(response.failed());
        encodes(&response);
    }

    #[test]
    fn a_group_that_is_refused_has_no_topics() {
        let response = answer(asked(), Err(GroupError::GroupIdNotFound));
        assert_eq!((response.error_code, response.topics.len()), (69, 0));
        assert!(response.failed());
        encodes(&response);
    }
}
