//! What can go wrong with the metadata as a whole.
//! Knows nothing of Kafka's error codes.
//! Keeps one meaning per variant, and says what an operator can do where there is something to do.

use super::command::{ApplyError, DecodeError};
use super::config::ConfigError;
use super::limits;
use super::snapshot::SnapshotError;

/// Why the metadata could not be opened or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// The command was applied and refused: nothing changed.
    #[error(transparent)]
    Refused(#[from] ApplyError),
    /// The command never reached the log.
    #[error("a command of {len} bytes exceeds the limit of {max}", max = limits::COMMAND_BYTES_MAX)]
    TooLarge { len: usize },
    /// The command never reached the log.
    #[error("only {free} bytes are free on the disk: metadata may not use the reserve")]
    DiskFull { free: u64 },
    /// This node does not lead the metadata group; whether the command takes effect is not known.
    #[error("this node does not lead the metadata group")]
    NotLeader,
    /// An earlier write failed. What was acknowledged is safe; restart the process to recover.
    #[error("the metadata cannot be changed any more: {0}; restart to recover")]
    Failed(String),
    #[error("the metadata is closed")]
    Closed,
    /// Reading or writing the metadata file failed.
    #[error("{what}: {cause}")]
    Io { what: String, cause: String },
    /// The file was written by a newer version of Millrace.
    #[error("{file} has format version {found}, this version reads up to {known}: use the newer version of Millrace that wrote it")]
    NewerVersion {
        file: String,
        found: u32,
        known: u32,
    },
    /// Acknowledged metadata is damaged. Nothing was cut off.
    #[error("{file} is damaged: {what}")]
    Damaged { file: String, what: String },
    /// The log has a command that this version does not know.
    #[error("the metadata log has an entry at {index} that is {cause}: was it written by a newer version of Millrace?")]
    UnknownCommand { index: u64, cause: DecodeError },
    #[error("{file}: {cause}")]
    Snapshot { file: String, cause: SnapshotError },
    /// Metadata that must be there is not.
    #[error("{file} is missing, but this data directory has been used: restore it, or point --data-dir elsewhere")]
    Missing { file: String },
    /// A copy of before: what was changed and acknowledged since would be lost.
    #[error("{file} ends with change {version}, and change {known} was durable: it is an older copy; put the newest one back")]
    Old {
        file: String,
        version: u64,
        known: u64,
    },
    /// The directory belongs to another node.
    #[error(
        "{file} belongs to node {stored}, this is node {given}: check --node-id and --data-dir"
    )]
    WrongNode {
        file: String,
        stored: i32,
        given: i32,
    },
    /// A setting the node was started with.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The Raft library refused to go on.
    #[error("raft: {0}")]
    Raft(String),
}
