//! Owns the exchange of segments for the compacted one: the file that says it is under way, and the steps.
//! Does not know what was compacted.
//! Invariant: before that file is durable the old segments count, and from then on the new one does, whatever crash comes
//! between: a start finishes what it finds begun. The file goes once a checkpoint names the new segment.

use crate::checkpoint::{PartitionState, Reader, SegmentState};
use crate::log::index::segment_stem;
use crate::log::segment::{remove_files, UnsavedSums};
use crate::rt;
use crate::types::{Offset, PartitionId, TopicId};
use bytes::BufMut;
use std::io;
use std::path::{Path, PathBuf};

/// Folder below the data directory, for exchanges under way.
pub const SWAPS: &str = "swaps";
/// Folder in a partition's, where new segments are written.
pub const NEW: &str = "compacted";
/// Extensions of the files of one segment.
pub const FILES: [&str; 4] = ["log", "sum", "index", "timeindex"];
const MAGIC: u32 = 0x5753_4c4d; // "MLSW"
const FORMAT: u32 = 1;
const BYTES_MAX: u64 = 256 << 20;
const OLD_MAX: usize = 1 << 24;
const FORGOTTEN_MAX: usize = 1 << 24;

/// An exchange of neighbouring segments for one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Swap {
    pub id: PartitionId,
    /// Base offsets of those that go; the first one is the new one's as well.
    pub old: Vec<Offset>,
    pub new: SegmentState,
    /// Producer and marker of aborted transactions of which nothing is left.
    pub forgotten: Vec<(i64, Offset)>,
}

impl Swap {
    /// Where the file that says so is.
    pub fn path(&self, data_dir: &Path) -> PathBuf {
        let (id, base) = (self.id, self.new.base);
        let name = format!("{}-{}-{}", id.topic, id.index, segment_stem(base));
        data_dir.join(SWAPS).join(name)
    }

    /// From here on there is no way back.
    pub async fn begin(&self, data_dir: &Path) -> io::Result<()> {
        rt::fs::create_dir_all(&data_dir.join(SWAPS)).await?;
        rt::fs::write_atomic(&self.path(data_dir), &self.encode()).await
    }

    /// Puts the new files where the old ones are, and removes those; durably. May be repeated.
    pub async fn finish(&self, dir: &Path) -> io::Result<()> {
        let aside = dir.join(NEW);
        let stem = segment_stem(self.new.base);
        let mut moved = false;
        for extension in FILES {
            let from = aside.join(&stem).with_extension(extension);
            match rt::fs::rename(&from, &dir.join(&stem).with_extension(extension)).await {
                Ok(()) => moved = true,
                // Moved before, by a start that was cut short.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        for base in &self.old[1..] {
            remove_files(dir, *base).await?;
        }
        rt::fs::sync_dir(dir).await?;
        match moved {
            true => rt::fs::sync_dir(&aside).await,
            false => Ok(()),
        }
    }

    /// What the checkpoint of a partition says once the exchange is made; nothing changes where it says so already.
    pub fn apply(&self, state: &mut PartitionState) {
        let begins = state
            .segments
            .iter()
            .position(|s| self.old.contains(&s.base));
        // Otherwise retention has taken all of it.
        if let Some(begins) = begins {
            state.segments.retain(|s| !self.old.contains(&s.base));
            state.segments.insert(begins, self.new.clone());
        }
        let gone = |producer: i64, marker: Offset| self.forgotten.contains(&(producer, marker));
        state
            .transactions
            .retain(|t| t.last < 0 || !gone(t.producer_id, t.last));
        let gaps = &mut state.cleaned.gaps_below;
        *gaps = (*gaps).max(self.new.next_offset);
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + 8 * self.old.len());
        out.put_u32_le(MAGIC);
        out.put_u32_le(FORMAT);
        out.put_slice(&self.id.topic.0);
        out.put_i32_le(self.id.index);
        out.put_i64_le(self.new.base);
        out.put_u64_le(self.new.bytes);
        out.put_i64_le(self.new.next_offset);
        out.put_i64_le(self.new.max_timestamp_ms);
        out.put_i64_le(self.new.max_timestamp_offset);
        out.put_u32_le(self.old.len() as u32);
        self.old.iter().for_each(|base| out.put_i64_le(*base));
        out.put_u32_le(self.forgotten.len() as u32);
        for (producer, marker) in &self.forgotten {
            out.put_i64_le(*producer);
            out.put_i64_le(*marker);
        }
        let crc = crc32fast::hash(&out);
        out.put_u32_le(crc);
        out
    }

