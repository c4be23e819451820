//! Owns the simulated node: starting the broker with all its shards, watching it, stopping it, crashing it.
//! Does not know what clients do, nor why it is told to crash.
//! Invariant: a broker that gave up is dead before anything else happens, and starts again as an operator would have it.

use super::clients::{Shared, CLIENTS};
use super::history::Settings;
use super::invariants::{bounds, liveness, recovery, Violation};
use super::wire::address;
use millrace_engine::api::{
    Broker, Counters, EngineConfig, EngineHandle, Mailboxes, OnFatal, SmallParts,
};
use millrace_engine::rt::sim::{CrashPolicy, NodeId, Sim, SimDisk};
use millrace_engine::rt::{self, Class, Joined, Listener, Mono};
use millrace_net::{serve, NetConfig, NetShared};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// Where the broker runs, and whoever drives the history.
pub const NODE: NodeId = NodeId::FIRST;

/// Starts that may fail while faults are about, before that is a violation.
const STARTS_MAX: u32 = 12;

/// Looks between two at the figures: those copy histograms.
const LOOKS_PER_FIGURES: u64 = 16;

/// How long an operator looks on when a broker whose disk failed does not go on.
const OPERATOR: Duration = Duration::from_secs(30);

/// How often the driver looks around: often at first, then seldom, since a long wait is one for timeouts.
const LOOK_MIN: Duration = Duration::from_micros(300);
const LOOK_MAX: Duration = Duration::from_millis(100);

type Started = Rc<RefCell<Option<Result<Broker, String>>>>;

/// Counts that say how much a history did.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    pub starts: u64,
    pub crashes: u64,
    /// Times that a broker gave up by itself.
    pub deaths: u64,
    pub journal_bytes: u64,
    /// Rounds of the journal's ring, in whole rings.
    pub laps: u64,
    pub reads_disk: u64,
}

pub struct World {
    pub sim: Sim,
    pub shared: Rc<Shared>,
    pub settings: Settings,
    pub shards: usize,
    pub counts: Counts,
    brokers: Vec<Broker>,
    engine: Option<EngineHandle>,
    serving: Vec<Joined<()>>,
    died: Arc<AtomicBool>,
    /// When a full disk has room again.
    room_at: Option<Mono>,
    /// When clients and broker hear each other again.
    heard_at: Option<Mono>,
    looks: u64,
    /// Whether the disk failed since the broker started.
    pub troubled: bool,
}

impl World {
    pub fn new(shared: Rc<Shared>, settings: Settings) -> World {
        World {
            sim: shared.sim.clone(),
            shared,
            shards: settings.shards,
            settings,
            counts: Counts::default(),
            brokers: Vec::new(),
            engine: None,
            serving: Vec::new(),
            died: Arc::default(),
            room_at: None,
            heard_at: None,
            looks: 0,
            troubled: false,
        }
    }

    pub fn disk(&self) -> SimDisk {
        self.sim.disk_of(NODE)
    }

    pub fn is_up(&self) -> bool {
        !self.brokers.is_empty()
    }

    fn config(&self) -> EngineConfig {
        let mut config = EngineConfig::new("/data".into());
        config.memory_bytes = 1;
        config.retention_check = Some(Duration::from_millis(self.settings.retention_check_ms));
        config.small = Some(SmallParts {
            journal_file_bytes: self.settings.file_bytes,
            journal_files_max: self.settings.files_max,
            backlog_bytes_max: self.settings.backlog_bytes,
            cache_bytes: self.settings.cache_bytes,
            file_syncs_max: self.settings.file_syncs_max,
        });
        let died = self.died.clone();
        config.on_fatal = OnFatal::new(move |_| died.store(true, Ordering::Relaxed));
        config
    }

    /// Starts the broker. Where that fails it is tried again, as long as the disk may be the reason; `again` are crashes
    /// on the way, each after so many microseconds.
    pub async fn start(&mut self, again: &[u64]) -> Result<(), Violation> {
        let mut again = again.iter();
        let mut failures = 0;
        loop {
            let limit = again.next().map(|us| Duration::from_micros(*us));
            match self.start_once(limit).await {
                Ok(true) => return Ok(()),
                Ok(false) => self.kill(CrashPolicy::POWER, "during recovery"),
                Err(reason) => {
                    self.kill(CrashPolicy::Process, "a start that failed");
                    failures += 1;
                    if !self.troubled || failures > STARTS_MAX {
                        return Err(recovery::refused(&reason));
                    }
                    if failures > STARTS_MAX / 2 {
                        self.heal();
                    }
                    rt::sleep(Duration::from_millis(50)).await;
                    self.make_room();
                }
            }
        }
    }

