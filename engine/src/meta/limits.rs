//! The bounds of the metadata: how many things may exist, how long names and values may be, how large a file may grow.
//! Knows nothing of how the bounds are enforced.
//! Keeps them related by compile-time assertions, so that no legal image can outgrow the file that stores it.

use std::time::Duration;

/// Bytes of the name of a group that has settings.
pub const GROUP_LEN_MAX: usize = 1_000;

/// Topics of a cluster, internal ones included.
pub const TOPICS_MAX: usize = 100_000;
/// Partitions of a cluster, over all topics.
pub const PARTITIONS_MAX: usize = 200_000;
/// Partitions of one topic.
pub const PARTITIONS_PER_TOPIC_MAX: usize = 100_000;
/// Replicas of one partition.
pub const REPLICAS_MAX: usize = 16;
/// Nodes of a cluster.
pub const BROKERS_MAX: usize = 1_024;
/// Characters of a topic's name, as in Kafka.
pub const TOPIC_NAME_LEN_MAX: usize = 249;
/// Bytes of a host name (RFC 1035).
pub const HOST_LEN_MAX: usize = 255;
/// Bytes of a rack's name.
pub const RACK_LEN_MAX: usize = 255;
/// Bytes of one configuration value.
pub const CONFIG_VALUE_LEN_MAX: usize = 8 * 1024;
/// Settings named by one edit of a configuration.
pub const CONFIG_EDIT_LEN_MAX: usize = 256;
/// Bytes of all configuration names and values stored in an image.
pub const CONFIG_BYTES_MAX: usize = 64 << 20;
/// Producer ids handed out by one command.
pub const PRODUCER_ID_BLOCK_MAX: u32 = 1_000_000;

/// Bytes of one encoded command.
pub const COMMAND_BYTES_MAX: usize = 24 << 20;
/// Bytes of commands that wait for a place in the log; further proposals wait until there is room.
pub const PROPOSALS_BYTES_MAX: usize = 32 << 20;
/// What a proposal counts at least against [`PROPOSALS_BYTES_MAX`]: its bookkeeping.
pub const PROPOSAL_BYTES_MIN: usize = 256;
/// Bytes of commands taken into one write of the log.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Commands taken into one write of the log.
pub const BATCH_COMMANDS_MAX: usize = 4_096;
/// Body of one batch of the log file: a full batch, one more command of any size, and their framing.
pub const BATCH_BODY_BYTES_MAX: usize = 64 << 20;
/// Log bytes after which the log is replaced by a snapshot; more while the snapshot itself is larger (so that the work of
/// writing snapshots stays in proportion to what was logged), but never above [`LOG_BYTES_MAX`].
pub const COMPACT_LOG_BYTES: u64 = 8 << 20;
/// Log bytes after which a snapshot is always made.
pub const LOG_BYTES_MAX: u64 = 128 << 20;
/// Body of a snapshot.
pub const SNAPSHOT_BYTES_MAX: usize = 512 << 20;
/// The whole metadata file.
pub const FILE_BYTES_MAX: u64 = 1 << 30;
/// Free disk below which commands that make the metadata grow are refused.
pub const DISK_RESERVE_BYTES: u64 = 32 << 20;
/// Free disk below which every command is refused.
pub const DISK_FLOOR_BYTES: u64 = 8 << 20;
/// Idle time after which the commit index is written down, so that damage to the last commands is told from a torn write.
pub const WITNESS_DELAY: Duration = Duration::from_millis(500);

/// Generous size of a partition in a snapshot: numbers of up to 11 characters for leader, epoch, replicas and in-sync replicas.
const PARTITION_SNAPSHOT_BYTES: usize = 64 + 2 * REPLICAS_MAX * 12;
/// Generous size of a topic without partitions and settings.
const TOPIC_SNAPSHOT_BYTES: usize = 160 + TOPIC_NAME_LEN_MAX;
const BROKER_SNAPSHOT_BYTES: usize = 128 + 6 * (HOST_LEN_MAX + RACK_LEN_MAX);

const _: () = assert!(PARTITIONS_PER_TOPIC_MAX <= PARTITIONS_MAX);
const _: () =
    assert!(PARTITIONS_PER_TOPIC_MAX * (2 + REPLICAS_MAX * 12) + (1 << 20) <= COMMAND_BYTES_MAX);
const _: () = assert!(COMMAND_BYTES_MAX <= PROPOSALS_BYTES_MAX);
const _: () =
    assert!(BATCH_BYTES_MAX + COMMAND_BYTES_MAX + BATCH_COMMANDS_MAX * 128 <= BATCH_BODY_BYTES_MAX);
const _: () = assert!(
    PARTITIONS_MAX * PARTITION_SNAPSHOT_BYTES
        + TOPICS_MAX * TOPIC_SNAPSHOT_BYTES
        + BROKERS_MAX * BROKER_SNAPSHOT_BYTES
        + 3 * CONFIG_BYTES_MAX
        <= SNAPSHOT_BYTES_MAX
);
const _: () = assert!(
    SNAPSHOT_BYTES_MAX as u64 + LOG_BYTES_MAX + BATCH_BODY_BYTES_MAX as u64 + 3 * 4096
        <= FILE_BYTES_MAX
);
const _: () = assert!(COMPACT_LOG_BYTES < LOG_BYTES_MAX);
