//! Owns what leaves a log at its beginning: retention by time and size, DeleteRecords.
//! Does not know when it is called. Works on whole segments.
//! Invariant: the new log start is durable in the journal before a file is unlinked.

use super::segment::remove_files;
use super::{Log, Partition, Segment};
use crate::error::PartitionError;
use crate::journal::entry::{EntryHeader, EntryKind};
use crate::meta::TopicConfig;
use crate::plant::{self, Plant};
use crate::rt::{self, Class};
use crate::types::Offset;
use std::rc::Rc;
use std::time::Duration;

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
        let bases: Vec<Offset> = {
            let mut log = self.log.borrow_mut();
            log.close_if_emptied(rt::now());
            let mut bases = Vec::new();
            while log.segments.len() > 1 && log.segments[0].next_offset <= log.log_start {
                // Bytes that are only in the journal still have to reach their segment, or the
                // journal file that holds them could never be reused.
                if log.segments[0].disk_bytes < log.segments[0].bytes {
                    break;
                }
                bases.extend(log.segments.pop_front().map(|s| s.base));
            }
            bases
        };
        if bases.is_empty() {
            return;
        }
        let delay = Duration::from_millis(self.config().file_delete_delay_ms);
        let dir = self.dir.clone();
        rt::spawn(Class::Background, async move {
            rt::sleep(delay).await;
            for base in bases {
                if let Err(error) = remove_files(&dir, base).await {
                    tracing::warn!(dir = %dir.display(), base, %error, "cannot remove a deleted segment");
                }
            }
        });
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
