//! Owns the end-to-end tests of requests in which topics go by id.
//! Does not know how ids are made.
//! Invariant: an id means one topic for good, also where another gets its name.

use crate::support::*;
use bytes::Bytes;
use millrace_engine::api::meta::Command;
use millrace_net::wire::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use millrace_net::wire::fetch::{FetchRequest, FetchResponse, ForgottenTopic};
use millrace_net::wire::metadata::MetadataRequestTopic;
use millrace_net::wire::produce::ProduceRequest;
use millrace_net::wire::Str;
use millrace_net::NetConfig;
use uuid::Uuid;

const UNKNOWN_TOPIC_ID: i16 = 100;

async fn id_of(client: &mut Client, name: &'static str) -> Uuid {
    let metadata = client.call(&ask(Some(vec![named(name)]), false), 12).await;
    metadata.topics[0].topic_id
}

fn produce_to(id: Uuid, partition: i32, records: Bytes) -> ProduceRequest {
    let mut request = produce("", partition, -1, Some(records));
    request.topic_data[0].topic_id = id;
    request
}

fn fetch_from(id: Uuid, partitions: &[(i32, i64)]) -> FetchRequest {
    let mut request = fetch("", partitions);
    request.max_wait_ms = 0;
    request.topics[0].topic_id = id;
    request
}

/// Index, error and bytes of each partition of the only topic in an answer.
fn partitions(response: &FetchResponse) -> Vec<(i32, i16, usize)> {
    let topic = &response.responses[0].partitions;
    topic
        .iter()
        .map(|p| (p.partition_index, p.error_code, p.records.len()))
        .collect()
}

#[test]
fn records_go_in_and_out_by_id() {
    with_broker(|mut client| async move {
        client.create_topic("t", 2).await;
        let id = id_of(&mut client, "t").await;
        let records = batch(&[b"x"]);
        let answer = client.call(&produce_to(id, 1, records.clone()), 13).await;
        let topic = &answer.responses[0];
        assert_eq!((topic.topic_id, &*topic.name), (id, ""));
        let partition = &topic.partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, 0));
        for version in 13..=18 {
            let answer = client
                .call(&fetch_from(id, &[(1, 0), (2, 0)]), version)
                .await;
            assert_eq!(answer.responses[0].topic_id, id);
            assert_eq!(partitions(&answer), [(1, 0, records.len()), (2, 3, 0)]);
        }
        // By name as before.
        let by_name = client.call(&produce("t", 1, -1, Some(records)), 12).await;
        assert_eq!(by_name.responses[0].partition_responses[0].base_offset, 1);
    });
}

#[test]
fn ids_that_nobody_has_are_said_to_be_unknown() {
    with_broker(|mut client| async move {
        client.create_topic("t", 1).await;
        for id in [Uuid::nil(), Uuid::from_u128(77)] {
            let answer = client.call(&produce_to(id, 0, batch(&[b"x"])), 13).await;
            let topic = &answer.responses[0];
            let error = topic.partition_responses[0].error_code;
            assert_eq!((topic.topic_id, error), (id, UNKNOWN_TOPIC_ID));
            let answer = client.call(&fetch_from(id, &[(0, 0)]), 13).await;
            assert_eq!(answer.responses[0].topic_id, id);
            assert_eq!(partitions(&answer), [(0, UNKNOWN_TOPIC_ID, 0)]);
        }
        let id = id_of(&mut client, "t").await;
        let answer = client.call(&produce_to(id, 5, batch(&[b"x"])), 13).await;
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 3);
    });
}

