//! Owns AlterPartitionReassignments: partitions stay where they are, and who wants them elsewhere is told so.
//! Does not know how a partition would be moved.
//! Invariant: only what is so already is said to have been done.

use super::admin::Refusal;
use super::Outcome;
use crate::cores::Faces;
use crate::shard::ShardNet;
use crate::wire::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ReassignablePartition,
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use crate::wire::ErrorCode;
use millrace_engine::api::meta::Topic;
use std::sync::Arc;

impl Outcome for AlterPartitionReassignmentsResponse {
    fn failed(&self) -> bool {
        let mut partitions = self.responses.iter().flat_map(|topic| &topic.partitions);
        self.error_code != 0 || partitions.any(|partition| partition.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let image = shard.broker.image();
    let faces = shard.faces(&image);
    let mut responses = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let known = image.topic(&asked.name);
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for partition in asked.partitions {
            let (error, error_message) = match stays(&faces, known, &partition) {
                Ok(()) => (ErrorCode::None, None),
                Err(refusal) => (refusal.code, Some(refusal.message.into())),
            };
            partitions.push(ReassignablePartitionResponse {
                partition_index: partition.partition_index,
                error_code: error.code(),
                error_message,
            });
        }
        responses.push(ReassignableTopicResponse {
            name: asked.name,
            partitions,
        });
    }
    AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change,
        responses,
        ..Default::default()
    }
}

/// Whether the partition is where it shall be.
fn stays(
    faces: &Faces<'_>,
    topic: Option<&Arc<Topic>>,
    asked: &ReassignablePartition,
) -> Result<(), Refusal> {
    let at = usize::try_from(asked.partition_index).ok();
    let found = topic.and_then(|topic| Some((topic, at?, topic.partitions.get(at?)?)));
    let (topic, at, meta) = found.ok_or_else(Refusal::unknown_topic)?;
    let Some(wanted) = &asked.replicas else {
        return Err(Refusal::new(
            ErrorCode::NoReassignmentInProgress,
            "The partition is not being moved, so that there is nothing to give up.",
        ));
    };
    let held = faces.held(topic, at, meta).replicas;
    // By the node's own id as well, whichever its core.
    if *wanted == held || *wanted == meta.replicas {
        return Ok(());
    }
    let why = match wanted
        .iter()
        .find(|id| faces.image.broker(faces.node(**id)).is_none())
    {
        _ if wanted.is_empty() => "a partition needs a replica".to_owned(),
        Some(stranger) => format!("there is no broker {stranger}"),
        None => "partitions are not moved between brokers".to_owned(),
    };
    Err(Refusal::new(
        ErrorCode::InvalidReplicaAssignment,
        format!("The partition stays on {held:?}: {why}."),
    ))
}
