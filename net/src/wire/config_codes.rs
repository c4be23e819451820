//! Owns the small numbers that the APIs about configurations share.
//! Does not know which configurations exist.
//! Keeps: the values are Kafka's.

/// What kind of thing is configured.
pub mod resource {
    pub const TOPIC: i8 = 2;
    pub const BROKER: i8 = 4;
    pub const BROKER_LOGGER: i8 = 8;
    pub const CLIENT_METRICS: i8 = 16;
    pub const GROUP: i8 = 32;
}

/// Where the value of a configuration comes from.
pub mod source {
    pub const UNKNOWN: i8 = 0;
    pub const TOPIC: i8 = 1;
    pub const DYNAMIC_BROKER: i8 = 2;
    pub const DYNAMIC_DEFAULT_BROKER: i8 = 3;
    pub const STATIC_BROKER: i8 = 4;
    pub const DEFAULT: i8 = 5;
    pub const DYNAMIC_BROKER_LOGGER: i8 = 6;
    pub const CLIENT_METRICS: i8 = 7;
    pub const GROUP: i8 = 8;
}

/// The type of a configuration's value.
pub mod kind {
    pub const UNKNOWN: i8 = 0;
    pub const BOOLEAN: i8 = 1;
    pub const STRING: i8 = 2;
    pub const INT: i8 = 3;
    pub const SHORT: i8 = 4;
    pub const LONG: i8 = 5;
    pub const DOUBLE: i8 = 6;
    pub const LIST: i8 = 7;
    pub const CLASS: i8 = 8;
    pub const PASSWORD: i8 = 9;
}

/// What IncrementalAlterConfigs does to a configuration.
pub mod operation {
    pub const SET: i8 = 0;
    /// Back to the default.
    pub const DELETE: i8 = 1;
    /// Add to a list.
    pub const APPEND: i8 = 2;
    /// Take out of a list.
    pub const SUBTRACT: i8 = 3;
}
