//! Owns what the administrative handlers share: changing the metadata, and wording why that was refused.
//! Does not know requests or responses.
//! Invariant: a change is only reported as made once every shard of this node sees it.

use crate::cores::{Assigned, AssignmentRefused, Faces};
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::ErrorCode;
use millrace_engine::api::meta::{
    limits, machine, names, Command, ConfigEdit, Image, MetaError, Outcome, Overrides, Topic,
};
use millrace_engine::api::Broker;
use millrace_engine::rt;
use millrace_engine::types::{PartitionId, TopicId};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// New partitions of all topics in one request: as many as one topic may have.
const PARTITIONS_PER_REQUEST_MAX: usize = limits::PARTITIONS_PER_TOPIC_MAX;

/// An error with the text that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal {
            code,
            message: message.into(),
        }
    }

    /// More replicas than there are nodes may be fewer than the brokers that the client sees.
    fn with_hint(mut self, faces: &Faces<'_>) -> Refusal {
        if self.code == ErrorCode::InvalidReplicationFactor {
            if let Some(hint) = faces.hint_one_replica() {
                self.message = format!("{} {hint}", self.message);
            }
        }
        self
    }

    pub(crate) fn unknown_topic() -> Refusal {
        Refusal::new(
            ErrorCode::UnknownTopicOrPartition,
            "This server does not host this topic-partition.",
        )
    }
}

impl From<AssignmentRefused> for Refusal {
    fn from(refused: AssignmentRefused) -> Refusal {
        Refusal::new(ErrorCode::InvalidReplicaAssignment, refused.to_string())
    }
}

impl From<MetaError> for Refusal {
    fn from(error: MetaError) -> Refusal {
        Refusal::new(errors::meta(&error), error.to_string())
    }
}

/// A topic as somebody wants it.
#[derive(Debug)]
pub(crate) struct NewTopic {
    pub(crate) name: String,
    /// -1 for the broker's default.
    pub(crate) partitions: i32,
    pub(crate) replication_factor: i16,
    /// Where the partitions go; no nodes where the broker is to choose.
    pub(crate) assigned: Assigned,
    pub(crate) overrides: Overrides,
}

impl NewTopic {
    pub(crate) fn with_defaults(name: &str) -> NewTopic {
        NewTopic {
            name: name.to_owned(),
            partitions: -1,
            replication_factor: -1,
            assigned: Assigned::default(),
            overrides: Overrides::new(),
        }
    }

    /// The command, with the broker's defaults put in.
    pub(crate) fn into_command(self, broker: &Broker) -> Command {
        let image = broker.image();
        let default = |given: bool, value| if given { value } else { -1 };
        let free = self.assigned.nodes.is_empty();
        let config = &image.broker_config;
        let partitions = if self.partitions == -1 {
            default(free, config.num_partitions)
        } else {
            self.partitions
        };
        let replication_factor = if self.replication_factor == -1 && free {
            config.default_replication_factor
        } else {
            self.replication_factor
        };
        Command::CreateTopic {
            id: fresh_id(broker, self.assigned.first_shard),
            internal: names::is_internal(&self.name),
            name: self.name,
            partitions,
            replication_factor,
            assignment: self.assigned.nodes,
            overrides: self.overrides,
        }
    }
}

/// An id for a new topic whose first partition lives on `first`, where that matters. One in as many as there are shards does.
fn fresh_id(broker: &Broker, first: Option<usize>) -> TopicId {
    assert!(first.is_none_or(|shard| shard < broker.shards()));
    loop {
        let id = TopicId::from_random(rt::random_u64(), rt::random_u64());
        if first.is_none_or(|shard| broker.owner(PartitionId::new(id, 0)) == shard) {
            return id;
        }
    }
}

/// Creates a topic.
pub(crate) async fn create_topic(shard: &ShardNet, topic: NewTopic) -> Result<Arc<Topic>, Refusal> {
    let command = topic.into_command(&shard.broker);
    topic_of(change(shard, command, false).await?)
}

/// The topic that a change to a topic resulted in.
pub(crate) fn topic_of(outcome: Outcome) -> Result<Arc<Topic>, Refusal> {
    match outcome {
        Outcome::Topic(topic) => Ok(topic),
        Outcome::Done | Outcome::ProducerIds { .. } => Err(Refusal::new(
            ErrorCode::UnknownServerError,
            "the change had another outcome than its kind has",
        )),
    }
}

