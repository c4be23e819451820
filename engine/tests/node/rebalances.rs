//! Owns a large group on a simulated node: 500 members of 1,000 partitions that come, leave, return and vanish.
//! Does not know the machine of groups, nor the wire; the members are as Kafka's clients, each with its own clock.
//! Invariant checked: no two members read a partition at once, and within few heartbeats all is shared out evenly again.

use crate::node;
use bytes::Bytes;
use millrace_engine::api::coord::{
    ConsumerHeartbeat, GroupError, JoinGroup, Leaver, MemberOf, SyncGroup, GROUP_TOPIC,
};
use millrace_engine::api::Broker;
use millrace_engine::rt::sim::{Sim, SimConfig};
use millrace_engine::rt::{self, Class};
use millrace_engine::types::TopicId;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

const GROUPS: TopicId = TopicId([7; 16]);
const TOPIC: TopicId = TopicId([8; 16]);
const MEMBERS: usize = 500;
const MOVERS: usize = 50;
const PARTITIONS: usize = 1_000;
const HEARTBEAT: Duration = Duration::from_secs(3);
const SESSION: Duration = Duration::from_secs(10);
/// `group.initial.rebalance.delay.ms`, as Kafka has it.
const FIRST_DELAY: Duration = Duration::from_secs(3);
/// What requests and the log take in all, beyond the waiting that the protocol asks for.
const WORK: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Debug)]
enum Protocol {
    Classic,
    Consumer,
}

/// Who reads which partition, and who is there.
struct Readers {
    reader: RefCell<Vec<Option<usize>>>,
    present: RefCell<Vec<Option<Id>>>,
    /// So that a member that has returned is not taken for what it was.
    last_life: Cell<u32>,
}

/// What a member is called by the group, and its life.
#[derive(Clone)]
struct Id {
    name: String,
    life: u32,
}

impl Readers {
    fn new() -> Rc<Readers> {
        Rc::new(Readers {
            reader: RefCell::new(vec![None; PARTITIONS]),
            present: RefCell::new(vec![None; MEMBERS]),
            last_life: Cell::new(0),
        })
    }

    /// A member reads these from now on, and no others. One that is not there any more reads nothing.
    fn reads(&self, who: usize, life: u32, partitions: &BTreeSet<i32>) {
        if !self.lives(who, life) {
            return;
        }
        let mut readers = self.reader.borrow_mut();
        for (index, reader) in readers.iter_mut().enumerate() {
            match partitions.contains(&(index as i32)) {
                true => {
                    let by = reader.replace(who);
                    assert!(by.is_none_or(|by| by == who), "{index}: {by:?} and {who}");
                }
                false if *reader == Some(who) => *reader = None,
                false => {}
            }
        }
    }

    fn lives(&self, who: usize, life: u32) -> bool {
        let present = self.present.borrow();
        present[who].as_ref().is_some_and(|id| id.life == life)
    }

    fn named(&self, who: usize, life: u32, name: &str) {
        if self.lives(who, life) {
            let name = name.to_string();
            self.present.borrow_mut()[who] = Some(Id { name, life });
        }
    }

    fn appears(&self, who: usize) -> u32 {
        let life = self.last_life.get() + 1;
        self.last_life.set(life);
        let name = String::new();
        self.present.borrow_mut()[who] = Some(Id { name, life });
        life
    }

    /// Its name in the group.
    fn disappears(&self, who: usize) -> String {
        let id = self.present.borrow()[who].clone().expect("it is there");
        self.reads(who, id.life, &BTreeSet::new());
        self.present.borrow_mut()[who] = None;
        id.name
    }

    /// All partitions are read, and by each member as many as by any other, or one more.
    fn are_even(&self) -> bool {
        let mut counts = vec![0; MEMBERS];
        for reader in self.reader.borrow().iter() {
            match reader {
                Some(who) => counts[*who] += 1,
                None => return false,
            }
        }
        let present = self.present.borrow();
        let of_present = |who: &usize| present[*who].is_some();
        let counts: Vec<i32> = (0..MEMBERS).filter(of_present).map(|m| counts[m]).collect();
        counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1
    }

