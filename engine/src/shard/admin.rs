//! Owns requests about partitions and metadata that are not produce or fetch.
//! Does not know the wire. Invariant: a command's effect is on every shard before its proposer
//! hears of it.

use super::Shard;
use crate::api::{
    ActiveProducer, Diverging, ListedOffset, LogDirs, MetaProgress, OffsetSpec, PartitionUsage,
};
use crate::error::PartitionError;
use crate::log::records::RecordTime;
use crate::meta::{Command, MetaError, Outcome};
use crate::rt;
use crate::types::{Offset, PartitionId};
use std::collections::BTreeMap;
use std::future::{poll_fn, Future};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::Poll;

/// Producer ids a shard takes from the metadata at once.
const PRODUCER_ID_BLOCK: u32 = 1_000;

/// Who waits for an answer of another shard; says so when it does not any more.
#[derive(Default)]
struct Asker {
    gone: Arc<AtomicBool>,
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

impl Shard {
    /// Runs `f` with the partition on the shard that owns it.
    async fn on_owner<R, F, Fut>(
        self: &Rc<Self>,
        partition: PartitionId,
        f: F,
    ) -> Result<R, PartitionError>
    where
        R: Send + 'static,
        F: FnOnce(Rc<Shard>) -> Fut + Send + 'static,
        Fut: std::future::Future<Output = Result<R, PartitionError>> + 'static,
    {
        let owner = partition.shard(self.shards);
        self.at(owner, f)
            .await
            .unwrap_or(Err(PartitionError::Stopping))
    }

    pub async fn list_offset(
        self: &Rc<Self>,
        partition: PartitionId,
        current_leader_epoch: i32,
        spec: OffsetSpec,
    ) -> Result<ListedOffset, PartitionError> {
        let asker = Asker::default();
        let gone = asker.gone.clone();
        self.on_owner(partition, move |shard| async move {
            let partition = shard.partition(partition)?;
            partition.check_epoch(current_leader_epoch)?;
            let _turn = match spec {
                OffsetSpec::At { .. } | OffsetSpec::MaxTimestamp { .. } => {
                    Some(shard.searches.acquire(1).await)
                }
                OffsetSpec::Earliest
                | OffsetSpec::EarliestLocal
                | OffsetSpec::Latest { .. }
                | OffsetSpec::LatestTiered => None,
            };
            let (bounds, _) = partition.bounds(false);
            let end = |read_committed: bool| match read_committed {
                true => bounds.last_stable,
                false => bounds.high_watermark,
            };
            let epoch_at = |offset: Offset| partition.log.borrow().epochs.at(offset);
            let plain = |offset: Offset| ListedOffset {
                offset,
                timestamp_ms: -1,
                leader_epoch: epoch_at(offset),
            };
            let found = |record: Option<RecordTime>| match record {
                Some(r) => ListedOffset {
                    offset: r.offset,
                    timestamp_ms: r.timestamp_ms,
                    leader_epoch: epoch_at(r.offset),
                },
                None => ListedOffset {
                    offset: -1,
                    timestamp_ms: -1,
                    leader_epoch: -1,
                },
            };
            Ok(match spec {
                OffsetSpec::Earliest | OffsetSpec::EarliestLocal => plain(bounds.log_start),
                OffsetSpec::Latest { read_committed } => ListedOffset {
                    leader_epoch: partition.leader_epoch(),
                    ..plain(end(read_committed))
                },
                OffsetSpec::LatestTiered => found(None),
                OffsetSpec::MaxTimestamp { read_committed } => {
                    let search = partition.find_newest(bounds.high_watermark);
                    let newest = shard.while_wanted(&gone, search).await?;
                    found(newest.filter(|r| r.offset < end(read_committed)))
                }
                OffsetSpec::At {
                    timestamp_ms,
                    read_committed,
                } => {
                    let search = partition.find_time(timestamp_ms, bounds.high_watermark);
                    let first = shard.while_wanted(&gone, search).await?;
                    found(first.filter(|r| r.offset < end(read_committed)))
                }
            })
        })
        .await
    }

    /// Runs a search as long as its asker waits for it and the shard is not stopping: it may be much work for a question
    /// of few bytes, and many may be queued.
    async fn while_wanted<R>(
        &self,
        gone: &AtomicBool,
        search: impl Future<Output = Result<R, PartitionError>>,
    ) -> Result<R, PartitionError> {
        let mut search = pin!(search);
        // It yields after each step, so this looks often enough.
        poll_fn(|cx| {
            if gone.load(Ordering::Relaxed) || self.stopping.get() {
                return Poll::Ready(Err(PartitionError::Stopping));
            }
            search.as_mut().poll(cx)
        })
        .await
    }

