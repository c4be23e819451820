//! Owns the bytes of the journal: commit headers and the entries inside a commit.
//! Does not know files, buffers' life or who appends.
//! Invariant: what `decode` accepts was written by this journal set, whole and unchanged.

use crate::types::limits::BLOCK_BYTES;
use crate::types::{Offset, PartitionId, TopicId};

/// Bytes of a commit header, at the start of every commit.
pub const HEADER_BYTES: usize = 128;
/// Bytes in front of every entry's payload.
pub const ENTRY_BYTES: usize = 48;
/// Version of this format; a newer one is refused.
pub const FORMAT: u16 = 1;

const MAGIC: u32 = 0x314a_4c4d; // "MLJ1"
const CRC_AT: usize = HEADER_BYTES - 4;

/// Identity of one journal: one shard's ring of files. Random; seeds every checksum, so that no
/// payload and no other journal's block can pass for a header of this one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct JournalId(pub u128);

impl JournalId {
    fn seed(&self) -> u32 {
        crc32fast::hash(&self.0.to_le_bytes())
    }

    /// A hasher for commit bodies of this journal.
    pub fn body_hasher(&self) -> crc32fast::Hasher {
        crc32fast::Hasher::new_with_initial(self.seed())
    }
}

/// Header of a commit: one contiguous, block-aligned write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitHeader {
    pub generation: u64,
    pub sequence: u64,
    /// Byte position of this header in its file.
    pub position: u64,
    /// Highest sequence known to be flushed when this commit was sealed.
    pub durable_sequence: u64,
    /// Bytes of entries after the header, without padding.
    pub body_bytes: u32,
    pub body_crc: u32,
    /// CRC of the header of the commit before this one; 0 for the first of a generation.
    pub previous_crc: u32,
}

impl CommitHeader {
    /// Bytes the whole commit takes in the file.
    pub fn padded_bytes(&self) -> usize {
        (HEADER_BYTES + self.body_bytes as usize).next_multiple_of(BLOCK_BYTES)
    }

    /// Writes the header into the first bytes of `out` and gives its CRC.
    pub fn encode(&self, id: JournalId, out: &mut [u8]) -> u32 {
        let out = &mut out[..HEADER_BYTES];
        out.fill(0);
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..6].copy_from_slice(&FORMAT.to_le_bytes());
        out[8..24].copy_from_slice(&id.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.generation.to_le_bytes());
        out[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        out[40..48].copy_from_slice(&self.position.to_le_bytes());
        out[48..56].copy_from_slice(&self.durable_sequence.to_le_bytes());
        out[56..60].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[60..64].copy_from_slice(&self.body_crc.to_le_bytes());
        out[64..68].copy_from_slice(&self.previous_crc.to_le_bytes());
        let crc = header_crc(id, out);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// The journal that these bytes say they are of; only `decode` tells whether that is so.
    pub fn claimed_journal(bytes: &[u8]) -> Option<JournalId> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let id = bytes[8..24].try_into().expect("sixteen bytes");
        (u32_at(bytes, 0) == MAGIC).then(|| JournalId(u128::from_le_bytes(id)))
    }

    /// Reads a header and its CRC; None where the bytes are not one of this journal's at `position`.
    pub fn decode(id: JournalId, bytes: &[u8], position: u64) -> Option<(CommitHeader, u32)> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        if u32_at(bytes, 0) != MAGIC || bytes[8..24] != id.0.to_le_bytes() {
            return None;
        }
        let crc = u32_at(bytes, CRC_AT);
        let format = u16::from_le_bytes([bytes[4], bytes[5]]);
        if crc != header_crc(id, bytes) || format != FORMAT || u64_at(bytes, 40) != position {
            return None;
        }
        let header = CommitHeader {
            generation: u64_at(bytes, 24),
            sequence: u64_at(bytes, 32),
            position,
            durable_sequence: u64_at(bytes, 48),
            body_bytes: u32_at(bytes, 56),
            body_crc: u32_at(bytes, 60),
            previous_crc: u32_at(bytes, 64),
        };
        Some((header, crc))
    }
}

fn header_crc(id: JournalId, header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(id.seed());
    hasher.update(&header[..CRC_AT]);
    hasher.finalize()
}

/// Checksum of a commit's body.
pub fn body_crc(id: JournalId, body: &[u8]) -> u32 {
    let mut hasher = id.body_hasher();
    hasher.update(body);
    hasher.finalize()
}

/// What an entry says about its partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// Payload: one record batch.
    Append,
    /// Payload: none. `base_offset` is where the log was cut; `truncation` is the new generation.
    Truncate,
    /// Payload: none. `base_offset` is the new log start.
    LogStart,
    /// Payload: see `CarryOver`. The bytes of a block that is about to be rewritten.
    CarryOver,
}

impl EntryKind {
    fn code(self) -> u8 {
        match self {
            EntryKind::Append => 1,
            EntryKind::Truncate => 2,
            EntryKind::LogStart => 3,
            EntryKind::CarryOver => 4,
        }
    }

