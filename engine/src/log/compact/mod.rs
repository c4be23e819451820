//! Owns deciding what of a log is to be compacted, in what order, and which segments become one.
//! Does not know keys, files or when it is asked; see `filter` for what stays, `pass` for the work, `swap` for the files.
//! Invariant: nothing at or above the high watermark, the last stable offset or the newest segment is compacted.

pub mod copy;
pub mod deflate;
pub mod filter;
pub mod map;
pub mod pass;
pub mod reader;
pub mod records;
pub mod swap;
#[cfg(test)]
mod tests;

use super::{Log, Segment};
use crate::meta::TopicConfig;
use crate::plant::{self, Plant};
use crate::rt::Mono;
use crate::types::limits::COMPACTED_SEGMENTS_MAX;
use crate::types::Offset;

/// Bytes of an entry of an offset index.
const INDEX_ENTRY_BYTES: u64 = 8;

/// How far compaction has come in a log.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Cleaned {
    /// No key has two records below it, but for those that were too young or did not fit the memory. Lost with a
    /// checkpoint, it is found again by compacting again.
    pub below: Offset,
    /// Records may be missing below it: offsets need not follow each other there.
    pub gaps_below: Offset,
}

/// A part of a log that compaction is due for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Due {
    /// First offset that was not looked at before.
    pub from: Offset,
    /// Where the first segment begins that is left alone.
    pub end: Offset,
    /// Bytes that were not looked at before, as a part of all that will be.
    pub dirty_ratio: f64,
    /// Some of it is older than `max.compaction.lag.ms`: it does not wait for the ratio.
    pub overdue: bool,
}

/// A segment that will be compacted, or be part of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    pub base: Offset,
    pub bytes: u64,
    pub next_offset: Offset,
}

impl Log {
    /// What there is to compact; None where there is nothing. `oldest_ms` is the timestamp at the beginning of the dirty
    /// part, where that is known and of interest.
    pub fn compaction_due(
        &self,
        config: &TopicConfig,
        wall_ms: i64,
        now: Mono,
        oldest_ms: Option<i64>,
    ) -> Option<Due> {
        if self.offline_from.is_some() {
            return None;
        }
        let newest = self.segments.back()?.base;
        let from = self.cleaned.below.max(self.log_start).min(newest);
        let stable = match plant::active(Plant::CompactUnstable) {
            true => self.next_offset,
            false => self.last_stable().min(self.high_watermark()),
        };
        let lag = i64::try_from(config.min_compaction_lag_ms).unwrap_or(i64::MAX);
        let too_young = wall_ms.saturating_sub(lag);
        let is_left_alone = |s: &&Segment| {
            s.base >= newest
                || s.next_offset > stable
                || (lag > 0 && age_from(s, wall_ms, now) > too_young)
        };
        let mut dirty = self.segments.iter().filter(|s| s.next_offset > from);
        let end = dirty.clone().find(is_left_alone).map_or(newest, |s| s.base);
        if end <= from {
            return None;
        }
        let mut bytes = [0u64; 2];
        for segment in self.segments.iter().filter(|s| s.base < end) {
            bytes[usize::from(segment.next_offset > from)] += segment.bytes;
        }
        let [clean, unclean] = bytes;
        let first = dirty.next().filter(|s| s.bytes > 0);
        let oldest = oldest_ms.or(first.and_then(|s| s.first_timestamp_ms));
        let lag_max = i64::try_from(config.max_compaction_lag_ms).unwrap_or(i64::MAX);
        let overdue = oldest.is_some_and(|t| t >= 0 && t < wall_ms.saturating_sub(lag_max));
        (unclean > 0).then(|| Due {
            from,
            end,
            dirty_ratio: unclean as f64 / (clean + unclean) as f64,
            overdue,
        })
    }

    /// The segments below `end`, in their order.
    pub fn compaction_sources(&self, end: Offset) -> Vec<Source> {
        let below = self.segments.iter().take_while(|s| s.next_offset <= end);
        let source = |s: &Segment| Source {
            base: s.base,
            bytes: s.bytes,
            next_offset: s.next_offset,
        };
        below.map(source).collect()
    }
}

impl Due {
    /// Whether it is time.
    pub fn is_now(&self, config: &TopicConfig) -> bool {
        self.overdue || self.dirty_ratio > config.min_cleanable_dirty_ratio
    }
}

/// The time that `min.compaction.lag.ms` counts from: of its newest record, or of the segment where that has none.
fn age_from(segment: &Segment, wall_ms: i64, now: Mono) -> i64 {
    match segment.max_timestamp_ms {
        0.. => segment.max_timestamp_ms,
        ..0 => {
            let age = (now - segment.opened).as_millis();
            wall_ms.saturating_sub(i64::try_from(age).unwrap_or(i64::MAX))
        }
    }
}

/// Puts neighbours together that make one segment, by size, by what its index may take, and by how far its offsets may
/// lie from its first.
pub fn groups(sources: &[Source], config: &TopicConfig) -> Vec<Vec<Source>> {
    let entries = u64::from(config.segment_index_bytes) / INDEX_ENTRY_BYTES;
    let indexed = entries.saturating_mul(u64::from(config.index_interval_bytes).max(1));
    let bytes_max = u64::from(config.segment_bytes).min(indexed);
    let mut groups: Vec<Vec<Source>> = Vec::new();
    let mut bytes = 0;
    for source in sources {
        let fits = groups.last().is_some_and(|group| {
            let far = source.next_offset - 1 - group[0].base > Offset::from(i32::MAX);
            let many = group.len() >= COMPACTED_SEGMENTS_MAX;
            bytes + source.bytes <= bytes_max && !far && !many
        });
        if fits {
            bytes += source.bytes;
            let group = groups.last_mut();
            group.expect("there is one").push(*source);
        } else {
            bytes = source.bytes;
            groups.push(vec![*source]);
        }
    }
    groups
}
