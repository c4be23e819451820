//! Owns reading a journal back after a stop: which commits count, and whether any that was
//! acknowledged is damaged. Does not know what the entries mean. Never writes.
//! Invariant: every commit it gives was written whole, and none before it is missing.
//!
//! With E the end of the unbroken chain and D the highest durable sequence that any valid header
//! names: E >= D is a torn tail, whatever lies behind E was never acknowledged. E < D is damage.

use super::entry::{
    body_crc, entries, CommitHeader, EntryHeader, EntryKind, JournalId, HEADER_BYTES,
};
use super::ring::open_to_recover;
use crate::plant::{self, Plant};
use crate::rt::{self, File, OpenOptions, ReadBuf};
use crate::types::limits::{BLOCK_BYTES, IO_BYTES_MAX};
use std::io;
use std::path::{Path, PathBuf};

/// What a look at a body says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Body {
    /// Its checksum does not fit.
    Damaged,
    /// Record batches and nothing else.
    Batches,
    /// Other entries too.
    Mixed,
}

/// One commit found in a file.
#[derive(Clone, Debug)]
struct Found {
    header: CommitHeader,
    crc: u32,
    file: usize,
    body: Body,
}

impl Found {
    fn intact(&self) -> bool {
        self.body != Body::Damaged
    }
}

/// What a scan of a journal found.
pub struct Scan {
    files: Vec<(PathBuf, File)>,
    id: JournalId,
    /// The unbroken chain from the first sequence needed, in order.
    chain: Vec<Found>,
    /// Intact commits behind a damaged one, up to D and unbroken from there on: only good for
    /// partitions they continue.
    beyond: Vec<Found>,
    /// The last acknowledged sequence that is missing; means nothing where none is.
    last_missing: u64,
    /// File and position of the whole header at which the chain ends.
    stopped_at: Option<(usize, u64)>,
    /// E: last sequence of the chain (first needed - 1 where it is empty).
    pub end: u64,
    /// D: highest sequence known to have been flushed.
    pub durable: u64,
}

impl Scan {
    /// Reads all `*.journal` files of `dir`. `first` is the first sequence that is still needed.
    pub async fn read(dir: &Path, id: JournalId, generation: u64, first: u64) -> io::Result<Scan> {
        let mut files = Vec::new();
        for path in journal_files(dir).await? {
            let file = open_to_recover(&path).await?;
            // What is read now must still be there after a power cut that follows.
            file.sync().await?;
            files.push((path, file));
        }
        Scan::of_files(files, id, generation, first).await
    }

    /// The same for looking only: takes no lock and flushes nothing.
    pub async fn look(dir: &Path, id: JournalId, generation: u64, first: u64) -> io::Result<Scan> {
        let mut files = Vec::new();
        for path in journal_files(dir).await? {
            let file = File::open(&path, OpenOptions::new().read(true)).await?;
            files.push((path, file));
        }
        Scan::of_files(files, id, generation, first).await
    }

