//! Owns moving a partition's durable bytes from the journal's memory into its segments.
//! Does not know which journal file is wanted back; the caller says how far and whether to pad.
//! Invariant: only durable bytes are written, and a block that holds acknowledged bytes is
//! rewritten only after the journal durably carries those bytes over.

use super::damage::is_damage;
use super::index::Index;
use super::segment::SegmentFiles;
use super::{Carried, Log, Partition};
use crate::journal::entry::{CarryOver, EntryHeader, EntryKind};
use crate::plant::{self, Plant};
use crate::rt::{DirectBuf, Permit, Semaphore};
use crate::types::limits::{BLOCK_BYTES, IO_BYTES_MAX};
use crate::types::Offset;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::rc::Rc;

const BLOCK: u64 = BLOCK_BYTES as u64;
/// Bytes gathered for one partition before it syncs and lets the next one go.
const PASS_BYTES_MAX: u64 = 16 << 20;

/// A stretch of one segment to write: from block-aligned `start` to `end`.
struct Plan {
    base: Offset,
    disk_bytes: u64,
    end: u64,
    pieces: Vec<(Rc<DirectBuf>, Range<usize>)>,
}

/// One stretch of one partition on its way: planned, carried over, written, synced. Nobody else
/// changes the partition's files meanwhile.
pub struct FlushPass {
    partition: Rc<Partition>,
    plan: Plan,
    files: Rc<SegmentFiles>,
    /// Live bytes of the padded block that is rewritten.
    prefix: Vec<u8>,
    carried: Option<u64>,
    _one_at_a_time: Permit,
}

