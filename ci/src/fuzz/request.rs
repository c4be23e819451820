//! Owns the target of message bodies: every API key, every version that is served, requests and responses.
//! Does not know what a message means.
//! Invariant: a message that was read is written, and read again as the same.

use bytes::Bytes;
use millrace_net::wire::add_offsets_to_txn::AddOffsetsToTxnRequest;
use millrace_net::wire::add_partitions_to_txn::AddPartitionsToTxnRequest;
use millrace_net::wire::alter_configs::AlterConfigsRequest;
use millrace_net::wire::alter_partition_reassignments::AlterPartitionReassignmentsRequest;
use millrace_net::wire::alter_replica_log_dirs::AlterReplicaLogDirsRequest;
use millrace_net::wire::alter_share_group_offsets::AlterShareGroupOffsetsRequest;
use millrace_net::wire::api_versions::ApiVersionsRequest;
use millrace_net::wire::consumer_group_describe::ConsumerGroupDescribeRequest;
use millrace_net::wire::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use millrace_net::wire::create_partitions::CreatePartitionsRequest;
use millrace_net::wire::create_topics::CreateTopicsRequest;
use millrace_net::wire::delete_groups::DeleteGroupsRequest;
use millrace_net::wire::delete_records::DeleteRecordsRequest;
use millrace_net::wire::delete_share_group_offsets::DeleteShareGroupOffsetsRequest;
use millrace_net::wire::delete_topics::DeleteTopicsRequest;
use millrace_net::wire::describe_cluster::DescribeClusterRequest;
use millrace_net::wire::describe_configs::DescribeConfigsRequest;
use millrace_net::wire::describe_groups::DescribeGroupsRequest;
use millrace_net::wire::describe_log_dirs::DescribeLogDirsRequest;
use millrace_net::wire::describe_producers::DescribeProducersRequest;
use millrace_net::wire::describe_quorum::DescribeQuorumRequest;
use millrace_net::wire::describe_share_group_offsets::DescribeShareGroupOffsetsRequest;
use millrace_net::wire::describe_topic_partitions::DescribeTopicPartitionsRequest;
use millrace_net::wire::describe_transactions::DescribeTransactionsRequest;
use millrace_net::wire::elect_leaders::ElectLeadersRequest;
use millrace_net::wire::end_txn::EndTxnRequest;
use millrace_net::wire::fetch::FetchRequest;
use millrace_net::wire::find_coordinator::FindCoordinatorRequest;
use millrace_net::wire::heartbeat::HeartbeatRequest;
use millrace_net::wire::incremental_alter_configs::IncrementalAlterConfigsRequest;
use millrace_net::wire::init_producer_id::InitProducerIdRequest;
use millrace_net::wire::join_group::JoinGroupRequest;
use millrace_net::wire::leave_group::LeaveGroupRequest;
use millrace_net::wire::list_config_resources::ListConfigResourcesRequest;
use millrace_net::wire::list_groups::ListGroupsRequest;
use millrace_net::wire::list_offsets::ListOffsetsRequest;
use millrace_net::wire::list_partition_reassignments::ListPartitionReassignmentsRequest;
use millrace_net::wire::list_transactions::ListTransactionsRequest;
use millrace_net::wire::metadata::MetadataRequest;
use millrace_net::wire::offset_commit::OffsetCommitRequest;
use millrace_net::wire::offset_delete::OffsetDeleteRequest;
use millrace_net::wire::offset_fetch::OffsetFetchRequest;
use millrace_net::wire::offset_for_leader_epoch::OffsetForLeaderEpochRequest;
use millrace_net::wire::primitives::{
    DECODE_MEMORY_FACTOR, DECODE_MEMORY_MAX, DECODE_MEMORY_SLACK,
};
use millrace_net::wire::produce::ProduceRequest;
use millrace_net::wire::share_acknowledge::ShareAcknowledgeRequest;
use millrace_net::wire::share_fetch::ShareFetchRequest;
use millrace_net::wire::share_group_describe::ShareGroupDescribeRequest;
use millrace_net::wire::share_group_heartbeat::ShareGroupHeartbeatRequest;
use millrace_net::wire::sync_group::SyncGroupRequest;
use millrace_net::wire::txn_offset_commit::TxnOffsetCommitRequest;
use millrace_net::wire::unregister_broker::UnregisterBrokerRequest;
use millrace_net::wire::update_features::UpdateFeaturesRequest;
use millrace_net::wire::versions::SERVED;
use millrace_net::wire::write_txn_markers::WriteTxnMarkersRequest;
use millrace_net::wire::{ApiKey, Message, Reader, Request, WireError, Writer};
use std::fmt::Debug;

