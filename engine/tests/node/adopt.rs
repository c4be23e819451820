//! Owns the proof that an adoption takes in what Kafka left, all of it or nothing, whenever it is cut short.
//! Does not know Apache Kafka itself (the harness does); its files are built here. Runs on the simulator.
//! Invariant checked: after any number of attempts every record is served at its offset, and none before the last one.

use crate::node::{self, damaged_files, verify, Batch};
use millrace_engine::adopt::{adopt, AdoptError, Options, Report};
use millrace_engine::api::{Broker, FetchItem, FetchOptions, Fetched, OffsetSpec};
use millrace_engine::meta::{Command, Overrides};
use millrace_engine::rt;
use millrace_engine::rt::sim::{CrashPolicy, Sim, SimConfig};
use millrace_engine::types::batch::{build, stamp};
use millrace_engine::types::{PartitionId, TopicId};
use std::path::{Path, PathBuf};
use std::time::Duration;

const TOPIC: TopicId = TopicId([3; 16]);
const RECORDS: i64 = 60;

fn batch(offset: i64, epoch: i32, bytes: usize, producer: Option<(i64, i32)>) -> Vec<u8> {
    let batch = Batch {
        timestamp_ms: offset,
        producer,
        ..Batch::new(offset as u8, bytes)
    };
    let mut encoded = batch.encode();
    stamp(&mut encoded, offset, epoch);
    encoded
}

/// A log directory as Kafka leaves it: one topic of two partitions, three segments each, epochs 4 and 9.
fn kafka_directory(sim: &Sim, root: &Path) {
    let disk = sim.disk();
    let put = |name: &str, content: &[u8]| disk.write_raw(&root.join(name), content);
    put(".kafka_cleanshutdown", b"{\"version\":0,\"brokerEpoch\":5}");
    put("meta.properties", b"node.id=1\n");
    put("log-start-offset-checkpoint", b"0\n1\norders 0 7\n");
    put(
        "replication-offset-checkpoint",
        b"0\n2\norders 0 60\norders 1 60\n",
    );
    put("cleaner-offset-checkpoint", b"");
    put("__consumer_offsets-3/00000000000000000000.log", b"");
    put("old-0.abc-delete/00000000000000000000.log", b"");
    for partition in 0..2 {
        let dir = format!("orders-{partition}");
        let identity = format!("version: 0\ntopic_id: {TOPIC}\n");
        put(&format!("{dir}/partition.metadata"), identity.as_bytes());
        put(
            &format!("{dir}/leader-epoch-checkpoint"),
            b"0\n2\n4 0\n9 30\n",
        );
        for base in (0..RECORDS).step_by(20) {
            let mut log = Vec::new();
            for offset in base..base + 20 {
                let epoch = if offset < 30 { 4 } else { 9 };
                let producer = (offset % 2 == 0).then_some((500, offset as i32 / 2));
                log.extend(batch(offset, epoch, 3_000 + offset as usize * 7, producer));
            }
            put(&format!("{dir}/{base:020}.log"), &log);
            // Kafka's own index files are not taken over.
            put(&format!("{dir}/{base:020}.index"), b"");
        }
    }
}

/// A batch of a producer's transaction.
fn in_transaction(offset: i64, epoch: i32, producer: i64) -> Vec<u8> {
    let encoded = batch(offset, epoch, 100, Some((producer, 0)));
    build::with_attributes(encoded, 0b01_0000)
}

/// The end of one, as Kafka writes it.
fn marker(offset: i64, epoch: i32, producer: i64, commit: bool) -> Vec<u8> {
    let mut record = vec![0, 0, 0];
    build::zigzag(4, &mut record);
    record.extend([0, 0, 0, u8::from(commit)]);
    build::zigzag(6, &mut record);
    record.extend([0; 7]);
    let mut body = Vec::new();
    build::zigzag(record.len() as i64, &mut body);
    body.extend(record);
    let of = Some((producer, 0, -1));
    let encoded = build::batch(1, &body, offset, of);
    let mut encoded = build::with_attributes(encoded, 0b11_0000);
    stamp(&mut encoded, offset, epoch);
    encoded
}

