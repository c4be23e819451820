//! Owns the tests of calls about groups, against brokers that are scripted.
//! Does not know how a command shows what it gets.
//! Invariant: what a script refuses is refused as often as it says, whoever asks.

use super::assignment::tests::encode;
use super::groups::{self, Listed, Member, Offsets, Place, Seen};
use super::tests::{broker_speaking, Asked};
use super::{ClientError, Cluster};
use crate::units::HostPort;
use bytes::Bytes;
use millrace_net::wire::api_versions::ApiVersion;
use millrace_net::wire::delete_groups::{
    DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse,
};
use millrace_net::wire::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};
use millrace_net::wire::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};
use millrace_net::wire::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};
use millrace_net::wire::metadata::{MetadataRequest, MetadataResponse, MetadataResponseBroker};
use millrace_net::wire::offset_commit::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
};
use millrace_net::wire::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
};
use millrace_net::wire::offset_fetch::{
    OffsetFetchRequest, OffsetFetchResponse, OffsetFetchResponseGroup,
    OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};
use millrace_net::wire::{versions, ApiKey, ErrorCode, Str};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// What two scripted brokers share.
#[derive(Default)]
struct Shared {
    nodes: Vec<HostPort>,
    /// Who coordinates group `g`.
    coordinator: i32,
    /// Codes to answer the next requests about `g` with; the coordinator moves to the other broker meanwhile.
    refuse: Vec<ErrorCode>,
    /// Broker and API of each request, FindCoordinator apart.
    asked: Vec<(i32, ApiKey)>,
    /// What the brokers say of single partitions that are committed or deleted; others are fine.
    codes: BTreeMap<Place, ErrorCode>,
    /// Left out of the answers to commits.
    forgotten: Option<Place>,
    committed: Offsets,
    state: &'static str,
    /// A group in the lists of both.
    listed: &'static str,
}

/// Two brokers that speak no version above `max` of what is about groups.
fn two_brokers(max: i16, shared: Shared) -> (Arc<Mutex<Shared>>, Cluster) {
    let shared = Arc::new(Mutex::new(shared));
    let mut speaks = versions::advertised();
    let about_groups = |key: i16| (8..=16).contains(&key) || key == ApiKey::DeleteGroups.code();
    let limit = |row: &mut ApiVersion| row.max_version = row.max_version.min(max);
    speaks
        .iter_mut()
        .filter(|row| about_groups(row.api_key))
        .for_each(limit);
    let nodes: Vec<HostPort> = (0..2)
        .map(|node| {
            let shared = Arc::clone(&shared);
            broker_speaking(speaks.clone(), move |asked| {
                answer(node, &mut shared.lock().unwrap(), asked)
            })
        })
        .collect();
    let cluster = Cluster::new(&nodes[..1]);
    shared.lock().unwrap().nodes = nodes;
    (shared, cluster)
}

