//! Owns a simulated node for tests: batches, start, append, read, verify.
//! Does not know what is tested.
//! Invariant: what is read here was checked by its CRC.

use bytes::Bytes;
use millrace_engine::api::{
    Acks, AppendItem, Broker, EngineConfig, FetchItem, FetchOptions, Mailboxes,
};
use millrace_engine::inspect::{self, Directories, Finding, Level, Summary};
use millrace_engine::meta::{Command, Overrides};
use millrace_engine::rt;
use millrace_engine::types::batch::{crc32c, BatchHeader, CRC_START};
use millrace_engine::types::{PartitionId, TopicId};
use std::path::PathBuf;
use std::time::Duration;

/// One record batch; the value of its first record is `bytes` times `fill`, the others have none.
#[derive(Clone, Copy)]
pub struct Batch {
    pub fill: u8,
    pub bytes: usize,
    pub records: i32,
    pub timestamp_ms: i64,
    /// Id and first sequence of an idempotent producer, of epoch 0.
    pub producer: Option<(i64, i32)>,
}

impl Batch {
    pub fn new(fill: u8, bytes: usize) -> Batch {
        Batch {
            fill,
            bytes,
            records: 1,
            timestamp_ms: 1_000 + i64::from(fill),
            producer: None,
        }
    }

    pub fn encode(self) -> Vec<u8> {
        let mut b = vec![0; 61];
        let value = vec![self.fill; self.bytes];
        for delta in 0..self.records {
            let value = if delta == 0 { &value[..] } else { &[] };
            // Attributes, its time, its offset, no key, the value, no headers.
            let mut record = vec![0, 0];
            put_zigzag(&mut record, i64::from(delta));
            put_zigzag(&mut record, -1);
            put_zigzag(&mut record, value.len() as i64);
            record.extend(value);
            record.push(0);
            put_zigzag(&mut b, record.len() as i64);
            b.extend(record);
        }
        let put = |b: &mut Vec<u8>, at: usize, v: &[u8]| b[at..at + v.len()].copy_from_slice(v);
        let length = (b.len() - 12) as i32;
        let (id, epoch, sequence) = self.producer.map_or((-1, -1, -1), |(id, s)| (id, 0i16, s));
        put(&mut b, 8, &length.to_be_bytes());
        put(&mut b, 16, &[2]);
        put(&mut b, 23, &(self.records - 1).to_be_bytes());
        put(&mut b, 27, &self.timestamp_ms.to_be_bytes());
        put(&mut b, 35, &self.timestamp_ms.to_be_bytes());
        put(&mut b, 43, &id.to_be_bytes());
        put(&mut b, 51, &epoch.to_be_bytes());
        put(&mut b, 53, &sequence.to_be_bytes());
        put(&mut b, 57, &self.records.to_be_bytes());
        let crc = crc32c(&b[CRC_START..]);
        put(&mut b, 17, &crc.to_be_bytes());
        b
    }
}

fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

pub fn config() -> EngineConfig {
    let mut config = EngineConfig::new("/data".into());
    config.memory_bytes = 1;
    config.retention_check = Some(Duration::from_secs(3600));
    config
}

/// All shards of a node, or why it does not start.
pub async fn try_start(shards: usize) -> Result<Vec<Broker>, String> {
    start_with(config(), shards).await
}

pub async fn start_with(config: EngineConfig, shards: usize) -> Result<Vec<Broker>, String> {
    let boxes = Mailboxes::new(shards);
    let starting: Vec<_> = (0..shards)
        .map(|i| {
            let start = Broker::start(config.clone(), i, boxes.clone());
            rt::spawn_joined(rt::Class::Network, start)
        })
        .collect();
    let mut brokers = Vec::new();
    for one in starting {
        brokers.push(one.await.map_err(|e| e.to_string())?);
    }
    Ok(brokers)
}

