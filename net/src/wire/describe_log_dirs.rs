//! Owns the DescribeLogDirs request (key 35) and its response, versions 1 to 5.
//! Does not know directories or disks.
//! Keeps: sizes are bytes, -1 if unknown.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks for disk usage.
    pub struct DescribeLogDirsRequest, versions 1..=5, flexible 2 {
        /// Null for all.
        topics: Option<Vec<DescribableLogDirTopic>> => 1..;
    }
}

wire_struct! {
    /// Partitions of one topic.
    pub struct DescribableLogDirTopic, versions 1..=5, flexible 2 {
        topic: Str => 1..;
        partitions: Vec<i32> => 1..;
    }
}

wire_struct! {
    /// Disk usage by directory.
    pub struct DescribeLogDirsResponse, versions 1..=5, flexible 2 {
        throttle_time_ms: i32 => 1..;
        error_code: i16 => 3.. else drop;
        results: Vec<DescribeLogDirsResult> => 1..;
    }
}

wire_struct! {
    /// One directory.
    pub struct DescribeLogDirsResult, versions 1..=5, flexible 2 {
        error_code: i16 => 1..;
        log_dir: Str => 1..;
        topics: Vec<DescribeLogDirsTopic> => 1..;
        total_bytes: i64 => 4.. else drop = -1;
        usable_bytes: i64 => 4.. else drop = -1;
        /// Whether new partitions are kept away from here.
        is_cordoned: bool => 5.. else drop;
    }
}

wire_struct! {
    /// Partitions of one topic in a directory.
    pub struct DescribeLogDirsTopic, versions 1..=5, flexible 2 {
        name: Str => 1..;
        partitions: Vec<DescribeLogDirsPartition> => 1..;
    }
}

wire_struct! {
    /// A replica in a directory.
    pub struct DescribeLogDirsPartition, versions 1..=5, flexible 2 {
        partition_index: i32 => 1..;
        partition_size: i64 => 1..;
        /// How far it is behind the high watermark or, if future, the current replica.
        offset_lag: i64 => 1..;
        is_future_key: bool => 1..;
    }
}

wire_api!(
    DescribeLogDirs,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse
);
