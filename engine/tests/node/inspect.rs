//! Owns the proof that verify sees: one flipped bit in each file of a stopped node is named, by file.
//! Does not know how damage is shown. Everything runs on the simulator.
//! Invariant checked: damage is found before anything reads it, and nothing else is called damage.

use crate::node::{append, config, damaged_files, read, start, verify, Batch};
use millrace_engine::api::Broker;
use millrace_engine::formats::Checkpoint;
use millrace_engine::inspect::dump::{dump, Item};
use millrace_engine::inspect::repair::{repair, AcceptLoss, RepairError, Repaired};
use millrace_engine::inspect::{Directories, Finding, Level, Subject};
use millrace_engine::rt;
use millrace_engine::rt::sim::{CrashPolicy, Sim, SimConfig};
use millrace_engine::types::{PartitionId, TopicId};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

const TOPIC: TopicId = TopicId([9; 16]);

async fn create_topic(broker: &Broker) {
    crate::node::create_topic(broker, TOPIC, "t", 2, 1 << 20).await;
}

/// Some rolled segments in partition 0, a few records in partition 1.
async fn fill(broker: &Broker, batches: i32) {
    for n in 0..batches {
        let (index, bytes) = if n % 10 == 9 { (1, 300) } else { (0, 100_000) };
        let batch = Batch {
            producer: (n % 10 == 3).then_some((77, n / 10)),
            ..Batch::new(n as u8, bytes)
        };
        let done = append(broker, PartitionId::new(TOPIC, index), batch.encode()).await;
        done.unwrap_or_else(|e| panic!("append: {e}"));
    }
}

/// A node with data that was stopped cleanly.
fn stopped(sim: &Sim) {
    sim.block_on(async {
        let broker = start().await;
        create_topic(&broker).await;
        fill(&broker, 50).await;
        broker.close().await.unwrap();
    });
    sim.crash(CrashPolicy::Process);
}

/// Whether this is a file of its partition's newest segment.
fn is_newest(sim: &Sim, file: &Path) -> bool {
    let all = sim.disk().files().into_iter();
    let newest = all.filter(|f| f.parent() == file.parent() && f.extension() == file.extension());
    newest.max().as_deref() == Some(file)
}

fn end_of(sim: &Sim, path: &Path) -> u64 {
    sim.disk().read_raw(path).expect("is there").len() as u64
}

#[test]
fn a_flipped_bit_in_any_file_of_a_clean_directory_is_named() {
    let sim = Sim::new(1, SimConfig::default());
    stopped(&sim);
    let (findings, summary) = sim.block_on(verify());
    assert_eq!(damaged_files(&findings), Vec::<PathBuf>::new());
    assert!(summary.clean && summary.segments >= 5, "{summary:?}");
    assert_eq!((summary.partitions, summary.records), (2, 50));
    let files: Vec<PathBuf> = sim
        .disk()
        .files()
        .into_iter()
        .filter(|f| !f.starts_with("/data/journal"))
        .collect();
    let mut checked = 0;
    for file in files {
        let size = end_of(&sim, &file);
        // Metadata and checksum files are whole blocks whose padding says nothing.
        let used = match file.extension().and_then(|e| e.to_str()) {
            // Of a segment that takes more bytes the checkpoint has the checksums.
            Some("sum") if is_newest(&sim, &file) => continue,
            Some("sum") => {
                let log = end_of(&sim, &file.with_extension("log"));
                16 + 4 * log.div_ceil(4096)
            }
            Some(_) => size,
            None if file.ends_with("metadata") => 200,
            None => size,
        };
        if used < 12 {
            continue; // an empty index has nothing to flip
        }
        let newline = file.ends_with("manifest.json");
        // Byte 14 of a segment is a leader epoch, which the batch's own CRC leaves out.
        for at in [
            0,
            1,
            14.min(used - 1),
            used / 3,
            used / 2,
            used - 2 - u64::from(newline),
        ] {
            sim.disk().flip_bit(&file, at, 3);
            let (findings, _) = sim.block_on(verify());
            let named = damaged_files(&findings);
            assert!(
                named.contains(&file),
                "{} byte {at}: {findings:?}",
                file.display()
            );
            sim.disk().flip_bit(&file, at, 3);
            checked += 1;
        }
    }
    assert!(checked > 100, "{checked}");
    assert_eq!(
        damaged_files(&sim.block_on(verify()).0),
        Vec::<PathBuf>::new()
    );
}

