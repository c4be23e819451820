//! Owns share groups on a whole engine: what a crash, a restart with other shards and a deleted topic leave of them.
//! Does not know how records are handed out; those machines have tests of their own.
//! Invariant checked: nothing that was acknowledged is given again, and nothing that was not is lost.

use crate::node;
use millrace_engine::api::coord::GROUP_TOPIC;
use millrace_engine::api::share::{
    AckBatch, AckType, ShareAck, ShareError, ShareFetchAsked, ShareHeartbeat, SHARE_TOPIC,
};
use millrace_engine::api::{Acks, AppendItem, Broker};
use millrace_engine::meta::{Command, ConfigEdit};
use millrace_engine::rt::sim::{CrashPolicy, Sim, SimConfig};
use millrace_engine::rt::{self, Class};
use millrace_engine::types::{PartitionId, TopicId};
use std::collections::BTreeSet;
use std::time::Duration;

const GROUPS: TopicId = TopicId([7; 16]);
const STATES: TopicId = TopicId([8; 16]);
const TOPIC: TopicId = TopicId([9; 16]);
const PARTITIONS: i32 = 3;
const RECORDS: i64 = 40;

fn id(index: i32) -> PartitionId {
    PartitionId::new(TOPIC, index)
}

async fn start(shards: usize) -> Vec<Broker> {
    let brokers = node::start_with(node::config(), shards).await.unwrap();
    let broker = &brokers[0];
    if broker.image().topic(GROUP_TOPIC).is_none() {
        node::create_topic(broker, GROUPS, GROUP_TOPIC, 5, 1 << 20).await;
        node::create_topic(broker, STATES, SHARE_TOPIC, 5, 1 << 20).await;
        node::create_topic(broker, TOPIC, "t", PARTITIONS, 1 << 20).await;
        let earliest = ("share.auto.offset.reset".into(), Some("earliest".into()));
        let command = Command::SetGroupConfig {
            group: "g".into(),
            edit: ConfigEdit::set([earliest]),
        };
        broker.propose(command).await.unwrap();
    }
    brokers
}

async fn fill(broker: &Broker) {
    for index in 0..PARTITIONS {
        for at in 0..RECORDS / 4 {
            let mut batch = node::Batch::new(at as u8, 10);
            batch.records = 4;
            let item = AppendItem {
                partition: id(index),
                batch: batch.encode().into(),
            };
            let appended = broker.append(vec![item], Acks::All).await;
            assert_eq!(appended[0].as_ref().unwrap().base_offset, at * 4);
        }
    }
}

fn beat(member: &str, epoch: i32) -> ShareHeartbeat {
    ShareHeartbeat {
        group: "g".into(),
        member: member.into(),
        epoch,
        rack: None,
        topics: (epoch == 0).then(|| vec!["t".into()]),
        client_id: "c".into(),
        client_host: "/h".into(),
    }
}

fn asked(member: &str, max_records: usize, max_wait_ms: u64) -> ShareFetchAsked {
    ShareFetchAsked {
        group: "g".into(),
        member: member.into(),
        partitions: (0..PARTITIONS).map(id).collect(),
        max_wait_ms,
        max_bytes: 1 << 20,
        max_records,
        strict: true,
    }
}

/// Gives a member some records: partition, first and last offset.
async fn take(broker: &Broker, member: &str, most: usize, wait_ms: u64) -> Vec<(i32, i64, i64)> {
    let found = broker.share_fetch(asked(member, most, wait_ms)).await;
    let mut all = Vec::new();
    for (index, fetched) in found.into_iter().enumerate() {
        for run in fetched.unwrap().acquired {
            all.push((index as i32, run.first, run.last));
        }
    }
    all
}

async fn accept(broker: &Broker, member: &str, runs: &[(i32, i64, i64)]) -> Result<(), ShareError> {
    let ack = |(index, first, last): &(i32, i64, i64)| ShareAck {
        partition: id(*index),
        batches: vec![AckBatch {
            first: *first,
            last: *last,
            types: vec![AckType::Accept],
        }],
    };
    let acks = runs.iter().map(ack).collect();
    let results = broker.share_acknowledge("g", member, acks).await;
    results.into_iter().collect()
}

fn offsets(runs: &[(i32, i64, i64)]) -> impl Iterator<Item = (i32, i64)> + '_ {
    runs.iter()
        .flat_map(|(index, first, last)| (*first..=*last).map(|at| (*index, at)))
}

