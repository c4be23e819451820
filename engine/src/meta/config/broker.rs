//! The table of broker settings and the struct the rest of a broker reads them from.
//! Knows nothing of flags and files: what a node was started with comes in as names and values.
//! Keeps the settings that stand in for topic settings derived from the topic table, so that the two cannot disagree.

use super::topic::{topic_config_def, topic_config_defs};
use super::{ConfigDef, ConfigError, ConfigType, Layers, Rule, Value};
use std::sync::OnceLock;

/// Who can change a setting, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Given at the start of the broker.
    ReadOnly,
    /// While it runs, for one broker only.
    PerBroker,
    /// While it runs, for one broker or for all.
    Cluster,
}

/// A row of the table of broker settings.
#[derive(Debug, Clone, Copy)]
pub struct BrokerConfigDef {
    pub def: ConfigDef,
    pub scope: Scope,
    /// The topic setting this one stands in for, and what its value is multiplied by.
    pub topic: Option<(&'static str, i64)>,
}

impl BrokerConfigDef {
    /// Parses and checks a text, also as a value of the topic setting it stands in for.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with Kafka's reason.
    pub fn parse(&self, raw: &str) -> Result<Value, ConfigError> {
        let value = self.def.parse(raw)?;
        if let Some((topic, scale)) = self.topic {
            let row = topic_config_def(topic).expect("derived from this row");
            row.scaled(raw, scale)?;
        }
        Ok(value)
    }
}

/// The effective settings of this broker that are not defaults of topics. Times are milliseconds, sizes bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerConfig {
    pub auto_create_topics_enable: bool,
    pub connections_max_idle_ms: i64,
    pub default_replication_factor: i16,
    pub delete_topic_enable: bool,
    pub fetch_max_bytes: i32,
    /// In the order of preference.
    pub group_consumer_assignors: Vec<String>,
    /// The least and the most that it may be, also for one group.
    pub group_consumer_heartbeat_interval_bounds_ms: (i32, i32),
    pub group_consumer_heartbeat_interval_ms: i32,
    pub group_consumer_max_size: i32,
    pub group_consumer_migration_policy: String,
    /// The same of this.
    pub group_consumer_session_timeout_bounds_ms: (i32, i32),
    pub group_consumer_session_timeout_ms: i32,
    pub group_initial_rebalance_delay_ms: i32,
    pub group_max_session_timeout_ms: i32,
    pub group_min_session_timeout_ms: i32,
    pub group_share_delivery_count_limit: i32,
    pub group_share_heartbeat_interval_ms: i32,
    pub group_share_max_share_sessions: i32,
    pub group_share_max_size: i32,
    pub group_share_partition_max_record_locks: i32,
    pub group_share_record_lock_duration_ms: i32,
    pub group_share_session_timeout_ms: i32,
    pub log_cleaner_backoff_ms: i64,
    pub log_cleaner_dedupe_buffer_size: i64,
    pub log_cleaner_enable: bool,
    /// `u64::MAX` for no limit.
    pub log_cleaner_io_max_bytes_per_second: u64,
    pub log_retention_check_interval_ms: i64,
    pub max_connections: i32,
    pub max_connections_per_ip: i32,
    pub max_incremental_fetch_session_cache_slots: i32,
    pub num_partitions: i32,
    pub offset_metadata_max_bytes: i32,
    pub offsets_retention_check_interval_ms: i64,
    pub offsets_retention_minutes: i32,
    pub producer_id_expiration_ms: i32,
    pub socket_request_max_bytes: i32,
    pub transaction_max_timeout_ms: i32,
    pub transaction_remove_expired_cleanup_interval_ms: i32,
    pub transactional_id_expiration_ms: i32,
}

