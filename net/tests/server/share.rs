//! Owns the tests of share groups as clients see them: members, sessions, acknowledgements, offsets.
//! Does not know how records are handed out; the engine has its own tests.
//! Invariant: a test says in which version each request goes.

use crate::support::{batch, configure_group, produce, with_broker, Client, GROUP};
use millrace_net::wire::alter_share_group_offsets::{
    AlterShareGroupOffsetsRequest, AlterShareOffset, AlterShareOffsetsTopic,
};
use millrace_net::wire::api_versions::ApiVersionsRequest;
use millrace_net::wire::delete_groups::DeleteGroupsRequest;
use millrace_net::wire::delete_share_group_offsets::{
    DeleteShareGroupOffsetsRequest, DeleteShareOffsetsTopic,
};
use millrace_net::wire::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use millrace_net::wire::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequest, ShareOffsetsGroup,
};
use millrace_net::wire::find_coordinator::FindCoordinatorRequest;
use millrace_net::wire::list_groups::ListGroupsRequest;
use millrace_net::wire::metadata::MetadataRequest;
use millrace_net::wire::share_acknowledge::{
    ShareAcknowledgePartition, ShareAcknowledgeRequest, ShareAcknowledgeTopic,
};
use millrace_net::wire::share_fetch::{
    AcknowledgementBatch, ShareFetchPartition, ShareFetchRequest, ShareFetchResponse,
    ShareFetchTopic, ShareForgottenTopic,
};
use millrace_net::wire::share_group_describe::ShareGroupDescribeRequest;
use millrace_net::wire::share_group_heartbeat::{
    ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
};
use millrace_net::wire::Str;
use uuid::Uuid;

fn beat(member: &'static str, epoch: i32) -> ShareGroupHeartbeatRequest {
    ShareGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.into(),
        member_epoch: epoch,
        subscribed_topic_names: (epoch == 0).then(|| vec!["t".into()]),
        ..Default::default()
    }
}

async fn join(client: &mut Client, member: &'static str) -> ShareGroupHeartbeatResponse {
    let joined = client.call(&beat(member, 0), 1).await;
    assert_eq!(joined.error_code, 0, "{:?}", joined.error_message);
    joined
}

async fn topic_id(client: &mut Client) -> Uuid {
    let all = client.call(&MetadataRequest::default(), 12).await;
    let found = all.topics.iter().find(|t| t.name.as_deref() == Some("t"));
    found.expect("it was created").topic_id
}

/// Topic `t` of one partition with these records, read from its beginning.
async fn prepared(client: &mut Client, values: &[&[u8]]) -> Uuid {
    prepared_for(client, &[0, 2], values).await
}

/// Searched for are coordinators of groups (0) or of states (2): with the first search their topics are made.
async fn prepared_for(client: &mut Client, key_types: &[i8], values: &[&[u8]]) -> Uuid {
    for key_type in key_types.iter().copied() {
        let search = FindCoordinatorRequest {
            key_type,
            coordinator_keys: vec!["g".into()],
            ..Default::default()
        };
        let found = client.call(&search, 6).await;
        assert_eq!(found.coordinators[0].error_code, 0);
    }
    client.create_topic("t", 1).await;
    assert_eq!(
        configure_group(client, "share.auto.offset.reset", "earliest").await,
        0
    );
    let sent = client
        .call(&produce("t", 0, -1, Some(batch(values))), 11)
        .await;
    assert_eq!(sent.responses[0].partition_responses[0].error_code, 0);
    topic_id(client).await
}

fn fetch(member: &'static str, epoch: i32, id: Uuid) -> ShareFetchRequest {
    ShareFetchRequest {
        group_id: Some("g".into()),
        member_id: Some(member.into()),
        share_session_epoch: epoch,
        max_wait_ms: 500,
        min_bytes: 1,
        max_records: 100,
        batch_size: 100,
        topics: match epoch {
            0 => vec![ShareFetchTopic {
                topic_id: id,
                partitions: vec![ShareFetchPartition::default()],
            }],
            _ => Vec::new(),
        },
        ..Default::default()
    }
}

