//! Owns the end-to-end tests of a node whose shards are brokers of their own to clients.
//! Does not know how ports are chosen.
//! Invariant: every answer is read by the wire codec of the version it was asked in.

use crate::configs::{described, value};
use crate::support::*;
use millrace_net::wire::alter_configs::{self, AlterConfigsRequest, AlterableConfig};
use millrace_net::wire::api_versions::ApiVersionsRequest;
use millrace_net::wire::config_codes::resource;
use millrace_net::wire::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use millrace_net::wire::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreateTopicsRequest,
};
use millrace_net::wire::describe_cluster::DescribeClusterRequest;
use millrace_net::wire::describe_log_dirs::DescribeLogDirsRequest;
use millrace_net::wire::describe_topic_partitions::DescribeTopicPartitionsRequest;
use millrace_net::wire::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use millrace_net::wire::Str;
use millrace_net::NetConfig;
use std::collections::BTreeMap;
use std::rc::Rc;

const PORTS: [u16; 3] = [9193, 9194, 9195];
const IDS: [i32; 3] = [1000, 1001, 1002];

fn cores() -> NetConfig {
    NetConfig {
        advertised_host: "10.0.0.1".into(),
        advertised_port: 9092,
        core_ports: PORTS.to_vec(),
        move_after_requests: 4,
        ..NetConfig::default()
    }
}

async fn at_core(shard: usize) -> Client {
    Client::connect_to(at_port(PORTS[shard])).await
}

/// Brokers by partition of a topic.
async fn leaders(client: &mut Client, topic: &'static str) -> Vec<i32> {
    let answer = client.call(&ask(Some(vec![named(topic)]), false), 9).await;
    let partitions = answer.topics[0].partitions.iter();
    partitions.map(|partition| partition.leader_id).collect()
}

/// Requests of an API that came to another shard than that of their partitions, by shard.
fn crossed(server: &Server, api: &str) -> Vec<u64> {
    let of_shards = server.shared.snapshot();
    let count = |crossed: &[(&str, u64)]| crossed.iter().find(|(key, _)| *key == api).unwrap().1;
    of_shards
        .iter()
        .map(|shard| count(&shard.crossed))
        .collect()
}

fn calls_between_shards(server: &Server) -> u64 {
    let calls = server.brokers.iter().map(|b| b.metrics().cross_shard_calls);
    calls.sum()
}

fn ends(topic: &'static str, partition: i32) -> ListOffsetsRequest {
    let partition = ListOffsetsPartition {
        partition_index: partition,
        timestamp: -1,
        ..Default::default()
    };
    let topic = ListOffsetsTopic {
        name: topic.into(),
        partitions: vec![partition],
    };
    ListOffsetsRequest {
        replica_id: -1,
        topics: vec![topic],
        ..Default::default()
    }
}

