//! Owns the calls about groups: which there are, who is in one, its committed offsets, and ending either.
//! Does not know how their results are shown, or where offsets should be.
//! Invariant: a call about one group goes to its coordinator, which is looked up anew for every try.

use super::assignment::{self, Assignment};
use super::cluster::Cluster;
use super::consumer_groups;
use super::error::ClientError;
use crate::units::HostPort;
use millrace_net::wire::delete_groups::DeleteGroupsRequest;
use millrace_net::wire::describe_groups::{DescribeGroupsRequest, DescribedGroupMember};
use millrace_net::wire::find_coordinator::FindCoordinatorRequest;
use millrace_net::wire::list_groups::ListGroupsRequest;
use millrace_net::wire::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use millrace_net::wire::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use millrace_net::wire::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestGroup};
use millrace_net::wire::{ErrorCode, Str};
use std::collections::{BTreeMap, BTreeSet};

/// Later versions speak of topics by id; of one that is deleted, offsets may be left but no id is known.
const NAMES_VERSION_MAX: i16 = 9;

/// From these versions on a request is about several groups.
const FIND_MANY_VERSION: i16 = 4;
const FETCH_MANY_VERSION: i16 = 8;

/// What FindCoordinator looks for.
#[derive(Clone, Copy)]
pub(super) enum Coordinated {
    Group,
    Transaction,
}

impl Coordinated {
    fn key_type(self) -> i8 {
        match self {
            Coordinated::Group => 0,
            Coordinated::Transaction => 1,
        }
    }

    fn named(self, key: &str) -> String {
        match self {
            Coordinated::Group => format!("the coordinator of group {key}"),
            Coordinated::Transaction => format!("the coordinator of transactional id {key}"),
        }
    }
}

/// States that matter to us; brokers have more.
pub const EMPTY: &str = "Empty";
const DEAD: &str = "Dead";

/// A topic and a partition.
pub type Place = (String, i32);

/// Offsets that are, or are to be, committed.
pub type Offsets = BTreeMap<Place, i64>;

/// One group in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    pub name: String,
    pub protocol_type: String,
    /// Empty where the broker is too old to say (before Kafka 2.6).
    pub state: String,
    /// `classic`, `consumer`, ...; empty where the broker is too old to say (before Kafka 3.7).
    pub kind: String,
}

/// The broker that looks after a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Coordinator {
    pub node: i32,
    pub at: HostPort,
}

/// One group as its coordinator sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    pub coordinator: Coordinator,
    pub state: String,
    pub protocol_type: String,
    /// Of consumers: how they share out partitions. Empty while nothing is shared out.
    pub assignor: String,
    pub members: Vec<Member>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Member {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub host: String,
    /// None where it cannot be read.
    pub assignment: Option<Assignment>,
}

/// What can be learnt of a group.
#[derive(Debug)]
pub enum Seen {
    Described(Description),
    /// It is there, but of a newer kind that is described by another call.
    Listed(Listed),
    /// With what the broker said of it.
    Absent(ClientError),
}

fn text(s: &str) -> Str {
    Str::from(s.to_string())
}

/// Errors after which nothing was done: the right broker was not there, or not ready.
pub(super) fn is_undone(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { .. } | ClientError::NoLeader(_) => true,
        ClientError::Broker { .. } => matches!(
            error.code(),
            Some(
                ErrorCode::CoordinatorLoadInProgress
                    | ErrorCode::CoordinatorNotAvailable
                    | ErrorCode::NotCoordinator
            )
        ),
        ClientError::Io { .. }
        | ClientError::Protocol { .. }
        | ClientError::Encode(_)
        | ClientError::NoApi { .. }
        | ClientError::NoVersion { .. }
        | ClientError::Batch(_) => false,
    }
}

/// Errors after which a call is repeated that does no harm twice.
pub(super) fn is_worth_repeating(error: &ClientError) -> bool {
    is_undone(error) || matches!(error, ClientError::Io { .. })
}

