//! Owns CreateTopics.
//! Does not know where partitions are placed, nor which names and settings are valid (the metadata does).
//! Invariant: each topic of a request succeeds or fails by itself; a name that occurs twice fails everywhere.

use super::admin::{self, NewTopic, Refusal};
use super::Outcome;
use crate::cores::Faces;
use crate::shard::ShardNet;
use crate::wire::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfigs, CreatableTopicResult,
    CreateTopicsRequest, CreateTopicsResponse,
};
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::meta::{machine, MetaError, Overrides, Topic};
use uuid::Uuid;

/// First version that shows the topic as it was created.
const DETAILS_VERSION_MIN: i16 = 5;

impl Outcome for CreateTopicsResponse {
    fn failed(&self) -> bool {
        self.topics.iter().any(|topic| topic.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: CreateTopicsRequest,
    version: i16,
) -> CreateTopicsResponse {
    let counts = admin::occurrences(request.topics.iter().map(|topic| topic.name.clone()));
    let default = shard.broker.image().broker_config.num_partitions;
    let partitions = request
        .topics
        .iter()
        .map(|topic| match topic.num_partitions {
            -1 if topic.assignments.is_empty() => default as usize,
            -1 => topic.assignments.len(),
            asked => usize::try_from(asked).unwrap_or(0),
        });
    let too_many = admin::too_many_partitions(partitions);
    let (single, repeated): (Vec<_>, Vec<_>) = request
        .topics
        .into_iter()
        .partition(|topic| counts[&topic.name] == 1);
    let one = |topic: CreatableTopic| async {
        match &too_many {
            Some(refusal) => refused(topic.name, refusal.clone()),
            None => one(shard, topic, request.validate_only, version).await,
        }
    };
    let mut topics = super::for_each(single, one).await;
    let mut answered = std::collections::HashSet::new();
    for topic in repeated {
        if answered.insert(topic.name.clone()) {
            topics.push(refused(
                topic.name,
                Refusal::new(ErrorCode::InvalidRequest, "Duplicate topic name."),
            ));
        }
    }
    CreateTopicsResponse {
        topics,
        ..Default::default()
    }
}

async fn one(
    shard: &ShardNet,
    topic: CreatableTopic,
    validate_only: bool,
    version: i16,
) -> CreatableTopicResult {
    let name = topic.name.clone();
    match create(shard, topic, validate_only).await {
        Ok(created) => describe(shard, &created, version),
        Err(refusal) => refused(name, refusal),
    }
}

async fn create(
    shard: &ShardNet,
    topic: CreatableTopic,
    validate_only: bool,
) -> Result<std::sync::Arc<Topic>, Refusal> {
    let image = shard.broker.image();
    // Before all that is wrong with the rest of it.
    machine::check_new_name(&image, &topic.name).map_err(MetaError::from)?;
    let new = new_topic(topic, &shard.faces(&image))?;
    let command = new.into_command(&shard.broker);
    admin::topic_of(admin::change(shard, command, validate_only).await?)
}

/// What the request says, as far as it makes sense by itself.
fn new_topic(topic: CreatableTopic, faces: &Faces<'_>) -> Result<NewTopic, Refusal> {
    let invalid = |message: String| Refusal::new(ErrorCode::InvalidRequest, message);
    let mut overrides = Overrides::new();
    for config in topic.configs {
        let Some(value) = config.value else {
            let why = format!(
                "Null value not supported for topic configs: {}",
                config.name
            );
            return Err(Refusal::new(ErrorCode::InvalidConfig, why));
        };
        if overrides
            .insert(config.name.to_string(), value.to_string())
            .is_some()
        {
            return Err(invalid(format!(
                "Error due to duplicate config keys: {}",
                config.name
            )));
        }
    }
    let assigned = !topic.assignments.is_empty();
    if assigned && (topic.num_partitions != -1 || topic.replication_factor != -1) {
        return Err(invalid(
            "A manual partition assignment was specified, but numPartitions or replicationFactor was not set to -1."
                .to_owned(),
        ));
    }
    Ok(NewTopic {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assigned: faces.assigned(None, 0, assignment(topic.assignments)?)?,
        overrides,
    })
}

/// Replicas by partition; the partitions must be 0, 1, 2 and so on, in whatever order.
fn assignment(mut given: Vec<CreatableReplicaAssignment>) -> Result<Vec<Vec<i32>>, Refusal> {
    given.sort_by_key(|partition| partition.partition_index);
    let consecutive = given
        .iter()
        .enumerate()
        .all(|(at, partition)| partition.partition_index as usize == at);
    if !consecutive {
        return Err(Refusal::new(
            ErrorCode::InvalidReplicaAssignment,
            "partitions should be a consecutive 0-based integer sequence",
        ));
    }
    Ok(given
        .into_iter()
        .map(|partition| partition.broker_ids)
        .collect())
}

fn describe(shard: &ShardNet, topic: &Topic, version: i16) -> CreatableTopicResult {
    let mut result = CreatableTopicResult {
        name: topic.name.clone().into(),
        topic_id: Uuid::from_bytes(topic.id.0),
        ..Default::default()
    };
    if version >= DETAILS_VERSION_MIN {
        result.num_partitions = topic.partitions.len() as i32;
        result.replication_factor = topic
            .partitions
            .first()
            .map_or(-1, |partition| partition.replicas.len() as i16);
        let entries = shard.broker.image().describe_topic(topic);
        let configs = entries.into_iter().map(|entry| CreatableTopicConfigs {
            name: Str::from_static(entry.name),
            value: entry.value.map(Str::from),
            read_only: entry.read_only,
            config_source: entry.source.code(),
            is_sensitive: entry.sensitive,
        });
        result.configs = Some(configs.collect());
    }
    result
}

fn refused(name: Str, refusal: Refusal) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        error_code: refusal.code.code(),
        error_message: Some(refusal.message.into()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NetConfig;
    use crate::wire::create_topics::CreatableTopicConfig;
    use millrace_engine::api::meta::Image;

    /// What a request says to a node without other brokers.
    fn new(topic: CreatableTopic) -> Result<NewTopic, Refusal> {
        let image = Image::new("c".into(), 1, Default::default()).unwrap();
        new_topic(topic, &Faces::new(&NetConfig::default(), 1, &image))
    }

    fn assigned(partitions: &[(i32, &[i32])]) -> Vec<CreatableReplicaAssignment> {
        partitions
            .iter()
            .map(|(index, ids)| CreatableReplicaAssignment {
                partition_index: *index,
                broker_ids: ids.to_vec(),
            })
            .collect()
    }

    #[test]
    fn assignments_are_put_in_order_and_must_have_no_gaps() {
        assert_eq!(
            assignment(assigned(&[(1, &[2]), (0, &[1, 3])])).unwrap(),
            [vec![1, 3], vec![2]]
        );
        for bad in [
            &[(1, &[1][..])][..],
            &[(0, &[1]), (2, &[1])],
            &[(0, &[1]), (0, &[1])],
            &[(-1, &[1])],
        ] {
            assert_eq!(
                assignment(assigned(bad)).unwrap_err().code,
                ErrorCode::InvalidReplicaAssignment
            );
        }
    }

    #[test]
    fn an_assignment_excludes_counts_and_settings_are_named_once() {
        let topic = |partitions, factor| CreatableTopic {
            name: "t".into(),
            num_partitions: partitions,
            replication_factor: factor,
            assignments: assigned(&[(0, &[1])]),
            ..Default::default()
        };
        assert!(new(topic(-1, -1)).is_ok());
        assert_eq!(
            new(topic(1, -1)).unwrap_err().code,
            ErrorCode::InvalidRequest
        );
        assert_eq!(
            new(topic(-1, 1)).unwrap_err().code,
            ErrorCode::InvalidRequest
        );
        let config = |value: Option<&'static str>| CreatableTopicConfig {
            name: "retention.ms".into(),
            value: value.map(Str::from),
        };
        let with = |configs| CreatableTopic {
            name: "t".into(),
            num_partitions: 1,
            configs,
            ..Default::default()
        };
        assert_eq!(
            new(with(vec![config(Some("5"))])).unwrap().overrides["retention.ms"],
            "5"
        );
        let null = new(with(vec![config(None)]));
        assert_eq!(null.unwrap_err().code, ErrorCode::InvalidConfig);
        let twice = new(with(vec![config(Some("5")), config(Some("6"))]));
        assert_eq!(twice.unwrap_err().code, ErrorCode::InvalidRequest);
    }
}
