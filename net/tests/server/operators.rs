//! Owns the tests of what operators' tools ask about a node: its quorum, its features, its one directory, its registration.
//! Does not know the tools.
//! Invariant: a single node never says that it moved, changed or forgot anything.

use crate::support::{with_broker, with_server, Client};
use millrace_net::wire::alter_replica_log_dirs::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic, AlterReplicaLogDirsRequest,
};
use millrace_net::wire::describe_quorum::{
    AskedPartition, AskedTopic, DescribeQuorumRequest, DescribeQuorumResponse,
};
use millrace_net::wire::unregister_broker::UnregisterBrokerRequest;
use millrace_net::wire::update_features::{FeatureUpdateKey, UpdateFeaturesRequest};
use millrace_net::NetConfig;

fn quorum(topic: &'static str, partitions: &[i32]) -> AskedTopic {
    let partitions = partitions.iter();
    let partitions = partitions.map(|index| AskedPartition {
        partition_index: *index,
    });
    AskedTopic {
        topic_name: topic.into(),
        partitions: partitions.collect(),
    }
}

async fn metadata_quorum(client: &mut Client, version: i16) -> DescribeQuorumResponse {
    let request = DescribeQuorumRequest {
        topics: vec![quorum("__cluster_metadata", &[0])],
    };
    client.call(&request, version).await
}

#[test]
fn the_node_agrees_with_itself_on_the_metadata() {
    with_broker(|mut client| async move {
        let mut before = 0;
        for version in 0..=2 {
            client.create_topic(&format!("t{version}"), 1).await;
            let told = metadata_quorum(&mut client, version).await;
            assert_eq!(told.error_code, 0);
            let partition = &told.topics[0].partitions[0];
            assert_eq!((partition.error_code, partition.leader_id), (0, 1));
            assert!(partition.leader_epoch > 0);
            assert!(partition.high_watermark > before, "a topic was created");
            before = partition.high_watermark;
            let [voter] = &partition.current_voters[..] else {
                panic!("one votes");
            };
            assert_eq!((voter.replica_id, voter.log_end_offset), (1, before));
            assert_eq!(voter.last_caught_up_timestamp > 0, version > 0);
            assert!(partition.observers.is_empty());
            let nodes = told.nodes.iter().flat_map(|node| &node.listeners);
            let ports: Vec<u16> = nodes.map(|listener| listener.port).collect();
            assert_eq!(ports, [9192][..usize::from(version == 2)]);
        }
        for topics in [
            vec![quorum("t0", &[0])],
            vec![quorum("__cluster_metadata", &[1])],
            vec![quorum("__cluster_metadata", &[0, 0])],
            vec![quorum("__cluster_metadata", &[0]), quorum("t0", &[])],
        ] {
            let asked: usize = topics.iter().map(|topic| topic.partitions.len()).sum();
            let told = client.call(&DescribeQuorumRequest { topics }, 2).await;
            let partitions = told.topics.iter().flat_map(|topic| &topic.partitions);
            let codes: Vec<i16> = partitions.map(|p| p.error_code).collect();
            assert_eq!(codes, vec![3; asked]);
        }
    });
}

#[test]
fn partitions_stay_in_the_one_directory() {
    with_broker(|mut client| async move {
        client.create_topic("t", 2).await;
        let dir = |path: &'static str, partitions: &[i32]| AlterReplicaLogDir {
            path: path.into(),
            topics: vec![AlterReplicaLogDirTopic {
                name: "t".into(),
                partitions: partitions.to_vec(),
            }],
        };
        let request = AlterReplicaLogDirsRequest {
            dirs: vec![dir("/data", &[0, 2]), dir("/other", &[1])],
        };
        for version in 1..=2 {
            let told = client.call(&request, version).await;
            let partitions = told.results[0].partitions.iter();
            let codes: Vec<_> = partitions
                .map(|p| (p.partition_index, p.error_code))
                .collect();
            assert_eq!(
                (told.results.len(), codes),
                (1, vec![(0, 0), (1, 57), (2, 3)])
            );
        }
    });
}

#[test]
fn levels_of_features_are_what_they_are() {
    with_broker(|mut client| async move {
        let request = |level| UpdateFeaturesRequest {
            feature_updates: vec![FeatureUpdateKey {
                feature: "transaction.version".into(),
                max_version_level: level,
                ..Default::default()
            }],
            ..Default::default()
        };
        for version in 0..=2 {
            for (level, code) in [(2, 0), (1, 95), (3, 95)] {
                let told = client.call(&request(level), version).await;
                let results = usize::from(code == 0 && version < 2);
                let got = (told.error_code, told.results.len());
                assert_eq!(got, (code, results), "{level} by {version}");
            }
        }
    });
}

#[test]
fn the_only_node_is_not_forgotten_and_no_other_is_known() {
    with_broker(|mut client| async move {
        for (broker_id, code) in [(1, 42), (2, 102), (-1, 102)] {
            let told = client.call(&UnregisterBrokerRequest { broker_id }, 0).await;
            assert_eq!(told.error_code, code, "{broker_id}");
            assert!(told.error_message.is_some());
        }
    });
    let cores = NetConfig {
        core_ports: vec![9101, 9102],
        ..NetConfig::default()
    };
    with_server(2, cores, |_, mut client| async move {
        for (broker_id, code) in [(1_001, 42), (1, 42), (1_002, 102)] {
            let told = client.call(&UnregisterBrokerRequest { broker_id }, 0).await;
            assert_eq!(told.error_code, code, "{broker_id}");
        }
        let told = metadata_quorum(&mut client, 2).await;
        assert_eq!(
            told.topics[0].partitions[0].leader_id, 1,
            "not one of its cores"
        );
    });
}
