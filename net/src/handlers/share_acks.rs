//! Owns acknowledgements as ShareFetch and ShareAcknowledge bring them: read, handed over, answered.
//! Does not know sessions, nor which record is with whom (the engine does).
//! Invariant: every partition that is named gets its own answer, and one that is refused changed nothing.

use crate::errors;
use crate::shard::ShardNet;
use crate::wire::share_fetch::AcknowledgementBatch;
use crate::wire::ErrorCode;
use millrace_engine::api::share::{AckBatch, AckType, ShareAck};
use millrace_engine::api::Image;
use millrace_engine::types::{PartitionId, TopicId};
use uuid::Uuid;

/// What is said of a partition.
pub(super) struct Asked {
    pub(super) topic: Uuid,
    pub(super) index: i32,
    pub(super) batches: Vec<AcknowledgementBatch>,
}

/// The partition of this id.
///
/// # Errors
/// There is no such topic, or no such partition of it.
pub(super) fn find(image: &Image, topic: &Uuid, index: i32) -> Result<PartitionId, ErrorCode> {
    let id = TopicId(*topic.as_bytes());
    let known = image.topic_by_id(id).ok_or(ErrorCode::UnknownTopicId)?;
    let exists = usize::try_from(index).is_ok_and(|index| index < known.partitions.len());
    match exists {
        true => Ok(PartitionId::new(id, index)),
        false => Err(ErrorCode::UnknownTopicOrPartition),
    }
}

fn batch(batch: AcknowledgementBatch, may_renew: bool) -> Result<AckBatch, ErrorCode> {
    let one = |code: &i8| match AckType::of_code(*code) {
        Some(AckType::Renew) if !may_renew => Err(ErrorCode::InvalidRequest),
        Some(known) => Ok(known),
        None => Err(ErrorCode::InvalidRequest),
    };
    Ok(AckBatch {
        first: batch.first_offset,
        last: batch.last_offset,
        types: batch
            .acknowledge_types
            .iter()
            .map(one)
            .collect::<Result<_, _>>()?,
    })
}

/// Has all of them taken; gives what came of each, in order.
pub(super) async fn take(
    shard: &ShardNet,
    (group, member): &(String, String),
    asked: Vec<Asked>,
    may_renew: bool,
) -> Vec<(Uuid, i32, ErrorCode)> {
    let image = shard.broker.image();
    let mut answers = Vec::with_capacity(asked.len());
    let mut acks = Vec::new();
    let mut places = Vec::new();
    for Asked {
        topic,
        index,
        batches,
    } in asked
    {
        let batches = batches.into_iter().map(|one| batch(one, may_renew));
        let ack = find(&image, &topic, index).and_then(|partition| {
            let batches = batches.collect::<Result<_, _>>()?;
            Ok(ShareAck { partition, batches })
        });
        let error = match ack {
            Ok(ack) => {
                acks.push(ack);
                places.push(answers.len());
                ErrorCode::None
            }
            Err(error) => error,
        };
        answers.push((topic, index, error));
    }
    let results = shard.broker.share_acknowledge(group, member, acks).await;
    for (at, result) in places.into_iter().zip(results) {
        if let Err(error) = result {
            answers[at].2 = errors::share_partition(&error);
        }
    }
    answers
}
