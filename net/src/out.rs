//! Owns the bytes that wait to be written to one connection: encoded responses, and record bytes by reference.
//! Does not know sockets, nor which requests the responses answer.
//! Invariant: a response that could not be encoded leaves no byte behind.

use crate::wire::frame::SIZE_PREFIX_BYTES;
use crate::wire::{ApiKey, Message, Request, WireError, Writer};
use bytes::BytesMut;
use millrace_engine::api::RecordChunk;

/// Runs of records shorter than this are copied: that is cheaper than one more element of a vectored write.
const CHUNK_BYTES_MIN: usize = 512;

/// A buffer larger than this is not kept for reuse.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// Encoded responses in order.
#[derive(Default)]
pub(crate) struct Out {
    buf: BytesMut,
    /// Record runs, each with the position in `buf` before which it belongs.
    chunks: Vec<(usize, RecordChunk)>,
    chunk_bytes: usize,
}

impl Out {
    pub(crate) fn len(&self) -> usize {
        self.buf.len() + self.chunk_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// Empties it for reuse.
    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
        self.chunk_bytes = 0;
        if self.buf.capacity() > KEPT_BYTES_MAX {
            self.buf = BytesMut::new();
        } else {
            self.buf.clear();
        }
    }

    /// All bytes in order, as pieces for one vectored write; none of them is empty.
    pub(crate) fn pieces(&self) -> Vec<&[u8]> {
        let mut pieces = Vec::with_capacity(self.chunks.len() * 2 + 1);
        let mut from = 0;
        for (position, chunk) in &self.chunks {
            if *position > from {
                pieces.push(&self.buf[from..*position]);
                from = *position;
            }
            pieces.push(chunk.as_ref());
        }
        if from < self.buf.len() {
            pieces.push(&self.buf[from..]);
        }
        pieces
    }

    /// Adds the whole response frame to a request `R`.
    pub(crate) fn respond<R: Request>(
        &mut self,
        correlation_id: i32,
        version: i16,
        response: &R::Response,
    ) -> Result<(), WireError> {
        // The client of ApiVersions does not know yet what the broker understands: its header is never flexible.
        let flexible = version >= R::FLEXIBLE && R::KEY != ApiKey::ApiVersions;
        self.frame(correlation_id, flexible, |body| {
            response.encode(&mut body.writer, version)
        })
    }

    /// Adds a response frame whose body `write` writes.
    pub(crate) fn frame(
        &mut self,
        correlation_id: i32,
        flexible_header: bool,
        write: impl FnOnce(&mut Body<'_>) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        let start = self.buf.len();
        let chunks_before = self.chunks.len();
        let chunk_bytes_before = self.chunk_bytes;
        let mut body = Body {
            writer: Writer::over(std::mem::take(&mut self.buf)),
            chunks: &mut self.chunks,
            chunk_bytes: &mut self.chunk_bytes,
        };
        body.writer.i32(0);
        body.writer.i32(correlation_id);
        if flexible_header {
            body.writer.uvarint(0);
        }
        let written = write(&mut body);
        self.buf = body.writer.into_buffer();
        let size =
            self.buf.len() - start + self.chunk_bytes - chunk_bytes_before - SIZE_PREFIX_BYTES;
        let size = written.and_then(|()| {
            i32::try_from(size).map_err(|_| WireError::TooLong {
                length: size,
                max: i32::MAX as usize,
            })
        });
        match size {
            Ok(size) => {
                self.buf[start..start + SIZE_PREFIX_BYTES].copy_from_slice(&size.to_be_bytes());
                Ok(())
            }
            Err(error) => {
                self.buf.truncate(start);
                self.chunks.truncate(chunks_before);
                self.chunk_bytes = chunk_bytes_before;
                Err(error)
            }
        }
    }
}

/// A response body being written.
pub(crate) struct Body<'a> {
    pub(crate) writer: Writer,
    chunks: &'a mut Vec<(usize, RecordChunk)>,
    chunk_bytes: &'a mut usize,
}

impl Body<'_> {
    /// Record bytes, with their length before them; by reference where they are long.
    pub(crate) fn records(
        &mut self,
        flexible: bool,
        records: Vec<RecordChunk>,
    ) -> Result<(), WireError> {
        let length = records.iter().map(|chunk| chunk.as_ref().len()).sum();
        self.writer.length(flexible, Some(length))?;
        for chunk in records {
            let length = chunk.as_ref().len();
            if length < CHUNK_BYTES_MIN {
                self.writer.raw(chunk.as_ref());
            } else {
                *self.chunk_bytes += length;
                self.chunks.push((self.writer.len(), chunk));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame;
    use crate::wire::metadata::{MetadataRequest, MetadataResponse};
    use bytes::Bytes;

    fn chunk(byte: u8, length: usize) -> RecordChunk {
        RecordChunk::Owned(Bytes::from(vec![byte; length]))
    }

    #[test]
    fn responses_come_out_as_the_wire_codec_reads_them() {
        let mut out = Out::default();
        let mut expected = Vec::new();
        for version in 0..=12 {
            let response = MetadataResponse {
                controller_id: if version > 0 { 7 } else { -1 },
                ..Default::default()
            };
            out.respond::<MetadataRequest>(version.into(), version, &response)
                .unwrap();
            expected.extend(
                frame::encode_response::<MetadataRequest>(version.into(), &response, version)
                    .unwrap(),
            );
        }
        assert_eq!(out.pieces().concat(), expected);
        assert_eq!(out.len(), expected.len());
        out.clear();
        assert!(out.is_empty() && out.pieces().is_empty());
    }

    #[test]
    fn long_runs_are_kept_by_reference_between_their_neighbours() {
        let mut out = Out::default();
        for (first, second) in [(5, 600), (700, 3), (512, 511)] {
            out.frame(1, false, |body| {
                body.records(false, vec![chunk(b'a', first), chunk(b'b', second)])
            })
            .unwrap();
        }
        let mut expected = Vec::new();
        for (first, second) in [(5usize, 600usize), (700, 3), (512, 511)] {
            expected.extend(((first + second + 8) as i32).to_be_bytes());
            expected.extend(1i32.to_be_bytes());
            expected.extend(((first + second) as i32).to_be_bytes());
            expected.extend(vec![b'a'; first]);
            expected.extend(vec![b'b'; second]);
        }
        assert_eq!(out.pieces().concat(), expected);
        assert_eq!(out.chunks.len(), 3);
        assert_eq!(out.len(), expected.len());
    }

    #[test]
    fn a_failed_response_leaves_nothing() {
        let mut out = Out::default();
        out.frame(1, false, |body| body.records(false, vec![chunk(1, 600)]))
            .unwrap();
        let before = out.pieces().concat();
        let failed = out.frame(2, true, |body| {
            body.records(true, vec![chunk(2, 600)])?;
            Err(WireError::UnknownApiKey { key: 99 })
        });
        assert!(failed.is_err());
        assert_eq!(out.pieces().concat(), before);
        assert_eq!(out.len(), before.len());
    }
}
