//! Owns reading one segment or journal file batch by batch, whatever state it is in.
//! Does not know how they are shown, nor keys and values.
//! Invariant: memory is bounded by the largest batch that can be stored, whatever the file claims.

use crate::journal::entry::{body_crc, entries, HEADER_BYTES};
use crate::rt::{self, File, OpenOptions};
use crate::types::batch::BatchHeader;
use crate::types::limits::{
    BATCH_BYTES_MAX, BATCH_HEADER_BYTES, BLOCK_BYTES, IO_BYTES_MAX, JOURNAL_FILE_BYTES,
};
use std::io;
use std::path::Path;

pub use crate::journal::entry::{CommitHeader, EntryHeader, EntryKind};

/// One thing in a file, in file order.
pub enum Item<'a> {
    /// A commit of a journal. `intact`: its body is what was written.
    Commit { header: CommitHeader, intact: bool },
    /// An entry of the commit before it; an append is followed by its batch.
    Entry(EntryHeader),
    Batch {
        position: u64,
        header: BatchHeader,
        crc_fits: bool,
        bytes: &'a [u8],
    },
    /// The file cannot be followed here, or not any further.
    Trouble { position: u64, what: String },
}

/// Reads a file through `each`, which ends it with false.
///
/// # Errors
/// A file that is neither a `.log` nor a `.journal`, or cannot be read.
pub async fn dump(path: &Path, each: &mut dyn FnMut(Item<'_>) -> bool) -> io::Result<()> {
    let kind = path.extension().and_then(|e| e.to_str());
    let journal = match kind {
        Some("log") => false,
        Some("journal") => true,
        Some(_) | None => {
            let what = "is neither a segment (.log) nor a journal file (.journal)";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
    };
    let file = File::open(path, OpenOptions::new().read(true)).await?;
    let mut bytes = Bytes {
        size: file.size().await?,
        file: &file,
        start: 0,
        window: Vec::new(),
    };
    if journal {
        dump_journal(&mut bytes, each).await?;
    } else {
        dump_segment(&mut bytes, each).await?;
    }
    file.close().await
}

/// A stretch of the file in memory.
struct Bytes<'a> {
    file: &'a File,
    size: u64,
    start: u64,
    window: Vec<u8>,
}

impl Bytes<'_> {
    /// `len` bytes at `position`, or as many as the file has.
    async fn at(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        let end = (position + len as u64).min(self.size);
        let inside = position >= self.start && end <= self.start + self.window.len() as u64;
        if !inside {
            let block = BLOCK_BYTES as u64;
            self.start = position / block * block;
            self.window.clear();
            while self.start + (self.window.len() as u64) < end {
                let at = self.start + self.window.len() as u64;
                let part = self.file.read_at(at, IO_BYTES_MAX).await?;
                self.window.extend_from_slice(&part);
                if part.len() < IO_BYTES_MAX {
                    break; // the file ends here, maybe within a block
                }
            }
        }
        let from = ((position - self.start) as usize).min(self.window.len());
        let to = (from + len).min(self.window.len());
        Ok(&self.window[from..to])
    }
}

async fn dump_segment(
    bytes: &mut Bytes<'_>,
    each: &mut dyn FnMut(Item<'_>) -> bool,
) -> io::Result<()> {
    let mut position = 0;
    while position < bytes.size {
        let head = bytes.at(position, BATCH_HEADER_BYTES).await?;
        let header = match BatchHeader::parse(head) {
            Ok(header) => header,
            Err(error) => {
                let last = bytes.size - position < BLOCK_BYTES as u64;
                let rest = bytes.at(position, BLOCK_BYTES).await?;
                let what = if last && rest.iter().all(|b| *b == 0) {
                    "padding up to the end of the block".to_string()
                } else {
                    format!("no batch begins here: {error}")
                };
                each(Item::Trouble { position, what });
                return Ok(());
            }
        };
        if header.size > BATCH_BYTES_MAX {
            let what = format!(
                "a batch claims {} bytes, more than any may have",
                header.size
            );
            each(Item::Trouble { position, what });
            return Ok(());
        }
        let whole = bytes.at(position, header.size).await?;
        if whole.len() < header.size {
            let (has, size) = (whole.len(), header.size);
            let what = format!("the file ends after {has} of the {size} bytes of a batch");
            each(Item::Trouble { position, what });
            return Ok(());
        }
        let more = each(Item::Batch {
            position,
            header,
            crc_fits: header.crc_matches(whole),
            bytes: whole,
        });
        if !more {
            return Ok(());
        }
        position += header.size as u64;
        rt::yield_if_needed().await;
    }
    Ok(())
}

async fn dump_journal(
    bytes: &mut Bytes<'_>,
    each: &mut dyn FnMut(Item<'_>) -> bool,
) -> io::Result<()> {
    let block = BLOCK_BYTES as u64;
    let mut position = 0;
    while position + block <= bytes.size {
        let head = bytes.at(position, HEADER_BYTES).await?;
        let found = CommitHeader::claimed_journal(head)
            .and_then(|id| Some((id, CommitHeader::decode(id, head, position)?.0)));
        let Some((id, header)) = found else {
            position += block;
            rt::yield_if_needed().await;
            continue;
        };
        let end = HEADER_BYTES + header.body_bytes as usize;
        let whole = if end as u64 <= JOURNAL_FILE_BYTES {
            bytes.at(position, end).await?
        } else {
            &[]
        };
        let intact = whole.len() == end && body_crc(id, &whole[HEADER_BYTES..]) == header.body_crc;
        if !each(Item::Commit { header, intact }) {
            return Ok(());
        }
        if !intact {
            position += block;
            continue;
        }
        if !dump_commit(&whole[HEADER_BYTES..], position, each) {
            return Ok(());
        }
        position += header.padded_bytes() as u64;
        rt::yield_if_needed().await;
    }
    Ok(())
}

fn dump_commit(body: &[u8], position: u64, each: &mut dyn FnMut(Item<'_>) -> bool) -> bool {
    let Some(entries) = entries(body) else {
        let what = "the entries of the commit do not add up".to_string();
        return each(Item::Trouble { position, what });
    };
    for (entry, payload) in entries {
        if !each(Item::Entry(entry)) {
            return false;
        }
        if entry.kind != EntryKind::Append {
            continue;
        }
        let at = payload.as_ptr() as usize - body.as_ptr() as usize;
        let position = position + (HEADER_BYTES + at) as u64;
        let item = match BatchHeader::parse(payload) {
            Ok(header) => Item::Batch {
                position,
                header,
                crc_fits: header.size == payload.len() && header.crc_matches(payload),
                bytes: payload,
            },
            Err(error) => Item::Trouble {
                position,
                what: format!("the entry holds no batch: {error}"),
            },
        };
        if !each(item) {
            return false;
        }
    }
    true
}
