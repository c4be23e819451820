//! Owns the OffsetDelete request (key 47) and its response, version 0.
//! Does not know groups, nor which topics exist.
//! Keeps: version 0 has fixed lengths and the old header, although keys of its age are flexible.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Forgets how far a group has read.
    pub struct OffsetDeleteRequest, versions 0..=0, flexible 1 {
        group_id: Str => 0..;
        topics: Vec<OffsetDeleteRequestTopic> => 0..;
    }
}

wire_struct! {
    /// Partitions of one topic.
    pub struct OffsetDeleteRequestTopic, versions 0..=0, flexible 1 {
        name: Str => 0..;
        partitions: Vec<OffsetDeleteRequestPartition> => 0..;
    }
}

wire_struct! {
    /// One partition.
    pub struct OffsetDeleteRequestPartition, versions 0..=0, flexible 1 {
        partition_index: i32 => 0..;
    }
}

wire_struct! {
    /// What became of each offset.
    pub struct OffsetDeleteResponse, versions 0..=0, flexible 1 {
        /// Of the group as a whole; without topics then.
        error_code: i16 => 0..;
        throttle_time_ms: i32 => 0..;
        topics: Vec<OffsetDeleteResponseTopic> => 0..;
    }
}

wire_struct! {
    /// What became of the offsets in one topic.
    pub struct OffsetDeleteResponseTopic, versions 0..=0, flexible 1 {
        name: Str => 0..;
        partitions: Vec<OffsetDeleteResponsePartition> => 0..;
    }
}

wire_struct! {
    /// What became of the offset in one partition.
    pub struct OffsetDeleteResponsePartition, versions 0..=0, flexible 1 {
        partition_index: i32 => 0..;
        error_code: i16 => 0..;
    }
}

wire_api!(OffsetDelete, OffsetDeleteRequest, OffsetDeleteResponse);
