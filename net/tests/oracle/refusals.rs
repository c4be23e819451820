//! Owns the tests of what the codec refuses to write or read, and of layouts newer than the oracle.
//! Does not know random values; each case is spelled out.
//! Keeps: a refusal names the field, so that its cause is found without a debugger.
use bytes::{Bytes, BytesMut};
use millrace_net::wire::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use millrace_net::wire::delete_groups::{
    DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse,
};
use millrace_net::wire::describe_log_dirs::{DescribeLogDirsResponse, DescribeLogDirsResult};
use millrace_net::wire::fetch::FetchRequest;
use millrace_net::wire::find_coordinator::{Coordinator, FindCoordinatorResponse};
use millrace_net::wire::list_offsets::{timestamp, ListOffsetsRequest};
use millrace_net::wire::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use millrace_net::wire::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use millrace_net::wire::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic,
};
use millrace_net::wire::produce::ProduceRequest;
use millrace_net::wire::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestTopic, TxnOffsetCommitResponse,
    TxnOffsetCommitResponseTopic,
};
use millrace_net::wire::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
use millrace_net::wire::{Message, Reader, Str, WireError};
use uuid::Uuid;

use crate::support::{decode, encode};

#[test]
fn versions_outside_the_schema_are_refused() {
    for version in [-1, 0, 2, 14, i16::MAX] {
        let refused = WireError::UnsupportedVersion {
            message: "ProduceRequest",
            version,
        };
        assert_eq!(
            encode(&ProduceRequest::default(), version),
            Err(refused.clone())
        );
        assert_eq!(
            decode::<ProduceRequest>(Bytes::from_static(&[0; 64]), version),
            Err(refused)
        );
    }
}

#[test]
fn a_field_that_matters_is_not_dropped() {
    let response = FindCoordinatorResponse {
        coordinators: vec![Coordinator::default()],
        ..Default::default()
    };
    assert!(encode(&response, 4).is_ok());
    assert_eq!(
        encode(&response, 3),
        Err(WireError::FieldNotInVersion {
            message: "FindCoordinatorResponse",
            field: "coordinators",
            version: 3
        })
    );
}

#[test]
fn a_field_that_does_not_matter_is_dropped() {
    let response = MetadataResponse {
        throttle_time_ms: 5,
        cluster_id: Some("c".into()),
        ..Default::default()
    };
    let bytes = encode(&response, 0).expect("drops both");
    assert_eq!(
        decode::<MetadataResponse>(bytes, 0),
        Ok(MetadataResponse::default())
    );
}

#[test]
fn null_is_refused_where_the_version_forbids_it() {
    let all = MetadataRequest::default();
    let refused = Err(WireError::UnexpectedNull {
        field: "topics",
        version: 0,
    });
    assert_eq!(encode(&all, 0), refused);
    assert_eq!(
        decode::<MetadataRequest>(Bytes::from_static(&[0xff; 4]), 0).map(|_| Bytes::new()),
        refused
    );
    assert!(encode(&all, 1).is_ok());

    // Brokers in a metadata response: never null.
    let null = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    assert_eq!(
        decode::<MetadataResponse>(null, 0),
        Err(WireError::UnexpectedNull {
            field: "array",
            version: 0
        })
    );
}

#[test]
fn all_topics_and_no_topics_are_told_apart() {
    let none = MetadataRequest {
        topics: Some(Vec::new()),
        ..Default::default()
    };
    assert_eq!(none.asked(0), None);
    assert_eq!(none.asked(1), Some(&[][..]));
    assert_eq!(MetadataRequest::default().asked(1), None);
    let one = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic::default()]),
        ..Default::default()
    };
    assert_eq!(one.asked(0).map(<[_]>::len), Some(1));
}

#[test]
fn strings_that_do_not_fit_are_refused_in_every_version() {
    let longest = "x".repeat(i16::MAX as usize);
    for version in [11, 12] {
        let mut request = FetchRequest {
            rack_id: Str::from(longest.clone()),
            ..Default::default()
        };
        assert!(encode(&request, version).is_ok());
        request.rack_id = Str::from(format!("{longest}x"));
        assert_eq!(
            encode(&request, version),
            Err(WireError::TooLong {
                length: 32768,
                max: 32767
            })
        );
    }
}

/// An ApiVersions response of version 3 without keys, up to where its tagged fields begin.
const UP_TO_TAGS: [u8; 7] = [0, 0, 1, 0, 0, 0, 0];

#[test]
fn unknown_tagged_fields_are_skipped_and_known_ones_read() {
    let mut bytes = UP_TO_TAGS.to_vec();
    // Three fields: an epoch (tag 1), an unknown one with 3 bytes, another with none.
    bytes.extend([3, 1, 8, 0, 0, 0, 0, 0, 0, 0, 42, 90, 3, 9, 9, 9, 0x80, 1, 0]);
    let response = decode::<ApiVersionsResponse>(bytes.into(), 3).expect("readable");
    assert_eq!(response.finalized_features_epoch, 42);
}

