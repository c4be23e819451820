//! Owns OffsetFetch: how far groups have read.
//! Does not know what was committed (the engine's coordinators do), nor which partitions exist: offsets outlive those.
//! Invariant: every group, and every partition that is named, is answered where it was asked; all of a group only once.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchResponse,
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::coord::{CommittedOffset, FetchOffsets, FetchedOffsets, GroupError};
use millrace_engine::api::Image;
use millrace_engine::types::TopicId;
use std::collections::HashSet;
use uuid::Uuid;

/// First version in which a group has an error of its own.
const GROUP_ERROR_VERSION_MIN: i16 = 2;
/// First version that asks for several groups.
const BATCH_VERSION_MIN: i16 = 8;
/// First version with topic ids.
const ID_VERSION_MIN: i16 = 10;

impl Outcome for OffsetFetchResponse {
    fn failed(&self) -> bool {
        fn any(topics: &[OffsetFetchResponseTopic]) -> bool {
            let partitions = topics.iter().flat_map(|topic| &topic.partitions);
            partitions.into_iter().any(|p| p.error_code != 0)
        }
        let group = |group: &OffsetFetchResponseGroup| group.error_code != 0 || any(&group.topics);
        self.error_code != 0 || any(&self.topics) || self.groups.iter().any(group)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    let image = shard.broker.image();
    let image = &*image;
    let stable = request.require_stable;
    let one = |group: OffsetFetchRequestGroup| async move {
        let fetched = shard
            .broker
            .fetch_offsets(asked(image, &group, stable, version));
        answer(image, group, fetched.await, version)
    };
    let mut groups = groups(request, version);
    // All that a group has is much for a few bytes; who asks for it twice gets it once.
    let mut whole = HashSet::new();
    groups.retain(|asked| asked.topics.is_some() || whole.insert(asked.group_id.clone()));
    let groups = super::for_each(groups, one).await;
    respond(groups, version)
}

/// The groups asked for, in whatever form the version says it.
fn groups(request: OffsetFetchRequest, version: i16) -> Vec<OffsetFetchRequestGroup> {
    if version >= BATCH_VERSION_MIN {
        return request.groups;
    }
    vec![OffsetFetchRequestGroup {
        group_id: request.group_id,
        topics: request.topics,
        ..Default::default()
    }]
}

fn respond(groups: Vec<OffsetFetchResponseGroup>, version: i16) -> OffsetFetchResponse {
    if version >= BATCH_VERSION_MIN {
        return OffsetFetchResponse {
            groups,
            ..Default::default()
        };
    }
    let group = groups.into_iter().next().expect("one was asked for");
    OffsetFetchResponse {
        topics: group.topics,
        error_code: group.error_code,
        ..Default::default()
    }
}

/// The name of a topic that is asked for; `None` for an id that nobody has.
fn name<'a>(image: &'a Image, topic: &'a OffsetFetchRequestTopic, version: i16) -> Option<&'a str> {
    if version < ID_VERSION_MIN {
        return Some(&topic.name);
    }
    let known = image.topic_by_id(TopicId(topic.topic_id.into_bytes()));
    known.map(|topic| &*topic.name)
}

fn asked(
    image: &Image,
    group: &OffsetFetchRequestGroup,
    require_stable: bool,
    version: i16,
) -> FetchOffsets {
    let topic = |topic: &OffsetFetchRequestTopic| {
        let name = name(image, topic, version)?;
        Some((name.to_owned(), topic.partition_indexes.clone()))
    };
    let topics = group.topics.as_ref();
    FetchOffsets {
        group: group.group_id.to_string(),
        member: group.member_id.as_ref().map(|id| id.to_string()),
        member_epoch: group.member_epoch,
        topics: topics.map(|topics| topics.iter().filter_map(topic).collect()),
        require_stable,
    }
}

fn answer(
    image: &Image,
    group: OffsetFetchRequestGroup,
    fetched: Result<FetchedOffsets, GroupError>,
    version: i16,
) -> OffsetFetchResponseGroup {
    let (topics, error) = match (group.topics, fetched) {
        (None, Ok(fetched)) => (all(image, fetched, version), ErrorCode::None),
        (Some(topics), Ok(fetched)) => (named(image, topics, fetched, version), ErrorCode::None),
        (Some(topics), Err(error)) if version < GROUP_ERROR_VERSION_MIN => {
            let code = errors::group(error);
            let topics = topics.into_iter().map(|topic| refused(topic, code));
            (topics.collect(), ErrorCode::None)
        }
        (Some(_) | None, Err(error)) => (Vec::new(), errors::group(error)),
    };
    OffsetFetchResponseGroup {
        group_id: group.group_id,
        topics,
        error_code: error.code(),
    }
}

/// All that a group has committed, but for topics without an id where the version names them by it.
fn all(image: &Image, fetched: FetchedOffsets, version: i16) -> Vec<OffsetFetchResponseTopic> {
    let topic = |(name, offsets): (String, Vec<(i32, CommittedOffset)>)| {
        let topic_id = if version < ID_VERSION_MIN {
            Uuid::nil()
        } else {
            Uuid::from_bytes(image.topic(&name)?.id.0)
        };
        Some(OffsetFetchResponseTopic {
            name: name.into(),
            topic_id,
            partitions: offsets.into_iter().map(partition).collect(),
        })
    };
    fetched.into_iter().filter_map(topic).collect()
}

/// What was asked for by name or id; what was fetched is in the order of the topics that are known.
fn named(
    image: &Image,
    topics: Vec<OffsetFetchRequestTopic>,
    fetched: FetchedOffsets,
    version: i16,
) -> Vec<OffsetFetchResponseTopic> {
    let mut fetched = fetched.into_iter();
    let mut answers = Vec::with_capacity(topics.len());
    for topic in topics {
        if name(image, &topic, version).is_none() {
            answers.push(refused(topic, ErrorCode::UnknownTopicId));
            continue;
        }
        let (_, offsets) = fetched.next().expect("one answer per topic");
        answers.push(OffsetFetchResponseTopic {
            name: topic.name,
            topic_id: topic.topic_id,
            partitions: offsets.into_iter().map(partition).collect(),
        });
    }
    answers
}

fn partition((index, committed): (i32, CommittedOffset)) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition {
        partition_index: index,
        committed_offset: committed.offset,
        committed_leader_epoch: committed.leader_epoch,
        metadata: Some(committed.metadata.into()),
        error_code: match committed.unstable {
            true => ErrorCode::UnstableOffsetCommit.code(),
            false => ErrorCode::None.code(),
        },
    }
}

