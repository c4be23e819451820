//! Owns the group coordinators of a shard: one for each partition of the groups' topic that it owns.
//! Does not know how a group works, nor the wire.
//! Invariant: nobody hears of a state before every record it rests on is durable.

use super::coordinator_log::{now_ms, Logged};
use super::group_topics::{consumer_config, GroupTopics};
use super::Shard;
use crate::coord::batch::{self, KeyValue};
use crate::coord::txn::Producer;
use crate::coord::{self, Append, Coordinator, Ctx, GroupConfig, GroupError, Memory, Reply, Token};
use crate::error::PartitionError;
use crate::log::Partition;
use crate::rt::{self, Class, Mono, Notify, OneReceiver, OneSender};
use crate::types::batch::BatchHeader;
use crate::types::{Offset, PartitionId};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// What a shard's coordinators share.
pub struct Groups {
    slots: RefCell<BTreeMap<i32, Rc<Slot>>>,
    /// Transactions are kept within it as well.
    pub(super) memory: Rc<Memory>,
}

/// One partition's coordinator.
struct Slot {
    partition: Rc<Partition>,
    state: RefCell<State>,
    /// Notified when it is loaded, or cannot be.
    loaded: Notify,
    /// Notified when something may be due earlier than it was.
    changed: Notify,
    /// Journal sequence of the last record it wrote.
    sequence: Cell<u64>,
    /// Bytes of the log that a start would read.
    written: Cell<u64>,
    next_token: Cell<Token>,
    /// Who waits for an answer that comes later; empty once the coordinator has ended.
    waiting: RefCell<BTreeMap<Token, OneSender<Reply>>>,
}

enum State {
    Loading,
    Ready(Coordinator),
    Failed,
}

/// The partition's log for one step of its coordinator.
struct SlotLog<'a> {
    shard: &'a Rc<Shard>,
    slot: &'a Slot,
    wall_ms: i64,
}

impl SlotLog<'_> {
    /// Gives the offset of the first record.
    fn put(&mut self, batch: Bytes) -> Result<Offset, GroupError> {
        let (id, bytes) = (self.slot.partition.id, batch.len() as u64);
        match self.shard.append_own(id, batch) {
            Ok(accepted) => {
                self.slot.sequence.set(accepted.sequence);
                self.slot.written.set(self.slot.written.get() + bytes);
                Ok(accepted.appended.base_offset)
            }
            Err(PartitionError::TooLarge { .. }) => Err(GroupError::RecordTooLarge),
            Err(error) => {
                tracing::warn!(partition = %id, %error, "a group coordinator cannot write");
                Err(GroupError::NotAvailable)
            }
        }
    }
}

impl Append for SlotLog<'_> {
    fn append(&mut self, records: &[KeyValue]) -> Result<(), GroupError> {
        self.put(batch::build(records, self.wall_ms)).map(|_| ())
    }

    fn append_in_transaction(
        &mut self,
        producer: Producer,
        records: &[KeyValue],
    ) -> Result<Offset, GroupError> {
        self.put(batch::build_of_transaction(records, self.wall_ms, producer))
    }
}

impl Groups {
    pub fn new(memory_bytes_max: usize) -> Groups {
        Groups {
            slots: RefCell::default(),
            memory: Memory::new(memory_bytes_max),
        }
    }

    /// The shard stops, or a topic is gone: coordinators look whether that is about them.
    pub fn wake(&self) {
        let slots = self.slots.borrow();
        slots.values().for_each(|slot| slot.changed.notify_all());
    }
}

impl Slot {
    /// A token, and what its answer comes by.
    fn wait(&self) -> (Token, OneReceiver<Reply>) {
        let token = self.next_token.get();
        self.next_token.set(token + 1);
        let (sender, receiver) = rt::oneshot();
        self.waiting.borrow_mut().insert(token, sender);
        (token, receiver)
    }

    fn answer(&self, replies: Vec<(Token, Reply)>) {
        for (token, reply) in replies {
            if let Some(sender) = self.waiting.borrow_mut().remove(&token) {
                // Its connection may have ended.
                let _gone = sender.send(reply);
            }
        }
    }
}

impl Shard {
    /// The partition of the groups' topic that a group belongs to.
    ///
    /// # Errors
    /// There is no such topic: nobody has looked for a coordinator yet.
    pub fn group_partition(&self, group: &str) -> Result<PartitionId, GroupError> {
        let image = self.image.borrow();
        let topic = image
            .topic(coord::GROUP_TOPIC)
            .ok_or(GroupError::NotAvailable)?;
        let index = coord::partition_of(group, topic.partitions.len() as i32);
        Ok(PartitionId::new(topic.id, index))
    }