    /// One start; false where it took longer than `limit`.
    pub async fn start_once(&mut self, limit: Option<Duration>) -> Result<bool, String> {
        assert!(self.brokers.is_empty(), "one broker at a time");
        self.counts.starts += 1;
        self.died.store(false, Ordering::Relaxed);
        let boxes = Mailboxes::new(self.shards);
        let started: Vec<Started> = (0..self.shards).map(|_| Started::default()).collect();
        for (shard, slot) in started.iter().enumerate() {
            let starting = Broker::start(self.config(), shard, boxes.clone());
            let slot = slot.clone();
            rt::spawn(Class::Background, async move {
                let result = starting.await.map_err(|e| e.to_string());
                *slot.borrow_mut() = Some(result);
            });
        }
        let began = rt::now();
        let mut look = LOOK_MIN;
        while started.iter().any(|s| s.borrow().is_none()) {
            let took = rt::now() - began;
            if limit.is_some_and(|limit| took >= limit) {
                return Ok(false);
            }
            if self.died.load(Ordering::Relaxed) {
                return Err("the new journal failed".to_string());
            }
            let failed = started.iter().any(|s| matches!(&*s.borrow(), Some(Err(_))));
            if took >= liveness::PATIENCE || (failed && took >= Duration::from_secs(20)) {
                let why = started.iter().find_map(|s| s.borrow_mut().take()?.err());
                return Err(why.unwrap_or_else(|| "it takes minutes".to_string()));
            }
            self.make_room();
            let left = limit.map_or(look, |limit| look.min(limit - took));
            rt::sleep(left).await;
            look = (look * 2).min(LOOK_MAX);
        }
        let mut brokers = Vec::new();
        for slot in started {
            brokers.push(slot.borrow_mut().take().expect("waited for")?);
        }
        let shared = NetShared::new(self.shards);
        let config = Arc::new(NetConfig::default());
        let listener = Listener::bind(address()).map_err(|e| e.to_string())?;
        for broker in &brokers {
            let handles = listener.try_clone().map_err(|e| e.to_string())?;
            let serving = serve(
                broker.clone(),
                vec![handles],
                config.clone(),
                shared.clone(),
            );
            self.serving.push(rt::spawn_joined(Class::Network, serving));
        }
        self.brokers = brokers;
        self.engine = Some(boxes.handle());
        self.shared
            .tell(|| format!("serving with {} shards", self.shards));
        Ok(true)
    }

    /// The process or the machine dies.
    pub fn kill(&mut self, policy: CrashPolicy, why: &str) {
        self.shared.tell(|| format!("crash ({why}): {policy:?}"));
        self.count();
        self.counts.crashes += 1;
        self.brokers.clear();
        self.serving.clear();
        self.engine = None;
        self.sim.crash_node(NODE, policy);
        self.shared.broker_ended();
    }

    /// Stops as SIGTERM does.
    pub async fn stop(&mut self) -> Result<(), Violation> {
        let Some(engine) = self.engine.take() else {
            return Ok(());
        };
        engine.stop();
        let brokers = std::mem::take(&mut self.brokers);
        let serving = std::mem::take(&mut self.serving);
        let ended: Rc<RefCell<Option<Result<(), String>>>> = Rc::default();
        let end = ended.clone();
        rt::spawn(Class::Background, async move {
            for one in serving {
                one.await;
            }
            let closing: Vec<_> = brokers
                .into_iter()
                .map(|b| rt::spawn_joined(Class::Background, async move { b.close().await }))
                .collect();
            let mut result = Ok(());
            for one in closing {
                result = result.and(one.await.map_err(|e| e.to_string()));
            }
            *end.borrow_mut() = Some(result);
        });
        let began = rt::now();
        let mut look = LOOK_MIN;
        while ended.borrow().is_none() && !self.died.load(Ordering::Relaxed) {
            if rt::now() - began > liveness::PATIENCE {
                return Err(liveness::stuck("the broker does not stop"));
            }
            self.make_room();
            rt::sleep(look).await;
            look = (look * 2).min(LOOK_MAX);
        }
        let failed = matches!(&*ended.borrow(), Some(Err(_)));
        if failed && !self.troubled {
            let why = ended.borrow_mut().take();
            return Err(recovery::refused(&format!("the stop failed: {why:?}")));
        }
        if matches!(&*ended.borrow(), Some(Ok(()))) {
            self.shared.model.borrow_mut().settle_cached();
        }
        // The process ends; what a failed stop left behind is recovered.
        self.kill(CrashPolicy::Process, "the end of a stop");
        Ok(())
    }

