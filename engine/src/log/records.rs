//! Owns looking inside a batch: which record has which offset and timestamp.
//! Does not know keys, values or where the batch came from.
//! Invariant: output of decompression is bounded, whatever the batch claims.

use crate::types::batch::{BatchError, BatchHeader, Codec};
use crate::types::limits::BATCH_HEADER_BYTES;
use crate::types::Offset;
use std::borrow::Cow;
use std::io::{self, Read};

/// Largest decompressed batch that is looked into.
const RECORDS_BYTES_MAX: u64 = 256 << 20;
/// First bytes of the framing that Java clients put around snappy blocks.
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordTime {
    pub offset: Offset,
    pub timestamp_ms: i64,
}

/// First record of the batch from offset `from` on that is at or after `timestamp_ms`.
pub fn first_at(batch: &[u8], from: Offset, timestamp_ms: i64) -> io::Result<Option<RecordTime>> {
    search(batch, from, |found: &Option<RecordTime>, record| {
        found.is_none() && record.timestamp_ms >= timestamp_ms
    })
}

/// First of the records from offset `from` on that have the largest timestamp.
pub fn newest(batch: &[u8], from: Offset) -> io::Result<Option<RecordTime>> {
    search(batch, from, |found: &Option<RecordTime>, record| {
        found.is_none_or(|f| record.timestamp_ms > f.timestamp_ms)
    })
}

/// Whether every record of the batch has a key, as compacted topics ask for.
pub fn all_keyed(batch: &[u8]) -> io::Result<bool> {
    let header = BatchHeader::parse(batch).map_err(invalid)?;
    let mut keyed = true;
    each_record(&header, batch, |record| {
        keyed &= record.key_bytes >= 0;
    })?;
    Ok(keyed)
}

fn search(
    batch: &[u8],
    from: Offset,
    better: impl Fn(&Option<RecordTime>, &RecordTime) -> bool,
) -> io::Result<Option<RecordTime>> {
    let header = BatchHeader::parse(batch).map_err(invalid)?;
    if header.is_log_append_time() {
        let first = RecordTime {
            offset: header.base_offset.max(from),
            timestamp_ms: header.max_timestamp,
        };
        let is_in = first.offset <= header.last_offset();
        return Ok((is_in && better(&None, &first)).then_some(first));
    }
    let mut found = None;
    each_record(&header, batch, |record| {
        if record.time.offset >= from && better(&found, &record.time) {
            found = Some(record.time);
        }
    })?;
    Ok(found)
}

struct Seen {
    time: RecordTime,
    /// -1 for no key.
    key_bytes: i64,
}

fn each_record(header: &BatchHeader, batch: &[u8], mut look: impl FnMut(Seen)) -> io::Result<()> {
    let body = batch
        .get(BATCH_HEADER_BYTES..header.size)
        .ok_or_else(|| bad("batch is cut short"))?;
    let records = decompress(header.codec().map_err(invalid)?, body)?;
    let mut rest: &[u8] = &records;
    for _ in 0..header.record_count {
        let length =
            usize::try_from(varint(&mut rest)?).map_err(|_| bad("negative record length"))?;
        let mut record = rest
            .get(..length)
            .ok_or_else(|| bad("record is cut short"))?;
        rest = &rest[length..];
        record = record
            .get(1..)
            .ok_or_else(|| bad("record without attributes"))?;
        let timestamp_ms = header.base_timestamp.wrapping_add(varint(&mut record)?);
        let offset = header.base_offset.wrapping_add(varint(&mut record)?);
        let key_bytes = varint(&mut record)?;
        look(Seen {
            time: RecordTime {
                offset,
                timestamp_ms,
            },
            key_bytes,
        });
    }
    Ok(())
}

/// The records of a batch, decompressed where needed, at most `RECORDS_BYTES_MAX`.
fn decompress(codec: Codec, body: &[u8]) -> io::Result<Cow<'_, [u8]>> {
    let read = |reader: &mut dyn Read| -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        reader.take(RECORDS_BYTES_MAX + 1).read_to_end(&mut out)?;
        if out.len() as u64 > RECORDS_BYTES_MAX {
            return Err(bad("batch decompresses to more than is looked into"));
        }
        Ok(out)
    };
    Ok(match codec {
        Codec::None => Cow::Borrowed(body),
        Codec::Gzip => Cow::Owned(read(&mut flate2::read::MultiGzDecoder::new(body))?),
        Codec::Lz4 => Cow::Owned(read(&mut lz4_flex::frame::FrameDecoder::new(body))?),
        Codec::Zstd => Cow::Owned(read(&mut zstd::stream::read::Decoder::new(body)?)?),
        Codec::Snappy => Cow::Owned(snappy(body)?),
    })
}