impl Partition {
    /// Plans what to write next; None where there is nothing. Whole blocks only, unless entries up to
    /// journal sequence `through` would stay behind (None: any): then the last block of the log is
    /// written too, padded with zeros. Closed segments are always written to their end.
    pub async fn begin_flush(
        self: &Rc<Self>,
        through: Option<u64>,
    ) -> io::Result<Option<FlushPass>> {
        let _one_at_a_time = self.files_lock.acquire(1).await;
        if self.deleted.get() {
            return Ok(None);
        }
        loop {
            let plan = self.log.borrow().plan_flush(self, through);
            let Some(plan) = plan else { return Ok(None) };
            let (files, carry) = match self.prepare(&plan).await {
                Ok(prepared) => prepared,
                Err(error) if plan.disk_bytes > 0 && is_damage(&error) => {
                    self.leave_segment(plan.base, &error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let carried = carry.as_ref().map(|c| c.sequence);
            return Ok(Some(FlushPass {
                partition: self.clone(),
                plan,
                files,
                prefix: carry.map_or(Vec::new(), |c| c.bytes),
                carried,
                _one_at_a_time,
            }));
        }
    }

    /// Opens what the plan writes to, and carries over what the segment's last block holds already.
    async fn prepare(&self, plan: &Plan) -> io::Result<(Rc<SegmentFiles>, Option<Carried>)> {
        let files = self.open_or_create_segment(plan.base).await?;
        let kept = (plan.disk_bytes % BLOCK) as usize;
        let carry = match kept {
            0 => None,
            _ => {
                let block_position = plan.disk_bytes - kept as u64;
                Some(self.carry_over(&files, block_position, kept).await?)
            }
        };
        Ok((files, carry))
    }

    /// Before a padded block is rewritten, its live bytes go into the journal: whatever the rewrite
    /// tears, recovery can put back. Gives those bytes and the sequence that has to be durable first.
    async fn carry_over(
        &self,
        files: &SegmentFiles,
        block_position: u64,
        kept: usize,
    ) -> io::Result<Carried> {
        let base = files.base();
        if let Some(earlier) = self.carried_before(base, block_position, kept) {
            return Ok(earlier);
        }
        let block = files.read(block_position, BLOCK_BYTES).await?;
        if block.len() < kept {
            let reason = format!("{}: ends before its own end", files.log_path().display());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
        }
        let entry = CarryOver {
            segment_base: base,
            block_position,
            bytes: block[..kept].to_vec(),
        };
        if plant::active(Plant::ForgetCarryOver) {
            return Ok(Carried {
                block_position,
                bytes: entry.bytes,
                sequence: 0,
            });
        }
        let payload = entry.encode();
        let mut log = self.log.borrow_mut();
        let header = EntryHeader {
            kind: EntryKind::CarryOver,
            partition: self.id,
            leader_epoch: -1,
            truncation: log.truncation,
            base_offset: log.in_segment(),
            payload_bytes: payload.len() as u32,
        };
        let location = self.journal.append(&header, &payload, |_| {}, |_| None);
        let carried = Carried {
            block_position,
            bytes: entry.bytes,
            sequence: location.sequence,
        };
        if let Some(segment) = log.segment_mut(base) {
            segment.carried = Some(carried.clone());
        }
        Ok(carried)
    }

    fn carried_before(&self, base: Offset, block_position: u64, kept: usize) -> Option<Carried> {
        let log = self.log.borrow();
        let segment = log.segment(base)?;
        let earlier = segment.carried.as_ref()?;
        let same = earlier.block_position == block_position && earlier.bytes.len() == kept;
        same.then(|| earlier.clone())
    }

    /// The files of a segment that is there.
    pub async fn open_segment(&self, base: Offset) -> io::Result<Rc<SegmentFiles>> {
        self.open(base, false).await
    }

    /// The files of a segment, created where it has none yet. Only for who has the lock of the files: the folder may be
    /// that of a new topic otherwise.
    async fn open_or_create_segment(&self, base: Offset) -> io::Result<Rc<SegmentFiles>> {
        self.open(base, true).await
    }

    async fn open(&self, base: Offset, may_create: bool) -> io::Result<Rc<SegmentFiles>> {
        loop {
            let exchanges = self.exchanges.get();
            let opened = self.try_open_segment(base, may_create).await;
            // Files of before and after an exchange do not fit each other.
            if opened.is_ok() || exchanges == self.exchanges.get() {
                return opened;
            }
        }
    }

    async fn try_open_segment(
        &self,
        base: Offset,
        may_create: bool,
    ) -> io::Result<Rc<SegmentFiles>> {
        let exchanges = self.exchanges.get();
        let (open, disk_bytes, sums) = {
            let log = self.log.borrow();
            let Some(segment) = log.segment(base) else {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    "the segment was deleted",
                ));
            };
            (
                segment.files.clone(),
                segment.disk_bytes,
                segment.sums.clone(),
            )
        };
        if let Some(files) = open {
            return Ok(files);
        }
        let create = disk_bytes == 0;
        if create && !may_create {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the segment has no file yet",
            ));
        }
        if create {
            self.claim_folder().await?;
        }
        let opened = SegmentFiles::open(&self.dir, base, disk_bytes, &sums, create).await;
        let mut log = self.log.borrow_mut();
        let segment = log.segment_mut(base);
        if let Some(other) = segment.as_ref().and_then(|s| s.files.clone()) {
            return Ok(other); // opened meanwhile by a reader
        }
        if exchanges != self.exchanges.get() {
            return Err(io::Error::other("the segment was exchanged meanwhile"));
        }
        let files = Rc::new(opened?);
        if let Some(segment) = segment {
            segment.files = Some(files.clone());
            self.newly_open.borrow_mut().push(base);
        }
        Ok(files)
    }

    /// Cuts closed segments to size and writes their index files, once all their bytes are there.
    pub async fn finish_closed(&self) -> io::Result<()> {
        let _one_at_a_time = self.files_lock.acquire(1).await;
        loop {
            if self.deleted.get() {
                return Ok(());
            }
            let next = {
                let log = self.log.borrow();
                let due = |s: &&super::Segment| {
                    s.closed && !s.finished && s.disk_bytes == s.bytes && s.bytes > 0
                };
                log.segments.iter().find(due).map(|s| (s.base, s.bytes))
            };
            let Some((base, bytes)) = next else {
                return Ok(());
            };
            match self.cut_and_index(base, bytes).await {
                Ok(()) => {}
                Err(error) if is_damage(&error) => self.report_unfinished(base, &error),
                Err(error) => return Err(error),
            }
            if let Some(segment) = self.log.borrow_mut().segment_mut(base) {
                segment.finished = true;
                segment.index = Index::default();
                segment.index_from = segment.bytes;
            }
        }
    }

    async fn cut_and_index(&self, base: Offset, bytes: u64) -> io::Result<()> {
        let files = self.open_segment(base).await?;
        files.cut(bytes).await?;
        let index = self.whole_index(base, &files).await?;
        files.write_index(index).await?;
        self.note_sums(base, &files);
        Ok(())
    }

    /// After everything was written, padded: cuts and indexes the last segment as well. What a clean
    /// stop leaves. No appends may come any more.
    pub async fn finish_last(&self) -> io::Result<()> {
        let _one_at_a_time = self.files_lock.acquire(1).await;
        let last = {
            let log = self.log.borrow();
            let grown = |s: &&super::Segment| !s.closed && s.bytes > s.index_from;
            log.segments.back().filter(grown).map(|s| (s.base, s.bytes))
        };
        let Some((base, bytes)) = last else {
            return Ok(());
        };
        if self.deleted.get() {
            return Ok(());
        }
        match self.cut_and_index(base, bytes).await {
            Err(error) if is_damage(&error) => {
                self.report_unfinished(base, &error);
                Ok(())
            }
            result => result,
        }
    }

    /// Keeps what the checkpoint has to say about the segment's checksums.
    fn note_sums(&self, base: Offset, files: &SegmentFiles) {
        let mut log = self.log.borrow_mut();
        if let Some(segment) = log.segment_mut(base) {
            segment.sums = match segment.closed {
                true => files.unsaved_sums(),
                false => files.unsaved_sums_of_growing((segment.disk_bytes / BLOCK) as usize),
            };
        }
    }

    /// The index of all of a segment: what is in memory, behind what an earlier run left on disk.
    async fn whole_index(&self, base: Offset, files: &SegmentFiles) -> io::Result<Index> {
        let (mut index, from, interval) = {
            let log = self.log.borrow();
            let segment = log.segment(base);
            let Some(segment) = segment else {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    "the segment was deleted",
                ));
            };
            (
                segment.index.clone(),
                segment.index_from,
                u64::from(self.config().index_interval_bytes),
            )
        };
        if from > 0 {
            let (mut all, whole) = files.index_of_all(from, interval).await?;
            if !whole {
                index.forget_times();
            }
            all.append(index);
            index = all;
        }
        index.finish();
        Ok(index)
    }
}

