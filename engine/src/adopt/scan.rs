//! Owns reading the segments of one Kafka partition, checking all of it, and copying it into ours.
//! Does not know topics, checkpoints or the metadata.
//! Invariant: what is copied is byte for byte what was checked.

use super::source;
use crate::checkpoint::SegmentState;
use crate::inspect::walk::{Seen, Walker};
use crate::log::compact::Cleaned;
use crate::log::epochs::EpochHistory;
use crate::log::index::{segment_stem, Index};
use crate::log::marker;
use crate::log::newest::Newest;
use crate::log::producers::Producers;
use crate::log::segment::{SegmentFiles, UnsavedSums};
use crate::log::transactions::{Transactions, TxnSpan};
use crate::rt::{self, DirectBuf, File, OpenOptions};
use crate::types::batch::BatchHeader;
use crate::types::limits::{BLOCK_BYTES, IO_BYTES_MAX, TXN_ABORTED_PER_PARTITION_MAX};
use crate::types::{LeaderEpoch, Offset};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

const SMALL_FILE_BYTES_MAX: u64 = 64 << 20;
/// Bytes between index entries; Kafka's default.
const INDEX_INTERVAL_BYTES: u64 = 4096;
/// A marker is one small record.
const MARKER_BYTES_MAX: usize = 4096;
/// Positions in index files have 32 bits.
const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// Why a partition cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error("{path}, byte {byte}: {why}")]
    Batch {
        path: String,
        byte: u64,
        why: String,
    },
    #[error("{path}: {why}")]
    File { path: String, why: String },
    #[error("{0}")]
    Log(String),
}

/// Everything known of one partition.
#[derive(Debug)]
pub struct Scanned {
    pub segments: Vec<SegmentState>,
    pub epochs: EpochHistory,
    pub producers: Producers,
    /// Those that were aborted, in the order of their markers.
    pub aborted: Vec<TxnSpan>,
    /// Largest producer id met; -1 without any.
    pub producer_id_max: i64,
    pub latest_epoch: LeaderEpoch,
    /// First offset that is there.
    pub first: Offset,
    /// Offset behind the last record.
    pub end: Offset,
    pub records: u64,
    pub bytes: u64,
    pub cleaned: Cleaned,
}

/// Reads and checks a partition's folder. Offsets may be missing below `compacted_below`.
pub async fn scan(dir: &Path, compacted_below: Offset) -> Result<Scanned, Unfit> {
    let bases = bases(dir).await?;
    let mut walk = Walk::new(compacted_below);
    let mut segments = Vec::new();
    for base in &bases {
        let (state, _) = segment(dir, *base, &mut walk, None).await?;
        segments.push(state);
    }
    // Whoever coordinates it is not taken over, and without an end readers of committed records would stop there for good.
    if let Some((open, _, first)) = walk.transactions.open().next() {
        let why = format!(
            "producer {open} has a transaction, begun at offset {first}, that is neither committed nor aborted"
        );
        return Err(Unfit::Log(why));
    }
    let aborted = walk.transactions.durable_spans(Offset::MAX);
    if aborted.len() > TXN_ABORTED_PER_PARTITION_MAX {
        let why = format!(
            "has {} aborted transactions, more than a partition may have",
            aborted.len()
        );
        return Err(Unfit::Log(why));
    }
    let first = bases.first().copied().unwrap_or(0);
    let end = walk.due.unwrap_or(first);
    let latest = read_small(&dir.join("leader-epoch-checkpoint"), source::latest_epoch).await?;
    segments.retain(|s: &SegmentState| s.bytes > 0);
    let ends = segments.iter().skip(1).map(|s| s.base).chain([end]);
    let ends: Vec<Offset> = ends.collect();
    for (segment, end) in segments.iter_mut().zip(ends) {
        segment.next_offset = end;
    }
    let mut scanned = Scanned {
        bytes: segments.iter().map(|s| s.bytes).sum(),
        segments,
        latest_epoch: latest.flatten().max(walk.epochs.latest()).unwrap_or(0),
        epochs: walk.epochs,
        producers: walk.producers,
        aborted,
        producer_id_max: walk.producer_id_max,
        first,
        end,
        records: walk.records,
        cleaned: Cleaned {
            below: compacted_below.min(end),
            gaps_below: walk.gaps_below,
        },
    };
    snapshot(dir, &mut scanned).await?;
    Ok(scanned)
}

