//! Owns what a partition knows of its idempotent producers: epoch and the last five batches.
//! Does not know clocks or files; `now_ms` comes in, the checkpoint takes `entries`.
//! Invariants: a batch that was stored is never accepted a second time while it is remembered; of a producer of which
//! nothing is stored, no batch overtakes one that was refused for the moment.

use crate::error::PartitionError;
use crate::types::batch::{sequence_add, BatchHeader};
use crate::types::limits::{PRODUCERS_PER_PARTITION_MAX, PRODUCER_BATCHES};
use crate::types::Offset;
use hashbrown::HashMap;
use std::collections::VecDeque;

/// One stored batch of a producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredBatch {
    pub epoch: i16,
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub timestamp_ms: i64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Producer {
    /// Monotonic milliseconds of the last append: for expiry only.
    pub seen_ms: i64,
    /// Oldest first; never empty. The last `PRODUCER_BATCHES` answer duplicates; older ones stay
    /// only while newer ones are not durable, so that a checkpoint can leave those out.
    batches: VecDeque<StoredBatch>,
}

impl Producer {
    pub fn epoch(&self) -> i16 {
        self.last().epoch
    }

    fn last(&self) -> &StoredBatch {
        self.batches.back().expect("a known producer has a batch")
    }
}

/// Where what is known of a producer ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastOf {
    /// Offset of its last record; None where only markers are remembered.
    pub data: Option<Offset>,
    pub epoch: i16,
}

/// The first batch of a producer of which nothing is stored, refused for a reason that passes.
#[derive(Clone, Copy, Debug)]
struct Refused {
    epoch: i16,
    first_sequence: i32,
    seen_ms: i64,
}

/// What to do with a batch of an idempotent producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Store,
    /// It was stored before, here.
    Duplicate(StoredBatch),
}

#[derive(Clone, Default, Debug)]
pub struct Producers {
    by_id: HashMap<i64, Producer>,
    /// None of them is in `by_id`. Lost with the process, as are the connections that requests were under way on.
    refused: HashMap<i64, Refused>,
}

/// Makes room for one more by forgetting who was silent longest.
fn make_room<T>(map: &mut HashMap<i64, T>, seen_ms: impl Fn(&T) -> i64) {
    if map.len() >= PRODUCERS_PER_PARTITION_MAX {
        let idle = map
            .iter()
            .min_by_key(|(_, p)| seen_ms(p))
            .map(|(id, _)| *id);
        idle.and_then(|id| map.remove(&id));
    }
}

impl Producers {
    /// Whether there are batches of the producer.
    pub fn knows(&self, producer_id: i64) -> bool {
        self.by_id.contains_key(&producer_id)
    }

    pub fn check(&self, header: &BatchHeader) -> Result<Verdict, PartitionError> {
        let producer_id = header.producer_id;
        let Some(known) = self.by_id.get(&producer_id) else {
            // Never seen, or forgotten: whatever sequence it brings is where it begins, unless an earlier one was refused
            // and is on its way again.
            let earlier = |r: &&Refused| {
                r.epoch == header.producer_epoch && r.first_sequence < header.base_sequence
            };
            return match self.refused.get(&producer_id).filter(earlier) {
                Some(refused) => Err(PartitionError::OutOfOrderSequence {
                    producer_id,
                    got: header.base_sequence,
                    expected: refused.first_sequence,
                }),
                None => Ok(Verdict::Store),
            };
        };
        let (got_epoch, current) = (header.producer_epoch, known.epoch());
        if got_epoch < current {
            return Err(PartitionError::ProducerFenced {
                producer_id,
                got: got_epoch,
                current,
            });
        }
        // A coordinator's batch for the producer; the coordinator knows what it wrote.
        if header.base_sequence < 0 {
            return Ok(Verdict::Store);
        }
        let got = header.base_sequence;
        if got_epoch > current {
            return match got {
                0 => Ok(Verdict::Store),
                _ => Err(PartitionError::OutOfOrderSequence {
                    producer_id,
                    got,
                    expected: 0,
                }),
            };
        }
        let same = |b: &&StoredBatch| {
            b.epoch == current
                && b.first_sequence == got
                && b.last_sequence == header.last_sequence()
        };
        if let Some(stored) = known.batches.iter().rev().take(PRODUCER_BATCHES).find(same) {
            return Ok(Verdict::Duplicate(*stored));
        }
        let expected = sequence_add(known.last().last_sequence, 1);
        if got != expected {
            return Err(PartitionError::OutOfOrderSequence {
                producer_id,
                got,
                expected,
            });
        }
        Ok(Verdict::Store)
    }

