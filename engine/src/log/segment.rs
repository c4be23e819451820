//! Owns one segment on disk: its log file, its block checksums and its index files.
//! Does not know the journal, nor which bytes are acknowledged.
//! Invariant: bytes leave `read` only after the checksum of their block was compared.

use super::index::{segment_stem, Index};
use crate::plant::{self, Plant};
use crate::rt::{self, DirectBuf, File, OpenOptions, ReadBuf};
use crate::types::batch::BatchHeader;
use crate::types::limits::{BATCH_HEADER_BYTES, BLOCK_BYTES, IO_BYTES_MAX};
use crate::types::Offset;
use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

const SUM_MAGIC: &[u8; 8] = b"MLSUM\0\0\x01";
const SUM_HEADER_BYTES: usize = SUM_MAGIC.len() + 8;
const BLOCK: u64 = BLOCK_BYTES as u64;
/// An index that leaves out no more than this at its end is whole: the last entries may be that far
/// apart where batches are large, and to scan so much is nothing.
const UNINDEXED_INTERVALS_MAX: u64 = 16;
/// Space allocated beyond a write, in writes of its size and in bytes.
const ALLOCATE_AHEAD: u64 = 7;
const ALLOCATE_AHEAD_BYTES_MAX: u64 = 8 << 20;
/// Bytes between the entries of an index made again: Kafka's default.
const RENEWED_INDEX_INTERVAL_BYTES: u64 = 4096;
/// Index files are bounded by the segment: one entry per batch at most.
const INDEX_FILE_BYTES_MAX: u64 = 1 << 30;

/// Opened files of a segment; closed when the last clone of the `Rc` goes.
pub struct SegmentFiles {
    dir: PathBuf,
    base: Offset,
    log: File,
    /// Opened when it is first needed.
    sum: RefCell<Option<File>>,
    /// One per block in use. The first `sums_saved` of them are durable in the checksum file, the others
    /// are the checkpoint's to keep. While the segment grows that is a whole number of the file's blocks: no
    /// write, which may leave garbage where it is torn, touches a checksum that only the file has.
    sums: RefCell<Vec<u32>>,
    sums_saved: Cell<usize>,
    /// Of the others, how many were written to the file since the last sync.
    sums_written: Cell<usize>,
    /// Names created here are not durable yet.
    new_names: Cell<bool>,
    /// Length of the log file: what lies behind the bytes in use is allocated ahead.
    allocated: Cell<u64>,
    /// How much may be allocated ahead.
    ahead_max: Cell<u64>,
    /// Writes begun and ended: odd while one is under way.
    writes: Cell<u64>,
    index: RefCell<Option<Rc<Index>>>,
    /// The names of the files may be those of another segment by now: compaction has put one in the place of this.
    names_gone: Cell<bool>,
}

/// Checksums that are not in their file yet, but in the checkpoint: so many blocks are covered by the
/// file, and these are of the blocks that follow.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct UnsavedSums {
    pub saved: usize,
    pub sums: Vec<u32>,
}

impl UnsavedSums {
    /// The file has those of all `bytes` of a segment.
    pub fn none(bytes: u64) -> UnsavedSums {
        UnsavedSums {
            saved: bytes.div_ceil(BLOCK) as usize,
            sums: Vec::new(),
        }
    }

