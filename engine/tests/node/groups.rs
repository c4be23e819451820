//! Owns the group coordinators on a whole engine: what a restart, a crash, a stop and a deleted topic leave of groups.
//! Does not know how a group decides anything; its machine has tests of its own.
//! Invariant checked: what was told to a member is there afterwards, and nobody waits for ever.

use crate::node;
use bytes::Bytes;
use millrace_engine::api::coord::{
    CommitOffsets, FetchOffsets, GroupError, GroupState, JoinGroup, MemberOf, OffsetToCommit,
    SyncGroup, GROUP_TOPIC,
};
use millrace_engine::api::{Broker, OffsetSpec};
use millrace_engine::meta::Command;
use millrace_engine::rt::sim::{CrashPolicy, Sim, SimConfig};
use millrace_engine::rt::{self, Class};
use millrace_engine::types::{PartitionId, TopicId};
use std::time::Duration;

const GROUPS: TopicId = TopicId([7; 16]);

async fn start(shards: usize) -> Vec<Broker> {
    let mut config = node::config();
    let at_once = ("group.initial.rebalance.delay.ms".into(), "0".into());
    config.broker_settings.extend([at_once]);
    let brokers = node::start_with(config, shards).await.unwrap();
    if brokers[0].image().topic(GROUP_TOPIC).is_none() {
        node::create_topic(&brokers[0], GROUPS, GROUP_TOPIC, 50, 1 << 20).await;
    }
    brokers
}

fn join(group: &str) -> JoinGroup {
    JoinGroup {
        group: group.into(),
        member: String::new(),
        instance: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::from_static(b"\0\0\0\0\0\0"))],
        require_known_member: false,
        supports_skipping_assignment: false,
    }
}

fn member(group: &str, id: &str, generation: i32) -> MemberOf {
    MemberOf {
        group: group.into(),
        generation,
        member: id.into(),
        instance: None,
    }
}

/// A group of one member that has its assignment; gives the member's id.
async fn stable(broker: &Broker, group: &str) -> String {
    let joined = broker.join_group(join(group)).await;
    assert_eq!(joined.error, None);
    let assignments = vec![(joined.member.clone(), Bytes::from_static(b"mine"))];
    let asked = SyncGroup {
        group: group.into(),
        generation: joined.generation,
        member: joined.member.clone(),
        instance: None,
        protocol_type: None,
        protocol: None,
        assignments,
    };
    let synced = broker.sync_group(asked).await.unwrap();
    assert_eq!(synced.assignment, &b"mine"[..]);
    joined.member
}

async fn commit(broker: &Broker, by: MemberOf, offset: i64) -> Result<(), GroupError> {
    let asked = CommitOffsets {
        by,
        retention_ms: -1,
        offsets: vec![OffsetToCommit {
            topic: "t".into(),
            topic_id: TopicId::NIL,
            partition: 3,
            offset,
            leader_epoch: 2,
            metadata: "note".into(),
        }],
    };
    broker.commit_offsets(asked).await.remove(0)
}

async fn committed(broker: &Broker, group: &str) -> i64 {
    let asked = FetchOffsets {
        group: group.into(),
        member: None,
        member_epoch: -1,
        require_stable: false,
        topics: Some(vec![("t".into(), vec![3])]),
    };
    broker.fetch_offsets(asked).await.unwrap()[0].1[0].1.offset
}

fn names() -> Vec<String> {
    (0..20).map(|i| format!("group{i}")).collect()
}

#[test]
fn groups_are_there_after_a_crash_and_after_a_clean_stop_with_another_number_of_shards() {
    for (crash, shards_after) in [(false, 3), (true, 1), (true, 2)] {
        let sim = Sim::new(1, SimConfig::default());
        let members = sim.block_on(async move {
            let brokers = start(2).await;
            let mut members = Vec::new();
            for (i, group) in names().iter().enumerate() {
                // Also from the shard that does not own the group.
                let broker = &brokers[i % 2];
                let id = stable(broker, group).await;
                commit(broker, member(group, &id, 1), 100 + i as i64)
                    .await
                    .unwrap();
                members.push(id);
            }
            if !crash {
                node::close(&brokers).await;
            }
            members
        });
        sim.crash(match crash {
            true => CrashPolicy::POWER,
            false => CrashPolicy::Process,
        });
        sim.block_on(async move {
            let brokers = start(shards_after).await;
            let broker = &brokers[0];
            assert_eq!(broker.list_groups().await.unwrap().len(), names().len());
            for (i, group) in names().iter().enumerate() {
                assert_eq!(committed(broker, group).await, 100 + i as i64);
                let described = broker.describe_group(group.clone()).await.unwrap();
                assert_eq!(described.state, GroupState::Stable);
                assert_eq!(described.members[0].assignment, &b"mine"[..]);
                let by = member(group, &members[i], 1);
                assert_eq!(broker.group_heartbeat(by).await, Ok(()));
            }
            // Nobody is heard of any more.
            rt::sleep(Duration::from_secs(11)).await;
            for group in names() {
                let described = broker.describe_group(group.clone()).await.unwrap();
                assert_eq!(described.state, GroupState::Empty);
                assert_eq!(broker.delete_group(group.clone()).await, Ok(()));
                assert_eq!(committed(broker, &group).await, -1);
            }
            assert_eq!(broker.list_groups().await.unwrap(), []);
        });
    }
}

