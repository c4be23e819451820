//! Owns the client's tests against brokers that are scripted, one thread per connection.
//! Does not know a real broker; what those answer is tested elsewhere.
//! Invariant: a script sees every request in the order in which it was sent.

use super::cluster::{Cluster, Partition, Topic};
use super::fetcher::{is_out_of_range, Fetcher};
use super::isolation::Isolation;
use super::offsets::{self, Spec};
use super::sender::{Options, Sender};
use super::ClientError;
use crate::units::HostPort;
use bytes::{Bytes, BytesMut};
use millrace_net::wire::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use millrace_net::wire::batch::{Batch, BatchBuilder};
use millrace_net::wire::compress::Compression;
use millrace_net::wire::fetch::{
    AbortedTransaction, FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};
use millrace_net::wire::frame::{self, RequestHeader};
use millrace_net::wire::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use millrace_net::wire::list_offsets::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use millrace_net::wire::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use millrace_net::wire::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use millrace_net::wire::record::Record;
use millrace_net::wire::{versions, ApiKey, ErrorCode, Reader, Records, Request, Str};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

/// A request as a script sees it.
pub(super) struct Asked {
    pub(super) header: RequestHeader,
    body: Reader,
}

impl Asked {
    pub(super) fn read<R: Request>(&mut self) -> R {
        assert_eq!(self.header.key, R::KEY);
        R::decode(&mut self.body, self.header.version).unwrap()
    }

    pub(super) fn answer<R: Request>(&self, response: &R::Response) -> Option<Bytes> {
        Some(
            frame::encode_response::<R>(self.header.correlation_id, response, self.header.version)
                .unwrap(),
        )
    }
}

/// Serves connections with a script; None closes the connection.
pub(super) fn broker(script: impl Fn(Asked) -> Option<Bytes> + Send + Sync + 'static) -> HostPort {
    broker_speaking(versions::advertised(), script)
}

/// As `broker`, but one that names these versions.
pub(super) fn broker_speaking(
    api_keys: Vec<ApiVersion>,
    script: impl Fn(Asked) -> Option<Bytes> + Send + Sync + 'static,
) -> HostPort {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = HostPort::new("127.0.0.1", listener.local_addr().unwrap().port());
    let shared = Arc::new((api_keys, script));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || serve(stream.unwrap(), &shared.0, &shared.1));
        }
    });
    at
}

fn serve(mut stream: TcpStream, api_keys: &[ApiVersion], script: &dyn Fn(Asked) -> Option<Bytes>) {
    let mut buffer = BytesMut::new();
    let mut chunk = [0; 4096];
    loop {
        while let Some(frame) = frame::take_frame(&mut buffer, 64 << 20).unwrap() {
            let mut body = Reader::new(frame);
            let (header, _) = RequestHeader::decode(&mut body).unwrap();
            let asked = Asked { header, body };
            let answer = if asked.header.key == ApiKey::ApiVersions {
                asked.answer::<ApiVersionsRequest>(&ApiVersionsResponse {
                    api_keys: api_keys.to_vec(),
                    ..ApiVersionsResponse::default()
                })
            } else {
                script(asked)
            };
            let Some(answer) = answer else { return };
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(n) => buffer.extend_from_slice(&chunk[..n]),
        }
    }
}

/// What a cluster of scripted brokers shares: who leads partition 0 of topic `t`, and what it took.
#[derive(Default)]
struct Shared {
    nodes: Vec<HostPort>,
    leader: i32,
    /// Codes to refuse the next produce requests with; the leader moves on to node 1 meanwhile.
    refuse: Vec<ErrorCode>,
    taken: Vec<Bytes>,
    /// Produce requests that a refusal or a closed connection answered.
    refused: Vec<Bytes>,
}

fn metadata(shared: &Shared) -> MetadataResponse {
    let brokers = shared
        .nodes
        .iter()
        .enumerate()
        .map(|(id, at)| MetadataResponseBroker {
            node_id: id as i32,
            host: Str::from(at.host.clone()),
            port: at.port.into(),
            rack: None,
        });
    MetadataResponse {
        brokers: brokers.collect(),
        controller_id: 0,
        topics: vec![MetadataResponseTopic {
            name: Some(Str::from_static("t")),
            partitions: vec![MetadataResponsePartition {
                leader_id: shared.leader,
                replica_nodes: vec![0, 1],
                isr_nodes: vec![0, 1],
                ..MetadataResponsePartition::default()
            }],
            ..MetadataResponseTopic::default()
        }],
        ..MetadataResponse::default()
    }
}

