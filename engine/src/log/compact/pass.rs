//! Owns the work of one compaction of a partition: the survey of its keys, the copies, and the exchange of segments.
//! Does not know when it is due, nor how the shard's journal and checkpoint are asked for what has to come before.
//! Invariant: readers see a log of before or after an exchange, never of both, and none of them is held up by it.

use super::copy::copy;
use super::filter::{note_keys, Aborted, Filter, Rules};
use super::map::OffsetMap;
use super::reader::Batches;
use super::swap::{Swap, NEW};
use super::{Due, Source};
use crate::checkpoint::SegmentState;
use crate::log::producers::LastOf;
use crate::log::segment::SegmentFiles;
use crate::log::{Log, Partition, Segment};
use crate::plant::{self, Plant};
use crate::rt::{self, Permit, Semaphore};
use crate::types::Offset;
use hashbrown::HashMap;
use std::cell::Cell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// How fast a compaction may go, and whether it still should.
pub struct Pace<'a> {
    /// Read and written together; `u64::MAX` for as fast as the disk.
    pub bytes_per_second: u64,
    /// Bounds what is written at once, so that flushes of the journal stay short.
    pub writes: &'a Semaphore,
    pub stopping: &'a Cell<bool>,
    /// Of the partition.
    pub deleted: &'a Cell<bool>,
    /// Bytes so far.
    pub taken: Cell<u64>,
}

impl Pace<'_> {
    /// Counts bytes that were read or written, and waits for as long as they should take.
    ///
    /// # Errors
    /// `Interrupted`: the shard is stopping, or the partition is gone.
    pub async fn take(&self, bytes: u64) -> io::Result<()> {
        self.taken.set(self.taken.get() + bytes);
        if bytes > 0 && self.bytes_per_second < u64::MAX {
            let seconds = bytes as f64 / self.bytes_per_second.max(1) as f64;
            rt::sleep(Duration::from_secs_f64(seconds)).await;
        }
        match self.stopping.get() || self.deleted.get() {
            true => Err(io::ErrorKind::Interrupted.into()),
            false => Ok(()),
        }
    }

    pub async fn write(&self, bytes: u64) -> Permit {
        self.writes.acquire(bytes.min(self.writes.capacity())).await
    }
}

/// What is known before anything is copied.
pub struct Survey {
    pub map: OffsetMap,
    /// Everything dirty below it is in the map.
    pub end: Offset,
    pub aborted: Aborted,
    pub producers: HashMap<i64, LastOf>,
    pub now_ms: i64,
}

impl Survey {
    pub fn filter(&self, delete_retention_ms: u64) -> Filter<'_> {
        Filter::new(Rules {
            map: &self.map,
            map_end: self.end,
            aborted: &self.aborted,
            producers: &self.producers,
            now_ms: self.now_ms,
            delete_retention_ms,
        })
    }
}

impl Partition {
    /// Timestamp of the first batch of a segment; None where that cannot be told.
    async fn first_timestamp(&self, source: Source) -> Option<i64> {
        let files = self.open_segment(source.base).await.ok()?;
        let header = Batches::new(files, source.bytes).next().await.ok()??;
        Some(header.max_timestamp)
    }

    /// First pass: the last offset of every key that is dirty, as far as `map_bytes` have room.
    pub async fn survey(
        &self,
        due: Due,
        sources: &[Source],
        map_bytes: u64,
        pace: &Pace<'_>,
    ) -> io::Result<Survey> {
        let (spans, producers) = {
            let log = self.log.borrow();
            let spans = log.transactions.aborted_in(0, due.end);
            (spans, log.producers.last_of_all())
        };
        let keys = u64::try_from(due.end - due.from).expect("there is something to compact");
        let seeds = [rt::random_u64(), rt::random_u64()];
        let mut survey = Survey {
            map: OffsetMap::new(map_bytes, keys, seeds),
            end: due.from,
            aborted: Aborted::new(&spans),
            producers,
            now_ms: rt::wall_ms(),
        };
        for source in sources.iter().filter(|s| s.next_offset > due.from) {
            let files = self.open_segment(source.base).await?;
            let mut batches = Batches::new(files, source.bytes);
            let mut read = 0;
            while let Some(header) = batches.next().await? {
                pace.take(batches.read() - read).await?;
                read = batches.read();
                if header.next_offset() <= due.from {
                    continue;
                }
                let aborted =
                    survey.aborted.has(&header) && !plant::active(Plant::AbortedHideOthers);
                let counts = !header.is_control() && !aborted;
                let batch = batches.batch();
                if counts && !note_keys(&mut survey.map, &header, batch, due.from).await? {
                    return Ok(survey);
                }
                survey.end = header.next_offset();
            }
            survey.end = source.next_offset;
        }
        Ok(survey)
    }

    /// Second pass, for some neighbours: writes what stays of them beside them. Gives how they are exchanged; None where
    /// nothing would change.
    pub async fn copy_group(
        &self,
        group: &[Source],
        filter: &mut Filter<'_>,
        pace: &Pace<'_>,
    ) -> io::Result<Option<Swap>> {
        let mut from = Vec::with_capacity(group.len());
        for source in group {
            from.push(self.open_segment(source.base).await?);
        }
        let interval = u64::from(self.config().index_interval_bytes);
        let to = self.dir.join(NEW);
        let copied = copy(group, &from, &to, interval, filter, pace).await?;
        let swap = Swap {
            id: self.id,
            old: group.iter().map(|s| s.base).collect(),
            new: copied.segment,
            forgotten: std::mem::take(&mut filter.markers_gone),
        };
        Ok(copied.changed.then_some(swap))
    }