fn refused(topic: OffsetFetchRequestTopic, error: ErrorCode) -> OffsetFetchResponseTopic {
    let partition = |index: i32| OffsetFetchResponsePartition {
        partition_index: index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(Str::default()),
        error_code: error.code(),
    };
    let indexes = topic.partition_indexes.into_iter();
    OffsetFetchResponseTopic {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: indexes.map(partition).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::tests::image;
    use crate::out::Out;

    fn committed(offset: i64) -> CommittedOffset {
        CommittedOffset {
            unstable: false,
            offset,
            leader_epoch: 7,
            metadata: "text".into(),
        }
    }

    fn id(image: &Image, name: &str) -> Uuid {
        let topic = image.topic(name);
        topic.map_or(Uuid::from_u128(99), |topic| Uuid::from_bytes(topic.id.0))
    }

    /// Of topic `t` and of one that is not there, or of all.
    fn request(image: &Image, named: bool, version: i16) -> OffsetFetchRequest {
        let topic = |name: &'static str| OffsetFetchRequestTopic {
            name: if version < 10 { name.into() } else { "".into() },
            topic_id: if version < 10 {
                Uuid::nil()
            } else {
                id(image, name)
            },
            partition_indexes: vec![1, 0],
        };
        let topics = named.then(|| vec![topic("gone"), topic("t")]);
        if version < 8 {
            return OffsetFetchRequest {
                group_id: "g".into(),
                topics,
                ..Default::default()
            };
        }
        let group = |name: &'static str| OffsetFetchRequestGroup {
            group_id: name.into(),
            member_id: Some("m".into()),
            member_epoch: 3,
            topics: topics.clone(),
        };
        OffsetFetchRequest {
            groups: vec![group("g"), group("h")],
            ..Default::default()
        }
    }

    /// The codes of group and partitions that a response carries.
    fn codes(response: &OffsetFetchResponse, version: i16) -> (i16, Vec<Vec<i16>>) {
        let mut out = Out::default();
        out.respond::<OffsetFetchRequest>(1, version, response)
            .unwrap();
        let (error, topics) = match response.groups.first() {
            Some(group) => (group.error_code, &group.topics),
            None => (response.error_code, &response.topics),
        };
        let of = |topic: &OffsetFetchResponseTopic| {
            topic.partitions.iter().map(|p| p.error_code).collect()
        };
        (error, topics.iter().map(of).collect())
    }

    #[test]
    fn named_topics_are_answered_where_they_were_asked_in_every_version() {
        let image = image(&[("s", 1), ("t", 3)]);
        for version in 1..=10 {
            let groups = groups(request(&image, true, version), version);
            assert_eq!(groups.len(), if version < 8 { 1 } else { 2 });
            let one = |group: OffsetFetchRequestGroup| {
                let asked = asked(&image, &group, true, version);
                assert_eq!(asked.member.is_some(), version >= 8);
                let fetched = asked.topics.unwrap().into_iter().map(|(name, indexes)| {
                    let offsets = indexes
                        .into_iter()
                        .map(|i| (i, committed(10 + i64::from(i))));
                    (name, offsets.collect())
                });
                answer(&image, group, Ok(fetched.collect()), version)
            };
            let response = respond(groups.into_iter().map(one).collect(), version);
            let gone = if version < 10 {
                vec![0, 0]
            } else {
                vec![100, 100]
            };
            assert_eq!(response.failed(), version >= 10);
            assert_eq!(codes(&response, version), (0, vec![gone, vec![0, 0]]));
            let topics = match response.groups.first() {
                Some(group) => &group.topics,
                None => &response.topics,
            };
            let offsets: Vec<(i32, i64)> = topics[1]
                .partitions
                .iter()
                .map(|p| (p.partition_index, p.committed_offset))
                .collect();
            assert_eq!(offsets, [(1, 11), (0, 10)]);
            if version >= 10 {
                assert_eq!(topics[1].topic_id, id(&image, "t"));
                assert_eq!(topics[0].partitions[0].committed_offset, -1);
            }
        }
    }

    #[test]
    fn all_topics_are_those_with_offsets_and_from_version_10_on_with_ids() {
        let image = image(&[("s", 1), ("t", 3)]);
        for version in 2..=10 {
            let group = groups(request(&image, false, version), version).remove(0);
            assert_eq!(asked(&image, &group, true, version).topics, None);
            let fetched = ["gone", "t"].map(|name| (name.to_owned(), vec![(2, committed(5))]));
            let answered = answer(&image, group, Ok(fetched.to_vec()), version);
            let names: Vec<&str> = answered.topics.iter().map(|topic| &*topic.name).collect();
            if version < 10 {
                assert_eq!(names, ["gone", "t"]);
            } else {
                assert_eq!(names, ["t"]);
                assert_eq!(answered.topics[0].topic_id, id(&image, "t"));
            }
            codes(&respond(vec![answered], version), version);
        }
    }

    #[test]
    fn errors_are_where_the_version_has_a_place_for_them() {
        let image = image(&[("t", 3)]);
        for version in 1..=10 {
            let group = groups(request(&image, true, version), version).remove(0);
            let answered = answer(&image, group, Err(GroupError::NotAvailable), version);
            let response = respond(vec![answered], version);
            assert!(response.failed());
            let expected = match version {
                ..2 => (0, vec![vec![15, 15]; 2]),
                2.. => (15, vec![]),
            };
            assert_eq!(codes(&response, version), expected, "version {version}");
        }
    }
}
