//! Owns transactions on a whole engine: what crashes, stops and zombies leave of them, in partitions and in groups.
//! Does not know how a coordinator or a partition decides anything; both have tests of their own.
//! Invariant checked: what was answered as committed is read, what was not is not, and no partition stays unstable.

use crate::node::{self, Batch};
use millrace_engine::api::coord::{
    CommitInTxn, CommitOffsets, CommittedOffset, FetchOffsets, GroupError, MemberOf,
    OffsetToCommit, GROUP_TOPIC,
};
use millrace_engine::api::share::ShareHeartbeat;
use millrace_engine::api::txn::{
    AddPartitions, EndTxn, InitProducer, Membership, Producer, TopicPartitions, TxnError, TxnOf,
    TxnState, TXN_TOPIC,
};
use millrace_engine::api::{Broker, FetchItem, FetchOptions, Fetched, OffsetSpec, PartitionError};
use millrace_engine::rt;
use millrace_engine::rt::sim::{Between, CrashPolicy, Sim, SimConfig};
use millrace_engine::types::batch::{crc32c, BatchHeader, CRC_START};
use millrace_engine::types::{PartitionId, TopicId};
use std::collections::BTreeSet;
use std::time::Duration;

const TOPIC: TopicId = TopicId([5; 16]);
const PARTITIONS: i32 = 4;

async fn start(shards: usize) -> Vec<Broker> {
    let brokers = node::try_start(shards).await.unwrap();
    let broker = &brokers[0];
    if broker.image().topic("t").is_none() {
        node::create_topic(broker, TOPIC, "t", PARTITIONS, 1 << 20).await;
        let (groups, txns) = (TopicId([7; 16]), TopicId([8; 16]));
        node::create_topic(broker, groups, GROUP_TOPIC, 50, 1 << 20).await;
        node::create_topic(broker, txns, TXN_TOPIC, 50, 1 << 20).await;
    }
    brokers
}

fn of(id: &str, producer: Producer) -> TxnOf {
    TxnOf {
        transactional_id: id.into(),
        producer,
    }
}

