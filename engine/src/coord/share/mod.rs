//! Owns share groups (KIP-932) as machines without I/O: who is a member, which records are with whom, and what of that
//! is kept.
//! Does not know files, clocks, shards or request schemas.
//! Invariant: what the records of a machine say is all that survives; replaying them gives what was there live.

mod assign;
pub mod members;
pub mod partition;
pub mod records;
pub mod runs;
pub mod states;
#[cfg(test)]
mod tests;
pub mod types;

pub use members::{ShareCtx, ShareGroupConfig, ShareGroups, TopicNow};
pub use partition::{ShareConfig, SharePartition};
pub use states::ShareStates;
pub use types::*;

/// The topic in which the states of share-partitions are kept.
pub const SHARE_TOPIC: &str = "__share_group_state";
