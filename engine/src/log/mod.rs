//! Owns one partition's log: offsets, tail in memory, segments on disk, producers, epochs.
//! Does not know connections, other partitions or how the metadata is agreed on.
//! Invariant: log_start <= high_watermark <= durable <= appended, and in_segment <= durable.

pub mod append;
pub mod compact;
pub mod damage;
pub mod epochs;
pub mod flush;
pub mod folder;
pub mod index;
pub mod inflate;
pub mod marker;
pub mod newest;
pub mod producers;
pub mod read;
pub mod records;
pub mod restore;
pub mod retain;
pub mod segment;
#[cfg(test)]
mod tests;
pub mod time_lookup;
pub mod transactions;

use crate::api::RecordChunk;
use crate::error::PartitionError;
use crate::journal::{Durable, Journal};
use crate::meta::{Topic, TopicConfig};
use crate::replica::Progress;
use crate::rt::{Mono, Notify, Semaphore};
use crate::types::{Offset, PartitionId};
use compact::pass::Pinned;
use compact::Cleaned;
use epochs::EpochHistory;
use index::Index;
use producers::Producers;
use segment::{SegmentFiles, UnsavedSums};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use transactions::Transactions;

/// A batch that is in the journal's memory: 48 bytes each.
#[derive(Clone, Copy, Debug)]
pub struct TailEntry {
    pub base_offset: Offset,
    pub max_timestamp_ms: i64,
    pub sequence: u64,
    pub buffer_position: u32,
    pub bytes: u32,
    pub segment_position: u32,
    pub last_delta: u32,
}

impl TailEntry {
    pub fn next_offset(&self) -> Offset {
        self.base_offset + i64::from(self.last_delta) + 1
    }

    pub fn segment_end(&self) -> u64 {
        u64::from(self.segment_position) + u64::from(self.bytes)
    }
}

/// What waits for a journal commit to be durable.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    pub sequence: u64,
    pub end: Offset,
    /// When the first of it was appended.
    pub since: Mono,
}

/// Live bytes of a block, and the journal sequence that carries them over.
#[derive(Clone)]
pub struct Carried {
    pub block_position: u64,
    pub bytes: Vec<u8>,
    pub sequence: u64,
}

/// One segment as the log sees it; sizes in bytes.
pub struct Segment {
    pub base: Offset,
    /// Bytes assigned to it, on disk or still in the tail.
    pub bytes: u64,
    /// Bytes on disk and synced: whole blocks, or everything where the last block is padded.
    pub disk_bytes: u64,
    pub next_offset: Offset,
    pub max_timestamp_ms: i64,
    /// Base offset of the batch with the largest timestamp.
    pub max_timestamp_offset: Offset,
    /// The same two of the batches that are wholly on disk.
    pub disk_max_timestamp: (i64, Offset),
    pub opened: Mono,
    /// Timestamp of the batch that it was opened for; None where it was opened by an earlier start.
    pub first_timestamp_ms: Option<i64>,
    /// No more appends: rolled, or left behind by a crash.
    pub closed: bool,
    /// Closed, wholly on disk, cut to size and its index written.
    pub finished: bool,
    /// Index of the bytes from `index_from` on (0 unless the segment was reopened).
    pub index: Index,
    pub index_from: u64,
    /// As of the last sync, also while no file is open.
    pub sums: UnsavedSums,
    /// Of the padded block that is about to be rewritten; kept until it was, so that another try neither
    /// reads what the first one may have torn nor fills the journal with the same bytes again.
    pub carried: Option<Carried>,
    pub files: Option<Rc<SegmentFiles>>,
}

impl Segment {
    pub fn new(base: Offset, opened: Mono) -> Segment {
        Segment {
            base,
            bytes: 0,
            disk_bytes: 0,
            next_offset: base,
            max_timestamp_ms: -1,
            max_timestamp_offset: base,
            disk_max_timestamp: (-1, base),
            opened,
            first_timestamp_ms: None,
            closed: false,
            finished: false,
            index: Index::default(),
            index_from: 0,
            sums: UnsavedSums::default(),
            carried: None,
            files: None,
        }
    }
}

