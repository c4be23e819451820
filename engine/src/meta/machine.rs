//! The state machine: a command and an image give a changed image and an outcome, or an error and the image as it was.
//! Knows nothing of time, chance, files or other nodes.
//! Keeps every check inside itself, so that each node comes to the same verdict whoever proposed the command.

use super::command::{ApplyError, Command, Outcome};
use super::config::ConfigEdit;
use super::image::{config_bytes, Broker, Image, PartitionMeta, Topic};
use super::limits;
use super::names::topic_name_problem;
use crate::types::TopicId;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Says what a command would do, without doing it.
///
/// # Errors
/// Those of [`apply`].
pub fn check(image: &Image, command: &Command) -> Result<Outcome, ApplyError> {
    apply(&mut image.clone(), command)
}

/// Applies a command. The caller sets [`Image::version`].
///
/// # Errors
/// Why the command was refused; the image is unchanged then.
pub fn apply(image: &mut Image, command: &Command) -> Result<Outcome, ApplyError> {
    match command {
        Command::RegisterNode {
            id,
            host,
            port,
            rack,
        } => {
            let (host, rack) = (host.clone(), rack.clone());
            register(
                image,
                Broker {
                    id: *id,
                    host,
                    port: *port,
                    rack,
                },
            )
        }
        Command::CreateTopic {
            id,
            name,
            internal,
            partitions,
            replication_factor,
            assignment,
            overrides,
        } => {
            check_new_name(image, name)?;
            let request = Partitions {
                total: *partitions,
                replication_factor: *replication_factor,
                assignment,
            };
            let replicas = request.of_new_topic(image)?;
            let edit = ConfigEdit::Replace(overrides.clone().into_iter().collect());
            create_topic(image, *id, name, *internal, replicas, &edit)
        }
        Command::DeleteTopic { id } => match image.remove_topic(*id) {
            Some(topic) => Ok(Outcome::Topic(topic)),
            None => Err(ApplyError::UnknownTopic(*id)),
        },
        Command::AddPartitions {
            id,
            new_total,
            assignment,
        } => add_partitions(image, *id, *new_total, assignment),
        Command::SetTopicConfig { id, edit } => {
            let topic = known_topic(image, *id)?;
            let overrides = edit.apply_to_topic(&topic.overrides)?;
            check_config_bytes(
                image,
                config_bytes(&topic.overrides),
                config_bytes(&overrides),
            )?;
            let config = image.topic_config(&overrides)?;
            let topic = Arc::new(Topic {
                config,
                overrides,
                ..Topic::clone(&topic)
            });
            image.put_topic(topic.clone());
            Ok(Outcome::Topic(topic))
        }
        Command::SetBrokerConfig { node, edit } => set_broker_config(image, *node, edit),
        Command::SetGroupConfig { group, edit } => {
            if group.is_empty() || group.len() > limits::GROUP_LEN_MAX {
                return Err(ApplyError::InvalidGroup);
            }
            let none = super::Overrides::new();
            let current = image.group_configs.get(group).unwrap_or(&none);
            let overrides = edit.apply_to_group(current)?;
            let (old, new) = (
                config_bytes(current),
                config_bytes(&overrides) + group.len(),
            );
            check_config_bytes(image, old, new)?;
            image.put_group_config(group, overrides);
            Ok(Outcome::Done)
        }
        Command::AllocateProducerIds { node, count } => {
            known_node(image, *node)?;
            if !(1..=limits::PRODUCER_ID_BLOCK_MAX).contains(count) {
                return Err(ApplyError::InvalidProducerIdCount);
            }
            let first = image.next_producer_id;
            let next = first
                .checked_add(i64::from(*count))
                .ok_or(ApplyError::ProducerIdsExhausted)?;
            image.next_producer_id = next;
            Ok(Outcome::ProducerIds {
                first,
                count: *count,
            })
        }
        Command::BumpLeaderEpochs { node } => {
            known_node(image, *node)?;
            bump_leader_epochs(image, *node);
            Ok(Outcome::Done)
        }
        Command::RaiseFloors {
            id,
            leader_epoch,
            producer_id,
        } => raise_floors(image, *id, *leader_epoch, *producer_id),
    }
}

