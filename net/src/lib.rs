//! Owns the Kafka wire protocol and everything that speaks it.
//! Does not know files, segments or how records are stored.
//! Keeps: nothing read from a peer is trusted before it has been checked.

mod config;
mod conn;
mod cores;
mod errors;
/// What levels of features clients find here.
pub mod features;
mod handlers;
mod inbuf;
mod ledger;
mod listen;
pub mod metrics;
mod out;
mod placement;
mod shard;
mod shared;
pub mod wire;

pub use config::NetConfig;
pub use cores::{CoreIds, CoresRefused};
/// For those who feed hostile bytes to it.
pub use inbuf::{Framed, InBuf};
pub use listen::{serve, Listeners};
pub use shared::NetShared;