impl BrokerConfig {
    /// The effective settings of a node with these layers.
    ///
    /// # Errors
    /// An invalid value in a layer.
    pub fn resolve(layers: Layers<'_>) -> Result<BrokerConfig, ConfigError> {
        let value = |name: &str| -> Result<Value, ConfigError> {
            let row = broker_config_def(name).expect("a setting of the table");
            match layers.get(name) {
                Some((raw, _)) => row.parse(raw),
                None => Ok(row.def.default_value().expect("it has a default")),
            }
        };
        let texts = |name: &str| -> Result<Vec<String>, ConfigError> {
            match value(name)? {
                Value::Text(text) => Ok(vec![text]),
                Value::List(texts) => Ok(texts),
                Value::Int(_) | Value::Bool(_) | Value::Double(_) => panic!("{name} is text"),
            }
        };
        let number = |name: &str| -> Result<i64, ConfigError> {
            match value(name)? {
                Value::Int(v) => Ok(v),
                Value::Bool(v) => Ok(i64::from(v)),
                Value::Double(_) | Value::Text(_) | Value::List(_) => {
                    panic!("{name} is a number or a switch")
                }
            }
        };
        let rate = |name: &str| -> Result<u64, ConfigError> {
            let row = broker_config_def(name).expect("a setting of the table");
            let value = match layers.get(name) {
                Some((raw, _)) => row.parse(raw)?,
                None => row.def.default_value().expect("it has a default"),
            };
            match value {
                // Whatever is larger is without limit.
                Value::Double(v) => Ok(v as u64),
                Value::Int(_) | Value::Bool(_) | Value::Text(_) | Value::List(_) => {
                    panic!("{name} is a fraction")
                }
            }
        };
        let number32 =
            |name: &str| number(name).map(|v| i32::try_from(v).expect("its type is INT"));
        let bounds = |min: &str, max: &str| Ok::<_, ConfigError>((number32(min)?, number32(max)?));
        let heartbeat_bounds = bounds(
            "group.consumer.min.heartbeat.interval.ms",
            "group.consumer.max.heartbeat.interval.ms",
        )?;
        let session_bounds = bounds(
            "group.consumer.min.session.timeout.ms",
            "group.consumer.max.session.timeout.ms",
        )?;
        let flag = |name: &str| number(name).map(|v| v != 0);
        Ok(BrokerConfig {
            auto_create_topics_enable: flag("auto.create.topics.enable")?,
            connections_max_idle_ms: number("connections.max.idle.ms")?,
            default_replication_factor: number("default.replication.factor")?
                .try_into()
                .expect("its rule keeps it in 16 bits"),
            delete_topic_enable: flag("delete.topic.enable")?,
            fetch_max_bytes: number32("fetch.max.bytes")?,
            group_consumer_assignors: texts("group.consumer.assignors")?,
            group_consumer_heartbeat_interval_bounds_ms: heartbeat_bounds,
            group_consumer_heartbeat_interval_ms: within(
                number32("group.consumer.heartbeat.interval.ms")?,
                heartbeat_bounds,
            ),
            group_consumer_max_size: number32("group.consumer.max.size")?,
            group_consumer_migration_policy: texts("group.consumer.migration.policy")?.concat(),
            group_consumer_session_timeout_bounds_ms: session_bounds,
            group_consumer_session_timeout_ms: within(
                number32("group.consumer.session.timeout.ms")?,
                session_bounds,
            ),
            group_initial_rebalance_delay_ms: number32("group.initial.rebalance.delay.ms")?,
            group_max_session_timeout_ms: number32("group.max.session.timeout.ms")?,
            group_min_session_timeout_ms: number32("group.min.session.timeout.ms")?,
            group_share_delivery_count_limit: number32("group.share.delivery.count.limit")?,
            group_share_heartbeat_interval_ms: number32("group.share.heartbeat.interval.ms")?,
            group_share_max_share_sessions: number32("group.share.max.share.sessions")?,
            group_share_max_size: number32("group.share.max.size")?,
            group_share_partition_max_record_locks: number32(
                "group.share.partition.max.record.locks",
            )?,
            group_share_record_lock_duration_ms: number32("group.share.record.lock.duration.ms")?,
            group_share_session_timeout_ms: number32("group.share.session.timeout.ms")?,
            log_cleaner_backoff_ms: number("log.cleaner.backoff.ms")?,
            log_cleaner_dedupe_buffer_size: number("log.cleaner.dedupe.buffer.size")?,
            log_cleaner_enable: flag("log.cleaner.enable")?,
            log_cleaner_io_max_bytes_per_second: rate("log.cleaner.io.max.bytes.per.second")?,
            log_retention_check_interval_ms: number("log.retention.check.interval.ms")?,
            max_connections: number32("max.connections")?,
            max_connections_per_ip: number32("max.connections.per.ip")?,
            max_incremental_fetch_session_cache_slots: number32(
                "max.incremental.fetch.session.cache.slots",
            )?,
            num_partitions: number32("num.partitions")?,
            offset_metadata_max_bytes: number32("offset.metadata.max.bytes")?,
            offsets_retention_check_interval_ms: number("offsets.retention.check.interval.ms")?,
            offsets_retention_minutes: number32("offsets.retention.minutes")?,
            producer_id_expiration_ms: number32("producer.id.expiration.ms")?,
            socket_request_max_bytes: number32("socket.request.max.bytes")?,
            transaction_max_timeout_ms: number32("transaction.max.timeout.ms")?,
            transaction_remove_expired_cleanup_interval_ms: number32(
                "transaction.remove.expired.transaction.cleanup.interval.ms",
            )?,
            transactional_id_expiration_ms: number32("transactional.id.expiration.ms")?,
        })
    }
}

