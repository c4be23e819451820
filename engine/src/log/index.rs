//! Owns a segment's sparse indexes: offset to byte position, timestamp to offset, in Kafka's format.
//! Does not know files. Invariant: entries only grow; what they point at is a hint to be verified.

use crate::types::Offset;

const OFFSET_ENTRY_BYTES: usize = 8;
const TIME_ENTRY_BYTES: usize = 12;

/// Offsets are relative to the segment's base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OffsetEntry {
    pub relative: u32,
    pub position: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeEntry {
    pub timestamp_ms: i64,
    pub relative: u32,
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Index {
    offsets: Vec<OffsetEntry>,
    times: Vec<TimeEntry>,
    bytes_since_entry: u64,
    max_timestamp_ms: Option<i64>,
    max_timestamp_relative: u32,
}

impl Index {
    /// Notes one batch of `bytes` at `position`; adds an entry every `interval` bytes. As in
    /// Kafka, an offset entry names the last offset of the batch that it points at.
    pub fn note(
        &mut self,
        last_relative: u32,
        position: u32,
        bytes: u32,
        max_timestamp_ms: i64,
        interval: u64,
    ) {
        if self.max_timestamp_ms.is_none_or(|t| max_timestamp_ms > t) {
            self.max_timestamp_ms = Some(max_timestamp_ms);
            self.max_timestamp_relative = last_relative;
        }
        if self.bytes_since_entry > interval {
            self.offsets.push(OffsetEntry {
                relative: last_relative,
                position,
            });
            self.note_time();
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += u64::from(bytes);
    }

    fn note_time(&mut self) {
        let Some(timestamp_ms) = self.max_timestamp_ms.filter(|t| *t >= 0) else {
            return;
        };
        if self
            .times
            .last()
            .is_none_or(|last| timestamp_ms > last.timestamp_ms)
        {
            self.times.push(TimeEntry {
                timestamp_ms,
                relative: self.max_timestamp_relative,
            });
        }
    }

    /// Adds the segment's largest timestamp as its last time entry, as Kafka does when it rolls.
    pub fn finish(&mut self) {
        self.note_time();
    }

    /// Forgets what lies at or behind byte `position` and relative offset `relative`.
    pub fn cut(&mut self, position: u32, relative: u32) {
        self.offsets.retain(|e| e.position < position);
        self.times.retain(|e| e.relative < relative);
        if self.max_timestamp_relative >= relative {
            self.max_timestamp_ms = self.times.last().map(|t| t.timestamp_ms);
            self.max_timestamp_relative = self.times.last().map_or(0, |t| t.relative);
        }
    }

    /// Puts the entries of a later part of the same segment behind these.
    pub fn append(&mut self, later: Index) {
        let last = self.offsets.last().copied();
        let grows = |e: &OffsetEntry| {
            last.is_none_or(|l| e.relative > l.relative && e.position > l.position)
        };
        self.offsets.extend(later.offsets.into_iter().filter(grows));
        let newest = self.times.last().map(|t| t.timestamp_ms);
        self.times.extend(
            later
                .times
                .into_iter()
                .filter(|t| newest.is_none_or(|n| t.timestamp_ms > n)),
        );
        self.bytes_since_entry = later.bytes_since_entry;
        if later.max_timestamp_ms > self.max_timestamp_ms {
            self.max_timestamp_ms = later.max_timestamp_ms;
            self.max_timestamp_relative = later.max_timestamp_relative;
        }
    }

    /// Drops the time entries: what lies before them is not known, and may be later than they are.
    pub fn forget_times(&mut self) {
        self.times.clear();
        self.max_timestamp_ms = None;
        self.max_timestamp_relative = 0;
    }

    /// Where the batch of the last entry begins.
    pub fn last_position(&self) -> Option<u32> {
        self.offsets.last().map(|e| e.position)
    }

    /// Goes on behind the batch of the last entry, which has `bytes`.
    pub fn resume(&mut self, bytes: u32) {
        self.bytes_since_entry = u64::from(bytes);
    }

    pub fn offsets(&self) -> &[OffsetEntry] {
        &self.offsets
    }

    pub fn times(&self) -> &[TimeEntry] {
        &self.times
    }

    /// Where to begin scanning for `relative`: the last batch with an entry that ends before it; None for the beginning.
    pub fn entry_for(&self, relative: u32) -> Option<OffsetEntry> {
        let after = self.offsets.partition_point(|e| e.relative < relative);
        after.checked_sub(1).map(|i| self.offsets[i])
    }

    /// Where to begin scanning for records at or after `timestamp_ms`: at the batch with the largest timestamp of all
    /// before it, which is too old; None for the beginning.
    pub fn before_time(&self, timestamp_ms: i64) -> Option<TimeEntry> {
        let after = self
            .times
            .partition_point(|e| e.timestamp_ms < timestamp_ms);
        after.checked_sub(1).map(|i| self.times[i])
    }

    /// The bytes of `.index`: pairs of relative offset and position, big-endian.
    pub fn encode_offsets(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.offsets.len() * OFFSET_ENTRY_BYTES);
        for entry in &self.offsets {
            out.extend_from_slice(&entry.relative.to_be_bytes());
            out.extend_from_slice(&entry.position.to_be_bytes());
        }
        out
    }

    /// The bytes of `.timeindex`: pairs of timestamp and relative offset, big-endian.
    pub fn encode_times(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.times.len() * TIME_ENTRY_BYTES);
        for entry in &self.times {
            out.extend_from_slice(&entry.timestamp_ms.to_be_bytes());
            out.extend_from_slice(&entry.relative.to_be_bytes());
        }
        out
    }

    /// Reads both files back; None where they are not whole or do not grow: rebuild by scanning.
    /// `segment` is the segment's base offset, for the error that never is; `bytes` its size.
    pub fn decode(offsets: &[u8], times: &[u8], bytes: u64) -> Option<Index> {
        if !offsets.len().is_multiple_of(OFFSET_ENTRY_BYTES)
            || !times.len().is_multiple_of(TIME_ENTRY_BYTES)
        {
            return None;
        }
        let u32_at =
            |b: &[u8], i: usize| u32::from_be_bytes(b[i..i + 4].try_into().expect("four bytes"));
        let offsets: Vec<OffsetEntry> = offsets
            .chunks_exact(OFFSET_ENTRY_BYTES)
            .map(|b| OffsetEntry {
                relative: u32_at(b, 0),
                position: u32_at(b, 4),
            })
            .collect();
        let times: Vec<TimeEntry> = times
            .chunks_exact(TIME_ENTRY_BYTES)
            .map(|b| TimeEntry {
                timestamp_ms: i64::from_be_bytes(b[..8].try_into().expect("eight bytes")),
                relative: u32_at(b, 8),
            })
            .collect();
        let grows = offsets
            .windows(2)
            .all(|w| w[0].relative < w[1].relative && w[0].position < w[1].position)
            && times
                .windows(2)
                .all(|w| w[0].timestamp_ms < w[1].timestamp_ms)
            && offsets.last().is_none_or(|e| u64::from(e.position) < bytes);
        grows.then(|| Index {
            max_timestamp_ms: times.last().map(|t| t.timestamp_ms),
            max_timestamp_relative: times.last().map_or(0, |t| t.relative),
            offsets,
            times,
            bytes_since_entry: 0,
        })
    }
}

