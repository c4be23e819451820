//! Owns one group of the consumer protocol: what its records say, and what follows from that.
//! Does not know how members get on, other groups or clocks.
//! Invariant: hard state is what the records applied say, in their order, live and on recovery alike.

use super::records::{Current, Held, MemberState, MemberValue, Record, Resolved};
use super::types::{
    Assignment, Assignor, ConsumerConfig, ConsumerState, DescribedConsumer, DescribedConsumerGroup,
    NamedAssignment, Topics,
};
use crate::types::TopicId;
use std::collections::{BTreeMap, BTreeSet};

/// What a member takes beside its texts and partitions.
const MEMBER_BYTES: usize = 768;
/// What a partition of an assignment takes, in the three places where it is.
const PARTITION_BYTES: usize = 48;

/// How long a member has to do something; milliseconds of the monotonic clock.
#[derive(Clone, Copy, Default, Debug)]
pub struct Timers {
    /// By then it is heard of.
    pub session_ms: Option<u64>,
    /// By then it has given up what it has to, in this epoch.
    pub revoke: Option<(u64, i32)>,
    /// By then a classic member has joined again.
    pub join_ms: Option<u64>,
    /// By then a classic member has asked for its assignment.
    pub sync_ms: Option<u64>,
}

impl Timers {
    pub fn next_ms(&self) -> Option<u64> {
        let revoke_ms = self.revoke.map(|(at_ms, _)| at_ms);
        let all = [self.session_ms, revoke_ms, self.join_ms, self.sync_ms];
        all.into_iter().flatten().min()
    }
}

/// A member as its records say it is.
#[derive(Clone, Default, Debug)]
pub struct Member {
    pub value: MemberValue,
    pub current: Current,
    pub target: Assignment,
    pub timers: Timers,
}

impl Member {
    pub fn is_classic(&self) -> bool {
        self.value.classic.is_some()
    }

    fn bytes(&self) -> usize {
        let value = &self.value;
        let texts: usize = value.topics.iter().map(|t| t.len() + 48).sum();
        let classic = value.classic.iter().flat_map(|c| &c.protocols);
        let classic: usize = classic.map(|(n, b)| n.len() + b.len()).sum();
        let partitions: usize = self.target.values().map(BTreeSet::len).sum();
        MEMBER_BYTES + texts + classic + partitions * PARTITION_BYTES
    }
}

/// One group.
#[derive(Default, Debug)]
pub struct ConsumerGroup {
    pub epoch: i32,
    /// Of what the topics were when the epoch was bumped.
    pub metadata_hash: i64,
    pub target_epoch: i32,
    pub members: BTreeMap<String, Member>,
    pub regexes: BTreeMap<String, Resolved>,
    /// There is a record of an older broker about its topics.
    pub has_partitions_record: bool,
    /// Static members: instance id to member id.
    pub instances: BTreeMap<String, String>,
    /// How many members hold a partition: one at the most, but for a moment within a batch of records.
    held: BTreeMap<TopicId, BTreeMap<i32, u32>>,
    bytes: usize,
    /// Of the topics it was last compared with.
    pub seen_topics: u64,
    /// When regular expressions may be matched again, in milliseconds of the monotonic clock.
    pub regexes_at_ms: u64,
}

impl ConsumerGroup {
    // Records --------------------------------------------------------------------------------------------------------

