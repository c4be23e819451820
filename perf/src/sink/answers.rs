//! Owns what the sink answers to each request, and the little it remembers for that.
//! Does not know connections or when an answer leaves.
//! Invariant: offsets count as a broker's would, and a fetch brings whole batches only.

use crate::scan::{Cursor, FETCH_VERSION, PRODUCE_VERSION};
use bytes::Bytes;
use millrace_net::wire::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use millrace_net::wire::create_topics::{
    CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
};
use millrace_net::wire::frame::{encode_response, RequestHeader};
use millrace_net::wire::list_offsets::{
    timestamp, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use millrace_net::wire::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use millrace_net::wire::versions::{self, ApiKey};
use millrace_net::wire::{ErrorCode, Message, Reader, Str, WireError};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

const NODE_ID: i32 = 1;
const TOPICS_MAX: usize = 1_000;
const PARTITIONS_MAX: usize = 100_000;
/// Largest answer to a fetch.
const FETCH_BYTES_MAX: usize = 64 << 20;

/// What it remembers of what was produced.
#[derive(Default)]
pub(super) struct Memory {
    topics: HashMap<String, Topic>,
}

#[derive(Default)]
struct Topic {
    /// Of each partition.
    next_offsets: Vec<i64>,
    /// The first batch that came; every fetch brings copies of it.
    batch: Vec<u8>,
}

/// What became of a request.
pub(super) enum Answered {
    Produce,
    Other,
    /// A fetch that found nothing and is willing to wait.
    Later(Duration),
}

pub(super) fn answer(
    frame: &[u8],
    memory: &mut Memory,
    address: SocketAddr,
    out: &mut Vec<u8>,
) -> Result<Answered, WireError> {
    let mut cursor = Cursor::new(frame);
    let (key, version) = (cursor.i16()?, cursor.i16()?);
    if key == ApiKey::Produce.code() && version == PRODUCE_VERSION {
        produce(frame, memory, out)?;
        return Ok(Answered::Produce);
    }
    if key == ApiKey::Fetch.code() && version == FETCH_VERSION {
        return fetch(frame, memory, false, out);
    }
    let mut reader = Reader::new(Bytes::copy_from_slice(frame));
    let (header, _) = RequestHeader::decode(&mut reader)?;
    let id = header.correlation_id;
    let bytes = match header.key {
        ApiKey::ApiVersions => {
            let (_, max) = ApiVersionsRequest::VERSIONS;
            if version > max {
                encode_response::<ApiVersionsRequest>(id, &versions::refusal(), 0)?
            } else {
                let response = ApiVersionsResponse {
                    api_keys: versions::advertised(),
                    ..Default::default()
                };
                encode_response::<ApiVersionsRequest>(id, &response, version)?
            }
        }
        ApiKey::Metadata => {
            let request = MetadataRequest::decode(&mut reader, version)?;
            let response = metadata(&request, version, memory, address);
            encode_response::<MetadataRequest>(id, &response, version)?
        }
        ApiKey::CreateTopics => {
            let request = CreateTopicsRequest::decode(&mut reader, version)?;
            encode_response::<CreateTopicsRequest>(id, &create(&request, memory), version)?
        }
        ApiKey::ListOffsets => {
            let request = ListOffsetsRequest::decode(&mut reader, version)?;
            encode_response::<ListOffsetsRequest>(id, &offsets(&request, memory), version)?
        }
        other => return Err(WireError::UnknownApiKey { key: other.code() }),
    };
    out.extend_from_slice(&bytes);
    Ok(Answered::Other)
}

/// Skips the header of a request with fixed lengths; the correlation id.
fn header(cursor: &mut Cursor<'_>) -> Result<i32, WireError> {
    cursor.i32()?;
    let correlation = cursor.i32()?;
    cursor.string()?;
    Ok(correlation)
}

/// Begins a frame whose size is not known yet; where it begins.
fn open(out: &mut Vec<u8>, correlation: i32) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&correlation.to_be_bytes());
    start
}

