//! Owns what the end-to-end tests share: a broker with its shards on the simulator, and a client that says exactly
//! what a test wants said.
//! Does not know any single test.
//! Invariant: a test is a function of its seed.

use bytes::Bytes;
use millrace_engine::api::{Broker, EngineConfig, EngineHandle, Mailboxes, OnFatal};
use millrace_engine::rt::sim::{Sim, SimConfig};
use millrace_engine::rt::{self, Class, Joined, Listener, TcpStream};
use millrace_net::wire::batch::BatchBuilder;
use millrace_net::wire::create_topics::{CreatableTopic, CreateTopicsRequest};
use millrace_net::wire::fetch::{FetchPartition, FetchRequest, FetchTopic};
use millrace_net::wire::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use millrace_net::wire::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use millrace_net::wire::metadata::{MetadataRequest, MetadataRequestTopic};
use millrace_net::wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use millrace_net::wire::record::Record;
use millrace_net::wire::{frame, ApiKey, Request, Str};
use millrace_net::{serve, Listeners, NetConfig, NetShared};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub const ADDRESS: &str = "10.0.0.1:9092";

/// A broker that serves.
pub struct Server {
    pub brokers: Vec<Broker>,
    pub shared: Arc<NetShared>,
    engine: EngineHandle,
    serving: Vec<Joined<()>>,
}

impl Server {
    pub async fn start(shards: usize, config: NetConfig) -> Server {
        Server::start_within(shards, config, 128 << 20).await
    }

    /// Starts with a memory budget for all shards together.
    pub async fn start_within(shards: usize, config: NetConfig, memory_bytes: u64) -> Server {
        let boxes = Mailboxes::new(shards);
        let mut engine = EngineConfig::new("/data".into());
        engine.memory_bytes = memory_bytes;
        engine.broker_settings = config.broker_settings();
        engine.on_fatal = OnFatal::new(|reason| panic!("the engine gave up: {reason}"));
        let starting: Vec<_> = (0..shards)
            .map(|shard| {
                let started = Broker::start(engine.clone(), shard, boxes.clone());
                rt::spawn_joined(Class::Background, started)
            })
            .collect();
        let mut brokers = Vec::new();
        for started in starting {
            brokers.push(started.await.unwrap());
        }
        let shared = NetShared::new(shards);
        let config = Arc::new(config);
        let listener = Listener::bind(address()).unwrap();
        let serving = brokers
            .iter()
            .map(|broker| {
                let port = config.core_ports.get(broker.shard());
                let listeners = Listeners {
                    of_node: vec![listener.try_clone().unwrap()],
                    of_shard: port.map(|port| Listener::bind(at_port(*port)).unwrap()),
                };
                rt::spawn_joined(
                    Class::Network,
                    serve(broker.clone(), listeners, config.clone(), shared.clone()),
                )
            })
            .collect();
        Server {
            brokers,
            shared,
            engine: boxes.handle(),
            serving,
        }
    }

    /// Stops and waits until every shard has ended; nothing may be left then.
    pub async fn stop(self) {
        self.engine.stop();
        for serving in self.serving {
            serving.await;
        }
        assert_eq!(self.shared.connections(), vec![0; self.brokers.len()]);
        for broker in &self.brokers {
            let metrics = broker.metrics();
            assert_eq!(
                (metrics.request_bytes, metrics.response_bytes),
                (0, 0),
                "of shard {}",
                broker.shard()
            );
        }
        let closing: Vec<_> = self
            .brokers
            .iter()
            .cloned()
            .map(|broker| rt::spawn_joined(Class::Background, async move { broker.close().await }))
            .collect();
        for closed in closing {
            closed.await.unwrap();
        }
    }

    pub fn requests(&self) -> u64 {
        self.shared
            .snapshot()
            .iter()
            .flat_map(|shard| &shard.requests)
            .map(|key| key.requests)
            .sum()
    }

    pub fn bytes_in(&self) -> u64 {
        self.shared
            .snapshot()
            .iter()
            .map(|shard| shard.bytes_in)
            .sum()
    }
}

