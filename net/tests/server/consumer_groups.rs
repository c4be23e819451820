//! Owns the tests of groups of the consumer protocol as clients see them.
//! Does not know how a coordinator works; the engine has its own tests.
//! Invariant: a test says in which version each request goes.

use crate::support::{configure_group, simulate, with_broker, Client, Server};
use millrace_net::wire::api_versions::ApiVersionsRequest;
use millrace_net::wire::consumer_group_describe::ConsumerGroupDescribeRequest;
use millrace_net::wire::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use millrace_net::wire::delete_groups::DeleteGroupsRequest;
use millrace_net::wire::describe_groups::DescribeGroupsRequest;
use millrace_net::wire::find_coordinator::FindCoordinatorRequest;
use millrace_net::wire::list_groups::ListGroupsRequest;
use millrace_net::wire::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use millrace_net::wire::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestGroup};
use millrace_net::NetConfig;

async fn begin(client: &mut Client, topic: &str, partitions: i32) {
    client.create_topic(topic, partitions).await;
    let request = FindCoordinatorRequest {
        key: "g".into(),
        ..Default::default()
    };
    assert_eq!(client.call(&request, 3).await.error_code, 0);
}

fn joining(member: &'static str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.into(),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec!["t".into()]),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    }
}

fn staying(member: &'static str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.into(),
        member_epoch: epoch,
        rebalance_timeout_ms: -1,
        ..Default::default()
    }
}

fn assigned(response: &ConsumerGroupHeartbeatResponse) -> Option<Vec<TopicPartitions>> {
    let assignment = response.assignment.as_ref();
    assignment.map(|assignment| assignment.topic_partitions.clone())
}

