//! Owns the plain questions around a run: versions, topics, leaders, offsets; one at a time, blocking.
//! Does not know how load is made; nothing here is on a measured path except the first answers of a start.
//! Invariant: every wait has a limit, and a version is asked for only where the broker serves it.

use crate::error::PerfError;
use crate::link::{closed_is_io, FRAME_BYTES_MAX};
use crate::scan::{FETCH_VERSION, PRODUCE_VERSION};
use crate::template::{BuiltBatch, CLIENT_ID};
use bytes::Bytes;
use millrace_net::wire::api_versions::{self, ApiVersionsRequest};
use millrace_net::wire::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use millrace_net::wire::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use millrace_net::wire::frame::{self, peek_size, SIZE_PREFIX_BYTES};
use millrace_net::wire::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use millrace_net::wire::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use millrace_net::wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use millrace_net::wire::{ApiKey, ErrorCode, Request, Str};
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a new topic may take until all its partitions have leaders. A thousand take some brokers a minute where the
/// processor is shared.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(180);
/// Between two questions for leaders.
const LEADERS_PAUSE: Duration = Duration::from_millis(50);
const CREATE_TIMEOUT_MS: i32 = 60_000;

/// A blocking connection for questions.
pub struct Client {
    stream: TcpStream,
    correlation: i32,
    versions: HashMap<i16, (i16, i16)>,
}

/// A topic to measure with.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicSpec {
    pub name: String,
    pub partitions: usize,
    /// -1 for the broker's default.
    pub replication: i16,
    /// Settings for its creation.
    pub configs: Vec<(String, String)>,
}

/// Partitions by the address of their leader.
pub type Leaders = BTreeMap<SocketAddr, Vec<i32>>;

/// Finds the first address behind `HOST:PORT`.
pub fn resolve(address: &str) -> Result<SocketAddr, PerfError> {
    let mut found = address
        .to_socket_addrs()
        .map_err(PerfError::io(format!("cannot find {address}")))?;
    found
        .next()
        .ok_or_else(|| PerfError::Usage(format!("{address} has no address")))
}

impl Client {
    /// Connects without asking anything.
    pub fn connect(address: SocketAddr, timeout: Duration) -> Result<Client, PerfError> {
        let what = format!("cannot connect to {address}");
        let stream = TcpStream::connect_timeout(&address, timeout).map_err(PerfError::io(&what))?;
        stream.set_nodelay(true).map_err(PerfError::io(&what))?;
        stream
            .set_read_timeout(Some(ANSWER_TIMEOUT))
            .map_err(PerfError::io(&what))?;
        Ok(Client {
            stream,
            correlation: 0,
            versions: HashMap::new(),
        })
    }

    /// Asks which versions the broker serves; every other question needs that.
    pub fn negotiate(&mut self) -> Result<(), PerfError> {
        let (_, max) = <ApiVersionsRequest as millrace_net::wire::Message>::VERSIONS;
        let request = ApiVersionsRequest {
            client_software_name: CLIENT_ID.into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
            ..Default::default()
        };
        let mut version = max;
        loop {
            let reply = self.exchange(&request, version)?;
            let (answer, said_in) = api_versions::decode_reply(reply, self.correlation, version)?;
            if answer.error_code == ErrorCode::UnsupportedVersion.code() && version > 0 {
                assert!(said_in <= version);
                version = 0;
                continue;
            }
            refuse("ApiVersions", answer.error_code)?;
            self.versions = answer
                .api_keys
                .iter()
                .map(|row| (row.api_key, (row.min_version, row.max_version)))
                .collect();
            return Ok(());
        }
    }

    /// Whether the broker serves exactly the versions that the load is made in.
    pub fn check_load_versions(&self) -> Result<(), PerfError> {
        for (key, wanted) in [
            (ApiKey::Produce, PRODUCE_VERSION),
            (ApiKey::Fetch, FETCH_VERSION),
        ] {
            let (min, max) = self.range(key)?;
            if wanted < min || wanted > max {
                let api = key.name();
                return Err(PerfError::Version {
                    api,
                    min,
                    max,
                    wanted,
                });
            }
        }
        Ok(())
    }

