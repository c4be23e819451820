//! Owns the ways from any shard to the coordinator of a transactional id, one for each thing that is asked.
//! Does not know how a transaction goes, nor the wire.
//! Invariant: whatever is asked of one id is done on the shard that owns its partition.

use super::groups::Kinds;
use super::slots::Slot;
use super::Shard;
use crate::coord::txn::{
    AddPartitions, DescribedTxn, EndTxn, InitProducer, ListedTxn, Membership, Producer, Step,
    TopicPartitions, TxnCoordinator, TxnCtx, TxnError, TxnOf,
};
use crate::coord::{CommitInTxn, GroupError, OffsetToCommit};
use crate::error::PartitionError;
use crate::log::transactions::Before;
use crate::rt;
use crate::types::PartitionId;
use std::collections::BTreeSet;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

/// What a record of a transaction takes beside its partitions.
const TXN_BYTES: usize = 1 << 10;
/// What a record of an offset takes beside its texts.
const OFFSET_BYTES: usize = 128;

/// How long a batch waits for the markers of the transaction before its own: mostly that takes a flush or two, and clients
/// wait longer before they try again.
const CONCURRENT_WAIT: Duration = Duration::from_millis(100);

/// How often a coordinator is asked again because a marker has come meanwhile.
const MARKERS_BETWEEN_MAX: usize = 3;

impl Shard {
    /// Runs `f` on the shard that owns the id.
    async fn at_txn<R, F, Fut>(self: &Rc<Self>, transactional_id: &str, f: F) -> Result<R, TxnError>
    where
        R: Send + 'static,
        F: FnOnce(Rc<Shard>, PartitionId) -> Fut + Send + 'static,
        Fut: Future<Output = Result<R, TxnError>> + 'static,
    {
        let id = self.txn_partition(transactional_id)?;
        let owner = id.shard(self.shards);
        let result = self.at(owner, move |shard| f(shard, id)).await;
        result.unwrap_or(Err(TxnError::NotAvailable))
    }

    /// A step that may need a producer id: one is taken only where it is so.
    async fn with_spare_id(
        self: &Rc<Self>,
        id: PartitionId,
        bytes: usize,
        f: impl Fn(&mut TxnCoordinator, &mut TxnCtx) -> Result<Step, TxnError>,
    ) -> Result<Producer, TxnError> {
        let mut spare_id = None;
        loop {
            match self.at_txn_coordinator(id, bytes, spare_id, &f).await?? {
                Step::Done(producer) => return Ok(producer),
                Step::NeedsProducerId => match self.new_producer_id().await {
                    Ok(new) => spare_id = Some(new),
                    Err(error) => {
                        tracing::error!(%error, "no producer id can be given");
                        return Err(TxnError::NotAvailable);
                    }
                },
            }
        }
    }

    pub async fn init_producer(self: &Rc<Self>, asked: InitProducer) -> Result<Producer, TxnError> {
        let id = asked.transactional_id.clone();
        self.at_txn(&id, move |shard, id| async move {
            let init = |c: &mut TxnCoordinator, ctx: &mut TxnCtx| c.init(&asked, ctx);
            shard.with_spare_id(id, TXN_BYTES, init).await
        })
        .await
    }

    pub async fn end_transaction(self: &Rc<Self>, asked: EndTxn) -> Result<Producer, TxnError> {
        let id = asked.of.transactional_id.clone();
        self.at_txn(&id, move |shard, id| async move {
            let end = |c: &mut TxnCoordinator, ctx: &mut TxnCtx| c.end(&asked, ctx);
            shard.with_spare_id(id, TXN_BYTES, end).await
        })
        .await
    }

    pub async fn add_to_transaction(self: &Rc<Self>, asked: AddPartitions) -> Result<(), TxnError> {
        self.add_within(asked, Duration::ZERO).await
    }

