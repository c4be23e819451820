//! Owns the end-to-end tests of what each API key answers, in the versions that real clients use.
//! Does not know the connection's own rules (order, bounds, timeouts).
//! Invariant: every answer is read by the wire codec of the version it was asked in.

mod support;

use millrace_engine::rt;
use millrace_net::wire::alter_configs::{self, AlterConfigsRequest};
use millrace_net::wire::config_codes::{operation, resource, source};
use millrace_net::wire::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use millrace_net::wire::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use millrace_net::wire::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use millrace_net::wire::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use millrace_net::wire::describe_cluster::DescribeClusterRequest;
use millrace_net::wire::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
};
use millrace_net::wire::describe_log_dirs::DescribeLogDirsRequest;
use millrace_net::wire::describe_topic_partitions::DescribeTopicPartitionsRequest;
use millrace_net::wire::fetch::{FetchRequest, FetchResponse, ForgottenTopic};
use millrace_net::wire::find_coordinator::FindCoordinatorRequest;
use millrace_net::wire::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use millrace_net::wire::init_producer_id::InitProducerIdRequest;
use millrace_net::wire::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use millrace_net::wire::metadata::{MetadataRequest, MetadataRequestTopic};
use millrace_net::wire::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use millrace_net::wire::versions;
use millrace_net::wire::Str;
use millrace_net::NetConfig;
use support::*;
use uuid::Uuid;

fn named(name: &'static str) -> MetadataRequestTopic {
    MetadataRequestTopic {
        name: Some(name.into()),
        ..Default::default()
    }
}

fn ask(topics: Option<Vec<MetadataRequestTopic>>, create: bool) -> MetadataRequest {
    MetadataRequest {
        topics,
        allow_auto_topic_creation: create,
        ..Default::default()
    }
}

/// Runs a test against a broker with two shards and one client.
fn with_broker<F: std::future::Future<Output = ()>>(test: impl Fn(Client) -> F) {
    let test = &test;
    simulate(|_| async move {
        let server = Server::start(
            2,
            NetConfig {
                advertised_port: 9192,
                ..NetConfig::default()
            },
        )
        .await;
        test(Client::connect().await).await;
        server.stop().await;
    });
}

#[test]
fn metadata_creates_what_is_missing_unless_told_not_to() {
    with_broker(|mut client| async move {
        let refused = client.call(&ask(Some(vec![named("t")]), false), 4).await;
        assert_eq!(refused.topics[0].error_code, 3);
        let made = client
            .call(
                &ask(
                    Some(vec![named("t"), named("no such/name"), named("t")]),
                    true,
                ),
                9,
            )
            .await;
        let codes: Vec<i16> = made.topics.iter().map(|topic| topic.error_code).collect();
        assert_eq!(codes, [0, 17, 0]);
        assert_eq!(made.topics[0].partitions.len(), 1);
        assert_eq!(
            made.topics[0].partitions[0].leader_id,
            made.brokers[0].node_id
        );
        assert_eq!(
            (made.brokers[0].port, made.controller_id),
            (9192, made.brokers[0].node_id)
        );
        assert_eq!(made.cluster_id.unwrap().len(), 22);
        // Before version 4 there was no way to say no.
        let old = client.call(&ask(Some(vec![named("old")]), true), 0).await;
        assert_eq!(old.topics[0].error_code, 0);
        let internal = client
            .call(&ask(Some(vec![named("__consumer_offsets")]), true), 8)
            .await;
        assert_eq!(
            internal.topics[0].error_code, 3,
            "the broker's own topics are not made by looking"
        );
    });
}

#[test]
fn metadata_reads_null_and_empty_as_each_version_means_them() {
    with_broker(|mut client| async move {
        client.create_topic("a", 1).await;
        client.create_topic("b", 3).await;
        for version in 0..=13 {
            let all = if version == 0 { Some(vec![]) } else { None };
            let response = client.call(&ask(all, true), version).await;
            let names: Vec<_> = response
                .topics
                .iter()
                .map(|topic| topic.name.clone().unwrap())
                .collect();
            assert_eq!(names, ["a", "b"], "version {version}");
            assert_eq!(response.topics[1].partitions.len(), 3);
            assert_eq!(response.topics[0].topic_id.is_nil(), version < 10);
            assert_eq!(response.topics[0].topic_authorized_operations, i32::MIN);
            if version > 0 {
                let none = client.call(&ask(Some(vec![]), true), version).await;
                assert!(none.topics.is_empty(), "version {version}");
                assert_eq!(none.brokers.len(), 1);
            }
        }
    });
}

