//! Owns looking inside a batch: which record has which offset and timestamp.
//! Does not know keys, values or where the batch came from.
//! Invariant: output of decompression is bounded, and what is held of it at once even more, whatever the batch claims.

use crate::types::batch::{BatchError, BatchHeader, Codec};
use crate::types::limits::BATCH_HEADER_BYTES;
use crate::types::Offset;
use std::io::{self, BufReader, Read};

/// So far a decompressed batch is looked into.
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

/// Goes through the records as they are decompressed: a batch may become far larger than what it was stored in, and none
/// of that is kept.
fn each_record(header: &BatchHeader, batch: &[u8], look: impl FnMut(Seen)) -> io::Result<()> {
    let body = batch
        .get(BATCH_HEADER_BYTES..header.size)
        .ok_or_else(|| bad("batch is cut short"))?;
    match header.codec()? {
        Codec::None => walk(header, body, look),
        Codec::Gzip => {
            let records = flate2::bufread::MultiGzDecoder::new(body);
            walk(header, BufReader::new(records), look)
        }
        Codec::Lz4 => {
            let records = lz4_flex::frame::FrameDecoder::new(body);
            walk(header, BufReader::new(records), look)
        }
        Codec::Zstd => {
            let records = zstd::stream::read::Decoder::with_buffer(body)?;
            walk(header, BufReader::new(records), look)
        }
        Codec::Snappy => walk(header, BufReader::new(Snappy::new(body)), look),
    }
}

fn walk(header: &BatchHeader, records: impl Read, mut look: impl FnMut(Seen)) -> io::Result<()> {
    let mut records = records.take(RECORDS_BYTES_MAX);
    for _ in 0..header.record_count {
        let length = u64::try_from(varint(&mut records)?).map_err(|_| bad("negative length"))?;
        let mut record = (&mut records).take(length);
        let _attributes = byte(&mut record)?;
        let timestamp_ms = header.base_timestamp.wrapping_add(varint(&mut record)?);
        let offset = header.base_offset.wrapping_add(varint(&mut record)?);
        let key_bytes = varint(&mut record)?;
        io::copy(&mut record, &mut io::sink())?;
        if record.limit() > 0 {
            return Err(bad("record is cut short"));
        }
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

/// Raw snappy, or Java's framing of it: after 16 bytes, blocks behind their big-endian length. One block at a time is
/// in memory.
struct Snappy<'a> {
    rest: &'a [u8],
    framed: bool,
    block: io::Cursor<Vec<u8>>,
}

impl<'a> Snappy<'a> {
    fn new(body: &'a [u8]) -> Snappy<'a> {
        let framed = body.starts_with(XERIAL_MAGIC) && body.len() >= XERIAL_HEADER_BYTES;
        Snappy {
            rest: if framed {
                &body[XERIAL_HEADER_BYTES..]
            } else {
                body
            },
            framed,
            block: io::Cursor::default(),
        }
    }

    fn next_block(&mut self) -> io::Result<()> {
        let mut block = std::mem::take(&mut self.rest);
        if self.framed {
            let cut = || bad("snappy block is cut short");
            let (length, after) = block.split_first_chunk::<4>().ok_or_else(cut)?;
            let length = u32::from_be_bytes(*length) as usize;
            (block, self.rest) = after.split_at_checked(length).ok_or_else(cut)?;
        }
        self.block = io::Cursor::new(snappy_block(block)?);
        Ok(())
    }
}

impl Read for Snappy<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.block.read(out)?;
            if read > 0 || self.rest.is_empty() {
                return Ok(read);
            }
            self.next_block()?;
        }
    }
}

fn snappy_block(block: &[u8]) -> io::Result<Vec<u8>> {
    let claimed = snap::raw::decompress_len(block).map_err(invalid)?;
    // Snappy expands at most about 21 times: a larger claim is a lie.
    let likely = block.len().saturating_mul(32).saturating_add(64);
    if claimed as u64 > RECORDS_BYTES_MAX.min(likely as u64) {
        return Err(bad("snappy block claims an impossible size"));
    }
    snap::raw::Decoder::new()
        .decompress_vec(block)
        .map_err(invalid)
}

fn byte(bytes: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    bytes.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// A zigzag varint of up to 64 bits.
fn varint(bytes: &mut impl Read) -> io::Result<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = byte(bytes)?;
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
