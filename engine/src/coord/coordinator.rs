//! Owns the groups of one partition of the groups' topic: finds them, makes them, reads them back from the log.
//! Does not know shards, files or clocks; what it writes goes through [`Append`].
//! Invariant: hard state changes only with a record that the log has taken.

use super::batch::KeyValue;
use super::consumer::{ConsumerConfig, Record, Topics};
use super::group::{Group, CONSUMER};
use super::pending::OpenTxn;
use super::records::{GroupValue, Key, OffsetValue, RecordError};
use super::txn::Producer;
use super::types::{
    CommitOffsets, DescribedGroup, FetchOffsets, FetchedOffsets, GroupError, JoinGroup, Joined,
    Leaver, ListedGroup, MemberOf, SyncGroup, Synced,
};
use crate::types::limits::{GROUPS_PER_COORDINATOR_MAX, GROUP_TEXT_BYTES_MAX};
use crate::types::Offset;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Names who waits for an answer that comes later.
pub type Token = u64;

/// An answer to a token.
#[derive(Debug)]
pub enum Reply {
    Joined(Joined),
    Synced(Result<Synced, GroupError>),
}

/// The log of the partition: takes records all or none, at once.
pub trait Append {
    /// # Errors
    /// None of the records is in the log.
    fn append(&mut self, records: &[KeyValue]) -> Result<(), GroupError>;

    /// The same as part of a transaction; gives the offset of the first. Only offsets are written so.
    ///
    /// # Errors
    /// None of the records is in the log.
    fn append_in_transaction(
        &mut self,
        _producer: Producer,
        _records: &[KeyValue],
    ) -> Result<Offset, GroupError> {
        Err(GroupError::NotAvailable)
    }
}

/// What a step has around it.
pub struct Ctx<'a> {
    /// Monotonic milliseconds.
    pub now_ms: u64,
    /// Wall-clock milliseconds.
    pub wall_ms: i64,
    pub topics: &'a dyn Topics,
    pub log: &'a mut dyn Append,
    pub random: &'a mut dyn FnMut() -> u128,
    /// Answers of this step, also to those who asked before.
    pub replies: &'a mut Vec<(Token, Reply)>,
}