#[test]
fn metadata_by_id_from_version_12() {
    with_broker(|mut client| async move {
        client.create_topic("a", 1).await;
        let id = client.call(&ask(None, false), 12).await.topics[0].topic_id;
        let by_id = |id| MetadataRequestTopic {
            topic_id: id,
            name: None,
        };
        let response = client
            .call(
                &ask(Some(vec![by_id(id), by_id(Uuid::from_u128(77))]), true),
                12,
            )
            .await;
        assert_eq!(response.topics[0].name.as_deref(), Some("a"));
        assert_eq!(
            (
                response.topics[1].error_code,
                response.topics[1].name.clone()
            ),
            (100, None)
        );
        assert_eq!(response.topics[1].topic_id, Uuid::from_u128(77));
        let early = client.call(&ask(Some(vec![by_id(id)]), true), 10).await;
        assert_eq!(early.topics[0].error_code, 42);
    });
}

#[test]
fn produce_refuses_what_its_version_and_the_protocol_forbid() {
    with_broker(|mut client| async move {
        client.create_topic("t", 1).await;
        let good = batch(&[b"x"]);
        let two = [good.clone(), good.clone()].concat();
        let mut zstd = good.to_vec();
        zstd[22] |= 4;
        let mut magic = good.to_vec();
        magic[16] = 1;
        let mut damaged = good.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        let cases: [(&str, i32, i16, Option<Vec<u8>>, i16, i16); 10] = [
            ("t", 0, -1, Some(good.to_vec()), 3, 0),
            ("t", 0, 1, Some(good.to_vec()), 11, 0),
            ("t", 1, -1, Some(good.to_vec()), 9, 3),
            ("nope", 0, -1, Some(good.to_vec()), 9, 3),
            ("t", 0, 2, Some(good.to_vec()), 8, 21),
            ("t", 0, -1, Some(two), 8, 87),
            ("t", 0, -1, None, 8, 87),
            ("t", 0, -1, Some(zstd), 6, 76),
            ("t", 0, -1, Some(magic), 7, 87),
            ("t", 0, -1, Some(damaged), 7, 2),
        ];
        for (topic, partition, acks, records, version, expected) in cases {
            let request = produce(topic, partition, acks, records.map(Into::into));
            let response = client.call(&request, version).await;
            let answer = &response.responses[0].partition_responses[0];
            assert_eq!(
                (answer.error_code, answer.index),
                (expected, partition),
                "{topic} {acks} {version}"
            );
            assert_eq!(
                answer.error_message.is_some(),
                expected != 0 && version >= 8
            );
            assert_eq!(answer.base_offset == -1, expected != 0);
            assert_eq!(
                answer.log_append_time_ms, -1,
                "topics have the producer's time"
            );
            assert_eq!(&*response.responses[0].name, topic);
        }
        let mut transactional = produce("t", 0, -1, Some(good));
        transactional.transactional_id = Some("tx".into());
        let response = client.call(&transactional, 8).await;
        assert_eq!(response.responses[0].partition_responses[0].error_code, 48);
    });
}

#[test]
fn what_was_produced_is_fetched_byte_for_byte() {
    with_broker(|mut client| async move {
        client.create_topic("t", 3).await;
        let long = vec![b'l'; 100_000];
        let batches = [
            batch(&[b"short"]),
            batch(&[&long, b"", b"z"]),
            batch(&[b"last"]),
        ];
        for records in &batches {
            client
                .call(&produce("t", 2, -1, Some(records.clone())), 9)
                .await;
        }
        for version in 4..=12 {
            let response = client
                .call(&fetch("t", &[(2, 0), (1, 0), (7, 0), (2, 99)]), version)
                .await;
            let partitions = &response.responses[0].partitions;
            let records = partitions[0].records.to_bytes().unwrap();
            let mut at = 0;
            for sent in &batches {
                // Base offset and leader epoch are the broker's; the rest is as it was sent.
                let got = &records[at..at + sent.len()];
                assert!(
                    got[8..12] == sent[8..12] && got[16..] == sent[16..],
                    "version {version}"
                );
                at += sent.len();
            }
            assert_eq!(at, records.len());
            assert_eq!(partitions[0].high_watermark, 5);
            assert_eq!(
                partitions[0].aborted_transactions, None,
                "null for read_uncommitted"
            );
            assert_eq!(
                (partitions[1].error_code, partitions[1].records.len()),
                (0, 0)
            );
            assert_eq!(
                (partitions[2].error_code, partitions[2].high_watermark),
                (3, -1)
            );
            assert_eq!(partitions[3].error_code, 1);
        }
    });
}

