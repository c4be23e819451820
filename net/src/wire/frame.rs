//! Owns what surrounds every message: the size prefix, request and response headers.
//! Does not know sockets; it works on bytes that have arrived and yields bytes to send.
//! Keeps: a size is checked against the cap before anything is reserved for it, and a whole frame is in hand before
//! it is decoded.
use bytes::{Buf, Bytes, BytesMut};

use super::error::WireError;
use super::primitives::{Reader, Writer};
use super::schema::{Message, Request};
use super::values::Str;
use super::versions::{self, ApiKey, Served};

/// Bytes of the size prefix.
pub const SIZE_PREFIX_BYTES: usize = 4;

/// Size of the frame that starts at `buf`, without its prefix; `None` while the prefix is incomplete.
///
/// Lets a connection ask for memory before it reads the body.
pub fn peek_size(buf: &[u8], size_max: usize) -> Result<Option<usize>, WireError> {
    let Some(prefix) = buf.first_chunk::<SIZE_PREFIX_BYTES>() else {
        return Ok(None);
    };
    let size = i32::from_be_bytes(*prefix);
    match usize::try_from(size) {
        Err(_) => Err(WireError::FrameNegative { size }),
        Ok(size) if size > size_max => Err(WireError::FrameTooLarge {
            size,
            max: size_max,
        }),
        Ok(size) => Ok(Some(size)),
    }
}

/// Takes one whole frame, without its prefix, off the front of `buf`; `None` while it is incomplete.
pub fn take_frame(buf: &mut BytesMut, size_max: usize) -> Result<Option<Bytes>, WireError> {
    let Some(size) = peek_size(buf, size_max)? else {
        return Ok(None);
    };
    if buf.len() - SIZE_PREFIX_BYTES < size {
        return Ok(None);
    }
    buf.advance(SIZE_PREFIX_BYTES);
    Ok(Some(buf.split_to(size).freeze()))
}

/// What precedes the body of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    pub key: ApiKey,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<Str>,
}

impl RequestHeader {
    /// Reads the header at the front of a frame and says which row of the table it asks for.
    ///
    /// The version is *not* checked: an ApiVersions request of any version deserves an answer. Keys that are not in
    /// the table cannot be read, because the form of their header is unknown.
    pub fn decode(reader: &mut Reader) -> Result<(Self, &'static Served), WireError> {
        let key = reader.i16()?;
        let version = reader.i16()?;
        let served = versions::served(key).ok_or(WireError::UnknownApiKey { key })?;
        let correlation_id = reader.i32()?;
        // The client id kept its two-byte length in the flexible header, so that version 1 could be parsed by all.
        let client_id = reader.string(false)?;
        if version >= served.first_flexible {
            reader.tagged_fields(|_, _| Ok(false))?;
        }
        Ok((
            Self {
                key: served.key,
                version,
                correlation_id,
                client_id,
            },
            served,
        ))
    }

    /// Writes the header as a request whose first flexible version is `first_flexible` needs it.
    pub fn encode(&self, writer: &mut Writer, first_flexible: i16) -> Result<(), WireError> {
        writer.i16(self.key.code());
        writer.i16(self.version);
        writer.i32(self.correlation_id);
        writer.string(false, self.client_id.as_deref())?;
        if self.version >= first_flexible {
            writer.uvarint(0);
        }
        Ok(())
    }
}

/// Whether the response header of `R` in `version` ends with tagged fields (header version 1).
///
/// Never for ApiVersions: its client does not know yet which versions the broker understands.
fn response_header_is_flexible<R: Request>(version: i16) -> bool {
    version >= R::FLEXIBLE && R::KEY != ApiKey::ApiVersions
}

/// A whole request frame, size prefix included, as pieces that refer to record bytes.
pub fn encode_request_pieces<R: Request>(
    correlation_id: i32,
    client_id: Option<Str>,
    request: &R,
    version: i16,
) -> Result<Vec<Bytes>, WireError> {
    Ok(request_frame(
        Writer::sharing(),
        correlation_id,
        client_id,
        request,
        version,
    )?
    .into_pieces())
}

/// A whole request frame, size prefix included, in one buffer.
pub fn encode_request<R: Request>(
    correlation_id: i32,
    client_id: Option<Str>,
    request: &R,
    version: i16,
) -> Result<Bytes, WireError> {
    Ok(request_frame(Writer::new(), correlation_id, client_id, request, version)?.into_bytes())
}

fn request_frame<R: Request>(
    mut writer: Writer,
    correlation_id: i32,
    client_id: Option<Str>,
    request: &R,
    version: i16,
) -> Result<Writer, WireError> {
    writer.i32(0);
    RequestHeader {
        key: R::KEY,
        version,
        correlation_id,
        client_id,
    }
    .encode(&mut writer, R::FLEXIBLE)?;
    request.encode(&mut writer, version)?;
    close(writer)
}

/// A whole response frame to a request `R`, size prefix included, as pieces that refer to record bytes.
pub fn encode_response_pieces<R: Request>(
    correlation_id: i32,
    response: &R::Response,
    version: i16,
) -> Result<Vec<Bytes>, WireError> {
    Ok(response_frame::<R>(Writer::sharing(), correlation_id, response, version)?.into_pieces())
}

/// A whole response frame to a request `R`, size prefix included, in one buffer.
pub fn encode_response<R: Request>(
    correlation_id: i32,
    response: &R::Response,
    version: i16,
) -> Result<Bytes, WireError> {
    Ok(response_frame::<R>(Writer::new(), correlation_id, response, version)?.into_bytes())
}

fn response_frame<R: Request>(
    mut writer: Writer,
    correlation_id: i32,
    response: &R::Response,
    version: i16,
) -> Result<Writer, WireError> {
    writer.i32(0);
    writer.i32(correlation_id);
    if response_header_is_flexible::<R>(version) {
        writer.uvarint(0);
    }
    response.encode(&mut writer, version)?;
    close(writer)
}

/// Fills in the size prefix.
fn close(mut writer: Writer) -> Result<Writer, WireError> {
    let size = writer.len() - SIZE_PREFIX_BYTES;
    let max = i32::MAX as usize;
    match i32::try_from(size) {
        Ok(size) => writer.patch_front(size),
        Err(_) => return Err(WireError::TooLong { length: size, max }),
    }
    Ok(writer)
}

/// Reads the response header of a frame (prefix taken off) and returns the correlation id.
pub fn decode_response_header<R: Request>(
    reader: &mut Reader,
    version: i16,
) -> Result<i32, WireError> {
    let correlation_id = reader.i32()?;
    if response_header_is_flexible::<R>(version) {
        reader.tagged_fields(|_, _| Ok(false))?;
    }
    Ok(correlation_id)
}

/// Reads a whole response frame (prefix taken off) to the request `R` that was sent as `correlation_id`.
pub fn decode_response<R: Request>(
    frame: Bytes,
    correlation_id: i32,
    version: i16,
) -> Result<R::Response, WireError> {
    let mut reader = Reader::new(frame);
    let got = decode_response_header::<R>(&mut reader, version)?;
    if got != correlation_id {
        return Err(WireError::CorrelationMismatch {
            expected: correlation_id,
            got,
        });
    }
    let response = R::Response::decode(&mut reader, version)?;
    reader.finish()?;
    Ok(response)
}
