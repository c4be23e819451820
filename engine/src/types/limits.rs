//! Owns every bound of the engine, with its unit last in the name.
//! Does not know who enforces it.
//! Invariant: bounds that depend on each other are related by compile-time assertions here.

/// Alignment and unit of direct I/O, and the unit that a block checksum covers.
pub const BLOCK_BYTES: usize = 4096;

/// Fixed part of a record batch (Kafka's format 2) before its records.
pub const BATCH_HEADER_BYTES: usize = 61;

/// Largest `max.message.bytes` that can be set: a batch must fit one journal commit.
pub const BATCH_BYTES_MAX: usize = 48 << 20;

/// Size of one journal file once the ring has grown to its regular files.
pub const JOURNAL_FILE_BYTES: u64 = 64 << 20;

/// Size of the first journal file, so that the first start is quick.
pub const JOURNAL_FIRST_FILE_BYTES: u64 = 4 << 20;

/// A commit buffer is sealed when it reaches this size; only one larger entry may exceed it.
pub const COMMIT_BYTES: usize = 1 << 20;

/// Commit buffers have at least this size, and sizes that are multiples of it.
pub const COMMIT_BYTES_MIN: usize = 64 << 10;

/// Commits of up to this size that leave much of their buffer unused are copied to an exact size when sealed, so that a
/// stream of small commits does not pin large buffers (a copy of this size took 35 us).
pub const COMMIT_COPY_BYTES_MAX: usize = 256 << 10;

/// Bytes of commits written concurrently before one flush covers them.
pub const COMMIT_GROUP_BYTES_MAX: usize = 8 << 20;

/// Groups of commits under way at once. With one, the core idled through its flush while all clients waited for it.
pub const COMMIT_GROUPS_MAX: usize = 4;

/// The part of a full commit that has to be gathered before another group begins beside one that is under way. With a sixteenth,
/// commits are more and smaller: a thousand partitions took 12 % less, and half of the maximum 16 % longer.
pub const COMMIT_AHEAD_PART: usize = 4;

/// A group that is one commit of up to this size is written and flushed by one thread in one go. Larger ones gain nothing by
/// that: with 256 KiB and with 2 MiB the maximum throughput was 8 and 16 % less.
pub const COMMIT_SYNCED_BYTES_MAX: usize = 64 << 10;

/// Largest single segment read or write (old kernels hang above `max_sectors_kb`).
pub const IO_BYTES_MAX: usize = 1 << 20;

/// Segment writes in flight per shard while the journal is busy: more makes its flushes slow.
pub const SEGMENT_WRITE_BYTES_IN_FLIGHT_MAX: usize = 4 << 20;

/// Partitions whose bytes go to their segments together, before one wait for their syncs.
pub const FLUSH_PARTITIONS_AT_ONCE: usize = 256;

/// Files synced each by itself; where more were written, one sync of the file system is cheaper.
pub const FILE_SYNCS_MAX: usize = 32;

/// Batches remembered per idempotent producer (Kafka's number).
pub const PRODUCER_BATCHES: usize = 5;

/// Idempotent producers remembered per partition; the one idle longest goes first.
pub const PRODUCERS_PER_PARTITION_MAX: usize = 20_000;

/// Open segment descriptors cached per shard.
pub const OPEN_SEGMENTS_PER_SHARD_MAX: usize = 1_024;

/// Bytes the scrubber reads at a time: small enough to slip between the reads of clients.
pub const SCRUB_READ_BYTES: usize = 256 << 10;

/// Damaged blocks a shard's scrubber tells of one by one, each once per start.
pub const SCRUB_DAMAGE_REMEMBERED_MAX: usize = 10_000;

/// Bytes of the disk that stay free beyond what is needed, unless the operator says otherwise: for what else writes there.
pub const DISK_RESERVE_BYTES_DEFAULT: u64 = 256 << 20;

/// Bytes that a shard may append from one look at the free space to the next, at the least and at the most: a look takes a
/// thread some 30 us.
pub const DISK_LOOK_BYTES_MIN: u64 = 4 << 20;
pub const DISK_LOOK_BYTES_MAX: u64 = 64 << 20;

/// Searches by time (and looks at the keys of compressed batches) that a shard has under way at once, each with a batch and
/// what inflates it in memory; the others wait in order.
pub const SEARCHES_PER_SHARD_MAX: u64 = 4;

/// What is inflated of a batch before others have their turn: some tens of microseconds.
pub const INFLATE_STEP_BYTES: usize = 64 << 10;

