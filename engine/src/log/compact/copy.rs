//! Owns writing what stays of some neighbouring segments into one new segment beside them.
//! Does not know the log they are of, nor how the new one takes their place.
//! Invariant: what it wrote is durable when it ends, and ends where the segments ended that it was made of.

use super::filter::{Fate, Filter};
use super::pass::Pace;
use super::reader::Batches;
use super::Source;
use crate::checkpoint::SegmentState;
use crate::log::index::Index;
use crate::log::newest::Newest;
use crate::log::segment::{SegmentFiles, UnsavedSums};
use crate::rt::{self, DirectBuf};
use crate::types::batch::BatchHeader;
use crate::types::limits::{BLOCK_BYTES, IO_BYTES_MAX};
use crate::types::Offset;
use std::io;
use std::path::Path;
use std::rc::Rc;

/// What came of a group of segments.
pub struct Copied {
    pub segment: SegmentState,
    /// False where it is one segment, and nothing of it went or changed.
    pub changed: bool,
}

/// A new segment under way.
struct Out<'a> {
    files: SegmentFiles,
    base: Offset,
    index: Index,
    interval: u64,
    newest: Newest,
    bytes: u64,
    next_offset: Offset,
    /// Not written yet.
    rest: Vec<u8>,
    pace: &'a Pace<'a>,
}

/// Filters `group`, whose files are `from`, into a new segment in the folder `to`.
pub async fn copy(
    group: &[Source],
    from: &[Rc<SegmentFiles>],
    to: &Path,
    interval: u64,
    filter: &mut Filter<'_>,
    pace: &Pace<'_>,
) -> io::Result<Copied> {
    let base = group[0].base;
    let end = group[group.len() - 1].next_offset;
    // Not where the partition is gone: its folder may be another one's soon.
    pace.take(0).await?;
    rt::fs::create_dir_all(to).await?;
    let mut out = Out {
        files: SegmentFiles::open(to, base, 0, &UnsavedSums::default(), true).await?,
        base,
        index: Index::default(),
        interval,
        newest: Newest::none(base),
        bytes: 0,
        next_offset: base,
        rest: Vec::new(),
        pace,
    };
    let mut changed = group.len() > 1;
    for (n, (source, files)) in group.iter().zip(from).enumerate() {
        let mut batches = Batches::new(files.clone(), source.bytes);
        let mut read = 0;
        while let Some(header) = batches.next().await? {
            pace.take(batches.read() - read).await?;
            read = batches.read();
            let last = n + 1 == group.len() && batches.at_end();
            let fate = filter.next(&header, batches.batch(), last).await?;
            changed |= fate != Fate::AsItIs;
            match fate {
                Fate::AsItIs => out.put(&header, batches.batch()).await?,
                Fate::Replaced(batch) => {
                    let header = BatchHeader::parse(&batch)?;
                    assert!(header.crc_matches(&batch));
                    out.put(&header, &batch).await?;
                }
                Fate::Gone => {}
            }
        }
    }
    // Kafka's logs, which were taken in, may end a segment before the next one begins.
    assert!(out.next_offset <= end && out.bytes > 0);
    let segment = out.finish(end).await?;
    Ok(Copied { segment, changed })
}

impl Out<'_> {
    async fn put(&mut self, header: &BatchHeader, batch: &[u8]) -> io::Result<()> {
        assert!(header.base_offset >= self.next_offset, "offsets only grow");
        let relative = header.last_offset() - self.base;
        let position = u32::try_from(self.bytes).ok();
        let (Ok(relative), Some(position)) = (i32::try_from(relative), position) else {
            return Err(io::Error::other("the compacted segment would be too large"));
        };
        self.index.note(
            relative as u32,
            position,
            header.size as u32,
            header.max_timestamp,
            self.interval,
        );
        self.newest.note(header);
        self.bytes += batch.len() as u64;
        self.next_offset = header.next_offset();
        self.rest.extend_from_slice(batch);
        while self.rest.len() >= IO_BYTES_MAX {
            self.write(IO_BYTES_MAX).await?;
        }
        Ok(())
    }

    /// Writes the first `bytes` of what is not written.
    async fn write(&mut self, bytes: usize) -> io::Result<()> {
        let position = self.bytes - self.rest.len() as u64;
        let mut buf = DirectBuf::with_len(bytes.next_multiple_of(BLOCK_BYTES));
        buf[..bytes].copy_from_slice(&self.rest[..bytes]);
        buf[bytes..].fill(0);
        self.rest.drain(..bytes);
        let in_flight = self.pace.write(bytes as u64).await;
        self.files.write(position, Rc::new(buf)).await?;
        drop(in_flight);
        self.pace.take(bytes as u64).await
    }

    async fn finish(mut self, end: Offset) -> io::Result<SegmentState> {
        if !self.rest.is_empty() {
            self.write(self.rest.len()).await?;
        }
        self.index.finish();
        self.files.write_all_sums().await?;
        self.files.sync().await?;
        if !self.files.cut(self.bytes).await? {
            let what = format!(
                "{}: what was just written reads back otherwise",
                self.files.log_path().display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        self.files.write_index(self.index).await?;
        Ok(SegmentState {
            base: self.base,
            bytes: self.bytes,
            next_offset: end,
            max_timestamp_ms: self.newest.timestamp_ms,
            max_timestamp_offset: self.newest.batch,
            closed: true,
            finished: true,
            sums: UnsavedSums::none(self.bytes),
        })
    }
}
