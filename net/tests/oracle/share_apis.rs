//! Owns the comparison of the APIs of share groups: which field is in which version.
//! Does not know how values are made or compared.
//! Keeps: every struct of every message of these APIs is listed; versions that the oracle does not know have their bytes
//! here.
use bytes::Bytes;
use kafka_protocol::messages::{
    alter_share_group_offsets_request, alter_share_group_offsets_response,
    delete_share_group_offsets_request, delete_share_group_offsets_response,
    describe_share_group_offsets_request, describe_share_group_offsets_response,
    share_acknowledge_request, share_acknowledge_response, share_fetch_request,
    share_fetch_response, share_group_describe_request, share_group_describe_response,
    share_group_heartbeat_request, share_group_heartbeat_response,
};
use millrace_net::wire::{
    alter_share_group_offsets, delete_share_group_offsets, describe_share_group_offsets,
    share_acknowledge, share_fetch, share_group_describe, share_group_heartbeat,
};

use crate::support::{convert, encode, mirror, oracle_tests, Generate, Rng};

mirror! {
    share_group_heartbeat::ShareGroupHeartbeatRequest => share_group_heartbeat_request::ShareGroupHeartbeatRequest {
        group_id: 1..,
        member_id: 1..,
        member_epoch: 1..,
        rack_id: 1..,
        subscribed_topic_names: 1..,
    }
}

mirror! {
    share_group_heartbeat::ShareGroupHeartbeatResponse => share_group_heartbeat_response::ShareGroupHeartbeatResponse {
        throttle_time_ms: 1..,
        error_code: 1..,
        error_message: 1..,
        member_id: 1..,
        member_epoch: 1..,
        heartbeat_interval_ms: 1..,
        assignment: 1..,
    }
}

mirror! {
    share_group_heartbeat::ShareAssignment => share_group_heartbeat_response::Assignment {
        topic_partitions: 1..,
    }
}

mirror! {
    share_group_heartbeat::ShareTopicPartitions => share_group_heartbeat_response::TopicPartitions {
        topic_id: 1..,
        partitions: 1..,
    }
}

mirror! {
    share_group_describe::ShareGroupDescribeRequest => share_group_describe_request::ShareGroupDescribeRequest {
        group_ids: 1..,
        include_authorized_operations: 1..,
    }
}

mirror! {
    share_group_describe::ShareGroupDescribeResponse => share_group_describe_response::ShareGroupDescribeResponse {
        throttle_time_ms: 1..,
        groups: 1..,
    }
}

mirror! {
    share_group_describe::DescribedShareGroup => share_group_describe_response::DescribedGroup {
        error_code: 1..,
        error_message: 1..,
        group_id: 1..,
        group_state: 1..,
        group_epoch: 1..,
        assignment_epoch: 1..,
        assignor_name: 1..,
        members: 1..,
        authorized_operations: 1..,
    }
}

mirror! {
    share_group_describe::DescribedShareMember => share_group_describe_response::Member {
        member_id: 1..,
        rack_id: 1..,
        member_epoch: 1..,
        client_id: 1..,
        client_host: 1..,
        subscribed_topic_names: 1..,
        assignment: 1..,
    }
}

mirror! {
    share_group_describe::DescribedShareAssignment => share_group_describe_response::Assignment {
        topic_partitions: 1..,
    }
}

mirror! {
    share_group_describe::DescribedShareTopic => share_group_describe_response::TopicPartitions {
        topic_id: 1..,
        topic_name: 1..,
        partitions: 1..,
    }
}

impl Generate for share_fetch::ShareFetchRequest {
    fn generate(rng: &mut Rng, version: i16) -> Self {
        let mut value = Self {
            group_id: Generate::generate(rng, version),
            member_id: Generate::generate(rng, version),
            share_session_epoch: Generate::generate(rng, version),
            max_wait_ms: Generate::generate(rng, version),
            min_bytes: Generate::generate(rng, version),
            max_bytes: Generate::generate(rng, version),
            max_records: Generate::generate(rng, version),
            batch_size: Generate::generate(rng, version),
            topics: Generate::generate(rng, version),
            forgotten_topics_data: Generate::generate(rng, version),
            ..Default::default()
        };
        if version >= 2 {
            value.share_acquire_mode = Generate::generate(rng, version);
        }
        if version >= 2 {
            value.is_renew_ack = Generate::generate(rng, version);
        }
        value
    }
}

convert! {
    share_fetch::ShareFetchRequest => share_fetch_request::ShareFetchRequest {
        group_id: 1..,
        member_id: 1..,
        share_session_epoch: 1..,
        max_wait_ms: 1..,
        min_bytes: 1..,
        max_bytes: 1..,
        max_records: 1..,
        batch_size: 1..,
        topics: 1..,
        forgotten_topics_data: 1..,
    }
}

