//! Owns the one face of the engine that `net` and `bin` see: a `Broker` per shard and plain structs.
//! Does not know Kafka's request schemas, error codes or connections.
//! Invariant: requests handed over in some order for one partition take effect in that order.

use crate::rt;
use crate::shard::{self, Shard, ShardStop};
use crate::types::{Offset, PartitionId};
use bytes::Bytes;
use std::future::Future;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use crate::error::PartitionError;
pub use crate::meta;
pub use crate::meta::Image;
pub use crate::plant::{self, Plant};
pub use crate::shard::config::{EngineConfig, OnFatal, SmallParts};
pub use crate::shard::metrics::{Counters, ShardMetrics};
pub use crate::shard::responses::ResponseBytes;
pub use crate::shard::space::DiskRoom;
pub use crate::shard::{EngineHandle, Mailboxes, StartError};

/// What is asked of group coordinators, and where they are.
pub mod coord {
    pub use crate::coord::consumer::{
        ConsumerBeat, ConsumerHeartbeat, ConsumerState, DescribedConsumer, DescribedConsumerGroup,
        NamedAssignment,
    };
    pub use crate::coord::types::*;
    pub use crate::coord::{partition_of, GROUP_TOPIC};
}

/// What is asked of transaction coordinators, and where they are.
pub mod txn {
    pub use crate::coord::txn::types::*;
    pub use crate::coord::txn::TXN_TOPIC;
}

/// What is asked of share groups.
pub mod share {
    pub use crate::coord::share::types::*;
    pub use crate::coord::share::SHARE_TOPIC;
    pub use crate::shard::{ShareFetchResult, ShareOffsets};
}

use share::{
    DescribedShareGroup, ShareAck, ShareError, ShareFetchAsked, ShareFetchResult, ShareHeard,
    ShareHeartbeat, ShareOffsets,
};

use txn::{
    AddPartitions, DescribedTxn, EndTxn, InitProducer, ListedTxn, Membership, Producer,
    TopicPartitions, TxnError, TxnOf,
};

use coord::{
    CommitInTxn, CommitOffsets, ConsumerBeat, ConsumerHeartbeat, DescribedConsumerGroup,
    DescribedGroup, FetchOffsets, FetchedOffsets, GroupError, JoinGroup, Joined, Leaver,
    ListedGroup, MemberOf, SyncGroup, Synced,
};

/// What a producer waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acks {
    None,
    Leader,
    All,
}

/// One partition's part of a produce request. `batch` is exactly one record batch as it came.
#[derive(Clone, Debug)]
pub struct AppendItem {
    pub partition: PartitionId,
    pub batch: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    pub base_offset: Offset,
    /// Wall-clock milliseconds where the topic stamps LogAppendTime, else -1.
    pub log_append_time_ms: i64,
    pub log_start: Offset,
}

/// The end of a producer's transaction in one partition.
#[derive(Clone, Copy, Debug)]
pub struct TxnMarker {
    pub partition: PartitionId,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub coordinator_epoch: i32,
    pub commit: bool,
    pub transaction_version: i16,
}

/// A producer with an id, as a partition remembers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActiveProducer {
    pub producer_id: i64,
    pub epoch: i16,
    /// -1 after a marker that began an epoch, or where its batches are forgotten.
    pub last_sequence: i32,
    /// Of its last batch, in wall-clock milliseconds; -1 where it is forgotten.
    pub last_timestamp_ms: i64,
    /// First offset of its open transaction.
    pub open_since: Option<Offset>,
}

/// How far the group is that agrees on the metadata.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MetaProgress {
    /// Raft's term, in which this node leads.
    pub term: u64,
    /// Entries that are agreed on.
    pub committed: u64,
}

pub type AppendResult = Result<Appended, PartitionError>;

/// One partition's part of a fetch.
#[derive(Clone, Copy, Debug)]
pub struct FetchItem {
    pub partition: PartitionId,
    pub offset: Offset,
    pub max_bytes: usize,
    /// The client's idea of the leader epoch; -1 where it has none.
    pub current_leader_epoch: i32,
    /// Epoch of the last record the client has; -1 where it does not check for divergence.
    pub last_fetched_epoch: i32,
}

#[derive(Clone, Copy, Debug)]
pub struct FetchOptions {
    pub max_wait: Duration,
    pub min_bytes: usize,
    pub max_bytes: usize,
    pub read_committed: bool,
}

/// A run of record bytes inside a buffer the engine keeps alive; cheap to clone, not `Send`.
#[derive(Clone)]
pub enum RecordChunk {
    Tail(Rc<rt::DirectBuf>, Range<usize>),
    Read(rt::ReadBuf, Range<usize>),
    Owned(Bytes),
}

