//! Owns ConsumerGroupHeartbeat: a member of the consumer protocol joins, stays or leaves.
//! Does not know groups (the engine's coordinators do).
//! Invariant: what contradicts itself is refused here; the rest of the answer is the coordinator's.

use super::{host, Asker, Outcome};
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::consumer_group_heartbeat::{
    Assignment, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::coord::{ConsumerBeat, ConsumerHeartbeat, GroupError};
use millrace_engine::types::TopicId;
use uuid::Uuid;

/// From this version on members choose their ids themselves.
const OWN_ID_VERSION_MIN: i16 = 1;

impl Outcome for ConsumerGroupHeartbeatResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: ConsumerGroupHeartbeatRequest,
    version: i16,
    asker: Asker,
) -> ConsumerGroupHeartbeatResponse {
    if let Err(message) = check(&request, version) {
        return refused(ErrorCode::InvalidRequest, message.to_owned());
    }
    answer(
        shard
            .broker
            .consumer_group_heartbeat(asked(request, asker))
            .await,
    )
}

/// What is wrong with a request, whatever the group is.
fn check(request: &ConsumerGroupHeartbeatRequest, version: i16) -> Result<(), &'static str> {
    let is_empty = |text: &Option<Str>| text.as_ref().is_some_and(|text| text.is_empty());
    let require = |is_right: bool, message| if is_right { Ok(()) } else { Err(message) };
    let epoch = request.member_epoch;
    require(!request.group_id.is_empty(), "GroupId can't be empty.")?;
    require(
        !is_empty(&request.instance_id),
        "InstanceId can't be empty.",
    )?;
    require(!is_empty(&request.rack_id), "RackId can't be empty.")?;
    require(epoch >= -2, "MemberEpoch is invalid.")?;
    let may_lack_id = epoch == 0 && version < OWN_ID_VERSION_MIN;
    let has_id = !request.member_id.is_empty();
    require(has_id || may_lack_id, "MemberId can't be empty.")?;
    if epoch == -2 {
        let is_static = request.instance_id.is_some();
        require(is_static, "InstanceId can't be null.")?;
    }
    if epoch == 0 {
        let timeout_ms = request.rebalance_timeout_ms;
        require(
            timeout_ms != -1,
            "RebalanceTimeoutMs must be provided in first request.",
        )?;
        let owned = request.topic_partitions.as_ref();
        require(
            owned.is_some_and(Vec::is_empty),
            "TopicPartitions must be empty when (re-)joining.",
        )?;
        let names = request.subscribed_topic_names.is_some();
        require(
            names || request.subscribed_topic_regex.is_some(),
            "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
        )?;
    }
    Ok(())
}

fn asked(request: ConsumerGroupHeartbeatRequest, asker: Asker) -> ConsumerHeartbeat {
    let text = |text: Option<Str>| text.map(|text| text.to_string());
    let names = |names: Vec<Str>| names.iter().map(|name| name.to_string()).collect();
    let held = |all: Vec<TopicPartitions>| {
        let all = all.into_iter();
        all.map(|t| (TopicId(t.topic_id.into_bytes()), t.partitions))
            .collect()
    };
    ConsumerHeartbeat {
        group: request.group_id.to_string(),
        member: request.member_id.to_string(),
        epoch: request.member_epoch,
        instance: text(request.instance_id),
        rack: text(request.rack_id),
        client_id: asker.client_id,
        client_host: host(asker.address),
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        topics: request.subscribed_topic_names.map(names),
        regex: text(request.subscribed_topic_regex),
        assignor: text(request.server_assignor),
        owned: request.topic_partitions.map(held),
    }
}

fn refused(error: ErrorCode, message: String) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse {
        error_code: error.code(),
        error_message: Some(message.into()),
        ..Default::default()
    }
}

