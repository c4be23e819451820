//! Owns the reading of produce and fetch messages in place, in the one version of each that the generator speaks.
//! Does not know connections; it takes whole frames without their size prefix, and allocates nothing.
//! Invariant: it reads what the wire codec writes (tests compare them), and no input makes it panic.

use millrace_net::wire::WireError;

/// The last version of Produce with fixed lengths; every broker since Kafka 2.1 serves it.
pub const PRODUCE_VERSION: i16 = 7;
/// The last version of Fetch with fixed lengths; every broker since Kafka 2.3 serves it.
pub const FETCH_VERSION: i16 = 11;

/// Bytes of a record batch before its first record.
const BATCH_HEADER_BYTES: usize = 61;

/// Reads big-endian fields off the front of a slice.
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor { rest: bytes }
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        match self.rest.split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(WireError::Truncated {
                needed: length,
                remaining: self.rest.len(),
            }),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("as many as were taken"))
    }

    pub fn i16(&mut self) -> Result<i16, WireError> {
        self.array().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, WireError> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, WireError> {
        self.array().map(i64::from_be_bytes)
    }

    /// A two-byte length and so many bytes; nothing for null.
    pub fn string(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.i16()?;
        self.take(usize::try_from(length).unwrap_or(0))
    }

    /// A four-byte length and so many bytes; nothing for null.
    pub fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.i32()?;
        self.take(usize::try_from(length).unwrap_or(0))
    }

    /// A count of elements; null counts as none.
    pub fn count(&mut self) -> Result<usize, WireError> {
        Ok(usize::try_from(self.i32()?).unwrap_or(0))
    }

    pub fn finish(self) -> Result<(), WireError> {
        match self.rest.len() {
            0 => Ok(()),
            unread => Err(WireError::TrailingBytes { unread }),
        }
    }
}

/// What became of one partition of a produce request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Produced {
    pub partition: i32,
    pub error_code: i16,
    pub base_offset: i64,
}

/// Reads a produce answer, one call for each partition; returns the correlation id.
pub fn produce_response(frame: &[u8], mut each: impl FnMut(Produced)) -> Result<i32, WireError> {
    let mut cursor = Cursor::new(frame);
    let correlation = cursor.i32()?;
    for _ in 0..cursor.count()? {
        cursor.string()?;
        for _ in 0..cursor.count()? {
            let produced = Produced {
                partition: cursor.i32()?,
                error_code: cursor.i16()?,
                base_offset: cursor.i64()?,
            };
            let _log_append_time_ms = cursor.i64()?;
            let _log_start_offset = cursor.i64()?;
            each(produced);
        }
    }
    let _throttle_time_ms = cursor.i32()?;
    cursor.finish()?;
    Ok(correlation)
}

/// What came of one partition of a fetch request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fetched<'a> {
    pub partition: i32,
    pub error_code: i16,
    pub high_watermark: i64,
    /// Whole batches, but the last may be cut short.
    pub records: &'a [u8],
}

/// Reads a fetch answer, one call for each partition; returns correlation id and the error of the whole.
pub fn fetch_response<'a>(
    frame: &'a [u8],
    mut each: impl FnMut(Fetched<'a>) -> Result<(), WireError>,
) -> Result<(i32, i16), WireError> {
    let mut cursor = Cursor::new(frame);
    let correlation = cursor.i32()?;
    let _throttle_time_ms = cursor.i32()?;
    let error_code = cursor.i16()?;
    let _session_id = cursor.i32()?;
    for _ in 0..cursor.count()? {
        cursor.string()?;
        for _ in 0..cursor.count()? {
            let partition = cursor.i32()?;
            let error_code = cursor.i16()?;
            let high_watermark = cursor.i64()?;
            let _last_stable_offset = cursor.i64()?;
            let _log_start_offset = cursor.i64()?;
            let aborted = cursor.count()?;
            cursor.take(aborted.saturating_mul(16))?;
            let _preferred_read_replica = cursor.i32()?;
            each(Fetched {
                partition,
                error_code,
                high_watermark,
                records: cursor.bytes()?,
            })?;
        }
    }
    cursor.finish()?;
    Ok((correlation, error_code))
}

/// One batch among fetched records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batch<'a> {
    pub base_offset: i64,
    pub next_offset: i64,
    pub records: u64,
    pub bytes: &'a [u8],
}

impl Batch<'_> {
    /// Whether the checksum in the header is that of the bytes.
    pub fn is_intact(&self) -> bool {
        let stored = u32::from_be_bytes(self.bytes[17..21].try_into().expect("four bytes"));
        millrace_engine::types::batch::crc32c(&self.bytes[21..]) == stored
    }
}

