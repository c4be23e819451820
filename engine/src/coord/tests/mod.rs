//! Owns the tests of the group coordinator: what single steps do, and the bench that histories run on as well.
//! Does not know shards or the wire.
//! Invariant: every member asked gets exactly one answer, and the log alone gives the same groups.

mod consumer;
mod consumer_histories;
mod histories;
mod migration;

use super::batch::KeyValue;
use super::*;
use crate::types::TopicId;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
struct TestLog {
    records: Vec<KeyValue>,
    refuses: bool,
}

impl Append for TestLog {
    fn append(&mut self, records: &[KeyValue]) -> Result<(), GroupError> {
        if self.refuses {
            return Err(GroupError::NotAvailable);
        }
        self.records.extend_from_slice(records);
        Ok(())
    }
}

/// Topics by name, as the tests make them.
#[derive(Clone, Default)]
struct TestTopics {
    version: u64,
    known: BTreeMap<String, TopicFacts>,
    times: BTreeMap<String, GroupTimes>,
}

impl TestTopics {
    /// Makes a topic, or gives it more partitions.
    fn set(&mut self, name: &str, partitions: i32) -> TopicId {
        self.version += 1;
        let mut id = [0; 16];
        id[..name.len()].copy_from_slice(name.as_bytes());
        let id = TopicId(id);
        let facts = TopicFacts { id, partitions };
        self.known.insert(name.to_string(), facts);
        id
    }

    fn delete(&mut self, name: &str) {
        self.version += 1;
        self.known.remove(name);
    }
}

impl Topics for TestTopics {
    fn version(&self) -> u64 {
        self.version
    }

    fn by_name(&self, name: &str) -> Option<TopicFacts> {
        self.known.get(name).copied()
    }

    fn name_of(&self, id: TopicId) -> Option<String> {
        let mut known = self.known.iter();
        let found = known.find(|(_, facts)| facts.id == id);
        found.map(|(name, _)| name.clone())
    }

    fn each_name(&self, f: &mut dyn FnMut(&str)) {
        self.known.keys().for_each(|name| f(name));
    }

    fn times_of(&self, group: &str) -> GroupTimes {
        self.times.get(group).copied().unwrap_or_default()
    }
}

/// A coordinator with a clock of its own.
struct Bench {
    coordinator: Coordinator,
    log: TestLog,
    topics: TestTopics,
    now_ms: u64,
    random: u128,
    next_token: Token,
    asked: BTreeSet<Token>,
    answers: BTreeMap<Token, Reply>,
}

const CONFIG: GroupConfig = GroupConfig {
    initial_rebalance_delay_ms: 0,
    session_timeout_min_ms: 6_000,
    session_timeout_max_ms: 1_800_000,
    offset_metadata_bytes_max: 16,
    offsets_retention_ms: 100_000,
    consumer: ConsumerConfig {
        session_timeout_ms: 45_000,
        heartbeat_interval_ms: 5_000,
        members_max: 100,
        assignor: Assignor::Uniform,
        both_assignors: true,
        migration: Migration::Bidirectional,
    },
};

fn coordinator(config: GroupConfig) -> Coordinator {
    Coordinator::new(config, Memory::new(1 << 30))
}

impl Bench {
    fn new(config: GroupConfig) -> Bench {
        Bench {
            coordinator: coordinator(config),
            log: TestLog::default(),
            topics: TestTopics::default(),
            now_ms: 1_000,
            random: 0,
            next_token: 0,
            asked: BTreeSet::new(),
            answers: BTreeMap::new(),
        }
    }

    fn step<R>(&mut self, f: impl FnOnce(&mut Coordinator, &mut Ctx) -> R) -> R {
        let mut replies = Vec::new();
        let random = &mut self.random;
        let mut random = || {
            *random += 1;
            *random
        };
        let mut ctx = Ctx {
            now_ms: self.now_ms,
            wall_ms: self.now_ms as i64,
            topics: &self.topics,
            log: &mut self.log,
            random: &mut random,
            replies: &mut replies,
        };
        let result = f(&mut self.coordinator, &mut ctx);
        for (token, reply) in replies {
            assert!(self.asked.contains(&token), "nobody asked with {token}");
            let before = self.answers.insert(token, reply);
            assert!(before.is_none(), "{token} was answered twice");
        }
        result
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        self.asked.insert(self.next_token);
        self.next_token
    }

