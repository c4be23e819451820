//! Owns the joining of what was produced with what was then read, by partition and offset.
//! Does not know clocks or connections; either side may come first.
//! Invariant: each batch is joined at most once, and what cannot be joined any more is dropped, so memory is bounded.

use crate::clock::Nanos;
use std::collections::{HashMap, VecDeque};

/// Batches waiting for their other half, for each partition and side. Beyond it the oldest is given up.
const WAITING_MAX: usize = 1 << 16;

#[derive(Default)]
struct Partition {
    /// First offset and intended time of batches acknowledged but not yet read, ascending.
    produced: VecDeque<(i64, Nanos)>,
    /// First offset and time of batches read but not yet acknowledged, ascending.
    read: VecDeque<(i64, Nanos)>,
}

/// Joins produced and read batches.
#[derive(Default)]
pub struct Pairing {
    partitions: HashMap<i32, Partition>,
}

/// A batch that was meant to leave at `intended` and was in the reader's hands at `read`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    pub intended: Nanos,
    pub read: Nanos,
}

impl Pairing {
    pub fn produced(&mut self, partition: i32, base_offset: i64, intended: Nanos) -> Option<Pair> {
        let waiting = self.partitions.entry(partition).or_default();
        let read = take(&mut waiting.read, base_offset);
        if read.is_none() {
            put(&mut waiting.produced, base_offset, intended);
        }
        read.map(|read| Pair { intended, read })
    }

    pub fn read(&mut self, partition: i32, base_offset: i64, at: Nanos) -> Option<Pair> {
        let waiting = self.partitions.entry(partition).or_default();
        let intended = take(&mut waiting.produced, base_offset);
        if intended.is_none() {
            put(&mut waiting.read, base_offset, at);
        }
        intended.map(|intended| Pair { intended, read: at })
    }

    /// Batches that were acknowledged and wait to be read.
    pub fn unread(&self) -> usize {
        self.partitions
            .values()
            .map(|waiting| waiting.produced.len())
            .sum()
    }

    /// Forgets the batches that were not read; when each was meant to leave.
    pub fn give_up(&mut self) -> impl Iterator<Item = Nanos> + '_ {
        let partitions = self.partitions.values_mut();
        partitions.flat_map(|waiting| waiting.produced.drain(..).map(|entry| entry.1))
    }
}

/// Takes the entry of `offset`. What is below it stays: another connection may yet acknowledge it.
fn take(waiting: &mut VecDeque<(i64, Nanos)>, offset: i64) -> Option<Nanos> {
    let at = waiting
        .binary_search_by_key(&offset, |entry| entry.0)
        .ok()?;
    waiting.remove(at).map(|entry| entry.1)
}

fn put(waiting: &mut VecDeque<(i64, Nanos)>, offset: i64, time: Nanos) {
    if let Err(at) = waiting.binary_search_by_key(&offset, |entry| entry.0) {
        waiting.insert(at, (offset, time));
    }
    if waiting.len() > WAITING_MAX {
        waiting.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_side_may_come_first() {
        let mut pairing = Pairing::default();
        assert_eq!(pairing.produced(0, 10, Nanos(1)), None);
        assert_eq!(
            pairing.read(0, 10, Nanos(5)),
            Some(Pair {
                intended: Nanos(1),
                read: Nanos(5)
            })
        );
        assert_eq!(pairing.read(0, 20, Nanos(6)), None);
        assert_eq!(
            pairing.produced(0, 20, Nanos(2)),
            Some(Pair {
                intended: Nanos(2),
                read: Nanos(6)
            })
        );
        assert_eq!(pairing.read(0, 10, Nanos(9)), None, "joined once only");
    }

    #[test]
    fn partitions_and_foreign_batches_do_not_mix() {
        let mut pairing = Pairing::default();
        assert_eq!(pairing.produced(0, 10, Nanos(1)), None);
        assert_eq!(pairing.read(1, 10, Nanos(5)), None);
        assert_eq!(pairing.read(0, 5, Nanos(5)), None);
        assert_eq!(
            pairing.produced(0, 4, Nanos(2)),
            None,
            "acknowledged out of order"
        );
        assert_eq!(
            pairing.read(0, 4, Nanos(7)),
            Some(Pair {
                intended: Nanos(2),
                read: Nanos(7)
            })
        );
        assert!(pairing.read(0, 10, Nanos(8)).is_some());
    }

    #[test]
    fn what_is_never_read_takes_bounded_memory() {
        let mut pairing = Pairing::default();
        for offset in 0..WAITING_MAX as i64 + 10 {
            pairing.produced(0, offset, Nanos(0));
        }
        assert_eq!(pairing.unread(), WAITING_MAX);
        assert_eq!(pairing.read(0, 9, Nanos(1)), None);
        assert!(pairing.read(0, 10, Nanos(1)).is_some());
        assert_eq!(pairing.give_up().count(), WAITING_MAX - 1);
        assert_eq!(pairing.unread(), 0);
    }
}
