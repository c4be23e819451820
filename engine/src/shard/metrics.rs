//! Owns what a shard counts. Does not know how it is shown.
//! Invariant: a snapshot is plain data that may leave the shard's thread.

use super::space::DiskRoom;
use super::Shard;
use crate::error::PartitionError;
use crate::journal::JournalStats;
use crate::log::read::ReadBatches;

#[derive(Clone, Copy, Default, Debug)]
pub struct Counters {
    pub reads_memory: u64,
    pub reads_disk: u64,
    pub read_bytes: u64,
    pub appends_refused: u64,
    pub stalls: u64,
    pub scrubbed_bytes: u64,
    /// Blocks that the scrubber found damaged, each counted once.
    pub scrub_damaged_blocks: u64,
    pub compaction: CompactionCounters,
}

#[derive(Clone, Copy, Default, Debug)]
pub struct CompactionCounters {
    pub passes: u64,
    pub failures: u64,
    /// Read and written.
    pub moved_bytes: u64,
    /// By which segments got smaller.
    pub freed_bytes: u64,
    pub removed_records: u64,
    /// Kept whole, each time they were met, because their records cannot be read.
    pub unreadable_batches: u64,
}

/// One shard's figures; bytes and counts since start unless said otherwise.
#[derive(Clone, Debug)]
pub struct ShardMetrics {
    pub shard: usize,
    /// Partitions in memory now.
    pub partitions: usize,
    pub topics: usize,
    pub journal: JournalStats,
    /// Size of the journal's files now.
    pub journal_file_bytes: u64,
    /// Commit buffers in memory now.
    pub cache_bytes: usize,
    pub cache_bytes_max: u64,
    pub backlog_bytes: usize,
    pub request_bytes: u64,
    pub request_bytes_max: u64,
    pub response_bytes: u64,
    pub response_bytes_max: u64,
    pub cross_shard_calls: u64,
    pub disk: DiskRoom,
    pub counters: Counters,
}

impl Shard {
    pub(super) fn count_refused(&self, error: &PartitionError) {
        tracing::debug!(%error, "append refused");
        self.counters.borrow_mut().appends_refused += 1;
    }

    pub(super) fn count_read(&self, batches: &ReadBatches) {
        let mut counters = self.counters.borrow_mut();
        counters.read_bytes += batches.bytes as u64;
        if batches.cold {
            counters.reads_disk += 1;
        } else if batches.bytes > 0 {
            counters.reads_memory += 1;
        }
    }

    pub(super) fn count_stall(&self) {
        self.counters.borrow_mut().stalls += 1;
    }

    pub(super) fn count_scrubbed(&self, bytes: u64) {
        self.counters.borrow_mut().scrubbed_bytes += bytes;
    }

    pub(super) fn count_scrub_damage(&self) {
        self.counters.borrow_mut().scrub_damaged_blocks += 1;
    }

    pub fn metrics(&self) -> ShardMetrics {
        ShardMetrics {
            shard: self.index,
            partitions: self.partitions.borrow().len(),
            topics: self.image.borrow().topic_count(),
            journal: self.journal.stats(),
            journal_file_bytes: self.journal.ring().bytes(),
            cache_bytes: self.journal.retained_bytes(),
            cache_bytes_max: self.config.cache_bytes,
            backlog_bytes: self.journal.backlog_bytes(),
            request_bytes: self.request_memory.capacity() - self.request_memory.available(),
            request_bytes_max: self.request_memory.capacity(),
            response_bytes: self.responses.used(),
            response_bytes_max: self.config.response_bytes_max,
            cross_shard_calls: self.calls.sent(),
            disk: self.space.room(),
            counters: *self.counters.borrow(),
        }
    }
}
