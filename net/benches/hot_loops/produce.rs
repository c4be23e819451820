//! Owns the times of a produce request's way in and its answer's way out.
//! Does not know what is in the batches: no decoder looks, so how large they are hardly matters.
//! Invariant: the answer is written behind others into a buffer that has room, as a connection's is.

use crate::decode;
use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion};
use millrace_net::wire::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse,
    TopicProduceData, TopicProduceResponse,
};
use millrace_net::wire::{Message, Str, Writer};
use std::hint::black_box;

const BATCH_BYTES: usize = 64 << 10;

pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("produce");
    for partitions in [1, 16] {
        decode(&mut group, partitions, &request(partitions));
        let response = response(partitions);
        let mut buf = BytesMut::with_capacity(64 << 10);
        group.bench_function(BenchmarkId::new("encode response", partitions), |b| {
            b.iter(|| {
                let mut writer = Writer::over(std::mem::take(&mut buf));
                let version = ProduceResponse::VERSIONS.1;
                let written = black_box(&response).encode(&mut writer, version);
                written.expect("an answer");
                buf = writer.into_buffer();
                buf.clear();
            });
        });
    }
    group.finish();
}

fn request(partitions: i32) -> ProduceRequest {
    let records = Bytes::from(vec![b'x'; BATCH_BYTES]);
    let data = |index| PartitionProduceData {
        index,
        records: Some(records.clone()),
    };
    ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: Str::from_static("orders"),
            partition_data: (0..partitions).map(data).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn response(partitions: i32) -> ProduceResponse {
    let answer = |index| PartitionProduceResponse {
        index,
        base_offset: 1 << 40,
        ..Default::default()
    };
    ProduceResponse {
        responses: vec![TopicProduceResponse {
            name: Str::from_static("orders"),
            partition_responses: (0..partitions).map(answer).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}
