//! Owns finding the batches for a fetch: in the journal's memory, or in segments on disk.
//! Does not know requests, other partitions or how long a reader waits.
//! Invariant: nothing at or behind the given end is given out, and whole batches only.

use super::index::OffsetEntry;
use super::segment::{damaged_block, SegmentFiles};
use super::{tail_chunk, Partition};
use crate::api::RecordChunk;
use crate::error::PartitionError;
use crate::rt::ReadBuf;
use crate::types::batch::BatchHeader;
use crate::types::limits::{BATCH_HEADER_BYTES, BLOCK_BYTES, IO_BYTES_MAX};
use crate::types::Offset;
use std::io;
use std::rc::Rc;

const BLOCK: u64 = BLOCK_BYTES as u64;
/// Read at least this much from disk at a time: a seek costs as much.
const READ_BYTES_MIN: usize = 64 << 10;

/// What a reader asks of one partition.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    pub offset: Offset,
    pub max_bytes: usize,
    /// So much is read from disk, unless a batch needs more.
    pub at_once: usize,
    /// Give a first batch larger than `max_bytes` rather than nothing.
    pub at_least_one: bool,
}

#[derive(Default)]
pub struct ReadBatches {
    pub records: Vec<RecordChunk>,
    pub bytes: usize,
    /// Whether any of it came from disk.
    pub cold: bool,
}

enum Plan {
    Done(ReadBatches),
    Cold { base: Offset, end_position: u64 },
}

impl Partition {
    /// Checks that `offset` can be read, against `end` (high watermark or last stable offset).
    pub fn check_offset(&self, offset: Offset, end: Offset) -> Result<(), PartitionError> {
        let log = self.log.borrow();
        if let Some(hole) = log.offline_from.filter(|hole| offset >= *hole) {
            let reason = format!("acknowledged data from offset {hole} on is damaged");
            return Err(PartitionError::Storage(reason));
        }
        if offset < log.log_start || offset > end {
            return Err(PartitionError::OffsetOutOfRange {
                wanted: offset,
                log_start: log.log_start,
                end,
            });
        }
        Ok(())
    }

    /// Batches from `request.offset` up to `end` without touching the disk; None where that is
    /// not possible.
    pub fn read_memory(&self, request: ReadRequest, end: Offset) -> Option<ReadBatches> {
        match self.plan_read(request, end) {
            Plan::Done(batches) => Some(batches),
            Plan::Cold { .. } => None,
        }
    }

    /// Batches from `request.offset` up to `end`. The caller checked the offset.
    pub async fn read(
        &self,
        request: ReadRequest,
        end: Offset,
    ) -> Result<ReadBatches, PartitionError> {
        let mut request = request;
        loop {
            let exchanges = self.exchanges.get();
            let (base, end_position) = match self.plan_read(request, end) {
                Plan::Done(batches) => return Ok(batches),
                Plan::Cold { base, end_position } => (base, end_position),
            };
            let read = self.read_cold(request, end, base, end_position).await;
            if exchanges != self.exchanges.get() {
                continue; // the plan may have been for other files than were read
            }
            let read = read.map_err(|e| PartitionError::Storage(e.to_string()))?;
            match (read, self.behind(base, request.offset, end)) {
                (Some(batches), _) => return Ok(batches),
                // Compaction has taken all that was between.
                (None, Some(next)) => request.offset = next,
                (None, None) => return Ok(ReadBatches::default()),
            }
        }
    }

    /// Where the segment behind the one at `base` begins, if `offset` lies in front of that and all that the one at `base`
    /// has was looked through.
    fn behind(&self, base: Offset, offset: Offset, end: Offset) -> Option<Offset> {
        let log = self.log.borrow();
        let at = log.segment_at(base)?;
        let whole = log.segments[at].disk_bytes == log.segments[at].bytes;
        let next = log.segments.get(at + 1)?.base;
        (whole && offset < next && next < end).then_some(next)
    }