    fn join(&mut self, asked: JoinGroup) -> Token {
        let token = self.token();
        self.step(|c, ctx| c.join(asked, token, ctx));
        token
    }

    fn sync(&mut self, asked: SyncGroup) -> Token {
        let token = self.token();
        self.step(|c, ctx| c.sync(asked, token, ctx));
        token
    }

    fn joined(&self, token: Token) -> &Joined {
        match self.answers.get(&token) {
            Some(Reply::Joined(joined)) => joined,
            other => panic!("{token} has {other:?}"),
        }
    }

    fn synced(&self, token: Token) -> Result<&Synced, GroupError> {
        match self.answers.get(&token) {
            Some(Reply::Synced(Ok(synced))) => Ok(synced),
            Some(Reply::Synced(Err(why))) => Err(*why),
            other => panic!("{token} has {other:?}"),
        }
    }

    /// Lets time pass, with all that is due on the way.
    fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while let Some(due) = self
            .coordinator
            .next_deadline_ms()
            .filter(|due| *due <= end)
        {
            self.now_ms = self.now_ms.max(due);
            self.step(|c, ctx| c.tick(ctx));
        }
        self.now_ms = end;
    }

    fn state(&self, group: &str) -> GroupState {
        self.coordinator.describe(group).expect("it exists").state
    }

    /// A group in which all of these have joined and got their names as assignments; gives their ids.
    fn stable(&mut self, names: &[&str]) -> Vec<String> {
        let tokens: Vec<Token> = names.iter().map(|_| 0).collect();
        let mut tokens = tokens;
        for (token, name) in tokens.iter_mut().zip(names) {
            *token = self.join(plain(name));
        }
        if names.len() > 1 {
            // The first was alone in a generation of its own.
            let first = self.joined(tokens[0]).member.clone();
            let again = JoinGroup {
                member: first,
                ..plain(names[0])
            };
            tokens[0] = self.join(again);
        }
        let ids: Vec<String> = tokens
            .iter()
            .map(|t| self.joined(*t).member.clone())
            .collect();
        let leader = self.joined(tokens[0]).leader.clone();
        let generation = self.joined(tokens[0]).generation;
        for id in ids.iter().filter(|id| **id != leader) {
            self.sync(sync(id, generation, &[]));
        }
        let all: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), id.as_str())).collect();
        self.sync(sync(&leader, generation, &all));
        assert_eq!(self.state("g"), GroupState::Stable);
        ids
    }

    fn generation(&self) -> i32 {
        let values = self.log.records.iter().rev().filter_map(|r| {
            let key = records::Key::decode(&r.key).unwrap()?;
            let value = r.value.as_ref()?;
            matches!(key, records::Key::Group { .. })
                .then(|| records::GroupValue::decode(value).unwrap().generation)
        });
        values.into_iter().next().unwrap_or(-1)
    }

    fn heartbeat(&mut self, id: &str, generation: i32) -> Result<(), GroupError> {
        let by = member(id, generation);
        self.step(|c, ctx| c.heartbeat(&by, ctx))
    }

    fn leave(&mut self, id: &str) -> Result<(), GroupError> {
        let leaver = Leaver {
            member: id.into(),
            instance: None,
        };
        self.step(|c, ctx| c.leave("g", &[leaver], ctx)).remove(0)
    }

    fn commit(&mut self, by: MemberOf, offset: i64) -> Result<(), GroupError> {
        let asked = CommitOffsets {
            by,
            retention_ms: -1,
            offsets: vec![to_commit("t", 0, offset)],
        };
        self.step(|c, ctx| c.commit(&asked, ctx)).remove(0)
    }

    fn committed(&self) -> i64 {
        let asked = FetchOffsets {
            group: "g".into(),
            member: None,
            member_epoch: -1,
            require_stable: false,
            topics: Some(vec![("t".into(), vec![0])]),
        };
        self.coordinator.fetch(&asked, &self.topics).unwrap()[0].1[0]
            .1
            .offset
    }

    /// A coordinator that has only the log.
    fn replayed(&self) -> Coordinator {
        let mut again = coordinator(CONFIG);
        for record in &self.log.records {
            again
                .replay(&record.key, record.value.as_deref(), self.now_ms)
                .expect("its own record");
        }
        again.loaded();
        again
    }
}

