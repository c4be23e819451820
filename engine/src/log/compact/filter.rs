//! Owns what compaction keeps of a batch, and the batch made again of what it keeps.
//! Does not know files, nor which batches it is given; they come in the order of the log, from its beginning on.
//! Invariants: offsets, sequences, epochs and codec stay; the last record of a key goes only as a tombstone whose time has
//! come; a marker goes only after all that it ends has gone, and its own time has come.

use super::deflate::Deflate;
use super::map::OffsetMap;
use super::records::{Record, Records};
use crate::log::marker::outcome;
use crate::log::producers::LastOf;
use crate::log::transactions::TxnSpan;
use crate::plant::{self, Plant};
use crate::types::batch::build::{self, zigzag};
use crate::types::batch::{BatchHeader, DELETE_HORIZON};
use crate::types::Offset;
use hashbrown::{HashMap, HashSet};
use std::io;

/// What becomes of a batch.
#[derive(PartialEq, Eq, Debug)]
pub enum Fate {
    AsItIs,
    /// Its place is taken by this one, which may have no records.
    Replaced(Vec<u8>),
    Gone,
}

/// Aborted transactions, by producer.
pub struct Aborted(HashMap<i64, Vec<(Offset, Offset)>>);

impl Aborted {
    pub fn new(spans: &[TxnSpan]) -> Aborted {
        let mut by_producer: HashMap<i64, Vec<(Offset, Offset)>> = HashMap::new();
        for span in spans.iter().filter(|span| span.last >= 0) {
            let of = by_producer.entry(span.producer_id).or_default();
            of.push((span.first, span.last));
        }
        by_producer.values_mut().for_each(|of| of.sort_unstable());
        Aborted(by_producer)
    }

    /// Whether a batch of records was aborted.
    pub fn has(&self, header: &BatchHeader) -> bool {
        if !header.is_transactional() || header.is_control() {
            return false;
        }
        let Some(of) = self.0.get(&header.producer_id) else {
            return false;
        };
        let after = of.partition_point(|(first, _)| *first <= header.base_offset);
        let span = after.checked_sub(1).map(|at| of[at]);
        span.is_some_and(|(_, last)| header.last_offset() < last)
    }
}

/// What the rules need to know.
pub struct Rules<'a> {
    /// Last offsets of the keys of all records from the first dirty one up to `map_end`.
    pub map: &'a OffsetMap,
    pub map_end: Offset,
    pub aborted: &'a Aborted,
    pub producers: &'a HashMap<i64, LastOf>,
    /// Wall clock.
    pub now_ms: i64,
    pub delete_retention_ms: u64,
}

pub struct Filter<'a> {
    rules: Rules<'a>,
    /// Producers that have a batch of a transaction whose marker is still to come.
    unended: HashSet<i64>,
    /// Producer and offset of the markers of aborted transactions that went.
    pub markers_gone: Vec<(i64, Offset)>,
    /// Batches that were kept because their records cannot be read.
    pub unreadable: u64,
    pub records_gone: u64,
}

/// What is to be done with a batch before its records are looked at.
struct Verdict {
    /// No record of it stays.
    discard: bool,
    /// It stays, if need be without records.
    keep: bool,
    /// It is the marker of a transaction of which nothing is left.
    idle_marker: bool,
}

