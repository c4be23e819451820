//! Owns the settings of the network side, already checked and in their own types.
//! Does not know flags, files or environment variables; the binary translates those.
//! Invariant: every bound has a value; nothing here means "unlimited".

use millrace_engine::api::meta::config::Layers;
use millrace_engine::api::meta::{BrokerConfig, ConfigError, Overrides};
use std::time::Duration;

/// What `connections.max.idle.ms` means below zero: longer than a machine runs, and yet a bound.
const IDLE_FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Settings of all listeners of one broker process.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Host and port that clients are told to connect to.
    pub advertised_host: String,
    pub advertised_port: u16,
    /// Ports under which each shard, by its number, is a broker of its own to clients; none where the node is one broker. The
    /// node and the number of shards have to be such that [`CoreIds`](crate::CoreIds) has ids for them.
    pub core_ports: Vec<u16>,
    /// Largest request frame, the size prefix not counted; less where a shard has not that much memory for requests.
    pub request_bytes_max: usize,
    /// A connection without a request under way is closed after this long without a byte.
    pub idle_timeout: Duration,
    /// A frame that has begun must be complete after this long plus its size over `frame_bytes_per_second_min`.
    pub frame_timeout: Duration,
    pub frame_bytes_per_second_min: usize,
    /// What is left of `frame_timeout` for a frame that holds memory which other requests wait for.
    pub frame_grace_pressed: Duration,
    /// A client that takes nothing of a response for this long is closed.
    pub write_timeout: Duration,
    /// What is left of `write_timeout` while responses that nobody takes use up their memory.
    pub write_grace_pressed: Duration,
    /// How long a connection may take to send its last responses once the broker stops.
    pub stop_grace: Duration,
    /// Connections in all, and from one address, unless the cluster's settings say otherwise while the broker runs:
    /// see [`NetConfig::broker_settings`].
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
            core_ports: Vec::new(),
            request_bytes_max: 100 << 20,
            idle_timeout: Duration::from_secs(600),
            frame_timeout: Duration::from_secs(30),
            frame_bytes_per_second_min: 64 << 10,
            frame_grace_pressed: Duration::from_secs(1),
            write_timeout: Duration::from_secs(60),
            write_grace_pressed: Duration::from_secs(2),
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

impl NetConfig {
    /// What the engine is to be started with, so that settings which are changed at run time by Kafka's names are shown
    /// and begin with these values. The net layer follows the engine's from then on.
    pub fn broker_settings(&self) -> Overrides {
        let setting = |name: &str, count: usize| (name.to_owned(), count.to_string());
        Overrides::from([
            setting("max.connections", self.connections_max),
            setting("max.connections.per.ip", self.connections_per_address_max),
        ])
    }

    /// Takes over what the settings of a start say, by Kafka's names, of what is fixed from then on.
    ///
    /// # Errors
    /// A value that is invalid.
    pub fn follow(&mut self, settings: &Overrides) -> Result<(), ConfigError> {
        let none = Overrides::new();
        let settings = BrokerConfig::resolve(Layers {
            node: &none,
            cluster: &none,
            fixed: settings,
        })?;
        let count = |number: i32| usize::try_from(number).expect("its rule keeps it above zero");
        self.idle_timeout = match u64::try_from(settings.connections_max_idle_ms) {
            Ok(ms) => Duration::from_millis(ms),
            Err(_) => IDLE_FOR_EVER,
        };
        self.fetch_bytes_max = count(settings.fetch_max_bytes);
        self.request_bytes_max = count(settings.socket_request_max_bytes);
        self.fetch_sessions_max = count(settings.max_incremental_fetch_session_cache_slots);
        Ok(())
    }
}

/// Connections that may be open at once, by the settings of the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionCaps {
    pub(crate) total: usize,
    pub(crate) per_address: usize,
}

impl ConnectionCaps {
    pub(crate) fn of(settings: &BrokerConfig) -> ConnectionCaps {
        // With none at all, nobody could connect to set another number.
        let cap = |count: i32| usize::try_from(count).unwrap_or(0).max(1);
        ConnectionCaps {
            total: cap(settings.max_connections),
            per_address: cap(settings.max_connections_per_ip),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_engine::api::meta::Image;

    #[test]
    fn what_is_shown_by_kafkas_names_is_what_holds() {
        let net = NetConfig::default();
        let image = Image::new("c".into(), 1, net.broker_settings().into()).unwrap();
        let shown = image.broker_config;
        assert_eq!(
            ConnectionCaps::of(&shown),
            ConnectionCaps {
                total: net.connections_max,
                per_address: net.connections_per_address_max
            }
        );
        let fixed = |net: &NetConfig| {
            (
                net.idle_timeout,
                net.fetch_bytes_max,
                net.request_bytes_max,
                net.fetch_sessions_max,
            )
        };
        let mut same = NetConfig::default();
        same.follow(&net.broker_settings()).unwrap();
        assert_eq!(fixed(&same), fixed(&net), "Kafka's defaults are ours");
        let set = [
            ("connections.max.idle.ms", "-1"),
            ("fetch.max.bytes", "2048"),
            ("socket.request.max.bytes", "4096"),
            ("max.incremental.fetch.session.cache.slots", "0"),
        ];
        let set = set.map(|(name, value)| (name.to_owned(), value.to_owned()));
        same.follow(&Overrides::from(set)).unwrap();
        assert_eq!(fixed(&same), (IDLE_FOR_EVER, 2_048, 4_096, 0));
        let none = BrokerConfig {
            max_connections: 0,
            ..(*shown).clone()
        };
        assert_eq!(ConnectionCaps::of(&none).total, 1);
    }
}
