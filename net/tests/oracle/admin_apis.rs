//! Owns the comparison of the APIs for administration: which field is in which version.
//! Does not know how values are made or compared.
//! Keeps: every struct of every message of these APIs is listed.
use kafka_protocol::messages::{
    alter_configs_request, alter_configs_response, create_partitions_request,
    create_partitions_response, create_topics_request, create_topics_response,
    delete_records_request, delete_records_response, delete_topics_request, delete_topics_response,
    describe_cluster_request, describe_cluster_response, describe_configs_request,
    describe_configs_response, describe_log_dirs_request, describe_log_dirs_response,
    describe_topic_partitions_request, describe_topic_partitions_response,
    incremental_alter_configs_request, incremental_alter_configs_response,
};
use millrace_net::wire::{
    alter_configs, create_partitions, create_topics, delete_records, delete_topics,
    describe_cluster, describe_configs, describe_log_dirs, describe_topic_partitions,
    incremental_alter_configs,
};

use crate::support::{convert, mirror, oracle_tests};

mirror! {
    create_topics::CreateTopicsRequest => create_topics_request::CreateTopicsRequest {
        topics: 2..,
        timeout_ms: 2..,
        validate_only: 2..,
    }
}

mirror! {
    create_topics::CreatableTopic => create_topics_request::CreatableTopic {
        name: 2..,
        num_partitions: 2..,
        replication_factor: 2..,
        assignments: 2..,
        configs: 2..,
    }
}

mirror! {
    create_topics::CreatableReplicaAssignment => create_topics_request::CreatableReplicaAssignment {
        partition_index: 2..,
        broker_ids: 2..,
    }
}

mirror! {
    create_topics::CreatableTopicConfig => create_topics_request::CreatableTopicConfig {
        name: 2..,
        value: 2..,
    }
}

mirror! {
    create_topics::CreateTopicsResponse => create_topics_response::CreateTopicsResponse {
        throttle_time_ms: 2..,
        topics: 2..,
    }
}

mirror! {
    create_topics::CreatableTopicResult => create_topics_response::CreatableTopicResult {
        name: 2..,
        topic_id: 7..,
        error_code: 2..,
        error_message: 2..,
        num_partitions: 5..,
        replication_factor: 5..,
        configs: 5..,
        topic_config_error_code: 5..,
    }
}

mirror! {
    create_topics::CreatableTopicConfigs => create_topics_response::CreatableTopicConfigs {
        name: 5..,
        value: 5..,
        read_only: 5..,
        config_source: 5..,
        is_sensitive: 5..,
    }
}

mirror! {
    delete_topics::DeleteTopicsRequest => delete_topics_request::DeleteTopicsRequest {
        topics: 6..,
        topic_names: 1..=5,
        timeout_ms: 1..,
    }
}

mirror! {
    delete_topics::DeleteTopicState => delete_topics_request::DeleteTopicState {
        name: 6..,
        topic_id: 6..,
    }
}

mirror! {
    delete_topics::DeleteTopicsResponse => delete_topics_response::DeleteTopicsResponse {
        throttle_time_ms: 1..,
        responses: 1..,
    }
}

mirror! {
    delete_topics::DeletableTopicResult => delete_topics_response::DeletableTopicResult {
        name: 1.. null 6..,
        topic_id: 6..,
        error_code: 1..,
        error_message: 5..,
    }
}

mirror! {
    create_partitions::CreatePartitionsRequest => create_partitions_request::CreatePartitionsRequest {
        topics: 0..,
        timeout_ms: 0..,
        validate_only: 0..,
    }
}

mirror! {
    create_partitions::CreatePartitionsTopic => create_partitions_request::CreatePartitionsTopic {
        name: 0..,
        count: 0..,
        assignments: 0..,
    }
}

mirror! {
    create_partitions::CreatePartitionsAssignment => create_partitions_request::CreatePartitionsAssignment {
        broker_ids: 0..,
    }
}

mirror! {
    create_partitions::CreatePartitionsResponse => create_partitions_response::CreatePartitionsResponse {
        throttle_time_ms: 0..,
        results: 0..,
    }
}

mirror! {
    create_partitions::CreatePartitionsTopicResult => create_partitions_response::CreatePartitionsTopicResult {
        name: 0..,
        error_code: 0..,
        error_message: 0..,
    }
}

mirror! {
    delete_records::DeleteRecordsRequest => delete_records_request::DeleteRecordsRequest {
        topics: 0..,
        timeout_ms: 0..,
    }
}

mirror! {
    delete_records::DeleteRecordsTopic => delete_records_request::DeleteRecordsTopic {
        name: 0..,
        partitions: 0..,
    }
}

mirror! {
    delete_records::DeleteRecordsPartition => delete_records_request::DeleteRecordsPartition {
        partition_index: 0..,
        offset: 0..,
    }
}

mirror! {
    delete_records::DeleteRecordsResponse => delete_records_response::DeleteRecordsResponse {
        throttle_time_ms: 0..,
        topics: 0..,
    }
}

