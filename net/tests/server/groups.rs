//! Owns the tests of groups as clients see them, from the search for a coordinator to the end of the group.
//! Does not know how a coordinator works; the engine has its own tests.
//! Invariant: a test says in which version each request goes.

use crate::support::{ask, batch, millis, named, produce, simulate, with_broker, Client, Server};
use bytes::Bytes;
use millrace_engine::rt::{self, Class};
use millrace_net::wire::delete_groups::DeleteGroupsRequest;
use millrace_net::wire::describe_groups::DescribeGroupsRequest;
use millrace_net::wire::find_coordinator::FindCoordinatorRequest;
use millrace_net::wire::heartbeat::HeartbeatRequest;
use millrace_net::wire::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use millrace_net::wire::leave_group::{LeaveGroupRequest, MemberIdentity};
use millrace_net::wire::list_groups::ListGroupsRequest;
use millrace_net::wire::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
    OffsetCommitResponse,
};
use millrace_net::wire::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use millrace_net::wire::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchResponseTopic,
};
use millrace_net::wire::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use millrace_net::wire::Str;
use millrace_net::NetConfig;
use uuid::Uuid;

const TOPIC: &str = "__consumer_offsets";

fn key(group: &'static str) -> FindCoordinatorRequest {
    FindCoordinatorRequest {
        key: group.into(),
        ..Default::default()
    }
}

fn joining(group: &'static str, member: &Str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        member_id: member.clone(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: Bytes::from_static(b"topics"),
        }],
        ..Default::default()
    }
}

/// Joins as clients do from version 4 on: an id first, then the group.
async fn join(client: &mut Client, group: &'static str) -> JoinGroupResponse {
    let refused = client.call(&joining(group, &Str::default()), 9).await;
    assert_eq!(refused.error_code, 79, "the id comes first");
    let joined = client.call(&joining(group, &refused.member_id), 9).await;
    assert_eq!(joined.error_code, 0);
    assert_eq!(joined.member_id, refused.member_id);
    joined
}

/// A member alone takes part with all that there is.
async fn sync_alone(client: &mut Client, group: &'static str, joined: &JoinGroupResponse) {
    let request = SyncGroupRequest {
        group_id: group.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: joined.member_id.clone(),
            assignment: Bytes::from_static(b"all"),
        }],
        ..Default::default()
    };
    let synced = client.call(&request, 5).await;
    assert_eq!((synced.error_code, &*synced.assignment), (0, &b"all"[..]));
}

/// Commits offset 10 of partition 0 of a topic and 11 of its partition 1.
fn commit(group: &'static str, topic: &'static str, id: Uuid) -> OffsetCommitRequest {
    let partition = |index: i32| OffsetCommitRequestPartition {
        partition_index: index,
        committed_offset: 10 + i64::from(index),
        ..Default::default()
    };
    OffsetCommitRequest {
        group_id: group.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: topic.into(),
            topic_id: id,
            partitions: vec![partition(0), partition(1)],
        }],
        ..Default::default()
    }
}

fn commit_codes(response: &OffsetCommitResponse) -> Vec<i16> {
    let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|partition| partition.error_code).collect()
}

fn offsets(topics: &[OffsetFetchResponseTopic]) -> Vec<(i32, i64, i16)> {
    let partitions = topics.iter().flat_map(|topic| &topic.partitions);
    partitions
        .map(|p| (p.partition_index, p.committed_offset, p.error_code))
        .collect()
}

#[test]
fn who_looks_for_a_coordinator_makes_the_topic_and_finds_the_leader_of_its_partition() {
    with_broker(|mut client| async move {
        // Two at once: one of them makes the topic.
        let mut other = Client::connect().await;
        let racing = rt::spawn_joined(Class::Network, async move {
            other.call(&key("other"), 3).await.error_code
        });
        let found = client.call(&key("g"), 0).await;
        assert_eq!((found.error_code, racing.await), (0, 0));
        let topics = ask(Some(vec![named(TOPIC)]), false);
        let metadata = client.call(&topics, 12).await;
        let topic = &metadata.topics[0];
        assert_eq!((topic.error_code, topic.is_internal), (0, true));
        assert_eq!(topic.partitions.len(), 50);
        let broker = &metadata.brokers[0];
        for version in 0..=3 {
            let found = client.call(&key("g"), version).await;
            let node = (found.node_id, found.host, found.port);
            assert_eq!(node, (broker.node_id, broker.host.clone(), broker.port));
        }
        for version in 4..=6 {
            let request = FindCoordinatorRequest {
                coordinator_keys: vec!["g".into(), "".into(), "ž".into()],
                ..Default::default()
            };
            let found = client.call(&request, version).await.coordinators;
            let nodes: Vec<_> = found.iter().map(|c| (c.error_code, c.node_id)).collect();
            assert_eq!(nodes, [(0, broker.node_id); 3]);
        }
        let written = client
            .call(&produce(TOPIC, 0, -1, Some(batch(&[b"x"]))), 8)
            .await;
        let written = &written.responses[0].partition_responses[0];
        assert_eq!((written.error_code, written.base_offset), (17, -1));
    });
}