    /// Waits until `done`, keeping the broker up: one that gave up is started again.
    pub async fn until(
        &mut self,
        what: &str,
        patience: Duration,
        mut done: impl FnMut(&Shared) -> bool,
    ) -> Result<(), Violation> {
        let began = rt::now();
        let mut look = LOOK_MIN;
        loop {
            if let Some(violation) = self.shared.violation() {
                return Err(violation);
            }
            if self.died.load(Ordering::Relaxed) {
                self.counts.deaths += 1;
                self.kill(CrashPolicy::Process, "it gave up");
                self.start(&[]).await?;
            }
            self.check_bounds()?;
            if done(&self.shared) {
                return Ok(());
            }
            if self.troubled && rt::now() - began > OPERATOR {
                // Metadata that could not be written stays refused until a restart: an operator's part.
                self.kill(CrashPolicy::Process, "the operator restarts it");
                self.heal();
                self.start(&[]).await?;
                self.troubled = false;
            }
            self.make_room();
            if rt::now() - began >= patience {
                return Err(liveness::stuck(what));
            }
            rt::sleep(look).await;
            look = (look * 2).min(LOOK_MAX);
        }
    }

    /// Lets time pass.
    pub async fn wait(&mut self, time: Duration) -> Result<(), Violation> {
        let end = rt::now() + time;
        let mut left = time;
        while !left.is_zero() {
            rt::sleep(left.min(Duration::from_millis(5))).await;
            self.until("nothing", liveness::PATIENCE, |_| true).await?;
            left = end.since(rt::now());
        }
        Ok(())
    }

    fn check_bounds(&mut self) -> Result<(), Violation> {
        self.looks += 1;
        if !self.looks.is_multiple_of(LOOKS_PER_FIGURES) {
            return Ok(());
        }
        for broker in &self.brokers {
            bounds::on_metrics(&self.settings, &broker.metrics())?;
        }
        Ok(())
    }

    /// The disk is full but for `spare` bytes, for a while.
    pub fn fill_disk(&mut self, spare: u64, lasting: Duration) {
        self.troubled = true;
        let disk = self.disk();
        disk.set_capacity(disk.used() + spare);
        self.room_at = Some(rt::now() + lasting);
    }

    /// Nothing passes between clients and broker for a while.
    pub fn silence(&mut self, lasting: Duration) {
        self.sim.net().partition(CLIENTS, NODE);
        self.heard_at = Some(rt::now() + lasting);
    }

    fn make_room(&mut self) {
        if self.heard_at.is_some_and(|at| rt::now() >= at) {
            self.heard_at = None;
            self.sim.net().heal(CLIENTS, NODE);
        }
        if self.room_at.is_some_and(|at| rt::now() >= at) {
            self.room_at = None;
            self.disk().set_capacity(u64::MAX / 2);
        }
    }

    /// Faults end.
    pub fn heal(&mut self) {
        self.room_at = Some(rt::now());
        self.heard_at = self.heard_at.map(|_| rt::now());
        self.make_room();
        self.disk().heal();
    }

    fn count(&mut self) {
        for broker in &self.brokers {
            let metrics = broker.metrics();
            let Counters { reads_disk, .. } = metrics.counters;
            let ring = self.settings.file_bytes * self.settings.files_max as u64;
            self.counts.journal_bytes += metrics.journal.bytes;
            self.counts.laps += metrics.journal.bytes / ring;
            self.counts.reads_disk += reads_disk;
        }
    }
}
