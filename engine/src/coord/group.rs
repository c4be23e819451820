//! Owns one classic group: its members, its state and the ends of its phases.
//! Does not know other groups, clocks, or how what it writes is kept.
//! Invariant: a member that waits for an answer gets exactly one, also where it is removed or the group starts over.

use super::batch::KeyValue;
use super::consumer::ConsumerGroup;
use super::coordinator::{Ctx, GroupConfig, Reply, Token};
use super::pending::Offsets;
use super::records::{subscribed_topics, GroupValue, Key, MemberValue};
use super::types::{DescribedGroup, DescribedMember};
use super::types::{GroupError, GroupState, Joined, JoinedMember, Synced};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// The type of groups whose members are consumers: what they subscribe to can be read.
pub const CONSUMER: &str = "consumer";

#[derive(Clone, Debug)]
pub struct Member {
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_ms: u64,
    pub rebalance_ms: u64,
    pub protocols: Vec<(String, Bytes)>,
    pub assignment: Bytes,
    /// Has not been in a generation yet.
    pub is_new: bool,
    /// When it is taken for gone, in milliseconds of the monotonic clock.
    pub deadline_ms: u64,
    pub joining: Option<Token>,
    pub syncing: Option<Token>,
}

impl Member {
    pub fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    pub fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map(|(_, bytes)| bytes.clone()).unwrap_or_default()
    }

    /// One that waits for the others is alive: it cannot send anything else meanwhile.
    pub fn is_waiting(&self) -> bool {
        !self.is_new && (self.joining.is_some() || self.syncing.is_some())
    }

    pub fn bytes(&self) -> usize {
        let protocols: usize = self.protocols.iter().map(|(n, b)| n.len() + b.len()).sum();
        size_of::<Member>() + self.client_id.len() + protocols + self.assignment.len()
    }
}

/// The first rebalance of an empty group waits for more members than the first.
#[derive(Clone, Copy, Debug)]
pub struct Initial {
    /// How much longer it may wait.
    pub left_ms: u64,
    pub joined_meanwhile: bool,
}

#[derive(Debug)]
pub struct Group {
    pub id: String,
    pub state: GroupState,
    pub generation: i32,
    /// None: only offsets so far.
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    pub members: BTreeMap<String, Member>,
    /// Static members: instance id to member id.
    pub instances: BTreeMap<String, String>,
    /// Ids that were given out and have not joined yet, with the end of waiting for them.
    pub pending: BTreeMap<String, u64>,
    /// Members of this generation that have not asked for their assignment.
    pub unsynced: BTreeSet<String>,
    pub join_deadline_ms: Option<u64>,
    pub initial: Option<Initial>,
    pub sync_deadline_ms: Option<u64>,
    /// Wall-clock milliseconds of the last change of state.
    pub state_ms: i64,
    /// By topic and partition.
    pub offsets: Offsets,
    /// Committed in transactions that are not over, by producer id.
    pub pending_offsets: BTreeMap<i64, Offsets>,
    /// What they take, in bytes.
    pub offset_bytes: usize,
    /// What the log says of the group itself: while members come and go, the generation before.
    pub kept: Option<GroupValue>,
    /// The group is one of the consumer protocol, and nothing but offsets is in the fields above.
    pub consumer: Option<Box<ConsumerGroup>>,
}

impl Group {
    pub fn new(id: String, wall_ms: i64) -> Group {
        Group {
            id,
            state: GroupState::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            join_deadline_ms: None,
            initial: None,
            sync_deadline_ms: None,
            state_ms: wall_ms,
            offsets: BTreeMap::new(),
            pending_offsets: BTreeMap::new(),
            offset_bytes: 0,
            kept: None,
            consumer: None,
        }
    }

    /// Nothing of it is worth keeping, and nothing of it is in the log.
    pub fn is_nothing(&self) -> bool {
        self.state == GroupState::Empty
            && self.members.is_empty()
            && self.pending.is_empty()
            && self.offsets.is_empty()
            && self.pending_offsets.is_empty()
            && self.kept.is_none()
            && self.consumer.is_none()
    }

