//! Owns the end-to-end tests of what Produce answers and what producers are given to identify themselves.
//! Does not know how a connection orders its answers.
//! Invariant: every answer is read by the wire codec of the version it was asked in.

use crate::support::*;
use millrace_engine::rt::{self, sim::Sim};
use millrace_engine::types::batch::{crc32c, BatchHeader};
use millrace_net::wire::batch::BatchBuilder;
use millrace_net::wire::compress::Compression;
use millrace_net::wire::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use millrace_net::wire::init_producer_id::InitProducerIdRequest;
use millrace_net::wire::list_offsets::ListOffsetsResponse;
use millrace_net::wire::produce::{PartitionProduceData, ProduceRequest, ProduceResponse};
use millrace_net::wire::record::Record;
use millrace_net::NetConfig;
use std::time::Duration;

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
    });
}

#[test]
fn producers_get_ids_of_their_own() {
    with_broker(|mut client| async move {
        let mut ids = std::collections::HashSet::new();
        for version in 0..=5 {
            let response = client
                .call(&InitProducerIdRequest::default(), version)
                .await;
            assert_eq!((response.error_code, response.producer_epoch), (0, 0));
            assert!(response.producer_id >= 0 && ids.insert(response.producer_id));
        }
        // Nobody has asked where its coordinator is.
        let transactional = InitProducerIdRequest {
            transactional_id: Some("tx".into()),
            transaction_timeout_ms: 1_000,
            ..Default::default()
        };
        let response = client.call(&transactional, 4).await;
        assert_eq!((response.error_code, response.producer_id), (15, -1));
    });
}

/// The codes of an answer's partitions, in order.
fn codes(response: &ProduceResponse) -> Vec<i16> {
    let topics = response.responses.iter();
    topics
        .flat_map(|topic| &topic.partition_responses)
        .map(|partition| partition.error_code)
        .collect()
}

fn within(timeout_ms: i32, mut request: ProduceRequest) -> ProduceRequest {
    request.timeout_ms = timeout_ms;
    request
}

/// Everything the disk begins in the next moment takes three seconds.
fn disk_hangs() {
    let disk = Sim::handle().disk();
    disk.latency_spike(Duration::from_secs(3), millis(500));
}

#[test]
fn what_is_not_durable_in_time_is_answered_so_and_may_be_stored_all_the_same() {
    with_broker(|mut client| async move {
        client.create_topic("t", 4).await;
        let x = || Some(batch(&[b"x"]));
        let ends = |response: &ListOffsetsResponse| response.topics[0].partitions[0].offset;
        for (acks, stored) in [(1, 1), (-1, 2)] {
            disk_hangs();
            let begun = rt::now();
            // On one shard or on the other: both refuse in time, and an error of its own stays what it is.
            let mut request = within(200, produce("t", 0, acks, x()));
            for (index, records) in [(1, x()), (2, x()), (3, x()), (9, x()), (0, None)] {
                request.topic_data[0]
                    .partition_data
                    .push(PartitionProduceData { index, records });
            }
            let response = client.call(&request, 8).await;
            assert_eq!(codes(&response), [7, 7, 7, 7, 3, 87]);
            let waited = rt::now().since(begun);
            assert!(waited >= millis(200) && waited < millis(300), "{waited:?}");
            rt::sleep(Duration::from_secs(10)).await;
            let end = client.call(&latest("t"), 1).await;
            assert_eq!(ends(&end), stored, "it had reached the log");
        }
        // Without a limit it waits, and acks=0 has nothing to wait for: that connection goes on.
        disk_hangs();
        let none = client.send(&within(1, produce("t", 0, 0, x())), 8).await;
        let slow = client.call(&within(0, produce("t", 0, -1, x())), 8).await;
        assert_eq!((codes(&slow), none + 1), (vec![0], client.last_sent()));
        assert_eq!(ends(&client.call(&latest("t"), 1).await), 4);
    });
}

