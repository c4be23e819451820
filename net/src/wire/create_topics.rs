//! Owns the CreateTopics request (key 19) and its response, versions 2 to 7.
//! Does not know defaults, limits or valid configurations.
//! Keeps: -1 stands for the default of the broker.
use uuid::Uuid;

use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Topics to create.
    pub struct CreateTopicsRequest, versions 2..=7, flexible 5 {
        topics: Vec<CreatableTopic> => 2..;
        timeout_ms: i32 => 2.. = 60000;
        validate_only: bool => 2..;
    }
}

wire_struct! {
    /// A topic to create.
    pub struct CreatableTopic, versions 2..=7, flexible 5 {
        name: Str => 2..;
        /// -1 for the default, or if `assignments` says.
        num_partitions: i32 => 2..;
        /// -1 for the default, or if `assignments` says.
        replication_factor: i16 => 2..;
        assignments: Vec<CreatableReplicaAssignment> => 2..;
        configs: Vec<CreatableTopicConfig> => 2..;
    }
}

wire_struct! {
    /// The brokers of one partition, the preferred leader first.
    pub struct CreatableReplicaAssignment, versions 2..=7, flexible 5 {
        partition_index: i32 => 2..;
        broker_ids: Vec<i32> => 2..;
    }
}

wire_struct! {
    /// A configuration to set; a null value means the default.
    pub struct CreatableTopicConfig, versions 2..=7, flexible 5 {
        name: Str => 2..;
        value: Option<Str> => 2..;
    }
}

wire_struct! {
    /// What became of each topic.
    pub struct CreateTopicsResponse, versions 2..=7, flexible 5 {
        throttle_time_ms: i32 => 2..;
        topics: Vec<CreatableTopicResult> => 2..;
    }
}

wire_struct! {
    /// What became of one topic.
    pub struct CreatableTopicResult, versions 2..=7, flexible 5 {
        name: Str => 2..;
        topic_id: Uuid => 7.. else drop;
        error_code: i16 => 2..;
        error_message: Option<Str> => 2..;
        num_partitions: i32 => 5.. else drop = -1;
        replication_factor: i16 => 5.. else drop = -1;
        /// The configurations in force; null if withheld.
        configs: Option<Vec<CreatableTopicConfigs>> => 5.. else drop;
    } tagged {
        /// Why the configurations are withheld, 0 if they are not.
        0: topic_config_error_code: i16 => 5..;
    }
}

wire_struct! {
    /// A configuration in force.
    pub struct CreatableTopicConfigs, versions 2..=7, flexible 5 {
        name: Str => 5..;
        value: Option<Str> => 5..;
        read_only: bool => 5..;
        /// See [`super::config_codes::source`]; -1 if unknown.
        config_source: i8 => 5.. else drop = -1;
        is_sensitive: bool => 5..;
    }
}

wire_api!(CreateTopics, CreateTopicsRequest, CreateTopicsResponse);
