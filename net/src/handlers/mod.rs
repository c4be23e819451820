//! Owns the handlers, one file per API key, and the way from a request's bytes to its response's.
//! Does not know sockets or connections (Produce and Fetch excepted, which run concurrently).
//! Invariant: every key that is served has its arm here; a key without one does not compile.

mod add_offsets_to_txn;
mod add_partitions_to_txn;
mod admin;
mod allowed;
mod alter_configs;
mod alter_partition_reassignments;
mod alter_replica_log_dirs;
mod alter_share_group_offsets;
pub(crate) mod api_versions;
mod called;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_share_group_offsets;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_share_group_offsets;
mod describe_topic_partitions;
mod describe_transactions;
mod elect_leaders;
mod end_txn;
pub(crate) mod fetch;
pub(crate) mod fetch_session;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leaders;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod list_transactions;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
pub(crate) mod produce;
mod produce_txn;
mod share_acknowledge;
mod share_acks;
mod share_fetch;
mod share_group_describe;
mod share_group_heartbeat;
pub(crate) mod share_session;
mod sync_group;
mod txn_offset_commit;
mod unregister_broker;
mod update_features;
mod write_txn_markers;

use crate::conn::CloseReason;
use crate::out::Out;
use crate::shard::ShardNet;
use crate::shared::Door;
use crate::wire::list_partition_reassignments::ListPartitionReassignmentsRequest;
use crate::wire::{ApiKey, Reader, Request, Str};
use millrace_engine::api::meta::{Image, Topic};
use millrace_engine::rt;
use millrace_engine::types::PartitionId;
use share_session::ShareSessions;
use std::cell::RefCell;
use std::collections::HashSet;
use std::future::Future;
use std::hash::Hash;
use std::net::IpAddr;
use std::rc::Rc;

/// Whether a response tells of an error anywhere.
pub(crate) trait Outcome {
    fn failed(&self) -> bool;
}

/// One request that is served alone, and where its response goes.
struct Call<'a> {
    out: &'a RefCell<Out>,
    version: i16,
    correlation_id: i32,
    body: Reader,
}

impl Call<'_> {
    async fn answer<R, F>(self, handle: impl FnOnce(R, i16) -> F) -> Result<bool, CloseReason>
    where
        R: Request,
        R::Response: Outcome,
        F: Future<Output = R::Response>,
    {
        let Call {
            out,
            version,
            correlation_id,
            mut body,
        } = self;
        let request = R::decode(&mut body, version)?;
        // From here on the frame lives as long as what the handler keeps of it.
        drop(body);
        let response = handle(request, version).await;
        let mut out = out.borrow_mut();
        out.respond::<R>(correlation_id, version, &response)
            .map_err(CloseReason::Response)?;
        Ok(response.failed())
    }
}

/// Who asks.
pub(crate) struct Asker {
    /// As the request's header says; empty if it does not.
    pub(crate) client_id: String,
    pub(crate) address: IpAddr,
    /// Of the connection.
    pub(crate) share: Rc<ShareSessions>,
}

/// An address as Java writes it, which is how tools show members: `/127.0.0.1`, and nothing of a long one left out.
fn host(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("/{address}"),
        IpAddr::V6(address) => {
            let parts = address.segments().map(|part| format!("{part:x}"));
            format!("/{}", parts.join(":"))
        }
    }
}

/// What is known of a request before its body is read.
pub(crate) struct Asked {
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) door: Door,
    pub(crate) asker: Asker,
}