#[test]
fn what_waits_for_room_for_too_long_is_given_up_with_its_memory() {
    simulate(|_| async {
        // The least a shard works with: appends of 2 MiB wait for the disk, 4 MiB of requests are under way.
        let server = Server::start_within(1, NetConfig::default(), 1).await;
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        disk_hangs();
        let mut sent = Vec::new();
        for _ in 0..8 {
            let request = produce("t", 0, -1, Some(batch(&[&[7; 900_000]])));
            sent.push(client.send(&within(300, request), 8).await);
        }
        for correlation in sent {
            let response = client.receive::<ProduceRequest>(correlation, 8).await;
            assert_eq!(codes(&response), [7]);
        }
        let metrics = server.brokers[0].metrics();
        assert_eq!(metrics.request_bytes, 0);
        assert!(metrics.backlog_bytes < 5 << 20, "{metrics:?}");
        rt::sleep(Duration::from_secs(10)).await;
        let response = client.call(&latest("t"), 1).await;
        let stored = response.topics[0].partitions[0].offset;
        assert!((1..8).contains(&stored), "{stored} of 8 had found room");
        let again = client
            .call(&produce("t", 0, -1, Some(batch(&[b"x"]))), 8)
            .await;
        assert_eq!(codes(&again), [0]);
        server.stop().await;
    });
}

