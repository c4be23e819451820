//! The table of settings of groups, and the struct the rest of a broker reads them from.
//! Knows nothing of groups themselves: a name has settings whether there is such a group or not.
//! Keeps every stored value valid: what is in an image has been parsed by its table's row.

use super::broker::within;
use super::{BrokerConfig, ConfigDef, ConfigEntry, ConfigError, ConfigSource, ConfigSynonym};
use super::{ConfigType, Layers, Overrides, Rule};

/// Where a share group begins to read a partition that it has not read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoOffsetReset {
    Latest,
    Earliest,
    /// At the first record of so many milliseconds ago.
    ByDuration {
        ms: i64,
    },
}

/// The effective settings of a group; None: what the broker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupSettings {
    pub consumer_heartbeat_interval_ms: Option<i32>,
    pub consumer_session_timeout_ms: Option<i32>,
    pub share_auto_offset_reset: AutoOffsetReset,
    pub share_heartbeat_interval_ms: Option<i32>,
    pub share_read_committed: bool,
    pub share_record_lock_duration_ms: Option<i32>,
    pub share_session_timeout_ms: Option<i32>,
}

const CONSUMER_HEARTBEAT: &str = "consumer.heartbeat.interval.ms";
const CONSUMER_SESSION: &str = "consumer.session.timeout.ms";
const RESET: &str = "share.auto.offset.reset";
const SHARE_HEARTBEAT: &str = "share.heartbeat.interval.ms";
const ISOLATION: &str = "share.isolation.level";
const LOCK: &str = "share.record.lock.duration.ms";
const SHARE_SESSION: &str = "share.session.timeout.ms";

/// Sorted by name. A setting without a default here has the value of its broker setting, whose name is the same behind
/// `group.`.
static TABLE: &[ConfigDef] = &[
    ConfigDef {
        name: CONSUMER_HEARTBEAT,
        kind: ConfigType::Int,
        default: None,
        rule: Rule::AtLeast(1),
        doc: "How often a member of the group, by the consumer protocol, says that it is there.",
    },
    ConfigDef {
        name: CONSUMER_SESSION,
        kind: ConfigType::Int,
        default: None,
        rule: Rule::AtLeast(1),
        doc: "How long a member of the group, by the consumer protocol, may be silent.",
    },
    ConfigDef {
        name: RESET,
        kind: ConfigType::String,
        default: Some("latest"),
        rule: Rule::OffsetReset,
        doc: "Where a share group begins to read: latest, earliest, or by_duration: and an ISO 8601 duration.",
    },
    ConfigDef {
        name: SHARE_HEARTBEAT,
        kind: ConfigType::Int,
        default: None,
        rule: Rule::Between(5_000, 15_000),
        doc: "How often a member of the share group says that it is there.",
    },
    ConfigDef {
        name: ISOLATION,
        kind: ConfigType::String,
        default: Some("read_uncommitted"),
        rule: Rule::OneOf(&["read_committed", "read_uncommitted"]),
        doc: "Whether records of transactions are given before they are committed.",
    },
    ConfigDef {
        name: LOCK,
        kind: ConfigType::Int,
        default: None,
        rule: Rule::Between(1_000, 3_600_000),
        doc: "How long a member of the share group has a record before others get it.",
    },
    ConfigDef {
        name: SHARE_SESSION,
        kind: ConfigType::Int,
        default: None,
        rule: Rule::Between(45_000, 60_000),
        doc: "How long a member of the share group may be silent.",
    },
];

/// The setting of this name.
pub fn group_config_def(name: &str) -> Option<ConfigDef> {
    TABLE.iter().find(|row| row.name == name).copied()
}

/// What `share.auto.offset.reset` says.
pub(super) fn offset_reset(raw: &str) -> Option<AutoOffsetReset> {
    match raw {
        "latest" => Some(AutoOffsetReset::Latest),
        "earliest" => Some(AutoOffsetReset::Earliest),
        other => {
            let ms = duration_ms(other.strip_prefix("by_duration:")?)?;
            Some(AutoOffsetReset::ByDuration { ms })
        }
    }
}