/// In the first byte of an input: a response, not a request.
pub const RESPONSE: u8 = 0x80;

/// A byte that says which row of the table of versions, one that says which of its versions, and the body.
pub fn request(data: &[u8]) {
    let [key, version, body @ ..] = data else {
        return;
    };
    let row = &SERVED[usize::from(key & !RESPONSE) % SERVED.len()];
    let versions = row.max - row.min + 1;
    let version = row.min + i16::from(*version) % versions;
    let body = Bytes::copy_from_slice(body);
    let _bytes = message(row.key, version, key & RESPONSE != 0, body);
}

/// Reads a body and gives the bytes it is written in.
pub fn message(key: ApiKey, version: i16, response: bool, body: Bytes) -> Result<Bytes, WireError> {
    let read = match key {
        ApiKey::Produce => either::<ProduceRequest>,
        ApiKey::Fetch => either::<FetchRequest>,
        ApiKey::ListOffsets => either::<ListOffsetsRequest>,
        ApiKey::Metadata => either::<MetadataRequest>,
        ApiKey::OffsetCommit => either::<OffsetCommitRequest>,
        ApiKey::OffsetFetch => either::<OffsetFetchRequest>,
        ApiKey::FindCoordinator => either::<FindCoordinatorRequest>,
        ApiKey::JoinGroup => either::<JoinGroupRequest>,
        ApiKey::Heartbeat => either::<HeartbeatRequest>,
        ApiKey::LeaveGroup => either::<LeaveGroupRequest>,
        ApiKey::SyncGroup => either::<SyncGroupRequest>,
        ApiKey::DescribeGroups => either::<DescribeGroupsRequest>,
        ApiKey::ListGroups => either::<ListGroupsRequest>,
        ApiKey::ApiVersions => either::<ApiVersionsRequest>,
        ApiKey::CreateTopics => either::<CreateTopicsRequest>,
        ApiKey::DeleteTopics => either::<DeleteTopicsRequest>,
        ApiKey::DeleteRecords => either::<DeleteRecordsRequest>,
        ApiKey::InitProducerId => either::<InitProducerIdRequest>,
        ApiKey::OffsetForLeaderEpoch => either::<OffsetForLeaderEpochRequest>,
        ApiKey::AddPartitionsToTxn => either::<AddPartitionsToTxnRequest>,
        ApiKey::AddOffsetsToTxn => either::<AddOffsetsToTxnRequest>,
        ApiKey::EndTxn => either::<EndTxnRequest>,
        ApiKey::WriteTxnMarkers => either::<WriteTxnMarkersRequest>,
        ApiKey::TxnOffsetCommit => either::<TxnOffsetCommitRequest>,
        ApiKey::DescribeConfigs => either::<DescribeConfigsRequest>,
        ApiKey::AlterConfigs => either::<AlterConfigsRequest>,
        ApiKey::AlterReplicaLogDirs => either::<AlterReplicaLogDirsRequest>,
        ApiKey::DescribeLogDirs => either::<DescribeLogDirsRequest>,
        ApiKey::CreatePartitions => either::<CreatePartitionsRequest>,
        ApiKey::DeleteGroups => either::<DeleteGroupsRequest>,
        ApiKey::ElectLeaders => either::<ElectLeadersRequest>,
        ApiKey::IncrementalAlterConfigs => either::<IncrementalAlterConfigsRequest>,
        ApiKey::AlterPartitionReassignments => either::<AlterPartitionReassignmentsRequest>,
        ApiKey::ListPartitionReassignments => either::<ListPartitionReassignmentsRequest>,
        ApiKey::OffsetDelete => either::<OffsetDeleteRequest>,
        ApiKey::DescribeQuorum => either::<DescribeQuorumRequest>,
        ApiKey::UpdateFeatures => either::<UpdateFeaturesRequest>,
        ApiKey::DescribeCluster => either::<DescribeClusterRequest>,
        ApiKey::DescribeProducers => either::<DescribeProducersRequest>,
        ApiKey::UnregisterBroker => either::<UnregisterBrokerRequest>,
        ApiKey::DescribeTransactions => either::<DescribeTransactionsRequest>,
        ApiKey::ListTransactions => either::<ListTransactionsRequest>,
        ApiKey::ConsumerGroupHeartbeat => either::<ConsumerGroupHeartbeatRequest>,
        ApiKey::ConsumerGroupDescribe => either::<ConsumerGroupDescribeRequest>,
        ApiKey::ListConfigResources => either::<ListConfigResourcesRequest>,
        ApiKey::DescribeTopicPartitions => either::<DescribeTopicPartitionsRequest>,
        ApiKey::ShareGroupHeartbeat => either::<ShareGroupHeartbeatRequest>,
        ApiKey::ShareGroupDescribe => either::<ShareGroupDescribeRequest>,
        ApiKey::ShareFetch => either::<ShareFetchRequest>,
        ApiKey::ShareAcknowledge => either::<ShareAcknowledgeRequest>,
        ApiKey::DescribeShareGroupOffsets => either::<DescribeShareGroupOffsetsRequest>,
        ApiKey::AlterShareGroupOffsets => either::<AlterShareGroupOffsetsRequest>,
        ApiKey::DeleteShareGroupOffsets => either::<DeleteShareGroupOffsetsRequest>,
    };
    read(version, response, body)
}

