//! Owns ConsumerGroupDescribe: groups of the consumer protocol with their members.
//! Does not know groups (the engine's coordinators do).
//! Invariant: every group asked for is answered, in the order of the request.

use super::{allowed, Outcome};
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::consumer_group_describe::{
    Assignment, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DescribedGroup,
    Member, TopicPartitions,
};
use crate::wire::Str;
use millrace_engine::api::coord::{
    DescribedConsumer, DescribedConsumerGroup, GroupError, NamedAssignment,
};
use uuid::Uuid;

impl Outcome for ConsumerGroupDescribeResponse {
    fn failed(&self) -> bool {
        self.groups.iter().any(|group| group.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let operations = allowed::if_asked(request.include_authorized_operations, allowed::WITH_GROUP);
    let one = |group: Str| async move {
        let described = shard.broker.describe_consumer_group(group.to_string());
        let mut known = answer(group, described.await);
        if known.error_code == 0 {
            known.authorized_operations = operations;
        }
        known
    };
    ConsumerGroupDescribeResponse {
        groups: super::for_each(super::each_once(request.group_ids, Str::clone), one).await,
        ..Default::default()
    }
}

fn answer(group: Str, described: Result<DescribedConsumerGroup, GroupError>) -> DescribedGroup {
    let described = match described {
        Ok(known) => DescribedGroup {
            group_state: Str::from_static(known.state.name()),
            group_epoch: known.epoch,
            assignment_epoch: known.assignment_epoch,
            assignor_name: Str::from_static(known.assignor),
            members: known.members.into_iter().map(member).collect(),
            ..Default::default()
        },
        Err(error) => DescribedGroup {
            error_code: errors::group(error).code(),
            error_message: Some(match error {
                GroupError::GroupIdNotFound => format!("Group {group} not found.").into(),
                other => other.to_string().into(),
            }),
            ..Default::default()
        },
    };
    DescribedGroup {
        group_id: group,
        ..described
    }
}

fn member(member: DescribedConsumer) -> Member {
    Member {
        member_id: member.member.into(),
        instance_id: member.instance.map(Str::from),
        rack_id: member.rack.map(Str::from),
        member_epoch: member.epoch,
        client_id: member.client_id.into(),
        client_host: member.client_host.into(),
        subscribed_topic_names: member.topics.into_iter().map(Str::from).collect(),
        subscribed_topic_regex: member.regex.map(Str::from),
        assignment: assignment(member.assignment),
        target_assignment: assignment(member.target),
        member_type: i8::from(!member.is_classic),
    }
}

fn assignment(assignment: NamedAssignment) -> Assignment {
    let topics = assignment
        .into_iter()
        .map(|(id, name, partitions)| TopicPartitions {
            topic_id: Uuid::from_bytes(id.0),
            topic_name: name.into(),
            partitions,
        });
    Assignment {
        topic_partitions: topics.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::Out;
    use millrace_engine::api::coord::ConsumerState;
    use millrace_engine::types::TopicId;

    #[test]
    fn every_version_can_carry_its_answer() {
        let held = |index| vec![(TopicId([7; 16]), "t".to_owned(), vec![index])];
        let known = DescribedConsumerGroup {
            state: ConsumerState::Reconciling,
            epoch: 5,
            assignment_epoch: 4,
            assignor: "uniform",
            members: vec![DescribedConsumer {
                member: "m".into(),
                instance: Some("i".into()),
                rack: None,
                epoch: 3,
                client_id: "c".into(),
                client_host: "/10.0.0.1".into(),
                topics: vec!["t".into()],
                regex: Some("t.*".into()),
                assignment: held(0),
                target: held(1),
                is_classic: false,
            }],
        };
        let groups = vec![
            answer("g".into(), Ok(known)),
            answer("g".into(), Err(GroupError::GroupIdNotFound)),
        ];
        assert_eq!(
            (&*groups[0].group_state, groups[0].error_code),
            ("Reconciling", 0)
        );
        let member = &groups[0].members[0];
        assert_eq!((member.member_epoch, member.member_type), (3, 1));
        assert_eq!(member.target_assignment.topic_partitions[0].partitions, [1]);
        assert_eq!(groups[1].error_code, 69);
        let response = ConsumerGroupDescribeResponse {
            groups,
            ..Default::default()
        };
        assert!(response.failed());
        for version in 0..=1 {
            let mut out = Out::default();
            out.respond::<ConsumerGroupDescribeRequest>(1, version, &response)
                .unwrap();
        }
    }
}
