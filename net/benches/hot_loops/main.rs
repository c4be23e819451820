//! Owns the times of reading produce and fetch requests off the wire and writing their answers, each by itself.
//! Does not know sockets, the engine or what a broker makes of it all: `perf` measures that.
//! Invariant: requests are read as a connection reads them, header first, from a frame that was written before.

mod fetch;
mod produce;

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{criterion_group, criterion_main, BenchmarkGroup, BenchmarkId};
use millrace_net::wire::frame::{self, RequestHeader, SIZE_PREFIX_BYTES};
use millrace_net::wire::{Reader, Request, Str};
use std::hint::black_box;

criterion_group!(hot_loops, produce::bench, fetch::bench);
criterion_main!(hot_loops);

/// Reading the newest version of a request that is about so many partitions.
fn decode<R: Request>(group: &mut BenchmarkGroup<WallTime>, partitions: i32, request: &R) {
    let version = R::VERSIONS.1;
    let client = Some(Str::from_static("bench"));
    let frame = frame::encode_request(1, client, request, version).expect("a request");
    let frame = frame.slice(SIZE_PREFIX_BYTES..);
    group.bench_function(BenchmarkId::new("decode request", partitions), |b| {
        b.iter(|| read::<R>(black_box(&frame).clone(), version));
    });
}

fn read<R: Request>(frame: Bytes, version: i16) -> R {
    let mut reader = Reader::new(frame);
    let (header, served) = RequestHeader::decode(&mut reader).expect("a header");
    assert!(header.version == version && served.serves(version));
    let request = R::decode(&mut reader, version).expect("a request");
    reader.finish().expect("nothing behind it");
    request
}
