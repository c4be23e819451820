//! Owns the end-to-end tests of the requests about offsets: by time, up to which to delete, where an epoch ends.
//! Does not know records.
//! Invariant: every answer is read by the wire codec of the version it was asked in.

use crate::support::*;
use millrace_net::wire::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use millrace_net::wire::fetch::FetchRequest;
use millrace_net::wire::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use millrace_net::NetConfig;

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
                // All have one time; the first of them is meant.
                (-3, 7, 0),
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
fn a_leader_epoch_of_the_past_or_the_future_is_refused() {
    simulate(|_| async {
        // Every start is an epoch of its own: the second one has a past.
        let first = Server::start(2, NetConfig::default()).await;
        Client::connect().await.create_topic("t", 1).await;
        first.stop().await;
        let server = Server::start(2, NetConfig::default()).await;
        let mut client = Client::connect().await;
        let meta = client.call(&ask(Some(vec![named("t")]), false), 12).await;
        let epoch = meta.topics[0].partitions[0].leader_epoch;
        assert!(epoch > 0, "{epoch}");
        for (theirs, expected) in [(-1, 0), (epoch, 0), (epoch - 1, 74), (epoch + 1, 75)] {
            let mut request = FetchRequest {
                max_wait_ms: 1,
                ..fetch("t", &[(0, 0)])
            };
            request.topics[0].partitions[0].current_leader_epoch = theirs;
            for version in 9..=12 {
                let response = client.call(&request, version).await;
                let error = response.responses[0].partitions[0].error_code;
                assert_eq!(error, expected, "fetch {version} in epoch {theirs}");
            }
            let mut request = latest("t");
            request.topics[0].partitions[0].current_leader_epoch = theirs;
            for version in 4..=11 {
                let response = client.call(&request, version).await;
                let error = response.topics[0].partitions[0].error_code;
                assert_eq!(error, expected, "list {version} in epoch {theirs}");
            }
            let request = OffsetForLeaderEpochRequest {
                topics: vec![OffsetForLeaderTopic {
                    topic: "t".into(),
                    partitions: vec![OffsetForLeaderPartition {
                        partition: 0,
                        current_leader_epoch: theirs,
                        leader_epoch: epoch,
                    }],
                }],
                ..Default::default()
            };
            let response = client.call(&request, 4).await;
            let error = response.topics[0].partitions[0].error_code;
            assert_eq!(error, expected, "end in epoch {theirs}");
        }
        server.stop().await;
    });
}