/// File name stem of a segment: Kafka's twenty digits.
pub fn segment_stem(base: Offset) -> String {
    format!("{base:020}")
}

/// First offset of the segment whose records are in a file of this name.
pub fn base_of_log(name: &str) -> Option<Offset> {
    name.strip_suffix(".log")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Index {
        let mut index = Index::default();
        for i in 0..10u32 {
            index.note(i * 10 + 9, i * 3000, 3000, 1_000 + i64::from(i), 4096);
        }
        index.finish();
        index
    }

    #[test]
    fn positions_never_lie_behind_the_offset() {
        let index = sample();
        for relative in 0..100u32 {
            let position = index.entry_for(relative).map_or(0, |e| e.position);
            assert!(
                position <= (relative / 10) * 3000,
                "offset {relative} gives {position}"
            );
        }
        assert!(
            index.entry_for(99).is_some_and(|e| e.position > 15_000),
            "the index is used at all"
        );
    }

    #[test]
    fn files_round_trip_and_broken_ones_are_not_believed() {
        let index = sample();
        let (offsets, times) = (index.encode_offsets(), index.encode_times());
        let back = Index::decode(&offsets, &times, 30_000).unwrap();
        assert_eq!(
            (back.encode_offsets(), back.encode_times()),
            (offsets.clone(), times.clone())
        );
        assert_eq!(Index::decode(&offsets[1..], &times, 30_000), None);
        assert_eq!(
            Index::decode(&offsets, &times, 100),
            None,
            "points behind the segment's end"
        );
        let mut swapped = offsets.clone();
        swapped.rotate_left(8);
        assert_eq!(Index::decode(&swapped, &times, 30_000), None);
    }

    #[test]
    fn times_find_a_place_at_or_before() {
        let index = sample();
        let relative = |time| index.before_time(time).map(|e| e.relative);
        assert_eq!(relative(0), None);
        assert!(relative(1_005).is_some_and(|r| r <= 59));
        assert!(relative(i64::MAX).is_some_and(|r| r <= 99));
    }
}
