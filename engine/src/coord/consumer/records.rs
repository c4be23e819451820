//! Owns Kafka's formats of the records in `__consumer_offsets` that are about groups of the consumer protocol.
//! Does not know batches, nor what a group does with its records.
//! Invariant: any bytes give a record or an error, and no count or length in them is believed before its bytes are there.
//!
//! All values have one version, 0, with compact lengths and tagged fields; keys are plain.

use super::types::Assignment;
use crate::coord::batch::KeyValue;
use crate::coord::codec::*;
use crate::coord::records::RecordError;
use crate::types::TopicId;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};

/// Types of records.
const GROUP: i16 = 3;
const PARTITIONS: i16 = 4;
const MEMBER: i16 = 5;
const TARGET_EPOCH: i16 = 6;
const TARGET: i16 = 7;
const CURRENT: i16 = 8;
const REGEX: i16 = 16;

/// The tagged field that each kind of value has at the most.
const TAG: u32 = 0;

/// Bytes that a topic with partitions takes at the least: its id, no partition, no tagged field.
const TOPIC_BYTES_MIN: usize = 18;

/// Partitions by topic, each with the epoch in which the member got it.
pub type Held = BTreeMap<TopicId, BTreeMap<i32, i32>>;

/// How far a member is on its way to its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberState {
    /// Where it was meant to be.
    Stable,
    /// Has to give up partitions first.
    Unrevoked,
    /// Waits for partitions that others hold.
    Unreleased,
    /// Of a newer broker.
    Unknown,
}

impl MemberState {
    const fn code(self) -> i8 {
        match self {
            MemberState::Stable => 0,
            MemberState::Unrevoked => 1,
            MemberState::Unreleased => 2,
            MemberState::Unknown => 127,
        }
    }

    const fn of_code(code: i8) -> MemberState {
        match code {
            0 => MemberState::Stable,
            1 => MemberState::Unrevoked,
            2 => MemberState::Unreleased,
            _ => MemberState::Unknown,
        }
    }
}

/// What a classic member of such a group brought with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClassicValue {
    pub session_timeout_ms: i32,
    pub protocols: Vec<(String, Bytes)>,
}

/// A member and what it wants.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemberValue {
    pub instance: Option<String>,
    pub rack: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub topics: BTreeSet<String>,
    pub regex: Option<String>,
    /// -1 where it did not say.
    pub rebalance_timeout_ms: i32,
    pub assignor: Option<String>,
    /// Of members that speak the classic protocol.
    pub classic: Option<ClassicValue>,
}

/// Where a member is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Current {
    pub epoch: i32,
    pub previous_epoch: i32,
    pub state: MemberState,
    pub assigned: Held,
    /// What it has to give up, and holds until it says that it did.
    pub revoking: Held,
}

impl Default for Current {
    fn default() -> Current {
        Current {
            epoch: 0,
            previous_epoch: -1,
            state: MemberState::Stable,
            assigned: Held::new(),
            revoking: Held::new(),
        }
    }
}

/// The topics that a regular expression matched.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Resolved {
    pub topics: BTreeSet<String>,
    /// Of the metadata it was matched against.
    pub version: i64,
    /// Wall-clock milliseconds.
    pub at_ms: i64,
}

/// One record; None stands for a tombstone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// Epoch of the group, and hash of what its topics are.
    Group(Option<(i32, i64)>),
    /// What older brokers kept of topics; it is known anew from the topics.
    Partitions(Option<()>),
    Member(String, Option<MemberValue>),
    /// Epoch of the target assignment, and when it was made, in wall-clock milliseconds.
    TargetEpoch(Option<(i32, i64)>),
    Target(String, Option<Assignment>),
    Current(String, Option<Current>),
    Regex(String, Option<Resolved>),
}

