//! Owns the DescribeQuorum request (key 55) and its response, versions 0 to 2.
//! Does not know who votes, nor what the quorum agrees on.
//! Keeps: offsets and times that are not known are -1, directories that are not known have the nil id.
use super::schema::{wire_api, wire_struct};
use super::values::Str;
use uuid::Uuid;

wire_struct! {
    /// Asks who agrees on what is in some partitions.
    pub struct DescribeQuorumRequest, versions 0..=2, flexible 0 {
        topics: Vec<AskedTopic> => 0..;
    }
}

wire_struct! {
    /// Partitions of one topic.
    pub struct AskedTopic, versions 0..=2, flexible 0 {
        topic_name: Str => 0..;
        partitions: Vec<AskedPartition> => 0..;
    }
}

wire_struct! {
    /// A partition.
    pub struct AskedPartition, versions 0..=2, flexible 0 {
        partition_index: i32 => 0..;
    }
}

wire_struct! {
    /// Who agrees, and how far everybody is.
    pub struct DescribeQuorumResponse, versions 0..=2, flexible 0 {
        error_code: i16 => 0..;
        error_message: Option<Str> => 2.. else drop;
        topics: Vec<TopicData> => 0..;
        /// Where the voters are reached.
        nodes: Vec<Node> => 2.. else drop;
    }
}

wire_struct! {
    /// The partitions of one topic.
    pub struct TopicData, versions 0..=2, flexible 0 {
        topic_name: Str => 0..;
        partitions: Vec<PartitionData> => 0..;
    }
}

wire_struct! {
    /// The quorum of one partition.
    pub struct PartitionData, versions 0..=2, flexible 0 {
        partition_index: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 2.. else drop;
        /// -1 if unknown.
        leader_id: i32 => 0..;
        leader_epoch: i32 => 0..;
        high_watermark: i64 => 0..;
        current_voters: Vec<ReplicaState> => 0..;
        observers: Vec<ReplicaState> => 0..;
    }
}

wire_struct! {
    /// How far one node is.
    pub struct ReplicaState, versions 0..=2, flexible 0 {
        replica_id: i32 => 0..;
        replica_directory_id: Uuid => 2.. else drop;
        log_end_offset: i64 => 0..;
        /// Wall-clock milliseconds of the leader.
        last_fetch_timestamp: i64 => 1.. else drop = -1;
        last_caught_up_timestamp: i64 => 1.. else drop = -1;
    }
}

wire_struct! {
    /// A node that votes.
    pub struct Node, versions 0..=2, flexible 0 {
        node_id: i32 => 2..;
        listeners: Vec<Listener> => 2..;
    }
}

wire_struct! {
    /// Where it is reached.
    pub struct Listener, versions 0..=2, flexible 0 {
        name: Str => 2..;
        host: Str => 2..;
        port: u16 => 2..;
    }
}

wire_api!(
    DescribeQuorum,
    DescribeQuorumRequest,
    DescribeQuorumResponse
);