#[test]
fn fetch_waits_for_data_and_no_longer_than_asked() {
    with_broker(|mut client| async move {
        client.create_topic("t", 1).await;
        let begun = rt::now();
        let empty = client.call(&fetch("t", &[(0, 0)]), 11).await;
        let waited = rt::now().since(begun);
        assert!(waited >= millis(500) && waited < millis(700), "{waited:?}");
        assert_eq!(empty.responses[0].partitions[0].records.len(), 0);
        let begun = rt::now();
        let unknown = client.call(&fetch("nope", &[(0, 0)]), 11).await;
        assert_eq!(unknown.responses[0].partitions[0].error_code, 3);
        assert!(rt::now().since(begun) < millis(100), "nothing to wait for");
    });
}

fn in_session(mut request: FetchRequest, id: i32, epoch: i32) -> FetchRequest {
    request.session_id = id;
    request.session_epoch = epoch;
    request
}

fn told(response: &FetchResponse) -> Vec<(i32, usize)> {
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions);
    partitions
        .map(|partition| (partition.partition_index, partition.records.len()))
        .collect()
}

#[test]
fn a_fetch_session_tells_only_news() {
    for version in [7, 11, 12] {
        with_broker(move |mut client| async move {
            client.create_topic("t", 4).await;
            let records = batch(&[b"x"]);
            let none = || FetchRequest {
                topics: vec![],
                ..fetch("t", &[])
            };
            let first = client
                .call(
                    &in_session(fetch("t", &[(0, 0), (1, 0), (2, 0)]), 0, 0),
                    version,
                )
                .await;
            let id = first.session_id;
            assert!(id > 0);
            assert_eq!(
                told(&first),
                [(0, 0), (1, 0), (2, 0)],
                "the first answer is full"
            );
            let quiet = client.call(&in_session(none(), id, 1), version).await;
            assert_eq!((told(&quiet), quiet.session_id), (vec![], id));
            client
                .call(&produce("t", 1, -1, Some(records.clone())), 7)
                .await;
            let news = client.call(&in_session(none(), id, 2), version).await;
            assert_eq!(told(&news), [(1, records.len())]);
            // The position moves on, a partition leaves, another comes.
            let mut change = in_session(fetch("t", &[(1, 1), (3, 0)]), id, 3);
            change.forgotten_topics_data = vec![ForgottenTopic {
                topic: "t".into(),
                partitions: vec![2],
            }];
            assert_eq!(told(&client.call(&change, version).await), [(3, 0)]);
            client
                .call(&produce("t", 2, -1, Some(records.clone())), 7)
                .await;
            assert_eq!(
                told(&client.call(&in_session(none(), id, 4), version).await),
                []
            );
            // Wrong epoch, unknown session, then the end of it.
            let wrong = client.call(&in_session(none(), id, 9), version).await;
            assert_eq!((wrong.error_code, wrong.session_id), (71, 0));
            assert_eq!(
                client
                    .call(&in_session(none(), id + 1, 5), version)
                    .await
                    .error_code,
                70
            );
            let last = client
                .call(&in_session(fetch("t", &[(1, 0)]), id, -1), version)
                .await;
            assert_eq!(
                (told(&last), last.session_id),
                (vec![(1, records.len())], 0)
            );
            assert_eq!(
                client
                    .call(&in_session(none(), id, 5), version)
                    .await
                    .error_code,
                70
            );
        });
    }
}

