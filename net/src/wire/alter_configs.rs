//! Owns the AlterConfigs request (key 33) and its response, versions 0 to 2.
//! Does not know which configurations exist.
//! Keeps: the configurations given replace all that were set on the resource.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Resources whose configurations are replaced.
    pub struct AlterConfigsRequest, versions 0..=2, flexible 2 {
        resources: Vec<AlterConfigsResource> => 0..;
        validate_only: bool => 0..;
    }
}

wire_struct! {
    /// A resource to alter.
    pub struct AlterConfigsResource, versions 0..=2, flexible 2 {
        resource_type: i8 => 0..;
        resource_name: Str => 0..;
        configs: Vec<AlterableConfig> => 0..;
    }
}

wire_struct! {
    /// A configuration to set; a null value means the default.
    pub struct AlterableConfig, versions 0..=2, flexible 2 {
        name: Str => 0..;
        value: Option<Str> => 0..;
    }
}

wire_struct! {
    /// What became of each resource.
    pub struct AlterConfigsResponse, versions 0..=2, flexible 2 {
        throttle_time_ms: i32 => 0..;
        responses: Vec<AlterConfigsResourceResponse> => 0..;
    }
}

wire_struct! {
    /// What became of one resource.
    pub struct AlterConfigsResourceResponse, versions 0..=2, flexible 2 {
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
        resource_type: i8 => 0..;
        resource_name: Str => 0..;
    }
}

wire_api!(AlterConfigs, AlterConfigsRequest, AlterConfigsResponse);