#[test]
fn acknowledged_commits_that_are_damaged_are_told_from_a_torn_tail() {
    let sim = Sim::new(2, SimConfig::default());
    sim.block_on(async {
        let broker = start().await;
        create_topic(&broker).await;
        fill(&broker, 20).await;
    });
    sim.crash(CrashPolicy::Process);
    let (findings, summary) = sim.block_on(verify());
    assert_eq!(damaged_files(&findings), Vec::<PathBuf>::new());
    assert!(!summary.clean && summary.commits >= 20, "{summary:?}");

    let journal = PathBuf::from("/data/journal/g1-s0/000000.journal");
    sim.disk().flip_bit(&journal, 5000, 1);
    let (findings, _) = sim.block_on(verify());
    let damage: Vec<&Finding> = findings
        .iter()
        .filter(|f| f.level == Level::Damage)
        .collect();
    assert!(damage.iter().all(|f| f.file == journal), "{damage:?}");
    assert!(damage[0].what.contains("acknowledged"), "{damage:?}");
    assert!(damage[0].byte.is_some_and(|b| b <= 5000), "{damage:?}");
    sim.disk().flip_bit(&journal, 5000, 1);

    // The last commit was never named as flushed: damage there is a torn tail.
    let raw = sim.disk().read_raw(&journal).unwrap();
    let last = (0..raw.len() / 4096)
        .rev()
        .find(|b| raw[b * 4096..b * 4096 + 4] == *b"MLJ1")
        .unwrap() as u64;
    sim.disk().flip_bit(&journal, last * 4096 + 200, 1);
    let (findings, _) = sim.block_on(verify());
    assert_eq!(
        damaged_files(&findings),
        Vec::<PathBuf>::new(),
        "{findings:?}"
    );
    assert!(
        findings.iter().any(|f| f.level == Level::TornTail),
        "{findings:?}"
    );
}

/// Flips one bit of a finished segment's block while the broker runs; nobody reads.
#[test]
fn the_scrubber_reports_damage_that_no_reader_met() {
    let sim = Sim::new(3, SimConfig::default());
    stopped(&sim);
    let inner = sim.clone();
    sim.block_on(async move {
        let broker = start().await;
        let pass = config().scrub_pause + Duration::from_secs(60);
        rt::sleep(pass).await;
        let sound = broker.metrics().counters;
        assert_eq!(sound.scrub_damaged_blocks, 0);
        assert!(sound.scrubbed_bytes > 3 << 20, "{sound:?}");
        let bound = config().scrub_bytes_per_second * 60;
        assert!(sound.scrubbed_bytes < bound, "{sound:?}");

        let segment = Path::new("/data/topics/t-0/00000000000000000000.log");
        inner.disk().flip_bit(segment, 300_000, 5);
        let sums = Path::new("/data/topics/t-0/00000000000000000010.sum");
        inner.disk().flip_bit(sums, 40, 5);
        rt::sleep(pass).await;
        assert_eq!(broker.metrics().counters.scrub_damaged_blocks, 2);
        rt::sleep(pass).await;
        let told = broker.metrics().counters;
        assert_eq!(told.scrub_damaged_blocks, 2, "each block once");
        assert_eq!((told.reads_disk, told.reads_memory), (0, 0));
    });
}

/// Any bytes in any file: a verdict, never a panic, and what is read stays bounded.
#[test]
fn hostile_files_are_looked_at_without_harm() {
    for seed in 0..12 {
        let sim = Sim::new(100 + seed, SimConfig::default());
        sim.block_on(async move {
            let broker = start().await;
            create_topic(&broker).await;
            fill(&broker, 24).await;
            if seed % 2 == 0 {
                broker.close().await.unwrap();
            }
        });
        sim.crash(CrashPolicy::Process);
        let files = sim.disk().files();
        for _ in 0..25 {
            let file = &files[sim.random() as usize % files.len()];
            let whole = sim.disk().read_raw(file).unwrap();
            let spoilt = spoil(&sim, &whole);
            sim.disk().write_raw(file, &spoilt);
            let looked = file.clone();
            sim.block_on(async move {
                verify().await;
                let mut bytes = 0;
                let dumped = dump(&looked, &mut |item| {
                    if let Item::Batch { header, .. } = item {
                        bytes += header.size;
                    }
                    true
                })
                .await;
                let known = looked
                    .extension()
                    .is_some_and(|e| e == "log" || e == "journal");
                assert_eq!(dumped.is_ok(), known, "{}: {dumped:?}", looked.display());
                assert!(bytes <= spoilt.len(), "no batch is longer than its file");
            });
            sim.disk().write_raw(file, &whole);
        }
    }
}

