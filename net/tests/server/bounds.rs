//! Owns the end-to-end tests of what connections may hold and how long they may take: sizes, memory, timeouts, caps.
//! Does not know what single API keys answer.
//! Invariant: every test runs on the simulator, so that time decides nothing.

use crate::configs::{described, value};
use crate::support::*;
use millrace_engine::rt::{self, sim::Sim};
use millrace_net::wire::api_versions::ApiVersionsRequest;
use millrace_net::wire::config_codes::{operation, resource, source};
use millrace_net::wire::fetch::FetchRequest;
use millrace_net::wire::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use millrace_net::wire::produce::ProduceRequest;
use millrace_net::wire::{frame, Str};
use millrace_net::NetConfig;
use std::time::Duration;

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
fn frames_that_do_not_come_hold_up_nobody() {
    simulate(|_| async {
        // The least a shard works with: 4 MiB of requests at once.
        let server = Server::start_within(1, NetConfig::default(), 1).await;
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let mut liars = Vec::new();
        for _ in 0..40 {
            let mut liar = Client::connect().await;
            liar.send_raw(&(1i32 << 20).to_be_bytes()).await.unwrap();
            liar.send_raw(&[0, 3, 0, 1]).await.unwrap();
            liars.push(liar);
        }
        rt::sleep(millis(100)).await;
        assert!(server.brokers[0].metrics().request_bytes >= 3 << 20);
        // What is small is served at once, whatever they claim.
        let begun = rt::now();
        client
            .call(&produce("t", 0, -1, Some(batch(&[&[7; 1000]]))), 3)
            .await;
        assert!(rt::now().since(begun) < millis(500), "{begun:?}");
        // What is large waits for those before it, each of which is given a second.
        let large = produce("t", 0, -1, Some(batch(&[&vec![7; 1_000_000]])));
        client.call(&large, 3).await;
        let waited = rt::now().since(begun);
        assert!(waited < Duration::from_secs(30), "{waited:?}");
        // The last of them hold what nobody waits for any more.
        assert!(server.shared.connections()[0] <= 4, "the others are gone");
        server.stop().await;
    });
}

#[test]
fn fetches_that_wait_for_records_hold_up_nobody() {
    simulate(|_| async {
        // The least a shard works with: 4 MiB of requests at once.
        let server = Server::start_within(1, NetConfig::default(), 1).await;
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let parked = FetchRequest {
            max_wait_ms: 250_000,
            min_bytes: i32::MAX,
            max_bytes: 1 << 20,
            ..fetch("t", &[(0, 0)])
        };
        // What is behind the body is ignored, and belongs to the frame.
        let mut frame = frame::encode_request(1, Some("test".into()), &parked, 4)
            .unwrap()
            .to_vec();
        frame.resize((1 << 20) + 4, 0);
        let length = (frame.len() - 4) as u32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        let mut waiting = Vec::new();
        // As many as fit: a fourth would wait for their memory.
        for _ in 0..3 {
            let mut one = Client::connect().await;
            one.send_raw(&frame).await.unwrap();
            waiting.push(one);
        }
        rt::sleep(millis(100)).await;
        assert!(server.brokers[0].metrics().request_bytes >= 3 << 20);
        let begun = rt::now();
        let large = produce("t", 0, -1, Some(batch(&[&vec![7; 1_000_000]])));
        client.call(&large, 3).await;
        let waited = rt::now().since(begun);
        assert!(waited < Duration::from_secs(30), "{waited:?}");
        server.stop().await;
    });
}

#[test]
fn a_frame_that_comes_slowly_is_let_be_while_nobody_needs_its_memory() {
    with_server(1, NetConfig::default(), |_, mut client| async move {
        client.create_topic("t", 1).await;
        let request = produce("t", 0, -1, Some(batch(&[&[7; 100_000]])));
        let frame = frame::encode_request(77, Some("test".into()), &request, 3).unwrap();
        let mut slow = Client::connect().await;
        for part in frame.chunks(frame.len() / 10 + 1) {
            slow.send_raw(part).await.unwrap();
            rt::sleep(Duration::from_secs(2)).await;
        }
        assert_eq!(slow.frame().await.unwrap()[..4], 77i32.to_be_bytes());
    });
}

