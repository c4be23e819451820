//! Owns the DeleteTopics request (key 20) and its response, versions 1 to 6.
//! Does not know topics.
//! Keeps: names up to version 5 and names or ids from 6 on are two fields, as on the wire.
use uuid::Uuid;

use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Topics to delete.
    pub struct DeleteTopicsRequest, versions 1..=6, flexible 4 {
        /// By name or id, from version 6 on.
        topics: Vec<DeleteTopicState> => 6..;
        /// By name, up to version 5.
        topic_names: Vec<Str> => 1..=5 else drop;
        timeout_ms: i32 => 1..;
    }
}

wire_struct! {
    /// A topic to delete: by name, or by id if the name is null.
    pub struct DeleteTopicState, versions 1..=6, flexible 4 {
        name: Option<Str> => 6..;
        topic_id: Uuid => 6..;
    }
}

wire_struct! {
    /// What became of each topic.
    pub struct DeleteTopicsResponse, versions 1..=6, flexible 4 {
        throttle_time_ms: i32 => 1..;
        responses: Vec<DeletableTopicResult> => 1..;
    }
}

wire_struct! {
    /// What became of one topic.
    pub struct DeletableTopicResult, versions 1..=6, flexible 4 {
        /// Null only for an id that is unknown.
        name: Option<Str> => 1.. null 6..;
        topic_id: Uuid => 6.. else drop;
        error_code: i16 => 1..;
        error_message: Option<Str> => 5.. else drop;
    }
}

wire_api!(DeleteTopics, DeleteTopicsRequest, DeleteTopicsResponse);
