//! Owns one history from its first step to its last: what each step does, and the checks between.
//! Does not know how seeds are chosen or results shown.
//! Invariant: a run is a function of the history and of the steps kept; it ends at the first violation.

use super::clients::{admin, consume, lookup, produce, session, Shared};
use super::damage::{self, Memory};
use super::history::{Flavor, Harm, History, Step, Target};
use super::invariants::recovery::{self, Digest};
use super::invariants::{liveness, Violation};
use super::world::{Counts, World};
use millrace_engine::rt;
use millrace_engine::rt::sim::{Between, CrashPolicy, Sim, SimConfig};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// After this long without requests nothing is on its way any more, nor in memory only.
const QUIET: Duration = Duration::from_millis(400);

/// Lookups by time in each topic whose indexes are damaged.
const LOOKUPS: u32 = 30;

/// How a history ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub violation: Option<Violation>,
    /// The step it was found at, or the number of steps.
    pub step: usize,
    pub counts: Counts,
    pub acked: u64,
    /// Lookups by time that were checked.
    pub looked_up: u64,
    /// Reads that damage made the broker refuse.
    pub refusals: u64,
    /// Virtual time.
    pub virtual_ms: u64,
    /// Depends on everything that happened: the same for the same history.
    pub trace: u64,
}

/// Runs the steps that `keep` says.
///
/// # Panics
/// Where the engine does: an assertion of its own, or a simulation in which nothing can go on.
pub fn run(history: &History, keep: &[bool], narrate: bool) -> Outcome {
    assert_eq!(keep.len(), history.steps.len());
    let us = Duration::from_micros;
    let faults = history.settings.flavor == Flavor::Faults;
    let config = SimConfig {
        reset_ppm: history.settings.reset_ppm,
        slow_ppm: if faults { 20_000 } else { 2_000 },
        sync: Between(
            us(20),
            us(if history.seed.is_multiple_of(3) {
                3_000
            } else {
                300
            }),
        ),
        packet: Between(us(10), us(history.settings.packet_us)),
        polls_max: 40_000_000,
        ..SimConfig::default()
    };
    let sim = Sim::new(history.seed, config);
    let shared = Shared::new(sim.clone(), narrate);
    let mut driver = Driver {
        world: World::new(shared.clone(), history.settings.clone()),
        shared: shared.clone(),
        memory: Memory::new(),
        refusals: 0,
        disk_failed: false,
    };
    let mut step = 0;
    let violation = sim.block_on(async {
        if let Err(violation) = driver.world.start(&[]).await {
            return Some(violation);
        }
        for (n, one) in history.steps.iter().enumerate() {
            step = n;
            if !keep[n] {
                continue;
            }
            shared.tell(|| format!("[{n}] {one}"));
            if let Err(violation) = driver.step(one).await {
                return Some(violation);
            }
        }
        step = history.steps.len();
        driver.last_look().await.err()
    });
    driver.world.kill(CrashPolicy::Process, "the end");
    let (acked, looked_up) = {
        let model = shared.model.borrow();
        (model.acked_batches, model.looked_up)
    };
    Outcome {
        violation,
        step,
        counts: driver.world.counts,
        acked,
        looked_up,
        refusals: driver.refusals,
        virtual_ms: sim.now().as_nanos() / 1_000_000,
        trace: sim.trace(),
    }
}

struct Driver {
    world: World,
    shared: Rc<Shared>,
    memory: Memory,
    refusals: u64,
    /// The disk was told to fail since everything was settled.
    disk_failed: bool,
}

