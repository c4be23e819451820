//! Owns what the clients know: what they sent, what was acknowledged, what they have seen.
//! Does not know the broker, connections or faults; it survives every crash.
//! Invariant: it only learns; nothing it was told is ever taken back, except with the topic it is about.

use millrace_engine::types::batch::BatchHeader;
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
    /// Of the bytes behind the batch header, which nobody may change.
    pub checksum: u32,
    /// Where it was acknowledged or seen.
    pub base: Option<i64>,
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
    /// Whether it ever had a retention that may delete what nobody asked to delete.
    pub retains: bool,
    /// Whether the broker stamps batches with its own time.
    pub stamped: bool,
}

/// A batch as it was read.
#[derive(Clone, Debug)]
pub struct SeenBatch {
    pub header: BatchHeader,
    pub tag: u64,
    pub checksum: u32,
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
    pub before: Bounds,
}

#[derive(Default)]
pub struct Model {
    next_tag: u64,
    pub sent: HashMap<u64, Sent>,
    pub topics: BTreeMap<u8, Topic>,
    pub partitions: BTreeMap<Place, Partition>,
    /// Something at rest was damaged: errors are answers now, wrong bytes never are.
    pub damaged: bool,
    pub acked_batches: u64,
}

impl Model {
    pub fn new_tag(&mut self) -> u64 {
        self.next_tag += 1;
        self.next_tag
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
        let Some(sent) = self.sent.get_mut(&acked.tag) else {
            return;
        };
        sent.base = Some(acked.base);
        let stored = Stored {
            tag: acked.tag,
            records: sent.records,
        };
        let partition = self.partitions.entry(acked.place).or_default();
        partition.acked.insert(acked.base, stored);
        partition.known.insert(acked.base, stored);
        let bounds = &mut partition.bounds;
        bounds.high_watermark = bounds.high_watermark.max(stored.end(acked.base));
        bounds.log_start = bounds.log_start.max(acked.log_start);
    }

    /// Takes in a read that passed the checks.
    pub fn learn_read(&mut self, read: &Read) {
        for batch in &read.batches {
            if let Some(sent) = self.sent.get_mut(&batch.tag) {
                sent.base = Some(batch.header.base_offset);
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
        let bounds = &mut self.partitions.entry(place).or_default().bounds;
        bounds.log_start = bounds.log_start.max(log_start);
        bounds.high_watermark = bounds.high_watermark.max(high_watermark);
    }
}
