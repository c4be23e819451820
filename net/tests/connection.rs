//! Owns the end-to-end tests of connections: order, bounds, timeouts, hostile bytes, moves and the stop.
//! Does not know what single API keys answer.
//! Invariant: every test runs on the simulator, so that time decides nothing.

mod support;

use bytes::Bytes;
use millrace_engine::rt;
use millrace_net::wire::api_versions::ApiVersionsRequest;
use millrace_net::wire::fetch::FetchRequest;
use millrace_net::wire::init_producer_id::InitProducerIdRequest;
use millrace_net::wire::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use millrace_net::wire::metadata::MetadataRequest;
use millrace_net::wire::produce::ProduceRequest;
use millrace_net::wire::{frame, versions};
use millrace_net::NetConfig;
use std::time::Duration;
use support::*;

fn latest(topic: &'static str) -> ListOffsetsRequest {
    let partition = ListOffsetsPartition {
        partition_index: 0,
        timestamp: -1,
        ..Default::default()
    };
    let topic = ListOffsetsTopic {
        name: topic.into(),
        partitions: vec![partition],
    };
    ListOffsetsRequest {
        replica_id: -1,
        topics: vec![topic],
        ..Default::default()
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_and_see_what_came_before() {
    simulate(|_| async {
        let server = Server::start(2, NetConfig::default()).await;
        let mut client = Client::connect().await;
        client.create_topic("t", 4).await;
        // All kinds interleaved, everything sent before anything is read.
        let mut sent = Vec::new();
        for i in 0..60 {
            match i % 4 {
                0 | 1 => sent.push((
                    i,
                    client
                        .send(&produce("t", 0, -1, Some(batch(&[b"x"]))), 9)
                        .await,
                )),
                2 => sent.push((i, client.send(&fetch("t", &[(0, 0)]), 6).await)),
                _ => sent.push((i, client.send(&latest("t"), 4).await)),
            }
        }
        let mut produced = 0;
        for (i, correlation) in sent {
            match i % 4 {
                0 | 1 => {
                    let response = client.receive::<ProduceRequest>(correlation, 9).await;
                    let partition = &response.responses[0].partition_responses[0];
                    assert_eq!((partition.error_code, partition.base_offset), (0, produced));
                    produced += 1;
                }
                2 => {
                    let response = client.receive::<FetchRequest>(correlation, 6).await;
                    let partition = &response.responses[0].partitions[0];
                    // It runs beside the produces around it: what of them is durable yet is left to timing.
                    assert_eq!(partition.error_code, 0);
                    assert!((0..=30).contains(&partition.high_watermark));
                }
                _ => {
                    let response = client.receive::<ListOffsetsRequest>(correlation, 4).await;
                    assert_eq!(
                        response.topics[0].partitions[0].offset, produced,
                        "a barrier sees exactly what was before"
                    );
                }
            }
        }
        server.stop().await;
    });
}

#[test]
fn a_parked_fetch_does_not_hold_up_the_produce_behind_it() {
    simulate(|_| async {
        let server = Server::start(2, NetConfig::default()).await;
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let begun = rt::now();
        let parked = FetchRequest {
            max_wait_ms: 60_000,
            ..fetch("t", &[(0, 0)])
        };
        let fetched = client.send(&parked, 4).await;
        let produced = client
            .send(&produce("t", 0, 1, Some(batch(&[b"wakes it"]))), 3)
            .await;
        let response = client.receive::<FetchRequest>(fetched, 4).await;
        assert_eq!(
            response.responses[0].partitions[0].records.len(),
            batch(&[b"wakes it"]).len()
        );
        assert_eq!(
            client
                .receive::<ProduceRequest>(produced, 3)
                .await
                .responses[0]
                .partition_responses[0]
                .error_code,
            0
        );
        assert!(rt::now().since(begun) < Duration::from_secs(1));
        server.stop().await;
    });
}

#[test]
fn acks_0_is_never_answered_and_a_failure_closes_the_connection() {
    simulate(|_| async {
        let server = Server::start(1, NetConfig::default()).await;
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        for _ in 0..3 {
            client
                .send(&produce("t", 0, 0, Some(batch(&[b"x"]))), 7)
                .await;
        }
        // The next frame that comes answers the next request that wants an answer, and its batch lies behind theirs.
        let answered = client
            .call(&produce("t", 0, 1, Some(batch(&[b"x"]))), 7)
            .await;
        let partition = &answered.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, 3));
        client
            .send(&produce("t", 9, 0, Some(batch(&[b"x"]))), 7)
            .await;
        client.expect_close().await;
        server.stop().await;
    });
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_and_the_connection_goes_on() {
    simulate(|_| async {
        let server = Server::start(1, NetConfig::default()).await;
        let mut client = Client::connect().await;
        // Version 99 with a header and body nobody here can know.
        client
            .send_raw(&[
                0, 0, 0, 12, 0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xff, 0x7f, 0xee,
            ])
            .await
            .unwrap();
        let max = versions::served(18).unwrap().max as u8;
        let expected = [0, 0, 0, 5, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, max];
        assert_eq!(client.frame().await.unwrap()[..], expected);
        let response = client.call(&ApiVersionsRequest::default(), 0).await;
        assert_eq!(response.error_code, 0);
        assert_eq!(
            response.api_keys[0].min_version, 0,
            "Produce is advertised from 0 (KAFKA-18659)"
        );
        server.stop().await;
    });
}

#[test]
fn other_unknown_keys_and_versions_close_after_what_was_asked_before_is_answered() {
    // Produce 2, Fetch 3, a key that is not served (JoinGroup), a key that does not exist.
    for (key, version) in [
        (0i16, 2i16),
        (1, 3),
        (0, 12),
        (1, 13),
        (11, 0),
        (999, 0),
        (-1, 0),
    ] {
        simulate(|_| async move {
            let server = Server::start(1, NetConfig::default()).await;
            let mut client = Client::connect().await;
            let before = client
                .send(
                    &MetadataRequest {
                        topics: Some(vec![]),
                        ..Default::default()
                    },
                    1,
                )
                .await;
            let mut request = vec![0, 0, 0, 10];
            request.extend(key.to_be_bytes());
            request.extend(version.to_be_bytes());
            request.extend([0, 0, 0, 9, 0xff, 0xff]);
            client.send_raw(&request).await.unwrap();
            client.receive::<MetadataRequest>(before, 1).await;
            client.expect_close().await;
            server.stop().await;
        });
    }
}

#[test]
fn sizes_beyond_the_cap_close_before_anything_is_read() {
    for size in [-1i32, i32::MIN, 1001, i32::MAX] {
        simulate(|_| async move {
            let server = Server::start(
                1,
                NetConfig {
                    request_bytes_max: 1000,
                    ..NetConfig::default()
                },
            )
            .await;
            let mut client = Client::connect().await;
            client.send_raw(&size.to_be_bytes()).await.unwrap();
            client.expect_close().await;
            server.stop().await;
        });
    }
}

#[test]
fn garbage_closes_its_connection_and_no_other() {
    simulate(|seed| async move {
        let server = Server::start(2, NetConfig::default()).await;
        let mut bystander = Client::connect().await;
        bystander.create_topic("t", 2).await;
        let good = [
            frame::encode_request(1, None, &produce("t", 0, -1, Some(batch(&[b"abc"]))), 9)
                .unwrap(),
            frame::encode_request(1, None, &fetch("t", &[(0, 0), (1, 0)]), 12).unwrap(),
            frame::encode_request(1, None, &MetadataRequest::default(), 12).unwrap(),
            frame::encode_request(1, None, &latest("t"), 7).unwrap(),
        ];
        for round in 0..120usize {
            let mut client = Client::connect().await;
            let mut bytes = good[round % good.len()].to_vec();
            if round % 3 == 0 {
                bytes[4..]
                    .iter_mut()
                    .for_each(|b| *b = rt::random_u64() as u8);
            } else {
                // The key stays, so that the damage reaches the decoder of the body.
                for _ in 0..1 + round % 4 {
                    let at = 8 + rt::random_u64() as usize % (bytes.len() - 8);
                    bytes[at] ^= 1 << (rt::random_u64() % 8);
                }
            }
            // It may well be closed while this is being written.
            let sent = client.send_raw(&bytes).await;
            if round % 2 == 0 && sent.is_ok() {
                drop(rt::timeout(millis(20), client.frame()).await);
            }
            drop(client);
        }
        assert_eq!(
            bystander.call(&latest("t"), 1).await.topics[0].partitions[0].error_code,
            0,
            "seed {seed}"
        );
        server.stop().await;
    });
}

#[test]
fn a_slow_reader_is_not_read_from_and_loses_nothing() {
    simulate(|_| async {
        let config = NetConfig {
            connection_bytes_max: 120_000,
            fetch_bytes_max: 80_000,
            ..NetConfig::default()
        };
        let server = Server::start(1, config).await;
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let value = vec![7u8; 60_000];
        client
            .call(&produce("t", 0, -1, Some(batch(&[&value]))), 3)
            .await;
        let asked = 100;
        let mut sender = Client::connect().await;
        let mut sent = Vec::new();
        for _ in 0..asked {
            sent.push(sender.send(&fetch("t", &[(0, 0)]), 4).await);
        }
        rt::sleep(Duration::from_secs(2)).await;
        let served = server.requests();
        // What the socket's window takes, one response under way and one more.
        assert!(
            served < 20,
            "{served} of {asked} served although nobody reads"
        );
        rt::sleep(Duration::from_secs(2)).await;
        assert_eq!(server.requests(), served, "it still serves");
        let frame =
            frame::encode_request(1, Some("test".into()), &fetch("t", &[(0, 0)]), 4).unwrap();
        let held = server.brokers[0].metrics().request_bytes;
        assert!(
            held <= 2 * frame.len() as u64,
            "more than one response is prepared in advance: {held} bytes of requests under way"
        );
        // Somebody else does not notice.
        assert_eq!(
            client.call(&latest("t"), 1).await.topics[0].partitions[0].offset,
            1
        );
        for correlation in sent {
            let response = sender.receive::<FetchRequest>(correlation, 4).await;
            assert!(response.responses[0].partitions[0].records.len() > 60_000);
        }
        server.stop().await;
    });
}

#[test]
fn while_slow_readers_hold_too_much_the_others_get_less_but_are_served() {
    simulate(|_| async {
        let config = NetConfig {
            unsent_bytes_max: 100_000,
            ..NetConfig::default()
        };
        let server = Server::start(1, config).await;
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let records = batch(&[&[7u8; 20_000]]);
        for _ in 0..20 {
            client
                .call(&produce("t", 0, -1, Some(records.clone())), 3)
                .await;
        }
        let full = client.call(&fetch("t", &[(0, 0)]), 4).await;
        let everything = 20 * records.len();
        assert_eq!(full.responses[0].partitions[0].records.len(), everything);
        let mut slow = Client::connect().await;
        for _ in 0..10 {
            slow.send(&fetch("t", &[(0, 0)]), 4).await;
        }
        rt::sleep(Duration::from_secs(1)).await;
        let some = client.call(&fetch("t", &[(0, 0)]), 4).await;
        let some = some.responses[0].partitions[0].records.len();
        assert!(some > 0 && some <= 64 << 10, "{some} bytes");
        for _ in 0..10 {
            slow.frame().await.unwrap();
        }
        rt::sleep(Duration::from_secs(1)).await;
        let full = client.call(&fetch("t", &[(0, 0)]), 4).await;
        assert_eq!(full.responses[0].partitions[0].records.len(), everything);
        server.stop().await;
    });
}

#[test]
fn a_client_that_takes_nothing_at_all_is_closed_in_the_end() {
    simulate(|_| async {
        let config = NetConfig {
            write_timeout: Duration::from_secs(20),
            ..NetConfig::default()
        };
        let server = Server::start(1, config).await;
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        client
            .call(&produce("t", 0, -1, Some(batch(&[&vec![7u8; 500_000]]))), 3)
            .await;
        let mut stuck = Client::connect().await;
        for _ in 0..20 {
            stuck.send(&fetch("t", &[(0, 0)]), 4).await;
        }
        rt::sleep(Duration::from_secs(19)).await;
        assert_eq!(server.shared.connections(), [2]);
        rt::sleep(Duration::from_secs(12)).await;
        assert_eq!(server.shared.connections(), [1]);
        server.stop().await;
    });
}

#[test]
fn requests_in_flight_are_bounded() {
    simulate(|_| async {
        let config = NetConfig {
            requests_in_flight_max: 4,
            ..NetConfig::default()
        };
        let server = Server::start(1, config).await;
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let parked = FetchRequest {
            max_wait_ms: 100_000,
            max_bytes: 1000,
            ..fetch("t", &[(0, 0)])
        };
        for _ in 0..8 {
            client.send(&parked, 4).await;
        }
        rt::sleep(Duration::from_secs(1)).await;
        let held = server.brokers[0].metrics().request_bytes;
        let frame = frame::encode_request(1, Some("test".into()), &parked, 4)
            .unwrap()
            .len() as u64
            - 4;
        assert_eq!(held, 4 * frame, "only those under way hold memory");
        server.stop().await;
    });
}

#[test]
fn idle_connections_and_half_frames_time_out_and_busy_ones_do_not() {
    simulate(|_| async {
        let config = NetConfig {
            idle_timeout: Duration::from_secs(60),
            frame_timeout: Duration::from_secs(10),
            ..NetConfig::default()
        };
        let server = Server::start(1, config).await;
        let mut busy = Client::connect().await;
        busy.create_topic("t", 1).await;
        let mut idle = Client::connect().await;
        idle.call(&latest("t"), 1).await;
        let mut half_prefix = Client::connect().await;
        half_prefix.send_raw(&[0, 0]).await.unwrap();
        let mut half_body = Client::connect().await;
        half_body.send_raw(&[0, 0, 1, 0, 0, 3, 0, 1]).await.unwrap();
        let mut parked = Client::connect().await;
        let wait = FetchRequest {
            max_wait_ms: 100_000,
            ..fetch("t", &[(0, 0)])
        };
        let waiting = parked.send(&wait, 4).await;
        rt::sleep(Duration::from_secs(15)).await;
        assert_eq!(server.shared.connections(), [3], "the half frames are gone");
        half_prefix.expect_close().await;
        half_body.expect_close().await;
        for _ in 0..8 {
            rt::sleep(Duration::from_secs(8)).await;
            busy.call(&latest("t"), 1).await;
        }
        assert_eq!(
            server.shared.connections(),
            [2],
            "the idle one is gone, the parked one is not"
        );
        idle.expect_close().await;
        parked.receive::<FetchRequest>(waiting, 4).await;
        server.stop().await;
    });
}

#[test]
fn connections_beyond_the_caps_are_closed_at_once() {
    simulate(|_| async {
        let config = NetConfig {
            connections_max: 3,
            ..NetConfig::default()
        };
        let server = Server::start(2, config).await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            let mut client = Client::connect().await;
            client.call(&ApiVersionsRequest::default(), 0).await;
            clients.push(client);
        }
        Client::connect().await.expect_close().await;
        drop(clients.pop());
        rt::sleep(millis(100)).await;
        Client::connect()
            .await
            .call(&ApiVersionsRequest::default(), 0)
            .await;
        let refused: u64 = server
            .shared
            .snapshot()
            .iter()
            .map(|shard| shard.connections_refused)
            .sum();
        assert_eq!(refused, 1);
        server.stop().await;
    });
}

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
    simulate(|_| async {
        let config = NetConfig {
            move_after_requests: 4,
            ..NetConfig::default()
        };
        let server = Server::start(2, config).await;
        let mut client = Client::connect().await;
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
        server.stop().await;
    });
}