/// The broker that looks after a group or a transactional id; one try.
pub(super) fn find(
    cluster: &mut Cluster,
    kind: Coordinated,
    key: &str,
) -> Result<Coordinator, ClientError> {
    let answer = cluster.with_any(|conn| {
        let version = conn.version::<FindCoordinatorRequest>()?;
        let mut request = FindCoordinatorRequest {
            key_type: kind.key_type(),
            ..FindCoordinatorRequest::default()
        };
        if version < FIND_MANY_VERSION {
            request.key = text(key);
        } else {
            request.coordinator_keys = vec![text(key)];
        }
        conn.call_at(&request, version)
    })?;
    let what = || kind.named(key);
    ClientError::check(what, answer.error_code, answer.error_message.as_deref())?;
    let (node, host, port) = match answer.coordinators.into_iter().next() {
        None => (answer.node_id, answer.host, answer.port),
        Some(found) => {
            ClientError::check(what, found.error_code, found.error_message.as_deref())?;
            (found.node_id, found.host, found.port)
        }
    };
    let not_there = || {
        let code = ErrorCode::CoordinatorNotAvailable.code();
        ClientError::broker(what(), code, Some("the answer has no address"))
    };
    if node < 0 || host.is_empty() {
        return Err(not_there());
    }
    let port = u16::try_from(port).map_err(|_| not_there())?;
    let at = HostPort::new(host.to_string(), port);
    cluster.learn(node, at.clone());
    Ok(Coordinator { node, at })
}

/// Runs `ask` with the group's coordinator; again where that moves or is being started.
pub(super) fn coordinated<T>(
    cluster: &mut Cluster,
    group: &str,
    worth: fn(&ClientError) -> bool,
    ask: impl Fn(&mut Cluster, Coordinator) -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    cluster.retry_if(worth, |cluster| {
        let coordinator = find(cluster, Coordinated::Group, group)?;
        ask(cluster, coordinator)
    })
}

/// The groups of all brokers, ascending by name, and what went wrong with those that did not answer.
pub fn list(cluster: &mut Cluster) -> Result<(Vec<Listed>, Vec<ClientError>), ClientError> {
    cluster.retry(|cluster| cluster.metadata(Some(&[]), false))?;
    // A broker that is gone has given its groups to others, so that it is not worth waiting for.
    let worth = |error: &ClientError| match error {
        ClientError::Broker { .. } => is_undone(error),
        ClientError::Connect { .. }
        | ClientError::Io { .. }
        | ClientError::NoLeader(_)
        | ClientError::Protocol { .. }
        | ClientError::Encode(_)
        | ClientError::NoApi { .. }
        | ClientError::NoVersion { .. }
        | ClientError::Batch(_) => false,
    };
    let (mut groups, mut errors) = (BTreeMap::new(), Vec::new());
    for node in cluster.nodes() {
        let found = cluster.retry_if(worth, |cluster| {
            let request = ListGroupsRequest::default();
            let answer = cluster.with_node(node, |conn| conn.call(&request))?;
            let what = || format!("the groups of broker {node}");
            ClientError::check(what, answer.error_code, None)?;
            Ok(answer.groups)
        });
        match found {
            Err(error) => errors.push(error),
            // Twice, where it moved from one broker to the next meanwhile.
            Ok(found) => groups.extend(found.into_iter().map(|group| {
                let listed = Listed {
                    name: group.group_id.to_string(),
                    protocol_type: group.protocol_type.to_string(),
                    state: group.group_state.to_string(),
                    kind: group.group_type.to_string(),
                };
                (listed.name.clone(), listed)
            })),
        }
    }
    Ok((groups.into_values().collect(), errors))
}

/// A group with its members; GROUP_ID_NOT_FOUND where there is none of that name, whatever the broker's version.
pub fn describe(cluster: &mut Cluster, group: &str) -> Result<Description, ClientError> {
    let request = DescribeGroupsRequest {
        groups: vec![text(group)],
        ..DescribeGroupsRequest::default()
    };
    let what = || format!("group {group}");
    let not_found = || ClientError::broker(what(), ErrorCode::GroupIdNotFound.code(), None);
    coordinated(
        cluster,
        group,
        is_worth_repeating,
        |cluster, coordinator| {
            let answer = cluster.with_node(coordinator.node, |conn| conn.call(&request))?;
            let found = answer.groups.into_iter().find(|g| g.group_id == *group);
            let found = found.ok_or_else(not_found)?;
            ClientError::check(what, found.error_code, found.error_message.as_deref())?;
            // What brokers say of a group they never heard of, before version 6.
            if found.group_state == *DEAD {
                return Err(not_found());
            }
            let consumers = found.protocol_type == *assignment::CONSUMER;
            Ok(Description {
                coordinator,
                state: found.group_state.to_string(),
                protocol_type: found.protocol_type.to_string(),
                assignor: found.protocol_data.to_string(),
                members: found
                    .members
                    .into_iter()
                    .map(|member| member_of(member, consumers))
                    .collect(),
            })
        },
    )
}

