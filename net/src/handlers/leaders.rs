//! Owns who leads a partition now, for answers to clients that believe in somebody else (KIP-951).
//! Does not know requests: Produce and Fetch each have their own form of it.
//! Invariant: whoever is named as a leader is among the endpoints, once.

use crate::cores::{Endpoint, Faces};
use crate::wire::ErrorCode;
use millrace_engine::api::meta::Topic;

/// The leader of a partition, by the id that clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) id: i32,
    pub(crate) epoch: i32,
}

/// The leaders that one answer names.
pub(crate) struct Leaders<'a> {
    faces: Faces<'a>,
    named: Vec<i32>,
}

impl<'a> Leaders<'a> {
    pub(crate) fn new(faces: Faces<'a>) -> Leaders<'a> {
        Leaders {
            faces,
            named: Vec::new(),
        }
    }

    /// The leader to name beside an error; none beside one that has other causes, nor this node beside the error that says it
    /// does not lead: that would bring the client back at once.
    pub(crate) fn beside(&mut self, error: ErrorCode, topic: &Topic, index: i32) -> Option<Leader> {
        let image = self.faces.image;
        let at = usize::try_from(index).ok()?;
        let meta = topic.partitions.get(at)?;
        let helps = match meta.leader == image.node_id {
            true => error == ErrorCode::FencedLeaderEpoch,
            false => is_about_leaders(error),
        };
        if !helps || image.broker(meta.leader).is_none() {
            return None;
        }
        let id = self.faces.held(topic, at, meta).leader;
        if !self.named.contains(&id) {
            self.named.push(id);
        }
        Some(Leader {
            id,
            epoch: meta.leader_epoch,
        })
    }

    /// Where those that were named are.
    pub(crate) fn endpoints(self) -> Vec<Endpoint> {
        if self.named.is_empty() {
            return Vec::new();
        }
        let mut brokers = self.faces.brokers();
        brokers.retain(|broker| self.named.contains(&broker.id));
        brokers
    }
}

/// Whether an error means that the client's idea of the leader is old.
pub(crate) fn is_about_leaders(error: ErrorCode) -> bool {
    [ErrorCode::NotLeaderOrFollower, ErrorCode::FencedLeaderEpoch].contains(&error)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::NetConfig;
    use millrace_engine::api::meta::{machine, Command, Image};
    use millrace_engine::types::TopicId;

    /// Nodes 1 (which this is) and 2 at `host1:9091` and `host2:9092`; topic `t`, whose partitions 0 and 2 are on node 2.
    pub(crate) fn two_nodes() -> Image {
        let mut image = Image::new("c".into(), 1, Default::default()).unwrap();
        let node = |id: i32| Command::RegisterNode {
            id,
            host: format!("host{id}"),
            port: 9090 + id as u16,
            rack: (id == 2).then(|| "r".into()),
        };
        let topic = Command::CreateTopic {
            id: TopicId([5; 16]),
            name: "t".into(),
            internal: false,
            partitions: -1,
            replication_factor: -1,
            assignment: vec![vec![2], vec![1], vec![2]],
            overrides: Default::default(),
        };
        for command in [node(1), node(2), topic] {
            machine::apply(&mut image, &command).unwrap();
        }
        image
    }

    #[test]
    fn the_leader_is_named_where_that_helps() {
        let image = two_nodes();
        let topic = image.topic("t").unwrap();
        let config = NetConfig {
            core_ports: vec![7000, 7001],
            ..NetConfig::default()
        };
        let mut leaders = Leaders::new(Faces::new(&config, 2, &image));
        let mut named = |error, index| leaders.beside(error, topic, index).map(|l| l.id);
        let [not_leader, fenced] = [ErrorCode::NotLeaderOrFollower, ErrorCode::FencedLeaderEpoch];
        assert_eq!(named(not_leader, 0), Some(2));
        assert_eq!(named(fenced, 2), Some(2));
        assert_eq!(named(not_leader, 1), None, "not itself");
        let core = named(fenced, 1).unwrap();
        assert!([1000, 1001].contains(&core), "the core, not the node");
        for (error, index) in [
            (ErrorCode::None, 0),
            (ErrorCode::UnknownLeaderEpoch, 0),
            (not_leader, 3),
            (not_leader, -1),
        ] {
            assert_eq!(named(error, index), None);
        }
        let mut endpoints = leaders.endpoints();
        endpoints.sort_by_key(|endpoint| endpoint.id);
        let (ids, ports): (Vec<i32>, Vec<i32>) = endpoints.iter().map(|e| (e.id, e.port)).unzip();
        assert_eq!((ids, ports), (vec![2, core], vec![9092, 6000 + core]));
    }
}
