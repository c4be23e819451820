//! Owns ShareAcknowledge: what became of records that a member of a share group was given.
//! Does not know which record is with whom (the engine does).
//! Invariant: every partition that is named is answered.

use super::share_acks::{self, Asked};
use super::share_fetch::who;
use super::share_session::{ShareSessions, CLOSE, OPEN};
use super::Outcome;
use crate::shard::ShardNet;
use crate::wire::share_acknowledge::{
    ShareAcknowledgeRequest, ShareAcknowledgeResponse, ShareAcknowledgedPartition,
    ShareAcknowledgedTopic,
};
use crate::wire::{ErrorCode, Str};

impl Outcome for ShareAcknowledgeResponse {
    fn failed(&self) -> bool {
        let mut partitions = self.responses.iter().flat_map(|topic| &topic.partitions);
        self.error_code != 0 || partitions.any(|p| p.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: ShareAcknowledgeRequest,
    sessions: &ShareSessions,
) -> ShareAcknowledgeResponse {
    match serve(shard, request, sessions).await {
        Ok(response) => response,
        Err(error) => ShareAcknowledgeResponse {
            error_code: error.code(),
            error_message: Some(Str::from_static(error.name())),
            ..Default::default()
        },
    }
}

async fn serve(
    shard: &ShardNet,
    request: ShareAcknowledgeRequest,
    sessions: &ShareSessions,
) -> Result<ShareAcknowledgeResponse, ErrorCode> {
    let who = who(request.group_id.as_ref(), request.member_id.as_ref())?;
    match request.share_session_epoch {
        OPEN => return Err(ErrorCode::InvalidShareSessionEpoch),
        CLOSE if !sessions.has(&who) => return Err(ErrorCode::ShareSessionNotFound),
        CLOSE => {}
        epoch => sessions.go_on(&who, epoch, |_| ())?,
    }
    let asked = request.topics.into_iter().flat_map(|topic| {
        let id = topic.topic_id;
        topic.partitions.into_iter().map(move |partition| Asked {
            topic: id,
            index: partition.partition_index,
            batches: partition.acknowledgement_batches,
        })
    });
    let answers = share_acks::take(shard, &who, asked.collect(), request.is_renew_ack).await;
    if request.share_session_epoch == CLOSE {
        sessions.close(shard, &who, Vec::new()).await;
    }
    let mut responses: Vec<ShareAcknowledgedTopic> = Vec::new();
    for (topic, index, error) in answers {
        let answer = ShareAcknowledgedPartition {
            partition_index: index,
            error_code: error.code(),
            ..Default::default()
        };
        match responses.last_mut() {
            Some(last) if last.topic_id == topic => last.partitions.push(answer),
            Some(_) | None => responses.push(ShareAcknowledgedTopic {
                topic_id: topic,
                partitions: vec![answer],
            }),
        }
    }
    Ok(ShareAcknowledgeResponse {
        acquisition_lock_timeout_ms: shard.broker.share_lock_ms(&who.0),
        responses,
        ..Default::default()
    })
}
