//! Owns DescribeTopicPartitions: topics and partitions, a page at a time.
//! Does not know how the image is kept.
//! Invariant: following the cursors shows every partition once, in the order of names and numbers.

use super::{allowed, Outcome};
use crate::cores::Faces;
use crate::shard::ShardNet;
use crate::wire::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::meta::{names, PartitionMeta, Topic};
use std::sync::Arc;
use uuid::Uuid;

/// Partitions in one response, whatever the client asks for (Kafka's max.request.partition.size.limit).
const PARTITIONS_MAX: usize = 2_000;

impl Outcome for DescribeTopicPartitionsResponse {
    fn failed(&self) -> bool {
        self.topics.iter().any(|topic| topic.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    page(&shard.faces(&shard.broker.image()), request)
}

fn page(
    faces: &Faces<'_>,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let image = faces.image;
    let limit = usize::try_from(request.response_partition_limit)
        .unwrap_or(1)
        .clamp(1, PARTITIONS_MAX);
    let (from_topic, from_partition) = match request.cursor {
        None => (Str::default(), 0),
        Some(cursor) => match usize::try_from(cursor.partition_index) {
            Ok(partition) => (cursor.topic_name, partition),
            Err(_) => return refused(ErrorCode::InvalidRequest, cursor.topic_name),
        },
    };
    let mut names: Vec<Str> = request.topics.into_iter().map(|topic| topic.name).collect();
    names.sort_unstable();
    names.dedup();
    let mut pages = Page {
        faces,
        left: limit,
        response: DescribeTopicPartitionsResponse::default(),
    };
    if names.is_empty() {
        for topic in image.topics_from(&from_topic) {
            let first = if topic.name == *from_topic {
                from_partition
            } else {
                0
            };
            if !pages.add(&topic.name, Some(topic), first) {
                break;
            }
        }
    } else {
        for name in names.into_iter().filter(|name| **name >= *from_topic) {
            let first = if name == from_topic {
                from_partition
            } else {
                0
            };
            if !pages.add(&name, image.topic(&name), first) {
                break;
            }
        }
    }
    pages.response
}

fn refused(error: ErrorCode, topic: Str) -> DescribeTopicPartitionsResponse {
    let topic = DescribeTopicPartitionsResponseTopic {
        error_code: error.code(),
        name: Some(topic),
        ..Default::default()
    };
    DescribeTopicPartitionsResponse {
        topics: vec![topic],
        ..Default::default()
    }
}

struct Page<'a> {
    faces: &'a Faces<'a>,
    left: usize,
    response: DescribeTopicPartitionsResponse,
}

impl Page<'_> {
    /// Adds a topic from its partition `first` on; false when the page is full.
    fn add(&mut self, name: &str, topic: Option<&Arc<Topic>>, first: usize) -> bool {
        let Some(topic) = topic else {
            let invalid = names::topic_name_problem(name).is_some();
            let error = if invalid {
                ErrorCode::InvalidTopicException
            } else {
                ErrorCode::UnknownTopicOrPartition
            };
            let erroneous = refused(error, Str::from(name.to_owned()));
            self.response.topics.extend(erroneous.topics);
            return true;
        };
        if self.left == 0 {
            self.response.next_cursor = Some(Cursor {
                topic_name: Str::from(name.to_owned()),
                partition_index: first as i32,
            });
            return false;
        }
        let shown: Vec<_> = topic
            .partitions
            .iter()
            .enumerate()
            .skip(first)
            .take(self.left)
            .map(|(index, meta)| partition(self.faces, topic, index, meta))
            .collect();
        self.left -= shown.len();
        let next = first + shown.len();
        self.response
            .topics
            .push(DescribeTopicPartitionsResponseTopic {
                name: Some(topic.name.clone().into()),
                topic_id: Uuid::from_bytes(topic.id.0),
                is_internal: topic.internal,
                partitions: shown,
                // Kafka does not wait to be asked here.
                topic_authorized_operations: allowed::WITH_TOPIC,
                ..Default::default()
            });
        if next < topic.partitions.len() {
            self.response.next_cursor = Some(Cursor {
                topic_name: topic.name.clone().into(),
                partition_index: next as i32,
            });
            return false;
        }
        true
    }
}

