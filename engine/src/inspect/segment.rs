//! Owns checking one segment: block checksums, batches, offsets, epochs, index files.
//! Does not know journals or checkpoints beyond what it is told to expect.
//! Invariant: reads each byte once, in bounded memory, and tells a damaged block from a damaged checksum.

use super::index::{IndexCheck, Misfit};
use super::walk::{Seen, Walker};
use super::{Finding, Level, Subject};
use crate::journal::entry::CarryOver;
use crate::log::compact::swap::NEW;
use crate::log::epochs::EpochHistory;
use crate::log::index::{segment_stem, Index};
use crate::log::newest::Newest;
use crate::log::segment::{block_sum, load_sums, sum_position, UnsavedSums};
use crate::rt::{self, File, OpenOptions};
use crate::types::batch::BatchHeader;
use crate::types::limits::{BLOCK_BYTES, IO_BYTES_MAX, LEADER_EPOCHS_MAX};
use crate::types::{Offset, PartitionId};
use std::io;
use std::path::{Path, PathBuf};

const BLOCK: u64 = BLOCK_BYTES as u64;
const INDEX_FILE_BYTES_MAX: u64 = 1 << 30;
/// Findings of one kind of one segment that are told one by one; the others are counted.
const TOLD_MAX: usize = 16;

/// What is known of a segment before it is read.
pub struct Expected<'a> {
    pub partition: PartitionId,
    pub dir: &'a Path,
    pub base: Offset,
    /// Bytes in use; what lies behind is void.
    pub bytes: u64,
    /// Checksums that the checkpoint keeps.
    pub sums: &'a UnsavedSums,
    /// Closed, cut to size, with index files.
    pub finished: bool,
    /// The broker was stopped cleanly: index files are of no other moment than the checkpoint.
    pub clean: bool,
    /// The block that a crash may have torn, as the journal has it.
    pub carried: Option<&'a CarryOver>,
    /// Leader epochs of the records.
    pub epochs: &'a EpochHistory,
    /// Records may be missing below this offset: compaction was at work.
    pub gaps_below: Offset,
    /// Where the next segment begins, as the checkpoint says.
    pub next_offset: Offset,
    /// Extensions of files that are still where compaction wrote them.
    pub unmoved: &'a [&'static str],
}

/// What a segment turned out to hold.
#[derive(Clone, Copy, Debug)]
pub struct Contents {
    pub next_offset: Offset,
    pub max_timestamp_ms: i64,
    pub max_timestamp_offset: Offset,
    pub batches: u64,
    pub records: u64,
    /// First offset that cannot be trusted.
    pub first_bad: Option<Offset>,
}

impl Expected<'_> {
    fn path(&self, extension: &str) -> PathBuf {
        let dir = match self.unmoved.contains(&extension) {
            true => self.dir.join(NEW),
            false => self.dir.to_path_buf(),
        };
        dir.join(segment_stem(self.base)).with_extension(extension)
    }

    /// Length of the part of the last block that is in use; 0 where the last block is full.
    fn kept(&self) -> usize {
        (self.bytes % BLOCK) as usize
    }

    /// The journal's copy of the last block, where it has one that a recovery would use.
    fn restorable(&self) -> Option<&[u8]> {
        let carried = self.carried?;
        let fits = carried.segment_base == self.base
            && carried.block_position == self.bytes - self.kept() as u64
            && carried.bytes.len() >= self.kept()
            && !self.finished;
        fits.then(|| &carried.bytes[..self.kept()])
    }
}

/// Checks a segment; `on_batch` sees the header of every batch that is whole and in its place.
pub async fn check(
    expected: &Expected<'_>,
    on_batch: &mut dyn FnMut(&BatchHeader),
    findings: &mut Vec<Finding>,
) -> io::Result<Contents> {
    let mut checker = Checker {
        expected,
        sum_in_file: None,
        due: expected.base,
        resync: false,
        bad_blocks: Vec::new(),
        bad_batches: Vec::new(),
        bad_batch_count: 0,
        index: None,
        newest: Newest::none(expected.base),
        contents: Contents {
            next_offset: expected.base,
            max_timestamp_ms: -1,
            max_timestamp_offset: expected.base,
            batches: 0,
            records: 0,
            first_bad: None,
        },
    };
    let path = expected.path("log");
    let log = match File::open(&path, OpenOptions::new().read(true)).await {
        Ok(log) => log,
        Err(error) => {
            checker.contents.first_bad = Some(expected.base);
            findings.push(checker.records(&path, None, error_text(&error), expected.base));
            return Ok(checker.contents);
        }
    };
    let sums = checker.sums(findings).await?;
    checker.index = checker.read_index(findings).await?;
    checker.read_log(&log, &sums, on_batch, findings).await?;
    let (end, next) = (checker.contents.next_offset, expected.next_offset);
    if end < next && next <= expected.gaps_below {
        checker.contents.next_offset = next;
    }
    checker.tell(&path, findings);
    log.close().await?;
    Ok(checker.contents)
}

