//! Owns the end-to-end tests of what Produce answers and what producers are given to identify themselves.
//! Does not know how a connection orders its answers.
//! Invariant: every answer is read by the wire codec of the version it was asked in.

use crate::support::*;
use millrace_net::wire::find_coordinator::FindCoordinatorRequest;
use millrace_net::wire::init_producer_id::InitProducerIdRequest;

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
        /// Topic, partition, acks, records, version and the error expected.
        type Case = (&'static str, i32, i16, Option<Vec<u8>>, i16, i16);
        let cases: [Case; 10] = [
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
