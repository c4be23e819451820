//! Owns groups of the consumer protocol (KIP-848) as machines without I/O: epochs, targets, and the way of members there.
//! Does not know files, clocks, shards or request schemas; topics it sees through [`Topics`].
//! Invariant: a partition is never assigned to a member while another one holds it; state changes by records only.

mod assign;
mod classic;
mod convert;
mod coordinator;
mod group;
mod heartbeat;
mod leave;
mod offsets;
mod plan;
mod reconcile;
pub mod records;
mod subscription;
mod types;

pub use group::ConsumerGroup;
pub use records::Record;
pub use types::*;