/// Writes the segments of partition 1 again with transactions in them: 901's and 900's were aborted, the first of them
/// across two segments, and 902's was committed; that of 903 is open, if there is one.
fn with_transactions(sim: &Sim, open: Option<i64>) {
    for base in (0..RECORDS).step_by(20) {
        let epoch = |offset| if offset < 30 { 4 } else { 9 };
        let one = |offset: i64| match offset {
            15 => in_transaction(offset, epoch(offset), 901),
            39 => marker(offset, epoch(offset), 901, false),
            40 => in_transaction(offset, epoch(offset), 900),
            41 => marker(offset, epoch(offset), 900, false),
            42 => in_transaction(offset, epoch(offset), 902),
            43 => marker(offset, epoch(offset), 902, true),
            // Nothing of it is there any more.
            44 => marker(offset, epoch(offset), 904, false),
            _ if Some(offset) == open => in_transaction(offset, epoch(offset), 903),
            _ => batch(offset, epoch(offset), 100, None),
        };
        let log: Vec<u8> = (base..base + 20).flat_map(one).collect();
        let path = format!("/kafka/orders-1/{base:020}.log");
        sim.disk().write_raw(Path::new(&path), &log);
    }
}

fn options() -> Options {
    Options {
        from: vec!["/kafka".into()],
        data_dir: "/data".into(),
        node_id: 1,
        skip: Vec::new(),
        partial: false,
        remove: false,
    }
}

/// As the command does it: the data directory is there, and its name durable, before the engine is given it. An attempt
/// before may have been killed between the two.
async fn take_in(options: &Options) -> Result<Report, AdoptError> {
    rt::fs::create_dir_all(&options.data_dir).await?;
    rt::fs::sync_dir(Path::new("/")).await?;
    adopt(options).await
}

async fn start(shards: usize) -> Result<Vec<Broker>, String> {
    node::try_start(shards).await
}

/// (offset, leader epoch) of every record from `offset` on.
async fn read(broker: &Broker, index: i32, offset: i64) -> Vec<(i64, i32)> {
    node::read(broker, PartitionId::new(TOPIC, index), offset).await
}

async fn append(broker: &Broker, index: i32, bytes: Vec<u8>) -> Result<i64, String> {
    node::append(broker, PartitionId::new(TOPIC, index), bytes).await
}

async fn damage() -> Vec<PathBuf> {
    damaged_files(&verify().await.0)
}

fn served_as_kafka_had_it(sim: &Sim, shards: usize) {
    assert_eq!(sim.block_on(damage()), Vec::<PathBuf>::new());
    sim.block_on(async move {
        let brokers = start(shards).await.unwrap();
        let broker = &brokers[shards - 1];
        let had: Vec<(i64, i32)> = (0..RECORDS)
            .map(|o| (o, if o < 30 { 4 } else { 9 }))
            .collect();
        assert_eq!(read(broker, 0, 7).await, had[7..]);
        assert_eq!(read(broker, 1, 0).await, had);
        let epoch = broker.image().topic("orders").unwrap().partitions[0].leader_epoch;
        assert!(
            epoch > 9,
            "a new leader's epoch is newer than Kafka's: {epoch}"
        );
        let id = broker.new_producer_id().await.unwrap();
        assert!(
            id > 500,
            "producer ids of Kafka are not given out again: {id}"
        );
        // The producer goes on where it was: its last batch is known, the next is taken.
        let again = append(broker, 1, batch(58, -1, 3_000 + 58 * 7, Some((500, 29)))).await;
        assert_eq!(
            again,
            Ok(58),
            "a batch that Kafka stored is not stored twice"
        );
        assert!(append(broker, 1, batch(0, -1, 10, Some((500, 31))))
            .await
            .is_err());
        assert_eq!(
            append(broker, 1, batch(0, -1, 10, Some((500, 30)))).await,
            Ok(60)
        );
        for one in &brokers {
            let one = one.clone();
            rt::spawn(rt::Class::Network, async move {
                one.close().await.unwrap();
            });
        }
        rt::sleep(Duration::from_secs(20)).await;
    });
    sim.crash(CrashPolicy::POWER_LOST);
    assert_eq!(sim.block_on(damage()), Vec::<PathBuf>::new());
}

