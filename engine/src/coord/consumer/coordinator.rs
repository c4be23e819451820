//! Owns the way of what members of the consumer protocol ask to their group and its log.
//! Does not know how a group decides.
//! Invariant: nothing of a group changes before the log has taken the records that say so.

use super::group::ConsumerGroup;
use super::plan::Around;
use super::records::Record;
use super::types::{
    Assignor, ConsumerBeat, ConsumerHeartbeat, DescribedConsumerGroup, JOINING_EPOCH,
    LEAVING_STATIC_EPOCH,
};
use crate::coord::batch::KeyValue;
use crate::coord::coordinator::{fits_records, Coordinator, Ctx, GroupConfig};
use crate::coord::group::Group;
use crate::coord::types::GroupError;
use crate::types::base64url;
use crate::types::limits::GROUPS_PER_COORDINATOR_MAX;

/// How long what is due waits where the log refuses.
const AGAIN_MS: u64 = 1_000;

pub(super) fn around<'c, 'a: 'c>(ctx: &Ctx<'a>, config: &'c GroupConfig) -> Around<'c> {
    Around {
        now_ms: ctx.now_ms,
        wall_ms: ctx.wall_ms,
        topics: ctx.topics,
        config: &config.consumer,
    }
}

impl Coordinator {
    /// ConsumerGroupHeartbeat.
    ///
    /// # Errors
    /// The member is refused; nothing changed.
    pub fn consumer_heartbeat(
        &mut self,
        asked: &ConsumerHeartbeat,
        ctx: &mut Ctx,
    ) -> Result<ConsumerBeat, GroupError> {
        let id = &asked.group;
        if id.is_empty() || !fits_records(id) {
            return Err(GroupError::InvalidGroupId);
        }
        let topics = asked.topics.iter().flatten();
        let texts = [&asked.instance, &asked.rack, &asked.regex, &asked.assignor];
        let texts = texts.into_iter().flatten().chain(topics);
        let mut texts = texts.chain([&asked.member, &asked.client_id]);
        if !texts.all(|text| fits_records(text)) {
            return Err(GroupError::UnknownMemberId);
        }
        let config = GroupConfig {
            consumer: self.config.consumer.with(ctx.topics.times_of(id)),
            ..self.config
        };
        if let Some(name) = &asked.assignor {
            Assignor::of_name(name)
                .filter(|assignor| config.consumer.offers(*assignor))
                .ok_or(GroupError::UnsupportedAssignor)?;
        }
        if asked.epoch < JOINING_EPOCH {
            let group = self.groups.get_mut(id).ok_or(GroupError::GroupIdNotFound)?;
            let left = group.consumer_leave(asked, ctx, &config);
            self.settle(id);
            return left;
        }
        let joins = asked.epoch == JOINING_EPOCH;
        if !self.groups.contains_key(id) {
            if !joins {
                return Err(GroupError::GroupIdNotFound);
            }
            if self.groups.len() >= GROUPS_PER_COORDINATOR_MAX {
                return Err(GroupError::NotAvailable);
            }
        }
        if joins && self.memory.is_full() {
            return Err(GroupError::NotAvailable);
        }
        let (beat, wrote) = self
            .made(id, ctx.wall_ms)
            .consumer_heartbeat(asked, ctx, &config);
        // Where nothing was written, what is due only moves away: the timer finds that out when it fires.
        if wrote || beat.is_err() {
            self.settle(id);
        }
        beat
    }

    /// ConsumerGroupDescribe.
    ///
    /// # Errors
    /// There is no such group of this protocol.
    pub fn describe_consumer(
        &self,
        id: &str,
        ctx: &Ctx,
    ) -> Result<DescribedConsumerGroup, GroupError> {
        let group = self
            .groups
            .get(id)
            .and_then(|group| group.consumer.as_ref());
        let group = group.ok_or(GroupError::GroupIdNotFound)?;
        Ok(group.described(ctx.topics, &self.config.consumer))
    }
}

impl Group {
    /// The answer, and whether anything was written.
    fn consumer_heartbeat(
        &mut self,
        asked: &ConsumerHeartbeat,
        ctx: &mut Ctx,
        config: &GroupConfig,
    ) -> (Result<ConsumerBeat, GroupError>, bool) {
        let made;
        let mut first = Vec::new();
        let group = match &self.consumer {
            Some(group) => &**group,
            None if asked.epoch != JOINING_EPOCH => {
                return (Err(GroupError::GroupIdNotFound), false);
            }
            None => match self.upgraded(config, ctx) {
                Ok((group, records)) => {
                    first = records;
                    made = group;
                    &made
                }
                Err(why) => return (Err(why), false),
            },
        };
        let id = match asked.member.is_empty() {
            true => base64url(&(ctx.random)().to_be_bytes()),
            false => asked.member.clone(),
        };
        let (step, beat) = match group.heartbeat(&id, asked, &around(ctx, config)) {
            Ok(done) => done,
            Err(why) => return (Err(why), false),
        };
        let is_new = self.consumer.is_none();
        let upgrades = is_new.then_some(&first[..]);
        let wrote = is_new || !step.records.is_empty();
        if let Err(why) = self.write(upgrades, &step.records, ctx) {
            return (Err(why), false);
        }
        let group = self.consumer.as_mut().expect("it has just been written");
        group.seen_topics = step.seen_topics;
        group.regexes_at_ms = step.regexes_at_ms;
        group.heard_of(&id, step.moved(), ctx.now_ms, &config.consumer);
        if is_new {
            group.classic_begin(ctx.now_ms, &config.consumer);
        }
        (Ok(beat), wrote)
    }

