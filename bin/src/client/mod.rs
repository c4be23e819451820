//! Owns the command line's Kafka client: connections, metadata, leaders, retries, producing and fetching.
//! Does not know this broker's internals: it speaks the protocol and works against any broker.
//! Invariant: every wait, retry and buffer is bounded.

pub mod admin;
pub mod assignment;
pub mod cluster;
pub mod conn;
mod consumer_groups;
pub mod description;
pub mod error;
pub mod fetcher;
pub mod groups;
pub mod interrupt;
pub mod isolation;
pub mod offsets;
pub mod partitioner;
pub mod sender;
pub mod shares;
pub mod transactions;

#[cfg(test)]
mod groups_tests;
#[cfg(test)]
mod tests;

pub use cluster::Cluster;
pub use error::ClientError;
pub use isolation::Isolation;

use crate::units::HostPort;
use std::time::Duration;

/// How long an answer may take beyond what the request itself allows the broker to wait.
pub const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How long a broker may take for what it does on our behalf (create a topic, replicate a batch).
pub const BROKER_TIMEOUT_MS: i32 = 20_000;

/// Where to find the cluster; the same flag in every client command.
#[derive(clap::Args, Clone, Debug)]
pub struct Bootstrap {
    /// Brokers to ask first; more than one may be given, separated by commas
    #[arg(
        long,
        short = 'b',
        env = "MILLRACE_BOOTSTRAP",
        hide_env_values = true,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        default_value = "127.0.0.1:9092"
    )]
    pub bootstrap: Vec<HostPort>,
}
