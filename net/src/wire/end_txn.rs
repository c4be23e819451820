//! Owns the EndTxn request (key 26) and its response, versions 0 to 5.
//! Does not know transactions.
//! Keeps: from version 5 on the answer says who the producer is from now on, before that nothing changes it.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Commits or aborts a transaction.
    pub struct EndTxnRequest, versions 0..=5, flexible 3 {
        transactional_id: Str => 0..;
        producer_id: i64 => 0..;
        producer_epoch: i16 => 0..;
        /// False to abort.
        committed: bool => 0..;
    }
}

wire_struct! {
    /// Whether that is certain.
    pub struct EndTxnResponse, versions 0..=5, flexible 3 {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        producer_id: i64 => 5.. else drop = -1;
        producer_epoch: i16 => 5.. else drop = -1;
    }
}

wire_api!(EndTxn, EndTxnRequest, EndTxnResponse);
