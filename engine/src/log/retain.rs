//! Owns what leaves a log at its beginning: retention by time and size, DeleteRecords.
//! Does not know when it is called. Works on whole segments.
//! Invariant: the new log start is durable in the journal before a file is unlinked.

use super::folder::owner;
use super::index::base_of_log;
use super::segment::remove_files;
use super::{Log, Partition, Segment};
use crate::error::PartitionError;
use crate::journal::entry::{EntryHeader, EntryKind};
use crate::meta::TopicConfig;
use crate::plant::{self, Plant};
use crate::rt::{self, Class};
use crate::types::Offset;
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// How fast files of dropped segments are given back. A file system may tell the device of each block that is free again,
/// and meanwhile the device flushes nothing.
const REMOVED_BYTES_PER_SECOND: f64 = (2u64 << 30) as f64;

fn pause_after(bytes: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / REMOVED_BYTES_PER_SECOND)
}

impl Partition {
    /// Moves the log start up to an offset below the high watermark: whoever wrote the records has written again all of
    /// them that still matters.
    pub async fn release_before(self: &Rc<Self>, target: Offset) -> Result<(), PartitionError> {
        if target > self.log.borrow().log_start {
            self.move_log_start(target).await?;
            self.drop_segments().await;
        }
        Ok(())
    }

    /// Moves the log start to `before` (-1: the high watermark), durably; gives the log start.
    pub async fn delete_records(self: &Rc<Self>, before: Offset) -> Result<Offset, PartitionError> {
        let target = {
            let log = self.log.borrow();
            let end = log.high_watermark();
            let target = if before == -1 { end } else { before };
            if target < 0 || target > end {
                return Err(PartitionError::OffsetOutOfRange {
                    wanted: before,
                    log_start: log.log_start,
                    end,
                });
            }
            if target <= log.log_start {
                return Ok(log.log_start);
            }
            target
        };
        if !self.config().cleanup_policy.delete {
            return Err(PartitionError::Policy(
                "records of a compacted topic cannot be deleted",
            ));
        }
        self.move_log_start(target).await?;
        self.drop_segments().await;
        Ok(self.log.borrow().log_start)
    }

    /// Deletes the oldest segments that retention no longer asks for. `wall_ms` is what record
    /// timestamps are compared with.
    pub async fn retain(self: &Rc<Self>, wall_ms: i64) -> Result<(), PartitionError> {
        let config = self.config();
        let target = if config.cleanup_policy.delete {
            self.log.borrow().retention_target(&config, wall_ms)
        } else {
            None
        };
        if let Some(target) = target {
            self.move_log_start(target).await?;
        }
        self.drop_segments().await;
        Ok(())
    }

    async fn move_log_start(&self, target: Offset) -> Result<(), PartitionError> {
        let location = {
            let mut log = self.log.borrow_mut();
            if target <= log.log_start {
                return Ok(());
            }
            log.log_start_asked = log.log_start_asked.max(target);
            let entry = EntryHeader {
                kind: EntryKind::LogStart,
                partition: self.id,
                leader_epoch: -1,
                truncation: log.truncation,
                base_offset: target,
                payload_bytes: 0,
            };
            self.journal.append(&entry, &[], |_| {}, |_| None)
        };
        if !plant::active(Plant::LogStartNotAwaited) {
            self.journal
                .wait_durable(location.sequence)
                .await
                .map_err(PartitionError::Storage)?;
        }
        let mut log = self.log.borrow_mut();
        log.log_start = log.log_start.max(target);
        log.check_order();
        Ok(())
    }

    /// Lets go of segments wholly below the log start; their files are unlinked after the topic's
    /// delay, in the background.
    async fn drop_segments(self: &Rc<Self>) {
        let _one_at_a_time = self.files_lock.acquire(1).await;
        if self.is_stuck() {
            // By their names its files may be those of an exchange that is not done: the next start sees to that.
            return;
        }
        let segments: Vec<(Offset, u64)> = {
            let mut log = self.log.borrow_mut();
            log.close_if_emptied(rt::now());
            let mut segments = Vec::new();
            while log.segments.len() > 1 && log.segments[0].next_offset <= log.log_start {
                // Bytes that are only in the journal still have to reach their segment, or the
                // journal file that holds them could never be reused.
                if log.segments[0].disk_bytes < log.segments[0].bytes {
                    break;
                }
                segments.extend(log.segments.pop_front().map(|s| (s.base, s.bytes)));
            }
            segments
        };
        if segments.is_empty() {
            return;
        }
        let bases = segments.iter().map(|(base, _)| *base);
        self.dropped.borrow_mut().extend(bases);
        let delay = Duration::from_millis(self.config().file_delete_delay_ms);
        let partition = self.clone();
        rt::spawn(Class::Background, async move {
            rt::sleep(delay).await;
            for (base, bytes) in segments {
                let _turn = partition.removals.acquire(1).await;
                partition.unlink(&[base]).await;
                rt::sleep(pause_after(bytes)).await;
            }
        });
    }

