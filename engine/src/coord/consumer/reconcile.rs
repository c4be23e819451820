//! Owns the steps of one member towards its target: what it keeps, gives up, gets, and in which epoch it is then.
//! Does not know the group, nor who else holds what: it asks.
//! Invariant: a partition is given to a member only while nobody else holds it.

use super::records::{Current, Held, MemberState};
use super::types::Assignment;
use crate::types::TopicId;
use std::collections::BTreeSet;

/// What a member is to become.
pub struct Towards<'a> {
    /// Epoch of the target.
    pub epoch: i32,
    pub target: &'a Assignment,
    /// Ids of the topics that the member wants.
    pub subscribed: &'a BTreeSet<TopicId>,
    /// What the member says that it holds; None where it does not say.
    pub owned: Option<&'a [(TopicId, Vec<i32>)]>,
    /// Whether another member holds a partition.
    pub held_beside: &'a dyn Fn(TopicId, i32) -> bool,
}

impl Towards<'_> {
    /// The member one step on; as it was, where there is none to take.
    pub fn step(&self, member: &Current) -> Current {
        let next = match member.state {
            MemberState::Stable if member.epoch != self.epoch => self.next(member),
            MemberState::Stable => self.without_unsubscribed(member),
            MemberState::Unrevoked if self.still_owns(&member.revoking) => {
                self.without_unsubscribed(member)
            }
            MemberState::Unrevoked | MemberState::Unreleased | MemberState::Unknown => {
                self.next(member)
            }
        };
        let moved = (next.epoch, next.state) != (member.epoch, member.state)
            || next.assigned != member.assigned
            || next.revoking != member.revoking;
        match moved {
            true => next,
            false => member.clone(),
        }
    }

    /// Where the member does not say what it holds, it may hold all.
    fn still_owns(&self, partitions: &Held) -> bool {
        let Some(owned) = self.owned else {
            return true;
        };
        owned.iter().any(|(topic, indexes)| {
            let of_topic = partitions.get(topic);
            of_topic.is_some_and(|p| indexes.iter().any(|index| p.contains_key(index)))
        })
    }

    /// Topics that the member does not want any more are given up at once, before there is a new target.
    fn without_unsubscribed(&self, member: &Current) -> Current {
        let (kept, unwanted): (Held, Held) = member
            .assigned
            .clone()
            .into_iter()
            .partition(|(topic, _)| self.subscribed.contains(topic));
        if unwanted.is_empty() {
            return member.clone();
        }
        let mut revoking = member.revoking.clone();
        for (topic, partitions) in unwanted {
            revoking.entry(topic).or_default().extend(partitions);
        }
        match self.still_owns(&revoking) {
            true => Current {
                epoch: member.epoch,
                previous_epoch: member.epoch,
                state: MemberState::Unrevoked,
                assigned: kept,
                revoking,
            },
            false => Current {
                previous_epoch: member.epoch,
                assigned: kept,
                ..member.clone()
            },
        }
    }

    fn next(&self, member: &Current) -> Current {
        let (mut kept, mut revoking) = (Held::new(), Held::new());
        for (topic, partitions) in &member.assigned {
            let target = self.target_of(*topic);
            for (index, epoch) in partitions {
                let stays = target.is_some_and(|target| target.contains(index));
                let to = if stays { &mut kept } else { &mut revoking };
                to.entry(*topic).or_default().insert(*index, *epoch);
            }
        }
        if !revoking.is_empty() && self.still_owns(&revoking) {
            return Current {
                epoch: member.epoch,
                previous_epoch: member.epoch,
                state: MemberState::Unrevoked,
                assigned: kept,
                revoking,
            };
        }
        let mut waits = false;
        let mut assigned = kept;
        for (topic, partitions) in self.target {
            let Some(partitions) = self.target_of(*topic).map(|_| partitions) else {
                continue;
            };
            for index in partitions {
                let has = assigned.get(topic).is_some_and(|p| p.contains_key(index));
                if has {
                    continue;
                }
                if (self.held_beside)(*topic, *index) {
                    waits = true;
                } else {
                    let of_topic = assigned.entry(*topic).or_default();
                    of_topic.insert(*index, self.epoch);
                }
            }
        }
        Current {
            epoch: self.epoch,
            previous_epoch: member.epoch,
            state: match waits {
                true => MemberState::Unreleased,
                false => MemberState::Stable,
            },
            assigned,
            revoking: Held::new(),
        }
    }

    /// What is not wanted any more is no target.
    fn target_of(&self, topic: TopicId) -> Option<&BTreeSet<i32>> {
        let target = self.target.get(&topic);
        target.filter(|_| self.subscribed.contains(&topic))
    }
}