    /// Those of all `blocks` in use; `file` holds what was saved.
    pub async fn load(
        &self,
        file: Option<File>,
        base: Offset,
        blocks: usize,
    ) -> io::Result<Vec<u32>> {
        let saved = self.saved.min(blocks);
        let mut sums = match file {
            Some(file) => load_sums(&file, base, saved).await?,
            None => Vec::new(),
        };
        sums.extend(self.sums.iter().take(blocks - saved));
        if sums.len() < blocks {
            let reason = format!("segment {base} has more blocks than checksums");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(sums)
    }
}

impl SegmentFiles {
    /// Opens (or creates, empty) the files of segment `base`. `disk_bytes` of it are in use;
    /// what lies behind is left over from before a crash and void.
    pub async fn open(
        dir: &Path,
        base: Offset,
        disk_bytes: u64,
        unsaved: &UnsavedSums,
        create: bool,
    ) -> io::Result<SegmentFiles> {
        let stem = dir.join(segment_stem(base));
        let options = OpenOptions::new().read(true).write(true).create(create);
        let log = File::open(&stem.with_extension("log"), options).await?;
        let mut allocated = log.size().await?;
        if disk_bytes == 0 && allocated > 0 {
            log.truncate(0).await?;
            allocated = 0;
        }
        let files = SegmentFiles::assemble(dir, base, log);
        files.new_names.set(create);
        files.allocated.set(allocated);
        let blocks = disk_bytes.div_ceil(BLOCK) as usize;
        let saved = unsaved.saved.min(blocks);
        let file = match saved {
            0 => None,
            _ => Some(files.sum_file().await?),
        };
        let sums = unsaved.load(file, base, blocks).await?;
        files.sums.replace(sums);
        files.sums_saved.set(saved);
        Ok(files)
    }

    fn assemble(dir: &Path, base: Offset, log: File) -> SegmentFiles {
        SegmentFiles {
            dir: dir.to_path_buf(),
            base,
            log,
            sum: RefCell::new(None),
            sums: RefCell::default(),
            sums_saved: Cell::new(0),
            sums_written: Cell::new(0),
            new_names: Cell::new(false),
            allocated: Cell::new(0),
            ahead_max: Cell::new(0),
            writes: Cell::new(0),
            index: RefCell::new(None),
            names_gone: Cell::new(false),
        }
    }

    /// From here on nothing is read of it by name: the descriptor goes on being its own.
    pub fn forget_names(&self) {
        self.names_gone.set(true);
    }

    async fn sum_file(&self) -> io::Result<File> {
        if let Some(file) = self.sum.borrow().as_ref() {
            return Ok(file.clone());
        }
        let path = self.log_path().with_extension("sum");
        let options = OpenOptions::new().read(true).write(true).create(true);
        let file = File::open(&path, options).await?;
        if self.sums_saved.get() == 0 {
            // Its name may be new; what is in it is not ours.
            self.new_names.set(true);
        }
        self.sum.replace(Some(file.clone()));
        Ok(file)
    }

    /// Opens a segment whose checksums are damaged, with new ones of what its first `bytes` are now:
    /// for repairs, after the batches were checked. None of them is in its file yet.
    pub async fn with_new_sums(dir: &Path, base: Offset, bytes: u64) -> io::Result<SegmentFiles> {
        let stem = dir.join(segment_stem(base));
        let options = OpenOptions::new().read(true).write(true);
        let log = File::open(&stem.with_extension("log"), options).await?;
        let mut sums = Vec::new();
        let mut position = 0;
        while position < bytes {
            let read = log.read_at(position, IO_BYTES_MAX).await?;
            let blocks = read.chunks(BLOCK_BYTES).zip(position / BLOCK..);
            sums.extend(blocks.map(|(block, number)| block_sum(base, number, block)));
            position += read.len() as u64;
            if read.len() < IO_BYTES_MAX {
                break; // the file ends here, maybe within a block
            }
        }
        sums.truncate(bytes.div_ceil(BLOCK) as usize);
        let files = SegmentFiles::assemble(dir, base, log);
        files.sums.replace(sums);
        Ok(files)
    }

    /// Makes the index files again from the first `bytes`.
    pub async fn renew_index(&self, bytes: u64) -> io::Result<()> {
        let index = self.extend_index(Index::default(), bytes, RENEWED_INDEX_INTERVAL_BYTES);
        self.write_index(index.await?.0).await
    }

    fn block_sum(&self, block: u64, bytes: &[u8]) -> u32 {
        block_sum(self.base, block, bytes)
    }

