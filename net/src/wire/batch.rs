//! Owns whole record batches of format 2 as clients build and read them: header, checksum, compression, records.
//! Does not know logs or brokers, who look at the header only and keep their own view of it.
//! Keeps: a batch is handed out only after its checksum was verified, and decompresses into a bounded size.
use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::compress::{CompressError, Compression};
use super::error::WireError;
use super::primitives::{Reader, Writer};
use super::record::Record;

/// Bytes before the first record.
pub const HEADER_BYTES: usize = 61;
/// Bytes that the length in the header does not count: base offset and the length itself.
pub const LENGTH_EXCLUDES_BYTES: usize = 12;
/// The checksum covers everything from here on.
const CHECKSUM_FROM: usize = 21;
const MAGIC: i8 = 2;
/// Fewest bytes of a record: length, attributes, two deltas, two null lengths, no headers.
const RECORD_BYTES_MIN: usize = 7;

const TIMESTAMP_TYPE_BIT: i16 = 1 << 3;
const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;

/// Why bytes are not a batch.
#[derive(Debug, Error)]
pub enum BatchError {
    #[error("batch length {length} is too short for a header")]
    Length { length: i32 },
    #[error("batch ends after {got} of {expected} bytes")]
    Truncated { expected: usize, got: usize },
    #[error("batch format {magic} is not 2")]
    Magic { magic: i8 },
    #[error("batch checksum is {computed:08x}, header says {stored:08x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("{count} records claimed in {bytes} bytes")]
    RecordCount { count: i32, bytes: usize },
    #[error("no more than {max} records fit a batch")]
    Full { max: usize },
    #[error(transparent)]
    Compress(#[from] CompressError),
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// The header of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// -1 until a leader appends the batch.
    pub leader_epoch: i32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp_ms: i64,
    pub max_timestamp_ms: i64,
    /// -1 if the producer is not idempotent; so are epoch and sequence.
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

impl BatchHeader {
    /// Whether the timestamp of every record is when the broker appended it.
    pub fn is_append_time(&self) -> bool {
        self.attributes & TIMESTAMP_TYPE_BIT != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch holds a transaction marker instead of data.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    pub fn compression(&self) -> Result<Compression, CompressError> {
        Compression::from_attributes(self.attributes)
    }

    /// Offset after the last record, also of those compacted away.
    pub fn next_offset(&self) -> i64 {
        self.base_offset
            .wrapping_add(self.last_offset_delta.into())
            .wrapping_add(1)
    }
}

/// What a control record marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlKind {
    Abort,
    Commit,
    Other(i16),
}

impl ControlKind {
    /// From the key of a record in a control batch.
    pub fn of(record: &Record) -> Result<Self, WireError> {
        let mut key = Reader::new(record.key.clone().unwrap_or_default());
        let _version = key.i16()?;
        Ok(match key.i16()? {
            0 => Self::Abort,
            1 => Self::Commit,
            other => Self::Other(other),
        })
    }
}

/// A batch whose checksum was verified.
#[derive(Debug, Clone)]
pub struct Batch {
    pub header: BatchHeader,
    /// As stored, perhaps compressed.
    body: Bytes,
}

impl Batch {
    /// Takes the batch at the front of fetched bytes; `None` if they are used up or end within a batch, as they do
    /// when the size limit of a fetch was reached.
    pub fn take(bytes: &mut Bytes) -> Result<Option<Self>, BatchError> {
        let Some(length) = bytes
            .get(8..LENGTH_EXCLUDES_BYTES)
            .and_then(|length| length.first_chunk::<4>())
        else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*length);
        let size = match usize::try_from(length) {
            Ok(length) if length + LENGTH_EXCLUDES_BYTES >= HEADER_BYTES => {
                length + LENGTH_EXCLUDES_BYTES
            }
            Ok(_) | Err(_) => return Err(BatchError::Length { length }),
        };
        if bytes.len() < size {
            return Ok(None);
        }
        Self::decode(bytes.split_to(size)).map(Some)
    }

    /// Reads exactly one batch.
    pub fn decode(bytes: Bytes) -> Result<Self, BatchError> {
        if bytes.len() < HEADER_BYTES {
            return Err(BatchError::Truncated {
                expected: HEADER_BYTES,
                got: bytes.len(),
            });
        }
        let computed = checksum(&bytes[CHECKSUM_FROM..]);
        let mut reader = Reader::new(bytes);
        let base_offset = reader.i64()?;
        let length = reader.i32()?;
        if usize::try_from(length) != Ok(reader.remaining()) {
            return Err(BatchError::Length { length });
        }
        let leader_epoch = reader.i32()?;
        let magic = reader.i8()?;
        if magic != MAGIC {
            return Err(BatchError::Magic { magic });
        }
        let stored = reader.u32()?;
        if stored != computed {
            return Err(BatchError::Checksum { stored, computed });
        }
        let header = BatchHeader {
            base_offset,
            leader_epoch,
            attributes: reader.i16()?,
            last_offset_delta: reader.i32()?,
            base_timestamp_ms: reader.i64()?,
            max_timestamp_ms: reader.i64()?,
            producer_id: reader.i64()?,
            producer_epoch: reader.i16()?,
            base_sequence: reader.i32()?,
            record_count: reader.i32()?,
        };
        let body = reader.take(reader.remaining())?;
        Ok(Self { header, body })
    }

    /// The records, one at a time, decompressed first into at most `decompressed_bytes_max`.
    pub fn records(&self, decompressed_bytes_max: usize) -> Result<RecordIter, BatchError> {
        let body = match self.header.compression()? {
            Compression::None => self.body.clone(),
            compression => Bytes::from(compression.decompress(&self.body, decompressed_bytes_max)?),
        };
        let count = self.header.record_count;
        match usize::try_from(count) {
            Ok(left) if left.saturating_mul(RECORD_BYTES_MIN) <= body.len() => Ok(RecordIter {
                reader: Reader::new(body),
                left,
                header: self.header.clone(),
            }),
            Ok(_) | Err(_) => Err(BatchError::RecordCount {
                count,
                bytes: body.len(),
            }),
        }
    }
}

/// The records of a batch. Ends after the first error.
#[derive(Debug)]
pub struct RecordIter {
    reader: Reader,
    left: usize,
    header: BatchHeader,
}

impl Iterator for RecordIter {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let record = Record::decode(
            &mut self.reader,
            self.header.base_offset,
            self.header.base_timestamp_ms,
        )
        .and_then(|record| {
            if self.left == 0 {
                self.reader.finish()?;
            }
            Ok(record)
        });
        match record {
            Ok(mut record) => {
                if self.header.is_append_time() {
                    record.timestamp_ms = self.header.max_timestamp_ms;
                }
                Some(Ok(record))
            }
            Err(error) => {
                self.left = 0;
                Some(Err(error.into()))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

/// Gathers records and makes a batch of them.
#[derive(Debug)]
pub struct BatchBuilder {
    pub compression: Compression,
    /// -1 if not idempotent; so are epoch and sequence.
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub transactional: bool,
    records: Writer,
    scratch: Writer,
    count: i32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new(Compression::None)
    }
}

impl BatchBuilder {
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            transactional: false,
            records: Writer::new(),
            scratch: Writer::new(),
            count: 0,
            base_timestamp_ms: -1,
            max_timestamp_ms: -1,
        }
    }

