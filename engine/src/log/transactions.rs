//! Owns what a partition knows of transactions: which are open, which were aborted, and who may begin one.
//! Does not know coordinators, clocks or files; a checkpoint takes `durable_spans`.
//! Invariant: what lies at or above the first batch of a transaction without a durable marker is not stable.

use crate::error::PartitionError;
use crate::types::batch::BatchHeader;
use crate::types::limits::{PRODUCERS_PER_PARTITION_MAX, TXN_ABORTED_PER_PARTITION_MAX};
use crate::types::Offset;
use hashbrown::HashMap;
use std::collections::{BTreeSet, VecDeque};

/// A transaction of which a checkpoint tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxnSpan {
    pub producer_id: i64,
    pub epoch: i16,
    pub first: Offset,
    /// Where its marker is, which aborted it; -1 where it is open.
    pub last: Offset,
}

/// A transaction that has a marker.
#[derive(Clone, Copy, Debug)]
struct Ended {
    span: TxnSpan,
    committed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    epoch: i16,
    first: Offset,
}

#[derive(Clone, Default, Debug)]
pub struct Transactions {
    open: HashMap<i64, Open>,
    /// First offset and producer of all that are open.
    firsts: BTreeSet<(Offset, i64)>,
    /// With markers that may not be durable yet, in their order.
    recent: VecDeque<Ended>,
    /// Those of before that were aborted, in the order of their markers.
    aborted: VecDeque<TxnSpan>,
    /// Producers whose coordinator is being asked whether the partition is in their transaction, or said so: a marker ends
    /// that, so that no batch that was late begins a transaction that nobody would end. Lost with the process, as are the
    /// requests.
    awaited: HashMap<i64, Awaited>,
}

#[derive(Clone, Copy, Debug)]
struct Awaited {
    epoch: i16,
    /// The lowest that a batch was to begin with.
    first_sequence: i32,
}

/// What a partition has of a producer's transaction that is to get a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Before {
    /// Batches of it.
    Open,
    /// It was told of it, and no marker has come since.
    Awaited,
    /// Nothing.
    Nothing,
}

impl Transactions {
    /// What there is of the producer's transaction of this epoch; where it is not open, the producer may begin it until the
    /// next marker, with a batch of this sequence.
    pub fn await_batch(&mut self, producer_id: i64, epoch: i16, first_sequence: i32) -> Before {
        if self.is_open(producer_id, epoch) {
            return Before::Open;
        }
        if let Some(awaited) = self.awaited.get_mut(&producer_id) {
            if awaited.epoch == epoch {
                awaited.first_sequence = awaited.first_sequence.min(first_sequence);
                return Before::Awaited;
            }
        }
        if self.awaited.len() >= PRODUCERS_PER_PARTITION_MAX {
            // Whoever is left out is told to begin anew.
            self.awaited.clear();
        }
        let awaited = Awaited {
            epoch,
            first_sequence,
        };
        self.awaited.insert(producer_id, awaited);
        Before::Nothing
    }

    fn is_open(&self, producer_id: i64, epoch: i16) -> bool {
        let open = self.open.get(&producer_id);
        open.is_some_and(|open| open.epoch == epoch)
    }

    /// Whether a batch of a producer may be appended now; `is_known` where the log has batches of the producer.
    pub fn check(&self, header: &BatchHeader, is_known: bool) -> Result<(), PartitionError> {
        let id = header.producer_id;
        let refused = PartitionError::InvalidTxnState { producer_id: id };
        if !header.is_transactional() {
            // It would become part of what may still be aborted.
            return match self.open.contains_key(&id) {
                true => Err(refused),
                false => Ok(()),
            };
        }
        if !header.has_producer() {
            return Err(PartitionError::InvalidRecord(
                "a transaction needs a producer id",
            ));
        }
        if self.is_open(id, header.producer_epoch) {
            return Ok(());
        }
        let awaited = self.awaited.get(&id).copied();
        let Some(awaited) = awaited.filter(|a| a.epoch == header.producer_epoch) else {
            return Err(refused);
        };
        // An earlier one, which the coordinator was asked about as well, is still to come.
        if !is_known && awaited.first_sequence < header.base_sequence {
            return Err(PartitionError::OutOfOrderSequence {
                producer_id: id,
                got: header.base_sequence,
                expected: awaited.first_sequence,
            });
        }
        let aborted = self.aborted.len() + self.recent.len();
        if aborted >= TXN_ABORTED_PER_PARTITION_MAX {
            return Err(PartitionError::Policy(
                "the partition has as many aborted transactions as it may have",
            ));
        }
        if self.open.len() >= PRODUCERS_PER_PARTITION_MAX {
            return Err(PartitionError::Policy(
                "the partition has as many open transactions as it may have",
            ));
        }
        Ok(())
    }

