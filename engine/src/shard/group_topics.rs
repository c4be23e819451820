//! Owns what group coordinators see of the metadata: topics, and the settings of the consumer protocol.
//! Does not know groups.
//! Invariant: one step of a coordinator sees one image.

use crate::coord::{Assignor, ConsumerConfig, GroupTimes, Migration, TopicFacts, Topics};
use crate::meta::{BrokerConfig, Image};
use crate::types::TopicId;
use std::sync::Arc;

/// The topics of one image.
pub(super) struct GroupTopics(pub Arc<Image>);

impl Topics for GroupTopics {
    fn version(&self) -> u64 {
        self.0.version
    }

    fn by_name(&self, name: &str) -> Option<TopicFacts> {
        let topic = self.0.topic(name)?;
        Some(TopicFacts {
            id: topic.id,
            partitions: i32::try_from(topic.partitions.len()).expect("topics have fewer"),
        })
    }

    fn name_of(&self, id: TopicId) -> Option<String> {
        let topic = self.0.topic_by_id(id)?;
        Some(topic.name.to_string())
    }

    fn each_name(&self, f: &mut dyn FnMut(&str)) {
        self.0.topics().for_each(|topic| f(&topic.name));
    }

    fn times_of(&self, group: &str) -> GroupTimes {
        let set = self.0.group_config(group);
        GroupTimes {
            session_timeout_ms: set.consumer_session_timeout_ms,
            heartbeat_interval_ms: set.consumer_heartbeat_interval_ms,
        }
    }
}

pub(super) fn consumer_config(said: &BrokerConfig) -> ConsumerConfig {
    let assignors = said.group_consumer_assignors.iter();
    let assignors: Vec<Assignor> = assignors
        .filter_map(|name| Assignor::of_name(name))
        .collect();
    let policy = Migration::of_name(&said.group_consumer_migration_policy);
    ConsumerConfig {
        session_timeout_ms: said.group_consumer_session_timeout_ms,
        heartbeat_interval_ms: said.group_consumer_heartbeat_interval_ms,
        members_max: said.group_consumer_max_size.max(0) as usize,
        assignor: assignors.first().copied().unwrap_or(Assignor::Uniform),
        both_assignors: assignors.len() > 1,
        migration: policy.expect("its rule knows the names"),
    }
}
