//! Owns the coordinators of a shard, whatever they coordinate: one in a slot for each partition of their topic that the
//! shard owns. Loads them, runs their timers, bounds their logs.
//! Does not know what a coordinator does, nor the wire.
//! Invariant: nobody hears of a state before every record it rests on is durable.

use super::coordinator_log::Logged;
use super::Shard;
use crate::coord::batch::{self, KeyValue};
use crate::coord::records::RecordError;
use crate::coord::txn::Producer;
use crate::coord::{Append, GroupError};
use crate::error::PartitionError;
use crate::log::Partition;
use crate::rt::{self, Class, Mono, Notify};
use crate::types::batch::BatchHeader;
use crate::types::{Offset, PartitionId};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// A log of a coordinator is written anew when it is at least so long, and so many times what it says.
const REWRITE_BYTES_MIN: u64 = 4 << 20;
const REWRITE_TIMES: u64 = 4;

/// Things written anew in one step.
const REWRITTEN_TOGETHER_MAX: usize = 16;

/// How long a coordinator with nothing to do sleeps at the most.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// A kind of coordinator: a machine that a log says all of, and what a slot has to know to run it.
pub(super) trait Coordinates: Sized + 'static {
    /// What it coordinates, as a message to the operator names it.
    const WHAT: &'static str;
    /// What its slots have beside it.
    type Beside: Default;
    /// What names a thing that it coordinates.
    type Name;

    fn slots(shard: &Shard) -> &Slots<Self>;

    /// One that knows nothing yet.
    fn empty(shard: &Shard) -> Self;

    /// Takes a record of the log, live as on recovery.
    ///
    /// # Errors
    /// It is none that belongs there; nothing changed.
    fn take(&mut self, header: &BatchHeader, record: Logged) -> Result<(), RecordError>;

    /// The log is read.
    fn loaded(&mut self) {}

    /// What it knows takes in memory, which is about what that takes in the log once all is written once; bytes.
    fn bytes(&self) -> usize;

    /// Monotonic milliseconds at which [`Coordinates::tick`] has something to do.
    fn next_deadline_ms(&self) -> Option<u64> {
        None
    }

    /// Does what is due by now.
    fn tick(_shard: &Rc<Shard>, _slot: &Rc<Slot<Self>>) {}

    /// How often [`Coordinates::expire`] is due.
    fn expires_every(shard: &Shard) -> Duration;

    /// Takes the settings as they are from now on, and forgets what is too old.
    fn expire(shard: &Rc<Shard>, slot: &Rc<Slot<Self>>);

    /// Names all that [`Coordinates::rewrite`] can write anew.
    fn names(&self) -> Vec<Self::Name>;

    /// Writes what is known of these once more; None where the coordinator is not loaded.
    fn rewrite(
        shard: &Rc<Shard>,
        slot: &Rc<Slot<Self>>,
        names: &[Self::Name],
    ) -> Option<Result<(), GroupError>>;

    /// The first record that is needed although it was not written anew.
    fn first_needed(&self) -> Option<Offset> {
        None
    }

    /// It was loaded, or it has ended: nobody who waits is answered any more.
    fn began(_shard: &Rc<Shard>, _slot: &Rc<Slot<Self>>) {}
    fn ended(_slot: &Slot<Self>) {}
}

/// The coordinators of one kind, by the index of their partition.
pub(super) struct Slots<C: Coordinates>(RefCell<BTreeMap<i32, Rc<Slot<C>>>>);

impl<C: Coordinates> Default for Slots<C> {
    fn default() -> Slots<C> {
        Slots(RefCell::default())
    }
}

impl<C: Coordinates> Slots<C> {
    /// The shard stops, or a topic is gone: coordinators look whether that is about them.
    pub(super) fn wake(&self) {
        let slots = self.0.borrow();
        slots.values().for_each(|slot| slot.changed.notify_all());
    }

    pub(super) fn all(&self) -> Vec<Rc<Slot<C>>> {
        self.0.borrow().values().cloned().collect()
    }

    /// The slot of a partition, if it has one.
    pub(super) fn of(&self, id: PartitionId) -> Option<Rc<Slot<C>>> {
        let slot = self.0.borrow().get(&id.index).cloned();
        slot.filter(|slot| slot.partition.id == id)
    }
}

