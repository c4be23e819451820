//! The image as text: what a snapshot stores, and how an image is built from it.
//! Knows nothing of files and checksums, nor of what a node derives from its own settings.
//! Keeps an image and its text one to one, and checks on reading what the state machine checks on writing.

use super::config::{ConfigEdit, ConfigError, Overrides};
use super::image::{Broker, Image, PartitionMeta, Topic};
use super::names::topic_name_problem;
use super::{id_text, limits};
use crate::types::TopicId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a text is no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("the metadata snapshot cannot be read: {0}")]
    Malformed(String),
    #[error("the metadata snapshot is not consistent: {0}")]
    Inconsistent(String),
    #[error("the metadata snapshot has a setting this version refuses: {0}")]
    Config(#[from] ConfigError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageText {
    cluster_id: String,
    version: u64,
    next_producer_id: i64,
    brokers: Vec<Broker>,
    cluster_config: Overrides,
    node_configs: BTreeMap<i32, Overrides>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    group_configs: BTreeMap<String, Overrides>,
    topics: Vec<TopicText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicText {
    #[serde(with = "id_text")]
    id: TopicId,
    name: String,
    internal: bool,
    overrides: Overrides,
    partitions: Vec<PartitionText>,
}

/// Leader, its epoch, replicas, in-sync replicas: without names, there are many of them.
#[derive(Serialize, Deserialize)]
struct PartitionText(i32, i32, Vec<i32>, Vec<i32>);

/// The text of an image.
pub fn encode(image: &Image) -> Vec<u8> {
    let partition = |p: &PartitionMeta| {
        PartitionText(p.leader, p.leader_epoch, p.replicas.clone(), p.isr.clone())
    };
    let topic = |t: &Arc<Topic>| TopicText {
        id: t.id,
        name: t.name.clone(),
        internal: t.internal,
        overrides: t.overrides.clone(),
        partitions: t.partitions.iter().map(partition).collect(),
    };
    let text = ImageText {
        cluster_id: image.cluster_id.clone(),
        version: image.version,
        next_producer_id: image.next_producer_id,
        brokers: image.brokers.to_vec(),
        cluster_config: Overrides::clone(&image.cluster_config),
        node_configs: BTreeMap::clone(&image.node_configs),
        group_configs: BTreeMap::clone(&image.group_configs),
        topics: image.topics().map(topic).collect(),
    };
    let bytes = serde_json::to_vec(&text).expect("keys are texts or numbers, no failing writer");
    assert!(
        bytes.len() <= limits::SNAPSHOT_BYTES_MAX,
        "the limits of an image keep it below this"
    );
    bytes
}

/// The image of a text, on this node.
///
/// # Errors
/// A text that is no image, or one that breaks the rules of one.
pub fn decode(
    bytes: &[u8],
    node_id: i32,
    fixed_config: Arc<Overrides>,
) -> Result<Image, SnapshotError> {
    let text: ImageText =
        serde_json::from_slice(bytes).map_err(|e| SnapshotError::Malformed(e.to_string()))?;
    let wrong = |what: String| Err(SnapshotError::Inconsistent(what));
    if id_text::parse(&text.cluster_id).is_none() {
        return wrong("the cluster id is not one".to_string());
    }
    if text.next_producer_id < 0 {
        return wrong("the next producer id is below 0".to_string());
    }
    if text.brokers.len() > limits::BROKERS_MAX
        || !text.brokers.windows(2).all(|pair| pair[0].id < pair[1].id)
    {
        return wrong("the nodes are too many or not in order".to_string());
    }
    let mut image = Image::new(text.cluster_id, node_id, fixed_config)?;
    image.version = text.version;
    image.next_producer_id = text.next_producer_id;
    image.brokers = Arc::new(text.brokers);
    let nothing = Overrides::new();
    let replace = |o: Overrides| ConfigEdit::Replace(o.into_iter().collect());
    let cluster = replace(text.cluster_config).apply_to_broker(&nothing, true)?;
    image.put_broker_config(None, cluster)?;
    for (node, overrides) in text.node_configs {
        let overrides = replace(overrides).apply_to_broker(&nothing, false)?;
        image.put_broker_config(Some(node), overrides)?;
    }
    for (group, overrides) in text.group_configs {
        if group.is_empty() || group.len() > limits::GROUP_LEN_MAX {
            return wrong("the name of a group is not one".to_string());
        }
        let overrides = replace(overrides).apply_to_group(&nothing)?;
        image.put_group_config(&group, overrides);
    }
    if text.topics.len() > limits::TOPICS_MAX {
        return wrong("there are too many topics".to_string());
    }
    for topic in text.topics {
        put_topic(&mut image, topic)?;
    }
    if image.config_bytes() > limits::CONFIG_BYTES_MAX {
        return wrong("the settings are too large".to_string());
    }
    Ok(image)
}

fn put_topic(image: &mut Image, text: TopicText) -> Result<(), SnapshotError> {
    let wrong = |what: String| Err(SnapshotError::Inconsistent(what));
    if let Some(problem) = topic_name_problem(&text.name) {
        return wrong(problem);
    }
    if text.id.is_nil()
        || image.topic(&text.name).is_some()
        || image.topic_by_id(text.id).is_some()
        || image.colliding_topic(&text.name).is_some()
    {
        return wrong(format!("the topic {} is there twice", text.name));
    }
    let count = text.partitions.len();
    if count == 0
        || count > limits::PARTITIONS_PER_TOPIC_MAX
        || image.partition_count() + count > limits::PARTITIONS_MAX
    {
        return wrong(format!("the topic {} has {count} partitions", text.name));
    }
    let mut partitions = Vec::with_capacity(count);
    for PartitionText(leader, leader_epoch, replicas, isr) in text.partitions {
        let sound = (1..=limits::REPLICAS_MAX).contains(&replicas.len())
            && isr.iter().all(|id| replicas.contains(id))
            && isr.len() <= replicas.len()
            && (leader == -1 || replicas.contains(&leader))
            && leader_epoch >= 0;
        if !sound {
            return wrong(format!(
                "a partition of the topic {} is not sound",
                text.name
            ));
        }
        partitions.push(PartitionMeta {
            leader,
            leader_epoch,
            replicas,
            isr,
        });
    }
    let edit = ConfigEdit::Replace(text.overrides.into_iter().collect());
    let overrides = edit.apply_to_topic(&Overrides::new())?;
    let config = image.topic_config(&overrides)?;
    let (id, name, internal) = (text.id, text.name, text.internal);
    image.put_topic(Arc::new(Topic {
        id,
        name,
        internal,
        partitions,
        config,
        overrides,
    }));
    Ok(())
}
