//! Owns Produce: takes the batches out of a request, hands them to the engine, words the answer.
//! Does not know how batches are stored or when they are durable.
//! Invariant: the engine has every batch of a request before the next request of the connection is looked at.

use super::leaders::{self, Leaders};
use super::produce_txn;
use crate::conn::{CloseReason, Conn};
use crate::cores::Faces;
use crate::errors;
use crate::out::Out;
use crate::shard::ShardNet;
use crate::wire::produce::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, ProduceRequest, ProduceResponse,
    TopicProduceData, TopicProduceResponse,
};
use crate::wire::{ApiKey, ErrorCode, Str};
use bytes::Bytes;
use millrace_engine::api::meta::Topic;
use millrace_engine::api::{Acks, AppendItem, AppendResult, Image, PartitionError};
use millrace_engine::types::batch::LOG_OVERHEAD;
use millrace_engine::types::limits::BATCH_HEADER_BYTES;
use millrace_engine::types::{PartitionId, TopicId};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// First version that may carry zstd.
const ZSTD_VERSION_MIN: i16 = 7;
/// First version in which topics go by id.
const ID_VERSION_MIN: i16 = 13;
/// First version that tells the new leader with NOT_LEADER_OR_FOLLOWER (KIP-951).
const LEADER_VERSION_MIN: i16 = 10;
/// First version with error messages.
const MESSAGE_VERSION_MIN: i16 = 8;
/// The client id of those who may write to the broker's own topics, as in Kafka.
const INTERNAL_WRITER: &str = "__admin_client";

/// The answer as far as it is known without the engine; the rest is filled in from its results.
pub(crate) struct Reply {
    response: ProduceResponse,
    /// Place in the response (topic, partition) of each item handed to the engine.
    items: Vec<(u32, u32)>,
    acknowledged: bool,
}

type Results = Pin<Box<dyn Future<Output = Vec<AppendResult>>>>;

/// Places in a request (topic, partition) of batches that cannot go where they are sent, and why.
pub(crate) type Refused = BTreeMap<(usize, usize), (ErrorCode, &'static str)>;

/// What has to be found out before batches are handed over. That may take long, and so only this connection waits for it:
/// the order in which its batches are handed over stays as it is.
pub(crate) async fn look_ahead(
    shard: &ShardNet,
    request: &ProduceRequest,
    version: i16,
    client_id: Option<&str>,
) -> Refused {
    let mut refused = keyless(shard, request).await;
    produce_txn::join(shard, request, version, client_id, &mut refused).await;
    refused
}

/// Looks for keys in compressed batches for compacted topics.
async fn keyless(shard: &ShardNet, request: &ProduceRequest) -> Refused {
    let mut keyless = Refused::new();
    for (topic_at, topic) in request.topic_data.iter().enumerate() {
        for (partition_at, data) in topic.partition_data.iter().enumerate() {
            let Some(batch) = data.records.as_ref().filter(|batch| is_compressed(batch)) else {
                continue;
            };
            let broker = &shard.broker;
            let image = broker.image();
            let known = find(&image, topic);
            if !known.is_some_and(|topic| topic.config.cleanup_policy.compact) {
                break;
            }
            if !broker.all_keyed(batch).await {
                let why = (ErrorCode::InvalidRecord, KEYLESS);
                keyless.insert((topic_at, partition_at), why);
            }
        }
    }
    keyless
}

/// The topic that a request means; of name and id it has only one.
pub(super) fn find<'a>(image: &'a Image, asked: &TopicProduceData) -> Option<&'a Arc<Topic>> {
    if asked.topic_id.is_nil() {
        image.topic(&asked.name)
    } else {
        image.topic_by_id(TopicId(asked.topic_id.into_bytes()))
    }
}

fn is_compressed(batch: &Bytes) -> bool {
    batch
        .get(ATTRIBUTES_AT + 1)
        .is_some_and(|bits| bits & 7 != 0)
}