    /// What such bytes say, or why they say nothing.
    pub fn decode(bytes: &[u8]) -> Result<Swap, &'static str> {
        const DAMAGED: &str = "checksum does not match: the file is damaged";
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(DAMAGED)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(DAMAGED);
        }
        let mut r = Reader(body);
        if r.u32()? != MAGIC {
            return Err("is no exchange of segments");
        }
        if r.u32()? != FORMAT {
            return Err("format is not known to this version: use the newer millrace");
        }
        let id = PartitionId::new(TopicId(r.bytes()?), r.i32()?);
        let (base, size) = (r.i64()?, r.u64()?);
        let new = SegmentState {
            base,
            bytes: size,
            next_offset: r.i64()?,
            max_timestamp_ms: r.i64()?,
            max_timestamp_offset: r.i64()?,
            closed: true,
            finished: true,
            sums: UnsavedSums::none(size),
        };
        let old = r.list(OLD_MAX, Reader::i64)?;
        let forgotten = r.list(FORGOTTEN_MAX, |r| Ok((r.i64()?, r.i64()?)))?;
        let grows = old.windows(2).all(|w| w[0] < w[1]) && old.first() == Some(&base);
        if !grows || !r.0.is_empty() || size == 0 || size > i32::MAX as u64 {
            return Err("names no segments that could be exchanged");
        }
        Ok(Swap {
            id,
            old,
            new,
            forgotten,
        })
    }
}

/// All exchanges that are under way below a data directory, and their files.
pub async fn under_way(data_dir: &Path) -> io::Result<Vec<(PathBuf, Swap)>> {
    let dir = data_dir.join(SWAPS);
    let entries = match rt::fs::list_dir(&dir).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries.iter().filter(|e| !e.name.ends_with(".tmp")) {
        let path = dir.join(&entry.name);
        let bytes = rt::fs::read(&path, BYTES_MAX).await?;
        let swap = Swap::decode(&bytes).map_err(|why| {
            let what = format!("{}: {why}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?;
        found.push((path, swap));
    }
    Ok(found)
}

/// Forgets exchanges that a checkpoint knows of; durably.
pub async fn retire(data_dir: &Path, files: &[PathBuf]) -> io::Result<()> {
    for file in files {
        match rt::fs::remove_file(file).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    match files {
        [] => Ok(()),
        [..] => rt::fs::sync_dir(&data_dir.join(SWAPS)).await,
    }
}

/// Removes what a compaction left that was cut short before its exchange began.
pub async fn remove_new(dir: &Path) -> io::Result<()> {
    match rt::fs::remove_dir_all(&dir.join(NEW)).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swap() -> Swap {
        Swap {
            id: PartitionId::new(TopicId([3; 16]), 4),
            old: vec![10, 40, 60],
            new: SegmentState {
                base: 10,
                bytes: 5_000,
                next_offset: 90,
                max_timestamp_ms: 7,
                max_timestamp_offset: 12,
                closed: true,
                finished: true,
                sums: UnsavedSums::none(5_000),
            },
            forgotten: vec![(9, 33)],
        }
    }

    #[test]
    fn an_exchange_round_trips_and_damage_is_seen() {
        let bytes = swap().encode();
        assert_eq!(Swap::decode(&bytes), Ok(swap()));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            assert!(Swap::decode(&bad).is_err(), "byte {at}");
            assert!(Swap::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
        let mut elsewhere = swap();
        elsewhere.old[0] = 9;
        assert!(Swap::decode(&elsewhere.encode()).is_err());
    }
}
