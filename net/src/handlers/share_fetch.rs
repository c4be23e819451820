//! Owns ShareFetch: takes acknowledgements, then gives a member of a share group records.
//! Does not know which records those are (the engine does).
//! Invariant: what is fetched is what the session names, and every acknowledgement of the request is answered.

use super::share_acks::{self, Asked};
use super::share_session::{ShareSessions, Who, CLOSE, OPEN};
use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::share_fetch::{
    AcquiredRecords, ShareFetchRequest, ShareFetchResponse, ShareFetchableTopic, SharePartitionData,
};
use crate::wire::{ErrorCode, Records, Str};
use bytes::Bytes;
use millrace_engine::api::share::{ShareFetchAsked, ShareFetched};
use millrace_engine::types::{PartitionId, TopicId};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Longest wait, whatever the client asks for.
const WAIT_MS_MAX: u64 = 300_000;

/// Record bytes of one answer at the most; they are copied.
const BYTES_MAX: usize = 16 << 20;

/// And so many there may be however much others hold.
const BYTES_MIN: usize = 64 << 10;

impl Outcome for ShareFetchResponse {
    fn failed(&self) -> bool {
        let mut partitions = self.responses.iter().flat_map(|topic| &topic.partitions);
        self.error_code != 0
            || partitions.any(|p| p.error_code != 0 || p.acknowledge_error_code != 0)
    }
}

/// Who asks; the error where that is not said.
pub(super) fn who(group: Option<&Str>, member: Option<&Str>) -> Result<Who, ErrorCode> {
    let said = |text: Option<&Str>| text.map(|t| t.to_string()).filter(|t| !t.is_empty());
    let group = said(group).ok_or(ErrorCode::InvalidGroupId)?;
    let member = said(member).ok_or(ErrorCode::InvalidRequest)?;
    Ok((group, member))
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: ShareFetchRequest,
    sessions: &ShareSessions,
) -> ShareFetchResponse {
    match serve(shard, request, sessions).await {
        Ok(response) => response,
        Err(error) => ShareFetchResponse {
            error_code: error.code(),
            error_message: Some(Str::from_static(error.name())),
            ..Default::default()
        },
    }
}

async fn serve(
    shard: &ShardNet,
    mut request: ShareFetchRequest,
    sessions: &ShareSessions,
) -> Result<ShareFetchResponse, ErrorCode> {
    let who = who(request.group_id.as_ref(), request.member_id.as_ref())?;
    // They keep the frame, and this may wait for long.
    (request.group_id, request.member_id) = (None, None);
    let epoch = request.share_session_epoch;
    // It only renews locks then, and fetches nothing.
    let renews = request.is_renew_ack;
    let mut wanted = Vec::new();
    let mut answers: BTreeMap<(Uuid, i32), SharePartitionData> = BTreeMap::new();
    let mut acks = Vec::new();
    let image = shard.broker.image();
    for topic in request.topics {
        for partition in topic.partitions {
            let index = partition.partition_index;
            match share_acks::find(&image, &topic.topic_id, index) {
                Ok(id) => wanted.push(id),
                Err(error) => {
                    let answer = answers.entry((topic.topic_id, index)).or_default();
                    answer.error_code = error.code();
                }
            }
            if !partition.acknowledgement_batches.is_empty() {
                acks.push(Asked {
                    topic: topic.topic_id,
                    index,
                    batches: partition.acknowledgement_batches,
                });
            }
        }
    }
    match epoch {
        OPEN if !acks.is_empty() => return Err(ErrorCode::InvalidRequest),
        OPEN => {
            let mut seen = BTreeSet::new();
            wanted.retain(|id| seen.insert(*id));
            sessions.open(shard, &who, wanted.clone())?;
        }
        CLOSE if !sessions.has(&who) => return Err(ErrorCode::ShareSessionNotFound),
        CLOSE => {}
        _ => {
            let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| {
                let of = move |index: &i32| {
                    let id = TopicId(*topic.topic_id.as_bytes());
                    PartitionId::new(id, *index)
                };
                topic.partitions.iter().map(of)
            });
            let forgotten: BTreeSet<PartitionId> = forgotten.collect();
            let added = wanted.clone();
            sessions.go_on(&who, epoch, |partitions| {
                let mut known: BTreeSet<PartitionId> = partitions.iter().copied().collect();
                partitions.extend(added.into_iter().filter(|id| known.insert(*id)));
                partitions.retain(|id| !forgotten.contains(id));
            })?;
        }
    }
    if !acks.is_empty() {
        for (topic, index, error) in share_acks::take(shard, &who, acks, renews).await {
            let answer = answers.entry((topic, index)).or_default();
            answer.acknowledge_error_code = error.code();
        }
    }
    if epoch == CLOSE {
        sessions.close(shard, &who, wanted).await;
    }
    let count = |number: i32| usize::try_from(number).unwrap_or(0);
    let max_records = count(request.max_records);
    let mut partitions = sessions.partitions(&who);
    // Those that are gone say so.
    partitions.retain(|id| {
        let topic = Uuid::from_bytes(id.topic.0);
        let found = share_acks::find(&image, &topic, id.index);
        if let Err(error) = found {
            let answer = answers.entry((topic, id.index)).or_default();
            answer.error_code = error.code();
        }
        found.is_ok()
    });
    if epoch != CLOSE && !renews && max_records > 0 && !partitions.is_empty() {
        let left = shard
            .broker
            .response_bytes_left()
            .clamp(BYTES_MIN, BYTES_MAX);
        let most = left.min(shard.config.fetch_bytes_max);
        let asked = ShareFetchAsked {
            group: who.0.clone(),
            member: who.1.clone(),
            partitions: partitions.clone(),
            max_wait_ms: u64::try_from(request.max_wait_ms)
                .unwrap_or(0)
                .min(WAIT_MS_MAX),
            max_bytes: count(request.max_bytes).min(most),
            max_records,
            strict: request.share_acquire_mode == 1,
        };
        let results = shard.broker.share_fetch(asked).await;
        for (id, result) in partitions.into_iter().zip(results) {
            let place = (Uuid::from_bytes(id.topic.0), id.index);
            match result {
                Ok(fetched) if fetched.acquired.is_empty() && epoch != OPEN => {}
                Ok(fetched) => fill(answers.entry(place).or_default(), fetched),
                Err(error) => {
                    let answer = answers.entry(place).or_default();
                    answer.error_code = errors::share_partition(&error).code();
                    answer.error_message = Some(error.to_string().into());
                }
            }
        }
    }
    let mut responses: Vec<ShareFetchableTopic> = Vec::new();
    for ((topic, index), mut answer) in answers {
        answer.partition_index = index;
        if matches!(answer.records, Records::Null) {
            // There is no null in these versions.
            answer.records = Records::One(Bytes::new());
        }
        match responses.last_mut() {
            Some(last) if last.topic_id == topic => last.partitions.push(answer),
            Some(_) | None => responses.push(ShareFetchableTopic {
                topic_id: topic,
                partitions: vec![answer],
            }),
        }
    }
    Ok(ShareFetchResponse {
        acquisition_lock_timeout_ms: shard.broker.share_lock_ms(&who.0),
        responses,
        ..Default::default()
    })
}

fn fill(answer: &mut SharePartitionData, fetched: ShareFetched) {
    answer.records = Records::One(fetched.records);
    let acquired = fetched.acquired.iter().map(|run| AcquiredRecords {
        first_offset: run.first,
        last_offset: run.last,
        delivery_count: run.delivery_count,
    });
    answer.acquired_records = acquired.collect();
}
