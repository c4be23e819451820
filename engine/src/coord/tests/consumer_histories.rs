//! Owns long random histories of members of the consumer protocol, beside topics that come, grow and go, while the log
//! refuses now and then and answers are lost.
//! Does not know what a single step should do.
//! Invariant checked: no two hold a partition at once, the log alone gives the same group, and members that stay get all.

use super::super::random::{random_of, seeds};
use super::consumer::{client, Client};
use super::*;

const NAMES: [&str; 3] = ["ta", "tb", "uc"];

/// A client, and what it really reads: it gives up first and takes on then.
#[derive(Default)]
struct Actor {
    client: Client,
    joined: bool,
}

#[test]
fn random_histories_of_the_consumer_protocol() {
    for seed in seeds(60) {
        history(seed);
    }
}

fn history(seed: u64) {
    let mut random = random_of(seed + 7);
    let mut bench = Bench::new(CONFIG);
    bench.topics.set("ta", 3);
    let mut next_id = 0;
    let mut actors: Vec<Actor> = (0..5).map(|_| Actor::default()).collect();
    for _ in 0..400 {
        let who = (random() % 5) as usize;
        bench.log.refuses = random().is_multiple_of(20);
        match random() % 16 {
            0..=1 if !actors[who].joined => {
                next_id += 1;
                actors[who] = begun(&format!("m{next_id}"), who, &mut random);
                say(&mut bench, &mut actors[who], true, false);
            }
            2..=7 if actors[who].joined => {
                let (full, lost) = (random().is_multiple_of(2), random().is_multiple_of(8));
                say(&mut bench, &mut actors[who], full, lost);
            }
            8 if actors[who].joined => {
                let epoch = match actors[who].client.instance {
                    Some(_) if random().is_multiple_of(2) => -2,
                    Some(_) | None => -1,
                };
                let asked = actors[who].client.leaving(epoch);
                // It stops reading before it says so, and does not care whether it is heard.
                let _whatever = bench.beat(&asked);
                actors[who] = Actor::default();
            }
            9 if random().is_multiple_of(3) => actors[who] = Actor::default(),
            10 if actors[who].joined => {
                subscribe(&mut actors[who].client, &mut random);
                say(&mut bench, &mut actors[who], true, false);
            }
            11 => {
                let name = NAMES[(random() % 3) as usize];
                let now = bench.topics.by_name(name).map_or(0, |t| t.partitions);
                match random().is_multiple_of(4) {
                    true if now > 0 => bench.topics.delete(name),
                    _ => {
                        bench.topics.set(name, now + 1 + (random() % 3) as i32);
                    }
                }
            }
            12 => {
                let ids = bench.coordinator.group_ids();
                let begin = bench.log.records.len();
                let written = bench.step(|c, ctx| c.rewrite(&ids, ctx));
                if written.is_ok() {
                    bench.log.records.drain(..begin);
                }
            }
            _ => bench.pass(random() % 9_000),
        }
        let whole = random().is_multiple_of(8);
        check(&bench, &actors, seed, whole);
    }
    live(&mut bench, &mut actors, seed);
}

fn begun(id: &str, who: usize, random: &mut impl FnMut() -> u64) -> Actor {
    let mut client = Client {
        instance: (who < 2).then(|| format!("static{who}")),
        assignor: random().is_multiple_of(4).then(|| "range".to_string()),
        ..client(id, &[])
    };
    subscribe(&mut client, random);
    let joined = true;
    Actor { client, joined }
}

fn subscribe(client: &mut Client, random: &mut impl FnMut() -> u64) {
    client.regex = Some(["", "t.", ".*"][(random() % 3) as usize].to_string());
    let names = NAMES.iter().filter(|_| random().is_multiple_of(2));
    client.topics = names.map(|name| name.to_string()).collect();
}

/// One heartbeat, whose answer may be lost.
fn say(bench: &mut Bench, actor: &mut Actor, full: bool, lost: bool) {
    let client = &mut actor.client;
    let asked = match full || client.epoch == 0 {
        true => client.full(),
        false => client.short(),
    };
    match bench.beat(&asked) {
        _ if lost => {}
        Ok(beat) => client.takes(&beat),
        // Fenced, put out or taken over: it gives up all it has, and begins anew.
        Err(
            GroupError::FencedMemberEpoch
            | GroupError::UnknownMemberId
            | GroupError::GroupIdNotFound,
        ) => {
            client.epoch = 0;
            client.owned.clear();
        }
        Err(GroupError::FencedInstanceId | GroupError::UnreleasedInstanceId) => {
            *actor = Actor::default();
        }
        Err(GroupError::NotAvailable) => {}
        Err(other) => panic!("{other}"),
    }
}

fn check(bench: &Bench, actors: &[Actor], seed: u64, whole: bool) {
    if whole {
        bench.check_replay();
    }
    let Some(group) = bench.coordinator.groups.get("g") else {
        return;
    };
    let Some(group) = &group.consumer else { return };
    let mut held = BTreeSet::new();
    for member in group.members.values() {
        let current = &member.current;
        for (topic, partitions) in current.assigned.iter().chain(&current.revoking) {
            for index in partitions.keys() {
                assert!(held.insert((*topic, *index)), "seed {seed}: held twice");
            }
        }
    }
    // Nobody that the group takes for a member reads what another one reads.
    let mut read = BTreeSet::new();
    for actor in actors {
        let known = group.members.get(&actor.client.id);
        if !actor.joined || known.is_none_or(|m| m.current.epoch != actor.client.epoch) {
            continue;
        }
        for (topic, partitions) in &actor.client.owned {
            for index in partitions {
                assert!(read.insert((*topic, *index)), "seed {seed}: read twice");
            }
        }
    }
}

/// Members that stay get all there is, the log being willing.
fn live(bench: &mut Bench, actors: &mut [Actor], seed: u64) {
    bench.log.refuses = false;
    actors[2] = begun("last", 2, &mut || 0);
    actors[2].client.topics = NAMES.iter().map(|name| name.to_string()).collect();
    for _ in 0..40 {
        bench.pass(5_000);
        for actor in actors.iter_mut().filter(|actor| actor.joined) {
            say(bench, actor, true, false);
        }
    }
    assert_eq!(
        bench.group_state(),
        "Stable",
        "seed {seed}: {:?}",
        bench.group()
    );
    let mut all = BTreeMap::new();
    for actor in actors.iter().filter(|actor| actor.joined) {
        for (topic, partitions) in &actor.client.owned {
            *all.entry(*topic).or_insert(0) += partitions.len() as i32;
        }
    }
    let topics = bench.topics.known.values();
    let wanted: BTreeMap<TopicId, i32> = topics.map(|t| (t.id, t.partitions)).collect();
    assert_eq!(all, wanted, "seed {seed}: all is read, by one each");
    check(bench, actors, seed, true);
}
