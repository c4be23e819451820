//! Owns one fixed amount of producing against a whole broker on the simulator, for counting its instructions.
//! Does not know how they are counted: `ci/harness/instructions.py` does, and takes the difference of two amounts.
//! Invariant: the same arguments are the same instructions; nothing depends on time, threads or addresses.

use bytes::Bytes;
use millrace_engine::api::{Broker, EngineConfig, Mailboxes};
use millrace_engine::rt::sim::{Sim, SimConfig};
use millrace_engine::rt::{self, Class, Listener, TcpStream};
use millrace_net::wire::batch::BatchBuilder;
use millrace_net::wire::create_topics::{CreatableTopic, CreateTopicsRequest};
use millrace_net::wire::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};
use millrace_net::wire::record::Record;
use millrace_net::wire::{frame, Request, Str};
use millrace_net::{serve, Listeners, NetConfig, NetShared};
use std::net::SocketAddr;
use std::sync::Arc;

const ADDRESS: &str = "10.0.0.1:9092";
const PARTITIONS: i32 = 16;
/// Requests under way at once, as a client with several batches to send has them.
const UNDER_WAY: usize = 4;
const CREATE_VERSION: i16 = 7;
const PRODUCE_VERSION: i16 = 9;

fn main() {
    let numbers: Vec<usize> = std::env::args()
        .skip(1)
        .map(|word| word.parse().expect("a number"))
        .collect();
    let [requests, records, bytes] = numbers[..] else {
        panic!("usage: produce_path REQUESTS RECORDS-IN-EACH BYTES-IN-EACH-RECORD");
    };
    Sim::new(1, SimConfig::default()).block_on(run(requests, records, bytes));
    println!("{requests} acknowledged");
}

async fn run(requests: usize, records: usize, bytes: usize) {
    let boxes = Mailboxes::new(1);
    let net = NetConfig::default();
    let mut engine = EngineConfig::new("/data".into());
    engine.memory_bytes = 64 << 20;
    engine.broker_settings = net.broker_settings();
    let broker = Broker::start(engine, 0, boxes.clone()).await;
    let broker = broker.expect("an empty disk");
    let address: SocketAddr = ADDRESS.parse().expect("an address");
    let listeners = Listeners::from(vec![Listener::bind(address).expect("a free port")]);
    let serving = serve(broker.clone(), listeners, Arc::new(net), NetShared::new(1));
    let serving = rt::spawn_joined(Class::Network, serving);

    let mut client = Client::connect(address).await;
    client.create_topic().await;
    let batch = batch(records, bytes);
    for sent in 0..requests {
        client.produce((sent as i32) % PARTITIONS, &batch).await;
        if sent >= UNDER_WAY {
            client.answered().await;
        }
    }
    for _ in 0..UNDER_WAY.min(requests) {
        client.answered().await;
    }
    drop(client);
    boxes.handle().stop();
    serving.await;
    broker.close().await.expect("a clean stop");
}

fn batch(records: usize, bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::default();
    for _ in 0..records {
        let record = Record {
            offset: 0,
            timestamp_ms: 1_700_000_000_000,
            key: None,
            value: Some(Bytes::from(vec![b'x'; bytes])),
            headers: vec![],
        };
        builder.push(&record).expect("a record that fits");
    }
    builder.build().expect("there are records")
}

struct Client {
    stream: TcpStream,
    /// Correlation ids: of the next request, and of the next answer.
    next: i32,
    due: i32,
}

impl Client {
    async fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).await.expect("it listens");
        Client {
            stream,
            next: 0,
            due: 0,
        }
    }

    async fn send<R: Request>(&mut self, request: &R, version: i16) {
        let frame = frame::encode_request(self.next, Some(Str::from("count")), request, version);
        let frame = frame.expect("a request");
        self.next += 1;
        self.stream.write_all(&frame).await.expect("it is served");
    }

    async fn receive<R: Request>(&mut self, version: i16) -> R::Response {
        let size = self.exactly(4).await;
        let size = u32::from_be_bytes(size[..].try_into().expect("four bytes"));
        let frame = self.exactly(size as usize).await;
        let response = frame::decode_response::<R>(frame, self.due, version);
        self.due += 1;
        response.expect("an answer")
    }

    async fn exactly(&mut self, count: usize) -> Bytes {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            let read = self.stream.read(&mut bytes[filled..]).await;
            filled += read.ok().filter(|n| *n > 0).expect("it is served");
        }
        bytes.into()
    }

    async fn create_topic(&mut self) {
        let topic = CreatableTopic {
            name: Str::from("t"),
            num_partitions: PARTITIONS,
            replication_factor: 1,
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..Default::default()
        };
        self.send(&request, CREATE_VERSION).await;
        let created = self.receive::<CreateTopicsRequest>(CREATE_VERSION).await;
        assert_eq!(created.topics[0].error_code, 0);
    }

    async fn produce(&mut self, partition: i32, batch: &Bytes) {
        let data = PartitionProduceData {
            index: partition,
            records: Some(batch.clone()),
        };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![TopicProduceData {
                name: Str::from("t"),
                partition_data: vec![data],
                ..Default::default()
            }],
            ..Default::default()
        };
        self.send(&request, PRODUCE_VERSION).await;
    }

    async fn answered(&mut self) {
        let response: ProduceResponse = self.receive::<ProduceRequest>(PRODUCE_VERSION).await;
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
    }
}