impl AsRef<[u8]> for RecordChunk {
    fn as_ref(&self) -> &[u8] {
        match self {
            RecordChunk::Tail(buf, range) => &buf[range.clone()],
            RecordChunk::Read(buf, range) => &buf[range.clone()],
            RecordChunk::Owned(bytes) => bytes,
        }
    }
}

/// A producer's aborted transaction that overlaps what was fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: Offset,
}

/// Where the client's log left the leader's: fetch from there again after truncating.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Diverging {
    pub epoch: i32,
    pub end_offset: Offset,
}

#[derive(Clone, Default)]
pub struct Fetched {
    pub high_watermark: Offset,
    pub last_stable: Offset,
    pub log_start: Offset,
    pub diverging: Option<Diverging>,
    /// None unless `read_committed`; sorted by first offset.
    pub aborted: Option<Vec<AbortedTransaction>>,
    /// Whole batches in order; the first may begin before the offset asked for.
    pub records: Vec<RecordChunk>,
    /// Their bytes in the ledger of the shard that was asked.
    pub held: Option<Rc<ResponseBytes>>,
}

impl Fetched {
    pub fn bytes(&self) -> usize {
        self.records.iter().map(|r| r.as_ref().len()).sum()
    }
}

pub type FetchResult = Result<Fetched, PartitionError>;

/// Which offset `list_offset` looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OffsetSpec {
    Earliest,
    /// High watermark, or last stable offset for readers of committed data.
    Latest {
        read_committed: bool,
    },
    /// The record with the largest timestamp; none where readers of committed data do not get to it yet.
    MaxTimestamp {
        read_committed: bool,
    },
    /// First record on this node's own disks (no tiering: the same as earliest).
    EarliestLocal,
    /// End of what was moved to tiered storage: nothing, here.
    LatestTiered,
    /// First record at or after this wall-clock millisecond; none where readers of committed data do not get to it yet.
    At {
        timestamp_ms: i64,
        read_committed: bool,
    },
}

/// `offset` and `timestamp_ms` are -1 where nothing fits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListedOffset {
    pub offset: Offset,
    pub timestamp_ms: i64,
    pub leader_epoch: i32,
}

/// Size of one partition on disk.
#[derive(Clone, Copy, Debug)]
pub struct PartitionUsage {
    pub partition: PartitionId,
    pub bytes: u64,
}

#[derive(Clone, Debug)]
pub struct LogDirs {
    pub path: String,
    pub total_bytes: u64,
    pub usable_bytes: u64,
    pub partitions: Vec<PartitionUsage>,
}

/// The engine as one shard sees it. Clone is cheap; not `Send`.
#[derive(Clone)]
pub struct Broker {
    shard: Rc<Shard>,
    stop: Option<Rc<ShardStop>>,
}

impl Broker {
    /// Starts shard `index` of the node, on the shard's own thread: recovers what it owns and
    /// resolves when all shards may serve.
    ///
    /// # Errors
    /// What keeps the data directory from being used; nothing acknowledged was changed then.
    pub async fn start(
        config: EngineConfig,
        index: usize,
        boxes: Arc<Mailboxes>,
    ) -> Result<Broker, StartError> {
        let (shard, stop) = shard::start(config, index, boxes).await?;
        Ok(Broker {
            shard,
            stop: Some(Rc::new(stop)),
        })
    }

    pub(crate) fn of(shard: Rc<Shard>) -> Broker {
        Broker { shard, stop: None }
    }

    /// Flushes this shard for a clean stop. To be called on every shard, on the broker that `start`
    /// gave, when no request is under way any more.
    pub async fn close(&self) -> std::io::Result<()> {
        let stop = self
            .stop
            .as_ref()
            .expect("close is for the broker that start gave");
        stop.close(&self.shard).await
    }

    /// This shard's number, from 0.
    pub fn shard(&self) -> usize {
        self.shard.index
    }

    pub fn shards(&self) -> usize {
        self.shard.shards
    }

    /// The latest metadata this shard has applied.
    pub fn image(&self) -> Arc<Image> {
        self.shard.image()
    }

    /// Whether all records of a compressed batch have keys, as compacted topics demand, and can be read; others have their
    /// turn meanwhile. [`Broker::append`] cannot wait for that, so whoever hands such a batch over asks here first. Of what
    /// is no sound batch it says nothing bad: appending does.
    pub async fn all_keyed(&self, batch: &[u8]) -> bool {
        self.shard.all_keyed(batch).await
    }