    /// A batch of a transaction is in the log.
    pub fn appended(&mut self, header: &BatchHeader) {
        let (id, epoch) = (header.producer_id, header.producer_epoch);
        match self.open.get_mut(&id) {
            Some(open) => open.epoch = epoch,
            None => {
                let first = header.base_offset;
                self.open.insert(id, Open { epoch, first });
                self.firsts.insert((first, id));
            }
        }
    }

    /// A marker is in the log. What lies below `durable` and `log_start` is forgotten as far as that can be.
    pub fn ended(
        &mut self,
        producer_id: i64,
        marker: Offset,
        committed: bool,
        durable: Offset,
        log_start: Offset,
    ) {
        self.awaited.remove(&producer_id);
        if let Some(open) = self.open.remove(&producer_id) {
            self.firsts.remove(&(open.first, producer_id));
            let span = TxnSpan {
                producer_id,
                epoch: open.epoch,
                first: open.first,
                last: marker,
            };
            self.recent.push_back(Ended { span, committed });
        }
        while let Some(ended) = self.recent.front() {
            if ended.span.last >= durable {
                break;
            }
            if !ended.committed {
                self.aborted.push_back(ended.span);
            }
            self.recent.pop_front();
        }
        while self.aborted.front().is_some_and(|s| s.last < log_start) {
            self.aborted.pop_front();
        }
    }

    /// Nothing is left in the log of these transactions, their markers included: producer and marker of each.
    pub fn forget_aborted(&mut self, gone: &[(i64, Offset)]) {
        if gone.is_empty() {
            return;
        }
        let gone: BTreeSet<(i64, Offset)> = gone.iter().copied().collect();
        let is_left = |span: &TxnSpan| !gone.contains(&(span.producer_id, span.last));
        self.aborted.retain(is_left);
        self.recent.retain(|ended| is_left(&ended.span));
    }

    pub fn has_open(&self, producer_id: i64) -> bool {
        self.open.contains_key(&producer_id)
    }

