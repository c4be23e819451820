//! Owns the tests of single steps of groups of the consumer protocol, and the member that they play.
//! Does not know long histories, nor members of the classic protocol.
//! Invariant: after every test the log alone gives the group that is there live.

use super::*;
use crate::coord::consumer::records::{Current, MemberState};
use crate::coord::consumer::ConsumerGroup;

/// A member as its client sees itself.
#[derive(Clone, Debug, Default)]
pub struct Client {
    pub id: String,
    pub epoch: i32,
    pub instance: Option<String>,
    pub topics: Vec<String>,
    pub regex: Option<String>,
    pub assignor: Option<String>,
    pub owned: BTreeMap<TopicId, BTreeSet<i32>>,
}

pub fn client(id: &str, topics: &[&str]) -> Client {
    Client {
        id: id.into(),
        topics: topics.iter().map(|topic| topic.to_string()).collect(),
        ..Client::default()
    }
}

impl Client {
    /// All it can say. A client says all of it when it joins, or after an error.
    pub fn full(&self) -> ConsumerHeartbeat {
        let owned = self.owned.iter();
        let owned = owned.map(|(topic, p)| (*topic, p.iter().copied().collect()));
        ConsumerHeartbeat {
            group: "g".into(),
            member: self.id.clone(),
            epoch: self.epoch,
            instance: self.instance.clone(),
            rack: None,
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_timeout_ms: 60_000,
            topics: Some(self.topics.clone()),
            regex: self.regex.clone(),
            assignor: self.assignor.clone(),
            owned: Some(owned.collect()),
        }
    }

    /// That it is there, and no more.
    pub fn short(&self) -> ConsumerHeartbeat {
        ConsumerHeartbeat {
            rebalance_timeout_ms: -1,
            topics: None,
            regex: None,
            assignor: None,
            owned: None,
            ..self.full()
        }
    }

    pub fn leaving(&self, epoch: i32) -> ConsumerHeartbeat {
        ConsumerHeartbeat {
            epoch,
            ..self.short()
        }
    }

    /// Believes what it is told.
    pub fn takes(&mut self, beat: &ConsumerBeat) {
        self.epoch = beat.epoch;
        if let Some(assignment) = &beat.assignment {
            self.owned = assignment.clone();
        }
    }
}

impl Bench {
    pub fn beat(&mut self, asked: &ConsumerHeartbeat) -> Result<ConsumerBeat, GroupError> {
        self.step(|c, ctx| c.consumer_heartbeat(asked, ctx))
    }

    /// A full heartbeat that is taken, and whose answer arrives.
    pub fn full(&mut self, client: &mut Client) -> ConsumerBeat {
        let beat = self.beat(&client.full()).expect("it is taken");
        client.takes(&beat);
        beat
    }

    /// Has all of these say what they hold, until nothing moves any more.
    pub fn settle(&mut self, clients: &mut [Client]) {
        for _ in 0..20 {
            let before = self.log.records.len();
            clients.iter_mut().for_each(|client| {
                self.full(client);
            });
            if self.log.records.len() == before {
                return;
            }
        }
        panic!("it does not settle: {:?}", self.group());
    }

    pub fn group(&self) -> &ConsumerGroup {
        let group = &self.coordinator.groups["g"];
        group.consumer.as_ref().expect("it is of the new protocol")
    }

    pub fn current(&self, id: &str) -> &Current {
        &self.group().members[id].current
    }

    pub fn group_state(&self) -> &'static str {
        let listed = self.coordinator.list();
        listed[0].state
    }

    /// The log alone gives what is there live.
    pub fn check_replay(&self) {
        let again = self.replayed();
        let kinds = |c: &Coordinator| -> Vec<(String, &str)> {
            let listed = c.list().into_iter();
            listed.map(|one| (one.group, one.kind)).collect()
        };
        assert_eq!(kinds(&again), kinds(&self.coordinator));
        for (id, live) in &self.coordinator.groups {
            let of_log = &again.groups[id];
            assert_eq!(of_log.consumer.is_some(), live.consumer.is_some());
            if let (Some(live), Some(of_log)) = (&live.consumer, &of_log.consumer) {
                assert_eq!(of_log.records(), live.records());
            }
        }
    }
}

