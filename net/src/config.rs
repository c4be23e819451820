//! Owns the settings of the network side, already checked and in their own types.
//! Does not know flags, files or environment variables; the binary translates those.
//! Invariant: every bound has a value; nothing here means "unlimited".

use std::time::Duration;

/// Settings of all listeners of one broker process.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Host and port that clients are told to connect to.
    pub advertised_host: String,
    pub advertised_port: u16,
    /// Largest request frame, the size prefix not counted.
    pub request_bytes_max: usize,
    /// A connection without a request under way is closed after this long without a byte.
    pub idle_timeout: Duration,
    /// A frame that has begun must be complete after this long plus its size over `frame_bytes_per_second_min`.
    pub frame_timeout: Duration,
    pub frame_bytes_per_second_min: usize,
    /// A client that takes nothing of a response for this long is closed.
    pub write_timeout: Duration,
    /// How long a connection may take to send its last responses once the broker stops.
    pub stop_grace: Duration,
    /// Connections in all, and from one address.
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    /// Requests of one connection that may be under way at once.
    pub requests_in_flight_max: usize,
    /// Bytes of one connection: requests under way plus responses not sent yet. One request or response larger than
    /// this is served by itself.
    pub connection_bytes_max: usize,
    /// Most record bytes of one fetch response (the first batch excepted).
    pub fetch_bytes_max: usize,
    /// Incremental fetch sessions of the whole node, and partitions remembered by them.
    pub fetch_sessions_max: usize,
    pub fetch_session_partitions_max: usize,
    /// Consecutive requests for partitions of one other shard after which a connection moves there.
    pub move_after_requests: u32,
}

impl Default for NetConfig {
    fn default() -> Self {
        NetConfig {
            advertised_host: "127.0.0.1".to_owned(),
            advertised_port: 9092,
            request_bytes_max: 100 << 20,
            idle_timeout: Duration::from_secs(600),
            frame_timeout: Duration::from_secs(30),
            frame_bytes_per_second_min: 64 << 10,
            write_timeout: Duration::from_secs(60),
            stop_grace: Duration::from_secs(5),
            connections_max: 16_384,
            connections_per_address_max: 8_192,
            requests_in_flight_max: 128,
            connection_bytes_max: 64 << 20,
            fetch_bytes_max: 55 << 20,
            fetch_sessions_max: 1_000,
            fetch_session_partitions_max: 500_000,
            move_after_requests: 64,
        }
    }
}
