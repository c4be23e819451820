//! Owns the end-to-end tests of what Fetch answers: records, waiting, sessions.
//! Does not know how a connection orders its answers.
//! Invariant: every answer is read by the wire codec of the version it was asked in.

use crate::support::*;
use millrace_engine::rt;
use millrace_net::wire::fetch::{FetchRequest, FetchResponse, ForgottenTopic};
use millrace_net::NetConfig;

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
fn readers_of_committed_records_get_a_list_of_aborted_transactions_others_null() {
    with_broker(|mut client| async move {
        client.create_topic("t", 1).await;
        client
            .call(&produce("t", 0, -1, Some(batch(&[b"x"]))), 9)
            .await;
        for (isolation_level, aborted) in [(0, None), (1, Some(vec![]))] {
            let request = FetchRequest {
                isolation_level,
                ..fetch("t", &[(0, 0)])
            };
            for version in 4..=12 {
                let response = client.call(&request, version).await;
                let partition = &response.responses[0].partitions[0];
                assert_eq!(partition.aborted_transactions, aborted);
                assert_eq!(partition.last_stable_offset, 1);
                assert_eq!(partition.preferred_read_replica, -1, "nor any KIP-392");
            }
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
                ..Default::default()
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
