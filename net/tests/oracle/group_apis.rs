//! Owns the comparison of the APIs for groups: which field is in which version.
//! Does not know how values are made or compared.
//! Keeps: every struct of every message of these APIs is listed.
use kafka_protocol::messages::{
    consumer_group_describe_request, consumer_group_describe_response,
    consumer_group_heartbeat_request, consumer_group_heartbeat_response, delete_groups_request,
    delete_groups_response, describe_groups_request, describe_groups_response, heartbeat_request,
    heartbeat_response, join_group_request, join_group_response, leave_group_request,
    leave_group_response, list_groups_request, list_groups_response, offset_commit_request,
    offset_commit_response, offset_delete_request, offset_delete_response, offset_fetch_request,
    offset_fetch_response, sync_group_request, sync_group_response,
};
use millrace_net::wire::{
    consumer_group_describe, consumer_group_heartbeat, delete_groups, describe_groups, heartbeat,
    join_group, leave_group, list_groups, offset_commit, offset_delete, offset_fetch, sync_group,
};

use crate::support::{convert, mirror, oracle_tests};

mirror! {
    offset_commit::OffsetCommitRequest => offset_commit_request::OffsetCommitRequest {
        group_id: 2..,
        generation_id_or_member_epoch: 2..,
        member_id: 2..,
        group_instance_id: 7..,
        retention_time_ms: 2..=4,
        topics: 2..,
    }
}

mirror! {
    offset_commit::OffsetCommitRequestTopic => offset_commit_request::OffsetCommitRequestTopic {
        name: 2..=9,
        topic_id: 10..,
        partitions: 2..,
    }
}

mirror! {
    offset_commit::OffsetCommitRequestPartition => offset_commit_request::OffsetCommitRequestPartition {
        partition_index: 2..,
        committed_offset: 2..,
        committed_leader_epoch: 6..,
        committed_metadata: 2..,
    }
}

mirror! {
    offset_commit::OffsetCommitResponse => offset_commit_response::OffsetCommitResponse {
        throttle_time_ms: 3..,
        topics: 2..,
    }
}

mirror! {
    offset_commit::OffsetCommitResponseTopic => offset_commit_response::OffsetCommitResponseTopic {
        name: 2..=9,
        topic_id: 10..,
        partitions: 2..,
    }
}

mirror! {
    offset_commit::OffsetCommitResponsePartition => offset_commit_response::OffsetCommitResponsePartition {
        partition_index: 2..,
        error_code: 2..,
    }
}

mirror! {
    offset_fetch::OffsetFetchRequest => offset_fetch_request::OffsetFetchRequest {
        group_id: 1..=7,
        topics: 1..=7 null 2..,
        groups: 8..,
        require_stable: 7..,
    }
}

mirror! {
    offset_fetch::OffsetFetchRequestGroup => offset_fetch_request::OffsetFetchRequestGroup {
        group_id: 8..,
        member_id: 9..,
        member_epoch: 9..,
        topics: 8..,
    }
}

mirror! {
    offset_fetch::OffsetFetchRequestTopic => offset_fetch_request::OffsetFetchRequestTopics {
        name: 1..=9,
        topic_id: 10..,
        partition_indexes: 1..,
    }
}

convert! {
    offset_fetch::OffsetFetchRequestTopic => offset_fetch_request::OffsetFetchRequestTopic {
        name: 1..=7,
        partition_indexes: 1..=7,
    }
}

mirror! {
    offset_fetch::OffsetFetchResponse => offset_fetch_response::OffsetFetchResponse {
        throttle_time_ms: 3..,
        topics: 1..=7,
        error_code: 2..=7,
        groups: 8..,
    }
}

mirror! {
    offset_fetch::OffsetFetchResponseGroup => offset_fetch_response::OffsetFetchResponseGroup {
        group_id: 8..,
        topics: 8..,
        error_code: 8..,
    }
}

mirror! {
    offset_fetch::OffsetFetchResponseTopic => offset_fetch_response::OffsetFetchResponseTopics {
        name: 1..=9,
        topic_id: 10..,
        partitions: 1..,
    }
}

convert! {
    offset_fetch::OffsetFetchResponseTopic => offset_fetch_response::OffsetFetchResponseTopic {
        name: 1..=7,
        partitions: 1..=7,
    }
}