#[test]
fn what_is_acknowledged_never_comes_again_and_the_rest_does_whatever_crashes() {
    for seed in 1..=6u64 {
        let sim = Sim::new(seed, SimConfig::default());
        sim.block_on(async { fill(&start(2).await[0]).await });
        sim.crash(CrashPolicy::Process);
        let mut done: BTreeSet<(i32, i64)> = BTreeSet::new();
        // What a crash overtook may be done or not.
        let mut unsure: BTreeSet<(i32, i64)> = BTreeSet::new();
        for round in 0..4u64 {
            let shards = [2, 1, 3, 2][round as usize];
            let told = sim.block_on({
                let (done, unsure) = (done.clone(), unsure.clone());
                async move {
                    let brokers = start(shards).await;
                    let mut told = done.clone();
                    for step in 0..3usize {
                        let member = ["a", "b"][step % 2];
                        let broker = &brokers[step % shards];
                        let runs = take(broker, member, 7 + step, 100).await;
                        for at in offsets(&runs) {
                            assert!(!done.contains(&at), "seed {seed}: {at:?} comes again");
                        }
                        if step < 2 {
                            accept(broker, member, &runs).await.unwrap();
                            told.extend(offsets(&runs));
                        } else {
                            // Nobody hears what becomes of this one.
                            let (broker, member) = (broker.clone(), member.to_string());
                            let unheard = runs.clone();
                            rt::spawn(Class::Network, async move {
                                let _crash = accept(&broker, &member, &unheard).await;
                            });
                            rt::sleep(Duration::from_micros(seed * 37)).await;
                            return (told, offsets(&runs).collect::<BTreeSet<_>>());
                        }
                    }
                    (told, unsure)
                }
            });
            sim.crash(match round % 2 {
                0 => CrashPolicy::POWER,
                _ => CrashPolicy::Process,
            });
            done = told.0;
            unsure.extend(told.1);
        }
        sim.block_on(async move {
            let brokers = start(2).await;
            let mut seen = done.clone();
            loop {
                let runs = take(&brokers[0], "a", 10, 0).await;
                if runs.is_empty() {
                    break;
                }
                for at in offsets(&runs) {
                    assert!(!done.contains(&at), "seed {seed}: {at:?} comes again");
                    seen.insert(at);
                }
                accept(&brokers[0], "a", &runs).await.unwrap();
            }
            seen.extend(unsure);
            let all = PARTITIONS as usize * RECORDS as usize;
            assert_eq!(seen.len(), all, "seed {seed}: a record was lost");
            node::close(&brokers).await;
        });
    }
}

#[test]
fn members_are_known_after_a_crash_and_a_fetch_ends_with_the_first_record() {
    let sim = Sim::new(1, SimConfig::default());
    sim.block_on(async {
        let brokers = start(2).await;
        let heard = brokers[0].share_heartbeat(beat("a", 0)).await.unwrap();
        assert_eq!(heard.assignment.unwrap()[&TOPIC], [0, 1, 2]);
        let waiting = brokers[1].clone();
        let waits = rt::spawn_joined(Class::Network, async move {
            take(&waiting, "a", 10, 60_000).await
        });
        rt::sleep(Duration::from_millis(50)).await;
        fill(&brokers[0]).await;
        let first = waits.await;
        assert!(!first.is_empty());
        // Released, they are somebody else's.
        let member = first.clone();
        let ids = (0..PARTITIONS).map(id).collect();
        brokers[0].share_release("g", "a", ids).await;
        let other = take(&brokers[1], "b", 100, 0).await;
        let other: BTreeSet<_> = offsets(&other).collect();
        assert!(offsets(&member).all(|at| other.contains(&at)));
    });
    sim.crash(CrashPolicy::POWER);
    sim.block_on(async {
        let brokers = start(1).await;
        assert_eq!(
            brokers[0]
                .share_heartbeat(beat("a", 1))
                .await
                .unwrap()
                .epoch,
            1
        );
        let busy = brokers[0].delete_group("g".into()).await;
        assert!(busy.is_err());
        brokers[0].share_heartbeat(beat("a", -1)).await.unwrap();
        let listed = brokers[0].list_share_groups().await.unwrap();
        assert_eq!(listed.len(), 1);
        // Moved, it begins there.
        let to = vec![(id(0), "t".to_string(), RECORDS - 2)];
        let moved = brokers[0].alter_share_offsets("g", to).await.unwrap();
        assert_eq!(moved, [Ok(())]);
        let of = Some(vec![("t".to_string(), vec![0])]);
        let told = brokers[0].describe_share_offsets("g", of).await.unwrap();
        let told = told[0].2[0].1.clone().unwrap();
        assert_eq!((told.start, told.lag), (RECORDS - 2, 2));
        let runs = take(&brokers[0], "a", 1_000, 0).await;
        assert!(runs.contains(&(0, RECORDS - 2, RECORDS - 1)), "{runs:?}");
        brokers[0].delete_group("g".into()).await.unwrap();
        assert!(brokers[0].list_share_groups().await.unwrap().is_empty());
        node::close(&brokers).await;
    });
}

#[test]
fn states_of_deleted_topics_go_with_them() {
    let sim = Sim::new(2, SimConfig::default());
    sim.block_on(async {
        let brokers = start(2).await;
        brokers[0].share_heartbeat(beat("a", 0)).await.unwrap();
        fill(&brokers[0]).await;
        let runs = take(&brokers[0], "a", 1_000, 0).await;
        accept(&brokers[0], "a", &runs).await.unwrap();
        let waiting = brokers[1].clone();
        let waits = rt::spawn_joined(Class::Network, async move {
            waiting.share_fetch(asked("a", 10, 600_000)).await
        });
        rt::sleep(Duration::from_millis(50)).await;
        brokers[0]
            .propose(Command::DeleteTopic { id: TOPIC })
            .await
            .unwrap();
        let refused = waits.await;
        assert!(
            refused.iter().all(|r| r.is_err()),
            "whoever waits hears of it"
        );
        brokers[0].share_heartbeat(beat("a", -1)).await.unwrap();
        brokers[0].delete_group("g".into()).await.unwrap();
        node::close(&brokers).await;
    });
}
