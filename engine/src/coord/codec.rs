//! Owns the plain values that records are made of: numbers, texts, bytes, with fixed or compact lengths.
//! Does not know any record.
//! Invariant: nothing is read beyond the bytes there are, and no memory is taken for what they only claim.

use super::records::RecordError;
use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of the longest text that these records can hold. Longer text is cut when it is written: whoever takes text
/// from clients has to refuse it there.
pub const TEXT_BYTES_MAX: usize = i16::MAX as usize;
/// From this version on, values of both kinds have compact lengths and tagged fields.
pub const FLEXIBLE: i16 = 4;
/// The newest version of both kinds of values.
pub const NEWEST: i16 = 4;

/// Goes through the bytes of a record.
pub struct Reader<'a> {
    rest: &'a [u8],
    /// Lengths are compact, and structs end with tagged fields.
    flexible: bool,
}

impl<'a> Reader<'a> {
    pub fn plain(rest: &'a [u8]) -> Reader<'a> {
        let flexible = false;
        Reader { rest, flexible }
    }

    /// Of a part that has compact lengths.
    pub fn compact(rest: &'a [u8]) -> Reader<'a> {
        let flexible = true;
        Reader { rest, flexible }
    }

    /// The version of a value, and a reader of what is behind it.
    pub fn of_value(value: &'a [u8]) -> Result<(i16, Reader<'a>), RecordError> {
        Reader::of_versions(value, NEWEST, FLEXIBLE)
    }

    /// The same for a kind of values with other versions.
    pub fn of_versions(
        value: &'a [u8],
        newest: i16,
        flexible: i16,
    ) -> Result<(i16, Reader<'a>), RecordError> {
        let mut r = Reader::plain(value);
        let version = r.i16()?;
        if !(0..=newest).contains(&version) {
            return Err(RecordError::Version(version));
        }
        r.flexible = version >= flexible;
        Ok((version, r))
    }

    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8], RecordError> {
        self.rest.split_off(..bytes).ok_or(RecordError::Short)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let chunk = self.rest.split_first_chunk();
        let (array, rest) = chunk.ok_or(RecordError::Short)?;
        self.rest = rest;
        Ok(*array)
    }

    pub fn i8(&mut self) -> Result<i8, RecordError> {
        self.array().map(i8::from_be_bytes)
    }

    pub fn i16(&mut self) -> Result<i16, RecordError> {
        self.array().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, RecordError> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, RecordError> {
        self.array().map(i64::from_be_bytes)
    }

    pub fn uvarint(&mut self) -> Result<u32, RecordError> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| RecordError::Varint);
            }
        }
        Err(RecordError::Varint)
    }

    /// A length of its usual form, or a compact one: one more than it is. None for null.
    pub fn length(
        &mut self,
        usual: fn(&mut Self) -> Result<i32, RecordError>,
    ) -> Result<Option<usize>, RecordError> {
        if self.flexible {
            let length = self.uvarint()?.checked_sub(1);
            return Ok(length.map(|length| length as usize));
        }
        match usual(self)? {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) => Ok(Some(length)),
                Err(_) => Err(RecordError::Length(i64::from(length))),
            },
        }
    }

    pub fn nullable_text(&mut self) -> Result<Option<String>, RecordError> {
        let Some(length) = self.length(|r| r.i16().map(i32::from))? else {
            return Ok(None);
        };
        // Compact lengths could be larger, and in Kafka are not either.
        if length > TEXT_BYTES_MAX {
            return Err(RecordError::Length(length as i64));
        }
        let text = std::str::from_utf8(self.take(length)?);
        text.map(|text| Some(text.to_string()))
            .map_err(|_| RecordError::Text)
    }

    pub fn text(&mut self) -> Result<String, RecordError> {
        self.nullable_text()?.ok_or(RecordError::Null)
    }

    pub fn bytes(&mut self) -> Result<Bytes, RecordError> {
        let length = self.length(Self::i32)?.ok_or(RecordError::Null)?;
        self.take(length).map(Bytes::copy_from_slice)
    }

    /// How many elements an array has, each of at least so many bytes.
    pub fn count(&mut self, element_bytes_min: usize) -> Result<usize, RecordError> {
        self.nullable_count(element_bytes_min)?
            .ok_or(RecordError::Null)
    }

    /// None for null.
    pub fn nullable_count(
        &mut self,
        element_bytes_min: usize,
    ) -> Result<Option<usize>, RecordError> {
        let Some(count) = self.length(Self::i32)? else {
            return Ok(None);
        };
        if count > self.rest.len() / element_bytes_min {
            return Err(RecordError::Count(count));
        }
        Ok(Some(count))
    }

    /// Tag and bytes of each tagged field go to `known`, which may leave them; older versions have none.
    pub fn tagged_fields(
        &mut self,
        mut known: impl FnMut(u32, &[u8]) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        if !self.flexible {
            return Ok(());
        }
        // Each takes at least two bytes, so those that are not there end this.
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let length = self.uvarint()? as usize;
            known(tag, self.take(length)?)?;
        }
        Ok(())
    }

    pub fn end(&self) -> Result<(), RecordError> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(RecordError::Longer(more)),
        }
    }
}

pub fn put_uvarint(mut value: u32, out: &mut BytesMut) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Of bytes or an array.
pub fn put_length(length: usize, out: &mut BytesMut) {
    out.put_i32(i32::try_from(length).expect("what requests brought fits"));
}

pub fn put_nullable_text(text: Option<&str>, out: &mut BytesMut) {
    match text {
        Some(text) => put_text(text, out),
        None => out.put_i16(-1),
    }
}

pub fn put_text(text: &str, out: &mut BytesMut) {
    let text = fitting(text);
    out.put_i16(text.len() as i16);
    out.put_slice(text.as_bytes());
}

pub fn put_compact_text(text: &str, out: &mut BytesMut) {
    let text = fitting(text);
    put_uvarint(text.len() as u32 + 1, out);
    out.put_slice(text.as_bytes());
}

/// What of a text a record can hold.
fn fitting(text: &str) -> &str {
    let mut length = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    &text[..length]
}
