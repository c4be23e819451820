//! Owns AlterShareGroupOffsets: has a share group without members begin elsewhere.
//! Does not know how that is kept.
//! Invariant: every partition is answered where it was asked; the topic in which states are kept exists before there is one.

use super::find_coordinator::make_topic;
use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::alter_share_group_offsets::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse, AlteredShareOffset,
    AlteredShareOffsetsTopic,
};
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::share::SHARE_TOPIC;
use millrace_engine::types::PartitionId;
use uuid::Uuid;

impl Outcome for AlterShareGroupOffsetsResponse {
    fn failed(&self) -> bool {
        let mut partitions = self.responses.iter().flat_map(|topic| &topic.partitions);
        self.error_code != 0 || partitions.any(|p| p.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: AlterShareGroupOffsetsRequest,
) -> AlterShareGroupOffsetsResponse {
    // Who alters a group looks for the coordinator of groups, and for none of states.
    if let Err(refusal) = make_topic(shard, SHARE_TOPIC).await {
        return refused(refusal.code, refusal.message);
    }
    let image = shard.broker.image();
    let mut offsets = Vec::new();
    let mut responses = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let known = image.topic(&topic.topic_name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let index = asked.partition_index;
            let id = known.filter(|known| {
                usize::try_from(index).is_ok_and(|index| index < known.partitions.len())
            });
            let error = match id {
                None => ErrorCode::UnknownTopicOrPartition,
                Some(_) if asked.start_offset < 0 => ErrorCode::InvalidRequest,
                Some(known) => {
                    let id = PartitionId::new(known.id, index);
                    offsets.push((id, known.name.clone(), asked.start_offset));
                    ErrorCode::None
                }
            };
            partitions.push(AlteredShareOffset {
                partition_index: index,
                error_code: error.code(),
                ..Default::default()
            });
        }
        responses.push(AlteredShareOffsetsTopic {
            topic_id: known.map_or(Uuid::nil(), |known| Uuid::from_bytes(known.id.0)),
            topic_name: topic.topic_name,
            partitions,
        });
    }
    let altered = shard
        .broker
        .alter_share_offsets(&request.group_id, offsets)
        .await;
    let results = match altered {
        Ok(results) => results,
        Err(error) => return refused(errors::share(&error), error.to_string()),
    };
    let answers = responses.iter_mut().flat_map(|topic| &mut topic.partitions);
    let answers = answers.filter(|answer| answer.error_code == 0);
    for (answer, result) in answers.zip(results) {
        if let Err(error) = result {
            answer.error_code = errors::share(&error).code();
            answer.error_message = Some(error.to_string().into());
        }
    }
    AlterShareGroupOffsetsResponse {
        responses,
        ..Default::default()
    }
}

fn refused(code: ErrorCode, message: String) -> AlterShareGroupOffsetsResponse {
    AlterShareGroupOffsetsResponse {
        error_code: code.code(),
        error_message: Some(Str::from(message)),
        ..Default::default()
    }
}