/// Refuses a request about more partitions than one may be: each is work even where nothing is made.
pub(crate) fn too_many_partitions(counts: impl Iterator<Item = usize>) -> Option<Refusal> {
    // One that is more than a topic may be is refused by itself, at once.
    let each = counts.filter(|count| *count <= PARTITIONS_PER_REQUEST_MAX);
    let sum = each.fold(0, usize::saturating_add);
    (sum > PARTITIONS_PER_REQUEST_MAX).then(|| {
        let message = format!(
            "Excessively large number of partitions per request: {sum} of at most {PARTITIONS_PER_REQUEST_MAX}."
        );
        Refusal::new(ErrorCode::PolicyViolation, message)
    })
}

/// Makes a change, or with `validate_only` says what it would result in.
pub(crate) async fn change(
    shard: &ShardNet,
    command: Command,
    validate_only: bool,
) -> Result<Outcome, Refusal> {
    // Most refusals need no entry in the metadata's log; what has changed meanwhile is judged again there.
    let image = shard.broker.image();
    let refusal = |error| Refusal::from(error).with_hint(&shard.faces(&image));
    let checked =
        machine::check(&image, &command).map_err(|error| refusal(MetaError::from(error)))?;
    if validate_only {
        return Ok(checked);
    }
    shard.broker.propose(command).await.map_err(|error| {
        if !matches!(error, MetaError::Refused(_)) {
            tracing::error!(%error, "the metadata could not be changed");
        }
        refusal(error)
    })
}

/// The resource whose settings are to be shown or changed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Resource {
    Topic(Arc<Topic>),
    /// This node's own settings.
    ThisNode,
    /// What is set for all nodes.
    AllNodes,
    /// A group, whether there is one of this name or not.
    Group(String),
}

impl Resource {
    /// Finds the resource of a request by its Kafka type and name.
    pub(crate) fn find(faces: &Faces<'_>, kind: i8, name: &str) -> Result<Resource, Refusal> {
        use crate::wire::config_codes::resource;
        let image = faces.image;
        match kind {
            resource::TOPIC => {
                if let Some(problem) = names::topic_name_problem(name) {
                    return Err(Refusal::new(ErrorCode::InvalidTopicException, problem));
                }
                image
                    .topic(name)
                    .cloned()
                    .map(Resource::Topic)
                    .ok_or_else(Refusal::unknown_topic)
            }
            resource::BROKER if name.is_empty() => Ok(Resource::AllNodes),
            resource::BROKER if node_named(faces, name) == Some(image.node_id) => {
                Ok(Resource::ThisNode)
            }
            resource::BROKER => Err(Refusal::new(
                ErrorCode::InvalidRequest,
                format!(
                    "Unexpected broker id, expected {} or empty string, but received {name}",
                    faces.own_names()
                ),
            )),
            resource::GROUP if name.is_empty() => Err(Refusal::new(
                ErrorCode::InvalidRequest,
                "Default group resources are not allowed.",
            )),
            resource::GROUP => Ok(Resource::Group(name.to_owned())),
            resource::BROKER_LOGGER | resource::CLIENT_METRICS => Err(Refusal::new(
                ErrorCode::InvalidRequest,
                format!("Resource type {kind} is not supported by this broker"),
            )),
            other => Err(Refusal::new(
                ErrorCode::InvalidRequest,
                format!("Unknown resource type {other}"),
            )),
        }
    }

    /// The command that changes its settings.
    pub(crate) fn edit(&self, image: &Image, edit: ConfigEdit) -> Command {
        match self {
            Resource::Topic(topic) => Command::SetTopicConfig { id: topic.id, edit },
            Resource::ThisNode => Command::SetBrokerConfig {
                node: Some(image.node_id),
                edit,
            },
            Resource::AllNodes => Command::SetBrokerConfig { node: None, edit },
            Resource::Group(group) => Command::SetGroupConfig {
                group: group.clone(),
                edit,
            },
        }
    }
}

/// The node that a broker resource of this name is.
pub(crate) fn node_named(faces: &Faces<'_>, name: &str) -> Option<i32> {
    name.parse().ok().map(|id| faces.node(id))
}

/// How often each key occurs.
pub(crate) fn occurrences<K: Hash + Eq>(keys: impl IntoIterator<Item = K>) -> HashMap<K, usize> {
    let mut counts = HashMap::new();
    for key in keys {
        *counts.entry(key).or_insert(0) += 1;
    }
    counts
}