#[test]
fn kafkas_directory_is_taken_in_whole() {
    let sim = Sim::new(1, SimConfig::default());
    kafka_directory(&sim, Path::new("/kafka"));
    let report: Report = sim.block_on(async { take_in(&options()).await }).unwrap();
    assert_eq!(report.topics.len(), 1);
    assert_eq!(
        (report.topics[0].partitions, report.topics[0].records),
        (2, 120)
    );
    assert!(
        report.topics[0].kept_for_ever,
        "records of 1970 are not deleted by the default retention"
    );
    let skipped: Vec<&PathBuf> = report.skipped.iter().map(|s| &s.path).collect();
    assert_eq!(skipped.len(), 2, "{skipped:?}");
    let twice = sim.block_on(async { take_in(&options()).await });
    assert!(matches!(twice, Err(AdoptError::Refused(_))), "{twice:?}");
    served_as_kafka_had_it(&sim, 2);
}

#[test]
fn a_used_directory_takes_more_in_and_kafkas_may_be_emptied() {
    const MINE: TopicId = TopicId([8; 16]);
    let sim = Sim::new(2, SimConfig::default());
    kafka_directory(&sim, Path::new("/kafka"));
    sim.block_on(async {
        let brokers = start(2).await.unwrap();
        let create = Command::CreateTopic {
            id: MINE,
            name: "mine".into(),
            internal: false,
            partitions: 1,
            replication_factor: 1,
            assignment: Vec::new(),
            overrides: Overrides::new(),
        };
        brokers[0].propose(create).await.unwrap();
        let mine = PartitionId::new(MINE, 0);
        let done = node::append(&brokers[0], mine, batch(0, -1, 100, None)).await;
        assert_eq!(done, Ok(0));
    });
    sim.crash(CrashPolicy::Process);
    let unclean = sim.block_on(async { take_in(&options()).await });
    assert!(
        matches!(&unclean, Err(AdoptError::Refused(why)) if why[0].contains("stopped cleanly")),
        "{unclean:?}"
    );
    sim.block_on(async {
        let brokers = start(2).await.unwrap();
        let (a, b) = (brokers[0].clone(), brokers[1].clone());
        let other = rt::spawn_joined(rt::Class::Network, async move { b.close().await });
        a.close().await.unwrap();
        other.await.unwrap();
    });
    sim.crash(CrashPolicy::Process);
    let mut moving = options();
    moving.remove = true;
    sim.block_on(async move { take_in(&moving).await }).unwrap();
    let left = sim.disk().files();
    assert!(
        !left.iter().any(|f| f.starts_with("/kafka/orders-0")),
        "moved"
    );
    assert!(
        left.iter()
            .any(|f| f.starts_with("/kafka/__consumer_offsets-3")),
        "left"
    );
    served_as_kafka_had_it(&sim, 2);
    sim.block_on(async {
        let brokers = start(1).await.unwrap();
        let latest = OffsetSpec::Latest {
            read_committed: false,
        };
        let mine = PartitionId::new(MINE, 0);
        let end = brokers[0].list_offset(mine, -1, latest).await.unwrap();
        assert_eq!(end.offset, 1, "what was there before still is");
    });
}

#[test]
fn an_adoption_that_is_cut_short_is_repeated_and_nothing_serves_before() {
    let mut cut_short = 0;
    for seed in 0..30 {
        let sim = Sim::new(seed, SimConfig::default());
        kafka_directory(&sim, Path::new("/kafka"));
        let mut attempts = 0;
        loop {
            attempts += 1;
            // Longer each time, so that one attempt comes to its end.
            let patience = Duration::from_micros(sim.random() % (3_000 * attempts));
            let done =
                sim.block_on(async move { rt::timeout(patience, take_in(&options())).await });
            let done = done.map(|d| d.unwrap_or_else(|e| panic!("seed {seed}: {e}")));
            sim.crash(match (&done, seed % 2) {
                (Some(_), _) => CrashPolicy::POWER_LOST,
                (None, 0) => CrashPolicy::Process,
                (None, _) => CrashPolicy::POWER,
            });
            let there = |name| {
                sim.disk()
                    .read_raw(&Path::new("/data").join(name))
                    .is_some()
            };
            if there("adopt.json") {
                assert!(done.is_none(), "seed {seed}: done, and not durable");
                let refused = sim.block_on(start(1)).map(|_| ());
                cut_short += 1;
                assert!(
                    refused.as_ref().is_err_and(|e| e.contains("cut short")),
                    "{refused:?}"
                );
                sim.crash(CrashPolicy::Process);
            } else if there("manifest.json") {
                // Done, or cut short behind its last step, the removal of the marker: a start makes that durable.
                break;
            } else {
                assert!(done.is_none(), "seed {seed}: done, and lost");
            }
        }
        served_as_kafka_had_it(&sim, 1 + seed as usize % 3);
    }
    assert!(cut_short > 30, "adoptions were cut short: {cut_short}");
}