fn produced(code: ErrorCode) -> ProduceResponse {
    ProduceResponse {
        responses: vec![TopicProduceResponse {
            name: Str::from_static("t"),
            partition_responses: vec![PartitionProduceResponse {
                error_code: code.code(),
                ..PartitionProduceResponse::default()
            }],
            ..Default::default()
        }],
        ..ProduceResponse::default()
    }
}

/// Two brokers that take what is produced to the one that leads.
fn producing_cluster(refuse: Vec<ErrorCode>) -> (Arc<Mutex<Shared>>, Vec<HostPort>) {
    let shared = Arc::new(Mutex::new(Shared {
        refuse,
        ..Shared::default()
    }));
    let nodes: Vec<HostPort> = (0..2)
        .map(|node| {
            let shared = Arc::clone(&shared);
            broker(move |mut asked| {
                let mut shared = shared.lock().unwrap();
                match asked.header.key {
                    ApiKey::Metadata => asked.answer::<MetadataRequest>(&metadata(&shared)),
                    ApiKey::InitProducerId => {
                        asked.answer::<InitProducerIdRequest>(&InitProducerIdResponse {
                            producer_id: 77,
                            ..InitProducerIdResponse::default()
                        })
                    }
                    ApiKey::Produce => {
                        let mut request: ProduceRequest = asked.read();
                        let records = request.topic_data[0].partition_data[0]
                            .records
                            .take()
                            .unwrap();
                        let refusal = match shared.refuse.pop() {
                            None if shared.leader == node => None,
                            None => Some(ErrorCode::NotLeaderOrFollower),
                            // Stands for a connection that breaks before the answer.
                            Some(ErrorCode::NetworkException) => {
                                shared.refused.push(records);
                                return None;
                            }
                            Some(code) => Some(code),
                        };
                        match refusal {
                            None => shared.taken.push(records),
                            Some(_) => {
                                shared.refused.push(records);
                                shared.leader = 1;
                            }
                        }
                        asked
                            .answer::<ProduceRequest>(&produced(refusal.unwrap_or(ErrorCode::None)))
                    }
                    other => panic!("{other:?} was not expected"),
                }
            })
        })
        .collect();
    shared.lock().unwrap().nodes = nodes.clone();
    (shared, nodes)
}

fn values(batches: &[Bytes]) -> Vec<String> {
    let mut values = Vec::new();
    for batch in batches {
        for record in Batch::decode(batch.clone())
            .unwrap()
            .records(1 << 20)
            .unwrap()
        {
            values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
        }
    }
    values
}

fn record(value: &str) -> Record {
    Record {
        timestamp_ms: 1,
        value: Some(Bytes::from(value.to_string())),
        ..Record::default()
    }
}

const ALL: Options = Options {
    acks: -1,
    compression: Compression::Lz4,
};

#[test]
fn a_batch_follows_the_leader_and_keeps_its_sequence() {
    let (shared, nodes) = producing_cluster(vec![
        ErrorCode::NetworkException,
        ErrorCode::NotLeaderOrFollower,
    ]);
    let mut cluster = Cluster::new(&nodes[..1]);
    let mut sender = Sender::open(&mut cluster, "t", ALL).unwrap();
    for value in ["a", "b", "c"] {
        sender.push(&mut cluster, &record(value), None).unwrap();
        sender.flush(&mut cluster).unwrap();
    }
    assert_eq!(sender.acknowledged(), 3);
    let shared = shared.lock().unwrap();
    assert_eq!(values(&shared.taken), ["a", "b", "c"]);
    assert!(shared.refused.len() >= 2);
    assert!(
        shared
            .refused
            .iter()
            .all(|refused| *refused == shared.taken[0]),
        "a retry sends the same bytes"
    );
    let headers: Vec<_> = shared
        .taken
        .iter()
        .map(|b| Batch::decode(b.clone()).unwrap().header)
        .collect();
    assert!(headers.iter().all(|h| h.producer_id == 77));
    assert_eq!(
        headers.iter().map(|h| h.base_sequence).collect::<Vec<_>>(),
        [0, 1, 2]
    );
}

