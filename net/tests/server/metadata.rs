//! Owns the end-to-end tests of what Metadata answers: names, ids, null and empty, topics made by looking.
//! Does not know other API keys.
//! Invariant: every answer is read by the wire codec of the version it was asked in.

use crate::support::*;
use millrace_net::wire::metadata::MetadataRequestTopic;
use uuid::Uuid;

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
        assert_eq!(codes, [0, 17], "each once, however often it is named");
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
        // The Java client has an empty name beside the id.
        let empty = MetadataRequestTopic {
            topic_id: id,
            name: Some("".into()),
        };
        let response = client.call(&ask(Some(vec![empty]), true), 12).await;
        let topic = &response.topics[0];
        assert_eq!((topic.error_code, topic.name.as_deref()), (0, Some("a")));
        let early = client.call(&ask(Some(vec![by_id(id)]), true), 10).await;
        assert_eq!(early.topics[0].error_code, 42);
    });
}