#[test]
fn a_topic_made_again_is_another_one() {
    with_broker(|mut client| async move {
        client.create_topic("t", 1).await;
        let old = id_of(&mut client, "t").await;
        client.call(&produce_to(old, 0, batch(&[b"old"])), 13).await;
        let opened = client
            .call(&in_session(fetch_from(old, &[(0, 0)]), 0, 0), 13)
            .await;
        let session = opened.session_id;
        assert!(session != 0 && partitions(&opened)[0].2 > 0);

        let delete = DeleteTopicsRequest {
            topics: vec![DeleteTopicState {
                name: None,
                topic_id: old,
            }],
            ..Default::default()
        };
        assert_eq!(client.call(&delete, 6).await.responses[0].error_code, 0);
        client.create_topic("t", 1).await;
        let new = id_of(&mut client, "t").await;
        assert_ne!(old, new);

        let refused = client
            .call(&produce_to(old, 0, batch(&[b"late"])), 13)
            .await;
        let error = refused.responses[0].partition_responses[0].error_code;
        assert_eq!(error, UNKNOWN_TOPIC_ID);
        // The session means the old topic still, until the client puts the new one in its place.
        let next = client.call(&in_session(nothing(), session, 1), 13).await;
        assert_eq!(partitions(&next), [(0, UNKNOWN_TOPIC_ID, 0)]);
        let mut change = in_session(fetch_from(new, &[(0, 0)]), session, 2);
        change.forgotten_topics_data = vec![ForgottenTopic {
            topic_id: old,
            partitions: vec![0],
            ..Default::default()
        }];
        let changed = client.call(&change, 13).await;
        assert_eq!(changed.responses[0].topic_id, new);
        assert_eq!(partitions(&changed), [(0, 0, 0)]);
        client.call(&produce_to(new, 0, batch(&[b"new"])), 13).await;
        let next = client.call(&in_session(nothing(), session, 3), 13).await;
        assert_eq!((next.responses.len(), partitions(&next)[0].1), (1, 0));
        assert!(partitions(&next)[0].2 > 0);
    });
}

#[test]
fn a_session_does_not_change_between_names_and_ids() {
    with_broker(|mut client| async move {
        client.create_topic("t", 1).await;
        let id = id_of(&mut client, "t").await;
        let opened = client
            .call(&in_session(fetch_from(id, &[(0, 0)]), 0, 0), 13)
            .await;
        let next = in_session(nothing(), opened.session_id, 1);
        let refused = client.call(&next, 12).await;
        assert_eq!((refused.error_code, refused.responses.len()), (106, 0));
        assert_eq!(client.call(&next, 13).await.error_code, 0);
    });
}

#[test]
fn an_old_epoch_is_answered_with_the_leader() {
    let config = NetConfig {
        advertised_port: 9192,
        ..NetConfig::default()
    };
    with_server(2, config, |server, mut client| async move {
        client.create_topic("t", 1).await;
        let node = server.brokers[0].image().node_id;
        let bump = Command::BumpLeaderEpochs { node };
        server.brokers[0].propose(bump).await.unwrap();
        let by_id = MetadataRequestTopic {
            topic_id: id_of(&mut client, "t").await,
            name: None,
        };
        let id = by_id.topic_id;
        let metadata = client.call(&ask(Some(vec![by_id]), false), 12).await;
        let known = &metadata.topics[0].partitions[0];
        let (leader, broker) = (known.leader_id, &metadata.brokers[0]);
        assert!(known.leader_epoch > 0);
        let mut request = fetch_from(id, &[(0, 0)]);
        request.topics[0].partitions[0].current_leader_epoch = known.leader_epoch - 1;
        for version in 13..=18 {
            let answer = client.call(&request, version).await;
            let partition = &answer.responses[0].partitions[0];
            let current = &partition.current_leader;
            let told = (current.leader_id, current.leader_epoch);
            if version < 16 {
                assert_eq!((partition.error_code, told), (74, (-1, -1)));
                assert!(answer.node_endpoints.is_empty());
                continue;
            }
            let right = (leader, known.leader_epoch);
            assert_eq!((partition.error_code, told), (74, right));
            let node = &answer.node_endpoints[0];
            assert_eq!((node.node_id, node.port), (broker.node_id, broker.port));
            assert_eq!(&node.host, &broker.host);
        }
    });
}

fn in_session(request: FetchRequest, id: i32, epoch: i32) -> FetchRequest {
    FetchRequest {
        session_id: id,
        session_epoch: epoch,
        ..request
    }
}

fn nothing() -> FetchRequest {
    FetchRequest {
        topics: vec![],
        rack_id: Str::default(),
        ..fetch("", &[])
    }
}