/// Commits 50 offsets with long notes: some 200 KiB of records.
async fn commit_much(broker: &Broker, group: &str, offset: i64) {
    let one = |partition| OffsetToCommit {
        topic: "t".into(),
        topic_id: TopicId::NIL,
        partition,
        offset,
        leader_epoch: 2,
        metadata: "n".repeat(4_000),
    };
    let asked = CommitOffsets {
        by: member(group, "", -1),
        retention_ms: -1,
        offsets: (0..50).map(one).collect(),
    };
    let results = broker.commit_offsets(asked).await;
    assert_eq!(results, vec![Ok(()); 50]);
}

#[test]
fn a_log_of_old_commits_is_let_go_and_nothing_that_counts_with_it() {
    for seed in 0..10 {
        let sim = Sim::new(seed, SimConfig::default());
        sim.block_on(async move {
            let brokers = start(1).await;
            stable(&brokers[0], "still").await;
            for offset in 0..100 {
                commit_much(&brokers[0], "busy", offset).await;
            }
            // What is written anew need not be done when the crash comes.
            rt::sleep(Duration::from_millis(seed * 3)).await;
        });
        sim.crash(CrashPolicy::POWER);
        sim.block_on(async move {
            let brokers = start(1).await;
            let broker = &brokers[0];
            assert_eq!(committed(broker, "busy").await, 99);
            let described = broker.describe_group("still".into()).await.unwrap();
            assert_eq!(described.members[0].assignment, &b"mine"[..]);
            let index = millrace_engine::api::coord::partition_of("busy", 50);
            let id = PartitionId::new(GROUPS, index);
            let first = broker
                .list_offset(id, -1, OffsetSpec::Earliest)
                .await
                .unwrap();
            let last = OffsetSpec::Latest {
                read_committed: false,
            };
            let last = broker.list_offset(id, -1, last).await.unwrap();
            assert!(first.offset >= 1_000, "{first:?} of {last:?}");
        });
    }
}

#[test]
fn who_waits_for_others_is_told_when_the_broker_stops_or_the_topic_goes() {
    for deleted in [false, true] {
        let sim = Sim::new(1, SimConfig::default());
        sim.block_on(async move {
            let brokers = start(2).await;
            let waiting: Vec<_> = names()
                .into_iter()
                .map(|group| {
                    let broker = brokers[0].clone();
                    rt::spawn_joined(Class::Network, async move {
                        // A first generation in which nobody assigns, and a second member that waits for the first.
                        let first = broker.join_group(join(&group)).await;
                        assert_eq!(first.error, None);
                        broker.join_group(join(&group)).await
                    })
                })
                .collect();
            rt::sleep(Duration::from_secs(5)).await;
            if deleted {
                let gone = Command::DeleteTopic { id: GROUPS };
                brokers[0].propose(gone).await.unwrap();
            } else {
                node::close(&brokers).await;
            }
            for one in waiting {
                let joined = one.await;
                assert_eq!(joined.error, Some(GroupError::NotAvailable));
            }
        });
    }
}

#[test]
fn a_group_without_a_topic_has_no_coordinator() {
    let sim = Sim::new(1, SimConfig::default());
    sim.block_on(async {
        let broker = node::start().await;
        let refused = broker.join_group(join("g")).await;
        assert_eq!(refused.error, Some(GroupError::NotAvailable));
        let by = member("g", "", -1);
        assert_eq!(commit(&broker, by, 1).await, Err(GroupError::NotAvailable));
        assert_eq!(broker.list_groups().await.unwrap(), []);
    });
}
