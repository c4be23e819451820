//! Owns what a log does where its own files cannot be read back: it leaves them as they are and goes on.
//! Does not know recovery, nor repairs.
//! Invariant: what is damaged stays damaged to every reader; nothing else is lost or held up by it.

use super::segment::UnsavedSums;
use super::{Log, Partition, Segment};
use crate::rt;
use crate::types::Offset;
use std::io;

/// Whether bytes that should be there are damaged or gone, rather than the device in trouble.
pub fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound
    )
}

impl Partition {
    /// The last block on disk of a segment cannot be added to. What is still in the journal goes into a
    /// new segment instead: the flush of a whole shard must not wait for one damaged block.
    pub(super) fn leave_segment(&self, base: Offset, error: &io::Error) {
        tracing::error!(
            partition = %self.dir.display(), segment = base, %error,
            "damaged: the log goes on in a new segment; `millrace log verify` says what is lost"
        );
        let interval = u64::from(self.config().index_interval_bytes);
        self.log.borrow_mut().split_unflushed(base, interval);
    }

    pub(super) fn report_unfinished(&self, base: Offset, error: &io::Error) {
        tracing::error!(
            partition = %self.dir.display(), segment = base, %error,
            "damaged: the segment is left as it is"
        );
    }
}

impl Log {
    /// Lets segment `base` end before its first entry that is not wholly on disk; that one and those
    /// behind it go into a segment of their own. Where nothing would be left, the segment begins again.
    fn split_unflushed(&mut self, base: Offset, index_interval: u64) {
        let at = self.segment_at(base).expect("planned a moment ago");
        let limit = self.segments.get(at + 1).map_or(Offset::MAX, |s| s.base);
        let first = self.tail[self.tail_flushed];
        let start = u64::from(first.segment_position);
        let old = &mut self.segments[at];
        old.files = None;
        old.carried = None;
        if start == 0 {
            old.disk_bytes = 0;
            old.sums = UnsavedSums::default();
            return;
        }
        let mut new = Segment {
            bytes: old.bytes - start,
            next_offset: old.next_offset,
            closed: old.closed,
            ..Segment::new(first.base_offset, rt::now())
        };
        old.bytes = start;
        old.disk_bytes = old.disk_bytes.min(start);
        old.next_offset = first.base_offset;
        old.closed = true;
        (old.max_timestamp_ms, old.max_timestamp_offset) = old.disk_max_timestamp;
        old.index
            .cut(start as u32, (first.base_offset - base) as u32);
        let moved = self.tail.iter_mut().skip(self.tail_flushed);
        for entry in moved.take_while(|e| e.base_offset < limit) {
            entry.segment_position -= start as u32;
            new.index.note(
                (entry.next_offset() - 1 - new.base) as u32,
                entry.segment_position,
                entry.bytes,
                entry.max_timestamp_ms,
                index_interval,
            );
            if entry.max_timestamp_ms > new.max_timestamp_ms {
                new.max_timestamp_ms = entry.max_timestamp_ms;
                new.max_timestamp_offset = entry.base_offset;
            }
        }
        self.segments.insert(at + 1, new);
    }
}