    fn range(&self, key: ApiKey) -> Result<(i16, i16), PerfError> {
        self.versions
            .get(&key.code())
            .copied()
            .ok_or_else(|| PerfError::Usage(format!("the broker does not serve {key}")))
    }

    /// The highest version of `R` that both sides know.
    fn version<R: Request>(&self) -> Result<i16, PerfError> {
        let (min, max) = self.range(R::KEY)?;
        let (ours_min, ours_max) = R::VERSIONS;
        let version = max.min(ours_max);
        if version < min || version < ours_min {
            let api = R::KEY.name();
            return Err(PerfError::Version {
                api,
                min,
                max,
                wanted: ours_max,
            });
        }
        Ok(version)
    }

    fn exchange<R: Request>(&mut self, request: &R, version: i16) -> Result<Bytes, PerfError> {
        self.correlation = self.correlation.wrapping_add(1);
        let bytes =
            frame::encode_request(self.correlation, Some(CLIENT_ID.into()), request, version)?;
        self.stream
            .write_all(&bytes)
            .map_err(closed_is_io("cannot send"))?;
        let mut prefix = [0; SIZE_PREFIX_BYTES];
        let what = "no answer from the broker";
        self.stream
            .read_exact(&mut prefix)
            .map_err(closed_is_io(what))?;
        let size = peek_size(&prefix, FRAME_BYTES_MAX)?.expect("the prefix is whole");
        let mut reply = vec![0; size];
        self.stream
            .read_exact(&mut reply)
            .map_err(closed_is_io(what))?;
        Ok(Bytes::from(reply))
    }

    /// Asks `request` in `version` and waits for the answer.
    pub fn call_in<R: Request>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<R::Response, PerfError> {
        let reply = self.exchange(request, version)?;
        Ok(frame::decode_response::<R>(
            reply,
            self.correlation,
            version,
        )?)
    }

    /// Asks `request` in the highest version both sides know.
    pub fn call<R: Request>(&mut self, request: &R) -> Result<R::Response, PerfError> {
        let version = self.version::<R>()?;
        self.call_in(request, version)
    }

