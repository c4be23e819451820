//! Owns the ways out of a group: members that leave, are silent for too long, or do not give up what they have to.
//! Does not know logs: it gives records.
//! Invariant: whoever goes takes all it holds along, and the group's epoch says that it went.

use super::group::{ConsumerGroup, Member};
use super::plan::{Around, Plan};
use super::records::{Current, Held, MemberState, Record};
use super::types::{ConsumerConfig, ConsumerHeartbeat, LEAVING_STATIC_EPOCH};
use crate::coord::types::GroupError;

/// What members that never said how long they take to rebalance are given.
const REBALANCE_MS_DEFAULT: u64 = 300_000;

impl Member {
    pub fn rebalance_ms(&self) -> u64 {
        u64::try_from(self.value.rebalance_timeout_ms).unwrap_or(REBALANCE_MS_DEFAULT)
    }

    fn session_ms(&self, config: &ConsumerConfig) -> u64 {
        let session_ms = match &self.value.classic {
            Some(classic) => classic.session_timeout_ms,
            None => config.session_timeout_ms,
        };
        session_ms.max(0) as u64
    }
}

impl ConsumerGroup {
    /// The member that a heartbeat takes leave of.
    ///
    /// # Errors
    /// There is none, or another one has its instance id.
    pub fn leaver(&self, asked: &ConsumerHeartbeat) -> Result<String, GroupError> {
        match &asked.instance {
            None => match self.members.contains_key(&asked.member) {
                true => Ok(asked.member.clone()),
                false => Err(GroupError::UnknownMemberId),
            },
            Some(instance) => match self.instances.get(instance) {
                None => Err(GroupError::UnknownMemberId),
                Some(other) if *other != asked.member => Err(GroupError::FencedInstanceId),
                Some(own) => Ok(own.clone()),
            },
        }
    }

    /// A static member keeps its place for the rest of its session.
    pub fn leave_for_a_while(&self, id: &str) -> Vec<Record> {
        let current = Current {
            epoch: LEAVING_STATIC_EPOCH,
            revoking: Held::new(),
            ..self.members[id].current.clone()
        };
        vec![Record::Current(id.to_string(), Some(current))]
    }

    /// Takes members out; the rest gets a new target when one of them is heard of.
    pub fn without(&self, ids: &[String], around: &Around) -> Vec<Record> {
        let mut plan = Plan::new(self);
        ids.iter().for_each(|id| plan.remove(id));
        plan.drop_unused_regexes();
        let hash = plan.metadata_hash(around.topics);
        plan.bump(hash);
        plan.records
    }

    // Time -----------------------------------------------------------------------------------------------------------

    /// A member has been heard of; where it has moved, the time to give up what it has to begins anew.
    pub fn heard_of(&mut self, id: &str, moved: bool, now_ms: u64, config: &ConsumerConfig) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        member.timers.session_ms = Some(now_ms + member.session_ms(config));
        let until_ms = now_ms + member.rebalance_ms();
        let epoch = member.current.epoch;
        match member.current.state {
            MemberState::Unrevoked if moved => member.timers.revoke = Some((until_ms, epoch)),
            MemberState::Unrevoked => {}
            MemberState::Stable | MemberState::Unreleased | MemberState::Unknown => {
                member.timers.revoke = None;
            }
        }
    }

    /// Members whose time is up.
    pub fn overdue(&self, now_ms: u64) -> Vec<String> {
        let is_due = |at: Option<u64>| at.is_some_and(|at_ms| at_ms <= now_ms);
        let is_over = |member: &Member| {
            let timers = &member.timers;
            let revoke = timers
                .revoke
                .filter(|(_, epoch)| *epoch == member.current.epoch);
            is_due(timers.session_ms)
                || is_due(timers.join_ms)
                || is_due(timers.sync_ms)
                || is_due(revoke.map(|(at_ms, _)| at_ms))
        };
        let all = self.members.iter();
        all.filter(|(_, member)| is_over(member))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Whatever is due by now waits for so long.
    pub fn put_off(&mut self, now_ms: u64, by_ms: u64) {
        for member in self.members.values_mut() {
            let timers = &mut member.timers;
            let put_off = |at: &mut Option<u64>| {
                if let Some(at_ms) = at {
                    *at_ms = (*at_ms).max(now_ms + by_ms);
                }
            };
            let was_due = timers.next_ms().is_some_and(|at_ms| at_ms <= now_ms);
            if !was_due {
                continue;
            }
            // One that was for an epoch before does nothing any more.
            timers.revoke = timers
                .revoke
                .filter(|(_, epoch)| *epoch == member.current.epoch)
                .map(|(at_ms, epoch)| (at_ms.max(now_ms + by_ms), epoch));
            put_off(&mut timers.session_ms);
            put_off(&mut timers.join_ms);
            put_off(&mut timers.sync_ms);
        }
    }
}