/// Hands the request's batches over, but for those that are refused, and gives what will become of them.
pub(crate) fn start(
    conn: &Conn,
    request: ProduceRequest,
    version: i16,
    client_id: Option<&str>,
    refused: &Refused,
) -> (Results, Reply) {
    let broker = &conn.shard.broker;
    let image = broker.image();
    let acks = acks(request.acks);
    let partitions = request
        .topic_data
        .iter()
        .map(|topic| topic.partition_data.len())
        .sum();
    let mut items = Vec::with_capacity(partitions);
    let mut places = Vec::with_capacity(partitions);
    let mut responses = Vec::with_capacity(request.topic_data.len());
    for (topic_at, topic) in request.topic_data.into_iter().enumerate() {
        let known = find(&image, &topic);
        let mut answers = Vec::with_capacity(topic.partition_data.len());
        for (partition_at, data) in topic.partition_data.into_iter().enumerate() {
            let mut answer = PartitionProduceResponse {
                index: data.index,
                base_offset: -1,
                ..Default::default()
            };
            let checked = match refused.get(&(topic_at, partition_at)) {
                _ if acks.is_none() => {
                    Err((ErrorCode::InvalidRequiredAcks, "acks must be -1, 0 or 1"))
                }
                Some(refused) => Err(*refused),
                None if known.is_some_and(|topic| is_closed(topic, client_id)) => {
                    Err((ErrorCode::InvalidTopicException, INTERNAL))
                }
                None => known
                    .filter(|topic| {
                        usize::try_from(data.index)
                            .is_ok_and(|index| index < topic.partitions.len())
                    })
                    .ok_or_else(|| unknown(known.is_some(), version))
                    .and_then(|topic| Ok((topic.id, one_batch(data.records, version)?))),
            };
            match checked {
                Ok((topic, batch)) => {
                    items.push(AppendItem {
                        partition: PartitionId::new(topic, data.index),
                        batch,
                    });
                    places.push((topic_at as u32, partition_at as u32));
                }
                Err((code, message)) => {
                    answer.error_code = code.code();
                    answer.error_message =
                        (version >= MESSAGE_VERSION_MIN).then(|| Str::from_static(message));
                }
            }
            answers.push(answer);
        }
        let name = if version >= ID_VERSION_MIN {
            Str::default()
        } else {
            // A name of its own: the request's buffer need not live until the answer is out.
            Str::from(known.map_or_else(|| topic.name.to_string(), |topic| topic.name.clone()))
        };
        responses.push(TopicProduceResponse {
            name,
            // Also where the version has no place for it: the leaders of its partitions are found by it.
            topic_id: known.map_or(topic.topic_id, |topic| Uuid::from_bytes(topic.id.0)),
            partition_responses: answers,
        });
    }
    let owners = items.iter().map(|item| broker.owner(item.partition));
    conn.note_owners(ApiKey::Produce, owners);
    let reply = Reply {
        response: ProduceResponse {
            responses,
            ..Default::default()
        },
        items: places,
        acknowledged: request.acks != 0,
    };
    let results: Results = if items.is_empty() {
        Box::pin(std::future::ready(Vec::new()))
    } else {
        let limit = time_limit(request.timeout_ms);
        Box::pin(broker.append_within(items, acks.unwrap_or(Acks::None), limit))
    };
    (results, reply)
}

/// Whether a client may not write to the topic, as the broker does.
pub(super) fn is_closed(topic: &Topic, client_id: Option<&str>) -> bool {
    topic.internal && client_id != Some(INTERNAL_WRITER)
}

const INTERNAL: &str = "cannot append to an internal topic";
const KEYLESS: &str = "records of a compacted topic need keys, and to be readable";
const UNKNOWN: &str = "this server does not host this topic-partition";
const UNKNOWN_ID: &str = "this server does not host this topic ID";

/// What is wrong where there is no such partition.
fn unknown(topic_exists: bool, version: i16) -> (ErrorCode, &'static str) {
    if topic_exists || version < ID_VERSION_MIN {
        (ErrorCode::UnknownTopicOrPartition, UNKNOWN)
    } else {
        (ErrorCode::UnknownTopicId, UNKNOWN_ID)
    }
}

fn acks(acks: i16) -> Option<Acks> {
    match acks {
        -1 => Some(Acks::All),
        0 => Some(Acks::None),
        1 => Some(Acks::Leader),
        _ => None,
    }
}

/// How long a producer waits for its records to be durable. Kafka needs no time to acknowledge what only one replica
/// has to store, so that a client may send 0 there and succeed: here that is no limit.
fn time_limit(timeout_ms: i32) -> Option<Duration> {
    let ms = u64::try_from(timeout_ms).ok().filter(|ms| *ms > 0);
    ms.map(Duration::from_millis)
}