#[test]
fn a_connection_that_waits_for_its_own_answers_sees_that_the_client_is_gone() {
    for reset in [true, false] {
        with_server(1, NetConfig::default(), |server, mut client| async move {
            client.create_topic("t", 1).await;
            let mut gone = Client::connect().await;
            let wait = FetchRequest {
                max_wait_ms: 300_000,
                max_bytes: 1000,
                ..fetch("t", &[(0, 0)])
            };
            if reset {
                // An answer that is never read makes the end of this client a reset.
                gone.send(&ApiVersionsRequest::default(), 0).await;
                rt::sleep(millis(500)).await;
            }
            // More than may be under way at once, so that nothing is read any more.
            for _ in 0..200 {
                gone.send(&wait, 4).await;
            }
            rt::sleep(Duration::from_secs(1)).await;
            assert_eq!(server.shared.connections(), [2]);
            drop(gone);
            rt::sleep(Duration::from_secs(10)).await;
            assert_eq!(server.shared.connections(), [1]);
        });
    }
}

#[test]
fn a_search_for_a_client_that_is_gone_holds_nothing() {
    for reset in [true, false] {
        simulate(|_| async move {
            // More is produced than is kept in memory.
            let server = Server::start_within(1, NetConfig::default(), 1).await;
            let mut client = Client::connect().await;
            client.create_topic("t", 1).await;
            let records = batch(&[&[0; 500_000]]);
            for _ in 0..50 {
                client
                    .call(&produce("t", 0, -1, Some(records.clone())), 8)
                    .await;
            }
            let mut gone = Client::connect().await;
            if reset {
                gone.send(&ApiVersionsRequest::default(), 0).await;
                rt::sleep(millis(500)).await;
            }
            Sim::handle()
                .disk()
                .latency_spike(Duration::from_secs(300), millis(500));
            // The second one keeps the client's end from being read.
            gone.send(&listed(1_700_000_000_000), 4).await;
            gone.send(&listed(1_700_000_000_000), 4).await;
            rt::sleep(Duration::from_secs(1)).await;
            assert_eq!(server.shared.connections(), [2]);
            drop(gone);
            rt::sleep(Duration::from_secs(10)).await;
            assert_eq!(server.shared.connections(), [1]);
            server.stop().await;
        });
    }
}

#[test]
fn a_slow_reader_is_not_read_from_and_loses_nothing() {
    let config = NetConfig {
        connection_bytes_max: 120_000,
        fetch_bytes_max: 80_000,
        ..NetConfig::default()
    };
    with_server(1, config, |server, mut client| async move {
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
    });
}

#[test]
fn while_slow_readers_hold_too_much_the_others_get_less_but_are_served() {
    simulate(|_| async {
        // The least a shard works with: 32 MiB, and an eighth of it for responses.
        let server = Server::start_within(1, NetConfig::default(), 1).await;
        let held = || server.brokers[0].metrics().response_bytes;
        let max = server.brokers[0].metrics().response_bytes_max;
        assert_eq!(max, 4 << 20);
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let records = batch(&[&[7u8; 50_000]]);
        for _ in 0..20 {
            client
                .call(&produce("t", 0, -1, Some(records.clone())), 3)
                .await;
        }
        let full = client.call(&fetch("t", &[(0, 0)]), 4).await;
        let everything = 20 * records.len();
        assert_eq!(full.responses[0].partitions[0].records.len(), everything);
        let mut slow = Client::connect().await;
        for _ in 0..20 {
            slow.send(&fetch("t", &[(0, 0)]), 4).await;
            // One after the other: each sees what those before it hold.
            rt::sleep(millis(50)).await;
        }
        assert!(
            held() > 3 << 20 && held() <= max + (2 << 20),
            "{} of {max} held by one connection that takes nothing",
            held()
        );
        let some = client.call(&fetch("t", &[(0, 0)]), 4).await;
        let some = some.responses[0].partitions[0].records.len();
        assert!(some > 0 && some <= 64 << 10, "{some} bytes");
        for _ in 0..20 {
            slow.frame().await.unwrap();
        }
        rt::sleep(Duration::from_secs(1)).await;
        assert_eq!(held(), 0);
        let full = client.call(&fetch("t", &[(0, 0)]), 4).await;
        assert_eq!(full.responses[0].partitions[0].records.len(), everything);
        server.stop().await;
    });
}

#[test]
fn who_takes_nothing_is_closed_sooner_while_its_memory_is_needed() {
    simulate(|_| async {
        // 4 MiB of responses at once.
        let server = Server::start_within(1, NetConfig::default(), 1).await;
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        for _ in 0..6 {
            client
                .call(&produce("t", 0, -1, Some(batch(&[&vec![7; 900_000]]))), 3)
                .await;
        }
        let mut stuck = Vec::new();
        for _ in 0..6 {
            let mut one = Client::connect().await;
            one.send(&fetch("t", &[(0, 0)]), 4).await;
            one.send(&fetch("t", &[(0, 0)]), 4).await;
            stuck.push(one);
            rt::sleep(millis(20)).await;
        }
        rt::sleep(Duration::from_secs(3)).await;
        // Who asks has the others looked at; those who waited behind them get their turn, and then the same.
        for _ in 0..6 {
            let mut served = client.call(&fetch("t", &[(0, 0)]), 4).await;
            assert!(!served.responses[0].partitions.remove(0).records.is_empty());
            rt::sleep(Duration::from_secs(1)).await;
        }
        let metrics = server.brokers[0].metrics();
        assert!(metrics.response_bytes < metrics.response_bytes_max);
        let left = server.shared.connections()[0];
        assert!(left < 5, "{left} are left of seven");
        server.stop().await;
    });
}