    fn consumer_leave(
        &mut self,
        asked: &ConsumerHeartbeat,
        ctx: &mut Ctx,
        config: &GroupConfig,
    ) -> Result<ConsumerBeat, GroupError> {
        let group = self.consumer.as_ref().ok_or(GroupError::GroupIdNotFound)?;
        let id = group.leaver(asked)?;
        match asked.epoch == LEAVING_STATIC_EPOCH {
            true => {
                let records = group.leave_for_a_while(&id);
                self.write(None, &records, ctx)?;
            }
            false => self.fence(&[id], ctx, config)?,
        }
        Ok(ConsumerBeat {
            member: asked.member.clone(),
            epoch: asked.epoch,
            heartbeat_interval_ms: 0,
            assignment: None,
        })
    }

    /// Takes members out of the group; where only classic ones are left, the group becomes one of theirs.
    pub(super) fn fence(
        &mut self,
        ids: &[String],
        ctx: &mut Ctx,
        config: &GroupConfig,
    ) -> Result<(), GroupError> {
        let group = self.consumer.as_ref().expect("its members are fenced");
        if group.downgrades_without(ids, &config.consumer) {
            return self.downgrade(ids, ctx, config);
        }
        let records = group.without(ids, &around(ctx, config));
        self.write(None, &records, ctx)?;
        if self.consumer.as_ref().is_some_and(|g| g.members.is_empty()) {
            self.state_ms = ctx.wall_ms;
        }
        Ok(())
    }

    /// Writes records, then takes what they say. With `upgrades` the group was of the classic protocol before, and those
    /// make one of this protocol of it.
    pub(super) fn write(
        &mut self,
        upgrades: Option<&[Record]>,
        records: &[Record],
        ctx: &mut Ctx,
    ) -> Result<(), GroupError> {
        let mut all: Vec<KeyValue> = Vec::new();
        if upgrades.is_some() && self.kept.is_some() {
            all.push(self.tombstone());
        }
        let made = upgrades.unwrap_or_default();
        all.extend(made.iter().chain(records).map(|r| r.encode(&self.id)));
        if !all.is_empty() {
            ctx.log.append(&all)?;
        }
        if upgrades.is_some() {
            self.leave_classic(GroupError::RebalanceInProgress, ctx);
            self.consumer = Some(Box::default());
        }
        for record in made.iter().chain(records) {
            self.apply_consumer(record);
        }
        Ok(())
    }

    /// Takes what a record says, live and on recovery alike.
    pub fn apply_consumer(&mut self, record: &Record) {
        if *record == Record::Group(None) {
            self.consumer = None;
            return;
        }
        let makes = match record {
            Record::Group(value) | Record::TargetEpoch(value) => value.is_some(),
            Record::Partitions(value) => value.is_some(),
            Record::Member(_, value) => value.is_some(),
            Record::Target(_, value) => value.is_some(),
            Record::Current(_, value) => value.is_some(),
            Record::Regex(_, value) => value.is_some(),
        };
        if makes {
            self.consumer.get_or_insert_default();
        }
        if let Some(group) = &mut self.consumer {
            group.apply(record);
        }
    }

    /// The same while the log is read: sessions of members begin with what is read last of them.
    pub fn replay_consumer(&mut self, record: &Record, now_ms: u64, config: &GroupConfig) {
        self.apply_consumer(record);
        if let (Some(group), Record::Member(id, Some(_)) | Record::Current(id, Some(_))) =
            (&mut self.consumer, record)
        {
            group.heard_of(id, true, now_ms, &config.consumer);
        }
    }

    /// Does what is due.
    pub fn tick_consumer(&mut self, ctx: &mut Ctx, config: &GroupConfig) {
        let Some(group) = &self.consumer else {
            return;
        };
        let overdue = group.overdue(ctx.now_ms);
        if !overdue.is_empty() {
            tracing::info!(group = self.id, ?overdue, "members have not been heard of");
            if let Err(error) = self.fence(&overdue, ctx, config) {
                tracing::warn!(group = self.id, %error, "silent members stay for now");
            }
        }
        if let Some(group) = &mut self.consumer {
            group.put_off(ctx.now_ms, AGAIN_MS);
        }
    }

    /// Takes the group, but its offsets, out of the log.
    pub(super) fn end_consumer(&mut self, ctx: &mut Ctx) -> Result<(), GroupError> {
        let records = self.consumer.as_ref().map(|group| group.tombstones());
        self.write(None, &records.unwrap_or_default(), ctx)
    }

    /// The records that make the group anew, where it is one of this protocol.
    pub fn consumer_records(&self) -> Vec<KeyValue> {
        let records = self.consumer.as_ref().map(|group| group.records());
        let records = records.unwrap_or_default();
        records.iter().map(|r| r.encode(&self.id)).collect()
    }

    /// Whether it has members of either protocol.
    pub fn has_members(&self) -> bool {
        let consumer = self.consumer.as_ref();
        !self.members.is_empty() || consumer.is_some_and(|group| !group.members.is_empty())
    }
}

impl ConsumerGroup {
    /// The records of members that were in the classic group say nothing of sessions.
    fn classic_begin(&mut self, now_ms: u64, config: &super::ConsumerConfig) {
        let classic = self.members.iter().filter(|(_, m)| m.is_classic());
        let ids: Vec<String> = classic.map(|(id, _)| id.clone()).collect();
        ids.iter()
            .for_each(|id| self.heard_of(id, true, now_ms, config));
    }
}