mirror! {
    delete_records::DeleteRecordsTopicResult => delete_records_response::DeleteRecordsTopicResult {
        name: 0..,
        partitions: 0..,
    }
}

mirror! {
    delete_records::DeleteRecordsPartitionResult => delete_records_response::DeleteRecordsPartitionResult {
        partition_index: 0..,
        low_watermark: 0..,
        error_code: 0..,
    }
}

mirror! {
    describe_configs::DescribeConfigsRequest => describe_configs_request::DescribeConfigsRequest {
        resources: 1..,
        include_synonyms: 1..,
        include_documentation: 3..,
    }
}

mirror! {
    describe_configs::DescribeConfigsResource => describe_configs_request::DescribeConfigsResource {
        resource_type: 1..,
        resource_name: 1..,
        configuration_keys: 1..,
    }
}

mirror! {
    describe_configs::DescribeConfigsResponse => describe_configs_response::DescribeConfigsResponse {
        throttle_time_ms: 1..,
        results: 1..,
    }
}

mirror! {
    describe_configs::DescribeConfigsResult => describe_configs_response::DescribeConfigsResult {
        error_code: 1..,
        error_message: 1..,
        resource_type: 1..,
        resource_name: 1..,
        configs: 1..,
    }
}

mirror! {
    describe_configs::DescribeConfigsResourceResult => describe_configs_response::DescribeConfigsResourceResult {
        name: 1..,
        value: 1..,
        read_only: 1..,
        config_source: 1..,
        is_sensitive: 1..,
        synonyms: 1..,
        config_type: 3..,
        documentation: 3..,
    }
}

mirror! {
    describe_configs::DescribeConfigsSynonym => describe_configs_response::DescribeConfigsSynonym {
        name: 1..,
        value: 1..,
        source: 1..,
    }
}

mirror! {
    alter_configs::AlterConfigsRequest => alter_configs_request::AlterConfigsRequest {
        resources: 0..,
        validate_only: 0..,
    }
}

mirror! {
    alter_configs::AlterConfigsResource => alter_configs_request::AlterConfigsResource {
        resource_type: 0..,
        resource_name: 0..,
        configs: 0..,
    }
}

mirror! {
    alter_configs::AlterableConfig => alter_configs_request::AlterableConfig {
        name: 0..,
        value: 0..,
    }
}

mirror! {
    alter_configs::AlterConfigsResponse => alter_configs_response::AlterConfigsResponse {
        throttle_time_ms: 0..,
        responses: 0..,
    }
}

mirror! {
    alter_configs::AlterConfigsResourceResponse => alter_configs_response::AlterConfigsResourceResponse {
        error_code: 0..,
        error_message: 0..,
        resource_type: 0..,
        resource_name: 0..,
    }
}

mirror! {
    incremental_alter_configs::IncrementalAlterConfigsRequest => incremental_alter_configs_request::IncrementalAlterConfigsRequest {
        resources: 0..,
        validate_only: 0..,
    }
}

mirror! {
    incremental_alter_configs::AlterConfigsResource => incremental_alter_configs_request::AlterConfigsResource {
        resource_type: 0..,
        resource_name: 0..,
        configs: 0..,
    }
}

mirror! {
    incremental_alter_configs::AlterableConfig => incremental_alter_configs_request::AlterableConfig {
        name: 0..,
        config_operation: 0..,
        value: 0..,
    }
}

mirror! {
    incremental_alter_configs::IncrementalAlterConfigsResponse => incremental_alter_configs_response::IncrementalAlterConfigsResponse {
        throttle_time_ms: 0..,
        responses: 0..,
    }
}

mirror! {
    incremental_alter_configs::AlterConfigsResourceResponse => incremental_alter_configs_response::AlterConfigsResourceResponse {
        error_code: 0..,
        error_message: 0..,
        resource_type: 0..,
        resource_name: 0..,
    }
}

mirror! {
    describe_cluster::DescribeClusterRequest => describe_cluster_request::DescribeClusterRequest {
        include_cluster_authorized_operations: 0..,
        endpoint_type: 1..,
        include_fenced_brokers: 2..,
    }
}

mirror! {
    describe_cluster::DescribeClusterResponse => describe_cluster_response::DescribeClusterResponse {
        throttle_time_ms: 0..,
        error_code: 0..,
        error_message: 0..,
        endpoint_type: 1..,
        cluster_id: 0..,
        controller_id: 0..,
        brokers: 0..,
        cluster_authorized_operations: 0..,
    }
}

mirror! {
    describe_cluster::DescribeClusterBroker => describe_cluster_response::DescribeClusterBroker {
        broker_id: 0..,
        host: 0..,
        port: 0..,
        rack: 0..,
        is_fenced: 2..,
    }
}

mirror! {
    describe_log_dirs::DescribeLogDirsRequest => describe_log_dirs_request::DescribeLogDirsRequest {
        topics: 1..,
    }
}

mirror! {
    describe_log_dirs::DescribableLogDirTopic => describe_log_dirs_request::DescribableLogDirTopic {
        topic: 1..,
        partitions: 1..,
    }
}

