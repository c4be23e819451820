//! Owns the Heartbeat request (key 12) and its response, versions 0 to 4.
//! Does not know groups.
//! Keeps: an instance id is refused where the version cannot carry it, as it decides who the member is.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Says that a member is alive.
    pub struct HeartbeatRequest, versions 0..=4, flexible 4 {
        group_id: Str => 0..;
        generation_id: i32 => 0..;
        member_id: Str => 0..;
        group_instance_id: Option<Str> => 3..;
    }
}

wire_struct! {
    /// Whether the member still is one.
    pub struct HeartbeatResponse, versions 0..=4, flexible 4 {
        throttle_time_ms: i32 => 1.. else drop;
        error_code: i16 => 0..;
    }
}

wire_api!(Heartbeat, HeartbeatRequest, HeartbeatResponse);