    /// Adds a record; its `offset` is ignored.
    pub fn push(&mut self, record: &Record) -> Result<(), BatchError> {
        let offset_delta = self.count;
        let count = self.count.checked_add(1).ok_or(BatchError::Full {
            max: i32::MAX as usize,
        })?;
        let base = if offset_delta == 0 {
            record.timestamp_ms
        } else {
            self.base_timestamp_ms
        };
        let timestamp_delta = record.timestamp_ms.wrapping_sub(base);
        record.encode(
            &mut self.records,
            &mut self.scratch,
            offset_delta,
            timestamp_delta,
        )?;
        self.count = count;
        self.base_timestamp_ms = base;
        self.max_timestamp_ms = if offset_delta == 0 {
            base
        } else {
            self.max_timestamp_ms.max(record.timestamp_ms)
        };
        Ok(())
    }

    /// Records so far.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size of the batch if it were not compressed.
    pub fn bytes_uncompressed(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The batch, with base offset 0 and no leader epoch. At least one record must have been pushed.
    pub fn build(self) -> Result<Bytes, BatchError> {
        assert!(self.count > 0, "a batch without records");
        let body = match self.compression {
            Compression::None => self.records.into_bytes(),
            compression => Bytes::from(compression.compress(self.records.written())?),
        };
        let size = HEADER_BYTES + body.len();
        let length =
            i32::try_from(size - LENGTH_EXCLUDES_BYTES).map_err(|_| WireError::TooLong {
                length: size,
                max: i32::MAX as usize,
            })?;
        let transactional = if self.transactional {
            TRANSACTIONAL_BIT
        } else {
            0
        };
        let mut batch = BytesMut::with_capacity(size);
        batch.put_i64(0);
        batch.put_i32(length);
        batch.put_i32(-1);
        batch.put_i8(MAGIC);
        batch.put_u32(0);
        batch.put_i16(self.compression as i16 | transactional);
        batch.put_i32(self.count - 1);
        batch.put_i64(self.base_timestamp_ms);
        batch.put_i64(self.max_timestamp_ms);
        batch.put_i64(self.producer_id);
        batch.put_i16(self.producer_epoch);
        batch.put_i32(self.base_sequence);
        batch.put_i32(self.count);
        assert_eq!(batch.len(), HEADER_BYTES);
        batch.put_slice(&body);
        let checksum = checksum(&batch[CHECKSUM_FROM..]);
        batch[CHECKSUM_FROM - 4..CHECKSUM_FROM].copy_from_slice(&checksum.to_be_bytes());
        Ok(batch.freeze())
    }
}

/// CRC-32C.
fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}