    /// Adds partitions, after waiting up to `limit` for the end of the transaction before.
    async fn add_within(
        self: &Rc<Self>,
        asked: AddPartitions,
        limit: Duration,
    ) -> Result<(), TxnError> {
        let id = asked.of.transactional_id.clone();
        let one = |(topic, indexes): (&String, &BTreeSet<i32>)| topic.len() + 8 * indexes.len();
        let bytes = TXN_BYTES + asked.partitions.iter().map(one).sum::<usize>();
        self.at_txn(&id, move |shard, id| async move {
            let until = rt::now() + limit;
            loop {
                let slot = shard.loaded_txn_slot(id).await?;
                // Asked for first, so that none is missed.
                let changed = slot.changed.notified();
                let add = |c: &mut TxnCoordinator, ctx: &mut TxnCtx| c.add(&asked, ctx);
                let added = shard.at_txn_coordinator(id, bytes, None, add).await?;
                let left = until.since(rt::now());
                match added {
                    Err(TxnError::ConcurrentTransactions) if !left.is_zero() => {
                        let _sooner = rt::timeout(left, changed).await;
                    }
                    Ok(()) | Err(_) => return added,
                }
            }
        })
        .await
    }

    pub async fn add_group_to_transaction(
        self: &Rc<Self>,
        of: TxnOf,
        group: &str,
        version: i16,
    ) -> Result<(), TxnError> {
        let partition = self.group_partition(group)?;
        let partitions = self.names(&[partition]).ok_or(TxnError::NotAvailable)?;
        self.add_to_transaction(AddPartitions {
            of,
            partitions,
            version,
        })
        .await
    }

    pub async fn missing_in_transaction(
        self: &Rc<Self>,
        of: TxnOf,
        partitions: TopicPartitions,
    ) -> Result<TopicPartitions, TxnError> {
        let id = of.transactional_id.clone();
        self.at_txn(&id, move |shard, id| async move {
            let missing = |c: &mut TxnCoordinator, _: &mut TxnCtx| c.missing(&of, &partitions);
            shard.at_txn_coordinator(id, 0, None, missing).await?
        })
        .await
    }

    /// Partitions by the names of their topics; None where one is not there any more.
    fn names(&self, partitions: &[PartitionId]) -> Option<TopicPartitions> {
        let image = self.image();
        let mut names = TopicPartitions::new();
        for id in partitions {
            let topic = image.topic_by_id(id.topic)?;
            names
                .entry(topic.name.clone())
                .or_default()
                .insert(id.index);
        }
        Some(names)
    }

    /// The transactional ids of all shards, in no particular order.
    pub async fn list_transactions(self: &Rc<Self>) -> Result<Vec<ListedTxn>, TxnError> {
        let mut all = Vec::new();
        for shard in 0..self.shards {
            let listed = self.at(shard, |shard| async move {
                let mut listed = Vec::new();
                for id in shard.own_txn_partitions() {
                    let list = |c: &mut TxnCoordinator, _: &mut TxnCtx| c.list();
                    listed.extend(shard.at_txn_coordinator(id, 0, None, list).await?);
                }
                Ok(listed)
            });
            all.extend(listed.await.unwrap_or(Err(TxnError::NotAvailable))?);
        }
        Ok(all)
    }

    pub async fn describe_transaction(
        self: &Rc<Self>,
        transactional_id: String,
    ) -> Result<DescribedTxn, TxnError> {
        self.at_txn(&transactional_id.clone(), move |shard, id| async move {
            let describe = |c: &mut TxnCoordinator, _: &mut TxnCtx| c.describe(&transactional_id);
            shard.at_txn_coordinator(id, 0, None, describe).await?
        })
        .await
    }

