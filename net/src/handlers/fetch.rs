//! Owns Fetch: finds out what to read (from the request or its session), has the engine read, writes the answer.
//! Does not know where records come from, and never copies more than a short run of them.
//! Invariant: the answer names partitions in the order they were asked for, and tells a session only what is new.

use super::fetch_session::Plan;
use crate::conn::{CloseReason, Conn};
use crate::errors;
use crate::out::{Body, Out};
use crate::shard::ShardNet;
use crate::wire::fetch::{FetchPartition, FetchRequest};
use crate::wire::{ApiKey, ErrorCode, Message, WireError};
use futures_lite::future::or;
use millrace_engine::api::meta::Topic;
use millrace_engine::api::{FetchItem, FetchOptions, FetchResult, Fetched, Image};
use millrace_engine::rt::{self, Class};
use millrace_engine::types::PartitionId;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// First version with sessions.
const SESSION_VERSION_MIN: i16 = 7;

/// Longest park of a fetch, whatever the client asks for.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// A topic as the answer names it.
enum Named {
    Known(Arc<Topic>),
    Unknown(Arc<str>),
}

impl Named {
    fn name(&self) -> &str {
        match self {
            Named::Known(topic) => &topic.name,
            Named::Unknown(name) => name,
        }
    }
}

/// One partition of the answer, in order.
struct Row {
    /// Index into `topics`.
    topic: u32,
    partition: i32,
    /// Where the session remembers it.
    slot: u32,
    /// Known before the engine is asked; a row without error has the next of the engine's results.
    error: Option<ErrorCode>,
}

/// The answer as far as it is known without the engine.
pub(crate) struct Reply {
    plan: Plan,
    topics: Vec<Named>,
    rows: Vec<Row>,
}

/// What was read, or None where the connection ended meanwhile.
pub(crate) type Found = Option<Vec<FetchResult>>;

type Results = Pin<Box<dyn Future<Output = Found>>>;

/// Record bytes that a fetch may get however much slow readers hold, so that they cost the others speed but never an
/// answer.
const PRESSED_BYTES: usize = 64 << 10;

/// What an answer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// Record bytes, the first batch excepted.
    pub(crate) bytes: usize,
    /// Others hold so much that this is more than is left.
    pub(crate) pressed: bool,
}

/// Most record bytes that the answer to a request may hold.
pub(crate) fn response_bytes_max(shard: &ShardNet, request: &FetchRequest) -> Allowed {
    let left = shard.broker.response_bytes_left();
    if left < PRESSED_BYTES {
        shard.relieve_responses(rt::now());
    }
    allowed(request.max_bytes, shard.config.fetch_bytes_max, left)
}

fn allowed(asked: i32, configured: usize, left: usize) -> Allowed {
    let most = configured.min(left.max(PRESSED_BYTES));
    Allowed {
        bytes: usize::try_from(asked).unwrap_or(0).min(most),
        pressed: left < PRESSED_BYTES,
    }
}

/// Has the engine read, at the most `max_bytes` of records, and gives what it will find; `None` when the connection
/// ended meanwhile.
pub(crate) fn start(
    conn: &Conn,
    request: FetchRequest,
    version: i16,
    max_bytes: usize,
) -> (Results, Reply) {
    let shard = &conn.shard;
    let plan = if version < SESSION_VERSION_MIN {
        Plan::Sessionless
    } else {
        shard.sessions.borrow_mut().begin(&request, rt::now())
    };
    if let Plan::Full(id) | Plan::Incremental(id) = plan {
        if let Some(other) = conn.session.replace(Some(id)).filter(|other| *other != id) {
            shard.sessions.borrow_mut().remove(other);
        }
    }
    let mut gather = Gather::new(shard.broker.image());
    match plan {
        Plan::Refused(_) => {}
        Plan::Sessionless => {
            for topic in &request.topics {
                for partition in &topic.partitions {
                    gather.add(&topic.topic, partition, 0);
                }
            }
        }
        Plan::Full(id) | Plan::Incremental(id) => {
            let sessions = shard.sessions.borrow();
            for (slot, remembered) in sessions.partitions(id) {
                gather.add(&remembered.topic, &remembered.asked, slot);
            }
        }
    }
    let Gather {
        items,
        topics,
        rows,
        ..
    } = gather;
    let owners = items.iter().map(|item| shard.broker.owner(item.partition));
    conn.note_owners(ApiKey::Fetch, owners);
    let reply = Reply { plan, topics, rows };
    if items.is_empty() {
        // Nothing to read is nothing to wait for.
        return (Box::pin(std::future::ready(Some(Vec::new()))), reply);
    }
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX);
    let options = FetchOptions {
        max_wait: wait,
        min_bytes: usize::try_from(request.min_bytes).unwrap_or(0),
        max_bytes,
        read_committed: request.isolation_level == 1,
    };
    let read = shard.broker.fetch(items, options);
    let ended = conn.ended();
    let task = rt::spawn_joined(
        Class::Network,
        or(async { Some(read.await) }, async {
            ended.await;
            None
        }),
    );
    (Box::pin(async { task.outcome().await.flatten() }), reply)
}

