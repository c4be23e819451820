//! Owns one core's part of the node: its partitions, journal, caches and background tasks.
//! Does not know connections or request schemas.
//! Invariant: a partition lives on exactly one shard, and only that shard's thread touches it.

mod admin;
mod append;
mod cleaner;
pub mod config;
mod consumer_calls;
mod coordinator_log;
mod fetch;
mod flusher;
mod group_calls;
mod group_topics;
mod groups;
pub mod mail;
mod markers;
pub mod metrics;
mod recovery;
pub mod responses;
mod scrub;
mod share_calls;
mod share_fetch;
mod share_partitions;
mod share_states;
mod slots;
pub mod space;
mod start;
mod transactions;
mod txn_calls;
mod txn_endings;
mod unknown;

use crate::coord::txn::TxnCoordinator;
use crate::error::PartitionError;
use crate::journal::entry::JournalId;
use crate::journal::Journal;
use crate::log::folder::owner;
use crate::log::{Log, Partition};
use crate::meta::{Image, MetaHandle, Topic};
use crate::rt::{self, Class, Notify, Semaphore};
use crate::types::limits::PARTITIONS_MAX;
use crate::types::{Offset, PartitionId, TopicId};
use append::ParkedAppend;
use cleaner::Cleaner;
use config::ShardConfig;
use groups::Groups;
use mail::Calls;
use metrics::Counters;
use responses::ResponseMemory;
use share_partitions::Shares;
use slots::Slots;
use space::Space;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use share_calls::ShareOffsets;
pub use share_fetch::ShareFetchResult;
pub use start::{start, EngineHandle, Mailboxes, ShardStop, StartError};

/// A map whose order is the same in every run, so that a simulation is a function of its seed. Its keys are ours: nobody
/// outside can choose them to collide.
type FixedMap<K, V> = hashbrown::HashMap<K, V, foldhash::fast::FixedState>;

pub struct Shard {
    pub index: usize,
    pub shards: usize,
    pub config: ShardConfig,
    pub journal: Rc<Journal>,
    journal_id: JournalId,
    generation: u64,
    image: RefCell<Arc<Image>>,
    partitions: RefCell<FixedMap<PartitionId, Rc<Partition>>>,
    dirty: RefCell<Vec<Rc<Partition>>>,
    /// Held by a pass from journal to segments.
    flushing: Semaphore,
    /// Segment bytes being written: bounded, so that journal flushes stay short.
    segment_writes: Semaphore,
    /// One checkpoint is written at a time.
    checkpoints: Semaphore,
    open_segments: RefCell<VecDeque<(PartitionId, Offset)>>,
    parked_appends: RefCell<VecDeque<(ParkedAppend, crate::api::Acks)>>,
    append_parked: Notify,
    pub space: Space,
    pub calls: Calls,
    /// Cross-shard fetches parked here: (caller, token) -> cancellation.
    watches: RefCell<FixedMap<(usize, u64), Rc<Notify>>>,
    /// Looks into batches that may be compressed: each takes memory and time.
    searches: Semaphore,
    /// Reads of segments beside commits: a device has one of them at a time.
    cold_reads: Semaphore,
    /// Files of segments that retention dropped are removed one after the other.
    removals: Rc<Semaphore>,
    pub request_memory: Semaphore,
    /// Of what fetches read and clients have not taken yet.
    pub responses: Rc<ResponseMemory>,
    pub stopping: Cell<bool>,
    stop: Notify,
    /// Only on shard 0.
    meta: RefCell<Option<MetaHandle>>,
    producer_ids: RefCell<std::ops::Range<i64>>,
    groups: Groups,
    transactions: Slots<TxnCoordinator>,
    shares: Shares,
    cleaner: Cleaner,
    counters: RefCell<Counters>,
    extension: RefCell<Option<Rc<dyn Any>>>,
}

