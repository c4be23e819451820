//! Owns taking a batch into a partition's log: one synchronous step, no await inside.
//! Does not know who sent it nor when it is acknowledged.
//! Invariant: offsets are handed out densely, in the order of the calls.

use super::producers::Verdict;
use super::{Log, Partition, Pending, Segment, TailEntry};
use crate::api::Appended;
use crate::error::PartitionError;
use crate::journal::entry::{EntryHeader, EntryKind};
use crate::meta::config::TimestampType;
use crate::meta::TopicConfig;
use crate::plant::{self, Plant};
use crate::rt::Mono;
use crate::types::batch::{self, BatchHeader, Codec};
use crate::types::limits::{BATCH_BYTES_MAX, BATCH_HEADER_BYTES};
use crate::types::{framing, Offset};
use std::rc::Rc;

/// A batch that is in the log; it counts once journal sequence `sequence` is durable.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    pub appended: Appended,
    pub sequence: u64,
    /// The topic lets the acknowledgement leave before the flush.
    pub cached: bool,
}

/// Two clocks: the wall's for timestamps, the monotonic one for everything that is decided.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub wall_ms: i64,
    pub mono: Mono,
}

impl Partition {
    /// Reads what an append will write to. With many partitions none of it is in the processor's caches, and for those of
    /// one request it comes in side by side if nothing else is done between.
    pub fn bring_near(&self) {
        let log = self.log.borrow();
        let segment = log.segments.back();
        std::hint::black_box((
            segment.map(|last| (last.bytes, last.index.last_position())),
            log.tail.back().map(|last| last.sequence),
            log.pending.back().map(|last| last.sequence),
        ));
    }

    /// Appends one batch whose bytes `BatchHeader::check_from_client` accepted. Into a compressed one nobody looks here: it
    /// may become hundreds of times as large, and offsets are handed out in one step.
    pub fn append(
        self: &Rc<Self>,
        header: BatchHeader,
        bytes: &[u8],
        clock: Clock,
    ) -> Result<Accepted, PartitionError> {
        // Borrowed: to count one more who has it and one less is a barrier each, at which the processor waits for every line
        // that the appends before are still to write.
        let topic = self.topic.borrow();
        let config = &*topic.config;
        let mut log = self.log.borrow_mut();
        if log.offline_from.is_some() {
            return Err(PartitionError::Storage(
                "acknowledged data of this partition is damaged".into(),
            ));
        }
        check_size(config, bytes.len(), self.journal.payload_bytes_max())?;
        let stamp_time = config.message_timestamp_type == TimestampType::LogAppendTime;
        if !stamp_time {
            check_timestamp(config, &header, clock.wall_ms)?;
        }
        if config.cleanup_policy.compact && is_keyless(&header, bytes) {
            return Err(PartitionError::InvalidRecord(
                "records of a compacted topic need keys",
            ));
        }
        if header.has_producer() {
            if let Verdict::Duplicate(stored) = log.producers.check(&header)? {
                return Ok(Accepted {
                    appended: Appended {
                        base_offset: stored.base_offset,
                        log_append_time_ms: if stamp_time { stored.timestamp_ms } else { -1 },
                        log_start: log.log_start,
                    },
                    sequence: if plant::active(Plant::DuplicateAnsweredEarly) {
                        0
                    } else {
                        log.sequence_of(stored.last_offset)
                    },
                    cached: false,
                });
            }
        }
        let is_known = log.producers.knows(header.producer_id);
        log.transactions.check(&header, is_known)?;
        Ok(self.enter(&mut log, config, header, None, bytes, clock))
    }