mirror! {
    describe_log_dirs::DescribeLogDirsResponse => describe_log_dirs_response::DescribeLogDirsResponse {
        throttle_time_ms: 1..,
        error_code: 3..,
        results: 1..,
    }
}

mirror! {
    describe_log_dirs::DescribeLogDirsResult => describe_log_dirs_response::DescribeLogDirsResult {
        error_code: 1..,
        log_dir: 1..,
        topics: 1..,
        total_bytes: 4..,
        usable_bytes: 4..,
    }
}

mirror! {
    describe_log_dirs::DescribeLogDirsTopic => describe_log_dirs_response::DescribeLogDirsTopic {
        name: 1..,
        partitions: 1..,
    }
}

mirror! {
    describe_log_dirs::DescribeLogDirsPartition => describe_log_dirs_response::DescribeLogDirsPartition {
        partition_index: 1..,
        partition_size: 1..,
        offset_lag: 1..,
        is_future_key: 1..,
    }
}

mirror! {
    describe_topic_partitions::DescribeTopicPartitionsRequest => describe_topic_partitions_request::DescribeTopicPartitionsRequest {
        topics: 0..,
        response_partition_limit: 0..,
        cursor: 0..,
    }
}

mirror! {
    describe_topic_partitions::TopicRequest => describe_topic_partitions_request::TopicRequest {
        name: 0..,
    }
}

mirror! {
    describe_topic_partitions::Cursor => describe_topic_partitions_request::Cursor {
        topic_name: 0..,
        partition_index: 0..,
    }
}

mirror! {
    describe_topic_partitions::DescribeTopicPartitionsResponse => describe_topic_partitions_response::DescribeTopicPartitionsResponse {
        throttle_time_ms: 0..,
        topics: 0..,
        next_cursor: 0..,
    }
}

mirror! {
    describe_topic_partitions::DescribeTopicPartitionsResponseTopic => describe_topic_partitions_response::DescribeTopicPartitionsResponseTopic {
        error_code: 0..,
        name: 0..,
        topic_id: 0..,
        is_internal: 0..,
        partitions: 0..,
        topic_authorized_operations: 0..,
    }
}

mirror! {
    describe_topic_partitions::DescribeTopicPartitionsResponsePartition => describe_topic_partitions_response::DescribeTopicPartitionsResponsePartition {
        error_code: 0..,
        partition_index: 0..,
        leader_id: 0..,
        leader_epoch: 0..,
        replica_nodes: 0..,
        isr_nodes: 0..,
        eligible_leader_replicas: 0..,
        last_known_elr: 0..,
        offline_replicas: 0..,
    }
}

convert! {
    describe_topic_partitions::Cursor => describe_topic_partitions_response::Cursor {
        topic_name: 0..,
        partition_index: 0..,
    }
}

oracle_tests! {
    create_topics: create_topics::CreateTopicsRequest => kafka_protocol::messages::CreateTopicsRequest, create_topics::CreateTopicsResponse => kafka_protocol::messages::CreateTopicsResponse;
    delete_topics: delete_topics::DeleteTopicsRequest => kafka_protocol::messages::DeleteTopicsRequest, delete_topics::DeleteTopicsResponse => kafka_protocol::messages::DeleteTopicsResponse;
    create_partitions: create_partitions::CreatePartitionsRequest => kafka_protocol::messages::CreatePartitionsRequest, create_partitions::CreatePartitionsResponse => kafka_protocol::messages::CreatePartitionsResponse;
    delete_records: delete_records::DeleteRecordsRequest => kafka_protocol::messages::DeleteRecordsRequest, delete_records::DeleteRecordsResponse => kafka_protocol::messages::DeleteRecordsResponse;
    describe_configs: describe_configs::DescribeConfigsRequest => kafka_protocol::messages::DescribeConfigsRequest, describe_configs::DescribeConfigsResponse => kafka_protocol::messages::DescribeConfigsResponse;
    alter_configs: alter_configs::AlterConfigsRequest => kafka_protocol::messages::AlterConfigsRequest, alter_configs::AlterConfigsResponse => kafka_protocol::messages::AlterConfigsResponse;
    incremental_alter_configs: incremental_alter_configs::IncrementalAlterConfigsRequest => kafka_protocol::messages::IncrementalAlterConfigsRequest, incremental_alter_configs::IncrementalAlterConfigsResponse => kafka_protocol::messages::IncrementalAlterConfigsResponse;
    describe_cluster: describe_cluster::DescribeClusterRequest => kafka_protocol::messages::DescribeClusterRequest, describe_cluster::DescribeClusterResponse => kafka_protocol::messages::DescribeClusterResponse;
    describe_log_dirs: describe_log_dirs::DescribeLogDirsRequest => kafka_protocol::messages::DescribeLogDirsRequest, describe_log_dirs::DescribeLogDirsResponse => kafka_protocol::messages::DescribeLogDirsResponse;
    describe_topic_partitions: describe_topic_partitions::DescribeTopicPartitionsRequest => kafka_protocol::messages::DescribeTopicPartitionsRequest, describe_topic_partitions::DescribeTopicPartitionsResponse => kafka_protocol::messages::DescribeTopicPartitionsResponse;
}