/// Collects the rows of an answer and what the engine is asked.
struct Gather {
    image: Arc<Image>,
    topics: Vec<Named>,
    rows: Vec<Row>,
    items: Vec<FetchItem>,
}

impl Gather {
    fn new(image: Arc<Image>) -> Gather {
        Gather {
            image,
            topics: Vec::new(),
            rows: Vec::new(),
            items: Vec::new(),
        }
    }

    fn add(&mut self, name: &str, asked: &FetchPartition, slot: u32) {
        // Partitions of one topic mostly follow each other: one look-up for all of them.
        if self.topics.last().is_none_or(|last| last.name() != name) {
            self.topics.push(match self.image.topic(name) {
                Some(topic) => Named::Known(topic.clone()),
                None => Named::Unknown(name.into()),
            });
        }
        let found = match self.topics.last().expect("just pushed") {
            Named::Unknown(_) => None,
            Named::Known(topic) => {
                let exists = usize::try_from(asked.partition)
                    .is_ok_and(|index| index < topic.partitions.len());
                exists.then_some(topic.id)
            }
        };
        let error = match found {
            None => Some(ErrorCode::UnknownTopicOrPartition),
            Some(topic) => {
                self.items.push(FetchItem {
                    partition: PartitionId::new(topic, asked.partition),
                    offset: asked.fetch_offset,
                    max_bytes: usize::try_from(asked.partition_max_bytes).unwrap_or(0),
                    current_leader_epoch: asked.current_leader_epoch,
                    last_fetched_epoch: asked.last_fetched_epoch,
                });
                None
            }
        };
        let topic = self.topics.len() as u32 - 1;
        self.rows.push(Row {
            topic,
            partition: asked.partition,
            slot,
            error,
        });
    }
}

/// One partition of the answer with everything known.
struct Answer {
    topic: u32,
    partition: i32,
    slot: u32,
    error: ErrorCode,
    fetched: Fetched,
}

impl Answer {
    fn has_data(&self) -> bool {
        !self.fetched.records.is_empty()
    }
}

impl Reply {
    /// Writes the answer. Gives whether anything failed.
    pub(crate) fn encode(
        self,
        found: Found,
        shard: &ShardNet,
        correlation_id: i32,
        version: i16,
        out: &mut Out,
    ) -> Result<bool, CloseReason> {
        let Reply { plan, topics, rows } = self;
        let mut results = found.into_iter().flatten();
        let mut answers = Vec::with_capacity(rows.len());
        for Row {
            topic,
            partition,
            slot,
            error,
        } in rows
        {
            let (error, fetched) = match error {
                Some(error) => (error, nothing()),
                None => match results.next() {
                    Some(Ok(fetched)) => (ErrorCode::None, fetched),
                    Some(Err(error)) => (errors::partition(&error), nothing()),
                    // The fetch was given up because the connection ended; nobody reads this.
                    None => (ErrorCode::UnknownServerError, nothing()),
                },
            };
            answers.push(Answer {
                topic,
                partition,
                slot,
                error,
                fetched,
            });
        }
        assert!(results.next().is_none(), "one result per row without error");
        let failed = answers.iter().any(|answer| answer.error.is_error());
        let (error, session) = match plan {
            Plan::Refused(error) => (error, 0),
            Plan::Sessionless => (ErrorCode::None, 0),
            Plan::Full(id) | Plan::Incremental(id) => {
                select_news(shard, id, matches!(plan, Plan::Full(_)), &mut answers);
                (ErrorCode::None, id)
            }
        };
        encode(
            out,
            correlation_id,
            version,
            error,
            session,
            &topics,
            answers,
        )
        .map_err(CloseReason::Response)?;
        Ok(failed || error.is_error())
    }
}