impl FlushPass {
    /// Journal sequence that must be durable before `write`.
    pub fn carried(&self) -> Option<u64> {
        self.carried
    }

    pub fn files(&self) -> &SegmentFiles {
        &self.files
    }

    /// Writes the stretch; it counts for nothing before its files are synced. Before each write `pause` is waited for,
    /// with the bytes of the one before; it gives how many the next may have, at least a block.
    pub async fn write<F: Future<Output = usize>>(
        &mut self,
        in_flight: &Semaphore,
        pause: impl Fn(u64) -> F,
    ) -> io::Result<()> {
        let start = self.plan.disk_bytes / BLOCK * BLOCK;
        let mut gather = Gather::new(
            std::mem::take(&mut self.plan.pieces),
            std::mem::take(&mut self.prefix),
            (self.plan.end - start) as usize,
        );
        let mut position = start;
        let mut bytes_max = pause(0).await;
        while let Some(bytes) = gather.next_bytes(bytes_max) {
            // Before the bytes are gathered: who waits has no buffer yet.
            let permit = in_flight
                .acquire((bytes as u64).min(in_flight.capacity()))
                .await;
            let buf = gather.take(bytes);
            let bytes = buf.len() as u64;
            self.files.write(position, Rc::new(buf)).await?;
            drop(permit);
            position += bytes;
            bytes_max = pause(bytes).await;
        }
        assert_eq!(position, self.plan.end.next_multiple_of(BLOCK));
        // A padded block will be rewritten.
        let settled = (self.plan.end / BLOCK) as usize;
        self.files.write_settled_sums(settled).await
    }

    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// The files were synced: the stretch is in its segment. Gives the partition, which may have more.
    pub fn finish(self) -> Rc<Partition> {
        let (base, end) = (self.plan.base, self.plan.end);
        self.partition.log.borrow_mut().flushed(base, end);
        self.partition.note_sums(base, &self.files);
        self.partition
    }
}

