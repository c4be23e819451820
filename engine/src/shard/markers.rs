//! Owns the ends of transactions in the partitions of a shard: writing them, telling readers of them, and asking whether a
//! batch may begin a transaction.
//! Does not know coordinators of transactions; those of groups it tells of markers in their logs.
//! Invariant: a marker is told to the partition's coordinator in the step in which it is appended.

use super::append::clock_now;
use super::Shard;
use crate::api::{AbortedTransaction, Fetched, RecordChunk, TxnMarker};
use crate::coord::txn::Producer;
use crate::error::PartitionError;
use crate::log::transactions::Before;
use crate::log::Partition;
use crate::types::batch::BatchHeader;
use crate::types::{Offset, PartitionId};
use std::rc::Rc;

/// What a marker takes in the log.
const MARKER_BYTES: usize = 128;

impl Shard {
    /// See `Broker::write_txn_marker`.
    pub async fn write_txn_marker(
        self: &Rc<Self>,
        marker: TxnMarker,
    ) -> Result<Offset, PartitionError> {
        let owner = marker.partition.shard(self.shards);
        let written = self.at(owner, move |shard| async move {
            shard.write_own_marker(&marker).await
        });
        written.await.unwrap_or(Err(PartitionError::Stopping))
    }

    async fn write_own_marker(
        self: &Rc<Self>,
        marker: &TxnMarker,
    ) -> Result<Offset, PartitionError> {
        let id = marker.partition;
        let partition = self.partition(id)?;
        self.ready_for_marker(id).await?;
        if self.room_for_own(MARKER_BYTES).await.is_err() {
            return Err(self.refusal().unwrap_or(PartitionError::Stopping));
        }
        let need = partition.config().min_insync_replicas as usize;
        if need > 1 {
            return Err(PartitionError::NotEnoughReplicas { have: 1, need });
        }
        let accepted = partition.append_marker(marker, clock_now())?;
        self.mark_dirty(&partition);
        let (producer_id, sequence) = (marker.producer_id, accepted.sequence);
        self.marker_appended(id, producer_id, marker.commit, sequence);
        let durable = self.journal.wait_durable(sequence).await;
        durable.map_err(PartitionError::Storage)?;
        Ok(accepted.appended.base_offset)
    }

    /// What a partition has of a producer's transaction; where it is not open, it may be begun there until the next marker.
    pub(super) async fn await_batch(
        self: &Rc<Self>,
        id: PartitionId,
        producer: Producer,
        first_sequence: i32,
    ) -> Result<Before, PartitionError> {
        let owner = id.shard(self.shards);
        let asked = self.at(owner, move |shard| async move {
            let partition = shard.partition(id)?;
            let mut log = partition.log.borrow_mut();
            let (id, epoch) = (producer.id, producer.epoch);
            Ok(log.transactions.await_batch(id, epoch, first_sequence))
        });
        asked.await.unwrap_or(Err(PartitionError::Stopping))
    }
}

impl Partition {
    /// Readers of committed records are told what of them was aborted.
    ///
    /// # Errors
    /// The log begins behind `from` by now: what was aborted of what was read is not known any more.
    pub(super) fn tell_aborted(
        &self,
        fetched: &mut Fetched,
        from: Offset,
        to: Offset,
    ) -> Result<(), PartitionError> {
        if fetched.aborted.is_none() {
            return Ok(());
        }
        self.check_offset(from, self.log.borrow().high_watermark())?;
        if !self.log.borrow().transactions.has_aborted() {
            return Ok(());
        }
        // Of all that were aborted, a reader far behind needs those that begin before its own batches end.
        let to = end_of(&fetched.records).unwrap_or(to);
        let found = self.log.borrow().transactions.aborted_in(from, to);
        let told = found.iter().map(|span| AbortedTransaction {
            producer_id: span.producer_id,
            first_offset: span.first,
        });
        fetched.aborted = Some(told.collect());
        Ok(())
    }
}

/// Where the last of these batches ends; None where there are none.
fn end_of(records: &[RecordChunk]) -> Option<Offset> {
    let mut bytes: &[u8] = records.last()?.as_ref();
    let mut end = None;
    while let Ok(header) = BatchHeader::parse(bytes) {
        end = Some(header.next_offset());
        bytes = bytes.get(header.size..).unwrap_or_default();
    }
    end
}