#[test]
fn a_fetch_session_moves_with_its_connection() {
    simulate(|_| async {
        let server = Server::start(
            2,
            NetConfig {
                move_after_requests: 8,
                ..NetConfig::default()
            },
        )
        .await;
        let mut client = Client::connect().await;
        client.create_topic("t", 2).await;
        for partition in [0, 1] {
            client
                .call(&produce("t", partition, -1, Some(batch(&[b"x"]))), 7)
                .await;
            let ask = FetchRequest {
                max_wait_ms: 1,
                ..fetch("t", &[(partition, 0)])
            };
            let id = client
                .call(&in_session(ask.clone(), 0, 0), 11)
                .await
                .session_id;
            for epoch in 1..60 {
                let response = client.call(&in_session(ask.clone(), id, epoch), 11).await;
                assert_eq!(
                    (
                        response.error_code,
                        response.session_id,
                        told(&response).len()
                    ),
                    (0, id, 1)
                );
            }
        }
        let moved: u64 = server
            .shared
            .snapshot()
            .iter()
            .map(|shard| shard.connections_moved_in)
            .sum();
        assert!(moved >= 1, "one of the partitions lives on the other shard");
        server.stop().await;
    });
}

fn listed(timestamp: i64) -> ListOffsetsRequest {
    let partition = |partition_index| ListOffsetsPartition {
        partition_index,
        timestamp,
        ..Default::default()
    };
    let topic = ListOffsetsTopic {
        name: "t".into(),
        partitions: vec![partition(0), partition(5)],
    };
    ListOffsetsRequest {
        replica_id: -1,
        topics: vec![topic],
        ..Default::default()
    }
}

#[test]
fn offsets_are_listed_by_the_meaning_of_the_timestamp() {
    with_broker(|mut client| async move {
        client.create_topic("t", 1).await;
        for _ in 0..3 {
            client
                .call(&produce("t", 0, -1, Some(batch(&[b"x", b"y"]))), 9)
                .await;
        }
        for version in 1..=11 {
            for (timestamp, from_version, offset) in [
                (-1, 1, 6),
                (-2, 1, 0),
                (-4, 8, 0),
                (-5, 9, -1),
                (-6, 11, -1),
            ] {
                let response = client.call(&listed(timestamp), version).await;
                let partitions = &response.topics[0].partitions;
                let expected = if version >= from_version {
                    (0, offset)
                } else {
                    (35, -1)
                };
                assert_eq!(
                    (partitions[0].error_code, partitions[0].offset),
                    expected,
                    "{timestamp} in {version}"
                );
                if version >= from_version {
                    assert_eq!(partitions[1].error_code, 3);
                }
            }
        }
    });
}

#[test]
fn records_are_deleted_up_to_an_offset() {
    with_broker(|mut client| async move {
        client.create_topic("t", 1).await;
        client
            .call(&produce("t", 0, -1, Some(batch(&[b"x", b"y", b"z"]))), 9)
            .await;
        let delete = |offset| DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: "t".into(),
                partitions: vec![DeleteRecordsPartition {
                    partition_index: 0,
                    offset,
                }],
            }],
            ..Default::default()
        };
        for (version, offset, error, low) in [(0, 2, 0, 2), (1, 9, 1, -1), (2, -1, 0, 3)] {
            let response = client.call(&delete(offset), version).await;
            let partition = &response.topics[0].partitions[0];
            assert_eq!(
                (partition.error_code, partition.low_watermark),
                (error, low),
                "up to {offset}"
            );
        }
        assert_eq!(
            client.call(&listed(-2), 1).await.topics[0].partitions[0].offset,
            3
        );
    });
}

#[test]
fn epochs_end_where_they_ended() {
    with_broker(|mut client| async move {
        client.create_topic("t", 1).await;
        client
            .call(&produce("t", 0, -1, Some(batch(&[b"x", b"y"]))), 9)
            .await;
        let meta = client.call(&ask(Some(vec![named("t")]), false), 12).await;
        let epoch = meta.topics[0].partitions[0].leader_epoch;
        let ask = |leader_epoch| OffsetForLeaderEpochRequest {
            topics: vec![OffsetForLeaderTopic {
                topic: "t".into(),
                partitions: vec![OffsetForLeaderPartition {
                    partition: 0,
                    leader_epoch,
                    ..Default::default()
                }],
            }],
            ..Default::default()
        };
        for version in 2..=4 {
            let known = client.call(&ask(epoch), version).await;
            let end = &known.topics[0].partitions[0];
            assert_eq!(
                (end.error_code, end.leader_epoch, end.end_offset),
                (0, epoch, 2)
            );
            let unknown = client.call(&ask(epoch + 7), version).await;
            let end = &unknown.topics[0].partitions[0];
            assert_eq!(
                (end.error_code, end.leader_epoch, end.end_offset),
                (0, -1, -1)
            );
        }
    });
}

