//! Owns the ListPartitionReassignments request (key 46) and its response, version 0.
//! Does not know brokers, nor whether anything moves.
//! Keeps: what is being added is among the replicas already.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks which partitions are on their way to other brokers.
    pub struct ListPartitionReassignmentsRequest, versions 0..=0, flexible 0 {
        timeout_ms: i32 => 0.. = 60_000;
        /// Null for all.
        topics: Option<Vec<ListPartitionReassignmentsTopics>> => 0..;
    }
}

wire_struct! {
    /// Partitions of one topic.
    pub struct ListPartitionReassignmentsTopics, versions 0..=0, flexible 0 {
        name: Str => 0..;
        partition_indexes: Vec<i32> => 0..;
    }
}

wire_struct! {
    /// What is on its way.
    pub struct ListPartitionReassignmentsResponse, versions 0..=0, flexible 0 {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
        topics: Vec<OngoingTopicReassignment> => 0..;
    }
}

wire_struct! {
    /// Partitions of one topic that are on their way.
    pub struct OngoingTopicReassignment, versions 0..=0, flexible 0 {
        name: Str => 0..;
        partitions: Vec<OngoingPartitionReassignment> => 0..;
    }
}

wire_struct! {
    /// One of them.
    pub struct OngoingPartitionReassignment, versions 0..=0, flexible 0 {
        partition_index: i32 => 0..;
        replicas: Vec<i32> => 0..;
        adding_replicas: Vec<i32> => 0..;
        removing_replicas: Vec<i32> => 0..;
    }
}

wire_api!(
    ListPartitionReassignments,
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse
);
