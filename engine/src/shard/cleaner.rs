//! Owns the compaction of a shard's partitions: which is next, what has to be durable before, and how fast it goes.
//! Does not know keys or files; see `log::compact`.
//! Invariants: segments are exchanged only when the durable checkpoint names all of them; what says that an exchange is
//! under way goes only when a checkpoint names the new one.

use super::{FixedMap, Shard};
use crate::coord::GROUP_TOPIC;
use crate::log::compact::pass::Pace;
use crate::log::compact::swap::{self, Swap};
use crate::log::compact::{groups, Due, Source};
use crate::log::Partition;
use crate::plant::{self, Plant};
use crate::rt::{self, Mono};
use crate::types::{Offset, PartitionId};
use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// How long a partition is left alone after its compaction failed.
const RETRY: Duration = Duration::from_secs(300);
/// A look at the state of the shard between waits.
const BACKOFF_MIN: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(super) struct Cleaner {
    /// Exchanges that were made, with the files that say so, until a checkpoint does.
    made: RefCell<Vec<(PartitionId, PathBuf)>>,
    /// Checkpoints of this generation count: before, a crash would go back to the one before.
    serving: Cell<bool>,
    /// Partitions whose compaction failed, and until when they are left alone.
    failed: RefCell<FixedMap<PartitionId, Mono>>,
}

impl Cleaner {
    /// An exchange that an earlier run began is made.
    pub fn note_made(&self, id: PartitionId, file: PathBuf) {
        self.made.borrow_mut().push((id, file));
    }

    pub fn note_serving(&self) {
        self.serving.set(true);
    }

    /// Files that a checkpoint of now makes needless.
    pub fn made(&self) -> Vec<PathBuf> {
        let made = self.made.borrow();
        made.iter().map(|(_, file)| file.clone()).collect()
    }

    fn has_made(&self, id: PartitionId) -> bool {
        self.made.borrow().iter().any(|(of, _)| *of == id)
    }
}

impl Shard {
    /// Compacts whatever is due, again and again. Runs while the shard lives.
    pub(super) async fn run_cleaner(self: Rc<Self>) {
        self.cleaner.note_serving();
        while !self.stopping.get() {
            let (enabled, backoff) = {
                let image = self.image.borrow();
                let config = &image.broker_config;
                (config.log_cleaner_enable, config.log_cleaner_backoff_ms)
            };
            let backoff = Duration::from_millis(u64::try_from(backoff).unwrap_or(0));
            rt::sleep(backoff.max(BACKOFF_MIN)).await;
            if enabled && !self.stopping.get() {
                self.clean_all().await;
            }
        }
    }

    async fn clean_all(self: &Rc<Self>) {
        while let Some((partition, due)) = self.filthiest().await {
            let done = self.compact(&partition, due).await;
            self.limit_open_files(&partition);
            match done {
                Ok(()) => {}
                Err(_) if self.stopping.get() => return,
                Err(_) if partition.deleted.get() => {}
                Err(error) => {
                    tracing::error!(
                        partition = %partition.dir.display(), %error,
                        "compaction failed; it will be tried again in {} s", RETRY.as_secs()
                    );
                    self.counters.borrow_mut().compaction.failures += 1;
                    let until = rt::now() + RETRY;
                    self.cleaner.failed.borrow_mut().insert(partition.id, until);
                }
            }
        }
        if !self.cleaner.made.borrow().is_empty() {
            if let Err(error) = self.checkpoint_of_now(Ok(())).await {
                tracing::warn!(%error, "cannot write a checkpoint; the next one makes up for it");
            }
        }
    }

    /// The partition that most is to be compacted of, as far as compaction is due.
    async fn filthiest(&self) -> Option<(Rc<Partition>, Due)> {
        let now = rt::now();
        self.cleaner
            .failed
            .borrow_mut()
            .retain(|_, until| *until > now);
        let partitions: Vec<Rc<Partition>> = self.partitions.borrow().values().cloned().collect();
        let mut found: Option<(Rc<Partition>, Due)> = None;
        for partition in partitions {
            let config = partition.config();
            let is_failed = self.cleaner.failed.borrow().contains_key(&partition.id);
            // What a transaction commits for a group counts from its marker on: of a key, the last record need not be what
            // counts. And its coordinator keeps the log short by itself.
            let is_of_groups = partition.topic.borrow().name == GROUP_TOPIC;
            let left_alone =
                is_of_groups || is_failed || partition.deleted.get() || partition.is_stuck();
            if !config.cleanup_policy.compact || left_alone {
                continue;
            }
            let oldest = match config.max_compaction_lag_ms {
                lag if lag < i64::MAX as u64 => partition.oldest_dirty().await,
                _ => None,
            };
            let due = {
                let log = partition.log.borrow();
                log.compaction_due(&config, rt::wall_ms(), now, oldest)
            };
            let due = due.filter(|due| due.is_now(&config));
            let more = |due: &Due| {
                let most = found.as_ref().map(|(_, d)| d.dirty_ratio);
                most.is_none_or(|most| due.dirty_ratio > most)
            };
            if let Some(due) = due.filter(more) {
                found = Some((partition, due));
            }
            rt::yield_if_needed().await;
        }
        found
    }

