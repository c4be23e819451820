//! Owns the CreatePartitions request (key 37) and its response, versions 0 to 3.
//! Does not know how replicas are placed.
//! Keeps: a null assignment means that the broker chooses.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Topics to widen.
    pub struct CreatePartitionsRequest, versions 0..=3, flexible 2 {
        topics: Vec<CreatePartitionsTopic> => 0..;
        timeout_ms: i32 => 0..;
        validate_only: bool => 0..;
    }
}

wire_struct! {
    /// A topic to widen.
    pub struct CreatePartitionsTopic, versions 0..=3, flexible 2 {
        name: Str => 0..;
        /// Partitions in the end, not to be added.
        count: i32 => 0..;
        /// One for each new partition; null leaves it to the broker.
        assignments: Option<Vec<CreatePartitionsAssignment>> => 0..;
    }
}

wire_struct! {
    /// The brokers of one new partition, the preferred leader first.
    pub struct CreatePartitionsAssignment, versions 0..=3, flexible 2 {
        broker_ids: Vec<i32> => 0..;
    }
}

wire_struct! {
    /// What became of each topic.
    pub struct CreatePartitionsResponse, versions 0..=3, flexible 2 {
        throttle_time_ms: i32 => 0..;
        results: Vec<CreatePartitionsTopicResult> => 0..;
    }
}

wire_struct! {
    /// What became of one topic.
    pub struct CreatePartitionsTopicResult, versions 0..=3, flexible 2 {
        name: Str => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
    }
}

wire_api!(
    CreatePartitions,
    CreatePartitionsRequest,
    CreatePartitionsResponse
);
