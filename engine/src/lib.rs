//! Owns storage, replication and coordination: what a broker does with records once they arrived.
//! Does not know sockets' contents nor any Kafka request schema.
//! Invariant: nothing is acknowledged before it is on stable storage, unless its topic asked for that.

pub mod adopt;
pub mod api;
pub mod error;
pub mod formats;
pub mod inspect;
pub mod meta;
pub mod plant;
pub mod rt;
pub mod types;

mod checkpoint;
mod coord;
mod journal;
mod log;
mod manifest;
mod replica;
mod shard;