    async fn compact(self: &Rc<Self>, partition: &Rc<Partition>, due: Due) -> io::Result<()> {
        // Another exchange of the same files has to be over and done with.
        if self.cleaner.has_made(partition.id) {
            self.checkpoint_of_now(Ok(())).await?;
        }
        self.finish_below(partition, due.end).await?;
        let sources = finished(partition, due.end);
        let end = sources.last().map_or(due.from, |s| s.next_offset);
        if end <= due.from {
            return Err(io::Error::other("its segments cannot be finished"));
        }
        let due = Due { end, ..due };
        let (map_bytes, bytes_per_second) = self.cleaner_limits();
        let pace = Pace {
            bytes_per_second,
            writes: &self.segment_writes,
            stopping: &self.stopping,
            deleted: &partition.deleted,
            taken: Cell::new(0),
        };
        let before: u64 = sources.iter().map(|s| s.bytes).sum();
        let result = self
            .compact_sources(partition, due, &sources, map_bytes, &pace)
            .await;
        let after: u64 = finished(partition, due.end).iter().map(|s| s.bytes).sum();
        let mut counters = self.counters.borrow_mut();
        let counters = &mut counters.compaction;
        counters.moved_bytes += pace.taken.get();
        counters.freed_bytes += before.saturating_sub(after);
        counters.passes += u64::from(result.is_ok());
        tracing::debug!(
            partition = %partition.dir.display(), from = due.from, end = due.end, before, after,
            "compacted"
        );
        result
    }

    async fn compact_sources(
        self: &Rc<Self>,
        partition: &Rc<Partition>,
        due: Due,
        sources: &[Source],
        map_bytes: u64,
        pace: &Pace<'_>,
    ) -> io::Result<()> {
        let config = partition.config();
        swap::remove_new(&partition.dir).await?;
        let survey = partition.survey(due, sources, map_bytes, pace).await?;
        if survey.end <= due.from {
            return Err(io::Error::other(
                "one batch has more keys than fit log.cleaner.dedupe.buffer.size and the memory of the shard",
            ));
        }
        let (end, keys) = (survey.end, survey.map.keys());
        tracing::debug!(partition = %partition.dir.display(), end, keys, "its keys are known");
        let below = sources.partition_point(|s| s.base < survey.end);
        let mut filter = survey.filter(config.delete_retention_ms);
        for group in groups(&sources[..below], &config) {
            let bytes: u64 = group.iter().map(|s| s.bytes).sum();
            if bytes > self.space.spare() {
                return Err(io::Error::other("there is too little room on the disk"));
            }
            let copied = partition.copy_group(&group, &mut filter, pace).await?;
            match copied {
                None => swap::remove_new(&partition.dir).await?,
                Some(swap) if self.exchange(partition, &swap).await? => {}
                // Retention took some of it meanwhile. The next pass sees what is left.
                Some(_) => return Ok(()),
            }
        }
        {
            let mut counters = self.counters.borrow_mut();
            counters.compaction.removed_records += filter.records_gone;
            counters.compaction.unreadable_batches += filter.unreadable;
        }
        let mut log = partition.log.borrow_mut();
        log.cleaned.below = log.cleaned.below.max(survey.end);
        Ok(())
    }

    async fn exchange(self: &Rc<Self>, partition: &Rc<Partition>, swap: &Swap) -> io::Result<bool> {
        let is_named = || {
            partition.checkpointed.get() >= swap.new.next_offset
                || plant::active(Plant::ExchangeUnnamed)
        };
        if !is_named() {
            self.checkpoint_of_now(Ok(())).await?;
        }
        if !is_named() {
            return Err(io::Error::other("no checkpoint names its segments yet"));
        }
        let data_dir = &self.config.data_dir;
        let made = partition.exchange(data_dir, swap).await?;
        if made && plant::active(Plant::ExchangeForgottenEarly) {
            swap::retire(data_dir, &[swap.path(data_dir)]).await?;
        } else if made {
            self.cleaner.note_made(partition.id, swap.path(data_dir));
        }
        Ok(made)
    }

    /// Has all closed segments below `end` on disk and finished: what is in them may be in the journal only.
    async fn finish_below(
        self: &Rc<Self>,
        partition: &Rc<Partition>,
        end: Offset,
    ) -> io::Result<()> {
        let (through, unfinished) = {
            let log = partition.log.borrow();
            let left = log.tail.iter().skip(log.tail_flushed);
            let below = left.take_while(|e| e.base_offset < end);
            let mut segments = log.segments.iter().filter(|s| s.base < end);
            (
                below.last().map_or(0, |e| e.sequence),
                segments.any(|s| !s.finished),
            )
        };
        match unfinished {
            true => self.flush_one(partition, through).await,
            false => Ok(()),
        }
    }

    /// Bytes for the map of keys, and bytes a second.
    fn cleaner_limits(&self) -> (u64, u64) {
        let image = self.image.borrow();
        let config = &image.broker_config;
        let shards = self.shards as u64;
        let asked = u64::try_from(config.log_cleaner_dedupe_buffer_size).unwrap_or(0);
        let per_second = match config.log_cleaner_io_max_bytes_per_second {
            u64::MAX => u64::MAX,
            all => all / shards,
        };
        let map = self.config.compaction_bytes_max.min(asked / shards);
        (map, per_second)
    }

    /// A checkpoint was written that was of a later moment than these exchanges.
    pub(super) async fn retire_exchanges(&self, files: &[PathBuf]) -> io::Result<()> {
        if files.is_empty() || !self.cleaner.serving.get() {
            return Ok(());
        }
        swap::retire(&self.config.data_dir, files).await?;
        let mut made = self.cleaner.made.borrow_mut();
        made.retain(|(_, file)| !files.contains(file));
        Ok(())
    }
}

/// Segments below `end` that are wholly on disk and will not change any more.
fn finished(partition: &Partition, end: Offset) -> Vec<Source> {
    let log = partition.log.borrow();
    let sound = log.segments.iter().take_while(|s| s.finished);
    let whole = sound.take_while(|s| s.disk_bytes == s.bytes && s.bytes > 0);
    let count = whole.count();
    let mut sources = log.compaction_sources(end);
    sources.truncate(count);
    sources
}
