//! Owns long random histories of members that come, take, acknowledge, go and die, and of brokers that crash.
//! Does not know what a single step should do.
//! Invariant checked: no record is with two members, none is lost, none that was acknowledged comes again, and the log
//! alone gives the same.

use super::*;
use crate::coord::random::{random_of, seeds};
use std::collections::BTreeSet;

/// What is known of a record outside of the machine.
#[derive(Clone, Default)]
struct Fate {
    with: Option<(usize, u64)>,
    deliveries: i16,
    /// Accepted or rejected, and that is durable.
    is_done: bool,
}

const MEMBERS: [&str; 3] = ["a", "b", "c"];

struct Shared {
    machine: SharePartition,
    states: ShareStates,
    log: Log,
    fates: Vec<Fate>,
    now_ms: u64,
    seed: u64,
}

impl Shared {
    fn key() -> ShareKey {
        super::share_key(0)
    }

    fn keep(&mut self) {
        if let Some(change) = self.machine.take_change() {
            let write = Write {
                state_epoch: 0,
                leader_epoch: 0,
                start: change.start,
                done: change.done,
                batches: change.batches,
            };
            let written = self.states.write(&Self::key(), &write, 0, &mut self.log);
            written.unwrap();
        }
    }

    fn free(&mut self, which: impl Fn(usize, u64) -> bool) {
        for fate in &mut self.fates {
            if fate.with.is_some_and(|(who, until)| which(who, until)) {
                fate.with = None;
            }
        }
    }

    fn step(&mut self, random: &mut impl FnMut() -> u64) {
        let who = (random() % 3) as usize;
        let seed = self.seed;
        match random() % 10 {
            0..=3 => {
                let Some(first) = self.machine.next_offset() else {
                    return;
                };
                let last = (first + (random() % 8) as i64).min(self.fates.len() as i64 - 1);
                let most = 1 + (random() % 6) as usize;
                let mut count = 0;
                for run in self
                    .machine
                    .acquire(MEMBERS[who], first, last, most, self.now_ms)
                {
                    for offset in run.first..=run.last {
                        let fate = &mut self.fates[offset as usize];
                        assert!(fate.with.is_none(), "seed {seed}: {offset} is with two");
                        assert!(!fate.is_done, "seed {seed}: {offset} was done");
                        fate.deliveries += 1;
                        assert_eq!(run.delivery_count, fate.deliveries, "seed {seed}: {offset}");
                        assert!(
                            run.delivery_count <= CONFIG.delivery_count_max,
                            "seed {seed}"
                        );
                        fate.with = Some((who, self.now_ms + CONFIG.lock_ms));
                        count += 1;
                    }
                }
                assert!(count <= most);
            }
            4..=6 => {
                let had = |(_, fate): &(usize, &Fate)| fate.with.is_some_and(|(w, _)| w == who);
                let all: Vec<usize> = self
                    .fates
                    .iter()
                    .enumerate()
                    .filter(had)
                    .map(|f| f.0)
                    .collect();
                let Some(first) = all.get(random() as usize % all.len().max(1)).copied() else {
                    return;
                };
                let mut last = first;
                while all.contains(&(last + 1)) && !random().is_multiple_of(4) {
                    last += 1;
                }
                let types: Vec<AckType> = (first..=last)
                    .map(|_| AckType::of_code((random() % 5) as i8).unwrap())
                    .collect();
                let batch = ack(first as i64, last as i64, &types);
                let taken = self
                    .machine
                    .acknowledge(MEMBERS[who], &[batch], self.now_ms);
                taken.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                self.keep();
                for (offset, how) in (first..=last).zip(types) {
                    let fate = &mut self.fates[offset];
                    match how {
                        AckType::Accept | AckType::Reject | AckType::Gap => {
                            (fate.with, fate.is_done) = (None, true);
                        }
                        AckType::Release => {
                            fate.with = None;
                            fate.is_done = fate.deliveries >= CONFIG.delivery_count_max;
                        }
                        AckType::Renew => {
                            fate.with = Some((who, self.now_ms + CONFIG.lock_ms));
                        }
                    }
                }
            }
            7 => {
                self.now_ms += random() % 700;
                self.machine.tick(self.now_ms);
                let now_ms = self.now_ms;
                self.free(|_, until| until <= now_ms);
                self.keep();
            }
            8 => {
                self.machine.release(MEMBERS[who]);
                for fate in &mut self.fates {
                    if fate.with.is_some_and(|(w, _)| w == who) {
                        (fate.with, fate.deliveries) = (None, fate.deliveries - 1);
                    }
                }
                self.keep();
            }
            _ => {
                // Somebody else says something of a record that is not with them.
                let at = (random() % self.fates.len() as u64) as usize;
                let theirs = self.fates[at].with.is_some_and(|(w, _)| w == who);
                let before = (at as i64) < self.machine.start();
                if !theirs && !before {
                    let batch = ack(at as i64, at as i64, &[AckType::Accept]);
                    let refused = self
                        .machine
                        .acknowledge(MEMBERS[who], &[batch], self.now_ms);
                    assert_eq!(refused, Err(ShareError::InvalidRecordState), "seed {seed}");
                }
            }
        }
        // Given up after so many deliveries.
        for fate in &mut self.fates {
            let over = fate.deliveries >= CONFIG.delivery_count_max;
            fate.is_done |= fate.with.is_none() && over;
        }
        let first = self.fates.iter().position(|fate| !fate.is_done);
        let first = first.unwrap_or(self.fates.len()) as i64;
        assert!(
            self.machine.start() <= first,
            "seed {seed}: a record was lost"
        );
        let in_flight = self.machine.end() - self.machine.start();
        assert!(in_flight <= CONFIG.in_flight_max, "seed {seed}");
    }