fn partition(
    faces: &Faces<'_>,
    topic: &Topic,
    index: usize,
    meta: &PartitionMeta,
) -> DescribeTopicPartitionsResponsePartition {
    let error = if meta.leader < 0 {
        ErrorCode::LeaderNotAvailable
    } else {
        ErrorCode::None
    };
    let held = faces.held(topic, index, meta);
    DescribeTopicPartitionsResponsePartition {
        error_code: error.code(),
        partition_index: index as i32,
        leader_id: held.leader,
        leader_epoch: meta.leader_epoch,
        replica_nodes: held.replicas,
        isr_nodes: held.isr,
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        offline_replicas: held.offline,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NetConfig;
    use crate::wire::describe_topic_partitions::TopicRequest;
    use millrace_engine::api::meta::{machine, Command, Image, Overrides};
    use millrace_engine::types::TopicId;

    fn image(topics: &[(&str, i32)]) -> Image {
        let mut image = Image::new("c".repeat(22), 1, Arc::default()).unwrap();
        let node = Command::RegisterNode {
            id: 1,
            host: "h".into(),
            port: 1,
            rack: None,
        };
        machine::apply(&mut image, &node).unwrap();
        for (at, (name, partitions)) in topics.iter().enumerate() {
            let create = Command::CreateTopic {
                id: TopicId::from_random(at as u64 + 1, 1),
                name: (*name).into(),
                internal: false,
                partitions: *partitions,
                replication_factor: 1,
                assignment: vec![],
                overrides: Overrides::new(),
            };
            machine::apply(&mut image, &create).unwrap();
        }
        image
    }

    /// Follows the cursors to the end.
    fn all(image: &Image, names: &[&'static str], limit: i32) -> Vec<(String, i16, Vec<i32>)> {
        let topics: Vec<_> = names
            .iter()
            .map(|name| TopicRequest {
                name: (*name).into(),
            })
            .collect();
        let mut cursor = None;
        let mut seen = Vec::new();
        for _ in 0..100 {
            let request = DescribeTopicPartitionsRequest {
                topics: topics.clone(),
                response_partition_limit: limit,
                cursor: cursor.take(),
            };
            let config = NetConfig::default();
            let response = page(&Faces::new(&config, 1, image), request);
            let count: usize = response
                .topics
                .iter()
                .map(|topic| topic.partitions.len())
                .sum();
            assert!(count <= limit.max(1) as usize);
            for topic in response.topics {
                let partitions = topic.partitions.iter().map(|p| p.partition_index).collect();
                seen.push((
                    topic.name.unwrap().to_string(),
                    topic.error_code,
                    partitions,
                ));
            }
            cursor = response.next_cursor;
            if cursor.is_none() {
                return seen;
            }
        }
        panic!("the cursors do not end");
    }

    #[test]
    fn cursors_show_everything_once_whatever_the_limit() {
        let image = image(&[("c", 3), ("a", 5), ("b", 1)]);
        for limit in [-1, 0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 5000] {
            let mut partitions = Vec::new();
            for (name, error, some) in all(&image, &[], limit) {
                assert_eq!(error, 0);
                partitions.extend(some.into_iter().map(|p| (name.clone(), p)));
            }
            let expected: Vec<(String, i32)> = [("a", 5), ("b", 1), ("c", 3)]
                .iter()
                .flat_map(|(name, count)| (0..*count).map(|p| (name.to_string(), p)))
                .collect();
            assert_eq!(partitions, expected, "limit {limit}");
        }
    }

    #[test]
    fn unknown_and_invalid_names_have_their_errors() {
        let image = image(&[("a", 1)]);
        let seen = all(&image, &["zz", "a", "no such/name", "a"], 10);
        let codes: Vec<(&str, i16)> = seen
            .iter()
            .map(|(name, error, _)| (name.as_str(), *error))
            .collect();
        assert_eq!(codes, [("a", 0), ("no such/name", 17), ("zz", 3)]);
    }

    #[test]
    fn a_negative_cursor_is_refused() {
        let cursor = Some(Cursor {
            topic_name: "a".into(),
            partition_index: -1,
        });
        let request = DescribeTopicPartitionsRequest {
            cursor,
            ..Default::default()
        };
        let (config, image) = (NetConfig::default(), image(&[("a", 1)]));
        let refused = page(&Faces::new(&config, 1, &image), request);
        assert_eq!(refused.topics[0].error_code, 42);
    }
}
