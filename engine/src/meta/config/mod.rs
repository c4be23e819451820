//! Settings of topics and brokers: Kafka's names, types, defaults, bounds and messages, in one table each.
//! Knows nothing of files, requests or who may change what.
//! Keeps every stored value canonical and valid: what is in an image has been parsed by its table's row.

mod broker;
mod describe;
mod edit;
mod group;
mod topic;
mod value;

#[cfg(test)]
mod tests;

pub use broker::{broker_config_def, broker_config_defs, BrokerConfig, BrokerConfigDef, Scope};
pub use describe::{
    describe_broker, describe_cluster_default, describe_topic, ConfigEntry, ConfigSynonym,
};
pub use edit::{ConfigEdit, ConfigOp, Overrides};
pub use group::{check_group, describe_group, group_config_def, AutoOffsetReset, GroupSettings};
pub use topic::{
    topic_config_def, topic_config_defs, CleanupPolicy, CompressionType, TimestampType,
    TopicConfig, TopicConfigDef,
};
pub use value::{ConfigDef, ConfigSource, ConfigType, Rule, Value};

/// Why a setting was refused; the text is what Kafka says in the same case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No topic setting has this name.
    #[error("Unknown topic config name: {0}")]
    UnknownTopicConfig(String),
    /// No broker setting has this name.
    #[error("Unknown broker config name: {0}")]
    UnknownBrokerConfig(String),
    /// No setting of groups has this name.
    #[error("Unknown group config name: {0}")]
    UnknownGroupConfig(String),
    /// The value is not of the setting's type, or out of its bounds.
    #[error("Invalid value {value} for configuration {name}: {reason}")]
    Invalid {
        name: String,
        value: String,
        reason: String,
    },
    /// Values that are valid each, but not together.
    #[error("{0}")]
    Conflict(String),
    /// A broker setting that is fixed while the broker runs.
    #[error("Cannot update these configs dynamically: Set({0})")]
    ReadOnly(String),
    /// A broker setting that may only be set for one broker at a time.
    #[error("Cannot update these configs at default cluster level, per-broker configs must be specified: Set({0})")]
    PerBrokerOnly(String),
    /// APPEND or SUBTRACT on a setting that is no list.
    #[error("Can't {op} to key {name} because its type is not LIST.")]
    NotAList { op: &'static str, name: String },
    /// One edit names the same setting twice.
    #[error("Error due to duplicate config keys: {0}")]
    DuplicateName(String),
    /// A bound of [`crate::meta::limits`] is reached.
    #[error("{what} exceeds the limit of {max}")]
    Limit { what: &'static str, max: usize },
}

impl ConfigError {
    /// Whether there is no setting of this name.
    pub fn is_unknown_name(&self) -> bool {
        matches!(
            self,
            ConfigError::UnknownTopicConfig(_)
                | ConfigError::UnknownBrokerConfig(_)
                | ConfigError::UnknownGroupConfig(_)
        )
    }
}

/// Where the values of a node come from when a topic does not say otherwise, first found first taken.
#[derive(Debug, Clone, Copy)]
pub struct Layers<'a> {
    /// Set at run time for this node.
    pub node: &'a Overrides,
    /// Set at run time for all nodes of the cluster.
    pub cluster: &'a Overrides,
    /// Given to this node at its start (flags, file, environment).
    pub fixed: &'a Overrides,
}

impl<'a> Layers<'a> {
    fn get(&self, name: &str) -> Option<(&'a str, ConfigSource)> {
        let found = |map: &'a Overrides, source| map.get(name).map(|v| (v.as_str(), source));
        found(self.node, ConfigSource::DynamicBroker)
            .or_else(|| found(self.cluster, ConfigSource::DynamicDefaultBroker))
            .or_else(|| found(self.fixed, ConfigSource::StaticBroker))
    }
}

/// Checks the settings a node is started with and makes them canonical.
///
/// # Errors
/// The first setting that is unknown or whose value is invalid.
pub fn check_fixed(settings: &Overrides) -> Result<Overrides, ConfigError> {
    let mut checked = Overrides::new();
    for (name, raw) in settings {
        let row = broker_config_def(name)
            .ok_or_else(|| ConfigError::UnknownBrokerConfig(value::shorten(name)))?;
        checked.insert(name.clone(), row.parse(raw)?.to_string());
    }
    Ok(checked)
}
