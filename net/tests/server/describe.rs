//! Owns the end-to-end tests of the descriptions of the cluster, its disks and its partitions, and of the whole table of
//! versions.
//! Does not know what changes what is described.
//! Invariant: every answer is read by the wire codec of the version it was asked in.

use crate::support::*;
use millrace_engine::rt::sim::SimConfig;
use millrace_net::wire::api_versions::ApiVersionsRequest;
use millrace_net::wire::describe_cluster::DescribeClusterRequest;
use millrace_net::wire::describe_log_dirs::DescribeLogDirsRequest;
use millrace_net::wire::describe_topic_partitions::DescribeTopicPartitionsRequest;
use millrace_net::wire::versions;

#[test]
fn the_cluster_its_disks_and_its_partitions_are_described() {
    with_broker(|mut client| async move {
        client.create_topic("t", 3).await;
        let records = batch(&[b"x"]);
        client
            .call(&produce("t", 1, -1, Some(records.clone())), 9)
            .await;
        for version in 0..=2 {
            let cluster = client
                .call(&DescribeClusterRequest::default(), version)
                .await;
            assert_eq!(
                (
                    cluster.error_code,
                    cluster.brokers.len(),
                    cluster.brokers[0].port
                ),
                (0, 1, 9192)
            );
        }
        let controllers = DescribeClusterRequest {
            endpoint_type: 2,
            ..Default::default()
        };
        assert_eq!(client.call(&controllers, 1).await.error_code, 114);
        for version in 1..=4 {
            let dirs = client
                .call(&DescribeLogDirsRequest { topics: None }, version)
                .await;
            let dir = &dirs.results[0];
            assert_eq!((dir.error_code, &*dir.log_dir), (0, "/data"));
            let disk = SimConfig::default().disk_bytes as i64;
            assert_eq!(dir.total_bytes, if version < 4 { -1 } else { disk });
            assert_eq!(dir.usable_bytes < 0, version < 4);
            assert!(dir.usable_bytes < disk);
            let topic = &dir.topics[0];
            assert_eq!(&*topic.name, "t");
            let of_one = topic
                .partitions
                .iter()
                .find(|partition| partition.partition_index == 1)
                .unwrap();
            assert!(of_one.partition_size >= records.len() as i64);
        }
        let request = DescribeTopicPartitionsRequest {
            response_partition_limit: 2,
            ..Default::default()
        };
        let page = client.call(&request, 0).await;
        assert_eq!(page.topics[0].partitions.len(), 2);
        let cursor = page.next_cursor.unwrap();
        assert_eq!((&*cursor.topic_name, cursor.partition_index), ("t", 2));
        let rest = DescribeTopicPartitionsRequest {
            cursor: Some(cursor),
            ..request
        };
        let page = client.call(&rest, 0).await;
        assert_eq!(
            (page.topics[0].partitions.len(), page.next_cursor),
            (1, None)
        );
    });
}

#[test]
fn every_version_that_is_advertised_is_served() {
    with_broker(|mut client| async move {
        for served in versions::SERVED {
            for version in served.min..=served.max {
                // An empty request of every key and version; what matters is that it is answered or refused in order,
                // never with a broken frame.
                let answered = client.call_empty(served.key, version).await;
                assert!(answered, "{} {version}", served.key);
            }
        }
    });
}

#[test]
fn nothing_is_advertised_that_clients_would_take_for_more_than_it_is() {
    with_broker(|mut client| async move {
        let request = ApiVersionsRequest {
            client_software_name: "test".into(),
            client_software_version: "1".into(),
            ..Default::default()
        };
        for version in 0..=5 {
            let response = client.call(&request, version).await;
            let range = |key| {
                let found = response.api_keys.iter().find(|api| api.api_key == key);
                found.map(|api| (api.min_version, api.max_version))
            };
            // Librdkafka needs the 0.
            assert_eq!(range(0), Some((0, 13)));
            assert_eq!(range(1), Some((4, 18)));
            assert_eq!(range(22), Some((0, 5)), "version 6 is not stable");
            // Java validates positions from version 3 on.
            assert_eq!(range(23), Some((2, 4)));
            // Clients of groups: whoever knows topic ids commits by them.
            assert_eq!((range(8), range(9)), (Some((2, 10)), Some((1, 10))));
            assert_eq!(range(11), Some((0, 9)));
            // No receiver of telemetry, no groups of the new protocol, nothing of KRaft.
            for key in [4, 17, 52, 53, 57, 68, 71, 72] {
                assert_eq!(range(key), None, "key {key}");
            }
            // By the levels of features clients choose how they write transactions, and whether there are share groups.
            let levels = response.finalized_features.len();
            assert_eq!(levels, if version >= 3 { 2 } else { 0 });
        }
    });
}
