//! Owns what members ask of a classic group: to join, to get their assignment, to stay, to leave.
//! Does not know other groups, nor when time is up.
//! Invariant: a request that is refused changes nothing.

use super::coordinator::{Ctx, GroupConfig, Reply, Token};
use super::group::{Group, Member};
use super::types::{
    GroupError, GroupState, JoinGroup, Joined, Leaver, MemberOf, SyncGroup, Synced,
};
use crate::types::limits::GROUP_MEMBERS_MAX;
use bytes::Bytes;
use std::collections::BTreeMap;

/// How long a member that never was in a generation may wait for its first: its client cannot send heartbeats meanwhile.
const NEW_MEMBER_WAIT_MS: u64 = 300_000;

impl Group {
    // JoinGroup ------------------------------------------------------------------------------------------------------

    /// Answers by the token, now or when the others have come.
    pub fn join(&mut self, asked: JoinGroup, token: Token, ctx: &mut Ctx, config: &GroupConfig) {
        let member = asked.member.clone();
        if let Err(why) = self.try_join(asked, token, ctx, config) {
            let refused = Joined::refused(&member, why);
            ctx.replies.push((token, Reply::Joined(refused)));
        }
    }

    fn try_join(
        &mut self,
        asked: JoinGroup,
        token: Token,
        ctx: &mut Ctx,
        config: &GroupConfig,
    ) -> Result<(), GroupError> {
        let known = self.members.contains_key(&asked.member);
        if !known && self.members.len() + self.pending.len() >= GROUP_MEMBERS_MAX {
            let invited = self.pending.contains_key(&asked.member);
            let comes_back = asked
                .instance
                .as_ref()
                .is_some_and(|i| self.instances.contains_key(i));
            if !invited && !comes_back {
                return Err(GroupError::GroupMaxSizeReached);
            }
        }
        if !self.fits(&asked.protocol_type, &asked.protocols) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        match asked.member.is_empty() {
            true => self.join_unknown(asked, token, ctx, config),
            false => self.join_known(asked, token, ctx, config),
        }
        // A refusal that carries an id is an answer, and no error here.
    }

    fn join_unknown(
        &mut self,
        asked: JoinGroup,
        token: Token,
        ctx: &mut Ctx,
        config: &GroupConfig,
    ) -> Result<(), GroupError> {
        let random = uuid::Builder::from_random_bytes((ctx.random)().to_be_bytes()).into_uuid();
        let prefix = asked.instance.as_ref().unwrap_or(&asked.client_id);
        let id = format!("{prefix}-{random}");
        if let Some(instance) = &asked.instance {
            match self.instances.get(instance).cloned() {
                Some(old) => self.come_back(&old, &id, asked, token, ctx, config),
                None => self.enter(id, asked, token, ctx, config),
            }
        } else if asked.require_known_member {
            let deadline_ms = ctx.now_ms + asked.session_timeout_ms.max(0) as u64;
            self.pending.insert(id.clone(), deadline_ms);
            let refused = Joined::refused(&id, GroupError::MemberIdRequired);
            ctx.replies.push((token, Reply::Joined(refused)));
        } else {
            self.enter(id, asked, token, ctx, config);
        }
        Ok(())
    }

    fn join_known(
        &mut self,
        asked: JoinGroup,
        token: Token,
        ctx: &mut Ctx,
        config: &GroupConfig,
    ) -> Result<(), GroupError> {
        let id = asked.member.clone();
        if asked.instance.is_none() && self.pending.remove(&id).is_some() {
            self.enter(id, asked, token, ctx, config);
            return Ok(());
        }
        self.check_member(&id, asked.instance.as_deref())?;
        let same = self.members[&id].protocols == asked.protocols;
        match self.state {
            GroupState::PreparingRebalance => {
                self.update(&id, asked, token, ctx);
                self.complete_join_if_all_came(ctx);
            }
            // It has not got the answer to its join.
            GroupState::CompletingRebalance if same => self.tell_current(&id, token, ctx),
            GroupState::CompletingRebalance => {
                self.update(&id, asked, token, ctx);
                self.rebalance(ctx, config);
            }
            // A leader joins because it wants another assignment; others that have changed nothing are as they were.
            GroupState::Stable if same && !self.is_leader(&id) => {
                self.tell_current(&id, token, ctx)
            }
            GroupState::Stable => {
                self.update(&id, asked, token, ctx);
                self.rebalance(ctx, config);
            }
            GroupState::Empty | GroupState::Dead => return Err(GroupError::UnknownMemberId),
        }
        Ok(())
    }

