//! Owns looking inside a batch: which record has which offset and timestamp, and whether all have keys.
//! Does not know keys, values or where the batch came from.
//! Invariant: one step of a search inflates a bounded part, and a search ends whatever the batch claims.

use super::inflate::inflate;
use crate::rt;
use crate::types::batch::{BatchError, BatchHeader, Codec};
use crate::types::limits::{
    BATCH_HEADER_BYTES, INFLATED_BYTES_MIN, INFLATED_TIMES, INFLATE_STEP_BYTES,
};
use crate::types::Offset;
use std::io::{self, BufRead};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordTime {
    pub offset: Offset,
    pub timestamp_ms: i64,
}

/// What a search is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// The first record at or after a time.
    AtOrAfter(i64),
    /// The first of those with the largest time.
    Newest,
    /// The first without a key.
    Keyless,
}

/// The record of the batch from offset `from` on that is wanted; others of the shard have their turn meanwhile.
///
/// Where the records cannot be read (a client may compress garbage, or more than is looked into), the batch is taken for
/// what its header says: a reader that begins at its first record misses nothing.
///
/// # Errors
/// The header is none.
pub async fn find_time(
    batch: &[u8],
    from: Offset,
    wanted: Wanted,
) -> io::Result<Option<RecordTime>> {
    let header = BatchHeader::parse(batch)?;
    if header.is_log_append_time() {
        return Ok(by_header(&header, from, wanted));
    }
    match search(batch, from, wanted).await {
        Ok(found) => Ok(found),
        Err(error) => {
            // Told to nobody: whoever wrote such a batch could fill the log with it.
            tracing::debug!(base_offset = header.base_offset, %error, "its records cannot be read");
            Ok(by_header(&header, from, wanted))
        }
    }
}

/// Whether every record of the batch has a key, as compacted topics ask for; others of the shard have their turn meanwhile.
///
/// # Errors
/// The records cannot be read.
pub async fn all_keyed(batch: &[u8]) -> io::Result<bool> {
    let keyless = search(batch, Offset::MIN, Wanted::Keyless).await?;
    Ok(keyless.is_none())
}

async fn search(batch: &[u8], from: Offset, wanted: Wanted) -> io::Result<Option<RecordTime>> {
    let mut search = Search::new(batch, from, wanted)?;
    while !search.step()? {
        rt::yield_now().await;
    }
    Ok(search.found())
}

/// The whole batch as one record with its largest time.
fn by_header(header: &BatchHeader, from: Offset, wanted: Wanted) -> Option<RecordTime> {
    if header.record_count == 0 {
        return None;
    }
    let first = RecordTime {
        offset: header.base_offset.max(from),
        timestamp_ms: header.max_timestamp,
    };
    let is_wanted = match wanted {
        Wanted::AtOrAfter(timestamp_ms) => first.timestamp_ms >= timestamp_ms,
        Wanted::Newest => true,
        Wanted::Keyless => false,
    };
    (first.offset <= header.last_offset() && is_wanted).then_some(first)
}

/// A search through the records of one batch, step by step: a batch may become far larger than what it was stored in, and
/// none of that is kept.
pub struct Search<'a> {
    bytes: Box<dyn BufRead + 'a>,
    header: BatchHeader,
    from: Offset,
    wanted: Wanted,
    found: Option<RecordTime>,
    /// Records not begun yet.
    records: i32,
    /// Bytes of the last record that are not passed over yet.
    skip: u64,
    /// What may yet be looked at in all.
    left: u64,
    /// What may yet be looked at in this step.
    step: u64,
}