#[test]
fn every_description_names_the_cores_and_their_ports() {
    with_server(3, cores(), |_, mut client| async move {
        client.create_topic("t", 4).await;
        let addresses: Vec<(i32, i32)> = IDS.into_iter().zip(PORTS.map(i32::from)).collect();
        for version in 0..=13 {
            let all = if version == 0 { Some(vec![]) } else { None };
            let answer = client.call(&ask(all, true), version).await;
            let brokers = answer.brokers.iter();
            let shown: Vec<_> = brokers.clone().map(|b| (b.node_id, b.port)).collect();
            assert_eq!(shown, addresses, "version {version}");
            for broker in brokers {
                assert_eq!(&*broker.host, "10.0.0.1");
                let rack = broker.rack.as_deref();
                assert_eq!(rack, (version > 0).then_some("node-1"));
            }
            assert_eq!(answer.controller_id, if version > 0 { 1000 } else { -1 });
            let partitions = &answer.topics[0].partitions;
            let first = IDS.iter().position(|id| *id == partitions[0].leader_id);
            for (index, partition) in partitions.iter().enumerate() {
                let leader = IDS[(first.unwrap() + index) % 3];
                assert_eq!(partition.leader_id, leader, "in turn");
                assert_eq!(partition.replica_nodes, [leader]);
                assert_eq!(partition.isr_nodes, [leader]);
                assert!(partition.offline_replicas.is_empty());
            }
        }
        let leaders = leaders(&mut client, "t").await;
        for version in 0..=2 {
            let request = DescribeClusterRequest::default();
            let cluster = client.call(&request, version).await;
            let brokers = cluster.brokers.iter().map(|b| (b.broker_id, b.port));
            assert_eq!(brokers.collect::<Vec<_>>(), addresses);
            assert_eq!(cluster.controller_id, 1000);
        }
        let request = DescribeTopicPartitionsRequest {
            response_partition_limit: 10,
            ..Default::default()
        };
        let page = client.call(&request, 0).await;
        for partition in &page.topics[0].partitions {
            let leader = leaders[partition.partition_index as usize];
            assert_eq!(partition.leader_id, leader);
            assert_eq!(
                (&partition.replica_nodes, &partition.isr_nodes),
                (&vec![leader], &vec![leader])
            );
        }
    });
}

#[test]
fn a_client_that_follows_metadata_crosses_no_cores_and_stays_where_it_connected() {
    with_server(3, cores(), |server, mut client| async move {
        client.create_topic("t", 8).await;
        let leaders = leaders(&mut client, "t").await;
        let mut cores = [at_core(0).await, at_core(1).await, at_core(2).await];
        let before = calls_between_shards(&server);
        for _ in 0..10 {
            for (partition, leader) in (0..).zip(&leaders) {
                let core = &mut cores[(leader - 1000) as usize];
                let records = Some(batch(&[b"x"]));
                let stored = core.call(&produce("t", partition, -1, records), 9).await;
                assert_eq!(stored.responses[0].partition_responses[0].error_code, 0);
                let end = core.call(&ends("t", partition), 5).await.topics[0].partitions[0].offset;
                let read = core.call(&fetch("t", &[(partition, end - 1)]), 4).await;
                assert_eq!(read.responses[0].partitions[0].high_watermark, end);
            }
        }
        for api in ["Produce", "Fetch", "ListOffsets"] {
            assert_eq!(crossed(&server, api), [0; 3], "{api}");
        }
        assert_eq!(calls_between_shards(&server), before);

        // At the wrong core it is answered as well; that core was chosen, so the connection does not move.
        let partition = leaders.iter().position(|id| *id == 1001).unwrap() as i32;
        for _ in 0..20 {
            let records = Some(batch(&[b"y"]));
            let stored = cores[2]
                .call(&produce("t", partition, -1, records), 9)
                .await;
            assert_eq!(stored.responses[0].partition_responses[0].error_code, 0);
        }
        let read = cores[0].call(&fetch("t", &[(partition, 29)]), 4).await;
        assert_eq!(read.responses[0].partitions[0].high_watermark, 30);
        let end = cores[0].call(&ends("t", partition), 5).await;
        assert_eq!(end.topics[0].partitions[0].offset, 30);
        assert_eq!(crossed(&server, "Produce"), [0, 0, 20]);
        assert_eq!(crossed(&server, "Fetch"), [1, 0, 0]);
        assert_eq!(crossed(&server, "ListOffsets"), [1, 0, 0]);
        assert!(calls_between_shards(&server) > before);
        let moved = |server: &Server| -> u64 {
            let shards = server.shared.snapshot();
            shards.iter().map(|shard| shard.connections_moved_in).sum()
        };
        assert_eq!(moved(&server), 0);
        // The node's own port does what it did before.
        for partition in [0, 1] {
            for _ in 0..10 {
                let records = Some(batch(&[b"z"]));
                client.call(&produce("t", partition, -1, records), 9).await;
            }
        }
        assert!(moved(&server) > 0);
    });
}

