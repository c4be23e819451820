//! Owns the call that describes a group of the consumer protocol (KIP-848).
//! Does not know how its result is shown, nor groups of other kinds.
//! Invariant: what it gives looks like any other group, so that commands need not tell them apart.

use super::assignment::{Assignment, CONSUMER};
use super::cluster::Cluster;
use super::error::ClientError;
use super::groups::{coordinated, is_worth_repeating, Description, Member};
use millrace_net::wire::consumer_group_describe::{self as wire, ConsumerGroupDescribeRequest};
use millrace_net::wire::{ErrorCode, Str};

/// What brokers call groups of this kind.
pub const KIND: &str = "consumer";

/// A group with its members.
pub fn describe(cluster: &mut Cluster, group: &str) -> Result<Description, ClientError> {
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec![Str::from(group.to_string())],
        ..ConsumerGroupDescribeRequest::default()
    };
    let what = || format!("group {group}");
    let not_found = || ClientError::broker(what(), ErrorCode::GroupIdNotFound.code(), None);
    coordinated(
        cluster,
        group,
        is_worth_repeating,
        |cluster, coordinator| {
            let answer = cluster.with_node(coordinator.node, |conn| conn.call(&request))?;
            let found = answer.groups.into_iter().find(|g| g.group_id == *group);
            let found = found.ok_or_else(not_found)?;
            ClientError::check(what, found.error_code, found.error_message.as_deref())?;
            Ok(Description {
                coordinator,
                state: found.group_state.to_string(),
                protocol_type: CONSUMER.to_string(),
                assignor: found.assignor_name.to_string(),
                members: found.members.into_iter().map(member_of).collect(),
            })
        },
    )
}

fn member_of(member: wire::Member) -> Member {
    let mut assignment = Assignment::new();
    for topic in member.assignment.topic_partitions {
        let partitions = assignment.entry(topic.topic_name.to_string()).or_default();
        partitions.extend(topic.partitions);
    }
    Member {
        id: member.member_id.to_string(),
        instance_id: member.instance_id.map(|id| id.to_string()),
        client_id: member.client_id.to_string(),
        host: member.client_host.to_string(),
        assignment: Some(assignment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_hold_what_they_are_assigned_and_not_what_they_are_to_get() {
        let topic = |name: &'static str, partitions: &[i32]| wire::TopicPartitions {
            topic_name: name.into(),
            partitions: partitions.to_vec(),
            ..wire::TopicPartitions::default()
        };
        let of = |topics| wire::Assignment {
            topic_partitions: topics,
        };
        let member = member_of(wire::Member {
            member_id: "m".into(),
            instance_id: Some("i".into()),
            assignment: of(vec![topic("t", &[2, 0])]),
            target_assignment: of(vec![topic("u", &[1])]),
            ..wire::Member::default()
        });
        let expected = [("t".to_string(), [0, 2].into())].into();
        assert_eq!(member.assignment, Some(expected));
        assert_eq!(
            (&*member.id, member.instance_id.as_deref()),
            ("m", Some("i"))
        );
    }
}
