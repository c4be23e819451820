//! Owns the SyncGroup request (key 14) and its response, versions 0 to 5.
//! Does not know groups; an assignment is bytes here.
//! Keeps: protocol type and name are null where a version does not have them, never empty.
use bytes::Bytes;

use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks for a member's part; the leader brings all parts along.
    pub struct SyncGroupRequest, versions 0..=5, flexible 4 {
        group_id: Str => 0..;
        generation_id: i32 => 0..;
        member_id: Str => 0..;
        group_instance_id: Option<Str> => 3..;
        protocol_type: Option<Str> => 5.. else drop;
        protocol_name: Option<Str> => 5.. else drop;
        assignments: Vec<SyncGroupRequestAssignment> => 0..;
    }
}

wire_struct! {
    /// One member's part.
    pub struct SyncGroupRequestAssignment, versions 0..=5, flexible 4 {
        member_id: Str => 0..;
        assignment: Bytes => 0..;
    }
}

wire_struct! {
    /// The member's part.
    pub struct SyncGroupResponse, versions 0..=5, flexible 4 {
        throttle_time_ms: i32 => 1.. else drop;
        error_code: i16 => 0..;
        protocol_type: Option<Str> => 5.. else drop;
        protocol_name: Option<Str> => 5.. else drop;
        assignment: Bytes => 0..;
    }
}

wire_api!(SyncGroup, SyncGroupRequest, SyncGroupResponse);