fn bench(topics: &[(&str, i32)]) -> Bench {
    let mut bench = Bench::new(CONFIG);
    for (name, partitions) in topics {
        bench.topics.set(name, *partitions);
    }
    bench
}

fn count(client: &Client) -> usize {
    client.owned.values().map(BTreeSet::len).sum()
}

#[test]
fn the_first_member_gets_all_and_a_second_one_its_half_once_it_is_given_up() {
    let mut bench = bench(&[("t", 4)]);
    let mut a = client("a", &["t"]);
    let beat = bench.full(&mut a);
    assert_eq!((beat.epoch, beat.heartbeat_interval_ms), (1, 5_000));
    assert_eq!(count(&a), 4);
    assert_eq!(bench.group_state(), "Stable");

    let mut b = client("b", &["t"]);
    bench.full(&mut b);
    assert_eq!((b.epoch, count(&b)), (2, 0), "all is held by the first");
    assert_eq!(bench.current("b").state, MemberState::Unreleased);
    assert_eq!(bench.group_state(), "Reconciling");

    // The first is told what it keeps, and stays in its epoch until the rest is given up.
    let held = a.owned.clone();
    let beat = bench.beat(&a.short()).unwrap();
    assert_eq!(beat.epoch, 1);
    assert_eq!(
        beat.assignment
            .as_ref()
            .map(|all| all.values().next().unwrap().len()),
        Some(2)
    );
    assert_eq!(bench.current("a").state, MemberState::Unrevoked);
    a.owned = held;
    assert_eq!(bench.full(&mut a.clone()).epoch, 1, "it still holds all");
    let waiting = bench.beat(&b.short()).unwrap();
    assert_eq!(waiting.assignment, None);

    a.takes(&beat);
    assert_eq!(bench.full(&mut a).epoch, 2);
    let beat = bench.beat(&b.short()).unwrap();
    b.takes(&beat);
    assert_eq!((count(&a), count(&b)), (2, 2));
    assert_eq!(bench.group_state(), "Stable");
    let quiet = bench.beat(&b.short()).unwrap();
    assert_eq!(quiet.assignment, None, "nothing is new");
    bench.check_replay();
}

#[test]
fn who_is_not_in_the_group_or_in_another_epoch_is_refused() {
    let mut bench = bench(&[("t", 2)]);
    let mut a = client("a", &["t"]);
    let at = |client: &Client, epoch| ConsumerHeartbeat {
        epoch,
        ..client.short()
    };
    assert_eq!(bench.beat(&at(&a, 1)), Err(GroupError::GroupIdNotFound));
    assert_eq!(bench.beat(&a.leaving(-1)), Err(GroupError::GroupIdNotFound));
    bench.full(&mut a);
    let b = client("b", &["t"]);
    assert_eq!(bench.beat(&at(&b, 1)), Err(GroupError::UnknownMemberId));
    assert_eq!(bench.beat(&b.leaving(-1)), Err(GroupError::UnknownMemberId));
    let fenced = Err(GroupError::FencedMemberEpoch);
    assert_eq!(bench.beat(&at(&a, 2)), fenced);
    assert_eq!(
        bench.beat(&at(&a, 0)),
        fenced,
        "it has to say that it holds nothing"
    );
    // The answer was lost: the same once more.
    let again = ConsumerHeartbeat {
        owned: Some(Vec::new()),
        ..at(&a, 0)
    };
    assert_eq!(bench.beat(&again).unwrap().epoch, 1);
    assert_eq!(bench.beat(&a.short()).unwrap().epoch, 1);
    let unknown = ConsumerHeartbeat {
        assignor: Some("sticky".into()),
        ..a.full()
    };
    assert_eq!(bench.beat(&unknown), Err(GroupError::UnsupportedAssignor));
    let nameless = ConsumerHeartbeat {
        group: String::new(),
        ..a.full()
    };
    assert_eq!(bench.beat(&nameless), Err(GroupError::InvalidGroupId));
    bench.check_replay();
}

#[test]
fn a_member_that_missed_an_answer_may_say_its_epoch_before() {
    let mut bench = bench(&[("t", 2)]);
    let mut a = client("a", &["t"]);
    bench.full(&mut a);
    bench.topics.set("t", 4);
    let missed = bench.beat(&a.short()).unwrap();
    assert_eq!(missed.epoch, 2);
    let full = bench.full(&mut a);
    assert_eq!((full.epoch, count(&a)), (2, 4));
    let older = ConsumerHeartbeat {
        epoch: 1,
        owned: Some(vec![(bench.topics.known["t"].id, vec![0, 9])]),
        ..a.full()
    };
    assert_eq!(bench.beat(&older), Err(GroupError::FencedMemberEpoch));
}