    /// Creates the topic unless it exists, and waits until all its partitions have leaders.
    pub fn prepare_topic(&mut self, topic: &TopicSpec) -> Result<Leaders, PerfError> {
        let partitions = i32::try_from(topic.partitions).map_err(|_| {
            PerfError::Usage(format!("{} partitions are too many", topic.partitions))
        })?;
        let configs = topic
            .configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig {
                name: name.clone().into(),
                value: Some(value.clone().into()),
            });
        let answer = self.call(&CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: topic.name.clone().into(),
                num_partitions: partitions,
                replication_factor: topic.replication,
                configs: configs.collect(),
                ..Default::default()
            }],
            timeout_ms: CREATE_TIMEOUT_MS,
            validate_only: false,
        })?;
        for created in &answer.topics {
            if created.error_code != ErrorCode::TopicAlreadyExists.code() {
                refuse(
                    &format!("creating topic {}", topic.name),
                    created.error_code,
                )?;
            }
        }
        self.leaders(&topic.name, topic.partitions)
    }

    /// Deletes the topic, if there is one.
    pub fn delete_topic(&mut self, name: &str) -> Result<(), PerfError> {
        let answer = self.call(&DeleteTopicsRequest {
            topics: vec![DeleteTopicState {
                name: Some(Str::from(name.to_string())),
                ..Default::default()
            }],
            topic_names: vec![Str::from(name.to_string())],
            timeout_ms: CREATE_TIMEOUT_MS,
        })?;
        for deleted in &answer.responses {
            if deleted.error_code != ErrorCode::UnknownTopicOrPartition.code() {
                refuse(&format!("deleting topic {name}"), deleted.error_code)?;
            }
        }
        Ok(())
    }

    /// Waits until the first `partitions` partitions of `topic` have leaders, and says which.
    pub fn leaders(&mut self, topic: &str, partitions: usize) -> Result<Leaders, PerfError> {
        let deadline = Instant::now() + LEADERS_TIMEOUT;
        loop {
            let answer = self.metadata(topic)?;
            match leaders_in(&answer, topic, partitions)? {
                Some(leaders) => return Ok(leaders),
                None if Instant::now() >= deadline => {
                    let seconds = LEADERS_TIMEOUT.as_secs();
                    return Err(PerfError::TimedOut(format!(
                        "not all {partitions} partitions of {topic} have a leader after {seconds} s"
                    )));
                }
                None => std::thread::sleep(LEADERS_PAUSE),
            }
        }
    }

    /// Asks about one topic.
    pub fn metadata(&mut self, topic: &str) -> Result<MetadataResponse, PerfError> {
        self.call(&MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                name: Some(Str::from(topic.to_string())),
                ..Default::default()
            }]),
            allow_auto_topic_creation: false,
            ..Default::default()
        })
    }

    /// The offset for a special timestamp of each partition, all of which this broker leads or is about to.
    ///
    /// Waits for a broker that has announced itself as the leader but does not act as it yet.
    pub fn offsets(
        &mut self,
        topic: &str,
        partitions: &[i32],
        timestamp: i64,
    ) -> Result<HashMap<i32, i64>, PerfError> {
        let deadline = Instant::now() + LEADERS_TIMEOUT;
        loop {
            match self.offsets_now(topic, partitions, timestamp) {
                Err(PerfError::Refused { code, .. })
                    if is_passing(code) && Instant::now() < deadline =>
                {
                    std::thread::sleep(LEADERS_PAUSE);
                }
                result => return result,
            }
        }
    }

    fn offsets_now(
        &mut self,
        topic: &str,
        partitions: &[i32],
        timestamp: i64,
    ) -> Result<HashMap<i32, i64>, PerfError> {
        let asked = partitions
            .iter()
            .map(|&partition_index| ListOffsetsPartition {
                partition_index,
                current_leader_epoch: -1,
                timestamp,
            });
        let answer = self.call(&ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: Str::from(topic.to_string()),
                partitions: asked.collect(),
            }],
            ..Default::default()
        })?;
        let mut offsets = HashMap::new();
        for found in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            refuse(
                &format!("offset of {topic}-{}", found.partition_index),
                found.error_code,
            )?;
            offsets.insert(found.partition_index, found.offset);
        }
        match partitions
            .iter()
            .find(|partition| !offsets.contains_key(partition))
        {
            Some(partition) => Err(PerfError::Usage(format!(
                "no offset came for {topic}-{partition}"
            ))),
            None => Ok(offsets),
        }
    }

    /// Produces one batch with acks=all and waits for its acknowledgement; the error code if it was refused.
    pub fn produce_one(
        &mut self,
        topic: &str,
        partition: i32,
        batch: &BuiltBatch,
    ) -> Result<i16, PerfError> {
        let answer = self.call_in(
            &ProduceRequest {
                acks: -1,
                timeout_ms: CREATE_TIMEOUT_MS,
                topic_data: vec![TopicProduceData {
                    name: Str::from(topic.to_string()),
                    partition_data: vec![PartitionProduceData {
                        index: partition,
                        records: Some(batch.bytes.clone()),
                    }],
                    ..Default::default()
                }],
                ..Default::default()
            },
            PRODUCE_VERSION,
        )?;
        let first = answer
            .responses
            .first()
            .and_then(|topic| topic.partition_responses.first());
        first
            .map(|partition| partition.error_code)
            .ok_or_else(|| PerfError::Usage("the answer names no partition".into()))
    }
}