    /// Takes a batch that nothing is wrong with; `marker` is what it says of a transaction's end, if it does.
    pub(super) fn enter(
        self: &Rc<Self>,
        log: &mut Log,
        config: &TopicConfig,
        header: BatchHeader,
        marker: Option<bool>,
        bytes: &[u8],
        clock: Clock,
    ) -> Accepted {
        let stamp_time = config.message_timestamp_type == TimestampType::LogAppendTime;
        let log_append_time_ms = if stamp_time { clock.wall_ms } else { -1 };
        let mut header = header;
        header.base_offset = log.next_offset;
        header.leader_epoch = self.leader_epoch();
        if stamp_time {
            header.max_timestamp = clock.wall_ms;
        }
        log.roll_if_due(config, &header, clock);
        let entry = EntryHeader {
            kind: EntryKind::Append,
            partition: self.id,
            leader_epoch: header.leader_epoch,
            truncation: log.truncation,
            base_offset: header.base_offset,
            payload_bytes: bytes.len() as u32,
        };
        // Once per commit is enough.
        let told = log.pending.back().map(|p| p.sequence);
        let location = self.journal.append(
            &entry,
            bytes,
            |copy| {
                batch::stamp(copy, header.base_offset, header.leader_epoch);
                if stamp_time {
                    batch::stamp_append_time(copy, clock.wall_ms);
                }
            },
            |sequence| (told != Some(sequence)).then(|| self.clone() as _),
        );
        log.place(
            &header,
            location.sequence,
            location.position,
            u64::from(config.index_interval_bytes),
            clock.mono,
        );
        if header.has_producer() {
            let durable = log.progress.durable();
            log.note_producer(&header, marker, mono_ms(clock), durable);
        }
        let cached = config.write_caching && log.may_cache(config, clock);
        let appended = Appended {
            base_offset: header.base_offset,
            log_append_time_ms,
            log_start: log.log_start,
        };
        log.check_order();
        Accepted {
            appended,
            sequence: location.sequence,
            cached,
        }
    }

    /// Remembers a batch that was refused for a reason that passes: its client sends it again, perhaps behind others that
    /// were under way with it.
    pub fn note_refused(&self, header: &BatchHeader, clock: Clock) {
        if header.has_producer() {
            let mut log = self.log.borrow_mut();
            log.producers.note_refused(header, mono_ms(clock));
        }
    }
}

/// Whether a batch that is not compressed has a record without a key.
fn is_keyless(header: &BatchHeader, bytes: &[u8]) -> bool {
    let records = &bytes[BATCH_HEADER_BYTES..];
    header.codec() == Ok(Codec::None) && framing::check(records, header.record_count) != Ok(true)
}

fn mono_ms(clock: Clock) -> i64 {
    (clock.mono.as_nanos() / 1_000_000) as i64
}

impl Log {
    /// What a batch that is in the log says of its producer and of its transaction, live or again while recovering.
    pub(super) fn note_producer(
        &mut self,
        header: &BatchHeader,
        marker: Option<bool>,
        now_ms: i64,
        durable: Offset,
    ) {
        let producers = &mut self.producers;
        if header.base_sequence < 0 {
            producers.record_without_sequence(header, now_ms, durable);
        } else {
            producers.record(header, now_ms, durable);
        }
        match marker {
            Some(commit) => self.transactions.ended(
                header.producer_id,
                header.base_offset,
                commit,
                self.progress.durable(),
                self.log_start,
            ),
            None if header.is_transactional() => self.transactions.appended(header),
            None => {}
        }
    }

    /// Enters a batch that the journal just took (live, or again while recovering).
    pub(super) fn place(
        &mut self,
        header: &BatchHeader,
        sequence: u64,
        position: u32,
        index_interval: u64,
        now: Mono,
    ) {
        assert_eq!(header.base_offset, self.next_offset);
        let segment = self.segments.back_mut().expect("a segment was opened");
        assert!(!segment.closed);
        let segment_position = segment.bytes as u32;
        let last_relative = (header.last_offset() - segment.base) as u32;
        segment.index.note(
            last_relative,
            segment_position,
            header.size as u32,
            header.max_timestamp,
            index_interval,
        );
        segment.bytes += header.size as u64;
        segment.next_offset = header.next_offset();
        if header.max_timestamp > segment.max_timestamp_ms {
            segment.max_timestamp_ms = header.max_timestamp;
            segment.max_timestamp_offset = header.base_offset;
        }
        self.tail.push_back(TailEntry {
            base_offset: header.base_offset,
            max_timestamp_ms: header.max_timestamp,
            sequence,
            buffer_position: position,
            bytes: header.size as u32,
            segment_position,
            last_delta: header.last_offset_delta as u32,
        });
        self.next_offset = header.next_offset();
        self.epochs.observe(header.leader_epoch, header.base_offset);
        match self.pending.back_mut() {
            Some(last) if last.sequence == sequence => last.end = self.next_offset,
            Some(_) | None => self.pending.push_back(Pending {
                sequence,
                end: self.next_offset,
                since: now,
            }),
        }
    }