fn answer(node: i32, shared: &mut Shared, mut asked: Asked) -> Option<Bytes> {
    let key = asked.header.key;
    if key == ApiKey::FindCoordinator {
        return coordinator(shared, asked);
    }
    shared.asked.push((node, key));
    let mut code = ErrorCode::None;
    if key != ApiKey::Metadata && key != ApiKey::ListGroups {
        if node != shared.coordinator {
            code = ErrorCode::NotCoordinator;
        } else if let Some(refusal) = shared.refuse.pop() {
            shared.coordinator = 1 - shared.coordinator;
            code = refusal;
        }
        // Stands for a connection that breaks before the answer.
        if code == ErrorCode::NetworkException {
            return None;
        }
    }
    match key {
        ApiKey::Metadata => asked.answer::<MetadataRequest>(&metadata(shared)),
        ApiKey::ListGroups => {
            let listed = |name: &str| ListedGroup {
                group_id: Str::from(name.to_string()),
                protocol_type: Str::from_static("consumer"),
                group_state: Str::from_static("Stable"),
                group_type: Str::from_static("classic"),
            };
            let refusal = shared.codes.get(&("list".to_string(), node));
            asked.answer::<ListGroupsRequest>(&ListGroupsResponse {
                error_code: refusal.map_or(0, |code| code.code()),
                groups: vec![listed(shared.listed), listed(&format!("only-{node}"))],
                ..ListGroupsResponse::default()
            })
        }
        ApiKey::DescribeGroups => {
            let request: DescribeGroupsRequest = asked.read();
            asked.answer::<DescribeGroupsRequest>(&DescribeGroupsResponse {
                groups: vec![described(&request.groups[0], shared.state, code)],
                ..DescribeGroupsResponse::default()
            })
        }
        ApiKey::OffsetFetch => {
            let request: OffsetFetchRequest = asked.read();
            let all_topics = match request.groups.first() {
                None => request.group_id == "g" && request.topics.is_none(),
                Some(group) => group.group_id == "g" && group.topics.is_none(),
            };
            assert!(all_topics, "{request:?}");
            asked.answer::<OffsetFetchRequest>(&fetched(asked.header.version, code))
        }
        ApiKey::OffsetCommit => {
            let request: OffsetCommitRequest = asked.read();
            assert_eq!(request.generation_id_or_member_epoch, -1);
            assert!(request.member_id.is_empty() && asked.header.version < 10);
            let mut topics = Vec::new();
            for topic in request.topics {
                let mut partitions = Vec::new();
                for p in topic.partitions {
                    let place = (topic.name.to_string(), p.partition_index);
                    if shared.forgotten.as_ref() == Some(&place) {
                        continue;
                    }
                    let own = shared.codes.get(&place).copied();
                    let own = own.unwrap_or(ErrorCode::None);
                    let said = if code.is_error() { code } else { own };
                    if !said.is_error() {
                        shared.committed.insert(place, p.committed_offset);
                    }
                    partitions.push(OffsetCommitResponsePartition {
                        partition_index: p.partition_index,
                        error_code: said.code(),
                    });
                }
                topics.push(OffsetCommitResponseTopic {
                    name: topic.name,
                    partitions,
                    ..OffsetCommitResponseTopic::default()
                });
            }
            asked.answer::<OffsetCommitRequest>(&OffsetCommitResponse {
                topics,
                ..OffsetCommitResponse::default()
            })
        }
        ApiKey::OffsetDelete => {
            let request: OffsetDeleteRequest = asked.read();
            let partition = |topic: &Str, index: i32| OffsetDeleteResponsePartition {
                partition_index: index,
                error_code: shared
                    .codes
                    .get(&(topic.to_string(), index))
                    .map_or(0, |code| code.code()),
            };
            let topics = request
                .topics
                .iter()
                .map(|topic| OffsetDeleteResponseTopic {
                    name: topic.name.clone(),
                    partitions: topic
                        .partitions
                        .iter()
                        .map(|p| partition(&topic.name, p.partition_index))
                        .collect(),
                });
            let topics = topics.filter(|_| !code.is_error()).collect();
            asked.answer::<OffsetDeleteRequest>(&OffsetDeleteResponse {
                error_code: code.code(),
                topics,
                ..OffsetDeleteResponse::default()
            })
        }
        ApiKey::DeleteGroups => {
            let request: DeleteGroupsRequest = asked.read();
            asked.answer::<DeleteGroupsRequest>(&DeleteGroupsResponse {
                results: vec![DeletableGroupResult {
                    group_id: request.groups_names[0].clone(),
                    error_code: code.code(),
                    error_message: None,
                }],
                ..DeleteGroupsResponse::default()
            })
        }
        other => panic!("{other:?} was not expected"),
    }
}

fn metadata(shared: &Shared) -> MetadataResponse {
    let broker = |(id, at): (usize, &HostPort)| MetadataResponseBroker {
        node_id: id as i32,
        host: Str::from(at.host.clone()),
        port: at.port.into(),
        rack: None,
    };
    MetadataResponse {
        brokers: shared.nodes.iter().enumerate().map(broker).collect(),
        ..MetadataResponse::default()
    }
}

