//! Owns the target of a whole connection: bytes of a client that wants no good, to a simulated node with topics.
//! Does not know what the requests in them do.
//! Invariant: the node neither panics nor stalls; the next client gets the answers that it should.

use super::with_files;
use crate::sim::wire::{address, Conn};
use millrace_engine::api::{Acks, AppendItem, Broker, EngineConfig, Mailboxes, SmallParts};
use millrace_engine::meta::{Command, Overrides};
use millrace_engine::rt::{self, Class, Listener, ReadHalf, TcpStream};
use millrace_engine::types::{PartitionId, TopicId};
use millrace_net::wire::api_versions::ApiVersionsRequest;
use millrace_net::wire::batch::BatchBuilder;
use millrace_net::wire::metadata::MetadataRequest;
use millrace_net::wire::record::Record;
use millrace_net::{serve, NetConfig, NetShared};
use std::sync::Arc;
use std::time::Duration;

/// Topics that are there, with the names that requests of the corpus have.
const TOPICS: [&str; 2] = ["a", "ab"];

/// How long the hostile client stays; virtual time.
const STAY: Duration = Duration::from_secs(60);

/// A byte that says in which steps the client writes, and what it writes.
pub fn connection(data: &[u8]) {
    let Some((step, stream)) = data.split_first() else {
        return;
    };
    let step = match step % 4 {
        0 => usize::MAX,
        1 => 1_000,
        2 => 61,
        _ => 4,
    };
    with_files(&[], async {
        let broker = node().await;
        let listener = Listener::bind(address()).expect("a free address");
        let config = Arc::new(NetConfig {
            request_bytes_max: 1 << 20,
            ..NetConfig::default()
        });
        let shared = NetShared::new(1);
        let serving = serve(broker, vec![listener], config, shared);
        let serving = rt::spawn_joined(Class::Network, serving);
        attack(stream, step).await;
        good_client().await;
        drop(serving);
    });
}

async fn node() -> Broker {
    let mut config = EngineConfig::new("/data".into());
    config.memory_bytes = 1;
    config.small = Some(SmallParts {
        journal_file_bytes: 128 << 10,
        journal_files_max: 2,
        backlog_bytes_max: 32 << 10,
        cache_bytes: 32 << 10,
        file_syncs_max: 32,
    });
    let broker = Broker::start(config, 0, Mailboxes::new(1)).await;
    let broker = broker.unwrap_or_else(|error| panic!("start: {error}"));
    for (number, name) in (1..).zip(TOPICS) {
        let id = TopicId([number; 16]);
        let create = Command::CreateTopic {
            id,
            name: name.into(),
            internal: false,
            partitions: 2,
            replication_factor: 1,
            assignment: Vec::new(),
            overrides: Overrides::new(),
        };
        broker.propose(create).await.expect("a new topic");
        let mut builder = BatchBuilder::default();
        let record = Record {
            value: Some("value".into()),
            ..Record::default()
        };
        builder.push(&record).expect("a small record");
        let item = AppendItem {
            partition: PartitionId::new(id, 0),
            batch: builder.build().expect("a small batch"),
        };
        let appended = broker.append(vec![item], Acks::All).await;
        assert!(appended.iter().all(Result::is_ok), "{appended:?}");
    }
    broker
}

/// Writes the stream, takes every answer, and goes when it has nothing more to say.
async fn attack(stream: &[u8], step: usize) {
    let connection = TcpStream::connect(address()).await;
    let (reader, mut writer) = connection.expect("a node that listens").split();
    let answers = rt::spawn_joined(Class::Background, drain(reader));
    for part in stream.chunks(step) {
        match rt::timeout(STAY, writer.write_all(part)).await {
            Some(Ok(())) => {}
            // The node has closed the connection, as it should where this is no request.
            Some(Err(_)) | None => break,
        }
    }
    // The broker may have closed its side first, or keep answering: what counts is the good client that comes after.
    let _ = writer.shutdown().await;
    let _ = rt::timeout(STAY, answers).await;
}

async fn drain(mut reader: ReadHalf) {
    let mut room = vec![0; 16 << 10];
    while reader.read(&mut room).await.is_ok_and(|read| read > 0) {}
}

async fn good_client() {
    let mut client = Conn::open().await.expect("a node that listens");
    let versions = client.call(&ApiVersionsRequest::default(), 0).await;
    let versions = versions.expect("an answer about versions");
    assert_eq!(versions.error_code, 0);
    let metadata = client.call(&MetadataRequest::default(), 12).await;
    let metadata = metadata.expect("an answer about topics");
    assert_eq!(metadata.brokers.len(), 1);
}