    /// Has partitions in a transaction, as far as batches of it are not in them already; each with the sequence of the batch
    /// that is to come.
    pub async fn join_transaction(
        self: &Rc<Self>,
        of: TxnOf,
        partitions: Vec<(PartitionId, i32)>,
        membership: Membership,
    ) -> Vec<Result<(), TxnError>> {
        let mut results = vec![Ok(()); partitions.len()];
        let mut left: Vec<usize> = (0..partitions.len()).collect();
        for round in 0..=MARKERS_BETWEEN_MAX {
            // They are asked before the coordinator is, so that a marker that comes between is noticed: that of the
            // transaction before, for which the coordinator waits. Then what it says is about what is no longer so.
            let asked = left
                .iter()
                .map(|at| partitions[*at])
                .map(|(id, sequence)| self.await_batch(id, of.producer, sequence));
            let before = rt::join_all(asked).await;
            let mut to_join = Vec::new();
            for (at, before) in left.into_iter().zip(before) {
                match before {
                    Ok(Before::Open) => {}
                    Ok(Before::Awaited) if round > 0 => {}
                    Ok(Before::Awaited | Before::Nothing) => to_join.push(at),
                    // What is wrong is told when it is appended to.
                    Err(PartitionError::Unknown) => {}
                    Err(_) => results[at] = Err(TxnError::NotAvailable),
                }
            }
            let ids: Vec<PartitionId> = to_join.iter().map(|at| partitions[*at].0).collect();
            let joined = self.join_all(of.clone(), &ids, membership).await;
            to_join
                .iter()
                .zip(joined)
                .for_each(|(at, joined)| results[*at] = joined);
            left = to_join;
            left.retain(|at| results[*at].is_ok());
            if left.is_empty() {
                break;
            }
        }
        results
    }

    /// The coordinator's word on partitions that nothing of the transaction is in yet.
    async fn join_all(
        self: &Rc<Self>,
        of: TxnOf,
        partitions: &[PartitionId],
        membership: Membership,
    ) -> Vec<Result<(), TxnError>> {
        if partitions.is_empty() {
            return Vec::new();
        }
        let all = |result: Result<(), TxnError>| vec![result; partitions.len()];
        let Some(names) = self.names(partitions) else {
            return all(Err(TxnError::TransactionAbortable));
        };
        match membership {
            Membership::Add(version) => {
                let asked = AddPartitions {
                    of,
                    partitions: names,
                    version,
                };
                all(self.add_within(asked, CONCURRENT_WAIT).await)
            }
            Membership::Verify => match self.missing_in_transaction(of, names).await {
                Err(error) => all(Err(error)),
                Ok(missing) => {
                    let image = self.image();
                    let is_missing = |id: &PartitionId| {
                        let topic = image.topic_by_id(id.topic);
                        let missing = topic.and_then(|topic| missing.get(&topic.name));
                        missing.is_some_and(|indexes| indexes.contains(&id.index))
                    };
                    let one = |id: &PartitionId| match is_missing(id) {
                        true => Err(TxnError::TransactionAbortable),
                        false => Ok(()),
                    };
                    partitions.iter().map(one).collect()
                }
            },
        }
    }

    pub async fn commit_in_transaction(
        self: &Rc<Self>,
        asked: CommitInTxn,
    ) -> Vec<Result<(), GroupError>> {
        let (group, count) = (asked.commit.by.group.clone(), asked.commit.offsets.len());
        let all = |why: GroupError| vec![Err(why); count];
        let id = match self.group_partition(&group) {
            Ok(id) => id,
            Err(why) => return all(why),
        };
        let CommitInTxn {
            of,
            membership,
            commit,
        } = asked;
        let producer = of.producer;
        let joined = self.join_transaction(of, vec![(id, -1)], membership).await;
        if let Some(Err(why)) = joined.into_iter().next() {
            return all(GroupError::Txn(why));
        }
        let texts = |o: &OffsetToCommit| o.topic.len() + o.metadata.len() + group.len();
        let one = |o: &OffsetToCommit| OFFSET_BYTES + texts(o);
        let bytes: usize = commit.offsets.iter().map(one).sum();
        let owner = id.shard(self.shards);
        let results = self.at(owner, move |shard| async move {
            let step = |slot: &Rc<Slot<Kinds>>| {
                shard.groups_step(slot, |kinds, ctx| match kinds.share.has(&commit.by.group) {
                    true => vec![Err(GroupError::GroupIdNotFound); commit.offsets.len()],
                    false => kinds.classic.commit_in_transaction(producer, &commit, ctx),
                })
            };
            shard.at_slot(id, bytes, step).await
        });
        let results = results.await.unwrap_or(Err(GroupError::NotAvailable));
        results.unwrap_or_else(all)
    }
}
