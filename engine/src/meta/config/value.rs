//! One setting: its type, default and bounds, and how its text becomes a value.
//! Knows nothing of which settings exist.
//! Keeps parsing total: every text gives a valid value or an error that names the setting.

use super::ConfigError;
use crate::meta::limits;
use std::fmt;

/// The type of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigType {
    Boolean,
    String,
    Int,
    Short,
    Long,
    Double,
    List,
    Class,
    Password,
}

impl ConfigType {
    /// The number of this type in DescribeConfigs.
    pub fn code(self) -> i8 {
        match self {
            ConfigType::Boolean => 1,
            ConfigType::String => 2,
            ConfigType::Int => 3,
            ConfigType::Short => 4,
            ConfigType::Long => 5,
            ConfigType::Double => 6,
            ConfigType::List => 7,
            ConfigType::Class => 8,
            ConfigType::Password => 9,
        }
    }

    fn name(self) -> &'static str {
        match self {
            ConfigType::Boolean => "BOOLEAN",
            ConfigType::String => "STRING",
            ConfigType::Int => "INT",
            ConfigType::Short => "SHORT",
            ConfigType::Long => "LONG",
            ConfigType::Double => "DOUBLE",
            ConfigType::List => "LIST",
            ConfigType::Class => "CLASS",
            ConfigType::Password => "PASSWORD",
        }
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigSource {
    DynamicTopic,
    DynamicBroker,
    DynamicDefaultBroker,
    StaticBroker,
    Default,
    Group,
}

impl ConfigSource {
    /// The number of this source in DescribeConfigs.
    pub fn code(self) -> i8 {
        match self {
            ConfigSource::DynamicTopic => 1,
            ConfigSource::DynamicBroker => 2,
            ConfigSource::DynamicDefaultBroker => 3,
            ConfigSource::StaticBroker => 4,
            ConfigSource::Default => 5,
            ConfigSource::Group => 8,
        }
    }
}

/// What a value must satisfy beyond its type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    /// A number of 0 to 1.
    Ratio,
    /// Text, one of these.
    OneOf(&'static [&'static str]),
    /// A list without repetition of any of these.
    SubsetOf(&'static [&'static str]),
    /// -1 for the codec's default, or a level of gzip.
    GzipLevel,
    /// `*`, `none`, or a list of `partition:broker`.
    ThrottledReplicas,
    /// A switch for something that does not exist here: it can only be off; the text says why.
    OnlyFalse(&'static str),
    /// `latest`, `earliest`, or `by_duration:` and an ISO 8601 duration.
    OffsetReset,
}

/// One setting of a table.
#[derive(Debug, Clone, Copy)]
pub struct ConfigDef {
    pub name: &'static str,
    pub kind: ConfigType,
    /// As text; `None` is Kafka's null (not set).
    pub default: Option<&'static str>,
    pub rule: Rule,
    pub doc: &'static str,
}

/// A parsed value. Its text is canonical: parsing it again gives the same value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    List(Vec<String>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(v) => write!(f, "{v}"),
            Value::Int(v) => write!(f, "{v}"),
            Value::Double(v) => write!(f, "{v:?}"),
            Value::Text(v) => f.write_str(v),
            Value::List(v) => f.write_str(&v.join(",")),
        }
    }
}

/// What a message quotes of a hostile text.
pub(super) fn shorten(text: &str) -> String {
    const QUOTED_MAX: usize = 128;
    if text.chars().count() <= QUOTED_MAX {
        return text.to_string();
    }
    let mut short: String = text.chars().take(QUOTED_MAX).collect();
    short.push_str("...");
    short
}

impl ConfigDef {
    fn invalid(&self, value: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError::Invalid {
            name: self.name.to_string(),
            value: shorten(value),
            reason: reason.into(),
        }
    }

