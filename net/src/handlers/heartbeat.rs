//! Owns Heartbeat: a member says that it is alive.
//! Does not know sessions (the engine's coordinators do).
//! Invariant: the answer is the coordinator's; nothing here takes a member for alive or for dead.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use millrace_engine::api::coord::{GroupError, MemberOf};

impl Outcome for HeartbeatResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
    }
}

pub(crate) async fn handle(shard: &ShardNet, request: HeartbeatRequest) -> HeartbeatResponse {
    answer(match asked(request) {
        Ok(by) => shard.broker.group_heartbeat(by).await,
        Err(error) => Err(error),
    })
}

fn asked(request: HeartbeatRequest) -> Result<MemberOf, GroupError> {
    if request.group_id.is_empty() {
        return Err(GroupError::InvalidGroupId);
    }
    Ok(MemberOf {
        group: request.group_id.to_string(),
        generation: request.generation_id,
        member: request.member_id.to_string(),
        instance: request.group_instance_id.map(|id| id.to_string()),
    })
}

fn answer(result: Result<(), GroupError>) -> HeartbeatResponse {
    HeartbeatResponse {
        error_code: errors::result(result).code(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::Out;

    #[test]
    fn a_member_is_who_it_says_it_is_in_a_group_with_a_name() {
        let request = HeartbeatRequest {
            group_id: "g".into(),
            generation_id: 4,
            member_id: "m".into(),
            group_instance_id: Some("i".into()),
        };
        let by = asked(request.clone()).unwrap();
        assert_eq!((&*by.group, by.generation, &*by.member), ("g", 4, "m"));
        assert_eq!(by.instance.as_deref(), Some("i"));
        let nameless = HeartbeatRequest {
            group_id: "".into(),
            ..request
        };
        assert_eq!(asked(nameless).unwrap_err(), GroupError::InvalidGroupId);
    }

    #[test]
    fn every_version_can_carry_its_answer() {
        for version in 0..=4 {
            for (result, error) in [(Ok(()), 0), (Err(GroupError::FencedInstanceId), 82)] {
                let response = answer(result);
                assert_eq!(response.error_code, error);
                let mut out = Out::default();
                out.respond::<HeartbeatRequest>(1, version, &response)
                    .unwrap();
            }
        }
    }
}