/// A group of any kind; whether it is there is asked of every broker.
pub fn look(cluster: &mut Cluster, group: &str) -> Result<Seen, ClientError> {
    match describe(cluster, group) {
        Ok(found) => Ok(Seen::Described(found)),
        Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => {
            let (all, mut errors) = list(cluster)?;
            match all.into_iter().find(|listed| listed.name == *group) {
                Some(listed) if listed.kind == *consumer_groups::KIND => {
                    consumer_groups::describe(cluster, group).map(Seen::Described)
                }
                Some(listed) => Ok(Seen::Listed(listed)),
                // It might be a group of a broker that did not answer.
                None => errors.pop().map_or(Ok(Seen::Absent(error)), Err),
            }
        }
        Err(error) => Err(error),
    }
}

fn member_of(member: DescribedGroupMember, consumer: bool) -> Member {
    // Other kinds of groups have other bytes there, which might happen to look like an assignment.
    let assignment = match consumer {
        true => assignment::decode(&member.member_assignment),
        false => None,
    };
    Member {
        id: member.member_id.to_string(),
        instance_id: member.group_instance_id.map(|id| id.to_string()),
        client_id: member.client_id.to_string(),
        host: member.client_host.to_string(),
        assignment,
    }
}

/// Every offset that a group has committed; none of a group that is not there.
pub fn committed(cluster: &mut Cluster, group: &str) -> Result<Offsets, ClientError> {
    let what = || format!("the committed offsets of group {group}");
    let fetched = coordinated(
        cluster,
        group,
        is_worth_repeating,
        |cluster, coordinator| {
            let answer = cluster.with_node(coordinator.node, |conn| {
                let version = conn.version_up_to::<OffsetFetchRequest>(NAMES_VERSION_MAX)?;
                // Null for topics, rather than an empty list, asks for all of them.
                let request = if version < FETCH_MANY_VERSION {
                    OffsetFetchRequest {
                        group_id: text(group),
                        topics: None,
                        ..OffsetFetchRequest::default()
                    }
                } else {
                    OffsetFetchRequest {
                        groups: vec![OffsetFetchRequestGroup {
                            group_id: text(group),
                            topics: None,
                            ..OffsetFetchRequestGroup::default()
                        }],
                        ..OffsetFetchRequest::default()
                    }
                };
                conn.call_at(&request, version)
            })?;
            let mut offsets = Offsets::new();
            let mut add = |topic: &Str, partition: i32, offset: i64, code: i16| {
                let what =
                    || format!("the offset of partition {partition} of {topic} in group {group}");
                ClientError::check(what, code, None)?;
                if offset >= 0 {
                    offsets.insert((topic.to_string(), partition), offset);
                }
                Ok::<(), ClientError>(())
            };
            ClientError::check(what, answer.error_code, None)?;
            for topic in answer.topics {
                for p in topic.partitions {
                    add(
                        &topic.name,
                        p.partition_index,
                        p.committed_offset,
                        p.error_code,
                    )?;
                }
            }
            for found in answer.groups.into_iter().filter(|g| g.group_id == *group) {
                ClientError::check(what, found.error_code, None)?;
                for topic in found.topics {
                    for p in topic.partitions {
                        add(
                            &topic.name,
                            p.partition_index,
                            p.committed_offset,
                            p.error_code,
                        )?;
                    }
                }
            }
            Ok(offsets)
        },
    );
    match fetched {
        Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => Ok(Offsets::new()),
        done => done,
    }
}