/// A consumer's subscription to topic `t`.
fn subscription() -> Bytes {
    Bytes::from_static(b"\x00\x00\x00\x00\x00\x01\x00\x01t\xff\xff\xff\xff")
}

fn plain(client: &str) -> JoinGroup {
    JoinGroup {
        group: "g".into(),
        member: String::new(),
        instance: None,
        client_id: client.into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), subscription())],
        require_known_member: false,
        supports_skipping_assignment: false,
    }
}

fn fixed(client: &str, instance: &str) -> JoinGroup {
    JoinGroup {
        instance: Some(instance.into()),
        ..plain(client)
    }
}

fn sync(id: &str, generation: i32, assignments: &[(&str, &str)]) -> SyncGroup {
    let one = |(id, bytes): &(&str, &str)| (id.to_string(), Bytes::from(bytes.to_string()));
    SyncGroup {
        group: "g".into(),
        generation,
        member: id.into(),
        instance: None,
        protocol_type: None,
        protocol: None,
        assignments: assignments.iter().map(one).collect(),
    }
}

fn member(id: &str, generation: i32) -> MemberOf {
    MemberOf {
        group: "g".into(),
        generation,
        member: id.into(),
        instance: None,
    }
}

/// Asks for all that the group has committed.
fn all_offsets() -> FetchOffsets {
    FetchOffsets {
        group: "g".into(),
        member: None,
        member_epoch: -1,
        require_stable: false,
        topics: None,
    }
}

fn to_commit(topic: &str, partition: i32, offset: i64) -> OffsetToCommit {
    OffsetToCommit {
        topic: topic.into(),
        topic_id: crate::types::TopicId::NIL,
        partition,
        offset,
        leader_epoch: -1,
        metadata: String::new(),
    }
}

#[test]
fn groups_belong_to_the_partitions_that_java_gives_them() {
    // java: Math.abs("..".hashCode()) % 50; "polygenelubricants" has the hash Integer.MIN_VALUE.
    for (id, partition) in [
        ("", 0),
        ("a", 47),
        ("group", 47),
        ("polygenelubricants", 0),
        ("\u{1F600}", 49),
    ] {
        assert_eq!(partition_of(id, 50), partition, "{id}");
    }
}

#[test]
fn the_first_member_leads_and_everybody_gets_what_it_says() {
    let mut bench = Bench::new(CONFIG);
    let ids = bench.stable(&["a", "b", "c"]);
    let described = bench.coordinator.describe("g").unwrap();
    assert_eq!(described.protocol, "range");
    for one in described.members {
        assert_eq!(one.assignment, one.member.as_bytes());
        assert!(ids.contains(&one.member));
    }
    let generation = bench.generation();
    assert_eq!(bench.heartbeat(&ids[1], generation), Ok(()));
    assert_eq!(
        bench.heartbeat(&ids[1], generation - 1),
        Err(GroupError::IllegalGeneration)
    );
    assert_eq!(
        bench.heartbeat("x", generation),
        Err(GroupError::UnknownMemberId)
    );
    let again = bench.sync(sync(&ids[2], generation, &[]));
    assert_eq!(bench.synced(again).unwrap().assignment, ids[2].as_bytes());
}

#[test]
fn an_empty_group_waits_for_more_members_than_the_first() {
    let config = GroupConfig {
        initial_rebalance_delay_ms: 3_000,
        ..CONFIG
    };
    let mut bench = Bench::new(config);
    let a = bench.join(plain("a"));
    bench.pass(2_000);
    let b = bench.join(plain("b"));
    bench.pass(1_000);
    assert!(
        bench.answers.is_empty(),
        "b came meanwhile, so it waits once more"
    );
    bench.pass(3_000);
    assert_eq!(bench.joined(a).generation, 1);
    assert_eq!(bench.joined(b).generation, 1);
    assert_eq!(
        bench.joined(a).members.len() + bench.joined(b).members.len(),
        2
    );
}

