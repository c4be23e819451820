//! Owns holding many connections that say nothing, and what they cost the broker.
//! Does not know topics.
//! Invariant: every counted connection was answered once, so the broker knows it.

use crate::client::Client;
use crate::error::PerfError;
use crate::process::{self, Process, Usage};
use serde::Serialize;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What idle connections cost.
#[derive(Clone, Debug, Serialize)]
pub struct Idle {
    pub connections: usize,
    pub connect_seconds: f64,
    pub idle_seconds: f64,
    /// Of the broker, while the connections idled.
    pub cpu_percent: Option<f64>,
    pub usage: Option<Usage>,
    pub rss_bytes_before: Option<u64>,
    /// Growth of resident memory from before the first connection to the end, for each connection.
    pub rss_bytes_per_connection: Option<f64>,
}

/// Makes `connections` that were answered once each and say nothing more.
pub fn connect(address: SocketAddr, connections: usize) -> Result<Vec<Client>, PerfError> {
    let one = |_| {
        let mut client = Client::connect(address, CONNECT_TIMEOUT)?;
        client.negotiate()?;
        Ok(client)
    };
    (0..connections).map(one).collect()
}

/// Holds `connections` for `duration`; none of them measures an idle broker.
pub fn hold(
    address: SocketAddr,
    connections: usize,
    duration: Duration,
    pid: Option<u32>,
) -> Result<Idle, PerfError> {
    process::allow_many_files();
    let broker = pid.map(Process::new);
    let sample = || broker.as_ref().map(Process::sample).transpose();
    let first = sample()?;
    let started = Instant::now();
    let held = connect(address, connections)?;
    let connect_seconds = started.elapsed().as_secs_f64();
    let before = sample()?;
    let started = Instant::now();
    std::thread::sleep(duration);
    let idle_seconds = started.elapsed().as_secs_f64();
    let after = sample()?;
    drop(held);
    let usage = after
        .as_ref()
        .zip(before.as_ref())
        .map(|(after, before)| after.usage_since(before));
    let before_bytes = first
        .as_ref()
        .map(|first| first.usage_since(first).rss_bytes);
    let per_connection = usage.as_ref().zip(before_bytes).filter(|_| connections > 0);
    Ok(Idle {
        connections,
        connect_seconds,
        idle_seconds,
        cpu_percent: usage
            .as_ref()
            .map(|usage| 100.0 * usage.cpu_seconds / idle_seconds),
        rss_bytes_per_connection: per_connection.map(|(usage, before)| {
            usage.rss_bytes.saturating_sub(before) as f64 / connections as f64
        }),
        usage,
        rss_bytes_before: before_bytes,
    })
}
