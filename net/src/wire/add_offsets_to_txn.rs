//! Owns the AddOffsetsToTxn request (key 25) and its response, versions 0 to 4.
//! Does not know transactions or groups.
//! Keeps: every version has the same fields.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Says that a group's offsets will be committed in a transaction.
    pub struct AddOffsetsToTxnRequest, versions 0..=4, flexible 3 {
        transactional_id: Str => 0..;
        producer_id: i64 => 0..;
        producer_epoch: i16 => 0..;
        group_id: Str => 0..;
    }
}

wire_struct! {
    /// Whether they can be.
    pub struct AddOffsetsToTxnResponse, versions 0..=4, flexible 3 {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
    }
}

wire_api!(
    AddOffsetsToTxn,
    AddOffsetsToTxnRequest,
    AddOffsetsToTxnResponse
);
