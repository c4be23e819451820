//! Owns the committed offsets of a group: who may commit, what is found, what is forgotten.
//! Does not know which partitions a topic has.
//! Invariant: an offset that is found was written before.

use super::batch::{parts, KeyValue};
use super::consumer::Topics;
use super::coordinator::{Ctx, GroupConfig};
use super::group::Group;
use super::records::{Key, OffsetValue};
use super::types::{
    CommitOffsets, CommittedOffset, FetchOffsets, FetchedOffsets, GroupError, GroupState, MemberOf,
    OffsetToCommit,
};
use crate::types::TopicId;
use std::collections::BTreeSet;

/// What a committed offset takes beside its texts.
const OFFSET_BYTES: usize = 96;

/// A commit this old is of a topic that every shard has heard of; milliseconds.
const TOPIC_SETTLED_MS: i64 = 60_000;

const NONE: CommittedOffset = CommittedOffset {
    offset: -1,
    leader_epoch: -1,
    metadata: String::new(),
    unstable: false,
};

/// A transaction is not over that may change it.
const UNSTABLE: CommittedOffset = CommittedOffset {
    offset: -1,
    leader_epoch: -1,
    metadata: String::new(),
    unstable: true,
};

impl Group {
    fn may_commit(&self, by: &MemberOf, offsets: &[OffsetToCommit]) -> Result<(), GroupError> {
        if let Some(consumer) = &self.consumer {
            return consumer.may_commit(by, offsets);
        }
        let empty = self.state == GroupState::Empty;
        if by.generation < 0 && empty {
            // Somebody who uses the group's name for offsets only.
            return Ok(());
        }
        if by.generation >= 0 || !by.member.is_empty() || by.instance.is_some() {
            self.check_member(&by.member, by.instance.as_deref())?;
            if by.generation != self.generation {
                return Err(GroupError::IllegalGeneration);
            }
        } else if !empty {
            return Err(GroupError::UnknownMemberId);
        }
        match self.state {
            GroupState::CompletingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::Empty
            | GroupState::PreparingRebalance
            | GroupState::Stable
            | GroupState::Dead => Ok(()),
        }
    }

    pub fn commit(
        &mut self,
        asked: &CommitOffsets,
        ctx: &mut Ctx,
        config: &GroupConfig,
    ) -> Vec<Result<(), GroupError>> {
        let all = |why: GroupError| vec![Err(why); asked.offsets.len()];
        if let Err(why) = self.may_commit(&asked.by, &asked.offsets) {
            return all(why);
        }
        self.touch(&asked.by.member, ctx.now_ms);
        let fits = |o: &OffsetToCommit| o.metadata.len() <= config.offset_metadata_bytes_max;
        let plain = |o: &OffsetToCommit| OffsetValue {
            offset: o.offset,
            leader_epoch: o.leader_epoch,
            metadata: o.metadata.clone(),
            commit_ms: ctx.wall_ms,
            expire_ms: -1,
            topic_id: o.topic_id,
        };
        let value = |o: &OffsetToCommit| match asked.retention_ms {
            ..0 => plain(o),
            // The format that has a time to expire has neither epoch nor id.
            kept_ms => OffsetValue {
                leader_epoch: -1,
                expire_ms: ctx.wall_ms.saturating_add(kept_ms),
                topic_id: TopicId::NIL,
                ..plain(o)
            },
        };
        let taken: Vec<(&OffsetToCommit, OffsetValue)> = asked
            .offsets
            .iter()
            .filter(|o| fits(o))
            .map(|o| (o, value(o)))
            .collect();
        let records: Vec<KeyValue> = taken
            .iter()
            .map(|(o, value)| KeyValue {
                key: self.offset_key(&o.topic, o.partition),
                value: Some(value.encode()),
            })
            .collect();
        if !records.is_empty() {
            if let Err(why) = ctx.log.append(&records) {
                return all(match why {
                    GroupError::RecordTooLarge => GroupError::InvalidCommitOffsetSize,
                    other => other,
                });
            }
        }
        for (o, value) in taken {
            self.apply_offset(&o.topic, o.partition, Some(value));
        }
        let result = |o: &OffsetToCommit| match fits(o) {
            true => Ok(()),
            false => Err(GroupError::OffsetMetadataTooLarge),
        };
        asked.offsets.iter().map(result).collect()
    }

    pub(super) fn offset_key(&self, topic: &str, partition: i32) -> bytes::Bytes {
        Key::Offset {
            group: self.id.clone(),
            topic: topic.to_string(),
            partition,
        }
        .encode()
    }

