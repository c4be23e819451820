//! Owns the AddPartitionsToTxn request (key 24) and its response, versions 0 to 5.
//! Does not know transactions, nor which partitions exist.
//! Keeps: one transaction up to version 3, many from 4 on; an answer in the wrong shape refuses to encode.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Adds partitions to transactions, or asks whether they are in them.
    pub struct AddPartitionsToTxnRequest, versions 0..=5, flexible 3 {
        transactions: Vec<AddPartitionsToTxnTransaction> => 4..;
        /// Of the only transaction, up to version 3.
        v3_and_below_transactional_id: Str => 0..=3;
        v3_and_below_producer_id: i64 => 0..=3;
        v3_and_below_producer_epoch: i16 => 0..=3;
        v3_and_below_topics: Vec<AddPartitionsToTxnTopic> => 0..=3;
    }
}

wire_struct! {
    /// One transaction; brokers ask for many at once.
    pub struct AddPartitionsToTxnTransaction, versions 0..=5, flexible 3 {
        transactional_id: Str => 4..;
        producer_id: i64 => 4..;
        producer_epoch: i16 => 4..;
        /// Nothing is added: whether the partitions are in the transaction is what is asked.
        verify_only: bool => 4..;
        topics: Vec<AddPartitionsToTxnTopic> => 4..;
    }
}

wire_struct! {
    /// Partitions of one topic.
    pub struct AddPartitionsToTxnTopic, versions 0..=5, flexible 3 {
        name: Str => 0..;
        partitions: Vec<i32> => 0..;
    }
}

wire_struct! {
    /// What became of each partition.
    pub struct AddPartitionsToTxnResponse, versions 0..=5, flexible 3 {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 4.. else drop;
        results_by_transaction: Vec<AddPartitionsToTxnResult> => 4..;
        results_by_topic_v3_and_below: Vec<AddPartitionsToTxnTopicResult> => 0..=3;
    }
}

wire_struct! {
    /// What became of the partitions of one transaction.
    pub struct AddPartitionsToTxnResult, versions 0..=5, flexible 3 {
        transactional_id: Str => 4..;
        topic_results: Vec<AddPartitionsToTxnTopicResult> => 4..;
    }
}

wire_struct! {
    /// What became of the partitions of one topic.
    pub struct AddPartitionsToTxnTopicResult, versions 0..=5, flexible 3 {
        name: Str => 0..;
        results_by_partition: Vec<AddPartitionsToTxnPartitionResult> => 0..;
    }
}

wire_struct! {
    /// What became of one partition.
    pub struct AddPartitionsToTxnPartitionResult, versions 0..=5, flexible 3 {
        partition_index: i32 => 0..;
        partition_error_code: i16 => 0..;
    }
}

wire_api!(
    AddPartitionsToTxn,
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse
);
