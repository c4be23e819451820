//! Owns which records of one partition are with which member of a share group, and what became of those before.
//! Does not know logs, files or clocks, nor how its changes are kept: it gives them to whoever keeps them.
//! Invariant: between start and end every offset has one state, and no record is with two members at once.
//!
//! A change is in force at once. Whoever made it hears of it only when it is durable; where it cannot be made so, the
//! machine is thrown away, and the next one begins with what was kept: records that were given to somebody are given
//! again then, none is lost.

use super::records::{StateBatch, STATE_ACKNOWLEDGED, STATE_ARCHIVED, STATE_AVAILABLE};
use super::runs::Runs;
use super::types::{AckBatch, AckType, Acquired, ShareError};
use crate::types::Offset;
use std::rc::Rc;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShareConfig {
    /// `group.share.record.lock.duration.ms`
    pub lock_ms: u64,
    /// `group.share.delivery.count.limit`
    pub delivery_count_max: i16,
    /// `group.share.partition.max.record.locks`: offsets from start to end, at the most.
    pub in_flight_max: i64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Delivery {
    Available,
    Acquired {
        by: Rc<str>,
        until_ms: u64,
    },
    Acknowledged,
    /// Rejected, given too often, gone from the log, or no record at all.
    Archived,
}

impl Delivery {
    fn is_done(&self) -> bool {
        matches!(self, Delivery::Acknowledged | Delivery::Archived)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Flight {
    delivery: Delivery,
    count: i16,
}

/// What is to be kept since the last time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    pub start: Offset,
    /// Offsets from start on that are done.
    pub done: i32,
    pub batches: Vec<StateBatch>,
}

/// One partition as a share group has it.
#[derive(Debug)]
pub struct SharePartition {
    config: ShareConfig,
    start: Offset,
    /// Behind the last offset that was ever given to anybody.
    end: Offset,
    flights: Runs<Flight>,
    /// What was changed and not kept yet: state and delivery count.
    changed: Runs<(i8, i16)>,
    is_changed: bool,
}

impl SharePartition {
    /// As it was kept. What is not said of offsets between start and end, is that they are available.
    pub fn new(config: ShareConfig, start: Offset, kept: &[StateBatch]) -> SharePartition {
        let mut flights = Runs::default();
        let end = kept.iter().map(|b| b.last + 1).fold(start, i64::max);
        let free = Flight {
            delivery: Delivery::Available,
            count: 0,
        };
        if end > start {
            flights.set(start, end - 1, free);
        }
        for batch in kept.iter().filter(|batch| batch.last >= start) {
            let delivery = match batch.state {
                STATE_ACKNOWLEDGED => Delivery::Acknowledged,
                STATE_ARCHIVED => Delivery::Archived,
                _ => Delivery::Available,
            };
            let count = batch.count;
            flights.set(
                batch.first.max(start),
                batch.last,
                Flight { delivery, count },
            );
        }
        let mut partition = SharePartition {
            config,
            start,
            end,
            flights,
            changed: Runs::default(),
            is_changed: false,
        };
        partition.advance();
        partition
    }

    pub fn configure(&mut self, config: ShareConfig) {
        self.config = config;
    }

    #[cfg(test)]
    pub fn start(&self) -> Offset {
        self.start
    }

    #[cfg(test)]
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Bytes of memory, about.
    pub fn bytes(&self) -> usize {
        (self.flights.count() + self.changed.count()) * 96 + 256
    }

    /// Whether some record is with somebody.
    pub fn is_in_use(&self) -> bool {
        let acquired = |f: &Flight| matches!(f.delivery, Delivery::Acquired { .. });
        self.flights.iter().any(|(_, _, flight)| acquired(flight))
    }

    // Giving ---------------------------------------------------------------------------------------------------------

    /// The first offset that somebody could be given, if there may be more in flight.
    pub fn next_offset(&self) -> Option<Offset> {
        let free = |f: &Flight| f.delivery == Delivery::Available;
        let first = self.flights.iter().find(|(_, _, flight)| free(flight));
        let next = first.map_or(self.end, |(first, _, _)| first);
        (next - self.start < self.config.in_flight_max).then_some(next)
    }

    /// Gives a member what it may have of these offsets, at the most `records_max` (0: none).
    pub fn acquire(
        &mut self,
        member: &str,
        first: Offset,
        last: Offset,
        records_max: usize,
        now_ms: u64,
    ) -> Vec<Acquired> {
        let mut left = i64::try_from(records_max).unwrap_or(i64::MAX);
        let last = last.min(self.start + self.config.in_flight_max - 1);
        let mut free: Vec<(Offset, Offset, i16)> = Vec::new();
        for (first, last, flight) in self.flights.within(first.max(self.start), last) {
            if flight.delivery == Delivery::Available {
                free.push((first, last, flight.count));
            }
        }
        let beyond = first.max(self.end);
        if beyond <= last {
            free.push((beyond, last, 0));
        }
        let mut acquired = Vec::new();
        for (first, last, count) in free {
            let last = last.min(first.saturating_add(left).saturating_sub(1));
            if last < first {
                break;
            }
            left -= last - first + 1;
            if first > self.end {
                // What the log does not have any more.
                self.put(self.end, first - 1, Delivery::Archived, 0);
            }
            self.end = self.end.max(last + 1);
            let count = count.saturating_add(1);
            let delivery = Delivery::Acquired {
                by: member.into(),
                until_ms: now_ms + self.config.lock_ms,
            };
            self.flights.set(first, last, Flight { delivery, count });
            acquired.push(Acquired {
                first,
                last,
                delivery_count: count,
            });
        }
        self.advance();
        acquired
    }

    /// Offsets without a record for anybody (markers, records of aborted transactions): they are done, if nobody has them.
    pub fn skip(&mut self, first: Offset, last: Offset) {
        let last = last.min(self.start + self.config.in_flight_max - 1);
        for (first, last, flight) in self.flights.within(first.max(self.start), last) {
            if flight.delivery == Delivery::Available {
                self.put(first, last, Delivery::Archived, flight.count);
            }
        }
        if first <= self.end && self.end <= last {
            let first = self.end;
            self.end = last + 1;
            self.put(first, last, Delivery::Archived, 0);
        }
        self.advance();
    }

    // Taking back ----------------------------------------------------------------------------------------------------

    /// Takes what a member says of records it has, all of it or nothing.
    ///
    /// # Errors
    /// The batches are not in order or not whole, or one of the records is not with the member.
    pub fn acknowledge(
        &mut self,
        member: &str,
        batches: &[AckBatch],
        now_ms: u64,
    ) -> Result<(), ShareError> {
        let mut behind = Offset::MIN;
        for batch in batches {
            let ordered = batch.first >= 0 && batch.first <= batch.last && batch.first > behind;
            // In order, the difference is of at least nothing, and fits.
            let is_whole = |b: &AckBatch| {
                b.types.len() == 1 || b.types.len() as u64 == (b.last - b.first) as u64 + 1
            };
            if !ordered || !is_whole(batch) {
                let why = "the batches of acknowledgements are not in order or not whole";
                return Err(ShareError::InvalidRequest(why));
            }
            behind = batch.last;
            // What is before the start is done with, whatever is said of it.
            let first = batch.first.max(self.start);
            if batch.last >= self.end {
                return Err(ShareError::InvalidRecordState);
            }
            let theirs = |flight: &Flight| match &flight.delivery {
                Delivery::Acquired { by, .. } => &**by == member,
                Delivery::Available | Delivery::Acknowledged | Delivery::Archived => false,
            };
            let parts = self.flights.within(first, batch.last);
            if !parts.iter().all(|(_, _, flight)| theirs(flight)) {
                return Err(ShareError::InvalidRecordState);
            }
        }
        for batch in batches {
            match batch.types[..] {
                [one] => self.take_back(batch.first, batch.last, one, now_ms),
                ref each => {
                    // Runs of one type as one.
                    let mut at = batch.first;
                    for run in each.chunk_by(|a, b| a == b) {
                        let last = at + run.len() as Offset - 1;
                        self.take_back(at, last, run[0], now_ms);
                        at = last + 1;
                    }
                }
            }
        }
        self.advance();
        Ok(())
    }

    fn take_back(&mut self, first: Offset, last: Offset, how: AckType, now_ms: u64) {
        for (first, last, flight) in self.flights.within(first.max(self.start), last) {
            let count = flight.count;
            match how {
                AckType::Accept => self.put(first, last, Delivery::Acknowledged, count),
                AckType::Gap | AckType::Reject => self.put(first, last, Delivery::Archived, count),
                AckType::Release => self.free(first, last, count),
                AckType::Renew => {
                    let Delivery::Acquired { by, .. } = flight.delivery else {
                        unreachable!("looked at before");
                    };
                    let until_ms = now_ms + self.config.lock_ms;
                    let delivery = Delivery::Acquired { by, until_ms };
                    self.flights.set(first, last, Flight { delivery, count });
                }
            }
        }
    }

    /// Records that somebody had are anybody's again, unless they were given too often.
    fn free(&mut self, first: Offset, last: Offset, count: i16) {
        match count >= self.config.delivery_count_max {
            true => self.put(first, last, Delivery::Archived, count),
            false => self.put(first, last, Delivery::Available, count),
        }
    }

    /// Runs of records that are with somebody, and how often they were given.
    fn acquired(&self, which: impl Fn(&str, u64) -> bool) -> Vec<(Offset, Offset, i16)> {
        let had = |flight: &Flight| match &flight.delivery {
            Delivery::Acquired { by, until_ms } => which(by, *until_ms),
            Delivery::Available | Delivery::Acknowledged | Delivery::Archived => false,
        };
        let all = self.flights.iter().filter(|(_, _, flight)| had(flight));
        all.map(|(f, l, flight)| (f, l, flight.count)).collect()
    }

    /// A member is gone, and gives back what it did not get to: that was no delivery.
    pub fn release(&mut self, member: &str) {
        for (first, last, count) in self.acquired(|by, _| by == member) {
            self.put(first, last, Delivery::Available, (count - 1).max(0));
        }
        self.advance();
    }

    /// Monotonic milliseconds at which the first lock ends.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let until = |f: &Flight| match f.delivery {
            Delivery::Acquired { until_ms, .. } => Some(until_ms),
            Delivery::Available | Delivery::Acknowledged | Delivery::Archived => None,
        };
        self.flights.iter().filter_map(|(_, _, f)| until(f)).min()
    }

    /// Takes back what was with somebody for too long.
    pub fn tick(&mut self, now_ms: u64) {
        if self.next_deadline_ms().is_some_and(|due| due <= now_ms) {
            for (first, last, count) in self.acquired(|_, until_ms| until_ms <= now_ms) {
                self.free(first, last, count);
            }
            self.advance();
        }
    }

    /// The log begins here now: what was before is gone for everybody.
    pub fn log_begins(&mut self, log_start: Offset) {
        if log_start > self.start {
            self.start = log_start;
            self.end = self.end.max(log_start);
            self.flights.trim(log_start);
            self.is_changed = true;
            self.advance();
        }
    }

    // Keeping --------------------------------------------------------------------------------------------------------

    /// Whether something is to be kept since that was last taken from here.
    pub fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// What is to be kept since it was last taken from here.
    pub fn take_change(&mut self) -> Option<Change> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        let mut changed = std::mem::take(&mut self.changed);
        changed.trim(self.start);
        let batch = |(first, last, (state, count)): (Offset, Offset, &(i8, i16))| StateBatch {
            first,
            last,
            state: *state,
            count: *count,
        };
        let done = self.flights.iter().filter(|(_, _, f)| f.delivery.is_done());
        let done: Offset = done.map(|(first, last, _)| last - first + 1).sum();
        Some(Change {
            start: self.start,
            done: i32::try_from(done).unwrap_or(i32::MAX),
            batches: changed.iter().map(batch).collect(),
        })
    }

    fn put(&mut self, first: Offset, last: Offset, delivery: Delivery, count: i16) {
        let state = match delivery {
            Delivery::Available => STATE_AVAILABLE,
            Delivery::Acknowledged => STATE_ACKNOWLEDGED,
            Delivery::Archived => STATE_ARCHIVED,
            Delivery::Acquired { .. } => unreachable!("what is with somebody is not kept"),
        };
        self.flights.set(first, last, Flight { delivery, count });
        self.changed.set(first, last, (state, count));
        self.is_changed = true;
    }

    /// What is done at the start is forgotten.
    fn advance(&mut self) {
        let mut start = self.start;
        for (first, last, flight) in self.flights.iter() {
            if first != start || !flight.delivery.is_done() {
                break;
            }
            start = last + 1;
        }
        if start > self.start {
            self.start = start;
            self.flights.trim(start);
            self.is_changed = true;
        }
        assert!(self.start <= self.end, "the start is not beyond the end");
    }
}