/// Takes the first whole batch off the front of fetched records; `None` when only part of one is left.
pub fn next_batch<'a>(records: &mut &'a [u8]) -> Result<Option<Batch<'a>>, WireError> {
    if records.len() < BATCH_HEADER_BYTES {
        return Ok(None);
    }
    let mut cursor = Cursor::new(records);
    let base_offset = cursor.i64()?;
    let length = cursor.i32()?;
    let size = match usize::try_from(length) {
        Ok(length) if length + 12 >= BATCH_HEADER_BYTES => length + 12,
        Ok(_) | Err(_) => {
            return Err(WireError::NegativeLength {
                length: length.into(),
            })
        }
    };
    let Some((bytes, rest)) = records.split_at_checked(size) else {
        return Ok(None);
    };
    *records = rest;
    let mut cursor = Cursor::new(&bytes[23..]);
    let last_offset_delta = cursor.i32()?;
    let mut cursor = Cursor::new(&bytes[57..]);
    let records = cursor.i32()?;
    Ok(Some(Batch {
        base_offset,
        next_offset: base_offset
            .wrapping_add(last_offset_delta.into())
            .wrapping_add(1),
        records: u64::try_from(records).unwrap_or(0),
        bytes,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template;
    use bytes::Bytes;
    use millrace_net::wire::fetch::{
        AbortedTransaction, FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
    };
    use millrace_net::wire::frame;
    use millrace_net::wire::produce::{
        PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
    };

    fn produce_frame() -> Bytes {
        let partition = |index, error_code, base_offset| PartitionProduceResponse {
            index,
            error_code,
            base_offset,
            ..Default::default()
        };
        let topic = |name, partition_responses| TopicProduceResponse {
            name,
            partition_responses,
            ..Default::default()
        };
        let response = ProduceResponse {
            responses: vec![
                topic("a".into(), vec![partition(0, 0, 70), partition(5, 0, 0)]),
                topic("second".into(), vec![partition(1, 6, -1)]),
            ],
            ..Default::default()
        };
        let frame = frame::encode_response::<ProduceRequest>(77, &response, PRODUCE_VERSION);
        frame.expect("encodes").slice(4..)
    }

    fn fetch_frame(records: Bytes) -> Bytes {
        let response = FetchResponse {
            responses: vec![FetchableTopicResponse {
                topic: "topic".into(),
                partitions: vec![
                    PartitionData {
                        partition_index: 3,
                        high_watermark: 9,
                        records: records.into(),
                        ..Default::default()
                    },
                    PartitionData {
                        partition_index: 4,
                        error_code: 1,
                        high_watermark: -1,
                        aborted_transactions: Some(vec![AbortedTransaction::default(); 2]),
                        ..Default::default()
                    },
                ],
                ..Default::default()
            }],
            ..Default::default()
        };
        let frame = frame::encode_response::<FetchRequest>(5, &response, FETCH_VERSION);
        frame.expect("encodes").slice(4..)
    }

    #[test]
    fn produce_answers_of_the_codec_are_read() {
        let mut seen = Vec::new();
        let id = produce_response(&produce_frame(), |p| {
            seen.push((p.partition, p.error_code, p.base_offset))
        });
        assert_eq!(id, Ok(77));
        assert_eq!(seen, [(0, 0, 70), (5, 0, 0), (1, 6, -1)]);
    }

    #[test]
    fn fetch_answers_of_the_codec_are_read() {
        let batch = template::batch(100, 3).expect("builds");
        let mut records = [&batch.bytes[..], &batch.bytes[..]].concat();
        millrace_engine::types::batch::stamp(&mut records[batch.bytes.len()..], 3, 0);
        let whole = records.len();
        // A third, cut short.
        records.extend_from_slice(&batch.bytes[..80]);
        let frame = fetch_frame(records.into());
        let mut seen = Vec::new();
        let answer = fetch_response(&frame, |f| {
            let mut records = f.records;
            let mut offsets = Vec::new();
            let mut bytes = 0;
            while let Some(batch) = next_batch(&mut records)? {
                assert!(batch.is_intact());
                offsets.push((batch.base_offset, batch.next_offset, batch.records));
                bytes += batch.bytes.len();
            }
            seen.push((f.partition, f.error_code, f.high_watermark, offsets, bytes));
            Ok(())
        });
        assert_eq!(answer, Ok((5, 0)));
        assert_eq!(
            seen,
            [
                (3, 0, 9, vec![(0, 3, 3), (3, 6, 3)], whole),
                (4, 1, -1, vec![], 0)
            ]
        );
    }

    #[test]
    fn damage_is_seen() {
        let mut bytes = template::batch(100, 3).expect("builds").bytes.to_vec();
        *bytes.last_mut().expect("not empty") ^= 1;
        let mut records = &bytes[..];
        let batch = next_batch(&mut records).expect("reads").expect("whole");
        assert!(!batch.is_intact());
    }

    #[test]
    fn every_cut_is_an_error_and_no_panic() {
        let produce = produce_frame();
        for length in 0..produce.len() {
            assert!(
                produce_response(&produce[..length], |_| {}).is_err(),
                "{length}"
            );
        }
        let fetch = fetch_frame(template::batch(100, 3).expect("builds").bytes);
        for length in 0..fetch.len() {
            assert!(
                fetch_response(&fetch[..length], |_| Ok(())).is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn an_impossible_batch_length_is_an_error() {
        for length in [-1, 0, 48, i32::MIN] {
            let mut bytes = [0; 100];
            bytes[8..12].copy_from_slice(&i32::to_be_bytes(length));
            assert!(next_batch(&mut &bytes[..]).is_err(), "{length}");
        }
    }
}
