//! Owns finding offsets by timestamp. Does not know requests.
//! Invariant: the answer is a record below the given end, or nothing.

use super::index::TimeEntry;
use super::read::ReadRequest;
use super::records::{self, RecordTime, Wanted};
use super::segment::Scan;
use super::{Log, Partition};
use crate::api::RecordChunk;
use crate::error::PartitionError;
use crate::plant::{self, Plant};
use crate::types::Offset;
use std::io;

impl Partition {
    /// First record at or after `timestamp_ms` that lies below `end`.
    pub async fn find_time(
        &self,
        timestamp_ms: i64,
        end: Offset,
    ) -> Result<Option<RecordTime>, PartitionError> {
        loop {
            let exchanges = self.exchanges.get();
            let found = self.try_find_time(timestamp_ms, end).await;
            // Positions in one segment mean nothing in the one that compaction has put in its place.
            if exchanges == self.exchanges.get() {
                return found.map_err(|e| PartitionError::Storage(e.to_string()));
            }
        }
    }

    /// The record with the largest timestamp below `end`.
    pub async fn find_newest(&self, end: Offset) -> Result<Option<RecordTime>, PartitionError> {
        loop {
            let exchanges = self.exchanges.get();
            let found = self.try_find_newest(end).await;
            if exchanges == self.exchanges.get() {
                return found.map_err(|e| PartitionError::Storage(e.to_string()));
            }
        }
    }

    async fn try_find_newest(&self, end: Offset) -> io::Result<Option<RecordTime>> {
        let (start, mut candidates) = {
            let log = self.log.borrow();
            (log.log_start, log.newest_batches(end))
        };
        candidates.sort_by_key(|c| (std::cmp::Reverse(c.timestamp_ms), c.batch));
        let mut best: Option<RecordTime> = None;
        for candidate in candidates {
            if best.is_some_and(|best| best.timestamp_ms >= candidate.timestamp_ms) {
                break;
            }
            let found = match candidate.deleted_from {
                None => self.newest_in_batch(candidate.batch, start, end).await?,
                Some((base, disk_bytes)) => self.newest_left(base, disk_bytes, start, end).await?,
            };
            let than = best.map_or(i64::MIN, |best| best.timestamp_ms);
            best = found.filter(|f| f.timestamp_ms > than).or(best);
        }
        Ok(best)
    }

    async fn newest_in_batch(
        &self,
        batch: Offset,
        start: Offset,
        end: Offset,
    ) -> io::Result<Option<RecordTime>> {
        let bytes = self.one_batch(batch.max(start), end).await;
        match bytes.map_err(io::Error::other)? {
            Some(bytes) => records::find_time(bytes.as_ref(), start, Wanted::Newest).await,
            None => Ok(None),
        }
    }

    /// The newest record on disk of a segment whose newest of all was deleted.
    async fn newest_left(
        &self,
        base: Offset,
        disk_bytes: u64,
        start: Offset,
        end: Offset,
    ) -> io::Result<Option<RecordTime>> {
        let files = self.open_segment(base).await?;
        let mut scan = Scan::new(&files, 0, disk_bytes);
        let mut best: Option<RecordTime> = None;
        while let Some((_, header)) = scan.next().await? {
            let than = best.map_or(i64::MIN, |best| best.timestamp_ms);
            if header.last_offset() >= start && header.max_timestamp > than {
                let found = self.newest_in_batch(header.base_offset, start, end).await?;
                best = found.filter(|f| f.timestamp_ms > than).or(best);
            }
        }
        Ok(best)
    }