/// How far back compressed bytes may refer: what the zstd format asks every decoder to support. Clients that compress
/// batches with larger windows (zstd's levels from 20 on) find times in them only to the batch.
pub const INFLATE_WINDOW_BYTES_MAX: usize = 8 << 20;

/// So far a compressed batch is looked into: a small one up to the first bound, a larger one up to so many times its size.
pub const INFLATED_BYTES_MIN: u64 = 32 << 20;
pub const INFLATED_TIMES: u64 = 16;

/// Calls from one shard to another that may be under way at once.
pub const CROSS_SHARD_CALLS_MAX: u64 = 1_024;

/// Partitions one node may hold.
pub const PARTITIONS_MAX: usize = 200_000;

/// Leader epochs remembered per partition; the oldest are merged beyond this.
pub const LEADER_EPOCHS_MAX: usize = 1_024;

/// Members (and ids given out to members to come) of one group.
pub const GROUP_MEMBERS_MAX: usize = 10_000;

/// Groups of one partition of the groups' topic, which has 50.
pub const GROUPS_PER_COORDINATOR_MAX: usize = 20_000;

/// Regular expressions that the members of one group subscribe to, and the bytes of each as text and as it is matched.
pub const GROUP_REGEXES_MAX: usize = 100;
pub const GROUP_REGEX_BYTES_MAX: usize = 4_096;
pub const GROUP_REGEX_PROGRAM_BYTES_MAX: usize = 1 << 20;

/// Names of groups, instances and clients: a record has 15 bits for the length, and member ids are a name and more.
pub const GROUP_TEXT_BYTES_MAX: usize = 30_000;

/// Transactional ids of one partition of the transactions' topic, which has 50.
pub const TXN_IDS_PER_COORDINATOR_MAX: usize = 20_000;

/// Partitions of one transaction, and the bytes of their names and numbers: all of them are in one record, which fits the
/// smallest `max.message.bytes` that is of use.
pub const TXN_PARTITIONS_MAX: usize = 20_000;
pub const TXN_PARTITIONS_BYTES_MAX: usize = 512 << 10;

/// Aborted transactions that a partition remembers, in memory: some 4 MiB of them. Beyond it no transactions begin there,
/// until retention has taken old ones.
pub const TXN_ABORTED_PER_PARTITION_MAX: usize = 100_000;

/// Markers that one transaction has under way at once.
pub const TXN_MARKERS_TOGETHER_MAX: usize = 32;

/// Share-partitions of one partition of the topic of their states, which has 50.
pub const SHARE_PARTITIONS_PER_COORDINATOR_MAX: usize = 20_000;

/// Share-partitions that a shard has loaded at once.
pub const SHARE_PARTITIONS_LOADED_MAX: usize = 20_000;

/// Topics that a member of a share group reads, and the bytes of their names: all are in one record.
pub const SHARE_TOPICS_MAX: usize = 1_000;

/// Segments that compaction makes one of: all of them are open meanwhile.
pub const COMPACTED_SEGMENTS_MAX: usize = 128;

/// Bytes read at once of a coordinator's log when it is loaded.
pub const COORDINATOR_READ_BYTES: usize = 1 << 20;

const _: () = {
    assert!(BLOCK_BYTES.is_power_of_two());
    assert!(COMMIT_BYTES.is_multiple_of(BLOCK_BYTES));
    assert!(IO_BYTES_MAX.is_multiple_of(BLOCK_BYTES));
    assert!(COMMIT_COPY_BYTES_MAX < COMMIT_BYTES && COMMIT_BYTES_MIN < COMMIT_BYTES);
    assert!(SCRUB_READ_BYTES.is_multiple_of(BLOCK_BYTES) && SCRUB_READ_BYTES <= IO_BYTES_MAX);
    assert!((BATCH_BYTES_MAX + COMMIT_BYTES) as u64 <= JOURNAL_FILE_BYTES);
    assert!(COMMIT_BYTES as u64 <= JOURNAL_FIRST_FILE_BYTES);
    assert!(INFLATE_WINDOW_BYTES_MAX.is_power_of_two());
    assert!(INFLATE_STEP_BYTES < INFLATE_WINDOW_BYTES_MAX);
    assert!(
        COMMIT_BYTES as u64 <= DISK_LOOK_BYTES_MIN && DISK_LOOK_BYTES_MIN < DISK_LOOK_BYTES_MAX
    );
};
