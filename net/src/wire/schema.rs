//! Owns the small language in which the messages are declared, and its translation into both directions of a codec.
//! Does not know any particular message.
//! Keeps: reading and writing come from one declaration, so they cannot disagree about field order or versions.
use super::error::WireError;
use super::primitives::{Reader, Writer};
use super::versions::ApiKey;

/// A whole request or response body.
pub trait Message: Sized {
    const NAME: &'static str;
    /// Lowest and highest version the codec knows.
    const VERSIONS: (i16, i16);
    /// First version with compact lengths and tagged fields.
    const FLEXIBLE: i16;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, WireError>;
    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), WireError>;
}

/// A request body, tied to its API key and its response.
pub trait Request: Message {
    const KEY: ApiKey;
    type Response: Message;
}

/// A value inside a message.
pub(crate) trait Field: Sized {
    /// Fewest bytes such a value takes on the wire.
    fn bytes_min(version: i16, flexible: bool) -> usize;
    fn read(reader: &mut Reader, version: i16, flexible: bool) -> Result<Self, WireError>;
    fn write(&self, writer: &mut Writer, version: i16, flexible: bool) -> Result<(), WireError>;
    fn is_null(&self) -> bool {
        false
    }
}

/// A value that has a form for null.
pub(crate) trait Nullable: Field {
    fn read_nullable(
        reader: &mut Reader,
        version: i16,
        flexible: bool,
    ) -> Result<Option<Self>, WireError>;
    fn write_nullable(
        value: Option<&Self>,
        writer: &mut Writer,
        version: i16,
        flexible: bool,
    ) -> Result<(), WireError>;
    fn nullable_bytes_min(version: i16, flexible: bool) -> usize {
        Self::bytes_min(version, flexible)
    }
}

/// A nullable struct is preceded by a byte: -1 for null, anything else for a struct that follows.
pub(crate) fn read_nullable_struct<T: Message>(
    reader: &mut Reader,
    version: i16,
) -> Result<Option<T>, WireError> {
    match reader.i8()? {
        -1 => Ok(None),
        1 => T::decode(reader, version).map(Some),
        marker => Err(WireError::InvalidMarker { marker }),
    }
}

pub(crate) fn write_nullable_struct<T: Message>(
    value: Option<&T>,
    writer: &mut Writer,
    version: i16,
) -> Result<(), WireError> {
    match value {
        None => {
            writer.i8(-1);
            Ok(())
        }
        Some(value) => {
            writer.i8(1);
            value.encode(writer, version)
        }
    }
}

/// Collects the tagged fields of a struct that have something to say, then writes them.
#[derive(Default)]
pub(crate) struct TaggedFields {
    count: u32,
    body: Writer,
}

impl TaggedFields {
    /// Tags come in ascending order.
    pub(crate) fn add(
        &mut self,
        tag: u32,
        version: i16,
        value: &impl Field,
    ) -> Result<(), WireError> {
        let mut field = Writer::new();
        value.write(&mut field, version, true)?;
        let max = i32::MAX as usize;
        if field.len() > max {
            return Err(WireError::TooLong {
                length: field.len(),
                max,
            });
        }
        self.count += 1;
        self.body.uvarint(tag);
        self.body.uvarint(field.len() as u32);
        self.body.raw(&field.into_bytes());
        Ok(())
    }

    pub(crate) fn write(self, writer: &mut Writer) {
        writer.uvarint(self.count);
        writer.raw(&self.body.into_bytes());
    }
}

