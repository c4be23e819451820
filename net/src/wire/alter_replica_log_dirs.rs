//! Owns the AlterReplicaLogDirs request (key 34) and its response, versions 1 to 2.
//! Does not know which directories there are.
//! Keeps: a directory is named by its path as DescribeLogDirs gives it.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks for partitions in other directories.
    pub struct AlterReplicaLogDirsRequest, versions 1..=2, flexible 2 {
        dirs: Vec<AlterReplicaLogDir> => 1..;
    }
}

wire_struct! {
    /// A directory, and what shall be in it.
    pub struct AlterReplicaLogDir, versions 1..=2, flexible 2 {
        path: Str => 1..;
        topics: Vec<AlterReplicaLogDirTopic> => 1..;
    }
}

wire_struct! {
    /// Partitions of one topic.
    pub struct AlterReplicaLogDirTopic, versions 1..=2, flexible 2 {
        name: Str => 1..;
        partitions: Vec<i32> => 1..;
    }
}

wire_struct! {
    /// What became of the moves.
    pub struct AlterReplicaLogDirsResponse, versions 1..=2, flexible 2 {
        throttle_time_ms: i32 => 1..;
        results: Vec<AlterReplicaLogDirTopicResult> => 1..;
    }
}

wire_struct! {
    /// What became of those of one topic.
    pub struct AlterReplicaLogDirTopicResult, versions 1..=2, flexible 2 {
        topic_name: Str => 1..;
        partitions: Vec<AlterReplicaLogDirPartitionResult> => 1..;
    }
}

wire_struct! {
    /// What became of one.
    pub struct AlterReplicaLogDirPartitionResult, versions 1..=2, flexible 2 {
        partition_index: i32 => 1..;
        error_code: i16 => 1..;
    }
}

wire_api!(
    AlterReplicaLogDirs,
    AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse
);
