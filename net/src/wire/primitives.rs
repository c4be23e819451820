//! Owns the primitive types of the protocol: integers, varints, strings, bytes, arrays, uuids, tagged fields.
//! Does not know any message; the schemas are built from this.
//! Keeps: no count or length is believed before it is compared with the bytes that remain, and all memory taken by
//! one decode stays within a budget derived from the size of its input.
use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::error::WireError;
use super::values::Str;

/// Decoded arrays may take this many times the bytes of the input: enough for real messages (a struct of an empty
/// string and a few integers is about ten times its compact form) and still a bound.
pub const DECODE_MEMORY_FACTOR: usize = 16;
/// Added to the budget, so that tiny messages never meet it.
pub const DECODE_MEMORY_SLACK: usize = 4 * 1024;
/// No message needs more, however large it is: what makes messages large are records, which are not copied.
pub const DECODE_MEMORY_MAX: usize = 64 * 1024 * 1024;
/// Byte strings at least this long are kept by reference in a sharing [`Writer`]; a shorter one should be cheaper to
/// copy than to carry as an element of a vectored write. Where the line really is was not measured.
pub const SHARED_BYTES_MIN: usize = 512;

/// Reads one message from a buffer, checking everything.
#[derive(Debug)]
pub struct Reader {
    buf: Bytes,
    at: usize,
    memory_left: usize,
}

macro_rules! read_int {
    ($($name:ident $ty:ident),*) => {$(
        /// Big-endian.
        pub fn $name(&mut self) -> Result<$ty, WireError> {
            Ok($ty::from_be_bytes(self.array()?))
        }
    )*};
}

impl Reader {
    /// A reader of `buf` whose decoded arrays may take [`DECODE_MEMORY_FACTOR`] times its length.
    pub fn new(buf: Bytes) -> Self {
        let memory = buf
            .len()
            .saturating_mul(DECODE_MEMORY_FACTOR)
            .saturating_add(DECODE_MEMORY_SLACK);
        Self::with_memory(buf, memory.min(DECODE_MEMORY_MAX))
    }

    /// A reader of `buf` whose decoded arrays may take `memory_bytes_max`.
    pub fn with_memory(buf: Bytes, memory_bytes_max: usize) -> Self {
        Self {
            buf,
            at: 0,
            memory_left: memory_bytes_max,
        }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.buf.len() - self.at
    }

    /// Fails if bytes are left.
    pub fn finish(&self) -> Result<(), WireError> {
        match self.remaining() {
            0 => Ok(()),
            unread => Err(WireError::TrailingBytes { unread }),
        }
    }

    fn need(&self, needed: usize) -> Result<(), WireError> {
        let remaining = self.remaining();
        if needed > remaining {
            return Err(WireError::Truncated { needed, remaining });
        }
        Ok(())
    }

    /// The next `length` bytes, sharing the input's buffer.
    pub fn take(&mut self, length: usize) -> Result<Bytes, WireError> {
        self.need(length)?;
        let taken = self.buf.slice(self.at..self.at + length);
        self.at += length;
        Ok(taken)
    }

    pub fn skip(&mut self, length: usize) -> Result<(), WireError> {
        self.need(length)?;
        self.at += length;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.need(N)?;
        let mut out = [0; N];
        out.copy_from_slice(&self.buf[self.at..self.at + N]);
        self.at += N;
        Ok(out)
    }

    read_int!(i8 i8, u8 u8, i16 i16, u16 u16, i32 i32, u32 u32, i64 i64);

    pub fn f64(&mut self) -> Result<f64, WireError> {
        Ok(f64::from_be_bytes(self.array()?))
    }

    /// Any byte but zero is true, as in the original.
    pub fn bool(&mut self) -> Result<bool, WireError> {
        Ok(self.u8()? != 0)
    }

    pub fn uuid(&mut self) -> Result<Uuid, WireError> {
        Ok(Uuid::from_bytes(self.array()?))
    }

