//! Owns the one table of what is served: every API key with its versions.
//! Does not know handlers or how a version differs from another.
//! Keeps: whatever is advertised comes from this table, and the codec can decode all that the table serves.
use super::add_offsets_to_txn::AddOffsetsToTxnRequest;
use super::add_partitions_to_txn::AddPartitionsToTxnRequest;
use super::alter_configs::AlterConfigsRequest;
use super::alter_partition_reassignments::AlterPartitionReassignmentsRequest;
use super::alter_replica_log_dirs::AlterReplicaLogDirsRequest;
use super::alter_share_group_offsets::AlterShareGroupOffsetsRequest;
use super::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use super::consumer_group_describe::ConsumerGroupDescribeRequest;
use super::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use super::create_partitions::CreatePartitionsRequest;
use super::create_topics::CreateTopicsRequest;
use super::delete_groups::DeleteGroupsRequest;
use super::delete_records::DeleteRecordsRequest;
use super::delete_share_group_offsets::DeleteShareGroupOffsetsRequest;
use super::delete_topics::DeleteTopicsRequest;
use super::describe_cluster::DescribeClusterRequest;
use super::describe_configs::DescribeConfigsRequest;
use super::describe_groups::DescribeGroupsRequest;
use super::describe_log_dirs::DescribeLogDirsRequest;
use super::describe_producers::DescribeProducersRequest;
use super::describe_quorum::DescribeQuorumRequest;
use super::describe_share_group_offsets::DescribeShareGroupOffsetsRequest;
use super::describe_topic_partitions::DescribeTopicPartitionsRequest;
use super::describe_transactions::DescribeTransactionsRequest;
use super::elect_leaders::ElectLeadersRequest;
use super::end_txn::EndTxnRequest;
use super::error_code::ErrorCode;
use super::fetch::FetchRequest;
use super::find_coordinator::FindCoordinatorRequest;
use super::heartbeat::HeartbeatRequest;
use super::incremental_alter_configs::IncrementalAlterConfigsRequest;
use super::init_producer_id::InitProducerIdRequest;
use super::join_group::JoinGroupRequest;
use super::leave_group::LeaveGroupRequest;
use super::list_config_resources::ListConfigResourcesRequest;
use super::list_groups::ListGroupsRequest;
use super::list_offsets::ListOffsetsRequest;
use super::list_partition_reassignments::ListPartitionReassignmentsRequest;
use super::list_transactions::ListTransactionsRequest;
use super::metadata::MetadataRequest;
use super::offset_commit::OffsetCommitRequest;
use super::offset_delete::OffsetDeleteRequest;
use super::offset_fetch::OffsetFetchRequest;
use super::offset_for_leader_epoch::OffsetForLeaderEpochRequest;
use super::produce::ProduceRequest;
use super::schema::Request;
use super::share_acknowledge::ShareAcknowledgeRequest;
use super::share_fetch::ShareFetchRequest;
use super::share_group_describe::ShareGroupDescribeRequest;
use super::share_group_heartbeat::ShareGroupHeartbeatRequest;
use super::sync_group::SyncGroupRequest;
use super::txn_offset_commit::TxnOffsetCommitRequest;
use super::unregister_broker::UnregisterBrokerRequest;
use super::update_features::UpdateFeaturesRequest;
use super::write_txn_markers::WriteTxnMarkersRequest;

macro_rules! api_keys {
    ($($key:ident = $code:literal),* $(,)?) => {
        /// The API keys the codec knows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i16)]
        pub enum ApiKey {
            $($key = $code,)*
        }

        impl ApiKey {
            /// Every key, ascending.
            pub const ALL: &'static [ApiKey] = &[$(ApiKey::$key,)*];

            /// The number on the wire.
            pub const fn code(self) -> i16 {
                self as i16
            }

            pub const fn from_code(code: i16) -> Option<Self> {
                match code {
                    $($code => Some(ApiKey::$key),)*
                    _ => None,
                }
            }

            /// Kafka's name of the API, such as `ListOffsets`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(ApiKey::$key => stringify!($key),)*
                }
            }
        }
    };
}

