//! Owns DeleteTopics.
//! Does not know when the data of a deleted topic goes away.
//! Invariant: each topic of a request is answered once, by the name or id it was asked for.

use super::admin::{self, Refusal};
use super::Outcome;
use crate::shard::ShardNet;
use crate::wire::delete_topics::{
    DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::meta::{Command, Image, Topic};
use millrace_engine::types::TopicId;
use std::sync::Arc;
use uuid::Uuid;

/// First version that asks for topics by id too.
const ID_VERSION_MIN: i16 = 6;
/// First version with an error for brokers that delete nothing.
const DISABLED_VERSION_MIN: i16 = 3;

impl Outcome for DeleteTopicsResponse {
    fn failed(&self) -> bool {
        self.responses.iter().any(|topic| topic.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: DeleteTopicsRequest,
    version: i16,
) -> DeleteTopicsResponse {
    let asked = if version >= ID_VERSION_MIN {
        request.topics
    } else {
        let by_name = |name| DeleteTopicState {
            name: Some(name),
            topic_id: Uuid::nil(),
        };
        request.topic_names.into_iter().map(by_name).collect()
    };
    let image = shard.broker.image();
    let disabled = (!image.broker_config.delete_topic_enable).then(|| {
        let code = if version >= DISABLED_VERSION_MIN {
            ErrorCode::TopicDeletionDisabled
        } else {
            ErrorCode::InvalidRequest
        };
        Refusal::new(code, "Topic deletion is disabled.")
    });
    let found: Vec<Result<Arc<Topic>, Refusal>> = asked
        .iter()
        .map(|asked| match &disabled {
            Some(refusal) => Err(refusal.clone()),
            None => find(&image, asked),
        })
        .collect();
    let counts = admin::occurrences(found.iter().flatten().map(|topic| topic.id));
    let mut seen = std::collections::HashSet::new();
    let work = asked
        .into_iter()
        .zip(found)
        .filter(|(asked, _)| seen.insert((asked.name.clone(), asked.topic_id)));
    let one = |(asked, found): (DeleteTopicState, Result<Arc<Topic>, Refusal>)| {
        let found = found.and_then(|topic| match counts[&topic.id] {
            1 => Ok(topic),
            _ => Err(Refusal::new(
                ErrorCode::InvalidRequest,
                "Duplicate topic name or id.",
            )),
        });
        delete(shard, asked, found)
    };
    let responses = super::for_each(work.collect::<Vec<_>>(), one).await;
    DeleteTopicsResponse {
        responses,
        ..Default::default()
    }
}

fn find(image: &Image, asked: &DeleteTopicState) -> Result<Arc<Topic>, Refusal> {
    let id = TopicId(asked.topic_id.into_bytes());
    match (&asked.name, id.is_nil()) {
        (Some(_), false) => Err(Refusal::new(
            ErrorCode::InvalidRequest,
            "A topic is named or given by its id, not both.",
        )),
        (None, true) => Err(Refusal::new(
            ErrorCode::InvalidRequest,
            "Neither a topic name nor an id was given.",
        )),
        (Some(name), true) => image
            .topic(name)
            .cloned()
            .ok_or_else(Refusal::unknown_topic),
        (None, false) => image.topic_by_id(id).cloned().ok_or_else(|| {
            Refusal::new(
                ErrorCode::UnknownTopicId,
                "This server does not host this topic ID.",
            )
        }),
    }
}

async fn delete(
    shard: &ShardNet,
    asked: DeleteTopicState,
    found: Result<Arc<Topic>, Refusal>,
) -> DeletableTopicResult {
    let topic = found.as_ref().ok().cloned();
    let result = match found {
        Ok(topic) => admin::change(shard, Command::DeleteTopic { id: topic.id }, false)
            .await
            .map(|_| ()),
        Err(refusal) => Err(refusal),
    };
    let name = asked
        .name
        .or_else(|| topic.as_ref().map(|topic| Str::from(topic.name.clone())));
    let topic_id = topic.map_or(asked.topic_id, |topic| Uuid::from_bytes(topic.id.0));
    let (error, error_message) = match result {
        Ok(()) => (ErrorCode::None, None),
        Err(refusal) => (refusal.code, Some(refusal.message.into())),
    };
    DeletableTopicResult {
        name,
        topic_id,
        error_code: error.code(),
        error_message,
    }
}