impl Log {
    fn plan_flush(&self, partition: &Partition, through: Option<u64>) -> Option<Plan> {
        let durable = self.progress.durable();
        let first = self.tail.get(self.tail_flushed)?;
        if through.is_some_and(|target| first.sequence > target) {
            return None; // later there will be more to write at once
        }
        let index = self
            .segment_of(first.base_offset)
            .expect("every tail entry has a segment");
        let segment = &self.segments[index];
        let limit = self
            .segments
            .get(index + 1)
            .map_or(Offset::MAX, |next| next.base);
        let mut end = segment.disk_bytes;
        // Where the bytes end that have to leave the journal now.
        let mut due = segment.disk_bytes;
        let mut more = false;
        let mut pieces = Vec::new();
        for entry in self.tail.iter().skip(self.tail_flushed) {
            let over = entry.base_offset >= limit || entry.next_offset() > durable;
            if over {
                break;
            }
            if end - segment.disk_bytes > PASS_BYTES_MAX {
                more = true;
                break;
            }
            let buf = partition
                .journal
                .buffer(entry.sequence)
                .expect("unflushed buffers are retained");
            let skip = segment
                .disk_bytes
                .saturating_sub(u64::from(entry.segment_position)) as usize;
            let start = entry.buffer_position as usize;
            pieces.push((buf, start + skip..start + entry.bytes as usize));
            end = entry.segment_end();
            if through.is_none_or(|target| entry.sequence <= target) {
                due = end;
            }
        }
        let complete = segment.closed && end == segment.bytes;
        let whole = end / BLOCK * BLOCK;
        if more || (due <= whole && !complete) {
            end = whole;
        }
        (end > segment.disk_bytes).then_some(Plan {
            base: segment.base,
            disk_bytes: segment.disk_bytes,
            end,
            pieces,
        })
    }

    fn flushed(&mut self, base: Offset, end: u64) {
        let Some(index) = self.segment_at(base) else {
            return;
        };
        let limit = self
            .segments
            .get(index + 1)
            .map_or(Offset::MAX, |next| next.base);
        self.segments[index].disk_bytes = end;
        self.segments[index].carried = None;
        while let Some(entry) = self.tail.get(self.tail_flushed) {
            if entry.base_offset >= limit || entry.segment_end() > end {
                break;
            }
            let newest = &mut self.segments[index].disk_max_timestamp;
            if entry.max_timestamp_ms > newest.0 {
                *newest = (entry.max_timestamp_ms, entry.base_offset);
            }
            self.tail_flushed += 1;
        }
        assert!(self.in_segment() <= self.progress.durable());
    }
}

/// Hands out the planned bytes in aligned buffers; the last one is padded with zeros.
struct Gather {
    prefix: Vec<u8>,
    pieces: std::collections::VecDeque<(Rc<DirectBuf>, Range<usize>)>,
    left: usize,
}

impl Gather {
    fn new(pieces: Vec<(Rc<DirectBuf>, Range<usize>)>, prefix: Vec<u8>, left: usize) -> Gather {
        assert!(prefix.len() + pieces.iter().map(|p| p.1.len()).sum::<usize>() >= left);
        Gather {
            prefix,
            pieces: pieces.into(),
            left,
        }
    }

    /// How many bytes the next write takes, None where all were taken.
    fn next_bytes(&self, bytes_max: usize) -> Option<usize> {
        let bytes_max = bytes_max.min(IO_BYTES_MAX) / BLOCK_BYTES * BLOCK_BYTES;
        (self.left > 0).then(|| self.left.min(bytes_max))
    }

    /// The next `bytes` of what is left, in whole blocks.
    fn take(&mut self, bytes: usize) -> DirectBuf {
        assert!(bytes > 0);
        let mut buf = DirectBuf::with_len(bytes.next_multiple_of(BLOCK_BYTES));
        let mut used = self.prefix.len();
        buf[..used].copy_from_slice(&self.prefix);
        self.prefix.clear();
        while used < bytes {
            let (source, range) = self.pieces.front_mut().expect("left says there is more");
            let n = range.len().min(bytes - used);
            buf[used..used + n].copy_from_slice(&source[range.start..range.start + n]);
            used += n;
            range.start += n;
            if range.start == range.end {
                self.pieces.pop_front();
            }
        }
        buf[used..].fill(0);
        self.left -= bytes;
        buf
    }
}
