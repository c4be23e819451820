//! The table of topic settings and the struct a log reads them from.
//! Knows nothing of where overrides are stored.
//! Keeps one row per setting: name, type, default, bounds, broker synonyms, and the field it fills.

use super::value::shorten;
use super::{ConfigDef, ConfigError, ConfigSource, ConfigType, Layers, Overrides, Rule, Value};
use std::sync::{Arc, OnceLock};

/// What happens to old segments; both off keeps everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Remove by age and size.
    pub delete: bool,
    /// Keep the last value of each key.
    pub compact: bool,
}

/// The codec that batches are to be stored with: kept and shown, and without effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionType {
    /// As the producer sent them.
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Whose clock a record's timestamp is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// The effective settings of one topic on this node.
///
/// Times are milliseconds, sizes bytes; `None` means without limit. `u64` fields of which Kafka's default is "infinite" hold
/// `i64::MAX` then.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicConfig {
    pub cleanup_policy: CleanupPolicy,
    pub compression_type: CompressionType,
    pub compression_gzip_level: i32,
    pub compression_lz4_level: i32,
    pub compression_zstd_level: i32,
    pub delete_retention_ms: u64,
    pub file_delete_delay_ms: u64,
    /// Acknowledge at the latest after this many records (only with `write_caching`).
    pub flush_messages: Option<u64>,
    /// Acknowledge at the latest after this time (only with `write_caching`).
    pub flush_ms: Option<u64>,
    pub index_interval_bytes: u32,
    pub local_retention_bytes: i64,
    pub local_retention_ms: i64,
    pub max_compaction_lag_ms: u64,
    pub max_message_bytes: u32,
    /// How far a record's timestamp may be ahead of the broker's clock.
    pub message_timestamp_after_max_ms: u64,
    /// How far a record's timestamp may be behind the broker's clock.
    pub message_timestamp_before_max_ms: u64,
    pub message_timestamp_type: TimestampType,
    pub min_cleanable_dirty_ratio: f64,
    pub min_compaction_lag_ms: u64,
    pub min_insync_replicas: u32,
    pub preallocate: bool,
    pub remote_storage_enable: bool,
    pub retention_bytes: Option<u64>,
    pub retention_ms: Option<u64>,
    pub segment_bytes: u32,
    pub segment_index_bytes: u32,
    pub segment_jitter_ms: u64,
    pub segment_ms: u64,
    pub unclean_leader_election_enable: bool,
    /// Acknowledge from memory, before the records are on stable storage.
    pub write_caching: bool,
}

/// Records that may be acknowledged but not yet durable with `write.caching` when `flush.messages` is not set.
pub const WRITE_CACHING_MESSAGES_DEFAULT: u64 = 100_000;
/// Time acknowledged records may take to become durable with `write.caching` when `flush.ms` is not set.
pub const WRITE_CACHING_MS_DEFAULT: u64 = 100;

impl TopicConfig {
    /// The bounds of `write.caching`: (records, milliseconds) an acknowledgement may be ahead of stable storage at most.
    pub fn write_caching_bounds(&self) -> (u64, u64) {
        (
            self.flush_messages
                .unwrap_or(WRITE_CACHING_MESSAGES_DEFAULT),
            self.flush_ms.unwrap_or(WRITE_CACHING_MS_DEFAULT),
        )
    }

    /// The age at which the active segment is rolled: compaction must not wait for a segment longer than its lag allows.
    pub fn segment_ms_max(&self) -> u64 {
        if self.cleanup_policy.compact && self.max_compaction_lag_ms > 0 {
            self.segment_ms.min(self.max_compaction_lag_ms)
        } else {
            self.segment_ms
        }
    }

    /// Kafka's defaults.
    pub fn defaults() -> Arc<TopicConfig> {
        static DEFAULTS: OnceLock<Arc<TopicConfig>> = OnceLock::new();
        DEFAULTS
            .get_or_init(|| {
                let mut config = TopicConfig::blank();
                for row in TABLE {
                    let value = row.def.default_value();
                    (row.fill)(
                        &mut config,
                        &value.expect("every topic setting has a default"),
                    );
                }
                Arc::new(config)
            })
            .clone()
    }

