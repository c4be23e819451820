//! Owns the ways from any shard to a group of the consumer protocol.
//! Does not know how a group works, nor the wire.
//! Invariant: a heartbeat that may write has room to do so before it is taken.

use super::groups::Kinds;
use super::slots::Slot;
use super::Shard;
use crate::coord::{ConsumerBeat, ConsumerHeartbeat, DescribedConsumerGroup, GroupError};
use std::rc::Rc;

/// What a heartbeat that says something new is taken to write: its member's records, and a new target for others.
const CHANGE_BYTES: usize = 16 << 10;
/// What any other may write: one step of its member.
const STEP_BYTES: usize = 1 << 10;

impl Shard {
    pub async fn consumer_group_heartbeat(
        self: &Rc<Self>,
        asked: ConsumerHeartbeat,
    ) -> Result<ConsumerBeat, GroupError> {
        let group = asked.group.clone();
        let owned = asked.owned.iter().flatten();
        let owned: usize = owned.map(|(_, p)| 64 + 16 * p.len()).sum();
        let is_news = asked.epoch <= 0 || asked.topics.is_some() || asked.regex.is_some();
        let bytes = owned + if is_news { CHANGE_BYTES } else { STEP_BYTES };
        self.at_group(&group, move |shard, id| async move {
            let step = |slot: &Rc<Slot<Kinds>>| {
                shard.groups_step(slot, |kinds, ctx| match kinds.share.has(&asked.group) {
                    true => Err(GroupError::GroupIdNotFound),
                    false => kinds.classic.consumer_heartbeat(&asked, ctx),
                })
            };
            shard.at_slot(id, bytes, step).await?
        })
        .await
    }

    pub async fn describe_consumer_group(
        self: &Rc<Self>,
        group: String,
    ) -> Result<DescribedConsumerGroup, GroupError> {
        self.at_group(&group.clone(), move |shard, id| async move {
            shard
                .at_coordinator(id, 0, |c, ctx| c.describe_consumer(&group, ctx))
                .await?
        })
        .await
    }
}
