//! Owns carrying out what a transaction coordinator decided: markers to all partitions, then the record of that.
//! Does not know how a marker gets into a log, nor who asked for the end.
//! Invariant: no marker is written before the decision is durable, and none is given up while its partition exists.

use super::transactions::TxnSlot;
use super::Shard;
use crate::api::TxnMarker;
use crate::coord::txn::{Prepared, TxnError};
use crate::error::PartitionError;
use crate::rt;
use crate::types::limits::TXN_MARKERS_TOGETHER_MAX;
use crate::types::PartitionId;
use std::rc::Rc;
use std::time::Duration;

/// How long is waited before a marker that could not be written is tried again: at first, and at the most.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What the record of a complete transaction is taken to need.
const COMPLETE_BYTES: usize = 1 << 10;

impl Shard {
    /// Sees a decided transaction to its end. What a stop or a crash interrupts goes on after the start.
    pub(super) async fn carry_out(
        self: Rc<Self>,
        slot: Rc<TxnSlot>,
        prepared: Prepared,
        sequence: u64,
    ) {
        if self.journal.wait_durable(sequence).await.is_err() {
            // Nothing is durable any more: the process ends.
            return;
        }
        let all = prepared.partitions.iter().flat_map(|(topic, indexes)| {
            let each = indexes.iter().copied();
            each.map(move |index| (topic.as_str(), index))
        });
        let all: Vec<(&str, i32)> = all.collect();
        for some in all.chunks(TXN_MARKERS_TOGETHER_MAX) {
            let markers = some
                .iter()
                .map(|(topic, index)| self.mark(&slot, &prepared, topic, *index));
            if rt::join_all(markers).await.contains(&false) {
                return;
            }
        }
        let mut wait = RETRY_MIN;
        while !self.is_over(&slot) {
            let outcome = match self.room_for_own(COMPLETE_BYTES).await {
                // Where the coordinator is gone, the next one goes on.
                Ok(()) => self
                    .txn_step(&slot, None, |c, ctx| c.complete(&prepared, ctx))
                    .unwrap_or(Ok(())),
                Err(error) => Err(TxnError::from(error)),
            };
            let Err(error) = outcome else { return };
            let id = &prepared.of.transactional_id;
            tracing::warn!(id, %error, "the end of a transaction cannot be written yet");
            pause(&mut wait).await;
        }
    }

    /// Writes one marker, however long that takes; false where the shard stops before.
    async fn mark(
        self: &Rc<Self>,
        slot: &TxnSlot,
        prepared: &Prepared,
        topic: &str,
        index: i32,
    ) -> bool {
        let mut wait = RETRY_MIN;
        let mut told = false;
        while !self.is_over(slot) {
            let Some(partition) = self.find_partition(topic, index) else {
                // It was deleted, and with it what would be committed.
                return true;
            };
            let marker = TxnMarker {
                partition,
                producer_id: prepared.of.producer.id,
                producer_epoch: prepared.of.producer.epoch,
                coordinator_epoch: slot.partition.leader_epoch(),
                commit: prepared.commit,
                transaction_version: prepared.version,
            };
            let error = match self.write_txn_marker(marker).await {
                Ok(_) => return true,
                Err(error) => error,
            };
            match &error {
                // Looked for again above.
                PartitionError::Unknown
                | PartitionError::NotLeader
                | PartitionError::NotEnoughReplicas { .. }
                | PartitionError::Storage(_)
                | PartitionError::DiskFull { .. }
                | PartitionError::Busy
                | PartitionError::TimedOut
                | PartitionError::Stopping => {}
                // A later epoch of the producer is there: somebody ended this transaction by hand.
                PartitionError::ProducerFenced { .. }
                | PartitionError::FencedEpoch { .. }
                | PartitionError::UnknownEpoch { .. }
                | PartitionError::OffsetOutOfRange { .. }
                | PartitionError::Corrupt(_)
                | PartitionError::InvalidRecord(_)
                | PartitionError::UnsupportedCompression
                | PartitionError::InvalidTimestamp { .. }
                | PartitionError::TooLarge { .. }
                | PartitionError::OutOfOrderSequence { .. }
                | PartitionError::DuplicateSequence { .. }
                | PartitionError::InvalidTxnState { .. }
                | PartitionError::Policy(_)
                | PartitionError::InvalidRequest(_) => {
                    let id = &prepared.of.transactional_id;
                    tracing::warn!(id, topic, index, %error, "a partition does not take the end of a transaction");
                    return true;
                }
            }
            if !told {
                told = true;
                let id = &prepared.of.transactional_id;
                tracing::info!(id, topic, index, %error, "the end of a transaction is tried again");
            }
            pause(&mut wait).await;
        }
        false
    }

    /// Whether nothing is carried out for a coordinator any more.
    fn is_over(&self, slot: &TxnSlot) -> bool {
        self.stopping.get() || slot.partition.deleted.get()
    }

    pub(super) fn find_partition(&self, topic: &str, index: i32) -> Option<PartitionId> {
        let image = self.image.borrow();
        let topic = image.topic(topic)?;
        let is_there = usize::try_from(index).is_ok_and(|index| index < topic.partitions.len());
        is_there.then(|| PartitionId::new(topic.id, index))
    }
}

async fn pause(wait: &mut Duration) {
    rt::sleep(*wait).await;
    *wait = (*wait * 2).min(RETRY_MAX);
}
