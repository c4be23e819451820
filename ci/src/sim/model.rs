//! Owns what the clients know: what they sent, what was acknowledged, what they have seen.
//! Does not know the broker, connections or faults; it survives every crash.
//! Invariant: it only learns; nothing it was told is ever taken back, except with the topic it is about.

use millrace_engine::rt::Mono;
use millrace_engine::types::batch::{crc32c, BatchHeader};
use std::collections::{BTreeMap, HashMap};

/// One partition of one life of a topic: a topic deleted and made again has the next life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    pub topic: u8,
    pub life: u32,
    pub index: i32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "t{}-{}", self.topic, self.index)?;
        if self.life > 1 {
            write!(f, " (life {})", self.life)?;
        }
        Ok(())
    }
}

/// A batch that some client sent at least once.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub place: Place,
    pub records: i32,
    /// Time of the first record, and from each record to the next.
    pub first_ms: i64,
    pub step_ms: i64,
    pub bytes: u64,
    /// Where it was acknowledged for good, or seen.
    pub base: Option<i64>,
    /// When the broker appended it, where it stamps what it appends and somebody has seen that.
    pub appended_ms: Option<i64>,
}

impl Sent {
    /// The time of record `n`, as far as it is known in a topic that stamps or does not.
    pub fn time(&self, n: i32, stamped: bool) -> Option<i64> {
        match stamped {
            true => self.appended_ms,
            false => Some(self.first_ms + i64::from(n) * self.step_ms),
        }
    }

    /// The largest time in it.
    pub fn newest(&self, stamped: bool) -> Option<i64> {
        self.time(0, stamped)
            .max(self.time(self.records - 1, stamped))
    }
}

/// What is behind a batch's header, which nobody may change, in short.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Content(u32, usize);

impl Content {
    pub fn of(body: &[u8]) -> Content {
        Content(crc32c(body), body.len())
    }
}

/// A batch in a log: base offset is the key it is kept under.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    pub tag: u64,
    pub records: i32,
}

impl Stored {
    pub fn end(&self, base: i64) -> i64 {
        base + i64::from(self.records)
    }
}

/// Least that is known of a partition's bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bounds {
    pub log_start: i64,
    pub high_watermark: i64,
}

#[derive(Default)]
pub struct Partition {
    /// Acknowledged batches.
    pub acked: BTreeMap<i64, Stored>,
    /// Acknowledged batches and those that a reader has seen.
    pub known: BTreeMap<i64, Stored>,
    pub bounds: Bounds,
    /// Largest offset that anybody asked to delete up to.
    pub delete_asked: i64,
    /// Acknowledged from memory, with when that was heard: not certain yet.
    pub cached: BTreeMap<i64, (Stored, Mono)>,
    /// Bytes of all batches that were ever sent here.
    pub sent_bytes: u64,
}

/// What a topic's retention may ever have asked for: the least.
#[derive(Clone, Copy, Default, Debug)]
pub struct Retention {
    pub ms: Option<u64>,
    pub bytes: Option<u64>,
}

impl Retention {
    pub fn is_set(&self) -> bool {
        self.ms.is_some() || self.bytes.is_some()
    }

    pub fn also(&mut self, other: Retention) {
        let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        self.ms = least(self.ms, other.ms);
        self.bytes = least(self.bytes, other.bytes);
    }
}

/// How far acknowledgements may be ahead of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caching {
    pub messages: u64,
    pub ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existence {
    Absent,
    /// A creation or deletion is under way: nothing about it is certain.
    Changing,
    Present,
}

pub struct Topic {
    pub life: u32,
    pub existence: Existence,
    pub partitions: i32,
    /// What may delete what nobody asked to delete.
    pub retention: Retention,
    /// Whether acknowledgements may come before the disk has the records.
    pub caching: Option<Caching>,
    /// Whether the broker stamps batches with its own time.
    pub stamped: bool,
}

/// A batch as it was read.
#[derive(Clone, Debug)]
pub struct SeenBatch {
    pub header: BatchHeader,
    /// 0 where nobody sent what is in it.
    pub tag: u64,
    pub intact: bool,
}

