//! Owns the WriteTxnMarkers request (key 27) and its response, versions 0 to 1.
//! Does not know logs, nor what a marker does to one.
//! Keeps: every version has the same fields.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Ends transactions in the partitions they were in.
    pub struct WriteTxnMarkersRequest, versions 0..=1, flexible 1 {
        markers: Vec<WritableTxnMarker> => 0..;
    }
}

wire_struct! {
    /// The end of one producer's transaction.
    pub struct WritableTxnMarker, versions 0..=1, flexible 1 {
        producer_id: i64 => 0..;
        producer_epoch: i16 => 0..;
        /// True to commit.
        transaction_result: bool => 0..;
        topics: Vec<WritableTxnMarkerTopic> => 0..;
        coordinator_epoch: i32 => 0..;
    }
}

wire_struct! {
    /// Partitions of one topic.
    pub struct WritableTxnMarkerTopic, versions 0..=1, flexible 1 {
        name: Str => 0..;
        partition_indexes: Vec<i32> => 0..;
    }
}

wire_struct! {
    /// What became of each marker.
    pub struct WriteTxnMarkersResponse, versions 0..=1, flexible 1 {
        markers: Vec<WritableTxnMarkerResult> => 0..;
    }
}

wire_struct! {
    /// What became of the markers of one producer.
    pub struct WritableTxnMarkerResult, versions 0..=1, flexible 1 {
        producer_id: i64 => 0..;
        topics: Vec<WritableTxnMarkerTopicResult> => 0..;
    }
}

wire_struct! {
    /// What became of the markers in one topic.
    pub struct WritableTxnMarkerTopicResult, versions 0..=1, flexible 1 {
        name: Str => 0..;
        partitions: Vec<WritableTxnMarkerPartitionResult> => 0..;
    }
}

wire_struct! {
    /// What became of the marker in one partition.
    pub struct WritableTxnMarkerPartitionResult, versions 0..=1, flexible 1 {
        partition_index: i32 => 0..;
        error_code: i16 => 0..;
    }
}

wire_api!(
    WriteTxnMarkers,
    WriteTxnMarkersRequest,
    WriteTxnMarkersResponse
);
