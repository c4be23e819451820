//! Owns reading the records of a batch as a stream, inflated where they are compressed.
//! Does not know what a record is, nor where the batch came from.
//! Invariant: however far a batch inflates, what is held of it is bounded, and so is what one read makes.

use crate::types::batch::Codec;
use crate::types::limits::{INFLATE_STEP_BYTES, INFLATE_WINDOW_BYTES_MAX};
use std::io::{self, BufRead, BufReader, Read};

/// First bytes of the framing that Java clients put around snappy blocks.
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;
/// What a snappy block is inflated by at a time.
const SNAPPY_PART_BYTES: usize = 32 << 10;
/// How far back a copy in a snappy block may refer. Most encoders stay within 64 KiB; some of Go look at a whole batch.
const SNAPPY_WINDOW_BYTES: usize = 2 << 20;

/// The records of `body`. One read inflates `INFLATE_STEP_BYTES`, or a block of lz4, which has up to 4 MiB.
pub fn inflate<'a>(codec: Codec, body: &'a [u8]) -> io::Result<Box<dyn BufRead + 'a>> {
    Ok(match codec {
        Codec::None => Box::new(body),
        Codec::Gzip => steps(flate2::bufread::MultiGzDecoder::new(body)),
        Codec::Lz4 => steps(lz4_flex::frame::FrameDecoder::new(body)),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body)?;
            // Its decoder keeps the whole window, up to 128 MiB if it were not for this.
            decoder.window_log_max(INFLATE_WINDOW_BYTES_MAX.ilog2())?;
            steps(decoder)
        }
        Codec::Snappy => steps(Snappy::new(body)),
    })
}

fn steps<'a>(records: impl Read + 'a) -> Box<dyn BufRead + 'a> {
    Box::new(BufReader::with_capacity(INFLATE_STEP_BYTES, records))
}

/// Raw snappy, or Java's framing of it: after 16 bytes, blocks behind their big-endian length. The library inflates
/// a block in one go, and a raw one may be all of the batch: this goes through it part by part.
struct Snappy<'a> {
    /// Of the block that has begun.
    block: &'a [u8],
    /// Framed blocks behind it.
    rest: &'a [u8],
    framed: bool,
    /// What the block has yet to become, by what it says itself.
    left: u64,
    /// Of a literal that has begun.
    literal: usize,
    /// What was made of the block last, for copies to refer to.
    window: Vec<u8>,
    /// So much of the window has been read.
    taken: usize,
}

impl<'a> Snappy<'a> {
    fn new(body: &'a [u8]) -> Snappy<'a> {
        let framed = body.starts_with(XERIAL_MAGIC) && body.len() >= XERIAL_HEADER_BYTES;
        Snappy {
            block: &[],
            rest: if framed {
                &body[XERIAL_HEADER_BYTES..]
            } else {
                body
            },
            framed,
            left: 0,
            literal: 0,
            window: Vec::new(),
            taken: 0,
        }
    }

    /// False where there is no other block.
    fn next_block(&mut self) -> io::Result<bool> {
        if self.rest.is_empty() {
            return Ok(false);
        }
        self.block = std::mem::take(&mut self.rest);
        if self.framed {
            let (length, after) = self.block.split_first_chunk::<4>().ok_or_else(cut)?;
            let length = u32::from_be_bytes(*length) as usize;
            (self.block, self.rest) = after.split_at_checked(length).ok_or_else(cut)?;
        }
        self.left = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            self.left |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                self.window.clear();
                self.taken = 0;
                return Ok(true);
            }
        }
        Err(bad("snappy block with a length that never ends"))
    }

    /// Makes another part; nothing at the end.
    fn make(&mut self) -> io::Result<()> {
        let keep = SNAPPY_WINDOW_BYTES;
        if self.window.len() >= 2 * keep {
            let drop = self.window.len() - keep;
            self.window.copy_within(drop.., 0);
            self.window.truncate(keep);
            self.taken -= drop;
        }
        let mut begun = self.window.len();
        while self.window.len() < begun + SNAPPY_PART_BYTES {
            if self.literal > 0 {
                self.put_literal()?;
            } else if self.left > 0 {
                self.element()?;
            } else if !self.block.is_empty() {
                return Err(bad("snappy block is longer than it says"));
            } else if self.taken < self.window.len() || !self.next_block()? {
                // The next block begins with an empty window, so this one has to be read first.
                return Ok(());
            } else {
                begun = 0;
            }
        }
        Ok(())
    }

    fn put_literal(&mut self) -> io::Result<()> {
        let count = self.literal.min(SNAPPY_PART_BYTES);
        let (bytes, rest) = self.block.split_at_checked(count).ok_or_else(cut)?;
        self.window.extend_from_slice(bytes);
        self.block = rest;
        self.literal -= count;
        Ok(())
    }

    /// A literal's beginning, or a copy of what was made before.
    fn element(&mut self) -> io::Result<()> {
        let tag = self.byte()?;
        let high = usize::from(tag >> 2);
        let (length, offset) = match tag & 3 {
            0 => {
                let more = high.saturating_sub(59).min(4);
                let length = if more == 0 { high } else { self.number(more)? };
                self.literal = length + 1;
                self.promise(self.literal)?;
                return Ok(());
            }
            1 => (4 + (high & 7), usize::from(tag >> 5) << 8 | self.number(1)?),
            2 => (high + 1, self.number(2)?),
            _ => (high + 1, self.number(4)?),
        };
        self.promise(length)?;
        let from = self.window.len().checked_sub(offset);
        let Some(from) = from.filter(|_| offset > 0) else {
            return Err(bad("snappy copy from further back than is remembered"));
        };
        if offset >= length {
            self.window.extend_from_within(from..from + length);
        } else {
            for at in from..from + length {
                self.window.push(self.window[at]);
            }
        }
        Ok(())
    }

    fn promise(&mut self, length: usize) -> io::Result<()> {
        let left = self.left.checked_sub(length as u64);
        self.left = left.ok_or_else(|| bad("snappy block becomes more than it says"))?;
        Ok(())
    }

    fn byte(&mut self) -> io::Result<u8> {
        let (byte, rest) = self.block.split_first().ok_or_else(cut)?;
        self.block = rest;
        Ok(*byte)
    }

    /// A little-endian number of up to four bytes.
    fn number(&mut self, bytes: usize) -> io::Result<usize> {
        let (number, rest) = self.block.split_at_checked(bytes).ok_or_else(cut)?;
        self.block = rest;
        let bytes = number.iter().rev();
        Ok(bytes.fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }
}