/// One partition's coordinator.
pub(super) struct Slot<C: Coordinates> {
    pub(super) partition: Rc<Partition>,
    state: RefCell<State<C>>,
    /// Notified when it is loaded, or cannot be.
    loaded: Notify,
    /// Notified after each step: something may be due earlier than it was.
    pub(super) changed: Notify,
    /// Journal sequence of the last record it wrote.
    sequence: Cell<u64>,
    /// Bytes of the log that a start would read.
    written: Cell<u64>,
    pub(super) beside: C::Beside,
}

enum State<C> {
    Loading,
    Ready(C),
    Failed,
}

impl<C: Coordinates> Slot<C> {
    /// With this sequence all is durable that its coordinator has seen.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence.get()
    }

    /// Something else has written to the partition what its coordinator sees.
    pub(super) fn written_beside(&self, sequence: u64) {
        self.sequence.set(self.sequence.get().max(sequence));
    }
}

/// The partition's log for one step of its coordinator.
pub(super) struct SlotLog<'a, C: Coordinates> {
    shard: &'a Rc<Shard>,
    slot: &'a Slot<C>,
    pub(super) wall_ms: i64,
}

impl<C: Coordinates> SlotLog<'_, C> {
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
                tracing::warn!(partition = %id, %error, "a coordinator of {} cannot write", C::WHAT);
                Err(GroupError::NotAvailable)
            }
        }
    }
}

impl<C: Coordinates> Append for SlotLog<'_, C> {
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

impl Shard {
    /// Runs `f` at once on a coordinator that is loaded, else gives nothing.
    pub(super) fn in_slot<C: Coordinates, R>(
        self: &Rc<Self>,
        slot: &Slot<C>,
        f: impl FnOnce(&mut C, &mut SlotLog<C>) -> R,
    ) -> Option<R> {
        let mut log = SlotLog {
            shard: self,
            slot,
            wall_ms: rt::wall_ms(),
        };
        let result = match &mut *slot.state.borrow_mut() {
            State::Ready(coordinator) => f(coordinator, &mut log),
            State::Loading | State::Failed => return None,
        };
        slot.changed.notify_all();
        Some(result)
    }

