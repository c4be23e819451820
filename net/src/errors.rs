//! Owns the translation of the engine's errors into Kafka's codes and messages.
//! Does not know which request an error belongs to.
//! Invariant: every match is exhaustive, so that a new engine error does not compile until its code is chosen.

use crate::wire::ErrorCode;
use millrace_engine::api::coord::GroupError;
use millrace_engine::api::meta::{ApplyError, ConfigError, MetaError};
use millrace_engine::api::share::ShareError;
use millrace_engine::api::txn::TxnError;
use millrace_engine::api::PartitionError;
use millrace_engine::types::batch::BatchError;

/// Code of an error on one partition.
pub(crate) fn partition(error: &PartitionError) -> ErrorCode {
    match error {
        PartitionError::Unknown => ErrorCode::UnknownTopicOrPartition,
        PartitionError::NotLeader => ErrorCode::NotLeaderOrFollower,
        PartitionError::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
        PartitionError::FencedEpoch { .. } => ErrorCode::FencedLeaderEpoch,
        PartitionError::UnknownEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
        PartitionError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        PartitionError::Corrupt(error) => batch(error),
        PartitionError::InvalidRecord(_) => ErrorCode::InvalidRecord,
        PartitionError::UnsupportedCompression => ErrorCode::UnsupportedCompressionType,
        PartitionError::InvalidTimestamp { .. } => ErrorCode::InvalidTimestamp,
        PartitionError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        PartitionError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        PartitionError::ProducerFenced { .. } => ErrorCode::InvalidProducerEpoch,
        PartitionError::DuplicateSequence { .. } => ErrorCode::DuplicateSequenceNumber,
        PartitionError::InvalidTxnState { .. } => ErrorCode::InvalidTxnState,
        PartitionError::Policy(_) => ErrorCode::PolicyViolation,
        PartitionError::InvalidRequest(_) => ErrorCode::InvalidRequest,
        // The client tries again, for as long as it has patience: it is the code for a disk that fails, and for a full one.
        PartitionError::Storage(_) | PartitionError::DiskFull { .. } => {
            ErrorCode::KafkaStorageError
        }
        // Retriable and without a metadata refresh: the same broker is the right one.
        PartitionError::Busy | PartitionError::TimedOut => ErrorCode::RequestTimedOut,
        // Retriable with a metadata refresh, which finds whoever leads after this broker.
        PartitionError::Stopping => ErrorCode::NotLeaderOrFollower,
    }
}

fn batch(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::Short { .. } | BatchError::Length(_) | BatchError::Crc => {
            ErrorCode::CorruptMessage
        }
        BatchError::Magic(_) => ErrorCode::UnsupportedForMessageFormat,
        BatchError::Codec(_) => ErrorCode::UnsupportedCompressionType,
        // A client may not say that the broker stamped its batch.
        BatchError::Attributes(attributes)
            if attributes & !CLIENT_ATTRIBUTES == LOG_APPEND_TIME =>
        {
            ErrorCode::InvalidTimestamp
        }
        BatchError::Count { .. }
        | BatchError::Attributes(_)
        | BatchError::Producer(_)
        | BatchError::Records(_) => ErrorCode::InvalidRecord,
    }
}

/// Attribute bits of a batch: those a client may set (codec and transaction), and the timestamp type.
const CLIENT_ATTRIBUTES: i16 = 0b0001_0111;
const LOG_APPEND_TIME: i16 = 0b1000;

/// Code of a change of the metadata that was not made.
pub(crate) fn meta(error: &MetaError) -> ErrorCode {
    match error {
        MetaError::Refused(error) => apply(error),
        MetaError::TooLarge { .. } => ErrorCode::InvalidRequest,
        MetaError::DiskFull { .. } => ErrorCode::KafkaStorageError,
        MetaError::NotLeader => ErrorCode::NotController,
        // The client asks another broker, or this one once it is back.
        MetaError::Closed => ErrorCode::BrokerNotAvailable,
        MetaError::Failed(_)
        | MetaError::Io { .. }
        | MetaError::Missing { .. }
        | MetaError::Old { .. }
        | MetaError::Damaged { .. }
        | MetaError::UnknownCommand { .. }
        | MetaError::Snapshot { .. } => ErrorCode::KafkaStorageError,
        MetaError::NewerVersion { .. } | MetaError::WrongNode { .. } | MetaError::Raft(_) => {
            ErrorCode::UnknownServerError
        }
        MetaError::Config(error) => config(error),
    }
}

