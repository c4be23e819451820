//! Owns the share-partitions that a shard has loaded, of partitions that it owns: their life, and that what changes is kept.
//! Does not know which records go to whom (the machine does), nor how they are read.
//! Invariant: nobody hears of a change before it is durable; what cannot be made durable is forgotten with the machine.

use super::coordinator_log::now_ms;
use super::slots::Slots;
use super::Shard;
use crate::api::OffsetSpec;
use crate::coord::share::records::ShareKey;
use crate::coord::share::states::Write;
use crate::coord::share::{ShareAck, ShareConfig, ShareError, SharePartition, ShareStates};
use crate::log::Partition;
use crate::meta::config::AutoOffsetReset;
use crate::rt::{self, Class, Mono, Notify, Semaphore};
use crate::types::limits::SHARE_PARTITIONS_LOADED_MAX;
use crate::types::{Offset, PartitionId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// How long a share-partition that nobody uses stays loaded, and how often that is looked at.
const IDLE: Duration = Duration::from_secs(600);
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What a shard knows of share groups.
#[derive(Default)]
pub(super) struct Shares {
    pub(super) states: Slots<ShareStates>,
    loaded: RefCell<BTreeMap<ShareKey, Rc<Shared>>>,
}

impl Shares {
    /// The shard stops, or a topic is gone: whoever waits looks whether that is about them.
    pub(super) fn wake(&self) {
        self.states.wake();
        let loaded = self.loaded.borrow();
        loaded.values().for_each(|shared| shared.wake());
    }
}

/// One share-partition.
pub(super) struct Shared {
    pub(super) key: ShareKey,
    pub(super) partition: Rc<Partition>,
    state: RefCell<State>,
    /// Notified when it is loaded, or cannot be.
    loaded: Notify,
    /// Notified when something may be due earlier than it was.
    changed: Notify,
    /// Who waits for records, and is notified when some are given back.
    parked: RefCell<Vec<Rc<Notify>>>,
    /// Held by whoever reads in order to acquire: two would read the same.
    pub(super) reading: Semaphore,
    /// Changes made, and how many of them are durable.
    made: Cell<u64>,
    kept: Cell<u64>,
    keeping: Cell<bool>,
    /// Notified when changes became durable, or cannot.
    progressed: Notify,
    used: Cell<Mono>,
    weight: Cell<usize>,
}

enum State {
    Loading,
    Ready { machine: SharePartition, epoch: i32 },
    Gone(ShareError),
}

impl Shared {
    fn wake(&self) {
        self.changed.notify_all();
        self.parked.borrow().iter().for_each(|w| w.notify_all());
    }

    pub(super) fn park(&self, waiter: &Rc<Notify>) {
        self.parked.borrow_mut().push(waiter.clone());
    }

    pub(super) fn unpark(&self, waiter: &Rc<Notify>) {
        let mut parked = self.parked.borrow_mut();
        parked.retain(|w| !Rc::ptr_eq(w, waiter));
    }

    /// Looks at the machine, if there is one.
    pub(super) fn look<R>(&self, f: impl FnOnce(&SharePartition) -> R) -> Option<R> {
        match &*self.state.borrow() {
            State::Ready { machine, .. } => Some(f(machine)),
            State::Loading | State::Gone(_) => None,
        }
    }
}

impl Shard {
    /// A share-partition of this shard, loaded.
    pub(super) async fn shared(
        self: &Rc<Self>,
        group: &str,
        id: PartitionId,
    ) -> Result<Rc<Shared>, ShareError> {
        let shared = self.shared_or_loading(group, id)?;
        loop {
            // Asked for first, so that none is missed.
            let loaded = shared.loaded.notified();
            match &*shared.state.borrow() {
                State::Ready { .. } if self.stopping.get() => return Err(ShareError::NotAvailable),
                State::Ready { .. } => break,
                State::Gone(why) => return Err(why.clone()),
                State::Loading => {}
            }
            loaded.await;
        }
        shared.used.set(rt::now());
        Ok(shared)
    }

    fn shared_or_loading(
        self: &Rc<Self>,
        group: &str,
        id: PartitionId,
    ) -> Result<Rc<Shared>, ShareError> {
        let group = group.to_string();
        let key = ShareKey {
            group,
            partition: id,
        };
        let mut all = self.shares.loaded.borrow_mut();
        if let Some(shared) = all.get(&key) {
            return Ok(shared.clone());
        }
        if all.len() >= SHARE_PARTITIONS_LOADED_MAX || self.groups.memory.is_full() {
            return Err(ShareError::NotAvailable);
        }
        let unknown = |_| ShareError::UnknownTopicOrPartition;
        let partition = self.partition(id).map_err(unknown)?;
        let shared = Rc::new(Shared {
            key: key.clone(),
            partition,
            state: RefCell::new(State::Loading),
            loaded: Notify::new(),
            changed: Notify::new(),
            parked: RefCell::default(),
            reading: Semaphore::new(1),
            made: Cell::new(0),
            kept: Cell::new(0),
            keeping: Cell::new(false),
            progressed: Notify::new(),
            used: Cell::new(rt::now()),
            weight: Cell::new(0),
        });
        all.insert(key, shared.clone());
        rt::spawn(Class::Network, self.clone().run_shared(shared.clone()));
        Ok(shared)
    }

    /// The one that is loaded, if any is.
    fn shared_if_loaded(&self, key: &ShareKey) -> Option<Rc<Shared>> {
        self.shares.loaded.borrow().get(key).cloned()
    }

    fn share_config(&self, group: &str) -> ShareConfig {
        let image = self.image.borrow();
        let said = &image.broker_config;
        let of_group = image.group_config(group);
        let lock_ms = of_group.share_record_lock_duration_ms;
        let lock_ms = lock_ms.unwrap_or(said.group_share_record_lock_duration_ms);
        ShareConfig {
            lock_ms: lock_ms.max(1) as u64,
            delivery_count_max: said.group_share_delivery_count_limit as i16,
            in_flight_max: i64::from(said.group_share_partition_max_record_locks),
        }
    }

    /// For how long records are a member's; milliseconds.
    pub fn share_lock_ms(&self, group: &str) -> i32 {
        i32::try_from(self.share_config(group).lock_ms).unwrap_or(i32::MAX)
    }

    pub(super) fn share_reads_committed(&self, group: &str) -> bool {
        self.image.borrow().group_config(group).share_read_committed
    }

    /// One step of a share-partition. What it changed is being kept from then on; the number is for [`Shard::kept`].
    pub(super) fn share_step<R>(
        self: &Rc<Self>,
        shared: &Rc<Shared>,
        f: impl FnOnce(&mut SharePartition) -> R,
    ) -> Result<(R, u64), ShareError> {
        let config = self.share_config(&shared.key.group);
        let (result, changed, weight) = match &mut *shared.state.borrow_mut() {
            State::Ready { machine, .. } => {
                machine.configure(config);
                let result = f(machine);
                (result, machine.is_changed(), machine.bytes())
            }
            State::Gone(why) => return Err(why.clone()),
            State::Loading => return Err(ShareError::NotAvailable),
        };
        self.groups
            .memory
            .replace(shared.weight.replace(weight), weight);
        if changed {
            shared.made.set(shared.made.get() + 1);
            if !shared.keeping.replace(true) {
                rt::spawn(Class::Network, self.clone().keep(shared.clone()));
            }
            shared.wake();
        }
        // A lock may end before what was due first.
        shared.changed.notify_all();
        Ok((result, shared.made.get()))
    }

    /// Waits until so many changes are durable.
    pub(super) async fn kept(&self, shared: &Shared, changes: u64) -> Result<(), ShareError> {
        loop {
            let progressed = shared.progressed.notified();
            if shared.kept.get() >= changes {
                return Ok(());
            }
            if let State::Gone(why) = &*shared.state.borrow() {
                return Err(why.clone());
            }
            progressed.await;
        }
    }

    /// Keeps what has changed, one write after the other: what changes meanwhile goes with the next.
    async fn keep(self: Rc<Self>, shared: Rc<Shared>) {
        loop {
            let made = shared.made.get();
            let write = match &mut *shared.state.borrow_mut() {
                State::Ready { machine, epoch } => machine.take_change().map(|change| Write {
                    state_epoch: *epoch,
                    leader_epoch: shared.partition.leader_epoch(),
                    start: change.start,
                    done: change.done,
                    batches: change.batches,
                }),
                State::Loading | State::Gone(_) => None,
            };
            let Some(write) = write else { break };
            match self.write_share_state(&shared.key, write).await {
                Ok(()) => {
                    shared.kept.set(made);
                    shared.progressed.notify_all();
                }
                Err(error) => {
                    if !self.stopping.get() {
                        tracing::warn!(key = %shared.key, %error, "the state of a share group cannot be kept");
                    }
                    self.drop_shared(&shared, error);
                    break;
                }
            }
        }
        shared.keeping.set(false);
        shared.progressed.notify_all();
    }

    /// Nobody uses this one any more; the next who asks loads another.
    fn drop_shared(&self, shared: &Rc<Shared>, why: ShareError) {
        let mut all = self.shares.loaded.borrow_mut();
        let known = all.get(&shared.key);
        if known.is_some_and(|known| Rc::ptr_eq(known, shared)) {
            all.remove(&shared.key);
        }
        drop(all);
        *shared.state.borrow_mut() = State::Gone(why);
        self.groups.memory.replace(shared.weight.replace(0), 0);
        shared.loaded.notify_all();
        shared.progressed.notify_all();
        shared.wake();
    }

    // One share-partition's life -------------------------------------------------------------------------------------

    async fn run_shared(self: Rc<Self>, shared: Rc<Shared>) {
        match self.load_shared(&shared).await {
            Ok((machine, epoch)) => {
                // Whoever dropped it meanwhile wants another one.
                let mut state = shared.state.borrow_mut();
                if matches!(*state, State::Loading) {
                    *state = State::Ready { machine, epoch };
                }
            }
            Err(error) => {
                if !self.stopping.get() {
                    tracing::warn!(key = %shared.key, %error, "the state of a share group cannot be loaded; the next request tries again");
                }
                return self.drop_shared(&shared, error);
            }
        }
        shared.loaded.notify_all();
        loop {
            let changed = shared.changed.notified();
            let Some((due, in_use)) = shared.look(|m| (m.next_deadline_ms(), m.is_in_use())) else {
                return;
            };
            let is_over = self.stopping.get() || shared.partition.deleted.get();
            let idle = rt::now().since(shared.used.get()) >= IDLE;
            let is_kept = shared.kept.get() == shared.made.get() && !shared.keeping.get();
            if is_over || (idle && !in_use && is_kept && shared.parked.borrow().is_empty()) {
                return self.drop_shared(&shared, ShareError::NotAvailable);
            }
            let due = due.map_or(Mono::MAX, |ms| Mono(ms.saturating_mul(1_000_000)));
            let wait = due.since(rt::now()).min(LOOK_AGAIN);
            if !wait.is_zero() {
                let _sooner = rt::timeout(wait, changed).await;
                continue;
            }
            if self.share_step(&shared, |m| m.tick(now_ms())).is_err() {
                return;
            }
            rt::yield_if_needed().await;
        }
    }

    async fn load_shared(
        self: &Rc<Self>,
        shared: &Shared,
    ) -> Result<(SharePartition, i32), ShareError> {
        let key = &shared.key;
        let kept = self.read_share_state(key).await?;
        let (start, epoch, batches) = match kept {
            Some(kept) if kept.start >= 0 => (kept.start, kept.state_epoch, kept.batches),
            Some(_) | None => {
                let start = self.share_begins(shared).await?;
                // Said before anything is given: what comes from here on is not lost, whatever happens.
                (start, self.begin_share_state(key, start).await?, Vec::new())
            }
        };
        let config = self.share_config(&key.group);
        Ok((SharePartition::new(config, start, &batches), epoch))
    }

    /// Where a group begins to read a partition that it has not read yet.
    async fn share_begins(self: &Rc<Self>, shared: &Shared) -> Result<Offset, ShareError> {
        let group = &shared.key.group;
        let reset = self
            .image
            .borrow()
            .group_config(group)
            .share_auto_offset_reset;
        let (bounds, _) = shared.partition.bounds(false);
        match reset {
            AutoOffsetReset::Earliest => Ok(bounds.log_start),
            AutoOffsetReset::Latest => Ok(bounds.high_watermark),
            AutoOffsetReset::ByDuration { ms } => {
                let at = OffsetSpec::At {
                    timestamp_ms: rt::wall_ms().saturating_sub(ms),
                    read_committed: false,
                };
                let found = self.list_offset(shared.key.partition, -1, at).await;
                match found.map_err(ShareError::Partition)?.offset {
                    -1 => Ok(bounds.high_watermark),
                    offset => Ok(offset),
                }
            }
        }
    }

    // Taking back, moving, forgetting --------------------------------------------------------------------------------

    /// Takes acknowledgements of partitions of this shard; the results are in their order.
    pub(super) async fn share_acknowledge_here(
        self: &Rc<Self>,
        group: &str,
        member: &str,
        acks: Vec<ShareAck>,
    ) -> Vec<Result<(), ShareError>> {
        let mut steps = Vec::with_capacity(acks.len());
        for ack in acks {
            let step = match self.shared(group, ack.partition).await {
                Ok(shared) => self
                    .share_step(&shared, |m| m.acknowledge(member, &ack.batches, now_ms()))
                    .and_then(|(taken, changes)| taken.map(|()| (shared, changes))),
                Err(error) => Err(error),
            };
            steps.push(step);
        }
        let mut results = Vec::with_capacity(steps.len());
        for step in steps {
            results.push(match step {
                Ok((shared, changes)) => self.kept(&shared, changes).await,
                Err(error) => Err(error),
            });
        }
        results
    }

    /// A member is gone: what it has of partitions of this shard is anybody's again.
    pub(super) fn share_release_here(
        self: &Rc<Self>,
        group: &str,
        member: &str,
        ids: &[PartitionId],
    ) {
        for id in ids {
            let key = ShareKey {
                group: group.to_string(),
                partition: *id,
            };
            if let Some(shared) = self.shared_if_loaded(&key) {
                // Where it is not loaded, nobody has anything of it.
                let _loading = self.share_step(&shared, |m| m.release(member));
            }
        }
    }

    /// Has a group begin anew at an offset of a partition of this shard (None: forgets it).
    pub(super) async fn share_reset_here(
        self: &Rc<Self>,
        key: ShareKey,
        start: Option<Offset>,
    ) -> Result<(), ShareError> {
        if let Some(shared) = self.shared_if_loaded(&key) {
            self.drop_shared(&shared, ShareError::FencedStateEpoch);
            // What is being written is written before what is said now.
            while shared.keeping.get() {
                let progressed = shared.progressed.notified();
                if shared.keeping.get() {
                    progressed.await;
                }
            }
        }
        match start {
            Some(start) => self.begin_share_state(&key, start).await.map(|_| ()),
            None => self.delete_share_state(&key).await,
        }
    }
}
