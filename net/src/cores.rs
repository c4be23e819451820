//! Owns what clients see of the nodes: each as the one broker it is, or this one as a broker for each of its cores.
//! Does not know requests; the metadata and all that is stored have real node ids only.
//! Invariant: no id of a core is that of a node, and an id that went out means the same node when it comes back.

use crate::config::NetConfig;
use crate::wire::Str;
use millrace_engine::api::meta::{Broker, Image, PartitionMeta, Topic};
use millrace_engine::types::{PartitionId, TopicId};

/// Broker ids that the cores of one node may have: those of node 7 are 7000 to 7999, the last digits being the shard's.
const IDS_PER_NODE: i32 = 1_000;

/// Nodes whose cores have ids of their own. None below, as its cores would have the ids of nodes.
const NODE_IDS: std::ops::RangeInclusive<i32> = 1..=IDS_PER_NODE - 1;

/// Why the cores of a node cannot be brokers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CoresRefused {
    #[error("the cores of node {0} cannot have broker ids of their own, only those of nodes {first} to {last}",
        first = NODE_IDS.start(), last = NODE_IDS.end())]
    Node(i32),
    #[error(
        "{0} shards are more than the {IDS_PER_NODE} broker ids that a node has for its cores"
    )]
    Shards(usize),
}

/// The broker ids of a node's cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoreIds {
    node: i32,
    shards: usize,
}

impl CoreIds {
    /// # Errors
    /// A node or a number of shards for which there are no ids.
    pub fn new(node: i32, shards: usize) -> Result<CoreIds, CoresRefused> {
        assert!(shards > 0);
        if !NODE_IDS.contains(&node) {
            return Err(CoresRefused::Node(node));
        }
        if shards > IDS_PER_NODE as usize {
            return Err(CoresRefused::Shards(shards));
        }
        Ok(CoreIds { node, shards })
    }

    /// The broker that a shard is.
    pub fn id(self, shard: usize) -> i32 {
        assert!(shard < self.shards);
        self.node * IDS_PER_NODE + shard as i32
    }

    /// The shard that a broker is, if it is one of these.
    fn shard(self, id: i32) -> Option<usize> {
        let shard = usize::try_from(id.checked_sub(self.node * IDS_PER_NODE)?).ok()?;
        (shard < self.shards).then_some(shard)
    }
}

/// Where clients reach a broker.
pub(crate) struct Endpoint {
    pub(crate) id: i32,
    pub(crate) host: Str,
    pub(crate) port: i32,
    pub(crate) rack: Option<Str>,
}

/// The brokers of one partition, by the ids that clients know.
pub(crate) struct Held {
    pub(crate) leader: i32,
    pub(crate) replicas: Vec<i32>,
    pub(crate) isr: Vec<i32>,
    /// Replicas on nodes that are not registered.
    pub(crate) offline: Vec<i32>,
}

/// Why the brokers somebody assigns partitions to cannot have them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum AssignmentRefused {
    #[error(
        "Partition {partition} cannot be on broker {wanted}: the partitions of a topic are on the cores of a node in turn, \
         so that this one is on broker {is}. Assign it to that one, or to {node}: the node, whichever its core."
    )]
    OtherCore {
        partition: usize,
        wanted: i32,
        is: i32,
        node: i32,
    },
    #[error("Partition {partition} cannot be on broker {first} and on broker {second}: they are cores of one node.")]
    OneNode {
        partition: usize,
        first: i32,
        second: i32,
    },
}

/// What a manual assignment says, in the terms of the metadata.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Assigned {
    /// Node ids by partition.
    pub(crate) nodes: Vec<Vec<i32>>,
    /// The shard of partition 0 of the topic, where the assignment names cores.
    pub(crate) first_shard: Option<usize>,
}

/// The brokers of one image as clients see them.
pub(crate) struct Faces<'a> {
    pub(crate) image: &'a Image,
    config: &'a NetConfig,
    cores: Option<CoreIds>,
}

