//! Owns the IncrementalAlterConfigs request (key 44) and its response, versions 0 and 1.
//! Does not know which configurations exist.
//! Keeps: each configuration says by itself what is done to it.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Resources whose configurations are changed one by one.
    pub struct IncrementalAlterConfigsRequest, versions 0..=1, flexible 1 {
        resources: Vec<AlterConfigsResource> => 0..;
        validate_only: bool => 0..;
    }
}

wire_struct! {
    /// A resource to alter.
    pub struct AlterConfigsResource, versions 0..=1, flexible 1 {
        resource_type: i8 => 0..;
        resource_name: Str => 0..;
        configs: Vec<AlterableConfig> => 0..;
    }
}

wire_struct! {
    /// A change of one configuration.
    pub struct AlterableConfig, versions 0..=1, flexible 1 {
        name: Str => 0..;
        /// See [`super::config_codes::operation`].
        config_operation: i8 => 0..;
        value: Option<Str> => 0..;
    }
}

wire_struct! {
    /// What became of each resource.
    pub struct IncrementalAlterConfigsResponse, versions 0..=1, flexible 1 {
        throttle_time_ms: i32 => 0..;
        responses: Vec<AlterConfigsResourceResponse> => 0..;
    }
}

wire_struct! {
    /// What became of one resource.
    pub struct AlterConfigsResourceResponse, versions 0..=1, flexible 1 {
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
        resource_type: i8 => 0..;
        resource_name: Str => 0..;
    }
}

wire_api!(
    IncrementalAlterConfigs,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse
);