fn coordinator(shared: &Shared, mut asked: Asked) -> Option<Bytes> {
    let request: FindCoordinatorRequest = asked.read();
    assert_eq!(request.key_type, 0);
    let node_id = shared.coordinator;
    let at = &shared.nodes[node_id as usize];
    let (host, port) = (Str::from(at.host.clone()), at.port.into());
    let answer = if asked.header.version < 4 {
        assert_eq!(request.key, "g");
        FindCoordinatorResponse {
            node_id,
            host,
            port,
            ..FindCoordinatorResponse::default()
        }
    } else {
        assert_eq!(request.coordinator_keys, ["g"]);
        FindCoordinatorResponse {
            coordinators: vec![Coordinator {
                key: Str::from_static("g"),
                node_id,
                host,
                port,
                ..Coordinator::default()
            }],
            ..FindCoordinatorResponse::default()
        }
    };
    asked.answer::<FindCoordinatorRequest>(&answer)
}

fn described(group: &Str, state: &'static str, code: ErrorCode) -> DescribedGroup {
    let member = |id: &'static str, member_assignment| DescribedGroupMember {
        member_id: Str::from_static(id),
        client_id: Str::from_static("app"),
        client_host: Str::from_static("/10.0.0.1"),
        member_assignment,
        ..DescribedGroupMember::default()
    };
    DescribedGroup {
        error_code: code.code(),
        group_id: group.clone(),
        group_state: Str::from_static(state),
        protocol_type: Str::from_static("consumer"),
        protocol_data: Str::from_static("range"),
        members: vec![
            member("m-1", encode(1, &[("t", &[0, 2])], None)),
            member("m-2", Bytes::from_static(&[0, 1, 0, 0, 0])),
        ],
        ..DescribedGroup::default()
    }
}

/// Offset 7 of `t` 0, none of `t` 1, in the shape of the version.
fn fetched(version: i16, code: ErrorCode) -> OffsetFetchResponse {
    let partition = |partition_index, committed_offset| OffsetFetchResponsePartition {
        partition_index,
        committed_offset,
        ..OffsetFetchResponsePartition::default()
    };
    let topics = vec![OffsetFetchResponseTopic {
        name: Str::from_static("t"),
        partitions: vec![partition(0, 7), partition(1, -1)],
        ..OffsetFetchResponseTopic::default()
    }];
    assert!(version < 10, "version 10 does not name topics");
    if version < 8 {
        return OffsetFetchResponse {
            topics,
            error_code: code.code(),
            ..OffsetFetchResponse::default()
        };
    }
    OffsetFetchResponse {
        groups: vec![OffsetFetchResponseGroup {
            group_id: Str::from_static("g"),
            topics,
            error_code: code.code(),
        }],
        ..OffsetFetchResponse::default()
    }
}

fn place(topic: &str, partition: i32) -> Place {
    (topic.to_string(), partition)
}

fn refusing(codes: &[ErrorCode]) -> Shared {
    Shared {
        refuse: codes.to_vec(),
        state: "Stable",
        ..Shared::default()
    }
}

const MOVING: [ErrorCode; 3] = [
    ErrorCode::NotCoordinator,
    ErrorCode::CoordinatorNotAvailable,
    ErrorCode::CoordinatorLoadInProgress,
];

/// The newest versions, those before requests had many keys, and the oldest that Kafka 2.1 has.
const VERSIONS_MAX: [i16; 3] = [i16::MAX, 7, 3];