#[test]
fn producers_get_ids_of_their_own_and_transactions_are_refused() {
    with_broker(|mut client| async move {
        let mut ids = std::collections::HashSet::new();
        for version in 0..=5 {
            let response = client
                .call(&InitProducerIdRequest::default(), version)
                .await;
            assert_eq!((response.error_code, response.producer_epoch), (0, 0));
            assert!(response.producer_id >= 0 && ids.insert(response.producer_id));
        }
        let transactional = InitProducerIdRequest {
            transactional_id: Some("tx".into()),
            ..Default::default()
        };
        let response = client.call(&transactional, 4).await;
        assert_eq!((response.error_code, response.producer_id), (15, -1));
        let group = FindCoordinatorRequest {
            key: "g".into(),
            ..Default::default()
        };
        assert_eq!(client.call(&group, 0).await.error_code, 15);
        assert!(client.call(&group, 2).await.error_message.is_some());
        let batch = FindCoordinatorRequest {
            coordinator_keys: vec!["g".into(), "h".into()],
            ..Default::default()
        };
        let response = client.call(&batch, 5).await;
        assert!(
            response.coordinators.iter().all(|c| c.error_code == 15)
                && response.coordinators.len() == 2
        );
    });
}

fn new_topic(name: &'static str, partitions: i32, factor: i16) -> CreatableTopic {
    CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: factor,
        ..Default::default()
    }
}

#[test]
fn topics_are_created_one_by_one_each_with_its_own_error() {
    with_broker(|mut client| async move {
        let node = client.call(&ask(Some(vec![]), false), 4).await.brokers[0].node_id;
        let mut assigned = new_topic("assigned", -1, -1);
        assigned.assignments = vec![
            CreatableReplicaAssignment {
                partition_index: 1,
                broker_ids: vec![node],
            },
            CreatableReplicaAssignment {
                partition_index: 0,
                broker_ids: vec![node],
            },
        ];
        let mut misassigned = assigned.clone();
        misassigned.name = "misassigned".into();
        misassigned.assignments[0].broker_ids = vec![node + 1];
        let with_config = |name: &'static str, key: &'static str, value: &'static str| {
            let config = CreatableTopicConfig {
                name: key.into(),
                value: Some(value.into()),
            };
            CreatableTopic {
                configs: vec![config],
                ..new_topic(name, 2, 1)
            }
        };
        let topics = vec![
            new_topic("defaults", -1, -1),
            new_topic("wide", 5, 1),
            assigned,
            misassigned,
            new_topic("factor", 1, 3),
            new_topic("none", 0, 1),
            new_topic("bad name", 1, 1),
            with_config("kept", "retention.ms", "1000"),
            with_config("unknown", "no.such.setting", "1"),
            with_config("invalid", "retention.ms", "soon"),
            new_topic("twice", 1, 1),
            new_topic("twice", 1, 1),
        ];
        let request = CreateTopicsRequest {
            topics,
            ..Default::default()
        };
        let expected = [
            ("defaults", 0, 1),
            ("wide", 0, 5),
            ("assigned", 0, 2),
            ("misassigned", 39, -1),
            ("factor", 38, -1),
            ("none", 37, -1),
            ("bad name", 17, -1),
            ("kept", 0, 2),
            ("unknown", 40, -1),
            ("invalid", 40, -1),
            ("twice", 42, -1),
        ];
        let check = CreateTopicsRequest {
            validate_only: true,
            ..request.clone()
        };
        for (request, version) in [(check, 7), (request.clone(), 7)] {
            let response = client.call(&request, version).await;
            let got: Vec<(&str, i16, i32)> = response
                .topics
                .iter()
                .map(|t| (&*t.name, t.error_code, t.num_partitions))
                .collect();
            assert_eq!(got, expected, "validate only: {}", request.validate_only);
            for topic in &response.topics {
                assert_eq!(
                    topic.error_message.is_some(),
                    topic.error_code != 0,
                    "{}",
                    topic.name
                );
            }
            let kept = response.topics[7].configs.as_ref().unwrap();
            let retention = kept
                .iter()
                .find(|config| config.name == "retention.ms")
                .unwrap();
            assert_eq!(
                (retention.value.as_deref(), retention.config_source),
                (Some("1000"), source::TOPIC)
            );
        }
        for version in 2..=7 {
            let again = CreateTopicsRequest {
                topics: vec![new_topic("wide", 1, 1)],
                ..Default::default()
            };
            assert_eq!(client.call(&again, version).await.topics[0].error_code, 36);
        }
        let all = client.call(&ask(None, false), 4).await.topics.len();
        assert_eq!(all, 4, "validating created nothing");
    });
}

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    with_broker(|mut client| async move {
        for name in ["a", "b", "c"] {
            client.create_topic(name, 1).await;
        }
        let topics = client.call(&ask(None, false), 12).await.topics;
        let by_name = DeleteTopicsRequest {
            topic_names: vec!["a".into(), "nope".into()],
            ..Default::default()
        };
        let response = client.call(&by_name, 3).await;
        let codes: Vec<i16> = response
            .responses
            .iter()
            .map(|topic| topic.error_code)
            .collect();
        assert_eq!(codes, [0, 3]);
        let by = |name: Option<&'static str>, id| DeleteTopicState {
            name: name.map(Str::from),
            topic_id: id,
        };
        let request = DeleteTopicsRequest {
            topics: vec![
                by(None, topics[1].topic_id),
                by(None, Uuid::from_u128(5)),
                by(Some("c"), Uuid::nil()),
                by(Some("c"), topics[2].topic_id),
            ],
            ..Default::default()
        };
        let response = client.call(&request, 6).await;
        let got: Vec<(Option<&str>, i16)> = response
            .responses
            .iter()
            .map(|topic| (topic.name.as_deref(), topic.error_code))
            .collect();
        assert_eq!(
            got,
            [(Some("b"), 0), (None, 100), (Some("c"), 0), (Some("c"), 42)]
        );
        assert!(client.call(&ask(None, false), 4).await.topics.is_empty());
        let gone = client
            .call(&produce("a", 0, -1, Some(batch(&[b"x"]))), 9)
            .await;
        assert_eq!(gone.responses[0].partition_responses[0].error_code, 3);
    });
}

