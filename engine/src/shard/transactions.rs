//! Owns the transaction coordinators of a shard: one for each partition of the transactions' topic that it owns.
//! Does not know how a transaction goes, nor how its markers are written.
//! Invariant: nobody hears of a state, and no marker is written for one, before every record it rests on is durable.

use super::coordinator_log::{now_ms, Logged};
use super::groups::{LOOK_AGAIN, REWRITE_BYTES_MIN, REWRITE_TIMES};
use super::Shard;
use crate::coord::batch::{self, KeyValue};
use crate::coord::txn::{TxnConfig, TxnCoordinator, TxnCtx, TxnError, TXN_TOPIC};
use crate::coord::{self, Append, GroupError};
use crate::error::PartitionError;
use crate::log::Partition;
use crate::rt::{self, Class, Mono, Notify};
use crate::types::batch::BatchHeader;
use crate::types::PartitionId;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Ids written anew in one step.
const REWRITTEN_TOGETHER_MAX: usize = 16;

/// What a shard's coordinators share.
#[derive(Default)]
pub struct Transactions {
    slots: RefCell<BTreeMap<i32, Rc<TxnSlot>>>,
}

/// One partition's coordinator.
pub(super) struct TxnSlot {
    pub(super) partition: Rc<Partition>,
    state: RefCell<State>,
    /// Notified when it is loaded, or cannot be.
    loaded: Notify,
    /// Notified after each step.
    pub(super) changed: Notify,
    /// Journal sequence of the last record it wrote.
    sequence: Cell<u64>,
    /// Bytes of the log that a start would read.
    written: Cell<u64>,
}

enum State {
    Loading,
    Ready(TxnCoordinator),
    Failed,
}

/// The partition's log for one step of its coordinator.
struct SlotLog<'a> {
    shard: &'a Rc<Shard>,
    slot: &'a TxnSlot,
    wall_ms: i64,
}

impl Append for SlotLog<'_> {
    fn append(&mut self, records: &[KeyValue]) -> Result<(), GroupError> {
        let batch = batch::build(records, self.wall_ms);
        let (id, bytes) = (self.slot.partition.id, batch.len() as u64);
        match self.shard.append_own(id, batch) {
            Ok(accepted) => {
                self.slot.sequence.set(accepted.sequence);
                self.slot.written.set(self.slot.written.get() + bytes);
                Ok(())
            }
            Err(PartitionError::TooLarge { .. }) => Err(GroupError::RecordTooLarge),
            Err(error) => {
                tracing::warn!(partition = %id, %error, "a transaction coordinator cannot write");
                Err(GroupError::NotAvailable)
            }
        }
    }
}

impl Transactions {
    /// The shard stops, or a topic is gone: coordinators look whether that is about them.
    pub fn wake(&self) {
        let slots = self.slots.borrow();
        slots.values().for_each(|slot| slot.changed.notify_all());
    }
}

impl Shard {
    /// The partition of the transactions' topic that a transactional id belongs to.
    ///
    /// # Errors
    /// There is no such topic: nobody has looked for a coordinator yet.
    pub fn txn_partition(&self, transactional_id: &str) -> Result<PartitionId, TxnError> {
        let image = self.image.borrow();
        let topic = image.topic(TXN_TOPIC).ok_or(TxnError::NotAvailable)?;
        let index = coord::partition_of(transactional_id, topic.partitions.len() as i32);
        Ok(PartitionId::new(topic.id, index))
    }

    /// One step of a coordinator that may write so many bytes, and may use up the producer id: `f` runs at once when it is
    /// loaded and there is room. Its result comes when all that it saw is durable.
    pub(super) async fn at_txn_coordinator<R>(
        self: &Rc<Self>,
        id: PartitionId,
        bytes: usize,
        spare_id: Option<i64>,
        f: impl FnOnce(&mut TxnCoordinator, &mut TxnCtx) -> R,
    ) -> Result<R, TxnError> {
        let slot = self.loaded_txn_slot(id).await?;
        self.room_for_own(bytes).await?;
        let result = self.txn_step(&slot, spare_id, f);
        let result = result.ok_or(TxnError::NotAvailable)?;
        self.journal
            .wait_durable(slot.sequence.get())
            .await
            .map_err(|_| TxnError::NotAvailable)?;
        Ok(result)
    }