pub fn address() -> SocketAddr {
    ADDRESS.parse().unwrap()
}

/// The same host at another port.
pub fn at_port(port: u16) -> SocketAddr {
    SocketAddr::new(address().ip(), port)
}

/// Runs a test under several seeds, each with its own schedule and network timing.
pub fn simulate<F: Future<Output = ()>>(test: impl Fn(u64) -> F) {
    for seed in 1..=5 {
        Sim::new(seed, SimConfig::default()).block_on(test(seed));
    }
}

/// Runs a test against a broker of its own and one client, then stops the broker.
pub fn with_server<F: Future<Output = ()>>(
    shards: usize,
    config: NetConfig,
    test: impl Fn(Rc<Server>, Client) -> F,
) {
    let (config, test) = (&config, &test);
    simulate(|_| async move {
        let server = Rc::new(Server::start(shards, config.clone()).await);
        test(server.clone(), Client::connect().await).await;
        let server = Rc::into_inner(server).expect("the test has let go of it");
        server.stop().await;
    });
}

/// The same with two shards and usual settings, for tests that look at answers only.
pub fn with_broker<F: Future<Output = ()>>(test: impl Fn(Client) -> F) {
    let config = NetConfig {
        advertised_port: 9192,
        ..NetConfig::default()
    };
    with_server(2, config, |_, client| test(client));
}

/// A connection.
pub struct Client {
    stream: TcpStream,
    next_correlation: i32,
}

impl Client {
    pub async fn connect() -> Client {
        Client::connect_to(address()).await
    }

    pub async fn connect_to(address: SocketAddr) -> Client {
        Client {
            stream: TcpStream::connect(address).await.unwrap(),
            next_correlation: 1,
        }
    }

    pub async fn send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends a request and gives its correlation id.
    pub async fn send<R: Request>(&mut self, request: &R, version: i16) -> i32 {
        let correlation = self.next_correlation;
        self.next_correlation += 1;
        let frame =
            frame::encode_request(correlation, Some(Str::from("test")), request, version).unwrap();
        self.send_raw(&frame).await.unwrap();
        correlation
    }

    /// Correlation id of the last request sent.
    pub fn last_sent(&self) -> i32 {
        self.next_correlation - 1
    }

    /// The next frame, without its size; `None` at the end of the stream.
    pub async fn frame(&mut self) -> Option<Bytes> {
        let size = self.exactly(4).await?;
        let size = i32::from_be_bytes(size[..].try_into().unwrap());
        self.exactly(size as usize).await
    }