fn apply(error: &ApplyError) -> ErrorCode {
    match error {
        ApplyError::TopicExists(_) => ErrorCode::TopicAlreadyExists,
        // Handlers find topics by name first: this one was deleted meanwhile.
        ApplyError::UnknownTopic(_) => ErrorCode::UnknownTopicOrPartition,
        ApplyError::InvalidTopicId(_) => ErrorCode::InvalidRequest,
        ApplyError::InvalidTopicName(_) => ErrorCode::InvalidTopicException,
        ApplyError::InvalidPartitions(_) => ErrorCode::InvalidPartitions,
        ApplyError::InvalidReplicationFactor(_) => ErrorCode::InvalidReplicationFactor,
        ApplyError::InvalidAssignment(_) => ErrorCode::InvalidReplicaAssignment,
        ApplyError::InvalidConfig(error) => config(error),
        ApplyError::InvalidGroup => ErrorCode::InvalidRequest,
        ApplyError::UnknownNode(_) => ErrorCode::BrokerIdNotRegistered,
        ApplyError::InvalidRegistration(_) => ErrorCode::InvalidRegistration,
        ApplyError::InvalidProducerIdCount => ErrorCode::InvalidRequest,
        ApplyError::ProducerIdsExhausted => ErrorCode::UnknownServerError,
        ApplyError::Limit { .. } => ErrorCode::PolicyViolation,
    }
}

fn config(error: &ConfigError) -> ErrorCode {
    match error {
        ConfigError::UnknownTopicConfig(_)
        | ConfigError::UnknownGroupConfig(_)
        | ConfigError::Invalid { .. }
        | ConfigError::Conflict(_)
        | ConfigError::NotAList { .. }
        | ConfigError::Limit { .. } => ErrorCode::InvalidConfig,
        ConfigError::UnknownBrokerConfig(_)
        | ConfigError::ReadOnly(_)
        | ConfigError::PerBrokerOnly(_)
        | ConfigError::DuplicateName(_) => ErrorCode::InvalidRequest,
    }
}

/// Code of what a coordinator refuses.
pub(crate) fn group(error: GroupError) -> ErrorCode {
    match error {
        // Clients look for the coordinator again, for as long as they have patience.
        GroupError::NotAvailable => ErrorCode::CoordinatorNotAvailable,
        GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupError::GroupIdNotFound => ErrorCode::GroupIdNotFound,
        GroupError::NonEmptyGroup => ErrorCode::NonEmptyGroup,
        GroupError::GroupMaxSizeReached => ErrorCode::GroupMaxSizeReached,
        GroupError::GroupSubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        GroupError::UnknownMemberId => ErrorCode::UnknownMemberId,
        GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
        GroupError::FencedInstanceId => ErrorCode::FencedInstanceId,
        GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupError::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        GroupError::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
        GroupError::InvalidCommitOffsetSize => ErrorCode::InvalidCommitOffsetSize,
        GroupError::UnknownTopicOrPartition => ErrorCode::UnknownTopicOrPartition,
        // Trying again would change nothing, and Kafka has no name for it.
        GroupError::RecordTooLarge => ErrorCode::UnknownServerError,
        GroupError::UnstableOffsetCommit => ErrorCode::UnstableOffsetCommit,
        GroupError::StaleMemberEpoch => ErrorCode::StaleMemberEpoch,
        GroupError::FencedMemberEpoch => ErrorCode::FencedMemberEpoch,
        GroupError::UnreleasedInstanceId => ErrorCode::UnreleasedInstanceId,
        GroupError::UnsupportedAssignor => ErrorCode::UnsupportedAssignor,
        GroupError::InvalidRegularExpression => ErrorCode::InvalidRegularExpression,
        GroupError::Txn(error) => txn(error),
    }
}