impl<'a> Search<'a> {
    pub fn new(batch: &'a [u8], from: Offset, wanted: Wanted) -> io::Result<Search<'a>> {
        let header = BatchHeader::parse(batch)?;
        let body = batch
            .get(BATCH_HEADER_BYTES..header.size)
            .ok_or_else(|| bad("batch is cut short"))?;
        let codec = header.codec()?;
        let left = match codec {
            Codec::None => body.len() as u64,
            _ => INFLATED_BYTES_MIN.max(INFLATED_TIMES * body.len() as u64),
        };
        Ok(Search {
            bytes: inflate(codec, body)?,
            header,
            from,
            wanted,
            found: None,
            records: header.record_count,
            skip: 0,
            left,
            step: 0,
        })
    }

    /// What was wanted, once [`Search::step`] has said that it is known.
    pub fn found(&self) -> Option<RecordTime> {
        self.found
    }

    /// Goes on for a bounded time; true once it is known what was wanted.
    pub fn step(&mut self) -> io::Result<bool> {
        self.step = INFLATE_STEP_BYTES as u64;
        loop {
            while self.skip > 0 {
                if self.step == 0 {
                    return Ok(false);
                }
                self.pass()?;
            }
            if self.records <= 0 {
                return Ok(true);
            }
            if self.step == 0 {
                return Ok(false);
            }
            self.records -= 1;
            if self.record()? {
                return Ok(true);
            }
        }
    }

    /// Passes over a part of a record.
    fn pass(&mut self) -> io::Result<()> {
        let there = self.bytes.fill_buf()?.len() as u64;
        if there == 0 {
            return Err(bad("record is cut short"));
        }
        let passed = self.skip.min(there).min(self.step);
        self.take(passed)?;
        self.skip -= passed;
        Ok(())
    }

    /// Looks at the beginning of the next record; true where the search ends with it.
    fn record(&mut self) -> io::Result<bool> {
        let mut unbounded = u64::MAX;
        let length = u64::try_from(self.varint(&mut unbounded)?);
        let mut rest = length.map_err(|_| bad("negative length"))?;
        let _attributes = self.byte(&mut rest)?;
        let timestamp_ms = self
            .header
            .base_timestamp
            .wrapping_add(self.varint(&mut rest)?);
        let delta = self.varint(&mut rest)?;
        if !(0..=i64::from(self.header.last_offset_delta)).contains(&delta) {
            return Err(bad("record with an offset outside of its batch"));
        }
        let key_bytes = self.varint(&mut rest)?;
        self.skip = rest;
        let record = RecordTime {
            offset: self.header.base_offset.wrapping_add(delta),
            timestamp_ms,
        };
        if record.offset < self.from {
            return Ok(false);
        }
        let (is_better, is_last) = match self.wanted {
            Wanted::AtOrAfter(wanted) => (timestamp_ms >= wanted, true),
            Wanted::Newest => (
                self.found.is_none_or(|f| timestamp_ms > f.timestamp_ms),
                false,
            ),
            Wanted::Keyless => (key_bytes < 0, true),
        };
        if is_better {
            self.found = Some(record);
        }
        Ok(is_better && is_last)
    }

    fn take(&mut self, bytes: u64) -> io::Result<()> {
        self.bytes.consume(bytes as usize);
        self.step = self.step.saturating_sub(bytes);
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or_else(|| bad("batch inflates to more than is looked into"))?;
        Ok(())
    }

    /// One byte of a record that has `rest` left.
    fn byte(&mut self, rest: &mut u64) -> io::Result<u8> {
        *rest = rest
            .checked_sub(1)
            .ok_or_else(|| bad("record is too short"))?;
        let byte = self.bytes.fill_buf()?.first().copied();
        let byte = byte.ok_or_else(|| bad("record is cut short"))?;
        self.take(1)?;
        Ok(byte)
    }

    /// A zigzag varint of up to 64 bits, of a record that has `rest` left.
    fn varint(&mut self, rest: &mut u64) -> io::Result<i64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(rest)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(bad("varint is too long"))
    }
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl From<BatchError> for io::Error {
    fn from(error: BatchError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::sim::{Sim, SimConfig};
    use crate::types::batch::build::{self, zigzag};
    use std::io::Write;

    fn found(batch: &[u8], from: Offset, wanted: Wanted) -> io::Result<Option<(Offset, i64)>> {
        let mut search = Search::new(batch, from, wanted)?;
        while !search.step()? {}
        Ok(search.found().map(|r| (r.offset, r.timestamp_ms)))
    }

    fn keyed(batch: &[u8]) -> bool {
        found(batch, Offset::MIN, Wanted::Keyless)
            .unwrap()
            .is_none()
    }

    /// Records without keys; the values are so many zeros.
    fn records(deltas: &[i64], value_bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for (i, delta) in deltas.iter().enumerate() {
            let mut record = vec![0u8];
            zigzag(*delta, &mut record);
            zigzag(i as i64, &mut record);
            zigzag(-1, &mut record);
            zigzag(value_bytes as i64, &mut record);
            record.resize(record.len() + value_bytes + 1, 0);
            zigzag(record.len() as i64, &mut out);
            out.extend(record);
        }
        out
    }

    /// 0 to 4 as in the attributes of a batch, and 5 for Java's framing of snappy.
    fn compressed(codec: u8, count: i32, body: &[u8]) -> Vec<u8> {
        let body = match codec {
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
                let mut out = b"\x82SNAPPY\0".to_vec();
                out.extend([0, 0, 0, 1, 0, 0, 0, 1]);
                for half in body.chunks(body.len() / 2 + 1) {
                    let block = snap::raw::Encoder::new().compress_vec(half).unwrap();
                    out.extend((block.len() as u32).to_be_bytes());
                    out.extend(block);
                }
                out
            }
            _ => body.to_vec(),
        };
        let mut batch = build::batch(count, &body, 1_000, None);
        batch[22] = if codec == 5 { 2 } else { codec };
        batch
    }

    #[test]
    fn records_are_found_by_time_in_every_codec() {
        for codec in 0..=5u8 {
            let mut batch = compressed(codec, 5, &records(&[0, 7, 3, 9, 9], 0));
            batch[0..8].copy_from_slice(&100i64.to_be_bytes());
            let at = |ms| found(&batch, 0, Wanted::AtOrAfter(ms)).unwrap();
            assert_eq!(at(0), Some((100, 1_000)), "codec {codec}");
            assert_eq!(at(1_003), Some((101, 1_007)));
            assert_eq!(at(1_008), Some((103, 1_009)));
            assert_eq!(at(1_010), None);
            assert_eq!(
                found(&batch, 0, Wanted::Newest).unwrap(),
                Some((103, 1_009))
            );
            let later = found(&batch, 102, Wanted::AtOrAfter(0)).unwrap();
            assert_eq!(later, Some((102, 1_003)));
        }
    }

    #[test]
    fn records_far_larger_than_a_step_are_passed_over_in_many_steps() {
        let body = records(&[0, 9], 20 * INFLATE_STEP_BYTES);
        for codec in 0..=5u8 {
            let batch = compressed(codec, 2, &body);
            let mut search = Search::new(&batch, 0, Wanted::AtOrAfter(1_009)).unwrap();
            let mut steps = 1;
            while !search.step().unwrap() {
                steps += 1;
            }
            assert_eq!(search.found().map(|r| r.offset), Some(1), "codec {codec}");
            assert!((20..30).contains(&steps), "codec {codec}: {steps} steps");
        }
    }

    #[test]
    fn a_record_without_a_key_is_seen() {
        let one_key = [14u8, 0, 0, 0, 2, b'k', 1, 0];
        let no_key = [12u8, 0, 0, 2, 1, 1, 0];
        for codec in 0..=5u8 {
            assert!(keyed(&compressed(codec, 1, &one_key)));
            let both = [&one_key[..], &no_key[..]].concat();
            assert!(!keyed(&compressed(codec, 2, &both)), "codec {codec}");
        }
    }

    #[test]
    fn lies_and_truncations_are_errors() {
        let body = records(&[0, 7], 0);
        for cut in 0..body.len() {
            let batch = build::batch(2, &body[..cut], 0, None);
            assert!(found(&batch, 0, Wanted::Newest).is_err(), "cut at {cut}");
        }
        let mut bomb = build::batch(1, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0], 0, None);
        bomb[22] = 2;
        assert!(found(&bomb, 0, Wanted::Newest).is_err());
        let outside = build::batch(1, &body, 0, None);
        assert!(found(&outside, 0, Wanted::AtOrAfter(0)).unwrap().is_some());
        let outside = build::batch(1, &records(&[0, 7], 0)[7..], 0, None);
        assert!(found(&outside, 0, Wanted::Newest).is_err());
    }

