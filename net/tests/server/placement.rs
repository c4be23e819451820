//! Owns the end-to-end tests of where connections live: spread over the shards, moved to their partitions.
//! Does not know what single API keys answer.
//! Invariant: every test runs on the simulator, so that time decides nothing.

use crate::support::*;
use millrace_net::wire::api_versions::ApiVersionsRequest;
use millrace_net::wire::fetch::FetchRequest;
use millrace_net::wire::produce::ProduceRequest;
use millrace_net::NetConfig;

#[test]
fn few_connections_are_spread_evenly_over_the_shards() {
    simulate(|_| async {
        let server = Server::start(4, NetConfig::default()).await;
        let mut clients = Vec::new();
        for _ in 0..8 {
            let mut client = Client::connect().await;
            client.call(&ApiVersionsRequest::default(), 0).await;
            clients.push(client);
        }
        assert_eq!(server.shared.connections(), [2; 4]);
        server.stop().await;
    });
}

#[test]
fn connections_move_to_the_shard_of_their_partitions_without_losing_a_request() {
    simulate(|_| async {
        let server = Server::start(
            2,
            NetConfig {
                move_after_requests: 16,
                ..NetConfig::default()
            },
        )
        .await;
        let mut first = Client::connect().await;
        first.create_topic("t", 2).await;
        let mut second = Client::connect().await;
        second.call(&ApiVersionsRequest::default(), 0).await;
        assert_eq!(server.shared.connections(), [1, 1]);
        // Each of the two produces to one partition, deeply pipelined; at least one of the two arrangements of
        // partitions over shards is wrong for both, and both are tried.
        let mut bases = [0i64; 2];
        for arrangement in [[0, 1], [1, 0]] {
            for _ in 0..30 {
                let mut sent = Vec::new();
                for _ in 0..20 {
                    let a = first
                        .send(&produce("t", arrangement[0], -1, Some(batch(&[b"a"]))), 9)
                        .await;
                    let b = second
                        .send(&produce("t", arrangement[1], -1, Some(batch(&[b"b"]))), 9)
                        .await;
                    sent.push((a, b));
                }
                for (a, b) in sent {
                    let a = first.receive::<ProduceRequest>(a, 9).await;
                    let b = second.receive::<ProduceRequest>(b, 9).await;
                    for (response, partition) in [(a, arrangement[0]), (b, arrangement[1])] {
                        let answer = &response.responses[0].partition_responses[0];
                        assert_eq!(
                            (answer.error_code, answer.base_offset),
                            (0, bases[partition as usize])
                        );
                        bases[partition as usize] += 1;
                    }
                }
            }
        }
        let snapshot = server.shared.snapshot();
        let moved: Vec<u64> = snapshot
            .iter()
            .map(|shard| shard.connections_moved_in)
            .collect();
        assert!(
            moved.iter().all(|moved| (1..=3).contains(moved)),
            "moved in: {moved:?}"
        );
        assert_eq!(server.shared.connections(), [1, 1], "both shards stay busy");
        server.stop().await;
    });
}

#[test]
fn a_connection_moves_only_when_nothing_is_under_way_however_long_that_takes() {
    let config = NetConfig {
        move_after_requests: 4,
        ..NetConfig::default()
    };
    with_server(2, config, |server, mut client| async move {
        client.create_topic("t", 2).await;
        for partition in [0, 1] {
            let parked = FetchRequest {
                max_wait_ms: 20_000,
                min_bytes: i32::MAX,
                ..fetch("t", &[(partition, 0)])
            };
            let fetched = client.send(&parked, 4).await;
            let mut produced = Vec::new();
            for _ in 0..10 {
                let request = produce("t", partition, -1, Some(batch(&[b"x"])));
                produced.push(client.send(&request, 9).await);
            }
            client.receive::<FetchRequest>(fetched, 4).await;
            for correlation in produced {
                client.receive::<ProduceRequest>(correlation, 9).await;
            }
        }
        let moved: u64 = server
            .shared
            .snapshot()
            .iter()
            .map(|shard| shard.connections_moved_in)
            .sum();
        assert!(moved >= 1, "one of the partitions lives on the other shard");
    });
}