    async fn exactly(&mut self, count: usize) -> Option<Bytes> {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            match self.stream.read(&mut bytes[filled..]).await {
                Ok(0) | Err(_) => {
                    assert_eq!(filled, 0, "the stream ends inside of a frame");
                    return None;
                }
                Ok(read) => filled += read,
            }
        }
        Some(bytes.into())
    }

    /// The response to the request that was sent as `correlation`; fails the test if another one comes.
    pub async fn receive<R: Request>(&mut self, correlation: i32, version: i16) -> R::Response {
        let frame = self.frame().await.expect("connection closed");
        frame::decode_response::<R>(frame, correlation, version).unwrap()
    }

    pub async fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let correlation = self.send(request, version).await;
        self.receive::<R>(correlation, version).await
    }

    /// Sends the default value of a request; whether its response could be read.
    pub async fn call_empty(&mut self, key: ApiKey, version: i16) -> bool {
        use millrace_net::wire as w;
        // By default a produce wants no answer.
        fn asking<T: std::any::Any>(request: &mut T, version: i16) {
            if let Some(produce) =
                (request as &mut dyn std::any::Any).downcast_mut::<ProduceRequest>()
            {
                produce.acks = 1;
            }
            // Before version 1 nothing is null.
            if let Some(metadata) =
                (request as &mut dyn std::any::Any).downcast_mut::<w::metadata::MetadataRequest>()
            {
                metadata.topics = Some(Vec::new());
            }
            if let Some(offsets) = (request as &mut dyn std::any::Any)
                .downcast_mut::<w::offset_fetch::OffsetFetchRequest>()
            {
                offsets.topics = (version < 2).then(Vec::new);
            }
        }
        macro_rules! of {
            ($($key:ident $module:ident $request:ident,)*) => {
                match key {
                    $(ApiKey::$key => {
                        let mut request = w::$module::$request::default();
                        asking(&mut request, version);
                        let correlation = self.send(&request, version).await;
                        let frame = self.frame().await.expect("connection closed");
                        frame::decode_response::<w::$module::$request>(frame, correlation, version).is_ok()
                    })*
                }
            };
        }
        of! {
            Produce produce ProduceRequest,
            Fetch fetch FetchRequest,
            ListOffsets list_offsets ListOffsetsRequest,
            Metadata metadata MetadataRequest,
            OffsetCommit offset_commit OffsetCommitRequest,
            OffsetFetch offset_fetch OffsetFetchRequest,
            FindCoordinator find_coordinator FindCoordinatorRequest,
            JoinGroup join_group JoinGroupRequest,
            Heartbeat heartbeat HeartbeatRequest,
            LeaveGroup leave_group LeaveGroupRequest,
            SyncGroup sync_group SyncGroupRequest,
            DescribeGroups describe_groups DescribeGroupsRequest,
            ListGroups list_groups ListGroupsRequest,
            ApiVersions api_versions ApiVersionsRequest,
            CreateTopics create_topics CreateTopicsRequest,
            DeleteTopics delete_topics DeleteTopicsRequest,
            DeleteRecords delete_records DeleteRecordsRequest,
            InitProducerId init_producer_id InitProducerIdRequest,
            OffsetForLeaderEpoch offset_for_leader_epoch OffsetForLeaderEpochRequest,
            AddPartitionsToTxn add_partitions_to_txn AddPartitionsToTxnRequest,
            AddOffsetsToTxn add_offsets_to_txn AddOffsetsToTxnRequest,
            EndTxn end_txn EndTxnRequest,
            WriteTxnMarkers write_txn_markers WriteTxnMarkersRequest,
            TxnOffsetCommit txn_offset_commit TxnOffsetCommitRequest,
            DescribeConfigs describe_configs DescribeConfigsRequest,
            AlterConfigs alter_configs AlterConfigsRequest,
            AlterReplicaLogDirs alter_replica_log_dirs AlterReplicaLogDirsRequest,
            DescribeLogDirs describe_log_dirs DescribeLogDirsRequest,
            CreatePartitions create_partitions CreatePartitionsRequest,
            DeleteGroups delete_groups DeleteGroupsRequest,
            ElectLeaders elect_leaders ElectLeadersRequest,
            IncrementalAlterConfigs incremental_alter_configs IncrementalAlterConfigsRequest,
            AlterPartitionReassignments alter_partition_reassignments AlterPartitionReassignmentsRequest,
            ListPartitionReassignments list_partition_reassignments ListPartitionReassignmentsRequest,
            OffsetDelete offset_delete OffsetDeleteRequest,
            DescribeQuorum describe_quorum DescribeQuorumRequest,
            UpdateFeatures update_features UpdateFeaturesRequest,
            DescribeCluster describe_cluster DescribeClusterRequest,
            DescribeProducers describe_producers DescribeProducersRequest,
            UnregisterBroker unregister_broker UnregisterBrokerRequest,
            DescribeTransactions describe_transactions DescribeTransactionsRequest,
            ListTransactions list_transactions ListTransactionsRequest,
            ConsumerGroupHeartbeat consumer_group_heartbeat ConsumerGroupHeartbeatRequest,
            ConsumerGroupDescribe consumer_group_describe ConsumerGroupDescribeRequest,
            ListConfigResources list_config_resources ListConfigResourcesRequest,
            DescribeTopicPartitions describe_topic_partitions DescribeTopicPartitionsRequest,
            ShareGroupHeartbeat share_group_heartbeat ShareGroupHeartbeatRequest,
            ShareGroupDescribe share_group_describe ShareGroupDescribeRequest,
            ShareFetch share_fetch ShareFetchRequest,
            ShareAcknowledge share_acknowledge ShareAcknowledgeRequest,
            DescribeShareGroupOffsets describe_share_group_offsets DescribeShareGroupOffsetsRequest,
            AlterShareGroupOffsets alter_share_group_offsets AlterShareGroupOffsetsRequest,
            DeleteShareGroupOffsets delete_share_group_offsets DeleteShareGroupOffsetsRequest,
        }
    }

    /// Waits for the end of the stream; whatever comes before it fails the test.
    pub async fn expect_close(&mut self) {
        assert_eq!(
            self.frame().await,
            None,
            "a response instead of the end of the stream"
        );
    }

    pub async fn create_topic(&mut self, name: &str, partitions: i32) {
        let topic = CreatableTopic {
            name: Str::from(name.to_owned()),
            num_partitions: partitions,
            replication_factor: 1,
            ..Default::default()
        };
        let response = self
            .call(
                &CreateTopicsRequest {
                    topics: vec![topic],
                    ..Default::default()
                },
                7,
            )
            .await;
        assert_eq!(
            response.topics[0].error_code, 0,
            "{:?}",
            response.topics[0].error_message
        );
    }
}

