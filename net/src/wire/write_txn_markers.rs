//! Owns the WriteTxnMarkers request (key 27) and its response, versions 1 to 2: version 0 left Kafka with 4.0.
//! Does not know logs, nor what a marker does to one.
//! Keeps: a marker is told apart by its producer, and answered under it.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Ends transactions in the partitions they were in.
    pub struct WriteTxnMarkersRequest, versions 1..=2, flexible 1 {
        markers: Vec<WritableTxnMarker> => 1..;
    }
}

wire_struct! {
    /// The end of one producer's transaction.
    pub struct WritableTxnMarker, versions 1..=2, flexible 1 {
        producer_id: i64 => 1..;
        producer_epoch: i16 => 1..;
        /// True to commit.
        transaction_result: bool => 1..;
        topics: Vec<WritableTxnMarkerTopic> => 1..;
        coordinator_epoch: i32 => 1..;
        /// The level of `transaction.version` it is written by.
        transaction_version: i8 => 2.. else drop;
    }
}

wire_struct! {
    /// Partitions of one topic.
    pub struct WritableTxnMarkerTopic, versions 1..=2, flexible 1 {
        name: Str => 1..;
        partition_indexes: Vec<i32> => 1..;
    }
}

wire_struct! {
    /// What became of each marker.
    pub struct WriteTxnMarkersResponse, versions 1..=2, flexible 1 {
        markers: Vec<WritableTxnMarkerResult> => 1..;
    }
}

wire_struct! {
    /// What became of the markers of one producer.
    pub struct WritableTxnMarkerResult, versions 1..=2, flexible 1 {
        producer_id: i64 => 1..;
        topics: Vec<WritableTxnMarkerTopicResult> => 1..;
    }
}

wire_struct! {
    /// What became of the markers in one topic.
    pub struct WritableTxnMarkerTopicResult, versions 1..=2, flexible 1 {
        name: Str => 1..;
        partitions: Vec<WritableTxnMarkerPartitionResult> => 1..;
    }
}

wire_struct! {
    /// What became of the marker in one partition.
    pub struct WritableTxnMarkerPartitionResult, versions 1..=2, flexible 1 {
        partition_index: i32 => 1..;
        error_code: i16 => 1..;
    }
}

wire_api!(
    WriteTxnMarkers,
    WriteTxnMarkersRequest,
    WriteTxnMarkersResponse
);
