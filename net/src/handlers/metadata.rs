//! Owns Metadata: brokers and topics, and creating a topic when it is first asked for.
//! Does not know how topics are stored.
//! Invariant: the answer is taken from one image, later than every topic this request created.

use super::admin::{self, NewTopic};
use super::{allowed, Outcome};
use crate::cores::Faces;
use crate::shard::ShardNet;
use crate::wire::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::meta::{names, Image, PartitionMeta, Topic};
use millrace_engine::types::TopicId;
use std::collections::HashMap;
use uuid::Uuid;

/// First version in which topics may be asked for by id.
const ID_VERSION_MIN: i16 = 12;
/// First version with topic ids in the answer.
const TOPIC_ID_VERSION_MIN: i16 = 10;
/// First version in which a client can say that it wants no topics created.
const AUTO_CREATE_VERSION_MIN: i16 = 4;

impl Outcome for MetadataResponse {
    fn failed(&self) -> bool {
        self.error_code != 0 || self.topics.iter().any(|topic| topic.error_code != 0)
    }
}

/// What a request asks for.
#[derive(Debug, PartialEq)]
enum Wanted {
    All,
    These(Vec<MetadataRequestTopic>),
    /// Ids where the version does not know them, or neither id nor name.
    Nonsense(Vec<MetadataRequestTopic>),
}

