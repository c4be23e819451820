//! Owns Fetch: finds out what to read (from the request or its session), has the engine read, writes the answer.
//! Does not know where records come from, and never copies more than a short run of them.
//! Invariant: the answer names partitions in the order they were asked for, and tells a session only what is new.

use super::called::{Called, Kept, ID_VERSION_MIN};
use super::fetch_session::Plan;
use super::leaders::{self, Leader, Leaders};
use crate::conn::{CloseReason, Conn};
use crate::cores::Endpoint;
use crate::errors;
use crate::out::{Body, Out};
use crate::shard::ShardNet;
use crate::wire::fetch::{FetchPartition, FetchRequest, NodeEndpoint};
use crate::wire::{ApiKey, ErrorCode, Message, WireError, Writer};
use futures_lite::future::or;
use millrace_engine::api::meta::Topic;
use millrace_engine::api::{FetchItem, FetchOptions, FetchResult, Fetched, Image};
use millrace_engine::rt::{self, Class};
use millrace_engine::types::PartitionId;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// First version with sessions.
const SESSION_VERSION_MIN: i16 = 7;

/// First version that tells the leader to those who believe in another (KIP-951).
const LEADER_VERSION_MIN: i16 = 16;

/// Longest park of a fetch, whatever the client asks for.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// A topic as the answer names it.
enum Named {
    Known(Arc<Topic>),
    Unknown(Kept),
}

impl Named {
    fn is(&self, called: Called<'_>) -> bool {
        match (self, called) {
            (Named::Known(topic), Called::Name(name)) => topic.name == name,
            (Named::Known(topic), Called::Id(id)) => topic.id == id,
            (Named::Unknown(kept), called) => kept.called() == called,
        }
    }

