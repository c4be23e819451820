//! Owns members of the classic protocol in a group of the consumer protocol: they join, sync and send heartbeats as ever.
//! Does not know how the group decides: to it, they are members like others.
//! Invariant: what such a member is told in a generation is what the group says it holds in the epoch of that number.

use super::coordinator::around;
use super::group::{ConsumerGroup, Member};
use super::heartbeat::Admitted;
use super::records::{ClassicValue, MemberState};
use super::types::Topics;
use crate::coord::codec::{put_length, put_text, Reader};
use crate::coord::coordinator::{Ctx, GroupConfig, Reply, Token};
use crate::coord::group::{Group, CONSUMER};
use crate::coord::records::RecordError;
use crate::coord::types::{GroupError, JoinGroup, Joined, Leaver, MemberOf, SyncGroup, Synced};
use crate::types::limits::GROUP_MEMBERS_MAX;
use crate::types::TopicId;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};

/// What a member says it wants, in the classic protocol of consumers.
pub struct Subscription {
    version: i16,
    pub topics: BTreeSet<String>,
    /// Topic and partitions that it holds.
    owned: Vec<(String, Vec<i32>)>,
    pub rack: Option<String>,
}

impl Subscription {
    /// None where the bytes are none.
    pub fn read(bytes: &[u8]) -> Option<Subscription> {
        Subscription::parse(bytes).ok()
    }

    /// What newer versions have behind all this is left alone.
    fn parse(bytes: &[u8]) -> Result<Subscription, RecordError> {
        let mut r = Reader::plain(bytes);
        let version = r.i16()?;
        if version < 0 {
            return Err(RecordError::Version(version));
        }
        let count = r.count(2)?;
        let topics = (0..count).map(|_| r.text()).collect::<Result<_, _>>()?;
        skip_nullable_bytes(&mut r)?;
        let mut subscription = Subscription {
            version,
            topics,
            owned: Vec::new(),
            rack: None,
        };
        if version >= 1 {
            for _ in 0..r.count(6)? {
                let name = r.text()?;
                let count = r.count(4)?;
                let indexes = (0..count).map(|_| r.i32()).collect::<Result<_, _>>()?;
                subscription.owned.push((name, indexes));
            }
        }
        if version >= 2 {
            let _generation = r.i32()?;
        }
        if version >= 3 {
            subscription.rack = r.nullable_text()?;
        }
        Ok(subscription)
    }

    fn owned_by_id(&self, topics: &dyn Topics) -> Vec<(TopicId, Vec<i32>)> {
        let known = self.owned.iter();
        known
            .filter_map(|(name, indexes)| Some((topics.by_name(name)?.id, indexes.clone())))
            .collect()
    }
}

fn skip_nullable_bytes(r: &mut Reader) -> Result<(), RecordError> {
    match r.nullable_count(1)? {
        Some(length) => r.take(length).map(|_| ()),
        None => Ok(()),
    }
}

/// What a member holds, as the classic protocol says it, in the version the member speaks.
pub fn assignment_bytes(member: &Member, topics: &dyn Topics) -> Bytes {
    let protocols = member.value.classic.iter().flat_map(|c| &c.protocols);
    let spoken = protocols.map(|(_, metadata)| metadata).next();
    let subscription = spoken.and_then(|metadata| Subscription::read(metadata));
    let mut by_name: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for (topic, partitions) in &member.current.assigned {
        if let Some(name) = topics.name_of(*topic) {
            by_name.insert(name, partitions.keys().copied().collect());
        }
    }
    let mut out = BytesMut::new();
    out.put_i16(subscription.map_or(0, |subscription| subscription.version));
    put_length(by_name.len(), &mut out);
    for (name, partitions) in by_name {
        put_text(&name, &mut out);
        put_length(partitions.len(), &mut out);
        partitions.iter().for_each(|index| out.put_i32(*index));
    }
    // No user data.
    out.put_i32(-1);
    out.freeze()
}

impl ConsumerGroup {
    /// The member, under the instance id it says it has, where it speaks the classic protocol.
    fn classic_member(&self, id: &str, instance: Option<&str>) -> Result<&Member, GroupError> {
        let member = self.member(id, instance)?;
        let member = Some(member).filter(|member| member.is_classic());
        member.ok_or(GroupError::UnknownMemberId)
    }

