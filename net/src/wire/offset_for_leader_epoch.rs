//! Owns the OffsetForLeaderEpoch request (key 23) and its response, versions 2 to 4.
//! Does not know any epoch history.
//! Keeps: undefined epochs and offsets are -1.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks where leader epochs end.
    pub struct OffsetForLeaderEpochRequest, versions 2..=4, flexible 4 {
        /// -1 for consumers, -2 for debugging.
        replica_id: i32 => 3.. else drop = -2;
        topics: Vec<OffsetForLeaderTopic> => 2..;
    }
}

wire_struct! {
    /// Epochs asked for in one topic.
    pub struct OffsetForLeaderTopic, versions 2..=4, flexible 4 {
        topic: Str => 2..;
        partitions: Vec<OffsetForLeaderPartition> => 2..;
    }
}

wire_struct! {
    /// The epoch asked for in one partition.
    pub struct OffsetForLeaderPartition, versions 2..=4, flexible 4 {
        partition: i32 => 2..;
        /// Epoch of the leader the client believes in; -1 skips the check.
        current_leader_epoch: i32 => 2.. = -1;
        leader_epoch: i32 => 2..;
    }
}

wire_struct! {
    /// Where the epochs end.
    pub struct OffsetForLeaderEpochResponse, versions 2..=4, flexible 4 {
        throttle_time_ms: i32 => 2..;
        topics: Vec<OffsetForLeaderTopicResult> => 2..;
    }
}

wire_struct! {
    /// Where epochs end in one topic.
    pub struct OffsetForLeaderTopicResult, versions 2..=4, flexible 4 {
        topic: Str => 2..;
        partitions: Vec<EpochEndOffset> => 2..;
    }
}

wire_struct! {
    /// The largest epoch not above the one asked for, and the offset after its last record.
    pub struct EpochEndOffset, versions 2..=4, flexible 4 {
        error_code: i16 => 2..;
        partition: i32 => 2..;
        leader_epoch: i32 => 2.. = -1;
        end_offset: i64 => 2.. = -1;
    }
}

wire_api!(
    OffsetForLeaderEpoch,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse
);