    pub async fn end_of_epoch(
        self: &Rc<Self>,
        partition: PartitionId,
        current_leader_epoch: i32,
        epoch: i32,
    ) -> Result<Diverging, PartitionError> {
        self.on_owner(partition, move |shard| async move {
            let partition = shard.partition(partition)?;
            partition.check_epoch(current_leader_epoch)?;
            let log = partition.log.borrow();
            if epoch == partition.leader_epoch() {
                return Ok(Diverging {
                    epoch,
                    end_offset: log.next_offset,
                });
            }
            let ended = log.epochs.end_of(epoch, log.next_offset);
            // An epoch of this leader's that got no record ended where the log does: nothing came behind it either.
            let without_records = || {
                let known = (0..partition.leader_epoch()).contains(&epoch);
                known.then(|| (log.epochs.latest().unwrap_or(epoch), log.next_offset))
            };
            let (epoch, end_offset) = ended.or_else(without_records).unwrap_or((-1, -1));
            Ok(Diverging { epoch, end_offset })
        })
        .await
    }

    pub async fn delete_records(
        self: &Rc<Self>,
        partition: PartitionId,
        before: Offset,
    ) -> Result<Offset, PartitionError> {
        self.on_owner(partition, move |shard| async move {
            shard.partition(partition)?.delete_records(before).await
        })
        .await
    }

    pub async fn log_dirs(self: &Rc<Self>) -> Result<LogDirs, PartitionError> {
        let space = rt::fs::space(&self.config.data_dir).await;
        let space = space.map_err(|e| PartitionError::Storage(e.to_string()))?;
        let mut partitions = Vec::new();
        for shard in 0..self.shards {
            let sizes = self.at(shard, |shard| async move { shard.sizes() }).await;
            partitions.extend(sizes.ok_or(PartitionError::Stopping)?);
        }
        Ok(LogDirs {
            path: self.log_dir(),
            total_bytes: space.total,
            usable_bytes: space.free,
            partitions,
        })
    }

    /// Tools take paths for absolute ones only.
    pub fn log_dir(&self) -> String {
        let dir = &self.config.data_dir;
        let absolute = std::path::absolute(dir);
        absolute.as_ref().unwrap_or(dir).display().to_string()
    }

    pub async fn active_producers(
        self: &Rc<Self>,
        partition: PartitionId,
    ) -> Result<Vec<ActiveProducer>, PartitionError> {
        self.on_owner(partition, move |shard| async move {
            let partition = shard.partition(partition)?;
            let log = partition.log.borrow();
            let known = log.producers.last_batches().into_iter();
            let mut active: BTreeMap<i64, ActiveProducer> = known
                .map(|(id, last)| {
                    let producer = ActiveProducer {
                        producer_id: id,
                        epoch: last.epoch,
                        last_sequence: last.last_sequence,
                        last_timestamp_ms: last.timestamp_ms,
                        open_since: None,
                    };
                    (id, producer)
                })
                .collect();
            for (id, epoch, first) in log.transactions.open() {
                // Its batches may be forgotten; what keeps readers waiting is not.
                let producer = active.entry(id).or_insert(ActiveProducer {
                    producer_id: id,
                    epoch,
                    last_sequence: -1,
                    last_timestamp_ms: -1,
                    open_since: None,
                });
                producer.open_since = Some(first);
            }
            Ok(active.into_values().collect())
        })
        .await
    }

    pub async fn meta_progress(self: &Rc<Self>) -> Result<MetaProgress, MetaError> {
        let asked = self.at(0, |first| async move {
            let meta = first.meta.borrow().clone().ok_or(MetaError::Closed)?;
            Ok(MetaProgress {
                term: meta.term(),
                committed: meta.image().version,
            })
        });
        asked.await.unwrap_or(Err(MetaError::Closed))
    }

    /// Every partition this shard owns, those that nothing was sent to yet as well.
    fn sizes(&self) -> Vec<PartitionUsage> {
        let partitions = self.partitions.borrow();
        let image = self.image();
        let ids = image
            .topics()
            .flat_map(|t| (0..t.partitions.len()).map(|i| PartitionId::new(t.id, i as i32)));
        ids.filter(|id| id.shard(self.shards) == self.index)
            .map(|id| PartitionUsage {
                partition: id,
                bytes: partitions.get(&id).map_or(0, |p| p.bytes()),
            })
            .collect()
    }

    pub async fn propose(self: &Rc<Self>, command: Command) -> Result<Outcome, MetaError> {
        let outcome = self
            .at(0, move |first| async move {
                let meta = first.meta.borrow().clone().ok_or(MetaError::Closed)?;
                let outcome = meta.propose(command).await?;
                // The new image left for the other shards before this: mail keeps its order.
                for shard in 1..first.shards {
                    let _stopping = first.at(shard, |_| async {}).await;
                }
                Ok(outcome)
            })
            .await;
        outcome.unwrap_or(Err(MetaError::Closed))
    }

    pub async fn new_producer_id(self: &Rc<Self>) -> Result<i64, MetaError> {
        if let Some(id) = self.producer_ids.borrow_mut().next() {
            return Ok(id);
        }
        let node = self.image().node_id;
        let command = Command::AllocateProducerIds {
            node,
            count: PRODUCER_ID_BLOCK,
        };
        match self.propose(command).await? {
            Outcome::ProducerIds { first, count } => {
                *self.producer_ids.borrow_mut() = first + 1..first + i64::from(count);
                Ok(first)
            }
            Outcome::Done | Outcome::Topic(_) => panic!("AllocateProducerIds gives producer ids"),
        }
    }
}