#[test]
fn the_stop_answers_what_is_under_way_and_closes() {
    simulate(|_| async {
        let server = Server::start(2, NetConfig::default()).await;
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let mut waiting = Client::connect().await;
        let parked = FetchRequest {
            max_wait_ms: 60_000,
            ..fetch("t", &[(0, 0)])
        };
        let fetched = waiting.send(&parked, 4).await;
        rt::sleep(millis(50)).await;
        let handed_over = server.requests();
        let produced = client
            .send(&produce("t", 0, -1, Some(batch(&[b"x"]))), 3)
            .await;
        while server.requests() == handed_over {
            rt::sleep(Duration::from_micros(10)).await;
        }
        let begun = rt::now();
        server.stop().await;
        assert!(rt::now().since(begun) < Duration::from_secs(6));
        assert_eq!(
            client
                .receive::<ProduceRequest>(produced, 3)
                .await
                .responses[0]
                .partition_responses[0]
                .error_code,
            0
        );
        client.expect_close().await;
        waiting.receive::<FetchRequest>(fetched, 4).await;
        waiting.expect_close().await;
    });
}

#[test]
fn a_half_closed_client_still_gets_its_answers() {
    simulate(|_| async {
        let server = Server::start(1, NetConfig::default()).await;
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let (mut read, mut write) = rt::TcpStream::connect(address()).await.unwrap().split();
        let request =
            frame::encode_request(3, None, &produce("t", 0, -1, Some(batch(&[b"x"]))), 3).unwrap();
        write.write_all(&request).await.unwrap();
        write.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        let mut some = [0; 100];
        loop {
            match read.read(&mut some).await.unwrap() {
                0 => break,
                count => bytes.extend_from_slice(&some[..count]),
            }
        }
        frame::decode_response::<ProduceRequest>(Bytes::from(bytes).slice(4..), 3, 3).unwrap();
        server.stop().await;
    });
}

#[test]
fn a_request_in_single_bytes_is_a_request() {
    simulate(|_| async {
        let server = Server::start(1, NetConfig::default()).await;
        let mut client = Client::connect().await;
        let request = frame::encode_request(1, None, &InitProducerIdRequest::default(), 2).unwrap();
        for byte in request.iter() {
            client.send_raw(&[*byte]).await.unwrap();
        }
        let response = client.receive::<InitProducerIdRequest>(1, 2).await;
        assert_eq!((response.error_code, response.producer_epoch), (0, 0));
        assert_eq!(server.bytes_in(), request.len() as u64);
        server.stop().await;
    });
}