    fn plan_read(&self, request: ReadRequest, end: Offset) -> Plan {
        let mut out = ReadBatches::default();
        let log = self.log.borrow();
        if request.offset >= end {
            return Plan::Done(out);
        }
        let first = log
            .tail
            .partition_point(|e| e.next_offset() <= request.offset);
        let retained = self.journal.retained_first();
        let hot = log
            .tail
            .get(first)
            .is_some_and(|e| e.base_offset <= request.offset && e.sequence >= retained);
        if !hot {
            let Some(index) = log.segment_of(request.offset) else {
                return Plan::Done(out);
            };
            let segment = &log.segments[index];
            return Plan::Cold {
                base: segment.base,
                end_position: segment.disk_bytes,
            };
        }
        for entry in log.tail.iter().skip(first) {
            let size = entry.bytes as usize;
            let first_too_large = out.records.is_empty() && request.at_least_one;
            if entry.next_offset() > end
                || (out.bytes + size > request.max_bytes && !first_too_large)
            {
                break;
            }
            let chunk = tail_chunk(&self.journal, entry)
                .expect("entries behind a retained one are retained");
            out.bytes += size;
            out.records.push(chunk);
        }
        Plan::Done(out)
    }

    /// None where the segment ends, as far as it is on disk, before anything that is wanted.
    async fn read_cold(
        &self,
        request: ReadRequest,
        end: Offset,
        base: Offset,
        end_position: u64,
    ) -> io::Result<Option<ReadBatches>> {
        let mut out = ReadBatches {
            cold: true,
            ..ReadBatches::default()
        };
        let files = self.open_segment(base).await?;
        // Index files have no checksums: what they say has to be what is there.
        let entry = self.entry_before(&files, base, request.offset).await?;
        let mut hint = entry.filter(|e| u64::from(e.position) < end_position);
        let mut position = hint.map_or(0, |e| u64::from(e.position));
        let mut budget = request.max_bytes.min(request.at_once);
        while position < end_position {
            let want = budget.clamp(READ_BYTES_MIN, IO_BYTES_MAX);
            let buf = read_around(&files, position, want).await?;
            if hint.take().is_some_and(|e| !points_at(&buf, base, e)) {
                tracing::error!(segment = %files.log_path().display(), "its index is damaged; read from the beginning");
                position = 0;
                continue;
            }
            let found = pick(&buf.bytes, buf.skip, &request, end, end_position - position)?;
            if found.range.is_none() && found.passed == 0 && found.needs.is_some() && buf.short {
                return Err(why_short(&files, position, &buf).await);
            }
            if let Some(range) = found.range {
                out.bytes += range.len();
                out.records.push(RecordChunk::Read(buf.bytes, range));
                return Ok(Some(out));
            }
            position += found.passed as u64;
            match found.needs {
                None if position >= end_position => return Ok(None),
                None => return Ok(Some(out)),
                // The batch that is wanted does not fit what was read.
                Some(bytes) if bytes > request.max_bytes && !request.at_least_one => {
                    return Ok(Some(out))
                }
                Some(bytes) if bytes + BLOCK_BYTES > IO_BYTES_MAX => {
                    let whole = read_large(&files, position, bytes).await?;
                    out.bytes += whole.len();
                    out.records.push(RecordChunk::Owned(whole.into()));
                    return Ok(Some(out));
                }
                Some(bytes) => budget = budget.max(bytes + BLOCK_BYTES),
            }
        }
        Ok(None)
    }

    /// Where to begin scanning a segment for `offset`: a batch before it; None for the beginning.
    pub(super) async fn entry_before(
        &self,
        files: &Rc<SegmentFiles>,
        base: Offset,
        offset: Offset,
    ) -> io::Result<Option<OffsetEntry>> {
        let relative = u32::try_from(offset - base).unwrap_or(u32::MAX);
        let interval = u64::from(self.config().index_interval_bytes);
        let from = {
            let log = self.log.borrow();
            let Some(segment) = log.segment(base) else {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    "the segment was deleted",
                ));
            };
            let entry = segment.index.entry_for(relative);
            if segment.index_from == 0 || entry.is_some() {
                return Ok(entry);
            }
            segment.index_from
        };
        Ok(files.index(from, interval).await?.entry_for(relative))
    }
}

struct Window {
    bytes: ReadBuf,
    /// Bytes before the wanted position, from its block's start.
    skip: usize,
    /// The file ended, or is damaged, before all that was asked for.
    short: bool,
}