    async fn try_find_time(
        &self,
        timestamp_ms: i64,
        end: Offset,
    ) -> io::Result<Option<RecordTime>> {
        let candidates: Vec<Offset> = {
            let log = self.log.borrow();
            let from = log.log_start;
            let holds =
                |s: &&super::Segment| s.next_offset > from && s.max_timestamp_ms >= timestamp_ms;
            log.segments.iter().filter(holds).map(|s| s.base).collect()
        };
        for base in candidates {
            let mut looked = None;
            // Up to which batch the segment's file was looked through.
            let mut position = 0;
            // What leaves memory for the disk while either is looked through is looked for there.
            while looked != self.on_disk(base) {
                looked = self.on_disk(base);
                let Some(disk_bytes) = looked else { break };
                if disk_bytes > 0 {
                    let found;
                    (found, position) = self
                        .find_in_segment(base, position, disk_bytes, timestamp_ms, end)
                        .await?;
                    if found.is_some() {
                        return Ok(found);
                    }
                }
                let found = self.find_in_tail(base, timestamp_ms, end).await?;
                if found.is_some() && looked == self.on_disk(base) {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// None once the segment was deleted.
    fn on_disk(&self, base: Offset) -> Option<u64> {
        let log = self.log.borrow();
        log.segment(base).map(|s| s.disk_bytes)
    }

    /// Looks through a segment's file, from the batch at `begin` on if that is not 0: what lies before it has been looked
    /// at. Gives also where the first batch begins that was not there yet.
    async fn find_in_segment(
        &self,
        base: Offset,
        begin: u64,
        disk_bytes: u64,
        timestamp_ms: i64,
        end: Offset,
    ) -> io::Result<(Option<RecordTime>, u64)> {
        let files = self.open_segment(base).await?;
        let from = {
            let log = self.log.borrow();
            let segment = log.segment(base);
            segment
                .filter(|s| s.index_from == 0)
                .map(|s| s.index.before_time(timestamp_ms))
        };
        let interval = u64::from(self.config().index_interval_bytes);
        let at = match from {
            _ if begin > 0 => None,
            Some(at) => at,
            None => files
                .index(disk_bytes, interval)
                .await?
                .before_time(timestamp_ms),
        };
        let hinted = |hint: TimeEntry| base + i64::from(hint.relative);
        let position = match at {
            Some(at) => {
                let entry = self.entry_before(&files, base, hinted(at)).await?;
                entry.map_or(0, |e| u64::from(e.position))
            }
            None => begin,
        };
        // Index files have no checksums: what they say has to be what is there.
        let mut hint = at.filter(|_| from.is_none());
        let log_start = self.log.borrow().log_start;
        let mut scan = Scan::new(&files, position, disk_bytes);
        let mut off_by_one = plant::active(Plant::TimeLookupOffByOne);
        loop {
            let next = scan.next().await;
            let lies = match (&next, hint) {
                (_, None) => false,
                (Ok(Some((_, header))), Some(hint)) if header.last_offset() >= hinted(hint) => {
                    header.base_offset > hinted(hint) || header.max_timestamp != hint.timestamp_ms
                }
                (Ok(Some(_)), Some(_)) => continue,
                (Ok(None), Some(_)) => true,
                (Err(error), Some(_)) => error.kind() == io::ErrorKind::InvalidData,
            };
            hint = None;
            if lies {
                tracing::error!(segment = %files.log_path().display(), "its index is damaged; looked through as a whole");
                scan = Scan::new(&files, 0, disk_bytes);
                continue;
            }
            let Some((_, header)) = next? else { break };
            if header.base_offset >= end {
                break;
            }
            if header.max_timestamp < timestamp_ms || header.last_offset() < log_start {
                continue;
            }
            if std::mem::take(&mut off_by_one) {
                continue;
            }
            let batch = self
                .one_batch(header.base_offset.max(log_start), end)
                .await
                .map_err(io::Error::other)?;
            let Some(batch) = batch else { break };
            let wanted = Wanted::AtOrAfter(timestamp_ms);
            let found = records::find_time(batch.as_ref(), log_start, wanted).await?;
            if found.is_some_and(|f| f.offset < end) {
                return Ok((found, scan.position()));
            }
        }
        Ok((None, scan.position()))
    }

    async fn find_in_tail(
        &self,
        base: Offset,
        timestamp_ms: i64,
        end: Offset,
    ) -> io::Result<Option<RecordTime>> {
        let mut from = base;
        while let Some((next, start, chunk)) = self.next_in_tail(base, from, timestamp_ms, end) {
            from = next;
            let wanted = Wanted::AtOrAfter(timestamp_ms);
            let found = records::find_time(chunk.as_ref(), start, wanted).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The first batch in memory at or behind `from`, of the segment at `base`, that may have records as late as that;
    /// with the offset behind it, and where the log begins.
    fn next_in_tail(
        &self,
        base: Offset,
        from: Offset,
        timestamp_ms: i64,
        end: Offset,
    ) -> Option<(Offset, Offset, RecordChunk)> {
        let log = self.log.borrow();
        // Where the segment was deleted meanwhile, what lies behind it is not its own.
        let next = log.segments.get(log.segment_at(base)? + 1);
        let limit = next.map_or(end, |s| s.base.min(end));
        let first = log.tail.partition_point(|e| e.base_offset < from);
        log.tail
            .iter()
            .skip(first)
            .take_while(|e| e.next_offset() <= limit)
            .filter(|e| e.max_timestamp_ms >= timestamp_ms && e.next_offset() > log.log_start)
            .find_map(|e| {
                let chunk = super::tail_chunk(&self.journal, e)?;
                Some((e.next_offset(), log.log_start, chunk))
            })
    }

    /// The batch that holds `offset`, and perhaps more behind it.
    async fn one_batch(
        &self,
        offset: Offset,
        end: Offset,
    ) -> Result<Option<RecordChunk>, PartitionError> {
        let request = ReadRequest {
            offset,
            max_bytes: 0,
            at_once: 0,
            at_least_one: true,
        };
        let read = self.read(request, end).await?;
        Ok(read.records.into_iter().next())
    }
}

/// Where the newest record may be.
struct Newest {
    timestamp_ms: i64,
    /// Base offset of the batch.
    batch: Offset,
    /// Segment and its bytes on disk, where that batch lies before the log start: it was newer than what is left.
    deleted_from: Option<(Offset, u64)>,
}

impl Log {
    /// Of each segment the newest batch on disk, and every batch below `end` that is not on disk yet.
    fn newest_batches(&self, end: Offset) -> Vec<Newest> {
        let mut found = Vec::new();
        for segment in self
            .segments
            .iter()
            .filter(|s| s.next_offset > self.log_start)
        {
            let (timestamp_ms, batch) = segment.disk_max_timestamp;
            if segment.disk_bytes > 0 && timestamp_ms >= 0 {
                let deleted = batch < self.log_start;
                found.push(Newest {
                    timestamp_ms,
                    batch,
                    deleted_from: deleted.then_some((segment.base, segment.disk_bytes)),
                });
            }
        }
        let tail = self.tail.iter().skip(self.tail_flushed);
        let left = tail.filter(|e| e.next_offset() > self.log_start && e.next_offset() <= end);
        found.extend(left.map(|e| Newest {
            timestamp_ms: e.max_timestamp_ms,
            batch: e.base_offset,
            deleted_from: None,
        }));
        found
    }
}
