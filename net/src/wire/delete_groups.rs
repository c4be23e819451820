//! Owns the DeleteGroups request (key 42) and its response, versions 0 to 3.
//! Does not know groups.
//! Keeps: an error message is left out where the version cannot carry it, an error code never is.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Groups to delete.
    pub struct DeleteGroupsRequest, versions 0..=3, flexible 2 {
        groups_names: Vec<Str> => 0..;
    }
}

wire_struct! {
    /// What became of each group.
    pub struct DeleteGroupsResponse, versions 0..=3, flexible 2 {
        throttle_time_ms: i32 => 0..;
        results: Vec<DeletableGroupResult> => 0..;
    }
}

wire_struct! {
    /// What became of one group.
    pub struct DeletableGroupResult, versions 0..=3, flexible 2 {
        group_id: Str => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 3.. else drop;
    }
}

wire_api!(DeleteGroups, DeleteGroupsRequest, DeleteGroupsResponse);
