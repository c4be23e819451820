//! Owns how a shard's transaction coordinators are run: their settings, and that what they decide is carried out.
//! Does not know how a transaction goes, nor how its markers are written.
//! Invariant: no marker is written for a decision before every record it rests on is durable.

use super::coordinator_log::{now_ms, Logged};
use super::slots::{Coordinates, Slot, Slots};
use super::Shard;
use crate::coord::records::RecordError;
use crate::coord::txn::{TxnConfig, TxnCoordinator, TxnCtx, TxnError, TXN_TOPIC};
use crate::coord::{self, GroupError};
use crate::rt::{self, Class};
use crate::types::batch::BatchHeader;
use crate::types::PartitionId;
use std::rc::Rc;
use std::time::Duration;

pub(super) type TxnSlot = Slot<TxnCoordinator>;

impl Coordinates for TxnCoordinator {
    const WHAT: &'static str = "transactions";
    type Beside = ();
    type Name = String;

    fn slots(shard: &Shard) -> &Slots<TxnCoordinator> {
        &shard.transactions
    }

    fn empty(shard: &Shard) -> TxnCoordinator {
        TxnCoordinator::new(shard.txn_config().0, shard.groups.memory.clone())
    }

    fn take(&mut self, _header: &BatchHeader, record: Logged) -> Result<(), RecordError> {
        match record {
            Logged::Record { key, value } => self.replay(key, value, now_ms(), rt::wall_ms()),
            // No transaction writes here.
            Logged::Marker { .. } => Ok(()),
        }
    }

    fn bytes(&self) -> usize {
        TxnCoordinator::bytes(self)
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        TxnCoordinator::next_deadline_ms(self)
    }

    fn tick(shard: &Rc<Shard>, slot: &Rc<TxnSlot>) {
        let _ready = shard.txn_step(slot, None, |coordinator, ctx| coordinator.tick(ctx));
    }

    fn expires_every(shard: &Shard) -> Duration {
        shard.txn_config().1
    }

    fn expire(shard: &Rc<Shard>, slot: &Rc<TxnSlot>) {
        let config = shard.txn_config().0;
        let _ready = shard.txn_step(slot, None, |coordinator, ctx| {
            coordinator.configure(config);
            coordinator.expire(ctx);
        });
    }

    fn names(&self) -> Vec<String> {
        self.ids()
    }

    fn rewrite(
        shard: &Rc<Shard>,
        slot: &Rc<TxnSlot>,
        names: &[String],
    ) -> Option<Result<(), GroupError>> {
        let written = shard.txn_step(slot, None, |coordinator, ctx| {
            coordinator.rewrite(names, ctx)
        });
        // Nothing but the log refuses there.
        Some(written?.map_err(|_| GroupError::NotAvailable))
    }

    /// Whatever was decided before goes on.
    fn began(shard: &Rc<Shard>, slot: &Rc<TxnSlot>) {
        let _ready = shard.txn_step(slot, None, |_, _| ());
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
        let step = |slot: &Rc<TxnSlot>| self.txn_step(slot, spare_id, f);
        Ok(self.at_slot(id, bytes, step).await?)
    }

    /// Runs `f` on a coordinator that is loaded, else gives nothing. What it decided is carried out.
    pub(super) fn txn_step<R>(
        self: &Rc<Self>,
        slot: &Rc<TxnSlot>,
        spare_id: Option<i64>,
        f: impl FnOnce(&mut TxnCoordinator, &mut TxnCtx) -> R,
    ) -> Option<R> {
        let (result, prepared) = self.in_slot(slot, |coordinator, log| {
            let mut ctx = TxnCtx {
                now_ms: now_ms(),
                wall_ms: log.wall_ms,
                log,
                spare_id,
            };
            let result = f(coordinator, &mut ctx);
            (result, coordinator.take_prepared())
        })?;
        for one in prepared {
            let (shard, slot) = (self.clone(), slot.clone());
            let sequence = slot.sequence();
            rt::spawn(Class::Network, shard.carry_out(slot, one, sequence));
        }
        Some(result)
    }

    pub(super) async fn loaded_txn_slot(
        self: &Rc<Self>,
        id: PartitionId,
    ) -> Result<Rc<TxnSlot>, TxnError> {
        Ok(self.loaded_slot(id).await?)
    }

    /// See [`Shard::start_slots`].
    pub(super) fn start_txn_coordinators(self: &Rc<Self>) {
        self.start_slots::<TxnCoordinator>(TXN_TOPIC);
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
}
