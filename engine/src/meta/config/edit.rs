//! Changes to stored settings: replace all of them, or set, delete, append to and subtract from single ones.
//! Knows nothing of requests; looks at stored values and the tables only, never at one node's own settings.
//! Keeps the outcome the same on every node, valid as a whole, and canonical.

use super::{
    broker_config_def, group_config_def, topic_config_def, value::shorten, ConfigDef, ConfigError,
};
use super::{Scope, TopicConfig, Value};
use crate::meta::limits;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Stored settings: canonical values by name.
pub type Overrides = BTreeMap<String, String>;

/// What an incremental change does to one setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ConfigOp {
    Set(String),
    /// Back to the value it has without an override.
    Delete,
    /// Adds items to a list.
    Append(String),
    /// Takes items out of a list.
    Subtract(String),
}

/// A change of the stored settings of a topic or broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ConfigEdit {
    /// AlterConfigs: what is not named goes back to its default.
    Replace(Vec<(String, String)>),
    /// IncrementalAlterConfigs.
    Incremental(Vec<(String, ConfigOp)>),
}

impl ConfigEdit {
    /// Sets (`Some`) and deletes (`None`) single settings.
    pub fn set(values: impl IntoIterator<Item = (String, Option<String>)>) -> ConfigEdit {
        let op = |value: Option<String>| value.map_or(ConfigOp::Delete, ConfigOp::Set);
        ConfigEdit::Incremental(
            values
                .into_iter()
                .map(|(name, value)| (name, op(value)))
                .collect(),
        )
    }

    /// The settings of a topic after this change.
    ///
    /// # Errors
    /// The first setting that is refused, with Kafka's text.
    pub fn apply_to_topic(&self, current: &Overrides) -> Result<Overrides, ConfigError> {
        let edited = self.apply(current, &|name| {
            let row = topic_config_def(name);
            row.map(|row| row.def)
                .ok_or_else(|| ConfigError::UnknownTopicConfig(shorten(name)))
        })?;
        TopicConfig::check_together(&edited)?;
        Ok(edited)
    }

    /// The settings of a group after this change.
    ///
    /// # Errors
    /// The first setting that is refused, with Kafka's text.
    pub fn apply_to_group(&self, current: &Overrides) -> Result<Overrides, ConfigError> {
        self.apply(current, &|name| {
            group_config_def(name).ok_or_else(|| ConfigError::UnknownGroupConfig(shorten(name)))
        })
    }

    /// The settings of one broker, or with `for_all` of all of them, after this change.
    ///
    /// # Errors
    /// The first setting that is refused, with Kafka's text.
    pub fn apply_to_broker(
        &self,
        current: &Overrides,
        for_all: bool,
    ) -> Result<Overrides, ConfigError> {
        let mut edited = self.apply(current, &|name| {
            let row = broker_config_def(name)
                .ok_or_else(|| ConfigError::UnknownBrokerConfig(shorten(name)))?;
            match row.scope {
                Scope::ReadOnly => Err(ConfigError::ReadOnly(name.to_string())),
                Scope::PerBroker if for_all => Err(ConfigError::PerBrokerOnly(name.to_string())),
                Scope::PerBroker | Scope::Cluster => Ok(row.def),
            }
        })?;
        for (name, value) in &mut edited {
            let row = broker_config_def(name).expect("looked up above");
            *value = row.parse(value)?.to_string();
        }
        Ok(edited)
    }

    fn apply(
        &self,
        current: &Overrides,
        find: &dyn Fn(&str) -> Result<ConfigDef, ConfigError>,
    ) -> Result<Overrides, ConfigError> {
        let names: Vec<&String> = match self {
            ConfigEdit::Replace(values) => values.iter().map(|(name, _)| name).collect(),
            ConfigEdit::Incremental(ops) => ops.iter().map(|(name, _)| name).collect(),
        };
        if names.len() > limits::CONFIG_EDIT_LEN_MAX {
            let max = limits::CONFIG_EDIT_LEN_MAX;
            return Err(ConfigError::Limit {
                what: "The number of settings in one change",
                max,
            });
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(ConfigError::DuplicateName(shorten(twice)));
        }
        match self {
            ConfigEdit::Replace(values) => values
                .iter()
                .map(|(name, raw)| Ok((name.clone(), find(name)?.parse(raw)?.to_string())))
                .collect(),
            ConfigEdit::Incremental(ops) => {
                let mut edited = current.clone();
                for (name, op) in ops {
                    let def = match find(name) {
                        Ok(def) => def,
                        // Nothing has it, so there is nothing to do: tools that copy settings delete those that are unset
                        // elsewhere, of whatever version that is.
                        Err(error) if error.is_unknown_name() && *op == ConfigOp::Delete => {
                            edited.remove(name);
                            continue;
                        }
                        Err(error) => return Err(error),
                    };
                    match edit_one(&def, current.get(name), op)? {
                        Some(value) => edited.insert(name.clone(), value),
                        None => edited.remove(name),
                    };
                }
                Ok(edited)
            }
        }
    }
}

/// The new value of one setting; `None` when it has none of its own any more.
fn edit_one(
    def: &ConfigDef,
    current: Option<&String>,
    op: &ConfigOp,
) -> Result<Option<String>, ConfigError> {
    let items = |raw: &str| {
        // Only the shape is needed here: what is taken out of a list need not be valid in it.
        let split = raw.split(',').map(|item| item.trim().to_string());
        split.filter(|item| !item.is_empty()).collect::<Vec<_>>()
    };
    let list = |op: &'static str| match def.default_value() {
        Some(Value::List(default)) => Ok(current.map_or(default, |raw| items(raw))),
        Some(Value::Bool(_) | Value::Int(_) | Value::Double(_) | Value::Text(_)) | None => {
            Err(ConfigError::NotAList {
                op,
                name: def.name.to_string(),
            })
        }
    };
    let edited = match op {
        ConfigOp::Set(raw) => raw.clone(),
        ConfigOp::Delete => return Ok(None),
        ConfigOp::Append(raw) => {
            let mut list = list("APPEND")?;
            for item in items(raw) {
                if !list.contains(&item) {
                    list.push(item);
                }
            }
            list.join(",")
        }
        ConfigOp::Subtract(raw) => {
            let mut list = list("SUBTRACT")?;
            let gone = items(raw);
            list.retain(|item| !gone.contains(item));
            list.join(",")
        }
    };
    Ok(Some(def.parse(&edited)?.to_string()))
}
