//! Owns the compression of a batch's records, both ways, in the framings that clients use.
//! Does not know records or batches.
//! Keeps: no output larger than the caller allows is ever held.
use std::io::{self, Read, Write};

use thiserror::Error;

/// What compresses the records of a batch: bits 0 to 2 of its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Compression {
    #[default]
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

/// Why bytes could not be compressed or decompressed.
#[derive(Debug, Error)]
pub enum CompressError {
    #[error("compression {code} does not exist")]
    Unknown { code: u8 },
    #[error("output exceeds {max} bytes")]
    TooLarge { max: usize },
    #[error("{compression:?} data is damaged")]
    Damaged {
        compression: Compression,
        source: io::Error,
    },
    #[error("{compression:?} refuses to compress")]
    Compress {
        compression: Compression,
        source: io::Error,
    },
}

/// Start of the framing in which Java clients write snappy; others write one raw block.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Magic, version and the oldest compatible version.
const XERIAL_HEADER_BYTES: usize = 16;
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// Snappy's densest element yields 64 bytes from 3. A longer claim is a lie and gets no memory.
const SNAPPY_RATIO_MAX: usize = 22;
/// The level Kafka uses if none is configured.
const ZSTD_LEVEL: i32 = 3;

impl Compression {
    pub const ALL: [Compression; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// From bits 0 to 2 of a batch's attributes.
    pub fn from_attributes(attributes: i16) -> Result<Self, CompressError> {
        match (attributes & 7) as u8 {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            code => Err(CompressError::Unknown { code }),
        }
    }

    /// As named in configurations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|compression| compression.name() == name)
    }

    /// Compresses all of `input`.
    pub fn compress(self, input: &[u8]) -> Result<Vec<u8>, CompressError> {
        let compressed = match self {
            Self::None => Ok(input.to_vec()),
            Self::Gzip => gzip(input),
            Self::Snappy => xerial(input),
            Self::Lz4 => lz4(input),
            Self::Zstd => zstd::bulk::compress(input, ZSTD_LEVEL),
        };
        compressed.map_err(|source| CompressError::Compress {
            compression: self,
            source,
        })
    }

    /// Decompresses all of `input` into at most `output_bytes_max`.
    pub fn decompress(
        self,
        input: &[u8],
        output_bytes_max: usize,
    ) -> Result<Vec<u8>, CompressError> {
        let damaged = |source| CompressError::Damaged {
            compression: self,
            source,
        };
        match self {
            Self::None if input.len() > output_bytes_max => Err(CompressError::TooLarge {
                max: output_bytes_max,
            }),
            Self::None => Ok(input.to_vec()),
            Self::Gzip => self.drain(flate2::read::MultiGzDecoder::new(input), output_bytes_max),
            Self::Snappy => unsnappy(input, output_bytes_max),
            Self::Lz4 => self.drain(lz4_flex::frame::FrameDecoder::new(input), output_bytes_max),
            Self::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(damaged)?;
                self.drain(decoder, output_bytes_max)
            }
        }
    }

    fn drain(self, decoder: impl Read, max: usize) -> Result<Vec<u8>, CompressError> {
        let mut output = Vec::new();
        // One byte more than allowed tells "just fits" from "does not".
        decoder
            .take(max as u64 + 1)
            .read_to_end(&mut output)
            .map_err(|source| CompressError::Damaged {
                compression: self,
                source,
            })?;
        if output.len() > max {
            return Err(CompressError::TooLarge { max });
        }
        Ok(output)
    }
}

fn gzip(input: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(input)?;
    encoder.finish()
}

fn lz4(input: &[u8]) -> io::Result<Vec<u8>> {
    // Independent blocks, which is the default, are the only ones Java clients read.
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(input)?;
    encoder.finish().map_err(io::Error::other)
}

fn xerial(input: &[u8]) -> io::Result<Vec<u8>> {
    let mut output = Vec::with_capacity(XERIAL_HEADER_BYTES + input.len() / 2);
    output.extend_from_slice(&XERIAL_MAGIC);
    output.extend_from_slice(&1i32.to_be_bytes());
    output.extend_from_slice(&1i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(XERIAL_BLOCK_BYTES) {
        let block = encoder.compress_vec(block).map_err(io::Error::other)?;
        output.extend_from_slice(&(block.len() as u32).to_be_bytes());
        output.extend_from_slice(&block);
    }
    Ok(output)
}

fn unsnappy(input: &[u8], max: usize) -> Result<Vec<u8>, CompressError> {
    let mut output = Vec::new();
    if !input.starts_with(&XERIAL_MAGIC) {
        unsnappy_block(input, max, &mut output)?;
        return Ok(output);
    }
    let mut rest = input
        .get(XERIAL_HEADER_BYTES..)
        .ok_or_else(snappy_ends_early)?;
    while !rest.is_empty() {
        let (size, after) = rest
            .split_first_chunk::<4>()
            .ok_or_else(snappy_ends_early)?;
        let size = u32::from_be_bytes(*size) as usize;
        let block = after.get(..size).ok_or_else(snappy_ends_early)?;
        unsnappy_block(block, max, &mut output)?;
        rest = &after[size..];
    }
    Ok(output)
}

fn unsnappy_block(block: &[u8], max: usize, output: &mut Vec<u8>) -> Result<(), CompressError> {
    let damaged = |source| CompressError::Damaged {
        compression: Compression::Snappy,
        source: io::Error::other(source),
    };
    let claimed = snap::raw::decompress_len(block).map_err(damaged)?;
    if claimed > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(snappy_ends_early());
    }
    let start = output.len();
    if claimed > max.saturating_sub(start) {
        return Err(CompressError::TooLarge { max });
    }
    output.resize(start + claimed, 0);
    let written = snap::raw::Decoder::new()
        .decompress(block, &mut output[start..])
        .map_err(damaged)?;
    output.truncate(start + written);
    Ok(())
}

fn snappy_ends_early() -> CompressError {
    CompressError::Damaged {
        compression: Compression::Snappy,
        source: io::ErrorKind::UnexpectedEof.into(),
    }
}