/// Drops what the client of a session knows already.
fn select_news(shard: &ShardNet, session: i32, all: bool, answers: &mut Vec<Answer>) {
    let mut sessions = shard.sessions.borrow_mut();
    let with_data: Vec<u32> = answers
        .iter()
        .filter(|a| a.has_data())
        .map(|a| a.slot)
        .collect();
    answers.retain(|answer| {
        let told = (!answer.error.is_error())
            .then_some((answer.fetched.high_watermark, answer.fetched.log_start));
        let news = sessions.tell(session, answer.slot, told);
        all || news || answer.has_data() || answer.fetched.diverging.is_some()
    });
    if !with_data.is_empty() {
        let mut sorted = with_data;
        sorted.sort_unstable();
        sessions.rotate(session, |slot| sorted.binary_search(&slot).is_ok());
    }
}

/// What an erroneous partition shows.
fn nothing() -> Fetched {
    Fetched {
        high_watermark: -1,
        last_stable: -1,
        log_start: -1,
        ..Fetched::default()
    }
}

/// Writes the response as `wire::fetch` declares it, but with records by reference: the engine's buffers belong to
/// this shard and cannot become `Bytes`. A test compares the two.
fn encode(
    out: &mut Out,
    correlation_id: i32,
    version: i16,
    error: ErrorCode,
    session: i32,
    topics: &[Named],
    answers: Vec<Answer>,
) -> Result<(), WireError> {
    let flexible = version >= FetchRequest::FLEXIBLE;
    out.frame(correlation_id, flexible, |body| {
        body.writer.i32(0); // throttle time
        if version >= SESSION_VERSION_MIN {
            body.writer.i16(error.code());
            body.writer.i32(session);
        }
        let groups = answers
            .chunk_by(|a, b| a.topic == b.topic)
            .map(<[Answer]>::len)
            .collect::<Vec<_>>();
        body.writer.length(flexible, Some(groups.len()))?;
        let mut answers = answers.into_iter();
        for count in groups {
            let mut group = answers.by_ref().take(count).peekable();
            let topic = group.peek().expect("groups are not empty").topic;
            body.writer
                .string(flexible, Some(topics[topic as usize].name()))?;
            body.writer.length(flexible, Some(count))?;
            for answer in group {
                encode_partition(body, version, flexible, answer)?;
            }
            if flexible {
                body.writer.uvarint(0);
            }
        }
        if flexible {
            body.writer.uvarint(0);
        }
        Ok(())
    })
}

