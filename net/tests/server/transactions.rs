//! Owns the tests of transactions as clients see them, from the search for a coordinator to what readers get.
//! Does not know how a coordinator works; the engine has its own tests.
//! Invariant: a test says in which version each request goes.

use crate::support::{ask, batch, fetch, millis, named, produce, with_broker, Client};
use bytes::{Bytes, BytesMut};
use millrace_engine::rt;
use millrace_engine::types::batch::{crc32c, BatchHeader, CRC_START};
use millrace_net::wire::add_offsets_to_txn::AddOffsetsToTxnRequest;
use millrace_net::wire::add_partitions_to_txn::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use millrace_net::wire::api_versions::ApiVersionsRequest;
use millrace_net::wire::describe_producers::{
    DescribeProducersRequest, ProducerState, TopicRequest,
};
use millrace_net::wire::describe_transactions::DescribeTransactionsRequest;
use millrace_net::wire::end_txn::{EndTxnRequest, EndTxnResponse};
use millrace_net::wire::find_coordinator::FindCoordinatorRequest;
use millrace_net::wire::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use millrace_net::wire::list_transactions::ListTransactionsRequest;
use millrace_net::wire::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic,
};
use millrace_net::wire::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use millrace_net::wire::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};

const ID: &str = "tx";

/// A producer as its requests name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Producer {
    id: i64,
    epoch: i16,
}

async fn find(client: &mut Client, key: &'static str, key_type: i8) {
    let request = FindCoordinatorRequest {
        key_type,
        coordinator_keys: vec![key.into()],
        ..Default::default()
    };
    let found = client.call(&request, 5).await;
    assert_eq!(found.coordinators[0].error_code, 0);
}

async fn init(client: &mut Client, version: i16) -> InitProducerIdResponse {
    let request = InitProducerIdRequest {
        transactional_id: Some(ID.into()),
        transaction_timeout_ms: 60_000,
        ..Default::default()
    };
    client.call(&request, version).await
}

/// As clients do it: until the transaction before is over.
async fn begin(client: &mut Client) -> Producer {
    find(client, ID, 1).await;
    loop {
        let given = init(client, 5).await;
        match given.error_code {
            0 => {
                return Producer {
                    id: given.producer_id,
                    epoch: given.producer_epoch,
                }
            }
            51 => rt::sleep(millis(5)).await,
            code => panic!("error {code}"),
        }
    }
}

fn in_transaction(values: &[&[u8]], producer: Producer, sequence: i32) -> Bytes {
    let mut b = BytesMut::from(&batch(values)[..]);
    b[22] |= 1 << 4;
    b[43..51].copy_from_slice(&producer.id.to_be_bytes());
    b[51..53].copy_from_slice(&producer.epoch.to_be_bytes());
    b[53..57].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c(&b[CRC_START..]);
    b[17..21].copy_from_slice(&crc.to_be_bytes());
    b.freeze()
}

/// From version 13 on the topic goes by its id.
async fn write(
    client: &mut Client,
    producer: Producer,
    index: i32,
    sequence: i32,
    version: i16,
) -> i16 {
    let records = in_transaction(&[b"value"], producer, sequence);
    let mut request = produce("t", index, -1, Some(records));
    request.transactional_id = Some(ID.into());
    if version >= 13 {
        let metadata = client.call(&ask(Some(vec![named("t")]), false), 12).await;
        request.topic_data[0].name = "".into();
        request.topic_data[0].topic_id = metadata.topics[0].topic_id;
    }
    let response = client.call(&request, version).await;
    response.responses[0].partition_responses[0].error_code
}

async fn end(
    client: &mut Client,
    producer: Producer,
    committed: bool,
    version: i16,
) -> EndTxnResponse {
    let request = EndTxnRequest {
        transactional_id: ID.into(),
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        committed,
    };
    client.call(&request, version).await
}

