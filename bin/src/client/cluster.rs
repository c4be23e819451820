//! Owns what the client knows of the cluster: brokers, topics with their leaders, one connection each.
//! Does not know what is produced or fetched.
//! Invariant: a connection that failed is dropped, and the next use of its broker opens a new one.

use super::conn::Conn;
use super::error::ClientError;
use super::interrupt;
use crate::units::HostPort;
use millrace_net::wire::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseTopic,
};
use millrace_net::wire::{ErrorCode, Request, Str};
use std::collections::BTreeMap;
use std::time::Duration;

/// Tries of one call before its last error is told, and the pauses between them: about 25 seconds,
/// enough for a broker to restart or a leader to move.
const ATTEMPTS_MAX: u32 = 30;
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(1_000);

/// One partition as the metadata shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Partition {
    pub index: i32,
    /// -1 where there is none.
    pub leader: i32,
    /// -1 where unknown.
    pub leader_epoch: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
}

/// One topic as the metadata shows it; partitions ascending by index.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    pub name: String,
    pub id: uuid::Uuid,
    pub internal: bool,
    pub partitions: Vec<Partition>,
}

pub struct Cluster {
    bootstrap: Vec<HostPort>,
    /// A connection to whoever answered first, for calls that any broker takes.
    any: Option<Conn>,
    by_node: BTreeMap<i32, Conn>,
    brokers: BTreeMap<i32, HostPort>,
    controller: i32,
}

impl Cluster {
    /// Knows nothing yet; the first call connects.
    pub fn new(bootstrap: &[HostPort]) -> Cluster {
        assert!(!bootstrap.is_empty());
        Cluster {
            bootstrap: bootstrap.to_vec(),
            any: None,
            by_node: BTreeMap::new(),
            brokers: BTreeMap::new(),
            controller: -1,
        }
    }

    /// Runs `attempt` until it succeeds, fails for good, or has been tried often enough.
    pub fn retry<T>(
        &mut self,
        attempt: impl FnMut(&mut Cluster) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        self.retry_if(ClientError::is_retriable, attempt)
    }

