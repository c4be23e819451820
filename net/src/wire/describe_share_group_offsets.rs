//! Owns the DescribeShareGroupOffsets request (key 90) and its response, versions 0 and 1.
//! Does not know groups.
//! Keeps: a group and each of its partitions have their own errors.
use uuid::Uuid;

use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks where groups are.
    pub struct DescribeShareGroupOffsetsRequest, versions 0..=1, flexible 0 {
        groups: Vec<ShareOffsetsGroup> => 0..;
    }
}

wire_struct! {
    /// A group.
    pub struct ShareOffsetsGroup, versions 0..=1, flexible 0 {
        group_id: Str => 0..;
        /// Null: all that it has read.
        topics: Option<Vec<ShareOffsetsTopic>> => 0..;
    }
}

wire_struct! {
    /// A topic.
    pub struct ShareOffsetsTopic, versions 0..=1, flexible 0 {
        topic_name: Str => 0..;
        partitions: Vec<i32> => 0..;
    }
}

wire_struct! {
    /// The groups.
    pub struct DescribeShareGroupOffsetsResponse, versions 0..=1, flexible 0 {
        throttle_time_ms: i32 => 0..;
        groups: Vec<DescribedShareOffsetsGroup> => 0..;
    }
}

wire_struct! {
    /// A group.
    pub struct DescribedShareOffsetsGroup, versions 0..=1, flexible 0 {
        group_id: Str => 0..;
        topics: Vec<DescribedShareOffsetsTopic> => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
    }
}

wire_struct! {
    /// A topic.
    pub struct DescribedShareOffsetsTopic, versions 0..=1, flexible 0 {
        topic_name: Str => 0..;
        topic_id: Uuid => 0..;
        partitions: Vec<DescribedShareOffset> => 0..;
    }
}

wire_struct! {
    /// A partition.
    pub struct DescribedShareOffset, versions 0..=1, flexible 0 {
        partition_index: i32 => 0..;
        /// -1 where the group has not begun.
        start_offset: i64 => 0..;
        leader_epoch: i32 => 0..;
        /// -1 where it is not known.
        lag: i64 => 1.. else drop = -1;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
    }
}

wire_api!(
    DescribeShareGroupOffsets,
    DescribeShareGroupOffsetsRequest,
    DescribeShareGroupOffsetsResponse
);