    /// A member by its id, which has the instance id if that is given.
    fn member(&self, id: &str, instance: Option<&str>) -> Result<&Member, GroupError> {
        if let Some(instance) = instance {
            match self.instances.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                Some(known) if known != id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        self.members.get(id).ok_or(GroupError::UnknownMemberId)
    }

    /// Whether a classic member with these protocols can be beside those that are there.
    fn fits_classic(&self, id: &str, asked: &JoinGroup) -> bool {
        let others = self.members.iter().filter(|(other, _)| *other != id);
        let others: Vec<&ClassicValue> = others
            .filter_map(|(_, m)| m.value.classic.as_ref())
            .collect();
        let all_have = |name: &str| {
            let has = |c: &&ClassicValue| c.protocols.iter().any(|(known, _)| known == name);
            others.iter().all(has)
        };
        asked.protocol_type == CONSUMER && asked.protocols.iter().any(|(name, _)| all_have(name))
    }

    /// Whether a classic member should join again, to move on.
    fn calls_to_join(&self, member: &Member) -> bool {
        let current = &member.current;
        let frees = || {
            let waited = member
                .target
                .iter()
                .flat_map(|(t, p)| p.iter().map(move |i| (t, i)));
            let mut lacks = waited.filter(|(topic, index)| {
                let assigned = current.assigned.get(topic);
                !assigned.is_some_and(|p| p.contains_key(index))
            });
            let is_free = |(t, i): (&TopicId, &i32)| !self.is_held_beside(current, *t, *i);
            lacks.all(is_free)
        };
        current.epoch < self.epoch
            || match current.state {
                MemberState::Unrevoked => true,
                MemberState::Unreleased => frees(),
                MemberState::Stable | MemberState::Unknown => false,
            }
    }

    fn call_to_join(&mut self, id: &str, now_ms: u64) {
        if let Some(member) = self.members.get_mut(id) {
            let until_ms = now_ms + member.rebalance_ms();
            member.timers.join_ms.get_or_insert(until_ms);
        }
    }
}

impl Group {
    /// JoinGroup, where there are members of the consumer protocol.
    pub fn join_consumer(
        &mut self,
        asked: JoinGroup,
        token: Token,
        ctx: &mut Ctx,
        config: &GroupConfig,
    ) {
        let joined = match self.try_join_consumer(&asked, ctx, config) {
            Ok(joined) => joined,
            Err(why) => Joined::refused(&asked.member, why),
        };
        ctx.replies.push((token, Reply::Joined(joined)));
    }

    fn try_join_consumer(
        &mut self,
        asked: &JoinGroup,
        ctx: &mut Ctx,
        config: &GroupConfig,
    ) -> Result<Joined, GroupError> {
        let group = self.consumer.as_ref().expect("the caller looked");
        let is_unknown = asked.member.is_empty();
        let max = config.consumer.members_max.min(GROUP_MEMBERS_MAX);
        if group.members.len() >= max && !group.members.contains_key(&asked.member) {
            return Err(GroupError::GroupMaxSizeReached);
        }
        if !group.fits_classic(&asked.member, asked) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let subscription = asked.protocols.first();
        let subscription = subscription.and_then(|(_, metadata)| Subscription::read(metadata));
        let subscription = subscription.ok_or(GroupError::InconsistentGroupProtocol)?;
        let id = match is_unknown {
            true => {
                let random = (ctx.random)().to_be_bytes();
                let random = uuid::Builder::from_random_bytes(random).into_uuid();
                let prefix = asked.instance.as_ref().unwrap_or(&asked.client_id);
                format!("{prefix}-{random}")
            }
            false => asked.member.clone(),
        };
        if is_unknown && asked.instance.is_none() && asked.require_known_member {
            return Ok(Joined::refused(&id, GroupError::MemberIdRequired));
        }
        let of_instance = asked.instance.as_ref().map(|i| group.instances.get(i));
        let admitted = match (of_instance, group.members.get(&id)) {
            (Some(Some(other)), _) if *other != id => match is_unknown {
                true => Admitted::in_place_of(other, &group.members[other]),
                false => return Err(GroupError::FencedInstanceId),
            },
            (Some(None), _) if !is_unknown => return Err(GroupError::UnknownMemberId),
            (_, Some(member)) => Admitted::known(member),
            (_, None) => Admitted::new_member(),
        };
        let mut value = admitted.value.clone();
        if asked.instance.is_some() {
            value.instance.clone_from(&asked.instance);
        }
        value.rack = subscription.rack.clone();
        value.rebalance_timeout_ms = asked.rebalance_timeout_ms;
        value.topics.clone_from(&subscription.topics);
        value.regex = None;
        value.assignor = None;
        value.client_id.clone_from(&asked.client_id);
        value.client_host.clone_from(&asked.client_host);
        value.classic = Some(ClassicValue {
            session_timeout_ms: asked.session_timeout_ms,
            protocols: asked.protocols.clone(),
        });
        let owned = subscription.owned_by_id(ctx.topics);
        let step = group.step(&id, admitted, value, Some(&owned), &around(ctx, config))?;
        self.write(None, &step.records, ctx)?;
        let group = self.consumer.as_mut().expect("nothing ended it");
        group.seen_topics = step.seen_topics;
        group.regexes_at_ms = step.regexes_at_ms;
        let moved = step.moved();
        group.heard_of(&id, moved, ctx.now_ms, &config.consumer);
        let member = group.members.get_mut(&id).expect("it has just joined");
        member.timers.join_ms = None;
        member.timers.sync_ms = Some(ctx.now_ms + member.rebalance_ms());
        // It may have come in the place of the last member of the consumer protocol.
        if group.downgrades_without(&[], &config.consumer) {
            self.downgrade(&[], ctx, config)?;
        }
        Ok(Joined {
            error: None,
            generation: step.current.epoch,
            protocol_type: Some(CONSUMER.to_string()),
            protocol: asked.protocols.first().map(|(name, _)| name.clone()),
            leader: String::new(),
            skip_assignment: false,
            member: id,
            members: Vec::new(),
        })
    }

