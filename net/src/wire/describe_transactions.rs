//! Owns the DescribeTransactions request (key 65) and its response, version 0.
//! Does not know transactions, nor which states there are.
//! Keeps: every id asked for has its own error or state.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks how far transactions are.
    pub struct DescribeTransactionsRequest, versions 0..=0, flexible 0 {
        transactional_ids: Vec<Str> => 0..;
    }
}

wire_struct! {
    /// How far they are.
    pub struct DescribeTransactionsResponse, versions 0..=0, flexible 0 {
        throttle_time_ms: i32 => 0..;
        transaction_states: Vec<DescribedTransaction> => 0..;
    }
}

wire_struct! {
    /// The transaction of one id.
    pub struct DescribedTransaction, versions 0..=0, flexible 0 {
        error_code: i16 => 0..;
        transactional_id: Str => 0..;
        transaction_state: Str => 0..;
        transaction_timeout_ms: i32 => 0..;
        /// -1 where none was begun yet.
        transaction_start_time_ms: i64 => 0..;
        producer_id: i64 => 0..;
        producer_epoch: i16 => 0..;
        topics: Vec<DescribedTransactionTopic> => 0..;
    }
}

wire_struct! {
    /// Partitions of one topic that are in a transaction.
    pub struct DescribedTransactionTopic, versions 0..=0, flexible 0 {
        topic: Str => 0..;
        partitions: Vec<i32> => 0..;
    }
}

wire_api!(
    DescribeTransactions,
    DescribeTransactionsRequest,
    DescribeTransactionsResponse
);