#[test]
fn members_that_leave_or_are_silent_give_up_what_they_had() {
    let mut bench = bench(&[("t", 4)]);
    let mut clients = [
        client("a", &["t"]),
        client("b", &["t"]),
        client("c", &["t"]),
    ];
    bench.settle(&mut clients);
    let [mut a, b, _silent] = clients;
    let left = bench.beat(&b.leaving(-1)).unwrap();
    assert_eq!((left.epoch, left.assignment), (-1, None));
    assert_eq!(bench.group_state(), "Assigning");
    bench.pass(30_000);
    bench.full(&mut a);
    bench.pass(16_000);
    assert_eq!(bench.group().members.len(), 1, "one has not been heard of");
    bench.settle(std::slice::from_mut(&mut a));
    assert_eq!(count(&a), 4);
    bench.check_replay();
    bench.pass(46_000);
    assert_eq!(bench.group_state(), "Empty");
    bench.check_replay();
}

#[test]
fn a_group_may_have_times_of_its_own() {
    let mut bench = bench(&[("t", 4)]);
    let times = GroupTimes {
        session_timeout_ms: Some(10_000),
        heartbeat_interval_ms: Some(1_000),
    };
    bench.topics.times.insert("g".into(), times);
    let mut a = client("a", &["t"]);
    let beat = bench.beat(&a.full()).unwrap();
    a.takes(&beat);
    assert_eq!(beat.heartbeat_interval_ms, 1_000);
    bench.pass(9_000);
    assert_eq!(bench.beat(&a.short()).unwrap().heartbeat_interval_ms, 1_000);
    bench.pass(9_000);
    assert_eq!(bench.group().members.len(), 1);
    bench.pass(2_000);
    assert_eq!(bench.group().members.len(), 0, "not heard of for its time");
    bench.check_replay();
}

#[test]
fn a_member_that_does_not_give_up_in_time_is_put_out() {
    let mut bench = bench(&[("t", 2)]);
    let mut a = client("a", &["t"]);
    bench.full(&mut a);
    let mut b = client("b", &["t"]);
    bench.full(&mut b);
    let holds = a.clone();
    for _ in 0..7 {
        // It is heard of all the time, and holds on to all of it.
        if bench.beat(&holds.full()).is_err() {
            break;
        }
        let beat = bench.beat(&b.short()).unwrap();
        b.takes(&beat);
        bench.pass(10_000);
    }
    assert_eq!(bench.beat(&holds.full()), Err(GroupError::UnknownMemberId));
    bench.settle(std::slice::from_mut(&mut b));
    assert_eq!(count(&b), 2);
    bench.check_replay();
}

#[test]
fn a_static_member_keeps_its_place_while_it_is_away() {
    let mut bench = bench(&[("t", 4)]);
    let fixed = |id: &str| Client {
        instance: Some("i".into()),
        ..client(id, &["t"])
    };
    let mut clients = [fixed("a"), client("b", &["t"])];
    bench.settle(&mut clients);
    let [a, mut b] = clients;
    let early = fixed("a2");
    assert_eq!(
        bench.beat(&early.full()),
        Err(GroupError::UnreleasedInstanceId)
    );
    let other = ConsumerHeartbeat {
        epoch: a.epoch,
        ..early.short()
    };
    assert_eq!(bench.beat(&other), Err(GroupError::FencedInstanceId));
    assert_eq!(
        bench.beat(&early.leaving(-2)),
        Err(GroupError::FencedInstanceId)
    );
    assert_eq!(bench.beat(&a.leaving(-2)).unwrap().epoch, -2);
    let epoch = bench.group().epoch;
    bench.full(&mut b);
    assert_eq!(count(&b), 2, "what the other has is not handed out");
    let mut again = fixed("a2");
    bench.full(&mut again);
    assert_eq!((again.epoch, &again.owned), (epoch, &a.owned));
    assert_eq!(bench.group().epoch, epoch);
    assert_eq!(bench.beat(&a.short()), Err(GroupError::FencedInstanceId));
    bench.check_replay();
    // Away for too long.
    assert_eq!(bench.beat(&again.leaving(-2)).unwrap().epoch, -2);
    bench.pass(30_000);
    bench.full(&mut b);
    bench.pass(20_000);
    bench.settle(std::slice::from_mut(&mut b));
    assert_eq!(count(&b), 4);
    bench.check_replay();
}

