//! Owns the Metadata request (key 3) and its response, versions 0 to 13.
//! Does not know the cluster.
//! Keeps: the difference between all topics (null, or none in version 0) and no topics is decided in one place, [`MetadataRequest::asked`].
use uuid::Uuid;

use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks for brokers and for the leaders of topics.
    pub struct MetadataRequest, versions 0..=13, flexible 9 {
        /// See [`MetadataRequest::asked`].
        topics: Option<Vec<MetadataRequestTopic>> => 0.. null 1..;
        allow_auto_topic_creation: bool => 4.. = true;
        include_cluster_authorized_operations: bool => 8..=10;
        include_topic_authorized_operations: bool => 8..;
    }
}

wire_struct! {
    /// A topic by name or, from version 10 on, by id.
    pub struct MetadataRequestTopic, versions 0..=13, flexible 9 {
        topic_id: Uuid => 10.. else drop;
        name: Option<Str> => 0.. null 10..;
    }
}

wire_struct! {
    /// Brokers and topics.
    pub struct MetadataResponse, versions 0..=13, flexible 9 {
        throttle_time_ms: i32 => 3.. else drop;
        brokers: Vec<MetadataResponseBroker> => 0..;
        cluster_id: Option<Str> => 2.. else drop;
        /// Any broker that takes administrative requests.
        controller_id: i32 => 1.. else drop = -1;
        topics: Vec<MetadataResponseTopic> => 0..;
        /// Bits of ACL operations; `i32::MIN` if not asked for.
        cluster_authorized_operations: i32 => 8..=10 else drop = i32::MIN;
        /// For the request as a whole.
        error_code: i16 => 13.. else drop;
    }
}

wire_struct! {
    /// Where a broker listens.
    pub struct MetadataResponseBroker, versions 0..=13, flexible 9 {
        node_id: i32 => 0..;
        host: Str => 0..;
        port: i32 => 0..;
        rack: Option<Str> => 1.. else drop;
    }
}

wire_struct! {
    /// A topic with its partitions.
    pub struct MetadataResponseTopic, versions 0..=13, flexible 9 {
        error_code: i16 => 0..;
        /// Null only for an id that is unknown.
        name: Option<Str> => 0.. null 12..;
        topic_id: Uuid => 10.. else drop;
        is_internal: bool => 1.. else drop;
        partitions: Vec<MetadataResponsePartition> => 0..;
        /// Bits of ACL operations; `i32::MIN` if not asked for.
        topic_authorized_operations: i32 => 8.. else drop = i32::MIN;
    }
}

wire_struct! {
    /// Leader and replicas of a partition.
    pub struct MetadataResponsePartition, versions 0..=13, flexible 9 {
        error_code: i16 => 0..;
        partition_index: i32 => 0..;
        /// -1 if there is none.
        leader_id: i32 => 0..;
        leader_epoch: i32 => 7.. else drop = -1;
        replica_nodes: Vec<i32> => 0..;
        isr_nodes: Vec<i32> => 0..;
        offline_replicas: Vec<i32> => 5.. else drop;
    }
}

wire_api!(Metadata, MetadataRequest, MetadataResponse);

impl MetadataRequest {
    /// The topics asked for; `None` for all. Version 0 had no null and said all by naming none.
    pub fn asked(&self, version: i16) -> Option<&[MetadataRequestTopic]> {
        match &self.topics {
            Some(topics) if version == 0 && topics.is_empty() => None,
            topics => topics.as_deref(),
        }
    }
}
