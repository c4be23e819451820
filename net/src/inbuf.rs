//! Owns the bytes a connection has read and not yet handed on, and cuts them into frames without copying.
//! Does not know sockets, headers or what a frame means.
//! Invariant: memory held is at most one read block or one announced frame, whichever is larger, beside blocks whose
//! frames are still being worked on; an idle connection holds the smallest block.

use crate::wire::frame::{self, SIZE_PREFIX_BYTES};
use crate::wire::WireError;
use bytes::{Buf, Bytes, BytesMut};

/// Block of a connection that says little, and of one that streams.
const BLOCK_BYTES_MIN: usize = 4 << 10;
const BLOCK_BYTES_MAX: usize = 256 << 10;

/// Blocks that come back to be read into again once their frames are done with: as many as frames under way fill.
const LENT_BLOCKS_MAX: usize = 4;

/// Room below which reading on in the same block is not worth a system call.
const ROOM_BYTES_MIN: usize = 1 << 10;

/// What the bytes at hand amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Framed {
    /// Not even a size prefix.
    Nothing,
    /// The prefix of a frame of `size` bytes, but not all of it.
    Partial { size: usize },
    /// At least one whole frame of `size` bytes is there.
    Whole { size: usize },
}

/// Read buffer. `Send`, so that it can move with its connection.
#[derive(Default)]
pub struct InBuf {
    /// Every byte up to its length is initialised; the first `filled` were read.
    buf: BytesMut,
    filled: usize,
    block_bytes: usize,
    /// Blocks that others held parts of when they were full, empty but for those.
    lent: Vec<BytesMut>,
}

impl InBuf {
    pub fn new() -> InBuf {
        InBuf {
            buf: BytesMut::new(),
            filled: 0,
            block_bytes: BLOCK_BYTES_MIN,
            lent: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// What is there, given the largest frame allowed.
    pub fn framed(&self, size_max: usize) -> Result<Framed, WireError> {
        Ok(
            match frame::peek_size(&self.buf[..self.filled], size_max)? {
                None => Framed::Nothing,
                Some(size) if self.filled - SIZE_PREFIX_BYTES < size => Framed::Partial { size },
                Some(size) => Framed::Whole { size },
            },
        )
    }

    /// Takes the whole frame of `size` bytes at the front, without its prefix.
    pub fn take(&mut self, size: usize) -> Bytes {
        assert!(
            self.filled >= SIZE_PREFIX_BYTES + size,
            "frame is not complete"
        );
        self.filled -= SIZE_PREFIX_BYTES + size;
        self.buf.advance(SIZE_PREFIX_BYTES);
        self.buf.split_to(size).freeze()
    }

    /// Room to read into; `frame` is the size of a frame that has begun, which then fits whole. Never empty.
    pub fn room(&mut self, frame: Option<usize>) -> &mut [u8] {
        let wanted = match frame {
            Some(size) if size + SIZE_PREFIX_BYTES > self.buf.len() => {
                Some((size + SIZE_PREFIX_BYTES).max(self.block_bytes))
            }
            Some(_) => None,
            None if self.buf.len() - self.filled < ROOM_BYTES_MIN => Some(self.block_bytes),
            None => None,
        };
        if let Some(bytes) = wanted {
            self.renew(bytes);
        }
        &mut self.buf[self.filled..]
    }

    /// Notes that `count` bytes were read into the room.
    pub fn read(&mut self, count: usize) {
        assert!(
            count <= self.buf.len() - self.filled,
            "more bytes than room"
        );
        if count == self.buf.len() - self.filled {
            // The client had more to say than fits: next time there is more room.
            self.block_bytes = (self.block_bytes * 4).min(BLOCK_BYTES_MAX);
        }
        self.filled += count;
    }

    /// Gives the memory back, if nothing is in it.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            *self = InBuf::new();
        }
    }

    /// A block of at least `bytes`, the unread bytes at its front: the old block, if nobody else holds a part of it, or
    /// one that was full earlier.
    fn renew(&mut self, bytes: usize) {
        assert!(bytes > self.filled);
        if bytes <= BLOCK_BYTES_MAX && reclaim(&mut self.buf, bytes) {
            return;
        }
        let mut fresh = self
            .lent_block(bytes)
            .unwrap_or_else(|| BytesMut::zeroed(bytes));
        fresh[..self.filled].copy_from_slice(&self.buf[..self.filled]);
        let mut full = std::mem::replace(&mut self.buf, fresh);
        if self.block_bytes == BLOCK_BYTES_MAX {
            full.clear();
            self.lent.truncate(LENT_BLOCKS_MAX - 1);
            self.lent.push(full);
        }
    }

    fn lent_block(&mut self, bytes: usize) -> Option<BytesMut> {
        if bytes > BLOCK_BYTES_MAX {
            return None;
        }
        let index = self.lent.iter_mut().position(|b| reclaim(b, bytes))?;
        Some(self.lent.swap_remove(index))
    }
}