#[test]
fn a_member_without_an_id_is_given_one_and_has_to_use_it() {
    let mut bench = Bench::new(CONFIG);
    let first = JoinGroup {
        require_known_member: true,
        ..plain("a")
    };
    let token = bench.join(first.clone());
    assert_eq!(
        bench.joined(token).error,
        Some(GroupError::MemberIdRequired)
    );
    let id = bench.joined(token).member.clone();
    assert!(id.starts_with("a-"));
    let token = bench.join(JoinGroup {
        member: id.clone(),
        ..first.clone()
    });
    assert_eq!(
        (bench.joined(token).error, &bench.joined(token).member),
        (None, &id)
    );
    // One that does not come back is forgotten, and holds nobody up.
    bench.join(first.clone());
    bench.join(plain("b"));
    let again = bench.join(JoinGroup {
        member: id,
        ..first
    });
    assert!(!bench.answers.contains_key(&again));
    bench.pass(10_000);
    assert_eq!(bench.joined(again).error, None);
}

#[test]
fn who_leaves_or_falls_silent_makes_the_others_join_anew() {
    let mut bench = Bench::new(CONFIG);
    let ids = bench.stable(&["a", "b", "c"]);
    let generation = bench.generation();
    assert_eq!(bench.leave(&ids[0]), Ok(()));
    assert_eq!(bench.leave(&ids[0]), Err(GroupError::UnknownMemberId));
    assert_eq!(
        bench.heartbeat(&ids[1], generation),
        Err(GroupError::RebalanceInProgress)
    );
    let b = bench.join(JoinGroup {
        member: ids[1].clone(),
        ..plain("b")
    });
    // c says nothing any more.
    bench.pass(10_000);
    assert_eq!(bench.joined(b).members.len(), 1, "b leads alone");
    let generation = bench.joined(b).generation;
    bench.sync(sync(&ids[1], generation, &[(&ids[1], "all")]));
    assert_eq!(bench.state("g"), GroupState::Stable);
    bench.pass(10_000);
    assert_eq!(bench.state("g"), GroupState::Empty);
}

#[test]
fn who_does_not_ask_for_its_assignment_is_left_out() {
    let mut bench = Bench::new(CONFIG);
    let a = bench.join(plain("a"));
    let leader = bench.joined(a).member.clone();
    for _ in 0..6 {
        bench.pass(9_000);
        let _rebalancing = bench.heartbeat(&leader, 1);
    }
    assert_eq!(bench.state("g"), GroupState::CompletingRebalance);
    bench.pass(9_000);
    let coordinator = &bench.coordinator;
    assert_eq!(coordinator.describe("g"), Err(GroupError::GroupIdNotFound));
}

#[test]
fn an_assignment_that_cannot_be_kept_is_told_to_nobody() {
    let mut bench = Bench::new(CONFIG);
    let a = bench.join(plain("a"));
    let id = bench.joined(a).member.clone();
    bench.log.refuses = true;
    let refused = bench.sync(sync(&id, 1, &[(&id, "x")]));
    assert_eq!(bench.synced(refused), Err(GroupError::NotAvailable));
    assert_eq!(bench.state("g"), GroupState::PreparingRebalance);
    bench.log.refuses = false;
    let again = bench.join(JoinGroup {
        member: id.clone(),
        ..plain("a")
    });
    let generation = bench.joined(again).generation;
    let synced = bench.sync(sync(&id, generation, &[(&id, "x")]));
    assert_eq!(bench.synced(synced).unwrap().assignment, &b"x"[..]);
}

#[test]
fn a_static_member_comes_back_to_what_it_had() {
    let mut bench = Bench::new(CONFIG);
    let token = bench.join(fixed("a", "one"));
    let old = bench.joined(token).member.clone();
    bench.sync(SyncGroup {
        instance: Some("one".into()),
        ..sync(&old, 1, &[(&old, "mine")])
    });
    let token = bench.join(JoinGroup {
        supports_skipping_assignment: true,
        ..fixed("a", "one")
    });
    let joined = bench.joined(token).clone();
    assert_eq!(
        (joined.error, joined.generation, joined.skip_assignment),
        (None, 1, true)
    );
    assert_ne!(joined.member, old);
    let synced = bench.sync(sync(&joined.member, 1, &[]));
    assert_eq!(bench.synced(synced).unwrap().assignment, &b"mine"[..]);
    // The one it took over from is told.
    let by = MemberOf {
        instance: Some("one".into()),
        ..member(&old, 1)
    };
    assert_eq!(
        bench.step(|c, ctx| c.heartbeat(&by, ctx)),
        Err(GroupError::FencedInstanceId)
    );
    let again = bench.replayed();
    assert_eq!(again.describe("g"), bench.coordinator.describe("g"));
}

