//! Owns making requests, responses and streams of frames.
//! Does not know their fields: bytes that look like fields are tried until enough of them are a message.
//! Invariant: what it gives was written by the codec.

use super::{made, Made};
use crate::fuzz::mutate::mutate;
use crate::fuzz::request::{message, RESPONSE};
use crate::sim::seeds::Rng;
use bytes::Bytes;
use millrace_net::wire::frame::RequestHeader;
use millrace_net::wire::versions::{Served, SERVED};
use millrace_net::wire::{Str, Writer};

/// Bytes tried for each message.
const TRIES: usize = 20_000;
const MESSAGE_BYTES_MAX: usize = 300;

pub fn make() -> Vec<Made> {
    let mut all = Vec::new();
    let mut frames = Vec::new();
    for (row, served) in SERVED.iter().enumerate() {
        let name = served.key.name();
        for (version, response) in [(served.max, false), (served.max, true), (served.min, false)] {
            let body = longest(served, version, response);
            let kind = if response { "response" } else { "request" };
            let key = row as u8 | if response { RESPONSE } else { 0 };
            let head = [key, (version - served.min) as u8];
            let input = [&head[..], &body].concat();
            all.push(made("request", format!("{name}-v{version}-{kind}"), input));
            if !response {
                frames.push((format!("{name}-v{version}"), frame(served, version, &body)));
            }
        }
    }
    streams(&mut all, frames);
    all
}

/// The longest message found.
fn longest(served: &Served, version: i16, response: bool) -> Bytes {
    let mut rng = Rng::new(served.key.code() as u64 * 1_000 + version as u64);
    let mut best = Bytes::new();
    for _ in 0..TRIES {
        // What is behind a message does not matter, so there is always enough for it to grow into.
        let body = [mutate(&mut rng, &best, &best), plausible(&mut rng)].concat();
        if let Ok(bytes) = message(served.key, version, response, body.into()) {
            if bytes.len() > best.len() && bytes.len() <= MESSAGE_BYTES_MAX {
                best = bytes;
            }
        }
    }
    best
}

/// Bytes in which counts are small and text is text.
fn plausible(rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    while out.len() < MESSAGE_BYTES_MAX {
        let small = rng.below(4) as u8;
        match rng.below(8) {
            0 | 1 => out.push(small),
            2 => out.extend([0, small]),
            3 | 4 => out.extend([0, 0, 0, small]),
            5 => out.extend((0..small).map(|n| b'a' + n)),
            6 => out.extend([0; 8]),
            _ => out.extend([0xff; 4]),
        }
    }
    out
}

fn frame(served: &Served, version: i16, body: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    let header = RequestHeader {
        key: served.key,
        version,
        correlation_id: 7,
        client_id: Some(Str::from("client")),
    };
    header
        .encode(&mut writer, served.first_flexible)
        .expect("a header can be written");
    let whole = [&writer.into_bytes(), body].concat();
    let size = i32::try_from(whole.len()).expect("a small frame");
    [&size.to_be_bytes(), &whole[..]].concat()
}

fn streams(all: &mut Vec<Made>, frames: Vec<(String, Vec<u8>)>) {
    let every: Vec<u8> = frames.iter().flat_map(|(_, f)| f.clone()).collect();
    all.push(made("frame", "all-requests", every.clone()));
    all.push(made("frame", "cut-short", &every[..every.len() - 5]));
    all.push(made("frame", "empty-frames", [0; 12]));
    all.push(made("frame", "half-a-prefix", [0, 0]));
    all.push(made("frame", "negative-size", (-1i32).to_be_bytes()));
    all.push(made("frame", "largest-size", i32::MAX.to_be_bytes()));
    // Longer than a read block, so that the buffer has to be renewed in the middle of one.
    let connection =
        |name: &str, step: u8, stream: &[u8]| made("connection", name, [&[step], stream].concat());
    all.push(connection("all-requests", 0, &every));
    all.push(connection("all-requests-in-steps", 1, &every));
    all.push(connection("cut-short", 2, &every[..every.len() / 2]));
    all.push(connection("largest-size", 0, &i32::MAX.to_be_bytes()));
    for (name, frame) in &frames {
        all.push(connection(name, 0, frame));
    }
    let long = [&20_000i32.to_be_bytes()[..], &[7; 20_000], &every[..400]].concat();
    all.push(made("frame", "long-and-short", long));
    let some = frames.into_iter().step_by(3);
    all.extend(some.map(|(name, frame)| made("frame", name, frame)));
}
