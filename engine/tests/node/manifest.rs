//! Owns what a start does where manifest or metadata are not the newest ones, or gone: a failing disk, or a copy put back.
//! Does not know what is in a manifest.
//! Invariant checked: such a start is refused and changes nothing that matters, so that the right manifest brings all back.

use crate::node::{self, Batch};
use millrace_engine::api::{Broker, OffsetSpec};
use millrace_engine::rt::sim::{CrashPolicy, Sim, SimConfig};
use millrace_engine::rt::{self, Class};
use millrace_engine::types::{PartitionId, TopicId};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

const TOPIC: TopicId = TopicId([7; 16]);
const SHARDS: usize = 2;
const MANIFEST: &str = "/data/manifest.json";

async fn start() -> Result<Vec<Broker>, String> {
    node::try_start(SHARDS).await
}

/// Appends one record to each partition; `acked` counts them.
async fn append(broker: &Broker, acked: &Cell<i64>) {
    for index in 0..2 {
        let id = PartitionId::new(TOPIC, index);
        let batch = Batch::new(0, 39).encode();
        node::append(broker, id, batch).await.unwrap();
    }
    acked.set(acked.get() + 1);
}

async fn ends(broker: &Broker) -> Vec<i64> {
    let mut ends = Vec::new();
    for index in 0..2 {
        let latest = OffsetSpec::Latest {
            read_committed: false,
        };
        let id = PartitionId::new(TOPIC, index);
        ends.push(broker.list_offset(id, -1, latest).await.unwrap().offset);
    }
    ends
}

fn journals_and_checkpoints(sim: &Sim) -> BTreeMap<PathBuf, Vec<u8>> {
    let disk = sim.disk();
    let mut files = disk.files();
    files.retain(|path| {
        let text = path.to_string_lossy();
        text.contains("/checkpoints/") || text.contains("/journal")
    });
    let content = |path: PathBuf| disk.read_raw(&path).map(|bytes| (path, bytes));
    files.into_iter().filter_map(content).collect()
}

/// One start that appends and is killed; gives the manifest it wrote.
fn generation(sim: &Sim, acked: &Rc<Cell<i64>>) -> Vec<u8> {
    let acked = acked.clone();
    sim.block_on(async move {
        let brokers = start().await.unwrap();
        if brokers[0].image().topic_by_id(TOPIC).is_none() {
            node::create_topic_with(&brokers[0], TOPIC, "t", 2, &[]).await;
        }
        append(&brokers[1], &acked).await;
        rt::sleep(Duration::from_millis(50)).await;
    });
    sim.crash(CrashPolicy::POWER);
    sim.disk().read_raw(Path::new(MANIFEST)).unwrap()
}

#[test]
fn an_old_manifest_is_refused_and_costs_nothing() {
    for back in [1, 2] {
        let sim = Sim::new(back as u64, SimConfig::default());
        let acked = Rc::new(Cell::new(0));
        let manifests: Vec<Vec<u8>> = (0..4).map(|_| generation(&sim, &acked)).collect();
        let path = Path::new(MANIFEST);
        sim.disk().write_raw(path, &manifests[3 - back]);
        let before = journals_and_checkpoints(&sim);
        assert!(before.len() >= 2 * SHARDS, "{:?}", before.keys());
        let refused = sim.block_on(async { start().await.err() });
        let why = refused.expect("a start with an old manifest");
        assert!(why.contains("manifest.json is older"), "{why}");
        sim.crash(CrashPolicy::POWER);
        let after = journals_and_checkpoints(&sim);
        assert!(before == after, "something was removed or changed");

        sim.disk().write_raw(path, &manifests[3]);
        let found = sim.block_on(async { ends(&start().await.unwrap()[0]).await });
        assert_eq!(found, [acked.get(); 2]);
    }
}

