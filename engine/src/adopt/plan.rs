//! Owns deciding what of Kafka's log directories is taken in, and what stands in the way.
//! Does not know how it is taken in. Changes nothing.
//! Invariant: a plan is made only if every partition in it was read and found whole.

use super::scan::{read_small, scan, Scanned};
use super::{source, Options};
use crate::meta::names::topic_name_problem;
use crate::rt;
use crate::types::{Offset, TopicId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What Kafka leaves when it was stopped cleanly.
const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";

/// Topics that mean something only to the broker that wrote them.
const INTERNAL: [&str; 4] = [
    "__consumer_offsets",
    "__transaction_state",
    "__cluster_metadata",
    "__share_group_state",
];

#[derive(Debug)]
pub struct PlannedPartition {
    pub from: PathBuf,
    pub log_start: Offset,
    pub scanned: Scanned,
}

#[derive(Debug)]
pub struct PlannedTopic {
    pub id: TopicId,
    pub partitions: BTreeMap<i32, PlannedPartition>,
}

impl PlannedTopic {
    /// Number of partitions the topic has at least.
    pub fn total(&self) -> i32 {
        self.partitions
            .keys()
            .next_back()
            .map_or(0, |last| last + 1)
    }
}

/// A folder that is left where it is, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Skipped {
    pub path: PathBuf,
    pub why: String,
}

#[derive(Debug, Default)]
pub struct Plan {
    pub topics: BTreeMap<String, PlannedTopic>,
    pub skipped: Vec<Skipped>,
    /// Everything that stands in the way, each a sentence.
    pub problems: Vec<String>,
}

/// Looks at all of the directories that `options` names.
pub async fn plan(options: &Options) -> std::io::Result<Plan> {
    let mut plan = Plan::default();
    for from in &options.from {
        plan.directory(from, options).await?;
    }
    for (name, topic) in &plan.topics {
        let have = topic.partitions.len() as i32;
        if have < topic.total() && !options.partial {
            plan.problems.push(format!(
                "topic {name} has {have} of its partitions 0 to {} here: name the log directories with the others too, \
                 or begin those empty with --partial",
                topic.total() - 1
            ));
        }
    }
    if plan.topics.is_empty() && plan.problems.is_empty() {
        plan.problems
            .push("there is no partition to take in".to_string());
    }
    Ok(plan)
}

impl Plan {
    async fn directory(&mut self, from: &Path, options: &Options) -> std::io::Result<()> {
        let entries = rt::fs::list_dir(from).await?;
        let has = |name: &str| entries.iter().any(|e| e.name == name);
        if !has(CLEAN_SHUTDOWN) {
            let what = if has("meta.properties") {
                format!(
                    "{} was not left by a clean stop ({CLEAN_SHUTDOWN} is missing): start Kafka on it once more, and stop \
                     it with SIGTERM",
                    from.display()
                )
            } else {
                format!(
                    "{} is no log directory of Apache Kafka, or was not left by a clean stop ({CLEAN_SHUTDOWN} is missing)",
                    from.display()
                )
            };
            self.problems.push(what);
            return Ok(());
        }
        let starts = self
            .small(&from.join("log-start-offset-checkpoint"), source::offsets)
            .await;
        let high = self
            .small(&from.join("replication-offset-checkpoint"), source::offsets)
            .await;
        let cleaned = self
            .small(
                &from.join("cleaner-offset-checkpoint"),
                source::cleaner_offsets,
            )
            .await;
        for entry in entries.iter().filter(|e| e.is_dir) {
            let path = from.join(&entry.name);
            let (topic, index) = match kind(&entry.name, options) {
                Kind::Partition(topic, index) => (topic, index),
                Kind::Skip(why) => {
                    self.skipped.push(Skipped { path, why });
                    continue;
                }
            };
            let key = (topic.clone(), index);
            let start = starts.as_ref().and_then(|s| s.get(&key).copied());
            let committed = high.as_ref().and_then(|h| h.get(&key).copied());
            let cleaned = cleaned.as_ref().and_then(|c| c.get(&key).copied());
            let known = Checkpointed {
                start,
                committed,
                cleaned,
            };
            self.partition(path, topic, index, known).await;
        }
        Ok(())
    }

