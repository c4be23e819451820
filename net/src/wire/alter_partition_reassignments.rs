//! Owns the AlterPartitionReassignments request (key 45) and its response, versions 0 to 1.
//! Does not know brokers, nor who has which partition.
//! Keeps: null replicas give a reassignment up; an empty list is another thing, and wrong.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Moves partitions to other brokers.
    pub struct AlterPartitionReassignmentsRequest, versions 0..=1, flexible 0 {
        timeout_ms: i32 => 0.. = 60_000;
        allow_replication_factor_change: bool => 1.. = true;
        topics: Vec<ReassignableTopic> => 0..;
    }
}

wire_struct! {
    /// Partitions of one topic.
    pub struct ReassignableTopic, versions 0..=1, flexible 0 {
        name: Str => 0..;
        partitions: Vec<ReassignablePartition> => 0..;
    }
}

wire_struct! {
    /// Where one partition shall be.
    pub struct ReassignablePartition, versions 0..=1, flexible 0 {
        partition_index: i32 => 0..;
        /// Broker ids, the preferred leader first.
        replicas: Option<Vec<i32>> => 0..;
    }
}

wire_struct! {
    /// Which moves have begun.
    pub struct AlterPartitionReassignmentsResponse, versions 0..=1, flexible 0 {
        throttle_time_ms: i32 => 0..;
        allow_replication_factor_change: bool => 1.. else drop = true;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
        responses: Vec<ReassignableTopicResponse> => 0..;
    }
}

wire_struct! {
    /// Those of one topic.
    pub struct ReassignableTopicResponse, versions 0..=1, flexible 0 {
        name: Str => 0..;
        partitions: Vec<ReassignablePartitionResponse> => 0..;
    }
}

wire_struct! {
    /// That of one partition.
    pub struct ReassignablePartitionResponse, versions 0..=1, flexible 0 {
        partition_index: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
    }
}

wire_api!(
    AlterPartitionReassignments,
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse
);
