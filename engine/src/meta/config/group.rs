//! The table of settings of groups, and the struct the rest of a broker reads them from.
//! Knows nothing of groups themselves: a name has settings whether there is such a group or not.
//! Keeps every stored value valid: what is in an image has been parsed by its table's row.

use super::{ConfigDef, ConfigEntry, ConfigSource, ConfigSynonym, ConfigType};
use super::{Layers, Overrides, Rule};

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

/// The effective settings of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupSettings {
    pub share_auto_offset_reset: AutoOffsetReset,
    pub share_read_committed: bool,
    /// None: what the broker says.
    pub share_record_lock_duration_ms: Option<i32>,
}

const RESET: &str = "share.auto.offset.reset";
const ISOLATION: &str = "share.isolation.level";
const LOCK: &str = "share.record.lock.duration.ms";

/// Sorted by name. A setting without a default here has that of its broker setting.
static TABLE: &[ConfigDef] = &[
    ConfigDef {
        name: RESET,
        kind: ConfigType::String,
        default: Some("latest"),
        rule: Rule::OffsetReset,
        doc: "Where a share group begins to read: latest, earliest, or by_duration: and an ISO 8601 duration.",
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
];

/// The broker setting that a group's stands in for.
const LOCK_OF_BROKER: &str = "group.share.record.lock.duration.ms";

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
    /// The settings of a group with these overrides, which are valid.
    pub fn resolve(overrides: &Overrides) -> GroupSettings {
        let reset = overrides.get(RESET).and_then(|raw| offset_reset(raw));
        let isolation = overrides.get(ISOLATION).map(String::as_str);
        let lock_ms = overrides.get(LOCK).and_then(|raw| raw.parse().ok());
        GroupSettings {
            share_auto_offset_reset: reset.unwrap_or(AutoOffsetReset::Latest),
            share_read_committed: isolation == Some("read_committed"),
            share_record_lock_duration_ms: lock_ms,
        }
    }
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
                let broker = layers.get(LOCK_OF_BROKER);
                let broker = broker.map(|(value, source)| (value.to_string(), source));
                let default = super::broker_config_def(LOCK_OF_BROKER).and_then(|d| d.def.default);
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
        let set = Overrides::from([(LOCK.to_string(), "5000".to_string())]);
        assert_eq!(
            GroupSettings::resolve(&set).share_record_lock_duration_ms,
            Some(5_000)
        );
    }
}
