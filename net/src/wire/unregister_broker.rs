//! Owns the UnregisterBroker request (key 64) and its response, version 0.
//! Does not know which brokers are registered.
//! Keeps: one broker a request.
use super::schema::{wire_api, wire_struct};
use super::values::Str;

wire_struct! {
    /// Asks to forget a broker that is gone for good.
    pub struct UnregisterBrokerRequest, versions 0..=0, flexible 0 {
        broker_id: i32 => 0..;
    }
}

wire_struct! {
    /// What became of that.
    pub struct UnregisterBrokerResponse, versions 0..=0, flexible 0 {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
    }
}

wire_api!(
    UnregisterBroker,
    UnregisterBrokerRequest,
    UnregisterBrokerResponse
);