impl Read for Snappy<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.window.len() {
            self.make()?;
        }
        let read = (&self.window[self.taken..]).read(out)?;
        self.taken += read;
        Ok(read)
    }
}

fn cut() -> io::Error {
    bad("snappy block is cut short")
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(data: &[u8]) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(data).unwrap()
    }

    fn inflated(body: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        inflate(Codec::Snappy, body)?.read_to_end(&mut out)?;
        Ok(out)
    }

    /// Runs, repetitions near and far, and noise.
    fn mixed(bytes: usize) -> Vec<u8> {
        let mut state = 7u64;
        let mut out = Vec::new();
        while out.len() < bytes {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            let count = (state >> 40) as usize % 300 + 1;
            match state >> 62 {
                0 => out.extend(std::iter::repeat_n(state as u8, count)),
                1 if out.len() > count => {
                    let from = (state >> 20) as usize % (out.len() - count);
                    out.extend_from_within(from..from + count);
                }
                _ => out.extend((0..count).map(|n| (state >> (n % 57)) as u8)),
            }
        }
        out.truncate(bytes);
        out
    }

    #[test]
    fn what_the_library_compresses_is_inflated_to_the_same() {
        for bytes in [0, 1, 59, 60, 61, 300, 70_000, 3 * SNAPPY_WINDOW_BYTES + 5] {
            let data = mixed(bytes);
            assert_eq!(inflated(&raw(&data)).unwrap(), data, "{bytes} bytes");
        }
    }

    #[test]
    fn framed_blocks_follow_each_other() {
        let data = mixed(200_000);
        let mut body = XERIAL_MAGIC.to_vec();
        body.extend([0, 0, 0, 1, 0, 0, 0, 1]);
        for block in data.chunks(60_000) {
            let block = raw(block);
            body.extend((block.len() as u32).to_be_bytes());
            body.extend(block);
        }
        assert_eq!(inflated(&body).unwrap(), data);
        assert!(inflated(&body[..body.len() - 1]).is_err());
    }

    #[test]
    fn the_library_and_this_agree_on_what_is_damaged() {
        let good = raw(&mixed(3_000));
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let theirs = snap::raw::Decoder::new().decompress_vec(&bad);
                assert_eq!(inflated(&bad).ok(), theirs.ok(), "bit {bit} of byte {at}");
            }
            assert!(inflated(&good[..at]).is_err() || at == 0);
        }
    }

    #[test]
    fn one_read_makes_a_part_and_not_the_whole() {
        let zeros = raw(&vec![0; 16 << 20]);
        let mut snappy = Snappy::new(&zeros);
        let mut room = vec![0; 1 << 20];
        let mut most = 0;
        while snappy.read(&mut room).unwrap() > 0 {
            most = most.max(snappy.window.capacity());
        }
        assert!(most <= 4 * SNAPPY_WINDOW_BYTES, "{most} bytes held");
        let first = Snappy::new(&zeros).read(&mut room).unwrap();
        assert!(first <= SNAPPY_PART_BYTES + 64, "{first} bytes in one read");
    }
}