fn acks(first: i64, last: i64, types: &[i8]) -> AcknowledgementBatch {
    AcknowledgementBatch {
        first_offset: first,
        last_offset: last,
        acknowledge_types: types.to_vec(),
    }
}

fn acknowledging(
    mut request: ShareFetchRequest,
    id: Uuid,
    batches: Vec<AcknowledgementBatch>,
) -> ShareFetchRequest {
    request.topics = vec![ShareFetchTopic {
        topic_id: id,
        partitions: vec![ShareFetchPartition {
            partition_index: 0,
            acknowledgement_batches: batches,
        }],
    }];
    request
}

fn acknowledge(
    member: &'static str,
    epoch: i32,
    id: Uuid,
    batches: Vec<AcknowledgementBatch>,
) -> ShareAcknowledgeRequest {
    ShareAcknowledgeRequest {
        group_id: Some("g".into()),
        member_id: Some(member.into()),
        share_session_epoch: epoch,
        topics: vec![ShareAcknowledgeTopic {
            topic_id: id,
            partitions: vec![ShareAcknowledgePartition {
                partition_index: 0,
                acknowledgement_batches: batches,
            }],
        }],
        ..Default::default()
    }
}

/// What was acquired: first, last and delivery count.
fn acquired(response: &ShareFetchResponse) -> Vec<(i64, i64, i16)> {
    assert_eq!(response.error_code, 0);
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions);
    let runs = partitions.flat_map(|p| {
        assert_eq!(p.error_code, 0, "{:?}", p.error_message);
        assert_eq!(p.records.is_empty(), p.acquired_records.is_empty());
        &p.acquired_records
    });
    runs.map(|r| (r.first_offset, r.last_offset, r.delivery_count))
        .collect()
}

fn acknowledged(response: &ShareFetchResponse) -> Vec<i16> {
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions);
    partitions.map(|p| p.acknowledge_error_code).collect()
}

#[test]
fn two_members_share_one_partition_and_what_is_released_goes_to_the_other() {
    with_broker(|mut a| async move {
        let id = prepared(&mut a, &[b"0", b"1", b"2", b"3", b"4", b"5"]).await;
        let mut b = Client::connect().await;
        assert_eq!(
            join(&mut a, "a").await.assignment.unwrap().topic_partitions[0].partitions,
            [0]
        );
        assert_eq!(
            join(&mut b, "b").await.assignment.unwrap().topic_partitions[0].partitions,
            [0]
        );
        let mut strict = fetch("a", 0, id);
        (strict.share_acquire_mode, strict.max_records) = (1, 4);
        let first = a.call(&strict, 2).await;
        assert_eq!(acquired(&first), [(0, 3, 1)]);
        assert_eq!(first.acquisition_lock_timeout_ms, 30_000);
        let second = b.call(&fetch("b", 0, id), 1).await;
        assert_eq!(acquired(&second), [(4, 5, 1)]);
        // Accepts, releases, rejects; what was released is the other's now, and it is its second delivery.
        let said = acknowledging(fetch("a", 1, id), id, vec![acks(0, 3, &[1, 2, 3, 1])]);
        let mut said = said;
        said.max_records = 0;
        let said = a.call(&said, 2).await;
        assert_eq!((acknowledged(&said), acquired(&said)), (vec![0], vec![]));
        let again = b.call(&fetch("b", 1, id), 2).await;
        assert_eq!(acquired(&again), [(1, 1, 2)]);
        // Not with this member.
        let refused = a
            .call(&acknowledge("a", 2, id, vec![acks(1, 1, &[1])]), 2)
            .await;
        assert_eq!(refused.responses[0].partitions[0].error_code, 121);
        let batches = vec![acks(1, 1, &[1]), acks(4, 5, &[1])];
        let done = b.call(&acknowledge("b", 2, id, batches), 1).await;
        assert_eq!(done.responses[0].partitions[0].error_code, 0);
        let nothing = b.call(&fetch("b", 3, id), 2).await;
        assert_eq!(acquired(&nothing), []);
        let offsets = DescribeShareGroupOffsetsRequest {
            groups: vec![ShareOffsetsGroup {
                group_id: "g".into(),
                topics: None,
            }],
        };
        let told = a.call(&offsets, 1).await;
        let told = &told.groups[0].topics[0].partitions[0];
        assert_eq!((told.start_offset, told.lag, told.error_code), (6, 0, 0));
    });
}