/// Serves any request but Produce and Fetch; gives whether its response tells of an error.
pub(crate) async fn serve(
    shard: &ShardNet,
    out: &RefCell<Out>,
    asked: Asked,
    body: Reader,
) -> Result<bool, CloseReason> {
    let Asked {
        key,
        version,
        correlation_id,
        door,
        asker,
    } = asked;
    let call = Call {
        out,
        version,
        correlation_id,
        body,
    };
    match key {
        ApiKey::Produce | ApiKey::Fetch => unreachable!("served by the connection itself"),
        ApiKey::ListOffsets => call.answer(|r, v| list_offsets::handle(shard, r, v)).await,
        ApiKey::Metadata => call.answer(|r, v| metadata::handle(shard, r, v)).await,
        ApiKey::OffsetCommit => call.answer(|r, v| offset_commit::handle(shard, r, v)).await,
        ApiKey::OffsetFetch => call.answer(|r, v| offset_fetch::handle(shard, r, v)).await,
        ApiKey::FindCoordinator => {
            call.answer(|r, v| find_coordinator::handle(shard, r, v))
                .await
        }
        ApiKey::JoinGroup => {
            call.answer(|r, v| join_group::handle(shard, r, v, asker))
                .await
        }
        ApiKey::Heartbeat => call.answer(|r, _| heartbeat::handle(shard, r)).await,
        ApiKey::LeaveGroup => call.answer(|r, v| leave_group::handle(shard, r, v)).await,
        ApiKey::SyncGroup => call.answer(|r, v| sync_group::handle(shard, r, v)).await,
        ApiKey::DescribeGroups => {
            call.answer(|r, v| describe_groups::handle(shard, r, v))
                .await
        }
        ApiKey::ListGroups => call.answer(|r, _| list_groups::handle(shard, r)).await,
        ApiKey::ApiVersions => call.answer(|r, v| api_versions::handle(shard, r, v)).await,
        ApiKey::CreateTopics => call.answer(|r, v| create_topics::handle(shard, r, v)).await,
        ApiKey::DeleteTopics => call.answer(|r, v| delete_topics::handle(shard, r, v)).await,
        ApiKey::DeleteRecords => call.answer(|r, _| delete_records::handle(shard, r)).await,
        ApiKey::InitProducerId => {
            call.answer(|r, v| init_producer_id::handle(shard, r, v))
                .await
        }
        ApiKey::OffsetForLeaderEpoch => {
            call.answer(|r, _| offset_for_leader_epoch::handle(shard, r))
                .await
        }
        ApiKey::AddPartitionsToTxn => {
            call.answer(|r, v| add_partitions_to_txn::handle(shard, r, v))
                .await
        }
        ApiKey::AddOffsetsToTxn => {
            call.answer(|r, v| add_offsets_to_txn::handle(shard, r, v))
                .await
        }
        ApiKey::EndTxn => call.answer(|r, v| end_txn::handle(shard, r, v)).await,
        ApiKey::WriteTxnMarkers => {
            call.answer(|r, _| write_txn_markers::handle(shard, r))
                .await
        }
        ApiKey::TxnOffsetCommit => {
            call.answer(|r, v| txn_offset_commit::handle(shard, r, v))
                .await
        }
        ApiKey::DescribeConfigs => {
            call.answer(|r, v| describe_configs::handle(shard, r, v))
                .await
        }
        ApiKey::AlterConfigs => call.answer(|r, _| alter_configs::handle(shard, r)).await,
        ApiKey::AlterReplicaLogDirs => {
            call.answer(|r, _| alter_replica_log_dirs::handle(shard, r))
                .await
        }
        ApiKey::DescribeLogDirs => {
            call.answer(|r, _| describe_log_dirs::handle(shard, r, door))
                .await
        }
        ApiKey::CreatePartitions => {
            call.answer(|r, _| create_partitions::handle(shard, r))
                .await
        }
        ApiKey::DeleteGroups => call.answer(|r, _| delete_groups::handle(shard, r)).await,
        ApiKey::ElectLeaders => call.answer(|r, _| elect_leaders::handle(shard, r)).await,
        ApiKey::IncrementalAlterConfigs => {
            call.answer(|r, _| incremental_alter_configs::handle(shard, r))
                .await
        }
        ApiKey::AlterPartitionReassignments => {
            call.answer(|r, _| alter_partition_reassignments::handle(shard, r))
                .await
        }
        ApiKey::ListPartitionReassignments => {
            call.answer(|_: ListPartitionReassignmentsRequest, _| {
                list_partition_reassignments::handle()
            })
            .await
        }
        ApiKey::OffsetDelete => call.answer(|r, _| offset_delete::handle(shard, r)).await,
        ApiKey::DescribeQuorum => call.answer(|r, _| describe_quorum::handle(shard, r)).await,
        ApiKey::UpdateFeatures => call.answer(update_features::handle).await,
        ApiKey::DescribeCluster => call.answer(|r, _| describe_cluster::handle(shard, r)).await,
        ApiKey::DescribeProducers => {
            call.answer(|r, _| describe_producers::handle(shard, r))
                .await
        }
        ApiKey::UnregisterBroker => {
            call.answer(|r, _| unregister_broker::handle(shard, r))
                .await
        }
        ApiKey::DescribeTransactions => {
            call.answer(|r, _| describe_transactions::handle(shard, r))
                .await
        }
        ApiKey::ListTransactions => {
            call.answer(|r, _| list_transactions::handle(shard, r))
                .await
        }
        ApiKey::ConsumerGroupHeartbeat => {
            call.answer(|r, v| consumer_group_heartbeat::handle(shard, r, v, asker))
                .await
        }
        ApiKey::ConsumerGroupDescribe => {
            call.answer(|r, _| consumer_group_describe::handle(shard, r))
                .await
        }
        ApiKey::ListConfigResources => {
            call.answer(|r, v| list_config_resources::handle(shard, r, v))
                .await
        }
        ApiKey::DescribeTopicPartitions => {
            call.answer(|r, _| describe_topic_partitions::handle(shard, r))
                .await
        }
        ApiKey::ShareGroupHeartbeat => {
            call.answer(|r, _| share_group_heartbeat::handle(shard, r, asker))
                .await
        }
        ApiKey::ShareGroupDescribe => {
            call.answer(|r, _| share_group_describe::handle(shard, r))
                .await
        }
        ApiKey::ShareFetch => {
            let sessions = asker.share.clone();
            call.answer(|r, _| share_fetch::handle(shard, r, &sessions))
                .await
        }
        ApiKey::ShareAcknowledge => {
            let sessions = asker.share.clone();
            call.answer(|r, _| share_acknowledge::handle(shard, r, &sessions))
                .await
        }
        ApiKey::DescribeShareGroupOffsets => {
            call.answer(|r, _| describe_share_group_offsets::handle(shard, r))
                .await
        }
        ApiKey::AlterShareGroupOffsets => {
            call.answer(|r, _| alter_share_group_offsets::handle(shard, r))
                .await
        }
        ApiKey::DeleteShareGroupOffsets => {
            call.answer(|r, _| delete_share_group_offsets::handle(shard, r))
                .await
        }
    }
}