#[test]
fn a_group_is_described_by_its_coordinator_wherever_it_moves() {
    for max in VERSIONS_MAX {
        let (shared, mut cluster) = two_brokers(max, refusing(&MOVING));
        let found = groups::describe(&mut cluster, "g").unwrap();
        let shared = shared.lock().unwrap();
        assert_eq!(found.coordinator.node, 1, "it moved three times");
        assert_eq!(found.coordinator.at, shared.nodes[1]);
        let by: Vec<i32> = shared.asked.iter().map(|(node, _)| *node).collect();
        assert_eq!(by, [0, 1, 0, 1]);
        assert_eq!((&*found.state, &*found.assignor), ("Stable", "range"));
        let member = |id: &str, assignment| Member {
            id: id.to_string(),
            client_id: "app".to_string(),
            host: "/10.0.0.1".to_string(),
            instance_id: None,
            assignment,
        };
        let readable = BTreeMap::from([("t".to_string(), BTreeSet::from([0, 2]))]);
        let expected = [member("m-1", Some(readable)), member("m-2", None)];
        assert_eq!(found.members, expected);
    }
}

#[test]
fn a_dead_group_is_one_that_is_not_there() {
    let shared = Shared {
        state: "Dead",
        ..Shared::default()
    };
    let (shared, mut cluster) = two_brokers(i16::MAX, shared);
    let error = groups::describe(&mut cluster, "g").unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::GroupIdNotFound));
    assert_eq!(shared.lock().unwrap().asked.len(), 1, "no retry mends it");
}

#[test]
fn a_group_that_is_only_listed_is_there() {
    let (shared, mut cluster) = two_brokers(i16::MAX, refusing(&[ErrorCode::GroupIdNotFound]));
    shared.lock().unwrap().listed = "g";
    match groups::look(&mut cluster, "g").unwrap() {
        Seen::Listed(found) => assert_eq!(found.name, "g"),
        other => panic!("{other:?}"),
    }
    // The script refuses no more.
    let seen = groups::look(&mut cluster, "g").unwrap();
    assert!(matches!(seen, Seen::Described(_)), "{seen:?}");
    {
        let mut shared = shared.lock().unwrap();
        shared.listed = "other";
        shared.refuse = vec![ErrorCode::GroupIdNotFound];
    }
    let seen = groups::look(&mut cluster, "g").unwrap();
    assert!(matches!(seen, Seen::Absent(_)), "{seen:?}");
    // It might be in the list that is not told.
    let code = ErrorCode::ClusterAuthorizationFailed;
    {
        let mut shared = shared.lock().unwrap();
        shared.codes.insert(place("list", 1), code);
        shared.refuse = vec![ErrorCode::GroupIdNotFound];
    }
    let error = groups::look(&mut cluster, "g").unwrap_err();
    assert_eq!(error.code(), Some(code));
}

#[test]
fn all_brokers_are_asked_for_their_groups() {
    let listing = Shared {
        listed: "both",
        ..Shared::default()
    };
    let (shared, mut cluster) = two_brokers(i16::MAX, listing);
    let names = |groups: Vec<Listed>| groups.into_iter().map(|g| g.name).collect::<Vec<_>>();
    let (groups, errors) = groups::list(&mut cluster).unwrap();
    assert!(errors.is_empty());
    assert_eq!((&*groups[0].state, &*groups[0].kind), ("Stable", "classic"));
    assert_eq!(names(groups), ["both", "only-0", "only-1"]);
    let code = ErrorCode::ClusterAuthorizationFailed;
    shared.lock().unwrap().codes.insert(place("list", 0), code);
    let (groups, errors) = groups::list(&mut cluster).unwrap();
    assert_eq!(names(groups), ["both", "only-1"]);
    let codes: Vec<_> = errors.iter().map(ClientError::code).collect();
    assert_eq!(codes, [Some(code)]);
    assert!(errors[0].to_string().contains("broker 0"), "{}", errors[0]);
}

