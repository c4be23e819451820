//! Owns the DescribeGroups request (key 15) and its response, versions 0 to 6.
//! Does not know groups; what members say of themselves is bytes here.
//! Keeps: an error message is left out where the version cannot carry it, an error code never is.
use bytes::Bytes;

use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Groups to describe.
    pub struct DescribeGroupsRequest, versions 0..=6, flexible 5 {
        groups: Vec<Str> => 0..;
        include_authorized_operations: bool => 3.. else drop;
    }
}

wire_struct! {
    /// The groups.
    pub struct DescribeGroupsResponse, versions 0..=6, flexible 5 {
        throttle_time_ms: i32 => 1.. else drop;
        groups: Vec<DescribedGroup> => 0..;
    }
}

wire_struct! {
    /// A group with its members.
    pub struct DescribedGroup, versions 0..=6, flexible 5 {
        error_code: i16 => 0..;
        error_message: Option<Str> => 6.. else drop;
        group_id: Str => 0..;
        group_state: Str => 0..;
        protocol_type: Str => 0..;
        /// The protocol chosen; empty while the group is not stable.
        protocol_data: Str => 0..;
        members: Vec<DescribedGroupMember> => 0..;
        /// Bits of ACL operations; `i32::MIN` if not asked for.
        authorized_operations: i32 => 3.. else drop = i32::MIN;
    }
}

wire_struct! {
    /// A member.
    pub struct DescribedGroupMember, versions 0..=6, flexible 5 {
        member_id: Str => 0..;
        group_instance_id: Option<Str> => 4.. else drop;
        client_id: Str => 0..;
        client_host: Str => 0..;
        /// Both empty while the group is not stable.
        member_metadata: Bytes => 0..;
        member_assignment: Bytes => 0..;
    }
}

wire_api!(
    DescribeGroups,
    DescribeGroupsRequest,
    DescribeGroupsResponse
);
