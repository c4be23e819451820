//! Owns the engine's settings and how one memory budget is divided among a shard's parts.
//! Does not know flags, files or environment. Invariant: the parts of a budget never exceed it.

use crate::meta::limits::DISK_RESERVE_BYTES;
use crate::meta::Overrides;
use crate::types::limits::{
    COMMIT_BYTES, DISK_LOOK_BYTES_MIN, DISK_RESERVE_BYTES_DEFAULT, FILE_SYNCS_MAX,
    JOURNAL_FILE_BYTES, JOURNAL_FIRST_FILE_BYTES, OPEN_SEGMENTS_PER_SHARD_MAX,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// Least memory a shard can work with.
pub const SHARD_MEMORY_BYTES_MIN: u64 = 32 * MIB;

/// Regular journal files that a start, or the freeing of files, may have to add to a ring.
const JOURNAL_FILES_RESERVED: u64 = 2;

/// Told why nothing can be acknowledged any more; a broker's process ends then and recovers.
#[derive(Clone)]
pub struct OnFatal(Arc<dyn Fn(&str) + Send + Sync>);

impl OnFatal {
    pub fn new(f: impl Fn(&str) + Send + Sync + 'static) -> OnFatal {
        OnFatal(Arc::new(f))
    }

    pub fn call(&self, reason: &str) {
        (self.0)(reason);
    }
}

impl std::fmt::Debug for OnFatal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnFatal")
    }
}

#[derive(Clone, Debug)]
pub struct EngineConfig {
    pub data_dir: PathBuf,
    /// Where the journals go; `<data_dir>/journal` unless set.
    pub journal_dir: Option<PathBuf>,
    pub node_id: i32,
    /// Where clients are told to connect.
    pub advertised_host: String,
    pub advertised_port: u16,
    /// Bytes that the node may use for records, caches and requests, over all shards.
    pub memory_bytes: u64,
    /// Bytes of the disk that stay free beyond what is needed to store what was accepted: produces are refused before.
    pub disk_reserve_bytes: u64,
    /// Broker settings by Kafka's names that were given at start.
    pub broker_settings: Overrides,
    /// How often retention looks at every partition; None: as the setting
    /// `log.retention.check.interval.ms` says.
    pub retention_check: Option<Duration>,
    /// Bytes a second that the scrubbers of the node read together; 0 for none.
    pub scrub_bytes_per_second: u64,
    /// From the end of one pass of the scrubber to the next, and before the first.
    pub scrub_pause: Duration,
    pub on_fatal: OnFatal,
    /// Smaller parts than the memory alone would give, so that a simulation laps them with few bytes.
    pub small: Option<SmallParts>,
}

/// Sizes of what is derived from the memory otherwise; bytes.
#[derive(Clone, Copy, Debug)]
pub struct SmallParts {
    pub journal_file_bytes: u64,
    pub journal_files_max: usize,
    pub backlog_bytes_max: usize,
    pub cache_bytes: u64,
    pub file_syncs_max: usize,
}

impl EngineConfig {
    pub fn new(data_dir: PathBuf) -> EngineConfig {
        EngineConfig {
            data_dir,
            journal_dir: None,
            node_id: 1,
            advertised_host: "127.0.0.1".into(),
            advertised_port: 9092,
            memory_bytes: 1 << 30,
            disk_reserve_bytes: DISK_RESERVE_BYTES_DEFAULT,
            broker_settings: Overrides::new(),
            retention_check: None,
            // A terabyte in a day and a half: little beside what one disk can do.
            scrub_bytes_per_second: 8 * MIB,
            scrub_pause: Duration::from_secs(600),
            on_fatal: OnFatal::new(|reason| {
                tracing::error!(reason, "nothing can be acknowledged any more")
            }),
            small: None,
        }
    }

    pub fn journal_root(&self) -> PathBuf {
        self.journal_dir
            .clone()
            .unwrap_or_else(|| self.data_dir.join("journal"))
    }

    /// Free bytes without which a new node of `shards` shards would refuse its first produce, its journals included.
    pub fn disk_bytes_min(&self, shards: usize) -> u64 {
        let appends = 2 * DISK_LOOK_BYTES_MIN * shards as u64;
        let needed = DISK_RESERVE_BYTES + appends + self.journal_bytes_min(shards);
        self.disk_reserve_bytes.saturating_add(needed)
    }

    /// The journals' part of that.
    pub fn journal_bytes_min(&self, shards: usize) -> u64 {
        let shard = self.for_shard(shards);
        let ring = JOURNAL_FIRST_FILE_BYTES + shard.journal_file_bytes;
        shards as u64 * (ring + shard.journal_reserve_bytes())
    }

