//! Owns producing: batches by partition, requests by leader, retries, sequence numbers.
//! Does not know where records come from.
//! Invariant: at most one request per leader is under way and its batches are retried as they are, so that
//! records of a partition stay in order and an idempotent retry is stored once.

use super::cluster::{Cluster, Topic};
use super::error::ClientError;
use super::partitioner::Partitioner;
use super::BROKER_TIMEOUT_MS;
use bytes::Bytes;
use millrace_net::wire::batch::BatchBuilder;
use millrace_net::wire::compress::Compression;
use millrace_net::wire::init_producer_id::InitProducerIdRequest;
use millrace_net::wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use millrace_net::wire::record::Record;
use millrace_net::wire::{ErrorCode, Str};
use std::collections::BTreeMap;

/// A partition's batch is sent when it would grow beyond this; well below Kafka's default of
/// `max.message.bytes` (1 MiB).
const BATCH_BYTES: usize = 256 << 10;

/// Everything gathered is sent when it reaches this.
const GATHERED_BYTES_MAX: usize = 2 << 20;

/// What a record takes besides its bytes, at most: lengths, deltas and attributes.
const RECORD_OVERHEAD_BYTES: usize = 32;

/// How to produce.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// 0: no answer; 1: the leader; -1: all in-sync replicas.
    pub acks: i16,
    pub compression: Compression,
}

/// A batch that is built and not yet acknowledged.
struct Built {
    /// Place in the topic's list of partitions.
    place: usize,
    bytes: Bytes,
    records: usize,
}

/// Produces to one topic.
pub struct Sender {
    topic: Topic,
    options: Options,
    partitioner: Partitioner,
    /// Id and epoch where batches are numbered; only with acks=all, and where the broker gives ids.
    producer: Option<(i64, i16)>,
    /// Next sequence number by place of the partition.
    sequences: Vec<i32>,
    gathered: BTreeMap<usize, BatchBuilder>,
    gathered_bytes: usize,
    acknowledged: u64,
}

impl Sender {
    /// Looks the topic up, which creates it where the broker does so on first use.
    pub fn open(
        cluster: &mut Cluster,
        topic: &str,
        options: Options,
    ) -> Result<Sender, ClientError> {
        let topic = cluster.topic(topic, true)?;
        let producer = if options.acks == -1 {
            new_producer(cluster)?
        } else {
            None
        };
        Ok(Sender {
            partitioner: Partitioner::new(topic.partitions.len()),
            sequences: vec![0; topic.partitions.len()],
            topic,
            options,
            producer,
            gathered: BTreeMap::new(),
            gathered_bytes: 0,
            acknowledged: 0,
        })
    }

    /// Adds a record to the batch of `partition`, or of the one its key belongs to; sends what is
    /// gathered when that is enough.
    pub fn push(
        &mut self,
        cluster: &mut Cluster,
        record: &Record,
        partition: Option<i32>,
    ) -> Result<(), ClientError> {
        let place = self.place(record, partition)?;
        let bytes = record_bytes(record);
        let full = self
            .gathered
            .get(&place)
            .is_some_and(|b| b.bytes_uncompressed() + bytes > BATCH_BYTES);
        if full || self.gathered_bytes + bytes > GATHERED_BYTES_MAX {
            self.flush(cluster)?;
        }
        // Sending may have moved records without a key on to another partition.
        let place = self.place(record, partition)?;
        let compression = self.options.compression;
        let batch = self
            .gathered
            .entry(place)
            .or_insert_with(|| BatchBuilder::new(compression));
        batch
            .push(record)
            .map_err(|e| ClientError::Batch(format!("cannot build a batch: {e}")))?;
        self.gathered_bytes += bytes;
        Ok(())
    }