impl Record {
    /// The group that a record is about, and the record; None where its type is another.
    ///
    /// # Errors
    /// There is no type, or not what belongs to it.
    pub fn decode(
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<Option<(String, Record)>, RecordError> {
        let mut k = Reader::plain(key);
        let kind = k.i16()?;
        if !matches!(kind, GROUP..=CURRENT | REGEX) {
            return Ok(None);
        }
        let group = k.text()?;
        let record = match kind {
            GROUP => Record::Group(value.map(group_value).transpose()?),
            PARTITIONS => Record::Partitions(value.map(|_| ())),
            MEMBER => Record::Member(k.text()?, value.map(MemberValue::decode).transpose()?),
            TARGET_EPOCH => Record::TargetEpoch(value.map(group_value).transpose()?),
            TARGET => Record::Target(k.text()?, value.map(target_value).transpose()?),
            CURRENT => Record::Current(k.text()?, value.map(Current::decode).transpose()?),
            _ => Record::Regex(k.text()?, value.map(Resolved::decode).transpose()?),
        };
        k.end()?;
        Ok(Some((group, record)))
    }

    pub fn encode(&self, group: &str) -> KeyValue {
        let mut key = BytesMut::new();
        let (kind, of, value) = match self {
            Record::Group(value) => (GROUP, None, value.map(put_group)),
            // Written no more but as a tombstone: the hash took its place.
            Record::Partitions(_) => (PARTITIONS, None, None),
            Record::Member(id, value) => {
                (MEMBER, Some(id), value.as_ref().map(MemberValue::encode))
            }
            Record::TargetEpoch(value) => (TARGET_EPOCH, None, value.map(put_group)),
            Record::Target(id, value) => (TARGET, Some(id), value.as_ref().map(put_target)),
            Record::Current(id, value) => (CURRENT, Some(id), value.as_ref().map(Current::encode)),
            Record::Regex(text, value) => (REGEX, Some(text), value.as_ref().map(Resolved::encode)),
        };
        key.put_i16(kind);
        put_text(group, &mut key);
        if let Some(of) = of {
            put_text(of, &mut key);
        }
        KeyValue {
            key: key.freeze(),
            value,
        }
    }
}

// Epochs: of the group with the hash of its topics, of the target with the time --------------------------------------

fn group_value(value: &[u8]) -> Result<(i32, i64), RecordError> {
    let (_, mut r) = Reader::of_versions(value, 0, 0)?;
    let epoch = r.i32()?;
    let mut more = 0;
    r.tagged_fields(|tag, field| {
        if tag == TAG {
            let bytes = field
                .try_into()
                .map_err(|_| RecordError::Field(field.len()))?;
            more = i64::from_be_bytes(bytes);
        }
        Ok(())
    })?;
    r.end()?;
    Ok((epoch, more))
}

fn put_group((epoch, more): (i32, i64)) -> Bytes {
    let mut out = begin();
    out.put_i32(epoch);
    match more {
        0 => no_tags(&mut out),
        more => put_tagged(&more.to_be_bytes(), &mut out),
    }
    out.freeze()
}

// Members ------------------------------------------------------------------------------------------------------------

impl MemberValue {
    fn decode(value: &[u8]) -> Result<MemberValue, RecordError> {
        let (_, mut r) = Reader::of_versions(value, 0, 0)?;
        let mut value = MemberValue {
            instance: r.nullable_text()?,
            rack: r.nullable_text()?,
            client_id: r.text()?,
            client_host: r.text()?,
            topics: texts(&mut r)?,
            regex: r.nullable_text()?,
            rebalance_timeout_ms: r.i32()?,
            assignor: r.nullable_text()?,
            classic: None,
        };
        r.tagged_fields(|tag, field| {
            if tag == TAG {
                value.classic = ClassicValue::decode(field)?;
            }
            Ok(())
        })?;
        r.end()?;
        Ok(value)
    }

