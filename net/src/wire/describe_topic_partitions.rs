//! Owns the DescribeTopicPartitions request (key 75) and its response, version 0.
//! Does not know the cluster.
//! Keeps: a cursor names the first partition that was not answered.
use uuid::Uuid;

use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks for the partitions of topics, page by page.
    pub struct DescribeTopicPartitionsRequest, versions 0..=0, flexible 0 {
        topics: Vec<TopicRequest> => 0..;
        response_partition_limit: i32 => 0.. = 2000;
        /// Where to go on; null to begin.
        cursor: Option<Cursor> => 0..;
    }
}

wire_struct! {
    /// A topic by name.
    pub struct TopicRequest, versions 0..=0, flexible 0 {
        name: Str => 0..;
    }
}

wire_struct! {
    /// A partition to go on from.
    pub struct Cursor, versions 0..=0, flexible 0 {
        topic_name: Str => 0..;
        partition_index: i32 => 0..;
    }
}

wire_struct! {
    /// One page of topics, by ascending name.
    pub struct DescribeTopicPartitionsResponse, versions 0..=0, flexible 0 {
        throttle_time_ms: i32 => 0..;
        topics: Vec<DescribeTopicPartitionsResponseTopic> => 0..;
        /// Where to go on; null if this is all.
        next_cursor: Option<Cursor> => 0..;
    }
}

wire_struct! {
    /// A topic with its partitions.
    pub struct DescribeTopicPartitionsResponseTopic, versions 0..=0, flexible 0 {
        error_code: i16 => 0..;
        name: Option<Str> => 0..;
        topic_id: Uuid => 0..;
        is_internal: bool => 0..;
        partitions: Vec<DescribeTopicPartitionsResponsePartition> => 0..;
        /// Bits of ACL operations; `i32::MIN` if not asked for.
        topic_authorized_operations: i32 => 0.. = i32::MIN;
    }
}

wire_struct! {
    /// Leader and replicas of a partition.
    pub struct DescribeTopicPartitionsResponsePartition, versions 0..=0, flexible 0 {
        error_code: i16 => 0..;
        partition_index: i32 => 0..;
        leader_id: i32 => 0..;
        leader_epoch: i32 => 0.. = -1;
        replica_nodes: Vec<i32> => 0..;
        isr_nodes: Vec<i32> => 0..;
        eligible_leader_replicas: Option<Vec<i32>> => 0..;
        last_known_elr: Option<Vec<i32>> => 0..;
        offline_replicas: Vec<i32> => 0..;
    }
}

wire_api!(
    DescribeTopicPartitions,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse
);
