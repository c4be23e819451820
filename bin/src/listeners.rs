//! Owns the sockets that clients connect to: which they are, binding them, and where clients are told to find them.
//! Does not know who accepts connections from them.
//! Invariant: with `advertise-cores` every shard has a socket of its own, and the ports follow those of the node in order.

use crate::config::Config;
use crate::failure::Failure;
use crate::host::ports;
use crate::units::HostPort;
use millrace_engine::api::meta::Overrides;
use std::net::TcpListener;

/// Bound once, for the life of the process.
pub struct Listeners {
    /// The node's, in the order of the setting; all shards accept from them.
    pub of_node: Vec<TcpListener>,
    /// By shard; none without `advertise-cores`.
    pub of_shards: Vec<TcpListener>,
}

/// What clients are told.
pub struct Advertised {
    pub node: HostPort,
    /// Ports by shard, on the same host; none without `advertise-cores`.
    pub core_ports: Vec<u16>,
}

/// The port of a shard where the node's is `port`; of a free one, a free one. `Config` has seen to it that there is one.
fn port_of_shard(port: u16, shard: usize) -> u16 {
    let own = || u16::try_from(usize::from(port) + 1 + shard).expect("checked with the settings");
    if port == 0 {
        0
    } else {
        own()
    }
}

/// Where each shard is to listen.
pub fn wanted_of_shards(config: &Config) -> Vec<HostPort> {
    let shards = if config.advertise_cores {
        config.shards
    } else {
        0
    };
    let first = &config.listen[0];
    (0..shards)
        .map(|shard| HostPort::new(&first.host, port_of_shard(first.port, shard)))
        .collect()
}

/// Binds the socket of one shard.
pub fn bind_of_shard(wanted: &HostPort, shard: usize) -> Result<TcpListener, Failure> {
    ports::bind(wanted, "listen").map_err(|failure| {
        failure.todo(format!(
            "With --advertise-cores each shard has a port of its own, after the one of the first --listen; this one is \
             for shard {shard}. Stop what uses it, or choose another --listen."
        ))
    })
}

impl Listeners {
    pub fn bind(config: &Config) -> Result<Listeners, Failure> {
        let of_node = config.listen.iter();
        let of_node: Vec<TcpListener> = of_node
            .map(|wanted| ports::bind(wanted, "listen"))
            .collect::<Result<_, _>>()?;
        let wanted = wanted_of_shards(config).into_iter();
        let of_shards = wanted
            .enumerate()
            .map(|(shard, wanted)| bind_of_shard(&wanted, shard));
        Ok(Listeners {
            of_shards: of_shards.collect::<Result<_, _>>()?,
            of_node,
        })
    }

    /// Other handles of the same sockets.
    pub fn try_clone(&self) -> std::io::Result<Listeners> {
        let clones = |of: &[TcpListener]| of.iter().map(TcpListener::try_clone).collect();
        let of_node: std::io::Result<_> = clones(&self.of_node);
        Ok(Listeners {
            of_node: of_node?,
            of_shards: clones(&self.of_shards)?,
        })
    }

    /// Where clients are told to connect.
    pub fn advertised(&self, config: &Config) -> Result<Advertised, Failure> {
        let first = bound_port(self.of_node.first().expect("there is a listener"))?;
        let given = config.advertise.as_ref().map_or(0, |wanted| wanted.port);
        let of_shards = self.of_shards.iter().enumerate();
        let core_ports = of_shards.map(|(shard, listener)| match given {
            0 => bound_port(listener),
            port => Ok(port_of_shard(port, shard)),
        });
        Ok(Advertised {
            core_ports: core_ports.collect::<Result<_, _>>()?,
            node: HostPort::new(
                self.advertised_host(config, first)?,
                if given == 0 { first } else { given },
            ),
        })
    }

    /// The same as the settings that Kafka has for it, which tools are shown as given at the start.
    pub fn settings(&self, config: &Config, advertised: &Advertised) -> Result<Overrides, Failure> {
        let mut listeners = Vec::with_capacity(self.of_node.len());
        for (wanted, bound) in config.listen.iter().zip(&self.of_node) {
            let bound = HostPort::new(&wanted.host, bound_port(bound)?);
            listeners.push(format!("PLAINTEXT://{bound}"));
        }
        Ok(Overrides::from([
            ("listeners".to_string(), listeners.join(",")),
            (
                "advertised.listeners".to_string(),
                format!("PLAINTEXT://{}", advertised.node),
            ),
        ]))
    }