    /// Runs `f` on a coordinator that is loaded, else gives nothing. What it decided is carried out.
    pub(super) fn txn_step<R>(
        self: &Rc<Self>,
        slot: &Rc<TxnSlot>,
        spare_id: Option<i64>,
        f: impl FnOnce(&mut TxnCoordinator, &mut TxnCtx) -> R,
    ) -> Option<R> {
        let wall_ms = rt::wall_ms();
        let mut log = SlotLog {
            shard: self,
            slot,
            wall_ms,
        };
        let (result, prepared) = {
            let mut state = slot.state.borrow_mut();
            let State::Ready(coordinator) = &mut *state else {
                return None;
            };
            let mut ctx = TxnCtx {
                now_ms: now_ms(),
                wall_ms,
                log: &mut log,
                spare_id,
            };
            let result = f(coordinator, &mut ctx);
            (result, coordinator.take_prepared())
        };
        slot.changed.notify_all();
        for one in prepared {
            let sequence = slot.sequence.get();
            let (shard, slot) = (self.clone(), slot.clone());
            rt::spawn(Class::Network, shard.carry_out(slot, one, sequence));
        }
        Some(result)
    }

    pub(super) async fn loaded_txn_slot(
        self: &Rc<Self>,
        id: PartitionId,
    ) -> Result<Rc<TxnSlot>, TxnError> {
        let slot = self.txn_slot(id)?;
        loop {
            // Asked for first, so that none is missed.
            let loaded = slot.loaded.notified();
            match &*slot.state.borrow() {
                State::Ready(_) if self.stopping.get() => return Err(TxnError::NotAvailable),
                State::Ready(_) => break,
                State::Failed => return Err(TxnError::NotAvailable),
                State::Loading => {}
            }
            loaded.await;
        }
        Ok(slot)
    }

    fn txn_slot(self: &Rc<Self>, id: PartitionId) -> Result<Rc<TxnSlot>, TxnError> {
        let mut slots = self.transactions.slots.borrow_mut();
        if let Some(slot) = slots.get(&id.index) {
            if slot.partition.id == id {
                return Ok(slot.clone());
            }
        }
        let partition = self.partition(id).map_err(|_| TxnError::NotAvailable)?;
        let slot = Rc::new(TxnSlot {
            partition,
            state: RefCell::new(State::Loading),
            loaded: Notify::new(),
            changed: Notify::new(),
            sequence: Cell::new(0),
            written: Cell::new(0),
        });
        slots.insert(id.index, slot.clone());
        let run = self.clone().run_txn_coordinator(slot.clone());
        rt::spawn(Class::Network, run);
        Ok(slot)
    }

    /// Loads the coordinators of all partitions that have records: what was decided goes on, and what takes too long is
    /// aborted, also where nobody asks.
    pub(super) fn start_txn_coordinators(self: &Rc<Self>) {
        for id in self.own_txn_partitions() {
            if self.has_records(id) {
                // The partition is there; what else could be wrong is told when it is loaded.
                let _slot = self.txn_slot(id);
            }
        }
    }

    /// The partitions of the transactions' topic that this shard owns.
    pub(super) fn own_txn_partitions(&self) -> Vec<PartitionId> {
        self.own_partitions(TXN_TOPIC)
    }

    fn txn_config(&self) -> (TxnConfig, Duration) {
        let image = self.image.borrow();
        let said = &image.broker_config;
        let config = TxnConfig {
            timeout_max_ms: said.transaction_max_timeout_ms,
            id_expiration_ms: i64::from(said.transactional_id_expiration_ms),
        };
        let check_ms = said.transaction_remove_expired_cleanup_interval_ms.max(1) as u64;
        (config, Duration::from_millis(check_ms))
    }

    // One coordinator's life -----------------------------------------------------------------------------------------

