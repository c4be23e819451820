//! Owns what the administrative handlers share: changing the metadata, and wording why that was refused.
//! Does not know requests or responses.
//! Invariant: a change is only reported as made once every shard of this node sees it.

use crate::errors;
use crate::shard::ShardNet;
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::meta::{
    machine, names, Command, ConfigEdit, Image, MetaError, Outcome, Overrides, PartitionMeta, Topic,
};
use millrace_engine::rt;
use millrace_engine::types::TopicId;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

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

    pub(crate) fn unknown_topic() -> Refusal {
        Refusal::new(
            ErrorCode::UnknownTopicOrPartition,
            "This server does not host this topic-partition.",
        )
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
    /// Node ids by partition; empty where the broker is to choose.
    pub(crate) assignment: Vec<Vec<i32>>,
    pub(crate) overrides: Overrides,
}

impl NewTopic {
    pub(crate) fn with_defaults(name: &str) -> NewTopic {
        NewTopic {
            name: name.to_owned(),
            partitions: -1,
            replication_factor: -1,
            assignment: Vec::new(),
            overrides: Overrides::new(),
        }
    }

    /// The command, with the broker's defaults put in.
    pub(crate) fn into_command(self, image: &Image) -> Command {
        let default = |given: bool, value| if given { value } else { -1 };
        let free = self.assignment.is_empty();
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
            id: TopicId::from_random(rt::random_u64(), rt::random_u64()),
            internal: names::is_internal(&self.name),
            name: self.name,
            partitions,
            replication_factor,
            assignment: self.assignment,
            overrides: self.overrides,
        }
    }
}

/// Creates a topic.
pub(crate) async fn create_topic(shard: &ShardNet, topic: NewTopic) -> Result<Arc<Topic>, Refusal> {
    let command = topic.into_command(&shard.broker.image());
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

/// Makes a change, or with `validate_only` says what it would result in.
pub(crate) async fn change(
    shard: &ShardNet,
    command: Command,
    validate_only: bool,
) -> Result<Outcome, Refusal> {
    // Most refusals need no entry in the metadata's log; what has changed meanwhile is judged again there.
    let checked = machine::check(&shard.broker.image(), &command)
        .map_err(|error| Refusal::from(MetaError::from(error)))?;
    if validate_only {
        return Ok(checked);
    }
    shard.broker.propose(command).await.map_err(|error| {
        if !matches!(error, MetaError::Refused(_)) {
            tracing::error!(%error, "the metadata could not be changed");
        }
        Refusal::from(error)
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
}

impl Resource {
    /// Finds the resource of a request by its Kafka type and name.
    pub(crate) fn find(image: &Image, kind: i8, name: &str) -> Result<Resource, Refusal> {
        use crate::wire::config_codes::resource;
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
            resource::BROKER if name.parse() == Ok(image.node_id) => Ok(Resource::ThisNode),
            resource::BROKER => Err(Refusal::new(
                ErrorCode::InvalidRequest,
                format!(
                    "Unexpected broker id, expected {} or empty string, but received {name}",
                    image.node_id
                ),
            )),
            resource::BROKER_LOGGER | resource::CLIENT_METRICS | resource::GROUP => {
                Err(Refusal::new(
                    ErrorCode::InvalidRequest,
                    format!("Resource type {kind} is not supported by this broker"),
                ))
            }
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
        }
    }
}

/// How often each key occurs.
pub(crate) fn occurrences<K: Hash + Eq>(keys: impl IntoIterator<Item = K>) -> HashMap<K, usize> {
    let mut counts = HashMap::new();
    for key in keys {
        *counts.entry(key).or_insert(0) += 1;
    }
    counts
}

/// Where a node is reached.
pub(crate) struct Endpoint {
    pub(crate) id: i32,
    pub(crate) host: Str,
    pub(crate) port: i32,
    pub(crate) rack: Option<Str>,
}

/// All nodes as clients reach them; this one under the address it advertises.
pub(crate) fn endpoints(shard: &ShardNet, image: &Image) -> Vec<Endpoint> {
    let own = |id| id == image.node_id;
    image
        .brokers
        .iter()
        .map(|node| Endpoint {
            id: node.id,
            host: if own(node.id) {
                shard.config.advertised_host.clone()
            } else {
                node.host.clone()
            }
            .into(),
            port: if own(node.id) {
                shard.config.advertised_port
            } else {
                node.port
            }
            .into(),
            rack: node.rack.clone().map(Str::from),
        })
        .collect()
}

/// Replicas on nodes that are not registered.
pub(crate) fn offline(image: &Image, meta: &PartitionMeta) -> Vec<i32> {
    meta.replicas
        .iter()
        .copied()
        .filter(|id| image.broker(*id).is_none())
        .collect()
}