/// The settings of groups, by Kafka's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupConfig {
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: u64,
    /// `group.min.session.timeout.ms`
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`
    pub session_timeout_max_ms: i32,
    /// `offset.metadata.max.bytes`
    pub offset_metadata_bytes_max: usize,
    /// `offsets.retention.minutes`
    pub offsets_retention_ms: i64,
    pub consumer: ConsumerConfig,
}

impl Default for GroupConfig {
    fn default() -> GroupConfig {
        GroupConfig {
            initial_rebalance_delay_ms: 3_000,
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            offset_metadata_bytes_max: 4_096,
            offsets_retention_ms: 7 * 24 * 3_600_000,
            consumer: ConsumerConfig::default(),
        }
    }
}

/// Memory that coordinators share, in bytes.
#[derive(Debug)]
pub struct Memory {
    used: Cell<usize>,
    max: usize,
}

impl Memory {
    pub fn new(max: usize) -> Rc<Memory> {
        Rc::new(Memory {
            used: Cell::new(0),
            max,
        })
    }

    pub fn is_full(&self) -> bool {
        self.used.get() >= self.max
    }

    pub fn replace(&self, before: usize, now: usize) {
        self.used.set(self.used.get() - before + now);
    }
}

/// The groups of one partition.
pub struct Coordinator {
    pub(super) config: GroupConfig,
    pub(super) memory: Rc<Memory>,
    /// What of the memory each group has.
    weights: BTreeMap<String, usize>,
    pub(super) groups: BTreeMap<String, Group>,
    /// By producer id.
    pub(super) open_txns: BTreeMap<i64, OpenTxn>,
    /// When a group has something to do; an entry for each group that has.
    timers: BTreeSet<(u64, String)>,
    due: BTreeMap<String, u64>,
}

impl Coordinator {
    pub fn new(config: GroupConfig, memory: Rc<Memory>) -> Coordinator {
        Coordinator {
            config,
            memory,
            weights: BTreeMap::new(),
            groups: BTreeMap::new(),
            open_txns: BTreeMap::new(),
            timers: BTreeSet::new(),
            due: BTreeMap::new(),
        }
    }

    // Recovery -------------------------------------------------------------------------------------------------------

    /// Takes one record of the log; records of other protocols are left alone.
    ///
    /// # Errors
    /// It is none that Kafka writes there; nothing changed.
    pub fn replay(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        now_ms: u64,
    ) -> Result<(), RecordError> {
        match Key::decode(key)? {
            None => {
                if let Some((group, record)) = Record::decode(key, value)? {
                    let config = self.config;
                    let group = self.group_of_log(group);
                    group.replay_consumer(&record, now_ms, &config);
                }
            }
            Some(Key::Offset {
                group,
                topic,
                partition,
            }) => {
                let value = value.map(OffsetValue::decode).transpose()?;
                self.group_of_log(group)
                    .apply_offset(&topic, partition, value);
            }
            Some(Key::Group { group }) => match value.map(GroupValue::decode).transpose()? {
                Some(value) => self.group_of_log(group).apply(value, now_ms, false),
                // Its offsets went before it, each by a record of its own.
                None => self.group_of_log(group).forget_classic(),
            },
        }
        Ok(())
    }

    pub(super) fn group_of_log(&mut self, id: String) -> &mut Group {
        let new = || Group::new(id.clone(), 0);
        self.groups.entry(id.clone()).or_insert_with(new)
    }

    /// The log is read: sessions of the members it knows begin now.
    pub fn loaded(&mut self) {
        self.groups.retain(|_, group| !group.is_nothing());
        let ids: Vec<String> = self.groups.keys().cloned().collect();
        ids.iter().for_each(|id| self.settle(id));
    }

    /// Settings as they are from now on.
    pub fn configure(&mut self, config: GroupConfig) {
        self.config = config;
    }

    // Members --------------------------------------------------------------------------------------------------------

    pub fn join(&mut self, asked: JoinGroup, token: Token, ctx: &mut Ctx) {
        let refuse = |why: GroupError, ctx: &mut Ctx| {
            let refused = Joined::refused(&asked.member, why);
            ctx.replies.push((token, Reply::Joined(refused)));
        };
        if asked.group.is_empty() || !fits_records(&asked.group) {
            return refuse(GroupError::InvalidGroupId, ctx);
        }
        let instance = asked.instance.as_deref().unwrap_or_default();
        if ![instance, &asked.client_id].into_iter().all(fits_records) {
            return refuse(GroupError::UnknownMemberId, ctx);
        }
        let allowed = self.config.session_timeout_min_ms..=self.config.session_timeout_max_ms;
        if !allowed.contains(&asked.session_timeout_ms) {
            return refuse(GroupError::InvalidSessionTimeout, ctx);
        }
        if !self.groups.contains_key(&asked.group) {
            if !asked.member.is_empty() {
                return refuse(GroupError::UnknownMemberId, ctx);
            }
            if self.groups.len() >= GROUPS_PER_COORDINATOR_MAX {
                return refuse(GroupError::NotAvailable, ctx);
            }
        }
        if self.memory.is_full() {
            return refuse(GroupError::NotAvailable, ctx);
        }
        let id = asked.group.clone();
        let config = self.config;
        let group = self.made(&id, ctx.wall_ms);
        match group.leave_empty_consumer(&asked, ctx) {
            Err(why) => refuse(why, ctx),
            Ok(()) if group.consumer.is_some() => group.join_consumer(asked, token, ctx, &config),
            Ok(()) => group.join(asked, token, ctx, &config),
        }
        self.settle(&id);
    }

    pub fn sync(&mut self, asked: SyncGroup, token: Token, ctx: &mut Ctx) {
        let id = asked.group.clone();
        let config = self.config;
        match self.groups.get_mut(&id) {
            Some(group) if group.consumer.is_some() => {
                let synced = group.sync_consumer(&asked, ctx, &config);
                ctx.replies.push((token, Reply::Synced(synced)));
                self.settle(&id);
            }
            Some(group) => {
                group.sync(asked, token, ctx, &config);
                self.settle(&id);
            }
            None => {
                let refused = Reply::Synced(Err(GroupError::UnknownMemberId));
                ctx.replies.push((token, refused));
            }
        }
    }

    pub fn heartbeat(&mut self, by: &MemberOf, ctx: &mut Ctx) -> Result<(), GroupError> {
        let config = self.config;
        let group = self.groups.get_mut(&by.group);
        let group = group.ok_or(GroupError::UnknownMemberId)?;
        if group.consumer.is_some() {
            let beat = group.heartbeat_consumer(by, ctx, &config);
            self.settle(&by.group);
            return beat;
        }
        // What is due only moves away: the timer finds that out when it fires.
        group.heartbeat(by, ctx)
    }

    /// The results are in the order of the leavers.
    pub fn leave(
        &mut self,
        id: &str,
        leavers: &[Leaver],
        ctx: &mut Ctx,
    ) -> Vec<Result<(), GroupError>> {
        let config = self.config;
        let Some(group) = self.groups.get_mut(id) else {
            return vec![Err(GroupError::UnknownMemberId); leavers.len()];
        };
        let results = match group.consumer.is_some() {
            true => group.leave_consumer(leavers, ctx, &config),
            false => group.leave(leavers, ctx, &config),
        };
        self.settle(id);
        results
    }

    // Offsets --------------------------------------------------------------------------------------------------------

    /// The results are in the order of the offsets.
    pub fn commit(&mut self, asked: &CommitOffsets, ctx: &mut Ctx) -> Vec<Result<(), GroupError>> {
        let by = &asked.by;
        if !fits_records(&by.group) {
            return vec![Err(GroupError::InvalidGroupId); asked.offsets.len()];
        }
        if !self.groups.contains_key(&by.group) {
            let full = self.groups.len() >= GROUPS_PER_COORDINATOR_MAX;
            let why = match by.generation {
                0.. => Some(GroupError::GroupIdNotFound),
                ..0 if full => Some(GroupError::NotAvailable),
                ..0 => None,
            };
            if let Some(why) = why {
                return vec![Err(why); asked.offsets.len()];
            }
        }
        if self.memory.is_full() {
            return vec![Err(GroupError::NotAvailable); asked.offsets.len()];
        }
        let config = self.config;
        let group = self.made(&by.group, ctx.wall_ms);
        let results = group.commit(asked, ctx, &config);
        self.settle(&by.group);
        results
    }

    /// # Errors
    /// Who asks says that it is a member, and is none, or of another epoch.
    pub fn fetch(
        &self,
        asked: &FetchOffsets,
        topics: &dyn Topics,
    ) -> Result<FetchedOffsets, GroupError> {
        let Some(group) = self.groups.get(&asked.group) else {
            return Ok(Group::fetch_nothing(asked));
        };
        if let Some(consumer) = &group.consumer {
            consumer.may_fetch(asked.member.as_deref(), asked.member_epoch)?;
        }
        Ok(group.fetch(asked, topics))
    }

    pub fn delete_offsets(
        &mut self,
        id: &str,
        asked: &[(String, Vec<i32>)],
        ctx: &mut Ctx,
    ) -> Result<Vec<Vec<Result<(), GroupError>>>, GroupError> {
        let group = self.groups.get_mut(id).ok_or(GroupError::GroupIdNotFound)?;
        let results = group.delete_offsets(asked, ctx);
        self.settle(id);
        results
    }

    /// Forgets what is older than offsets are kept, or of topics that are gone, and groups of which nothing is left.
    pub fn expire(&mut self, ctx: &mut Ctx) {
        let retention_ms = self.config.offsets_retention_ms;
        let ids: Vec<String> = self.groups.keys().cloned().collect();
        for id in ids {
            let Some(group) = self.groups.get_mut(&id) else {
                continue;
            };
            let mut old = group.expired(ctx.wall_ms, retention_ms);
            old.extend(group.of_topics_that_are_gone(ctx));
            let forgotten = group.forget_in_parts(&old, ctx);
            let bare = !group.has_members()
                && group.offsets.is_empty()
                && group.pending_offsets.is_empty();
            let done = forgotten.and_then(|()| match bare {
                true => match group.delete(ctx) {
                    // Somebody is about to join.
                    Ok(()) | Err(GroupError::NonEmptyGroup) => Ok(()),
                    Err(why) => Err(why),
                },
                false => Ok(()),
            });
            if let Err(error) = done {
                // The next round tries again.
                tracing::warn!(group = id, %error, "old offsets cannot be forgotten");
            }
            self.settle(&id);
        }
    }

    /// Forgets what was committed for topics that are gone.
    pub fn forget_topics(&mut self, gone: &BTreeSet<String>, ctx: &mut Ctx) {
        let ids: Vec<String> = self.groups.keys().cloned().collect();
        for id in ids {
            let Some(group) = self.groups.get_mut(&id) else {
                continue;
            };
            let of_gone = group
                .offsets
                .iter()
                .filter(|(topic, _)| gone.contains(*topic));
            let mut which: BTreeSet<(String, i32)> = of_gone
                .flat_map(|(topic, partitions)| partitions.keys().map(|p| (topic.clone(), *p)))
                .collect();
            let pending = group.pending_partitions().into_iter();
            which.extend(pending.filter(|(topic, _)| gone.contains(topic)));
            let which: Vec<(String, i32)> = which.into_iter().collect();
            if let Err(error) = group.forget_in_parts(&which, ctx) {
                tracing::warn!(group = id, %error, "offsets of deleted topics cannot be forgotten");
            }
            self.settle(&id);
        }
    }

    // Rewriting ------------------------------------------------------------------------------------------------------

    /// Whether a group of this name is known, of whichever protocol.
    pub fn has(&self, id: &str) -> bool {
        self.groups.contains_key(id)
    }

    pub fn group_ids(&self) -> Vec<String> {
        self.groups.keys().cloned().collect()
    }

    /// What its groups take in memory, which is about what they take in the log once each is written once; bytes.
    pub fn bytes(&self) -> usize {
        self.weights.values().sum()
    }

    /// Writes these groups once more, as they are kept. When that was done for all there were, and is durable, nothing
    /// that was written before it began is needed.
    ///
    /// # Errors
    /// The log refuses; what was written does no harm.
    pub fn rewrite(&mut self, ids: &[String], ctx: &mut Ctx) -> Result<(), GroupError> {
        ids.iter()
            .filter_map(|id| self.groups.get(id))
            .try_for_each(|group| group.rewrite(ctx))
    }

    // Admin ----------------------------------------------------------------------------------------------------------

    pub fn list(&self) -> Vec<ListedGroup> {
        let one = |(id, group): (&String, &Group)| ListedGroup {
            group: id.clone(),
            protocol_type: match &group.consumer {
                Some(_) => CONSUMER.to_string(),
                None => group.protocol_type.clone().unwrap_or_default(),
            },
            kind: match group.consumer {
                Some(_) => "consumer",
                None => "classic",
            },
            state: match &group.consumer {
                Some(consumer) => consumer.state().name(),
                None => group.state.name(),
            },
        };
        self.groups.iter().map(one).collect()
    }

    pub fn describe(&self, id: &str) -> Result<DescribedGroup, GroupError> {
        let group = self.groups.get(id).filter(|g| g.consumer.is_none());
        Ok(group.ok_or(GroupError::GroupIdNotFound)?.described())
    }

    pub fn delete(&mut self, id: &str, ctx: &mut Ctx) -> Result<(), GroupError> {
        let group = self.groups.get_mut(id).ok_or(GroupError::GroupIdNotFound)?;
        let deleted = group.delete(ctx);
        self.settle(id);
        deleted
    }

    // Time -----------------------------------------------------------------------------------------------------------

    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.timers.first().map(|(deadline, _)| *deadline)
    }

    /// Does what is due by now.
    pub fn tick(&mut self, ctx: &mut Ctx) {
        while let Some((deadline, id)) = self.timers.first().cloned() {
            if deadline > ctx.now_ms {
                return;
            }
            self.timers.remove(&(deadline, id.clone()));
            self.due.remove(&id);
            let config = self.config;
            if let Some(group) = self.groups.get_mut(&id) {
                group.tick(ctx, &config);
            }
            self.settle(&id);
            // Whatever is due again at once waits for the next call.
            if self.due.get(&id).is_some_and(|again| *again <= ctx.now_ms) {
                return;
            }
        }
    }

    // ----------------------------------------------------------------------------------------------------------------

    pub(super) fn made(&mut self, id: &str, wall_ms: i64) -> &mut Group {
        let new = || Group::new(id.to_string(), wall_ms);
        self.groups.entry(id.to_string()).or_insert_with(new)
    }

    /// After a group changed: forgets it where nothing is left of it, and notes when it is due.
    pub(super) fn settle(&mut self, id: &str) {
        if self.groups.get(id).is_some_and(Group::is_nothing) {
            self.groups.remove(id);
        }
        let now = self.groups.get(id).map_or(0, |group| group.bytes());
        let before = self.weights.remove(id).unwrap_or(0);
        self.memory.replace(before, now);
        if now > 0 {
            self.weights.insert(id.to_string(), now);
        }
        self.reschedule(id);
    }

    fn reschedule(&mut self, id: &str) {
        let due = self.groups.get(id).and_then(Group::next_deadline_ms);
        if self.due.get(id).copied() == due {
            return;
        }
        if let Some(before) = self.due.remove(id) {
            self.timers.remove(&(before, id.to_string()));
        }
        if let Some(due) = due {
            self.due.insert(id.to_string(), due);
            self.timers.insert((due, id.to_string()));
        }
    }
}

/// Whether a text of a client can be kept, and a member id be made of it.
pub(super) fn fits_records(text: &str) -> bool {
    text.len() <= GROUP_TEXT_BYTES_MAX
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let weights: usize = self.weights.values().sum();
        self.memory.replace(weights, 0);
    }
}