#[test]
fn tagged_fields_of_the_wrong_size_are_refused() {
    let mut long = UP_TO_TAGS.to_vec();
    long.extend([1, 1, 9, 0, 0, 0, 0, 0, 0, 0, 42, 0]);
    assert_eq!(
        decode::<ApiVersionsResponse>(long.into(), 3),
        Err(WireError::TaggedFieldSize { tag: 1, unread: 1 })
    );
    let mut short = UP_TO_TAGS.to_vec();
    short.extend([1, 1, 7, 0, 0, 0, 0, 0, 0, 0, 42]);
    // The field may not borrow from what follows it.
    assert_eq!(
        decode::<ApiVersionsResponse>(short.into(), 3),
        Err(WireError::Truncated {
            needed: 8,
            remaining: 7
        })
    );
}

#[test]
fn memory_can_be_limited_by_the_caller() {
    let bytes = encode(
        &MetadataRequest {
            topics: Some(vec![MetadataRequestTopic::default(); 3]),
            ..Default::default()
        },
        12,
    )
    .expect("valid");
    let needed = 3 * size_of::<MetadataRequestTopic>();
    let with = |memory| {
        MetadataRequest::decode(&mut Reader::with_memory(bytes.clone(), memory), 12).map(drop)
    };
    assert_eq!(with(needed), Ok(()));
    assert_eq!(
        with(needed - 1),
        Err(WireError::MemoryLimit {
            needed,
            allowed: needed - 1
        })
    );
}

#[test]
fn log_dirs_version_5_says_whether_they_are_cordoned() {
    let response = DescribeLogDirsResponse {
        results: vec![DescribeLogDirsResult {
            log_dir: "/d".into(),
            total_bytes: 2,
            usable_bytes: 1,
            is_cordoned: true,
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut expected = BytesMut::new();
    expected.extend_from_slice(&[0, 0, 0, 0, 0, 0]); // throttle, error
    expected.extend_from_slice(&[2, 0, 0, 3, b'/', b'd', 1]); // one result: error, directory, no topics
    expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 1]); // bytes, cordoned
    expected.extend_from_slice(&[0, 0]); // no tagged fields, twice
    assert_eq!(encode(&response, 5), Ok(expected.freeze()));
}

#[test]
fn list_offsets_version_11_looks_like_10() {
    let request = ListOffsetsRequest {
        replica_id: -1,
        timeout_ms: 7,
        ..Default::default()
    };
    assert_eq!(encode(&request, 11), encode(&request, 10));
}

#[test]
fn special_timestamps_have_a_first_version() {
    let since = [1, 1, 7, 8, 9, 11];
    for (special, version) in [
        timestamp::LATEST,
        timestamp::EARLIEST,
        timestamp::MAX_TIMESTAMP,
        timestamp::EARLIEST_LOCAL,
        timestamp::LATEST_TIERED,
        timestamp::EARLIEST_PENDING_UPLOAD,
    ]
    .into_iter()
    .zip(since)
    {
        assert_eq!(timestamp::since(special), Some(version));
    }
    assert_eq!(timestamp::since(0), Some(1));
    assert_eq!(timestamp::since(-7), None);
}

#[test]
fn delete_groups_version_3_says_why() {
    let result = |name: &'static str, error_code, why: Option<&'static str>| DeletableGroupResult {
        group_id: name.into(),
        error_code,
        error_message: why.map(Str::from),
    };
    let response = DeleteGroupsResponse {
        throttle_time_ms: 0,
        results: vec![result("a", 68, Some("no")), result("b", 0, None)],
    };
    let mut expected = BytesMut::new();
    expected.extend_from_slice(&[0, 0, 0, 0, 3]); // throttle, two results
    expected.extend_from_slice(&[2, b'a', 0, 68, 3, b'n', b'o', 0]); // group, error, message, no tagged fields
    expected.extend_from_slice(&[2, b'b', 0, 0, 0, 0, 0]); // the same without a message; no tagged fields
    assert_eq!(encode(&response, 3), Ok(expected.freeze()));
    let request = DeleteGroupsRequest {
        groups_names: vec!["a".into()],
    };
    assert_eq!(encode(&request, 3), encode(&request, 2));
}

#[test]
fn write_txn_markers_version_2_says_which_level_a_marker_is_of() {
    let request = WriteTxnMarkersRequest {
        markers: vec![WritableTxnMarker {
            producer_id: 7,
            producer_epoch: 3,
            transaction_result: true,
            topics: vec![WritableTxnMarkerTopic {
                name: "t".into(),
                partition_indexes: vec![1],
            }],
            coordinator_epoch: 5,
            transaction_version: 2,
        }],
    };
    let mut expected = BytesMut::new();
    expected.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 3, 1]); // one marker: producer, epoch, commit
    expected.extend_from_slice(&[2, 2, b't', 2, 0, 0, 0, 1, 0]); // one topic: name, one partition
    expected.extend_from_slice(&[0, 0, 0, 5]); // the coordinator's epoch
    let mut older = expected.clone();
    expected.extend_from_slice(&[2, 0, 0]); // the level; no tagged fields, twice
    older.extend_from_slice(&[0, 0]);
    assert_eq!(encode(&request, 2), Ok(expected.freeze()));
    assert_eq!(encode(&request, 1), Ok(older.freeze()));
}