    fn tell_current(&mut self, member: &str, token: Token, ctx: &mut Ctx) {
        self.touch(member, ctx.now_ms);
        let joined = self.joined(member);
        ctx.replies.push((token, Reply::Joined(joined)));
    }

    /// A member that was not in the group.
    fn enter(
        &mut self,
        id: String,
        asked: JoinGroup,
        token: Token,
        ctx: &mut Ctx,
        config: &GroupConfig,
    ) {
        let member = Member {
            instance: asked.instance,
            client_id: asked.client_id,
            client_host: asked.client_host,
            session_ms: asked.session_timeout_ms.max(0) as u64,
            rebalance_ms: asked.rebalance_timeout_ms.max(0) as u64,
            protocols: asked.protocols,
            assignment: Bytes::new(),
            is_new: true,
            deadline_ms: ctx.now_ms + NEW_MEMBER_WAIT_MS,
            joining: Some(token),
            syncing: None,
        };
        self.add_member(id, member, &asked.protocol_type);
        if let Some(initial) = &mut self.initial {
            initial.joined_meanwhile = true;
        }
        self.rebalance(ctx, config);
    }

    /// A member joins anew, perhaps with other protocols.
    fn update(&mut self, id: &str, asked: JoinGroup, token: Token, ctx: &mut Ctx) {
        let member = self.members.get_mut(id).expect("the member was checked");
        member.protocols = asked.protocols;
        member.session_ms = asked.session_timeout_ms.max(0) as u64;
        member.rebalance_ms = asked.rebalance_timeout_ms.max(0) as u64;
        member.client_id = asked.client_id;
        member.client_host = asked.client_host;
        if !member.is_new {
            // A new one has longer: until the generation that it waits for.
            member.deadline_ms = ctx.now_ms + member.session_ms;
        }
        if let Some(before) = member.joining.replace(token) {
            // Its client has asked again, on another connection; whoever waits there hears something at least.
            let refused = Joined::refused(id, GroupError::UnknownMemberId);
            ctx.replies.push((before, Reply::Joined(refused)));
        }
    }

    /// A static member was started again and does not know its id.
    fn come_back(
        &mut self,
        old: &str,
        new: &str,
        asked: JoinGroup,
        token: Token,
        ctx: &mut Ctx,
        config: &GroupConfig,
    ) {
        let leader_before = self.leader.clone().unwrap_or_default();
        let skips = asked.supports_skipping_assignment;
        let before = Member {
            joining: None,
            syncing: None,
            ..self.members[old].clone()
        };
        self.replace_member(old, new, ctx);
        self.update(new, asked, token, ctx);
        // As Kafka has it: whoever comes back is waited for no longer than its session, also where it is new.
        self.touch(new, ctx.now_ms);
        match self.state {
            GroupState::PreparingRebalance => self.complete_join_if_all_came(ctx),
            GroupState::Stable if self.protocol == self.choose_protocol() => {
                let member = self.members.get_mut(new).expect("it has just come back");
                member.joining = None;
                let assignments = self.assignments();
                let value = self.value(&assignments);
                if let Err(why) = ctx.log.append(&[self.record(&value)]) {
                    self.restore_member(old, new, before);
                    let refused = Joined::refused("", why);
                    ctx.replies.push((token, Reply::Joined(refused)));
                    return;
                }
                self.apply(value, ctx.now_ms, true);
                let mut joined = self.joined(new);
                if skips {
                    joined.skip_assignment = self.is_leader(new);
                } else {
                    // It must not take itself for the leader, who would assign.
                    joined.leader = leader_before;
                    joined.members.clear();
                }
                ctx.replies.push((token, Reply::Joined(joined)));
            }
            GroupState::Stable | GroupState::CompletingRebalance => self.rebalance(ctx, config),
            GroupState::Empty | GroupState::Dead => {
                unreachable!("a group with a static member is neither empty nor dead")
            }
        }
    }

