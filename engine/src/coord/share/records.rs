//! Owns Kafka's formats of the records of share groups: those in the groups' topic (types 10 to 15), and those in the
//! topic of their states.
//! Does not know batches, nor what a machine does with its records.
//! Invariant: any bytes give a value or an error, and no count or length in them is believed before its bytes are
//! there.

use super::types::Partitions;
use crate::coord::batch::KeyValue;
use crate::coord::codec::*;
use crate::coord::records::RecordError;
use crate::types::{Offset, PartitionId, TopicId};
use bytes::{BufMut, Bytes, BytesMut};

const MEMBER: i16 = 10;
const GROUP: i16 = 11;
const TARGET: i16 = 12;
const TARGET_MEMBER: i16 = 13;
const CURRENT: i16 = 14;
const STATES: i16 = 15;

const SNAPSHOT: i16 = 0;
const UPDATE: i16 = 1;

/// All values have one version, with compact lengths and tagged fields.
const VERSION: i16 = 0;

pub const STATE_AVAILABLE: i8 = 0;
pub const STATE_ACKNOWLEDGED: i8 = 2;
pub const STATE_ARCHIVED: i8 = 4;

/// State of a member that has what it was assigned, as Kafka numbers it.
const STABLE: i8 = 1;

/// The tagged field that says how many offsets behind the start are done.
const TAG_DONE: u32 = 0;

/// Something that a group's record says; the second part is what becomes of it, None for nothing any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupRecord {
    Member(String, Option<MemberValue>),
    /// Epoch of the group, and a hash of the topics it reads.
    Group(Option<(i32, i64)>),
    /// Epoch of the assignment.
    Target(Option<i32>),
    TargetMember(String, Option<Partitions>),
    Current(String, Option<CurrentValue>),
    States(Option<StatesValue>),
}

/// Kafka's `ShareGroupMemberMetadataValue`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberValue {
    pub rack: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub topics: Vec<String>,
}

/// Kafka's `ShareGroupCurrentMemberAssignmentValue`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CurrentValue {
    pub epoch: i32,
    pub previous_epoch: i32,
    pub assigned: Partitions,
}

/// Kafka's `ShareGroupStatePartitionMetadataValue`: of which partitions there are states.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StatesValue {
    /// Topic, its name, its partitions.
    pub initialized: Vec<(TopicId, String, Vec<i32>)>,
}

