//! Owns producers: with sequences and retries over lost connections, or without either.
//! Does not know when connections are lost or the broker is gone.
//! Invariant: an idempotent producer repeats a batch unchanged until it has an answer, and sends nothing out of order.

use super::super::history::{Producing, Sending};
use super::super::invariants::{acknowledged, duplicates};
use super::super::model::{Acked, Content, Place, Sent};
use super::super::wire::{Conn, Lost};
use super::{code, Asked, Shared};
use bytes::Bytes;
use millrace_engine::rt;
use millrace_net::wire::api_versions::ApiVersionsRequest;
use millrace_net::wire::batch::BatchBuilder;
use millrace_net::wire::compress::Compression;
use millrace_net::wire::init_producer_id::InitProducerIdRequest;
use millrace_net::wire::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, TopicProduceData,
};
use millrace_net::wire::record::Record;
use millrace_net::wire::Str;
use std::collections::HashMap;
use std::rc::Rc;

const HEADER_BYTES: usize = 61;
/// How far producers' clocks are from the broker's, at most.
const SKEW_MS: u64 = 400;
const PRODUCE_VERSION: i16 = 9;
/// Refusals of a batch that is next in its sequence before it counts as forgotten: late copies of earlier requests
/// may be in between.
const REFUSALS_MAX: u32 = 20;

/// A producer's id and where it is in each partition.
struct Sequences {
    id: i64,
    next: HashMap<i32, i32>,
}

/// One batch on its way.
#[derive(Clone)]
struct Part {
    place: Place,
    tag: u64,
    batch: Bytes,
    done: bool,
    refusals: u32,
}

type Request = Vec<Part>;

/// Sends all of `work`, or less where its topic goes away.
pub async fn run(shared: Rc<Shared>, work: Producing) {
    let mut conn = None;
    let mut sequences = match work.sending {
        Sending::Idempotent | Sending::Hedged => {
            let id = producer_id(&shared, &mut conn).await;
            let next = HashMap::new();
            Some(Sequences { id, next })
        }
        Sending::Plain(_) => None,
    };
    let mut left = work.requests;
    while left > 0 && shared.violation().is_none() {
        let n = left.min(1 + shared.below(u64::from(work.window)) as u32);
        left -= n;
        let made: Vec<Request> = (0..n)
            .map(|_| request(&shared, &work, sequences.as_mut()))
            .collect();
        if made.iter().any(Vec::is_empty) {
            return; // no such topic
        }
        match work.sending {
            Sending::Plain(acks) => send_once(&shared, &mut conn, made, acks).await,
            Sending::Idempotent | Sending::Hedged => {
                let hedged = work.sending == Sending::Hedged && shared.below(2) == 0;
                if !send_until_answered(&shared, &mut conn, made, hedged, work.torn).await {
                    return;
                }
            }
        }
        if work.pause_us > 0 {
            shared.pause(work.pause_us).await;
        }
    }
}

async fn producer_id(shared: &Rc<Shared>, conn: &mut Option<Conn>) -> i64 {
    let mut tries = 0;
    loop {
        if let Ok(open) = connected(conn).await {
            match open.call(&InitProducerIdRequest::default(), 2).await {
                Ok(answer) if answer.error_code == 0 => return answer.producer_id,
                Ok(_) => {}
                Err(Lost) => *conn = None,
            }
        }
        shared.back_off(&mut tries).await;
    }
}

async fn connected(conn: &mut Option<Conn>) -> Result<&mut Conn, Lost> {
    if conn.is_none() {
        *conn = Some(Conn::open().await?);
    }
    conn.as_mut().ok_or(Lost)
}

