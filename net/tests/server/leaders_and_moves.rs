//! Owns the tests of elections, of moves between brokers and of the list of what has settings.
//! Does not know how nodes share partitions.
//! Invariant: a single node never says that it elected or moved anything.

use crate::support::{with_broker, with_server, Client};
use millrace_net::wire::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use millrace_net::wire::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use millrace_net::wire::list_config_resources::ListConfigResourcesRequest;
use millrace_net::wire::list_partition_reassignments::ListPartitionReassignmentsRequest;
use millrace_net::wire::Str;
use millrace_net::NetConfig;

const UNKNOWN: i16 = 3;
const INVALID_ASSIGNMENT: i16 = 39;
const INVALID_REQUEST: i16 = 42;
const NOT_NEEDED: i16 = 84;
const NOTHING_MOVES: i16 = 85;

#[test]
fn who_leads_needs_no_election() {
    with_broker(|mut client| async move {
        client.create_topic("t", 2).await;
        let asked = |topic: &'static str, partitions: &[i32]| TopicPartitions {
            topic: topic.into(),
            partitions: partitions.to_vec(),
        };
        let some = vec![asked("t", &[1, 2, -1]), asked("no", &[0])];
        for (version, election_type) in [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1)] {
            let mut request = ElectLeadersRequest {
                election_type,
                topic_partitions: Some(some.clone()),
                ..Default::default()
            };
            let answer = client.call(&request, version).await;
            let told: Vec<(&str, i32, i16)> = answer
                .replica_election_results
                .iter()
                .flat_map(|t| t.partition_result.iter().map(|p| (&*t.topic, p)))
                .map(|(topic, p)| (topic, p.partition_id, p.error_code))
                .collect();
            let expected = [
                ("t", 1, NOT_NEEDED),
                ("t", 2, UNKNOWN),
                ("t", -1, UNKNOWN),
                ("no", 0, UNKNOWN),
            ];
            assert_eq!(told, expected, "version {version}");
            // Of all partitions only those are told that would have needed one.
            request.topic_partitions = None;
            let answer = client.call(&request, version).await;
            assert_eq!(
                (answer.error_code, answer.replica_election_results),
                (0, vec![])
            );
        }
        let other = ElectLeadersRequest {
            election_type: 2,
            topic_partitions: Some(some),
            ..Default::default()
        };
        let answer = client.call(&other, 2).await;
        assert_eq!(answer.error_code, INVALID_REQUEST);
    });
}

fn to(partition_index: i32, replicas: Option<&[i32]>) -> ReassignablePartition {
    ReassignablePartition {
        partition_index,
        replicas: replicas.map(<[i32]>::to_vec),
    }
}

/// The error of each partition of `t`, and what it says.
async fn moved(client: &mut Client, partitions: Vec<ReassignablePartition>) -> Vec<(i16, Str)> {
    let request = AlterPartitionReassignmentsRequest {
        topics: vec![ReassignableTopic {
            name: "t".into(),
            partitions,
        }],
        ..Default::default()
    };
    let answer = client.call(&request, 1).await;
    assert!(answer.allow_replication_factor_change && answer.error_code == 0);
    let partitions = answer.responses.into_iter().flat_map(|t| t.partitions);
    partitions
        .map(|p| (p.error_code, p.error_message.unwrap_or_default()))
        .collect()
}

#[test]
fn partitions_stay_where_they_are() {
    with_broker(|mut client| async move {
        client.create_topic("t", 1).await;
        let wanted = [Some(&[1][..]), None, Some(&[]), Some(&[1, 2]), Some(&[7])];
        let asked = wanted.into_iter().map(|replicas| to(0, replicas));
        let asked = asked.chain([to(1, Some(&[1]))]).collect();
        let told = moved(&mut client, asked).await;
        let codes: Vec<i16> = told.iter().map(|(code, _)| *code).collect();
        let wrong = INVALID_ASSIGNMENT;
        assert_eq!(codes, [0, NOTHING_MOVES, wrong, wrong, wrong, UNKNOWN]);
        assert_eq!(
            &*told[4].1,
            "The partition stays on [1]: there is no broker 7."
        );
        let listed = client
            .call(&ListPartitionReassignmentsRequest::default(), 0)
            .await;
        assert_eq!((listed.error_code, listed.topics), (0, vec![]));
    });
}

#[test]
fn what_has_settings_is_listed_by_type() {
    with_broker(|mut client| async move {
        client.create_topic("a", 1).await;
        client.create_topic("b", 1).await;
        let all = vec![("a", 2), ("b", 2), ("1", 4)];
        for (version, types, expected) in [
            (0, &[][..], vec![]),
            (1, &[], all.clone()),
            (1, &[2, 4, 8, 16, 32], all.clone()),
            (1, &[4], all[2..].to_vec()),
            (1, &[16], vec![]),
        ] {
            let request = ListConfigResourcesRequest {
                resource_types: types.to_vec(),
            };
            let answer = client.call(&request, version).await;
            assert_eq!(answer.error_code, 0);
            let told: Vec<(&str, i8)> = answer
                .config_resources
                .iter()
                .map(|r| (&*r.resource_name, r.resource_type))
                .collect();
            assert_eq!(told, expected, "version {version}, {types:?}");
        }
        let request = ListConfigResourcesRequest {
            resource_types: vec![2, 3],
        };
        assert_eq!(client.call(&request, 1).await.error_code, 35);
    });
}

#[test]
fn a_partition_is_on_its_core_or_on_the_node_whichever_the_core() {
    let config = NetConfig {
        core_ports: vec![9101, 9102],
        ..NetConfig::default()
    };
    with_server(2, config, |_, mut client| async move {
        client.create_topic("t", 1).await;
        let mut codes = Vec::new();
        for replica in [1, 1_000, 1_001, 1_002] {
            let told = moved(&mut client, vec![to(0, Some(&[replica]))]).await;
            codes.push(told[0].0);
        }
        // Which of the two cores has it depends on the topic's id.
        codes[1..3].sort();
        assert_eq!(codes, [0, 0, INVALID_ASSIGNMENT, INVALID_ASSIGNMENT]);
    });
}
