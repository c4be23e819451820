//! Owns the FindCoordinator request (key 10) and its response, versions 0 to 6.
//! Does not know where coordinators live.
//! Keeps: one key up to version 3, many from 4 on; an answer in the wrong shape refuses to encode.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks for the coordinator of groups or transactions.
    pub struct FindCoordinatorRequest, versions 0..=6, flexible 3 {
        /// One group or transactional id, up to version 3.
        key: Str => 0..=3;
        /// 0: group; 1: transaction; 2: share group.
        key_type: i8 => 1..;
        /// Many ids, from version 4 on.
        coordinator_keys: Vec<Str> => 4..;
    }
}

wire_struct! {
    /// Coordinators, or the only one up to version 3.
    pub struct FindCoordinatorResponse, versions 0..=6, flexible 3 {
        throttle_time_ms: i32 => 1.. else drop;
        error_code: i16 => 0..=3;
        error_message: Option<Str> => 1..=3 else drop;
        node_id: i32 => 0..=3;
        host: Str => 0..=3;
        port: i32 => 0..=3;
        coordinators: Vec<Coordinator> => 4..;
    }
}

wire_struct! {
    /// The coordinator of one key.
    pub struct Coordinator, versions 0..=6, flexible 3 {
        key: Str => 4..;
        node_id: i32 => 4..;
        host: Str => 4..;
        port: i32 => 4..;
        error_code: i16 => 4..;
        error_message: Option<Str> => 4.. else drop;
    }
}

wire_api!(
    FindCoordinator,
    FindCoordinatorRequest,
    FindCoordinatorResponse
);