/// Raw snappy, or Java's framing of it: after 16 bytes, blocks behind their big-endian length.
fn snappy(body: &[u8]) -> io::Result<Vec<u8>> {
    let Some(mut rest) = body
        .strip_prefix(XERIAL_MAGIC)
        .and_then(|_| body.get(XERIAL_HEADER_BYTES..))
    else {
        return snappy_block(body, RECORDS_BYTES_MAX as usize);
    };
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest
            .split_first_chunk::<4>()
            .ok_or_else(|| bad("snappy block is cut short"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let block = after
            .get(..length)
            .ok_or_else(|| bad("snappy block is cut short"))?;
        out.extend(snappy_block(block, RECORDS_BYTES_MAX as usize - out.len())?);
        rest = &after[length..];
    }
    Ok(out)
}

fn snappy_block(block: &[u8], max: usize) -> io::Result<Vec<u8>> {
    let claimed = snap::raw::decompress_len(block).map_err(invalid)?;
    // Snappy expands at most about 21 times: a larger claim is a lie.
    if claimed > max || claimed > block.len().saturating_mul(32).saturating_add(64) {
        return Err(bad("snappy block claims an impossible size"));
    }
    snap::raw::Decoder::new()
        .decompress_vec(block)
        .map_err(invalid)
}

/// A zigzag varint of up to 64 bits.
fn varint(bytes: &mut &[u8]) -> io::Result<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes
            .split_first()
            .ok_or_else(|| bad("varint is cut short"))?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(bad("varint is too long"))
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl From<BatchError> for io::Error {
    fn from(error: BatchError) -> io::Error {
        invalid(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::batch::build;
    use std::io::Write;

    fn zigzag(value: i64, out: &mut Vec<u8>) {
        let mut v = ((value << 1) ^ (value >> 63)) as u64;
        while v >= 0x80 {
            out.push(v as u8 | 0x80);
            v >>= 7;
        }
        out.push(v as u8);
    }

    fn records(deltas: &[i64]) -> Vec<u8> {
        let mut out = Vec::new();
        for (i, delta) in deltas.iter().enumerate() {
            let mut record = vec![0u8];
            zigzag(*delta, &mut record);
            zigzag(i as i64, &mut record);
            record.extend_from_slice(&[1, 1, 0]); // null key, null value, no headers
            zigzag(record.len() as i64, &mut out);
            out.extend(record);
        }
        out
    }

    fn compressed(codec: u8, body: &[u8]) -> Vec<u8> {
        match codec {
            1 => {
                let mut e = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                e.write_all(body).unwrap();
                e.finish().unwrap()
            }
            2 => snap::raw::Encoder::new().compress_vec(body).unwrap(),
            3 => {
                let mut e = lz4_flex::frame::FrameEncoder::new(Vec::new());
                e.write_all(body).unwrap();
                e.finish().unwrap()
            }
            4 => zstd::encode_all(body, 1).unwrap(),
            5 => {
                let mut out = XERIAL_MAGIC.to_vec();
                out.extend([0, 0, 0, 1, 0, 0, 0, 1]);
                for half in body.chunks(body.len() / 2 + 1) {
                    let block = snap::raw::Encoder::new().compress_vec(half).unwrap();
                    out.extend((block.len() as u32).to_be_bytes());
                    out.extend(block);
                }
                out
            }
            _ => body.to_vec(),
        }
    }

    #[test]
    fn records_are_found_by_time_in_every_codec() {
        for codec in 0..=5u8 {
            let body = compressed(codec, &records(&[0, 7, 3, 9, 9]));
            let mut batch = build::batch(5, &body, 1_000, None);
            batch[22] = if codec == 5 { 2 } else { codec };
            batch[0..8].copy_from_slice(&100i64.to_be_bytes());
            let at = |ms| {
                first_at(&batch, 0, ms)
                    .unwrap()
                    .map(|r| (r.offset, r.timestamp_ms))
            };
            assert_eq!(at(0), Some((100, 1_000)), "codec {codec}");
            assert_eq!(at(1_003), Some((101, 1_007)));
            assert_eq!(at(1_008), Some((103, 1_009)));
            assert_eq!(at(1_010), None);
            assert_eq!(newest(&batch, 0).unwrap().map(|r| r.offset), Some(103));
        }
    }

    #[test]
    fn a_record_without_a_key_is_seen() {
        let keyless = build::batch(1, &records(&[0]), 0, None);
        assert!(!all_keyed(&keyless).unwrap());
        let mut body = vec![0u8, 0, 0]; // attributes, timestamp, offset
        body.extend_from_slice(&[2, b'k', 1, 0]);
        body.insert(0, (body.len() as u8) << 1);
        assert!(all_keyed(&build::batch(1, &body, 0, None)).unwrap());
    }

    #[test]
    fn lies_and_truncations_are_errors() {
        let body = records(&[0, 7]);
        for cut in 0..body.len() {
            assert!(
                newest(&build::batch(2, &body[..cut], 0, None), 0).is_err(),
                "cut at {cut}"
            );
        }
        let mut bomb = build::batch(1, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0], 0, None);
        bomb[22] = 2;
        assert!(newest(&bomb, 0).is_err());
    }
}
