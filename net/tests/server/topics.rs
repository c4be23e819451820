//! Owns the end-to-end tests of topics created, deleted and grown.
//! Does not know their settings once they exist.
//! Invariant: every answer is read by the wire codec of the version it was asked in.

use crate::support::*;
use millrace_net::wire::config_codes::source;
use millrace_net::wire::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use millrace_net::wire::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
    CreateTopicsResponse,
};
use millrace_net::wire::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use millrace_net::wire::Str;
use uuid::Uuid;

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
fn a_name_is_judged_before_the_rest_of_the_topic() {
    with_broker(|mut client| async move {
        client.create_topic("there", 1).await;
        let mut valueless = new_topic("valueless", 1, 1);
        valueless.configs = vec![CreatableTopicConfig {
            name: "retention.ms".into(),
            value: None,
        }];
        let mut assigned = new_topic("there", 3, -1);
        assigned.assignments = vec![CreatableReplicaAssignment::default()];
        for (topic, expected) in [
            // What Connect and others ask for that only want it to be there.
            (new_topic("there", 1, 3), 36),
            (new_topic("there", 0, 1), 36),
            (assigned, 36),
            (new_topic("bad name", 1, 3), 17),
            (new_topic("__cluster_metadata", 1, 1), 17),
            (valueless, 40),
            (new_topic("enormous", 100_001, 1), 37),
        ] {
            let name = topic.name.clone();
            let request = CreateTopicsRequest {
                topics: vec![topic],
                ..Default::default()
            };
            let answered = client.call(&request, 7).await.topics.remove(0);
            assert_eq!(answered.error_code, expected, "{name}");
        }
    });
}

#[test]
fn a_request_is_about_no_more_partitions_than_a_topic_may_have() {
    with_broker(|mut client| async move {
        let create = |partitions: &[i32]| CreateTopicsRequest {
            topics: ["a", "b", "c"]
                .iter()
                .zip(partitions)
                .map(|(name, partitions)| new_topic(name, *partitions, 1))
                .collect(),
            validate_only: true,
            ..Default::default()
        };
        let codes = |response: CreateTopicsResponse| -> Vec<i16> {
            response
                .topics
                .iter()
                .map(|topic| topic.error_code)
                .collect()
        };
        let fits = client.call(&create(&[99_998, -1, 1]), 7).await;
        assert_eq!(codes(fits), [0, 0, 0]);
        let too_many = client.call(&create(&[99_998, -1, 2]), 7).await;
        assert_eq!(codes(too_many), [44, 44, 44]);
        client.create_topic("d", 5).await;
        client.create_topic("e", 5).await;
        let grow = |count| CreatePartitionsRequest {
            topics: [("d", 50_005), ("e", count)]
                .into_iter()
                .map(|(name, count)| CreatePartitionsTopic {
                    name: name.into(),
                    count,
                    assignments: None,
                })
                .collect(),
            validate_only: true,
            ..Default::default()
        };
        for (count, expected) in [(50_005, 0), (50_006, 44)] {
            let grown = client.call(&grow(count), 3).await;
            let codes: Vec<i16> = grown.results.iter().map(|t| t.error_code).collect();
            assert_eq!(codes, [expected; 2], "{count}");
        }
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
