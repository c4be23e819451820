//! Owns LeaveGroup: members go, or are taken out by somebody else.
//! Does not know what becomes of the group then (the engine's coordinators do).
//! Invariant: each member is answered, in the order of the request.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::leave_group::{
    LeaveGroupRequest, LeaveGroupResponse, MemberIdentity, MemberResponse,
};
use millrace_engine::api::coord::{GroupError, Leaver};

/// First version in which several members may leave.
const BATCH_VERSION_MIN: i16 = 3;

impl Outcome for LeaveGroupResponse {
    fn failed(&self) -> bool {
        self.error_code != 0 || self.members.iter().any(|member| member.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: LeaveGroupRequest,
    version: i16,
) -> LeaveGroupResponse {
    let members = members(&request, version);
    let results = if request.group_id.is_empty() {
        Err(GroupError::InvalidGroupId)
    } else {
        let leaver = |member: &MemberIdentity| Leaver {
            member: member.member_id.to_string(),
            instance: member.group_instance_id.as_ref().map(|id| id.to_string()),
        };
        let leavers = members.iter().map(leaver).collect();
        let group = request.group_id.to_string();
        shard.broker.leave_group(group, leavers).await
    };
    answer(members, results, version)
}

/// Who leaves, in whatever form the version says it.
fn members(request: &LeaveGroupRequest, version: i16) -> Vec<MemberIdentity> {
    if version >= BATCH_VERSION_MIN {
        return request.members.clone();
    }
    vec![MemberIdentity {
        member_id: request.member_id.clone(),
        ..Default::default()
    }]
}

fn answer(
    members: Vec<MemberIdentity>,
    results: Result<Vec<Result<(), GroupError>>, GroupError>,
    version: i16,
) -> LeaveGroupResponse {
    let of_group = |error: GroupError| LeaveGroupResponse {
        error_code: errors::group(error).code(),
        ..Default::default()
    };
    let results = match results {
        Ok(results) => results,
        Err(error) => return of_group(error),
    };
    assert_eq!(results.len(), members.len(), "one result per member");
    if version < BATCH_VERSION_MIN {
        // The only member's error is the group's there.
        let failed = results.into_iter().find_map(Result::err);
        return failed.map_or_else(LeaveGroupResponse::default, of_group);
    }
    let one = |(member, result): (MemberIdentity, Result<(), GroupError>)| MemberResponse {
        member_id: member.member_id,
        group_instance_id: member.group_instance_id,
        error_code: errors::result(result).code(),
    };
    LeaveGroupResponse {
        members: members.into_iter().zip(results).map(one).collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::Out;

    fn encodes(response: &LeaveGroupResponse, version: i16) {
        let mut out = Out::default();
        out.respond::<LeaveGroupRequest>(1, version, response)
            .unwrap();
    }

    #[test]
    fn every_version_can_carry_its_answer() {
        for version in 0..=5 {
            let batch = version >= 3;
            let one = |id: &'static str| MemberIdentity {
                member_id: id.into(),
                group_instance_id: Some("i".into()),
                reason: None,
            };
            let request = LeaveGroupRequest {
                group_id: "g".into(),
                member_id: "a".into(),
                members: vec![one("a"), one("b")],
            };
            let members = members(&request, version);
            assert_eq!(members.len(), if batch { 2 } else { 1 });
            assert_eq!(members[0].group_instance_id.is_some(), batch);
            let mut results = vec![Err(GroupError::UnknownMemberId)];
            results.resize(members.len(), Ok(()));
            let response = answer(members.clone(), Ok(results), version);
            assert!(response.failed());
            assert_eq!(response.error_code, if batch { 0 } else { 25 });
            let codes: Vec<i16> = response.members.iter().map(|m| m.error_code).collect();
            assert_eq!(codes, if batch { vec![25, 0] } else { vec![] });
            encodes(&response, version);
            let left = answer(members.clone(), Ok(vec![Ok(()); members.len()]), version);
            assert!(!left.failed());
            encodes(&left, version);
            let response = answer(members, Err(GroupError::InvalidGroupId), version);
            assert_eq!((response.error_code, response.members.len()), (24, 0));
            encodes(&response, version);
        }
    }
}