/// What is outside of its bounds is at the nearer one, and at the least where the bounds contradict each other.
pub(super) fn within(value: i32, (min, max): (i32, i32)) -> i32 {
    value.min(max).max(min)
}

macro_rules! row {
    ($name:literal, $kind:ident, $default:expr, $rule:expr, $scope:ident, $doc:literal) => {
        BrokerConfigDef {
            def: ConfigDef {
                name: $name,
                kind: ConfigType::$kind,
                default: $default,
                rule: $rule,
                doc: $doc,
            },
            scope: Scope::$scope,
            topic: None,
        }
    };
}

use Rule::{Any, AtLeast, Between, OneOf, SubsetOf};
const PARTITIONS_MAX: i64 = crate::meta::limits::PARTITIONS_PER_TOPIC_MAX as i64;
const REPLICAS_MAX: i64 = crate::meta::limits::REPLICAS_MAX as i64;

/// Defaults and bounds are those of Kafka 4.x. Dynamic here is what is dynamic there.
static OWN: &[BrokerConfigDef] = &[
    row!(
        "advertised.listeners",
        List,
        None,
        Any,
        ReadOnly,
        "The addresses clients are told to connect to."
    ),
    row!(
        "auto.create.topics.enable",
        Boolean,
        Some("true"),
        Any,
        ReadOnly,
        "Whether a topic is created when it is first used."
    ),
    row!(
        "broker.rack",
        String,
        None,
        Any,
        ReadOnly,
        "Where this broker stands, for placing replicas and fetching from the nearest."
    ),
    row!(
        "connections.max.idle.ms",
        Long,
        Some("600000"),
        AtLeast(-1),
        ReadOnly,
        "How long a connection may be idle before it is closed."
    ),
    row!(
        "default.replication.factor",
        Int,
        Some("1"),
        Between(1, REPLICAS_MAX),
        ReadOnly,
        "Replicas of a topic that does not say how many."
    ),
    row!(
        "delete.topic.enable",
        Boolean,
        Some("true"),
        Any,
        ReadOnly,
        "Whether topics can be deleted."
    ),
    row!(
        "fetch.max.bytes",
        Int,
        Some("57671680"),
        AtLeast(1024),
        ReadOnly,
        "The most one fetch returns."
    ),
    row!(
        "follower.replication.throttled.rate",
        Long,
        Some("9223372036854775807"),
        AtLeast(0),
        Cluster,
        "How many bytes a second this broker copies of replicas that are throttled on the follower's side."
    ),
    row!(
        "group.consumer.assignors",
        List,
        Some("uniform,range"),
        SubsetOf(&["range", "uniform"]),
        ReadOnly,
        "The ways to hand out partitions that groups of the consumer protocol have, the default first."
    ),
    row!(
        "group.consumer.heartbeat.interval.ms",
        Int,
        Some("5000"),
        AtLeast(1),
        ReadOnly,
        "How often a member of a group of the consumer protocol says that it is there."
    ),
    row!(
        "group.consumer.max.heartbeat.interval.ms",
        Int,
        Some("15000"),
        AtLeast(1),
        ReadOnly,
        "The most of the above."
    ),
    row!(
        "group.consumer.max.session.timeout.ms",
        Int,
        Some("60000"),
        AtLeast(1),
        ReadOnly,
        "The most of `group.consumer.session.timeout.ms`."
    ),
    row!(
        "group.consumer.max.size",
        Int,
        Some("2147483647"),
        AtLeast(1),
        ReadOnly,
        "The most members of a group of the consumer protocol."
    ),
    row!(
        "group.consumer.migration.policy",
        String,
        Some("bidirectional"),
        OneOf(&["bidirectional", "disabled", "downgrade", "upgrade"]),
        ReadOnly,
        "Which way groups with members may go between the classic and the consumer protocol."
    ),
    row!(
        "group.consumer.min.heartbeat.interval.ms",
        Int,
        Some("5000"),
        AtLeast(1),
        ReadOnly,
        "The least of `group.consumer.heartbeat.interval.ms`."
    ),
    row!(
        "group.consumer.min.session.timeout.ms",
        Int,
        Some("45000"),
        AtLeast(1),
        ReadOnly,
        "The least of `group.consumer.session.timeout.ms`."
    ),
    row!(
        "group.consumer.session.timeout.ms",
        Int,
        Some("45000"),
        AtLeast(1),
        ReadOnly,
        "How long a member of a group of the consumer protocol may be silent."
    ),
    row!(
        "group.initial.rebalance.delay.ms",
        Int,
        Some("3000"),
        AtLeast(0),
        ReadOnly,
        "How long an empty group waits for more members than the first before it hands out partitions."
    ),
    row!(
        "group.max.session.timeout.ms",
        Int,
        Some("1800000"),
        AtLeast(0),
        ReadOnly,
        "The longest a member of a group may be silent, at the most that it may ask for."
    ),
    row!(
        "group.min.session.timeout.ms",
        Int,
        Some("6000"),
        AtLeast(0),
        ReadOnly,
        "The longest a member of a group may be silent, at the least that it may ask for."
    ),
    row!(
        "group.share.delivery.count.limit",
        Int,
        Some("5"),
        Between(2, 10),
        ReadOnly,
        "How often a record of a share group is given to somebody before it is given up."
    ),
    row!(
        "group.share.heartbeat.interval.ms",
        Int,
        Some("5000"),
        AtLeast(1),
        ReadOnly,
        "How often a member of a share group says that it is there."
    ),
    row!(
        "group.share.max.share.sessions",
        Int,
        Some("2000"),
        AtLeast(1),
        ReadOnly,
        "The most sessions of members of share groups at any time."
    ),
    row!(
        "group.share.max.size",
        Int,
        Some("200"),
        Between(1, 1000),
        ReadOnly,
        "The most members of a share group."
    ),
    row!(
        "group.share.partition.max.record.locks",
        Int,
        Some("2000"),
        Between(100, 10000),
        ReadOnly,
        "Records of a partition that a share group may have under way at once."
    ),
    row!(
        "group.share.record.lock.duration.ms",
        Int,
        Some("30000"),
        Between(1000, 3600000),
        ReadOnly,
        "How long a member of a share group has a record before others get it."
    ),
    row!(
        "group.share.session.timeout.ms",
        Int,
        Some("45000"),
        AtLeast(1),
        ReadOnly,
        "How long a member of a share group may be silent."
    ),
    row!(
        "leader.replication.throttled.rate",
        Long,
        Some("9223372036854775807"),
        AtLeast(0),
        Cluster,
        "How many bytes a second others copy from this broker of replicas that are throttled on the leader's side."
    ),
    row!(
        "listeners",
        List,
        None,
        Any,
        ReadOnly,
        "The addresses this broker listens on."
    ),
    row!(
        "log.cleaner.backoff.ms",
        Long,
        Some("15000"),
        AtLeast(0),
        Cluster,
        "How long to wait when there is nothing to compact."
    ),
    row!(
        "log.cleaner.dedupe.buffer.size",
        Long,
        Some("134217728"),
        AtLeast(0),
        Cluster,
        "The most memory for the keys of logs that are compacted, of all shards together."
    ),
    row!(
        "log.cleaner.enable",
        Boolean,
        Some("true"),
        Any,
        ReadOnly,
        "Whether logs are compacted."
    ),
    row!(
        "log.cleaner.io.max.bytes.per.second",
        Double,
        Some("1.7976931348623157e308"),
        Any,
        Cluster,
        "The most that compaction reads and writes in a second."
    ),
    row!("log.dirs", List, None, Any, ReadOnly, "Where the data is."),
    row!(
        "log.retention.check.interval.ms",
        Long,
        Some("300000"),
        AtLeast(1),
        ReadOnly,
        "How often old segments are looked for."
    ),
    row!(
        "max.connections",
        Int,
        Some("2147483647"),
        AtLeast(0),
        Cluster,
        "The most connections at any time."
    ),
    row!(
        "max.connections.per.ip",
        Int,
        Some("2147483647"),
        AtLeast(0),
        Cluster,
        "The most connections of one address at any time."
    ),
    row!(
        "max.incremental.fetch.session.cache.slots",
        Int,
        Some("1000"),
        AtLeast(0),
        ReadOnly,
        "The most fetch sessions kept."
    ),
    row!(
        "node.id",
        Int,
        None,
        AtLeast(0),
        ReadOnly,
        "The number of this node in its cluster."
    ),
    row!(
        "num.partitions",
        Int,
        Some("1"),
        Between(1, PARTITIONS_MAX),
        ReadOnly,
        "Partitions of a topic that does not say how many."
    ),
    row!(
        "offset.metadata.max.bytes",
        Int,
        Some("4096"),
        AtLeast(0),
        ReadOnly,
        "The most that a client may note beside a committed offset."
    ),
    row!(
        "offsets.retention.check.interval.ms",
        Long,
        Some("600000"),
        AtLeast(1),
        ReadOnly,
        "How often old committed offsets are looked for."
    ),
    row!(
        "offsets.retention.minutes",
        Int,
        Some("10080"),
        AtLeast(1),
        ReadOnly,
        "How long offsets are kept after the last member of their group left."
    ),
    row!(
        "producer.id.expiration.ms",
        Int,
        Some("86400000"),
        AtLeast(1),
        Cluster,
        "How long an idle producer's state is kept."
    ),
    row!(
        "replica.alter.log.dirs.io.max.bytes.per.second",
        Long,
        Some("9223372036854775807"),
        AtLeast(0),
        Cluster,
        "How many bytes a second are moved between directories."
    ),
    row!(
        "socket.request.max.bytes",
        Int,
        Some("104857600"),
        AtLeast(1),
        ReadOnly,
        "The largest request accepted."
    ),
    row!(
        "transaction.max.timeout.ms",
        Int,
        Some("900000"),
        AtLeast(1),
        ReadOnly,
        "The longest that a producer may ask for its transactions to take."
    ),
    row!(
        "transaction.remove.expired.transaction.cleanup.interval.ms",
        Int,
        Some("3600000"),
        AtLeast(1),
        ReadOnly,
        "How often transactional ids that nobody uses are looked for."
    ),
    row!(
        "transactional.id.expiration.ms",
        Int,
        Some("604800000"),
        AtLeast(1),
        ReadOnly,
        "How long a transactional id that nobody uses is kept."
    ),
];