    /// A step that may write so many bytes, when the coordinator is loaded and there is room. Its result comes when all
    /// that it saw is durable.
    pub(super) async fn at_slot<C: Coordinates, R>(
        self: &Rc<Self>,
        id: PartitionId,
        bytes: usize,
        step: impl FnOnce(&Rc<Slot<C>>) -> Option<R>,
    ) -> Result<R, GroupError> {
        let slot = self.loaded_slot::<C>(id).await?;
        self.room_for_own(bytes).await?;
        let result = step(&slot).ok_or(GroupError::NotAvailable)?;
        let durable = self.journal.wait_durable(slot.sequence()).await;
        durable.map_err(|_| GroupError::NotAvailable)?;
        Ok(result)
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

    pub(super) async fn loaded_slot<C: Coordinates>(
        self: &Rc<Self>,
        id: PartitionId,
    ) -> Result<Rc<Slot<C>>, GroupError> {
        let slot = self.slot::<C>(id)?;
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

    fn slot<C: Coordinates>(self: &Rc<Self>, id: PartitionId) -> Result<Rc<Slot<C>>, GroupError> {
        if let Some(slot) = C::slots(self).of(id) {
            return Ok(slot);
        }
        let partition = self.partition(id).map_err(|_| GroupError::NotAvailable)?;
        let slot = Rc::new(Slot {
            partition,
            state: RefCell::new(State::Loading),
            loaded: Notify::new(),
            changed: Notify::new(),
            sequence: Cell::new(0),
            written: Cell::new(0),
            beside: C::Beside::default(),
        });
        let mut slots = C::slots(self).0.borrow_mut();
        slots.insert(id.index, slot.clone());
        rt::spawn(Class::Network, self.clone().run_slot(slot.clone()));
        Ok(slot)
    }

    /// Loads the coordinators of all partitions that have records: what is due there has to be noticed also where nobody
    /// asks.
    pub(super) fn start_slots<C: Coordinates>(self: &Rc<Self>, topic: &str) {
        for id in self.own_partitions(topic) {
            if self.has_records(id) {
                // The partition is there; what else could be wrong is told when it is loaded.
                let _slot = self.slot::<C>(id);
            }
        }
    }

    // One coordinator's life -----------------------------------------------------------------------------------------

    async fn run_slot<C: Coordinates>(self: Rc<Self>, slot: Rc<Slot<C>>) {
        let state = match self.load(&slot).await {
            Ok(coordinator) => State::Ready(coordinator),
            Err(error) => {
                tracing::error!(partition = %slot.partition.id, %error,
                    "the {} of this partition cannot be loaded; the next request tries again", C::WHAT);
                State::Failed
            }
        };
        let failed = matches!(state, State::Failed);
        *slot.state.borrow_mut() = state;
        slot.loaded.notify_all();
        if !failed {
            C::began(&self, &slot);
            self.run_timers(&slot).await;
        }
        {
            let mut slots = C::slots(&self).0.borrow_mut();
            let index = slot.partition.id.index;
            let known = slots.get(&index);
            if known.is_some_and(|known| Rc::ptr_eq(known, &slot)) {
                slots.remove(&index);
            }
        }
        *slot.state.borrow_mut() = State::Failed;
        C::ended(&slot);
        slot.changed.notify_all();
    }

    /// Reads the partition from its start to its end.
    async fn load<C: Coordinates>(self: &Rc<Self>, slot: &Slot<C>) -> Result<C, PartitionError> {
        let mut coordinator = C::empty(self);
        let take = |header: &BatchHeader, record: Logged| {
            if let Err(error) = coordinator.take(header, record) {
                // Somebody else wrote it; what is of use is found behind it.
                tracing::warn!(offset = header.base_offset, %error, "a record of {} cannot be read", C::WHAT);
            }
        };
        let bytes = self.read_own(&slot.partition, take).await?;
        slot.written.set(slot.written.get() + bytes);
        coordinator.loaded();
        Ok(coordinator)
    }

    /// Does what is due while the partition is there and the shard lives.
    async fn run_timers<C: Coordinates>(self: &Rc<Self>, slot: &Rc<Slot<C>>) {
        let mut expires_at = rt::now() + C::expires_every(self);
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
            C::tick(self, slot);
            if expires_at <= now {
                expires_at = now + C::expires_every(self);
                C::expire(self, slot);
            }
            rt::yield_if_needed().await;
        }
    }

    /// Where most of the log is about what is not so any more, writes what is once more, and lets go of what was before:
    /// whatever is written how often, the log of a coordinator is bounded by what it knows.
    async fn rewrite_if_long<C: Coordinates>(self: &Rc<Self>, slot: &Rc<Slot<C>>) {
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
            tracing::warn!(partition = %slot.partition.id, %error, "what is known of {} cannot be written anew", C::WHAT);
        }
    }

    async fn rewrite<C: Coordinates>(
        self: &Rc<Self>,
        slot: &Rc<Slot<C>>,
    ) -> Result<(), PartitionError> {
        let begin = slot.partition.log.borrow().next_offset;
        let refused = |error: GroupError| PartitionError::Storage(error.to_string());
        // Without a coordinator nothing is known to be written anew, and so nothing of before may go.
        let gone = || refused(GroupError::NotAvailable);
        let names = self.in_slot(slot, |coordinator, _| coordinator.names());
        for some in names.ok_or_else(gone)?.chunks(REWRITTEN_TOGETHER_MAX) {
            let room = self.room_for_own(REWRITE_BYTES_MIN as usize / 4).await;
            room.map_err(refused)?;
            let written = C::rewrite(self, slot, some);
            written.ok_or_else(gone)?.map_err(refused)?;
            rt::yield_if_needed().await;
        }
        let durable = self.journal.wait_durable(slot.sequence()).await;
        durable.map_err(PartitionError::Storage)?;
        let needed = self.in_slot(slot, |coordinator, _| coordinator.first_needed());
        let needed = needed.ok_or_else(gone)?;
        let begin = needed.map_or(begin, |needed| needed.min(begin));
        slot.partition.release_before(begin).await
    }
}
