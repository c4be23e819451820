//! Owns how a shard's group coordinators are run: their settings, their answers that come later, the markers they see.
//! Does not know how a group works, nor the wire.
//! Invariant: an answer leaves when every record it rests on is durable.

use super::coordinator_log::{now_ms, Logged};
use super::group_topics::{consumer_config, GroupTopics};
use super::slots::{Coordinates, Slot, Slots};
use super::Shard;
use crate::coord::records::RecordError;
use crate::coord::share::ShareGroups;
use crate::coord::{self, Coordinator, Ctx, GroupConfig, GroupError, Memory, Reply, Token};
use crate::error::PartitionError;
use crate::rt::{self, Class, OneReceiver, OneSender};
use crate::types::batch::BatchHeader;
use crate::types::{Offset, PartitionId};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// What a shard's coordinators share.
pub struct Groups {
    slots: Slots<Kinds>,
    /// Whatever else is coordinated is kept within it as well.
    pub(super) memory: Rc<Memory>,
}

/// Who waits for an answer of a coordinator that comes later; nobody once it has ended.
#[derive(Default)]
pub(super) struct Waiting {
    next_token: Cell<Token>,
    senders: RefCell<BTreeMap<Token, OneSender<Reply>>>,
}

impl Waiting {
    /// A token, and what its answer comes by.
    fn wait(&self) -> (Token, OneReceiver<Reply>) {
        let token = self.next_token.get();
        self.next_token.set(token + 1);
        let (sender, receiver) = rt::oneshot();
        self.senders.borrow_mut().insert(token, sender);
        (token, receiver)
    }

    fn answer(&self, replies: Vec<(Token, Reply)>) {
        for (token, reply) in replies {
            if let Some(sender) = self.senders.borrow_mut().remove(&token) {
                // Its connection may have ended.
                let _gone = sender.send(reply);
            }
        }
    }
}

impl Groups {
    pub fn new(memory_bytes_max: usize) -> Groups {
        Groups {
            slots: Slots::default(),
            memory: Memory::new(memory_bytes_max),
        }
    }

    /// See [`Slots::wake`].
    pub fn wake(&self) {
        self.slots.wake();
    }
}

/// All groups of one partition of the groups' topic: of whatever kind, a name belongs to one.
pub(super) struct Kinds {
    pub(super) classic: Coordinator,
    pub(super) share: ShareGroups,
}

impl Coordinates for Kinds {
    const WHAT: &'static str = "groups";
    type Beside = Waiting;
    type Name = String;

    fn slots(shard: &Shard) -> &Slots<Kinds> {
        &shard.groups.slots
    }

    fn empty(shard: &Shard) -> Kinds {
        let memory = || shard.groups.memory.clone();
        Kinds {
            classic: Coordinator::new(shard.group_config().0, memory()),
            share: ShareGroups::new(shard.share_group_config(), memory()),
        }
    }

    fn take(&mut self, header: &BatchHeader, record: Logged) -> Result<(), RecordError> {
        match record {
            Logged::Marker { commit } => {
                self.classic.end_transaction(header.producer_id, commit);
                Ok(())
            }
            Logged::Record { key, value } if header.is_transactional() => {
                let (producer, offset) = (header.producer_id, header.base_offset);
                self.classic
                    .replay_in_transaction(producer, offset, key, value)
            }
            Logged::Record { key, value } => {
                if self.share.replay(key, value, now_ms())? {
                    return Ok(());
                }
                self.classic.replay(key, value, now_ms())
            }
        }
    }

    fn loaded(&mut self) {
        self.classic.loaded();
    }

    fn bytes(&self) -> usize {
        self.classic.bytes() + self.share.bytes()
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        let due = [
            self.classic.next_deadline_ms(),
            self.share.next_deadline_ms(),
        ];
        due.into_iter().flatten().min()
    }

    fn tick(shard: &Rc<Shard>, slot: &Rc<Slot<Kinds>>) {
        let _ready = shard.group_step(slot, |coordinator, ctx| coordinator.tick(ctx));
        let _ready = shard.share_group_step(slot, |kinds, ctx| kinds.share.tick(ctx));
    }

    fn expires_every(shard: &Shard) -> Duration {
        shard.group_config().1
    }

    fn expire(shard: &Rc<Shard>, slot: &Rc<Slot<Kinds>>) {
        let config = shard.share_group_config();
        let _ready = shard.share_group_step(slot, |kinds, _| kinds.share.configure(config));
        let config = shard.group_config().0;
        let _ready = shard.group_step(slot, |coordinator, ctx| {
            coordinator.configure(config);
            coordinator.expire(ctx);
        });
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.classic.group_ids();
        names.extend(self.share.group_ids());
        names
    }