fn encode_partition(
    body: &mut Body<'_>,
    version: i16,
    flexible: bool,
    answer: Answer,
) -> Result<(), WireError> {
    let Fetched {
        high_watermark,
        last_stable,
        log_start,
        diverging,
        aborted,
        records,
        // From here on the whole answer counts.
        held: _,
    } = answer.fetched;
    let writer = &mut body.writer;
    writer.i32(answer.partition);
    writer.i16(answer.error.code());
    writer.i64(high_watermark);
    writer.i64(last_stable);
    if version >= 5 {
        writer.i64(log_start);
    }
    writer.length(flexible, aborted.as_ref().map(Vec::len))?;
    for transaction in aborted.iter().flatten() {
        writer.i64(transaction.producer_id);
        writer.i64(transaction.first_offset);
        if flexible {
            writer.uvarint(0);
        }
    }
    if version >= 11 {
        writer.i32(-1); // no preferred read replica: this one is as good as any
    }
    body.records(flexible, records)?;
    if flexible {
        let writer = &mut body.writer;
        match diverging {
            None => writer.uvarint(0),
            Some(diverging) => {
                writer.uvarint(1); // one tagged field,
                writer.uvarint(0); // number 0,
                writer.uvarint(13); // of an epoch, an offset and no tagged fields
                writer.i32(diverging.epoch);
                writer.i64(diverging.end_offset);
                writer.uvarint(0);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fetch::{
        AbortedTransaction, EpochEndOffset, FetchResponse, FetchableTopicResponse, PartitionData,
    };
    use crate::wire::{frame, Records};
    use bytes::Bytes;
    use millrace_engine::api::{self, Diverging, RecordChunk};

    fn chunk(byte: u8, length: usize) -> RecordChunk {
        RecordChunk::Owned(Bytes::from(vec![byte; length]))
    }

    #[test]
    fn every_version_reads_back_through_the_wire_codec() {
        for version in 4..=12 {
            let topics = [
                Named::Unknown("first".into()),
                Named::Unknown("second".into()),
            ];
            let answer = |topic, partition, error, fetched| Answer {
                topic,
                partition,
                slot: 0,
                error,
                fetched,
            };
            let full = Fetched {
                high_watermark: 50,
                last_stable: 40,
                log_start: 3,
                diverging: (version >= 12).then_some(Diverging {
                    epoch: 4,
                    end_offset: 77,
                }),
                aborted: Some(vec![api::AbortedTransaction {
                    producer_id: 9,
                    first_offset: 30,
                }]),
                records: vec![chunk(1, 700), chunk(2, 10), chunk(3, 900)],
                held: None,
            };
            let answers = vec![
                answer(0, 0, ErrorCode::None, full),
                answer(0, 5, ErrorCode::OffsetOutOfRange, nothing()),
                answer(
                    1,
                    1,
                    ErrorCode::None,
                    Fetched {
                        high_watermark: 1,
                        ..Fetched::default()
                    },
                ),
            ];
            let mut out = Out::default();
            encode(
                &mut out,
                33,
                version,
                ErrorCode::None,
                if version >= 7 { 12 } else { 0 },
                &topics,
                answers,
            )
            .unwrap();
            let bytes = Bytes::from(out.pieces().concat());
            let response =
                frame::decode_response::<FetchRequest>(bytes.slice(4..), 33, version).unwrap();

            let log_start = |offset| if version >= 5 { offset } else { -1 };
            let data = [chunk(1, 700), chunk(2, 10), chunk(3, 900)]
                .map(|c| c.as_ref().to_vec())
                .concat();
            let expected = FetchResponse {
                session_id: if version >= 7 { 12 } else { 0 },
                responses: vec![
                    FetchableTopicResponse {
                        topic: "first".into(),
                        partitions: vec![
                            PartitionData {
                                partition_index: 0,
                                high_watermark: 50,
                                last_stable_offset: 40,
                                log_start_offset: log_start(3),
                                aborted_transactions: Some(vec![AbortedTransaction {
                                    producer_id: 9,
                                    first_offset: 30,
                                }]),
                                diverging_epoch: if version >= 12 {
                                    EpochEndOffset {
                                        epoch: 4,
                                        end_offset: 77,
                                    }
                                } else {
                                    EpochEndOffset::default()
                                },
                                records: Records::One(data.into()),
                                ..Default::default()
                            },
                            PartitionData {
                                partition_index: 5,
                                error_code: 1,
                                high_watermark: -1,
                                last_stable_offset: -1,
                                log_start_offset: -1,
                                ..Default::default()
                            },
                        ],
                    },
                    FetchableTopicResponse {
                        topic: "second".into(),
                        partitions: vec![PartitionData {
                            partition_index: 1,
                            high_watermark: 1,
                            last_stable_offset: 0,
                            log_start_offset: log_start(0),
                            ..Default::default()
                        }],
                    },
                ],
                ..Default::default()
            };
            assert_eq!(response, expected, "version {version}");
            assert_eq!(
                frame::encode_response::<FetchRequest>(33, &expected, version).unwrap(),
                bytes,
                "version {version}"
            );
        }
    }

    #[test]
    fn what_a_client_may_ask_for_is_capped() {
        let at_ease = |asked| {
            let allowed = allowed(asked, 1000, 1 << 30);
            assert!(!allowed.pressed);
            allowed.bytes
        };
        assert_eq!(
            [at_ease(-5), at_ease(0), at_ease(999), at_ease(i32::MAX)],
            [0, 0, 999, 1000]
        );
        let little = |asked, left| {
            let allowed = allowed(asked, 1 << 30, left);
            (allowed.bytes, allowed.pressed)
        };
        assert_eq!(little(i32::MAX, 1 << 20), (1 << 20, false));
        assert_eq!(little(i32::MAX, 0), (PRESSED_BYTES, true));
        assert_eq!(little(10, 0), (10, true));
    }
}