    #[test]
    fn no_more_is_inflated_than_is_allowed() {
        let body = records(&[0, 9], INFLATED_BYTES_MIN as usize);
        for codec in [1, 3, 4] {
            let batch = compressed(codec, 2, &body);
            assert!(found(&batch, 0, Wanted::Newest).is_err(), "codec {codec}");
            let first = found(&batch, 0, Wanted::AtOrAfter(0)).unwrap();
            assert_eq!(first, Some((0, 1_000)), "what comes before that is found");
        }
    }

    #[test]
    fn a_batch_that_cannot_be_read_is_what_its_header_says() {
        let mut batch = compressed(4, 5, &records(&[0, 7, 3, 9, 9], 0));
        batch[BATCH_HEADER_BYTES..].fill(0xaa);
        batch[0..8].copy_from_slice(&100i64.to_be_bytes());
        let sim = Sim::new(1, SimConfig::default());
        let at = |from, wanted| {
            let batch = batch.clone();
            let found = sim.block_on(async move { find_time(&batch, from, wanted).await });
            found.unwrap().map(|r| (r.offset, r.timestamp_ms))
        };
        assert_eq!(at(0, Wanted::AtOrAfter(1_000)), Some((100, 1_000)));
        assert_eq!(at(103, Wanted::AtOrAfter(0)), Some((103, 1_000)));
        assert_eq!(at(105, Wanted::AtOrAfter(0)), None);
        assert_eq!(at(0, Wanted::AtOrAfter(1_001)), None);
        assert_eq!(at(0, Wanted::Newest), Some((100, 1_000)));
    }
}
