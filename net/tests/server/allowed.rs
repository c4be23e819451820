//! Owns the end-to-end test of what clients are told they may do with topics and the cluster; that of groups has theirs.
//! Does not know what else the answers hold.
//! Invariant: the numbers are those that Apache Kafka answers without an authorizer.

use crate::support::*;
use millrace_net::wire::describe_cluster::DescribeClusterRequest;
use millrace_net::wire::describe_topic_partitions::DescribeTopicPartitionsRequest;
use millrace_net::wire::metadata::MetadataRequest;

const WITH_TOPIC: i32 = 3576;
const WITH_CLUSTER: i32 = 8096;

#[test]
fn who_asks_may_do_all_and_who_does_not_is_told_nothing() {
    with_broker(|mut client| async move {
        client.create_topic("t", 1).await;
        for asked in [true, false] {
            let told = |operations| if asked { operations } else { i32::MIN };
            for version in 8..=13 {
                let request = MetadataRequest {
                    topics: Some(vec![named("t"), named("no such/name")]),
                    include_cluster_authorized_operations: asked && version <= 10,
                    include_topic_authorized_operations: asked,
                    ..Default::default()
                };
                let metadata = client.call(&request, version).await;
                let of_topics: Vec<i32> = metadata
                    .topics
                    .iter()
                    .map(|topic| topic.topic_authorized_operations)
                    .collect();
                assert_eq!(of_topics, [told(WITH_TOPIC); 2], "version {version}");
                if version <= 10 {
                    let of_cluster = metadata.cluster_authorized_operations;
                    assert_eq!(of_cluster, told(WITH_CLUSTER), "version {version}");
                }
            }
            let request = DescribeClusterRequest {
                include_cluster_authorized_operations: asked,
                ..Default::default()
            };
            let cluster = client.call(&request, 1).await;
            assert_eq!(cluster.cluster_authorized_operations, told(WITH_CLUSTER));
        }
        let request = DescribeTopicPartitionsRequest {
            response_partition_limit: 2,
            ..Default::default()
        };
        let topics = client.call(&request, 0).await.topics;
        assert_eq!(topics[0].topic_authorized_operations, WITH_TOPIC);
    });
}
