//! Owns the tests of the machines of share groups, step by step; random histories are beside it.
//! Does not know shards or the wire.
//! Invariant checked: each step does what Kafka does there, and the log alone gives the same.

mod histories;

use super::members::*;
use super::partition::*;
use super::records::*;
use super::states::*;
use super::types::*;
use crate::coord::batch::KeyValue;
use crate::coord::{Append, GroupError, GroupTimes, Memory};
use crate::types::{PartitionId, TopicId};
use bytes::Bytes;
use std::collections::BTreeMap;

/// A log that may refuse.
#[derive(Default)]
pub(super) struct Log {
    pub records: Vec<KeyValue>,
    pub refuses: bool,
}

impl Append for Log {
    fn append(&mut self, records: &[KeyValue]) -> Result<(), GroupError> {
        if self.refuses {
            return Err(GroupError::NotAvailable);
        }
        self.records.extend_from_slice(records);
        Ok(())
    }
}

pub(super) const CONFIG: ShareConfig = ShareConfig {
    lock_ms: 1_000,
    delivery_count_max: 3,
    in_flight_max: 20,
};

pub(super) fn ack(first: i64, last: i64, types: &[AckType]) -> AckBatch {
    AckBatch {
        first,
        last,
        types: types.to_vec(),
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    let bytes = digits.chunks_exact(2);
    bytes.map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn topic_id(last: u8) -> TopicId {
    let mut id = [1; 16];
    id[15] = last;
    TopicId(id)
}

// Records ------------------------------------------------------------------------------------------------------------

/// Laid out by hand after Kafka's schemas.
#[test]
fn records_are_kafkas() {
    let topic = "01010101010101010101010101010105";
    let of = || BTreeMap::from([(topic_id(5), vec![0, 2])]);
    let member = || "m".to_string();
    let cases = [
        (
            GroupRecord::Member(
                member(),
                Some(MemberValue {
                    rack: None,
                    client_id: "c".into(),
                    client_host: "/h".into(),
                    topics: vec!["t".into()],
                }),
            ),
            "000a 0001 67 0001 6d".to_string(),
            "0000 00 02 63 03 2f68 02 02 74 00".to_string(),
        ),
        (
            GroupRecord::Group(Some((7, -1))),
            "000b 0001 67".into(),
            "0000 00000007 ffffffffffffffff 00".into(),
        ),
        (
            GroupRecord::Target(Some(7)),
            "000c 0001 67".into(),
            "0000 00000007 00".into(),
        ),
        (
            GroupRecord::TargetMember(member(), Some(of())),
            "000d 0001 67 0001 6d".into(),
            format!("0000 02 {topic} 03 00000000 00000002 00 00"),
        ),
        (
            GroupRecord::Current(
                member(),
                Some(CurrentValue {
                    epoch: 7,
                    previous_epoch: 6,
                    assigned: of(),
                }),
            ),
            "000e 0001 67 0001 6d".into(),
            format!("0000 00000007 00000006 01 02 {topic} 03 00000000 00000002 00 00"),
        ),
        (
            GroupRecord::States(Some(StatesValue {
                initialized: vec![(topic_id(5), "t".into(), vec![1])],
            })),
            "000f 0001 67".into(),
            format!("0000 01 02 {topic} 02 74 02 00000001 00 01 00"),
        ),
    ];
    for (record, key, value) in cases {
        let written = record.encode("g");
        assert_eq!(written.key, hex(&key), "{record:?}");
        assert_eq!(
            written.value.as_deref(),
            Some(&hex(&value)[..]),
            "{record:?}"
        );
        let back = GroupRecord::decode(&written.key, written.value.as_deref());
        assert_eq!(back, Ok(Some(("g".to_string(), record))));
    }
    let key = ShareKey {
        group: "g".into(),
        partition: PartitionId::new(topic_id(5), 3),
    };
    assert_eq!(key.to_string(), "g:AQEBAQEBAQEBAQEBAQEBBQ:3");
    let batch = StateBatch {
        first: 5,
        last: 9,
        state: STATE_ACKNOWLEDGED,
        count: 2,
    };
    let batches = "02 0000000000000005 0000000000000009 02 0002 00";
    let snapshot = StateRecord::Snapshot(Some(SnapshotValue {
        snapshot_epoch: 1,
        state_epoch: 2,
        leader_epoch: 3,
        start: 4,
        done: 5,
        created_ms: 6,
        written_ms: 7,
        batches: vec![batch],
    }));
    let update = StateRecord::Update(UpdateValue {
        snapshot_epoch: 1,
        leader_epoch: 3,
        start: -1,
        done: -1,
        batches: vec![batch],
    });
    let cases = [
        (
            snapshot,
            "0000",
            format!(
                "0000 00000001 00000002 00000003 0000000000000004 0000000000000006 0000000000000007
                 {batches} 01 00 04 00000005"
            ),
        ),
        (
            update,
            "0001",
            format!("0000 00000001 00000003 ffffffffffffffff {batches} 00"),
        ),
    ];
    for (record, kind, value) in cases {
        let written = record.encode(&key);
        assert_eq!(
            written.key,
            hex(&format!("{kind} 0001 67 {topic} 00000003"))
        );
        assert_eq!(written.value.as_deref(), Some(&hex(&value)[..]));
        let back = StateRecord::decode(&written.key, written.value.as_deref());
        assert_eq!(back, Ok(Some((key.clone(), record))));
    }
}

#[test]
fn bytes_that_are_no_records_are_refused() {
    let whole =
        GroupRecord::TargetMember("m".into(), Some(BTreeMap::from([(topic_id(1), vec![1])])));
    let whole = whole.encode("g");
    let value = whole.value.unwrap();
    for cut in 0..value.len() {
        assert!(
            GroupRecord::decode(&whole.key, Some(&value[..cut])).is_err(),
            "{cut}"
        );
    }
    let many = hex("0000 ffffffff0f");
    assert!(GroupRecord::decode(&whole.key, Some(&many)).is_err());
    for other in [0i16, 9, 16, -1] {
        assert_eq!(GroupRecord::decode(&other.to_be_bytes(), None), Ok(None));
    }
    // Offsets that go backwards.
    let key = hex("0001 0001 67 01010101010101010101010101010105 00000000");
    let bad = hex("0000 00000001 00000003 0000000000000001 02 0000000000000009 0000000000000005 02 0002 00 00");
    assert!(StateRecord::decode(&key, Some(&bad)).is_err());
}

// Partitions ---------------------------------------------------------------------------------------------------------

fn given(acquired: &[Acquired]) -> String {
    let one = |a: &Acquired| format!("{}-{}x{}", a.first, a.last, a.delivery_count);
    acquired.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn two_members_share_a_partition_and_what_is_done_moves_the_start() {
    let mut p = SharePartition::new(CONFIG, 100, &[]);
    assert_eq!(p.next_offset(), Some(100));
    assert_eq!(given(&p.acquire("a", 100, 104, 100, 0)), "100-104x1");
    assert_eq!(given(&p.acquire("b", 100, 109, 3, 0)), "105-107x1");
    // Not with this member.
    let not_theirs = p.acknowledge("b", &[ack(104, 105, &[AckType::Accept])], 0);
    assert_eq!(not_theirs, Err(ShareError::InvalidRecordState));
    assert_eq!(p.take_change(), None, "what is only given is not kept");
    p.acknowledge("b", &[ack(105, 107, &[AckType::Accept])], 0)
        .unwrap();
    assert_eq!((p.start(), p.end()), (100, 108));
    let types = [
        AckType::Accept,
        AckType::Accept,
        AckType::Release,
        AckType::Reject,
        AckType::Gap,
    ];
    p.acknowledge("a", &[ack(100, 104, &types)], 0).unwrap();
    assert_eq!(p.start(), 102);
    let change = p.take_change().unwrap();
    let state = |first, last, state, count| StateBatch {
        first,
        last,
        state,
        count,
    };
    assert_eq!(change.start, 102);
    assert_eq!(change.done, 5);
    assert_eq!(
        change.batches,
        [
            state(102, 102, STATE_AVAILABLE, 1),
            state(103, 104, STATE_ARCHIVED, 1),
            state(105, 107, STATE_ACKNOWLEDGED, 1),
        ]
    );
    // A second word about the same is not taken.
    let again = p.acknowledge("a", &[ack(103, 103, &[AckType::Accept])], 0);
    assert_eq!(again, Err(ShareError::InvalidRecordState));
    // About what is before the start it changes nothing.
    assert_eq!(
        p.acknowledge("a", &[ack(100, 101, &[AckType::Accept])], 0),
        Ok(())
    );
    assert_eq!(p.next_offset(), Some(102));
    assert_eq!(
        given(&p.acquire("b", 102, 120, 2, 0)),
        "102-102x2 108-108x1"
    );
    p.acknowledge("b", &[ack(102, 102, &[AckType::Accept])], 0)
        .unwrap();
    assert_eq!(p.start(), 108);
}

#[test]
fn batches_have_to_be_in_order_and_whole() {
    let mut p = SharePartition::new(CONFIG, 0, &[]);
    p.acquire("a", 0, 9, 100, 0);
    let accept = &[AckType::Accept][..];
    let invalid = |p: &mut SharePartition, batches: &[AckBatch]| {
        let refused = p.acknowledge("a", batches, 0);
        assert!(
            matches!(refused, Err(ShareError::InvalidRequest(_))),
            "{refused:?}"
        );
    };
    invalid(&mut p, &[ack(3, 2, accept)]);
    invalid(&mut p, &[ack(-1, 2, accept)]);
    invalid(&mut p, &[ack(0, 2, &[])]);
    invalid(&mut p, &[ack(0, 2, &[AckType::Accept; 2])]);
    invalid(&mut p, &[ack(0, 4, accept), ack(4, 6, accept)]);
    invalid(&mut p, &[ack(0, i64::MAX, &[AckType::Accept; 2])]);
    let beyond = p.acknowledge("a", &[ack(0, 10, accept)], 0);
    assert_eq!(beyond, Err(ShareError::InvalidRecordState));
    let huge = p.acknowledge("a", &[ack(0, i64::MAX, accept)], 0);
    assert_eq!(huge, Err(ShareError::InvalidRecordState));
    assert_eq!(
        p.start(),
        0,
        "a part of what is refused is not taken either"
    );
}

#[test]
fn locks_end_and_records_are_given_up_after_so_many_deliveries() {
    let mut p = SharePartition::new(CONFIG, 0, &[]);
    for delivery in 1..=3u64 {
        let now = delivery * 10_000;
        assert_eq!(
            given(&p.acquire("a", 0, 0, 100, now)),
            format!("0-0x{delivery}")
        );
        assert_eq!(p.next_deadline_ms(), Some(now + 1_000));
        p.tick(now + 999);
        assert!(p.is_in_use());
        if delivery == 1 {
            // Renewed, it ends later.
            p.acknowledge("a", &[ack(0, 0, &[AckType::Renew])], now + 500)
                .unwrap();
            p.tick(now + 1_000);
            assert!(p.is_in_use());
        }
        p.tick(now + 1_500);
        assert!(!p.is_in_use());
        let late = p.acknowledge("a", &[ack(0, 0, &[AckType::Accept])], now + 1_500);
        let expected = match delivery {
            3 => Ok(()), // It is before the start.
            _ => Err(ShareError::InvalidRecordState),
        };
        assert_eq!(late, expected);
    }
    assert_eq!((p.start(), p.next_offset()), (1, Some(1)));
}

#[test]
fn no_more_is_in_flight_than_is_allowed_and_a_member_that_goes_gives_all_back() {
    let mut p = SharePartition::new(CONFIG, 0, &[]);
    assert_eq!(given(&p.acquire("a", 0, 99, 100, 0)), "0-19x1");
    assert_eq!(p.next_offset(), None);
    assert_eq!(given(&p.acquire("b", 0, 99, 100, 0)), "");
    p.acknowledge("a", &[ack(1, 5, &[AckType::Accept])], 0)
        .unwrap();
    assert_eq!(p.next_offset(), None, "the first one holds up the start");
    p.release("a");
    assert_eq!(p.next_offset(), Some(0));
    assert_eq!(given(&p.acquire("b", 0, 99, 100, 0)), "0-0x1 6-19x1");
    p.acknowledge("b", &[ack(0, 0, &[AckType::Accept])], 0)
        .unwrap();
    assert_eq!((p.start(), p.next_offset()), (6, Some(20)));
}

#[test]
fn what_the_log_does_not_have_is_done() {
    let mut p = SharePartition::new(CONFIG, 0, &[]);
    p.acquire("a", 0, 4, 100, 0);
    // A marker, then records behind a hole.
    p.skip(5, 5);
    assert_eq!(given(&p.acquire("b", 8, 9, 100, 0)), "8-9x1");
    p.acknowledge("a", &[ack(0, 4, &[AckType::Accept])], 0)
        .unwrap();
    assert_eq!((p.start(), p.end()), (8, 10));
    p.log_begins(9);
    assert_eq!(p.start(), 9);
    p.log_begins(30);
    assert_eq!((p.start(), p.end(), p.next_offset()), (30, 30, Some(30)));
    assert_eq!(
        p.acknowledge("b", &[ack(8, 9, &[AckType::Accept])], 0),
        Ok(())
    );
}

// States -------------------------------------------------------------------------------------------------------------

fn share_key(index: i32) -> ShareKey {
    ShareKey {
        group: "g".into(),
        partition: PartitionId::new(topic_id(1), index),
    }
}

fn replayed(log: &Log) -> ShareStates {
    let mut states = ShareStates::new(Memory::new(1 << 20));
    for record in &log.records {
        states.replay(&record.key, record.value.as_deref()).unwrap();
    }
    states
}

#[test]
fn states_are_kept_as_updates_and_now_and_then_as_a_whole() {
    let mut log = Log::default();
    let memory = Memory::new(1 << 20);
    let mut states = ShareStates::new(memory.clone());
    let key = share_key(0);
    assert_eq!(states.initialize(&key, 10, 5, &mut log), Ok(0));
    let mut p = SharePartition::new(CONFIG, 10, &[]);
    for i in 0..i64::from(SNAPSHOT_EVERY) + 3 {
        p.acquire("a", 10 + 2 * i, 11 + 2 * i, 100, 0);
        let types = [AckType::Accept, AckType::Accept];
        p.acknowledge("a", &[ack(10 + 2 * i, 11 + 2 * i, &types)], 0)
            .unwrap();
        let change = p.take_change().unwrap();
        let write = Write {
            state_epoch: 0,
            leader_epoch: 1,
            start: change.start,
            done: change.done,
            batches: change.batches,
        };
        states.write(&key, &write, 6, &mut log).unwrap();
    }
    let snapshots = log.records.iter().filter(|r| r.key[1] == 0);
    assert_eq!(snapshots.count(), 2);
    let kept = states.read(&key).unwrap();
    assert_eq!(kept.start, 10 + 2 * (i64::from(SNAPSHOT_EVERY) + 3));
    assert_eq!(replayed(&log).read(&key), Some(kept.clone()));
    // Written anew, that alone gives it.
    let begin = log.records.len();
    states.rewrite(&states.keys(), 7, &mut log).unwrap();
    log.records.drain(..begin);
    assert_eq!(replayed(&log).read(&key), Some(kept));
    // Whoever wrote before a new beginning is not taken.
    assert_eq!(states.initialize(&key, 3, 8, &mut log), Ok(1));
    let late = Write {
        state_epoch: 0,
        leader_epoch: 1,
        start: 50,
        done: 0,
        batches: Vec::new(),
    };
    let refused = states.write(&key, &late, 9, &mut log);
    assert_eq!(refused, Err(ShareError::FencedStateEpoch));
    assert_eq!(states.read(&key).unwrap().start, 3);
    states.delete(std::slice::from_ref(&key), &mut log).unwrap();
    assert_eq!((states.read(&key), replayed(&log).read(&key)), (None, None));
    assert_eq!(states.bytes(), 0);
}

#[test]
fn what_the_log_refuses_is_not_so() {
    let mut log = Log::default();
    let mut states = ShareStates::new(Memory::new(1 << 20));
    let key = share_key(0);
    states.initialize(&key, 10, 5, &mut log).unwrap();
    log.refuses = true;
    let write = Write {
        state_epoch: 0,
        leader_epoch: 1,
        start: 50,
        done: 0,
        batches: Vec::new(),
    };
    let refused = states.write(&key, &write, 9, &mut log);
    assert_eq!(refused, Err(ShareError::NotAvailable));
    assert_eq!(states.read(&key).unwrap().start, 10);
    assert!(states.delete(std::slice::from_ref(&key), &mut log).is_err());
    assert!(states.read(&key).is_some());
}

// Members ------------------------------------------------------------------------------------------------------------

pub(super) const GROUPS: ShareGroupConfig = ShareGroupConfig {
    session_timeout_ms: 1_000,
    heartbeat_interval_ms: 300,
    members_max: 3,
};

/// Topics `t` with 3 partitions and `u` with 1.
pub(super) fn topics(name: &str) -> Option<TopicNow> {
    let (id, partitions) = match name {
        "t" => (topic_id(1), 3),
        "u" => (topic_id(2), 1),
        _ => return None,
    };
    Some(TopicNow { id, partitions })
}

pub(super) struct Bench {
    pub groups: ShareGroups,
    pub log: Log,
    pub now_ms: u64,
    pub times: GroupTimes,
}

impl Bench {
    pub fn new() -> Bench {
        Bench {
            groups: ShareGroups::new(GROUPS, Memory::new(1 << 20)),
            log: Log::default(),
            now_ms: 0,
            times: GroupTimes::default(),
        }
    }

    pub fn step<R>(&mut self, f: impl FnOnce(&mut ShareGroups, &mut ShareCtx) -> R) -> R {
        let mut ctx = ShareCtx {
            now_ms: self.now_ms,
            log: &mut self.log,
            topic: &topics,
            times: &|_| self.times,
        };
        f(&mut self.groups, &mut ctx)
    }

    pub fn beat(
        &mut self,
        member: &str,
        epoch: i32,
        topics: Option<&[&str]>,
    ) -> Result<ShareHeard, ShareError> {
        let asked = ShareHeartbeat {
            group: "g".into(),
            member: member.into(),
            epoch,
            rack: None,
            topics: topics.map(|t| t.iter().map(|name| name.to_string()).collect()),
            client_id: "c".into(),
            client_host: "/h".into(),
        };
        self.step(|groups, ctx| groups.heartbeat(&asked, ctx))
    }

    /// What the log alone gives.
    pub fn replayed(&self) -> ShareGroups {
        let mut groups = ShareGroups::new(GROUPS, Memory::new(1 << 20));
        for record in &self.log.records {
            let known = groups.replay(&record.key, record.value.as_deref(), self.now_ms);
            assert_eq!(known, Ok(true));
        }
        groups
    }
}

fn assigned(heard: &ShareHeard) -> Vec<Vec<i32>> {
    let of = heard.assignment.as_ref().expect("an assignment is told");
    of.values().cloned().collect()
}

#[test]
fn members_join_share_partitions_and_leave() {
    let mut bench = Bench::new();
    let first = bench.beat("a", 0, Some(&["t", "u"])).unwrap();
    assert_eq!((first.epoch, first.heartbeat_interval_ms), (1, 300));
    assert_eq!(assigned(&first), [vec![0, 1, 2], vec![0]]);
    assert_eq!(bench.beat("a", 1, None).unwrap().assignment, None);
    let second = bench.beat("b", 0, Some(&["t", "u"])).unwrap();
    assert_eq!(second.epoch, 2);
    // The first one hears of it with its next heartbeat, and once only.
    let changed = bench.beat("a", 1, None).unwrap();
    assert_eq!(
        (changed.epoch, assigned(&changed)),
        (2, vec![vec![0, 2], vec![0]])
    );
    assert_eq!(assigned(&second), [vec![1], vec![0]]);
    // The answer was lost: the epoch before is known.
    assert_eq!(bench.beat("a", 1, None).unwrap().epoch, 2);
    assert_eq!(bench.beat("a", 2, None).unwrap().assignment, None);
    assert_eq!(bench.beat("a", 3, None), Err(ShareError::FencedMemberEpoch));
    assert_eq!(bench.beat("x", 1, None), Err(ShareError::UnknownMemberId));
    let described = bench.groups.describe("g").unwrap();
    assert_eq!(
        (described.state, described.epoch, described.members.len()),
        ("Stable", 2, 2)
    );
    assert_eq!(bench.groups.is_empty("g"), Err(ShareError::NonEmptyGroup));
    bench.beat("a", -1, None).unwrap();
    let alone = bench.beat("b", 2, None).unwrap();
    assert_eq!(
        (alone.epoch, assigned(&alone)),
        (3, vec![vec![0, 1, 2], vec![0]])
    );
    bench.beat("b", -1, None).unwrap();
    assert_eq!(bench.groups.describe("g").unwrap().state, "Empty");
    assert_eq!(
        bench.groups.states("g").unwrap().len(),
        2,
        "offsets outlive members"
    );
    bench.step(|groups, ctx| groups.delete("g", ctx)).unwrap();
    assert!(!bench.groups.has("g") && !bench.replayed().has("g"));
    assert_eq!(bench.groups.bytes(), 0);
}

#[test]
fn requests_that_cannot_be_are_refused() {
    let mut bench = Bench::new();
    let invalid = |heard| {
        assert!(
            matches!(heard, Err(ShareError::InvalidRequest(_))),
            "{heard:?}"
        )
    };
    invalid(bench.beat("", 0, Some(&["t"])));
    invalid(bench.beat("a", 0, None));
    invalid(bench.beat("a", 0, Some(&[])));
    invalid(bench.beat("a", -2, None));
    assert_eq!(bench.beat("a", 1, None), Err(ShareError::GroupIdNotFound));
    assert_eq!(bench.beat("a", -1, None), Err(ShareError::GroupIdNotFound));
    for member in ["a", "b", "c"] {
        bench.beat(member, 0, Some(&["t"])).unwrap();
    }
    let full = bench.beat("d", 0, Some(&["t"]));
    assert_eq!(full, Err(ShareError::GroupMaxSizeReached));
    // Who is one already may begin anew.
    assert!(bench.beat("a", 0, Some(&["t"])).is_ok());
}

#[test]
fn silent_members_are_gone_and_after_a_restart_they_have_their_time_again() {
    let mut bench = Bench::new();
    bench.beat("a", 0, Some(&["t"])).unwrap();
    bench.now_ms = 600;
    bench.beat("b", 0, Some(&["t"])).unwrap();
    assert_eq!(bench.groups.next_deadline_ms(), Some(1_000));
    bench.now_ms = 1_000;
    let restarted = bench.replayed();
    assert_eq!(restarted.next_deadline_ms(), Some(2_000));
    bench.step(|groups, ctx| groups.tick(ctx));
    assert_eq!(bench.beat("a", 1, None), Err(ShareError::UnknownMemberId));
    let rest = bench.beat("b", 2, None).unwrap();
    assert_eq!((rest.epoch, assigned(&rest)), (3, vec![vec![0, 1, 2]]));
    // What the log refuses is tried again.
    bench.now_ms = 10_000;
    bench.log.refuses = true;
    bench.step(|groups, ctx| groups.tick(ctx));
    assert_eq!(bench.groups.describe("g").unwrap().members.len(), 1);
    bench.log.refuses = false;
    bench.now_ms = bench.groups.next_deadline_ms().unwrap();
    bench.step(|groups, ctx| groups.tick(ctx));
    assert_eq!(bench.groups.describe("g").unwrap().members.len(), 0);
    assert_eq!(bench.groups.next_deadline_ms(), None);
}

#[test]
fn a_group_may_have_times_of_its_own() {
    let mut bench = Bench::new();
    bench.times = GroupTimes {
        session_timeout_ms: Some(5_000),
        heartbeat_interval_ms: Some(700),
    };
    let heard = bench.beat("a", 0, Some(&["t"])).unwrap();
    assert_eq!(heard.heartbeat_interval_ms, 700);
    assert_eq!(bench.groups.next_deadline_ms(), Some(5_000));
    assert_eq!(
        bench.beat("a", -1, None).unwrap().heartbeat_interval_ms,
        700
    );
}

#[test]
fn records_of_others_are_left_alone() {
    let mut groups = ShareGroups::new(GROUPS, Memory::new(1 << 20));
    let offset = Bytes::from(hex("0001 0002 6731 0001 74 00000005"));
    assert_eq!(groups.replay(&offset, None, 0), Ok(false));
    assert!(groups.replay(&hex("000a 0001"), None, 0).is_err());
}