    /// The effective settings of a topic with these overrides on a node with these layers.
    ///
    /// Values that contradict each other only because they come from different layers are reconciled in favour of the
    /// stricter bound: a node must be able to use every image.
    ///
    /// # Errors
    /// An unknown name or an invalid value.
    pub fn resolve(overrides: &Overrides, layers: Layers<'_>) -> Result<TopicConfig, ConfigError> {
        if let Some(name) = overrides
            .keys()
            .find(|name| topic_config_def(name).is_none())
        {
            return Err(ConfigError::UnknownTopicConfig(shorten(name)));
        }
        let mut config = TopicConfig::clone(&TopicConfig::defaults());
        for row in TABLE {
            if let Some(raw) = overrides.get(row.def.name) {
                (row.fill)(&mut config, &row.def.parse(raw)?);
            } else if let Some((value, _)) = row.layered(layers)? {
                (row.fill)(&mut config, &value);
            }
        }
        if let Some(raw) = overrides.get(INTERNAL_SEGMENT_BYTES.def.name) {
            (INTERNAL_SEGMENT_BYTES.fill)(&mut config, &INTERNAL_SEGMENT_BYTES.def.parse(raw)?);
        }
        config.min_compaction_lag_ms = config
            .min_compaction_lag_ms
            .min(config.max_compaction_lag_ms);
        // Compaction must not wait for a segment longer than its lag allows.
        config.segment_ms = config.segment_ms_max();
        Ok(config)
    }

    /// Checks that overrides do not contradict each other or Kafka's defaults. Looks at no node's own settings, so that every
    /// node comes to the same verdict.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`] with Kafka's text; an unknown name or an invalid value.
    pub(super) fn check_together(overrides: &Overrides) -> Result<(), ConfigError> {
        let lag = |name: &str| {
            let row = topic_config_def(name).expect("a setting of the table");
            match overrides.get(name) {
                Some(raw) => row.def.parse(raw).map(|v| int(&v)),
                None => Ok(row.def.default_value().map_or(0, |v| int(&v))),
            }
        };
        let (min, max) = (lag("min.compaction.lag.ms")?, lag("max.compaction.lag.ms")?);
        if min > max {
            return Err(ConfigError::Conflict(format!(
                "conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})"
            )));
        }
        Ok(())
    }

    /// Every field is overwritten by its row of the table before anybody sees it.
    fn blank() -> TopicConfig {
        TopicConfig {
            cleanup_policy: CleanupPolicy {
                delete: false,
                compact: false,
            },
            compression_type: CompressionType::Producer,
            compression_gzip_level: 0,
            compression_lz4_level: 0,
            compression_zstd_level: 0,
            delete_retention_ms: 0,
            file_delete_delay_ms: 0,
            flush_messages: None,
            flush_ms: None,
            index_interval_bytes: 0,
            local_retention_bytes: 0,
            local_retention_ms: 0,
            max_compaction_lag_ms: 0,
            max_message_bytes: 0,
            message_timestamp_after_max_ms: 0,
            message_timestamp_before_max_ms: 0,
            message_timestamp_type: TimestampType::CreateTime,
            min_cleanable_dirty_ratio: 0.0,
            min_compaction_lag_ms: 0,
            min_insync_replicas: 0,
            preallocate: false,
            remote_storage_enable: false,
            retention_bytes: None,
            retention_ms: None,
            segment_bytes: 0,
            segment_index_bytes: 0,
            segment_jitter_ms: 0,
            segment_ms: 0,
            unclean_leader_election_enable: false,
            write_caching: false,
        }
    }
}

/// A broker setting that gives a topic setting its value when the topic has none of its own.
#[derive(Debug, Clone, Copy)]
pub struct Synonym {
    pub name: &'static str,
    /// Multiplies the broker's value: hours and minutes become milliseconds.
    pub scale: i64,
}

/// A row of the table of topic settings.
pub struct TopicConfigDef {
    pub def: ConfigDef,
    /// Broker settings that stand in for this one, in the order they are looked at.
    pub synonyms: &'static [Synonym],
    /// For tests only, and not listed by DescribeConfigs.
    pub internal: bool,
    fill: fn(&mut TopicConfig, &Value),
}

impl TopicConfigDef {
    /// The value a node gives this setting when the topic does not.
    pub(super) fn layered(
        &self,
        layers: Layers<'_>,
    ) -> Result<Option<(Value, ConfigSource)>, ConfigError> {
        for synonym in self.synonyms {
            if let Some((raw, source)) = layers.get(synonym.name) {
                return Ok(Some((self.scaled(raw, synonym.scale)?, source)));
            }
        }
        Ok(None)
    }