    /// One step of a coordinator that may write so many bytes: `f` runs at once when it is loaded and there is room. Its
    /// result comes when all that it saw is durable.
    pub async fn at_coordinator<R>(
        self: &Rc<Self>,
        id: PartitionId,
        bytes: usize,
        f: impl FnOnce(&mut Coordinator, &mut Ctx) -> R,
    ) -> Result<R, GroupError> {
        let slot = self.loaded_slot(id).await?;
        self.room_for_own(bytes).await?;
        let result = self.step(&slot, f).ok_or(GroupError::NotAvailable)?;
        self.journal
            .wait_durable(slot.sequence.get())
            .await
            .map_err(|_| GroupError::NotAvailable)?;
        Ok(result)
    }

    /// The same where the answer comes by a token, perhaps much later.
    pub async fn ask_coordinator(
        self: &Rc<Self>,
        id: PartitionId,
        bytes: usize,
        f: impl FnOnce(&mut Coordinator, Token, &mut Ctx),
    ) -> Result<Reply, GroupError> {
        let slot = self.loaded_slot(id).await?;
        self.room_for_own(bytes).await?;
        let (token, receiver) = slot.wait();
        if self
            .step(&slot, |coordinator, ctx| f(coordinator, token, ctx))
            .is_none()
        {
            slot.waiting.borrow_mut().remove(&token);
        }
        receiver.await.ok_or(GroupError::NotAvailable)
    }

    /// Runs `f` on a coordinator that is loaded, else gives nothing.
    fn step<R>(
        self: &Rc<Self>,
        slot: &Rc<Slot>,
        f: impl FnOnce(&mut Coordinator, &mut Ctx) -> R,
    ) -> Option<R> {
        let mut replies = Vec::new();
        let wall_ms = rt::wall_ms();
        let mut log = SlotLog {
            shard: self,
            slot,
            wall_ms,
        };
        let topics = GroupTopics(self.image.borrow().clone());
        let mut random = || u128::from(rt::random_u64()) << 64 | u128::from(rt::random_u64());
        let result = {
            let mut state = slot.state.borrow_mut();
            let State::Ready(coordinator) = &mut *state else {
                return None;
            };
            let mut ctx = Ctx {
                now_ms: now_ms(),
                wall_ms,
                topics: &topics,
                log: &mut log,
                random: &mut random,
                replies: &mut replies,
            };
            f(coordinator, &mut ctx)
        };
        slot.changed.notify_all();
        if !replies.is_empty() {
            let (shard, slot) = (self.clone(), slot.clone());
            let sequence = slot.sequence.get();
            rt::spawn(Class::Network, async move {
                match shard.journal.wait_durable(sequence).await {
                    Ok(()) => slot.answer(replies),
                    // Nothing is durable any more: the process ends.
                    Err(_) => slot.waiting.borrow_mut().clear(),
                }
            });
        }
        Some(result)
    }

    /// Waits until there is room for records of the broker's own; none is needed for nothing.
    pub(super) async fn room_for_own(&self, bytes: usize) -> Result<(), GroupError> {
        if bytes == 0 {
            return Ok(());
        }
        loop {
            if self.stopping.get() || self.journal.failed() || self.refusal().is_some() {
                return Err(GroupError::NotAvailable);
            }
            let progressed = self.journal.progressed.notified();
            if self.journal_has_room() && self.space.take(bytes as u64) {
                return Ok(());
            }
            progressed.await;
        }
    }

    async fn loaded_slot(self: &Rc<Self>, id: PartitionId) -> Result<Rc<Slot>, GroupError> {
        let slot = self.slot(id)?;
        loop {
            // Asked for first, so that none is missed.
            let loaded = slot.loaded.notified();
            match &*slot.state.borrow() {
                State::Ready(_) if self.stopping.get() => return Err(GroupError::NotAvailable),
                State::Ready(_) => break,
                State::Failed => return Err(GroupError::NotAvailable),
                State::Loading => {}
            }
            loaded.await;
        }
        Ok(slot)
    }

    fn slot(self: &Rc<Self>, id: PartitionId) -> Result<Rc<Slot>, GroupError> {
        let mut slots = self.groups.slots.borrow_mut();
        if let Some(slot) = slots.get(&id.index) {
            if slot.partition.id == id {
                return Ok(slot.clone());
            }
        }
        let partition = self.partition(id).map_err(|_| GroupError::NotAvailable)?;
        let slot = Rc::new(Slot {
            partition,
            state: RefCell::new(State::Loading),
            loaded: Notify::new(),
            changed: Notify::new(),
            sequence: Cell::new(0),
            written: Cell::new(0),
            next_token: Cell::new(0),
            waiting: RefCell::default(),
        });
        slots.insert(id.index, slot.clone());
        rt::spawn(Class::Network, self.clone().run_coordinator(slot.clone()));
        Ok(slot)
    }