#[test]
fn groups_follow_their_topics() {
    let mut bench = bench(&[("t", 2)]);
    let mut a = client("a", &["t", "later"]);
    bench.full(&mut a);
    assert_eq!(count(&a), 2);
    bench.topics.set("other", 7);
    let epoch = bench.group().epoch;
    bench.full(&mut a);
    assert_eq!(bench.group().epoch, epoch, "it is none of its topics");
    bench.topics.set("later", 3);
    bench.full(&mut a);
    assert_eq!((count(&a), bench.group().epoch), (5, epoch + 1));
    bench.topics.set("t", 4);
    bench.full(&mut a);
    assert_eq!(count(&a), 7);
    bench.topics.delete("later");
    bench.settle(std::slice::from_mut(&mut a));
    assert_eq!(count(&a), 4);
    a.topics = vec!["other".into()];
    bench.settle(std::slice::from_mut(&mut a));
    assert_eq!(count(&a), 7);
    bench.check_replay();
}

#[test]
fn expressions_match_whole_names_and_topics_to_come() {
    let mut bench = bench(&[("ab", 1), ("abc", 2), ("x", 4)]);
    let mut a = Client {
        regex: Some("ab.?".into()),
        ..client("a", &[])
    };
    bench.full(&mut a);
    assert_eq!(count(&a), 3);
    bench.check_replay();
    bench.topics.set("abd", 5);
    bench.pass(1_000);
    bench.full(&mut a);
    assert_eq!(count(&a), 8);
    a.topics = vec!["x".into()];
    bench.full(&mut a);
    assert_eq!(count(&a), 12, "names as well");
    a.regex = Some(String::new());
    bench.settle(std::slice::from_mut(&mut a));
    assert_eq!(count(&a), 4);
    assert!(bench.group().regexes.is_empty(), "nobody has it any more");
    for wrong in ["(", "a)(b", &"x".repeat(5_000), "(?:a{500}){500}{500}"] {
        a.regex = Some(wrong.to_string());
        let refused = bench.beat(&a.full());
        assert_eq!(
            refused,
            Err(GroupError::InvalidRegularExpression),
            "{wrong}"
        );
    }
    bench.check_replay();
}

#[test]
fn offsets_are_committed_and_fetched_in_the_epoch_of_the_member() {
    let mut bench = bench(&[("t", 2)]);
    let id = bench.topics.known["t"].id;
    let mut a = client("a", &["t"]);
    bench.full(&mut a);
    let of = |partition, offset| OffsetToCommit {
        topic_id: id,
        ..to_commit("t", partition, offset)
    };
    let commit = |bench: &mut Bench, by: &str, epoch, offset| {
        let asked = CommitOffsets {
            by: member(by, epoch),
            retention_ms: -1,
            offsets: vec![of(0, offset)],
        };
        bench.step(|c, ctx| c.commit(&asked, ctx)).remove(0)
    };
    let fetch = |bench: &Bench, by: Option<&str>, epoch| {
        let asked = FetchOffsets {
            group: "g".into(),
            member: by.map(str::to_string),
            member_epoch: epoch,
            topics: Some(vec![("t".into(), vec![0])]),
            require_stable: false,
        };
        let fetched = bench.coordinator.fetch(&asked, &bench.topics);
        fetched.map(|all| all[0].1[0].1.offset)
    };
    assert_eq!(commit(&mut bench, "a", 1, 5), Ok(()));
    assert_eq!(
        commit(&mut bench, "a", 2, 6),
        Err(GroupError::StaleMemberEpoch)
    );
    assert_eq!(
        commit(&mut bench, "b", 1, 6),
        Err(GroupError::UnknownMemberId)
    );
    assert_eq!(
        commit(&mut bench, "", -1, 6),
        Err(GroupError::UnknownMemberId)
    );
    bench.topics.set("t", 4);
    let missed = bench.beat(&a.short()).unwrap();
    assert_eq!(missed.epoch, 2);
    // It has held the partition since before.
    assert_eq!(commit(&mut bench, "a", 1, 7), Ok(()));
    assert_eq!(fetch(&bench, Some("a"), 2), Ok(7));
    assert_eq!(fetch(&bench, None, -1), Ok(7));
    assert_eq!(
        fetch(&bench, Some("a"), 1),
        Err(GroupError::StaleMemberEpoch)
    );
    assert_eq!(
        fetch(&bench, Some("b"), 2),
        Err(GroupError::UnknownMemberId)
    );
    let deleted = bench.step(|c, ctx| c.delete_offsets("g", &[("t".into(), vec![0])], ctx));
    assert_eq!(
        deleted,
        Ok(vec![vec![Err(GroupError::GroupSubscribedToTopic)]])
    );
    let delete = |bench: &mut Bench| bench.step(|c, ctx| c.delete("g", ctx));
    assert_eq!(delete(&mut bench), Err(GroupError::NonEmptyGroup));
    a.epoch = missed.epoch;
    bench.beat(&a.leaving(-1)).unwrap();
    assert_eq!(commit(&mut bench, "", -1, 9), Ok(()));
    bench.check_replay();
    assert_eq!(delete(&mut bench), Ok(()));
    assert!(bench.replayed().list().is_empty() && bench.coordinator.list().is_empty());
}