/// The batch with these bytes for its records, said to be compressed with `codec`, and a checksum that fits.
fn around(batch: &[u8], codec: u8, records: &[u8]) -> Vec<u8> {
    let mut out = [&batch[..61], records].concat();
    let length = (out.len() - 12) as i32;
    out[8..12].copy_from_slice(&length.to_be_bytes());
    out[22] = codec;
    let crc = crc32c(&out[21..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out
}

#[test]
fn records_that_cannot_be_read_are_refused_or_do_no_harm() {
    with_broker(|mut client| async move {
        client.create_topic("t", 1).await;
        let good = batch(&[b"x", b"y"]);
        let time = 1_700_000_000_000;
        for records in [&b"garbage"[..], &good[61..good.len() - 1], &[]] {
            let request = produce("t", 0, -1, Some(around(&good, 0, records).into()));
            let response = client.call(&request, 9).await;
            assert_eq!(codes(&response), [87]);
            let answer = &response.responses[0].partition_responses[0];
            let message = answer.error_message.as_deref().expect("says why");
            assert!(message.contains("record"), "{message}");
        }
        // Nobody looks into what is compressed. Whoever looks for a time there later gets what the header says.
        for codec in 1..=4 {
            let request = produce("t", 0, -1, Some(around(&good, codec, b"garbage").into()));
            assert_eq!(codes(&client.call(&request, 9).await), [0]);
        }
        for (timestamp, offset) in [(-2, 0), (-1, 8), (-3, 0), (time, 0), (time + 1, -1)] {
            let response = client.call(&listed(timestamp), 7).await;
            let answer = &response.topics[0].partitions[0];
            assert_eq!(
                (answer.error_code, answer.offset),
                (0, offset),
                "{timestamp}"
            );
        }
    });
}

#[test]
fn a_compacted_topic_takes_no_records_without_keys_however_they_are_compressed() {
    with_broker(|mut client| async move {
        let topic = CreatableTopic {
            name: "t".into(),
            num_partitions: 1,
            replication_factor: 1,
            configs: vec![CreatableTopicConfig {
                name: "cleanup.policy".into(),
                value: Some("compact".into()),
            }],
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..Default::default()
        };
        assert_eq!(client.call(&request, 7).await.topics[0].error_code, 0);
        for compression in Compression::ALL {
            for keys in [2, 1] {
                let mut builder = BatchBuilder::new(compression);
                for n in 0..2 {
                    let record = Record {
                        key: (n < keys).then(|| "k".into()),
                        value: Some("v".into()),
                        ..Default::default()
                    };
                    builder.push(&record).unwrap();
                }
                let request = produce("t", 0, -1, Some(builder.build().unwrap()));
                let expected = if keys == 2 { 0 } else { 87 };
                let response = client.call(&request, 9).await;
                assert_eq!(codes(&response), [expected], "{compression:?}");
            }
        }
        let good = batch(&[b"x"]);
        let mut garbage = around(&good, 4, b"garbage");
        let request = produce("t", 0, -1, Some(garbage.clone().into()));
        assert_eq!(codes(&client.call(&request, 9).await), [87]);
        garbage[17] ^= 1;
        let request = produce("t", 0, -1, Some(garbage.into()));
        assert_eq!(
            codes(&client.call(&request, 9).await),
            [2],
            "its CRC comes first"
        );
    });
}

#[test]
fn the_broker_stamps_what_is_to_have_its_time_and_takes_no_such_stamp_from_others() {
    with_broker(|mut client| async move {
        let topic = CreatableTopic {
            name: "stamped".into(),
            num_partitions: 1,
            replication_factor: 1,
            configs: vec![CreatableTopicConfig {
                name: "message.timestamp.type".into(),
                value: Some("LogAppendTime".into()),
            }],
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..Default::default()
        };
        assert_eq!(client.call(&request, 7).await.topics[0].error_code, 0);
        let sent = batch(&[b"x", b"y"]);
        let begun_ms = rt::wall_ms();
        let response = client
            .call(&produce("stamped", 0, -1, Some(sent.clone())), 9)
            .await;
        let stamp = response.responses[0].partition_responses[0].log_append_time_ms;
        assert!((begun_ms..=rt::wall_ms()).contains(&stamp), "{stamp}");
        let fetched = client.call(&fetch("stamped", &[(0, 0)]), 11).await;
        let records = &fetched.responses[0].partitions[0].records;
        let records = records.to_bytes().unwrap();
        let header = BatchHeader::parse(&records).unwrap();
        assert!(header.is_log_append_time() && header.crc_matches(&records));
        assert_eq!(header.max_timestamp, stamp);
        // The stamp is the broker's to give, here as in topics that keep the producer's time.
        client.create_topic("t", 1).await;
        let mut forged = sent.to_vec();
        forged[22] |= 8;
        let crc = crc32c(&forged[21..]);
        forged[17..21].copy_from_slice(&crc.to_be_bytes());
        for topic in ["stamped", "t"] {
            let request = produce(topic, 0, -1, Some(forged.clone().into()));
            assert_eq!(codes(&client.call(&request, 9).await), [32], "{topic}");
        }
    });
}

#[test]
fn an_idempotent_producer_is_told_of_duplicates_gaps_and_rivals() {
    with_broker(|mut client| async move {
        client.create_topic("t", 1).await;
        let init = client.call(&InitProducerIdRequest::default(), 4).await;
        let sequenced = |sequence: i32, epoch: i16| {
            let mut builder = BatchBuilder::default();
            builder.producer_id = init.producer_id;
            builder.producer_epoch = epoch;
            builder.base_sequence = sequence;
            let record = Record {
                offset: 0,
                timestamp_ms: 1_700_000_000_000,
                key: None,
                value: Some("x".into()),
                headers: vec![],
            };
            builder.push(&record).unwrap();
            produce("t", 0, -1, Some(builder.build().unwrap()))
        };
        for (sequence, epoch, error, offset) in [
            (0, 0, 0, 0),
            (1, 0, 0, 1),
            (0, 0, 0, 0),
            (1, 0, 0, 1),
            (3, 0, 45, -1),
            (2, 0, 0, 2),
            (0, 1, 0, 3),
            (3, 0, 47, -1),
        ] {
            let response = client.call(&sequenced(sequence, epoch), 9).await;
            let answer = &response.responses[0].partition_responses[0];
            assert_eq!(
                (answer.error_code, answer.base_offset),
                (error, offset),
                "sequence {sequence} of epoch {epoch}"
            );
        }
    });
}
