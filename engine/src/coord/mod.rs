//! Owns group coordination as machines without I/O: what was decided, what is to be written, who gets which answer.
//! Does not know files, clocks, shards or request schemas.
//! Invariant: what a log of records says of a group is all that survives; replaying it gives what was there live.

pub mod batch;
mod codec;
pub mod consumer;
mod coordinator;
mod group;
mod join;
mod offsets;
mod pending;
#[cfg(test)]
mod random;
pub mod records;
pub mod share;
#[cfg(test)]
mod tests;
pub mod txn;
pub mod types;

pub use consumer::{
    Assignor, ConsumerBeat, ConsumerConfig, ConsumerHeartbeat, DescribedConsumerGroup, GroupTimes,
    Migration, TopicFacts, Topics,
};
pub use coordinator::{Append, Coordinator, Ctx, GroupConfig, Memory, Reply, Token};
pub use types::*;

/// The topic in which group coordinators keep their state.
pub const GROUP_TOPIC: &str = "__consumer_offsets";

/// The partition of a coordinators' topic that an id belongs to: Java's hash of its UTF-16 form, as Kafka takes it.
pub fn partition_of(id: &str, partitions: i32) -> i32 {
    assert!(partitions > 0);
    let hash = id.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    // Kafka's abs gives 0 for the one number that has no positive counterpart.
    hash.checked_abs().unwrap_or(0) % partitions
}