impl<'a> Faces<'a> {
    pub(crate) fn new(config: &'a NetConfig, shards: usize, image: &'a Image) -> Faces<'a> {
        let ids = || {
            assert_eq!(config.core_ports.len(), shards, "each shard has its port");
            CoreIds::new(image.node_id, shards).expect("whoever gives the shards ports checks this")
        };
        Faces {
            image,
            config,
            cores: (!config.core_ports.is_empty()).then(ids),
        }
    }

    /// All brokers; this node under the addresses it advertises.
    pub(crate) fn brokers(&self) -> Vec<Endpoint> {
        let mut brokers =
            Vec::with_capacity(self.image.brokers.len() + self.config.core_ports.len());
        for node in self.image.brokers.iter() {
            let rack = node.rack.clone().map(Str::from);
            match self.cores {
                _ if node.id != self.image.node_id => brokers.push(Endpoint {
                    id: node.id,
                    host: node.host.clone().into(),
                    port: node.port.into(),
                    rack,
                }),
                None => brokers.push(self.own(node.id, self.config.advertised_port, rack)),
                Some(cores) => {
                    let rack = rack.unwrap_or_else(|| rack_of(node));
                    let ports = self.config.core_ports.iter().enumerate();
                    brokers.extend(
                        ports.map(|(shard, port)| {
                            self.own(cores.id(shard), *port, Some(rack.clone()))
                        }),
                    );
                }
            }
        }
        brokers
    }

    fn own(&self, id: i32, port: u16, rack: Option<Str>) -> Endpoint {
        Endpoint {
            id,
            host: self.config.advertised_host.clone().into(),
            port: port.into(),
            rack,
        }
    }

    /// Where the node itself is reached, whichever its cores.
    pub(crate) fn bootstrap(&self) -> (Str, u16) {
        let host = self.config.advertised_host.clone();
        (host.into(), self.config.advertised_port)
    }

    /// The broker for what is meant for the controller. Any takes it; on the first shard it is where metadata is changed.
    pub(crate) fn controller(&self) -> i32 {
        self.cores.map_or(self.image.node_id, |cores| cores.id(0))
    }

    /// Who has a partition.
    pub(crate) fn held(&self, topic: &Topic, index: usize, meta: &PartitionMeta) -> Held {
        let partition = PartitionId::new(topic.id, index as i32);
        let own = self.cores.map_or(self.image.node_id, |cores| {
            cores.id(partition.shard(cores.shards))
        });
        let shown = |id: i32| if id == self.image.node_id { own } else { id };
        let all = |ids: &[i32]| ids.iter().map(|id| shown(*id)).collect();
        let is_gone = |id: &&i32| self.image.broker(**id).is_none();
        Held {
            leader: shown(meta.leader),
            replicas: all(&meta.replicas),
            isr: all(&meta.isr),
            offline: meta.replicas.iter().filter(is_gone).copied().collect(),
        }
    }

    /// The node that a client means by a broker's id.
    pub(crate) fn node(&self, broker: i32) -> i32 {
        let core = self.cores.and_then(|cores| cores.shard(broker));
        core.map_or(broker, |_| self.image.node_id)
    }

    /// The brokers that this node is, for people.
    pub(crate) fn own_names(&self) -> String {
        let node = self.image.node_id;
        match self.cores {
            None => node.to_string(),
            Some(cores) => format!(
                "{node} or {} to {}",
                cores.id(0),
                cores.id(cores.shards - 1)
            ),
        }
    }

    /// Why there are fewer nodes than a client sees brokers, where that is so.
    pub(crate) fn hint_one_replica(&self) -> Option<String> {
        let cores = self.cores.filter(|cores| cores.shards > 1)?;
        let (first, last) = (cores.id(0), cores.id(cores.shards - 1));
        Some(format!(
            "The brokers {first} to {last} are the cores of one node, which has one replica of a partition."
        ))
    }

    /// The nodes of an assignment whose first entry is for partition `from`, of the topic `id` if there is one already. Where
    /// a partition lives follows from the topic's id and the partition's number, so that cores can only be assigned in turn.
    ///
    /// # Errors
    /// A partition on a core where it would not be.
    pub(crate) fn assigned(
        &self,
        id: Option<TopicId>,
        from: usize,
        assignment: Vec<Vec<i32>>,
    ) -> Result<Assigned, AssignmentRefused> {
        let Some(cores) = self.cores else {
            return Ok(Assigned {
                nodes: assignment,
                first_shard: None,
            });
        };
        let mut first_shard = id.map(|id| PartitionId::new(id, 0).shard(cores.shards));
        for (partition, brokers) in (from..).zip(&assignment) {
            let mut own = None;
            for broker in brokers {
                let shard = cores.shard(*broker);
                if shard.is_none() && *broker != self.image.node_id {
                    continue;
                }
                if let Some(first) = own.replace(*broker).filter(|first| first != broker) {
                    return Err(AssignmentRefused::OneNode {
                        partition,
                        first,
                        second: *broker,
                    });
                }
                let Some(shard) = shard else { continue };
                let step = partition % cores.shards;
                let start =
                    *first_shard.get_or_insert((shard + cores.shards - step) % cores.shards);
                let is = (start + step) % cores.shards;
                if is != shard {
                    return Err(AssignmentRefused::OtherCore {
                        partition,
                        wanted: *broker,
                        is: cores.id(is),
                        node: self.image.node_id,
                    });
                }
            }
        }
        let nodes = |brokers: Vec<i32>| brokers.into_iter().map(|id| self.node(id)).collect();
        Ok(Assigned {
            nodes: assignment.into_iter().map(nodes).collect(),
            first_shard,
        })
    }
}

