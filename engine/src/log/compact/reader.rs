//! Owns reading the batches of a finished segment one after the other, each as a whole.
//! Does not know what is in them.
//! Invariant: a batch is handed out only if its CRC-32C fits; memory for one batch and one read is held, no more.

use crate::log::segment::SegmentFiles;
use crate::types::batch::BatchHeader;
use crate::types::limits::{BATCH_BYTES_MAX, BATCH_HEADER_BYTES, BLOCK_BYTES, IO_BYTES_MAX};
use std::io;
use std::rc::Rc;

pub struct Batches {
    files: Rc<SegmentFiles>,
    /// Of the segment.
    bytes: u64,
    /// Read so far.
    read: u64,
    buf: Vec<u8>,
    /// In `buf`: where the batch begins that was handed out, and where it ends.
    at: usize,
    behind: usize,
}

impl Batches {
    pub fn new(files: Rc<SegmentFiles>, bytes: u64) -> Batches {
        Batches {
            files,
            bytes,
            read: 0,
            buf: Vec::new(),
            at: 0,
            behind: 0,
        }
    }

    /// The header of the next batch, whose bytes [`Batches::batch`] has then; None at the end.
    ///
    /// # Errors
    /// A block or a batch is damaged, or larger than any is written.
    pub async fn next(&mut self) -> io::Result<Option<BatchHeader>> {
        self.at = self.behind;
        if self.at_end() {
            return Ok(None);
        }
        self.fill(BATCH_HEADER_BYTES).await?;
        let header = BatchHeader::parse(&self.buf[self.at..])?;
        if header.size > BATCH_BYTES_MAX {
            return Err(self.unfit("a batch is larger than any is written"));
        }
        self.fill(header.size).await?;
        self.behind = self.at + header.size;
        if !header.crc_matches(self.batch()) {
            return Err(self.unfit("a batch does not match its CRC-32C"));
        }
        Ok(Some(header))
    }

    pub fn batch(&self) -> &[u8] {
        &self.buf[self.at..self.behind]
    }

    /// Whether no batch follows the one that was handed out.
    pub fn at_end(&self) -> bool {
        self.read == self.bytes && self.behind == self.buf.len()
    }

    /// Bytes read so far.
    pub fn read(&self) -> u64 {
        self.read
    }

    async fn fill(&mut self, need: usize) -> io::Result<()> {
        if self.buf.len() - self.at >= need {
            return Ok(());
        }
        self.buf.drain(..self.at);
        (self.at, self.behind) = (0, 0);
        while self.buf.len() < need {
            let left = usize::try_from(self.bytes - self.read).unwrap_or(usize::MAX);
            let want = left.min(IO_BYTES_MAX).next_multiple_of(BLOCK_BYTES);
            let part = match left {
                0 => return Err(self.unfit("the segment ends within a batch")),
                _ => self.files.read(self.read, want).await?,
            };
            let taken = part.len().min(left);
            self.buf.extend_from_slice(&part[..taken]);
            self.read += taken as u64;
            if taken < want.min(left) {
                return Err(self.unfit("the file ends before its segment does"));
            }
        }
        Ok(())
    }

    fn unfit(&self, what: &str) -> io::Error {
        let path = self.files.log_path();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{}: {what}", path.display()),
        )
    }
}