impl Driver {
    async fn step(&mut self, step: &Step) -> Result<(), Violation> {
        let us = Duration::from_micros;
        let shared = self.shared.clone();
        match step {
            Step::CreateTopic(new) => self.administer(admin::create_topic(shared, *new)).await,
            Step::GrowTopic { topic, more } => {
                self.administer(admin::grow_topic(shared, *topic, *more))
                    .await
            }
            Step::DeleteTopic { topic } => {
                self.administer(admin::delete_topic(shared, *topic)).await
            }
            Step::SetTopic { topic, name, value } => {
                self.administer(admin::set_topic(shared, *topic, name, *value))
                    .await
            }
            Step::DeleteRecords {
                topic,
                index,
                percent,
            } => {
                let deleting = admin::delete_records(shared, *topic, *index, *percent);
                self.shared.start(deleting);
                Ok(())
            }
            Step::Produce { producers, work } => {
                for _ in 0..*producers {
                    shared.start(produce::run(shared.clone(), *work));
                }
                Ok(())
            }
            Step::Consume {
                topic,
                readers,
                polls,
                bytes_max,
                session,
            } => {
                let (topic, polls, bytes_max) = (*topic, *polls, *bytes_max);
                for _ in 0..*readers {
                    match session {
                        true => {
                            let follow = session::follow(shared.clone(), topic, polls, bytes_max);
                            shared.start(follow);
                        }
                        false => {
                            let follow = consume::follow(shared.clone(), topic, polls, bytes_max);
                            shared.start(follow);
                        }
                    }
                }
                Ok(())
            }
            Step::LookUp { topic, lookups } => {
                shared.start(lookup::run(shared.clone(), *topic, *lookups));
                Ok(())
            }
            Step::Wait { us: time } => self.world.wait(us(*time)).await,
            Step::Settle => self.settle().await,
            Step::Verify => self.verify().await.map(|_| ()),
            Step::JumpWall { ms } => {
                let mut model = self.shared.model.borrow_mut();
                model.wall_max_ms = model.wall_max_ms.max(rt::wall_ms());
                drop(model);
                self.shared.sim.jump_wall(*ms);
                Ok(())
            }
            Step::SlowDisk {
                extra_us,
                lasting_us,
            } => {
                self.world
                    .disk()
                    .latency_spike(us(*extra_us), us(*lasting_us));
                Ok(())
            }
            Step::FailDisk {
                reads,
                writes,
                syncs,
            } => {
                self.world.troubled = true;
                self.disk_failed = true;
                let disk = self.world.disk();
                disk.fail_next_reads(*reads);
                disk.fail_next_writes(*writes);
                disk.fail_next_syncs(*syncs);
                Ok(())
            }
            Step::FullDisk {
                spare_bytes,
                lasting_us,
            } => {
                self.world.fill_disk(*spare_bytes, us(*lasting_us));
                Ok(())
            }
            Step::CutConnections => {
                let net = self.shared.sim.net();
                net.reset_between(super::clients::CLIENTS, super::world::NODE);
                Ok(())
            }
            Step::Silence { lasting_us } => {
                self.world.silence(us(*lasting_us));
                Ok(())
            }
            Step::Remember => {
                self.memory = damage::remember(&self.world.disk());
                Ok(())
            }
            Step::Crash {
                policy,
                shards,
                again,
            } => {
                self.world.kill(*policy, "a step");
                self.world.shards = *shards;
                self.world.start(again).await
            }
            Step::Stop { shards } => {
                self.world.stop().await?;
                self.world.shards = *shards;
                self.world.start(&[]).await
            }
            Step::Recheck {
                policy,
                shards,
                again,
            } => self.recheck(*policy, *shards, again).await,
            Step::Damage {
                target,
                harm,
                choice,
                live,
                shards,
            } => self.damage(*target, *harm, *choice, *live, *shards).await,
        }
    }

    /// One administrative request at a time: its answer is waited for.
    async fn administer(
        &mut self,
        request: impl std::future::Future<Output = ()> + 'static,
    ) -> Result<(), Violation> {
        let done = Rc::new(RefCell::new(false));
        let end = done.clone();
        self.shared.start(async move {
            request.await;
            *end.borrow_mut() = true;
        });
        let patience = liveness::PATIENCE;
        self.world
            .until("an administrative request has no answer", patience, |_| {
                *done.borrow()
            })
            .await
    }

    /// Faults end, and every client comes to its end.
    async fn settle(&mut self) -> Result<(), Violation> {
        self.world.heal();
        let settled = self
            .world
            .until("", liveness::PATIENCE, Shared::settled)
            .await;
        // What was sent over connections that are gone, or asked for no answer, may still be on its way.
        let settled = match settled {
            Ok(()) => self.world.wait(QUIET).await,
            Err(violation) => Err(violation),
        };
        if settled.is_ok() {
            let mut model = self.shared.model.borrow_mut();
            match std::mem::take(&mut self.disk_failed) {
                // Whatever was acknowledged from memory is on disk now.
                false => model.settle_cached(),
                // A move of the journal to the segments that failed is tried again after a second, longer than it was quiet;
                // until then no file of the journal may be free for what is in memory.
                true => model.forget_cached(),
            }
        }
        settled.map_err(|violation| match violation.what.starts_with(',') {
            true => {
                let left = self.shared.under_way();
                liveness::stuck(&format!("{left} clients have no answer"))
            }
            false => violation,
        })
    }