/// The one batch of a partition, by the rules that depend on the request's version; the engine checks the rest.
fn one_batch(records: Option<Bytes>, version: i16) -> Result<Bytes, (ErrorCode, &'static str)> {
    let Some(batch) = records.filter(|records| !records.is_empty()) else {
        return Err((
            ErrorCode::InvalidRecord,
            "a produce request must have a record batch for every partition",
        ));
    };
    if batch.len() < BATCH_HEADER_BYTES {
        return Err((ErrorCode::CorruptMessage, "the record batch is cut short"));
    }
    if batch[MAGIC_AT] != 2 {
        return Err((
            ErrorCode::InvalidRecord,
            "a produce request must have records of format 2",
        ));
    }
    let length = i32::from_be_bytes(
        batch[LENGTH_AT..LENGTH_AT + 4]
            .try_into()
            .expect("four bytes"),
    );
    let size = usize::try_from(length).unwrap_or(0) + LOG_OVERHEAD;
    if size > batch.len() {
        return Err((ErrorCode::CorruptMessage, "the record batch is cut short"));
    }
    if size < batch.len() {
        return Err((
            ErrorCode::InvalidRecord,
            "a produce request must have exactly one record batch per partition",
        ));
    }
    if batch[ATTRIBUTES_AT + 1] & 7 == 4 && version < ZSTD_VERSION_MIN {
        return Err((
            ErrorCode::UnsupportedCompressionType,
            "zstd needs version 7 of the produce request",
        ));
    }
    Ok(batch)
}

const LENGTH_AT: usize = 8;
const MAGIC_AT: usize = 16;
pub(super) const ATTRIBUTES_AT: usize = 21;

impl Reply {
    /// Writes the answer, if the client wants one. Gives whether anything failed.
    pub(crate) fn encode(
        mut self,
        results: Vec<AppendResult>,
        shard: &ShardNet,
        correlation_id: i32,
        version: i16,
        out: &mut Out,
    ) -> Result<bool, CloseReason> {
        assert_eq!(results.len(), self.items.len(), "one result per item");
        for ((topic, partition), result) in self.items.iter().zip(results) {
            let answer = &mut self.response.responses[*topic as usize].partition_responses
                [*partition as usize];
            match result {
                Ok(appended) => {
                    answer.base_offset = appended.base_offset;
                    answer.log_append_time_ms = appended.log_append_time_ms;
                    answer.log_start_offset = appended.log_start;
                }
                Err(error) => {
                    answer.error_code = errors::partition(&error).code();
                    if version >= MESSAGE_VERSION_MIN {
                        answer.error_message = Some(Str::from(error.to_string()));
                    }
                    log_broker_fault(&error);
                }
            }
        }
        let answers = || {
            self.response
                .responses
                .iter()
                .flat_map(|topic| &topic.partition_responses)
        };
        let first_error = answers()
            .map(|answer| answer.error_code)
            .find(|code| *code != 0);
        if !self.acknowledged {
            // There is no answer in which to say so: the client notices that the connection is gone and asks anew.
            return match first_error {
                None => Ok(false),
                Some(code) => Err(CloseReason::UnacknowledgedFailed(
                    ErrorCode::from_code(code).map_or("unknown error", ErrorCode::name),
                )),
            };
        }
        if version >= LEADER_VERSION_MIN
            && answers()
                .any(|a| ErrorCode::from_code(a.error_code).is_some_and(leaders::is_about_leaders))
        {
            self.tell_leaders(shard.faces(&shard.broker.image()));
        }
        out.respond::<ProduceRequest>(correlation_id, version, &self.response)
            .map_err(CloseReason::Response)?;
        Ok(first_error.is_some())
    }

    /// Says who leads the partitions that this node does not (KIP-951).
    fn tell_leaders(&mut self, faces: Faces<'_>) {
        let image = faces.image;
        let mut leaders = Leaders::new(faces);
        for topic in &mut self.response.responses {
            let Some(known) = image.topic_by_id(TopicId(topic.topic_id.into_bytes())) else {
                continue;
            };
            for answer in &mut topic.partition_responses {
                let error = ErrorCode::from_code(answer.error_code);
                let leader = error.and_then(|error| leaders.beside(error, known, answer.index));
                if let Some(leader) = leader {
                    answer.current_leader = LeaderIdAndEpoch {
                        leader_id: leader.id,
                        leader_epoch: leader.epoch,
                    };
                }
            }
        }
        let nodes = leaders.endpoints().into_iter().map(|node| NodeEndpoint {
            node_id: node.id,
            host: node.host,
            port: node.port,
            rack: node.rack,
        });
        self.response.node_endpoints = nodes.collect();
    }
}