    fn encode(&self) -> Bytes {
        let mut out = begin();
        put_nullable_compact(self.instance.as_deref(), &mut out);
        put_nullable_compact(self.rack.as_deref(), &mut out);
        put_compact_text(&self.client_id, &mut out);
        put_compact_text(&self.client_host, &mut out);
        put_texts(&self.topics, &mut out);
        put_nullable_compact(self.regex.as_deref(), &mut out);
        out.put_i32(self.rebalance_timeout_ms);
        put_nullable_compact(self.assignor.as_deref(), &mut out);
        match &self.classic {
            Some(classic) => put_tagged(&classic.encode(), &mut out),
            None => no_tags(&mut out),
        }
        out.freeze()
    }
}

impl ClassicValue {
    /// A struct that may be null is behind a byte that says so.
    fn decode(field: &[u8]) -> Result<Option<ClassicValue>, RecordError> {
        let mut r = Reader::compact(field);
        if r.i8()? < 0 {
            r.end()?;
            return Ok(None);
        }
        let session_timeout_ms = r.i32()?;
        // A name, metadata, and no tagged field.
        let count = r.count(3)?;
        let protocols = (0..count).map(|_| {
            let protocol = (r.text()?, r.bytes()?);
            r.tagged_fields(|_, _| Ok(()))?;
            Ok(protocol)
        });
        let protocols = protocols.collect::<Result<_, RecordError>>()?;
        r.tagged_fields(|_, _| Ok(()))?;
        r.end()?;
        Ok(Some(ClassicValue {
            session_timeout_ms,
            protocols,
        }))
    }

    fn encode(&self) -> BytesMut {
        let mut out = BytesMut::new();
        out.put_i8(1);
        out.put_i32(self.session_timeout_ms);
        put_count(self.protocols.len(), &mut out);
        for (name, metadata) in &self.protocols {
            put_compact_text(name, &mut out);
            put_count(metadata.len(), &mut out);
            out.put_slice(metadata);
            no_tags(&mut out);
        }
        no_tags(&mut out);
        out
    }
}

// Assignments --------------------------------------------------------------------------------------------------------

fn target_value(value: &[u8]) -> Result<Assignment, RecordError> {
    let (_, mut r) = Reader::of_versions(value, 0, 0)?;
    let count = r.count(TOPIC_BYTES_MIN)?;
    let topics = (0..count).map(|_| {
        let topic = (TopicId(r.array()?), numbers(&mut r)?.into_iter().collect());
        r.tagged_fields(|_, _| Ok(()))?;
        Ok(topic)
    });
    let topics = topics.collect::<Result<_, RecordError>>()?;
    r.tagged_fields(|_, _| Ok(()))?;
    r.end()?;
    Ok(topics)
}

fn put_target(target: &Assignment) -> Bytes {
    let mut out = begin();
    put_count(target.len(), &mut out);
    for (id, partitions) in target {
        out.put_slice(&id.0);
        put_numbers(partitions.iter(), partitions.len(), &mut out);
        no_tags(&mut out);
    }
    no_tags(&mut out);
    out.freeze()
}

impl Current {
    fn decode(value: &[u8]) -> Result<Current, RecordError> {
        let (_, mut r) = Reader::of_versions(value, 0, 0)?;
        let (epoch, previous_epoch) = (r.i32()?, r.i32()?);
        let current = Current {
            epoch,
            previous_epoch,
            state: MemberState::of_code(r.i8()?),
            assigned: held(&mut r, epoch)?,
            revoking: held(&mut r, epoch)?,
        };
        r.tagged_fields(|_, _| Ok(()))?;
        r.end()?;
        Ok(current)
    }