    fn from_code(code: u8) -> Option<EntryKind> {
        match code {
            1 => Some(EntryKind::Append),
            2 => Some(EntryKind::Truncate),
            3 => Some(EntryKind::LogStart),
            4 => Some(EntryKind::CarryOver),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryHeader {
    pub kind: EntryKind,
    pub partition: PartitionId,
    pub leader_epoch: i32,
    /// How often this partition's log was cut; entries of an older one are void.
    pub truncation: u32,
    pub base_offset: Offset,
    pub payload_bytes: u32,
}

impl EntryHeader {
    pub fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut out = [0u8; ENTRY_BYTES];
        out[0] = self.kind.code();
        out[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[8..24].copy_from_slice(&self.partition.topic.0);
        out[24..28].copy_from_slice(&self.partition.index.to_le_bytes());
        out[28..32].copy_from_slice(&self.leader_epoch.to_le_bytes());
        out[32..36].copy_from_slice(&self.truncation.to_le_bytes());
        out[40..48].copy_from_slice(&self.base_offset.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<EntryHeader> {
        let bytes = bytes.get(..ENTRY_BYTES)?;
        Some(EntryHeader {
            kind: EntryKind::from_code(bytes[0])?,
            partition: PartitionId::new(
                TopicId(bytes[8..24].try_into().expect("sixteen bytes")),
                u32_at(bytes, 24) as i32,
            ),
            leader_epoch: u32_at(bytes, 28) as i32,
            truncation: u32_at(bytes, 32),
            base_offset: u64_at(bytes, 40) as i64,
            payload_bytes: u32_at(bytes, 4),
        })
    }
}

/// Splits the body of a commit whose CRC fits into its entries; None where they do not add up.
pub fn entries(body: &[u8]) -> Option<Vec<(EntryHeader, &[u8])>> {
    let mut out = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let header = EntryHeader::decode(rest)?;
        let end = ENTRY_BYTES.checked_add(header.payload_bytes as usize)?;
        out.push((header, rest.get(ENTRY_BYTES..end)?));
        rest = &rest[end..];
    }
    Some(out)
}

/// Payload of a carry-over entry: the live prefix of one block of one segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CarryOver {
    pub segment_base: Offset,
    /// Byte position of the block in the segment.
    pub block_position: u64,
    pub bytes: Vec<u8>,
}

impl CarryOver {
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.bytes.len() <= BLOCK_BYTES);
        let mut out = Vec::with_capacity(16 + self.bytes.len());
        out.extend_from_slice(&self.segment_base.to_le_bytes());
        out.extend_from_slice(&self.block_position.to_le_bytes());
        out.extend_from_slice(&self.bytes);
        out
    }

    pub fn decode(payload: &[u8]) -> Option<CarryOver> {
        if payload.len() < 16 || payload.len() > 16 + BLOCK_BYTES {
            return None;
        }
        Some(CarryOver {
            segment_base: u64_at(payload, 0) as i64,
            block_position: u64_at(payload, 8),
            bytes: payload[16..].to_vec(),
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> CommitHeader {
        CommitHeader {
            generation: 3,
            sequence: 41,
            position: 8192,
            durable_sequence: 40,
            body_bytes: 5000,
            body_crc: 77,
            previous_crc: 12,
        }
    }

    #[test]
    fn a_header_survives_the_round_trip_and_no_flipped_bit_does() {
        let id = JournalId(99);
        let mut bytes = [0xffu8; HEADER_BYTES];
        let crc = sample().encode(id, &mut bytes);
        assert_eq!(
            CommitHeader::decode(id, &bytes, 8192),
            Some((sample(), crc))
        );
        assert_eq!(sample().padded_bytes(), 8192);
        assert_eq!(
            CommitHeader::decode(JournalId(98), &bytes, 8192),
            None,
            "another journal's"
        );
        assert_eq!(
            CommitHeader::decode(id, &bytes, 4096),
            None,
            "a misdirected block"
        );
        for bit in 0..HEADER_BYTES * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(CommitHeader::decode(id, &bytes, 8192), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn entries_split_and_hostile_lengths_do_not() {
        let header = EntryHeader {
            kind: EntryKind::Append,
            partition: PartitionId::new(TopicId([7; 16]), 3),
            leader_epoch: 4,
            truncation: 1,
            base_offset: 100,
            payload_bytes: 3,
        };
        let mut body = header.encode().to_vec();
        body.extend_from_slice(b"abc");
        let start = EntryHeader {
            kind: EntryKind::LogStart,
            payload_bytes: 0,
            ..header
        };
        body.extend_from_slice(&start.encode());
        assert_eq!(
            entries(&body),
            Some(vec![(header, &b"abc"[..]), (start, &b""[..])])
        );
        for cut in 1..body.len() {
            if cut != ENTRY_BYTES + 3 {
                assert_eq!(entries(&body[..cut]), None, "cut at {cut}");
            }
        }
        body[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(entries(&body), None);
    }
}