    async fn of_files(
        files: Vec<(PathBuf, File)>,
        id: JournalId,
        generation: u64,
        first: u64,
    ) -> io::Result<Scan> {
        let mut found = Vec::new();
        for (index, (_, file)) in files.iter().enumerate() {
            scan_file(index, file, id, &mut found).await?;
        }
        found.retain(|f: &Found| f.header.generation == generation);
        let durable = found
            .iter()
            .map(|f| f.header.durable_sequence)
            .max()
            .unwrap_or(0);
        found.retain(|f| f.header.sequence >= first);
        found.sort_by_key(|f| f.header.sequence);

        let mut chain: Vec<Found> = Vec::new();
        let mut beyond = Vec::new();
        let mut broken = false;
        let mut stopped_at = None;
        // The last commit that may have been acknowledged, and the commit before the one looked at.
        let (mut tail, mut before) = (durable, None);
        for commit in found {
            let linked_to = before.replace((commit.header.sequence, commit.crc));
            let due = first + chain.len() as u64;
            let linked = chain
                .last()
                .is_none_or(|last| last.crc == commit.header.previous_crc);
            let follows = commit.header.sequence == due && linked;
            let follows = follows || plant::active(Plant::IgnoreEntrySequence);
            if !broken && follows && commit.intact() {
                chain.push(commit);
                continue;
            }
            if !broken && commit.header.sequence == due {
                stopped_at = Some((commit.file, commit.header.position));
            }
            broken = true;
            if !commit.intact() || commit.header.sequence <= due {
                continue;
            }
            let sequence = commit.header.sequence;
            // As without damage: what goes on unbroken was maybe acknowledged before anything said so.
            if sequence - 1 == tail
                && linked_to.is_none_or(|(s, crc)| s < tail || crc == commit.header.previous_crc)
            {
                tail = sequence;
            }
            if sequence <= tail {
                beyond.push(commit);
            }
        }
        let end = first + chain.len() as u64 - 1;
        let whole_to_the_end = beyond
            .iter()
            .rev()
            .skip_while(|commit| commit.header.sequence > durable)
            .zip((0..=durable).rev())
            .take_while(|(commit, due)| commit.header.sequence == *due);
        let last_missing = durable - whole_to_the_end.count() as u64;
        Ok(Scan {
            files,
            id,
            chain,
            beyond,
            last_missing,
            stopped_at,
            end,
            durable,
        })
    }

    /// The first commit that is not part of the chain though its header is whole: its file and byte.
    pub fn stopped_at(&self) -> Option<(&Path, u64)> {
        let (file, position) = self.stopped_at?;
        Some((&self.files[file].0, position))
    }

    /// File and byte behind the last commit of the chain.
    pub fn chain_end(&self) -> Option<(&Path, u64)> {
        let last = self.chain.last()?;
        let end = last.header.position + last.header.padded_bytes() as u64;
        Some((&self.files[last.file].0, end))
    }

    /// File and byte of commit `index` of the chain.
    pub fn place(&self, index: usize) -> (&Path, u64) {
        let found = &self.chain[index];
        (&self.files[found.file].0, found.header.position)
    }

    /// Whether acknowledged commits are missing or damaged.
    pub fn damaged(&self) -> bool {
        self.end < self.durable && !plant::active(Plant::TruncateAtFirstBad)
    }

    pub fn commits(&self) -> usize {
        self.chain.len()
    }

    /// Whether commit `index` of the chain has only record batches.
    pub fn has_only_batches(&self, index: usize) -> bool {
        self.chain[index].body == Body::Batches
    }

    /// Reads the entries of commit `index` of the chain.
    pub async fn commit(&self, index: usize) -> io::Result<Commit> {
        self.load(&self.chain[index]).await
    }

    pub fn commits_beyond(&self) -> usize {
        self.beyond.len()
    }

    /// Whether no acknowledged commit is missing behind commit `index` of those beyond: only here
    /// does an entry prove that its partition lost nothing.
    pub fn is_behind_all_damage(&self, index: usize) -> bool {
        self.beyond[index].header.sequence > self.last_missing
    }

    pub async fn commit_beyond(&self, index: usize) -> io::Result<Commit> {
        self.load(&self.beyond[index]).await
    }

    async fn load(&self, found: &Found) -> io::Result<Commit> {
        let (path, file) = &self.files[found.file];
        let bytes = read_range(file, found.header.position, found.header.padded_bytes()).await?;
        let end = HEADER_BYTES + found.header.body_bytes as usize;
        let fits =
            bytes.len() >= end && body_fits(self.id, &bytes[HEADER_BYTES..end], &found.header);
        if !fits {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{}: commit {} changed while it was read",
                    path.display(),
                    found.header.sequence
                ),
            ));
        }
        Ok(Commit { bytes, end })
    }

    /// Closes the files, which gives up their locks.
    pub async fn close(self) -> io::Result<()> {
        for (_, file) in self.files {
            file.close().await?;
        }
        Ok(())
    }
}

