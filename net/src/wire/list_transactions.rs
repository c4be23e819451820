//! Owns the ListTransactions request (key 66) and its response, versions 0 to 2.
//! Does not know transactions, nor which states there are.
//! Keeps: a filter is refused where the version cannot carry it, as all transactions would be another answer.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks which transactions there are; an empty filter lets all of them through.
    pub struct ListTransactionsRequest, versions 0..=2, flexible 0 {
        state_filters: Vec<Str> => 0..;
        producer_id_filters: Vec<i64> => 0..;
        /// Only what was begun longer ago, in milliseconds; negative for all.
        duration_filter: i64 => 1.. = -1;
        /// Only ids that this regular expression matches as a whole; null or empty for all.
        transactional_id_pattern: Option<Str> => 2..;
    }
}

wire_struct! {
    /// The transactions.
    pub struct ListTransactionsResponse, versions 0..=2, flexible 0 {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        /// States that were asked for and do not exist.
        unknown_state_filters: Vec<Str> => 0..;
        transaction_states: Vec<ListedTransaction> => 0..;
    }
}

wire_struct! {
    /// A transaction.
    pub struct ListedTransaction, versions 0..=2, flexible 0 {
        transactional_id: Str => 0..;
        producer_id: i64 => 0..;
        transaction_state: Str => 0..;
    }
}

wire_api!(
    ListTransactions,
    ListTransactionsRequest,
    ListTransactionsResponse
);