#[test]
fn topics_grow_but_do_not_shrink() {
    with_broker(|mut client| async move {
        client.create_topic("t", 2).await;
        let grow = |name: &'static str, count, validate_only| CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: name.into(),
                count,
                assignments: None,
            }],
            validate_only,
            ..Default::default()
        };
        for (name, count, validate_only, version, expected) in [
            ("t", 4, true, 0, 0),
            ("t", 1, false, 1, 37),
            ("t", 2, false, 2, 37),
            ("nope", 9, false, 3, 3),
            ("t", 4, false, 3, 0),
        ] {
            let response = client
                .call(&grow(name, count, validate_only), version)
                .await;
            assert_eq!(
                response.results[0].error_code, expected,
                "{name} to {count}"
            );
        }
        let topic = client
            .call(&ask(Some(vec![named("t")]), false), 4)
            .await
            .topics
            .remove(0);
        assert_eq!(topic.partitions.len(), 4);
        let fresh = client
            .call(&produce("t", 3, -1, Some(batch(&[b"x"]))), 9)
            .await;
        assert_eq!(fresh.responses[0].partition_responses[0].error_code, 0);
    });
}

async fn described(
    client: &mut Client,
    kind: i8,
    name: &str,
    version: i16,
) -> (i16, Vec<DescribeConfigsResourceResult>) {
    let resource = DescribeConfigsResource {
        resource_type: kind,
        resource_name: Str::from(name.to_owned()),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: version >= 3,
    };
    let mut response = client.call(&request, version).await;
    let result = response.results.remove(0);
    (result.error_code, result.configs)
}

fn value(configs: &[DescribeConfigsResourceResult], name: &str) -> (Option<String>, i8) {
    let config = configs
        .iter()
        .find(|config| &*config.name == name)
        .unwrap_or_else(|| panic!("no {name}"));
    (
        config.value.as_ref().map(|value| value.to_string()),
        config.config_source,
    )
}