/// Declares a struct of the protocol.
///
/// ```text
/// wire_struct! {
///     pub struct Name, versions 0..=7, flexible 5 {
///         field: Type => 1..=4 null 2.. else drop = default;
///     } tagged {
///         0: field: Type => 5.. = default;
///     }
/// }
/// ```
/// `=> 1..=4` are the versions that carry the field; `null` those in which an `Option` may be null (all, if not
/// said); `else drop` lets other versions leave the value out silently, without it they refuse to encode a value
/// that is not the default; `= default` is the value if absent (`Default`, if not said).
macro_rules! wire_struct {
    (
        $(#[$meta:meta])*
        pub struct $name:ident, versions $vlo:literal ..= $vhi:literal, flexible $flex:literal {
            $(
                $(#[$fmeta:meta])*
                $field:ident : $ty:ty => $lo:literal $dots:tt $($hi:literal)?
                $(null $nlo:literal $ndots:tt $($nhi:literal)?)? $(else $mode:ident)? $(= $default:expr)?;
            )*
        }
        $(tagged {
            $(
                $(#[$tmeta:meta])*
                $tag:literal : $tfield:ident : $tty:ty => $tlo:literal $tdots:tt $($thi:literal)?
                $(= $tdefault:expr)?;
            )*
        })?
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $( $(#[$fmeta])* pub $field: $ty, )*
            $($( $(#[$tmeta])* pub $tfield: $tty, )*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $( $field: $crate::wire::schema::wire_struct!(@default $($default)?), )*
                    $($( $tfield: $crate::wire::schema::wire_struct!(@default $($tdefault)?), )*)?
                }
            }
        }

        impl $crate::wire::schema::Message for $name {
            const NAME: &'static str = stringify!($name);
            const VERSIONS: (i16, i16) = ($vlo, $vhi);
            const FLEXIBLE: i16 = $flex;

            fn decode(
                reader: &mut $crate::wire::primitives::Reader,
                version: i16,
            ) -> Result<Self, $crate::wire::error::WireError> {
                $crate::wire::schema::check_version::<Self>(version)?;
                let flexible = version >= $flex;
                let mut value = Self::default();
                $(
                    if ($lo $dots $($hi)?).contains(&version) {
                        value.$field = $crate::wire::schema::Field::read(reader, version, flexible)?;
                        $(
                            if !($nlo $ndots $($nhi)?).contains(&version) {
                                $crate::wire::schema::check_not_null(&value.$field, stringify!($field), version)?;
                            }
                        )?
                    }
                )*
                if flexible {
                    reader.tagged_fields(|tag, _field| match tag {
                        $($(
                            $tag if ($tlo $tdots $($thi)?).contains(&version) => {
                                value.$tfield = $crate::wire::schema::Field::read(_field, version, true)?;
                                Ok(true)
                            }
                        )*)?
                        _ => Ok(false),
                    })?;
                }
                Ok(value)
            }

            fn encode(
                &self,
                writer: &mut $crate::wire::primitives::Writer,
                version: i16,
            ) -> Result<(), $crate::wire::error::WireError> {
                $crate::wire::schema::check_version::<Self>(version)?;
                let flexible = version >= $flex;
                $(
                    if ($lo $dots $($hi)?).contains(&version) {
                        $(
                            if !($nlo $ndots $($nhi)?).contains(&version) {
                                $crate::wire::schema::check_not_null(&self.$field, stringify!($field), version)?;
                            }
                        )?
                        $crate::wire::schema::Field::write(&self.$field, writer, version, flexible)?;
                    } else {
                        $crate::wire::schema::wire_struct!(
                            @absent $($mode)?, Self, self.$field, stringify!($field), version, ($($default)?)
                        );
                    }
                )*
                if flexible {
                    #[allow(unused_mut)]
                    let mut tagged = $crate::wire::schema::TaggedFields::default();
                    $($(
                        let absent: $tty = $crate::wire::schema::wire_struct!(@default $($tdefault)?);
                        if ($tlo $tdots $($thi)?).contains(&version) && self.$tfield != absent {
                            tagged.add($tag, version, &self.$tfield)?;
                        }
                    )*)?
                    tagged.write(writer);
                }
                Ok(())
            }
        }

        impl $crate::wire::schema::Field for $name {
            fn bytes_min(version: i16, flexible: bool) -> usize {
                let mut bytes = usize::from(flexible);
                $(
                    if ($lo $dots $($hi)?).contains(&version) {
                        bytes += <$ty as $crate::wire::schema::Field>::bytes_min(version, flexible);
                    }
                )*
                bytes
            }
            fn read(
                reader: &mut $crate::wire::primitives::Reader,
                version: i16,
                _: bool,
            ) -> Result<Self, $crate::wire::error::WireError> {
                <Self as $crate::wire::schema::Message>::decode(reader, version)
            }
            fn write(
                &self,
                writer: &mut $crate::wire::primitives::Writer,
                version: i16,
                _: bool,
            ) -> Result<(), $crate::wire::error::WireError> {
                <Self as $crate::wire::schema::Message>::encode(self, writer, version)
            }
        }

        impl $crate::wire::schema::Nullable for $name {
            fn read_nullable(
                reader: &mut $crate::wire::primitives::Reader,
                version: i16,
                _: bool,
            ) -> Result<Option<Self>, $crate::wire::error::WireError> {
                $crate::wire::schema::read_nullable_struct(reader, version)
            }
            fn write_nullable(
                value: Option<&Self>,
                writer: &mut $crate::wire::primitives::Writer,
                version: i16,
                _: bool,
            ) -> Result<(), $crate::wire::error::WireError> {
                $crate::wire::schema::write_nullable_struct(value, writer, version)
            }
            fn nullable_bytes_min(_: i16, _: bool) -> usize {
                1
            }
        }
    };
    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
    (@absent drop, $message:ty, $value:expr, $field:expr, $version:expr, ($($default:expr)?)) => {};
    (@absent , $message:ty, $value:expr, $field:expr, $version:expr, ($($default:expr)?)) => {
        $crate::wire::schema::check_absent::<$message, _>(
            &$value,
            &$crate::wire::schema::wire_struct!(@default $($default)?),
            $field,
            $version,
        )?;
    };
}
pub(crate) use wire_struct;

/// Ties a request to its key and response.
macro_rules! wire_api {
    ($key:ident, $request:ident, $response:ident) => {
        impl $crate::wire::schema::Request for $request {
            const KEY: $crate::wire::versions::ApiKey = $crate::wire::versions::ApiKey::$key;
            type Response = $response;
        }
    };
}
pub(crate) use wire_api;

pub(crate) fn check_version<M: Message>(version: i16) -> Result<(), WireError> {
    if (M::VERSIONS.0..=M::VERSIONS.1).contains(&version) {
        return Ok(());
    }
    Err(WireError::UnsupportedVersion {
        message: M::NAME,
        version,
    })
}

pub(crate) fn check_not_null(
    value: &impl Field,
    field: &'static str,
    version: i16,
) -> Result<(), WireError> {
    if value.is_null() {
        return Err(WireError::UnexpectedNull { field, version });
    }
    Ok(())
}

pub(crate) fn check_absent<M: Message, T: PartialEq>(
    value: &T,
    default: &T,
    field: &'static str,
    version: i16,
) -> Result<(), WireError> {
    if value != default {
        return Err(WireError::FieldNotInVersion {
            message: M::NAME,
            field,
            version,
        });
    }
    Ok(())
}
