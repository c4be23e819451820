//! Owns one segment on disk: its log file, its block checksums and its index files.
//! Does not know the journal, nor which bytes are acknowledged.
//! Invariant: bytes leave `read` only after the checksum of their block was compared.

use super::index::{segment_stem, Index};
use crate::plant::{self, Plant};
use crate::rt::{self, DirectBuf, File, OpenOptions, ReadBuf};
use crate::types::batch::BatchHeader;
use crate::types::limits::{BATCH_HEADER_BYTES, BLOCK_BYTES, IO_BYTES_MAX};
use crate::types::Offset;
use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

const SUM_MAGIC: &[u8; 8] = b"MLSUM\0\0\x01";
const SUM_HEADER_BYTES: usize = SUM_MAGIC.len() + 8;
const BLOCK: u64 = BLOCK_BYTES as u64;
/// Index files are bounded by the segment: one entry per batch at most.
const INDEX_FILE_BYTES_MAX: u64 = 1 << 30;

/// Opened files of a segment; closed when the last clone of the `Rc` goes.
pub struct SegmentFiles {
    dir: PathBuf,
    base: Offset,
    log: File,
    sum: File,
    sums: RefCell<Vec<u32>>,
    index: RefCell<Option<Rc<Index>>>,
}

impl SegmentFiles {
    /// Opens (or creates, empty) the files of segment `base`. `disk_bytes` of it are in use;
    /// what lies behind is left over from before a crash and void.
    pub async fn open(
        dir: &Path,
        base: Offset,
        disk_bytes: u64,
        create: bool,
    ) -> io::Result<SegmentFiles> {
        let stem = dir.join(segment_stem(base));
        let options = OpenOptions::new().read(true).write(true).create(create);
        let log = File::open(&stem.with_extension("log"), options).await?;
        let sum = File::open(&stem.with_extension("sum"), options).await?;
        if disk_bytes == 0 {
            log.truncate(0).await?;
            sum.truncate(0).await?;
        }
        let sums = load_sums(&sum, base, disk_bytes.div_ceil(BLOCK) as usize).await?;
        Ok(SegmentFiles {
            dir: dir.to_path_buf(),
            base,
            log,
            sum,
            sums: RefCell::new(sums),
            index: RefCell::new(None),
        })
    }