/// One of: noise over a stretch, cut, grown, emptied, stretches exchanged, bits flipped.
fn spoil(sim: &Sim, whole: &[u8]) -> Vec<u8> {
    let mut out = whole.to_vec();
    let at = |n: usize| sim.random() as usize % n.max(1);
    match at(6) {
        0 => {
            let (from, len) = (at(out.len()), at(5_000));
            for byte in out.iter_mut().skip(from).take(len) {
                *byte = sim.random() as u8;
            }
        }
        1 => out.truncate(at(whole.len())),
        2 => out.extend((0..at(9_000)).map(|_| sim.random() as u8)),
        3 => out.clear(),
        4 => out.rotate_left(at(whole.len())),
        _ => {
            for _ in 0..20 {
                let bit = at(whole.len() * 8);
                if let Some(byte) = out.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
            }
        }
    }
    out
}

async fn mended(accept: &[AcceptLoss]) -> Result<Repaired, RepairError> {
    repair(&Directories::new("/data".into(), None), accept).await
}

fn give_up(partition: &str, from: i64) -> AcceptLoss {
    AcceptLoss {
        partition: partition.into(),
        from,
    }
}

/// Everything is served up to `end`, and the next record goes there.
fn serves(sim: &Sim, index: i32, end: i64) {
    sim.block_on(async move {
        let broker = start().await;
        let id = PartitionId::new(TOPIC, index);
        let found = read(&broker, id, 0).await;
        let offsets: Vec<i64> = found.iter().map(|batch| batch.0).collect();
        assert_eq!(offsets, (0..end).collect::<Vec<_>>());
        let batch = Batch::new(7, 50).encode();
        assert_eq!(append(&broker, id, batch).await, Ok(end));
        broker.close().await.unwrap();
    });
    sim.crash(CrashPolicy::Process);
    let (findings, _) = sim.block_on(verify());
    assert_eq!(
        damaged_files(&findings),
        Vec::<PathBuf>::new(),
        "{findings:?}"
    );
}

#[test]
fn what_the_batches_prove_is_made_again() {
    let sim = Sim::new(4, SimConfig::default());
    stopped(&sim);
    let folder = Path::new("/data/topics/t-0");
    let damaged = [
        ("00000000000000000000.sum", 100),
        ("00000000000000000010.index", 9),
        ("00000000000000000020.timeindex", 3),
        ("00000000000000000030.sum", 2),
        ("partition.metadata", 20),
    ];
    for (name, byte) in damaged {
        sim.disk().flip_bit(&folder.join(name), byte, 2);
    }
    let bad = sim.disk().read_raw(&folder.join(damaged[0].0));
    let repaired = sim.block_on(mended(&[])).unwrap();
    assert_eq!(repaired.left, Vec::new(), "{:?}", repaired.done);
    assert_eq!(repaired.done.len(), damaged.len(), "{:?}", repaired.done);
    let kept = repaired.evidence.unwrap().join("topics/t-0");
    assert_eq!(sim.disk().read_raw(&kept.join(damaged[0].0)), bad);
    serves(&sim, 0, 45);
}

#[test]
fn damaged_records_go_only_where_the_operator_says_so() {
    let sim = Sim::new(5, SimConfig::default());
    stopped(&sim);
    let log = Path::new("/data/topics/t-0/00000000000000000010.log");
    let whole = sim.disk().read_raw(log);
    sim.disk().flip_bit(log, 350_000, 2);
    let damaged = sim.disk().read_raw(log);
    // Offset 13 has what is at byte 350,000.
    let repaired = sim.block_on(mended(&[])).unwrap();
    assert!(!repaired.left.is_empty(), "nothing is cut unasked");
    assert_eq!(sim.disk().read_raw(log), damaged);
    let refused = sim.block_on(mended(&[give_up("t-0", 14)])).unwrap_err();
    assert!(refused.to_string().contains("at most 13"), "{refused}");
    let refused = sim.block_on(mended(&[give_up("t-1", 0)])).unwrap_err();
    assert!(refused.to_string().contains("no damaged"), "{refused}");
    let repaired = sim.block_on(mended(&[give_up("t-0", 13)])).unwrap();
    assert_eq!(repaired.left, Vec::new(), "{:?}", repaired.done);
    let kept = repaired
        .evidence
        .unwrap()
        .join("topics/t-0/00000000000000000010.log");
    assert_eq!(sim.disk().read_raw(&kept), damaged);
    assert_ne!(whole, damaged);
    serves(&sim, 0, 13);
    serves(&sim, 1, 5);
}