/// Futures that one request has under way at once.
const TOGETHER_MAX: usize = 32;

/// Runs one future per item, some at a time; the results are in the order of the items.
pub(crate) async fn for_each<I, T, F: Future<Output = T>>(
    items: impl IntoIterator<Item = I>,
    mut start: impl FnMut(I) -> F,
) -> Vec<T> {
    let mut items = items.into_iter();
    let mut results = Vec::with_capacity(items.size_hint().0);
    loop {
        let some: Vec<F> = items.by_ref().take(TOGETHER_MAX).map(&mut start).collect();
        if some.is_empty() {
            return results;
        }
        results.append(&mut rt::join_all(some.into_iter()).await);
    }
}

/// Those that are asked for, each once, in the order in which they are first named. An answer may be thousands of times as
/// long as what asks for it, so that who repeats a name gets no more for it.
pub(crate) fn each_once<I, K: Eq + Hash>(asked: Vec<I>, key: impl Fn(&I) -> K) -> Vec<I> {
    let mut seen = HashSet::with_capacity(asked.len());
    let first = |one: &I| seen.insert(key(one));
    asked.into_iter().filter(first).collect()
}

/// Counts a request for these partitions if any of them lives on another shard.
fn note_owners<'a>(
    shard: &ShardNet,
    key: ApiKey,
    image: &Image,
    asked: impl Iterator<Item = (&'a str, i32)>,
) {
    if shard.shards == 1 {
        return;
    }
    let owner = |(topic, index): (&str, i32)| {
        let id = image.topic(topic)?.id;
        Some(shard.broker.owner(PartitionId::new(id, index)))
    };
    shard.note_owners(key, asked.filter_map(owner));
}

/// Answers topic by topic what is asked of single partitions, some partitions of a topic at a time; `one` gets the
/// topic as the metadata has it, or none.
pub(crate) async fn for_each_partition<'a, Q, A, T, F: Future<Output = A>>(
    image: &'a Image,
    topics: impl ExactSizeIterator<Item = (Str, Vec<Q>)>,
    one: impl Fn(Option<&'a Topic>, Q) -> F,
    answer: impl Fn(Str, Vec<A>) -> T,
) -> Vec<T> {
    let mut answers = Vec::with_capacity(topics.len());
    for (name, partitions) in topics {
        let known = image.topic(&name).map(|known| &**known);
        let partitions = for_each(partitions, |asked| one(known, asked)).await;
        answers.push(answer(name, partitions));
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, yield_now};
    use millrace_engine::api::meta::{machine, names, Command, Overrides};
    use millrace_engine::types::TopicId;

    /// Node 1 at `h:1`, and these topics with so many partitions.
    pub(crate) fn image(topics: &[(&str, i32)]) -> Image {
        let mut image = Image::new("c".repeat(22), 1, Default::default()).unwrap();
        let node = Command::RegisterNode {
            id: 1,
            host: "h".into(),
            port: 1,
            rack: None,
        };
        machine::apply(&mut image, &node).unwrap();
        for (at, (name, partitions)) in topics.iter().enumerate() {
            let create = Command::CreateTopic {
                id: TopicId::from_random(at as u64 + 1, 1),
                name: (*name).into(),
                internal: names::is_internal(name),
                partitions: *partitions,
                replication_factor: 1,
                assignment: vec![],
                overrides: Overrides::new(),
            };
            machine::apply(&mut image, &create).unwrap();
        }
        image
    }

    #[test]
    fn results_come_in_the_order_of_the_items_however_long_each_takes() {
        let results = block_on(for_each(0..100u32, |i| async move {
            for _ in 0..(i * 7) % 5 {
                yield_now().await;
            }
            i * 2
        }));
        assert_eq!(results, (0..100).map(|i| i * 2).collect::<Vec<_>>());
    }
}