    /// A broker's value as this setting's.
    pub(super) fn scaled(&self, raw: &str, scale: i64) -> Result<Value, ConfigError> {
        if scale == 1 {
            return self.def.parse(raw);
        }
        let unit = ConfigDef {
            rule: Rule::Any,
            ..self.def
        };
        let Value::Int(n) = unit.parse(raw)? else {
            panic!("a scaled synonym of {} is a number", self.def.name)
        };
        // A negative number of hours means no limit, whatever the unit.
        let n = if n < 0 { -1 } else { n.saturating_mul(scale) };
        self.def.parse(&n.to_string())
    }
}

fn int(value: &Value) -> i64 {
    match value {
        Value::Int(v) => *v,
        Value::Bool(_) | Value::Double(_) | Value::Text(_) | Value::List(_) => {
            panic!("the row's type says this is a number: {value:?}")
        }
    }
}

fn unsigned(value: &Value) -> u64 {
    u64::try_from(int(value)).expect("the row's rule keeps this at 0 or above")
}

fn unsigned32(value: &Value) -> u32 {
    u32::try_from(int(value)).expect("the row's type and rule keep this in 32 bits")
}

fn signed32(value: &Value) -> i32 {
    i32::try_from(int(value)).expect("the row's type keeps this in 32 bits")
}

/// Negative means without limit.
fn limit(value: &Value) -> Option<u64> {
    u64::try_from(int(value)).ok()
}

/// Kafka's infinity is the largest number.
fn finite(value: &Value) -> Option<u64> {
    limit(value).filter(|v| *v < i64::MAX as u64)
}

fn flag(value: &Value) -> bool {
    match value {
        Value::Bool(v) => *v,
        Value::Int(_) | Value::Double(_) | Value::Text(_) | Value::List(_) => {
            panic!("the row's type says this is a switch: {value:?}")
        }
    }
}

const DAY_MS: &str = "86400000";
const WEEK_MS: &str = "604800000";
const INFINITE: &str = "9223372036854775807";
const COMPRESSIONS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];
const HOUR: i64 = 3_600_000;
const MINUTE: i64 = 60_000;

macro_rules! row {
    ($name:literal, $kind:ident, $default:expr, $rule:expr, [$($synonym:literal $(* $scale:expr)?),*], $fill:expr, $doc:literal) => {
        TopicConfigDef {
            def: ConfigDef { name: $name, kind: ConfigType::$kind, default: Some($default), rule: $rule, doc: $doc },
            synonyms: &[$(Synonym { name: $synonym, scale: row!(@scale $($scale)?) }),*],
            internal: false,
            fill: $fill,
        }
    };
    (@scale $scale:expr) => { $scale };
    (@scale) => { 1 };
}

use Rule::{Any, AtLeast, Between, OnlyFalse};