fn raise_floors(
    image: &mut Image,
    id: TopicId,
    leader_epoch: i32,
    producer_id: i64,
) -> Result<Outcome, ApplyError> {
    let mut topic = Topic::clone(&*known_topic(image, id)?);
    let next = producer_id
        .checked_add(1)
        .ok_or(ApplyError::ProducerIdsExhausted)?;
    image.next_producer_id = image.next_producer_id.max(next);
    for partition in &mut topic.partitions {
        partition.leader_epoch = partition.leader_epoch.max(leader_epoch);
    }
    let topic = Arc::new(topic);
    image.put_topic(topic.clone());
    Ok(Outcome::Topic(topic))
}

fn known_topic(image: &Image, id: TopicId) -> Result<Arc<Topic>, ApplyError> {
    image
        .topic_by_id(id)
        .cloned()
        .ok_or(ApplyError::UnknownTopic(id))
}

fn known_node(image: &Image, id: i32) -> Result<(), ApplyError> {
    image
        .broker(id)
        .map(|_| ())
        .ok_or(ApplyError::UnknownNode(id))
}

fn check_config_bytes(image: &Image, old: usize, new: usize) -> Result<(), ApplyError> {
    // An edit that makes the settings smaller is always welcome.
    if new > old && image.config_bytes() - old + new > limits::CONFIG_BYTES_MAX {
        let max = limits::CONFIG_BYTES_MAX;
        return Err(ApplyError::Limit {
            what: "The size of all settings",
            max,
        });
    }
    Ok(())
}

fn register(image: &mut Image, broker: Broker) -> Result<Outcome, ApplyError> {
    let refuse = |why: &str| Err(ApplyError::InvalidRegistration(why.to_string()));
    if broker.id < 0 {
        return refuse("a node id is 0 or above");
    }
    if broker.host.is_empty() || broker.host.len() > limits::HOST_LEN_MAX {
        return refuse("the host name is empty or too long");
    }
    if broker
        .rack
        .as_ref()
        .is_some_and(|rack| rack.len() > limits::RACK_LEN_MAX)
    {
        return refuse("the rack's name is too long");
    }
    match image.brokers.binary_search_by_key(&broker.id, |b| b.id) {
        Ok(at) if image.brokers[at] == broker => {}
        Ok(at) => Arc::make_mut(&mut image.brokers)[at] = broker,
        Err(_) if image.brokers.len() >= limits::BROKERS_MAX => {
            return Err(ApplyError::Limit {
                what: "The number of nodes",
                max: limits::BROKERS_MAX,
            });
        }
        Err(at) => Arc::make_mut(&mut image.brokers).insert(at, broker),
    }
    Ok(Outcome::Done)
}

/// Whether a new topic may have this name. That comes before all else that may be wrong with it: who creates what there is
/// already only looks for that answer.
pub fn check_new_name(image: &Image, name: &str) -> Result<(), ApplyError> {
    if let Some(problem) = topic_name_problem(name) {
        return Err(ApplyError::InvalidTopicName(problem));
    }
    if image.topic(name).is_some() {
        return Err(ApplyError::TopicExists(name.to_string()));
    }
    if let Some(other) = image.colliding_topic(name) {
        let text = format!("Topic '{name}' collides with existing topic: {other}");
        return Err(ApplyError::InvalidTopicName(text));
    }
    Ok(())
}