/// The manifest says what the metadata had when it was written: a copy from before the last start, or the last clean stop.
#[test]
fn old_metadata_is_refused_and_costs_nothing() {
    const METADATA: &str = "/data/meta/metadata";
    for (seed, clean) in [(1, false), (2, true)] {
        let sim = Sim::new(seed, SimConfig::default());
        let acked = Rc::new(Cell::new(0));
        generation(&sim, &acked);
        let old = sim.disk().read_raw(Path::new(METADATA)).unwrap();
        if clean {
            sim.block_on(async { node::close(&start().await.unwrap()).await });
            sim.crash(CrashPolicy::POWER);
        } else {
            generation(&sim, &acked);
        }
        let newest = sim.disk().read_raw(Path::new(METADATA)).unwrap();
        let before = journals_and_checkpoints(&sim);
        sim.disk().write_raw(Path::new(METADATA), &old);
        let refused = sim.block_on(async { start().await.err() });
        let why = refused.expect("a start with old metadata");
        assert!(why.contains("older copy"), "{why}");
        sim.crash(CrashPolicy::POWER);
        let after = journals_and_checkpoints(&sim);
        assert!(before == after, "something was removed or changed");
        let kept = sim.disk().read_raw(Path::new(METADATA)).unwrap();
        assert!(kept == old, "refusing changed the copy");

        sim.disk().write_raw(Path::new(METADATA), &newest);
        let found = sim.block_on(async { ends(&start().await.unwrap()[0]).await });
        assert_eq!(found, [acked.get(); 2]);
    }
}

/// Cut short at any moment of the next start: the manifest of before brings everything back or is refused.
#[test]
fn an_old_manifest_never_loses_what_the_next_start_acknowledged() {
    let (mut refused, mut served) = (0, 0);
    for seed in 0..60 {
        let sim = Sim::new(seed, SimConfig::default());
        let acked = Rc::new(Cell::new(0));
        let old = generation(&sim, &acked);
        let also = acked.clone();
        sim.block_on(async move {
            let next = rt::spawn_joined(Class::Network, async move {
                let brokers = start().await.unwrap();
                append(&brokers[1], &also).await;
                rt::sleep(Duration::from_secs(1)).await;
            });
            let moment = Duration::from_micros(rt::random_u64() % 16_000);
            // Whether it gets done in time is the point.
            let _done = rt::timeout(moment, next).await;
        });
        sim.crash(CrashPolicy::POWER);
        let new = sim.disk().read_raw(Path::new(MANIFEST)).unwrap();
        sim.disk().write_raw(Path::new(MANIFEST), &old);
        let found = sim.block_on(async {
            match start().await {
                Ok(brokers) => Some(ends(&brokers[0]).await),
                Err(_) => None,
            }
        });
        let found = match found {
            Some(found) => {
                served += 1;
                found
            }
            None => {
                refused += 1;
                sim.crash(CrashPolicy::Process);
                sim.disk().write_raw(Path::new(MANIFEST), &new);
                sim.block_on(async { ends(&start().await.unwrap()[0]).await })
            }
        };
        assert!(
            found.iter().all(|end| *end >= acked.get()),
            "seed {seed}: {found:?} of {}",
            acked.get()
        );
    }
    assert!(
        refused > 0 && served > 0,
        "{refused} refused, {served} served"
    );
}

/// Records that no flush has brought to a segment yet are in journals only: no folder below `topics` tells of them.
#[test]
fn a_lost_manifest_is_refused_while_records_are_only_in_journals() {
    let sim = Sim::new(3, SimConfig::default());
    let acked = Rc::new(Cell::new(0));
    let manifest = generation(&sim, &acked);
    let before = journals_and_checkpoints(&sim);
    let refused = sim.block_on(async {
        rt::fs::remove_file(Path::new(MANIFEST)).await.unwrap();
        start().await.err()
    });
    let why = refused.expect("a start without the manifest");
    assert!(why.contains("no manifest.json"), "{why}");
    sim.crash(CrashPolicy::Process);
    assert!(before == journals_and_checkpoints(&sim));
    sim.disk().write_raw(Path::new(MANIFEST), &manifest);
    let found = sim.block_on(async { ends(&start().await.unwrap()[0]).await });
    assert_eq!(found, [acked.get(); 2]);
}