mirror! {
    share_fetch::ShareFetchTopic => share_fetch_request::FetchTopic {
        topic_id: 1..,
        partitions: 1..,
    }
}

mirror! {
    share_fetch::ShareFetchPartition => share_fetch_request::FetchPartition {
        partition_index: 1..,
        acknowledgement_batches: 1..,
    }
}

mirror! {
    share_fetch::AcknowledgementBatch => share_fetch_request::AcknowledgementBatch {
        first_offset: 1..,
        last_offset: 1..,
        acknowledge_types: 1..,
    }
}

mirror! {
    share_fetch::ShareForgottenTopic => share_fetch_request::ForgottenTopic {
        topic_id: 1..,
        partitions: 1..,
    }
}

mirror! {
    share_fetch::ShareFetchResponse => share_fetch_response::ShareFetchResponse {
        throttle_time_ms: 1..,
        error_code: 1..,
        error_message: 1..,
        acquisition_lock_timeout_ms: 1..,
        responses: 1..,
        node_endpoints: 1..,
    }
}

mirror! {
    share_fetch::ShareFetchableTopic => share_fetch_response::ShareFetchableTopicResponse {
        topic_id: 1..,
        partitions: 1..,
    }
}

impl Generate for share_fetch::SharePartitionData {
    fn generate(rng: &mut Rng, version: i16) -> Self {
        // No version here has records that are null.
        let records = Bytes::generate(rng, version).into();
        Self {
            records,
            partition_index: Generate::generate(rng, version),
            error_code: Generate::generate(rng, version),
            error_message: Generate::generate(rng, version),
            acknowledge_error_code: Generate::generate(rng, version),
            acknowledge_error_message: Generate::generate(rng, version),
            current_leader: Generate::generate(rng, version),
            acquired_records: Generate::generate(rng, version),
        }
    }
}

convert! {
    share_fetch::SharePartitionData => share_fetch_response::PartitionData {
        partition_index: 1..,
        error_code: 1..,
        error_message: 1..,
        acknowledge_error_code: 1..,
        acknowledge_error_message: 1..,
        current_leader: 1..,
        records: 1..,
        acquired_records: 1..,
    }
}

mirror! {
    share_fetch::ShareLeader => share_fetch_response::LeaderIdAndEpoch {
        leader_id: 1..,
        leader_epoch: 1..,
    }
}

mirror! {
    share_fetch::AcquiredRecords => share_fetch_response::AcquiredRecords {
        first_offset: 1..,
        last_offset: 1..,
        delivery_count: 1..,
    }
}

mirror! {
    share_fetch::ShareNodeEndpoint => share_fetch_response::NodeEndpoint {
        node_id: 1..,
        host: 1..,
        port: 1..,
        rack: 1..,
    }
}

impl Generate for share_acknowledge::ShareAcknowledgeRequest {
    fn generate(rng: &mut Rng, version: i16) -> Self {
        let mut value = Self {
            group_id: Generate::generate(rng, version),
            member_id: Generate::generate(rng, version),
            share_session_epoch: Generate::generate(rng, version),
            topics: Generate::generate(rng, version),
            ..Default::default()
        };
        if version >= 2 {
            value.is_renew_ack = Generate::generate(rng, version);
        }
        value
    }
}

convert! {
    share_acknowledge::ShareAcknowledgeRequest => share_acknowledge_request::ShareAcknowledgeRequest {
        group_id: 1..,
        member_id: 1..,
        share_session_epoch: 1..,
        topics: 1..,
    }
}

mirror! {
    share_acknowledge::ShareAcknowledgeTopic => share_acknowledge_request::AcknowledgeTopic {
        topic_id: 1..,
        partitions: 1..,
    }
}

mirror! {
    share_acknowledge::ShareAcknowledgePartition => share_acknowledge_request::AcknowledgePartition {
        partition_index: 1..,
        acknowledgement_batches: 1..,
    }
}

impl Generate for share_acknowledge::ShareAcknowledgeResponse {
    fn generate(rng: &mut Rng, version: i16) -> Self {
        let mut value = Self {
            throttle_time_ms: Generate::generate(rng, version),
            error_code: Generate::generate(rng, version),
            error_message: Generate::generate(rng, version),
            responses: Generate::generate(rng, version),
            node_endpoints: Generate::generate(rng, version),
            ..Default::default()
        };
        if version >= 2 {
            value.acquisition_lock_timeout_ms = Generate::generate(rng, version);
        }
        value
    }
}

convert! {
    share_acknowledge::ShareAcknowledgeResponse => share_acknowledge_response::ShareAcknowledgeResponse {
        throttle_time_ms: 1..,
        error_code: 1..,
        error_message: 1..,
        responses: 1..,
        node_endpoints: 1..,
    }
}

