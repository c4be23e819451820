//! The metadata as it is after a command: immutable, shared by every shard of a node.
//! Knows nothing of commands or storage.
//! Keeps its indexes equal to each other: every topic is found by name and by id, and counted once.

use super::command::ApplyError;
use super::config::{
    self, BrokerConfig, ConfigEdit, ConfigEntry, ConfigError, GroupSettings, Layers, Overrides,
    TopicConfig,
};
use super::cow::{CowMap, Keyed};
use super::names;
use crate::types::{PartitionId, TopicId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A registered node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    pub id: i32,
    /// Where clients reach it.
    pub host: String,
    pub port: u16,
    pub rack: Option<String>,
}

/// One partition: who has it, who is in sync, who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionMeta {
    /// Node id of the leader, -1 without one.
    pub leader: i32,
    pub leader_epoch: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
}

/// One topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Topic {
    pub id: TopicId,
    pub name: String,
    pub internal: bool,
    /// By partition number.
    pub partitions: Vec<PartitionMeta>,
    /// The effective settings on this node.
    pub config: Arc<TopicConfig>,
    /// The settings this topic has of its own.
    pub overrides: Overrides,
}

impl Keyed<str> for Arc<Topic> {
    fn key(&self) -> &str {
        &self.name
    }
}

impl Keyed<TopicId> for Arc<Topic> {
    fn key(&self) -> &TopicId {
        &self.id
    }
}

/// A name with '.' or '_', found by the form in which it would collide with another.
#[derive(Debug, Clone, PartialEq)]
struct Colliding {
    unified: Arc<str>,
    name: Arc<str>,
}

impl Keyed<str> for Colliding {
    fn key(&self) -> &str {
        &self.unified
    }
}

/// The metadata after a command. Cloning one is cheap; clones share what does not differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// 22 characters of base64url.
    pub cluster_id: String,
    /// The node this image is on.
    pub node_id: i32,
    /// Index of the last command applied; grows with every one.
    pub version: u64,
    /// Sorted by id.
    pub brokers: Arc<Vec<Broker>>,
    /// The first producer id not handed out yet.
    pub next_producer_id: i64,
    /// Settings set at run time for all nodes.
    pub cluster_config: Arc<Overrides>,
    /// Settings set at run time for single nodes.
    pub node_configs: Arc<BTreeMap<i32, Overrides>>,
    /// Settings of groups, by their names.
    pub group_configs: Arc<BTreeMap<String, Overrides>>,
    /// The effective settings of this node.
    pub broker_config: Arc<BrokerConfig>,
    /// The effective settings of a topic without any of its own; shared by all of those.
    pub default_topic_config: Arc<TopicConfig>,
    fixed_config: Arc<Overrides>,
    by_name: CowMap<str, Arc<Topic>>,
    by_id: CowMap<TopicId, Arc<Topic>>,
    colliding: CowMap<str, Colliding>,
    partitions: usize,
    config_bytes: usize,
}

/// Bytes of names and values.
pub(super) fn config_bytes(overrides: &Overrides) -> usize {
    overrides
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum()
}

static NO_OVERRIDES: Overrides = Overrides::new();