fn close(out: &mut [u8], start: usize) {
    let size = i32::try_from(out.len() - start - 4).expect("an answer is bounded");
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

fn put_i16(out: &mut Vec<u8>, value: usize) {
    out.extend_from_slice(&(value as i16).to_be_bytes());
}

fn put_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Records in a batch, from its header.
fn records_in(batch: &[u8]) -> i64 {
    let count = batch.get(57..61).and_then(|bytes| bytes.first_chunk::<4>());
    count.map_or(0, |bytes| i32::from_be_bytes(*bytes).into())
}

fn produce(frame: &[u8], memory: &mut Memory, out: &mut Vec<u8>) -> Result<(), WireError> {
    let mut cursor = Cursor::new(frame);
    let correlation = header(&mut cursor)?;
    cursor.string()?;
    let acks = cursor.i16()?;
    cursor.i32()?;
    let start = open(out, correlation);
    let topics = cursor.count()?;
    put_i32(out, topics as i32);
    for _ in 0..topics {
        let name = cursor.string()?;
        put_i16(out, name.len());
        out.extend_from_slice(name);
        let known = std::str::from_utf8(name)
            .ok()
            .and_then(|name| memory.topics.get_mut(name));
        let mut unknown = Topic::default();
        let topic = known.unwrap_or(&mut unknown);
        let partitions = cursor.count()?;
        put_i32(out, partitions as i32);
        for _ in 0..partitions {
            let index = cursor.i32()?;
            let batch = cursor.bytes()?;
            let next_offset = usize::try_from(index)
                .ok()
                .and_then(|index| topic.next_offsets.get_mut(index));
            let (code, base_offset) = match next_offset {
                Some(next) => {
                    let base = *next;
                    *next += records_in(batch);
                    (ErrorCode::None, base)
                }
                None => (ErrorCode::UnknownTopicOrPartition, -1),
            };
            if topic.batch.is_empty() {
                topic.batch = batch.to_vec();
            }
            put_i32(out, index);
            out.extend_from_slice(&code.code().to_be_bytes());
            put_i64(out, base_offset);
            put_i64(out, -1);
            put_i64(out, 0);
        }
    }
    put_i32(out, 0);
    if acks == 0 {
        out.truncate(start);
    } else {
        close(out, start);
    }
    Ok(())
}

pub(super) fn fetch(
    frame: &[u8],
    memory: &Memory,
    overdue: bool,
    out: &mut Vec<u8>,
) -> Result<Answered, WireError> {
    let mut cursor = Cursor::new(frame);
    let correlation = header(&mut cursor)?;
    cursor.i32()?;
    let max_wait_ms = cursor.i32()?;
    cursor.i32()?;
    let max_bytes = usize::try_from(cursor.i32()?)
        .unwrap_or(0)
        .min(FETCH_BYTES_MAX);
    cursor.take(1 + 4 + 4)?;
    let start = open(out, correlation);
    // Throttle time, error, session.
    out.extend_from_slice(&[0; 4 + 2 + 4]);
    let topics = cursor.count()?;
    put_i32(out, topics as i32);
    let mut sent = 0;
    for _ in 0..topics {
        let name = cursor.string()?;
        put_i16(out, name.len());
        out.extend_from_slice(name);
        let topic = std::str::from_utf8(name)
            .ok()
            .and_then(|name| memory.topics.get(name));
        let batch = topic.map_or(&[][..], |topic| &topic.batch[..]);
        let partitions = cursor.count()?;
        put_i32(out, partitions as i32);
        for _ in 0..partitions {
            let index = cursor.i32()?;
            cursor.i32()?;
            let mut offset = cursor.i64()?;
            cursor.i64()?;
            let limit = usize::try_from(cursor.i32()?).unwrap_or(0);
            let known = usize::try_from(index)
                .ok()
                .and_then(|index| topic?.next_offsets.get(index));
            let code = match known {
                Some(_) => ErrorCode::None,
                None => ErrorCode::UnknownTopicOrPartition,
            };
            let end = known.copied().unwrap_or(-1);
            put_i32(out, index);
            out.extend_from_slice(&code.code().to_be_bytes());
            put_i64(out, end);
            put_i64(out, end);
            put_i64(out, 0);
            // No aborted transactions, no other replica to read from.
            put_i32(out, -1);
            put_i32(out, -1);
            let length_at = out.len();
            put_i32(out, 0);
            let records = records_in(batch);
            while records > 0 && offset < end && (sent == 0 || sent + batch.len() <= max_bytes) {
                let base = offset - offset % records;
                put_i64(out, base);
                out.extend_from_slice(&batch[8..]);
                offset = base + records;
                sent += batch.len();
                if out.len() - length_at - 4 + batch.len() > limit {
                    break;
                }
            }
            let length = (out.len() - length_at - 4) as i32;
            out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
        }
    }
    if sent == 0 && !overdue && max_wait_ms > 0 {
        out.truncate(start);
        return Ok(Answered::Later(Duration::from_millis(max_wait_ms as u64)));
    }
    close(out, start);
    Ok(Answered::Other)
}

fn metadata(
    request: &MetadataRequest,
    version: i16,
    memory: &Memory,
    address: SocketAddr,
) -> MetadataResponse {
    let names: Vec<Str> = match request.asked(version) {
        Some(asked) => asked
            .iter()
            .filter_map(|topic| topic.name.clone())
            .collect(),
        None => memory.topics.keys().cloned().map(Str::from).collect(),
    };
    let topics = names.into_iter().map(|name| {
        let known = memory.topics.get(name.as_str());
        let code = match known {
            Some(_) => ErrorCode::None,
            None => ErrorCode::UnknownTopicOrPartition,
        };
        let partitions = known.map_or(0, |topic| topic.next_offsets.len());
        MetadataResponseTopic {
            error_code: code.code(),
            name: Some(name),
            partitions: (0..partitions)
                .map(|index| MetadataResponsePartition {
                    partition_index: index as i32,
                    leader_id: NODE_ID,
                    replica_nodes: vec![NODE_ID],
                    isr_nodes: vec![NODE_ID],
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    });
    MetadataResponse {
        brokers: vec![MetadataResponseBroker {
            node_id: NODE_ID,
            host: address.ip().to_string().into(),
            port: address.port().into(),
            rack: None,
        }],
        controller_id: NODE_ID,
        topics: topics.collect(),
        ..Default::default()
    }
}

fn create(request: &CreateTopicsRequest, memory: &mut Memory) -> CreateTopicsResponse {
    let mut topics = Vec::new();
    for topic in &request.topics {
        let partitions = usize::try_from(topic.num_partitions).unwrap_or(1);
        let code = if memory.topics.contains_key(topic.name.as_str()) {
            ErrorCode::TopicAlreadyExists
        } else if partitions > PARTITIONS_MAX || memory.topics.len() >= TOPICS_MAX {
            ErrorCode::InvalidPartitions
        } else {
            let made = Topic {
                next_offsets: vec![0; partitions],
                batch: Vec::new(),
            };
            memory.topics.insert(topic.name.to_string(), made);
            ErrorCode::None
        };
        topics.push(CreatableTopicResult {
            name: topic.name.clone(),
            error_code: code.code(),
            ..Default::default()
        });
    }
    CreateTopicsResponse {
        throttle_time_ms: 0,
        topics,
    }
}

fn offsets(request: &ListOffsetsRequest, memory: &Memory) -> ListOffsetsResponse {
    let topics = request.topics.iter().map(|topic| {
        let known = memory.topics.get(topic.name.as_str());
        let partitions = topic.partitions.iter().map(|asked| {
            let next = usize::try_from(asked.partition_index)
                .ok()
                .and_then(|index| known?.next_offsets.get(index));
            let code = match next {
                Some(_) => ErrorCode::None,
                None => ErrorCode::UnknownTopicOrPartition,
            };
            let offset = match asked.timestamp {
                timestamp::EARLIEST => 0,
                _ => next.copied().unwrap_or(-1),
            };
            ListOffsetsPartitionResponse {
                partition_index: asked.partition_index,
                error_code: code.code(),
                offset,
                ..Default::default()
            }
        });
        ListOffsetsTopicResponse {
            name: topic.name.clone(),
            partitions: partitions.collect(),
        }
    });
    ListOffsetsResponse {
        throttle_time_ms: 0,
        topics: topics.collect(),
    }
}
