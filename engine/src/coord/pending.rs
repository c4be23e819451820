//! Owns the offsets that a group got in transactions: kept aside until their transaction is over, then taken or dropped.
//! Does not know transactions, but for the markers in the group's own partition.
//! Invariant: what a marker makes of them is the same live and on recovery.

use super::batch::KeyValue;
use super::coordinator::{Coordinator, Ctx, GroupConfig};
use super::group::Group;
use super::records::{Key, OffsetValue, RecordError};
use super::txn::Producer;
use super::types::{CommitOffsets, GroupError, GroupState, MemberOf, OffsetToCommit};
use crate::types::limits::GROUPS_PER_COORDINATOR_MAX;
use crate::types::Offset;
use std::collections::{BTreeMap, BTreeSet};

/// What a pending offset takes beside its texts.
const PENDING_BYTES: usize = 128;

/// Offsets by topic and partition.
pub type Offsets = BTreeMap<String, BTreeMap<i32, OffsetValue>>;

/// A transaction that has offsets in this partition and no marker yet.
#[derive(Debug)]
pub struct OpenTxn {
    /// Of its first record: the log is needed from there on.
    begin: Offset,
    groups: BTreeSet<String>,
}

impl Coordinator {
    /// TxnOffsetCommit, of a producer whose transaction has this partition; the results are in the order of the offsets.
    pub fn commit_in_transaction(
        &mut self,
        producer: Producer,
        asked: &CommitOffsets,
        ctx: &mut Ctx,
    ) -> Vec<Result<(), GroupError>> {
        let by = &asked.by;
        let all = |why: GroupError| vec![Err(why); asked.offsets.len()];
        if by.group.is_empty() || !super::coordinator::fits_records(&by.group) {
            return all(GroupError::InvalidGroupId);
        }
        let known = self.groups.contains_key(&by.group);
        if !known && by.generation >= 0 {
            return all(GroupError::IllegalGeneration);
        }
        let full = !known && self.groups.len() >= GROUPS_PER_COORDINATOR_MAX;
        if full || self.memory.is_full() {
            return all(GroupError::NotAvailable);
        }
        let config = self.config;
        let group = self.made(&by.group, ctx.wall_ms);
        let (results, begin) = group.commit_in_transaction(producer, asked, ctx, &config);
        if let Some(begin) = begin {
            self.note_open(producer.id, begin, &by.group);
        }
        self.settle(&by.group);
        results
    }

    /// Takes one record of a transaction out of the log; those that are not about offsets are left alone.
    ///
    /// # Errors
    /// It is none that Kafka writes there; nothing changed.
    pub fn replay_in_transaction(
        &mut self,
        producer_id: i64,
        offset: Offset,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), RecordError> {
        let key = Key::decode(key)?;
        let value = value.map(OffsetValue::decode).transpose()?;
        if let (
            Some(Key::Offset {
                group,
                topic,
                partition,
            }),
            Some(value),
        ) = (key, value)
        {
            self.note_open(producer_id, offset, &group);
            let group = self.group_of_log(group);
            group.apply_pending(producer_id, &topic, partition, value);
        }
        Ok(())
    }

    fn note_open(&mut self, producer_id: i64, begin: Offset, group: &str) {
        let new = || OpenTxn {
            begin,
            groups: BTreeSet::new(),
        };
        let open = self.open_txns.entry(producer_id).or_insert_with(new);
        open.groups.insert(group.to_string());
    }

    /// A marker is in the log: what its producer committed since the last one counts, or never was.
    pub fn end_transaction(&mut self, producer_id: i64, commit: bool) {
        let Some(open) = self.open_txns.remove(&producer_id) else {
            return;
        };
        for id in open.groups {
            if let Some(group) = self.groups.get_mut(&id) {
                group.end_pending(producer_id, commit);
            }
            self.settle(&id);
        }
    }

    /// From where on the log is needed for transactions that are not over.
    pub fn first_open(&self) -> Option<Offset> {
        self.open_txns.values().map(|open| open.begin).min()
    }
}

impl Group {
    /// Producers of older clients do not say who they are in the group.
    fn may_commit_in_transaction(
        &self,
        by: &MemberOf,
        offsets: &[OffsetToCommit],
    ) -> Result<(), GroupError> {
        if by.generation < 0 && by.member.is_empty() && by.instance.is_none() {
            return Ok(());
        }
        if let Some(consumer) = &self.consumer {
            // What clients of this API know of says as much.
            return consumer.may_commit(by, offsets).map_err(|why| match why {
                GroupError::StaleMemberEpoch => GroupError::IllegalGeneration,
                other => other,
            });
        }
        if by.generation < 0 && self.state == GroupState::Empty {
            return Ok(());
        }
        self.check_member(&by.member, by.instance.as_deref())?;
        match by.generation == self.generation {
            true => Ok(()),
            false => Err(GroupError::IllegalGeneration),
        }
    }

