//! Owns the share groups of one partition of the groups' topic: their members, epochs and assignments.
//! Does not know shards, files or clocks, nor how records are shared; what it writes goes through [`Append`].
//! Invariant: hard state changes only with records that the log has taken, live and on recovery by the same step.

use super::assign::assign;
use super::records::{CurrentValue, GroupRecord, MemberValue, StatesValue};
use super::types::{
    DescribedShareGroup, DescribedShareMember, Partitions, ShareError, ShareHeard, ShareHeartbeat,
};
use crate::coord::records::RecordError;
use crate::coord::{Append, GroupState, GroupTimes, ListedGroup, Memory};
use crate::types::limits::{GROUPS_PER_COORDINATOR_MAX, GROUP_TEXT_BYTES_MAX, SHARE_TOPICS_MAX};
use crate::types::TopicId;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The settings of share groups, by Kafka's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShareGroupConfig {
    /// `group.share.session.timeout.ms`
    pub session_timeout_ms: u64,
    /// `group.share.heartbeat.interval.ms`
    pub heartbeat_interval_ms: i32,
    /// `group.share.max.size`
    pub members_max: usize,
}

/// A topic as the metadata has it now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicNow {
    pub id: TopicId,
    pub partitions: i32,
}

/// What a step has around it.
pub struct ShareCtx<'a> {
    /// Monotonic milliseconds.
    pub now_ms: u64,
    pub log: &'a mut dyn Append,
    pub topic: &'a dyn Fn(&str) -> Option<TopicNow>,
    /// What is set for one group.
    pub times: &'a dyn Fn(&str) -> GroupTimes,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Member {
    value: MemberValue,
    current: CurrentValue,
    target: Partitions,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Group {
    epoch: i32,
    topics_hash: i64,
    assignment_epoch: i32,
    members: BTreeMap<String, Member>,
    states: StatesValue,
    /// A record of it was written.
    is_made: bool,
}

impl Group {
    fn bytes(&self) -> usize {
        let topics = |of: &Partitions| of.values().map(|p| 64 + 4 * p.len()).sum::<usize>();
        let texts = |texts: &[String]| texts.iter().map(|t| 24 + t.len()).sum::<usize>();
        let member = |(id, m): (&String, &Member)| {
            let value = texts(&m.value.topics) + m.value.client_id.len() + id.len();
            size_of::<Member>() + value + topics(&m.current.assigned) + topics(&m.target)
        };
        let states = self.states.initialized.iter();
        let states = states.map(|(_, name, p)| 64 + name.len() + 4 * p.len());
        let members: usize = self.members.iter().map(member).sum();
        size_of::<Group>() + 64 + members + states.sum::<usize>()
    }

    fn is_nothing(&self) -> bool {
        !self.is_made && self.members.is_empty() && self.states.initialized.is_empty()
    }

    fn topics(&self, topic: &dyn Fn(&str) -> Option<TopicNow>) -> BTreeMap<String, TopicNow> {
        let names = self.members.values().flat_map(|m| &m.value.topics);
        let names: BTreeSet<&String> = names.collect();
        let known = names
            .into_iter()
            .map(|name| Some((name.clone(), topic(name)?)));
        known.flatten().collect()
    }
}

/// A number that differs where topics do (FNV-1a); Kafka takes another one, which nobody compares.
fn hash_of(topics: &BTreeMap<String, TopicNow>) -> i64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for (name, topic) in topics {
        add(name.as_bytes());
        add(&topic.id.0);
        add(&topic.partitions.to_be_bytes());
    }
    hash as i64
}

/// The share groups of one partition.
pub struct ShareGroups {
    config: ShareGroupConfig,
    memory: Rc<Memory>,
    bytes: usize,
    groups: BTreeMap<String, Group>,
    /// When a member is taken for gone; not in the log.
    sessions: BTreeSet<(u64, String, String)>,
    deadlines: BTreeMap<(String, String), u64>,
}

impl ShareGroups {
    pub fn new(config: ShareGroupConfig, memory: Rc<Memory>) -> ShareGroups {
        ShareGroups {
            config,
            memory,
            bytes: 0,
            groups: BTreeMap::new(),
            sessions: BTreeSet::new(),
            deadlines: BTreeMap::new(),
        }
    }

    pub fn configure(&mut self, config: ShareGroupConfig) {
        self.config = config;
    }

