//! Owns making what a node stores: a simulated one takes some records, and its files are cut to a small size.
//! Does not know the formats; it takes the files as the engine wrote them.
//! Invariant: the files are of one node, so that parts of one mean something in another.

use super::{batches, made, Made};
use crate::fuzz::{index, segment};
use millrace_engine::api::{Acks, AppendItem, Broker, EngineConfig, Mailboxes, SmallParts};
use millrace_engine::meta::{Command, Overrides};
use millrace_engine::rt::sim::{Sim, SimConfig};
use millrace_engine::types::limits::BLOCK_BYTES;
use millrace_engine::types::{PartitionId, TopicId};
use millrace_net::wire::compress::Compression;
use std::path::{Path, PathBuf};

const TOPICS: [(TopicId, &str, i32); 2] = [
    (TopicId([9; 16]), "fuzzed", 2),
    (TopicId([8; 16]), "with.settings", 1),
];

/// Journals are cut to so many blocks.
const JOURNAL_BLOCKS: usize = 5;

fn config() -> EngineConfig {
    let mut config = EngineConfig::new("/data".into());
    config.memory_bytes = 1;
    config.small = Some(SmallParts {
        journal_file_bytes: 256 << 10,
        journal_files_max: 3,
        backlog_bytes_max: 128 << 10,
        cache_bytes: 256 << 10,
        file_syncs_max: 32,
    });
    config
}

pub fn make() -> Vec<Made> {
    let sim = Sim::new(1, SimConfig::default());
    let broker = sim.block_on(filled());
    let mut all = Vec::new();
    for (number, path) in with_extension(&sim, "journal").into_iter().enumerate() {
        journals(number, &read(&sim, &path), &mut all);
    }
    state(&sim, "running", &mut all);
    sim.block_on(broker.close()).expect("a disk without faults");
    state(&sim, "stopped", &mut all);
    for (number, log) in with_extension(&sim, "log").into_iter().enumerate() {
        segments(&sim, number, &log, &mut all);
    }
    all
}

async fn filled() -> Broker {
    let broker = Broker::start(config(), 0, Mailboxes::new(1)).await;
    let broker = broker.unwrap_or_else(|error| panic!("start: {error}"));
    for (id, name, partitions) in TOPICS {
        let mut overrides = Overrides::new();
        overrides.insert("index.interval.bytes".into(), "256".into());
        if partitions == 1 {
            overrides.insert("retention.ms".into(), "-1".into());
            overrides.insert("message.timestamp.type".into(), "LogAppendTime".into());
        }
        let create = Command::CreateTopic {
            id,
            name: name.into(),
            internal: false,
            partitions,
            replication_factor: 1,
            assignment: Vec::new(),
            overrides,
        };
        broker.propose(create).await.expect("a new topic");
    }
    for compression in Compression::ALL {
        let items = TOPICS.iter().flat_map(|(id, _, partitions)| {
            (0..*partitions).map(|index| PartitionId::new(*id, index))
        });
        let items = items.enumerate().map(|(number, partition)| AppendItem {
            partition,
            batch: batches::build(compression, batches::records(4 + 6 * number as i64)).into(),
        });
        for appended in broker.append(items.collect(), Acks::All).await {
            appended.expect("a batch that may be stored");
        }
    }
    let idempotent = AppendItem {
        partition: PartitionId::new(TOPICS[0].0, 0),
        batch: batches::idempotent(batches::records(3)).into(),
    };
    for appended in broker.append(vec![idempotent], Acks::All).await {
        appended.expect("a batch that may be stored");
    }
    broker
}

fn with_extension(sim: &Sim, extension: &str) -> Vec<PathBuf> {
    let mut files = sim.disk().files();
    files.retain(|path| path.extension().is_some_and(|e| e == extension));
    files
}

fn read(sim: &Sim, path: &Path) -> Vec<u8> {
    sim.disk().read_raw(path).expect("a file of the node")
}

fn journals(number: usize, bytes: &[u8], all: &mut Vec<Made>) {
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    if used == 0 {
        return;
    }
    let whole = used
        .next_multiple_of(BLOCK_BYTES)
        .min(JOURNAL_BLOCKS * BLOCK_BYTES);
    let bytes = &bytes[..whole];
    all.push(made("journal", format!("commits-{number}"), bytes));
    all.push(made(
        "journal",
        format!("one-commit-{number}"),
        &bytes[..BLOCK_BYTES],
    ));
    let mut torn = bytes.to_vec();
    torn[whole - BLOCK_BYTES + 300..].fill(0);
    all.push(made("journal", format!("torn-{number}"), torn));
    let mut hole = bytes.to_vec();
    hole[BLOCK_BYTES..2 * BLOCK_BYTES].fill(0);
    all.push(made("journal", format!("hole-{number}"), hole));
    let body = millrace_engine::formats::HEADER_BYTES..BLOCK_BYTES;
    all.push(made("journal", format!("entries-{number}"), &bytes[body]));
}

/// Manifest, checkpoints and metadata, as they are at some moment.
fn state(sim: &Sim, moment: &str, all: &mut Vec<Made>) {
    for path in sim.disk().files() {
        let bytes = read(sim, &path);
        let name = path.file_name().expect("a file").to_string_lossy();
        if path.starts_with("/data/checkpoints") {
            all.push(made("checkpoint", format!("{moment}-{name}"), bytes));
        } else if path.ends_with("manifest.json") {
            all.push(made("manifest", moment, bytes));
        } else if path.ends_with("meta/metadata") {
            let cut = bytes.len() - BLOCK_BYTES / 2;
            all.push(made("metadata", format!("{moment}-torn"), &bytes[..cut]));
            all.push(made("metadata", moment, bytes));
        }
    }
}

fn segments(sim: &Sim, number: usize, path: &Path, all: &mut Vec<Made>) {
    const SEALED_FINISHED_CLEAN: u8 = 7;
    let file = |extension: &str| read(sim, &path.with_extension(extension));
    let [log, sum, offsets, times] = ["log", "sum", "index", "timeindex"].map(file);
    let sum = &sum[..sum.len().min(16 + 4 * log.len().div_ceil(BLOCK_BYTES))];
    let pack = |flags, sum| segment::pack(flags, sum, &offsets, &times, &log);
    all.push(made("segment", format!("whole-{number}"), pack(0, sum)));
    all.push(made(
        "segment",
        format!("finished-{number}"),
        pack(SEALED_FINISHED_CLEAN, &[]),
    ));
    let bare = segment::pack(0, &[], &[], &[], &log);
    all.push(made("segment", format!("bare-{number}"), bare));
    let cut = &log[..log.len() - 7];
    let cut = segment::pack(SEALED_FINISHED_CLEAN, &[], &offsets, &times, cut);
    all.push(made("segment", format!("cut-{number}"), cut));
    let input = index::pack(log.len(), &offsets, &times);
    all.push(made("index", format!("whole-{number}"), input));
    let input = index::pack(log.len(), &offsets, &[]);
    all.push(made("index", format!("no-times-{number}"), input));
}
