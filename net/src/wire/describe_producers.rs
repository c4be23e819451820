//! Owns the DescribeProducers request (key 61) and its response, version 0.
//! Does not know producers.
//! Keeps: what is not known of a producer is -1.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks who writes to some partitions.
    pub struct DescribeProducersRequest, versions 0..=0, flexible 0 {
        topics: Vec<TopicRequest> => 0..;
    }
}

wire_struct! {
    /// Partitions of one topic.
    pub struct TopicRequest, versions 0..=0, flexible 0 {
        name: Str => 0..;
        partition_indexes: Vec<i32> => 0..;
    }
}

wire_struct! {
    /// Who writes.
    pub struct DescribeProducersResponse, versions 0..=0, flexible 0 {
        throttle_time_ms: i32 => 0..;
        topics: Vec<TopicResponse> => 0..;
    }
}

wire_struct! {
    /// Who writes to one topic.
    pub struct TopicResponse, versions 0..=0, flexible 0 {
        name: Str => 0..;
        partitions: Vec<PartitionResponse> => 0..;
    }
}

wire_struct! {
    /// Who writes to one partition.
    pub struct PartitionResponse, versions 0..=0, flexible 0 {
        partition_index: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
        active_producers: Vec<ProducerState> => 0..;
    }
}

wire_struct! {
    /// A producer with an id.
    pub struct ProducerState, versions 0..=0, flexible 0 {
        producer_id: i64 => 0..;
        producer_epoch: i32 => 0..;
        last_sequence: i32 => 0.. = -1;
        /// Of its last batch, in milliseconds since 1970.
        last_timestamp: i64 => 0.. = -1;
        coordinator_epoch: i32 => 0..;
        /// Where its open transaction begins.
        current_txn_start_offset: i64 => 0.. = -1;
    }
}

wire_api!(
    DescribeProducers,
    DescribeProducersRequest,
    DescribeProducersResponse
);