    pub fn has(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    // Recovery -------------------------------------------------------------------------------------------------------

    /// Takes one record of the log; gives whether it is one of a share group.
    ///
    /// # Errors
    /// It is none that Kafka writes there; nothing changed.
    pub fn replay(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        now_ms: u64,
    ) -> Result<bool, RecordError> {
        let Some((group, record)) = GroupRecord::decode(key, value)? else {
            return Ok(false);
        };
        self.apply(&group, &record, now_ms);
        Ok(true)
    }

    /// Takes what a record says, live and on recovery alike.
    fn apply(&mut self, id: &str, record: &GroupRecord, now_ms: u64) {
        let mut group = self.groups.remove(id).unwrap_or_default();
        let before = group.bytes() * usize::from(!group.is_nothing());
        match record {
            GroupRecord::Member(member, Some(value)) => {
                let new = || Member {
                    value: value.clone(),
                    current: CurrentValue::default(),
                    target: Partitions::new(),
                };
                group
                    .members
                    .entry(member.clone())
                    .or_insert_with(new)
                    .value = value.clone();
                self.session(id, member, Some(now_ms + self.config.session_timeout_ms));
            }
            GroupRecord::Member(member, None) => {
                group.members.remove(member);
                self.session(id, member, None);
            }
            GroupRecord::Group(Some((epoch, hash))) => {
                (group.epoch, group.topics_hash) = (*epoch, *hash);
                group.is_made = true;
            }
            GroupRecord::Group(None) => {
                (group.epoch, group.topics_hash) = (0, 0);
                group.is_made = false;
            }
            GroupRecord::Target(epoch) => group.assignment_epoch = epoch.unwrap_or(0),
            // Of a member that is gone nothing is kept.
            GroupRecord::TargetMember(member, of) => {
                if let Some(member) = group.members.get_mut(member) {
                    member.target = of.clone().unwrap_or_default();
                }
            }
            GroupRecord::Current(member, value) => {
                if let Some(member) = group.members.get_mut(member) {
                    member.current = value.clone().unwrap_or_default();
                }
            }
            GroupRecord::States(value) => group.states = value.clone().unwrap_or_default(),
        }
        let now = group.bytes() * usize::from(!group.is_nothing());
        self.memory.replace(before, now);
        self.bytes = self.bytes - before + now;
        if !group.is_nothing() {
            self.groups.insert(id.to_string(), group);
        }
    }

    /// Writes records, and has them so.
    fn write(
        &mut self,
        group: &str,
        records: &[GroupRecord],
        ctx: &mut ShareCtx,
    ) -> Result<(), ShareError> {
        if records.is_empty() {
            return Ok(());
        }
        let encoded: Vec<_> = records.iter().map(|record| record.encode(group)).collect();
        ctx.log.append(&encoded)?;
        for record in records {
            self.apply(group, record, ctx.now_ms);
        }
        Ok(())
    }

    fn session(&mut self, group: &str, member: &str, deadline_ms: Option<u64>) {
        let key = (group.to_string(), member.to_string());
        if let Some(before) = self.deadlines.remove(&key) {
            self.sessions
                .remove(&(before, key.0.clone(), key.1.clone()));
        }
        if let Some(deadline) = deadline_ms {
            self.sessions
                .insert((deadline, key.0.clone(), key.1.clone()));
            self.deadlines.insert(key, deadline);
        }
    }

    // Members --------------------------------------------------------------------------------------------------------

    /// ShareGroupHeartbeat.
    pub fn heartbeat(
        &mut self,
        asked: &ShareHeartbeat,
        ctx: &mut ShareCtx,
    ) -> Result<ShareHeard, ShareError> {
        check(asked)?;
        let times = (ctx.times)(&asked.group);
        let interval_ms = times.heartbeat_interval_ms;
        let heartbeat_interval_ms = interval_ms.unwrap_or(self.config.heartbeat_interval_ms);
        let known = self.groups.get(&asked.group);
        let member = known.and_then(|group| group.members.get(&asked.member));
        match (asked.epoch, known, member) {
            (0, None, _) => {
                let full = self.groups.len() >= GROUPS_PER_COORDINATOR_MAX;
                if full || self.memory.is_full() {
                    return Err(ShareError::NotAvailable);
                }
            }
            (0, Some(group), None) => {
                if group.members.len() >= self.config.members_max {
                    return Err(ShareError::GroupMaxSizeReached);
                }
                if self.memory.is_full() {
                    return Err(ShareError::NotAvailable);
                }
            }
            (0, Some(_), Some(_)) => {}
            (_, None, _) => return Err(ShareError::GroupIdNotFound),
            (_, Some(_), None) => return Err(ShareError::UnknownMemberId),
            (-1, Some(_), Some(_)) => {
                let gone = BTreeSet::from([asked.member.clone()]);
                self.remove(&asked.group, &gone, ctx)?;
                return Ok(ShareHeard {
                    epoch: -1,
                    heartbeat_interval_ms,
                    assignment: None,
                });
            }
            (epoch, Some(_), Some(member)) => {
                let current = &member.current;
                if epoch != current.epoch && epoch != current.previous_epoch {
                    return Err(ShareError::FencedMemberEpoch);
                }
            }
        }
        let value = MemberValue {
            rack: asked.rack.clone().or_else(|| member?.value.rack.clone()),
            client_id: asked.client_id.clone(),
            client_host: asked.client_host.clone(),
            topics: match (&asked.topics, member) {
                (Some(topics), _) => {
                    let topics: BTreeSet<&String> = topics.iter().collect();
                    topics.into_iter().cloned().collect()
                }
                (None, Some(member)) => member.value.topics.clone(),
                (None, None) => Vec::new(),
            },
        };
        let mut records = Vec::new();
        let mut next = known.cloned().unwrap_or_default();
        let is_new = member.is_none();
        let reads_others = member.is_none_or(|m| m.value.topics != value.topics);
        if member.is_none_or(|m| m.value != value) {
            records.push(GroupRecord::Member(
                asked.member.clone(),
                Some(value.clone()),
            ));
        }
        let of_member = next.members.entry(asked.member.clone());
        let of_member = of_member.or_insert_with(|| Member {
            value: value.clone(),
            current: CurrentValue::default(),
            target: Partitions::new(),
        });
        of_member.value = value;
        self.reassign(&mut next, is_new || reads_others, &mut records, ctx);
        let of_member = &next.members[&asked.member];
        let is_behind = of_member.current.epoch != next.epoch;
        if is_behind {
            let current = CurrentValue {
                epoch: next.epoch,
                previous_epoch: of_member.current.epoch,
                assigned: of_member.target.clone(),
            };
            records.push(GroupRecord::Current(asked.member.clone(), Some(current)));
        }
        let target = of_member.target.clone();
        let tells = asked.epoch == 0 || asked.topics.is_some() || asked.epoch != next.epoch;
        self.write(&asked.group, &records, ctx)?;
        let session_ms = times.session_timeout_ms.map(|ms| ms.max(1) as u64);
        let session_ms = session_ms.unwrap_or(self.config.session_timeout_ms);
        self.session(&asked.group, &asked.member, Some(ctx.now_ms + session_ms));
        Ok(ShareHeard {
            epoch: next.epoch,
            heartbeat_interval_ms,
            assignment: tells.then_some(target),
        })
    }

    /// Where members or topics changed: a new epoch, and what each member has by it. Gives the records of that.
    fn reassign(
        &self,
        group: &mut Group,
        members_changed: bool,
        records: &mut Vec<GroupRecord>,
        ctx: &ShareCtx,
    ) {
        let topics = group.topics(ctx.topic);
        let hash = hash_of(&topics);
        if !members_changed && hash == group.topics_hash && group.is_made {
            return;
        }
        group.epoch = group.epoch.checked_add(1).unwrap_or(1);
        group.topics_hash = hash;
        group.is_made = true;
        records.push(GroupRecord::Group(Some((group.epoch, hash))));
        let members = group.members.iter();
        let assigned = assign(members.map(|(id, m)| (&**id, &m.value.topics[..])), &topics);
        let mut states = group.states.clone();
        for (id, target) in assigned {
            let member = group
                .members
                .get_mut(&id)
                .expect("it was assigned something");
            if member.target != target {
                member.target = target.clone();
                records.push(GroupRecord::TargetMember(id, Some(target)));
            }
        }
        // Each partition that is assigned has a state, which its first reader begins.
        states
            .initialized
            .retain(|(id, name, _)| (ctx.topic)(name).is_some_and(|t| t.id == *id));
        for (name, topic) in &topics {
            let all: Vec<i32> = (0..topic.partitions).collect();
            let found = states
                .initialized
                .iter_mut()
                .find(|(id, _, _)| *id == topic.id);
            match found {
                Some((_, _, partitions)) => *partitions = all,
                None => states.initialized.push((topic.id, name.clone(), all)),
            }
        }
        if states != group.states {
            group.states = states.clone();
            records.push(GroupRecord::States(Some(states)));
        }
        group.assignment_epoch = group.epoch;
        records.push(GroupRecord::Target(Some(group.epoch)));
    }

    /// Takes members out.
    fn remove(
        &mut self,
        id: &str,
        gone: &BTreeSet<String>,
        ctx: &mut ShareCtx,
    ) -> Result<(), ShareError> {
        let group = self.groups.get(id).ok_or(ShareError::GroupIdNotFound)?;
        let mut next = group.clone();
        let mut records = Vec::new();
        for member in gone {
            next.members.remove(member);
            records.push(GroupRecord::Current(member.clone(), None));
            records.push(GroupRecord::TargetMember(member.clone(), None));
            records.push(GroupRecord::Member(member.clone(), None));
        }
        self.reassign(&mut next, true, &mut records, ctx);
        self.write(id, &records, ctx)
    }

    // Offsets --------------------------------------------------------------------------------------------------------

    /// The partitions of which there are states, by topic and name.
    pub fn states(&self, id: &str) -> Result<Vec<(TopicId, String, Vec<i32>)>, ShareError> {
        let group = self.groups.get(id).ok_or(ShareError::GroupIdNotFound)?;
        Ok(group.states.initialized.clone())
    }

    /// Says that nobody reads, so that offsets may be moved.
    ///
    /// # Errors
    /// Somebody does, or there is no such group.
    pub fn is_empty(&self, id: &str) -> Result<(), ShareError> {
        let group = self.groups.get(id).ok_or(ShareError::GroupIdNotFound)?;
        match group.members.is_empty() {
            true => Ok(()),
            false => Err(ShareError::NonEmptyGroup),
        }
    }

    /// Notes that there are states of these partitions as well. A group that is not known is made: so one can begin with
    /// offsets.
    pub fn add_states(
        &mut self,
        id: &str,
        added: &[(TopicId, String, i32)],
        ctx: &mut ShareCtx,
    ) -> Result<(), ShareError> {
        check_id(id)?;
        let known = self.groups.get(id);
        let no_room = self.groups.len() >= GROUPS_PER_COORDINATOR_MAX || self.memory.is_full();
        if known.is_none() && no_room {
            return Err(ShareError::NotAvailable);
        }
        let mut records = Vec::new();
        if known.is_none() {
            records.push(GroupRecord::Group(Some((0, 0))));
        }
        let before = known.map_or_else(StatesValue::default, |group| group.states.clone());
        let mut states = before.clone();
        for (topic, name, index) in added {
            let found = states.initialized.iter_mut().find(|(id, _, _)| id == topic);
            match found {
                Some((_, _, partitions)) if partitions.contains(index) => {}
                Some((_, _, partitions)) => partitions.push(*index),
                None => states
                    .initialized
                    .push((*topic, name.clone(), vec![*index])),
            }
        }
        if states == before {
            return Ok(());
        }
        records.push(GroupRecord::States(Some(states)));
        self.write(id, &records, ctx)
    }

    /// Notes that there are no states of these topics any more.
    pub fn drop_states(
        &mut self,
        id: &str,
        topics: &[TopicId],
        ctx: &mut ShareCtx,
    ) -> Result<(), ShareError> {
        self.is_empty(id)?;
        let mut states = self.groups[id].states.clone();
        states
            .initialized
            .retain(|(topic, _, _)| !topics.contains(topic));
        self.write(id, &[GroupRecord::States(Some(states))], ctx)
    }

    // Admin ----------------------------------------------------------------------------------------------------------

    pub fn list(&self) -> Vec<ListedGroup> {
        let one = |(id, group): (&String, &Group)| ListedGroup {
            group: id.clone(),
            protocol_type: "share".to_string(),
            kind: "share",
            state: match group.members.is_empty() {
                true => GroupState::Empty.name(),
                false => GroupState::Stable.name(),
            },
        };
        self.groups.iter().map(one).collect()
    }

    pub fn describe(&self, id: &str) -> Result<DescribedShareGroup, ShareError> {
        let group = self.groups.get(id).ok_or(ShareError::GroupIdNotFound)?;
        let member = |(id, m): (&String, &Member)| DescribedShareMember {
            member: id.clone(),
            rack: m.value.rack.clone(),
            epoch: m.current.epoch,
            client_id: m.value.client_id.clone(),
            client_host: m.value.client_host.clone(),
            topics: m.value.topics.clone(),
            assignment: m.current.assigned.clone(),
        };
        Ok(DescribedShareGroup {
            state: match group.members.is_empty() {
                true => GroupState::Empty.name(),
                false => GroupState::Stable.name(),
            },
            epoch: group.epoch,
            assignment_epoch: group.assignment_epoch,
            members: group.members.iter().map(member).collect(),
        })
    }

    /// Forgets a group without members. Its states are deleted before.
    pub fn delete(&mut self, id: &str, ctx: &mut ShareCtx) -> Result<(), ShareError> {
        self.is_empty(id)?;
        let records = [
            GroupRecord::States(None),
            GroupRecord::Target(None),
            GroupRecord::Group(None),
        ];
        self.write(id, &records, ctx)
    }

    // Time -----------------------------------------------------------------------------------------------------------

    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.sessions.first().map(|(deadline, _, _)| *deadline)
    }