mirror! {
    offset_fetch::OffsetFetchResponsePartition => offset_fetch_response::OffsetFetchResponsePartition {
        partition_index: 1..,
        committed_offset: 1..,
        committed_leader_epoch: 5..,
        metadata: 1..,
        error_code: 1..,
    }
}

convert! {
    offset_fetch::OffsetFetchResponsePartition => offset_fetch_response::OffsetFetchResponsePartitions {
        partition_index: 8..,
        committed_offset: 8..,
        committed_leader_epoch: 8..,
        metadata: 8..,
        error_code: 8..,
    }
}

mirror! {
    join_group::JoinGroupRequest => join_group_request::JoinGroupRequest {
        group_id: 0..,
        session_timeout_ms: 0..,
        rebalance_timeout_ms: 1..,
        member_id: 0..,
        group_instance_id: 5..,
        protocol_type: 0..,
        protocols: 0..,
        reason: 8..,
    }
}

mirror! {
    join_group::JoinGroupRequestProtocol => join_group_request::JoinGroupRequestProtocol {
        name: 0..,
        metadata: 0..,
    }
}

mirror! {
    join_group::JoinGroupResponse => join_group_response::JoinGroupResponse {
        throttle_time_ms: 2..,
        error_code: 0..,
        generation_id: 0..,
        protocol_type: 7..,
        protocol_name: 0.. null 7..,
        leader: 0..,
        skip_assignment: 9..,
        member_id: 0..,
        members: 0..,
    }
}

mirror! {
    join_group::JoinGroupResponseMember => join_group_response::JoinGroupResponseMember {
        member_id: 0..,
        group_instance_id: 5..,
        metadata: 0..,
    }
}

mirror! {
    heartbeat::HeartbeatRequest => heartbeat_request::HeartbeatRequest {
        group_id: 0..,
        generation_id: 0..,
        member_id: 0..,
        group_instance_id: 3..,
    }
}

mirror! {
    heartbeat::HeartbeatResponse => heartbeat_response::HeartbeatResponse {
        throttle_time_ms: 1..,
        error_code: 0..,
    }
}

mirror! {
    leave_group::LeaveGroupRequest => leave_group_request::LeaveGroupRequest {
        group_id: 0..,
        member_id: 0..=2,
        members: 3..,
    }
}

mirror! {
    leave_group::MemberIdentity => leave_group_request::MemberIdentity {
        member_id: 3..,
        group_instance_id: 3..,
        reason: 5..,
    }
}

mirror! {
    leave_group::LeaveGroupResponse => leave_group_response::LeaveGroupResponse {
        throttle_time_ms: 1..,
        error_code: 0..,
        members: 3..,
    }
}

mirror! {
    leave_group::MemberResponse => leave_group_response::MemberResponse {
        member_id: 3..,
        group_instance_id: 3..,
        error_code: 3..,
    }
}

mirror! {
    sync_group::SyncGroupRequest => sync_group_request::SyncGroupRequest {
        group_id: 0..,
        generation_id: 0..,
        member_id: 0..,
        group_instance_id: 3..,
        protocol_type: 5..,
        protocol_name: 5..,
        assignments: 0..,
    }
}

mirror! {
    sync_group::SyncGroupRequestAssignment => sync_group_request::SyncGroupRequestAssignment {
        member_id: 0..,
        assignment: 0..,
    }
}

mirror! {
    sync_group::SyncGroupResponse => sync_group_response::SyncGroupResponse {
        throttle_time_ms: 1..,
        error_code: 0..,
        protocol_type: 5..,
        protocol_name: 5..,
        assignment: 0..,
    }
}

mirror! {
    describe_groups::DescribeGroupsRequest => describe_groups_request::DescribeGroupsRequest {
        groups: 0..,
        include_authorized_operations: 3..,
    }
}

mirror! {
    describe_groups::DescribeGroupsResponse => describe_groups_response::DescribeGroupsResponse {
        throttle_time_ms: 1..,
        groups: 0..,
    }
}

