//! Owns the background work of a shard: moving bytes from journal to segments, checkpoints, giving
//! journal files back, retention. Does not know requests.
//! Invariant: a journal file is given back only after its bytes are synced in segments and the
//! control state they imply is in a durable checkpoint.

use super::Shard;
use crate::checkpoint::Checkpoint;
use crate::log::Partition;
use crate::plant::{self, Plant};
use crate::rt::{self, Class};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// Partitions flushed at once: enough to keep the device busy between their syncs.
const FLUSHES_AT_ONCE: usize = 4;

impl Shard {
    /// Notes that the partition has bytes that are only in the journal.
    pub fn mark_dirty(&self, partition: &Rc<Partition>) {
        if !partition.dirty.replace(true) {
            self.dirty.borrow_mut().push(partition.clone());
        }
    }

    /// Empties the oldest full journal file, again and again. Runs while the shard lives.
    pub(super) async fn run_flusher(self: Rc<Self>) {
        loop {
            let full = self.journal.ring().full.notified();
            let Some(target) = self.journal.ring().oldest_full() else {
                full.await;
                continue;
            };
            if let Err(error) = self.flush_through(target).await {
                if self.journal.failed() {
                    return;
                }
                tracing::error!(%error, "cannot move the journal's bytes to their segments; appends will wait");
                rt::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    async fn flush_through(self: &Rc<Self>, target: u64) -> io::Result<()> {
        self.journal
            .wait_durable(target)
            .await
            .map_err(io::Error::other)?;
        if plant::active(Plant::ReuseJournalFileEarly) {
            self.journal.ring().recycle(target)
        }
        let work = self.dirty.borrow_mut().drain(..).collect::<VecDeque<_>>();
        let done = self.flush_all(work, Some(target)).await;
        self.write_checkpoint(target + 1, done).await?;
        self.journal.ring().recycle(target);
        self.journal.set_flushed(target);
        // Appends that waited for a file to come free look again.
        self.journal.progressed.notify_all();
        Ok(())
    }

    /// Flushes the partitions, a few at once; those with bytes left stay on the dirty list.
    /// `through`: pad only where entries up to this sequence would stay behind; None: always.
    async fn flush_all(
        self: &Rc<Self>,
        work: VecDeque<Rc<Partition>>,
        through: Option<u64>,
    ) -> io::Result<()> {
        let work = Rc::new(RefCell::new(work));
        let workers: Vec<_> = (0..FLUSHES_AT_ONCE)
            .map(|_| {
                let (shard, work) = (self.clone(), work.clone());
                rt::spawn_joined(Class::Background, async move {
                    let mut first_error = None;
                    loop {
                        let next = work.borrow_mut().pop_front();
                        let Some(partition) = next else { return first_error };
                        if let Err(error) = shard.flush_partition(&partition, through).await {
                            tracing::error!(partition = %partition.dir.display(), %error, "cannot flush");
                            first_error.get_or_insert(error);
                        }
                        partition.dirty.set(false);
                        let left = partition.log.borrow().first_unflushed().is_some();
                        if left && !partition.deleted.get() {
                            shard.mark_dirty(&partition);
                        }
                        rt::yield_if_needed().await;
                    }
                })
            })
            .collect();
        let mut result = Ok(());
        for worker in workers {
            if let Some(error) = worker.await {
                result = Err(error);
            }
        }
        result
    }

    async fn flush_partition(
        &self,
        partition: &Rc<Partition>,
        through: Option<u64>,
    ) -> io::Result<()> {
        let Some(target) = through else {
            return partition.flush_for_stop(&self.segment_writes).await;
        };
        let behind = |p: &Partition| {
            p.log
                .borrow()
                .first_unflushed()
                .is_some_and(|s| s <= target)
        };
        partition.flush(false, &self.segment_writes).await?;
        if behind(partition) {
            partition.flush(true, &self.segment_writes).await?;
        }
        partition
            .log
            .borrow_mut()
            .forget_evicted(self.journal.retained_first());
        self.limit_open_files(partition);
        Ok(())
    }

    /// `flushed`: how the flush before it ended; a checkpoint is only worth writing after success.
    async fn write_checkpoint(&self, replay_from: u64, flushed: io::Result<()>) -> io::Result<()> {
        flushed?;
        // A stop and the flush of a full file may come together, and there is one temporary file.
        let _one_at_a_time = self.checkpoints.acquire(1).await;
        let partitions: Vec<Rc<Partition>> = self.partitions.borrow().values().cloned().collect();
        let states = partitions.iter().map(|p| p.state()).collect();
        let checkpoint = Checkpoint {
            journal: self.journal_id,
            generation: self.generation,
            replay_from,
            partitions: states,
        };
        checkpoint.write(&self.config.data_dir, self.index).await
    }

    /// The first checkpoint of a generation, after recovery.
    pub(super) async fn first_checkpoint(&self) -> io::Result<()> {
        let through = self
            .partitions
            .borrow()
            .values()
            .filter_map(|p| p.log.borrow().first_unflushed())
            .min();
        self.write_checkpoint(through.unwrap_or(self.journal.next_sequence()), Ok(()))
            .await
    }

    /// Keeps open segment descriptors within their bound: the longest open go first.
    pub(super) fn limit_open_files(&self, partition: &Rc<Partition>) {
        let mut open = self.open_segments.borrow_mut();
        for segment in partition
            .log
            .borrow()
            .segments
            .iter()
            .filter(|s| s.files.is_some())
        {
            let key = (partition.id, segment.base);
            if !open.iter().any(|known| *known == key) {
                open.push_back(key);
            }
        }
        while open.len() > self.config.open_segments_max {
            let Some((id, base)) = open.pop_front() else {
                break;
            };
            if let Some(partition) = self.partitions.borrow().get(&id) {
                let mut log = partition.log.borrow_mut();
                if let Some(segment) = log.segments.iter_mut().find(|s| s.base == base) {
                    segment.files = None;
                }
            }
        }
    }

    /// Retention, expiry of idle producers and of cached entries. Runs while the shard lives.
    pub(super) async fn run_housekeeping(self: Rc<Self>) {
        loop {
            rt::sleep(self.config.retention_check).await;
            if self.stopping.get() {
                return;
            }
            let partitions: Vec<Rc<Partition>> =
                self.partitions.borrow().values().cloned().collect();
            for partition in partitions {
                if let Err(error) = partition.retain(rt::wall_ms()).await {
                    tracing::warn!(partition = %partition.dir.display(), %error, "retention failed; it will be tried again");
                }
                let expire_before =
                    self.uptime_ms() - self.config.producer_expiry.as_millis() as i64;
                {
                    let mut log = partition.log.borrow_mut();
                    log.producers.expire(expire_before);
                    log.forget_evicted(self.journal.retained_first());
                }
                rt::yield_if_needed().await;
            }
        }
    }

    fn uptime_ms(&self) -> i64 {
        (rt::now().as_nanos() / 1_000_000) as i64
    }

    /// Flushes everything for a clean stop. Appends are refused already.
    pub async fn close(self: &Rc<Self>) -> io::Result<()> {
        self.journal
            .wait_all_durable()
            .await
            .map_err(io::Error::other)?;
        let all: VecDeque<Rc<Partition>> = self.partitions.borrow().values().cloned().collect();
        let flushed = self.flush_all(all, None).await;
        self.write_checkpoint(self.journal.next_sequence(), flushed)
            .await?;
        self.journal.stop();
        Ok(())
    }
}
