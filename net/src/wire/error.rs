//! Owns the ways in which bytes can fail to be a Kafka message, or a value fail to have bytes.
//! Does not know Kafka's error codes (those travel inside messages) nor what a connection does about a failure.
//! Keeps: the list is closed; nothing is reported as text to be matched.
use thiserror::Error;

/// Why a message could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// Fewer bytes are left than the next field needs.
    #[error("truncated: {needed} bytes needed, {remaining} left")]
    Truncated { needed: usize, remaining: usize },
    /// A length or count below -1, or -1 where null has no meaning.
    #[error("length {length} is negative")]
    NegativeLength { length: i64 },
    /// So many elements cannot fit into the bytes that are left.
    #[error("{count} elements claimed with {remaining} bytes left")]
    CountTooLarge { count: usize, remaining: usize },
    /// Decoded form would need more memory than the input may ask for.
    #[error("decoding needs {needed} more bytes of memory, {allowed} are allowed")]
    MemoryLimit { needed: usize, allowed: usize },
    /// A variable-length integer does not end or does not fit its type.
    #[error("variable-length integer does not fit {bits} bits")]
    VarintOverflow { bits: u32 },
    /// A string is not UTF-8.
    #[error("string is not valid UTF-8")]
    InvalidUtf8,
    /// Null where this version of the message forbids it.
    #[error("{field} is null, which version {version} forbids")]
    UnexpectedNull { field: &'static str, version: i16 },
    /// The nullable-struct marker is neither absent nor present.
    #[error("marker {marker} of a nullable struct")]
    InvalidMarker { marker: i8 },
    /// A tagged field ends before or after the size it declared.
    #[error("tagged field {tag} leaves {unread} bytes unread")]
    TaggedFieldSize { tag: u32, unread: usize },
    /// Bytes are left after a complete message.
    #[error("{unread} bytes after the end of the message")]
    TrailingBytes { unread: usize },
    /// The codec has no such version of this message.
    #[error("{message} has no version {version}")]
    UnsupportedVersion { message: &'static str, version: i16 },
    /// The API key is not one the codec knows.
    #[error("unknown api key {key}")]
    UnknownApiKey { key: i16 },
    /// A field that matters has a value but this version cannot carry it.
    #[error("version {version} of {message} cannot carry {field}")]
    FieldNotInVersion {
        message: &'static str,
        field: &'static str,
        version: i16,
    },
    /// A value is longer than its length field can say.
    #[error("{length} exceeds the largest length {max}")]
    TooLong { length: usize, max: usize },
    /// The size prefix of a frame is negative.
    #[error("frame size {size} is negative")]
    FrameNegative { size: i32 },
    /// The size prefix of a frame exceeds the configured cap.
    #[error("frame of {size} bytes exceeds the limit of {max}")]
    FrameTooLarge { size: usize, max: usize },
    /// A reply carries another correlation id than the request.
    #[error("correlation id {got}, expected {expected}")]
    CorrelationMismatch { expected: i32, got: i32 },
}
