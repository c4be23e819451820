//! Owns the closed set of errors that a request on a partition can end in.
//! Does not know Kafka's error codes: `net` maps each variant, exhaustively.
//! Invariant: a variant says enough for a person to act on it.

use crate::types::batch::BatchError;
use crate::types::Offset;

/// Why a partition refused an append or a read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PartitionError {
    #[error("no such topic or partition")]
    Unknown,
    #[error("this node does not lead the partition")]
    NotLeader,
    #[error("{have} in-sync replicas where min.insync.replicas asks for {need}")]
    NotEnoughReplicas { have: usize, need: usize },
    #[error("the client's leader epoch {theirs} is older than {ours}")]
    FencedEpoch { theirs: i32, ours: i32 },
    #[error("the client's leader epoch {theirs} is newer than {ours}")]
    UnknownEpoch { theirs: i32, ours: i32 },
    #[error("offset {wanted} lies outside {log_start}..{end}")]
    OffsetOutOfRange {
        wanted: Offset,
        log_start: Offset,
        end: Offset,
    },
    #[error("bad batch: {0}")]
    Corrupt(BatchError),
    #[error("record refused: {0}")]
    InvalidRecord(&'static str),
    #[error("zstd needs a newer produce version")]
    UnsupportedCompression,
    #[error("timestamp {timestamp_ms} lies outside what the topic allows")]
    InvalidTimestamp { timestamp_ms: i64 },
    #[error("batch of {size} bytes exceeds max.message.bytes {max}")]
    TooLarge { size: usize, max: usize },
    #[error("producer {producer_id}: sequence {got} where {expected} was due")]
    OutOfOrderSequence {
        producer_id: i64,
        got: i32,
        expected: i32,
    },
    #[error("producer {producer_id}: epoch {got} is older than {current}")]
    ProducerFenced {
        producer_id: i64,
        got: i16,
        current: i16,
    },
    #[error(
        "producer {producer_id}: sequence {got} was stored before the batches still remembered"
    )]
    DuplicateSequence { producer_id: i64, got: i32 },
    #[error("producer {producer_id}: a batch that fits no transaction of the partition")]
    InvalidTxnState { producer_id: i64 },
    #[error("the topic's policy forbids this: {0}")]
    Policy(&'static str),
    #[error("the request is invalid: {0}")]
    InvalidRequest(&'static str),
    #[error("storage failed: {0}")]
    Storage(String),
    #[error("the disk is full: {free} bytes are free where {kept} have to stay free")]
    DiskFull { free: u64, kept: u64 },
    #[error("memory for appends is used up")]
    Busy,
    #[error(
        "not durable within the time the producer gave; the records may be stored all the same"
    )]
    TimedOut,
    #[error("the broker is stopping")]
    Stopping,
}

impl PartitionError {
    /// How a batch that failed its checks is refused.
    pub fn from_batch(error: BatchError) -> PartitionError {
        match error {
            BatchError::Count { .. } => {
                PartitionError::InvalidRecord("record count and last offset delta differ")
            }
            BatchError::Producer(_) => {
                PartitionError::InvalidRecord("producer id without epoch or sequence")
            }
            BatchError::Magic(_) => {
                PartitionError::InvalidRecord("record format (magic) other than 2")
            }
            BatchError::Records(why) => PartitionError::InvalidRecord(why),
            BatchError::Codec(_) => PartitionError::UnsupportedCompression,
            // Which attributes they are decides what the client is told.
            BatchError::Attributes(_)
            | BatchError::Short { .. }
            | BatchError::Length(_)
            | BatchError::Crc => PartitionError::Corrupt(error),
        }
    }
}
