//! Owns the checkpoint of a shard: the control state that recovery begins from, one file.
//! Does not know how the state is used. Invariant: what `decode` accepts is a whole checkpoint of
//! the journal it names, and describes only what was durable when it was taken.

use crate::journal::entry::JournalId;
use crate::log::compact::Cleaned;
use crate::log::producers::StoredBatch;
use crate::log::segment::UnsavedSums;
use crate::log::transactions::TxnSpan;
use crate::rt;
use crate::types::limits::{
    BLOCK_BYTES, LEADER_EPOCHS_MAX, PARTITIONS_MAX, PRODUCERS_PER_PARTITION_MAX, PRODUCER_BATCHES,
    TXN_ABORTED_PER_PARTITION_MAX,
};
use crate::types::{LeaderEpoch, Offset, PartitionId, TopicId};
use bytes::{Buf, BufMut};
use std::io;
use std::path::{Path, PathBuf};

const MAGIC: u32 = 0x4b43_4c4d; // "MLCK"
const FORMAT: u32 = 4;
/// The format without what compaction has done, which is read as well: it had done nothing.
const FORMAT_UNCOMPACTED: u32 = 3;
/// The format without transactions, which is read as well: there were none.
const FORMAT_PLAIN: u32 = 2;
const BYTES_MAX: u64 = 2 << 30;
const SEGMENTS_MAX: usize = 1 << 24;
/// Open ones and aborted ones; the last to begin may have met the bound together.
const TRANSACTIONS_MAX: usize = TXN_ABORTED_PER_PARTITION_MAX + 2 * PRODUCERS_PER_PARTITION_MAX;
/// Positions in a segment have 31 bits.
const SEGMENT_BLOCKS_MAX: usize = (1 << 31) / BLOCK_BYTES;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentState {
    pub base: Offset,
    pub bytes: u64,
    pub next_offset: Offset,
    pub max_timestamp_ms: i64,
    pub max_timestamp_offset: Offset,
    pub closed: bool,
    pub finished: bool,
    pub sums: UnsavedSums,
}

impl SegmentState {
    fn blocks(&self) -> usize {
        self.bytes.div_ceil(BLOCK_BYTES as u64) as usize
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionState {
    pub id: PartitionId,
    pub log_start: Offset,
    /// Producers and epochs are those of the records below this offset.
    pub durable: Offset,
    pub truncation: u32,
    pub offline_from: Option<Offset>,
    pub cleaned: Cleaned,
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    pub producers: Vec<(i64, Vec<StoredBatch>)>,
    /// In the order in which they ended, then those that are open.
    pub transactions: Vec<TxnSpan>,
    /// What is wholly on disk; the journal goes on at the last one's `next_offset`.
    pub segments: Vec<SegmentState>,
    /// Where the journal goes on: the last segment's `next_offset`, also where there is none.
    pub resume: Offset,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    pub journal: JournalId,
    pub generation: u64,
    /// First journal sequence that may hold what is not in segments.
    pub replay_from: u64,
    pub partitions: Vec<PartitionState>,
}

impl Checkpoint {
    fn path(data_dir: &Path, generation: u64, shard: usize) -> PathBuf {
        data_dir
            .join("checkpoints")
            .join(format!("g{generation}-s{shard}"))
    }

    /// Gives how many bytes it took.
    pub async fn write(&self, data_dir: &Path, shard: usize) -> io::Result<u64> {
        let path = Checkpoint::path(data_dir, self.generation, shard);
        let bytes = self.encode();
        rt::fs::write_atomic(&path, &bytes).await?;
        Ok(bytes.len() as u64)
    }

    pub async fn read(data_dir: &Path, generation: u64, shard: usize) -> io::Result<Checkpoint> {
        let path = Checkpoint::path(data_dir, generation, shard);
        let bytes = rt::fs::read(&path, BYTES_MAX)
            .await
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        Checkpoint::decode(&bytes).map_err(|why| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {why}", path.display()),
            )
        })
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.partitions.len() * 160);
        out.put_u32_le(MAGIC);
        out.put_u32_le(FORMAT);
        out.put_u128_le(self.journal.0);
        out.put_u64_le(self.generation);
        out.put_u64_le(self.replay_from);
        out.put_u32_le(self.partitions.len() as u32);
        for partition in &self.partitions {
            partition.encode(&mut out);
        }
        let crc = crc32fast::hash(&out);
        out.put_u32_le(crc);
        out
    }

    /// What such bytes say, or why they say nothing.
    pub fn decode(bytes: &[u8]) -> Result<Checkpoint, &'static str> {
        const DAMAGED: &str = "checksum does not match: the file is damaged";
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(DAMAGED)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(DAMAGED);
        }
        let mut reader = Reader(body);
        if reader.u32()? != MAGIC {
            return Err("is not a checkpoint");
        }
        let format = reader.u32()?;
        if ![FORMAT, FORMAT_UNCOMPACTED, FORMAT_PLAIN].contains(&format) {
            return Err("format is not known to this version: use the newer millrace");
        }
        let journal = JournalId(reader.u128()?);
        let generation = reader.u64()?;
        let replay_from = reader.u64()?;
        if replay_from == 0 {
            return Err("begins before the first commit");
        }
        let partitions = reader.list(PARTITIONS_MAX, |r| PartitionState::decode(r, format))?;
        if !reader.0.is_empty() {
            return Err("has bytes behind its end");
        }
        Ok(Checkpoint {
            journal,
            generation,
            replay_from,
            partitions,
        })
    }
}