    fn encode(&self) -> Bytes {
        let mut out = begin();
        out.put_i32(self.epoch);
        out.put_i32(self.previous_epoch);
        out.put_i8(self.state.code());
        put_held(&self.assigned, &mut out);
        put_held(&self.revoking, &mut out);
        no_tags(&mut out);
        out.freeze()
    }
}

/// Where the epochs of partitions are not said, they are the member's.
fn held(r: &mut Reader, epoch: i32) -> Result<Held, RecordError> {
    let count = r.count(TOPIC_BYTES_MIN)?;
    let mut all = Held::new();
    for _ in 0..count {
        let id = TopicId(r.array()?);
        let partitions = numbers(r)?;
        let mut epochs = vec![epoch; partitions.len()];
        r.tagged_fields(|tag, field| {
            if tag == TAG {
                let mut field = Reader::compact(field);
                if let Some(said) = nullable_numbers(&mut field)? {
                    if said.len() != epochs.len() {
                        return Err(RecordError::Count(said.len()));
                    }
                    epochs = said;
                }
                field.end()?;
            }
            Ok(())
        })?;
        all.insert(id, partitions.into_iter().zip(epochs).collect());
    }
    Ok(all)
}

fn put_held(held: &Held, out: &mut BytesMut) {
    put_count(held.len(), out);
    for (id, partitions) in held {
        out.put_slice(&id.0);
        put_numbers(partitions.keys(), partitions.len(), out);
        let mut epochs = BytesMut::new();
        put_numbers(partitions.values(), partitions.len(), &mut epochs);
        put_tagged(&epochs, out);
    }
}

// Regular expressions ------------------------------------------------------------------------------------------------

impl Resolved {
    fn decode(value: &[u8]) -> Result<Resolved, RecordError> {
        let (_, mut r) = Reader::of_versions(value, 0, 0)?;
        let resolved = Resolved {
            topics: texts(&mut r)?,
            version: r.i64()?,
            at_ms: r.i64()?,
        };
        r.tagged_fields(|_, _| Ok(()))?;
        r.end()?;
        Ok(resolved)
    }

    fn encode(&self) -> Bytes {
        let mut out = begin();
        put_texts(&self.topics, &mut out);
        out.put_i64(self.version);
        out.put_i64(self.at_ms);
        no_tags(&mut out);
        out.freeze()
    }
}

// Parts --------------------------------------------------------------------------------------------------------------

fn texts(r: &mut Reader) -> Result<BTreeSet<String>, RecordError> {
    let count = r.count(1)?;
    (0..count).map(|_| r.text()).collect()
}

fn numbers(r: &mut Reader) -> Result<Vec<i32>, RecordError> {
    nullable_numbers(r)?.ok_or(RecordError::Null)
}

fn nullable_numbers(r: &mut Reader) -> Result<Option<Vec<i32>>, RecordError> {
    let Some(count) = r.nullable_count(size_of::<i32>())? else {
        return Ok(None);
    };
    let numbers = (0..count).map(|_| r.i32());
    numbers.collect::<Result<_, _>>().map(Some)
}

/// A value of version 0.
fn begin() -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i16(0);
    out
}

fn no_tags(out: &mut BytesMut) {
    out.put_u8(0);
}

/// The one tagged field that there is.
fn put_tagged(field: &[u8], out: &mut BytesMut) {
    put_uvarint(1, out);
    put_uvarint(TAG, out);
    put_uvarint(
        u32::try_from(field.len()).expect("a field fits its record"),
        out,
    );
    out.put_slice(field);
}

/// Compact: one more than it is.
fn put_count(count: usize, out: &mut BytesMut) {
    put_uvarint(
        u32::try_from(count + 1).expect("what is in memory can be counted"),
        out,
    );
}

fn put_nullable_compact(text: Option<&str>, out: &mut BytesMut) {
    match text {
        Some(text) => put_compact_text(text, out),
        None => put_uvarint(0, out),
    }
}

fn put_texts(texts: &BTreeSet<String>, out: &mut BytesMut) {
    put_count(texts.len(), out);
    texts.iter().for_each(|text| put_compact_text(text, out));
}

fn put_numbers<'a>(numbers: impl Iterator<Item = &'a i32>, count: usize, out: &mut BytesMut) {
    put_count(count, out);
    numbers.for_each(|number| out.put_i32(*number));
}

#[cfg(test)]
mod tests;