/// What there is of partition 0: batches and aborted transactions, and the last stable offset.
async fn read(client: &mut Client, isolation_level: i8) -> (Vec<BatchHeader>, usize, i64) {
    let mut request = fetch("t", &[(0, 0)]);
    (request.isolation_level, request.max_wait_ms) = (isolation_level, 0);
    let response = client.call(&request, 12).await;
    let partition = &response.responses[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    let records = partition.records.to_bytes().unwrap_or_default();
    let (mut rest, mut batches) = (&records[..], Vec::new());
    while !rest.is_empty() {
        let header = BatchHeader::parse(rest).unwrap();
        rest = &rest[header.size..];
        batches.push(header);
    }
    let aborted = partition.aborted_transactions.as_ref();
    let stable = partition.last_stable_offset;
    (batches, aborted.map_or(0, Vec::len), stable)
}

async fn state(client: &mut Client) -> String {
    let request = DescribeTransactionsRequest {
        transactional_ids: vec![ID.into()],
    };
    let described = client.call(&request, 0).await;
    assert_eq!(described.transaction_states[0].error_code, 0);
    described.transaction_states[0]
        .transaction_state
        .to_string()
}

async fn is_over(client: &mut Client) {
    while !state(client).await.starts_with("Complete") {
        rt::sleep(millis(5)).await;
    }
}

fn adding(
    producer: Producer,
    topic: &'static str,
    partitions: &[i32],
) -> AddPartitionsToTxnRequest {
    AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: ID.into(),
        v3_and_below_producer_id: producer.id,
        v3_and_below_producer_epoch: producer.epoch,
        v3_and_below_topics: vec![AddPartitionsToTxnTopic {
            name: topic.into(),
            partitions: partitions.to_vec(),
        }],
        ..Default::default()
    }
}

#[test]
fn newer_clients_add_partitions_by_writing_and_get_an_epoch_with_each_end() {
    with_broker(|mut client| async move {
        let request = ApiVersionsRequest {
            client_software_name: "test".into(),
            client_software_version: "1".into(),
            ..Default::default()
        };
        let served = client.call(&request, 4).await;
        let features: Vec<(&str, i16)> = served
            .finalized_features
            .iter()
            .map(|f| (&*f.name, f.max_version_level))
            .collect();
        assert!(features.contains(&("transaction.version", 2)));
        client.create_topic("t", 2).await;
        let mut producer = begin(&mut client).await;
        for (commit, stable, version) in [(true, 2, 12), (false, 4, 13)] {
            assert_eq!(write(&mut client, producer, 0, 0, version).await, 0);
            assert_eq!(state(&mut client).await, "Ongoing");
            let (batches, _, before) = read(&mut client, 1).await;
            assert_eq!((before, batches.len() as i64), (stable - 2, stable - 2));
            let ended = end(&mut client, producer, commit, 5).await;
            assert_eq!(ended.error_code, 0);
            assert_eq!(
                (ended.producer_id, ended.producer_epoch),
                (producer.id, producer.epoch + 1)
            );
            let again = end(&mut client, producer, commit, 5).await;
            assert!(again.error_code == 51 || again == ended, "{again:?}");
            producer.epoch += 1;
            is_over(&mut client).await;
            let (_, aborted, after) = read(&mut client, 1).await;
            assert_eq!((aborted, after), (usize::from(!commit), stable));
        }
        let old = Producer {
            epoch: producer.epoch - 1,
            ..producer
        };
        assert_eq!(write(&mut client, old, 0, 1, 12).await, 47);
        let (all, none, _) = read(&mut client, 0).await;
        let kinds: Vec<bool> = all.iter().map(BatchHeader::is_control).collect();
        assert_eq!((kinds, none), (vec![false, true, false, true], 0));
    });
}

