//! Owns the time of handing a produce request to the engine, up to its bytes lying in the journal's buffer.
//! Does not know the journal's writes: they go to the simulator's disk, between the stretches that are timed.
//! Invariant: nothing but `Broker::append` itself, which does all of this before it returns, is within the time.

use crate::batches::{batch, BATCH_BYTES};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use futures_lite::future::poll_once;
use millrace_engine::api::{Acks, AppendItem, AppendResult, Broker, EngineConfig, Mailboxes};
use millrace_engine::meta::{Command, Overrides};
use millrace_engine::rt::sim::{Sim, SimConfig};
use millrace_engine::types::limits::COMMIT_BYTES;
use millrace_engine::types::{PartitionId, TopicId};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PARTITIONS: i32 = 16;

/// Requests that are handed over one right behind the other, at most: they share a commit, as those of a busy broker do.
const STRETCH_MAX: u64 = 64;

pub fn hand_over(c: &mut Criterion) {
    let config = SimConfig {
        // It is told to run for long, and does not spin.
        polls_max: u64::MAX,
        ..SimConfig::default()
    };
    let sim = Sim::new(1, config);
    let boxes = Mailboxes::new(1);
    let broker = sim.block_on(start(boxes.clone()));

    let mut group = c.benchmark_group("append");
    let kib = (BATCH_BYTES >> 10) as i32;
    for (partitions, records, value_bytes) in [(1, 1, 100), (1, kib, 1024), (PARTITIONS, 4, 1024)] {
        let batch = Bytes::from(batch(records, value_bytes));
        let bytes = batch.len() * partitions as usize;
        let name = format!("{records} of {value_bytes} B to {partitions}");
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            let stretch = STRETCH_MAX.min((COMMIT_BYTES / 2 / bytes) as u64);
            b.iter_custom(|requests| {
                sim.block_on(timed(&broker, requests, stretch, partitions, &batch))
            });
        });
    }
    group.finish();

    boxes.handle().stop();
    sim.block_on(broker.close()).expect("a clean stop");
}

async fn start(boxes: Arc<Mailboxes>) -> Broker {
    let mut config = EngineConfig::new("/data".into());
    config.memory_bytes = 64 << 20;
    // The simulated disk is memory: records are taken off it again soon, in the simulator's time.
    config.retention_check = Some(Duration::from_millis(50));
    let broker = Broker::start(config, 0, boxes)
        .await
        .expect("an empty disk");
    let settings = [
        ("segment.bytes", "4194304"),
        ("retention.bytes", "4194304"),
        ("file.delete.delay.ms", "0"),
    ];
    let owned = |(name, value): (&str, &str)| (name.to_string(), value.to_string());
    let topic = Command::CreateTopic {
        id: topic_id(),
        name: "t".into(),
        internal: false,
        partitions: PARTITIONS,
        replication_factor: 1,
        assignment: Vec::new(),
        overrides: settings.map(owned).into_iter().collect::<Overrides>(),
    };
    broker.propose(topic).await.expect("a new topic");
    broker
}

/// The time that handing over so many requests took, each with a batch for each of so many partitions.
async fn timed(
    broker: &Broker,
    requests: u64,
    stretch: u64,
    partitions: i32,
    batch: &Bytes,
) -> Duration {
    let mut spent = Duration::ZERO;
    let mut left = requests;
    while left > 0 {
        let count = left.min(stretch);
        let requests: Vec<_> = (0..count).map(|_| request(partitions, batch)).collect();
        let mut answers = Vec::with_capacity(count as usize);
        let begun = Instant::now();
        // With no acks to wait for, an answer is there at once where the batches are.
        let append = |items| broker.append(items, Acks::None);
        answers.extend(requests.into_iter().map(append));
        let took = begun.elapsed();
        // One that had to wait for room did next to nothing within the time: its stretch does not count.
        if taken_at_once(answers).await {
            spent += took;
            left -= count;
        }
        // The commit that holds them is written and flushed, and the next stretch begins one of its own.
        check(broker.append(request(1, batch), Acks::All).await);
    }
    spent
}

async fn taken_at_once(answers: Vec<impl Future<Output = Vec<AppendResult>>>) -> bool {
    let mut at_once = true;
    for answer in answers {
        let mut answer = pin!(answer);
        match poll_once(answer.as_mut()).await {
            Some(results) => check(results),
            None => {
                at_once = false;
                check(answer.await);
            }
        }
    }
    at_once
}

fn check(results: Vec<AppendResult>) {
    for result in results {
        result.expect("there is room on the disk");
    }
}

fn request(partitions: i32, batch: &Bytes) -> Vec<AppendItem> {
    let item = |index| AppendItem {
        partition: PartitionId::new(topic_id(), index),
        batch: batch.clone(),
    };
    (0..partitions).map(item).collect()
}

fn topic_id() -> TopicId {
    TopicId::from_random(1, 1)
}