    /// Loads the coordinators of all partitions that have records: what members are silent and which offsets are old
    /// has to be noticed also where nobody asks.
    pub fn start_coordinators(self: &Rc<Self>) {
        for id in self.own_group_partitions() {
            if self.has_records(id) {
                // The partition is there; what else could be wrong is told when it is loaded.
                let _slot = self.slot(id);
            }
        }
        self.start_txn_coordinators();
    }

    /// The partitions of the groups' topic that this shard owns.
    pub fn own_group_partitions(&self) -> Vec<PartitionId> {
        self.own_partitions(coord::GROUP_TOPIC)
    }

    /// Waits until a marker can be written to a partition of the groups' topic: its coordinator has to see it.
    pub(super) async fn ready_for_marker(
        self: &Rc<Self>,
        id: PartitionId,
    ) -> Result<(), PartitionError> {
        if !self.is_group_partition(id) {
            return Ok(());
        }
        match self.loaded_slot(id).await {
            Ok(_) => Ok(()),
            Err(_) if self.stopping.get() => Err(PartitionError::Stopping),
            Err(error) => Err(PartitionError::Storage(error.to_string())),
        }
    }

    /// A marker has just been appended. To be called in the same step, and after [`Shard::ready_for_marker`].
    pub(super) fn marker_appended(
        self: &Rc<Self>,
        id: PartitionId,
        producer_id: i64,
        commit: bool,
        sequence: u64,
    ) {
        if !self.is_group_partition(id) {
            return;
        }
        let slot = self.groups.slots.borrow().get(&id.index).cloned();
        // Where it has gone meanwhile, the next one reads the marker.
        if let Some(slot) = slot.filter(|slot| slot.partition.id == id) {
            slot.sequence.set(slot.sequence.get().max(sequence));
            let _ready = self.step(&slot, |coordinator, _| {
                coordinator.end_transaction(producer_id, commit)
            });
        }
    }

    fn is_group_partition(&self, id: PartitionId) -> bool {
        let image = self.image.borrow();
        let topic = image.topic(coord::GROUP_TOPIC);
        topic.is_some_and(|topic| topic.id == id.topic)
    }

    /// Offsets of deleted topics mean nothing any more.
    pub fn forget_topics(self: &Rc<Self>, gone: BTreeSet<String>) {
        let slots: Vec<Rc<Slot>> = self.groups.slots.borrow().values().cloned().collect();
        for slot in slots {
            let _loading = self.step(&slot, |coordinator, ctx| {
                coordinator.forget_topics(&gone, ctx)
            });
        }
    }

    fn group_config(&self) -> (GroupConfig, Duration) {
        let image = self.image.borrow();
        let said = &image.broker_config;
        let config = GroupConfig {
            initial_rebalance_delay_ms: said.group_initial_rebalance_delay_ms.max(0) as u64,
            session_timeout_min_ms: said.group_min_session_timeout_ms,
            session_timeout_max_ms: said.group_max_session_timeout_ms,
            offset_metadata_bytes_max: said.offset_metadata_max_bytes.max(0) as usize,
            offsets_retention_ms: i64::from(said.offsets_retention_minutes) * 60_000,
            consumer: consumer_config(said),
        };
        let check_ms = said.offsets_retention_check_interval_ms.max(1) as u64;
        (config, Duration::from_millis(check_ms))
    }

    // One coordinator's life -----------------------------------------------------------------------------------------

    async fn run_coordinator(self: Rc<Self>, slot: Rc<Slot>) {
        let state = match self.load(&slot).await {
            Ok(coordinator) => State::Ready(coordinator),
            Err(error) => {
                tracing::error!(partition = %slot.partition.id, %error,
                    "the groups of this partition cannot be loaded; the next request tries again");
                State::Failed
            }
        };
        let failed = matches!(state, State::Failed);
        *slot.state.borrow_mut() = state;
        slot.loaded.notify_all();
        if !failed {
            self.run_timers(&slot).await;
        }
        let mut slots = self.groups.slots.borrow_mut();
        let index = slot.partition.id.index;
        if slots
            .get(&index)
            .is_some_and(|known| Rc::ptr_eq(known, &slot))
        {
            slots.remove(&index);
        }
        *slot.state.borrow_mut() = State::Failed;
        slot.waiting.borrow_mut().clear();
    }

