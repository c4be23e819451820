//! Owns the comparison of the APIs about leaders, moves and what has settings: which field is in which version.
//! Does not know how values are made or compared.
//! Keeps: every struct of every message of these APIs is listed.
use kafka_protocol::messages::{
    alter_partition_reassignments_request, alter_partition_reassignments_response,
    elect_leaders_request, elect_leaders_response, list_config_resources_request,
    list_config_resources_response, list_partition_reassignments_request,
    list_partition_reassignments_response,
};
use millrace_net::wire::{
    alter_partition_reassignments, elect_leaders, list_config_resources,
    list_partition_reassignments,
};

use crate::support::{mirror, oracle_tests};

mirror! {
    elect_leaders::ElectLeadersRequest => elect_leaders_request::ElectLeadersRequest {
        election_type: 1..,
        topic_partitions: 0..,
        timeout_ms: 0..,
    }
}

mirror! {
    elect_leaders::TopicPartitions => elect_leaders_request::TopicPartitions {
        topic: 0..,
        partitions: 0..,
    }
}

mirror! {
    elect_leaders::ElectLeadersResponse => elect_leaders_response::ElectLeadersResponse {
        throttle_time_ms: 0..,
        error_code: 1..,
        replica_election_results: 0..,
    }
}

mirror! {
    elect_leaders::ReplicaElectionResult => elect_leaders_response::ReplicaElectionResult {
        topic: 0..,
        partition_result: 0..,
    }
}

mirror! {
    elect_leaders::PartitionResult => elect_leaders_response::PartitionResult {
        partition_id: 0..,
        error_code: 0..,
        error_message: 0..,
    }
}

mirror! {
    alter_partition_reassignments::AlterPartitionReassignmentsRequest => alter_partition_reassignments_request::AlterPartitionReassignmentsRequest {
        timeout_ms: 0..,
        allow_replication_factor_change: 1..,
        topics: 0..,
    }
}

mirror! {
    alter_partition_reassignments::ReassignableTopic => alter_partition_reassignments_request::ReassignableTopic {
        name: 0..,
        partitions: 0..,
    }
}

mirror! {
    alter_partition_reassignments::ReassignablePartition => alter_partition_reassignments_request::ReassignablePartition {
        partition_index: 0..,
        replicas: 0..,
    }
}

mirror! {
    alter_partition_reassignments::AlterPartitionReassignmentsResponse => alter_partition_reassignments_response::AlterPartitionReassignmentsResponse {
        throttle_time_ms: 0..,
        allow_replication_factor_change: 1..,
        error_code: 0..,
        error_message: 0..,
        responses: 0..,
    }
}

mirror! {
    alter_partition_reassignments::ReassignableTopicResponse => alter_partition_reassignments_response::ReassignableTopicResponse {
        name: 0..,
        partitions: 0..,
    }
}

mirror! {
    alter_partition_reassignments::ReassignablePartitionResponse => alter_partition_reassignments_response::ReassignablePartitionResponse {
        partition_index: 0..,
        error_code: 0..,
        error_message: 0..,
    }
}

mirror! {
    list_partition_reassignments::ListPartitionReassignmentsRequest => list_partition_reassignments_request::ListPartitionReassignmentsRequest {
        timeout_ms: 0..,
        topics: 0..,
    }
}

mirror! {
    list_partition_reassignments::ListPartitionReassignmentsTopics => list_partition_reassignments_request::ListPartitionReassignmentsTopics {
        name: 0..,
        partition_indexes: 0..,
    }
}

mirror! {
    list_partition_reassignments::ListPartitionReassignmentsResponse => list_partition_reassignments_response::ListPartitionReassignmentsResponse {
        throttle_time_ms: 0..,
        error_code: 0..,
        error_message: 0..,
        topics: 0..,
    }
}

mirror! {
    list_partition_reassignments::OngoingTopicReassignment => list_partition_reassignments_response::OngoingTopicReassignment {
        name: 0..,
        partitions: 0..,
    }
}

mirror! {
    list_partition_reassignments::OngoingPartitionReassignment => list_partition_reassignments_response::OngoingPartitionReassignment {
        partition_index: 0..,
        replicas: 0..,
        adding_replicas: 0..,
        removing_replicas: 0..,
    }
}

mirror! {
    list_config_resources::ListConfigResourcesRequest => list_config_resources_request::ListConfigResourcesRequest {
        resource_types: 1..,
    }
}

mirror! {
    list_config_resources::ListConfigResourcesResponse => list_config_resources_response::ListConfigResourcesResponse {
        throttle_time_ms: 0..,
        error_code: 0..,
        config_resources: 0..,
    }
}

mirror! {
    list_config_resources::ConfigResource => list_config_resources_response::ConfigResource {
        resource_name: 0..,
        resource_type: 1..,
    }
}

oracle_tests! {
    elect_leaders: elect_leaders::ElectLeadersRequest => kafka_protocol::messages::ElectLeadersRequest, elect_leaders::ElectLeadersResponse => kafka_protocol::messages::ElectLeadersResponse;
    alter_partition_reassignments: alter_partition_reassignments::AlterPartitionReassignmentsRequest => kafka_protocol::messages::AlterPartitionReassignmentsRequest, alter_partition_reassignments::AlterPartitionReassignmentsResponse => kafka_protocol::messages::AlterPartitionReassignmentsResponse;
    list_partition_reassignments: list_partition_reassignments::ListPartitionReassignmentsRequest => kafka_protocol::messages::ListPartitionReassignmentsRequest, list_partition_reassignments::ListPartitionReassignmentsResponse => kafka_protocol::messages::ListPartitionReassignmentsResponse;
    list_config_resources: list_config_resources::ListConfigResourcesRequest => kafka_protocol::messages::ListConfigResourcesRequest, list_config_resources::ListConfigResourcesResponse => kafka_protocol::messages::ListConfigResourcesResponse;
}
