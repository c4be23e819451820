//! Owns walking the batches of a segment as its bytes come, checking each one's CRC-32C.
//! Does not know files, nor which offsets are expected.
//! Invariant: holds one batch header and no record, whatever the bytes claim.

use crate::types::batch::{BatchError, BatchHeader, CRC_START};
use crate::types::limits::BATCH_HEADER_BYTES;
use crc_fast::{CrcAlgorithm, Digest};

/// What the walker met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// A whole batch.
    Batch {
        position: u64,
        header: BatchHeader,
        crc_fits: bool,
    },
    /// No batch begins here; nothing behind it can be told apart.
    Lost { position: u64, error: BatchError },
}

/// The body of a batch under way.
struct Body {
    header: BatchHeader,
    digest: Digest,
    left: usize,
}

pub struct Walker {
    /// Where the current batch begins.
    position: u64,
    head: Vec<u8>,
    body: Option<Body>,
    lost: bool,
}

impl Default for Walker {
    fn default() -> Walker {
        Walker::new()
    }
}

impl Walker {
    pub fn new() -> Walker {
        Walker {
            position: 0,
            head: Vec::with_capacity(BATCH_HEADER_BYTES),
            body: None,
            lost: false,
        }
    }

    /// Takes the next bytes of the segment.
    pub fn feed(&mut self, mut bytes: &[u8], mut see: impl FnMut(Seen)) {
        while !bytes.is_empty() && !self.lost {
            if let Some(body) = &mut self.body {
                let n = bytes.len().min(body.left);
                body.digest.update(&bytes[..n]);
                body.left -= n;
                bytes = &bytes[n..];
                if body.left == 0 {
                    self.end_batch(&mut see);
                }
                continue;
            }
            let n = bytes.len().min(BATCH_HEADER_BYTES - self.head.len());
            self.head.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if self.head.len() == BATCH_HEADER_BYTES {
                self.begin_batch(&mut see);
            }
        }
    }

    fn begin_batch(&mut self, see: &mut impl FnMut(Seen)) {
        let header = match BatchHeader::parse(&self.head) {
            Ok(header) => header,
            Err(error) => {
                self.lost = true;
                see(Seen::Lost {
                    position: self.position,
                    error,
                });
                return;
            }
        };
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        digest.update(&self.head[CRC_START..]);
        self.body = Some(Body {
            header,
            digest,
            left: header.size - BATCH_HEADER_BYTES,
        });
        self.head.clear();
        if header.size == BATCH_HEADER_BYTES {
            self.end_batch(see);
        }
    }

    fn end_batch(&mut self, see: &mut impl FnMut(Seen)) {
        let body = self.body.take().expect("a batch is under way");
        see(Seen::Batch {
            position: self.position,
            header: body.header,
            crc_fits: body.digest.finalize() as u32 == body.header.crc,
        });
        self.position += body.header.size as u64;
    }

    /// Where a batch begins that the bytes so far do not hold whole; None at the end of a batch.
    pub fn unfinished(&self) -> Option<u64> {
        (self.body.is_some() || !self.head.is_empty()).then_some(self.position)
    }

    /// Whether nothing more can be told apart.
    pub fn lost(&self) -> bool {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::batch::build;

    fn walk(bytes: &[u8], step: usize) -> (Vec<Seen>, Option<u64>) {
        let mut walker = Walker::new();
        let mut seen = Vec::new();
        for part in bytes.chunks(step) {
            walker.feed(part, |s| seen.push(s));
        }
        (seen, walker.unfinished())
    }

    #[test]
    fn batches_are_told_apart_however_their_bytes_come() {
        let mut bytes = build::batch(2, b"some records", 5, None);
        let second = bytes.len() as u64;
        bytes.extend(build::batch(1, b"", 6, None));
        let whole = walk(&bytes, bytes.len());
        assert_eq!(whole.0.len(), 2);
        assert!(
            matches!(whole.0[1], Seen::Batch { position, crc_fits: true, .. } if position == second)
        );
        assert_eq!(whole.1, None);
        for step in [1, 7, 61, 62] {
            assert_eq!(walk(&bytes, step), whole, "step {step}");
        }
        assert_eq!(walk(&bytes[..bytes.len() - 1], 10).1, Some(second));
    }

    #[test]
    fn flipped_bits_are_seen_and_hostile_bytes_end_the_walk() {
        let good = build::batch(2, b"some records", 5, None);
        for bit in CRC_START * 8..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let (seen, _) = walk(&bad, 13);
            assert!(
                matches!(
                    seen[..],
                    [Seen::Batch {
                        crc_fits: false,
                        ..
                    }]
                ),
                "bit {bit}"
            );
        }
        let mut state = 1u64;
        for len in 0..600 {
            let noise: Vec<u8> = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            let (seen, _) = walk(&noise, 17);
            assert!(seen.len() <= len / BATCH_HEADER_BYTES + 1);
        }
    }
}