/// One request with a batch for some of the topic's partitions; empty where it has none.
fn request(shared: &Shared, work: &Producing, mut sequences: Option<&mut Sequences>) -> Request {
    let mut parts: Request = Vec::new();
    let mut model = shared.model.borrow_mut();
    let partitions = model.topics.get(&work.topic).map_or(0, |t| t.partitions);
    for _ in 0..work.parts {
        let index = shared.below(partitions.max(1) as u64) as i32;
        let Some(place) = model.place(work.topic, index) else {
            return Vec::new();
        };
        if parts.iter().any(|p| p.place == place) {
            continue;
        }
        let records = 1 + shared.below(work.records_max) as i32;
        let producer = sequences.as_mut().map(|s| {
            let next = s.next.entry(index).or_insert(0);
            let sequence = *next;
            *next += records;
            (s.id, sequence)
        });
        let compression = match work.compressed {
            true => Compression::ALL[shared.below(5) as usize],
            false => Compression::None,
        };
        let made = Made {
            records,
            bytes: shared.below(work.bytes_max) as usize,
            first_ms: rt::wall_ms() + shared.below(2 * SKEW_MS) as i64 - SKEW_MS as i64,
            step_ms: [0, 1, 9, -4][shared.below(4) as usize],
            compression,
        };
        // Another tag where this content could be taken for that of another batch.
        let (tag, batch) = loop {
            let tag = model.new_tag();
            let batch = batch(tag, &made, producer);
            let sent = Sent {
                place,
                records,
                first_ms: made.first_ms,
                step_ms: made.step_ms,
                bytes: batch.len() as u64,
                base: None,
                appended_ms: None,
            };
            if model.enter(tag, Content::of(&batch[HEADER_BYTES..]), sent) {
                break (tag, batch);
            }
        };
        parts.push(Part {
            place,
            tag,
            batch,
            done: false,
            refusals: 0,
        });
    }
    parts
}

/// What a batch is to be like.
struct Made {
    records: i32,
    bytes: usize,
    first_ms: i64,
    step_ms: i64,
    compression: Compression,
}

