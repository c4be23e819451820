//! Owns the DeleteShareGroupOffsets request (key 92) and its response, version 0.
//! Does not know groups.
//! Keeps: each topic has its own error.
use uuid::Uuid;

use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Has a group forget where it was in topics.
    pub struct DeleteShareGroupOffsetsRequest, versions 0..=0, flexible 0 {
        group_id: Str => 0..;
        topics: Vec<DeleteShareOffsetsTopic> => 0..;
    }
}

wire_struct! {
    /// A topic.
    pub struct DeleteShareOffsetsTopic, versions 0..=0, flexible 0 {
        topic_name: Str => 0..;
    }
}

wire_struct! {
    /// What came of that.
    pub struct DeleteShareGroupOffsetsResponse, versions 0..=0, flexible 0 {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
        responses: Vec<DeletedShareOffsetsTopic> => 0..;
    }
}

wire_struct! {
    /// A topic.
    pub struct DeletedShareOffsetsTopic, versions 0..=0, flexible 0 {
        topic_name: Str => 0..;
        topic_id: Uuid => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
    }
}

wire_api!(
    DeleteShareGroupOffsets,
    DeleteShareGroupOffsetsRequest,
    DeleteShareGroupOffsetsResponse
);
