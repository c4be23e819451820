//! Owns the ways from any shard to share groups and their partitions, one for each thing that is asked.
//! Does not know how a group works, nor the wire.
//! Invariant: what is asked of a group is done where its members are kept, what of a partition where that is owned.

use super::coordinator_log::now_ms;
use super::groups::Kinds;
use super::slots::Slot;
use super::Shard;
use crate::coord::share::records::ShareKey;
use crate::coord::share::{
    DescribedShareGroup, ShareAck, ShareCtx, ShareError, ShareGroupConfig, ShareHeard,
    ShareHeartbeat, ShareOffset, TopicNow,
};
use crate::coord::{GroupError, GroupTimes, ListedGroup};
use crate::meta::Image;
use crate::types::{Offset, PartitionId, TopicId};
use std::rc::Rc;

/// What the records of a heartbeat are taken to need, beside what it says.
const HEARTBEAT_BYTES: usize = 16 << 10;

/// A topic and its partitions, as a group has them.
type OfTopic = (TopicId, String, Vec<i32>);

/// A topic as it was asked for; its name here, and where the group is in each partition.
pub type ShareOffsets = Vec<(TopicId, String, Vec<(i32, Result<ShareOffset, ShareError>)>)>;

fn topic_now(image: &Image, name: &str) -> Option<TopicNow> {
    image.topic(name).map(|topic| TopicNow {
        id: topic.id,
        partitions: topic.partitions.len() as i32,
    })
}

fn share_times(image: &Image, group: &str) -> GroupTimes {
    let set = image.group_config(group);
    GroupTimes {
        session_timeout_ms: set.share_session_timeout_ms,
        heartbeat_interval_ms: set.share_heartbeat_interval_ms,
    }
}

impl Shard {
    pub(super) fn share_group_config(&self) -> ShareGroupConfig {
        let image = self.image.borrow();
        let said = &image.broker_config;
        ShareGroupConfig {
            session_timeout_ms: said.group_share_session_timeout_ms.max(1) as u64,
            heartbeat_interval_ms: said.group_share_heartbeat_interval_ms,
            members_max: said.group_share_max_size.max(1) as usize,
        }
    }

    /// One step of share groups; beside them are the other groups of the same partition.
    pub(super) fn share_group_step<R>(
        self: &Rc<Self>,
        slot: &Rc<Slot<Kinds>>,
        f: impl FnOnce(&mut Kinds, &mut ShareCtx) -> R,
    ) -> Option<R> {
        let image = self.image();
        self.in_slot(slot, |kinds, log| {
            let mut ctx = ShareCtx {
                now_ms: now_ms(),
                log,
                topic: &|name| topic_now(&image, name),
                times: &|group| share_times(&image, group),
            };
            f(kinds, &mut ctx)
        })
    }