/// Copies a segment into `to`, with block checksums and index files; it must still be what `scan` saw.
pub async fn copy(from: &Path, to: &Path, state: &SegmentState) -> Result<(), Unfit> {
    let failed = |error: io::Error| Unfit::File {
        path: to.display().to_string(),
        why: error.to_string(),
    };
    let files = SegmentFiles::open(to, state.base, 0, &UnsavedSums::default(), true)
        .await
        .map_err(failed)?;
    let mut walk = Walk::new(state.next_offset);
    walk.due = Some(state.base);
    let (mut again, index) = segment(from, state.base, &mut walk, Some(&files)).await?;
    // What was compacted away at its end belongs to it.
    again.next_offset = again.next_offset.max(state.next_offset);
    if again != *state {
        return Err(Unfit::File {
            path: from.display().to_string(),
            why: format!("segment {} changed while it was copied", state.base),
        });
    }
    files.write_all_sums().await.map_err(failed)?;
    files.sync().await.map_err(failed)?;
    if !files.cut(state.bytes).await.map_err(failed)? {
        return Err(Unfit::File {
            path: files.log_path().display().to_string(),
            why: "what was just written reads back otherwise".into(),
        });
    }
    files.write_index(index).await.map_err(failed)
}

/// Base offsets of the segments, in order.
async fn bases(dir: &Path) -> Result<Vec<Offset>, Unfit> {
    let entries = rt::fs::list_dir(dir).await.map_err(|e| Unfit::File {
        path: dir.display().to_string(),
        why: e.to_string(),
    })?;
    let mut bases: Vec<Offset> = entries
        .iter()
        .filter_map(|e| e.name.strip_suffix(".log"))
        .filter(|stem| stem.len() == 20)
        .filter_map(|stem| stem.parse().ok())
        .collect();
    bases.sort_unstable();
    Ok(bases)
}

/// Producers whose batches retention has deleted: only the newest snapshot knows them.
async fn snapshot(dir: &Path, scanned: &mut Scanned) -> Result<(), Unfit> {
    let path = dir
        .join(segment_stem(scanned.end))
        .with_extension("snapshot");
    let known = read_small(&path, source::producers).await?;
    // No file: nothing beyond what the batches said. A damaged one was an error above.
    for (id, batch) in known.unwrap_or_default() {
        scanned.producer_id_max = scanned.producer_id_max.max(id);
        if batch.last_offset < scanned.first {
            scanned.producers.restore(id, vec![batch], 0);
        }
    }
    Ok(())
}

/// A small file, read through `parse`; None where it is not there.
pub async fn read_small<T>(
    path: &Path,
    parse: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Result<Option<T>, Unfit> {
    let unfit = |why: String| Unfit::File {
        path: path.display().to_string(),
        why,
    };
    match rt::fs::read(path, SMALL_FILE_BYTES_MAX).await {
        Ok(bytes) => parse(&bytes).map(Some).map_err(unfit),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unfit(error.to_string())),
    }
}

/// What is carried from segment to segment.
struct Walk {
    due: Option<Offset>,
    epochs: EpochHistory,
    producers: Producers,
    producer_id_max: i64,
    transactions: Transactions,
    /// Of transactions, met in the bytes at hand; what a marker says has to be read.
    met: Vec<(u64, BatchHeader)>,
    records: u64,
    /// How far Kafka's log cleaner had come.
    compacted_below: Offset,
    gaps_below: Offset,
    newest: Newest,
    trouble: Option<(u64, String)>,
}

impl Walk {
    fn new(compacted_below: Offset) -> Walk {
        Walk {
            due: None,
            epochs: EpochHistory::default(),
            producers: Producers::default(),
            producer_id_max: -1,
            transactions: Transactions::default(),
            met: Vec::new(),
            records: 0,
            compacted_below,
            gaps_below: 0,
            newest: Newest::none(0),
            trouble: None,
        }
    }

    fn see(&mut self, seen: Seen, state: &mut SegmentState, index: &mut Index) {
        if self.trouble.is_some() {
            return;
        }
        let (position, header, crc_fits) = match seen {
            Seen::Batch {
                position,
                header,
                crc_fits,
            } => (position, header, crc_fits),
            Seen::Lost { position, error } => {
                self.trouble = Some((position, error.to_string()));
                return;
            }
        };
        if let Err(why) = self.take(position, &header, crc_fits, state) {
            self.trouble = Some((position, why));
            return;
        }
        let relative = (header.last_offset() - state.base) as u32;
        index.note(
            relative,
            position as u32,
            header.size as u32,
            header.max_timestamp,
            INDEX_INTERVAL_BYTES,
        );
    }

    /// The log goes on at `at`. What lies between has to have been compacted away.
    fn pass_gap(&mut self, at: Offset) -> Result<(), String> {
        let Some(due) = self.due.filter(|due| at > *due) else {
            return Ok(());
        };
        if due >= self.compacted_below {
            return Err(format!(
                "offsets {due} to {} are missing, and Kafka's log cleaner was not there yet",
                at - 1
            ));
        }
        self.gaps_below = at;
        self.due = Some(at);
        Ok(())
    }

