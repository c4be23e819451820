//! Owns the InitProducerId request (key 22) and its response, versions 0 to 5.
//! Does not know how producer ids are assigned.
//! Keeps: producer id and epoch are -1 unless the client resumes.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks for a producer id, or for the next epoch of one.
    pub struct InitProducerIdRequest, versions 0..=5, flexible 2 {
        /// Null for a producer that is only idempotent.
        transactional_id: Option<Str> => 0..;
        transaction_timeout_ms: i32 => 0..;
        /// The id to resume, or -1.
        producer_id: i64 => 3.. = -1;
        producer_epoch: i16 => 3.. = -1;
    }
}

wire_struct! {
    /// The producer id and epoch to use.
    pub struct InitProducerIdResponse, versions 0..=5, flexible 2 {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        producer_id: i64 => 0.. = -1;
        producer_epoch: i16 => 0..;
    }
}

wire_api!(
    InitProducerId,
    InitProducerIdRequest,
    InitProducerIdResponse
);