api_keys! {
    Produce = 0,
    Fetch = 1,
    ListOffsets = 2,
    Metadata = 3,
    OffsetCommit = 8,
    OffsetFetch = 9,
    FindCoordinator = 10,
    JoinGroup = 11,
    Heartbeat = 12,
    LeaveGroup = 13,
    SyncGroup = 14,
    DescribeGroups = 15,
    ListGroups = 16,
    ApiVersions = 18,
    CreateTopics = 19,
    DeleteTopics = 20,
    DeleteRecords = 21,
    InitProducerId = 22,
    OffsetForLeaderEpoch = 23,
    AddPartitionsToTxn = 24,
    AddOffsetsToTxn = 25,
    EndTxn = 26,
    WriteTxnMarkers = 27,
    TxnOffsetCommit = 28,
    DescribeConfigs = 32,
    AlterConfigs = 33,
    AlterReplicaLogDirs = 34,
    DescribeLogDirs = 35,
    CreatePartitions = 37,
    DeleteGroups = 42,
    ElectLeaders = 43,
    IncrementalAlterConfigs = 44,
    AlterPartitionReassignments = 45,
    ListPartitionReassignments = 46,
    OffsetDelete = 47,
    DescribeQuorum = 55,
    UpdateFeatures = 57,
    DescribeCluster = 60,
    DescribeProducers = 61,
    UnregisterBroker = 64,
    DescribeTransactions = 65,
    ListTransactions = 66,
    ConsumerGroupHeartbeat = 68,
    ConsumerGroupDescribe = 69,
    ListConfigResources = 74,
    DescribeTopicPartitions = 75,
    ShareGroupHeartbeat = 76,
    ShareGroupDescribe = 77,
    ShareFetch = 78,
    ShareAcknowledge = 79,
    DescribeShareGroupOffsets = 90,
    AlterShareGroupOffsets = 91,
    DeleteShareGroupOffsets = 92,
}

impl std::fmt::Display for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    pub key: ApiKey,
    /// What ApiVersions says; may be lower than what is served.
    pub min_advertised: i16,
    pub min: i16,
    pub max: i16,
    /// First version with compact lengths, tagged fields and the flexible header.
    pub first_flexible: i16,
}

impl Served {
    /// Whether a request of this version gets an answer other than UNSUPPORTED_VERSION.
    pub const fn serves(&self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }
}

const fn row<R: Request>(min_advertised: i16, min: i16, max: i16) -> Served {
    assert!(min_advertised <= min && min <= max);
    assert!(R::VERSIONS.0 <= min && max <= R::VERSIONS.1);
    Served {
        key: R::KEY,
        min_advertised,
        min,
        max,
        first_flexible: R::FLEXIBLE,
    }
}

