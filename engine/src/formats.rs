//! Owns the door to what the engine stores, format by format, for those who feed hostile bytes to its readers.
//! Does not know any format; everything here is defined where it is used.
//! Invariant: nothing that runs a broker comes in here: `net` may not, and `api` is what `bin` uses.

pub use crate::checkpoint::{Checkpoint, PartitionState, SegmentState};
pub use crate::inspect::segment::{check as check_segment, Contents, Expected};
pub use crate::inspect::walk::{Seen, Walker};
pub use crate::journal::entry::{
    body_crc, entries, CarryOver, CommitHeader, EntryHeader, EntryKind, JournalId, ENTRY_BYTES,
    HEADER_BYTES,
};
pub use crate::journal::recover::{Commit, Scan as JournalScan};
pub use crate::log::epochs::EpochHistory;
pub use crate::log::index::{segment_stem, Index, OffsetEntry, TimeEntry};
pub use crate::log::records::{RecordTime, Search, Wanted};
pub use crate::log::segment::{block_sum, Scan as SegmentScan, SegmentFiles, UnsavedSums};
pub use crate::manifest::{JournalRef, Manifest};

/// The small files of an Apache Kafka log directory.
pub mod kafka {
    pub use crate::adopt::source::{latest_epoch, offsets, producers, topic_id};
}