    /// As `retry`, but `worth` decides which errors are worth another try.
    pub fn retry_if<T>(
        &mut self,
        worth: impl Fn(&ClientError) -> bool,
        mut attempt: impl FnMut(&mut Cluster) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut pause = PAUSE_FIRST;
        for _ in 1..ATTEMPTS_MAX {
            match attempt(self) {
                Err(error) if worth(&error) && self.was_reached() && !interrupt::requested() => {
                    tracing::debug!("trying again: {error}");
                }
                done => return done,
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        attempt(self)
    }

    /// Whether a broker ever answered. Before that, an address that does not connect is most likely
    /// wrong, and waiting would only delay saying so.
    fn was_reached(&self) -> bool {
        !self.brokers.is_empty() || self.any.is_some()
    }

    /// A call that any broker answers; one try.
    pub fn call_any<R: Request>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        self.with_any(|conn| conn.call(request))
    }

    /// Uses a connection to any broker, opening it where needed; drops it if `run` fails.
    pub fn with_any<T>(
        &mut self,
        run: impl FnOnce(&mut Conn) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut conn = match self.any.take() {
            Some(conn) => conn,
            None => self.connect_any()?,
        };
        let result = run(&mut conn)?;
        self.any = Some(conn);
        Ok(result)
    }

    fn connect_any(&self) -> Result<Conn, ClientError> {
        let known = self.bootstrap.iter().chain(self.brokers.values());
        let mut first_error = None;
        for at in known {
            match Conn::open(at) {
                Ok(conn) => return Ok(conn),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.expect("there is a bootstrap address"))
    }

    /// A call that the controller takes (any broker, in current clusters); one try.
    pub fn call_controller<R: Request>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        if self.brokers.is_empty() {
            self.metadata(Some(&[]), false)?;
        }
        if !self.brokers.contains_key(&self.controller) {
            return self.call_any(request);
        }
        let controller = self.controller;
        self.with_node(controller, |conn| conn.call(request))
    }

    /// Uses the connection to a broker, opening it where needed; drops it if `run` fails.
    pub fn with_node<T>(
        &mut self,
        node: i32,
        run: impl FnOnce(&mut Conn) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut conn = match self.by_node.remove(&node) {
            Some(conn) => conn,
            None => {
                let at = self.brokers.get(&node);
                Conn::open(at.ok_or_else(|| ClientError::NoLeader(format!("broker {node}")))?)?
            }
        };
        let result = run(&mut conn)?;
        self.by_node.insert(node, conn);
        Ok(result)
    }

    /// The brokers of the last metadata, ascending by node.
    pub fn nodes(&self) -> Vec<i32> {
        self.brokers.keys().copied().collect()
    }

    /// Remembers where a broker is, as another answer than the metadata told it.
    pub fn learn(&mut self, node: i32, at: HostPort) {
        if self.brokers.get(&node) != Some(&at) {
            self.by_node.remove(&node);
            self.brokers.insert(node, at);
        }
    }

    /// Forgets the connection to a broker, and what it still had to answer.
    pub fn drop_node(&mut self, node: i32) {
        self.by_node.remove(&node);
    }

    /// Asks for topics by name (None: all) and remembers the brokers; one try.
    pub fn metadata(
        &mut self,
        names: Option<&[&str]>,
        create: bool,
    ) -> Result<MetadataResponse, ClientError> {
        let topics = names.map(|names| {
            let topic = |name: &&str| MetadataRequestTopic {
                name: Some(Str::from(name.to_string())),
                ..MetadataRequestTopic::default()
            };
            names.iter().map(topic).collect()
        });
        let request = MetadataRequest {
            topics,
            allow_auto_topic_creation: create,
            ..MetadataRequest::default()
        };
        let answer = self.call_any(&request)?;
        ClientError::check(
            || "the cluster's metadata".to_string(),
            answer.error_code,
            None,
        )?;
        self.brokers.clear();
        for broker in &answer.brokers {
            let port = u16::try_from(broker.port).unwrap_or(0);
            self.brokers
                .insert(broker.node_id, HostPort::new(broker.host.to_string(), port));
        }
        let brokers = &self.brokers;
        self.by_node.retain(|node, _| brokers.contains_key(node));
        self.controller = answer.controller_id;
        Ok(answer)
    }

    /// One topic with its partitions; creates it where `create` and the broker allow. Retries while
    /// it is being created or has no leaders; without `create` an unknown topic fails at once.
    pub fn topic(&mut self, name: &str, create: bool) -> Result<Topic, ClientError> {
        let worth = |error: &ClientError| {
            error.is_retriable()
                && (create || error.code() != Some(ErrorCode::UnknownTopicOrPartition))
        };
        self.retry_if(worth, |cluster| {
            let topic = cluster.topic_now(name, create)?;
            match topic.partitions.iter().find(|p| p.leader < 0) {
                Some(p) if topic.partitions.iter().all(|p| p.leader < 0) => Err(
                    ClientError::NoLeader(format!("partition {} of {name}", p.index)),
                ),
                _ => Ok(topic),
            }
        })
    }

    /// One topic as it is at this moment, with leaders or without; one try.
    pub fn topic_now(&mut self, name: &str, create: bool) -> Result<Topic, ClientError> {
        let answer = self.metadata(Some(&[name]), create)?;
        let found = answer
            .topics
            .into_iter()
            .find(|t| t.name.as_deref() == Some(name));
        check_topic(found.ok_or_else(|| unknown_topic(name))?)
    }

    /// Every topic, or those named, as they are now; errors of single topics stay with them.
    pub fn topics(
        &mut self,
        names: Option<&[&str]>,
    ) -> Result<Vec<Result<Topic, ClientError>>, ClientError> {
        let answer = self.retry(|cluster| cluster.metadata(names, false))?;
        Ok(answer.topics.into_iter().map(check_topic).collect())
    }
}

fn unknown_topic(name: &str) -> ClientError {
    ClientError::broker(
        format!("topic {name}"),
        ErrorCode::UnknownTopicOrPartition.code(),
        None,
    )
}

fn check_topic(found: MetadataResponseTopic) -> Result<Topic, ClientError> {
    // Brokers leave the name out only of ids they do not know, and errors are about something.
    let id = found.topic_id;
    let name = found.name.map_or_else(|| id.to_string(), |n| n.to_string());
    ClientError::check(|| format!("topic {name}"), found.error_code, None)?;
    let mut partitions: Vec<Partition> = found
        .partitions
        .into_iter()
        .map(|p| Partition {
            index: p.partition_index,
            leader: p.leader_id,
            leader_epoch: p.leader_epoch,
            replicas: p.replica_nodes,
            isr: p.isr_nodes,
        })
        .collect();
    partitions.sort_by_key(|p| p.index);
    Ok(Topic {
        name,
        id,
        internal: found.is_internal,
        partitions,
    })
}
