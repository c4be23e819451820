//! Owns the background work of a shard: moving bytes from journal to segments, checkpoints, giving
//! journal files back, retention. Does not know requests.
//! Invariant: a journal file is given back only after its bytes are synced in segments and the
//! control state they imply is in a durable checkpoint.

use super::Shard;
use crate::checkpoint::{Checkpoint, PartitionState};
use crate::log::flush::FlushPass;
use crate::log::folder::claim_folders;
use crate::log::segment::SegmentFiles;
use crate::log::Partition;
use crate::plant::{self, Plant};
use crate::rt::{self, join_all, Class};
use crate::types::limits::{FLUSH_PARTITIONS_AT_ONCE, IO_BYTES_MAX};
use crate::types::Offset;
use hashbrown::HashMap;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// Partitions worked on at once: enough to keep the device busy while others wait for a thread to make a file longer. With
/// four, a thousand partitions took 8 to 11 % less; sixteen gained no more.
const FLUSHES_AT_ONCE: usize = 8;
/// Part of the time a journal file takes to fill that a pass may take to write as much, with all its
/// workers pausing at once.
const PASS_SHARE: f64 = 0.5 * FLUSHES_AT_ONCE as f64;
/// Beyond this a pass is gentle enough.
const FILL_TIME_MAX: Duration = Duration::from_secs(2);
/// A pass that has time writes as much at once as arrives in this time: the thread that gathers it and the device that
/// takes it hold up every commit meanwhile.
const STEP_TIME: Duration = Duration::from_millis(10);
const STEP_BYTES_MIN: usize = 64 << 10;
/// How long a stop begins to move partitions to their segments: whoever stops a service waits ten seconds, often.
const CLOSE_TIME: Duration = Duration::from_secs(3);
/// Partitions of one step of a stop: about a second, where each needs a folder and files of its own.
const CLOSED_AT_ONCE: usize = 64;