    /// How long it takes until they are, in simulated time.
    async fn settle(&self) -> Duration {
        let begin = rt::now();
        while !self.are_even() {
            assert!(rt::now() - begin < HEARTBEAT * 60, "they never settle");
            rt::sleep(Duration::from_millis(10)).await;
        }
        rt::now() - begin
    }
}

fn join(member: &str) -> JoinGroup {
    JoinGroup {
        group: "g".into(),
        member: member.into(),
        instance: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: SESSION.as_millis() as i32,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::from_static(b"\0\0\0\0\0\0"))],
        require_known_member: true,
        supports_skipping_assignment: true,
    }
}

/// What the leader of a generation says: ranges, as even as can be.
fn ranges(members: &[String]) -> Vec<(String, Bytes)> {
    let bound = |n: usize| n * PARTITIONS / members.len();
    let one = |(n, member): (usize, &String)| {
        let range = format!("{} {}", bound(n), bound(n + 1));
        (member.clone(), Bytes::from(range))
    };
    members.iter().enumerate().map(one).collect()
}

fn range_of(assignment: &[u8]) -> BTreeSet<i32> {
    let text = std::str::from_utf8(assignment).unwrap();
    let (from, to) = text.split_once(' ').unwrap();
    (from.parse().unwrap()..to.parse().unwrap()).collect()
}

/// Gives up all it reads whenever others come or go, as eager clients do.
async fn classic(broker: Broker, readers: Rc<Readers>, who: usize, life: u32) {
    let mut id = String::new();
    while readers.lives(who, life) {
        let joined = broker.join_group(join(&id)).await;
        id = joined.member.clone();
        readers.named(who, life, &id);
        if joined.error == Some(GroupError::MemberIdRequired) {
            continue;
        }
        assert_eq!(joined.error, None, "{who}");
        let members: Vec<String> = joined.members.into_iter().map(|m| m.member).collect();
        let asked = SyncGroup {
            group: "g".into(),
            generation: joined.generation,
            member: id.clone(),
            instance: None,
            protocol_type: None,
            protocol: None,
            assignments: ranges(&members),
        };
        match broker.sync_group(asked).await {
            Ok(synced) => readers.reads(who, life, &range_of(&synced.assignment)),
            Err(GroupError::RebalanceInProgress) => continue,
            Err(other) => panic!("{who}: {other}"),
        }
        let mut goes_on = true;
        while goes_on {
            rt::sleep(HEARTBEAT).await;
            if !readers.lives(who, life) {
                return;
            }
            let by = MemberOf {
                group: "g".into(),
                generation: joined.generation,
                member: id.clone(),
                instance: None,
            };
            match broker.group_heartbeat(by).await {
                Ok(()) => {}
                Err(GroupError::RebalanceInProgress) => goes_on = false,
                Err(other) => panic!("{who}: {other}"),
            }
        }
        readers.reads(who, life, &BTreeSet::new());
    }
}

fn beat(name: &str, epoch: i32) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        group: "g".into(),
        member: name.into(),
        epoch,
        instance: None,
        rack: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: -1,
        topics: None,
        regex: None,
        assignor: None,
        owned: None,
    }
}

/// Gives up what it is told to, says so at once, and reads on with the rest.
async fn consumer(broker: Broker, readers: Rc<Readers>, who: usize, life: u32) {
    let name = format!("member{life}");
    readers.named(who, life, &name);
    let mut asked = ConsumerHeartbeat {
        rebalance_timeout_ms: 60_000,
        topics: Some(vec!["t".into()]),
        owned: Some(Vec::new()),
        ..beat(&name, 0)
    };
    while readers.lives(who, life) {
        let beaten = broker.consumer_group_heartbeat(asked).await;
        if !readers.lives(who, life) {
            return;
        }
        let beaten = beaten.unwrap_or_else(|why| panic!("{who}: {why}"));
        asked = beat(&name, beaten.epoch);
        match beaten.assignment {
            Some(assignment) => {
                // Without the topic it is an assignment of nothing.
                let partitions = assignment.get(&TOPIC).cloned().unwrap_or_default();
                readers.reads(who, life, &partitions);
                asked.owned = Some(vec![(TOPIC, partitions.into_iter().collect())]);
            }
            None => rt::sleep(HEARTBEAT).await,
        }
    }
}