#[test]
fn a_client_that_takes_nothing_at_all_is_closed_in_the_end() {
    let config = NetConfig {
        write_timeout: Duration::from_secs(20),
        ..NetConfig::default()
    };
    with_server(1, config, |server, mut client| async move {
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
    });
}

#[test]
fn requests_in_flight_are_bounded() {
    let config = NetConfig {
        requests_in_flight_max: 4,
        ..NetConfig::default()
    };
    with_server(1, config, |server, mut client| async move {
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
        // Being answered is being active, however long ago the question was.
        rt::sleep(Duration::from_secs(50)).await;
        parked.call(&latest("t"), 1).await;
        server.stop().await;
    });
}

#[test]
fn a_connection_is_not_idle_while_the_broker_is_slow() {
    simulate(|_| async {
        let config = NetConfig {
            idle_timeout: Duration::from_secs(2),
            ..NetConfig::default()
        };
        // The least a shard works with: requests of 4 MiB are under way at once.
        let server = Server::start_within(1, config, 1).await;
        let mut first = Client::connect().await;
        first.create_topic("t", 1).await;
        let disk = Sim::handle().disk();
        disk.latency_spike(Duration::from_secs(10), millis(500));
        let large = |bytes| {
            let mut request = produce("t", 0, -1, Some(batch(&[&vec![7; bytes]])));
            request.timeout_ms = 0;
            request
        };
        let mut sent = Vec::new();
        for _ in 0..4 {
            sent.push(first.send(&large(1_000_000), 8).await);
        }
        rt::sleep(millis(100)).await;
        // One waits for memory, one for the metadata; both are the broker's doing.
        let mut no_memory = Client::connect().await;
        let mut admin = Client::connect().await;
        let one_more = large(900_000);
        let waiting = rt::spawn_joined(rt::Class::Network, async move {
            no_memory.call(&one_more, 8).await
        });
        admin.create_topic("u", 1).await;
        let response = waiting.await;
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, 0);
        for correlation in sent {
            first.receive::<ProduceRequest>(correlation, 8).await;
        }
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
fn the_caps_follow_the_settings_of_the_cluster_and_of_the_node() {
    with_server(2, NetConfig::default(), |_, mut client| async move {
        let welcome = |expected: bool| async move {
            let mut one = Client::connect().await;
            if expected {
                one.call(&ApiVersionsRequest::default(), 0).await;
            } else {
                one.expect_close().await;
            }
            one
        };
        let (_, shown) = described(&mut client, resource::BROKER, "1", 4).await;
        assert_eq!(
            value(&shown, "max.connections"),
            (Some("16384".into()), source::STATIC_BROKER)
        );
        let mut open = vec![welcome(true).await, welcome(true).await];
        for (name, of, count) in [
            ("max.connections", "", "3"),
            ("max.connections.per.ip", "1", "3"),
        ] {
            set_broker(&mut client, of, name, Some(count)).await;
            welcome(false).await;
            // Fewer than there are: nobody is thrown out, and nobody comes in.
            set_broker(&mut client, of, name, Some("2")).await;
            for one in &mut open {
                one.call(&ApiVersionsRequest::default(), 0).await;
            }
            welcome(false).await;
            set_broker(&mut client, of, name, Some("4")).await;
            drop(welcome(true).await);
            set_broker(&mut client, of, name, Some("3")).await;
            rt::sleep(millis(100)).await;
            welcome(false).await;
            set_broker(&mut client, of, name, None).await;
            drop(welcome(true).await);
            rt::sleep(millis(100)).await;
        }
    });
}

/// Sets (or, without a value, resets) a setting of one broker or of all.
async fn set_broker(client: &mut Client, of: &'static str, name: &'static str, to: Option<&str>) {
    let config = AlterableConfig {
        name: name.into(),
        config_operation: to.map_or(operation::DELETE, |_| operation::SET),
        value: to.map(|to| Str::from(to.to_owned())),
    };
    let resource = AlterConfigsResource {
        resource_type: resource::BROKER,
        resource_name: of.into(),
        configs: vec![config],
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![resource],
        validate_only: false,
    };
    let response = client.call(&request, 1).await;
    let error = &response.responses[0].error_message;
    assert_eq!(*error, None, "{name} of {of:?}");
}
