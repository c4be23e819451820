//! Owns the end-to-end tests of connections: order, framing, hostile bytes and the stop.
//! Does not know what single API keys answer.
//! Invariant: every test runs on the simulator, so that time decides nothing.

use crate::support::*;
use bytes::Bytes;
use millrace_engine::rt;
use millrace_net::wire::api_versions::ApiVersionsRequest;
use millrace_net::wire::fetch::FetchRequest;
use millrace_net::wire::init_producer_id::InitProducerIdRequest;
use millrace_net::wire::list_offsets::ListOffsetsRequest;
use millrace_net::wire::metadata::MetadataRequest;
use millrace_net::wire::produce::ProduceRequest;
use millrace_net::wire::{frame, versions};
use millrace_net::NetConfig;
use std::time::Duration;

#[test]
fn pipelined_requests_are_answered_in_order_and_see_what_came_before() {
    with_server(2, NetConfig::default(), |_server, mut client| async move {
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
    });
}

#[test]
fn a_parked_fetch_does_not_hold_up_the_produce_behind_it() {
    with_server(2, NetConfig::default(), |_server, mut client| async move {
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
    });
}

#[test]
fn acks_0_is_never_answered_and_a_failure_closes_the_connection() {
    with_server(1, NetConfig::default(), |_server, mut client| async move {
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
    });
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_and_the_connection_goes_on() {
    with_server(1, NetConfig::default(), |_server, mut client| async move {
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
    with_server(1, NetConfig::default(), |_server, mut client| async move {
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
    });
}

#[test]
fn a_request_in_single_bytes_is_a_request() {
    with_server(1, NetConfig::default(), |server, mut client| async move {
        let request = frame::encode_request(1, None, &InitProducerIdRequest::default(), 2).unwrap();
        for byte in request.iter() {
            client.send_raw(&[*byte]).await.unwrap();
        }
        let response = client.receive::<InitProducerIdRequest>(1, 2).await;
        assert_eq!((response.error_code, response.producer_epoch), (0, 0));
        assert_eq!(server.bytes_in(), request.len() as u64);
    });
}
