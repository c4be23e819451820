//! Owns the DeleteRecords request (key 21) and its response, versions 0 to 2.
//! Does not know any log.
//! Keeps: an offset of -1 means the high watermark.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Offsets before which records are deleted.
    pub struct DeleteRecordsRequest, versions 0..=2, flexible 2 {
        topics: Vec<DeleteRecordsTopic> => 0..;
        timeout_ms: i32 => 0..;
    }
}

wire_struct! {
    /// Partitions of one topic to shorten.
    pub struct DeleteRecordsTopic, versions 0..=2, flexible 2 {
        name: Str => 0..;
        partitions: Vec<DeleteRecordsPartition> => 0..;
    }
}

wire_struct! {
    /// Where one partition is to start.
    pub struct DeleteRecordsPartition, versions 0..=2, flexible 2 {
        partition_index: i32 => 0..;
        /// -1 for the high watermark.
        offset: i64 => 0..;
    }
}

wire_struct! {
    /// Where the partitions start now.
    pub struct DeleteRecordsResponse, versions 0..=2, flexible 2 {
        throttle_time_ms: i32 => 0..;
        topics: Vec<DeleteRecordsTopicResult> => 0..;
    }
}

wire_struct! {
    /// Where the partitions of one topic start now.
    pub struct DeleteRecordsTopicResult, versions 0..=2, flexible 2 {
        name: Str => 0..;
        partitions: Vec<DeleteRecordsPartitionResult> => 0..;
    }
}

wire_struct! {
    /// Where one partition starts now.
    pub struct DeleteRecordsPartitionResult, versions 0..=2, flexible 2 {
        partition_index: i32 => 0..;
        /// The first offset kept; -1 on error.
        low_watermark: i64 => 0..;
        error_code: i16 => 0..;
    }
}

wire_api!(DeleteRecords, DeleteRecordsRequest, DeleteRecordsResponse);