    /// One shard's share when there are `shards`.
    pub fn for_shard(&self, shards: usize) -> ShardConfig {
        let memory = (self.memory_bytes / shards as u64).max(SHARD_MEMORY_BYTES_MIN);
        let journal_file_bytes =
            (memory / 8 / MIB * MIB).clamp(JOURNAL_FIRST_FILE_BYTES, JOURNAL_FILE_BYTES);
        let config = ShardConfig {
            data_dir: self.data_dir.clone(),
            journal_root: self.journal_root(),
            journal_file_bytes,
            journal_files_max: 3,
            cache_bytes: memory / 2,
            backlog_bytes_max: (memory / 16) as usize,
            request_bytes_max: memory / 8,
            response_bytes_max: memory / 8,
            group_bytes_max: (memory / 16) as usize,
            compaction_bytes_max: memory / 16,
            open_segments_max: OPEN_SEGMENTS_PER_SHARD_MAX,
            file_syncs_max: FILE_SYNCS_MAX,
            disk_reserve_bytes: self.disk_reserve_bytes,
            retention_check: self.retention_check,
            scrub_bytes_per_second: self.scrub_bytes_per_second.div_ceil(shards as u64),
            scrub_pause: self.scrub_pause,
        };
        assert!(config.backlog_bytes_max >= COMMIT_BYTES);
        assert!(config.memory_bytes() <= memory);
        // What the journal holds stays in memory until it is in segments.
        let journal_files = config.journal_files_max as u64 * journal_file_bytes;
        assert!(journal_files + JOURNAL_FIRST_FILE_BYTES <= memory / 2);
        match self.small {
            None => config,
            Some(small) => config.with(small),
        }
    }
}

/// What one shard may use; bytes.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    pub data_dir: PathBuf,
    pub journal_root: PathBuf,
    pub journal_file_bytes: u64,
    pub journal_files_max: usize,
    /// Commit buffers in memory: what is only in the journal, and behind that the tail cache.
    pub cache_bytes: u64,
    /// Appends that no commit has taken yet; beyond it appends wait.
    pub backlog_bytes_max: usize,
    /// Bodies of requests under way.
    pub request_bytes_max: u64,
    /// Responses that clients have not taken yet; beyond it fetches get little.
    pub response_bytes_max: u64,
    /// What is known of groups; beyond it there are no new members, groups or commits.
    pub group_bytes_max: usize,
    /// Keys that compaction looks at; beyond it a log is compacted in several goes.
    pub compaction_bytes_max: u64,
    pub open_segments_max: usize,
    /// Files synced each by itself; beyond it one sync of the file system is made.
    pub file_syncs_max: usize,
    /// Of the whole node.
    pub disk_reserve_bytes: u64,
    pub retention_check: Option<Duration>,
    pub scrub_bytes_per_second: u64,
    pub scrub_pause: Duration,
}

impl ShardConfig {
    /// All parts of the budget together; the rest is for what is counted by numbers, not bytes.
    fn memory_bytes(&self) -> u64 {
        self.cache_bytes
            + self.backlog_bytes_max as u64
            + self.request_bytes_max
            + self.response_bytes_max
            + self.group_bytes_max as u64
            + self.compaction_bytes_max
    }
}

impl ShardConfig {
    /// What has to be free for journals: a start makes new ones before it lets go of the old.
    pub fn journal_reserve_bytes(&self) -> u64 {
        let first = JOURNAL_FIRST_FILE_BYTES.min(self.journal_file_bytes);
        first + JOURNAL_FILES_RESERVED * self.journal_file_bytes
    }

    fn with(self, small: SmallParts) -> ShardConfig {
        assert!(small.journal_file_bytes <= self.journal_file_bytes);
        assert!(small.cache_bytes <= self.cache_bytes);
        ShardConfig {
            journal_file_bytes: small.journal_file_bytes,
            journal_files_max: small.journal_files_max,
            backlog_bytes_max: small.backlog_bytes_max,
            cache_bytes: small.cache_bytes,
            file_syncs_max: small.file_syncs_max,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_budget_divides() {
        for memory in [1, 64 * MIB, 512 * MIB, 64 << 30] {
            for shards in [1, 2, 7, 64] {
                let mut config = EngineConfig::new("x".into());
                config.memory_bytes = memory;
                let shard = config.for_shard(shards);
                let budget = SHARD_MEMORY_BYTES_MIN.max(memory / shards as u64);
                assert!(shard.memory_bytes() <= budget, "{memory} over {shards}");
                // No part is forgotten by the sum, nor starved.
                for part in [
                    shard.cache_bytes,
                    shard.backlog_bytes_max as u64,
                    shard.request_bytes_max,
                    shard.response_bytes_max,
                    shard.group_bytes_max as u64,
                    shard.compaction_bytes_max,
                ] {
                    assert!(part >= budget / 16 && part <= shard.memory_bytes() - budget / 4);
                }
            }
        }
    }
}
