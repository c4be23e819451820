//! Owns the assignor `uniform`: members get the same number of partitions, or one more, and keep what they had.
//! Does not know topics beyond their numbers of partitions.
//! Invariant: where all want the same, numbers differ by one at the most; where not, no move of one partition would make
//! them more even.

use super::Wish;
use crate::coord::consumer::types::Assignment;
use crate::types::TopicId;
use std::collections::{BTreeMap, BTreeSet};

/// Evening out where members want different topics goes in rounds that look at each partition once, and ends where nothing
/// moves, or after so many rounds or looks at members; what is left then is a little less even.
const ROUNDS_MAX: usize = 64;
const LOOKS_MAX: usize = 20_000_000;

pub fn assign(members: &[Wish], partitions: &BTreeMap<TopicId, i32>) -> Vec<Assignment> {
    let Some(first) = members.first() else {
        return Vec::new();
    };
    match members.iter().all(|member| member.topics == first.topics) {
        true => alike(members, partitions, &first.topics),
        false => Mixed::new(members, partitions).assigned(),
    }
}

/// Whether a member may keep a partition it had.
fn may_keep(
    member: &Wish,
    partitions: &BTreeMap<TopicId, i32>,
    topic: TopicId,
    index: i32,
) -> bool {
    member.topics.contains(&topic) && partitions.get(&topic).is_some_and(|count| index < *count)
}

fn add(target: &mut Assignment, topic: TopicId, index: i32) {
    target.entry(topic).or_default().insert(index);
}

/// All members want the same topics.
fn alike(
    members: &[Wish],
    partitions: &BTreeMap<TopicId, i32>,
    topics: &BTreeSet<TopicId>,
) -> Vec<Assignment> {
    let count_of = |topic: &TopicId| partitions.get(topic).copied().unwrap_or(0).max(0);
    let all: usize = topics.iter().map(|topic| count_of(topic) as usize).sum();
    let (each, mut more) = (all / members.len(), all % members.len());
    let mut targets = vec![Assignment::new(); members.len()];
    let mut counts = vec![0; members.len()];
    let mut kept: BTreeMap<TopicId, BTreeSet<i32>> = BTreeMap::new();
    for (at, member) in members.iter().enumerate() {
        let had = member.before.iter();
        let had = had.flat_map(|(topic, indexes)| indexes.iter().map(|index| (*topic, *index)));
        for (topic, index) in had.filter(|(t, i)| may_keep(member, partitions, *t, *i)) {
            let taken = kept.get(&topic).is_some_and(|t| t.contains(&index));
            if taken || counts[at] > each || (counts[at] == each && more == 0) {
                continue;
            }
            // One more than the others have.
            more -= usize::from(counts[at] == each);
            counts[at] += 1;
            kept.entry(topic).or_default().insert(index);
            add(&mut targets[at], topic, index);
        }
    }
    let free = topics.iter().flat_map(|topic| {
        let kept = kept.get(topic);
        let free = (0..count_of(topic)).filter(move |i| !kept.is_some_and(|k| k.contains(i)));
        free.map(|index| (*topic, index))
    });
    // All come to `each` first; then one more each, as far as it goes.
    let (mut at, mut full) = (0, each);
    for (topic, index) in free {
        loop {
            if at == members.len() {
                (at, full) = (0, each + 1);
            }
            if counts[at] < full {
                break;
            }
            at += 1;
        }
        counts[at] += 1;
        add(&mut targets[at], topic, index);
    }
    targets
}

/// Members want different topics.
struct Mixed<'a> {
    partitions: &'a BTreeMap<TopicId, i32>,
    /// Members by topic.
    wanting: BTreeMap<TopicId, Vec<usize>>,
    counts: Vec<usize>,
    /// Who gets each partition.
    owners: BTreeMap<(TopicId, i32), usize>,
}

impl Mixed<'_> {
    fn new<'a>(members: &[Wish], partitions: &'a BTreeMap<TopicId, i32>) -> Mixed<'a> {
        let mut mixed = Mixed {
            partitions,
            wanting: BTreeMap::new(),
            counts: vec![0; members.len()],
            owners: BTreeMap::new(),
        };
        for (at, member) in members.iter().enumerate() {
            for topic in &member.topics {
                mixed.wanting.entry(*topic).or_default().push(at);
            }
            for (topic, indexes) in &member.before {
                for index in indexes {
                    let is_free = !mixed.owners.contains_key(&(*topic, *index));
                    if is_free && may_keep(member, partitions, *topic, *index) {
                        mixed.owners.insert((*topic, *index), at);
                        mixed.counts[at] += 1;
                    }
                }
            }
        }
        mixed
    }

    /// The one with the fewest partitions among those who want a topic.
    fn poorest(&self, topic: TopicId) -> Option<usize> {
        let wanting = self.wanting.get(&topic)?;
        wanting.iter().copied().min_by_key(|at| self.counts[*at])
    }

    fn assigned(mut self) -> Vec<Assignment> {
        // Topics that few want first: those who want others as well can make up for it.
        let mut topics: Vec<(usize, TopicId)> = self
            .wanting
            .iter()
            .map(|(topic, wanting)| (wanting.len(), *topic))
            .collect();
        topics.sort();
        for (_, topic) in &topics {
            for index in 0..self.partitions.get(topic).copied().unwrap_or(0) {
                if self.owners.contains_key(&(*topic, index)) {
                    continue;
                }
                let to = self.poorest(*topic).expect("somebody wants it");
                self.owners.insert((*topic, index), to);
                self.counts[to] += 1;
            }
        }
        let looks = self.owners.len() * self.counts.len();
        for _ in 0..(LOOKS_MAX / looks.max(1)).clamp(1, ROUNDS_MAX) {
            if !self.even_out() {
                break;
            }
        }
        let mut targets = vec![Assignment::new(); self.counts.len()];
        for ((topic, index), at) in self.owners {
            add(&mut targets[at], topic, index);
        }
        targets
    }

    /// Moves each partition whose owner has two more than somebody else who wants it; false where there was none.
    fn even_out(&mut self) -> bool {
        let mut moved = false;
        let all: Vec<(TopicId, i32)> = self.owners.keys().copied().collect();
        for (topic, index) in all {
            let from = self.owners[&(topic, index)];
            let Some(to) = self.poorest(topic) else {
                continue;
            };
            if self.counts[from] > self.counts[to] + 1 {
                self.counts[from] -= 1;
                self.counts[to] += 1;
                self.owners.insert((topic, index), to);
                moved = true;
            }
        }
        moved
    }
}
