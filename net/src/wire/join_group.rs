//! Owns the JoinGroup request (key 11) and its response, versions 0 to 9.
//! Does not know groups; what members tell each other is bytes here.
//! Keeps: a null protocol name is refused where the version has no form for it.
use bytes::Bytes;

use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks to be a member of a group's next generation.
    pub struct JoinGroupRequest, versions 0..=9, flexible 6 {
        group_id: Str => 0..;
        session_timeout_ms: i32 => 0..;
        /// Version 0 has the session timeout in its place.
        rebalance_timeout_ms: i32 => 1.. else drop = -1;
        /// Empty where the member has none yet.
        member_id: Str => 0..;
        group_instance_id: Option<Str> => 5..;
        /// What kind of members these are, such as `consumer`.
        protocol_type: Str => 0..;
        /// The member's favourite first.
        protocols: Vec<JoinGroupRequestProtocol> => 0..;
        /// For people.
        reason: Option<Str> => 8.. else drop;
    }
}

wire_struct! {
    /// A protocol that the member knows.
    pub struct JoinGroupRequestProtocol, versions 0..=9, flexible 6 {
        name: Str => 0..;
        metadata: Bytes => 0..;
    }
}

wire_struct! {
    /// The generation that came about.
    pub struct JoinGroupResponse, versions 0..=9, flexible 6 {
        throttle_time_ms: i32 => 2.. else drop;
        error_code: i16 => 0..;
        generation_id: i32 => 0.. = -1;
        protocol_type: Option<Str> => 7.. else drop;
        protocol_name: Option<Str> => 0.. null 7..;
        leader: Str => 0..;
        /// Tells the leader that the assignment stays as it is.
        skip_assignment: bool => 9..;
        member_id: Str => 0..;
        /// For the leader only.
        members: Vec<JoinGroupResponseMember> => 0..;
    }
}

wire_struct! {
    /// A member of the generation.
    pub struct JoinGroupResponseMember, versions 0..=9, flexible 6 {
        member_id: Str => 0..;
        group_instance_id: Option<Str> => 5.. else drop;
        metadata: Bytes => 0..;
    }
}

wire_api!(JoinGroup, JoinGroupRequest, JoinGroupResponse);