impl GroupRecord {
    /// The group and what is said of it; None where the record is another protocol's.
    ///
    /// # Errors
    /// It is not what its type says.
    pub fn decode(
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<Option<(String, GroupRecord)>, RecordError> {
        let mut r = Reader::plain(key);
        let kind = r.i16()?;
        if !(MEMBER..=STATES).contains(&kind) {
            return Ok(None);
        }
        let group = r.text()?;
        let mut member = String::new();
        if matches!(kind, MEMBER | TARGET_MEMBER | CURRENT) {
            member = r.text()?;
        }
        r.end()?;
        let record = match kind {
            MEMBER => GroupRecord::Member(member, of(value, member_value)?),
            GROUP => GroupRecord::Group(of(value, |r| Ok((r.i32()?, r.i64()?)))?),
            TARGET => GroupRecord::Target(of(value, |r| r.i32())?),
            TARGET_MEMBER => GroupRecord::TargetMember(member, of(value, partitions)?),
            CURRENT => GroupRecord::Current(member, of(value, current_value)?),
            _ => GroupRecord::States(of(value, states_value)?),
        };
        Ok(Some((group, record)))
    }

    pub fn encode(&self, group: &str) -> KeyValue {
        let (kind, member) = match self {
            GroupRecord::Member(member, _) => (MEMBER, Some(member)),
            GroupRecord::Group(_) => (GROUP, None),
            GroupRecord::Target(_) => (TARGET, None),
            GroupRecord::TargetMember(member, _) => (TARGET_MEMBER, Some(member)),
            GroupRecord::Current(member, _) => (CURRENT, Some(member)),
            GroupRecord::States(_) => (STATES, None),
        };
        let mut key = BytesMut::new();
        key.put_i16(kind);
        put_text(group, &mut key);
        if let Some(member) = member {
            put_text(member, &mut key);
        }
        let value = match self {
            GroupRecord::Member(_, value) => value.as_ref().map(|v| written(|out| v.put(out))),
            GroupRecord::Group(value) => value.map(|(epoch, hash)| {
                written(|out| {
                    out.put_i32(epoch);
                    out.put_i64(hash);
                })
            }),
            GroupRecord::Target(epoch) => epoch.map(|epoch| written(|out| out.put_i32(epoch))),
            GroupRecord::TargetMember(_, of) => {
                of.as_ref().map(|of| written(|out| put_partitions(of, out)))
            }
            GroupRecord::Current(_, value) => value.as_ref().map(|v| written(|out| v.put(out))),
            GroupRecord::States(value) => value.as_ref().map(|v| written(|out| v.put(out))),
        };
        KeyValue {
            key: key.freeze(),
            value,
        }
    }
}

/// A value as `put` writes it, around it what all have.
fn written(put: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(VERSION);
    put(&mut out);
    // No tagged fields.
    out.put_u8(0);
    out.freeze()
}

fn of<T>(
    value: Option<&[u8]>,
    read: impl FnOnce(&mut Reader) -> Result<T, RecordError>,
) -> Result<Option<T>, RecordError> {
    let Some(value) = value else { return Ok(None) };
    let (_, mut r) = Reader::of_versions(value, VERSION, VERSION)?;
    let value = read(&mut r)?;
    r.tagged_fields(|_, _| Ok(()))?;
    r.end()?;
    Ok(Some(value))
}

fn topic_id(r: &mut Reader) -> Result<TopicId, RecordError> {
    r.array().map(TopicId)
}

fn texts(r: &mut Reader) -> Result<Vec<String>, RecordError> {
    let count = r.count(1)?;
    (0..count).map(|_| r.text()).collect()
}

fn indexes(r: &mut Reader) -> Result<Vec<i32>, RecordError> {
    let count = r.count(4)?;
    (0..count).map(|_| r.i32()).collect()
}

fn put_indexes(indexes: &[i32], out: &mut BytesMut) {
    put_uvarint(indexes.len() as u32 + 1, out);
    indexes.iter().for_each(|index| out.put_i32(*index));
}

fn partitions(r: &mut Reader) -> Result<Partitions, RecordError> {
    // An id, no partitions, no tagged fields.
    let count = r.count(18)?;
    let mut all = Partitions::new();
    for _ in 0..count {
        all.insert(topic_id(r)?, indexes(r)?);
        r.tagged_fields(|_, _| Ok(()))?;
    }
    Ok(all)
}

fn put_partitions(of: &Partitions, out: &mut BytesMut) {
    put_uvarint(of.len() as u32 + 1, out);
    for (topic, partitions) in of {
        out.put_slice(&topic.0);
        put_indexes(partitions, out);
        out.put_u8(0);
    }
}

fn put_compact_nullable(text: Option<&str>, out: &mut BytesMut) {
    match text {
        Some(text) => put_compact_text(text, out),
        None => out.put_u8(0),
    }
}

fn member_value(r: &mut Reader) -> Result<MemberValue, RecordError> {
    Ok(MemberValue {
        rack: r.nullable_text()?,
        client_id: r.text()?,
        client_host: r.text()?,
        topics: texts(r)?,
    })
}

impl MemberValue {
    fn put(&self, out: &mut BytesMut) {
        put_compact_nullable(self.rack.as_deref(), out);
        put_compact_text(&self.client_id, out);
        put_compact_text(&self.client_host, out);
        put_uvarint(self.topics.len() as u32 + 1, out);
        self.topics.iter().for_each(|t| put_compact_text(t, out));
    }
}

fn current_value(r: &mut Reader) -> Result<CurrentValue, RecordError> {
    let (epoch, previous_epoch) = (r.i32()?, r.i32()?);
    let _state = r.i8()?;
    let assigned = partitions(r)?;
    Ok(CurrentValue {
        epoch,
        previous_epoch,
        assigned,
    })
}

impl CurrentValue {
    fn put(&self, out: &mut BytesMut) {
        out.put_i32(self.epoch);
        out.put_i32(self.previous_epoch);
        out.put_i8(STABLE);
        put_partitions(&self.assigned, out);
    }
}

fn states_value(r: &mut Reader) -> Result<StatesValue, RecordError> {
    let topics = |r: &mut Reader| -> Result<Vec<(TopicId, String, Vec<i32>)>, RecordError> {
        let count = r.count(19)?;
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push((topic_id(r)?, r.text()?, indexes(r)?));
            r.tagged_fields(|_, _| Ok(()))?;
        }
        Ok(all)
    };
    // What another broker had begun to make or to delete is made or deleted when it is asked for again.
    let mut initialized = topics(r)?;
    initialized.append(&mut topics(r)?);
    for _ in 0..r.count(18)? {
        topic_id(r)?;
        r.text()?;
        r.tagged_fields(|_, _| Ok(()))?;
    }
    Ok(StatesValue { initialized })
}