/// Where a stop leaves the records that no segment has yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Left {
    Nothing,
    /// There were too many partitions: the next start replays them.
    InJournal,
}

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
            let moved = self.flush_through(target).await;
            self.space.note_moved(&moved);
            if let Err(error) = moved {
                if self.journal.failed() {
                    return;
                }
                tracing::error!(%error, "cannot move the journal's bytes to their segments; it will be tried again");
                // Appends for which there is no more room are refused now.
                self.journal.progressed.notify_all();
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
        let work = std::mem::take(&mut *self.dirty.borrow_mut());
        let done = self.flush_all(work, Some(target)).await;
        self.write_checkpoint(Some(target + 1), done).await?;
        self.journal.ring().recycle(target);
        self.journal.set_flushed(target);
        // Appends that waited for a file to come free look again.
        self.journal.progressed.notify_all();
        Ok(())
    }

    /// Moves the partitions' bytes to their segments; those with bytes left stay on the dirty list.
    /// `through`: entries up to this journal sequence have to leave the journal; None: all.
    async fn flush_all(
        self: &Rc<Self>,
        work: Vec<Rc<Partition>>,
        through: Option<u64>,
    ) -> io::Result<()> {
        // A pass holds the files of many partitions: two of them could wait for each other.
        let _one_at_a_time = self.flushing.acquire(1).await;
        let mut result = Ok(());
        let ahead = self.space.begin_moving(work.len());
        for group in work.chunks(FLUSH_PARTITIONS_AT_ONCE) {
            if let Err(error) = self.flush_group(group, through, ahead).await {
                result = Err(error);
            }
            for partition in group {
                partition.dirty.set(false);
                let left = {
                    let mut log = partition.log.borrow_mut();
                    log.forget_evicted(self.journal.retained_first());
                    log.first_unflushed().is_some()
                };
                if left && !partition.deleted.get() {
                    self.mark_dirty(partition);
                }
                self.limit_open_files(partition);
            }
            rt::yield_if_needed().await;
        }
        self.space.end_moving();
        result
    }

    /// Some partitions together, so that they wait once for the journal and once for their syncs.
    async fn flush_group(
        self: &Rc<Self>,
        group: &[Rc<Partition>],
        through: Option<u64>,
        ahead: u64,
    ) -> io::Result<()> {
        let mut result = Ok(());
        claim_folders(group, self.config.file_syncs_max).await?;
        let mut todo = group.to_vec();
        while !todo.is_empty() {
            let begun = at_once(todo, move |partition| async move {
                let begun = partition.begin_flush(through).await;
                begun.map_err(|error| cannot_flush(&partition, error))
            });
            let passes = keep(begun.await, &mut result).into_iter().flatten();
            let passes: Vec<FlushPass> = passes.collect();
            passes.iter().for_each(|p| p.files().allow_ahead(ahead));
            self.await_carried(&passes).await?;
            let shard = self.clone();
            let written = at_once(passes, move |mut pass| {
                let shard = shard.clone();
                async move {
                    let pause = |bytes| shard.pace(bytes, through);
                    let written = pass.write(&shard.segment_writes, pause).await;
                    written.map_err(|error| cannot_flush(pass.partition(), error))?;
                    Ok(pass)
                }
            });
            let written = keep(written.await, &mut result);
            sync_files(&written, self.config.file_syncs_max).await?;
            todo = written.into_iter().map(FlushPass::finish).collect();
        }
        let finished = at_once(group.to_vec(), move |partition| async move {
            let mut finished = partition.finish_closed().await;
            if finished.is_ok() && through.is_none() {
                finished = partition.finish_last().await;
            }
            finished.map_err(|error| cannot_flush(&partition, error))
        });
        keep(finished.await, &mut result);
        result
    }

    /// Spreads the writes of a pass over the time that the next journal file takes to fill: at the full
    /// speed of the device they would make every flush of the journal wait. Not where the ring is
    /// short of files, and not for a stop. Waits after a write of so many bytes, and gives how many the next may have.
    async fn pace(&self, bytes: u64, through: Option<u64>) -> usize {
        let leisure = self.journal.ring().leisure();
        let hurry = through.is_none() || self.stopping.get();
        let Some(fill_time) = leisure.filter(|_| !hurry) else {
            return IO_BYTES_MAX;
        };
        let file_bytes = self.config.journal_file_bytes as f64;
        if bytes > 0 {
            let share = bytes as f64 / file_bytes;
            rt::sleep(fill_time.min(FILL_TIME_MAX).mul_f64(share * PASS_SHARE)).await;
        }
        step_bytes(file_bytes, fill_time)
    }

    /// Waits until what the passes carried over is durable. They may be what frees journal files, so
    /// the ring may grow meanwhile by what lies before them in it.
    async fn await_carried(&self, passes: &[FlushPass]) -> io::Result<()> {
        let Some(last) = passes.iter().filter_map(FlushPass::carried).max() else {
            return Ok(());
        };
        let bytes = self.journal.backlog_bytes() as u64;
        let _urgent = self.journal.ring().urgent(bytes);
        self.journal
            .wait_durable(last)
            .await
            .map_err(io::Error::other)
    }

    /// `flushed`: how the flush before it ended; a checkpoint is only worth writing after success. Without
    /// `replay_from`, all that the journal has for a segment is still to be replayed.
    async fn write_checkpoint(
        &self,
        replay_from: Option<u64>,
        flushed: io::Result<()>,
    ) -> io::Result<()> {
        flushed?;
        // A stop, a compaction and the flush of a full file may come together, and there is one temporary file.
        let _one_at_a_time = self.checkpoints.acquire(1).await;
        let replay_from = replay_from.unwrap_or_else(|| self.first_unflushed());
        let exchanges = self.cleaner.made();
        let partitions: Vec<Rc<Partition>> = self.partitions.borrow().values().cloned().collect();
        let states: Vec<PartitionState> = partitions.iter().map(|p| p.state()).collect();
        let resumes: Vec<Offset> = states.iter().map(|s| s.resume).collect();
        let checkpoint = Checkpoint {
            journal: self.journal_id,
            generation: self.generation,
            replay_from,
            partitions: states,
        };
        let bytes = checkpoint.write(&self.config.data_dir, self.index).await?;
        self.space.note_checkpoint(bytes);
        for (partition, resume) in partitions.iter().zip(resumes) {
            partition.checkpointed.set(resume);
        }
        self.retire_exchanges(&exchanges).await
    }

    /// Journal sequence of the first entry that has yet to go to a segment.
    fn first_unflushed(&self) -> u64 {
        let partitions = self.partitions.borrow();
        let unflushed = partitions
            .values()
            .filter_map(|p| p.log.borrow().first_unflushed());
        unflushed.min().unwrap_or(self.journal.next_sequence())
    }

    /// The first checkpoint of a generation, after recovery.
    pub(super) async fn first_checkpoint(&self) -> io::Result<()> {
        self.checkpoint_of_now(Ok(())).await
    }

    /// With all that the journal has for a segment still to be replayed.
    pub(super) async fn checkpoint_of_now(&self, flushed: io::Result<()>) -> io::Result<()> {
        self.write_checkpoint(None, flushed).await
    }

    /// Moves one partition's closed segments, as far as they have entries up to journal sequence `through`, to disk, and
    /// finishes them.
    pub(super) async fn flush_one(
        self: &Rc<Self>,
        partition: &Rc<Partition>,
        through: u64,
    ) -> io::Result<()> {
        let _one_at_a_time = self.flushing.acquire(1).await;
        let ahead = self.space.begin_moving(1);
        let group = [partition.clone()];
        let done = self.flush_group(&group, Some(through), ahead).await;
        self.space.end_moving();
        self.limit_open_files(partition);
        done
    }

    /// Keeps open segment descriptors within their bound: the longest open go first.
    pub(super) fn limit_open_files(&self, partition: &Rc<Partition>) {
        let mut open = self.open_segments.borrow_mut();
        let opened = partition.take_newly_open().into_iter();
        open.extend(opened.map(|base| (partition.id, base)));
        let excess = open.len().saturating_sub(self.config.open_segments_max);
        for _ in 0..excess {
            let Some((id, base)) = open.pop_front() else {
                return;
            };
            let Some(partition) = self.partitions.borrow().get(&id).cloned() else {
                continue;
            };
            let mut log = partition.log.borrow_mut();
            let Some(segment) = log.segment_mut(base) else {
                continue;
            };
            // In use: a second set of files would not know what this one is writing.
            if segment
                .files
                .as_ref()
                .is_some_and(|f| Rc::strong_count(f) > 1)
            {
                open.push_back((id, base));
                continue;
            }
            segment.files = None;
        }
    }

    /// Retention, expiry of idle producers and of cached entries. Runs while the shard lives.
    pub(super) async fn run_housekeeping(self: Rc<Self>) {
        loop {
            let asked = self
                .image
                .borrow()
                .broker_config
                .log_retention_check_interval_ms;
            let interval = Duration::from_millis(asked.max(1) as u64);
            rt::sleep(self.config.retention_check.unwrap_or(interval)).await;
            if self.stopping.get() {
                return;
            }
            let idle_max = self.image.borrow().broker_config.producer_id_expiration_ms;
            let expire_before = self.uptime_ms() - i64::from(idle_max);
            let partitions: Vec<Rc<Partition>> =
                self.partitions.borrow().values().cloned().collect();
            for partition in partitions {
                if let Err(error) = partition.retain(rt::wall_ms()).await {
                    tracing::warn!(partition = %partition.dir.display(), %error, "retention failed; it will be tried again");
                }
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

    /// Flushes what it can for a clean stop. Appends are refused already.
    pub async fn close(self: &Rc<Self>) -> io::Result<Left> {
        self.journal
            .wait_all_durable()
            .await
            .map_err(io::Error::other)?;
        let all: Vec<Rc<Partition>> = self.partitions.borrow().values().cloned().collect();
        let (due, mut flushed, mut steps) = (rt::now() + CLOSE_TIME, Ok(()), 0);
        for group in all.chunks(CLOSED_AT_ONCE).take_while(|_| rt::now() < due) {
            let done = self.flush_all(group.to_vec(), None).await;
            flushed = flushed.and(done);
            steps += 1;
        }
        let left = all.len().saturating_sub(steps * CLOSED_AT_ONCE);
        self.checkpoint_of_now(flushed).await?;
        self.journal.stop();
        if left == 0 {
            return Ok(Left::Nothing);
        }
        tracing::info!(
            shard = self.index,
            partitions = left,
            "left to the journal, for lack of time; the next start replays it"
        );
        Ok(Left::InJournal)
    }
}

/// What arrives in [`STEP_TIME`] where a file of so many bytes takes `fill_time`; all that a write may have where that is none.
fn step_bytes(file_bytes: f64, fill_time: Duration) -> usize {
    let comes = file_bytes * STEP_TIME.as_secs_f64() / fill_time.as_secs_f64();
    (comes as usize).clamp(STEP_BYTES_MIN, IO_BYTES_MAX)
}

/// Runs `step` on every item, a few at once; gives what they gave, in no order.
async fn at_once<T: 'static, R: 'static, F: Future<Output = R> + 'static>(
    items: Vec<T>,
    step: impl Fn(T) -> F + Clone + 'static,
) -> Vec<R> {
    let workers = FLUSHES_AT_ONCE.min(items.len());
    let work = Rc::new(RefCell::new(items));
    let workers: Vec<_> = (0..workers)
        .map(|_| {
            let (work, step) = (work.clone(), step.clone());
            rt::spawn_joined(Class::Background, async move {
                let mut results = Vec::new();
                loop {
                    let next = work.borrow_mut().pop();
                    let Some(item) = next else { return results };
                    results.push(step(item).await);
                    rt::yield_if_needed().await;
                }
            })
        })
        .collect();
    let mut results = Vec::new();
    for worker in workers {
        results.append(&mut worker.await);
    }
    results
}

/// The successes; of the failures the last one goes to `result`.
fn keep<T>(results: Vec<io::Result<T>>, result: &mut io::Result<()>) -> Vec<T> {
    let mut kept = Vec::with_capacity(results.len());
    for one in results {
        match one {
            Ok(value) => kept.push(value),
            Err(error) => *result = Err(error),
        }
    }
    kept
}

fn cannot_flush(partition: &Partition, error: io::Error) -> io::Error {
    tracing::error!(partition = %partition.dir.display(), %error, "cannot flush");
    error
}

/// Makes what the passes wrote durable; more than `each_max` files by one sync of their file system.
async fn sync_files(passes: &[FlushPass], each_max: usize) -> io::Result<()> {
    let mut devices: HashMap<u64, Vec<&SegmentFiles>> = HashMap::new();
    for pass in passes {
        let files = pass.files();
        devices.entry(files.device()).or_default().push(files);
    }
    for files in devices.into_values() {
        if files.len() > each_max {
            rt::fs::sync_file_system(files[0].dir()).await?;
            // Not every file system flushes the device's cache for that.
            files[0].sync().await?;
            files.iter().for_each(|f| f.synced());
        } else {
            // Together: each waits for the device, which flushes for all of them at once.
            let synced = join_all(files.into_iter().map(|f| f.sync())).await;
            synced.into_iter().collect::<io::Result<()>>()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_the_rate() {
        let file_bytes = 64.0 * 1_048_576.0;
        let step = |seconds| step_bytes(file_bytes, Duration::from_secs_f64(seconds));
        // 20 MiB/s.
        assert!((209_000..210_000).contains(&step(3.2)));
        assert_eq!(step(0.1), IO_BYTES_MAX);
        assert_eq!(step(0.0), IO_BYTES_MAX);
        assert_eq!(step(3_600.0), STEP_BYTES_MIN);
    }
}