/// Commits offsets for a group without members; gives what went wrong with single partitions.
pub fn commit(
    cluster: &mut Cluster,
    group: &str,
    offsets: &Offsets,
) -> Result<Vec<ClientError>, ClientError> {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for ((topic, partition), offset) in offsets {
        let partitions = topics.entry(topic).or_default();
        partitions.push(OffsetCommitRequestPartition {
            partition_index: *partition,
            committed_offset: *offset,
            committed_metadata: Some(Str::default()),
            ..OffsetCommitRequestPartition::default()
        });
    }
    let topic = |(name, partitions)| OffsetCommitRequestTopic {
        name: text(name),
        partitions,
        ..OffsetCommitRequestTopic::default()
    };
    // Neither member nor generation: whoever is not in the group.
    let request = OffsetCommitRequest {
        group_id: text(group),
        topics: topics.into_iter().map(topic).collect(),
        ..OffsetCommitRequest::default()
    };
    coordinated(
        cluster,
        group,
        is_worth_repeating,
        |cluster, coordinator| {
            let answer = cluster.with_node(coordinator.node, |conn| {
                let version = conn.version_up_to::<OffsetCommitRequest>(NAMES_VERSION_MAX)?;
                conn.call_at(&request, version)
            })?;
            let mut codes = BTreeMap::new();
            for topic in answer.topics {
                let parts = topic.partitions.iter();
                codes.extend(
                    parts.map(|p| ((topic.name.to_string(), p.partition_index), p.error_code)),
                );
            }
            refusals(group, offsets.keys(), &codes)
        },
    )
}

/// Forgets offsets that a group has committed; gives what went wrong with single partitions.
pub fn delete_offsets(
    cluster: &mut Cluster,
    group: &str,
    places: &BTreeSet<Place>,
) -> Result<Vec<ClientError>, ClientError> {
    let mut topics: BTreeMap<&str, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
    for (topic, partition) in places {
        let partitions = topics.entry(topic).or_default();
        partitions.push(OffsetDeleteRequestPartition {
            partition_index: *partition,
        });
    }
    let topic = |(name, partitions)| OffsetDeleteRequestTopic {
        name: text(name),
        partitions,
    };
    let request = OffsetDeleteRequest {
        group_id: text(group),
        topics: topics.into_iter().map(topic).collect(),
    };
    coordinated(
        cluster,
        group,
        is_worth_repeating,
        |cluster, coordinator| {
            let answer = cluster.with_node(coordinator.node, |conn| conn.call(&request))?;
            ClientError::check(|| format!("group {group}"), answer.error_code, None)?;
            let mut codes = BTreeMap::new();
            for topic in answer.topics {
                let parts = topic.partitions.iter();
                codes.extend(
                    parts.map(|p| ((topic.name.to_string(), p.partition_index), p.error_code)),
                );
            }
            refusals(group, places.iter(), &codes)
        },
    )
}

/// The partitions that were refused, or left out of the answer; an error where that is worth another try, or where
/// all were refused for one reason.
fn refusals<'a>(
    group: &str,
    asked: impl ExactSizeIterator<Item = &'a Place>,
    codes: &BTreeMap<Place, i16>,
) -> Result<Vec<ClientError>, ClientError> {
    let count = asked.len();
    let mut errors = Vec::new();
    for place in asked {
        let (topic, partition) = place;
        let what = || format!("the offset of partition {partition} of {topic} in group {group}");
        let result = match codes.get(place) {
            Some(code) => ClientError::check(what, *code, None),
            None => Err(left_out(what())),
        };
        errors.extend(result.err());
    }
    if let Some(at) = errors.iter().position(is_undone) {
        return Err(errors.swap_remove(at));
    }
    let reasons: BTreeSet<_> = errors.iter().map(ClientError::code).collect();
    match reasons.first() {
        Some(Some(code)) if count > 1 && errors.len() == count && reasons.len() == 1 => {
            let what = format!("the offsets of {count} partitions in group {group}");
            Err(ClientError::broker(what, code.code(), None))
        }
        Some(_) | None => Ok(errors),
    }
}

fn left_out(what: String) -> ClientError {
    let code = ErrorCode::UnknownServerError.code();
    ClientError::broker(what, code, Some("the broker's answer leaves it out"))
}

/// Deletes a group without members, and its offsets.
pub fn delete(cluster: &mut Cluster, group: &str) -> Result<(), ClientError> {
    let request = DeleteGroupsRequest {
        groups_names: vec![text(group)],
    };
    // Once more after a broken connection it might only find that there is no such group any more.
    coordinated(cluster, group, is_undone, |cluster, coordinator| {
        let answer = cluster.with_node(coordinator.node, |conn| conn.call(&request))?;
        let what = || format!("group {group}");
        let result = answer.results.into_iter().find(|r| r.group_id == *group);
        let result = result.ok_or_else(|| left_out(what()))?;
        ClientError::check(what, result.error_code, result.error_message.as_deref())
    })
}