/// What tells clients which brokers fail together.
fn rack_of(node: &Broker) -> Str {
    Str::from(format!("node-{}", node.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_engine::api::meta::{machine, Command, Overrides};

    /// Nodes 1 (this one) and 2, and a topic `t` with a partition for every list of replicas.
    fn image(replicas: &[&[i32]]) -> Image {
        let mut image = Image::new("c".into(), 1, Default::default()).unwrap();
        let node = |id: i32| Command::RegisterNode {
            id,
            host: format!("host{id}"),
            port: 9092,
            rack: (id == 2).then(|| "r".into()),
        };
        let topic = Command::CreateTopic {
            id: TopicId(5u128.to_be_bytes()),
            name: "t".into(),
            internal: false,
            partitions: -1,
            replication_factor: -1,
            assignment: replicas.iter().map(|ids| ids.to_vec()).collect(),
            overrides: Overrides::new(),
        };
        for command in [node(1), node(2), topic] {
            machine::apply(&mut image, &command).unwrap();
        }
        image
    }

    fn config(ports: &[u16]) -> NetConfig {
        NetConfig {
            advertised_host: "here".into(),
            core_ports: ports.to_vec(),
            ..NetConfig::default()
        }
    }

    #[test]
    fn ids_of_cores_are_never_those_of_nodes_and_come_back_as_what_they_were() {
        for node in [1, 7, 999] {
            let cores = CoreIds::new(node, 1_000).unwrap();
            for shard in [0, 1, 999] {
                assert!(!NODE_IDS.contains(&cores.id(shard)));
                assert_eq!(cores.shard(cores.id(shard)), Some(shard));
            }
        }
        let two = CoreIds::new(7, 2).unwrap();
        assert_eq!([two.id(0), two.id(1)], [7000, 7001]);
        for other in [7, 0, -1, 6999, 7002, 8000, i32::MIN, i32::MAX] {
            assert_eq!(two.shard(other), None, "{other}");
        }
    }

    #[test]
    fn nodes_and_shards_without_ids_are_refused() {
        for node in [0, -1, 1_000, i32::MAX] {
            assert_eq!(CoreIds::new(node, 1), Err(CoresRefused::Node(node)));
        }
        assert_eq!(CoreIds::new(1, 1_001), Err(CoresRefused::Shards(1_001)));
    }

    #[test]
    fn this_node_is_shown_as_its_cores_and_others_as_they_are() {
        let image = image(&[&[1, 2], &[2, 1], &[1, 2]]);
        let config = config(&[9093, 9094]);
        let faces = Faces::new(&config, 2, &image);
        let brokers = faces.brokers();
        let brokers: Vec<_> = brokers
            .iter()
            .map(|b| (b.id, &*b.host, b.port, b.rack.as_deref()))
            .collect();
        let expected = [
            (1000, "here", 9093, Some("node-1")),
            (1001, "here", 9094, Some("node-1")),
            (2, "host2", 9092, Some("r")),
        ];
        assert_eq!(brokers, expected);
        assert_eq!(faces.controller(), 1000);
        let topic = image.topic("t").unwrap();
        let held = |index| faces.held(topic, index, &topic.partitions[index]);
        // The id of the topic begins at shard 1 of 2.
        assert_eq!((held(0).leader, held(0).replicas), (1001, vec![1001, 2]));
        assert_eq!((held(1).leader, held(1).isr), (2, vec![2, 1000]));
        assert_eq!((held(2).leader, held(2).offline), (1001, vec![]));
    }

    #[test]
    fn without_ports_of_their_own_nothing_is_changed() {
        let image = image(&[&[1], &[2]]);
        let config = config(&[]);
        let faces = Faces::new(&config, 2, &image);
        let ids: Vec<i32> = faces.brokers().iter().map(|b| b.id).collect();
        assert_eq!((ids, faces.controller()), (vec![1, 2], 1));
        let topic = image.topic("t").unwrap();
        let leaders = [0, 1].map(|i| faces.held(topic, i, &topic.partitions[i]).leader);
        assert_eq!(leaders, [1, 2]);
        assert_eq!(faces.node(1000), 1000);
        let given = vec![vec![1000], vec![1]];
        let assigned = faces.assigned(None, 0, given.clone()).unwrap();
        assert_eq!((assigned.nodes, assigned.first_shard), (given, None));
    }

    #[test]
    fn what_is_gone_stays_gone() {
        let image = image(&[&[1]]);
        let config = config(&[9093, 9094]);
        let faces = Faces::new(&config, 2, &image);
        let topic = image.topic("t").unwrap();
        let meta = PartitionMeta {
            leader: -1,
            leader_epoch: 3,
            replicas: vec![7, 1],
            isr: vec![],
        };
        let held = faces.held(topic, 0, &meta);
        assert_eq!((held.leader, held.offline), (-1, vec![7]));
        assert_eq!(held.replicas, [7, 1001]);
    }

    #[test]
    fn cores_are_assigned_in_turn_or_not_at_all() {
        let image = image(&[&[1]]);
        let id = image.topic("t").unwrap().id;
        let config = config(&[1, 2, 3]);
        let faces = Faces::new(&config, 3, &image);
        let assigned = |id, from, brokers: &[&[i32]]| {
            faces.assigned(id, from, brokers.iter().map(|ids| ids.to_vec()).collect())
        };
        let fine = |brokers, first| {
            let assigned = assigned(None, 0, brokers).unwrap();
            assert_eq!(assigned.first_shard, first, "{brokers:?}");
            let is_own = |id: &i32| [1, 2].contains(id);
            assert!(assigned.nodes.iter().flatten().all(is_own));
        };
        fine(&[&[1], &[1]], None);
        fine(&[&[2], &[1]], None);
        fine(&[&[1001], &[1002], &[1000], &[1001]], Some(1));
        // Only partition 1 has to be somewhere; the others follow.
        fine(&[&[1], &[2, 1000], &[1], &[1002]], Some(2));
        let other = |partition, wanted, is| {
            Err(AssignmentRefused::OtherCore {
                partition,
                wanted,
                is,
                node: 1,
            })
        };
        assert_eq!(assigned(None, 0, &[&[1000], &[1000]]), other(1, 1000, 1001));
        assert_eq!(
            assigned(None, 0, &[&[1002], &[2, 1001]]),
            other(1, 1001, 1000)
        );
        for [first, second] in [[1000, 1001], [1, 1000], [1002, 1]] {
            let refused = AssignmentRefused::OneNode {
                partition: 0,
                first,
                second,
            };
            assert_eq!(assigned(None, 0, &[&[first, 2, second]]), Err(refused));
        }
        // Of a topic that is there: 5 is its partition 0 modulo 3, so partition 4 is on shard 0.
        assert!(assigned(Some(id), 4, &[&[1000], &[1], &[1002]]).is_ok());
        assert_eq!(
            assigned(Some(id), 4, &[&[1], &[1000]]),
            other(5, 1000, 1001)
        );
        // No core of ours: for the metadata to refuse.
        assert_eq!(assigned(None, 0, &[&[1003]]).unwrap().nodes, [[1003]]);
    }
}