/// One partition's answer to a fetch.
#[derive(Clone, Debug)]
pub struct Read {
    pub place: Place,
    pub asked: i64,
    /// What was known when the request was sent.
    pub before: Bounds,
    pub high_watermark: i64,
    pub log_start: i64,
    pub batches: Vec<SeenBatch>,
    /// Whether the answer is about this partition only: others may take up all of its room.
    pub alone: bool,
    /// Bytes that are not even a batch.
    pub garbage: Option<String>,
}

/// One acknowledged batch.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    pub place: Place,
    pub tag: u64,
    pub base: i64,
    pub log_start: i64,
    /// -1 where the broker does not stamp.
    pub appended_ms: i64,
    pub before: Bounds,
    /// When the request was sent, and when its answer came.
    pub asked_at: Mono,
    pub at: Mono,
}

#[derive(Default)]
pub struct Model {
    next_tag: u64,
    pub sent: HashMap<u64, Sent>,
    tags: HashMap<Content, u64>,
    pub topics: BTreeMap<u8, Topic>,
    pub partitions: BTreeMap<Place, Partition>,
    /// DeleteRecords that were not answered yet: topic, partition and offset.
    pub deleting: Vec<(u8, i32, i64)>,
    /// Something at rest was damaged: errors are answers now, wrong bytes never are.
    pub damaged: bool,
    /// What was damaged only says where to look: answers are as they were.
    pub hints_damaged: bool,
    pub acked_batches: u64,
    /// Where the wall clock was before each time it was set back.
    pub wall_max_ms: i64,
    /// Answers to lookups by time that were compared with what is known.
    pub looked_up: u64,
}

impl Model {
    pub fn new_tag(&mut self) -> u64 {
        self.next_tag += 1;
        self.next_tag
    }

    /// Enters a batch that is about to be sent; false where it could be taken for another one.
    pub fn enter(&mut self, tag: u64, content: Content, sent: Sent) -> bool {
        if self.tags.contains_key(&content) {
            return false;
        }
        self.tags.insert(content, tag);
        self.partitions.entry(sent.place).or_default().sent_bytes += sent.bytes;
        self.sent.insert(tag, sent);
        true
    }

    /// The batch with this content; 0 for none.
    pub fn tag_of(&self, content: Content) -> u64 {
        self.tags.get(&content).copied().unwrap_or(0)
    }

    pub fn is_stamped(&self, place: Place) -> bool {
        self.topics.get(&place.topic).is_some_and(|t| t.stamped)
    }

    pub fn caching(&self, place: Place) -> Option<Caching> {
        self.topics.get(&place.topic)?.caching
    }

    pub fn retains(&self, place: Place) -> bool {
        let topic = self.topics.get(&place.topic);
        topic.is_some_and(|t| t.retention.is_set())
    }

    /// A topic is about to be made. A DeleteRecords that is still under way names it too: names are all that it has.
    pub fn begin_life(&mut self, number: u8, topic: Topic) {
        let (life, partitions) = (topic.life, topic.partitions);
        self.topics.insert(number, topic);
        let has = |d: &&(u8, i32, i64)| d.0 == number && d.1 < partitions;
        let under_way = self.deleting.iter().filter(has);
        for (topic, index, offset) in under_way.copied() {
            let place = Place { topic, life, index };
            let partition = self.partitions.entry(place).or_default();
            partition.delete_asked = partition.delete_asked.max(offset);
        }
    }

    /// The partition's place in the topic's life of now, if it is certain to be there.
    pub fn place(&self, topic: u8, index: i32) -> Option<Place> {
        let known = self.topics.get(&topic)?;
        let there = known.existence == Existence::Present && index < known.partitions;
        there.then_some(Place {
            topic,
            life: known.life,
            index,
        })
    }

    /// Whether what a client learns of this place still means something.
    pub fn is_certain(&self, place: Place) -> bool {
        self.place(place.topic, place.index) == Some(place)
    }

    pub fn bounds(&self, place: Place) -> Bounds {
        self.partitions
            .get(&place)
            .map(|p| p.bounds)
            .unwrap_or_default()
    }

