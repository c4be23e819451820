//! Owns what a reader of transactions sees: everything, or what was committed.
//! Does not know fetches; it is told, partition by partition, what a broker said of its answer.
//! Invariant: batches outside of transactions are never hidden.

use millrace_net::wire::batch::{Batch, BatchError, ControlKind};
use millrace_net::wire::fetch::AbortedTransaction;
use std::collections::{HashSet, VecDeque};

/// Which records of transactions are read.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isolation {
    /// All of them, as soon as they are stored
    #[value(name = "read_uncommitted")]
    Uncommitted,
    /// Those of committed transactions, up to the first one that is still open
    #[value(name = "read_committed")]
    Committed,
}

impl Isolation {
    /// As requests say it.
    pub fn code(self) -> i8 {
        match self {
            Isolation::Uncommitted => 0,
            Isolation::Committed => 1,
        }
    }
}

/// The aborted transactions among the batches of one answer, which brokers leave in for the client to pass over.
pub struct Aborted {
    /// Not reached yet, in the order of their first offsets.
    ahead: VecDeque<AbortedTransaction>,
    /// Producers inside of one.
    inside: HashSet<i64>,
}

impl Aborted {
    /// From what a broker lists, which is nothing for readers of everything.
    pub fn new(listed: Option<Vec<AbortedTransaction>>) -> Aborted {
        // Null is how the protocol says that none were aborted.
        let mut ahead = listed.unwrap_or_default();
        ahead.sort_by_key(|transaction| transaction.first_offset);
        Aborted {
            ahead: ahead.into(),
            inside: HashSet::new(),
        }
    }

    /// Whether the next batch belongs to an aborted transaction. `bytes_max` bounds what a marker unpacks to.
    pub fn hides(&mut self, batch: &Batch, bytes_max: usize) -> Result<bool, BatchError> {
        let header = &batch.header;
        while let Some(transaction) = self.ahead.front() {
            if transaction.first_offset >= header.next_offset() {
                break;
            }
            self.inside.insert(transaction.producer_id);
            self.ahead.pop_front();
        }
        if !self.inside.contains(&header.producer_id) {
            return Ok(false);
        }
        if header.is_control() {
            for marker in batch.records(bytes_max)? {
                if ControlKind::of(&marker?)? == ControlKind::Abort {
                    self.inside.remove(&header.producer_id);
                }
            }
        }
        Ok(header.is_transactional())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};
    use millrace_engine::types::batch::crc32c;
    use millrace_net::wire::batch::BatchBuilder;
    use millrace_net::wire::record::Record;

    const TRANSACTIONAL: u8 = 1 << 4;
    const CONTROL: u8 = 1 << 5;

    /// One record at an offset, with the attributes given.
    fn batch(offset: i64, producer_id: i64, attributes: u8, key: Option<&'static [u8]>) -> Batch {
        let mut builder = BatchBuilder::default();
        builder.producer_id = producer_id;
        let record = Record {
            offset: 0,
            timestamp_ms: 0,
            key: key.map(Bytes::from_static),
            value: None,
            headers: vec![],
        };
        builder.push(&record).unwrap();
        let mut bytes = BytesMut::from(&builder.build().unwrap()[..]);
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
        bytes[22] |= attributes;
        let crc = crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        Batch::take(&mut bytes.freeze()).unwrap().unwrap()
    }

    #[test]
    fn what_lies_between_the_first_record_and_the_abort_marker_is_hidden() {
        let mut aborted = Aborted::new(Some(
            // As no broker should list them: not in order.
            [(8, 14), (7, 11), (7, 17)]
                .map(|(producer_id, first_offset)| AbortedTransaction {
                    producer_id,
                    first_offset,
                })
                .into(),
        ));
        let data = |offset, producer| batch(offset, producer, TRANSACTIONAL, None);
        let marker = |offset, producer, kind: &'static [u8]| {
            batch(offset, producer, TRANSACTIONAL | CONTROL, Some(kind))
        };
        let (abort, commit) = (&[0, 0, 0, 0], &[0, 0, 0, 1]);
        for (batch, hidden) in [
            (data(10, 7), false),
            (data(11, 7), true),
            (data(12, 9), false),
            (batch(13, 7, 0, None), false),
            (data(14, 8), true),
            (marker(15, 7, abort), true),
            (data(16, 7), false),
            (data(17, 7), true),
            (data(18, 8), true),
            (marker(19, 8, abort), true),
            (marker(20, 9, commit), false),
            (data(21, 8), false),
        ] {
            let offset = batch.header.base_offset;
            assert_eq!(aborted.hides(&batch, 100).unwrap(), hidden, "{offset}");
        }
        assert!(!Aborted::new(None).hides(&data(1, 7), 100).unwrap());
    }
}
