//! Owns the 61-byte header of a record batch (Kafka's format 2): view, checks, in-place rewriting.
//! Does not know where a batch is stored, nor what is in its records.
//! Invariant: nothing here reads outside the slice it was given, whatever the bytes say.

use super::limits::BATCH_HEADER_BYTES;
use super::{framing, Offset};
use crc_fast::CrcAlgorithm;

/// Offsets of the fields in the header; all big-endian.
mod at {
    pub const BASE_OFFSET: usize = 0;
    pub const LENGTH: usize = 8;
    pub const LEADER_EPOCH: usize = 12;
    pub const MAGIC: usize = 16;
    pub const CRC: usize = 17;
    pub const ATTRIBUTES: usize = 21;
    pub const LAST_OFFSET_DELTA: usize = 23;
    pub const BASE_TIMESTAMP: usize = 27;
    pub const MAX_TIMESTAMP: usize = 35;
    pub const PRODUCER_ID: usize = 43;
    pub const PRODUCER_EPOCH: usize = 51;
    pub const BASE_SEQUENCE: usize = 53;
    pub const RECORD_COUNT: usize = 57;
}

/// Bytes before the length field's own count starts: base offset and length.
pub const LOG_OVERHEAD: usize = 12;

/// Attribute of a batch whose base timestamp is the time from which on its tombstones may go.
pub const DELETE_HORIZON: i16 = 1 << 6;

/// Bytes that are outside the batch CRC and may be rewritten in place.
pub const CRC_START: usize = at::ATTRIBUTES;

/// Compression of the records of a batch (attribute bits 0 to 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Why a batch cannot be taken. The offset-assigning path maps each to one Kafka error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BatchError {
    #[error("batch is cut short: {have} bytes of {want}")]
    Short { have: usize, want: usize },
    #[error("batch length field {0} is impossible")]
    Length(i32),
    #[error("record format (magic) {0} is not supported; only 2 is")]
    Magic(i8),
    #[error("CRC-32C of the batch does not match its bytes")]
    Crc,
    #[error("unknown compression codec {0}")]
    Codec(u8),
    #[error("record count {count} does not fit last offset delta {last_delta}")]
    Count { count: i32, last_delta: i32 },
    #[error("attribute bits {0:#06x} are not allowed from a client")]
    Attributes(i16),
    #[error("producer id {0} without a usable epoch and sequence")]
    Producer(i64),
    #[error("records do not fit their batch: {0}")]
    Records(&'static str),
}