#[test]
fn protocols_have_to_fit() {
    let mut bench = Bench::new(CONFIG);
    bench.stable(&["a"]);
    let other = JoinGroup {
        protocols: vec![("sticky".into(), subscription())],
        ..plain("b")
    };
    let token = bench.join(other);
    assert_eq!(
        bench.joined(token).error,
        Some(GroupError::InconsistentGroupProtocol)
    );
    let connect = JoinGroup {
        protocol_type: "connect".into(),
        ..plain("b")
    };
    let token = bench.join(connect);
    assert_eq!(
        bench.joined(token).error,
        Some(GroupError::InconsistentGroupProtocol)
    );
    let short = JoinGroup {
        session_timeout_ms: 5_999,
        ..plain("b")
    };
    let token = bench.join(short);
    assert_eq!(
        bench.joined(token).error,
        Some(GroupError::InvalidSessionTimeout)
    );
}

#[test]
fn only_members_commit_where_there_are_members() {
    let mut bench = Bench::new(CONFIG);
    assert_eq!(bench.commit(member("", -1), 5), Ok(()), "a simple consumer");
    assert_eq!(bench.committed(), 5);
    let ids = bench.stable(&["a"]);
    let generation = bench.generation();
    assert_eq!(
        bench.commit(member("", -1), 6),
        Err(GroupError::UnknownMemberId)
    );
    assert_eq!(
        bench.commit(member("x", generation), 6),
        Err(GroupError::UnknownMemberId)
    );
    let stale = member(&ids[0], generation - 1);
    assert_eq!(bench.commit(stale, 6), Err(GroupError::IllegalGeneration));
    assert_eq!(bench.commit(member(&ids[0], generation), 7), Ok(()));
    assert_eq!(bench.committed(), 7);
    let long = CommitOffsets {
        by: member(&ids[0], generation),
        retention_ms: -1,
        offsets: vec![
            OffsetToCommit {
                metadata: "x".repeat(17),
                ..to_commit("t", 0, 8)
            },
            to_commit("t", 1, 9),
        ],
    };
    let results = bench.step(|c, ctx| c.commit(&long, ctx));
    assert_eq!(results, [Err(GroupError::OffsetMetadataTooLarge), Ok(())]);
    assert_eq!(bench.committed(), 7);
    let gone = bench.step(|c, ctx| c.delete("g", ctx));
    assert_eq!(gone, Err(GroupError::NonEmptyGroup));
    let asked = [("t".to_string(), vec![0]), ("u".to_string(), vec![0])];
    let deleted = bench
        .step(|c, ctx| c.delete_offsets("g", &asked, ctx))
        .unwrap();
    assert_eq!(
        deleted,
        [vec![Err(GroupError::GroupSubscribedToTopic)], vec![Ok(())]]
    );
    assert_eq!(bench.leave(&ids[0]), Ok(()));
    assert_eq!(bench.step(|c, ctx| c.delete("g", ctx)), Ok(()));
    assert_eq!(bench.committed(), -1);
    assert_eq!(bench.replayed().list(), []);
}

#[test]
fn offsets_are_forgotten_once_nobody_has_needed_them_for_long() {
    let mut bench = Bench::new(CONFIG);
    let ids = bench.stable(&["a"]);
    let generation = bench.generation();
    let asked = CommitOffsets {
        by: member(&ids[0], generation),
        retention_ms: -1,
        offsets: vec![to_commit("t", 0, 1), to_commit("unread", 0, 1)],
    };
    bench.step(|c, ctx| c.commit(&asked, ctx));
    for _ in 0..12 {
        bench.pass(9_000);
        bench.heartbeat(&ids[0], generation).unwrap();
    }
    bench.step(|c, ctx| c.expire(ctx));
    let all = all_offsets();
    let topics = |bench: &Bench| -> Vec<String> {
        let found = bench.coordinator.fetch(&all, &bench.topics).unwrap();
        found.into_iter().map(|(topic, _)| topic).collect()
    };
    assert_eq!(topics(&bench), ["t"], "what is read stays, however old");
    bench.leave(&ids[0]).unwrap();
    bench.pass(99_000);
    bench.step(|c, ctx| c.expire(ctx));
    assert_eq!(topics(&bench), ["t"]);
    bench.pass(1_000);
    bench.step(|c, ctx| c.expire(ctx));
    assert_eq!(bench.coordinator.list(), []);
    assert_eq!(bench.replayed().list(), []);
}