    pub fn places(&self) -> Vec<Place> {
        let there = |(topic, t): (&u8, &Topic)| {
            let topic = *topic;
            (0..t.partitions).filter_map(move |index| self.place(topic, index))
        };
        self.topics.iter().flat_map(there).collect()
    }

    /// Takes in an acknowledgement that passed the checks.
    pub fn learn_acked(&mut self, acked: &Acked) {
        self.acked_batches += 1;
        let caching = self.caching(acked.place);
        let Some(sent) = self.sent.get_mut(&acked.tag) else {
            return;
        };
        let stored = Stored {
            tag: acked.tag,
            records: sent.records,
        };
        let end = stored.end(acked.base);
        let Some(caching) = caching else {
            sent.base = Some(acked.base);
            if acked.appended_ms >= 0 {
                sent.appended_ms = Some(acked.appended_ms);
            }
            let partition = self.partitions.entry(acked.place).or_default();
            partition.acked.insert(acked.base, stored);
            partition.known.insert(acked.base, stored);
            return self.learn_bounds(acked.place, acked.log_start, end);
        };
        let partition = self.partitions.entry(acked.place).or_default();
        // No more than so many records were only in memory, and none that had been there for longer than that.
        let old = |heard: Mono| acked.asked_at.since(heard).as_millis() > u128::from(caching.ms);
        let earlier = partition.cached.range(..acked.base).rev();
        let oldest = earlier.clone().find(|(_, (_, heard))| old(*heard));
        let by_time = oldest.map_or(0, |(base, (stored, _))| stored.end(*base));
        let by_count = end.saturating_sub_unsigned(caching.messages);
        if partition.bounds.high_watermark < end {
            partition.cached.insert(acked.base, (stored, acked.at));
        }
        self.learn_bounds(acked.place, acked.log_start, by_time.max(by_count));
    }

    /// The broker is gone: what it had acknowledged from memory may be lost.
    pub fn forget_cached(&mut self) {
        for partition in self.partitions.values_mut() {
            partition.cached.clear();
        }
    }

    /// Enough time has passed, or the broker stopped cleanly: what was acknowledged is certain.
    pub fn settle_cached(&mut self) {
        let places: Vec<Place> = self.partitions.keys().copied().collect();
        for place in places {
            let cached = &self.partitions[&place].cached;
            let end = cached.iter().map(|(base, (stored, _))| stored.end(*base));
            if let Some(end) = end.max() {
                self.learn_bounds(place, 0, end);
            }
        }
    }

    /// Takes in a read that passed the checks.
    pub fn learn_read(&mut self, read: &Read) {
        for batch in &read.batches {
            if let Some(sent) = self.sent.get_mut(&batch.tag) {
                sent.base = Some(batch.header.base_offset);
                if batch.header.is_log_append_time() {
                    sent.appended_ms = Some(batch.header.max_timestamp);
                }
            }
        }
        let partition = self.partitions.entry(read.place).or_default();
        for batch in &read.batches {
            let stored = Stored {
                tag: batch.tag,
                records: batch.header.record_count,
            };
            partition.known.insert(batch.header.base_offset, stored);
        }
        self.learn_bounds(read.place, read.log_start, read.high_watermark);
    }

    pub fn learn_bounds(&mut self, place: Place, log_start: i64, high_watermark: i64) {
        let partition = self.partitions.entry(place).or_default();
        let bounds = &mut partition.bounds;
        bounds.log_start = bounds.log_start.max(log_start);
        bounds.high_watermark = bounds.high_watermark.max(high_watermark);
        let certain = bounds.high_watermark;
        while let Some((base, (stored, heard))) = partition.cached.pop_first() {
            if stored.end(base) > certain {
                partition.cached.insert(base, (stored, heard));
                break;
            }
            // The high watermark is durable, and with it this.
            partition.acked.insert(base, stored);
            partition.known.insert(base, stored);
            if let Some(sent) = self.sent.get_mut(&stored.tag) {
                sent.base = Some(base);
            }
        }
    }
}
