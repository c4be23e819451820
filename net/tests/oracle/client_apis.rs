//! Owns the comparison of the APIs for producers and consumers: which field is in which version.
//! Does not know how values are made or compared.
//! Keeps: every struct of every message of these APIs is listed.
use kafka_protocol::messages::{
    api_versions_request, api_versions_response, fetch_request, fetch_response,
    find_coordinator_request, find_coordinator_response, init_producer_id_request,
    init_producer_id_response, list_offsets_request, list_offsets_response, metadata_request,
    metadata_response, offset_for_leader_epoch_request, offset_for_leader_epoch_response,
    produce_request, produce_response,
};
use millrace_net::wire::{
    api_versions, fetch, find_coordinator, init_producer_id, list_offsets, metadata,
    offset_for_leader_epoch, produce,
};

use crate::support::{mirror, oracle_tests};

mirror! {
    produce::ProduceRequest => produce_request::ProduceRequest {
        transactional_id: 3..,
        acks: 3..,
        timeout_ms: 3..,
        topic_data: 3..,
    }
}

mirror! {
    produce::TopicProduceData => produce_request::TopicProduceData {
        name: 3..=12,
        topic_id: 13..,
        partition_data: 3..,
    }
}

mirror! {
    produce::PartitionProduceData => produce_request::PartitionProduceData {
        index: 3..,
        records: 3..,
    }
}

mirror! {
    produce::ProduceResponse => produce_response::ProduceResponse {
        responses: 3..,
        throttle_time_ms: 3..,
        node_endpoints: 10..,
    }
}

mirror! {
    produce::TopicProduceResponse => produce_response::TopicProduceResponse {
        name: 3..=12,
        topic_id: 13..,
        partition_responses: 3..,
    }
}

mirror! {
    produce::PartitionProduceResponse => produce_response::PartitionProduceResponse {
        index: 3..,
        error_code: 3..,
        base_offset: 3..,
        log_append_time_ms: 3..,
        log_start_offset: 5..,
        record_errors: 8..,
        error_message: 8..,
        current_leader: 10..,
    }
}

mirror! {
    produce::BatchIndexAndErrorMessage => produce_response::BatchIndexAndErrorMessage {
        batch_index: 8..,
        batch_index_error_message: 8..,
    }
}

mirror! {
    produce::LeaderIdAndEpoch => produce_response::LeaderIdAndEpoch {
        leader_id: 10..,
        leader_epoch: 10..,
    }
}

mirror! {
    produce::NodeEndpoint => produce_response::NodeEndpoint {
        node_id: 10..,
        host: 10..,
        port: 10..,
        rack: 10..,
    }
}

mirror! {
    fetch::FetchRequest => fetch_request::FetchRequest {
        replica_id: 4..=14,
        max_wait_ms: 4..,
        min_bytes: 4..,
        max_bytes: 4..,
        isolation_level: 4..,
        session_id: 7..,
        session_epoch: 7..,
        topics: 4..,
        forgotten_topics_data: 7..,
        rack_id: 11..,
        cluster_id: 12..,
        replica_state: 15..,
    }
}

mirror! {
    fetch::ReplicaState => fetch_request::ReplicaState {
        replica_id: 15..,
        replica_epoch: 15..,
    }
}

mirror! {
    fetch::FetchTopic => fetch_request::FetchTopic {
        topic: 4..=12,
        topic_id: 13..,
        partitions: 4..,
    }
}

mirror! {
    fetch::FetchPartition => fetch_request::FetchPartition {
        partition: 4..,
        current_leader_epoch: 9..,
        fetch_offset: 4..,
        last_fetched_epoch: 12..,
        log_start_offset: 5..,
        partition_max_bytes: 4..,
        replica_directory_id: 17..,
        high_watermark: 18..,
    }
}

mirror! {
    fetch::ForgottenTopic => fetch_request::ForgottenTopic {
        topic: 7..=12,
        topic_id: 13..,
        partitions: 7..,
    }
}

mirror! {
    fetch::FetchResponse => fetch_response::FetchResponse {
        throttle_time_ms: 4..,
        error_code: 7..,
        session_id: 7..,
        responses: 4..,
        node_endpoints: 16..,
    }
}

mirror! {
    fetch::NodeEndpoint => fetch_response::NodeEndpoint {
        node_id: 16..,
        host: 16..,
        port: 16..,
        rack: 16..,
    }
}

mirror! {
    fetch::FetchableTopicResponse => fetch_response::FetchableTopicResponse {
        topic: 4..=12,
        topic_id: 13..,
        partitions: 4..,
    }
}