    fn take(
        &mut self,
        position: u64,
        header: &BatchHeader,
        crc_fits: bool,
        state: &mut SegmentState,
    ) -> Result<(), String> {
        let due = self.due.unwrap_or(state.base);
        let at = header.base_offset;
        if !crc_fits {
            return Err(format!(
                "the batch of offset {at} does not match its CRC-32C"
            ));
        }
        if at < due || header.last_offset_delta < 0 {
            return Err(format!("a batch begins at offset {at} where {due} was due"));
        }
        self.pass_gap(at)?;
        if header.last_offset() - state.base > Offset::from(i32::MAX) {
            return Err("has offsets too far from its first one".to_string());
        }
        if self
            .epochs
            .latest()
            .is_some_and(|e| header.leader_epoch < e)
        {
            return Err(format!(
                "leader epoch {} follows a newer one",
                header.leader_epoch
            ));
        }
        self.due = Some(header.next_offset());
        self.records += u64::try_from(header.record_count).unwrap_or(0);
        self.epochs.observe(header.leader_epoch, at);
        if header.has_producer() {
            self.producer_id_max = self.producer_id_max.max(header.producer_id);
            if header.base_sequence < 0 {
                self.producers
                    .record_without_sequence(header, 0, Offset::MAX);
            } else {
                self.producers.record(header, 0, Offset::MAX);
            }
            if header.is_control() || header.is_transactional() {
                self.met.push((position, *header));
            }
        }
        state.next_offset = header.next_offset();
        self.newest.note(header);
        state.max_timestamp_ms = self.newest.timestamp_ms;
        state.max_timestamp_offset = self.newest.batch;
        Ok(())
    }
}

/// What the batches just met say of transactions, in their order.
async fn transactions(file: &File, walk: &mut Walk) -> io::Result<()> {
    for (position, header) in std::mem::take(&mut walk.met) {
        if !header.is_control() {
            walk.transactions.appended(&header);
            continue;
        }
        let start = position / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let skip = (position - start) as usize;
        let len = skip + header.size.min(MARKER_BYTES_MAX);
        let bytes = file
            .read_at(start, len.next_multiple_of(BLOCK_BYTES))
            .await?;
        let batch = bytes.get(skip..skip + header.size);
        let batch = batch.ok_or_else(|| io::Error::other("a transaction's marker is too large"))?;
        if let Some(commit) = marker::of(&header, batch)? {
            let (at, known) = (header.base_offset, Offset::MAX);
            walk.transactions
                .ended(header.producer_id, at, commit, known, 0);
        }
    }
    Ok(())
}

/// Reads one segment, checks every batch, and copies it where wanted.
async fn segment(
    dir: &Path,
    base: Offset,
    walk: &mut Walk,
    to: Option<&SegmentFiles>,
) -> Result<(SegmentState, Index), Unfit> {
    let path: PathBuf = dir.join(segment_stem(base)).with_extension("log");
    let name = path.display().to_string();
    let failed = |error: io::Error| Unfit::File {
        path: name.clone(),
        why: error.to_string(),
    };
    let unfit = |byte: u64, why: String| Unfit::Batch {
        path: name.clone(),
        byte,
        why,
    };
    if walk.due.is_some_and(|due| base < due) {
        let why = "begins before the segment in front of it ends".to_string();
        return Err(unfit(0, why));
    }
    walk.pass_gap(base).map_err(|why| unfit(0, why))?;
    let mut state = SegmentState {
        base,
        bytes: 0,
        next_offset: base,
        max_timestamp_ms: -1,
        max_timestamp_offset: base,
        closed: true,
        finished: true,
        sums: UnsavedSums::default(),
    };
    walk.newest = Newest::none(base);
    let mut index = Index::default();
    let mut walker = Walker::new();
    let file = File::open(&path, OpenOptions::new().read(true))
        .await
        .map_err(failed)?;
    if file.size().await.map_err(failed)? > SEGMENT_BYTES_MAX {
        return Err(unfit(0, "is larger than a segment can be".to_string()));
    }
    loop {
        let bytes = file
            .read_at(state.bytes, IO_BYTES_MAX)
            .await
            .map_err(failed)?;
        walker.feed(&bytes, |seen| walk.see(seen, &mut state, &mut index));
        if let Some((byte, why)) = walk.trouble.take() {
            return Err(unfit(byte, why));
        }
        transactions(&file, walk).await.map_err(failed)?;
        if let (Some(to), false) = (to, bytes.is_empty()) {
            let mut buf = DirectBuf::with_len(bytes.len().next_multiple_of(BLOCK_BYTES));
            buf[..bytes.len()].copy_from_slice(&bytes);
            buf[bytes.len()..].fill(0);
            to.write(state.bytes, Rc::new(buf)).await.map_err(failed)?;
        }
        state.bytes += bytes.len() as u64;
        if bytes.len() < IO_BYTES_MAX {
            break;
        }
    }
    if let Some(byte) = walker.unfinished() {
        return Err(unfit(byte, "the segment ends within a batch".to_string()));
    }
    file.close().await.map_err(failed)?;
    index.finish();
    walk.due.get_or_insert(base);
    state.sums = UnsavedSums::none(state.bytes);
    Ok((state, index))
}
