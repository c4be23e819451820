//! Owns the ShareFetch request (key 78) and its response, versions 1 and 2.
//! Does not know sessions, nor what becomes of acknowledgements.
//! Keeps: the error of a fetch and that of an acknowledgement are told apart for each partition.
use uuid::Uuid;

use super::schema::{wire_api, wire_struct};
use super::values::{Records, Str};

wire_struct! {
    /// Asks for records of the partitions of a share session, and says what became of those before.
    pub struct ShareFetchRequest, versions 1..=2, flexible 0 {
        group_id: Option<Str> => 1..;
        member_id: Option<Str> => 1..;
        /// 0 opens a session, -1 closes it.
        share_session_epoch: i32 => 1..;
        max_wait_ms: i32 => 1..;
        min_bytes: i32 => 1..;
        max_bytes: i32 => 1.. = i32::MAX;
        max_records: i32 => 1..;
        /// Records in batches of acquired ones that the client would like best.
        batch_size: i32 => 1..;
        /// 0: whole batches, even beyond `max_records`; 1: no more than that.
        share_acquire_mode: i8 => 2.. else drop;
        /// Some acknowledgements only renew a lock, and nothing is to be fetched.
        is_renew_ack: bool => 2.. ;
        topics: Vec<ShareFetchTopic> => 1..;
        /// Partitions to take out of the session.
        forgotten_topics_data: Vec<ShareForgottenTopic> => 1..;
    }
}

wire_struct! {
    /// Partitions of one topic.
    pub struct ShareFetchTopic, versions 1..=2, flexible 0 {
        topic_id: Uuid => 1..;
        partitions: Vec<ShareFetchPartition> => 1..;
    }
}

wire_struct! {
    /// A partition for the session, with acknowledgements.
    pub struct ShareFetchPartition, versions 1..=2, flexible 0 {
        partition_index: i32 => 1..;
        acknowledgement_batches: Vec<AcknowledgementBatch> => 1..;
    }
}

wire_struct! {
    /// What became of records that follow each other: one type for all, or one for each offset.
    pub struct AcknowledgementBatch, versions 1..=2, flexible 0 {
        first_offset: i64 => 1..;
        last_offset: i64 => 1..;
        /// 0 gap, 1 accept, 2 release, 3 reject, 4 renew.
        acknowledge_types: Vec<i8> => 1..;
    }
}

wire_struct! {
    /// Partitions of one topic to take out of the session.
    pub struct ShareForgottenTopic, versions 1..=2, flexible 0 {
        topic_id: Uuid => 1..;
        partitions: Vec<i32> => 1..;
    }
}

wire_struct! {
    /// Records of many partitions, and which of them are the member's.
    pub struct ShareFetchResponse, versions 1..=2, flexible 0 {
        throttle_time_ms: i32 => 1..;
        error_code: i16 => 1..;
        error_message: Option<Str> => 1..;
        acquisition_lock_timeout_ms: i32 => 1..;
        responses: Vec<ShareFetchableTopic> => 1..;
        /// Where the leaders named in `current_leader` are.
        node_endpoints: Vec<ShareNodeEndpoint> => 1..;
    }
}

wire_struct! {
    /// Records of one topic.
    pub struct ShareFetchableTopic, versions 1..=2, flexible 0 {
        topic_id: Uuid => 1..;
        partitions: Vec<SharePartitionData> => 1..;
    }
}

wire_struct! {
    /// Records of one partition.
    pub struct SharePartitionData, versions 1..=2, flexible 0 {
        partition_index: i32 => 1..;
        error_code: i16 => 1..;
        error_message: Option<Str> => 1..;
        acknowledge_error_code: i16 => 1..;
        acknowledge_error_message: Option<Str> => 1..;
        current_leader: ShareLeader => 1..;
        records: Records => 1..;
        /// Which of the records are the member's now.
        acquired_records: Vec<AcquiredRecords> => 1..;
    }
}

wire_struct! {
    /// The leader known here; -1 if there is nothing to tell.
    pub struct ShareLeader, versions 1..=2, flexible 0 {
        leader_id: i32 => 1.. = -1;
        leader_epoch: i32 => 1.. = -1;
    }
}

wire_struct! {
    /// Records that follow each other.
    pub struct AcquiredRecords, versions 1..=2, flexible 0 {
        first_offset: i64 => 1..;
        last_offset: i64 => 1..;
        delivery_count: i16 => 1..;
    }
}

wire_struct! {
    /// Where a broker listens.
    pub struct ShareNodeEndpoint, versions 1..=2, flexible 0 {
        node_id: i32 => 1..;
        host: Str => 1..;
        port: i32 => 1..;
        rack: Option<Str> => 1..;
    }
}

wire_api!(ShareFetch, ShareFetchRequest, ShareFetchResponse);
