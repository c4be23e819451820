//! Owns the times of a fetch request's way in and its answer's way out, for 16 partitions.
//! Does not know `handlers::fetch`, which writes the same bytes by itself because the engine's buffers are no `Bytes`; what is
//! measured is the codec that this one is tested against, and that every other reader and writer of a fetch uses.
//! Invariant: records go by reference, as in a broker.

use crate::decode;
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion};
use millrace_net::wire::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchableTopicResponse, PartitionData,
};
use millrace_net::wire::{frame, Message, Records, Str};
use std::hint::black_box;

const PARTITIONS: i32 = 16;
const BATCH_BYTES: usize = 64 << 10;

pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("fetch");
    decode(&mut group, PARTITIONS, &request());
    for (what, response) in [
        ("encode response", response(Records::from(batch()))),
        ("encode empty response", response(Records::default())),
    ] {
        group.bench_function(BenchmarkId::new(what, PARTITIONS), |b| {
            let version = FetchResponse::VERSIONS.1;
            b.iter(|| {
                let pieces =
                    frame::encode_response_pieces::<FetchRequest>(1, black_box(&response), version);
                pieces.expect("an answer")
            });
        });
    }
    group.finish();
}

fn batch() -> Bytes {
    Bytes::from(vec![b'x'; BATCH_BYTES])
}

fn request() -> FetchRequest {
    let partition = |partition| FetchPartition {
        partition,
        current_leader_epoch: 3,
        fetch_offset: 1 << 40,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        topics: vec![FetchTopic {
            topic: Str::from_static("orders"),
            partitions: (0..PARTITIONS).map(partition).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn response(records: Records) -> FetchResponse {
    let partition = |partition_index| PartitionData {
        partition_index,
        high_watermark: 1 << 40,
        last_stable_offset: 1 << 40,
        log_start_offset: 0,
        records: records.clone(),
        ..Default::default()
    };
    FetchResponse {
        responses: vec![FetchableTopicResponse {
            topic: Str::from_static("orders"),
            partitions: (0..PARTITIONS).map(partition).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}
