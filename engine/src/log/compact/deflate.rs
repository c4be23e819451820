//! Owns compressing the records of a batch again, in the codec they had and the framing that clients use.
//! Does not know records. Invariant: what it holds is the compressed bytes and one step of what goes in.

use crate::types::batch::Codec;
use std::io::{self, Write};

/// What Java clients put in front of snappy blocks: magic, version, oldest compatible version.
const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const XERIAL_BLOCK_BYTES: usize = 32 << 10;
/// Kafka's default.
const ZSTD_LEVEL: i32 = 3;

pub enum Deflate {
    None(Vec<u8>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Snappy { out: Vec<u8>, block: Vec<u8> },
    Lz4(Box<lz4_flex::frame::FrameEncoder<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Deflate {
    pub fn new(codec: Codec) -> io::Result<Deflate> {
        let out = Vec::new();
        Ok(match codec {
            Codec::None => Deflate::None(out),
            Codec::Gzip => Deflate::Gzip(flate2::write::GzEncoder::new(out, Default::default())),
            Codec::Snappy => Deflate::Snappy {
                out: XERIAL_HEADER.to_vec(),
                block: Vec::new(),
            },
            Codec::Lz4 => Deflate::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(out))),
            Codec::Zstd => Deflate::Zstd(zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?),
        })
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Deflate::None(out) => {
                out.extend_from_slice(bytes);
                Ok(())
            }
            Deflate::Gzip(encoder) => encoder.write_all(bytes),
            Deflate::Snappy { out, block } => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let part = rest.len().min(XERIAL_BLOCK_BYTES - block.len());
                    block.extend_from_slice(&rest[..part]);
                    rest = &rest[part..];
                    if block.len() == XERIAL_BLOCK_BYTES {
                        put_block(out, block)?;
                    }
                }
                Ok(())
            }
            Deflate::Lz4(encoder) => encoder.write_all(bytes),
            Deflate::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    /// All that was written, compressed.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Deflate::None(out) => Ok(out),
            Deflate::Gzip(encoder) => encoder.finish(),
            Deflate::Snappy { mut out, mut block } => {
                if !block.is_empty() {
                    put_block(&mut out, &mut block)?;
                }
                Ok(out)
            }
            Deflate::Lz4(encoder) => encoder.finish().map_err(io::Error::other),
            Deflate::Zstd(encoder) => encoder.finish(),
        }
    }
}

fn put_block(out: &mut Vec<u8>, block: &mut Vec<u8>) -> io::Result<()> {
    let compressed = snap::raw::Encoder::new()
        .compress_vec(block)
        .map_err(io::Error::other)?;
    out.extend((compressed.len() as u32).to_be_bytes());
    out.extend(compressed);
    block.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::inflate::inflate;
    use std::io::Read;

    #[test]
    fn every_codec_comes_back_as_it_went_in() {
        let all = [
            Codec::None,
            Codec::Gzip,
            Codec::Snappy,
            Codec::Lz4,
            Codec::Zstd,
        ];
        for codec in all {
            for bytes in [0, 1, 1_000, XERIAL_BLOCK_BYTES, 3 * XERIAL_BLOCK_BYTES + 5] {
                let data: Vec<u8> = (0..bytes).map(|n| (n / 7 % 251) as u8).collect();
                let mut deflate = Deflate::new(codec).unwrap();
                data.chunks(777)
                    .for_each(|part| deflate.write(part).unwrap());
                let body = deflate.finish().unwrap();
                let mut back = Vec::new();
                inflate(codec, &body)
                    .unwrap()
                    .read_to_end(&mut back)
                    .unwrap();
                assert!(back == data, "{codec:?}, {bytes} bytes");
            }
        }
    }
}
