//! Owns the ListOffsets request (key 2) and its response, versions 1 to 11.
//! Does not know any log; the special timestamps are only named here.
//! Keeps: a special timestamp is meaningful only from the version that [`timestamp::since`] says.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks for the offsets of timestamps.
    pub struct ListOffsetsRequest, versions 1..=11, flexible 6 {
        /// -1 for consumers.
        replica_id: i32 => 1..;
        isolation_level: i8 => 2..;
        topics: Vec<ListOffsetsTopic> => 1..;
        /// How long to wait for an answer from remote storage.
        timeout_ms: i32 => 10.. else drop;
    }
}

wire_struct! {
    /// Timestamps to look up in one topic.
    pub struct ListOffsetsTopic, versions 1..=11, flexible 6 {
        name: Str => 1..;
        partitions: Vec<ListOffsetsPartition> => 1..;
    }
}

wire_struct! {
    /// A timestamp to look up in one partition.
    pub struct ListOffsetsPartition, versions 1..=11, flexible 6 {
        partition_index: i32 => 1..;
        current_leader_epoch: i32 => 4.. else drop = -1;
        /// Milliseconds since 1970, or one of [`timestamp`].
        timestamp: i64 => 1..;
    }
}

wire_struct! {
    /// The offsets found.
    pub struct ListOffsetsResponse, versions 1..=11, flexible 6 {
        throttle_time_ms: i32 => 2.. else drop;
        topics: Vec<ListOffsetsTopicResponse> => 1..;
    }
}

wire_struct! {
    /// The offsets found in one topic.
    pub struct ListOffsetsTopicResponse, versions 1..=11, flexible 6 {
        name: Str => 1..;
        partitions: Vec<ListOffsetsPartitionResponse> => 1..;
    }
}

wire_struct! {
    /// The first offset whose record is not older than the timestamp; -1 if there is none.
    pub struct ListOffsetsPartitionResponse, versions 1..=11, flexible 6 {
        partition_index: i32 => 1..;
        error_code: i16 => 1..;
        timestamp: i64 => 1.. = -1;
        offset: i64 => 1.. = -1;
        leader_epoch: i32 => 4.. else drop = -1;
    }
}

wire_api!(ListOffsets, ListOffsetsRequest, ListOffsetsResponse);

/// Timestamps that stand for something else than a time.
pub mod timestamp {
    /// The next offset to be written (high watermark or last stable offset, by isolation level).
    pub const LATEST: i64 = -1;
    /// The first offset.
    pub const EARLIEST: i64 = -2;
    /// The record with the largest timestamp.
    pub const MAX_TIMESTAMP: i64 = -3;
    /// The first offset on local disks.
    pub const EARLIEST_LOCAL: i64 = -4;
    /// The last offset in remote storage.
    pub const LATEST_TIERED: i64 = -5;
    /// The first offset not yet in remote storage.
    pub const EARLIEST_PENDING_UPLOAD: i64 = -6;

    /// The first request version in which `timestamp` has a meaning; `None` if it has none.
    pub const fn since(timestamp: i64) -> Option<i16> {
        match timestamp {
            0.. | LATEST | EARLIEST => Some(1),
            MAX_TIMESTAMP => Some(7),
            EARLIEST_LOCAL => Some(8),
            LATEST_TIERED => Some(9),
            EARLIEST_PENDING_UPLOAD => Some(11),
            _ => None,
        }
    }
}