    /// Runs `f`, which may write so many bytes, where a group is.
    async fn at_share_group<R: Send + 'static>(
        self: &Rc<Self>,
        group: &str,
        bytes: usize,
        f: impl FnOnce(&mut Kinds, &mut ShareCtx) -> R + Send + 'static,
    ) -> Result<R, ShareError> {
        let id = self.group_partition(group)?;
        let work = move |shard: Rc<Shard>| async move {
            let step = |slot: &Rc<Slot<Kinds>>| shard.share_group_step(slot, f);
            shard.at_slot::<Kinds, R>(id, bytes, step).await
        };
        let result = self.at(id.shard(self.shards), work).await;
        Ok(result.unwrap_or(Err(GroupError::NotAvailable))?)
    }

    pub async fn share_heartbeat(
        self: &Rc<Self>,
        asked: ShareHeartbeat,
    ) -> Result<ShareHeard, ShareError> {
        let group = asked.group.clone();
        let topics = asked.topics.iter().flatten();
        let bytes = HEARTBEAT_BYTES + topics.map(|t| 2 * t.len() + 64).sum::<usize>();
        self.at_share_group(&group, bytes, move |kinds, ctx| {
            if !kinds.share.has(&asked.group) && kinds.classic.has(&asked.group) {
                // A group of another kind has the name.
                return Err(ShareError::GroupIdNotFound);
            }
            kinds.share.heartbeat(&asked, ctx)
        })
        .await?
    }

    pub async fn describe_share_group(
        self: &Rc<Self>,
        group: String,
    ) -> Result<DescribedShareGroup, ShareError> {
        self.at_share_group(&group.clone(), 0, move |kinds, _| {
            kinds.share.describe(&group)
        })
        .await?
    }

    /// The share groups of all shards, in no particular order.
    pub async fn list_share_groups(self: &Rc<Self>) -> Result<Vec<ListedGroup>, GroupError> {
        let mut groups = Vec::new();
        for shard in 0..self.shards {
            let listed = self.at(shard, |shard| async move {
                let mut listed = Vec::new();
                for id in shard.own_group_partitions() {
                    let step = |slot: &Rc<Slot<Kinds>>| {
                        shard.share_group_step(slot, |kinds, _| kinds.share.list())
                    };
                    listed.extend(shard.at_slot(id, 0, step).await?);
                }
                Ok(listed)
            });
            groups.extend(listed.await.unwrap_or(Err(GroupError::NotAvailable))?);
        }
        Ok(groups)
    }

    /// Whether a group is a share group, or may become one.
    async fn share_states_of(self: &Rc<Self>, group: &str) -> Result<Vec<OfTopic>, ShareError> {
        let id = group.to_string();
        self.at_share_group(group, 0, move |kinds, _| kinds.share.states(&id))
            .await?
    }

    async fn share_group_is_empty(self: &Rc<Self>, group: &str) -> Result<(), ShareError> {
        let id = group.to_string();
        self.at_share_group(group, 0, move |kinds, _| kinds.share.is_empty(&id))
            .await?
    }

    /// Deletes a group without members, and where it was in its partitions.
    pub async fn delete_share_group(self: &Rc<Self>, group: String) -> Result<(), ShareError> {
        self.share_group_is_empty(&group).await?;
        for (topic, _, partitions) in self.share_states_of(&group).await? {
            for index in partitions {
                let partition = PartitionId::new(topic, index);
                self.share_reset(&group, partition, None).await?;
            }
        }
        self.at_share_group(&group.clone(), HEARTBEAT_BYTES, move |kinds, ctx| {
            kinds.share.delete(&group, ctx)
        })
        .await?
    }

    async fn share_reset(
        self: &Rc<Self>,
        group: &str,
        partition: PartitionId,
        start: Option<Offset>,
    ) -> Result<(), ShareError> {
        let group = group.to_string();
        let key = ShareKey { group, partition };
        let owner = partition.shard(self.shards);
        let work = move |shard: Rc<Shard>| async move { shard.share_reset_here(key, start).await };
        let done = self.at(owner, work).await;
        done.unwrap_or(Err(ShareError::NotAvailable))
    }

    /// Where a group is in these topics (None: in all it has read); in their order. A topic that is not there is left out.
    pub async fn describe_share_offsets(
        self: &Rc<Self>,
        group: &str,
        topics: Option<Vec<(String, Vec<i32>)>>,
    ) -> Result<ShareOffsets, ShareError> {
        let states = self.share_states_of(group).await?;
        let image = self.image();
        let asked: Vec<OfTopic> = match topics {
            None => states,
            Some(topics) => {
                let known = |(name, partitions): (String, Vec<i32>)| {
                    let id = image.topic(&name)?.id;
                    Some((id, name, partitions))
                };
                topics.into_iter().filter_map(known).collect()
            }
        };
        let mut all = ShareOffsets::new();
        for (topic, name, partitions) in asked {
            let mut of = Vec::with_capacity(partitions.len());
            for index in partitions {
                let at = PartitionId::new(topic, index);
                of.push((index, self.share_offset(group, at).await));
            }
            all.push((topic, name, of));
        }
        Ok(all)
    }

    async fn share_offset(
        self: &Rc<Self>,
        group: &str,
        partition: PartitionId,
    ) -> Result<ShareOffset, ShareError> {
        let latest = crate::api::OffsetSpec::Latest {
            read_committed: false,
        };
        let end = self.list_offset(partition, -1, latest).await;
        let end = end.map_err(|error| match error {
            crate::error::PartitionError::Unknown => ShareError::UnknownTopicOrPartition,
            error => ShareError::Partition(error),
        })?;
        let group = group.to_string();
        let kept = self
            .read_share_state(&ShareKey { group, partition })
            .await?;
        let nothing = ShareOffset {
            start: -1,
            leader_epoch: 0,
            lag: -1,
        };
        Ok(kept
            .filter(|kept| kept.start >= 0)
            .map_or(nothing, |kept| ShareOffset {
                start: kept.start,
                leader_epoch: kept.leader_epoch.max(0),
                lag: match kept.done {
                    -1 => -1,
                    done => (end.offset - kept.start - i64::from(done)).max(0),
                },
            }))
    }

    /// Has a group without members begin at these offsets. One that is not known is made: so a group can begin with them.
    ///
    /// # Errors
    /// Of the group; nothing changed. Results of single partitions are in their order.
    pub async fn alter_share_offsets(
        self: &Rc<Self>,
        group: &str,
        offsets: Vec<(PartitionId, String, Offset)>,
    ) -> Result<Vec<Result<(), ShareError>>, ShareError> {
        let one =
            |(id, name, _): &(PartitionId, String, Offset)| (id.topic, name.clone(), id.index);
        let added: Vec<_> = offsets.iter().map(one).collect();
        let id = group.to_string();
        self.at_share_group(
            group,
            HEARTBEAT_BYTES + 64 * added.len(),
            move |kinds, ctx| {
                if kinds.share.has(&id) {
                    kinds.share.is_empty(&id)?;
                } else if kinds.classic.has(&id) {
                    // A group of another kind has the name.
                    return Err(ShareError::GroupIdNotFound);
                }
                kinds.share.add_states(&id, &added, ctx)
            },
        )
        .await??;
        let mut results = Vec::with_capacity(offsets.len());
        for (partition, _, start) in offsets {
            results.push(self.share_reset(group, partition, Some(start)).await);
        }
        Ok(results)
    }

    /// Forgets where a group without members was in a topic.
    pub async fn delete_share_offsets(
        self: &Rc<Self>,
        group: &str,
        topic: TopicId,
    ) -> Result<(), ShareError> {
        self.share_group_is_empty(group).await?;
        let states = self.share_states_of(group).await?;
        let of = states.into_iter().find(|(id, _, _)| *id == topic);
        let (_, _, partitions) = of.ok_or(ShareError::UnknownTopicOrPartition)?;
        for index in partitions {
            self.share_reset(group, PartitionId::new(topic, index), None)
                .await?;
        }
        let id = group.to_string();
        self.at_share_group(group, HEARTBEAT_BYTES, move |kinds, ctx| {
            kinds.share.drop_states(&id, &[topic], ctx)
        })
        .await?
    }

    /// Takes what a member says of records it has; the results are in the order of the partitions.
    pub async fn share_acknowledge(
        self: &Rc<Self>,
        group: &str,
        member: &str,
        acks: Vec<ShareAck>,
    ) -> Vec<Result<(), ShareError>> {
        let count = acks.len();
        let mut by_owner: Vec<Vec<(usize, ShareAck)>> = Vec::new();
        by_owner.resize_with(self.shards, Vec::new);
        for (at, ack) in acks.into_iter().enumerate() {
            by_owner[ack.partition.shard(self.shards)].push((at, ack));
        }
        let mut results = vec![Err(ShareError::NotAvailable); count];
        for (owner, acks) in by_owner.into_iter().enumerate() {
            if acks.is_empty() {
                continue;
            }
            let (places, acks): (Vec<usize>, Vec<ShareAck>) = acks.into_iter().unzip();
            let (group, member) = (group.to_string(), member.to_string());
            let work = move |shard: Rc<Shard>| async move {
                shard.share_acknowledge_here(&group, &member, acks).await
            };
            for (at, result) in places
                .iter()
                .zip(self.at(owner, work).await.unwrap_or_default())
            {
                results[*at] = result;
            }
        }
        results
    }

    /// A member has gone: what it has is anybody's again.
    pub async fn share_release(
        self: &Rc<Self>,
        group: &str,
        member: &str,
        partitions: Vec<PartitionId>,
    ) {
        for owner in 0..self.shards {
            let of = partitions
                .iter()
                .filter(|id| id.shard(self.shards) == owner);
            let ids: Vec<PartitionId> = of.copied().collect();
            if ids.is_empty() {
                continue;
            }
            let (group, member) = (group.to_string(), member.to_string());
            let work = move |shard: Rc<Shard>| async move {
                shard.share_release_here(&group, &member, &ids);
            };
            // A shard that stops forgets who has what.
            let _stopping = self.at(owner, work).await;
        }
    }
}
