//! Owns DescribeLogDirs: sizes of partitions on disk.
//! Does not know how they are laid out.
//! Invariant: partitions of topics that are being deleted have no name any more and are not shown; over all brokers that
//! clients see, each partition is shown once.

use super::Outcome;
use crate::errors;
use crate::shard::ShardNet;
use crate::shared::Door;
use crate::wire::describe_log_dirs::{
    DescribableLogDirTopic, DescribeLogDirsPartition, DescribeLogDirsRequest,
    DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use crate::wire::Str;
use millrace_engine::api::LogDirs;
use std::collections::BTreeMap;
use std::collections::{HashMap, HashSet};

impl Outcome for DescribeLogDirsResponse {
    fn failed(&self) -> bool {
        self.error_code != 0 || self.results.iter().any(|dir| dir.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: DescribeLogDirsRequest,
    door: Door,
) -> DescribeLogDirsResponse {
    let dirs = match shard.broker.log_dirs().await {
        Ok(dirs) => dirs,
        Err(error) => {
            // Told as the directory's error: before version 3 there is no other place for it.
            tracing::error!(%error, "the data directory cannot be described");
            let error_code = errors::partition(&error).code();
            let failed = DescribeLogDirsResult {
                error_code,
                ..Default::default()
            };
            return DescribeLogDirsResponse {
                results: vec![failed],
                ..Default::default()
            };
        }
    };
    let image = shard.broker.image();
    let wanted = Wanted::new(request.topics);
    // Sorted, so that the answer does not depend on which shard answered first.
    let mut topics: BTreeMap<&str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for usage in &dirs.partitions {
        let Some(topic) = image.topic_by_id(usage.partition.topic) else {
            continue;
        };
        let is_here = door == Door::Node || shard.broker.owner(usage.partition) == shard.index;
        if is_here && wanted.has(&topic.name, usage.partition.index) {
            topics
                .entry(&topic.name)
                .or_default()
                .push(DescribeLogDirsPartition {
                    partition_index: usage.partition.index,
                    partition_size: signed(usage.bytes),
                    ..Default::default()
                });
        }
    }
    let topics = topics.into_iter().map(|(name, mut partitions)| {
        partitions.sort_by_key(|partition| partition.partition_index);
        DescribeLogDirsTopic {
            name: Str::from(name.to_owned()),
            partitions,
        }
    });
    let topics = topics.collect();
    let LogDirs {
        path,
        total_bytes,
        usable_bytes,
        ..
    } = dirs;
    let result = DescribeLogDirsResult {
        log_dir: path.into(),
        topics,
        total_bytes: signed(total_bytes),
        usable_bytes: signed(usable_bytes),
        ..Default::default()
    };
    DescribeLogDirsResponse {
        results: vec![result],
        ..Default::default()
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The partitions a request asks for; all without a list.
struct Wanted(Option<HashMap<Str, HashSet<i32>>>);

impl Wanted {
    fn new(topics: Option<Vec<DescribableLogDirTopic>>) -> Wanted {
        Wanted(topics.map(|topics| {
            let mut wanted: HashMap<Str, HashSet<i32>> = HashMap::new();
            for topic in topics {
                wanted
                    .entry(topic.topic)
                    .or_default()
                    .extend(topic.partitions);
            }
            wanted
        }))
    }

    fn has(&self, topic: &str, partition: i32) -> bool {
        self.0.as_ref().is_none_or(|wanted| {
            wanted
                .get(topic)
                .is_some_and(|of_topic| of_topic.contains(&partition))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_everything_and_a_list_is_what_it_says() {
        assert!(Wanted::new(None).has("a", 7));
        assert!(!Wanted::new(Some(vec![])).has("a", 7));
        let asked = |partitions| DescribableLogDirTopic {
            topic: "a".into(),
            partitions,
        };
        let wanted = Wanted::new(Some(vec![asked(vec![1]), asked(vec![7])]));
        assert!(wanted.has("a", 7) && wanted.has("a", 1));
        assert!(!wanted.has("a", 2) && !wanted.has("b", 7));
    }
}