#[test]
fn a_damaged_journal_is_given_up_partition_by_partition() {
    let sim = Sim::new(6, SimConfig::default());
    sim.block_on(async {
        let broker = start().await;
        create_topic(&broker).await;
        fill(&broker, 30).await;
    });
    sim.crash(CrashPolicy::Process);
    let journal = PathBuf::from("/data/journal/g1-s0/000000.journal");
    sim.disk().flip_bit(&journal, 1_200_000, 1);
    let (findings, _) = sim.block_on(verify());
    let lost: Vec<(PartitionId, i64)> = findings
        .iter()
        .filter_map(|f| match f.subject {
            Subject::Records { partition, from } => Some((partition, from)),
            _ => None,
        })
        .collect();
    assert!(!lost.is_empty(), "{findings:?}");
    let accept: Vec<AcceptLoss> = lost
        .iter()
        .map(|(id, from)| give_up(&format!("t-{}", id.index), *from))
        .collect();
    let repaired = sim.block_on(mended(&accept)).unwrap();
    sim.crash(CrashPolicy::Process);
    assert_eq!(repaired.left, Vec::new(), "{:?}", repaired.done);
    for (id, from) in lost {
        serves(&sim, id.index, from);
    }
}

/// A killed node whose newest segment that counts is damaged; gives from where on records are lost.
fn damaged_segment(sim: &Sim) -> i64 {
    sim.block_on(async {
        let broker = start().await;
        create_topic(&broker).await;
        fill(&broker, 200).await;
    });
    sim.crash(CrashPolicy::Process);
    let (_, summary) = sim.block_on(verify());
    assert!(
        !summary.clean && summary.segments > 3 && summary.commits > 10,
        "{summary:?}"
    );
    // The journal still has records of it, too.
    let mut logs = sim.disk().files();
    logs.retain(|f| f.starts_with("/data/topics/t-0") && f.extension().is_some_and(|e| e == "log"));
    logs.sort();
    let from = logs.iter().rev().find_map(|log| {
        sim.disk().flip_bit(log, 50_000, 2);
        sim.block_on(verify())
            .0
            .iter()
            .find_map(|f| match f.subject {
                Subject::Records { partition, from } if partition.index == 0 => Some(from),
                _ => None,
            })
    });
    let from = from.expect("damage is found");
    assert!(from > 13, "{from}");
    from
}

#[test]
fn what_was_given_up_does_not_come_back_from_the_journal() {
    let sim = Sim::new(7, SimConfig::default());
    let from = damaged_segment(&sim);
    let repaired = sim.block_on(mended(&[give_up("t-0", from)])).unwrap();
    sim.crash(CrashPolicy::Process);
    assert_eq!(repaired.left, Vec::new(), "{:?}", repaired.done);
    serves(&sim, 0, from);
    serves(&sim, 1, 20);
}

/// How often the log of partition 0 was cut, as the first start's checkpoint says while it is there.
fn cuts(sim: &Sim) -> u32 {
    let checkpoint = sim.disk().read_raw(Path::new("/data/checkpoints/g1-s0"));
    let checkpoint = checkpoint.map(|bytes| Checkpoint::decode(&bytes).unwrap());
    let partitions = checkpoint.map_or(Vec::new(), |c| c.partitions);
    let first = partitions.iter().find(|p| p.id.index == 0);
    first.map_or(0, |p| p.truncation)
}

/// Not even where the repair is killed after its cut: the entries of before are void from then on.
#[test]
fn what_was_given_up_does_not_come_back_where_the_repair_is_cut_short() {
    let mut met = 0;
    for seed in 0..4 {
        let sim = Sim::new(20 + seed, SimConfig::default());
        let from = damaged_segment(&sim);
        assert_eq!(cuts(&sim), 0);
        let inner = sim.clone();
        sim.block_on(async move {
            let accept = [give_up("t-0", from)];
            let repair = rt::spawn_joined(rt::Class::Storage, async move { mended(&accept).await });
            let mut cut = pin!(repair);
            // Killed some time after the checkpoint says so, before the recovery that follows has replaced it.
            while cuts(&inner) == 0 {
                let _done = rt::timeout(Duration::from_micros(20), cut.as_mut()).await;
            }
            rt::sleep(Duration::from_micros(rt::random_u64() % 300)).await;
        });
        sim.crash(CrashPolicy::Process);
        met += usize::from(cuts(&sim) == 1);
        serves(&sim, 0, from);
    }
    assert!(met > 0, "no repair was cut short in time");
}