#[test]
fn an_error_that_no_retry_mends_is_told_at_once() {
    let (shared, nodes) = producing_cluster(vec![ErrorCode::MessageTooLarge]);
    let mut cluster = Cluster::new(&nodes);
    let mut sender = Sender::open(&mut cluster, "t", ALL).unwrap();
    sender.push(&mut cluster, &record("x"), Some(0)).unwrap();
    let error = sender.flush(&mut cluster).unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::MessageTooLarge));
    assert_eq!(shared.lock().unwrap().refused.len(), 1);
    assert!(
        sender.push(&mut cluster, &record("x"), Some(1)).is_err(),
        "there is one partition"
    );
}

#[test]
fn a_duplicate_counts_as_stored() {
    let (_, nodes) = producing_cluster(vec![ErrorCode::DuplicateSequenceNumber]);
    let mut cluster = Cluster::new(&nodes);
    let mut sender = Sender::open(&mut cluster, "t", ALL).unwrap();
    sender.push(&mut cluster, &record("x"), None).unwrap();
    sender.flush(&mut cluster).unwrap();
    assert_eq!(sender.acknowledged(), 1);
}

#[test]
fn nobody_there_is_told_without_waiting() {
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut cluster = Cluster::new(&[HostPort::new("127.0.0.1", unused)]);
    let mut tries = 0;
    let result = cluster.retry(|cluster| {
        tries += 1;
        cluster.metadata(None, false)
    });
    assert!(matches!(result, Err(ClientError::Connect { .. })));
    assert_eq!(tries, 1);
}

/// A batch of records 10 to 12, as a broker stores it.
fn stored() -> BytesMut {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in ["ten", "eleven", "twelve"] {
        builder.push(&record(value)).unwrap();
    }
    let mut batch = BytesMut::from(&builder.build().unwrap()[..]);
    batch[..8].copy_from_slice(&10i64.to_be_bytes());
    batch
}

/// A broker with one partition that holds `stored`, cut off at the limit of the request as old brokers do.
fn reading_broker(stored: Bytes) -> (HostPort, Topic) {
    let at = Arc::new(Mutex::new(None::<HostPort>));
    let known = Arc::clone(&at);
    let script = move |mut asked: Asked| match asked.header.key {
        ApiKey::Metadata => {
            let nodes = vec![known.lock().unwrap().clone().unwrap()];
            asked.answer::<MetadataRequest>(&metadata(&Shared {
                nodes,
                ..Shared::default()
            }))
        }
        ApiKey::ListOffsets => {
            let request: ListOffsetsRequest = asked.read();
            let wanted = &request.topics[0].partitions[0];
            let offset = match wanted.timestamp {
                -2 => 10,
                -1 if request.isolation_level == 1 => 12,
                -1 => 13,
                _ => -1,
            };
            asked.answer::<ListOffsetsRequest>(&ListOffsetsResponse {
                topics: vec![ListOffsetsTopicResponse {
                    name: Str::from_static("t"),
                    partitions: vec![ListOffsetsPartitionResponse {
                        offset,
                        ..ListOffsetsPartitionResponse::default()
                    }],
                }],
                ..ListOffsetsResponse::default()
            })
        }
        ApiKey::Fetch => {
            let request: FetchRequest = asked.read();
            let wanted = &request.topics[0].partitions[0];
            let limit = stored.len().min(wanted.partition_max_bytes as usize);
            let (code, records) = match wanted.fetch_offset {
                10..13 => (ErrorCode::None, Records::One(stored.slice(..limit))),
                13 => (ErrorCode::None, Records::Null),
                _ => (ErrorCode::OffsetOutOfRange, Records::Null),
            };
            asked.answer::<FetchRequest>(&FetchResponse {
                responses: vec![FetchableTopicResponse {
                    topic: Str::from_static("t"),
                    partitions: vec![PartitionData {
                        error_code: code.code(),
                        records,
                        // The script knows one transaction of producer 7, which was aborted.
                        aborted_transactions: (request.isolation_level == 1).then(|| {
                            vec![AbortedTransaction {
                                producer_id: 7,
                                first_offset: 10,
                            }]
                        }),
                        ..PartitionData::default()
                    }],
                    ..Default::default()
                }],
                ..FetchResponse::default()
            })
        }
        other => panic!("{other:?} was not expected"),
    };
    let bound = broker(script);
    *at.lock().unwrap() = Some(bound.clone());
    let partition = Partition {
        index: 0,
        leader: 0,
        leader_epoch: 0,
        replicas: vec![0],
        isr: vec![0],
    };
    let topic = Topic {
        name: "t".into(),
        id: uuid::Uuid::nil(),
        internal: false,
        partitions: vec![partition],
    };
    (bound, topic)
}