impl PartitionState {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_slice(&self.id.topic.0);
        out.put_i32_le(self.id.index);
        out.put_i64_le(self.log_start);
        out.put_i64_le(self.durable);
        out.put_i64_le(self.resume);
        out.put_u32_le(self.truncation);
        out.put_i64_le(self.offline_from.unwrap_or(-1));
        out.put_i64_le(self.cleaned.below);
        out.put_i64_le(self.cleaned.gaps_below);
        out.put_u32_le(self.epochs.len() as u32);
        for (epoch, start) in &self.epochs {
            out.put_i32_le(*epoch);
            out.put_i64_le(*start);
        }
        out.put_u32_le(self.producers.len() as u32);
        for (id, batches) in &self.producers {
            out.put_i64_le(*id);
            out.put_u32_le(batches.len() as u32);
            for b in batches {
                out.put_i16_le(b.epoch);
                out.put_i32_le(b.first_sequence);
                out.put_i32_le(b.last_sequence);
                out.put_i64_le(b.base_offset);
                out.put_i64_le(b.last_offset);
                out.put_i64_le(b.timestamp_ms);
            }
        }
        out.put_u32_le(self.transactions.len() as u32);
        for t in &self.transactions {
            out.put_i64_le(t.producer_id);
            out.put_i16_le(t.epoch);
            out.put_i64_le(t.first);
            out.put_i64_le(t.last);
        }
        out.put_u32_le(self.segments.len() as u32);
        for s in &self.segments {
            out.put_i64_le(s.base);
            out.put_u64_le(s.bytes);
            out.put_i64_le(s.next_offset);
            out.put_i64_le(s.max_timestamp_ms);
            out.put_i64_le(s.max_timestamp_offset);
            out.put_u8(u8::from(s.closed) | u8::from(s.finished) << 1);
            out.put_u32_le(s.sums.saved as u32);
            out.put_u32_le(s.sums.sums.len() as u32);
            s.sums.sums.iter().for_each(|sum| out.put_u32_le(*sum));
        }
    }

    fn decode(reader: &mut Reader<'_>, format: u32) -> Result<PartitionState, &'static str> {
        let id = PartitionId::new(TopicId(reader.bytes()?), reader.i32()?);
        let (log_start, durable, resume) = (reader.i64()?, reader.i64()?, reader.i64()?);
        let truncation = reader.u32()?;
        let offline_from = Some(reader.i64()?).filter(|o| *o >= 0);
        let cleaned = match format {
            FORMAT_PLAIN | FORMAT_UNCOMPACTED => Cleaned::default(),
            _ => Cleaned {
                below: reader.i64()?,
                gaps_below: reader.i64()?,
            },
        };
        let epochs = reader.list(LEADER_EPOCHS_MAX, |r| Ok((r.i32()?, r.i64()?)))?;
        let producers = reader.list(PRODUCERS_PER_PARTITION_MAX, |r| {
            let id = r.i64()?;
            Ok((id, r.list(PRODUCER_BATCHES, decode_batch)?))
        })?;
        let transactions = match format {
            FORMAT_PLAIN => Vec::new(),
            _ => reader.list(TRANSACTIONS_MAX, decode_span)?,
        };
        let segments = reader.list(SEGMENTS_MAX, |r| {
            let segment = SegmentState {
                base: r.i64()?,
                bytes: r.u64()?,
                next_offset: r.i64()?,
                max_timestamp_ms: r.i64()?,
                max_timestamp_offset: r.i64()?,
                closed: r.0.first().is_some_and(|f| f & 1 != 0),
                finished: r.bytes::<1>()?[0] & 2 != 0,
                sums: UnsavedSums {
                    saved: r.u32()? as usize,
                    sums: r.list(SEGMENT_BLOCKS_MAX, Reader::u32)?,
                },
            };
            // What is read of a segment takes memory by these.
            if segment.blocks() > SEGMENT_BLOCKS_MAX || segment.sums.saved > SEGMENT_BLOCKS_MAX {
                return Err("names a segment larger than any can be");
            }
            Ok(segment)
        })?;
        Ok(PartitionState {
            id,
            log_start,
            durable,
            truncation,
            offline_from,
            cleaned,
            epochs,
            producers,
            transactions,
            segments,
            resume,
        })
    }
}

