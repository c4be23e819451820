//! The replicated metadata: nodes, topics, partitions, settings and producer ids, as commands applied by a Raft group.
//! Knows nothing of records, sockets or requests.
//! Keeps one rule for live operation and recovery: an image is a function of the commands applied, and of nothing else.

pub mod command;
pub mod config;
pub mod cow;
mod error;
pub mod format;
pub mod id_text;
pub mod image;
pub mod limits;
pub mod machine;
pub mod member;
pub mod names;
mod node;
pub mod offline;
mod raft_log;
pub mod snapshot;
pub mod store;

#[cfg(test)]
mod tests;

pub use command::{ApplyError, Command, DecodeError, Outcome};
pub use config::{BrokerConfig, ConfigEdit, ConfigError, ConfigOp, Overrides, TopicConfig};
pub use error::MetaError;
pub use image::{Broker, Image, PartitionMeta, Topic};
pub use node::{open, MetaHandle, MetaOptions, NodeInfo};