#[test]
fn sessions_have_their_epochs_and_end_with_their_connection() {
    with_broker(|mut a| async move {
        let id = prepared(&mut a, &[b"0", b"1"]).await;
        let code = |response: ShareFetchResponse| response.error_code;
        assert_eq!(code(a.call(&fetch("a", 1, id), 2).await), 122);
        assert_eq!(code(a.call(&fetch("a", -1, id), 2).await), 122);
        let early = acknowledging(fetch("a", 0, id), id, vec![acks(0, 0, &[1])]);
        assert_eq!(code(a.call(&early, 2).await), 42);
        let unnamed = ShareFetchRequest {
            member_id: None,
            ..fetch("a", 0, id)
        };
        assert_eq!(code(a.call(&unnamed, 2).await), 42);
        let opened = a.call(&fetch("a", 0, id), 2).await;
        assert_eq!(acquired(&opened), [(0, 1, 1)]);
        assert_eq!(code(a.call(&fetch("a", 2, id), 2).await), 123);
        let first = acknowledge("a", 0, id, vec![acks(0, 0, &[1])]);
        assert_eq!(a.call(&first, 2).await.error_code, 123);
        // A renewal has to be said to be one, and fetches nothing.
        let mut renewal = acknowledge("a", 1, id, vec![acks(0, 1, &[4])]);
        let refused = a.call(&renewal, 2).await;
        assert_eq!(refused.responses[0].partitions[0].error_code, 42);
        (renewal.is_renew_ack, renewal.share_session_epoch) = (true, 2);
        let renewed = a.call(&renewal, 2).await;
        assert_eq!(renewed.responses[0].partitions[0].error_code, 0);
        // Another connection does not know the session.
        let mut b = Client::connect().await;
        assert_eq!(code(b.call(&fetch("a", 3, id), 2).await), 122);
        // With its connection a member gives back what it has; that was no delivery.
        drop(a);
        let taken = b.call(&fetch("b", 0, id), 2).await;
        let taken = match acquired(&taken)[..] {
            [] => b.call(&fetch("b", 1, id), 2).await,
            _ => taken,
        };
        assert_eq!(acquired(&taken), [(0, 1, 1)]);
        // A partition that is forgotten is not read any more.
        let mut c = Client::connect().await;
        let opened = c.call(&fetch("c", 0, id), 2).await;
        assert_eq!(acquired(&opened), []);
        let mut forgets = fetch("c", 1, id);
        forgets.max_wait_ms = 600_000;
        forgets.forgotten_topics_data = vec![ShareForgottenTopic {
            topic_id: id,
            partitions: vec![0],
        }];
        assert_eq!(acquired(&c.call(&forgets, 2).await), []);
        let closed = c.call(&fetch("c", -1, id), 2).await;
        assert_eq!(code(closed), 0);
        assert_eq!(code(c.call(&fetch("c", 2, id), 2).await), 122);
    });
}