fn error_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "is missing".to_string(),
        _ => format!("cannot be read: {error}"),
    }
}

struct BadBatch {
    start: u64,
    end: u64,
    offset: Offset,
    why: String,
}

struct Checker<'a> {
    expected: &'a Expected<'a>,
    /// What the checksum file says of the last block: newer than the checkpoint where a recovery was
    /// cut short after it had cut the segment to size.
    sum_in_file: Option<u32>,
    /// Offset that the next batch should begin at.
    due: Offset,
    /// The batch before had a header that cannot be believed: take up where the next one is.
    resync: bool,
    /// First and last number of stretches of blocks.
    bad_blocks: Vec<(u64, u64)>,
    bad_batches: Vec<BadBatch>,
    bad_batch_count: u64,
    index: Option<IndexCheck>,
    newest: Newest,
    contents: Contents,
}

impl Checker<'_> {
    fn records(&self, file: &Path, byte: Option<u64>, what: String, from: Offset) -> Finding {
        Finding::new(Level::Damage, file, byte, what)
            .means(format!(
                "acknowledged records from offset {from} on may be lost"
            ))
            .advice(
                "put the file back from a copy, or give these records up: \
                 `millrace log repair --partition TOPIC-N --accept-loss-from OFFSET`",
            )
            .about(Subject::Records {
                partition: self.expected.partition,
                from,
            })
    }

    async fn sums(&mut self, findings: &mut Vec<Finding>) -> io::Result<Vec<u32>> {
        let blocks = self.expected.bytes.div_ceil(BLOCK) as usize;
        let path = self.expected.path("sum");
        let (known, base) = (self.expected.sums, self.expected.base);
        let loaded = match File::open(&path, OpenOptions::new().read(true)).await {
            Ok(file) => {
                self.sum_in_file = match load_sums(&file, base, blocks).await {
                    Ok(all) => all.last().copied(),
                    Err(_shorter) => None, // what has to be there is looked at next
                };
                known.load(Some(file), base, blocks).await
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && known.saved == 0 => {
                known.load(None, base, blocks).await
            }
            Err(error) => Err(error),
        };
        match loaded {
            Ok(sums) => Ok(sums),
            Err(error) => {
                let what = error_text(&error);
                findings.push(self.derived(&path, Some(0), what, self.about_sums()));
                Ok(Vec::new())
            }
        }
    }

    fn about_sums(&self) -> Subject {
        Subject::Sums {
            partition: self.expected.partition,
            base: self.expected.base,
        }
    }

    /// Damage to what can be made again from the batches.
    fn derived(&self, file: &Path, byte: Option<u64>, what: String, about: Subject) -> Finding {
        Finding::new(Level::Damage, file, byte, what)
            .means("no record is lost, but reads of this segment may fail")
            .advice("`millrace log repair` makes it again from the batches")
            .about(about)
    }

    async fn read_index(&self, findings: &mut Vec<Finding>) -> io::Result<Option<IndexCheck>> {
        let mut files = Vec::new();
        for extension in ["index", "timeindex"] {
            let path = self.expected.path(extension);
            match rt::fs::read(&path, INDEX_FILE_BYTES_MAX).await {
                Ok(bytes) => files.push(bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if self.expected.finished {
                        let what = "is missing".to_string();
                        findings.push(self.derived(&path, None, what, self.about_index()));
                    }
                    return Ok(None);
                }
                Err(error) => {
                    let what = error_text(&error);
                    findings.push(self.derived(&path, None, what, self.about_index()));
                    return Ok(None);
                }
            }
        }
        let bytes = self.expected.bytes;
        let Some(index) = Index::decode(&files[0], &files[1], bytes) else {
            // That of an open segment may be of a later moment than the checkpoint after a crash.
            if self.expected.finished || self.expected.clean {
                let offsets_are_sound = Index::decode(&files[0], &[], bytes).is_some();
                let extension = if offsets_are_sound {
                    "timeindex"
                } else {
                    "index"
                };
                let path = self.expected.path(extension);
                let what =
                    "its entries do not grow, are cut short, or point behind the segment's end";
                findings.push(self.derived(&path, Some(0), what.to_string(), self.about_index()));
            }
            return Ok(None);
        };
        Ok(Some(IndexCheck::new(index, self.expected.base)))
    }

    fn about_index(&self) -> Subject {
        Subject::Index {
            partition: self.expected.partition,
            base: self.expected.base,
        }
    }

    async fn read_log(
        &mut self,
        log: &File,
        sums: &[u32],
        on_batch: &mut dyn FnMut(&BatchHeader),
        findings: &mut Vec<Finding>,
    ) -> io::Result<()> {
        let path = self.expected.path("log");
        let bytes = self.expected.bytes;
        let mut walker = Walker::new();
        let mut position = 0;
        while position < bytes {
            let read = match log.read_at(position, IO_BYTES_MAX).await {
                Ok(read) => read,
                Err(error) => {
                    let what = error_text(&error);
                    findings.push(self.records(&path, Some(position), what, self.due));
                    self.note_bad(self.due);
                    return Ok(());
                }
            };
            let here = read.len().min((bytes - position) as usize);
            let mut restored = None;
            for (i, block) in read.chunks(BLOCK_BYTES).enumerate() {
                let number = position / BLOCK + i as u64;
                if number * BLOCK >= bytes {
                    break;
                }
                let Some(sum) = sums.get(number as usize) else {
                    continue;
                };
                if block_sum(self.expected.base, number, block) == *sum {
                    continue;
                }
                let last = self.expected.kept() > 0 && number == bytes / BLOCK;
                if last {
                    let begins = i * BLOCK_BYTES;
                    restored = self.last_block(number, block, *sum, findings);
                    if restored.is_some() {
                        let wanted = &read[..begins.min(here)];
                        self.walk(&mut walker, wanted, on_batch);
                    }
                    continue;
                }
                self.bad_block(number);
            }
            match restored {
                Some(block) => self.walk(&mut walker, &block, on_batch),
                None => self.walk(&mut walker, &read[..here], on_batch),
            }
            position += here as u64;
            // Less than was asked for: the file ends here.
            if position < bytes && here < IO_BYTES_MAX {
                let what = format!("ends at byte {position} where {bytes} bytes were written");
                findings.push(self.records(&path, Some(position), what, self.due));
                self.note_bad(self.due);
                return Ok(());
            }
            rt::yield_if_needed().await;
        }
        if let Some(start) = walker.unfinished().filter(|_| !walker.lost()) {
            let offset = self.due;
            let why = "it ends behind the end of the segment".to_string();
            self.bad_batch(start, bytes, offset, why);
        }
        Ok(())
    }

    /// The last block is not full and its checksum does not fit it: padding, a torn rewrite that
    /// the journal makes good, or damage. Gives the journal's copy where that is what counts.
    fn last_block(
        &mut self,
        number: u64,
        block: &[u8],
        sum: u32,
        findings: &mut Vec<Finding>,
    ) -> Option<Vec<u8>> {
        let kept = self.expected.kept();
        let path = self.expected.path("log");
        let restorable = self.expected.restorable();
        let prefix_sum =
            (block.len() >= kept).then(|| block_sum(self.expected.base, number, &block[..kept]));
        if block.len() == kept && prefix_sum.is_some() && prefix_sum == self.sum_in_file {
            return None;
        }
        let prefix_fits = prefix_sum == Some(sum);
        if prefix_fits || restorable.is_some() {
            let at = Some(number * BLOCK);
            if restorable.is_some() {
                let what = "the last block was being rewritten when the broker crashed";
                findings.push(
                    Finding::new(Level::TornTail, &path, at, what)
                        .means("nothing is lost: the journal has its bytes"),
                );
            } else {
                let at = Some(self.expected.bytes);
                let what = "the bytes behind the last record are not what was written".to_string();
                let about = Subject::Padding {
                    partition: self.expected.partition,
                    base: self.expected.base,
                };
                findings.push(self.derived(&path, at, what, about));
            }
        } else {
            self.bad_block(number);
        }
        restorable.filter(|_| !prefix_fits).map(<[u8]>::to_vec)
    }

    fn bad_block(&mut self, number: u64) {
        match self.bad_blocks.last_mut() {
            Some(last) if last.1 + 1 == number => last.1 = number,
            Some(_) | None => self.bad_blocks.push((number, number)),
        }
    }

    fn note_bad(&mut self, offset: Offset) {
        let first = self.contents.first_bad.get_or_insert(offset);
        *first = (*first).min(offset);
    }

    fn bad_batch(&mut self, start: u64, end: u64, offset: Offset, why: String) {
        self.note_bad(offset);
        self.bad_batch_count += 1;
        match self.bad_batches.last_mut() {
            // Beyond what is told one by one only the stretch is kept.
            Some(last) if self.bad_batch_count > TOLD_MAX as u64 => last.end = end,
            Some(_) | None => self.bad_batches.push(BadBatch {
                start,
                end,
                offset,
                why,
            }),
        }
    }

    fn walk(&mut self, walker: &mut Walker, bytes: &[u8], on_batch: &mut dyn FnMut(&BatchHeader)) {
        walker.feed(bytes, |seen| self.see(seen, on_batch));
    }

    fn see(&mut self, seen: Seen, on_batch: &mut dyn FnMut(&BatchHeader)) {
        let (position, header, crc_fits) = match seen {
            Seen::Batch {
                position,
                header,
                crc_fits,
            } => (position, header, crc_fits),
            Seen::Lost { position, error } => {
                let why = format!("no batch begins here: {error}");
                return self.bad_batch(position, self.expected.bytes, self.due, why);
            }
        };
        let due = self.due;
        let epoch = self.expected.epochs.at(header.base_offset);
        // A full history has forgotten its oldest epochs.
        let known = self.expected.epochs.pairs().len() < LEADER_EPOCHS_MAX;
        let trouble = if !crc_fits {
            Some("its CRC-32C does not match its bytes".to_string())
        } else if header.base_offset != due
            && !(self.resync && header.base_offset > due)
            && !(due..=self.expected.gaps_below).contains(&header.base_offset)
        {
            let at = header.base_offset;
            Some(format!("it claims offset {at} where {due} was due"))
        } else if header.last_offset_delta < 0 || header.next_offset() <= header.base_offset {
            Some("its last offset lies before its first".to_string())
        } else if known && epoch != header.leader_epoch {
            let its = header.leader_epoch;
            Some(format!(
                "it claims leader epoch {its}, the history has {epoch} at offset {due}"
            ))
        } else {
            None
        };
        if let Some(why) = trouble {
            self.resync = !crc_fits;
            self.bad_batch(position, position + header.size as u64, due, why);
            if crc_fits {
                // The CRC covers the number of records but not the offset: count on from ours.
                self.due = due.saturating_add(i64::from(header.last_offset_delta.max(0)) + 1);
            }
            return;
        }
        self.resync = false;
        self.due = header.next_offset();
        self.contents.next_offset = self.due;
        self.contents.batches += 1;
        self.contents.records += u64::try_from(header.record_count).unwrap_or(0);
        self.newest.note(&header);
        self.contents.max_timestamp_ms = self.newest.timestamp_ms;
        self.contents.max_timestamp_offset = self.newest.batch;
        if let Some(index) = &mut self.index {
            index.note(position, &header);
        }
        on_batch(&header);
    }

    /// Turns what was met into findings.
    fn tell(&mut self, path: &Path, findings: &mut Vec<Finding>) {
        let overlaps = |blocks: &(u64, u64), batch: &BadBatch| {
            blocks.0 * BLOCK < batch.end && batch.start < (blocks.1 + 1) * BLOCK
        };
        for batch in &self.bad_batches {
            let block = self.bad_blocks.iter().find(|b| overlaps(b, batch));
            let byte = block.map_or(batch.start, |b| (b.0 * BLOCK).max(batch.start));
            let (start, offset, why) = (batch.start, batch.offset, &batch.why);
            let sum = match block {
                Some((first, _)) => format!("; the checksum of block {first} does not fit either"),
                None => "; the block checksums fit, so it was written like this".to_string(),
            };
            let what =
                format!("the batch at byte {start} (offset {offset}) is damaged: {why}{sum}");
            findings.push(self.records(path, Some(byte), what, offset));
        }
        let untold = self.bad_batch_count - self.bad_batches.len() as u64;
        if untold > 0 {
            let what = format!("{untold} more batches behind that are damaged");
            let last = self.bad_batches.last().map_or(0, |b| b.offset);
            findings.push(self.records(path, None, what, last));
        }
        let sum_path = self.expected.path("sum");
        let alone = |b: &&(u64, u64)| !self.bad_batches.iter().any(|batch| overlaps(b, batch));
        for (first, last) in self.bad_blocks.iter().filter(alone).take(TOLD_MAX) {
            let which = match last - first {
                0 => format!("block {first}"),
                more => format!("block {first} and the {more} behind it"),
            };
            let what =
                format!("the checksum of {which} does not fit, but the batches there are whole");
            findings.push(self.derived(
                &sum_path,
                Some(sum_position(*first)),
                what,
                self.about_sums(),
            ));
        }
        if self.contents.first_bad.is_some() {
            return;
        }
        if let Some(misfit) = self
            .index
            .take()
            .and_then(|i| i.finish(self.expected.finished || self.expected.clean))
        {
            let (extension, byte) = match misfit {
                Misfit::Offset(n) => ("index", n as u64 * 8),
                Misfit::Time(n) => ("timeindex", n as u64 * 12),
            };
            let what = "an entry names no batch of the segment".to_string();
            let file = self.expected.path(extension);
            findings.push(self.derived(&file, Some(byte), what, self.about_index()));
        }
    }
}