#[test]
fn settings_are_altered_one_by_one_and_shown_with_their_sources() {
    with_broker(|mut client| async move {
        client.create_topic("t", 1).await;
        let alter = |kind,
                     name: &'static str,
                     ops: &[(&'static str, i8, Option<&'static str>)],
                     validate_only| {
            let configs = ops.iter().map(|(name, op, value)| AlterableConfig {
                name: (*name).into(),
                config_operation: *op,
                value: value.map(Str::from),
            });
            let resource = AlterConfigsResource {
                resource_type: kind,
                resource_name: name.into(),
                configs: configs.collect(),
            };
            IncrementalAlterConfigsRequest {
                resources: vec![resource],
                validate_only,
            }
        };
        let set = |v| [("retention.ms", operation::SET, Some(v))];
        let cases: Vec<(IncrementalAlterConfigsRequest, i16)> = vec![
            (alter(resource::TOPIC, "t", &set("7777"), true), 0),
            (alter(resource::TOPIC, "t", &set("5555"), false), 0),
            (
                alter(
                    resource::TOPIC,
                    "t",
                    &[("cleanup.policy", operation::APPEND, Some("compact"))],
                    false,
                ),
                0,
            ),
            (
                alter(
                    resource::TOPIC,
                    "t",
                    &[("cleanup.policy", operation::SUBTRACT, Some("delete"))],
                    false,
                ),
                0,
            ),
            (
                alter(
                    resource::TOPIC,
                    "t",
                    &[("retention.ms", operation::APPEND, Some("1"))],
                    false,
                ),
                40,
            ),
            (
                alter(
                    resource::TOPIC,
                    "t",
                    &[("retention.ms", operation::SET, None)],
                    false,
                ),
                42,
            ),
            (
                alter(
                    resource::TOPIC,
                    "t",
                    &[("retention.ms", 9, Some("1"))],
                    false,
                ),
                42,
            ),
            (alter(resource::TOPIC, "t", &set("soon"), false), 40),
            (alter(resource::TOPIC, "nope", &set("1"), false), 3),
            (alter(resource::BROKER, "77", &set("1"), false), 42),
            (alter(resource::GROUP, "g", &set("1"), false), 42),
            (
                alter(
                    resource::BROKER,
                    "",
                    &[("log.retention.ms", operation::SET, Some("4444"))],
                    false,
                ),
                0,
            ),
            (
                alter(
                    resource::BROKER,
                    "",
                    &[("node.id", operation::SET, Some("5"))],
                    false,
                ),
                42,
            ),
        ];
        for (version, (request, expected)) in cases
            .into_iter()
            .enumerate()
            .map(|(i, case)| ((i % 2) as i16, case))
        {
            let response = client.call(&request, version).await;
            let result = &response.responses[0];
            assert_eq!(
                result.error_code, expected,
                "{request:?}: {:?}",
                result.error_message
            );
            assert_eq!(result.error_message.is_some(), expected != 0);
        }
        let mut twice = alter(resource::TOPIC, "t", &set("1"), false);
        twice.resources.push(twice.resources[0].clone());
        assert!(client
            .call(&twice, 1)
            .await
            .responses
            .iter()
            .all(|result| result.error_code == 42));

        for version in 1..=4 {
            let (error, configs) = described(&mut client, resource::TOPIC, "t", version).await;
            assert_eq!(error, 0);
            assert_eq!(
                value(&configs, "retention.ms"),
                (Some("5555".into()), source::TOPIC)
            );
            assert_eq!(
                value(&configs, "cleanup.policy"),
                (Some("compact".into()), source::TOPIC)
            );
            assert_eq!(
                value(&configs, "max.message.bytes"),
                (Some("1048588".into()), source::DEFAULT)
            );
            let retention = configs
                .iter()
                .find(|config| config.name == "retention.ms")
                .unwrap();
            assert!(
                retention.synonyms.len() >= 3,
                "own, cluster's and default: {:?}",
                retention.synonyms
            );
            assert_eq!(retention.documentation.is_some(), version >= 3);
            assert_eq!(retention.config_type != 0, version >= 3);
        }
        let reset = alter(
            resource::TOPIC,
            "t",
            &[("retention.ms", operation::DELETE, None)],
            false,
        );
        assert_eq!(client.call(&reset, 1).await.responses[0].error_code, 0);
        let (_, configs) = described(&mut client, resource::TOPIC, "t", 4).await;
        assert_eq!(
            value(&configs, "retention.ms"),
            (Some("4444".into()), source::DYNAMIC_DEFAULT_BROKER)
        );

        // AlterConfigs replaces everything.
        let replace = AlterConfigsRequest {
            resources: vec![alter_configs::AlterConfigsResource {
                resource_type: resource::TOPIC,
                resource_name: "t".into(),
                configs: vec![alter_configs::AlterableConfig {
                    name: "retention.bytes".into(),
                    value: Some("9".into()),
                }],
            }],
            validate_only: false,
        };
        for version in 0..=2 {
            assert_eq!(
                client.call(&replace, version).await.responses[0].error_code,
                0
            );
        }
        let (_, configs) = described(&mut client, resource::TOPIC, "t", 4).await;
        assert_eq!(
            value(&configs, "retention.bytes"),
            (Some("9".into()), source::TOPIC)
        );
        assert_eq!(
            value(&configs, "cleanup.policy"),
            (Some("delete".into()), source::DEFAULT)
        );

        let (error, cluster) = described(&mut client, resource::BROKER, "", 4).await;
        assert_eq!((error, cluster.len()), (0, 1));
        let node = client
            .call(&DescribeClusterRequest::default(), 0)
            .await
            .controller_id;
        let (error, broker) = described(&mut client, resource::BROKER, &node.to_string(), 4).await;
        assert_eq!(error, 0);
        assert_eq!(value(&broker, "log.retention.ms").0, Some("4444".into()));
        let partitions = broker
            .iter()
            .find(|config| config.name == "num.partitions")
            .unwrap();
        assert!(partitions.read_only);
        assert_eq!(
            described(&mut client, resource::BROKER, "99", 4).await.0,
            42
        );
        assert_eq!(
            described(&mut client, resource::TOPIC, "bad name", 4)
                .await
                .0,
            17
        );
        assert_eq!(described(&mut client, 99, "x", 4).await.0, 42);
    });
}