    /// As the answer calls it.
    fn called(&self, version: i16) -> Called<'_> {
        match self {
            Named::Known(topic) if version < ID_VERSION_MIN => Called::Name(&topic.name),
            Named::Known(topic) => Called::Id(topic.id),
            Named::Unknown(kept) => kept.called(),
        }
    }

    /// What is wrong where there is no such topic.
    fn unknown(called: Called<'_>) -> ErrorCode {
        match called {
            Called::Name(_) => ErrorCode::UnknownTopicOrPartition,
            Called::Id(_) => ErrorCode::UnknownTopicId,
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
        shard
            .sessions
            .borrow_mut()
            .begin(&request, version, rt::now())
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
                let called = Called::of(&topic.topic, &topic.topic_id, version);
                for partition in &topic.partitions {
                    gather.add(called, partition, 0);
                }
            }
        }
        Plan::Full(id) | Plan::Incremental(id) => {
            let sessions = shard.sessions.borrow();
            for (slot, remembered) in sessions.partitions(id) {
                gather.add(remembered.topic(), &remembered.asked, slot);
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
        // More than what may be answered never comes.
        min_bytes: usize::try_from(request.min_bytes)
            .unwrap_or(0)
            .min(max_bytes),
        max_bytes,
        read_committed: request.isolation_level == 1,
    };
    let read = read(shard.clone(), items, options);
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

/// What there is; or, where it waits for more and others wait for the memory of its request, what there is by then.
async fn read(
    shard: Rc<ShardNet>,
    items: Vec<FetchItem>,
    options: FetchOptions,
) -> Vec<FetchResult> {
    let waiting = shard.broker.fetch(items.clone(), options);
    let hurried = shard.hurry.notified();
    let found = or(async { Some(waiting.await) }, async {
        hurried.await;
        None
    });
    match found.await {
        Some(found) => found,
        None => {
            let at_once = FetchOptions {
                max_wait: Duration::ZERO,
                ..options
            };
            shard.broker.fetch(items, at_once).await
        }
    }
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

    fn add(&mut self, called: Called<'_>, asked: &FetchPartition, slot: u32) {
        // Partitions of one topic mostly follow each other: one look-up for all of them.
        if self.topics.last().is_none_or(|last| !last.is(called)) {
            let known = match called {
                Called::Name(name) => self.image.topic(name),
                Called::Id(id) => self.image.topic_by_id(id),
            };
            self.topics.push(match known {
                Some(topic) => Named::Known(topic.clone()),
                None => Named::Unknown(called.into()),
            });
        }
        let found = match self.topics.last().expect("just pushed") {
            Named::Unknown(_) => Err(Named::unknown(called)),
            Named::Known(topic) => {
                let exists = usize::try_from(asked.partition)
                    .is_ok_and(|index| index < topic.partitions.len());
                exists
                    .then_some(topic.id)
                    .ok_or(ErrorCode::UnknownTopicOrPartition)
            }
        };
        let error = match found {
            Err(error) => Some(error),
            Ok(topic) => {
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
    leader: Option<Leader>,
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
                leader: None,
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
        let nodes = match version >= LEADER_VERSION_MIN {
            true => name_leaders(shard, &topics, &mut answers),
            false => Vec::new(),
        };
        let head = Head {
            error,
            session,
            topics: &topics,
            nodes: &nodes,
        };
        encode(out, correlation_id, version, head, answers).map_err(CloseReason::Response)?;
        Ok(failed || error.is_error())
    }
}

/// Says who leads the partitions whose leader the client does not know; gives where those are.
fn name_leaders(shard: &ShardNet, topics: &[Named], answers: &mut [Answer]) -> Vec<Endpoint> {
    if !answers.iter().any(|a| leaders::is_about_leaders(a.error)) {
        return Vec::new();
    }
    let image = shard.broker.image();
    let mut leaders = Leaders::new(shard.faces(&image));
    for answer in answers {
        let Named::Known(topic) = &topics[answer.topic as usize] else {
            continue;
        };
        // As it is now: that it changed is why the client was wrong.
        if let Some(topic) = image.topic_by_id(topic.id) {
            answer.leader = leaders.beside(answer.error, topic, answer.partition);
        }
    }
    leaders.endpoints()
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

/// An answer but for its partitions.
struct Head<'a> {
    error: ErrorCode,
    session: i32,
    topics: &'a [Named],
    nodes: &'a [Endpoint],
}

/// Writes the response as `wire::fetch` declares it, but with records by reference: the engine's buffers belong to
/// this shard and cannot become `Bytes`. A test compares the two.
fn encode(
    out: &mut Out,
    correlation_id: i32,
    version: i16,
    head: Head<'_>,
    answers: Vec<Answer>,
) -> Result<(), WireError> {
    let flexible = version >= FetchRequest::FLEXIBLE;
    out.frame(correlation_id, flexible, |body| {
        body.writer.i32(0); // throttle time
        if version >= SESSION_VERSION_MIN {
            body.writer.i16(head.error.code());
            body.writer.i32(head.session);
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
            match head.topics[topic as usize].called(version) {
                Called::Name(name) => body.writer.string(flexible, Some(name))?,
                Called::Id(id) => body.writer.uuid(&Uuid::from_bytes(id.0)),
            }
            body.writer.length(flexible, Some(count))?;
            for answer in group {
                encode_partition(body, version, flexible, answer)?;
            }
            if flexible {
                body.writer.uvarint(0);
            }
        }
        match endpoints(head.nodes, version)? {
            Some(nodes) => {
                body.writer.uvarint(1); // one tagged field,
                body.writer.uvarint(0); // number 0
                body.writer.uvarint(nodes.len() as u32);
                body.writer.raw(&nodes.into_bytes());
            }
            None if flexible => body.writer.uvarint(0),
            None => {}
        }
        Ok(())
    })
}

/// Where nodes are, as an array of the response; nothing without any.
fn endpoints(nodes: &[Endpoint], version: i16) -> Result<Option<Writer>, WireError> {
    if nodes.is_empty() {
        return Ok(None);
    }
    let mut writer = Writer::new();
    writer.length(true, Some(nodes.len()))?;
    for node in nodes {
        let endpoint = NodeEndpoint {
            node_id: node.id,
            host: node.host.clone(),
            port: node.port,
            rack: node.rack.clone(),
        };
        endpoint.encode(&mut writer, version)?;
    }
    Ok(Some(writer))
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
        writer.uvarint(u32::from(diverging.is_some()) + u32::from(answer.leader.is_some()));
        if let Some(diverging) = diverging {
            writer.uvarint(0); // tagged field 0,
            writer.uvarint(13); // of an epoch, an offset and no tagged fields
            writer.i32(diverging.epoch);
            writer.i64(diverging.end_offset);
            writer.uvarint(0);
        }
        if let Some(leader) = answer.leader {
            writer.uvarint(1); // tagged field 1,
            writer.uvarint(9); // of a node, an epoch and no tagged fields
            writer.i32(leader.id);
            writer.i32(leader.epoch);
            writer.uvarint(0);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fetch::{
        AbortedTransaction, EpochEndOffset, FetchResponse, FetchableTopicResponse,
        LeaderIdAndEpoch, PartitionData,
    };
    use crate::wire::{frame, Records, Str};
    use bytes::Bytes;
    use millrace_engine::api::{self, Diverging, RecordChunk};
    use millrace_engine::types::TopicId;

    fn chunk(byte: u8, length: usize) -> RecordChunk {
        RecordChunk::Owned(Bytes::from(vec![byte; length]))
    }

    #[test]
    fn every_version_reads_back_through_the_wire_codec() {
        for version in 4..=18 {
            let by_id = version >= 13;
            let named = |name: &str, id: u8| {
                Named::Unknown(match by_id {
                    true => Called::Id(TopicId([id; 16])).into(),
                    false => Called::Name(name).into(),
                })
            };
            let topics = [named("first", 1), named("second", 2)];
            let topic = |name: &'static str, id: u8| match by_id {
                true => (Str::default(), Uuid::from_bytes([id; 16])),
                false => (name.into(), Uuid::nil()),
            };
            let tells_leaders = version >= 16;
            let leader = tells_leaders.then_some(Leader { id: 7, epoch: 8 });
            let nodes: Vec<Endpoint> = (0..2 * i32::from(tells_leaders))
                .map(|n| Endpoint {
                    id: 7 + n,
                    host: "h".into(),
                    port: 9,
                    rack: (n == 1).then(|| "r".into()),
                })
                .collect();
            let answer = |topic, partition, error, fetched| Answer {
                topic,
                partition,
                slot: 0,
                error,
                leader: None,
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
            let mut answers = vec![
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
            answers[1].leader = leader;
            let mut out = Out::default();
            let head = Head {
                error: ErrorCode::None,
                session: if version >= 7 { 12 } else { 0 },
                topics: &topics,
                nodes: &nodes,
            };
            encode(&mut out, 33, version, head, answers).unwrap();
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
                        topic: topic("first", 1).0,
                        topic_id: topic("first", 1).1,
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
                                current_leader: leader.map_or_else(
                                    LeaderIdAndEpoch::default,
                                    |leader| LeaderIdAndEpoch {
                                        leader_id: leader.id,
                                        leader_epoch: leader.epoch,
                                    },
                                ),
                                ..Default::default()
                            },
                        ],
                    },
                    FetchableTopicResponse {
                        topic: topic("second", 2).0,
                        topic_id: topic("second", 2).1,
                        partitions: vec![PartitionData {
                            partition_index: 1,
                            high_watermark: 1,
                            last_stable_offset: 0,
                            log_start_offset: log_start(0),
                            ..Default::default()
                        }],
                    },
                ],
                node_endpoints: nodes
                    .iter()
                    .map(|node| NodeEndpoint {
                        node_id: node.id,
                        host: node.host.clone(),
                        port: node.port,
                        rack: node.rack.clone(),
                    })
                    .collect(),
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
