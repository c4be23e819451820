//! What DescribeConfigs answers: every setting with its value, where it comes from and what it would be otherwise.
//! Knows nothing of the wire.
//! Keeps the first synonym listed equal to the value and source reported.

use super::{broker_config_defs, topic_config_defs};
use super::{ConfigSource, ConfigType, Layers, Overrides, Scope};

/// One source of a value, with the name the setting has there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSynonym {
    pub name: &'static str,
    /// `None` is null.
    pub value: Option<String>,
    pub source: ConfigSource,
}

/// One setting as it is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: &'static str,
    /// The effective value; `None` is null.
    pub value: Option<String>,
    pub source: ConfigSource,
    pub kind: ConfigType,
    pub read_only: bool,
    pub sensitive: bool,
    /// Every source that has a value, the effective one first.
    pub synonyms: Vec<ConfigSynonym>,
    pub doc: &'static str,
}

impl ConfigEntry {
    /// True when nobody set this value.
    pub fn is_default(&self) -> bool {
        self.source == ConfigSource::Default
    }
}

/// The values the layers have for one name, most specific first.
fn of_layers(name: &'static str, layers: Layers<'_>) -> Vec<ConfigSynonym> {
    let sources = [
        (layers.node, ConfigSource::DynamicBroker),
        (layers.cluster, ConfigSource::DynamicDefaultBroker),
        (layers.fixed, ConfigSource::StaticBroker),
    ];
    let found = |(map, source): (&Overrides, ConfigSource)| {
        map.get(name).map(|value| ConfigSynonym {
            name,
            value: Some(value.clone()),
            source,
        })
    };
    sources.into_iter().filter_map(found).collect()
}

/// Every public setting of a topic with these overrides.
pub fn describe_topic(overrides: &Overrides, layers: Layers<'_>) -> Vec<ConfigEntry> {
    let mut entries = Vec::with_capacity(topic_config_defs().len());
    for row in topic_config_defs() {
        let name = row.def.name;
        let mut synonyms = Vec::new();
        let own = overrides.get(name);
        if let Some(value) = own {
            let source = ConfigSource::DynamicTopic;
            synonyms.push(ConfigSynonym {
                name,
                value: Some(value.clone()),
                source,
            });
        }
        for synonym in row.synonyms {
            synonyms.extend(of_layers(synonym.name, layers));
        }
        let default_name = row.synonyms.first().map_or(name, |synonym| synonym.name);
        let default = row.def.default.map(str::to_string);
        synonyms.push(ConfigSynonym {
            name: default_name,
            value: default.clone(),
            source: ConfigSource::Default,
        });
        // A broker's value may be in another unit: its effect on the topic is in milliseconds.
        let layered = row.layered(layers).expect("checked when it was stored");
        let value = own
            .cloned()
            .or_else(|| layered.map(|(v, _)| v.to_string()))
            .or(default);
        entries.push(ConfigEntry {
            name,
            value,
            source: synonyms[0].source,
            kind: row.def.kind,
            read_only: false,
            sensitive: false,
            synonyms,
            doc: row.def.doc,
        });
    }
    entries
}

/// Every setting of this broker.
pub fn describe_broker(layers: Layers<'_>) -> Vec<ConfigEntry> {
    let mut entries = Vec::with_capacity(broker_config_defs().len());
    for row in broker_config_defs() {
        let name = row.def.name;
        let mut synonyms = of_layers(name, layers);
        if let Some(default) = row.def.default {
            let value = Some(default.to_string());
            synonyms.push(ConfigSynonym {
                name,
                value,
                source: ConfigSource::Default,
            });
        }
        let sensitive = row.def.kind == ConfigType::Password;
        if sensitive {
            synonyms.iter_mut().for_each(|synonym| synonym.value = None);
        }
        entries.push(ConfigEntry {
            name,
            value: synonyms.first().and_then(|s| s.value.clone()),
            source: synonyms.first().map_or(ConfigSource::Default, |s| s.source),
            kind: row.def.kind,
            read_only: row.scope == Scope::ReadOnly,
            sensitive,
            synonyms,
            doc: row.def.doc,
        });
    }
    entries
}

/// The settings set at run time for all brokers; nothing else, as in Kafka.
pub fn describe_cluster_default(cluster: &Overrides) -> Vec<ConfigEntry> {
    let mut entries = Vec::with_capacity(cluster.len());
    for row in broker_config_defs() {
        let Some(value) = cluster.get(row.def.name) else {
            continue;
        };
        let source = ConfigSource::DynamicDefaultBroker;
        let sensitive = row.def.kind == ConfigType::Password;
        let value = (!sensitive).then(|| value.clone());
        entries.push(ConfigEntry {
            name: row.def.name,
            value: value.clone(),
            source,
            kind: row.def.kind,
            read_only: false,
            sensitive,
            synonyms: vec![ConfigSynonym {
                name: row.def.name,
                value,
                source,
            }],
            doc: row.def.doc,
        });
    }
    entries
}