fn log_broker_fault(error: &PartitionError) {
    if let PartitionError::Storage(cause) = error {
        tracing::error!(%cause, "a produce failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(magic: u8, codec: u8, extra: usize) -> Bytes {
        let mut b = vec![0u8; BATCH_HEADER_BYTES + 10];
        let length = (b.len() - LOG_OVERHEAD) as i32;
        b[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_be_bytes());
        b[MAGIC_AT] = magic;
        b[ATTRIBUTES_AT + 1] = codec;
        b.resize(b.len() + extra, 0);
        b.into()
    }

    #[test]
    fn exactly_one_batch_of_format_2() {
        let code = |records, version| {
            one_batch(records, version)
                .map_err(|(code, _)| code.code())
                .err()
        };
        assert_eq!(code(Some(batch(2, 0, 0)), 3), None);
        assert_eq!(code(None, 3), Some(87));
        assert_eq!(code(Some(Bytes::new()), 3), Some(87));
        assert_eq!(code(Some(batch(1, 0, 0)), 3), Some(87));
        assert_eq!(code(Some(batch(0, 0, 0)), 3), Some(87));
        assert_eq!(code(Some(batch(2, 0, 80)), 3), Some(87), "a second batch");
        for cut in [1, 20, BATCH_HEADER_BYTES, BATCH_HEADER_BYTES + 9] {
            assert_eq!(
                code(Some(batch(2, 0, 0).slice(..cut)), 3),
                Some(2),
                "{cut} bytes"
            );
        }
    }

    #[test]
    fn zstd_needs_version_7() {
        assert_eq!(
            one_batch(Some(batch(2, 4, 0)), 6).err().map(|e| e.0),
            Some(ErrorCode::UnsupportedCompressionType)
        );
        assert!(one_batch(Some(batch(2, 4, 0)), 7).is_ok());
        assert!(one_batch(Some(batch(2, 3, 0)), 3).is_ok());
    }

    #[test]
    fn only_three_kinds_of_acks() {
        assert_eq!(
            [acks(-1), acks(0), acks(1)],
            [Some(Acks::All), Some(Acks::None), Some(Acks::Leader)]
        );
        assert_eq!([acks(-2), acks(2), acks(i16::MAX)], [None; 3]);
    }

    #[test]
    fn the_brokers_own_topics_are_closed_to_clients() {
        let image = crate::handlers::tests::image(&[("t", 1), ("__consumer_offsets", 1)]);
        let closed = |topic, client| is_closed(image.topic(topic).unwrap(), client);
        for client in [None, Some("any"), Some("__ADMIN_CLIENT")] {
            assert!(closed("__consumer_offsets", client), "{client:?}");
            assert!(!closed("t", client), "{client:?}");
        }
        assert!(!closed("__consumer_offsets", Some("__admin_client")));
    }

    #[test]
    fn a_client_that_asked_the_wrong_node_is_told_the_leader() {
        let image = leaders::tests::two_nodes();
        let answer = |index, error: ErrorCode| PartitionProduceResponse {
            index,
            error_code: error.code(),
            ..Default::default()
        };
        let mut reply = Reply {
            response: ProduceResponse {
                responses: vec![TopicProduceResponse {
                    topic_id: Uuid::from_bytes([5; 16]),
                    partition_responses: vec![
                        answer(0, ErrorCode::NotLeaderOrFollower),
                        answer(1, ErrorCode::NotLeaderOrFollower),
                        answer(2, ErrorCode::None),
                        answer(0, ErrorCode::NotLeaderOrFollower),
                    ],
                    ..Default::default()
                }],
                ..Default::default()
            },
            items: Vec::new(),
            acknowledged: true,
        };
        let config = crate::config::NetConfig::default();
        reply.tell_leaders(Faces::new(&config, 1, &image));
        let told = reply.response.responses[0].partition_responses.iter();
        let told: Vec<i32> = told.map(|p| p.current_leader.leader_id).collect();
        assert_eq!(told, [2, -1, -1, 2], "not itself, and only of errors");
        let nodes = &reply.response.node_endpoints;
        let node = (nodes[0].node_id, &*nodes[0].host, nodes[0].port);
        assert_eq!((nodes.len(), node), (1, (2, "host2", 9092)));
        assert_eq!(nodes[0].rack.as_deref(), Some("r"));
    }
}