#[test]
fn an_old_offset_is_not_committed_for_what_was_given_up_since() {
    let mut bench = bench(&[("t", 2)]);
    let mut clients = [client("a", &["t"]), client("b", &["t"])];
    bench.settle(&mut clients);
    let [a, b] = clients;
    let (topic, of_b) = b.owned.iter().next().unwrap();
    let asked = CommitOffsets {
        by: member("a", a.epoch - 1),
        retention_ms: -1,
        offsets: vec![OffsetToCommit {
            topic_id: *topic,
            ..to_commit("t", *of_b.first().unwrap(), 1)
        }],
    };
    let result = bench.step(|c, ctx| c.commit(&asked, ctx));
    assert_eq!(result, [Err(GroupError::StaleMemberEpoch)]);
}

#[test]
fn nothing_changes_where_the_log_refuses() {
    let mut bench = bench(&[("t", 2)]);
    let mut a = client("a", &["t"]);
    bench.log.refuses = true;
    assert_eq!(bench.beat(&a.full()), Err(GroupError::NotAvailable));
    assert!(bench.coordinator.list().is_empty());
    bench.log.refuses = false;
    bench.full(&mut a);
    bench.log.refuses = true;
    let b = client("b", &["t"]);
    assert_eq!(bench.beat(&b.full()), Err(GroupError::NotAvailable));
    assert_eq!(bench.beat(&a.leaving(-1)), Err(GroupError::NotAvailable));
    bench.pass(60_000);
    assert_eq!(
        bench.group().members.len(),
        1,
        "it stays until that can be written"
    );
    bench.log.refuses = false;
    bench.pass(2_000);
    assert_eq!(bench.group_state(), "Empty");
    bench.check_replay();
}

#[test]
fn full_groups_take_nobody_new() {
    let mut bench = bench(&[("t", 2)]);
    bench.coordinator.config.consumer.members_max = 1;
    let mut a = client("a", &["t"]);
    bench.full(&mut a);
    let refused = bench.beat(&client("b", &["t"]).full());
    assert_eq!(refused, Err(GroupError::GroupMaxSizeReached));
    bench.full(&mut a);
}

#[test]
fn what_is_written_anew_is_all_that_is_needed() {
    let mut bench = bench(&[("t", 4), ("u", 2)]);
    let mut clients = [client("a", &["t"]), client("b", &["u"])];
    clients[0].regex = Some("u".into());
    bench.settle(&mut clients);
    let begin = bench.log.records.len();
    let ids = bench.coordinator.group_ids();
    bench.step(|c, ctx| c.rewrite(&ids, ctx)).unwrap();
    bench.log.records.drain(..begin);
    bench.check_replay();
    let described = bench.step(|c, ctx| c.describe_consumer("g", ctx)).unwrap();
    assert_eq!(
        (described.assignor, described.members.len()),
        ("uniform", 2)
    );
    assert_eq!(described.members[1].assignment, described.members[1].target);
    let classic = bench.coordinator.describe("g");
    assert_eq!(classic, Err(GroupError::GroupIdNotFound));
}
