//! Owns JoinGroup: becoming a member of a group's next generation.
//! Does not know how a group comes about (the engine's coordinators do).
//! Invariant: what a coordinator keeps shares no memory with the request's frame, which is gone while it waits.

use super::{Asker, Outcome};
use crate::errors;
use crate::shard::ShardNet;
use crate::wire::join_group::{JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember};
use crate::wire::{ErrorCode, Str};
use bytes::Bytes;
use millrace_engine::api::coord::{GroupError, JoinGroup, Joined, JoinedMember};
use std::net::IpAddr;

/// First version with a rebalance timeout of its own.
const REBALANCE_TIMEOUT_VERSION_MIN: i16 = 1;
/// First version in which a member without an id is given one and joins once more with it.
const KNOWN_MEMBER_VERSION_MIN: i16 = 4;
/// First version in which there may be no protocol.
const NULL_PROTOCOL_VERSION_MIN: i16 = 7;
/// First version that can tell a leader to leave the assignment as it is.
const SKIP_ASSIGNMENT_VERSION_MIN: i16 = 9;

impl Outcome for JoinGroupResponse {
    fn failed(&self) -> bool {
        self.error_code != 0
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: JoinGroupRequest,
    version: i16,
    asker: Asker,
) -> JoinGroupResponse {
    let joined = if request.group_id.is_empty() {
        Joined::refused(&request.member_id, GroupError::InvalidGroupId)
    } else {
        shard
            .broker
            .join_group(asked(request, version, asker))
            .await
    };
    answer(joined, version)
}

fn asked(request: JoinGroupRequest, version: i16, asker: Asker) -> JoinGroup {
    let rebalance_timeout_ms = if version < REBALANCE_TIMEOUT_VERSION_MIN {
        request.session_timeout_ms
    } else {
        request.rebalance_timeout_ms
    };
    let protocols = request.protocols.iter();
    let instance = request.group_instance_id.map(|id| id.to_string());
    JoinGroup {
        group: request.group_id.to_string(),
        member: request.member_id.to_string(),
        require_known_member: version >= KNOWN_MEMBER_VERSION_MIN && instance.is_none(),
        instance,
        client_id: asker.client_id,
        client_host: host(asker.address),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols
            .map(|known| {
                let metadata = Bytes::copy_from_slice(&known.metadata);
                (known.name.to_string(), metadata)
            })
            .collect(),
        supports_skipping_assignment: version >= SKIP_ASSIGNMENT_VERSION_MIN,
    }
}

/// An address as Java writes it, which is how tools show members: `/127.0.0.1`, and nothing of a long one left out.
pub(super) fn host(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("/{address}"),
        IpAddr::V6(address) => {
            let parts = address.segments().map(|part| format!("{part:x}"));
            format!("/{}", parts.join(":"))
        }
    }
}

fn answer(joined: Joined, version: i16) -> JoinGroupResponse {
    let mut protocol_name = joined.protocol.map(Str::from);
    if version < NULL_PROTOCOL_VERSION_MIN {
        protocol_name = Some(protocol_name.unwrap_or_default());
    }
    let member = |member: JoinedMember| JoinGroupResponseMember {
        member_id: member.member.into(),
        group_instance_id: member.instance.map(Str::from),
        metadata: member.metadata,
    };
    JoinGroupResponse {
        error_code: joined.error.map_or(ErrorCode::None, errors::group).code(),
        generation_id: joined.generation,
        protocol_type: joined.protocol_type.map(Str::from),
        protocol_name,
        leader: joined.leader.into(),
        // Asked for from the version on that has it.
        skip_assignment: joined.skip_assignment,
        member_id: joined.member.into(),
        members: joined.members.into_iter().map(member).collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::Out;
    use crate::wire::join_group::JoinGroupRequestProtocol;

    fn asker() -> Asker {
        Asker {
            client_id: "consumer-1".into(),
            address: IpAddr::from([10, 0, 0, 7]),
        }
    }

    fn request(instance: Option<&'static str>) -> JoinGroupRequest {
        JoinGroupRequest {
            group_id: "g".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 300_000,
            member_id: "m".into(),
            group_instance_id: instance.map(Str::from),
            protocol_type: "consumer".into(),
            protocols: vec![
                JoinGroupRequestProtocol {
                    name: "range".into(),
                    metadata: Bytes::from_static(&[1]),
                },
                JoinGroupRequestProtocol {
                    name: "roundrobin".into(),
                    metadata: Bytes::from_static(&[2, 3]),
                },
            ],
            reason: Some("because".into()),
        }
    }

    fn joined() -> Joined {
        let member = |name: &str| JoinedMember {
            member: name.into(),
            instance: Some(format!("i-{name}")),
            metadata: Bytes::from_static(&[1]),
        };
        Joined {
            error: None,
            generation: 3,
            protocol_type: Some("consumer".into()),
            protocol: Some("range".into()),
            leader: "a".into(),
            skip_assignment: false,
            member: "a".into(),
            members: vec![member("a"), member("b")],
        }
    }

    #[test]
    fn each_version_asks_for_what_it_knows() {
        for version in 0..=9 {
            let asked = asked(request(None), version, asker());
            let timeout = if version == 0 { 10_000 } else { 300_000 };
            assert_eq!(asked.rebalance_timeout_ms, timeout, "version {version}");
            assert_eq!(asked.require_known_member, version >= 4);
            assert_eq!(asked.supports_skipping_assignment, version == 9);
            let names: Vec<&str> = asked.protocols.iter().map(|(n, _)| n.as_str()).collect();
            assert_eq!(names, ["range", "roundrobin"]);
            assert_eq!(asked.protocols[1].1, [2, 3][..]);
            assert_eq!(
                (&*asked.client_id, &*asked.client_host),
                ("consumer-1", "/10.0.0.7")
            );
        }
        let of_static = asked(request(Some("i")), 9, asker());
        assert!(!of_static.require_known_member);
        assert_eq!(of_static.instance.as_deref(), Some("i"));
    }

    #[test]
    fn every_version_can_carry_its_answer() {
        let required = Joined::refused("m-1", GroupError::MemberIdRequired);
        for version in 0..=9 {
            for (joined, error) in [(joined(), 0), (required.clone(), 79)] {
                let response = answer(joined.clone(), version);
                assert_eq!(response.error_code, error);
                assert_eq!(response.failed(), error != 0);
                assert_eq!(&*response.member_id, joined.member);
                let name = response.protocol_name.as_deref();
                match (error, version) {
                    (0, _) => assert_eq!(name, Some("range")),
                    (_, ..7) => assert_eq!(name, Some("")),
                    (_, 7..) => assert_eq!(name, None),
                }
                let mut out = Out::default();
                out.respond::<JoinGroupRequest>(1, version, &response)
                    .unwrap();
            }
        }
        let skips = Joined {
            skip_assignment: true,
            ..joined()
        };
        let mut out = Out::default();
        out.respond::<JoinGroupRequest>(1, 9, &answer(skips, 9))
            .unwrap();
    }

    #[test]
    fn addresses_are_written_as_in_java() {
        let shown = |address: &str| host(address.parse().unwrap());
        assert_eq!(shown("127.0.0.1"), "/127.0.0.1");
        assert_eq!(shown("::1"), "/0:0:0:0:0:0:0:1");
        assert_eq!(shown("2001:db8::ff"), "/2001:db8:0:0:0:0:0:ff");
        assert_eq!(shown("::ffff:10.0.0.1"), "/10.0.0.1");
    }
}