    /// Remembers a stored batch. `header` carries its final offset; what lies below `durable` is
    /// on stable storage.
    pub fn record(&mut self, header: &BatchHeader, now_ms: i64, durable: Offset) {
        self.refused.remove(&header.producer_id);
        if !self.by_id.contains_key(&header.producer_id) {
            make_room(&mut self.by_id, |p| p.seen_ms);
        }
        let fresh = Producer {
            seen_ms: now_ms,
            batches: VecDeque::new(),
        };
        let producer = self.by_id.entry(header.producer_id).or_insert(fresh);
        producer.seen_ms = now_ms;
        producer.batches.push_back(StoredBatch {
            epoch: header.producer_epoch,
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            timestamp_ms: header.max_timestamp,
        });
        while producer
            .batches
            .get(PRODUCER_BATCHES)
            .is_some_and(|b| b.last_offset < durable)
        {
            producer.batches.pop_front();
        }
    }

    /// The last batch or marker of a producer.
    pub fn last_of(&self, producer_id: i64) -> Option<StoredBatch> {
        self.by_id.get(&producer_id).map(|known| *known.last())
    }

    /// The last of every producer.
    pub fn last_of_all(&self) -> HashMap<i64, LastOf> {
        let last = |known: &Producer| {
            let data = known.batches.iter().rev().find(|b| b.first_sequence >= 0);
            LastOf {
                data: data.map(|b| b.last_offset),
                epoch: known.epoch(),
            }
        };
        self.by_id.iter().map(|(id, p)| (*id, last(p))).collect()
    }

    /// The last batch or marker of every producer, by its id.
    pub fn last_batches(&self) -> Vec<(i64, StoredBatch)> {
        let last = self.by_id.iter().map(|(id, known)| (*id, *known.last()));
        let mut last: Vec<_> = last.collect();
        last.sort_unstable_by_key(|(id, _)| *id);
        last
    }

    /// Remembers a batch that has no sequence, a marker or one of a coordinator's: it takes none of the producer's.
    pub fn record_without_sequence(&mut self, header: &BatchHeader, now_ms: i64, durable: Offset) {
        let known = self.by_id.get(&header.producer_id).map(Producer::last);
        let same = known.filter(|last| last.epoch == header.producer_epoch);
        let last_sequence = same.map_or(-1, |last| last.last_sequence);
        self.record(header, now_ms, durable);
        let producer = self.by_id.get_mut(&header.producer_id);
        let stored = producer.and_then(|producer| producer.batches.back_mut());
        let stored = stored.expect("it has just been recorded");
        (stored.first_sequence, stored.last_sequence) = (-1, last_sequence);
    }

    /// Remembers that a batch was refused for a reason that passes: those behind it in its producer's sequence have to
    /// wait for it.
    pub fn note_refused(&mut self, header: &BatchHeader, now_ms: i64) {
        let id = header.producer_id;
        if self.by_id.contains_key(&id) {
            return;
        }
        let refused = Refused {
            epoch: header.producer_epoch,
            first_sequence: header.base_sequence,
            seen_ms: now_ms,
        };
        let goes_first = |r: &Refused| {
            refused.epoch > r.epoch
                || (refused.epoch == r.epoch && refused.first_sequence < r.first_sequence)
        };
        match self.refused.get_mut(&id) {
            Some(known) if goes_first(known) => *known = refused,
            Some(known) => known.seen_ms = now_ms,
            None => {
                make_room(&mut self.refused, |r| r.seen_ms);
                self.refused.insert(id, refused);
            }
        }
    }

    /// What a checkpoint may keep: the last batches of each producer that are below `durable`.
    pub fn durable_entries(&self, durable: Offset) -> Vec<(i64, Vec<StoredBatch>)> {
        let mut out = Vec::with_capacity(self.by_id.len());
        for (id, producer) in &self.by_id {
            let sure = producer
                .batches
                .iter()
                .filter(|b| b.last_offset < durable)
                .count();
            let kept: Vec<StoredBatch> = producer
                .batches
                .iter()
                .take(sure)
                .skip(sure.saturating_sub(PRODUCER_BATCHES))
                .copied()
                .collect();
            if !kept.is_empty() {
                out.push((*id, kept));
            }
        }
        out
    }

    /// Puts back what a checkpoint kept; an empty list is nothing to know.
    pub fn restore(&mut self, id: i64, batches: Vec<StoredBatch>, now_ms: i64) {
        if !batches.is_empty() {
            self.by_id.insert(
                id,
                Producer {
                    seen_ms: now_ms,
                    batches: batches.into(),
                },
            );
        }
    }