mirror! {
    share_acknowledge::ShareAcknowledgedTopic => share_acknowledge_response::ShareAcknowledgeTopicResponse {
        topic_id: 1..,
        partitions: 1..,
    }
}

mirror! {
    share_acknowledge::ShareAcknowledgedPartition => share_acknowledge_response::PartitionData {
        partition_index: 1..,
        error_code: 1..,
        error_message: 1..,
        current_leader: 1..,
    }
}

mirror! {
    describe_share_group_offsets::DescribeShareGroupOffsetsRequest => describe_share_group_offsets_request::DescribeShareGroupOffsetsRequest {
        groups: 0..,
    }
}

mirror! {
    describe_share_group_offsets::ShareOffsetsGroup => describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup {
        group_id: 0..,
        topics: 0..,
    }
}

mirror! {
    describe_share_group_offsets::ShareOffsetsTopic => describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestTopic {
        topic_name: 0..,
        partitions: 0..,
    }
}

mirror! {
    describe_share_group_offsets::DescribeShareGroupOffsetsResponse => describe_share_group_offsets_response::DescribeShareGroupOffsetsResponse {
        throttle_time_ms: 0..,
        groups: 0..,
    }
}

mirror! {
    describe_share_group_offsets::DescribedShareOffsetsGroup => describe_share_group_offsets_response::DescribeShareGroupOffsetsResponseGroup {
        group_id: 0..,
        topics: 0..,
        error_code: 0..,
        error_message: 0..,
    }
}

mirror! {
    describe_share_group_offsets::DescribedShareOffsetsTopic => describe_share_group_offsets_response::DescribeShareGroupOffsetsResponseTopic {
        topic_name: 0..,
        topic_id: 0..,
        partitions: 0..,
    }
}

impl Generate for describe_share_group_offsets::DescribedShareOffset {
    fn generate(rng: &mut Rng, version: i16) -> Self {
        let mut value = Self {
            partition_index: Generate::generate(rng, version),
            start_offset: Generate::generate(rng, version),
            leader_epoch: Generate::generate(rng, version),
            error_code: Generate::generate(rng, version),
            error_message: Generate::generate(rng, version),
            ..Default::default()
        };
        if version >= 1 {
            value.lag = Generate::generate(rng, version);
        }
        value
    }
}

convert! {
    describe_share_group_offsets::DescribedShareOffset => describe_share_group_offsets_response::DescribeShareGroupOffsetsResponsePartition {
        partition_index: 0..,
        start_offset: 0..,
        leader_epoch: 0..,
        error_code: 0..,
        error_message: 0..,
    }
}

mirror! {
    alter_share_group_offsets::AlterShareGroupOffsetsRequest => alter_share_group_offsets_request::AlterShareGroupOffsetsRequest {
        group_id: 0..,
        topics: 0..,
    }
}

mirror! {
    alter_share_group_offsets::AlterShareOffsetsTopic => alter_share_group_offsets_request::AlterShareGroupOffsetsRequestTopic {
        topic_name: 0..,
        partitions: 0..,
    }
}

mirror! {
    alter_share_group_offsets::AlterShareOffset => alter_share_group_offsets_request::AlterShareGroupOffsetsRequestPartition {
        partition_index: 0..,
        start_offset: 0..,
    }
}

mirror! {
    alter_share_group_offsets::AlterShareGroupOffsetsResponse => alter_share_group_offsets_response::AlterShareGroupOffsetsResponse {
        throttle_time_ms: 0..,
        error_code: 0..,
        error_message: 0..,
        responses: 0..,
    }
}

mirror! {
    alter_share_group_offsets::AlteredShareOffsetsTopic => alter_share_group_offsets_response::AlterShareGroupOffsetsResponseTopic {
        topic_name: 0..,
        topic_id: 0..,
        partitions: 0..,
    }
}

mirror! {
    alter_share_group_offsets::AlteredShareOffset => alter_share_group_offsets_response::AlterShareGroupOffsetsResponsePartition {
        partition_index: 0..,
        error_code: 0..,
        error_message: 0..,
    }
}

mirror! {
    delete_share_group_offsets::DeleteShareGroupOffsetsRequest => delete_share_group_offsets_request::DeleteShareGroupOffsetsRequest {
        group_id: 0..,
        topics: 0..,
    }
}

mirror! {
    delete_share_group_offsets::DeleteShareOffsetsTopic => delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic {
        topic_name: 0..,
    }
}

mirror! {
    delete_share_group_offsets::DeleteShareGroupOffsetsResponse => delete_share_group_offsets_response::DeleteShareGroupOffsetsResponse {
        throttle_time_ms: 0..,
        error_code: 0..,
        error_message: 0..,
        responses: 0..,
    }
}