/// Groups partitions by leader; `None` while some have none.
fn leaders_in(
    answer: &MetadataResponse,
    topic: &str,
    partitions: usize,
) -> Result<Option<Leaders>, PerfError> {
    let Some(found) = answer.topics.first() else {
        return Ok(None);
    };
    if found.error_code == ErrorCode::UnknownTopicOrPartition.code()
        || found.error_code == ErrorCode::LeaderNotAvailable.code()
    {
        return Ok(None);
    }
    refuse(&format!("metadata of {topic}"), found.error_code)?;
    if found.partitions.len() < partitions {
        let has = found.partitions.len();
        return Err(PerfError::Usage(format!(
            "topic {topic} has {has} partitions and {partitions} are wanted; choose another --topic"
        )));
    }
    let mut leaders = Leaders::new();
    for partition in &found.partitions {
        if partition.partition_index as usize >= partitions {
            continue;
        }
        let broker = answer
            .brokers
            .iter()
            .find(|b| b.node_id == partition.leader_id);
        let Some(broker) = broker else {
            return Ok(None);
        };
        let address = resolve(&format!("{}:{}", broker.host.as_str(), broker.port))?;
        leaders
            .entry(address)
            .or_default()
            .push(partition.partition_index);
    }
    for list in leaders.values_mut() {
        list.sort_unstable();
    }
    Ok(Some(leaders))
}

/// Whether a new topic may answer so for a moment.
fn is_passing(code: i16) -> bool {
    [
        ErrorCode::NotLeaderOrFollower,
        ErrorCode::LeaderNotAvailable,
        ErrorCode::UnknownTopicOrPartition,
        ErrorCode::OffsetNotAvailable,
    ]
    .iter()
    .any(|passing| passing.code() == code)
}

/// The offset for a special timestamp of each partition, asked of its leader.
pub fn offsets_of(
    leaders: &Leaders,
    topic: &str,
    timestamp: i64,
) -> Result<HashMap<i32, i64>, PerfError> {
    let mut offsets = HashMap::new();
    for (&address, partitions) in leaders {
        let mut client = Client::connect(address, ANSWER_TIMEOUT)?;
        client.negotiate()?;
        client.check_load_versions()?;
        offsets.extend(client.offsets(topic, partitions, timestamp)?);
    }
    Ok(offsets)
}

fn refuse(what: &str, code: i16) -> Result<(), PerfError> {
    if code == ErrorCode::None.code() {
        return Ok(());
    }
    Err(PerfError::Refused {
        what: what.to_string(),
        code,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_net::wire::metadata::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };

    fn answer(leaders: &[i32]) -> MetadataResponse {
        let broker = |node_id: i32| MetadataResponseBroker {
            node_id,
            host: "127.0.0.1".into(),
            port: 9_000 + node_id,
            rack: None,
        };
        let partition = |(index, leader_id): (usize, &i32)| MetadataResponsePartition {
            partition_index: index as i32,
            leader_id: *leader_id,
            ..Default::default()
        };
        MetadataResponse {
            brokers: vec![broker(1), broker(2)],
            topics: vec![MetadataResponseTopic {
                partitions: leaders.iter().enumerate().map(partition).collect(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn partitions_are_grouped_by_leader() {
        let leaders = leaders_in(&answer(&[2, 1, 2, 1]), "t", 3)
            .expect("reads")
            .expect("all led");
        let expected = [("127.0.0.1:9001", vec![1]), ("127.0.0.1:9002", vec![0, 2])];
        let expected = expected.map(|(address, list)| (address.parse().expect("an address"), list));
        assert_eq!(leaders, Leaders::from(expected));
    }

    #[test]
    fn a_missing_leader_is_waited_for_and_missing_partitions_are_an_error() {
        assert_eq!(leaders_in(&answer(&[1, -1]), "t", 2).expect("reads"), None);
        assert!(matches!(
            leaders_in(&answer(&[1]), "t", 2),
            Err(PerfError::Usage(_))
        ));
        let mut unknown = answer(&[]);
        unknown.topics[0].error_code = ErrorCode::UnknownTopicOrPartition.code();
        assert_eq!(leaders_in(&unknown, "t", 1).expect("reads"), None);
        unknown.topics[0].error_code = ErrorCode::InvalidTopicException.code();
        assert!(matches!(
            leaders_in(&unknown, "t", 1),
            Err(PerfError::Refused { .. })
        ));
    }
}