    /// Members that are silent for too long are gone.
    pub fn tick(&mut self, ctx: &mut ShareCtx) {
        let mut gone: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (deadline, group, member) in &self.sessions {
            if *deadline > ctx.now_ms {
                break;
            }
            gone.entry(group.clone())
                .or_default()
                .insert(member.clone());
        }
        for (group, members) in gone {
            if let Err(error) = self.remove(&group, &members, ctx) {
                tracing::warn!(group, %error, "silent members of a share group cannot be removed yet");
                for member in &members {
                    self.session(&group, member, Some(ctx.now_ms + 1_000));
                }
            }
        }
    }

    // Rewriting ------------------------------------------------------------------------------------------------------

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn group_ids(&self) -> Vec<String> {
        self.groups.keys().cloned().collect()
    }

    /// Writes these groups once more, as they are kept. When that was done for all there were, and is durable, nothing
    /// that was written before it began is needed.
    pub fn rewrite(&mut self, ids: &[String], ctx: &mut ShareCtx) -> Result<(), ShareError> {
        for id in ids {
            let Some(group) = self.groups.get(id) else {
                continue;
            };
            let mut records = Vec::new();
            for (member, known) in &group.members {
                let (target, current) = (known.target.clone(), known.current.clone());
                records.push(GroupRecord::Member(
                    member.clone(),
                    Some(known.value.clone()),
                ));
                records.push(GroupRecord::TargetMember(member.clone(), Some(target)));
                records.push(GroupRecord::Current(member.clone(), Some(current)));
            }
            if group.is_made {
                records.push(GroupRecord::Group(Some((group.epoch, group.topics_hash))));
            }
            records.push(GroupRecord::Target(Some(group.assignment_epoch)));
            records.push(GroupRecord::States(Some(group.states.clone())));
            let encoded: Vec<_> = records.iter().map(|record| record.encode(id)).collect();
            ctx.log.append(&encoded)?;
        }
        Ok(())
    }
}

