//! Owns DeleteShareGroupOffsets: has a share group without members forget where it was in topics.
//! Does not know how that is kept.
//! Invariant: every topic is answered where it was asked.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::delete_share_group_offsets::{
    DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponse, DeletedShareOffsetsTopic,
};
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::share::ShareError;
use uuid::Uuid;

impl Outcome for DeleteShareGroupOffsetsResponse {
    fn failed(&self) -> bool {
        self.error_code != 0 || self.responses.iter().any(|topic| topic.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: DeleteShareGroupOffsetsRequest,
) -> DeleteShareGroupOffsetsResponse {
    let image = shard.broker.image();
    let group = &request.group_id;
    let mut responses = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let known = image.topic(&topic.topic_name);
        let deleted = match known {
            Some(known) => shard.broker.delete_share_offsets(group, known.id).await,
            None => Err(ShareError::UnknownTopicOrPartition),
        };
        let error = match deleted {
            Ok(()) => None,
            // It is the same for every topic.
            Err(error @ (ShareError::GroupIdNotFound | ShareError::NonEmptyGroup)) => {
                return DeleteShareGroupOffsetsResponse {
                    error_code: errors::share(&error).code(),
                    error_message: Some(Str::from(error.to_string())),
                    ..Default::default()
                }
            }
            Err(error) => Some(error),
        };
        let code = error.as_ref().map_or(ErrorCode::None, errors::share);
        responses.push(DeletedShareOffsetsTopic {
            topic_id: known.map_or(Uuid::nil(), |known| Uuid::from_bytes(known.id.0)),
            topic_name: topic.topic_name,
            error_code: code.code(),
            error_message: error.map(|error| error.to_string().into()),
        });
    }
    DeleteShareGroupOffsetsResponse {
        responses,
        ..Default::default()
    }
}