    /// Takes what a record says. The record of the group's own end is for whoever has the group.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Group(Some((epoch, hash))) => {
                (self.epoch, self.metadata_hash) = (*epoch, *hash)
            }
            Record::Group(None) => {}
            Record::Partitions(value) => self.has_partitions_record = value.is_some(),
            Record::Member(id, Some(value)) => {
                self.change(id, |member| member.value = value.clone());
            }
            Record::Member(id, None) => self.remove(id),
            Record::TargetEpoch(value) => self.target_epoch = value.map_or(0, |(epoch, _)| epoch),
            Record::Target(id, value) => {
                let target = value.clone().unwrap_or_default();
                self.change_known(id, value.is_some(), |member| member.target = target);
            }
            Record::Current(id, value) => {
                let current = value.clone().unwrap_or_default();
                self.change_known(id, value.is_some(), |member| member.current = current);
            }
            Record::Regex(text, value) => match value {
                Some(value) => {
                    self.regexes.insert(text.clone(), value.clone());
                }
                None => {
                    self.regexes.remove(text);
                }
            },
        }
    }

    /// Tombstones do not make a member.
    fn change_known(&mut self, id: &str, makes: bool, f: impl FnOnce(&mut Member)) {
        if makes || self.members.contains_key(id) {
            self.change(id, f);
        }
    }

    fn change(&mut self, id: &str, f: impl FnOnce(&mut Member)) {
        let mut member = self.taken(id).unwrap_or_default();
        f(&mut member);
        self.bytes += id.len() + member.bytes();
        for_each(&member.current, |topic, partition| {
            *self
                .held
                .entry(topic)
                .or_default()
                .entry(partition)
                .or_default() += 1;
        });
        if let Some(instance) = &member.value.instance {
            self.instances.insert(instance.clone(), id.to_string());
        }
        self.members.insert(id.to_string(), member);
    }

    fn remove(&mut self, id: &str) {
        let _gone = self.taken(id);
    }

    /// Takes a member out, with all that follows from it.
    fn taken(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        self.bytes -= id.len() + member.bytes();
        let held = &mut self.held;
        for_each(&member.current, |topic, partition| {
            let partitions = held.get_mut(&topic).expect("what is held is counted");
            let count = partitions
                .get_mut(&partition)
                .expect("what is held is counted");
            *count -= 1;
            if *count == 0 {
                partitions.remove(&partition);
                if partitions.is_empty() {
                    held.remove(&topic);
                }
            }
        });
        if let Some(instance) = &member.value.instance {
            if self
                .instances
                .get(instance)
                .is_some_and(|known| known == id)
            {
                self.instances.remove(instance);
            }
        }
        Some(member)
    }

    /// What takes all of the group out of the log, but its offsets; each member in the order that Kafka has.
    pub fn tombstones(&self) -> Vec<Record> {
        let mut records = Vec::new();
        let ids = || self.members.keys().cloned();
        records.extend(ids().map(|id| Record::Current(id, None)));
        records.extend(ids().map(|id| Record::Target(id, None)));
        records.push(Record::TargetEpoch(None));
        records.extend(ids().map(|id| Record::Member(id, None)));
        records.extend(self.regexes.keys().map(|r| Record::Regex(r.clone(), None)));
        if self.has_partitions_record {
            records.push(Record::Partitions(None));
        }
        records.push(Record::Group(None));
        records
    }

    /// What makes the group anew.
    pub fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (id, member) in &self.members {
            records.push(Record::Member(id.clone(), Some(member.value.clone())));
        }
        for (regex, resolved) in &self.regexes {
            records.push(Record::Regex(regex.clone(), Some(resolved.clone())));
        }
        records.push(Record::Group(Some((self.epoch, self.metadata_hash))));
        for (id, member) in &self.members {
            records.push(Record::Target(id.clone(), Some(member.target.clone())));
        }
        records.push(Record::TargetEpoch(Some((self.target_epoch, 0))));
        for (id, member) in &self.members {
            records.push(Record::Current(id.clone(), Some(member.current.clone())));
        }
        records
    }

    // What follows from them -----------------------------------------------------------------------------------------

    /// About what it takes of the memory.
    pub fn bytes(&self) -> usize {
        let resolved = self.regexes.iter();
        let regexes: usize = resolved
            .map(|(text, r)| text.len() + r.topics.iter().map(|t| t.len() + 48).sum::<usize>())
            .sum();
        size_of::<ConsumerGroup>() + self.bytes + regexes
    }

    /// Whether somebody holds a partition beside the member with `own`.
    pub fn is_held_beside(&self, own: &Current, topic: TopicId, partition: i32) -> bool {
        let held = self.held.get(&topic).and_then(|p| p.get(&partition));
        let own = [&own.assigned, &own.revoking]
            .iter()
            .any(|held| held.get(&topic).is_some_and(|p| p.contains_key(&partition)));
        held.copied().unwrap_or(0) > u32::from(own)
    }

    pub fn state(&self) -> ConsumerState {
        let is_there = |member: &Member| {
            member.current.state == MemberState::Stable && member.current.epoch == self.target_epoch
        };
        if self.members.is_empty() {
            ConsumerState::Empty
        } else if self.epoch > self.target_epoch {
            ConsumerState::Assigning
        } else if self.members.values().all(is_there) {
            ConsumerState::Stable
        } else {
            ConsumerState::Reconciling
        }
    }

    /// The assignor that most members name, among those that are offered; else the broker's.
    pub fn assignor<'a>(
        members: impl Iterator<Item = &'a MemberValue>,
        config: &ConsumerConfig,
    ) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for name in members.filter_map(|member| member.assignor.as_deref()) {
            if let Some(assignor) = Assignor::of_name(name).filter(|a| config.offers(*a)) {
                *votes.entry(assignor).or_default() += 1;
            }
        }
        let most = votes.into_iter().max_by_key(|(_, count)| *count);
        most.map_or(config.assignor, |(assignor, _)| assignor)
    }

    pub fn described(
        &self,
        topics: &dyn Topics,
        config: &ConsumerConfig,
    ) -> DescribedConsumerGroup {
        let held = |held: &Held| {
            let all = held.iter();
            named(
                topics,
                all.map(|(id, p)| (*id, p.keys().copied().collect())),
            )
        };
        let target = |target: &Assignment| {
            let all = target.iter();
            named(
                topics,
                all.map(|(id, p)| (*id, p.iter().copied().collect())),
            )
        };
        let member = |(id, m): (&String, &Member)| DescribedConsumer {
            member: id.clone(),
            instance: m.value.instance.clone(),
            rack: m.value.rack.clone(),
            epoch: m.current.epoch,
            client_id: m.value.client_id.clone(),
            client_host: m.value.client_host.clone(),
            topics: m.value.topics.iter().cloned().collect(),
            regex: m.value.regex.clone(),
            assignment: held(&m.current.assigned),
            target: target(&m.target),
            is_classic: m.is_classic(),
        };
        DescribedConsumerGroup {
            state: self.state(),
            epoch: self.epoch,
            assignment_epoch: self.target_epoch,
            assignor: ConsumerGroup::assignor(self.members.values().map(|m| &m.value), config)
                .name(),
            members: self.members.iter().map(member).collect(),
        }
    }

    /// When something of the group is due next.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let timers = self.members.values().filter_map(|m| m.timers.next_ms());
        timers.min()
    }
}

/// Topics that are gone have no name, and are left out.
fn named(topics: &dyn Topics, all: impl Iterator<Item = (TopicId, Vec<i32>)>) -> NamedAssignment {
    all.filter_map(|(id, partitions)| Some((id, topics.name_of(id)?, partitions)))
        .collect()
}

/// Every partition that a member holds, each once.
fn for_each(current: &Current, mut f: impl FnMut(TopicId, i32)) {
    for (topic, partitions) in &current.assigned {
        partitions
            .keys()
            .for_each(|partition| f(*topic, *partition));
    }
    for (topic, partitions) in &current.revoking {
        let assigned = current.assigned.get(topic);
        for partition in partitions.keys() {
            if !assigned.is_some_and(|p| p.contains_key(partition)) {
                f(*topic, *partition);
            }
        }
    }
}
