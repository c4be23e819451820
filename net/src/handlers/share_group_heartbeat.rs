//! Owns ShareGroupHeartbeat: a member of a share group joins, goes on or leaves.
//! Does not know members or assignments (the engine's coordinators do).
//! Invariant: the topic in which states are kept exists before anybody is a member.

use super::find_coordinator::make_topic;
use super::{host, Asker, Outcome};
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::share_group_heartbeat::{
    ShareAssignment, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse, ShareTopicPartitions,
};
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::share::{
    Partitions, ShareError, ShareHeard, ShareHeartbeat, SHARE_TOPIC,
};
use uuid::Uuid;

impl Outcome for ShareGroupHeartbeatResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: ShareGroupHeartbeatRequest,
    asker: Asker,
) -> ShareGroupHeartbeatResponse {
    if let Err(refusal) = make_topic(shard, SHARE_TOPIC).await {
        return refused(refusal.code, refusal.message);
    }
    let member = request.member_id.clone();
    let asked = ShareHeartbeat {
        group: request.group_id.to_string(),
        member: request.member_id.to_string(),
        epoch: request.member_epoch,
        rack: request.rack_id.map(|rack| rack.to_string()),
        topics: request
            .subscribed_topic_names
            .map(|names| names.iter().map(|name| name.to_string()).collect()),
        client_id: asker.client_id,
        client_host: host(asker.address),
    };
    answer(member, shard.broker.share_heartbeat(asked).await)
}

fn refused(code: ErrorCode, message: String) -> ShareGroupHeartbeatResponse {
    ShareGroupHeartbeatResponse {
        error_code: code.code(),
        error_message: Some(message.into()),
        ..Default::default()
    }
}

fn answer(member: Str, heard: Result<ShareHeard, ShareError>) -> ShareGroupHeartbeatResponse {
    let assignment = |assigned: Partitions| ShareAssignment {
        topic_partitions: assigned
            .into_iter()
            .map(|(topic, partitions)| ShareTopicPartitions {
                topic_id: Uuid::from_bytes(topic.0),
                partitions,
            })
            .collect(),
    };
    match heard {
        Ok(heard) => ShareGroupHeartbeatResponse {
            member_id: Some(member),
            member_epoch: heard.epoch,
            heartbeat_interval_ms: heard.heartbeat_interval_ms,
            assignment: heard.assignment.map(assignment),
            ..Default::default()
        },
        Err(error) => refused(errors::share(&error), error.to_string()),
    }
}