pub async fn start() -> Broker {
    let mut brokers = try_start(1).await.unwrap_or_else(|e| panic!("start: {e}"));
    brokers.remove(0)
}

/// Stops all shards cleanly.
pub async fn close(brokers: &[Broker]) {
    let closing: Vec<_> = brokers
        .iter()
        .map(|broker| {
            let broker = broker.clone();
            rt::spawn_joined(rt::Class::Network, async move { broker.close().await })
        })
        .collect();
    for one in closing {
        one.await.unwrap_or_else(|e| panic!("close: {e}"));
    }
}

/// A topic that keeps everything.
pub async fn create_topic(
    broker: &Broker,
    id: TopicId,
    name: &str,
    partitions: i32,
    segment_bytes: u64,
) {
    let segment_bytes = segment_bytes.to_string();
    let settings = [
        ("segment.bytes", segment_bytes.as_str()),
        ("retention.ms", "-1"),
    ];
    create_topic_with(broker, id, name, partitions, &settings).await;
}

pub async fn create_topic_with(
    broker: &Broker,
    id: TopicId,
    name: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) {
    let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    let overrides: Overrides = settings.iter().map(owned).collect();
    let command = Command::CreateTopic {
        id,
        name: name.into(),
        internal: false,
        partitions,
        replication_factor: 1,
        assignment: Vec::new(),
        overrides,
    };
    broker.propose(command).await.unwrap();
}

/// The base offset that the batch got.
pub async fn append(
    broker: &Broker,
    partition: PartitionId,
    batch: Vec<u8>,
) -> Result<i64, String> {
    let batch = Bytes::from(batch);
    let item = AppendItem { partition, batch };
    let done = broker.append(vec![item], Acks::All).await.remove(0);
    done.map(|a| a.base_offset).map_err(|e| e.to_string())
}

/// The batches that one fetch from `offset` gives; none at the end.
pub async fn fetch(
    broker: &Broker,
    partition: PartitionId,
    offset: i64,
) -> Result<Vec<BatchHeader>, String> {
    let item = FetchItem {
        partition,
        offset,
        max_bytes: 1 << 20,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
    };
    let options = FetchOptions {
        max_wait: Duration::ZERO,
        min_bytes: 1,
        max_bytes: 1 << 20,
        read_committed: false,
    };
    let fetched = broker.fetch(vec![item], options).await.remove(0);
    let fetched = fetched.map_err(|e| e.to_string())?;
    let mut batches = Vec::new();
    for chunk in &fetched.records {
        let mut rest = chunk.as_ref();
        while !rest.is_empty() {
            let header = BatchHeader::parse(rest).unwrap();
            assert!(header.crc_matches(rest));
            rest = &rest[header.size..];
            batches.push(header);
        }
    }
    Ok(batches)
}

/// Offset and leader epoch of every batch that ends behind `offset`.
pub async fn read(broker: &Broker, partition: PartitionId, mut offset: i64) -> Vec<(i64, i32)> {
    let mut out = Vec::new();
    loop {
        let batches = fetch(broker, partition, offset).await;
        let batches = batches.unwrap_or_else(|e| panic!("fetch: {e}"));
        let Some(last) = batches.last() else {
            return out;
        };
        let next = last.next_offset();
        let wanted = batches.iter().filter(|b| b.next_offset() > offset);
        out.extend(wanted.map(|b| (b.base_offset, b.leader_epoch)));
        offset = next;
    }
}

pub async fn verify() -> (Vec<Finding>, Summary) {
    let mut findings = Vec::new();
    let dirs = Directories::new("/data".into(), None);
    let summary = inspect::verify(&dirs, &mut |f| findings.push(f.clone()))
        .await
        .expect("readable");
    (findings, summary)
}

/// Files that `verify` calls damaged.
pub fn damaged_files(findings: &[Finding]) -> Vec<PathBuf> {
    let damage = findings.iter().filter(|f| f.level == Level::Damage);
    damage.map(|f| f.file.clone()).collect()
}
