//! Owns the ShareGroupDescribe request (key 77) and its response, version 1.
//! Does not know groups.
//! Keeps: every group has its own error.
use uuid::Uuid;

use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Share groups to describe.
    pub struct ShareGroupDescribeRequest, versions 1..=1, flexible 0 {
        group_ids: Vec<Str> => 1..;
        include_authorized_operations: bool => 1..;
    }
}

wire_struct! {
    /// The groups.
    pub struct ShareGroupDescribeResponse, versions 1..=1, flexible 0 {
        throttle_time_ms: i32 => 1..;
        groups: Vec<DescribedShareGroup> => 1..;
    }
}

wire_struct! {
    /// A share group with its members.
    pub struct DescribedShareGroup, versions 1..=1, flexible 0 {
        error_code: i16 => 1..;
        error_message: Option<Str> => 1..;
        group_id: Str => 1..;
        group_state: Str => 1..;
        group_epoch: i32 => 1..;
        assignment_epoch: i32 => 1..;
        assignor_name: Str => 1..;
        members: Vec<DescribedShareMember> => 1..;
        /// Bits of ACL operations; `i32::MIN` if not asked for.
        authorized_operations: i32 => 1.. = i32::MIN;
    }
}

wire_struct! {
    /// A member.
    pub struct DescribedShareMember, versions 1..=1, flexible 0 {
        member_id: Str => 1..;
        rack_id: Option<Str> => 1..;
        member_epoch: i32 => 1..;
        client_id: Str => 1..;
        client_host: Str => 1..;
        subscribed_topic_names: Vec<Str> => 1..;
        assignment: DescribedShareAssignment => 1..;
    }
}

wire_struct! {
    /// The partitions of a member.
    pub struct DescribedShareAssignment, versions 1..=1, flexible 0 {
        topic_partitions: Vec<DescribedShareTopic> => 1..;
    }
}

wire_struct! {
    /// Of one topic.
    pub struct DescribedShareTopic, versions 1..=1, flexible 0 {
        topic_id: Uuid => 1..;
        topic_name: Str => 1..;
        partitions: Vec<i32> => 1..;
    }
}

wire_api!(
    ShareGroupDescribe,
    ShareGroupDescribeRequest,
    ShareGroupDescribeResponse
);