    /// SyncGroup, where there are members of the consumer protocol.
    pub fn sync_consumer(
        &mut self,
        asked: &SyncGroup,
        ctx: &mut Ctx,
        config: &GroupConfig,
    ) -> Result<Synced, GroupError> {
        let group = self.consumer.as_mut().expect("the caller looked");
        let member = group.classic_member(&asked.member, asked.instance.as_deref())?;
        if asked.generation != member.current.epoch {
            return Err(GroupError::IllegalGeneration);
        }
        let classic = member.value.classic.iter().flat_map(|c| &c.protocols);
        let protocol = classic.map(|(name, _)| name.clone()).next();
        let other_type = asked.protocol_type.as_ref().is_some_and(|t| t != CONSUMER);
        if other_type || (asked.protocol.is_some() && asked.protocol != protocol) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let unrevoked = member.current.state == MemberState::Unrevoked;
        if group.epoch > member.current.epoch && !unrevoked {
            group.call_to_join(&asked.member, ctx.now_ms);
            return Err(GroupError::RebalanceInProgress);
        }
        let assignment = assignment_bytes(member, ctx.topics);
        group.heard_of(&asked.member, false, ctx.now_ms, &config.consumer);
        if let Some(member) = group.members.get_mut(&asked.member) {
            member.timers.sync_ms = None;
        }
        Ok(Synced {
            protocol_type: Some(CONSUMER.to_string()),
            protocol,
            assignment,
        })
    }

    /// Heartbeat, where there are members of the consumer protocol.
    pub fn heartbeat_consumer(
        &mut self,
        by: &MemberOf,
        ctx: &mut Ctx,
        config: &GroupConfig,
    ) -> Result<(), GroupError> {
        let group = self.consumer.as_mut().expect("the caller looked");
        let member = group.classic_member(&by.member, by.instance.as_deref())?;
        if by.generation != member.current.epoch {
            return Err(GroupError::IllegalGeneration);
        }
        let calls = group.calls_to_join(member);
        group.heard_of(&by.member, false, ctx.now_ms, &config.consumer);
        match calls {
            true => {
                group.call_to_join(&by.member, ctx.now_ms);
                Err(GroupError::RebalanceInProgress)
            }
            false => Ok(()),
        }
    }

    /// LeaveGroup, where there are members of the consumer protocol; the results are in the order of the leavers. Members of
    /// that protocol do not send it, but whoever administers the group may say it of them.
    pub fn leave_consumer(
        &mut self,
        leavers: &[Leaver],
        ctx: &mut Ctx,
        config: &GroupConfig,
    ) -> Vec<Result<(), GroupError>> {
        let group = self.consumer.as_ref().expect("the caller looked");
        let find = |leaver: &Leaver| {
            let of_instance = leaver
                .instance
                .as_ref()
                .filter(|_| leaver.member.is_empty());
            let id = match of_instance {
                Some(instance) => group.instances.get(instance).cloned().unwrap_or_default(),
                None => leaver.member.clone(),
            };
            group.member(&id, leaver.instance.as_deref())?;
            Ok(id)
        };
        let found: Vec<Result<String, GroupError>> = leavers.iter().map(find).collect();
        let ids: BTreeSet<String> = found.iter().flatten().cloned().collect();
        let ids: Vec<String> = ids.into_iter().collect();
        let fenced = match ids.is_empty() {
            true => Ok(()),
            false => self.fence(&ids, ctx, config),
        };
        let result = |found: Result<String, GroupError>| found.and(fenced);
        found.into_iter().map(result).collect()
    }
}