fn create_topic(
    image: &mut Image,
    id: TopicId,
    name: &str,
    internal: bool,
    replicas: Vec<Vec<i32>>,
    edit: &ConfigEdit,
) -> Result<Outcome, ApplyError> {
    if id.is_nil() || image.topic_by_id(id).is_some() {
        return Err(ApplyError::InvalidTopicId(id));
    }
    if image.topic_count() >= limits::TOPICS_MAX {
        return Err(ApplyError::Limit {
            what: "The number of topics",
            max: limits::TOPICS_MAX,
        });
    }
    check_partition_count(image, 0, replicas.len())?;
    let overrides = edit.apply_to_topic(&super::Overrides::new())?;
    check_config_bytes(image, 0, config_bytes(&overrides))?;
    let config = image.topic_config(&overrides)?;
    let partitions = replicas.into_iter().map(new_partition).collect();
    let name = name.to_string();
    let topic = Arc::new(Topic {
        id,
        name,
        internal,
        partitions,
        config,
        overrides,
    });
    image.put_topic(topic.clone());
    Ok(Outcome::Topic(topic))
}

fn new_partition(replicas: Vec<i32>) -> PartitionMeta {
    let leader = replicas[0];
    PartitionMeta {
        leader,
        leader_epoch: 0,
        isr: replicas.clone(),
        replicas,
    }
}

fn check_partition_count(image: &Image, old: usize, new: usize) -> Result<(), ApplyError> {
    assert!(old <= new, "partitions are only added");
    if new > limits::PARTITIONS_PER_TOPIC_MAX {
        let max = limits::PARTITIONS_PER_TOPIC_MAX;
        return Err(ApplyError::InvalidPartitions(format!(
            "Number of partitions {new} is larger than the limit of {max} of a topic."
        )));
    }
    if image.partition_count() + (new - old) > limits::PARTITIONS_MAX {
        return Err(ApplyError::InvalidPartitions(format!(
            "The cluster would have more than its limit of {} partitions.",
            limits::PARTITIONS_MAX
        )));
    }
    Ok(())
}

/// What a command says of the partitions of a new topic.
struct Partitions<'a> {
    total: i32,
    replication_factor: i16,
    assignment: &'a [Vec<i32>],
}

impl Partitions<'_> {
    /// The replicas of every partition.
    fn of_new_topic(&self, image: &Image) -> Result<Vec<Vec<i32>>, ApplyError> {
        if self.assignment.is_empty() {
            if self.total < 1 {
                return Err(ApplyError::InvalidPartitions(
                    "Number of partitions was set to an invalid non-positive value.".to_string(),
                ));
            }
            if self.replication_factor < 1 {
                return Err(ApplyError::InvalidReplicationFactor(
                    "Replication factor must be larger than 0.".to_string(),
                ));
            }
            let count = usize::try_from(self.total).expect("above 0");
            check_partition_count(image, 0, count)?;
            let factor = usize::try_from(self.replication_factor).expect("above 0");
            return place(image, 0, count, factor);
        }
        let total_agrees =
            self.total == -1 || usize::try_from(self.total) == Ok(self.assignment.len());
        if !total_agrees {
            return Err(ApplyError::InvalidAssignment(
                "The number of partitions does not agree with the assignment.".to_string(),
            ));
        }
        let factor = self.assignment[0].len();
        if self.replication_factor != -1 && usize::try_from(self.replication_factor) != Ok(factor) {
            return Err(ApplyError::InvalidAssignment(
                "The replication factor does not agree with the assignment.".to_string(),
            ));
        }
        check_assignment(image, self.assignment, factor)?;
        Ok(self.assignment.to_vec())
    }
}