    /// Writes whole blocks at a block boundary and remembers their checksums; not yet synced.
    pub async fn write(&self, position: u64, buf: Rc<DirectBuf>) -> io::Result<()> {
        assert!(position.is_multiple_of(BLOCK) && buf.len().is_multiple_of(BLOCK_BYTES));
        self.allocate_ahead(position, buf.len() as u64).await;
        self.writes.set(self.writes.get() + 1);
        let written = self.log.write_at(buf.clone(), position).await;
        self.writes.set(self.writes.get() + 1);
        written?;
        let first = (position / BLOCK) as usize;
        let mut sums = self.sums.borrow_mut();
        assert!(first <= sums.len(), "segments are written without holes");
        sums.truncate(first);
        self.sums_saved.set(self.sums_saved.get().min(first));
        for (i, block) in buf.chunks_exact(BLOCK_BYTES).enumerate() {
            let sum = self.block_sum((first + i) as u64, block);
            sums.push(sum);
        }
        Ok(())
    }

    /// Says how many bytes beyond what is written may be allocated: none where the disk is nearly full.
    pub fn allow_ahead(&self, bytes: u64) {
        self.ahead_max.set(bytes.min(ALLOCATE_AHEAD_BYTES_MAX));
    }

    /// A write that makes its file longer is taken off the ring and waits for a thread: it is done for
    /// several writes at once. Where there is no room for that, the write itself will say so.
    async fn allocate_ahead(&self, position: u64, bytes: u64) {
        let end = position + bytes;
        if end <= self.allocated.get() {
            return;
        }
        let ahead = (bytes * ALLOCATE_AHEAD).min(self.ahead_max.get());
        if ahead == 0 {
            return;
        }
        match self.log.allocate(end + ahead).await {
            Ok(()) => self.allocated.set(end + ahead),
            Err(error) => {
                tracing::debug!(path = %self.log_path().display(), %error, "cannot allocate ahead")
            }
        }
    }

    /// Checksums that are not durable in their file.
    pub fn unsaved_sums(&self) -> UnsavedSums {
        let saved = self.sums_saved.get();
        UnsavedSums {
            saved,
            sums: self.sums.borrow()[saved..].to_vec(),
        }
    }

    /// What the checkpoint has to keep of a segment that will take more bytes, of whose blocks `settled` will
    /// not change any more: all that is not in settled blocks of the file, which will be written again.
    pub fn unsaved_sums_of_growing(&self, settled: usize) -> UnsavedSums {
        let saved = whole_sum_blocks(self.sums_saved.get().min(settled));
        UnsavedSums {
            saved,
            sums: self.sums.borrow()[saved..].to_vec(),
        }
    }

    /// Writes the checksums of the first `settled` blocks, which will not change any more, to their file as
    /// far as they fill blocks of it; durable by the next sync.
    pub async fn write_settled_sums(&self, settled: usize) -> io::Result<()> {
        self.write_sums(whole_sum_blocks(settled)).await
    }

    /// Writes all checksums to their file; durable by the next sync.
    pub async fn write_all_sums(&self) -> io::Result<()> {
        let all = self.sums.borrow().len();
        self.write_sums(all).await
    }

    async fn write_sums(&self, count: usize) -> io::Result<()> {
        let (start, bytes) = {
            let sums = self.sums.borrow();
            let saved = self.sums_saved.get();
            if count <= saved {
                return Ok(());
            }
            let start = (SUM_HEADER_BYTES + 4 * saved) / BLOCK_BYTES * BLOCK_BYTES;
            (start, encode_sums(self.base, &sums[..count], start))
        };
        let mut buf = DirectBuf::with_len(bytes.len().next_multiple_of(BLOCK_BYTES));
        buf[..bytes.len()].copy_from_slice(&bytes);
        buf[bytes.len()..].fill(0);
        let file = self.sum_file().await?;
        file.write_at(Rc::new(buf), start as u64).await?;
        self.sums_written.set(count);
        Ok(())
    }