    fn block_sum(&self, block: u64, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.base.to_le_bytes());
        hasher.update(&block.to_le_bytes());
        hasher.update(bytes);
        if bytes.len() < BLOCK_BYTES {
            hasher.update(&[0u8; BLOCK_BYTES][bytes.len()..]);
        }
        hasher.finalize()
    }

    /// Writes whole blocks at a block boundary and remembers their checksums; not yet synced.
    pub async fn write(&self, position: u64, buf: Rc<DirectBuf>) -> io::Result<()> {
        assert!(position.is_multiple_of(BLOCK) && buf.len().is_multiple_of(BLOCK_BYTES));
        self.log.write_at(buf.clone(), position).await?;
        let first = (position / BLOCK) as usize;
        let mut sums = self.sums.borrow_mut();
        assert!(first <= sums.len(), "segments are written without holes");
        sums.truncate(first);
        for (i, block) in buf.chunks_exact(BLOCK_BYTES).enumerate() {
            let sum = self.block_sum((first + i) as u64, block);
            sums.push(sum);
        }
        Ok(())
    }

    /// Makes everything from `position` on durable: the log's blocks and their checksums.
    pub async fn sync_from(&self, position: u64) -> io::Result<()> {
        let first_entry = (position / BLOCK) as usize;
        let (start, bytes) = {
            let start = (SUM_HEADER_BYTES + 4 * first_entry) / BLOCK_BYTES * BLOCK_BYTES;
            (start, encode_sums(self.base, &self.sums.borrow(), start))
        };
        let mut buf = DirectBuf::with_len(bytes.len().next_multiple_of(BLOCK_BYTES));
        buf[..bytes.len()].copy_from_slice(&bytes);
        buf[bytes.len()..].fill(0);
        self.sum.write_at(Rc::new(buf), start as u64).await?;
        if plant::active(Plant::CheckpointBeforeSegmentSync) {
            return Ok(());
        }
        self.log.sync().await?;
        self.sum.sync().await
    }

    /// Reads `[position, position + len)` (block-aligned) and checks every block. Gives less at
    /// the end of the file.
    pub async fn read(&self, position: u64, len: usize) -> io::Result<ReadBuf> {
        assert!(
            position.is_multiple_of(BLOCK)
                && len.is_multiple_of(BLOCK_BYTES)
                && len <= IO_BYTES_MAX
        );
        let bytes = self.log.read_at(position, len).await?;
        let sums = self.sums.borrow();
        for (i, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
            let number = position / BLOCK + i as u64;
            let Some(expected) = sums.get(number as usize) else {
                break; // behind what is in use
            };
            if self.block_sum(number, block) != *expected
                && !plant::active(Plant::SkipBlockChecksum)
            {
                return Err(self.damaged(number));
            }
        }
        Ok(bytes)
    }

    fn damaged(&self, block: u64) -> io::Error {
        let path = self.log_path();
        tracing::error!(path = %path.display(), block, "damaged block: checksum does not match");
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{}: block {block} is damaged (checksum does not match)",
                path.display()
            ),
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
        self.sync_from(position).await
    }

    /// Cuts the segment to `bytes`, as Kafka's tools want closed files; renews the last checksum.
    /// May be repeated after a crash between its steps.
    pub async fn cut(&self, bytes: u64) -> io::Result<()> {
        let whole = bytes / BLOCK * BLOCK;
        let number = whole / BLOCK;
        let keep = (bytes - whole) as usize;
        if keep > 0 {
            let block = self.log.read_at(whole, BLOCK_BYTES).await?;
            if block.len() < keep {
                let reason = format!("{}: ends before byte {bytes}", self.log_path().display());
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
            }
            let cut_sum = self.block_sum(number, &block[..keep]);
            let mut sums = self.sums.borrow_mut();
            let known = sums.get(number as usize).copied();
            if known != Some(cut_sum) && known != Some(self.block_sum(number, &block)) {
                return Err(self.damaged(number));
            }
            sums.truncate(number as usize);
            sums.push(cut_sum);
        } else {
            self.sums.borrow_mut().truncate(number as usize);
        }
        // The checksum first: after a crash between the two it fits the beginning of the longer block, which is cut again.
        self.sync_from(whole).await?;
        self.log.truncate(bytes).await?;
        self.log.sync().await
    }

    /// The index of a closed segment, or of the part that a clean stop wrote: from its files, or
    /// rebuilt by scanning the first `bytes`.
    pub async fn index(&self, bytes: u64, interval: u64) -> io::Result<Rc<Index>> {
        if let Some(index) = self.index.borrow().as_ref() {
            return Ok(index.clone());
        }
        let index = match self.read_index(bytes).await? {
            Some(index) => index,
            None => self.scan_index(bytes, interval).await?,
        };
        let index = Rc::new(index);
        *self.index.borrow_mut() = Some(index.clone());
        Ok(index)
    }

    async fn read_index(&self, bytes: u64) -> io::Result<Option<Index>> {
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
            return Ok(None);
        };
        Ok(Index::decode(&offsets, &times, bytes))
    }

    async fn scan_index(&self, bytes: u64, interval: u64) -> io::Result<Index> {
        let mut index = Index::default();
        let mut scan = Scan::new(self, 0, bytes);
        while let Some((position, header)) = scan.next().await? {
            let relative = (header.last_offset() - self.base) as u32;
            index.note(
                relative,
                position as u32,
                header.size as u32,
                header.max_timestamp,
                interval,
            );
        }
        index.finish();
        Ok(index)
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
        self.position += header.size as u64;
        if self.position > self.end {
            return Ok(None);
        }
        Ok(Some((position, header)))
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

async fn load_sums(sum: &File, base: Offset, blocks: usize) -> io::Result<Vec<u32>> {
    if blocks == 0 {
        return Ok(Vec::new());
    }
    let want = SUM_HEADER_BYTES + blocks * 4;
    let mut bytes = Vec::with_capacity(want);
    while bytes.len() < want {
        let len = (want - bytes.len())
            .next_multiple_of(BLOCK_BYTES)
            .min(IO_BYTES_MAX);
        let part = sum.read_at(bytes.len() as u64, len).await?;
        if part.is_empty() {
            break;
        }
        bytes.extend_from_slice(&part);
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