fn check_assignment(
    image: &Image,
    assignment: &[Vec<i32>],
    factor: usize,
) -> Result<(), ApplyError> {
    let refuse = |why: String| Err(ApplyError::InvalidAssignment(why));
    if factor > limits::REPLICAS_MAX {
        return refuse(format!(
            "A partition has at most {} replicas.",
            limits::REPLICAS_MAX
        ));
    }
    for replicas in assignment {
        if replicas.is_empty() {
            return refuse(
                "The manual partition assignment includes an empty replica list.".to_string(),
            );
        }
        if replicas.len() != factor {
            return refuse(format!(
                "The manual partition assignment includes a partition with {} replica(s), but this is not consistent with \
                 previous partitions, which have {factor} replica(s).",
                replicas.len()
            ));
        }
        if let Some(unknown) = replicas.iter().find(|id| image.broker(**id).is_none()) {
            return refuse(format!(
                "The manual partition assignment includes broker {unknown}, but no such broker is registered."
            ));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = replicas.iter().find(|id| !seen.insert(**id)) {
            return refuse(format!(
                "The manual partition assignment includes the broker {twice} more than once."
            ));
        }
    }
    Ok(())
}

/// Spreads replicas over the nodes in turn. Where it begins depends on what exists, so that topics of one partition do not all
/// end up on the first node.
fn place(
    image: &Image,
    first: usize,
    count: usize,
    factor: usize,
) -> Result<Vec<Vec<i32>>, ApplyError> {
    let nodes = &image.brokers;
    if factor > nodes.len() || factor > limits::REPLICAS_MAX {
        return Err(ApplyError::InvalidReplicationFactor(format!(
            "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be reached \
             because only {} broker(s) are registered.",
            nodes.len()
        )));
    }
    let start = image.partition_count() + first;
    let replicas = |partition: usize| {
        (0..factor)
            .map(|replica| nodes[(start + partition + replica) % nodes.len()].id)
            .collect()
    };
    Ok((0..count).map(replicas).collect())
}

fn add_partitions(
    image: &mut Image,
    id: TopicId,
    new_total: i32,
    assignment: &[Vec<i32>],
) -> Result<Outcome, ApplyError> {
    let topic = known_topic(image, id)?;
    let current = topic.partitions.len();
    let total = usize::try_from(new_total).unwrap_or(0);
    if total == current {
        return Err(ApplyError::InvalidPartitions(format!(
            "Topic already has {current} partition(s)."
        )));
    }
    if total < current {
        return Err(ApplyError::InvalidPartitions(format!(
            "The topic {} currently has {current} partition(s); {new_total} would not be an increase.",
            topic.name
        )));
    }
    check_partition_count(image, current, total)?;
    let added = total - current;
    let factor = topic.partitions[0].replicas.len();
    let replicas = if assignment.is_empty() {
        place(image, current, added, factor)?
    } else if assignment.len() != added {
        return Err(ApplyError::InvalidAssignment(format!(
            "Attempted to add {added} additional partition(s), but only {} assignment(s) were specified.",
            assignment.len()
        )));
    } else {
        check_assignment(image, assignment, factor)?;
        assignment.to_vec()
    };
    let mut topic = Topic::clone(&topic);
    topic
        .partitions
        .extend(replicas.into_iter().map(new_partition));
    let topic = Arc::new(topic);
    image.put_topic(topic.clone());
    Ok(Outcome::Topic(topic))
}

fn set_broker_config(
    image: &mut Image,
    node: Option<i32>,
    edit: &ConfigEdit,
) -> Result<Outcome, ApplyError> {
    let none = super::Overrides::new();
    let current = match node {
        Some(id) => {
            known_node(image, id)?;
            image.node_configs.get(&id).unwrap_or(&none)
        }
        None => &image.cluster_config,
    };
    let overrides = edit.apply_to_broker(current, node.is_none())?;
    check_config_bytes(image, config_bytes(current), config_bytes(&overrides))?;
    image.put_broker_config(node, overrides)?;
    Ok(Outcome::Done)
}

fn bump_leader_epochs(image: &mut Image, node: i32) {
    let leads = |topic: &&Arc<Topic>| topic.partitions.iter().any(|p| p.leader == node);
    let topics: Vec<Arc<Topic>> = image.topics().filter(leads).cloned().collect();
    for topic in topics {
        let mut topic = Topic::clone(&topic);
        for partition in topic.partitions.iter_mut().filter(|p| p.leader == node) {
            // 2^31 starts of a node are out of reach; what must never happen is an epoch that goes back.
            partition.leader_epoch = partition.leader_epoch.saturating_add(1);
        }
        image.put_topic(Arc::new(topic));
    }
}