fn check_id(group: &str) -> Result<(), ShareError> {
    if group.is_empty() || group.len() > GROUP_TEXT_BYTES_MAX {
        let why = "GroupId can't be empty, nor longer than what is kept of one.";
        return Err(ShareError::InvalidRequest(why));
    }
    Ok(())
}

fn check(asked: &ShareHeartbeat) -> Result<(), ShareError> {
    let refuse = |why| Err(ShareError::InvalidRequest(why));
    let fits = |text: &str| text.len() <= GROUP_TEXT_BYTES_MAX;
    check_id(&asked.group)?;
    if asked.member.is_empty() || !fits(&asked.member) {
        return refuse("MemberId can't be empty.");
    }
    if asked.epoch < -1 {
        return refuse("MemberEpoch is invalid.");
    }
    let topics = asked.topics.as_deref().unwrap_or_default();
    if asked.epoch == 0 && topics.is_empty() {
        return refuse("SubscribedTopicNames must be set in first request.");
    }
    let texts = topics.iter().chain([&asked.client_id, &asked.client_host]);
    let mut texts = texts.chain(&asked.rack);
    if topics.len() > SHARE_TOPICS_MAX || !texts.all(|text| fits(text)) {
        return refuse("The member is larger than what is kept of one.");
    }
    Ok(())
}

impl Drop for ShareGroups {
    fn drop(&mut self) {
        self.memory.replace(self.bytes, 0);
    }
}