#[test]
fn older_clients_say_which_partitions_they_write_to() {
    with_broker(|mut client| async move {
        client.create_topic("t", 2).await;
        let producer = begin(&mut client).await;
        // Whoever did not say so is refused, as its version knows it.
        assert_eq!(write(&mut client, producer, 0, 0, 9).await, 48);
        assert_eq!(write(&mut client, producer, 0, 0, 11).await, 120);
        for version in 0..=3 {
            let response = client.call(&adding(producer, "t", &[0]), version).await;
            let results = &response.results_by_topic_v3_and_below[0].results_by_partition;
            assert_eq!(results[0].partition_error_code, 0);
        }
        let response = client.call(&adding(producer, "t", &[1, 2]), 3).await;
        let results = &response.results_by_topic_v3_and_below[0].results_by_partition;
        let codes: Vec<i16> = results.iter().map(|p| p.partition_error_code).collect();
        assert_eq!(codes, [55, 3]);
        let verify = |index| AddPartitionsToTxnRequest {
            transactions: vec![AddPartitionsToTxnTransaction {
                transactional_id: ID.into(),
                producer_id: producer.id,
                producer_epoch: producer.epoch,
                verify_only: true,
                topics: vec![AddPartitionsToTxnTopic {
                    name: "t".into(),
                    partitions: vec![index],
                }],
            }],
            ..Default::default()
        };
        for (index, code) in [(0, 0), (1, 120)] {
            let response = client.call(&verify(index), 5).await;
            let topics = &response.results_by_transaction[0].topic_results;
            let found = topics[0].results_by_partition[0].partition_error_code;
            assert_eq!(found, code);
        }
        assert_eq!(write(&mut client, producer, 0, 0, 9).await, 0);
        let ended = end(&mut client, producer, true, 3).await;
        assert_eq!((ended.error_code, ended.producer_id), (0, -1));
        is_over(&mut client).await;
        assert_eq!(read(&mut client, 1).await.2, 2);
        // Another one takes the id over.
        let other = begin(&mut client).await;
        assert_eq!((other.id, other.epoch), (producer.id, producer.epoch + 1));
        for (version, code) in [(1, 47), (2, 90)] {
            let ended = end(&mut client, producer, true, version).await;
            assert_eq!(ended.error_code, code);
        }
        let response = client.call(&adding(producer, "t", &[0]), 1).await;
        let results = &response.results_by_topic_v3_and_below[0].results_by_partition;
        assert_eq!(results[0].partition_error_code, 47);
    });
}

#[test]
fn offsets_are_committed_with_the_transaction() {
    with_broker(|mut client| async move {
        client.create_topic("t", 2).await;
        // Nobody has looked for the group's coordinator so far.
        let mut producer = begin(&mut client).await;
        let metadata = client.call(&ask(Some(vec![named("t")]), false), 12).await;
        let topic_id = metadata.topics[0].topic_id;
        for (version, commit) in [(4, true), (5, false), (3, true), (6, true)] {
            // By version 5 the commit itself says so.
            if version < 5 {
                let request = AddOffsetsToTxnRequest {
                    transactional_id: ID.into(),
                    producer_id: producer.id,
                    producer_epoch: producer.epoch,
                    group_id: "g".into(),
                };
                assert_eq!(client.call(&request, 3).await.error_code, 0);
            }
            let partition = |index: i32| TxnOffsetCommitRequestPartition {
                partition_index: index,
                committed_offset: i64::from(version) * 10,
                ..Default::default()
            };
            let request = TxnOffsetCommitRequest {
                transactional_id: ID.into(),
                group_id: "g".into(),
                producer_id: producer.id,
                producer_epoch: producer.epoch,
                topics: vec![TxnOffsetCommitRequestTopic {
                    name: "t".into(),
                    topic_id,
                    partitions: vec![partition(0), partition(7)],
                }],
                ..Default::default()
            };
            let response = client.call(&request, version).await;
            let partitions = &response.topics[0].partitions;
            let codes: Vec<i16> = partitions.iter().map(|p| p.error_code).collect();
            assert_eq!(codes, [0, 3], "version {version}");
            assert_eq!(committed(&mut client).await.1, 88);
            let ended = end(&mut client, producer, commit, 5).await;
            assert_eq!(ended.error_code, 0);
            producer.epoch = ended.producer_epoch;
            is_over(&mut client).await;
            let expected = [30, 40, 40, 60][version as usize - 3];
            assert_eq!(committed(&mut client).await, (expected, 0));
        }
    });
}

async fn committed(client: &mut Client) -> (i64, i16) {
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: "g".into(),
            topics: Some(vec![OffsetFetchRequestTopic {
                name: "t".into(),
                partition_indexes: vec![0],
                ..Default::default()
            }]),
            ..Default::default()
        }],
        require_stable: true,
        ..Default::default()
    };
    let response = client.call(&request, 8).await;
    let partition = &response.groups[0].topics[0].partitions[0];
    (partition.committed_offset, partition.error_code)
}