    /// Makes everything durable that was written through this.
    pub async fn sync(&self) -> io::Result<()> {
        if plant::active(Plant::CheckpointBeforeSegmentSync) {
            self.synced();
            return Ok(());
        }
        self.log.sync().await?;
        let sum = self.sum.borrow().clone();
        if let Some(file) = sum.filter(|_| self.sums_written.get() > 0) {
            file.sync().await?;
        }
        if self.new_names.get() && !plant::active(Plant::ForgetFileNameSync) {
            rt::fs::sync_dir(&self.dir).await?;
        }
        self.synced();
        Ok(())
    }

    /// Takes note that the whole file system was synced after the last write.
    pub fn synced(&self) {
        let written = self.sums_written.replace(0);
        self.sums_saved.set(self.sums_saved.get().max(written));
        self.new_names.set(false);
    }

    /// Reads `[position, position + len)` (block-aligned) and checks every block. Gives less at
    /// the end of the file.
    pub async fn read(&self, position: u64, len: usize) -> io::Result<ReadBuf> {
        assert!(
            position.is_multiple_of(BLOCK)
                && len.is_multiple_of(BLOCK_BYTES)
                && len <= IO_BYTES_MAX
        );
        loop {
            let writes = self.writes.get();
            let bytes = self.log.read_at(position, len).await?;
            let Some(block) = self.wrong_block(position, &bytes) else {
                return Ok(bytes);
            };
            // The last block may have been rewritten while it was read; that ends some time.
            if writes.is_multiple_of(2) && self.writes.get() == writes {
                return Err(self.damaged(block));
            }
            rt::yield_now().await;
        }
    }

    /// The first block of `bytes` that is not what was written. Behind what is in use all are fine.
    fn wrong_block(&self, position: u64, bytes: &[u8]) -> Option<u64> {
        if plant::active(Plant::SkipBlockChecksum) {
            return None;
        }
        let sums = self.sums.borrow();
        let first = position / BLOCK;
        let known = sums.get(first as usize..).unwrap_or(&[]);
        let blocks = bytes.chunks(BLOCK_BYTES).zip(known).zip(first..);
        blocks
            .filter(|((block, sum), number)| self.block_sum(*number, block) != **sum)
            .map(|(_, number)| number)
            .next()
    }

    fn damaged(&self, block: u64) -> io::Error {
        let path = self.log_path();
        tracing::error!(path = %path.display(), block, "damaged block: checksum does not match");
        io::Error::new(
            io::ErrorKind::InvalidData,
            DamagedBlock {
                path: path.display().to_string(),
                block,
            },
        )
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.join(segment_stem(self.base)).with_extension("log")
    }

    /// Restores the start of a block that a crash may have torn. The bytes came from the journal.
    pub async fn restore_block(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let mut buf = DirectBuf::with_len(BLOCK_BYTES);
        buf[..bytes.len()].copy_from_slice(bytes);
        buf[bytes.len()..].fill(0);
        self.write(position, Rc::new(buf)).await?;
        self.write_all_sums().await?;
        self.sync().await
    }

