//! Owns a group as it will be when records are taken that are not written yet: members, topics, epoch, target.
//! Does not know who asked, nor how a member gets to its target.
//! Invariant: nothing of the group changes here; what is to change is in the records.

use super::assign::{assign, Wish};
use super::group::ConsumerGroup;
use super::records::{MemberValue, Record, Resolved};
use super::subscription::names;
use super::types::{Assignment, ConsumerConfig, TopicFacts, Topics};
use crate::types::TopicId;
use std::collections::{BTreeMap, BTreeSet};

/// What is around a step of a group.
pub struct Around<'a> {
    /// Monotonic milliseconds.
    pub now_ms: u64,
    /// Wall-clock milliseconds.
    pub wall_ms: i64,
    pub topics: &'a dyn Topics,
    pub config: &'a ConsumerConfig,
}

/// A member that is to be written.
pub struct Entrant {
    pub id: String,
    pub value: MemberValue,
    /// Its target so far.
    pub target: Assignment,
}

pub struct Plan<'a> {
    pub group: &'a ConsumerGroup,
    pub records: Vec<Record>,
    /// Members that go.
    pub without: BTreeSet<String>,
    /// A member that comes or changes.
    pub with: Option<Entrant>,
    /// Expressions matched anew; None for those that nobody has any more.
    regexes: BTreeMap<String, Option<Resolved>>,
}

impl Plan<'_> {
    pub fn new(group: &ConsumerGroup) -> Plan<'_> {
        Plan {
            group,
            records: Vec::new(),
            without: BTreeSet::new(),
            with: None,
            regexes: BTreeMap::new(),
        }
    }

    /// Takes a member out; the order of the records is Kafka's.
    pub fn remove(&mut self, id: &str) {
        self.records.push(Record::Current(id.to_string(), None));
        self.records.push(Record::Target(id.to_string(), None));
        self.records.push(Record::Member(id.to_string(), None));
        self.without.insert(id.to_string());
    }

    /// Id, what it wants and its target so far, of each member to be.
    pub fn members(&self) -> impl Iterator<Item = (&str, &MemberValue, &Assignment)> {
        let with = self.with.as_ref();
        let stays = move |id: &str| {
            !self.without.contains(id) && with.is_none_or(|entrant| entrant.id != id)
        };
        let known = self.group.members.iter();
        let known = known.filter(move |(id, _)| stays(id));
        let known = known.map(|(id, m)| (id.as_str(), &m.value, &m.target));
        known.chain(with.map(|e| (e.id.as_str(), &e.value, &e.target)))
    }

    // Regular expressions --------------------------------------------------------------------------------------------

    pub fn regex(&self, text: &str) -> Option<&Resolved> {
        match self.regexes.get(text) {
            Some(changed) => changed.as_ref(),
            None => self.group.regexes.get(text),
        }
    }

    pub fn set_regex(&mut self, text: &str, resolved: Resolved) {
        self.records
            .push(Record::Regex(text.to_string(), Some(resolved.clone())));
        self.regexes.insert(text.to_string(), Some(resolved));
    }

    /// Forgets expressions that no member has any more.
    pub fn drop_unused_regexes(&mut self) {
        let used: BTreeSet<&str> = self
            .members()
            .filter_map(|(_, value, _)| value.regex.as_deref())
            .collect();
        let known = self.group.regexes.keys();
        let unused: Vec<String> = known
            .filter(|text| !used.contains(text.as_str()))
            .cloned()
            .collect();
        for text in unused {
            self.records.push(Record::Regex(text.clone(), None));
            self.regexes.insert(text, None);
        }
    }

    // Topics ---------------------------------------------------------------------------------------------------------

    /// The topics there are that a member wants.
    pub fn wanted(&self, value: &MemberValue, topics: &dyn Topics) -> BTreeSet<TopicId> {
        names(value, |text| self.regex(text))
            .filter_map(|name| Some(topics.by_name(name)?.id))
            .collect()
    }

    /// A number for what all topics are that members want; 0 for none. It is compared with itself only.
    pub fn metadata_hash(&self, topics: &dyn Topics) -> i64 {
        let all: BTreeSet<&str> = self
            .members()
            .flat_map(|(_, value, _)| names(value, |text| self.regex(text)))
            .collect();
        let facts = all.into_iter().filter_map(|name| topics.by_name(name));
        facts.fold(0, |hash, facts| mix(hash, &facts))
    }

    // Epochs ---------------------------------------------------------------------------------------------------------

    /// The group's next epoch.
    pub fn bump(&mut self, hash: i64) -> i32 {
        let epoch = self.group.epoch.saturating_add(1);
        self.records.push(Record::Group(Some((epoch, hash))));
        epoch
    }

    /// A target of this epoch for everybody; gives the one of the member that comes or changes.
    pub fn retarget(&mut self, epoch: i32, around: &Around) -> Assignment {
        let mut partitions = BTreeMap::new();
        let mut ids: BTreeMap<String, Option<TopicId>> = BTreeMap::new();
        let mut wishes = Vec::new();
        for (id, value, target) in self.members() {
            let mut wanted = BTreeSet::new();
            for name in names(value, |text| self.regex(text)) {
                // Looked up once for all members.
                let known = ids.get(name).copied().unwrap_or_else(|| {
                    let facts = around.topics.by_name(name);
                    if let Some(facts) = facts {
                        partitions.insert(facts.id, facts.partitions);
                    }
                    let id = facts.map(|facts| facts.id);
                    ids.insert(name.to_string(), id);
                    id
                });
                wanted.extend(known);
            }
            wishes.push(Wish {
                member: id.to_string(),
                instance: value.instance.clone(),
                topics: wanted,
                before: target.clone(),
            });
        }
        let values = self.members().map(|(_, value, _)| value);
        let assignor = ConsumerGroup::assignor(values, around.config);
        let targets = assign(assignor, &wishes, &partitions);
        let own = self.with.as_ref().map(|entrant| entrant.id.clone());
        let mut target_of_own = Assignment::new();
        for (wish, target) in wishes.into_iter().zip(targets) {
            if Some(&wish.member) == own.as_ref() {
                target_of_own = target.clone();
            }
            if target != wish.before {
                self.records.push(Record::Target(wish.member, Some(target)));
            }
        }
        let at = Record::TargetEpoch(Some((epoch, around.wall_ms)));
        self.records.push(at);
        target_of_own
    }
}

/// FNV-1a over what a topic is.
fn mix(hash: i64, facts: &TopicFacts) -> i64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    let begin = hash as u64 ^ OFFSET;
    let count = facts.partitions.to_be_bytes();
    let bytes = facts.id.0.iter().chain(&count);
    bytes.fold(begin, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    }) as i64
}
