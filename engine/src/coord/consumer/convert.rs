//! Owns the way of a group with members from the classic protocol to the consumer protocol, and back.
//! Does not know how either works once it is there.
//! Invariant: nobody loses what it holds on the way: what was assigned stays, in the epoch that was the generation.

use super::classic::{assignment_bytes, Subscription};
use super::group::ConsumerGroup;
use super::records::{ClassicValue, Current, Held, MemberState, MemberValue, Record};
use super::types::{Assignment, ConsumerConfig, Topics};
use crate::coord::batch::KeyValue;
use crate::coord::codec::Reader;
use crate::coord::coordinator::{Ctx, GroupConfig, Reply};
use crate::coord::group::{Group, Member, CONSUMER};
use crate::coord::records::{Key, RecordError};
use crate::coord::types::{GroupError, GroupState, JoinGroup, Joined};
use crate::types::limits::GROUP_MEMBERS_MAX;
use bytes::Bytes;
use std::collections::BTreeMap;

impl Group {
    /// The classic group as one of the consumer protocol, with the records that make it: without members a new one.
    ///
    /// # Errors
    /// Its members have to stay what they are.
    pub(super) fn upgraded(
        &self,
        config: &GroupConfig,
        ctx: &Ctx,
    ) -> Result<(ConsumerGroup, Vec<Record>), GroupError> {
        let mut records = Vec::new();
        if !self.members.is_empty() {
            let is_consumers = self.protocol_type.as_deref() == Some(CONSUMER);
            let max = config.consumer.members_max.min(GROUP_MEMBERS_MAX);
            let fits = self.members.len() <= max;
            if !is_consumers || !fits || !config.consumer.migration.upgrades() {
                return Err(GroupError::GroupIdNotFound);
            }
            for (id, member) in &self.members {
                let made = self.upgraded_member(id, member, ctx.topics);
                records.extend(made.ok_or(GroupError::GroupIdNotFound)?);
            }
            records.push(Record::Group(Some((self.generation, 0))));
            records.push(Record::TargetEpoch(Some((self.generation, ctx.wall_ms))));
        }
        let mut group = ConsumerGroup::default();
        records.iter().for_each(|record| group.apply(record));
        Ok((group, records))
    }

    /// None where what the member said of itself cannot be read.
    fn upgraded_member(
        &self,
        id: &str,
        member: &Member,
        topics: &dyn Topics,
    ) -> Option<[Record; 3]> {
        let liked = member.protocols.first().map(|(name, _)| name.as_str());
        let protocol = self.protocol.as_deref().or(liked)?;
        let subscription = Subscription::read(&member.metadata(protocol))?;
        let target = match member.assignment.is_empty() {
            true => Assignment::new(),
            false => assigned_in(&member.assignment, topics).ok()?,
        };
        let ms = |ms: u64| i32::try_from(ms).unwrap_or(i32::MAX);
        let value = MemberValue {
            instance: member.instance.clone(),
            rack: subscription.rack,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            topics: subscription.topics,
            regex: None,
            rebalance_timeout_ms: ms(member.rebalance_ms),
            assignor: None,
            classic: Some(ClassicValue {
                session_timeout_ms: ms(member.session_ms),
                protocols: member.protocols.clone(),
            }),
        };
        let with_epoch = |p: &std::collections::BTreeSet<i32>| {
            p.iter().map(|index| (*index, self.generation)).collect()
        };
        let all = target.iter();
        let current = Current {
            epoch: self.generation,
            previous_epoch: self.generation,
            state: MemberState::Stable,
            assigned: all.map(|(topic, p)| (*topic, with_epoch(p))).collect(),
            revoking: Held::new(),
        };
        Some([
            Record::Member(id.to_string(), Some(value)),
            Record::Target(id.to_string(), Some(target)),
            Record::Current(id.to_string(), Some(current)),
        ])
    }

    /// Somebody joins by the classic protocol: a group of the consumer protocol without members becomes a classic one.
    ///
    /// # Errors
    /// The log refuses, or the one who joins says that it is a member already.
    pub fn leave_empty_consumer(
        &mut self,
        asked: &JoinGroup,
        ctx: &mut Ctx,
    ) -> Result<(), GroupError> {
        match &self.consumer {
            Some(group) if group.members.is_empty() => {}
            Some(_) | None => return Ok(()),
        }
        // The ids of those who join newly are not kept here, as they are in a classic group.
        match asked.member.is_empty() || asked.instance.is_some() {
            true => self.end_consumer(ctx),
            false => Err(GroupError::UnknownMemberId),
        }
    }