/// One batch of `values`, each a record.
pub fn batch(values: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::default();
    for value in values {
        let record = Record {
            offset: 0,
            timestamp_ms: 1_700_000_000_000,
            key: None,
            value: Some(Bytes::copy_from_slice(value)),
            headers: vec![],
        };
        builder.push(&record).unwrap();
    }
    builder.build().unwrap()
}

pub fn produce(topic: &str, partition: i32, acks: i16, records: Option<Bytes>) -> ProduceRequest {
    ProduceRequest {
        acks,
        timeout_ms: 1000,
        topic_data: vec![TopicProduceData {
            name: Str::from(topic.to_owned()),
            partition_data: vec![PartitionProduceData {
                index: partition,
                records,
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub fn fetch(topic: &str, partitions: &[(i32, i64)]) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        topics: vec![FetchTopic {
            topic: Str::from(topic.to_owned()),
            partitions: partitions
                .iter()
                .map(|(partition, fetch_offset)| FetchPartition {
                    partition: *partition,
                    fetch_offset: *fetch_offset,
                    partition_max_bytes: 1 << 20,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// One topic of a Metadata request.
pub fn named(name: &'static str) -> MetadataRequestTopic {
    MetadataRequestTopic {
        name: Some(name.into()),
        ..Default::default()
    }
}

pub fn ask(topics: Option<Vec<MetadataRequestTopic>>, create: bool) -> MetadataRequest {
    MetadataRequest {
        topics,
        allow_auto_topic_creation: create,
        ..Default::default()
    }
}

/// Asks for the offsets at a timestamp.
fn offsets_at(topic: &'static str, timestamp: i64, partitions: &[i32]) -> ListOffsetsRequest {
    let partition = |index: &i32| ListOffsetsPartition {
        partition_index: *index,
        timestamp,
        ..Default::default()
    };
    let topic = ListOffsetsTopic {
        name: topic.into(),
        partitions: partitions.iter().map(partition).collect(),
    };
    ListOffsetsRequest {
        replica_id: -1,
        topics: vec![topic],
        ..Default::default()
    }
}

/// Asks where partition 0 of a topic ends.
pub fn latest(topic: &'static str) -> ListOffsetsRequest {
    offsets_at(topic, -1, &[0])
}

/// Asks for the offsets at a timestamp of a partition of topic `t` that exists and of one that does not.
pub fn listed(timestamp: i64) -> ListOffsetsRequest {
    offsets_at("t", timestamp, &[0, 5])
}

/// The kind of resource that groups are.
pub const GROUP: i8 = 32;

/// Sets one setting of the group `g`; the error's code.
pub async fn configure_group(client: &mut Client, name: &'static str, value: &'static str) -> i16 {
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: GROUP,
            resource_name: "g".into(),
            configs: vec![AlterableConfig {
                name: name.into(),
                config_operation: 0,
                value: Some(value.into()),
            }],
        }],
        ..Default::default()
    };
    client.call(&request, 1).await.responses[0].error_code
}

pub fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
