//! Owns transaction coordination as a machine without I/O: which transaction is where, and what is to be written of it.
//! Does not know files, clocks, shards, request schemas, nor how a marker gets into a partition.
//! Invariant: what a log of records says of a transaction is what is known of it; only the epoch before the last is not
//! in it, as in Kafka.

mod coordinator;
mod end;
pub mod records;
#[cfg(test)]
mod tests;
pub mod types;

pub use coordinator::{Prepared, Step, TxnConfig, TxnCoordinator, TxnCtx};
pub use types::*;

/// The topic in which transaction coordinators keep their state.
pub const TXN_TOPIC: &str = "__transaction_state";
