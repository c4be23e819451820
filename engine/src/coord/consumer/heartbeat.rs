//! Owns what a heartbeat of a member does: it joins, comes back, says what it holds, gets one step on.
//! Does not know logs: it gives records, and the answer that holds once they are written.
//! Invariant: a heartbeat that is refused changes nothing.

use super::group::{ConsumerGroup, Member};
use super::plan::{Around, Entrant, Plan};
use super::reconcile::Towards;
use super::records::{Current, MemberState, MemberValue, Record};
use super::subscription;
use super::types::{
    Assignment, ConsumerBeat, ConsumerHeartbeat, JOINING_EPOCH, LEAVING_STATIC_EPOCH,
};
use crate::coord::types::GroupError;
use crate::types::limits::{GROUP_MEMBERS_MAX, GROUP_REGEXES_MAX};
use crate::types::TopicId;

/// How often regular expressions are matched anew, at the most.
const REGEXES_EVERY_MS: u64 = 1_000;

/// What a step of a member comes to.
pub struct Step {
    pub records: Vec<Record>,
    pub current: Current,
    pub assignment_changed: bool,
    /// Version of the topics that the group is in line with.
    pub seen_topics: u64,
    pub regexes_at_ms: u64,
}

impl Step {
    /// Whether the member is another than before.
    pub fn moved(&self) -> bool {
        let is_current = |record: &Record| matches!(record, Record::Current(..));
        self.records.iter().any(is_current)
    }
}

/// A member as it is before a step.
pub struct Admitted {
    pub value: MemberValue,
    pub current: Current,
    pub target: Assignment,
    pub is_new: bool,
    /// The static member whose place it takes.
    pub replaces: Option<String>,
}

impl Admitted {
    pub fn new_member() -> Admitted {
        Admitted {
            value: MemberValue {
                rebalance_timeout_ms: -1,
                ..MemberValue::default()
            },
            current: Current::default(),
            target: Assignment::new(),
            is_new: true,
            replaces: None,
        }
    }

    pub fn known(member: &Member) -> Admitted {
        Admitted {
            value: member.value.clone(),
            current: member.current.clone(),
            target: member.target.clone(),
            is_new: false,
            replaces: None,
        }
    }

    /// The place of a static member, for another one of its instance id.
    pub fn in_place_of(id: &str, member: &Member) -> Admitted {
        Admitted {
            current: Current {
                epoch: 0,
                previous_epoch: 0,
                ..member.current.clone()
            },
            replaces: Some(id.to_string()),
            ..Admitted::known(member)
        }
    }
}

/// What a member holds by its own account.
pub type Owned<'a> = Option<&'a [(TopicId, Vec<i32>)]>;

impl ConsumerGroup {
    /// One heartbeat of a member that does not leave; `id` is the one it has, or will have.
    ///
    /// # Errors
    /// The member is refused.
    pub fn heartbeat(
        &self,
        id: &str,
        asked: &ConsumerHeartbeat,
        around: &Around,
    ) -> Result<(Step, ConsumerBeat), GroupError> {
        let admitted = self.admit(id, asked, around)?;
        let mut value = admitted.value.clone();
        let set = |to: &mut Option<String>, said: &Option<String>| {
            if said.is_some() {
                to.clone_from(said);
            }
        };
        set(&mut value.instance, &asked.instance);
        set(&mut value.rack, &asked.rack);
        set(&mut value.assignor, &asked.assignor);
        set(&mut value.regex, &asked.regex);
        value.regex = value.regex.filter(|text| !text.is_empty());
        if let Some(topics) = &asked.topics {
            value.topics = topics.iter().cloned().collect();
        }
        if asked.rebalance_timeout_ms != -1 {
            value.rebalance_timeout_ms = asked.rebalance_timeout_ms;
        }
        value.client_id.clone_from(&asked.client_id);
        value.client_host.clone_from(&asked.client_host);
        value.classic = None;
        let step = self.step(id, admitted, value, asked.owned.as_deref(), around)?;
        let is_full = asked.epoch == JOINING_EPOCH
            || (asked.rebalance_timeout_ms != -1
                && (asked.topics.is_some() || asked.regex.is_some())
                && asked.owned.is_some());
        let assigned = step.current.assigned.iter();
        let assignment = assigned.map(|(topic, p)| (*topic, p.keys().copied().collect()));
        let beat = ConsumerBeat {
            member: id.to_string(),
            epoch: step.current.epoch,
            heartbeat_interval_ms: around.config.heartbeat_interval_ms,
            assignment: (is_full || step.assignment_changed).then(|| assignment.collect()),
        };
        Ok((step, beat))
    }

    /// Who it is, and whether it may be that.
    fn admit(
        &self,
        id: &str,
        asked: &ConsumerHeartbeat,
        around: &Around,
    ) -> Result<Admitted, GroupError> {
        let joins = asked.epoch == JOINING_EPOCH;
        let known = self.members.get(id);
        let instance = asked.instance.as_ref();
        let of_instance = instance.and_then(|instance| self.instances.get(instance));
        match (instance, of_instance, known) {
            (Some(_), Some(other), _) if other != id && joins => {
                let member = &self.members[other];
                // One that speaks the classic protocol never says that it leaves for a while.
                if !member.is_classic() && member.current.epoch != LEAVING_STATIC_EPOCH {
                    return Err(GroupError::UnreleasedInstanceId);
                }
                Ok(Admitted::in_place_of(other, member))
            }
            (Some(_), Some(other), _) if other != id => Err(GroupError::FencedInstanceId),
            (Some(_), None, _) | (None, _, None) if !joins => Err(GroupError::UnknownMemberId),
            (_, _, Some(member)) => {
                check_epoch(member, asked.epoch, asked.owned.as_deref())?;
                Ok(Admitted::known(member))
            }
            (_, _, None) => {
                let members_max = around.config.members_max.min(GROUP_MEMBERS_MAX);
                match self.members.len() < members_max {
                    true => Ok(Admitted::new_member()),
                    false => Err(GroupError::GroupMaxSizeReached),
                }
            }
        }
    }