fn answer(beat: Result<ConsumerBeat, GroupError>) -> ConsumerGroupHeartbeatResponse {
    let beat = match beat {
        Ok(beat) => beat,
        Err(error) => return refused(errors::group(error), error.to_string()),
    };
    let assignment = beat.assignment.map(|assignment| {
        let topics = assignment
            .into_iter()
            .map(|(id, partitions)| TopicPartitions {
                topic_id: Uuid::from_bytes(id.0),
                partitions: partitions.into_iter().collect(),
            });
        Assignment {
            topic_partitions: topics.collect(),
        }
    });
    ConsumerGroupHeartbeatResponse {
        member_id: Some(beat.member.into()),
        member_epoch: beat.epoch,
        heartbeat_interval_ms: beat.heartbeat_interval_ms,
        assignment,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::Out;

    fn joining() -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest {
            group_id: "g".into(),
            member_id: "m".into(),
            rebalance_timeout_ms: 1_000,
            subscribed_topic_names: Some(vec!["t".into()]),
            topic_partitions: Some(Vec::new()),
            ..Default::default()
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        type Change = fn(&mut ConsumerGroupHeartbeatRequest);
        let wrong: [(Change, &str); 9] = [
            (|r| r.group_id = "".into(), "GroupId"),
            (|r| r.member_id = "".into(), "MemberId"),
            (|r| r.instance_id = Some("".into()), "InstanceId"),
            (|r| r.rack_id = Some("".into()), "RackId"),
            (|r| r.member_epoch = -3, "MemberEpoch"),
            (|r| r.member_epoch = -2, "InstanceId"),
            (|r| r.rebalance_timeout_ms = -1, "RebalanceTimeoutMs"),
            (|r| r.topic_partitions = None, "TopicPartitions"),
            (|r| r.subscribed_topic_names = None, "Either"),
        ];
        assert_eq!(check(&joining(), 1), Ok(()));
        for (change, word) in wrong {
            let mut request = joining();
            change(&mut request);
            let message = check(&request, 1).unwrap_err();
            assert!(message.starts_with(word), "{message}");
        }
        let mut nameless = joining();
        nameless.member_id = "".into();
        assert_eq!(check(&nameless, 0), Ok(()));
        nameless.member_epoch = 1;
        assert!(check(&nameless, 0).is_err());
        let stays = ConsumerGroupHeartbeatRequest {
            group_id: "g".into(),
            member_id: "m".into(),
            member_epoch: 4,
            rebalance_timeout_ms: -1,
            ..Default::default()
        };
        assert_eq!(check(&stays, 1), Ok(()));
    }

    #[test]
    fn what_is_asked_keeps_what_is_not_said_apart_from_what_is_empty() {
        let asker = || Asker {
            client_id: "c".into(),
            address: [127, 0, 0, 1].into(),
            share: Default::default(),
        };
        let all = asked(joining(), asker());
        assert_eq!((&*all.group, &*all.member, all.epoch), ("g", "m", 0));
        assert_eq!(all.client_host, "/127.0.0.1");
        assert_eq!(all.topics, Some(vec!["t".to_owned()]));
        assert_eq!((all.owned, all.regex), (Some(Vec::new()), None));
        let nothing = asked(ConsumerGroupHeartbeatRequest::default(), asker());
        assert_eq!((nothing.owned, nothing.topics), (None, None));
        assert_eq!(nothing.rebalance_timeout_ms, -1);
    }

    #[test]
    fn every_version_can_carry_its_answer() {
        let id = TopicId([7; 16]);
        let beat = ConsumerBeat {
            member: "m".into(),
            epoch: 3,
            heartbeat_interval_ms: 5_000,
            assignment: Some([(id, [0, 2].into())].into()),
        };
        let answers = [
            (answer(Ok(beat)), 0),
            (answer(Err(GroupError::FencedMemberEpoch)), 110),
            (answer(Err(GroupError::InvalidRegularExpression)), 128),
        ];
        for version in 0..=1 {
            for (response, error) in &answers {
                assert_eq!(
                    (response.error_code, response.failed()),
                    (*error, *error != 0)
                );
                let mut out = Out::default();
                out.respond::<ConsumerGroupHeartbeatRequest>(1, version, response)
                    .unwrap();
            }
        }
        let assignment = answers[0].0.assignment.as_ref().unwrap();
        assert_eq!(assignment.topic_partitions[0].partitions, [0, 2]);
    }
}
