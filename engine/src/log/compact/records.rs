//! Owns going through the records of a stored batch one by one, inflated where they are compressed.
//! Does not know which of them compaction keeps.
//! Invariant: one record is in memory at a time, whatever a batch claims; others have their turn while it is inflated.

use crate::log::inflate::inflate;
use crate::rt;
use crate::types::batch::{BatchHeader, Codec};
use crate::types::limits::{
    BATCH_HEADER_BYTES, INFLATED_BYTES_MIN, INFLATED_TIMES, INFLATE_STEP_BYTES,
};
use std::io::{self, BufRead};

/// What compaction looks at of a record; the rest goes on as it is.
pub struct Record<'a> {
    pub attributes: u8,
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<&'a [u8]>,
    /// A record without one is a tombstone.
    pub has_value: bool,
    /// Key, value and headers, with their lengths.
    pub rest: &'a [u8],
}

pub struct Records<'a> {
    bytes: Box<dyn BufRead + 'a>,
    /// Records not begun yet.
    records: i32,
    last_offset_delta: i32,
    /// Offset delta that the next record has at least.
    due: i32,
    /// What may yet be inflated.
    left: u64,
    record: Vec<u8>,
}

impl<'a> Records<'a> {
    /// # Errors
    /// The batch is cut short, or its codec is not known.
    pub fn of(header: &BatchHeader, batch: &'a [u8]) -> io::Result<Records<'a>> {
        let body = batch.get(BATCH_HEADER_BYTES..header.size);
        let body = body.ok_or_else(|| bad("batch is cut short"))?;
        let codec = header.codec()?;
        Ok(Records {
            bytes: inflate(codec, body)?,
            records: header.record_count,
            last_offset_delta: header.last_offset_delta,
            due: 0,
            left: match codec {
                Codec::None => body.len() as u64,
                _ => INFLATED_BYTES_MIN.max(INFLATED_TIMES * body.len() as u64),
            },
            record: Vec::new(),
        })
    }

    /// The next record; None behind the last.
    ///
    /// # Errors
    /// The records cannot be read, or do not fit their batch.
    pub async fn next(&mut self) -> io::Result<Option<Record<'_>>> {
        if self.records <= 0 {
            return Ok(None);
        }
        self.records -= 1;
        rt::yield_if_needed().await;
        let length = u64::try_from(self.length()?).map_err(|_| bad("negative length"))?;
        self.left = self
            .left
            .checked_sub(length)
            .ok_or_else(|| bad("batch inflates to more than is looked into"))?;
        self.record.clear();
        while (self.record.len() as u64) < length {
            let there = self.bytes.fill_buf()?;
            if there.is_empty() {
                return Err(bad("record is cut short"));
            }
            let wanted = (length - self.record.len() as u64).min(INFLATE_STEP_BYTES as u64);
            let taken = there.len().min(wanted as usize);
            self.record.extend_from_slice(&there[..taken]);
            self.bytes.consume(taken);
            rt::yield_if_needed().await;
        }
        let (due, last) = (self.due, self.last_offset_delta);
        let record = parse(&self.record).filter(|r| (due..=last).contains(&r.offset_delta));
        let record = record.ok_or_else(|| bad("a record does not fit its batch"))?;
        self.due = record.offset_delta + 1;
        Ok(Some(record))
    }

    /// The zigzag varint in front of a record.
    fn length(&mut self) -> io::Result<i64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.bytes.fill_buf()?.first().copied();
            let byte = byte.ok_or_else(|| bad("record is cut short"))?;
            self.bytes.consume(1);
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(bad("varint is too long"))
    }
}

fn parse(bytes: &[u8]) -> Option<Record<'_>> {
    let mut rest = bytes;
    let attributes = *rest.split_off_first()?;
    let timestamp_delta = varint(&mut rest)?;
    let offset_delta = i32::try_from(varint(&mut rest)?).ok()?;
    let unchanged = rest;
    let key = match varint(&mut rest)? {
        ..0 => None,
        length => Some(rest.split_off(..usize::try_from(length).ok()?)?),
    };
    let has_value = varint(&mut rest)? >= 0;
    Some(Record {
        attributes,
        timestamp_delta,
        offset_delta,
        key,
        has_value,
        rest: unchanged,
    })
}

/// A zigzag varint of up to 64 bits.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
