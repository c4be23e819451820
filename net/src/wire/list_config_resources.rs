//! Owns the ListConfigResources request (key 74) and its response, versions 0 to 1.
//! Does not know settings, nor what has any.
//! Keeps: version 0 knows subscriptions to client metrics (type 16) only.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks what has settings; no types are all types.
    pub struct ListConfigResourcesRequest, versions 0..=1, flexible 0 {
        resource_types: Vec<i8> => 1..;
    }
}

wire_struct! {
    /// What has settings.
    pub struct ListConfigResourcesResponse, versions 0..=1, flexible 0 {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        config_resources: Vec<ConfigResource> => 0..;
    }
}

wire_struct! {
    /// One thing that has.
    pub struct ConfigResource, versions 0..=1, flexible 0 {
        resource_name: Str => 0..;
        resource_type: i8 => 1.. else drop = 16;
    }
}

wire_api!(
    ListConfigResources,
    ListConfigResourcesRequest,
    ListConfigResourcesResponse
);
