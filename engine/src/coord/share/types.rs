//! Owns what the layer above asks of share groups and what it hears back: plain structs and one closed error.
//! Does not know Kafka's request schemas or error codes, nor how a group works.
//! Invariant: times are milliseconds, epochs and offsets are Kafka's numbers; ranges of offsets include both ends.

use crate::coord::GroupError;
use crate::error::PartitionError;
use crate::types::{Offset, PartitionId, TopicId};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Partitions by topic.
pub type Partitions = BTreeMap<TopicId, Vec<i32>>;

/// Why something of a share group is refused; the layer above gives each its Kafka code.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ShareError {
    #[error("the broker is stopping, or its storage refuses writes")]
    NotAvailable,
    #[error("the group is not known, or is no share group")]
    GroupIdNotFound,
    #[error("the group has members")]
    NonEmptyGroup,
    #[error("the group is as large as it may become")]
    GroupMaxSizeReached,
    #[error("the member is not known")]
    UnknownMemberId,
    #[error("the member's epoch is not the one it was given")]
    FencedMemberEpoch,
    #[error("{0}")]
    InvalidRequest(&'static str),
    #[error("the topic or partition is not known")]
    UnknownTopicOrPartition,
    #[error("a record is not with this member")]
    InvalidRecordState,
    #[error("the state was made anew meanwhile")]
    FencedStateEpoch,
    #[error("{0}")]
    Partition(PartitionError),
}

impl From<GroupError> for ShareError {
    /// Of what a log answers, and of what is looked for before.
    fn from(error: GroupError) -> ShareError {
        match error {
            GroupError::GroupIdNotFound => ShareError::GroupIdNotFound,
            GroupError::NonEmptyGroup => ShareError::NonEmptyGroup,
            _ => ShareError::NotAvailable,
        }
    }
}

/// ShareGroupHeartbeat.
#[derive(Clone, Debug)]
pub struct ShareHeartbeat {
    pub group: String,
    pub member: String,
    /// 0 joins, -1 leaves.
    pub epoch: i32,
    pub rack: Option<String>,
    /// None where it did not change.
    pub topics: Option<Vec<String>>,
    pub client_id: String,
    /// As Kafka shows it: `/127.0.0.1`.
    pub client_host: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShareHeard {
    pub epoch: i32,
    pub heartbeat_interval_ms: i32,
    /// None where the member knows it already.
    pub assignment: Option<Partitions>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedShareMember {
    pub member: String,
    pub rack: Option<String>,
    pub epoch: i32,
    pub client_id: String,
    pub client_host: String,
    pub topics: Vec<String>,
    pub assignment: Partitions,
}

/// Answer to ShareGroupDescribe of one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedShareGroup {
    /// `Empty` or `Stable`.
    pub state: &'static str,
    pub epoch: i32,
    pub assignment_epoch: i32,
    pub members: Vec<DescribedShareMember>,
}

/// What a member says of records it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckType {
    /// There is no record at this offset.
    Gap,
    Accept,
    Release,
    Reject,
    /// Not done yet: the lock begins anew.
    Renew,
}

impl AckType {
    /// By Kafka's number.
    pub const fn of_code(code: i8) -> Option<AckType> {
        match code {
            0 => Some(AckType::Gap),
            1 => Some(AckType::Accept),
            2 => Some(AckType::Release),
            3 => Some(AckType::Reject),
            4 => Some(AckType::Renew),
            _ => None,
        }
    }
}

/// Acknowledgement of some records that follow each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AckBatch {
    pub first: Offset,
    pub last: Offset,
    /// One for all, or one for each offset.
    pub types: Vec<AckType>,
}

/// Acknowledgements of one partition.
#[derive(Clone, Debug)]
pub struct ShareAck {
    pub partition: PartitionId,
    pub batches: Vec<AckBatch>,
}

/// Records that a member was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acquired {
    pub first: Offset,
    pub last: Offset,
    /// How often they were given to anybody, this time included.
    pub delivery_count: i16,
}

/// What a member wants of the partitions of its session.
#[derive(Clone, Debug)]
pub struct ShareFetchAsked {
    pub group: String,
    pub member: String,
    pub partitions: Vec<PartitionId>,
    pub max_wait_ms: u64,
    pub max_bytes: usize,
    pub max_records: usize,
    /// Not one record more than `max_records`, where batches might be given as a whole.
    pub strict: bool,
}

/// What a member was given of one partition.
#[derive(Clone, Default, Debug)]
pub struct ShareFetched {
    pub acquired: Vec<Acquired>,
    /// Whole batches; records in them that were not acquired are not the member's.
    pub records: Bytes,
}

/// Where a share group is in a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShareOffset {
    /// -1 where nothing was begun.
    pub start: Offset,
    pub leader_epoch: i32,
    /// Records not yet done; -1 where it is not known.
    pub lag: i64,
}