    /// Parses and checks a text.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with Kafka's reason.
    pub fn parse(&self, raw: &str) -> Result<Value, ConfigError> {
        if raw.len() > limits::CONFIG_VALUE_LEN_MAX {
            let reason = format!(
                "Value must be at most {} bytes long",
                limits::CONFIG_VALUE_LEN_MAX
            );
            return Err(self.invalid(raw, reason));
        }
        if raw.chars().any(|c| c.is_control() && !c.is_whitespace()) {
            return Err(self.invalid(
                &raw.escape_debug().to_string(),
                "Value must not have control characters",
            ));
        }
        let text = raw.trim();
        let value = match self.kind {
            ConfigType::Boolean if text.eq_ignore_ascii_case("true") => Value::Bool(true),
            ConfigType::Boolean if text.eq_ignore_ascii_case("false") => Value::Bool(false),
            ConfigType::Boolean => {
                return Err(self.invalid(raw, "Expected value to be either true or false"))
            }
            ConfigType::Int => Value::Int(i64::from(self.number::<i32>(raw, text)?)),
            ConfigType::Short => Value::Int(i64::from(self.number::<i16>(raw, text)?)),
            ConfigType::Long => Value::Int(self.number::<i64>(raw, text)?),
            ConfigType::Double => Value::Double(self.number::<f64>(raw, text)?),
            ConfigType::List if text.is_empty() => Value::List(Vec::new()),
            ConfigType::List => Value::List(
                text.split(',')
                    .map(|item| item.trim().to_string())
                    .collect(),
            ),
            ConfigType::String | ConfigType::Class | ConfigType::Password => {
                Value::Text(text.to_string())
            }
        };
        self.check(raw, &value)?;
        Ok(value)
    }

    /// The default as a value; `None` where Kafka's is null.
    pub fn default_value(&self) -> Option<Value> {
        self.default.map(|text| match self.parse(text) {
            Ok(value) => value,
            Err(e) => panic!("the default of a setting is invalid: {e}"),
        })
    }

    fn number<T: std::str::FromStr>(&self, raw: &str, text: &str) -> Result<T, ConfigError> {
        text.parse()
            .map_err(|_| self.invalid(raw, format!("Not a number of type {}", self.kind.name())))
    }

    fn check(&self, raw: &str, value: &Value) -> Result<(), ConfigError> {
        let refuse = |reason: String| Err(self.invalid(raw, reason));
        match (self.rule, value) {
            (Rule::AtLeast(min), Value::Int(v)) if *v < min => {
                refuse(format!("Value must be at least {min}"))
            }
            (Rule::Between(min, _), Value::Int(v)) if *v < min => {
                refuse(format!("Value must be at least {min}"))
            }
            (Rule::Between(_, max), Value::Int(v)) if *v > max => {
                refuse(format!("Value must be no more than {max}"))
            }
            (Rule::Ratio, Value::Double(v)) if v.is_nan() || *v < 0.0 => {
                refuse("Value must be at least 0".to_string())
            }
            (Rule::Ratio, Value::Double(v)) if *v > 1.0 => {
                refuse("Value must be no more than 1".to_string())
            }
            (Rule::OneOf(valid), Value::Text(v)) if !valid.contains(&v.as_str()) => {
                refuse(format!("String must be one of: {}", valid.join(", ")))
            }
            (Rule::SubsetOf(valid), Value::List(items)) => {
                for (at, item) in items.iter().enumerate() {
                    if !valid.contains(&item.as_str()) {
                        return refuse(format!("String must be one of: {}", valid.join(", ")));
                    }
                    if items[..at].contains(item) {
                        return refuse("Configuration values must not be duplicated.".to_string());
                    }
                }
                Ok(())
            }
            (Rule::GzipLevel, Value::Int(v)) if *v != -1 && !(1..=9).contains(v) => {
                refuse("Value must be between 1 and 9 or equal to -1".to_string())
            }
            (Rule::ThrottledReplicas, Value::List(items)) if !throttled_replicas(items) => refuse(
                "must be the literal '*' or 'none', or a list of replicas in the form \
                 '[partitionId]:[brokerId],...'"
                    .to_string(),
            ),
            (Rule::OffsetReset, Value::Text(v)) if super::group::offset_reset(v).is_none() => {
                refuse(
                    "must be 'latest', 'earliest' or 'by_duration:' and an ISO 8601 duration"
                        .to_string(),
                )
            }
            (Rule::OnlyFalse(reason), Value::Bool(true)) => refuse(reason.to_string()),
            (
                Rule::Any
                | Rule::AtLeast(_)
                | Rule::Between(..)
                | Rule::Ratio
                | Rule::OneOf(_)
                | Rule::SubsetOf(_)
                | Rule::GzipLevel
                | Rule::ThrottledReplicas
                | Rule::OnlyFalse(_)
                | Rule::OffsetReset,
                _,
            ) => Ok(()),
        }
    }
}

fn throttled_replicas(items: &[String]) -> bool {
    let literal = items.len() == 1 && (items[0] == "*" || items[0] == "none");
    literal
        || items.iter().all(|item| {
            item.split_once(':').is_some_and(|(partition, broker)| {
                [partition, broker]
                    .iter()
                    .all(|n| n.parse::<u32>().is_ok_and(|n| n <= i32::MAX as u32))
            })
        })
}