    fn rewrite(
        shard: &Rc<Shard>,
        slot: &Rc<Slot<Kinds>>,
        names: &[String],
    ) -> Option<Result<(), GroupError>> {
        let written = shard.group_step(slot, |coordinator, ctx| coordinator.rewrite(names, ctx))?;
        let shared = shard.share_group_step(slot, |kinds, ctx| kinds.share.rewrite(names, ctx))?;
        // Nothing but the log refuses there.
        Some(written.and(shared.map_err(|_| GroupError::NotAvailable)))
    }

    /// What waits for the end of a transaction is not written anew: only its producer could.
    fn first_needed(&self) -> Option<Offset> {
        self.classic.first_open()
    }

    fn ended(slot: &Slot<Kinds>) {
        slot.beside.senders.borrow_mut().clear();
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
        self.at_slot(id, bytes, |slot| self.group_step(slot, f))
            .await
    }

    /// The same where the answer comes by a token, perhaps much later.
    pub async fn ask_coordinator(
        self: &Rc<Self>,
        id: PartitionId,
        bytes: usize,
        f: impl FnOnce(&mut Coordinator, Token, &mut Ctx),
    ) -> Result<Reply, GroupError> {
        let step = |kinds: &mut Kinds, token, ctx: &mut Ctx| f(&mut kinds.classic, token, ctx);
        self.ask_groups(id, bytes, step).await
    }

    /// The same with the groups of other kinds beside them.
    pub(super) async fn ask_groups(
        self: &Rc<Self>,
        id: PartitionId,
        bytes: usize,
        f: impl FnOnce(&mut Kinds, Token, &mut Ctx),
    ) -> Result<Reply, GroupError> {
        let slot = self.loaded_slot::<Kinds>(id).await?;
        self.room_for_own(bytes).await?;
        let (token, receiver) = slot.beside.wait();
        let step = self.groups_step(&slot, |kinds, ctx| f(kinds, token, ctx));
        if step.is_none() {
            slot.beside.senders.borrow_mut().remove(&token);
        }
        receiver.await.ok_or(GroupError::NotAvailable)
    }

    /// Runs `f` on a coordinator that is loaded, else gives nothing.
    fn group_step<R>(
        self: &Rc<Self>,
        slot: &Rc<Slot<Kinds>>,
        f: impl FnOnce(&mut Coordinator, &mut Ctx) -> R,
    ) -> Option<R> {
        self.groups_step(slot, |kinds, ctx| f(&mut kinds.classic, ctx))
    }

    /// The same with the groups of other kinds beside them.
    pub(super) fn groups_step<R>(
        self: &Rc<Self>,
        slot: &Rc<Slot<Kinds>>,
        f: impl FnOnce(&mut Kinds, &mut Ctx) -> R,
    ) -> Option<R> {
        let mut replies = Vec::new();
        let topics = GroupTopics(self.image.borrow().clone());
        let mut random = || u128::from(rt::random_u64()) << 64 | u128::from(rt::random_u64());
        let result = self.in_slot(slot, |kinds, log| {
            let mut ctx = Ctx {
                now_ms: now_ms(),
                wall_ms: log.wall_ms,
                topics: &topics,
                log,
                random: &mut random,
                replies: &mut replies,
            };
            f(kinds, &mut ctx)
        })?;
        if !replies.is_empty() {
            let (shard, slot) = (self.clone(), slot.clone());
            let sequence = slot.sequence();
            rt::spawn(Class::Network, async move {
                match shard.journal.wait_durable(sequence).await {
                    Ok(()) => slot.beside.answer(replies),
                    // Nothing is durable any more: the process ends.
                    Err(_) => Kinds::ended(&slot),
                }
            });
        }
        Some(result)
    }

    /// See [`Shard::start_slots`].
    pub fn start_coordinators(self: &Rc<Self>) {
        self.start_slots::<Kinds>(coord::GROUP_TOPIC);
        self.start_txn_coordinators();
        self.start_share_states();
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
        match self.loaded_slot::<Kinds>(id).await {
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
        // Where it has gone meanwhile, the next one reads the marker.
        if let Some(slot) = self.groups.slots.of(id) {
            slot.written_beside(sequence);
            let _ready = self.group_step(&slot, |coordinator, _| {
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
        for slot in self.shares.states.all() {
            self.forget_share_states(&slot);
        }
        for slot in self.groups.slots.all() {
            let _loading = self.group_step(&slot, |coordinator, ctx| {
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
}