    /// Hands the items to the shards that own their partitions *before it returns*, so that calls
    /// take effect in call order; the future gives one result per item, in the order of `items`,
    /// when `acks` is satisfied (with `Acks::None` as soon as the batches are in the logs).
    pub fn append(
        &self,
        items: Vec<AppendItem>,
        acks: Acks,
    ) -> impl Future<Output = Vec<AppendResult>> + 'static {
        self.append_within(items, acks, None)
    }

    /// Like [`Broker::append`], with a limit of time for `acks`. Items that do not satisfy it by then end in
    /// [`PartitionError::TimedOut`]: those that wait for room are given up, the others are in the logs and will be durable.
    pub fn append_within(
        &self,
        items: Vec<AppendItem>,
        acks: Acks,
        limit: Option<Duration>,
    ) -> impl Future<Output = Vec<AppendResult>> + 'static {
        // Nobody waits for acks=0, so there is nothing to give up waiting for.
        let limit = limit.filter(|_| acks != Acks::None);
        self.shard.append(items, acks, limit)
    }

    /// Reads from each partition, parking until `min_bytes` are there or `max_wait` passed.
    /// Results are in the order of `items`. The first partition with data may exceed the byte
    /// bounds by one batch so that a reader always makes progress.
    pub fn fetch(
        &self,
        items: Vec<FetchItem>,
        options: FetchOptions,
    ) -> impl Future<Output = Vec<FetchResult>> + 'static {
        self.shard.clone().fetch(items, options)
    }

    pub async fn list_offset(
        &self,
        partition: PartitionId,
        current_leader_epoch: i32,
        spec: OffsetSpec,
    ) -> Result<ListedOffset, PartitionError> {
        self.shard
            .list_offset(partition, current_leader_epoch, spec)
            .await
    }

    /// End offset of the largest epoch at or below `epoch` (Kafka's OffsetForLeaderEpoch); both -1
    /// where the epoch lies after all that is known.
    pub async fn end_of_epoch(
        &self,
        partition: PartitionId,
        current_leader_epoch: i32,
        epoch: i32,
    ) -> Result<Diverging, PartitionError> {
        self.shard
            .end_of_epoch(partition, current_leader_epoch, epoch)
            .await
    }

    /// Moves the log start up to `before` (-1: the high watermark); gives the new log start.
    pub async fn delete_records(
        &self,
        partition: PartitionId,
        before: Offset,
    ) -> Result<Offset, PartitionError> {
        self.shard.delete_records(partition, before).await
    }

    pub async fn log_dirs(&self) -> Result<LogDirs, PartitionError> {
        self.shard.log_dirs().await
    }

    /// Ends a producer's transaction in one partition; gives where the marker is, once it is durable.
    pub async fn write_txn_marker(&self, marker: TxnMarker) -> Result<Offset, PartitionError> {
        self.shard.write_txn_marker(marker).await
    }

    /// Who writes to a partition, by producer id.
    pub async fn active_producers(
        &self,
        partition: PartitionId,
    ) -> Result<Vec<ActiveProducer>, PartitionError> {
        self.shard.active_producers(partition).await
    }

    /// The directory that holds all partitions, as [`Broker::log_dirs`] names it.
    pub fn log_dir(&self) -> String {
        self.shard.log_dir()
    }

    /// # Errors
    /// [`meta::MetaError::Closed`] where the node is stopping.
    pub async fn meta_progress(&self) -> Result<MetaProgress, meta::MetaError> {
        self.shard.meta_progress().await
    }

    /// A fresh producer id (idempotent producers; epoch 0).
    pub async fn new_producer_id(&self) -> Result<i64, meta::MetaError> {
        self.shard.new_producer_id().await
    }

    /// Has the metadata group apply a command; resolves when every shard of this node has applied it.
    pub async fn propose(&self, command: meta::Command) -> Result<meta::Outcome, meta::MetaError> {
        self.shard.propose(command).await
    }

    /// Joins a group; resolves when the group has gathered, which may take minutes.
    pub async fn join_group(&self, asked: JoinGroup) -> Joined {
        self.shard.join_group(asked).await
    }

    /// Gets a member's assignment; resolves when the leader has said what it is.
    pub async fn sync_group(&self, asked: SyncGroup) -> Result<Synced, GroupError> {
        self.shard.sync_group(asked).await
    }

    /// A member of the consumer protocol joins, stays or leaves.
    pub async fn consumer_group_heartbeat(
        &self,
        asked: ConsumerHeartbeat,
    ) -> Result<ConsumerBeat, GroupError> {
        self.shard.consumer_group_heartbeat(asked).await
    }

    pub async fn describe_consumer_group(
        &self,
        group: String,
    ) -> Result<DescribedConsumerGroup, GroupError> {
        self.shard.describe_consumer_group(group).await
    }

    pub async fn group_heartbeat(&self, by: MemberOf) -> Result<(), GroupError> {
        self.shard.group_heartbeat(by).await
    }

    /// The results are in the order of the leavers.
    pub async fn leave_group(
        &self,
        group: String,
        leavers: Vec<Leaver>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        self.shard.leave_group(group, leavers).await
    }

    /// The results are in the order of the offsets. Whether a partition exists is the caller's to know.
    pub async fn commit_offsets(&self, asked: CommitOffsets) -> Vec<Result<(), GroupError>> {
        self.shard.commit_offsets(asked).await
    }

    pub async fn fetch_offsets(&self, asked: FetchOffsets) -> Result<FetchedOffsets, GroupError> {
        self.shard.fetch_offsets(asked).await
    }

    pub async fn list_groups(&self) -> Result<Vec<ListedGroup>, GroupError> {
        self.shard.list_groups().await
    }

    pub async fn describe_group(&self, group: String) -> Result<DescribedGroup, GroupError> {
        self.shard.describe_group(group).await
    }

    /// Deletes a group of whatever kind.
    pub async fn delete_group(&self, group: String) -> Result<(), GroupError> {
        match self.shard.delete_group(group.clone()).await {
            Err(GroupError::GroupIdNotFound) => match self.shard.delete_share_group(group).await {
                Ok(()) => Ok(()),
                Err(ShareError::GroupIdNotFound) => Err(GroupError::GroupIdNotFound),
                Err(ShareError::NonEmptyGroup) => Err(GroupError::NonEmptyGroup),
                Err(error) => {
                    tracing::warn!(%error, "a share group cannot be deleted");
                    Err(GroupError::NotAvailable)
                }
            },
            result => result,
        }
    }

    /// A member of a share group joins, goes on or leaves.
    pub async fn share_heartbeat(&self, asked: ShareHeartbeat) -> Result<ShareHeard, ShareError> {
        self.shard.share_heartbeat(asked).await
    }

    pub async fn list_share_groups(&self) -> Result<Vec<ListedGroup>, GroupError> {
        self.shard.list_share_groups().await
    }

    pub async fn describe_share_group(
        &self,
        group: String,
    ) -> Result<DescribedShareGroup, ShareError> {
        self.shard.describe_share_group(group).await
    }

    /// Gives a member records, or waits for some; results in the order of the partitions.
    pub async fn share_fetch(&self, asked: ShareFetchAsked) -> Vec<ShareFetchResult> {
        self.shard.share_fetch(asked).await
    }

    /// Takes what a member says of records it has, durably; results in the order of the partitions.
    pub async fn share_acknowledge(
        &self,
        group: &str,
        member: &str,
        acks: Vec<ShareAck>,
    ) -> Vec<Result<(), ShareError>> {
        self.shard.share_acknowledge(group, member, acks).await
    }

    /// A member has gone: what it has is anybody's again.
    pub async fn share_release(&self, group: &str, member: &str, partitions: Vec<PartitionId>) {
        self.shard.share_release(group, member, partitions).await;
    }

    /// For how long records are a member's; milliseconds.
    pub fn share_lock_ms(&self, group: &str) -> i32 {
        self.shard.share_lock_ms(group)
    }

    /// Where a group is in these topics and partitions (None: in all it has read).
    pub async fn describe_share_offsets(
        &self,
        group: &str,
        topics: Option<Vec<(String, Vec<i32>)>>,
    ) -> Result<ShareOffsets, ShareError> {
        self.shard.describe_share_offsets(group, topics).await
    }

    /// Has a group without members begin at these offsets; results in their order.
    pub async fn alter_share_offsets(
        &self,
        group: &str,
        offsets: Vec<(PartitionId, String, Offset)>,
    ) -> Result<Vec<Result<(), ShareError>>, ShareError> {
        self.shard.alter_share_offsets(group, offsets).await
    }

    /// Forgets where a group without members was in a topic.
    pub async fn delete_share_offsets(
        &self,
        group: &str,
        topic: crate::types::TopicId,
    ) -> Result<(), ShareError> {
        self.shard.delete_share_offsets(group, topic).await
    }

    /// Forgets offsets; results as they were asked.
    pub async fn delete_offsets(
        &self,
        group: String,
        topics: Vec<(String, Vec<i32>)>,
    ) -> Result<Vec<Vec<Result<(), GroupError>>>, GroupError> {
        self.shard.delete_offsets(group, topics).await
    }

    /// TxnOffsetCommit; the results are in the order of the offsets.
    pub async fn commit_in_transaction(&self, asked: CommitInTxn) -> Vec<Result<(), GroupError>> {
        self.shard.commit_in_transaction(asked).await
    }

    /// A transactional producer: who asked before with the same id is fenced.
    pub async fn init_producer(&self, asked: InitProducer) -> Result<Producer, TxnError> {
        self.shard.init_producer(asked).await
    }

    /// Adds partitions to a transaction. Whether they exist is the caller's to know.
    pub async fn add_to_transaction(&self, asked: AddPartitions) -> Result<(), TxnError> {
        self.shard.add_to_transaction(asked).await
    }

    /// Adds the partition in which a group's offsets are.
    pub async fn add_group_to_transaction(
        &self,
        of: TxnOf,
        group: &str,
        version: i16,
    ) -> Result<(), TxnError> {
        self.shard
            .add_group_to_transaction(of, group, version)
            .await
    }

    /// Which of these partitions a transaction does not have.
    pub async fn missing_in_transaction(
        &self,
        of: TxnOf,
        partitions: TopicPartitions,
    ) -> Result<TopicPartitions, TxnError> {
        self.shard.missing_in_transaction(of, partitions).await
    }

    /// Has partitions in a transaction before batches of it are appended to them, which begin with these sequences; results
    /// in the order of the partitions.
    pub async fn join_transaction(
        &self,
        of: TxnOf,
        partitions: Vec<(PartitionId, i32)>,
        membership: Membership,
    ) -> Vec<Result<(), TxnError>> {
        self.shard
            .join_transaction(of, partitions, membership)
            .await
    }

    /// Commits or aborts a transaction; gives the producer from now on. Its markers are written behind.
    pub async fn end_transaction(&self, asked: EndTxn) -> Result<Producer, TxnError> {
        self.shard.end_transaction(asked).await
    }

    pub async fn list_transactions(&self) -> Result<Vec<ListedTxn>, TxnError> {
        self.shard.list_transactions().await
    }

    pub async fn describe_transaction(&self, id: String) -> Result<DescribedTxn, TxnError> {
        self.shard.describe_transaction(id).await
    }

    /// Runs `f` on another shard's thread (or this one's). False when that shard is stopping.
    pub fn run_on(&self, shard: usize, f: impl FnOnce(&Broker) + Send + 'static) -> bool {
        if shard == self.shard.index {
            f(self);
            return true;
        }
        self.shard
            .calls
            .hub()
            .send(shard, Box::new(move |s| f(&Broker::of(s.clone()))))
    }

    /// Which shard serves the partition.
    pub fn owner(&self, partition: PartitionId) -> usize {
        partition.shard(self.shard.shards)
    }

    /// True once the broker is stopping: listeners stop accepting, connections finish and close.
    pub fn stopping(&self) -> bool {
        self.shard.stopping.get()
    }

    /// Resolves when the broker begins to stop.
    pub async fn stopped(&self) {
        self.shard.stopped().await;
    }

    /// A permit for request bytes against this shard's memory budget; waits while it is used up.
    /// More than the whole budget counts as all of it.
    pub async fn request_memory(&self, bytes: usize) -> rt::Permit {
        let memory = &self.shard.request_memory;
        memory.acquire((bytes as u64).min(memory.capacity())).await
    }

    /// Counts the bytes of a response against this shard's memory budget until what it gives is dropped. Never waits:
    /// what is read is there already; who reads more asks for no more than [`Broker::response_bytes_left`].
    pub fn hold_response(&self, bytes: usize) -> ResponseBytes {
        self.shard.responses.hold(bytes)
    }

    /// What responses may still take of the budget.
    pub fn response_bytes_left(&self) -> usize {
        self.shard.responses.left()
    }

    /// Resolves while a fetch waits for memory that responses hold: slow readers have to give some back.
    pub async fn responses_short(&self) {
        self.shard.responses.shortage().await;
    }

    /// What the layer above keeps on this shard; set once, found by calls from other shards.
    pub fn extension(&self) -> Option<Rc<dyn std::any::Any>> {
        self.shard.extension()
    }

    pub fn set_extension(&self, extension: Rc<dyn std::any::Any>) {
        self.shard.set_extension(extension);
    }

    pub fn metrics(&self) -> ShardMetrics {
        self.shard.metrics()
    }
}