mirror! {
    delete_share_group_offsets::DeletedShareOffsetsTopic => delete_share_group_offsets_response::DeleteShareGroupOffsetsResponseTopic {
        topic_name: 0..,
        topic_id: 0..,
        error_code: 0..,
        error_message: 0..,
    }
}

convert! {
    share_fetch::AcknowledgementBatch => share_acknowledge_request::AcknowledgementBatch {
        first_offset: 1..,
        last_offset: 1..,
        acknowledge_types: 1..,
    }
}

convert! {
    share_fetch::ShareLeader => share_acknowledge_response::LeaderIdAndEpoch {
        leader_id: 1..,
        leader_epoch: 1..,
    }
}

convert! {
    share_fetch::ShareNodeEndpoint => share_acknowledge_response::NodeEndpoint {
        node_id: 1..,
        host: 1..,
        port: 1..,
        rack: 1..,
    }
}

oracle_tests! {
    share_group_heartbeat: share_group_heartbeat::ShareGroupHeartbeatRequest => kafka_protocol::messages::ShareGroupHeartbeatRequest, share_group_heartbeat::ShareGroupHeartbeatResponse => kafka_protocol::messages::ShareGroupHeartbeatResponse;
    share_group_describe: share_group_describe::ShareGroupDescribeRequest => kafka_protocol::messages::ShareGroupDescribeRequest, share_group_describe::ShareGroupDescribeResponse => kafka_protocol::messages::ShareGroupDescribeResponse;
    share_fetch: share_fetch::ShareFetchRequest => kafka_protocol::messages::ShareFetchRequest, share_fetch::ShareFetchResponse => kafka_protocol::messages::ShareFetchResponse;
    share_acknowledge: share_acknowledge::ShareAcknowledgeRequest => kafka_protocol::messages::ShareAcknowledgeRequest, share_acknowledge::ShareAcknowledgeResponse => kafka_protocol::messages::ShareAcknowledgeResponse;
    describe_share_group_offsets: describe_share_group_offsets::DescribeShareGroupOffsetsRequest => kafka_protocol::messages::DescribeShareGroupOffsetsRequest, describe_share_group_offsets::DescribeShareGroupOffsetsResponse => kafka_protocol::messages::DescribeShareGroupOffsetsResponse;
    alter_share_group_offsets: alter_share_group_offsets::AlterShareGroupOffsetsRequest => kafka_protocol::messages::AlterShareGroupOffsetsRequest, alter_share_group_offsets::AlterShareGroupOffsetsResponse => kafka_protocol::messages::AlterShareGroupOffsetsResponse;
    delete_share_group_offsets: delete_share_group_offsets::DeleteShareGroupOffsetsRequest => kafka_protocol::messages::DeleteShareGroupOffsetsRequest, delete_share_group_offsets::DeleteShareGroupOffsetsResponse => kafka_protocol::messages::DeleteShareGroupOffsetsResponse;
}

/// Laid out by hand after Kafka's schemas.
#[test]
fn versions_that_the_oracle_does_not_know() {
    let fetch = share_fetch::ShareFetchRequest {
        group_id: Some("g".into()),
        member_id: Some("m".into()),
        share_session_epoch: 1,
        max_wait_ms: 2,
        min_bytes: 3,
        max_bytes: 4,
        max_records: 5,
        batch_size: 6,
        share_acquire_mode: 1,
        is_renew_ack: true,
        ..Default::default()
    };
    let bytes = [
        &[
            2, b'g', 2, b'm', 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4,
        ][..],
        &[0, 0, 0, 5, 0, 0, 0, 6, 1, 1, 1, 1, 0],
    ];
    assert_eq!(encode(&fetch, 2).unwrap(), bytes.concat());
    let said = share_acknowledge::ShareAcknowledgeRequest {
        group_id: Some("g".into()),
        member_id: None,
        share_session_epoch: 1,
        is_renew_ack: true,
        topics: Vec::new(),
    };
    assert_eq!(
        encode(&said, 2).unwrap(),
        &[2, b'g', 0, 0, 0, 0, 1, 1, 1, 0][..]
    );
    let answer = share_acknowledge::ShareAcknowledgeResponse {
        acquisition_lock_timeout_ms: 7,
        ..Default::default()
    };
    let bytes = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 1, 1, 0];
    assert_eq!(encode(&answer, 2).unwrap(), &bytes[..]);
    let offset = describe_share_group_offsets::DescribedShareOffset {
        partition_index: 1,
        start_offset: 2,
        leader_epoch: 3,
        lag: 4,
        ..Default::default()
    };
    let bytes = [
        &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3][..],
        &[0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0],
    ];
    assert_eq!(encode(&offset, 1).unwrap(), bytes.concat());
}