    /// Removes at once what was to be removed later: nobody reads any more, and the next start would not know of it.
    pub async fn unlink_dropped(&self) {
        let bases: Vec<Offset> = self.dropped.borrow().iter().copied().collect();
        if !bases.is_empty() {
            self.unlink(&bases).await;
        }
    }

    /// Removes the files of segments that are no part of the log any more.
    async fn unlink(&self, bases: &[Offset]) {
        let _not_set_aside_meanwhile = self.files_lock.acquire(1).await;
        if let Err(error) = self.try_unlink(bases).await {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot remove deleted segments");
        }
    }

    /// Unless the whole folder has gone meanwhile: a new topic of the same name has its own files there, by the same names.
    async fn try_unlink(&self, bases: &[Offset]) -> io::Result<()> {
        let other = owner(&self.dir)
            .await?
            .is_some_and(|id| id != self.id.topic);
        if other || self.deleted.get() {
            return Ok(());
        }
        for base in bases {
            if self.dropped.borrow().contains(base) {
                remove_files(&self.dir, *base).await?;
                self.dropped.borrow_mut().remove(base);
            }
        }
        Ok(())
    }

    /// Removes segments that an earlier life of the broker was to remove, and did not come to.
    pub async fn remove_forgotten(&self) -> io::Result<()> {
        let _one_at_a_time = self.files_lock.acquire(1).await;
        if self.deleted.get() || self.is_stuck() {
            return Ok(());
        }
        let entries = match rt::fs::list_dir(&self.dir).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let forgotten: Vec<Offset> = {
            let (log, dropped) = (self.log.borrow(), self.dropped.borrow());
            let is_known = |base: &Offset| log.segment(*base).is_some() || dropped.contains(base);
            // What is damaged is left as it is, and so is what retention cannot have left.
            let may_be = |base: &Offset| log.offline_from.is_none() && *base < log.log_start;
            let bases = entries.iter().filter_map(|entry| base_of_log(&entry.name));
            bases.filter(|b| may_be(b) && !is_known(b)).collect()
        };
        if forgotten.is_empty() {
            return Ok(());
        }
        self.dropped.borrow_mut().extend(&forgotten);
        self.try_unlink(&forgotten).await
    }
}

impl Log {
    /// Where all of the last segment is gone, appends go on in a new one, so that it can go too.
    fn close_if_emptied(&mut self, now: rt::Mono) {
        let end = self.next_offset;
        let emptied = |s: &&mut Segment| s.bytes > 0 && s.next_offset <= self.log_start;
        if let Some(last) = self.segments.back_mut().filter(emptied) {
            last.closed = true;
            self.segments.push_back(Segment::new(end, now));
        }
    }

    /// Where retention wants the log to begin; None where it is content.
    fn retention_target(&self, config: &TopicConfig, wall_ms: i64) -> Option<Offset> {
        let mut target = None;
        let mut total: u64 = self.segments.iter().map(|s| s.bytes).sum();
        let one_more = plant::active(Plant::RetentionTakesOneMore);
        for segment in &self.segments {
            let expired = config.retention_ms.is_some_and(|keep| {
                let age = wall_ms.saturating_sub(segment.max_timestamp_ms);
                segment.max_timestamp_ms >= 0 && u64::try_from(age).is_ok_and(|age| age > keep)
            });
            let oversize = config
                .retention_bytes
                .is_some_and(|keep| total - if one_more { 0 } else { segment.bytes } >= keep);
            let whole = segment.bytes > 0 && segment.next_offset <= self.high_watermark();
            if !whole || !(expired || oversize) {
                break;
            }
            target = Some(segment.next_offset);
            total -= segment.bytes;
        }
        target.filter(|t| *t > self.log_start)
    }
}