/// Code of what is refused of a share group.
pub(crate) fn share(error: &ShareError) -> ErrorCode {
    match error {
        // Clients look for the coordinator again, for as long as they have patience.
        ShareError::NotAvailable => ErrorCode::CoordinatorNotAvailable,
        ShareError::GroupIdNotFound => ErrorCode::GroupIdNotFound,
        ShareError::NonEmptyGroup => ErrorCode::NonEmptyGroup,
        ShareError::GroupMaxSizeReached => ErrorCode::GroupMaxSizeReached,
        ShareError::UnknownMemberId => ErrorCode::UnknownMemberId,
        ShareError::FencedMemberEpoch => ErrorCode::FencedMemberEpoch,
        ShareError::InvalidRequest(_) => ErrorCode::InvalidRequest,
        ShareError::UnknownTopicOrPartition => ErrorCode::UnknownTopicOrPartition,
        ShareError::InvalidRecordState => ErrorCode::InvalidRecordState,
        ShareError::FencedStateEpoch => ErrorCode::FencedStateEpoch,
        ShareError::Partition(error) => partition(error),
    }
}

/// The same where a member reads: of coordinators it knows nothing there, and asks again after these codes.
pub(crate) fn share_partition(error: &ShareError) -> ErrorCode {
    match error {
        ShareError::NotAvailable => ErrorCode::KafkaStorageError,
        ShareError::FencedStateEpoch => ErrorCode::NotLeaderOrFollower,
        ShareError::GroupIdNotFound
        | ShareError::NonEmptyGroup
        | ShareError::GroupMaxSizeReached
        | ShareError::UnknownMemberId
        | ShareError::FencedMemberEpoch
        | ShareError::InvalidRequest(_)
        | ShareError::UnknownTopicOrPartition
        | ShareError::InvalidRecordState
        | ShareError::Partition(_) => share(error),
    }
}

/// Code of what a transaction coordinator refuses.
pub(crate) fn txn(error: TxnError) -> ErrorCode {
    match error {
        // Clients look for the coordinator again, for as long as they have patience.
        TxnError::NotAvailable => ErrorCode::CoordinatorNotAvailable,
        TxnError::InvalidRequest => ErrorCode::InvalidRequest,
        TxnError::InvalidTimeout => ErrorCode::InvalidTransactionTimeout,
        TxnError::ConcurrentTransactions => ErrorCode::ConcurrentTransactions,
        TxnError::InvalidTxnState => ErrorCode::InvalidTxnState,
        TxnError::ProducerFenced => ErrorCode::ProducerFenced,
        TxnError::InvalidProducerIdMapping => ErrorCode::InvalidProducerIdMapping,
        TxnError::TransactionAbortable => ErrorCode::TransactionAbortable,
        TxnError::NotFound => ErrorCode::TransactionalIdNotFound,
        // Kafka has no such limit, and trying again would change nothing.
        TxnError::TooManyPartitions => ErrorCode::PolicyViolation,
        TxnError::RecordTooLarge => ErrorCode::UnknownServerError,
    }
}

/// The same for a request whose version may not know PRODUCER_FENCED: what its clients know says as much.
pub(crate) fn txn_knowing(error: TxnError, knows_fenced: bool) -> ErrorCode {
    match txn(error) {
        ErrorCode::ProducerFenced if !knows_fenced => ErrorCode::InvalidProducerEpoch,
        code => code,
    }
}

