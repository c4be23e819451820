//! Owns who of a group may commit and fetch offsets, and which topics its offsets are in use for.
//! Does not know offsets.
//! Invariant: a member commits for what it holds only, also where it has not heard of its newest epoch yet.

use super::group::{ConsumerGroup, Member};
use super::subscription::names;
use crate::coord::types::{GroupError, MemberOf, OffsetToCommit};
use std::collections::BTreeSet;

impl ConsumerGroup {
    /// # Errors
    /// The one who commits is no member, or of another epoch.
    pub fn may_commit(&self, by: &MemberOf, offsets: &[OffsetToCommit]) -> Result<(), GroupError> {
        if by.generation < 0 && self.members.is_empty() {
            // Somebody who uses the group's name for offsets only.
            return Ok(());
        }
        let member = self.members.get(&by.member);
        let member = member.ok_or(GroupError::UnknownMemberId)?;
        let epoch = member.current.epoch;
        if by.generation == epoch {
            return Ok(());
        }
        if member.is_classic() {
            return Err(GroupError::IllegalGeneration);
        }
        let may = |offset: &OffsetToCommit| held_since(member, offset) <= Some(by.generation);
        let holds = |offset: &OffsetToCommit| held_since(member, offset).is_some();
        match by.generation < epoch && offsets.iter().all(|o| holds(o) && may(o)) {
            true => Ok(()),
            false => Err(GroupError::StaleMemberEpoch),
        }
    }

    /// # Errors
    /// Who asks says that it is a member, and is none, or of another epoch.
    pub fn may_fetch(&self, member: Option<&str>, epoch: i32) -> Result<(), GroupError> {
        if member.is_none() && epoch < 0 {
            return Ok(());
        }
        let member = self.members.get(member.unwrap_or_default());
        let member = member.ok_or(GroupError::UnknownMemberId)?;
        match epoch == member.current.epoch {
            true => Ok(()),
            false if member.is_classic() => Err(GroupError::IllegalGeneration),
            false => Err(GroupError::StaleMemberEpoch),
        }
    }

    /// The topics that members want.
    pub fn subscribed(&self) -> BTreeSet<String> {
        let members = self.members.values();
        members
            .flat_map(|member| names(&member.value, |text| self.regexes.get(text)))
            .map(str::to_string)
            .collect()
    }
}

/// The epoch in which a member got a partition; None where it does not hold it.
fn held_since(member: &Member, offset: &OffsetToCommit) -> Option<i32> {
    [&member.current.assigned, &member.current.revoking]
        .into_iter()
        .filter_map(|held| held.get(&offset.topic_id)?.get(&offset.partition))
        .copied()
        .next()
}