fn read_from(offset: i64, stored: Bytes) -> Result<Vec<(i64, String)>, ClientError> {
    read_as(Isolation::Uncommitted, offset, stored)
}

fn read_as(
    isolation: Isolation,
    offset: i64,
    stored: Bytes,
) -> Result<Vec<(i64, String)>, ClientError> {
    let (at, topic) = reading_broker(stored);
    let mut cluster = Cluster::new(&[at]);
    cluster.metadata(None, false)?;
    let mut fetcher = Fetcher::new(&topic, &BTreeMap::from([(0, offset)]), isolation);
    let mut got = Vec::new();
    while fetcher.offset(0).unwrap() < 13 {
        let polled = fetcher.poll(&mut cluster, 0, &mut |_, record| {
            got.push((
                record.offset,
                String::from_utf8(record.value.unwrap().to_vec()).unwrap(),
            ));
            ControlFlow::Continue(())
        })?;
        assert!(polled.is_continue());
    }
    Ok(got)
}

#[test]
fn reading_begins_inside_a_batch() {
    let got = read_from(11, stored().freeze()).unwrap();
    assert_eq!(
        got,
        [(11, "eleven".to_string()), (12, "twelve".to_string())]
    );
}

#[test]
fn control_batches_are_passed_by() {
    let mut batch = stored();
    batch[22] |= 1 << 5;
    let crc = millrace_engine::types::batch::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(read_from(10, batch.freeze()).unwrap(), []);
}

#[test]
fn aborted_transactions_are_read_only_by_readers_of_everything() {
    let mut batch = stored();
    batch[22] |= 1 << 4;
    batch[43..51].copy_from_slice(&7i64.to_be_bytes());
    let crc = millrace_engine::types::batch::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    let batch = batch.freeze();
    assert_eq!(read_from(10, batch.clone()).unwrap().len(), 3);
    assert_eq!(read_as(Isolation::Committed, 10, batch).unwrap(), []);
    let plain = read_as(Isolation::Committed, 10, stored().freeze());
    assert_eq!(plain.unwrap().len(), 3);
}

#[test]
fn damage_and_lost_positions_are_errors() {
    let mut batch = stored();
    let last = batch.len() - 1;
    batch[last] ^= 1;
    assert!(matches!(
        read_from(10, batch.freeze()),
        Err(ClientError::Batch(_))
    ));
    let error = read_from(9, stored().freeze()).unwrap_err();
    assert!(is_out_of_range(&error));
}

#[test]
fn a_batch_larger_than_the_first_limit_is_read() {
    let mut builder = BatchBuilder::new(Compression::None);
    let large = "x".repeat(3 << 20);
    for value in ["ten", &large, "twelve"] {
        builder.push(&record(value)).unwrap();
    }
    let mut batch = BytesMut::from(&builder.build().unwrap()[..]);
    batch[..8].copy_from_slice(&10i64.to_be_bytes());
    let got = read_from(10, batch.freeze()).unwrap();
    assert_eq!(
        got.iter()
            .map(|(offset, value)| (*offset, value.len()))
            .collect::<Vec<_>>(),
        [(10, 3), (11, 3 << 20), (12, 6)]
    );
}

#[test]
fn ends_are_looked_up() {
    let (at, topic) = reading_broker(stored().freeze());
    let mut cluster = Cluster::new(&[at]);
    cluster.metadata(None, false).unwrap();
    for (spec, offset) in [(Spec::Earliest, 10), (Spec::Latest, 13), (Spec::At(99), -1)] {
        assert_eq!(
            offsets::list(
                &mut cluster,
                "t",
                &topic.partitions,
                spec,
                Isolation::Uncommitted
            )
            .unwrap(),
            BTreeMap::from([(0, offset)])
        );
    }
    // The script ends committed records earlier.
    let committed = offsets::list(
        &mut cluster,
        "t",
        &topic.partitions,
        Spec::Latest,
        Isolation::Committed,
    );
    assert_eq!(committed.unwrap(), BTreeMap::from([(0, 12)]));
}
