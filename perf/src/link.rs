//! Owns the two directions of a non-blocking connection: frames waiting to leave, and bytes that became frames.
//! Does not know what the frames say, nor when to read or write.
//! Invariant: frames leave whole and in order, and a frame is handed out once, when all of it is here.

use crate::error::PerfError;
use crate::template::{Template, PREFIX_BYTES};
use millrace_net::wire::frame::{peek_size, SIZE_PREFIX_BYTES};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// Pieces handed to the kernel in one call; it takes no more than 1,024.
const PIECES_MAX: usize = 512;
/// Larger frames are refused: Kafka's own limit for requests.
pub const FRAME_BYTES_MAX: usize = 100 << 20;
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects without delay of small packets; the socket does not block.
pub fn connect(address: SocketAddr) -> Result<TcpStream, PerfError> {
    let what = || format!("cannot connect to {address}");
    let stream =
        TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).map_err(PerfError::io(what()))?;
    stream.set_nodelay(true).map_err(PerfError::io(what()))?;
    stream
        .set_nonblocking(true)
        .map_err(PerfError::io(what()))?;
    Ok(stream)
}

struct Outgoing {
    prefix: [u8; PREFIX_BYTES],
    template: Rc<Template>,
}

impl Outgoing {
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.prefix[..]).chain(self.template.rest.iter().map(|piece| &piece[..]))
    }
}

/// Frames waiting to leave. Its owner bounds how many.
#[derive(Default)]
pub struct Outbox {
    frames: VecDeque<Outgoing>,
    /// Bytes of the first frame that have left.
    written: usize,
}

impl Outbox {
    pub fn push(&mut self, template: Rc<Template>, correlation: i32) {
        let prefix = template.prefix(correlation);
        self.frames.push_back(Outgoing { prefix, template });
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Frames of which at least one byte has not left.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Writes what `stream` takes now; returns how many frames have left completely.
    pub fn write_to(&mut self, stream: &mut impl Write) -> Result<usize, PerfError> {
        let before = self.frames.len();
        while !self.frames.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let (mut count, mut offered, mut skip) = (0, 0, self.written);
            for piece in self.frames.iter().flat_map(Outgoing::pieces) {
                if skip >= piece.len() {
                    skip -= piece.len();
                    continue;
                }
                if count == PIECES_MAX {
                    break;
                }
                slices[count] = IoSlice::new(&piece[skip..]);
                offered += piece.len() - skip;
                count += 1;
                skip = 0;
            }
            let taken = match stream.write_vectored(&slices[..count]) {
                Ok(0) => return Err(PerfError::Closed),
                Ok(taken) => taken,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => break,
                    ErrorKind::Interrupted => continue,
                    _ => return Err(PerfError::io("cannot send to the broker")(error)),
                },
            };
            self.advance(taken);
            // A socket that took less than it was offered is full; asking it again costs a call to learn that.
            if taken < offered {
                break;
            }
        }
        Ok(before - self.frames.len())
    }

    fn advance(&mut self, taken: usize) {
        self.written += taken;
        while let Some(first) = self.frames.front() {
            let length = first.template.frame_bytes;
            if self.written < length {
                return;
            }
            self.written -= length;
            self.frames.pop_front();
        }
        assert_eq!(self.written, 0, "more was taken than was offered");
    }
}