/// Sorted by name. Defaults and bounds are those of Kafka 4.x.
static TABLE: &[TopicConfigDef] = &[
    row!("cleanup.policy", List, "delete", Rule::SubsetOf(&["compact", "delete"]), ["log.cleanup.policy"],
        |c, v| {
            let Value::List(items) = v else { panic!("the row's type says this is a list: {v:?}") };
            let has = |policy: &str| items.iter().any(|item| item == policy);
            c.cleanup_policy = CleanupPolicy { delete: has("delete"), compact: has("compact") };
        },
        "What happens to old segments: delete by age and size, compact to the last value of each key, both, or (empty) nothing."),
    row!("compression.gzip.level", Int, "-1", Rule::GzipLevel, ["compression.gzip.level"],
        |c, v| c.compression_gzip_level = signed32(v), "The level used where compression.type is gzip."),
    row!("compression.lz4.level", Int, "9", Between(1, 17), ["compression.lz4.level"],
        |c, v| c.compression_lz4_level = signed32(v), "The level used where compression.type is lz4."),
    row!("compression.type", String, "producer", Rule::OneOf(COMPRESSIONS), ["compression.type"],
        |c, v| {
            let Value::Text(name) = v else { panic!("the row's type says this is text: {v:?}") };
            c.compression_type = match name.as_str() {
                "uncompressed" => CompressionType::Uncompressed,
                "zstd" => CompressionType::Zstd,
                "lz4" => CompressionType::Lz4,
                "snappy" => CompressionType::Snappy,
                "gzip" => CompressionType::Gzip,
                "producer" => CompressionType::Producer,
                other => panic!("the row's rule knows no {other}"),
            };
        },
        "Kept and shown, and without effect: batches are stored as their producer compressed them, as with producer."),
    row!("compression.zstd.level", Int, "3", Between(-131_072, 22), ["compression.zstd.level"],
        |c, v| c.compression_zstd_level = signed32(v), "The level used where compression.type is zstd."),
    row!("delete.retention.ms", Long, DAY_MS, AtLeast(0), ["log.cleaner.delete.retention.ms"],
        |c, v| c.delete_retention_ms = unsigned(v), "How long delete markers of a compacted topic are kept."),
    row!("file.delete.delay.ms", Long, "60000", AtLeast(0), ["log.segment.delete.delay.ms"],
        |c, v| c.file_delete_delay_ms = unsigned(v), "How long a file stays on disk after it was taken out of the log."),
    row!("flush.messages", Long, INFINITE, AtLeast(1), ["log.flush.interval.messages"],
        |c, v| c.flush_messages = finite(v),
        "With write.caching, the number of records that may be acknowledged before they are on stable storage; without it every record is."),
    row!("flush.ms", Long, INFINITE, AtLeast(0), ["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
        |c, v| c.flush_ms = finite(v),
        "With write.caching, the time records may be acknowledged before they are on stable storage; without it every record is."),
    row!("follower.replication.throttled.replicas", List, "", Rule::ThrottledReplicas, [],
        |_, _| {}, "The replicas whose replication is throttled on the follower's side."),
    row!("index.interval.bytes", Int, "4096", AtLeast(0), ["log.index.interval.bytes"],
        |c, v| c.index_interval_bytes = unsigned32(v), "The bytes of log between two entries of the offset index."),
    row!("leader.replication.throttled.replicas", List, "", Rule::ThrottledReplicas, [],
        |_, _| {}, "The replicas whose replication is throttled on the leader's side."),
    row!("local.retention.bytes", Long, "-2", AtLeast(-2), ["log.local.retention.bytes"],
        |c, v| c.local_retention_bytes = int(v), "The local size of a tiered partition; -2 stands for retention.bytes."),
    row!("local.retention.ms", Long, "-2", AtLeast(-2), ["log.local.retention.ms"],
        |c, v| c.local_retention_ms = int(v), "The local age of a tiered partition; -2 stands for retention.ms."),
    row!("max.compaction.lag.ms", Long, INFINITE, AtLeast(1), ["log.cleaner.max.compaction.lag.ms"],
        |c, v| c.max_compaction_lag_ms = unsigned(v), "The longest a record may wait for compaction."),
    row!("max.message.bytes", Int, "1048588", Between(0, crate::types::limits::BATCH_BYTES_MAX as i64), ["message.max.bytes"],
        |c, v| c.max_message_bytes = unsigned32(v), "The largest record batch accepted, after compression."),
    row!("message.timestamp.after.max.ms", Long, "3600000", AtLeast(0), ["log.message.timestamp.after.max.ms"],
        |c, v| c.message_timestamp_after_max_ms = unsigned(v), "How far a record's timestamp may be ahead of the broker's clock (CreateTime only)."),
    row!("message.timestamp.before.max.ms", Long, INFINITE, AtLeast(0), ["log.message.timestamp.before.max.ms"],
        |c, v| c.message_timestamp_before_max_ms = unsigned(v), "How far a record's timestamp may be behind the broker's clock (CreateTime only)."),
    row!("message.timestamp.type", String, "CreateTime", Rule::OneOf(&["CreateTime", "LogAppendTime"]), ["log.message.timestamp.type"],
        |c, v| {
            let append = matches!(v, Value::Text(name) if name == "LogAppendTime");
            c.message_timestamp_type = if append { TimestampType::LogAppendTime } else { TimestampType::CreateTime };
        },
        "Whether a record carries the time its producer set or the time it was appended."),
    row!("min.cleanable.dirty.ratio", Double, "0.5", Rule::Ratio, ["log.cleaner.min.cleanable.ratio"],
        |c, v| {
            let Value::Double(ratio) = v else { panic!("the row's type says this is a ratio: {v:?}") };
            c.min_cleanable_dirty_ratio = *ratio;
        },
        "The part of a log that must be new before it is compacted again."),
    row!("min.compaction.lag.ms", Long, "0", AtLeast(0), ["log.cleaner.min.compaction.lag.ms"],
        |c, v| c.min_compaction_lag_ms = unsigned(v), "The time a record stays uncompacted at least."),
    row!("min.insync.replicas", Int, "1", AtLeast(1), ["min.insync.replicas"],
        |c, v| c.min_insync_replicas = unsigned32(v), "The in-sync replicas an acks=all produce needs."),
    row!("preallocate", Boolean, "false", Any, ["log.preallocate"],
        |c, v| c.preallocate = flag(v), "Whether a new segment's file is allocated at its full size."),
    row!("remote.log.copy.disable", Boolean, "false", Any, [],
        |_, _| {}, "Whether a tiered topic stops copying to remote storage."),
    row!("remote.log.delete.on.disable", Boolean, "false", Any, [],
        |_, _| {}, "Whether remote data is deleted when tiering is switched off."),
    row!("remote.storage.enable", Boolean, "false",
        OnlyFalse("Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."), [],
        |c, v| c.remote_storage_enable = flag(v), "Whether old segments move to remote storage."),
    row!("retention.bytes", Long, "-1", Any, ["log.retention.bytes"],
        |c, v| c.retention_bytes = limit(v), "The size a partition may grow to before its oldest segments are deleted; -1 for no limit."),
    row!("retention.ms", Long, WEEK_MS, AtLeast(-1), ["log.retention.ms", "log.retention.minutes" * MINUTE, "log.retention.hours" * HOUR],
        |c, v| c.retention_ms = limit(v), "The age at which segments are deleted; -1 for no limit."),
    row!("segment.bytes", Int, "1073741824", AtLeast(1_048_576), ["log.segment.bytes"],
        |c, v| c.segment_bytes = unsigned32(v), "The size at which a segment is rolled."),
    row!("segment.index.bytes", Int, "10485760", AtLeast(4), ["log.index.size.max.bytes"],
        |c, v| c.segment_index_bytes = unsigned32(v), "The size of an index at which its segment is rolled."),
    row!("segment.jitter.ms", Long, "0", AtLeast(0), ["log.roll.jitter.ms", "log.roll.jitter.hours" * HOUR],
        |c, v| c.segment_jitter_ms = unsigned(v), "The random part of segment.ms, so that not all partitions roll at once."),
    row!("segment.ms", Long, WEEK_MS, AtLeast(1), ["log.roll.ms", "log.roll.hours" * HOUR],
        |c, v| c.segment_ms = unsigned(v), "The age at which a segment is rolled even when it is not full."),
    row!("unclean.leader.election.enable", Boolean, "false", Any, ["unclean.leader.election.enable"],
        |c, v| c.unclean_leader_election_enable = flag(v), "Whether a replica that is not in sync may lead when no other is left, at the price of records."),
    row!("write.caching", Boolean, "false", Any, ["log.write.caching"],
        |c, v| c.write_caching = flag(v), "Millrace only: acknowledge from memory, bounded by flush.messages and flush.ms, instead of from stable storage."),
];

/// Segments below Kafka's minimum of 1 MiB, for tests of rolling and retention. Has the last word on the segment's size.
static INTERNAL_SEGMENT_BYTES: TopicConfigDef = TopicConfigDef {
    def: ConfigDef {
        name: "internal.segment.bytes",
        kind: ConfigType::Int,
        default: None,
        rule: AtLeast(4096),
        doc: "The size at which a segment is rolled, below the usual minimum. For tests only.",
    },
    synonyms: &[],
    internal: true,
    fill: |c, v| c.segment_bytes = unsigned32(v),
};

/// The public topic settings, sorted by name.
pub fn topic_config_defs() -> &'static [TopicConfigDef] {
    TABLE
}

/// The topic setting of this name.
pub fn topic_config_def(name: &str) -> Option<&'static TopicConfigDef> {
    if name == INTERNAL_SEGMENT_BYTES.def.name {
        return Some(&INTERNAL_SEGMENT_BYTES);
    }
    TABLE
        .binary_search_by(|row| row.def.name.cmp(name))
        .ok()
        .map(|at| &TABLE[at])
}