    fn base128(&mut self, bits: u32) -> Result<u64, WireError> {
        let mut value = 0u64;
        let mut shift = 0;
        loop {
            let byte = self.u8()?;
            let payload = u64::from(byte & 0x7f);
            if shift >= bits || (bits - shift < 7 && payload >> (bits - shift) != 0) {
                return Err(WireError::VarintOverflow { bits });
            }
            value |= payload << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    /// Unsigned base-128, at most 32 bits.
    pub fn uvarint(&mut self) -> Result<u32, WireError> {
        Ok(self.base128(32)? as u32)
    }

    /// Zigzag base-128, at most 32 bits.
    pub fn varint(&mut self) -> Result<i32, WireError> {
        let raw = self.uvarint()?;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    /// Zigzag base-128, at most 64 bits.
    pub fn varlong(&mut self) -> Result<i64, WireError> {
        let raw = self.base128(64)?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// A length that may be null: compact (length + 1, 0 is null) or of `wide`'s type (-1 is null).
    fn length(
        &mut self,
        flexible: bool,
        wide: fn(&mut Self) -> Result<i32, WireError>,
    ) -> Result<Option<usize>, WireError> {
        if flexible {
            return Ok(self.uvarint()?.checked_sub(1).map(|length| length as usize));
        }
        match wide(self)? {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) => Ok(Some(length)),
                Err(_) => Err(WireError::NegativeLength {
                    length: length.into(),
                }),
            },
        }
    }

    /// A string, or null.
    pub fn string(&mut self, flexible: bool) -> Result<Option<Str>, WireError> {
        match self.length(flexible, |r| r.i16().map(i32::from))? {
            None => Ok(None),
            Some(length) => Str::from_utf8(self.take(length)?).map(Some),
        }
    }

    /// Bytes sharing the input's buffer, or null.
    pub fn bytes(&mut self, flexible: bool) -> Result<Option<Bytes>, WireError> {
        match self.length(flexible, Self::i32)? {
            None => Ok(None),
            Some(length) => self.take(length).map(Some),
        }
    }

    /// The count of an array whose elements take at least `element_bytes_min` on the wire and `element_memory` in
    /// memory; null is `None`. After this the caller may allocate `count` elements.
    pub fn count(
        &mut self,
        flexible: bool,
        element_bytes_min: usize,
        element_memory: usize,
    ) -> Result<Option<usize>, WireError> {
        let Some(count) = self.length(flexible, Self::i32)? else {
            return Ok(None);
        };
        self.check_count(count, element_bytes_min)?;
        self.charge(count.saturating_mul(element_memory))?;
        Ok(Some(count))
    }

    /// Fails if `count` elements of at least `element_bytes_min` bytes cannot be left in the input.
    pub fn check_count(&self, count: usize, element_bytes_min: usize) -> Result<(), WireError> {
        let remaining = self.remaining();
        if count.saturating_mul(element_bytes_min.max(1)) > remaining {
            return Err(WireError::CountTooLarge { count, remaining });
        }
        Ok(())
    }

    /// Takes `needed` bytes of memory from the budget of this decode.
    pub fn charge(&mut self, needed: usize) -> Result<(), WireError> {
        match self.memory_left.checked_sub(needed) {
            Some(left) => {
                self.memory_left = left;
                Ok(())
            }
            None => Err(WireError::MemoryLimit {
                needed,
                allowed: self.memory_left,
            }),
        }
    }

    /// Reads the tagged fields at the end of a flexible struct. `known` decodes the tags it knows from a reader of
    /// exactly that field and says so; others are skipped.
    pub fn tagged_fields(
        &mut self,
        mut known: impl FnMut(u32, &mut Reader) -> Result<bool, WireError>,
    ) -> Result<(), WireError> {
        let count = self.uvarint()? as usize;
        // A tag and a size take at least a byte each.
        self.check_count(count, 2)?;
        for _ in 0..count {
            let tag = self.uvarint()?;
            let size = self.uvarint()? as usize;
            let mut field = Reader {
                buf: self.take(size)?,
                at: 0,
                memory_left: self.memory_left,
            };
            if known(tag, &mut field)? && field.remaining() > 0 {
                return Err(WireError::TaggedFieldSize {
                    tag,
                    unread: field.remaining(),
                });
            }
            self.memory_left = field.memory_left;
        }
        Ok(())
    }
}

/// Writes one message, either flat or as pieces that refer to long byte strings instead of copying them.
#[derive(Debug, Default)]
pub struct Writer {
    buf: BytesMut,
    /// Byte strings kept by reference, each with the position in `buf` before which it belongs.
    shared: Vec<(usize, Bytes)>,
    shared_bytes: usize,
    sharing: bool,
}

impl Writer {
    /// A writer that copies everything into one buffer.
    pub fn new() -> Self {
        Self::with_capacity(128)
    }

    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            buf: BytesMut::with_capacity(capacity),
            shared: Vec::new(),
            shared_bytes: 0,
            sharing: false,
        }
    }

    /// A writer that goes on at the end of `buf` and copies everything into it; [`Self::into_buffer`] gives it back.
    pub fn over(buf: BytesMut) -> Self {
        Self {
            buf,
            ..Self::default()
        }
    }

    /// The buffer with what was written behind what it held.
    pub fn into_buffer(self) -> BytesMut {
        assert!(self.shared.is_empty(), "a sharing writer has no one buffer");
        self.buf
    }

    /// A writer that keeps byte strings of [`SHARED_BYTES_MIN`] and more by reference.
    pub fn sharing() -> Self {
        Self {
            sharing: true,
            ..Self::new()
        }
    }

