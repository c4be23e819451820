//! Owns the OffsetCommit request (key 8) and its response, versions 2 to 10.
//! Does not know groups, nor which topics exist.
//! Keeps: topics have names up to version 9 and ids from 10 on, never both.
use uuid::Uuid;

use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Stores how far a group has read.
    pub struct OffsetCommitRequest, versions 2..=10, flexible 8 {
        group_id: Str => 2..;
        /// -1 for a consumer that is no member of the group; an epoch where the group has the protocol of KIP-848.
        generation_id_or_member_epoch: i32 => 2.. = -1;
        member_id: Str => 2..;
        group_instance_id: Option<Str> => 7..;
        /// -1 for the broker's default.
        retention_time_ms: i64 => 2..=4 else drop = -1;
        topics: Vec<OffsetCommitRequestTopic> => 2..;
    }
}

wire_struct! {
    /// Offsets in one topic.
    pub struct OffsetCommitRequestTopic, versions 2..=10, flexible 8 {
        name: Str => 2..=9 else drop;
        topic_id: Uuid => 10.. else drop;
        partitions: Vec<OffsetCommitRequestPartition> => 2..;
    }
}

wire_struct! {
    /// The offset to go on from in one partition.
    pub struct OffsetCommitRequestPartition, versions 2..=10, flexible 8 {
        partition_index: i32 => 2..;
        committed_offset: i64 => 2..;
        /// Of the last record read; -1 if unknown.
        committed_leader_epoch: i32 => 6.. else drop = -1;
        /// Whatever the client wants to keep with it.
        committed_metadata: Option<Str> => 2..;
    }
}

wire_struct! {
    /// What became of each offset.
    pub struct OffsetCommitResponse, versions 2..=10, flexible 8 {
        throttle_time_ms: i32 => 3.. else drop;
        topics: Vec<OffsetCommitResponseTopic> => 2..;
    }
}

wire_struct! {
    /// What became of the offsets in one topic.
    pub struct OffsetCommitResponseTopic, versions 2..=10, flexible 8 {
        name: Str => 2..=9 else drop;
        topic_id: Uuid => 10.. else drop;
        partitions: Vec<OffsetCommitResponsePartition> => 2..;
    }
}

wire_struct! {
    /// What became of the offset in one partition.
    pub struct OffsetCommitResponsePartition, versions 2..=10, flexible 8 {
        partition_index: i32 => 2..;
        error_code: i16 => 2..;
    }
}

wire_api!(OffsetCommit, OffsetCommitRequest, OffsetCommitResponse);