async fn journal_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names: Vec<String> = rt::fs::list_dir(dir)
        .await?
        .into_iter()
        .map(|e| e.name)
        .filter(|n| n.ends_with(".journal"))
        .collect();
    names.sort_unstable();
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// The entries of one commit, read back and checked.
pub struct Commit {
    bytes: Vec<u8>,
    end: usize,
}

impl Commit {
    /// The entries, where they add up: for bytes that nobody vouches for.
    pub fn checked_entries(&self) -> Option<Vec<(EntryHeader, &[u8])>> {
        entries(&self.bytes[HEADER_BYTES..self.end])
    }

    pub fn entries(&self) -> Vec<(EntryHeader, &[u8])> {
        // A body whose seeded checksum fits was written by this code.
        entries(&self.bytes[HEADER_BYTES..self.end]).expect("a checked body splits into entries")
    }
}

fn look_at(id: JournalId, body: &[u8], header: &CommitHeader) -> Body {
    if !body_fits(id, body, header) {
        return Body::Damaged;
    }
    let batches = |all: &[(EntryHeader, &[u8])]| all.iter().all(|e| e.0.kind == EntryKind::Append);
    match entries(body) {
        Some(all) if batches(&all) => Body::Batches,
        Some(_) | None => Body::Mixed,
    }
}

fn body_fits(id: JournalId, body: &[u8], header: &CommitHeader) -> bool {
    body_crc(id, body) == header.body_crc || plant::active(Plant::SkipCrcOnRecovery)
}

async fn read_range(file: &File, position: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes);
    while out.len() < bytes {
        let want = (bytes - out.len()).min(IO_BYTES_MAX);
        let part = file.read_at(position + out.len() as u64, want).await?;
        out.extend_from_slice(&part);
        if part.len() < want {
            break; // the file ends here, maybe within a block
        }
    }
    Ok(out)
}

/// A window over a file, so that walking it block by block reads it in large pieces.
struct Window<'a> {
    file: &'a File,
    start: u64,
    bytes: Option<ReadBuf>,
}

impl Window<'_> {
    /// The bytes from `position` on, at least one block unless the file ends; may be many.
    async fn at(&mut self, position: u64) -> io::Result<&[u8]> {
        let inside = |w: &Self| {
            let have = w.bytes.as_ref().map_or(0, |b| b.len() as u64);
            position >= w.start && position + BLOCK_BYTES as u64 <= w.start + have
        };
        if !inside(self) {
            self.bytes = Some(self.file.read_at(position, IO_BYTES_MAX).await?);
            self.start = position;
        }
        let bytes = self.bytes.as_deref().unwrap_or(&[]);
        Ok(&bytes[(position - self.start) as usize..])
    }
}

/// Finds every header in a file, beyond holes too, and checks the bodies.
async fn scan_file(
    index: usize,
    file: &File,
    id: JournalId,
    found: &mut Vec<Found>,
) -> io::Result<()> {
    let size = file.size().await?;
    let mut window = Window {
        file,
        start: 0,
        bytes: None,
    };
    let mut position = 0;
    while position + BLOCK_BYTES as u64 <= size {
        let bytes = window.at(position).await?;
        if bytes.len() < BLOCK_BYTES {
            break;
        }
        let Some((header, crc)) = CommitHeader::decode(id, bytes, position) else {
            position += BLOCK_BYTES as u64;
            continue;
        };
        let end = HEADER_BYTES + header.body_bytes as usize;
        let body = if end <= bytes.len() {
            look_at(id, &bytes[HEADER_BYTES..end], &header)
        } else if position + end as u64 <= size {
            let whole = read_range(file, position, header.padded_bytes()).await?;
            match whole.get(HEADER_BYTES..end) {
                Some(body) => look_at(id, body, &header),
                None => Body::Damaged,
            }
        } else {
            Body::Damaged
        };
        found.push(Found {
            header,
            crc,
            file: index,
            body,
        });
        // Behind a damaged body any block may begin the next commit.
        position += match body {
            Body::Damaged => BLOCK_BYTES as u64,
            Body::Batches | Body::Mixed => header.padded_bytes() as u64,
        };
        rt::yield_if_needed().await;
    }
    Ok(())
}
