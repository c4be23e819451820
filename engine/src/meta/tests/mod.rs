//! Tests of the metadata: the machine, the file, a group of members, and a node on the simulator.

mod file;
mod group;
mod machine;
mod node;

use super::{Command, ConfigEdit, Image, Overrides};
use crate::types::TopicId;
use std::sync::Arc;

pub fn topic_id(n: u64) -> TopicId {
    TopicId::from_random(n, n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

pub fn empty_image() -> Image {
    let cluster_id = topic_id(0).to_string();
    Image::new(cluster_id, 1, Arc::default()).expect("no settings are valid settings")
}

pub fn register(id: i32) -> Command {
    Command::RegisterNode {
        id,
        host: format!("host{id}"),
        port: 9092,
        rack: None,
    }
}

pub fn create(n: u64, name: &str, partitions: i32) -> Command {
    Command::CreateTopic {
        id: topic_id(n),
        name: name.to_string(),
        internal: false,
        partitions,
        replication_factor: 1,
        assignment: Vec::new(),
        overrides: Overrides::new(),
    }
}

pub fn set(n: u64, name: &str, value: Option<&str>) -> Command {
    let edit = ConfigEdit::set([(name.to_string(), value.map(str::to_string))]);
    Command::SetTopicConfig {
        id: topic_id(n),
        edit,
    }
}

/// Commands that mean something and some that are refused, from a seed.
pub fn some_command(random: &mut impl FnMut() -> u64) -> Command {
    let n = random() % 12;
    match random() % 10 {
        0..=2 => create(n, &format!("topic.{n}"), 1 + (random() % 4) as i32),
        3 => Command::DeleteTopic { id: topic_id(n) },
        4 => {
            let new_total = (random() % 9) as i32;
            Command::AddPartitions {
                id: topic_id(n),
                new_total,
                assignment: Vec::new(),
            }
        }
        5 => set(n, "retention.ms", Some(&(random() % 1000).to_string())),
        6 => set(
            n,
            "cleanup.policy",
            [None, Some("compact"), Some("nonsense")][(random() % 3) as usize],
        ),
        7 => {
            let value = (random() % 1000).to_string();
            let edit =
                ConfigEdit::set([("log.segment.ms".replace("segment", "roll"), Some(value))]);
            Command::SetBrokerConfig {
                node: [None, Some(1)][(random() % 2) as usize],
                edit,
            }
        }
        8 => Command::AllocateProducerIds {
            node: 1,
            count: 1 + (random() % 1000) as u32,
        },
        _ => Command::BumpLeaderEpochs { node: 1 },
    }
}