#[test]
fn committed_offsets_are_read_in_every_version() {
    for max in VERSIONS_MAX {
        let (_, mut cluster) = two_brokers(max, refusing(&MOVING));
        let offsets = groups::committed(&mut cluster, "g").unwrap();
        assert_eq!(offsets, Offsets::from([(place("t", 0), 7)]));
        let refusal = ErrorCode::GroupAuthorizationFailed;
        let (_, mut cluster) = two_brokers(max, refusing(&[refusal]));
        let error = groups::committed(&mut cluster, "g").unwrap_err();
        assert_eq!(error.code(), Some(refusal));
        let (_, mut cluster) = two_brokers(max, refusing(&[ErrorCode::GroupIdNotFound]));
        let offsets = groups::committed(&mut cluster, "g").unwrap();
        assert_eq!(offsets, Offsets::new(), "a group that is not there");
    }
}

#[test]
fn offsets_are_committed_once_the_coordinator_is_found() {
    let wanted = Offsets::from([(place("t", 0), 5), (place("t", 1), 0), (place("u", 0), 9)]);
    for max in VERSIONS_MAX {
        let mut refusals = MOVING.to_vec();
        refusals.push(ErrorCode::NetworkException);
        let (shared, mut cluster) = two_brokers(max, refusing(&refusals));
        let errors = groups::commit(&mut cluster, "g", &wanted).unwrap();
        assert!(errors.is_empty());
        assert_eq!(shared.lock().unwrap().committed, wanted);
    }
}

#[test]
fn what_is_refused_is_told_for_each_partition_or_once_for_all() {
    let wanted = Offsets::from([(place("t", 0), 5), (place("t", 1), 6), (place("u", 0), 7)]);
    let (shared, mut cluster) = two_brokers(i16::MAX, Shared::default());
    {
        let mut shared = shared.lock().unwrap();
        let code = ErrorCode::TopicAuthorizationFailed;
        shared.codes.insert(place("t", 1), code);
        shared.forgotten = Some(place("u", 0));
    }
    let errors = groups::commit(&mut cluster, "g", &wanted).unwrap();
    let texts: Vec<String> = errors.iter().map(ClientError::to_string).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].contains("partition 1 of t") && texts[0].contains("TOPIC_AUTHORIZATION"));
    assert!(texts[1].contains("partition 0 of u") && texts[1].contains("leaves it out"));
    let (shared, mut cluster) = two_brokers(i16::MAX, refusing(&[ErrorCode::UnknownMemberId]));
    let error = groups::commit(&mut cluster, "g", &wanted).unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownMemberId));
    assert!(error.to_string().contains("3 partitions"), "{error}");
    assert!(shared.lock().unwrap().committed.is_empty());
}

#[test]
fn offsets_are_deleted_for_each_partition() {
    let places = BTreeSet::from([place("t", 0), place("t", 1), place("u", 0)]);
    let (shared, mut cluster) = two_brokers(i16::MAX, refusing(&MOVING));
    let code = ErrorCode::GroupSubscribedToTopic;
    shared.lock().unwrap().codes.insert(place("u", 0), code);
    let errors = groups::delete_offsets(&mut cluster, "g", &places).unwrap();
    let codes: Vec<_> = errors.iter().map(ClientError::code).collect();
    assert_eq!(codes, [Some(code)]);
    shared.lock().unwrap().refuse = vec![ErrorCode::NonEmptyGroup];
    let error = groups::delete_offsets(&mut cluster, "g", &places).unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NonEmptyGroup));
}

#[test]
fn a_group_is_not_deleted_twice() {
    for max in VERSIONS_MAX {
        let (shared, mut cluster) = two_brokers(max, refusing(&MOVING));
        groups::delete(&mut cluster, "g").unwrap();
        shared.lock().unwrap().refuse = vec![ErrorCode::NonEmptyGroup];
        let error = groups::delete(&mut cluster, "g").unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::NonEmptyGroup));
        let asked = shared.lock().unwrap().asked.len();
        shared.lock().unwrap().refuse = vec![ErrorCode::NetworkException];
        let error = groups::delete(&mut cluster, "g").unwrap_err();
        assert!(matches!(error, ClientError::Io { .. }), "{error}");
        assert_eq!(shared.lock().unwrap().asked.len(), asked + 1);
    }
}
