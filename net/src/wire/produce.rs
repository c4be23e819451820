//! Owns the Produce request (key 0) and its response, versions 3 to 13. In 13 topics go by id.
//! Does not know what a batch must look like: records are opaque bytes.
//! Keeps: record bytes are never copied on the way in; they share the frame they came in.
use bytes::Bytes;
use uuid::Uuid;

use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Batches to append, by topic and partition.
    pub struct ProduceRequest, versions 3..=13, flexible 9 {
        transactional_id: Option<Str> => 3..;
        /// 0: no answer at all; 1: the leader; -1: all in-sync replicas.
        acks: i16 => 3..;
        timeout_ms: i32 => 3..;
        topic_data: Vec<TopicProduceData> => 3..;
    }
}

wire_struct! {
    /// Batches for one topic.
    pub struct TopicProduceData, versions 3..=13, flexible 9 {
        name: Str => 3..=12 else drop;
        topic_id: Uuid => 13.. else drop;
        partition_data: Vec<PartitionProduceData> => 3..;
    }
}

wire_struct! {
    /// Batches for one partition.
    pub struct PartitionProduceData, versions 3..=13, flexible 9 {
        index: i32 => 3..;
        /// Exactly one batch from current clients; null is legal on the wire.
        records: Option<Bytes> => 3..;
    }
}

wire_struct! {
    /// What became of each partition.
    pub struct ProduceResponse, versions 3..=13, flexible 9 {
        responses: Vec<TopicProduceResponse> => 3..;
        throttle_time_ms: i32 => 3..;
    } tagged {
        /// Where the leaders named in `current_leader` are.
        0: node_endpoints: Vec<NodeEndpoint> => 10..;
    }
}

wire_struct! {
    /// What became of the partitions of one topic.
    pub struct TopicProduceResponse, versions 3..=13, flexible 9 {
        name: Str => 3..=12 else drop;
        topic_id: Uuid => 13.. else drop;
        partition_responses: Vec<PartitionProduceResponse> => 3..;
    }
}

wire_struct! {
    /// What became of one partition.
    pub struct PartitionProduceResponse, versions 3..=13, flexible 9 {
        index: i32 => 3..;
        error_code: i16 => 3..;
        /// Offset of the first record appended, -1 on error.
        base_offset: i64 => 3..;
        /// -1 unless the topic stamps records on append.
        log_append_time_ms: i64 => 3.. = -1;
        log_start_offset: i64 => 5.. else drop = -1;
        record_errors: Vec<BatchIndexAndErrorMessage> => 8.. else drop;
        error_message: Option<Str> => 8.. else drop;
    } tagged {
        /// The leader known here, with NOT_LEADER_OR_FOLLOWER.
        0: current_leader: LeaderIdAndEpoch => 10..;
    }
}

wire_struct! {
    /// Why one record made its batch fail.
    pub struct BatchIndexAndErrorMessage, versions 3..=13, flexible 9 {
        batch_index: i32 => 8..;
        batch_index_error_message: Option<Str> => 8..;
    }
}

wire_struct! {
    /// The leader of a partition as far as this broker knows; -1 if it does not.
    pub struct LeaderIdAndEpoch, versions 3..=13, flexible 9 {
        leader_id: i32 => 10.. = -1;
        leader_epoch: i32 => 10.. = -1;
    }
}

wire_struct! {
    /// Where a broker listens.
    pub struct NodeEndpoint, versions 3..=13, flexible 9 {
        node_id: i32 => 10..;
        host: Str => 10..;
        port: i32 => 10..;
        rack: Option<Str> => 10..;
    }
}

wire_api!(Produce, ProduceRequest, ProduceResponse);