/// The mutable state of a partition. Borrowed only between awaits.
pub struct Log {
    pub log_start: Offset,
    /// Where the log start goes once that is durable: nobody is told before.
    pub log_start_asked: Offset,
    pub next_offset: Offset,
    pub progress: Progress,
    /// Appended but not known durable, oldest first.
    pub pending: VecDeque<Pending>,
    pub epochs: EpochHistory,
    pub producers: Producers,
    pub transactions: Transactions,
    /// Ordered by base offset; the last one takes appends unless closed.
    pub segments: VecDeque<Segment>,
    pub tail: VecDeque<TailEntry>,
    /// How many entries at the front of `tail` are wholly on disk.
    pub tail_flushed: usize,
    pub truncation: u32,
    pub cleaned: Cleaned,
    /// First offset of acknowledged data that is damaged: nothing at or behind it is served.
    pub offline_from: Option<Offset>,
}

/// One partition on its owning shard.
pub struct Partition {
    pub id: PartitionId,
    pub topic: RefCell<Arc<Topic>>,
    pub dir: PathBuf,
    pub journal: Rc<Journal>,
    pub log: RefCell<Log>,
    /// Fetches that wait for the high watermark to pass.
    parked: RefCell<Vec<Rc<Notify>>>,
    /// One flush, roll or deletion of files at a time.
    pub files_lock: Semaphore,
    /// Whether the shard's list of partitions to flush has this one.
    pub dirty: Cell<bool>,
    pub deleted: Cell<bool>,
    /// The folder is there and says that it is this partition's.
    folder_claimed: Cell<bool>,
    /// Beginnings and ends of exchanges of segments by compaction: odd while one is under way. What was planned before
    /// a change may have met files of both.
    pub exchanges: Cell<u64>,
    /// An exchange may have begun that did not end: nothing is compacted before the next start has put that right.
    stuck: Cell<bool>,
    /// Of an exchange that failed in the middle.
    pinned: RefCell<Pinned>,
    /// Where the journal goes on by the newest durable checkpoint: it names all segments below.
    pub checkpointed: Cell<Offset>,
    /// First offsets of segments that are no part of the log any more and whose files are still to be removed.
    dropped: RefCell<BTreeSet<Offset>>,
    /// Of the whole shard: files of dropped segments are removed one after the other.
    removals: Rc<Semaphore>,
    /// Segments whose files were opened and that the shard's list of open files does not have yet.
    newly_open: RefCell<Vec<Offset>>,
}

impl Durable for Partition {
    fn durable_through(&self, sequence: u64) {
        let advanced = {
            let mut log = self.log.borrow_mut();
            let mut end = None;
            while log.pending.front().is_some_and(|p| p.sequence <= sequence) {
                end = log.pending.pop_front().map(|p| p.end);
            }
            let advanced = end.is_some_and(|end| log.progress.durable_to(end));
            log.check_order();
            advanced
        };
        if advanced {
            self.wake_parked();
        }
    }
}

impl Partition {
    pub fn new(
        id: PartitionId,
        topic: Arc<Topic>,
        dir: PathBuf,
        journal: Rc<Journal>,
        removals: Rc<Semaphore>,
        log: Log,
    ) -> Rc<Partition> {
        log.check_order();
        Rc::new(Partition {
            id,
            topic: RefCell::new(topic),
            dir,
            journal,
            log: RefCell::new(log),
            parked: RefCell::new(Vec::new()),
            files_lock: Semaphore::new(1),
            dirty: Cell::new(false),
            deleted: Cell::new(false),
            folder_claimed: Cell::new(false),
            exchanges: Cell::new(0),
            stuck: Cell::new(false),
            pinned: RefCell::default(),
            checkpointed: Cell::new(0),
            dropped: RefCell::default(),
            removals,
            newly_open: RefCell::default(),
        })
    }

    pub fn config(&self) -> Arc<TopicConfig> {
        self.topic.borrow().config.clone()
    }

    pub fn leader_epoch(&self) -> i32 {
        let topic = self.topic.borrow();
        topic
            .partitions
            .get(self.id.index as usize)
            .map_or(0, |p| p.leader_epoch)
    }

    /// Registers a fetch to be woken by every advance of the high watermark.
    pub fn park(&self, waiter: &Rc<Notify>) {
        self.parked.borrow_mut().push(waiter.clone());
    }

    pub fn unpark(&self, waiter: &Rc<Notify>) {
        self.parked.borrow_mut().retain(|w| !Rc::ptr_eq(w, waiter));
    }

    pub fn wake_parked(&self) {
        for waiter in self.parked.borrow().iter() {
            waiter.notify_all();
        }
    }

