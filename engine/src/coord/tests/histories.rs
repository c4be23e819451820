//! Owns long random histories of members that join, sync, crash and leave, while the log refuses now and then.
//! Does not know what a single step should do.
//! Invariant checked: no two own the same in one generation, everybody is answered, and the log alone gives the same groups.

use super::super::random::{random_of, seeds};
use super::*;

/// What a random member of the history knows.
#[derive(Clone, Default)]
struct Actor {
    id: String,
    instance: Option<String>,
    generation: i32,
    leads: bool,
    joining: Option<Token>,
    syncing: Option<Token>,
    /// What it believes to own, and of which generation.
    owns: Option<(i32, Bytes)>,
}

/// Members that join, sync, crash and leave at random; partitions are never owned by two of one generation, and the log
/// gives what is there live.
#[test]
fn random_histories() {
    for seed in seeds(300) {
        history(seed);
    }
}

fn history(seed: u64) {
    let mut random = random_of(seed);
    let mut bench = Bench::new(GroupConfig {
        initial_rebalance_delay_ms: [0, 3_000][(seed % 2) as usize],
        ..CONFIG
    });
    let mut actors: Vec<Actor> = (0..5)
        .map(|i| Actor {
            instance: (i < 2).then(|| format!("static{i}")),
            ..Actor::default()
        })
        .collect();
    for _ in 0..400 {
        let who = (random() % 5) as usize;
        bench.log.refuses = random().is_multiple_of(20);
        let actor = actors[who].clone();
        match random() % 12 {
            0..=4 if actor.joining.is_none() && actor.syncing.is_none() => {
                let asked = JoinGroup {
                    member: actor.id.clone(),
                    instance: actor.instance.clone(),
                    require_known_member: actor.instance.is_none() && random().is_multiple_of(2),
                    supports_skipping_assignment: random().is_multiple_of(2),
                    ..plain(&format!("client{who}"))
                };
                actors[who].owns = None;
                actors[who].joining = Some(bench.join(asked));
            }
            5..=7 if actor.generation > 0 && actor.syncing.is_none() && actor.joining.is_none() => {
                let all: Vec<(String, String)> = match actor.leads {
                    true => {
                        let all = bench.coordinator.describe("g").map(|d| d.members);
                        let ids = all.unwrap_or_default().into_iter().map(|m| m.member);
                        ids.map(|id| (id.clone(), format!("{}:{id}", actor.generation)))
                            .collect()
                    }
                    false => Vec::new(),
                };
                let all: Vec<(&str, &str)> =
                    all.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
                let asked = SyncGroup {
                    instance: actor.instance.clone(),
                    ..sync(&actor.id, actor.generation, &all)
                };
                actors[who].syncing = Some(bench.sync(asked));
            }
            8 => {
                let by = MemberOf {
                    instance: actor.instance.clone(),
                    ..member(&actor.id, actor.generation)
                };
                let _whatever = bench.commit(by, (random() % 1_000) as i64);
            }
            9 if actor.instance.is_none() && random().is_multiple_of(3) => {
                let _whatever = bench.leave(&actor.id);
                actors[who] = Actor::default();
            }
            10 => {
                // Its process dies: it knows nothing any more.
                actors[who] = Actor {
                    instance: actor.instance,
                    ..Actor::default()
                };
            }
            _ => {
                bench.pass(random() % 4_000);
                for actor in &actors {
                    let by = MemberOf {
                        instance: actor.instance.clone(),
                        ..member(&actor.id, actor.generation)
                    };
                    let _whatever = bench.step(|c, ctx| c.heartbeat(&by, ctx));
                }
            }
        }
        take_answers(&mut actors, &bench);
        if random().is_multiple_of(16) {
            let (ids, begin) = (bench.coordinator.group_ids(), bench.log.records.len());
            let written = bench.step(|c, ctx| c.rewrite(&ids, ctx));
            if written.is_ok() {
                bench.log.records.drain(..begin);
            }
        }
        if random().is_multiple_of(8) {
            check(&bench, &actors, seed);
        }
    }
    bench.log.refuses = false;
    bench.pass(10_000_000);
    let unanswered = bench
        .asked
        .iter()
        .filter(|t| !bench.answers.contains_key(t))
        .count();
    assert_eq!(
        unanswered, 0,
        "seed {seed}: everybody is answered in the end"
    );
}

fn take_answers(actors: &mut [Actor], bench: &Bench) {
    for actor in actors {
        if let Some(Reply::Joined(joined)) = actor.joining.and_then(|t| bench.answers.get(&t)) {
            actor.joining = None;
            match joined.error {
                None | Some(GroupError::MemberIdRequired) => {
                    actor.id = joined.member.clone();
                    actor.generation = joined.generation;
                    actor.leads = joined.leader == joined.member && !joined.skip_assignment;
                }
                Some(_) => {
                    let instance = actor.instance.take();
                    *actor = Actor {
                        instance,
                        ..Actor::default()
                    };
                }
            }
        }
        if let Some(Reply::Synced(synced)) = actor.syncing.and_then(|t| bench.answers.get(&t)) {
            actor.syncing = None;
            if let Ok(synced) = synced {
                actor.owns = Some((actor.generation, synced.assignment.clone()));
            }
        }
    }
}

fn check(bench: &Bench, actors: &[Actor], seed: u64) {
    let mut owned = BTreeSet::new();
    for actor in actors {
        let Some((generation, what)) = &actor.owns else {
            continue;
        };
        if !what.is_empty() {
            assert!(
                owned.insert((*generation, what.clone())),
                "seed {seed}: owned twice"
            );
        }
    }
    let again = bench.replayed();
    let all = all_offsets();
    let whole = |c: &Coordinator| c.fetch(&all, &bench.topics);
    assert_eq!(
        whole(&again),
        whole(&bench.coordinator),
        "seed {seed}: offsets"
    );
    let live = bench.coordinator.describe("g");
    // While members come and go, the log has the generation before.
    if let Ok(live) = live {
        if live.state == GroupState::Stable {
            assert_eq!(again.describe("g"), Ok(live), "seed {seed}: the group");
        }
    }
}