impl<'a> Filter<'a> {
    pub fn new(rules: Rules<'a>) -> Filter<'a> {
        Filter {
            rules,
            unended: HashSet::new(),
            markers_gone: Vec::new(),
            unreadable: 0,
            records_gone: 0,
        }
    }

    /// Decides on the next batch of the log. `last`: it is where its segment ends, and stays for that.
    pub async fn next(
        &mut self,
        header: &BatchHeader,
        batch: &[u8],
        last: bool,
    ) -> io::Result<Fate> {
        let verdict = self.judge(header, last);
        if verdict.discard || header.record_count == 0 {
            self.note_gone(header, batch, &verdict).await;
            return Ok(emptied(header, &verdict));
        }
        if header.is_control() {
            let due = verdict.idle_marker && header.delete_horizon().is_none();
            let Some(horizon) = due.then(|| self.horizon()) else {
                return Ok(Fate::AsItIs);
            };
            return self.rebuilt(header, batch, Some(horizon), true).await;
        }
        match self.filtered(header, batch, &verdict).await {
            Ok(fate) => Ok(fate),
            Err(error) if is_garbage(&error) => {
                // A client may compress garbage. Nobody can tell what would be lost with it.
                tracing::debug!(base_offset = header.base_offset, %error, "kept as it is: its records cannot be read");
                self.unreadable += 1;
                Ok(Fate::AsItIs)
            }
            Err(error) => Err(error),
        }
    }

    fn judge(&mut self, header: &BatchHeader, last: bool) -> Verdict {
        let idle_marker = header.is_control() && !self.unended.remove(&header.producer_id);
        let aborted = self.rules.aborted.has(header);
        if header.is_transactional() && !header.is_control() {
            self.unended.insert(header.producer_id);
        }
        let due = |horizon: i64| horizon <= self.rules.now_ms;
        let discard = match header.is_control() {
            true => idle_marker && header.delete_horizon().is_some_and(due),
            false => aborted,
        };
        Verdict {
            discard,
            keep: last || self.is_last_of_producer(header),
            idle_marker,
        }
    }

    /// Whether what is known of an idempotent producer ends with this batch.
    fn is_last_of_producer(&self, header: &BatchHeader) -> bool {
        let known = match header.has_producer() {
            true => self.rules.producers.get(&header.producer_id),
            false => None,
        };
        known.is_some_and(|last| match last.data {
            Some(offset) => header.last_offset() == offset,
            None => header.is_control() && header.producer_epoch == last.epoch,
        })
    }

    fn horizon(&self) -> i64 {
        let retention = i64::try_from(self.rules.delete_retention_ms).unwrap_or(i64::MAX);
        self.rules.now_ms.saturating_add(retention)
    }

    async fn note_gone(&mut self, header: &BatchHeader, batch: &[u8], verdict: &Verdict) {
        self.records_gone += u64::try_from(header.record_count).unwrap_or(0);
        if !header.is_control() || !verdict.discard {
            return;
        }
        // One without a record ended something that was forgotten with the record.
        if let Ok(mut records) = Records::of(header, batch) {
            if let Ok(Some(record)) = records.next().await {
                if record.key.and_then(outcome) == Some(false) {
                    let marker = (header.producer_id, header.base_offset);
                    self.markers_gone.push(marker);
                }
            }
        }
    }

    fn stays(&self, header: &BatchHeader, record: &Record<'_>) -> bool {
        let offset = header.base_offset + i64::from(record.offset_delta);
        if offset >= self.rules.map_end {
            return true;
        }
        let Some(key) = record.key else { return false };
        let known = self.rules.map.get(key);
        let is_last = match plant::active(Plant::CompactKeepsFirst) {
            true => known.is_none_or(|last| offset != last),
            false => known.is_none_or(|last| offset >= last),
        };
        let horizon = header.delete_horizon();
        let keeps_tombstones = horizon.is_none_or(|horizon| self.rules.now_ms < horizon);
        is_last && (record.has_value || keeps_tombstones)
    }

    async fn filtered(
        &mut self,
        header: &BatchHeader,
        batch: &[u8],
        verdict: &Verdict,
    ) -> io::Result<Fate> {
        let (mut stay, mut gone, mut tombstones) = (0u64, 0u64, false);
        let mut records = Records::of(header, batch)?;
        while let Some(record) = records.next().await? {
            match self.stays(header, &record) {
                true => {
                    stay += 1;
                    tombstones |= !record.has_value;
                }
                false => gone += 1,
            }
        }
        drop(records);
        self.records_gone += gone;
        let horizon = (tombstones && header.delete_horizon().is_none()).then(|| self.horizon());
        match (stay, gone) {
            (0, _) => Ok(emptied(header, verdict)),
            (_, 0) if horizon.is_none() => Ok(Fate::AsItIs),
            _ => self.rebuilt(header, batch, horizon, false).await,
        }
    }

    /// The batch with those of its records that stay (or `all`), and with a delete horizon if that is new.
    async fn rebuilt(
        &self,
        header: &BatchHeader,
        batch: &[u8],
        horizon: Option<i64>,
        all: bool,
    ) -> io::Result<Fate> {
        let base = horizon.unwrap_or(header.base_timestamp);
        let shift = header.base_timestamp.wrapping_sub(base);
        let mut out = Deflate::new(header.codec()?)?;
        let (mut count, mut newest, mut line) = (0, i64::MIN, Vec::new());
        let mut records = Records::of(header, batch)?;
        while let Some(record) = records.next().await? {
            if !all && !self.stays(header, &record) {
                continue;
            }
            count += 1;
            let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
            newest = newest.max(timestamp);
            let mut head = vec![record.attributes];
            zigzag(record.timestamp_delta.wrapping_add(shift), &mut head);
            zigzag(i64::from(record.offset_delta), &mut head);
            line.clear();
            zigzag((head.len() + record.rest.len()) as i64, &mut line);
            line.extend(head);
            out.write(&line)?;
            for part in record.rest.chunks(crate::types::limits::INFLATE_STEP_BYTES) {
                out.write(part)?;
                crate::rt::yield_if_needed().await;
            }
        }
        let mark = if horizon.is_some() { DELETE_HORIZON } else { 0 };
        let made = BatchHeader {
            attributes: header.attributes | mark,
            base_timestamp: base,
            max_timestamp: match header.is_log_append_time() {
                true => header.max_timestamp,
                false => newest,
            },
            record_count: count,
            ..*header
        };
        Ok(Fate::Replaced(build::with_header(&made, &out.finish()?)))
    }
}

/// What is left of a batch without its records.
fn emptied(header: &BatchHeader, verdict: &Verdict) -> Fate {
    if !verdict.keep {
        return Fate::Gone;
    }
    if header.record_count == 0 {
        return Fate::AsItIs;
    }
    let codec_and_horizon = 7 | DELETE_HORIZON;
    let empty = BatchHeader {
        attributes: header.attributes & !codec_and_horizon,
        base_timestamp: -1,
        record_count: 0,
        ..*header
    };
    Fate::Replaced(build::with_header(&empty, &[]))
}

/// Puts the keys of a batch into the map; false where it got full. Keys of a batch whose records cannot be read are noted
/// as far as they can be: the batch itself stays.
pub async fn note_keys(
    map: &mut OffsetMap,
    header: &BatchHeader,
    batch: &[u8],
    from: Offset,
) -> io::Result<bool> {
    let mut records = match Records::of(header, batch) {
        Ok(records) => records,
        Err(error) if is_garbage(&error) => return Ok(true),
        Err(error) => return Err(error),
    };
    loop {
        let record = match records.next().await {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(true),
            Err(error) if is_garbage(&error) => return Ok(true),
            Err(error) => return Err(error),
        };
        let offset = header.base_offset + i64::from(record.offset_delta);
        if let Some(key) = record.key.filter(|_| offset >= from) {
            if !map.put(key, offset) {
                return Ok(false);
            }
        }
    }
}

/// Whether bytes that were read are not what they should be: decoders have kinds of their own for it.
fn is_garbage(error: &io::Error) -> bool {
    // Everything here is in memory: no other error can come.
    error.raw_os_error().is_none()
}