#[test]
fn partitions_that_are_not_there_are_told_of_and_bytes_that_are_no_acknowledgements_refused() {
    with_broker(|mut a| async move {
        let id = prepared(&mut a, &[b"0", b"1"]).await;
        let mut request = fetch("a", 0, id);
        request.topics[0].partitions.push(ShareFetchPartition {
            partition_index: 7,
            ..Default::default()
        });
        request.topics.push(ShareFetchTopic {
            topic_id: Uuid::from_bytes([3; 16]),
            partitions: vec![ShareFetchPartition::default()],
        });
        let response = a.call(&request, 2).await;
        let errors = response.responses.iter().flat_map(|t| &t.partitions);
        let errors: Vec<i16> = errors.map(|p| p.error_code).filter(|e| *e != 0).collect();
        let mut sorted = errors.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [3, 100]);
        let mut epoch = 1;
        for bad in [
            acks(0, 1, &[]),
            acks(0, 1, &[9]),
            acks(1, 0, &[1]),
            acks(0, 1, &[1, 1, 1]),
        ] {
            let said = a.call(&acknowledge("a", epoch, id, vec![bad]), 2).await;
            assert_eq!(said.responses[0].partitions[0].error_code, 42);
            epoch += 1;
        }
        let beyond = acknowledge("a", epoch, id, vec![acks(0, 1 << 40, &[1])]);
        let said = a.call(&beyond, 2).await;
        assert_eq!(said.responses[0].partitions[0].error_code, 121);
    });
}

#[test]
fn groups_are_described_listed_moved_and_deleted() {
    with_broker(|mut a| async move {
        let id = prepared(&mut a, &[b"0", b"1", b"2"]).await;
        let hello = ApiVersionsRequest {
            client_software_name: "test".into(),
            client_software_version: "1".into(),
            ..Default::default()
        };
        let versions = a.call(&hello, 4).await;
        let level = versions
            .finalized_features
            .iter()
            .find(|f| f.name == "share.version");
        assert_eq!(level.map(|f| f.max_version_level), Some(1));
        join(&mut a, "a").await;
        assert_eq!(a.call(&beat("a", 7), 1).await.error_code, 110);
        assert_eq!(a.call(&beat("x", 1), 1).await.error_code, 25);
        let describe = ShareGroupDescribeRequest {
            group_ids: vec!["g".into(), "none".into()],
            ..Default::default()
        };
        let described = a.call(&describe, 1).await;
        let group = &described.groups[0];
        assert_eq!(
            (&*group.group_state, &*group.assignor_name),
            ("Stable", "simple")
        );
        let member = &group.members[0];
        assert_eq!(member.assignment.topic_partitions[0].topic_name, "t");
        assert_eq!(described.groups[1].error_code, 69);
        let listed = ListGroupsRequest {
            types_filter: vec!["share".into()],
            ..Default::default()
        };
        let listed = a.call(&listed, 5).await;
        let names: Vec<(&str, &str)> = listed
            .groups
            .iter()
            .map(|g| (&*g.group_id, &*g.group_type))
            .collect();
        assert_eq!(names, [("g", "share")]);
        let to = |offset| AlterShareGroupOffsetsRequest {
            group_id: "g".into(),
            topics: vec![AlterShareOffsetsTopic {
                topic_name: "t".into(),
                partitions: vec![AlterShareOffset {
                    partition_index: 0,
                    start_offset: offset,
                }],
            }],
        };
        assert_eq!(a.call(&to(2), 0).await.error_code, 68);
        let names = || vec![Str::from("g")];
        let delete = || DeleteGroupsRequest {
            groups_names: names(),
        };
        assert_eq!(a.call(&delete(), 2).await.results[0].error_code, 68);
        assert_eq!(a.call(&beat("a", -1), 1).await.error_code, 0);
        let moved = a.call(&to(2), 0).await;
        assert_eq!(moved.responses[0].partitions[0].error_code, 0);
        let fetched = a.call(&fetch("b", 0, id), 2).await;
        assert_eq!(acquired(&fetched), [(2, 2, 1)]);
        let forget = DeleteShareGroupOffsetsRequest {
            group_id: "g".into(),
            topics: vec![DeleteShareOffsetsTopic {
                topic_name: "t".into(),
            }],
        };
        assert_eq!(a.call(&forget, 0).await.responses[0].error_code, 0);
        assert_eq!(a.call(&forget, 0).await.responses[0].error_code, 3);
        assert_eq!(a.call(&delete(), 2).await.results[0].error_code, 0);
        assert_eq!(a.call(&delete(), 2).await.results[0].error_code, 69);
    });
}