    /// Compares a client's idea of the leader epoch with ours; -1 is no idea.
    pub fn check_epoch(&self, theirs: i32) -> Result<(), PartitionError> {
        let ours = self.leader_epoch();
        if theirs >= 0 && theirs < ours {
            return Err(PartitionError::FencedEpoch { theirs, ours });
        }
        if theirs > ours {
            return Err(PartitionError::UnknownEpoch { theirs, ours });
        }
        Ok(())
    }

    /// Segments whose files were opened since this was last asked.
    pub fn take_newly_open(&self) -> Vec<Offset> {
        self.newly_open.take()
    }

    /// Bytes in segments, assigned or on disk.
    pub fn bytes(&self) -> u64 {
        self.log.borrow().segments.iter().map(|s| s.bytes).sum()
    }
}

impl Log {
    /// An empty log that begins at offset 0.
    pub fn empty() -> Log {
        Log::at(0)
    }

    pub fn at(offset: Offset) -> Log {
        Log {
            log_start: offset,
            log_start_asked: offset,
            next_offset: offset,
            progress: Progress::single(offset),
            pending: VecDeque::new(),
            epochs: EpochHistory::default(),
            producers: Producers::default(),
            transactions: Transactions::default(),
            segments: VecDeque::new(),
            tail: VecDeque::new(),
            tail_flushed: 0,
            truncation: 0,
            cleaned: Cleaned::default(),
            offline_from: None,
        }
    }

    pub fn high_watermark(&self) -> Offset {
        self.progress.high_watermark()
    }

    /// Below it nothing can be aborted any more.
    pub fn last_stable(&self) -> Offset {
        let high_watermark = self.progress.high_watermark();
        let unstable = self.transactions.first_unstable(high_watermark);
        // Records may be deleted while their transaction is open.
        let stable = unstable.map_or(high_watermark, |first| first.min(high_watermark));
        stable.max(self.log_start)
    }

    /// First offset that is not wholly in a segment on disk.
    pub fn in_segment(&self) -> Offset {
        self.tail
            .get(self.tail_flushed)
            .map_or(self.next_offset, |e| e.base_offset)
    }

    /// Journal sequence of the oldest entry that is only in the journal.
    pub fn first_unflushed(&self) -> Option<u64> {
        self.tail.get(self.tail_flushed).map(|e| e.sequence)
    }

    /// The order of the durable points; a violation is our own bug.
    pub fn check_order(&self) {
        let durable = self.progress.durable();
        let high_watermark = self.high_watermark();
        assert!(
            self.log_start <= high_watermark,
            "log start {} > {high_watermark}",
            self.log_start
        );
        assert!(
            high_watermark <= durable,
            "high watermark {high_watermark} > durable {durable}"
        );
        assert!(
            durable <= self.next_offset,
            "durable {durable} > end {}",
            self.next_offset
        );
        assert!(self.last_stable() <= high_watermark);
    }

    /// Forgets tail entries whose buffers the journal no longer holds.
    pub fn forget_evicted(&mut self, retained_first: u64) {
        while self.tail_flushed > 0
            && self
                .tail
                .front()
                .is_some_and(|e| e.sequence < retained_first)
        {
            self.tail.pop_front();
            self.tail_flushed -= 1;
        }
        if self.tail.is_empty() {
            self.tail.shrink_to_fit();
        }
    }

    /// Index in `segments` of the one that holds `offset`.
    pub fn segment_of(&self, offset: Offset) -> Option<usize> {
        let after = self.segments.partition_point(|s| s.base <= offset);
        after.checked_sub(1)
    }

    /// Index in `segments` of the one that begins at `base`; None once it was deleted.
    pub fn segment_at(&self, base: Offset) -> Option<usize> {
        self.segments.binary_search_by_key(&base, |s| s.base).ok()
    }

    /// The segment that begins at `base`; None once it was deleted.
    pub fn segment(&self, base: Offset) -> Option<&Segment> {
        self.segment_at(base).map(|index| &self.segments[index])
    }

    pub fn segment_mut(&mut self, base: Offset) -> Option<&mut Segment> {
        self.segment_at(base).map(|index| &mut self.segments[index])
    }
}

/// Bytes of a batch in the journal's memory.
pub fn tail_chunk(journal: &Journal, entry: &TailEntry) -> Option<RecordChunk> {
    let buf = journal.buffer(entry.sequence)?;
    let start = entry.buffer_position as usize;
    Some(RecordChunk::Tail(buf, start..start + entry.bytes as usize))
}