fn begin(broker: &Broker, readers: &Rc<Readers>, protocol: Protocol, who: usize) {
    let (broker, readers, life) = (broker.clone(), readers.clone(), readers.appears(who));
    rt::spawn(Class::Network, async move {
        match protocol {
            Protocol::Classic => classic(broker, readers, who, life).await,
            Protocol::Consumer => consumer(broker, readers, who, life).await,
        }
    });
}

async fn leave(broker: &Broker, protocol: Protocol, name: String) {
    match protocol {
        Protocol::Classic => {
            let instance = None;
            let leaver = Leaver {
                member: name,
                instance,
            };
            let left = broker.leave_group("g".into(), vec![leaver]).await;
            assert_eq!(left, Ok(vec![Ok(())]));
        }
        Protocol::Consumer => {
            let left = broker.consumer_group_heartbeat(beat(&name, -1)).await;
            left.unwrap_or_else(|why| panic!("{name}: {why}"));
        }
    }
}

async fn start() -> Vec<Broker> {
    let mut config = node::config();
    for (name, time) in [
        ("group.consumer.min.session.timeout.ms", SESSION),
        ("group.consumer.session.timeout.ms", SESSION),
        ("group.consumer.min.heartbeat.interval.ms", HEARTBEAT),
        ("group.consumer.heartbeat.interval.ms", HEARTBEAT),
        ("group.initial.rebalance.delay.ms", FIRST_DELAY),
    ] {
        let time = time.as_millis().to_string();
        config.broker_settings.insert(name.into(), time);
    }
    let brokers = node::start_with(config, 2).await.unwrap();
    node::create_topic(&brokers[0], GROUPS, GROUP_TOPIC, 50, 1 << 20).await;
    node::create_topic(&brokers[0], TOPIC, "t", PARTITIONS as i32, 1 << 20).await;
    brokers
}

/// How long until all was shared out evenly: at first, after some left, came again, and vanished.
async fn times(protocol: Protocol) -> [Duration; 4] {
    let brokers = start().await;
    let readers = Readers::new();
    for who in 0..MEMBERS {
        begin(&brokers[who % 2], &readers, protocol, who);
    }
    let come = readers.settle().await;

    // As scattered as their heartbeats are in a group that has been there for long.
    rt::sleep(HEARTBEAT * 3).await;
    let movers = || (0..MEMBERS).step_by(MEMBERS / MOVERS);
    for who in movers() {
        let name = readers.disappears(who);
        leave(&brokers[0], protocol, name).await;
    }
    let left = readers.settle().await;

    rt::sleep(HEARTBEAT * 3).await;
    for who in movers() {
        begin(&brokers[who % 2], &readers, protocol, who);
    }
    let returned = readers.settle().await;

    rt::sleep(HEARTBEAT * 3).await;
    for who in movers() {
        readers.disappears(who);
    }
    let vanished = readers.settle().await;
    [come, left, returned, vanished]
}

/// What the protocols themselves ask for: a member hears with its next heartbeat that something is to be given up, and with
/// the consumer protocol another one hears with its next that it may have it. Who vanishes is missed when its session ends.
#[test]
fn a_large_group_settles_within_few_heartbeats() {
    for (protocol, rounds) in [(Protocol::Classic, 1), (Protocol::Consumer, 2)] {
        let sim = Sim::new(1, SimConfig::default());
        let [come, left, returned, vanished] = sim.block_on(times(protocol));
        println!("{protocol:?}: come {come:?}, left {left:?}, returned {returned:?}, vanished {vanished:?}");
        let change = HEARTBEAT * rounds + WORK;
        assert!(come <= FIRST_DELAY + change, "{protocol:?}: {come:?}");
        assert!(left <= change, "{protocol:?}: {left:?}");
        assert!(returned <= change, "{protocol:?}: {returned:?}");
        assert!(vanished <= SESSION + change, "{protocol:?}: {vanished:?}");
    }
}
