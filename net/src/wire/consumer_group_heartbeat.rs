//! Owns the ConsumerGroupHeartbeat request (key 68) and its response, versions 0 and 1.
//! Does not know groups, nor which topics exist.
//! Keeps: what a member does not say again is null, which differs from empty.
use uuid::Uuid;

use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// A member joins a group, stays in it or leaves it.
    pub struct ConsumerGroupHeartbeatRequest, versions 0..=1, flexible 0 {
        group_id: Str => 0..;
        member_id: Str => 0..;
        /// 0 joins, -1 leaves, -2 leaves to come back soon.
        member_epoch: i32 => 0..;
        instance_id: Option<Str> => 0..;
        rack_id: Option<Str> => 0..;
        /// -1 where it is as before; milliseconds.
        rebalance_timeout_ms: i32 => 0.. = -1;
        subscribed_topic_names: Option<Vec<Str>> => 0..;
        subscribed_topic_regex: Option<Str> => 1..;
        server_assignor: Option<Str> => 0..;
        /// What the member holds.
        topic_partitions: Option<Vec<TopicPartitions>> => 0..;
    }
}

wire_struct! {
    /// Partitions of one topic.
    pub struct TopicPartitions, versions 0..=1, flexible 0 {
        topic_id: Uuid => 0..;
        partitions: Vec<i32> => 0..;
    }
}

wire_struct! {
    /// Where the member is, and what it should hold.
    pub struct ConsumerGroupHeartbeatResponse, versions 0..=1, flexible 0 {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
        member_id: Option<Str> => 0..;
        member_epoch: i32 => 0..;
        heartbeat_interval_ms: i32 => 0..;
        /// Null where it is as the member knows it.
        assignment: Option<Assignment> => 0..;
    }
}

wire_struct! {
    /// What a member should hold.
    pub struct Assignment, versions 0..=1, flexible 0 {
        topic_partitions: Vec<TopicPartitions> => 0..;
    }
}

wire_api!(
    ConsumerGroupHeartbeat,
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse
);