#[test]
fn a_group_may_begin_with_offsets() {
    with_broker(|mut a| async move {
        // Who alters a group has looked for no coordinator of states.
        let id = prepared_for(&mut a, &[0], &[b"one", b"two", b"three"]).await;
        let to = |group: &'static str, topic: &'static str| AlterShareGroupOffsetsRequest {
            group_id: group.into(),
            topics: vec![AlterShareOffsetsTopic {
                topic_name: topic.into(),
                partitions: vec![AlterShareOffset {
                    partition_index: 0,
                    start_offset: 2,
                }],
            }],
        };
        assert_eq!(a.call(&to("", "t"), 0).await.error_code, 42);
        let unknown = a.call(&to("g", "no such"), 0).await;
        assert_eq!(unknown.responses[0].partitions[0].error_code, 3);
        let listed = ListGroupsRequest {
            types_filter: vec!["share".into()],
            ..Default::default()
        };
        assert_eq!(a.call(&listed, 5).await.groups, []);
        let made = a.call(&to("g", "t"), 0).await;
        assert_eq!(made.error_code, 0, "{:?}", made.error_message);
        assert_eq!(made.responses[0].partitions[0].error_code, 0);
        assert_eq!(a.call(&listed, 5).await.groups.len(), 1);
        join(&mut a, "a").await;
        let fetched = a.call(&fetch("a", 0, id), 2).await;
        assert_eq!(acquired(&fetched), [(2, 2, 1)]);
        let delete = DeleteGroupsRequest {
            groups_names: vec!["g".into()],
        };
        assert_eq!(a.call(&beat("a", -1), 1).await.error_code, 0);
        assert_eq!(a.call(&delete, 2).await.results[0].error_code, 0);
    });
}

#[test]
fn settings_of_groups_are_kept_and_checked() {
    with_broker(|mut a| async move {
        assert_eq!(
            configure_group(&mut a, "share.auto.offset.reset", "middle").await,
            40
        );
        assert_eq!(configure_group(&mut a, "no.such", "1").await, 40);
        assert_eq!(
            configure_group(&mut a, "consumer.session.timeout.ms", "44999").await,
            40
        );
        assert_eq!(
            configure_group(&mut a, "consumer.session.timeout.ms", "50000").await,
            0
        );
        assert_eq!(
            configure_group(&mut a, "share.isolation.level", "read_committed").await,
            0
        );
        let describe = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: GROUP,
                resource_name: "g".into(),
                configuration_keys: None,
            }],
            ..Default::default()
        };
        let described = a.call(&describe, 4).await;
        let shown: Vec<(String, String, i8)> = described.results[0]
            .configs
            .iter()
            .map(|c| {
                let value = c.value.as_deref().unwrap_or_default().to_string();
                (c.name.to_string(), value, c.config_source)
            })
            .collect();
        let row = |name: &str, value: &str, source| (name.to_string(), value.to_string(), source);
        assert_eq!(
            shown,
            [
                row("consumer.heartbeat.interval.ms", "5000", 5),
                row("consumer.session.timeout.ms", "50000", 8),
                row("share.auto.offset.reset", "latest", 5),
                row("share.heartbeat.interval.ms", "5000", 5),
                row("share.isolation.level", "read_committed", 8),
                row("share.record.lock.duration.ms", "30000", 5),
                row("share.session.timeout.ms", "45000", 5),
            ]
        );
    });
}
