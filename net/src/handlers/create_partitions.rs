//! Owns CreatePartitions.
//! Does not know where the new partitions are placed.
//! Invariant: each topic of a request succeeds or fails by itself; a name that occurs twice fails.

use super::admin::{self, Refusal};
use super::Outcome;
use crate::shard::ShardNet;
use crate::wire::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
    CreatePartitionsTopicResult,
};
use crate::wire::ErrorCode;
use millrace_engine::api::meta::Command;

impl Outcome for CreatePartitionsResponse {
    fn failed(&self) -> bool {
        self.results.iter().any(|topic| topic.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let counts = admin::occurrences(request.topics.iter().map(|topic| topic.name.clone()));
    let counts = &counts;
    let mut seen = std::collections::HashSet::new();
    let topics: Vec<_> = request
        .topics
        .into_iter()
        .filter(|topic| seen.insert(topic.name.clone()))
        .collect();
    let image = shard.broker.image();
    let added = topics.iter().map(|topic| {
        let known = image.topic(&topic.name).map_or(0, |t| t.partitions.len());
        usize::try_from(topic.count)
            .unwrap_or(0)
            .saturating_sub(known)
    });
    let too_many = &admin::too_many_partitions(added);
    let one = |topic: CreatePartitionsTopic| async move {
        let name = topic.name.clone();
        let result = if let Some(refusal) = too_many {
            Err(refusal.clone())
        } else if counts[&name] > 1 {
            Err(Refusal::new(
                ErrorCode::InvalidRequest,
                "Duplicate topic name.",
            ))
        } else {
            grow(shard, topic, request.validate_only).await
        };
        let (error, error_message) = match result {
            Ok(()) => (ErrorCode::None, None),
            Err(refusal) => (refusal.code, Some(refusal.message.into())),
        };
        CreatePartitionsTopicResult {
            name,
            error_code: error.code(),
            error_message,
        }
    };
    CreatePartitionsResponse {
        results: super::for_each(topics, one).await,
        ..Default::default()
    }
}

async fn grow(
    shard: &ShardNet,
    topic: CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Refusal> {
    let image = shard.broker.image();
    let known = image
        .topic(&topic.name)
        .ok_or_else(Refusal::unknown_topic)?;
    let assignment: Vec<Vec<i32>> = topic
        .assignments
        .into_iter()
        .flatten()
        .map(|given| given.broker_ids)
        .collect();
    let old_total = known.partitions.len();
    let assigned = shard
        .faces(&image)
        .assigned(Some(known.id), old_total, assignment)?;
    let command = Command::AddPartitions {
        id: known.id,
        new_total: topic.count,
        assignment: assigned.nodes,
    };
    admin::change(shard, command, validate_only)
        .await
        .map(|_| ())
}