mirror! {
    describe_groups::DescribedGroup => describe_groups_response::DescribedGroup {
        error_code: 0..,
        error_message: 6..,
        group_id: 0..,
        group_state: 0..,
        protocol_type: 0..,
        protocol_data: 0..,
        members: 0..,
        authorized_operations: 3..,
    }
}

mirror! {
    describe_groups::DescribedGroupMember => describe_groups_response::DescribedGroupMember {
        member_id: 0..,
        group_instance_id: 4..,
        client_id: 0..,
        client_host: 0..,
        member_metadata: 0..,
        member_assignment: 0..,
    }
}

mirror! {
    list_groups::ListGroupsRequest => list_groups_request::ListGroupsRequest {
        states_filter: 4..,
        types_filter: 5..,
    }
}

mirror! {
    list_groups::ListGroupsResponse => list_groups_response::ListGroupsResponse {
        throttle_time_ms: 1..,
        error_code: 0..,
        groups: 0..,
    }
}

mirror! {
    list_groups::ListedGroup => list_groups_response::ListedGroup {
        group_id: 0..,
        protocol_type: 0..,
        group_state: 4..,
        group_type: 5..,
    }
}

mirror! {
    delete_groups::DeleteGroupsRequest => delete_groups_request::DeleteGroupsRequest {
        groups_names: 0..,
    }
}

mirror! {
    delete_groups::DeleteGroupsResponse => delete_groups_response::DeleteGroupsResponse {
        throttle_time_ms: 0..,
        results: 0..,
    }
}

mirror! {
    delete_groups::DeletableGroupResult => delete_groups_response::DeletableGroupResult {
        group_id: 0..,
        error_code: 0..,
    }
}

mirror! {
    offset_delete::OffsetDeleteRequest => offset_delete_request::OffsetDeleteRequest {
        group_id: 0..,
        topics: 0..,
    }
}

mirror! {
    offset_delete::OffsetDeleteRequestTopic => offset_delete_request::OffsetDeleteRequestTopic {
        name: 0..,
        partitions: 0..,
    }
}

mirror! {
    offset_delete::OffsetDeleteRequestPartition => offset_delete_request::OffsetDeleteRequestPartition {
        partition_index: 0..,
    }
}

mirror! {
    offset_delete::OffsetDeleteResponse => offset_delete_response::OffsetDeleteResponse {
        error_code: 0..,
        throttle_time_ms: 0..,
        topics: 0..,
    }
}

mirror! {
    offset_delete::OffsetDeleteResponseTopic => offset_delete_response::OffsetDeleteResponseTopic {
        name: 0..,
        partitions: 0..,
    }
}

mirror! {
    offset_delete::OffsetDeleteResponsePartition => offset_delete_response::OffsetDeleteResponsePartition {
        partition_index: 0..,
        error_code: 0..,
    }
}

mirror! {
    consumer_group_heartbeat::ConsumerGroupHeartbeatRequest => consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest {
        group_id: 0..,
        member_id: 0..,
        member_epoch: 0..,
        instance_id: 0..,
        rack_id: 0..,
        rebalance_timeout_ms: 0..,
        subscribed_topic_names: 0..,
        subscribed_topic_regex: 1..,
        server_assignor: 0..,
        topic_partitions: 0..,
    }
}

mirror! {
    consumer_group_heartbeat::TopicPartitions => consumer_group_heartbeat_request::TopicPartitions {
        topic_id: 0..,
        partitions: 0..,
    }
}

convert! {
    consumer_group_heartbeat::TopicPartitions => consumer_group_heartbeat_response::TopicPartitions {
        topic_id: 0..,
        partitions: 0..,
    }
}

mirror! {
    consumer_group_heartbeat::ConsumerGroupHeartbeatResponse => consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse {
        throttle_time_ms: 0..,
        error_code: 0..,
        error_message: 0..,
        member_id: 0..,
        member_epoch: 0..,
        heartbeat_interval_ms: 0..,
        assignment: 0..,
    }
}

mirror! {
    consumer_group_heartbeat::Assignment => consumer_group_heartbeat_response::Assignment {
        topic_partitions: 0..,
    }
}

mirror! {
    consumer_group_describe::ConsumerGroupDescribeRequest => consumer_group_describe_request::ConsumerGroupDescribeRequest {
        group_ids: 0..,
        include_authorized_operations: 0..,
    }
}