/// An ISO 8601 duration of days, hours, minutes and seconds, such as `P1DT2H`; milliseconds.
fn duration_ms(text: &str) -> Option<i64> {
    let rest = text.strip_prefix('P')?;
    let (days, times) = rest.split_once('T').unwrap_or((rest, ""));
    let mut total = 0i64;
    let mut any = false;
    for (part, units) in [(days, &[('D', 86_400_000)][..]), (times, TIMES)] {
        let mut number = String::new();
        let mut left = units;
        for c in part.chars() {
            if c.is_ascii_digit() {
                number.push(c);
                continue;
            }
            let at = left.iter().position(|(unit, _)| *unit == c)?;
            let amount: i64 = number.parse().ok()?;
            total = total.checked_add(amount.checked_mul(left[at].1)?)?;
            left = &left[at + 1..];
            number.clear();
            any = true;
        }
        if !number.is_empty() {
            return None;
        }
    }
    any.then_some(total)
}

const TIMES: &[(char, i64)] = &[('H', 3_600_000), ('M', 60_000), ('S', 1_000)];

impl GroupSettings {
    /// The settings of a group with these overrides, which are valid. What is outside of the bounds of this broker, which
    /// may have been others when it was set, is at the nearer one.
    pub fn resolve(overrides: &Overrides, broker: &BrokerConfig) -> GroupSettings {
        let bounded = |name: &str| {
            let ms = number(overrides, name)?;
            Some(bounds_of(name, broker).map_or(ms, |bounds| within(ms, bounds)))
        };
        let reset = overrides.get(RESET).and_then(|raw| offset_reset(raw));
        let isolation = overrides.get(ISOLATION).map(String::as_str);
        GroupSettings {
            consumer_heartbeat_interval_ms: bounded(CONSUMER_HEARTBEAT),
            consumer_session_timeout_ms: bounded(CONSUMER_SESSION),
            share_auto_offset_reset: reset.unwrap_or(AutoOffsetReset::Latest),
            share_heartbeat_interval_ms: number(overrides, SHARE_HEARTBEAT),
            share_read_committed: isolation == Some("read_committed"),
            share_record_lock_duration_ms: number(overrides, LOCK),
            share_session_timeout_ms: number(overrides, SHARE_SESSION),
        }
    }
}

fn number(overrides: &Overrides, name: &str) -> Option<i32> {
    overrides.get(name).and_then(|raw| raw.parse().ok())
}

/// The least and the most that this broker allows for a setting of a group.
fn bounds_of(name: &str, broker: &BrokerConfig) -> Option<(i32, i32)> {
    match name {
        CONSUMER_HEARTBEAT => Some(broker.group_consumer_heartbeat_interval_bounds_ms),
        CONSUMER_SESSION => Some(broker.group_consumer_session_timeout_bounds_ms),
        _ => None,
    }
}

/// Refuses settings of a group that this broker's own bounds do not allow.
///
/// # Errors
/// [`ConfigError::Invalid`] with the bound.
pub fn check_group(overrides: &Overrides, broker: &BrokerConfig) -> Result<(), ConfigError> {
    for (name, value) in overrides {
        let (Some(bounds), Some(ms)) = (bounds_of(name, broker), number(overrides, name)) else {
            continue;
        };
        if within(ms, bounds) != ms {
            let (min, max) = bounds;
            return Err(ConfigError::Invalid {
                name: name.clone(),
                value: value.clone(),
                reason: format!("Value must be {min} to {max}, as the broker says"),
            });
        }
    }
    Ok(())
}