#[test]
fn transactions_are_listed_and_markers_end_them_by_hand() {
    with_broker(|mut client| async move {
        client.create_topic("t", 1).await;
        let producer = begin(&mut client).await;
        assert_eq!(write(&mut client, producer, 0, 0, 12).await, 0);
        for (version, state, count) in [(0, "Ongoing", 1), (1, "CompleteCommit", 0)] {
            let request = ListTransactionsRequest {
                state_filters: vec![state.into(), "Nonsense".into()],
                ..Default::default()
            };
            let listed = client.call(&request, version).await;
            assert_eq!(
                (listed.error_code, listed.transaction_states.len()),
                (0, count)
            );
            assert_eq!(&*listed.unknown_state_filters[0], "Nonsense");
        }
        let unknown = DescribeTransactionsRequest {
            transactional_ids: vec!["nobody".into(), "".into()],
        };
        let described = client.call(&unknown, 0).await;
        let states = described.transaction_states.iter();
        let codes: Vec<i16> = states.map(|state| state.error_code).collect();
        assert_eq!(codes, [105, 42]);
        let marker = |topic: &'static str, epoch, transaction_version| WriteTxnMarkersRequest {
            markers: vec![WritableTxnMarker {
                producer_id: producer.id,
                producer_epoch: epoch,
                transaction_result: false,
                topics: vec![WritableTxnMarkerTopic {
                    name: topic.into(),
                    partition_indexes: vec![0],
                }],
                coordinator_epoch: 0,
                transaction_version,
            }],
        };
        let cases = [
            ("gone", 0, 1, 0, 3),
            // An end of the transaction before this one, by its own word.
            ("t", producer.epoch, 2, 2, 47),
            ("t", producer.epoch, 1, 0, 0),
            ("t", producer.epoch, 2, 2, 0),
            ("t", producer.epoch - 1, 1, 0, 42),
        ];
        for (topic, epoch, version, level, code) in cases {
            let request = marker(topic, epoch, level);
            let response = client.call(&request, version).await;
            let partitions = &response.markers[0].topics[0].partitions;
            assert_eq!(partitions[0].error_code, code, "{topic} {epoch} {level}");
        }
        let (_, aborted, stable) = read(&mut client, 1).await;
        assert_eq!((aborted, stable), (1, 2));
        // What is left of it ends as always.
        let ended = end(&mut client, producer, false, 5).await;
        assert_eq!(ended.error_code, 0);
        is_over(&mut client).await;
    });
}

/// Who writes to partition 0 of `t`.
async fn producers(client: &mut Client) -> Vec<ProducerState> {
    let request = DescribeProducersRequest {
        topics: vec![TopicRequest {
            name: "t".into(),
            partition_indexes: vec![0, 1, 0, -1],
        }],
    };
    let mut partitions = client.call(&request, 0).await.topics.remove(0).partitions;
    let codes: Vec<i16> = partitions.iter().map(|p| p.error_code).collect();
    assert_eq!(codes, [0, 3, 42, 3], "the third was asked for twice");
    partitions.remove(0).active_producers
}

#[test]
fn producers_are_described_with_what_they_have_open() {
    with_broker(|mut client| async move {
        client.create_topic("t", 1).await;
        assert_eq!(producers(&mut client).await, []);
        let plain = produce("t", 0, -1, Some(batch(&[b"x"])));
        client.call(&plain, 9).await;
        assert_eq!(producers(&mut client).await, [], "it has no id");
        let producer = begin(&mut client).await;
        for sequence in 0..2 {
            assert_eq!(write(&mut client, producer, 0, sequence, 12).await, 0);
        }
        let told = producers(&mut client).await;
        let [open] = &told[..] else {
            panic!("one producer, not {told:?}");
        };
        assert_eq!(
            (open.producer_id, open.producer_epoch),
            (producer.id, i32::from(producer.epoch))
        );
        assert_eq!((open.last_sequence, open.current_txn_start_offset), (1, 1));
        assert_eq!(open.coordinator_epoch, -1);
        let ended = end(&mut client, producer, true, 5).await;
        assert_eq!(ended.error_code, 0);
        is_over(&mut client).await;
        let told = producers(&mut client).await;
        assert_eq!(told.len(), 1);
        assert_eq!(
            (told[0].last_sequence, told[0].current_txn_start_offset),
            (-1, -1)
        );
        assert_eq!(told[0].producer_epoch, i32::from(producer.epoch) + 1);
        assert!(told[0].last_timestamp > 0);
    });
}