#[test]
fn connections_of_a_shard_stay_there_however_many_and_the_others_make_room() {
    with_server(3, cores(), |server, client| async move {
        drop(client);
        let mut held = Vec::new();
        for _ in 0..6 {
            let mut own = at_core(1).await;
            own.call(&ApiVersionsRequest::default(), 0).await;
            held.push(own);
        }
        for _ in 0..4 {
            let mut any = Client::connect().await;
            any.call(&ApiVersionsRequest::default(), 0).await;
            held.push(any);
        }
        assert_eq!(server.shared.connections(), [2, 6, 2]);
    });
}

fn assigned(name: &'static str, brokers: &[i32]) -> CreateTopicsRequest {
    let assignment = |(index, broker): (usize, &i32)| CreatableReplicaAssignment {
        partition_index: index as i32,
        broker_ids: vec![*broker],
    };
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: -1,
        replication_factor: -1,
        assignments: brokers.iter().enumerate().map(assignment).collect(),
        ..Default::default()
    };
    CreateTopicsRequest {
        topics: vec![topic],
        ..Default::default()
    }
}

#[test]
fn partitions_are_assigned_to_cores_in_turn_or_refused() {
    with_server(3, cores(), |_, mut client| async move {
        for (name, brokers) in [
            ("from1", &[1001, 1002, 1000, 1001][..]),
            ("from2", &[1002, 1000]),
            ("mixed", &[1, 1000, 1]),
        ] {
            let made = client.call(&assigned(name, brokers), 7).await;
            assert_eq!(made.topics[0].error_code, 0, "{:?}", made.topics[0]);
            let leaders = leaders(&mut client, name).await;
            for (is, wanted) in leaders.iter().zip(brokers) {
                assert!(is == wanted || *wanted == 1, "{name}: {leaders:?}");
            }
        }
        for brokers in [&[1000, 1000][..], &[1000, 1002], &[1003], &[7]] {
            let refused = client.call(&assigned("refused", brokers), 7).await;
            assert_eq!(refused.topics[0].error_code, 39, "{brokers:?}");
        }
        // The next is partition 4, on 1002.
        let grow = |brokers: &[i32]| CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: "from1".into(),
                count: 4 + brokers.len() as i32,
                assignments: Some(
                    brokers
                        .iter()
                        .map(|broker| CreatePartitionsAssignment {
                            broker_ids: vec![*broker],
                        })
                        .collect(),
                ),
            }],
            ..Default::default()
        };
        let refused = client.call(&grow(&[1002, 1001]), 1).await;
        assert_eq!(refused.results[0].error_code, 39);
        let why = refused.results[0].error_message.as_deref().unwrap();
        assert!(
            why.contains("Partition 5") && why.contains("on broker 1000"),
            "{why}"
        );
        let grown = client.call(&grow(&[1002, 1, 1001]), 1).await;
        assert_eq!(grown.results[0].error_code, 0, "{:?}", grown.results[0]);
        let leaders = leaders(&mut client, "from1").await;
        assert_eq!(leaders[4..], [1002, 1000, 1001]);
        // Two brokers, but not two nodes.
        let mut twice = assigned("twice", &[]);
        twice.topics[0].num_partitions = 1;
        twice.topics[0].replication_factor = 2;
        let refused = client.call(&twice, 7).await;
        let why = refused.topics[0].error_message.as_deref().unwrap();
        assert_eq!(refused.topics[0].error_code, 38);
        assert!(
            why.contains("1000 to 1002 are the cores of one node"),
            "{why}"
        );
    });
}

