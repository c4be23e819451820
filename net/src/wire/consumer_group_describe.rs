//! Owns the ConsumerGroupDescribe request (key 69) and its response, versions 0 and 1.
//! Does not know groups.
//! Keeps: which protocol a member speaks is left out where the version cannot carry it.
use uuid::Uuid;

use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Groups of the consumer protocol to describe.
    pub struct ConsumerGroupDescribeRequest, versions 0..=1, flexible 0 {
        group_ids: Vec<Str> => 0..;
        include_authorized_operations: bool => 0..;
    }
}

wire_struct! {
    /// The groups.
    pub struct ConsumerGroupDescribeResponse, versions 0..=1, flexible 0 {
        throttle_time_ms: i32 => 0..;
        groups: Vec<DescribedGroup> => 0..;
    }
}

wire_struct! {
    /// A group with its members.
    pub struct DescribedGroup, versions 0..=1, flexible 0 {
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
        group_id: Str => 0..;
        group_state: Str => 0..;
        group_epoch: i32 => 0..;
        assignment_epoch: i32 => 0..;
        assignor_name: Str => 0..;
        members: Vec<Member> => 0..;
        /// Bits of ACL operations; `i32::MIN` if not asked for.
        authorized_operations: i32 => 0.. = i32::MIN;
    }
}

wire_struct! {
    /// A member.
    pub struct Member, versions 0..=1, flexible 0 {
        member_id: Str => 0..;
        instance_id: Option<Str> => 0..;
        rack_id: Option<Str> => 0..;
        member_epoch: i32 => 0..;
        client_id: Str => 0..;
        client_host: Str => 0..;
        subscribed_topic_names: Vec<Str> => 0..;
        subscribed_topic_regex: Option<Str> => 0..;
        assignment: Assignment => 0..;
        target_assignment: Assignment => 0..;
        /// -1 where it is not known, 0 of the classic protocol, 1 of the consumer protocol.
        member_type: i8 => 1.. else drop = -1;
    }
}

wire_struct! {
    /// What a member holds, or should hold.
    pub struct Assignment, versions 0..=1, flexible 0 {
        topic_partitions: Vec<TopicPartitions> => 0..;
    }
}

wire_struct! {
    /// Partitions of one topic.
    pub struct TopicPartitions, versions 0..=1, flexible 0 {
        topic_id: Uuid => 0..;
        topic_name: Str => 0..;
        partitions: Vec<i32> => 0..;
    }
}

wire_api!(
    ConsumerGroupDescribe,
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse
);
