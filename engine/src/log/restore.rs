//! Owns turning a partition into its checkpoint and back, and entering journal entries again.
//! Does not know journals' files or other partitions.
//! Invariant: the log after a restore and replay is the log that was acknowledged.

use super::append::Clock;
use super::compact::swap::{remove_new, NEW};
use super::epochs::EpochHistory;
use super::index::base_of_log;
use super::marker;
use super::segment::{remove_files, SegmentFiles, UnsavedSums};
use super::{Log, Partition, Segment};
use crate::checkpoint::{PartitionState, SegmentState};
use crate::journal::entry::{CarryOver, EntryHeader};
use crate::plant::{self, Plant};
use crate::replica::Progress;
use crate::rt::{self, Mono};
use crate::types::batch::BatchHeader;
use crate::types::limits::BLOCK_BYTES;
use crate::types::Offset;
use std::io;
use std::path::Path;
use std::rc::Rc;

/// What became of a journal entry that was entered again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replayed {
    Entered,
    /// Already part of the restored log.
    Known,
    /// Does not continue the log: something before it is missing.
    Gap,
}

impl Partition {
    /// The control state to put into a checkpoint: only what is durable.
    pub fn state(&self) -> PartitionState {
        let log = self.log.borrow();
        let resume = log.in_segment();
        let durable = log.progress.durable();
        let mut epochs = log.epochs.clone();
        epochs.truncate_to(durable.max(resume));
        let mut segments: Vec<SegmentState> = Vec::with_capacity(log.segments.len());
        let mut disk_max_timestamp = (-1, 0);
        for segment in &log.segments {
            if segment.base > resume || (segment.base == resume && segment.bytes == 0) {
                break;
            }
            disk_max_timestamp = segment.disk_max_timestamp;
            segments.push(segment_state(segment));
        }
        if let Some(entry) = log.tail.get(log.tail_flushed) {
            // The first entry that is not wholly on disk: its segment ends before it.
            match segments.last_mut() {
                Some(last) if last.base == entry.base_offset => {
                    segments.pop();
                }
                Some(last) if last.next_offset > entry.base_offset => {
                    last.bytes = u64::from(entry.segment_position);
                    last.next_offset = entry.base_offset;
                    (last.max_timestamp_ms, last.max_timestamp_offset) = disk_max_timestamp;
                    last.closed = false;
                    last.finished = false;
                }
                Some(_) | None => {}
            }
        }
        PartitionState {
            id: self.id,
            // What is asked for becomes true with the checkpoint that says it.
            log_start: log.log_start.max(log.log_start_asked),
            durable,
            truncation: log.truncation,
            offline_from: log.offline_from,
            cleaned: log.cleaned,
            epochs: epochs.pairs().to_vec(),
            producers: log.producers.durable_entries(durable),
            transactions: log.transactions.durable_spans(durable),
            segments,
            resume,
        }
    }

    /// Enters an append entry of an old journal again. `known_below`: producers of records below
    /// it came with the checkpoint.
    pub fn replay_append(
        self: &Rc<Self>,
        entry: &EntryHeader,
        batch: &[u8],
        known_below: Offset,
        clock: Clock,
    ) -> io::Result<Replayed> {
        let mut log = self.log.borrow_mut();
        if entry.truncation != log.truncation {
            return Ok(Replayed::Known);
        }
        let header = BatchHeader::parse(batch).map_err(io::Error::other)?;
        if header.next_offset() <= log.next_offset {
            return Ok(Replayed::Known);
        }
        if header.base_offset != log.next_offset {
            return Ok(Replayed::Gap);
        }
        let config = self.config();
        log.roll_if_due(&config, &header, clock);
        let location = self
            .journal
            .append(entry, batch, |_| {}, |_| Some(self.clone() as _));
        log.place(
            &header,
            location.sequence,
            location.position,
            u64::from(config.index_interval_bytes),
            clock.mono,
        );
        let forgets = plant::active(Plant::ReplayForgetsProducers);
        if header.has_producer() && header.base_offset >= known_below && !forgets {
            let now_ms = (clock.mono.as_nanos() / 1_000_000) as i64;
            log.note_producer(&header, marker::of(&header, batch)?, now_ms, Offset::MAX);
        }
        Ok(Replayed::Entered)
    }
}

fn segment_state(segment: &Segment) -> SegmentState {
    SegmentState {
        base: segment.base,
        bytes: segment.bytes,
        next_offset: segment.next_offset,
        max_timestamp_ms: segment.max_timestamp_ms,
        max_timestamp_offset: segment.max_timestamp_offset,
        closed: segment.closed,
        finished: segment.finished,
        sums: segment.sums.clone(),
    }
}