impl StatesValue {
    fn put(&self, out: &mut BytesMut) {
        // Nothing is being initialized.
        put_uvarint(1, out);
        put_uvarint(self.initialized.len() as u32 + 1, out);
        for (topic, name, partitions) in &self.initialized {
            out.put_slice(&topic.0);
            put_compact_text(name, out);
            put_indexes(partitions, out);
            out.put_u8(0);
        }
        // Nothing is being deleted.
        put_uvarint(1, out);
    }
}

/// A partition as a share group has it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ShareKey {
    pub group: String,
    pub partition: PartitionId,
}

impl std::fmt::Display for ShareKey {
    /// As Kafka hashes it to find the partition where its state is.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PartitionId { topic, index } = self.partition;
        write!(f, "{}:{topic}:{index}", self.group)
    }
}

/// What is kept of records that are not acquired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateBatch {
    pub first: Offset,
    pub last: Offset,
    pub state: i8,
    pub count: i16,
}

/// Something that a record in the topic of states says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StateRecord {
    /// All that is known of a partition, or that nothing is any more.
    Snapshot(Option<SnapshotValue>),
    Update(UpdateValue),
}

/// Kafka's `ShareSnapshotValue`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotValue {
    pub snapshot_epoch: i32,
    pub state_epoch: i32,
    pub leader_epoch: i32,
    pub start: Offset,
    /// -1 where it is not known.
    pub done: i32,
    pub created_ms: i64,
    pub written_ms: i64,
    pub batches: Vec<StateBatch>,
}

/// Kafka's `ShareUpdateValue`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpdateValue {
    pub snapshot_epoch: i32,
    pub leader_epoch: i32,
    /// -1 where it stays.
    pub start: Offset,
    pub done: i32,
    pub batches: Vec<StateBatch>,
}