#[test]
fn readers_of_committed_records_are_told_what_kafka_aborted() {
    let sim = Sim::new(21, SimConfig::default());
    kafka_directory(&sim, Path::new("/kafka"));
    with_transactions(&sim, None);
    sim.block_on(async { take_in(&options()).await }).unwrap();
    for _ in 0..2 {
        sim.block_on(async {
            let brokers = start(1).await.unwrap();
            for (from, expected) in [
                // What is read ends with a segment, and only what was aborted of it is told.
                (0, vec![(901, 15)]),
                (39, vec![(901, 15)]),
                (40, vec![(900, 40)]),
                (42, vec![]),
            ] {
                let fetched = committed(&brokers[0], from).await;
                assert_eq!(fetched.last_stable, RECORDS, "nothing is open");
                let aborted = fetched.aborted.unwrap().into_iter();
                let aborted: Vec<_> = aborted.map(|a| (a.producer_id, a.first_offset)).collect();
                assert_eq!(aborted, expected, "from {from}");
            }
            node::close(&brokers).await;
        });
    }
}

/// What a reader of committed records gets of partition 1.
async fn committed(broker: &Broker, offset: i64) -> Fetched {
    let item = FetchItem {
        partition: PartitionId::new(TOPIC, 1),
        offset,
        max_bytes: 1 << 20,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
    };
    let options = FetchOptions {
        max_wait: Duration::ZERO,
        min_bytes: 0,
        max_bytes: 1 << 20,
        read_committed: true,
    };
    let mut results = broker.fetch(vec![item], options).await;
    results.remove(0).unwrap()
}

#[test]
fn what_cannot_be_served_rightly_is_refused_before_anything_changes() {
    type Spoil = fn(&Sim);
    let cases: [(&str, Spoil); 7] = [
        ("clean", |sim| {
            sim.disk()
                .write_raw(Path::new("/kafka/.kafka_cleanshutdown.gone"), b"")
        }),
        ("CRC-32C", |sim| {
            sim.disk().flip_bit(
                Path::new("/kafka/orders-0/00000000000000000020.log"),
                9_000,
                1,
            )
        }),
        ("log cleaner was not there", |sim| {
            sim.disk().write_raw(
                Path::new("/kafka/orders-1/00000000000000000020.log"),
                &batch(25, 4, 10, None),
            )
        }),
        ("ends within a batch", |sim| {
            let path = Path::new("/kafka/orders-1/00000000000000000040.log");
            let mut log = sim.disk().read_raw(path).unwrap();
            log.truncate(log.len() - 1);
            sim.disk().write_raw(path, &log);
        }),
        ("neither committed nor aborted", |sim| {
            with_transactions(sim, Some(55))
        }),
        ("never committed", |sim| {
            sim.disk().write_raw(
                Path::new("/kafka/replication-offset-checkpoint"),
                b"0\n1\norders 0 59\n",
            )
        }),
        ("topic's id", |sim| {
            sim.disk().write_raw(
                Path::new("/kafka/orders-0/partition.metadata"),
                b"version: 0\n",
            )
        }),
    ];
    for (expected, spoil) in cases {
        let sim = Sim::new(9, SimConfig::default());
        kafka_directory(&sim, Path::new("/kafka"));
        spoil(&sim);
        let from = if expected == "clean" {
            "/other"
        } else {
            "/kafka"
        };
        if expected == "clean" {
            sim.disk()
                .write_raw(Path::new("/other/meta.properties"), b"");
        }
        let mut options = options();
        options.from = vec![from.into()];
        let refused = sim.block_on(async move { take_in(&options).await });
        let Err(AdoptError::Refused(why)) = refused else {
            panic!("{expected}: {refused:?}");
        };
        let why = why.join(" ");
        assert!(why.contains(expected), "{expected}: {why}");
        let touched = sim
            .disk()
            .files()
            .into_iter()
            .filter(|f| f.starts_with("/data"))
            .count();
        assert_eq!(touched, 0, "{expected}: nothing was changed");
    }
}