    async fn run_txn_coordinator(self: Rc<Self>, slot: Rc<TxnSlot>) {
        let state = match self.load_transactions(&slot).await {
            Ok(coordinator) => State::Ready(coordinator),
            Err(error) => {
                tracing::error!(partition = %slot.partition.id, %error,
                    "the transactions of this partition cannot be loaded; the next request tries again");
                State::Failed
            }
        };
        let failed = matches!(state, State::Failed);
        *slot.state.borrow_mut() = state;
        slot.loaded.notify_all();
        if !failed {
            // Whatever was decided before goes on.
            let _ready = self.txn_step(&slot, None, |_, _| ());
            self.run_txn_timers(&slot).await;
        }
        let mut slots = self.transactions.slots.borrow_mut();
        let index = slot.partition.id.index;
        if slots
            .get(&index)
            .is_some_and(|known| Rc::ptr_eq(known, &slot))
        {
            slots.remove(&index);
        }
        *slot.state.borrow_mut() = State::Failed;
        slot.changed.notify_all();
    }

    async fn load_transactions(
        self: &Rc<Self>,
        slot: &TxnSlot,
    ) -> Result<TxnCoordinator, PartitionError> {
        let memory = self.groups.memory.clone();
        let mut coordinator = TxnCoordinator::new(self.txn_config().0, memory);
        let take = |header: &BatchHeader, record: Logged| {
            let (key, value) = match record {
                Logged::Record { key, value } => (key, value),
                // No transaction writes here.
                Logged::Marker { .. } => return,
            };
            if let Err(error) = coordinator.replay(key, value, now_ms(), rt::wall_ms()) {
                // Somebody else wrote it; what is of use is found behind it.
                tracing::warn!(offset = header.base_offset, %error, "a record of a transaction cannot be read");
            }
        };
        let bytes = self.read_own(&slot.partition, take).await?;
        slot.written.set(slot.written.get() + bytes);
        Ok(coordinator)
    }

    /// Does what is due while the partition is there and the shard lives.
    async fn run_txn_timers(self: &Rc<Self>, slot: &Rc<TxnSlot>) {
        let mut expires_at = rt::now() + self.txn_config().1;
        while !self.stopping.get() && !slot.partition.deleted.get() {
            let changed = slot.changed.notified();
            self.rewrite_transactions_if_long(slot).await;
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
            let _ready = self.txn_step(slot, None, |coordinator, ctx| coordinator.tick(ctx));
            if expires_at <= now {
                let (config, every) = self.txn_config();
                expires_at = now + every;
                let _ready = self.txn_step(slot, None, |coordinator, ctx| {
                    coordinator.configure(config);
                    coordinator.expire(ctx);
                });
            }
            rt::yield_if_needed().await;
        }
    }

    /// Where most of the log is about what is not so any more, writes what is once more, and lets go of what was before:
    /// however many transactions there are, the log of a coordinator is bounded by what it knows.
    async fn rewrite_transactions_if_long(self: &Rc<Self>, slot: &Rc<TxnSlot>) {
        let known = match &*slot.state.borrow() {
            State::Ready(coordinator) => coordinator.bytes() as u64,
            State::Loading | State::Failed => return,
        };
        if slot.written.get() < REWRITE_BYTES_MIN.max(REWRITE_TIMES * known) {
            return;
        }
        let before = slot.written.replace(0);
        if let Err(error) = self.rewrite_transactions(slot).await {
            slot.written.set(slot.written.get() + before / 2);
            tracing::warn!(partition = %slot.partition.id, %error, "what is known of transactions cannot be written anew");
        }
    }

    async fn rewrite_transactions(
        self: &Rc<Self>,
        slot: &Rc<TxnSlot>,
    ) -> Result<(), PartitionError> {
        let begin = slot.partition.log.borrow().next_offset;
        let refused = |error: TxnError| PartitionError::Storage(error.to_string());
        // Without a coordinator nothing is known to be written anew, and so nothing of before may go.
        let gone = || refused(TxnError::NotAvailable);
        let ids = self.txn_step(slot, None, |coordinator, _| coordinator.ids());
        for some in ids.ok_or_else(gone)?.chunks(REWRITTEN_TOGETHER_MAX) {
            let room = self.room_for_own(REWRITE_BYTES_MIN as usize / 4).await;
            room.map_err(|error| refused(error.into()))?;
            let written = self.txn_step(slot, None, |coordinator, ctx| {
                coordinator.rewrite(some, ctx)
            });
            written.ok_or_else(gone)?.map_err(refused)?;
            rt::yield_if_needed().await;
        }
        let durable = self.journal.wait_durable(slot.sequence.get()).await;
        durable.map_err(PartitionError::Storage)?;
        slot.partition.release_before(begin).await
    }
}
