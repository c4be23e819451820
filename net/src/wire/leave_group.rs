//! Owns the LeaveGroup request (key 13) and its response, versions 0 to 5.
//! Does not know groups.
//! Keeps: one member up to version 2, many from 3 on; a list in the wrong version refuses to encode.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Takes members out of a group.
    pub struct LeaveGroupRequest, versions 0..=5, flexible 4 {
        group_id: Str => 0..;
        /// The one member, up to version 2.
        member_id: Str => 0..=2;
        /// Many members, from version 3 on.
        members: Vec<MemberIdentity> => 3..;
    }
}

wire_struct! {
    /// A member by its id, its instance id, or both.
    pub struct MemberIdentity, versions 0..=5, flexible 4 {
        member_id: Str => 3..;
        group_instance_id: Option<Str> => 3..;
        /// For people.
        reason: Option<Str> => 5.. else drop;
    }
}

wire_struct! {
    /// What became of the members, or of the only one up to version 2.
    pub struct LeaveGroupResponse, versions 0..=5, flexible 4 {
        throttle_time_ms: i32 => 1.. else drop;
        error_code: i16 => 0..;
        members: Vec<MemberResponse> => 3..;
    }
}

wire_struct! {
    /// What became of one member.
    pub struct MemberResponse, versions 0..=5, flexible 4 {
        member_id: Str => 3..;
        group_instance_id: Option<Str> => 3..;
        error_code: i16 => 3..;
    }
}

wire_api!(LeaveGroup, LeaveGroupRequest, LeaveGroupResponse);
