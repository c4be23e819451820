//! Owns the target of what a connection reads first: size prefixes, however cut, and request headers.
//! Does not know bodies, which `request` has.
//! Invariant: both ways of cutting a stream into frames agree, and a header that was read is written back.

use super::request;
use bytes::{Bytes, BytesMut};
use millrace_net::wire::api_versions;
use millrace_net::wire::frame::{take_frame, RequestHeader};
use millrace_net::wire::{Reader, WireError, Writer};
use millrace_net::{Framed, InBuf};

/// Largest frame taken; a broker takes larger ones, for which it makes as much room.
pub const SIZE_MAX: usize = 64 << 10;

/// Bytes that arrive at once.
const STEPS: [usize; 4] = [1, 61, 5_000, usize::MAX];

type Frames = (Vec<Bytes>, Result<(), WireError>);

pub fn frame(data: &[u8]) {
    let expected = taken(data);
    for step in STEPS {
        for hold in [true, false] {
            let found = buffered(data, step, hold);
            assert_eq!(found, expected, "in steps of {step}, held: {hold}");
        }
    }
    for frame in expected.0 {
        header(frame);
    }
}

/// The frames of a stream that is all there.
fn taken(data: &[u8]) -> Frames {
    let mut stream = BytesMut::from(data);
    let mut frames = Vec::new();
    loop {
        match take_frame(&mut stream, SIZE_MAX) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, Ok(())),
            Err(error) => return (frames, Err(error)),
        }
    }
}

/// The frames of a stream as a connection's buffer cuts it; the buffer is used again where frames are not held.
fn buffered(mut data: &[u8], step: usize, hold: bool) -> Frames {
    let mut buffer = InBuf::new();
    let mut frames = Vec::new();
    loop {
        let begun = match buffer.framed(SIZE_MAX) {
            Err(error) => return (frames, Err(error)),
            Ok(Framed::Whole { size }) => {
                let frame = buffer.take(size);
                frames.push(if hold {
                    frame
                } else {
                    Bytes::copy_from_slice(&frame)
                });
                continue;
            }
            Ok(Framed::Partial { size }) => Some(size),
            Ok(Framed::Nothing) => None,
        };
        if data.is_empty() {
            return (frames, Ok(()));
        }
        let room = buffer.room(begun);
        assert!(!room.is_empty(), "a connection could read nothing");
        let count = room.len().min(step).min(data.len());
        let (now, later) = data.split_at(count);
        room[..count].copy_from_slice(now);
        buffer.read(count);
        data = later;
    }
}

fn header(frame: Bytes) {
    for version in 0..=4 {
        // Either outcome is right: the answer of a broker to the first request of a client.
        let _ = api_versions::decode_reply(frame.clone(), 0, version);
    }
    let mut reader = Reader::new(frame);
    let Ok((header, served)) = RequestHeader::decode(&mut reader) else {
        return;
    };
    let mut writer = Writer::new();
    header
        .encode(&mut writer, served.first_flexible)
        .expect("a header that was read can be written");
    let again = RequestHeader::decode(&mut Reader::new(writer.into_bytes()));
    assert_eq!(again, Ok((header.clone(), served)));
    if served.serves(header.version) {
        let body = reader.take(reader.remaining()).expect("what remains");
        let _bytes = request::message(header.key, header.version, false, body);
    }
}