    /// Takes what a record says, live and on recovery alike.
    pub fn apply_offset(&mut self, topic: &str, partition: i32, value: Option<OffsetValue>) {
        let bytes = |value: &OffsetValue| OFFSET_BYTES + topic.len() + value.metadata.len();
        match value {
            Some(value) => {
                self.offset_bytes += bytes(&value);
                let partitions = match self.offsets.get_mut(topic) {
                    Some(partitions) => partitions,
                    None => self.offsets.entry(topic.to_string()).or_default(),
                };
                if let Some(before) = partitions.insert(partition, value) {
                    self.offset_bytes -= bytes(&before);
                }
            }
            None => {
                self.drop_pending(topic, partition);
                let Some(partitions) = self.offsets.get_mut(topic) else {
                    return;
                };
                if let Some(before) = partitions.remove(&partition) {
                    self.offset_bytes -= bytes(&before);
                }
                if partitions.is_empty() {
                    self.offsets.remove(topic);
                }
            }
        }
    }

    /// What was committed for a topic that is gone is nothing to the one that has its name now.
    pub fn fetch(&self, asked: &FetchOffsets, topics: &dyn Topics) -> FetchedOffsets {
        let is_of_now = |topic: &str, value: &OffsetValue| {
            let now = topics.by_name(topic);
            value.topic_id.is_nil() || now.is_none_or(|now| now.id == value.topic_id)
        };
        let committed = |value: &OffsetValue| CommittedOffset {
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata.clone(),
            unstable: false,
        };
        let unstable =
            |topic: &str, index: i32| asked.require_stable && self.is_unstable(topic, index);
        match &asked.topics {
            None => self
                .offsets
                .iter()
                .map(|(topic, partitions)| {
                    let one = |(index, v): (&i32, &OffsetValue)| match unstable(topic, *index) {
                        true => (*index, UNSTABLE),
                        false => (*index, committed(v)),
                    };
                    let of_now = partitions.iter().filter(|(_, v)| is_of_now(topic, v));
                    (topic.clone(), of_now.map(one).collect::<Vec<_>>())
                })
                .filter(|(_, partitions)| !partitions.is_empty())
                .collect(),
            Some(topics) => topics
                .iter()
                .map(|(topic, partitions)| {
                    let known = self.offsets.get(topic);
                    let one = |index: &i32| {
                        if unstable(topic, *index) {
                            return (*index, UNSTABLE);
                        }
                        let value = known.and_then(|partitions| partitions.get(index));
                        let value = value.filter(|v| is_of_now(topic, v));
                        (*index, value.map_or(NONE, committed))
                    };
                    (topic.clone(), partitions.iter().map(one).collect())
                })
                .collect(),
        }
    }

    /// Nothing was ever committed.
    pub fn fetch_nothing(asked: &FetchOffsets) -> FetchedOffsets {
        let none = |(topic, partitions): &(String, Vec<i32>)| {
            let all = partitions.iter().map(|index| (*index, NONE));
            (topic.clone(), all.collect())
        };
        asked.topics.iter().flatten().map(none).collect()
    }

    /// Offsets of topics that are gone, or have come again as others, where that was not told when it happened.
    pub fn of_topics_that_are_gone(&self, ctx: &Ctx) -> Vec<(String, i32)> {
        let is_gone = |topic: &str, value: &OffsetValue| {
            let now = ctx.topics.by_name(topic).map(|now| now.id);
            let is_settled = ctx.wall_ms.saturating_sub(value.commit_ms) > TOPIC_SETTLED_MS;
            is_settled && !value.topic_id.is_nil() && now != Some(value.topic_id)
        };
        let each = self.offsets.iter().flat_map(|(topic, partitions)| {
            let gone = partitions.iter().filter(|(_, v)| is_gone(topic, v));
            gone.map(|(partition, _)| (topic.clone(), *partition))
        });
        each.collect()
    }

    /// Forgets these offsets, however many they are: where the log refuses, some of them.
    pub fn forget_in_parts(
        &mut self,
        which: &[(String, i32)],
        ctx: &mut Ctx,
    ) -> Result<(), GroupError> {
        let known = self.known(which);
        let mut left = &known[..];
        for part in parts(&self.tombstones_of(&known)) {
            ctx.log.append(part)?;
            let (gone, more) = left.split_at(part.len());
            left = more;
            for (topic, partition) in gone {
                self.apply_offset(topic, *partition, None);
            }
        }
        Ok(())
    }

    /// Forgets all of these offsets or none; those that are not there are forgotten already.
    pub fn forget(&mut self, which: &[(String, i32)], ctx: &mut Ctx) -> Result<(), GroupError> {
        let known = self.known(which);
        if known.is_empty() {
            return Ok(());
        }
        ctx.log.append(&self.tombstones_of(&known))?;
        for (topic, partition) in known {
            self.apply_offset(&topic, partition, None);
        }
        Ok(())
    }

    /// Those of which there is something.
    fn known(&self, which: &[(String, i32)]) -> Vec<(String, i32)> {
        let is_known = |(topic, partition): &&(String, i32)| {
            let partitions = self.offsets.get(topic);
            partitions.is_some_and(|p| p.contains_key(partition))
                || self.is_unstable(topic, *partition)
        };
        which.iter().filter(is_known).cloned().collect()
    }