mirror! {
    fetch::PartitionData => fetch_response::PartitionData {
        partition_index: 4..,
        error_code: 4..,
        high_watermark: 4..,
        last_stable_offset: 4..,
        log_start_offset: 5..,
        aborted_transactions: 4..,
        preferred_read_replica: 11..,
        records: 4..,
        diverging_epoch: 12..,
        current_leader: 12..,
        snapshot_id: 12..,
    }
}

mirror! {
    fetch::EpochEndOffset => fetch_response::EpochEndOffset {
        epoch: 12..,
        end_offset: 12..,
    }
}

mirror! {
    fetch::LeaderIdAndEpoch => fetch_response::LeaderIdAndEpoch {
        leader_id: 12..,
        leader_epoch: 12..,
    }
}

mirror! {
    fetch::SnapshotId => fetch_response::SnapshotId {
        end_offset: 4..,
        epoch: 4..,
    }
}

mirror! {
    fetch::AbortedTransaction => fetch_response::AbortedTransaction {
        producer_id: 4..,
        first_offset: 4..,
    }
}

mirror! {
    list_offsets::ListOffsetsRequest => list_offsets_request::ListOffsetsRequest {
        replica_id: 1..,
        isolation_level: 2..,
        topics: 1..,
        timeout_ms: 10..,
    }
}

mirror! {
    list_offsets::ListOffsetsTopic => list_offsets_request::ListOffsetsTopic {
        name: 1..,
        partitions: 1..,
    }
}

mirror! {
    list_offsets::ListOffsetsPartition => list_offsets_request::ListOffsetsPartition {
        partition_index: 1..,
        current_leader_epoch: 4..,
        timestamp: 1..,
    }
}

mirror! {
    list_offsets::ListOffsetsResponse => list_offsets_response::ListOffsetsResponse {
        throttle_time_ms: 2..,
        topics: 1..,
    }
}

mirror! {
    list_offsets::ListOffsetsTopicResponse => list_offsets_response::ListOffsetsTopicResponse {
        name: 1..,
        partitions: 1..,
    }
}

mirror! {
    list_offsets::ListOffsetsPartitionResponse => list_offsets_response::ListOffsetsPartitionResponse {
        partition_index: 1..,
        error_code: 1..,
        timestamp: 1..,
        offset: 1..,
        leader_epoch: 4..,
    }
}

mirror! {
    metadata::MetadataRequest => metadata_request::MetadataRequest {
        topics: 0.. null 1..,
        allow_auto_topic_creation: 4..,
        include_cluster_authorized_operations: 8..=10,
        include_topic_authorized_operations: 8..,
    }
}

mirror! {
    metadata::MetadataRequestTopic => metadata_request::MetadataRequestTopic {
        topic_id: 10..,
        name: 0.. null 10..,
    }
}

mirror! {
    metadata::MetadataResponse => metadata_response::MetadataResponse {
        throttle_time_ms: 3..,
        brokers: 0..,
        cluster_id: 2..,
        controller_id: 1..,
        topics: 0..,
        cluster_authorized_operations: 8..=10,
        error_code: 13..,
    }
}

mirror! {
    metadata::MetadataResponseBroker => metadata_response::MetadataResponseBroker {
        node_id: 0..,
        host: 0..,
        port: 0..,
        rack: 1..,
    }
}

mirror! {
    metadata::MetadataResponseTopic => metadata_response::MetadataResponseTopic {
        error_code: 0..,
        name: 0.. null 12..,
        topic_id: 10..,
        is_internal: 1..,
        partitions: 0..,
        topic_authorized_operations: 8..,
    }
}

mirror! {
    metadata::MetadataResponsePartition => metadata_response::MetadataResponsePartition {
        error_code: 0..,
        partition_index: 0..,
        leader_id: 0..,
        leader_epoch: 7..,
        replica_nodes: 0..,
        isr_nodes: 0..,
        offline_replicas: 5..,
    }
}

mirror! {
    api_versions::ApiVersionsRequest => api_versions_request::ApiVersionsRequest {
        client_software_name: 3..,
        client_software_version: 3..,
    }
}

mirror! {
    api_versions::ApiVersionsResponse => api_versions_response::ApiVersionsResponse {
        error_code: 0..,
        api_keys: 0..,
        throttle_time_ms: 1..,
        supported_features: 3..,
        finalized_features_epoch: 3..,
        finalized_features: 3..,
        zk_migration_ready: 3..,
    }
}

mirror! {
    api_versions::ApiVersion => api_versions_response::ApiVersion {
        api_key: 0..,
        min_version: 0..,
        max_version: 0..,
    }
}

mirror! {
    api_versions::SupportedFeatureKey => api_versions_response::SupportedFeatureKey {
        name: 3..,
        min_version: 3..,
        max_version: 3..,
    }
}