    async fn small<T>(
        &mut self,
        path: &Path,
        parse: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Option<T> {
        match read_small(path, parse).await {
            Ok(found) => found,
            Err(error) => {
                self.problems.push(error.to_string());
                None
            }
        }
    }

    async fn partition(&mut self, path: PathBuf, topic: String, index: i32, known: Checkpointed) {
        let Checkpointed {
            start,
            committed,
            cleaned,
        } = known;
        let shown = path.display();
        let metadata = path.join("partition.metadata");
        let Some(id) = self.small(&metadata, source::topic_id).await else {
            self.problems.push(format!(
                "{shown}: no partition.metadata names its topic's id"
            ));
            return;
        };
        let scanned = match scan(&path, cleaned.unwrap_or(0)).await {
            Ok(scanned) => scanned,
            Err(unfit) => {
                self.problems.push(format!(
                    "{topic}-{index}: {unfit} (--skip {topic} leaves it out)"
                ));
                return;
            }
        };
        let log_start = start.unwrap_or(scanned.first).max(scanned.first);
        if log_start > scanned.end {
            let end = scanned.end;
            self.problems.push(format!(
                "{shown}: the log starts at offset {log_start}, behind its end {end}"
            ));
            return;
        }
        if let Some(committed) = committed.filter(|c| *c < scanned.end) {
            let more = scanned.end - committed;
            self.problems.push(format!(
                "{shown}: its last {more} records were never committed (this was a follower): take the leader's directory, \
                 or start and stop Kafka with this replica in sync"
            ));
            return;
        }
        let planned = PlannedPartition {
            from: path.clone(),
            log_start,
            scanned,
        };
        let entry = self
            .topics
            .entry(topic.clone())
            .or_insert_with(|| PlannedTopic {
                id,
                partitions: BTreeMap::new(),
            });
        if entry.id != id {
            self.problems.push(format!(
                "{shown}: another partition of {topic} has another topic id"
            ));
        } else if entry.partitions.insert(index, planned).is_some() {
            self.problems
                .push(format!("{topic}-{index} is in two of the directories"));
        }
    }
}

/// Offsets of a partition in the small files of its log directory.
struct Checkpointed {
    start: Option<Offset>,
    committed: Option<Offset>,
    /// How far the log cleaner had come.
    cleaned: Option<Offset>,
}

enum Kind {
    Partition(String, i32),
    Skip(String),
}

/// What a folder's name says.
fn kind(name: &str, options: &Options) -> Kind {
    let skip = |why: &str| Kind::Skip(why.to_string());
    for (ending, why) in [
        ("-delete", "was deleted"),
        ("-stray", "is of no topic that Kafka knew"),
        ("-future", "was being moved between disks"),
    ] {
        // Kafka puts a dot and an id in front of these.
        if name.ends_with(ending) && name.contains('.') {
            return skip(why);
        }
    }
    let parsed = name.rsplit_once('-').and_then(|(topic, number)| {
        let index: i32 = number.parse().ok()?;
        (index >= 0 && index.to_string() == number).then(|| (topic.to_string(), index))
    });
    let Some((topic, index)) = parsed else {
        return skip("is no partition");
    };
    if INTERNAL.contains(&topic.as_str()) {
        return skip("is internal to Kafka: consumers begin where their auto.offset.reset says");
    }
    if options.skip.contains(&topic) {
        return skip("is left out as asked");
    }
    if topic_name_problem(&topic).is_some() {
        return skip("has no name of a topic");
    }
    Kind::Partition(topic, index)
}