    fn advertised_host(&self, config: &Config, port: u16) -> Result<String, Failure> {
        if let Some(wanted) = &config.advertise {
            return Ok(wanted.host.clone());
        }
        let first = self.of_node[0].local_addr().map_err(unreadable)?;
        if !first.ip().is_unspecified() {
            return Ok(config.listen[0].host.clone());
        }
        let host = ports::host_name().unwrap_or_else(|| "127.0.0.1".to_string());
        tracing::warn!(
            "clients are told to connect to {host}:{port}; set --advertise if they cannot"
        );
        Ok(host)
    }
}

fn bound_port(listener: &TcpListener) -> Result<u16, Failure> {
    Ok(listener.local_addr().map_err(unreadable)?.port())
}

fn unreadable(error: std::io::Error) -> Failure {
    Failure::new(format!("cannot read a listener's address: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn config(listen: &str, advertise: Option<&str>, advertise_cores: bool) -> Config {
        let settings = Settings {
            listen: vec![listen.parse().unwrap()],
            advertise: advertise.map(|at| at.parse().unwrap()),
            advertise_cores: Some(advertise_cores),
            shards: Some(2),
            ..Settings::default()
        };
        settings.resolve().unwrap()
    }

    fn advertised(advertise: Option<&str>, cores: bool) -> (Listeners, Advertised) {
        let config = config("127.0.0.1:0", advertise, cores);
        let listeners = Listeners::bind(&config).unwrap();
        let advertised = listeners.advertised(&config).unwrap();
        (listeners, advertised)
    }

    #[test]
    fn ports_of_shards_follow_the_nodes_unless_they_are_free_ones() {
        let wanted = |listen| {
            let wanted = wanted_of_shards(&config(listen, None, true));
            wanted.iter().map(HostPort::to_string).collect::<Vec<_>>()
        };
        assert_eq!(wanted("[::1]:9092"), ["[::1]:9093", "[::1]:9094"]);
        assert_eq!(wanted("h:0"), ["h:0", "h:0"]);
        assert!(wanted_of_shards(&config("h:9092", None, false)).is_empty());
    }

    #[test]
    fn clients_are_told_what_is_advertised_or_bound() {
        let (listeners, told) = advertised(None, true);
        let bound = |l: &TcpListener| l.local_addr().unwrap().port();
        let ports: Vec<u16> = listeners.of_shards.iter().map(bound).collect();
        assert_eq!((told.core_ports, ports.len()), (ports, 2));
        assert_eq!(
            told.node,
            HostPort::new("127.0.0.1", bound(&listeners.of_node[0]))
        );

        let (_bound, told) = advertised(Some("far:1000"), true);
        assert_eq!(
            (told.node.to_string(), told.core_ports),
            ("far:1000".into(), vec![1001, 1002])
        );

        let (listeners, told) = advertised(Some("far:0"), true);
        assert_eq!(told.core_ports[1], bound(&listeners.of_shards[1]));
        assert_eq!(
            told.node,
            HostPort::new("far", bound(&listeners.of_node[0]))
        );

        let (listeners, told) = advertised(None, false);
        assert!(told.core_ports.is_empty() && listeners.of_shards.is_empty());
    }

    #[test]
    fn tools_are_shown_the_addresses_that_are_bound_and_told() {
        let config = config("127.0.0.1:0", Some("[::2]:1000"), false);
        let listeners = Listeners::bind(&config).unwrap();
        let told = listeners.advertised(&config).unwrap();
        let settings = listeners.settings(&config, &told).unwrap();
        let port = bound_port(&listeners.of_node[0]).unwrap();
        assert_eq!(
            settings["listeners"],
            format!("PLAINTEXT://127.0.0.1:{port}")
        );
        assert_eq!(settings["advertised.listeners"], "PLAINTEXT://[::2]:1000");
        assert_eq!(settings.len(), 2);
    }
}