#[test]
fn a_group_lives_from_its_first_member_to_its_deletion() {
    with_broker(|mut client| async move {
        client.create_topic("t", 2).await;
        client.call(&key("g"), 0).await;
        let joined = join(&mut client, "g").await;
        assert_eq!(
            (&joined.leader, joined.members.len()),
            (&joined.member_id, 1)
        );
        assert_eq!(joined.protocol_name.as_deref(), Some("range"));
        sync_alone(&mut client, "g", &joined).await;
        let beat = HeartbeatRequest {
            group_id: "g".into(),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            ..Default::default()
        };
        assert_eq!(client.call(&beat, 4).await.error_code, 0);
        let stale = HeartbeatRequest {
            generation_id: joined.generation_id + 1,
            ..beat
        };
        assert_eq!(client.call(&stale, 0).await.error_code, 22);

        let committing = OffsetCommitRequest {
            generation_id_or_member_epoch: joined.generation_id,
            member_id: joined.member_id.clone(),
            ..commit("g", "t", Uuid::nil())
        };
        let committed = client.call(&committing, 7).await;
        assert_eq!(commit_codes(&committed), [0, 0]);

        let describing = DescribeGroupsRequest {
            groups: vec!["g".into(), "unknown".into()],
            include_authorized_operations: true,
        };
        let described = client.call(&describing, 5).await.groups;
        // What Apache Kafka answers without an authorizer.
        assert_eq!(described[0].authorized_operations, 3400);
        let (group, member) = (&described[0], &described[0].members[0]);
        assert_eq!(
            (&*group.group_state, &*group.protocol_data),
            ("Stable", "range")
        );
        assert_eq!(
            (&*member.client_id, &*member.client_host),
            ("test", "/10.0.0.0")
        );
        assert_eq!(&*member.member_assignment, b"all");
        assert_eq!(
            (&*described[1].group_state, described[1].error_code),
            ("Dead", 0)
        );
        let listing = ListGroupsRequest {
            states_filter: vec!["stable".into()],
            types_filter: vec!["classic".into()],
        };
        let listed = client.call(&listing, 5).await.groups;
        let shown = (
            &*listed[0].group_id,
            &*listed[0].group_state,
            &*listed[0].group_type,
        );
        assert_eq!((listed.len(), shown), (1, ("g", "Stable", "classic")));

        let deleting = DeleteGroupsRequest {
            groups_names: vec!["g".into()],
        };
        let results = client.call(&deleting, 3).await.results;
        assert_eq!((results.len(), results[0].error_code), (1, 68));
        let leaving = LeaveGroupRequest {
            group_id: "g".into(),
            members: ["nobody".into(), joined.member_id]
                .map(|member_id| MemberIdentity {
                    member_id,
                    ..Default::default()
                })
                .to_vec(),
            ..Default::default()
        };
        let left = client.call(&leaving, 5).await;
        let codes: Vec<i16> = left.members.iter().map(|m| m.error_code).collect();
        assert_eq!((left.error_code, codes), (0, vec![25, 0]));
        let results = client.call(&deleting, 0).await.results;
        assert_eq!(results[0].error_code, 0);
        let described = client.call(&describing, 6).await.groups;
        assert!(described.iter().all(|group| group.error_code == 69));
    });
}