    /// Reads the partition from its start to its end.
    async fn load(self: &Rc<Self>, slot: &Slot) -> Result<Coordinator, PartitionError> {
        let mut coordinator = Coordinator::new(self.group_config().0, self.groups.memory.clone());
        let take = |header: &BatchHeader, record: Logged| {
            let read = match record {
                Logged::Marker { commit } => {
                    coordinator.end_transaction(header.producer_id, commit);
                    Ok(())
                }
                Logged::Record { key, value } if header.is_transactional() => {
                    let (producer, offset) = (header.producer_id, header.base_offset);
                    coordinator.replay_in_transaction(producer, offset, key, value)
                }
                Logged::Record { key, value } => coordinator.replay(key, value, now_ms()),
            };
            if let Err(error) = read {
                // Somebody else wrote it; what is of use is found behind it.
                tracing::warn!(offset = header.base_offset, %error, "a record of a group cannot be read");
            }
        };
        let bytes = self.read_own(&slot.partition, take).await?;
        slot.written.set(slot.written.get() + bytes);
        coordinator.loaded();
        Ok(coordinator)
    }

    /// Does what is due while the partition is there and the shard lives.
    async fn run_timers(self: &Rc<Self>, slot: &Rc<Slot>) {
        let mut expires_at = rt::now() + self.group_config().1;
        while !self.stopping.get() && !slot.partition.deleted.get() {
            let changed = slot.changed.notified();
            self.rewrite_if_long(slot).await;
            let due = match &*slot.state.borrow() {
                State::Ready(coordinator) => coordinator.next_deadline_ms(),
                State::Loading | State::Failed => None,
            };
            let due = due.map_or(Mono::MAX, |ms| Mono(ms.saturating_mul(1_000_000)));
            let now = rt::now();
            let wait = due.min(expires_at).since(now);
            if !wait.is_zero() {
                // Also to see that the partition is gone.
                let _sooner = rt::timeout(wait.min(LOOK_AGAIN), changed).await;
                continue;
            }
            let _ready = self.step(slot, |coordinator, ctx| coordinator.tick(ctx));
            if expires_at <= now {
                let (config, every) = self.group_config();
                expires_at = now + every;
                let _ready = self.step(slot, |coordinator, ctx| {
                    coordinator.configure(config);
                    coordinator.expire(ctx);
                });
            }
            rt::yield_if_needed().await;
        }
    }

    /// Where most of the log is about what is not so any more, writes what is once more, and lets go of what was before:
    /// whatever is committed how often, the log of a coordinator is bounded by what it knows.
    async fn rewrite_if_long(self: &Rc<Self>, slot: &Rc<Slot>) {
        let known = match &*slot.state.borrow() {
            State::Ready(coordinator) => coordinator.bytes() as u64,
            State::Loading | State::Failed => return,
        };
        if slot.written.get() < REWRITE_BYTES_MIN.max(REWRITE_TIMES * known) {
            return;
        }
        let before = slot.written.replace(0);
        if let Err(error) = self.rewrite(slot).await {
            slot.written.set(slot.written.get() + before / 2);
            tracing::warn!(partition = %slot.partition.id, %error, "what is known of groups cannot be written anew");
        }
    }

    async fn rewrite(self: &Rc<Self>, slot: &Rc<Slot>) -> Result<(), PartitionError> {
        let begin = slot.partition.log.borrow().next_offset;
        let refused = |error: GroupError| PartitionError::Storage(error.to_string());
        // Without a coordinator nothing is known to be written anew, and so nothing of before may go.
        let gone = || refused(GroupError::NotAvailable);
        let ids = self.step(slot, |coordinator, _| coordinator.group_ids());
        for some in ids.ok_or_else(gone)?.chunks(REWRITTEN_TOGETHER_MAX) {
            let room = self.room_for_own(REWRITE_BYTES_MIN as usize / 4).await;
            room.map_err(refused)?;
            let written = self.step(slot, |coordinator, ctx| coordinator.rewrite(some, ctx));
            written.ok_or_else(gone)?.map_err(refused)?;
            rt::yield_if_needed().await;
        }
        let durable = self.journal.wait_durable(slot.sequence.get()).await;
        durable.map_err(PartitionError::Storage)?;
        // What waits for the end of a transaction is not written anew: only its producer could.
        let open = self.step(slot, |coordinator, _| coordinator.first_open());
        let open = open.ok_or_else(gone)?;
        let begin = open.map_or(begin, |open| open.min(begin));
        slot.partition.release_before(begin).await
    }
}

/// A log of a coordinator is written anew when it is at least so long, and so many times what it says.
pub(super) const REWRITE_BYTES_MIN: u64 = 4 << 20;
pub(super) const REWRITE_TIMES: u64 = 4;

/// Groups written anew in one step.
const REWRITTEN_TOGETHER_MAX: usize = 16;

/// How long a coordinator with nothing to do sleeps at the most.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(60);