    /// Gives also where the records are, where there are any.
    fn commit_in_transaction(
        &mut self,
        producer: Producer,
        asked: &CommitOffsets,
        ctx: &mut Ctx,
        config: &GroupConfig,
    ) -> (Vec<Result<(), GroupError>>, Option<Offset>) {
        let all = |why: GroupError| (vec![Err(why); asked.offsets.len()], None);
        if let Err(why) = self.may_commit_in_transaction(&asked.by, &asked.offsets) {
            return all(why);
        }
        let fits = |o: &OffsetToCommit| o.metadata.len() <= config.offset_metadata_bytes_max;
        let value = |o: &OffsetToCommit| OffsetValue {
            offset: o.offset,
            leader_epoch: o.leader_epoch,
            metadata: o.metadata.clone(),
            commit_ms: ctx.wall_ms,
            expire_ms: -1,
            topic_id: o.topic_id,
        };
        let fitting = asked.offsets.iter().filter(|o| fits(o));
        let taken: Vec<(&OffsetToCommit, OffsetValue)> = fitting.map(|o| (o, value(o))).collect();
        let records: Vec<KeyValue> = taken
            .iter()
            .map(|(o, value)| KeyValue {
                key: self.offset_key(&o.topic, o.partition),
                value: Some(value.encode()),
            })
            .collect();
        let begin = match records.is_empty() {
            true => None,
            false => match ctx.log.append_in_transaction(producer, &records) {
                Ok(begin) => Some(begin),
                Err(GroupError::RecordTooLarge) => return all(GroupError::InvalidCommitOffsetSize),
                Err(why) => return all(why),
            },
        };
        for (o, value) in taken {
            self.apply_pending(producer.id, &o.topic, o.partition, value);
        }
        let result = |o: &OffsetToCommit| match fits(o) {
            true => Ok(()),
            false => Err(GroupError::OffsetMetadataTooLarge),
        };
        (asked.offsets.iter().map(result).collect(), begin)
    }

    /// Takes what a record of a transaction says, live and on recovery alike.
    fn apply_pending(&mut self, producer_id: i64, topic: &str, partition: i32, value: OffsetValue) {
        self.offset_bytes += pending_bytes(topic, &value);
        let offsets = self.pending_offsets.entry(producer_id).or_default();
        let partitions = offsets.entry(topic.to_string()).or_default();
        if let Some(before) = partitions.insert(partition, value) {
            self.offset_bytes -= pending_bytes(topic, &before);
        }
    }

    /// Its transaction is over. What it committed counts from the marker on, whatever was committed meanwhile: a log that
    /// is written anew says the older commits again, behind the transaction's.
    fn end_pending(&mut self, producer_id: i64, commit: bool) {
        let offsets = self.pending_offsets.remove(&producer_id);
        for (topic, partitions) in offsets.unwrap_or_default() {
            for (partition, value) in partitions {
                self.offset_bytes -= pending_bytes(&topic, &value);
                if commit {
                    self.apply_offset(&topic, partition, Some(value));
                }
            }
        }
    }

    /// Whether what is committed for a partition may be something else soon.
    pub fn is_unstable(&self, topic: &str, partition: i32) -> bool {
        let has = |offsets: &Offsets| {
            let partitions = offsets.get(topic);
            partitions.is_some_and(|partitions| partitions.contains_key(&partition))
        };
        self.pending_offsets.values().any(has)
    }

    /// Who deletes an offset means those of transactions as well.
    pub fn drop_pending(&mut self, topic: &str, partition: i32) {
        for offsets in self.pending_offsets.values_mut() {
            let Some(partitions) = offsets.get_mut(topic) else {
                continue;
            };
            if let Some(value) = partitions.remove(&partition) {
                self.offset_bytes -= pending_bytes(topic, &value);
            }
            if partitions.is_empty() {
                offsets.remove(topic);
            }
        }
        self.pending_offsets
            .retain(|_, offsets| !offsets.is_empty());
    }

    /// Topic and partition of all pending offsets, each once.
    pub fn pending_partitions(&self) -> BTreeSet<(String, i32)> {
        let each = self.pending_offsets.values().flatten();
        each.flat_map(|(topic, partitions)| partitions.keys().map(|p| (topic.clone(), *p)))
            .collect()
    }
}

fn pending_bytes(topic: &str, value: &OffsetValue) -> usize {
    PENDING_BYTES + topic.len() + value.metadata.len()
}