#[test]
fn offsets_are_kept_by_name_and_by_id_in_every_version() {
    with_broker(|mut client| async move {
        client.create_topic("t", 2).await;
        client.call(&key("g"), 0).await;
        let metadata = client.call(&ask(Some(vec![named("t")]), false), 12).await;
        let id = metadata.topics[0].topic_id;
        for version in 2..=10 {
            let mut request = commit("g", "t", id);
            request
                .topics
                .extend(commit("g", "gone", Uuid::from_u128(9)).topics);
            let committed = client.call(&request, version).await;
            let unknown = if version < 10 { 3 } else { 100 };
            assert_eq!(commit_codes(&committed), [0, 0, unknown, unknown]);
            assert_eq!(
                committed.topics[0].topic_id,
                if version < 10 { Uuid::nil() } else { id }
            );
        }
        let asked = |name: &'static str, id| OffsetFetchRequestTopic {
            name: name.into(),
            topic_id: id,
            partition_indexes: vec![1, 0, 7],
        };
        let found = [(1, 11, 0), (0, 10, 0), (7, -1, 0)];
        for version in 1..=7 {
            let mut request = OffsetFetchRequest {
                group_id: "g".into(),
                topics: Some(vec![asked("t", id)]),
                ..Default::default()
            };
            let fetched = client.call(&request, version).await;
            assert_eq!(
                (fetched.error_code, offsets(&fetched.topics)),
                (0, found.to_vec())
            );
            if version > 1 {
                request.topics = None;
                let all = client.call(&request, version).await;
                assert_eq!(offsets(&all.topics), [(0, 10, 0), (1, 11, 0)]);
            }
        }
        for version in 8..=10 {
            let group = |name: &'static str, topics| OffsetFetchRequestGroup {
                group_id: name.into(),
                topics,
                ..Default::default()
            };
            let request = OffsetFetchRequest {
                groups: vec![
                    group("g", Some(vec![asked("t", id)])),
                    group("g", None),
                    group("nobody", None),
                ],
                ..Default::default()
            };
            let groups = client.call(&request, version).await.groups;
            assert_eq!(offsets(&groups[0].topics), found);
            assert_eq!(offsets(&groups[1].topics), [(0, 10, 0), (1, 11, 0)]);
            assert_eq!((groups[2].error_code, groups[2].topics.len()), (0, 0));
            assert_eq!(groups[1].topics[0].topic_id.is_nil(), version < 10);
        }
        let forget = |name: &'static str| OffsetDeleteRequestTopic {
            name: name.into(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        };
        let request = OffsetDeleteRequest {
            group_id: "g".into(),
            topics: vec![forget("gone"), forget("t")],
        };
        let forgotten = client.call(&request, 0).await;
        let codes: Vec<i16> = forgotten
            .topics
            .iter()
            .map(|topic| topic.partitions[0].error_code)
            .collect();
        assert_eq!((forgotten.error_code, codes), (0, vec![3, 0]));
        let request = OffsetDeleteRequest {
            group_id: "unknown".into(),
            ..request
        };
        assert_eq!(client.call(&request, 0).await.error_code, 69);
    });
}

#[test]
fn who_waits_for_a_group_does_not_hold_up_the_end_of_the_broker() {
    simulate(|_| async {
        let server = Server::start(2, NetConfig::default()).await;
        let mut client = Client::connect().await;
        client.call(&key("g"), 0).await;
        let joined = join(&mut client, "g").await;
        sync_alone(&mut client, "g", &joined).await;
        // Waits for the first member to join again, which it has a minute for.
        let mut second = Client::connect().await;
        let refused = second.call(&joining("g", &Str::default()), 9).await;
        let waiting = second.send(&joining("g", &refused.member_id), 9).await;
        rt::sleep(millis(100)).await;
        let beat = HeartbeatRequest {
            group_id: "g".into(),
            generation_id: joined.generation_id,
            member_id: joined.member_id,
            ..Default::default()
        };
        assert_eq!(client.call(&beat, 4).await.error_code, 27);
        let begun = rt::now();
        server.stop().await;
        assert!(rt::now().since(begun) < millis(1_000));
        let answer = second.receive::<JoinGroupRequest>(waiting, 9).await;
        assert_eq!(answer.error_code, 15);
        second.expect_close().await;
    });
}

#[test]
fn groups_without_a_name_have_offsets_but_no_members() {
    with_broker(|mut client| async move {
        client.create_topic("t", 2).await;
        client.call(&key(""), 0).await;
        let joined = client.call(&joining("", &Str::default()), 5).await;
        assert_eq!(
            (joined.error_code, joined.protocol_name.as_deref()),
            (24, Some(""))
        );
        let beat = HeartbeatRequest::default();
        assert_eq!(client.call(&beat, 0).await.error_code, 24);
        let leaving = LeaveGroupRequest::default();
        assert_eq!(client.call(&leaving, 0).await.error_code, 24);
        let syncing = SyncGroupRequest::default();
        assert_eq!(client.call(&syncing, 4).await.error_code, 24);
        assert_eq!(client.call(&syncing, 5).await.error_code, 23);
        let committed = client.call(&commit("", "t", Uuid::nil()), 3).await;
        assert_eq!(commit_codes(&committed), [0, 0]);
        let all = client.call(&OffsetFetchRequest::default(), 5).await;
        assert_eq!(offsets(&all.topics), [(0, 10, 0), (1, 11, 0)]);
    });
}