#[test]
fn compacted_logs_are_taken_in_with_their_gaps() {
    let sim = Sim::new(10, SimConfig::default());
    kafka_directory(&sim, Path::new("/kafka"));
    let put = |name: &str, content: &[u8]| sim.disk().write_raw(Path::new(name), content);
    // Of a segment one batch is left, of the next one none, and nothing is new behind.
    let middle = batch(25, 4, 10, None);
    put("/kafka/orders-1/00000000000000000020.log", &middle);
    put("/kafka/orders-1/00000000000000000040.log", b"");
    put("/kafka/orders-1/00000000000000000060.log", b"");
    put("/kafka/cleaner-offset-checkpoint", b"0\n1\norders 1 60\n");
    sim.block_on(async { take_in(&options()).await.unwrap() });
    for round in 0..2 {
        assert_eq!(sim.block_on(damage()), Vec::<PathBuf>::new());
        sim.block_on(async move {
            let brokers = start(1).await.unwrap();
            let mut had: Vec<(i64, i32)> = (0..20).map(|o| (o, 4)).collect();
            had.push((25, 4));
            let found = read(&brokers[0], 1, 0).await;
            assert_eq!(found[..21], had);
            assert_eq!(read(&brokers[0], 1, 22).await[0], (25, 4));
            assert_eq!(read(&brokers[0], 1, 26).await.len(), round);
            let at = append(&brokers[0], 1, Batch::new(1, 10).encode()).await;
            assert_eq!(at, Ok(60 + round as i64));
            assert_eq!(read(&brokers[0], 1, 26).await.len(), round + 1);
            brokers[0].close().await.unwrap();
        });
        sim.crash(CrashPolicy::Process);
    }
}

#[test]
fn a_name_that_collides_is_refused_before_anything_changes() {
    let sim = Sim::new(13, SimConfig::default());
    kafka_directory(&sim, Path::new("/kafka"));
    sim.block_on(async {
        let brokers = start(1).await.unwrap();
        let create = Command::CreateTopic {
            id: TopicId([1; 16]),
            name: "orders".into(),
            internal: false,
            partitions: 1,
            replication_factor: 1,
            assignment: Vec::new(),
            overrides: Overrides::new(),
        };
        brokers[0].propose(create).await.unwrap();
        brokers[0].close().await.unwrap();
    });
    sim.crash(CrashPolicy::Process);
    let refused = sim.block_on(async { take_in(&options()).await });
    assert!(
        matches!(&refused, Err(AdoptError::Refused(why)) if why[0].contains("already exists")),
        "{refused:?}"
    );
    assert!(sim.disk().read_raw(Path::new("/data/adopt.json")).is_none());
}

#[test]
fn unknown_folders_are_set_aside_and_never_served() {
    let sim = Sim::new(12, SimConfig::default());
    sim.block_on(async {
        let brokers = start(1).await.unwrap();
        brokers[0].close().await.unwrap();
    });
    sim.crash(CrashPolicy::Process);
    let unknown = Path::new("/data/topics/orders-0/00000000000000000000.log");
    sim.disk().write_raw(unknown, b"not ours");
    sim.block_on(async {
        let brokers = start(1).await.unwrap();
        assert!(brokers[0].image().topic("orders").is_none());
    });
    assert_eq!(sim.disk().read_raw(unknown), None);
    let aside = Path::new("/data/set-aside/orders-0/00000000000000000000.log");
    assert_eq!(sim.disk().read_raw(aside), Some(b"not ours".to_vec()));
}