    /// Whether the disk is close enough behind the log for an acknowledgement from memory.
    fn may_cache(&self, config: &TopicConfig, clock: Clock) -> bool {
        let (records_max, ms_max) = config.write_caching_bounds();
        let records = self.next_offset - self.progress.durable();
        let oldest = self.pending.front().map_or(clock.mono, |p| p.since);
        let ms = (clock.mono - oldest).as_millis();
        let within = records as u64 <= records_max && ms <= u128::from(ms_max);
        within || plant::active(Plant::CachingUnbounded)
    }

    /// Opens a new segment where there is none, or where this batch may not go into the last one.
    pub(super) fn roll_if_due(&mut self, config: &TopicConfig, header: &BatchHeader, clock: Clock) {
        let due = match self.segments.back() {
            None => true,
            Some(last) => {
                let full =
                    last.bytes > 0 && last.bytes + header.size as u64 > config.segment_bytes as u64;
                let aged = last.bytes > 0
                    && (clock.mono - last.opened).as_millis() >= u128::from(config.segment_ms);
                let far = header.last_offset() - last.base > i64::from(i32::MAX);
                last.closed || full || aged || far
            }
        };
        if due && plant::active(Plant::DropProducersAtRoll) {
            self.producers = Default::default()
        }
        if due {
            if let Some(last) = self.segments.back_mut() {
                last.closed = true;
            }
            self.segments.push_back(Segment {
                first_timestamp_ms: Some(header.max_timestamp),
                ..Segment::new(self.next_offset, clock.mono)
            });
        }
    }

    /// Journal sequence that makes the batch ending at `last_offset` durable; 0 if it is already.
    pub(super) fn sequence_of(&self, last_offset: Offset) -> u64 {
        self.pending
            .iter()
            .find(|p| p.end > last_offset)
            .map_or(0, |p| p.sequence)
    }
}

fn check_size(config: &TopicConfig, size: usize, journal_max: usize) -> Result<(), PartitionError> {
    let max = (config.max_message_bytes as usize)
        .min(BATCH_BYTES_MAX)
        .min(journal_max);
    if size > max {
        return Err(PartitionError::TooLarge { size, max });
    }
    // A batch larger than a segment could never be stored.
    if size as u64 > config.segment_bytes as u64 {
        return Err(PartitionError::TooLarge {
            size,
            max: config.segment_bytes as usize,
        });
    }
    Ok(())
}

fn check_timestamp(
    config: &TopicConfig,
    header: &BatchHeader,
    wall_ms: i64,
) -> Result<(), PartitionError> {
    let newest = header.max_timestamp;
    if newest < 0 {
        return Ok(()); // no timestamp
    }
    let exceeds = |distance: i64, max: u64| u64::try_from(distance).is_ok_and(|d| d > max);
    if exceeds(
        newest.saturating_sub(wall_ms),
        config.message_timestamp_after_max_ms,
    ) {
        return Err(PartitionError::InvalidTimestamp {
            timestamp_ms: newest,
        });
    }
    if exceeds(
        wall_ms.saturating_sub(header.base_timestamp),
        config.message_timestamp_before_max_ms,
    ) {
        return Err(PartitionError::InvalidTimestamp {
            timestamp_ms: header.base_timestamp,
        });
    }
    Ok(())
}
