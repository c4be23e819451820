//! Owns the TxnOffsetCommit request (key 28) and its response, versions 0 to 6.
//! Does not know groups, transactions, nor which topics exist.
//! Keeps: who the producer is in its group is said from version 3 on; before that nobody can be told apart.
//! From version 6 on topics go by their ids, not by their names.
use super::schema::{wire_api, wire_struct};
use super::values::Str;
use uuid::Uuid;

wire_struct! {
    /// Stores how far a group has read, once a transaction commits.
    pub struct TxnOffsetCommitRequest, versions 0..=6, flexible 3 {
        transactional_id: Str => 0..;
        group_id: Str => 0..;
        producer_id: i64 => 0..;
        producer_epoch: i16 => 0..;
        generation_id: i32 => 3.. = -1;
        member_id: Str => 3..;
        group_instance_id: Option<Str> => 3..;
        topics: Vec<TxnOffsetCommitRequestTopic> => 0..;
    }
}

wire_struct! {
    /// Offsets in one topic.
    pub struct TxnOffsetCommitRequestTopic, versions 0..=6, flexible 3 {
        name: Str => 0..=5 else drop;
        topic_id: Uuid => 6.. else drop;
        partitions: Vec<TxnOffsetCommitRequestPartition> => 0..;
    }
}

wire_struct! {
    /// The offset to go on from in one partition.
    pub struct TxnOffsetCommitRequestPartition, versions 0..=6, flexible 3 {
        partition_index: i32 => 0..;
        committed_offset: i64 => 0..;
        /// Of the last record read; -1 if unknown.
        committed_leader_epoch: i32 => 2.. else drop = -1;
        /// Whatever the client wants to keep with it.
        committed_metadata: Option<Str> => 0..;
    }
}

wire_struct! {
    /// What became of each offset.
    pub struct TxnOffsetCommitResponse, versions 0..=6, flexible 3 {
        throttle_time_ms: i32 => 0..;
        topics: Vec<TxnOffsetCommitResponseTopic> => 0..;
    }
}

wire_struct! {
    /// What became of the offsets in one topic.
    pub struct TxnOffsetCommitResponseTopic, versions 0..=6, flexible 3 {
        name: Str => 0..=5 else drop;
        topic_id: Uuid => 6.. else drop;
        partitions: Vec<TxnOffsetCommitResponsePartition> => 0..;
    }
}

wire_struct! {
    /// What became of the offset in one partition.
    pub struct TxnOffsetCommitResponsePartition, versions 0..=6, flexible 3 {
        partition_index: i32 => 0..;
        error_code: i16 => 0..;
    }
}

wire_api!(
    TxnOffsetCommit,
    TxnOffsetCommitRequest,
    TxnOffsetCommitResponse
);
