//! Owns what is asked of groups of the consumer protocol and what they answer, their settings, and the view of topics.
//! Does not know Kafka's request schemas or error codes, nor how a group works.
//! Invariant: times are milliseconds, epochs are Kafka's numbers.

use crate::types::TopicId;
use std::collections::{BTreeMap, BTreeSet};

/// What a member asks that joins; what it is before it has been in a group.
pub const JOINING_EPOCH: i32 = 0;
/// Says that a static member leaves, to be back soon; any other that is negative says that a member leaves for good.
pub const LEAVING_STATIC_EPOCH: i32 = -2;

/// Partitions by topic.
pub type Assignment = BTreeMap<TopicId, BTreeSet<i32>>;

/// A topic as groups see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicFacts {
    pub id: TopicId,
    pub partitions: i32,
}

/// What is set for one group of how its members are heard of; None where the setting for all groups holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GroupTimes {
    /// `consumer.session.timeout.ms`, `share.session.timeout.ms`
    pub session_timeout_ms: Option<i32>,
    /// `consumer.heartbeat.interval.ms`, `share.heartbeat.interval.ms`
    pub heartbeat_interval_ms: Option<i32>,
}

/// What the metadata says at one moment: the topics there are, and what is set for groups.
pub trait Topics {
    /// Differs where topics may differ; 0 is before there were any.
    fn version(&self) -> u64;

    fn by_name(&self, name: &str) -> Option<TopicFacts>;

    fn name_of(&self, id: TopicId) -> Option<String>;

    /// Hands over the name of every topic that regular expressions may match.
    fn each_name(&self, f: &mut dyn FnMut(&str));

    /// Of groups of the consumer protocol.
    fn times_of(&self, group: &str) -> GroupTimes;
}

/// Server-side assignors, by Kafka's names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Assignor {
    Uniform,
    Range,
}

impl Assignor {
    pub const ALL: [Assignor; 2] = [Assignor::Uniform, Assignor::Range];

    pub const fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    pub fn of_name(name: &str) -> Option<Assignor> {
        Assignor::ALL.into_iter().find(|known| known.name() == name)
    }
}

/// Which way groups with members may go between the two protocols.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Migration {
    Disabled,
    Upgrade,
    Downgrade,
    Bidirectional,
}

impl Migration {
    /// By Kafka's names, in whatever case.
    pub fn of_name(name: &str) -> Option<Migration> {
        let known = [
            ("disabled", Migration::Disabled),
            ("upgrade", Migration::Upgrade),
            ("downgrade", Migration::Downgrade),
            ("bidirectional", Migration::Bidirectional),
        ];
        let found = known
            .iter()
            .find(|(text, _)| name.eq_ignore_ascii_case(text));
        found.map(|(_, policy)| *policy)
    }

    pub const fn upgrades(self) -> bool {
        matches!(self, Migration::Upgrade | Migration::Bidirectional)
    }

    pub const fn downgrades(self) -> bool {
        matches!(self, Migration::Downgrade | Migration::Bidirectional)
    }
}

/// The settings of groups of this protocol, by Kafka's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConsumerConfig {
    /// `group.consumer.session.timeout.ms`
    pub session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`
    pub heartbeat_interval_ms: i32,
    /// `group.consumer.max.size`
    pub members_max: usize,
    /// The first of `group.consumer.assignors`, for members that name none.
    pub assignor: Assignor,
    /// Whether `group.consumer.assignors` has both.
    pub both_assignors: bool,
    /// `group.consumer.migration.policy`
    pub migration: Migration,
}

impl ConsumerConfig {
    /// For a group that has times of its own. (After a start its members have those of all until they are heard of.)
    pub fn with(self, times: GroupTimes) -> ConsumerConfig {
        let (session_ms, interval_ms) = (self.session_timeout_ms, self.heartbeat_interval_ms);
        ConsumerConfig {
            session_timeout_ms: times.session_timeout_ms.unwrap_or(session_ms),
            heartbeat_interval_ms: times.heartbeat_interval_ms.unwrap_or(interval_ms),
            ..self
        }
    }

    pub fn offers(&self, assignor: Assignor) -> bool {
        self.both_assignors || self.assignor == assignor
    }
}

impl Default for ConsumerConfig {
    fn default() -> ConsumerConfig {
        ConsumerConfig {
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 5_000,
            members_max: i32::MAX as usize,
            assignor: Assignor::Uniform,
            both_assignors: true,
            migration: Migration::Bidirectional,
        }
    }
}

/// ConsumerGroupHeartbeat. None, and -1 for times, is "as before".
#[derive(Clone, Debug)]
pub struct ConsumerHeartbeat {
    pub group: String,
    /// Empty where the coordinator has to choose the id.
    pub member: String,
    /// 0 joins, -1 leaves, -2 leaves for a while.
    pub epoch: i32,
    pub instance: Option<String>,
    pub rack: Option<String>,
    pub client_id: String,
    /// As Kafka shows it: `/127.0.0.1`.
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub topics: Option<Vec<String>>,
    /// Empty for none any more.
    pub regex: Option<String>,
    pub assignor: Option<String>,
    /// What the member holds.
    pub owned: Option<Vec<(TopicId, Vec<i32>)>>,
}

/// Answer to ConsumerGroupHeartbeat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerBeat {
    pub member: String,
    pub epoch: i32,
    pub heartbeat_interval_ms: i32,
    /// None where it is as the member knows it.
    pub assignment: Option<Assignment>,
}

/// State of a group of this protocol by Kafka's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsumerState {
    Empty,
    Assigning,
    Reconciling,
    Stable,
}

impl ConsumerState {
    pub const fn name(self) -> &'static str {
        match self {
            ConsumerState::Empty => "Empty",
            ConsumerState::Assigning => "Assigning",
            ConsumerState::Reconciling => "Reconciling",
            ConsumerState::Stable => "Stable",
        }
    }
}

/// Partitions by topic, with names.
pub type NamedAssignment = Vec<(TopicId, String, Vec<i32>)>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedConsumer {
    pub member: String,
    pub instance: Option<String>,
    pub rack: Option<String>,
    pub epoch: i32,
    pub client_id: String,
    pub client_host: String,
    pub topics: Vec<String>,
    pub regex: Option<String>,
    pub assignment: NamedAssignment,
    pub target: NamedAssignment,
    /// It speaks the classic protocol.
    pub is_classic: bool,
}

/// Answer to ConsumerGroupDescribe of one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedConsumerGroup {
    pub state: ConsumerState,
    pub epoch: i32,
    pub assignment_epoch: i32,
    pub assignor: &'static str,
    pub members: Vec<DescribedConsumer>,
}