impl Image {
    /// The metadata of a cluster that has nothing yet. `fixed_config` is what this node was started with, already checked
    /// ([`config::check_fixed`]).
    ///
    /// # Errors
    /// An invalid value in `fixed_config`.
    pub fn new(
        cluster_id: String,
        node_id: i32,
        fixed_config: Arc<Overrides>,
    ) -> Result<Image, ConfigError> {
        let mut image = Image {
            cluster_id,
            node_id,
            version: 0,
            brokers: Arc::default(),
            next_producer_id: 0,
            cluster_config: Arc::default(),
            node_configs: Arc::default(),
            group_configs: Arc::default(),
            broker_config: Arc::new(BrokerConfig::resolve(Layers {
                node: &NO_OVERRIDES,
                cluster: &NO_OVERRIDES,
                fixed: &fixed_config,
            })?),
            default_topic_config: TopicConfig::defaults(),
            fixed_config,
            by_name: CowMap::default(),
            by_id: CowMap::default(),
            colliding: CowMap::default(),
            partitions: 0,
            config_bytes: 0,
        };
        image.refresh_configs()?;
        Ok(image)
    }

    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// The topic with this id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// All topics, sorted by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> + '_ {
        self.by_name.iter()
    }

    /// All partitions of all topics.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> + '_ {
        let of = |topic: &Arc<Topic>| {
            let id = topic.id;
            (0..topic.partitions.len() as i32).map(move |index| PartitionId::new(id, index))
        };
        self.topics().flat_map(of)
    }

    /// The topics whose name is `name` or after it, sorted.
    pub fn topics_from<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Arc<Topic>> + 'a {
        self.by_name.iter_from(name)
    }

    /// Number of topics.
    pub fn topic_count(&self) -> usize {
        self.by_name.len()
    }

    /// Number of partitions over all topics.
    pub fn partition_count(&self) -> usize {
        self.partitions
    }

    /// Bytes of all settings stored.
    pub fn config_bytes(&self) -> usize {
        self.config_bytes
    }

    /// The registered node of this id.
    pub fn broker(&self, id: i32) -> Option<&Broker> {
        self.brokers
            .binary_search_by_key(&id, |b| b.id)
            .ok()
            .map(|at| &self.brokers[at])
    }

    /// The existing topic that a new topic of this name would collide with.
    pub fn colliding_topic(&self, name: &str) -> Option<&str> {
        let unified = names::unified(name)?;
        self.colliding
            .get(unified.as_str())
            .map(|c| &*c.name)
            .filter(|other| *other != name)
    }

    /// Where the settings of this node come from.
    pub fn layers(&self) -> Layers<'_> {
        Layers {
            node: self
                .node_configs
                .get(&self.node_id)
                .unwrap_or(&NO_OVERRIDES),
            cluster: &self.cluster_config,
            fixed: &self.fixed_config,
        }
    }

    /// DescribeConfigs of a topic.
    pub fn describe_topic(&self, topic: &Topic) -> Vec<ConfigEntry> {
        config::describe_topic(&topic.overrides, self.layers())
    }

    /// DescribeConfigs of this node.
    pub fn describe_broker(&self) -> Vec<ConfigEntry> {
        config::describe_broker(self.layers())
    }

    /// DescribeConfigs of what is set for all nodes.
    pub fn describe_cluster_default(&self) -> Vec<ConfigEntry> {
        config::describe_cluster_default(&self.cluster_config)
    }

    /// The effective settings of a group, whether there is one or not.
    pub fn group_config(&self, group: &str) -> GroupSettings {
        GroupSettings::resolve(self.group_overrides(group), &self.broker_config)
    }

    fn group_overrides(&self, group: &str) -> &Overrides {
        self.group_configs.get(group).unwrap_or(&NO_OVERRIDES)
    }

    /// Whether this change of a group's settings fits this broker's bounds for all groups. Those are of one node, so that
    /// a command, which all nodes apply alike, cannot look at them.
    ///
    /// # Errors
    /// The first setting that is refused, with Kafka's text.
    pub fn check_group_edit(&self, group: &str, edit: &ConfigEdit) -> Result<(), ApplyError> {
        let edited = edit.apply_to_group(self.group_overrides(group))?;
        Ok(config::check_group(&edited, &self.broker_config)?)
    }

    /// DescribeConfigs of a group.
    pub fn describe_group(&self, group: &str) -> Vec<ConfigEntry> {
        config::describe_group(self.group_overrides(group), self.layers())
    }

    /// Replaces the settings of a group.
    pub(super) fn put_group_config(&mut self, group: &str, overrides: Overrides) {
        let weight = |of: &Overrides| group.len() + config_bytes(of);
        let configs = Arc::make_mut(&mut self.group_configs);
        self.config_bytes -= configs.remove(group).as_ref().map_or(0, weight);
        if !overrides.is_empty() {
            self.config_bytes += weight(&overrides);
            configs.insert(group.to_string(), overrides);
        }
    }

    /// The effective settings of a topic with these overrides.
    ///
    /// # Errors
    /// An unknown name or an invalid value.
    pub(super) fn topic_config(
        &self,
        overrides: &Overrides,
    ) -> Result<Arc<TopicConfig>, ConfigError> {
        if overrides.is_empty() {
            return Ok(self.default_topic_config.clone());
        }
        Ok(Arc::new(TopicConfig::resolve(overrides, self.layers())?))
    }

    /// Puts a topic in, new or in place of the one with the same name and id.
    pub(super) fn put_topic(&mut self, topic: Arc<Topic>) {
        if let Some(unified) = names::unified(&topic.name) {
            let entry = Colliding {
                unified: unified.into(),
                name: topic.name.as_str().into(),
            };
            self.colliding.insert(entry);
        }
        self.partitions += topic.partitions.len();
        self.config_bytes += config_bytes(&topic.overrides);
        let by_name = self.by_name.insert(topic.clone());
        let by_id = self.by_id.insert(topic);
        assert_eq!(
            by_name.is_some(),
            by_id.is_some(),
            "a topic keeps its name and id"
        );
        if let Some(old) = by_name {
            self.forget(&old);
        }
    }

    /// Takes a topic out.
    pub(super) fn remove_topic(&mut self, id: TopicId) -> Option<Arc<Topic>> {
        let topic = self.by_id.remove(&id)?;
        let by_name = self.by_name.remove(topic.name.as_str());
        assert!(by_name.is_some(), "a topic found by id is found by name");
        if let Some(unified) = names::unified(&topic.name) {
            self.colliding.remove(unified.as_str());
        }
        self.forget(&topic);
        Some(topic)
    }

    fn forget(&mut self, topic: &Topic) {
        self.partitions -= topic.partitions.len();
        self.config_bytes -= config_bytes(&topic.overrides);
    }

    /// Replaces the settings of one node, or of all with `None`, and what follows from them.
    pub(super) fn put_broker_config(
        &mut self,
        node: Option<i32>,
        overrides: Overrides,
    ) -> Result<(), ConfigError> {
        let old = match node {
            Some(id) => {
                let configs = Arc::make_mut(&mut self.node_configs);
                self.config_bytes += config_bytes(&overrides);
                if overrides.is_empty() {
                    configs.remove(&id)
                } else {
                    configs.insert(id, overrides)
                }
            }
            None => {
                self.config_bytes += config_bytes(&overrides);
                Some(std::mem::replace(
                    Arc::make_mut(&mut self.cluster_config),
                    overrides,
                ))
            }
        };
        self.config_bytes -= old.as_ref().map_or(0, config_bytes);
        match node {
            Some(id) if id != self.node_id => Ok(()),
            Some(_) | None => self.refresh_configs(),
        }
    }

    /// Derives the effective settings again after a change of a layer.
    fn refresh_configs(&mut self) -> Result<(), ConfigError> {
        self.broker_config = Arc::new(BrokerConfig::resolve(self.layers())?);
        let default = TopicConfig::resolve(&NO_OVERRIDES, self.layers())?;
        if default == *self.default_topic_config {
            return Ok(());
        }
        self.default_topic_config = Arc::new(default);
        let topics: Vec<Arc<Topic>> = self.topics().cloned().collect();
        for topic in topics {
            let config = self.topic_config(&topic.overrides)?;
            if config != topic.config {
                self.put_topic(Arc::new(Topic {
                    config,
                    ..Topic::clone(&topic)
                }));
            }
        }
        Ok(())
    }
}