    /// The group is no classic one any more: whoever waits in it hears why, and nothing of it is left but offsets.
    pub(super) fn leave_classic(&mut self, why: GroupError, ctx: &mut Ctx) {
        for (id, member) in &mut self.members {
            if let Some(token) = member.joining.take() {
                let refused = Reply::Joined(Joined::refused(id, why));
                ctx.replies.push((token, refused));
            }
            if let Some(token) = member.syncing.take() {
                ctx.replies.push((token, Reply::Synced(Err(why))));
            }
        }
        self.forget_classic();
    }

    /// What a tombstone of a classic group says: only offsets are left of it, live and on recovery alike.
    pub fn forget_classic(&mut self) {
        let offsets = std::mem::take(&mut self.offsets);
        let pending_offsets = std::mem::take(&mut self.pending_offsets);
        *self = Group {
            offsets,
            pending_offsets,
            offset_bytes: self.offset_bytes,
            consumer: self.consumer.take(),
            ..Group::new(std::mem::take(&mut self.id), self.state_ms)
        };
    }

    pub fn tombstone(&self) -> KeyValue {
        let group = self.id.clone();
        KeyValue {
            key: Key::Group { group }.encode(),
            value: None,
        }
    }

    /// The last member of the consumer protocol is among those who go: the rest is a classic group, and joins anew.
    pub(super) fn downgrade(
        &mut self,
        gone: &[String],
        ctx: &mut Ctx,
        config: &GroupConfig,
    ) -> Result<(), GroupError> {
        let consumer = self.consumer.take().expect("it is what is downgraded");
        let mut classic = Group::new(self.id.clone(), ctx.wall_ms);
        let mut assignments: BTreeMap<String, Bytes> = BTreeMap::new();
        for (id, member) in consumer
            .members
            .iter()
            .filter(|(id, _)| !gone.contains(*id))
        {
            let Some(value) = &member.value.classic else {
                continue;
            };
            let assignment = assignment_bytes(member, ctx.topics);
            assignments.insert(id.clone(), assignment);
            let session_ms = value.session_timeout_ms.max(0) as u64;
            let as_classic = Member {
                instance: member.value.instance.clone(),
                client_id: member.value.client_id.clone(),
                client_host: member.value.client_host.clone(),
                session_ms,
                rebalance_ms: member.rebalance_ms(),
                protocols: value.protocols.clone(),
                assignment: Bytes::new(),
                is_new: false,
                deadline_ms: ctx.now_ms + session_ms,
                joining: None,
                syncing: None,
            };
            classic.add_member(id.clone(), as_classic, CONSUMER);
        }
        classic.generation = consumer.epoch;
        classic.protocol = classic.choose_protocol();
        classic.state = GroupState::Stable;
        let value = classic.value(&assignments);
        let tombstones = consumer.tombstones();
        let mut all: Vec<KeyValue> = tombstones.iter().map(|r| r.encode(&self.id)).collect();
        all.push(classic.record(&value));
        if let Err(why) = ctx.log.append(&all) {
            self.consumer = Some(consumer);
            return Err(why);
        }
        classic.apply(value, ctx.now_ms, true);
        let offsets = std::mem::take(&mut self.offsets);
        let pending_offsets = std::mem::take(&mut self.pending_offsets);
        *self = Group {
            offsets,
            pending_offsets,
            offset_bytes: self.offset_bytes,
            ..classic
        };
        self.rebalance(ctx, config);
        Ok(())
    }
}

impl ConsumerGroup {
    /// Whether the rest of the members, without these, are classic ones that may have their group back.
    pub(super) fn downgrades_without(&self, ids: &[String], config: &ConsumerConfig) -> bool {
        let mut rest = self.members.iter().filter(|(id, _)| !ids.contains(id));
        config.migration.downgrades()
            && rest.clone().next().is_some()
            && rest.all(|(_, member)| member.is_classic())
    }
}

/// The partitions in an assignment of the classic protocol, of topics that there are.
fn assigned_in(bytes: &[u8], topics: &dyn Topics) -> Result<Assignment, RecordError> {
    let mut r = Reader::plain(bytes);
    let _version = r.i16()?;
    let mut assignment = Assignment::new();
    // The length of its name and the count of its partitions.
    for _ in 0..r.count(6)? {
        let name = r.text()?;
        let count = r.count(4)?;
        let partitions = (0..count)
            .map(|_| r.i32())
            .collect::<Result<Vec<i32>, _>>()?;
        if let Some(facts) = topics.by_name(&name) {
            assignment.entry(facts.id).or_default().extend(partitions);
        }
    }
    Ok(assignment)
}