/// All broker settings, sorted by name.
pub fn broker_config_defs() -> &'static [BrokerConfigDef] {
    static TABLE: OnceLock<Vec<BrokerConfigDef>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = OWN.to_vec();
        for row in topic_config_defs() {
            let last = row.synonyms.len().saturating_sub(1);
            for (at, synonym) in row.synonyms.iter().enumerate() {
                // Of several units the last, coarsest one has the default; the finer ones are null until they are set.
                let default = (at == last).then(|| scaled_default(row.def.default, synonym.scale));
                let kind = if synonym.scale == 1 {
                    row.def.kind
                } else {
                    ConfigType::Int
                };
                let rule = if synonym.scale == 1 {
                    row.def.rule
                } else {
                    Any
                };
                let def = ConfigDef {
                    name: synonym.name,
                    kind,
                    default,
                    rule,
                    doc: row.def.doc,
                };
                let scope = if at == 0 {
                    Scope::Cluster
                } else {
                    Scope::ReadOnly
                };
                table.push(BrokerConfigDef {
                    def,
                    scope,
                    topic: Some((row.def.name, synonym.scale)),
                });
            }
        }
        table.sort_by_key(|row| row.def.name);
        assert!(
            table
                .windows(2)
                .all(|pair| pair[0].def.name < pair[1].def.name),
            "a broker setting is defined twice"
        );
        table
    })
}

fn scaled_default(default: Option<&'static str>, scale: i64) -> &'static str {
    let default = default.expect("every topic setting with synonyms has a default");
    if scale == 1 {
        return default;
    }
    let n: i64 = default.parse().expect("a scaled setting is a number");
    // Built once per process, three short texts.
    Box::leak((n / scale).to_string().into_boxed_str())
}

/// The broker setting of this name.
pub fn broker_config_def(name: &str) -> Option<&'static BrokerConfigDef> {
    let table = broker_config_defs();
    table
        .binary_search_by(|row| row.def.name.cmp(name))
        .ok()
        .map(|at| &table[at])
}
