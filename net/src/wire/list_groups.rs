//! Owns the ListGroups request (key 16) and its response, versions 0 to 5.
//! Does not know groups, nor which states and types there are.
//! Keeps: a filter is refused where the version cannot carry it, as all groups would be another answer.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks which groups there are; an empty filter lets all of them through.
    pub struct ListGroupsRequest, versions 0..=5, flexible 3 {
        states_filter: Vec<Str> => 4..;
        types_filter: Vec<Str> => 5..;
    }
}

wire_struct! {
    /// The groups.
    pub struct ListGroupsResponse, versions 0..=5, flexible 3 {
        throttle_time_ms: i32 => 1.. else drop;
        error_code: i16 => 0..;
        groups: Vec<ListedGroup> => 0..;
    }
}

wire_struct! {
    /// A group.
    pub struct ListedGroup, versions 0..=5, flexible 3 {
        group_id: Str => 0..;
        protocol_type: Str => 0..;
        group_state: Str => 4.. else drop;
        group_type: Str => 5.. else drop;
    }
}

wire_api!(ListGroups, ListGroupsRequest, ListGroupsResponse);