impl StateRecord {
    /// None where the record is of a kind of the future, or takes back an update.
    ///
    /// # Errors
    /// It is not what its type says.
    pub fn decode(
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<Option<(ShareKey, StateRecord)>, RecordError> {
        let mut r = Reader::plain(key);
        let kind = r.i16()?;
        if !matches!(kind, SNAPSHOT | UPDATE) {
            return Ok(None);
        }
        let group = r.text()?;
        let partition = PartitionId::new(topic_id(&mut r)?, r.i32()?);
        r.end()?;
        let key = ShareKey { group, partition };
        let record = match (kind, value) {
            (SNAPSHOT, None) => StateRecord::Snapshot(None),
            (SNAPSHOT, Some(value)) => StateRecord::Snapshot(Some(snapshot(value)?)),
            (_, None) => return Ok(None),
            (_, Some(value)) => StateRecord::Update(update(value)?),
        };
        Ok(Some((key, record)))
    }

    pub fn encode(&self, of: &ShareKey) -> KeyValue {
        let mut key = BytesMut::new();
        key.put_i16(match self {
            StateRecord::Snapshot(_) => SNAPSHOT,
            StateRecord::Update(_) => UPDATE,
        });
        put_text(&of.group, &mut key);
        key.put_slice(&of.partition.topic.0);
        key.put_i32(of.partition.index);
        let mut out = BytesMut::new();
        out.put_i16(VERSION);
        let value = match self {
            StateRecord::Snapshot(None) => None,
            StateRecord::Snapshot(Some(v)) => {
                out.put_i32(v.snapshot_epoch);
                out.put_i32(v.state_epoch);
                out.put_i32(v.leader_epoch);
                out.put_i64(v.start);
                out.put_i64(v.created_ms);
                out.put_i64(v.written_ms);
                put_batches(&v.batches, &mut out);
                put_done(v.done, &mut out);
                Some(out.freeze())
            }
            StateRecord::Update(v) => {
                out.put_i32(v.snapshot_epoch);
                out.put_i32(v.leader_epoch);
                out.put_i64(v.start);
                put_batches(&v.batches, &mut out);
                put_done(v.done, &mut out);
                Some(out.freeze())
            }
        };
        KeyValue {
            key: key.freeze(),
            value,
        }
    }
}

fn snapshot(value: &[u8]) -> Result<SnapshotValue, RecordError> {
    let (_, mut r) = Reader::of_versions(value, VERSION, VERSION)?;
    let mut value = SnapshotValue {
        snapshot_epoch: r.i32()?,
        state_epoch: r.i32()?,
        leader_epoch: r.i32()?,
        start: r.i64()?,
        done: -1,
        created_ms: r.i64()?,
        written_ms: r.i64()?,
        batches: batches(&mut r)?,
    };
    value.done = done(&mut r)?;
    Ok(value)
}

fn update(value: &[u8]) -> Result<UpdateValue, RecordError> {
    let (_, mut r) = Reader::of_versions(value, VERSION, VERSION)?;
    let mut value = UpdateValue {
        snapshot_epoch: r.i32()?,
        leader_epoch: r.i32()?,
        start: r.i64()?,
        done: -1,
        batches: batches(&mut r)?,
    };
    value.done = done(&mut r)?;
    Ok(value)
}

fn batches(r: &mut Reader) -> Result<Vec<StateBatch>, RecordError> {
    let count = r.count(20)?;
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let batch = StateBatch {
            first: r.i64()?,
            last: r.i64()?,
            state: r.i8()?,
            count: r.i16()?,
        };
        r.tagged_fields(|_, _| Ok(()))?;
        if batch.first < 0 || batch.last < batch.first || batch.last == i64::MAX {
            return Err(RecordError::Length(batch.last));
        }
        all.push(batch);
    }
    Ok(all)
}

fn put_batches(batches: &[StateBatch], out: &mut BytesMut) {
    put_uvarint(batches.len() as u32 + 1, out);
    for batch in batches {
        out.put_i64(batch.first);
        out.put_i64(batch.last);
        out.put_i8(batch.state);
        out.put_i16(batch.count);
        out.put_u8(0);
    }
}

fn done(r: &mut Reader) -> Result<i32, RecordError> {
    let mut done = -1;
    r.tagged_fields(|tag, field| {
        if tag == TAG_DONE {
            let bytes = field.try_into();
            let bytes = bytes.map_err(|_| RecordError::Field(field.len()))?;
            done = i32::from_be_bytes(bytes);
        }
        Ok(())
    })?;
    r.end()?;
    Ok(done)
}

fn put_done(done: i32, out: &mut BytesMut) {
    match done {
        -1 => out.put_u8(0),
        done => {
            // One tagged field, of 4 bytes.
            out.put_slice(&[1, TAG_DONE as u8, 4]);
            out.put_i32(done);
        }
    }
}