mirror! {
    api_versions::FinalizedFeatureKey => api_versions_response::FinalizedFeatureKey {
        name: 3..,
        max_version_level: 3..,
        min_version_level: 3..,
    }
}

mirror! {
    init_producer_id::InitProducerIdRequest => init_producer_id_request::InitProducerIdRequest {
        transactional_id: 0..,
        transaction_timeout_ms: 0..,
        producer_id: 3..,
        producer_epoch: 3..,
    }
}

mirror! {
    init_producer_id::InitProducerIdResponse => init_producer_id_response::InitProducerIdResponse {
        throttle_time_ms: 0..,
        error_code: 0..,
        producer_id: 0..,
        producer_epoch: 0..,
    }
}

mirror! {
    offset_for_leader_epoch::OffsetForLeaderEpochRequest => offset_for_leader_epoch_request::OffsetForLeaderEpochRequest {
        replica_id: 3..,
        topics: 2..,
    }
}

mirror! {
    offset_for_leader_epoch::OffsetForLeaderTopic => offset_for_leader_epoch_request::OffsetForLeaderTopic {
        topic: 2..,
        partitions: 2..,
    }
}

mirror! {
    offset_for_leader_epoch::OffsetForLeaderPartition => offset_for_leader_epoch_request::OffsetForLeaderPartition {
        partition: 2..,
        current_leader_epoch: 2..,
        leader_epoch: 2..,
    }
}

mirror! {
    offset_for_leader_epoch::OffsetForLeaderEpochResponse => offset_for_leader_epoch_response::OffsetForLeaderEpochResponse {
        throttle_time_ms: 2..,
        topics: 2..,
    }
}

mirror! {
    offset_for_leader_epoch::OffsetForLeaderTopicResult => offset_for_leader_epoch_response::OffsetForLeaderTopicResult {
        topic: 2..,
        partitions: 2..,
    }
}

mirror! {
    offset_for_leader_epoch::EpochEndOffset => offset_for_leader_epoch_response::EpochEndOffset {
        error_code: 2..,
        partition: 2..,
        leader_epoch: 2..,
        end_offset: 2..,
    }
}

mirror! {
    find_coordinator::FindCoordinatorRequest => find_coordinator_request::FindCoordinatorRequest {
        key: 0..=3,
        key_type: 1..,
        coordinator_keys: 4..,
    }
}

mirror! {
    find_coordinator::FindCoordinatorResponse => find_coordinator_response::FindCoordinatorResponse {
        throttle_time_ms: 1..,
        error_code: 0..=3,
        error_message: 1..=3,
        node_id: 0..=3,
        host: 0..=3,
        port: 0..=3,
        coordinators: 4..,
    }
}

mirror! {
    find_coordinator::Coordinator => find_coordinator_response::Coordinator {
        key: 4..,
        node_id: 4..,
        host: 4..,
        port: 4..,
        error_code: 4..,
        error_message: 4..,
    }
}

oracle_tests! {
    produce: produce::ProduceRequest => kafka_protocol::messages::ProduceRequest, produce::ProduceResponse => kafka_protocol::messages::ProduceResponse;
    fetch: fetch::FetchRequest => kafka_protocol::messages::FetchRequest, fetch::FetchResponse => kafka_protocol::messages::FetchResponse;
    list_offsets: list_offsets::ListOffsetsRequest => kafka_protocol::messages::ListOffsetsRequest, list_offsets::ListOffsetsResponse => kafka_protocol::messages::ListOffsetsResponse;
    metadata: metadata::MetadataRequest => kafka_protocol::messages::MetadataRequest, metadata::MetadataResponse => kafka_protocol::messages::MetadataResponse;
    api_versions: api_versions::ApiVersionsRequest => kafka_protocol::messages::ApiVersionsRequest, api_versions::ApiVersionsResponse => kafka_protocol::messages::ApiVersionsResponse;
    init_producer_id: init_producer_id::InitProducerIdRequest => kafka_protocol::messages::InitProducerIdRequest, init_producer_id::InitProducerIdResponse => kafka_protocol::messages::InitProducerIdResponse;
    offset_for_leader_epoch: offset_for_leader_epoch::OffsetForLeaderEpochRequest => kafka_protocol::messages::OffsetForLeaderEpochRequest, offset_for_leader_epoch::OffsetForLeaderEpochResponse => kafka_protocol::messages::OffsetForLeaderEpochResponse;
    find_coordinator: find_coordinator::FindCoordinatorRequest => kafka_protocol::messages::FindCoordinatorRequest, find_coordinator::FindCoordinatorResponse => kafka_protocol::messages::FindCoordinatorResponse;
}