mirror! {
    consumer_group_describe::ConsumerGroupDescribeResponse => consumer_group_describe_response::ConsumerGroupDescribeResponse {
        throttle_time_ms: 0..,
        groups: 0..,
    }
}

mirror! {
    consumer_group_describe::DescribedGroup => consumer_group_describe_response::DescribedGroup {
        error_code: 0..,
        error_message: 0..,
        group_id: 0..,
        group_state: 0..,
        group_epoch: 0..,
        assignment_epoch: 0..,
        assignor_name: 0..,
        members: 0..,
        authorized_operations: 0..,
    }
}

mirror! {
    consumer_group_describe::Member => consumer_group_describe_response::Member {
        member_id: 0..,
        instance_id: 0..,
        rack_id: 0..,
        member_epoch: 0..,
        client_id: 0..,
        client_host: 0..,
        subscribed_topic_names: 0..,
        subscribed_topic_regex: 0..,
        assignment: 0..,
        target_assignment: 0..,
        member_type: 1..,
    }
}

mirror! {
    consumer_group_describe::Assignment => consumer_group_describe_response::Assignment {
        topic_partitions: 0..,
    }
}

mirror! {
    consumer_group_describe::TopicPartitions => consumer_group_describe_response::TopicPartitions {
        topic_id: 0..,
        topic_name: 0..,
        partitions: 0..,
    }
}

oracle_tests! {
    consumer_group_describe: consumer_group_describe::ConsumerGroupDescribeRequest => kafka_protocol::messages::ConsumerGroupDescribeRequest, consumer_group_describe::ConsumerGroupDescribeResponse => kafka_protocol::messages::ConsumerGroupDescribeResponse;
    consumer_group_heartbeat: consumer_group_heartbeat::ConsumerGroupHeartbeatRequest => kafka_protocol::messages::ConsumerGroupHeartbeatRequest, consumer_group_heartbeat::ConsumerGroupHeartbeatResponse => kafka_protocol::messages::ConsumerGroupHeartbeatResponse;
    offset_commit: offset_commit::OffsetCommitRequest => kafka_protocol::messages::OffsetCommitRequest, offset_commit::OffsetCommitResponse => kafka_protocol::messages::OffsetCommitResponse;
    offset_fetch: offset_fetch::OffsetFetchRequest => kafka_protocol::messages::OffsetFetchRequest, offset_fetch::OffsetFetchResponse => kafka_protocol::messages::OffsetFetchResponse;
    join_group: join_group::JoinGroupRequest => kafka_protocol::messages::JoinGroupRequest, join_group::JoinGroupResponse => kafka_protocol::messages::JoinGroupResponse;
    heartbeat: heartbeat::HeartbeatRequest => kafka_protocol::messages::HeartbeatRequest, heartbeat::HeartbeatResponse => kafka_protocol::messages::HeartbeatResponse;
    leave_group: leave_group::LeaveGroupRequest => kafka_protocol::messages::LeaveGroupRequest, leave_group::LeaveGroupResponse => kafka_protocol::messages::LeaveGroupResponse;
    sync_group: sync_group::SyncGroupRequest => kafka_protocol::messages::SyncGroupRequest, sync_group::SyncGroupResponse => kafka_protocol::messages::SyncGroupResponse;
    describe_groups: describe_groups::DescribeGroupsRequest => kafka_protocol::messages::DescribeGroupsRequest, describe_groups::DescribeGroupsResponse => kafka_protocol::messages::DescribeGroupsResponse;
    list_groups: list_groups::ListGroupsRequest => kafka_protocol::messages::ListGroupsRequest, list_groups::ListGroupsResponse => kafka_protocol::messages::ListGroupsResponse;
    delete_groups: delete_groups::DeleteGroupsRequest => kafka_protocol::messages::DeleteGroupsRequest, delete_groups::DeleteGroupsResponse => kafka_protocol::messages::DeleteGroupsResponse;
    offset_delete: offset_delete::OffsetDeleteRequest => kafka_protocol::messages::OffsetDeleteRequest, offset_delete::OffsetDeleteResponse => kafka_protocol::messages::OffsetDeleteResponse;
}