    /// A member with what it wants from now on, one step towards its target; that is a new one where anything calls for it.
    pub fn step(
        &self,
        id: &str,
        admitted: Admitted,
        value: MemberValue,
        owned: Owned,
        around: &Around,
    ) -> Result<Step, GroupError> {
        let Admitted {
            value: before,
            current,
            target,
            is_new,
            replaces,
        } = admitted;
        let mut plan = Plan::new(self);
        if let Some(old) = &replaces {
            plan.remove(old);
        }
        let subscribes = is_new || value.topics != before.topics || value.regex != before.regex;
        if is_new || replaces.is_some() || value != before {
            let record = Record::Member(id.to_string(), Some(value.clone()));
            plan.records.push(record);
        }
        if replaces.is_some() {
            let (id, target) = (id.to_string(), target.clone());
            plan.records
                .push(Record::Current(id.clone(), Some(current.clone())));
            plan.records.push(Record::Target(id, Some(target)));
        }
        plan.with = Some(Entrant {
            id: id.to_string(),
            value: value.clone(),
            target: target.clone(),
        });

        let stale = around.topics.version() != self.seen_topics;
        let mut step = Step {
            records: Vec::new(),
            current,
            assignment_changed: false,
            seen_topics: self.seen_topics,
            regexes_at_ms: self.regexes_at_ms,
        };
        match_regexes(&mut plan, &value, subscribes, stale, around, &mut step)?;
        let mut epoch = self.epoch;
        if subscribes || stale {
            let hash = plan.metadata_hash(around.topics);
            if subscribes || hash != self.metadata_hash {
                epoch = plan.bump(hash);
            }
        }
        let (target_epoch, target) = match epoch > self.target_epoch {
            true => (epoch, plan.retarget(epoch, around)),
            false => (self.target_epoch, target),
        };
        let is_there = step.current.state == MemberState::Stable
            && step.current.epoch == target_epoch
            && !subscribes
            && !stale;
        if !is_there {
            let own = step.current.clone();
            let towards = Towards {
                epoch: target_epoch,
                target: &target,
                subscribed: &plan.wanted(&value, around.topics),
                owned,
                held_beside: &|topic, index| self.is_held_beside(&own, topic, index),
            };
            let next = towards.step(&own);
            if next != own {
                step.assignment_changed = next.assigned != own.assigned;
                let record = Record::Current(id.to_string(), Some(next.clone()));
                plan.records.push(record);
                step.current = next;
            }
        }
        step.records = plan.records;
        Ok(step)
    }
}

/// A member that says an epoch before its own has missed the answer to its last heartbeat, or begins anew with nothing.
fn check_epoch(member: &Member, epoch: i32, owned: Owned) -> Result<(), GroupError> {
    let current = &member.current;
    let is_part = || {
        let all = owned.unwrap_or_default().iter();
        owned.is_some()
            && all
                .flat_map(|(t, p)| p.iter().map(move |i| (t, i)))
                .all(|(topic, index)| {
                    let assigned = current.assigned.get(topic);
                    assigned.is_some_and(|p| p.contains_key(index))
                })
    };
    let begins = epoch == JOINING_EPOCH && owned.is_some_and(<[_]>::is_empty);
    let missed = epoch < current.epoch && epoch == current.previous_epoch && is_part();
    match epoch == current.epoch || begins || missed {
        true => Ok(()),
        false => Err(GroupError::FencedMemberEpoch),
    }
}

/// Matches what is new, and all of it where topics changed and the last time was long enough ago.
fn match_regexes(
    plan: &mut Plan,
    value: &MemberValue,
    subscribes: bool,
    stale: bool,
    around: &Around,
    step: &mut Step,
) -> Result<(), GroupError> {
    let group = plan.group;
    if subscribes {
        plan.drop_unused_regexes();
        if let Some(text) = &value.regex {
            if plan.regex(text).is_none() {
                if group.regexes.len() >= GROUP_REGEXES_MAX {
                    return Err(GroupError::InvalidRegularExpression);
                }
                let resolved = subscription::resolve(text, around.topics, around.wall_ms)?;
                plan.set_regex(text, resolved);
            }
        }
    }
    if !stale {
        return Ok(());
    }
    if group.regexes.is_empty() {
        step.seen_topics = around.topics.version();
    } else if around.now_ms >= group.regexes_at_ms {
        step.seen_topics = around.topics.version();
        step.regexes_at_ms = around.now_ms + REGEXES_EVERY_MS;
        for (text, before) in &group.regexes {
            let resolved = subscription::resolve(text, around.topics, around.wall_ms);
            // What somebody else took for one stays as it is.
            let Ok(resolved) = resolved else { continue };
            if plan.regex(text).is_some() && resolved.topics != before.topics {
                plan.set_regex(text, resolved);
            }
        }
    }
    Ok(())
}
