//! Owns the OffsetFetch request (key 9) and its response, versions 1 to 10.
//! Does not know groups, nor which topics exist.
//! Keeps: one group up to version 7, many from 8 on; an answer in the wrong shape refuses to encode.
use uuid::Uuid;

use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks how far groups have read.
    pub struct OffsetFetchRequest, versions 1..=10, flexible 6 {
        /// The one group, up to version 7.
        group_id: Str => 1..=7;
        /// Of that group; null for all.
        topics: Option<Vec<OffsetFetchRequestTopic>> => 1..=7 null 2..;
        /// Many groups, from version 8 on.
        groups: Vec<OffsetFetchRequestGroup> => 8..;
        /// Whether offsets that a transaction may yet change are to be refused.
        require_stable: bool => 7..;
    }
}

wire_struct! {
    /// What is asked of one group.
    pub struct OffsetFetchRequestGroup, versions 1..=10, flexible 6 {
        group_id: Str => 8..;
        /// Only where the group has the protocol of KIP-848.
        member_id: Option<Str> => 9.. else drop;
        member_epoch: i32 => 9.. else drop = -1;
        /// Null for all.
        topics: Option<Vec<OffsetFetchRequestTopic>> => 8..;
    }
}

wire_struct! {
    /// Partitions of one topic, by name or, from version 10 on, by id.
    pub struct OffsetFetchRequestTopic, versions 1..=10, flexible 6 {
        name: Str => 1..=9 else drop;
        topic_id: Uuid => 10.. else drop;
        partition_indexes: Vec<i32> => 1..;
    }
}

wire_struct! {
    /// How far groups have read, or the only one up to version 7.
    pub struct OffsetFetchResponse, versions 1..=10, flexible 6 {
        throttle_time_ms: i32 => 3.. else drop;
        topics: Vec<OffsetFetchResponseTopic> => 1..=7;
        /// Of the group as a whole; in version 1 the partitions have it.
        error_code: i16 => 2..=7;
        groups: Vec<OffsetFetchResponseGroup> => 8..;
    }
}

wire_struct! {
    /// How far one group has read.
    pub struct OffsetFetchResponseGroup, versions 1..=10, flexible 6 {
        group_id: Str => 8..;
        topics: Vec<OffsetFetchResponseTopic> => 8..;
        error_code: i16 => 8..;
    }
}

wire_struct! {
    /// How far a group has read in one topic.
    pub struct OffsetFetchResponseTopic, versions 1..=10, flexible 6 {
        name: Str => 1..=9 else drop;
        topic_id: Uuid => 10.. else drop;
        partitions: Vec<OffsetFetchResponsePartition> => 1..;
    }
}

wire_struct! {
    /// How far a group has read in one partition; -1 if nothing was committed.
    pub struct OffsetFetchResponsePartition, versions 1..=10, flexible 6 {
        partition_index: i32 => 1..;
        committed_offset: i64 => 1..;
        committed_leader_epoch: i32 => 5.. else drop = -1;
        metadata: Option<Str> => 1..;
        error_code: i16 => 1..;
    }
}

wire_api!(OffsetFetch, OffsetFetchRequest, OffsetFetchResponse);
