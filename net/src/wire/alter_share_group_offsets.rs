//! Owns the AlterShareGroupOffsets request (key 91) and its response, version 0.
//! Does not know groups.
//! Keeps: each partition has its own error.
use uuid::Uuid;

use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Has a group begin elsewhere.
    pub struct AlterShareGroupOffsetsRequest, versions 0..=0, flexible 0 {
        group_id: Str => 0..;
        topics: Vec<AlterShareOffsetsTopic> => 0..;
    }
}

wire_struct! {
    /// A topic.
    pub struct AlterShareOffsetsTopic, versions 0..=0, flexible 0 {
        topic_name: Str => 0..;
        partitions: Vec<AlterShareOffset> => 0..;
    }
}

wire_struct! {
    /// A partition.
    pub struct AlterShareOffset, versions 0..=0, flexible 0 {
        partition_index: i32 => 0..;
        start_offset: i64 => 0..;
    }
}

wire_struct! {
    /// What came of that.
    pub struct AlterShareGroupOffsetsResponse, versions 0..=0, flexible 0 {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
        responses: Vec<AlteredShareOffsetsTopic> => 0..;
    }
}

wire_struct! {
    /// A topic.
    pub struct AlteredShareOffsetsTopic, versions 0..=0, flexible 0 {
        topic_name: Str => 0..;
        topic_id: Uuid => 0..;
        partitions: Vec<AlteredShareOffset> => 0..;
    }
}

wire_struct! {
    /// A partition.
    pub struct AlteredShareOffset, versions 0..=0, flexible 0 {
        partition_index: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
    }
}

wire_api!(
    AlterShareGroupOffsets,
    AlterShareGroupOffsetsRequest,
    AlterShareGroupOffsetsResponse
);
