//! Owns the DescribeConfigs request (key 32) and its response, versions 1 to 4.
//! Does not know which configurations exist.
//! Keeps: the codes of resource, source and type are named in [`super::config_codes`] only.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Resources whose configurations are asked for.
    pub struct DescribeConfigsRequest, versions 1..=4, flexible 4 {
        resources: Vec<DescribeConfigsResource> => 1..;
        include_synonyms: bool => 1..;
        include_documentation: bool => 3..;
    }
}

wire_struct! {
    /// A resource whose configurations are asked for.
    pub struct DescribeConfigsResource, versions 1..=4, flexible 4 {
        resource_type: i8 => 1..;
        resource_name: Str => 1..;
        /// Null for all.
        configuration_keys: Option<Vec<Str>> => 1..;
    }
}

wire_struct! {
    /// Configurations by resource.
    pub struct DescribeConfigsResponse, versions 1..=4, flexible 4 {
        throttle_time_ms: i32 => 1..;
        results: Vec<DescribeConfigsResult> => 1..;
    }
}

wire_struct! {
    /// The configurations of one resource.
    pub struct DescribeConfigsResult, versions 1..=4, flexible 4 {
        error_code: i16 => 1..;
        error_message: Option<Str> => 1..;
        resource_type: i8 => 1..;
        resource_name: Str => 1..;
        configs: Vec<DescribeConfigsResourceResult> => 1..;
    }
}

wire_struct! {
    /// A configuration in force.
    pub struct DescribeConfigsResourceResult, versions 1..=4, flexible 4 {
        name: Str => 1..;
        /// Null if sensitive.
        value: Option<Str> => 1..;
        read_only: bool => 1..;
        /// See [`super::config_codes::source`].
        config_source: i8 => 1.. = -1;
        is_sensitive: bool => 1..;
        /// Where the value could come from, in order of precedence.
        synonyms: Vec<DescribeConfigsSynonym> => 1..;
        /// See [`super::config_codes::kind`].
        config_type: i8 => 3.. else drop;
        documentation: Option<Str> => 3.. else drop;
    }
}

wire_struct! {
    /// A value that applies if those before it are unset.
    pub struct DescribeConfigsSynonym, versions 1..=4, flexible 4 {
        name: Str => 1..;
        value: Option<Str> => 1..;
        source: i8 => 1..;
    }
}

wire_api!(
    DescribeConfigs,
    DescribeConfigsRequest,
    DescribeConfigsResponse
);