/// Makes a block `bytes` long again, or longer, if nobody else holds a part of it. What is in it stays at its front.
fn reclaim(block: &mut BytesMut, bytes: usize) -> bool {
    if !block.try_reclaim(bytes.saturating_sub(block.len())) {
        return false;
    }
    // SAFETY: `try_reclaim` never allocates, so the capacity is memory of the one allocation that `zeroed` made, every
    // byte of which is initialised.
    unsafe { block.set_len(block.capacity()) };
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(buf: &mut InBuf, mut bytes: &[u8], step: usize, frames: &mut Vec<Vec<u8>>) {
        while !bytes.is_empty() {
            let partial = match buf.framed(1 << 20).unwrap() {
                Framed::Partial { size } => Some(size),
                Framed::Nothing => None,
                Framed::Whole { .. } => panic!("whole frames are taken below"),
            };
            let room = buf.room(partial);
            assert!(!room.is_empty());
            let count = room.len().min(step).min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            buf.read(count);
            bytes = &bytes[count..];
            while let Framed::Whole { size } = buf.framed(1 << 20).unwrap() {
                frames.push(buf.take(size).to_vec());
            }
        }
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_the_bytes_are_cut() {
        let sizes = [
            0usize, 1, 5, 4_000, 4_092, 4_096, 70_000, 3, 300_000, 262_144, 9,
        ];
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for (i, size) in sizes.iter().enumerate() {
            let body: Vec<u8> = (0..*size).map(|b| (b * 7 + i) as u8).collect();
            stream.extend_from_slice(&(*size as i32).to_be_bytes());
            stream.extend_from_slice(&body);
            expected.push(body);
        }
        for step in [1, 3, 1000, 4096, 65_536, usize::MAX] {
            let mut buf = InBuf::new();
            let mut frames = Vec::new();
            for _ in 0..3 {
                feed(&mut buf, &stream, step, &mut frames);
            }
            assert_eq!(frames.len(), 3 * expected.len());
            for (i, frame) in frames.iter().enumerate() {
                assert!(
                    *frame == expected[i % expected.len()],
                    "frame {i} at step {step}"
                );
            }
            assert!(buf.is_empty());
        }
    }

    #[test]
    fn frames_that_are_still_held_keep_their_bytes_while_the_buffer_goes_on() {
        let mut buf = InBuf::new();
        let mut held = Vec::new();
        for i in 0..200u8 {
            let room = buf.room(None);
            room[..4].copy_from_slice(&1000i32.to_be_bytes());
            let Framed::Nothing = buf.framed(1 << 20).unwrap() else {
                panic!("nothing read yet")
            };
            buf.read(4);
            let room = buf.room(Some(1000));
            room[..1000].fill(i);
            buf.read(1000);
            assert_eq!(buf.framed(1 << 20).unwrap(), Framed::Whole { size: 1000 });
            held.push(buf.take(1000));
        }
        for (i, frame) in held.iter().enumerate() {
            assert!(frame.iter().all(|b| *b == i as u8), "frame {i}");
        }
    }

    #[test]
    fn a_stream_of_released_frames_reuses_one_block() {
        let mut buf = InBuf::new();
        let mut addresses = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            let room = buf.room(None);
            addresses.insert(room.as_ptr() as usize / (1 << 20));
            room[..4].copy_from_slice(&100i32.to_be_bytes());
            buf.read(4);
            buf.room(Some(100));
            buf.read(100);
            drop(buf.take(100));
        }
        assert!(buf.buf.capacity() <= BLOCK_BYTES_MIN);
        assert!(addresses.len() <= 2, "{} different places", addresses.len());
    }

    #[test]
    fn frames_under_way_take_turns_in_a_few_blocks() {
        let mut buf = InBuf::new();
        let mut addresses = std::collections::BTreeSet::new();
        let mut under_way = std::collections::VecDeque::new();
        const FRAME: usize = 60_000;
        for i in 0..2_000u32 {
            while !matches!(buf.framed(1 << 20).unwrap(), Framed::Whole { .. }) {
                let partial = match buf.framed(1 << 20).unwrap() {
                    Framed::Partial { size } => Some(size),
                    Framed::Nothing | Framed::Whole { .. } => None,
                };
                // The stream is the same frame again and again: what comes next depends on what is there.
                let at = buf.filled;
                let room = buf.room(partial);
                let count = room.len().min(200_000);
                for (j, byte) in room[..count].iter_mut().enumerate() {
                    *byte = match (at + j) % (FRAME + 4) {
                        head @ 0..4 => (FRAME as i32).to_be_bytes()[head],
                        _ => 7,
                    };
                }
                buf.read(count);
            }
            let frame = buf.take(FRAME);
            assert!(frame.iter().all(|b| *b == 7), "frame {i}");
            if i > 100 {
                addresses.insert(frame.as_ptr() as usize);
            }
            under_way.push_back(frame);
            if under_way.len() > 4 {
                under_way.pop_front();
            }
        }
        assert!(buf.lent.len() <= LENT_BLOCKS_MAX);
        assert!(addresses.len() < 40, "{} places", addresses.len());
    }

    #[test]
    fn sizes_beyond_the_cap_and_negative_ones_are_refused_before_any_room_is_made() {
        for size in [-1i32, i32::MIN, 2048] {
            let mut buf = InBuf::new();
            buf.room(None)[..4].copy_from_slice(&size.to_be_bytes());
            buf.read(4);
            assert!(buf.framed(2047).is_err(), "size {size}");
        }
    }

    #[test]
    fn an_idle_buffer_gives_its_memory_back_but_never_loses_bytes() {
        let mut buf = InBuf::new();
        buf.room(None)[..3].copy_from_slice(b"abc");
        buf.read(3);
        buf.shrink();
        assert!(!buf.is_empty());
        buf.filled = 0;
        buf.shrink();
        assert_eq!(buf.buf.capacity(), 0);
    }
}