impl Shard {
    /// The partition, if this shard owns it and its topic exists. Made on first use: an empty
    /// partition costs nothing before.
    pub fn partition(&self, id: PartitionId) -> Result<Rc<Partition>, PartitionError> {
        if let Some(partition) = self.partitions.borrow().get(&id) {
            return Ok(partition.clone());
        }
        let topic = {
            let image = self.image.borrow();
            let topic = image.topic_by_id(id.topic).ok_or(PartitionError::Unknown)?;
            if id.index < 0 || id.index as usize >= topic.partitions.len() {
                return Err(PartitionError::Unknown);
            }
            topic.clone()
        };
        assert_eq!(
            id.shard(self.shards),
            self.index,
            "asked the wrong shard for {id}"
        );
        let mut partitions = self.partitions.borrow_mut();
        if partitions.len() >= PARTITIONS_MAX {
            return Err(PartitionError::Busy);
        }
        let dir = partition_dir(&self.config.data_dir, &topic, id.index);
        let partition = {
            let (journal, removals) = (self.journal.clone(), self.removals.clone());
            Partition::new(id, topic, dir, journal, removals, Log::empty())
        };
        partitions.insert(id, partition.clone());
        Ok(partition)
    }

    pub fn image(&self) -> Arc<Image> {
        self.image.borrow().clone()
    }

    /// Takes a newer image: settings and epochs change, deleted topics go.
    pub fn apply_image(self: &Rc<Self>, image: Arc<Image>) {
        if image.version <= self.image.borrow().version {
            return;
        }
        let before = self.image.replace(image.clone());
        let mut gone = Vec::new();
        for (id, partition) in self.partitions.borrow().iter() {
            match image.topic_by_id(id.topic) {
                Some(topic) => {
                    if !Arc::ptr_eq(topic, &partition.topic.borrow()) {
                        *partition.topic.borrow_mut() = topic.clone();
                    }
                }
                None => gone.push(partition.clone()),
            }
        }
        let without = |topic: &&Arc<Topic>| image.topic_by_id(topic.id).is_none();
        let deleted = before.topics().filter(without);
        let deleted: BTreeSet<String> = deleted.map(|topic| topic.name.to_string()).collect();
        for partition in gone {
            self.partitions.borrow_mut().remove(&partition.id);
            partition.deleted.set(true);
            partition.wake_parked();
            rt::spawn(Class::Background, remove_partition(partition));
        }
        if !deleted.is_empty() {
            self.groups.wake();
            self.transactions.wake();
            self.shares.wake();
            self.forget_topics(deleted);
        }
    }

    /// Begins to stop: appends are refused, parked fetches answer.
    pub fn begin_stop(&self) {
        self.stopping.set(true);
        self.stop.notify_all();
        self.partitions
            .borrow()
            .values()
            .for_each(|p| p.wake_parked());
        self.watches.borrow().values().for_each(|w| w.notify_all());
        self.groups.wake();
        self.transactions.wake();
        self.shares.wake();
    }

    pub async fn stopped(&self) {
        while !self.stopping.get() {
            self.stop.notified().await;
        }
    }

    /// What the layer above keeps per shard, so that calls from other shards find it.
    pub fn extension(&self) -> Option<Rc<dyn Any>> {
        self.extension.borrow().clone()
    }

    pub fn set_extension(&self, extension: Rc<dyn Any>) {
        *self.extension.borrow_mut() = Some(extension);
    }
}

/// `topics/<name>-<partition>` below the data directory.
pub fn partition_dir(data_dir: &Path, topic: &Topic, index: i32) -> PathBuf {
    data_dir
        .join("topics")
        .join(format!("{}-{index}", topic.name))
}

/// Where a deleted partition's files wait: a new topic of the same name does not meet them.
fn deleted_dir(dir: &Path, topic: TopicId) -> PathBuf {
    let name = dir
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    dir.with_file_name(format!("{name}.{topic}-delete"))
}

/// Moves a deleted partition's folder aside at once, and removes it after the topic's delay.
async fn remove_partition(partition: Rc<Partition>) {
    let aside = deleted_dir(&partition.dir, partition.id.topic);
    {
        let _no_flush = partition.files_lock.acquire(1).await;
        match owner(&partition.dir).await {
            Ok(Some(id)) if id != partition.id.topic => return, // made again meanwhile
            // The rename says what is wrong.
            Ok(_) | Err(_) => {}
        }
        match rt::fs::rename(&partition.dir, &aside).await {
            Ok(()) => {}
            // Nothing was ever flushed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => {
                tracing::warn!(dir = %partition.dir.display(), %error, "cannot set a deleted partition aside");
                return;
            }
        }
    }
    rt::sleep(Duration::from_millis(
        partition.config().file_delete_delay_ms,
    ))
    .await;
    if let Err(error) = rt::fs::remove_dir_all(&aside).await {
        tracing::warn!(dir = %aside.display(), %error, "cannot remove a deleted partition");
    }
}