/// Bytes that arrived, cut into frames.
pub struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    /// Begins with a buffer of `bytes`; it grows to the largest frame that comes.
    pub fn new(bytes: usize) -> Inbox {
        Inbox {
            buffer: vec![0; bytes.max(4_096)],
            start: 0,
            end: 0,
        }
    }

    /// Reads once from `stream`. Returns whether there may be more to read at once; `Closed` at the end of the stream.
    pub fn read_from(&mut self, stream: &mut impl Read) -> Result<bool, PerfError> {
        self.make_room()?;
        loop {
            match stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(PerfError::Closed),
                Ok(read) => {
                    self.end += read;
                    return Ok(self.end == self.buffer.len());
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(false),
                    ErrorKind::Interrupted => continue,
                    ErrorKind::ConnectionReset => return Err(PerfError::Closed),
                    _ => return Err(PerfError::io("cannot receive")(error)),
                },
            }
        }
    }

    /// Bytes of the frame at the front, its size included, once that is here.
    fn frame_bytes(&self) -> Result<Option<usize>, PerfError> {
        let size = peek_size(&self.buffer[self.start..self.end], FRAME_BYTES_MAX)?;
        Ok(size.map(|size| size + SIZE_PREFIX_BYTES))
    }

    fn make_room(&mut self) -> Result<(), PerfError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let wanted = self.frame_bytes()?.unwrap_or(SIZE_PREFIX_BYTES);
        let fits = self.start + wanted <= self.buffer.len();
        if !fits || self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if wanted > self.buffer.len() {
            self.buffer.resize(wanted, 0);
        }
        assert!(
            self.end < self.buffer.len(),
            "a whole frame was left in the buffer"
        );
        Ok(())
    }

    /// Where the next whole frame is, its size not included, if it is here. Every one must be taken before reading on.
    pub fn next_frame(&mut self) -> Result<Option<Range<usize>>, PerfError> {
        match self.frame_bytes()? {
            Some(length) if self.end - self.start >= length => {
                let frame = self.start + SIZE_PREFIX_BYTES..self.start + length;
                self.start += length;
                Ok(Some(frame))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The bytes of a frame that [`next_frame`](Self::next_frame) named, until reading on.
    pub fn frame(&self, frame: Range<usize>) -> &[u8] {
        &self.buffer[frame]
    }
}

/// Turns the end of a stream into a plain error for calls that must not meet it.
pub fn closed_is_io(what: &str) -> impl FnOnce(io::Error) -> PerfError + '_ {
    move |error| match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => PerfError::Closed,
        _ => PerfError::io(what)(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::batch;

    /// Takes `limit` bytes a call and blocks after each.
    struct Trickle {
        limit: usize,
        taken: Vec<u8>,
        blocked: bool,
    }

    impl Write for Trickle {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            if std::mem::replace(&mut self.blocked, true) {
                return Err(ErrorKind::WouldBlock.into());
            }
            let all: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
            let taken = &all[..all.len().min(self.limit)];
            self.taken.extend_from_slice(taken);
            Ok(taken.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Gives `limit` bytes a call.
    struct Drip<'a> {
        limit: usize,
        rest: &'a [u8],
    }

    impl Read for Drip<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.limit.min(into.len()).min(self.rest.len());
            let (now, later) = self.rest.split_at(count);
            into[..count].copy_from_slice(now);
            self.rest = later;
            Ok(count)
        }
    }

    #[test]
    fn frames_leave_whole_and_in_order_however_little_the_socket_takes() {
        let small = Rc::new(
            Template::produce("t", &[0], &batch(5, 1).expect("builds"), 1, 1).expect("encodes"),
        );
        let large = Rc::new(
            Template::produce("t", &[0, 1, 2], &batch(300, 4).expect("builds"), 1, 1)
                .expect("encodes"),
        );
        let mut expected = Vec::new();
        let sequence = [&small, &large, &small, &large];
        for (correlation, template) in sequence.iter().enumerate() {
            expected.extend(template.prefix(correlation as i32));
            expected.extend(template.rest.iter().flatten());
        }
        for limit in [1, 7, 12, 13, 100, 1_000, 1 << 20] {
            let mut outbox = Outbox::default();
            for (correlation, template) in sequence.iter().enumerate() {
                outbox.push(Rc::clone(template), correlation as i32);
            }
            let mut socket = Trickle {
                limit,
                taken: Vec::new(),
                blocked: false,
            };
            let mut left = 0;
            while !outbox.is_empty() {
                left += outbox.write_to(&mut socket).expect("writes");
                assert_eq!(left + outbox.len(), sequence.len());
                socket.blocked = false;
            }
            assert_eq!(left, sequence.len());
            assert_eq!(socket.taken, expected, "{limit} bytes a call");
        }
    }

    #[test]
    fn frames_arrive_whole_however_the_bytes_were_cut() {
        let frames: Vec<Vec<u8>> = [0usize, 3, 5_000, 1, 20_000, 4_092]
            .iter()
            .enumerate()
            .map(|(i, &length)| vec![i as u8 + 1; length])
            .collect();
        let mut bytes = Vec::new();
        for frame in &frames {
            bytes.extend((frame.len() as i32).to_be_bytes());
            bytes.extend(frame);
        }
        for limit in [1, 3, 4, 5, 4_095, 4_096, 1 << 20] {
            let mut inbox = Inbox::new(0);
            let mut drip = Drip {
                limit,
                rest: &bytes,
            };
            let mut got = Vec::new();
            while !drip.rest.is_empty() {
                inbox.read_from(&mut drip).expect("reads");
                while let Some(frame) = inbox.next_frame().expect("frames") {
                    got.push(inbox.frame(frame).to_vec());
                }
            }
            assert_eq!(got, frames, "{limit} bytes a call");
            assert!(matches!(inbox.read_from(&mut drip), Err(PerfError::Closed)));
        }
    }

    #[test]
    fn an_absurd_size_is_refused_before_memory_is_taken() {
        let mut inbox = Inbox::new(0);
        let bytes = i32::MAX.to_be_bytes();
        inbox.read_from(&mut &bytes[..]).expect("reads");
        assert!(inbox.next_frame().is_err());
        assert!(inbox.buffer.len() <= 4_096);
    }
}