    /// Bytes written so far, shared ones included.
    pub fn len(&self) -> usize {
        self.buf.len() + self.shared_bytes
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was written, of a writer that does not share.
    pub(super) fn written(&self) -> &[u8] {
        assert!(self.shared.is_empty(), "part of it is elsewhere");
        &self.buf
    }

    /// Forgets what was written and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.buf.clear();
        self.shared.clear();
        self.shared_bytes = 0;
    }

    /// The message in one buffer; copies what was shared.
    pub fn into_bytes(self) -> Bytes {
        if self.shared.is_empty() {
            return self.buf.freeze();
        }
        let mut flat = BytesMut::with_capacity(self.len());
        for piece in self.into_pieces() {
            flat.extend_from_slice(&piece);
        }
        flat.freeze()
    }

    /// The message as consecutive pieces, none of them empty.
    pub fn into_pieces(self) -> Vec<Bytes> {
        let own = self.buf.freeze();
        let mut pieces = Vec::with_capacity(self.shared.len() * 2 + 1);
        let mut from = 0;
        for (position, bytes) in self.shared {
            if position > from {
                pieces.push(own.slice(from..position));
                from = position;
            }
            pieces.push(bytes);
        }
        if from < own.len() {
            pieces.push(own.slice(from..));
        }
        pieces
    }

    /// Overwrites the four bytes at the front, reserved for the size of the frame.
    pub(super) fn patch_front(&mut self, value: i32) {
        assert!(self.buf.len() >= 4, "nothing reserved at the front");
        assert!(
            self.shared
                .first()
                .is_none_or(|(position, _)| *position >= 4),
            "front is shared"
        );
        self.buf[..4].copy_from_slice(&value.to_be_bytes());
    }

    pub fn i8(&mut self, value: i8) {
        self.buf.put_i8(value);
    }
    pub fn i16(&mut self, value: i16) {
        self.buf.put_i16(value);
    }
    pub fn u16(&mut self, value: u16) {
        self.buf.put_u16(value);
    }
    pub fn i32(&mut self, value: i32) {
        self.buf.put_i32(value);
    }
    pub fn u32(&mut self, value: u32) {
        self.buf.put_u32(value);
    }
    pub fn i64(&mut self, value: i64) {
        self.buf.put_i64(value);
    }
    pub fn f64(&mut self, value: f64) {
        self.buf.put_f64(value);
    }
    pub fn bool(&mut self, value: bool) {
        self.buf.put_u8(value.into());
    }
    pub fn uuid(&mut self, value: &Uuid) {
        self.buf.put_slice(value.as_bytes());
    }

    fn base128(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.buf.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buf.put_u8(value as u8);
    }

    pub fn uvarint(&mut self, value: u32) {
        self.base128(value.into());
    }

    /// Zigzag.
    pub fn varint(&mut self, value: i32) {
        self.uvarint(((value << 1) ^ (value >> 31)) as u32);
    }

    /// Zigzag.
    pub fn varlong(&mut self, value: i64) {
        self.base128(((value << 1) ^ (value >> 63)) as u64);
    }

    /// Bytes as they are, copied.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buf.put_slice(bytes);
    }

    /// Bytes as they are, by reference if this writer shares and they are long enough.
    pub fn raw_shared(&mut self, bytes: &Bytes) {
        if self.sharing && bytes.len() >= SHARED_BYTES_MIN {
            self.shared_bytes += bytes.len();
            self.shared.push((self.buf.len(), bytes.clone()));
        } else {
            self.raw(bytes);
        }
    }

    /// Length of an array or byte string, `None` for null.
    pub fn length(&mut self, flexible: bool, length: Option<usize>) -> Result<(), WireError> {
        let max = i32::MAX as usize - 1;
        match length {
            Some(length) if length > max => return Err(WireError::TooLong { length, max }),
            Some(length) if flexible => self.uvarint(length as u32 + 1),
            Some(length) => self.i32(length as i32),
            None if flexible => self.uvarint(0),
            None => self.i32(-1),
        }
        Ok(())
    }

    pub fn string(&mut self, flexible: bool, value: Option<&str>) -> Result<(), WireError> {
        let max = i16::MAX as usize;
        match value {
            // Compact strings have the same limit, so that a value does not depend on the version.
            Some(text) if text.len() > max => {
                return Err(WireError::TooLong {
                    length: text.len(),
                    max,
                })
            }
            Some(text) if flexible => self.uvarint(text.len() as u32 + 1),
            Some(text) => self.i16(text.len() as i16),
            None if flexible => self.uvarint(0),
            None => self.i16(-1),
        }
        self.raw(value.unwrap_or_default().as_bytes());
        Ok(())
    }

    pub fn bytes(&mut self, flexible: bool, value: Option<&Bytes>) -> Result<(), WireError> {
        self.length(flexible, value.map(Bytes::len))?;
        if let Some(bytes) = value {
            self.raw_shared(bytes);
        }
        Ok(())
    }
}