#[test]
fn offsets_of_deleted_topics_go() {
    let mut bench = Bench::new(CONFIG);
    bench.commit(member("", -1), 5).unwrap();
    let gone = BTreeSet::from(["t".to_string()]);
    bench.step(|c, ctx| c.forget_topics(&gone, ctx));
    assert_eq!(bench.committed(), -1);
    assert_eq!(bench.replayed().list(), []);
}

#[test]
fn offsets_of_a_topic_that_was_made_again_are_nothing_to_the_new_one() {
    let mut bench = Bench::new(CONFIG);
    let old = bench.topics.set("t", 1);
    let asked = CommitOffsets {
        by: member("", -1),
        retention_ms: -1,
        offsets: vec![OffsetToCommit {
            topic_id: old,
            ..to_commit("t", 0, 5)
        }],
    };
    bench.step(|c, ctx| c.commit(&asked, ctx));
    assert_eq!(bench.committed(), 5);
    // Nobody told the group of it: its log was full, or not read yet.
    let facts = bench.topics.known.get_mut("t").expect("it was made");
    facts.id = TopicId([9; 16]);
    assert_eq!(bench.committed(), -1);
    bench.step(|c, ctx| c.expire(ctx));
    assert!(
        bench.coordinator.has("g"),
        "it may be the topic that is not known yet"
    );
    bench.pass(61_000);
    bench.step(|c, ctx| c.expire(ctx));
    assert_eq!(bench.coordinator.list(), []);
    assert_eq!(bench.replayed().list(), []);
}

#[test]
fn an_empty_group_without_offsets_is_forgotten_soon() {
    let mut bench = Bench::new(CONFIG);
    let ids = bench.stable(&["a"]);
    bench.step(|c, ctx| c.expire(ctx));
    assert_eq!(bench.state("g"), GroupState::Stable);
    bench.leave(&ids[0]).unwrap();
    bench.step(|c, ctx| c.expire(ctx));
    assert_eq!(bench.coordinator.list(), []);
    assert_eq!(bench.replayed().list(), []);
}

#[test]
fn a_new_member_that_joins_again_is_waited_for_as_long_as_before() {
    let mut bench = Bench::new(CONFIG);
    let ids = bench.stable(&["a"]);
    let token = bench.join(JoinGroup {
        require_known_member: true,
        ..plain("b")
    });
    let known = JoinGroup {
        member: bench.joined(token).member.clone(),
        ..plain("b")
    };
    bench.join(known.clone());
    // Its connection was lost; the member before it takes its time, and is heard of meanwhile.
    let again = bench.join(known);
    for _ in 0..3 {
        bench.pass(9_000);
        let _rebalancing = bench.heartbeat(&ids[0], bench.generation());
    }
    let joining = JoinGroup {
        member: ids[0].clone(),
        ..plain("a")
    };
    bench.join(joining);
    assert_eq!(bench.joined(again).error, None);
}

#[test]
fn memory_that_is_used_up_refuses_and_comes_back() {
    let memory = Memory::new(2_000);
    let mut bench = Bench::new(CONFIG);
    bench.coordinator = Coordinator::new(CONFIG, memory.clone());
    let mut taken = 0;
    while bench.commit(member("", -1), taken).is_ok() {
        let asked = CommitOffsets {
            by: member("", -1),
            retention_ms: -1,
            offsets: vec![to_commit("t", taken as i32, 1)],
        };
        bench.step(|c, ctx| c.commit(&asked, ctx));
        taken += 1;
        assert!(taken < 100, "it is never full");
    }
    assert!(memory.is_full());
    bench.step(|c, ctx| c.delete("g", ctx)).unwrap();
    assert_eq!(bench.commit(member("", -1), 1), Ok(()));
    drop(bench);
    assert!(!memory.is_full());
}