#[test]
fn txn_offset_commit_version_6_names_topics_by_id() {
    let id = Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
    let request = TxnOffsetCommitRequest {
        transactional_id: "x".into(),
        group_id: "g".into(),
        producer_id: 7,
        producer_epoch: 3,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: "dropped".into(),
            topic_id: id,
            partitions: vec![],
        }],
        ..Default::default()
    };
    let mut expected = BytesMut::new();
    expected.extend_from_slice(&[2, b'x', 2, b'g', 0, 0, 0, 0, 0, 0, 0, 7, 0, 3]); // id, group, producer, epoch
    expected.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 1, 0, 2]); // generation, member, no instance, one topic
    expected.extend_from_slice(id.as_bytes());
    expected.extend_from_slice(&[1, 0, 0]); // no partitions; no tagged fields, twice
    assert_eq!(encode(&request, 6), Ok(expected.freeze()));
    let response = TxnOffsetCommitResponse {
        topics: vec![TxnOffsetCommitResponseTopic {
            topic_id: id,
            ..Default::default()
        }],
        ..Default::default()
    };
    let expected = [&[0, 0, 0, 0, 2][..], id.as_bytes(), &[1, 0, 0]].concat();
    assert_eq!(encode(&response, 6), Ok(Bytes::from(expected)));
}

#[test]
fn offset_commit_version_10_names_topics_by_id() {
    let topic = OffsetCommitRequestTopic {
        name: "not sent".into(),
        topic_id: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        partitions: vec![OffsetCommitRequestPartition {
            partition_index: 5,
            committed_offset: 6,
            committed_leader_epoch: 7,
            committed_metadata: None,
        }],
    };
    let request = OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: 4,
        member_id: "m".into(),
        topics: vec![topic],
        ..Default::default()
    };
    let mut expected = BytesMut::new();
    // Group, generation, member, no instance, one topic.
    expected.extend_from_slice(&[2, b'g', 0, 0, 0, 4, 2, b'm', 0, 2]);
    expected.extend_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
    // One partition: index, offset, epoch, no metadata; no tagged fields, three times.
    expected.extend_from_slice(&[
        2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0, 0, 0,
    ]);
    assert_eq!(encode(&request, 10), Ok(expected.freeze()));
}

#[test]
fn offset_fetch_version_10_names_topics_by_id() {
    let topic = OffsetFetchRequestTopic {
        name: "not sent".into(),
        topic_id: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        partition_indexes: vec![5],
    };
    let group = OffsetFetchRequestGroup {
        group_id: "g".into(),
        member_id: None,
        member_epoch: -1,
        topics: Some(vec![topic]),
    };
    let request = OffsetFetchRequest {
        groups: vec![group],
        require_stable: true,
        ..Default::default()
    };
    let mut expected = BytesMut::new();
    // One group: its name, no member, no epoch, one topic.
    expected.extend_from_slice(&[2, 2, b'g', 0, 0xff, 0xff, 0xff, 0xff, 2]);
    expected.extend_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
    // One partition; no tagged fields, twice; stable ones only; no tagged fields.
    expected.extend_from_slice(&[2, 0, 0, 0, 5, 0, 0, 1, 0]);
    assert_eq!(encode(&request, 10), Ok(expected.freeze()));
}

#[test]
fn all_topics_of_a_group_have_no_form_in_the_oldest_offset_fetch() {
    let all = OffsetFetchRequest::default();
    assert_eq!(
        encode(&all, 1),
        Err(WireError::UnexpectedNull {
            field: "topics",
            version: 1
        })
    );
    assert!(encode(&all, 2).is_ok());
}

#[test]
fn api_versions_version_5_says_whom_the_client_means() {
    let request = ApiVersionsRequest {
        client_software_name: "n".into(),
        client_software_version: "v".into(),
        cluster_id: Some("c".into()),
        node_id: 7,
    };
    let mut expected = BytesMut::new();
    // Name, version, cluster, node, no tagged fields.
    expected.extend_from_slice(&[2, b'n', 2, b'v', 2, b'c', 0, 0, 0, 7, 0]);
    assert_eq!(encode(&request, 5), Ok(expected.freeze()));
    let mut expected = BytesMut::new();
    expected.extend_from_slice(&[2, b'n', 2, b'v', 0]);
    assert_eq!(encode(&request, 4), Ok(expected.freeze()));
}
