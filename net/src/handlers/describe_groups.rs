//! Owns DescribeGroups: groups with their members.
//! Does not know what members say of themselves.
//! Invariant: every group asked for is answered, in the order of the request.

use super::{allowed, Outcome};
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};
use crate::wire::Str;
use millrace_engine::api::coord::{self, GroupError, GroupState};

/// First version in which a group that nobody knows is an error; before, it is one that is dead.
const NOT_FOUND_VERSION_MIN: i16 = 6;

impl Outcome for DescribeGroupsResponse {
    fn failed(&self) -> bool {
        self.groups.iter().any(|group| group.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: DescribeGroupsRequest,
    version: i16,
) -> DescribeGroupsResponse {
    let operations = allowed::if_asked(request.include_authorized_operations, allowed::WITH_GROUP);
    let one = |group: Str| async move {
        let described = shard.broker.describe_group(group.to_string()).await;
        let mut known = answer(group, described, version);
        if known.error_code == 0 {
            known.authorized_operations = operations;
        }
        known
    };
    DescribeGroupsResponse {
        groups: super::for_each(super::each_once(request.groups, Str::clone), one).await,
        ..Default::default()
    }
}

fn answer(
    group: Str,
    described: Result<coord::DescribedGroup, GroupError>,
    version: i16,
) -> DescribedGroup {
    let dead = || DescribedGroup {
        group_state: Str::from_static(GroupState::Dead.name()),
        ..Default::default()
    };
    let member = |member: coord::DescribedMember| DescribedGroupMember {
        member_id: member.member.into(),
        group_instance_id: member.instance.map(Str::from),
        client_id: member.client_id.into(),
        client_host: member.client_host.into(),
        member_metadata: member.metadata,
        member_assignment: member.assignment,
    };
    let described = match described {
        Ok(known) => DescribedGroup {
            group_state: Str::from_static(known.state.name()),
            protocol_type: known.protocol_type.into(),
            protocol_data: known.protocol.into(),
            members: known.members.into_iter().map(member).collect(),
            ..Default::default()
        },
        Err(GroupError::GroupIdNotFound) if version < NOT_FOUND_VERSION_MIN => dead(),
        Err(error @ GroupError::GroupIdNotFound) => DescribedGroup {
            error_code: errors::group(error).code(),
            error_message: Some(format!("Group {group} not found.").into()),
            ..dead()
        },
        Err(error) => DescribedGroup {
            error_code: errors::group(error).code(),
            error_message: Some(error.to_string().into()),
            ..Default::default()
        },
    };
    DescribedGroup {
        group_id: group,
        ..described
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::Out;
    use bytes::Bytes;

    fn known() -> coord::DescribedGroup {
        coord::DescribedGroup {
            state: GroupState::Stable,
            protocol_type: "consumer".into(),
            protocol: "range".into(),
            members: vec![coord::DescribedMember {
                member: "m".into(),
                instance: Some("i".into()),
                client_id: "c".into(),
                client_host: "/10.0.0.1".into(),
                metadata: Bytes::from_static(&[1]),
                assignment: Bytes::from_static(&[2]),
            }],
        }
    }

    #[test]
    fn a_group_that_nobody_knows_is_dead_and_later_not_found() {
        let unknown = |version| answer("g".into(), Err(GroupError::GroupIdNotFound), version);
        for version in 0..=5 {
            let group = unknown(version);
            assert_eq!((group.error_code, &*group.group_state), (0, "Dead"));
        }
        let group = unknown(6);
        assert_eq!((group.error_code, &*group.group_state), (69, "Dead"));
        assert!(group.error_message.is_some_and(|text| text.contains('g')));
        let group = answer("g".into(), Err(GroupError::NotAvailable), 0);
        assert_eq!((group.error_code, &*group.group_state), (15, ""));
    }

    #[test]
    fn every_version_can_carry_its_answer() {
        for version in 0..=6 {
            let of = |described| answer("g".into(), described, version);
            let groups = vec![
                of(Ok(known())),
                of(Err(GroupError::GroupIdNotFound)),
                of(Err(GroupError::NotAvailable)),
            ];
            assert!(groups.iter().all(|group| group.group_id == "g"));
            assert_eq!(&*groups[0].members[0].client_host, "/10.0.0.1");
            assert_eq!(groups[0].authorized_operations, i32::MIN);
            let response = DescribeGroupsResponse {
                groups,
                ..Default::default()
            };
            assert!(response.failed());
            let mut out = Out::default();
            out.respond::<DescribeGroupsRequest>(1, version, &response)
                .unwrap();
        }
    }
}