/// Code of what a coordinator did or refused.
pub(crate) fn result(result: Result<(), GroupError>) -> ErrorCode {
    result.map_or_else(group, |()| ErrorCode::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_retry_can_cure_is_retriable_and_what_it_cannot_is_not() {
        let check = |error: PartitionError, expected: i16| {
            assert_eq!(partition(&error).code(), expected, "{error}");
        };
        check(PartitionError::Unknown, 3);
        check(PartitionError::NotLeader, 6);
        check(PartitionError::NotEnoughReplicas { have: 1, need: 2 }, 19);
        check(PartitionError::FencedEpoch { theirs: 1, ours: 2 }, 74);
        check(PartitionError::UnknownEpoch { theirs: 3, ours: 2 }, 75);
        check(
            PartitionError::OffsetOutOfRange {
                wanted: 9,
                log_start: 0,
                end: 3,
            },
            1,
        );
        check(PartitionError::Corrupt(BatchError::Crc), 2);
        check(PartitionError::Corrupt(BatchError::Magic(1)), 43);
        check(PartitionError::Corrupt(BatchError::Codec(7)), 76);
        check(PartitionError::Corrupt(BatchError::Attributes(32)), 87);
        check(PartitionError::Corrupt(BatchError::Attributes(8 | 2)), 32);
        check(PartitionError::Corrupt(BatchError::Attributes(8 | 32)), 87);
        check(PartitionError::InvalidRecord("no key"), 87);
        check(PartitionError::UnsupportedCompression, 76);
        check(PartitionError::InvalidTimestamp { timestamp_ms: 1 }, 32);
        check(PartitionError::TooLarge { size: 2, max: 1 }, 10);
        check(
            PartitionError::OutOfOrderSequence {
                producer_id: 1,
                got: 5,
                expected: 3,
            },
            45,
        );
        check(
            PartitionError::ProducerFenced {
                producer_id: 1,
                got: 0,
                current: 1,
            },
            47,
        );
        check(
            PartitionError::DuplicateSequence {
                producer_id: 1,
                got: 0,
            },
            46,
        );
        check(PartitionError::InvalidTxnState { producer_id: 1 }, 48);
        check(PartitionError::Policy("compacted"), 44);
        check(PartitionError::InvalidRequest("x"), 42);
        check(PartitionError::Storage("EIO".into()), 56);
        check(PartitionError::DiskFull { free: 1, kept: 2 }, 56);
        check(PartitionError::Busy, 7);
        check(PartitionError::TimedOut, 7);
        check(PartitionError::Stopping, 6);
    }

    #[test]
    fn what_a_coordinator_refuses_has_kafkas_codes() {
        let all = [
            (GroupError::NotAvailable, 15),
            (GroupError::InvalidGroupId, 24),
            (GroupError::GroupIdNotFound, 69),
            (GroupError::NonEmptyGroup, 68),
            (GroupError::GroupMaxSizeReached, 81),
            (GroupError::GroupSubscribedToTopic, 86),
            (GroupError::UnknownMemberId, 25),
            (GroupError::MemberIdRequired, 79),
            (GroupError::FencedInstanceId, 82),
            (GroupError::IllegalGeneration, 22),
            (GroupError::RebalanceInProgress, 27),
            (GroupError::InconsistentGroupProtocol, 23),
            (GroupError::InvalidSessionTimeout, 26),
            (GroupError::OffsetMetadataTooLarge, 12),
            (GroupError::InvalidCommitOffsetSize, 28),
            (GroupError::UnknownTopicOrPartition, 3),
            (GroupError::RecordTooLarge, -1),
            (GroupError::UnstableOffsetCommit, 88),
            (GroupError::StaleMemberEpoch, 113),
            (GroupError::FencedMemberEpoch, 110),
            (GroupError::UnreleasedInstanceId, 111),
            (GroupError::UnsupportedAssignor, 112),
            (GroupError::InvalidRegularExpression, 128),
            (GroupError::Txn(TxnError::NotAvailable), 15),
            (GroupError::Txn(TxnError::InvalidRequest), 42),
            (GroupError::Txn(TxnError::InvalidTimeout), 50),
            (GroupError::Txn(TxnError::ConcurrentTransactions), 51),
            (GroupError::Txn(TxnError::InvalidTxnState), 48),
            (GroupError::Txn(TxnError::ProducerFenced), 90),
            (GroupError::Txn(TxnError::InvalidProducerIdMapping), 49),
            (GroupError::Txn(TxnError::TransactionAbortable), 120),
            (GroupError::Txn(TxnError::NotFound), 105),
            (GroupError::Txn(TxnError::TooManyPartitions), 44),
            (GroupError::Txn(TxnError::RecordTooLarge), -1),
        ];
        for (error, code) in all {
            assert_eq!(result(Err(error)).code(), code, "{error}");
        }
        let fenced = |knows| txn_knowing(TxnError::ProducerFenced, knows).code();
        assert_eq!((fenced(true), fenced(false)), (90, 47));
        assert_eq!(result(Ok(())), ErrorCode::None);
    }
}