async fn init(broker: &Broker, id: &str) -> Producer {
    loop {
        let asked = InitProducer {
            transactional_id: id.into(),
            timeout_ms: 10_000,
            expected: None,
        };
        match broker.init_producer(asked).await {
            Ok(producer) => return producer,
            Err(TxnError::ConcurrentTransactions) => rt::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn end(broker: &Broker, id: &str, producer: Producer, commit: bool) -> Producer {
    let asked = EndTxn {
        of: of(id, producer),
        commit,
        version: 2,
    };
    broker.end_transaction(asked).await.unwrap()
}

/// A batch of one record, as part of a transaction.
fn batch(fill: u8, producer: Producer, sequence: i32) -> Vec<u8> {
    let mut b = Batch {
        producer: Some((producer.id, sequence)),
        ..Batch::new(fill, 10)
    }
    .encode();
    b[22] |= 1 << 4;
    b[51..53].copy_from_slice(&producer.epoch.to_be_bytes());
    let crc = crc32c(&b[CRC_START..]);
    b[17..21].copy_from_slice(&crc.to_be_bytes());
    b
}

async fn write(
    broker: &Broker,
    id: &str,
    producer: Producer,
    index: i32,
    fill: u8,
    sequence: i32,
) -> Result<i64, String> {
    let partition = PartitionId::new(TOPIC, index);
    let joined = broker.join_transaction(
        of(id, producer),
        vec![(partition, sequence)],
        Membership::Add(2),
    );
    joined.await.remove(0).map_err(|error| error.to_string())?;
    node::append(broker, partition, batch(fill, producer, sequence)).await
}

async fn fetch(broker: &Broker, index: i32, offset: i64, max_bytes: usize) -> Fetched {
    try_fetch(broker, index, offset, max_bytes).await.unwrap()
}

async fn try_fetch(
    broker: &Broker,
    index: i32,
    offset: i64,
    max_bytes: usize,
) -> Result<Fetched, PartitionError> {
    let item = FetchItem {
        partition: PartitionId::new(TOPIC, index),
        offset,
        max_bytes,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
    };
    let options = FetchOptions {
        max_wait: Duration::ZERO,
        min_bytes: 1,
        max_bytes,
        read_committed: true,
    };
    broker.fetch(vec![item], options).await.remove(0)
}

/// First bytes of the values that a reader of committed records gets.
async fn committed(broker: &Broker, index: i32) -> Vec<u8> {
    let (mut offset, mut fills) = (0, Vec::new());
    loop {
        let fetched = fetch(broker, index, offset, 1 << 20).await;
        let mut aborted = fetched.aborted.clone().unwrap().into_iter().peekable();
        let mut dropped = BTreeSet::new();
        let before = offset;
        for chunk in &fetched.records {
            let mut rest = chunk.as_ref();
            while !rest.is_empty() {
                let header = BatchHeader::parse(rest).unwrap();
                let (batch, more) = rest.split_at(header.size);
                rest = more;
                offset = header.next_offset();
                // As clients do it.
                while let Some(one) = aborted.next_if(|a| a.first_offset <= header.last_offset()) {
                    dropped.insert(one.producer_id);
                }
                if header.is_control() {
                    dropped.remove(&header.producer_id);
                } else if !(header.is_transactional() && dropped.contains(&header.producer_id)) {
                    fills.push(batch[70]);
                }
            }
        }
        if offset == before {
            return fills;
        }
    }
}

async fn state(broker: &Broker, id: &str) -> TxnState {
    broker.describe_transaction(id.into()).await.unwrap().state
}

async fn is_over(broker: &Broker, id: &str) {
    for _ in 0..1_000 {
        match state(broker, id).await {
            TxnState::CompleteCommit | TxnState::CompleteAbort | TxnState::Empty => return,
            TxnState::Ongoing
            | TxnState::PrepareCommit
            | TxnState::PrepareAbort
            | TxnState::Dead
            | TxnState::PrepareEpochFence => rt::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("{id} stays {:?}", state(broker, id).await);
}

#[test]
fn what_was_committed_is_read_whenever_the_power_goes() {
    for seed in 0..30 {
        let sim = Sim::new(seed, SimConfig::default());
        let shards = 1 + (seed % 3) as usize;
        let (commit, wait_us) = (seed % 2 == 0, seed * 40);
        sim.block_on(async move {
            let brokers = start(shards).await;
            let broker = &brokers[0];
            let mut producer = init(broker, "id").await;
            for (round, fill) in [(true, b'a'), (false, b'b')] {
                for index in 0..PARTITIONS {
                    write(broker, "id", producer, index, fill, 0).await.unwrap();
                }
                producer = end(broker, "id", producer, round).await;
                is_over(broker, "id").await;
            }
            for index in 0..PARTITIONS {
                let fill = b'c';
                write(broker, "id", producer, index, fill, 0).await.unwrap();
                // Nothing of it is seen before its end.
                assert_eq!(committed(broker, index).await, b"a");
            }
            end(broker, "id", producer, commit).await;
            // Between the decision and the last marker, or behind it.
            rt::sleep(Duration::from_micros(wait_us)).await;
        });
        sim.crash(CrashPolicy::POWER);
        sim.block_on(async move {
            let brokers = start(1 + (seed % 2) as usize).await;
            let broker = &brokers[0];
            is_over(broker, "id").await;
            let expected = if commit { &b"ac"[..] } else { b"a" };
            for index in 0..PARTITIONS {
                let read = committed(broker, index).await;
                assert_eq!(read, expected, "seed {seed}, partition {index}");
            }
            let producer = init(broker, "id").await;
            write(broker, "id", producer, 0, b'd', 0).await.unwrap();
            end(broker, "id", producer, true).await;
            is_over(broker, "id").await;
            assert_eq!(committed(broker, 0).await, [expected, b"d"].concat());
            node::close(&brokers).await;
        });
        // And from a checkpoint alone.
        sim.crash(CrashPolicy::Process);
        sim.block_on(async move {
            let brokers = start(2).await;
            let expected = if commit { &b"acd"[..] } else { b"ad" };
            assert_eq!(committed(&brokers[0], 0).await, expected, "seed {seed}");
        });
    }
}

#[test]
fn a_transaction_begins_while_the_one_before_is_still_being_ended() {
    for seed in 0..3 {
        let sim = Sim::new(seed, SimConfig::default());
        sim.block_on(async move {
            let brokers = start(1 + (seed % 3) as usize).await;
            let broker = &brokers[0];
            let mut producer = init(broker, "id").await;
            let mut expected = Vec::new();
            for fill in *b"abc" {
                for index in 0..PARTITIONS {
                    // A client tries again while its coordinator is busy, and gives up at anything else.
                    let concurrent = TxnError::ConcurrentTransactions.to_string();
                    loop {
                        match write(broker, "id", producer, index, fill, 0).await {
                            Ok(_) => break,
                            Err(why) => {
                                assert_eq!(why, concurrent, "seed {seed}, partition {index}")
                            }
                        }
                    }
                }
                let commit = fill % 3 != 0;
                producer = end(broker, "id", producer, commit).await;
                expected.extend(commit.then_some(fill));
            }
            is_over(broker, "id").await;
            for index in 0..PARTITIONS {
                assert_eq!(committed(broker, index).await, expected, "seed {seed}");
            }
            node::close(&brokers).await;
        });
    }
}

#[test]
fn a_reader_far_behind_is_told_only_what_was_aborted_of_what_it_gets() {
    let sim = Sim::new(1, SimConfig::default());
    sim.block_on(async {
        let brokers = start(1).await;
        let broker = &brokers[0];
        let mut producer = init(broker, "id").await;
        for fill in 0..5 {
            write(broker, "id", producer, 0, fill, 0).await.unwrap();
            producer = end(broker, "id", producer, false).await;
            is_over(broker, "id").await;
        }
        let told = |fetched: Fetched| {
            let aborted = fetched.aborted.unwrap().into_iter();
            aborted.map(|one| one.first_offset).collect::<Vec<i64>>()
        };
        // Each is a batch and its marker; a fetch of a byte gets one batch.
        assert_eq!(told(fetch(broker, 0, 0, 1 << 20).await), [0, 2, 4, 6, 8]);
        assert_eq!(told(fetch(broker, 0, 0, 1).await), [0]);
        assert_eq!(told(fetch(broker, 0, 3, 1).await), [2]);
        assert_eq!(told(fetch(broker, 0, 4, 1 << 20).await), [4, 6, 8]);
    });
}

#[test]
fn a_reader_at_the_edge_of_retention_never_takes_aborted_records_for_committed_ones() {
    let (mut told, mut late) = (0, 0);
    for seed in 0..80 {
        // A read of the disk takes longer than all that comes between.
        let config = SimConfig {
            read: Between(Duration::from_micros(20), Duration::from_millis(20)),
            ..SimConfig::default()
        };
        let sim = Sim::new(seed, config);
        sim.block_on(async {
            let brokers = start(1).await;
            let producer = init(&brokers[0], "id").await;
            write(&brokers[0], "id", producer, 0, 1, 0).await.unwrap();
            end(&brokers[0], "id", producer, false).await;
            is_over(&brokers[0], "id").await;
            for fill in 0..10 {
                let batch = Batch::new(fill, 100_000).encode();
                let id = PartitionId::new(TOPIC, 0);
                node::append(&brokers[0], id, batch).await.unwrap();
            }
            // From now on it is read from the disk.
            node::close(&brokers).await;
        });
        sim.crash(CrashPolicy::Process);
        let read = sim.block_on(async {
            let broker = start(1).await.remove(0);
            let producer = init(&broker, "other").await;
            write(&broker, "other", producer, 0, 1, 0).await.unwrap();
            let reading = broker.clone();
            let reader = rt::spawn_joined(rt::Class::Network, async move {
                try_fetch(&reading, 0, 0, 1 << 20).await
            });
            rt::sleep(Duration::from_micros(rt::random_u64() % 100_000)).await;
            // The log begins behind what was aborted, and then a marker comes.
            let id = PartitionId::new(TOPIC, 0);
            broker.delete_records(id, 5).await.unwrap();
            end(&broker, "other", producer, true).await;
            is_over(&broker, "other").await;
            reader.await
        });
        match read {
            Ok(fetched) if fetched.records.is_empty() => {}
            Ok(fetched) => {
                let aborted = fetched.aborted.unwrap();
                assert_eq!(aborted.len(), 1, "seed {seed}: one of them was aborted");
                told += 1;
            }
            Err(PartitionError::OffsetOutOfRange { .. }) => late += 1,
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
    assert!(told > 0 && late > 0, "{told} in time, {late} late");
}

#[test]
fn a_transaction_that_nobody_ends_is_aborted_in_time_also_across_a_stop() {
    for stop in [false, true] {
        let sim = Sim::new(3, SimConfig::default());
        sim.block_on(async move {
            let mut brokers = start(2).await;
            let producer = init(&brokers[0], "id").await;
            let written = write(&brokers[0], "id", producer, 1, b'a', 0).await;
            written.unwrap();
            if stop {
                node::close(&brokers).await;
                drop(brokers);
                return;
            }
            rt::sleep(Duration::from_secs(11)).await;
            let broker = brokers.remove(0);
            is_over(&broker, "id").await;
            assert_eq!(state(&broker, "id").await, TxnState::CompleteAbort);
            assert_eq!(committed(&broker, 1).await, b"");
            let late = write(&broker, "id", producer, 1, b'z', 1).await;
            assert!(late.is_err(), "a zombie wrote");
        });
        if !stop {
            continue;
        }
        sim.crash(CrashPolicy::Process);
        sim.block_on(async move {
            let brokers = start(1).await;
            let broker = &brokers[0];
            assert_eq!(state(broker, "id").await, TxnState::Ongoing);
            rt::sleep(Duration::from_secs(11)).await;
            is_over(broker, "id").await;
            assert_eq!(state(broker, "id").await, TxnState::CompleteAbort);
            assert_eq!(committed(broker, 1).await, b"");
        });
    }
}

#[test]
fn a_batch_behind_the_end_of_its_transaction_is_refused() {
    let sim = Sim::new(4, SimConfig::default());
    sim.block_on(async {
        let brokers = start(1).await;
        let broker = &brokers[0];
        let producer = init(broker, "id").await;
        let partition = PartitionId::new(TOPIC, 0);
        let unasked = node::append(broker, partition, batch(b'x', producer, 0)).await;
        assert!(unasked.is_err(), "its partition is in no transaction");
        // By the first version of transactions, where the epoch stays.
        let asked = AddPartitions {
            of: of("id", producer),
            partitions: TopicPartitions::from([("t".to_string(), BTreeSet::from([0]))]),
            version: 0,
        };
        broker.add_to_transaction(asked).await.unwrap();
        let joined = broker
            .join_transaction(of("id", producer), vec![(partition, 0)], Membership::Verify)
            .await;
        assert_eq!(joined, [Ok(())]);
        let asked = EndTxn {
            of: of("id", producer),
            commit: false,
            version: 0,
        };
        broker.end_transaction(asked).await.unwrap();
        is_over(broker, "id").await;
        let late = node::append(broker, partition, batch(b'x', producer, 0)).await;
        assert!(late.is_err(), "it would stay open for ever");
        let other = PartitionId::new(TOPIC, 1);
        let joined = broker
            .join_transaction(of("id", producer), vec![(other, 0)], Membership::Verify)
            .await;
        assert_eq!(joined, [Err(TxnError::TransactionAbortable)]);
    });
}

#[test]
fn a_time_is_not_found_where_readers_of_committed_records_do_not_get_to() {
    let sim = Sim::new(1, SimConfig::default());
    sim.block_on(async {
        let broker = start(1).await.remove(0);
        let partition = PartitionId::new(TOPIC, 0);
        let producer = init(&broker, "id").await;
        write(&broker, "id", producer, 0, 1, 0).await.unwrap();
        for over in [false, true] {
            if over {
                end(&broker, "id", producer, true).await;
                is_over(&broker, "id").await;
            }
            for read_committed in [false, true] {
                let at = OffsetSpec::At {
                    timestamp_ms: 0,
                    read_committed,
                };
                // The marker is the newest then.
                let newest = OffsetSpec::MaxTimestamp { read_committed };
                for (spec, first) in [(at, 0), (newest, i64::from(over))] {
                    let found = broker.list_offset(partition, -1, spec).await.unwrap();
                    let expected = if over || !read_committed { first } else { -1 };
                    assert_eq!(found.offset, expected, "{spec:?}, over: {over}");
                }
            }
        }
    });
}

// Groups -----------------------------------------------------------------------------------------------------------------

async fn commit_in(broker: &Broker, producer: Producer, offset: i64) -> Result<(), GroupError> {
    let asked = CommitInTxn {
        of: of("id", producer),
        membership: Membership::Add(2),
        commit: CommitOffsets {
            by: MemberOf {
                group: "g".into(),
                generation: -1,
                member: String::new(),
                instance: None,
            },
            retention_ms: -1,
            offsets: vec![OffsetToCommit {
                topic: "t".into(),
                topic_id: TOPIC,
                partition: 3,
                offset,
                leader_epoch: 2,
                metadata: String::new(),
            }],
        },
    };
    broker.commit_in_transaction(asked).await.remove(0)
}

async fn offset(broker: &Broker, require_stable: bool) -> CommittedOffset {
    let asked = FetchOffsets {
        group: "g".into(),
        member: None,
        member_epoch: -1,
        topics: Some(vec![("t".into(), vec![3])]),
        require_stable,
    };
    let mut fetched = broker.fetch_offsets(asked).await.unwrap();
    fetched.remove(0).1.remove(0).1
}

#[test]
fn offsets_of_a_transaction_count_once_it_commits_live_and_after_a_crash() {
    for seed in 0..12 {
        let sim = Sim::new(seed, SimConfig::default());
        let (commit, wait_us) = (seed % 2 == 0, seed * 100);
        sim.block_on(async move {
            let brokers = start(2).await;
            let broker = &brokers[0];
            let mut producer = init(broker, "id").await;
            for (offset_to, round) in [(10, true), (20, false)] {
                commit_in(broker, producer, offset_to).await.unwrap();
                assert!(offset(broker, true).await.unstable);
                producer = end(broker, "id", producer, round).await;
                is_over(broker, "id").await;
                let now = offset(broker, true).await;
                assert_eq!((now.offset, now.unstable), (10, false));
            }
            commit_in(broker, producer, 30).await.unwrap();
            assert_eq!(offset(broker, false).await.offset, 10);
            if seed < 6 {
                end(broker, "id", producer, commit).await;
                rt::sleep(Duration::from_micros(wait_us)).await;
            }
        });
        sim.crash(CrashPolicy::POWER);
        sim.block_on(async move {
            let brokers = start(1).await;
            let broker = &brokers[0];
            if seed >= 6 {
                let open = offset(broker, true).await;
                assert!(open.unstable, "seed {seed}: it is not over");
                let of_open = broker.describe_transaction("id".into()).await.unwrap();
                end(broker, "id", of_open.producer, commit).await;
            }
            is_over(broker, "id").await;
            let now = offset(broker, true).await;
            let expected = if commit { 30 } else { 10 };
            assert_eq!((now.offset, now.unstable), (expected, false), "seed {seed}");
        });
    }
}

#[test]
fn a_share_group_has_no_offsets_in_transactions() {
    let sim = Sim::new(1, SimConfig::default());
    sim.block_on(async {
        let broker = start(1).await.remove(0);
        let beat = ShareHeartbeat {
            group: "g".into(),
            member: "m".into(),
            epoch: 0,
            rack: None,
            topics: Some(vec!["t".into()]),
            client_id: "c".into(),
            client_host: "/h".into(),
        };
        broker.share_heartbeat(beat).await.unwrap();
        let producer = init(&broker, "id").await;
        let refused = commit_in(&broker, producer, 5).await;
        assert_eq!(refused, Err(GroupError::GroupIdNotFound));
        assert_eq!(broker.list_groups().await.unwrap(), []);
    });
}