/// Every setting of a group with these overrides.
pub fn describe_group(overrides: &Overrides, layers: Layers<'_>) -> Vec<ConfigEntry> {
    let entry = |row: &ConfigDef| {
        let mut synonyms = Vec::new();
        if let Some(value) = overrides.get(row.name) {
            synonyms.push((value.clone(), ConfigSource::Group));
        }
        match row.default {
            Some(value) => synonyms.push((value.to_string(), ConfigSource::Default)),
            None => {
                let of_broker = format!("group.{}", row.name);
                let broker = layers.get(&of_broker);
                let broker = broker.map(|(value, source)| (value.to_string(), source));
                let default = super::broker_config_def(&of_broker).and_then(|d| d.def.default);
                let default = default.map(|value| (value.to_string(), ConfigSource::Default));
                synonyms.extend(broker.or(default));
            }
        }
        let (value, source) = match synonyms.first() {
            Some((value, source)) => (Some(value.clone()), *source),
            None => (None, ConfigSource::Default),
        };
        let synonym = |(value, source)| ConfigSynonym {
            name: row.name,
            value: Some(value),
            source,
        };
        ConfigEntry {
            name: row.name,
            value,
            source,
            kind: row.kind,
            read_only: false,
            sensitive: false,
            synonyms: synonyms.into_iter().map(synonym).collect(),
            doc: row.doc,
        }
    };
    TABLE.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::config::ConfigEdit;

    #[test]
    fn settings_are_checked_and_resolved() {
        let parse = |name: &str, value: &str| {
            let edit = ConfigEdit::set([(name.to_string(), Some(value.to_string()))]);
            edit.apply_to_group(&Overrides::new())
        };
        assert_eq!(offset_reset("latest"), Some(AutoOffsetReset::Latest));
        assert_eq!(offset_reset("earliest"), Some(AutoOffsetReset::Earliest));
        let ms = 26 * 3_600_000 + 3_000;
        let by = Some(AutoOffsetReset::ByDuration { ms });
        assert_eq!(offset_reset("by_duration:P1DT2H3S"), by);
        for bad in [
            "none",
            "by_duration:",
            "by_duration:P",
            "by_duration:PT1",
            "by_duration:PT1S1H",
        ] {
            assert_eq!(offset_reset(bad), None, "{bad}");
            assert!(parse(RESET, bad).is_err(), "{bad}");
        }
        assert!(parse(ISOLATION, "read_committed").is_ok());
        assert!(parse(ISOLATION, "other").is_err());
        assert!(parse(LOCK, "999").is_err());
        assert!(parse("share.unknown", "1").is_err());
        assert!(parse(SHARE_SESSION, "44999").is_err());
        assert!(parse(SHARE_HEARTBEAT, "15000").is_ok());
    }

    #[test]
    fn bounds_of_the_broker_hold_for_groups() {
        let of = |name: &str, value: &str| Overrides::from([(name.to_string(), value.to_string())]);
        let nothing = Overrides::new();
        let layers = |fixed| Layers {
            node: &nothing,
            cluster: &nothing,
            fixed,
        };
        let broker = BrokerConfig::resolve(layers(&nothing)).unwrap();
        for (name, value, fits) in [
            (CONSUMER_SESSION, "44999", false),
            (CONSUMER_SESSION, "45000", true),
            (CONSUMER_SESSION, "60001", false),
            (CONSUMER_HEARTBEAT, "4999", false),
            (CONSUMER_HEARTBEAT, "15000", true),
            (SHARE_SESSION, "45000", true),
        ] {
            let checked = check_group(&of(name, value), &broker);
            assert_eq!(checked.is_ok(), fits, "{name} {value}");
        }
        // Bounds that were others when it was set.
        let stored = GroupSettings::resolve(&of(CONSUMER_SESSION, "70000"), &broker);
        assert_eq!(stored.consumer_session_timeout_ms, Some(60_000));
        let stored = GroupSettings::resolve(&of(LOCK, "5000"), &broker);
        assert_eq!(stored.share_record_lock_duration_ms, Some(5_000));
        let fixed = of("group.consumer.min.session.timeout.ms", "1000");
        let broker = BrokerConfig::resolve(layers(&fixed)).unwrap();
        assert!(check_group(&of(CONSUMER_SESSION, "1000"), &broker).is_ok());
    }

    #[test]
    fn every_setting_without_a_default_has_a_broker_setting() {
        for row in TABLE.iter().filter(|row| row.default.is_none()) {
            let of_broker = super::super::broker_config_def(&format!("group.{}", row.name));
            assert!(
                of_broker.is_some_and(|d| d.def.default.is_some()),
                "{}",
                row.name
            );
        }
        assert!(TABLE.is_sorted_by_key(|row| row.name));
    }
}