/// A record batch's header, read from the first 61 bytes of the batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHeader {
    pub base_offset: Offset,
    /// Size of the whole batch in bytes, the header included.
    pub size: usize,
    pub leader_epoch: i32,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`. Checks length and magic only; `bytes` may hold
    /// less than the whole batch (but at least the header).
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        if bytes.len() < BATCH_HEADER_BYTES {
            return Err(BatchError::Short {
                have: bytes.len(),
                want: BATCH_HEADER_BYTES,
            });
        }
        let length = i32_at(bytes, at::LENGTH);
        if length < (BATCH_HEADER_BYTES - LOG_OVERHEAD) as i32 {
            return Err(BatchError::Length(length));
        }
        let magic = bytes[at::MAGIC] as i8;
        if magic != 2 {
            return Err(BatchError::Magic(magic));
        }
        Ok(BatchHeader {
            base_offset: i64_at(bytes, at::BASE_OFFSET),
            size: length as usize + LOG_OVERHEAD,
            leader_epoch: i32_at(bytes, at::LEADER_EPOCH),
            crc: i32_at(bytes, at::CRC) as u32,
            attributes: i16_at(bytes, at::ATTRIBUTES),
            last_offset_delta: i32_at(bytes, at::LAST_OFFSET_DELTA),
            base_timestamp: i64_at(bytes, at::BASE_TIMESTAMP),
            max_timestamp: i64_at(bytes, at::MAX_TIMESTAMP),
            producer_id: i64_at(bytes, at::PRODUCER_ID),
            producer_epoch: i16_at(bytes, at::PRODUCER_EPOCH),
            base_sequence: i32_at(bytes, at::BASE_SEQUENCE),
            record_count: i32_at(bytes, at::RECORD_COUNT),
        })
    }

    /// Checks a batch as a client sent it: complete, intact, and one the broker may store. Compressed records are taken
    /// as they are. `bytes` must be exactly one batch.
    pub fn check_from_client(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let header = BatchHeader::check_from_coordinator(bytes)?;
        if header.producer_id >= 0 && (header.producer_epoch < 0 || header.base_sequence < 0) {
            return Err(BatchError::Producer(header.producer_id));
        }
        Ok(header)
    }

    /// The same for one of the broker's own, which may be in a transaction without having a sequence.
    ///
    /// # Errors
    /// As for a client's.
    pub fn check_from_coordinator(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        if header.size != bytes.len() {
            return Err(BatchError::Short {
                have: bytes.len(),
                want: header.size,
            });
        }
        if !header.crc_matches(bytes) {
            return Err(BatchError::Crc);
        }
        let codec = header.codec()?;
        let allowed = 0b0001_0111;
        if header.attributes & !allowed != 0 {
            // Control batches, LogAppendTime and a delete horizon are the broker's to set.
            return Err(BatchError::Attributes(header.attributes));
        }
        if header.record_count <= 0 || header.last_offset_delta != header.record_count - 1 {
            return Err(BatchError::Count {
                count: header.record_count,
                last_delta: header.last_offset_delta,
            });
        }
        if codec == Codec::None {
            let records = &bytes[BATCH_HEADER_BYTES..];
            framing::check(records, header.record_count).map_err(BatchError::Records)?;
        }
        Ok(header)
    }

    /// Whether the CRC-32C over byte 21 to the end fits. `bytes` is the whole batch.
    pub fn crc_matches(&self, bytes: &[u8]) -> bool {
        bytes.len() >= self.size && crc32c(&bytes[CRC_START..self.size]) == self.crc
    }

    pub fn last_offset(&self) -> Offset {
        // Bytes nobody has checked may claim any offset.
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }

    pub fn next_offset(&self) -> Offset {
        self.last_offset().saturating_add(1)
    }

    pub fn codec(&self) -> Result<Codec, BatchError> {
        match self.attributes & 7 {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Gzip),
            2 => Ok(Codec::Snappy),
            3 => Ok(Codec::Lz4),
            4 => Ok(Codec::Zstd),
            other => Err(BatchError::Codec(other as u8)),
        }
    }

    pub fn is_log_append_time(&self) -> bool {
        self.attributes & 8 != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & 16 != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & 32 != 0
    }

    pub fn has_producer(&self) -> bool {
        self.producer_id >= 0
    }

    /// From when on compaction may take the tombstones of the batch, or the marker that it is; milliseconds of the wall
    /// clock. It stands where the base of the records' timestamps is otherwise, and they count from it.
    pub fn delete_horizon(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// Sequence of the last record; wraps from `i32::MAX` to 0 as clients do.
    pub fn last_sequence(&self) -> i32 {
        sequence_add(self.base_sequence, self.last_offset_delta)
    }
}

/// Adds to a producer sequence with Kafka's wrap from `i32::MAX` to 0.
pub fn sequence_add(sequence: i32, delta: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(delta);
    if sum > i64::from(i32::MAX) {
        (sum - i64::from(i32::MAX) - 1) as i32
    } else {
        sum as i32
    }
}

/// CRC-32C (Castagnoli), the checksum of record batches.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Writes base offset and leader epoch; both lie outside the batch CRC.
pub fn stamp(batch: &mut [u8], base_offset: Offset, leader_epoch: i32) {
    batch[at::BASE_OFFSET..at::BASE_OFFSET + 8].copy_from_slice(&base_offset.to_be_bytes());
    batch[at::LEADER_EPOCH..at::LEADER_EPOCH + 4].copy_from_slice(&leader_epoch.to_be_bytes());
}

/// Marks the batch as stamped by the broker's clock (LogAppendTime) and renews the CRC.
/// `batch` is the whole batch.
pub fn stamp_append_time(batch: &mut [u8], now_ms: i64) {
    let attributes = i16_at(batch, at::ATTRIBUTES) | 8;
    batch[at::ATTRIBUTES..at::ATTRIBUTES + 2].copy_from_slice(&attributes.to_be_bytes());
    batch[at::MAX_TIMESTAMP..at::MAX_TIMESTAMP + 8].copy_from_slice(&now_ms.to_be_bytes());
    let crc = crc32c(&batch[CRC_START..]);
    batch[at::CRC..at::CRC + 4].copy_from_slice(&crc.to_be_bytes());
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Builds batches: what the broker writes itself, and what tests need.
pub mod build {
    use super::*;

    /// One record behind the other, with offsets as they should be, null keys, and values of that many bytes.
    #[cfg(test)]
    pub fn records(count: i32, value_bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for delta in 0..count {
            let mut record = vec![0u8, 0];
            zigzag(i64::from(delta), &mut record);
            zigzag(-1, &mut record);
            zigzag(value_bytes as i64, &mut record);
            record.resize(record.len() + value_bytes, b'v');
            zigzag(0, &mut record);
            zigzag(record.len() as i64, &mut out);
            out.extend(record);
        }
        out
    }

    /// Writes a varint as records have them.
    pub fn zigzag(value: i64, out: &mut Vec<u8>) {
        let mut v = ((value << 1) ^ (value >> 63)) as u64;
        while v >= 0x80 {
            out.push(v as u8 | 0x80);
            v >>= 7;
        }
        out.push(v as u8);
    }

    /// A batch with a sound header around whatever `body` is: `count` records, which are not compressed. Whoever stores
    /// it stamps offset and epoch.
    pub fn batch(
        count: i32,
        body: &[u8],
        timestamp: i64,
        producer: Option<(i64, i16, i32)>,
    ) -> Vec<u8> {
        let mut b = vec![0u8; BATCH_HEADER_BYTES];
        b.extend_from_slice(body);
        let length = (b.len() - LOG_OVERHEAD) as i32;
        b[at::LENGTH..at::LENGTH + 4].copy_from_slice(&length.to_be_bytes());
        b[at::LEADER_EPOCH..at::LEADER_EPOCH + 4].copy_from_slice(&(-1i32).to_be_bytes());
        b[at::MAGIC] = 2;
        b[at::LAST_OFFSET_DELTA..at::LAST_OFFSET_DELTA + 4]
            .copy_from_slice(&(count - 1).to_be_bytes());
        b[at::BASE_TIMESTAMP..at::BASE_TIMESTAMP + 8].copy_from_slice(&timestamp.to_be_bytes());
        b[at::MAX_TIMESTAMP..at::MAX_TIMESTAMP + 8].copy_from_slice(&timestamp.to_be_bytes());
        let (id, epoch, sequence) = producer.unwrap_or((-1, -1, -1));
        b[at::PRODUCER_ID..at::PRODUCER_ID + 8].copy_from_slice(&id.to_be_bytes());
        b[at::PRODUCER_EPOCH..at::PRODUCER_EPOCH + 2].copy_from_slice(&epoch.to_be_bytes());
        b[at::BASE_SEQUENCE..at::BASE_SEQUENCE + 4].copy_from_slice(&sequence.to_be_bytes());
        b[at::RECORD_COUNT..at::RECORD_COUNT + 4].copy_from_slice(&count.to_be_bytes());
        let crc = crc32c(&b[CRC_START..]);
        b[at::CRC..at::CRC + 4].copy_from_slice(&crc.to_be_bytes());
        b
    }

    /// A batch with this header around `body`, of which size and CRC are made anew.
    pub fn with_header(header: &BatchHeader, body: &[u8]) -> Vec<u8> {
        let mut b = Vec::with_capacity(BATCH_HEADER_BYTES + body.len());
        b.extend(header.base_offset.to_be_bytes());
        let length = BATCH_HEADER_BYTES - LOG_OVERHEAD + body.len();
        let length = i32::try_from(length).expect("batches are far smaller");
        b.extend(length.to_be_bytes());
        b.extend(header.leader_epoch.to_be_bytes());
        b.push(2);
        b.extend([0; 4]);
        b.extend(header.attributes.to_be_bytes());
        b.extend(header.last_offset_delta.to_be_bytes());
        b.extend(header.base_timestamp.to_be_bytes());
        b.extend(header.max_timestamp.to_be_bytes());
        b.extend(header.producer_id.to_be_bytes());
        b.extend(header.producer_epoch.to_be_bytes());
        b.extend(header.base_sequence.to_be_bytes());
        b.extend(header.record_count.to_be_bytes());
        b.extend_from_slice(body);
        let crc = crc32c(&b[CRC_START..]);
        b[at::CRC..at::CRC + 4].copy_from_slice(&crc.to_be_bytes());
        b
    }

    /// The same batch with more attributes.
    pub fn with_attributes(mut b: Vec<u8>, attributes: i16) -> Vec<u8> {
        let all = i16_at(&b, at::ATTRIBUTES) | attributes;
        b[at::ATTRIBUTES..at::ATTRIBUTES + 2].copy_from_slice(&all.to_be_bytes());
        let crc = crc32c(&b[CRC_START..]);
        b[at::CRC..at::CRC + 4].copy_from_slice(&crc.to_be_bytes());
        b
    }

    /// The same batch as part of a transaction.
    pub fn transactional(b: Vec<u8>) -> Vec<u8> {
        with_attributes(b, 1 << 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_batch_passes_and_every_flipped_bit_behind_the_crc_is_seen() {
        let good = build::batch(3, &build::records(3, 5), 1_000, None);
        let header = BatchHeader::check_from_client(&good).unwrap();
        assert_eq!(
            (header.record_count, header.last_offset(), header.size),
            (3, 2, good.len())
        );
        for bit in CRC_START * 8..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                BatchHeader::check_from_client(&bad),
                Err(BatchError::Crc),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn stamping_offset_and_epoch_keeps_the_crc() {
        let mut b = build::batch(1, b"x", 5, Some((9, 0, 0)));
        stamp(&mut b, 77, 3);
        let header = BatchHeader::parse(&b).unwrap();
        assert!(header.crc_matches(&b));
        assert_eq!((header.base_offset, header.leader_epoch), (77, 3));
    }

    #[test]
    fn append_time_renews_the_crc_and_is_refused_from_clients() {
        let mut b = build::batch(1, b"x", 5, None);
        stamp_append_time(&mut b, 1_234);
        let header = BatchHeader::parse(&b).unwrap();
        assert!(header.crc_matches(&b) && header.is_log_append_time());
        assert_eq!(header.max_timestamp, 1_234);
        assert!(matches!(
            BatchHeader::check_from_client(&b),
            Err(BatchError::Attributes(_))
        ));
    }

    #[test]
    fn records_that_do_not_fit_are_refused_unless_they_are_compressed() {
        let check = |body: &[u8], codec: u8| {
            let mut bytes = build::batch(2, body, 1_000, None);
            bytes[at::ATTRIBUTES + 1] = codec;
            let crc = crc32c(&bytes[CRC_START..]);
            bytes[at::CRC..at::CRC + 4].copy_from_slice(&crc.to_be_bytes());
            BatchHeader::check_from_client(&bytes).map(|h| h.record_count)
        };
        assert_eq!(check(&build::records(2, 9), 0), Ok(2));
        let refused = |body: &[u8]| matches!(check(body, 0), Err(BatchError::Records(_)));
        assert!(refused(b"garbage"));
        assert!(refused(&build::records(1, 9)));
        assert!(refused(&build::records(3, 9)));
        assert_eq!(check(b"garbage", 4), Ok(2));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let good = build::batch(2, &build::records(2, 5), 1_000, None);
        for len in 0..good.len() {
            assert!(
                BatchHeader::check_from_client(&good[..len]).is_err(),
                "length {len}"
            );
        }
    }

    #[test]
    fn a_batch_made_again_from_its_header_is_the_same() {
        let mut b = build::batch(3, &build::records(3, 5), 1_000, Some((9, 2, 7)));
        stamp(&mut b, 77, 3);
        let header = BatchHeader::parse(&b).unwrap();
        assert_eq!(build::with_header(&header, &b[BATCH_HEADER_BYTES..]), b);
        assert_eq!(header.delete_horizon(), None);
        let marked = build::with_attributes(b, DELETE_HORIZON);
        let header = BatchHeader::parse(&marked).unwrap();
        assert_eq!(header.delete_horizon(), Some(1_000));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_add(i32::MAX, 1), 0);
        assert_eq!(sequence_add(i32::MAX - 1, 3), 1);
        assert_eq!(sequence_add(4, 3), 7);
    }
}
