//! Owns the ways from any shard to the coordinator of a group, one for each thing that is asked.
//! Does not know how a group works, nor the wire.
//! Invariant: whatever is asked of one group is done on the shard that owns its partition.

use super::groups::Kinds;
use super::slots::Slot;
use super::Shard;
use crate::coord::{
    CommitOffsets, Coordinator, Ctx, DescribedGroup, FetchOffsets, FetchedOffsets, GroupError,
    JoinGroup, Joined, Leaver, ListedGroup, MemberOf, OffsetToCommit, Reply, SyncGroup, Synced,
};
use crate::types::PartitionId;
use std::future::Future;
use std::rc::Rc;

/// What a group with its members is taken to need when it is kept.
const GROUP_BYTES: usize = 16 << 10;
/// What a record of an offset takes beside its texts.
const OFFSET_BYTES: usize = 128;

type Deleted = Vec<Vec<Result<(), GroupError>>>;

impl Shard {
    /// Runs `f` on the shard that owns the group.
    pub(super) async fn at_group<R, F, Fut>(
        self: &Rc<Self>,
        group: &str,
        f: F,
    ) -> Result<R, GroupError>
    where
        R: Send + 'static,
        F: FnOnce(Rc<Shard>, PartitionId) -> Fut + Send + 'static,
        Fut: Future<Output = Result<R, GroupError>> + 'static,
    {
        let id = self.group_partition(group)?;
        let owner = id.shard(self.shards);
        let result = self.at(owner, move |shard| f(shard, id)).await;
        result.unwrap_or(Err(GroupError::NotAvailable))
    }

    pub async fn join_group(self: &Rc<Self>, asked: JoinGroup) -> Joined {
        let (group, member) = (asked.group.clone(), asked.member.clone());
        let asked_metadata: usize = asked.protocols.iter().map(|(n, b)| n.len() + b.len()).sum();
        let bytes = GROUP_BYTES + asked_metadata;
        let reply = self.at_group(&group, move |shard, id| async move {
            let join = |kinds: &mut Kinds, token, ctx: &mut Ctx| match kinds.share.has(&asked.group)
            {
                true => {
                    let why = GroupError::InconsistentGroupProtocol;
                    let refused = Joined::refused(&asked.member, why);
                    ctx.replies.push((token, Reply::Joined(refused)));
                }
                false => kinds.classic.join(asked, token, ctx),
            };
            shard.ask_groups(id, bytes, join).await
        });
        match reply.await {
            Ok(Reply::Joined(joined)) => joined,
            Ok(Reply::Synced(_)) => unreachable!("a join is answered by what a join gives"),
            Err(why) => Joined::refused(&member, why),
        }
    }

    pub async fn sync_group(self: &Rc<Self>, asked: SyncGroup) -> Result<Synced, GroupError> {
        let group = asked.group.clone();
        let assigned: usize = asked
            .assignments
            .iter()
            .map(|(m, b)| m.len() + b.len())
            .sum();
        let bytes = GROUP_BYTES + assigned;
        let reply = self.at_group(&group, move |shard, id| async move {
            let sync = |c: &mut Coordinator, token, ctx: &mut Ctx| c.sync(asked, token, ctx);
            shard.ask_coordinator(id, bytes, sync).await
        });
        match reply.await? {
            Reply::Synced(synced) => synced,
            Reply::Joined(_) => unreachable!("a sync is answered by what a sync gives"),
        }
    }

    pub async fn group_heartbeat(self: &Rc<Self>, by: MemberOf) -> Result<(), GroupError> {
        let group = by.group.clone();
        self.at_group(&group, move |shard, id| async move {
            shard
                .at_coordinator(id, 0, |c, ctx| c.heartbeat(&by, ctx))
                .await?
        })
        .await
    }

    pub async fn leave_group(
        self: &Rc<Self>,
        group: String,
        leavers: Vec<Leaver>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        self.at_group(&group.clone(), move |shard, id| async move {
            let leave = |c: &mut Coordinator, ctx: &mut Ctx| c.leave(&group, &leavers, ctx);
            shard.at_coordinator(id, GROUP_BYTES, leave).await
        })
        .await
    }

    pub async fn commit_offsets(
        self: &Rc<Self>,
        asked: CommitOffsets,
    ) -> Vec<Result<(), GroupError>> {
        let (group, count) = (asked.by.group.clone(), asked.offsets.len());
        let texts = |o: &OffsetToCommit| o.topic.len() + o.metadata.len();
        let bytes: usize = asked.offsets.iter().map(|o| OFFSET_BYTES + texts(o)).sum();
        let bytes = bytes + count * group.len();
        let results = self.at_group(&group, move |shard, id| async move {
            let step = |slot: &Rc<Slot<Kinds>>| {
                shard.groups_step(slot, |kinds, ctx| match kinds.share.has(&asked.by.group) {
                    // Where it is in its partitions is kept elsewhere.
                    true => vec![Err(GroupError::GroupIdNotFound); asked.offsets.len()],
                    false => kinds.classic.commit(&asked, ctx),
                })
            };
            shard.at_slot(id, bytes, step).await
        });
        results.await.unwrap_or_else(|why| vec![Err(why); count])
    }

    pub async fn fetch_offsets(
        self: &Rc<Self>,
        asked: FetchOffsets,
    ) -> Result<FetchedOffsets, GroupError> {
        let group = asked.group.clone();
        self.at_group(&group, move |shard, id| async move {
            shard
                .at_coordinator(id, 0, |c, ctx| c.fetch(&asked, ctx.topics))
                .await?
        })
        .await
    }

    /// The groups of all shards, in no particular order.
    pub async fn list_groups(self: &Rc<Self>) -> Result<Vec<ListedGroup>, GroupError> {
        let mut groups = Vec::new();
        for shard in 0..self.shards {
            let listed = self.at(shard, |shard| async move {
                let mut listed = Vec::new();
                for id in shard.own_group_partitions() {
                    listed.extend(shard.at_coordinator(id, 0, |c, _| c.list()).await?);
                }
                Ok(listed)
            });
            groups.extend(listed.await.unwrap_or(Err(GroupError::NotAvailable))?);
        }
        Ok(groups)
    }

    pub async fn describe_group(
        self: &Rc<Self>,
        group: String,
    ) -> Result<DescribedGroup, GroupError> {
        self.at_group(&group.clone(), move |shard, id| async move {
            shard
                .at_coordinator(id, 0, |c, _| c.describe(&group))
                .await?
        })
        .await
    }

    pub async fn delete_group(self: &Rc<Self>, group: String) -> Result<(), GroupError> {
        self.at_group(&group.clone(), move |shard, id| async move {
            shard
                .at_coordinator(id, GROUP_BYTES, |c, ctx| c.delete(&group, ctx))
                .await?
        })
        .await
    }

    pub async fn delete_offsets(
        self: &Rc<Self>,
        group: String,
        topics: Vec<(String, Vec<i32>)>,
    ) -> Result<Deleted, GroupError> {
        let one = |(topic, partitions): &(String, Vec<i32>)| {
            partitions.len() * (OFFSET_BYTES + topic.len())
        };
        let bytes: usize = topics.iter().map(one).sum();
        self.at_group(&group.clone(), move |shard, id| async move {
            let delete =
                |c: &mut Coordinator, ctx: &mut Ctx| c.delete_offsets(&group, &topics, ctx);
            shard.at_coordinator(id, bytes, delete).await?
        })
        .await
    }
}