    fn assignments(&self) -> BTreeMap<String, Bytes> {
        let all = self.members.iter();
        all.map(|(id, m)| (id.clone(), m.assignment.clone()))
            .collect()
    }

    // SyncGroup ------------------------------------------------------------------------------------------------------

    /// Answers by the token, now or when the leader has said who gets what.
    pub fn sync(&mut self, asked: SyncGroup, token: Token, ctx: &mut Ctx, config: &GroupConfig) {
        match self.try_sync(asked, token, ctx, config) {
            Ok(Some(synced)) => ctx.replies.push((token, Reply::Synced(Ok(synced)))),
            Ok(None) => {}
            Err(why) => ctx.replies.push((token, Reply::Synced(Err(why)))),
        }
    }

    fn try_sync(
        &mut self,
        asked: SyncGroup,
        token: Token,
        ctx: &mut Ctx,
        config: &GroupConfig,
    ) -> Result<Option<Synced>, GroupError> {
        let id = &asked.member;
        self.check_member(id, asked.instance.as_deref())?;
        if asked.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |said: &Option<String>, is: &Option<String>| said.is_some() && said != is;
        if differs(&asked.protocol_type, &self.protocol_type)
            || differs(&asked.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        match self.state {
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::CompletingRebalance => {
                self.unsynced.remove(id);
                let member = self.members.get_mut(id).expect("the member was checked");
                if let Some(before) = member.syncing.replace(token) {
                    let refused = Reply::Synced(Err(GroupError::UnknownMemberId));
                    ctx.replies.push((before, refused));
                }
                if self.is_leader(id) {
                    self.assign(&asked.assignments.into_iter().collect(), ctx, config);
                }
                Ok(None)
            }
            GroupState::Stable => {
                self.unsynced.remove(id);
                self.touch(id, ctx.now_ms);
                Ok(Some(self.synced(id)))
            }
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMemberId),
        }
    }

    // Heartbeat ------------------------------------------------------------------------------------------------------

    pub fn heartbeat(&mut self, by: &MemberOf, ctx: &mut Ctx) -> Result<(), GroupError> {
        self.check_member(&by.member, by.instance.as_deref())?;
        if by.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        self.touch(&by.member, ctx.now_ms);
        match self.state {
            GroupState::Stable | GroupState::CompletingRebalance => Ok(()),
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMemberId),
        }
    }

    // LeaveGroup -----------------------------------------------------------------------------------------------------

    /// The results are in the order of the leavers.
    pub fn leave(
        &mut self,
        leavers: &[Leaver],
        ctx: &mut Ctx,
        config: &GroupConfig,
    ) -> Vec<Result<(), GroupError>> {
        let results: Vec<_> = leavers.iter().map(|one| self.leave_one(one, ctx)).collect();
        let left = results.iter().any(|result| matches!(result, Ok(true)));
        match self.state {
            GroupState::Stable | GroupState::CompletingRebalance if left => {
                self.rebalance(ctx, config);
            }
            // Also where one went that had been given an id only.
            GroupState::PreparingRebalance => self.complete_join_if_all_came(ctx),
            GroupState::Stable
            | GroupState::CompletingRebalance
            | GroupState::Empty
            | GroupState::Dead => {}
        }
        results
            .into_iter()
            .map(|result| result.map(|_| ()))
            .collect()
    }

    /// True where a member left, false where it had only been given an id.
    fn leave_one(&mut self, leaver: &Leaver, ctx: &mut Ctx) -> Result<bool, GroupError> {
        let by_instance = leaver
            .instance
            .as_ref()
            .filter(|_| leaver.member.is_empty());
        let id = match by_instance {
            Some(instance) => {
                let known = self.instances.get(instance);
                known.cloned().ok_or(GroupError::UnknownMemberId)?
            }
            None => leaver.member.clone(),
        };
        if leaver.instance.is_none() && self.pending.remove(&id).is_some() {
            return Ok(false);
        }
        self.check_member(&id, leaver.instance.as_deref())?;
        self.remove_member(&id, GroupError::UnknownMemberId, ctx);
        Ok(true)
    }
}
