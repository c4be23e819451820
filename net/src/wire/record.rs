//! Owns one record of format 2: timestamp, key, value and headers, in the form it has inside a batch.
//! Does not know batches, compression or offsets of a log.
//! Keeps: duplicate header keys, their order and null values survive; header keys need not be UTF-8.
use bytes::Bytes;

use super::error::WireError;
use super::primitives::{Reader, Writer};

/// A record as clients see it. Decoded fields share the buffer of their batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Assigned by the broker; has no meaning when a batch is built.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    /// Null deletes the key from a compacted topic.
    pub value: Option<Bytes>,
    pub headers: Vec<Header>,
}

/// A header of a record; keys may repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// Fewest bytes of a header: length of the key, length of the value.
const HEADER_BYTES_MIN: usize = 2;

impl Record {
    /// Writes the record with its length in front. `scratch` is cleared; reusing it saves an allocation each time.
    pub(super) fn encode(
        &self,
        writer: &mut Writer,
        scratch: &mut Writer,
        offset_delta: i32,
        timestamp_delta: i64,
    ) -> Result<(), WireError> {
        scratch.clear();
        // Attributes of a record: none are defined.
        scratch.i8(0);
        scratch.varlong(timestamp_delta);
        scratch.varint(offset_delta);
        write_bytes(scratch, self.key.as_ref())?;
        write_bytes(scratch, self.value.as_ref())?;
        scratch.varint(length(self.headers.len())?);
        for header in &self.headers {
            write_bytes(scratch, Some(&header.key))?;
            write_bytes(scratch, header.value.as_ref())?;
        }
        writer.varint(length(scratch.len())?);
        writer.raw(scratch.written());
        Ok(())
    }

    /// Reads one record, length in front, of a batch that starts at the given offset and timestamp.
    pub(super) fn decode(
        reader: &mut Reader,
        base_offset: i64,
        base_timestamp_ms: i64,
    ) -> Result<Self, WireError> {
        let size = reader.varint()?;
        let size = usize::try_from(size).map_err(|_| WireError::NegativeLength {
            length: size.into(),
        })?;
        let mut body = Reader::new(reader.take(size)?);
        let _attributes = body.i8()?;
        // Wrapping, because both are whatever the producer said and 64 bits are all there is.
        let timestamp_ms = base_timestamp_ms.wrapping_add(body.varlong()?);
        let offset = base_offset.wrapping_add(body.varint()?.into());
        let key = read_bytes(&mut body)?;
        let value = read_bytes(&mut body)?;
        let count = body.varint()?;
        let count = usize::try_from(count).map_err(|_| WireError::NegativeLength {
            length: count.into(),
        })?;
        body.check_count(count, HEADER_BYTES_MIN)?;
        body.charge(count.saturating_mul(size_of::<Header>()))?;
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let key = read_bytes(&mut body)?.ok_or(WireError::NegativeLength { length: -1 })?;
            headers.push(Header {
                key,
                value: read_bytes(&mut body)?,
            });
        }
        body.finish()?;
        Ok(Self {
            offset,
            timestamp_ms,
            key,
            value,
            headers,
        })
    }
}

fn length(length: usize) -> Result<i32, WireError> {
    i32::try_from(length).map_err(|_| WireError::TooLong {
        length,
        max: i32::MAX as usize,
    })
}

fn write_bytes(writer: &mut Writer, bytes: Option<&Bytes>) -> Result<(), WireError> {
    match bytes {
        None => writer.varint(-1),
        Some(bytes) => {
            writer.varint(length(bytes.len())?);
            writer.raw(bytes);
        }
    }
    Ok(())
}

fn read_bytes(reader: &mut Reader) -> Result<Option<Bytes>, WireError> {
    match reader.varint()? {
        -1 => Ok(None),
        size => match usize::try_from(size) {
            Ok(size) => reader.take(size).map(Some),
            Err(_) => Err(WireError::NegativeLength {
                length: size.into(),
            }),
        },
    }
}