    /// Forgets producers that were silent since before `before_ms`.
    pub fn expire(&mut self, before_ms: i64) {
        self.by_id.retain(|_, p| p.seen_ms >= before_ms);
        self.refused.retain(|_, r| r.seen_ms >= before_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::batch::build;

    fn header(epoch: i16, sequence: i32, count: i32, offset: Offset) -> BatchHeader {
        let mut h =
            BatchHeader::parse(&build::batch(count, b"", 1, Some((9, epoch, sequence)))).unwrap();
        h.base_offset = offset;
        h
    }

    fn after(batches: &[(i16, i32, i32)]) -> Producers {
        let mut producers = Producers::default();
        let mut offset = 100;
        for (epoch, sequence, count) in batches {
            producers.record(&header(*epoch, *sequence, *count, offset), 0, Offset::MAX);
            offset += Offset::from(*count);
        }
        producers
    }

    #[test]
    fn duplicates_get_their_old_offset_and_gaps_are_refused() {
        let producers = after(&[(0, 0, 2), (0, 2, 3), (0, 5, 1)]);
        let duplicate = producers.check(&header(0, 2, 3, 0)).unwrap();
        assert!(
            matches!(duplicate, Verdict::Duplicate(b) if b.base_offset == 102 && b.last_offset == 104)
        );
        assert_eq!(producers.check(&header(0, 6, 4, 0)), Ok(Verdict::Store));
        for bad in [7, 1, 3] {
            let error = producers.check(&header(0, bad, 1, 0)).unwrap_err();
            assert!(
                matches!(
                    error,
                    PartitionError::OutOfOrderSequence { expected: 6, .. }
                ),
                "{bad}"
            );
        }
    }

    #[test]
    fn only_the_last_five_are_remembered() {
        let producers = after(&[
            (0, 0, 1),
            (0, 1, 1),
            (0, 2, 1),
            (0, 3, 1),
            (0, 4, 1),
            (0, 5, 1),
        ]);
        assert!(producers.check(&header(0, 0, 1, 0)).is_err());
        assert!(matches!(
            producers.check(&header(0, 1, 1, 0)),
            Ok(Verdict::Duplicate(_))
        ));
    }

    #[test]
    fn epochs_fence_and_begin_at_zero() {
        let producers = after(&[(3, 0, 1)]);
        let fenced = producers.check(&header(2, 1, 1, 0)).unwrap_err();
        assert!(matches!(
            fenced,
            PartitionError::ProducerFenced {
                got: 2,
                current: 3,
                ..
            }
        ));
        assert_eq!(producers.check(&header(4, 0, 1, 0)), Ok(Verdict::Store));
        assert!(producers.check(&header(4, 1, 1, 0)).is_err());
    }

    #[test]
    fn a_checkpoint_leaves_out_what_is_not_durable_and_keeps_five() {
        let mut producers = Producers::default();
        for i in 0..12 {
            producers.record(
                &header(if i < 9 { 0 } else { 1 }, i % 9, 1, Offset::from(i)),
                0,
                4,
            );
        }
        let kept = producers.durable_entries(7);
        let offsets: Vec<Offset> = kept[0].1.iter().map(|b| b.base_offset).collect();
        assert_eq!(offsets, [2, 3, 4, 5, 6]);
        let mut back = Producers::default();
        back.restore(9, kept[0].1.clone(), 0);
        assert_eq!(back.check(&header(0, 7, 1, 0)), Ok(Verdict::Store));
        assert!(matches!(
            back.check(&header(0, 6, 1, 0)),
            Ok(Verdict::Duplicate(_))
        ));
    }

    #[test]
    fn nothing_overtakes_a_first_batch_that_was_refused_for_the_moment() {
        let mut producers = Producers::default();
        producers.note_refused(&header(0, 3, 2, 0), 0);
        producers.note_refused(&header(0, 5, 1, 0), 0);
        let overtakes = producers.check(&header(0, 5, 1, 0)).unwrap_err();
        assert!(matches!(
            overtakes,
            PartitionError::OutOfOrderSequence {
                got: 5,
                expected: 3,
                ..
            }
        ));
        assert_eq!(producers.check(&header(1, 5, 1, 0)), Ok(Verdict::Store));
        assert_eq!(producers.check(&header(0, 3, 2, 0)), Ok(Verdict::Store));
        producers.record(&header(0, 3, 2, 100), 0, Offset::MAX);
        assert_eq!(producers.check(&header(0, 5, 1, 0)), Ok(Verdict::Store));

        let mut given_up = Producers::default();
        given_up.note_refused(&header(0, 0, 1, 0), 0);
        given_up.note_refused(&header(1, 4, 1, 0), 7);
        assert!(given_up.check(&header(1, 5, 1, 0)).is_err());
        given_up.expire(8);
        assert_eq!(given_up.check(&header(1, 5, 1, 0)), Ok(Verdict::Store));
    }

    #[test]
    fn sequences_wrap() {
        let producers = after(&[(0, i32::MAX - 1, 2)]);
        assert_eq!(producers.check(&header(0, 0, 1, 0)), Ok(Verdict::Store));
    }

    #[test]
    fn the_idlest_producer_makes_room_and_silence_expires() {
        let mut producers = Producers::default();
        for id in 0..PRODUCERS_PER_PARTITION_MAX as i64 + 1 {
            let mut h = header(0, 0, 1, id);
            h.producer_id = id;
            producers.record(&h, id, Offset::MAX);
        }
        assert_eq!(producers.by_id.len(), PRODUCERS_PER_PARTITION_MAX);
        assert!(!producers.by_id.contains_key(&0));
        producers.expire(PRODUCERS_PER_PARTITION_MAX as i64);
        assert_eq!(producers.by_id.len(), 1);
    }
}
