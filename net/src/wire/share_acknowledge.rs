//! Owns the ShareAcknowledge request (key 79) and its response, versions 1 and 2.
//! Does not know sessions, nor what becomes of acknowledgements.
//! Keeps: what it shares with ShareFetch is declared there.
use uuid::Uuid;

use super::schema::{wire_api, wire_struct};
use super::share_fetch::{AcknowledgementBatch, ShareLeader, ShareNodeEndpoint};
use super::values::Str;

wire_struct! {
    /// Says what became of records.
    pub struct ShareAcknowledgeRequest, versions 1..=2, flexible 0 {
        group_id: Option<Str> => 1..;
        member_id: Option<Str> => 1..;
        /// -1 closes the session.
        share_session_epoch: i32 => 1..;
        /// Some acknowledgements only renew a lock.
        is_renew_ack: bool => 2..;
        topics: Vec<ShareAcknowledgeTopic> => 1..;
    }
}

wire_struct! {
    /// Of one topic.
    pub struct ShareAcknowledgeTopic, versions 1..=2, flexible 0 {
        topic_id: Uuid => 1..;
        partitions: Vec<ShareAcknowledgePartition> => 1..;
    }
}

wire_struct! {
    /// Of one partition.
    pub struct ShareAcknowledgePartition, versions 1..=2, flexible 0 {
        partition_index: i32 => 1..;
        acknowledgement_batches: Vec<AcknowledgementBatch> => 1..;
    }
}

wire_struct! {
    /// What came of that.
    pub struct ShareAcknowledgeResponse, versions 1..=2, flexible 0 {
        throttle_time_ms: i32 => 1..;
        error_code: i16 => 1..;
        error_message: Option<Str> => 1..;
        acquisition_lock_timeout_ms: i32 => 2.. else drop;
        responses: Vec<ShareAcknowledgedTopic> => 1..;
        /// Where the leaders named in `current_leader` are.
        node_endpoints: Vec<ShareNodeEndpoint> => 1..;
    }
}

wire_struct! {
    /// Of one topic.
    pub struct ShareAcknowledgedTopic, versions 1..=2, flexible 0 {
        topic_id: Uuid => 1..;
        partitions: Vec<ShareAcknowledgedPartition> => 1..;
    }
}

wire_struct! {
    /// Of one partition.
    pub struct ShareAcknowledgedPartition, versions 1..=2, flexible 0 {
        partition_index: i32 => 1..;
        error_code: i16 => 1..;
        error_message: Option<Str> => 1..;
        current_leader: ShareLeader => 1..;
    }
}

wire_api!(
    ShareAcknowledge,
    ShareAcknowledgeRequest,
    ShareAcknowledgeResponse
);