#[test]
fn settings_of_the_node_are_those_of_each_of_its_cores() {
    with_server(3, cores(), |_, mut client| async move {
        let set = |names: &[&'static str], to: &'static str| {
            let resource = |name: &&'static str| alter_configs::AlterConfigsResource {
                resource_type: resource::BROKER,
                resource_name: Str::from_static(name),
                configs: vec![AlterableConfig {
                    name: "max.connections".into(),
                    value: Some(to.into()),
                }],
            };
            AlterConfigsRequest {
                resources: names.iter().map(resource).collect(),
                ..Default::default()
            }
        };
        for (names, to, errors) in [
            (&["1001"][..], "77", &[0][..]),
            (&["1"], "78", &[0]),
            (&["1000"], "79", &[0]),
            (&["1003"], "80", &[42]),
            // One resource by two names.
            (&["1000", "1001"], "81", &[42, 42]),
        ] {
            let altered = client.call(&set(names, to), 1).await;
            let codes: Vec<i16> = altered.responses.iter().map(|r| r.error_code).collect();
            assert_eq!(codes, errors, "{names:?}");
        }
        for name in ["1", "1000", "1001", "1002"] {
            let (error, configs) = described(&mut client, resource::BROKER, name, 4).await;
            assert_eq!(
                (error, value(&configs, "max.connections").0),
                (0, Some("79".into()))
            );
        }
        for name in ["0", "999", "1003", "2000", "x"] {
            let (error, _) = described(&mut client, resource::BROKER, name, 4).await;
            assert_eq!(error, 42, "{name}");
        }
    });
}

/// Sizes by partition of topic `t`.
async fn sizes(client: &mut Client) -> BTreeMap<i32, i64> {
    let answer = client
        .call(&DescribeLogDirsRequest { topics: None }, 4)
        .await;
    let topics = answer.results[0].topics.iter();
    let partitions = topics
        .filter(|t| &*t.name == "t")
        .flat_map(|t| &t.partitions);
    partitions
        .map(|p| (p.partition_index, p.partition_size))
        .collect()
}

#[test]
fn what_is_on_the_disks_of_all_brokers_adds_up() {
    with_server(3, cores(), |_, mut client| async move {
        client.create_topic("t", 8).await;
        for partition in 0..8 {
            let records = Some(batch(&[&[b'x'; 100]]));
            client.call(&produce("t", partition, -1, records), 9).await;
        }
        let whole = sizes(&mut client).await;
        assert_eq!(whole.len(), 8);
        assert!(whole.values().all(|size| *size > 100));
        let leaders = leaders(&mut client, "t").await;
        let mut together = BTreeMap::new();
        for (shard, id) in IDS.into_iter().enumerate() {
            for (partition, size) in sizes(&mut at_core(shard).await).await {
                assert_eq!(leaders[partition as usize], id);
                assert_eq!(together.insert(partition, size), None);
            }
        }
        assert_eq!(together, whole);
    });
}

#[test]
fn the_same_shards_have_the_same_ids_after_a_restart_and_fewer_shards_fewer() {
    simulate(|_| async {
        let server = Server::start(3, cores()).await;
        let mut client = Client::connect().await;
        client.create_topic("t", 6).await;
        let before = leaders(&mut client, "t").await;
        drop(client);
        server.stop().await;

        let server = Server::start(3, cores()).await;
        let mut client = Client::connect().await;
        assert_eq!(leaders(&mut client, "t").await, before);
        drop(client);
        server.stop().await;

        let two = NetConfig {
            core_ports: PORTS[..2].to_vec(),
            ..cores()
        };
        let server = Rc::new(Server::start(2, two).await);
        let mut client = Client::connect().await;
        let after = leaders(&mut client, "t").await;
        assert!(after.iter().all(|id| IDS[..2].contains(id)), "{after:?}");
        // And one broker again, where it is left out.
        drop(client);
        Rc::into_inner(server).unwrap().stop().await;
        let server = Server::start(2, NetConfig::default()).await;
        let mut client = Client::connect().await;
        assert_eq!(leaders(&mut client, "t").await, [1; 6]);
        drop(client);
        server.stop().await;
    });
}