    /// About what it takes of the memory.
    pub fn bytes(&self) -> usize {
        let members: usize = self.members.values().map(Member::bytes).sum();
        let pending: usize = self.pending.keys().map(|id| id.len() + 32).sum();
        let consumer = self.consumer.as_ref().map_or(0, |group| group.bytes());
        size_of::<Group>() + self.id.len() + members + pending + self.offset_bytes + consumer
    }

    pub fn set_state(&mut self, state: GroupState, wall_ms: i64) {
        self.state = state;
        self.state_ms = wall_ms;
    }

    // Protocols ------------------------------------------------------------------------------------------------------

    /// Whether a member with these protocols can be in the group beside all who are.
    pub fn fits(&self, protocol_type: &str, protocols: &[(String, Bytes)]) -> bool {
        if self.members.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|(name, _)| self.all_support(name))
    }

    fn all_support(&self, protocol: &str) -> bool {
        self.members.values().all(|m| m.supports(protocol))
    }

    /// The protocol that most members like best among those that all have; None where there is none.
    pub fn choose_protocol(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        let first = self.members.values().next()?;
        let common: BTreeSet<&str> = first
            .protocols
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| self.all_support(name))
            .collect();
        for member in self.members.values() {
            let mut liked = member.protocols.iter().map(|(name, _)| name.as_str());
            if let Some(best) = liked.find(|name| common.contains(name)) {
                *votes.entry(best).or_default() += 1;
            }
        }
        let most = votes.iter().max_by_key(|(_, count)| **count);
        most.map(|(name, _)| name.to_string())
    }

    /// What the members of a group of consumers read; None where that is not known.
    pub fn subscribed(&self) -> Option<BTreeSet<String>> {
        if let Some(consumer) = &self.consumer {
            return Some(consumer.subscribed());
        }
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return None;
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscribed_topics(&member.metadata(protocol))?);
        }
        Some(topics)
    }

    // Members --------------------------------------------------------------------------------------------------------

    pub fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    /// That the group has the member, under the instance id it says it has.
    pub fn check_member(&self, member: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.instances.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                Some(known) if known != member => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        match self.members.contains_key(member) {
            true => Ok(()),
            false => Err(GroupError::UnknownMemberId),
        }
    }

    pub fn add_member(&mut self, id: String, member: Member, protocol_type: &str) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.to_string());
        }
        if let Some(instance) = &member.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.members.insert(id, member);
    }

    /// Takes a member out; who of it waits is told why.
    pub fn remove_member(&mut self, id: &str, why: GroupError, ctx: &mut Ctx) {
        let Some(member) = self.members.remove(id) else {
            return;
        };
        answer_removed(id, &member, why, ctx);
        if let Some(instance) = &member.instance {
            self.instances.remove(instance);
        }
        self.unsynced.remove(id);
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// A static member came back under another id: the new one takes the old one's place.
    pub fn replace_member(&mut self, old: &str, new: &str, ctx: &mut Ctx) {
        let mut member = self.members.remove(old).expect("a static member is known");
        answer_removed(old, &member, GroupError::FencedInstanceId, ctx);
        (member.joining, member.syncing) = (None, None);
        if let Some(instance) = &member.instance {
            self.instances.insert(instance.clone(), new.to_string());
        }
        if self.unsynced.remove(old) {
            self.unsynced.insert(new.to_string());
        }
        if self.is_leader(old) {
            self.leader = Some(new.to_string());
        }
        self.members.insert(new.to_string(), member);
    }

    /// Undoes that: the new id is nobody's.
    pub fn restore_member(&mut self, old: &str, new: &str, before: Member) {
        self.members.remove(new).expect("it has just come back");
        if let Some(instance) = &before.instance {
            self.instances.insert(instance.clone(), old.to_string());
        }
        if self.unsynced.remove(new) {
            self.unsynced.insert(old.to_string());
        }
        if self.is_leader(new) {
            self.leader = Some(old.to_string());
        }
        self.members.insert(old.to_string(), before);
    }

    pub fn touch(&mut self, member: &str, now_ms: u64) {
        if let Some(member) = self.members.get_mut(member) {
            member.deadline_ms = now_ms + member.session_ms;
        }
    }

    fn rebalance_ms_max(&self) -> u64 {
        let all = self.members.values().map(|m| m.rebalance_ms);
        all.max().unwrap_or(0)
    }

    // Phases ---------------------------------------------------------------------------------------------------------

    /// Has everybody join anew, unless that is under way; and ends it where all are there.
    pub fn rebalance(&mut self, ctx: &mut Ctx, config: &GroupConfig) {
        if self.state != GroupState::PreparingRebalance {
            self.prepare(ctx, config);
        }
        self.complete_join_if_all_came(ctx);
    }

    fn prepare(&mut self, ctx: &mut Ctx, config: &GroupConfig) {
        self.fail_syncs(GroupError::RebalanceInProgress, ctx);
        let wait_ms = if self.state == GroupState::Empty {
            let delay_ms = config.initial_rebalance_delay_ms;
            self.initial = Some(Initial {
                left_ms: self.rebalance_ms_max().saturating_sub(delay_ms),
                joined_meanwhile: false,
            });
            delay_ms
        } else {
            self.rebalance_ms_max()
        };
        self.join_deadline_ms = Some(ctx.now_ms + wait_ms);
        self.set_state(GroupState::PreparingRebalance, ctx.wall_ms);
        if wait_ms == 0 {
            self.join_time_is_up(ctx, config);
        }
    }

    /// Nobody gets an assignment of this generation any more.
    fn fail_syncs(&mut self, why: GroupError, ctx: &mut Ctx) {
        self.unsynced.clear();
        self.sync_deadline_ms = None;
        if self.state != GroupState::CompletingRebalance {
            return;
        }
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
            if let Some(token) = member.syncing.take() {
                ctx.replies.push((token, Reply::Synced(Err(why))));
                member.deadline_ms = ctx.now_ms + member.session_ms;
            }
        }
    }

    pub fn complete_join_if_all_came(&mut self, ctx: &mut Ctx) {
        let all = self.members.values().all(|m| m.joining.is_some());
        if self.state == GroupState::PreparingRebalance
            && self.initial.is_none()
            && self.pending.is_empty()
            && all
        {
            self.complete_join(ctx);
        }
    }

    /// The wait for members is over, or begins anew where more came meanwhile than the first.
    pub fn join_time_is_up(&mut self, ctx: &mut Ctx, config: &GroupConfig) {
        match &mut self.initial {
            Some(initial) if initial.joined_meanwhile && initial.left_ms > 0 => {
                let wait_ms = config.initial_rebalance_delay_ms.min(initial.left_ms);
                initial.left_ms -= wait_ms;
                initial.joined_meanwhile = false;
                self.join_deadline_ms = Some(ctx.now_ms + wait_ms);
            }
            Some(_) | None => self.complete_join(ctx),
        }
    }

    fn complete_join(&mut self, ctx: &mut Ctx) {
        self.initial = None;
        self.join_deadline_ms = None;
        // Static members keep their place until their session ends.
        let missing = |m: &Member| m.joining.is_none() && m.instance.is_none();
        let gone: Vec<String> = self
            .members
            .iter()
            .filter(|(_, m)| missing(m))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.remove_member(&id, GroupError::UnknownMemberId, ctx);
        }
        if self.members.is_empty() {
            return self.become_empty(ctx);
        }
        let joined = |id: &String| self.members.get(id).is_some_and(|m| m.joining.is_some());
        if !self.leader.as_ref().is_some_and(joined) {
            match self.members.iter().find(|(_, m)| m.joining.is_some()) {
                Some((id, _)) => self.leader = Some(id.clone()),
                None => {
                    // Only static members, and none has come back: they get as long again.
                    self.join_deadline_ms = Some(ctx.now_ms + self.rebalance_ms_max().max(1));
                    return;
                }
            }
        }
        self.generation = next_generation(self.generation);
        self.protocol = self.choose_protocol();
        self.set_state(GroupState::CompletingRebalance, ctx.wall_ms);
        self.unsynced = self.members.keys().cloned().collect();
        self.sync_deadline_ms = Some(ctx.now_ms + self.rebalance_ms_max());
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id);
            let member = self.members.get_mut(&id).expect("it was listed");
            if let Some(token) = member.joining.take() {
                ctx.replies.push((token, Reply::Joined(joined)));
                member.is_new = false;
                member.deadline_ms = ctx.now_ms + member.session_ms;
            }
        }
    }

    fn become_empty(&mut self, ctx: &mut Ctx) {
        self.generation = next_generation(self.generation);
        self.set_state(GroupState::Empty, ctx.wall_ms);
        (self.protocol, self.leader) = (None, None);
        // Never had an assignment: nothing to take back.
        if self.kept.is_none() {
            return;
        }
        let value = self.value(&BTreeMap::new());
        match ctx.log.append(&[self.record(&value)]) {
            Ok(()) => self.kept = Some(value),
            // After a restart its last members are taken for alive, and time out once more.
            Err(error) => {
                tracing::warn!(group = self.id, %error, "cannot note that a group has no members any more");
            }
        }
    }

    /// The current generation as a member of it learns of it.
    pub fn joined(&self, member: &str) -> Joined {
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = if self.is_leader(member) {
            self.members
                .iter()
                .map(|(id, m)| JoinedMember {
                    member: id.clone(),
                    instance: m.instance.clone(),
                    metadata: m.metadata(&protocol),
                })
                .collect()
        } else {
            Vec::new()
        };
        Joined {
            error: None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member: member.to_string(),
            members,
        }
    }

    pub fn synced(&self, member: &str) -> Synced {
        let assignment = self.members.get(member).map(|m| m.assignment.clone());
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: assignment.unwrap_or_default(),
        }
    }

    /// The leader's assignment for everybody: kept, then handed out; or, where it cannot be kept, joined anew.
    pub fn assign(
        &mut self,
        assignments: &BTreeMap<String, Bytes>,
        ctx: &mut Ctx,
        config: &GroupConfig,
    ) {
        assert_eq!(self.state, GroupState::CompletingRebalance);
        let value = self.value(assignments);
        if let Err(error) = ctx.log.append(&[self.record(&value)]) {
            self.fail_syncs(error, ctx);
            return self.rebalance(ctx, config);
        }
        self.apply(value, ctx.now_ms, true);
        let waiting: Vec<(String, Token)> = self
            .members
            .iter_mut()
            .filter_map(|(id, m)| Some((id.clone(), m.syncing.take()?)))
            .collect();
        for (id, token) in waiting {
            self.touch(&id, ctx.now_ms);
            ctx.replies
                .push((token, Reply::Synced(Ok(self.synced(&id)))));
        }
    }

    // What is kept ---------------------------------------------------------------------------------------------------

    pub fn record(&self, value: &GroupValue) -> KeyValue {
        let group = self.id.clone();
        KeyValue {
            key: Key::Group { group }.encode(),
            value: Some(value.encode()),
        }
    }

    /// The group with these assignments, as it is kept.
    pub fn value(&self, assignments: &BTreeMap<String, Bytes>) -> GroupValue {
        let protocol = self.protocol.clone().unwrap_or_default();
        let member = |(id, m): (&String, &Member)| MemberValue {
            member: id.clone(),
            instance: m.instance.clone(),
            client_id: m.client_id.clone(),
            client_host: m.client_host.clone(),
            rebalance_timeout_ms: clamped(m.rebalance_ms),
            session_timeout_ms: clamped(m.session_ms),
            subscription: m.metadata(&protocol),
            assignment: assignments.get(id).cloned().unwrap_or_default(),
        };
        GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_ms: self.state_ms,
            members: self.members.iter().map(member).collect(),
        }
    }

    /// Takes what a record says. Live, members keep what they wait for and all protocols they brought; on recovery the
    /// record is all that is known of them.
    pub fn apply(&mut self, value: GroupValue, now_ms: u64, live: bool) {
        self.kept = Some(value.clone());
        self.generation = value.generation;
        self.protocol_type = Some(value.protocol_type).filter(|name| !name.is_empty());
        self.leader = value.leader;
        self.state_ms = value.state_ms;
        self.state = match value.members.is_empty() {
            true => GroupState::Empty,
            false => GroupState::Stable,
        };
        let mut known = std::mem::take(&mut self.members);
        known.retain(|_, _| live);
        self.instances.clear();
        for stored in value.members {
            let protocol = value.protocol.clone().unwrap_or_default();
            let session_ms = stored.session_timeout_ms.max(0) as u64;
            let mut member = known.remove(&stored.member).unwrap_or_else(|| Member {
                instance: stored.instance,
                client_id: stored.client_id,
                client_host: stored.client_host,
                session_ms,
                rebalance_ms: stored.rebalance_timeout_ms.max(0) as u64,
                protocols: vec![(protocol, stored.subscription)],
                assignment: Bytes::new(),
                is_new: false,
                deadline_ms: now_ms + session_ms,
                joining: None,
                syncing: None,
            });
            member.assignment = stored.assignment;
            if let Some(instance) = &member.instance {
                self.instances
                    .insert(instance.clone(), stored.member.clone());
            }
            self.members.insert(stored.member, member);
        }
        assert!(
            known.is_empty(),
            "a member is not lost by keeping the group"
        );
        self.protocol = value.protocol;
    }

    pub fn described(&self) -> DescribedGroup {
        let stable = self.state == GroupState::Stable;
        let protocol = self.protocol.clone().filter(|_| stable).unwrap_or_default();
        let member = |(id, m): (&String, &Member)| DescribedMember {
            member: id.clone(),
            instance: m.instance.clone(),
            client_id: m.client_id.clone(),
            client_host: m.client_host.clone(),
            metadata: if stable {
                m.metadata(&protocol)
            } else {
                Bytes::new()
            },
            assignment: if stable {
                m.assignment.clone()
            } else {
                Bytes::new()
            },
        };
        DescribedGroup {
            state: self.state,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: self.members.iter().map(member).collect(),
            protocol,
        }
    }

    // Time -----------------------------------------------------------------------------------------------------------

    /// When something of the group is due next.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let members = self.members.values().filter(|m| !m.is_waiting());
        let sessions = members.map(|m| m.deadline_ms);
        let pending = self.pending.values().copied();
        let phases = self
            .join_deadline_ms
            .into_iter()
            .chain(self.sync_deadline_ms);
        let consumer = self.consumer.iter().filter_map(|g| g.next_deadline_ms());
        sessions.chain(pending).chain(phases).chain(consumer).min()
    }

    /// Does what is due.
    pub fn tick(&mut self, ctx: &mut Ctx, config: &GroupConfig) {
        if self.consumer.is_some() {
            return self.tick_consumer(ctx, config);
        }
        let now_ms = ctx.now_ms;
        let due = |deadline: &u64| *deadline <= now_ms;
        let silent: Vec<String> = self
            .members
            .iter()
            .filter(|(_, m)| !m.is_waiting() && due(&m.deadline_ms))
            .map(|(id, _)| id.clone())
            .collect();
        self.pending.retain(|_, deadline| *deadline > ctx.now_ms);
        let mut rebalance = !silent.is_empty();
        for id in silent {
            tracing::info!(
                group = self.id,
                member = id,
                "a member has not been heard of"
            );
            self.remove_member(&id, GroupError::UnknownMemberId, ctx);
        }
        if self.sync_deadline_ms.as_ref().is_some_and(due) {
            self.sync_deadline_ms = None;
            for id in std::mem::take(&mut self.unsynced) {
                tracing::info!(
                    group = self.id,
                    member = id,
                    "a member has not asked for its assignment"
                );
                self.remove_member(&id, GroupError::UnknownMemberId, ctx);
                rebalance = true;
            }
        }
        if self.join_deadline_ms.as_ref().is_some_and(due) {
            self.join_time_is_up(ctx, config);
        }
        if rebalance && self.state != GroupState::Empty {
            self.rebalance(ctx, config);
        }
        self.complete_join_if_all_came(ctx);
    }
}

fn next_generation(generation: i32) -> i32 {
    generation.checked_add(1).unwrap_or(1)
}

fn clamped(ms: u64) -> i32 {
    i32::try_from(ms).unwrap_or(i32::MAX)
}

fn answer_removed(id: &str, member: &Member, why: GroupError, ctx: &mut Ctx) {
    if let Some(token) = member.joining {
        ctx.replies
            .push((token, Reply::Joined(Joined::refused(id, why))));
    }
    if let Some(token) = member.syncing {
        ctx.replies.push((token, Reply::Synced(Err(why))));
    }
}
