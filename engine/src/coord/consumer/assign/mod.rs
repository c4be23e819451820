//! Owns the assignors: who of the members should have which partition.
//! Does not know who has what at the moment, nor how members get there.
//! Invariant: every partition of a topic that somebody wants goes to exactly one member that wants it.

mod range;
mod uniform;

#[cfg(test)]
mod tests;

use super::types::{Assignment, Assignor};
use crate::types::TopicId;
use std::collections::{BTreeMap, BTreeSet};

/// A member as assignors see it.
#[derive(Clone, Debug)]
pub struct Wish {
    pub member: String,
    pub instance: Option<String>,
    /// Only topics that there are.
    pub topics: BTreeSet<TopicId>,
    /// Its target before.
    pub before: Assignment,
}

/// The targets, in the order of the members. `partitions` says how many each topic has.
pub fn assign(
    assignor: Assignor,
    members: &[Wish],
    partitions: &BTreeMap<TopicId, i32>,
) -> Vec<Assignment> {
    match assignor {
        Assignor::Uniform => uniform::assign(members, partitions),
        Assignor::Range => range::assign(members, partitions),
    }
}