    /// Cuts the segment to `bytes`, as Kafka's tools want closed files; renews the last checksum.
    /// May be repeated after a crash between its steps: the new checksum is durable before the cut.
    /// A damaged last block stays as it is, damaged to every reader; gives whether it is sound.
    pub async fn cut(&self, bytes: u64) -> io::Result<bool> {
        let whole = bytes / BLOCK * BLOCK;
        let number = (whole / BLOCK) as usize;
        let keep = (bytes - whole) as usize;
        let mut last = None;
        let mut sound = true;
        if keep > 0 {
            let block = self.log.read_at(whole, BLOCK_BYTES).await?;
            if block.len() < keep {
                let reason = format!("{}: ends before byte {bytes}", self.log_path().display());
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
            }
            let cut_sum = self.block_sum(number as u64, &block[..keep]);
            let known = self.sums.borrow().get(number).copied();
            sound = known == Some(cut_sum)
                || known == Some(self.block_sum(number as u64, &block))
                || self.sum_in_file(number).await? == Some(cut_sum);
            last = Some(cut_sum);
            if !sound {
                tracing::error!(path = %self.log_path().display(), block = number, "damaged block: checksum does not match");
                last = Some(known.unwrap_or(!cut_sum));
            }
        }
        let same = {
            let sums = self.sums.borrow();
            sums.get(number).copied() == last && sums.len() == number + usize::from(keep > 0)
        };
        if !same {
            let mut sums = self.sums.borrow_mut();
            sums.truncate(number);
            sums.extend(last);
            self.sums_saved.set(self.sums_saved.get().min(number));
        }
        self.write_all_sums().await?;
        self.sync().await?;
        self.log.truncate(bytes).await?;
        self.allocated.set(bytes);
        self.log.sync().await?;
        Ok(sound)
    }

