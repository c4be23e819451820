//! Owns the Fetch request (key 1) and its response, versions 4 to 18. From 13 on topics go by id.
//! Does not know sessions, long polls or what the records contain.
//! Keeps: record bytes are written by reference where the writer shares, in as many chunks as the reader of the log gave.
use uuid::Uuid;

use super::schema::{wire_api, wire_struct};
use super::values::{Records, Str};

wire_struct! {
    /// Asks for records of many partitions, waiting up to `max_wait_ms` for `min_bytes`.
    pub struct FetchRequest, versions 4..=18, flexible 12 {
        /// -1 for consumers.
        replica_id: i32 => 4..=14 = -1;
        max_wait_ms: i32 => 4..;
        min_bytes: i32 => 4..;
        max_bytes: i32 => 4.. = i32::MAX;
        /// 0: up to the high watermark; 1: up to the last stable offset.
        isolation_level: i8 => 4..;
        session_id: i32 => 7.. else drop;
        /// 0 asks for a new session, -1 for none.
        session_epoch: i32 => 7.. else drop = -1;
        topics: Vec<FetchTopic> => 4..;
        /// Partitions to take out of the session.
        forgotten_topics_data: Vec<ForgottenTopic> => 7..;
        rack_id: Str => 11.. else drop;
    } tagged {
        0: cluster_id: Option<Str> => 12..;
        /// What `replica_id` was before.
        1: replica_state: ReplicaState => 15..;
    }
}

wire_struct! {
    /// Who asks, if it is a broker.
    pub struct ReplicaState, versions 4..=18, flexible 12 {
        /// -1 for consumers.
        replica_id: i32 => 15.. = -1;
        replica_epoch: i64 => 15.. = -1;
    }
}

wire_struct! {
    /// Partitions of one topic to read.
    pub struct FetchTopic, versions 4..=18, flexible 12 {
        topic: Str => 4..=12 else drop;
        topic_id: Uuid => 13.. else drop;
        partitions: Vec<FetchPartition> => 4..;
    }
}

wire_struct! {
    /// Where to read one partition.
    pub struct FetchPartition, versions 4..=18, flexible 12 {
        partition: i32 => 4..;
        /// Epoch of the leader the client believes in; -1 skips the check.
        current_leader_epoch: i32 => 9.. else drop = -1;
        fetch_offset: i64 => 4..;
        /// Epoch of the last record read, to find divergence; -1 if unknown.
        last_fetched_epoch: i32 => 12.. = -1;
        log_start_offset: i64 => 5.. else drop = -1;
        partition_max_bytes: i32 => 4..;
    } tagged {
        /// Where a replica keeps the partition.
        0: replica_directory_id: Uuid => 17..;
        /// The high watermark that a replica knows.
        1: high_watermark: i64 => 18.. = i64::MAX;
    }
}

wire_struct! {
    /// Partitions of one topic to take out of the session.
    pub struct ForgottenTopic, versions 4..=18, flexible 12 {
        topic: Str => 7..=12 else drop;
        topic_id: Uuid => 13.. else drop;
        partitions: Vec<i32> => 7..;
    }
}

wire_struct! {
    /// Records of many partitions.
    pub struct FetchResponse, versions 4..=18, flexible 12 {
        throttle_time_ms: i32 => 4..;
        error_code: i16 => 7.. else drop;
        /// 0 if there is no session.
        session_id: i32 => 7..;
        responses: Vec<FetchableTopicResponse> => 4..;
    } tagged {
        /// Where the leaders named in `current_leader` are.
        0: node_endpoints: Vec<NodeEndpoint> => 16..;
    }
}

wire_struct! {
    /// Where a broker listens.
    pub struct NodeEndpoint, versions 4..=18, flexible 12 {
        node_id: i32 => 16..;
        host: Str => 16..;
        port: i32 => 16..;
        rack: Option<Str> => 16..;
    }
}

wire_struct! {
    /// Records of one topic.
    pub struct FetchableTopicResponse, versions 4..=18, flexible 12 {
        topic: Str => 4..=12 else drop;
        topic_id: Uuid => 13.. else drop;
        partitions: Vec<PartitionData> => 4..;
    }
}

wire_struct! {
    /// Records of one partition.
    pub struct PartitionData, versions 4..=18, flexible 12 {
        partition_index: i32 => 4..;
        error_code: i16 => 4..;
        /// -1 on error.
        high_watermark: i64 => 4..;
        last_stable_offset: i64 => 4.. = -1;
        log_start_offset: i64 => 5.. else drop = -1;
        /// By ascending first offset; null for `isolation_level` 0.
        aborted_transactions: Option<Vec<AbortedTransaction>> => 4..;
        /// -1: keep reading here.
        preferred_read_replica: i32 => 11.. = -1;
        records: Records => 4..;
    } tagged {
        0: diverging_epoch: EpochEndOffset => 12..;
        /// The leader known here, where the client believes in another.
        1: current_leader: LeaderIdAndEpoch => 12..;
        2: snapshot_id: SnapshotId => 12..;
    }
}

wire_struct! {
    /// The largest epoch not above the one fetched last, and where it ends: the logs diverge there.
    pub struct EpochEndOffset, versions 4..=18, flexible 12 {
        epoch: i32 => 12.. = -1;
        end_offset: i64 => 12.. = -1;
    }
}

wire_struct! {
    /// The leader of a partition as far as this broker knows; -1 if it does not.
    pub struct LeaderIdAndEpoch, versions 4..=18, flexible 12 {
        leader_id: i32 => 12.. = -1;
        leader_epoch: i32 => 12.. = -1;
    }
}

wire_struct! {
    /// A snapshot to fetch instead; only the metadata log of the original uses it.
    pub struct SnapshotId, versions 4..=18, flexible 12 {
        end_offset: i64 => 4.. = -1;
        epoch: i32 => 4.. = -1;
    }
}

wire_struct! {
    /// A transaction whose records are to be skipped until its abort marker.
    pub struct AbortedTransaction, versions 4..=18, flexible 12 {
        producer_id: i64 => 4..;
        first_offset: i64 => 4..;
    }
}

wire_api!(Fetch, FetchRequest, FetchResponse);
