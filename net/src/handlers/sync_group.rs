//! Owns SyncGroup: a member gets its part of what the leader decided.
//! Does not know what the parts mean, nor how a group waits for its leader (the engine's coordinators do).
//! Invariant: what a coordinator keeps shares no memory with the request's frame, which is gone while it waits.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::sync_group::{SyncGroupRequest, SyncGroupResponse};
use crate::wire::Str;
use bytes::Bytes;
use millrace_engine::api::coord::{GroupError, SyncGroup, Synced};

/// First version in which a member says which protocol it takes part in.
const PROTOCOL_VERSION_MIN: i16 = 5;

impl Outcome for SyncGroupResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: SyncGroupRequest,
    version: i16,
) -> SyncGroupResponse {
    answer(match asked(request, version) {
        Ok(asked) => shard.broker.sync_group(asked).await,
        Err(error) => Err(error),
    })
}

fn asked(request: SyncGroupRequest, version: i16) -> Result<SyncGroup, GroupError> {
    let silent = request.protocol_type.is_none() || request.protocol_name.is_none();
    if version >= PROTOCOL_VERSION_MIN && silent {
        return Err(GroupError::InconsistentGroupProtocol);
    }
    if request.group_id.is_empty() {
        return Err(GroupError::InvalidGroupId);
    }
    let text = |text: Option<Str>| text.map(|text| text.to_string());
    let parts = request.assignments.iter();
    Ok(SyncGroup {
        group: request.group_id.to_string(),
        generation: request.generation_id,
        member: request.member_id.to_string(),
        instance: text(request.group_instance_id),
        protocol_type: text(request.protocol_type),
        protocol: text(request.protocol_name),
        assignments: parts
            .map(|part| {
                let assignment = Bytes::copy_from_slice(&part.assignment);
                (part.member_id.to_string(), assignment)
            })
            .collect(),
    })
}

fn answer(synced: Result<Synced, GroupError>) -> SyncGroupResponse {
    match synced {
        Ok(synced) => SyncGroupResponse {
            protocol_type: synced.protocol_type.map(Str::from),
            protocol_name: synced.protocol.map(Str::from),
            assignment: synced.assignment,
            ..Default::default()
        },
        Err(error) => SyncGroupResponse {
            error_code: errors::group(error).code(),
            ..Default::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::Out;
    use crate::wire::sync_group::SyncGroupRequestAssignment;

    fn request() -> SyncGroupRequest {
        SyncGroupRequest {
            group_id: "g".into(),
            generation_id: 4,
            member_id: "m".into(),
            group_instance_id: Some("i".into()),
            assignments: vec![SyncGroupRequestAssignment {
                member_id: "m".into(),
                assignment: Bytes::from_static(&[7]),
            }],
            ..Default::default()
        }
    }

    #[test]
    fn the_protocol_is_named_from_version_5_on() {
        for version in 0..=4 {
            let asked = asked(request(), version).unwrap();
            assert_eq!((asked.protocol_type, asked.protocol), (None, None));
            assert_eq!(asked.assignments, [("m".into(), Bytes::from_static(&[7]))]);
        }
        let refused = |request| asked(request, 5).unwrap_err();
        assert_eq!(refused(request()), GroupError::InconsistentGroupProtocol);
        let half = SyncGroupRequest {
            protocol_name: Some("range".into()),
            ..request()
        };
        assert_eq!(refused(half.clone()), GroupError::InconsistentGroupProtocol);
        let whole = SyncGroupRequest {
            protocol_type: Some("consumer".into()),
            ..half
        };
        let asked = asked(whole.clone(), 5).unwrap();
        assert_eq!(asked.protocol_type.as_deref(), Some("consumer"));
        assert_eq!(asked.protocol.as_deref(), Some("range"));
        assert_eq!((asked.generation, asked.instance), (4, Some("i".into())));
        let nameless = SyncGroupRequest {
            group_id: Str::default(),
            ..whole
        };
        assert_eq!(refused(nameless), GroupError::InvalidGroupId);
    }

    #[test]
    fn every_version_can_carry_its_answer() {
        let synced = Synced {
            protocol_type: Some("consumer".into()),
            protocol: Some("range".into()),
            assignment: Bytes::from_static(&[7]),
        };
        for version in 0..=5 {
            for (synced, error) in [
                (Ok(synced.clone()), 0),
                (Err(GroupError::RebalanceInProgress), 27),
            ] {
                let response = answer(synced);
                assert_eq!(response.error_code, error);
                assert_eq!(response.assignment.is_empty(), error != 0);
                let mut out = Out::default();
                out.respond::<SyncGroupRequest>(1, version, &response)
                    .unwrap();
            }
        }
    }
}