fn either<R>(version: i16, response: bool, body: Bytes) -> Result<Bytes, WireError>
where
    R: Request + PartialEq + Debug,
    R::Response: PartialEq + Debug,
{
    if response {
        round::<R::Response>(version, body)
    } else {
        round::<R>(version, body)
    }
}

fn round<M: Message + PartialEq + Debug>(version: i16, body: Bytes) -> Result<Bytes, WireError> {
    // What is left over is ignored, as a broker ignores it.
    let first = M::decode(&mut Reader::new(body.clone()), version)?;
    let bytes = match write(&first, Writer::new(), version) {
        Ok(writer) => writer.into_bytes(),
        // A compact string may be longer on the wire than any string may be.
        Err(error @ WireError::TooLong { .. }) => return Err(error),
        Err(error) => panic!("{} v{version} was read but not written: {error}", M::NAME),
    };
    let pieces = write(&first, Writer::sharing(), version).map(Writer::into_pieces);
    let pieces = pieces.map(|pieces| Bytes::from(pieces.concat()));
    assert_eq!(pieces, Ok(bytes.clone()));
    // Unknown fields are not written again, so there is less to derive the memory from.
    let memory = body.len() * DECODE_MEMORY_FACTOR + DECODE_MEMORY_SLACK;
    let mut reader = Reader::with_memory(bytes.clone(), memory.min(DECODE_MEMORY_MAX));
    let again = M::decode(&mut reader, version).and_then(|again| {
        reader.finish()?;
        Ok(again)
    });
    assert_eq!(again.as_ref(), Ok(&first), "{} v{version}", M::NAME);
    Ok(bytes)
}

fn write<M: Message>(message: &M, mut writer: Writer, version: i16) -> Result<Writer, WireError> {
    message.encode(&mut writer, version)?;
    Ok(writer)
}
