//! Owns long random histories of producers that begin, end, die and come back, while the log refuses now and then.
//! Does not know what a single step should do.
//! Invariant checked: an answered end has its markers, no producer is given twice, who has an id is not fenced, and the log
//! alone gives the same.

use super::*;
use crate::coord::random::{random_of, seeds};
use std::collections::BTreeMap;

const IDS: [&str; 3] = ["a", "b", "c"];

/// What a producer of the history knows.
#[derive(Clone, Default)]
struct Actor {
    producer: Option<Producer>,
    added: BTreeSet<i32>,
    /// The last end it asked for, and as whom.
    ended: Option<(Producer, bool)>,
}

struct History {
    bench: Bench,
    actors: Vec<Actor>,
    /// Every producer that was given to somebody, and to whom.
    given: BTreeMap<(i64, i16), usize>,
    /// Decisions that were answered, by the producer that asked: whether to commit, and the partitions it knew of.
    decided: BTreeMap<(i64, i16), (bool, BTreeSet<i32>)>,
    seed: u64,
}

#[test]
fn random_histories() {
    for seed in seeds(300) {
        let mut random = random_of(seed);
        let mut history = History {
            bench: Bench::new(),
            actors: vec![Actor::default(); 2 * IDS.len()],
            given: BTreeMap::new(),
            decided: BTreeMap::new(),
            seed,
        };
        for _ in 0..400 {
            history.step(&mut random);
        }
        history.bench.log.refuses = false;
        history.bench.pass(1_000_000);
        history.carry_out(usize::MAX);
        history.check();
        for id in history.bench.coordinator.ids() {
            let state = history.bench.state(&id);
            let over = state != TxnState::Ongoing && !state.is_prepared();
            assert!(over, "seed {seed}: {id} is {state:?} in the end");
        }
    }
}

impl History {
    fn step(&mut self, random: &mut impl FnMut() -> u64) {
        let who = (random() % self.actors.len() as u64) as usize;
        let id = IDS[who % IDS.len()];
        let version = if who < IDS.len() { 2 } else { 0 };
        self.bench.log.refuses = random().is_multiple_of(20);
        let actor = self.actors[who].clone();
        match (random() % 12, actor.producer) {
            (0, _) => self.init(who, id, None),
            (1, Some(producer)) => self.init(who, id, Some(producer)),
            (2..=5, Some(producer)) => {
                let index = (random() % 5) as i32;
                let is_owner = self.is_owner(id, producer);
                let added = self.bench.add(id, producer, &[index]);
                self.is_not_fenced(is_owner, added.map(|()| producer));
                if added.is_ok() {
                    self.actors[who].added.insert(index);
                }
            }
            (6..=8, Some(producer)) => {
                let commit = !random().is_multiple_of(3);
                self.end(who, id, producer, commit, version);
            }
            // The first version cannot tell a retry from the end of the next one.
            (9, Some(_)) if version == 2 => {
                // The answer was lost: it asks once more.
                if let Some((producer, commit)) = actor.ended {
                    let again = self.bench.end(id, producer, commit, version);
                    let changed =
                        matches!(again, Ok(p) if p != Producer::NONE && Some(p) != actor.producer);
                    assert!(!changed, "seed {}: {again:?}", self.seed);
                }
            }
            (10, _) => self.bench.pass(random() % 20_000),
            _ => self.carry_out(random() as usize % 3),
        }
        if random().is_multiple_of(16) {
            let (ids, begin) = (self.bench.coordinator.ids(), self.bench.log.records.len());
            let written = self.bench.step(None, |c, ctx| c.rewrite(&ids, ctx));
            if written.is_ok() {
                self.bench.log.records.drain(..begin);
            }
        }
        if random().is_multiple_of(8) {
            self.check();
        }
        if random().is_multiple_of(32) {
            // A crash: the next one knows the log only.
            self.bench.coordinator = self.bench.replayed();
        }
    }

    fn init(&mut self, who: usize, id: &str, expected: Option<Producer>) {
        let Ok(producer) = self.bench.init(id, expected) else {
            return;
        };
        self.give(who, producer);
    }

    fn give(&mut self, who: usize, producer: Producer) {
        let before = self.given.insert((producer.id, producer.epoch), who);
        let own = before.is_none_or(|before| before == who);
        assert!(own, "seed {}: {producer:?} is given twice", self.seed);
        self.actors[who] = Actor {
            producer: Some(producer),
            ..Actor::default()
        };
    }

    fn end(&mut self, who: usize, id: &str, producer: Producer, commit: bool, version: i16) {
        let ongoing = self.bench.coordinator.describe(id).map(|d| d.state);
        let is_owner = self.is_owner(id, producer);
        let answer = self.bench.end(id, producer, commit, version);
        self.is_not_fenced(is_owner, answer);
        let Ok(next) = answer else { return };
        let added = std::mem::take(&mut self.actors[who].added);
        if ongoing == Ok(TxnState::Ongoing) {
            let key = (producer.id, producer.epoch);
            self.decided.insert(key, (commit, added));
        }
        if next != Producer::NONE {
            self.give(who, next);
        }
        self.actors[who].ended = Some((producer, commit));
    }

    /// Whether nobody has had the id since this producer.
    fn is_owner(&self, id: &str, producer: Producer) -> bool {
        let described = self.bench.coordinator.describe(id);
        described.is_ok_and(|d| d.producer == producer)
    }

    fn is_not_fenced(&self, is_owner: bool, answer: Result<Producer, TxnError>) {
        let fenced = matches!(
            answer,
            Err(TxnError::ProducerFenced | TxnError::InvalidProducerIdMapping)
        );
        assert!(!(is_owner && fenced), "seed {}: an owner", self.seed);
    }

    /// Has some of the decisions carried out; the others are taken again, as after a failed write.
    fn carry_out(&mut self, most: usize) {
        self.bench.log.refuses = false;
        for one in self.bench.coordinator.take_prepared() {
            let producer = one.of.producer;
            // The end that was answered is of the epoch before, by the second version.
            let asked = match one.version {
                2.. => (producer.id, producer.epoch - 1),
                ..2 => (producer.id, producer.epoch),
            };
            if let Some((commit, added)) = self.decided.remove(&asked) {
                assert_eq!(one.commit, commit, "seed {}", self.seed);
                let marked = one.partitions.get("t").cloned().unwrap_or_default();
                let all = added.is_subset(&marked);
                assert!(all, "seed {}: a partition has no marker", self.seed);
            } else {
                assert!(!one.commit, "seed {}: nobody asked for it", self.seed);
            }
            if most > 0 {
                self.bench
                    .step(None, |c, ctx| c.complete(&one, ctx))
                    .unwrap();
            } else {
                self.bench.coordinator = self.bench.replayed();
                self.decided.insert(asked, (one.commit, BTreeSet::new()));
            }
        }
    }

    fn check(&self) {
        let again = self.bench.replayed();
        let live = &self.bench.coordinator;
        assert_eq!(again.list(), live.list(), "seed {}", self.seed);
        assert_eq!(again.bytes(), live.bytes(), "seed {}", self.seed);
        for id in live.ids() {
            let (again, live) = (again.describe(&id), live.describe(&id));
            assert_eq!(again, live, "seed {}", self.seed);
        }
    }
}