    /// Producer, epoch and first offset of every open transaction, by the offset.
    pub fn open(&self) -> impl Iterator<Item = (i64, i16, Offset)> + '_ {
        let epoch = |id| self.open.get(id).map_or(-1, |open| open.epoch);
        self.firsts
            .iter()
            .map(move |(first, id)| (*id, epoch(id), *first))
    }

    /// The first offset that may still be aborted, as far as markers below `high_watermark` tell.
    pub fn first_unstable(&self, high_watermark: Offset) -> Option<Offset> {
        let open = self.firsts.first().map(|(first, _)| *first);
        let unsure = self.recent.iter().rev();
        let unsure = unsure.take_while(|ended| ended.span.last >= high_watermark);
        unsure.map(|ended| ended.span.first).chain(open).min()
    }

    /// Whether there are any of which a reader of committed records has to be told.
    pub fn has_aborted(&self) -> bool {
        !self.aborted.is_empty() || self.recent.iter().any(|ended| !ended.committed)
    }

    /// Aborted transactions with records in this range, by their first offset.
    pub fn aborted_in(&self, from: Offset, to: Offset) -> Vec<TxnSpan> {
        let begin = self.aborted.partition_point(|span| span.last < from);
        let recent = self.recent.iter().filter(|ended| !ended.committed);
        let mut found: Vec<TxnSpan> = self
            .aborted
            .range(begin..)
            .chain(recent.map(|ended| &ended.span))
            .filter(|span| span.last >= from && span.first < to)
            .copied()
            .collect();
        found.sort_unstable_by_key(|span| (span.first, span.producer_id));
        found
    }

    /// What a checkpoint keeps: how it was with the records below `durable`.
    pub fn durable_spans(&self, durable: Offset) -> Vec<TxnSpan> {
        let open = self.open.iter().map(|(id, open)| TxnSpan {
            producer_id: *id,
            epoch: open.epoch,
            first: open.first,
            last: -1,
        });
        let recent = self.recent.iter().filter_map(|ended| {
            let sure = ended.span.last < durable;
            match (sure, ended.committed) {
                (true, true) => None,
                (true, false) => Some(ended.span),
                (false, _) => Some(TxnSpan {
                    last: -1,
                    ..ended.span
                }),
            }
        });
        let all = self.aborted.iter().copied().chain(recent).chain(open);
        // A producer may have one that is not durable behind one whose marker is not.
        let mut seen = BTreeSet::new();
        let mut spans: Vec<TxnSpan> = all.filter(|span| span.first < durable).collect();
        spans.retain(|span| span.last >= 0 || seen.insert(span.producer_id));
        spans
    }

    /// Puts back what a checkpoint kept.
    pub fn restore(&mut self, spans: &[TxnSpan]) {
        for span in spans {
            match span.last {
                0.. => self.aborted.push_back(*span),
                ..0 => {
                    let open = Open {
                        epoch: span.epoch,
                        first: span.first,
                    };
                    self.open.insert(span.producer_id, open);
                    self.firsts.insert((span.first, span.producer_id));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::batch::build;

    fn header(producer_id: i64, offset: Offset) -> BatchHeader {
        let batch = build::transactional(build::batch(1, b"", 1, Some((producer_id, 0, 0))));
        let mut header = BatchHeader::parse(&batch).unwrap();
        header.base_offset = offset;
        header
    }

    fn begin(transactions: &mut Transactions, producer_id: i64, offset: Offset) {
        let header = header(producer_id, offset);
        transactions.await_batch(producer_id, 0, 0);
        transactions.check(&header, false).unwrap();
        transactions.appended(&header);
    }

    fn spans(transactions: &Transactions, from: Offset, to: Offset) -> Vec<(i64, Offset)> {
        let found = transactions.aborted_in(from, to);
        found.iter().map(|s| (s.producer_id, s.first)).collect()
    }

    #[test]
    fn what_may_be_aborted_is_not_stable_until_its_marker_is_durable() {
        let mut t = Transactions::default();
        assert_eq!(t.first_unstable(100), None);
        begin(&mut t, 1, 10);
        begin(&mut t, 2, 20);
        assert_eq!(t.first_unstable(21), Some(10));
        t.ended(1, 30, true, 25, 0);
        assert_eq!(t.first_unstable(25), Some(10), "the marker may be lost");
        assert_eq!(t.first_unstable(31), Some(20));
        t.ended(2, 31, false, 31, 0);
        assert_eq!(t.first_unstable(32), None);
        assert_eq!(spans(&t, 0, 100), [(2, 20)]);
        assert_eq!(spans(&t, 32, 100), []);
        assert_eq!(spans(&t, 0, 20), []);
    }

    #[test]
    fn a_late_batch_begins_nothing() {
        let mut t = Transactions::default();
        let refused = |t: &Transactions| t.check(&header(1, 40), false).is_err();
        assert!(refused(&t), "nobody asked its coordinator");
        assert_eq!(t.await_batch(1, 0, 0), Before::Nothing);
        assert_eq!(t.await_batch(1, 0, 0), Before::Awaited);
        t.ended(1, 10, false, 10, 0);
        assert!(refused(&t), "a marker came between");
        assert_eq!(t.await_batch(1, 0, 0), Before::Nothing);
        begin(&mut t, 1, 11);
        assert_eq!(t.await_batch(1, 0, 0), Before::Open);
        assert!(!refused(&t));
        let mut plain = header(1, 12);
        plain.attributes = 0;
        assert!(t.check(&plain, false).is_err(), "not of the transaction");
    }

    #[test]
    fn a_batch_does_not_overtake_the_one_that_its_transaction_begins_with() {
        let mut t = Transactions::default();
        let mut second = header(1, 40);
        second.base_sequence = 1;
        // The first one is refused, as the transaction before is not over; the second one comes when it is.
        t.await_batch(1, 0, 0);
        t.await_batch(1, 0, 1);
        let refused = t.check(&second, false);
        assert!(matches!(
            refused,
            Err(PartitionError::OutOfOrderSequence { expected: 0, .. })
        ));
        assert_eq!(
            t.check(&second, true),
            Ok(()),
            "the log knows what comes next"
        );
        let first = header(1, 40);
        assert_eq!(t.check(&first, false), Ok(()));
        t.appended(&first);
        assert_eq!(t.check(&second, false), Ok(()));
        // One of a new epoch has nothing to do with what came before.
        t.await_batch(2, 0, 0);
        t.await_batch(2, 1, 5);
        let mut begun_anew = header(2, 41);
        (begun_anew.producer_epoch, begun_anew.base_sequence) = (1, 5);
        assert_eq!(t.check(&begun_anew, false), Ok(()));
    }

    #[test]
    fn a_checkpoint_keeps_what_is_durable() {
        let mut t = Transactions::default();
        begin(&mut t, 1, 10);
        t.ended(1, 11, false, 12, 0);
        begin(&mut t, 2, 12);
        t.ended(2, 13, true, 12, 0);
        begin(&mut t, 3, 14);
        t.ended(3, 15, false, 12, 0);
        begin(&mut t, 3, 16);
        begin(&mut t, 4, 17);
        for (durable, aborted, first) in [
            (12, vec![(1, 10)], None),
            (13, vec![(1, 10)], Some(12)),
            (15, vec![(1, 10)], Some(14)),
            (17, vec![(1, 10), (3, 14)], Some(16)),
            (18, vec![(1, 10), (3, 14)], Some(16)),
        ] {
            let mut back = Transactions::default();
            back.restore(&t.durable_spans(durable));
            assert_eq!(spans(&back, 0, 100), aborted, "durable {durable}");
            assert_eq!(back.first_unstable(durable), first, "durable {durable}");
        }
    }

    #[test]
    fn what_is_not_in_the_log_any_more_is_forgotten() {
        let mut t = Transactions::default();
        for i in 0..10 {
            begin(&mut t, i, i * 10);
            t.ended(i, i * 10 + 5, false, i * 10 + 6, (i - 3) * 10);
        }
        assert_eq!(t.aborted.len(), 4);
        assert_eq!(spans(&t, 0, 72), [(6, 60), (7, 70)]);
    }
}
