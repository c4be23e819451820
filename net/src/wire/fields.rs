//! Owns how each type of field is laid out: integers, strings, bytes, records, arrays and their nullable forms.
//! Does not know structs or versions.
//! Keeps: an array is allocated only after its count was checked and charged.
use bytes::Bytes;
use std::convert::identity;
use uuid::Uuid;

use super::error::WireError;
use super::primitives::{Reader, Writer};
use super::schema::{Field, Nullable};
use super::values::{Records, Str};

macro_rules! fixed_field {
    ($($ty:ty, $name:ident;)*) => {$(
        impl Field for $ty {
            fn bytes_min(_: i16, _: bool) -> usize {
                size_of::<$ty>()
            }
            fn read(reader: &mut Reader, _: i16, _: bool) -> Result<Self, WireError> {
                reader.$name()
            }
            fn write(&self, writer: &mut Writer, _: i16, _: bool) -> Result<(), WireError> {
                writer.$name(*self);
                Ok(())
            }
        }
    )*};
}
fixed_field! { i8, i8; i16, i16; u16, u16; i32, i32; i64, i64; f64, f64; bool, bool; }

impl Field for Uuid {
    fn bytes_min(_: i16, _: bool) -> usize {
        16
    }
    fn read(reader: &mut Reader, _: i16, _: bool) -> Result<Self, WireError> {
        reader.uuid()
    }
    fn write(&self, writer: &mut Writer, _: i16, _: bool) -> Result<(), WireError> {
        writer.uuid(self);
        Ok(())
    }
}

/// Bytes of a length at the least: a varint where the version is flexible, else `fixed`.
fn length_bytes_min(flexible: bool, fixed: usize) -> usize {
    if flexible {
        1
    } else {
        fixed
    }
}

/// Types whose length says whether they are null: the method of reader and writer, what the writer takes, and the width
/// of the length.
macro_rules! length_prefixed_field {
    ($($ty:ty, $name:ident, $borrowed:path, $length_bytes:literal;)*) => {$(
        impl Field for $ty {
            fn bytes_min(_: i16, flexible: bool) -> usize {
                length_bytes_min(flexible, $length_bytes)
            }
            fn read(reader: &mut Reader, version: i16, flexible: bool) -> Result<Self, WireError> {
                not_null(stringify!($name), version, reader.$name(flexible)?)
            }
            fn write(&self, writer: &mut Writer, _: i16, flexible: bool) -> Result<(), WireError> {
                writer.$name(flexible, Some($borrowed(self)))
            }
        }

        impl Nullable for $ty {
            fn read_nullable(
                reader: &mut Reader,
                _: i16,
                flexible: bool,
            ) -> Result<Option<Self>, WireError> {
                reader.$name(flexible)
            }
            fn write_nullable(
                value: Option<&Self>,
                writer: &mut Writer,
                _: i16,
                flexible: bool,
            ) -> Result<(), WireError> {
                writer.$name(flexible, value.map($borrowed))
            }
        }
    )*};
}
length_prefixed_field! { Str, string, Str::as_str, 2; Bytes, bytes, identity, 4; }

impl Field for Records {
    fn bytes_min(version: i16, flexible: bool) -> usize {
        Bytes::bytes_min(version, flexible)
    }
    fn read(reader: &mut Reader, _: i16, flexible: bool) -> Result<Self, WireError> {
        Ok(reader.bytes(flexible)?.map_or(Records::Null, Records::One))
    }
    fn write(&self, writer: &mut Writer, _: i16, flexible: bool) -> Result<(), WireError> {
        let length = if matches!(self, Records::Null) {
            None
        } else {
            Some(self.len())
        };
        writer.length(flexible, length)?;
        for chunk in self.chunks() {
            writer.raw_shared(chunk);
        }
        Ok(())
    }
}

impl<T: Field> Field for Vec<T> {
    fn bytes_min(_: i16, flexible: bool) -> usize {
        length_bytes_min(flexible, 4)
    }
    fn read(reader: &mut Reader, version: i16, flexible: bool) -> Result<Self, WireError> {
        not_null(
            "array",
            version,
            Self::read_nullable(reader, version, flexible)?,
        )
    }
    fn write(&self, writer: &mut Writer, version: i16, flexible: bool) -> Result<(), WireError> {
        Self::write_nullable(Some(self), writer, version, flexible)
    }
}

impl<T: Field> Nullable for Vec<T> {
    fn read_nullable(
        reader: &mut Reader,
        version: i16,
        flexible: bool,
    ) -> Result<Option<Self>, WireError> {
        let Some(count) =
            reader.count(flexible, T::bytes_min(version, flexible), size_of::<T>())?
        else {
            return Ok(None);
        };
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(T::read(reader, version, flexible)?);
        }
        Ok(Some(elements))
    }
    fn write_nullable(
        value: Option<&Self>,
        writer: &mut Writer,
        version: i16,
        flexible: bool,
    ) -> Result<(), WireError> {
        writer.length(flexible, value.map(Vec::len))?;
        value
            .into_iter()
            .flatten()
            .try_for_each(|element| element.write(writer, version, flexible))
    }
}

impl<T: Nullable> Field for Option<T> {
    fn bytes_min(version: i16, flexible: bool) -> usize {
        T::nullable_bytes_min(version, flexible)
    }
    fn read(reader: &mut Reader, version: i16, flexible: bool) -> Result<Self, WireError> {
        T::read_nullable(reader, version, flexible)
    }
    fn write(&self, writer: &mut Writer, version: i16, flexible: bool) -> Result<(), WireError> {
        T::write_nullable(self.as_ref(), writer, version, flexible)
    }
    fn is_null(&self) -> bool {
        self.is_none()
    }
}

fn not_null<T>(field: &'static str, version: i16, value: Option<T>) -> Result<T, WireError> {
    value.ok_or(WireError::UnexpectedNull { field, version })
}