    /// The next machine knows what was kept.
    fn crash(&mut self) {
        let mut states = ShareStates::new(Memory::new(1 << 20));
        for record in &self.log.records {
            states.replay(&record.key, record.value.as_deref()).unwrap();
        }
        let kept = states.read(&Self::key()).unwrap();
        assert_eq!(Some(&kept), self.states.read(&Self::key()).as_ref());
        self.states = states;
        self.machine = SharePartition::new(CONFIG, kept.start, &kept.batches);
        // Deliveries that nobody said anything of are forgotten.
        let mut known = vec![0; self.fates.len()];
        for batch in &kept.batches {
            for offset in batch.first..=batch.last {
                known[offset as usize] = batch.count;
            }
        }
        for (fate, known) in self.fates.iter_mut().zip(known) {
            fate.with = None;
            if !fate.is_done {
                fate.deliveries = known;
            }
        }
    }
}

#[test]
fn partitions() {
    for seed in seeds(100) {
        let mut random = random_of(seed);
        let mut log = Log::default();
        let mut states = ShareStates::new(Memory::new(1 << 20));
        states.initialize(&Shared::key(), 0, 0, &mut log).unwrap();
        let mut shared = Shared {
            machine: SharePartition::new(CONFIG, 0, &[]),
            states,
            log,
            fates: vec![Fate::default(); 60],
            now_ms: 0,
            seed,
        };
        for _ in 0..300 {
            shared.step(&mut random);
            if random().is_multiple_of(40) {
                shared.crash();
            }
            if random().is_multiple_of(60) {
                let begin = shared.log.records.len();
                let keys = shared.states.keys();
                shared.states.rewrite(&keys, 0, &mut shared.log).unwrap();
                shared.log.records.drain(..begin);
            }
        }
        // In the end everything is done, by whoever is left.
        for member in MEMBERS {
            shared.machine.release(member);
        }
        loop {
            let next = shared.machine.next_offset().expect("nobody has anything");
            if next >= shared.fates.len() as i64 {
                break;
            }
            let last = shared.fates.len() as i64 - 1;
            for run in shared.machine.acquire("a", next, last, 1_000, 0) {
                for offset in run.first..=run.last {
                    assert!(
                        !shared.fates[offset as usize].is_done,
                        "seed {seed}: {offset}"
                    );
                }
                let batch = ack(run.first, run.last, &[AckType::Accept]);
                shared.machine.acknowledge("a", &[batch], 0).unwrap();
            }
        }
        assert_eq!(
            shared.machine.start(),
            shared.fates.len() as i64,
            "seed {seed}"
        );
    }
}

#[test]
fn members() {
    for seed in seeds(40) {
        let mut random = random_of(seed + 1_000);
        let mut bench = Bench::new();
        let mut epochs: BTreeMap<&str, i32> = BTreeMap::new();
        for _ in 0..200 {
            bench.log.refuses = random().is_multiple_of(15);
            bench.now_ms += random() % 300;
            bench.step(|groups, ctx| groups.tick(ctx));
            let member = ["a", "b", "c", "d"][(random() % 4) as usize];
            let wanted: &[&str] = match random() % 3 {
                0 => &["t"],
                1 => &["t", "u"],
                _ => &["u", "missing"],
            };
            let heard = match random() % 8 {
                0 => bench.beat(member, -1, None),
                1..=3 => bench.beat(member, 0, Some(wanted)),
                _ => bench.beat(member, epochs.get(member).copied().unwrap_or(1), None),
            };
            match heard {
                Ok(heard) if heard.epoch == -1 => {
                    epochs.remove(member);
                }
                Ok(heard) => {
                    let before = epochs.insert(member, heard.epoch);
                    let back = before.is_some_and(|before| before > heard.epoch);
                    assert!(!back, "seed {seed}: an epoch went back");
                }
                Err(ShareError::UnknownMemberId | ShareError::GroupIdNotFound) => {
                    epochs.remove(member);
                }
                Err(_) => {}
            }
            if random().is_multiple_of(30) && !bench.log.refuses {
                let (begin, ids) = (bench.log.records.len(), bench.groups.group_ids());
                bench.step(|groups, ctx| groups.rewrite(&ids, ctx)).unwrap();
                bench.log.records.drain(..begin);
            }
            let replayed = bench.replayed();
            assert_eq!(
                replayed.describe("g"),
                bench.groups.describe("g"),
                "seed {seed}"
            );
            assert_eq!(
                replayed.states("g"),
                bench.groups.states("g"),
                "seed {seed}"
            );
            assert_eq!(replayed.bytes(), bench.groups.bytes(), "seed {seed}");
            if let Ok(group) = bench.groups.describe("g") {
                let current = group.members.iter().filter(|m| m.epoch == group.epoch);
                if current.clone().count() == group.members.len() && !group.members.is_empty() {
                    // Every partition that somebody wants has somebody.
                    let all = current
                        .clone()
                        .flat_map(|m| m.assignment.values().flatten());
                    let all: BTreeSet<i32> = all.copied().collect();
                    let wants = |name: &str| {
                        group
                            .members
                            .iter()
                            .any(|m| m.topics.iter().any(|t| t == name))
                    };
                    let most = if wants("t") { 3 } else { i32::from(wants("u")) };
                    assert_eq!(all, (0..most).collect(), "seed {seed}");
                }
            }
            if random().is_multiple_of(50) {
                bench.groups = replayed;
            }
        }
    }
}