impl Log {
    /// The log that a checkpoint describes, all of it on disk.
    pub fn restore(state: &PartitionState, now: Mono) -> io::Result<Log> {
        let mut log = Log::at(state.resume);
        // The replay may have to pass records below the log start: it is raised afterwards.
        log.log_start = state.log_start.min(state.resume);
        log.log_start_asked = log.log_start;
        log.truncation = state.truncation;
        log.offline_from = state.offline_from;
        log.cleaned = state.cleaned;
        log.epochs = EpochHistory::from_pairs(state.epochs.clone()).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "leader epochs in the checkpoint do not grow",
            )
        })?;
        let now_ms = (now.as_nanos() / 1_000_000) as i64;
        for (id, batches) in &state.producers {
            log.producers.restore(*id, batches.clone(), now_ms);
        }
        log.transactions.restore(&state.transactions);
        for s in &state.segments {
            log.segments.push_back(Segment {
                bytes: s.bytes,
                disk_bytes: s.bytes,
                next_offset: s.next_offset,
                max_timestamp_ms: s.max_timestamp_ms,
                max_timestamp_offset: s.max_timestamp_offset,
                disk_max_timestamp: (s.max_timestamp_ms, s.max_timestamp_offset),
                closed: s.closed,
                finished: s.finished,
                sums: s.sums.clone(),
                index_from: s.bytes,
                ..Segment::new(s.base, now)
            });
        }
        log.progress = Progress::single(state.resume);
        log.next_offset = state.resume;
        Ok(log)
    }

    /// Raises the log start to what the checkpoint or the journal made durable. Where damage took
    /// the records up to it, the log goes on from there, empty.
    pub fn raise_log_start(&mut self, start: Offset, now: Mono) {
        if start > self.next_offset {
            assert!(self.pending.is_empty());
            self.close_last();
            self.next_offset = start;
            self.progress = Progress::single(start);
            self.segments.push_back(Segment::new(start, now));
        }
        self.log_start = self.log_start.max(start);
        self.check_order();
    }

    /// After a crash the last segment takes no more bytes: what follows goes into a new one, so
    /// that recovery never rewrites a block that holds acknowledged bytes. `sums`: of that segment.
    pub fn close_mended(&mut self, sums: UnsavedSums) {
        if let Some(last) = self.segments.back_mut() {
            last.sums = sums;
        }
        self.close_last();
    }

    /// The same where the files of the last segment cannot be put in order: the partition goes offline
    /// from there on, and nothing touches them before somebody repairs them. Gives from where on.
    pub fn close_damaged(&mut self) -> Offset {
        let from = match self.segments.back_mut() {
            Some(last) => {
                last.finished = true;
                last.base
            }
            None => self.next_offset,
        };
        self.close_last();
        *self.offline_from.get_or_insert(from)
    }

    fn close_last(&mut self) {
        if let Some(last) = self.segments.back_mut() {
            if last.bytes == 0 {
                self.segments.pop_back();
            } else {
                last.closed = true;
            }
        }
    }
}

/// Removes segment files that a crash left behind the ones that the checkpoint names.
pub async fn remove_left_behind(dir: &Path, state: &PartitionState) -> io::Result<()> {
    let entries = match rt::fs::list_dir(dir).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        if entry.is_dir && entry.name == NEW {
            remove_new(dir).await?;
            continue;
        }
        let Some(base) = base_of_log(&entry.name) else {
            continue;
        };
        // Files below the resume point that the checkpoint does not name were on their way out.
        if !state.segments.iter().any(|s| s.base == base) {
            remove_files(dir, base).await?;
        }
    }
    Ok(())
}

/// Puts the last block of a partition's last segment back into the state the checkpoint saw. Gives what
/// is then known of that segment's checksums.
pub async fn mend_last(
    dir: &Path,
    state: &PartitionState,
    carried: Option<&CarryOver>,
) -> io::Result<UnsavedSums> {
    let Some(last) = state.segments.last() else {
        return Ok(UnsavedSums::default());
    };
    let whole = last.bytes / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
    let keep = (last.bytes - whole) as usize;
    let files = SegmentFiles::open(dir, last.base, last.bytes, &last.sums, false).await?;
    let torn = carried.filter(|c| {
        let fits = c.block_position == whole && c.bytes.len() >= keep;
        // No block of a finished one is rewritten; compaction may have put it in the place of the one that had been.
        c.segment_base == last.base && fits && !last.finished
    });
    if let Some(carried) = torn {
        files.restore_block(whole, &carried.bytes[..keep]).await?;
    }
    files.cut(last.bytes).await?;
    Ok(files.unsaved_sums())
}