#[test]
fn the_cluster_its_disks_and_its_partitions_are_described() {
    with_broker(|mut client| async move {
        client.create_topic("t", 3).await;
        let records = batch(&[b"x"]);
        client
            .call(&produce("t", 1, -1, Some(records.clone())), 9)
            .await;
        for version in 0..=2 {
            let cluster = client
                .call(&DescribeClusterRequest::default(), version)
                .await;
            assert_eq!(
                (
                    cluster.error_code,
                    cluster.brokers.len(),
                    cluster.brokers[0].port
                ),
                (0, 1, 9192)
            );
        }
        let controllers = DescribeClusterRequest {
            endpoint_type: 2,
            ..Default::default()
        };
        assert_eq!(client.call(&controllers, 1).await.error_code, 114);
        for version in 1..=4 {
            let dirs = client
                .call(&DescribeLogDirsRequest { topics: None }, version)
                .await;
            let topic = &dirs.results[0].topics[0];
            assert_eq!(&*topic.name, "t");
            let of_one = topic
                .partitions
                .iter()
                .find(|partition| partition.partition_index == 1)
                .unwrap();
            assert!(of_one.partition_size >= records.len() as i64);
        }
        let request = DescribeTopicPartitionsRequest {
            response_partition_limit: 2,
            ..Default::default()
        };
        let page = client.call(&request, 0).await;
        assert_eq!(page.topics[0].partitions.len(), 2);
        let cursor = page.next_cursor.unwrap();
        assert_eq!((&*cursor.topic_name, cursor.partition_index), ("t", 2));
        let rest = DescribeTopicPartitionsRequest {
            cursor: Some(cursor),
            ..request
        };
        let page = client.call(&rest, 0).await;
        assert_eq!(
            (page.topics[0].partitions.len(), page.next_cursor),
            (1, None)
        );
    });
}

#[test]
fn every_version_that_is_advertised_is_served() {
    with_broker(|mut client| async move {
        for served in versions::SERVED {
            for version in served.min..=served.max {
                // An empty request of every key and version; what matters is that it is answered or refused in order,
                // never with a broken frame.
                let answered = client.call_empty(served.key, version).await;
                assert!(answered, "{} {version}", served.key);
            }
        }
    });
}
