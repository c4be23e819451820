//! Owns taking cleanly stopped log directories of Apache Kafka into a data directory.
//! Does not know the command line; the caller holds the lock of the data directory, and has made its name durable.
//! Invariant: until everything is in place a marker keeps every broker from serving any of it, and an
//! adoption that was cut short may be repeated.

mod plan;
mod scan;
pub(crate) mod source;

use crate::checkpoint::{Checkpoint, PartitionState};
use crate::journal::entry::JournalId;
use crate::manifest::{JournalRef, Manifest};
use crate::meta::{self, Command, Image, MetaError, MetaHandle, MetaOptions, NodeInfo, Overrides};
use crate::meta::{machine, offline};
use crate::rt;
use crate::types::PartitionId;
use plan::{Plan, PlannedPartition, PlannedTopic};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

pub use plan::Skipped;

type Topics = BTreeMap<String, PlannedTopic>;

const MARKER: &str = "adopt.json";
const MARKER_BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, Debug)]
pub struct Options {
    /// Kafka's log directories.
    pub from: Vec<PathBuf>,
    pub data_dir: PathBuf,
    pub node_id: i32,
    /// Topics to leave out.
    pub skip: Vec<String>,
    /// Take topics of which not all partitions are here; the others begin empty.
    pub partial: bool,
    /// Remove what was taken in from where it was.
    pub remove: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Nothing was changed.
    #[error("{}", .0.join("\n  "))]
    Refused(Vec<String>),
    #[error(transparent)]
    Meta(#[from] MetaError),
    #[error("{0}")]
    Partition(#[from] scan::Unfit),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// One topic that was taken in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdoptedTopic {
    pub name: String,
    pub partitions: usize,
    pub records: u64,
    pub bytes: u64,
    /// Old records that the default retention would delete at once: retention.ms was set to -1.
    pub kept_for_ever: bool,
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Report {
    pub topics: Vec<AdoptedTopic>,
    pub skipped: Vec<Skipped>,
    /// Source folders that could not be removed, with `Options::remove`.
    pub left: Vec<String>,
}

/// What is under way, for the one who repeats it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    from: Vec<PathBuf>,
}

/// Why a broker may not start on this directory: an adoption was cut short.
pub async fn unfinished(data_dir: &Path) -> io::Result<Option<String>> {
    let marker = marker(data_dir).await?;
    Ok(marker.map(|m| {
        let from: Vec<String> = m.from.iter().map(|f| f.display().to_string()).collect();
        format!(
            "taking in {} was cut short: repeat `millrace adopt {} --data-dir {}`",
            from.join(" "),
            from.join(" "),
            data_dir.display()
        )
    }))
}

async fn marker(data_dir: &Path) -> io::Result<Option<Marker>> {
    match rt::fs::read(&data_dir.join(MARKER), MARKER_BYTES_MAX).await {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
            let path = data_dir.join(MARKER);
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {e}", path.display()),
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes the directories in. The data directory is there, and its name is durable: an attempt that was killed may have left
/// a name that is not, and whoever finds a folder does not flush its name again.
///
/// # Errors
/// What stands in the way; after [`AdoptError::Refused`] nothing was changed.
pub async fn adopt(options: &Options) -> Result<Report, AdoptError> {
    let repeated = marker(&options.data_dir).await?;
    let ours = Marker {
        from: options.from.clone(),
    };
    if repeated.as_ref().is_some_and(|m| *m != ours) {
        let why = unfinished(&options.data_dir).await?;
        return Err(AdoptError::Refused(why.into_iter().collect()));
    }
    let manifest = Manifest::read(&options.data_dir).await?;
    let mut plan = plan::plan(options).await?;
    let target = Target {
        options,
        repeated: repeated.is_some(),
    };
    target
        .check(manifest.as_ref(), &plan.topics, &mut plan.problems)
        .await?;
    if !plan.problems.is_empty() {
        return Err(AdoptError::Refused(plan.problems));
    }
    let text = serde_json::to_vec(&ours).map_err(io::Error::other)?;
    rt::fs::write_atomic(&options.data_dir.join(MARKER), &text).await?;
    let report = target.take(plan, manifest).await?;
    Ok(report)
}

struct Target<'a> {
    options: &'a Options,
    /// An adoption of the same was cut short before.
    repeated: bool,
}

impl Target<'_> {
    /// Whether the data directory can take the topics.
    async fn check(
        &self,
        manifest: Option<&Manifest>,
        topics: &Topics,
        problems: &mut Vec<String>,
    ) -> Result<(), AdoptError> {
        let dir = self.options.data_dir.display();
        for (name, topic) in topics {
            for index in topic.partitions.keys() {
                let folder = format!("{name}-{index}");
                let path = self.options.data_dir.join("topics").join(&folder);
                if !self.repeated && rt::fs::exists(&path).await? {
                    problems.push(format!("{} is in the way", path.display()));
                }
            }
        }
        if manifest.is_some_and(|m| !m.clean) {
            problems.push(format!(
                "the broker of {dir} was not stopped cleanly: start it once and stop it with SIGTERM"
            ));
        }
        let node = self.options.node_id;
        let mut image = match offline::read(&self.options.data_dir).await? {
            Some(known) if known.node_id != node => {
                let theirs = known.node_id;
                problems.push(format!(
                    "{dir} belongs to node {theirs}, not {node}: give --node-id {theirs}"
                ));
                return Ok(());
            }
            Some(known) => known.image,
            None => Image::new(String::new(), node, Default::default()).map_err(MetaError::from)?,
        };
        // On a copy, what will be proposed: a refusal later would leave the adoption half done.
        machine::apply(&mut image, &register(node)).map_err(MetaError::from)?;
        for (name, topic) in topics {
            let here = image.topic(name).is_some_and(|t| t.id == topic.id);
            if here && self.repeated {
                continue;
            }
            if let Err(refused) = machine::apply(&mut image, &create(name, topic, false)) {
                problems.push(format!("{refused} (--skip {name} leaves it out)"));
            }
        }
        Ok(())
    }

    async fn take(&self, plan: Plan, manifest: Option<Manifest>) -> Result<Report, AdoptError> {
        let topics_dir = self.options.data_dir.join("topics");
        rt::fs::create_dir_all(&topics_dir).await?;
        rt::fs::create_dir_all(&self.options.data_dir.join("checkpoints")).await?;
        for (name, topic) in &plan.topics {
            for (index, partition) in &topic.partitions {
                let dir = topics_dir.join(format!("{name}-{index}"));
                place(&dir, topic, partition).await?;
            }
        }
        rt::fs::sync_dir(&topics_dir).await?;
        let mut report = Report {
            skipped: plan.skipped,
            ..Report::default()
        };
        self.register(&plan.topics, manifest.is_some(), &mut report)
            .await?;
        self.checkpoint(&plan.topics, manifest).await?;
        rt::fs::remove_file(&self.options.data_dir.join(MARKER)).await?;
        rt::fs::sync_dir(&self.options.data_dir).await?;
        if self.options.remove {
            for topic in plan.topics.values() {
                for partition in topic.partitions.values() {
                    if let Err(error) = rt::fs::remove_dir_all(&partition.from).await {
                        report
                            .left
                            .push(format!("{}: {error}", partition.from.display()));
                    }
                }
            }
        }
        Ok(report)
    }

    /// Topics, epochs and producer ids go through the same state machine as on a running node.
    async fn register(
        &self,
        topics: &Topics,
        used: bool,
        report: &mut Report,
    ) -> Result<(), AdoptError> {
        let node = node_info(self.options.node_id);
        let options = MetaOptions {
            must_exist: used,
            ..MetaOptions::default()
        };
        let meta = meta::open(&self.options.data_dir, node, options).await?;
        let result = propose_all(&meta, topics, report).await;
        let closed = meta.close().await;
        result?;
        closed?;
        Ok(())
    }

    /// Adds the partitions to the checkpoints of the shards that will own them.
    async fn checkpoint(
        &self,
        topics: &Topics,
        manifest: Option<Manifest>,
    ) -> Result<(), AdoptError> {
        let data_dir = &self.options.data_dir;
        let mut states = Vec::new();
        for topic in topics.values() {
            for (index, partition) in &topic.partitions {
                states.push(state(PartitionId::new(topic.id, *index), partition));
            }
        }
        let Some(manifest) = manifest else {
            let id = (u128::from(rt::random_u64()) << 64) | u128::from(rt::random_u64());
            let checkpoint = Checkpoint {
                journal: JournalId(id),
                generation: 1,
                replay_from: 1,
                partitions: states,
            };
            checkpoint.write(data_dir, 0).await?;
            let journal = JournalRef {
                id: format!("{id:032x}"),
                dir: "g1-s0".to_string(),
            };
            // Clean: the journal it names is empty and need not be there.
            Manifest::new(1, true, vec![journal])
                .write(data_dir)
                .await?;
            return Ok(());
        };
        let shards = manifest.journals.len();
        for shard in 0..shards {
            let mut checkpoint = Checkpoint::read(data_dir, manifest.generation, shard).await?;
            let ours: Vec<PartitionState> = states
                .iter()
                .filter(|s| s.id.shard(shards) == shard)
                .cloned()
                .collect();
            checkpoint
                .partitions
                .retain(|old| !ours.iter().any(|new| new.id == old.id));
            checkpoint.partitions.extend(ours);
            checkpoint.write(data_dir, shard).await?;
        }
        Ok(())
    }
}

/// Puts one partition's files where the broker looks for them.
async fn place(
    dir: &Path,
    topic: &PlannedTopic,
    partition: &PlannedPartition,
) -> Result<(), AdoptError> {
    // What an attempt before may have left.
    match rt::fs::remove_dir_all(dir).await {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    rt::fs::create_dir_all(dir).await?;
    let identity = format!("version: 0\ntopic_id: {}\n", topic.id);
    rt::fs::write_atomic(&dir.join("partition.metadata"), identity.as_bytes()).await?;
    for segment in &partition.scanned.segments {
        scan::copy(&partition.from, dir, segment).await?;
    }
    rt::fs::sync_dir(dir).await?;
    Ok(())
}

fn state(id: PartitionId, partition: &PlannedPartition) -> PartitionState {
    let scanned = &partition.scanned;
    PartitionState {
        id,
        log_start: partition.log_start,
        durable: scanned.end,
        truncation: 0,
        offline_from: None,
        cleaned: scanned.cleaned,
        epochs: scanned.epochs.pairs().to_vec(),
        producers: scanned.producers.durable_entries(i64::MAX),
        // A log with open ones is not taken in.
        transactions: scanned.aborted.clone(),
        segments: scanned.segments.clone(),
        resume: scanned.end,
    }
}

/// This node as it is registered until it starts and says where it is.
fn node_info(id: i32) -> NodeInfo {
    NodeInfo {
        id,
        host: "127.0.0.1".to_string(),
        port: 9092,
        rack: None,
    }
}

fn register(node: i32) -> Command {
    let NodeInfo {
        id,
        host,
        port,
        rack,
    } = node_info(node);
    Command::RegisterNode {
        id,
        host,
        port,
        rack,
    }
}

fn create(name: &str, topic: &PlannedTopic, kept_for_ever: bool) -> Command {
    let mut overrides = Overrides::new();
    if kept_for_ever {
        overrides.insert("retention.ms".to_string(), "-1".to_string());
    }
    Command::CreateTopic {
        id: topic.id,
        name: name.to_string(),
        internal: false,
        partitions: topic.total(),
        replication_factor: 1,
        assignment: Vec::new(),
        overrides,
    }
}

async fn propose_all(
    meta: &MetaHandle,
    topics: &Topics,
    report: &mut Report,
) -> Result<(), AdoptError> {
    for (name, topic) in topics {
        let image = meta.image();
        let kept_for_ever = expires(&image, topic);
        if image.topic_by_id(topic.id).is_none() {
            meta.propose(create(name, topic, kept_for_ever)).await?;
        }
        let partitions = topic.partitions.values();
        let scanned = partitions.map(|p| &p.scanned);
        let latest = scanned.clone().map(|s| s.latest_epoch).max();
        let producer = scanned.clone().map(|s| s.producer_id_max).max();
        meta.propose(Command::RaiseFloors {
            id: topic.id,
            leader_epoch: latest.unwrap_or(0),
            producer_id: producer.unwrap_or(-1),
        })
        .await?;
        report.topics.push(AdoptedTopic {
            name: name.clone(),
            partitions: topic.partitions.len(),
            records: scanned.clone().map(|s| s.records).sum(),
            bytes: scanned.map(|s| s.bytes).sum(),
            kept_for_ever,
        });
    }
    Ok(())
}

/// Whether the default retention would delete some of it as soon as the broker starts. Kafka's settings
/// are not in its log directories, and an adoption must not be what loses records.
fn expires(image: &Image, topic: &PlannedTopic) -> bool {
    let Some(keep) = image.default_topic_config.retention_ms else {
        return false;
    };
    let oldest = rt::wall_ms().saturating_sub(i64::try_from(keep).unwrap_or(i64::MAX));
    topic.partitions.values().any(|p| {
        let mut segments = p.scanned.segments.iter();
        segments.any(|s| s.max_timestamp_ms >= 0 && s.max_timestamp_ms < oldest)
    })
}
