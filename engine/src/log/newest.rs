//! Owns which batch of a segment counts as its newest, by its largest timestamp.
//! Does not know files. Invariant: a batch that compaction emptied counts only where no batch has records.

use crate::types::batch::BatchHeader;
use crate::types::Offset;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Newest {
    /// Milliseconds; -1 where there is none.
    pub timestamp_ms: i64,
    /// Base offset of the batch; of the segment where there is none.
    pub batch: Offset,
    base: Offset,
    has_records: bool,
}

impl Newest {
    /// Of a segment that begins at `base` and has no batch yet.
    pub fn none(base: Offset) -> Newest {
        Newest {
            timestamp_ms: -1,
            batch: base,
            base,
            has_records: false,
        }
    }

    /// The next batch of the segment.
    pub fn note(&mut self, header: &BatchHeader) {
        let has_records = header.record_count > 0;
        if has_records && !self.has_records {
            *self = Newest {
                has_records,
                ..Newest::none(self.base)
            };
        }
        if has_records == self.has_records && header.max_timestamp > self.timestamp_ms {
            self.timestamp_ms = header.max_timestamp;
            self.batch = header.base_offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::batch::build;

    #[test]
    fn emptied_batches_count_only_among_themselves() {
        let newest = |batches: &[(i32, i64)]| {
            let mut newest = Newest::none(100);
            for (n, (count, timestamp)) in (110..).zip(batches) {
                let mut header =
                    BatchHeader::parse(&build::batch(*count, b"", *timestamp, None)).unwrap();
                header.base_offset = n;
                newest.note(&header);
            }
            (newest.timestamp_ms, newest.batch)
        };
        assert_eq!(newest(&[]), (-1, 100));
        assert_eq!(newest(&[(1, -1)]), (-1, 100));
        assert_eq!(newest(&[(0, 5), (0, 9), (0, 7)]), (9, 111));
        assert_eq!(newest(&[(0, 9), (2, 5), (1, 6), (0, 8)]), (6, 112));
    }
}
