//! Owns the comparison of the APIs that operators' tools send: which field is in which version.
//! Does not know how values are made or compared.
//! Keeps: every struct of every message of these APIs is listed.
use kafka_protocol::messages::{
    alter_replica_log_dirs_request, alter_replica_log_dirs_response, describe_producers_request,
    describe_producers_response, describe_quorum_request, describe_quorum_response,
    unregister_broker_request, unregister_broker_response, update_features_request,
    update_features_response,
};
use millrace_net::wire::{
    alter_replica_log_dirs, describe_producers, describe_quorum, unregister_broker, update_features,
};

use crate::support::{mirror, oracle_tests};

mirror! {
    alter_replica_log_dirs::AlterReplicaLogDirsRequest => alter_replica_log_dirs_request::AlterReplicaLogDirsRequest {
        dirs: 1..,
    }
}

mirror! {
    alter_replica_log_dirs::AlterReplicaLogDir => alter_replica_log_dirs_request::AlterReplicaLogDir {
        path: 1..,
        topics: 1..,
    }
}

mirror! {
    alter_replica_log_dirs::AlterReplicaLogDirTopic => alter_replica_log_dirs_request::AlterReplicaLogDirTopic {
        name: 1..,
        partitions: 1..,
    }
}

mirror! {
    alter_replica_log_dirs::AlterReplicaLogDirsResponse => alter_replica_log_dirs_response::AlterReplicaLogDirsResponse {
        throttle_time_ms: 1..,
        results: 1..,
    }
}

mirror! {
    alter_replica_log_dirs::AlterReplicaLogDirTopicResult => alter_replica_log_dirs_response::AlterReplicaLogDirTopicResult {
        topic_name: 1..,
        partitions: 1..,
    }
}

mirror! {
    alter_replica_log_dirs::AlterReplicaLogDirPartitionResult => alter_replica_log_dirs_response::AlterReplicaLogDirPartitionResult {
        partition_index: 1..,
        error_code: 1..,
    }
}

mirror! {
    describe_quorum::DescribeQuorumRequest => describe_quorum_request::DescribeQuorumRequest {
        topics: 0..,
    }
}

mirror! {
    describe_quorum::AskedTopic => describe_quorum_request::TopicData {
        topic_name: 0..,
        partitions: 0..,
    }
}

mirror! {
    describe_quorum::AskedPartition => describe_quorum_request::PartitionData {
        partition_index: 0..,
    }
}

mirror! {
    describe_quorum::DescribeQuorumResponse => describe_quorum_response::DescribeQuorumResponse {
        error_code: 0..,
        error_message: 2..,
        topics: 0..,
        nodes: 2..,
    }
}

mirror! {
    describe_quorum::TopicData => describe_quorum_response::TopicData {
        topic_name: 0..,
        partitions: 0..,
    }
}

mirror! {
    describe_quorum::PartitionData => describe_quorum_response::PartitionData {
        partition_index: 0..,
        error_code: 0..,
        error_message: 2..,
        leader_id: 0..,
        leader_epoch: 0..,
        high_watermark: 0..,
        current_voters: 0..,
        observers: 0..,
    }
}

mirror! {
    describe_quorum::ReplicaState => describe_quorum_response::ReplicaState {
        replica_id: 0..,
        replica_directory_id: 2..,
        log_end_offset: 0..,
        last_fetch_timestamp: 1..,
        last_caught_up_timestamp: 1..,
    }
}

mirror! {
    describe_quorum::Node => describe_quorum_response::Node {
        node_id: 2..,
        listeners: 2..,
    }
}

mirror! {
    describe_quorum::Listener => describe_quorum_response::Listener {
        name: 2..,
        host: 2..,
        port: 2..,
    }
}

mirror! {
    update_features::UpdateFeaturesRequest => update_features_request::UpdateFeaturesRequest {
        timeout_ms: 0..,
        feature_updates: 0..,
        validate_only: 1..,
    }
}

mirror! {
    update_features::FeatureUpdateKey => update_features_request::FeatureUpdateKey {
        feature: 0..,
        max_version_level: 0..,
        allow_downgrade: 0..=0,
        upgrade_type: 1..,
    }
}

mirror! {
    update_features::UpdateFeaturesResponse => update_features_response::UpdateFeaturesResponse {
        throttle_time_ms: 0..,
        error_code: 0..,
        error_message: 0..,
        results: 0..=1,
    }
}

mirror! {
    update_features::UpdatableFeatureResult => update_features_response::UpdatableFeatureResult {
        feature: 0..,
        error_code: 0..,
        error_message: 0..,
    }
}

mirror! {
    describe_producers::DescribeProducersRequest => describe_producers_request::DescribeProducersRequest {
        topics: 0..,
    }
}

mirror! {
    describe_producers::TopicRequest => describe_producers_request::TopicRequest {
        name: 0..,
        partition_indexes: 0..,
    }
}

mirror! {
    describe_producers::DescribeProducersResponse => describe_producers_response::DescribeProducersResponse {
        throttle_time_ms: 0..,
        topics: 0..,
    }
}

mirror! {
    describe_producers::TopicResponse => describe_producers_response::TopicResponse {
        name: 0..,
        partitions: 0..,
    }
}

mirror! {
    describe_producers::PartitionResponse => describe_producers_response::PartitionResponse {
        partition_index: 0..,
        error_code: 0..,
        error_message: 0..,
        active_producers: 0..,
    }
}

mirror! {
    describe_producers::ProducerState => describe_producers_response::ProducerState {
        producer_id: 0..,
        producer_epoch: 0..,
        last_sequence: 0..,
        last_timestamp: 0..,
        coordinator_epoch: 0..,
        current_txn_start_offset: 0..,
    }
}

mirror! {
    unregister_broker::UnregisterBrokerRequest => unregister_broker_request::UnregisterBrokerRequest {
        broker_id: 0..,
    }
}

mirror! {
    unregister_broker::UnregisterBrokerResponse => unregister_broker_response::UnregisterBrokerResponse {
        throttle_time_ms: 0..,
        error_code: 0..,
        error_message: 0..,
    }
}

oracle_tests! {
    alter_replica_log_dirs: alter_replica_log_dirs::AlterReplicaLogDirsRequest => kafka_protocol::messages::AlterReplicaLogDirsRequest, alter_replica_log_dirs::AlterReplicaLogDirsResponse => kafka_protocol::messages::AlterReplicaLogDirsResponse;
    describe_quorum: describe_quorum::DescribeQuorumRequest => kafka_protocol::messages::DescribeQuorumRequest, describe_quorum::DescribeQuorumResponse => kafka_protocol::messages::DescribeQuorumResponse;
    update_features: update_features::UpdateFeaturesRequest => kafka_protocol::messages::UpdateFeaturesRequest, update_features::UpdateFeaturesResponse => kafka_protocol::messages::UpdateFeaturesResponse;
    describe_producers: describe_producers::DescribeProducersRequest => kafka_protocol::messages::DescribeProducersRequest, describe_producers::DescribeProducersResponse => kafka_protocol::messages::DescribeProducersResponse;
    unregister_broker: unregister_broker::UnregisterBrokerRequest => kafka_protocol::messages::UnregisterBrokerRequest, unregister_broker::UnregisterBrokerResponse => kafka_protocol::messages::UnregisterBrokerResponse;
}