    /// Reads everything, with nothing under way.
    async fn verify(&mut self) -> Result<Vec<Digest>, Violation> {
        self.settle().await?;
        let topics: Vec<u8> = self.shared.model.borrow().topics.keys().copied().collect();
        for topic in topics {
            if self.shared.below(4) == 0 {
                self.shared
                    .start(session::verify(self.shared.clone(), topic));
            }
        }
        let found: Rc<RefCell<Vec<Digest>>> = Rc::default();
        for place in self.shared.model.borrow().places() {
            self.shared
                .start(consume::verify(self.shared.clone(), place, found.clone()));
        }
        self.settle().await?;
        let mut digests = found.take();
        digests.sort_by_key(|d| d.place);
        Ok(digests)
    }

    async fn recheck(
        &mut self,
        policy: CrashPolicy,
        shards: usize,
        again: &[u64],
    ) -> Result<(), Violation> {
        let before = self.verify().await?;
        self.world.kill(policy, "everything is settled");
        self.world.shards = shards;
        self.world.start(again).await?;
        let after = self.verify().await?;
        for (one, other) in before.iter().zip(&after) {
            let retains = self.shared.model.borrow().retains(one.place);
            recovery::on_recovered(one, other, retains)?;
        }
        if before.len() != after.len() {
            return Err(recovery::refused("partitions are missing"));
        }
        Ok(())
    }

    async fn damage(
        &mut self,
        target: Target,
        harm: Harm,
        choice: u64,
        live: bool,
        shards: usize,
    ) -> Result<(), Violation> {
        self.verify().await?;
        // Idle for long enough that the journal has recorded how far it is flushed: damage above that point looks like
        // a torn tail, to anyone.
        self.world.wait(Duration::from_millis(300)).await?;
        if !live {
            self.world.kill(CrashPolicy::Process, "to be damaged");
        }
        let disk = self.world.disk();
        let Some(done) = damage::inflict(&disk, target, harm, choice, live, &self.memory) else {
            self.shared.tell(|| "nothing to damage".to_string());
            return match live {
                true => Ok(()),
                false => self.world.start(&[]).await,
            };
        };
        self.shared.tell(|| format!("damaged: {}", done.what));
        self.shared.model.borrow_mut().damaged = true;
        if !live {
            self.world.shards = shards;
            if let Err(reason) = self.world.start_once(None).await {
                self.shared
                    .tell(|| format!("the start is refused: {reason}"));
                self.refusals += 1;
                self.world.kill(CrashPolicy::Process, "refused");
                // Refusing has changed nothing: without the damage everything is there.
                done.undo(&disk);
                self.shared.model.borrow_mut().damaged = false;
                self.world.start(&[]).await?;
                self.verify().await?;
                return Ok(());
            }
        }
        if target == Target::Index {
            self.shared.model.borrow_mut().hints_damaged = true;
        }
        self.verify_damaged().await
    }

    async fn verify_damaged(&mut self) -> Result<(), Violation> {
        let refusals: Rc<RefCell<u64>> = Rc::default();
        for place in self.shared.model.borrow().places() {
            let shared = self.shared.clone();
            self.shared
                .start(consume::verify_damaged(shared, place, refusals.clone()));
        }
        if self.shared.model.borrow().hints_damaged {
            let topics: Vec<u8> = self.shared.model.borrow().topics.keys().copied().collect();
            for topic in topics {
                let looking = lookup::run(self.shared.clone(), topic, LOOKUPS);
                self.shared.start(looking);
            }
        }
        self.settle().await?;
        self.refusals += *refusals.borrow();
        Ok(())
    }

    /// What every history ends with, whichever of its steps were kept.
    async fn last_look(&mut self) -> Result<(), Violation> {
        if self.shared.model.borrow().damaged {
            self.world.kill(CrashPolicy::POWER, "after the damage");
            if self.world.start_once(None).await.is_err() {
                return Ok(());
            }
            return self.verify_damaged().await;
        }
        self.verify().await.map(|_| ())
    }
}