    fn tombstones_of(&self, which: &[(String, i32)]) -> Vec<KeyValue> {
        let gone = |(topic, partition): &(String, i32)| KeyValue {
            key: self.offset_key(topic, *partition),
            value: None,
        };
        which.iter().map(gone).collect()
    }

    /// OffsetDelete: the results are in the order of what was asked.
    pub fn delete_offsets(
        &mut self,
        asked: &[(String, Vec<i32>)],
        ctx: &mut Ctx,
    ) -> Result<Vec<Vec<Result<(), GroupError>>>, GroupError> {
        let read = match self.state {
            GroupState::Empty if self.consumer.is_some() => self.subscribed().unwrap_or_default(),
            GroupState::Empty | GroupState::Dead => BTreeSet::new(),
            GroupState::Stable
            | GroupState::PreparingRebalance
            | GroupState::CompletingRebalance => {
                self.subscribed().ok_or(GroupError::NonEmptyGroup)?
            }
        };
        let flat: Vec<(String, i32)> = asked
            .iter()
            .filter(|(topic, _)| !read.contains(topic))
            .flat_map(|(topic, partitions)| partitions.iter().map(|p| (topic.clone(), *p)))
            .collect();
        self.forget(&flat, ctx)?;
        let result = |(topic, partitions): &(String, Vec<i32>)| {
            let one = match read.contains(topic) {
                true => Err(GroupError::GroupSubscribedToTopic),
                false => Ok(()),
            };
            vec![one; partitions.len()]
        };
        Ok(asked.iter().map(result).collect())
    }

    /// DeleteGroups: takes the group and its offsets out of the log. The coordinator forgets it then.
    pub fn delete(&mut self, ctx: &mut Ctx) -> Result<(), GroupError> {
        match self.state {
            GroupState::Empty | GroupState::Dead => {}
            GroupState::Stable
            | GroupState::PreparingRebalance
            | GroupState::CompletingRebalance => return Err(GroupError::NonEmptyGroup),
        }
        if !self.pending.is_empty() || self.has_members() {
            return Err(GroupError::NonEmptyGroup);
        }
        let mut all = self.pending_partitions();
        for (topic, partitions) in &self.offsets {
            all.extend(partitions.keys().map(|p| (topic.clone(), *p)));
        }
        let all: Vec<(String, i32)> = all.into_iter().collect();
        self.forget_in_parts(&all, ctx)?;
        let mut records = Vec::new();
        if self.kept.is_some() {
            records.push(self.tombstone());
        }
        let ends = self.consumer.iter().flat_map(|group| group.tombstones());
        records.extend(ends.map(|record| record.encode(&self.id)));
        if !records.is_empty() {
            ctx.log.append(&records)?;
        }
        self.offsets.clear();
        self.pending_offsets.clear();
        self.offset_bytes = 0;
        self.kept = None;
        self.consumer = None;
        Ok(())
    }

    /// Writes all that is kept of the group once more, so that what was written before is not needed.
    pub fn rewrite(&self, ctx: &mut Ctx) -> Result<(), GroupError> {
        if let Some(value) = &self.kept {
            ctx.log.append(&[self.record(value)])?;
        }
        for some in parts(&self.consumer_records()) {
            ctx.log.append(some)?;
        }
        let all: Vec<KeyValue> = self
            .offsets
            .iter()
            .flat_map(|(topic, partitions)| {
                partitions.iter().map(|(partition, value)| KeyValue {
                    key: self.offset_key(topic, *partition),
                    value: Some(value.encode()),
                })
            })
            .collect();
        for some in parts(&all) {
            ctx.log.append(some)?;
        }
        Ok(())
    }

    /// Offsets nobody has needed for as long as they are kept: of an empty group since its last member left, of a group
    /// without members ever, and of topics that its members do not read, since the commit.
    pub fn expired(&self, wall_ms: i64, retention_ms: i64) -> Vec<(String, i32)> {
        let read = match self.state {
            GroupState::Empty if self.consumer.is_some() => self.subscribed(),
            GroupState::Empty | GroupState::Dead => Some(BTreeSet::new()),
            GroupState::Stable => self.subscribed(),
            GroupState::PreparingRebalance | GroupState::CompletingRebalance => None,
        };
        let Some(read) = read else {
            return Vec::new();
        };
        let left_ms = match self.protocol_type {
            Some(_) if self.state == GroupState::Empty => self.state_ms,
            Some(_) | None => i64::MIN,
        };
        let over = |value: &OffsetValue| match value.expire_ms {
            // What an old client asked for itself.
            0.. => value.expire_ms <= wall_ms,
            ..0 => wall_ms.saturating_sub(value.commit_ms.max(left_ms)) >= retention_ms,
        };
        let unread = self
            .offsets
            .iter()
            .filter(|(topic, _)| !read.contains(*topic));
        unread
            .flat_map(|(topic, partitions)| {
                let old = partitions
                    .iter()
                    .filter(|(index, value)| over(value) && !self.is_unstable(topic, **index));
                old.map(|(index, _)| (topic.clone(), *index))
            })
            .collect()
    }
}
