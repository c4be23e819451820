//! Owns the two values of messages that share the buffer they were read from: strings and records.
//! Does not know how they are laid out on the wire.
//! Keeps: a string is UTF-8 from the moment it exists; records are equal if their bytes are, however cut.
use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

use super::error::WireError;

/// An immutable UTF-8 string that shares the buffer it was read from.
///
/// It keeps that whole buffer alive: copy it (`to_string`) before keeping it beyond the request.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Str(Bytes);

impl Str {
    /// A string that lives forever; allocates nothing.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// Checks that `bytes` is UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Result<Self, WireError> {
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(_) => Err(WireError::InvalidUtf8),
        }
    }

    pub fn as_str(&self) -> &str {
        // SAFETY: every constructor takes valid UTF-8 and `Bytes` is immutable.
        unsafe { std::str::from_utf8_unchecked(&self.0) }
    }

    /// The same bytes, without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl std::hash::Hash for Str {
    // As `str` does, because of `Borrow<str>`.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Deref for Str {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Str {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for Str {
    fn borrow(&self) -> &str {
        self
    }
}

impl From<&'static str> for Str {
    fn from(text: &'static str) -> Self {
        Self::from_static(text)
    }
}

impl From<String> for Str {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl PartialEq<str> for Str {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Str {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// Record batches of one partition as they go on the wire, in one or several chunks that follow each other.
#[derive(Clone)]
pub enum Records {
    Null,
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Records {
    /// Chunks in order; none for null.
    pub fn chunks(&self) -> &[Bytes] {
        match self {
            Self::Null => &[],
            Self::One(bytes) => std::slice::from_ref(bytes),
            Self::Many(chunks) => chunks,
        }
    }

    /// Bytes of all chunks together.
    pub fn len(&self) -> usize {
        self.chunks().iter().map(Bytes::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All chunks as one; copies only if there are several.
    pub fn to_bytes(&self) -> Option<Bytes> {
        match self {
            Self::Null => None,
            Self::One(bytes) => Some(bytes.clone()),
            Self::Many(chunks) => Some(Bytes::from(chunks.concat())),
        }
    }
}

impl Default for Records {
    /// Empty, not null: what brokers answer when there is nothing to read.
    fn default() -> Self {
        Self::One(Bytes::new())
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Self {
        Self::One(bytes)
    }
}

impl From<Vec<Bytes>> for Records {
    fn from(chunks: Vec<Bytes>) -> Self {
        Self::Many(chunks)
    }
}

impl PartialEq for Records {
    /// Equal if the wire bytes are, however they are cut into chunks.
    fn eq(&self, other: &Self) -> bool {
        if matches!(self, Self::Null) != matches!(other, Self::Null) {
            return false;
        }
        self.len() == other.len()
            && self
                .chunks()
                .iter()
                .flatten()
                .eq(other.chunks().iter().flatten())
    }
}

impl Eq for Records {}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Records(null)"),
            Self::One(_) | Self::Many(_) => {
                write!(
                    f,
                    "Records({} bytes in {} chunks)",
                    self.len(),
                    self.chunks().len()
                )
            }
        }
    }
}
