//! What can be asked of the metadata, what comes of it, and how a command is written in the log.
//! Knows nothing of how commands are applied or replicated.
//! Keeps decoding total: unknown or damaged bytes give an error, never a guess.

use super::config::{ConfigEdit, ConfigError, Overrides};
use super::image::Topic;
use super::{id_text, limits};
use crate::types::TopicId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A change of the metadata. Applying one is deterministic: whatever is random or depends on the clock is in it already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// A node says where it is reached. Repeating it changes nothing.
    RegisterNode {
        id: i32,
        host: String,
        port: u16,
        rack: Option<String>,
    },
    /// A new topic. With an `assignment` (node ids by partition, the first leads) its length is the number of partitions, and
    /// `partitions` and `replication_factor` must agree with it or be -1.
    CreateTopic {
        #[serde(with = "id_text")]
        id: TopicId,
        name: String,
        internal: bool,
        partitions: i32,
        replication_factor: i16,
        assignment: Vec<Vec<i32>>,
        overrides: Overrides,
    },
    /// Removes a topic.
    DeleteTopic {
        #[serde(with = "id_text")]
        id: TopicId,
    },
    /// Grows a topic to this number of partitions; `assignment` is empty or has the replicas of every new one.
    AddPartitions {
        #[serde(with = "id_text")]
        id: TopicId,
        new_total: i32,
        assignment: Vec<Vec<i32>>,
    },
    /// Changes the settings of a topic.
    SetTopicConfig {
        #[serde(with = "id_text")]
        id: TopicId,
        edit: ConfigEdit,
    },
    /// Changes the settings of one node, or of all (`None`).
    SetBrokerConfig { node: Option<i32>, edit: ConfigEdit },
    /// Changes the settings of a group, whether there is one of this name or not.
    SetGroupConfig { group: String, edit: ConfigEdit },
    /// Takes the next `count` producer ids for a node.
    AllocateProducerIds { node: i32, count: u32 },
    /// A node started again: the epoch of every partition it leads grows by one, so that nothing of its past can be mistaken
    /// for its present.
    BumpLeaderEpochs { node: i32 },
    /// Records of this topic were written elsewhere: leader epochs and producer ids up to these are taken.
    RaiseFloors {
        #[serde(with = "id_text")]
        id: TopicId,
        leader_epoch: i32,
        producer_id: i64,
    },
}

/// What a command brought about.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Done,
    /// The topic as it is after CreateTopic, AddPartitions and SetTopicConfig, as it was before DeleteTopic.
    Topic(Arc<Topic>),
    /// `first .. first + count` belong to the node that asked.
    ProducerIds {
        first: i64,
        count: u32,
    },
}

/// Why a command was refused. It changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("Topic '{0}' already exists.")]
    TopicExists(String),
    #[error("The topic id {0} is not known.")]
    UnknownTopic(TopicId),
    #[error("The topic id {0} is nil or in use.")]
    InvalidTopicId(TopicId),
    /// Against the rules for names, or collides with another topic.
    #[error("{0}")]
    InvalidTopicName(String),
    #[error("{0}")]
    InvalidPartitions(String),
    #[error("{0}")]
    InvalidReplicationFactor(String),
    #[error("{0}")]
    InvalidAssignment(String),
    #[error(transparent)]
    InvalidConfig(#[from] ConfigError),
    #[error("The name of the group is empty or too long.")]
    InvalidGroup,
    #[error("The node {0} is not registered.")]
    UnknownNode(i32),
    #[error("The registration is invalid: {0}")]
    InvalidRegistration(String),
    #[error("The number of producer ids must be between 1 and {max}.", max = limits::PRODUCER_ID_BLOCK_MAX)]
    InvalidProducerIdCount,
    #[error("All producer ids are used up.")]
    ProducerIdsExhausted,
    /// A bound of [`limits`] is reached.
    #[error("{what} would exceed the limit of {max}.")]
    Limit { what: &'static str, max: usize },
}

/// Why bytes are no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not one of the commands this version knows: damaged, or written by a newer version.
    #[error("not a command known to this version: {0}")]
    Malformed(String),
    #[error("a command of {len} bytes exceeds the limit of {max}", max = limits::COMMAND_BYTES_MAX)]
    TooLarge { len: usize },
}

impl Command {
    /// The command as it is written in the log: JSON.
    ///
    /// # Errors
    /// [`DecodeError::TooLarge`].
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let bytes =
            serde_json::to_vec(self).expect("no map with other keys than text, no failing writer");
        if bytes.len() > limits::COMMAND_BYTES_MAX {
            return Err(DecodeError::TooLarge { len: bytes.len() });
        }
        Ok(bytes)
    }

    /// The command written in these bytes.
    ///
    /// # Errors
    /// Bytes that are no command, or too many.
    pub fn decode(bytes: &[u8]) -> Result<Command, DecodeError> {
        if bytes.len() > limits::COMMAND_BYTES_MAX {
            return Err(DecodeError::TooLarge { len: bytes.len() });
        }
        serde_json::from_slice(bytes).map_err(|e| DecodeError::Malformed(e.to_string()))
    }

    /// True if applying it makes the metadata larger: what is refused first when the disk fills up.
    pub fn grows(&self) -> bool {
        match self {
            Command::RegisterNode { .. }
            | Command::DeleteTopic { .. }
            | Command::SetTopicConfig { .. }
            | Command::SetBrokerConfig { .. }
            | Command::SetGroupConfig { .. }
            | Command::BumpLeaderEpochs { .. }
            | Command::RaiseFloors { .. } => false,
            Command::CreateTopic { .. }
            | Command::AddPartitions { .. }
            | Command::AllocateProducerIds { .. } => true,
        }
    }
}