fn wanted(topics: Option<Vec<MetadataRequestTopic>>, version: i16) -> Wanted {
    match topics {
        None => Wanted::All,
        // Before version 1 there was no null: empty meant all.
        Some(topics) if topics.is_empty() && version == 0 => Wanted::All,
        Some(topics) => {
            let fine = |topic: &MetadataRequestTopic| {
                if version < ID_VERSION_MIN {
                    topic.name.is_some() && topic.topic_id.is_nil()
                } else {
                    topic.name.is_some() || !topic.topic_id.is_nil()
                }
            };
            if topics.iter().all(fine) {
                Wanted::These(topics)
            } else {
                Wanted::Nonsense(topics)
            }
        }
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: MetadataRequest,
    version: i16,
) -> MetadataResponse {
    let mut image = shard.broker.image();
    let auto_create = version < AUTO_CREATE_VERSION_MIN || request.allow_auto_topic_creation;
    let topics = match wanted(request.topics, version) {
        Wanted::All => {
            let faces = shard.faces(&image);
            image
                .topics()
                .map(|topic| describe(&faces, topic))
                .collect()
        }
        Wanted::Nonsense(topics) => topics
            .into_iter()
            .map(|topic| {
                erroneous(
                    ErrorCode::InvalidRequest,
                    Some(topic.name.unwrap_or_default()),
                    Uuid::nil(),
                )
            })
            .collect(),
        Wanted::These(topics) => {
            let failures = if auto_create && image.broker_config.auto_create_topics_enable {
                let failures = create_missing(shard, &image, &topics).await;
                image = shard.broker.image();
                failures
            } else {
                HashMap::new()
            };
            let faces = shard.faces(&image);
            let topic = |asked: &MetadataRequestTopic| (asked.topic_id, asked.name.clone());
            super::each_once(topics, topic)
                .into_iter()
                .map(|topic| one_topic(&faces, topic, &failures))
                .collect()
        }
    };
    let faces = shard.faces(&image);
    let mut response = MetadataResponse {
        brokers: brokers(&faces),
        cluster_id: Some(image.cluster_id.clone().into()),
        controller_id: faces.controller(),
        topics,
        cluster_authorized_operations: allowed::if_asked(
            request.include_cluster_authorized_operations,
            allowed::WITH_CLUSTER,
        ),
        ..Default::default()
    };
    if request.include_topic_authorized_operations {
        // Also of topics that are not there, but not of ids that nothing has.
        let named = response.topics.iter_mut().filter(|t| t.name.is_some());
        named.for_each(|topic| topic.topic_authorized_operations = allowed::WITH_TOPIC);
    }
    if version < TOPIC_ID_VERSION_MIN {
        response
            .topics
            .iter_mut()
            .for_each(|topic| topic.topic_id = Uuid::nil());
    }
    response
}

fn brokers(faces: &Faces<'_>) -> Vec<MetadataResponseBroker> {
    faces
        .brokers()
        .into_iter()
        .map(|node| MetadataResponseBroker {
            node_id: node.id,
            host: node.host,
            port: node.port,
            rack: node.rack,
        })
        .collect()
}

/// Creates the topics that are asked for by name and do not exist; gives the errors of those that cannot be created.
async fn create_missing(
    shard: &ShardNet,
    image: &Image,
    topics: &[MetadataRequestTopic],
) -> HashMap<String, ErrorCode> {
    let mut missing: Vec<&str> = topics
        .iter()
        .filter(|topic| topic.topic_id.is_nil())
        .filter_map(|topic| topic.name.as_deref())
        // The broker's own topics come with what needs them, not because somebody looks.
        .filter(|name| image.topic(name).is_none() && !names::is_internal(name))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    let created = super::for_each(missing, |name| async move {
        let made = admin::create_topic(shard, NewTopic::with_defaults(name)).await;
        (name.to_owned(), made.err())
    });
    created
        .await
        .into_iter()
        .filter_map(|(name, error)| match error?.code {
            // Somebody else was faster.
            ErrorCode::TopicAlreadyExists => None,
            code => Some((name, code)),
        })
        .collect()
}

fn one_topic(
    faces: &Faces<'_>,
    wanted: MetadataRequestTopic,
    failures: &HashMap<String, ErrorCode>,
) -> MetadataResponseTopic {
    // Who asks by id may leave the name empty, rather than null: the Java client does.
    let by_name = wanted.name.filter(|_| wanted.topic_id.is_nil());
    let Some(name) = by_name else {
        return match faces
            .image
            .topic_by_id(TopicId(wanted.topic_id.into_bytes()))
        {
            Some(topic) => describe(faces, topic),
            None => erroneous(ErrorCode::UnknownTopicId, None, wanted.topic_id),
        };
    };
    match faces.image.topic(&name) {
        Some(topic) => describe(faces, topic),
        None => {
            let invalid = names::topic_name_problem(&name)
                .is_some()
                .then_some(ErrorCode::InvalidTopicException);
            let error = invalid.or_else(|| failures.get(name.as_str()).copied());
            erroneous(
                error.unwrap_or(ErrorCode::UnknownTopicOrPartition),
                Some(name),
                Uuid::nil(),
            )
        }
    }
}

fn erroneous(error: ErrorCode, name: Option<Str>, topic_id: Uuid) -> MetadataResponseTopic {
    MetadataResponseTopic {
        error_code: error.code(),
        name,
        topic_id,
        ..Default::default()
    }
}

fn describe(faces: &Faces<'_>, topic: &Topic) -> MetadataResponseTopic {
    MetadataResponseTopic {
        name: Some(topic.name.clone().into()),
        topic_id: Uuid::from_bytes(topic.id.0),
        is_internal: topic.internal,
        partitions: topic
            .partitions
            .iter()
            .enumerate()
            .map(|(index, meta)| partition(faces, topic, index, meta))
            .collect(),
        ..Default::default()
    }
}

fn partition(
    faces: &Faces<'_>,
    topic: &Topic,
    index: usize,
    meta: &PartitionMeta,
) -> MetadataResponsePartition {
    let error = if meta.leader < 0 {
        ErrorCode::LeaderNotAvailable
    } else {
        ErrorCode::None
    };
    let held = faces.held(topic, index, meta);
    MetadataResponsePartition {
        error_code: error.code(),
        partition_index: index as i32,
        leader_id: held.leader,
        leader_epoch: meta.leader_epoch,
        replica_nodes: held.replicas,
        isr_nodes: held.isr,
        offline_replicas: held.offline,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_empty_mean_what_the_version_says() {
        assert_eq!(wanted(Some(vec![]), 0), Wanted::All);
        assert_eq!(wanted(None, 1), Wanted::All);
        assert_eq!(wanted(None, 12), Wanted::All);
        for version in 1..=13 {
            assert_eq!(
                wanted(Some(vec![]), version),
                Wanted::These(vec![]),
                "version {version}"
            );
        }
    }

    #[test]
    fn ids_are_for_version_12_and_later() {
        let by_id = || {
            vec![MetadataRequestTopic {
                topic_id: Uuid::from_u128(5),
                name: None,
            }]
        };
        assert!(matches!(wanted(Some(by_id()), 10), Wanted::Nonsense(_)));
        assert!(matches!(wanted(Some(by_id()), 11), Wanted::Nonsense(_)));
        assert!(matches!(wanted(Some(by_id()), 12), Wanted::These(_)));
        let neither = vec![MetadataRequestTopic {
            topic_id: Uuid::nil(),
            name: None,
        }];
        assert!(matches!(wanted(Some(neither), 12), Wanted::Nonsense(_)));
    }
}