/// A batch of records whose first has the tag for a key, and whose bytes follow from it.
fn batch(tag: u64, made: &Made, producer: Option<(i64, i32)>) -> Bytes {
    let mut builder = BatchBuilder::new(made.compression);
    if let Some((id, sequence)) = producer {
        builder.producer_id = id;
        builder.producer_epoch = 0;
        builder.base_sequence = sequence;
    }
    let fill = (tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    let value = Bytes::from(vec![fill | 1; made.bytes / made.records as usize]);
    for n in 0..made.records {
        let record = Record {
            timestamp_ms: made.first_ms + i64::from(n) * made.step_ms,
            key: (n == 0).then(|| Bytes::copy_from_slice(&tag.to_be_bytes())),
            value: Some(value.clone()),
            ..Record::default()
        };
        builder.push(&record).expect("few records");
    }
    builder.build().expect("every codec can compress")
}

fn encode(parts: &[Part], acks: i16) -> ProduceRequest {
    let data = |part: &Part| PartitionProduceData {
        index: part.place.index,
        records: Some(part.batch.clone()),
    };
    ProduceRequest {
        acks,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: Str::from(format!("t{}", parts[0].place.topic)),
            partition_data: parts.iter().map(data).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Each request once; what has no answer stays uncertain.
async fn send_once(shared: &Rc<Shared>, conn: &mut Option<Conn>, made: Vec<Request>, acks: i16) {
    let Ok(open) = connected(conn).await else {
        shared.pause(3_000).await;
        return;
    };
    let mut under_way = Vec::new();
    for parts in made {
        let asked = shared.ask();
        match open.send(&encode(&parts, acks), PRODUCE_VERSION).await {
            Ok(correlation) if acks != 0 => under_way.push((correlation, parts, asked)),
            Ok(_) => {}
            Err(Lost) => {
                *conn = None;
                return;
            }
        }
    }
    if acks == 0 {
        // An answer to anything says that all before it was taken in.
        if open.call(&ApiVersionsRequest::default(), 0).await.is_err() {
            *conn = None;
        }
        return;
    }
    for (correlation, mut parts, asked) in under_way {
        match answers(open, correlation).await {
            Ok(answers) => take(shared, asked, &mut parts, &answers),
            Err(Lost) => {
                *conn = None;
                return;
            }
        }
    }
}

/// All requests, in order, again and again until every batch is answered; false where the topic went away.
async fn send_until_answered(
    shared: &Rc<Shared>,
    conn: &mut Option<Conn>,
    mut made: Vec<Request>,
    hedged: bool,
    torn: bool,
) -> bool {
    if hedged {
        let copies = made.clone();
        let also = shared.clone();
        shared.start(async move {
            also.pause(2_000).await;
            let mut second = None;
            send_once(&also, &mut second, copies, -1).await;
        });
    }
    let mut tries = 0;
    loop {
        made.iter_mut().for_each(|parts| parts.retain(|p| !p.done));
        made.retain(|parts| !parts.is_empty());
        if made.is_empty() {
            return true;
        }
        let gone = |p: &Part| !shared.model.borrow().is_certain(p.place);
        if made.iter().flatten().any(gone) || shared.violation().is_some() {
            return false;
        }
        let torn = torn && shared.below(8) == 0;
        if send_all(shared, conn, &mut made, torn).await.is_err() {
            *conn = None;
        } else if !note_refusals(shared, &mut made) {
            return false;
        }
        if made.iter().flatten().any(|p| !p.done) {
            shared.back_off(&mut tries).await;
        }
    }
}

/// `torn`: the connection ends in the middle of the last request.
async fn send_all(
    shared: &Rc<Shared>,
    conn: &mut Option<Conn>,
    made: &mut [Request],
    torn: bool,
) -> Result<(), Lost> {
    let open = connected(conn).await?;
    let mut correlations = Vec::with_capacity(made.len());
    let last = made.len() - 1;
    for (n, parts) in made.iter().enumerate() {
        let asked = shared.ask();
        let request = encode(parts, -1);
        if torn && n == last {
            return open
                .tear(&request, PRODUCE_VERSION, shared.below(1 << 20))
                .await;
        }
        correlations.push((open.send(&request, PRODUCE_VERSION).await?, asked));
    }
    for ((correlation, asked), parts) in correlations.into_iter().zip(made) {
        let answers = answers(open, correlation).await?;
        take(shared, asked, parts, &answers);
    }
    Ok(())
}

async fn answers(conn: &mut Conn, correlation: i32) -> Result<Vec<PartitionProduceResponse>, Lost> {
    let response = conn
        .receive::<ProduceRequest>(correlation, PRODUCE_VERSION)
        .await?;
    let topics = response.responses.into_iter();
    Ok(topics.flat_map(|t| t.partition_responses).collect())
}

/// What the answers to one request say of its batches.
fn take(shared: &Shared, asked: Asked, parts: &mut [Part], answers: &[PartitionProduceResponse]) {
    for part in parts {
        let Some(answer) = answers.iter().find(|a| a.index == part.place.index) else {
            panic!("no answer for {}", part.place);
        };
        match answer.error_code {
            0 => {
                part.done = true;
                let before = shared.model.borrow().bounds(part.place);
                let acked = Acked {
                    place: part.place,
                    tag: part.tag,
                    base: answer.base_offset,
                    log_start: answer.log_start_offset,
                    appended_ms: answer.log_append_time_ms,
                    before,
                    asked_at: asked.at,
                    at: rt::now(),
                };
                shared.acked(asked, &acked);
            }
            code::UNKNOWN_TOPIC_OR_PARTITION => {
                if shared.model.borrow().is_certain(part.place) {
                    shared.demand(Err(acknowledged::unknown_partition(part.place)));
                }
            }
            code::OUT_OF_ORDER_SEQUENCE => part.refusals += 1,
            code if code::is_retriable(code) => part.refusals = 0,
            code => panic!("{}: a batch is refused with code {code}", part.place),
        }
    }
}

/// Only the first batch without an answer of each partition is next in its sequence: the others cannot but be refused.
/// False where records that were acknowledged from memory were lost, and with them the producer's sequence.
fn note_refusals(shared: &Shared, made: &mut [Request]) -> bool {
    let mut seen: Vec<Place> = Vec::new();
    for part in made.iter_mut().flatten().filter(|p| !p.done) {
        if seen.contains(&part.place) {
            part.refusals = 0;
            continue;
        }
        seen.push(part.place);
        let model = shared.model.borrow();
        if part.refusals > REFUSALS_MAX && model.is_certain(part.place) {
            if model.caching(part.place).is_some() {
                return false;
            }
            drop(model);
            shared.demand(Err(duplicates::forgotten_sequence(part.place, part.tag)));
        }
    }
    true
}