    fn place(&self, record: &Record, partition: Option<i32>) -> Result<usize, ClientError> {
        let partitions = &self.topic.partitions;
        match partition {
            None => Ok(self
                .partitioner
                .choose(record.key.as_deref(), partitions.len())),
            Some(index) => partitions
                .iter()
                .position(|p| p.index == index)
                .ok_or_else(|| {
                    ClientError::Batch(format!(
                        "topic {} has no partition {index}, only 0 to {}",
                        self.topic.name,
                        partitions.len() - 1
                    ))
                }),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.gathered.is_empty()
    }

    /// Records acknowledged so far (with acks=0: handed to the network).
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Sends everything gathered and waits for the acknowledgements.
    pub fn flush(&mut self, cluster: &mut Cluster) -> Result<(), ClientError> {
        let gathered = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        let mut waiting = Vec::with_capacity(gathered.len());
        for (place, mut batch) in gathered {
            let records = batch.count();
            if let Some((id, epoch)) = self.producer {
                (batch.producer_id, batch.producer_epoch) = (id, epoch);
                batch.base_sequence = self.sequences[place];
                self.sequences[place] = sequence_after(self.sequences[place], records);
            }
            let bytes = batch
                .build()
                .map_err(|e| ClientError::Batch(format!("cannot build a batch: {e}")))?;
            waiting.push(Built {
                place,
                bytes,
                records,
            });
        }
        self.partitioner.next_batch(self.topic.partitions.len());
        let mut stale = false;
        cluster.retry(|cluster| {
            if stale {
                self.topic = cluster.topic(&self.topic.name, false)?;
            }
            let result = self.send(cluster, &mut waiting);
            stale = result.is_err();
            result
        })
    }

    /// Sends what waits, one request per leader; what is acknowledged no longer waits. One try.
    fn send(&mut self, cluster: &mut Cluster, waiting: &mut Vec<Built>) -> Result<(), ClientError> {
        let mut by_leader: BTreeMap<i32, Vec<Built>> = BTreeMap::new();
        for built in waiting.drain(..) {
            by_leader
                .entry(self.topic.partitions[built.place].leader)
                .or_default()
                .push(built);
        }
        let mut first_error = None;
        for (leader, mut batches) in by_leader {
            let result = self.send_to(cluster, leader, &mut batches);
            waiting.extend(batches);
            if let Err(error) = result {
                // An error that no retry mends is the one to tell.
                match &first_error {
                    Some(first) if !ClientError::is_retriable(first) || error.is_retriable() => {}
                    _ => first_error = Some(error),
                }
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Sends `batches` to their leader and takes those acknowledged out of them.
    fn send_to(
        &mut self,
        cluster: &mut Cluster,
        leader: i32,
        batches: &mut Vec<Built>,
    ) -> Result<(), ClientError> {
        let index = |place: usize| self.topic.partitions[place].index;
        let data = batches
            .iter()
            .map(|b| PartitionProduceData {
                index: index(b.place),
                records: Some(b.bytes.clone()),
            })
            .collect();
        let request = ProduceRequest {
            transactional_id: None,
            acks: self.options.acks,
            timeout_ms: BROKER_TIMEOUT_MS,
            topic_data: vec![TopicProduceData {
                name: Str::from(self.topic.name.clone()),
                partition_data: data,
                ..Default::default()
            }],
        };
        if self.options.acks == 0 {
            cluster.with_node(leader, |conn| conn.send_unanswered(&request))?;
            self.acknowledged += batches.drain(..).map(|b| b.records as u64).sum::<u64>();
            return Ok(());
        }
        let answer = cluster.with_node(leader, |conn| conn.call(&request))?;
        let mut first_error = None;
        for part in answer
            .responses
            .into_iter()
            .flat_map(|t| t.partition_responses)
        {
            let what = || format!("partition {} of {}", part.index, self.topic.name);
            let code = part.error_code;
            let stored =
                code == ErrorCode::None.code() || code == ErrorCode::DuplicateSequenceNumber.code();
            if !stored {
                first_error.get_or_insert(ClientError::broker(
                    what(),
                    code,
                    part.error_message.as_deref(),
                ));
                continue;
            }
            if let Some(at) = batches.iter().position(|b| index(b.place) == part.index) {
                self.acknowledged += batches.swap_remove(at).records as u64;
            }
        }
        match (first_error, batches.first()) {
            (Some(error), _) => Err(error),
            (None, None) => Ok(()),
            (None, Some(missing)) => Err(ClientError::Batch(format!(
                "the broker's answer leaves out partition {} of {}",
                index(missing.place),
                self.topic.name
            ))),
        }
    }
}

/// An id for numbering batches; None where the broker has no such ids.
fn new_producer(cluster: &mut Cluster) -> Result<Option<(i64, i16)>, ClientError> {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 0,
        ..InitProducerIdRequest::default()
    };
    let asked = cluster.retry(|cluster| {
        let answer = cluster.call_any(&request)?;
        ClientError::check(|| "a producer id".to_string(), answer.error_code, None)?;
        Ok((answer.producer_id, answer.producer_epoch))
    });
    match asked {
        Ok(producer) => Ok(Some(producer)),
        Err(ClientError::NoApi { .. } | ClientError::NoVersion { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Wraps from `i32::MAX` to 0 as brokers expect.
fn sequence_after(sequence: i32, records: usize) -> i32 {
    ((sequence as u64 + records as u64) % (1 << 31)) as i32
}

fn record_bytes(record: &Record) -> usize {
    let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers: usize = record
        .headers
        .iter()
        .map(|h| h.key.len() + len(&h.value) + RECORD_OVERHEAD_BYTES)
        .sum();
    len(&record.key) + len(&record.value) + headers + RECORD_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_after(0, 3), 3);
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 3), 1);
    }
}