#[test]
fn a_group_lives_from_its_first_member_to_its_deletion() {
    with_broker(|mut client| async move {
        let request = ApiVersionsRequest {
            client_software_name: "test".into(),
            client_software_version: "1".into(),
            ..Default::default()
        };
        let served = client.call(&request, 4).await;
        let features = served.finalized_features.iter();
        let mut features = features.map(|f| (&*f.name, f.max_version_level));
        assert!(features.any(|feature| feature == ("group.version", 1)));
        begin(&mut client, "t", 2).await;

        let refused = client.call(&staying("a", 3), 1).await;
        assert_eq!((refused.error_code, refused.member_id), (69, None));
        let joined = client.call(&joining("a"), 1).await;
        assert_eq!((joined.error_code, joined.member_epoch), (0, 1));
        assert_eq!(joined.heartbeat_interval_ms, 5_000);
        let all = assigned(&joined).expect("who joins is told");
        assert_eq!((all.len(), &all[0].partitions), (1, &vec![0, 1]));
        let topic_id = all[0].topic_id;
        let quiet = client.call(&staying("a", 1), 0).await;
        assert_eq!((quiet.error_code, quiet.assignment), (0, None));
        let interval = "consumer.heartbeat.interval.ms";
        assert_eq!(configure_group(&mut client, interval, "4999").await, 40);
        assert_eq!(configure_group(&mut client, interval, "6000").await, 0);
        let told = client.call(&staying("a", 1), 1).await;
        assert_eq!(told.heartbeat_interval_ms, 6_000);
        let fenced = client.call(&staying("a", 2), 1).await;
        assert_eq!(fenced.error_code, 110);

        // A second one, without an id of its own as version 0 has it; both get one partition each in the end.
        let second = client.call(&joining(""), 0).await;
        let second_id = second.member_id.clone().expect("it is given one");
        assert_eq!((second.member_epoch, second_id.len()), (2, 22));
        assert_eq!(assigned(&second), Some(Vec::new()));
        let told = client.call(&staying("a", 1), 1).await;
        let kept = assigned(&told).expect("it is to give up one");
        assert_eq!((told.member_epoch, kept[0].partitions.len()), (1, 1));
        let gave_up = ConsumerGroupHeartbeatRequest {
            topic_partitions: Some(kept.clone()),
            ..staying("a", 1)
        };
        assert_eq!(client.call(&gave_up, 1).await.member_epoch, 2);
        let waiting = ConsumerGroupHeartbeatRequest {
            member_id: second_id.clone(),
            ..staying("", 2)
        };
        let got = assigned(&client.call(&waiting, 1).await).expect("it is free now");
        assert_eq!(got[0].partitions[0], 1 - kept[0].partitions[0]);

        let committing = OffsetCommitRequest {
            group_id: "g".into(),
            generation_id_or_member_epoch: 2,
            member_id: "a".into(),
            topics: vec![OffsetCommitRequestTopic {
                topic_id,
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index: kept[0].partitions[0],
                    committed_offset: 7,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let code = |answer: millrace_net::wire::offset_commit::OffsetCommitResponse| {
            answer.topics[0].partitions[0].error_code
        };
        assert_eq!(code(client.call(&committing, 10).await), 0);
        let ahead = OffsetCommitRequest {
            generation_id_or_member_epoch: 3,
            ..committing
        };
        assert_eq!(code(client.call(&ahead, 10).await), 113);
        for (epoch, error) in [(2, 0), (1, 113)] {
            let fetching = OffsetFetchRequest {
                groups: vec![OffsetFetchRequestGroup {
                    group_id: "g".into(),
                    member_id: Some("a".into()),
                    member_epoch: epoch,
                    topics: None,
                }],
                ..Default::default()
            };
            let fetched = client.call(&fetching, 9).await.groups;
            assert_eq!(fetched[0].error_code, error);
        }

        let describing = ConsumerGroupDescribeRequest {
            group_ids: vec!["g".into(), "unknown".into()],
            ..Default::default()
        };
        let described = client.call(&describing, 1).await.groups;
        let group = &described[0];
        assert_eq!(
            (&*group.group_state, &*group.assignor_name),
            ("Stable", "uniform")
        );
        assert_eq!((group.group_epoch, group.assignment_epoch), (2, 2));
        assert_eq!(group.members.len(), 2);
        for member in &group.members {
            assert_eq!((member.member_type, member.member_epoch), (1, 2));
            assert_eq!(&*member.client_host, "/10.0.0.0");
            let topic = &member.assignment.topic_partitions[0];
            assert_eq!((&*topic.topic_name, topic.partitions.len()), ("t", 1));
            assert_eq!(member.assignment, member.target_assignment);
        }
        assert_eq!(described[1].error_code, 69);
        let classic = DescribeGroupsRequest {
            groups: vec!["g".into()],
            ..Default::default()
        };
        let described = client.call(&classic, 6).await.groups;
        assert_eq!(
            (described[0].error_code, &*described[0].group_state),
            (69, "Dead")
        );
        let listing = |kind: &'static str| ListGroupsRequest {
            types_filter: vec![kind.into()],
            ..Default::default()
        };
        let listed = client.call(&listing("consumer"), 5).await.groups;
        let shown = (&*listed[0].group_type, &*listed[0].protocol_type);
        assert_eq!((listed.len(), shown), (1, ("consumer", "consumer")));
        assert!(client.call(&listing("classic"), 5).await.groups.is_empty());

        let deleting = DeleteGroupsRequest {
            groups_names: vec!["g".into()],
        };
        let results = client.call(&deleting, 2).await.results;
        assert_eq!(results[0].error_code, 68);
        for id in ["a".into(), second_id] {
            let leaving = ConsumerGroupHeartbeatRequest {
                member_id: id,
                ..staying("", -1)
            };
            let left = client.call(&leaving, 1).await;
            assert_eq!((left.error_code, left.member_epoch), (0, -1));
        }
        let results = client.call(&deleting, 2).await.results;
        assert_eq!(results[0].error_code, 0);
    });
}

#[test]
fn what_a_member_may_not_say_is_refused() {
    with_broker(|mut client| async move {
        begin(&mut client, "t", 1).await;
        let bad_regex = ConsumerGroupHeartbeatRequest {
            subscribed_topic_regex: Some("(".into()),
            ..joining("a")
        };
        let refused = client.call(&bad_regex, 1).await;
        assert_eq!(refused.error_code, 128);
        assert!(refused.error_message.is_some());
        let unknown = ConsumerGroupHeartbeatRequest {
            server_assignor: Some("sticky".into()),
            ..joining("a")
        };
        assert_eq!(client.call(&unknown, 1).await.error_code, 112);
        assert_eq!(client.call(&joining(""), 1).await.error_code, 42);
        let fixed = |member| ConsumerGroupHeartbeatRequest {
            instance_id: Some("i".into()),
            ..joining(member)
        };
        assert_eq!(client.call(&fixed("a"), 1).await.error_code, 0);
        assert_eq!(client.call(&fixed("b"), 1).await.error_code, 111);
        let away = ConsumerGroupHeartbeatRequest {
            instance_id: Some("i".into()),
            ..staying("a", -2)
        };
        assert_eq!(client.call(&away, 1).await.member_epoch, -2);
        let back = client.call(&fixed("b"), 1).await;
        assert_eq!((back.error_code, back.member_epoch), (0, 1));
        assert_eq!(assigned(&back).map(|all| all.len()), Some(1));
    });
}

#[test]
fn members_find_their_group_on_any_shard() {
    simulate(|_| async {
        let server = Server::start(3, NetConfig::default()).await;
        let mut client = Client::connect().await;
        begin(&mut client, "t", 3).await;
        let joined = client.call(&joining("a"), 1).await;
        assert_eq!(joined.error_code, 0);
        let mut others = Vec::new();
        for _ in 0..4 {
            others.push(Client::connect().await);
        }
        for other in &mut others {
            let quiet = other.call(&staying("a", joined.member_epoch), 1).await;
            assert_eq!((quiet.error_code, quiet.assignment), (0, None));
        }
        server.stop().await;
    });
}
