//! Owns the batch that ends a transaction in a partition: a control batch with one record, and what it does to the log.
//! Does not know who ends transactions.
//! Invariant: a marker of an older epoch than the producer's changes nothing; from version 2 on neither does one of its
//! present epoch, which ended the transaction before.

use super::append::{Accepted, Clock};
use super::Partition;
use crate::api::{Appended, TxnMarker};
use crate::error::PartitionError;
use crate::types::batch::{build, BatchHeader};
use std::io;
use std::rc::Rc;

/// Attributes of a batch of a transaction that is about the transaction itself.
const TRANSACTIONAL_CONTROL: i16 = 0b11_0000;

/// From this level of `transaction.version` on, the epoch of a marker is newer than the one of the transaction.
const BUMPING_VERSION: i16 = 2;

impl Partition {
    /// Appends a marker; where a later version's is there already, gives that one.
    pub fn append_marker(
        self: &Rc<Self>,
        marker: &TxnMarker,
        clock: Clock,
    ) -> Result<Accepted, PartitionError> {
        let config = self.config();
        let mut log = self.log.borrow_mut();
        if log.offline_from.is_some() {
            return Err(PartitionError::Storage(
                "acknowledged data of this partition is damaged".into(),
            ));
        }
        let (producer_id, got) = (marker.producer_id, marker.producer_epoch);
        if producer_id < 0 || got < 0 {
            return Err(PartitionError::InvalidRequest(
                "a marker needs a producer id and its epoch",
            ));
        }
        if let Some(last) = log.producers.last_of(producer_id) {
            let current = last.epoch;
            if got < current {
                return Err(PartitionError::ProducerFenced {
                    producer_id,
                    got,
                    current,
                });
            }
            let again = marker.transaction_version >= BUMPING_VERSION && current == got;
            let has_open = log.transactions.has_open(producer_id);
            // What is open began with the epoch that this marker's own end gave: it is late, and of the one before. Only the
            // last epoch cannot be told apart like that.
            if again && has_open && got < i16::MAX {
                return Err(PartitionError::ProducerFenced {
                    producer_id,
                    got,
                    current,
                });
            }
            if again && !has_open {
                return Ok(Accepted {
                    appended: Appended {
                        base_offset: last.base_offset,
                        log_append_time_ms: -1,
                        log_start: log.log_start,
                    },
                    sequence: log.sequence_of(last.last_offset),
                    cached: false,
                });
            }
        }
        let batch = batch(marker, clock.wall_ms);
        let header = BatchHeader::parse(&batch).map_err(PartitionError::Corrupt)?;
        let commit = Some(marker.commit);
        let accepted = self.enter(&mut log, &config, header, commit, &batch, clock);
        // Who waits for the end of a transaction waits for no cache.
        Ok(Accepted {
            cached: false,
            ..accepted
        })
    }
}

fn batch(marker: &TxnMarker, now_ms: i64) -> Vec<u8> {
    let mut record = vec![0, 0, 0];
    // Version 0 of the key, and what it is.
    build::zigzag(4, &mut record);
    record.extend([0, 0, 0, u8::from(marker.commit)]);
    build::zigzag(6, &mut record);
    record.extend([0, 0]);
    record.extend(marker.coordinator_epoch.to_be_bytes());
    // No headers.
    record.push(0);
    let mut body = Vec::new();
    build::zigzag(record.len() as i64, &mut body);
    body.extend(record);
    let of = Some((marker.producer_id, marker.producer_epoch, -1));
    build::with_attributes(build::batch(1, &body, now_ms, of), TRANSACTIONAL_CONTROL)
}

/// Whether a batch is a marker, and one that commits.
///
/// # Errors
/// A control batch whose records cannot be read.
pub fn of(header: &BatchHeader, batch: &[u8]) -> io::Result<Option<bool>> {
    if !header.is_control() {
        return Ok(None);
    }
    let records = crate::coord::batch::records(batch)?;
    let key = records.first().and_then(|(key, _)| key.as_ref());
    Ok(key.and_then(|key| outcome(key)))
}

/// Whether the key of a control record commits; None where it is not about a transaction.
pub fn outcome(key: &[u8]) -> Option<bool> {
    // Its version, then its type.
    match key.get(2..4)? {
        [0, 0] => Some(false),
        [0, 1] => Some(true),
        [_, ..] | [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::limits::BATCH_HEADER_BYTES;
    use crate::types::{PartitionId, TopicId};

    #[test]
    fn a_marker_is_kafkas() {
        let marker = |commit| TxnMarker {
            partition: PartitionId::new(TopicId::NIL, 0),
            producer_id: 7,
            producer_epoch: 3,
            coordinator_epoch: 5,
            commit,
            transaction_version: 2,
        };
        for commit in [false, true] {
            let batch = batch(&marker(commit), 1_234);
            let header = BatchHeader::parse(&batch).unwrap();
            assert!(header.is_control() && header.is_transactional());
            assert!(header.crc_matches(&batch));
            assert_eq!((header.producer_id, header.producer_epoch), (7, 3));
            assert_eq!((header.base_sequence, header.record_count), (-1, 1));
            let kind = u8::from(commit);
            let body = [32, 0, 0, 0, 8, 0, 0, 0, kind, 12, 0, 0, 0, 0, 0, 5, 0];
            assert_eq!(batch[BATCH_HEADER_BYTES..], body);
            let records = crate::coord::batch::records(&batch).unwrap();
            let key = records[0].0.as_ref().unwrap();
            assert_eq!(outcome(key), Some(commit));
        }
    }
}
