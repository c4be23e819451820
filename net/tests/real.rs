//! Owns the test on the real runtime: two pinned shards, real sockets, real files.
//! Does not know what the simulator's tests cover.
//! Invariant: what it asserts follows from counters, never from how long something took.

use bytes::Bytes;
use millrace_engine::api::{Broker, EngineConfig, EngineHandle, Mailboxes};
use millrace_engine::rt::{run_shards, Listener, ShardConfig};
use millrace_net::wire::batch::BatchBuilder;
use millrace_net::wire::create_topics::{CreatableTopic, CreateTopicsRequest};
use millrace_net::wire::fetch::{FetchPartition, FetchRequest, FetchTopic};
use millrace_net::wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use millrace_net::wire::record::Record;
use millrace_net::wire::{frame, Request};
use millrace_net::{serve, NetConfig, NetShared};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{mpsc, Arc};

const SHARDS: usize = 2;

/// A directory of its own, gone at the end.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

struct Client {
    stream: TcpStream,
    next: i32,
}

impl Client {
    fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, next: 0 }
    }

    fn send<R: Request>(&mut self, request: &R, version: i16) -> i32 {
        self.next += 1;
        let frame = frame::encode_request(self.next, None, request, version).unwrap();
        self.stream.write_all(&frame).unwrap();
        self.next
    }

    fn receive<R: Request>(&mut self, correlation: i32, version: i16) -> R::Response {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).unwrap();
        let mut body = vec![0; i32::from_be_bytes(size) as usize];
        self.stream.read_exact(&mut body).unwrap();
        frame::decode_response::<R>(body.into(), correlation, version).unwrap()
    }

    fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let correlation = self.send(request, version);
        self.receive::<R>(correlation, version)
    }
}

fn batch(value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::default();
    let record = Record {
        offset: 0,
        timestamp_ms: 1_700_000_000_000,
        key: None,
        value: Some(Bytes::copy_from_slice(value)),
        headers: vec![],
    };
    builder.push(&record).unwrap();
    builder.build().unwrap()
}

fn produce(partition: i32, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData {
        index: partition,
        records: Some(records),
    };
    let topic = TopicProduceData {
        name: "t".into(),
        partition_data: vec![data],
        ..Default::default()
    };
    ProduceRequest {
        acks: -1,
        topic_data: vec![topic],
        ..Default::default()
    }
}

/// Runs `test` against a broker on real shards, then stops it cleanly.
fn with_broker(test: impl FnOnce(SocketAddr, &NetShared)) {
    let dir = Dir(std::env::temp_dir().join(format!("millrace-net-{}", std::process::id())));
    std::fs::create_dir_all(&dir.0).unwrap();
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    let shared = NetShared::new(SHARDS);
    let boxes = Mailboxes::new(SHARDS);
    let stop: EngineHandle = boxes.handle();
    let mut engine = EngineConfig::new(dir.0.clone());
    engine.memory_bytes = 128 << 20;
    let config = Arc::new(NetConfig {
        move_after_requests: 16,
        ..NetConfig::default()
    });
    let (ready, started) = mpsc::channel();
    let shards = (0..SHARDS)
        .map(|id| ShardConfig {
            id,
            cpu: None,
            name: format!("shard-{id}"),
            dirs: vec![dir.0.clone()],
            drain: true,
        })
        .collect();
    let of_shards = shared.clone();
    let threads = run_shards(shards, move |shard| {
        let (engine, boxes, config) = (engine.clone(), boxes.clone(), config.clone());
        let (shared, listener, ready) = (of_shards.clone(), listener.clone(), ready.clone());
        async move {
            let broker = Broker::start(engine, shard, boxes).await.unwrap();
            let listener = Listener::from_std(listener.try_clone().unwrap()).unwrap();
            ready.send(()).unwrap();
            serve(broker.clone(), vec![listener], config, shared).await;
            broker.close().await.unwrap();
        }
    })
    .unwrap();
    for _ in 0..SHARDS {
        started.recv().unwrap();
    }
    test(address, &shared);
    stop.stop();
    for ended in threads.join() {
        ended.unwrap();
    }
    assert_eq!(shared.connections(), vec![0; SHARDS]);
}

#[test]
fn two_connections_keep_two_shards_busy_wherever_their_partitions_are() {
    with_broker(|address, shared| {
        let mut clients = [Client::connect(address), Client::connect(address)];
        let topic = CreatableTopic {
            name: "t".into(),
            num_partitions: 2,
            replication_factor: 1,
            ..Default::default()
        };
        let made = clients[0].call(
            &CreateTopicsRequest {
                topics: vec![topic],
                ..Default::default()
            },
            7,
        );
        assert_eq!(made.topics[0].error_code, 0);
        let records = batch(&[7; 20_000]);
        let mut expected = [0; 2];
        // Whichever partition belongs to which shard: one of the two arrangements is the wrong way round for both.
        for arrangement in [[0i32, 1], [1, 0]] {
            for _ in 0..40 {
                let mut sent = Vec::new();
                for _ in 0..8 {
                    for (client, partition) in clients.iter_mut().zip(arrangement) {
                        sent.push((
                            partition,
                            client.send(&produce(partition, records.clone()), 9),
                        ));
                    }
                }
                for (at, (partition, correlation)) in sent.into_iter().enumerate() {
                    let response = clients[at % 2].receive::<ProduceRequest>(correlation, 9);
                    let answer = &response.responses[0].partition_responses[0];
                    let offset = &mut expected[partition as usize];
                    assert_eq!((answer.error_code, answer.base_offset), (0, *offset));
                    *offset += 1;
                }
            }
        }
        let shards = shared.snapshot();
        let produced: Vec<u64> = shards
            .iter()
            .map(|shard| {
                shard
                    .requests
                    .iter()
                    .find(|key| key.key == "Produce")
                    .unwrap()
                    .requests
            })
            .collect();
        assert_eq!(produced.iter().sum::<u64>(), 2 * 2 * 40 * 8);
        // Evenly: each connection's requests were read and answered on a shard of its own all the time.
        assert!(
            produced.iter().all(|requests| *requests >= 500),
            "{produced:?}"
        );
        assert!(
            shards.iter().all(|shard| shard.connections_moved_in >= 1),
            "nothing moved"
        );
        assert_eq!(shared.connections(), [1, 1]);

        // Everything comes back, records by reference.
        for partition in [0, 1] {
            let mut offset = 0;
            while offset < expected[partition as usize] {
                let asked = FetchPartition {
                    partition,
                    fetch_offset: offset,
                    partition_max_bytes: 1 << 20,
                    ..Default::default()
                };
                let request = FetchRequest {
                    max_wait_ms: 1000,
                    min_bytes: 1,
                    topics: vec![FetchTopic {
                        topic: "t".into(),
                        partitions: vec![asked],
                        ..Default::default()
                    }],
                    ..Default::default()
                };
                let response = clients[0].call(&request, 12);
                let bytes = response.responses[0].partitions[0]
                    .records
                    .to_bytes()
                    .unwrap();
                assert_eq!(bytes.len() % records.len(), 0);
                for got in bytes.chunks(records.len()) {
                    assert_eq!(got[..8], offset.to_be_bytes());
                    assert!(got[16..] == records[16..]);
                    offset += 1;
                }
            }
        }
    });
}