    /// Puts the new segment where the old ones are. False where the log has not got all of those any more: then the old
    /// ones that are left stay. The durable checkpoint has to name all of the old ones, with all of their bytes.
    ///
    /// # Errors
    /// The exchange has begun and could not be ended, or not even begun. What has begun is ended by the next start.
    pub async fn exchange(&self, data_dir: &Path, swap: &Swap) -> io::Result<bool> {
        let _one_at_a_time = self.files_lock.acquire(1).await;
        if self.deleted.get() || !self.log.borrow().has_all(swap) {
            return Ok(false);
        }
        // Readers that open one of them from here on get these: by their names, new and old files would be mixed.
        let mut old = Vec::with_capacity(swap.old.len());
        for base in &swap.old {
            old.push(self.open_segment(*base).await?);
        }
        self.stuck.set(true);
        let unannounced = plant::active(Plant::ExchangeUnannounced);
        let begun = match unannounced {
            true => Ok(()),
            false => swap.begin(data_dir).await,
        };
        if let Err(error) = begun {
            // It may have begun all the same, unless what says so is gone for sure.
            let file = [swap.path(data_dir)];
            let undone = super::swap::retire(data_dir, &file).await;
            self.stuck.set(undone.is_err());
            return Err(error);
        }
        self.exchanges.set(self.exchanges.get() + 1);
        old.iter().for_each(|files| files.forget_names());
        if let Err(error) = swap.finish(&self.dir).await {
            self.pinned.borrow_mut().extend(old);
            return Err(error);
        }
        self.log.borrow_mut().exchanged(swap);
        self.exchanges.set(self.exchanges.get() + 1);
        self.stuck.set(false);
        Ok(true)
    }

    /// Whether an exchange failed in a way that only the next start can put right.
    pub fn is_stuck(&self) -> bool {
        self.stuck.get()
    }

    /// Timestamp of the first record that compaction did not look at yet, as far as it can be told.
    pub async fn oldest_dirty(&self) -> Option<i64> {
        let (source, known) = {
            let log = self.log.borrow();
            let from = log.cleaned.below.max(log.log_start);
            let first = log.segments.iter().find(|s| s.next_offset > from)?;
            let source = Source {
                base: first.base,
                bytes: first.disk_bytes,
                next_offset: first.next_offset,
            };
            (source, first.first_timestamp_ms)
        };
        if known.is_some() || source.bytes == 0 {
            return known;
        }
        let found = self.first_timestamp(source).await;
        if let Some(segment) = self.log.borrow_mut().segment_mut(source.base) {
            segment.first_timestamp_ms = found;
        }
        found
    }

    /// Whether an exchange is under way, or has failed in the middle.
    pub fn is_exchanging(&self) -> bool {
        self.exchanges.get() % 2 == 1
    }
}

impl Log {
    fn has_all(&self, swap: &Swap) -> bool {
        let Some(first) = self.segment_at(swap.new.base) else {
            return false;
        };
        let there = self.segments.iter().skip(first).take(swap.old.len());
        let bases: Vec<Offset> = there.clone().map(|s| s.base).collect();
        let end = there.clone().next_back().map(|s| s.next_offset);
        let finished = there.clone().all(|s| s.finished && s.disk_bytes == s.bytes);
        bases == swap.old && end == Some(swap.new.next_offset) && finished
    }

    /// Takes the new segment in the place of the old ones.
    fn exchanged(&mut self, swap: &Swap) {
        let first = self.segment_at(swap.new.base).expect("it was just there");
        let opened = self.segments[first].opened;
        let first_timestamp_ms = self.segments[first].first_timestamp_ms;
        let SegmentState {
            base,
            bytes,
            next_offset,
            max_timestamp_ms,
            max_timestamp_offset,
            ..
        } = swap.new;
        let new = Segment {
            bytes,
            disk_bytes: bytes,
            next_offset,
            max_timestamp_ms,
            max_timestamp_offset,
            disk_max_timestamp: (max_timestamp_ms, max_timestamp_offset),
            first_timestamp_ms,
            closed: true,
            finished: true,
            index_from: bytes,
            sums: swap.new.sums.clone(),
            ..Segment::new(base, opened)
        };
        self.segments.drain(first..first + swap.old.len());
        self.segments.insert(first, new);
        // What readers would find in memory is what was there before.
        let old = self.tail.partition_point(|e| e.base_offset < next_offset);
        assert!(old <= self.tail_flushed, "all of it is in segments");
        self.tail.drain(..old);
        self.tail_flushed -= old;
        if !plant::active(Plant::AbortedOutlivesMarker) {
            self.transactions.forget_aborted(&swap.forgotten);
        }
        self.cleaned.gaps_below = self.cleaned.gaps_below.max(next_offset);
        self.check_order();
    }
}

/// Files of segments that an exchange could not put away: readers go on with them.
pub type Pinned = Vec<Rc<SegmentFiles>>;
