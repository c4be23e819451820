//! Owns the ElectLeaders request (key 43) and its response, versions 0 to 2.
//! Does not know who leads, nor what kinds of elections there are.
//! Keeps: without a kind (version 0) the preferred replica is meant, whose number is 0.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks for elections.
    pub struct ElectLeadersRequest, versions 0..=2, flexible 2 {
        election_type: i8 => 1..;
        /// Null for all partitions.
        topic_partitions: Option<Vec<TopicPartitions>> => 0..;
        timeout_ms: i32 => 0.. = 60_000;
    }
}

wire_struct! {
    /// Partitions of one topic.
    pub struct TopicPartitions, versions 0..=2, flexible 2 {
        topic: Str => 0..;
        partitions: Vec<i32> => 0..;
    }
}

wire_struct! {
    /// What became of the elections.
    pub struct ElectLeadersResponse, versions 0..=2, flexible 2 {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 1.. else drop;
        replica_election_results: Vec<ReplicaElectionResult> => 0..;
    }
}

wire_struct! {
    /// What became of those of one topic.
    pub struct ReplicaElectionResult, versions 0..=2, flexible 2 {
        topic: Str => 0..;
        partition_result: Vec<PartitionResult> => 0..;
    }
}

wire_struct! {
    /// What became of one.
    pub struct PartitionResult, versions 0..=2, flexible 2 {
        partition_id: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
    }
}

wire_api!(ElectLeaders, ElectLeadersRequest, ElectLeadersResponse);