async fn read_around(files: &SegmentFiles, position: u64, want: usize) -> io::Result<Window> {
    let start = position / BLOCK * BLOCK;
    let skip = (position - start) as usize;
    let len = (skip + want)
        .next_multiple_of(BLOCK_BYTES)
        .min(IO_BYTES_MAX);
    let first = start / BLOCK;
    let bytes = match files.read(start, len).await {
        Err(error) => match damaged_block(&error) {
            // What lies before the damage is sound, and may be all that is needed.
            Some(block) if block > first => {
                let sound = (block - first) as usize * BLOCK_BYTES;
                files.read(start, sound).await?
            }
            Some(_) | None => return Err(error),
        },
        read => read?,
    };
    let short = bytes.len() < len;
    Ok(Window { bytes, skip, short })
}

/// Why a window is short: the error of the block behind it.
async fn why_short(files: &SegmentFiles, position: u64, window: &Window) -> io::Error {
    let behind = (position / BLOCK * BLOCK + window.bytes.len() as u64) / BLOCK * BLOCK;
    match files.read(behind, BLOCK_BYTES).await {
        Err(error) => error,
        Ok(_) => ends_inside(files),
    }
}

fn ends_inside(files: &SegmentFiles) -> io::Error {
    let reason = format!("{}: ends inside a batch", files.log_path().display());
    io::Error::new(io::ErrorKind::UnexpectedEof, reason)
}

/// Whether the window begins with the batch that an index entry names. Beside a batch there may be what looks like one.
fn points_at(window: &Window, base: Offset, entry: OffsetEntry) -> bool {
    let bytes = window.bytes.get(window.skip..).unwrap_or(&[]);
    BatchHeader::parse(bytes).is_ok_and(|h| h.last_offset() == base + i64::from(entry.relative))
}

async fn read_large(files: &SegmentFiles, position: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes);
    while out.len() < bytes {
        let part = read_around(files, position + out.len() as u64, bytes - out.len()).await?;
        let n = part
            .bytes
            .len()
            .saturating_sub(part.skip)
            .min(bytes - out.len());
        if n == 0 {
            return Err(ends_inside(files));
        }
        out.extend_from_slice(&part.bytes[part.skip..part.skip + n]);
    }
    Ok(out)
}

struct Picked {
    /// Wanted batches inside the window, in one stretch.
    range: Option<std::ops::Range<usize>>,
    /// Bytes of whole batches before the wanted offset.
    passed: usize,
    /// Bytes the next batch needs, where it did not fit the window; None at the end.
    needs: Option<usize>,
}

/// Walks the batches in a window that begins at `skip`; `left` bytes of the segment are in use.
fn pick(
    bytes: &[u8],
    skip: usize,
    request: &ReadRequest,
    end: Offset,
    left: u64,
) -> io::Result<Picked> {
    let usable = bytes.len().min(skip.saturating_add(left as usize));
    let mut at = skip;
    let mut start = None;
    let mut passed = 0;
    let mut needs = None;
    loop {
        if at + BATCH_HEADER_BYTES > usable {
            if (at - skip) as u64 + (BATCH_HEADER_BYTES as u64) <= left {
                needs = Some(BATCH_HEADER_BYTES);
            }
            break;
        }
        let header = BatchHeader::parse(&bytes[at..usable]).map_err(|e| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("segment holds a bad batch: {e}"),
            )
        })?;
        if header.next_offset() > end {
            break;
        }
        let wanted = header.next_offset() > request.offset;
        if at + header.size > usable {
            if start.is_none() && !wanted && ((at - skip) as u64 + header.size as u64) <= left {
                // A large batch that is not wanted: step over it.
                passed = at - skip + header.size;
                return Ok(Picked {
                    range: None,
                    passed,
                    needs: Some(BATCH_HEADER_BYTES),
                });
            }
            needs = ((at - skip) as u64 + header.size as u64 <= left).then_some(header.size);
            break;
        }
        if wanted {
            let from = start.unwrap_or(at);
            let first = start.is_none() && request.at_least_one;
            if at + header.size - from > request.max_bytes && !first {
                break;
            }
            start = Some(from);
        }
        at += header.size;
        if start.is_none() {
            passed = at - skip;
        }
    }
    Ok(Picked {
        range: start.map(|s| s..at),
        passed,
        needs,
    })
}