/// What is served, by ascending key.
pub const SERVED: &[Served] = &[
    // Clients of librdkafka take a minimum above 0 for a broker too old to compress (KAFKA-18659), so 0 is
    // advertised although nothing below 3 is accepted. From 13 on both name topics by id.
    row::<ProduceRequest>(0, 3, 13),
    row::<FetchRequest>(4, 4, 18),
    row::<ListOffsetsRequest>(1, 1, 11),
    row::<MetadataRequest>(0, 0, 13),
    row::<OffsetCommitRequest>(2, 2, 10),
    row::<OffsetFetchRequest>(1, 1, 10),
    row::<FindCoordinatorRequest>(0, 0, 6),
    row::<JoinGroupRequest>(0, 0, 9),
    row::<HeartbeatRequest>(0, 0, 4),
    row::<LeaveGroupRequest>(0, 0, 5),
    row::<SyncGroupRequest>(0, 0, 5),
    row::<DescribeGroupsRequest>(0, 0, 6),
    row::<ListGroupsRequest>(0, 0, 5),
    row::<ApiVersionsRequest>(0, 0, 5),
    row::<CreateTopicsRequest>(2, 2, 7),
    row::<DeleteTopicsRequest>(1, 1, 6),
    row::<DeleteRecordsRequest>(0, 0, 2),
    row::<InitProducerIdRequest>(0, 0, 5),
    row::<OffsetForLeaderEpochRequest>(2, 2, 4),
    row::<AddPartitionsToTxnRequest>(0, 0, 5),
    row::<AddOffsetsToTxnRequest>(0, 0, 4),
    row::<EndTxnRequest>(0, 0, 5),
    row::<WriteTxnMarkersRequest>(1, 1, 2),
    row::<TxnOffsetCommitRequest>(0, 0, 6),
    row::<DescribeConfigsRequest>(1, 1, 4),
    row::<AlterConfigsRequest>(0, 0, 2),
    row::<AlterReplicaLogDirsRequest>(1, 1, 2),
    row::<DescribeLogDirsRequest>(1, 1, 5),
    row::<CreatePartitionsRequest>(0, 0, 3),
    row::<DeleteGroupsRequest>(0, 0, 3),
    row::<ElectLeadersRequest>(0, 0, 2),
    row::<IncrementalAlterConfigsRequest>(0, 0, 1),
    row::<AlterPartitionReassignmentsRequest>(0, 0, 1),
    row::<ListPartitionReassignmentsRequest>(0, 0, 0),
    row::<OffsetDeleteRequest>(0, 0, 0),
    row::<DescribeQuorumRequest>(0, 0, 2),
    row::<UpdateFeaturesRequest>(0, 0, 2),
    row::<DescribeClusterRequest>(0, 0, 2),
    row::<DescribeProducersRequest>(0, 0, 0),
    row::<UnregisterBrokerRequest>(0, 0, 0),
    row::<DescribeTransactionsRequest>(0, 0, 0),
    row::<ListTransactionsRequest>(0, 0, 2),
    row::<ConsumerGroupHeartbeatRequest>(0, 0, 1),
    row::<ConsumerGroupDescribeRequest>(0, 0, 1),
    row::<ListConfigResourcesRequest>(0, 0, 1),
    row::<DescribeTopicPartitionsRequest>(0, 0, 0),
    row::<ShareGroupHeartbeatRequest>(1, 1, 1),
    row::<ShareGroupDescribeRequest>(1, 1, 1),
    row::<ShareFetchRequest>(1, 1, 2),
    row::<ShareAcknowledgeRequest>(1, 1, 2),
    row::<DescribeShareGroupOffsetsRequest>(0, 0, 1),
    row::<AlterShareGroupOffsetsRequest>(0, 0, 0),
    row::<DeleteShareGroupOffsetsRequest>(0, 0, 0),
];

/// The row of a key as it came on the wire; `None` if it is not served.
pub fn served(code: i16) -> Option<&'static Served> {
    SERVED.iter().find(|served| served.key.code() == code)
}

/// The table as ApiVersions sends it.
pub fn advertised() -> Vec<ApiVersion> {
    SERVED
        .iter()
        .map(|served| ApiVersion {
            api_key: served.key.code(),
            min_version: served.min_advertised,
            max_version: served.max,
        })
        .collect()
}

/// The answer, always in version 0, to an ApiVersions request of a version that is not served: it names the versions
/// of ApiVersions only, with which the client asks again.
pub fn refusal() -> ApiVersionsResponse {
    let api_keys = advertised()
        .into_iter()
        .filter(|version| version.api_key == ApiKey::ApiVersions.code())
        .collect();
    ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_and_finds_its_rows() {
        assert!(SERVED.is_sorted_by(|a, b| a.key < b.key));
        for row in SERVED {
            assert_eq!(served(row.key.code()), Some(row));
            assert!(row.serves(row.min) && row.serves(row.max));
            assert!(!row.serves(row.min - 1) && !row.serves(row.max + 1));
        }
        assert_eq!(served(4), None);
    }

    #[test]
    fn keys_and_codes_agree() {
        for &key in ApiKey::ALL {
            assert_eq!(ApiKey::from_code(key.code()), Some(key));
        }
        assert_eq!(ApiKey::from_code(-1), None);
    }

    #[test]
    fn produce_is_advertised_from_zero_and_served_from_three() {
        let row = served(0).expect("produce");
        assert!(!row.serves(2) && row.serves(3));
        assert_eq!(
            advertised()[0],
            ApiVersion {
                api_key: 0,
                min_version: 0,
                max_version: 13
            }
        );
    }
}
