//! Owns the times of finding a topic in the metadata, which every produce, fetch and metadata request does.
//! Does not know what is done with the topic.
//! Invariant: the image came about by commands, as a broker's does.

use crate::Numbers;
use criterion::{BatchSize, Criterion};
use millrace_engine::meta::{machine, Command, Image, Overrides};
use millrace_engine::types::TopicId;
use std::hint::black_box;
use std::sync::Arc;

const TOPICS: usize = 1000;

pub fn lookup(c: &mut Criterion) {
    let image = image();
    // Names and ids that do not lie in the image itself, as those of a request do not.
    let names: Vec<String> = (0..TOPICS).map(name).collect();
    let ids: Vec<TopicId> = (0..TOPICS).map(id).collect();
    let unknown: Vec<String> = names.iter().map(|name| format!("{name}x")).collect();
    assert!(names.iter().all(|name| image.topic(name).is_some()));
    assert!(ids.iter().all(|id| image.topic_by_id(*id).is_some()));
    assert!(unknown.iter().all(|name| image.topic(name).is_none()));

    let mut group = c.benchmark_group(format!("image of {TOPICS} topics"));
    let mut numbers = Numbers(1);
    group.bench_function("by name", |b| {
        b.iter_batched(
            || names[numbers.below(TOPICS)].as_str(),
            |name| black_box(&image).topic(name),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("by id", |b| {
        b.iter_batched(
            || ids[numbers.below(TOPICS)],
            |id| black_box(&image).topic_by_id(id),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("by name, unknown", |b| {
        b.iter_batched(
            || unknown[numbers.below(TOPICS)].as_str(),
            |name| black_box(&image).topic(name),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn image() -> Image {
    let cluster_id = TopicId::from_random(1, 1).to_string();
    let mut image = Image::new(cluster_id, 1, Arc::default()).expect("no settings of its own");
    let node = Command::RegisterNode {
        id: 1,
        host: "localhost".into(),
        port: 9092,
        rack: None,
    };
    let topics = (0..TOPICS).map(|n| Command::CreateTopic {
        id: id(n),
        name: name(n),
        internal: false,
        partitions: 4,
        replication_factor: 1,
        assignment: Vec::new(),
        overrides: Overrides::new(),
    });
    for command in std::iter::once(node).chain(topics) {
        machine::apply(&mut image, &command).expect("a new name and id");
    }
    image
}

/// As long as names are where there are many.
fn name(n: usize) -> String {
    format!("orders.eu-west.events-{n:04}")
}

fn id(n: usize) -> TopicId {
    let n = n as u64 + 1;
    TopicId::from_random(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n)
}
