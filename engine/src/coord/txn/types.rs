//! Owns what the layer above asks of a transaction coordinator and what it hears back: plain structs and one closed error.
//! Does not know Kafka's request schemas or error codes, nor how a transaction goes.
//! Invariant: -1 stands for "none" where it does in Kafka; times are milliseconds of the wall's clock.

use super::super::types::GroupError;
use std::collections::{BTreeMap, BTreeSet};

/// Why a coordinator refuses; the layer above gives each its Kafka code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TxnError {
    #[error("the broker is stopping, or its storage refuses writes")]
    NotAvailable,
    #[error("the transactional id is empty or too long")]
    InvalidRequest,
    #[error("the transaction's timeout is not positive, or longer than the broker allows")]
    InvalidTimeout,
    #[error("the transaction before this one is not over yet")]
    ConcurrentTransactions,
    #[error("the transaction is not in a state in which this can be done")]
    InvalidTxnState,
    #[error("another producer took over the transactional id")]
    ProducerFenced,
    #[error("the producer id is not the one of the transactional id")]
    InvalidProducerIdMapping,
    #[error("the partition is not in the transaction, which can only be aborted")]
    TransactionAbortable,
    #[error("the transactional id is not known")]
    NotFound,
    #[error("the transaction has as many partitions as it may have")]
    TooManyPartitions,
    #[error("the transaction is larger than a batch may be")]
    RecordTooLarge,
}

impl From<GroupError> for TxnError {
    /// Of what a log answers.
    fn from(error: GroupError) -> TxnError {
        match error {
            GroupError::RecordTooLarge => TxnError::RecordTooLarge,
            GroupError::NotAvailable
            | GroupError::InvalidGroupId
            | GroupError::GroupIdNotFound
            | GroupError::NonEmptyGroup
            | GroupError::GroupMaxSizeReached
            | GroupError::GroupSubscribedToTopic
            | GroupError::UnknownMemberId
            | GroupError::MemberIdRequired
            | GroupError::FencedInstanceId
            | GroupError::IllegalGeneration
            | GroupError::RebalanceInProgress
            | GroupError::InconsistentGroupProtocol
            | GroupError::InvalidSessionTimeout
            | GroupError::OffsetMetadataTooLarge
            | GroupError::InvalidCommitOffsetSize
            | GroupError::UnknownTopicOrPartition
            | GroupError::UnstableOffsetCommit
            | GroupError::StaleMemberEpoch
            | GroupError::FencedMemberEpoch
            | GroupError::UnreleasedInstanceId
            | GroupError::UnsupportedAssignor
            | GroupError::InvalidRegularExpression
            | GroupError::Txn(_) => TxnError::NotAvailable,
        }
    }
}

/// A producer, as its batches name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
}

impl Producer {
    pub const NONE: Producer = Producer { id: -1, epoch: -1 };
}

/// Partitions by the names of their topics.
pub type TopicPartitions = BTreeMap<String, BTreeSet<i32>>;

/// InitProducerId of a transactional producer.
#[derive(Clone, Debug)]
pub struct InitProducer {
    pub transactional_id: String,
    pub timeout_ms: i32,
    /// What the producer was before, where it wants to go on after an error.
    pub expected: Option<Producer>,
}

/// Who does something in a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TxnOf {
    pub transactional_id: String,
    pub producer: Producer,
}

/// AddPartitionsToTxn, or what a batch of a newer client stands for.
#[derive(Clone, Debug)]
pub struct AddPartitions {
    pub of: TxnOf,
    pub partitions: TopicPartitions,
    /// Level of `transaction.version` by which the client works.
    pub version: i16,
}

/// EndTxn.
#[derive(Clone, Debug)]
pub struct EndTxn {
    pub of: TxnOf,
    pub commit: bool,
    /// Level of `transaction.version` by which the client works: from 2 on each end bumps the epoch.
    pub version: i16,
}

/// What a batch of a transaction means for its partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Membership {
    /// The batch itself adds its partition to the transaction, at this level of `transaction.version`.
    Add(i16),
    /// The partition has to be in the transaction already.
    Verify,
}

/// State of a transactional id by Kafka's names and numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TxnState {
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
    /// About to be forgotten; here that is one step, so that nobody sees it.
    Dead,
    /// About to be aborted for somebody else; here that is one step, so that nobody sees it.
    PrepareEpochFence,
}

impl TxnState {
    pub const ALL: [TxnState; 8] = [
        TxnState::Empty,
        TxnState::Ongoing,
        TxnState::PrepareCommit,
        TxnState::PrepareAbort,
        TxnState::CompleteCommit,
        TxnState::CompleteAbort,
        TxnState::Dead,
        TxnState::PrepareEpochFence,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            TxnState::Empty => "Empty",
            TxnState::Ongoing => "Ongoing",
            TxnState::PrepareCommit => "PrepareCommit",
            TxnState::PrepareAbort => "PrepareAbort",
            TxnState::CompleteCommit => "CompleteCommit",
            TxnState::CompleteAbort => "CompleteAbort",
            TxnState::Dead => "Dead",
            TxnState::PrepareEpochFence => "PrepareEpochFence",
        }
    }

    /// The number that stands for it in a record.
    pub const fn code(self) -> i8 {
        self as i8
    }

    /// Whether markers are on their way.
    pub const fn is_prepared(self) -> bool {
        matches!(self, TxnState::PrepareCommit | TxnState::PrepareAbort)
    }
}

/// One line of ListTransactions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedTxn {
    pub transactional_id: String,
    pub producer_id: i64,
    pub state: TxnState,
    /// -1 where nothing was begun yet.
    pub started_ms: i64,
}

/// Answer to DescribeTransactions of one id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedTxn {
    pub state: TxnState,
    pub producer: Producer,
    pub timeout_ms: i32,
    /// -1 where nothing was begun yet.
    pub started_ms: i64,
    pub partitions: TopicPartitions,
}