    /// What the checksum file says of a block, also where that is not known to be of use.
    async fn sum_in_file(&self, number: usize) -> io::Result<Option<u32>> {
        let sums = load_sums(&self.sum_file().await?, self.base, number + 1).await;
        match sums {
            Ok(sums) => Ok(sums.last().copied()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The index of a closed segment, or of the part that a clean stop wrote: from its files, or
    /// rebuilt by scanning the first `bytes`.
    pub async fn index(&self, bytes: u64, interval: u64) -> io::Result<Rc<Index>> {
        if let Some(index) = self.index.borrow().as_ref() {
            return Ok(index.clone());
        }
        let known = self.read_index(bytes).await?;
        let left_out_max = interval * UNINDEXED_INTERVALS_MAX;
        let (index, _) = self.complete(known, bytes, interval, left_out_max).await?;
        let index = Rc::new(index);
        *self.index.borrow_mut() = Some(index.clone());
        Ok(index)
    }

    /// The same with nothing left out, so that entries of later bytes may stand behind it: a time entry says that nothing
    /// before it is as late. False with it where it ends early, for damage.
    pub async fn index_of_all(&self, bytes: u64, interval: u64) -> io::Result<(Index, bool)> {
        let known = self.index.borrow().clone();
        let known = match known {
            Some(known) => (*known).clone(),
            None => self.read_index(bytes).await?,
        };
        self.complete(known, bytes, interval, 0).await
    }

    async fn complete(
        &self,
        known: Index,
        bytes: u64,
        interval: u64,
        left_out_max: u64,
    ) -> io::Result<(Index, bool)> {
        let last = known.last_position().map(u64::from);
        if last.is_some_and(|last| bytes.saturating_sub(last) <= left_out_max) {
            return Ok((known, true));
        }
        match self.extend_index(known, bytes, interval).await {
            // The file points at something that is no batch.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.extend_index(Index::default(), bytes, interval).await
            }
            result => result,
        }
    }

    /// What the index files say; nothing where they are missing or cannot be believed, so that all is scanned.
    async fn read_index(&self, bytes: u64) -> io::Result<Index> {
        let stem = self.dir.join(segment_stem(self.base));
        let read = |extension: &str| {
            let path = stem.with_extension(extension);
            async move {
                match rt::fs::read(&path, INDEX_FILE_BYTES_MAX).await {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error),
                }
            }
        };
        let (Some(offsets), Some(times)) = (read("index").await?, read("timeindex").await?) else {
            return Ok(Index::default());
        };
        if self.names_gone.get() {
            return Ok(Index::default());
        }
        Ok(Index::decode(&offsets, &times, bytes).unwrap_or_default())
    }

    /// Adds the batches behind the last entry. There are many where the file is missing, or was
    /// written before the segment's last bytes and a crash came between. It ends early at a damaged
    /// block or where the file does, and says so: readers behind it scan from the last entry, and meet that.
    pub(super) async fn extend_index(
        &self,
        mut index: Index,
        bytes: u64,
        interval: u64,
    ) -> io::Result<(Index, bool)> {
        let from = index.last_position().map(u64::from);
        let mut whole = true;
        let mut scan = Scan::new(self, from.unwrap_or(0), bytes);
        loop {
            let next = match scan.next().await {
                Err(error) if unreadable_from_here(&error) => {
                    whole = false;
                    break;
                }
                next => next?,
            };
            let Some((position, header)) = next else {
                break;
            };
            if from == Some(position) {
                index.resume(header.size as u32);
                continue;
            }
            let relative = header.last_offset().checked_sub(self.base);
            let Some(relative) = relative.and_then(|r| u32::try_from(r).ok()) else {
                // Bytes that nobody wrote as this segment may claim any offset, and so may what the
                // index points at: from the beginning it ends here, as at a damaged block.
                if from.is_some() {
                    return Err(no_batch_of_this(self, position));
                }
                whole = false;
                break;
            };
            index.note(
                relative,
                position as u32,
                header.size as u32,
                header.max_timestamp,
                interval,
            );
        }
        index.finish();
        Ok((index, whole))
    }

    pub async fn write_index(&self, index: Index) -> io::Result<()> {
        let stem = self.dir.join(segment_stem(self.base));
        rt::fs::write_atomic(&stem.with_extension("index"), &index.encode_offsets()).await?;
        rt::fs::write_atomic(&stem.with_extension("timeindex"), &index.encode_times()).await?;
        *self.index.borrow_mut() = Some(Rc::new(index));
        Ok(())
    }

    pub fn base(&self) -> Offset {
        self.base
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Which device the files are on.
    pub fn device(&self) -> u64 {
        self.log.device()
    }
}

#[derive(thiserror::Error, Debug)]
#[error("{path}: block {block} is damaged (checksum does not match)")]
struct DamagedBlock {
    path: String,
    block: u64,
}

fn no_batch_of_this(files: &SegmentFiles, position: u64) -> io::Error {
    let path = files.log_path();
    let reason = format!(
        "{}: byte {position}: no batch of this segment",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn unreadable_from_here(error: &io::Error) -> bool {
    damaged_block(error).is_some() || error.kind() == io::ErrorKind::UnexpectedEof
}

/// The block that a read found damaged, if that is why it failed.
pub fn damaged_block(error: &io::Error) -> Option<u64> {
    let inner = error.get_ref()?.downcast_ref::<DamagedBlock>()?;
    Some(inner.block)
}

/// Walks the batch headers of a segment from a position that begins a batch.
pub struct Scan<'a> {
    files: &'a SegmentFiles,
    position: u64,
    end: u64,
    window: Option<(u64, ReadBuf)>,
}

impl<'a> Scan<'a> {
    pub fn new(files: &'a SegmentFiles, position: u64, end: u64) -> Scan<'a> {
        Scan {
            files,
            position,
            end,
            window: None,
        }
    }

    /// Position and header of the next batch; None at the end.
    pub async fn next(&mut self) -> io::Result<Option<(u64, BatchHeader)>> {
        rt::yield_if_needed().await;
        if self.position + BATCH_HEADER_BYTES as u64 > self.end {
            return Ok(None);
        }
        let mut header_bytes = [0u8; BATCH_HEADER_BYTES];
        self.copy(self.position, &mut header_bytes).await?;
        let header = BatchHeader::parse(&header_bytes).map_err(|error| {
            let path = self.files.log_path();
            let at = self.position;
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: byte {at}: {error}", path.display()),
            )
        })?;
        let position = self.position;
        let behind = position + header.size as u64;
        if behind > self.end {
            return Ok(None);
        }
        self.position = behind;
        Ok(Some((position, header)))
    }

    /// Where the next batch begins, which may not be there as a whole.
    pub fn position(&self) -> u64 {
        self.position
    }

    async fn copy(&mut self, position: u64, out: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < out.len() {
            let at = position + done as u64;
            let inside = |w: &(u64, ReadBuf)| at >= w.0 && at < w.0 + w.1.len() as u64;
            if !self.window.as_ref().is_some_and(inside) {
                let start = at / BLOCK * BLOCK;
                self.window = Some((start, self.files.read(start, IO_BYTES_MAX).await?));
            }
            let (start, bytes) = self.window.as_ref().expect("just set");
            let from = (at - start) as usize;
            if from >= bytes.len() {
                let path = self.files.log_path();
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("{}: ends at byte {at}", path.display()),
                ));
            }
            let n = (bytes.len() - from).min(out.len() - done);
            out[done..done + n].copy_from_slice(&bytes[from..from + n]);
            done += n;
        }
        Ok(())
    }
}

/// Checksum of one block, which its place seeds; a last block counts as if padded with zeros.
pub fn block_sum(base: Offset, block: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&base.to_le_bytes());
    hasher.update(&block.to_le_bytes());
    hasher.update(bytes);
    if bytes.len() < BLOCK_BYTES {
        hasher.update(&[0u8; BLOCK_BYTES][bytes.len()..]);
    }
    hasher.finalize()
}

/// Byte of the checksum file at which the checksum of a block is.
pub fn sum_position(block: u64) -> u64 {
    SUM_HEADER_BYTES as u64 + 4 * block
}

/// The most checksums, `count` of them or fewer, that end where a block of their file does.
fn whole_sum_blocks(count: usize) -> usize {
    let whole = (SUM_HEADER_BYTES + 4 * count) / BLOCK_BYTES * BLOCK_BYTES;
    whole.saturating_sub(SUM_HEADER_BYTES) / 4
}

/// The bytes of the checksum file from byte `start` (block-aligned) on.
fn encode_sums(base: Offset, sums: &[u32], start: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut first = 0;
    if start == 0 {
        out.extend_from_slice(SUM_MAGIC);
        out.extend_from_slice(&base.to_le_bytes());
    } else {
        first = (start - SUM_HEADER_BYTES) / 4;
    }
    for sum in &sums[first.min(sums.len())..] {
        out.extend_from_slice(&sum.to_le_bytes());
    }
    out
}

/// Reads the checksums of the first `blocks` blocks.
pub async fn load_sums(sum: &File, base: Offset, blocks: usize) -> io::Result<Vec<u32>> {
    if blocks == 0 {
        return Ok(Vec::new());
    }
    let want = SUM_HEADER_BYTES + blocks * 4;
    // How many are wanted may be what a file claims.
    let mut bytes = Vec::with_capacity(want.min(IO_BYTES_MAX));
    while bytes.len() < want {
        let len = (want - bytes.len())
            .next_multiple_of(BLOCK_BYTES)
            .min(IO_BYTES_MAX);
        let part = sum.read_at(bytes.len() as u64, len).await?;
        bytes.extend_from_slice(&part);
        if part.len() < len {
            break; // the file ends here, maybe within a block
        }
    }
    let sound =
        bytes.len() >= want && bytes[..8] == *SUM_MAGIC && bytes[8..16] == base.to_le_bytes();
    if !sound {
        let reason =
            format!("block checksums of segment {base} are missing or not of this segment");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    let word = |b: &[u8]| u32::from_le_bytes(b.try_into().expect("four bytes"));
    Ok(bytes[16..want].chunks_exact(4).map(word).collect())
}

/// Removes every file of a segment; those that are not there are fine.
pub async fn remove_files(dir: &Path, base: Offset) -> io::Result<()> {
    let stem = dir.join(segment_stem(base));
    for extension in ["log", "sum", "index", "timeindex"] {
        match rt::fs::remove_file(&stem.with_extension(extension)).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
