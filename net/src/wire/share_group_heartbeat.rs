//! Owns the ShareGroupHeartbeat request (key 76) and its response, version 1.
//! Does not know members or epochs.
//! Keeps: an assignment that is not told is null, which is another thing than an empty one.
use uuid::Uuid;

use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// A member of a share group joins (epoch 0), goes on, or leaves (-1).
    pub struct ShareGroupHeartbeatRequest, versions 1..=1, flexible 0 {
        group_id: Str => 1..;
        member_id: Str => 1..;
        member_epoch: i32 => 1..;
        /// Null where it did not change.
        rack_id: Option<Str> => 1..;
        /// Null where it did not change.
        subscribed_topic_names: Option<Vec<Str>> => 1..;
    }
}

wire_struct! {
    /// What the member has from now on.
    pub struct ShareGroupHeartbeatResponse, versions 1..=1, flexible 0 {
        throttle_time_ms: i32 => 1..;
        error_code: i16 => 1..;
        error_message: Option<Str> => 1..;
        member_id: Option<Str> => 1..;
        member_epoch: i32 => 1..;
        heartbeat_interval_ms: i32 => 1..;
        /// Null where the member knows it.
        assignment: Option<ShareAssignment> => 1..;
    }
}

wire_struct! {
    /// The partitions of a member.
    pub struct ShareAssignment, versions 1..=1, flexible 0 {
        topic_partitions: Vec<ShareTopicPartitions> => 1..;
    }
}

wire_struct! {
    /// Of one topic.
    pub struct ShareTopicPartitions, versions 1..=1, flexible 0 {
        topic_id: Uuid => 1..;
        partitions: Vec<i32> => 1..;
    }
}

wire_api!(
    ShareGroupHeartbeat,
    ShareGroupHeartbeatRequest,
    ShareGroupHeartbeatResponse
);