fn decode_batch(r: &mut Reader<'_>) -> Result<StoredBatch, &'static str> {
    Ok(StoredBatch {
        epoch: i16::from_le_bytes(r.bytes()?),
        first_sequence: r.i32()?,
        last_sequence: r.i32()?,
        base_offset: r.i64()?,
        last_offset: r.i64()?,
        timestamp_ms: r.i64()?,
    })
}

fn decode_span(r: &mut Reader<'_>) -> Result<TxnSpan, &'static str> {
    Ok(TxnSpan {
        producer_id: r.i64()?,
        epoch: i16::from_le_bytes(r.bytes()?),
        first: r.i64()?,
        last: r.i64()?,
    })
}

/// Takes values off the front of a slice; an error where it ends too early.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (value, rest) = self.0.split_first_chunk::<N>().ok_or("ends too early")?;
        self.0 = rest;
        Ok(*value)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, &'static str> {
        Ok((&self.bytes::<4>()?[..]).get_u32_le())
    }

    pub(crate) fn i32(&mut self) -> Result<i32, &'static str> {
        Ok(self.u32()? as i32)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, &'static str> {
        Ok((&self.bytes::<8>()?[..]).get_u64_le())
    }

    pub(crate) fn i64(&mut self) -> Result<i64, &'static str> {
        Ok(self.u64()? as i64)
    }

    fn u128(&mut self) -> Result<u128, &'static str> {
        Ok((&self.bytes::<16>()?[..]).get_u128_le())
    }

    /// A counted list; the count is bounded by `max` and by the bytes that remain.
    pub(crate) fn list<T>(
        &mut self,
        max: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, &'static str>,
    ) -> Result<Vec<T>, &'static str> {
        let count = self.u32()? as usize;
        if count > max || count > self.0.len() {
            return Err("names more entries than it can have");
        }
        (0..count).map(|_| item(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_round_trips_and_damage_is_seen() {
        let batch = StoredBatch {
            epoch: 1,
            first_sequence: 2,
            last_sequence: 3,
            base_offset: 4,
            last_offset: 5,
            timestamp_ms: 6,
        };
        let segment = SegmentState {
            base: 10,
            bytes: 5000,
            next_offset: 40,
            max_timestamp_ms: 77,
            max_timestamp_offset: 12,
            closed: true,
            finished: false,
            sums: UnsavedSums {
                saved: 1,
                sums: vec![17],
            },
        };
        let partition = PartitionState {
            id: PartitionId::new(TopicId([3; 16]), 4),
            log_start: 11,
            durable: 44,
            truncation: 2,
            offline_from: Some(43),
            cleaned: Cleaned {
                below: 12,
                gaps_below: 13,
            },
            epochs: vec![(1, 10), (3, 20)],
            producers: vec![(9, vec![batch, batch])],
            transactions: vec![TxnSpan {
                producer_id: 9,
                epoch: 1,
                first: 41,
                last: -1,
            }],
            segments: vec![segment],
            resume: 40,
        };
        let checkpoint = Checkpoint {
            journal: JournalId(5),
            generation: 6,
            replay_from: 7,
            partitions: vec![partition],
        };
        let bytes = checkpoint.encode();
        assert_eq!(Checkpoint::decode(&bytes), Ok(checkpoint));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            assert!(Checkpoint::decode(&bad).is_err(), "byte {at}");
            assert!(Checkpoint::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
