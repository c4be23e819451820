//! Owns AlterReplicaLogDirs: partitions stay in the one directory there is, and who wants them elsewhere is told so.
//! Does not know what is in that directory.
//! Invariant: only what is so already is said to have been done; each partition is answered once.

use super::Outcome;
use crate::shard::ShardNet;
use crate::wire::alter_replica_log_dirs::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
};
use crate::wire::{ErrorCode, Str};
use millrace_engine::api::meta::Image;
use std::collections::BTreeMap;

impl Outcome for AlterReplicaLogDirsResponse {
    fn failed(&self) -> bool {
        let mut partitions = self.results.iter().flat_map(|topic| &topic.partitions);
        partitions.any(|partition| partition.error_code != 0)
    }
}

pub(crate) async fn handle(
    shard: &ShardNet,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let image = shard.broker.image();
    AlterReplicaLogDirsResponse {
        results: answer(&image, &shard.broker.log_dir(), request),
        ..Default::default()
    }
}

/// Partitions may come under several directories; they are answered by topic.
fn answer(
    image: &Image,
    own: &str,
    request: AlterReplicaLogDirsRequest,
) -> Vec<AlterReplicaLogDirTopicResult> {
    let mut topics: BTreeMap<Str, BTreeMap<i32, ErrorCode>> = BTreeMap::new();
    for dir in request.dirs {
        let is_own = *dir.path == *own;
        for topic in dir.topics {
            let there = image.topic(&topic.name).map_or(0, |t| t.partitions.len());
            let results = topics.entry(topic.name).or_default();
            for index in topic.partitions {
                let is_there = usize::try_from(index).is_ok_and(|index| index < there);
                let code = match (is_own, is_there) {
                    (false, _) => ErrorCode::LogDirNotFound,
                    (true, false) => ErrorCode::UnknownTopicOrPartition,
                    (true, true) => ErrorCode::None,
                };
                // The last directory that is asked for counts.
                results.insert(index, code);
            }
        }
    }
    let partition = |(partition_index, code): (i32, ErrorCode)| AlterReplicaLogDirPartitionResult {
        partition_index,
        error_code: code.code(),
    };
    let topic =
        |(topic_name, partitions): (Str, BTreeMap<i32, ErrorCode>)| AlterReplicaLogDirTopicResult {
            topic_name,
            partitions: partitions.into_iter().map(partition).collect(),
        };
    topics.into_iter().map(topic).collect()
}
