//! Owns comparing a segment's index files with its batches, as these go by.
//! Does not know files. Invariant: an entry passes only if it names a batch that is there.

use crate::log::index::Index;
use crate::types::batch::BatchHeader;
use crate::types::Offset;

/// What an entry that fits no batch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misfit {
    /// Number of the entry in `.index`.
    Offset(usize),
    /// Number of the entry in `.timeindex`.
    Time(usize),
}

/// Follows the batches of a segment with its index in hand.
pub struct IndexCheck {
    index: Index,
    base: Offset,
    next_offset: usize,
    next_time: usize,
    max_timestamp_ms: i64,
    misfit: Option<Misfit>,
}

impl IndexCheck {
    pub fn new(index: Index, base: Offset) -> IndexCheck {
        IndexCheck {
            index,
            base,
            next_offset: 0,
            next_time: 0,
            max_timestamp_ms: i64::MIN,
            misfit: None,
        }
    }

    /// The next batch of the segment.
    pub fn note(&mut self, position: u64, header: &BatchHeader) {
        let relative = header.last_offset().wrapping_sub(self.base);
        if let Some(entry) = self.index.offsets().get(self.next_offset) {
            let at = u64::from(entry.position);
            if at == position && i64::from(entry.relative) == relative {
                self.next_offset += 1;
            } else if at <= position {
                self.misfit.get_or_insert(Misfit::Offset(self.next_offset));
                self.next_offset += 1;
            }
        }
        let grows = header.max_timestamp > self.max_timestamp_ms;
        self.max_timestamp_ms = self.max_timestamp_ms.max(header.max_timestamp);
        if let Some(entry) = self.index.times().get(self.next_time) {
            let at = i64::from(entry.relative);
            if at == relative && grows && entry.timestamp_ms == header.max_timestamp {
                self.next_time += 1;
            } else if at <= relative {
                self.misfit.get_or_insert(Misfit::Time(self.next_time));
                self.next_time += 1;
            }
        }
    }

    /// The first entry that fits no batch, once all batches went by. `whole`: the index is of no
    /// later moment than these batches, so that none may be left over.
    pub fn finish(self, whole: bool) -> Option<Misfit> {
        let left = |next: usize, all: usize| whole && next < all;
        if self.misfit.is_some() {
            return self.misfit;
        }
        if left(self.next_offset, self.index.offsets().len()) {
            return Some(Misfit::Offset(self.next_offset));
        }
        left(self.next_time, self.index.times().len()).then_some(Misfit::Time(self.next_time))
    }
}
